//! The file of a chunk that was removed, used again for the next chunk.
//!
//! Where groups are durable one by one, it is the best file there is: its blocks were written before, so that a synchronous write
//! has nothing to note down but its bytes, and nobody had to write zeros for that (see `prepared`). What it still holds says nothing:
//! checksums are salted with the number of the chunk, so no frame of the old one passes in the new one.
//!
//! Not a byte of it may change as long as anybody can want the old ones. So it is only taken when no manifest names the chunk, its
//! name is gone for good, it has no other (a backup may have given it one), and nobody in this process reads from it any more.

use super::Log;
use super::prepared::PREPARED_NAME;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::native::chunks::{Chunk, file_name};

/// A file is worth keeping if so many in a hundred of a chunk's bytes were written.
const LEAST_FULL_PERCENT: u64 = 75;

/// ... and so many were made durable one by one, with nothing between them that was not. A group that is not durable begins a chunk in a
/// new file (see `stage`): where it ends in the middle of a block, the kernel would have to read what the rest of that holds.
const LEAST_DURABLE_PERCENT: u64 = 50;

/// The file of a chunk that is being removed. It has a second name, which goes again unless it is kept.
pub struct Removal<'a> {
    log: &'a Log,
    chunk: Option<Arc<Chunk>>,
}

impl Log {
    /// The file that the next chunk had better be begun with, if it is that of one of these. No manifest may name them any more; their
    /// own names are still there.
    pub fn reuse_one(&self, removed: &[Arc<Chunk>]) -> Option<Removal<'_>> {
        let share = |percent: u64| self.options.chunk_bytes / 100 * percent;
        let wanted = self.options.prepare_chunks
            && self.prepared.durable_bytes_in_a_row() >= share(LEAST_DURABLE_PERCENT)
            && self.has_room_to_prepare(0);
        let lengths = share(LEAST_FULL_PERCENT)..=self.options.chunk_bytes;
        let is_full = |chunk: &&Arc<Chunk>| chunk.end().is_some_and(|end| lengths.contains(&end.valid_bytes));
        let chunk = removed.iter().find(is_full).filter(|_| wanted && self.prepared.claim_for_removed())?;
        let removal = Removal { log: self, chunk: Some(Arc::clone(chunk)) };
        let _ = self.dir.remove(PREPARED_NAME); // what was to be the next file until now
        let named = self.dir.link(&file_name(chunk.id), &*self.dir, PREPARED_NAME);
        // It has two names now. Who says otherwise does not count them, and could not tell whether a backup has it.
        let counts = named.and_then(|()| chunk.file.has_one_name()).is_ok_and(|one| !one);
        counts.then_some(removal)
    }
}

impl Removal<'_> {
    /// The chunk's name is gone for good.
    pub fn keep(mut self) {
        let is_alone = |chunk: &Chunk| chunk.file.has_one_name().unwrap_or(false) || planted(Bug::LinkedFileReused);
        if let Some(chunk) = self.chunk.take_if(|chunk| is_alone(chunk)) {
            chunk.file.forget(); // writes past the page cache have nothing to take out of it then
            self.chunk = self.log.prepared.bring_removed(chunk);
        }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if self.chunk.is_some() {
            let _ = self.log.dir.remove(PREPARED_NAME); // the next opening sees it, if it stays
            self.log.prepared.bring_nothing();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::atomic::Ordering;
    use crate::io::sim::{Faults, SimDisk};
    use crate::native::tests::driver::Driver;
    use crate::native::tests::model::KEYS;
    use crate::native::tests::workload::options;

    const CHUNK_BYTES: u64 = 64 << 10;

    /// A store whose first chunk is full, and the bytes of that.
    fn full_chunk(disk: &SimDisk) -> (Driver, Arc<Chunk>, Vec<u8>) {
        let mut driver = Driver::open(disk, options(CHUNK_BYTES, 0), [0; KEYS]).unwrap();
        while driver.engine.log.last_chunk() < 2 {
            driver.commit(true, &[(0, 1), (1, 1)]).unwrap();
        }
        let chunk = driver.engine.chunks.by_age()[0].clone();
        let bytes = disk.read_raw(&file_name(1)).unwrap();
        (driver, chunk, bytes)
    }

    /// The thread that makes files was asked to go on with one, and comes when compaction has claimed the name.
    #[test]
    fn nobody_else_has_the_name_while_a_file_is_on_its_way() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, chunk, bytes) = full_chunk(&disk);
        let log = &driver.engine.log;
        assert!(log.claim_prepared());
        log.prepare(&mut || false);
        assert!(disk.read_raw(PREPARED_NAME).is_some_and(|made| made.is_empty()), "it is begun");
        let removal = log.reuse_one(&[chunk]).expect("better than that");
        log.prepare(&mut || true);
        assert!(!log.claim_prepared());
        assert!(disk.remove_raw(&file_name(1)));
        removal.keep();
        assert_eq!(disk.read_raw(PREPARED_NAME), Some(bytes));
    }

    #[test]
    fn what_nobody_wants_any_more_when_it_comes_goes_again() {
        for keep in [true, false] {
            let disk = SimDisk::new(1, Faults::default());
            let (driver, chunk, _) = full_chunk(&disk);
            let log = &driver.engine.log;
            let removal = log.reuse_one(&[chunk]).expect("wanted until now");
            log.drop_prepared(); // the disk is full
            assert!(disk.remove_raw(&file_name(1)));
            if keep {
                removal.keep()
            } else {
                drop(removal)
            }
            assert_eq!(disk.read_raw(PREPARED_NAME), None);
            assert!(log.claim_prepared(), "and another can be made");
        }
    }

    #[test]
    fn only_full_chunks_that_are_not_too_long_and_only_while_all_is_durable() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, chunk, _) = full_chunk(&disk);
        let log = &driver.engine.log;
        let end = chunk.end().unwrap();
        for (valid_bytes, wanted) in [(CHUNK_BYTES / 2, false), (CHUNK_BYTES + 1, false), (CHUNK_BYTES, true)] {
            chunk.seal(crate::native::frame::LogEnd { valid_bytes, ..end });
            assert_eq!(log.reuse_one(&[Arc::clone(&chunk)]).is_some(), wanted, "{valid_bytes} bytes");
        }
        log.count_other();
        assert!(log.reuse_one(&[Arc::clone(&chunk)]).is_none());
        log.count_durable(CHUNK_BYTES);
        log.full.store(true, Ordering::Relaxed);
        assert!(log.reuse_one(&[chunk]).is_none());
    }

    #[test]
    fn where_names_are_not_counted_no_file_is_used_again() {
        let disk = SimDisk::new(1, Faults { names_uncounted: true, ..Faults::default() });
        let (driver, chunk, _) = full_chunk(&disk);
        assert!(driver.engine.log.reuse_one(&[chunk]).is_none());
        assert_eq!(disk.read_raw(PREPARED_NAME), None);
    }
}
