//! The real disk, on the file system that holds temporary files, over both backends.
#![allow(unsafe_code)]

use super::super::{Dir, Disk, File, read_full_at, write_all_at};
use super::file::RealFile;
use super::{Backend, RealDisk, sys, wished};
use crate::base::limits::BLOCK_BYTES;
use crate::base::sync::Arc;
use std::ffi::CString;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) fn disk() -> RealDisk {
    RealDisk::with_backend(64, Backend::Threads, "test")
}

pub(super) fn dir(path: &Path) -> Arc<dyn Dir> {
    disk().open_dir(path).unwrap()
}

/// All backends that work here; says so when that is one only.
#[allow(clippy::print_stderr)]
pub(super) fn backends(queue_depth: u32) -> Vec<RealDisk> {
    let ring = RealDisk::with_backend(queue_depth, Backend::Ring, "");
    let threads = RealDisk::with_backend(queue_depth, Backend::Threads, "test");
    assert_eq!(threads.backend(), ("threads", "test".to_owned()));
    if ring.backend().0 == "io_uring" {
        return vec![ring, threads];
    }
    eprintln!("io_uring is not tested: {}", ring.backend().1);
    vec![threads]
}

/// Runs the test `name` again in a process of its own, for what a process can do only once.
pub(super) fn alone(name: &str) -> bool {
    if std::env::var("KVBATCH_TEST_ALONE").as_deref() == Ok(name) {
        return true;
    }
    let full = format!("io::real::{name}");
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &full, "--nocapture"])
        .env("KVBATCH_TEST_ALONE", name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("1 passed"), "{} {said}", run.status);
    false
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

/// Bytes that tell their place.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

#[test]
fn directories_are_made_with_all_above_them() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("a/b/../c");
    let dir = dir(&path);
    assert_eq!(dir.list().unwrap(), Vec::<String>::new());
    assert_eq!(std::fs::metadata(tmp.path().join("a/c")).unwrap().permissions().mode() & 0o777, 0o700);
    let file = dir.create("x").unwrap();
    assert_eq!(std::fs::metadata(path.join("x")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(dir.list().unwrap(), ["x"]);
    assert_eq!(errno(dir.create("x")), Some(libc::EEXIST));
    assert_eq!(errno(dir.open("y")), Some(libc::ENOENT));
    assert_eq!(errno(disk().open_dir(&path.join("x"))), Some(libc::ENOTDIR));
    assert_eq!(errno(disk().open_dir(&path.join("x/y"))), Some(libc::ENOTDIR));
    dir.sync().unwrap();
    file.sync().unwrap();
    dir.remove("x").unwrap();
    assert_eq!(errno(dir.remove("x")), Some(libc::ENOENT));
}

#[test]
fn names_do_not_lead_out_of_the_directory() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = dir(tmp.path());
    for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
        assert_eq!(dir.open(name).err().unwrap().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(dir.create(name).err().unwrap().kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[test]
fn only_regular_files_are_opened() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = dir(tmp.path());
    std::fs::write(tmp.path().join("target"), b"x").unwrap();
    std::os::unix::fs::symlink("target", tmp.path().join("link")).unwrap();
    assert_eq!(errno(dir.open("link")), Some(libc::ELOOP));
    assert_eq!(errno(dir.lock("link")), Some(libc::ELOOP));
    std::fs::create_dir(tmp.path().join("dir")).unwrap();
    assert_eq!(errno(dir.open("dir")), Some(libc::EISDIR));
    let fifo = std::ffi::CString::new(tmp.path().join("fifo").to_str().unwrap()).unwrap();
    // SAFETY: the path is NUL-terminated.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    assert_eq!(dir.open("fifo").err().unwrap().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(dir.lock("fifo").err().unwrap().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(dir.lock_holder("fifo"), None);
}

#[test]
fn beginning_to_write_out_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let file = dir(tmp.path()).create("f").unwrap();
    let bytes = pattern(10_000);
    write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0, false).unwrap();
    for (offset, len) in [(0, 8192), (4096, 1 << 20), (u64::MAX, 1)] {
        file.begin_write_out(offset, len);
    }
    let mut read = vec![0; 20_000];
    assert_eq!(crate::io::read_full_at(&*file, &mut read, 0).unwrap(), bytes.len());
    assert_eq!(&read[..bytes.len()], bytes);
    file.sync().unwrap();
}

#[test]
fn what_was_written_is_read_back() {
    let tmp = tempfile::tempdir().unwrap();
    let file = dir(tmp.path()).create("f").unwrap();
    let bytes = pattern(3000 * 7);
    for durable in [false, true] {
        let mut pieces: Vec<IoSlice<'_>> = bytes.chunks(7).map(IoSlice::new).collect();
        assert_eq!(write_all_at(&*file, &mut pieces, 100, durable).unwrap(), 3, "1024 pieces go in one call");
        let mut back = vec![1; bytes.len() + 200];
        assert_eq!(read_full_at(&*file, &mut back, 0).unwrap(), bytes.len() + 100);
        assert!(back[..100] == [0; 100] && back[100..bytes.len() + 100] == bytes);
        file.sync().unwrap();
        file.set_len(0).unwrap();
        assert_eq!(file.len().unwrap(), 0);
    }
    assert_eq!(errno(file.set_len(u64::MAX)), Some(libc::EFBIG));
}

#[test]
fn space_is_taken_without_a_change_to_what_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(b"written before")], 0, false).unwrap();
    file.take_space(0, 5000).unwrap();
    file.take_space(7, 100).unwrap();
    write_all_at(&*file, &mut [IoSlice::new(b"after")], 4000, false).unwrap();
    let mut wanted = [&b"written before"[..], &[0; 4986]].concat();
    wanted[4000..4005].copy_from_slice(b"after");
    let mut back = vec![1; 6000];
    assert_eq!(read_full_at(&*file, &mut back, 0).unwrap(), 5000);
    assert_eq!(back[..5000], wanted);
    assert_eq!(errno(file.take_space(0, u64::MAX)), Some(libc::EFBIG));
    assert_eq!(errno(file.take_space(1 << 62, 1 << 62)), Some(libc::EFBIG));
    assert_eq!(file.len().unwrap(), 5000);
}

#[test]
fn errors_keep_their_number() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = RealFile::of(full.into(), false).unwrap();
    assert_eq!(errno(file.write_at(&[IoSlice::new(b"x")], 0, false)), Some(libc::ENOSPC));
    assert_eq!(errno(file.write_at(&[IoSlice::new(b"x")], 0, true)), Some(libc::ENOSPC));
    assert_eq!(errno(file.read_at(&mut [0], 0)), Some(libc::EBADF));
    assert_eq!(errno(file.sync()), Some(libc::EINVAL));
}

/// As a host program does that closes all descriptors and opens files of its own: `fd` is `other` from now on.
pub(super) fn put_over(fd: RawFd, other: &std::fs::File) {
    // SAFETY: only numbers.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
}

#[test]
fn a_stranger_file_is_neither_trusted_nor_closed() {
    let tmp = tempfile::tempdir().unwrap();
    let file = dir(tmp.path()).create("f").unwrap();
    let fd = file.descriptor().unwrap();
    let other = std::fs::OpenOptions::new().create(true).truncate(true).read(true).write(true).open(tmp.path().join("other")).unwrap();
    put_over(fd, &other);
    assert_eq!(errno(file.sync()), Some(libc::EBADF));
    for durable in [false, true] {
        assert_eq!(errno(file.write_at(&[IoSlice::new(b"x")], 0, durable)), Some(libc::EBADF));
    }
    assert_eq!(errno(file.set_len(10)), Some(libc::EBADF));
    assert_eq!(errno(file.allocate(10)), Some(libc::EBADF));
    assert_eq!(errno(file.take_space(0, 10)), Some(libc::EBADF));
    assert_eq!(other.metadata().unwrap().len(), 0, "written to the stranger's file");
    drop(file);
    // SAFETY: only asks about the descriptor.
    assert_ne!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1, "the stranger's file was closed");
}

#[test]
fn a_stranger_file_in_the_place_of_the_direct_descriptor_is_not_written_to() {
    let tmp = tempfile::tempdir().unwrap();
    let fd =
        sys::open_at(libc::AT_FDCWD, &CString::new(tmp.path().join("f").to_str().unwrap()).unwrap(), libc::O_RDWR | libc::O_CREAT, 0o600)
            .unwrap();
    let file = RealFile::of(fd, false).unwrap();
    let Some(direct) = file.direct() else { return };
    let other = std::fs::OpenOptions::new().create(true).truncate(true).read(true).write(true).open(tmp.path().join("other")).unwrap();
    put_over(direct.as_raw_fd(), &other);
    let memory = vec![7; 3 * BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    for durable in [false, true] {
        assert_eq!(errno(file.write_at(&[IoSlice::new(&memory[start..start + BLOCK_BYTES])], 0, durable)), Some(libc::EBADF));
    }
    assert_eq!(other.metadata().unwrap().len(), 0, "written to the stranger's file");
}

#[test]
fn a_deleted_file_promises_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = dir(tmp.path());
    let file = dir.create("f").unwrap();
    file.sync().unwrap();
    dir.remove("f").unwrap();
    assert_eq!(errno(file.sync()), Some(libc::ESTALE));
    assert_eq!(errno(file.write_at(&[IoSlice::new(b"x")], 0, true)), Some(libc::ESTALE));
    assert_eq!(file.write_at(&[IoSlice::new(b"x")], 0, false).unwrap(), 1);
}

#[test]
fn one_holds_the_lock() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = dir(tmp.path());
    assert_eq!(dir.lock_holder("LOCK"), None);
    let held = dir.lock("LOCK").unwrap();
    assert_eq!(dir.lock_holder("LOCK"), Some(std::process::id().to_string()));
    let started = std::time::Instant::now();
    assert_eq!(dir.lock("LOCK").err().unwrap().kind(), io::ErrorKind::WouldBlock);
    assert!(started.elapsed().as_millis() >= 900, "a lock is waited for");
    drop(held);
    let held = dir.lock("LOCK").unwrap();
    let waiter = std::thread::spawn({
        let path = tmp.path().to_owned();
        move || disk().open_dir(&path).unwrap().lock("LOCK").is_ok()
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(held);
    assert!(waiter.join().unwrap(), "a lock let go in time is taken");
}

#[test]
fn a_lock_file_that_was_replaced_is_no_lock() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = dir(tmp.path());
    let old = dir.lock("LOCK").unwrap();
    dir.remove("LOCK").unwrap();
    let new = dir.lock("LOCK").unwrap();
    drop(old);
    assert!(dir.lock("LOCK").is_err(), "the old guard must not let go of the new lock");
    drop(new);
}

#[test]
fn a_child_lets_go_of_the_locks() {
    if !alone("tests::a_child_lets_go_of_the_locks") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let dir = dir(tmp.path());
    let held = dir.lock("LOCK").unwrap();
    let mut pipe = [0; 2];
    // SAFETY: a place for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child makes only calls that are allowed after fork, and ends without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        super::close_locks_in_child();
        // SAFETY: descriptors of this process; the child ends when the parent closes its end.
        unsafe {
            libc::close(pipe[1]);
            let mut byte = 0u8;
            libc::read(pipe[0], (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(dir.lock("LOCK").is_err(), "the parent still holds it");
    // As if the parent died: its descriptor is closed, nothing is unlocked.
    super::close_locks_in_child();
    drop(held);
    let again = dir.lock("LOCK");
    // SAFETY: descriptors and child of this process.
    unsafe {
        libc::close(pipe[1]);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    assert!(again.is_ok(), "the child kept the lock");
}

#[test]
fn the_limit_of_file_sizes_is_an_error_not_a_signal() {
    if !alone("tests::the_limit_of_file_sizes_is_an_error_not_a_signal") {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let file = dir(tmp.path()).create("f").unwrap();
    let limit = libc::rlimit { rlim_cur: 1000, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is valid for the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
    let bytes = [7; 600];
    assert_eq!(file.write_at(&[IoSlice::new(&bytes)], 0, false).unwrap(), 600);
    for durable in [false, true] {
        let mut pieces = [IoSlice::new(&bytes)];
        assert_eq!(errno(write_all_at(&*file, &mut pieces, 600, durable)), Some(libc::EFBIG));
    }
    assert_eq!(errno(file.set_len(1001)), Some(libc::EFBIG));
    assert_eq!(file.len().unwrap(), 1000);
    // SAFETY: plain data, filled by the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut set);
        assert_eq!(libc::sigismember(&set, libc::SIGXFSZ), 0, "none is left pending");
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
        assert_eq!(libc::sigismember(&set, libc::SIGXFSZ), 0, "the mask is as it was");
        // What runs when the process ends may write too: counters of coverage do.
        let no_limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &no_limit), 0);
    }
}

#[test]
fn words_for_backends() {
    assert_eq!(wished("").0, Backend::Auto);
    assert_eq!(wished("auto").0, Backend::Auto);
    assert_eq!(wished("uring").0, Backend::Ring);
    assert_eq!(wished("threads"), (Backend::Threads, "KVBATCH_IO=threads"));
    let (backend, said) = wished("thread");
    assert!(backend == Backend::Auto && said.contains("unknown value"));
}
