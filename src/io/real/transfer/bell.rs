//! What wakes a mover's thread while it sleeps in the kernel: an eventfd, written to only while somebody sleeps on it.
//!
//! Used by both movers and by all who hand them work. Never: writes to a descriptor that has become somebody else's file,
//! because the host program has closed all it did not know. Then a new eventfd is made; what was missed until then waits
//! for the sleeper's patience to end.
#![allow(unsafe_code)]

use super::super::sys;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// See the file.
pub struct Bell {
    /// The mover's thread sleeps, or is about to.
    asleep: AtomicBool,
    event: Mutex<Event>,
}

struct Event {
    fd: ManuallyDrop<OwnedFd>,
    identity: (libc::dev_t, libc::ino_t, libc::mode_t),
}

impl Event {
    fn new() -> io::Result<Event> {
        // SAFETY: takes no memory; a descriptor or -1 comes back.
        let fd = sys::retry(|| unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let stat = sys::stat(fd.as_fd())?;
        Ok(Event { fd: ManuallyDrop::new(fd), identity: (stat.st_dev, stat.st_ino, stat.st_mode) })
    }

    /// Whether the number still is no file of the host program: eventfds and their like share one identity.
    fn is_ours(&self) -> bool {
        sys::stat(self.fd.as_fd()).is_ok_and(|stat| (stat.st_dev, stat.st_ino, stat.st_mode) == self.identity)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.fd) }
        }
    }
}

impl Bell {
    /// A bell; needs a descriptor.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell { asleep: AtomicBool::new(false), event: Mutex::new(Event::new()?) })
    }

    /// Said by the mover's thread before it looks for work a last time: whoever brings some from now on, rings.
    pub fn about_to_sleep(&self) {
        self.asleep.store(!planted(Bug::BellUnheard), Ordering::SeqCst);
    }

    /// Said by the mover's thread when it is up.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Wakes the mover's thread if it sleeps. To be called after the work was put where the thread looks for it.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            let event = self.event.lock();
            if event.is_ours() {
                let one = 1_u64;
                // SAFETY: eight bytes are read from `one`. That it fails can only mean that it is ringing already.
                unsafe { libc::write(event.fd.as_raw_fd(), (&raw const one).cast(), 8) };
            }
        }
    }

    /// The descriptor to sleep on, a new one if the old was taken away (true); `None` if none is to be had.
    pub(super) fn descriptor(&self) -> Option<(RawFd, bool)> {
        let mut event = self.event.lock();
        let fresh = !event.is_ours();
        if fresh {
            *event = Event::new().ok()?;
        }
        Some((event.fd.as_raw_fd(), fresh))
    }

    /// Makes it silent again.
    pub(super) fn silence(&self) {
        let event = self.event.lock();
        if event.is_ours() {
            let mut count = 0_u64;
            // SAFETY: eight bytes are written to `count`; the descriptor never blocks.
            unsafe { libc::read(event.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
    }
}
