//! What both movers agree on: what the result of one system call means for a transfer, and the calls themselves.
//!
//! A transfer from or to a file goes on until it is whole, the file ends, or an error is met. A read from a pipe, a socket
//! or a terminal ends with what is there. Never: counts a part of a write as a write.
#![allow(unsafe_code)]

use super::{Transfer, Way};
use std::io;
use std::os::fd::RawFd;

/// Interruptions in a row after which a transfer is given up.
const IDLE_CALLS_MAX: u32 = 1000;

impl Transfer {
    /// Takes in what a call returned (bytes or a negative errno). `None`: another call is due; else how it has ended.
    pub(super) fn after_call(&mut self, returned: i32, cancelled: bool) -> Option<i32> {
        let end = self.judge(returned);
        match end {
            None if cancelled => Some(-libc::ECANCELED),
            Some(error) if cancelled && error == -libc::EINTR => Some(-libc::ECANCELED),
            end => end,
        }
    }

    fn judge(&mut self, returned: i32) -> Option<i32> {
        match returned {
            _ if self.way == Way::Sync => Some(returned.min(0)),
            again if again == -libc::EINTR || (again == -libc::EAGAIN && !may_wait_for_ever(self.fd)) => {
                self.idle_calls += 1;
                (self.idle_calls > IDLE_CALLS_MAX).then_some(again)
            }
            error if error < 0 => Some(error),
            0 if self.way == Way::Read => Some(self.done as i32),
            // A full disk may show itself this way.
            0 if self.idle_calls > 0 => Some(-libc::ENOSPC),
            0 => {
                self.idle_calls += 1;
                None
            }
            bytes => {
                self.idle_calls = 0;
                self.advance(bytes as usize);
                let whole = self.done >= self.total || (self.way == Way::Read && may_wait_for_ever(self.fd));
                whole.then_some(self.done as i32)
            }
        }
    }

    /// The one system call that is due; bytes or a negative errno. `now`: with `-EAGAIN` where it would have to wait.
    fn call(&self, now: bool) -> i32 {
        let (rest, offset) = (self.rest(), self.position());
        let (pieces, count) = (rest.as_ptr(), rest.len() as libc::c_int);
        let flags = if now { libc::RWF_NOWAIT } else { 0 };
        // SAFETY: `rest` and the memory it names stay valid, by the promise given when the transfer was made; the kernel
        // checks the descriptor and everything else.
        let returned = unsafe {
            match self.way {
                Way::Read => libc::preadv2(self.fd, pieces, count, offset, flags),
                Way::Write => libc::pwritev2(self.fd, pieces, count, offset, flags),
                Way::Sync => libc::fsync(self.fd) as isize,
            }
        };
        if returned < 0 { -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { returned as i32 }
    }

    /// Carries a transfer that waits for nobody through to its end.
    pub(super) fn carry_out(&mut self) -> i32 {
        loop {
            let returned = self.call(false);
            if let Some(result) = self.after_call(returned, false) {
                return result;
            }
        }
    }

    /// Does what can be done now for one that may wait for a peer; `None`: it has to wait on.
    pub(super) fn try_now(&mut self) -> Option<i32> {
        self.offset = -1; // streams have no places
        loop {
            let mut returned = self.call(true);
            if returned == -libc::EOPNOTSUPP || returned == -libc::EINVAL {
                // This one cannot be asked; poll has just said that it is ready.
                returned = self.call(false);
            } else if returned == -libc::EAGAIN && !is_nonblocking(self.fd) {
                return None;
            }
            if let Some(result) = self.after_call(returned, false) {
                return Some(result);
            }
            if returned > 0 {
                return None; // the rest when there is room again
            }
        }
    }

    /// Whether it may have to wait for a peer, who may never come.
    pub(super) fn may_wait_for_ever(&self) -> bool {
        self.way != Way::Sync && may_wait_for_ever(self.fd)
    }
}

/// Neither a regular file nor a disk. What is no open descriptor at all waits for nothing.
fn may_wait_for_ever(fd: RawFd) -> bool {
    // SAFETY: `stat` is plain data for which zeros are valid; the kernel fills it and checks the number.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &mut stat) == 0).then_some(stat)
    };
    stat.is_some_and(|stat| !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR))
}

fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: a number goes in, numbers come out.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}
