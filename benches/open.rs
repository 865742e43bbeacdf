//! How long a store takes to open: from a fresh checkpoint, and from the log alone. `cargo bench --bench open -- [KEYS]`
//!
//! Prints figures and judges nothing. The process does not end in between: a store that is dropped without being closed
//! leaves what a killed process leaves, with its bytes in the kernel's cache.

use kvbatch::base::few::Few;
use kvbatch::engine::record::{Kind, Record};
use kvbatch::engine::{Commit, Engine, WriteOp, Writes};
use kvbatch::io::real::RealDisk;
use kvbatch::native::{NativeEngine, Options};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCH: u64 = 1000;
const VALUE_LEN: usize = 100;
const RUNS: usize = 5;

fn open(path: &Path) -> Arc<NativeEngine> {
    let options = Options { background: false, ..Options::default() };
    NativeEngine::open(Arc::new(RealDisk::open(64)), path, options).expect("open")
}

/// Commits keys `first` to `first + count` in batches; each batch is synced if `durable`.
fn fill(engine: &NativeEngine, first: u64, count: u64, durable: bool) {
    let hasher = engine.hasher();
    for batch in (first..first + count).step_by(BATCH as usize) {
        let (mut block, mut ops) = (Vec::new(), Vec::new());
        for key in batch..(batch + BATCH).min(first + count) {
            let key = format!("{key:016x}").into_bytes();
            let value = [key[15]; VALUE_LEN];
            let record = Record::put(&key, &value);
            let offset = block.len();
            block.resize(offset + record.encoded_len(), 0);
            record.encode(&mut block[offset..]);
            let len = (block.len() - offset) as u32;
            ops.push(WriteOp { hash: hasher.hash(&key), block: 0, offset: offset as u32, len, kind: Kind::Put });
        }
        let writes = Writes { blocks: Few::one(&mut block), ops: &ops };
        let mut group = [Commit { batch_id: batch, writes, reads: &mut [], durable, pin: None }];
        engine.commit(engine.turn(), &mut group, &mut |_| false).expect("commit");
    }
}

/// Has the kernel forget what it keeps of the store's files, if that is possible.
fn forget(path: &Path) {
    for entry in std::fs::read_dir(path).expect("a directory").flatten() {
        let of = format!("of={}", entry.path().display());
        let _ =
            std::process::Command::new("dd").args([&of[..], "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]).status();
    }
}

/// Time that this process has used the CPUs for, all threads, in milliseconds; in steps of 10.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// Opens some times; prints the median and the best.
fn measure(what: &str, path: &Path, keys: u64, before: impl Fn(&Path)) {
    let mut times: Vec<Duration> = Vec::new();
    let mut about = String::new();
    let mut cpu = 0.0;
    for _ in 0..RUNS {
        before(path);
        let (start, cpu_before) = (Instant::now(), cpu_ms());
        let engine = open(path);
        times.push(start.elapsed());
        cpu += (cpu_ms() - cpu_before) / RUNS as f64;
        let counters = engine.counters();
        assert_eq!(counters.keys, keys);
        about = format!("{} keys loaded, {} MiB replayed", counters.loaded_keys, counters.replayed_bytes >> 20);
    }
    times.sort_unstable();
    let per_million = |time: Duration| time.as_secs_f64() * 1e3 * 1e6 / keys as f64;
    let (median, best, cpu) = (per_million(times[RUNS / 2]), per_million(times[0]), cpu * 1e6 / keys as f64);
    println!("{what:34} {median:7.1} ms per 1 M keys (best {best:.1}, CPU {cpu:.0}); {about}");
}

fn main() {
    let keys = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::Builder::new().prefix("open").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = dir.path();
    let engine = open(path);
    fill(&engine, 0, keys, true);
    drop(engine);
    println!("{keys} keys of 16 bytes, values of {VALUE_LEN} bytes");
    measure("killed, every batch was durable", path, keys, |_| ());
    measure("the same, nothing in the cache", path, keys, forget);
    let engine = open(path);
    let start = Instant::now();
    engine.checkpoint().expect("checkpoint");
    let bytes = engine.counters().checkpoint_bytes;
    println!("checkpoint of {bytes} bytes written in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(engine);
    measure("from a checkpoint", path, keys, |_| ());
    measure("the same, nothing in the cache", path, keys, forget);
    let engine = open(path);
    let start = Instant::now();
    fill(&engine, 0, keys, false); // every record once more: nothing of it is synced
    println!("written again in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(engine);
    measure("killed, one checkpoint, unsynced", path, keys, |_| ());
}
