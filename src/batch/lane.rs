//! The lane of a store: the one order in which its batches go, and the queue before the engine.
//!
//! All managers of a store share its lane. Batches that write stand in line; whoever comes first, a worker thread or a
//! thread in `wait`, takes a group from the front and draws the group's turn under the same lock, so that the order of
//! submits is the order of commits. Batches that only read stand aside and go as soon as every write to one of their keys
//! that was submitted before them has been published. Nothing here does I/O or calls a caller's function.

use super::context::Context;
use super::deliver::Deliveries;
use super::grouping::Grouping;
use super::keys::{FIRST_KEPT_SETS, Flight, KeySet, Unpublished};
use super::rejoin::Rejoin;
use super::settings::Settings;
use super::work::Work;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::few::Few;
use crate::base::limits::{GROUP_BATCHES_MAX, GROUPS_IN_FLIGHT_MAX};
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::base::sync::{Arc, Condvar, JoinHandle, Mutex, spawn};
use crate::engine::{BatchId, Engine, Turn};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Threads that execute batches nobody waits for: two, so that one group forms while another is being flushed.
const WORKERS: usize = 2;

/// A second group starts beside one in flight only when it has this many bytes: below, merging pays more.
const SECOND_GROUP_BYTES: usize = 64 << 10;

/// After the last submit a worker looks at the queue this often before it sleeps without a clock. No submit wakes it meanwhile: that costs
/// more than a small batch, and who submits mostly waits next, and works. While it finds nothing it looks less often, down to a fourth.
const LINGER: Duration = Duration::from_micros(100);
const LINGER_MAX: Duration = Duration::from_micros(400);
const LINGER_LOOKS: u32 = 10;

/// A submitted batch. Whoever owns the entry owes the batch its end; dropping it ends the batch with an error.
pub(super) struct Entry {
    pub context: Arc<Context>,
    pub work: Option<Box<Work>>,
    pub deadline: Option<Instant>,
    pub place: Place,
    /// The keys that it writes, if anybody may ask.
    pub keys: Option<Arc<KeySet>>,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In line with other writes; rising.
    Write { number: u64, alone: bool },
    /// Reads only: goes when the write with this number and all before it are published. It is the last one that may touch
    /// a key of the batch.
    Read { after: u64 },
}

/// Something to execute.
pub(super) enum Job {
    /// Commit these together.
    Group(Turn, Few<Entry>),
    /// Nothing else may be in flight: conditions are read before the commit.
    Alone(Turn, Entry),
    /// Reads only.
    Read(Entry),
    /// The sync interval is over.
    Sync,
}

/// Counters of the lane, for printing.
#[derive(Debug, Default)]
pub(super) struct LaneCounters {
    pub retries: AtomicU64,
    pub deduplicated: AtomicU64,
    pub packed_values: AtomicU64,
    pub interval_syncs: AtomicU64,
    pub batches_alone: AtomicU64,
    pub work_by_waiters: AtomicU64,
    pub work_by_workers: AtomicU64,
    pub reads_ahead: AtomicU64,
    pub rejoined: AtomicU64,
}

impl LaneCounters {
    /// Names and values.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("retries", value(&self.retries)),
            ("deduplicated_writes", value(&self.deduplicated)),
            ("packed_values", value(&self.packed_values)),
            ("interval_syncs", value(&self.interval_syncs)),
            ("batches_alone", value(&self.batches_alone)),
            ("jobs_by_waiters", value(&self.work_by_waiters)),
            ("jobs_by_workers", value(&self.work_by_workers)),
            ("reads_ahead_of_writes", value(&self.reads_ahead)),
            ("batches_rejoined", value(&self.rejoined)),
        ]
    }
}

#[derive(Default)]
pub(super) struct Queue {
    pub writes: VecDeque<Entry>,
    pub reads: VecDeque<Entry>,
    queued_bytes: usize,
    grouping: Grouping,
    pub rejoin: Rejoin,
    last_write: u64,
    /// Number of the last batch that got an id.
    last_batch: u64,
    /// Groups that are being committed.
    in_flight: Vec<Flight>,
    alone: bool,
    /// Workers that sleep until they are woken.
    idle_workers: usize,
    /// A worker looks again by itself in a moment (see `LINGER`).
    lingering: bool,
    pub sync_due: bool,
    pub sync_running: bool,
    pub users: Vec<User>,
    pub stopping: bool,
    pub keeper: KeeperState,
    /// Batches submitted, ever.
    pub submits: u64,
}

/// What the keeper is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum KeeperState {
    /// It will look at the queue before it sleeps.
    #[default]
    Awake,
    /// It sleeps, until this moment if there is one.
    Waiting { until: Option<Instant> },
}

/// A running manager of the store.
pub(super) struct User {
    pub manager: u64,
    /// How often it wants the store synced, if it does not sync each batch.
    pub sync_interval_ms: Option<u32>,
}

/// See the top of this file.
pub(super) struct Lane {
    pub engine: Arc<dyn Engine>,
    opening: u64,
    pub queue: Mutex<Queue>,
    work: Condvar,
    linger: Condvar,
    pub keeper: Condvar,
    pub deliveries: Deliveries,
    pub counters: LaneCounters,
    /// Batches that will still keep a set of their keys.
    pub sets_left: AtomicU32,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Lane {
    pub fn new(engine: Arc<dyn Engine>, grouping: Grouping) -> Arc<Lane> {
        Arc::new(Lane {
            opening: engine.opening(),
            engine,
            queue: Mutex::new(Queue { grouping, ..Queue::default() }),
            work: Condvar::new(),
            linger: Condvar::new(),
            keeper: Condvar::new(),
            deliveries: Deliveries::default(),
            counters: LaneCounters::default(),
            sets_left: AtomicU32::new(FIRST_KEPT_SETS),
            threads: Mutex::default(),
        })
    }

    /// A manager begins to use the lane; the first one starts its threads.
    pub fn enter(self: &Arc<Self>, manager: u64, settings: &Settings) -> Result<()> {
        let mut threads = self.threads.lock();
        if threads.is_empty() {
            self.queue.lock().stopping = false;
            if let Err(error) = self.start_threads(&mut threads) {
                self.stop_threads(&mut threads);
                return Err(error);
            }
        }
        let sync_interval_ms = Some(settings.fsync_interval_ms).filter(|ms| !settings.enable_batch_fsync && *ms > 0);
        self.queue.lock().users.push(User { manager, sync_interval_ms });
        Ok(())
    }

    /// The manager has nothing in flight any more and leaves; the last one ends the threads.
    pub fn leave(self: &Arc<Self>, manager: u64) {
        let mut threads = self.threads.lock();
        let empty = {
            let mut queue = self.queue.lock();
            queue.users.retain(|user| user.manager != manager);
            queue.users.is_empty()
        };
        if empty {
            self.stop_threads(&mut threads);
        }
    }

    fn start_threads(self: &Arc<Self>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
        for _ in 0..WORKERS {
            let lane = Arc::clone(self);
            threads.push(spawn("kvbatch-work", move || lane.work_until_stopped())?);
        }
        let lane = Arc::clone(self);
        threads.push(spawn("kvbatch-keeper", move || lane.keep())?);
        self.deliveries.start()
    }

    fn stop_threads(&self, threads: &mut Vec<JoinHandle<()>>) {
        self.queue.lock().stopping = true;
        self.work.notify_all();
        self.linger.notify_all();
        self.keeper.notify_all();
        for thread in threads.drain(..) {
            let _ = thread.join(); // a worker catches its panics: there is nothing to learn here
        }
        self.deliveries.stop();
    }

    fn work_until_stopped(self: Arc<Self>) {
        let (mut submits_seen, mut looks_left, mut linger) = (0, 0, LINGER);
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.take(&self.engine) {
                drop(queue);
                count(&self.counters.work_by_workers, 1);
                self.execute_caught(job);
                linger = LINGER;
                queue = self.queue.lock();
                continue;
            }
            if queue.stopping {
                return;
            }
            if std::mem::replace(&mut submits_seen, queue.submits) != queue.submits {
                looks_left = LINGER_LOOKS;
            }
            if looks_left > 0 && !queue.lingering {
                looks_left -= 1;
                queue.lingering = true;
                self.linger.wait_for(&mut queue, linger);
                linger = (2 * linger).min(LINGER_MAX);
                queue.lingering = false;
            } else {
                queue.idle_workers += 1;
                self.work.wait(&mut queue);
                (queue.idle_workers, linger) = (queue.idle_workers - 1, LINGER);
            }
        }
    }

    /// Gives a batch its place. No I/O; the entry comes back if there is no memory for it.
    pub fn submit(&self, mut entry: Entry, reads_only: bool, alone: bool) -> std::result::Result<(), (Error, Entry)> {
        let after = if reads_only { self.last_touching(&mut entry) } else { 0 };
        if !reads_only {
            self.keep_keys(&mut entry);
        }
        let mut queue = self.queue.lock();
        let line = if reads_only { &mut queue.reads } else { &mut queue.writes };
        if line.try_reserve(1).is_err() {
            return Err((Error::no_memory("no memory for the queue: wait for batches to end and submit again"), entry));
        }
        let deadline = entry.deadline;
        if reads_only {
            entry.place = Place::Read { after };
            queue.reads.push_back(entry);
        } else {
            queue.last_write += 1;
            entry.place = Place::Write { number: queue.last_write, alone };
            queue.queued_bytes += entry.record_bytes();
            if entry.work.as_ref().is_some_and(|work| work.census.writes() > 0) {
                queue.last_batch += 1;
                entry.context.set_batch_id(BatchId { opening: self.opening, number: queue.last_batch });
            }
            queue.writes.push_back(entry);
        }
        queue.submits += 1;
        // Who lingers is woken when a batch was there before this one and nobody has taken it.
        let wake_lingering = queue.lingering && queue.writes.len() + queue.reads.len() > 1;
        let wake_worker = queue.idle_workers > 0 && !queue.lingering;
        let wake_keeper = match queue.keeper {
            KeeperState::Awake => false,
            KeeperState::Waiting { until } => until.is_none_or(|until| deadline.is_some_and(|deadline| deadline < until)),
        };
        drop(queue);
        if wake_lingering {
            self.linger.notify_one();
        }
        if wake_worker && !planted(Bug::WorkerAsleep) {
            self.work.notify_one();
        }
        if wake_keeper {
            self.keeper.notify_one();
        }
        Ok(())
    }

    /// Takes a batch out of the queue, if nobody has begun with it.
    pub fn remove(&self, context: &Context) -> Option<Entry> {
        self.queue.lock().remove(|entry| entry.is_of(context))
    }

    /// A job that brings the end of `context` nearer, if there is one to be had.
    pub fn job_for(&self, context: &Context) -> Option<Job> {
        self.queue.lock().take_for(context, &self.engine)
    }

    /// A job has been done: whoever can go on is woken.
    pub fn wake_for_more(&self) {
        let queue = self.queue.lock();
        let more = !queue.writes.is_empty() || !queue.reads.is_empty() || queue.sync_due;
        let (linger, idle) = (more && queue.lingering, more && queue.idle_workers > 0);
        drop(queue);
        if linger {
            self.linger.notify_one();
        }
        if idle {
            self.work.notify_all();
        }
    }
}

impl Entry {
    pub fn is_of(&self, context: &Context) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.context), context)
    }

    pub fn record_bytes(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.record_bytes())
    }

    pub fn number(&self) -> u64 {
        match self.place {
            Place::Write { number, .. } => number,
            Place::Read { after } => after,
        }
    }

    fn is_alone(&self) -> bool {
        matches!(self.place, Place::Write { alone: true, .. })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(mut work) = self.work.take() {
            // Only a panic on the way gets here: the batch ends all the same, its outcome unknown.
            work.fail_all(Code::UNKNOWN);
            let error = Error::new(Code::UNKNOWN, "internal error while the batch was executed: please report it with the log");
            self.context.finish(work, Some(error.in_doubt()));
        }
    }
}

impl Queue {
    /// The next job for anybody.
    pub fn take(&mut self, engine: &Arc<dyn Engine>) -> Option<Job> {
        if let Some(read) = self.take_read(|_| true) {
            return Some(Job::Read(read));
        }
        if let Some(job) = self.take_group(engine) {
            return Some(job);
        }
        if self.sync_due && !self.sync_running {
            self.sync_due = false;
            self.sync_running = true;
            return Some(Job::Sync);
        }
        None
    }

    fn take_for(&mut self, context: &Context, engine: &Arc<dyn Engine>) -> Option<Job> {
        if self.writes.iter().any(|entry| entry.is_of(context)) {
            return self.take_group(engine);
        }
        if self.reads.iter().any(|entry| entry.is_of(context)) {
            return match self.take_read(|entry| entry.is_of(context)) {
                Some(read) => Some(Job::Read(read)),
                None => self.take_group(engine),
            };
        }
        None
    }

    /// The first batch of reads that fits and that waits for no write any more.
    fn take_read(&mut self, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let in_flight = self.in_flight.iter().map(|group| group.first);
        let oldest_write = in_flight.chain(self.writes.front().map(Entry::number)).min().unwrap_or(u64::MAX);
        let at = self.reads.iter().position(|entry| entry.number() < oldest_write && fits(entry))?;
        self.reads.remove(at)
    }

    /// The next commit, if one may start now.
    fn take_group(&mut self, engine: &Arc<dyn Engine>) -> Option<Job> {
        let groups = self.in_flight.len();
        let first_is_alone = self.writes.front()?.is_alone();
        if self.alone || groups >= GROUPS_IN_FLIGHT_MAX || (first_is_alone && groups > 0) {
            return None;
        }
        if groups > 0 && self.queued_bytes < SECOND_GROUP_BYTES && self.grouping.merges() {
            return None; // it merges with what comes while the group before it is being flushed
        }
        self.in_flight.try_reserve(1).ok()?;
        let first = self.pop_write()?;
        let turn = engine.turn();
        if first_is_alone {
            self.alone = true;
            self.in_flight.push(Flight::of(std::slice::from_ref(&first)));
            return Some(Job::Alone(turn, first));
        }
        let mut bytes = first.record_bytes();
        let limit = self.grouping.limit_bytes(bytes);
        let mut group = Few::one(first);
        while let Some(next) = self.writes.front() {
            bytes += next.record_bytes();
            if !self.grouping.merges() || next.is_alone() || bytes > limit || group.len() == GROUP_BATCHES_MAX {
                break;
            }
            self.pop_write().into_iter().for_each(|next| group.push(next));
        }
        self.in_flight.push(Flight::of(&group));
        Some(Job::Group(turn, group))
    }

    /// The writes that are not published, the last one first.
    pub fn unpublished(&self) -> Vec<Unpublished> {
        let in_flight = self.in_flight.iter().rev().flat_map(|group| group.keys.iter().rev().cloned());
        self.writes.iter().rev().map(Entry::unpublished).chain(in_flight).collect()
    }

    /// Whether something is queued or being committed.
    pub fn is_busy(&self) -> bool {
        !self.writes.is_empty() || !self.reads.is_empty() || !self.in_flight.is_empty()
    }

    /// How often the store is to be synced, if it is.
    pub fn sync_interval(&self) -> Option<Duration> {
        self.users.iter().filter_map(|user| user.sync_interval_ms).min().map(|ms| Duration::from_millis(ms.into()))
    }

    /// When the first of the queued batches has to be begun.
    pub fn earliest_deadline(&self) -> Option<Instant> {
        self.writes.iter().chain(&self.reads).filter_map(|entry| entry.deadline).min()
    }

    fn pop_write(&mut self) -> Option<Entry> {
        let entry = self.writes.pop_front()?;
        self.queued_bytes -= entry.record_bytes();
        Some(entry)
    }

    /// A group whose first number was `number` is published, or has failed.
    pub fn group_done(&mut self, number: u64, alone: bool) {
        self.in_flight.retain(|group| group.first != number);
        if alone {
            self.alone = false;
        }
    }

    /// Takes out the first entry that fits.
    pub fn remove(&mut self, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        if let Some(at) = self.writes.iter().position(&fits) {
            let entry = self.writes.remove(at)?;
            self.queued_bytes -= entry.record_bytes();
            return Some(entry);
        }
        let at = self.reads.iter().position(&fits)?;
        self.reads.remove(at)
    }
}

/// Marks a group as in flight; dropping it (also while unwinding) ends that and wakes whoever waited for it.
pub(super) struct InFlight<'a> {
    lane: &'a Lane,
    number: u64,
    alone: bool,
}

impl<'a> InFlight<'a> {
    pub fn of(lane: &'a Lane, first: &Entry) -> InFlight<'a> {
        InFlight { lane, number: first.number(), alone: first.is_alone() }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.lane.queue.lock().group_done(self.number, self.alone);
        self.lane.wake_for_more();
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
