//! The thread that makes ready what commits will need next: memory of the hot log and of the index, touched before it is
//! written to, and the file of the next chunk (see `log/prepared.rs`).
//!
//! It also moves memory of the hot log that is read a lot to large pages: a read at random then has one page to be looked
//! up instead of, on virtual machines, a whole tree of them. It makes a copy and has readers and commits find that one. The
//! kernel can do so, too, in place (`MADV_COLLAPSE`), but whoever reads meanwhile waits for milliseconds.
//!
//! The first touch of a page costs a trap into the kernel, on virtual machines of some microseconds, and a commit would
//! pay for one every thirty records. It works only while commits go on, some megabytes ahead of them; what it has not
//! done in time, the commit does itself.

use super::NativeEngine;
use super::chunks::{Chunks, Seen, View};
use super::hot::HotChunk;
use super::index::Spare;
use super::log::Log;
use crate::base::error::Result;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Condvar, JoinHandle, Mutex, spawn};

/// Memory is made ready this far ahead, in bytes.
const AHEAD_BYTES: u64 = 16 << 20;

/// More is made ready when this much, in bytes, is left.
const LOW_BYTES: u64 = 8 << 20;

/// A chunk that has not taken so many bytes is not worth the trouble.
const WARM_UP_BYTES: u64 = 1 << 20;

/// Each time so many records were read from the hot log, what is new there is moved to large pages.
const READS_FOR_LARGE_PAGES: u64 = 128 << 10;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    /// Records read from the hot log.
    hot_reads: AtomicU64,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// Memory to touch, up to this byte.
    memory: Option<(Arc<HotChunk>, u64)>,
    /// Memory of the index to bring in.
    index: Option<Arc<Spare>>,
    /// Slots of chunks that are read a lot.
    much_read: Vec<u32>,
    /// The next chunk's file is to be made.
    file: bool,
    stopping: bool,
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

    /// The file of the next chunk is wanted, and whoever calls has claimed to make it.
    pub(super) fn prepare_beside(&self) {
        self.ahead.state.lock().file = true;
        self.ahead.changed.notify_one();
    }

    /// So many records were read from the hot log of these chunks.
    #[inline]
    pub(super) fn note_hot_reads(&self, reads: u64, view: &View) {
        let before = self.ahead.hot_reads.fetch_add(reads, Ordering::Relaxed);
        if before / READS_FOR_LARGE_PAGES != (before + reads) / READS_FOR_LARGE_PAGES {
            self.ask_for_large_pages(view);
        }
    }

    #[cold]
    fn ask_for_large_pages(&self, view: &View) {
        if !self.options.background || self.options.read_only {
            return; // there is no thread
        }
        let mut state = self.ahead.state.lock();
        if state.much_read.is_empty() {
            state.much_read.extend(view.iter().flatten().filter(|seen| may_move(seen)).map(|seen| seen.chunk.slot));
            let is_idle = state.much_read.is_empty();
            drop(state);
            if !is_idle {
                self.ahead.changed.notify_one();
            }
        }
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

impl Ahead {
    fn run(&self, chunks: &Chunks, log: &Log) {
        while self.touch_memory() {
            let mut state = self.state.lock();
            if let Some(spare) = state.index.clone() {
                drop(state);
                if !spare.make_one_ready() {
                    self.state.lock().index = None;
                }
            } else if std::mem::take(&mut state.file) {
                drop(state);
                log.prepare(&mut || self.touch_memory());
            } else if let Some(slot) = state.much_read.pop() {
                drop(state);
                self.move_to_large_pages(chunks, log, slot);
            } else if state.memory.is_none() && !state.stopping {
                self.changed.wait(&mut state);
            }
        }
        self.state.lock().much_read.clear();
    }

    fn move_to_large_pages(&self, chunks: &Chunks, log: &Log, slot: u32) {
        let seen = chunks.view().get(slot as usize).cloned().flatten().filter(may_move);
        if let Some((seen, hot)) = seen.and_then(|seen| seen.hot.clone().map(|hot| (seen, hot)))
            && let Some(copy) = hot.move_to_large_pages(&mut || self.touch_memory())
        {
            log.exchange_hot(&hot, &copy);
            let _ = chunks.exchange_hot(&seen, copy); // without memory for the table, reads find what was there before
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

fn may_move(seen: &Seen) -> bool {
    seen.hot.as_ref().is_some_and(|hot| hot.may_move())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::io::sim::{Faults, SimDisk};
    use crate::native::tests::driver::{Driver, read};
    use crate::native::tests::model::KEYS;
    use crate::native::tests::workload::options;

    #[test]
    fn what_is_read_much_moves_to_large_pages() {
        let disk = SimDisk::new(1, Faults::default());
        let chunk_bytes = 64 << 10;
        let running = crate::native::Options { background: true, ..options(chunk_bytes, 16 * chunk_bytes) };
        let mut driver = Driver::open(&disk, running, [0; KEYS]).unwrap();
        let hot =
            |driver: &Driver| driver.engine.chunks.view().iter().flatten().filter(|seen| seen.hot.is_some()).cloned().collect::<Vec<_>>();
        let mut version = 0;
        let mut write = |driver: &mut Driver| {
            version += 1;
            driver.commit(false, &std::array::from_fn::<_, KEYS, _>(|key| (key, version))).unwrap();
            version
        };
        while hot(&driver).len() < 3 {
            write(&mut driver);
        }
        let keys: Vec<usize> = (0..KEYS).collect();
        while hot(&driver).iter().any(may_move) {
            let version = write(&mut driver);
            for _ in 0..100 {
                assert!(read(&driver.engine, &keys).into_iter().all(|found| found == Ok(version)));
            }
        }
        let reads = driver.engine.counters().hot_reads;
        let version = write(&mut driver);
        assert!(read(&driver.engine, &keys).into_iter().all(|found| found == Ok(version)));
        assert_eq!(driver.engine.counters().hot_reads, reads + KEYS as u64, "what moved is still found in memory");
        driver.close();
    }
}
