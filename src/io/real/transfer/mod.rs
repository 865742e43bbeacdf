//! Transfers on descriptors of the host program: reads, writes and syncs, many in flight, ended one by one.
//!
//! Called by the room `uring`, from one thread of its own for each `Mover`. A ring does the work, or threads where a ring
//! is not to be had, and the rules for short transfers, interruptions and cancelling are the same for both (`call.rs`).
//! Never: keep a descriptor, close one, or end a transfer while the kernel may still use its memory.
#![allow(unsafe_code)]

mod bell;
mod call;
mod ring;
#[cfg(test)]
mod tests;
mod threads;

pub use bell::Bell;

use super::{Backend, wished};
use crate::base::log;
use crate::base::sync::Arc;
use libc::{c_void, iovec};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// What is done with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the descriptor into memory.
    Read,
    /// From memory to the descriptor.
    Write,
    /// Everything written so far onto stable storage.
    Sync,
}

/// One transfer, and how far it has come.
pub struct Transfer {
    way: Way,
    fd: RawFd,
    /// In bytes; -1: the descriptor's own position.
    offset: i64,
    one: iovec,
    /// Used instead of `one` if not empty; `first` of them are done.
    many: Vec<iovec>,
    first: usize,
    total: usize,
    done: usize,
    idle_calls: u32,
}

// SAFETY: the pointers in it are addresses of memory whose owner has promised (see the constructors) to leave it alone
// until the transfer has ended, whichever thread carries it out.
unsafe impl Send for Transfer {}

impl Transfer {
    /// One buffer, read from or written to `offset` (-1: the descriptor's own position).
    ///
    /// # Safety
    /// `len` bytes at `buffer` stay valid (for writing, if this reads) and untouched until the transfer has ended.
    pub unsafe fn buffer(way: Way, fd: RawFd, buffer: *mut c_void, len: usize, offset: i64) -> Self {
        Transfer { total: len, ..Self::new(way, fd, offset, iovec { iov_base: buffer, iov_len: len }) }
    }

    /// Several buffers, one behind the other in the file.
    ///
    /// # Safety
    /// As for `buffer`, for each of `pieces`; their lengths together fit into an `i32`.
    pub unsafe fn pieces(way: Way, fd: RawFd, pieces: Vec<iovec>, offset: i64) -> Self {
        let total = pieces.iter().map(|piece| piece.iov_len).sum();
        Transfer { many: pieces, total, ..Self::new(way, fd, offset, NOTHING) }
    }

    /// An fsync.
    pub fn sync(fd: RawFd) -> Self {
        Self::new(Way::Sync, fd, 0, NOTHING)
    }

    fn new(way: Way, fd: RawFd, offset: i64, one: iovec) -> Self {
        Transfer { way, fd, offset, one, many: Vec::new(), first: 0, total: 0, done: 0, idle_calls: 0 }
    }

    /// The memory that is left to do.
    fn rest(&self) -> &[iovec] {
        if self.many.is_empty() { std::slice::from_ref(&self.one) } else { &self.many[self.first..] }
    }

    /// Where in the file that is.
    fn position(&self) -> i64 {
        if self.offset < 0 { -1 } else { self.offset + self.done as i64 }
    }

    /// Takes `bytes` off the front of what is left.
    fn advance(&mut self, mut bytes: usize) {
        self.done += bytes;
        let pieces = if self.many.is_empty() { std::slice::from_mut(&mut self.one) } else { &mut self.many[self.first..] };
        let mut passed = 0;
        for piece in pieces {
            let part = bytes.min(piece.iov_len);
            piece.iov_base = piece.iov_base.wrapping_byte_add(part);
            piece.iov_len -= part;
            bytes -= part;
            if piece.iov_len > 0 {
                break;
            }
            passed += 1;
        }
        if !self.many.is_empty() {
            self.first += passed;
        }
    }
}

const NOTHING: iovec = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// A transfer that has ended: the key it was begun with, and bytes or a negative errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What `begin` was given.
    pub key: u32,
    /// Bytes, or a negative errno.
    pub result: i32,
}

/// Carries out transfers. Belongs to one thread, which makes it, drives it, and drops it when nothing is in flight.
pub trait Mover {
    /// Takes a transfer in hand; it ends in some later `turn`. At most as many at a time as the mover was made for.
    fn begin(&mut self, key: u32, transfer: Transfer);
    /// Asks for the end of a transfer. It ends in a later turn in any case: with `-ECANCELED` if that was possible.
    fn cancel(&mut self, key: u32);
    /// The same for all that wait for a peer (pipes, sockets, terminals), who may never come.
    fn cancel_waiting(&mut self);
    /// Adds what has ended to `done`; sleeps until something has, the bell rings, or `patience` is over.
    fn turn(&mut self, patience: Duration, done: &mut Vec<Done>);
    /// `"io_uring"` or `"threads"`, and why that one.
    fn backend(&self) -> (&'static str, &str);
}

/// How a mover is to work.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Transfers in flight at the most.
    pub depth: u32,
    /// Room for completions, as a multiple of `depth`.
    pub completions: u32,
    /// Have a kernel thread look for submissions; it goes to sleep after this many idle milliseconds.
    pub kernel_thread_idle_ms: Option<u32>,
    /// Look for completions without sleeping.
    pub polling: bool,
    /// Threads at the most, where there is no ring.
    pub threads: u32,
}

/// A mover for this thread: a ring if that works here and `KVBATCH_IO` does not say otherwise, else threads.
pub fn mover(wishes: &Wishes, bell: &Arc<Bell>) -> io::Result<Box<dyn Mover>> {
    let (backend, said) = wished(&std::env::var("KVBATCH_IO").unwrap_or_default());
    let why = match backend {
        Backend::Threads => return Ok(Box::new(threads::ThreadMover::new(wishes, bell, said.to_owned())?)),
        Backend::Auto | Backend::Ring => match ring::RingMover::open(wishes, bell, said) {
            Ok(ring) => return Ok(Box::new(ring)),
            Err(why) if said.is_empty() => why,
            Err(why) => format!("{said}; {why}"),
        },
    };
    let text = format!(
        "io_uring cannot be had, a ring works through threads instead, which is slower: {why}; allow it \
         (sysctl kernel.io_uring_disabled=0, no seccomp filter against it), or set KVBATCH_IO=threads if this is meant"
    );
    log::write(log::Level::Warn, "kv_uring", &text);
    Ok(Box::new(threads::ThreadMover::new(wishes, bell, why)?))
}

/// Whether this process may have a ring now: one is set up, and taken back.
pub fn ring_is_to_be_had() -> bool {
    super::ring::Ring::new(super::RING_ENTRIES_MIN).is_ok()
}
