//! Verifying sees every byte, and agrees with recovery about what is damage.

use super::super::{VerifyReport, verify};
use super::*;
use crate::base::code::Code;

fn check(disk: &SimDisk) -> VerifyReport {
    verify(disk, Path::new(PATH), true, &mut |done, total| assert!(done <= total)).expect("can be verified")
}

#[test]
fn a_good_store_is_good() {
    let (disk, model) = worn_store(1);
    let before = files(&disk);
    let report = check(&disk);
    assert!(report.is_good() && report.notes.is_empty(), "{report:?}");
    assert_eq!((report.keys, report.files), (Some(model.len() as u64), before.len() as u64));
    assert_eq!(report.bytes, before.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert!(report.frames > 100 && report.records > report.frames, "{report:?}");
    assert_eq!(files(&disk), before, "nothing was touched");
}

#[test]
fn a_store_that_is_open_is_refused_unless_it_is_said_to_be_a_copy() {
    let (disk, _) = worn_store(2);
    let engine = open(&disk);
    let refused = verify(&disk, Path::new(PATH), true, &mut |_, _| {});
    assert_eq!(refused.map(drop).map_err(|e| e.code), Err(Code::LOCK));
    assert!(verify(&disk, Path::new(PATH), false, &mut |_, _| {}).expect("read all the same").is_good());
    drop(engine);
}

#[test]
fn a_torn_tail_is_no_damage() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed, Faults::default());
        let mut rng = Random::new(seed);
        let engine = open(&disk);
        let mut model = Model::new();
        work(&engine, &mut rng, 10 + seed as usize, &mut model);
        let survival = crate::io::sim::Survival::draw(&mut rng);
        let image = disk.crash_image(&mut rng, survival);
        let report = check(&image);
        assert!(report.is_good(), "seed {seed}: {report:#?}");
    }
}

#[test]
fn every_byte_is_looked_at() {
    let (disk, model) = worn_store(5);
    let good = files(&disk);
    let mut rng = Random::new(5);
    for round in 0..1500 {
        let image = copy_of(&disk);
        let (name, bytes) = good.iter().nth(rng.below(good.len() as u64) as usize).expect("is there");
        let (offset, bit) = (rng.below(bytes.len() as u64), rng.below(8) as u32);
        assert!(image.flip_bit(name, offset, bit));
        let report = check(&image);
        let nearby = |damage: &super::super::Damage| damage.file == *name && damage.offset <= offset;
        // Where nobody ever wrote a crash may leave anything: worth a note.
        let noted = report.is_good() && report.notes.iter().any(|note| note.contains(&**name));
        assert!(noted || report.damage.iter().any(nearby), "round {round}: {name} byte {offset} bit {bit}: {report:#?}");
        match open_with(&image, PATH, options()) {
            Ok(engine) => {
                assert!(report.refusal.is_none());
                assert_eq!(contents(&engine), model, "round {round}: {name} byte {offset}");
            }
            Err(error) => assert_eq!(report.refusal.as_deref(), Some(&*error.message)),
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let (disk, _) = worn_store(6);
    let chunks: Vec<String> = files(&disk).into_keys().filter(|name| name.starts_with("chunk-")).collect();
    for (at, name) in chunks.iter().enumerate() {
        let image = copy_of(&disk);
        image.remove_raw(name);
        let report = check(&image);
        // Nothing says that there ever was a last one, unless a manifest or what was durable does.
        assert!(report.damage.iter().any(|d| d.file == *name && d.what.contains("missing")) || at + 1 == chunks.len(), "{report:#?}");
        assert_eq!(report.refusal.is_some(), open_with(&image, PATH, options()).is_err());
    }
    let image = copy_of(&disk);
    let bytes = image.read_raw(&chunks[1]).expect("is there").len() as u64;
    image.truncate_raw(&chunks[1], bytes - 900);
    let report = check(&image);
    assert!(report.damage.iter().any(|d| d.file == chunks[1] && d.what.contains("missing")), "{report:#?}");
    let image = copy_of(&disk);
    image.make_unreadable(&chunks[1], 5000, 10);
    let report = check(&image);
    assert!(report.damage.iter().any(|d| d.file == chunks[1] && d.offset <= 5000 && d.what.contains("cannot be read")), "{report:#?}");
    assert!(report.refusal.is_some());
}

#[test]
fn files_that_do_not_belong_are_named() {
    let (disk, _) = worn_store(7);
    let (other, _) = worn_store(8);
    let chunks: Vec<String> = files(&disk).into_keys().filter(|name| name.starts_with("chunk-")).collect();
    let image = copy_of(&disk);
    image.write_raw("chunk-0000000000000fff.kvb", &disk.read_raw(&chunks[0]).expect("is there"));
    assert!(check(&image).damage.iter().any(|d| d.what.contains("is a copy of")));
    let image = copy_of(&disk);
    let stranger = files(&other).into_iter().find(|(name, _)| !chunks.contains(name) && name.starts_with("chunk-"));
    let (name, bytes) = stranger.unwrap_or_else(|| (chunks[0].clone(), files(&other)[&chunks[0]].clone()));
    image.write_raw(&name, &bytes);
    assert!(!check(&image).is_good());
}

#[test]
fn checkpoints_are_looked_at_and_nothing_depends_on_them() {
    let (disk, model) = worn_store(9);
    let engine = open(&disk);
    engine.checkpoint().expect("writes one");
    engine.close().expect("closes");
    assert!(check(&disk).is_good());
    let (name, bytes) = files(&disk).into_iter().find(|(name, _)| name.starts_with("index-")).expect("is there");
    for offset in (0..bytes.len() as u64).step_by(97) {
        let image = copy_of(&disk);
        assert!(image.flip_bit(&name, offset, 3));
        let report = check(&image);
        let told = report.damage.iter().any(|damage| damage.file == name) || report.notes.iter().any(|note| note.contains(&*name));
        assert!(told && report.refusal.is_none() && report.keys == Some(model.len() as u64), "byte {offset}: {report:#?}");
    }
}
