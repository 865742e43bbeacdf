//! Memory of a batch, all of it from the caller's `alloc_func`: a growing array and an arena of blocks, and a slab that the
//! first memory of many of them can be cut from.
//!
//! Used by the batch layer only. The one room of this layer that has `unsafe`, together with what lies below it; what it offers
//! is safe. It must never take memory from anywhere else, but for large pieces where `alloc_func` is `malloc` (see `allocator`), and
//! never hand out a byte that was not written.
#![allow(unsafe_code)]

mod allocator;
mod kept;
mod short;
mod slab;

use allocator::ALIGN;
pub use allocator::{Allocator, calls_are_refused, let_go_of_kept, without_calls};
pub use slab::Slab;

use crate::base::error::{Error, Result};
use crate::base::mapping::LARGE_PAGE_BYTES;
use crate::base::sync::Arc;
use short::copy_part;
use slab::Piece;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A growing array whose memory comes from an `Allocator`. Growth can fail; nothing else can.
pub struct Array<T> {
    memory: NonNull<T>,
    len: usize,
    capacity: usize,
    allocator: Allocator,
    /// What the memory was cut from; `None`: it is this array's own.
    piece: Option<Arc<Piece>>,
    owns: PhantomData<T>,
}

// SAFETY: an `Array` owns its elements as a `Vec` does; the allocator's functions may be called from any thread.
unsafe impl<T: Send> Send for Array<T> {}
// SAFETY: shared access gives shared access to the elements only.
unsafe impl<T: Sync> Sync for Array<T> {}

impl<T> Array<T> {
    const ALIGN_OK: () = assert!(align_of::<T>() <= ALIGN && size_of::<T>() > 0, "the allocator's memory is looked at for this alignment");

    /// An empty array; takes no memory yet.
    pub fn new(allocator: Allocator) -> Self {
        let () = Self::ALIGN_OK;
        Array { memory: NonNull::dangling(), len: 0, capacity: 0, allocator, piece: None, owns: PhantomData }
    }

    /// An empty array with room for `capacity` elements in `slab`, if there is.
    pub fn within(slab: &mut Slab, capacity: usize) -> Self {
        let mut array = Array::new(slab.allocator());
        if capacity > 0
            && let Some((memory, piece)) = slab.cut(capacity * size_of::<T>())
        {
            (array.memory, array.capacity, array.piece) = (memory.cast(), capacity, Some(piece));
        }
        array
    }

    /// Makes room for `more` further elements, which will come.
    #[inline]
    pub fn reserve(&mut self, more: usize) -> Result<()> {
        if self.capacity - self.len >= more { Ok(()) } else { self.grow(more, 0) }
    }

    /// Makes room for as many elements, of which perhaps only a few will come.
    pub fn reserve_at_most(&mut self, most: usize) -> Result<()> {
        if self.capacity - self.len >= most { Ok(()) } else { self.grow(most, LARGE_PAGE_BYTES) }
    }

    #[cold]
    fn grow(&mut self, more: usize, unsure: usize) -> Result<()> {
        let no_memory = || Error::no_memory("alloc_func gave no memory for a batch's tables; submit what there is or free memory");
        let wanted = self.len.checked_add(more).ok_or_else(no_memory)?;
        let capacity = wanted.max(self.capacity.saturating_mul(2)).max(8);
        let bytes = capacity.checked_mul(size_of::<T>()).ok_or_else(no_memory)?;
        let memory: NonNull<T> = self.allocator.take(bytes, unsure, no_memory)?.cast();
        // SAFETY: both regions hold at least `len` elements and do not overlap: one was just allocated. The elements
        // move: the old region is given back without dropping them.
        unsafe { std::ptr::copy_nonoverlapping(self.memory.as_ptr(), memory.as_ptr(), self.len) };
        self.release_memory();
        self.memory = memory;
        self.capacity = capacity;
        Ok(())
    }

    /// Adds an element at the end.
    #[inline]
    pub fn push(&mut self, element: T) -> Result<()> {
        if self.len == self.capacity {
            self.reserve(1)?;
        }
        // SAFETY: `len < capacity`, so the slot is inside the region and holds no live element.
        unsafe { self.memory.as_ptr().add(self.len).write(element) };
        self.len += 1;
        Ok(())
    }

    /// Adds copies of `element` until there are `len`.
    pub fn extend_to(&mut self, len: usize, element: T) -> Result<()>
    where
        T: Copy,
    {
        self.reserve(len.saturating_sub(self.len))?;
        for slot in self.len..len {
            // SAFETY: room for `len` was made, so the slot is inside the region; it holds no live element.
            unsafe { self.memory.as_ptr().add(slot).write(element) };
        }
        self.len = self.len.max(len);
        Ok(())
    }

    /// Drops the elements behind the first `len`.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            self.len -= 1;
            // SAFETY: the element is live, and `len` no longer counts it.
            unsafe { self.memory.as_ptr().add(self.len).drop_in_place() };
        }
    }

    /// Bytes of memory that this array holds.
    pub fn held_bytes(&self) -> usize {
        self.capacity * size_of::<T>()
    }

    fn release_memory(&mut self) {
        if self.capacity > 0 && self.piece.take().is_none() {
            self.allocator.give_back(self.memory.cast(), self.held_bytes());
        }
        self.capacity = 0;
    }
}

impl<T> Deref for Array<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` elements are live.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Array<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the first `len` elements are live, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        self.truncate(0);
        self.release_memory();
    }
}

/// Where something lies in an `Arena`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Which block.
    pub block: u32,
    /// Where in it, in bytes.
    pub offset: u32,
}

struct Block {
    memory: NonNull<u8>,
    capacity: usize,
    used: usize,
    /// What it was cut from; `None`: it is a block of its own.
    piece: Option<Arc<Piece>>,
}

/// Bytes that stay where they are until the arena goes: blocks of growing size, filled from the front.
pub struct Arena {
    blocks: Array<Block>,
    allocator: Allocator,
}

// SAFETY: an arena owns its blocks; the allocator's functions may be called from any thread.
unsafe impl Send for Arena {}
// SAFETY: shared access reads only.
unsafe impl Sync for Arena {}

const BLOCK_LEN_MIN: usize = 4 << 10;
const BLOCK_LEN_MAX: usize = 8 << 20;

/// An arena that begins in a slab has room there to list so many blocks.
const BLOCKS_IN_SLAB: usize = 4;

impl Arena {
    /// An empty arena; takes no memory yet.
    pub fn new(allocator: Allocator) -> Self {
        Arena { blocks: Array::new(allocator), allocator }
    }

    /// An empty arena with a first block of `len` bytes in `slab`, if there is room.
    pub fn within(slab: &mut Slab, len: usize) -> Self {
        let mut arena = Arena { blocks: Array::within(slab, if len > 0 { BLOCKS_IN_SLAB } else { 0 }), allocator: slab.allocator() };
        let capacity = len.next_multiple_of(ALIGN);
        if arena.blocks.capacity > 0
            && u32::try_from(capacity).is_ok()
            && let Some((memory, piece)) = slab.cut(capacity)
        {
            let room = arena.blocks.push(Block { memory, capacity, used: 0, piece: Some(piece) });
            debug_assert!(room.is_ok(), "room was made");
        }
        arena
    }

    /// Bytes of a slab that `within` takes.
    pub const fn slab_len(len: usize) -> usize {
        if len == 0 { 0 } else { Slab::cut_len(len.next_multiple_of(ALIGN)) + Slab::cut_len(BLOCKS_IN_SLAB * size_of::<Block>()) }
    }

    /// Bytes that were set aside.
    pub fn used_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.used).sum()
    }

    /// Sets `len` bytes aside, all zero, with a zero byte behind them that belongs to nobody.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<(Span, &mut [u8])> {
        let start = match self.blocks.last() {
            Some(block) if block.capacity - block.used > len => block.used,
            _ => self.add_block(len)?,
        };
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        block.used = (start + len).next_multiple_of(ALIGN);
        // SAFETY: `start + len < capacity`, and capacities and starts are multiples of `ALIGN`, so the padded range is
        // inside the block; nobody else has it: `used` only grows. It is zeroed before it is seen as a slice.
        let bytes = unsafe {
            let at = block.memory.as_ptr().add(start);
            at.write_bytes(0, (len + 1).next_multiple_of(ALIGN));
            std::slice::from_raw_parts_mut(at, len)
        };
        Ok((Span { block: number as u32, offset: start as u32 }, bytes))
    }

    /// Sets `len` bytes aside and fills them with `parts`, one behind the other, then zeros; a zero byte follows that
    /// belongs to nobody. The parts together are as long as `len`, or shorter by less than `ALIGN`.
    #[inline(always)]
    pub fn put(&mut self, len: usize, parts: [&[u8]; 3]) -> Result<Span> {
        let start = match self.blocks.last() {
            Some(block) if block.capacity - block.used > len => block.used,
            _ => self.add_block(len)?,
        };
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        block.used = (start + len).next_multiple_of(ALIGN);
        let filled: usize = parts.iter().map(|part| part.len()).sum();
        assert!(filled <= len && len - filled < ALIGN, "the parts fit");
        // SAFETY: as in `take`: the padded range is inside the block and nobody else's. Parts and zeros fill all of it, and
        // parts are no memory of this arena: it is borrowed exclusively.
        unsafe {
            let start = block.memory.as_ptr().add(start);
            // Zeros first: the last two words, or the last one twice; the last part may go over some of them again.
            start.cast::<u64>().add(filled / ALIGN).write(0);
            start.cast::<u64>().add(len / ALIGN).write(0);
            let mut at = start;
            for part in parts {
                copy_part(part, at);
                at = at.add(part.len());
            }
        }
        Ok(Span { block: number as u32, offset: start as u32 })
    }

    #[cold]
    fn add_block(&mut self, len: usize) -> Result<usize> {
        let no_memory = || Error::no_memory("alloc_func gave no memory for a batch's data; submit what there is or free memory");
        let usual = self.blocks.last().map_or(BLOCK_LEN_MIN, |last| (last.capacity * 2).clamp(BLOCK_LEN_MIN, BLOCK_LEN_MAX));
        let capacity = (len + 1).next_multiple_of(ALIGN).max(usual);
        if u32::try_from(capacity).is_err() {
            return Err(no_memory());
        }
        self.blocks.reserve(1)?;
        let memory = self.allocator.take(capacity, 0, no_memory)?;
        self.blocks.push(Block { memory, capacity, used: 0, piece: None })?;
        Ok(0)
    }

    /// Takes back the last thing that was set aside, which started at `span`.
    pub fn give_back(&mut self, span: Span) {
        if let Some(block) = self.blocks.last_mut() {
            block.used = span.offset as usize;
        }
    }

    /// The `len` bytes at `span`.
    #[inline]
    pub fn bytes(&self, span: Span, len: usize) -> &[u8] {
        let block = &self.blocks[span.block as usize];
        let start = span.offset as usize;
        assert!(start + len <= block.used, "a span lies inside what was set aside");
        // SAFETY: the range lies below `used`, where every byte was written by `take`.
        unsafe { std::slice::from_raw_parts(block.memory.as_ptr().add(start), len) }
    }

    /// The `len` bytes at `span`, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self, span: Span, len: usize) -> &mut [u8] {
        let block = &mut self.blocks[span.block as usize];
        let start = span.offset as usize;
        assert!(start + len <= block.used, "a span lies inside what was set aside");
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(block.memory.as_ptr().add(start), len) }
    }

    /// Every block's used bytes, to be changed in place.
    pub fn blocks_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.blocks.iter_mut().map(|block| {
            // SAFETY: everything below `used` was written: `take` zeroes what it sets aside, padding included.
            unsafe { std::slice::from_raw_parts_mut(block.memory.as_ptr(), block.used) }
        })
    }

    /// Empties the arena. The last block, which is the largest, is kept.
    pub fn clear(&mut self) {
        let last = self.blocks.len().saturating_sub(1);
        self.give_back_blocks(last);
        if last > 0 {
            self.blocks.swap(0, last);
            self.blocks.truncate(1);
        }
        if let Some(block) = self.blocks.first_mut() {
            block.used = 0;
        }
    }

    /// Gives back the memory of the first `count` blocks.
    fn give_back_blocks(&self, count: usize) {
        for block in self.blocks[..count].iter().filter(|block| block.piece.is_none()) {
            self.allocator.give_back(block.memory, block.capacity);
        }
    }

    /// Bytes of memory that this arena holds.
    pub fn held_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity).sum::<usize>() + self.blocks.held_bytes()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.give_back_blocks(self.blocks.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::code::Code;
    use std::cell::Cell;
    use std::ffi::c_void;

    #[test]
    fn arrays_grow_and_drop_their_elements() {
        let witness = Arc::new(());
        let mut array = Array::new(Allocator::system());
        for _ in 0..100 {
            array.push(Arc::clone(&witness)).expect("memory");
        }
        array.truncate(40);
        assert_eq!(Arc::strong_count(&witness), 41);
        drop(array);
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[test]
    fn arenas_keep_things_in_place() {
        let mut arena = Arena::new(Allocator::system());
        let mut spans = Vec::new();
        for i in 0..5000usize {
            let (span, bytes) = arena.take(i % 700).expect("memory");
            bytes.fill(i as u8);
            spans.push((span, i % 700, i as u8));
        }
        let (big, bytes) = arena.take(3 << 20).expect("memory");
        bytes.fill(9);
        for (span, len, fill) in spans {
            assert!(arena.bytes(span, len).iter().all(|b| *b == fill));
        }
        assert!(arena.bytes(big, 3 << 20).iter().all(|b| *b == 9));
    }

    #[test]
    fn parts_of_every_length_are_put_whole_and_followed_by_zeros() {
        let source: Vec<u8> = (1..=255).collect();
        let mut arena = Arena::new(Allocator::system());
        for a in (0..40).chain([100, 255]) {
            for b in (0..40).chain([100, 255]) {
                for padding in 0..ALIGN {
                    let len = 3 + a + b + padding;
                    let span = arena.put(len, [&source[..a], &source[7..10], &source[..b]]).expect("memory");
                    let expected = [&source[..a], &source[7..10], &source[..b], &[0; ALIGN][..padding]].concat();
                    assert_eq!(arena.bytes(span, len), expected);
                    let (last, behind) = (&arena.blocks[span.block as usize], span.offset as usize + len);
                    // SAFETY: `put` has set this byte aside as well, and written it.
                    assert_eq!(unsafe { last.memory.add(behind).read() }, 0, "{a} {b} {padding}");
                }
            }
        }
    }

    #[test]
    fn a_cleared_arena_begins_anew_in_its_largest_block() {
        let mut arena = Arena::new(Allocator::system());
        for _ in 0..100 {
            arena.take(1000).expect("memory");
        }
        let held = arena.held_bytes();
        arena.clear();
        assert!(arena.held_bytes() < held && arena.held_bytes() > held / 3);
        let (span, bytes) = arena.take(1000).expect("memory");
        assert_eq!((span, bytes.iter().all(|byte| *byte == 0)), (Span::default(), true));
        arena.clear();
        arena.clear();
    }

    #[test]
    fn what_is_large_grows_and_goes_back_like_the_rest() {
        let mut array = Array::new(Allocator::system());
        array.reserve_at_most(LARGE_PAGE_BYTES).expect("memory");
        let words = 5 * LARGE_PAGE_BYTES / size_of::<u64>();
        (0..words as u64).for_each(|i| array.push(i).expect("memory"));
        assert!(array.iter().enumerate().all(|(i, word)| i as u64 == *word));
        let mut arena = Arena::new(Allocator::system());
        let fill = |i| [[i; 9].to_vec(), vec![0; 1 << 19]].concat();
        let spans: Vec<_> = (0..40u8).map(|i| arena.put((1 << 19) + 9, [&fill(i), &[], &[]]).expect("memory")).collect();
        assert!(arena.blocks.iter().any(|block| block.capacity >= 2 * LARGE_PAGE_BYTES));
        assert!(spans.iter().zip(0..).all(|(span, i)| arena.bytes(*span, 10) == [i, i, i, i, i, i, i, i, i, 0]));
        arena.clear();
        assert_eq!(arena.take(100).map(|(span, bytes)| (span, bytes.len())), Ok((Span::default(), 100)));
    }

    #[test]
    fn a_refused_allocation_is_an_error() {
        extern "C" fn none(_: usize) -> *mut c_void {
            std::ptr::null_mut()
        }
        let allocator = Allocator { alloc: none, free: libc::free };
        assert!(Array::new(allocator).push(1u64).is_err());
        assert!(Arena::new(allocator).take(1).is_err());
    }

    #[test]
    fn misaligned_memory_is_given_back_with_an_error() {
        /// # Safety
        /// None needed: nobody looks into this memory.
        unsafe extern "C" fn odd(_: usize) -> *mut c_void {
            GIVEN.set(GIVEN.get() + 1);
            std::ptr::without_provenance_mut(4)
        }
        /// # Safety
        /// As above.
        unsafe extern "C" fn take_back(memory: *mut c_void) {
            assert_eq!(memory.addr(), 4);
            GIVEN.set(GIVEN.get() - 1);
        }
        thread_local!(static GIVEN: Cell<u32> = const { Cell::new(0) });
        let allocator = Allocator { alloc: odd, free: take_back };
        assert_eq!(Array::new(allocator).push(1u64).err().map(|e| e.code), Some(Code::INVALID_PARAM));
        assert!(Arena::new(allocator).take(1).is_err());
        assert_eq!(GIVEN.get(), 0);
    }
}
