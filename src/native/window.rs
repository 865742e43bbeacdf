//! A window that slides over a file, for readers that go through it once, from front to back.

use crate::io::{File, read_full_at};
use std::io;

/// Bytes that are read at a time.
const WINDOW_BYTES: usize = 4 << 20;

/// See the top of this file.
pub struct Window<'a> {
    file: &'a dyn File,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// A window over the first `end` bytes of `file`.
    pub fn new(file: &'a dyn File, end: u64) -> Window<'a> {
        Window { file, end, start: 0, bytes: Vec::new() }
    }

    /// The `len` bytes at `offset`; `None` if they are not all there. An I/O error is never taken for the end.
    pub fn bytes(&mut self, offset: u64, len: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.end) else { return Ok(None) };
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let wanted = (len as usize).max(WINDOW_BYTES).min((self.end - offset) as usize);
            self.bytes.clear();
            self.bytes.try_reserve(wanted).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
            self.bytes.resize(wanted, 0);
            let got = read_full_at(self.file, &mut self.bytes, offset)?;
            self.bytes.truncate(got);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..from + len as usize))
    }
}
