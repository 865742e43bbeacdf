//! Dense packing of small values: phrases of a dictionary, and codes that were chosen with it.
//!
//! Compaction packs with it, readers unpack; docs/FORMAT.md draws the bits. A value is a row of sequences as in LZ4
//! (literals, then a match), but a match names a place in the dictionary, and every byte of the sequences is written
//! as a prefix code of 1 to 11 bits. Tables and phrases come with the dictionary, so a value of 100 bytes pays for none
//! of them. Must never trust what it unpacks: whatever the bits say, it stays inside the value's declared length.

use super::codes::{Codes, Decoder};

/// Alphabets: what kind of byte stands in a sequence. The numbers are on disk.
const LITERAL: usize = 0;
const TOKEN: usize = 1;
const HIGH: usize = 2;
const LOW: usize = 3;
const ALPHABETS: usize = 4;

/// Bytes of the tables in a dictionary's contents.
pub const TABLES_LEN: usize = ALPHABETS * Codes::ENCODED_LEN;

/// Most bytes of phrases: the other half of the places are distances inside the value.
pub const PHRASES_LEN_MAX: usize = 32 << 10;

/// Longest value that is packed this way, in bytes: in a longer one there is context enough without a dictionary.
pub const RAW_LEN_MAX: usize = 64 << 10;

/// Shortest match, in bytes.
const MATCH_MIN: usize = 4;
const NIBBLE_MAX: usize = 15;

const HASH_BITS: u32 = 12;
const NOWHERE: u16 = u16::MAX;
/// Places in the dictionary that are tried for one match (more gains little and costs time: `make ratios`).
const TRIES: usize = 8;

/// Literals in a row after which the search for a match goes in larger steps.
const LITERALS_PER_STEP: usize = 32;

/// A dictionary, ready to pack and unpack with.
pub struct Dense {
    phrases: Vec<u8>,
    decoders: [Decoder; ALPHABETS],
    codes: [Codes; ALPHABETS],
    /// First place of each hash in the phrases, and for each place the one before with the same hash.
    heads: Vec<u16>,
    chain: Vec<u16>,
}

/// Memory of a packer, used again for each value.
#[derive(Default)]
pub struct Scratch {
    recent: Vec<u32>,
}

#[inline]
fn hash(bytes: &[u8], at: usize, bits: u32) -> Option<usize> {
    let word = bytes.get(at..at + MATCH_MIN)?.try_into().map(u32::from_le_bytes).ok()?;
    Some((word.wrapping_mul(2_654_435_761) >> (u32::BITS - bits)) as usize)
}

/// Bytes that `a` and `b` have in common in front.
#[inline]
fn common(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut len = 0;
    for (one, other) in words {
        let differ = u64::from_le_bytes(one.try_into().unwrap_or_default()) ^ u64::from_le_bytes(other.try_into().unwrap_or_default());
        if differ != 0 {
            return len + differ.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(one, other)| one == other).count()
}

impl Dense {
    /// Takes a dictionary's contents: tables, then phrases. `None`: it is none.
    pub fn new(contents: &[u8]) -> Option<Dense> {
        let (tables, phrases) = contents.split_at_checked(TABLES_LEN)?;
        if phrases.len() > PHRASES_LEN_MAX {
            return None;
        }
        let table = |alphabet: usize| Codes::decode(&tables[alphabet * Codes::ENCODED_LEN..][..Codes::ENCODED_LEN]);
        let codes = [table(LITERAL)?, table(TOKEN)?, table(HIGH)?, table(LOW)?];
        let mut dense = Dense {
            phrases: phrases.to_vec(),
            decoders: std::array::from_fn(|alphabet| codes[alphabet].decoder()),
            codes,
            heads: vec![NOWHERE; 1 << HASH_BITS],
            chain: vec![NOWHERE; phrases.len()],
        };
        for at in 0..phrases.len() {
            if let Some(hash) = hash(phrases, at, HASH_BITS) {
                dense.chain[at] = std::mem::replace(&mut dense.heads[hash], at as u16);
            }
        }
        Some(dense)
    }

    /// The contents of a dictionary of these phrases, with codes that fit the samples.
    pub fn contents(phrases: &[u8], samples: &[&[u8]]) -> Vec<u8> {
        let even = Codes::fitting(&[0; 256]).encode().repeat(ALPHABETS);
        let mut counts = [[0u32; 256]; ALPHABETS];
        if let Some(dense) = Dense::new(&[&even[..], phrases].concat()) {
            let mut scratch = Scratch::default();
            for sample in samples.iter().filter(|sample| sample.len() <= RAW_LEN_MAX) {
                dense.sequences(sample, &mut scratch, &mut |alphabet, byte| {
                    counts[alphabet][usize::from(byte)] += 1;
                    true
                });
            }
        }
        let tables: Vec<u8> = counts.iter().flat_map(|counts| Codes::fitting(counts).encode()).collect();
        [&tables[..], phrases].concat()
    }

    /// Packs `raw` behind what is in `out`; false, and `out` as it was, if that takes `limit` bytes or more.
    pub fn pack(&self, raw: &[u8], limit: usize, scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
        if raw.len() > RAW_LEN_MAX {
            return false;
        }
        let start = out.len();
        let (mut bits, mut filled) = (0u64, 0);
        let within = self.sequences(raw, scratch, &mut |alphabet, byte| {
            let (code, len) = self.codes[alphabet].code(byte);
            bits = bits << len | u64::from(code);
            filled += len;
            while filled >= 8 {
                filled -= 8;
                out.push((bits >> filled) as u8);
            }
            out.len() - start < limit
        });
        if filled > 0 {
            out.push((bits << (8 - filled)) as u8);
        }
        let smaller = within && out.len() - start < limit;
        if !smaller {
            out.truncate(start);
        }
        smaller
    }

    /// Takes `raw` apart and gives each byte of its sequences to `put`, as long as that says yes.
    fn sequences(&self, raw: &[u8], scratch: &mut Scratch, put: &mut impl FnMut(usize, u8) -> bool) -> bool {
        let bits = (usize::BITS - raw.len().leading_zeros()).clamp(6, HASH_BITS);
        scratch.recent.clear();
        scratch.recent.resize(1 << bits, 0);
        let recent = &mut scratch.recent[..];
        let (mut at, mut literals_from) = (0, 0);
        while at < raw.len() {
            let Some(mut found) = self.longest(raw, at, bits, recent) else {
                // The longer nothing is found, the larger the steps: what is random is not worth the search.
                at += 1 + (at - literals_from) / LITERALS_PER_STEP;
                continue;
            };
            // One byte later there may be a better one.
            if let Some(next) = self.longest(raw, at + 1, bits, recent).filter(|next| next.0 > found.0 + 1) {
                at += 1;
                found = next;
            }
            let (len, place) = found;
            if !sequence(&raw[literals_from..at], Some((len, place)), put) {
                return false;
            }
            for later in at + 2..at + len {
                note(raw, later, bits, recent);
            }
            at += len;
            literals_from = at;
        }
        literals_from == raw.len() || sequence(&raw[literals_from..], None, put)
    }

    /// The longest match at `at`: its length, and its place as it is written. Notes the place for later ones.
    #[inline]
    fn longest(&self, raw: &[u8], at: usize, bits: u32, recent: &mut [u32]) -> Option<(usize, u16)> {
        let in_phrases = hash(raw, at, HASH_BITS)?;
        let here = &raw[at..];
        let mut best = (MATCH_MIN - 1, 0);
        let mut place = self.heads[in_phrases];
        for _ in 0..TRIES {
            if place == NOWHERE {
                break;
            }
            let there = &self.phrases[usize::from(place)..];
            if there.get(best.0) == here.get(best.0) {
                let len = common(here, there);
                if len > best.0 {
                    best = (len, place);
                }
            }
            place = self.chain[usize::from(place)];
        }
        let earlier = note(raw, at, bits, recent);
        if let Some(distance) = earlier.map(|earlier| at - earlier)
            && self.phrases.len() + distance <= usize::from(u16::MAX)
        {
            let len = common(here, &raw[at - distance..]);
            if len > best.0 {
                best = (len, (self.phrases.len() + distance - 1) as u16);
            }
        }
        (best.0 >= MATCH_MIN).then_some(best)
    }

    /// Unpacks `packed` into `out`, which has exactly the raw length; false if the bits say anything else.
    pub fn unpack(&self, packed: &[u8], out: &mut [u8]) -> bool {
        self.try_unpack(packed, out).is_some()
    }

    fn try_unpack(&self, packed: &[u8], out: &mut [u8]) -> Option<()> {
        let mut bits = Bits { packed, next: 0, window: 0, filled: 0 };
        let mut at = 0;
        while at < out.len() {
            let token = usize::from(bits.symbol(&self.decoders[TOKEN])?);
            let literals = bits.length(token >> 4, &self.decoders[LITERAL], out.len())?;
            for byte in out.get_mut(at..at.checked_add(literals)?)? {
                *byte = bits.symbol(&self.decoders[LITERAL])?;
            }
            at += literals;
            if at == out.len() {
                break;
            }
            let high = bits.symbol(&self.decoders[HIGH])?;
            let low = bits.symbol(&self.decoders[LOW])?;
            let place = usize::from(u16::from_be_bytes([high, low]));
            let len = bits.length(token & NIBBLE_MAX, &self.decoders[LITERAL], out.len())? + MATCH_MIN;
            if let Some(distance) = (place + 1).checked_sub(self.phrases.len()).filter(|distance| *distance > 0) {
                copy_within(out, at, distance, len)?;
            } else {
                out.get_mut(at..at + len)?.copy_from_slice(self.phrases.get(place..place + len)?);
            }
            at += len;
        }
        bits.is_used_up().then_some(())
    }
}

/// Notes that the four bytes at `at` were seen there; where they may have been seen before.
#[inline]
fn note(raw: &[u8], at: usize, bits: u32, recent: &mut [u32]) -> Option<usize> {
    let slot = hash(raw, at, bits)?;
    let before = recent[slot] as usize;
    if before <= at {
        recent[slot] = at as u32 + 1;
    }
    before.checked_sub(1).filter(|before| *before < at)
}

/// Gives one sequence to `put`; without a match it is the last.
#[inline]
fn sequence(literals: &[u8], found: Option<(usize, u16)>, put: &mut impl FnMut(usize, u8) -> bool) -> bool {
    let more = found.map_or(0, |(len, _)| len - MATCH_MIN);
    let token = literals.len().min(NIBBLE_MAX) << 4 | more.min(NIBBLE_MAX);
    let mut good = put(TOKEN, token as u8) && length(literals.len(), put);
    for literal in literals {
        good = good && put(LITERAL, *literal);
    }
    let Some((_, place)) = found else { return good };
    let [high, low] = place.to_be_bytes();
    good && put(HIGH, high) && put(LOW, low) && length(more, put)
}

/// The bytes of a length that the token has no room for.
#[inline]
fn length(len: usize, put: &mut impl FnMut(usize, u8) -> bool) -> bool {
    let Some(mut rest) = len.checked_sub(NIBBLE_MAX) else { return true };
    while rest >= 255 {
        if !put(LITERAL, 255) {
            return false;
        }
        rest -= 255;
    }
    put(LITERAL, rest as u8)
}

/// Copies `len` bytes from `distance` before `at` to `at`; they may overlap.
#[inline]
fn copy_within(out: &mut [u8], at: usize, distance: usize, len: usize) -> Option<()> {
    let from = at.checked_sub(distance)?;
    let both = out.get_mut(from..at + len)?;
    if distance >= len {
        both.copy_within(..len, distance);
    } else {
        for i in distance..both.len() {
            both[i] = both[i - distance];
        }
    }
    Some(())
}

/// The packed bits, from the highest of each byte down.
struct Bits<'a> {
    packed: &'a [u8],
    next: usize,
    /// Bits that were taken from `packed` and not used, from the top.
    window: u64,
    filled: u32,
}

impl Bits<'_> {
    #[inline]
    fn symbol(&mut self, decoder: &Decoder) -> Option<u8> {
        if self.filled < Codes::LEN_MAX {
            while self.filled <= u64::BITS - 8
                && let Some(byte) = self.packed.get(self.next)
            {
                self.window |= u64::from(*byte) << (u64::BITS - 8 - self.filled);
                self.filled += 8;
                self.next += 1;
            }
        }
        let (symbol, len) = decoder.look(self.window);
        self.filled = self.filled.checked_sub(len)?;
        self.window <<= len;
        Some(symbol)
    }

    /// A length that begins with `nibble`; `None` if it is above `max`.
    #[inline]
    fn length(&mut self, nibble: usize, decoder: &Decoder, max: usize) -> Option<usize> {
        let mut len = nibble;
        if nibble == NIBBLE_MAX {
            loop {
                let more = self.symbol(decoder)?;
                len += usize::from(more);
                if len > max {
                    return None;
                }
                if more < u8::MAX {
                    break;
                }
            }
        }
        Some(len)
    }

    /// Whether nothing but the zeros that fill the last byte is left.
    fn is_used_up(&self) -> bool {
        self.next == self.packed.len() && self.filled < 8 && self.window == 0
    }
}
