//! Tests of the tools, mostly on a simulated disk with its lid off.

mod backup;
mod compact;
mod dictionaries;
mod prefix;
mod salvage;
mod verify;
mod walk;

use super::super::{NativeEngine, Options, Recovery};
use crate::base::error::Result;
use crate::base::few::Few;
use crate::base::random::Random;
use crate::base::sync::Arc;
use crate::engine::codec::Codec;
use crate::engine::record::Record;
use crate::engine::{Commit, Engine, ReadHints, ReadOp, Reader, StoredValue, WriteOp, Writes};
use crate::io::Disk;
use crate::io::sim::{Faults, SimDisk};
use std::collections::BTreeMap;
use std::path::Path;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const PATH: &str = "store";
const CHUNK_BYTES: u64 = 16 << 10;
const DICTIONARY: &str = "dictionary-0000000000000001.kvb";

fn options() -> Options {
    Options { chunk_bytes: CHUNK_BYTES, hot_log_bytes: 0, reserve_percent: 0, background: false, ..Options::default() }
}

fn open_with(disk: &SimDisk, path: &str, options: Options) -> Result<Arc<NativeEngine>> {
    NativeEngine::open(Arc::new(disk.clone()), Path::new(path), options)
}

fn open(disk: &SimDisk) -> Arc<NativeEngine> {
    open_with(disk, PATH, options()).expect("opens")
}

/// Commits records as one batch.
fn commit(engine: &NativeEngine, records: &[Record<'_>], durable: bool) -> Result<()> {
    let mut block = Vec::new();
    let mut ops = Vec::new();
    for record in records {
        let (offset, len) = (block.len(), record.encoded_len());
        block.resize(offset + len, 0);
        record.encode(&mut block[offset..]);
        let hash = engine.hasher().hash(record.key);
        ops.push(WriteOp { hash, block: 0, offset: offset as u32, len: len as u32, kind: record.kind });
    }
    let writes = Writes { blocks: Few::one(&mut block), ops: &ops };
    engine.commit(engine.turn(), &mut [Commit { batch_id: 7, writes, reads: &mut [], durable, pin: None }], &mut |_| false)
}

/// What the store holds, by walking it.
fn contents(engine: &NativeEngine) -> Model {
    let mut model = Model::new();
    let visited = engine.walk(&mut |record| {
        let before = model.insert(record.key.to_vec(), engine.value_of(record)?.into_owned());
        assert!(before.is_none(), "a key was shown twice");
        Ok(())
    });
    visited.expect("walks");
    model
}

struct OneKey<'a> {
    key: &'a [u8],
    value: Option<Vec<u8>>,
}

impl Reader for OneKey<'_> {
    fn key(&self, _: u32) -> &[u8] {
        self.key
    }
    fn found(&mut self, _: u32, value: StoredValue<'_>) {
        let mut raw = vec![0; value.raw_len];
        value.unpack(&mut raw).expect("unpacks");
        self.value = Some(raw);
    }
    fn missing(&mut self, _: u32) {}
    fn failed(&mut self, _: u32, error: crate::base::error::Error) {
        panic!("{error}");
    }
}

fn get(engine: &NativeEngine, key: &[u8]) -> Option<Vec<u8>> {
    let mut reads = [ReadOp { hash: engine.hasher().hash(key), ..ReadOp::default() }];
    let pin = engine.resolve(&mut reads);
    let mut reader = OneKey { key, value: None };
    engine.fetch(&pin, &mut reads, &mut reader, &ReadHints { depth: 1, sort: false, prefetch: false, polling: false });
    reader.value
}

/// Puts, overwrites and deletes, drawn from `rng`; returns what the store must hold.
fn work(engine: &NativeEngine, rng: &mut Random, batches: usize, model: &mut Model) {
    for _ in 0..batches {
        let count = 1 + rng.below(6);
        let drawn: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..count)
            .map(|_| {
                let key = format!("key-{}", rng.below(120)).into_bytes();
                let value = (!rng.one_in(5)).then(|| vec![rng.below(256) as u8; rng.below(400) as usize]);
                (key, value)
            })
            .collect();
        let records: Vec<Record<'_>> = drawn
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Record::put(key, value),
                None => Record::delete(key),
            })
            .collect();
        commit(engine, &records, rng.one_in(2)).expect("commits");
        for (key, value) in drawn {
            match value {
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
        }
    }
}

/// Of every other store the records that were moved are packed.
fn is_packed(seed: u64) -> bool {
    seed % 2 == 1
}

/// A store of several chunks, some of them compacted away, with a beat in it, closed in order.
fn worn_store(seed: u64) -> (SimDisk, Model) {
    let disk = SimDisk::new(seed, Faults::default());
    let mut rng = Random::new(seed);
    let mut model = Model::new();
    let compacted_codec = if is_packed(seed) { Codec::Dense } else { Codec::None };
    let engine = open_with(&disk, PATH, Options { compacted_codec, ..options() }).expect("opens");
    work(&engine, &mut rng, 200, &mut model);
    engine.compact(60, &mut |_, _| true).expect("compacts");
    engine.close().expect("closes");
    let engine = open(&disk);
    work(&engine, &mut rng, 30, &mut model);
    engine.sync().expect("syncs");
    engine.beat().expect("beats");
    work(&engine, &mut rng, 30, &mut model);
    engine.close().expect("closes");
    assert_eq!(disk.list_files().contains(&DICTIONARY.to_owned()), is_packed(seed));
    (disk, model)
}

/// All files but locks, with their bytes.
fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list_files().into_iter().filter(|name| name != super::super::LOCK_NAME);
    names.map(|name| (name.clone(), disk.read_raw(&name).expect("is there"))).collect()
}

fn as_disk(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A disk of its own with the same bytes on it.
fn copy_of(disk: &SimDisk) -> SimDisk {
    disk.kill_image()
}
