//! The keyed hash under which the index knows a key: SipHash-1-3 with 128 bits of output.
//!
//! The key of the hash is secret, drawn for each opened store or kept in its checkpoints, so nobody who cannot read the
//! store's files can choose keys that collide.
//! SipHash: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

#![allow(unsafe_code)]

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Keys that are hashed side by side: one alone would wait for its own results most of the time.
pub const LANES: usize = 4;

/// The hash of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// Kept in the index entry.
    pub tag: u64,
    /// Chooses the place in the index.
    pub spot: u64,
}

/// Hashes keys with a secret of its own.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    secret: SipHasher13,
    halves: [u64; 2],
}

impl KeyHasher {
    /// A hasher with the given secret.
    pub fn new(secret: [u64; 2]) -> Self {
        KeyHasher { secret: SipHasher13::new_with_keys(secret[0], secret[1]), halves: secret }
    }

    /// The hash of `key`.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.secret;
        hasher.write(key);
        let h = hasher.finish128();
        KeyHash { tag: h.h1, spot: h.h2 }
    }

    /// The hashes of several keys; quick if they are of one length.
    #[inline]
    pub fn hash_lanes(&self, keys: [&[u8]; LANES]) -> [KeyHash; LANES] {
        let len = keys[0].len();
        if keys.iter().any(|key| key.len() != len) {
            return keys.map(|key| self.hash(key));
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the instructions are there.
            return unsafe { hash_lanes_avx2(self.halves, keys, len) };
        }
        hash_lanes(self.halves, keys, len)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hash_lanes_avx2(secret: [u64; 2], keys: [&[u8]; LANES], len: usize) -> [KeyHash; LANES] {
    hash_lanes(secret, keys, len)
}

/// A word of each key.
#[derive(Clone, Copy)]
struct Lanes([u64; LANES]);

// Loops and no closures: those would not be compiled for the wider instructions of their caller.
impl Lanes {
    #[inline(always)]
    fn all(word: u64) -> Lanes {
        Lanes([word; LANES])
    }

    #[inline(always)]
    fn add(mut self, other: Lanes) -> Lanes {
        for lane in 0..LANES {
            self.0[lane] = self.0[lane].wrapping_add(other.0[lane]);
        }
        self
    }

    #[inline(always)]
    fn xor(mut self, other: Lanes) -> Lanes {
        for lane in 0..LANES {
            self.0[lane] ^= other.0[lane];
        }
        self
    }

    #[inline(always)]
    fn turn(mut self, bits: u32) -> Lanes {
        for lane in 0..LANES {
            self.0[lane] = self.0[lane].rotate_left(bits);
        }
        self
    }
}

struct State([Lanes; 4]);

impl State {
    #[inline(always)]
    fn round(&mut self) {
        let v = &mut self.0;
        v[0] = v[0].add(v[1]);
        v[1] = v[1].turn(13).xor(v[0]);
        v[0] = v[0].turn(32);
        v[2] = v[2].add(v[3]);
        v[3] = v[3].turn(16).xor(v[2]);
        v[0] = v[0].add(v[3]);
        v[3] = v[3].turn(21).xor(v[0]);
        v[2] = v[2].add(v[1]);
        v[1] = v[1].turn(17).xor(v[2]);
        v[2] = v[2].turn(32);
    }

    #[inline(always)]
    fn absorb(&mut self, word: Lanes) {
        self.0[3] = self.0[3].xor(word);
        self.round();
        self.0[0] = self.0[0].xor(word);
    }

    #[inline(always)]
    fn squeeze(&mut self) -> Lanes {
        self.round();
        self.round();
        self.round();
        let v = &self.0;
        v[0].xor(v[1]).xor(v[2]).xor(v[3])
    }
}

/// SipHash-1-3 with 128 bits of output, of keys that are all `len` bytes long.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // see `Lanes`
fn hash_lanes(secret: [u64; 2], keys: [&[u8]; LANES], len: usize) -> [KeyHash; LANES] {
    let [k0, k1] = secret;
    let mut state = State([
        Lanes::all(k0 ^ 0x736f_6d65_7073_6575),
        Lanes::all(k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee),
        Lanes::all(k0 ^ 0x6c79_6765_6e65_7261),
        Lanes::all(k1 ^ 0x7465_6462_7974_6573),
    ]);
    let mut word = Lanes::all(0);
    let mut at = 0;
    while at + 8 <= len {
        for lane in 0..LANES {
            word.0[lane] = word_of(&keys[lane][at..at + 8]);
        }
        state.absorb(word);
        at += 8;
    }
    for lane in 0..LANES {
        let mut last = [0; 8];
        last[..len - at].copy_from_slice(&keys[lane][at..len]);
        word.0[lane] = word_of(&last) | (len as u64) << 56;
    }
    state.absorb(word);
    state.0[2] = state.0[2].xor(Lanes::all(0xee));
    let tags = state.squeeze();
    state.0[1] = state.0[1].xor(Lanes::all(0xdd));
    let spots = state.squeeze();
    let mut hashes = [KeyHash::default(); LANES];
    for lane in 0..LANES {
        hashes[lane] = KeyHash { tag: tags.0[lane], spot: spots.0[lane] };
    }
    hashes
}

#[inline(always)]
fn word_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_is_the_same_as_one_by_one() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * 7 % 251) as u8).collect();
        let hasher = KeyHasher::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        for len in 1..70 {
            let keys = [0, 3, 111, 200].map(|from| &bytes[from..from + len]);
            assert_eq!(hasher.hash_lanes(keys), keys.map(|key| hasher.hash(key)), "{len} bytes");
            assert_eq!(hash_lanes(hasher.halves, keys, len), keys.map(|key| hasher.hash(key)), "{len} bytes, without AVX2");
            let mixed = [&bytes[..len], &bytes[..1], &bytes[..9], &bytes[..len]];
            assert_eq!(hasher.hash_lanes(mixed), mixed.map(|key| hasher.hash(key)));
        }
    }
}
