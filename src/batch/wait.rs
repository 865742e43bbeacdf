//! Waiting for a batch: the thread that waits does the work, if there is some and nobody else has it.

use super::context::{Context, State};
use super::deliver::Delivery;
use super::lane::count;
use super::status::Status;
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::sync::{Arc, MutexGuard};
use std::time::Instant;

/// A thread with less patience than this does no I/O itself: it could not come back in time.
const PATIENCE_TO_WORK_MS: u32 = 50;

impl Context {
    /// Waits until the batch's last callback has returned, at most about `timeout_ms`; 0 polls.
    pub fn wait(self: &Arc<Self>, timeout_ms: u32) -> Result<()> {
        let began = Instant::now();
        let result = self.wait_inner(clock::deadline_from(began, timeout_ms.into()), timeout_ms >= PATIENCE_TO_WORK_MS);
        let took = began.elapsed().as_nanos() as u64;
        self.state.lock().tally.wait(took);
        self.manager.tally(|tally| tally.wait(took));
        result
    }

    /// Waits without end, for destroy.
    pub(super) fn wait_for_end(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.waiters += 1;
        while state.delivery != Delivery::Done {
            state = self.bring_nearer(state, true, None);
        }
        state.waiters -= 1;
    }

    fn wait_inner(self: &Arc<Self>, deadline: Option<Instant>, may_work: bool) -> Result<()> {
        let mut state = self.state.lock();
        state.waiters += 1;
        // So much patience is not at an end when it begins: the first look at the clock can be spared.
        let mut fresh = may_work;
        let result = loop {
            if let Some(result) = self.answer(&mut state) {
                break result;
            }
            if !std::mem::take(&mut fresh) && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break Err(Error::new(Code::TIMEOUT, "the batch has not ended yet and goes on: wait again"));
            }
            state = self.bring_nearer(state, may_work, deadline);
        };
        state.waiters -= 1;
        if state.delivery == Delivery::Ready && state.waiters == 0 {
            // The results came while this thread lost patience: it must not be held up by callbacks now.
            let lane = state.lane.clone();
            drop(state);
            if let Some(lane) = lane {
                lane.deliveries.push(Arc::clone(self));
            }
        }
        result
    }

    /// The code for the caller, if the wait is over.
    fn answer(&self, state: &mut State) -> Option<Result<()>> {
        if state.status == Status::Pending {
            return Some(Err(Error::new(Code::INVALID_STATE, "the batch was not submitted: submit it before waiting for it")));
        }
        if let Delivery::By(thread) = state.delivery
            && thread == super::scope::thread_mark()
        {
            let text = "a callback cannot wait for its own batch: it would wait for itself";
            return Some(Err(Error::new(Code::INVALID_STATE, text)));
        }
        let never_submitted = state.status == Status::Cancelled && state.delivery == Delivery::NotYet;
        if state.delivery != Delivery::Done && !never_submitted {
            return None;
        }
        if !state.outs_written
            && let Some(work) = &state.work
        {
            work.write_outs(|hook, value| self.edge.write_out(hook, value));
            state.outs_written = true;
        }
        Some(match state.status {
            Status::Completed => Ok(()),
            Status::Cancelled => Err(Error::new(Code::CANCELLED, "the batch was cancelled and wrote nothing")),
            _ => Err(batch_failed(state)),
        })
    }

    /// Delivers, executes, or sleeps until something changes.
    fn bring_nearer<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        may_work: bool,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        if state.delivery == Delivery::Ready {
            drop(state);
            self.deliver();
            return self.state.lock();
        }
        if may_work
            && state.delivery == Delivery::NotYet
            && let Some(lane) = state.lane.clone()
        {
            drop(state);
            if let Some(job) = lane.job_for(self) {
                count(&lane.counters.work_by_waiters, 1);
                lane.execute_caught(job);
                return self.state.lock();
            }
            state = self.state.lock();
            if matches!(state.delivery, Delivery::Ready | Delivery::Done) {
                return state;
            }
        }
        match deadline {
            Some(deadline) => drop(self.changed.wait_until(&mut state, deadline)),
            None => self.changed.wait(&mut state),
        }
        state
    }
}

fn batch_failed(state: &State) -> Error {
    let cause = match &state.first_error {
        Some(error) => format!("the first cause was {error}"),
        None => "look at each operation's result".to_owned(),
    };
    let in_doubt = state.first_error.as_ref().is_some_and(|error| error.in_doubt);
    let doubt = if in_doubt { " (its writes are in doubt: read them back after reopening the store)" } else { "" };
    Error::new(Code::BATCH_FAILED, format!("at least one operation of the batch failed{doubt}: {cause}"))
}
