//! Frames without records, which say something of the log and are no part of it: beat and close.
//!
//! `commit` writes beats in the order of turns, like groups; closing comes last of all.

use super::{Log, LogState, Place, SyncWay};
use crate::base::error::{Error, Result};
use crate::base::limits::BLOCK_BYTES;
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::io::write_all_at;
use crate::native::chunks::{Chunk, file_name};
use crate::native::frame::{Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind};
use std::io::IoSlice;

impl Log {
    /// Whether durable data is there that no watermark in the log proves to be so.
    pub fn wants_beat(&self) -> bool {
        self.durable.load(Ordering::Relaxed) > self.witnessed.load(Ordering::Relaxed)
    }

    /// Gives a beat its place, with its bytes: a frame that says how far the log is durable. `None`: there is nothing to
    /// be said, or not yet.
    pub fn stage_beat(&self) -> Result<Option<(Place, [u8; FRAME_HEADER_LEN])>> {
        let mut state = self.state.lock();
        state.check_poison()?;
        if !self.wants_beat() || !state.unsynced.is_empty() {
            return Ok(None);
        }
        let Some((chunk, offset, frame)) = self.remark(&state, FrameKind::Beat) else { return Ok(None) };
        if let Some(active) = &mut state.active {
            active.next = offset + frame.len() as u64;
        }
        state.fresh_block = true;
        let (last_seq, before) = (state.last_given, state.end);
        let watermark = self.durable.load(Ordering::Acquire);
        self.witnessed.store(watermark, Ordering::Relaxed);
        let place = Place {
            chunk,
            hot: None,
            offset,
            first_seq: last_seq + 1,
            last_seq,
            watermark,
            digest_before: before.digest,
            before,
            generation: state.generation,
            sync: SyncWay::ByWrite,
            lacks_only_zeros: false,
        };
        Ok(Some((place, frame)))
    }

    /// Ends the log with a frame that says so. Everything is durable.
    pub fn close(&self) -> Result<()> {
        self.drop_prepared();
        self.drop_next();
        let state = self.state.lock();
        let Some((chunk, offset, frame)) = self.remark(&state, FrameKind::Close) else { return Ok(()) };
        write_all_at(&*chunk.file, &mut [IoSlice::new(&frame)], offset, true)
            .map(|_| drop(chunk.file.set_len(offset + frame.len() as u64))) // nobody misses what may lie behind it
            .map_err(|e| Error::from_io(format_args!("store {}: closing {}", self.store_path, file_name(chunk.id)), &e))
    }

    /// A frame without records, and its place behind all others; `None` if there is no frame yet in the active chunk.
    fn remark(&self, state: &LogState, kind: FrameKind) -> Option<(Arc<Chunk>, u64, [u8; FRAME_HEADER_LEN])> {
        let active = state.active.as_ref().filter(|active| active.chunk.id == state.end.chunk)?;
        let offset = active.next.next_multiple_of(BLOCK_BYTES as u64);
        let (first_seq, digest_before) = (state.last_given + 1, state.end.digest);
        let frame = FrameHeader {
            kind,
            first_seq,
            watermark: self.durable.load(Ordering::Acquire),
            payload_len: 0,
            records: 0,
            batches: 0,
            digest_before,
            digest: Digest::new(digest_before).finish(kind, first_seq, 0),
        };
        Some((Arc::clone(&active.chunk), offset, frame.encode(active.chunk.salt, offset)))
    }
}
