//! Memory straight from the kernel: page by page, beginning at a large page, zero until it is first touched.
//!
//! The hot log and the index keep what they have much of in such memory. It only has it and gives it back; who touches
//! which byte is its owners' business. Must never be used for little: a page is the least.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a large page.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Pages are brought in by so many bytes at a time: some tens of microseconds.
const STEP_BYTES: usize = 64 << 10;

/// One mapping, unmapped when it is dropped.
pub struct Mapping {
    memory: NonNull<u8>,
    len: usize,
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
            Some(Mapping { memory: NonNull::new(memory.byte_add(before).cast())?, len })
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

    /// Asks for large pages from the first touch on, as far as the kernel has some.
    pub fn prefer_large_pages(&self) {
        // SAFETY: the mapping's own range. It changes how the kernel keeps the bytes, not what they are.
        unsafe { libc::madvise(self.memory.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE) };
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
    /// does not know how (before 5.14), nothing happens. `between` is called after every 64 KiB.
    pub fn bring_in(&self, from: usize, end: usize, between: impl Fn()) {
        let mut at = from.next_multiple_of(PAGE_BYTES);
        let end = end.min(self.len);
        while at < end {
            let len = (end - at).min(STEP_BYTES);
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
