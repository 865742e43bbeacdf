//! Compaction on request: each chunk that is there and mostly dead, once, with a word about how far it has come.

use super::super::NativeEngine;
use super::super::chunks::Chunk;
use super::super::compaction::fill;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;

/// What `compact` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Chunks that were filled little enough.
    pub wanted: u64,
    /// Those that are done with: gone, or damaged and kept.
    pub done: u64,
}

impl NativeEngine {
    /// Rewrites the chunks that are there now and filled to `min_fill_percent` or less, the emptiest first.
    ///
    /// `go_on` is told how many bytes of them are done, of how many, about once per MiB moved. When it says no the rest
    /// stays: what was moved by then counts, and nothing is lost.
    pub fn compact(&self, min_fill_percent: u64, go_on: &mut dyn FnMut(u64, u64) -> bool) -> Result<CompactReport> {
        self.check_open()?;
        self.check_writable()?;
        let mut wanted: Vec<(u64, u64, u64)> = Vec::new();
        for chunk in self.chunks.by_age() {
            if let Some(end) = chunk.end().filter(|_| fill(&chunk) <= min_fill_percent) {
                wanted.push((fill(&chunk), chunk.id, end.valid_bytes));
            }
        }
        wanted.sort_unstable();
        let total = wanted.iter().map(|(_, _, bytes)| bytes).sum();
        let mut report = CompactReport { wanted: wanted.len() as u64, done: 0 };
        let mut passed = 0;
        for (_, id, bytes) in wanted {
            if !go_on(passed, total) {
                return Ok(report);
            }
            let mut stopped = false;
            self.compact_if_there(id, &mut |reached| {
                stopped = !go_on(passed + reached.min(bytes), total);
                !stopped
            })?;
            if stopped {
                return Ok(report);
            }
            report.done += 1;
            passed += bytes;
        }
        go_on(total, total);
        Ok(report)
    }

    /// The background may have been faster, and what is damaged stays.
    fn compact_if_there(&self, id: u64, go_on: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let _one_at_a_time = self.compacting.lock();
        self.check_open()?;
        let is_victim = |chunk: &Arc<Chunk>| {
            let is_settled = chunk.end().is_some_and(|end| end.last_seq <= self.log.published());
            chunk.id == id && is_settled && !chunk.damaged.load(Ordering::Relaxed)
        };
        match self.chunks.by_age().into_iter().find(is_victim) {
            Some(victim) => self.compact_chunk(&victim, go_on),
            None => Ok(()),
        }
    }
}
