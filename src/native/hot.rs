//! The hot log: the bytes of a new chunk, kept in memory of our own, at the offsets they have in the file.
//!
//! Filled by commits, read by GETs without a system call. Ranges are handed out once, by rising offset; readers see
//! only what lies below every range that is still being filled. So writers and readers never touch the same byte,
//! whatever order they come in: that is what makes the `unsafe` here sound, and nobody outside can break it.
#![allow(unsafe_code)]

#[cfg(all(test, kv_model = "loom"))]
mod models;

use crate::base::limits::BLOCK_BYTES;
use crate::base::mapping::{LARGE_PAGE_BYTES, Mapping, PAGE_BYTES};
use crate::base::planted::{Bug, order, planted};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex, watch, yield_now};

/// The memory of a chunk. Large pages are had for a third of what the small ones instead cost, and a read at random then
/// has one page to be looked up where on virtual machines it else has a whole tree of them.
struct Pages {
    mapping: Mapping,
    /// Bytes from the start that were touched, or are being touched.
    ready: AtomicU64,
}

/// In small pages up to here: a store with little in it takes little memory.
const SMALL_PAGES_BYTES: usize = LARGE_PAGE_BYTES;

impl Pages {
    fn new(len: usize) -> Option<Pages> {
        let mut mapping = Mapping::new(len)?;
        mapping.prefer_large_pages(SMALL_PAGES_BYTES);
        Some(Pages { mapping, ready: AtomicU64::new(0) })
    }

    /// Has the kernel give the pages up to byte `end`. Their bytes stay what they are.
    fn make_ready(&self, end: u64) {
        let end = end.next_multiple_of(PAGE_BYTES as u64).min(self.mapping.bytes() as u64);
        let from = self.ready.fetch_max(end, Ordering::Relaxed);
        // Gives way now and then: with a whole slice of the CPU, milliseconds, it would keep a commit waiting there while
        // another CPU is idle.
        self.mapping.bring_in(from as usize, end as usize, yield_now);
    }
}

/// Keeps the memory of one chunk that is no longer hot for the next: a page that was touched before is there at once.
#[derive(Default)]
pub struct HotPool {
    spare: Mutex<Option<Pages>>,
}

/// The memory of one chunk.
pub struct HotChunk {
    /// `None` only while it is dropped.
    pages: Option<Pages>,
    /// Where the memory goes afterwards.
    pool: Arc<HotPool>,
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

/// The right to fill one range, once. Dropping it lets readers see the range as it is.
pub struct HotRange {
    chunk: Arc<HotChunk>,
    start: u64,
    len: usize,
    filled: usize,
}

impl HotChunk {
    /// Memory for `bytes` bytes, from the pool if it has some; `None` without memory. It may hold bytes of an older chunk.
    pub fn new(bytes: u64, pool: &Arc<HotPool>) -> Option<Arc<HotChunk>> {
        let len = usize::try_from(bytes).ok().filter(|len| *len > 0)?;
        let spare = pool.spare.lock().take_if(|pages| pages.mapping.bytes() == len);
        Some(Arc::new(HotChunk {
            pages: Some(spare.or_else(|| Pages::new(len))?),
            pool: Arc::clone(pool),
            readable: AtomicU64::new(0),
            ranges: Mutex::new(Ranges { end: 0, open: Vec::new() }),
        }))
    }

    /// Bytes of memory it was made for.
    pub fn capacity(&self) -> u64 {
        self.pages.as_ref().map_or(0, |pages| pages.mapping.bytes() as u64)
    }

    /// Bytes from the start whose pages are there, or will be in a moment.
    pub fn ready(&self) -> u64 {
        self.pages.as_ref().map_or(0, |pages| pages.ready.load(Ordering::Relaxed))
    }

    /// Has the kernel give the pages up to byte `end`: filling them will not have to wait for that.
    pub fn make_ready(&self, end: u64) {
        if let Some(pages) = &self.pages {
            pages.make_ready(end);
        }
    }

    /// Where the memory starts.
    #[inline]
    fn start(&self) -> *mut u8 {
        self.pages.as_ref().map_or(std::ptr::null_mut(), |pages| pages.mapping.start().as_ptr())
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
        watch::read_bytes(self.address(offset), len);
        // SAFETY: below `readable`, which is at most the capacity: initialised (by the kernel, then filled), and no writer
        // has a range there any more; none will: ranges are handed out by rising offset.
        unsafe { std::slice::from_raw_parts(self.start().add(offset as usize), len) }
    }

    /// Where `offset` is in memory, for a prefetch.
    #[inline]
    pub fn address(&self, offset: u64) -> *const u8 {
        self.start().wrapping_add(offset as usize)
    }
}

impl Drop for HotChunk {
    fn drop(&mut self) {
        *self.pool.spare.lock() = self.pages.take(); // what was there before is unmapped
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
        watch::written_bytes(self.chunk.address(self.start + self.filled as u64), len);
        // SAFETY: inside this range, which nobody else has: it lies above `readable` until this is dropped.
        unsafe {
            let at = self.chunk.start().add(self.start as usize + self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, len);
        }
        self.filled += len;
    }

    /// The range as it is filled, with zeros behind, if it begins and ends at blocks.
    pub fn blocks(&mut self) -> Option<&[u8]> {
        let block = BLOCK_BYTES as u64;
        if !self.start.is_multiple_of(block) || !(self.len as u64).is_multiple_of(block) {
            return None;
        }
        // SAFETY: inside this range, which nobody else has; the borrow keeps it from being filled or dropped meanwhile. Its
        // bytes are initialised: filled, or zeroed here.
        unsafe {
            let at = self.chunk.start().add(self.start as usize);
            at.add(self.filled).write_bytes(0, self.len - self.filled);
            Some(std::slice::from_raw_parts(at, self.len))
        }
    }
}

impl Drop for HotRange {
    fn drop(&mut self) {
        let mut ranges = self.chunk.ranges.lock();
        let start = self.start;
        if let Some(at) = ranges.open.iter().position(|open| *open == start) {
            ranges.open.swap_remove(at);
        }
        let open = ranges.open.iter().copied().min().filter(|_| !planted(Bug::OpenRangeVisible));
        let readable = open.unwrap_or(ranges.end);
        self.chunk.readable.fetch_max(readable, order(Bug::HotWithoutOrder, Ordering::Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_nothing_above_an_open_range() {
        let hot = HotChunk::new(8192, &Arc::default()).expect("memory");
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

    #[test]
    fn whole_blocks_end_with_zeros() {
        let hot = HotChunk::new(16384, &Arc::default()).expect("memory");
        let mut range = hot.reserve(4096, 8192).expect("room");
        range.push(&[9; 5000]);
        let blocks = range.blocks().expect("it begins and ends at blocks").to_vec();
        assert_eq!((&blocks[..5000], &blocks[5000..]), (&[9; 5000][..], &[0; 3192][..]));
        drop(range);
        assert_eq!(hot.read(4096, 8192), blocks);
        assert_eq!(hot.reserve(12296, 4096 - 8).expect("room").blocks(), None);
    }

    #[test]
    fn memory_is_used_again_and_the_old_bytes_are_out_of_sight() {
        let pool = Arc::new(HotPool::default());
        let first = HotChunk::new(8192, &pool).expect("memory");
        first.reserve(0, 8192).expect("room").push(&[7; 8192]);
        let place = first.address(0);
        drop(first);
        let second = HotChunk::new(8192, &pool).expect("memory");
        assert_eq!(second.address(0), place);
        assert_eq!(second.read(0, 8192), b"");
        let other_size = HotChunk::new(4096, &pool).expect("memory");
        assert_ne!(other_size.address(0), place);
    }
}
