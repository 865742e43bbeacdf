//! Executing what the lane hands out: plan, commit, read, end.
//!
//! Runs in worker threads and in threads that wait. Must never call a caller's function: that is `deliver`'s.

use super::lane::{Entry, InFlight, Job, Lane, count};
use super::operation::OpKind;
use super::rejoin;
use super::settings::Settings;
use super::work::Work;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::few::Few;
use crate::base::log;
use crate::base::sync;
use crate::engine::{Commit, NO_BATCH, Pin, ReadHints, Turn, Writes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

impl Lane {
    /// Executes `job`; a panic in it ends the batches concerned and nothing else.
    pub fn execute_caught(&self, job: Job) {
        if catch_unwind(AssertUnwindSafe(|| self.execute(job))).is_err() {
            log::write(log::Level::Error, "execute", "internal error while a batch was executed: it ended with KV_ERR_UNKNOWN");
        }
    }

    fn execute(&self, job: Job) {
        match job {
            Job::Group(turn, entries) => self.execute_group(turn, entries),
            Job::Alone(turn, entry) => self.execute_alone(turn, entry),
            Job::Read(entry) => self.execute_read(entry),
            Job::Sync => self.sync_by_interval(),
        }
    }

    fn sync_by_interval(&self) {
        count(&self.counters.interval_syncs, 1);
        if let Err(error) = self.engine.sync() {
            log::write(log::Level::Error, "sync", &error.message);
        }
        self.queue.lock().sync_running = false;
        self.keeper.notify_one();
    }

    fn execute_group(&self, turn: Turn, mut entries: Few<Entry>) {
        let Some(first) = entries.first() else { return };
        let in_flight = InFlight::of(self, first);
        let settings = first.context.settings().clone();
        let may_rejoin = rejoin::may_rejoin(entries.len(), entries.iter().map(Entry::record_bytes).sum());
        entries.iter_mut().for_each(|entry| _ = entry.begin());
        for entry in &mut *entries {
            if let Some(work) = &mut entry.work {
                work.seal(&self.engine.hasher());
                work.plan(entry.context.settings().enable_deduplication);
                self.count_plan(work);
            }
        }
        let began = Instant::now();
        let result = self.commit(turn, &mut entries, &settings);
        let (members, took) = (entries.len(), began.elapsed());
        // Until they are back nothing begins that is too small to begin beside this group.
        let held_back = may_rejoin.then_some(in_flight);
        // Batches that only wrote end first: they need not wait for the reads of others.
        entries.sort_by_key(|entry| entry.work.as_ref().is_some_and(|work| !work.reads.is_empty()));
        entries.iter_mut().for_each(|entry| self.end_committed(entry, &result));
        if held_back.is_some() {
            self.let_rejoin(members, took);
        }
    }

    fn count_plan(&self, work: &Work) {
        count(&self.counters.deduplicated, work.deduplicated);
        count(&self.counters.packed_values, work.packed);
    }

    fn commit(&self, turn: Turn, entries: &mut [Entry], settings: &Settings) -> Result<()> {
        let mut group: Few<Commit<'_>> = entries
            .iter_mut()
            .filter_map(|entry| {
                let durable = entry.context.settings().enable_batch_fsync;
                let batch_id = entry.context.batch_id().map_or(NO_BATCH, |id| id.number);
                let work = entry.work.as_mut()?;
                Some(Commit {
                    batch_id,
                    durable: durable || work.census.syncs > 0,
                    writes: Writes { blocks: work.records.blocks_mut().collect(), ops: &work.writes },
                    reads: &mut work.reads,
                    pin: None,
                })
            })
            .collect();
        if group.is_empty() {
            return Ok(());
        }
        self.engine.commit(turn, &mut group, &mut self.retry(settings))?;
        let mut pins: Few<Pin> = group.iter_mut().map(|member| member.pin.take()).collect();
        for (work, pin) in entries.iter_mut().filter_map(|entry| entry.work.as_mut()).zip(pins.iter_mut()) {
            work.pin = pin.take();
        }
        Ok(())
    }

    /// Pauses and says whether to try again, as often as the settings allow.
    fn retry(&self, settings: &Settings) -> impl FnMut(&Error) -> bool {
        let (mut left, pause) = (settings.max_retry_count, Duration::from_millis(settings.retry_delay_ms.into()));
        move |error| {
            if left == 0 || !error.transient {
                return false;
            }
            left -= 1;
            count(&self.counters.retries, 1);
            sync::sleep(pause);
            true
        }
    }

    fn end_committed(&self, entry: &mut Entry, result: &Result<()>) {
        let Some(mut work) = entry.work.take() else { return };
        let mut error = result.as_ref().err().cloned();
        if error.is_none() && work.census.syncs > 0 && work.writes.is_empty() {
            error = self.engine.sync().err(); // nothing of its own was synced: SYNC means all before it
        }
        if let Some(error) = &error {
            work.fail_writes(error.code);
            work.pin = self.engine.resolve(&mut work.reads);
        }
        let read_error = self.read(&mut work, entry.context.settings());
        let error = error.or(read_error);
        if entry.context.settings().fail_fast && work.any_failed() {
            work.fail_the_rest();
        }
        entry.context.finish(work, error);
    }

    /// Fetches what was located, trying again what met a transient error. The first error, if one is left.
    fn read(&self, work: &mut Work, settings: &Settings) -> Option<Error> {
        let hints = ReadHints {
            depth: settings.io_queue_depth,
            sort: settings.enable_sorting,
            prefetch: settings.enable_prefetching,
            polling: settings.enable_io_polling,
        };
        let mut retry = self.retry(settings);
        while !work.reads.is_empty() {
            let pin = work.pin.take();
            let (reads, mut reader) = work.split_reads();
            self.engine.fetch(&pin, reads, &mut reader, &hints);
            let error = reader.first_error.take();
            if work.keep_transient_reads() == 0 || !error.as_ref().is_some_and(&mut retry) {
                return error;
            }
            work.pin = self.engine.resolve(&mut work.reads);
        }
        None
    }

    fn execute_read(&self, mut entry: Entry) {
        if !entry.begin() {
            return;
        }
        let Some(mut work) = entry.work.take() else { return };
        work.seal(&self.engine.hasher());
        work.plan(false);
        work.pin = self.engine.resolve(&mut work.reads);
        let error = self.read(&mut work, entry.context.settings());
        if entry.context.settings().fail_fast && work.any_failed() {
            work.fail_the_rest();
        }
        entry.context.finish(work, error);
    }

    /// A batch whose writes depend on what is in the store: nothing else is in flight meanwhile.
    fn execute_alone(&self, turn: Turn, mut entry: Entry) {
        let in_flight = InFlight::of(self, &entry);
        if !entry.begin() {
            return;
        }
        count(&self.counters.batches_alone, 1);
        let settings = entry.context.settings().clone();
        let Some(work) = &mut entry.work else { return };
        let error = self.decide(work, &settings);
        self.count_plan(work);
        if settings.fail_fast && work.any_failed() {
            work.fail_the_rest();
            drop(turn);
            drop(in_flight);
            if let Some(work) = entry.work.take() {
                entry.context.finish(work, error);
            }
            return;
        }
        if settings.fail_fast {
            work.reads.truncate(0); // they were read before, when the batch could still be given up
        }
        let result = self.commit(turn, std::slice::from_mut(&mut entry), &settings);
        drop(in_flight);
        self.end_committed(&mut entry, &result);
    }

    /// Reads the conditions, plans, and, where a failed read must stop the batch, reads the rest too.
    fn decide(&self, work: &mut Work, settings: &Settings) -> Option<Error> {
        work.seal(&self.engine.hasher());
        let mut error = None;
        if work.census.updates > 0 {
            work.plan_conditions();
            work.pin = self.engine.resolve(&mut work.reads);
            error = self.read(work, settings);
        }
        work.plan(settings.enable_deduplication);
        if error.is_none() && work.ops.iter().any(|op| op.kind == OpKind::Update && op.code == Code::KEY_NOT_FOUND) {
            error = Some(Error::new(Code::KEY_NOT_FOUND, "an UPDATE found no such key: use PUT to store a new one"));
        }
        if settings.fail_fast {
            work.pin = self.engine.resolve(&mut work.reads);
            error = self.read(work, settings).or(error);
        }
        error
    }
}

impl Entry {
    /// Execution begins; false if the deadline has passed and the batch has ended instead.
    fn begin(&mut self) -> bool {
        self.context.begin();
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.time_out();
            return false;
        }
        true
    }

    /// Ends a batch that nobody has begun to execute in time. After `Context::begin`.
    pub(super) fn time_out(&mut self) {
        let timeout_ms = self.context.settings().timeout_ms;
        let text = format!("the batch was not begun within config.timeout_ms ({timeout_ms} ms) and wrote nothing: submit it again later");
        self.end_unexecuted(Error::new(Code::TIMEOUT, text));
    }

    /// Ends the batch with one code for every operation; nothing was done. After `Context::begin`.
    pub(super) fn end_unexecuted(&mut self, error: Error) {
        if let Some(mut work) = self.work.take() {
            work.fail_all(error.code);
            self.context.finish(work, Some(error));
        }
    }
}
