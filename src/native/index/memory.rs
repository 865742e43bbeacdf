//! Where the tables of the index have their memory from: blocks of one large page each, cut into extents.
//!
//! Tables call `take`, under the index's exclusive lock; whoever keeps a thread for that calls `Spare::make_one_ready`,
//! under none: the first touch of a large page was seen to take milliseconds on virtual machines. Must never take an
//! extent back, nor give one twice: tables only grow, and keep what they have as long as the index lives.

use super::line::{Entry, FREE, Line, WIDTH};
use super::nursery::Nursery;
use crate::base::error::{Error, Result};
use crate::base::mapping::{LARGE_PAGE_BYTES, Mapping};
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{Arc, Mutex};
use std::ptr::NonNull;

/// Lines of an extent: 8 KiB. Less would make the lists of them long, more would leave small tables half empty.
pub(super) const EXTENT_LINES: usize = 128;

const EXTENT_BYTES: usize = EXTENT_LINES * size_of::<Line>();
const BLOCK_EXTENTS: usize = LARGE_PAGE_BYTES / EXTENT_BYTES;

/// One block is made ready ahead for so many that are in use, and one at least.
const BLOCKS_PER_SPARE: usize = 16;

/// The memory of one index.
#[derive(Default)]
pub(super) struct Memory {
    blocks: Vec<Mapping>,
    /// Extents of the last block that were given away.
    given: usize,
    spare: Arc<Spare>,
    /// Where small tables are.
    pub(super) nursery: Nursery,
    /// What a segment needs while it grows.
    pub(super) moving: Moving,
}

/// Room to grow a segment in.
#[derive(Default)]
pub(super) struct Moving {
    /// For its entries.
    pub(super) entries: Vec<Entry>,
    /// For a count of each line's.
    pub(super) used: Vec<u8>,
}

impl Moving {
    /// Room for `live` entries and a line more, and for `lines` counts of zero.
    pub(super) fn make_room(&mut self, live: usize, lines: usize) -> Result<()> {
        let no_memory = || Error::no_memory("no memory to make a part of the index larger; give the process more");
        let entries = live + WIDTH;
        self.entries.try_reserve(entries.saturating_sub(self.entries.len())).map_err(|_| no_memory())?;
        self.used.clear();
        self.used.try_reserve(lines).map_err(|_| no_memory())?;
        self.used.resize(lines, 0);
        if self.entries.len() < entries {
            self.entries.resize(entries, FREE);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.used.capacity()
    }
}

/// Blocks that were brought in before they are needed.
#[derive(Default)]
pub struct Spare {
    ready: Mutex<Vec<Mapping>>,
    /// How many there should be.
    wanted: AtomicUsize,
    /// How many there are.
    count: AtomicUsize,
}

impl Memory {
    /// Bytes of memory taken.
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.len() + self.spare.count.load(Ordering::Relaxed);
        let lists = self.blocks.capacity() * size_of::<Mapping>() + self.moving.bytes();
        blocks * LARGE_PAGE_BYTES + self.nursery.bytes() + lists
    }

    /// The blocks made ready beside, if there are fewer than there should be.
    #[inline]
    pub(super) fn wanting(&self) -> Option<&Arc<Spare>> {
        self.spare.is_wanting().then_some(&self.spare)
    }

    /// Appends `count` extents, all blank, to `extents`. On failure it is as it was.
    pub(super) fn take(&mut self, count: usize, extents: &mut Vec<NonNull<Line>>) -> Result<()> {
        let no_memory = || Error::no_memory("no memory for a larger index; give the process more");
        extents.try_reserve(count).map_err(|_| no_memory())?;
        let left = if self.blocks.is_empty() { 0 } else { BLOCK_EXTENTS - self.given };
        let more = count.saturating_sub(left).div_ceil(BLOCK_EXTENTS);
        self.blocks.try_reserve(more).map_err(|_| no_memory())?;
        let mut fresh = Vec::new();
        fresh.try_reserve(more).map_err(|_| no_memory())?;
        for _ in 0..more {
            fresh.push(self.spare.take().or_else(block).ok_or_else(no_memory)?);
        }
        let mut fresh = fresh.into_iter();
        for _ in 0..count {
            if self.blocks.is_empty() || self.given == BLOCK_EXTENTS {
                self.blocks.extend(fresh.next());
                self.given = 0;
            }
            if let Some(block) = self.blocks.last() {
                let start = block.start().as_ptr().wrapping_add(self.given * EXTENT_BYTES);
                extents.extend(NonNull::new(start.cast::<Line>()));
                self.given += 1;
            }
        }
        if more > 0 {
            self.spare.wanted.store(1 + self.blocks.len() / BLOCKS_PER_SPARE, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Spare {
    fn is_wanting(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.wanted.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Mapping> {
        let taken = self.ready.lock().pop()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(taken)
    }

    /// Brings in one block, if there are fewer than there should be; whether it did.
    pub fn make_one_ready(&self) -> bool {
        if !self.is_wanting() {
            return false;
        }
        let Some(block) = block() else { return false };
        block.bring_in(0, LARGE_PAGE_BYTES, || ());
        let mut ready = self.ready.lock();
        if ready.try_reserve(1).is_err() {
            return false;
        }
        ready.push(block);
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }
}

fn block() -> Option<Mapping> {
    let mut block = Mapping::new(LARGE_PAGE_BYTES)?;
    block.prefer_large_pages(0);
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_extent_is_given_twice() {
        let mut memory = Memory::default();
        let mut extents = Vec::new();
        for count in [1, 3, BLOCK_EXTENTS, 5, 2 * BLOCK_EXTENTS, BLOCK_EXTENTS - 9, 1, 7] {
            memory.take(count, &mut extents).unwrap();
        }
        assert_eq!(extents.len(), 4 * BLOCK_EXTENTS + 8);
        let starts: HashSet<usize> = extents.iter().map(|extent| extent.addr().get()).collect();
        assert_eq!(starts.len(), extents.len());
        assert!(starts.iter().all(|start| start.is_multiple_of(EXTENT_BYTES)));
        assert!(memory.bytes() >= 5 * LARGE_PAGE_BYTES && memory.bytes() < 6 * LARGE_PAGE_BYTES);
    }

    #[test]
    fn what_is_made_ready_is_what_is_taken_next() {
        let mut memory = Memory::default();
        let mut extents = Vec::new();
        assert!(memory.wanting().is_none());
        memory.take(1, &mut extents).unwrap();
        let spare = Arc::clone(memory.wanting().expect("the first block has been taken"));
        assert!(spare.make_one_ready() && !spare.make_one_ready());
        assert!(memory.wanting().is_none());
        let ready = spare.ready.lock()[0].start();
        memory.take(BLOCK_EXTENTS, &mut extents).unwrap();
        assert_eq!(extents.last().map(|extent| extent.cast()), Some(ready));
        assert!(memory.wanting().is_some());
    }
}
