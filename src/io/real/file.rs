//! Files: positioned reads and writes, and syncs. Called through `io::File` and by the ring (the descriptor).
//!
//! Each method makes the one system call it is named for (two where the kernel lacks the durable write), so that
//! whoever plays faults at that height sees every one of them. Before a change, and behind what makes one durable, it asks
//! which file that is. Never: repeat a sync, hide an errno, write to a file that the host program has put in the place of
//! ours, or promise that bytes are durable in one that was deleted.
#![allow(unsafe_code)]

use super::super::{File, write_all_at};
use super::descriptor::Descriptor;
use super::direct::{self, Direct};
use super::limit::SizeLimit;
use super::sys;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Linux takes this many pieces in one call (UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// An open regular file.
pub(super) struct RealFile {
    fd: Descriptor,
    /// The same file, past the page cache.
    direct: Direct,
    /// The file system counts links: zero means deleted. Some in user space always say zero.
    counts_links: bool,
    /// Opened to read: it may lie where nothing can be written.
    read_only: bool,
    /// `RWF_DSYNC` was refused once: by an old kernel, or by this file system.
    no_durable_write: AtomicBool,
}

impl RealFile {
    /// Opens the regular file `name` in `dir`.
    pub(super) fn open(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<Self> {
        let read_only = flags & libc::O_ACCMODE == libc::O_RDONLY;
        let fd = sys::open_regular(dir, name, flags)?;
        // The ring takes O_NONBLOCK at its word and fails with EAGAIN instead of waiting for the disk.
        // SAFETY: the descriptor is ours and open.
        let flags = sys::retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
        // SAFETY: as above.
        sys::retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })?;
        Self::of(fd, read_only)
    }

    /// The file that is open.
    pub(super) fn of(fd: OwnedFd, read_only: bool) -> io::Result<Self> {
        let fd = Descriptor::new(fd)?;
        let counts_links = fd.check()?.st_nlink > 0;
        Ok(RealFile { fd, direct: Direct::default(), counts_links, read_only, no_durable_write: AtomicBool::new(false) })
    }

    /// An error if this may not be changed, or if it is not our file any more.
    fn check_ours(&self) -> io::Result<()> {
        if self.read_only { Err(io::Error::from_raw_os_error(libc::EROFS)) } else { self.fd.check().map(drop) }
    }

    /// An error if what was written just now can be no promise: it went to another file, or to one without a name.
    fn check_kept(&self, fd: &Descriptor) -> io::Result<()> {
        let stat = fd.check()?;
        if self.counts_links && stat.st_nlink == 0 { Err(io::Error::from_raw_os_error(libc::ESTALE)) } else { Ok(()) }
    }

    /// The way past the page cache, if there is one.
    pub(super) fn direct(&self) -> Option<&Descriptor> {
        self.direct.of(&self.fd, if self.read_only { libc::O_RDONLY } else { libc::O_RDWR })
    }

    /// Writes whole blocks past the page cache; `None` if they have to go through it.
    fn write_directly(&self, pieces: &[IoSlice<'_>], place: libc::off_t, durable: bool) -> Option<io::Result<usize>> {
        let [blocks] = pieces else { return None };
        if !direct::is_whole_blocks(blocks, place as u64) || (durable && self.no_durable_write.load(Ordering::Relaxed)) {
            return None;
        }
        let fd = self.direct().filter(|_| self.direct.takes_writes())?;
        if let Err(e) = fd.check() {
            return Some(Err(e));
        }
        let written = write(fd, pieces, place, if durable { libc::RWF_DSYNC } else { 0 });
        match &written {
            Err(e) if self.direct.is_refusal(e) => return None,
            Err(_) => return Some(written),
            Ok(_) => self.direct.saw_a_write(),
        }
        Some(if durable { self.check_kept(fd).and(written) } else { written })
    }

    fn write_durably(&self, pieces: &[IoSlice<'_>], place: libc::off_t) -> io::Result<usize> {
        if !self.no_durable_write.load(Ordering::Relaxed) {
            match write(&self.fd, pieces, place, libc::RWF_DSYNC) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
                    self.no_durable_write.store(true, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        let n = write(&self.fd, pieces, place, 0)?;
        // An interrupted sync must not look like an interrupted write: that one would be made again.
        self.datasync().map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => io::Error::from_raw_os_error(libc::EIO),
            _ => e,
        })?;
        Ok(n)
    }

    /// Makes a file that is shorter `len` bytes long, without a hole. What it has already stays.
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        static PIECE: [u8; 1 << 16] = [0; 1 << 16];
        let mut at = File::len(self)?;
        if sys::free_bytes(self.fd.as_fd()).is_ok_and(|free| free < len.saturating_sub(at)) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC)); // sooner than by filling what is left
        }
        while at < len {
            let bytes = PIECE.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            at += write_all_at(self, &mut [IoSlice::new(&PIECE[..bytes])], at, false).map(|_| bytes as u64)?;
        }
        Ok(())
    }

    fn datasync(&self) -> io::Result<()> {
        // SAFETY: the descriptor is ours and open.
        match unsafe { libc::fdatasync(self.fd.as_raw_fd()) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(sys::stat(self.fd.as_fd())?.st_size as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // SAFETY: `buf` is writable for its whole length and outlives the call.
        let n = unsafe { libc::pread(self.fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), file_offset(offset)?) };
        if n == -1 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64, durable: bool) -> io::Result<usize> {
        self.check_ours()?;
        let pieces = &pieces[..pieces.len().min(PIECES_MAX)];
        let bytes: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        let place = file_offset(offset)?;
        let _limit = SizeLimit::before_growing_to(offset.saturating_add(bytes));
        if let Some(written) = self.write_directly(pieces, place, durable) {
            return written;
        }
        if !durable {
            return write(&self.fd, pieces, place, 0);
        }
        let n = self.write_durably(pieces, place)?;
        self.check_kept(&self.fd)?;
        Ok(n)
    }

    fn sync(&self) -> io::Result<()> {
        self.fd.check()?;
        match self.datasync() {
            // Media that cannot be written have nothing to sync, and say it with these.
            Err(e) if self.read_only && matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EROFS)) => return Ok(()),
            other => other?,
        }
        self.check_kept(&self.fd)
    }

    fn begin_write_out(&self, offset: u64, len: u64) {
        if let (Ok(from), Ok(len)) = (file_offset(offset), file_offset(len))
            && self.check_ours().is_ok()
        {
            // Without the flags that wait it neither sees nor clears the errors that a sync reports.
            // SAFETY: the descriptor is ours and open.
            let _ = unsafe { libc::sync_file_range(self.fd.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
        }
    }

    fn forget(&self) {
        // Advice: where it is not taken, reads show what they showed before.
        // SAFETY: the descriptor is ours and open.
        let _ = unsafe { libc::posix_fadvise(self.fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_ours()?;
        let place = file_offset(len)?;
        let _limit = SizeLimit::before_growing_to(len);
        // SAFETY: the descriptor is ours and open.
        sys::retry(|| unsafe { libc::ftruncate(self.fd.as_raw_fd(), place) })?;
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_ours()?;
        let end = file_offset(len)?;
        let _limit = SizeLimit::before_growing_to(len);
        // SAFETY: the descriptor is ours and open.
        match sys::retry(|| unsafe { libc::fallocate(self.fd.as_raw_fd(), 0, 0, end) }) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => self.write_zeros(len),
            other => other.map(drop),
        }
    }

    fn take_space(&self, from: u64, len: u64) -> io::Result<()> {
        self.check_ours()?;
        let (place, bytes) = (file_offset(from)?, file_offset(len)?);
        let _limit = SizeLimit::before_growing_to(from.saturating_add(len));
        // SAFETY: the descriptor is ours and open.
        sys::retry(|| unsafe { libc::fallocate(self.fd.as_raw_fd(), 0, place, bytes) }).map(drop)
    }

    fn has_one_name(&self) -> io::Result<bool> {
        Ok(self.fd.check()?.st_nlink == 1)
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.fd.as_raw_fd())
    }
}

/// One `pwritev2`; where the C library or the kernel has none, `pwritev`.
fn write(fd: &Descriptor, pieces: &[IoSlice<'_>], offset: libc::off_t, flags: libc::c_int) -> io::Result<usize> {
    let fd = fd.as_raw_fd();
    let count = pieces.len() as libc::c_int;
    let iovecs = pieces.as_ptr().cast::<libc::iovec>();
    // SAFETY: `IoSlice` has the layout of `iovec` by its documentation; all pieces outlive the call.
    let mut n = unsafe { libc::pwritev2(fd, iovecs, count, offset, flags) };
    if n == -1 && flags == 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        // SAFETY: as above.
        n = unsafe { libc::pwritev(fd, iovecs, count, offset) };
    }
    if n == -1 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// An offset as the kernel takes it: signed.
fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}
