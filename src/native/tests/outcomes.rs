//! What became of a batch: asked after the next opening, whatever has happened to the log meanwhile. The simulator asks for
//! every batch of every crash image (`model::Oracle::check_outcomes`); here are the cases by hand.

use super::driver::{Driver, open, read};
use super::model::KEYS;
use super::workload::options;
use crate::base::code::Code;
use crate::engine::{BatchId, BatchOutcome, Engine};
use crate::io::sim::{Calls, Faults, SimDisk, Survival};
use crate::native::Options;

fn small() -> Options {
    Options { checkpoint_log_bytes: 0, ..options(16 << 10, 0) }
}

/// The id that the driver gives its next batch is one more.
fn id(driver: &Driver, number: u64) -> BatchId {
    BatchId { opening: driver.engine.opening(), number }
}

#[test]
fn a_batch_in_doubt_is_settled_by_the_next_opening() {
    let mut seen = Vec::new();
    for seed in 0..40 {
        let disk = SimDisk::new(seed, Faults::default());
        let mut driver = Driver::open(&disk, small(), [0; KEYS]).unwrap();
        driver.commit(true, &[(0, 1)]).unwrap();
        disk.fail_at(1, libc::EIO, false, Calls::WRITE_DURABLE);
        let error = driver.commit(true, &[(0, 2)]).unwrap_err();
        assert!(error.code == Code::IO && error.in_doubt, "{error}");
        let (good, doubtful, refused) = (id(&driver, 1), id(&driver, 2), id(&driver, 3));
        assert_eq!(driver.commit(true, &[(0, 3)]).unwrap_err().code, Code::IO);
        assert_eq!(driver.engine.batch_outcome(good), BatchOutcome::Committed);
        assert_eq!(driver.engine.batch_outcome(doubtful), BatchOutcome::Unknown, "nobody knows yet");
        let mut rng = crate::base::random::Random::new(seed);
        let disk = disk.crash_image(&mut rng, Survival::NOTHING);
        for _ in 0..2 {
            let engine = open(&disk, small()).unwrap();
            let version = *read(&engine, &[0])[0].as_ref().unwrap();
            let expected = if version == 2 { BatchOutcome::Committed } else { BatchOutcome::NotCommitted };
            let outcomes = [good, doubtful, refused].map(|id| engine.batch_outcome(id));
            assert_eq!(outcomes, [BatchOutcome::Committed, expected, BatchOutcome::NotCommitted]);
            seen.push(version);
            engine.close().unwrap();
        }
    }
    assert!(seen.contains(&1) && seen.contains(&2), "both happen");
}

/// What only a removed chunk said of a batch is not lost with it: not without a checkpoint, and not with one.
#[test]
fn outcomes_outlive_chunks_and_checkpoints() {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, small(), [0; KEYS]).unwrap();
    let opening = driver.engine.opening();
    let mut version = 0;
    let mut fill = |driver: &mut Driver, chunks: u64| {
        while driver.engine.counters().chunks_created < chunks {
            version += 1;
            driver.commit(true, &[(0, version)]).unwrap();
        }
        u64::from(version)
    };
    let checkpointed = fill(&mut driver, 3);
    driver.engine.checkpoint().unwrap();
    disk.fail_at(1, libc::ENOSPC, false, Calls::WRITE_DURABLE);
    driver.commit(true, &[(1, 1)]).unwrap_err();
    let failed = checkpointed + 1;
    let batches = fill(&mut driver, 6) + 1;
    while driver.engine.compact_once(50).unwrap() {}
    assert!(!disk.list_files().contains(&"chunk-0000000000000001.kvb".to_owned()));
    driver.close();
    let bare = disk.kill_image();
    bare.list_files().iter().filter(|name| name.starts_with("index-")).for_each(|name| assert!(bare.remove_raw(name)));
    for disk in [disk, bare] {
        let engine = open(&disk, small()).unwrap();
        assert_ne!(engine.opening(), opening);
        for number in 1..=batches {
            let expected = if number == failed { BatchOutcome::NotCommitted } else { BatchOutcome::Committed };
            assert_eq!(engine.batch_outcome(BatchId { opening, number }), expected, "batch {number}");
        }
        assert_eq!(engine.batch_outcome(BatchId { opening, number: batches + 1 }), BatchOutcome::NotCommitted);
    }
}

/// An opening that has left nothing behind is not counted; its batches are told from those of the next all the same.
#[test]
fn an_opening_without_a_trace_has_ids_of_its_own() {
    let disk = SimDisk::new(1, Faults::default());
    let mut lost = Driver::open(&disk.twin(), small(), [0; KEYS]).unwrap();
    let mut kept = Driver::open(&disk, small(), [0; KEYS]).unwrap();
    lost.commit(true, &[(0, 1)]).unwrap();
    kept.commit(true, &[(0, 2)]).unwrap();
    let (lost, had) = (id(&lost, 1), id(&kept, 1));
    kept.close();
    kept.reopen(small()).unwrap();
    assert_eq!(kept.engine.batch_outcome(had), BatchOutcome::Committed);
    assert_eq!(kept.engine.batch_outcome(lost), BatchOutcome::NotCommitted);
}
