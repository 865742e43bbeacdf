//! `kvbatch bench`: a small measurement of a store in a directory, for comparing disks and options.

use crate::outcome::{Failure, Outcome};
use crate::store::{Named, check_is_store, close};
use kvbatch::base::error::Error;
use kvbatch::base::few::Few;
use kvbatch::base::random::Random;
use kvbatch::engine::record::Record;
use kvbatch::engine::{Commit, Engine, ReadHints, ReadOp, Reader, StoredValue, WriteOp, Writes};
use kvbatch::native::NativeEngine;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

/// Measures puts and gets in a new store, which is left there
///
/// One thread, the embedded engine alone. For the library as C programs use it see `make bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where the store goes: a directory that is empty, or not there yet
    store: PathBuf,
    /// Keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    value_size: u64,
    /// Operations in a batch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch: u64,
    /// Put each batch on stable storage before the next
    #[arg(long)]
    sync: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let store = Named::parse(&arguments.store)?;
    if check_is_store(&store.path).is_ok() {
        let text = format!("{}: there is a store already, and a measurement fills it up: name another directory", store.path.display());
        return Err(Failure::new(Outcome::Usage, text));
    }
    let engine = store.open_to_write(true)?;
    close(&engine, measure(&engine, arguments))?;
    Ok(Outcome::Good)
}

fn measure(engine: &NativeEngine, arguments: &Arguments) -> Result<(), Failure> {
    let (backend, reason) = {
        let report = engine.io_report();
        (report.backend, report.reason)
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "cold reads through {backend} ({reason})")?;
    let mut random = Random::new(1);
    let begun = Instant::now();
    for first in (0..arguments.keys).step_by(arguments.batch as usize) {
        put(engine, first..arguments.keys.min(first + arguments.batch), arguments, &mut random)?;
    }
    engine.sync()?;
    report(&mut out, "puts", arguments.keys, begun, arguments.value_size)?;
    for round in ["gets", "gets again"] {
        let begun = Instant::now();
        let mut found = 0;
        for _ in 0..arguments.keys.div_ceil(arguments.batch) {
            found += get(engine, arguments, &mut random)?;
        }
        report(&mut out, round, found, begun, arguments.value_size)?;
    }
    let info = engine.describe()?;
    writeln!(out, "{} bytes on disk for {} of keys and values", info.file_bytes(), arguments.keys * (16 + arguments.value_size))?;
    Ok(())
}

fn report(out: &mut impl std::io::Write, what: &str, operations: u64, begun: Instant, value_size: u64) -> std::io::Result<()> {
    let seconds = begun.elapsed().as_secs_f64().max(1e-9);
    let (per_second, mib) = (operations as f64 / seconds, (operations * value_size) as f64 / seconds / f64::from(1 << 20));
    writeln!(out, "{what:12}{operations:>12} in {seconds:8.3} s{per_second:>14.0} per second{mib:>10.1} MiB/s")
}

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn put(engine: &NativeEngine, numbers: std::ops::Range<u64>, arguments: &Arguments, random: &mut Random) -> Result<(), Error> {
    let mut value = vec![0; arguments.value_size as usize];
    let (mut block, mut ops) = (Vec::new(), Vec::new());
    for number in numbers {
        value.iter_mut().step_by(8).for_each(|byte| *byte = random.next_u64() as u8);
        let key = key(number);
        let record = Record::put(&key, &value);
        let (offset, len) = (block.len(), record.encoded_len());
        block.resize(offset + len, 0);
        record.encode(&mut block[offset..]);
        ops.push(WriteOp { hash: engine.hasher().hash(&key), block: 0, offset: offset as u32, len: len as u32, kind: record.kind });
    }
    let writes = Writes { blocks: Few::one(&mut block), ops: &ops };
    let mut group = [Commit { batch_id: 0, writes, reads: &mut [], durable: arguments.sync, pin: None }];
    engine.commit(engine.turn(), &mut group, &mut |_| false)
}

struct Keys {
    keys: Vec<[u8; 16]>,
    found: u64,
    error: Option<Error>,
}

impl Reader for Keys {
    fn key(&self, op: u32) -> &[u8] {
        &self.keys[op as usize]
    }
    fn found(&mut self, _: u32, _: StoredValue<'_>) {
        self.found += 1;
    }
    fn missing(&mut self, _: u32) {}
    fn failed(&mut self, _: u32, error: Error) {
        self.error = Some(error);
    }
}

fn get(engine: &NativeEngine, arguments: &Arguments, random: &mut Random) -> Result<u64, Error> {
    let keys: Vec<_> = (0..arguments.batch).map(|_| key(random.below(arguments.keys))).collect();
    let hasher = engine.hasher();
    let mut reads: Vec<_> =
        keys.iter().enumerate().map(|(op, key)| ReadOp { hash: hasher.hash(key), op: op as u32, ..ReadOp::default() }).collect();
    let pin = engine.resolve(&mut reads);
    let mut reader = Keys { keys, found: 0, error: None };
    engine.fetch(&pin, &mut reads, &mut reader, &ReadHints { depth: 64, sort: true, prefetch: true, polling: false });
    reader.error.map_or(Ok(reader.found), Err)
}
