//! Recovery: from the files of a store to its index, and to the place where the log goes on.
//!
//! Loads the newest checkpoint that fits, and replays the chain of chunks from there; without one, from the first chunk.
//! Recovery changes no file. What it cuts is recorded in the header of the next chunk, when there is one; until then the
//! next recovery comes to the same verdict.

use super::apply::{Applier, Counts};
use super::checkpoint::{self, Checkpoint, Files};
use super::chunks::{Chunks, file_name};
use super::dictionary::Dictionaries;
use super::frame::LogEnd;
use super::index::Index;
use super::inventory::{Found, chain_of, check_identities, missing, read_manifest, take_inventory};
use super::log::LogStart;
use super::manifest;
use super::options::Options;
use super::prefix::Prefix;
use super::replay::{Replay, expected};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::base::random;
use crate::base::sync::atomic::Ordering;
use crate::engine::outcome::Outcomes;
use crate::engine::outcome::opening_of;
use crate::io::Dir;
use std::cell::RefCell;

/// Times that recovery begins anew because the disk holds something else than the kernel had shown.
const LOOKS_MAX: u32 = 3;

/// Highest number of a chunk, record or checkpoint to go on from.
const NUMBER_MAX: u64 = u64::MAX / 2;

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
    /// What it takes to unpack values.
    pub dictionaries: Dictionaries,
    /// The checkpoints there are.
    pub checkpoints: Files,
    /// Keys that came from a checkpoint.
    pub loaded_keys: u64,
    /// Bytes of log that were gone through.
    pub replayed: u64,
    /// Which batches were committed.
    pub outcomes: Outcomes,
}

/// A store whose files are known, about to be read.
pub struct Store<'a> {
    /// For messages.
    pub path: &'a str,
    /// Filled by the replay.
    pub chunks: &'a Chunks,
    /// The chunks that make up the store, oldest first.
    pub chain: &'a [Found],
    /// The last chunk that the manifest speaks for.
    covers: u64,
    /// The file beside the chunks that proves most about the log.
    pub witness: Option<Witness>,
    /// Batches that were committed, as the manifest says.
    outcomes: Outcomes,
    /// What to do about damage.
    pub prefix: &'a RefCell<Prefix>,
}

/// A checkpoint or manifest: it is finished only when what it speaks of is on stable storage.
pub struct Witness {
    /// Its file name.
    pub name: String,
    /// Everything up to this sequence number was on stable storage.
    pub last_seq: u64,
}

/// What reading gave.
#[allow(clippy::large_enum_variant)] // there is one at a time, and it is taken apart at once
enum Reading {
    Done {
        index: Index,
        end: LogEnd,
        loaded_keys: u64,
        replayed: u64,
        outcomes: Outcomes,
    },
    /// The checkpoint does not fit.
    Unfit,
    /// The disk holds something else than the kernel had shown.
    Changed,
}

/// Reads the store in `dir`. `secret` is for the hash, unless a checkpoint brings its own. `tell` hears how far it is.
pub fn recover(
    dir: &dyn Dir,
    store_path: &str,
    options: &Options,
    secret: [u64; 2],
    chunks: &Chunks,
    tell: &mut dyn FnMut(Progress),
) -> Result<Recovered> {
    for _ in 0..LOOKS_MAX {
        if let Some(recovered) = look(dir, store_path, Prefix::new(options), secret, chunks, tell)? {
            return Ok(recovered);
        }
    }
    let text = format!("store {store_path}: what its files hold changes from one look to the next: check the disk");
    Err(Error::new(Code::IO, text))
}

/// The same; `None` if the disk holds something else than the kernel had shown.
fn look(
    dir: &dyn Dir,
    store_path: &str,
    mut prefix: Prefix,
    secret: [u64; 2],
    chunks: &Chunks,
    tell: &mut dyn FnMut(Progress),
) -> Result<Option<Recovered>> {
    let mut inventory = take_inventory(dir, store_path, &mut prefix)?;
    inventory.found.sort_by_key(|found| found.header.chunk);
    let epoch = inventory.found.iter().map(|found| found.header.epoch).max().unwrap_or(0).saturating_add(1);
    let chance = random::secret_u64() as u32;
    check_number(inventory.highest_id, || file_name(inventory.highest_id), store_path)?;
    let next_chunk = inventory.highest_id + 1;
    let next_manifest = inventory.manifests.iter().max().copied().unwrap_or(0).saturating_add(1);
    let mut numbers = std::mem::take(&mut inventory.checkpoints);
    numbers.retain(|number| *number <= NUMBER_MAX); // the others are not ours
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let mut files = Files { next: numbers.first().copied().unwrap_or(0) + 1, ..Files::default() };
    let known: Vec<_> = numbers.iter().filter_map(|number| Checkpoint::open(dir, *number)).collect();
    let Some(store) = inventory.found.last().map(|newest| newest.header.store) else {
        if !inventory.manifests.is_empty() || !inventory.unreadable.is_empty() || !known.is_empty() || inventory.has_dictionaries {
            return Err(missing(store_path, "all chunk files are"));
        }
        let mut store = [0; 16];
        store[..8].copy_from_slice(&random::secret_u64().to_le_bytes());
        store[8..].copy_from_slice(&random::secret_u64().to_le_bytes());
        let mut leftovers: Vec<_> = inventory.unfinished.into_iter().map(file_name).collect();
        leftovers.extend(inventory.prepared);
        let start = LogStart {
            store,
            epoch,
            chance,
            next_chunk,
            end: LogEnd::default(),
            last_given: 0,
            leftovers,
            given_up: Vec::new(),
            next_manifest,
            manifest: None,
            reserve: inventory.reserve,
        };
        files.others = numbers;
        return Ok(Some(Recovered {
            start,
            index: Index::new()?,
            secret,
            dictionaries: Dictionaries::open(dir, &store, store_path, chunks)?,
            checkpoints: files,
            loaded_keys: 0,
            replayed: 0,
            outcomes: Outcomes::default(),
        }));
    };
    check_identities(&inventory, &store, store_path)?;
    let manifest = read_manifest(dir, &inventory, &store, store_path)?;
    let (manifests, reserve, prepared) = (inventory.manifests.clone(), inventory.reserve, std::mem::take(&mut inventory.prepared));
    let (chain, mut leftovers) = chain_of(inventory, manifest.as_ref(), store_path, &mut prefix)?;
    leftovers.extend(prepared);
    let (known, foreign): (Vec<_>, Vec<_>) = known.into_iter().partition(|checkpoint| checkpoint.head.store == store);
    let covers = manifest.as_ref().map_or(0, |manifest| manifest.covers);
    let by_checkpoint = known.iter().map(|checkpoint| Witness { name: checkpoint.name(), last_seq: checkpoint.tail.end.last_seq });
    let by_manifest = manifest.iter().map(|manifest| Witness { name: manifest::file_name(manifest.number), last_seq: manifest.watermark });
    let witness = by_checkpoint.chain(by_manifest).max_by_key(|witness| witness.last_seq);
    let prefix = RefCell::new(prefix);
    let outcomes = manifest.as_ref().map_or_else(Outcomes::default, |manifest| manifest.outcomes.clone());
    let found = Store { path: store_path, chunks, chain: &chain, covers, witness, outcomes, prefix: &prefix };
    let (reading, used) = found.read_best(dir, &known, secret, tell)?;
    let Reading::Done { index, end, loaded_keys, replayed, mut outcomes } = reading else { return Ok(None) };
    // Before anything is written: where one is missing, no option opens the store.
    let dictionaries = Dictionaries::open(dir, &store, store_path, chunks)?;
    // Behind a cut nothing counts any more, and a chunk that was begun and never used need not count.
    let behind = &chain[found.kept(&end)..];
    let mut prefix = prefix.into_inner();
    for header in behind.iter().map(|found| &found.header) {
        if prefix.cut { prefix.give_up_chunk(store_path, header) } else { leftovers.push(file_name(header.chunk)) }
    }
    if prefix.cut {
        outcomes.forget_before(opening_of(epoch, 0));
    }
    let last_given = end.last_seq.max(prefix.last_seq);
    check_number(last_given, || format!("record {last_given}"), store_path)?;
    // Also numbers of chunks that left no file are not used again: the manifest speaks for them.
    let next_chunk = next_chunk.max(covers.saturating_add(1));
    let mut in_force = manifest.as_ref().map(|manifest| manifest.number);
    if let Some(manifest) = &manifest
        && prefix.amend(dir, store_path, manifest, next_manifest, (end, &outcomes), chunks)?
    {
        in_force = Some(next_manifest);
    }
    let next_manifest = next_manifest.saturating_add(u64::from(in_force == Some(next_manifest)));
    leftovers.extend(manifests.into_iter().filter(|number| Some(*number) != in_force).map(manifest::file_name));
    files.good = used.map(|checkpoint| checkpoint.head.number);
    let is_foreign = |number: &u64| foreign.iter().any(|checkpoint| checkpoint.head.number == *number);
    files.others = numbers.into_iter().filter(|number| Some(*number) != files.good && !is_foreign(number)).collect();
    if prefix.cut {
        // They speak of what was given up.
        leftovers.extend(files.others.iter().map(|number| checkpoint::file_name(*number)));
    }
    let given_up = prefix.files;
    Ok(Some(Recovered {
        start: LogStart {
            store,
            epoch,
            chance,
            next_chunk,
            end,
            last_given,
            leftovers,
            given_up,
            next_manifest,
            manifest: in_force,
            reserve,
        },
        index,
        secret: used.map_or(secret, |checkpoint| checkpoint.head.secret),
        dictionaries,
        checkpoints: files,
        loaded_keys,
        replayed,
        outcomes,
    }))
}

/// Numbers only rise. What stands in a file may be anything, and must leave room for all that can ever be written.
fn check_number(number: u64, what: impl Fn() -> String, store_path: &str) -> Result<()> {
    if number <= NUMBER_MAX {
        return Ok(());
    }
    let text = format!("store {store_path}: {} has a number that no store comes to: take it away or restore a backup", what());
    Err(Error::new(Code::NO_SPACE, text))
}

impl Store<'_> {
    /// Reads with the newest checkpoint that will do, or without.
    fn read_best<'a>(
        &self,
        dir: &dyn Dir,
        known: &'a [Checkpoint],
        secret: [u64; 2],
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(Reading, Option<&'a Checkpoint>)> {
        let known = if self.prefix.borrow().cut { &[] } else { known };
        for checkpoint in known {
            match self.read(dir, Some(checkpoint), checkpoint.head.secret, tell) {
                Ok(Reading::Unfit) => {}
                Ok(reading) => return Ok((reading, Some(checkpoint))),
                // Damage, perhaps of the checkpoint: the log alone has to say.
                Err(error) if error.code == Code::CORRUPTED => {}
                Err(error) => return Err(error),
            }
            let text = format!("store {}: {} does not fit the log and is left out; opening takes longer", self.path, checkpoint.name());
            log::write(log::Level::Info, "recover", &text);
        }
        match self.read(dir, None, secret, tell) {
            // Only when nothing else is left: up to the damage, and no further.
            Err(error) if error.code == Code::CORRUPTED && self.prefix.borrow_mut().begin_to_cut() => {}
            reading => return Ok((reading?, None)),
        }
        Ok((self.read(dir, None, secret, tell)?, None))
    }

    /// Reads the store from a checkpoint on, or all of it.
    fn read(&self, dir: &dyn Dir, from: Option<&Checkpoint>, secret: [u64; 2], tell: &mut dyn FnMut(Progress)) -> Result<Reading> {
        self.chunks.clear();
        let mut applier = Applier { index: Index::new()?, counts: Vec::new() };
        if let Some(checkpoint) = from
            && !(self.explains(checkpoint) && load(checkpoint, &mut applier)?)
        {
            return Ok(Reading::Unfit);
        }
        let loaded_keys = applier.index.len() as u64;
        let start = from.map_or(LogEnd::default(), |checkpoint| checkpoint.head.start);
        let to_replay = |found: &Found| match found.header.chunk.cmp(&start.chunk) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => found.len.saturating_sub(start.valid_bytes),
            std::cmp::Ordering::Greater => found.len,
        };
        let total = self.chain.iter().map(to_replay).sum();
        let (end, passed, durable, outcomes) = applier.run(total >= BYTES_FOR_TWO, |apply| {
            let mut replay = Replay::new(self, secret, from, total, apply, &mut *tell);
            replay.chain()?;
            let durable = replay.is_durable(dir)?;
            Ok((replay.end, replay.passed, durable, replay.outcomes))
        })?;
        tell(Progress { done: total, total });
        if !durable {
            return Ok(Reading::Changed);
        }
        for chunk in self.chunks.by_age().iter().filter(|chunk| chunk.id > end.chunk) {
            self.chunks.remove(chunk)?;
        }
        if let Some(checkpoint) = from {
            // The log must be the one that the checkpoint was made from.
            let last = checkpoint.tail.end;
            if !passed && (self.has(last.chunk) || end.last_seq < last.last_seq) {
                return Ok(Reading::Unfit);
            }
            self.forget_removed(&mut applier)?;
        }
        match self.count(&mut applier) {
            true => Ok(Reading::Done { index: applier.index, end, loaded_keys, replayed: total, outcomes }),
            false => Ok(Reading::Unfit),
        }
    }

    /// The batches that are known to have been committed, whatever a replay from there finds.
    pub fn outcomes_before(&self, from: Option<&Checkpoint>) -> Outcomes {
        if self.prefix.borrow().cut {
            return Outcomes::default(); // some of it may be among what is given up
        }
        // Of two that tell the same story, the one that goes further.
        let newer = from.map(|checkpoint| &checkpoint.tail.outcomes).filter(|known| known.last() > self.outcomes.last());
        newer.unwrap_or(&self.outcomes).clone()
    }

    /// How many chunks of the chain hold what counts, if the log ends at `end`.
    pub fn kept(&self, end: &LogEnd) -> usize {
        self.chain.iter().take_while(|found| found.header.chunk <= end.chunk).count()
    }

    /// Whether chunk `id` is in the chain.
    fn has(&self, id: u64) -> bool {
        self.chain.binary_search_by_key(&id, |found| found.header.chunk).is_ok()
    }

    /// Whether all chunks that a checkpoint builds upon are there, as far as their headers say, or were removed in order.
    fn explains(&self, checkpoint: &Checkpoint) -> bool {
        let (start, end) = (checkpoint.head.start, checkpoint.tail.end);
        let there = |id| id <= self.covers || self.has(id);
        let as_known = |(i, found): (usize, &Found)| {
            let Some(slot) = checkpoint.slot_of(found.header.chunk) else { return false };
            match expected(self.chain, i) {
                _ if found.header.chunk == start.chunk => {
                    start.valid_bytes <= found.len && expected(self.chain, i).is_none_or(|end| start.valid_bytes <= end.valid_bytes)
                }
                Some(end) => {
                    let same = |known: LogEnd| known.last_seq == end.last_seq && known.digest == end.digest;
                    slot.end.is_some_and(|known| same(known) && known.valid_bytes <= end.valid_bytes.min(found.len))
                }
                // It may be that only the frame is damaged that says it; the checkpoint says it, too.
                None => {
                    let is_open = self.chain.get(i + 1).is_some_and(|next| next.header.open);
                    is_open && slot.end.is_some_and(|known| known.valid_bytes <= found.len)
                }
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
            seen.chunk.tombstone_bytes.store(counts.tombstone_bytes, Ordering::Relaxed);
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
        let (tombstones, tombstone_bytes) = (slot.tombstones, slot.tombstone_bytes);
        *applier.slot(slot.slot)? = Counts { record_bytes: slot.record_bytes, dead_bytes, tombstones, tombstone_bytes };
    }
    Ok(true)
}
