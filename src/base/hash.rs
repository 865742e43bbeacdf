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

type Lanes = [u64; LANES];

#[inline(always)]
fn each(a: Lanes, b: Lanes, f: impl Fn(u64, u64) -> u64) -> Lanes {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

#[inline(always)]
fn round(v: &mut [Lanes; 4]) {
    let add = |a, b| each(a, b, u64::wrapping_add);
    let turn_xor = |a: Lanes, by, b| each(a, b, |a, b| a.rotate_left(by) ^ b);
    v[0] = add(v[0], v[1]);
    v[1] = turn_xor(v[1], 13, v[0]);
    v[0] = v[0].map(|x| x.rotate_left(32));
    v[2] = add(v[2], v[3]);
    v[3] = turn_xor(v[3], 16, v[2]);
    v[0] = add(v[0], v[3]);
    v[3] = turn_xor(v[3], 21, v[0]);
    v[2] = add(v[2], v[1]);
    v[1] = turn_xor(v[1], 17, v[2]);
    v[2] = v[2].map(|x| x.rotate_left(32));
}

/// SipHash-1-3 with 128 bits of output, of keys that are all `len` bytes long.
#[inline(always)]
fn hash_lanes(secret: [u64; 2], keys: [&[u8]; LANES], len: usize) -> [KeyHash; LANES] {
    let [k0, k1] = secret;
    let mut v = [
        [k0 ^ 0x736f_6d65_7073_6575; LANES],
        [k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee; LANES],
        [k0 ^ 0x6c79_6765_6e65_7261; LANES],
        [k1 ^ 0x7465_6462_7974_6573; LANES],
    ];
    let mut absorb = |word: Lanes| {
        v[3] = each(v[3], word, |a, b| a ^ b);
        round(&mut v);
        v[0] = each(v[0], word, |a, b| a ^ b);
    };
    let mut at = 0;
    while at + 8 <= len {
        absorb(keys.map(|key| word_of(&key[at..at + 8])));
        at += 8;
    }
    absorb(keys.map(|key| {
        let mut last = [0; 8];
        last[..len - at].copy_from_slice(&key[at..len]);
        word_of(&last) | (len as u64) << 56
    }));
    v[2] = v[2].map(|x| x ^ 0xee);
    let mut half = || {
        (0..3).for_each(|_| round(&mut v));
        let half: Lanes = std::array::from_fn(|lane| v[0][lane] ^ v[1][lane] ^ v[2][lane] ^ v[3][lane]);
        v[1] = v[1].map(|x| x ^ 0xdd);
        half
    };
    let (tags, spots) = (half(), half());
    std::array::from_fn(|lane| KeyHash { tag: tags[lane], spot: spots[lane] })
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
