//! Compaction on request does what it was asked for, tells how far it is, and can be stopped anywhere.

use super::super::{CompactReport, verify};
use super::*;
use crate::base::code::Code;

/// A store of chunks in which each second record is dead, with more in each than is moved at a time.
fn half_dead() -> (SimDisk, Model, Options) {
    let options = Options { chunk_bytes: 6 << 20, ..options() };
    let disk = SimDisk::new(1, Faults::default());
    let engine = open_with(&disk, PATH, options).expect("opens");
    let mut model = Model::new();
    for n in 0..300u64 {
        let (key, value) = (n.to_string().into_bytes(), vec![n as u8; 64 << 10]);
        commit(&engine, &[Record::put(&key, &value)], false).expect("commits");
        model.insert(key, value);
    }
    for n in (0..300u64).step_by(2) {
        let key = n.to_string().into_bytes();
        commit(&engine, &[Record::delete(&key)], false).expect("commits");
        model.remove(&key);
    }
    engine.close().expect("closes");
    (disk, model, options)
}

#[test]
fn progress_is_told_from_nothing_to_all() {
    let (disk, model, options) = half_dead();
    let engine = open_with(&disk, PATH, options).expect("opens");
    let before = engine.describe().expect("open").file_bytes();
    let mut told = Vec::new();
    let report = engine.compact(60, &mut |done, total| {
        told.push((done, total));
        true
    });
    let report = report.expect("compacts");
    assert!(report.wanted >= 3 && report.done == report.wanted, "{report:?}");
    let total = told[0].1;
    assert!(
        told.is_sorted() && told[0].0 == 0 && told.last() == Some(&(total, total)) && told.iter().all(|(_, of)| *of == total),
        "{told:?}"
    );
    assert!(told.len() as u64 > report.wanted * 2, "also within a chunk: {told:?}");
    assert_eq!(contents(&engine), model);
    assert_eq!(engine.compact(0, &mut |_, _| true), Ok(CompactReport::default()), "nothing is left to do");
    engine.close().expect("closes"); // until then the last chunk may have what the file held before
    let engine = open_with(&disk, PATH, options).expect("opens");
    assert!(engine.describe().expect("open").file_bytes() < before * 3 / 4);
}

#[test]
fn it_can_be_stopped_anywhere_and_taken_up_again() {
    let (disk, model, options) = half_dead();
    for stop_after in 0..8 {
        let image = copy_of(&disk);
        let engine = open_with(&image, PATH, options).expect("opens");
        let mut asked = 0;
        let report = engine.compact(60, &mut |_, _| {
            asked += 1;
            asked <= stop_after
        });
        let report = report.expect("stops in order");
        assert!(asked == stop_after + 1 && report.done < report.wanted, "{stop_after}: {report:?}");
        assert_eq!(contents(&engine), model, "{stop_after}");
        engine.close().expect("closes");
        assert!(verify(&image, Path::new(PATH), true, &mut |_, _| {}).expect("can be verified").is_good(), "{stop_after}");
        let engine = open_with(&image, PATH, options).expect("opens");
        let report = engine.compact(60, &mut |_, _| true).expect("compacts");
        assert_eq!((report.done, contents(&engine)), (report.wanted, model.clone()), "{stop_after}");
    }
}

#[test]
fn a_store_that_is_closed_or_read_only_is_refused_and_damage_stays() {
    let (disk, model, options) = half_dead();
    let reader = open_with(&disk, PATH, Options { read_only: true, ..options }).expect("opens");
    assert_eq!(reader.compact(60, &mut |_, _| true).map_err(|e| e.code), Err(Code::NOT_SUPPORTED));
    drop(reader);
    let engine = open_with(&disk, PATH, options).expect("opens");
    let (hurt, _) = files(&disk).into_iter().find(|(name, _)| name.starts_with("chunk-")).expect("is there");
    assert!(disk.flip_bit(&hurt, 3 << 20, 1));
    let report = engine.compact(60, &mut |_, _| true).expect("the others are compacted");
    assert_eq!((report.done, engine.counters().chunks_damaged), (report.wanted, 1));
    assert!(disk.list_files().contains(&hurt) && engine.describe().expect("open").keys == model.len() as u64);
    engine.close().expect("closes");
    assert_eq!(engine.compact(60, &mut |_, _| true).map_err(|e| e.code), Err(Code::INVALID_STATE));
}
