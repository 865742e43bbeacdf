//! Packing what compaction moves: denser than fresh records, because there is time, and because a chunk of records shows
//! what they have in common.
//!
//! Called by `compaction` with every record on its way. Decides when a dictionary is worth making, from samples of the
//! chunk that is being moved. A value that does not get smaller stays as it is, and so does one that is packed this
//! way already: nothing is packed twice.

use super::NativeEngine;
use super::chunks::Chunk;
use super::dictionary::{Table, stored_value};
use super::index::Place;
use super::scan::{Frames, Step};
use super::window::Window;
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::base::sync::Arc;
use crate::engine::codec::{self, Codec, Dictionary};
use crate::engine::dense::{self, Dense};
use crate::engine::record::{Kind, Record};
use crate::engine::train;

/// Bytes of values that a dictionary is made from, and judged by.
const SAMPLE_BYTES: usize = 256 << 10;
/// More of one value says nothing new.
const SAMPLE_LEN_MAX: usize = 4 << 10;
/// Phrases in a dictionary: longer ones gain nothing and cost time.
const PHRASES_LEN_MAX: usize = 8 << 10;
/// A dictionary is made if it saves a fifth, and a tenth more than the one there is.
const PAYS_PERCENT: usize = 80;
const BETTER_PERCENT: usize = 90;
/// It is looked for a better one if values come out this much larger than the samples did.
const WORSE_PERCENT: u64 = 120;
/// Chunks until the next try, when one was to no avail.
const PAUSE_CHUNKS: u32 = 8;
/// A chunk with less than this share of a full one in it teaches too little.
const TEACHING_SHARE: u64 = 64;
/// So does one of whose values less than this share is fresh.
const FRESH_SHARE: u64 = 4;

/// What was learned from the chunks before.
#[derive(Default)]
pub(super) struct Experience {
    /// Packed bytes for 1000 bytes, by the present dictionary: of the samples, and of what was moved last.
    of_samples: u64,
    of_moved: u64,
    pause_chunks: u32,
}

/// Packs the records of one chunk.
pub(super) struct Packer {
    codec: Codec,
    dictionary: Option<Arc<Dictionary>>,
    /// What records were packed with before.
    table: Table,
    scratch: dense::Scratch,
    #[cfg(feature = "zstd")]
    zstd: Option<crate::engine::zstd::Packer>,
    raw: Vec<u8>,
    packed: Vec<u8>,
    /// Of the chunk, before anything was moved.
    live_bytes: u64,
    raw_bytes: u64,
    packed_bytes: u64,
}

impl NativeEngine {
    /// A packer for the records of `victim`; may make a dictionary first.
    pub(super) fn packer(&self, victim: &Chunk) -> Result<Packer> {
        let codec = self.options.compacted_codec;
        let mut dictionary = self.dictionaries.newest(codec);
        if codec.names_dictionary() && self.is_time_to_learn(victim, dictionary.is_some()) {
            dictionary = self.learn(victim, dictionary)?;
        }
        let packer = Packer::new(codec, dictionary, self.dictionaries.table())?;
        Ok(Packer { live_bytes: victim.live_bytes(), ..packer })
    }

    fn is_time_to_learn(&self, victim: &Chunk, has_dictionary: bool) -> bool {
        let mut experience = self.experience.lock();
        if experience.pause_chunks > 0 {
            experience.pause_chunks -= 1;
            return false;
        }
        let is_worse = experience.of_moved * 100 > experience.of_samples * WORSE_PERCENT;
        (!has_dictionary || is_worse) && victim.live_bytes() >= self.options.chunk_bytes / TEACHING_SHARE
    }

    /// Makes a dictionary from the values in `victim`, if it beats `present`; the one to use.
    fn learn(&self, victim: &Chunk, present: Option<Arc<Dictionary>>) -> Result<Option<Arc<Dictionary>>> {
        let codec = self.options.compacted_codec;
        let samples = self.samples(victim)?;
        // By every other one it is made, by the rest it is judged.
        let of_parity = |odd| samples.iter().enumerate().filter(move |(i, _)| (i % 2 == 1) == odd).map(|(_, sample)| &sample[..]);
        let (to_learn, to_judge): (Vec<_>, Vec<_>) = (of_parity(false).collect(), of_parity(true).collect());
        let raw: usize = to_judge.iter().map(|sample| sample.len()).sum();
        if raw as u64 * 2 * FRESH_SHARE < victim.live_bytes().min(SAMPLE_BYTES as u64) {
            return Ok(present); // most of it is packed already, and the rest is what could not be
        }
        let judge = |dictionary| Ok::<_, Error>(Packer::new(codec, dictionary, Table::default())?.total(&to_judge));
        let with_present = judge(present.clone())?;
        let candidate = contents(codec, &to_learn).and_then(|contents| Dictionary::new(1, codec, &contents).map(|made| (contents, made)));
        let mut result = (present, with_present);
        if let Some((contents, made)) = candidate {
            let with_candidate = judge(Some(Arc::new(made)))?;
            if with_candidate * 100 < raw * PAYS_PERCENT
                && with_candidate * 100 < with_present * BETTER_PERCENT
                && let Some(made) = self.make_dictionary(&contents)?
            {
                result = (Some(made), with_candidate);
            } else {
                self.experience.lock().pause_chunks = PAUSE_CHUNKS;
            }
        }
        let of_samples = result.1 as u64 * 1000 / raw.max(1) as u64;
        let mut experience = self.experience.lock();
        (experience.of_samples, experience.of_moved) = (of_samples, of_samples);
        Ok(result.0)
    }

    fn make_dictionary(&self, contents: &[u8]) -> Result<Option<Arc<Dictionary>>> {
        let made = self.dictionaries.make(&**self.log.dir(), &self.log.store(), self.options.compacted_codec, contents);
        match made {
            Ok(Some(dictionary)) => {
                // What names it goes into chunks that name it.
                self.log.name_dictionaries(self.dictionaries.names());
                Ok(Some(dictionary))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                let error = Error::from_io(format_args!("store {}: cannot make a dictionary", self.path), &error);
                log::write(log::Level::Warn, "compact", &error.message);
                Err(error)
            }
        }
    }

    /// Values that are current in `victim`, from all over it.
    fn samples(&self, victim: &Chunk) -> Result<Vec<Vec<u8>>> {
        let Some(end) = victim.end() else { return Ok(Vec::new()) };
        let table = self.dictionaries.table();
        let mut window = Window::new(&*victim.file, end.valid_bytes);
        let mut frames = Frames::new(victim.salt, end);
        let stretch = end.valid_bytes / (SAMPLE_BYTES / SAMPLE_LEN_MAX) as u64 + 1;
        let (mut samples, mut bytes_so_far) = (Vec::new(), 0);
        // From each stretch of the chunk the first few: so many that all together are enough.
        while let Ok(Step::Record { offset, bytes, record }) = frames.next_record(&mut window) {
            let wanted = (offset / stretch + 1) as usize * SAMPLE_LEN_MAX;
            if bytes_so_far >= wanted || record.kind != Kind::Put || record.codec.names_dictionary() {
                continue;
            }
            let place = Place::new(victim.slot, offset, bytes.len());
            if self.index.read().get(&self.hasher.hash(record.key)) != Some(place) {
                continue;
            }
            let mut raw = Vec::new();
            let Ok(value) = stored_value(&table, &record, &self.path) else { continue }; // reading it says why
            if unpack(&value, &mut raw) {
                raw.truncate(SAMPLE_LEN_MAX);
                bytes_so_far += raw.len();
                samples.push(raw);
            }
        }
        Ok(samples)
    }

    /// Takes note of how a chunk was packed.
    pub(super) fn packed(&self, packer: &Packer) {
        let is_telling = packer.raw_bytes >= self.options.chunk_bytes / TEACHING_SHARE;
        if is_telling && packer.raw_bytes * FRESH_SHARE >= packer.live_bytes {
            self.experience.lock().of_moved = packer.packed_bytes * 1000 / packer.raw_bytes.max(1);
        }
    }
}

/// The contents of a dictionary for values like `samples`.
fn contents(codec: Codec, samples: &[&[u8]]) -> Option<Vec<u8>> {
    let bytes: usize = samples.iter().map(|sample| sample.len()).sum();
    let len_max = (bytes / 8).min(PHRASES_LEN_MAX);
    match codec {
        Codec::Dense if !samples.is_empty() => Some(Dense::contents(&train::phrases(samples, len_max), samples)),
        #[cfg(feature = "zstd")]
        Codec::Zstd if !samples.is_empty() => crate::engine::zstd::Zstd::contents(samples, 2 * len_max),
        _ => None,
    }
}

/// Unpacks what was packed as it was put; false if that fails: reading it will say why.
fn unpack(value: &codec::StoredValue<'_>, raw: &mut Vec<u8>) -> bool {
    raw.clear();
    if raw.try_reserve_exact(value.raw_len).is_err() {
        return false;
    }
    raw.resize(value.raw_len, 0);
    value.unpack(raw).is_ok()
}

impl Packer {
    fn new(codec: Codec, dictionary: Option<Arc<Dictionary>>, table: Table) -> Result<Packer> {
        codec.check_built()?;
        #[cfg(feature = "zstd")]
        let zstd = match codec {
            Codec::Zstd => {
                let with = dictionary.as_ref().and_then(|dictionary| dictionary.zstd());
                Some(crate::engine::zstd::Packer::new(with).ok_or_else(|| Error::no_memory("no memory to pack with: free memory"))?)
            }
            _ => None,
        };
        Ok(Packer {
            codec,
            dictionary,
            table,
            scratch: dense::Scratch::default(),
            #[cfg(feature = "zstd")]
            zstd,
            raw: Vec::new(),
            packed: Vec::new(),
            live_bytes: 0,
            raw_bytes: 0,
            packed_bytes: 0,
        })
    }

    /// Bytes that `values` have when packed.
    fn total(&mut self, values: &[&[u8]]) -> usize {
        values.iter().map(|value| if self.pack_raw(value).is_some() { self.packed.len() } else { value.len() }).sum()
    }

    /// A denser record for `record`; `None`: it is moved as it is.
    pub fn pack<'a>(&'a mut self, record: &Record<'a>) -> Option<Record<'a>> {
        let is_large = record.raw_len as usize > dense::RAW_LEN_MAX;
        let is_packed_so = record.codec == self.codec || (self.codec == Codec::Dense && is_large && record.codec == Codec::Lz4);
        if self.codec == Codec::None || is_packed_so {
            return None;
        }
        let codec = if record.codec == Codec::None {
            self.pack_raw(record.value)?
        } else {
            let mut raw = std::mem::take(&mut self.raw);
            let packed = if self.unpack(record, &mut raw) { self.pack_raw(&raw) } else { None };
            self.raw = raw;
            packed?
        };
        let dictionary = self.dictionary.as_ref().filter(|_| codec.names_dictionary()).map_or(0, |dictionary| dictionary.number);
        let packed = Record { codec, dictionary, raw_len: record.raw_len, value: &self.packed, ..*record };
        (packed.encoded_len() < record.encoded_len()).then_some(packed)
    }

    /// Unpacks what was packed otherwise; false if that fails: then it stays as it is, and reading it says why.
    fn unpack(&self, record: &Record<'_>, raw: &mut Vec<u8>) -> bool {
        stored_value(&self.table, record, "").is_ok_and(|value| unpack(&value, raw))
    }

    /// Packs `raw` into `packed`, by which codec; `None` if it does not get smaller.
    fn pack_raw(&mut self, raw: &[u8]) -> Option<Codec> {
        self.packed.clear();
        let limit = raw.len();
        let codec = match self.codec {
            Codec::Dense => match self.dictionary.as_ref().and_then(|dictionary| dictionary.dense()) {
                Some(dense) if raw.len() <= dense::RAW_LEN_MAX => {
                    dense.pack(raw, limit, &mut self.scratch, &mut self.packed).then_some(Codec::Dense)
                }
                // There is context enough in it, or there is none to be had.
                _ => self.pack_lz4(raw),
            },
            Codec::Lz4 => self.pack_lz4(raw),
            #[cfg(feature = "zstd")]
            Codec::Zstd => self.zstd.as_mut().and_then(|zstd| zstd.pack(raw, limit, &mut self.packed).then_some(Codec::Zstd)),
            _ => None,
        };
        self.raw_bytes += raw.len() as u64;
        self.packed_bytes += if codec.is_some() { self.packed.len() } else { raw.len() } as u64;
        codec
    }

    fn pack_lz4(&mut self, raw: &[u8]) -> Option<Codec> {
        let room = codec::compressed_len_max(raw.len());
        self.packed.try_reserve(room).ok()?;
        self.packed.resize(room, 0);
        let len = codec::compress(raw, &mut self.packed)?;
        self.packed.truncate(len);
        Some(Codec::Lz4)
    }
}
