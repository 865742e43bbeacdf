//! The keyed hash under which the index knows a key: SipHash-1-3 with 128 bits of output.
//!
//! The key of the hash is secret, drawn for each opened store or kept in its checkpoints, so nobody who cannot read the
//! store's files can choose keys that collide.
//! SipHash: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

#![allow(unsafe_code)]

mod words;

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use words::Words;
#[cfg(target_arch = "x86_64")]
use words::wide::Wide;

/// Keys that are best hashed side by side: one alone would wait for its own results most of the time, four still do.
pub const LANES: usize = 8;

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

    /// The hashes of several keys; quick for `LANES` of them, or half as many, if they are of one length.
    #[inline]
    pub fn hash_lanes<const N: usize>(&self, keys: [&[u8]; N]) -> [KeyHash; N] {
        let len = keys.first().map_or(0, |key| key.len());
        if keys.iter().any(|key| key.len() != len) {
            let mut hashes = [KeyHash::default(); N];
            let half = N.div_ceil(2).max(1);
            for (keys, hashes) in keys.chunks(half).zip(hashes.chunks_mut(half)) {
                match (keys.as_array::<4>(), hashes.as_mut_array()) {
                    // Each half may be of one length.
                    (Some(keys), Some(hashes)) => *hashes = self.hash_lanes(*keys),
                    _ => keys.iter().zip(hashes).for_each(|(key, hash)| *hash = self.hash(key)),
                }
            }
            return hashes;
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx2") {
            // SAFETY: the instructions are there.
            return unsafe { hash_lanes_avx512(self.halves, keys, len) };
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { hash_lanes_avx2(self.halves, keys, len) };
        }
        hash_words::<[u64; N], N>(self.halves, keys, len)
    }

    /// Hashes up to `LANES` keys, those that `key` gives by their numbers, as many as `hashes` has room for.
    #[inline]
    pub fn hash_up_to_lanes<'a>(&self, hashes: &mut [KeyHash], key: impl Fn(usize) -> &'a [u8]) {
        if let Some(all) = hashes.first_chunk_mut::<LANES>() {
            return *all = self.hash_lanes(std::array::from_fn(key));
        }
        let count = hashes.len();
        // The last of them more than once, where there are fewer.
        let key = |lane: usize| key(lane.min(count - 1));
        match count {
            0 => {}
            1 => hashes[0] = self.hash(key(0)),
            2..=4 => hashes.copy_from_slice(&self.hash_lanes::<4>(std::array::from_fn(key))[..count]),
            _ => hashes.copy_from_slice(&self.hash_lanes::<LANES>(std::array::from_fn(key))[..count]),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hash_lanes_avx2<const N: usize>(secret: [u64; 2], keys: [&[u8]; N], len: usize) -> [KeyHash; N] {
    match N {
        4 => hash_words::<Wide<1, false>, N>(secret, keys, len),
        8 => hash_words::<Wide<2, false>, N>(secret, keys, len),
        _ => hash_words::<[u64; N], N>(secret, keys, len),
    }
}

/// With an instruction that turns words, which is what half of the others are for; in registers that no CPU slows down for.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512vl")]
fn hash_lanes_avx512<const N: usize>(secret: [u64; 2], keys: [&[u8]; N], len: usize) -> [KeyHash; N] {
    match N {
        4 => hash_words::<Wide<1, true>, N>(secret, keys, len),
        8 => hash_words::<Wide<2, true>, N>(secret, keys, len),
        _ => hash_words::<[u64; N], N>(secret, keys, len),
    }
}

struct State<W>([W; 4]);

impl<W: Words> State<W> {
    #[inline(always)]
    fn round(&mut self) {
        let v = &mut self.0;
        v[0] = v[0].add(v[1]);
        v[1] = v[1].turn::<13, 51>().xor(v[0]);
        v[0] = v[0].swap_halves();
        v[2] = v[2].add(v[3]);
        v[3] = v[3].turn::<16, 48>().xor(v[2]);
        v[0] = v[0].add(v[3]);
        v[3] = v[3].turn::<21, 43>().xor(v[0]);
        v[2] = v[2].add(v[1]);
        v[1] = v[1].turn::<17, 47>().xor(v[2]);
        v[2] = v[2].swap_halves();
    }

    #[inline(always)]
    fn absorb(&mut self, word: W) {
        self.0[3] = self.0[3].xor(word);
        self.round();
        self.0[0] = self.0[0].xor(word);
    }

    #[inline(always)]
    fn squeeze(&mut self) -> W {
        self.round();
        self.round();
        self.round();
        let v = &self.0;
        v[0].xor(v[1]).xor(v[2]).xor(v[3])
    }
}

/// SipHash-1-3 with 128 bits of output, of keys that are all `len` bytes long.
// Loops and no closures: those would not be compiled for the instructions of the caller.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn hash_words<W: Words, const N: usize>(secret: [u64; 2], keys: [&[u8]; N], len: usize) -> [KeyHash; N] {
    let [k0, k1] = secret;
    let mut state = State([
        W::load(&[k0 ^ 0x736f_6d65_7073_6575; N]),
        W::load(&[k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee; N]),
        W::load(&[k0 ^ 0x6c79_6765_6e65_7261; N]),
        W::load(&[k1 ^ 0x7465_6462_7974_6573; N]),
    ]);
    let whole = len / 8 * 8;
    let mut lanes = [0; N];
    for at in (0..whole).step_by(8) {
        for lane in 0..N {
            lanes[lane] = word_of(&keys[lane][at..at + 8]);
        }
        state.absorb(W::load(&lanes));
    }
    for lane in 0..N {
        lanes[lane] = last_word_of(&keys[lane][whole..]) | (len as u64) << 56;
    }
    state.absorb(W::load(&lanes));
    state.0[2] = state.0[2].xor(W::load(&[0xee; N]));
    let (mut tags, mut spots) = ([0; N], [0; N]);
    state.squeeze().store(&mut tags);
    state.0[1] = state.0[1].xor(W::load(&[0xdd; N]));
    state.squeeze().store(&mut spots);
    let mut hashes = [KeyHash::default(); N];
    for lane in 0..N {
        hashes[lane] = KeyHash { tag: tags[lane], spot: spots[lane] };
    }
    hashes
}

/// Up to seven bytes as a word.
#[inline(always)]
fn last_word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[inline(always)]
fn word_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare<const N: usize>(hasher: &KeyHasher, keys: [&[u8]; N]) {
        let len = keys[0].len();
        let wanted = keys.map(|key| hasher.hash(key));
        assert_eq!(hasher.hash_lanes(keys), wanted, "{N} keys of {len} bytes");
        assert_eq!(hash_words::<[u64; N], N>(hasher.halves, keys, len), wanted, "{N} keys of {len} bytes, in no registers");
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the instructions are there.
            assert_eq!(unsafe { hash_lanes_avx2(hasher.halves, keys, len) }, wanted, "{N} keys of {len} bytes, by AVX2");
        }
    }

    #[test]
    fn side_by_side_is_the_same_as_one_by_one() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * 7 % 251) as u8).collect();
        let hasher = KeyHasher::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        for len in 0..70 {
            let keys = [0, 3, 111, 200, 7, 55, 131, 300].map(|from| &bytes[from..from + len]);
            compare::<LANES>(&hasher, keys);
            compare(&hasher, [keys[1], keys[0], keys[7], keys[4]]);
            compare(&hasher, [keys[2], keys[5], keys[3]]);
            compare(&hasher, [keys[6]]);
            let mut mixed = keys;
            mixed[2] = &bytes[..9];
            mixed[5] = &bytes[..1];
            assert_eq!(hasher.hash_lanes(mixed), mixed.map(|key| hasher.hash(key)));
        }
        assert!(hasher.hash_lanes([]).is_empty());
        for count in 0..=LANES {
            let mut hashes = vec![KeyHash::default(); count];
            let key = |at: usize| &bytes[at..at + 16 + at / 6];
            hasher.hash_up_to_lanes(&mut hashes, key);
            assert!((0..count).all(|at| hashes[at] == hasher.hash(key(at))), "{count} of them");
        }
    }
}
