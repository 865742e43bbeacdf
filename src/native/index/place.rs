//! Where a record lies, in 64 bits: what an index entry says about a key.
//!
//! The index stores places, the engine makes and reads them. A place must never be all zeros (that is how the
//! index knows an empty slot), and never tell a length shorter than the record's: one read must get all of it.
//!
//! From the top: chunk slot 20 bits, offset / 8 in the chunk 30 bits, length class 14 bits. A slot is a number the
//! engine lends to a chunk for as long as the chunk lives, so that 20 bits are enough.
//!
//! Length classes: 0 is not used; 1 to 8192 is the length / 8; above (64 KiB) each doubling is cut into 512 steps
//! and the length rounded up to the next one, which tells at most 1/512 too much.

/// Chunks that can be alive at the same time: slots are below this.
pub const SLOTS_MAX: u32 = 1 << SLOT_BITS;

/// Greatest offset of a record in its chunk, in bytes.
pub const OFFSET_MAX: u64 = ((1 << OFFSET_BITS) - 1) * UNIT;

const SLOT_BITS: u32 = 20;
const OFFSET_BITS: u32 = 30;
const CLASS_BITS: u32 = 14;
const _: () = assert!(SLOT_BITS + OFFSET_BITS + CLASS_BITS == u64::BITS);

/// Records begin and end at multiples of this, in bytes.
const UNIT: u64 = 8;

/// Up to this length classes are exact, in bytes.
const EXACT_MAX: u64 = 64 << 10;
const EXACT_CLASSES: u64 = EXACT_MAX / UNIT;

/// Steps per doubling above that: 2 to the power of this.
const STEP_BITS: u32 = 9;
const CLASS_MAX: u64 = (1 << CLASS_BITS) - 1;

/// Greatest length a class can tell, in bytes; nearly 4 GiB, well above the longest record.
const LEN_MAX: u64 = bound(CLASS_MAX);
const _: () = assert!(LEN_MAX >= 1 << 30, "every legal record must have a class");

/// The place of one record; see the top of the file for its layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(u64);

impl Place {
    /// The place of a record of `len` bytes at `offset` (both multiples of 8) in the chunk that holds `slot`.
    #[inline]
    pub fn new(slot: u32, offset: u64, len: usize) -> Place {
        debug_assert!(slot < SLOTS_MAX && offset <= OFFSET_MAX && offset.is_multiple_of(UNIT), "slot {slot}, offset {offset}");
        debug_assert!(len > 0 && len as u64 <= LEN_MAX && (len as u64).is_multiple_of(UNIT), "length {len}");
        Place(u64::from(slot) << (OFFSET_BITS + CLASS_BITS) | (offset / UNIT) << CLASS_BITS | class(len as u64))
    }

    /// The place that `to_bits` gave.
    #[inline]
    pub fn from_bits(bits: u64) -> Place {
        Place(bits)
    }

    /// The place as a number other than 0.
    #[inline]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The slot of the record's chunk.
    #[inline]
    pub fn slot(self) -> u32 {
        (self.0 >> (OFFSET_BITS + CLASS_BITS)) as u32
    }

    /// The record's first byte in the chunk.
    #[inline]
    pub fn offset(self) -> u64 {
        (self.0 >> CLASS_BITS & ((1 << OFFSET_BITS) - 1)) * UNIT
    }

    /// The record's length: exact up to 64 KiB, at most 1/512 too large above. A multiple of 8; may reach behind
    /// the end of the chunk when the record is its last.
    #[inline]
    pub fn len_at_most(self) -> usize {
        bound(self.0 & CLASS_MAX) as usize
    }
}

/// The smallest class whose bound is not below `len`; never 0.
#[inline]
const fn class(len: u64) -> u64 {
    if len <= EXACT_MAX {
        // A length of 0 would be a mistake, and must not make an empty slot of a key.
        return if len == 0 { 1 } else { len.div_ceil(UNIT) };
    }
    // The doubling: EXACT_MAX << doubling < len <= EXACT_MAX << (doubling + 1).
    let doubling = ((len - 1) / EXACT_MAX).ilog2();
    let above = len - (EXACT_MAX << doubling);
    let class = EXACT_CLASSES + ((doubling as u64) << STEP_BITS) + above.div_ceil((EXACT_MAX >> STEP_BITS) << doubling);
    // Only for a length beyond LEN_MAX, which `new` forbids.
    if class > CLASS_MAX { CLASS_MAX } else { class }
}

/// The greatest length of class `class`.
#[inline]
const fn bound(class: u64) -> u64 {
    if class <= EXACT_CLASSES {
        return class * UNIT;
    }
    let step = class - EXACT_CLASSES - 1;
    let doubling = step >> STEP_BITS;
    let above = (step & ((1 << STEP_BITS) - 1)) + 1;
    (EXACT_MAX << doubling) + above * ((EXACT_MAX >> STEP_BITS) << doubling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[test]
    fn parts_come_back() {
        let mut random = Random::new(1);
        for _ in 0..1_000_000 {
            let (slot, offset) = (random.below(u64::from(SLOTS_MAX)) as u32, random.below(1 << OFFSET_BITS) * UNIT);
            let place = Place::new(slot, offset, 8 + random.below(8192) as usize * 8);
            assert_eq!((place.slot(), place.offset()), (slot, offset));
            assert_eq!(Place::from_bits(place.to_bits()), place);
        }
        let last = Place::new(SLOTS_MAX - 1, OFFSET_MAX, LEN_MAX as usize);
        assert_eq!((last.slot(), last.offset(), last.len_at_most()), (SLOTS_MAX - 1, OFFSET_MAX, LEN_MAX as usize));
        assert_eq!(last.to_bits(), u64::MAX);
        assert_ne!(Place::new(0, 0, 8).to_bits(), 0);
    }

    #[test]
    fn short_lengths_are_exact() {
        for len in (8..=EXACT_MAX as usize).step_by(8) {
            assert_eq!(Place::new(3, 64, len).len_at_most(), len);
        }
    }

    #[test]
    fn long_lengths_are_tight_bounds() {
        let check = |len: u64| {
            let told = Place::new(3, 64, len as usize).len_at_most() as u64;
            assert!(told >= len && told - len <= len / 512 && told.is_multiple_of(UNIT), "{len} told as {told}");
        };
        // Every length up to 16 MiB, then around every step there is, then at random.
        (EXACT_MAX + 8..16 << 20).step_by(8).for_each(check);
        for class in EXACT_CLASSES + 1..=CLASS_MAX {
            check(bound(class) - 8);
            check(bound(class));
            if class < CLASS_MAX {
                check(bound(class) + 8);
            }
        }
        let mut random = Random::new(2);
        (0..1_000_000).for_each(|_| check(EXACT_MAX + 8 + random.below((1 << 30) / 8) * 8));
    }

    #[test]
    fn classes_and_bounds_are_inverse() {
        for c in 1..=CLASS_MAX {
            assert_eq!(class(bound(c)), c);
            assert!(bound(c) > bound(c - 1) && class(bound(c - 1) + 8) == c);
        }
    }
}
