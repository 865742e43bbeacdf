//! The lines of a segment. A small table has a place in the nursery; a larger one a list of extents, and grows by adding
//! some: so nothing is ever there twice, and what large tables are made of lies in large pages.
//!
//! Only `Segment` calls this. A table must never outlive the `Memory` that its extents are from: the index holds both.
#![allow(unsafe_code)]

use super::line::{BLANK, Line};
use super::memory::{EXTENT_LINES, Memory};
use crate::base::error::{Error, Result};
use crate::base::prefetch;
use std::ops::{Index, IndexMut};
use std::ptr::NonNull;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Table {
    /// Where the lines are, `EXTENT_LINES` each. The last one may have more of them than there are; a table of less
    /// than `EXTENT_LINES` has one, from the nursery, that is just long enough.
    extents: Vec<NonNull<Line>>,
    lines: usize,
}

// SAFETY: a table owns its lines, like a box of them: nobody else has a pointer to its extents.
unsafe impl Send for Table {}
// SAFETY: as above; a shared table only reads.
unsafe impl Sync for Table {}

impl Table {
    /// Lines there are.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.lines
    }

    /// Bytes on the heap; the lines are not there.
    pub(super) fn heap_bytes(&self) -> usize {
        self.extents.capacity() * size_of::<NonNull<Line>>()
    }

    /// Line `at`, if there are so many.
    #[inline(always)]
    pub(super) fn get(&self, at: usize) -> Option<&Line> {
        // SAFETY: it is there and initialised, see `place`; writers need `&mut self`.
        (at < self.lines).then(|| unsafe { self.place(at).as_ref() })
    }

    /// Where line `at` is.
    ///
    /// # Safety
    /// `at` is below `lines`. Then its extent is in the list, has the line, and every line is initialised: by zeros of the
    /// kernel, or by `resize`.
    #[inline(always)]
    unsafe fn place(&self, at: usize) -> NonNull<Line> {
        // SAFETY: the list covers `lines`, the caller says that `at` is below it, and so is within its extent.
        unsafe { self.extents.get_unchecked(at / EXTENT_LINES).add(at % EXTENT_LINES) }
    }

    /// Brings line `at`, which comes back if there are so many, closer to the CPU, and the two behind it: a key whose line is full is
    /// there, and whoever goes there has nothing else to do until it has come.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: usize) -> Option<&Line> {
        let line = self.get(at)?;
        // Behind the end of an extent are somebody else's: no harm.
        (0..3).for_each(|behind| prefetch::prefetch(std::ptr::from_ref(line).wrapping_add(behind)));
        Some(line)
    }

    /// All lines in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Line> {
        (0..self.lines).filter_map(|at| self.get(at))
    }

    /// Makes it a table of `lines` blank ones, no fewer than it has. On failure nothing has changed. `segment` is whose table
    /// it is.
    pub(super) fn resize(&mut self, lines: usize, segment: usize, memory: &mut Memory) -> Result<()> {
        debug_assert!(lines >= self.lines && lines > 0);
        let no_memory = || Error::no_memory("no memory for a larger index; give the process more");
        if self.lines < EXTENT_LINES {
            // All of it somewhere else.
            let mut extents = Vec::new();
            if lines < EXTENT_LINES {
                extents.try_reserve_exact(1).map_err(|_| no_memory())?;
                extents.push(memory.nursery.take(segment, lines).ok_or_else(no_memory)?);
            } else {
                memory.take(lines.div_ceil(EXTENT_LINES), &mut extents)?;
            }
            let left = std::mem::replace(self, Table { extents, lines }).lines;
            if left > 0 {
                memory.nursery.leave(segment, left);
            }
            return Ok(());
        }
        memory.take(lines.div_ceil(EXTENT_LINES) - self.extents.len(), &mut self.extents)?;
        // What is new is blank, also behind the lines there were: nobody ever wrote there.
        (0..self.lines).for_each(|at| self[at] = BLANK);
        self.lines = lines;
        Ok(())
    }
}

impl Index<usize> for Table {
    type Output = Line;

    #[inline(always)]
    fn index(&self, at: usize) -> &Line {
        assert!(at < self.lines);
        // SAFETY: as in `get`.
        unsafe { self.place(at).as_ref() }
    }
}

impl IndexMut<usize> for Table {
    #[inline(always)]
    fn index_mut(&mut self, at: usize) -> &mut Line {
        assert!(at < self.lines);
        // SAFETY: as in `get`, and nobody else has it.
        unsafe { self.place(at).as_mut() }
    }
}
