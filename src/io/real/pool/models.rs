//! Models of reads by threads: a call and its helpers, and the end of the pool.

use super::*;
use crate::base::models::{all_ways, holds_but_for};
use crate::base::planted::Bug;
use crate::base::sync::watch;
use crate::io::File;
use std::io::{self, IoSlice};

/// A file of which each byte is its offset.
struct Ruler;

impl File for Ruler {
    fn len(&self) -> io::Result<u64> {
        Ok(256)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        watch::written(buf.as_ptr());
        (offset..).zip(&mut *buf).for_each(|(at, byte)| *byte += at as u8);
        Ok(buf.len())
    }
    fn write_at(&self, _: &[IoSlice<'_>], _: u64, _: bool) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn take_space(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

fn two_reads_and_a_helper() {
    let pool = Pool::new();
    let (mut first, mut second) = ([0], [0]);
    let mut reads = [(1, &mut first), (2, &mut second)].map(|(offset, buf)| ReadAt { file: &Ruler, offset, buf, result: Ok(0) });
    pool.read_together(&mut reads, 1);
    watch::read(first.as_ptr());
    watch::read(second.as_ptr());
    assert_eq!((first, second), ([1], [2]), "each is read once");
    pool.stop();
}

#[test]
fn a_call_ends_when_its_helpers_are_out() {
    holds_but_for(&[(Bug::HelpersLeftInside, "panicked")], || all_ways(4, two_reads_and_a_helper));
}
