//! Space and pages of the chunk that is written to, had ahead of groups that are not durable.
//!
//! Such a group goes into the page cache. Where it makes the file longer, most of what the write takes is the kernel's search for
//! space and for pages: into pages that are there already it takes a third (`make bench`: "put, fsync off"). So `ahead` takes space
//! some megabytes behind the log's end, and reads the zeros that are there then. It never writes: whatever it does beside a commit, or
//! too late, changes no byte, and it cuts off nothing but what lies behind the end of a chunk that has ended. What it has not done, the
//! commit does itself; of the space that is left over, the next chunk's begin and the close give back all but some blocks.

use super::Log;
use crate::base::log;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::native::chunks::Chunk;
use std::io;

/// Groups of fewer bytes get by without: most of what they take is the call itself.
const LEAST_GROUP_BYTES: u64 = 4 << 10;

/// For groups of so many bytes space is enough: the kernel finds them large pages, at hardly more than what reading took here.
const LARGE_GROUP_BYTES: u64 = 256 << 10;

/// A log that has not come so far in its chunk is not worth the trouble.
const WARM_UP_BYTES: u64 = 1 << 20;

/// More is wanted when less than so much, or than one group, is left.
const LOW_BYTES: u64 = 1 << 20;

/// So much is had at a time, or a group, or as much as the log has in the chunk: the kernel reads in order in ever larger pages, but
/// only as far as the file goes, and begins anew with small ones behind its end. Steps of 8 MiB take a third less than those of 2.
const LEAST_STEP_BYTES: u64 = 2 << 20;
const MOST_STEP_BYTES: u64 = 8 << 20;

/// Zeros are read so many bytes at a time: they stay in the nearest caches.
const PIECE_BYTES: usize = 64 << 10;

/// What is known of the chunk that is written to.
#[derive(Default)]
pub(super) struct Pages {
    state: Mutex<State>,
    /// Where the last published group ends in it.
    end: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The chunk's number.
    chunk: u64,
    /// Up to this byte there is nothing more to be done.
    ready: u64,
    /// Somebody has been asked for more.
    asked: bool,
    /// The file system does not give space ahead.
    useless: bool,
}

/// What is wanted of a chunk, from where the last ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesWanted {
    /// Up to this byte.
    pub to: u64,
    /// Not only space.
    pub read: bool,
}

impl Log {
    /// An unsynced group of `len` bytes has been published, and ends at byte `end` of its chunk. Whoever hears that something is wanted
    /// has to call `bring_in_pages`. Called by one publisher at a time.
    pub fn note_pages(&self, chunk: u64, end: u64, len: u64) -> Option<PagesWanted> {
        // A file that was prepared has its space.
        if len < LEAST_GROUP_BYTES || end < WARM_UP_BYTES || self.prepared.is_in_use() {
            return None;
        }
        self.pages.end.store(end, Ordering::Relaxed);
        let mut state = self.pages.state.lock();
        if state.chunk != chunk {
            *state = State { chunk, useless: state.useless, ..State::default() };
        }
        let low = len.max(LOW_BYTES);
        let enough = state.ready >= (end + low).min(self.options.chunk_bytes);
        if state.asked || state.useless || enough || self.has_staged_more() {
            return None;
        }
        state.asked = true;
        state.ready = state.ready.max(end);
        let to = (end + low + len.max(end.clamp(LEAST_STEP_BYTES, MOST_STEP_BYTES))).min(self.options.chunk_bytes);
        Some(PagesWanted { to, read: len < LARGE_GROUP_BYTES })
    }

    /// Has space and pages up to byte `to` of `chunk`, wanted or not.
    #[cfg(test)]
    pub fn want_pages(&self, chunk: &Chunk, to: u64) {
        *self.pages.state.lock() = State { chunk: chunk.id, asked: true, ..State::default() };
        self.bring_in_pages(chunk, PagesWanted { to, read: true });
    }

    /// Whether groups are on their way: then every core has something to do, and to help them would hold them up.
    /// Looks at the log's state only if nobody has it, who may be waiting for the disk.
    fn has_staged_more(&self) -> bool {
        self.state.try_lock().is_none_or(|state| state.last_given != self.published())
    }

    /// Has what is wanted of `chunk`.
    pub fn bring_in_pages(&self, chunk: &Chunk, wanted: PagesWanted) {
        let from = {
            let state = self.pages.state.lock();
            if state.chunk != chunk.id {
                return; // it has come too late
            }
            state.ready
        };
        let result = self.bring_in(chunk, from, wanted);
        let mut state = self.pages.state.lock();
        if state.chunk == chunk.id {
            state.asked = false;
            state.ready = if result.is_ok() { wanted.to } else { u64::MAX };
        }
        let Err(error) = result else { return };
        state.useless |= matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS));
        drop(state);
        let text = format!("store {}: cannot have space and pages ahead of the log: {error}; it goes on without", self.store_path);
        log::write(log::Level::Info, "bring_in_pages", &text);
    }

    fn bring_in(&self, chunk: &Chunk, from: u64, wanted: PagesWanted) -> io::Result<()> {
        let PagesWanted { to, read } = wanted;
        if from >= to || !self.has_room_to_prepare(to - from) {
            return Ok(());
        }
        chunk.file.take_space(from, to - from)?;
        if let Some(end) = chunk.end() {
            return give_back(chunk, end.valid_bytes); // whoever ended it may have cut it off before
        }
        let mut zeros = [0; PIECE_BYTES];
        let mut at = from;
        while read && at < to {
            let n = chunk.file.read_at(&mut zeros[..PIECE_BYTES.min((to - at) as usize)], at)?;
            let passed = self.pages.end.load(Ordering::Relaxed);
            at = if n == 0 { to } else { passed.max(at + n as u64) };
        }
        Ok(())
    }
}

/// Cuts off what lies behind the end of a chunk to which nothing is written any more.
fn give_back(chunk: &Chunk, end: u64) -> io::Result<()> {
    if chunk.file.len()? > end { chunk.file.set_len(end) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Calls, Faults, SimDisk};
    use crate::native::Options;
    use crate::native::tests::driver::{Batch, Driver};
    use crate::native::tests::model::KEYS;
    use crate::native::tests::workload::options;
    use std::sync::Arc;

    const CHUNK_BYTES: u64 = 8 << 20;

    fn driver() -> (SimDisk, Driver, Arc<Chunk>) {
        let disk = SimDisk::new(1, Faults::default());
        let mut driver = Driver::open(&disk, Options { chunk_bytes: CHUNK_BYTES, ..options(CHUNK_BYTES, 0) }, [0; KEYS]).unwrap();
        driver.commit(false, &[(0, 1)]).unwrap();
        let chunk = driver.engine.chunks.by_age().pop().unwrap();
        (disk, driver, chunk)
    }

    #[test]
    fn more_is_wanted_a_step_at_a_time_and_once() {
        let (_disk, driver, chunk) = driver();
        let log = &driver.engine.log;
        const M: u64 = 1 << 20;
        assert_eq!(log.note_pages(chunk.id, M - 1, 100 << 10), None, "too early");
        assert_eq!(log.note_pages(chunk.id, M, LEAST_GROUP_BYTES - 1), None, "too small");
        let first = log.note_pages(chunk.id, M, 100 << 10);
        assert_eq!(first, Some(PagesWanted { to: 4 * M, read: true }));
        assert_eq!(log.note_pages(chunk.id, 2 * M, 100 << 10), None, "it has been asked for");
        log.bring_in_pages(&chunk, first.unwrap());
        assert_eq!(chunk.file.len().unwrap(), 4 * M);
        assert_eq!(log.note_pages(chunk.id, 3 * M, 100 << 10), None, "there is enough");
        let large = log.note_pages(chunk.id, 3 * M, 5 * M / 2);
        assert_eq!(large, Some(PagesWanted { to: CHUNK_BYTES, read: false }), "large groups want more, but no pages");
        log.bring_in_pages(&chunk, large.unwrap());
        assert_eq!(log.note_pages(chunk.id, 8 * M - 1, 5 * M / 2), None, "the chunk has no more");
        assert_eq!(chunk.file.len().unwrap(), CHUNK_BYTES);
        let step = log.note_pages(chunk.id + 1, 3 * M, 100 << 10);
        assert_eq!(step, Some(PagesWanted { to: 7 * M, read: true }), "as much as there is");
        // Another chunk begins anew.
        assert_eq!(log.note_pages(chunk.id + 2, M, 100 << 10), Some(PagesWanted { to: 4 * M, read: true }));
        log.bring_in_pages(&chunk, PagesWanted { to: CHUNK_BYTES + 1, read: true });
        assert_eq!(chunk.file.len().unwrap(), CHUNK_BYTES, "what comes too late is not done");
    }

    #[test]
    fn nothing_is_wanted_while_groups_are_on_their_way() {
        let (_disk, mut driver, chunk) = driver();
        driver.stage(vec![Batch::new(&driver.engine.hasher, false, vec![(0, 2)], Vec::new())]);
        assert_eq!(driver.engine.log.note_pages(chunk.id, 1 << 20, 100 << 10), None);
        driver.settle();
        assert!(driver.engine.log.note_pages(chunk.id, 1 << 20, 100 << 10).is_some());
    }

    #[test]
    fn what_comes_behind_the_end_of_a_chunk_is_given_back() {
        let (_disk, mut driver, chunk) = driver();
        let wanted = driver.engine.log.note_pages(chunk.id, 1 << 20, 100 << 10).unwrap();
        driver.engine.log.end_chunk();
        driver.commit(false, &[(0, 2)]).unwrap();
        let end = chunk.end().expect("another one was begun").valid_bytes;
        driver.engine.log.bring_in_pages(&chunk, wanted);
        assert_eq!(chunk.file.len().unwrap(), end);
        driver.check_reads();
    }

    #[test]
    fn a_file_system_that_gives_none_is_not_asked_again() {
        let (disk, driver, chunk) = driver();
        disk.fail_at(1, libc::EOPNOTSUPP, true, Calls::ALLOCATE);
        let wanted = driver.engine.log.note_pages(chunk.id, 1 << 20, 100 << 10).unwrap();
        driver.engine.log.bring_in_pages(&chunk, wanted);
        assert_eq!(driver.engine.log.note_pages(chunk.id + 1, 1 << 20, 100 << 10), None);
    }

    #[test]
    fn it_is_not_what_fills_the_disk_and_an_error_ends_it() {
        let (disk, driver, chunk) = driver();
        let log = &driver.engine.log;
        let before = chunk.file.len().unwrap();
        disk.set_space(Some((3 << 20) + CHUNK_BYTES - 1));
        let wanted = log.note_pages(chunk.id, 1 << 20, 100 << 10).unwrap();
        log.bring_in_pages(&chunk, wanted);
        assert_eq!(chunk.file.len().unwrap(), before, "there is too little room for it");
        disk.set_space(None);
        disk.fail_at(1, libc::EIO, false, Calls::ALLOCATE);
        let wanted = log.note_pages(chunk.id, 4 << 20, 100 << 10).unwrap();
        log.bring_in_pages(&chunk, wanted);
        assert_eq!(log.note_pages(chunk.id, 7 << 20, 100 << 10), None, "not again in this chunk");
        assert!(log.note_pages(chunk.id + 1, 1 << 20, 100 << 10).is_some(), "but in the next");
    }
}
