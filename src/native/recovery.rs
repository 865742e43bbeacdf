//! Recovery: from the files of a store to its index, and to the place where the log goes on.
//!
//! Replays the chain of chunks, oldest first. A bad frame is either the torn end of what was never acknowledged, and
//! cut, or damage of acknowledged data, and refused: the durable watermarks of everything behind it decide. Recovery
//! changes no file. What it cuts is recorded in the header of the next chunk, when there is one; until then the next
//! recovery comes to the same verdict.

use super::chunks::{Chunk, Chunks, file_name};
use super::frame::{
    BATCH_ENTRY_LEN, BatchEntry, CHUNK_HEADER_LEN, ChunkHeader, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd, Salt,
};
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
use crate::engine::record::{ALIGN, Kind, Record, stored_sum};
use crate::io::Dir;
use std::collections::VecDeque;

/// Times that recovery begins anew because the disk holds something else than the kernel had shown.
const LOOKS_MAX: u32 = 3;

/// Highest number of a chunk or record to go on from.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// A frame that is good in itself, and the next one behind a given end of the log.
struct Good {
    header: FrameHeader,
    at: u64,
    len: u64,
    /// The log's end with this frame.
    end: LogEnd,
}

/// A frame that nothing may have made durable: once a watermark reaches the end before it, everything before it is.
struct Doubt {
    chunk: u64,
    at: u64,
    before: LogEnd,
}

struct Replay<'a> {
    store_path: &'a str,
    hasher: &'a KeyHasher,
    index: &'a mut Index,
    chunks: &'a Chunks,
    end: LogEnd,
    watermark: u64,
    /// Where frames begin that nothing proves durable yet, by rising sequence numbers; the first is the one that counts.
    doubts: VecDeque<Doubt>,
}

/// Replays the store in `dir`. Returns how the log goes on.
pub fn recover(dir: &dyn Dir, store_path: &str, hasher: &KeyHasher, index: &mut Index, chunks: &Chunks) -> Result<LogStart> {
    for _ in 0..LOOKS_MAX {
        if let Some(start) = look(dir, store_path, hasher, index, chunks)? {
            return Ok(start);
        }
        chunks.clear();
        *index = Index::new()?;
    }
    let text = format!("store {store_path}: what its files hold changes from one look to the next: check the disk");
    Err(Error::new(Code::IO, text))
}

/// The same; `None` if the disk holds something else than the kernel had shown.
fn look(dir: &dyn Dir, store_path: &str, hasher: &KeyHasher, index: &mut Index, chunks: &Chunks) -> Result<Option<LogStart>> {
    let mut inventory = take_inventory(dir, store_path)?;
    inventory.found.sort_by_key(|found| found.header.chunk);
    let epoch = inventory.found.iter().map(|found| found.header.epoch).max().unwrap_or(0).saturating_add(1);
    check_number(inventory.highest_id, || file_name(inventory.highest_id), store_path)?;
    let next_chunk = inventory.highest_id + 1;
    let next_manifest = inventory.manifests.iter().max().copied().unwrap_or(0).saturating_add(1);
    let Some(newest) = inventory.found.last() else {
        if !inventory.manifests.is_empty() {
            return Err(missing(store_path, "all chunk files are"));
        }
        let mut store = [0; 16];
        store[..8].copy_from_slice(&random::secret_u64().to_le_bytes());
        store[8..].copy_from_slice(&random::secret_u64().to_le_bytes());
        let leftovers = inventory.unfinished.into_iter().map(file_name).collect();
        return Ok(Some(LogStart { store, epoch, next_chunk, end: LogEnd::default(), leftovers, next_manifest, manifest: None }));
    };
    let store = newest.header.store;
    check_identities(&inventory, &store, store_path)?;
    let manifest = read_manifest(dir, &inventory, &store, store_path)?;
    let manifests = inventory.manifests.clone();
    let (chain, mut leftovers) = chain_of(inventory, manifest.as_ref(), store_path)?;
    let mut replay = Replay { store_path, hasher, index, chunks, end: LogEnd::default(), watermark: 0, doubts: VecDeque::new() };
    replay.chain(&chain)?;
    // Behind a cut nothing counts any more, and a chunk that was begun and never used need not count.
    let kept = chain.iter().take_while(|found| found.header.chunk <= replay.end.chunk).count();
    if !replay.is_durable(dir, &chain, kept)? {
        return Ok(None);
    }
    check_number(replay.end.last_seq, || format!("record {}", replay.end.last_seq), store_path)?;
    leftovers.extend(chain[kept..].iter().map(|found| file_name(found.header.chunk)));
    for chunk in chunks.by_age().iter().filter(|chunk| chunk.id > replay.end.chunk) {
        chunks.remove(chunk)?;
    }
    // Also numbers of chunks that left no file are not used again: the manifest speaks for them.
    let next_chunk = next_chunk.max(manifest.as_ref().map_or(0, |manifest| manifest.covers.saturating_add(1)));
    let (end, manifest) = (replay.end, manifest.map(|manifest| manifest.number));
    leftovers.extend(manifests.into_iter().filter(|number| Some(*number) != manifest).map(manifest::file_name));
    Ok(Some(LogStart { store, epoch, next_chunk, end, leftovers, next_manifest, manifest }))
}

/// Numbers only rise. What stands in a file may be anything, and must leave room for all that can ever be written.
fn check_number(number: u64, what: impl Fn() -> String, store_path: &str) -> Result<()> {
    if number <= NUMBER_MAX {
        return Ok(());
    }
    let text = format!("store {store_path}: {} has a number that no store comes to: take it away or restore a backup", what());
    Err(Error::new(Code::NO_SPACE, text))
}

impl Replay<'_> {
    /// Replays the chain, as far as it is good.
    fn chain(&mut self, chain: &[Found]) -> Result<()> {
        for (i, found) in chain.iter().enumerate() {
            let chunk = self.chunks.add(&found.header, Arc::clone(&found.file), None)?;
            self.proven(found.header.watermark);
            if !follows(chain, i) {
                self.end = found.header.before;
                self.proven(self.end.last_seq); // nothing is removed before all of it is on stable storage
            }
            let (at, whole) = self.chunk(found, &chunk, limit(chain, i))?;
            chunk.seal(self.end);
            if let Some(end) = found.end {
                self.proven(end.last_seq); // a manifest names only what is on stable storage
            }
            match expected(chain, i) {
                None if whole => {}
                Some(end) if end.last_seq == self.end.last_seq && end.digest == self.end.digest => {}
                _ => return self.judge(&chain[i..], at),
            }
        }
        Ok(())
    }

    /// Everything up to `watermark` is on stable storage.
    fn proven(&mut self, watermark: u64) {
        self.watermark = self.watermark.max(watermark);
        while self.doubts.get(1).is_some_and(|next| next.before.last_seq <= self.watermark) {
            self.doubts.pop_front();
        }
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
        if proven > good_until {
            return Err(Error::new(
                Code::CORRUPTED,
                format!(
                    "store {}: {file} is damaged at byte {at}: records {} to {proven} were on stable storage and cannot be \
                     read; restore the store from a backup",
                    self.store_path,
                    good_until + 1
                ),
            ));
        }
        let text = format!("store {}: the unfinished end of {file} was cut at byte {at}", self.store_path);
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

    /// What was found must stay found: it is made durable before anybody reads it. False: it has changed by that.
    ///
    /// A sync alone would not do. If a sync failed earlier, the kernel may show bytes that it takes for written and that
    /// are not on the disk; whoever wrote behind them would lose everything with them. So what no watermark proves to
    /// be durable is synced, dropped from the kernel's memory, and read once more.
    fn is_durable(&self, dir: &dyn Dir, chain: &[Found], kept: usize) -> Result<bool> {
        if self.watermark < self.end.last_seq
            && let Some(first) = self.doubts.front()
        {
            let mut end = first.before;
            for (i, found) in chain[..kept].iter().enumerate().filter(|(_, found)| found.header.chunk >= first.chunk) {
                self.make_stable(found)?;
                let mut window = Window::new(&*found.file, limit(chain, i));
                if found.header.chunk != first.chunk && !follows(chain, i) {
                    end = found.header.before;
                }
                let mut at = if found.header.chunk == first.chunk { first.at } else { CHUNK_HEADER_LEN as u64 };
                while let Some(good) = self.next_frame(&mut window, found, at, &end)? {
                    at = good.at + good.len;
                    end = good.end;
                }
            }
            if end != self.end {
                return Ok(false);
            }
        }
        // A chunk that was begun and never used: its header may say where the one before it was cut.
        let Some(unused) = chain.get(kept) else { return Ok(true) };
        self.make_stable(unused)?;
        dir.sync().map_err(|e| Error::from_io(format_args!("store {}: syncing the directory failed", self.store_path), &e))?;
        let mut header = Window::new(&*unused.file, CHUNK_HEADER_LEN as u64);
        let block = header.bytes(0, CHUNK_HEADER_LEN as u64).map_err(|e| self.read_failed(unused, &e))?;
        Ok(block.map(ChunkHeader::decode) == Some(Ok(unused.header)))
    }

    /// Syncs a file and has the next reads come from the disk.
    fn make_stable(&self, found: &Found) -> Result<()> {
        found.file.sync().map_err(|e| {
            let file = file_name(found.header.chunk);
            Error::from_io(format_args!("store {}: syncing {file} failed", self.store_path), &e)
        })?;
        found.file.forget();
        Ok(())
    }

    fn read_failed(&self, found: &Found, error: &std::io::Error) -> Error {
        let file = file_name(found.header.chunk);
        Error::from_io(format_args!("store {}: reading {file} failed, so it is not known what it holds", self.store_path), error)
    }

    /// Replays one chunk up to `limit`. Returns where the good frames end, and whether nothing lies behind them.
    fn chunk(&mut self, found: &Found, chunk: &Chunk, limit: u64) -> Result<(u64, bool)> {
        let mut window = Window::new(&*found.file, limit);
        let mut at = CHUNK_HEADER_LEN as u64;
        while let Some(good) = self.next_frame(&mut window, found, at, &self.end)? {
            at = good.at + good.len;
            if good.header.kind == FrameKind::Data {
                if good.at % BLOCK_BYTES as u64 == 0 || self.doubts.is_empty() {
                    self.doubts.push_back(Doubt { chunk: chunk.id, at: good.at, before: self.end });
                }
                let payload_at = good.at + good.header.payload_at();
                let payload = window.bytes(payload_at, good.header.payload_len).map_err(|e| self.read_failed(found, &e))?;
                apply(self.index, self.hasher, self.chunks, chunk, payload.unwrap_or(&[]), payload_at)?;
            }
            self.end = good.end;
            self.proven(good.header.watermark);
        }
        let rest_is_zero = is_zero(&mut window, at, limit).map_err(|e| self.read_failed(found, &e))?;
        Ok((at, rest_is_zero))
    }

    /// The frame that follows the log's end `before`, looked for from `at` on.
    ///
    /// It follows at once, or, behind a sync, on the next fresh block. What lies in the gap says nothing: a crash may
    /// leave anything where nobody has written. The digest tells whether it is the next.
    fn next_frame(&self, window: &mut Window<'_>, found: &Found, at: u64, before: &LogEnd) -> Result<Option<Good>> {
        let fresh = at.next_multiple_of(BLOCK_BYTES as u64);
        let good = self.frame(window, found, at, before)?;
        if good.is_some() || fresh == at { Ok(good) } else { self.frame(window, found, fresh, before) }
    }

    /// The frame at `at`, if there is one, all of it is good, and it follows `before`.
    fn frame(&self, window: &mut Window<'_>, found: &Found, at: u64, before: &LogEnd) -> Result<Option<Good>> {
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
        let good = listed == u64::from(header.records) && digest_of(&header, table, payload, payload_at, salt) == Some(header.digest);
        let waved_through = planted(Bug::ApplyHalfBatch) || (planted(Bug::AcceptZeroTail) && payload.ends_with(&[0; 64]));
        if !good && !waved_through {
            return Ok(None);
        }
        // A frame without records says something of the log and is no part of it: nothing depends on whether it
        // reached the disk.
        let end = match header.kind {
            FrameKind::Data => LogEnd { chunk: found.header.chunk, valid_bytes: at + len, last_seq, digest: header.digest },
            FrameKind::Beat | FrameKind::Close => *before,
        };
        Ok(Some(Good { header, at, len, end }))
    }
}

/// Whether the chunk before chunk `i` of the chain is the one that was written to before it; else there were others.
fn follows(chain: &[Found], i: usize) -> bool {
    let before = chain[i].header.before.chunk;
    if i == 0 { before == 0 } else { chain[i - 1].header.chunk == before }
}

/// Where chunk `i` of the chain ends, as the manifest or its successor says.
fn expected(chain: &[Found], i: usize) -> Option<LogEnd> {
    chain[i].end.or(chain.get(i + 1).map(|next| next.header.before))
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
fn digest_of(frame: &FrameHeader, table: &[u8], payload: &[u8], payload_at: u64, salt: Salt) -> Option<u64> {
    let mut digest = Digest::new(frame.digest_before);
    let (mut at, mut records) = (0, 0);
    while at < payload.len() {
        let (_, len) = Record::parse_checked(&payload[at..], salt.at(payload_at + at as u64)).ok()?;
        digest.record(stored_sum(&payload[at..]));
        at += len;
        records += 1;
    }
    digest.table(table);
    (records == frame.records).then(|| digest.finish(frame.kind, frame.first_seq, frame.payload_len))
}

fn apply(index: &mut Index, hasher: &KeyHasher, chunks: &Chunks, chunk: &Chunk, payload: &[u8], payload_at: u64) -> Result<()> {
    let view = chunks.view();
    let mut at = 0;
    while let Ok((record, len)) = Record::parse_checked(&payload[at..], chunk.salt.at(payload_at + at as u64)) {
        let hash = hasher.hash(record.key);
        let replaced = match record.kind {
            Kind::Put => {
                index.reserve(&mut std::iter::once(hash))?;
                index.put(&hash, Place::new(chunk.slot, payload_at + at as u64, len))
            }
            Kind::Delete => {
                chunk.tombstones.fetch_add(1, Ordering::Relaxed);
                chunk.dead_bytes.fetch_add(len as u64, Ordering::Relaxed);
                index.remove(&hash)
            }
        };
        if let Some(old) = replaced
            && let Some(Some(seen)) = view.get(old.slot() as usize)
        {
            seen.chunk.dead_bytes.fetch_add(old.len_at_most() as u64, Ordering::Relaxed);
        }
        chunk.record_bytes.fetch_add(len as u64, Ordering::Relaxed);
        at += len;
    }
    Ok(())
}
