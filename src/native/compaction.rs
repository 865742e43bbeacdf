//! Compaction: chunks that are mostly dead are rewritten, and removed.
//!
//! One chunk at a time, the emptiest first; one that empties by itself may be given time (see `compactor`). What is still
//! current in it is put again at the end of the log, through the same way as every commit, at a moment when nothing else is
//! in flight, so that what is decided is still true when it is published: to recovery a moved record is a put like any
//! other. Only when the copies are on stable storage, and a manifest that no longer names the chunk is too, does its file
//! go. A chunk that cannot be read is kept as it is.
//!
//! A delete is moved along as long as an older chunk is there that may hold what it deletes; in the oldest chunk it is
//! forgotten. A put that has expired is treated like a delete.

use super::NativeEngine;
use super::chunks::{Chunk, file_name};
use super::commit::Staged;
use super::compactor::Pace;
use super::frame::{CHUNK_HEADER_LEN, LogEnd};
use super::index::{Index, Place};
use super::manifest::{self, Manifest};
use super::pack::Packer;
use super::scan::{Frames, Next, RUN_MAX, Run};
use super::window::Window;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::few::Few;
use crate::base::hash::{KeyHash, LANES};
use crate::base::limits::BLOCK_BYTES;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::engine::counters::add;
use crate::engine::outcome::Outcomes;
use crate::engine::record::{Kind, Record, salt_sum};
use crate::engine::{Commit, NO_BATCH, WriteOp, Writes};

/// Bytes of records that are moved in one group.
const GROUP_BYTES: usize = 128 << 10;

/// On a full disk, chunks that are filled to this share or less, in percent, are rewritten.
const FULL_FILL_PERCENT: u64 = 90;

/// Which chunks may be rewritten.
struct Limits {
    min_fill_percent: u64,
    /// There is only so much space, in bytes.
    room_bytes: Option<u64>,
    /// None that fades.
    patient: bool,
}

/// Where records are moved from.
struct From<'a> {
    victim: &'a Chunk,
    is_oldest: bool,
    now_ms: u64,
}

/// Records on their way to the end of the log.
#[derive(Default)]
struct Moving {
    bytes: Vec<u8>,
    ops: Vec<WriteOp>,
    /// Where each record is current now; `None`: a delete, which must find no record.
    origins: Vec<Option<Place>>,
}

impl NativeEngine {
    /// Rewrites the sealed chunk that pays most, if one is filled to `min_fill_percent` or less; whether there was one. On a
    /// full disk a fuller one will do, if there is room for what is left of it.
    pub fn compact_once(&self, min_fill_percent: u64) -> Result<bool> {
        self.compact_some(min_fill_percent, false)
    }

    /// The same; `patient`: but for a chunk that loses its records by itself, and of which something is still left.
    pub(super) fn compact_some(&self, min_fill_percent: u64, patient: bool) -> Result<bool> {
        let _one_at_a_time = self.compacting.lock();
        self.check_open()?;
        self.check_writable()?;
        let limits = match self.log.is_full() {
            true => Limits { min_fill_percent: min_fill_percent.max(FULL_FILL_PERCENT), room_bytes: self.log.free_bytes(), patient: false },
            false => Limits { min_fill_percent, room_bytes: None, patient },
        };
        let Some(victim) = pick(&self.chunks.by_age(), self.log.published_chunk(), &limits) else { return Ok(false) };
        self.compact_chunk(&victim, &mut |_| true)?;
        drop(victim); // the space is free when nobody has the file open
        self.log.regain_room();
        Ok(true)
    }

    /// Rewrites one sealed chunk, whatever is in it. `go_on` is told how far it has come in it, in bytes; when it says
    /// no the chunk stays, and so does what was moved. The caller holds `compacting`.
    pub(super) fn compact_chunk(&self, victim: &Arc<Chunk>, go_on: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let is_oldest = self.chunks.by_age().first().is_some_and(|oldest| oldest.id == victim.id);
        let nothing_to_keep = victim.live_bytes() == 0 && (is_oldest || victim.tombstones.load(Ordering::Relaxed) == 0);
        if !nothing_to_keep {
            let moved = self.move_records(victim, is_oldest, go_on);
            if !matches!(moved, Ok(true)) {
                victim.rewritten.store(0, Ordering::Relaxed);
                return moved.map(drop); // it stays, and one that is damaged is not picked again
            }
        }
        let outcomes = self.outcomes.lock().clone(); // of what is durable behind the sync
        // The chunk in which the log stands says so: it stays until there is another.
        let published_chunk = self.log.published_chunk();
        let mut victims = vec![Arc::clone(victim)];
        victims.extend(self.chunks.by_age().into_iter().filter(|chunk| chunk.id != victim.id && chunk.is_empty()));
        victims.retain(|chunk| chunk.id < published_chunk);
        if !planted(Bug::ManifestBeforeSync) {
            self.sync_in_turn()?;
        }
        if !victims.is_empty() {
            self.remove(&victims, outcomes)?;
            add(&self.counters.chunks_removed, victims.len() as u64);
            self.look_behind();
        }
        Ok(())
    }

    /// Moves what must be kept to the end of the log; false if the chunk turned out to be damaged, or `go_on` said no.
    fn move_records(&self, victim: &Chunk, is_oldest: bool, go_on: &mut dyn FnMut(u64) -> bool) -> Result<bool> {
        let Some(end) = victim.end() else { return Ok(true) };
        let from = From { victim, is_oldest, now_ms: self.now_ms() };
        let mut window = Window::new(&*victim.file, end.valid_bytes);
        let mut frames = Frames::new(victim.salt, end);
        let mut moving = Moving::default();
        let mut packer = self.packer(victim)?;
        let mut pace = Pace::new(self.options.compaction_bytes_per_second);
        let mut run = Run::default();
        loop {
            let next = frames
                .next_run(&mut window, &mut run)
                .map_err(|e| Error::from_io(format_args!("store {}: reading {} to compact it", self.path, file_name(victim.id)), &e))?;
            match next {
                Next::Run => self.consider(&mut moving, &mut packer, &from, &window, &run)?,
                Next::End => break,
                Next::Damaged { .. } if planted(Bug::DamagedChunkDeleted) => break,
                Next::Damaged { offset } => {
                    victim.damaged.store(true, Ordering::Relaxed);
                    add(&self.counters.chunks_damaged, 1);
                    let file = file_name(victim.id);
                    let text = format!(
                        "store {}: {file} is damaged at byte {offset} and is kept as it is: make a backup, then salvage",
                        self.path
                    );
                    log::write(log::Level::Error, "compact", &text);
                    return Ok(false);
                }
            }
            if moving.bytes.len() >= GROUP_BYTES {
                let bytes = moving.bytes.len() as u64;
                self.move_group(&mut moving)?;
                let done = run.places().last().map_or(0, |(offset, _)| *offset);
                victim.rewritten.store(done, Ordering::Relaxed);
                self.keep_pace(&mut pace, bytes);
                if !go_on(done) {
                    return Ok(false);
                }
            }
        }
        self.move_group(&mut moving)?;
        self.packed(&packer);
        Ok(true)
    }

    /// Takes the records of a run along that must be kept.
    fn consider(&self, moving: &mut Moving, packer: &mut Packer, from: &From<'_>, window: &Window<'_>, run: &Run) -> Result<()> {
        let records: [_; RUN_MAX] = std::array::from_fn(|i| {
            let (offset, len) = *run.places().get(i)?;
            let bytes = window.held(offset, len)?;
            Record::parse(bytes).ok().map(|(record, _)| (offset, bytes, record))
        });
        let key = |i: usize| records.get(i).and_then(Option::as_ref).map_or(&[][..], |(_, _, record)| record.key);
        let mut hashes = [KeyHash::default(); RUN_MAX];
        for (i, lanes) in hashes[..run.places().len()].chunks_mut(LANES).enumerate() {
            self.hasher.hash_up_to_lanes(lanes, |lane| key(i * LANES + lane));
        }
        let places = look_up(&self.index.read(), &hashes[..run.places().len()]);
        for ((found, hash), current) in records.iter().zip(&hashes).zip(places).take(run.places().len()) {
            let Some((offset, bytes, record)) = found else {
                return Err(Error::new(Code::UNKNOWN, "internal error: a record that was found good is gone"));
            };
            let place = Place::new(from.victim.slot, *offset, bytes.len());
            let expired = record.has_expired(from.now_ms);
            match (record.kind, current) {
                (Kind::Put, Some(current)) if current == place && !expired => match packer.pack(record) {
                    Some(packed) => moving.add_packed(*hash, &packed, place)?,
                    None => moving.add_copy(*hash, bytes, from.victim.salt.at(*offset), place)?,
                },
                // An expired put hides what is older, as a delete does: it becomes one.
                (Kind::Put, Some(current)) if current == place => moving.add_delete(*hash, record.key, Some(place))?,
                (Kind::Delete, None) if !from.is_oldest && !planted(Bug::TombstoneDropped) => moving.add_delete(*hash, record.key, None)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Commits what is still to be moved, at a moment when nothing else is in flight.
    fn move_group(&self, moving: &mut Moving) -> Result<()> {
        if moving.ops.is_empty() {
            return Ok(());
        }
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::new(Code::INVALID_STATE, "the store is being closed"));
        }
        let durable = !self.log.is_unsynced();
        let mut turn = self.line.draw();
        let Moving { bytes, ops, origins } = moving;
        let mut kept: Vec<WriteOp> = Vec::new();
        kept.try_reserve_exact(ops.len()).map_err(|_| Error::no_memory("no memory to compact with: free memory"))?;
        let mut staged: Option<Result<Staged>> = None;
        let still_current = |kept: &mut Vec<WriteOp>| {
            let index = self.index.read();
            for (ops, origins) in ops.chunks(RUN_MAX).zip(origins.chunks(RUN_MAX)) {
                let mut hashes = [KeyHash::default(); RUN_MAX];
                hashes.iter_mut().zip(ops).for_each(|(hash, op)| *hash = op.hash);
                let places = look_up(&index, &hashes[..ops.len()]);
                let current = |i: usize| places[i] == origins[i] || planted(Bug::CompactionOverNewer);
                kept.extend(ops.iter().enumerate().filter(|(i, _)| current(*i)).map(|(_, op)| *op));
            }
        };
        if planted(Bug::CompactionTooEarly) {
            still_current(&mut kept);
        }
        let mut group: [Commit<'_>; 1] = turn.stage_alone(|| {
            if !planted(Bug::CompactionTooEarly) {
                still_current(&mut kept);
            }
            let writes = Writes { blocks: Few::one(bytes.as_mut_slice()), ops: &kept };
            let mut group = [Commit { batch_id: NO_BATCH, writes, reads: &mut [], durable, pin: None }];
            staged = Some(self.stage(&mut group));
            group
        });
        let Some(staged) = staged else { return Ok(()) };
        let mut staged = staged?;
        let written = self.write(&mut staged, &group);
        turn.publish(|| self.publish(staged, written, &mut group))?;
        add(&self.counters.moved_records, kept.len() as u64);
        add(&self.counters.moved_bytes, kept.iter().map(|op| u64::from(op.len)).sum());
        moving.clear();
        Ok(())
    }

    /// Takes a chunk, of which nothing is needed any more, out of the store.
    fn remove(&self, victims: &[Arc<Chunk>], outcomes: Outcomes) -> Result<()> {
        // Asked first: a chunk that is begun from here on must not seem to be one of those that were given up.
        let mut last = self.log.last_chunk();
        let chunks = self.chunks.by_age();
        let newest = chunks.last().map_or(0, |newest| newest.id);
        let durable = self.log.durable();
        // The manifest speaks for all chunks before the first that is not yet sealed and durable as a whole: what was
        // published since the sync need not be.
        let settled: Vec<_> = chunks.iter().map_while(|chunk| chunk.end().filter(|end| end.last_seq <= durable)).collect();
        if planted(Bug::ManifestCoversMore) {
            last = self.log.last_chunk();
        }
        let covers = match chunks.get(settled.len()) {
            Some(unsettled) => unsettled.id - 1,
            None => last.max(newest), // also for those that were begun and given up
        };
        let stays = |end: &LogEnd| victims.iter().all(|victim| victim.id != end.chunk) && end.valid_bytes > CHUNK_HEADER_LEN as u64;
        let mut numbers = self.manifests.lock();
        let manifest = Manifest {
            store: self.log.store(),
            number: numbers.next,
            covers,
            newest,
            watermark: if planted(Bug::ManifestWithoutWitness) { 0 } else { durable },
            // A chunk that was begun and never used says nothing.
            chunks: settled.into_iter().filter(stays).collect(),
            outcomes,
        };
        numbers.next += 1;
        if planted(Bug::UnlinkBeforeManifest) {
            victims.iter().for_each(|victim| drop(self.log.dir().remove(&file_name(victim.id))));
        }
        let name = manifest::file_name(manifest.number);
        manifest::write(&**self.log.dir(), &manifest)
            .map_err(|e| Error::from_io(format_args!("store {}: cannot write {name}", self.path), &e))?;
        let dir = self.log.dir();
        let others = self.chunks.by_age().len() - victims.len();
        let reused = self.log.reuse(victims, others);
        // Whatever of this is lost in a crash, the next open does again: the manifest does not name these files.
        for victim in victims {
            self.chunks.remove(victim)?;
            let _ = dir.remove(&file_name(victim.id));
        }
        let older = numbers.in_force.replace(manifest.number);
        if let Some(obsolete) = std::mem::replace(&mut numbers.before, older) {
            let _ = dir.remove(&manifest::file_name(obsolete));
        }
        let synced = if planted(Bug::FileReusedEarly) { Ok(()) } else { dir.sync() };
        if synced.is_ok() {
            reused.keep();
        }
        Ok(())
    }
}

/// Where the keys of a run are now. The memory of all of them is asked for before the first is looked at.
fn look_up(index: &Index, hashes: &[KeyHash]) -> [Option<Place>; RUN_MAX] {
    let homes: [_; RUN_MAX] = std::array::from_fn(|i| hashes.get(i).map(|hash| (index.home(hash), hash)));
    homes.map(|home| home.and_then(|(home, hash)| home.place(hash)))
}

/// How much of a sealed chunk is live, in percent.
pub(super) fn fill(chunk: &Chunk) -> u64 {
    let bytes = chunk.end().map_or(0, |end| end.valid_bytes).max(1);
    chunk.live_bytes() * 100 / bytes
}

/// The chunk with the least in it, among those before the one where the log stands that are not fuller than allowed.
fn pick(chunks: &[Arc<Chunk>], published_chunk: u64, limits: &Limits) -> Option<Arc<Chunk>> {
    let oldest = chunks.first().map_or(0, |chunk| chunk.id);
    let bytes = |chunk: &Chunk| chunk.end().map_or(0, |end| end.valid_bytes).max(1);
    // Deletes stay, too, but for those in the oldest chunk: a chunk full of them would be rewritten again and again.
    let kept = |chunk: &Chunk| {
        let deletes = if chunk.id == oldest { 0 } else { chunk.tombstone_bytes.load(Ordering::Relaxed) };
        chunk.live_bytes() + deletes
    };
    let kept_percent = |chunk: &Chunk| kept(chunk) * 100 / bytes(chunk);
    let manifest = 2 * (chunks.len() * 32 + BLOCK_BYTES).next_multiple_of(BLOCK_BYTES) as u64;
    let has_room = |chunk: &Chunk| {
        let groups = kept(chunk).div_ceil(GROUP_BYTES as u64);
        let cost = kept(chunk) + groups * 2 * BLOCK_BYTES as u64 + CHUNK_HEADER_LEN as u64;
        limits.room_bytes.is_none_or(|room| cost + manifest <= room && cost < bytes(chunk))
    };
    let is_candidate =
        |chunk: &Chunk| !chunk.damaged.load(Ordering::Relaxed) && kept_percent(chunk) <= limits.min_fill_percent && has_room(chunk);
    let older = chunks.iter().take_while(|chunk| chunk.id < published_chunk);
    let is_spared = |chunk: &Chunk| limits.patient && chunk.live_bytes() > 0 && chunk.fades.load(Ordering::Relaxed);
    older.filter(|chunk| is_candidate(chunk) && !is_spared(chunk)).min_by_key(|chunk| (kept_percent(chunk), kept(chunk))).cloned()
}

impl Moving {
    fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        let no_memory = |_| Error::no_memory("no memory to compact with: free memory");
        self.bytes.try_reserve(len).map_err(no_memory)?;
        self.ops.try_reserve(1).map_err(no_memory)?;
        self.origins.try_reserve(1).map_err(no_memory)?;
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        Ok(&mut self.bytes[start..])
    }

    /// A record as it stands in the log, its checksum freed of the old place's salt.
    fn add_copy(&mut self, hash: KeyHash, bytes: &[u8], salt: u32, origin: Place) -> Result<()> {
        let room = self.room(bytes.len())?;
        room.copy_from_slice(bytes);
        salt_sum(room, salt);
        self.note(hash, bytes.len(), Kind::Put, Some(origin));
        Ok(())
    }

    /// The same record, packed.
    fn add_packed(&mut self, hash: KeyHash, record: &Record<'_>, origin: Place) -> Result<()> {
        let len = record.encoded_len();
        record.encode(self.room(len)?);
        self.note(hash, len, Kind::Put, Some(origin));
        Ok(())
    }

    fn add_delete(&mut self, hash: KeyHash, key: &[u8], origin: Option<Place>) -> Result<()> {
        let record = Record::delete(key);
        let len = record.encoded_len();
        record.encode(self.room(len)?);
        self.note(hash, len, Kind::Delete, origin);
        Ok(())
    }

    fn note(&mut self, hash: KeyHash, len: usize, kind: Kind, origin: Option<Place>) {
        let offset = (self.bytes.len() - len) as u32;
        self.ops.push(WriteOp { hash, block: 0, offset, len: len as u32, kind });
        self.origins.push(origin);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ops.clear();
        self.origins.clear();
    }
}
