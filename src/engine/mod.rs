//! Rank 1: the contract between batches and stores.
//!
//! The batch layer calls down through `Engine`; an engine never calls up. Results come back by value, or through
//! the `Reader` that was handed down. The order of commits is fixed by `Turn`s, which are drawn before the work
//! starts and used up exactly once, by type.

pub mod codec;
mod codes;
pub mod counters;
pub mod dense;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod outcome;
pub mod record;
pub mod request;
#[cfg(test)]
mod tests;
pub mod train;
pub mod turn;
#[cfg(feature = "zstd")]
pub mod zstd;

pub use codec::{Codec, StoredValue};
pub use counters::{Counters, IoReport};
pub use outcome::{BatchId, BatchOutcome};
pub use request::{Commit, NO_BATCH, Pin, ReadHints, ReadOp, ReadState, Reader, WriteOp, Writes};
pub use turn::{Turn, Turnstile};

use crate::base::{
    code::Code,
    error::{Error, Result},
    hash::KeyHasher,
};
use std::path::Path;

/// A store of keys and values. All calls may come from any thread at any time.
pub trait Engine: Send + Sync {
    /// How messages name this store.
    fn name(&self) -> &str;

    /// The keyed hash under which this engine knows keys. All hashes in requests come from it.
    fn hasher(&self) -> KeyHasher;

    /// Takes the next place in the commit order. Never blocks for long, does no I/O.
    fn turn(&self) -> Turn;

    /// Commits the batches of `group`, in their order, at the place `turn`.
    ///
    /// Each batch is all or nothing, also after a crash. When this returns `Ok`, every write of the group is visible
    /// to all later `resolve` calls, became so at once, and, if any member asked for it, is on stable storage.
    /// The reads of a member are resolved at its place: after all that was committed before it, before its own writes.
    /// An error concerns the whole group: nothing of it is visible, and nothing of it will turn up later unless
    /// the error says that it is in doubt.
    ///
    /// `retry` is asked after a transient error that had no effect yet: it pauses and says whether to try again. The
    /// group keeps its place meanwhile: groups behind it wait.
    fn commit(&self, turn: Turn, group: &mut [Commit<'_>], retry: &mut dyn FnMut(&Error) -> bool) -> Result<()>;

    /// Looks up the places of `reads`, all at one moment between two commits. No I/O. The places are good as long as the
    /// pin lives.
    fn resolve(&self, reads: &mut [ReadOp]) -> Pin;

    /// Fetches what `resolve` or `commit` found under `pin` and hands each result to `reader`, exactly once per operation.
    fn fetch(&self, pin: &Pin, reads: &mut [ReadOp], reader: &mut dyn Reader, hints: &ReadHints);

    /// Puts everything that was committed before this call on stable storage.
    fn sync(&self) -> Result<()>;

    /// Names this opening of the store: the first part of the ids of all batches that are committed in it.
    fn opening(&self) -> u64;

    /// What became of a batch, of this opening or of an earlier one.
    fn batch_outcome(&self, id: BatchId) -> BatchOutcome;

    /// Copies the store, as it is between two commits, into directory `to`, which is empty or not there yet.
    fn backup_to(&self, _to: &Path) -> Result<()> {
        let text = format!("store {}: there are no files to copy: only a store in a directory has backups", self.name());
        Err(Error::new(Code::NOT_SUPPORTED, text))
    }

    /// Whether something committed is not yet on stable storage.
    fn unsynced(&self) -> bool;

    /// What the engine has counted since it was opened.
    fn counters(&self) -> Counters;

    /// How reads and writes reach the disk, and why that way.
    fn io_report(&self) -> IoReport;

    /// Syncs and lets go of all files. Later calls fail with `INVALID_STATE`. Idempotent.
    fn close(&self) -> Result<()>;
}
