//! Recovery: from the files of a store to its index, and to the place where the log goes on.
//!
//! Replays the chain of chunks, oldest first. A bad frame is either the torn end of what was never acknowledged, and
//! cut, or damage of acknowledged data, and refused: the durable watermarks of everything behind it decide. Recovery
//! changes no file. What it cuts is recorded in the header of the next chunk, when there is one; until then the next
//! recovery comes to the same verdict.

use super::chunks::{Chunk, Chunks, file_name, id_of};
use super::frame::{
    BATCH_ENTRY_LEN, BadHeader, BatchEntry, CHUNK_HEADER_LEN, ChunkHeader, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd,
};
use super::index::{Index, Place};
use super::log::LogStart;
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
use crate::io::{Dir, File, read_full_at};

/// A chunk file with a good header.
struct Found {
    header: ChunkHeader,
    file: Arc<dyn File>,
    len: u64,
}

/// What the directory holds.
struct Inventory {
    found: Vec<Found>,
    /// Chunk files without a good header: begun, and never used.
    unfinished: Vec<u64>,
    highest_id: u64,
}

/// How far the replay of a chunk came.
enum Replayed {
    /// To its end.
    Whole { closed: bool },
    /// To a place behind which nothing is good.
    Torn { at: u64 },
}

struct Replay<'a> {
    store_path: &'a str,
    hasher: &'a KeyHasher,
    index: &'a mut Index,
    chunks: &'a Chunks,
    end: LogEnd,
    watermark: u64,
}

/// Replays the store in `dir`. Returns how the log goes on.
pub fn recover(dir: &dyn Dir, store_path: &str, hasher: &KeyHasher, index: &mut Index, chunks: &Chunks) -> Result<LogStart> {
    let mut inventory = take_inventory(dir, store_path)?;
    inventory.found.sort_by_key(|found| found.header.chunk);
    let epoch = inventory.found.iter().map(|found| found.header.epoch).max().unwrap_or(0) + 1;
    let next_chunk = inventory.highest_id + 1;
    let Some(newest) = inventory.found.last() else {
        let mut store = [0; 16];
        store[..8].copy_from_slice(&random::secret_u64().to_le_bytes());
        store[8..].copy_from_slice(&random::secret_u64().to_le_bytes());
        let leftovers = inventory.unfinished.into_iter().map(file_name).collect();
        return Ok(LogStart { store, epoch, next_chunk, end: LogEnd::default(), leftovers });
    };
    let store = newest.header.store;
    check_identities(&inventory, &store, store_path)?;
    let (chain, mut leftovers) = chain_of(inventory, store_path)?;
    let mut replay = Replay { store_path, hasher, index, chunks, end: LogEnd::default(), watermark: 0 };
    replay.chain(&chain)?;
    // Behind a cut nothing counts any more, and a chunk that was begun and never used need not count.
    let kept = replay.kept(&chain);
    leftovers.extend(chain[kept..].iter().map(|found| file_name(found.header.chunk)));
    Ok(LogStart { store, epoch, next_chunk, end: replay.end, leftovers })
}

fn take_inventory(dir: &dyn Dir, store_path: &str) -> Result<Inventory> {
    let names = dir.list().map_err(|e| Error::from_io(format_args!("store {store_path}: cannot list the directory"), &e))?;
    let mut inventory = Inventory { found: Vec::new(), unfinished: Vec::new(), highest_id: 0 };
    for (id, name) in names.iter().filter_map(|name| id_of(name).map(|id| (id, name))) {
        let failed = |e: &std::io::Error| Error::from_io(format_args!("store {store_path}: cannot read {name}"), e);
        let file = dir.open(name).map_err(|e| failed(&e))?;
        let len = file.len().map_err(|e| failed(&e))?;
        let mut block = vec![0; CHUNK_HEADER_LEN];
        let got = read_full_at(&*file, &mut block, 0).map_err(|e| failed(&e))?;
        inventory.highest_id = inventory.highest_id.max(id);
        match ChunkHeader::decode(&block[..got]) {
            Ok(header) if header.chunk == id => inventory.found.push(Found { header, file, len }),
            Ok(header) => {
                let was = file_name(header.chunk);
                return Err(Error::new(
                    Code::CORRUPTED,
                    format!("store {store_path}: {name} is a copy of {was} or was renamed: take it away or give it its name back"),
                ));
            }
            Err(BadHeader::Newer) => {
                return Err(Error::new(
                    Code::NOT_SUPPORTED,
                    format!("store {store_path}: {name} was written by a newer version of the library: open it with that version"),
                ));
            }
            Err(BadHeader::Damaged) if holds_frames(&*file, len).map_err(|e| failed(&e))? => {
                return Err(Error::new(
                    Code::CORRUPTED,
                    format!("store {store_path}: the header of {name} is damaged: restore the file from a backup"),
                ));
            }
            Err(BadHeader::Damaged) => inventory.unfinished.push(id),
        }
    }
    Ok(inventory)
}

/// Whether anything was ever written behind the header: it is durable before the first frame is written.
fn holds_frames(file: &dyn File, len: u64) -> std::io::Result<bool> {
    let mut buf = vec![0; 1 << 16];
    let mut offset = CHUNK_HEADER_LEN as u64;
    while offset < len {
        let got = read_full_at(file, &mut buf, offset)?;
        if got == 0 {
            break;
        }
        if buf[..got].iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        offset += got as u64;
    }
    Ok(false)
}

fn check_identities(inventory: &Inventory, store: &[u8; 16], store_path: &str) -> Result<()> {
    let Some(foreign) = inventory.found.iter().find(|found| found.header.store != *store) else { return Ok(()) };
    let (foreign, newest) = (foreign.header.chunk, inventory.found.last().map_or(0, |found| found.header.chunk));
    Err(Error::new(
        Code::CONFIG,
        format!(
            "store {store_path}: {} and {} belong to different stores: move the foreign file away",
            file_name(foreign),
            file_name(newest)
        ),
    ))
}

/// The chunks from the first to the newest, each named by its successor, and the files that are not among them.
fn chain_of(inventory: Inventory, store_path: &str) -> Result<(Vec<Found>, Vec<String>)> {
    let Inventory { mut found, unfinished, .. } = inventory;
    let mut chain = Vec::new();
    let mut leftovers: Vec<String> = unfinished.iter().copied().map(file_name).collect();
    let mut wanted = found.last().map_or(0, |newest| newest.header.chunk);
    while let Some(candidate) = found.pop() {
        if candidate.header.chunk > wanted {
            leftovers.push(file_name(candidate.header.chunk)); // cut off by an earlier recovery
            continue;
        }
        if candidate.header.chunk < wanted {
            break;
        }
        wanted = candidate.header.before.chunk;
        chain.push(candidate);
        if wanted == 0 {
            break;
        }
    }
    if wanted != 0 {
        let what = if unfinished.contains(&wanted) { "has a damaged header" } else { "is missing" };
        return Err(Error::new(Code::CORRUPTED, format!("store {store_path}: {} {what}: restore it from a backup", file_name(wanted))));
    }
    leftovers.extend(found.iter().map(|older| file_name(older.header.chunk)));
    chain.reverse();
    Ok((chain, leftovers))
}

impl Replay<'_> {
    /// How many chunks of the chain hold what counts: its last one is where the log ends.
    fn kept(&self, chain: &[Found]) -> usize {
        chain.iter().take_while(|found| found.header.chunk <= self.end.chunk).count()
    }

    /// Replays the chain.
    fn chain(&mut self, chain: &[Found]) -> Result<()> {
        let mut closed = false;
        for (i, found) in chain.iter().enumerate() {
            let chunk = self.chunks.add(&found.header, Arc::clone(&found.file), None)?;
            self.watermark = self.watermark.max(found.header.watermark);
            let successor = chain.get(i + 1).map(|next| next.header.before);
            let limit = successor.map_or(found.len, |before| before.valid_bytes.min(found.len));
            let replayed = self.chunk(found, &chunk, limit)?;
            let at = match (&replayed, successor) {
                (Replayed::Whole { .. }, None) => {
                    closed = matches!(replayed, Replayed::Whole { closed: true });
                    continue;
                }
                (_, Some(before)) if before.last_seq == self.end.last_seq && before.digest == self.end.digest => continue,
                (Replayed::Whole { .. }, Some(_)) => self.end.valid_bytes,
                (Replayed::Torn { at }, _) => *at,
            };
            self.judge(&chain[i..], at)?;
            return self.sync(&chain[..=i]);
        }
        if closed { Ok(()) } else { self.sync(chain) }
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
                Error::from_io(format_args!("store {}: syncing {file} failed", self.store_path), &e)
            })?;
            covered = i > 0 && found.header.watermark >= found.header.before.last_seq;
        }
        Ok(())
    }

    fn read_failed(&self, found: &Found, error: &std::io::Error) -> Error {
        let file = file_name(found.header.chunk);
        Error::from_io(format_args!("store {}: reading {file} failed, so it is not known what it holds", self.store_path), error)
    }

    /// Replays one chunk up to `limit`.
    fn chunk(&mut self, found: &Found, chunk: &Chunk, limit: u64) -> Result<Replayed> {
        let mut window = Window::new(&*found.file, limit);
        let mut at = CHUNK_HEADER_LEN as u64;
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

    /// Applies the frame at `at` if there is one and all of it is good; returns its kind and end.
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
        let good = listed == u64::from(frame.records) && digest_of(&frame, table, payload, payload_at, chunk) == Some(frame.digest);
        let zero_tail = payload.ends_with(&[0; 64]);
        let waved_through = planted(Bug::ApplyHalfBatch) || (planted(Bug::AcceptZeroTail) && zero_tail);
        if !good && !waved_through {
            return Ok(None);
        }
        self.watermark = self.watermark.max(frame.watermark);
        if frame.kind != FrameKind::Data {
            // It says something of the log and is no part of it: nothing depends on whether it reached the disk.
            return Ok(Some((frame.kind, end)));
        }
        apply(self.index, self.hasher, self.chunks, chunk, payload, payload_at)?;
        self.end = LogEnd { chunk: chunk.id, valid_bytes: end, last_seq: last_seq.max(self.end.last_seq), digest: frame.digest };
        Ok(Some((frame.kind, end)))
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

/// The digest that a frame with these records has; `None` if a record is bad or their number is wrong.
fn digest_of(frame: &FrameHeader, table: &[u8], payload: &[u8], payload_at: u64, chunk: &Chunk) -> Option<u64> {
    let mut digest = Digest::new(frame.digest_before);
    let (mut at, mut records) = (0, 0);
    while at < payload.len() {
        let (_, len) = Record::parse_checked(&payload[at..], chunk.salt.at(payload_at + at as u64)).ok()?;
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
            Kind::Delete => index.remove(&hash),
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
