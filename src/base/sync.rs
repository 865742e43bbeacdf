//! Locks, atomics and threads, in one place, so that a model checker can stand in for them.
//!
//! The whole crate takes them from here. With `--cfg kv_model="loom"` or `"shuttle"` (`make models`) they are the checker's
//! (`modelled`), in unit tests locks can be shaken (`shaken`); else they are parking_lot's and std's themselves, and nothing
//! stands in between. What lives as long as the process and has no order to keep (ids, flags of a fork) stays std's.

#[cfg(not(kv_model))]
mod brief;
#[cfg(kv_model)]
mod modelled;
mod once;
#[cfg(test)]
#[cfg_attr(kv_model, allow(dead_code))]
pub mod shaken;
pub mod watch;

#[cfg(not(kv_model))]
pub use brief::{BriefGuard, BriefLock};
#[cfg(kv_model)]
pub(crate) use modelled::thread_local;
#[cfg(kv_model)]
pub use modelled::{Condvar, JoinHandle, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic, sleep, yield_now};
#[cfg(kv_model)]
pub use modelled::{Mutex as BriefLock, MutexGuard as BriefGuard};
pub use once::{LazyLock, OnceLock};
#[cfg(all(not(test), not(kv_model)))]
pub use parking_lot::{Mutex, RwLock};
#[cfg(all(test, not(kv_model)))]
pub use shaken::{Mutex, RwLock};
pub use std::sync::Arc;
#[cfg(not(kv_model))]
pub(crate) use std::thread_local;
#[cfg(not(kv_model))]
pub use {
    parking_lot::{Condvar, MutexGuard, RwLockReadGuard, RwLockWriteGuard},
    std::sync::atomic,
    std::thread::{JoinHandle, sleep, yield_now},
};

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use std::thread::{Scope, ScopedJoinHandle};

#[cfg(kv_model)]
use modelled::ThreadBuilder;
#[cfg(not(kv_model))]
use std::thread::Builder as ThreadBuilder;

/// Stack of a library thread, in bytes: user callbacks run on some of them.
const STACK_BYTES: usize = 8 << 20;

/// Starts a thread of the library: named, with all signals blocked (they belong to the host program).
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let body = as_shaken(body);
    let blocked = SignalsBlocked::new();
    let thread = ThreadBuilder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(body);
    drop(blocked);
    thread.map_err(|e| cannot_create(name, &e))
}

/// Like `spawn`, for a thread that ends within `scope`. Checkers do not see it: it shares nothing that changes.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    name: &str,
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let body = as_shaken(body);
    let blocked = SignalsBlocked::new();
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, body);
    drop(blocked);
    thread.map_err(|e| cannot_create(name, &e))
}

/// A thread of a test that shakes its locks starts threads that do.
#[cfg(all(test, not(kv_model)))]
fn as_shaken<T>(body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let seed = shaken::handed_down();
    move || {
        shaken::shake(seed);
        body()
    }
}

#[cfg(any(not(test), kv_model))]
fn as_shaken<T>(body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    body
}

fn cannot_create(name: &str, error: &std::io::Error) -> Error {
    Error::new(Code::THREAD_CREATE, format!("thread {name} cannot be created: {error}; raise the limit of threads or memory"))
}

/// Blocks every signal in this thread while it lives: a thread that is created meanwhile inherits that for good.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    #[allow(unsafe_code)]
    fn new() -> Self {
        // SAFETY: both sets are plain data of the right size, filled by libc before they are read.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            SignalsBlocked { before }
        }
    }
}

impl Drop for SignalsBlocked {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: `before` was filled by `pthread_sigmask` in `new`.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
        }
    }
}
