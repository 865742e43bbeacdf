//! Delivery: the callbacks of a batch, in order, exactly once, with no lock held.
//!
//! A thread that waits for the batch delivers it; else one of the lane's delivery threads does. Executors never do: a
//! callback may block for ever, and the next commit must not wait for it.

use super::context::{Context, State};
use super::scope::{CallbackScope, thread_mark};
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::{Arc, Condvar, JoinHandle, Mutex, spawn};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How far the delivery of a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The operations have not ended.
    NotYet,
    /// They have; nobody delivers them yet.
    Ready,
    /// Callbacks are running in the thread with this mark.
    By(usize),
    /// The last one has returned.
    Done,
}

impl Context {
    /// Runs the callbacks, unless somebody else has begun to.
    pub(super) fn deliver(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.delivery != Delivery::Ready {
            return;
        }
        let Some(mut work) = state.work.take() else { return };
        state.delivery = Delivery::By(thread_mark());
        drop(state);
        let scope = CallbackScope::enter(self.manager.id());
        let begun = Instant::now();
        let outcome = work.outcome();
        // The edge guards the caller's functions; should it fail itself, the batch ends all the same.
        let called = catch_unwind(AssertUnwindSafe(|| {
            work.deliver(|view| self.edge.op_done(view));
            if planted(Bug::CallbackTwice) {
                work.deliver(|view| self.edge.op_done(view));
            }
        }));
        let complete = work.complete;
        let mut state = self.state.lock();
        state.work = Some(work);
        let end = state.end;
        self.set_status(&mut state, end);
        drop(state);
        let completed = catch_unwind(AssertUnwindSafe(|| {
            if complete.callback != 0 {
                let tag = self.edge_tag.load(Ordering::Acquire);
                self.edge.batch_done(tag, outcome.completed as usize, (outcome.failed + outcome.cancelled) as usize, complete);
            }
        }));
        drop(scope);
        let taken = begun.elapsed();
        if taken >= SLOW_CALLBACKS {
            let text = format!(
                "the callbacks of a batch of {} operations took {} ms and held up whoever waits for it: \
                 hand long work to a thread of your own",
                outcome.completed + outcome.failed + outcome.cancelled,
                taken.as_millis()
            );
            log::write(log::Level::Warn, "deliver", &text);
        }
        if called.is_err() || completed.is_err() {
            log::write(log::Level::Error, "deliver", "internal error while callbacks were called: some may be missing");
        }
        self.conclude(self.state.lock());
    }

    /// Whether this thread is in a callback of this batch.
    pub(super) fn is_delivered_by_this_thread(&self) -> bool {
        self.state.lock().delivery == Delivery::By(thread_mark())
    }
}

impl State {
    /// Whether callbacks are running.
    pub fn is_delivering(&self) -> bool {
        matches!(self.delivery, Delivery::By(_))
    }
}

/// Callbacks of one batch that take longer together have a line in the log.
const SLOW_CALLBACKS: Duration = Duration::from_secs(1);

/// A delivery thread beyond the first ends when it had nothing to do for this long.
const SPARE_THREAD_IDLE: Duration = Duration::from_secs(10);

/// Threads that may be stuck in callbacks at one time before deliveries have to queue.
const THREADS_MAX: usize = 64;

#[derive(Default)]
struct Ready {
    batches: VecDeque<Arc<Context>>,
    threads: Vec<JoinHandle<()>>,
    running: usize,
    idle: usize,
    stopping: bool,
}

/// Batches that nobody waits for, and the threads that deliver them.
#[derive(Default)]
pub(super) struct Deliveries {
    ready: Arc<(Mutex<Ready>, Condvar)>,
}

impl Deliveries {
    /// Starts the first thread.
    pub fn start(&self) -> crate::base::error::Result<()> {
        let mut ready = self.ready.0.lock();
        ready.stopping = false;
        self.add_thread(&mut ready)
    }

    fn add_thread(&self, ready: &mut Ready) -> crate::base::error::Result<()> {
        let shared = Arc::clone(&self.ready);
        ready.threads.push(spawn("kvbatch-deliver", move || deliver_until_stopped(&shared))?);
        ready.running += 1;
        Ok(())
    }

    /// Takes a batch for delivery; when all threads are stuck in callbacks, another one is added.
    pub fn push(&self, context: Arc<Context>) {
        let mut ready = self.ready.0.lock();
        ready.batches.push_back(context);
        if ready.idle >= ready.batches.len() || ready.running >= THREADS_MAX {
            drop(ready);
            if !planted(Bug::DeliveryUntold) {
                self.ready.1.notify_one();
            }
        } else if let Err(error) = self.add_thread(&mut ready) {
            drop(ready);
            log::write(log::Level::Warn, "deliver", &error.message); // the ones there are will come to it
        }
    }

    /// Ends all threads. Nothing may be in flight.
    pub fn stop(&self) {
        let threads = {
            let mut ready = self.ready.0.lock();
            ready.stopping = true;
            std::mem::take(&mut ready.threads)
        };
        self.ready.1.notify_all();
        for thread in threads {
            let _ = thread.join(); // its panics were caught
        }
    }
}

fn deliver_until_stopped(shared: &(Mutex<Ready>, Condvar)) {
    let (ready, changed) = shared;
    let mut guard = ready.lock();
    loop {
        if let Some(context) = guard.batches.pop_front() {
            drop(guard);
            context.deliver();
            drop(context);
            guard = ready.lock();
            continue;
        }
        if guard.stopping {
            break;
        }
        guard.idle += 1;
        let spare = guard.running > 1;
        let timed_out = if spare {
            changed.wait_for(&mut guard, SPARE_THREAD_IDLE).timed_out()
        } else {
            changed.wait(&mut guard);
            false
        };
        guard.idle -= 1;
        if timed_out && guard.batches.is_empty() && guard.running > 1 {
            break;
        }
    }
    guard.running -= 1;
}
