//! Words of several keys, calculated with side by side; `hash` alone uses this.
//!
//! The registers are said outright: left to the compiler, an array of words came out one word after the other.
#![allow(unsafe_code)]

/// A word of each key.
pub(super) trait Words: Copy {
    fn load(lanes: &[u64]) -> Self;
    fn store(self, lanes: &mut [u64]);
    fn add(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// Turns each word to the left; `REST` is what is left of 64 bits.
    fn turn<const BITS: i32, const REST: i32>(self) -> Self;
    fn swap_halves(self) -> Self;
}

/// For any CPU, and any number of keys.
impl<const N: usize> Words for [u64; N] {
    #[inline(always)]
    fn load(lanes: &[u64]) -> Self {
        std::array::from_fn(|lane| lanes[lane])
    }

    #[inline(always)]
    fn store(self, lanes: &mut [u64]) {
        lanes.copy_from_slice(&self);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane].wrapping_add(other[lane]))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] ^ other[lane])
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

/// Four words to a register.
#[cfg(target_arch = "x86_64")]
pub(super) mod wide {
    use super::Words;
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_or_si256, _mm256_rol_epi64, _mm256_shuffle_epi32, _mm256_slli_epi64,
        _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
    };

    /// So many registers. Only to be used in functions that are compiled for AVX2, and with `TURNS` for AVX-512VL, which has an
    /// instruction for that; all of it is compiled into these.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Wide<const REGISTERS: usize, const TURNS: bool>([__m256i; REGISTERS]);

    // SAFETY, for all of it: the instructions are there, as nobody else uses this type, and a piece is as large as a register.
    // Loops and no closures: those would not be compiled for the instructions of the caller.
    impl<const REGISTERS: usize, const TURNS: bool> Words for Wide<REGISTERS, TURNS> {
        #[inline(always)]
        fn load(lanes: &[u64]) -> Self {
            let (pieces, _) = lanes.as_chunks::<4>();
            // SAFETY: see above.
            let mut registers = unsafe { [_mm256_loadu_si256(pieces[0].as_ptr().cast()); REGISTERS] };
            for at in 1..REGISTERS {
                // SAFETY: see above.
                registers[at] = unsafe { _mm256_loadu_si256(pieces[at].as_ptr().cast()) };
            }
            Wide(registers)
        }

        #[inline(always)]
        fn store(self, lanes: &mut [u64]) {
            let (pieces, _) = lanes.as_chunks_mut::<4>();
            for (piece, register) in pieces.iter_mut().zip(self.0) {
                // SAFETY: see above.
                unsafe { _mm256_storeu_si256(piece.as_mut_ptr().cast(), register) };
            }
        }

        #[inline(always)]
        fn add(mut self, other: Self) -> Self {
            for at in 0..REGISTERS {
                // SAFETY: see above.
                self.0[at] = unsafe { _mm256_add_epi64(self.0[at], other.0[at]) };
            }
            self
        }

        #[inline(always)]
        fn xor(mut self, other: Self) -> Self {
            for at in 0..REGISTERS {
                // SAFETY: see above.
                self.0[at] = unsafe { _mm256_xor_si256(self.0[at], other.0[at]) };
            }
            self
        }

        #[inline(always)]
        fn turn<const BITS: i32, const REST: i32>(mut self) -> Self {
            const { assert!(BITS + REST == 64) };
            for word in &mut self.0 {
                // SAFETY: see above.
                *word = unsafe {
                    if TURNS {
                        _mm256_rol_epi64::<BITS>(*word)
                    } else {
                        _mm256_or_si256(_mm256_slli_epi64::<BITS>(*word), _mm256_srli_epi64::<REST>(*word))
                    }
                };
            }
            self
        }

        #[inline(always)]
        fn swap_halves(mut self) -> Self {
            for word in &mut self.0 {
                // SAFETY: see above.
                *word = unsafe { _mm256_shuffle_epi32::<0b10_11_00_01>(*word) };
            }
            self
        }
    }
}
