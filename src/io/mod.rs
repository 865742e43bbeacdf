//! Rank 1: bytes to disk and back.
//!
//! `Disk`, `Dir` and `File` stand at the height of system calls, so that short writes, torn tails and failing syncs
//! can be played by a simulated disk (`sim`) under the very code that runs on the real one (`real`). The loops that
//! turn calls into promises (`write_all_at`, `read_full_at`) stand above that line and are shared.

pub mod real;
pub mod sim;

use crate::base::planted::{Bug, planted};
use std::any::Any;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// Where directories are. One per engine.
pub trait Disk: Send + Sync {
    /// Opens the directory `path`, after making it (and what is missing above it, each synced into its parent).
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;

    /// Opens the directory `path`, which must be there, to read only: `create`, `remove` and `link` into it fail with
    /// `EROFS`, and so do writes to its files. Its lock is shared with other readers and leaves no trace; where nobody
    /// ever made the lock file there is nothing to lock.
    fn open_dir_to_read(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;

    /// Carries out all of `reads`, many in flight at a time; each gets its own result. `ended` is called with each and its number
    /// once, in the order in which they end, while others may be on their way.
    fn read_many(&self, reads: &mut [ReadAt<'_>], how: &ReadMany, ended: Ended<'_>) -> ReadManyReport;

    /// `"io_uring"`, `"threads"` ..., and why that one.
    fn backend(&self) -> (&'static str, String);
}

/// One directory. Names are plain file names.
pub trait Dir: Any + Send + Sync {
    /// Names of all entries, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new file; fails if there is one. Durable only after `sync`.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file that exists, for reading and writing; anything but a regular file is refused.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Takes a name away. Durable only after `sync`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives the file `name` a second name, `new_name` in `to`: the same file, not a copy. `EXDEV` where that cannot be,
    /// as between two file systems. Durable only after `to` is synced.
    fn link(&self, name: &str, to: &dyn Dir, new_name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that files here may still take, as far as that can be told.
    fn free_bytes(&self) -> Option<u64>;
    /// Takes the lock file `name` (made if missing) for this process until the guard is dropped; `WouldBlock` if
    /// another holds it. The guard also closes the lock in a child after fork, so that the child does not keep it.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// What the lock file says about its holder (a process id, when known).
    fn lock_holder(&self, name: &str) -> Option<String>;
}

/// One open file.
pub trait File: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads at `offset`; fewer bytes than asked for are no error, 0 is the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the pieces at `offset`, one behind the other; may write fewer bytes than there are. `durable`: what it
    /// says it wrote is on stable storage (this range alone, not what was written before). One piece of whole blocks, in
    /// memory as in the file, may go past the system's cache.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64, durable: bool) -> io::Result<usize>;
    /// Puts all that was written before on stable storage.
    fn sync(&self) -> io::Result<()>;
    /// Has the system begin to write out what lies in `[offset, offset + len)` in its memory: a sync then has less to wait for.
    /// Promises nothing, and takes no error away from a later `sync`.
    fn begin_write_out(&self, _offset: u64, _len: u64) {}
    /// Has later reads come from the disk, as far as that is possible: what the kernel keeps of the file in memory, and
    /// need not write any more, is dropped. After a failed sync the two may differ.
    fn forget(&self) {}
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes disk space for `len` bytes from the start: the file is at least that long then, and has all of them for
    /// good. After an error it may hold some.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Takes disk space for `[from, from + len)`, if that can be had without writing: the file is at least as long then, and what
    /// is there already stays as it is. Others may be writing to the file meanwhile.
    fn take_space(&self, from: u64, len: u64) -> io::Result<()>;
    /// Whether it has one name and no other; false where nobody counts them.
    fn has_one_name(&self) -> io::Result<bool> {
        Ok(false)
    }
    /// The descriptor, for the ring; `None` where there is none.
    fn descriptor(&self) -> Option<std::os::fd::RawFd>;
}

/// One read of a `read_many`.
pub struct ReadAt<'a> {
    /// The file to read from.
    pub file: &'a dyn File,
    /// Where, in bytes.
    pub offset: u64,
    /// Filled from the front.
    pub buf: &'a mut [u8],
    /// Bytes read (fewer than asked for only at the end of the file), or why not. Set by `read_many`.
    pub result: io::Result<usize>,
}

/// Takes a read that has ended, and its number among those of its call.
pub type Ended<'a> = &'a mut dyn FnMut(usize, &ReadAt<'_>);

/// How `read_many` may go about it.
#[derive(Clone, Copy, Debug)]
pub struct ReadMany {
    /// Reads in flight at the most.
    pub depth: u32,
    /// Poll the device for completions, if it can be polled.
    pub polling: bool,
}

/// What `read_many` did.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadManyReport {
    /// Most reads that were in flight at one time.
    pub in_flight_max: u64,
    /// Reads that went through io_uring.
    pub through_ring: u64,
    /// Reads whose completion was polled for.
    pub polled: u64,
}

/// Writes all of `pieces` at `offset`: goes on after short writes and interruptions. Returns the number of calls.
///
/// Two calls in a row that write nothing are an error: a full disk may show itself that way.
pub fn write_all_at(file: &dyn File, mut pieces: &mut [IoSlice<'_>], offset: u64, durable: bool) -> io::Result<u64> {
    write_pieces_at(file, &mut pieces, offset, durable)
}

/// The same; after an error, `pieces` is what was not written.
pub fn write_pieces_at(file: &dyn File, pieces: &mut &mut [IoSlice<'_>], mut offset: u64, durable: bool) -> io::Result<u64> {
    /// Linux takes this many pieces in one call.
    const PIECES_MAX: usize = 1024;
    let mut calls = 0;
    let mut empty_calls = 0;
    IoSlice::advance_slices(pieces, 0); // drops empty pieces in front
    while !pieces.is_empty() {
        calls += 1;
        match file.write_at(&pieces[..pieces.len().min(PIECES_MAX)], offset, durable && !(planted(Bug::RemainderNotDurable) && calls > 1)) {
            Ok(0) if empty_calls == 1 => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Ok(0) => empty_calls += 1,
            Ok(_) if planted(Bug::IgnoreShortWrite) => return Ok(calls),
            Ok(n) => {
                empty_calls = 0;
                offset += n as u64;
                IoSlice::advance_slices(pieces, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(calls)
}

/// Reads until `buf` is full or the file ends; the number of bytes read.
pub fn read_full_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
