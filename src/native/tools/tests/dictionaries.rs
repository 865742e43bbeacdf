//! The tools and dictionaries: copied with a store, carried over by salvage, looked at byte by byte, and missed by name.

use super::super::{salvage, verify};
use super::*;
use crate::base::code::Code;
use crate::io::Disk;

fn damage_of(disk: &SimDisk) -> Vec<super::super::Damage> {
    verify(disk, Path::new(PATH), true, &mut |_, _| {}).expect("can be verified").damage
}

fn save(disk: &SimDisk) -> (super::super::SalvageReport, Model) {
    let report = salvage(&as_disk(disk), Path::new(PATH), Path::new("saved"), true, options(), &mut |_, _| {}).expect("saves");
    let engine = open_with(disk, "saved", options()).expect("opens");
    let saved = contents(&engine);
    engine.close().expect("closes");
    assert!(verify(disk, Path::new("saved"), true, &mut |_, _| {}).expect("can be verified").is_good());
    (report, saved)
}

/// Keys of a store whose values are packed with a dictionary.
fn packed_keys(disk: &SimDisk) -> Vec<Vec<u8>> {
    let engine = open(disk);
    let mut keys = Vec::new();
    let mut note = |record: &Record<'_>| {
        keys.extend((record.dictionary != 0).then(|| record.key.to_vec()));
        Ok(())
    };
    engine.walk(&mut note).expect("walks");
    engine.close().expect("closes");
    assert!(keys.len() > 10, "{}", keys.len());
    keys
}

#[test]
fn a_reader_and_a_backup_of_a_reader_have_the_dictionaries() {
    let (disk, model) = worn_store(1);
    packed_keys(&disk);
    let reader = open_with(&disk, PATH, Options { read_only: true, ..options() }).expect("opens");
    assert_eq!(contents(&reader), model);
    for (key, value) in &model {
        assert_eq!(get(&reader, key).as_ref(), Some(value));
    }
    reader.backup(Path::new("b")).expect("backs up");
    assert_eq!(disk.read_raw_in("b", DICTIONARY), disk.read_raw_in(PATH, DICTIONARY));
    assert_eq!(contents(&open_with(&disk, "b", options()).expect("opens")), model);
}

#[test]
fn a_backup_without_a_good_dictionary_is_refused_at_once() {
    let (disk, _) = worn_store(3);
    let engine = open(&disk);
    disk.remove_raw(DICTIONARY);
    let error = engine.backup(Path::new("b")).expect_err("would not open");
    assert!(error.code == Code::CORRUPTED && error.message.contains(DICTIONARY), "{error}");
    let left = disk.open_dir_to_read(Path::new("b")).and_then(|dir| dir.list()).unwrap_or_default();
    assert_eq!(left, [] as [String; 0]);
}

#[test]
fn a_missing_dictionary_is_a_refusal_that_names_salvage_and_changes_nothing() {
    let (disk, _) = worn_store(5);
    disk.remove_raw(DICTIONARY);
    for recovery in [Recovery::Strict, Recovery::Prefix] {
        let error = open_with(&disk, PATH, Options { recovery, ..options() }).map(drop).expect_err("refused");
        assert!(error.code == Code::CORRUPTED, "{error}");
        assert!([DICTIONARY, "missing", "kvbatch salvage"].iter().all(|word| error.message.contains(word)), "{error}");
    }
    // Also where something else is to be given up, and a manifest would be written for that.
    let prefix = Options { recovery: Recovery::Prefix, ..options() };
    let (mut refused, mut would_write) = (0, 0);
    for seed in [5, 7, 9, 11] {
        let (disk, _) = worn_store(seed);
        for chunk in files(&disk).into_keys().filter(|name| name.starts_with("chunk-")) {
            let (image, whole) = (copy_of(&disk), copy_of(&disk));
            for disk in [&image, &whole] {
                disk.patch_raw(&chunk, 4100, &[0xa5; 3000]);
            }
            image.remove_raw(DICTIONARY);
            let before = files(&image);
            // Where nothing that needs it is left, nothing is refused.
            let Err(error) = open_with(&image, PATH, prefix).map(drop) else { continue };
            assert!(error.message.contains("kvbatch salvage"), "{error}");
            assert_eq!(files(&image), before);
            let names = files(&whole).len();
            drop(open_with(&whole, PATH, prefix).expect("opens"));
            (refused, would_write) = (refused + 1, would_write + u32::from(files(&whole).len() > names));
        }
    }
    assert!(refused > 3 && would_write > 0, "{refused} {would_write}");
}

#[test]
fn salvage_carries_dictionaries_over() {
    let (disk, model) = worn_store(7);
    let (report, saved) = save(&disk);
    assert!(saved == model && report.damage.is_empty() && report.lost == 0, "{report:#?}");
    assert!(disk.read_raw_in("saved", DICTIONARY).is_some_and(|bytes| Some(bytes) != disk.read_raw_in(PATH, DICTIONARY)));
}

#[test]
fn without_its_dictionary_a_value_is_left_out_and_all_others_are_saved() {
    for change in [
        &(|disk: &SimDisk| disk.remove_raw(DICTIONARY)) as &dyn Fn(&SimDisk) -> bool,
        &|disk| disk.truncate_raw(DICTIONARY, 500),
        &|disk| {
            disk.flip_bit(DICTIONARY, 100, 1)
                && disk.flip_bit(DICTIONARY, disk.read_raw(DICTIONARY).map_or(0, |b| b.len() as u64 / 2) + 200, 1)
        },
    ] {
        let (disk, model) = worn_store(9);
        let packed = packed_keys(&disk);
        assert!(change(&disk));
        let told = damage_of(&disk);
        let needed = told.iter().filter(|damage| damage.file == DICTIONARY && damage.what.contains("records need it"));
        assert!(needed.count() == 1 && told.len() == 2, "{told:#?}");
        let (report, saved) = save(&disk);
        assert!(report.lost >= packed.len() as u64 && report.damage.len() == 2, "{report:#?}");
        // Of a key whose newest value is gone, an older one that is not packed may be back.
        let differs = |key: &&Vec<u8>| saved.get(*key) != model.get(*key);
        assert!(model.keys().filter(differs).all(|key| packed.contains(key)));
        assert!(saved.keys().all(|key| model.contains_key(key)));
        assert_eq!(disk.read_raw_in("saved", DICTIONARY), None);
    }
}

#[test]
fn one_good_copy_is_enough_wherever_the_other_cannot_be_read() {
    let (disk, model) = worn_store(11);
    let half = disk.read_raw(DICTIONARY).expect("is there").len() as u64 / 2;
    for at in [0, half] {
        let image = copy_of(&disk);
        image.make_unreadable(DICTIONARY, at, 1);
        assert_eq!(contents(&open(&image)), model);
        let told = damage_of(&image);
        assert!(told.len() == 1 && told[0].file == DICTIONARY && told[0].offset == at, "{told:#?}");
        let (report, saved) = save(&image);
        assert!(saved == model && report.lost == 0, "{report:#?}");
    }
}

#[test]
fn under_another_dictionary_no_value_is_good() {
    let (disk, _) = worn_store(13);
    let (other, _) = worn_store(15);
    let theirs = other.read_raw(DICTIONARY).expect("is there");
    assert!(disk.write_raw(DICTIONARY, &theirs));
    assert!(damage_of(&disk).iter().any(|damage| damage.file == DICTIONARY && damage.what.contains("another store")));
    let refused = open_with(&disk, PATH, options()).map(drop).expect_err("refused");
    assert_eq!(refused.code, Code::CONFIG);
}

#[test]
fn a_value_that_does_not_unpack_is_found_by_verify_and_not_saved() {
    let (disk, mut model) = worn_store(17);
    let engine = open(&disk);
    commit(&engine, &[Record { dictionary: 1, ..Record::put_packed(b"spoilt", Codec::Dense, b"no such bits", 900) }], true)
        .expect("commits");
    commit(&engine, &[Record::put(b"after", b"it")], true).expect("commits");
    engine.close().expect("closes");
    model.insert(b"after".to_vec(), b"it".to_vec());
    let told = damage_of(&disk);
    assert!(told.len() == 1 && told[0].file.starts_with("chunk-") && told[0].what.contains("does not unpack"), "{told:#?}");
    let (report, saved) = save(&disk);
    assert!(saved == model && report.lost == 1, "{report:#?}");
}

#[test]
fn a_dictionary_that_a_chunk_given_up_names_is_kept_for_salvage() {
    let (disk, model) = worn_store(19);
    let chunks: Vec<String> = files(&disk).into_keys().filter(|name| name.starts_with("chunk-")).collect();
    // All is given up from the first byte of the oldest chunk on.
    disk.patch_raw(&chunks[0], 4096, &[0xa5; 64]);
    let dense = Options { recovery: Recovery::Prefix, compacted_codec: Codec::Dense, ..options() };
    let engine = open_with(&disk, PATH, dense).expect("opens");
    assert!(contents(&engine).len() < model.len() / 2);
    let before = disk.read_raw(DICTIONARY);
    work(&engine, &mut Random::new(1), 300, &mut Model::new());
    engine.compact(100, &mut |_, _| true).expect("compacts");
    let files_now = disk.list_files();
    assert!(files_now.iter().any(|name| name.starts_with("dropped-")), "{files_now:?}");
    assert!(files_now.contains(&"dictionary-0000000000000002.kvb".to_owned()), "another one was made: {files_now:?}");
    assert_eq!(disk.read_raw(DICTIONARY), before, "and is not the same number");
}
