//! Beats: what was promised is told from what was never finished, also in the last group of the log.

use super::driver::{Driver, open, state_of};
use super::model::KEYS;
use super::workload::options;
use crate::base::code::Code;
use crate::engine::Engine;
use crate::io::sim::{Faults, SimDisk};
use crate::native::frame::{BATCH_ENTRY_LEN, FRAME_HEADER_LEN};
use std::time::{Duration, Instant};

const CHUNK: &str = "chunk-0000000000000001.kvb";

/// A store with two durable groups; the second begins at byte 8192 of its chunk.
fn sample(disk: &SimDisk) -> Driver {
    let mut driver = Driver::open(disk, options(64 << 10, 0), [0; KEYS]).unwrap();
    driver.commit(true, &[(0, 1)]).unwrap();
    driver.commit(true, &[(1, 2)]).unwrap();
    driver
}

fn len(disk: &SimDisk) -> usize {
    disk.read_raw(CHUNK).unwrap().len()
}

#[test]
fn damage_of_the_last_group_is_seen_after_a_beat() {
    let disk = SimDisk::new(1, Faults::default());
    let driver = sample(&disk);
    let silent = disk.kill_image();
    driver.engine.beat().unwrap();
    let told = disk.kill_image();
    assert_eq!(len(&told), 3 * 4096 + FRAME_HEADER_LEN, "a beat has a block of its own");
    let record_at = (8192 + FRAME_HEADER_LEN + BATCH_ENTRY_LEN) as u64;
    for at in 8192..8192 + 100 {
        let (before, after) = (silent.twin(), told.twin());
        assert!(before.flip_bit(CHUNK, at, 3) && after.flip_bit(CHUNK, at, 3));
        if at < record_at + 20 {
            assert_eq!(state_of(&open(&before, options(64 << 10, 0)).unwrap()).unwrap()[..2], [1, 0], "cut, for want of a witness");
            let error = open(&after, options(64 << 10, 0)).err().expect("refused");
            assert_eq!(error.code, Code::CORRUPTED, "byte {at}: {error}");
        }
    }
}

#[test]
fn nothing_is_said_twice_and_nothing_too_early() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = sample(&disk);
    driver.engine.beat().unwrap();
    let told = len(&disk);
    driver.engine.beat().unwrap();
    assert_eq!(len(&disk), told, "it was said already");
    driver.commit(false, &[(2, 3)]).unwrap();
    let with_more = len(&disk);
    driver.engine.beat().unwrap();
    assert_eq!(len(&disk), with_more, "what is not durable needs no witness");
    driver.engine.sync().unwrap();
    driver.engine.beat().unwrap();
    assert!(len(&disk) > with_more);
    driver.close();
    let engine = open(&disk, options(64 << 10, 0)).unwrap();
    engine.beat().unwrap();
    assert_eq!(disk.list_files().iter().filter(|name| name.starts_with("chunk-")).count(), 1, "an opening alone writes nothing");
    assert_eq!(state_of(&engine).unwrap()[..3], [1, 2, 3]);
}

#[test]
fn nothing_depends_on_a_beat() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = sample(&disk);
    driver.engine.beat().unwrap();
    driver.commit(true, &[(2, 3)]).unwrap();
    let bytes = disk.read_raw(CHUNK).unwrap();
    let lost = disk.kill_image();
    let mut without = bytes.clone();
    without[3 * 4096..4 * 4096].fill(0);
    lost.write_raw(CHUNK, &without);
    assert_eq!(state_of(&open(&lost, options(64 << 10, 0)).unwrap()).unwrap()[..3], [1, 2, 3], "what follows it is there");
    // At the end of the log it may be missing, or be there in part.
    let end = SimDisk::new(1, Faults::default());
    let driver = sample(&end);
    driver.engine.beat().unwrap();
    for kept in [0, 1, 30, 63] {
        let torn = end.kill_image();
        assert!(torn.truncate_raw(CHUNK, 3 * 4096 + kept));
        assert_eq!(state_of(&open(&torn, options(64 << 10, 0)).unwrap()).unwrap()[..2], [1, 2]);
    }
}

#[test]
fn an_idle_store_beats() {
    let disk = SimDisk::new(1, Faults::default());
    let running = crate::native::Options { background: true, beat_idle_ms: 1, ..options(64 << 10, 0) };
    let mut driver = Driver::open(&disk, running, [0; KEYS]).unwrap();
    for version in 1..4 {
        let before = disk.read_raw(CHUNK).map_or(0, |bytes| bytes.len());
        driver.commit(true, &[(0, version)]).unwrap();
        driver.engine.wake_compactor();
        let deadline = Instant::now() + Duration::from_secs(60);
        while driver.engine.log.wants_beat() || len(&disk) <= before + 4096 {
            assert!(Instant::now() < deadline, "the beat never came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    driver.close();
}
