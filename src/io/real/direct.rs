//! The way past the page cache: a second descriptor of a file, for which the kernel moves bytes between the device and
//! the caller's memory, and nothing in between.
//!
//! `file` writes durable blocks that way. It is only ever faster: where it
//! cannot be had (some file systems, no `/proc`, no descriptor left) everything goes through the page cache. Must never
//! be used for what does not begin and end at blocks, in memory as in the file.
#![allow(unsafe_code)]

use super::descriptor::Descriptor;
use super::sys;
use crate::base::limits::BLOCK_BYTES;
use crate::base::sync::OnceLock;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

/// The second descriptor of a file, made when it is first wanted.
#[derive(Default)]
pub(super) struct Direct {
    opened: OnceLock<Option<Descriptor>>,
    /// A write went this way.
    has_written: AtomicBool,
    /// A write was refused as such: what the kernel says of the file system was not true.
    refuses_writes: AtomicBool,
}

impl Direct {
    /// The descriptor; `None` where there is no such way.
    pub(super) fn of(&self, file: &Descriptor, access: libc::c_int) -> Option<&Descriptor> {
        self.opened.get_or_init(|| open_again(file, access)).as_ref()
    }

    /// Whether it takes writes, as far as is known.
    pub(super) fn takes_writes(&self) -> bool {
        !self.refuses_writes.load(Ordering::Relaxed)
    }

    /// A write went this way, so it can be had.
    pub(super) fn saw_a_write(&self) {
        if !self.has_written.load(Ordering::Relaxed) {
            self.has_written.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a write failed because there is no such way, and not because of the device; then none is tried again. The same
    /// bytes go to the same place through the page cache, so whatever of them has got there already does no harm.
    pub(super) fn is_refusal(&self, error: &io::Error) -> bool {
        let refused = match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => true,
            // Where writes went this way before, the file system has other reasons, and these are errors.
            Some(libc::EINVAL) => !self.has_written.load(Ordering::Relaxed),
            _ => false,
        };
        if refused {
            self.refuses_writes.store(true, Ordering::Relaxed);
        }
        refused
    }
}

/// Opens the very file that is open, whatever its name is now; `None` also where the kernel does not say that whole blocks
/// are all it asks for (before 6.1 it never does).
fn open_again(file: &Descriptor, access: libc::c_int) -> Option<Descriptor> {
    // SAFETY: `statx` is plain data for which zeros are valid; the kernel fills it.
    let mut known: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the empty path is NUL-terminated, and `known` is a place of the right type.
    let told = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &mut known) };
    let suits = |align: u32| align > 0 && (BLOCK_BYTES as u32).is_multiple_of(align);
    if told != 0 || known.stx_mask & libc::STATX_DIOALIGN == 0 || !suits(known.stx_dio_mem_align) || !suits(known.stx_dio_offset_align) {
        return None;
    }
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let fd = sys::open_at(libc::AT_FDCWD, &path, access | libc::O_DIRECT | libc::O_NOCTTY, 0).ok()?;
    Descriptor::new(fd).ok().filter(|again| again.identity() == file.identity())
}

/// Whether these bytes may go past the page cache to or from `offset`.
pub(super) fn is_whole_blocks(bytes: &[u8], offset: u64) -> bool {
    let block = BLOCK_BYTES as u64;
    !bytes.is_empty()
        && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
        && offset.is_multiple_of(block)
        && (bytes.len() as u64).is_multiple_of(block)
}
