//! The compactor: the thread that compacts, writes checkpoints and beats in the background, at a pace that leaves the
//! disk to commits.
//!
//! It sleeps until a chunk was begun, or something durable was written that the log does not yet say to be so, or a chunk that
//! was left to lose its records has had its second: only then is there anything to do. In an idle store it soon does not wake up.

use super::NativeEngine;
use super::chunks::Chunk;
use super::compaction::fill;
use crate::base::code::Code;
use crate::base::error::Result;
use crate::base::log::{self, Rare};
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Arc, Condvar, JoinHandle, Mutex, spawn};
use crate::engine::counters::add;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// See the top of this file.
#[derive(Default)]
pub(super) struct Compactor {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Chunks begun when it was last woken.
    chunks_seen: AtomicU64,
    /// It waits for the store to be idle, to beat then.
    beat_wanted: AtomicBool,
    /// Bytes of records, live and dead, in thousandths of what is tolerated.
    load: AtomicU64,
    /// When this many bytes of log have been written, it is looked how many there are.
    look_at: AtomicU64,
    /// The log says that compaction has fallen behind, and not yet that it has caught up.
    told: AtomicBool,
    failures: Rare,
}

/// From this load on compaction pauses less and less for commits, and not at all at `LOAD_FULL`.
const LOAD_HURRY: u64 = 750;
/// Below this load compaction waits for chunks that lose their records by themselves.
const LOAD_PATIENT: u64 = 600;
/// It is looked which these are so often, or when half a chunk of log has come.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is tolerated.
const LOAD_WHOLE: u64 = 1000;
/// From this load on commits pause: hardly at first, and as if each brought in `SLOWEST_BYTES_PER_SECOND` at `LOAD_MAX`.
const LOAD_FULL: u64 = 975;
const LOAD_MAX: u64 = 1100;
/// From this load on compaction has fallen behind: it is worth a line in the log.
const LOAD_BEHIND: u64 = 1250;
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 20;
/// A commit never pauses for longer, and not at all if it were for less than a sleep takes.
const HOLD_BACK_MAX: Duration = Duration::from_millis(5);
const HOLD_BACK_MIN: Duration = Duration::from_micros(20);
/// It is looked again when the log has grown by this share of what there may be.
const LOOK_SHARE: u64 = 64;

#[derive(Default)]
struct State {
    wanted: bool,
    /// It is to be looked again then, whatever else happens.
    again_at: Option<Instant>,
    /// When it was looked last which chunks fade.
    looked: Option<Look>,
    stopping: bool,
}

/// A look at the store.
#[derive(Clone, Copy)]
struct Look {
    /// Bytes of log that there were.
    log_bytes: u64,
    at: Instant,
    /// The disk was far from full.
    has_room: bool,
}

/// Keeps compaction from taking the disk for itself.
pub(super) struct Pace {
    /// Bytes per second; 0: no limit.
    bytes_per_second: u64,
    groups_seen: u64,
    last: Instant,
}

impl Pace {
    pub fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second, groups_seen: 0, last: Instant::now() }
    }
}

impl NativeEngine {
    /// Starts the thread, if the options give it anything to do.
    pub(super) fn start_compactor(self: &Arc<Self>) -> Result<()> {
        let options = &self.options;
        let idle = options.min_fill_percent == 0 && options.checkpoint_log_bytes == 0 && options.beat_idle_ms == 0;
        if idle || !options.background || options.read_only {
            return Ok(());
        }
        let engine = Arc::downgrade(self);
        let compactor = Arc::clone(&self.compactor);
        *self.compactor.thread.lock() = Some(spawn("kvbatch-compact", move || compactor.run(&engine))?);
        Ok(())
    }

    /// Wakes the compactor if there is anything new for it: a chunk was begun, or a beat is wanted.
    pub(super) fn wake_compactor(&self) {
        if self.log.wants_beat() && !self.compactor.beat_wanted.load(Ordering::Relaxed) && self.options.beat_idle_ms > 0 {
            let _state = self.compactor.state.lock(); // it looks before it sleeps, under this lock
            self.compactor.beat_wanted.store(true, Ordering::Relaxed);
            self.compactor.changed.notify_one();
        }
        let begun = self.counters.chunks_created.load(Ordering::Relaxed);
        if begun != self.compactor.chunks_seen.load(Ordering::Relaxed) {
            self.compactor.chunks_seen.store(begun, Ordering::Relaxed);
            self.look_behind();
            self.want_tidying();
        } else if self.counters.log_bytes.load(Ordering::Relaxed) >= self.compactor.look_at.load(Ordering::Relaxed) {
            self.look_behind();
        }
    }

    /// On a full disk: wakes the compactor after each commit, for it may have made room possible.
    pub(super) fn wake_compactor_if_full(&self, committed: bool) {
        if self.log.is_full() && (committed || self.log.has_become_full()) {
            self.want_tidying();
        }
    }

    fn want_tidying(&self) {
        self.compactor.state.lock().wanted = true;
        self.compactor.changed.notify_one();
    }

    /// Ends the thread.
    pub(super) fn stop_compactor(&self) {
        self.stopping.store(true, Ordering::Release);
        self.compactor.state.lock().stopping = true;
        self.compactor.changed.notify_one();
        if let Some(thread) = self.compactor.thread.lock().take() {
            let _ = thread.join(); // what went wrong in it was logged
        }
    }

    /// Looks how far compaction is behind: it is when all chunks together are emptier than one that would be rewritten, and not
    /// just by some chunks of a small store. Wakes the compactor in time.
    pub(super) fn look_behind(&self) {
        if !self.options.background || self.options.min_fill_percent == 0 {
            return;
        }
        let view = self.chunks.view();
        let (mut all, mut live) = (0, 0);
        for seen in view.iter().flatten() {
            // Not by a chunk at a time when each is gone: commits, which pause by it, would stop and go.
            let rewritten = seen.chunk.rewritten.load(Ordering::Relaxed);
            all += seen.chunk.record_bytes.load(Ordering::Relaxed).saturating_sub(rewritten);
            live += seen.chunk.live_bytes();
        }
        let tolerated = (live * 100 / self.options.min_fill_percent).max(live + 2 * self.options.chunk_bytes);
        let load = all.saturating_mul(LOAD_WHOLE) / tolerated.max(1);
        self.compactor.load.store(load, Ordering::Relaxed);
        self.compactor.look_at.store(self.counters.log_bytes.load(Ordering::Relaxed) + tolerated / LOOK_SHARE, Ordering::Relaxed);
        if load >= LOAD_HURRY {
            self.want_tidying(); // what did not pay when the chunk was begun may pay now
        }
        // Between the two, commits and compaction keep the balance.
        let tells = if self.compactor.told.load(Ordering::Relaxed) { load <= LOAD_HURRY } else { load >= LOAD_BEHIND };
        if tells {
            let behind = !self.compactor.told.fetch_xor(true, Ordering::Relaxed);
            let text = if behind { "compaction has fallen behind: commits slow down" } else { "compaction has caught up" };
            log::write(log::Level::Info, "compact", &format!("store {}: {text}", self.path));
        }
    }

    /// Whether compaction has much to do, and will sync the log soon, and again.
    pub(super) fn compaction_hurries(&self) -> bool {
        self.compactor.load.load(Ordering::Relaxed) >= LOAD_HURRY
    }

    /// A group of `bytes` was committed. If compaction cannot keep up, its thread waits a little: else the disk would fill
    /// with what is dead. Nothing else waits for it here.
    pub(super) fn hold_back(&self, bytes: impl FnOnce() -> u64) {
        let load = self.compactor.load.load(Ordering::Relaxed);
        if load > LOAD_FULL
            && !self.log.is_full()
            && let Some(pause) = pause_of_commit(load, bytes())
        {
            std::thread::sleep(pause);
            add(&self.counters.held_back, 1);
        }
    }

    /// Pauses after a group of `bytes`, which began at `pace.last`: as the rate asks, and as long again as the group took
    /// if commits were waiting beside it; the less, the more there is to do.
    pub(super) fn keep_pace(&self, pace: &mut Pace, bytes: u64) {
        let took = pace.last.elapsed();
        let groups = self.counters.groups.load(Ordering::Relaxed);
        let others_commit = groups > pace.groups_seen + 1;
        let load = self.compactor.load.load(Ordering::Relaxed);
        let courtesy = if others_commit { courtesy(load, took) } else { Duration::ZERO };
        let by_rate = match pace.bytes_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_micros(bytes.saturating_mul(1_000_000) / rate).saturating_sub(took),
        };
        let pause = courtesy.max(by_rate);
        if !pause.is_zero() {
            let mut state = self.compactor.state.lock();
            if !state.stopping {
                self.compactor.changed.wait_for(&mut state, pause);
            }
        }
        pace.groups_seen = self.counters.groups.load(Ordering::Relaxed);
        pace.last = Instant::now();
    }
}

/// How long a commit of `bytes` pauses, if it does.
fn pause_of_commit(load: u64, bytes: u64) -> Option<Duration> {
    let share = load.saturating_sub(LOAD_FULL).min(LOAD_MAX - LOAD_FULL);
    let micros = bytes.saturating_mul(1_000_000) / SLOWEST_BYTES_PER_SECOND * share / (LOAD_MAX - LOAD_FULL);
    Some(Duration::from_micros(micros).min(HOLD_BACK_MAX)).filter(|pause| *pause >= HOLD_BACK_MIN)
}

/// How long compaction pauses for commits that wait beside it, after a group that took so long.
fn courtesy(load: u64, took: Duration) -> Duration {
    let left = LOAD_FULL - load.clamp(LOAD_HURRY, LOAD_FULL);
    took * left as u32 / (LOAD_FULL - LOAD_HURRY) as u32
}

impl Compactor {
    fn run(&self, engine: &Weak<NativeEngine>) {
        while let Some(task) = self.next_task(engine) {
            let Some(engine) = engine.upgrade() else { return };
            match task {
                Task::Beat => engine.beat_or_log(),
                Task::TidyUp => engine.tidy_up(),
            }
        }
    }

    /// Sleeps until there is something to do; `None`: the store is being closed.
    fn next_task(&self, engine: &Weak<NativeEngine>) -> Option<Task> {
        let mut groups_seen = None;
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            if std::mem::take(&mut state.wanted) || state.again_at.is_some_and(|at| at <= Instant::now()) {
                state.again_at = None;
                return Some(Task::TidyUp);
            }
            if !self.beat_wanted.load(Ordering::Relaxed) {
                match state.again_at {
                    Some(at) => drop(self.changed.wait_until(&mut state, at)),
                    None => self.changed.wait(&mut state),
                }
                continue;
            }
            let (groups, idle_ms) = {
                let engine = engine.upgrade()?;
                (engine.counters.groups.load(Ordering::Relaxed), engine.options.beat_idle_ms)
            };
            if groups_seen.replace(groups) == Some(groups) {
                self.beat_wanted.store(false, Ordering::Relaxed);
                return Some(Task::Beat);
            }
            let beat_at = Instant::now() + Duration::from_millis(idle_ms);
            let until = state.again_at.map_or(beat_at, |at| at.min(beat_at));
            if !self.changed.wait_until(&mut state, until).timed_out() {
                groups_seen = None; // woken for something else: it has not been idle for so long
            }
        }
    }
}

/// What the compactor does next.
enum Task {
    /// Say in the log how far it is durable.
    Beat,
    /// Checkpoints and compaction, as far as they are due.
    TidyUp,
}

impl NativeEngine {
    fn beat_or_log(&self) {
        if let Err(error) = self.beat()
            && error.code != Code::INVALID_STATE
        {
            log::write(log::Level::Warn, "beat", &error.message);
        }
    }

    /// Whether chunks that lose their records by themselves may be left alone for a while: the store has not much that is dead, and the
    /// disk is not about to be full.
    fn may_be_patient(&self) -> bool {
        let (log_bytes, now) = (self.counters.log_bytes.load(Ordering::Relaxed), Instant::now());
        let looked = self.compactor.state.lock().looked;
        let look = match looked {
            Some(before) if log_bytes - before.log_bytes < self.options.chunk_bytes / 2 && now - before.at < PATIENCE => before,
            _ => {
                self.look_behind();
                self.chunks.by_age().iter().for_each(|chunk| chunk.look_whether_it_fades());
                let look = Look { log_bytes, at: now, has_room: self.log.has_room_to_prepare(self.options.chunk_bytes) };
                self.compactor.state.lock().looked = Some(look);
                look
            }
        };
        look.has_room && self.compactor.load.load(Ordering::Relaxed) < LOAD_PATIENT
    }

    /// If a chunk was left alone that would have been rewritten else, it is looked again: nothing may ever come in that would wake
    /// the compactor.
    fn look_again(&self, patient: bool) {
        let is_due = |chunk: &Arc<Chunk>| chunk.end().is_some() && fill(chunk) <= self.options.min_fill_percent;
        let fades = |chunk: &Arc<Chunk>| chunk.fades.load(Ordering::Relaxed) && !chunk.damaged.load(Ordering::Relaxed);
        let waits = |chunk: &Arc<Chunk>| is_due(chunk) && fades(chunk);
        let again_at = (patient && self.chunks.by_age().iter().any(waits)).then(|| Instant::now() + PATIENCE);
        self.compactor.state.lock().again_at = again_at;
    }

    fn tidy_up(&self) {
        loop {
            // On a full disk all room is for compaction.
            if !self.log.is_full() {
                self.checkpoint_if_due();
            }
            if self.options.min_fill_percent == 0 {
                return;
            }
            let patient = self.may_be_patient();
            match self.compact_some(self.options.min_fill_percent, patient) {
                Ok(true) => {}
                Ok(false) => return self.look_again(patient),
                // It was this that met the full disk: now there is the reserve.
                Err(error) if error.code == Code::DISK_FULL && self.log.has_become_full() => {}
                Err(error) => {
                    if error.code == Code::DISK_FULL {
                        self.log.drop_prepared(); // what is only for speed must not be what it lacks
                    }
                    // Under load it is tried again soon, and again.
                    if error.code != Code::INVALID_STATE
                        && let Some(number) = self.compactor.failures.note()
                    {
                        let text = format!("{} (failure {number} of compaction since the store was opened)", error.message);
                        log::write(log::Level::Warn, "compact", &text);
                    }
                    return self.look_again(patient); // else what comes in next brings the next try
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{Faults, SimDisk};
    use crate::native::Options;
    use crate::native::tests::driver::Driver;
    use crate::native::tests::model::KEYS;
    use crate::native::tests::workload::options;

    #[test]
    fn while_there_is_much_to_do_small_groups_are_synced_beside() {
        let disk = SimDisk::new(1, Faults::default());
        let background = Options { background: true, min_fill_percent: 50, ..options(64 << 10, 64 << 10) };
        let mut driver = Driver::open(&disk, background, [0; KEYS]).unwrap();
        driver.commit(false, &[(0, 1)]).unwrap();
        let engine = &driver.engine;
        let (chunk, published) = (engine.chunks.by_age().pop().unwrap(), engine.log.published());
        let write_out = |from: u64| engine.write_out_beside(&chunk, from << 10, (from + 256) << 10);
        engine.compactor.load.store(LOAD_HURRY - 1, Ordering::Relaxed);
        (0..20).for_each(|i| write_out(i * 256));
        engine.compactor.load.store(LOAD_HURRY, Ordering::Relaxed);
        let mut at = 20;
        while engine.log.durable() < published {
            assert!(at < 20_000, "never synced");
            write_out(at * 256);
            std::thread::sleep(Duration::from_millis(1));
            at += 1;
        }
        let counters = crate::engine::Engine::counters(&**engine);
        assert!(counters.syncs > 0 && counters.early_bytes >= 4 << 20, "{counters:?}");
        assert!(counters.early_bytes <= (at - 20) * (256 << 10), "what came while there was little to do was left alone");
        driver.close();
    }

    #[test]
    fn what_compaction_has_done_of_a_chunk_counts_before_the_chunk_is_gone() {
        let disk = SimDisk::new(1, Faults::default());
        let background = Options { background: true, min_fill_percent: 50, ..options(64 << 10, 64 << 10) };
        let mut driver = Driver::open(&disk, background, [0; KEYS]).unwrap();
        driver.commit(false, &[(0, 1), (1, 1), (2, 1)]).unwrap();
        let engine = &driver.engine;
        let chunk = engine.chunks.by_age().pop().unwrap();
        let load = || {
            engine.look_behind();
            engine.compactor.load.load(Ordering::Relaxed)
        };
        chunk.record_bytes.store(100 << 10, Ordering::Relaxed);
        let before = load();
        chunk.rewritten.store(50 << 10, Ordering::Relaxed);
        assert_eq!(load(), before / 2);
        chunk.rewritten.store(200 << 10, Ordering::Relaxed);
        assert_eq!(load(), 0, "with frames it may come to more than the records");
        driver.close();
    }

    #[test]
    fn it_is_patient_while_little_is_dead() {
        let disk = SimDisk::new(1, Faults::default());
        let mut driver = Driver::open(&disk, options(64 << 10, 64 << 10), [0; KEYS]).unwrap();
        driver.commit(false, &[(0, 1)]).unwrap();
        driver.engine.log.end_chunk();
        driver.commit(false, &[(0, 1)]).unwrap();
        let engine = &driver.engine;
        let chunk = engine.chunks.by_age()[0].clone();
        engine.may_be_patient();
        for load in [0, LOAD_PATIENT, u64::MAX, LOAD_PATIENT - 1] {
            engine.compactor.load.store(load, Ordering::Relaxed);
            assert_eq!(engine.may_be_patient(), load < LOAD_PATIENT);
        }
        // It was looked once: for a second look it is too early, until a chunk's worth of log has come.
        chunk.fades.store(true, Ordering::Relaxed);
        engine.may_be_patient();
        assert!(chunk.fades.load(Ordering::Relaxed));
        add(&engine.counters.log_bytes, 64 << 10);
        engine.may_be_patient();
        assert!(!chunk.fades.load(Ordering::Relaxed));
        // Not where the disk is almost full.
        disk.set_space(Some(64 << 10));
        add(&engine.counters.log_bytes, 64 << 10);
        assert!(!engine.may_be_patient());
        disk.set_space(None);
        add(&engine.counters.log_bytes, 64 << 10);
        assert!(engine.may_be_patient());
    }

    #[test]
    fn commits_slow_down_by_degrees() {
        let of = |load, bytes| pause_of_commit(load, bytes).unwrap_or_default();
        assert_eq!([0, LOAD_HURRY, LOAD_FULL].map(|load| of(load, u64::MAX)), [Duration::ZERO; 3]);
        assert_eq!(pause_of_commit(LOAD_MAX, 1000), None, "too short to be slept");
        let second = SLOWEST_BYTES_PER_SECOND;
        assert_eq!(of(LOAD_MAX, second / 1000), Duration::from_micros(999), "as if it came in so slowly");
        assert!(of(LOAD_FULL + 50, second / 1000) < of(LOAD_FULL + 100, second / 1000));
        assert_eq!((of(LOAD_MAX, u64::MAX), of(u64::MAX, second)), (HOLD_BACK_MAX, HOLD_BACK_MAX));
    }

    #[test]
    fn compaction_gives_way_the_less_the_more_there_is_to_do() {
        let took = Duration::from_millis(8);
        let loads = [0, LOAD_HURRY, (LOAD_HURRY + LOAD_FULL) / 2, LOAD_FULL, LOAD_MAX, u64::MAX];
        assert_eq!(loads.map(|load| courtesy(load, took).as_millis()), [8, 8, 4, 0, 0, 0]);
    }
}
