//! The hot log: the bytes of a new chunk, kept in memory of our own, at the offsets they have in the file.
//!
//! Filled by commits, read by GETs without a system call. Ranges are handed out once, by rising offset; readers see
//! only what lies below every range that is still being filled. So writers and readers never touch the same byte,
//! whatever order they come in: that is what makes the `unsafe` here sound, and nobody outside can break it.
#![allow(unsafe_code)]

use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// The memory of one chunk.
pub struct HotChunk {
    memory: NonNull<u8>,
    layout: Layout,
    /// Readers may see the bytes below this.
    readable: AtomicU64,
    ranges: Mutex<Ranges>,
}

struct Ranges {
    /// Everything below has been handed out.
    end: u64,
    /// Starts of the ranges that are being filled.
    open: Vec<u64>,
}

// SAFETY: the memory is owned; access to it is split between writers and readers as the top of the file says.
unsafe impl Send for HotChunk {}
// SAFETY: as above.
unsafe impl Sync for HotChunk {}

/// The right to fill one range, once. Dropping it lets readers see the range as it is.
pub struct HotRange {
    chunk: Arc<HotChunk>,
    start: u64,
    len: usize,
    filled: usize,
}

impl HotChunk {
    /// Zeroed memory for `bytes` bytes (the kernel gives the pages when they are first touched); `None` without memory.
    pub fn new(bytes: u64) -> Option<Arc<HotChunk>> {
        let layout = Layout::from_size_align(usize::try_from(bytes).ok()?, 4096).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let ranges = Mutex::new(Ranges { end: 0, open: Vec::new() });
        Some(Arc::new(HotChunk { memory, layout, readable: AtomicU64::new(0), ranges }))
    }

    /// Bytes of memory it was made for.
    pub fn capacity(&self) -> u64 {
        self.layout.size() as u64
    }

    /// Hands out `[start, start + len)`, if it lies behind all that was handed out before and fits.
    pub fn reserve(self: &Arc<Self>, start: u64, len: usize) -> Option<HotRange> {
        let end = start.checked_add(len as u64).filter(|end| *end <= self.capacity())?;
        let mut ranges = self.ranges.lock();
        if start < ranges.end || ranges.open.try_reserve(1).is_err() {
            return None;
        }
        ranges.end = end;
        ranges.open.push(start);
        Some(HotRange { chunk: Arc::clone(self), start, len, filled: 0 })
    }

    /// At most `len` bytes from `offset` on: fewer where the readable part ends.
    #[inline]
    pub fn read(&self, offset: u64, len: usize) -> &[u8] {
        let readable = self.readable.load(Ordering::Acquire);
        let len = readable.saturating_sub(offset).min(len as u64) as usize;
        if len == 0 {
            return &[];
        }
        // SAFETY: below `readable`, which is at most the capacity: initialised (zeroed, then filled), and no writer
        // has a range there any more; none will: ranges are handed out by rising offset.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(offset as usize), len) }
    }

    /// Where `offset` is in memory, for a prefetch.
    #[inline]
    pub fn address(&self, offset: u64) -> *const u8 {
        self.memory.as_ptr().wrapping_add(offset as usize)
    }
}

impl Drop for HotChunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; nobody borrows it any more.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

impl HotRange {
    /// Fills from the start again.
    pub fn rewind(&mut self) {
        self.filled = 0;
    }

    /// Fills the next bytes of the range; what does not fit is left out.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.len - self.filled);
        // SAFETY: inside this range, which nobody else has: it lies above `readable` until this is dropped.
        unsafe {
            let at = self.chunk.memory.as_ptr().add(self.start as usize + self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, len);
        }
        self.filled += len;
    }
}

impl Drop for HotRange {
    fn drop(&mut self) {
        let mut ranges = self.chunk.ranges.lock();
        let start = self.start;
        if let Some(at) = ranges.open.iter().position(|open| *open == start) {
            ranges.open.swap_remove(at);
        }
        let readable = ranges.open.iter().copied().min().unwrap_or(ranges.end);
        self.chunk.readable.fetch_max(readable, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_nothing_above_an_open_range() {
        let hot = HotChunk::new(8192).expect("memory");
        let mut first = hot.reserve(0, 100).expect("room");
        let mut second = hot.reserve(104, 100).expect("room");
        assert!(hot.reserve(150, 10).is_none(), "handed out already");
        assert!(hot.reserve(8000, 200).is_none(), "behind the end");
        first.push(&[1; 100]);
        second.push(&[2; 100]);
        drop(second);
        assert_eq!(hot.read(104, 100), b"");
        drop(first);
        assert_eq!(hot.read(104, 100), [2; 100]);
        assert_eq!(hot.read(0, 5), [1; 5]);
        assert_eq!(hot.read(200, 100), [2; 4]);
    }
}
