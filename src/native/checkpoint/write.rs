//! Writing a checkpoint: in the compactor's thread, when a store is closed, or when asked.
//!
//! Only one is written at a time, and no chunk is removed meanwhile: a slot that an entry names must mean the same chunk
//! from the first segment to the last. What fails here fails alone: the log has everything.

use super::file::{self, BLOCK_HEAD_LEN, HEAD_LEN, Head, MARKS, Slot, Tail};
use super::load::Checkpoint;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::engine::counters::add;
use crate::io::{File, write_all_at};
use crate::native::NativeEngine;
use crate::native::compactor::Pace;
use crate::native::frame::{LogEnd, Salt};
use crate::native::index::{ENTRY_LEN, SEGMENTS};
use std::io::IoSlice;

/// Bytes that are written at a time, and synced: a commit beside it never waits for more than these.
const PIECE_BYTES: usize = 4 << 20;

/// When a store is closed, less log than this is left to be replayed.
const CLOSE_LOG_BYTES: u64 = 16 << 20;

/// While the store is in use, there is at least so much log for each byte of checkpoints.
const LOG_PER_BYTE: u64 = 4;

/// Where the log stood when a checkpoint was begun, and what the chunks had counted then.
struct Start {
    end: LogEnd,
    /// Chunk; record bytes, deletes, bytes of deletes.
    counted: Vec<(u64, [u64; 3])>,
}

impl NativeEngine {
    /// Writes a checkpoint of the index now.
    pub fn checkpoint(&self) -> Result<()> {
        self.checkpoint_beside(&mut |_| ())
    }

    /// The same; `between` is called before each segment of the index, with its number, and behind the last. It may commit,
    /// and must leave no group staged in the end.
    pub(in crate::native) fn checkpoint_beside(&self, between: &mut dyn FnMut(usize)) -> Result<()> {
        let _alone = self.compacting.lock();
        self.check_open()?;
        self.check_writable()?;
        self.write_checkpoint(between)
    }

    /// Writes a checkpoint if enough log has come since the last.
    pub(in crate::native) fn checkpoint_if_due(&self) {
        let by_log = self.options.checkpoint_log_bytes;
        if by_log > 0 && self.uncovered() >= by_log.max(LOG_PER_BYTE * self.checkpoint_len()) {
            let _alone = self.compacting.lock();
            self.try_checkpoint();
        }
    }

    /// Writes a checkpoint if the next open would have to go through much log. No more is committed.
    pub(in crate::native) fn checkpoint_at_close(&self) {
        let by_log = self.options.checkpoint_log_bytes;
        if !self.options.read_only && by_log > 0 && self.uncovered() >= by_log.min(CLOSE_LOG_BYTES).max(self.checkpoint_len()) {
            self.try_checkpoint();
        }
    }

    fn uncovered(&self) -> u64 {
        self.checkpoints.uncovered(self.counters.log_bytes.load(Ordering::Relaxed))
    }

    fn checkpoint_len(&self) -> u64 {
        self.counters.keys.load(Ordering::Relaxed) * ENTRY_LEN as u64
    }

    fn try_checkpoint(&self) {
        if let Err(error) = self.write_checkpoint(&mut |_| ()) {
            if error.code == Code::DISK_FULL {
                self.log.drop_prepared(); // what is only for speed must not be what it lacks
            }
            // It would have spared the next open some time, and nothing else.
            log::write(log::Level::Warn, "checkpoint", &error.message);
        }
    }

    /// Whoever calls holds `compacting`.
    fn write_checkpoint(&self, between: &mut dyn FnMut(usize)) -> Result<()> {
        let log_bytes = self.counters.log_bytes.load(Ordering::Relaxed);
        self.checkpoints.begun(log_bytes);
        let start = self.note_start()?;
        if start.end.chunk == 0 {
            return Ok(()); // there is no log yet
        }
        let mut files = self.checkpoints.files.lock();
        let number = files.next;
        files.next += 1; // also if this fails: a number is never used twice
        let name = super::file_name(number);
        let dir = self.log.dir();
        // Three at a time would take half as much space again. Should a removed file come back after a crash, it is an older
        // checkpoint, or a bad one.
        for older in std::mem::take(&mut files.others) {
            let _ = dir.remove(&super::file_name(older));
        }
        if planted(Bug::CheckpointOnlyCopy) {
            files.good.take().into_iter().for_each(|older| drop(dir.remove(&super::file_name(older))));
        }
        let cannot = format!("store {}: cannot write {name}", self.path);
        let file = dir.create(&name).map_err(|e| Error::from_io(&cannot, &e))?;
        let written = self.fill_checkpoint(&file, number, &start, &cannot, between);
        let len = written.and_then(|len| dir.sync().map(|()| len).map_err(|e| Error::from_io(&cannot, &e)));
        let len = len.inspect_err(|_| drop(dir.remove(&name)))?; // half a checkpoint is none
        add(&self.counters.checkpoints, 1);
        add(&self.counters.checkpoint_bytes, len);
        // The newest two stay.
        let before = files.good.replace(number);
        files.others.extend(before);
        Ok(())
    }

    /// The log's end and the chunks' counts, of one moment between two groups.
    fn note_start(&self) -> Result<Start> {
        let index = self.index.read();
        let end = *self.reached.lock();
        let view = self.chunks.view();
        let mut counted = Vec::new();
        counted.try_reserve_exact(view.len()).map_err(|_| no_memory())?;
        counted.extend(view.iter().flatten().map(|seen| {
            let chunk = &seen.chunk;
            (chunk.id, [&chunk.record_bytes, &chunk.tombstones, &chunk.tombstone_bytes].map(|count| count.load(Ordering::Relaxed)))
        }));
        drop(index);
        counted.sort_unstable();
        Ok(Start { end, counted })
    }

    /// Writes, syncs and verifies the file; its length.
    fn fill_checkpoint(
        &self,
        file: &Arc<dyn File>,
        number: u64,
        start: &Start,
        cannot: &str,
        between: &mut dyn FnMut(usize),
    ) -> Result<u64> {
        let store = self.log.store();
        let head = Head { store, number, secret: self.secret, start: start.end };
        let mut out = Out { file: &**file, cannot, salt: file::salt(&store, number), at: 0, buffer: head.encode() };
        let (entries, marks) = self.copy_index(&mut out, between)?;
        between(SEGMENTS);
        // Nothing was removed since the first segment was copied, so what slots mean now, they meant all the time.
        let (end, outcomes, slots) = {
            let _index = self.index.read();
            (*self.reached.lock(), self.outcomes.lock().clone(), self.slots(start)?)
        };
        let tail = Tail { at: out.at + out.buffer.len() as u64, slots, entries, end, outcomes, marks };
        out.flush()?;
        if !planted(Bug::CheckpointBeyondLog) {
            self.sync_in_turn()?;
        }
        out.buffer = tail.encode(number, out.salt);
        let len = tail.at + out.buffer.len() as u64;
        out.flush()?;
        // What cannot be read back is no checkpoint, and must not be the reason to remove one.
        if Checkpoint::of(Arc::clone(file)).filter(|written| written.head == head && written.tail == tail && written.verify()).is_none() {
            let text = format!("store {}: {} reads back other than it was written; check the disk", self.path, super::file_name(number));
            return Err(Error::new(Code::IO, text));
        }
        Ok(len)
    }

    /// Copies the index, a segment at a time.
    fn copy_index(&self, out: &mut Out<'_>, between: &mut dyn FnMut(usize)) -> Result<(u64, [u64; MARKS])> {
        let (mut entries, mut marks) = (0, [HEAD_LEN as u64; MARKS]);
        let mut pace = Pace::new(self.options.compaction_bytes_per_second);
        for segment in 0..SEGMENTS {
            between(segment);
            let from = out.buffer.len();
            let offset = out.at + from as u64;
            if segment % (SEGMENTS / MARKS) == 0 {
                marks[segment / (SEGMENTS / MARKS)] = offset;
            }
            out.buffer.try_reserve(BLOCK_HEAD_LEN).map_err(|_| no_memory())?;
            out.buffer.resize(from + BLOCK_HEAD_LEN, 0);
            let count = self.index.read().copy_segment(segment, &mut out.buffer)?;
            if count == 0 {
                out.buffer.truncate(from);
                continue;
            }
            entries += count as u64;
            file::seal_block(&mut out.buffer[from..], segment, out.salt, offset);
            if out.buffer.len() >= PIECE_BYTES {
                let bytes = out.buffer.len() as u64;
                out.flush()?;
                self.keep_pace(&mut pace, bytes);
            }
        }
        Ok((entries, marks))
    }

    fn slots(&self, start: &Start) -> Result<Vec<Slot>> {
        let view = self.chunks.view();
        let mut slots = Vec::new();
        slots.try_reserve_exact(view.len()).map_err(|_| no_memory())?;
        slots.extend(view.iter().flatten().map(|seen| {
            let chunk = &seen.chunk;
            let counted = start.counted.binary_search_by_key(&chunk.id, |(id, ..)| *id).ok();
            let [record_bytes, tombstones, tombstone_bytes] = counted.map_or([0; 3], |at| start.counted[at].1);
            Slot { slot: chunk.slot, chunk: chunk.id, end: chunk.end(), record_bytes, tombstones, tombstone_bytes }
        }));
        slots.sort_unstable_by_key(|slot: &Slot| slot.chunk);
        Ok(slots)
    }
}

/// The file being written.
struct Out<'a> {
    file: &'a dyn File,
    /// For messages: what failed.
    cannot: &'a str,
    salt: Salt,
    /// Where the buffer belongs, in bytes.
    at: u64,
    buffer: Vec<u8>,
}

impl Out<'_> {
    /// Puts the buffer on stable storage.
    fn flush(&mut self) -> Result<()> {
        write_all_at(self.file, &mut [IoSlice::new(&self.buffer)], self.at, false)
            .and_then(|_| self.file.sync())
            .map_err(|e| Error::from_io(self.cannot, &e))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn no_memory() -> Error {
    Error::no_memory("no memory to write a checkpoint with: free memory")
}
