//! Reads through io_uring. A ring serves one call at a time, in that call's thread, and the call reaps everything
//! before it returns: neither a dead thread nor a dead buffer can be left behind with a read in flight.
//!
//! Called by `RealDisk::read_many`. Never: writes (a short write must be seen before the sync behind it is issued),
//! registered buffers, kernel polling threads, or a return while the kernel may still write into a caller's buffer.
#![allow(unsafe_code)]

use super::super::{Ended, ReadAt, ReadMany, ReadManyReport};
use super::descriptor::{Identity, is_still};
use super::{finish_by_pread, sys};
use io_uring::{IoUring, Probe, opcode, types};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// One request asks for this much at most (Linux transfers a little less than 2 GiB in one call).
const REQUEST_BYTES_MAX: usize = 1 << 30;
/// Interrupted reads that one call gives to the ring again; those behind are read in the calling thread.
const RETRIES_MAX: u32 = 1000;
/// So many reads go to the kernel by themselves: what it is given in one call it hands to the device in lots, the first of them only
/// when there are some dozens.
const FIRST_READS: u32 = 16;
/// A kernel that takes nothing and completes nothing for this many milliseconds has stopped working.
const REFUSALS_MAX: u32 = 1000;
/// Polling that brought nothing for this long goes to sleep instead: the disk is in trouble, and the CPU is not ours.
const POLL_PATIENCE: Duration = Duration::from_millis(10);

/// One ring, and the reads of the current call that have to go in again.
pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    identity: Identity,
    entries: u32,
    again: Vec<u32>,
    /// Reads that have ended and of which nobody was told yet.
    ended: Vec<u32>,
}

impl Ring {
    /// A ring that has shown that it works here; else a sentence that says what does not.
    pub(super) fn probed(entries: u32) -> Result<Ring, String> {
        let mut ring = Ring::new(entries).map_err(|e| format!("io_uring cannot be set up: {e}"))?;
        if !ring.ring.params().is_feature_nodrop() {
            return Err("io_uring of this kernel may drop completions".to_owned());
        }
        let mut probe = Probe::new();
        ring.ring.submitter().register_probe(&mut probe).map_err(|e| format!("io_uring cannot be probed: {e}"))?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err("io_uring of this kernel cannot read".to_owned());
        }
        ring.turn_once().map_err(|e| format!("io_uring does not run: {e}"))?;
        Ok(ring)
    }

    /// A ring of up to `entries` reads; smaller where memory for it is short.
    pub(super) fn new(mut entries: u32) -> io::Result<Ring> {
        loop {
            match build(entries) {
                Ok(ring) => {
                    let entries = ring.params().sq_entries();
                    // SAFETY: the ring's descriptor is open, and the borrow ends here.
                    let stat = sys::stat(unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) })?;
                    let identity = (stat.st_dev, stat.st_ino);
                    let (again, ended) = (Vec::with_capacity(entries as usize), Vec::with_capacity(entries as usize));
                    return Ok(Ring { ring: ManuallyDrop::new(ring), identity, entries, again, ended });
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && entries > super::RING_ENTRIES_MIN => entries /= 2,
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads that it holds at a time.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Ends it without closing its descriptor or unmapping its memory.
    pub(super) fn abandon(mut self) {
        (self.again, self.ended) = (Vec::new(), Vec::new());
        std::mem::forget(self);
    }

    /// Its descriptor.
    #[cfg(test)]
    pub(super) fn descriptor(&self) -> std::os::fd::RawFd {
        self.ring.as_raw_fd()
    }

    /// Sends a request that does nothing all the way round: a filter may allow the setup alone.
    fn turn_once(&mut self) -> io::Result<()> {
        let nothing = opcode::Nop::new().build();
        // SAFETY: the request refers to no memory.
        unsafe { self.ring.submission().push(&nothing) }.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
        while self.ring.completion().next().is_none() {
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Does all `reads`, each going on from where its `result` stands, and tells `ended` of those that end in the ring while others
    /// are still in flight. On an error nothing is in flight any more; the reads then stand where they got to, and this ring must
    /// not be used again.
    pub(super) fn read(
        &mut self,
        reads: &mut [ReadAt<'_>],
        how: &ReadMany,
        ended: Ended<'_>,
        report: &mut ReadManyReport,
    ) -> io::Result<()> {
        let depth = how.depth.clamp(1, self.entries);
        let quarter = (depth / 4).max(1);
        let mut call = Call { next: 0, in_flight: 0, retries: 0, refusals: 0 };
        self.again.clear();
        self.ended.clear();
        self.fill(reads, FIRST_READS.min(depth), &mut call, report);
        if call.next < reads.len() {
            let _ = self.ring.submit(); // what goes wrong here goes wrong again below
        }
        loop {
            self.fill(reads, depth, &mut call, report);
            if call.in_flight == 0 {
                return Ok(());
            }
            report.in_flight_max = report.in_flight_max.max(u64::from(call.in_flight));
            let more = !self.again.is_empty() || call.next < reads.len();
            let want = if more { quarter.min(call.in_flight) } else { (call.in_flight / 2).max(1) };
            let waited = if how.polling { self.poll(want) } else { self.ring.submit_and_wait(want as usize).map(|_| false) };
            let in_flight_before = call.in_flight;
            let reaped_by_polling = *waited.as_ref().unwrap_or(&false);
            self.reap(reads, &mut call, reaped_by_polling, report);
            let told = catch_unwind(AssertUnwindSafe(|| {
                for index in self.ended.drain(..) {
                    ended(index as usize, &reads[index as usize]);
                }
            }));
            if let Err(panic) = told {
                self.drain(reads, &mut call, report);
                resume_unwind(panic);
            }
            match waited {
                Ok(_) => call.refusals = 0,
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) if call.refusals < REFUSALS_MAX => {
                        if call.in_flight == in_flight_before {
                            call.refusals += 1;
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    _ => {
                        self.drain(reads, &mut call, report);
                        return Err(e);
                    }
                },
            }
        }
    }

    /// Puts reads into the submission queue until `depth` are in flight.
    fn fill(&mut self, reads: &mut [ReadAt<'_>], depth: u32, call: &mut Call, report: &mut ReadManyReport) {
        let mut queue = self.ring.submission();
        while call.in_flight < depth {
            let index = match self.again.pop() {
                Some(index) => index as usize,
                None => {
                    call.next += 1;
                    call.next - 1
                }
            };
            let Some(read) = reads.get_mut(index) else {
                call.next = reads.len();
                return;
            };
            let Ok(done) = read.result else { continue };
            if done >= read.buf.len() {
                continue;
            }
            let Some(fd) = read.file.descriptor() else {
                finish_by_pread(read);
                continue;
            };
            let rest = &mut read.buf[done..];
            let entry = opcode::Read::new(types::Fd(fd), rest.as_mut_ptr(), rest.len().min(REQUEST_BYTES_MAX) as u32)
                .offset(read.offset + done as u64)
                .build()
                .user_data(index as u64);
            // SAFETY: buffer and file are borrowed by `reads` until the call returns, and it returns only after the
            // completion of this request was reaped (`read` loops until none is in flight, `drain` on an error or a panic).
            // Until then nothing touches the buffer: `reap`, `fill` and `ended` look at a read again after its completion.
            match unsafe { queue.push(&entry) } {
                Ok(()) => {
                    call.in_flight += 1;
                    if done == 0 {
                        report.through_ring += 1;
                    }
                }
                // There are as many entries as reads in flight, so there was one; but nothing is lost if not.
                Err(_) => finish_by_pread(read),
            }
        }
    }

    /// Takes up all completions there are; returns their number.
    fn reap(&mut self, reads: &mut [ReadAt<'_>], call: &mut Call, polled: bool, report: &mut ReadManyReport) -> u32 {
        let mut reaped = 0;
        for completion in self.ring.completion() {
            reaped += 1;
            let index = completion.user_data() as usize;
            let Some(read) = reads.get_mut(index) else { continue };
            let done = *read.result.as_ref().unwrap_or(&0);
            match completion.result() {
                0 => {} // the end of the file
                n if n > 0 => {
                    read.result = Ok(done + n as usize);
                    if done + (n as usize) < read.buf.len() {
                        self.again.push(index as u32);
                        continue;
                    }
                }
                error if matches!(-error, libc::EINTR | libc::EAGAIN) && call.retries < RETRIES_MAX => {
                    call.retries += 1;
                    self.again.push(index as u32);
                    continue;
                }
                // Not the disk's word, but the ring's: the plain call knows better.
                error if matches!(-error, libc::EINTR | libc::EAGAIN | libc::ECANCELED | libc::EOPNOTSUPP) => finish_by_pread(read),
                error => read.result = Err(io::Error::from_raw_os_error(-error)),
            }
            if polled {
                report.polled += 1;
            }
            self.ended.push(index as u32);
        }
        call.in_flight -= reaped.min(call.in_flight);
        reaped
    }

    /// Submits, then looks at the completion queue until `want` are there, without sleeping; true. If nothing comes
    /// for long, sleeps after all; false.
    fn poll(&mut self, want: u32) -> io::Result<bool> {
        self.ring.submit()?;
        let start = Instant::now();
        while self.ring.completion().len() < want as usize {
            if self.ring.submission().taskrun() {
                // Completions wait in the kernel for this thread to come by.
                self.ring.submit()?;
            } else if start.elapsed() > POLL_PATIENCE {
                self.ring.submit_and_wait(want as usize)?;
                return Ok(false);
            } else {
                std::thread::yield_now();
            }
        }
        Ok(true)
    }

    /// Waits until the kernel is done with every buffer, without entering the ring: that has just failed.
    fn drain(&mut self, reads: &mut [ReadAt<'_>], call: &mut Call, report: &mut ReadManyReport) {
        // What the kernel has not taken out of the submission queue it never will.
        let untaken = self.ring.submission().len() as u32;
        call.in_flight -= untaken.min(call.in_flight);
        while call.in_flight > 0 {
            // The completion queue has room for all (twice the entries), so they arrive there by themselves.
            if self.reap(reads, call, false, report) == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Rings and their like share one identity; a file of the host program has another.
        if is_still(self.ring.as_raw_fd(), self.identity) {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

/// Where one call stands.
struct Call {
    /// The first read that was not given to the ring yet.
    next: usize,
    /// Reads whose buffers belong to the kernel, or will at the next enter.
    in_flight: u32,
    retries: u32,
    refusals: u32,
}

/// A ring with what makes it cheaper on newer kernels, else without.
fn build(entries: u32) -> io::Result<IoUring> {
    let cheaper = IoUring::builder().dontfork().setup_clamp().setup_coop_taskrun().setup_taskrun_flag().setup_submit_all().build(entries);
    match cheaper {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().dontfork().build(entries),
        other => other,
    }
}
