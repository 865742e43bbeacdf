//! The compactor: the thread that compacts and writes checkpoints in the background, at a pace that leaves the disk to
//! commits.
//!
//! It sleeps until a chunk was begun: only then is there something new to look at.

use super::NativeEngine;
use crate::base::code::Code;
use crate::base::error::Result;
use crate::base::log;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, Condvar, Mutex, spawn};
use std::sync::Weak;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// See the top of this file.
#[derive(Default)]
pub(super) struct Compactor {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Chunks begun when it was last woken.
    chunks_seen: AtomicU64,
}

#[derive(Default)]
struct State {
    wanted: bool,
    stopping: bool,
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
        let idle = self.options.min_fill_percent == 0 && self.options.checkpoint_log_bytes == 0;
        if idle || !self.options.background {
            return Ok(());
        }
        let engine = Arc::downgrade(self);
        let compactor = Arc::clone(&self.compactor);
        *self.compactor.thread.lock() = Some(spawn("kvbatch-compact", move || compactor.run(&engine))?);
        Ok(())
    }

    /// Wakes the compactor if a chunk was begun since it was last woken.
    pub(super) fn wake_compactor(&self) {
        let begun = self.counters.chunks_created.load(Ordering::Relaxed);
        if begun != self.compactor.chunks_seen.load(Ordering::Relaxed) {
            self.compactor.chunks_seen.store(begun, Ordering::Relaxed);
            self.compactor.state.lock().wanted = true;
            self.compactor.changed.notify_one();
        }
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

    /// Pauses after a group of `bytes`, which began at `pace.last`: as the rate asks, and as long again as the group took
    /// if commits were waiting beside it.
    pub(super) fn keep_pace(&self, pace: &mut Pace, bytes: u64) {
        let took = pace.last.elapsed();
        let groups = self.counters.groups.load(Ordering::Relaxed);
        let others_commit = groups > pace.groups_seen + 1;
        let courtesy = if others_commit { took } else { Duration::ZERO };
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

impl Compactor {
    fn run(&self, engine: &Weak<NativeEngine>) {
        loop {
            {
                let mut state = self.state.lock();
                while !state.wanted && !state.stopping {
                    self.changed.wait(&mut state);
                }
                if state.stopping {
                    return;
                }
                state.wanted = false;
            }
            let Some(engine) = engine.upgrade() else { return };
            loop {
                engine.checkpoint_if_due();
                if engine.options.min_fill_percent == 0 {
                    break;
                }
                match engine.compact_once(engine.options.min_fill_percent) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        if error.code != Code::INVALID_STATE {
                            log::write(log::Level::Warn, "compact", &error.message);
                        }
                        break; // the next chunk brings the next try
                    }
                }
            }
        }
    }
}
