//! The limit of file sizes (`RLIMIT_FSIZE`): the kernel sends SIGXFSZ to the thread that would pass it, and that
//! kills a host program by default. Writes are made under this guard, so that all that comes is EFBIG.
//!
//! Costs one `getrlimit` where there is no limit. Never installs a handler: signals belong to the host.
#![allow(unsafe_code)]

use std::ptr;

/// Keeps SIGXFSZ off this thread while it lives, and takes away the one that its write brought about.
pub(super) struct SizeLimit {
    /// The thread's mask from before; `None` when there was nothing to guard against.
    before: Option<libc::sigset_t>,
}

impl SizeLimit {
    /// To be held around a call that may make a file `end` bytes long.
    pub(super) fn before_growing_to(end: u64) -> Self {
        if end <= size_limit() || pending() {
            // Pending already: it is blocked, and another one adds nothing to it. It is not ours to take away.
            return SizeLimit { before: None };
        }
        let only = set_of_sigxfsz();
        // SAFETY: both sets are plain data, `before` is filled by the call before it is read.
        unsafe {
            let mut before: libc::sigset_t = std::mem::zeroed();
            match libc::pthread_sigmask(libc::SIG_BLOCK, &only, &mut before) {
                0 => SizeLimit { before: Some(before) },
                _ => SizeLimit { before: None },
            }
        }
    }
}

impl Drop for SizeLimit {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        if pending() {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the set and the time are valid for the call; no information about the signal is wanted.
            unsafe { libc::sigtimedwait(&set_of_sigxfsz(), ptr::null_mut(), &now) };
        }
        // SAFETY: `before` was filled by `pthread_sigmask`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    }
}

fn size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a place of the right type; if the call fails it keeps saying that there is no limit.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// Whether SIGXFSZ waits for this thread or for the process.
fn pending() -> bool {
    // SAFETY: the set is plain data, filled by the call before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut set) == 0 && libc::sigismember(&set, libc::SIGXFSZ) == 1
    }
}

fn set_of_sigxfsz() -> libc::sigset_t {
    // SAFETY: the set is plain data that `sigemptyset` makes valid before a member is added.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGXFSZ);
        set
    }
}
