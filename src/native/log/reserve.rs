//! The reserve: a file that only takes space, so that there is some left on the day when the disk is full.
//!
//! Kept by `Log`, from the time when a store has grown so far that compaction can gain anything. Once the disk is full the
//! file goes, and the log is *full*: what puts is refused, and the space is for what makes room, deletes and compaction.
//! That ends when all of the reserve can be had again. The file is no part of the store: recovery never looks at it.

use super::{Log, LogState};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::base::sync::atomic::Ordering;
use crate::native::chunks::Chunks;
use std::fmt::Display;
use std::io;

/// The file.
pub const RESERVE_NAME: &str = "reserve.kvb";

/// A store has a reserve when its log is so many halves of a chunk long: when it begins the third chunk or so.
const LOG_HALF_CHUNKS: u64 = 3;

/// While the log is full, deletes leave this share of the reserve to compaction.
const COMPACTION_SHARE: u64 = 3;

/// What a group does, as far as space is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It puts something: not when the disk is full.
    Put,
    /// It only deletes.
    Delete,
    /// Compaction moves what is current.
    Move,
}

/// What is known of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reserve {
    /// There is a file of that name.
    pub there: bool,
    /// It has all of its bytes.
    pub whole: bool,
}

/// Whether the disk is full; a file that may not grow any more says nothing about it.
pub(super) fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl Log {
    /// Whether the disk is full, and only what makes room is written.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Whether it has become full since this was asked the last time.
    pub fn has_become_full(&self) -> bool {
        self.has_become_full.swap(false, Ordering::AcqRel)
    }

    /// Bytes that may still be written, as far as that can be told.
    pub fn free_bytes(&self) -> Option<u64> {
        self.dir.free_bytes()
    }

    /// Bytes that the reserve holds now.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Room may have been made: writes come back if it is enough.
    pub fn regain_room(&self) {
        self.try_to_regain(&mut self.state.lock());
    }

    /// Whether a group may take space now.
    pub(super) fn admit(&self, state: &mut LogState, purpose: Purpose) -> Result<()> {
        if !state.full || purpose == Purpose::Move {
            return Ok(());
        }
        self.try_to_regain(state);
        let for_compaction = self.options.reserve_bytes() / COMPACTION_SHARE;
        let enough = || self.dir.free_bytes().is_none_or(|free| free >= for_compaction);
        if !state.full || purpose == Purpose::Delete && enough() { Ok(()) } else { Err(self.refusal()) }
    }

    /// Before a chunk is begun: a store of some size has a reserve, a small one has none.
    pub(super) fn look_after_reserve(&self, state: &mut LogState, chunks: &Chunks, purpose: Purpose) -> Result<()> {
        let log_bytes = log_bytes(state, chunks);
        if state.reserve.there && (log_bytes < self.options.chunk_bytes || self.options.reserve_bytes() == 0) {
            let _ = self.dir.remove(RESERVE_NAME);
            self.set_reserve(state, Reserve::default());
        }
        if state.full || state.reserve.whole || log_bytes < self.least_log_bytes() {
            return Ok(());
        }
        match self.take_reserve(state) {
            Err(error) if is_full_disk(&error) => {
                self.turn_full(state, &error);
                if purpose == Purpose::Put { Err(self.refusal()) } else { Ok(()) }
            }
            Err(error) => {
                let text = format!("store {}: cannot make {RESERVE_NAME}: {error}; it goes on without", self.store_path);
                log::write(log::Level::Warn, "reserve", &text);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The disk is full: gives back what was kept. Whether there was anything.
    pub(super) fn release_reserve(&self, state: &mut LogState, chunks: &Chunks, cause: &dyn Display) -> bool {
        self.drop_prepared();
        let kept = state.reserve.there;
        if kept {
            let _ = self.dir.remove(RESERVE_NAME);
            let _ = self.dir.sync(); // some file systems give the space back only then
            self.set_reserve(state, Reserve::default());
        }
        if !state.full && (kept || log_bytes(state, chunks) >= self.least_log_bytes()) {
            self.turn_full(state, cause);
        }
        kept
    }

    fn turn_full(&self, state: &mut LogState, cause: &dyn Display) {
        state.full = true;
        self.full.store(true, Ordering::Release);
        self.has_become_full.store(true, Ordering::Release);
        log::write(log::Level::Warn, "reserve", &format!("{}; what was met: {cause}", self.refusal().message));
    }

    /// Ends the full state if all of the reserve can be had, and some more, or the next write would bring it back.
    fn try_to_regain(&self, state: &mut LogState) {
        let wanted = self.options.reserve_bytes() + self.options.reserve_bytes() / 4;
        if !state.full {
            return;
        }
        self.drop_prepared(); // compaction may have kept files before it saw that the disk is full
        if self.dir.free_bytes().is_some_and(|free| free < wanted) {
            return;
        }
        match self.take_reserve(state) {
            Err(error) if is_full_disk(&error) => {}
            _ => {
                state.full = false;
                self.full.store(false, Ordering::Release);
                log::write(log::Level::Info, "reserve", &format!("store {}: there is room again, puts are taken", self.store_path));
            }
        }
    }

    fn take_reserve(&self, state: &mut LogState) -> io::Result<()> {
        let bytes = self.options.reserve_bytes();
        let file = match self.dir.create(RESERVE_NAME) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let old = self.dir.open(RESERVE_NAME)?;
                if old.len()? == bytes {
                    old
                } else {
                    drop(old);
                    self.dir.remove(RESERVE_NAME)?;
                    self.dir.create(RESERVE_NAME)?
                }
            }
            other => other?,
        };
        if let Err(error) = file.allocate(bytes) {
            drop(file);
            let _ = self.dir.remove(RESERVE_NAME);
            return Err(error);
        }
        // Not synced: should a crash take it, the next opening makes it anew.
        self.set_reserve(state, Reserve { there: true, whole: true });
        Ok(())
    }

    fn set_reserve(&self, state: &mut LogState, reserve: Reserve) {
        state.reserve = reserve;
        self.reserved.store(if reserve.whole { self.options.reserve_bytes() } else { 0 }, Ordering::Relaxed);
    }

    /// The length of log from which on there is a reserve.
    fn least_log_bytes(&self) -> u64 {
        match self.options.reserve_bytes() {
            0 => u64::MAX,
            _ => self.options.chunk_bytes / 2 * LOG_HALF_CHUNKS,
        }
    }

    fn refusal(&self) -> Error {
        let bytes = self.options.reserve_bytes() + self.options.reserve_bytes() / 4;
        let text = format!(
            "the disk is full: delete keys or free some space, until {bytes} bytes are free only batches that put nothing are taken \
             (store {})",
            self.store_path
        );
        Error::new(Code::DISK_FULL, text)
    }
}

/// Bytes of log in all chunks.
fn log_bytes(state: &LogState, chunks: &Chunks) -> u64 {
    let sealed: u64 = chunks.view().iter().flatten().filter_map(|seen| seen.chunk.end()).map(|end| end.valid_bytes).sum();
    sealed + state.active.as_ref().map_or(0, |active| active.next)
}
