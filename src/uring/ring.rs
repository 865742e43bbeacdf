//! A ring as its users see it: start, stop, submit, wait, cancel, ask. All that ends a request is in `reaper.rs`.
//!
//! One lock holds everything together; it is never held while something may block. `change` wakes those who wait for an end,
//! `work` the reaper while nothing is in flight; while something is, the bell does.

use super::failure::answer;
use super::reaper;
use super::request::{Draft, Edge, Key, OpKind, Status};
use super::settings::Settings;
use super::slots::{On, Slot, Slots};
use super::stats::{Stats, Tally};
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::planted::{Bug, planted};
use crate::base::sync::{self, Arc, Condvar, JoinHandle, Mutex, MutexGuard, thread_local};
use crate::io::real::transfer::Bell;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

thread_local! {
    // No destructor: nothing is left in threads of the host.
    static REAPER_OF: Cell<u64> = const { Cell::new(0) };
}

static NEXT_RING: AtomicU64 = AtomicU64::new(1);
static NEXT_REQUEST: AtomicU64 = AtomicU64::new(1);

/// See the file.
pub struct Ring {
    number: u64,
    pub(super) settings: Settings,
    pub(super) edge: &'static dyn Edge,
    pub(super) state: Mutex<State>,
    pub(super) work: Condvar,
    pub(super) change: Condvar,
    pub(super) debug_level: AtomicI32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Opening,
    Running,
    /// Takes nothing new; what it has goes to its end.
    Stopping,
}

pub(super) struct State {
    pub phase: Phase,
    pub slots: Slots,
    /// Accepted, not begun; those that were cancelled meanwhile are passed over.
    pub queue: VecDeque<Key>,
    /// Begun requests that somebody wants to end.
    pub cancels: Vec<Key>,
    pub begun: usize,
    /// Accepted, and the callback has not returned.
    pub undelivered: usize,
    /// The reaper sleeps on `work`.
    pub reaper_idle: bool,
    pub waiters: usize,
    pub tally: Tally,
    pub bell: Option<Arc<Bell>>,
    pub backend: (&'static str, String),
    pub failure: Option<Error>,
    thread: Option<JoinHandle<()>>,
    /// Destroyed from one of its callbacks: the reaper releases everything when it ends.
    pub orphan: bool,
}

impl Ring {
    /// A ring that is not started.
    pub fn create(settings: Settings, edge: &'static dyn Edge) -> Result<Arc<Ring>> {
        settings.validate()?;
        Ok(Arc::new(Ring {
            number: NEXT_RING.fetch_add(1, Ordering::Relaxed),
            settings,
            edge,
            state: Mutex::new(State {
                phase: Phase::Idle,
                slots: Slots::new(),
                queue: VecDeque::new(),
                cancels: Vec::new(),
                begun: 0,
                undelivered: 0,
                reaper_idle: false,
                waiters: 0,
                tally: Tally::new(1),
                bell: None,
                backend: ("none", "not started".to_owned()),
                failure: None,
                thread: None,
                orphan: false,
            }),
            work: Condvar::new(),
            change: Condvar::new(),
            debug_level: AtomicI32::new(0),
        }))
    }

    /// Starts the reaper; fine if it runs.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let mut state = self.state.lock();
        while state.phase == Phase::Opening {
            self.change.wait(&mut state);
        }
        match state.phase {
            Phase::Running => return Ok(()),
            Phase::Stopping => return Err(stopping("it can be started again when that is over")),
            _ => state.phase = Phase::Opening,
        }
        drop(state);
        let ring = Arc::clone(self);
        let thread = sync::spawn("kvbatch-uring", move || {
            REAPER_OF.with(|reaper| reaper.set(ring.number));
            reaper::run(&ring);
        });
        let mut state = self.state.lock();
        match thread {
            Ok(thread) => state.thread = Some(thread),
            Err(error) => (state.phase, state.failure) = (Phase::Idle, Some(error)),
        }
        while state.phase == Phase::Opening {
            self.change.wait(&mut state);
        }
        let (failure, thread) = match state.failure.take() {
            Some(failure) => (failure, state.thread.take()),
            None => return Ok(()),
        };
        drop(state);
        self.change.notify_all();
        thread.map(JoinHandle::join);
        Err(failure)
    }

    /// Takes nothing new, waits until everything in flight has ended and all callbacks have returned.
    pub fn stop(&self) -> Result<()> {
        self.not_in_own_callback("stop it from another thread")?;
        let mut state = self.state.lock();
        while state.phase == Phase::Opening {
            self.change.wait(&mut state);
        }
        self.begin_to_stop(&mut state);
        while state.phase != Phase::Idle {
            self.change.wait(&mut state);
        }
        let thread = state.thread.take();
        drop(state);
        thread.map(JoinHandle::join);
        Ok(())
    }

    fn begin_to_stop(&self, state: &mut State) {
        if state.phase == Phase::Running {
            state.phase = Phase::Stopping;
            self.work.notify_all();
            if let Some(bell) = &state.bell {
                bell.ring();
            }
        }
    }

    /// Stops, and releases all requests. From one of its own callbacks it returns at once, and the reaper does the rest.
    pub fn destroy(&self) {
        if self.in_own_callback() {
            let mut state = self.state.lock();
            self.begin_to_stop(&mut state);
            state.orphan = true;
            state.thread = None;
            return;
        }
        // It fails in a callback only.
        let _ = self.stop();
        self.release_all();
    }

    pub(super) fn release_all(&self) {
        let mut tags = Vec::new();
        let mut state = self.state.lock();
        let used: Vec<u32> = state.slots.used().map(|(index, _)| index).collect();
        for index in used {
            tags.extend(state.slots.at(index).map(|slot| slot.tag));
            state.slots.free(index);
        }
        drop(state);
        self.change.notify_all();
        tags.into_iter().for_each(|tag| self.edge.release(tag));
    }

    /// Takes a request.
    pub fn submit_one(&self, draft: Draft) -> Result<Key> {
        let start = Instant::now();
        let mut state = self.admit(1)?;
        let key = self.take_in(&mut state, draft, start, false);
        self.hand_over(state, start);
        Ok(key)
    }

    /// Takes all of `drafts`, or none; their names are added to `keys`, which has room for them.
    pub(super) fn submit_many(&self, drafts: &mut Vec<Draft>, keys: &mut Vec<Key>) -> Result<()> {
        let start = Instant::now();
        let mut state = self.admit(drafts.len())?;
        for draft in drafts.drain(..) {
            keys.push(self.take_in(&mut state, draft, start, true));
        }
        self.hand_over(state, start);
        Ok(())
    }

    /// Whether `count` more may come; makes room for them.
    fn admit(&self, count: usize) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.phase != Phase::Running {
            return Err(match state.phase {
                Phase::Stopping => stopping("submit to another ring, or after it was started again"),
                _ => Error::new(Code::INVALID_STATE, "the ring does not run: start it with kv_uring_start()"),
            });
        }
        let depth = self.settings.queue_depth as usize;
        if state.slots.length(On::Live) >= depth {
            state.tally.refused();
            let text = format!("{depth} requests are in flight, as many as queue_depth allows: wait for one, then submit again");
            return Err(Error::new(Code::BUSY, text));
        }
        state.slots.reserve(count)?;
        let known = state.slots.length(On::Live) + count;
        let State { queue, cancels, .. } = &mut *state;
        let (queue_room, cancel_room) = (queue.try_reserve(count), cancels.try_reserve(known.saturating_sub(cancels.len())));
        if queue_room.is_err() || cancel_room.is_err() {
            return Err(Error::no_memory("no memory for another request: give the process more, or wait for some to end"));
        }
        Ok(state)
    }

    fn take_in(&self, state: &mut State, draft: Draft, now: Instant, batched: bool) -> Key {
        let id = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed);
        let limit = self.settings.timeout_ms;
        let deadline = if limit == u32::MAX { None } else { now.checked_add(Duration::from_millis(limit.into())) };
        let slot = Slot::new(id, draft.tag, draft.op, draft.transfer, now, deadline, state.tally.epoch);
        let key = Key { slot: state.slots.insert(slot), id };
        state.queue.push_back(key);
        state.undelivered += 1;
        let depth = state.slots.length(On::Live);
        state.tally.accepted(draft.op, depth, batched, now);
        self.edge.accepted(draft.tag, key, clock::unix_us_rising());
        key
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>, start: Instant) {
        state.tally.submitted_in(start.elapsed());
        self.wake_reaper(state);
    }

    fn wake_reaper(&self, state: MutexGuard<'_, State>) {
        if state.reaper_idle {
            if !planted(Bug::ReaperAsleep) {
                self.work.notify_one();
            }
        } else if let Some(bell) = state.bell.clone() {
            drop(state);
            bell.ring();
        }
    }

    /// Waits until a request's callback has returned; how it ended.
    pub fn wait(&self, key: Key, timeout_ms: u32) -> Result<()> {
        let end = (timeout_ms != u32::MAX).then(|| clock::deadline(timeout_ms.into())).flatten();
        let mut state = self.state.lock();
        loop {
            let slot = state.slots.get(key).ok_or_else(destroyed)?;
            if slot.delivered {
                let (op, status, result) = (slot.op, slot.status, slot.result);
                if state.slots.on(key.slot) == On::Unseen {
                    state.slots.put(key.slot, On::Neither);
                }
                return answer(op, status, result);
            }
            if !self.sleep(&mut state, timeout_ms, end)? {
                return Err(Error::new(Code::TIMEOUT, "the request has not ended yet: it goes on; wait again, or cancel it"));
            }
        }
    }

    /// Waits until `count` requests have ended that no wait has reported yet, and reports that many.
    pub fn wait_many(&self, count: usize, timeout_ms: u32) -> Result<()> {
        let end = (timeout_ms != u32::MAX).then(|| clock::deadline(timeout_ms.into())).flatten();
        let mut state = self.state.lock();
        while state.slots.length(On::Unseen) < count {
            if state.phase == Phase::Idle {
                let text = "the ring does not run, and fewer requests have ended than are waited for: start it, submit more";
                return Err(Error::new(Code::INVALID_STATE, text));
            }
            if !self.sleep(&mut state, timeout_ms, end)? {
                let seen = state.slots.length(On::Unseen);
                return Err(Error::new(Code::TIMEOUT, format!("{seen} of {count} requests have ended: all go on; wait again")));
            }
        }
        for _ in 0..count {
            state.slots.pop(On::Unseen);
        }
        Ok(())
    }

    /// Sleeps until something has changed; false when the time is over.
    fn sleep(&self, state: &mut MutexGuard<'_, State>, timeout_ms: u32, end: Option<Instant>) -> Result<bool> {
        if timeout_ms == 0 || end.is_some_and(|end| end <= Instant::now()) {
            return Ok(false);
        }
        self.not_in_own_callback("its requests cannot end before that returns; ask with a timeout of 0")?;
        state.waiters += 1;
        match end {
            Some(end) => drop(self.change.wait_until(state, end)),
            None => self.change.wait(state),
        }
        state.waiters -= 1;
        Ok(true)
    }

    /// Wants a request to end. It does, sooner or later, with its callback; nothing happens to one that has ended.
    pub fn cancel(&self, key: Key) -> Result<()> {
        let mut state = self.state.lock();
        let slot = state.slots.get(key).ok_or_else(destroyed)?;
        if !slot.status.has_ended() && !state.cancels.contains(&key) {
            state.cancels.push(key); // there is room for all that are in flight
            self.wake_reaper(state);
        }
        Ok(())
    }

    /// Lets go of a request: at once if it has ended, else after its callback.
    pub fn give_back(&self, key: Key) {
        let mut state = self.state.lock();
        let Some(slot) = state.slots.get(key) else { return };
        slot.given_back = true;
        if slot.delivered {
            let tag = slot.tag;
            state.slots.free(key.slot);
            drop(state);
            self.edge.release(tag);
        }
    }

    /// Whether a request is still known.
    pub fn knows(&self, key: Key) -> bool {
        self.state.lock().slots.get(key).is_some()
    }

    /// Status and result of a request.
    pub fn look(&self, key: Key) -> Option<(Status, i32)> {
        self.state.lock().slots.get(key).map(|slot| (slot.status, slot.result))
    }

    /// Requests that nobody has begun yet; the reaper is told.
    pub fn submit_queued(&self) -> Result<usize> {
        let state = self.state.lock();
        if state.phase != Phase::Running {
            return Err(Error::new(Code::INVALID_STATE, "the ring does not run: start it with kv_uring_start()"));
        }
        let queued = state.queue.len();
        self.wake_reaper(state);
        Ok(queued)
    }

    /// Requests that have ended and that no wait has reported.
    pub fn unseen(&self) -> usize {
        self.state.lock().slots.length(On::Unseen)
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        self.state.lock().tally.stats()
    }

    /// Throughput and latency of one kind of operation.
    pub fn figures_of(&self, op: OpKind) -> (f64, f64) {
        let state = self.state.lock();
        (state.tally.throughput(op), state.tally.latency_us(op))
    }

    /// Begins to count anew; what is in flight counts neither here nor there.
    pub fn reset_stats(&self) {
        let mut state = self.state.lock();
        let epoch = state.tally.epoch.wrapping_add(1);
        state.tally = Tally::new(epoch);
    }

    /// What carries out requests, and why that.
    pub fn backend(&self) -> (&'static str, String) {
        self.state.lock().backend.clone()
    }

    /// How much of what happens is logged.
    pub fn set_debug_level(&self, level: i32) {
        self.debug_level.store(level, Ordering::Relaxed);
    }

    /// Names and numbers, for people.
    pub fn dump(&self) -> Vec<(&'static str, String)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        vec![
            ("phase", format!("{:?}", state.phase)),
            ("queue_depth", self.settings.queue_depth.to_string()),
            ("timeout_ms", self.settings.timeout_ms.to_string()),
            ("queued", state.queue.len().to_string()),
            ("begun", state.begun.to_string()),
            ("in_flight", state.slots.length(On::Live).to_string()),
            ("undelivered", state.undelivered.to_string()),
            ("ended_unseen", state.slots.length(On::Unseen).to_string()),
            ("requests_known", state.slots.used().count().to_string()),
            ("waiters", state.waiters.to_string()),
            ("io_backend", state.backend.0.to_owned()),
            ("io_backend_reason", state.backend.1.clone()),
        ]
    }

    /// Whether the counts agree with each other.
    pub fn validate(&self) -> Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (live, unseen) = (state.slots.length(On::Live), state.slots.length(On::Unseen));
        let waiting = state.slots.used().filter(|(_, slot)| !slot.status.has_ended()).count();
        let undelivered = state.slots.used().filter(|(_, slot)| !slot.delivered).count();
        let delivered = state.slots.used().filter(|(_, slot)| slot.delivered).count();
        let stale = state.slots.used().filter(|(_, slot)| !slot.status.has_ended() && slot.epoch != state.tally.epoch).count() as u64;
        let rules = [
            (live == waiting, "every request in flight is on the list of those"),
            (state.undelivered == undelivered, "every callback that is due is counted"),
            (unseen <= delivered, "no request counts as ended before its callback has returned"),
            (state.begun <= live, "no more are begun than are in flight"),
            (state.tally.unfinished() + stale == live as u64, "the statistics agree with what is in flight"),
            (state.phase != Phase::Idle || live == 0, "a ring that does not run has nothing in flight"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(Error::new(Code::STATE, format!("a fault inside the library: not true that {rule}; please report it"))),
        }
    }

    fn in_own_callback(&self) -> bool {
        REAPER_OF.with(Cell::get) == self.number
    }

    fn not_in_own_callback(&self, advice: &str) -> Result<()> {
        if self.in_own_callback() {
            return Err(Error::new(Code::INVALID_STATE, format!("this thread runs a callback of the ring: {advice}")));
        }
        Ok(())
    }
}

fn stopping(advice: &str) -> Error {
    Error::new(Code::INVALID_STATE, format!("the ring is being stopped: {advice}"))
}

fn destroyed() -> Error {
    Error::new(Code::PARAM, "req was destroyed: keep it until nobody waits for it any more")
}
