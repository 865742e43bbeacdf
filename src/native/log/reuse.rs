//! The files of chunks that were removed, used again for the next ones.
//!
//! Where groups are durable one by one, these are the best files there are: their blocks were written before, so that a synchronous
//! write has nothing to note down but its bytes, and nobody had to write zeros for that (see `prepared`). What they still hold says
//! nothing: checksums are salted with the number of the chunk, so no frame of the old one passes in the new one.
//!
//! Not a byte of one may change as long as anybody can want the old ones. So it is only taken when no manifest names the chunk, its
//! name is gone for good, it has no other (a backup may have given it one), and nobody in this process reads from it any more.

use super::Log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::{Arc, Mutex};
use crate::io::File;
use crate::native::chunks::{Chunk, file_name};
use crate::native::names::{number_in, numbered};

/// A file is worth keeping if so many in a hundred of a chunk's bytes were written.
const LEAST_FULL_PERCENT: u64 = 75;

/// ... and so many were made durable one by one, with nothing between them that was not. A group that is not durable begins a chunk in a
/// new file (see `stage`): where it ends in the middle of a block, the kernel would have to read what the rest of that holds.
const LEAST_DURABLE_PERCENT: u64 = 50;

/// So many are kept: chunks go several at a time, and come one by one. They take space that is no record's.
const REMOVED_MAX: usize = 4;

/// ... but, where one is there, no more than one for so many others that there are.
const CHUNKS_FOR_EACH: usize = 4;

/// The name that the file of chunk `id` has until it is another one.
pub fn removed_name(id: u64) -> String {
    numbered("removed", id)
}

/// Whether it is such a name.
pub fn is_removed_name(name: &str) -> bool {
    number_in("removed", name).is_some()
}

/// Those that are kept, oldest first.
#[derive(Default)]
pub(super) struct Removed {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chunks: Vec<Arc<Chunk>>,
    /// How often all were given back: what was on its way then is not wanted any more.
    drops: u64,
}

/// Whether nobody reads from the chunk any more. It was taken out of the store, so nobody can begin to.
fn is_unread(chunk: &Arc<Chunk>) -> bool {
    Arc::strong_count(chunk) == 1 || planted(Bug::FileReusedWhileRead)
}

impl Removed {
    pub(super) fn has_unread(&self) -> bool {
        self.state.lock().chunks.iter().any(is_unread)
    }

    /// The oldest that nobody reads from, and the number of the chunk that it was. It has its name still.
    pub(super) fn take_unread(&self) -> Option<(Arc<dyn File>, u64)> {
        let chunks = &mut self.state.lock().chunks;
        let chunk = chunks.remove(chunks.iter().position(is_unread)?);
        match Arc::try_unwrap(chunk) {
            Ok(chunk) => Some((chunk.file, chunk.id)),
            Err(chunk) => Some((Arc::clone(&chunk.file), chunk.id)), // only with the planted bug
        }
    }
}

/// The files of chunks that are being removed. They have second names, which go again unless they are kept.
pub struct Removal<'a> {
    log: &'a Log,
    chunks: Vec<Arc<Chunk>>,
    drops: u64,
}

impl Log {
    /// The files of these that the next chunks had better be begun with, beside which there are `others`. No manifest may name them any
    /// more; their own names are still there.
    pub fn reuse(&self, removed: &[Arc<Chunk>], others: usize) -> Removal<'_> {
        let most = if self.has_room_to_prepare(0) { (others / CHUNKS_FOR_EACH).clamp(1, REMOVED_MAX) } else { 0 };
        self.keep_at_most(most);
        let (kept, drops) = {
            let state = self.removed.state.lock();
            (state.chunks.len(), state.drops)
        };
        let share = |percent: u64| self.options.chunk_bytes / 100 * percent;
        let wanted = self.options.prepare_chunks && self.prepared.durable_bytes_in_a_row() >= share(LEAST_DURABLE_PERCENT);
        let room = if wanted { most.saturating_sub(kept) } else { 0 };
        let lengths = share(LEAST_FULL_PERCENT)..=self.options.chunk_bytes;
        let is_full = |chunk: &&Arc<Chunk>| chunk.end().is_some_and(|end| lengths.contains(&end.valid_bytes));
        let mut removal = Removal { log: self, chunks: Vec::new(), drops };
        for chunk in removed.iter().filter(is_full).take(room) {
            let name = removed_name(chunk.id);
            let named = self.dir.link(&file_name(chunk.id), &*self.dir, &name);
            // It has two names now. Who says otherwise does not count them, and could not tell whether a backup has it.
            if named.and_then(|()| chunk.file.has_one_name()).is_ok_and(|one| !one) {
                removal.chunks.push(Arc::clone(chunk));
            } else {
                let _ = self.dir.remove(&name);
            }
        }
        removal
    }

    /// Gives them back: the groups that come have no use for them, or the disk is full.
    pub(super) fn drop_removed(&self) {
        self.removed.state.lock().drops += 1;
        self.keep_at_most(0);
    }

    fn keep_at_most(&self, most: usize) {
        let given_back = {
            let chunks = &mut self.removed.state.lock().chunks;
            if most < chunks.len() {
                chunks.sort_by_key(|chunk| !is_unread(chunk)); // those stay that can be used
            }
            chunks.split_off(most.min(chunks.len()))
        };
        given_back.iter().for_each(|chunk| self.unname(chunk));
    }

    /// Should the name stay, the next opening sees it.
    fn unname(&self, chunk: &Chunk) {
        let _ = self.dir.remove(&removed_name(chunk.id));
    }
}

impl Removal<'_> {
    /// The chunks' names are gone for good.
    pub fn keep(mut self) {
        let is_alone = |chunk: &Chunk| chunk.file.has_one_name().unwrap_or(false) || planted(Bug::LinkedFileReused);
        let (alone, linked) = self.chunks.drain(..).partition(|chunk| is_alone(chunk));
        self.chunks = linked;
        for chunk in alone {
            chunk.file.forget(); // writes past the page cache have nothing to take out of it then
            let mut state = self.log.removed.state.lock();
            if state.drops == self.drops {
                state.chunks.push(chunk);
                drop(state);
                self.log.drop_what_is_worse();
            } else {
                self.chunks.push(chunk);
            }
        }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.chunks.iter().for_each(|chunk| self.log.unname(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::atomic::Ordering;
    use crate::io::sim::{Faults, SimDisk};
    use crate::native::log::PREPARED_NAME;
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

    fn kept(disk: &SimDisk) -> Option<Vec<u8>> {
        disk.read_raw(&removed_name(1))
    }

    /// What is made of a file for the next chunk is of no use when there is one that was removed.
    #[test]
    fn what_is_begun_goes_when_a_file_is_kept() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, chunk, bytes) = full_chunk(&disk);
        let log = &driver.engine.log;
        assert!(log.claim_prepared());
        log.prepare(&mut || false);
        assert!(disk.read_raw(PREPARED_NAME).is_some_and(|made| made.is_empty()), "it is begun");
        let removal = log.reuse(&[Arc::clone(&chunk)], 1);
        driver.engine.chunks.remove(&chunk).unwrap();
        drop(chunk);
        assert!(disk.remove_raw(&file_name(1)));
        removal.keep();
        assert_eq!((kept(&disk), disk.read_raw(PREPARED_NAME)), (Some(bytes), None));
        assert!(!log.claim_prepared(), "nor is another");
    }

    /// A piece of the file is being written just when another one is kept.
    #[test]
    fn what_is_in_the_making_goes_when_it_is_done() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, chunk, bytes) = full_chunk(&disk);
        let log = &driver.engine.log;
        driver.engine.chunks.remove(&chunk).unwrap();
        let mut chunk = Some(chunk);
        assert!(log.claim_prepared());
        log.prepare(&mut || {
            let removal = chunk.take().map(|chunk| log.reuse(&[chunk], 1));
            assert!(disk.remove_raw(&file_name(1)) && disk.read_raw(PREPARED_NAME).is_some());
            removal.into_iter().for_each(Removal::keep);
            false
        });
        assert_eq!((kept(&disk), disk.read_raw(PREPARED_NAME)), (Some(bytes), None));
    }

    /// Whoever reads from it may do so for long.
    #[test]
    fn a_file_is_made_while_those_that_are_kept_are_read_from() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, readers) = three_kept(&disk);
        let log = &driver.engine.log;
        assert!(log.claim_prepared());
        log.prepare(&mut || false);
        log.reuse(&[], 0).keep();
        assert!(disk.read_raw(PREPARED_NAME).is_some(), "nothing has come that is better");
        log.drop_prepared();
        let (driver, mut others) = three_kept(&SimDisk::new(1, Faults::default()));
        others.pop();
        assert!(!driver.engine.log.claim_prepared(), "one of them can be used");
        drop(readers);
    }

    #[test]
    fn of_too_many_those_stay_that_can_be_used() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, mut readers) = three_kept(&disk);
        readers.truncate(1);
        drop(driver.engine.log.reuse(&[], 0));
        assert_eq!([1, 2, 3].map(|id| disk.read_raw(&removed_name(id)).is_some()), [false, true, false]);
        assert!(driver.engine.log.removed.has_unread());
    }

    /// A store that has become small, and a disk that is nearly full.
    #[test]
    fn what_is_too_much_is_given_back() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, _) = three_kept(&disk);
        let log = &driver.engine.log;
        let names = || [1, 2, 3].map(|id| disk.read_raw(&removed_name(id)).is_some());
        for (others, there) in [(12, [true; 3]), (8, [true, true, false]), (0, [true, false, false])] {
            drop(log.reuse(&[], others));
            assert_eq!(names(), there, "beside {others} others");
        }
        disk.set_space(Some(CHUNK_BYTES - 1));
        drop(log.reuse(&[], 0));
        assert_eq!(names(), [false; 3]);
    }

    /// What failed once is tried again behind any chunk.
    #[test]
    fn a_file_that_was_given_up_is_made_behind_a_chunk_that_is_used_again() {
        let disk = SimDisk::new(1, Faults::default());
        let (mut driver, _) = three_kept(&disk);
        let log = &driver.engine.log;
        let removed = std::mem::take(&mut log.removed.state.lock().chunks);
        assert!(log.claim_prepared());
        log.prepare(&mut || false);
        log.drop_prepared(); // it is given up
        assert!(!log.claim_prepared());
        log.removed.state.lock().chunks = removed;
        log.end_chunk();
        driver.commit(true, &[(0, 2)]).unwrap();
        let log = &driver.engine.log;
        log.drop_removed();
        assert!(log.claim_prepared());
    }

    #[test]
    fn what_nobody_wants_any_more_when_it_comes_goes_again() {
        for keep in [true, false] {
            let disk = SimDisk::new(1, Faults::default());
            let (driver, chunk, _) = full_chunk(&disk);
            let log = &driver.engine.log;
            let removal = log.reuse(&[chunk], 1);
            assert!(kept(&disk).is_some(), "wanted until now");
            log.drop_prepared(); // the disk is full
            assert!(disk.remove_raw(&file_name(1)));
            if keep {
                removal.keep()
            } else {
                drop(removal)
            }
            assert_eq!(kept(&disk), None);
            assert!(log.claim_prepared(), "and another can be made");
        }
    }

    #[test]
    fn only_full_chunks_that_are_not_too_long_and_only_while_all_is_durable() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, chunk, _) = full_chunk(&disk);
        let log = &driver.engine.log;
        let is_wanted = || {
            let _removal = log.reuse(&[Arc::clone(&chunk)], 1);
            kept(&disk).is_some()
        };
        let end = chunk.end().unwrap();
        for (valid_bytes, wanted) in [(CHUNK_BYTES / 2, false), (CHUNK_BYTES + 1, false), (CHUNK_BYTES, true)] {
            chunk.seal(crate::native::frame::LogEnd { valid_bytes, ..end });
            assert_eq!(is_wanted(), wanted, "{valid_bytes} bytes");
        }
        log.count_other();
        assert!(!is_wanted());
        log.count_durable(CHUNK_BYTES);
        log.full.store(true, Ordering::Relaxed);
        assert!(!is_wanted());
        assert_eq!(kept(&disk), None);
    }

    /// A store with seven full chunks, of which three are removed; they are kept.
    fn three_kept(disk: &SimDisk) -> (Driver, Vec<Arc<Chunk>>) {
        let (mut driver, ..) = full_chunk(disk);
        while driver.engine.log.last_chunk() < 8 {
            driver.commit(true, &[(0, 1), (1, 1)]).unwrap();
        }
        let removed = driver.engine.chunks.by_age()[..3].to_vec();
        let removal = driver.engine.log.reuse(&removed, usize::MAX);
        for chunk in &removed {
            driver.engine.chunks.remove(chunk).unwrap();
            assert!(disk.remove_raw(&file_name(chunk.id)));
        }
        removal.keep();
        (driver, removed)
    }

    #[test]
    fn the_oldest_goes_first_that_nobody_reads_from() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, mut readers) = three_kept(&disk);
        let removed = &driver.engine.log.removed;
        let take = || removed.take_unread().map(|(_, id)| id);
        assert!(!removed.has_unread() && take().is_none(), "all are read from");
        let oldest = readers.remove(0);
        readers.clear();
        assert_eq!((take(), take(), removed.has_unread()), (Some(2), Some(3), false));
        drop(oldest);
        assert_eq!((removed.has_unread(), take(), take()), (true, Some(1), None));
    }

    /// One for every four chunks, one at least, and four at most.
    #[test]
    fn only_so_many_are_kept() {
        let disk = SimDisk::new(1, Faults::default());
        let (driver, _) = three_kept(&disk);
        let chunks = driver.engine.chunks.by_age();
        let log = &driver.engine.log;
        let more = |others| log.reuse(&chunks[..4], others).chunks.iter().map(|chunk| chunk.id).collect::<Vec<_>>();
        assert_eq!([15, 16, usize::MAX].map(more), [vec![], vec![4], vec![4]], "beside the three");
        log.drop_removed();
        assert_eq!([0, 7, 8, 15].map(more), [vec![4], vec![4], vec![4, 5], vec![4, 5, 6]]);
        assert_eq!(more(usize::MAX), [4, 5, 6, 7]);
    }

    #[test]
    fn where_names_are_not_counted_no_file_is_used_again() {
        let disk = SimDisk::new(1, Faults { names_uncounted: true, ..Faults::default() });
        let (driver, chunk, _) = full_chunk(&disk);
        driver.engine.log.reuse(&[chunk], 1).keep();
        assert_eq!(kept(&disk), None);
    }
}
