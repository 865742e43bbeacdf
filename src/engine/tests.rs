//! The unpackers as a hostile-input surface: millions of damaged values, dictionaries and records, from fixed seeds.
//!
//! Whatever the bytes say, nothing panics, nothing is handed on that did not come from the value, and a second dense
//! decoder, written bit by bit from docs/FORMAT.md, says the same about each of them.

use super::codec::{Codec, Dictionary, StoredValue, compress, compressed_len_max};
use super::codes::Codes;
use super::dense::{Dense, PHRASES_LEN_MAX, RAW_LEN_MAX, Scratch, TABLES_LEN};
use super::record::Record;
use super::train;
use crate::base::random::Random;

/// The decoder of docs/FORMAT.md: one bit after the other.
struct BitByBit<'a> {
    /// By length and code, the byte.
    tables: Vec<Vec<Option<u8>>>,
    phrases: &'a [u8],
}

struct Reading<'a> {
    packed: &'a [u8],
    at_bit: usize,
}

impl<'a> BitByBit<'a> {
    fn new(contents: &'a [u8]) -> BitByBit<'a> {
        let (tables, phrases) = contents.split_at(TABLES_LEN);
        let table = |lens: &[u8]| {
            let mut table = vec![None; 12 << 11];
            let mut code = 0;
            for len in 1..12 {
                code *= 2;
                for byte in (0..=255u8).filter(|byte| lens[usize::from(byte / 2)] >> (4 * (byte % 2)) & 15 == len) {
                    table[usize::from(len) << 11 | code] = Some(byte);
                    code += 1;
                }
            }
            table
        };
        BitByBit { tables: tables.chunks(128).map(table).collect(), phrases }
    }

    fn symbol(&self, table: usize, from: &mut Reading<'_>) -> Option<usize> {
        let mut code = 0;
        for len in 1..12 {
            let bit = from.packed.get(from.at_bit / 8)? >> (7 - from.at_bit % 8) & 1;
            from.at_bit += 1;
            code = code << 1 | usize::from(bit);
            if let Some(byte) = self.tables[table][len << 11 | code] {
                return Some(usize::from(byte));
            }
        }
        unreachable!("no room is left over in a table");
    }

    fn length(&self, nibble: usize, from: &mut Reading<'_>) -> Option<usize> {
        let mut len = nibble;
        let mut more = if nibble == 15 { 255 } else { 0 };
        while more == 255 {
            more = self.symbol(0, from)?;
            len += more;
        }
        Some(len)
    }

    fn unpack(&self, packed: &[u8], raw_len: usize) -> Option<Vec<u8>> {
        let (mut raw, mut from) = (Vec::new(), Reading { packed, at_bit: 0 });
        while raw.len() < raw_len {
            let token = self.symbol(1, &mut from)?;
            for _ in 0..self.length(token >> 4, &mut from)? {
                raw.push(self.symbol(0, &mut from)? as u8);
                (raw.len() <= raw_len).then_some(())?;
            }
            if raw.len() == raw_len {
                break;
            }
            let place = 256 * self.symbol(2, &mut from)? + self.symbol(3, &mut from)?;
            let len = self.length(token & 15, &mut from)? + 4;
            (raw.len() + len <= raw_len).then_some(())?;
            match place.checked_sub(self.phrases.len()) {
                None => raw.extend_from_slice(self.phrases.get(place..place + len)?),
                Some(back) => {
                    for _ in 0..len {
                        raw.push(*raw.get(raw.len().checked_sub(back + 1)?)?);
                    }
                }
            }
        }
        let zeros_to_the_end = (from.at_bit..8 * packed.len()).all(|bit| packed[bit / 8] >> (7 - bit % 8) & 1 == 0);
        (from.at_bit.div_ceil(8) == packed.len() && zeros_to_the_end).then_some(raw)
    }
}

fn bytes(rng: &mut Random, len_max: u64) -> Vec<u8> {
    (0..rng.below(len_max + 1)).map(|_| rng.next_u64() as u8).collect()
}

fn text(rng: &mut Random) -> Vec<u8> {
    let city = ["Berlin", "Vienna", "Zurich", "Lisbon"][rng.below(4) as usize];
    format!("{{\"customer\":{},\"city\":\"{city}\",\"is_active\":{}}}", rng.below(10_000), rng.one_in(2)).into_bytes()
}

/// A value like those that are stored: a text, a row of them, a run, or noise.
fn value(rng: &mut Random) -> Vec<u8> {
    match rng.below(8) {
        0 => bytes(rng, 80),
        1 => vec![rng.next_u64() as u8; rng.below(900) as usize],
        2 => text(rng).repeat(1 + rng.below(6) as usize),
        3 => [text(rng), bytes(rng, 40), text(rng)].concat(),
        _ => text(rng),
    }
}

/// Contents of dictionaries: a trained one, one with even codes and no phrases, one with strange codes and all the phrases
/// there can be.
fn contents() -> [Vec<u8>; 3] {
    let mut rng = Random::new(1);
    let samples: Vec<Vec<u8>> = (0..300).map(|_| text(&mut rng)).collect();
    let samples: Vec<&[u8]> = samples.iter().map(|sample| &sample[..]).collect();
    let trained = Dense::contents(&train::phrases(&samples, 1500), &samples);
    let mut strange = Vec::new();
    for _ in 0..4 {
        strange.extend(Codes::fitting(&std::array::from_fn(|_| 1 << rng.below(24))).encode());
    }
    strange.extend((0..PHRASES_LEN_MAX).map(|_| rng.next_u64() as u8));
    [trained, Dense::contents(b"", &[]), strange]
}

/// Damages bytes in one to three places; may take some away or put some there.
fn damage(rng: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match (rng.below(8), bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, _) => bytes.insert(at, rng.next_u64() as u8),
            (2, Some(_)) => drop(bytes.remove(at)),
            (3, Some(byte)) => *byte = [0, 255][rng.below(2) as usize],
            (4, Some(byte)) => *byte = rng.next_u64() as u8,
            (_, Some(byte)) => *byte ^= 1 << rng.below(8),
            (_, None) => bytes.push(0),
        }
    }
}

/// Unpacks into memory that held something else: if it says that it is done, no byte of that is left.
fn unpack(value: &StoredValue<'_>, rng: &mut Random) -> Option<Vec<u8>> {
    let stale = rng.next_u64() as u8;
    let (mut one, mut other) = (vec![stale; value.raw_len], vec![!stale; value.raw_len]);
    let (done, again) = (value.unpack(&mut one).is_ok(), value.unpack(&mut other).is_ok());
    assert!(done == again && (!done || one == other), "what it is unpacked into shows through");
    done.then_some(one)
}

#[test]
fn the_example_of_the_format_is_read_as_it_says() {
    let contents = [&[0x88; TABLES_LEN][..], b"Berlin, Vienna"].concat();
    let (dense, reference) = (Dense::new(&contents).expect("is one"), BitByBit::new(&contents));
    let mut packed = [0x22, b'A', b'=', 0, 8, 0x10, b';', 0, 14];
    let mut out = [0; 13];
    assert!(dense.unpack(&packed, &mut out) && out == *b"A=Vienna;;;;;");
    assert_eq!(reference.unpack(&packed, 13).as_deref(), Some(&out[..]));
    for raw_len in (0..100).filter(|raw_len| *raw_len != 13) {
        assert!(!dense.unpack(&packed, &mut vec![0; raw_len]), "{raw_len}");
    }
    packed[0] = 0x24;
    assert!((0..100).all(|raw_len| !dense.unpack(&packed, &mut vec![0; raw_len])));
}

#[test]
fn a_million_damaged_values_are_refused_or_mean_what_the_format_says() {
    const ROUNDS: usize = 100_000;
    let (mut good, mut refused) = (0, 0);
    for contents in contents() {
        let dictionary = Dictionary::new(1, Codec::Dense, &contents).expect("is one");
        let (dense, reference) = (dictionary.dense().expect("is dense"), BitByBit::new(&contents));
        for seed in 0..4 {
            let (mut rng, mut scratch, mut packed) = (Random::new(seed), Scratch::default(), Vec::new());
            for round in 0..ROUNDS {
                let mut raw = value(&mut rng);
                if round % 5000 == 0 {
                    raw = raw.iter().copied().cycle().take(if raw.is_empty() { 0 } else { RAW_LEN_MAX }).collect();
                }
                packed.clear();
                assert!(dense.pack(&raw, usize::MAX, &mut scratch, &mut packed));
                let mut raw_len = raw.len();
                match rng.below(16) {
                    0 => assert_eq!(reference.unpack(&packed, raw_len).as_ref(), Some(&raw)),
                    1 => raw_len = rng.below(2 * raw.len() as u64 + 2).min(RAW_LEN_MAX as u64) as usize,
                    2 => packed = bytes(&mut rng, 60),
                    _ => damage(&mut rng, &mut packed),
                }
                let stored = StoredValue { codec: Codec::Dense, dictionary: Some(&dictionary), bytes: &packed, raw_len };
                let found = unpack(&stored, &mut rng);
                *(if found.is_some() { &mut good } else { &mut refused }) += 1;
                assert!(found == reference.unpack(&packed, raw_len), "seed {seed}, round {round}: {packed:?} as {raw_len} bytes");
            }
        }
    }
    assert!(good + refused >= 1_000_000 && good > 100_000 && refused > 100_000, "{good} {refused}");
}

#[test]
fn damaged_dictionaries_are_none_or_unpack_what_they_packed() {
    let (mut rng, mut scratch, mut packed) = (Random::new(2), Scratch::default(), Vec::new());
    let (mut good, mut refused) = (0, 0);
    let whole = contents();
    for _ in 0..40_000 {
        let mut contents = whole[rng.below(2) as usize].clone();
        // Most damage of a table leaves no code; that of two lengths may.
        match rng.below(3) {
            0 => damage(&mut rng, &mut contents),
            1 => (0..4).for_each(|_| contents.swap(rng.below(TABLES_LEN as u64) as usize, rng.below(TABLES_LEN as u64) as usize)),
            _ => contents.truncate(rng.below(contents.len() as u64 + 1) as usize),
        }
        let Some(dense) = Dense::new(&contents) else {
            refused += 1;
            continue;
        };
        good += 1;
        let raw = value(&mut rng);
        packed.clear();
        assert!(dense.pack(&raw, usize::MAX, &mut scratch, &mut packed));
        let mut out = vec![0; raw.len()];
        assert!(dense.unpack(&packed, &mut out) && out == raw);
        assert_eq!(BitByBit::new(&contents).unpack(&packed, raw.len()), Some(raw));
    }
    assert!(good > 1000 && refused > 1000, "{good} {refused}");
    assert!(Dense::new(&[&whole[2][..], b"more"].concat()).is_none(), "longer than places reach");
}

#[test]
fn damaged_values_of_the_other_codecs_do_no_harm_either() {
    let (mut rng, mut refused) = (Random::new(3), 0);
    for _ in 0..150_000 {
        let raw = text(&mut rng).repeat(1 + rng.below(6) as usize);
        let mut packed = vec![0; compressed_len_max(raw.len())];
        let len = compress(&raw, &mut packed).unwrap_or(0);
        packed.truncate(len);
        damage(&mut rng, &mut packed);
        let lz4 = StoredValue { codec: Codec::Lz4, dictionary: None, bytes: &packed, raw_len: raw.len() };
        refused += u32::from(unpack(&lz4, &mut rng).is_none());
    }
    assert!(refused > 50_000, "{refused}");
}

#[cfg(feature = "zstd")]
#[test]
fn damaged_frames_of_zstd_are_refused_or_unpack() {
    let mut rng = Random::new(4);
    let samples: Vec<Vec<u8>> = (0..3000).map(|_| text(&mut rng)).collect();
    let samples: Vec<&[u8]> = samples.iter().map(|sample| &sample[..]).collect();
    let contents = super::zstd::Zstd::contents(&samples, 4000).expect("are enough");
    let dictionary = Dictionary::new(1, Codec::Zstd, &contents).expect("is one");
    let mut refused = 0;
    for with in [None, Some(&dictionary)] {
        let mut packer = super::zstd::Packer::new(with.and_then(Dictionary::zstd)).expect("there is memory");
        for _ in 0..50_000 {
            let (raw, mut packed) = (text(&mut rng).repeat(1 + rng.below(6) as usize), Vec::new());
            packer.pack(&raw, 2 * raw.len(), &mut packed);
            damage(&mut rng, &mut packed);
            let stored = StoredValue { codec: Codec::Zstd, dictionary: with, bytes: &packed, raw_len: raw.len() };
            refused += u32::from(unpack(&stored, &mut rng).is_none());
        }
    }
    assert!(refused > 30_000, "{refused}");
}

#[test]
fn a_million_damaged_records_are_none_or_are_written_the_same_way() {
    let (mut rng, mut good, mut refused) = (Random::new(5), 0, 0);
    for round in 0..1_000_000 {
        let (key, value) = (bytes(&mut rng, 20), bytes(&mut rng, 30));
        let codec = Codec::from_number((round % 4) as u8).expect("there are four");
        let bits = rng.below(30);
        let raw_len = if codec == Codec::None { value.len() } else { rng.below(1 << bits) as usize };
        let record = Record {
            dictionary: if codec.names_dictionary() { rng.below(256) as u8 } else { 0 },
            expiry_ms: rng.one_in(2).then(|| rng.next_u64()),
            version: rng.one_in(4).then(|| rng.next_u64()),
            ..Record::put_packed(if key.is_empty() { b"k" } else { &key }, codec, &value, raw_len)
        };
        let mut written = vec![0; record.encoded_len()];
        record.encode(&mut written);
        damage(&mut rng, &mut written);
        let Ok((found, len)) = Record::parse(&written) else {
            refused += 1;
            continue;
        };
        good += 1;
        assert!(Record::declared_len(&written) == Some(len) && found.encoded_len() == len, "round {round}");
        let mut again = vec![0; len];
        found.encode(&mut again);
        assert_eq!(again[4..found.sum_end()], written[4..found.sum_end()], "round {round}");
    }
    assert!(good > 100_000 && refused > 100_000, "{good} {refused}");
}
