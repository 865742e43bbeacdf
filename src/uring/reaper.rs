//! The one thread of a ring: hands requests to the mover, ends them, runs their callbacks.
//!
//! It outlives everything in flight, whatever happens: a kernel that has a request has this thread as its owner. Callbacks
//! are run with no lock held; all of them here, so they come one at a time. Never: ends a request twice, or not at all.

use super::request::{Key, Status};
use super::ring::{Phase, Ring, State};
use super::slots::On;
use crate::base::clock;
use crate::base::error::Error;
use crate::base::log::{self, Level};
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::io::real::transfer::{self, Bell, Done, Mover, Transfer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest sleep while something is in flight: should the bell be lost, it is missed no longer than this.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Callbacks that take longer, those of one turn together, have a line in the log.
const SLOW_CALLBACKS: Duration = Duration::from_secs(1);

/// The thread's body.
pub(super) fn run(ring: &Arc<Ring>) {
    let opened = Bell::new().and_then(|bell| {
        let bell = Arc::new(bell);
        Ok((transfer::mover(&ring.settings.wishes(), &bell)?, bell))
    });
    match opened {
        Err(error) => {
            let error = Error::from_io("the ring cannot be started", &error);
            let mut state = ring.state.lock();
            (state.phase, state.failure) = (Phase::Idle, Some(error));
        }
        Ok((mut mover, bell)) => {
            let mut state = ring.state.lock();
            (state.phase, state.bell) = (Phase::Running, Some(Arc::clone(&bell)));
            state.backend = (mover.backend().0, mover.backend().1.to_owned());
            drop(state);
            ring.change.notify_all();
            if catch_unwind(AssertUnwindSafe(|| Reaper::new(ring, &mut *mover, &bell).serve())).is_err() {
                // The kernel may still write where it was told to: the mover, and what it holds, stays for ever.
                std::mem::forget(mover);
                end_all(ring);
            }
            let mut state = ring.state.lock();
            (state.phase, state.bell) = (Phase::Idle, None);
        }
    }
    let orphan = ring.state.lock().orphan;
    ring.change.notify_all();
    if orphan {
        ring.release_all();
    }
}

/// After a fault in the library: nobody waits for ever.
fn end_all(ring: &Ring) {
    ring.state.lock().phase = Phase::Stopping;
    loop {
        let first = ring.state.lock().slots.first(On::Live);
        match first {
            Some(slot) => deliver(ring, Done { key: slot, result: -libc::EIO }),
            None => return,
        }
    }
}

struct Reaper<'a> {
    ring: &'a Ring,
    mover: &'a mut dyn Mover,
    bell: &'a Bell,
    starts: Vec<(u32, usize, Transfer)>,
    cancels: Vec<u32>,
    done: Vec<Done>,
}

impl<'a> Reaper<'a> {
    fn new(ring: &'a Ring, mover: &'a mut dyn Mover, bell: &'a Bell) -> Self {
        let depth = ring.settings.queue_depth as usize;
        let (starts, cancels, done) = (Vec::with_capacity(depth), Vec::with_capacity(depth), Vec::with_capacity(depth));
        Reaper { ring, mover, bell, starts, cancels, done }
    }

    fn serve(&mut self) {
        loop {
            self.bell.about_to_sleep();
            let mut state = self.ring.state.lock();
            if state.slots.length(On::Live) == 0 {
                if state.phase == Phase::Stopping {
                    return;
                }
                self.bell.awake();
                state.reaper_idle = true;
                self.ring.work.wait(&mut state);
                state.reaper_idle = false;
                continue;
            }
            let now = Instant::now();
            self.take_cancels(&mut state);
            let patience = self.look_at_deadlines(&mut state, now);
            self.take_starts(&mut state, now);
            let stopping = state.phase == Phase::Stopping;
            drop(state);
            for (slot, tag, transfer) in self.starts.drain(..) {
                self.ring.edge.begun(tag);
                self.mover.begin(slot, transfer);
            }
            self.cancels.drain(..).for_each(|slot| self.mover.cancel(slot));
            if stopping {
                self.mover.cancel_waiting();
            }
            self.mover.turn(if self.done.is_empty() { patience } else { Duration::ZERO }, &mut self.done);
            self.bell.awake();
            self.note_backend();
            self.deliver_all();
        }
    }

    fn deliver_all(&mut self) {
        if self.done.is_empty() {
            return;
        }
        let (begun, requests) = (Instant::now(), self.done.len());
        self.done.drain(..).for_each(|done| deliver(self.ring, done));
        let taken = begun.elapsed();
        if taken >= SLOW_CALLBACKS {
            let text = format!(
                "the callbacks of {requests} requests took {} ms and held up all of the ring: hand long work to a thread of your own",
                taken.as_millis()
            );
            log::write(Level::Warn, "kv_uring", &text);
        }
    }

    fn take_cancels(&mut self, state: &mut State) {
        while let Some(key) = state.cancels.pop() {
            if let Some(slot) = state.slots.get(key).filter(|slot| !slot.status.has_ended()) {
                slot.unwanted = true;
                self.end_early(state, key.slot);
            }
        }
    }

    /// Ends what nobody has begun, asks for the end of what somebody has.
    fn end_early(&mut self, state: &mut State, slot: u32) {
        let taken_back = state.slots.at(slot).is_some_and(|slot| slot.transfer.take().is_some());
        if taken_back {
            self.done.push(Done { key: slot, result: -libc::ECANCELED });
        } else {
            self.cancels.push(slot);
        }
    }

    /// Requests that are out of time are asked to end; how long until the next one is.
    fn look_at_deadlines(&mut self, state: &mut State, now: Instant) -> Duration {
        let mut at = state.slots.first(On::Live);
        while let Some(index) = at {
            at = state.slots.after(index);
            let Some(slot) = state.slots.at(index) else { continue };
            let Some(deadline) = slot.deadline else { break }; // then none has one
            if slot.expired {
                continue;
            }
            if deadline > now {
                return (deadline - now).min(PATIENCE_MAX); // those behind it came later
            }
            slot.expired = true;
            self.end_early(state, index);
        }
        PATIENCE_MAX
    }

    fn take_starts(&mut self, state: &mut State, now: Instant) {
        while state.begun < self.ring.settings.queue_depth as usize {
            let Some(Key { slot: index, id }) = state.queue.pop_front() else { return };
            let Some(slot) = state.slots.get(Key { slot: index, id }) else { continue };
            let Some(transfer) = slot.transfer.take() else { continue }; // cancelled before it was begun
            (slot.status, slot.begun) = (Status::Submitted, now);
            let (tag, waited, epoch) = (slot.tag, now.saturating_duration_since(slot.accepted), slot.epoch);
            state.begun += 1;
            if epoch == state.tally.epoch {
                state.tally.begun_after(waited);
            }
            self.starts.push((index, tag, transfer));
        }
    }

    fn note_backend(&self) {
        let (name, reason) = self.mover.backend();
        let mut state = self.ring.state.lock();
        if state.backend.0 != name {
            state.backend = (name, reason.to_owned());
        }
    }
}

/// Ends a request and runs its callback.
fn deliver(ring: &Ring, done: Done) {
    let now = Instant::now();
    let mut guard = ring.state.lock();
    let state = &mut *guard;
    let Some(slot) = state.slots.at(done.key).filter(|slot| !slot.status.has_ended()) else { return };
    let was_begun = slot.status == Status::Submitted;
    (slot.status, slot.result) = match done.result {
        bytes if bytes >= 0 => (Status::Completed, bytes),
        error if error == -libc::ECANCELED && slot.expired && !slot.unwanted => (Status::Failed, -libc::ETIMEDOUT),
        error if error == -libc::ECANCELED => (Status::Cancelled, error),
        error => (Status::Failed, error),
    };
    let (tag, op, status, result, id) = (slot.tag, slot.op, slot.status, slot.result, slot.id);
    if slot.epoch == state.tally.epoch {
        let (expired, time) = (slot.expired, now.saturating_duration_since(slot.accepted));
        state.tally.ended(op, status, result, expired, time, now);
    }
    state.begun -= usize::from(was_begun);
    state.slots.put(done.key, On::Neither);
    drop(guard);

    log_end(ring, id, op.name().to_str().unwrap_or_default(), status, result);
    ring.edge.ended(tag, status, result, clock::unix_us_rising());

    let mut state = ring.state.lock();
    state.undelivered -= 1;
    let mut given_back = false;
    if let Some(slot) = state.slots.at(done.key) {
        slot.delivered = true;
        given_back = slot.given_back;
    }
    if given_back {
        state.slots.free(done.key);
    } else {
        state.slots.put(done.key, On::Unseen);
    }
    let somebody_waits = state.waiters > 0;
    drop(state);
    if somebody_waits && !planted(Bug::RequestEndUntold) {
        ring.change.notify_all();
    }
    if given_back {
        ring.edge.release(tag);
    }
}

fn log_end(ring: &Ring, id: u64, op: &str, status: Status, result: i32) {
    let level = ring.debug_level.load(Ordering::Relaxed);
    let wanted = level >= 2 || (level == 1 && status == Status::Failed);
    if wanted {
        let how = if status == Status::Failed { Level::Warn } else { Level::Debug };
        log::write(how, "kv_uring", &format!("request {id} {op}: {status:?}, {result}"));
    }
}
