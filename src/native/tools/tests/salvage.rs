//! Salvage saves all that is good, makes nothing up, and leaves the old store as it is.

use super::super::{SalvageReport, salvage, verify};
use super::*;
use crate::base::code::Code;

fn save(disk: &SimDisk) -> (SalvageReport, Model) {
    let before = files(disk);
    let report = salvage(&as_disk(disk), Path::new(PATH), Path::new("saved"), true, options(), &mut |_, _| {}).expect("saves");
    for (name, bytes) in before {
        // The new store's files may have the same names: the old directory is the first one.
        assert_eq!(disk.read_raw_in(PATH, &name), Some(bytes), "{name} was changed");
    }
    let engine = open_with(disk, "saved", options()).expect("the new store opens");
    let saved = contents(&engine);
    engine.close().expect("closes");
    assert_eq!(report.keys, saved.len() as u64);
    assert!(verify(disk, Path::new("saved"), true, &mut |_, _| {}).expect("can be verified").is_good());
    (report, saved)
}

/// Keys that differ between the two.
fn differing(one: &Model, other: &Model) -> usize {
    one.keys().chain(other.keys().filter(|key| !one.contains_key(*key))).filter(|key| one.get(*key) != other.get(*key)).count()
}

#[test]
fn of_a_good_store_nothing_is_lost() {
    for seed in 10..14 {
        let (disk, model) = worn_store(seed);
        let (report, saved) = save(&disk);
        assert_eq!(saved, model);
        assert!(report.damage.is_empty() && report.lost == 0, "{report:#?}");
    }
}

#[test]
fn of_a_torn_store_exactly_what_recovery_keeps_is_saved() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed, Faults::default());
        let mut rng = Random::new(seed);
        let engine = open(&disk);
        work(&engine, &mut rng, 10 + seed as usize, &mut Model::new());
        let survival = crate::io::sim::Survival::draw(&mut rng);
        let image = disk.crash_image(&mut rng, survival);
        let (report, saved) = save(&image);
        assert!(report.damage.is_empty(), "seed {seed}: {report:#?}");
        assert_eq!(saved, contents(&open(&image)), "seed {seed}");
    }
}

#[test]
fn one_bit_costs_one_record_at_the_most() {
    let (disk, model) = worn_store(15);
    let good = files(&disk);
    let mut rng = Random::new(15);
    let mut refused = 0;
    for round in 0..400 {
        let image = copy_of(&disk);
        let (name, bytes) = good.iter().nth(rng.below(good.len() as u64) as usize).expect("is there");
        // The first block, one record's bytes, a gap: all alike.
        let offset = if rng.one_in(4) { rng.below(4096) } else { rng.below(bytes.len() as u64) };
        assert!(image.flip_bit(name, offset, rng.below(8) as u32));
        refused += u32::from(open_with(&image, PATH, options()).is_err());
        let (report, saved) = save(&image);
        assert!(!report.damage.is_empty() || report.notes.iter().any(|note| note.contains(&**name)), "round {round}");
        let lost = differing(&saved, &model);
        assert!(lost <= 1 && lost as u64 <= report.lost.max(1), "round {round}: {name} byte {offset}: {lost} keys; {report:#?}");
    }
    assert!(refused > 100, "only {refused} of these stores were refused: too tame a test");
}

#[test]
fn wide_damage_costs_what_stood_there() {
    let (disk, model) = worn_store(16);
    let chunks: Vec<String> = files(&disk).into_keys().filter(|name| name.starts_with("chunk-")).collect();
    let middle = &chunks[chunks.len() / 2];
    let image = copy_of(&disk);
    image.patch_raw(middle, 4100, &[0xa5; 5000]);
    let (report, saved) = save(&image);
    assert!(report.lost > 0 && differing(&saved, &model) as u64 <= report.lost, "{report:#?}");
    let image = copy_of(&disk);
    image.patch_raw(middle, 0, &[0; 4096]);
    let (report, saved) = save(&image);
    assert_eq!(saved, model, "without its header a chunk is still known by its name: {report:#?}");
    let image = copy_of(&disk);
    image.make_unreadable(middle, 8192, 1);
    let (_, saved) = save(&image);
    assert!(saved.len() + 20 > model.len(), "one unreadable block costs one block");
    let image = copy_of(&disk);
    image.remove_raw(middle);
    let (report, saved) = save(&image);
    assert!(report.damage.iter().any(|d| d.file == *middle && d.what.contains("missing")), "{report:#?}");
    assert!(saved.len() > model.len() / 2);
}

#[test]
fn the_new_directory_must_be_empty_and_the_old_one_a_store() {
    let (disk, _) = worn_store(17);
    let to_itself = salvage(&as_disk(&disk), Path::new(PATH), Path::new(PATH), true, options(), &mut |_, _| {});
    assert_eq!(to_itself.map(drop).map_err(|e| e.code), Err(Code::EXIST));
    let missing = salvage(&as_disk(&disk), Path::new("none"), Path::new("saved"), true, options(), &mut |_, _| {});
    assert_eq!(missing.map(drop).map_err(|e| e.code), Err(Code::FILE));
    let engine = open(&disk);
    let busy = salvage(&as_disk(&disk), Path::new(PATH), Path::new("saved"), true, options(), &mut |_, _| {});
    assert_eq!(busy.map(drop).map_err(|e| e.code), Err(Code::LOCK));
    drop(engine);
}

#[test]
fn a_salvage_for_which_there_is_no_room_says_so_and_can_be_repeated() {
    let (disk, model) = worn_store(18);
    disk.set_space(Some(9000));
    let failed = salvage(&as_disk(&disk), Path::new(PATH), Path::new("saved"), true, options(), &mut |_, _| {}).expect_err("no room");
    assert_eq!(failed.code, Code::DISK_FULL);
    assert!(failed.message.contains("saved is not complete: remove it"), "{failed}");
    disk.set_space(None);
    let mut told = (0, 0);
    let report = salvage(&as_disk(&disk), Path::new(PATH), Path::new("again"), true, options(), &mut |done, total| {
        assert!(done >= told.0 && done <= total);
        told = (done, total);
    });
    assert_eq!(report.expect("saves").keys, model.len() as u64);
    assert!(told.0 > 0 && told.0 == told.1, "{told:?}");
}
