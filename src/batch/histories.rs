//! Histories of batches: many threads put batches together, submit them to managers that share a store, wait for them in all
//! the ways there are, or not at all; while the disk fills up, fails and stops. `native::tests::histories` plays that, and
//! its `history` judges what callbacks have said.
//!
//! The order of commits is overheard where batches meet the engine; nothing else here looks behind the batches.

use super::operation::{CompleteHook, Edge, Hook, OpKind, OpView};
use super::{Context, Manager, Settings};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHasher;
use crate::base::random::Random;
use crate::base::sync::{Arc, Mutex};
use crate::engine::{BatchId, BatchOutcome, Commit, Counters, Engine, IoReport, Pin, ReadHints, ReadOp, Reader, Turn};
use crate::native::tests::histories::{Session, try_run};
use crate::native::tests::history::{Fate, History, Read, Write};
use crate::native::tests::model::{State, key_bytes, value_bytes, version_of};
use crate::native::tests::sweep::{Counts, Sweep};
use crate::store::registry::put_under;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A group's place in the order, the batch's place in the group, and how it went.
type Overheard = ((u64, usize), Fate);

/// An engine that notes the order in which another one is asked to commit.
struct Recorder {
    engine: Arc<dyn Engine>,
    commits: Mutex<BTreeMap<u64, Overheard>>,
}

impl Engine for Recorder {
    fn commit(&self, turn: Turn, group: &mut [Commit<'_>], retry: &mut dyn FnMut(&Error) -> bool) -> Result<()> {
        let order = turn.number();
        let result = self.engine.commit(turn, group, retry);
        let fate = match &result {
            Ok(()) => Fate::Done,
            Err(error) if error.in_doubt => Fate::Doubt,
            Err(_) => Fate::Never,
        };
        self.commits.lock().extend(group.iter().enumerate().map(|(i, member)| (member.batch_id, ((order, i), fate))));
        result
    }
    fn name(&self) -> &str {
        self.engine.name()
    }
    fn hasher(&self) -> KeyHasher {
        self.engine.hasher()
    }
    fn turn(&self) -> Turn {
        self.engine.turn()
    }
    fn resolve(&self, reads: &mut [ReadOp]) -> Pin {
        self.engine.resolve(reads)
    }
    fn fetch(&self, pin: &Pin, reads: &mut [ReadOp], reader: &mut dyn Reader, hints: &ReadHints) {
        self.engine.fetch(pin, reads, reader, hints);
    }
    fn sync(&self) -> Result<()> {
        self.engine.sync()
    }
    fn opening(&self) -> u64 {
        self.engine.opening()
    }
    fn batch_outcome(&self, id: BatchId) -> BatchOutcome {
        self.engine.batch_outcome(id)
    }
    fn unsynced(&self) -> bool {
        self.engine.unsynced()
    }
    fn counters(&self) -> Counters {
        self.engine.counters()
    }
    fn io_report(&self) -> IoReport {
        self.engine.io_report()
    }
    fn close(&self) -> Result<()> {
        self.engine.close()
    }
}

/// What callbacks have said of one batch.
#[derive(Default)]
struct Told {
    /// By operation: its code, and the value that was read.
    ops: Vec<Option<(Code, Option<Vec<u8>>)>>,
    ended: bool,
}

/// Callbacks of all batches, by number.
struct Notes(Mutex<BTreeMap<usize, Told>>);

static NOTES: Notes = Notes(Mutex::new(BTreeMap::new()));
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// Operations of a batch are told apart by the low bits of what comes with them.
const OP_BITS: u32 = 8;

impl Edge for Notes {
    fn op_done(&self, op: &OpView<'_>) {
        let (batch, at) = (op.hook.user_data >> OP_BITS, op.hook.user_data & ((1 << OP_BITS) - 1));
        let mut batches = self.0.lock();
        let told = batches.get_mut(&batch).expect("no callback comes late");
        assert!(!told.ended, "an operation's callback comes before that of its batch");
        let value = op.value.filter(|_| op.kind == OpKind::Get).map(<[u8]>::to_vec);
        assert!(told.ops[at].replace((op.code, value)).is_none(), "called back twice");
    }
    fn batch_done(&self, _tag: usize, _completed: usize, _failed: usize, hook: CompleteHook) {
        let mut batches = self.0.lock();
        let told = batches.get_mut(&hook.user_data).expect("no callback comes late");
        assert!(!std::mem::replace(&mut told.ended, true), "called back twice");
    }
    fn write_out(&self, _hook: &Hook, _value: Option<&[u8]>) {}
}

/// An operation, with the version that it writes (0: a delete).
type Op = (OpKind, usize, u32);

/// One thread that submits batches.
struct Client<'a> {
    session: &'a Session<'a>,
    recorder: &'a Recorder,
    managers: &'a [Arc<Manager>],
    client: usize,
    rng: Random,
}

impl Client<'_> {
    fn play(mut self) -> History {
        let mut history = History::new(State::default());
        let session = self.session;
        for left in (0..session.run.actions / session.run.clients as u64).rev() {
            if session.crashed() {
                break;
            }
            if left == 5 && self.client == 0 && session.mishaps.closing {
                let manager = &self.managers[0];
                manager.stop().unwrap_or_else(|error| panic!("stopping: {error}"));
                manager.start().unwrap_or_else(|error| panic!("starting again: {error}"));
            }
            self.batch(&mut history);
        }
        history
    }

    fn operations(&mut self) -> Vec<Op> {
        let (reads, syncs) = match self.rng.below(8) {
            0..3 => (8, 0),
            3 => (0, 1),
            _ => (3, 0),
        };
        let most = if self.rng.one_in(4) { 20 } else { 5 };
        let count = 1 + self.rng.below(most);
        let ops = (0..count).map(|_| {
            let key = self.rng.below(self.session.run.keys as u64) as usize;
            match self.rng.below(8) {
                draw if draw < reads => (OpKind::Get, key, 0),
                _ if syncs > 0 && self.rng.one_in(4) => (OpKind::Sync, key, 0),
                _ if self.rng.one_in(5) => (OpKind::Delete, key, 0),
                _ => (OpKind::Put, key, self.session.new_version()),
            }
        });
        ops.collect()
    }

    /// Puts a batch together, submits it, and sees to its end.
    fn batch(&mut self, history: &mut History) {
        let manager = &self.managers[self.rng.below(self.managers.len() as u64) as usize];
        let ops = self.operations();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NOTES.0.lock().insert(number, Told { ops: ops.iter().map(|_| None).collect(), ended: false });
        let context = Context::create(manager, 0, &NOTES).expect("created");
        for (at, (kind, key, version)) in ops.iter().enumerate() {
            let hook = Hook { callback: 1, user_data: number << OP_BITS | at, ..Hook::default() };
            let value = if *kind == OpKind::Put { value_bytes(*key, *version) } else { Vec::new() };
            let key = if *kind == OpKind::Sync { Vec::new() } else { key_bytes(*key) };
            context.add(*kind, &key, &value, hook).expect("added");
        }
        let began = self.session.clock.now();
        if let Err(error) = context.submit(CompleteHook { callback: 1, user_data: number }) {
            assert!(error.code == Code::BUSY || (error.code == Code::INVALID_STATE && self.session.mishaps.closing), "{error}");
            context.destroy();
            NOTES.0.lock().remove(&number);
            return;
        }
        let id = context.batch_id();
        self.see_to_its_end(&context, number);
        let ended = self.session.clock.now();
        let told = NOTES.0.lock().remove(&number).expect("noted");
        let durable = manager.settings().enable_batch_fsync || ops.iter().any(|op| op.0 == OpKind::Sync);
        let overheard = id.and_then(|id| self.recorder.commits.lock().remove(&id.number));
        self.note(history, &ops, told, overheard, (began, ended), durable);
    }

    /// Waits in one way or another until all callbacks have returned.
    fn see_to_its_end(&mut self, context: &Arc<Context>, number: usize) {
        if self.rng.one_in(20) {
            let _ = context.cancel(); // it may have been begun
        }
        let ended = || NOTES.0.lock().get(&number).is_some_and(|told| told.ended);
        match self.rng.below(5) {
            0 => while context.wait(self.rng.below(3) as u32).is_err_and(|error| error.code == Code::TIMEOUT) {},
            1 => {
                while !ended() {
                    std::thread::yield_now(); // nobody waits: a worker and a delivery thread do it all
                }
                let _ = context.wait(60_000);
            }
            2 => {
                context.destroy();
                assert!(ended(), "destroy came back before the last callback");
                return;
            }
            _ => drop(context.wait(60_000)),
        }
        assert!(ended(), "wait came back before the last callback");
        assert!(context.status().is_end());
        context.destroy();
    }

    fn note(&self, history: &mut History, ops: &[Op], told: Told, overheard: Option<Overheard>, (began, ended): (u64, u64), durable: bool) {
        let told: Vec<_> = told.ops.into_iter().map(|op| op.expect("each operation has its callback")).collect();
        let (mut seen, mut effects, mut own) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut written, mut synced) = (true, false);
        for ((kind, key, version), (code, value)) in ops.iter().zip(&told) {
            if !matches!(*code, Code::NONE | Code::KEY_NOT_FOUND | Code::TIMEOUT | Code::CANCELLED | Code::BATCH_FAILED) {
                self.session.check(&Error::new(*code, "as a callback was told"));
            }
            match kind {
                OpKind::Get if matches!(*code, Code::NONE | Code::KEY_NOT_FOUND) => {
                    let found = value.as_ref().map(|value| version_of(*key, value).expect("a value that somebody put there"));
                    let found = found.unwrap_or(0);
                    match own.get(key) {
                        Some(own) => assert_eq!(*own, found, "key {key}, written before in the same batch"),
                        None => seen.push((*key, found)),
                    }
                }
                OpKind::Get => {}
                OpKind::Sync => synced |= *code == Code::NONE,
                _ => {
                    own.insert(*key, *version);
                    effects.push((*key, *version));
                    written &= *code == Code::NONE;
                }
            }
        }
        if synced {
            history.syncs.push((began, ended));
        }
        if effects.is_empty() {
            history.reads.push(Read { client: self.client, began, ended, seen });
            return;
        }
        // Never committed: cancelled, or given up before.
        let Some((order, fate)) = overheard else {
            assert!(!written, "acknowledged, and never committed: {ops:?}");
            return;
        };
        assert_eq!(written, fate == Fate::Done, "the store says {fate:?}, callbacks say {told:?}");
        let seen = if fate == Fate::Done { seen } else { Vec::new() };
        history.writes.push(Write { order, client: self.client, began, ended, effects, seen, durable, fate });
    }
}

fn settings(rng: &mut Random) -> Settings {
    Settings {
        enable_batch_fsync: rng.one_in(2),
        fsync_interval_ms: rng.below(3) as u32,
        enable_deduplication: rng.one_in(2),
        enable_sorting: rng.one_in(2),
        enable_prefetching: rng.one_in(2),
        enable_compression: rng.one_in(2),
        fail_fast: rng.one_in(4),
        max_retry_count: rng.below(3) as u32,
        retry_delay_ms: rng.below(2) as u32,
        timeout_ms: if rng.one_in(8) { 1 } else { 60_000 },
        ..Settings::default()
    }
}

/// Each thread submits batches to managers that share the store.
fn by_batches(session: &Session<'_>, rng: &mut Random, base: State) -> History {
    let recorder = Arc::new(Recorder { engine: Arc::clone(&session.engine) as Arc<dyn Engine>, commits: Mutex::default() });
    let name = format!("histories-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    put_under(&name, Arc::clone(&recorder) as Arc<dyn Engine>);
    let start = |_| {
        let manager = Manager::create(settings(rng), format!("memory:{name}").as_bytes()).expect("created");
        manager.start().expect("started");
        manager
    };
    let managers: Vec<_> = (0..3).map(start).collect();
    let mut history =
        session.play(rng, base, &|client, rng| Client { session, recorder: &recorder, managers: &managers, client, rng }.play());
    for manager in &managers {
        let stats = manager.stats();
        assert_eq!((stats.active_batches, stats.queued_operations), (0, 0), "all batches have ended");
        manager.stop().expect("stopped");
    }
    // The last manager would close the store, and could not say how that went.
    let began = session.clock.now();
    match session.engine.close() {
        Ok(()) => history.syncs.push((began, session.clock.now())),
        Err(error) => session.check(&error),
    }
    managers.iter().for_each(Manager::destroy);
    history
}

const SWEEP: Sweep = Sweep { test: "batch::histories::many_batches_agree", title: "histories of batches", cases: [30, 1200], stride: 1 };

/// Tries one run.
pub(super) fn try_batches(seed: u64, counts: &mut Counts) {
    try_run(seed, by_batches, counts);
}

#[test]
fn many_batches_agree() {
    SWEEP.run(try_batches);
}
