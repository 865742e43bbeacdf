//! A descriptor that knows which file it was made for. The host program owns the table that descriptors are numbers in: it
//! may close all of them (a daemon does), or put a file of its own in the place of one. That file is a stranger's.
//!
//! Used by all who keep a descriptor open. Never: a byte written, a length changed or a descriptor closed that is a stranger's.
//! Whoever writes asks first; a host that exchanges a descriptor in the very moment of a write is beyond anybody's help.
#![allow(unsafe_code)]

use super::sys;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Device and number: what tells a file from others.
pub(super) type Identity = (libc::dev_t, libc::ino_t);

/// See the file. Dropped, it is closed only if it still is what it was.
pub(super) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    identity: Identity,
}

impl Descriptor {
    /// Remembers the file that is open now.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = sys::stat(fd.as_fd())?;
        Ok(Descriptor { fd: ManuallyDrop::new(fd), identity: (stat.st_dev, stat.st_ino) })
    }

    /// The file that it was made for.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// What the kernel knows of the file; `EBADF` if the descriptor was closed, or is a stranger's.
    pub(super) fn check(&self) -> io::Result<libc::stat> {
        let stat = sys::stat(self.as_fd())?;
        if (stat.st_dev, stat.st_ino) == self.identity { Ok(stat) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if is_still(self.as_raw_fd(), self.identity) {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// Whether `fd` is open, and that file. Async-signal-safe.
pub(super) fn is_still(fd: RawFd, identity: Identity) -> bool {
    // SAFETY: the number is only asked about, and the borrow ends here.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    sys::stat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity)
}
