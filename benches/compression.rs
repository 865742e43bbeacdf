//! What packing gains and costs: for each kind of data and each codec, the ratio on disk after compaction, how fast values
//! are packed (alone, and with all that compaction does) and unpacked, and what a read costs. `make ratios` prints it.
//!
//! The ratio is that of the bytes of keys (16 each) and values to the bytes of the chunk files, headers and all, once
//! everything was compacted. The store is on the disk of the temporary directory; reads come from the kernel's cache.

use kvbatch::base::error::Error;
use kvbatch::base::few::Few;
use kvbatch::base::random::Random;
use kvbatch::base::sync::Arc;
use kvbatch::engine::codec::{Codec, StoredValue, compress, compressed_len_max};
use kvbatch::engine::dense::{Dense, Scratch};
use kvbatch::engine::record::{Kind, Record};
use kvbatch::engine::train;
use kvbatch::engine::{Commit, Engine, ReadHints, ReadOp, Reader, WriteOp, Writes};
use kvbatch::io::real::RealDisk;
use kvbatch::native::{NativeEngine, Options};
use std::error::Error as AnyError;
use std::path::Path;
use std::time::Instant;

/// Bytes of values that each store is filled with.
const FILL_BYTES: usize = 24 << 20;
const CHUNK_BYTES: u64 = 4 << 20;
/// Reads of one value each.
const GETS: usize = 50_000;

const FIRST: [&str; 16] =
    ["anna", "ben", "carla", "david", "elena", "felix", "greta", "hannes", "ida", "jonas", "karin", "leon", "mia", "noah", "olga", "paul"];
const LAST: [&str; 16] = [
    "mueller", "schmidt", "keller", "weber", "fischer", "wagner", "becker", "koch", "bauer", "richter", "klein", "wolf", "neumann",
    "schwarz", "braun", "lange",
];
const CITY: [&str; 12] =
    ["Berlin", "Hamburg", "Munich", "Cologne", "Leipzig", "Dresden", "Vienna", "Zurich", "Basel", "Graz", "Paris", "Lisbon"];
const STATE: [&str; 4] = ["active", "blocked", "pending", "closed"];
const ITEM: [&str; 12] =
    ["keyboard", "monitor", "notebook", "headset", "camera", "printer", "router", "tablet", "charger", "cable", "speaker", "microphone"];

struct Draw(Random);

impl Draw {
    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.0.below(words.len() as u64) as usize]
    }

    fn number(&mut self, below: u64) -> u64 {
        self.0.below(below)
    }

    fn price(&mut self) -> String {
        format!("{}.{:02}", 1 + self.number(900), self.number(100))
    }

    fn time(&mut self) -> u64 {
        1_700_000_000 + self.number(30_000_000)
    }

    /// About 100 bytes, of three kinds.
    fn small_json(&mut self) -> Vec<u8> {
        match self.number(3) {
            0 => format!(
                r#"{{"id":{},"name":"{} {}","city":"{}","age":{},"status":"{}","is_premium":{}}}"#,
                self.number(1_000_000),
                self.of(&FIRST),
                self.of(&LAST),
                self.of(&CITY),
                18 + self.number(60),
                self.of(&STATE),
                self.0.one_in(2)
            ),
            1 => format!(
                r#"{{"sensor":"{}-{}","temperature":{}.{},"humidity":{},"battery":{},"measured_at":{}}}"#,
                self.of(&CITY),
                self.number(500),
                5 + self.number(30),
                self.number(10),
                20 + self.number(70),
                self.number(101),
                self.time()
            ),
            _ => format!(
                r#"{{"order":{},"customer":{},"item":"{}","quantity":{},"price":{},"status":"{}","paid":{}}}"#,
                self.number(10_000_000),
                self.number(100_000),
                self.of(&ITEM),
                1 + self.number(9),
                self.price(),
                self.of(&STATE),
                self.0.one_in(2)
            ),
        }
        .into_bytes()
    }

    /// About 1 KiB.
    fn large_json(&mut self) -> Vec<u8> {
        let mut text = format!(
            r#"{{"id":{},"customer":{{"name":"{} {}","city":"{}","email":"{}{}@example.org"}},"created":{},"status":"{}","items":["#,
            self.number(10_000_000),
            self.of(&FIRST),
            self.of(&LAST),
            self.of(&CITY),
            self.of(&LAST),
            self.number(100),
            self.time(),
            self.of(&STATE)
        );
        while text.len() < 960 {
            let (item, sku, quantity, price) = (self.of(&ITEM), self.number(1 << 32), 1 + self.number(9), self.price());
            text += &format!(r#"{{"item":"{item}","sku":"{sku:08x}","quantity":{quantity},"price":{price}}},"#);
        }
        text.pop();
        text += &format!(r#"],"total":{},"note":"{}"}}"#, self.price(), ["", "leave at the door"][self.number(2) as usize]);
        text.into_bytes()
    }

    fn random(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.0.next_u64() as u8).collect()
    }

    fn value(&mut self, kind: &str, small: bool) -> Vec<u8> {
        let mut value = if small { self.small_json() } else { self.large_json() };
        let random_from = match kind {
            "JSON-like" => value.len(),
            "half random" => value.len() / 2,
            _ => 0,
        };
        let tail = self.random(value.len() - random_from);
        value.truncate(random_from);
        value.extend_from_slice(&tail);
        value
    }
}

fn key(i: usize) -> [u8; 16] {
    let mut rng = Random::new(i as u64);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    key[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    key
}

/// Commits a run of values in one batch.
fn put(engine: &NativeEngine, first: usize, values: &[Vec<u8>]) -> Result<(), Error> {
    let (mut block, mut ops) = (Vec::new(), Vec::new());
    for (i, value) in values.iter().enumerate() {
        let key = key(first + i);
        let record = Record::put(&key, value);
        let (offset, len) = (block.len(), record.encoded_len());
        block.resize(offset + len, 0);
        record.encode(&mut block[offset..]);
        ops.push(WriteOp { hash: engine.hasher().hash(&key), block: 0, offset: offset as u32, len: len as u32, kind: Kind::Put });
    }
    let writes = Writes { blocks: Few::one(&mut block[..]), ops: &ops };
    let member = Commit { batch_id: 1, writes, reads: &mut [], durable: false, pin: None };
    engine.commit(engine.turn(), &mut [member], &mut |_| false)
}

/// Takes one value at a time.
struct Get {
    key: [u8; 16],
    raw: Vec<u8>,
    packed: (Codec, usize),
    failed: Option<Error>,
    unpack_ns: u64,
}

impl Reader for Get {
    fn key(&self, _: u32) -> &[u8] {
        &self.key
    }
    fn found(&mut self, _: u32, value: StoredValue<'_>) {
        let began = Instant::now();
        self.raw.resize(value.raw_len, 0);
        self.failed = value.unpack(&mut self.raw).err();
        self.unpack_ns += began.elapsed().as_nanos() as u64;
        self.packed = (value.codec, value.bytes.len());
    }
    fn missing(&mut self, _: u32) {
        self.raw.clear();
    }
    fn failed(&mut self, _: u32, error: Error) {
        self.failed = Some(error);
    }
}

const HINTS: ReadHints = ReadHints { depth: 1, sort: false, prefetch: false, polling: false };

fn get(engine: &NativeEngine, get: &mut Get, i: usize) -> Result<(), Error> {
    get.key = key(i);
    let mut reads = [ReadOp { hash: engine.hasher().hash(&get.key), ..ReadOp::default() }];
    let pin = engine.resolve(&mut reads);
    engine.fetch(&pin, &mut reads, get, &HINTS);
    get.failed.take().map_or(Ok(()), Err)
}

fn chunk_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("chunk-") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Packs one value.
type Pack = Box<dyn FnMut(&[u8])>;

/// Megabytes of values that are packed in a second, the dictionary made before.
fn pack_speed(codec: Codec, values: &[Vec<u8>]) -> f64 {
    let samples: Vec<&[u8]> = values.iter().step_by(values.len() / 1000).map(Vec::as_slice).collect();
    let mut out = vec![0; compressed_len_max(values.iter().map(Vec::len).max().unwrap_or(0))];
    let mut pack: Pack = match codec {
        Codec::None => Box::new(move |raw| out[..raw.len()].copy_from_slice(raw)),
        Codec::Lz4 => Box::new(move |raw| {
            compress(raw, &mut out);
        }),
        Codec::Dense => {
            let Some(dense) = Dense::new(&Dense::contents(&train::phrases(&samples, 8 << 10), &samples)) else { return 0.0 };
            let mut scratch = Scratch::default();
            Box::new(move |raw| {
                out.clear();
                dense.pack(raw, raw.len(), &mut scratch, &mut out);
            })
        }
        Codec::Zstd => zstd_packer(&samples, out),
    };
    let began = Instant::now();
    let mut bytes = 0;
    for value in values {
        pack(value);
        bytes += value.len();
    }
    bytes as f64 / began.elapsed().as_secs_f64() / 1e6
}

#[cfg(feature = "zstd")]
fn zstd_packer(samples: &[&[u8]], mut out: Vec<u8>) -> Pack {
    use kvbatch::engine::zstd::{Packer, Zstd};
    let dictionary = Zstd::contents(samples, 16 << 10).and_then(|contents| Zstd::new(&contents));
    let mut packer = Packer::new(dictionary.as_ref());
    Box::new(move |raw| {
        out.clear();
        if let Some(packer) = &mut packer {
            packer.pack(raw, raw.len(), &mut out);
        }
    })
}

#[cfg(not(feature = "zstd"))]
fn zstd_packer(_samples: &[&[u8]], _out: Vec<u8>) -> Pack {
    Box::new(|_| ())
}

fn row(kind: &str, small: bool, codec: Codec) -> Result<(), Box<dyn AnyError>> {
    let mut draw = Draw(Random::new(1));
    let mut values = Vec::new();
    let mut value_bytes = 0;
    while value_bytes < FILL_BYTES {
        values.push(draw.value(kind, small));
        value_bytes += values.last().map_or(0, Vec::len);
    }
    let place = tempfile::tempdir()?;
    let path = place.path().join("store");
    let options = Options { chunk_bytes: CHUNK_BYTES, hot_log_bytes: 0, compacted_codec: codec, background: false, ..Options::default() };
    let engine = NativeEngine::open(Arc::new(RealDisk::open(16)), &path, options)?;
    for (i, values) in values.chunks(1000).enumerate() {
        put(&engine, 1000 * i, values)?;
    }
    // Something behind it, so that the last chunk of values is sealed: it is left out of the sums below.
    let filler = vec![0; CHUNK_BYTES as usize];
    put(&engine, values.len(), std::slice::from_ref(&filler))?;
    let began = Instant::now();
    engine.compact(100, &mut |_, _| true)?;
    let compacted_s = began.elapsed().as_secs_f64();
    engine.sync()?;
    let on_disk = chunk_bytes(&path)?.saturating_sub(filler.len() as u64);
    let mut reader = Get { key: [0; 16], raw: Vec::new(), packed: (Codec::None, 0), failed: None, unpack_ns: 0 };
    let mut rng = Random::new(2);
    for (i, value) in values.iter().enumerate() {
        get(&engine, &mut reader, i)?;
        if reader.raw != *value {
            return Err(format!("value {i} has come back as another one").into());
        }
    }
    reader.unpack_ns = 0;
    let began = Instant::now();
    let mut read_bytes = 0;
    for _ in 0..GETS {
        get(&engine, &mut reader, rng.below(values.len() as u64) as usize)?;
        read_bytes += reader.raw.len();
    }
    let get_ns = began.elapsed().as_nanos() as u64 / GETS as u64;
    let logical = value_bytes + 16 * values.len();
    println!(
        "| {kind} | {} | {codec:?} | {:.2} | {:.0} | {:.0} | {:.0} | {} | {} |",
        value_bytes / values.len(),
        logical as f64 / on_disk as f64,
        pack_speed(codec, &values),
        logical as f64 / compacted_s / 1e6,
        read_bytes as f64 * 1e3 / reader.unpack_ns.max(1) as f64,
        reader.unpack_ns / GETS as u64,
        get_ns
    );
    engine.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn AnyError>> {
    println!("| values | bytes | codec | ratio | pack MB/s | compaction MB/s | unpack MB/s | ns to unpack | ns per get |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let codecs = [Codec::None, Codec::Lz4, Codec::Dense, Codec::Zstd];
    for kind in ["JSON-like", "half random", "random"] {
        for small in [true, false] {
            for codec in codecs.into_iter().filter(|codec| codec.check_built().is_ok()) {
                row(kind, small, codec)?;
            }
        }
    }
    Ok(())
}
