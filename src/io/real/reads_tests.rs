//! Many reads at once: through the ring, through threads, and from the one to the other when the ring fails.
#![allow(unsafe_code)]

use super::super::{Disk, File, ReadAt, ReadMany, ReadManyReport, write_all_at};
use super::tests::{alone, backends, dir, disk, pattern, put_over};
use super::{Backend, RealDisk};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A file that is none of ours: only a descriptor, or not even that.
struct Odd(Option<RawFd>);

impl File for Odd {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_at(&self, buf: &mut [u8], _: u64) -> io::Result<usize> {
        match self.0 {
            Some(_) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            None => {
                buf[0] = 42;
                Ok(1)
            }
        }
    }
    fn write_at(&self, _: &[IoSlice<'_>], _: u64, _: bool) -> io::Result<usize> {
        Ok(0)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn take_space(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn descriptor(&self) -> Option<RawFd> {
        self.0
    }
}

/// Reads `count` places of a file of `pattern` in one call, and checks each.
fn read_places(disk: &RealDisk, file: &dyn File, all: &[u8], count: usize, how: ReadMany) -> ReadManyReport {
    let mut bufs: Vec<Vec<u8>> = (0..count).map(|i| vec![0; i * 37 % 5000]).collect();
    let offset = |i: usize| (i * 7919 % (all.len() + 3000)) as u64;
    let mut reads: Vec<ReadAt<'_>> =
        bufs.iter_mut().enumerate().map(|(i, buf)| ReadAt { file, offset: offset(i), buf, result: Ok(9) }).collect();
    let mut told = vec![0; count];
    let report = disk.read_many(&mut reads, &how, &mut |i, read| {
        told[i] += 1;
        let len = *read.result.as_ref().unwrap();
        assert!(len == 0 || read.buf[..len] == all[offset(i) as usize..][..len], "read {i} has ended");
    });
    assert_eq!(told, vec![1; count]);
    for (i, read) in reads.iter().enumerate() {
        let there = all.get(offset(i) as usize..).unwrap_or_default();
        let expected = &there[..there.len().min(read.buf.len())];
        assert_eq!(*read.result.as_ref().unwrap(), expected.len(), "read {i}");
        assert!(&read.buf[..expected.len()] == expected, "read {i}");
    }
    report
}

#[test]
fn many_reads_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let all = pattern(1_000_000);
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
    for disk in backends(32) {
        let ring = disk.backend().0 == "io_uring";
        for (count, depth) in [(0, 8), (1, 8), (7, 1), (100, 1), (500, 8), (2000, 32), (2000, 1000)] {
            for polling in [false, true] {
                let report = read_places(&disk, &*file, &all, count, ReadMany { depth, polling });
                assert!(report.in_flight_max <= u64::from(depth), "{report:?}");
                assert_eq!(report.through_ring > 0, ring && count > 1, "{report:?}");
                assert_eq!(report.polled > 0, ring && polling && count > 1, "{report:?}");
                if ring && count >= 500 {
                    assert_eq!(report.in_flight_max, u64::from(depth.min(32)), "{report:?}");
                }
            }
        }
    }
}

#[test]
fn each_read_has_its_own_result() {
    let tmp = tempfile::tempdir().unwrap();
    let all = pattern(10_000);
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
    let directory = std::fs::File::open(tmp.path()).unwrap();
    let (bad, made_up) = (Odd(Some(directory.as_raw_fd())), Odd(None));
    for disk in backends(8) {
        let mut bufs = vec![[0u8; 100]; 60];
        let mut reads: Vec<ReadAt<'_>> = bufs
            .iter_mut()
            .enumerate()
            .map(|(i, buf)| {
                let file: &dyn File = [&*file, &bad as &dyn File, &made_up][i % 3];
                ReadAt { file, offset: i as u64 * 50, buf, result: Ok(0) }
            })
            .collect();
        disk.read_many(&mut reads, &ReadMany { depth: 8, polling: false }, &mut |_, _| ());
        for (i, read) in reads.iter().enumerate() {
            match i % 3 {
                0 => assert!(read.result.as_ref().is_ok_and(|n| *n == 100) && read.buf[..] == all[i * 50..i * 50 + 100]),
                1 => assert_eq!(read.result.as_ref().err().and_then(io::Error::raw_os_error), Some(libc::EISDIR)),
                _ => assert!(read.result.as_ref().is_ok_and(|n| *n == 100) && read.buf[..] == [42; 100]),
            }
        }
    }
}

#[test]
fn a_panic_while_reads_are_in_flight_waits_for_them() {
    let tmp = tempfile::tempdir().unwrap();
    let all = pattern(1_000_000);
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
    for disk in backends(32) {
        file.forget();
        let mut bufs = vec![vec![0; 3000]; 100];
        let mut reads: Vec<ReadAt<'_>> =
            bufs.iter_mut().enumerate().map(|(i, buf)| ReadAt { file: &*file, offset: i as u64 * 9000, buf, result: Ok(0) }).collect();
        let mut told = 0;
        let mut third = |_: usize, _: &ReadAt<'_>| {
            told += 1;
            assert!(told < 3, "planted");
        };
        let caught = catch_unwind(AssertUnwindSafe(|| {
            disk.read_many(&mut reads, &ReadMany { depth: 32, polling: false }, &mut third).in_flight_max
        }));
        assert!(caught.is_err());
        bufs.fill(vec![7; 3000]);
        read_places(&disk, &*file, &all, 300, ReadMany { depth: 8, polling: false });
        assert!(bufs.iter().flatten().all(|byte| *byte == 7), "a read was still in flight");
    }
}

#[test]
fn a_ring_that_breaks_is_replaced_by_threads() {
    let tmp = tempfile::tempdir().unwrap();
    let all = pattern(1_000_000);
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
    let Some(disk) = backends(8).into_iter().find(|disk| disk.backend().0 == "io_uring") else { return };
    let fd = disk.rings.lock()[0].descriptor();
    put_over(fd, &std::fs::File::open("/dev/null").unwrap());
    read_places(&disk, &*file, &all, 300, ReadMany { depth: 8, polling: false });
    let (backend, reason) = disk.backend();
    assert!(backend == "threads" && reason.starts_with("io_uring stopped working"), "{backend} {reason}");
    read_places(&disk, &*file, &all, 300, ReadMany { depth: 8, polling: false });
    drop(disk);
    // SAFETY: only asks about the descriptor.
    assert_ne!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1, "the stranger's file was closed");
}

#[test]
fn threads_end_with_the_disk() {
    let disk = disk();
    let (shared, mut bufs) = (disk.pool.watch(), vec![[0u8; 8]; 64]);
    let slow = Slow;
    let mut reads: Vec<ReadAt<'_>> = bufs.iter_mut().map(|buf| ReadAt { file: &slow, offset: 0, buf, result: Ok(0) }).collect();
    let report = disk.read_many(&mut reads, &ReadMany { depth: 4, polling: true }, &mut |_, _| ());
    assert!((2..=4).contains(&report.in_flight_max) && report.polled == 0, "{report:?}");
    assert!(reads.iter().all(|read| read.result.as_ref().is_ok_and(|n| *n == 8)));
    assert!(shared.strong_count() > 1);
    drop(disk);
    assert_eq!(shared.strong_count(), 0);
}

/// A file on a slow device.
struct Slow;

impl File for Slow {
    fn len(&self) -> io::Result<u64> {
        Ok(8)
    }
    fn read_at(&self, buf: &mut [u8], _: u64) -> io::Result<usize> {
        std::thread::sleep(std::time::Duration::from_millis(1));
        Ok(buf.len())
    }
    fn write_at(&self, _: &[IoSlice<'_>], _: u64, _: bool) -> io::Result<usize> {
        Ok(0)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn take_space(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

#[test]
fn many_threads_read_at_a_time() {
    let tmp = tempfile::tempdir().unwrap();
    let all = pattern(1_000_000);
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
    for disk in backends(16) {
        std::thread::scope(|scope| {
            for n in 0..12 {
                let (disk, file, all) = (&disk, &file, &all);
                scope.spawn(move || {
                    for _ in 0..10 {
                        read_places(disk, &**file, all, 50 + n * 10, ReadMany { depth: 16, polling: n % 2 == 0 });
                    }
                });
            }
        });
        assert!(disk.rings.lock().len() <= super::IDLE_RINGS_MAX);
    }
}

/// From now on, the kernel answers this thread, and those it makes, on `calls` with `action` of seccomp.
fn filter(calls: &[libc::c_long], action: u32) {
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        program.push(jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32, 0, 1));
        program.push(jump(libc::BPF_RET | libc::BPF_K, action, 0, 0));
    }
    program.push(jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

const SETUP: libc::c_long = libc::SYS_io_uring_setup;
const ENTER: libc::c_long = libc::SYS_io_uring_enter;
const REGISTER: libc::c_long = libc::SYS_io_uring_register;

fn refuse(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

/// All reads are right, and none went through a ring.
fn reads_without_ring(disk: &RealDisk) {
    let tmp = tempfile::tempdir().unwrap();
    let all = pattern(100_000);
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
    let report = read_places(disk, &*file, &all, 300, ReadMany { depth: 8, polling: false });
    assert_eq!(report.through_ring, 0);
}

#[test]
fn where_rings_are_forbidden_threads_read() {
    if !alone("reads_tests::where_rings_are_forbidden_threads_read") {
        return;
    }
    filter(&[SETUP], refuse(libc::EPERM));
    for wish in [Backend::Auto, Backend::Ring] {
        let disk = RealDisk::with_backend(8, wish, "said so");
        let (backend, reason) = disk.backend();
        assert_eq!(backend, "threads");
        assert_eq!(reason, "said so; io_uring cannot be set up: Operation not permitted (os error 1)");
        reads_without_ring(&disk);
    }
}

#[test]
fn where_rings_can_be_made_but_not_run_threads_read() {
    if !alone("reads_tests::where_rings_can_be_made_but_not_run_threads_read") {
        return;
    }
    if backends(8).len() == 1 {
        return;
    }
    filter(&[ENTER], refuse(libc::EPERM));
    let disk = RealDisk::with_backend(8, Backend::Auto, "");
    assert_eq!(disk.backend(), ("threads", "io_uring does not run: Operation not permitted (os error 1)".to_owned()));
    reads_without_ring(&disk);
    filter(&[REGISTER], refuse(libc::ENOSYS));
    let disk = RealDisk::with_backend(8, Backend::Auto, "");
    assert_eq!(disk.backend(), ("threads", "io_uring cannot be probed: Function not implemented (os error 38)".to_owned()));
}

#[test]
fn a_ring_too_many_is_done_without() {
    if !alone("reads_tests::a_ring_too_many_is_done_without") {
        return;
    }
    let disk = RealDisk::with_backend(8, Backend::Auto, "");
    if disk.backend().0 != "io_uring" {
        return;
    }
    filter(&[SETUP], refuse(libc::ENOMEM));
    let taken = disk.take_ring();
    assert!(taken.is_some());
    reads_without_ring(&disk);
    assert_eq!(disk.backend().0, "io_uring", "and the next call may have one again");
}

#[test]
fn under_threads_nothing_of_rings_is_touched() {
    if !alone("reads_tests::under_threads_nothing_of_rings_is_touched") {
        return;
    }
    filter(&[SETUP, ENTER, REGISTER], libc::SECCOMP_RET_KILL_PROCESS);
    reads_without_ring(&disk());
}

#[test]
fn a_child_can_drop_the_disk() {
    if !alone("reads_tests::a_child_can_drop_the_disk") {
        return;
    }
    for disk in backends(8) {
        let mut bufs = [[0u8; 8]; 16];
        let mut reads: Vec<ReadAt<'_>> = bufs.iter_mut().map(|buf| ReadAt { file: &Slow, offset: 0, buf, result: Ok(0) }).collect();
        disk.read_many(&mut reads, &ReadMany { depth: 4, polling: false }, &mut |_, _| ());
        // SAFETY: the test's other threads sleep, so the child finds no lock taken; it ends without returning.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(disk);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        let mut status = 1;
        // SAFETY: a place for the status of our child.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        let (tmp, all) = (tempfile::tempdir().unwrap(), pattern(100_000));
        let file = dir(tmp.path()).create("f").unwrap();
        write_all_at(&*file, &mut [IoSlice::new(&all)], 0, false).unwrap();
        read_places(&disk, &*file, &all, 300, ReadMany { depth: 8, polling: false });
    }
}

#[test]
fn a_failing_ring_keeps_no_buffer() {
    let Some(disk) = backends(8).into_iter().find(|disk| disk.backend().0 == "io_uring") else { return };
    let tmp = tempfile::tempdir().unwrap();
    let file = dir(tmp.path()).create("f").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&[7; 8])], 0, false).unwrap();
    let mut ends = [0; 2];
    // SAFETY: a place for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // The read of a pipe stays in flight until somebody writes, while the others keep the call busy.
    let pipe = Odd(Some(ends[0]));
    let mut bufs = vec![[0u8; 8]; 1_000_000];
    let mut reads: Vec<ReadAt<'_>> = bufs.iter_mut().map(|buf| ReadAt { file: &*file, offset: 0, buf, result: Ok(0) }).collect();
    reads[0].file = &pipe;
    let ring_fd = disk.rings.lock()[0].descriptor();
    let returned = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            put_over(ring_fd, &std::fs::File::open("/dev/null").unwrap());
            std::thread::sleep(std::time::Duration::from_millis(200));
            let early = returned.load(std::sync::atomic::Ordering::SeqCst);
            // SAFETY: eight bytes for an open descriptor.
            assert_eq!(unsafe { libc::write(ends[1], [9u8; 8].as_ptr().cast(), 8) }, 8);
            assert!(!early, "the kernel still had a buffer");
        });
        disk.read_many(&mut reads, &ReadMany { depth: 8, polling: false }, &mut |_, _| ());
        returned.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(disk.backend().0, "threads", "the ring failed while reads were in flight");
    assert!(reads[0].result.as_ref().is_ok_and(|n| *n == 8) && reads[0].buf[..] == [9; 8]);
    assert!(reads[1..].iter().all(|read| read.result.as_ref().is_ok_and(|n| *n == 8) && read.buf[..] == [7; 8]));
}
