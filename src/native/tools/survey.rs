//! What files a store has, which of them make it up, and where each ends: told without refusing anything.
//!
//! The same rules as in recovery (from the newest chunk back along the headers, then the manifest), but what is missing
//! or damaged is noted, and what is left is still put in order.

use super::super::checkpoint::{self, Checkpoint};
use super::super::chunks::{file_name, id_of};
use super::super::dictionary::{self, Names};
use super::super::frame::{BadHeader, CHUNK_HEADER_LEN, CHUNK_START_LEN, ChunkHeader, FrameHeader, LogEnd, Salt};
use super::super::manifest::{self, Manifest};
use super::dictionaries::Dictionaries;
use super::patient::PatientFile;
use super::{Damage, Source};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::io::read_full_at;
use std::collections::{BTreeMap, BTreeSet};

/// See the top of this file.
#[derive(Default)]
pub struct Survey {
    /// Which store it is; `None` if no file says so.
    pub store: Option<[u8; 16]>,
    /// Chunk files, oldest first.
    pub chunks: Vec<ChunkFile>,
    /// What checkpoints and the manifest know to have been on stable storage: all up to this sequence number.
    pub proven_seq: u64,
    /// What it takes to unpack values.
    pub dictionaries: Dictionaries,
    /// Other files, and bytes in them.
    pub others: Vec<(String, u64)>,
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// What is not wrong, but worth knowing.
    pub notes: Vec<String>,
}

/// A chunk file.
pub struct ChunkFile {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
    /// Its bytes.
    pub file: PatientFile,
    /// How many.
    pub len: u64,
    /// Its header, if it is good.
    pub header: Option<ChunkHeader>,
    /// What it is to the store.
    pub role: Role,
}

/// What a chunk file is to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Part of it; its end, if something says where that is, and whether that is a manifest: then all of it was durable.
    Part { end: Option<LogEnd>, sealed: bool },
    /// No part of it, or no more.
    None,
}

impl ChunkFile {
    /// The salt of its checksums: from its header, else from the store's identity and the file's name.
    pub fn salt(&self, store: Option<[u8; 16]>) -> Option<Salt> {
        let known = self.header.map(|header| header.store).or(store);
        known.map(|store| Salt::of(&store, self.id))
    }

    /// Whether the file was that of an older chunk, whose bytes may be left in it.
    pub fn is_reused(&self) -> bool {
        self.header.is_some_and(|header| header.reused != 0)
    }
}

/// Whether the first frame of a file is one of chunk `id`, whatever the header says.
fn holds_frames_of(start: &[u8], store: &[u8; 16], id: u64) -> bool {
    let first = start.get(CHUNK_HEADER_LEN..CHUNK_START_LEN);
    first.is_some_and(|frame| FrameHeader::decode(frame, Salt::of(store, id), CHUNK_HEADER_LEN as u64).is_some())
}

impl Survey {
    /// Looks at all files of `source`. Only a directory that cannot be listed is an error, or a store that is too new.
    pub fn take(source: &Source) -> Result<Survey> {
        let mut survey = Survey::default();
        let (mut manifests, mut checkpoints, mut dictionaries) = (Vec::new(), Vec::new(), Vec::new());
        for name in source.names()? {
            match (id_of(&name), manifest::number_of(&name)) {
                (Some(id), _) => survey.look_at_chunk(source, name, id)?,
                (_, Some(number)) => manifests.push((number, name)),
                _ => {
                    let len = source.dir.open(&name).and_then(|file| file.len()).unwrap_or(0);
                    checkpoints.extend(checkpoint::number_of(&name));
                    dictionaries.extend(dictionary::number_of(&name));
                    survey.others.push((name, len));
                }
            }
        }
        survey.chunks.sort_by_key(|chunk| chunk.id);
        survey.store = survey.chunks.iter().rev().find_map(|chunk| chunk.header).map(|header| header.store);
        survey.turn_away_strangers();
        let manifest = survey.look_at_manifests(source, manifests);
        survey.proven_seq = manifest.as_ref().map_or(0, |manifest| manifest.watermark);
        survey.look_at_checkpoints(source, &checkpoints);
        survey.give_roles(manifest.as_ref());
        let mut named = Names::default();
        let parts = survey.chunks.iter().filter(|chunk| chunk.role != Role::None).filter_map(|chunk| chunk.header);
        parts.for_each(|header| dictionary::name_all(&mut named, &header.dictionaries));
        let Survey { store, damage, notes, .. } = &mut survey;
        survey.dictionaries = Dictionaries::look(source, *store, &dictionaries, &named, damage, notes);
        Ok(survey)
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len).sum::<u64>() + self.others.iter().map(|(_, len)| len).sum::<u64>()
    }

    fn look_at_chunk(&mut self, source: &Source, name: String, id: u64) -> Result<()> {
        let opened = source.dir.open(&name).and_then(|file| file.len().map(|len| (file, len)));
        let (file, len) = match opened {
            Ok((file, len)) => (PatientFile::new(file), len),
            Err(error) => {
                self.damage.push(Damage::new(&name, 0, 0, format!("cannot be opened: {error}")));
                return Ok(());
            }
        };
        let mut start = vec![0; CHUNK_START_LEN];
        let got = read_full_at(&file, &mut start, 0).map_err(|e| source.failed(&name, &e))?;
        let header = match ChunkHeader::decode(&start[..got]) {
            Ok(header) if header.chunk == id => Some(header),
            Ok(old) if holds_frames_of(&start[..got], &old.store, id) => {
                let was = file_name(old.chunk);
                self.damage.push(Damage::new(&name, 0, CHUNK_HEADER_LEN as u64, format!("has the header that it had as {was}")));
                None
            }
            Ok(header) => {
                let was = file_name(header.chunk);
                self.damage.push(Damage::new(&name, 0, 0, format!("is a copy of {was}, or {was} was renamed; it is left out")));
                return Ok(());
            }
            Err(BadHeader::Newer) => {
                let text = format!("store {}: {name} was written by a newer version of the library: use that version", source.name);
                return Err(Error::new(Code::NOT_SUPPORTED, text));
            }
            Err(BadHeader::Damaged) => None,
        };
        self.chunks.push(ChunkFile { name, id, file, len, header, role: Role::None });
        Ok(())
    }

    /// Files of another store are no part of this one.
    fn turn_away_strangers(&mut self) {
        let store = self.store;
        let is_foreign = |chunk: &ChunkFile| chunk.header.is_some_and(|header| Some(header.store) != store);
        for stranger in self.chunks.iter().filter(|chunk| is_foreign(chunk)) {
            self.damage.push(Damage::new(&stranger.name, 0, 0, "belongs to another store; it is left out"));
        }
        self.chunks.retain(|chunk| !is_foreign(chunk));
    }

    /// The manifest that is in force.
    fn look_at_manifests(&mut self, source: &Source, mut manifests: Vec<(u64, String)>) -> Option<Manifest> {
        manifests.sort_unstable_by(|a, b| b.cmp(a));
        let mut in_force = None;
        for (number, name) in manifests {
            let bytes = match read_whole(source, &name) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.damage.push(Damage::new(&name, 0, 0, format!("cannot be read: {error}")));
                    continue;
                }
            };
            self.others.push((name.clone(), bytes.len() as u64));
            let decoded = Manifest::decode(&bytes).filter(|manifest| manifest.number == number && Some(manifest.store) == self.store);
            match decoded {
                Some(manifest) => {
                    let good = manifest.encode();
                    if let Some(at) = first_difference(&good, &bytes) {
                        self.damage.push(Damage::new(&name, at, 0, "one of its two copies is damaged"));
                    }
                    in_force = in_force.or(Some(manifest));
                }
                None if in_force.is_some() => self.notes.push(format!("{name} cannot be read, and is not needed any more")),
                None => self.notes.push(format!("{name} was not written to its end, or is damaged")),
            }
        }
        in_force
    }

    /// Checkpoints are a help and hold nothing of their own: what is wrong with one costs time only.
    fn look_at_checkpoints(&mut self, source: &Source, numbers: &[u64]) {
        for number in numbers {
            let name = checkpoint::file_name(*number);
            match Checkpoint::open(&*source.dir, *number) {
                None => self.notes.push(format!("{name} was not written to its end, or is damaged; opening goes on without it")),
                Some(found) if Some(found.head.store) != self.store => self.notes.push(format!("{name} belongs to another store")),
                Some(found) => {
                    self.proven_seq = self.proven_seq.max(found.tail.end.last_seq);
                    if !found.verify() {
                        self.damage.push(Damage::new(&name, 0, 0, "the checkpoint is damaged (nothing is lost: the log says the same)"));
                    }
                }
            }
        }
    }

    fn give_roles(&mut self, manifest: Option<&Manifest>) {
        let covers = manifest.map_or(0, |manifest| manifest.covers);
        // The last header to speak of a chunk's end is right: an earlier one may itself have been cut off.
        let mut ends: BTreeMap<u64, Option<LogEnd>> = BTreeMap::new();
        let mut parts: BTreeSet<u64> = BTreeSet::new();
        let mut wanted = None;
        for at in (0..self.chunks.len()).rev() {
            let ChunkFile { id, header, len, .. } = self.chunks[at];
            if id <= covers {
                break;
            }
            if wanted.is_some_and(|wanted| id > wanted) {
                self.notes.push(format!("{} was cut off by an earlier recovery", self.chunks[at].name));
                continue;
            }
            if let Some(missing) = wanted.filter(|wanted| id < *wanted) {
                self.damage.push(Damage::new(&file_name(missing), 0, 0, "is missing"));
            }
            match header {
                Some(header) if parts.is_empty() && header.open && self.is_blank(at) => {
                    self.notes.push(format!("{} was made ahead and never used", self.chunks[at].name));
                    let before = header.before.chunk;
                    if before > covers && self.chunks.iter().all(|chunk| chunk.id != before) {
                        self.damage.push(Damage::new(&file_name(before), 0, 0, "is missing"));
                    }
                }
                Some(header) => {
                    wanted = Some(header.before.chunk);
                    parts.insert(id);
                    ends.entry(header.before.chunk).or_insert(header.end_before());
                }
                None if self.is_blank(at) => self.notes.push(format!("{} was begun and never used", self.chunks[at].name)),
                None => {
                    let name = self.chunks[at].name.clone();
                    self.damage.push(Damage::new(&name, 0, len.min(CHUNK_HEADER_LEN as u64), "the header is damaged"));
                    wanted = None;
                    parts.insert(id);
                }
            }
        }
        if let Some(missing) = wanted.filter(|wanted| *wanted > covers && !parts.contains(wanted)) {
            self.damage.push(Damage::new(&file_name(missing), 0, 0, "is missing"));
        }
        let newest = self.chunks.last().map_or(0, |newest| newest.id);
        if let Some(missing) = manifest.map(|manifest| manifest.newest).filter(|wanted| *wanted > newest) {
            self.damage.push(Damage::new(&file_name(missing), 0, 0, "is missing, or one behind it"));
        }
        for end in manifest.iter().flat_map(|manifest| &manifest.chunks) {
            ends.insert(end.chunk, Some(*end));
            parts.insert(end.chunk);
            match self.chunks.iter().find(|chunk| chunk.id == end.chunk) {
                None => self.damage.push(Damage::new(&file_name(end.chunk), 0, 0, "is missing")),
                Some(chunk) if chunk.header.is_none() => {
                    let (name, len) = (chunk.name.clone(), chunk.len.min(CHUNK_HEADER_LEN as u64));
                    self.damage.push(Damage::new(&name, 0, len, "the header is damaged"));
                }
                Some(_) => {}
            }
        }
        for chunk in &mut self.chunks {
            if parts.contains(&chunk.id) {
                chunk.role = Role::Part { end: ends.get(&chunk.id).copied().flatten(), sealed: chunk.id <= covers };
            } else if chunk.id <= covers {
                self.notes.push(format!("{} was compacted away, and its file is still there", chunk.name));
            }
        }
    }

    /// Whether nothing was ever written behind the header.
    fn is_blank(&self, at: usize) -> bool {
        !super::super::inventory::holds_frames(self.chunks[at].len)
    }
}

fn read_whole(source: &Source, name: &str) -> std::io::Result<Vec<u8>> {
    let file = source.dir.open(name)?;
    let mut bytes = Vec::new();
    let len = file.len()? as usize;
    bytes.try_reserve_exact(len).map_err(|_| std::io::Error::from_raw_os_error(libc::ENOMEM))?;
    bytes.resize(len, 0);
    let got = read_full_at(&*file, &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Where two files begin to differ, if they do.
pub fn first_difference(good: &[u8], found: &[u8]) -> Option<u64> {
    let common = good.iter().zip(found).position(|(good, found)| good != found);
    let at = common.or_else(|| (good.len() != found.len()).then_some(good.len().min(found.len())));
    at.map(|at| at as u64)
}
