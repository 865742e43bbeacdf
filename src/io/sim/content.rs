//! Bytes of a simulated file, in pages that copies share until one of them is written: a disk image costs a few
//! pointers. Used by the rest of `sim` only.

use crate::base::random::Random;
use crate::base::sync::Arc;
use std::ops::Range;

/// Bytes of one page; also the unit in which a kernel caches files.
pub(super) const PAGE: usize = 4096;

type Page = [u8; PAGE];

/// A file's bytes. Pages that nobody has written are zeros and take no memory.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: Arc<Vec<Option<Arc<Page>>>>,
    len: u64,
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Content::default();
        content.write(0, bytes);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Fills `buf` from the front with what lies at `offset`; the number of bytes before the end of the file.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let wanted = (self.len.saturating_sub(offset)).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < wanted {
            let (page, within) = place(offset + done as u64);
            let n = (PAGE - within).min(wanted - done);
            let part = &mut buf[done..done + n];
            match self.pages.get(page) {
                Some(Some(bytes)) => part.copy_from_slice(&bytes[within..within + n]),
                _ => part.fill(0),
            }
            done += n;
        }
        wanted
    }

    /// Puts `data` at `offset`; the file grows as needed, zeros in between.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        self.reserve(end);
        let pages = Arc::make_mut(&mut self.pages);
        let mut done = 0;
        while done < data.len() {
            let (page, within) = place(offset + done as u64);
            let n = (PAGE - within).min(data.len() - done);
            page_mut(&mut pages[page])[within..within + n].copy_from_slice(&data[done..done + n]);
            done += n;
        }
        self.len = self.len.max(end);
    }

    /// The same with bytes that mean nothing, as a sector holds after a cut in the midst of its write.
    pub(super) fn write_garbage(&mut self, range: Range<u64>, rng: &mut Random) {
        if range.is_empty() {
            return;
        }
        let mut garbage = vec![0; (range.end - range.start) as usize];
        for part in garbage.chunks_mut(8) {
            part.copy_from_slice(&rng.next_u64().to_le_bytes()[..part.len()]);
        }
        self.write(range.start, &garbage);
    }

    /// Cuts, or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, within) = place(len);
            let pages = Arc::make_mut(&mut self.pages);
            pages.truncate(if within == 0 { page } else { page + 1 });
            if within > 0
                && let Some(Some(last)) = pages.get_mut(page)
            {
                Arc::make_mut(last)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes over one page as it is in `other`, without changing the length.
    pub(super) fn take_page(&mut self, index: usize, other: &Content) {
        let page = other.pages.get(index).cloned().flatten();
        if index < self.pages.len() {
            Arc::make_mut(&mut self.pages)[index] = page;
        }
    }

    fn reserve(&mut self, end: u64) {
        let needed = end.div_ceil(PAGE as u64) as usize;
        if self.pages.len() < needed {
            Arc::make_mut(&mut self.pages).resize(needed, None);
        }
    }
}

/// Number of the page that holds `offset`, and the place within it.
fn place(offset: u64) -> (usize, usize) {
    ((offset / PAGE as u64) as usize, (offset % PAGE as u64) as usize)
}

fn page_mut(slot: &mut Option<Arc<Page>>) -> &mut Page {
    Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE])))
}
