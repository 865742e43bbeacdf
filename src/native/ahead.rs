//! The thread that makes ready what commits will need next: memory of the hot log and of the index, touched before it is
//! written to, pages of the present chunk's file (see `log/pages.rs`), and the file of the next one (see `log/prepared.rs`).
//!
//! What large groups leave in the page cache it has the kernel write out soon, so that the device works beside them; by
//! itself the kernel waits for a tenth of the memory, or half a minute, and a sync then waits for all of that. While compaction
//! has much to do all groups are written out, and synced piece by piece: each chunk that it removes, and each checkpoint, needs
//! everything on stable storage, and would have to wait for a chunk's worth of log (`make bench`: "sustained overwrite").
//!
//! The first touch of a page costs a trap into the kernel, on virtual machines of some microseconds, and a commit would
//! pay for one every thirty records. It works only while commits go on, some megabytes ahead of them; what it has not
//! done in time, the commit does itself.

use super::NativeEngine;
use super::chunks::{Chunk, Chunks, Seen};
use super::hot::HotChunk;
use super::index::Spare;
use super::log::{Log, PagesWanted, Place, SyncWay};
use crate::base::error::Result;
use crate::base::limits::BLOCK_BYTES;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Condvar, JoinHandle, Mutex, spawn};
use crate::engine::counters::add;

/// Memory is made ready this far ahead, in bytes.
const AHEAD_BYTES: u64 = 16 << 20;

/// More is made ready when this much, in bytes, is left.
const LOW_BYTES: u64 = 8 << 20;

/// A chunk that has not taken so many bytes is not worth the trouble.
const WARM_UP_BYTES: u64 = 1 << 20;

/// Only groups of so many bytes are written out early, as long as nobody is about to sync: of what many small ones write,
/// compaction may soon remove some.
const LARGE_GROUP_BYTES: u64 = 512 << 10;

/// So many bytes of log are written out, and synced, at a time.
const WRITE_OUT_BYTES: u64 = 4 << 20;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    /// Bytes that were handed to the device early.
    early_bytes: AtomicU64,
    /// Syncs of files.
    syncs: AtomicU64,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// Memory to touch, up to this byte.
    memory: Option<(Arc<HotChunk>, u64)>,
    /// Space and pages to bring in, of the chunk in a slot.
    pages: Option<(u32, PagesWanted)>,
    /// Memory of the index to bring in.
    index: Option<Arc<Spare>>,
    /// Bytes to write out.
    unwritten: Option<Unwritten>,
    /// They are to be synced, too.
    sync: bool,
    /// A file of zeros is to be made for the next chunk.
    file: bool,
    /// The next chunk is to be made.
    next: bool,
    stopping: bool,
}

/// Bytes that groups have left in the page cache. The chunk goes by its slot: here must be nothing that keeps it.
#[derive(Clone, Copy)]
struct Unwritten {
    slot: u32,
    id: u64,
    from: u64,
    to: u64,
}

impl Unwritten {
    /// A piece that is worth a call.
    fn piece(&mut self) -> Option<Unwritten> {
        let block = BLOCK_BYTES as u64;
        let piece = Unwritten { from: self.from.next_multiple_of(block), to: self.to / block * block, ..*self };
        if self.to - self.from < WRITE_OUT_BYTES {
            return None;
        }
        self.from = piece.to; // the block that the log ends in will be written to again
        Some(piece)
    }
}

impl NativeEngine {
    /// Starts the thread, if it may have anything to do.
    pub(super) fn start_ahead(&self) -> Result<()> {
        if self.options.background && !self.options.read_only {
            let ahead = Arc::clone(&self.ahead);
            let (chunks, log) = (Arc::clone(&self.chunks), Arc::clone(&self.log));
            *self.ahead.thread.lock() = Some(spawn("kvbatch-ahead", move || ahead.run(&chunks, &log))?);
        }
        Ok(())
    }

    /// The log has come to byte `end` of a hot chunk.
    pub(super) fn look_ahead(&self, hot: &Arc<HotChunk>, end: u64) {
        if end < WARM_UP_BYTES || hot.ready() >= (end + LOW_BYTES).min(hot.capacity()) {
            return;
        }
        let mut state = self.ahead.state.lock();
        if state.memory.is_none() {
            state.memory = Some((Arc::clone(hot), end + AHEAD_BYTES));
            drop(state);
            self.ahead.changed.notify_one();
        }
    }

    /// A group of `len` bytes has been published: what it leaves to be done, and what the next ones will need.
    pub(super) fn go_on_beside(&self, place: &Place, len: u64) {
        let (chunk, end, prepares) = (&place.chunk, place.offset + len, self.options.prepare_chunks);
        match place.sync {
            SyncWay::ByWrite => {
                self.log.count_durable(len);
                // Whoever hears yes has claimed to make it.
                if self.options.background && prepares && self.log.is_file_due(chunk.id, end) {
                    self.ahead.ask(|state| state.file = true);
                }
            }
            SyncWay::ByFiles => self.log.count_other(),
            SyncWay::Later => {
                self.log.count_other();
                if !self.options.background {
                    return; // there is no thread
                }
                self.write_out_beside(chunk, place.offset, end);
                if prepares && self.log.note_unsynced(chunk.id, end) {
                    self.ahead.ask(|state| state.next = true);
                }
                // Where compaction hurries, every core has something to do.
                if prepares
                    && !self.compaction_hurries()
                    && let Some(wanted) = self.log.note_pages(chunk.id, end, len)
                {
                    self.ahead.ask(|state| state.pages = Some((chunk.slot, wanted)));
                }
            }
        }
    }

    /// The bytes `[from, to)` of a chunk are in the page cache.
    pub(super) fn write_out_beside(&self, chunk: &Chunk, from: u64, to: u64) {
        let sync = self.compaction_hurries();
        if !self.options.background || !sync && to - from < LARGE_GROUP_BYTES {
            return;
        }
        let mut state = self.ahead.state.lock();
        let unwritten = match state.unwritten {
            // What lies between is written out, too.
            Some(before) if before.id == chunk.id => Unwritten { to: before.to.max(to), ..before },
            _ => Unwritten { slot: chunk.slot, id: chunk.id, from, to },
        };
        state.unwritten = Some(unwritten);
        state.sync = sync;
        drop(state);
        if unwritten.to - unwritten.from >= WRITE_OUT_BYTES {
            self.ahead.changed.notify_one();
        }
    }

    /// The index will need more memory.
    pub(super) fn bring_in_beside(&self, spare: Arc<Spare>) {
        if !self.options.background {
            return; // there is no thread
        }
        let mut state = self.ahead.state.lock();
        if state.index.is_none() {
            state.index = Some(spare);
            drop(state);
            self.ahead.changed.notify_one();
        }
    }

    /// Bytes that were handed to the device early.
    pub(super) fn early_bytes(&self) -> u64 {
        self.ahead.early_bytes.load(Ordering::Relaxed)
    }

    /// Syncs that nobody has waited for.
    pub(super) fn early_syncs(&self) -> u64 {
        self.ahead.syncs.load(Ordering::Relaxed)
    }

    /// Ends the thread.
    pub(super) fn stop_ahead(&self) {
        self.ahead.state.lock().stopping = true;
        self.ahead.changed.notify_one();
        if let Some(thread) = self.ahead.thread.lock().take() {
            let _ = thread.join(); // it has nothing to tell
        }
    }
}

fn seen_in(chunks: &Chunks, slot: u32) -> Option<Seen> {
    chunks.view().get(slot as usize).cloned().flatten()
}

impl Ahead {
    /// Has the thread look at what `note` notes.
    fn ask(&self, note: impl FnOnce(&mut State)) {
        note(&mut self.state.lock());
        self.changed.notify_one();
    }

    fn run(&self, chunks: &Chunks, log: &Log) {
        let mut mark = 0;
        while self.touch_memory() {
            let mut state = self.state.lock();
            if let Some((slot, wanted)) = state.pages.take() {
                drop(state);
                if let Some(seen) = seen_in(chunks, slot) {
                    log.bring_in_pages(&seen.chunk, wanted);
                }
            } else if std::mem::take(&mut state.next) {
                drop(state);
                log.make_next();
            } else if let Some(piece) = state.unwritten.as_mut().and_then(Unwritten::piece) {
                let sync = state.sync;
                drop(state);
                if let Some(seen) = seen_in(chunks, piece.slot).filter(|seen| seen.chunk.id == piece.id) {
                    seen.chunk.file.begin_write_out(piece.from, piece.to - piece.from);
                    add(&self.early_bytes, piece.to - piece.from);
                }
                if sync {
                    let _ = log.sync_beside(&mut mark, &self.syncs); // if it fails, the log says so and takes no more
                }
            } else if let Some(spare) = state.index.clone() {
                drop(state);
                if !spare.make_one_ready() {
                    self.state.lock().index = None;
                }
            } else if std::mem::take(&mut state.file) {
                drop(state);
                log.prepare(&mut || self.touch_memory());
            } else if state.memory.is_none() && !state.stopping {
                self.changed.wait(&mut state);
            }
        }
    }

    /// Touches the memory that is wanted now. Whether to go on.
    fn touch_memory(&self) -> bool {
        let wanted = self.state.lock().memory.clone();
        if let Some((hot, end)) = wanted {
            hot.make_ready(end);
            drop(hot);
            self.state.lock().memory = None;
        }
        !self.state.lock().stopping
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
    fn pieces_are_large_and_leave_the_last_block_for_later() {
        let mut unwritten = Unwritten { slot: 1, id: 1, from: 100, to: WRITE_OUT_BYTES };
        assert!(unwritten.piece().is_none(), "too few");
        unwritten.to += 5000;
        let piece = unwritten.piece().expect("enough");
        assert_eq!((piece.from, piece.to), (4096, WRITE_OUT_BYTES + 4096));
        assert!(unwritten.from == piece.to && unwritten.piece().is_none(), "the rest waits for more");
    }

    #[test]
    fn what_large_groups_leave_is_written_out_beside() {
        let disk = SimDisk::new(1, Faults::default());
        let mut driver = Driver::open(&disk, Options { background: true, ..options(64 << 10, 64 << 10) }, [0; KEYS]).unwrap();
        driver.commit(false, &[(0, 1)]).unwrap();
        let chunk = driver.engine.chunks.by_age().pop().unwrap();
        driver.engine.write_out_beside(&chunk, 4096, 4096 + LARGE_GROUP_BYTES - 1);
        driver.engine.write_out_beside(&chunk, 1 << 20, 2 << 20);
        driver.engine.write_out_beside(&chunk, 2 << 20, 5 << 20);
        while driver.engine.early_bytes() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(driver.engine.early_bytes(), 4 << 20, "the small group was not counted");
        driver.close();
    }
}
