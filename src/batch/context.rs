//! A batch, from its creation to its end.
//!
//! The context is shared (the caller's handle, the lane, threads that wait); its `Work` is owned: by the context while
//! it is pending (in its basin, see `filling`) or has ended, by an executor in between. Lock order: a context's state, then the
//! basin, then the lane's queue.

use super::deliver::Delivery;
use super::filling::{Basin, Content, Filling, Open};
use super::fork;
use super::lane::{Entry, Lane, Place};
use super::manager::Manager;
use super::operation::{CompleteHook, Edge, Hook, OpKind};
use super::settings::Settings;
use super::stats::{Stats, Tally};
use super::status::Status;
use super::work::Work;
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::limits::BATCH_OPS_MAX;
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use crate::base::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use crate::engine::BatchId;
use std::time::Instant;

/// See the top of this file.
pub struct Context {
    id: u64,
    /// Given where the order of commits is fixed, to batches that write.
    batch_id: OnceLock<BatchId>,
    pub(super) manager: Arc<Manager>,
    pub(super) edge: &'static dyn Edge,
    pub(super) edge_tag: AtomicUsize,
    /// The state's status, to be read without the lock.
    status: AtomicU8,
    basin: &'static Basin,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

pub(super) struct State {
    pub status: Status,
    /// Here after the end.
    pub work: Option<Box<Work>>,
    pub lane: Option<Arc<Lane>>,
    pub delivery: Delivery,
    /// The status that the end will bring.
    pub end: Status,
    pub waiters: usize,
    pub outs_written: bool,
    pub destroyed: bool,
    pub first_error: Option<Error>,
    pub tally: Tally,
    submitted_at: Option<Instant>,
    operations: u64,
    held_bytes: usize,
    held_bytes_peak: usize,
}

impl Context {
    /// A new batch for at most `max_ops` operations (0: as configured). `edge` gets its results.
    pub fn create(manager: &Arc<Manager>, max_ops: usize, edge: &'static dyn Edge) -> Result<Arc<Context>> {
        Context::create_in(Basin::take, manager, max_ops, edge)
    }

    /// The same, filled in a basin that no other batch has.
    pub fn create_in(
        basin: impl FnOnce() -> Result<&'static Basin>,
        manager: &Arc<Manager>,
        max_ops: usize,
        edge: &'static dyn Edge,
    ) -> Result<Arc<Context>> {
        let max_ops = if max_ops == 0 { manager.settings().max_batch_size } else { max_ops };
        if max_ops > BATCH_OPS_MAX {
            return Err(Error::new(
                Code::INVALID_PARAM,
                format!("a batch of {max_ops} operations: use at most KV_ASYNC_BATCH_MAX_SIZE ({BATCH_OPS_MAX})"),
            ));
        }
        let open = Open { tag: 0, work: manager.new_work(max_ops)?, max_ops, manager: Arc::clone(manager) };
        let basin = basin()?;
        basin.lock().open = Some(open);
        let state = State {
            status: Status::Pending,
            work: None,
            lane: None,
            delivery: Delivery::NotYet,
            end: Status::Pending,
            waiters: 0,
            outs_written: false,
            destroyed: false,
            first_error: None,
            tally: Tally::default(),
            submitted_at: None,
            operations: 0,
            held_bytes: 0,
            held_bytes_peak: 0,
        };
        let context = Arc::new(Context {
            id: manager.next_id(),
            batch_id: OnceLock::new(),
            manager: Arc::clone(manager),
            edge,
            edge_tag: AtomicUsize::new(0),
            status: AtomicU8::new(Status::Pending as u8),
            basin,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        manager.adopt(&context)?;
        Ok(context)
    }

    /// Names this batch for the edge, which may from now on add to it by way of its basin.
    pub fn set_edge_tag(&self, tag: usize) {
        self.edge_tag.store(tag, Ordering::Release);
        if let Some(open) = &mut self.basin.lock().open {
            open.tag = tag;
        }
    }

    /// The edge's name for this batch is good no more: nothing is added by it.
    pub fn shut(&self) {
        if fork::is_forked_child() || planted(Bug::BasinNotShut) {
            return; // in such a child nothing is added at all, and threads that do not exist there may hold the lock for ever
        }
        if let Some(open) = &mut self.basin.lock().open {
            open.tag = 0;
        }
    }

    /// Where it is filled. For the edge, to be asked for `filling_of` its tag, also when the batch is gone.
    pub fn basin(&self) -> &'static Basin {
        self.basin
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Names the batch for ever; from submit on, if it writes. `Manager::batch_outcome` takes it, also in another process.
    pub fn batch_id(&self) -> Option<BatchId> {
        self.batch_id.get().copied()
    }

    pub(super) fn set_batch_id(&self, id: BatchId) {
        self.batch_id.get_or_init(|| id);
    }

    pub(super) fn settings(&self) -> &Settings {
        self.manager.settings()
    }

    pub(super) fn set_status(&self, state: &mut State, next: Status) {
        debug_assert!(state.status.may_become(next), "{:?} to {next:?}", state.status);
        state.status = next;
        self.status.store(next as u8, Ordering::Release);
    }

    /// Where the batch is in its life.
    pub fn status(&self) -> Status {
        Status::from_number(self.status.load(Ordering::Acquire).into()).unwrap_or(Status::Failed)
    }

    /// The batch, to be added to; an error if it takes no more.
    pub fn filling(&self) -> Result<Filling> {
        self.basin.filling().ok_or_else(|| not_pending(self.status(), "takes no more operations: create another batch"))
    }

    /// Adds an operation; key and value are copied. What is refused leaves the batch as it was.
    pub fn add(&self, kind: OpKind, key: &[u8], value: &[u8], hook: Hook) -> Result<()> {
        self.filling()?.add(kind, key, value, hook)
    }

    /// The same for a PUT or UPDATE whose key is no longer there from `expiry_ms` on, in milliseconds since 1970.
    #[cfg(test)]
    pub fn add_expiring(&self, kind: OpKind, key: &[u8], value: &[u8], expiry_ms: Option<u64>, hook: Hook) -> Result<()> {
        self.filling()?.add_expiring(kind, key, value, expiry_ms, hook)
    }

    /// Takes the batch out of filling, for good; `None` if that has been done.
    fn take_filled(&self, state: &mut State) -> Option<Box<Work>> {
        let mut basin = self.basin.lock();
        let work = basin.open.take()?.work;
        self.end_filling(state, &mut basin, work.held_bytes());
        Some(work)
    }

    /// From here on the state says what the batch holds.
    fn end_filling(&self, state: &mut State, basin: &mut Content, held: usize) {
        self.manager.note_held(std::mem::take(&mut basin.told), held);
        state.held_bytes = held;
        state.held_bytes_peak = state.held_bytes_peak.max(held);
    }

    /// Bytes that the manager was told too many, for it to take off.
    pub(super) fn held_too_much(&self) -> usize {
        let basin = self.basin.lock();
        basin.open.as_ref().map_or(0, |open| basin.told - open.work.held_bytes())
    }

    fn note_held(&self, state: &mut State, held: usize) {
        self.manager.note_held(state.held_bytes, held);
        state.held_bytes = held;
        state.held_bytes_peak = state.held_bytes_peak.max(held);
    }

    /// Hands the batch over. Never waits for a disk, never calls back.
    pub fn submit(self: &Arc<Self>, complete: CompleteHook) -> Result<()> {
        let began = Instant::now();
        let mut state = self.state.lock();
        let mut basin = self.basin.lock(); // until it is clear whether it goes: a refused submit changes nothing for those who add
        let Some(mut open) = basin.open.take() else {
            return Err(not_pending(self.status(), "cannot be submitted (again): create another batch"));
        };
        let lane = match self.ready_to_submit(&mut open.work) {
            Ok(lane) => lane,
            Err(error) => {
                basin.open = Some(open);
                return Err(error);
            }
        };
        let mut work = open.work;
        let held = work.held_bytes();
        work.complete = complete;
        let operations = work.ops.len() as u64;
        let writes = work.census.writes();
        let reads_only = writes == 0 && work.census.syncs == 0;
        let alone = work.census.updates > 0 || (self.settings().fail_fast && work.census.gets > 0 && writes > 0);
        let deadline = clock::deadline_from(began, self.settings().timeout_ms.into());
        let entry = Entry { context: Arc::clone(self), work: Some(work), deadline, place: Place::Read { after: 0 }, keys: None };
        state.operations = operations;
        state.submitted_at = Some(began);
        state.lane = Some(Arc::clone(&lane));
        self.set_status(&mut state, Status::Submitted);
        self.manager.note_queued(operations);
        if let Err((error, mut entry)) = lane.submit(entry, reads_only, alone) {
            self.manager.note_begun(operations);
            self.manager.leave_flight();
            state.status = Status::Pending;
            self.status.store(Status::Pending as u8, Ordering::Release);
            basin.open = entry.work.take().map(|work| Open { work, ..open });
            return Err(error);
        }
        self.end_filling(&mut state, &mut basin, held);
        drop(basin);
        let took = began.elapsed().as_nanos() as u64;
        state.tally.submit(operations, began, took);
        self.manager.tally(|tally| tally.submit(operations, began, took));
        Ok(())
    }

    fn ready_to_submit(&self, work: &mut Work) -> Result<Arc<Lane>> {
        if work.ops.is_empty() {
            return Err(Error::new(Code::INVALID_PARAM, "the batch is empty: add operations before submitting it"));
        }
        work.reserve_plan()?;
        self.manager.enter_flight()
    }

    /// An executor (or whoever ends the batch unexecuted) has it now.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        self.set_status(&mut state, Status::Completing);
        self.manager.note_begun(state.operations);
    }

    /// The operations have ended: counts them, and sees to it that somebody delivers them.
    pub(super) fn finish(self: &Arc<Self>, work: Box<Work>, error: Option<Error>) {
        let now = Instant::now();
        let mut outcome = work.outcome();
        let quiet = !work.has_callbacks();
        let mut state = self.state.lock();
        if state.status == Status::Submitted {
            // Only an entry that was dropped by a panic comes here without having begun.
            self.set_status(&mut state, Status::Completing);
            self.manager.note_begun(state.operations);
        }
        outcome.latency_ns = state.submitted_at.map_or(0, |at| now.saturating_duration_since(at).as_nanos() as u64);
        state.end = match (outcome.failed, outcome.cancelled) {
            (0, 0) => Status::Completed,
            (0, _) => Status::Cancelled,
            _ => Status::Failed,
        };
        state.first_error = error;
        state.tally.end(&outcome, now);
        self.manager.tally(|tally| tally.end(&outcome, now));
        self.note_held(&mut state, work.held_bytes());
        state.work = Some(work);
        state.delivery = Delivery::Ready;
        if quiet {
            let end = state.end;
            self.set_status(&mut state, end);
            self.conclude(state);
        } else if state.waiters > 0 {
            if !planted(Bug::LostWakeup) {
                self.changed.notify_all(); // one of them delivers
            }
        } else {
            let lane = state.lane.clone();
            drop(state);
            if let Some(lane) = lane {
                lane.deliveries.push(Arc::clone(self));
            }
        }
    }

    /// The last callback has returned.
    pub(super) fn conclude(&self, mut state: MutexGuard<'_, State>) {
        self.manager.leave_flight(); // first: who has waited may submit the next batch
        state.delivery = Delivery::Done;
        state.lane = None;
        if state.destroyed && !planted(Bug::MemoryKept) {
            self.drop_work(&mut state);
        }
        drop(state);
        if !planted(Bug::EndUntold) {
            self.changed.notify_all();
        }
    }

    fn drop_work(&self, state: &mut State) {
        let work = self.take_filled(state).or_else(|| state.work.take());
        self.note_held(state, 0);
        if let Some(work) = work {
            self.manager.keep_spare(work);
        }
    }

    /// Gives the batch up, unless somebody has begun to execute it (`BUSY`). An ended one is left alone.
    pub fn cancel(&self) -> Result<()> {
        let mut state = self.state.lock();
        match state.status {
            Status::Pending => {
                state.status = Status::Cancelled;
                self.status.store(Status::Cancelled as u8, Ordering::Release); // first: who finds nothing to fill says why
                state.work = self.take_filled(&mut state);
                let operations = state.work.as_ref().map_or(0, |work| work.ops.len() as u64);
                state.tally.end_unsubmitted(operations);
                drop(state);
                self.changed.notify_all();
                Ok(())
            }
            Status::Submitted => {
                let lane = state.lane.clone();
                drop(state);
                match lane.and_then(|lane| lane.remove(self)) {
                    Some(mut entry) => {
                        self.begin();
                        entry.end_unexecuted(Error::new(Code::CANCELLED, "the batch was cancelled before anybody began to execute it"));
                        Ok(())
                    }
                    None if planted(Bug::CancelClaimed) => Ok(()),
                    None => Err(too_late()),
                }
            }
            Status::Completing => Err(too_late()),
            Status::Completed | Status::Failed | Status::Cancelled => Ok(()),
        }
    }

    /// What the batch has done so far.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        let in_flight = matches!(state.status, Status::Submitted | Status::Completing) || state.is_delivering();
        let (added, held) = self.filled(&state);
        Stats {
            peak_memory_usage: state.held_bytes_peak.max(held),
            current_memory_usage: held,
            active_batches: u32::from(in_flight),
            queued_operations: if state.status == Status::Submitted { state.operations as u32 } else { 0 },
            ..state.tally.of_context(added)
        }
    }

    /// Sets all sums back to zero; what is held and what is in flight stays counted.
    pub fn reset_stats(&self) {
        let mut state = self.state.lock();
        state.tally = Tally::default();
        state.held_bytes_peak = self.filled(&state).1;
        self.basin.lock().added = 0;
    }

    /// Operations that were added, and bytes that the batch holds.
    fn filled(&self, state: &State) -> (u64, usize) {
        let basin = self.basin.lock();
        (basin.added, basin.open.as_ref().map_or(state.held_bytes, |open| open.work.held_bytes()))
    }

    /// Names and values of everything else that is counted, for printing.
    pub fn counters(&self) -> Vec<(String, String)> {
        self.manager.counters()
    }

    /// Ends the handle's life: pending work is dropped, work in flight is waited for, its own callback goes on first.
    pub fn destroy(self: &Arc<Self>) {
        if fork::is_forked_child() {
            // Threads that do not exist here may hold the lock for ever: free what can be had, leave the rest.
            if let Some(mut basin) = self.basin.try_lock() {
                drop(basin.open.take());
            }
            if let Some(mut state) = self.state.try_lock() {
                drop(state.work.take());
            }
            return;
        }
        self.manager.forget(self.id);
        let in_flight = {
            let mut state = self.state.lock();
            state.destroyed = true;
            if matches!(state.status, Status::Pending) || state.status == Status::Cancelled && state.delivery == Delivery::NotYet {
                self.drop_work(&mut state);
                return;
            }
            state.delivery != Delivery::Done
        };
        if in_flight && !self.is_delivered_by_this_thread() && !planted(Bug::DestroyedInFlight) {
            self.wait_for_end();
        }
        let mut state = self.state.lock();
        if state.delivery == Delivery::Done && !planted(Bug::MemoryKept) {
            self.drop_work(&mut state);
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.basin.give_back();
    }
}

#[cold]
fn not_pending(status: Status, advice: &str) -> Error {
    let name = status.name().to_str().unwrap_or("?");
    Error::new(Code::INVALID_STATE, format!("the batch is {name}: it {advice}"))
}

fn too_late() -> Error {
    Error::new(Code::BUSY, "the batch is being executed and will complete: wait for it")
}
