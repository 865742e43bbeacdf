//! The log: which chunk is being written, where the next frame goes, what is on stable storage, and whether anything
//! may be written at all.
//!
//! `commit` is the only caller of `stage` and `settle`, one group at a time each, in the order of turns. The rules:
//! sequence numbers are never used twice, also after a failure; a frame behind a sync begins on a fresh block; after a
//! failed sync nothing is written any more; after a failed write the log goes on in a new chunk whose header says
//! where the old one was cut, so that what lies behind the cut can never come back.

mod begin;
mod next;
mod pages;
mod prepared;
mod remark;
mod reserve;
mod reuse;
mod sync;

pub use pages::PagesWanted;
pub use prepared::PREPARED_NAME;
pub use reserve::{Purpose, RESERVE_NAME};
pub use reuse::is_removed_name;
#[cfg(test)]
pub use reuse::removed_name;

use super::chunks::{Chunk, Chunks, file_name};
use super::dictionary::Names;
use super::frame::{BATCH_ENTRY_LEN, CHUNK_HEADER_LEN, ChunkHeader, FRAME_HEADER_LEN, LogEnd};
use super::hot::HotChunk;
use super::options::Options;
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::limits::BLOCK_BYTES;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::engine::counters::{AtomicCounters, add};
use crate::engine::record::ALIGN;
use crate::io::Dir;
use next::Next;
use pages::Pages;
use prepared::Prepared;
use reserve::{Reserve, is_full_disk};
use reuse::Removed;

/// See the top of this file.
pub struct Log {
    dir: Arc<dyn Dir>,
    store_path: String,
    options: Options,
    state: Mutex<LogState>,
    /// Held while files are synced: a second sync waits and finds its work done.
    syncing: Mutex<()>,
    /// Sequence numbers that readers can see, and those on stable storage: to be read without a lock that a stuck disk
    /// may be holding. Written under `state`.
    published: AtomicU64,
    durable: AtomicU64,
    /// The chunk of the last group that readers can see: it says where the log stands.
    published_chunk: AtomicU64,
    /// The highest watermark that stands in the log: what is durable beyond it, nothing proves yet.
    witnessed: AtomicU64,
    /// The state's, to be read without its lock.
    full: AtomicBool,
    has_become_full: AtomicBool,
    /// Bytes that the reserve holds.
    reserved: AtomicU64,
    /// A file for the next chunk.
    prepared: Prepared,
    /// Files that were chunks'.
    removed: Removed,
    /// Pages of the chunk that is written to.
    pages: Pages,
    /// The chunk behind which one was asked for that is made ahead.
    next_behind: AtomicU64,
}

struct LogState {
    store: [u8; 16],
    epoch: u64,
    chance: u32,
    next_chunk: u64,
    active: Option<Active>,
    /// A chunk that was made ahead.
    next: Next,
    /// The chunk that was begun last, whether or not it is still written to.
    newest: Option<Arc<Chunk>>,
    /// Where the log stands; `chunk` and `valid_bytes` are those of the last frame that counts.
    end: LogEnd,
    /// Highest sequence number given out, also to groups that failed.
    last_given: u64,
    /// Chunks with bytes that no sync has covered, and the last sequence number written to them that way.
    unsynced: Vec<(Arc<Chunk>, u64)>,
    /// Rises with each failed write: groups that were staged before it cannot be published.
    generation: u64,
    /// The header of a chunk says so, durably, of all failed writes before this generation: they never happened.
    recorded: u64,
    /// Space for the day when the disk is full.
    reserve: Reserve,
    /// That day is there: only what makes room is written.
    full: bool,
    /// A sync has its place behind the last frame, and will cover the block that it ends in.
    fresh_block: bool,
    /// The dictionaries that the next chunk names, and whether the present one lacks some of them.
    dictionaries: Names,
    fresh_chunk: bool,
    poison: Option<Error>,
    /// Files that are no part of the store any more; removed when the next chunk's header is durable.
    leftovers: Vec<String>,
    /// Files that were given up; renamed at that time.
    given_up: Vec<String>,
}

struct Active {
    chunk: Arc<Chunk>,
    hot: Option<Arc<HotChunk>>,
    /// Where the next frame may start, in bytes.
    next: u64,
}

/// How recovery, or an empty directory, leaves the log.
pub struct LogStart {
    /// Which store it is.
    pub store: [u8; 16],
    /// How often the store has been opened, this time included.
    pub epoch: u64,
    /// The opening's random number.
    pub chance: u32,
    /// First chunk number that was never used.
    pub next_chunk: u64,
    /// Where the log stands.
    pub end: LogEnd,
    /// Highest sequence number that was ever given out, as far as it is known.
    pub last_given: u64,
    /// Files to remove once the next chunk is begun.
    pub leftovers: Vec<String>,
    /// Files to rename at that time.
    pub given_up: Vec<String>,
    /// First manifest number that was never used.
    pub next_manifest: u64,
    /// The manifest that is in force, if there is one.
    pub manifest: Option<u64>,
    /// There is a file of the reserve's name.
    pub reserve: bool,
}

/// What a group wants of the log.
pub struct Wanted {
    /// Batches that write.
    pub batches: usize,
    /// Their records.
    pub records: u64,
    /// Bytes of these.
    pub payload_len: u64,
    /// It is to be synced.
    pub durable: bool,
    /// What it does.
    pub purpose: Purpose,
}

/// A place in the log, given to one group.
pub struct Place {
    /// The chunk to write to.
    pub chunk: Arc<Chunk>,
    /// Its memory.
    pub hot: Option<Arc<HotChunk>>,
    /// Where the frame starts, in bytes.
    pub offset: u64,
    /// Sequence number of the first record.
    pub first_seq: u64,
    /// Sequence number of the last record.
    pub last_seq: u64,
    /// Highest durable sequence number at this time.
    pub watermark: u64,
    /// The running digest before the frame.
    pub digest_before: u64,
    /// The log's end before the frame: where it is cut if the write fails.
    before: LogEnd,
    generation: u64,
    /// How the group becomes durable.
    pub sync: SyncWay,
    /// Writing failed when nothing but zeros was left to be written: a longer file makes the frame whole.
    pub lacks_only_zeros: bool,
}

/// How a group becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncWay {
    /// Not now.
    Later,
    /// By a synchronous write: nothing before it is unsynced.
    ByWrite,
    /// By syncing all files before it is published: something before it is unsynced.
    ByFiles,
}

impl Place {
    /// Where the log ends without what is written here.
    pub fn before(&self) -> LogEnd {
        self.before
    }
}

impl Log {
    /// A log that goes on where `start` says. Writes nothing yet.
    pub fn new(dir: Arc<dyn Dir>, store_path: String, options: Options, start: LogStart) -> Log {
        let LogStart { store, epoch, chance, next_chunk, end, last_given, leftovers, given_up, reserve, .. } = start;
        let next_chunk = if planted(Bug::ReuseChunkNumber) { end.chunk + 1 } else { next_chunk };
        let state = LogState {
            store,
            epoch,
            chance,
            next_chunk,
            active: None,
            next: Next::default(),
            newest: None,
            end,
            last_given,
            unsynced: Vec::new(),
            generation: 0,
            recorded: 0,
            reserve: Reserve { there: reserve, whole: false },
            full: false,
            fresh_block: true,
            dictionaries: Names::default(),
            fresh_chunk: false,
            poison: None,
            leftovers,
            given_up,
        };
        Log {
            dir,
            store_path,
            options,
            state: Mutex::new(state),
            syncing: Mutex::new(()),
            published: AtomicU64::new(end.last_seq),
            durable: AtomicU64::new(end.last_seq),
            published_chunk: AtomicU64::new(end.chunk),
            witnessed: AtomicU64::new(end.last_seq),
            full: AtomicBool::new(false),
            has_become_full: AtomicBool::new(false),
            reserved: AtomicU64::new(0),
            prepared: Prepared::default(),
            removed: Removed::default(),
            pages: Pages::default(),
            next_behind: AtomicU64::new(0),
        }
    }

    /// Gives a group its place.
    ///
    /// May begin a new chunk, which is the only thing here that touches the disk. An error means that nothing happened.
    pub fn stage(&self, chunks: &Chunks, counters: &AtomicCounters, wanted: &Wanted) -> Result<Place> {
        let Wanted { batches, records, payload_len, durable, purpose } = *wanted;
        let mut state = self.state.lock();
        state.check_poison()?;
        self.admit(&mut state, purpose)?;
        let frame_len = (FRAME_HEADER_LEN + batches * BATCH_ENTRY_LEN) as u64 + payload_len;
        let start_of = |active: &Active, fresh: bool| {
            active.next.next_multiple_of(if (durable || fresh) && !planted(Bug::SharedBlock) { BLOCK_BYTES as u64 } else { ALIGN as u64 })
        };
        let fits = !state.fresh_chunk
            && state.active.as_ref().is_some_and(|active| {
                let start = start_of(active, state.fresh_block);
                let is_empty = start == CHUNK_HEADER_LEN as u64;
                let has_room = is_empty || start + frame_len <= self.options.chunk_bytes && !(durable && self.has_better());
                has_room && (durable || !active.chunk.is_reused)
            });
        if !fits && let Err(error) = self.begin_chunk_for(wanted, &mut state, chunks, counters) {
            // The file may be there all the same, and its header says that the old chunk ends where it ends now.
            state.active = None;
            return Err(error);
        }
        state.unsynced.try_reserve(1).map_err(|_| Error::no_memory("no memory for the log's tables: free memory"))?;
        let fresh = state.fresh_block;
        let Some(active) = &mut state.active else {
            return Err(Error::new(Code::UNKNOWN, "internal error: the log has no chunk"));
        };
        let offset = start_of(active, fresh);
        active.next = offset + frame_len;
        let (chunk, hot) = (Arc::clone(&active.chunk), active.hot.clone());
        let before = state.end;
        let first_seq = state.last_given + 1;
        state.last_given += records;
        let sync = match (durable, state.unsynced.is_empty()) {
            (true, true) => SyncWay::ByWrite,
            (true, false) => SyncWay::ByFiles,
            (false, _) => SyncWay::Later,
        };
        state.fresh_block = durable;
        let last_seq = state.last_given;
        if sync != SyncWay::ByWrite {
            state.mark_unsynced(&chunk, last_seq);
        }
        let watermark = if planted(Bug::WatermarkTooHigh) { before.last_seq } else { self.durable.load(Ordering::Acquire) };
        self.witnessed.store(watermark, Ordering::Relaxed);
        Ok(Place {
            chunk,
            hot,
            offset,
            first_seq,
            last_seq,
            watermark,
            digest_before: before.digest,
            before,
            generation: state.generation,
            sync,
            lacks_only_zeros: false,
        })
    }

    /// The frame at `place` has this digest: what is staged next continues from it. Where the log ends with it.
    pub fn staged(&self, place: &Place, frame_len: u64, digest: u64) -> LogEnd {
        let end = LogEnd { chunk: place.chunk.id, valid_bytes: place.offset + frame_len, last_seq: place.last_seq, digest };
        let mut state = self.state.lock();
        // A write before this one may have failed in between: then the log goes on behind that, and this group is given up.
        if state.generation == place.generation || planted(Bug::CutForgotten) {
            state.end = end;
        }
        end
    }

    /// Before a group is published: is its frame good, and is it as durable as it has to be? In the order of turns.
    pub fn settle(&self, chunks: &Chunks, place: &Place, written: std::io::Result<u64>, counters: &AtomicCounters) -> Result<()> {
        match written {
            Ok(calls) => add(&counters.log_writes, calls),
            Err(error) => return Err(self.write_failed(chunks, place, &error, counters)),
        }
        {
            let state = self.state.lock();
            if let Some(poison) = &state.poison {
                return Err(poison.clone().in_doubt());
            }
            if state.generation != place.generation && !planted(Bug::FollowersSucceed) {
                return Err(state.given_up(place));
            }
        }
        match place.sync {
            SyncWay::Later => {}
            SyncWay::ByWrite => add(&counters.syncs, 1),
            SyncWay::ByFiles if planted(Bug::AckBeforeSync) => {}
            SyncWay::ByFiles => self.sync_files(place.last_seq, &counters.syncs).map_err(Error::in_doubt)?,
        }
        let _state = self.state.lock();
        if place.sync != SyncWay::Later {
            self.durable.fetch_max(place.last_seq, Ordering::Release); // first, or it seems to be unsynced for a moment
        }
        self.published.store(place.last_seq, Ordering::Release);
        self.published_chunk.store(place.chunk.id, Ordering::Release);
        Ok(())
    }

    fn write_failed(&self, chunks: &Chunks, place: &Place, error: &std::io::Error, counters: &AtomicCounters) -> Error {
        let file = file_name(place.chunk.id);
        let failed = Error::from_io(format_args!("store {}: writing {file} failed", self.store_path), error);
        let mut state = self.state.lock();
        if let Some(poison) = &state.poison {
            return poison.clone().in_doubt();
        }
        // What happens to a file that was taken out of the store with all that was in it says nothing about the others.
        if state.generation != place.generation && chunks.by_age().iter().all(|chunk| chunk.id != place.chunk.id) {
            return state.given_up(place);
        }
        // For want of space or memory nothing is broken; anything else may mean that the file is.
        if failed.code != Code::DISK_FULL && !failed.transient {
            let poison = poisoned(&failed.message);
            state.poison = Some(poison.clone());
            drop(state);
            log::write(log::Level::Fatal, "write", &poison.message);
            return poison.in_doubt();
        }
        // The log goes on in a new chunk, and what lies behind the cut counts for nothing from then on. A frame that was
        // not written whole can never become valid, so the outcome is known: it did not happen. Only a synchronous
        // write may have failed after the last byte, zeros that are missing may yet appear by themselves, and what an older
        // chunk has left in the file may be what is missing.
        if state.generation == place.generation {
            state.generation += 1;
            state.end = place.before;
            state.active = state.active.take().filter(|_| planted(Bug::AppendToTornTail));
            place.chunk.seal(place.before);
            // Chunks begun since then hold nothing but groups that were given up with this one.
            for chunk in chunks.by_age().into_iter().filter(|chunk| chunk.id > place.chunk.id) {
                state.leftovers.push(file_name(chunk.id));
                let _ = chunks.remove(&chunk); // without memory it stays, empty, until the next open
            }
            state.newest = Some(Arc::clone(&place.chunk));
            state.unsynced.retain(|(chunk, _)| chunk.id <= place.chunk.id);
            for (_, last) in &mut state.unsynced {
                *last = (*last).min(place.before.last_seq);
            }
            // With what the reserve gives, the next chunk can say at once where this one was cut.
            if is_full_disk(error) && self.release_reserve(&mut state, chunks, error) {
                let _ = self.begin_chunk(true, &mut state, chunks, counters);
            }
        }
        let may_be_whole = place.sync == SyncWay::ByWrite || place.lacks_only_zeros || place.chunk.is_reused;
        if may_be_whole && state.recorded <= place.generation { failed.in_doubt() } else { failed }
    }

    /// The next group begins a new chunk.
    #[cfg(test)]
    pub fn end_chunk(&self) {
        self.state.lock().fresh_chunk = true;
    }

    /// The highest chunk number that was ever used. One that was made ahead may still be begun.
    pub fn last_chunk(&self) -> u64 {
        let state = self.state.lock();
        state.next.number().unwrap_or(state.next_chunk) - 1
    }

    /// The chunk that says where the log stands; older ones may go.
    pub fn published_chunk(&self) -> u64 {
        self.published_chunk.load(Ordering::Acquire)
    }

    /// The last sequence number that readers can see.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// From now on records may need these dictionaries, which are on stable storage: what is staged next goes into a chunk
    /// that names them.
    pub fn name_dictionaries(&self, names: Names) {
        let mut state = self.state.lock();
        state.fresh_chunk |= state.dictionaries != names && !planted(Bug::DictionaryUnnamed);
        state.dictionaries = names;
    }

    /// The directory, for those who keep other files there.
    pub fn dir(&self) -> &Arc<dyn Dir> {
        &self.dir
    }

    /// Which store this is.
    pub fn store(&self) -> [u8; 16] {
        self.state.lock().store
    }

    /// Where the log stands: behind the last group that was staged.
    pub fn end(&self) -> LogEnd {
        self.state.lock().end
    }

    /// A group will never be settled (its executor died): nobody can tell what is in the file, so nothing follows.
    pub fn abandon(&self) {
        let poison = poisoned(&format!("store {}: a commit was broken off by an internal error", self.store_path));
        let mut state = self.state.lock();
        if state.poison.is_none() {
            state.poison = Some(poison.clone());
            drop(state);
            log::write(log::Level::Fatal, "commit", &poison.message);
        }
    }
}

impl LogState {
    /// The header of the next chunk that is made.
    fn header(&self, before: LogEnd, watermark: u64) -> ChunkHeader {
        ChunkHeader {
            store: self.store,
            chunk: self.next_chunk,
            epoch: self.epoch,
            chance: self.chance,
            before,
            open: false,
            watermark,
            created_ms: clock::unix_ms(),
            dictionaries: self.dictionaries,
            reused: 0,
        }
    }

    fn check_poison(&self) -> Result<()> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// The error of a group that a failure before it has taken along.
    fn given_up(&self, place: &Place) -> Error {
        let text = "the disk is full: a write before this one failed, so this one was given up; free some space and try again";
        let error = Error::new(Code::DISK_FULL, text);
        if self.recorded > place.generation { error } else { error.in_doubt() }
    }
}

fn poisoned(cause: &str) -> Error {
    let text = format!("{cause}; the store takes no more writes (reads go on): stop all managers, check the disk, and open it again");
    Error::new(Code::IO, text)
}
