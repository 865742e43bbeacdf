//! Filling a store: records in, commit groups out. Used by salvage and by whoever loads a dump.

use super::super::NativeEngine;
use super::super::frame::Salt;
use crate::base::error::{Error, Result};
use crate::base::few::Few;
use crate::base::sync::Arc;
use crate::engine::record::{Record, salt_sum};
use crate::engine::{Commit, Engine, WriteOp, Writes};

/// Bytes of records that are committed together.
const GROUP_BYTES: usize = 1 << 20;

/// See the top of this file. What was not finished may be missing from the store.
pub struct Loader {
    engine: Arc<NativeEngine>,
    bytes: Vec<u8>,
    ops: Vec<WriteOp>,
    /// Records taken so far.
    pub records: u64,
}

impl Loader {
    /// Loads into `engine`.
    pub fn new(engine: Arc<NativeEngine>) -> Loader {
        Loader { engine, bytes: Vec::new(), ops: Vec::new(), records: 0 }
    }

    /// Takes a record.
    pub fn add(&mut self, record: &Record<'_>) -> Result<()> {
        let len = record.encoded_len();
        record.encode(self.room(len)?);
        self.note(record, len)
    }

    /// Takes a record as it stands in a file, under `salt` at `offset`.
    pub(super) fn copy(&mut self, record: &Record<'_>, bytes: &[u8], salt: Salt, offset: u64) -> Result<()> {
        let room = self.room(bytes.len())?;
        room.copy_from_slice(bytes);
        salt_sum(room, salt.at(offset));
        self.note(record, bytes.len())
    }

    /// Commits what is left, and puts all of it on stable storage.
    pub fn finish(&mut self) -> Result<()> {
        self.commit()?;
        self.engine.sync()
    }

    fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        let start = self.bytes.len();
        self.bytes.try_reserve(len).map_err(|_| Error::no_memory("no memory to load with: free memory"))?;
        self.bytes.resize(start + len, 0);
        Ok(&mut self.bytes[start..])
    }

    fn note(&mut self, record: &Record<'_>, len: usize) -> Result<()> {
        let offset = (self.bytes.len() - len) as u32;
        self.ops.push(WriteOp { hash: self.engine.hasher().hash(record.key), block: 0, offset, len: len as u32, kind: record.kind });
        self.records += 1;
        if self.bytes.len() >= GROUP_BYTES { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<()> {
        if self.ops.is_empty() {
            return Ok(());
        }
        let writes = Writes { blocks: Few::one(self.bytes.as_mut_slice()), ops: &self.ops };
        let mut group = [Commit { batch_id: 0, writes, reads: &mut [], durable: false, pin: None }];
        self.engine.commit(self.engine.turn(), &mut group, &mut |_| false)?;
        self.bytes.clear();
        self.ops.clear();
        Ok(())
    }
}
