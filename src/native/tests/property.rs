//! The engine against a map: whatever bytes keys and values have, and however often it is closed and opened again,
//! on a simulated disk and on the one this machine has.

use super::driver::HINTS;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::few::Few;
use crate::base::sync::Arc;
use crate::engine::codec::{Codec, compress, compressed_len_max};
use crate::engine::record::{Kind, Record};
use crate::engine::{Commit, Engine, ReadOp, Reader, StoredValue, WriteOp, Writes};
use crate::io::Disk;
use crate::io::real::RealDisk;
use crate::io::sim::{Faults, SimDisk};
use crate::native::{NativeEngine, Options};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

type Bytes = Vec<u8>;

/// A key, and its value unless it is deleted.
type Write = (Bytes, Option<Bytes>);

#[derive(Clone, Debug)]
enum Action {
    Commit { batches: Vec<Vec<Write>>, durable: bool },
    Sync,
    Reopen { in_order: bool },
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => vec(0u8..4, 1..3), 1 => vec(any::<u8>(), 1..300), 1 => (0u8..2).prop_map(|byte| vec![byte; 65_535])]
}

fn value() -> impl Strategy<Value = Bytes> {
    let long = (0usize..70_000).prop_map(|len| vec![0; len]);
    prop_oneof![1 => Just(Vec::new()), 4 => vec(any::<u8>(), 0..200), 2 => vec(0u8..2, 0..9000), 1 => long]
}

fn action() -> impl Strategy<Value = Action> {
    let batch = vec((key(), proptest::option::weighted(0.8, value())), 0..6);
    prop_oneof![
        8 => (vec(batch, 1..4), any::<bool>()).prop_map(|(batches, durable)| Action::Commit { batches, durable }),
        1 => Just(Action::Sync),
        2 => any::<bool>().prop_map(|in_order| Action::Reopen { in_order }),
    ]
}

/// The records of a batch, packed where that is smaller, as the batch layer makes them.
fn encode(engine: &NativeEngine, batch: &[Write]) -> (Bytes, Vec<WriteOp>) {
    let (mut block, mut ops) = (Vec::new(), Vec::new());
    for (key, value) in batch {
        let mut packed = vec![0; compressed_len_max(value.as_ref().map_or(0, Vec::len))];
        let record = match value {
            None => Record::delete(key),
            Some(value) => match compress(value, &mut packed) {
                Some(len) => Record::put_packed(key, Codec::Lz4, &packed[..len], value.len()),
                None => Record::put(key, value),
            },
        };
        let (offset, len) = (block.len(), record.encoded_len());
        block.resize(offset + len, 0);
        record.encode(&mut block[offset..]);
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        ops.push(WriteOp { hash: engine.hasher().hash(key), block: 0, offset: offset as u32, len: len as u32, kind });
    }
    (block, ops)
}

fn commit(engine: &NativeEngine, batches: &[Vec<Write>], durable: bool) -> Result<(), Error> {
    let mut encoded: Vec<_> = batches.iter().map(|batch| encode(engine, batch)).collect();
    let group = encoded.iter_mut().zip(1..).map(|((block, ops), batch_id)| Commit {
        batch_id,
        writes: Writes { blocks: Few::one(&mut block[..]), ops },
        reads: &mut [],
        durable,
        pin: None,
    });
    engine.commit(engine.turn(), &mut group.collect::<Vec<_>>(), &mut |_| false)
}

/// Collects the values of `keys`.
struct Collect<'a> {
    keys: &'a [&'a Bytes],
    got: Vec<Option<Bytes>>,
}

impl Reader for Collect<'_> {
    fn key(&self, op: u32) -> &[u8] {
        self.keys[op as usize]
    }
    fn found(&mut self, op: u32, value: StoredValue<'_>) {
        let mut raw = vec![0; value.raw_len];
        value.unpack(&mut raw).unwrap();
        assert!(self.got[op as usize].replace(raw).is_none());
    }
    fn missing(&mut self, _: u32) {}
    fn failed(&mut self, _: u32, error: Error) {
        panic!("{error}");
    }
}

fn check(engine: &NativeEngine, model: &BTreeMap<Bytes, Option<Bytes>>) {
    let keys: Vec<&Bytes> = model.keys().collect();
    let mut reads: Vec<ReadOp> =
        keys.iter().zip(0..).map(|(key, op)| ReadOp { hash: engine.hasher().hash(key), op, ..ReadOp::default() }).collect();
    let pin = engine.resolve(&mut reads);
    let mut collect = Collect { keys: &keys, got: vec![None; keys.len()] };
    engine.fetch(&pin, &mut reads, &mut collect, &HINTS);
    for ((key, expected), got) in model.iter().zip(collect.got) {
        assert!(got == *expected, "key {key:?}");
    }
    assert_eq!(engine.counters().keys, model.values().flatten().count() as u64);
}

fn run(disk: &Arc<dyn Disk>, path: &Path, options: Options, actions: &[Action]) {
    let open = || NativeEngine::open(Arc::clone(disk), path, options).unwrap();
    let mut engine = open();
    let mut model: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    for action in actions {
        match action {
            Action::Commit { batches, durable } => {
                commit(&engine, batches, *durable).unwrap();
                model.extend(batches.iter().flatten().cloned());
            }
            Action::Sync => engine.sync().unwrap(),
            Action::Reopen { in_order } => {
                if *in_order {
                    engine.close().unwrap();
                }
                drop(engine); // as a process that ends without closing: the kernel keeps what it was given
                engine = open();
            }
        }
        check(&engine, &model);
    }
}

fn options() -> impl Strategy<Value = Options> {
    let chunk_bytes = prop_oneof![Just(8u64 << 10), Just(64 << 10), Just(1 << 20)];
    (chunk_bytes, 0u64..3).prop_map(|(chunk_bytes, chunks)| super::workload::options(chunk_bytes, chunks * chunk_bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn is_a_map_on_a_simulated_disk(actions in vec(action(), 1..24), options in options(), seed in any::<u64>()) {
        let faults = Faults { short_write_one_in: 5, short_read_one_in: 5, eintr_one_in: 5, ..Faults::default() };
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed, faults));
        run(&disk, Path::new("/store"), options, &actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn is_a_map_on_this_disk(actions in vec(action(), 1..16), options in options()) {
        let place = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(16));
        run(&disk, &place.path().join("store"), options, &actions);
    }
}

/// What was said of a closed store holds for every call.
#[test]
fn a_closed_store_says_so() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1, Faults::default()));
    let engine = NativeEngine::open(disk, Path::new("/store"), super::workload::options(1 << 20, 0)).unwrap();
    let key = vec![1];
    commit(&engine, &[vec![(key.clone(), Some(vec![2]))]], true).unwrap();
    engine.close().unwrap();
    engine.close().unwrap();
    let state = |result: Result<(), Error>| result.unwrap_err().code;
    assert_eq!(state(commit(&engine, &[vec![(key.clone(), None)]], true)), Code::INVALID_STATE);
    assert_eq!(state(engine.sync()), Code::INVALID_STATE);
    assert_eq!(super::driver::read(&engine, &[0])[0], Ok(0), "nothing is known of a key that was never there");
    let mut reads = [ReadOp { hash: engine.hasher().hash(&key), ..ReadOp::default() }];
    let pin = engine.resolve(&mut reads);
    struct Codes(Vec<Code>);
    impl Reader for Codes {
        fn key(&self, _: u32) -> &[u8] {
            &[1]
        }
        fn found(&mut self, _: u32, _: StoredValue<'_>) {}
        fn missing(&mut self, _: u32) {}
        fn failed(&mut self, _: u32, error: Error) {
            self.0.push(error.code);
        }
    }
    let mut codes = Codes(Vec::new());
    engine.fetch(&pin, &mut reads, &mut codes, &HINTS);
    assert_eq!(codes.0, [Code::INVALID_STATE]);
}
