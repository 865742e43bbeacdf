//! Committing a group: stage, write, publish.
//!
//! `stage` and `publish` run alone and in the order of turns; between them several groups write at the same time.
//! Everything that can fail comes before the first byte is handed to the kernel; publishing needs no memory.

use super::NativeEngine;
use super::chunks::View;
use super::frame::{BATCH_ENTRY_LEN, BatchEntry, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd};
use super::hot::HotRange;
use super::index::{Index, Place, SEGMENTS};
use super::log::{Log, Purpose, SyncWay, Wanted};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::few::FewCopies;
use crate::base::hash::KeyHash;
use crate::base::limits::BLOCK_BYTES;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::engine::counters::add;
use crate::engine::outcome::BatchId;
use crate::engine::record::{self, Kind};
use crate::engine::{Commit, NO_BATCH, Pin, ReadOp, ReadState, WriteOp};
use crate::io::write_pieces_at;
use std::io::{self, IoSlice};

/// How far ahead of its use an index line is asked for (measured: 32 is a little better than 16, beyond 64 it gets worse).
pub(super) const PREFETCH_AHEAD: usize = 32;

/// Where more is done with a line, lines are asked for in groups of so many, each before the one before it is used: pages are
/// looked for side by side then, see `read::GROUP`.
const GROUP: usize = 8;

/// They are asked for so many puts before their use at the most: the group's bytes have driven them out of the caches, and with half of
/// that, overwriting waited for some of them (`make bench`: "10 M keys").
const PUTS_AHEAD: usize = 4 * GROUP;

/// A group of so many records, several for each segment of the index, has it grow at once.
const GROWS_AT_ONCE_RECORDS: u64 = 4 * SEGMENTS as u64;

/// A frame of so many bytes has its memory in the hot log made ready while it is put together.
const LARGE_FRAME_BYTES: u64 = 1 << 20;

/// Batches for which a frame's head, and the list of its pieces, takes no memory of its own.
const BATCHES_AT_HAND: usize = 7;

/// What a frame's last block ends with, where the file held something else before.
static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Frame header and batch table.
type Head = FewCopies<u8, { FRAME_HEADER_LEN + BATCHES_AT_HAND * BATCH_ENTRY_LEN }>;

/// A group that has its place in the log and must be published.
pub(super) struct Staged {
    log: Arc<Log>,
    /// `None`: the group writes nothing.
    frame: Option<Frame>,
    settled: bool,
}

struct Frame {
    place: super::log::Place,
    head: Head,
    hot: Option<HotRange>,
    /// Where the log ends with it.
    end: LogEnd,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.frame.is_some() && !self.settled {
            self.log.abandon();
        }
    }
}

impl Staged {
    /// Whether a failed write may be tried again: not if it was synchronous, for then it may have been a failed sync.
    pub(super) fn may_write_again(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.place.sync != SyncWay::ByWrite)
    }
}

/// From byte `at` of a file to the end of the block that it is in, or at the start of.
fn bytes_to_next_block(at: u64) -> usize {
    (at.next_multiple_of(BLOCK_BYTES as u64) - at) as usize
}

fn all_ops<'a>(group: &'a [Commit<'_>]) -> impl Iterator<Item = &'a WriteOp> {
    group.iter().flat_map(|member| member.writes.ops)
}

fn puts(group: &[Commit<'_>]) -> impl Iterator<Item = KeyHash> {
    all_ops(group).filter(|op| op.kind == Kind::Put).map(|op| op.hash)
}

fn purpose_of(group: &[Commit<'_>]) -> Purpose {
    let moves = group.iter().all(|member| member.batch_id == NO_BATCH || member.writes.ops.is_empty());
    match puts(group).next() {
        _ if moves => Purpose::Move,
        Some(_) => Purpose::Put,
        None => Purpose::Delete,
    }
}

impl NativeEngine {
    /// Gives the group its place: sequence numbers, room in the index, checksums. An error means nothing happened.
    pub(super) fn stage(&self, group: &mut [Commit<'_>]) -> Result<Staged> {
        self.check_open()?;
        let records: u64 = group.iter().map(|member| member.writes.ops.len() as u64).sum();
        let mut staged = Staged { log: Arc::clone(&self.log), frame: None, settled: false };
        if records == 0 {
            return Ok(staged);
        }
        self.check_writable()?;
        let payload_len: u64 = all_ops(group).map(|op| u64::from(op.len)).sum();
        let batches = group.iter().filter(|member| !member.writes.ops.is_empty()).count();
        let durable = group.iter().any(|member| member.durable);
        let head_len = FRAME_HEADER_LEN + batches * BATCH_ENTRY_LEN;
        let mut head = Head::filled(0, head_len).map_err(|_| Error::no_memory("no memory for a frame's head: free memory"))?;
        let wanting = {
            let mut index = self.index.write();
            if records >= GROWS_AT_ONCE_RECORDS {
                index.grow_for(puts(group))?;
            }
            index.reserve(puts(group))?;
            index.wanting().cloned()
        };
        if let Some(spare) = wanting {
            self.bring_in_beside(spare);
        }
        let wanted = Wanted { batches, records, payload_len, durable, purpose: purpose_of(group) };
        let place = match self.log.stage(&self.chunks, &self.counters, &wanted) {
            Ok(place) => place,
            Err(error) => {
                self.index.write().unreserve(puts(group));
                return Err(error);
            }
        };
        let frame_len = head_len as u64 + payload_len;
        let digest = fill_head(&mut head, group, &place, payload_len);
        let end = self.log.staged(&place, frame_len, digest);
        let hot = place.hot.as_ref().and_then(|hot| {
            // A durable frame has its last block to itself, and is written in whole blocks.
            let blocks_len = (frame_len as usize).next_multiple_of(BLOCK_BYTES);
            let whole = if place.sync == SyncWay::ByWrite { hot.reserve(place.offset, blocks_len) } else { None };
            whole.or_else(|| hot.reserve(place.offset, frame_len as usize))
        });
        if let Some(hot) = place.hot.as_ref().filter(|_| frame_len >= LARGE_FRAME_BYTES) {
            self.look_ahead(hot, end.valid_bytes);
        }
        staged.frame = Some(Frame { place, head, hot, end });
        Ok(staged)
    }

    /// Gives a beat its place: a group without members that says how far the log is durable.
    pub(super) fn stage_beat(&self) -> Result<Staged> {
        self.check_open()?;
        let beat = self.log.stage_beat()?;
        let frame = beat.map(|(place, header)| {
            let mut head = Head::new(0);
            header.into_iter().for_each(|byte| head.push(byte));
            Frame { end: place.before(), place, head, hot: None }
        });
        Ok(Staged { log: Arc::clone(&self.log), frame, settled: false })
    }

    /// Says in the log how far it is durable, if it does not say so yet: until then, damage of the last durable group
    /// could not be told from an end that was never finished.
    pub fn beat(&self) -> Result<()> {
        let mut turn = self.line.draw();
        let mut staged = turn.stage(|| self.stage_beat())?;
        let written = self.write(&mut staged, &[]);
        turn.publish(|| self.publish(staged, written, &mut []))
    }

    /// Hands the frame to the disk; several groups may be here at the same time. The number of calls it took.
    pub(super) fn write(&self, staged: &mut Staged, group: &[Commit<'_>]) -> io::Result<u64> {
        let Some(Frame { place, head, hot, .. }) = &mut staged.frame else { return Ok(0) };
        let mut pieces = FewCopies::<_, { 2 + BATCHES_AT_HAND }>::new(IoSlice::new(&[]));
        pieces.push(IoSlice::new(head));
        for member in group {
            runs_of(member, |run| pieces.push(IoSlice::new(run)));
        }
        if let Some(hot) = hot {
            hot.rewind(); // in case this is another try
            for piece in pieces.iter() {
                hot.push(piece);
            }
        }
        if place.chunk.is_reused {
            let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
            pieces.push(IoSlice::new(&ZEROS[..bytes_to_next_block(place.offset + len)]));
        }
        let durable = place.sync == SyncWay::ByWrite && !planted(Bug::AckBeforeSync);
        // The hot log has the frame at the places that it has in the file, so whole blocks can be written from there.
        let mut whole = hot.as_mut().filter(|_| durable).and_then(HotRange::blocks).map(IoSlice::new);
        let mut left = match &mut whole {
            Some(blocks) => std::slice::from_mut(blocks),
            None => &mut pieces[..],
        };
        let written = write_pieces_at(&*place.chunk.file, &mut left, place.offset, durable);
        // Once it did, what another try has not written again is still there.
        place.lacks_only_zeros |= written.is_err() && left.iter().all(|piece| piece.iter().all(|byte| *byte == 0));
        written
    }

    /// Makes the group visible, all of it at once. In the order of turns.
    pub(super) fn publish(&self, mut staged: Staged, written: io::Result<u64>, group: &mut [Commit<'_>]) -> Result<()> {
        let Some(Frame { place, head, hot, end }) = &mut staged.frame else {
            let index = self.index.read();
            for member in group {
                member.pin = self.locate(&index, member.reads);
            }
            return Ok(());
        };
        if let (Some(filled), Some(hot)) = (hot.take(), &place.hot) {
            drop(filled); // readers may see it once the index leads there
            self.look_ahead(hot, end.valid_bytes);
        }
        let settled = self.log.settle(&self.chunks, place, written, &self.counters);
        let fails = planted(Bug::ApplyFailsAfterWrite) && place.last_seq > place.first_seq + 1;
        let settled = if fails { Err(Error::no_memory("no memory")) } else { settled };
        let (first_record, slot, end) = (place.offset + head.len() as u64, place.chunk.slot, *end);
        staged.settled = true;
        if let Err(error) = settled {
            if planted(Bug::FailedGroupVisible) {
                self.apply(group, slot, first_record, end);
            } else {
                self.index.write().unreserve(puts(group));
            }
            return Err(error);
        }
        let frame_len = head.len() as u64 + self.apply(group, slot, first_record, end);
        self.go_on_beside(place, frame_len);
        self.counters.keys.store(self.index.read().len() as u64, Ordering::Relaxed);
        add(&self.counters.groups, 1);
        add(&self.counters.batches, group.len() as u64);
        add(&self.counters.log_bytes, frame_len);
        Ok(())
    }

    /// Writes are refused for want of space, memory or descriptors, or they are taken again: says so in the log, unless the log
    /// of the store does (`full`) or has done so for good.
    pub(super) fn tell_of_refusals(&self, result: &Result<()>) {
        match result {
            Ok(()) if !self.refusing.load(Ordering::Relaxed) => {}
            Ok(()) => {
                if self.refusing.swap(false, Ordering::Relaxed) {
                    log::write(log::Level::Info, "commit", &format!("store {}: writes succeed again", self.path));
                }
            }
            Err(error) if (error.code == Code::DISK_FULL || error.transient) && !self.log.is_full() => {
                if !self.refusing.load(Ordering::Relaxed) && self.refused_writes.note().is_some() {
                    self.refusing.store(true, Ordering::Relaxed);
                    log::write(log::Level::Warn, "commit", &error.message);
                }
            }
            Err(_) => {}
        }
    }

    /// Looks up `reads` in the index; the pin keeps the chunks they were found in.
    pub(super) fn locate(&self, index: &Index, reads: &mut [ReadOp]) -> Pin {
        if reads.is_empty() {
            return None;
        }
        let mut homes: [_; PREFETCH_AHEAD] = std::array::from_fn(|i| reads.get(i).map(|read| index.home(&read.hash)));
        for i in 0..reads.len() {
            let next = reads.get(i + PREFETCH_AHEAD).map(|read| index.home(&read.hash));
            let home = std::mem::replace(&mut homes[i % PREFETCH_AHEAD], next);
            let read = &mut reads[i];
            (read.state, read.place) = match home.and_then(|home| home.place(&read.hash)) {
                Some(place) => (ReadState::Located, place.to_bits()),
                None => (ReadState::Absent, 0),
            };
        }
        Some(self.chunks.view())
    }

    /// Reads are resolved before the writes of their own batch, writes replace what was there. Returns the bytes of the records.
    fn apply(&self, group: &mut [Commit<'_>], slot: u32, first_record: u64, end: LogEnd) -> u64 {
        let view = self.chunks.view();
        let mut offset = first_record;
        let mut index = self.index.write();
        let mut outcomes = self.outcomes.lock();
        let (mut records, mut record_bytes, mut tombstones, mut tombstone_bytes) = (0, 0, 0, 0);
        let mut dead = Dead::default();
        for member in group.iter_mut() {
            member.pin = self.locate(&index, member.reads);
            let ops = member.writes.ops;
            records += ops.len() as u64;
            if !ops.is_empty() {
                outcomes.add(BatchId { opening: self.opening, number: member.batch_id });
            }
            for (i, op) in ops.iter().enumerate() {
                if i % GROUP == 0 {
                    let next = if i == 0 { 0..PUTS_AHEAD } else { i + PUTS_AHEAD - GROUP..i + PUTS_AHEAD };
                    ops[next.start.min(ops.len())..next.end.min(ops.len())].iter().for_each(|ahead| index.prefetch(&ahead.hash));
                }
                let replaced = match op.kind {
                    Kind::Put => {
                        let place = Place::new(slot, offset, op.len as usize);
                        record_bytes += place.len_at_most() as u64;
                        index.put(&op.hash, place)
                    }
                    Kind::Delete => {
                        tombstones += 1;
                        tombstone_bytes += Place::new(slot, offset, op.len as usize).len_at_most() as u64;
                        index.remove(&op.hash)
                    }
                };
                if let Some(old) = replaced {
                    dead.add(&view, old);
                }
                if planted(Bug::VisibleInParts) {
                    drop(outcomes); // the order of locks is not what is planted
                    drop(index);
                    index = self.index.write();
                    outcomes = self.outcomes.lock();
                }
                offset += u64::from(op.len);
            }
        }
        dead.tell(&view);
        // Still under the lock: a checkpoint sees the index, these counts, and the log's end as they belong together.
        if let Some(Some(seen)) = view.get(slot as usize) {
            add(&seen.chunk.record_bytes, record_bytes + tombstone_bytes);
            add(&seen.chunk.tombstones, tombstones);
            add(&seen.chunk.tombstone_bytes, tombstone_bytes);
            add(&seen.chunk.dead_bytes, tombstone_bytes);
        }
        *self.reached.lock() = end;
        drop(outcomes);
        drop(index);
        add(&self.counters.records, records);
        offset - first_record
    }
}

/// Bytes of records that were replaced, summed up as long as they lie in one chunk.
#[derive(Default)]
struct Dead {
    slot: u32,
    bytes: u64,
}

impl Dead {
    #[inline]
    fn add(&mut self, view: &View, old: Place) {
        if old.slot() != self.slot {
            self.tell(view);
            self.slot = old.slot();
        }
        self.bytes += old.len_at_most() as u64;
    }

    fn tell(&mut self, view: &View) {
        if let Some(Some(seen)) = view.get(self.slot as usize) {
            add(&seen.chunk.dead_bytes, self.bytes);
        }
        self.bytes = 0;
    }
}

/// Salts the records' checksums for their places, and fills in the batch table and the frame header.
fn fill_head(head: &mut [u8], group: &mut [Commit<'_>], place: &super::log::Place, payload_len: u64) -> u64 {
    let (header, table) = head.split_at_mut(FRAME_HEADER_LEN);
    let mut digest = Digest::new(place.digest_before);
    let mut offset = place.offset + header.len() as u64 + table.len() as u64;
    let mut entries = table.chunks_exact_mut(BATCH_ENTRY_LEN);
    let mut batches = 0;
    for member in group.iter_mut().filter(|member| !member.writes.ops.is_empty()) {
        if let Some(entry) = entries.next() {
            let batch = BatchEntry { batch_id: member.batch_id, records: member.writes.ops.len() as u32 };
            entry.copy_from_slice(&batch.encode());
            batches += 1;
        }
        let blocks = &mut *member.writes.blocks;
        digest.records(member.writes.ops, |op| {
            let sum = record::salt_sum(&mut blocks[op.block as usize][op.offset as usize..], place.chunk.salt.at(offset));
            offset += u64::from(op.len);
            sum
        });
    }
    digest.table(table);
    let digest = digest.finish(FrameKind::Data, place.first_seq, payload_len);
    let frame = FrameHeader {
        kind: FrameKind::Data,
        first_seq: place.first_seq,
        watermark: place.watermark,
        payload_len,
        records: (place.last_seq + 1 - place.first_seq) as u32,
        batches,
        digest_before: place.digest_before,
        digest,
    };
    header.copy_from_slice(&frame.encode(place.chunk.salt, place.offset));
    digest
}

/// The records of a batch as runs of bytes that lie together.
fn runs_of<'a>(member: &'a Commit<'_>, mut take: impl FnMut(&'a [u8])) {
    let mut ops = member.writes.ops.iter().peekable();
    while let Some(first) = ops.next() {
        let mut end = first.offset + first.len;
        while let Some(next) = ops.next_if(|next| next.block == first.block && next.offset == end) {
            end += next.len;
        }
        take(&member.writes.blocks[first.block as usize][first.offset as usize..end as usize]);
    }
}
