//! The chunks that make up the store, and the slots by which index entries name them.
//!
//! Readers take a `View` once per batch: an immutable table, so that looking up a chunk needs no lock.

use super::dictionary::Names;
use super::frame::{CHUNK_HEADER_LEN, ChunkHeader, LogEnd, Salt};
use super::hot::{HotChunk, HotPool};
use super::index::SLOTS_MAX;
use super::names::{number_in, numbered};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex, RwLock};
use crate::io::File;

/// A chunk that has lost more than one in so many of its bytes since the last look may have lost the rest soon.
const FADING_SHARE: u64 = 64;

/// A chunk file that is part of the store.
pub struct Chunk {
    /// How index entries name it.
    pub slot: u32,
    /// Its number.
    pub id: u64,
    /// Its file.
    pub file: Arc<dyn File>,
    /// Salt of its checksums.
    pub salt: Salt,
    /// Dictionaries that its records may need.
    pub dictionaries: Names,
    /// The file was that of an older chunk: where nothing was written since, it has what that held.
    pub is_reused: bool,
    /// Bytes of all its records, each counted as the index tells it: so that what is dead of them, and what is left,
    /// come out exactly.
    pub record_bytes: AtomicU64,
    /// Bytes of records that are no longer current.
    pub dead_bytes: AtomicU64,
    /// Deletes among them: while an older chunk is there, they must not be forgotten.
    pub tombstones: AtomicU64,
    /// Bytes of these.
    pub tombstone_bytes: AtomicU64,
    /// Compaction is so many bytes into it, and has put what is current of them elsewhere: these are as good as gone.
    pub rewritten: AtomicU64,
    /// It loses its records by itself, as far as could be seen when it was looked last: there will be less to move.
    pub fades: AtomicBool,
    /// Bytes of current records that were in it then.
    live_seen: AtomicU64,
    /// Something in it could not be read: it is kept as it is.
    pub damaged: AtomicBool,
    /// Where it ends, once nothing more is written to it.
    end: Mutex<Option<LogEnd>>,
}

impl Chunk {
    /// Nothing more is written: it ends where the log stood, or holds nothing if that was in another chunk.
    pub fn seal(&self, log_end: LogEnd) {
        let empty = LogEnd { chunk: self.id, valid_bytes: CHUNK_HEADER_LEN as u64, ..log_end };
        *self.end.lock() = Some(if log_end.chunk == self.id { log_end } else { empty });
    }

    /// Its end, if it is sealed.
    pub fn end(&self) -> Option<LogEnd> {
        *self.end.lock()
    }

    /// Whether it is sealed, and nothing in it is of any use.
    pub fn is_empty(&self) -> bool {
        let deletes = self.tombstones.load(Ordering::Relaxed);
        self.end().is_some() && !self.damaged.load(Ordering::Relaxed) && self.live_bytes() == 0 && deletes == 0
    }

    /// Bytes of records that are current.
    pub fn live_bytes(&self) -> u64 {
        self.record_bytes.load(Ordering::Relaxed).saturating_sub(self.dead_bytes.load(Ordering::Relaxed))
    }

    /// Looks whether it still loses what is in it: something to speak of since the last look, if it is sealed.
    pub fn look_whether_it_fades(&self) {
        let Some(end) = self.end() else { return };
        let live = self.live_bytes();
        let lost = self.live_seen.swap(live, Ordering::Relaxed).saturating_sub(live);
        self.fades.store(live > 0 && lost > end.valid_bytes / FADING_SHARE, Ordering::Relaxed);
    }
}

/// A chunk, with its bytes in memory if they are kept there.
#[derive(Clone)]
pub struct Seen {
    /// The chunk.
    pub chunk: Arc<Chunk>,
    /// Its hot bytes.
    pub hot: Option<Arc<HotChunk>>,
}

/// All chunks, by slot. Slot 0 is never used.
pub type View = Arc<Vec<Option<Seen>>>;

/// The live set.
pub struct Chunks {
    view: RwLock<View>,
    hot_log_bytes: u64,
    hot_pool: Arc<HotPool>,
}

/// The file name of a chunk.
pub fn file_name(id: u64) -> String {
    numbered("chunk", id)
}

/// The number in a chunk's file name, if it is one.
pub fn id_of(name: &str) -> Option<u64> {
    number_in("chunk", name)
}

impl Chunks {
    /// No chunks yet.
    pub fn new(hot_log_bytes: u64) -> Chunks {
        Chunks { view: RwLock::new(Arc::new(vec![None])), hot_log_bytes, hot_pool: Arc::default() }
    }

    /// The present chunks.
    pub fn view(&self) -> View {
        Arc::clone(&self.view.read())
    }

    /// Adds a chunk in the first free slot from `least_slot` on; the oldest hot bytes give way to `hot`.
    pub fn add(&self, header: &ChunkHeader, file: Arc<dyn File>, hot: Option<Arc<HotChunk>>, least_slot: u32) -> Result<Arc<Chunk>> {
        let least_slot = (least_slot as usize).max(1);
        let mut view = self.view.write();
        let no_memory = || Error::no_memory("no memory for the table of chunks: free memory");
        let mut next = Vec::new();
        next.try_reserve_exact(view.len().max(least_slot) + 1).map_err(|_| no_memory())?;
        next.extend_from_slice(&view);
        let slot = next.iter().skip(least_slot).position(Option::is_none).map_or(next.len().max(least_slot), |free| free + least_slot);
        if slot >= SLOTS_MAX as usize {
            return Err(Error::new(Code::NO_SPACE, "the store has as many chunk files as it can: split it into several stores"));
        }
        let chunk = Arc::new(Chunk {
            slot: slot as u32,
            id: header.chunk,
            file,
            salt: header.salt(),
            dictionaries: header.dictionaries,
            is_reused: header.reused != 0,
            record_bytes: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            tombstone_bytes: AtomicU64::new(0),
            rewritten: AtomicU64::new(0),
            fades: AtomicBool::new(true),
            live_seen: AtomicU64::new(u64::MAX),
            damaged: AtomicBool::new(false),
            end: Mutex::new(None),
        });
        let seen = Some(Seen { chunk: Arc::clone(&chunk), hot });
        next.resize(next.len().max(slot + 1), None);
        next[slot] = seen;
        self.cool(&mut next);
        *view = Arc::new(next);
        Ok(chunk)
    }

    /// Takes a chunk out. Readers that have seen it keep it until they are done; its slot is free for another.
    pub fn remove(&self, chunk: &Chunk) -> Result<()> {
        let mut view = self.view.write();
        let mut next = Vec::new();
        next.try_reserve_exact(view.len()).map_err(|_| Error::no_memory("no memory for the table of chunks: free memory"))?;
        next.extend_from_slice(&view);
        if let Some(slot) = next.get_mut(chunk.slot as usize)
            && slot.as_ref().is_some_and(|seen| seen.chunk.id == chunk.id)
        {
            *slot = None;
        }
        *view = Arc::new(next);
        Ok(())
    }

    /// All chunks, oldest first.
    pub fn by_age(&self) -> Vec<Arc<Chunk>> {
        let mut chunks: Vec<_> = self.view().iter().flatten().map(|seen| Arc::clone(&seen.chunk)).collect();
        chunks.sort_unstable_by_key(|chunk| chunk.id);
        chunks
    }

    /// Lets go of the oldest hot bytes beyond the budget.
    fn cool(&self, chunks: &mut [Option<Seen>]) {
        let mut hot: Vec<(u64, u64, usize)> = chunks
            .iter()
            .enumerate()
            .filter_map(|(slot, seen)| seen.as_ref().and_then(|seen| seen.hot.as_ref().map(|hot| (seen.chunk.id, hot.capacity(), slot))))
            .collect();
        hot.sort_unstable_by(|a, b| b.cmp(a));
        let mut kept = 0;
        for (_, capacity, slot) in hot {
            kept += capacity;
            if kept > self.hot_log_bytes
                && let Some(Some(seen)) = chunks.get_mut(slot)
            {
                seen.hot = None;
            }
        }
    }

    /// Memory for a new chunk's hot bytes, if the budget allows any.
    pub fn hot_for(&self, chunk_bytes: u64) -> Option<Arc<HotChunk>> {
        if chunk_bytes > self.hot_log_bytes { None } else { HotChunk::new(chunk_bytes, &self.hot_pool) }
    }

    /// Lets go of all files and memory.
    pub fn clear(&self) {
        *self.view.write() = Arc::new(vec![None]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(file_name(255), "chunk-00000000000000ff.kvb");
        assert_eq!(id_of("chunk-00000000000000ff.kvb"), Some(255));
        for bad in ["LOCK", "chunk-ff.kvb", "chunk-00000000000000FF.kvb", "chunk-00000000000000ff.kvb.bak", "chunk-+0000000000000ff.kvb"] {
            assert_eq!(id_of(bad), None, "{bad}");
        }
    }
}
