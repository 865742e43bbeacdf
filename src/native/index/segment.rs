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

use super::line::{Entry, Line, WIDTH};
use super::memory::{EXTENT_LINES, Memory, Moving};
use super::place::Place;
use super::table::Table;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::sync::Mutex;

/// Keys a segment may hold per 16 slots before it grows; beyond, too many keys overflow into other lines.
const GOOD_LOAD: usize = 14;

/// Keys and reservations together, per 16 slots: reservations are mostly for keys that are here already, and are
/// not worth growing for while each could still be honoured.
const FULL_LOAD: usize = 15;

const _: () = assert!(size_of::<Segment>() == 40);

/// One table of the index.
#[derive(Default)]
pub(super) struct Segment {
    lines: Table,
    /// Entries in the lines.
    live: u32,
    /// Puts that were promised room.
    reserved: u32,
}

/// Where a key is, if it is anywhere in the index.
pub struct Home<'a> {
    segment: &'a Segment,
    line: Option<&'a Line>,
}

impl Home<'_> {
    /// The place of the key, which is the one that `Index::home` was asked for.
    #[inline(always)]
    pub fn place(&self, hash: &KeyHash) -> Option<Place> {
        let line = self.line?;
        match line.find(hash.tag) {
            Some(slot) => Some(Place::from_bits(line.0[slot].place)),
            None if line.is_full() => self.segment.place_behind(hash.tag),
            None => None,
        }
    }
}

impl Segment {
    /// The place of `tag`, which is not in its home line.
    fn place_behind(&self, tag: u64) -> Option<Place> {
        self.find(tag).map(|(at, slot)| Place::from_bits(self.lines[at].0[slot].place))
    }

    /// Bytes behind this segment on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.lines.heap_bytes()
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
        self.lines.prefetch(self.home(tag));
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

    /// Where `tag` is, if it is anywhere; brings the line closer.
    #[inline(always)]
    pub(super) fn home_of(&self, tag: u64) -> Home<'_> {
        Home { line: self.lines.prefetch(self.home(tag)), segment: self }
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

    /// Whether there is room for so many more puts.
    #[inline(always)]
    pub(super) fn fits(&self, puts: usize) -> bool {
        let slots = self.lines.len() * WIDTH;
        let (live, reserved) = (self.live as usize, self.reserved as usize);
        (live + 1) * 16 <= slots * GOOD_LOAD && (live + reserved + puts) * 16 <= slots * FULL_LOAD
    }

    /// Promises room for one more put, if there is any without growing; whether there was.
    #[inline(always)]
    pub(super) fn reserve(&mut self) -> bool {
        let fits = self.fits(1) && self.reserved < u32::MAX;
        self.reserved += u32::from(fits);
        fits
    }

    /// The same behind `grow`.
    pub(super) fn reserve_grown(&mut self) -> Result<()> {
        self.reserved = self.reserved.checked_add(1).ok_or_else(too_many)?;
        Ok(())
    }

    #[inline]
    pub(super) fn unreserve(&mut self) {
        debug_assert!(self.reserved > 0, "a reservation was given back twice");
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Makes room for `puts` more at least, which is one or more; on failure nothing has changed.
    #[cold]
    pub(super) fn grow(&mut self, puts: usize, number: usize, memory: &mut Memory) -> Result<()> {
        let (live, reserved) = (self.live as usize, self.reserved as usize);
        if live + reserved + puts > u32::MAX as usize {
            return Err(too_many());
        }
        let slots = ((live + 1) * 16).div_ceil(GOOD_LOAD).max(((live + reserved + puts) * 16).div_ceil(FULL_LOAD));
        let count = ladder(number, slots.div_ceil(WIDTH).max(self.lines.len() + 1));
        let mut moving = std::mem::take(&mut memory.moving);
        let grown = match moving.make_room(live, count) {
            Ok(()) => {
                self.copy_out(&mut moving.entries);
                self.resize(count, number, memory)
            }
            Err(error) => Err(error),
        };
        if grown.is_ok() {
            self.settle(moving.entries[..live].iter().copied(), &mut moving.used);
        }
        memory.moving = moving;
        grown
    }

    /// Copies the entries to the front of `moving`. Whole lines, each over what was free of the one before: how many of a line are
    /// used cannot be predicted.
    fn copy_out(&self, moving: &mut [Entry]) {
        let mut end = 0;
        for line in self.lines.iter() {
            moving[end..end + WIDTH].copy_from_slice(&line.0);
            end += line.used();
        }
        debug_assert_eq!(end, self.live as usize);
    }

    /// Puts entries where they belong in blank lines. In `used`, which has a zero for each line, it counts how many are there:
    /// to look at what was written a moment ago takes longer than all the rest.
    fn settle(&mut self, entries: impl Iterator<Item = Entry>, used: &mut [u8]) {
        for entry in entries {
            let mut at = self.home(entry.tag);
            while usize::from(used[at]) == WIDTH {
                at = self.after(at);
            }
            self.lines[at].0[usize::from(used[at]) % WIDTH] = entry;
            used[at] += 1;
        }
    }

    fn resize(&mut self, count: usize, number: usize, memory: &mut Memory) -> Result<()> {
        #[cfg(test)]
        super::tests::allocation()?;
        self.lines.resize(count, number, memory)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.lines.iter().flat_map(|line| line.0.iter().filter(|entry| entry.place != 0).copied())
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
    pub(super) fn fill(
        &mut self,
        count: usize,
        entries: impl Iterator<Item = (u64, u64)>,
        number: usize,
        memory: &Mutex<&mut Memory>,
    ) -> Result<()> {
        let least = (count * 16).div_ceil(GOOD_LOAD).div_ceil(WIDTH);
        let live = u32::try_from(count).map_err(|_| too_many())?;
        let lines = ladder(number, least.max(1));
        let mut moving = Moving::default();
        moving.make_room(0, lines)?;
        self.resize(lines, number, &mut memory.lock())?;
        self.live = live;
        self.settle(entries.take(count).map(|(tag, place)| Entry { tag, place }), &mut moving.used);
        Ok(())
    }
}

#[inline(always)]
fn home(tag: u64, lines: usize) -> usize {
    ((u128::from(tag) * lines as u128) >> 64) as usize
}

/// The lines a segment takes when it needs `least`. Up to an extent it doubles: while an index is small, growing is most of
/// what a new key costs, and memory is not what it lacks. From there on it takes a quarter more, in whole extents. Every
/// segment starts a little elsewhere: else all (evenly filled, by the hash) would grow at nearly the same time.
fn ladder(phase: usize, least: usize) -> usize {
    const ONE: u64 = 1 << 24;
    let (phase, phases) = (phase as u64, super::SEGMENTS as u64);
    let is_small = least <= EXTENT_LINES;
    let mut lines = if is_small { ONE + ONE * phase / phases } else { EXTENT_LINES as u64 * (ONE + ONE / 4 * phase / phases) };
    while ((lines / ONE) as usize) < least {
        lines += if is_small { lines } else { lines / 4 };
    }
    let lines = (lines / ONE) as usize;
    if is_small { lines.min(EXTENT_LINES) } else { lines.next_multiple_of(EXTENT_LINES) }
}

#[cold]
fn too_many() -> Error {
    Error::no_memory("the index cannot hold more keys")
}

#[cfg(test)]
impl Segment {
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Fails if what the top of the file promises does not hold.
    pub(super) fn check(&self) {
        assert_eq!(self.entries().count(), self.live as usize);
        assert!(self.lines.len() == 0 || (self.live as usize) < self.lines.len() * WIDTH);
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
