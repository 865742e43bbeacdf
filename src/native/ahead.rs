//! The thread that makes ready what commits will need next: memory of the hot log and of the index, touched before it is
//! written to, and the file of the next chunk (see `log/prepared.rs`).
//!
//! The first touch of a page costs a trap into the kernel, on virtual machines of some microseconds, and a commit would
//! pay for one every thirty records. It works only while commits go on, some megabytes ahead of them; what it has not
//! done in time, the commit does itself.

use super::NativeEngine;
use super::hot::HotChunk;
use super::index::Spare;
use super::log::Log;
use crate::base::error::Result;
use crate::base::sync::{Arc, Condvar, JoinHandle, Mutex, spawn};

/// Memory is made ready this far ahead, in bytes.
const AHEAD_BYTES: u64 = 16 << 20;

/// More is made ready when this much, in bytes, is left.
const LOW_BYTES: u64 = 8 << 20;

/// A chunk that has not taken so many bytes is not worth the trouble.
const WARM_UP_BYTES: u64 = 1 << 20;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    /// Memory to touch, up to this byte.
    memory: Option<(Arc<HotChunk>, u64)>,
    /// Memory of the index to bring in.
    index: Option<Arc<Spare>>,
    /// The next chunk's file is to be made.
    file: bool,
    stopping: bool,
}

impl NativeEngine {
    /// Starts the thread, if it may have anything to do.
    pub(super) fn start_ahead(&self) -> Result<()> {
        if self.options.background && !self.options.read_only {
            let ahead = Arc::clone(&self.ahead);
            let log = Arc::clone(&self.log);
            *self.ahead.thread.lock() = Some(spawn("kvbatch-ahead", move || ahead.run(&log))?);
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
    fn run(&self, log: &Log) {
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
