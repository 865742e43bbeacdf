//! Replaying the chain of chunks: frame by frame, each checked before a record of it counts.
//!
//! `recovery` calls this, with the whole chain, or to go on behind a checkpoint. A bad frame is either the torn end of
//! what was never acknowledged, and cut, or damage of acknowledged data, and refused: the durable watermarks of everything
//! behind it decide. What nothing proves to be on stable storage is read from there (`durable`). Nothing here changes a file.

use super::apply::{BATCH_OPS, Batch, Op};
use super::checkpoint::Checkpoint;
use super::chunks::{Chunk, file_name};
use super::frame::{
    BATCH_ENTRY_LEN, BatchEntry, CHUNK_HEADER_LEN, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd, Salt, TO_ITS_LAST_FRAME,
    places_of_next,
};
use super::index::Place;
use super::inventory::Found;
use super::recovery::{Progress, Store, Witness};
use super::window::Window;
use crate::base::code::Code;
use crate::base::crc::LANES;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHasher;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::engine::outcome::{BatchId, Outcomes};
use crate::engine::record::{ALIGN, HEADER_LEN, Record, stored_sum};

mod durable;

/// A frame that is good in itself, and the next one behind a given end of the log.
struct Good {
    header: FrameHeader,
    at: u64,
    len: u64,
    /// The log's end with this frame.
    end: LogEnd,
}

/// Takes the records of a frame while they are being checked.
trait Take {
    /// There will be at most this many.
    fn expect(&mut self, records: usize) -> Result<()>;
    /// The next.
    fn take(&mut self, record: &Record<'_>, offset: u64, len: usize);
    /// The next few, with their lengths; the first is at `offset`.
    fn take_row(&mut self, row: &[(Record<'_>, usize); LANES], offset: u64);
    /// Those of this frame do not count.
    fn give_back(&mut self);
    /// The frame is good, and this batch is in it.
    fn batch(&mut self, number: u64);
}

/// Only the check matters.
struct Nothing;

impl Take for Nothing {
    fn expect(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
    fn take(&mut self, _: &Record<'_>, _: u64, _: usize) {}
    fn take_row(&mut self, _: &[(Record<'_>, usize); LANES], _: u64) {}
    fn give_back(&mut self) {}
    fn batch(&mut self, _: u64) {}
}

/// What is to be applied.
struct Ops<'a> {
    ops: &'a mut Vec<Op>,
    /// How many there were before the frame.
    before: usize,
    hasher: &'a KeyHasher,
    slot: u32,
    outcomes: &'a mut Outcomes,
    /// The opening that has written the chunk.
    opening: u64,
}

impl Take for Ops<'_> {
    fn expect(&mut self, records: usize) -> Result<()> {
        self.before = self.ops.len();
        self.ops.try_reserve(records).map_err(|_| Error::no_memory("no memory to recover a store with: free memory"))
    }
    #[inline]
    fn take(&mut self, record: &Record<'_>, offset: u64, len: usize) {
        self.ops.push(Op { hash: self.hasher.hash(record.key), place: Place::new(self.slot, offset, len), kind: record.kind });
    }
    #[inline]
    fn take_row(&mut self, row: &[(Record<'_>, usize); LANES], mut offset: u64) {
        let hashes = self.hasher.hash_lanes(row.each_ref().map(|(record, _)| record.key));
        self.ops.extend(row.iter().zip(hashes).map(|((record, len), hash)| {
            let place = Place::new(self.slot, offset, *len);
            offset += *len as u64;
            Op { hash, place, kind: record.kind }
        }));
    }
    fn give_back(&mut self) {
        self.ops.truncate(self.before);
    }
    fn batch(&mut self, number: u64) {
        self.outcomes.add(BatchId { opening: self.opening, number });
    }
}

/// See the top of this file.
pub struct Replay<'a> {
    store: &'a Store<'a>,
    hasher: KeyHasher,
    /// The checkpoint that the index begins with.
    from: Option<&'a Checkpoint>,
    /// The log went through the place that the checkpoint ends with.
    pub passed: bool,
    /// The log is good up to here.
    pub end: LogEnd,
    /// Highest sequence number that is known to be on stable storage.
    watermark: u64,
    doubts: durable::Doubts,
    batch: Batch,
    /// Which batches were committed.
    pub outcomes: Outcomes,
    apply: &'a mut dyn FnMut(Batch) -> Result<Batch>,
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

impl<'a> Replay<'a> {
    /// A replay of `store`; `apply` takes the records, `tell` hears how far it is.
    pub fn new(
        store: &'a Store<'a>,
        secret: [u64; 2],
        from: Option<&'a Checkpoint>,
        total: u64,
        apply: &'a mut dyn FnMut(Batch) -> Result<Batch>,
        tell: &'a mut dyn FnMut(Progress),
    ) -> Replay<'a> {
        Replay {
            store,
            hasher: KeyHasher::new(secret),
            from,
            passed: false,
            end: LogEnd::default(),
            watermark: store.witness.as_ref().map_or(0, |witness| witness.last_seq),
            doubts: durable::Doubts::new(total),
            batch: Batch::default(),
            outcomes: store.outcomes_before(from),
            apply,
            progress: Progress { done: 0, total },
            tell,
        }
    }

    /// Replays the chain, as far as it is good.
    pub fn chain(&mut self) -> Result<()> {
        let chain = self.store.chain;
        let start = self.from.map_or(LogEnd::default(), |checkpoint| checkpoint.head.start);
        for (i, found) in chain.iter().enumerate() {
            let chunk = self.add(found)?;
            self.proven(found.header.watermark);
            let expected = expected(chain, i);
            let known = self.from.filter(|_| found.header.chunk < start.chunk).and_then(|from| from.slot_of(found.header.chunk)?.end);
            if known.is_none() && !follows(chain, i) {
                // Nothing is removed before all behind it is on stable storage: there is a frame.
                let Some(before) = end_of_removed(found) else { return self.unlinked(found) };
                self.end = before;
                self.proven(self.end.last_seq);
            }
            let (at, whole) = match known {
                Some(end) => {
                    self.end = end;
                    (end.valid_bytes, true)
                }
                None => {
                    self.reach(if found.header.chunk == start.chunk { start } else { self.end });
                    self.chunk(found, &chunk, limit(chain, i))?
                }
            };
            if self.has_changed() {
                return Ok(()); // what was found does not count, and so says nothing of the rest
            }
            chunk.seal(self.end);
            if let Some(end) = found.end {
                self.proven(end.last_seq); // a manifest names only what is on stable storage
            }
            match expected {
                None if whole => {}
                Some(end) if end.last_seq == self.end.last_seq && end.digest == self.end.digest => {}
                _ => return self.judge(&chain[i..], at),
            }
        }
        let newest = chain.last().map(|newest| Witness { name: file_name(newest.header.chunk), last_seq: newest.header.watermark });
        match self.store.witness.iter().chain(&newest).max_by_key(|witness| witness.last_seq) {
            Some(witness) if witness.last_seq > self.end.last_seq => {
                self.store.prefix.borrow_mut().cut_log(witness.last_seq, self.too_short(witness))
            }
            _ => Ok(()),
        }
    }

    /// Makes a chunk of the chain a part of the store, in the slot that the checkpoint says.
    fn add(&self, found: &Found) -> Result<Arc<Chunk>> {
        let slot = self.from.map(|checkpoint| checkpoint.slot_of(found.header.chunk).map_or(checkpoint.slots_end(), |slot| slot.slot));
        self.store.chunks.add(&found.header, Arc::clone(&found.file), None, slot.unwrap_or(0))
    }

    /// The log is good up to `end`.
    fn reach(&mut self, end: LogEnd) {
        self.end = end;
        self.passed |= self.from.is_some_and(|checkpoint| checkpoint.tail.end == end);
    }

    /// Gives on what is to be applied.
    fn flush(&mut self) -> Result<()> {
        if !self.batch.ops.is_empty() {
            self.batch = (self.apply)(std::mem::take(&mut self.batch))?;
            (self.tell)(self.progress);
        }
        Ok(())
    }

    /// The log is good to its end, and that is not all.
    fn too_short(&self, witness: &Witness) -> Error {
        let (path, good_until, file) = (self.store.path, self.end.last_seq, file_name(self.end.chunk));
        let Witness { name, last_seq: last } = witness;
        let text = format!(
            "store {path}: records {} to {last} were on stable storage, as {name} says, and are missing behind byte {} of {file}: \
             restore the store from a backup (if older chunk files were put there on purpose: all of them, and nothing else)",
            good_until + 1,
            self.end.valid_bytes
        );
        Error::new(Code::CORRUPTED, text)
    }

    /// The chunks before this one were removed, and nothing says where the log stood.
    fn unlinked(&self, found: &Found) -> Result<()> {
        let file = file_name(found.header.chunk);
        let text = format!("store {}: the header of {file} is damaged: restore the file from a backup", self.store.path);
        let proven = self.watermark.max(self.evidence(found, CHUNK_HEADER_LEN as u64)?);
        self.store.prefix.borrow_mut().cut_log(proven, Error::new(Code::CORRUPTED, text))
    }

    /// Nothing good is at byte `at` of the first chunk of `rest`: a torn tail, or damage?
    fn judge(&self, rest: &[Found], at: u64) -> Result<()> {
        let good_until = self.end.last_seq;
        let mut proven = self.watermark;
        for (i, found) in rest.iter().enumerate() {
            proven = proven.max(found.header.watermark);
            if proven <= good_until {
                proven = proven.max(self.evidence(found, if i == 0 { at } else { CHUNK_HEADER_LEN as u64 })?);
            }
        }
        let file = file_name(rest.first().map_or(0, |found| found.header.chunk));
        if proven > good_until && !planted(Bug::StopSilently) {
            let text = format!(
                "store {}: {file} is damaged at byte {at}: records {} to {proven} were on stable storage and cannot be read; \
                 restore the store from a backup",
                self.store.path,
                good_until + 1
            );
            return self.store.prefix.borrow_mut().cut_log(proven, Error::new(Code::CORRUPTED, text));
        }
        let behind = rest.first().map_or(0, |found| found.len.saturating_sub(at));
        let more = if rest.len() > 1 { format!(", and {} files behind it", rest.len() - 1) } else { String::new() };
        let or = if rest.first().is_some_and(|found| found.header.reused != 0) { ", or that are left of an older chunk" } else { "" };
        let text = format!(
            "store {}: the unfinished end of {file} was cut at byte {at}: {behind} bytes{more} that nothing had confirmed{or}; this is \
             what a crash leaves, nothing needs to be done",
            self.store.path
        );
        log::write(log::Level::Info, "recover", &text);
        Ok(())
    }

    /// The highest watermark in any good frame header behind `from`.
    fn evidence(&self, found: &Found, from: u64) -> Result<u64> {
        let salt = found.header.salt();
        let mut window = Window::new(&*found.file, found.len);
        let mut highest = 0;
        let mut at = from.next_multiple_of(ALIGN as u64);
        while let Some(bytes) = window.bytes(at, FRAME_HEADER_LEN as u64).map_err(|e| self.read_failed(found, &e))? {
            if let Some(frame) = FrameHeader::decode(bytes, salt, at) {
                highest = highest.max(frame.watermark);
            }
            at += ALIGN as u64;
        }
        Ok(highest)
    }

    fn read_failed(&self, found: &Found, error: &std::io::Error) -> Error {
        let file = file_name(found.header.chunk);
        Error::from_io(format_args!("store {}: reading {file} failed, so it is not known what it holds", self.store.path), error)
    }

    /// Replays one chunk, from where the log is good if that is in it, up to `limit`. Returns where the good frames end, and
    /// whether nothing lies behind them.
    fn chunk(&mut self, found: &Found, chunk: &Chunk, limit: u64) -> Result<(u64, bool)> {
        self.begin_to_read(found)?;
        let mut window = Window::new(&*found.file, limit);
        let mut at = if self.end.chunk == chunk.id { self.end.valid_bytes } else { CHUNK_HEADER_LEN as u64 };
        let mut batch = std::mem::take(&mut self.batch);
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let opening = found.header.opening();
        batch.slot = chunk.slot;
        loop {
            let hasher = self.hasher;
            let (before, ops) = (batch.ops.len(), &mut batch.ops);
            let mut ops = Ops { before, ops, hasher: &hasher, slot: chunk.slot, outcomes: &mut outcomes, opening };
            let Some(good) = self.next_frame(&mut window, found, at, &self.end, &mut ops)? else { break };
            at = good.at + good.len;
            self.doubt(&good);
            self.reach(good.end);
            self.proven(good.header.watermark);
            if self.has_many_doubts() {
                self.read_from_disk()?;
                if self.has_changed() {
                    break;
                }
                window = Window::new(&*found.file, limit); // what it holds of the next frames was read before
            }
            self.progress.done += good.len; // not before: only the next frame can say that this one is durable
            if batch.ops.len() >= BATCH_OPS {
                batch = (self.apply)(batch)?;
                batch.slot = chunk.slot;
                (self.tell)(self.progress);
            }
        }
        (self.batch, self.outcomes) = (batch, outcomes);
        self.flush()?;
        let rest_is_zero = is_zero(&mut window, at, limit).map_err(|e| self.read_failed(found, &e))?;
        Ok((at, rest_is_zero))
    }

    /// The frame that follows the log's end `before`, looked for from `at` on.
    ///
    /// What lies in a gap says nothing: a crash may leave anything where nobody has written. The digest tells whether
    /// a frame is the next.
    fn next_frame(&self, window: &mut Window<'_>, found: &Found, at: u64, before: &LogEnd, take: &mut impl Take) -> Result<Option<Good>> {
        for place in places_of_next(at) {
            if let Some(good) = self.frame(window, found, place, before, take)? {
                return Ok(Some(good));
            }
        }
        Ok(None)
    }

    /// The frame at `at`, if there is one, all of it is good, and it follows `before`.
    fn frame(&self, window: &mut Window<'_>, found: &Found, at: u64, before: &LogEnd, take: &mut impl Take) -> Result<Option<Good>> {
        let salt = found.header.salt();
        let bytes = window.bytes(at, FRAME_HEADER_LEN as u64).map_err(|e| self.read_failed(found, &e))?;
        let Some(header) = bytes.and_then(|bytes| FrameHeader::decode(bytes, salt, at)) else { return Ok(None) };
        let (Some(len), Some(last_seq)) = (header.len(), header.last_seq()) else { return Ok(None) };
        if header.digest_before != before.digest || header.first_seq <= before.last_seq {
            return Ok(None);
        }
        let Some(bytes) = window.bytes(at, len).map_err(|e| self.read_failed(found, &e))? else { return Ok(None) };
        let (head, payload) = bytes.split_at(header.payload_at() as usize);
        let table = &head[FRAME_HEADER_LEN..];
        let listed: u64 = table.chunks_exact(BATCH_ENTRY_LEN).map(|entry| u64::from(BatchEntry::decode(entry).records)).sum();
        let payload_at = at + header.payload_at();
        let digest = digest_of(&header, table, payload, payload_at, salt, take)?;
        let good = listed == u64::from(header.records) && digest == Some(header.digest);
        let waved_through = planted(Bug::ApplyHalfBatch) || (planted(Bug::AcceptZeroTail) && payload.ends_with(&[0; 64]));
        if !good && !waved_through {
            take.give_back();
            return Ok(None);
        }
        table.chunks_exact(BATCH_ENTRY_LEN).for_each(|entry| take.batch(BatchEntry::decode(entry).batch_id));
        // A frame without records says something of the log and is no part of it: nothing depends on whether it
        // reached the disk.
        let end = match header.kind {
            FrameKind::Data => LogEnd { chunk: found.header.chunk, valid_bytes: at + len, last_seq, digest: header.digest },
            FrameKind::Beat | FrameKind::Close => {
                take.give_back();
                *before
            }
        };
        Ok(Some(Good { header, at, len, end }))
    }
}

/// Whether the chunk before chunk `i` of the chain is the one that was written to before it; else there were others.
fn follows(chain: &[Found], i: usize) -> bool {
    let before = chain[i].header.before.chunk;
    if i == 0 { before == 0 } else { chain[i - 1].header.chunk == before }
}

/// Where the log stood before this chunk, if the one before it is gone. Nobody can say any more how many of its bytes counted if that
/// was as many as there were.
fn end_of_removed(found: &Found) -> Option<LogEnd> {
    let end = found.header.end_before()?;
    let valid_bytes = if end.valid_bytes == TO_ITS_LAST_FRAME { CHUNK_HEADER_LEN as u64 } else { end.valid_bytes };
    Some(LogEnd { valid_bytes, ..end })
}

/// Where chunk `i` of the chain ends, as the manifest or its successor says; one that was made ahead may not say it.
pub fn expected(chain: &[Found], i: usize) -> Option<LogEnd> {
    chain[i].end.or(chain.get(i + 1).and_then(|next| next.header.end_before()))
}

/// How far it is to be read.
fn limit(chain: &[Found], i: usize) -> u64 {
    expected(chain, i).map_or(u64::MAX, |end| end.valid_bytes).min(chain[i].len)
}

/// Whether there are only zeros from `at` to `limit`.
fn is_zero(window: &mut Window<'_>, mut at: u64, limit: u64) -> std::io::Result<bool> {
    while at < limit {
        let len = (limit - at).min(1 << 16);
        if window.bytes(at, len)?.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
            return Ok(false);
        }
        at += len;
    }
    Ok(true)
}

/// The digest that a frame with these records has; `None` if a record is bad or their number is wrong.
fn digest_of(frame: &FrameHeader, table: &[u8], payload: &[u8], payload_at: u64, salt: Salt, take: &mut impl Take) -> Result<Option<u64>> {
    let mut digest = Digest::new(frame.digest_before);
    // A record takes more than its header: what the frame says of their number is not believed.
    let most = (frame.records as usize).min(payload.len() / HEADER_LEN);
    take.expect(most)?;
    let (mut at, mut records) = (0, 0);
    while at < payload.len() && records < most {
        let offset = payload_at + at as u64;
        if records + LANES <= most
            && let Some(row) = Record::next_lanes(&payload[at..], |from| salt.at(offset + from as u64))
        {
            take.take_row(&row, offset);
            for (_, len) in row {
                digest.record(stored_sum(&payload[at..]));
                at += len;
            }
            records += LANES;
            continue;
        }
        let Ok((record, len)) = Record::parse_checked(&payload[at..], salt.at(offset)) else { return Ok(None) };
        digest.record(stored_sum(&payload[at..]));
        take.take(&record, offset, len);
        at += len;
        records += 1;
    }
    digest.table(table);
    let whole = at == payload.len() && records == frame.records as usize;
    Ok(whole.then(|| digest.finish(frame.kind, frame.first_seq, frame.payload_len)))
}
