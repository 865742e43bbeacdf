//! Directories: opened once, everything below by name relative to the descriptor, so that a directory that is
//! renamed or replaced under a running store cannot lead its files astray. Called through `io::Dir`.
//!
//! When `open` returns, the directory itself survives a power cut, whoever made it.
#![allow(unsafe_code)]

use super::super::{Dir, File};
use super::descriptor::Descriptor;
use super::file::RealFile;
use super::{lock, sys};
use crate::base::sync::Arc;
use std::any::Any;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DIRECTORY: libc::c_int = libc::O_RDONLY | libc::O_DIRECTORY;

/// An open directory.
pub(super) struct RealDir {
    fd: Descriptor,
    /// Nothing in it is changed through this.
    read_only: bool,
}

impl RealDir {
    /// Opens `path`, after making it and what is missing above it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = match open_path(path) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                make(path)?;
                open_path(path)?
            }
            other => other?,
        };
        // Nobody has used it yet. It may be the work of a process that died between making and syncing it.
        if names(fd.as_fd())?.is_empty() {
            sync_upwards(fd.as_fd())?;
        }
        Ok(RealDir { fd: Descriptor::new(fd)?, read_only: false })
    }

    /// Opens `path`, which must be there, to read only.
    pub(super) fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(RealDir { fd: Descriptor::new(open_path(path)?)?, read_only: true })
    }

    /// The directory, if its descriptor is not a stranger's by now.
    fn ours(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.check()?;
        Ok(self.fd.as_fd())
    }

    /// The same, to make a change.
    fn ours_to_change(&self) -> io::Result<BorrowedFd<'_>> {
        if self.read_only { Err(io::Error::from_raw_os_error(libc::EROFS)) } else { self.ours() }
    }
}

impl Dir for RealDir {
    fn list(&self) -> io::Result<Vec<String>> {
        names(self.ours()?)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let (dir, name) = (self.ours_to_change()?, sys::file_name(name)?);
        Ok(Arc::new(RealFile::open(dir, &name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let name = sys::file_name(name)?;
        let access = if self.read_only { libc::O_RDONLY } else { libc::O_RDWR };
        Ok(Arc::new(RealFile::open(self.ours()?, &name, access)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (dir, name) = (self.ours_to_change()?, sys::file_name(name)?);
        // SAFETY: the descriptor is ours and open, the name is NUL-terminated.
        sys::retry(|| unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })?;
        Ok(())
    }

    fn link(&self, name: &str, to: &dyn Dir, new_name: &str) -> io::Result<()> {
        let elsewhere = || io::Error::from_raw_os_error(libc::EXDEV);
        let to = (to as &dyn Any).downcast_ref::<RealDir>().ok_or_else(elsewhere)?;
        let (from, to) = (self.ours()?, to.ours_to_change()?);
        let (name, new_name) = (sys::file_name(name)?, sys::file_name(new_name)?);
        // SAFETY: both descriptors are ours and open, both names are NUL-terminated.
        sys::retry(|| unsafe { libc::linkat(from.as_raw_fd(), name.as_ptr(), to.as_raw_fd(), new_name.as_ptr(), 0) })?;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        sys::sync(self.ours()?)
    }

    fn free_bytes(&self) -> Option<u64> {
        sys::free_bytes(self.fd.as_fd()).ok()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        let name = sys::file_name(name)?;
        if self.read_only {
            return Ok(Box::new(lock::share(self.ours()?, &name)?));
        }
        Ok(Box::new(lock::take(self.ours()?, &name)?))
    }

    fn lock_holder(&self, name: &str) -> Option<String> {
        lock::holder(self.fd.as_fd(), &sys::file_name(name).ok()?)
    }
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    sys::open_at(libc::AT_FDCWD, &c_path(path)?, DIRECTORY, 0)
}

/// The path for the kernel; nothing is the working directory.
fn c_path(path: &Path) -> io::Result<CString> {
    let bytes = path.as_os_str().as_bytes();
    Ok(CString::new(if bytes.is_empty() { b"." } else { bytes })?)
}

/// Makes `path` and what is missing above it, from the top down; each is synced, and then its parent.
fn make(path: &Path) -> io::Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    for above in path.ancestors() {
        match open_path(above) {
            Ok(_) => break,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => missing.push(above.to_owned()),
            Err(e) => return Err(e),
        }
    }
    for new in missing.iter().rev() {
        let name = c_path(new)?;
        // SAFETY: the path is NUL-terminated and outlives the call.
        match sys::retry(|| unsafe { libc::mkdir(name.as_ptr(), 0o700) }) {
            // Another process was faster; it may not have synced yet, so both are synced all the same.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            other => drop(other?),
        }
        let fd = open_path(new)?;
        sys::sync(fd.as_fd())?;
        sys::sync(sys::open_at(fd.as_raw_fd(), c"..", DIRECTORY, 0)?.as_fd())?;
    }
    Ok(())
}

/// Syncs this directory and those above it, to the root of its file system or to where this user may not look: what
/// is not ours to open was there before us.
fn sync_upwards(dir: BorrowedFd<'_>) -> io::Result<()> {
    sync_if_it_can_be(dir)?;
    let mut below = sys::stat(dir)?;
    let mut at = dir.try_clone_to_owned()?;
    loop {
        let Ok(parent) = sys::open_at(at.as_raw_fd(), c"..", DIRECTORY, 0) else { return Ok(()) };
        let stat = sys::stat(parent.as_fd())?;
        if stat.st_dev != below.st_dev || stat.st_ino == below.st_ino {
            return Ok(());
        }
        sync_if_it_can_be(parent.as_fd())?;
        (at, below) = (parent, stat);
    }
}

/// Some file systems (read-only ones, some in user space) do not sync directories: that is no failure to write.
fn sync_if_it_can_be(dir: BorrowedFd<'_>) -> io::Result<()> {
    match sys::sync(dir) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EROFS | libc::EOPNOTSUPP)) => Ok(()),
        other => other,
    }
}

/// A directory stream, closed when dropped.
struct Stream(*mut libc::DIR);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream came from `fdopendir` and is closed here only.
        unsafe { libc::closedir(self.0) };
    }
}

/// All names in `dir` but `.` and `..`.
fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    use std::os::fd::IntoRawFd;
    // A description of its own: the place in the directory belongs to it, and two lists may run at a time.
    let fd = sys::open_at(dir.as_raw_fd(), c".", DIRECTORY, 0)?.into_raw_fd();
    // SAFETY: `fd` is open and ours; on success the stream owns it.
    let stream = unsafe { libc::fdopendir(fd) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        // SAFETY: the stream did not take `fd`, so it is still ours.
        unsafe { libc::close(fd) };
        return Err(error);
    }
    let stream = Stream(stream);
    let mut names = Vec::new();
    loop {
        // SAFETY: errno is this thread's own; cleared because `readdir` tells the end from an error by it alone.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open and used by this thread only.
        let entry = unsafe { libc::readdir(stream.0) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(names) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next `readdir` of this stream, its name is NUL-terminated.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
        if name != c"." && name != c".." {
            names.push(name.to_string_lossy().into_owned());
        }
    }
}
