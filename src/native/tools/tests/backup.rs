//! A backup is a store of one moment, or no store at all.

use super::super::verify;
use super::*;
use crate::base::code::Code;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::io::real::{Backend, RealDisk};
use std::time::Duration;

#[test]
fn a_backup_holds_what_the_store_held() {
    for seed in 20..24 {
        let (disk, mut model) = worn_store(seed);
        let engine = open(&disk);
        // Before anything is written in this opening, after that, and when another chunk was begun.
        for (round, batches) in [0, 3, 60].into_iter().enumerate() {
            work(&engine, &mut Random::new(seed + 9), batches, &mut model);
            let to = format!("backup-{round}");
            let report = engine.backup(Path::new(&to)).expect("backs up");
            assert!(report.linked >= 1 && report.copied >= 1, "{report:?}");
            let copy = open_with(&disk, &to, options()).expect("opens");
            assert_eq!(contents(&copy), model, "seed {seed}, round {round}");
            // It has a life of its own.
            work(&copy, &mut Random::new(seed), 40, &mut Model::new());
            copy.compact(90, &mut |_, _| true).expect("compacts");
            copy.close().expect("closes");
            assert!(verify(&disk, Path::new(&to), true, &mut |_, _| {}).expect("can be verified").is_good());
            assert_eq!(contents(&engine), model);
        }
        work(&engine, &mut Random::new(seed), 60, &mut model);
        engine.compact(90, &mut |_, _| true).expect("compacts");
        engine.close().expect("closes");
        assert_eq!(contents(&open(&disk)), model);
    }
}

#[test]
fn an_empty_store_gives_an_empty_backup_and_only_an_empty_directory_takes_one() {
    let disk = SimDisk::new(1, Faults::default());
    let engine = open(&disk);
    assert_eq!(engine.backup(Path::new("b")), Ok(super::super::BackupReport::default()));
    commit(&engine, &[Record::put(b"k", b"v")], true).expect("commits");
    assert!(engine.backup(Path::new("b")).is_ok());
    for taken in ["b", PATH] {
        assert_eq!(engine.backup(Path::new(taken)).map_err(|e| e.code), Err(Code::EXIST));
    }
    engine.close().expect("closes");
    assert_eq!(engine.backup(Path::new("c")).map_err(|e| e.code), Err(Code::INVALID_STATE));
}

#[test]
fn a_backup_that_was_broken_off_is_no_store() {
    for (seed, batches) in [(30, 5), (31, 60), (32, 60)] {
        let base = SimDisk::new(seed, Faults::default());
        let mut model = Model::new();
        let engine = open(&base);
        work(&engine, &mut Random::new(seed), batches, &mut model);
        engine.close().expect("closes");
        if is_packed(seed) {
            let dense = open_with(&base, PATH, Options { compacted_codec: Codec::Dense, ..options() }).expect("opens");
            dense.compact(100, &mut |_, _| true).expect("compacts");
            work(&dense, &mut Random::new(seed + 1), 30, &mut model);
            dense.close().expect("closes");
            assert!(base.list_files().contains(&DICTIONARY.to_owned()));
        }
        let mut finished = false;
        for step in 1.. {
            let disk = copy_of(&base);
            let engine = open(&disk);
            disk.crash_at(disk.steps() + step);
            finished = engine.backup(Path::new("b")).is_ok();
            for round in 0..4 {
                let mut rng = Random::new(seed + step + round);
                let survival = crate::io::sim::Survival::draw(&mut rng);
                let image = if round == 0 { disk.kill_image() } else { disk.crash_image(&mut rng, survival) };
                let begun = image.open_dir_to_read(Path::new("b")).and_then(|dir| dir.list()).is_ok_and(|names| !names.is_empty());
                match open_with(&image, "b", options()) {
                    Ok(copy) if begun => assert!(contents(&copy) == model, "step {step}: less than the store held"),
                    Ok(_) => assert!(!finished, "step {step}: a backup is gone"),
                    Err(error) => assert!(error.code == Code::CORRUPTED && !finished, "step {step}: {error}"),
                }
                assert_eq!(contents(&open(&image)), model, "the store itself is as it was");
            }
            if finished {
                break;
            }
        }
        assert!(finished);
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_backup_for_which_there_is_no_room_says_what_to_do() {
    let (disk, model) = worn_store(40);
    let engine = open(&disk);
    // The end of the log fits, and nothing more.
    let last = files(&disk).into_iter().rfind(|(name, _)| name.starts_with("chunk-")).expect("is there");
    disk.set_space(Some(last.1.len() as u64 + 100));
    let error = engine.backup(Path::new("b")).expect_err("no room");
    assert_eq!(error.code, Code::DISK_FULL);
    assert!(error.message.contains("backup in b is not complete: empty it"), "{error}");
    assert_eq!(contents(&engine), model);
    disk.set_space(None);
    assert_eq!(engine.backup(Path::new("b")).map_err(|e| e.code), Err(Code::EXIST), "what is left is not overwritten");
    assert_eq!(open_with(&disk, "b", options()).map(drop).map_err(|e| e.code), Err(Code::CORRUPTED));
    engine.backup(Path::new("c")).expect("there is room again");
    assert_eq!(contents(&open_with(&disk, "c", options()).expect("opens")), model);
}

/// Pairs of keys that are written together: a backup has both or none, and all that was confirmed before it began.
fn under_writers(disk: Arc<dyn Disk>, root: &Path) {
    const WRITERS: u64 = 3;
    const BATCHES_MAX: u64 = 8000;
    let options = Options { chunk_bytes: 64 << 10, hot_log_bytes: 1 << 20, ..Options::default() };
    let engine = NativeEngine::open(Arc::clone(&disk), &root.join("store"), options).expect("opens");
    let stop = AtomicBool::new(false);
    let confirmed: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let (engine, stop, confirmed) = (&engine, &stop, &confirmed);
    std::thread::scope(|scope| {
        // Also when a check fails: the scope waits for the writers.
        let _stop_writers = StopAtEnd(stop);
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let pad = [writer as u8; 700];
                // Whatever becomes of the backups, the writers end, and what they write fits into memory.
                for n in 1..BATCHES_MAX {
                    let value = [&n.to_string().into_bytes(), &b"/"[..], &pad[..]].concat();
                    let (one, other) = (format!("one-{writer}"), format!("other-{writer}"));
                    let records = [Record::put(one.as_bytes(), &value), Record::put(other.as_bytes(), &value)];
                    commit(engine, &records, n % 4 == 0).expect("commits");
                    confirmed[writer as usize].store(n, Ordering::Release);
                    // Faster, and there are more chunk files than a simulated directory can look through.
                    std::thread::sleep(Duration::from_micros(300));
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                }
            });
        }
        for round in 0..12 {
            let before: Vec<u64> = confirmed.iter().map(|n| n.load(Ordering::Acquire)).collect();
            let to = root.join(format!("backup-{round}"));
            engine.backup(&to).expect("backs up");
            let copy = NativeEngine::open(Arc::clone(&disk), &to, options).expect("opens");
            for (writer, before) in before.into_iter().enumerate() {
                let one = get(&copy, format!("one-{writer}").as_bytes());
                assert_eq!(one, get(&copy, format!("other-{writer}").as_bytes()), "round {round}");
                let n = one.map_or(0, |value| {
                    let end = value.iter().position(|byte| *byte == b'/').expect("a number");
                    String::from_utf8_lossy(&value[..end]).parse::<u64>().expect("a number")
                });
                assert!(n >= before, "round {round}: {before} was confirmed, {n} is there");
            }
            copy.close().expect("closes");
        }
    });
    engine.close().expect("closes");
}

#[test]
fn a_backup_under_writers_is_of_one_moment() {
    under_writers(Arc::new(SimDisk::new(1, Faults::default())), Path::new("root"));
    let tmp = tempfile::tempdir().expect("a directory");
    under_writers(Arc::new(RealDisk::with_backend(8, Backend::Threads, "test")), tmp.path());
}
