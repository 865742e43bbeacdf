//! Recovery: from the files of a store to its index, and to the place where the log goes on.
//!
//! Loads the newest checkpoint that fits, and replays the chain of chunks from there; without one, from the first chunk.
//! A bad frame is either the torn end of what was never acknowledged, and cut, or damage of acknowledged data, and
//! refused: the durable watermarks of everything behind it decide. Recovery changes no file. What it cuts is recorded in
//! the header of the next chunk, when there is one; until then the next recovery comes to the same verdict.

use super::apply::{Applier, BATCH_OPS, Batch, Counts, Op};
use super::checkpoint::{Checkpoint, Files};
use super::chunks::{Chunk, Chunks, file_name};
use super::frame::{BATCH_ENTRY_LEN, BatchEntry, CHUNK_HEADER_LEN, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd};
use super::index::{Index, Place};
use super::inventory::{Found, chain_of, check_identities, missing, read_manifest, take_inventory};
use super::log::LogStart;
use super::manifest;
use super::window::Window;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHasher;
use crate::base::limits::BLOCK_BYTES;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::random;
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::engine::record::{ALIGN, HEADER_LEN, Record, stored_sum};
use crate::io::Dir;

/// From this many bytes of log on, records are applied beside the reading.
const BYTES_FOR_TWO: u64 = 8 << 20;

/// How far opening has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of log that are done.
    pub done: u64,
    /// Bytes of log that there are to go through.
    pub total: u64,
}

/// A store that was read.
pub struct Recovered {
    /// How the log goes on.
    pub start: LogStart,
    /// Where everything is.
    pub index: Index,
    /// The secret of the hash under which it is there.
    pub secret: [u64; 2],
    /// The checkpoints there are.
    pub checkpoints: Files,
    /// Keys that came from a checkpoint.
    pub loaded_keys: u64,
    /// Bytes of log that were gone through.
    pub replayed: u64,
}

/// How far the replay of a chunk came.
enum Replayed {
    /// To its end.
    Whole { closed: bool },
    /// To a place behind which nothing is good.
    Torn { at: u64 },
}

/// A store whose files are known, about to be read.
struct Store<'a> {
    path: &'a str,
    chunks: &'a Chunks,
    chain: &'a [Found],
    /// The last chunk that the manifest speaks for.
    covers: u64,
    /// The checkpoint that proves most about the log.
    witness: Option<&'a Checkpoint>,
}

/// What reading gave.
struct Reading {
    index: Index,
    /// Chunks of the chain that count.
    kept: usize,
    end: LogEnd,
    loaded_keys: u64,
    replayed: u64,
}

struct Replay<'a> {
    store: &'a Store<'a>,
    hasher: KeyHasher,
    /// The checkpoint that the index begins with.
    from: Option<&'a Checkpoint>,
    /// The log went through the place that the checkpoint ends with.
    passed: bool,
    end: LogEnd,
    watermark: u64,
    batch: Batch,
    apply: &'a mut dyn FnMut(Batch) -> Result<Batch>,
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

/// Reads the store in `dir`. `secret` is for the hash, unless a checkpoint brings its own. `tell` hears how far it is.
pub fn recover(dir: &dyn Dir, store_path: &str, secret: [u64; 2], chunks: &Chunks, tell: &mut dyn FnMut(Progress)) -> Result<Recovered> {
    let mut inventory = take_inventory(dir, store_path)?;
    inventory.found.sort_by_key(|found| found.header.chunk);
    let epoch = inventory.found.iter().map(|found| found.header.epoch).max().unwrap_or(0) + 1;
    let next_chunk = inventory.highest_id + 1;
    let next_manifest = inventory.manifests.iter().max().copied().unwrap_or(0) + 1;
    let mut numbers = std::mem::take(&mut inventory.checkpoints);
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut files = Files { next: numbers.first().copied().unwrap_or(0) + 1, ..Files::default() };
    let newest = inventory.found.last().map(|newest| newest.header.store);
    let known: Vec<_> = numbers.iter().filter_map(|number| Checkpoint::open(dir, *number)).collect();
    let Some(store) = newest else {
        if !inventory.manifests.is_empty() || !known.is_empty() {
            return Err(missing(store_path, "all chunk files are"));
        }
        let mut store = [0; 16];
        store[..8].copy_from_slice(&random::secret_u64().to_le_bytes());
        store[8..].copy_from_slice(&random::secret_u64().to_le_bytes());
        let leftovers = inventory.unfinished.into_iter().map(file_name).collect();
        let start = LogStart { store, epoch, next_chunk, end: LogEnd::default(), leftovers, next_manifest, manifest: None, covers: 0 };
        files.others = numbers;
        return Ok(Recovered { start, index: Index::new()?, secret, checkpoints: files, loaded_keys: 0, replayed: 0 });
    };
    check_identities(&inventory, &store, store_path)?;
    let manifest = read_manifest(dir, &inventory, &store, store_path)?;
    let manifests = inventory.manifests.clone();
    let (chain, mut leftovers) = chain_of(inventory, manifest.as_ref(), store_path)?;
    let (known, foreign): (Vec<_>, Vec<_>) = known.into_iter().partition(|checkpoint| checkpoint.head.store == store);
    let covers = manifest.as_ref().map_or(0, |manifest| manifest.covers);
    let witness = known.iter().max_by_key(|checkpoint| checkpoint.tail.end.last_seq);
    let found = Store { path: store_path, chunks, chain: &chain, covers, witness };
    let (reading, used) = found.read_best(&known, secret, tell)?;
    leftovers.extend(chain[reading.kept..].iter().map(|found| file_name(found.header.chunk)));
    let manifest = manifest.map(|manifest| manifest.number);
    leftovers.extend(manifests.into_iter().filter(|number| Some(*number) != manifest).map(manifest::file_name));
    files.good = used.map(|checkpoint| checkpoint.head.number);
    let is_foreign = |number: &u64| foreign.iter().any(|checkpoint| checkpoint.head.number == *number);
    files.others = numbers.into_iter().filter(|number| Some(*number) != files.good && !is_foreign(number)).collect();
    Ok(Recovered {
        start: LogStart { store, epoch, next_chunk, end: reading.end, leftovers, next_manifest, manifest, covers },
        index: reading.index,
        secret: used.map_or(secret, |checkpoint| checkpoint.head.secret),
        checkpoints: files,
        loaded_keys: reading.loaded_keys,
        replayed: reading.replayed,
    })
}

impl Store<'_> {
    /// Reads with the newest checkpoint that will do, or without.
    fn read_best<'a>(
        &self,
        known: &'a [Checkpoint],
        secret: [u64; 2],
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(Reading, Option<&'a Checkpoint>)> {
        for checkpoint in known {
            match self.read(Some(checkpoint), checkpoint.head.secret, tell) {
                Ok(Some(reading)) => return Ok((reading, Some(checkpoint))),
                // Damage, perhaps of the checkpoint: the log alone has to say.
                Ok(None) => {}
                Err(error) if error.code == Code::CORRUPTED => {}
                Err(error) => return Err(error),
            }
            let text = format!("store {}: {} is of no use", self.path, checkpoint.name());
            log::write(log::Level::Info, "recover", &text);
        }
        match self.read(None, secret, tell)? {
            Some(reading) => Ok((reading, None)),
            None => Err(Error::new(Code::UNKNOWN, "internal error: a log does not fit itself")),
        }
    }

    /// Reads the store from a checkpoint on, or all of it. `None`: the checkpoint does not fit.
    fn read(&self, from: Option<&Checkpoint>, secret: [u64; 2], tell: &mut dyn FnMut(Progress)) -> Result<Option<Reading>> {
        self.chunks.clear();
        let mut applier = Applier { index: Index::new()?, counts: Vec::new() };
        if let Some(checkpoint) = from
            && !(self.explains(checkpoint) && load(checkpoint, &mut applier)?)
        {
            return Ok(None);
        }
        let loaded_keys = applier.index.len() as u64;
        let start = from.map_or(LogEnd::default(), |checkpoint| checkpoint.head.start);
        let to_replay = |found: &Found| match found.header.chunk.cmp(&start.chunk) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => found.len.saturating_sub(start.valid_bytes),
            std::cmp::Ordering::Greater => found.len,
        };
        let total = self.chain.iter().map(to_replay).sum();
        let (end, passed) = applier.run(total >= BYTES_FOR_TWO, |apply| {
            let mut replay = Replay {
                store: self,
                hasher: KeyHasher::new(secret),
                from,
                passed: false,
                end: LogEnd::default(),
                watermark: 0,
                batch: Batch::default(),
                apply,
                progress: Progress { done: 0, total },
                tell: &mut *tell,
            };
            replay.chain()?;
            Ok((replay.end, replay.passed))
        })?;
        // Behind a cut nothing counts any more, and a chunk that was begun and never used need not count.
        for chunk in self.chunks.by_age().iter().filter(|chunk| chunk.id > end.chunk) {
            self.chunks.remove(chunk)?;
        }
        let kept = self.chain.iter().take_while(|found| found.header.chunk <= end.chunk).count();
        if let Some(checkpoint) = from {
            // The log must be the one that the checkpoint was made from.
            let went_there = passed || (!self.has(checkpoint.tail.end.chunk) && end.last_seq >= checkpoint.tail.end.last_seq);
            if !went_there {
                return Ok(None);
            }
            self.forget_removed(&mut applier)?;
        }
        Ok(self.count(&mut applier).then_some(Reading { index: applier.index, kept, end, loaded_keys, replayed: total }))
    }

    /// Whether chunk `id` is in the chain.
    fn has(&self, id: u64) -> bool {
        self.chain.binary_search_by_key(&id, |found| found.header.chunk).is_ok()
    }

    /// Where a chunk of the chain ends, as its manifest or its successor says.
    fn end_of(&self, i: usize) -> Option<LogEnd> {
        self.chain.get(i).and_then(|found| found.end).or(self.chain.get(i + 1).map(|next| next.header.before))
    }

    /// Whether all chunks that a checkpoint builds upon are there, as far as their headers say, or were removed in order.
    fn explains(&self, checkpoint: &Checkpoint) -> bool {
        let (start, end) = (checkpoint.head.start, checkpoint.tail.end);
        let there = |id| id <= self.covers || self.has(id);
        let as_known = |(i, found): (usize, &Found)| {
            let Some(slot) = checkpoint.slot_of(found.header.chunk) else { return false };
            match self.end_of(i) {
                _ if found.header.chunk == start.chunk => {
                    start.valid_bytes <= found.len && self.end_of(i).is_none_or(|end| start.valid_bytes <= end.valid_bytes)
                }
                Some(end) => {
                    let same = |known: LogEnd| known.last_seq == end.last_seq && known.digest == end.digest;
                    end.valid_bytes <= found.len && slot.end.is_some_and(same)
                }
                None => false,
            }
        };
        let mut before = self.chain.iter().enumerate().take_while(|(_, found)| found.header.chunk <= start.chunk);
        there(start.chunk) && there(end.chunk) && before.all(as_known)
    }

    /// Takes out what lies in chunks that are gone (see `checkpoint` for why), as long as no slot has changed hands.
    fn forget_removed(&self, applier: &mut Applier) -> Result<()> {
        let view = self.chunks.view();
        let is_there = |slot: u32| matches!(view.get(slot as usize), Some(Some(_)));
        // The counts are of the slots that entries have ever named.
        let all_there = applier.counts.iter().zip(0..).all(|(counts, slot)| is_there(slot) || counts.live_bytes() == 0);
        if !all_there {
            applier.index.retain(|place| is_there(place.slot()))?;
        }
        Ok(())
    }

    /// Gives the chunks their counts; false if these cannot be.
    fn count(&self, applier: &mut Applier) -> bool {
        self.chunks.view().iter().flatten().all(|seen| {
            let counts = applier.counts.get(seen.chunk.slot as usize).copied().unwrap_or_default();
            seen.chunk.record_bytes.store(counts.record_bytes, Ordering::Relaxed);
            seen.chunk.dead_bytes.store(counts.dead_bytes, Ordering::Relaxed);
            seen.chunk.tombstones.store(counts.tombstones, Ordering::Relaxed);
            counts.dead_bytes <= counts.record_bytes
        })
    }
}

/// Loads the index and the counts of a checkpoint; false if it cannot be trusted.
fn load(checkpoint: &Checkpoint, applier: &mut Applier) -> Result<bool> {
    let Some(live) = checkpoint.load(&mut applier.index) else { return Ok(false) };
    for slot in &checkpoint.tail.slots {
        let live_bytes = live.get(slot.slot as usize).copied().unwrap_or(0);
        let dead_bytes = slot.record_bytes.wrapping_sub(live_bytes);
        *applier.slot(slot.slot)? = Counts { record_bytes: slot.record_bytes, dead_bytes, tombstones: slot.tombstones };
    }
    Ok(true)
}

impl Replay<'_> {
    /// Replays the chain.
    fn chain(&mut self) -> Result<()> {
        let chain = self.store.chain;
        let start = self.from.map_or(LogEnd::default(), |checkpoint| checkpoint.head.start);
        let mut closed = false;
        for (i, found) in chain.iter().enumerate() {
            let header = &found.header;
            let chunk = self.add(found)?;
            self.watermark = self.watermark.max(header.watermark);
            let expected = self.store.end_of(i);
            if let Some(end) = expected
                && header.chunk < start.chunk
            {
                chunk.seal(end);
                self.end = end;
                continue;
            }
            let limit = expected.map_or(found.len, |end| end.valid_bytes.min(found.len));
            // Chunks between this one and the one before it may have been removed.
            self.reach(if header.chunk == start.chunk { start } else { header.before });
            let replayed = self.chunk(found, &chunk, limit)?;
            self.flush()?;
            chunk.seal(self.end);
            let at = match (&replayed, expected) {
                (Replayed::Whole { .. }, None) => {
                    closed = matches!(replayed, Replayed::Whole { closed: true });
                    continue;
                }
                (_, Some(end)) if end.last_seq == self.end.last_seq && end.digest == self.end.digest => continue,
                (Replayed::Whole { .. }, Some(_)) => self.end.valid_bytes,
                (Replayed::Torn { at }, _) => *at,
            };
            self.watermark = self.watermark.max(found.end.map_or(0, |end| end.last_seq));
            self.judge(&chain[i..], at)?;
            return self.sync(&chain[..=i]);
        }
        if let Some(witness) = self.store.witness
            && witness.tail.end.last_seq > self.end.last_seq
        {
            return Err(self.too_short(witness));
        }
        if closed { Ok(()) } else { self.sync(chain) }
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

    /// The log is good to its end, and that is not all.
    fn too_short(&self, witness: &Checkpoint) -> Error {
        let (path, name, good_until) = (self.store.path, witness.name(), self.end.last_seq);
        let (file, last) = (file_name(self.end.chunk), witness.tail.end.last_seq);
        let text = format!(
            "store {path}: records {} to {last} were on stable storage, as {name} says, and are missing behind byte {} of {file}: \
             restore the store from a backup (or move {name} away, if older chunk files were put there on purpose)",
            good_until + 1,
            self.end.valid_bytes
        );
        Error::new(Code::CORRUPTED, text)
    }

    fn flush(&mut self) -> Result<()> {
        if !self.batch.ops.is_empty() {
            self.batch = (self.apply)(std::mem::take(&mut self.batch))?;
            (self.tell)(self.progress);
        }
        Ok(())
    }

    /// Nothing good is at byte `at` of the first chunk of `rest`: a torn tail, or damage?
    fn judge(&self, rest: &[Found], at: u64) -> Result<()> {
        let good_until = self.end.last_seq;
        let witness = self.store.witness.map_or(0, |witness| witness.tail.end.last_seq);
        let mut proven = self.watermark.max(witness);
        for (i, found) in rest.iter().enumerate() {
            proven = proven.max(found.header.watermark);
            if proven <= good_until {
                proven = proven.max(self.evidence(found, if i == 0 { at } else { CHUNK_HEADER_LEN as u64 })?);
            }
        }
        let file = file_name(rest.first().map_or(0, |found| found.header.chunk));
        if proven > good_until {
            return Err(Error::new(
                Code::CORRUPTED,
                format!(
                    "store {}: {file} is damaged at byte {at}: records {} to {proven} were on stable storage and cannot be \
                     read; restore the store from a backup",
                    self.store.path,
                    good_until + 1
                ),
            ));
        }
        let text = format!("store {}: the unfinished end of {file} was cut at byte {at}", self.store.path);
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

    /// What was found must stay found: it is made durable before anybody reads it.
    fn sync(&self, chunks: &[Found]) -> Result<()> {
        // A chunk is synced before frames behind it are acknowledged, but not before its successor is begun.
        let mut covered = false;
        for (i, found) in chunks.iter().enumerate().rev() {
            if covered {
                break;
            }
            found.file.sync().map_err(|e| {
                let file = file_name(found.header.chunk);
                Error::from_io(format_args!("store {}: syncing {file} failed", self.store.path), &e)
            })?;
            covered = i > 0 && (found.end.is_some() || found.header.watermark >= found.header.before.last_seq);
        }
        Ok(())
    }

    fn read_failed(&self, found: &Found, error: &std::io::Error) -> Error {
        let file = file_name(found.header.chunk);
        Error::from_io(format_args!("store {}: reading {file} failed, so it is not known what it holds", self.store.path), error)
    }

    /// Replays one chunk, from where the log is good if that is in it, up to `limit`.
    fn chunk(&mut self, found: &Found, chunk: &Chunk, limit: u64) -> Result<Replayed> {
        let mut window = Window::new(&*found.file, limit);
        let mut at = if self.end.chunk == chunk.id { self.end.valid_bytes } else { CHUNK_HEADER_LEN as u64 };
        let mut closed = false;
        loop {
            // The next frame follows at once, or, behind a sync, on the next fresh block. What lies in the gap says
            // nothing: a crash may leave anything where nobody has written. The digest tells whether it is the next.
            let mut next = None;
            for place in [at, at.next_multiple_of(BLOCK_BYTES as u64)] {
                next = self.frame(&mut window, found, chunk, place)?;
                if next.is_some() {
                    break;
                }
            }
            let Some((kind, end)) = next else {
                let rest_is_zero = is_zero(&mut window, at, limit).map_err(|e| self.read_failed(found, &e))?;
                return Ok(if rest_is_zero { Replayed::Whole { closed } } else { Replayed::Torn { at } });
            };
            closed = kind == FrameKind::Close && self.watermark >= self.end.last_seq;
            at = end;
        }
    }

    /// Takes in the frame at `at` if there is one and all of it is good; returns its kind and end.
    fn frame(&mut self, window: &mut Window<'_>, found: &Found, chunk: &Chunk, at: u64) -> Result<Option<(FrameKind, u64)>> {
        let header = window.bytes(at, FRAME_HEADER_LEN as u64).map_err(|e| self.read_failed(found, &e))?;
        let Some(frame) = header.and_then(|bytes| FrameHeader::decode(bytes, chunk.salt, at)) else { return Ok(None) };
        let fits = frame.len().and_then(|len| at.checked_add(len)).filter(|end| *end <= window.end());
        let (Some(end), Some(last_seq)) = (fits, frame.last_seq()) else { return Ok(None) };
        if frame.digest_before != self.end.digest || frame.first_seq <= self.end.last_seq {
            return Ok(None);
        }
        let read = window.bytes(at, end - at).map_err(|e| self.read_failed(found, &e))?;
        let Some(bytes) = read else { return Ok(None) };
        let (head, payload) = bytes.split_at(frame.payload_at() as usize);
        let table = &head[FRAME_HEADER_LEN..];
        let listed: u64 = table.chunks_exact(BATCH_ENTRY_LEN).map(|entry| u64::from(BatchEntry::decode(entry).records)).sum();
        let payload_at = at + frame.payload_at();
        let before = self.batch.ops.len();
        let digest = self.records(&frame, table, payload, payload_at, chunk)?;
        let good = listed == u64::from(frame.records) && digest == Some(frame.digest);
        let zero_tail = payload.ends_with(&[0; 64]);
        let waved_through = planted(Bug::ApplyHalfBatch) || (planted(Bug::AcceptZeroTail) && zero_tail);
        if !good && !waved_through {
            self.batch.ops.truncate(before);
            return Ok(None);
        }
        self.watermark = self.watermark.max(frame.watermark);
        self.progress.done += end - at;
        if frame.kind != FrameKind::Data {
            // It says something of the log and is no part of it: nothing depends on whether it reached the disk.
            self.batch.ops.truncate(before);
            return Ok(Some((frame.kind, end)));
        }
        self.reach(LogEnd { chunk: chunk.id, valid_bytes: end, last_seq: last_seq.max(self.end.last_seq), digest: frame.digest });
        if self.batch.ops.len() >= BATCH_OPS {
            self.flush()?;
        }
        Ok(Some((frame.kind, end)))
    }

    /// Takes in the records of a frame; its digest, or `None` if a record is bad or their number is wrong.
    fn records(&mut self, frame: &FrameHeader, table: &[u8], payload: &[u8], payload_at: u64, chunk: &Chunk) -> Result<Option<u64>> {
        let mut digest = Digest::new(frame.digest_before);
        self.batch.slot = chunk.slot;
        let ops = &mut self.batch.ops;
        let before = ops.len();
        // A record takes more than its header: what the frame says of their number is not believed.
        let most = (frame.records as usize).min(payload.len() / HEADER_LEN);
        ops.try_reserve(most).map_err(|_| Error::no_memory("no memory to recover a store with: free memory"))?;
        let mut at = 0;
        while at < payload.len() && ops.len() - before < most {
            let offset = payload_at + at as u64;
            let Ok((record, len)) = Record::parse_checked(&payload[at..], chunk.salt.at(offset)) else { return Ok(None) };
            digest.record(stored_sum(&payload[at..]));
            ops.push(Op { hash: self.hasher.hash(record.key), place: Place::new(chunk.slot, offset, len), kind: record.kind });
            at += len;
        }
        digest.table(table);
        let whole = at == payload.len() && ops.len() - before == frame.records as usize;
        Ok(whole.then(|| digest.finish(frame.kind, frame.first_seq, frame.payload_len)))
    }
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
