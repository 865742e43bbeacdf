//! Memory straight from the kernel: page by page, beginning at a large page if it has one, zero until it is first touched.
//!
//! The hot log and the index keep what they have much of in such memory. It only has it and gives it back; who touches
//! which byte is its owners' business. What turns out to be little comes from the heap: calls into the kernel, and the traps of
//! first touches, would cost more than its bytes do.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a large page.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Less than this is taken from the heap. So are the tables of an index of a few keys, and the hot bytes of very small chunks.
const HEAP_BYTES_END: usize = 128 << 10;

/// Small pages are brought in by so many bytes at a time: some tens of microseconds.
const STEP_BYTES: usize = 64 << 10;

/// One mapping, unmapped when it is dropped.
pub struct Mapping {
    memory: NonNull<u8>,
    len: usize,
    /// From this byte on it is kept in large pages, as far as the kernel has some.
    large_from: usize,
}

// SAFETY: a mapping is owned like a box of bytes; whoever shares it says why that is sound.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` bytes of zeros; `None` if there is no memory, or no place for it.
    pub fn new(len: usize) -> Option<Mapping> {
        if len < HEAP_BYTES_END {
            // SAFETY: not of size 0.
            let memory = unsafe { alloc_zeroed(of_the_heap(len)?) };
            return Some(Mapping { memory: NonNull::new(memory)?, len, large_from: len });
        }
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        let align = if len < LARGE_PAGE_BYTES { PAGE_BYTES } else { LARGE_PAGE_BYTES };
        // Some more, so that it can begin there.
        let wanted = len.checked_next_multiple_of(PAGE_BYTES)?.checked_add(align - PAGE_BYTES)?;
        // SAFETY: a new private mapping at a place of the kernel's choice touches nothing that exists.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), wanted, access, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return None;
        }
        let before = memory.addr().next_multiple_of(align) - memory.addr();
        let used = len.next_multiple_of(PAGE_BYTES);
        // SAFETY: both pieces lie inside the mapping, outside of what is used of it, and begin and end at pages.
        unsafe {
            if before > 0 {
                libc::munmap(memory, before);
            }
            if wanted > before + used {
                libc::munmap(memory.byte_add(before + used), wanted - before - used);
            }
            Some(Mapping { memory: NonNull::new(memory.byte_add(before).cast())?, len, large_from: len })
        }
    }

    /// Where it begins.
    #[inline(always)]
    pub fn start(&self) -> NonNull<u8> {
        self.memory
    }

    /// Bytes it was made for.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// The bytes without an owner: whoever has them gives them to `from_start` in the end.
    pub fn into_start(self) -> NonNull<u8> {
        ManuallyDrop::new(self).memory
    }

    /// The owner again.
    ///
    /// # Safety
    /// `start` is from `into_start` of a mapping of `len` bytes, and comes back once; nobody has a place in it any more.
    pub unsafe fn from_start(start: NonNull<u8>, len: usize) -> Mapping {
        Mapping { memory: start, len, large_from: len }
    }

    /// Asks for large pages from byte `from` on, which begins one; before the first touch.
    pub fn prefer_large_pages(&mut self, from: usize) {
        debug_assert!(from.is_multiple_of(LARGE_PAGE_BYTES));
        if from < self.len {
            self.large_from = from;
            // SAFETY: inside the mapping, to its end. It changes how the kernel keeps the bytes, not what they are.
            unsafe { libc::madvise(self.memory.as_ptr().add(from).cast(), self.len - from, libc::MADV_HUGEPAGE) };
        }
    }

    /// Gives the memory of the pages that lie in bytes `from..end` back, if it is the kernel's. Nobody may have a place there any
    /// more.
    pub fn discard(&self, from: usize, end: usize) {
        let (from, end) = (from.next_multiple_of(PAGE_BYTES), end.min(self.len) / PAGE_BYTES * PAGE_BYTES);
        if from < end && self.len >= HEAP_BYTES_END {
            // SAFETY: inside the mapping, from a page on; whoever calls says that nobody reads or writes it.
            unsafe { libc::madvise(self.memory.as_ptr().add(from).cast(), end - from, libc::MADV_DONTNEED) };
        }
    }

    /// Brings in the pages of bytes `from..end`, as a write to each would. Their bytes stay what they are; where the kernel
    /// does not know how (before 5.14), nothing happens. `between` is called after every large page, or 64 KiB of small ones.
    pub fn bring_in(&self, from: usize, end: usize, between: impl Fn()) {
        let mut at = from.next_multiple_of(PAGE_BYTES);
        let end = if self.len < HEAP_BYTES_END { 0 } else { end.min(self.len) };
        while at < end {
            let step = if at < self.large_from { STEP_BYTES } else { LARGE_PAGE_BYTES };
            let len = (end - at).min(step);
            // SAFETY: inside the mapping, from a page on.
            unsafe { libc::madvise(self.memory.as_ptr().add(at).cast(), len, libc::MADV_POPULATE_WRITE) };
            at += len;
            between();
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match of_the_heap(self.len).filter(|_| self.len < HEAP_BYTES_END) {
            // SAFETY: taken in `new` with this layout, given back once.
            Some(layout) => unsafe { dealloc(self.memory.as_ptr(), layout) },
            // SAFETY: mapped in `new` with this length, unmapped once.
            None => drop(unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len.next_multiple_of(PAGE_BYTES)) }),
        }
    }
}

/// What is asked of the heap for so many bytes: pages, so that both kinds of memory look alike, and never nothing.
fn of_the_heap(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), PAGE_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn little_and_much_look_alike() {
        for len in [1, PAGE_BYTES + 1, HEAP_BYTES_END - 1, HEAP_BYTES_END, LARGE_PAGE_BYTES + 1] {
            let mapping = Mapping::new(len).expect("memory");
            assert!(mapping.bytes() == len && mapping.start().addr().get().is_multiple_of(PAGE_BYTES));
            mapping.bring_in(0, usize::MAX, || ());
            // SAFETY: inside the mapping, which nobody else has.
            unsafe { mapping.start().add(len - 1).write(7) };
            // SAFETY: as above; all of it is initialised.
            let bytes = unsafe { std::slice::from_raw_parts(mapping.start().as_ptr(), len) };
            assert!(bytes[..len - 1].iter().all(|byte| *byte == 0) && bytes[len - 1] == 7);
            mapping.discard(0, len);
        }
    }

    #[test]
    fn bringing_in_changes_no_byte_and_takes_large_pages_whole() {
        let len = 2 * LARGE_PAGE_BYTES + 3 * PAGE_BYTES;
        let mut mapping = Mapping::new(len).expect("memory");
        mapping.prefer_large_pages(LARGE_PAGE_BYTES);
        let places = [0, LARGE_PAGE_BYTES - 1, LARGE_PAGE_BYTES, len - 1];
        // SAFETY: inside the mapping, which nobody else has.
        places.iter().for_each(|at| unsafe { mapping.start().add(*at).write(7) });
        let pauses = Cell::new(0);
        mapping.bring_in(0, usize::MAX, || pauses.set(pauses.get() + 1));
        assert_eq!(pauses.get(), LARGE_PAGE_BYTES / STEP_BYTES + 2, "small pages by steps, a large one, and what is left");
        // SAFETY: as above; the kernel has zeroed what was not written.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.start().as_ptr(), len) };
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == if places.contains(&at) { 7 } else { 0 }));
    }
}
