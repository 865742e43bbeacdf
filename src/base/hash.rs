//! The keyed hash under which the index knows a key: SipHash-1-3 with 128 bits of output.
//!
//! The key of the hash is secret, drawn for each opened store or kept in its checkpoints, so nobody who cannot read the
//! store's files can choose keys that collide.
//! SipHash: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

#![allow(unsafe_code)]

use siphasher::sip128::{Hasher128, SipHasher13};
use std::array;
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
        hash_words::<Lanes>(self.halves, keys, len)
    }
}

/// A word of each key.
type Lanes = [u64; LANES];

/// Calculating with a word of each key at a time.
trait Words: Copy {
    fn load(lanes: Lanes) -> Self;
    fn store(self) -> Lanes;
    fn add(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// Turns each word to the left; `REST` is what is left of 64 bits.
    fn turn<const BITS: i32, const REST: i32>(self) -> Self;
    fn swap_halves(self) -> Self;

    #[inline(always)]
    fn all(word: u64) -> Self {
        Self::load([word; LANES])
    }
}

impl Words for Lanes {
    #[inline(always)]
    fn load(lanes: Lanes) -> Self {
        lanes
    }

    #[inline(always)]
    fn store(self) -> Lanes {
        self
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        array::from_fn(|lane| self[lane].wrapping_add(other[lane]))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        array::from_fn(|lane| self[lane] ^ other[lane])
    }

    #[inline(always)]
    fn turn<const BITS: i32, const REST: i32>(self) -> Self {
        self.map(|word| word.rotate_left(BITS as u32))
    }

    #[inline(always)]
    fn swap_halves(self) -> Self {
        self.map(|word| word.rotate_left(32))
    }
}

/// Four words side by side in a register. Said outright: left to the compiler, `Lanes` came out one word after the other.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Lanes, Words};
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_or_si256, _mm256_shuffle_epi32, _mm256_slli_epi64, _mm256_srli_epi64,
        _mm256_storeu_si256, _mm256_xor_si256,
    };

    /// Only to be used where AVX2 is there: all of it is compiled into `hash_lanes_avx2`.
    #[derive(Clone, Copy)]
    pub(super) struct Wide(__m256i);

    // SAFETY, for all of it: the instructions are there, as nobody else uses this type, and the arrays are as large as a register.
    impl Words for Wide {
        #[inline(always)]
        fn load(lanes: Lanes) -> Self {
            // SAFETY: see above.
            Wide(unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) })
        }

        #[inline(always)]
        fn store(self) -> Lanes {
            let mut lanes = Lanes::default();
            // SAFETY: see above.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), self.0) };
            lanes
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            Wide(unsafe { _mm256_add_epi64(self.0, other.0) })
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            // SAFETY: see above.
            Wide(unsafe { _mm256_xor_si256(self.0, other.0) })
        }

        #[inline(always)]
        fn turn<const BITS: i32, const REST: i32>(self) -> Self {
            const { assert!(BITS + REST == 64) };
            // SAFETY: see above.
            Wide(unsafe { _mm256_or_si256(_mm256_slli_epi64::<BITS>(self.0), _mm256_srli_epi64::<REST>(self.0)) })
        }

        #[inline(always)]
        fn swap_halves(self) -> Self {
            // SAFETY: see above.
            Wide(unsafe { _mm256_shuffle_epi32::<0b10_11_00_01>(self.0) })
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hash_lanes_avx2(secret: [u64; 2], keys: [&[u8]; LANES], len: usize) -> [KeyHash; LANES] {
    hash_words::<wide::Wide>(secret, keys, len)
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
fn hash_words<W: Words>(secret: [u64; 2], keys: [&[u8]; LANES], len: usize) -> [KeyHash; LANES] {
    let [k0, k1] = secret;
    let mut state = State([
        W::all(k0 ^ 0x736f_6d65_7073_6575),
        W::all(k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee),
        W::all(k0 ^ 0x6c79_6765_6e65_7261),
        W::all(k1 ^ 0x7465_6462_7974_6573),
    ]);
    let whole = len / 8 * 8;
    let mut lanes = Lanes::default();
    for at in (0..whole).step_by(8) {
        for lane in 0..LANES {
            lanes[lane] = word_of(&keys[lane][at..at + 8]);
        }
        state.absorb(W::load(lanes));
    }
    for lane in 0..LANES {
        lanes[lane] = last_word_of(&keys[lane][whole..]) | (len as u64) << 56;
    }
    state.absorb(W::load(lanes));
    state.0[2] = state.0[2].xor(W::all(0xee));
    let tags = state.squeeze().store();
    state.0[1] = state.0[1].xor(W::all(0xdd));
    let spots = state.squeeze().store();
    let mut hashes = [KeyHash::default(); LANES];
    for lane in 0..LANES {
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

    #[test]
    fn side_by_side_is_the_same_as_one_by_one() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * 7 % 251) as u8).collect();
        let hasher = KeyHasher::new([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        for len in 1..70 {
            let keys = [0, 3, 111, 200].map(|from| &bytes[from..from + len]);
            assert_eq!(hasher.hash_lanes(keys), keys.map(|key| hasher.hash(key)), "{len} bytes");
            assert_eq!(hash_words::<Lanes>(hasher.halves, keys, len), keys.map(|key| hasher.hash(key)), "{len} bytes, without AVX2");
            let mixed = [&bytes[..len], &bytes[..1], &bytes[..9], &bytes[..len]];
            assert_eq!(hasher.hash_lanes(mixed), mixed.map(|key| hasher.hash(key)));
        }
    }
}
