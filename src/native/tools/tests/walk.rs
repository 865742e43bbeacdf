//! Walking shows what reading finds.

use super::*;
use crate::base::clock;
use crate::base::code::Code;
use crate::engine::codec::{compress, compressed_len_max};

#[test]
fn a_walk_shows_what_the_store_holds() {
    for seed in 0..4 {
        let (disk, model) = worn_store(seed);
        let engine = open(&disk);
        assert_eq!(contents(&engine), model, "seed {seed}");
        for (key, value) in &model {
            assert_eq!(get(&engine, key).as_ref(), Some(value));
        }
        let info = engine.describe().expect("open");
        assert_eq!(info.keys, model.len() as u64);
        let live: usize = model.iter().map(|(key, value)| Record::put(key, value).encoded_len()).sum();
        assert!(if is_packed(seed) { info.live_bytes() < live as u64 } else { info.live_bytes() == live as u64 });
        assert!(info.chunks.len() > 3 && info.file_bytes() > info.live_bytes());
    }
}

#[test]
fn a_walk_unpacks_and_leaves_out_what_has_expired() {
    let disk = SimDisk::new(1, Faults::default());
    let engine = open(&disk);
    let raw = [b'x'; 500];
    let mut packed = vec![0; compressed_len_max(raw.len())];
    let len = compress(&raw, &mut packed).expect("gets smaller");
    let records = [
        Record::put_packed(b"packed", Codec::Lz4, &packed[..len], raw.len()),
        Record { expiry_ms: Some(1), ..Record::put(b"past", b"1") },
        Record { expiry_ms: Some(clock::unix_ms() + 100_000), ..Record::put(b"future", b"2") },
    ];
    commit(&engine, &records, true).expect("commits");
    let expected = [(b"future".to_vec(), b"2".to_vec()), (b"packed".to_vec(), raw.to_vec())];
    assert_eq!(contents(&engine), expected.into_iter().collect());
}

#[test]
fn reading_only_leaves_no_trace() {
    let (disk, model) = worn_store(3);
    disk.remove_raw(super::super::super::LOCK_NAME);
    let before = files(&disk);
    // However little log there must be for one: no checkpoint is written when it is closed.
    let read_only = Options { read_only: true, checkpoint_log_bytes: 1, ..options() };
    let one = open_with(&disk, PATH, read_only).expect("opens");
    let two = open_with(&disk, PATH, read_only).expect("a second reader");
    assert_eq!(contents(&one), model);
    for refused in [commit(&two, &[Record::put(b"k", b"v")], true), two.compact_once(95).map(drop), two.checkpoint()] {
        assert_eq!(refused.map_err(|e| e.code), Err(Code::NOT_SUPPORTED));
    }
    assert_eq!((one.sync(), one.close(), two.close()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(files(&disk), before);
    assert!(!disk.list_files().contains(&super::super::super::LOCK_NAME.to_owned()), "no lock file is made");
    let missing = open_with(&disk, "elsewhere", read_only).map(drop).map_err(|e| e.code);
    assert_eq!(missing, Err(Code::FILE), "no directory is made");
}
