//! A store under test, driven by one thread as several executors would drive it: groups are staged, written and
//! published in any order that the turns allow, syncs come in between, and every read is compared with the model.

use super::model::{Effect, End, KEYS, Oracle, Outcome, State, encode, key_bytes, version_of};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::few::Few;
use crate::base::hash::KeyHasher;
use crate::base::random::Random;
use crate::base::sync::Arc;
use crate::engine::record::Kind;
use crate::engine::{BatchId, Commit, Engine, Pin, ReadHints, ReadOp, ReadState, Reader, StoredValue, Turn, WriteOp, Writes};
use crate::io::Disk;
use crate::io::sim::SimDisk;
use crate::native::commit::Staged;
use crate::native::index::SEGMENTS;
use crate::native::{NativeEngine, Options};
use std::collections::VecDeque;
use std::io;
use std::path::Path;

/// The hints of all reads here: the simulated disk has but one way.
pub const HINTS: ReadHints = ReadHints { depth: 8, sort: true, prefetch: true, polling: false };

/// Opens the store on `disk`.
pub fn open(disk: &SimDisk, options: Options) -> Result<Arc<NativeEngine>, Error> {
    NativeEngine::open(Arc::new(disk.clone()) as Arc<dyn Disk>, Path::new("/store"), options)
}

/// One batch of a group, with the memory that the engine borrows.
#[derive(Debug, Default)]
pub struct Batch {
    id: u64,
    durable: bool,
    block: Vec<u8>,
    writes: Vec<WriteOp>,
    effects: Vec<Effect>,
    read_keys: Vec<usize>,
    reads: Vec<ReadOp>,
    pin: Pin,
}

impl Batch {
    /// A batch with these writes and reads.
    pub fn new(hasher: &KeyHasher, durable: bool, effects: Vec<Effect>, read_keys: Vec<usize>) -> Batch {
        let mut batch = Batch { durable, effects, ..Batch::default() };
        for effect in &batch.effects {
            let offset = batch.block.len() as u32;
            let len = encode(&mut batch.block, effect) as u32;
            let kind = if effect.1 == 0 { Kind::Delete } else { Kind::Put };
            batch.writes.push(WriteOp { hash: hasher.hash(&key_bytes(effect.0)), block: 0, offset, len, kind });
        }
        batch.reads = read_ops(hasher, &read_keys);
        batch.read_keys = read_keys;
        batch
    }

    /// Bytes of its records.
    pub fn record_bytes(&self) -> u64 {
        self.block.len() as u64
    }

    /// Commits the batches as one group at the place `turn`, as an executor would.
    pub fn commit_all(engine: &NativeEngine, turn: Turn, batches: &mut [Batch]) -> Result<(), Error> {
        let mut group = commits(batches);
        let result = engine.commit(turn, &mut group, &mut |_| false);
        let pins: Vec<Pin> = group.into_iter().map(|member| member.pin).collect();
        batches.iter_mut().zip(pins).for_each(|(batch, pin)| batch.pin = pin);
        result
    }

    /// What its reads find, which were resolved when it was committed.
    pub fn fetch(&mut self, engine: &NativeEngine) -> Vec<(usize, Result<u32, Error>)> {
        let found = fetch(engine, &self.pin, &self.read_keys, &mut self.reads);
        self.read_keys.iter().copied().zip(found).collect()
    }

    /// Whether it is to be on stable storage when it is acknowledged.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// Its writes.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    fn commit(&mut self) -> Commit<'_> {
        let writes = Writes { blocks: Few::one(&mut self.block[..]), ops: &self.writes };
        Commit { batch_id: self.id, writes, reads: &mut self.reads, durable: self.durable, pin: None }
    }
}

pub fn commits(batches: &mut [Batch]) -> Vec<Commit<'_>> {
    batches.iter_mut().map(Batch::commit).collect()
}

fn read_ops(hasher: &KeyHasher, keys: &[usize]) -> Vec<ReadOp> {
    keys.iter().zip(0..).map(|(key, op)| ReadOp { hash: hasher.hash(&key_bytes(*key)), op, ..ReadOp::default() }).collect()
}

/// Takes results, each exactly once.
struct Results<'a> {
    keys: Vec<Vec<u8>>,
    which: &'a [usize],
    got: Vec<Option<Result<u32, Error>>>,
}

impl Results<'_> {
    fn put(&mut self, op: u32, result: Result<u32, Error>) {
        assert!(self.got[op as usize].replace(result).is_none(), "read {op} has two results");
    }
}

impl Reader for Results<'_> {
    fn key(&self, op: u32) -> &[u8] {
        &self.keys[op as usize]
    }
    fn found(&mut self, op: u32, value: StoredValue<'_>) {
        let key = self.which[op as usize];
        let mut raw = vec![0; value.raw_len];
        let version = value.unpack(&mut raw).ok().and_then(|()| version_of(key, &raw));
        assert!(version.is_some(), "key {key} has a value that nobody put there");
        self.put(op, Ok(version.unwrap_or(0)));
    }
    fn missing(&mut self, op: u32) {
        self.put(op, Ok(0));
    }
    fn failed(&mut self, op: u32, error: Error) {
        self.put(op, Err(error));
    }
}

fn fetch(engine: &NativeEngine, pin: &Pin, keys: &[usize], reads: &mut [ReadOp]) -> Vec<Result<u32, Error>> {
    let mut results =
        Results { keys: keys.iter().map(|key| key_bytes(*key)).collect(), which: keys, got: keys.iter().map(|_| None).collect() };
    engine.fetch(pin, reads, &mut results, &HINTS);
    results.got.into_iter().map(|result| result.expect("every read has a result")).collect()
}

/// The bytes under `keys`, as they come.
pub fn fetch_raw(engine: &NativeEngine, pin: &Pin, keys: Vec<Vec<u8>>, reads: &mut [ReadOp]) -> Vec<Result<Option<Vec<u8>>, Error>> {
    struct Raw(Vec<Vec<u8>>, Vec<Result<Option<Vec<u8>>, Error>>);
    impl Reader for Raw {
        fn key(&self, op: u32) -> &[u8] {
            &self.0[op as usize]
        }
        fn found(&mut self, op: u32, value: StoredValue<'_>) {
            self.1[op as usize] = Ok(Some(value.bytes.to_vec()));
        }
        fn missing(&mut self, op: u32) {
            self.1[op as usize] = Ok(None);
        }
        fn failed(&mut self, op: u32, error: Error) {
            self.1[op as usize] = Err(error);
        }
    }
    let nothing = keys.iter().map(|_| Ok(Some(Vec::new()))).collect();
    let mut raw = Raw(keys, nothing);
    engine.fetch(pin, reads, &mut raw, &HINTS);
    raw.1
}

/// The versions of `keys`, all of one moment.
pub fn read(engine: &NativeEngine, keys: &[usize]) -> Vec<Result<u32, Error>> {
    let mut reads = read_ops(&engine.hasher(), keys);
    let pin = engine.resolve(&mut reads);
    fetch(engine, &pin, keys, &mut reads)
}

/// Everything that is in the store.
pub fn state_of(engine: &NativeEngine) -> Result<State, Error> {
    let keys: Vec<usize> = (0..KEYS).collect();
    let mut state = [0; KEYS];
    for (version, result) in state.iter_mut().zip(read(engine, &keys)) {
        *version = result?;
    }
    Ok(state)
}

/// A group on its way.
struct Group {
    number: usize,
    batches: Vec<Batch>,
    staged: Result<Staged, Error>,
    written: Option<io::Result<u64>>,
}

/// What stands in the line.
struct Flying {
    turn: Turn,
    /// `None`: a sync.
    group: Option<Group>,
}

/// Reads that were looked up at a moment and are fetched later.
struct Held {
    keys: Vec<usize>,
    pin: Pin,
    reads: Vec<ReadOp>,
    expected: Vec<u32>,
}

/// See the top of this file.
pub struct Driver {
    pub engine: Arc<NativeEngine>,
    pub oracle: Oracle,
    /// What was known at each earlier opening.
    pub past: Vec<Oracle>,
    pub disk: SimDisk,
    /// Errors that calls have returned, to be looked at by whoever planned failures.
    pub errors: Vec<Error>,
    /// The store was closed and could not be opened again.
    pub shut: bool,
    flying: VecDeque<Flying>,
    held: Vec<Held>,
    /// Where the last sync that nobody waits for has its place: the record, and the groups before it.
    pub(super) mark: (u64, usize),
    next_batch: u64,
}

impl Driver {
    /// Opens the store, which must hold a state that `oracle` allows; goes on from there.
    pub fn open(disk: &SimDisk, options: Options, base: State) -> Result<Driver, Error> {
        let engine = open(disk, options)?;
        Ok(Driver {
            engine,
            oracle: Oracle::new(base),
            past: Vec::new(),
            disk: disk.clone(),
            errors: Vec::new(),
            shut: false,
            flying: VecDeque::new(),
            held: Vec::new(),
            mark: (0, 0),
            next_batch: 1,
        })
    }

    /// Groups and syncs that have been staged and not yet published.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Gives a group its place.
    pub fn stage(&mut self, mut batches: Vec<Batch>) {
        for batch in &mut batches {
            batch.id = self.next_batch;
            self.next_batch += 1;
        }
        let opening = self.engine.opening();
        let writers = batches.iter().filter(|batch| !batch.effects.is_empty());
        let ids = writers.map(|batch| BatchId { opening, number: batch.id }).collect();
        let effects = batches.iter().flat_map(|batch| batch.effects.iter().copied()).collect();
        let number = self.oracle.begin(effects, ids);
        let mut turn = self.engine.turn();
        let staged = turn.stage(|| self.engine.stage(&mut commits(&mut batches)));
        if let Err(error) = &staged {
            self.failed(number, error); // the groups behind it do not wait for its turn
        }
        self.flying.push_back(Flying { turn, group: Some(Group { number, batches, staged, written: None }) });
    }

    /// Makes the file of the next chunk ready, which no durable group waits for.
    pub fn prepare(&mut self) {
        if self.engine.log.claim_prepared() {
            self.engine.log.prepare(&mut || true);
        }
    }

    /// Has space and pages behind the log's end, which no commit waits for; never in a chunk that an earlier opening has written.
    pub fn bring_in_pages(&self, wanted: u64) {
        let end = self.engine.log.end();
        if let Some(chunk) = self.engine.chunks.by_age().into_iter().find(|chunk| chunk.id == end.chunk && chunk.end().is_none()) {
            self.engine.log.want_pages(&chunk, end.valid_bytes + wanted);
        }
    }

    /// Gives a beat its place.
    pub fn stage_beat(&mut self) {
        let number = self.oracle.begin(Vec::new(), Vec::new());
        let mut turn = self.engine.turn();
        let staged = turn.stage(|| self.engine.stage_beat());
        if let Err(error) = &staged {
            self.failed(number, error);
        }
        self.flying.push_back(Flying { turn, group: Some(Group { number, batches: Vec::new(), staged, written: None }) });
    }

    fn failed(&mut self, number: usize, error: &Error) {
        self.oracle.end(number, if error.in_doubt { Outcome::Doubt } else { Outcome::Never });
    }

    /// Gives a sync its place.
    pub fn stage_sync(&mut self) {
        let mut turn = self.engine.turn();
        turn.stage(|| self.engine.log.stage_sync());
        self.flying.push_back(Flying { turn, group: None });
    }

    /// Writes one of the groups that have not been written yet, as chance will have it.
    pub fn write_any(&mut self, rng: &mut Random) {
        let waiting = |flying: &Flying| flying.group.as_ref().is_some_and(|group| group.written.is_none());
        let waiting: Vec<usize> = (0..self.flying.len()).filter(|i| waiting(&self.flying[*i])).collect();
        if !waiting.is_empty() {
            self.write(waiting[rng.below(waiting.len() as u64) as usize]);
        }
    }

    /// Writes the group that was staged first.
    pub fn write_first(&mut self) {
        self.write(0);
    }

    /// Writes the group that was staged last.
    pub fn write_last(&mut self) {
        self.write(self.flying.len() - 1);
    }

    fn write(&mut self, at: usize) {
        if let Some(group) = &mut self.flying[at].group
            && group.written.is_none()
        {
            group.written = Some(match &mut group.staged {
                Ok(staged) => self.engine.write(staged, &commits(&mut group.batches)),
                Err(_) => Ok(0),
            });
        }
    }

    /// Publishes what is oldest, written first if need be.
    pub fn publish(&mut self) {
        if !self.flying.is_empty() {
            self.write(0);
        }
        match self.flying.pop_front() {
            Some(Flying { turn, group: Some(group) }) => self.publish_group(turn, group),
            Some(Flying { turn, group: None }) => self.publish_sync(turn),
            None => {}
        }
    }

    fn publish_sync(&mut self, turn: Turn) {
        let groups = self.flying.iter().filter(|flying| flying.group.is_some()).count();
        let seq = turn.publish(|| self.engine.log.published());
        match self.engine.log.sync_files(seq, &self.engine.counters.syncs) {
            Ok(()) => self.oracle.made_durable(self.oracle.len() - groups),
            Err(error) => self.errors.push(error),
        }
    }

    fn publish_group(&mut self, turn: Turn, group: Group) {
        let Group { number, mut batches, staged, written } = group;
        let result = match (staged, written) {
            (Ok(staged), Some(written)) => {
                let mut group = commits(&mut batches);
                let result = turn.publish(|| self.engine.publish(staged, written, &mut group));
                let pins: Vec<Pin> = group.into_iter().map(|member| member.pin).collect();
                for (batch, pin) in batches.iter_mut().zip(pins) {
                    batch.pin = pin;
                }
                result
            }
            (Err(error), _) => Err(error),
            (Ok(_), None) => return,
        };
        let mut expected = self.oracle.visible;
        match result {
            Err(error) => {
                self.failed(number, &error);
                self.errors.push(error);
                return;
            }
            Ok(()) => self.oracle.end(number, Outcome::Published),
        }
        if batches.iter().any(|batch| batch.durable && !batch.effects.is_empty()) {
            self.oracle.made_durable(number + 1);
        }
        for batch in batches {
            let versions = batch.read_keys.iter().map(|key| expected[*key]).collect();
            super::model::apply(&mut expected, &batch.effects);
            self.held.push(Held { keys: batch.read_keys, pin: batch.pin, reads: batch.reads, expected: versions });
        }
    }

    /// Commits one batch behind everything that is on its way.
    pub fn commit(&mut self, durable: bool, effects: &[Effect]) -> Result<(), Error> {
        self.settle();
        let before = self.errors.len();
        self.stage(vec![Batch::new(&self.engine.hasher, durable, effects.to_vec(), Vec::new())]);
        self.settle();
        self.errors.get(before).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Publishes everything that is on its way.
    pub fn settle(&mut self) {
        while !self.flying.is_empty() {
            self.publish();
        }
    }

    /// Rewrites the chunk that pays most; what was published is durable if there was one, and it was not damaged.
    pub fn compact(&mut self, min_fill_percent: u64) {
        self.settle();
        let removed = self.engine.counters().chunks_removed;
        match self.engine.compact_once(min_fill_percent) {
            Ok(true) if self.engine.counters().chunks_removed > removed => self.oracle.made_durable(self.oracle.len()),
            Ok(_) => {}
            Err(error) => self.errors.push(error),
        }
    }

    /// Writes a checkpoint. Meanwhile groups go on, and `more` are begun, as chance will have it; what it speaks of
    /// is durable then.
    pub fn checkpoint(&mut self, rng: &mut Random, mut more: VecDeque<Vec<Batch>>) {
        let engine = Arc::clone(&self.engine);
        let mut covered = 0;
        let result = engine.checkpoint_beside(&mut |segment| {
            if segment == SEGMENTS {
                self.settle();
                covered = self.oracle.len();
            } else if rng.one_in(40) {
                match rng.below(4) {
                    0 | 1 => more.pop_front().into_iter().for_each(|group| self.stage(group)),
                    2 => self.write_any(rng),
                    _ => self.publish(),
                }
            }
        });
        self.settle();
        match result {
            Ok(()) => {
                self.oracle.made_durable(covered);
                self.oracle.has_checkpoint |= self.engine.counters().checkpoints > 0;
            }
            Err(error) => self.errors.push(error),
        }
    }

    /// Looks up some keys; they are fetched later.
    pub fn hold_reads(&mut self, keys: Vec<usize>) {
        let mut reads = read_ops(&self.engine.hasher(), &keys);
        let pin = self.engine.resolve(&mut reads);
        let expected = keys.iter().map(|key| self.oracle.visible[*key]).collect();
        self.held.push(Held { keys, pin, reads, expected });
    }

    /// Fetches the reads that are held and compares them with what was there when they were looked up.
    pub fn check_reads(&mut self) {
        for mut held in std::mem::take(&mut self.held) {
            for read in &held.reads {
                assert!(read.state != ReadState::New, "a read was not resolved");
            }
            let got = fetch(&self.engine, &held.pin, &held.keys, &mut held.reads);
            for ((key, expected), got) in held.keys.iter().zip(&held.expected).zip(got) {
                match got {
                    Ok(version) => assert_eq!(version, *expected, "key {key} has another version than it should"),
                    Err(error) => self.errors.push(error),
                }
            }
        }
    }

    /// Ends in order; the store can be opened again.
    pub fn close(&mut self) {
        self.settle();
        self.check_reads();
        match self.engine.close() {
            Ok(()) => self.oracle.made_durable(self.oracle.len()),
            Err(error) => self.errors.push(error),
        }
    }

    /// Opens the store again, in the same process. A machine that stops meanwhile is no error.
    pub fn reopen(&mut self, options: Options) -> Result<(), Error> {
        let opened = open(&self.disk, options).and_then(|engine| Ok((state_of(&engine)?, engine)));
        self.shut = opened.is_err();
        match opened {
            Err(_) if self.disk.crashed() => Ok(()),
            Err(error) => Err(error),
            Ok((state, engine)) => {
                // A failed sync may have taken from the kernel what it was to keep.
                let lost = self.errors.iter().any(|error| error.code == Code::IO);
                self.oracle.check(&state, if lost { End::PowerCut } else { End::Kill }).unwrap_or_else(|text| panic!("{text}"));
                let known = self.oracle.check_outcomes(&state, &|id| engine.batch_outcome(id));
                self.past.push(std::mem::replace(&mut self.oracle, Oracle::new(state)));
                self.oracle.has_settled(known);
                (self.engine, self.mark) = (engine, (0, 0));
                Ok(())
            }
        }
    }

    /// No call has failed, but for those that the full disk explains.
    pub fn check_errors(&self, disk_full: bool) {
        if let Some(error) = self.errors.iter().find(|error| !(disk_full && error.code == Code::DISK_FULL)) {
            panic!("nothing was wrong with the disk, and yet: {error} (in doubt: {})", error.in_doubt);
        }
    }
}
