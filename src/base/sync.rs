//! Locks and threads, in one place, so that a model checker or a simulator can stand in for them.

mod brief;
mod once;
#[cfg(test)]
pub mod shaken;

pub use brief::{BriefGuard, BriefLock};
pub use once::{LazyLock, OnceLock};

pub use parking_lot::{Condvar, MutexGuard, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(test))]
pub use parking_lot::{Mutex, RwLock};
#[cfg(test)]
pub use shaken::{Mutex, RwLock};
pub use std::sync::Arc;
pub use std::sync::atomic;

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use std::thread::{JoinHandle, Scope, ScopedJoinHandle};

/// Stack of a library thread, in bytes: user callbacks run on some of them.
const STACK_BYTES: usize = 8 << 20;

/// Starts a thread of the library: named, with all signals blocked (they belong to the host program).
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let body = as_shaken(body);
    let blocked = SignalsBlocked::new();
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(body);
    drop(blocked);
    thread.map_err(|e| cannot_create(name, &e))
}

/// Like `spawn`, for a thread that ends within `scope`.
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
#[cfg(test)]
fn as_shaken<T>(body: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let seed = shaken::handed_down();
    move || {
        shaken::shake(seed);
        body()
    }
}

#[cfg(not(test))]
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
