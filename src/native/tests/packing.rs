//! Packed stores: what compaction packs comes back, whatever was packed how; dictionaries are there when they are needed,
//! and missed when they are not; what has expired is gone.

use super::driver::{HINTS, open};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::few::Few;
use crate::base::random::Random;
use crate::engine::codec::{Codec, StoredValue, compress, compressed_len_max};
use crate::engine::record::Record;
use crate::engine::{Commit, Engine, ReadOp, Reader, WriteOp, Writes};
use crate::io::sim::{Faults, SimDisk};
use crate::native::{NativeEngine, Options};
use std::collections::BTreeMap;
use std::path::Path;

const CHUNK_BYTES: u64 = 16 << 10;
const DICTIONARY: &str = "dictionary-0000000000000001.kvb";

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(compacted_codec: Codec) -> Options {
    Options { compacted_codec, ..super::workload::options(CHUNK_BYTES, 0) }
}

fn commit(engine: &NativeEngine, records: &[Record<'_>]) {
    let (mut block, mut ops) = (Vec::new(), Vec::new());
    for record in records {
        let (offset, len) = (block.len(), record.encoded_len());
        block.resize(offset + len, 0);
        record.encode(&mut block[offset..]);
        ops.push(WriteOp { hash: engine.hasher().hash(record.key), block: 0, offset: offset as u32, len: len as u32, kind: record.kind });
    }
    let writes = Writes { blocks: Few::one(&mut block[..]), ops: &ops };
    let member = Commit { batch_id: 1, writes, reads: &mut [], durable: true, pin: None };
    engine.commit(engine.turn(), &mut [member], &mut |_| false).unwrap();
}

fn text(rng: &mut Random) -> Vec<u8> {
    let city = ["Berlin", "Vienna", "Zurich", "Lisbon"][rng.below(4) as usize];
    format!("{{\"customer\":{},\"city\":\"{city}\",\"is_active\":{},\"balance\":{}}}", rng.below(10_000), rng.one_in(2), rng.below(1000))
        .into_bytes()
}

/// Texts, and one in ten of random bytes; as they are, or packed as the batch layer does.
fn fill(engine: &NativeEngine, model: &mut Model, rng: &mut Random, count: usize, pack: bool) {
    let mut values = Vec::new();
    for _ in 0..count {
        let key = rng.next_u64().to_le_bytes().repeat(2);
        let value = match rng.below(10) {
            0 => (0..rng.below(300)).map(|_| rng.next_u64() as u8).collect(),
            1 => text(rng).repeat(8),
            _ => text(rng),
        };
        let mut packed = vec![0; compressed_len_max(value.len())];
        let len = compress(&value, &mut packed).filter(|_| pack).unwrap_or(0);
        packed.truncate(len);
        values.push((key, value, packed));
    }
    for some in values.chunks(40) {
        let records = some.iter().map(|(key, value, packed)| match packed.is_empty() {
            true => Record::put(key, value),
            false => Record::put_packed(key, Codec::Lz4, packed, value.len()),
        });
        commit(engine, &records.collect::<Vec<_>>());
    }
    model.extend(values.into_iter().map(|(key, value, _)| (key, value)));
}

/// What a read of one key gave, and how the value was packed.
struct One<'a> {
    key: &'a [u8],
    got: Result<Option<(Codec, Vec<u8>)>, Error>,
}

impl Reader for One<'_> {
    fn key(&self, _: u32) -> &[u8] {
        self.key
    }
    fn found(&mut self, _: u32, value: StoredValue<'_>) {
        let mut raw = vec![0; value.raw_len];
        self.got = value.unpack(&mut raw).map(|()| Some((value.codec, raw)));
    }
    fn missing(&mut self, _: u32) {}
    fn failed(&mut self, _: u32, error: Error) {
        self.got = Err(error);
    }
}

fn get(engine: &NativeEngine, key: &[u8]) -> Result<Option<(Codec, Vec<u8>)>, Error> {
    let mut reads = [ReadOp { hash: engine.hasher().hash(key), ..ReadOp::default() }];
    let pin = engine.resolve(&mut reads);
    let mut one = One { key, got: Ok(None) };
    engine.fetch(&pin, &mut reads, &mut one, &HINTS);
    one.got
}

/// Everything is there; how many values are packed by each codec.
fn check(engine: &NativeEngine, model: &Model) -> [usize; 4] {
    let mut packed = [0; 4];
    for (key, value) in model {
        let (codec, raw) = get(engine, key).unwrap().expect("it is there");
        assert!(raw == *value);
        packed[codec as usize] += 1;
    }
    packed
}

fn compact_all(engine: &NativeEngine) {
    let report = engine.compact(100, &mut |_, _| true).unwrap();
    assert!(report.wanted > 0 && report.done == report.wanted, "{report:?}");
}

/// A store of 400 values, most of them packed with a dictionary.
fn dense_store() -> (SimDisk, Model) {
    let (disk, mut model, mut rng) = (SimDisk::new(1, Faults::default()), Model::new(), Random::new(1));
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    fill(&engine, &mut model, &mut rng, 400, false);
    compact_all(&engine);
    assert!(check(&engine, &model)[Codec::Dense as usize] > 250);
    engine.close().unwrap();
    (disk, model)
}

/// Key and value number `i` of the golden store, as every version has to find them.
fn golden(i: u32) -> (Vec<u8>, Vec<u8>) {
    let value = format!("{{\"customer\":{},\"town\":\"Town number {}\",\"balance\":{}}}", i * 7919 % 10_007, i % 13, i * i % 1009);
    (format!("golden-{i}").into_bytes(), value.into_bytes())
}

/// Like the golden store of `golden`, with packed values: made by `KVBATCH_BLESS=1 cargo test --lib packing`, and never again.
#[test]
fn a_packed_store_of_version_1_is_read() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_formats/1-packed");
    let model: Model = (0..150).map(golden).collect();
    if std::env::var_os("KVBATCH_BLESS").is_some() && !kept.exists() {
        let made = SimDisk::new(1, Faults::default());
        let engine = open(&made, options(Codec::Dense)).unwrap();
        commit(&engine, &model.iter().map(|(key, value)| Record::put(key, value)).collect::<Vec<_>>());
        drop(engine);
        let engine = open(&made, options(Codec::Dense)).unwrap();
        compact_all(&engine);
        engine.close().unwrap();
        std::fs::create_dir(&kept).unwrap();
        for name in made.list_files().into_iter().filter(|name| name != "LOCK") {
            std::fs::write(kept.join(&name), made.read_raw(&name).unwrap()).unwrap();
        }
    }
    let disk = SimDisk::new(2, Faults::default());
    drop(open(&disk, options(Codec::None)).unwrap()); // makes the directory
    for file in std::fs::read_dir(kept).unwrap().map(Result::unwrap) {
        assert!(disk.write_raw(file.file_name().to_str().unwrap(), &std::fs::read(file.path()).unwrap()));
    }
    let packed = check(&open(&disk, options(Codec::None)).unwrap(), &model);
    assert!(packed[Codec::Dense as usize] > 140, "{packed:?}");
}

#[test]
fn stores_of_all_codecs_are_read_for_ever() {
    let (disk, mut model) = dense_store();
    assert!(disk.list_files().contains(&DICTIONARY.to_owned()));
    let mut rng = Random::new(2);
    let built = |codec: &Codec| codec.check_built().is_ok();
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Dense].into_iter().filter(built) {
        let engine = open(&disk, options(codec)).unwrap();
        fill(&engine, &mut model, &mut rng, 200, codec != Codec::None);
        check(&engine, &model);
        engine.compact_once(100).unwrap();
        check(&engine, &model);
        drop(engine);
        check(&open(&disk, options(Codec::None)).unwrap(), &model);
    }
    let engine = open(&disk, options(Codec::Lz4)).unwrap();
    let mixed = check(&engine, &model);
    assert!(mixed[..3].iter().all(|count| *count > 10), "{mixed:?}");
}

#[test]
fn what_is_packed_already_is_not_packed_anew() {
    let (disk, model) = dense_store();
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    compact_all(&engine);
    let before = check(&engine, &model);
    let records = engine.counters().moved_records;
    compact_all(&engine);
    let after = check(&engine, &model);
    assert!(after[Codec::Dense as usize] >= before[Codec::Dense as usize], "{before:?} {after:?}");
    assert!(engine.counters().moved_records > records, "they were moved once more");
    let dictionaries = disk.list_files().into_iter().filter(|name| name.starts_with("dictionary"));
    assert_eq!(dictionaries.collect::<Vec<_>>(), [DICTIONARY]);
}

#[test]
fn a_dictionary_that_is_needed_is_missed() {
    let (disk, model) = dense_store();
    let refused = |change: &dyn Fn(&SimDisk), code: Code, says: &str| {
        let disk = disk.twin();
        change(&disk);
        let error = open(&disk, options(Codec::Dense)).map(drop).unwrap_err();
        assert!(error.code == code && error.message.contains(says) && error.message.contains(DICTIONARY), "{error}");
    };
    refused(&|disk| assert!(disk.remove_raw(DICTIONARY)), Code::CORRUPTED, "missing");
    refused(&|disk| assert!(disk.truncate_raw(DICTIONARY, 100)), Code::CORRUPTED, "damaged");
    refused(&|disk| assert!(disk.write_raw(DICTIONARY, &vec![7; 1 << 20])), Code::CORRUPTED, "damaged");
    let foreign = dense_store().0.read_raw(DICTIONARY).unwrap();
    refused(&|disk| assert!(disk.write_raw(DICTIONARY, &foreign)), Code::CONFIG, "another store");
    let half = disk.read_raw(DICTIONARY).unwrap().len() as u64 / 2;
    for copy in [0, half] {
        let disk = disk.twin();
        assert!(disk.flip_bit(DICTIONARY, copy + 700, 3));
        check(&open(&disk, options(Codec::None)).unwrap(), &model);
    }
}

#[test]
fn half_a_dictionary_is_in_nobodys_way() {
    let (disk, model) = dense_store();
    let leftover = "dictionary-0000000000000002.kvb";
    assert!(disk.write_raw(leftover, b"half"));
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    check(&engine, &model);
    let (mut more, mut rng) = (model.clone(), Random::new(3));
    // Values of another kind want a dictionary of their own, and it is not the second.
    for round in 0..12 {
        let row = |rng: &mut Random| {
            let value = format!("<row><left>{}</left><middle/><right>{}</right></row>", rng.below(9999), rng.below(9999));
            (rng.next_u64().to_le_bytes().repeat(2), value.into_bytes())
        };
        let rows: Model = (0..60).map(|_| row(&mut rng)).collect();
        commit(&engine, &rows.iter().map(|(key, value)| Record::put(key, value)).collect::<Vec<_>>());
        more.extend(rows);
        compact_all(&engine);
        if disk.list_files().iter().any(|name| name.starts_with("dictionary-0000000000000003")) {
            assert!(!disk.list_files().contains(&leftover.to_owned()), "round {round}");
            drop(engine);
            check(&open(&disk, options(Codec::Dense)).unwrap(), &more);
            return;
        }
    }
    panic!("no dictionary was made for the other kind");
}

#[test]
fn a_value_that_names_a_strange_dictionary_is_not_guessed_at() {
    let (disk, _) = dense_store();
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    commit(&engine, &[Record { dictionary: 9, ..Record::put_packed(b"strange", Codec::Dense, b"bits", 100) }]);
    commit(&engine, &[Record { dictionary: 1, ..Record::put_packed(b"other codec", Codec::Zstd, b"bits", 100) }]);
    commit(&engine, &[Record { dictionary: 1, ..Record::put_packed(b"wrong bits", Codec::Dense, b"bits", 100) }]);
    for key in [&b"strange"[..], b"other codec", b"wrong bits"] {
        assert_eq!(get(&engine, key).unwrap_err().code, Code::CORRUPTED);
    }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_is_refused_by_name_where_it_was_not_built_in() {
    let disk = SimDisk::new(1, Faults::default());
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    commit(&engine, &[Record::put_packed(b"packed elsewhere", Codec::Zstd, b"bits", 100), Record::put(b"plain", b"value")]);
    let refused = [get(&engine, b"packed elsewhere").unwrap_err(), open(&disk.twin(), options(Codec::Zstd)).map(drop).unwrap_err()];
    for error in refused {
        assert!(error.code == Code::NOT_SUPPORTED && error.message.contains("feature `zstd`"), "{error}");
    }
    assert_eq!(get(&engine, b"plain"), Ok(Some((Codec::None, b"value".to_vec()))));
}

#[cfg(feature = "zstd")]
#[test]
fn zstd_packs_with_a_dictionary_and_without() {
    let (disk, mut model, mut rng) = (SimDisk::new(1, Faults::default()), Model::new(), Random::new(1));
    let engine = open(&disk, options(Codec::Zstd)).unwrap();
    fill(&engine, &mut model, &mut rng, 2000, true);
    compact_all(&engine);
    assert!(check(&engine, &model)[Codec::Zstd as usize] > 1000);
    drop(engine);
    check(&open(&disk, options(Codec::None)).unwrap(), &model);
}

#[test]
fn what_has_expired_is_reclaimed() {
    let disk = SimDisk::new(1, Faults::default());
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    let (value, later) = (vec![7; 3000], u64::MAX);
    for i in 0..20u8 {
        commit(&engine, &[Record { expiry_ms: Some(if i % 2 == 0 { 1 } else { later }), ..Record::put(&[i], &value) }]);
        let found = get(&engine, &[i]).unwrap().is_some();
        assert_eq!(found, i % 2 == 1);
    }
    assert_eq!(engine.counters().keys, 20, "those that have expired still take their room");
    commit(&engine, &[Record::put(b"seals what came before", &vec![1; CHUNK_BYTES as usize])]);
    compact_all(&engine);
    assert_eq!(engine.counters().keys, 11);
    drop(engine);
    let engine = open(&disk, options(Codec::Dense)).unwrap();
    for i in 0..20u8 {
        let found = get(&engine, &[i]).unwrap().map(|(_, raw)| raw);
        assert_eq!(found, (i % 2 == 1).then(|| value.clone()), "its expiry moves with it");
    }
}
