//! A line of the index: four entries in one cache line. A search rarely looks at more than one.
//!
//! Tables are made of lines, segments search them. Within a line the used slots come first.

/// Entries in a line.
pub(super) const WIDTH: usize = 4;

/// A full line is one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [Entry; WIDTH]);

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) tag: u64,
    /// The bits of a `Place`; 0 in a free slot.
    pub(super) place: u64,
}

pub(super) const FREE: Entry = Entry { tag: 0, place: 0 };

/// A line without an entry: all zeros, as memory comes from the kernel.
pub(super) const BLANK: Line = Line([FREE; WIDTH]);
const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    /// The slot of `tag`. All slots are compared without a branch: which one hits cannot be predicted.
    #[inline(always)]
    pub(super) fn find(&self, tag: u64) -> Option<usize> {
        let hits = (0..WIDTH).fold(0_u32, |hits, i| hits | u32::from(self.0[i].tag == tag) << i);
        if hits == 0 {
            return None;
        }
        // Used slots come first, so a free slot is the first hit of tag 0 only if no used one is.
        let slot = hits.trailing_zeros() as usize % WIDTH;
        (self.0[slot].place != 0).then_some(slot)
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.0[WIDTH - 1].place != 0
    }

    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        self.0.iter().map(|entry| usize::from(entry.place != 0)).sum()
    }

    /// Adds to a line that is not full.
    #[inline(always)]
    pub(super) fn push(&mut self, entry: Entry) {
        self.0[self.used() % WIDTH] = entry;
    }

    /// Takes out the entry in `slot`; the last one fills the gap.
    pub(super) fn take(&mut self, slot: usize) -> Entry {
        let last = self.used().saturating_sub(1);
        let taken = self.0[slot];
        self.0[slot] = self.0[last];
        self.0[last] = FREE;
        taken
    }
}
