//! A manager: created, running, stopped, and its share of a store's lane.

use super::context::Context;
use super::fork;
use super::grouping::Grouping;
use super::lane::Lane;
use super::memory;
use super::scope;
use super::settings::Settings;
use super::stats::{Stats, Tally};
use super::work::{Needs, Work};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{Arc, BriefLock, Condvar, Mutex, spawn};
use crate::engine::{BatchId, BatchOutcome};
use crate::store::{self, Store, StoreUrl};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;
use std::sync::Weak;

/// See the top of this file.
pub struct Manager {
    id: u64,
    settings: Settings,
    url: StoreUrl,
    /// Held while starting and stopping, so that these follow each other.
    life: Mutex<Life>,
    flight: Mutex<Flight>,
    landed: Condvar,
    contexts: Mutex<HashMap<u64, Weak<Context>, BuildHasherDefault<SpreadId>>>,
    tally: BriefLock<Tally>,
    queued_operations: AtomicU64,
    held_bytes: AtomicUsize,
    held_bytes_peak: AtomicUsize,
    /// Memory of batches that have ended, for the next ones. Only what comes from `malloc`: a caller with an allocator of
    /// its own is given back everything when a batch ends.
    #[allow(clippy::vec_box)] // batches own theirs in a box, which is not to be opened and closed each time
    spares: Mutex<Vec<Box<Work>>>,
    /// With an allocator of the caller's: what the last batch needed.
    needs: Mutex<Needs>,
}

/// Ended batches whose memory is kept.
const SPARES_MAX: usize = 16;

/// The store, from the first start to the stop (a store in memory: to the end).
#[derive(Default)]
struct Life {
    store: Option<Arc<Store>>,
    ended: bool,
}

#[derive(Default)]
struct Flight {
    /// Where batches go while the manager is running.
    lane: Option<Arc<Lane>>,
    batches: u32,
}

impl Manager {
    /// A manager that has touched no file yet.
    pub fn create(settings: Settings, url: &[u8]) -> Result<Arc<Manager>> {
        settings.validate()?;
        Ok(Arc::new(Manager {
            id: next_id(),
            settings,
            url: StoreUrl::parse(url)?,
            life: Mutex::default(),
            flight: Mutex::default(),
            landed: Condvar::new(),
            contexts: Mutex::default(),
            tally: BriefLock::default(),
            queued_operations: AtomicU64::new(0),
            held_bytes: AtomicUsize::new(0),
            held_bytes_peak: AtomicUsize::new(0),
            spares: Mutex::default(),
            needs: Mutex::default(),
        }))
    }

    /// What it was created with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn next_id(&self) -> u64 {
        next_id()
    }

    /// Opens the store and starts to take batches. Starting a running manager changes nothing.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let life = if scope::inside_callback_of(self.id) { self.life.try_lock() } else { Some(self.life.lock()) };
        let Some(mut life) = life else {
            return Err(Error::new(Code::INVALID_STATE, "the manager is being stopped and waits for this callback: start it afterwards"));
        };
        if life.ended {
            return Err(Error::new(Code::INVALID_STATE, "the manager was destroyed: create another"));
        }
        if self.flight.lock().lane.is_some() {
            return Ok(());
        }
        fork::mark_started();
        let entered = self.enter_lane(&mut life);
        if entered.is_err() {
            fork::unmark_started();
        }
        entered
    }

    fn enter_lane(&self, life: &mut Life) -> Result<()> {
        let store = match life.store.take() {
            Some(store) => store,
            None => store::open(&self.url, self.settings.io_queue_depth)?,
        };
        let companion = store.companion(|| Lane::new(Arc::clone(store.engine()), Grouping::of(store.options())));
        let lane = companion.downcast::<Lane>().map_err(|_| Error::new(Code::UNKNOWN, "internal error: a store's companion is no lane"));
        match lane.and_then(|lane| lane.enter(self.id, &self.settings).map(|()| lane)) {
            Ok(lane) => {
                self.flight.lock().lane = Some(lane);
                life.store = Some(store);
                Ok(())
            }
            Err(error) => {
                let _ = store.release(); // has said in the log what went wrong
                Err(error)
            }
        }
    }

    /// Completes what was submitted, refuses what comes after, closes the store. Stopping a stopped one changes nothing.
    pub fn stop(&self) -> Result<()> {
        if scope::inside_callback_of(self.id) {
            let text = "a callback cannot stop its own manager: it would wait for itself; stop it from another thread";
            return Err(Error::new(Code::INVALID_STATE, text));
        }
        let mut life = self.life.lock();
        let Some(lane) = self.flight.lock().lane.take() else { return Ok(()) };
        {
            let mut flight = self.flight.lock();
            while flight.batches > 0 && !planted(Bug::StopDoesNotDrain) {
                self.landed.wait(&mut flight);
            }
        }
        lane.leave(self.id);
        drop(lane);
        match (&self.url, life.store.take()) {
            (StoreUrl::File(..), Some(store)) => store.release(),
            (_, store) => {
                life.store = store; // memory is kept until the manager goes
                Ok(())
            }
        }
    }

    /// Stops, and takes along the contexts that still live. From a callback of its own it happens in another thread.
    pub fn destroy(self: &Arc<Self>) {
        if fork::is_forked_child() {
            for context in self.contexts.try_lock().iter().flat_map(|contexts| contexts.values()).filter_map(Weak::upgrade) {
                context.destroy();
            }
            return;
        }
        if scope::inside_callback_of(self.id) {
            let manager = Arc::clone(self);
            if let Err(error) = spawn("kvbatch-destroy", move || manager.destroy()) {
                log::write(log::Level::Error, "destroy", &error.message);
            }
            return;
        }
        let _ = self.stop(); // has said in the log what went wrong
        let contexts: Vec<_> = self.contexts.lock().drain().collect();
        for context in contexts.iter().filter_map(|(_, context)| context.upgrade()) {
            context.destroy();
        }
        let mut life = self.life.lock();
        life.ended = true;
        if let Some(store) = life.store.take() {
            let _ = store.release(); // likewise
        }
        memory::let_go_of_kept();
    }

    /// Has batches go to a lane that has no threads.
    #[cfg(all(test, kv_model = "loom"))]
    pub(super) fn run_on(&self, lane: &Arc<Lane>) {
        self.flight.lock().lane = Some(Arc::clone(lane));
    }

    /// Edge tags of the contexts that still live.
    pub fn contexts(&self) -> Vec<usize> {
        let contexts = self.contexts.lock();
        contexts.values().filter_map(Weak::upgrade).map(|context| context.edge_tag.load(Ordering::Acquire)).collect()
    }

    /// An empty batch for at most `max_ops` operations: with the memory of one that has ended, if some was kept, or with as
    /// much as the last one needed.
    pub(super) fn new_work(&self, max_ops: usize) -> Result<Box<Work>> {
        /// Most batches are about this large; larger ones grow.
        const EXPECTED_OPS: usize = 256;
        let allocator = self.settings.allocator;
        if allocator.is_system() {
            if let Some(spare) = self.spares.try_lock().and_then(|mut spares| spares.pop()) {
                return Ok(spare);
            }
        } else {
            let needs = *self.needs.lock(); // free again before the caller's function is called
            if let Some(work) = Work::with_slab(allocator, needs, max_ops) {
                return Ok(Box::new(work));
            }
        }
        Ok(Box::new(Work::new(allocator, max_ops.min(EXPECTED_OPS))?))
    }

    /// A batch has ended for good; its memory may serve the next.
    pub(super) fn keep_spare(&self, work: Box<Work>) {
        if !self.settings.allocator.is_system() {
            *self.needs.lock() = work.needs();
        } else if let Some(work) = work.recycle()
            && let Some(mut spares) = self.spares.try_lock()
            && spares.len() < SPARES_MAX
            && spares.try_reserve(1).is_ok()
        {
            spares.push(work);
        }
    }

    pub(super) fn adopt(&self, context: &Arc<Context>) -> Result<()> {
        let mut contexts = self.contexts.lock();
        contexts.try_reserve(1).map_err(|_| Error::no_memory("no memory for another batch: destroy some first"))?;
        contexts.insert(context.id(), Arc::downgrade(context));
        Ok(())
    }

    pub(super) fn forget(&self, context: u64) {
        self.contexts.lock().remove(&context);
    }

    /// One more batch in flight, if there may be; where it goes.
    pub(super) fn enter_flight(&self) -> Result<Arc<Lane>> {
        let mut flight = self.flight.lock();
        let Some(lane) = flight.lane.clone() else {
            return Err(Error::new(Code::INVALID_STATE, "the manager is not running: start it, then submit again"));
        };
        if flight.batches >= self.settings.max_concurrent_batches {
            return Err(Error::new(
                Code::BUSY,
                format!(
                    "{} batches are in flight, config.max_concurrent_batches allows no more: wait for one, then submit again",
                    flight.batches
                ),
            ));
        }
        flight.batches += 1;
        Ok(lane)
    }

    pub(super) fn leave_flight(&self) {
        let mut flight = self.flight.lock();
        flight.batches -= 1;
        let landed = flight.batches == 0 && flight.lane.is_none();
        drop(flight);
        if landed && !planted(Bug::LandingUntold) {
            self.landed.notify_all();
        }
    }

    pub(super) fn note_queued(&self, operations: u64) {
        self.queued_operations.fetch_add(operations, Ordering::Relaxed);
    }

    pub(super) fn note_begun(&self, operations: u64) {
        self.queued_operations.fetch_sub(operations, Ordering::Relaxed);
    }

    pub(super) fn note_held(&self, before: usize, after: usize) {
        let held = self.held_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed).wrapping_add(after.wrapping_sub(before));
        if held > self.held_bytes_peak.load(Ordering::Relaxed) {
            self.held_bytes_peak.fetch_max(held, Ordering::Relaxed);
        }
    }

    pub(super) fn tally(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock());
    }

    /// What all batches of this manager have done so far.
    pub fn stats(&self) -> Stats {
        let tally = *self.tally.lock();
        let contexts: Vec<_> = self.contexts.lock().values().filter_map(Weak::upgrade).collect();
        let too_much = contexts.iter().map(|context| context.held_too_much()).sum();
        Stats {
            peak_memory_usage: self.held_bytes_peak.load(Ordering::Relaxed),
            current_memory_usage: self.held_bytes.load(Ordering::Relaxed).saturating_sub(too_much),
            active_batches: self.flight.lock().batches,
            queued_operations: self.queued_operations.load(Ordering::Relaxed) as u32,
            ..tally.of_manager()
        }
    }

    /// What became of a batch: of this manager or another, of this process or one before it. The manager must be running.
    pub fn batch_outcome(&self, id: BatchId) -> Result<BatchOutcome> {
        match &self.flight.lock().lane {
            Some(lane) => Ok(lane.engine.batch_outcome(id)),
            None => Err(Error::new(Code::INVALID_STATE, "the manager is not running: start it, then ask what became of a batch")),
        }
    }

    /// Copies the store into directory `to`, which is empty or not there yet. The manager must be running.
    pub fn backup(&self, to: &Path) -> Result<()> {
        let Some(lane) = self.flight.lock().lane.clone() else {
            return Err(Error::new(Code::INVALID_STATE, "the manager is not running: start it, then back up its store"));
        };
        lane.engine.backup_to(to)
    }

    /// Names and values of what the lane and the engine count, while the manager is running.
    pub fn counters(&self) -> Vec<(String, String)> {
        let Some(lane) = self.flight.lock().lane.clone() else { return Vec::new() };
        let report = lane.engine.io_report();
        let mut lines = vec![
            ("store".to_owned(), lane.engine.name().to_owned()),
            ("io_backend".to_owned(), report.backend.to_owned()),
            ("io_backend_reason".to_owned(), report.reason),
        ];
        let counted = lane.counters.named().into_iter().chain(lane.engine.counters().named());
        lines.extend(counted.map(|(name, value)| (name.to_owned(), value.to_string())));
        lines
    }
}

/// Hashes ids that the library itself has counted up: nobody chooses them, so they need no more than to be spread.
#[derive(Default)]
struct SpreadId(u64);

impl Hasher for SpreadId {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn next_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
