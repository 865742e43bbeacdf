//! Rot: small stores with files of every kind, and every byte of them damaged: each bit turned over, each truncation, each
//! sector zeroed, swapped, or as it once was.
//!
//! What has to become of it is worked out beforehand from the frames that are left and the watermarks in them: refused if
//! a watermark proves a loss, else cut to exactly the state before the first damaged group. Files are found by listing
//! the directory: of a kind that this test knows nothing about, no damage may cost a word of what was stored.

use super::driver::{Batch, Driver, open, state_of};
use super::model::{Effect, KEYS, State, value_bytes};
use super::sweep::{Counts, Sweep, say};
use crate::base::code::Code;
use crate::base::random::Random;
use crate::engine::record::Record;
use crate::io::Disk;
use crate::io::sim::{Faults, SimDisk};
use crate::native::Options;
use crate::native::checkpoint::{self, Checkpoint};
use crate::native::chunks::{file_name, id_of};
use crate::native::frame::{CHUNK_HEADER_LEN, ChunkHeader, FrameHeader, FrameKind};
use crate::native::manifest::{self, Manifest};
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

const SWEEP: Sweep =
    Sweep { test: "native::tests::rot::every_damage_is_refused_or_harmless", title: "damage", cases: [PARTS / 4, 4 * PARTS], stride: 17 };

/// The damages of one store are dealt out to so many cases.
const PARTS: u64 = 64;
const SECTOR: usize = 512;

fn options() -> Options {
    super::workload::options(12 << 10, 0)
}

/// A frame of the log, as it stands in its file.
struct Frame {
    chunk: u64,
    bytes: Range<usize>,
    /// Padding of its records: nobody looks at it.
    padding: Vec<Range<usize>>,
    header: FrameHeader,
}

struct File {
    name: String,
    bytes: Vec<u8>,
    /// What the file once held.
    before: Vec<Vec<u8>>,
}

/// A store to be damaged, and what is known about it.
struct Store {
    disk: SimDisk,
    files: Vec<File>,
    /// Of the chunks, oldest first.
    headers: Vec<ChunkHeader>,
    manifest: Option<Manifest>,
    /// Where checkpoints begin.
    starts: Vec<u64>,
    /// What files other than chunks prove to have been on stable storage.
    witnesses: Vec<(String, u64)>,
    /// In the order of the log.
    frames: Vec<Frame>,
    /// The states it had, each with the last sequence number before the next.
    history: Vec<(u64, State)>,
}

/// What may become of a damaged store.
#[derive(Clone, Debug)]
struct Verdict {
    /// Nothing is missing.
    whole: bool,
    /// It may hold one of these.
    holds: Vec<State>,
    refused: bool,
}

const WHOLE: Verdict = Verdict { whole: true, holds: Vec::new(), refused: false };
const REFUSED: Verdict = Verdict { whole: true, holds: Vec::new(), refused: true };

impl Store {
    /// The store of a seed: a few chunks of it compacted away, some groups durable, some not, closed or killed.
    fn draw(seed: u64) -> Store {
        let mut rng = Random::new(seed);
        let disk = SimDisk::new(seed, Faults::default());
        let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
        let mut history = vec![(0, [0; KEYS])];
        let mut snapshots = Vec::new();
        let mut version = 0;
        for action in 0..32 {
            match rng.below(10) {
                0 => {
                    driver.stage_sync();
                    driver.settle();
                    driver.engine.log.make_next();
                }
                4 => {
                    driver.stage_beat();
                    driver.settle();
                }
                1 | 2 if action > 8 => driver.compact(100),
                3 if action > 4 => driver.checkpoint(&mut rng, VecDeque::new()),
                _ => {
                    let effects: Vec<Effect> = (0..1 + rng.below(4)).map(|_| effect(&mut rng, &mut version)).collect();
                    driver.stage(vec![Batch::new(&driver.engine.hasher, rng.one_in(4), effects, Vec::new())]);
                    driver.settle();
                }
            }
            history.push((driver.engine.log.published(), driver.oracle.visible));
            if rng.one_in(8) {
                snapshots.push(disk.twin());
            }
        }
        if rng.one_in(2) {
            driver.close();
        }
        driver.check_errors(false);
        drop(driver);
        Store::of(disk.kill_image(), &snapshots, history)
    }

    fn of(disk: SimDisk, snapshots: &[SimDisk], history: Vec<(u64, State)>) -> Store {
        let file = |name: String| {
            let before = snapshots.iter().filter_map(|snapshot| snapshot.read_raw(&name)).collect();
            File { bytes: disk.read_raw(&name).unwrap(), before, name }
        };
        let files: Vec<File> = disk.list_files().into_iter().filter(|name| name != "LOCK").map(file).collect();
        let (mut headers, mut frames) = (Vec::new(), Vec::new());
        for (id, file) in files.iter().filter_map(|file| id_of(&file.name).map(|id| (id, file))) {
            let header = ChunkHeader::decode(&file.bytes).unwrap();
            let mut at = CHUNK_HEADER_LEN;
            while at < file.bytes.len() {
                let Some(frame) = FrameHeader::decode(&file.bytes[at..], header.salt(), at as u64) else {
                    at += 8;
                    continue;
                };
                let end = at + frame.len().unwrap() as usize;
                let padding = padding(&file.bytes[..end], at + frame.payload_at() as usize);
                frames.push(Frame { chunk: id, bytes: at..end, padding, header: frame });
                at = end.next_multiple_of(8);
            }
            headers.push(header);
        }
        let manifests = files.iter().filter(|file| manifest::number_of(&file.name).is_some());
        let manifest = manifests.max_by_key(|file| manifest::number_of(&file.name)).and_then(|file| Manifest::decode(&file.bytes));
        let dir = disk.twin().open_dir(Path::new("/store")).unwrap();
        let checkpoint = |file: &File| Checkpoint::open(&*dir, checkpoint::number_of(&file.name)?);
        let checkpoints: Vec<Checkpoint> = files.iter().filter_map(checkpoint).collect();
        let starts = checkpoints.iter().map(|checkpoint| checkpoint.head.start.last_seq).collect();
        let witness = |checkpoint: &Checkpoint| (checkpoint.name(), checkpoint.tail.end.last_seq);
        let manifested = manifest.iter().map(|manifest| (manifest::file_name(manifest.number), manifest.watermark));
        let witnesses = checkpoints.iter().map(witness).chain(manifested).collect();
        Store { disk, files, headers, manifest, starts, witnesses, frames, history }
    }

    fn whole(&self) -> State {
        self.history[self.history.len() - 1].1
    }

    /// The state before the record with this number.
    fn state_before(&self, seq: u64) -> State {
        self.history.iter().rev().find(|(last, _)| *last < seq).map_or([0; KEYS], |(_, state)| *state)
    }

    /// What may become of the store if these frames cannot be read, nor the files that are `spoilt`. What lies before a
    /// checkpoint may be looked at or not.
    fn verdict(&self, lost: impl Fn(&Frame) -> bool, spoilt: &[&str]) -> Verdict {
        let mut verdict = Verdict { whole: false, holds: Vec::new(), refused: !spoilt.is_empty() };
        for start in [0].iter().chain(&self.starts) {
            match self.verdict_from(*start, &lost, spoilt) {
                Some(Ok(state)) => verdict.holds.push(state),
                Some(Err(())) => verdict.refused = true,
                None => verdict.whole = true,
            }
        }
        verdict
    }

    /// The same for one that replays all behind `start`: what it holds then, or that it is refused; `None`: all is there.
    fn verdict_from(&self, start: u64, lost: impl Fn(&Frame) -> bool, spoilt: &[&str]) -> Option<Result<State, ()>> {
        let counts = |frame: &&Frame| frame.header.kind == FrameKind::Data && frame.header.first_seq > start && lost(frame);
        let first = self.frames.iter().find(counts)?;
        let (good_until, chunk) = (first.header.first_seq - 1, first.chunk);
        let frames = self.frames.iter().filter(|frame| !lost(frame)).map(|frame| frame.header.watermark);
        let headers = self.headers.iter().map(|header| header.watermark);
        let ends = self.manifest.iter().flat_map(|manifest| &manifest.chunks).filter(|end| end.chunk <= chunk).map(|end| end.last_seq);
        // A chunk whose predecessor was removed: that happens when all before it is durable.
        let kept = |id: u64| id == 0 || self.headers.iter().any(|header| header.chunk == id);
        let orphans = self.headers.iter().filter(|header| header.chunk <= chunk && !kept(header.before.chunk));
        let witnessed = self.witnesses.iter().filter(|(name, _)| !spoilt.contains(&&name[..])).map(|(_, durable)| *durable);
        let proven = frames.chain(headers).chain(ends).chain(orphans.map(|header| header.before.last_seq)).chain(witnessed).max();
        let refused = proven.is_some_and(|proven| proven > good_until);
        Some(if refused { Err(()) } else { Ok(self.state_before(first.header.first_seq)) })
    }

    /// The same if bytes have changed in some files.
    fn verdict_of_changes(&self, changes: &[(&str, &[u8])]) -> Verdict {
        let old = |name: &str| self.files.iter().find(|file| file.name == name).map_or(&[][..], |file| &file.bytes);
        let changed = |name: &str, at: &Range<usize>| {
            changes.iter().any(|(other, new)| *other == name && new.get(at.clone()) != old(name).get(at.clone()))
        };
        if changes.iter().any(|(name, _)| id_of(name).is_some() && changed(name, &(0..CHUNK_HEADER_LEN))) {
            return REFUSED;
        }
        let spoilt: Vec<&str> =
            changes.iter().filter(|(name, new)| id_of(name).is_none() && *new != old(name)).map(|(name, _)| *name).collect();
        let lost = |frame: &Frame| {
            let name = file_name(frame.chunk);
            let mut at = frame.bytes.start;
            frame.padding.iter().any(|padding| changed(&name, &(std::mem::replace(&mut at, padding.end)..padding.start)))
        };
        self.verdict(lost, &spoilt)
    }

    /// Opens a damaged store and compares.
    fn look(&self, disk: &SimDisk, verdict: &Verdict, go_on: bool) -> &'static str {
        let found = open(disk, options()).and_then(|engine| state_of(&engine));
        let expected = match &found {
            Ok(state) => (verdict.whole && *state == self.whole()) || verdict.holds.contains(state),
            Err(error) => verdict.refused && error.code == Code::CORRUPTED,
        };
        assert!(expected, "{verdict:?} was to be expected, not {found:?}; whole is {:?}", self.whole());
        if let (Ok(state), true) = (&found, go_on) {
            let mut driver = Driver::open(disk, options(), *state).unwrap();
            driver.commit(true, &[(3, 1 << 20)]).unwrap();
            driver.close();
            assert_eq!(open(disk, options()).and_then(|engine| state_of(&engine)), Ok(driver.oracle.visible));
        }
        match found {
            Err(_) => "refused",
            Ok(state) if state == self.whole() => "without effect",
            Ok(_) => "cut",
        }
    }
}

/// A write with a short value, or a delete.
fn effect(rng: &mut Random, version: &mut u32) -> Effect {
    let key = rng.below(7) as usize;
    *version = (*version + 1..).find(|next| value_bytes(key, *next).len() < 250).unwrap();
    (key, if rng.one_in(5) { 0 } else { *version })
}

/// The padding of the records from `at` on, and the end.
fn padding(bytes: &[u8], mut at: usize) -> Vec<Range<usize>> {
    let mut padding = Vec::new();
    while let Ok((record, len)) = Record::parse(&bytes[at..]) {
        padding.push(at + record.key_at() + record.key.len() + record.value.len()..at + len);
        at += len;
    }
    padding.push(at..at);
    padding
}

/// Deals out damages: of `parts` in a row, one is ours.
struct Deal {
    part: u64,
    next: u64,
}

impl Deal {
    fn is_mine(&mut self) -> bool {
        self.next += 1;
        self.next % PARTS == self.part
    }
}

/// Tries the damages that are dealt to one case.
pub fn try_part(case: u64, counts: &mut Counts) {
    let store = Store::draw(case / PARTS);
    let mut deal = Deal { part: case % PARTS, next: 0 };
    let mut opened = 0_u64;
    let mut try_damage = |what: &dyn Fn() -> String, damage: &dyn Fn(&SimDisk), verdict: &dyn Fn() -> Verdict| {
        let disk = store.disk.twin();
        damage(&disk);
        opened += 1;
        let looked = catch_unwind(AssertUnwindSafe(|| store.look(&disk, &verdict(), opened.is_multiple_of(64))));
        let result = looked.unwrap_or_else(|violation| {
            say(&format!("damage: store {}, {}", case / PARTS, what()));
            resume_unwind(violation)
        });
        counts.add("damaged stores opened", 1);
        counts.add(result, 1);
    };
    let sectors: Vec<(usize, usize)> =
        store.files.iter().enumerate().flat_map(|(i, file)| (0..file.bytes.len()).step_by(SECTOR).map(move |at| (i, at))).collect();
    for file in &store.files {
        let name = &file.name[..];
        for (at, bit) in (0..file.bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))).filter(|_| deal.is_mine()) {
            let flipped = || {
                let mut bytes = file.bytes.clone();
                bytes[at] ^= 1 << bit;
                store.verdict_of_changes(&[(name, &bytes)])
            };
            // A single bit of a manifest is not missed: there are two copies.
            let flipped = || if manifest::number_of(name).is_some() { WHOLE } else { flipped() };
            try_damage(&|| format!("{name}: bit {bit} of byte {at}"), &|disk| assert!(disk.flip_bit(name, at as u64, bit)), &flipped);
        }
        for end in (0..file.bytes.len()).filter(|_| deal.is_mine()) {
            try_damage(&|| format!("{name}: cut at {end}"), &|disk| assert!(disk.truncate_raw(name, end as u64)), &|| {
                store.verdict_of_end(name, end)
            });
        }
        for (at, old) in (0..file.bytes.len()).step_by(SECTOR).flat_map(|at| olds(file, at).into_iter().map(move |old| (at, old))) {
            if deal.is_mine() {
                let mut bytes = file.bytes.clone();
                bytes[at..at + old.len()].copy_from_slice(&old);
                try_damage(
                    &|| format!("{name}: sector {at} is zero, or as it once was"),
                    &|disk| assert!(disk.write_raw(name, &bytes)),
                    &|| store.verdict_of_changes(&[(name, &bytes)]),
                );
            }
        }
    }
    for (i, one) in sectors.iter().enumerate() {
        for other in sectors[i + 1..].iter().filter(|_| deal.is_mine()) {
            let changed = swapped(&store, *one, *other);
            let changes: Vec<(&str, &[u8])> = changed.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
            try_damage(
                &|| format!("sectors {one:?} and {other:?} have changed places"),
                &|disk| changes.iter().for_each(|(name, bytes)| assert!(disk.write_raw(name, bytes))),
                &|| store.verdict_of_changes(&changes),
            );
        }
    }
}

/// What may stand in the sector at `at` instead: zeros, and what stood there before.
fn olds(file: &File, at: usize) -> Vec<Vec<u8>> {
    let now = &file.bytes[at..file.bytes.len().min(at + SECTOR)];
    let old = |bytes: &Vec<u8>| (at..at + now.len()).map(|at| bytes.get(at).copied().unwrap_or(0)).collect();
    let mut olds: Vec<Vec<u8>> = file.before.iter().map(old).chain([vec![0; now.len()]]).filter(|old| old[..] != *now).collect();
    olds.dedup();
    olds
}

/// The files in which two sectors, given by file and place, have changed places.
fn swapped(store: &Store, one: (usize, usize), other: (usize, usize)) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = store.files.iter().map(|file| (file.name.clone(), file.bytes.clone())).collect();
    for byte in 0..SECTOR {
        let (from, to) = (one.1 + byte, other.1 + byte);
        if let (Some(a), Some(b)) = (files[one.0].1.get(from).copied(), files[other.0].1.get(to).copied()) {
            files[one.0].1[from] = b;
            files[other.0].1[to] = a;
        }
    }
    files.into_iter().enumerate().filter(|(i, _)| *i == one.0 || *i == other.0).map(|(_, file)| file).collect()
}

impl Store {
    /// What must become of the store if a file ends early.
    fn verdict_of_end(&self, name: &str, end: usize) -> Verdict {
        let Some(id) = id_of(name) else { return REFUSED };
        let newest = self.headers.last().map_or(0, |header| header.chunk);
        let named = self.manifest.as_ref().is_some_and(|manifest| manifest.newest >= id);
        if end < CHUNK_HEADER_LEN && (id != newest || named) {
            return REFUSED;
        }
        self.verdict(|frame| frame.chunk == id && frame.bytes.end > end, &[])
    }
}

#[test]
fn every_damage_is_refused_or_harmless() {
    let counts = SWEEP.run(try_part);
    assert!(counts.of("refused") > 0 && counts.of("without effect") > 0);
}

#[test]
fn the_stores_have_files_of_every_kind() {
    let mut with_a_past = 0;
    for seed in 0..4 {
        let store = Store::draw(seed);
        assert_eq!(store.look(&store.disk.twin(), &WHOLE, true), "without effect");
        let kinds = ["chunk-", "manifest-", "index-"].map(|kind| store.files.iter().filter(|file| file.name.starts_with(kind)).count());
        assert!(kinds.iter().all(|files| *files > 0), "{kinds:?}");
        with_a_past += u32::from(store.files.iter().any(|file| !file.before.is_empty()));
    }
    assert!(with_a_past > 1);
}
