//! `recovery=prefix`: what lies before the damage is kept, and from then on the store is a store like any other.

use super::*;
use crate::base::code::Code;

fn prefix() -> Options {
    Options { recovery: Recovery::Prefix, ..options() }
}

fn chunk_names(disk: &SimDisk) -> Vec<String> {
    files(disk).into_keys().filter(|name| name.starts_with("chunk-")).collect()
}

/// Numbered puts into few chunks; the value of key "n" tells the last one that was written.
fn numbered(disk: &SimDisk, from: u64, to: u64) {
    let engine = open(disk);
    for n in from..to {
        let (key, value) = (format!("key-{n}"), n.to_string());
        commit(&engine, &[Record::put(key.as_bytes(), &[7; 300]), Record::put(b"n", value.as_bytes())], true).expect("commits");
    }
    engine.close().expect("closes");
}

fn last_number(model: &Model) -> Option<u64> {
    let n = model.get(&b"n"[..])?;
    String::from_utf8(n.clone()).ok()?.parse().ok()
}

/// Damages a copy of a store, and sees what `prefix` makes of it, again and again.
fn survives(disk: &SimDisk, what: &str, damage: &dyn Fn(&SimDisk), kept: std::ops::Range<u64>) {
    let image = copy_of(disk);
    damage(&image);
    let refused = open_with(&image, PATH, options()).map(drop);
    assert_eq!(refused.map_err(|e| e.code), Err(Code::CORRUPTED), "{what}");
    let report = super::super::verify(&image, Path::new(PATH), true, &mut |_, _| {}).expect("can be verified");
    assert!(!report.damage.is_empty() && report.refusal.is_some(), "{what}: {report:?}");
    let chunks_before = chunk_names(&image).len();
    // Looking at it changes nothing, and comes to the same each time.
    let read_only = Options { read_only: true, ..prefix() };
    let before = files(&image);
    let found = contents(&open_with(&image, PATH, read_only).expect("opens"));
    assert_eq!(files(&image), before, "{what}");
    let engine = open_with(&image, PATH, prefix()).expect("opens");
    assert_eq!(contents(&engine), found, "{what}");
    engine.close().expect("closes");
    let engine = open_with(&image, PATH, prefix()).expect("opens again");
    assert_eq!(contents(&engine), found, "{what}");
    let report = engine.counters();
    assert!(report.given_up_records > 0, "{what}: {report:?}");
    let n = last_number(&found).unwrap_or(0);
    assert!(kept.contains(&n), "{what}: up to {n} is kept");
    assert!(found.len() as u64 == if found.is_empty() { 0 } else { n + 2 }, "{what}: a prefix has no holes: {n}, {}", found.len());
    commit(&engine, &[Record::put(b"new", b"life")], true).expect("commits");
    engine.close().expect("closes");
    // From the first write on the cut is recorded: nothing is in doubt any more.
    let engine = open_with(&image, PATH, options()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut expected = found;
    expected.insert(b"new".to_vec(), b"life".to_vec());
    assert_eq!(contents(&engine), expected, "{what}");
    assert_eq!((engine.counters().given_up_records, engine.counters().given_up_chunks), (0, 0), "{what}");
    commit(&engine, &[Record::put(b"more", b"life")], true).expect("commits");
    engine.close().expect("closes");
    assert!(super::super::verify(&image, Path::new(PATH), true, &mut |_, _| {}).expect("can be verified").is_good(), "{what}");
    let dropped = image.list_files().iter().filter(|name| name.starts_with("dropped-chunk-")).count();
    let left = chunk_names(&image).len();
    assert_eq!(left + dropped, chunks_before + 2, "{what}: no chunk file was removed");
    assert_eq!(report.given_up_chunks, dropped as u64, "{what}");
}

#[test]
fn what_lies_before_the_damage_is_kept() {
    let disk = SimDisk::new(1, Faults::default());
    numbered(&disk, 0, 100);
    numbered(&disk, 100, 150);
    let chunks = chunk_names(&disk);
    assert!(chunks.len() >= 4);
    let second = chunks[1].clone();
    survives(&disk, "a frame in the second chunk", &|image| assert!(image.flip_bit(&second, 8400, 1)), 1..149);
    survives(&disk, "the first frame of all", &|image| assert!(image.flip_bit(&chunks[0], 4200, 1)), 0..1);
    survives(&disk, "the second chunk's header", &|image| assert!(image.flip_bit(&second, 100, 1)), 1..149);
    survives(&disk, "the second chunk is missing", &|image| assert!(image.remove_raw(&second)), 1..149);
    survives(&disk, "the second chunk's end", &|image| assert!(image.truncate_raw(&second, 9000)), 1..149);
}

#[test]
fn where_chunks_were_compacted_away_the_next_manifest_says_what_is_left() {
    let (disk, _) = worn_store(4);
    let chunks = chunk_names(&disk);
    for (at, name) in chunks.iter().enumerate() {
        for offset in [200, 4200, 9000] {
            let image = copy_of(&disk);
            if !image.flip_bit(name, offset, 3) || open_with(&image, PATH, options()).is_ok() {
                continue;
            }
            let engine = open_with(&image, PATH, prefix()).expect("opens");
            let found = contents(&engine);
            let to = format!("backup-{at}-{offset}");
            engine.backup(Path::new(&to)).expect("backs up");
            assert_eq!(contents(&open_with(&image, &to, options()).expect("needs no overriding")), found);
            commit(&engine, &[Record::put(b"new", b"life")], true).expect("commits");
            engine.close().expect("closes");
            let engine = open_with(&image, PATH, options()).unwrap_or_else(|e| panic!("chunk {at}, byte {offset}: {e}"));
            assert_eq!(contents(&engine).len(), found.len() + 1);
            engine.compact(90, &mut |_, _| true).expect("compacts");
            engine.close().expect("closes");
            assert_eq!(contents(&open(&image)).len(), found.len() + 1);
        }
    }
}

#[test]
fn a_store_of_which_nobody_knows_what_it_held_stays_refused() {
    let (disk, _) = worn_store(4);
    for name in files(&disk).into_keys().filter(|name| name.starts_with("manifest-")) {
        disk.write_raw(&name, &[0; 100]);
    }
    assert_eq!(open_with(&disk, PATH, prefix()).map(drop).map_err(|e| e.code), Err(Code::CORRUPTED));
}

fn checkpoint(disk: &SimDisk) {
    let engine = open(disk);
    engine.checkpoint().expect("writes one");
    engine.close().expect("closes");
}

/// A store of several chunks, with a checkpoint made in the midst of its life.
fn with_checkpoint() -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new(9, Faults::default());
    numbered(&disk, 0, 60);
    checkpoint(&disk);
    numbered(&disk, 60, 150);
    let chunks = chunk_names(&disk);
    assert!(chunks.len() >= 4 && files(&disk).keys().any(|name| name.starts_with("index-")));
    (disk, chunks)
}

#[test]
fn a_checkpoint_of_what_was_given_up_is_given_up_too() {
    let (disk, chunks) = with_checkpoint();
    checkpoint(&disk);
    let last = chunks.last().expect("is there").clone();
    survives(&disk, "the last chunk is missing, and only a checkpoint knows", &|image| assert!(image.remove_raw(&last)), 1..149);
    survives(&disk, "the last chunk is cut", &|image| assert!(image.truncate_raw(&last, 8192)), 1..149);
    survives(&disk, "the second chunk is missing", &|image| assert!(image.remove_raw(&chunks[1])), 1..149);
}

#[test]
fn what_a_checkpoint_knows_is_not_given_up_for_damage_before_it() {
    let (disk, chunks) = with_checkpoint();
    let image = copy_of(&disk);
    assert!(image.flip_bit(&chunks[0], 8400, 1));
    let engine = open_with(&image, PATH, prefix()).expect("opens from the checkpoint");
    assert_eq!((engine.counters().given_up_records, engine.counters().keys), (0, 151));
    assert!(engine.counters().loaded_keys > 0);
}

/// A store, what is done to it in words, and the deed.
type Damaging<'a> = (&'a SimDisk, &'a str, &'a dyn Fn(&SimDisk));

#[test]
fn a_crash_in_the_midst_of_it_gives_up_nothing_more() {
    let (worn, _) = worn_store(4);
    let (with_checkpoint, chunks) = with_checkpoint();
    checkpoint(&with_checkpoint); // of all that there is
    // One whose manifest has to be replaced, one whose checkpoint goes, one whose chunk goes.
    let damages: [Damaging<'_>; 3] = [
        (&worn, "manifest", &|image| assert!(image.flip_bit(&chunk_names(image)[1], 4200, 3))),
        (&with_checkpoint, "checkpoint", &|image| assert!(image.truncate_raw(chunks.last().expect("is there"), 4096))),
        (&with_checkpoint, "chunk", &|image| assert!(image.remove_raw(&chunks[chunks.len() - 2]))),
    ];
    for (disk, what, damage) in damages {
        let damaged = copy_of(disk);
        damage(&damaged);
        assert!(open_with(&damaged, PATH, options()).is_err(), "{what}");
        let found = contents(&open_with(&damaged, PATH, Options { read_only: true, ..prefix() }).expect("opens"));
        let with_new = [(b"new".to_vec(), b"life".to_vec())].into_iter().chain(found.clone()).collect::<Model>();
        let mut finished = false;
        for step in 1.. {
            let image = copy_of(&damaged);
            image.crash_at(image.steps() + step);
            let wrote = open_with(&image, PATH, prefix()).and_then(|engine| commit(&engine, &[Record::put(b"new", b"life")], true));
            for round in 0..6 {
                let mut rng = Random::new(step * 6 + round);
                let survival = crate::io::sim::Survival::draw(&mut rng);
                let left = if round == 0 { image.kill_image() } else { image.crash_image(&mut rng, survival) };
                let again = open_with(&left, PATH, prefix()).unwrap_or_else(|e| panic!("{what}, step {step}: {e}"));
                let held = contents(&again);
                assert!(held == with_new || (held == found && wrote.is_err()), "{what}, step {step}: {} keys", held.len());
                again.close().expect("closes");
                assert!(wrote.is_err() || open_with(&left, PATH, options()).is_ok(), "{what}, step {step}: the cut is on record");
            }
            if wrote.is_ok() {
                finished = true;
                break;
            }
        }
        assert!(finished, "{what}");
    }
}
