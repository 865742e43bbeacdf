//! A full disk: the reserve gives deletes and compaction the room to make more, and writes come back by themselves.

use super::crash::try_workload;
use super::driver::{Driver, open, state_of};
use super::model::{Effect, KEYS};
use super::sweep::say;
use super::workload::Workload;
use crate::base::code::Code;
use crate::engine::Engine;
use crate::io::sim::{Calls, Faults, SimDisk};
use crate::native::Options;
use crate::native::log::{Log, PREPARED_NAME, RESERVE_NAME};

const RESERVE_BYTES: u64 = (32 << 10) / 100 * 150;

/// Seeds of the cramped workloads.
const SEEDS: u64 = 150;

fn options() -> Options {
    Options { reserve_percent: 150, checkpoint_log_bytes: 0, ..super::workload::options(32 << 10, 0) }
}

/// Puts every key again and again, until the store has as many chunks as are wanted; the last version.
fn grow(driver: &mut Driver, chunks: u64) -> u32 {
    let mut version = driver.oracle.visible.iter().copied().max().unwrap_or(0);
    while driver.engine.counters().chunks_created < chunks {
        version += 1;
        let effects: Vec<Effect> = (0..KEYS).map(|key| (key, version)).collect();
        driver.commit(true, &effects).unwrap();
    }
    version
}

fn grown() -> (SimDisk, Driver, u32) {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    let version = grow(&mut driver, 5);
    (disk, driver, version)
}

fn reserve_len(disk: &SimDisk) -> Option<usize> {
    disk.read_raw(RESERVE_NAME).map(|bytes| bytes.len())
}

#[test]
fn a_small_store_has_no_reserve_and_a_large_one_has() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    grow(&mut driver, 2);
    assert_eq!((reserve_len(&disk), driver.engine.counters().reserve_bytes), (None, 0));
    grow(&mut driver, 4);
    assert_eq!((reserve_len(&disk), driver.engine.counters().reserve_bytes), (Some(RESERVE_BYTES as usize), RESERVE_BYTES));
    // What is left of an earlier opening, or of other options, is put right.
    for (left, options, wanted) in [
        (RESERVE_BYTES as usize, options(), Some(RESERVE_BYTES as usize)),
        (77, options(), Some(RESERVE_BYTES as usize)),
        (RESERVE_BYTES as usize, Options { reserve_percent: 0, ..options() }, None),
    ] {
        driver.close();
        assert!(disk.write_raw(RESERVE_NAME, &vec![0; left]));
        driver.reopen(options).unwrap();
        assert_eq!(reserve_len(&disk), Some(left), "opening changes nothing");
        driver.commit(true, &[(0, 1 << 20)]).unwrap();
        assert_eq!(reserve_len(&disk), wanted);
    }
    driver.check_errors(false);
}

#[test]
fn a_file_made_ahead_is_not_what_fills_the_disk() {
    let (disk, driver, _) = grown();
    let log = &driver.engine.log;
    let kept_free = (32 << 10) + RESERVE_BYTES;
    disk.set_space(Some((32 << 10) + kept_free - 1));
    assert!(!log.claim_prepared(), "there is too little room for it");
    disk.set_space(Some((32 << 10) + kept_free));
    assert!(log.claim_prepared());
    let mut left = Some(kept_free);
    log.prepare(&mut || {
        disk.set_space(left.take()); // somebody else has filled the disk meanwhile
        true
    });
    assert_eq!(disk.read_raw(PREPARED_NAME), None);
}

/// A durable group of `len` bytes has come to byte `end` of its chunk. Whether a file is due.
fn note_durable(log: &Log, end: u64, len: u64) -> bool {
    log.count_durable(len);
    log.is_file_due(log.last_chunk(), end)
}

/// Behind a chunk that has such a file, the next one is made in time, be groups so large that the last one begins early.
#[test]
fn the_file_behind_one_is_due_when_that_is_half_full_or_takes_no_other_group() {
    let disk = SimDisk::new(1, Faults::default());
    let chunk_bytes = 8 << 20;
    for (group, due_at) in [(1000, chunk_bytes / 2), (1 << 20, chunk_bytes / 2), (chunk_bytes / 8 * 3, chunk_bytes / 8 * 2)] {
        let mut driver = Driver::open(&disk.twin(), Options { chunk_bytes, ..options() }, [0; KEYS]).unwrap();
        let log = &driver.engine.log;
        while !log.has_prepared(true) {
            note_durable(log, 0, group);
            log.prepare(&mut || true);
        }
        driver.commit(true, &[(0, 1)]).unwrap();
        let log = &driver.engine.log;
        (0..300).for_each(|_| log.count_durable(group)); // now it is usual
        let chunk = log.last_chunk();
        for (chunk, end, is_due) in [(chunk - 1, chunk_bytes, false), (chunk, due_at - 256, false), (chunk, due_at + 256, true)] {
            assert_eq!(log.is_file_due(chunk, end), is_due, "groups of {group} bytes, chunk {chunk}, byte {end}");
        }
        driver.close();
    }
}

#[test]
fn a_file_for_large_groups_has_its_space_without_zeros() {
    let disk = SimDisk::new(1, Faults::default());
    let chunk_bytes = 8 << 20;
    let mut driver = Driver::open(&disk, Options { chunk_bytes, ..options() }, [0; KEYS]).unwrap();
    let mut steps = Vec::new();
    for group in [2 << 20, 1000] {
        let log = &driver.engine.log;
        let claims = (0..100).filter(|_| note_durable(log, chunk_bytes, group)).count();
        assert_eq!(claims, 1, "one of them makes the file");
        let before = disk.calls(Calls::STEPS);
        log.prepare(&mut || true);
        while note_durable(log, chunk_bytes, group) || !log.has_prepared(true) {
            log.prepare(&mut || true);
        }
        steps.push(disk.calls(Calls::STEPS) - before);
        let made = disk.read_raw(PREPARED_NAME).unwrap();
        assert!(made.len() as u64 == chunk_bytes && made.iter().all(|byte| *byte == 0));
        let version = 1 + steps.len() as u32;
        driver.commit(true, &[(0, version)]).unwrap();
        assert_eq!(disk.read_raw(PREPARED_NAME), None, "it has become a chunk");
        driver.engine.log.end_chunk();
    }
    assert!(steps[0] + 8 < steps[1], "{steps:?}: no piece of zeros was written, nor synced");
    driver.check_errors(false);
}

#[test]
fn zeros_come_at_twice_the_pace_of_small_groups() {
    let disk = SimDisk::new(1, Faults::default());
    let chunk_bytes = 8 << 20;
    let mut driver = Driver::open(&disk, Options { chunk_bytes, ..options() }, [0; KEYS]).unwrap();
    let log = &driver.engine.log;
    let filled = || disk.read_raw(PREPARED_NAME).map_or(0, |made| made.len());
    let group = (12 << 10) + 8; // of which each takes four blocks
    assert_eq!((0..64).filter(|_| note_durable(log, chunk_bytes, group)).count(), 1);
    log.prepare(&mut || true);
    assert_eq!(filled(), 1 << 20, "the first piece is due at once");
    for pieces in 2..8 {
        let due = (0..32).filter(|_| note_durable(log, chunk_bytes, group)).count();
        assert_eq!(due, 1, "after half as many bytes, the last of the groups wants the next piece");
        log.prepare(&mut || true);
        assert_eq!(filled(), pieces << 20);
    }
    log.prepare(&mut || false);
    assert_eq!(filled(), 7 << 20, "whoever is to stop stops");
    assert!((0..32).any(|_| note_durable(log, chunk_bytes, group)));
    for _ in 0..2 {
        log.prepare(&mut || true); // also if it is asked for once too often
    }
    assert_eq!((filled(), log.has_prepared(true)), (8 << 20, true));
    driver.close();
    assert_eq!(disk.read_raw(PREPARED_NAME), None, "it is of no use to the next opening");
    driver.check_errors(false);
}

#[test]
fn a_part_of_a_file_goes_when_the_store_is_closed() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, Options { chunk_bytes: 8 << 20, ..options() }, [0; KEYS]).unwrap();
    driver.commit(true, &[(0, 1)]).unwrap();
    driver.prepare();
    assert_eq!(disk.read_raw(PREPARED_NAME).map(|made| made.len()), Some(1 << 20));
    driver.close();
    assert_eq!(disk.read_raw(PREPARED_NAME), None);
    driver.check_errors(false);
}

#[test]
fn deletes_and_compaction_make_room_on_a_full_disk() {
    let (disk, mut driver, version) = grown();
    disk.set_space(Some(0));
    let error = driver.commit(true, &[(0, version + 1)]).unwrap_err();
    assert!(error.code == Code::DISK_FULL && !error.in_doubt, "the header of the next chunk says where the log was cut: {error}");
    assert_eq!(reserve_len(&disk), None);
    let steps = disk.calls(Calls::STEPS);
    for durable in [true, false] {
        let error = driver.commit(durable, &[(0, version + 2), (1, 0)]).unwrap_err();
        assert!(error.code == Code::DISK_FULL && !error.in_doubt && error.message.contains("delete keys"), "{error}");
    }
    assert_eq!(disk.calls(Calls::STEPS), steps, "refused at once");
    for part in (0..KEYS).collect::<Vec<_>>().chunks(KEYS / 3) {
        driver.commit(true, &part.iter().map(|key| (*key, 0)).collect::<Vec<Effect>>()).unwrap();
    }
    let mut compactions = 0;
    while driver.engine.compact_once(50).unwrap() {
        compactions += 1;
        assert!(compactions < 20, "it does not go on for ever");
    }
    assert_eq!(driver.engine.counters().reserve_bytes, RESERVE_BYTES, "there is room again");
    driver.commit(true, &[(0, version + 3)]).unwrap();
    driver.close();
    driver.reopen(options()).unwrap();
    assert_eq!(state_of(&driver.engine).unwrap()[..3], [version + 3, 0, 0]);
}

#[test]
fn writes_come_back_when_somebody_makes_room() {
    for durable in [true, false] {
        let (disk, mut driver, version) = grown();
        disk.set_space(Some(10));
        assert_eq!(driver.commit(durable, &[(0, version + 1)]).unwrap_err().code, Code::DISK_FULL);
        disk.set_space(Some(RESERVE_BYTES));
        assert_eq!(driver.commit(durable, &[(0, version + 2)]).unwrap_err().code, Code::DISK_FULL, "not enough for the reserve and this");
        disk.set_space(Some(4 * RESERVE_BYTES));
        driver.commit(durable, &[(0, version + 3)]).unwrap();
        assert_eq!(reserve_len(&disk), Some(RESERVE_BYTES as usize));
        driver.close();
        driver.reopen(options()).unwrap();
    }
}

/// Whoever opens a store on a full disk again and again does not eat up what compaction needs.
#[test]
fn an_opening_on_a_full_disk_does_not_put() {
    let (disk, mut driver, version) = grown();
    driver.close();
    disk.remove_raw(RESERVE_NAME);
    disk.set_space(Some(RESERVE_BYTES - 1));
    for round in 0..3 {
        driver.reopen(options()).unwrap();
        let error = driver.commit(true, &[(0, version + 1 + round)]).unwrap_err();
        assert!(error.code == Code::DISK_FULL && !error.in_doubt, "{error}");
        driver.close();
    }
    driver.reopen(options()).unwrap();
    let effects: Vec<Effect> = (0..KEYS).map(|key| (key, 0)).collect();
    driver.commit(true, &effects).unwrap();
    while driver.engine.compact_once(50).unwrap() {}
    driver.commit(true, &[(0, version + 9)]).unwrap();
}

/// Without the reserve's file there is nothing to be given back, and other failures than a full disk are none of it.
#[test]
fn a_reserve_that_cannot_be_made_does_not_stop_writes() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    disk.fail_at(1, libc::EIO, true, Calls::ALLOCATE);
    grow(&mut driver, 6);
    assert_eq!((reserve_len(&disk), driver.engine.counters().reserve_bytes), (None, 0));
    driver.check_errors(false);
}

/// A file that may not grow is no full disk: other files may, and the reserve stays.
#[test]
fn a_limit_of_file_sizes_is_no_full_disk() {
    let (disk, mut driver, version) = grown();
    disk.fail_at(1, libc::EFBIG, false, Calls::WRITE_DURABLE);
    assert_eq!(driver.commit(true, &[(0, version + 1)]).unwrap_err().code, Code::DISK_FULL);
    assert_eq!(reserve_len(&disk), Some(RESERVE_BYTES as usize));
    driver.commit(true, &[(0, version + 2)]).unwrap();
}

/// A chunk full of deletes is rewritten when they can be forgotten, and not before: each time would bring another.
#[test]
fn deletes_are_not_moved_for_nothing() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    driver.commit(false, &[(0, 1), (1, 1)]).unwrap(); // stays current, so that its chunk stays
    while driver.engine.counters().chunks_created < 2 {
        driver.commit(false, &[(0, 2)]).unwrap();
    }
    driver.commit(false, &[(1, 0); 1]).unwrap();
    let deletes: Vec<Effect> = (2..KEYS).map(|key| (key, 0)).collect();
    while driver.engine.counters().chunks_created < 6 {
        driver.commit(false, &deletes).unwrap();
    }
    let mut compactions = 0;
    while driver.engine.compact_once(0).unwrap() {
        compactions += 1;
        assert!(compactions < 20, "deletes are moved round and round");
    }
    driver.close();
    driver.reopen(options()).unwrap();
    assert_eq!(open(&disk.kill_image(), options()).and_then(|engine| state_of(&engine)).unwrap()[..2], [2, 0]);
}

#[test]
fn simulator_on_a_disk_that_is_full_again_and_again() {
    let (mut images, mut refused, mut reserves) = (0, 0, 0);
    for seed in 0..SEEDS {
        let workload = Workload::draw(seed).cramped();
        let (tally, result) = try_workload(workload.clone(), seed);
        if let Err(violation) = result {
            say(&format!("full: violation at seed {seed}, {workload:?}"));
            std::panic::resume_unwind(violation);
        }
        images += tally.images;
        let disk = workload.new_disk();
        let driver = workload.run(&disk, [0; KEYS], true).unwrap();
        refused += driver.errors.iter().filter(|error| error.message.contains("delete keys")).count();
        reserves += disk.calls(Calls::ALLOCATE);
    }
    say(&format!("full: {SEEDS} seeds, {images} crash images, no violation; {reserves} reserves tried, {refused} puts refused"));
    assert!(refused > 100 && reserves > 100, "the disk was full and nobody noticed");
}
