//! Chunks that are made ahead of their use: what beginning one costs, when none is used, and what is left of them.

use super::driver::{Driver, open, state_of};
use super::model::{KEYS, State};
use super::workload::options;
use crate::base::code::Code;
use crate::base::random::Random;
use crate::engine::Engine;
use crate::io::sim::{Calls, Faults, SimDisk, Survival};
use crate::native::chunks::file_name;
use crate::native::frame::ChunkHeader;
use crate::native::log::PREPARED_NAME;
use crate::native::tools::verify;
use std::collections::VecDeque;
use std::path::Path;

/// A store with a group that is not durable in its first chunk, behind which the second one is made.
fn with_next() -> (SimDisk, Driver) {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(64 << 10, 64 << 10), [0; KEYS]).unwrap();
    driver.commit(false, &[(0, 1)]).unwrap();
    driver.engine.log.make_next();
    assert!(header(&disk, 2).is_some_and(|header| header.open));
    (disk, driver)
}

fn header(disk: &SimDisk, chunk: u64) -> Option<ChunkHeader> {
    ChunkHeader::decode(&disk.read_raw(&file_name(chunk))?).ok()
}

fn found_in(disk: &SimDisk) -> State {
    state_of(&open(disk, options(64 << 10, 0)).unwrap()).unwrap()
}

fn go_on_in_another_chunk(driver: &mut Driver) {
    driver.engine.log.end_chunk();
    driver.commit(false, &[(1, 2)]).unwrap();
}

#[test]
fn beginning_one_takes_no_call_to_the_disk() {
    let (disk, mut driver) = with_next();
    let before = (disk.calls(Calls::STEPS), disk.calls(Calls::WRITE));
    go_on_in_another_chunk(&mut driver);
    assert_eq!((disk.calls(Calls::STEPS), disk.calls(Calls::WRITE)), (before.0 + 1, before.1 + 1), "the group's write alone");
    let end = driver.engine.chunks.by_age()[0].end().unwrap();
    let said = header(&disk, 2).unwrap().end_before().unwrap();
    assert_eq!((said.chunk, said.last_seq, said.digest), (1, end.last_seq, end.digest), "its first frame says it");
    driver.check_errors(false);
}

#[test]
fn asked_for_once_in_a_chunk_that_fills_up() {
    let (_, driver) = with_next();
    let log = &driver.engine.log;
    assert!(!log.note_unsynced(1, 4096), "it may not come to that");
    let asked = (0..10).filter(|_| log.note_unsynced(1, 32 << 10)).count();
    assert_eq!((asked, log.note_unsynced(2, 32 << 10)), (1, true));
}

#[test]
fn only_one_is_made_and_its_number_is_used_when_it_is_begun() {
    let (disk, mut driver) = with_next();
    driver.engine.log.make_next();
    assert_eq!((driver.engine.log.last_chunk(), header(&disk, 3)), (1, None));
    go_on_in_another_chunk(&mut driver);
    assert_eq!(driver.engine.log.last_chunk(), 2);
}

#[test]
fn what_is_lost_with_the_power_is_cut_and_what_was_before_it_stays() {
    for (sync, after_all_is_lost) in [(false, [0, 0]), (true, [1, 0])] {
        let (disk, mut driver) = with_next();
        if sync {
            driver.stage_sync();
            driver.settle();
        }
        go_on_in_another_chunk(&mut driver);
        driver.engine.log.make_next();
        for (survival, expected) in [(Survival::NOTHING, after_all_is_lost), (Survival::EVERYTHING, [1, 2])] {
            let image = disk.crash_image(&mut Random::new(1), survival);
            let found = found_in(&image);
            assert_eq!(found[..2], expected);
            let mut driver = Driver::open(&image, options(64 << 10, 0), found).unwrap();
            driver.commit(true, &[(2, 3)]).unwrap();
            assert_eq!(header(&image, 3), None, "what was made ahead and not used is gone");
            driver.close();
            assert_eq!(found_in(&image)[..3], [expected[0], expected[1], 3]);
        }
    }
}

#[test]
pub fn behind_a_cut_the_next_header_says_so() {
    let (disk, mut driver) = with_next();
    disk.fail_at(1, libc::ENOSPC, false, Calls::WRITE);
    assert_eq!(driver.commit(false, &[(1, 2)]).unwrap_err().code, Code::DISK_FULL);
    driver.commit(false, &[(1, 3)]).unwrap();
    let begun = header(&disk, 3).expect("another one is begun");
    assert_eq!(begun.before, driver.engine.chunks.by_age()[0].end().unwrap());
    assert_eq!(header(&disk, 2), None, "the one that was made ahead is removed");
    assert_eq!(found_in(&disk.kill_image())[..2], [1, 3]);
}

#[test]
fn other_dictionaries_need_another_header() {
    let (disk, mut driver) = with_next();
    driver.engine.log.name_dictionaries([3; 32]);
    driver.commit(false, &[(1, 2)]).unwrap();
    assert_eq!(header(&disk, 3).map(|header| header.dictionaries), Some([3; 32]));
    assert_eq!(header(&disk, 2), None);
}

#[test]
fn one_that_cannot_be_made_is_done_without() {
    for calls in [Calls::CREATE, Calls::WRITE, Calls::SYNC, Calls::SYNC_DIR] {
        let (disk, mut driver) = with_next();
        go_on_in_another_chunk(&mut driver);
        disk.fail_at(1, libc::EIO, false, calls);
        driver.engine.log.make_next();
        assert_eq!(header(&disk, 3), None);
        driver.engine.log.end_chunk();
        driver.commit(false, &[(2, 3)]).unwrap();
        driver.close();
        driver.check_errors(false);
        assert_eq!(found_in(&disk)[..3], [1, 2, 3]);
    }
}

#[test]
fn a_close_takes_it_away() {
    let (disk, mut driver) = with_next();
    driver.close();
    assert_eq!(disk.list_files().into_iter().filter(|name| name.starts_with("chunk-")).count(), 1);
}

/// The chunk before it is gone, and the frame that said how far the log had come is damaged.
#[test]
fn without_its_first_frame_a_chunk_whose_predecessor_is_gone_is_refused() {
    let (disk, mut driver) = with_next();
    driver.engine.log.end_chunk();
    driver.commit(false, &[(0, 2), (1, 2)]).unwrap();
    driver.compact(100);
    driver.check_errors(false);
    assert_eq!((header(&disk, 1), header(&disk, 2).unwrap().open), (None, false));
    let image = disk.kill_image();
    assert_eq!(found_in(&image)[..2], [2, 2]);
    assert!(image.flip_bit(&file_name(2), 4096 + 20, 1));
    let error = open(&image, options(64 << 10, 0)).err().unwrap();
    assert!(error.code == Code::CORRUPTED && error.message.contains(&file_name(2)), "{error}");
}

/// The file is missing that was written to last: the chunk that was made ahead tells that it was there.
#[test]
fn what_was_written_to_before_it_is_missed() {
    let (disk, mut driver) = with_next();
    go_on_in_another_chunk(&mut driver);
    driver.engine.log.make_next();
    let image = disk.kill_image();
    assert!(image.remove_raw(&file_name(2)));
    let error = open(&image, options(64 << 10, 0)).err().unwrap();
    assert!(error.code == Code::CORRUPTED && error.message.contains(&file_name(2)), "{error}");
}

/// What lies before a checkpoint is not looked at, and so the frame that says how far the log had come may be damaged.
#[test]
fn a_checkpoint_says_as_well_where_the_chunk_before_it_ends() {
    for remove in [false, true] {
        let (disk, mut driver) = with_next();
        go_on_in_another_chunk(&mut driver);
        if remove {
            driver.commit(false, &[(0, 3)]).unwrap();
            driver.compact(100);
        }
        driver.engine.log.make_next();
        driver.engine.log.end_chunk();
        driver.commit(true, &[(2, 4)]).unwrap();
        driver.checkpoint(&mut Random::new(1), VecDeque::new());
        driver.check_errors(false);
        let image = disk.kill_image();
        let whole = found_in(&image);
        assert!(image.flip_bit(&file_name(2), 4096 + 20, 1));
        assert_eq!(header(&image, 2).map(|header| header.open), Some(true));
        let engine = open(&image, options(64 << 10, 0)).unwrap();
        assert!(engine.counters().loaded_keys > 0, "the checkpoint is used");
        assert_eq!(whole[2], 4);
    }
}

/// Durable groups, and others between: a file of zeros is not left for a chunk that was made ahead.
#[test]
fn a_prepared_file_goes_first_where_groups_are_durable() {
    let (disk, mut driver) = with_next();
    driver.prepare();
    driver.engine.log.end_chunk();
    driver.commit(true, &[(1, 2)]).unwrap();
    assert_eq!((header(&disk, 2), header(&disk, 3).map(|header| header.open)), (None, Some(false)));
    driver.engine.log.make_next();
    driver.prepare();
    driver.engine.log.end_chunk();
    driver.commit(false, &[(1, 3)]).unwrap();
    assert_eq!((header(&disk, 4), disk.read_raw(PREPARED_NAME)), (None, None));
    driver.commit(true, &[(1, 4)]).unwrap();
    assert_eq!(driver.engine.log.last_chunk(), 5, "and no chunk is begun for one group");
    driver.check_errors(false);
}

/// A frame that says nothing, a beat, was torn at the end of a chunk: the log goes on in the next one, for every reader.
#[test]
fn dirt_behind_the_last_frame_is_no_end_where_the_next_chunk_goes_on() {
    let (disk, mut driver) = with_next();
    go_on_in_another_chunk(&mut driver);
    let image = disk.kill_image();
    let mut dirty = image.read_raw(&file_name(1)).unwrap();
    dirty.resize(dirty.len().next_multiple_of(4096), 0);
    dirty.extend([0xab; 40]);
    assert!(image.write_raw(&file_name(1), &dirty));
    assert_eq!(found_in(&image.twin())[..2], [1, 2]);
    let report = verify(&image, Path::new("/store"), true, &mut |_, _| {}).unwrap();
    assert!(report.is_good() && report.frames == 2, "{report:#?}");
}
