//! Checkpoints: whatever one is like, the store that is opened from it is the one that the whole log tells.

use super::driver::{Batch, Driver, open, state_of};
use super::model::{Effect, KEYS};
use super::workload::options;
use crate::base::code::Code;
use crate::base::random::Random;
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::engine::Engine;
use crate::io::Disk;
use crate::io::sim::{Faults, SimDisk};
use crate::native::checkpoint::{Checkpoint, number_of};
use crate::native::chunks::Chunk;
use crate::native::frame::LogEnd;
use crate::native::{NativeEngine, Options};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// What recovery has made of a store.
#[derive(Debug, PartialEq, Eq)]
struct Anatomy {
    /// By tag: chunk, offset, length.
    entries: BTreeMap<u64, (u64, u64, usize)>,
    /// Number, end, bytes of records, dead ones, deletes.
    chunks: Vec<(u64, Option<LogEnd>, u64, u64, u64)>,
    end: LogEnd,
}

fn anatomy(engine: &NativeEngine) -> Anatomy {
    let view = engine.chunks.view();
    let mut entries = BTreeMap::new();
    engine.index.read().for_each(&mut |tag, place| {
        let seen = view[place.slot() as usize].as_ref().expect("an entry leads to a chunk that is there");
        entries.insert(tag, (seen.chunk.id, place.offset(), place.len_at_most()));
    });
    let about = |chunk: Arc<Chunk>| {
        let [record_bytes, dead_bytes, tombstone_bytes] =
            [&chunk.record_bytes, &chunk.dead_bytes, &chunk.tombstone_bytes].map(|count| count.load(Ordering::Relaxed));
        (chunk.id, chunk.end(), record_bytes, dead_bytes, tombstone_bytes)
    };
    Anatomy { entries, chunks: engine.chunks.by_age().into_iter().map(about).collect(), end: *engine.reached.lock() }
}

fn checkpoints(disk: &SimDisk) -> Vec<String> {
    disk.list_files().into_iter().filter(|name| name.starts_with("index-")).collect()
}

/// Opens two twins of `disk`, one of them without its checkpoints; they must not differ in anything. How many keys came
/// from a checkpoint.
pub fn compare_with_full_replay(disk: &SimDisk, options: Options) -> u64 {
    let names = checkpoints(disk);
    if names.is_empty() {
        return 0;
    }
    let bare = disk.twin();
    names.iter().for_each(|name| assert!(bare.remove_raw(name)));
    let secret = super::SECRET.get();
    let quick = open(&disk.twin(), options).unwrap();
    super::SECRET.set(quick.secret); // tags are to be compared
    let slow = open(&bare, options).unwrap();
    super::SECRET.set(secret);
    assert_eq!(slow.counters().loaded_keys, 0);
    assert_eq!(anatomy(&quick), anatomy(&slow), "left: with checkpoints, right: without");
    quick.counters().loaded_keys
}

/// Whether there is a checkpoint that is good in itself.
pub fn has_good_checkpoint(disk: &SimDisk) -> bool {
    let dir = disk.twin().open_dir(Path::new("/store")).unwrap();
    let good = |name: &String| number_of(name).and_then(|number| Checkpoint::open(&*dir, number)).is_some_and(|found| found.verify());
    checkpoints(disk).iter().any(good)
}

fn new_disk() -> SimDisk {
    SimDisk::new(1, Faults::default())
}

fn small() -> Options {
    Options { checkpoint_log_bytes: 0, ..options(16 << 10, 0) }
}

fn commit(driver: &mut Driver, effects: &[Effect]) {
    let batch = Batch::new(&driver.engine.hasher, false, effects.to_vec(), Vec::new());
    driver.stage(vec![batch]);
    driver.settle();
    driver.check_errors(false);
}

fn group(driver: &Driver, rng: &mut Random, version: &mut u32) -> Vec<Batch> {
    let effects = (0..1 + rng.below(6)).map(|_| {
        *version += 1;
        (rng.below(KEYS as u64) as usize, if rng.one_in(5) { 0 } else { *version })
    });
    let effects = effects.collect();
    vec![Batch::new(&driver.engine.hasher, rng.one_in(4), effects, Vec::new())]
}

/// A store with some chunks, and a checkpoint in the midst of its log.
fn sample(disk: &SimDisk) -> Driver {
    let mut driver = Driver::open(disk, small(), [0; KEYS]).unwrap();
    let (mut rng, mut version) = (Random::new(7), 0);
    for round in 0..60 {
        let batches = group(&driver, &mut rng, &mut version);
        driver.stage(batches);
        driver.settle();
        if round == 40 {
            driver.checkpoint(&mut rng, VecDeque::new());
        }
    }
    driver.check_errors(false);
    driver
}

#[test]
fn a_store_opens_from_its_checkpoint() {
    let disk = new_disk();
    let driver = sample(&disk);
    let image = disk.kill_image();
    let engine = open(&image.twin(), small()).unwrap();
    let counters = engine.counters();
    assert!(counters.loaded_keys > 5, "{counters:?}");
    assert!(counters.replayed_bytes > 0 && counters.replayed_bytes < driver.engine.counters().log_bytes);
    assert_eq!(state_of(&engine).unwrap(), driver.oracle.visible);
    compare_with_full_replay(&image, small());
}

#[test]
fn a_damaged_checkpoint_changes_nothing() {
    let disk = new_disk();
    let driver = sample(&disk);
    let image = disk.kill_image();
    let names = checkpoints(&image);
    let whole = image.read_raw(&names[0]).unwrap();
    let full = {
        let bare = image.twin();
        bare.remove_raw(&names[0]);
        anatomy(&open(&bare, small()).unwrap())
    };
    let check = |disk: SimDisk, what: &str| {
        let engine = open(&disk, small()).unwrap();
        assert_eq!(engine.counters().loaded_keys, 0, "{what} is not seen");
        assert_eq!(anatomy(&engine), full, "{what}");
        assert_eq!(state_of(&engine).unwrap(), driver.oracle.visible, "{what}");
    };
    // The zeros of the header are of one kind: a few of them will do.
    for bit in (0..whole.len() as u64 * 8).filter(|bit| !(120 * 8..4090 * 8).contains(bit) || bit % 1001 == 0) {
        let disk = image.twin();
        assert!(disk.flip_bit(&names[0], bit / 8, (bit % 8) as u32));
        check(disk, &format!("bit {bit}"));
    }
    for len in (0..whole.len()).step_by(13) {
        let disk = image.twin();
        assert!(disk.truncate_raw(&names[0], len as u64));
        check(disk, &format!("cut at {len}"));
    }
    let longer = image.twin();
    assert!(longer.truncate_raw(&names[0], whole.len() as u64 + 1));
    check(longer, "a byte too many");
    let unreadable = image.twin();
    assert!(unreadable.make_unreadable(&names[0], 4096, 100));
    check(unreadable, "an unreadable block");
    let renamed = image.twin();
    renamed.remove_raw(&names[0]);
    assert!(renamed.write_raw(&crate::native::checkpoint::file_name(77), &whole));
    check(renamed, "another number");
}

/// Random work, with checkpoints at random moments, groups on their way, and compaction; killed now and then.
#[test]
fn opened_from_a_checkpoint_or_not_is_the_same() {
    let (mut loaded, mut removed) = (0, 0);
    for seed in 0..300 {
        let mut rng = Random::new(seed);
        super::SECRET.set([seed, !seed]); // other segments each time
        let disk = SimDisk::new(seed, Faults { short_write_one_in: 5, short_read_one_in: 5, eintr_one_in: 9, ..Faults::default() });
        let mut driver = Driver::open(&disk, small(), [0; KEYS]).unwrap();
        let mut version = 0;
        for _ in 0..120 {
            match rng.below(12) {
                0 => {
                    let more = (0..rng.below(9)).map(|_| group(&driver, &mut rng, &mut version)).collect();
                    driver.checkpoint(&mut rng, more);
                }
                1 | 2 => driver.compact([50, 80, 100][rng.below(3) as usize]),
                3 => loaded += compare_with_full_replay(&disk.kill_image(), small()),
                4 => driver.settle(),
                _ => {
                    let batches = group(&driver, &mut rng, &mut version);
                    driver.stage(batches);
                    if rng.one_in(2) {
                        driver.publish();
                    }
                }
            }
        }
        driver.settle();
        driver.check_errors(false);
        removed += driver.engine.counters().chunks_removed;
        let image = disk.kill_image();
        loaded += compare_with_full_replay(&image, small());
        assert_eq!(state_of(&open(&image, small()).unwrap()).unwrap(), driver.oracle.visible);
    }
    assert!(loaded > 1000 && removed > 1000, "{loaded} keys loaded, {removed} chunks removed");
}

/// A key that stood in a removed chunk when the checkpoint was made, and was deleted since: its delete may be forgotten.
#[test]
fn entries_of_removed_chunks_are_forgotten() {
    let disk = new_disk();
    let mut driver = Driver::open(&disk, small(), [0; KEYS]).unwrap();
    for version in 1..40 {
        commit(&mut driver, &(0..KEYS).map(|key| (key, version * 100 + key as u32)).collect::<Vec<_>>());
    }
    driver.checkpoint(&mut Random::new(1), VecDeque::new());
    commit(&mut driver, &(1..KEYS).map(|key| (key, 0)).collect::<Vec<_>>());
    for version in 100..200 {
        commit(&mut driver, &[(0, version)]);
    }
    while driver.engine.compact_once(100).unwrap() {
        if driver.engine.counters().chunks_removed > 100 {
            break; // at 100 % what was moved is moved again
        }
    }
    let image = disk.kill_image();
    let loaded = compare_with_full_replay(&image, small());
    assert_eq!(loaded, KEYS as u64, "the checkpoint was used");
    let engine = open(&image, small()).unwrap();
    assert_eq!(engine.counters().keys, 1);
    assert_eq!(state_of(&engine).unwrap(), driver.oracle.visible);
}

/// A log that ends before what a checkpoint says was on stable storage has lost acknowledged data.
#[test]
fn a_checkpoint_is_a_witness() {
    let disk = new_disk();
    let mut driver = sample(&disk);
    commit(&mut driver, &[(1, 4000), (2, 4001)]);
    driver.checkpoint(&mut Random::new(1), VecDeque::new());
    let image = disk.kill_image();
    let last = image.list_files().into_iter().rfind(|name| name.starts_with("chunk-")).unwrap();
    let len = image.read_raw(&last).unwrap().len() as u64;
    assert!(image.truncate_raw(&last, len - 8));
    let before = image.list_files().iter().map(|name| image.read_raw(name)).collect::<Vec<_>>();
    let error = open(&image, small()).err().expect("refused");
    assert_eq!(error.code, Code::CORRUPTED, "{error}");
    assert_eq!(image.list_files().iter().map(|name| image.read_raw(name)).collect::<Vec<_>>(), before, "nothing was changed");
}

#[test]
fn the_newest_two_are_kept() {
    let disk = new_disk();
    let mut driver = sample(&disk);
    for round in 0..5 {
        commit(&mut driver, &[(round, 5000 + round as u32)]);
        driver.checkpoint(&mut Random::new(1), VecDeque::new());
        driver.check_errors(false);
        assert_eq!(checkpoints(&disk).len(), 2);
    }
    let mut most = 0;
    driver.engine.checkpoint_beside(&mut |_| most = most.max(checkpoints(&disk).len())).unwrap();
    assert_eq!(most, 2, "nor are there three while one is written");
    let newest = checkpoints(&disk).pop().unwrap();
    let image = disk.kill_image();
    assert!(image.flip_bit(&newest, 20, 0));
    let engine = open(&image, small()).unwrap();
    assert!(engine.counters().loaded_keys > 0, "the older one does as well");
    assert_eq!(state_of(&engine).unwrap(), driver.oracle.visible);
    engine.checkpoint().unwrap();
    assert!(!checkpoints(&image).contains(&newest), "what is of no use goes");
    assert_eq!(checkpoints(&image).len(), 2);
}

#[test]
fn written_when_closed_if_there_is_much_to_replay() {
    let disk = new_disk();
    let options = Options { checkpoint_log_bytes: 10_000, ..small() };
    let mut driver = Driver::open(&disk, options, [0; KEYS]).unwrap();
    commit(&mut driver, &[(1, 1)]);
    driver.close();
    assert_eq!(checkpoints(&disk).len(), 0);
    driver.reopen(options).unwrap();
    for version in 10..60 {
        commit(&mut driver, &[(0, version), (1, version), (2, version)]);
    }
    driver.close();
    assert_eq!(checkpoints(&disk).len(), 1);
    driver.reopen(options).unwrap();
    assert_eq!(driver.engine.counters().loaded_keys, 3);
    assert!(driver.engine.counters().replayed_bytes < 10_000);
    driver.close();
    assert_eq!(checkpoints(&disk).len(), 1, "there was no need for another");
}
