//! Small change of system calls: results, interruptions, names. Used by the rest of `real` only.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Repeats `call` while a signal interrupts it; -1 becomes the error that errno names.
pub(super) fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    loop {
        let ret = call();
        if ret != -1 {
            return Ok(ret);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A plain file name for the kernel: anything that could lead out of the directory is refused.
pub(super) fn file_name(name: &str) -> io::Result<CString> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
    }
    Ok(CString::new(name)?)
}

/// Opens `name` relative to `dir`; the descriptor is closed on exec.
pub(super) fn open_at(dir: RawFd, name: &CStr, flags: libc::c_int, mode: libc::mode_t) -> io::Result<OwnedFd> {
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel checks everything else.
    let fd = retry(|| unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC, libc::c_uint::from(mode)) })?;
    // SAFETY: the kernel has just made this descriptor for us, nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the regular file `name` in `dir`. Links are not followed, and anything else is refused without being waited
/// for: a FIFO or a device put in the place of a file must not stall us before we have looked at it.
///
/// The descriptor still is O_NONBLOCK, which means nothing to the calls on regular files.
pub(super) fn open_regular(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let fd = open_at(dir.as_raw_fd(), name, flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY, 0o600)?;
    match stat(fd.as_fd())?.st_mode & libc::S_IFMT {
        libc::S_IFREG => Ok(fd),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// What the kernel knows of an open file.
pub(super) fn stat(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: `stat` is plain data for which zeros are valid; the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `fd` is open while it is borrowed, and `stat` is a place of the right type.
    retry(|| unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
    Ok(stat)
}

/// The same for the name in a directory, symbolic links not followed.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::stat> {
    // SAFETY: `stat` is plain data for which zeros are valid; the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `dir` is open while it is borrowed, `name` is NUL-terminated, `stat` is a place of the right type.
    retry(|| unsafe { libc::fstatat(dir.as_raw_fd(), name.as_ptr(), &mut stat, libc::AT_SYMLINK_NOFOLLOW) })?;
    Ok(stat)
}

/// Bytes that this user may still write to the file system of an open file.
pub(super) fn free_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: `stat` is plain data for which zeros are valid; the kernel fills it.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `fd` is open while it is borrowed, and `stat` is a place of the right type.
    retry(|| unsafe { libc::fstatvfs(fd.as_raw_fd(), &mut stat) })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// `fsync`. An interruption is handed on: a sync that did not say yes is never repeated here.
pub(super) fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `fd` is open while it is borrowed.
    match unsafe { libc::fsync(fd.as_raw_fd()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
