//! One of the index's 1024 tables: lines of four entries, found by the entry's tag.
//!
//! Only `Index` calls this. A segment must never allocate outside `reserve` (and `make_room`), and never be filled
//! to its last slot: every search ends at the first line with a free one.
//!
//! An entry belongs into its home line, `tag * lines / 2^64` (multiply-shift: any number of lines will do, not only
//! powers of two). If that is full, it goes into the next line with a free slot, behind the last line into the
//! first. So all lines from the home of an entry up to its own are full; `remove` keeps that true by moving
//! entries back, and needs no tombstones. The home is a function of what the entry holds, because growth and
//! removal have nothing else at hand. Within a line, the used slots come first.

use super::place::Place;
use crate::base::error::{Error, Result};
use crate::base::prefetch;

/// Entries in a line.
const WIDTH: usize = 4;

/// Keys a segment may hold per 16 slots before it grows; beyond, too many keys overflow into other lines.
const GOOD_LOAD: usize = 14;

/// Keys and reservations together, per 16 slots: reservations are mostly for keys that are here already, and are
/// not worth growing for while each could still be honoured.
const FULL_LOAD: usize = 15;

/// A full line is one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([Entry; WIDTH]);

#[derive(Clone, Copy)]
struct Entry {
    tag: u64,
    /// The bits of a `Place`; 0 in a free slot.
    place: u64,
}

const FREE: Entry = Entry { tag: 0, place: 0 };
const _: () = assert!(size_of::<Line>() == 64 && size_of::<Segment>() == 32);

impl Line {
    /// The slot of `tag`. All slots are compared without a branch: which one hits cannot be predicted.
    #[inline(always)]
    fn find(&self, tag: u64) -> Option<usize> {
        let hits = (0..WIDTH).fold(0_u32, |hits, i| hits | u32::from(self.0[i].tag == tag) << i);
        if hits == 0 {
            return None;
        }
        // Used slots come first, so a free slot is the first hit of tag 0 only if no used one is.
        let slot = hits.trailing_zeros() as usize % WIDTH;
        (self.0[slot].place != 0).then_some(slot)
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.0[WIDTH - 1].place != 0
    }

    #[inline(always)]
    fn used(&self) -> usize {
        self.0.iter().map(|entry| usize::from(entry.place != 0)).sum()
    }

    /// Adds to a line that is not full.
    #[inline(always)]
    fn push(&mut self, entry: Entry) {
        self.0[self.used() % WIDTH] = entry;
    }

    /// Takes out the entry in `slot`; the last one fills the gap.
    fn take(&mut self, slot: usize) -> Entry {
        let last = self.used().saturating_sub(1);
        let taken = self.0[slot];
        self.0[slot] = self.0[last];
        self.0[last] = FREE;
        taken
    }
}

/// One table of the index.
#[derive(Default)]
pub(super) struct Segment {
    lines: Vec<Line>,
    /// Entries in the lines.
    live: u32,
    /// Puts that were promised room.
    reserved: u32,
}

impl Segment {
    /// Bytes of memory behind this segment.
    pub(super) fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    #[inline(always)]
    fn home(&self, tag: u64) -> usize {
        home(tag, self.lines.len())
    }

    #[inline(always)]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.lines.len() { 0 } else { at + 1 }
    }

    /// Lines to walk from `from` to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.lines.len() - from }
    }

    #[inline]
    pub(super) fn prefetch(&self, tag: u64) {
        prefetch::prefetch(self.lines.as_ptr().wrapping_add(self.home(tag)));
    }

    /// The line and slot of `tag`.
    #[inline(always)]
    fn find(&self, tag: u64) -> Option<(usize, usize)> {
        let mut at = self.home(tag);
        // No line at all in a segment that never held anything.
        while let Some(line) = self.lines.get(at) {
            if let Some(slot) = line.find(tag) {
                return Some((at, slot));
            }
            if !line.is_full() {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    #[inline]
    pub(super) fn get(&self, tag: u64) -> Option<Place> {
        self.find(tag).map(|(at, slot)| Place::from_bits(self.lines[at].0[slot].place))
    }

    /// Whether the next new key would take the last free slot. Not while every put was reserved.
    #[inline]
    pub(super) fn is_crammed(&self) -> bool {
        self.live as usize + 1 >= self.lines.len() * WIDTH
    }

    /// Stores `place` under `tag` and returns what was there; uses up a reservation. Not when crammed.
    #[inline]
    pub(super) fn put(&mut self, tag: u64, place: Place) -> Option<Place> {
        debug_assert!(self.reserved > 0, "put without a reservation");
        self.reserved = self.reserved.saturating_sub(1);
        let mut at = self.home(tag);
        loop {
            let line = &mut self.lines[at];
            if let Some(slot) = line.find(tag) {
                let old = std::mem::replace(&mut line.0[slot].place, place.to_bits());
                return Some(Place::from_bits(old));
            }
            if !line.is_full() {
                line.push(Entry { tag, place: place.to_bits() });
                self.live += 1;
                return None;
            }
            at = self.after(at);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, tag: u64) -> Option<Place> {
        let (at, slot) = self.find(tag)?;
        let line = &mut self.lines[at];
        let was_full = line.is_full();
        let taken = line.take(slot);
        self.live -= 1;
        if was_full {
            self.move_back(at);
        }
        Some(Place::from_bits(taken.place))
    }

    /// Restores the order after the full line `gap` lost an entry: whatever had to go past it may come back.
    fn move_back(&mut self, mut gap: usize) {
        let mut at = self.after(gap);
        while at != gap {
            let line = self.lines[at];
            let way = self.distance(gap, at);
            let passed = line.0[..line.used()].iter().position(|entry| self.distance(self.home(entry.tag), at) >= way);
            if let Some(slot) = passed {
                let entry = self.lines[at].take(slot);
                self.lines[gap].push(entry);
                gap = at;
            }
            if !line.is_full() {
                return;
            }
            at = self.after(at);
        }
    }

    /// Promises room for one more put; returns whether the segment grew. `phase` tells segments apart, see `ladder`.
    #[inline]
    pub(super) fn reserve(&mut self, phase: usize) -> Result<bool> {
        let slots = self.lines.len() * WIDTH;
        let (live, reserved) = (self.live as usize, self.reserved as usize);
        let fits = (live + 1) * 16 <= slots * GOOD_LOAD && (live + reserved + 1) * 16 <= slots * FULL_LOAD;
        if !fits {
            self.grow(phase)?;
        }
        self.reserved = self.reserved.checked_add(1).ok_or_else(too_many)?;
        Ok(!fits)
    }

    #[inline]
    pub(super) fn unreserve(&mut self) {
        debug_assert!(self.reserved > 0, "a reservation was given back twice");
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Moves all entries to a table that has room for one more put; on failure nothing has changed.
    #[cold]
    pub(super) fn grow(&mut self, phase: usize) -> Result<()> {
        let (live, reserved) = (self.live as usize, self.reserved as usize);
        if live + reserved >= u32::MAX as usize {
            return Err(too_many());
        }
        let slots = ((live + 1) * 16).div_ceil(GOOD_LOAD).max(((live + reserved + 1) * 16).div_ceil(FULL_LOAD));
        let count = ladder(phase, slots.div_ceil(WIDTH).max(self.lines.len() + 1));
        let mut lines = blank(count)?;
        for entry in self.entries() {
            let mut at = home(entry.tag, count);
            while lines[at].is_full() {
                at = if at + 1 == count { 0 } else { at + 1 };
            }
            lines[at].push(*entry);
        }
        self.lines = lines;
        Ok(())
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().flat_map(|line| line.0.iter().filter(|entry| entry.place != 0))
    }

    /// Entries in this segment.
    pub(super) fn len(&self) -> usize {
        self.live as usize
    }

    /// Calls `f` with every tag and place, in the order of lines.
    #[inline]
    pub(super) fn for_each(&self, mut f: impl FnMut(u64, Place)) {
        self.entries().for_each(|entry| f(entry.tag, Place::from_bits(entry.place)));
    }

    /// Fills an empty segment with `count` entries, no tag twice and no place all zeros. As large as it would have grown.
    pub(super) fn fill(&mut self, count: usize, entries: impl Iterator<Item = (u64, u64)>, phase: usize) -> Result<()> {
        let least = (count * 16).div_ceil(GOOD_LOAD).div_ceil(WIDTH);
        self.live = u32::try_from(count).map_err(|_| too_many())?;
        self.lines = blank(ladder(phase, least.max(1)))?;
        let lines = self.lines.len();
        for (tag, place) in entries.take(count) {
            let mut at = home(tag, lines);
            while self.lines[at].is_full() {
                at = self.after(at);
            }
            self.lines[at].push(Entry { tag, place });
        }
        Ok(())
    }
}

#[inline(always)]
fn home(tag: u64, lines: usize) -> usize {
    ((u128::from(tag) * lines as u128) >> 64) as usize
}

/// Up to this many lines a segment doubles when it grows; from there on it takes a quarter more. While an index is small,
/// growing is most of what a new key costs, and memory is not what it lacks.
const DOUBLING_MAX: u64 = 512;

/// The lines a segment takes when it needs `least`: doublings, then powers of 1.25, of a start of its own, 1 to 2. Without
/// that, all segments (evenly filled, by the hash) would grow at nearly the same time, and memory would swing.
fn ladder(phase: usize, least: usize) -> usize {
    const ONE: u64 = 1 << 24;
    let mut lines = ONE + ONE * phase as u64 / super::SEGMENTS as u64;
    while ((lines / ONE) as usize) < least {
        lines += if lines < DOUBLING_MAX * ONE { lines } else { lines / 4 };
    }
    (lines / ONE) as usize
}

fn blank(count: usize) -> Result<Vec<Line>> {
    #[cfg(test)]
    super::tests::allocation()?;
    let mut lines = Vec::new();
    lines.try_reserve_exact(count).map_err(|_| Error::no_memory("no memory for a larger index; give the process more"))?;
    lines.resize(count, Line([FREE; WIDTH]));
    Ok(lines)
}

#[cold]
fn too_many() -> Error {
    Error::no_memory("the index cannot hold more keys")
}

#[cfg(test)]
impl Segment {
    pub(super) fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Fails if what the top of the file promises does not hold.
    pub(super) fn check(&self) {
        assert_eq!(self.entries().count(), self.live as usize);
        assert!(self.lines.is_empty() || (self.live as usize) < self.lines.len() * WIDTH);
        for (at, line) in self.lines.iter().enumerate() {
            assert!(line.0[line.used()..].iter().all(|entry| entry.place == 0 && entry.tag == 0));
            for entry in &line.0[..line.used()] {
                let mut from = self.home(entry.tag);
                while from != at {
                    assert!(self.lines[from].is_full(), "line {at} holds an entry that a search from {from} would not reach");
                    from = self.after(from);
                }
            }
        }
    }
}
