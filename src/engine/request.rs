//! What travels between a batch and an engine: plain data.

use super::codec::StoredValue;
use super::record::Kind;
use crate::base::{error::Error, few::Few, hash::KeyHash};
use std::any::Any;
use std::sync::Arc;

/// One write: an encoded record (see `record`) in one of the blocks of its batch.
#[derive(Clone, Copy, Debug)]
pub struct WriteOp {
    /// Hash of the key.
    pub hash: KeyHash,
    /// Which block holds the record.
    pub block: u32,
    /// Where in the block it starts, in bytes; a multiple of 8.
    pub offset: u32,
    /// Its length with padding, in bytes; a multiple of 8.
    pub len: u32,
    /// Put or delete, as the record says too.
    pub kind: Kind,
}

/// The writes of one batch, in order. Records that nobody names are not written (they were superseded).
pub struct Writes<'a> {
    /// Memory that holds the records. The engine may change a record's checksum, nothing else.
    pub blocks: Few<&'a mut [u8]>,
    /// The records to write; those of one block follow each other by rising offset.
    pub ops: &'a [WriteOp],
}

/// The number of what is no batch: compaction moves records under it.
pub const NO_BATCH: u64 = 0;

/// One batch of a commit group.
pub struct Commit<'a> {
    /// The batch's number in this opening of the store; numbers rise in the order of commits. `NO_BATCH`: it has none.
    pub batch_id: u64,
    /// What it writes: all or nothing. May be empty.
    pub writes: Writes<'a>,
    /// What it reads at its place in the order; resolved by `commit`, fetched by the caller afterwards.
    pub reads: &'a mut [ReadOp],
    /// Completion means stable storage.
    pub durable: bool,
    /// Set by `commit` with the places of `reads`: keeps them good until they are fetched.
    pub pin: Pin,
}

/// Keeps the places of resolved reads good, whatever is moved or removed meanwhile.
pub type Pin = Option<Arc<dyn Any + Send + Sync>>;

/// How far a read has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadState {
    /// Not looked up yet.
    #[default]
    New,
    /// Not in the store: no I/O needed.
    Absent,
    /// Perhaps there: `place` (or `pin`) says where to look.
    Located,
}

/// One read.
#[derive(Clone, Debug, Default)]
pub struct ReadOp {
    /// Hash of the key.
    pub hash: KeyHash,
    /// The operation's number in its batch; how the `Reader` knows it.
    pub op: u32,
    /// Result of the look-up.
    pub state: ReadState,
    /// Where the record is; the engine's own encoding.
    pub place: u64,
    /// Holds the record itself, where the engine keeps records in memory of their own.
    pub pin: Option<Arc<Vec<u8>>>,
}

/// Gives the keys to an engine and takes the results from it.
pub trait Reader {
    /// The key of operation `op`.
    fn key(&self, op: u32) -> &[u8];
    /// The value of `op`; the reader copies or unpacks it.
    fn found(&mut self, op: u32, value: StoredValue<'_>);
    /// `op`'s key is not in the store.
    fn missing(&mut self, op: u32);
    /// `op` could not be read.
    fn failed(&mut self, op: u32, error: Error);
}

/// How a batch wants its reads done. Never changes a result.
#[derive(Clone, Copy, Debug)]
pub struct ReadHints {
    /// Reads in flight at the most.
    pub depth: u32,
    /// Read from disk in the order of places, not of operations.
    pub sort: bool,
    /// Start reads ahead: the whole batch in flight, cache lines asked for early. Off: one at a time.
    pub prefetch: bool,
    /// Poll the device for completions where it can be polled.
    pub polling: bool,
}
