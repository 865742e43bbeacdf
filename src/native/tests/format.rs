//! A second reader of a store's files, written from docs/FORMAT.md alone: it shares no code with the engine but the
//! checksum, and has to come to the same state or to the same refusal, on whole, crashed and damaged stores.

use super::driver::{open, state_of};
use super::model::{KEYS, State, key_bytes, version_of};
use super::workload::Workload;
use crate::base::crc::{crc32c, extend};
use crate::base::random::Random;
use crate::engine::Codec;
use crate::io::sim::{Faults, SimDisk, Survival};
use crate::native::Options;
use std::collections::BTreeMap;

/// Why a store is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Damaged,
    Newer,
    Foreign,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

struct Chunk {
    bytes: Vec<u8>,
}

impl Chunk {
    fn number(&self) -> u64 {
        u64_at(&self.bytes, 40)
    }
    fn before(&self) -> u64 {
        u64_at(&self.bytes, 56)
    }
    /// Where the log stood before it: chunk, bytes that count, sequence number, digest.
    fn end_before(&self) -> Option<[u64; 4]> {
        if u64_at(&self.bytes, 16) == 0 {
            return Some(std::array::from_fn(|field| u64_at(&self.bytes, 56 + 8 * field)));
        }
        let first = self.header(4096).filter(|first| first[3] == 1)?;
        Some([self.before(), u64::MAX, u64_at(first, 8) - 1, u64_at(first, 40)])
    }
    fn watermark(&self) -> u64 {
        u64_at(&self.bytes, 88)
    }
    fn salt(&self, offset: usize) -> u32 {
        let id = &self.bytes[24..40];
        let chunk_salt = mix(u64_at(id, 0) ^ mix(u64_at(id, 8) ^ mix(self.number())));
        (mix(chunk_salt ^ offset as u64) >> 32) as u32
    }

    /// The frame header at `at`, if it has a good sum.
    fn header(&self, at: usize) -> Option<&[u8]> {
        let header = self.bytes.get(at..at + 64)?;
        let sum = extend(crc32c(&header[..4]), &header[8..]) ^ self.salt(at);
        (header[..3] == *b"KVF" && (1..=3).contains(&header[3]) && u32_at(header, 4) == sum && u64_at(header, 56) == 0).then_some(header)
    }
}

type Dictionaries = BTreeMap<u8, Dictionary>;

/// A dictionary for dense values.
struct Dictionary {
    /// By length and code, the byte; for literals, tokens, high and low halves of places.
    tables: [BTreeMap<(u32, u32), u8>; 4],
    phrases: Vec<u8>,
}

impl Dictionary {
    fn read(disk: &SimDisk, number: u8) -> Option<Dictionary> {
        let bytes = disk.read_raw(&format!("dictionary-{number:016x}.kvb"))?;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let contents = [first, second].into_iter().find_map(|copy| {
            let contents = copy.get(64..)?.get(..u64_at(copy, 40).min(65536) as usize)?;
            let good = copy[..8] == *b"\x89KVD\r\n\x1a\n"
                && (u32_at(copy, 8), u32_at(copy, 12), u64_at(copy, 32)) == (1, 2, number.into())
                && extend(extend(extend(crc32c(&copy[..56]), &[0; 4]), &copy[60..64]), contents) == u32_at(copy, 56);
            good.then_some(contents)
        })?;
        let table = |lens: &[u8]| {
            let (mut code, mut table) = (0, BTreeMap::new());
            for len in 1..12 {
                code *= 2;
                for byte in (0..=255u8).filter(|byte| u32::from(lens[usize::from(byte / 2)] >> (4 * (byte % 2)) & 15) == len) {
                    table.insert((len, code), byte);
                    code += 1;
                }
            }
            table
        };
        Some(Dictionary { tables: std::array::from_fn(|i| table(&contents[128 * i..])), phrases: contents[512..].to_vec() })
    }

    /// Unpacks what stands behind a dictionary's number.
    fn unpack(&self, stored: &[u8]) -> Vec<u8> {
        let lens = stored.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let raw_len = stored[..lens].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        let mut bits = stored[lens..].iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
        let mut symbol = |table: usize| {
            let (mut len, mut code) = (0, 0);
            loop {
                (len, code) = (len + 1, code << 1 | bits.next().expect("a whole code"));
                if let Some(byte) = self.tables[table].get(&(len, code)) {
                    return usize::from(*byte);
                }
            }
        };
        let length = |nibble: usize, symbol: &mut dyn FnMut(usize) -> usize| {
            let mut len = nibble;
            let mut more = if nibble == 15 { 255 } else { 0 };
            while more == 255 {
                more = symbol(0);
                len += more;
            }
            len
        };
        let mut raw = Vec::new();
        while raw.len() < raw_len {
            let token = symbol(1);
            let literals = length(token >> 4, &mut symbol);
            raw.extend((0..literals).map(|_| symbol(0) as u8));
            if raw.len() == raw_len {
                break;
            }
            let place = 256 * symbol(2) + symbol(3);
            let len = length(token & 15, &mut symbol) + 4;
            for i in 0..len {
                let byte = match place.checked_sub(self.phrases.len()) {
                    None => self.phrases[place + i],
                    Some(back) => raw[raw.len() - back - 1],
                };
                raw.push(byte);
            }
        }
        assert_eq!(raw.len(), raw_len);
        let padding: Vec<u32> = bits.collect();
        assert!(padding.len() < 8 && !padding.contains(&1), "zeros fill the last byte");
        raw
    }
}

/// A put (with its value) or a delete (without).
type Change = (Vec<u8>, Option<Vec<u8>>);

#[derive(Default)]
struct Store {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    last_seq: u64,
    digest: u64,
    /// The chunk in which the log ends.
    end_chunk: u64,
    watermark: u64,
    dictionaries: Dictionaries,
}

impl Store {
    /// The records between `at` and `end`, and their checksum fields.
    fn records(dictionaries: &Dictionaries, chunk: &Chunk, mut at: usize, end: usize) -> Option<(Vec<Change>, Vec<u8>)> {
        let (mut changes, mut sums) = (Vec::new(), Vec::new());
        while at < end {
            let bytes = chunk.bytes.get(at..end)?;
            let (kind, flags) = (*bytes.get(10)?, *bytes.get(11)?);
            let (value_len, key_len) = (u32_at(bytes, 4) as usize, u16_at(bytes, 8));
            // The simulator's stores hold no expiry and no version.
            if !(1..=2).contains(&kind) || flags > 2 || key_len == 0 {
                return None;
            }
            let key_at = if flags == 1 { 16 } else { 12 };
            let sum_end = key_at + key_len + value_len;
            let len = sum_end.next_multiple_of(8);
            if len > bytes.len() || crc32c(&bytes[4..sum_end]) ^ chunk.salt(at) != u32_at(bytes, 0) {
                return None;
            }
            sums.extend_from_slice(&bytes[..4]);
            let key = bytes[key_at..key_at + key_len].to_vec();
            let stored = &bytes[key_at + key_len..sum_end];
            let value = match flags {
                0 => stored.to_vec(),
                1 => lz4_flex::block::decompress(stored, u32_at(bytes, 12) as usize).unwrap(),
                // Without it the store is refused in the end.
                _ => dictionaries.get(&stored[0]).map_or(Vec::new(), |dictionary| dictionary.unpack(&stored[1..])),
            };
            changes.push((key, (kind == 1).then_some(value)));
            at += len;
        }
        Some((changes, sums))
    }

    /// Takes in the frame at `at` if it is the next one; returns where it ends.
    fn frame(&mut self, chunk: &Chunk, at: usize, limit: usize) -> Option<usize> {
        let header = chunk.header(at)?;
        let (kind, first_seq, payload_len) = (u64::from(header[3]), u64_at(header, 8), u64_at(header, 24));
        let (records, batches) = (u32_at(header, 32), u32_at(header, 36));
        let table_end = at + 64 + 16 * batches as usize;
        let end = table_end.checked_add(usize::try_from(payload_len).ok()?)?;
        if end > limit || u64_at(header, 40) != self.digest || first_seq <= self.last_seq {
            return None;
        }
        let table = &chunk.bytes[at + 64..table_end];
        let (changes, sums) = Store::records(&self.dictionaries, chunk, table_end, end)?;
        let listed: u64 = table.chunks(16).map(|entry| u64::from(u32_at(entry, 8))).sum();
        let sums = extend(crc32c(&sums), table);
        let shape = mix(first_seq ^ mix(payload_len ^ kind << 56));
        let digest = mix(self.digest ^ mix(u64::from(sums) ^ shape));
        if changes.len() as u64 != listed || listed != u64::from(records) || digest != u64_at(header, 48) {
            return None;
        }
        self.watermark = self.watermark.max(u64_at(header, 16));
        if kind == 1 {
            self.last_seq = first_seq + u64::from(records) - 1;
            self.digest = digest;
            self.end_chunk = chunk.number();
            for (key, value) in changes {
                match value {
                    Some(value) => self.values.insert(key, value),
                    None => self.values.remove(&key),
                };
            }
        }
        Some(end)
    }
}

/// What the manifest in force says: what it covers, the newest chunk, and the ends of the chunks it names.
#[derive(Default)]
struct Manifest {
    covers: u64,
    newest: u64,
    watermark: u64,
    ends: Vec<[u64; 4]>,
}

fn read_manifest(disk: &SimDisk) -> Option<Manifest> {
    let names = disk.list_files().into_iter().filter(|name| name.starts_with("manifest-")).rev();
    names.into_iter().find_map(|name| {
        let bytes = disk.read_raw(&name)?;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let copy = [first, second].into_iter().find(|copy| {
            let entries_end = copy.get(12..16).map_or(usize::MAX, |_| 72 + 32 * u32_at(copy, 12) as usize + 24 * u32_at(copy, 68) as usize);
            copy.len() >= entries_end
                && copy[..8] == *b"\x89KVM\r\n\x1a\n"
                && u32_at(copy, 8) == 1
                && extend(extend(crc32c(&copy[..64]), &[0; 4]), &copy[68..entries_end]) == u32_at(copy, 64)
                && name == format!("manifest-{:016x}.kvb", u64_at(copy, 32))
        })?;
        let end = |i: usize| std::array::from_fn(|field| u64_at(copy, 72 + 32 * i + 8 * field));
        let ends = (0..u32_at(copy, 12) as usize).map(end).collect();
        Some(Manifest { covers: u64_at(copy, 40), newest: u64_at(copy, 48), watermark: u64_at(copy, 56), ends })
    })
}

fn read_store(disk: &SimDisk) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Refused> {
    let mut chunks = BTreeMap::new();
    for name in disk.list_files().into_iter().filter(|name| name.starts_with("chunk-")) {
        let bytes = disk.read_raw(&name).unwrap();
        let good = bytes.len() >= 4096 && bytes[..8] == *b"\x89KVB\r\n\x1a\n" && crc32c(&bytes[..4092]) == u32_at(&bytes, 4092);
        let chunk = Chunk { bytes };
        if !good && chunk.bytes.len() > 4096 {
            return Err(Refused::Damaged);
        }
        if good && (u32_at(&chunk.bytes, 12) > 1 || u64_at(&chunk.bytes, 16) > 1) {
            return Err(Refused::Newer);
        }
        if good && name != format!("chunk-{:016x}.kvb", chunk.number()) {
            return Err(Refused::Damaged);
        }
        if good {
            chunks.insert(chunk.number(), chunk);
        }
    }
    let id = |chunk: &Chunk| chunk.bytes[24..40].to_vec();
    if chunks.values().any(|chunk| id(chunk) != id(chunks.values().next().unwrap())) {
        return Err(Refused::Foreign);
    }
    let manifest = read_manifest(disk).unwrap_or_default();
    let mut wanted = chunks.keys().next_back().copied().unwrap_or(0);
    let any_manifest = disk.list_files().iter().any(|name| name.starts_with("manifest-"));
    let any_dictionary = disk.list_files().iter().any(|name| name.starts_with("dictionary-"));
    if wanted < manifest.newest || (wanted == 0 && (any_manifest || any_dictionary)) {
        return Err(Refused::Damaged);
    }
    while wanted != 0 && u64_at(&chunks[&wanted].bytes, 16) == 1 && chunks[&wanted].bytes.len() == 4096 {
        let before = chunks[&wanted].before();
        if before > manifest.covers && !chunks.contains_key(&before) {
            return Err(Refused::Damaged);
        }
        chunks.remove(&wanted);
        wanted = chunks.keys().next_back().copied().unwrap_or(0);
    }
    // Chunks with their ends, where the manifest says them.
    let mut chain: Vec<(&Chunk, Option<[u64; 4]>)> = Vec::new();
    while wanted > manifest.covers {
        let chunk = chunks.get(&wanted).ok_or(Refused::Damaged)?;
        chain.push((chunk, None));
        wanted = chunk.before();
    }
    for end in manifest.ends.iter().rev() {
        chain.push((chunks.get(&end[0]).ok_or(Refused::Damaged)?, Some(*end)));
    }
    chain.reverse();
    let names = |chunk: &Chunk, n: u8| chunk.bytes[104 + usize::from(n / 8)] >> (n % 8) & 1 == 1;
    let dictionaries: Dictionaries = (1..=255u8).filter_map(|n| Some((n, Dictionary::read(disk, n)?))).collect();
    let mut store = Store { dictionaries, watermark: manifest.watermark, ..Store::default() };
    for (i, (chunk, named_end)) in chain.iter().enumerate() {
        store.watermark = store.watermark.max(chunk.watermark());
        let follows = if i == 0 { chunk.before() == 0 } else { chain[i - 1].0.number() == chunk.before() };
        if !follows {
            [store.end_chunk, _, store.last_seq, store.digest] = chunk.end_before().ok_or(Refused::Damaged)?;
            store.watermark = store.watermark.max(store.last_seq);
        }
        let end_said = named_end.or(chain.get(i + 1).and_then(|(next, _)| next.end_before()));
        let limit = end_said.map_or(chunk.bytes.len(), |end| chunk.bytes.len().min(end[1] as usize));
        let mut at = 4096;
        let places = |at: usize| [at, at.next_multiple_of(4096), at.next_multiple_of(4096) + 4096];
        while let Some(end) = places(at).into_iter().find_map(|at| store.frame(chunk, at, limit)) {
            at = end;
        }
        store.watermark = store.watermark.max(named_end.map_or(0, |end| end[2]));
        let ends_well = match end_said {
            Some([_, _, last_seq, digest]) => last_seq == store.last_seq && digest == store.digest,
            None => chunk.bytes[at.min(chunk.bytes.len())..].iter().all(|byte| *byte == 0),
        };
        if ends_well {
            continue;
        }
        let mut evidence = store.watermark;
        for (j, (later, _)) in chain[i..].iter().enumerate() {
            evidence = evidence.max(later.watermark());
            let from = if j == 0 { at } else { 4096 };
            let headers = (from.next_multiple_of(8)..later.bytes.len()).step_by(8).filter_map(|at| later.header(at));
            evidence = headers.map(|header| u64_at(header, 16)).fold(evidence, u64::max);
        }
        if evidence > store.last_seq {
            return Err(Refused::Damaged);
        }
        break;
    }
    let newest = chain.last().map_or(0, |(newest, _)| newest.watermark());
    if manifest.watermark.max(newest) > store.last_seq {
        return Err(Refused::Damaged);
    }
    let is_missing = |n: &u8| !store.dictionaries.contains_key(n);
    for number in (1..=255u8).filter(is_missing) {
        if chain.iter().any(|(chunk, _)| chunk.number() <= store.end_chunk && names(chunk, number)) {
            return Err(Refused::Damaged);
        }
    }
    Ok(store.values)
}

fn state_by_format(disk: &SimDisk) -> Result<State, Refused> {
    let values = read_store(disk)?;
    let known: Vec<Vec<u8>> = (0..KEYS).map(key_bytes).collect();
    assert!(values.keys().all(|key| known.contains(key)), "a key that nobody put there");
    Ok(std::array::from_fn(|key| values.get(&known[key]).map_or(0, |value| version_of(key, value).expect("a good value"))))
}

/// Both readers say the same.
fn compare(disk: &SimDisk) -> bool {
    let expected = state_by_format(disk);
    let found = open(&disk.twin(), options()).and_then(|engine| state_of(&engine));
    assert!(found.as_ref().ok() == expected.as_ref().ok(), "the engine says {found:?}, the format says {expected:?}");
    expected.is_err()
}

fn options() -> Options {
    super::workload::options(1 << 20, 0)
}

#[test]
fn two_readers_agree() {
    let (mut looks, mut refusals) = (0, 0);
    for seed in 0..60 {
        let mut rng = Random::new(seed);
        let mut workload = Workload::draw(seed);
        if workload.options.compacted_codec == Codec::Zstd {
            workload.options.compacted_codec = Codec::Dense; // zstd's frames are described elsewhere
        }
        let whole = workload.new_disk();
        workload.run(&whole, [0; KEYS], true).unwrap();
        compare(&whole.kill_image());
        for _ in 0..20 {
            let disk = workload.new_disk();
            disk.crash_at(1 + rng.below(whole.steps()));
            let _ = workload.run(&disk, [0; KEYS], true);
            let survival = Survival::draw(&mut rng);
            let image = disk.crash_image(&mut rng, survival);
            image.set_faults(Faults::default());
            looks += 1;
            refusals += u32::from(compare(&image));
            // An engine that begins with a checkpoint does not look at all that lies before it, and so cannot refuse it.
            let checkpoints = image.list_files().into_iter().filter(|name| name.starts_with("index-"));
            checkpoints.for_each(|name| assert!(image.remove_raw(&name)));
            for _ in 0..3 {
                let names: Vec<String> = image.list_files().into_iter().filter(|name| name.starts_with("chunk-")).collect();
                let Some(name) = names.get(rng.below(names.len() as u64) as usize) else { break };
                let len = image.read_raw(name).unwrap().len() as u64;
                let dictionary = image.list_files().into_iter().find(|name| name.starts_with("dictionary-"));
                match (rng.below(4), dictionary.filter(|_| rng.one_in(6))) {
                    (0, Some(dictionary)) => drop(image.flip_bit(&dictionary, 70, 1)), // the other copy will do
                    (_, Some(dictionary)) => assert!(image.remove_raw(&dictionary)),
                    (n, None) => match n {
                        0 => assert!(image.truncate_raw(name, rng.below(len + 1))),
                        1 => assert!(image.remove_raw(name)),
                        _ => drop(image.flip_bit(name, rng.below(len.max(1)), rng.below(8) as u32)),
                    },
                }
                looks += 1;
                refusals += u32::from(compare(&image));
            }
        }
    }
    assert!(looks > 4000 && refusals > 400, "{refusals} of {looks}");
}
