//! The real disk: Linux system calls, made through libc's symbols so that a test program can stand in for them.
//!
//! Called by the engine through the traits of `io`. Reads of a batch go through io_uring; where the kernel, a
//! container or an old machine denies it, a few threads that call `pread` take over, and `backend` says why.
//! Never: map a data file into memory, install a signal handler, or hand an error on without its errno.

mod descriptor;
mod dir;
mod direct;
mod file;
mod limit;
mod lock;
mod pool;
mod ring;
mod sys;
pub mod transfer;

pub use lock::close_locks_in_child;

use super::{Dir, Disk, Ended, ReadAt, ReadMany, ReadManyReport};
use crate::base::log;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex};
use pool::Pool;
use ring::Ring;
use std::io;
use std::path::Path;

/// Rings that are kept for the next call; a call that finds none left makes one, and drops it if there are enough.
const IDLE_RINGS_MAX: usize = 8;
/// A ring of fewer entries is not worth its memory.
const RING_ENTRIES_MIN: u32 = 8;
/// The kernel makes no larger ones.
const RING_ENTRIES_MAX: u32 = 4096;

/// How reads of many places are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The ring if it works here, else threads.
    Auto,
    /// The same as `Auto`, but said by the user: the reason tells so.
    Ring,
    /// Threads; io_uring is not touched at all.
    Threads,
}

/// The disks of this machine.
pub struct RealDisk {
    /// Rings nobody is using now. A call takes one out for itself, so a ring never serves two threads at a time.
    rings: Mutex<Vec<Ring>>,
    ring_entries: u32,
    /// Off when the probe failed, or when a ring stopped working later on.
    ring_works: AtomicBool,
    reason: Mutex<String>,
    pool: Pool,
    /// Whoever opened this: a child after fork has neither the threads nor the rings' memory.
    pid: u32,
}

impl RealDisk {
    /// A disk whose rings hold `queue_depth` reads. The environment variable `KVBATCH_IO` (`auto`, `uring`,
    /// `threads`) chooses the backend.
    pub fn open(queue_depth: u32) -> Self {
        let (backend, said) = wished(&std::env::var("KVBATCH_IO").unwrap_or_default());
        Self::with_backend(queue_depth, backend, said)
    }

    /// The same, the backend chosen by the caller; `said` is why.
    pub fn with_backend(queue_depth: u32, backend: Backend, said: &str) -> Self {
        let entries = queue_depth.clamp(RING_ENTRIES_MIN, RING_ENTRIES_MAX).next_power_of_two();
        let probed = if backend == Backend::Threads { None } else { Some(Ring::probed(entries)) };
        let also = |found: &str| if said.is_empty() { found.to_owned() } else { format!("{said}; {found}") };
        let (ring, reason) = match probed {
            None => (None, said.to_owned()),
            Some(Ok(ring)) => {
                let reason = also(&format!("the kernel allows it, {} entries", ring.entries()));
                (Some(ring), reason)
            }
            Some(Err(why)) => (None, also(&why)),
        };
        RealDisk {
            ring_entries: ring.as_ref().map_or(entries, Ring::entries),
            ring_works: AtomicBool::new(ring.is_some()),
            rings: Mutex::new(ring.into_iter().collect()),
            reason: Mutex::new(reason),
            pool: Pool::new(),
            pid: std::process::id(),
        }
    }

    /// A ring for this call alone; `None` if there is none to be had now.
    fn take_ring(&self) -> Option<Ring> {
        if !self.ring_works.load(Ordering::Acquire) {
            return None;
        }
        let idle = self.rings.lock().pop();
        idle.or_else(|| Ring::new(self.ring_entries).ok())
    }

    fn give_back(&self, ring: Ring) {
        let mut rings = self.rings.lock();
        if rings.len() < IDLE_RINGS_MAX {
            rings.push(ring);
        }
    }

    /// Turns to threads for good: a ring that failed once is not trusted again.
    fn give_up_ring(&self, ring: Ring, error: &io::Error) {
        // Its descriptor may be another file by now (a host that closed all descriptors): closing it, which dropping
        // the ring does, could hit that file. One ring is lost instead.
        ring.abandon();
        if self.ring_works.swap(false, Ordering::AcqRel) {
            *self.reason.lock() = format!("io_uring stopped working: {error}");
            let text = format!("io_uring stopped working: {error}; threads read from now on: open the store again to try it anew");
            log::write(log::Level::Warn, "read", &text);
        }
    }
}

impl Disk for RealDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(dir::RealDir::open(path)?))
    }

    fn open_dir_to_read(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(dir::RealDir::open_to_read(path)?))
    }

    fn read_many(&self, reads: &mut [ReadAt<'_>], how: &ReadMany, ended: Ended<'_>) -> ReadManyReport {
        let mut report = ReadManyReport::default();
        for read in reads.iter_mut() {
            read.result = Ok(0);
        }
        let mut told = Vec::new();
        if told.try_reserve_exact(reads.len()).is_err() {
            for (index, read) in reads.iter_mut().enumerate() {
                read.result = Err(io::Error::from_raw_os_error(libc::ENOMEM));
                ended(index, read);
            }
            return report;
        }
        told.resize(reads.len(), false);
        let tell = &mut |index: usize, read: &ReadAt<'_>| {
            if !std::mem::replace(&mut told[index], true) {
                ended(index, read);
            }
        };
        match self.take_ring() {
            None => self.pool.read(reads, how, &mut report),
            Some(mut ring) => match ring.read(reads, how, tell, &mut report) {
                Ok(()) => self.give_back(ring),
                Err(error) => {
                    self.give_up_ring(ring, &error);
                    // Nothing is in flight any more; whatever is not full yet is read on from where it stands.
                    self.pool.read(reads, how, &mut report);
                }
            },
        }
        // Those that did not end in the ring.
        reads.iter().enumerate().for_each(|(index, read)| tell(index, read));
        report
    }

    fn backend(&self) -> (&'static str, String) {
        let name = if self.ring_works.load(Ordering::Acquire) { "io_uring" } else { "threads" };
        (name, self.reason.lock().clone())
    }
}

impl Drop for RealDisk {
    fn drop(&mut self) {
        if std::process::id() == self.pid {
            self.pool.stop();
        } else {
            // A child after fork: the rings' memory is not mapped here (unmapping could hit what took its place),
            // and the threads exist in the parent only.
            std::mem::take(&mut *self.rings.lock()).into_iter().for_each(Ring::abandon);
            self.pool.forget();
        }
    }
}

/// What the user's word for a backend means, and what to tell about it.
fn wished(word: &str) -> (Backend, &'static str) {
    match word {
        "" | "auto" => (Backend::Auto, ""),
        "uring" => (Backend::Ring, "KVBATCH_IO=uring"),
        "threads" => (Backend::Threads, "KVBATCH_IO=threads"),
        // Never silently ignored: whoever looks why the choice had no effect finds it in the reason.
        _ => (Backend::Auto, "KVBATCH_IO has an unknown value (known: auto, uring, threads) and counts as auto"),
    }
}

/// Reads on from where `read.result` stands until the buffer is full, the file ends or an error is met.
fn finish_by_pread(read: &mut ReadAt<'_>) {
    let Ok(mut done) = read.result else { return };
    while done < read.buf.len() {
        match read.file.read_at(&mut read.buf[done..], read.offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                read.result = Err(e);
                return;
            }
        }
    }
    read.result = Ok(done);
}

#[cfg(test)]
mod reads_tests;
#[cfg(test)]
mod tests;
