//! Both movers do the same: round trips, streams, cancels; and a ring whose descriptor is taken away hands over to threads.

use super::ring::RingMover;
use super::threads::ThreadMover;
use super::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

const WISHES: Wishes = Wishes { depth: 8, completions: 2, kernel_thread_idle_ms: None, polling: false, threads: 2 };

fn bell() -> Arc<Bell> {
    Arc::new(Bell::new().unwrap())
}

/// Every mover that works here.
fn movers() -> Vec<Box<dyn Mover>> {
    let mut movers: Vec<Box<dyn Mover>> = vec![Box::new(ThreadMover::new(&WISHES, &bell(), String::new()).unwrap())];
    if let Ok(ring) = RingMover::open(&WISHES, &bell(), "") {
        movers.push(Box::new(ring));
        let polling = Wishes { polling: true, ..WISHES };
        movers.push(Box::new(RingMover::open(&polling, &bell(), "").unwrap()));
    }
    movers
}

fn transfer(way: Way, fd: RawFd, bytes: &mut [u8], offset: i64) -> Transfer {
    // SAFETY: the tests keep their buffers until `finish` has seen the end.
    unsafe { Transfer::buffer(way, fd, bytes.as_mut_ptr().cast(), bytes.len(), offset) }
}

fn finish(mover: &mut dyn Mover, count: usize) -> BTreeMap<u32, i32> {
    let (mut done, mut turns) = (Vec::new(), 0);
    while done.len() < count {
        mover.turn(Duration::from_millis(20), &mut done);
        turns += 1;
        assert!(turns < 10_000, "{} of {count} have ended", done.len());
    }
    assert_eq!(done.len(), count);
    done.into_iter().map(|done| (done.key, done.result)).collect()
}

fn pipe() -> (File, File) {
    let (read, write) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(read)), File::from(OwnedFd::from(write)))
}

#[test]
fn what_is_written_is_read_back() {
    for mut mover in movers() {
        let file = tempfile::tempfile().unwrap();
        let mut out = [[1_u8; 1000], [2; 1000], [3; 1000]];
        for (key, bytes) in out.iter_mut().enumerate() {
            mover.begin(key as u32, transfer(Way::Write, file.as_raw_fd(), bytes, key as i64 * 1000));
        }
        assert_eq!(finish(&mut *mover, 3), BTreeMap::from([(0, 1000), (1, 1000), (2, 1000)]));
        mover.begin(7, Transfer::sync(file.as_raw_fd()));
        assert_eq!(finish(&mut *mover, 1)[&7], 0);
        let (mut all, mut beyond) = (vec![0; 2500], vec![0; 1000]);
        mover.begin(1, transfer(Way::Read, file.as_raw_fd(), &mut all, 500));
        mover.begin(2, transfer(Way::Read, file.as_raw_fd(), &mut beyond, 2900));
        assert_eq!(finish(&mut *mover, 2), BTreeMap::from([(1, 2500), (2, 100)]));
        assert!(all[..500] == [1; 500] && all[500..1500] == [2; 1000] && all[1500..] == [3; 1000]);
    }
}

#[test]
fn pieces_follow_each_other() {
    let file = tempfile::tempfile().unwrap();
    let (mut a, mut b) = (*b"abc", *b"defgh");
    let pieces = |a: &mut [u8], b: &mut [u8]| {
        vec![a, b].into_iter().map(|x| iovec { iov_base: x.as_mut_ptr().cast(), iov_len: x.len() }).collect::<Vec<_>>()
    };
    for mut mover in movers() {
        // SAFETY: `a` and `b` stay until `finish` has seen the end; here and below.
        mover.begin(0, unsafe { Transfer::pieces(Way::Write, file.as_raw_fd(), pieces(&mut a, &mut b), 10) });
        assert_eq!(finish(&mut *mover, 1)[&0], 8);
        let (mut x, mut y) = ([0; 5], [0; 9]);
        // SAFETY: as above.
        mover.begin(0, unsafe { Transfer::pieces(Way::Read, file.as_raw_fd(), pieces(&mut x, &mut y), 10) });
        assert_eq!(finish(&mut *mover, 1)[&0], 8);
        assert_eq!((&x, &y[..3]), (b"abcde", &b"fgh"[..]));
    }
}

#[test]
fn a_short_call_goes_on_where_it_stopped() {
    let mut bytes = [0_u8; 10];
    let mut other = [0_u8; 6];
    let base = bytes.as_mut_ptr().addr();
    let pieces = vec![
        iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 10 },
        iovec { iov_base: other.as_mut_ptr().cast(), iov_len: 0 },
        iovec { iov_base: other.as_mut_ptr().cast(), iov_len: 6 },
    ];
    let file = tempfile::tempfile().unwrap();
    // SAFETY: never carried out.
    let mut t = unsafe { Transfer::pieces(Way::Write, file.as_raw_fd(), pieces, 100) };
    assert_eq!(t.after_call(4, false), None);
    assert_eq!((t.position(), t.rest()[0].iov_base.addr(), t.rest()[0].iov_len), (104, base + 4, 6));
    assert_eq!(t.after_call(8, false), None);
    assert_eq!((t.position(), t.rest().len(), t.rest()[0].iov_len), (112, 1, 4));
    assert_eq!(t.after_call(-libc::EINTR, false), None);
    assert_eq!(t.after_call(0, false), Some(-libc::ENOSPC), "a second call without effect");
    assert_eq!(t.after_call(1, true), Some(-libc::ECANCELED), "a part of a cancelled write is no write");
    assert_eq!(t.after_call(3, false), Some(16));
    let mut read = transfer(Way::Read, file.as_raw_fd(), &mut bytes, 0);
    assert_eq!(read.after_call(3, false), None);
    assert_eq!(read.after_call(0, false), Some(3), "the end of the file");
    assert_eq!(read.after_call(-libc::EIO, false), Some(-libc::EIO));
}

#[test]
fn streams_give_what_is_there_and_can_be_cancelled() {
    for mut mover in movers() {
        let (from, mut to) = pipe();
        let (mut got, mut never) = ([0; 10], [0; 10]);
        mover.begin(5, transfer(Way::Read, from.as_raw_fd(), &mut got, 0));
        let mut done = Vec::new();
        mover.turn(Duration::from_millis(5), &mut done);
        assert!(done.is_empty());
        to.write_all(b"abc").unwrap();
        assert_eq!(finish(&mut *mover, 1)[&5], 3);
        assert_eq!(&got[..3], b"abc");
        mover.begin(6, transfer(Way::Read, from.as_raw_fd(), &mut never, 0));
        mover.turn(Duration::from_millis(5), &mut done);
        mover.cancel(6);
        mover.cancel(6);
        mover.cancel(99);
        assert_eq!(finish(&mut *mover, 1)[&6], -libc::ECANCELED);
        mover.begin(7, transfer(Way::Read, from.as_raw_fd(), &mut never, 0));
        mover.cancel_waiting();
        assert_eq!(finish(&mut *mover, 1)[&7], -libc::ECANCELED);
        mover.begin(8, transfer(Way::Read, from.as_raw_fd(), &mut never, 0));
        drop(to);
        assert_eq!(finish(&mut *mover, 1)[&8], 0, "the peer is gone");
    }
}

#[test]
fn a_write_that_fills_a_pipe_goes_on_when_there_is_room() {
    for mut mover in movers() {
        let (mut from, to) = pipe();
        let mut bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        mover.begin(1, transfer(Way::Write, to.as_raw_fd(), &mut bytes, 0));
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 300_000];
            from.read_exact(&mut all).unwrap();
            all
        });
        assert_eq!(finish(&mut *mover, 1)[&1], 300_000);
        assert!(reader.join().unwrap() == bytes);
    }
}

#[test]
fn errors_come_as_numbers() {
    for mut mover in movers() {
        let mut bytes = [0; 8];
        mover.begin(1, transfer(Way::Read, 9999, &mut bytes, 0));
        assert_eq!(finish(&mut *mover, 1)[&1], -libc::EBADF);
        let file = File::open("/dev/null").unwrap();
        mover.begin(2, transfer(Way::Write, file.as_raw_fd(), &mut bytes, 0));
        assert_eq!(finish(&mut *mover, 1)[&2], -libc::EBADF, "opened to read");
        mover.begin(3, Transfer::sync(9999));
        assert_eq!(finish(&mut *mover, 1)[&3], -libc::EBADF);
    }
}

#[test]
fn the_bell_wakes_a_sleeper() {
    for threads in [true, false] {
        let bell = bell();
        let mut mover: Box<dyn Mover> = match RingMover::open(&WISHES, &bell, "") {
            Ok(ring) if !threads => Box::new(ring),
            _ => Box::new(ThreadMover::new(&WISHES, &bell, String::new()).unwrap()),
        };
        for _ in 0..3 {
            bell.about_to_sleep();
            let ringer = Arc::clone(&bell);
            let thread = std::thread::spawn(move || ringer.ring());
            // Far longer than the test may take: only the bell ends it. (Threads look around once a second.)
            mover.turn(Duration::from_secs(3600), &mut Vec::new());
            bell.awake();
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_ring_that_breaks_hands_over_to_threads() {
    let bell = bell();
    let Ok(mut mover) = RingMover::open(&WISHES, &bell, "") else { return };
    let file = tempfile::tempfile().unwrap();
    let (from, mut to) = pipe();
    let (mut waiting, mut bytes) = ([0; 10], [7; 100]);
    let mut done = Vec::new();
    mover.begin(1, transfer(Way::Read, from.as_raw_fd(), &mut waiting, 0));
    mover.turn(Duration::from_millis(1), &mut done);
    // The descriptor becomes another file: the ring may neither use nor close it.
    let stranger = tempfile::tempfile().unwrap();
    // SAFETY: numbers; what the ring's descriptor was is closed with it, its memory stays mapped.
    assert!(unsafe { libc::dup2(stranger.as_raw_fd(), mover.descriptor()) } >= 0);
    let number = mover.descriptor();
    mover.begin(2, transfer(Way::Write, file.as_raw_fd(), &mut bytes, 0));
    assert_eq!(finish(&mut mover, 1)[&2], 100);
    assert_eq!(mover.backend().0, "threads");
    assert!(mover.backend().1.contains("stopped working"), "{}", mover.backend().1);
    to.write_all(b"xy").unwrap();
    let end = finish(&mut mover, 1)[&1];
    assert!(end == 2 || end == -libc::ECANCELED, "{end}");
    mover.begin(3, Transfer::sync(file.as_raw_fd()));
    assert_eq!(finish(&mut mover, 1)[&3], 0);
    drop(mover);
    // SAFETY: a number goes in.
    assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0, "still open");
    // SAFETY: ours, from the dup2 above.
    unsafe { libc::close(number) };
}
