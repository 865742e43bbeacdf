//! Applying to the index what recovery has found good, in order; beside the reading of it, if there is much.
//!
//! `recovery` calls this. Nothing here can be wrong about the log: it can only lack memory.

use super::index::{Index, Place};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::sync::spawn_scoped;
use crate::engine::record::Kind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Records that are applied at a time, give or take a frame.
pub const BATCH_OPS: usize = 4096;

/// Batches that may wait to be applied.
const BATCHES_AHEAD: usize = 4;

/// How far ahead of its use an index line is asked for.
const PREFETCH_AHEAD: usize = 16;

/// A record that was found good.
#[derive(Clone, Copy)]
pub struct Op {
    /// Hash of its key.
    pub hash: KeyHash,
    /// Where it stands.
    pub place: Place,
    /// Put or delete.
    pub kind: Kind,
}

/// Records of one chunk, in order.
#[derive(Default)]
pub struct Batch {
    /// The chunk's slot.
    pub slot: u32,
    /// The records.
    pub ops: Vec<Op>,
}

/// What the records of a chunk come to; see `Chunk`.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Bytes of all its records.
    pub record_bytes: u64,
    /// Bytes of those that are not current. Modulo 2^64 until all is applied: a checkpoint may know a record, and what
    /// it replaces, before its chunk is counted.
    pub dead_bytes: u64,
    /// Deletes among them.
    pub tombstones: u64,
    /// Bytes of these.
    pub tombstone_bytes: u64,
}

impl Counts {
    /// Bytes of records that are current.
    pub fn live_bytes(&self) -> u64 {
        self.record_bytes.wrapping_sub(self.dead_bytes)
    }
}

/// The index, and what is counted by slot.
pub struct Applier {
    /// The index.
    pub index: Index,
    /// Counts by slot.
    pub counts: Vec<Counts>,
}

impl Applier {
    fn apply(&mut self, batch: &Batch) -> Result<()> {
        let mut sum = Counts::default();
        for (i, op) in batch.ops.iter().enumerate() {
            if let Some(ahead) = batch.ops.get(i + PREFETCH_AHEAD) {
                self.index.prefetch(&ahead.hash);
            }
            let bytes = op.place.len_at_most() as u64;
            sum.record_bytes += bytes;
            let replaced = match op.kind {
                Kind::Put => self.index.insert(&op.hash, op.place)?,
                Kind::Delete => {
                    sum.tombstones += 1;
                    sum.tombstone_bytes += bytes;
                    sum.dead_bytes += bytes;
                    self.index.remove(&op.hash)
                }
            };
            if let Some(old) = replaced {
                let dead_bytes = &mut self.slot(old.slot())?.dead_bytes;
                *dead_bytes = dead_bytes.wrapping_add(old.len_at_most() as u64);
            }
        }
        let counts = self.slot(batch.slot)?;
        counts.record_bytes += sum.record_bytes;
        counts.dead_bytes = counts.dead_bytes.wrapping_add(sum.dead_bytes);
        counts.tombstones += sum.tombstones;
        counts.tombstone_bytes += sum.tombstone_bytes;
        Ok(())
    }

    /// The counts of a slot.
    pub fn slot(&mut self, slot: u32) -> Result<&mut Counts> {
        let at = slot as usize;
        if at >= self.counts.len() {
            self.counts.try_reserve(at + 1 - self.counts.len()).map_err(|_| no_memory())?;
            self.counts.resize(at + 1, Counts::default());
        }
        Ok(&mut self.counts[at])
    }

    /// Runs `body`, which gives batches to its argument and gets an empty one back for each; all are applied when this
    /// returns. `beside`: in a thread of its own.
    pub fn run<T>(&mut self, beside: bool, body: impl FnOnce(&mut dyn FnMut(Batch) -> Result<Batch>) -> Result<T>) -> Result<T> {
        let body = match beside {
            true => match self.run_beside(body) {
                Ok(result) => return result,
                Err(body) => body, // no thread to be had: it is only slower
            },
            false => body,
        };
        body(&mut |batch| self.apply(&batch).map(|()| emptied(batch)))
    }

    fn run_beside<T, B>(&mut self, body: B) -> std::result::Result<Result<T>, B>
    where
        B: FnOnce(&mut dyn FnMut(Batch) -> Result<Batch>) -> Result<T>,
    {
        std::thread::scope(|scope| {
            let (full, to_apply) = sync_channel(BATCHES_AHEAD);
            let (empty, to_fill) = sync_channel(BATCHES_AHEAD + 2);
            let Ok(thread) = spawn_scoped("kvbatch-apply", scope, move || self.apply_all(&to_apply, &empty)) else { return Err(body) };
            let given = body(&mut |batch| {
                full.send(batch).map_err(|_| no_memory())?; // the thread says better why it ended
                Ok(to_fill.try_recv().unwrap_or_default())
            });
            drop(full);
            let applied = thread.join().unwrap_or_else(|_| Err(Error::new(Code::UNKNOWN, "internal error in recovery")));
            Ok(applied.and(given))
        })
    }

    fn apply_all(&mut self, to_apply: &Receiver<Batch>, empty: &SyncSender<Batch>) -> Result<()> {
        for batch in to_apply {
            self.apply(&batch)?;
            let _ = empty.try_send(emptied(batch)); // there is always room, and it would only be freed
        }
        Ok(())
    }
}

fn emptied(mut batch: Batch) -> Batch {
    batch.ops.clear();
    batch
}

fn no_memory() -> Error {
    Error::no_memory("no memory to recover a store with: free memory")
}
