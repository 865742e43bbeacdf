//! A file that goes on behind bytes which cannot be read: they count as zeros, and are remembered.
//!
//! For tools that want to see all that is left. Never for the engine itself, where an error is an error.

use crate::base::limits::BLOCK_BYTES;
use crate::base::sync::{Arc, Mutex};
use crate::io::File;
use std::io::{self, IoSlice};

/// See the top of this file.
pub struct PatientFile {
    inner: Arc<dyn File>,
    holes: Mutex<Vec<Hole>>,
}

/// Bytes that could not be read.
#[derive(Clone, Debug)]
pub struct Hole {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// What the system said.
    pub why: String,
}

impl PatientFile {
    /// Reads `inner`.
    pub fn new(inner: Arc<dyn File>) -> PatientFile {
        PatientFile { inner, holes: Mutex::default() }
    }

    /// What could not be read so far, in order, neighbours put together.
    pub fn holes(&self) -> Vec<Hole> {
        let mut holes = self.holes.lock().clone();
        holes.sort_by_key(|hole| hole.offset);
        holes.dedup_by(|next, hole| {
            let touches = next.offset <= hole.offset + hole.len;
            if touches {
                hole.len = hole.len.max(next.offset + next.len - hole.offset);
            }
            touches
        });
        holes
    }
}

impl File for PatientFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let error = match self.inner.read_at(buf, offset) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => error,
            other => return other,
        };
        // Block by block: one that fails must not hide its neighbours.
        let block = BLOCK_BYTES - (offset % BLOCK_BYTES as u64) as usize;
        let front = if buf.len() > block { &mut buf[..block] } else { buf };
        match self.inner.read_at(front, offset) {
            Err(again) if again.kind() != io::ErrorKind::Interrupted => {
                let len = (front.len() as u64).min(self.inner.len()?.saturating_sub(offset));
                front[..len as usize].fill(0);
                self.holes.lock().push(Hole { offset, len, why: error.to_string() });
                Ok(len as usize)
            }
            other => other,
        }
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64, _: bool) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::EROFS))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EROFS))
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EROFS))
    }

    fn take_space(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EROFS))
    }

    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}
