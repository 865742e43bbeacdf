//! What an open store consists of, for `kvbatch stat`.

use super::super::NativeEngine;
use super::super::chunks::file_name;
use crate::base::error::Result;
use crate::base::sync::atomic::Ordering;

/// A store, described.
#[derive(Clone, Debug, Default)]
pub struct StoreInfo {
    /// Its identity, the same in all its files.
    pub store: [u8; 16],
    /// Keys that are current; some of them may have expired.
    pub keys: u64,
    /// The last sequence number of the log.
    pub last_seq: u64,
    /// Memory that the index takes, in bytes.
    pub index_bytes: u64,
    /// Its chunks, oldest first.
    pub chunks: Vec<ChunkInfo>,
}

/// A chunk, described.
#[derive(Clone, Debug)]
pub struct ChunkInfo {
    /// Its file.
    pub file: String,
    /// Bytes on disk.
    pub file_bytes: u64,
    /// Bytes of records in it.
    pub record_bytes: u64,
    /// Bytes of those that are current.
    pub live_bytes: u64,
    /// Deletes in it.
    pub deletes: u64,
}

impl StoreInfo {
    /// Bytes on disk.
    pub fn file_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.file_bytes).sum()
    }

    /// Bytes of records that are current.
    pub fn live_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.live_bytes).sum()
    }
}

impl NativeEngine {
    /// Describes the store as it is now.
    pub fn describe(&self) -> Result<StoreInfo> {
        self.check_open()?;
        let describe = |chunk: &super::super::chunks::Chunk| ChunkInfo {
            file: file_name(chunk.id),
            file_bytes: chunk.file.len().unwrap_or(0),
            record_bytes: chunk.record_bytes.load(Ordering::Relaxed),
            live_bytes: chunk.live_bytes(),
            deletes: chunk.tombstones.load(Ordering::Relaxed),
        };
        let chunks = self.chunks.by_age().iter().map(|chunk| describe(chunk)).collect();
        let index = self.index.read();
        let (keys, index_bytes) = (index.len() as u64, index.bytes() as u64);
        Ok(StoreInfo { store: self.log.store(), keys, last_seq: self.log.published(), index_bytes, chunks })
    }
}
