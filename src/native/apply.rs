//! Applying to the index what recovery has found good, in order; beside the reading of it, if there is much.
//!
//! `recovery` calls this. Nothing here can be wrong about the log: it can only lack memory.

use super::index::{Index, Place};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::sync::{Condvar, Mutex, spawn_scoped};
use crate::engine::record::Kind;
use std::collections::VecDeque;

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
        let relay = Relay::default();
        std::thread::scope(|scope| {
            let Ok(thread) = spawn_scoped("kvbatch-apply", scope, || self.apply_all(&relay)) else { return Err(body) };
            let all_given = EndOnDrop(&relay);
            let given = body(&mut |batch| relay.give(batch));
            drop(all_given);
            let applied = thread.join().unwrap_or_else(|_| Err(Error::new(Code::UNKNOWN, "internal error in recovery")));
            Ok(applied.and(given))
        })
    }

    fn apply_all(&mut self, relay: &Relay) -> Result<()> {
        let _nobody_applies = EndOnDrop(relay);
        while let Some(batch) = relay.take() {
            self.apply(&batch)?;
            relay.hand_back(emptied(batch));
        }
        Ok(())
    }
}

/// Hands batches from the thread that reads to the one that applies, and their memory back. Not std's channel: a part of that is
/// compiled into std, where no sanitizer sees the order that it keeps.
#[derive(Default)]
struct Relay {
    state: Mutex<Relayed>,
    changed: Condvar,
}

#[derive(Default)]
struct Relayed {
    full: VecDeque<Batch>,
    empty: Vec<Batch>,
    ended: bool,
}

impl Relay {
    /// Gives a batch on, when there is room, and an empty one back.
    fn give(&self, batch: Batch) -> Result<Batch> {
        let mut state = self.state.lock();
        while state.full.len() >= BATCHES_AHEAD && !state.ended {
            self.changed.wait(&mut state);
        }
        if state.ended {
            return Err(no_memory()); // the other thread says better why it ended
        }
        state.full.push_back(batch);
        self.changed.notify_one();
        Ok(state.empty.pop().unwrap_or_default())
    }

    /// The next batch to apply; none when all are.
    fn take(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        while state.full.is_empty() && !state.ended {
            self.changed.wait(&mut state);
        }
        let batch = state.full.pop_front();
        self.changed.notify_one();
        batch
    }

    fn hand_back(&self, empty: Batch) {
        self.state.lock().empty.push(empty);
    }
}

/// Tells the other side that nothing more comes, or is taken, also when its own side ends by a panic.
struct EndOnDrop<'a>(&'a Relay);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_one();
    }
}

fn emptied(mut batch: Batch) -> Batch {
    batch.ops.clear();
    batch
}

fn no_memory() -> Error {
    Error::no_memory("no memory to recover a store with: free memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::KeyHasher;

    const BATCHES: u32 = 40;

    fn applier() -> Applier {
        Applier { index: Index::new().expect("an index"), counts: Vec::new() }
    }

    /// Puts of which each second one is replaced by a later batch.
    fn batch(mut memory: Batch, number: u32, hasher: &KeyHasher) -> Batch {
        assert!(memory.ops.is_empty(), "what is handed back is empty");
        memory.slot = number % 3;
        memory.ops.extend((0..100u64).map(|i| {
            let key = (u64::from(number) * 50 + i).to_le_bytes();
            Op { hash: hasher.hash(&key), place: Place::new(memory.slot, i * 64, 40), kind: Kind::Put }
        }));
        memory
    }

    #[test]
    fn beside_the_reading_comes_to_the_same() {
        let hasher = KeyHasher::new([1, 2]);
        let count = |beside| {
            let mut applier = applier();
            let given = applier.run(beside, |apply| {
                let mut memory = Batch::default();
                for number in 0..BATCHES {
                    memory = apply(batch(memory, number, &hasher))?;
                }
                Ok(memory.ops.len())
            });
            assert_eq!(given.expect("all applied"), 0);
            let counts: Vec<_> = applier.counts.iter().map(|c| (c.record_bytes, c.dead_bytes)).collect();
            (applier.index.len(), counts)
        };
        let alone = count(false);
        assert_eq!(alone.0, 50 * BATCHES as usize + 50);
        assert_eq!(count(true), alone);
    }

    #[test]
    fn an_error_of_the_reading_ends_both() {
        let hasher = KeyHasher::new([1, 2]);
        let ended = applier().run(true, |apply| {
            apply(batch(Batch::default(), 0, &hasher))?;
            Err::<(), _>(Error::new(Code::IO, "planted"))
        });
        assert_eq!(ended.expect_err("the reading failed").code, Code::IO);
    }

    #[test]
    fn the_reading_ends_when_nobody_applies() {
        let relay = Relay::default();
        drop(EndOnDrop(&relay));
        assert_eq!(relay.give(Batch::default()).err().map(|e| e.code), Some(no_memory().code));
    }
}
