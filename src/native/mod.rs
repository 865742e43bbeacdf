//! Rank 2: the embedded engine: append-only chunks of checksummed group frames, an index in memory, the newest bytes
//! kept hot.
//!
//! The way of a write: `commit` (stage) takes a place from `log`, fills in a `frame`, writes it, and, in the order of
//! turns, publishes it to the `index`. The way of a read: `index`, then `hot` memory or the disk (`read`). `recovery`
//! rebuilds index and log end from the files alone,
//! with the help of a `checkpoint` of the index. docs/FORMAT.md draws the files.

mod ahead;
mod apply;
mod checkpoint;
mod chunks;
mod commit;
mod compaction;
mod compactor;
mod dictionary;
mod frame;
#[cfg(test)]
pub(crate) mod fuzz;
mod hot;
mod index;
mod inventory;
mod log;
mod manifest;
mod names;
mod options;
mod pack;
mod prefix;
mod read;
mod recovery;
mod replay;
mod scan;
#[cfg(test)]
pub(crate) mod tests;
pub mod tools;
mod window;

pub use options::{Options, Recovery};
pub use recovery::Progress;

use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHasher;
use crate::base::log::Rare;
#[cfg(not(test))]
use crate::base::random;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex, RwLock};
use crate::engine::counters::AtomicCounters;
use crate::engine::outcome::{BatchId, BatchOutcome, Outcomes, opening_of};
use crate::engine::{Commit, Counters, Engine, IoReport, Pin, ReadHints, ReadOp, Reader, Turn, Turnstile};
use crate::io::{Dir, Disk};
use std::any::Any;
use std::io;
use std::path::Path;

/// Takes the lock of the store in `dir`, or says who has it.
fn take_lock(dir: &dyn Dir, name: &str) -> Result<Box<dyn Any + Send + Sync>> {
    dir.lock(LOCK_NAME).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => {
            let holder = dir.lock_holder(LOCK_NAME).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            Error::new(Code::LOCK, format!("store {name}: {holder} has it open: stop that one or name another store"))
        }
        _ => Error::from_io(format_args!("store {name}: cannot take {LOCK_NAME}"), &e),
    })
}

/// The file that a process holds locked while it has the store open.
const LOCK_NAME: &str = "LOCK";

/// See the top of this file.
pub struct NativeEngine {
    path: String,
    options: Options,
    disk: Arc<dyn Disk>,
    /// Of the hash under which the index knows keys: good for as long as the store has a checkpoint made with it.
    secret: [u64; 2],
    hasher: KeyHasher,
    line: Arc<Turnstile>,
    index: RwLock<index::Index>,
    /// Where the log stood when the index was as it is: changed and read under the index's lock.
    reached: Mutex<frame::LogEnd>,
    /// Which batches readers see, likewise changed under the index's lock.
    outcomes: Mutex<Outcomes>,
    opening: u64,
    chunks: Arc<chunks::Chunks>,
    log: Arc<log::Log>,
    counters: AtomicCounters,
    closed: AtomicBool,
    /// Closing has begun: compaction gives up at the next group.
    stopping: AtomicBool,
    /// Held by whoever compacts, or writes a checkpoint: no chunk goes while the index is being copied.
    compacting: Mutex<()>,
    compactor: Arc<compactor::Compactor>,
    ahead: Arc<ahead::Ahead>,
    manifests: Mutex<Manifests>,
    dictionaries: dictionary::Dictionaries,
    experience: Mutex<pack::Experience>,
    checkpoints: checkpoint::Checkpoints,
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    /// What has its line in the log only now and then: reads that failed, writes that were refused for want of something.
    failed_reads: Rare,
    refused_writes: Rare,
    /// A line says that writes are refused, and none yet that they are not.
    refusing: AtomicBool,
}

/// Numbers of the manifests.
struct Manifests {
    next: u64,
    in_force: Option<u64>,
    /// The one before, kept until the next.
    before: Option<u64>,
}

impl NativeEngine {
    /// Opens the store in directory `path` of `disk`, made if missing. A refused store is left as it was.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<Arc<NativeEngine>> {
        NativeEngine::open_watched(disk, path, options, &mut |_| ())
    }

    /// Like `open`; `tell` hears how far it is, some hundred times a second.
    pub fn open_watched(disk: Arc<dyn Disk>, path: &Path, options: Options, tell: &mut dyn FnMut(Progress)) -> Result<Arc<NativeEngine>> {
        options.compacted_codec.check_built()?;
        let name = path.display().to_string();
        let opened = if options.read_only { disk.open_dir_to_read(path) } else { disk.open_dir(path) };
        let dir = opened.map_err(|e| Error::from_io(format_args!("store {name}: cannot open the directory"), &e))?;
        let lock = take_lock(&*dir, &name)?;
        let chunks = Arc::new(chunks::Chunks::new(options.hot_log_bytes));
        let recovery::Recovered { start, index, secret, dictionaries, checkpoints, loaded_keys, replayed, outcomes } =
            recovery::recover(&*dir, &name, &options, new_secret(), &chunks, tell)?;
        let (opening, reached) = (opening_of(start.epoch, start.chance), Mutex::new(start.end));
        let manifests = Mutex::new(Manifests { next: start.next_manifest, in_force: start.manifest, before: None });
        let counters = AtomicCounters::default();
        counters.given_up_records.store(start.last_given - start.end.last_seq, Ordering::Relaxed);
        counters.given_up_chunks.store(start.given_up.len() as u64, Ordering::Relaxed);
        let log = Arc::new(log::Log::new(dir, name.clone(), options, start));
        log.name_dictionaries(dictionaries.names());
        counters.keys.store(index.len() as u64, Ordering::Relaxed);
        counters.loaded_keys.store(loaded_keys, Ordering::Relaxed);
        counters.replayed_bytes.store(replayed, Ordering::Relaxed);
        let engine = Arc::new(NativeEngine {
            path: name,
            options,
            disk,
            secret,
            hasher: KeyHasher::new(secret),
            line: Arc::default(),
            index: RwLock::new(index),
            reached,
            outcomes: Mutex::new(outcomes),
            opening,
            chunks,
            log,
            counters,
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            compacting: Mutex::new(()),
            compactor: Arc::default(),
            ahead: Arc::default(),
            manifests,
            dictionaries,
            experience: Mutex::default(),
            checkpoints: checkpoint::Checkpoints::new(checkpoints, replayed),
            lock: Mutex::new(Some(lock)),
            failed_reads: Rare::default(),
            refused_writes: Rare::default(),
            refusing: AtomicBool::new(false),
        });
        engine.start_compactor()?;
        engine.start_ahead()?;
        Ok(engine)
    }

    /// Syncs what was committed before. A sync has its place in the line like a group: what is staged behind it begins
    /// on a fresh block, so that writing it cannot spoil what the sync has covered.
    fn sync_in_turn(&self) -> Result<()> {
        let mut turn = self.turn();
        turn.stage(|| self.log.stage_sync());
        let published = turn.publish(|| self.log.published());
        self.log.sync_files(published, &self.counters.syncs)?;
        self.wake_compactor();
        Ok(())
    }

    /// See `Engine::commit`.
    fn stage_write_publish(&self, mut turn: Turn, group: &mut [Commit<'_>], retry: &mut dyn FnMut(&Error) -> bool) -> Result<()> {
        let mut staged = turn.stage(|| {
            loop {
                match self.stage(group) {
                    Err(error) if retry(&error) => {}
                    result => return result,
                }
            }
        })?;
        let written = loop {
            match self.write(&mut staged, group) {
                Err(error) if staged.may_write_again() && retry(&Error::from_io("writing to the log", &error)) => {}
                result => break result,
            }
        };
        turn.publish(|| self.publish(staged, written, group))?;
        self.wake_compactor();
        self.hold_back(|| group.iter().flat_map(|member| member.writes.ops).map(|op| u64::from(op.len)).sum());
        Ok(())
    }

    /// Milliseconds since 1970, by which records expire; never goes back, so that none comes back.
    fn now_ms(&self) -> u64 {
        clock::unix_ms_rising()
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Code::INVALID_STATE, format!("store {}: it was closed: start a manager again", self.path)));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.options.read_only {
            let text = format!("store {}: it was opened with read_only=true and takes no writes: open it without", self.path);
            return Err(Error::new(Code::NOT_SUPPORTED, text));
        }
        Ok(())
    }
}

/// The secret of the hash of a store that has no checkpoint yet.
fn new_secret() -> [u64; 2] {
    // A checkpoint's length depends on it, and a test that is run again must take the same steps.
    #[cfg(test)]
    return tests::SECRET.get();
    #[cfg(not(test))]
    [random::secret_u64(), random::secret_u64()]
}

impl Engine for NativeEngine {
    fn name(&self) -> &str {
        &self.path
    }

    fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    fn turn(&self) -> Turn {
        self.line.draw()
    }

    fn commit(&self, turn: Turn, group: &mut [Commit<'_>], retry: &mut dyn FnMut(&Error) -> bool) -> Result<()> {
        let result = self.stage_write_publish(turn, group, retry);
        self.tell_of_refusals(&result);
        self.wake_compactor_if_full(result.is_ok());
        result
    }

    fn resolve(&self, reads: &mut [ReadOp]) -> Pin {
        self.locate(&self.index.read(), reads)
    }

    fn fetch(&self, pin: &Pin, reads: &mut [ReadOp], reader: &mut dyn Reader, hints: &ReadHints) {
        self.fetch_reads(pin, reads, reader, hints);
    }

    fn sync(&self) -> Result<()> {
        self.check_open()?;
        self.sync_in_turn()
    }

    fn opening(&self) -> u64 {
        self.opening
    }

    fn batch_outcome(&self, id: BatchId) -> BatchOutcome {
        self.outcomes.lock().of(id, self.opening)
    }

    fn backup_to(&self, to: &Path) -> Result<()> {
        self.backup(to).map(drop)
    }

    fn unsynced(&self) -> bool {
        self.log.is_unsynced()
    }

    fn counters(&self) -> Counters {
        let view = self.chunks.view();
        let hot_bytes = view.iter().flatten().filter_map(|seen| seen.hot.as_ref()).map(|hot| hot.capacity()).sum();
        let reserve_bytes = self.log.reserve_bytes();
        let index = self.index.read();
        let (early_bytes, known) = (self.early_bytes(), self.counters.snapshot());
        Counters {
            keys: index.len() as u64,
            index_bytes: index.bytes() as u64,
            hot_bytes,
            reserve_bytes,
            early_bytes,
            syncs: known.syncs + self.early_syncs(),
            ..known
        }
    }

    fn io_report(&self) -> IoReport {
        let (backend, reason) = self.disk.backend();
        IoReport { backend, reason }
    }

    fn close(&self) -> Result<()> {
        self.stop_compactor();
        self.stop_ahead();
        let _compaction_is_over = self.compacting.lock();
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if !self.log.is_full() {
            self.checkpoint_at_close();
        }
        let closed = self.sync_in_turn().and_then(|()| self.log.close());
        self.chunks.clear();
        drop(self.lock.lock().take());
        closed
    }
}
