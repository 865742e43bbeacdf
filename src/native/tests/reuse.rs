//! Files of removed chunks that are used again: when, by whom, and that nothing of what they held comes back.

use super::driver::{Driver, open, state_of};
use super::model::{Effect, KEYS};
use super::workload::options;
use crate::base::code::Code;
use crate::base::random::Random;
use crate::base::sync::Arc;
use crate::io::Disk;
use crate::io::sim::{Calls, Faults, SimDisk, Survival};
use crate::native::NativeEngine;
use crate::native::chunks::file_name;
use crate::native::frame::ChunkHeader;
use crate::native::log::removed_name;
use crate::native::tools::verify;
use std::path::Path;

/// Several groups fill a chunk.
const CHUNK_BYTES: u64 = 256 << 10;

/// A store that is overwritten again and again.
struct Busy {
    disk: SimDisk,
    driver: Driver,
    version: u32,
}

impl Busy {
    fn new() -> Busy {
        Busy::with_chunks_of(CHUNK_BYTES)
    }

    fn with_chunks_of(bytes: u64) -> Busy {
        let disk = SimDisk::new(1, Faults::default());
        let driver = Driver::open(&disk, options(bytes, 0), [0; KEYS]).unwrap();
        let mut busy = Busy { disk, driver, version: 0 };
        busy.commit(true);
        busy
    }

    /// Overwrites all keys, durably, until the log stands in another chunk.
    fn fill_a_chunk(&mut self) {
        let before = self.driver.engine.log.last_chunk();
        while self.driver.engine.log.last_chunk() == before {
            self.commit(true);
        }
    }

    fn commit(&mut self, durable: bool) {
        self.version += 1;
        let effects: Vec<Effect> = (0..KEYS).map(|key| (key, self.version)).collect();
        self.driver.commit(durable, &effects).unwrap();
    }

    /// A store whose first chunk was removed, and has left its file.
    fn with_a_file() -> Busy {
        let mut busy = Busy::new();
        busy.fill_a_chunk();
        busy.driver.compact(100);
        assert!(busy.is_kept(), "nothing is left of the first chunk but its file");
        busy
    }

    fn is_kept(&self) -> bool {
        (1..=self.driver.engine.log.last_chunk()).any(|chunk| self.disk.read_raw(&removed_name(chunk)).is_some())
    }

    /// The chunk whose file the newest one has; 0: none.
    fn reused(&self) -> u64 {
        header(&self.disk, self.driver.engine.log.last_chunk()).reused
    }

    /// What a crash now leaves is what was committed, to the tools, too.
    fn check(&self) {
        for image in [self.disk.kill_image(), self.disk.crash_image(&mut Random::new(1), Survival::NOTHING)] {
            let report = verify(&image, Path::new("/store"), true, &mut |_, _| {}).unwrap();
            assert!(report.is_good(), "{report:#?}");
            let found = open(&image, options(CHUNK_BYTES, 0)).and_then(|engine| state_of(&engine));
            assert_eq!(found, Ok(self.driver.oracle.visible));
        }
    }

    fn close(mut self) {
        self.driver.close();
        self.driver.check_errors(false);
    }
}

fn header(disk: &SimDisk, chunk: u64) -> ChunkHeader {
    ChunkHeader::decode(&disk.read_raw(&file_name(chunk)).unwrap()).unwrap()
}

#[test]
fn the_next_chunk_has_the_file_and_nothing_of_what_it_held() {
    let mut busy = Busy::with_a_file();
    let old = busy.disk.read_raw(&removed_name(1)).unwrap();
    assert_eq!(ChunkHeader::decode(&old).map(|header| header.chunk), Ok(1));
    busy.fill_a_chunk();
    assert_eq!((busy.reused(), busy.is_kept()), (1, false));
    let end = busy.driver.engine.log.end().valid_bytes.next_multiple_of(4096) as usize;
    let now = busy.disk.read_raw(&file_name(3)).unwrap();
    assert!(now[..end] != old[..end] && now[end..] == old[end..], "written over up to the log's end");
    busy.check();
    busy.driver.engine.beat().unwrap();
    busy.check();
    // Each chunk has the file of one that was removed meanwhile; what one held before does not outlive it.
    for removed in 2..8 {
        busy.driver.compact(100);
        busy.fill_a_chunk();
        assert_eq!(busy.reused(), removed);
        let end = busy.driver.engine.chunks.by_age()[0].end().unwrap();
        assert_eq!(busy.disk.read_raw(&file_name(end.chunk)).unwrap().len() as u64, end.valid_bytes);
        busy.check();
    }
    busy.driver.compact(100);
    busy.driver.close();
    assert!(!busy.is_kept(), "of no use to the next opening");
    let report = verify(&busy.disk, Path::new("/store"), true, &mut |_, _| {}).unwrap();
    assert!(report.is_good() && report.notes.is_empty(), "{report:#?}");
    busy.driver.check_errors(false);
}

#[test]
fn what_is_lost_with_the_power_does_not_bring_back_what_the_file_held() {
    let mut busy = Busy::with_a_file();
    busy.fill_a_chunk();
    for _ in 0..3 {
        busy.commit(true);
        let image = busy.disk.kill_image();
        let end = busy.driver.engine.log.end();
        // The last group is torn: the file has there what it had before.
        let name = file_name(end.chunk);
        let mut torn = image.read_raw(&name).unwrap();
        torn[end.valid_bytes as usize - 3000..].fill(0xab);
        assert!(image.write_raw(&name, &torn));
        let mut expected = busy.driver.oracle.visible;
        expected.fill(busy.version - 1);
        assert_eq!(open(&image, options(CHUNK_BYTES, 0)).and_then(|engine| state_of(&engine)), Ok(expected));
    }
}

/// Reads that were resolved before the chunk went, and are fetched when its file would be needed.
#[test]
pub fn who_reads_from_a_file_keeps_it() {
    let mut busy = Busy::new();
    busy.fill_a_chunk();
    busy.driver.hold_reads((0..KEYS).collect());
    busy.commit(true);
    busy.driver.engine.log.end_chunk();
    busy.commit(true);
    busy.driver.compact(100);
    assert!(busy.is_kept());
    busy.driver.engine.log.end_chunk();
    busy.fill_a_chunk();
    assert_eq!((busy.reused(), busy.is_kept()), (0, true), "somebody may read from it");
    busy.driver.check_reads();
    busy.driver.check_errors(false);
    busy.fill_a_chunk();
    assert!(busy.reused() > 0 && !busy.is_kept(), "nobody does any more");
    busy.check();
}

/// For another may come from compaction; zeros have to be begun in time.
#[test]
fn behind_a_file_that_is_used_again_one_that_only_needs_its_space_is_made_later() {
    let bytes = 1 << 20;
    for (group, due_at) in [(64 << 10, bytes / 4 * 3), (200 << 10, bytes - (400 << 10)), (1000, bytes / 2)] {
        let mut busy = Busy::with_chunks_of(bytes);
        busy.fill_a_chunk();
        busy.driver.compact(100);
        busy.fill_a_chunk();
        assert!(busy.reused() > 0);
        let log = &busy.driver.engine.log;
        (0..1100).for_each(|_| log.count_durable(group));
        let is_due = |end| log.is_file_due(log.last_chunk(), end);
        assert_eq!([due_at - 100, due_at + 100].map(is_due), [false, true], "groups of {group} bytes");
    }
}

/// What a crash leaves of them is of no use, and takes no space once a chunk is begun.
#[test]
fn a_file_that_was_kept_goes_after_the_next_opening() {
    let busy = Busy::with_a_file();
    let image = busy.disk.kill_image();
    let mut driver = Driver::open(&image, options(CHUNK_BYTES, 0), busy.driver.oracle.visible).unwrap();
    assert!(image.read_raw(&removed_name(1)).is_some(), "opening changes nothing");
    driver.commit(true, &[(0, busy.version + 1)]).unwrap();
    assert_eq!(image.read_raw(&removed_name(1)), None);
    driver.close();
    driver.check_errors(false);
}

#[test]
pub fn a_file_that_a_backup_has_too_is_left_alone() {
    let mut busy = Busy::new();
    busy.fill_a_chunk();
    let then = busy.driver.oracle.visible;
    let report = busy.driver.engine.backup(Path::new("backup")).unwrap();
    assert_eq!(report.linked, 1);
    busy.driver.compact(100);
    assert!(!busy.is_kept());
    busy.fill_a_chunk();
    assert_eq!(busy.reused(), 0);
    let disk = Arc::new(busy.disk.clone()) as Arc<dyn Disk>;
    let copy = NativeEngine::open(disk, Path::new("backup"), options(CHUNK_BYTES, 0)).unwrap();
    assert_eq!(state_of(&copy), Ok(then));
}

#[test]
fn groups_that_are_not_durable_have_a_file_of_their_own() {
    let mut busy = Busy::with_a_file();
    busy.driver.engine.log.end_chunk();
    busy.commit(false);
    assert_eq!((busy.reused(), busy.is_kept()), (0, false), "it is given back: nothing speaks for more that is durable");
    let mut busy = Busy::with_a_file();
    busy.fill_a_chunk();
    let before = busy.driver.engine.log.last_chunk();
    busy.commit(false);
    assert_eq!((busy.driver.engine.log.last_chunk(), busy.reused()), (before + 1, 0), "the next chunk, not this one");
    busy.driver.compact(100);
    assert!(!busy.is_kept(), "as long as there are such groups nothing is kept");
    busy.close();
}

#[test]
fn without_its_names_gone_for_good_it_is_not_kept() {
    for calls in [Calls::SYNC_DIR, Calls::CREATE, Calls::LEN] {
        let mut busy = Busy::new();
        busy.fill_a_chunk();
        let begun = busy.disk.calls(calls);
        let plain = Busy::with_a_file().disk.calls(calls);
        busy.disk.fail_at(plain - begun, libc::EIO, false, calls);
        busy.driver.compact(100);
        assert!(!busy.is_kept());
        busy.fill_a_chunk();
        assert_eq!(busy.reused(), 0);
        busy.close();
    }
}

/// Space is not held for groups that have no use for it, also where the next chunk was made ahead.
#[test]
fn a_file_that_is_of_no_use_any_more_is_given_back() {
    let mut busy = Busy::with_a_file();
    busy.commit(false);
    busy.driver.engine.log.make_next();
    busy.driver.engine.log.end_chunk();
    busy.commit(false);
    assert!(!busy.is_kept());
    busy.close();
}

/// The last bytes of the group could not be written, and those that the file had there were the same.
#[test]
fn a_group_that_was_not_written_whole_may_be_whole_in_such_a_file() {
    let mut busy = Busy::with_a_file();
    busy.commit(false);
    busy.driver.engine.log.end_chunk();
    busy.version += 1;
    busy.disk.fail_at(2, libc::ENOSPC, false, Calls::WRITE); // behind the header
    let error = busy.driver.commit(true, &[(0, busy.version)]).unwrap_err();
    assert!(error.code == Code::DISK_FULL && error.in_doubt, "{error:?}");
}

/// The disk said that it had the new header, and has the old one.
#[test]
fn an_old_header_costs_no_record() {
    let mut busy = Busy::with_a_file();
    let old = busy.disk.read_raw(&removed_name(1)).unwrap();
    busy.fill_a_chunk();
    busy.driver.close();
    let look = |disk: &SimDisk| verify(disk, Path::new("/store"), true, &mut |_, _| {}).unwrap();
    let good = look(&busy.disk);
    let name = file_name(busy.driver.engine.log.last_chunk());
    let mut bytes = busy.disk.read_raw(&name).unwrap();
    bytes[..4096].copy_from_slice(&old[..4096]);
    assert!(busy.disk.write_raw(&name, &bytes));
    let report = look(&busy.disk);
    assert!(report.damage.iter().any(|damage| damage.file == name && damage.what.contains("the header that it had")), "{report:#?}");
    assert_eq!((report.records, report.refusal.is_some()), (good.records, true));
}
