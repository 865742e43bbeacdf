//! A window that slides over a file, for readers that go through it once, from front to back.

use crate::base::planted::{Bug, planted};
use crate::io::{File, read_full_at};
use std::io;

/// Bytes that are read at a time.
const WINDOW_BYTES: usize = 4 << 20;

/// See the top of this file.
pub struct Window<'a> {
    file: &'a dyn File,
    end: u64,
    start: u64,
    /// Kept as long as it ever was: what is not filled is left over from before.
    bytes: Vec<u8>,
    filled: usize,
}

impl<'a> Window<'a> {
    /// A window over the first `end` bytes of `file`.
    pub fn new(file: &'a dyn File, end: u64) -> Window<'a> {
        Window { file, end, start: 0, bytes: Vec::new(), filled: 0 }
    }

    /// The `len` bytes at `offset`; `None` if they are not all there. An I/O error is never taken for the end.
    pub fn bytes(&mut self, offset: u64, len: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.end) else { return Ok(None) };
        if offset < self.start || end > self.start + self.filled as u64 {
            let wanted = (len as usize).max(WINDOW_BYTES).min((self.end - offset) as usize);
            self.filled = 0;
            if wanted > self.bytes.len() {
                let more = wanted - self.bytes.len();
                self.bytes.try_reserve_exact(more).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
                self.bytes.resize(wanted, 0);
            }
            let read = read_full_at(self.file, &mut self.bytes[..wanted], offset);
            self.filled = read.or_else(|error| if planted(Bug::ReadErrorIsEnd) { Ok(0) } else { Err(error) })?;
            self.start = offset;
        }
        Ok(self.held(offset, len))
    }

    /// The bytes from `offset` to `end`, as far as the window stands over them.
    pub fn held_up_to(&self, offset: u64, end: u64) -> &[u8] {
        let len = end.min(self.start + self.filled as u64).saturating_sub(offset);
        self.held(offset, len).unwrap_or_default()
    }

    /// The `len` bytes at `offset`, if the window stands over all of them.
    pub fn held(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = from.checked_add(usize::try_from(len).ok()?)?;
        self.bytes[..self.filled].get(from..end)
    }
}
