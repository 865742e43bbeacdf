//! Histories of many threads on one engine: commits, reads, syncs, checkpoints, compactions and beats side by side, on disks
//! that fill up, fail and stop, with locks that hesitate; `history.rs` judges what they saw and what a crash leaves.
//!
//! A run follows from its number, but for what the scheduler does: a violation may need some tries to be seen again, so it
//! says all that speaks for it. `sweep.rs` says how to try more runs, or one.

use super::driver::{self, Batch, open, state_of};
use super::history::{Clock, Fate, Found, History, Read, Write};
use super::model::{Effect, End, KEYS, State};
use super::sweep::{Counts, Sweep};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::random::Random;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::base::sync::{Arc, Mutex, shaken, spawn_scoped};
use crate::engine::Engine;
use crate::io::Disk;
use crate::io::real::RealDisk;
use crate::io::sim::{Aftermath, Calls, Faults, SimDisk, Survival};
use crate::native::{NativeEngine, Options};
use std::panic::resume_unwind;
use std::path::Path;
use std::time::Duration;

/// Batches and reads of all threads between opening and the end.
const ACTIONS_MAX: u64 = 700;

/// Images that are taken of a disk while its store is in use.
const IMAGES_MAX: usize = 4;

/// A step that does not come.
const NEVER: u64 = u64::MAX;

/// One in so many runs is on the real disk.
const REAL_ONE_IN: u64 = 16;

/// What can go wrong while the store is open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mishaps {
    /// The disk is full at times.
    space: bool,
    /// A sync or a durable write fails.
    errors: bool,
    /// The machine stops at this step; 0: it does not.
    crash_at: u64,
    /// The store is closed while it is in use.
    pub closing: bool,
}

impl Mishaps {
    fn draw(rng: &mut Random) -> Mishaps {
        let crash_at = if rng.one_in(2) { 1 + rng.below(1200) } else { 0 };
        Mishaps { space: rng.below(5) < 2, errors: rng.one_in(7), crash_at, closing: rng.one_in(4) }
    }

    /// Whether it explains that a call failed.
    fn explain(self, error: &Error) -> bool {
        match error.code {
            Code::DISK_FULL => self.space,
            Code::INVALID_STATE => self.closing,
            Code::IO => self.errors || self.crash_at > 0,
            // After a failed sync, the kernel may show older bytes than were written.
            Code::CORRUPTED => self.errors,
            _ => false,
        }
    }
}

/// A run: a disk, and how its store is used.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    seed: u64,
    pub clients: usize,
    pub actions: u64,
    pub keys: usize,
    durable_of_8: u64,
    options: Options,
    faults: Faults,
    aftermath: Aftermath,
}

impl Run {
    fn draw(seed: u64) -> Run {
        let mut rng = Random::new(seed ^ 0x6869_7374);
        let chunk_bytes = [8, 16, 16, 32, 64, 256][rng.below(6) as usize] << 10;
        let options = Options {
            chunk_bytes,
            hot_log_bytes: [0, chunk_bytes, 3 * chunk_bytes][rng.below(3) as usize],
            min_fill_percent: [0, 50, 90, 100][rng.below(4) as usize],
            checkpoint_log_bytes: [0, 20_000, 100_000][rng.below(3) as usize],
            beat_idle_ms: rng.below(2),
            ..Options::default()
        };
        let faults = Faults {
            short_write_one_in: [0, 0, 3, 20][rng.below(4) as usize],
            short_read_one_in: [0, 0, 3, 20][rng.below(4) as usize],
            eintr_one_in: [0, 0, 5, 20][rng.below(4) as usize],
            ..Faults::default()
        };
        Run {
            seed,
            clients: 2 + rng.below(15) as usize,
            actions: ACTIONS_MAX / 4 + rng.below(ACTIONS_MAX * 3 / 4),
            keys: 2 + rng.below(KEYS as u64 - 1) as usize,
            durable_of_8: [0, 1, 4, 8][rng.below(4) as usize],
            options,
            faults,
            aftermath: [Aftermath::KeepsNew, Aftermath::Reverts, Aftermath::Mixed][rng.below(3) as usize],
        }
    }
}

/// A store while it is in use.
pub(crate) struct Session<'a> {
    pub run: &'a Run,
    pub engine: Arc<NativeEngine>,
    /// `None`: a real one.
    disk: Option<&'a SimDisk>,
    pub mishaps: Mishaps,
    pub clock: Clock,
    version: &'a AtomicU32,
    over: AtomicBool,
    images: Mutex<Vec<Image>>,
}

/// A disk that was left while, or after, its store was in use.
struct Image {
    /// When it was taken: see `Found`.
    after: u64,
    before: u64,
    end: End,
    disk: SimDisk,
}

impl<'a> Session<'a> {
    fn new(run: &'a Run, engine: Arc<NativeEngine>, disk: Option<&'a SimDisk>, mishaps: Mishaps, version: &'a AtomicU32) -> Session<'a> {
        let (clock, over, images) = (Clock::default(), AtomicBool::new(false), Mutex::default());
        Session { run, engine, disk, mishaps, clock, version, over, images }
    }

    /// A version that no key has had.
    pub(crate) fn new_version(&self) -> u32 {
        self.version.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the machine has stopped.
    pub(crate) fn crashed(&self) -> bool {
        self.disk.is_some_and(SimDisk::crashed)
    }

    /// What went wrong with the disk must be the reason for `error`.
    pub(crate) fn check(&self, error: &Error) {
        assert!(self.mishaps.explain(error), "{:?} does not explain this: {error} (in doubt: {})", self.mishaps, error.in_doubt);
    }

    /// All threads, from their first action to their last, with misfortune beside them. What they saw.
    pub(crate) fn play(&self, rng: &mut Random, base: State, client: &(dyn Fn(usize, Random) -> History + Sync)) -> History {
        let mut history = History::new(base);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.run.clients)
                .map(|number| {
                    let rng = Random::new(rng.next_u64());
                    spawn_scoped("client", scope, move || client(number, rng)).expect("a thread")
                })
                .collect();
            let rng = Random::new(rng.next_u64());
            let misfortune = self.disk.map(|disk| spawn_scoped("misfortune", scope, move || self.meddle(disk, rng)).expect("a thread"));
            let ends: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            self.over.store(true, Ordering::Release);
            if let Some(Err(violation)) = misfortune.map(|thread| thread.join()) {
                resume_unwind(violation);
            }
            for end in ends {
                history.take_over(end.unwrap_or_else(|violation| resume_unwind(violation)));
            }
        });
        history
    }

    /// Fills the disk and makes room again, has calls fail, and takes images of what a crash would leave.
    fn meddle(&self, disk: &SimDisk, mut rng: Random) {
        let mut fails = self.mishaps.errors;
        while !self.over.load(Ordering::Acquire) && !disk.crashed() {
            match rng.below(8) {
                0..3 if self.mishaps.space => {
                    let left = [0, 100, 5000, 20_000][rng.below(4) as usize];
                    disk.set_space(Some(left));
                    std::thread::sleep(Duration::from_micros(rng.below(300)));
                    disk.set_space(None);
                }
                3 | 4 if self.mishaps.space => {
                    disk.fail_at(1 + rng.below(20), libc::ENOSPC, false, Calls::WRITE | Calls::WRITE_DURABLE | Calls::CREATE);
                }
                5 if std::mem::replace(&mut fails, false) => {
                    let calls = [Calls::SYNC, Calls::WRITE_DURABLE, Calls::WRITE, Calls::SYNC_DIR][rng.below(4) as usize];
                    disk.fail_at(1 + rng.below(100), libc::EIO, rng.one_in(4), calls);
                }
                6 if self.images.lock().len() < IMAGES_MAX => {
                    let image = self.image(disk, &mut rng);
                    self.images.lock().push(image);
                }
                _ => std::thread::sleep(Duration::from_micros(rng.below(2000))),
            }
        }
    }

    /// What the end of the process, or of the power, would leave now.
    fn image(&self, disk: &SimDisk, rng: &mut Random) -> Image {
        let after = self.clock.now();
        // After a failed sync, a killed process leaves no more than a power cut does.
        let power_cut = self.mishaps.errors || rng.one_in(2);
        let survival = Survival::draw(rng);
        let image = if power_cut { disk.crash_image(rng, survival) } else { disk.kill_image() };
        image.set_space(None);
        let end = if power_cut { End::PowerCut } else { End::Kill };
        Image { after, before: self.clock.now(), end, disk: image }
    }

    /// What is found on a disk that was left.
    fn look(&self, image: &Image) -> Found {
        let Image { after, before, end, disk } = image;
        let quiet = Options { background: false, ..self.run.options };
        match open(&disk.twin(), quiet).and_then(|engine| state_of(&engine)) {
            Ok(state) => Found { after: *after, before: *before, end: *end, state },
            Err(error) => panic!("what {end:?} left cannot be used: {error}\n{:?}\n{:?}", self.run, self.mishaps),
        }
    }
}

/// How a store is used by those who call it: what they saw.
pub(crate) type Way = fn(&Session<'_>, &mut Random, State) -> History;

/// Each thread calls the engine itself, as executors would.
fn by_calls(session: &Session<'_>, rng: &mut Random, base: State) -> History {
    session.play(rng, base, &|client, rng| Client { session, client, rng }.play())
}

/// One thread that uses the store.
struct Client<'a> {
    session: &'a Session<'a>,
    client: usize,
    rng: Random,
}

impl Client<'_> {
    fn play(mut self) -> History {
        let mut history = History::new([0; KEYS]);
        let session = self.session;
        for left in (0..session.run.actions / session.run.clients as u64).rev() {
            if session.crashed() || !self.act(&mut history) {
                break;
            }
            if left == 3 && self.client == 0 && session.mishaps.closing {
                self.close(&mut history);
            }
        }
        history
    }

    fn close(&self, history: &mut History) {
        let began = self.session.clock.now();
        match self.session.engine.close() {
            Ok(()) => history.syncs.push((began, self.session.clock.now())),
            Err(error) => self.session.check(&error),
        }
    }

    /// One thing or another; false when the store is closed.
    fn act(&mut self, history: &mut History) -> bool {
        let engine = &self.session.engine;
        let result = match self.rng.below(100) {
            0..62 => return self.commit(history),
            62..92 => return self.read(history),
            92..95 => {
                let began = self.session.clock.now();
                engine.sync().map(|()| history.syncs.push((began, self.session.clock.now())))
            }
            95 | 96 => engine.checkpoint(),
            97 | 98 => engine.compact_once([50, 90, 100][self.rng.below(3) as usize]).map(drop),
            _ => engine.beat(),
        };
        match result {
            Ok(()) => true,
            Err(error) => {
                self.session.check(&error);
                error.code != Code::INVALID_STATE
            }
        }
    }

    fn some_keys(&mut self, count: u64) -> Vec<usize> {
        let mut keys: Vec<usize> = (0..self.session.run.keys).collect();
        while keys.len() as u64 > count.max(1) {
            keys.swap_remove(self.rng.below(keys.len() as u64) as usize);
        }
        keys
    }

    fn batch(&mut self) -> Batch {
        let count = if self.rng.one_in(2) { 2 } else { 1 + self.rng.below(8) };
        let effects = self.some_keys(count).into_iter().map(|key| {
            let version = self.session.new_version();
            (key, if self.rng.one_in(5) { 0 } else { version })
        });
        let effects: Vec<Effect> = effects.collect();
        let read_keys = if self.rng.one_in(3) { self.some_keys(4) } else { Vec::new() };
        let durable = self.rng.below(8) < self.session.run.durable_of_8;
        Batch::new(&self.session.engine.hasher(), durable, effects, read_keys)
    }

    fn commit(&mut self, history: &mut History) -> bool {
        let session = self.session;
        let count = if self.rng.one_in(4) { 1 + self.rng.below(3) } else { 1 };
        let mut batches: Vec<Batch> = (0..count).map(|_| self.batch()).collect();
        let began = session.clock.now();
        let turn = session.engine.turn();
        let order = turn.number();
        let result = Batch::commit_all(&session.engine, turn, &mut batches);
        let ended = session.clock.now();
        let durable = batches.iter().any(Batch::is_durable);
        let fate = match &result {
            Ok(()) => Fate::Done,
            Err(error) if error.in_doubt => Fate::Doubt,
            Err(_) => Fate::Never,
        };
        for (i, batch) in batches.iter_mut().enumerate() {
            let found = if fate == Fate::Done { batch.fetch(&session.engine) } else { Vec::new() };
            let seen = self.seen(found);
            let effects = batch.effects().to_vec();
            history.writes.push(Write { order: (order, i), client: self.client, began, ended, effects, seen, durable, fate });
        }
        result.err().is_none_or(|error| {
            session.check(&error);
            error.code != Code::INVALID_STATE
        })
    }

    fn read(&mut self, history: &mut History) -> bool {
        let session = self.session;
        let count = if self.rng.one_in(2) { KEYS as u64 } else { 1 + self.rng.below(4) };
        let keys = self.some_keys(count);
        let began = session.clock.now();
        let found = driver::read(&session.engine, &keys);
        let ended = session.clock.now();
        let seen = self.seen(keys.into_iter().zip(found).collect());
        // From a store that is closed nothing can be read, and whether a key was there at that time is not known.
        history.reads.push(Read { client: self.client, began, ended, seen });
        true
    }

    fn seen(&self, found: Vec<(usize, Result<u32, Error>)>) -> Vec<Effect> {
        let told = found.into_iter().filter_map(|(key, result)| match result {
            Ok(version) => Some((key, version)),
            Err(error) => {
                self.session.check(&error);
                None
            }
        });
        told.collect()
    }
}

/// Sessions of a run, one after the other.
struct Play<'a> {
    run: Run,
    way: Way,
    rng: Random,
    version: AtomicU32,
    counts: &'a mut Counts,
}

impl Play<'_> {
    fn on_simulated_disk(&mut self) {
        let mut disk = SimDisk::new(self.run.seed, Faults { aftermath: self.run.aftermath, ..self.run.faults });
        let mut base = [0; KEYS];
        for _ in 0..1 + self.rng.below(3) {
            let mishaps = Mishaps::draw(&mut self.rng);
            disk.crash_at(if mishaps.crash_at > 0 { disk.steps() + mishaps.crash_at } else { NEVER });
            let engine = match open(&disk, self.run.options) {
                Ok(engine) => engine,
                Err(error) => {
                    assert!(disk.crashed(), "the store does not open: {error}");
                    return;
                }
            };
            let found = state_of(&engine).unwrap_or_else(|error| {
                assert!(disk.crashed(), "the store cannot be read: {error}");
                base
            });
            assert!(found == base, "opened again, the store holds {found:?} instead of {base:?}");
            (disk, base) = self.session(engine, &disk, mishaps, base);
        }
    }

    /// Uses the store, and ends that in one way or another: the disk that is left, and what is on it.
    fn session(&mut self, engine: Arc<NativeEngine>, disk: &SimDisk, mishaps: Mishaps, base: State) -> (SimDisk, State) {
        let run = self.run.clone();
        let session = Session::new(&run, engine, Some(disk), mishaps, &self.version);
        let mut history = (self.way)(&session, &mut self.rng, base);
        disk.set_space(None);
        disk.fail_no_more();
        let mut images = std::mem::take(&mut *session.images.lock());
        images.push(session.image(disk, &mut self.rng));
        let (began, closed) = (session.clock.now(), session.engine.check_open().is_err());
        match session.engine.close() {
            Ok(()) if closed => {} // who closed it was told how that went
            Ok(()) => history.syncs.push((began, session.clock.now())),
            Err(error) => session.check(&error),
        }
        disk.crash_at(NEVER);
        if disk.crashed() {
            images.push(session.image(disk, &mut self.rng));
        } else if self.rng.one_in(2) {
            let (now, end) = (session.clock.now(), if mishaps.errors { End::PowerCut } else { End::Kill });
            images.push(Image { after: now, before: now, end, disk: disk.clone() });
        }
        let found: Vec<Found> = images.iter().map(|image| session.look(image)).collect();
        history.check(&found).unwrap_or_else(|text| panic!("{run:?}\n{mishaps:?}\n{text}"));
        self.count(&history, images.len());
        images.into_iter().zip(found).last().map_or_else(|| unreachable!("there are images"), |(image, found)| (image.disk, found.state))
    }

    fn count(&mut self, history: &History, images: usize) {
        self.counts.add("operations", history.operations());
        self.counts.add("crash images", images as u64);
    }

    fn on_real_disk(&mut self) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut base = [0; KEYS];
        for _ in 0..2 {
            let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(8));
            let engine = NativeEngine::open(disk, Path::new(directory.path()), self.run.options).expect("the store opens");
            assert_eq!(state_of(&engine).expect("the store can be read"), base, "opened again");
            let mishaps = Mishaps { closing: self.rng.one_in(4), ..Mishaps::default() };
            let session = Session::new(&self.run, engine, None, mishaps, &self.version);
            let mut history = (self.way)(&session, &mut self.rng, base);
            session.engine.close().expect("the store closes");
            history.check(&[]).unwrap_or_else(|text| panic!("{:?}\n{mishaps:?}\n{text}", self.run));
            base = history.last_state();
            self.counts.add("operations", history.operations());
        }
    }
}

/// Shakes the locks of this thread, and of those it starts, until it is dropped.
struct Shaken;

impl Drop for Shaken {
    fn drop(&mut self) {
        shaken::shake(0);
    }
}

/// Tries one run. A violation is a panic.
pub(crate) fn try_run(seed: u64, way: Way, counts: &mut Counts) {
    shaken::shake(seed << 1 | 1);
    let _shaken = Shaken;
    counts.add("runs", 1);
    let mut play = Play { run: Run::draw(seed), way, rng: Random::new(!seed), version: AtomicU32::new(1), counts };
    if seed % REAL_ONE_IN == REAL_ONE_IN - 1 { play.on_real_disk() } else { play.on_simulated_disk() }
}

/// The same, by calls of the engine.
pub fn try_calls(seed: u64, counts: &mut Counts) {
    try_run(seed, by_calls, counts);
}

const SWEEP: Sweep = Sweep { test: "native::tests::histories::many_threads_agree", title: "histories", cases: [50, 2000], stride: 1 };

#[test]
fn many_threads_agree() {
    SWEEP.run(try_calls);
}
