//! Compaction, where its ways cross those of others: newer writes, old deletes, readers, damage.

use super::driver::{Batch, Driver, open, read, state_of};
use super::model::{Effect, KEYS, key_bytes, value_bytes};
use crate::base::code::Code;
use crate::base::sync::Arc;
use crate::engine::Engine;
use crate::io::sim::{Faults, SimDisk};
use crate::native::Options;

fn options() -> Options {
    super::workload::options(1 << 20, 0)
}

/// A store whose first chunk holds keys 0 and 1, of which only key 1 is current.
fn half_dead_store() -> (SimDisk, Driver) {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    commit(&mut driver, &[(0, 1), (1, 1)]);
    driver.engine.log.end_chunk();
    commit(&mut driver, &[(0, 2)]);
    (disk, driver)
}

fn commit(driver: &mut Driver, effects: &[Effect]) {
    driver.commit(true, effects).unwrap();
}

const FIRST: &str = "chunk-0000000000000001.kvb";

fn is_there(disk: &SimDisk, name: &str) -> bool {
    disk.list_files().iter().any(|other| other == name)
}

/// What is dying anyway need not be moved before; what has stopped dying is.
#[test]
pub fn a_chunk_that_loses_its_records_is_given_time() {
    let (disk, mut driver) = half_dead_store();
    let first = driver.engine.chunks.by_age()[0].clone();
    assert_eq!(driver.engine.compact_some(90, true), Ok(false), "nobody has looked yet");
    first.look_whether_it_fades();
    assert_eq!(driver.engine.compact_some(90, true), Ok(false), "it has lost a half since it was full");
    first.look_whether_it_fades();
    assert_eq!(driver.engine.compact_some(90, true), Ok(true), "it has lost nothing since");
    assert!(!is_there(&disk, FIRST));
    driver.close();
    assert_eq!(open(&disk, options()).and_then(|engine| state_of(&engine)), Ok(driver.oracle.visible));
}

#[test]
pub fn a_chunk_without_records_goes_at_once() {
    let (disk, mut driver) = half_dead_store();
    driver.engine.chunks.by_age()[0].look_whether_it_fades();
    commit(&mut driver, &[(1, 2)]);
    assert_eq!(driver.engine.compact_some(50, true), Ok(true));
    assert!(!is_there(&disk, FIRST) && driver.engine.counters().moved_records == 0);
}

/// Nothing more comes in that could wake the compactor.
#[test]
pub fn a_chunk_that_was_given_time_is_not_forgotten() {
    let disk = SimDisk::new(1, Faults::default());
    // Not even a beat, for which it would have to wait a day.
    let background = Options { background: true, min_fill_percent: 90, beat_idle_ms: 86_400_000, ..options() };
    let mut driver = Driver::open(&disk, background, [0; KEYS]).unwrap();
    commit(&mut driver, &[(0, 1), (1, 1)]);
    driver.engine.log.end_chunk();
    commit(&mut driver, &[(0, 2)]);
    driver.engine.wake_compactor();
    let mut looks = 0;
    while is_there(&disk, FIRST) {
        assert!(looks < 20_000, "it stays");
        std::thread::sleep(std::time::Duration::from_millis(5));
        looks += 1;
    }
    assert_eq!(driver.engine.counters().moved_records, 1);
    driver.close();
}

/// A write that is published while its key's older record is being moved.
#[test]
pub fn a_newer_write_is_not_moved_over() {
    let (disk, mut driver) = half_dead_store();
    let hasher = driver.engine.hasher;
    driver.stage(vec![Batch::new(&hasher, true, vec![(1, 3)], Vec::new())]);
    let engine = Arc::clone(&driver.engine);
    let drawn = engine.line.drawn();
    let compaction = std::thread::spawn(move || engine.compact_once(100));
    while driver.engine.line.drawn() == drawn && !compaction.is_finished() {
        std::thread::yield_now(); // it has looked at the index once it draws
    }
    driver.settle();
    assert_eq!(compaction.join().unwrap(), Ok(true));
    assert!(!is_there(&disk, FIRST));
    assert_eq!(read(&driver.engine, &[0, 1]), [Ok(2), Ok(3)]);
    driver.close();
    assert_eq!(open(&disk, options()).and_then(|engine| state_of(&engine)), Ok(driver.oracle.visible));
}

/// The chunk with the delete goes before the chunk with what was deleted.
#[test]
pub fn a_delete_is_kept_while_an_older_chunk_is_there() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    let many: Vec<Effect> = (0..8).map(|key| (key, 1)).collect();
    commit(&mut driver, &many);
    driver.engine.log.end_chunk();
    commit(&mut driver, &[(0, 0), (9, 1)]);
    commit(&mut driver, &[(9, 2)]);
    driver.engine.log.end_chunk();
    commit(&mut driver, &[(9, 3)]);
    driver.compact(50);
    assert!(is_there(&disk, FIRST) && !is_there(&disk, "chunk-0000000000000002.kvb"));
    driver.close();
    assert_eq!(open(&disk, options()).and_then(|engine| state_of(&engine)), Ok(driver.oracle.visible));
}

/// What cannot be read is not thrown away: somebody may still get something out of it.
#[test]
pub fn a_damaged_chunk_is_kept() {
    let (disk, mut driver) = half_dead_store();
    let record = [key_bytes(0), value_bytes(0, 1)].concat();
    let place = disk.read_raw(FIRST).unwrap().windows(record.len()).position(|bytes| bytes == record).unwrap() as u64;
    assert!(disk.flip_bit(FIRST, place, 0));
    driver.compact(100);
    assert!(is_there(&disk, FIRST));
    assert_eq!(driver.engine.counters().chunks_damaged, 1);
    driver.check_errors(false);
    driver.compact(100);
    assert_eq!(driver.engine.counters().chunks_damaged, 1, "and it is not tried again and again");
    assert_eq!(read(&driver.engine, &[0, 1]), [Ok(2), Ok(1)]);
}

/// Whoever has looked up a record finds it, also when its chunk was removed meanwhile.
#[test]
pub fn readers_keep_their_chunks() {
    let (disk, mut driver) = half_dead_store();
    driver.hold_reads(vec![0, 1]);
    driver.compact(100);
    assert!(!is_there(&disk, FIRST));
    commit(&mut driver, &[(0, 5), (1, 5)]);
    driver.engine.log.end_chunk(); // and its slot goes to another
    commit(&mut driver, &[(2, 5)]);
    driver.check_reads();
    assert_eq!(driver.errors.iter().map(|error| error.code).collect::<Vec<Code>>(), []);
}
