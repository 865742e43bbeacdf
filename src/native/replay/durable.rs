//! What a replay finds must stay found: it is made durable before anybody reads it.
//!
//! A sync alone would not do. If a sync failed earlier, the kernel may show bytes that it takes for written and that
//! are not on the disk; whoever wrote behind them would lose everything with them. So what no watermark proves to be
//! durable is synced, dropped from the kernel's memory, and read once more. Where that comes to much, as in a store that
//! was written without syncs, the rest is synced and dropped before it is read at all: so it is read only once.

use super::super::frame::{CHUNK_HEADER_LEN, CHUNK_START_LEN, ChunkHeader, FrameKind, LogEnd};
use super::super::inventory::Found;
use super::super::window::Window;
use super::{Good, Nothing, Replay, end_of_removed, follows, limit};
use crate::base::error::{Error, Result};
use crate::base::limits::BLOCK_BYTES;
use crate::base::planted::{Bug, planted};
use crate::io::Dir;
use crate::native::chunks::file_name;
use std::collections::VecDeque;

/// So many bytes in doubt are many; in a small log, the share of it below.
const MANY_BYTES: u64 = 8 << 20;

/// Of the bytes to replay.
const MANY_SHARE: u64 = 16;

/// A frame that nothing may have made durable: once a watermark reaches the end before it, everything before it is.
struct Doubt {
    /// The log's end before it.
    before: LogEnd,
    chunk: u64,
    at: u64,
    /// Bytes that were replayed before it.
    done: u64,
}

/// What nothing proves durable yet.
pub(super) struct Doubts {
    /// Where frames begin, by rising sequence numbers; the first is the one that counts.
    frames: VecDeque<Doubt>,
    many_bytes: u64,
    /// All that is replayed from now on comes from the disk, synced before.
    from_disk: bool,
    /// Something was no longer there when it was read once more.
    changed: bool,
}

impl Doubts {
    /// For a replay of `total` bytes.
    pub(super) fn new(total: u64) -> Doubts {
        Doubts { frames: VecDeque::new(), many_bytes: MANY_BYTES.min(total / MANY_SHARE), from_disk: false, changed: false }
    }
}

impl Replay<'_> {
    /// Everything up to `watermark` is on stable storage.
    pub(super) fn proven(&mut self, watermark: u64) {
        self.watermark = self.watermark.max(watermark);
        let frames = &mut self.doubts.frames;
        while frames.get(1).is_some_and(|next| next.before.last_seq <= self.watermark) {
            frames.pop_front();
        }
    }

    /// A frame, before the log's end is moved behind it.
    pub(super) fn doubt(&mut self, good: &Good) {
        let frames = &mut self.doubts.frames;
        let is_place = good.at.is_multiple_of(BLOCK_BYTES as u64) || frames.is_empty();
        if !self.doubts.from_disk && good.header.kind == FrameKind::Data && is_place {
            frames.push_back(Doubt { before: self.end, chunk: good.end.chunk, at: good.at, done: self.progress.done });
        }
    }

    /// Whether it is time for `read_from_disk`.
    pub(super) fn has_many_doubts(&self) -> bool {
        let many = |first: &Doubt| self.progress.done - first.done > self.doubts.many_bytes;
        self.watermark < self.end.last_seq && self.doubts.frames.front().is_some_and(many) && !planted(Bug::TrustTheCache)
    }

    /// From now on nothing is read that is not on the disk.
    pub(super) fn read_from_disk(&mut self) -> Result<()> {
        self.settle_doubts(self.end.valid_bytes)?;
        self.doubts.from_disk = true;
        Ok(())
    }

    /// Whether something was no longer there when it was read once more: all has to be read again.
    pub(super) fn has_changed(&self) -> bool {
        self.doubts.changed
    }

    /// Before a chunk is read.
    pub(super) fn begin_to_read(&self, found: &Found) -> Result<()> {
        if self.doubts.from_disk && !planted(Bug::ReadOnFromCache) { self.make_stable(found) } else { Ok(()) }
    }

    /// Has what was found on the disk, and sees whether it stays what it was. False: it does not.
    pub fn is_durable(&mut self, dir: &dyn Dir) -> Result<bool> {
        self.settle_doubts(u64::MAX)?;
        if self.has_changed() {
            return Ok(false);
        }
        // A chunk that was begun and never used: its header may say where the one before it was cut.
        let chain = self.store.chain;
        let Some(unused) = chain.get(self.store.kept(&self.end)) else { return Ok(true) };
        self.make_stable(unused)?;
        dir.sync().map_err(|e| Error::from_io(format_args!("store {}: syncing the directory failed", self.store.path), &e))?;
        let len = unused.len.min(CHUNK_START_LEN as u64);
        let mut start = Window::new(&*unused.file, len);
        let start = start.bytes(0, len).map_err(|e| self.read_failed(unused, &e))?;
        Ok(start.map(ChunkHeader::decode) == Some(Ok(unused.header)))
    }

    /// Syncs what is in doubt and reads it from the disk, in the last chunk up to `last_limit`.
    fn settle_doubts(&mut self, last_limit: u64) -> Result<()> {
        let Some(first) = self.doubts.frames.front().filter(|_| self.watermark < self.end.last_seq && !planted(Bug::TrustTheCache)) else {
            return Ok(());
        };
        let chain = self.store.chain;
        let mut end = first.before;
        let in_doubt = chain[..self.store.kept(&self.end)].iter().enumerate().filter(|(_, found)| found.header.chunk >= first.chunk);
        for (i, found) in in_doubt {
            self.make_stable(found)?;
            let last = if found.header.chunk == self.end.chunk { last_limit } else { u64::MAX };
            let mut window = Window::new(&*found.file, limit(chain, i).min(last));
            if found.header.chunk != first.chunk && !follows(chain, i) {
                end = end_of_removed(found).unwrap_or(end);
            }
            let mut at = if found.header.chunk == first.chunk { first.at } else { CHUNK_HEADER_LEN as u64 };
            while let Some(good) = self.next_frame(&mut window, found, at, &end, &mut Nothing)? {
                at = good.at + good.len;
                end = good.end;
            }
        }
        self.doubts.changed |= end != self.end;
        self.doubts.frames.clear();
        Ok(())
    }

    /// Syncs a file and has the next reads come from the disk.
    fn make_stable(&self, found: &Found) -> Result<()> {
        found.file.sync().map_err(|e| {
            let file = file_name(found.header.chunk);
            Error::from_io(format_args!("store {}: syncing {file} failed", self.store.path), &e)
        })?;
        found.file.forget();
        Ok(())
    }
}
