//! Checkpoints: copies of the index on disk, so that opening need not go through the whole log.
//!
//! A checkpoint is a cache of the log, never more: it is read by `recovery` only, and whatever is doubtful about one
//! leads to the older one, and from there to the whole log. It must never keep a writer waiting for long, and never be
//! the only copy of anything. `write` makes them, `load` reads them, `file` knows the bytes.
//!
//! docs/FORMAT.md draws the file.
//!
//! # What it says
//!
//! The copy is fuzzy: commits go on while segments are copied one by one. All that lies before `start` is in the entries,
//! nothing behind `end` is; in between, some is and some is not. Replaying the log from `start` makes all of it right,
//! for each record there is put or removed again, in order. Record bytes and deletes of a chunk are counted up to
//! `start`, and by the replay from there on. The log was on stable storage up to `end` before the footer was written. So
//! a good footer also proves what the log must hold: if a log ends before it, acknowledged data is gone, and the store
//! is refused, as for the watermark of a frame. (Then the error is the log's, and the checkpoint its witness.)
//!
//! An entry may name a chunk that was removed since. Whatever was current in that chunk was moved behind `start` before
//! it was removed, and the replay puts it there; an entry that still names it afterwards is of a key that was deleted,
//! its delete forgotten with the last chunk that could hold an older record. It goes, as it is not in the log either.

pub(super) mod file;
mod load;
mod write;

pub use load::Checkpoint;

use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::native::names::{number_in, numbered};

/// The file name of a checkpoint.
pub fn file_name(number: u64) -> String {
    numbered("index", number)
}

/// The number in a checkpoint's file name, if it is one.
pub fn number_of(name: &str) -> Option<u64> {
    number_in("index", name)
}

/// The checkpoints that an open store has.
pub struct Checkpoints {
    files: Mutex<Files>,
    /// Bytes of log that opening had to go through.
    replayed: u64,
    /// What the counter of log bytes said when the last checkpoint was begun; `NEVER` before the first.
    counted: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// What recovery has found.
#[derive(Default)]
pub struct Files {
    /// First number that was never used.
    pub next: u64,
    /// The newest that is known to be good.
    pub good: Option<u64>,
    /// All others of this store.
    pub others: Vec<u64>,
}

impl Checkpoints {
    /// As recovery has left them.
    pub fn new(files: Files, replayed: u64) -> Checkpoints {
        Checkpoints { files: Mutex::new(files), replayed, counted: AtomicU64::new(NEVER) }
    }

    /// Bytes of log that are in no checkpoint; `log_bytes` is the counter of this process.
    pub fn uncovered(&self, log_bytes: u64) -> u64 {
        match self.counted.load(Ordering::Relaxed) {
            NEVER => self.replayed + log_bytes,
            counted => log_bytes.saturating_sub(counted),
        }
    }

    /// A checkpoint was begun, or given up: the next one comes when there is as much log again.
    fn begun(&self, log_bytes: u64) {
        self.counted.store(log_bytes, Ordering::Relaxed);
    }
}
