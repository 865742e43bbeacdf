//! The parts of the library by themselves, with criterion: encoding records, the index, commits, reads; and writes one by
//! one, in batches, and random reads, as other stores' suites name them. `make bench-parts`; the report is
//! `target/criterion/report/index.html`.
//!
//! Works on the engine, without batches and without C. Every read is compared with what was stored.

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kvbatch::base::error::Error;
use kvbatch::base::few::Few;
use kvbatch::base::hash::KeyHasher;
use kvbatch::engine::record::{Kind, Record};
use kvbatch::engine::{Commit, Engine, NO_BATCH, ReadHints, ReadOp, Reader, StoredValue, WriteOp, Writes};
use kvbatch::io::real::RealDisk;
use kvbatch::native::{NativeEngine, Options};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];
const KEYS: usize = 100_000;
const RANDOM_READS: usize = 10_000;
const VALUE_LEN: usize = 100;

/// A store in a directory that goes with it.
struct Store {
    engine: Arc<NativeEngine>,
    _dir: tempfile::TempDir,
}

fn store() -> Store {
    let dir = tempfile::Builder::new().prefix("parts").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let engine = NativeEngine::open(Arc::new(RealDisk::open(64)), Path::new(dir.path()), Options::default()).expect("open");
    Store { engine, _dir: dir }
}

fn key(i: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = i;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The value of key `i`: no two are alike.
fn value(i: usize) -> [u8; VALUE_LEN] {
    let mut value = [b'v'; VALUE_LEN];
    value[..8].copy_from_slice(&(i as u64).to_le_bytes());
    value[VALUE_LEN - 8..].copy_from_slice(&(i as u64 * 7919).to_le_bytes());
    value
}

/// Encoded puts, as a batch hands them to an engine.
#[derive(Default)]
struct Puts {
    block: Vec<u8>,
    ops: Vec<WriteOp>,
}

impl Puts {
    fn of(keys: impl Iterator<Item = usize>, hasher: &KeyHasher) -> Puts {
        let mut puts = Puts::default();
        keys.for_each(|i| puts.add(&key(i), &value(i), hasher));
        puts
    }

    #[inline]
    fn add(&mut self, key: &[u8], value: &[u8], hasher: &KeyHasher) {
        let record = Record::put(key, value);
        let (offset, len) = (self.block.len(), record.encoded_len());
        self.block.resize(offset + len, 0);
        record.encode(&mut self.block[offset..]);
        self.ops.push(WriteOp { hash: hasher.hash(key), block: 0, offset: offset as u32, len: len as u32, kind: Kind::Put });
    }

    fn commit(&mut self, engine: &NativeEngine, durable: bool) {
        let writes = Writes { blocks: Few::one(&mut self.block), ops: &self.ops };
        let mut group = [Commit { batch_id: NO_BATCH, writes, reads: &mut [], durable, pin: None }];
        engine.commit(engine.turn(), &mut group, &mut |_| false).expect("commit");
    }
}

fn fill(engine: &NativeEngine, count: usize) {
    for first in (0..count).step_by(1_000) {
        Puts::of(first..(first + 1_000).min(count), &engine.hasher()).commit(engine, false);
    }
}

/// Compares what is read with what was stored.
struct Check {
    keys: Vec<(usize, [u8; 16])>,
    right: usize,
    missing: usize,
    value: [u8; VALUE_LEN],
}

impl Check {
    fn of(keys: impl Iterator<Item = usize>) -> Check {
        Check { keys: keys.map(|i| (i, key(i))).collect(), right: 0, missing: 0, value: [0; VALUE_LEN] }
    }

    fn reads(&self, hasher: &KeyHasher) -> Vec<ReadOp> {
        let read = |(op, (_, key)): (usize, &(usize, [u8; 16]))| ReadOp { hash: hasher.hash(key), op: op as u32, ..ReadOp::default() };
        self.keys.iter().enumerate().map(read).collect()
    }
}

impl Reader for Check {
    fn key(&self, op: u32) -> &[u8] {
        &self.keys[op as usize].1
    }

    fn found(&mut self, op: u32, stored: StoredValue<'_>) {
        stored.unpack(&mut self.value).expect("a good value");
        self.right += usize::from(self.value[..8] == (self.keys[op as usize].0 as u64).to_le_bytes());
    }

    fn missing(&mut self, _op: u32) {
        self.missing += 1;
    }

    fn failed(&mut self, _op: u32, error: Error) {
        panic!("{error}");
    }
}

const HINTS: ReadHints = ReadHints { depth: 64, sort: true, prefetch: true, polling: false };

/// Keys in no order.
fn drawn(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(|i| i * 62_501 % KEYS)
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let store = store();
    let hasher = store.engine.hasher();
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        let pairs: Vec<_> = (0..size).map(|i| (key(i), value(i))).collect();
        let mut puts = Puts::default();
        group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, _| {
            b.iter(|| {
                puts.block.clear();
                puts.ops.clear();
                pairs.iter().for_each(|(key, value)| puts.add(key, value, &hasher));
                black_box(&puts.block);
            });
        });
    }
    group.finish();
}

fn index(c: &mut Criterion) {
    let store = store();
    let engine = &*store.engine;
    fill(engine, KEYS);
    for (name, first) in [("index/found", 0), ("index/absent", KEYS)] {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            group.throughput(Throughput::Elements(size as u64));
            let mut reads = Check::of(drawn(size).map(|i| i + first)).reads(&engine.hasher());
            group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, _| {
                b.iter(|| black_box(engine.resolve(&mut reads)).is_some())
            });
        }
        group.finish();
    }
}

fn commit(c: &mut Criterion) {
    let store = store();
    let engine = &*store.engine;
    for (name, durable) in [("commit/unsynced", false), ("commit/durable", true)] {
        let mut group = c.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        for size in SIZES {
            group.throughput(Throughput::Elements(size as u64));
            group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, _| {
                // A commit salts the records' checksums: each wants fresh ones.
                let fresh = || Puts::of(0..size, &engine.hasher());
                b.iter_batched(fresh, |mut puts| puts.commit(engine, durable), BatchSize::PerIteration);
            });
        }
        group.finish();
    }
}

fn read(c: &mut Criterion) {
    let store = store();
    let engine = &*store.engine;
    fill(engine, KEYS);
    let mut group = c.benchmark_group("read");
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        let mut check = Check::of(drawn(size));
        let mut reads = check.reads(&engine.hasher());
        group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, _| {
            b.iter(|| {
                check.right = 0;
                let pin = engine.resolve(&mut reads);
                engine.fetch(&pin, &mut reads, &mut check, &HINTS);
                assert_eq!(check.right, size);
            });
        });
    }
    group.finish();
}

fn random_write_benchmark(c: &mut Criterion) {
    let mut group = c.benchmark_group("kvbatch_write");
    group.sampling_mode(SamplingMode::Flat);
    let store = store();
    let hasher = store.engine.hasher();
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, &size| {
            b.iter(|| drawn(size).for_each(|i| Puts::of(std::iter::once(i), &hasher).commit(&store.engine, false)));
        });
    }
    group.finish();
}

fn batch_write_benchmark(c: &mut Criterion) {
    let mut group = c.benchmark_group("kvbatch_batch_write");
    group.sampling_mode(SamplingMode::Flat);
    let store = store();
    let hasher = store.engine.hasher();
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &size, |b, &size| {
            b.iter(|| Puts::of(0..size, &hasher).commit(&store.engine, false));
        });
    }
    group.finish();
}

fn random_read_benchmark(c: &mut Criterion) {
    let store = store();
    let engine = &*store.engine;
    fill(engine, KEYS);
    let mut group = c.benchmark_group("kvbatch_random_read");
    group.throughput(Throughput::Elements(RANDOM_READS as u64));
    let mut checks: Vec<Check> = drawn(RANDOM_READS).map(|i| Check::of(std::iter::once(i))).collect();
    group.bench_function(BenchmarkId::from_parameter(RANDOM_READS), |b| {
        b.iter(|| {
            for check in &mut checks {
                check.right = 0;
                let mut reads = [ReadOp { hash: engine.hasher().hash(&check.keys[0].1), ..ReadOp::default() }];
                let pin = engine.resolve(&mut reads);
                engine.fetch(&pin, &mut reads, check, &HINTS);
                assert_eq!((check.right, check.missing), (1, 0));
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = encode, index, commit, read, random_write_benchmark, batch_write_benchmark, random_read_benchmark
}
criterion_main!(benches);
