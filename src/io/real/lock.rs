//! The lock of a store: `flock` on a file in its directory, which says who holds it.
//!
//! Called through `io::Dir`. `flock` goes with the open file, and a child after fork shares that: it would keep the
//! lock when the parent dies. So every lock's descriptor stands in a table that the child's fork handler empties.
//! Never: unlock from a child, take the word of the file's text for a lock, or close a number that is a stranger's file by now.
#![allow(unsafe_code)]

use super::descriptor::{Identity, is_still};
use super::limit::SizeLimit;
use super::sys;
use crate::base::clock;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a lock that another holds is waited for: a process that ends right now lets go in that time.
const PATIENCE_MS: u64 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

const NONE: i32 = -1;
/// Of a slot that is about to be filled.
const TAKEN: i32 = -2;
/// Stores that one process may have open.
const LOCKS_MAX: usize = 1024;
/// Descriptors of all locks of this process: plain atomics, because a fork handler may use nothing else.
static LOCKS: [Slot; LOCKS_MAX] =
    [const { Slot { fd: AtomicI32::new(NONE), device: AtomicU64::new(0), number: AtomicU64::new(0) } }; LOCKS_MAX];

/// One lock's descriptor, and which file that is.
struct Slot {
    fd: AtomicI32,
    device: AtomicU64,
    number: AtomicU64,
}

impl Slot {
    fn identity(&self) -> Identity {
        (self.device.load(Ordering::Relaxed), self.number.load(Ordering::Relaxed))
    }
}

/// Closes all locks in a child after fork, so that they end with the parent. Async-signal-safe; for the child's
/// `pthread_atfork` handler only: in the parent it would open the stores to others.
pub fn close_locks_in_child() {
    for slot in &LOCKS {
        let fd = slot.fd.swap(NONE, Ordering::AcqRel);
        if fd >= 0 && is_still(fd, slot.identity()) {
            // SAFETY: whoever takes a descriptor out of the table owns it, and closes it once.
            unsafe { libc::close(fd) };
        }
    }
}

/// A lock that is held until this is dropped.
pub(super) struct Lock {
    slot: &'static Slot,
    fd: RawFd,
    pid: u32,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let identity = self.slot.identity();
        if self.slot.fd.compare_exchange(self.fd, NONE, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return; // A child whose fork handler closed it; the number may be another file's by now.
        }
        if !is_still(self.fd, identity) {
            return; // The host program closed it, and with it went the lock.
        }
        // SAFETY: taken out of the table, the descriptor is ours alone.
        let fd = unsafe { OwnedFd::from_raw_fd(self.fd) };
        if std::process::id() == self.pid {
            // Closing is not enough if a child without the fork handler holds the same open file.
            // SAFETY: the descriptor is open.
            unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
        }
    }
}

/// Takes the lock `name` in `dir`; `WouldBlock` if another holds it and does not let go.
pub(super) fn take(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Lock> {
    let deadline = clock::deadline(PATIENCE_MS);
    loop {
        let lock = register(sys::open_regular(dir, name, libc::O_RDWR | libc::O_CREAT)?)?;
        wait(lock.fd, libc::LOCK_EX, deadline)?;
        if has_its_name(dir, name, lock.fd)? {
            write_pid(lock.fd);
            return Ok(lock);
        }
        // Somebody removed the file meanwhile: a lock that no newcomer would meet is none.
        if deadline.is_none_or(|d| Instant::now() >= d) {
            return Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK));
        }
    }
}

/// Takes part in the lock `name` in `dir`, as a reader among readers; `WouldBlock` if somebody has it alone. Nothing is
/// written. `None` if there is no such file: then nobody has it.
pub(super) fn share(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Lock>> {
    match sys::open_regular(dir, name, libc::O_RDONLY) {
        Ok(fd) => {
            let lock = register(fd)?;
            wait(lock.fd, libc::LOCK_SH, clock::deadline(PATIENCE_MS))?;
            Ok(Some(lock))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the lock file says: a number, or nothing.
pub(super) fn holder(dir: BorrowedFd<'_>, name: &CStr) -> Option<String> {
    let fd = sys::open_regular(dir, name, libc::O_RDONLY).ok()?;
    let mut text = [0u8; 20];
    // SAFETY: the buffer is writable for the length given, the descriptor is open.
    let n = unsafe { libc::pread(fd.as_raw_fd(), text.as_mut_ptr().cast(), text.len(), 0) };
    let text = std::str::from_utf8(text.get(..usize::try_from(n).ok()?)?).ok()?.trim_end();
    text.parse::<u32>().is_ok().then(|| text.to_owned())
}

/// Puts `fd` into the table, before anything is locked with it.
fn register(fd: OwnedFd) -> io::Result<Lock> {
    let stat = sys::stat(fd.as_fd())?;
    let free = |slot: &&Slot| slot.fd.compare_exchange(NONE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    match LOCKS.iter().find(free) {
        Some(slot) => {
            slot.device.store(stat.st_dev, Ordering::Relaxed);
            slot.number.store(stat.st_ino, Ordering::Relaxed);
            slot.fd.store(fd.as_raw_fd(), Ordering::Release);
            Ok(Lock { slot, fd: fd.into_raw_fd(), pid: std::process::id() })
        }
        None => Err(io::Error::other(format!("this process has {LOCKS_MAX} stores open, which is the most"))),
    }
}

fn wait(fd: RawFd, how: libc::c_int, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open: it stands in the table, and only its `Lock` takes it out.
        match sys::retry(|| unsafe { libc::flock(fd, how | libc::LOCK_NB) }) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && deadline.is_some_and(|d| Instant::now() < d) => std::thread::sleep(PAUSE),
            other => return other.map(drop),
        }
    }
}

fn has_its_name(dir: BorrowedFd<'_>, name: &CStr, fd: RawFd) -> io::Result<bool> {
    // SAFETY: the descriptor is open (see `wait`), and the borrow ends within this function.
    let ours = sys::stat(unsafe { BorrowedFd::borrow_raw(fd) })?;
    match sys::stat_at(dir, name) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Says who holds the lock. For people only, so a full disk is no reason to fail.
fn write_pid(fd: RawFd) {
    let text = format!("{}\n", std::process::id());
    let _limit = SizeLimit::before_growing_to(text.len() as u64);
    // SAFETY: the descriptor is open (see `wait`); the text outlives the call.
    unsafe {
        if libc::ftruncate(fd, 0) == 0 {
            libc::pwrite(fd, text.as_ptr().cast(), text.len(), 0);
        }
    }
}
