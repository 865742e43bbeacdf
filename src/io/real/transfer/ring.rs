//! Transfers through a ring that this thread has made, submits to and reaps.
//!
//! A ring that fails for good (the host program has closed its descriptor, say) is not trusted again: threads go on. What the
//! kernel already has comes back all the same, through memory that stays mapped. Never: registered buffers, or a transfer
//! that ends before its own completion was seen; the completion of a cancel proves nothing.
#![allow(unsafe_code)]

use super::threads::ThreadMover;
use super::{Bell, Done, Mover, Transfer, Way, Wishes};
use crate::base::log::{self, Level};
use crate::base::sync::Arc;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

/// Marks of requests that are no transfer.
const BELL: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;
/// A kernel that takes nothing and completes nothing for this many milliseconds has stopped working.
const REFUSALS_MAX: u32 = 1000;
/// Polling that brought nothing for this long goes to sleep instead.
const POLL_PATIENCE: Duration = Duration::from_millis(10);
/// How often a broken ring is looked at while the kernel still has some of its requests.
const LIMP: Duration = Duration::from_millis(1);

/// See the file.
pub(super) struct RingMover {
    ring: ManuallyDrop<IoUring>,
    wishes: Wishes,
    bell: Arc<Bell>,
    bell_armed: bool,
    seats: Vec<Option<Seat>>,
    free: Vec<u32>,
    /// Seats whose transfer has to go in (again), and seats to be cancelled.
    to_push: VecDeque<u32>,
    to_cancel: Vec<u32>,
    /// Marks of what stands in the submission queue, in order: what the kernel has not taken it never will.
    pushed: VecDeque<u64>,
    completions: Vec<(u64, i32)>,
    refusals: u32,
    /// Does the work since the ring broke.
    instead: Option<ThreadMover>,
    reason: String,
}

/// A transfer that belongs to the kernel, or will at the next enter.
struct Seat {
    key: u32,
    transfer: Transfer,
    cancelled: bool,
}

impl RingMover {
    /// A ring that has shown that it works here; else a sentence that says what does not.
    pub(super) fn open(wishes: &Wishes, bell: &Arc<Bell>, said: &str) -> Result<RingMover, String> {
        let (ring, remark) = build(wishes).map_err(|e| format!("io_uring cannot be set up: {e}"))?;
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
            return Err("io_uring of this kernel is too old (5.11 is needed)".to_owned());
        }
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(|e| format!("io_uring cannot be probed: {e}"))?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE];
        if !needed.iter().chain(&[opcode::PollAdd::CODE, opcode::AsyncCancel::CODE]).all(|&code| probe.is_supported(code)) {
            return Err("io_uring of this kernel cannot do all of read, write, sync, poll and cancel".to_owned());
        }
        let depth = wishes.depth as usize;
        let reason = format!(
            "{said}{}the kernel allows it, {} entries{remark}",
            if said.is_empty() { "" } else { "; " },
            ring.params().sq_entries()
        );
        let mut mover = RingMover {
            ring: ManuallyDrop::new(ring),
            wishes: *wishes,
            bell: Arc::clone(bell),
            bell_armed: false,
            seats: (0..depth).map(|_| None).collect(),
            free: (0..wishes.depth).rev().collect(),
            to_push: VecDeque::with_capacity(depth),
            to_cancel: Vec::with_capacity(depth),
            pushed: VecDeque::with_capacity(2 * depth + 2),
            completions: Vec::with_capacity(2 * depth + 2),
            refusals: 0,
            instead: None,
            reason,
        };
        // A filter may allow the setup alone.
        mover.ring.submit().map_err(|e| format!("io_uring does not run: {e}"))?;
        mover.arm_bell();
        mover.enter(Duration::ZERO).map_err(|e| format!("io_uring does not run: {e}"))?;
        Ok(mover)
    }

    /// Puts a request into the submission queue; false if there is no room even after a submit.
    fn push(&mut self, entry: &squeue::Entry, mark: u64) -> bool {
        for _ in 0..2 {
            // SAFETY: what a transfer's request refers to lives in its seat and in the host's memory, and both stay until
            // its completion was reaped; the other requests refer to no memory.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.pushed.push_back(mark);
                return true;
            }
            match self.ring.submit() {
                Ok(taken) => self.taken(taken),
                Err(_) => return false, // the next enter will say why
            }
        }
        false
    }

    fn taken(&mut self, count: usize) {
        self.pushed.drain(..count.min(self.pushed.len()));
    }

    fn arm_bell(&mut self) {
        if let Some((fd, fresh)) = self.bell.descriptor()
            && (fresh || !self.bell_armed)
        {
            let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build().user_data(BELL);
            self.bell_armed = self.push(&entry, BELL);
        }
    }

    fn push_all(&mut self) {
        self.arm_bell();
        while let Some(index) = self.to_push.pop_front() {
            let Some(Some(seat)) = self.seats.get(index as usize) else { continue };
            let entry = request(&seat.transfer).user_data(u64::from(index));
            if !self.push(&entry, u64::from(index)) {
                self.to_push.push_front(index);
                return;
            }
        }
        while let Some(index) = self.to_cancel.pop() {
            let entry = opcode::AsyncCancel::new(u64::from(index)).build().user_data(CANCEL);
            if !self.push(&entry, CANCEL) {
                self.to_cancel.push(index);
                return;
            }
        }
    }

    /// Submits, and waits for a completion as long as `patience` says.
    fn enter(&mut self, patience: Duration) -> io::Result<()> {
        if self.wishes.polling && !patience.is_zero() {
            let start = Instant::now();
            while start.elapsed() < POLL_PATIENCE.min(patience) {
                let taken = self.ring.submit()?;
                self.taken(taken);
                if !self.ring.completion().is_empty() {
                    return Ok(());
                }
                std::thread::yield_now();
            }
        }
        let time = types::Timespec::from(patience);
        let arguments = types::SubmitArgs::new().timespec(&time);
        let waited = self.ring.submitter().submit_with_args(usize::from(!patience.is_zero()), &arguments);
        match waited {
            Ok(taken) => {
                self.taken(taken);
                self.refusals = 0;
                Ok(())
            }
            // Everything was taken, nothing came, or not all of it: the queue's length tells.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {
                self.recount();
                Ok(())
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) && self.refusals < REFUSALS_MAX => {
                self.refusals += 1;
                self.recount();
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn recount(&mut self) {
        let left = self.ring.submission().len();
        let taken = self.pushed.len().saturating_sub(left);
        self.taken(taken);
    }

    fn reap(&mut self, done: &mut Vec<Done>) {
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion().map(|c| (c.user_data(), c.result())));
        for (mark, returned) in completions.drain(..) {
            match mark {
                BELL => {
                    self.bell_armed = false;
                    self.bell.silence();
                }
                CANCEL => {}
                index => self.completed(index as u32, returned, done),
            }
        }
        self.completions = completions;
    }

    fn completed(&mut self, index: u32, returned: i32, done: &mut Vec<Done>) {
        let Some(place) = self.seats.get_mut(index as usize) else { return };
        let Some(seat) = place else { return };
        if let Some(result) = seat.transfer.after_call(returned, seat.cancelled) {
            done.push(Done { key: seat.key, result });
            *place = None;
            self.free.push(index);
        } else if let Some(threads) = &mut self.instead {
            if let Some(seat) = place.take() {
                threads.begin(seat.key, seat.transfer);
            }
        } else {
            self.to_push.push_back(index);
        }
    }

    /// The ring does not work any more: what the kernel does not have goes to threads.
    fn give_up(&mut self, error: &io::Error) {
        self.recount();
        self.reason = format!("io_uring stopped working: {error}");
        log::write(Level::Warn, "kv_uring", &format!("{}; threads go on", self.reason));
        match ThreadMover::new(&self.wishes, &self.bell, self.reason.clone()) {
            Ok(threads) => self.instead = Some(threads),
            Err(_) => return, // no memory or descriptor now: the next turn tries again
        }
        self.to_cancel.clear();
        if self.wishes.kernel_thread_idle_ms.is_some() {
            // The kernel's thread takes what it finds whenever it likes: nothing can be taken back.
            self.pushed.clear();
        }
        let pushed = std::mem::take(&mut self.pushed);
        let orphans = self.to_push.drain(..).map(u64::from).chain(pushed).collect::<Vec<_>>();
        for index in orphans {
            let seat = self.seats.get_mut(index as usize).and_then(Option::take);
            if let (Some(seat), Some(threads)) = (seat, &mut self.instead) {
                threads.begin(seat.key, seat.transfer);
                if seat.cancelled {
                    threads.cancel(seat.key);
                }
            }
        }
    }

    fn kernel_has_some(&self) -> bool {
        self.seats.iter().any(Option::is_some)
    }
}

impl Mover for RingMover {
    fn begin(&mut self, key: u32, transfer: Transfer) {
        if let Some(threads) = &mut self.instead {
            return threads.begin(key, transfer);
        }
        // There are as many seats as transfers may be in flight.
        if let Some(index) = self.free.pop() {
            self.seats[index as usize] = Some(Seat { key, transfer, cancelled: false });
            self.to_push.push_back(index);
        }
    }

    fn cancel(&mut self, key: u32) {
        let found =
            self.seats.iter_mut().enumerate().find_map(|(index, seat)| Some((index, seat.as_mut().filter(|seat| seat.key == key)?)));
        match (found, &mut self.instead) {
            (Some((index, seat)), None) => {
                // Asked again, the kernel is asked again: the first time it may have been in the middle of something.
                seat.cancelled = true;
                self.to_cancel.push(index as u32);
            }
            (None, Some(threads)) => threads.cancel(key),
            _ => {} // ended, or with a kernel that no longer listens
        }
    }

    fn cancel_waiting(&mut self) {
        if let Some(threads) = &mut self.instead {
            return threads.cancel_waiting();
        }
        for (index, seat) in self.seats.iter_mut().enumerate() {
            if let Some(seat) = seat.as_mut().filter(|seat| !seat.cancelled && seat.transfer.may_wait_for_ever()) {
                seat.cancelled = true;
                self.to_cancel.push(index as u32);
            }
        }
    }

    fn turn(&mut self, patience: Duration, done: &mut Vec<Done>) {
        if let Some(threads) = &mut self.instead {
            threads.turn(if self.seats.iter().any(Option::is_some) { patience.min(LIMP) } else { patience }, done);
            return self.reap(done);
        }
        self.push_all();
        if let Err(error) = self.enter(patience) {
            self.give_up(&error);
        }
        self.reap(done);
    }

    fn backend(&self) -> (&'static str, &str) {
        (if self.instead.is_some() { "threads" } else { "io_uring" }, &self.reason)
    }
}

impl Drop for RingMover {
    fn drop(&mut self) {
        // A broken ring's descriptor may be another file by now, and closing it could hit that file. And while the kernel
        // has requests (after a panic) their memory has to stay. One ring is lost instead.
        if self.instead.is_none() && !self.kernel_has_some() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.ring) }
        }
    }
}

fn request(transfer: &Transfer) -> squeue::Entry {
    let fd = types::Fd(transfer.fd);
    let (rest, offset) = (transfer.rest(), transfer.position() as u64);
    match (transfer.way, rest) {
        (Way::Sync, _) => opcode::Fsync::new(fd).build(),
        (Way::Read, [piece]) => opcode::Read::new(fd, piece.iov_base.cast(), piece.iov_len as u32).offset(offset).build(),
        (Way::Write, [piece]) => opcode::Write::new(fd, piece.iov_base.cast(), piece.iov_len as u32).offset(offset).build(),
        (Way::Read, pieces) => opcode::Readv::new(fd, pieces.as_ptr(), pieces.len() as u32).offset(offset).build(),
        (Way::Write, pieces) => opcode::Writev::new(fd, pieces.as_ptr(), pieces.len() as u32).offset(offset).build(),
    }
}

/// A ring as wished; without the kernel's thread where that is refused, and the remark says so.
fn build(wishes: &Wishes) -> io::Result<(IoUring, &'static str)> {
    // Beside the transfers there are the bell's request and cancels.
    let entries = (wishes.depth + 1).next_power_of_two();
    let room = entries.saturating_mul(wishes.completions);
    let build = |idle_ms: Option<u32>| {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(room);
        if let Some(idle_ms) = idle_ms {
            builder.setup_sqpoll(idle_ms);
        }
        builder.build(entries)
    };
    match (build(wishes.kernel_thread_idle_ms), wishes.kernel_thread_idle_ms) {
        (Ok(ring), None) => Ok((ring, "")),
        (Ok(ring), Some(_)) => Ok((ring, ", its submissions polled by the kernel")),
        (Err(_), Some(_)) => Ok((build(None)?, ", the kernel's thread for submissions refused")),
        (Err(error), None) => Err(error),
    }
}

/// For tests: takes the ring's descriptor away, as a host program does that closes all it does not know.
#[cfg(test)]
impl RingMover {
    pub(super) fn descriptor(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&*self.ring)
    }
}
