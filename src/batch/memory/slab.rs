//! A slab: one allocation that the tables and arenas of a batch get their first memory from.
//!
//! Made where an earlier batch has shown what will be needed. Whatever was cut from it keeps it: it goes back to the allocator
//! when the last of them is gone. Must never give the same byte to two of them.

use super::Allocator;
use crate::base::error::Error;
use crate::base::sync::Arc;
use std::ptr::NonNull;

/// One piece of memory, given back when the last of those that use it is gone.
pub(super) struct Piece {
    memory: NonNull<u8>,
    len: usize,
    allocator: Allocator,
}

// SAFETY: a `Piece` itself only ever gives its memory back; the allocator's functions may be called from any thread.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Drop for Piece {
    fn drop(&mut self) {
        self.allocator.give_back(self.memory, self.len);
    }
}

/// One allocation that arrays and arenas get their first memory from: the caller's function may be slow.
pub struct Slab {
    piece: Arc<Piece>,
    free: NonNull<u8>,
    left: usize,
}

impl Slab {
    /// Takes `len` bytes; `None` if there are none to be had.
    pub fn take(allocator: Allocator, len: usize) -> Option<Slab> {
        let memory = allocator.take(len, len, || Error::no_memory("alloc_func gave no memory for a batch")).ok()?; // there is another way
        Some(Slab { piece: Arc::new(Piece { memory, len, allocator }), free: memory, left: len })
    }

    pub(super) fn allocator(&self) -> Allocator {
        self.piece.allocator
    }

    /// Bytes that `cut` takes for `len`.
    pub const fn cut_len(len: usize) -> usize {
        len.next_multiple_of(16)
    }

    /// Cuts off `len` bytes, aligned as `malloc` aligns, if there are so many left. Nobody else gets them.
    pub(super) fn cut(&mut self, len: usize) -> Option<(NonNull<u8>, Arc<Piece>)> {
        let len = Slab::cut_len(len);
        self.left = self.left.checked_sub(len)?;
        let memory = self.free;
        // SAFETY: `len` was left, so this is inside the piece or just behind it.
        self.free = unsafe { memory.add(len) };
        Some((memory, Arc::clone(&self.piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arena, Array};
    use super::*;
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicIsize, Ordering};

    #[test]
    fn what_is_cut_from_a_slab_outlives_it_and_goes_back_once() {
        static LIVE: AtomicIsize = AtomicIsize::new(0);
        extern "C" fn give(len: usize) -> *mut c_void {
            LIVE.fetch_add(1, Ordering::Relaxed);
            // SAFETY: as `malloc`.
            unsafe { libc::malloc(len) }
        }
        extern "C" fn take_back(memory: *mut c_void) {
            LIVE.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: from `give`.
            unsafe { libc::free(memory) }
        }
        let live = || LIVE.load(Ordering::Relaxed);
        let len = Slab::cut_len(10 * size_of::<u64>()) + Arena::slab_len(1000);
        let mut slab = Slab::take(Allocator { alloc: give, free: take_back }, len).expect("memory");
        let (mut array, mut arena) = (Array::within(&mut slab, 10), Arena::within(&mut slab, 1000));
        assert_eq!((slab.left, Array::<u64>::within(&mut slab, 1).held_bytes()), (0, 0), "no more than there is");
        drop(slab);
        for i in 0..10_u64 {
            array.push(i).expect("memory");
        }
        let (span, bytes) = arena.take(900).expect("memory");
        bytes.fill(7);
        assert_eq!((live(), arena.used_bytes()), (1, 904), "nothing but the slab was taken");
        array.push(10).expect("memory");
        assert_eq!((live(), array[9], array[10]), (2, 9, 10), "what grows moves out");
        let (other, bytes) = arena.take(900).expect("memory");
        bytes.fill(8);
        assert!(live() == 3 && arena.bytes(span, 900).iter().all(|byte| *byte == 7) && other.block == 1);
        arena.clear();
        drop(array);
        assert_eq!(live(), 2, "the larger block stays, and the slab, where blocks are listed");
        drop(arena);
        assert_eq!(live(), 0);
    }
}
