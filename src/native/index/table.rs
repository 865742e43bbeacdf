//! The lines of a segment. A small table has a piece of the heap; a larger one a list of extents, and grows by adding
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
    /// Where the lines are, `EXTENT_LINES` each. The last one may have more of them than there are; a table of up to
    /// `EXTENT_LINES` has one, on the heap, that is just long enough.
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

    /// Bytes on the heap, extents not counted.
    pub(super) fn heap_bytes(&self) -> usize {
        let lines = if self.is_small() { self.lines } else { 0 };
        lines * size_of::<Line>() + self.extents.capacity() * size_of::<NonNull<Line>>()
    }

    fn is_small(&self) -> bool {
        self.lines <= EXTENT_LINES
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

    /// Brings line `at` closer to the CPU.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: usize) {
        if let Some(line) = self.get(at) {
            prefetch::prefetch(line);
        }
    }

    /// All lines in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Line> {
        (0..self.lines).filter_map(|at| self.get(at))
    }

    /// Makes it a table of `lines` blank ones, no fewer than it has. On failure nothing has changed.
    pub(super) fn resize(&mut self, lines: usize, memory: &mut Memory) -> Result<()> {
        debug_assert!(lines >= self.lines && lines > 0);
        if lines <= EXTENT_LINES {
            let no_memory = || Error::no_memory("no memory for a larger index; give the process more");
            let mut extents = Vec::new();
            extents.try_reserve_exact(1).map_err(|_| no_memory())?;
            let mut heap: Vec<Line> = Vec::new();
            heap.try_reserve_exact(lines).map_err(|_| no_memory())?;
            heap.resize(lines, BLANK);
            extents.push(NonNull::from(Box::leak(heap.into_boxed_slice())).cast());
            *self = Table { extents, lines }; // the old one is dropped, and frees its piece
            return Ok(());
        }
        if self.is_small() {
            let mut extents = Vec::new();
            memory.take(lines.div_ceil(EXTENT_LINES), &mut extents)?;
            *self = Table { extents, lines };
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

impl Drop for Table {
    fn drop(&mut self) {
        if self.is_small()
            && let Some(heap) = self.extents.pop()
        {
            let heap = std::ptr::slice_from_raw_parts_mut(heap.as_ptr(), self.lines);
            // SAFETY: leaked in `resize` as a box of just so many lines, and freed once.
            drop(unsafe { Box::from_raw(heap) });
        }
    }
}
