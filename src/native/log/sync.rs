//! Syncs: what of the log is on stable storage, and how it comes there.
//!
//! Called by `settle` for groups that ask for it, and for all that was written before by whoever needs it there: a sync that was
//! asked for, compaction, checkpoints. A sync has its place in the log like a group. After one that failed nothing is written
//! any more, and it is never tried again.

use super::{Log, LogState, poisoned};
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::engine::counters::add;
use crate::native::chunks::{Chunk, file_name};

impl Log {
    /// A sync takes its place in the log, behind the record whose number it returns: the next frame begins on a fresh block.
    pub fn stage_sync(&self) -> u64 {
        let mut state = self.state.lock();
        state.fresh_block = true;
        state.last_given
    }

    /// Syncs what had been written before `mark`, if all of that is published by now, and stages the next such sync: `mark` is
    /// where. Whether it did. Nobody waits for these syncs; one that somebody waits for has less to do behind them.
    pub fn sync_beside(&self, mark: &mut u64, syncs: &AtomicU64) -> Result<bool> {
        if self.published() < *mark {
            return Ok(false);
        }
        self.sync_files(*mark, syncs)?;
        *mark = self.stage_sync();
        Ok(true)
    }

    /// Syncs every file with unsynced bytes; after that everything up to `seq` is durable. What comes behind `seq` must
    /// have been staged behind the sync, or it may share a block with what is durable now. `syncs` counts the files.
    pub fn sync_files(&self, seq: u64, syncs: &AtomicU64) -> Result<()> {
        let _one_at_a_time = self.syncing.lock();
        let files: Vec<_> = {
            let state = self.state.lock();
            state.check_poison()?;
            state.unsynced.iter().map(|(chunk, _)| Arc::clone(chunk)).collect()
        };
        for chunk in files {
            add(syncs, 1);
            if let Err(error) = chunk.file.sync().or_else(|e| if planted(Bug::RetryFailedSync) { chunk.file.sync() } else { Err(e) }) {
                let mut state = self.state.lock();
                // A failed write may have taken the file out of the store meanwhile: then this says nothing about the others.
                if state.unsynced.iter().all(|(other, _)| other.id != chunk.id) {
                    continue;
                }
                // The kernel may have dropped the pages and will say success the next time: never again.
                let what = Error::from_io(format_args!("store {}: syncing {} failed", self.store_path, file_name(chunk.id)), &error);
                let poison = poisoned(&what.message);
                state.poison = Some(poison.clone());
                drop(state);
                log::write(log::Level::Fatal, "sync", &poison.message);
                return Err(poison);
            }
        }
        let mut state = self.state.lock();
        state.unsynced.retain(|(_, last)| *last > seq);
        self.durable.fetch_max(seq, Ordering::Release);
        Ok(())
    }

    /// The last sequence number that is on stable storage.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Whether published data is not durable yet.
    pub fn is_unsynced(&self) -> bool {
        self.published.load(Ordering::Acquire) > self.durable.load(Ordering::Acquire)
    }
}

impl LogState {
    /// Bytes up to `seq` go to this chunk, and no sync covers them yet.
    pub(super) fn mark_unsynced(&mut self, chunk: &Arc<Chunk>, seq: u64) {
        match self.unsynced.iter_mut().find(|(other, _)| other.id == chunk.id) {
            Some((_, last)) => *last = seq,
            None => self.unsynced.push((Arc::clone(chunk), seq)),
        }
    }
}
