//! Memory straight from the kernel: page by page, beginning at a large page, zero until it is first touched.
//!
//! The hot log and the index keep what they have much of in such memory. It only has it and gives it back; who touches
//! which byte is its owners' business. Must never be used for little: a page is the least.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a large page.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

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
    /// `len` bytes, not 0, of zeros; `None` if there is no memory, or no place for it.
    pub fn new(len: usize) -> Option<Mapping> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // Some more, so that it can begin at a large page.
        let wanted = len.checked_add(LARGE_PAGE_BYTES)?.checked_next_multiple_of(PAGE_BYTES)?;
        // SAFETY: a new private mapping at a place of the kernel's choice touches nothing that exists.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), wanted, access, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return None;
        }
        let before = memory.addr().next_multiple_of(LARGE_PAGE_BYTES) - memory.addr();
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

    /// Gives the memory of the pages that lie in bytes `from..end` back. Nobody may have a place there any more.
    pub fn discard(&self, from: usize, end: usize) {
        let (from, end) = (from.next_multiple_of(PAGE_BYTES), end.min(self.len) / PAGE_BYTES * PAGE_BYTES);
        if from < end {
            // SAFETY: inside the mapping, from a page on; whoever calls says that nobody reads or writes it.
            unsafe { libc::madvise(self.memory.as_ptr().add(from).cast(), end - from, libc::MADV_DONTNEED) };
        }
    }

    /// Brings in the pages of bytes `from..end`, as a write to each would. Their bytes stay what they are; where the kernel
    /// does not know how (before 5.14), nothing happens. `between` is called after every large page, or 64 KiB of small ones.
    pub fn bring_in(&self, from: usize, end: usize, between: impl Fn()) {
        let mut at = from.next_multiple_of(PAGE_BYTES);
        let end = end.min(self.len);
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
        // SAFETY: mapped in `new` with this length, unmapped once.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len.next_multiple_of(PAGE_BYTES)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

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
