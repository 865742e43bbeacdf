//! What a store's directory holds: its chunk files, and which of them make up the store.
//!
//! Called by recovery, before anything is replayed. Looks at headers and manifests only, and changes nothing but that
//! the manifest in force is made durable.

use super::checkpoint;
use super::chunks::{file_name, id_of};
use super::dictionary;
use super::frame::{BadHeader, CHUNK_HEADER_LEN, CHUNK_START_LEN, ChunkHeader, LogEnd};
use super::log::{PREPARED_NAME, RESERVE_NAME, is_removed_name};
use super::manifest::{self, Manifest};
use super::prefix::Prefix;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::sync::Arc;
use crate::io::{Dir, File, read_full_at};

/// A chunk file with a good header.
pub(super) struct Found {
    pub header: ChunkHeader,
    pub file: Arc<dyn File>,
    pub len: u64,
    /// Its end, if the manifest says it.
    pub end: Option<LogEnd>,
}

/// What the directory holds.
pub(super) struct Inventory {
    pub found: Vec<Found>,
    /// Chunk files without a good header: begun, and never used.
    pub unfinished: Vec<u64>,
    /// Chunk files with a damaged header, which nobody minds.
    pub unreadable: Vec<u64>,
    pub highest_id: u64,
    pub manifests: Vec<u64>,
    /// Numbers of checkpoints.
    pub checkpoints: Vec<u64>,
    /// Whether there is a reserve.
    pub reserve: bool,
    /// Files that were to become chunks: nobody needs them any more.
    pub prepared: Vec<String>,
    /// Whether there are dictionaries: none is made before there are chunks.
    pub has_dictionaries: bool,
}

pub(super) fn missing(store_path: &str, what: &str) -> Error {
    Error::new(Code::CORRUPTED, format!("store {store_path}: {what} missing: restore from a backup"))
}

/// The newest manifest that can be read. One that was being written when the process died explains nothing yet that
/// the one before it does not.
pub(super) fn read_manifest(dir: &dyn Dir, inventory: &Inventory, store: &[u8; 16], store_path: &str) -> Result<Option<Manifest>> {
    let mut numbers = inventory.manifests.clone();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for number in &numbers {
        let name = manifest::file_name(*number);
        let failed = |e: &std::io::Error| Error::from_io(format_args!("store {store_path}: cannot read {name}"), e);
        let file = dir.open(&name).map_err(|e| failed(&e))?;
        let len = file.len().map_err(|e| failed(&e))?;
        let mut bytes = Vec::new();
        let no_memory = |_| Error::no_memory("no memory for the manifest: free memory");
        bytes.try_reserve_exact(len as usize).map_err(no_memory)?;
        bytes.resize(len as usize, 0);
        let got = read_full_at(&*file, &mut bytes, 0).map_err(|e| failed(&e))?;
        match Manifest::decode(&bytes[..got]).filter(|manifest| manifest.number == *number) {
            Some(manifest) if manifest.store == *store => {
                // It may be in the cache only, and files that it does not name are about to go.
                file.sync().and_then(|()| dir.sync()).map_err(|e| failed(&e))?;
                return Ok(Some(manifest));
            }
            Some(_) => {
                let text = format!("store {store_path}: {name} belongs to another store: move it away");
                return Err(Error::new(Code::CONFIG, text));
            }
            None => {}
        }
    }
    Ok(None)
}

pub(super) fn take_inventory(dir: &dyn Dir, store_path: &str, prefix: &mut Prefix) -> Result<Inventory> {
    let names = dir.list().map_err(|e| Error::from_io(format_args!("store {store_path}: cannot list the directory"), &e))?;
    let manifests = names.iter().filter_map(|name| manifest::number_of(name)).collect();
    let checkpoints = names.iter().filter_map(|name| checkpoint::number_of(name)).collect();
    let has_dictionaries = names.iter().any(|name| dictionary::number_of(name).is_some());
    let mut inventory = Inventory {
        found: Vec::new(),
        unfinished: Vec::new(),
        unreadable: Vec::new(),
        highest_id: 0,
        manifests,
        checkpoints,
        reserve: names.iter().any(|name| name == RESERVE_NAME),
        prepared: names.iter().filter(|name| *name == PREPARED_NAME || is_removed_name(name)).cloned().collect(),
        has_dictionaries,
    };
    for (id, name) in names.iter().filter_map(|name| id_of(name).map(|id| (id, name))) {
        let failed = |e: &std::io::Error| Error::from_io(format_args!("store {store_path}: cannot read {name}"), e);
        let file = dir.open(name).map_err(|e| failed(&e))?;
        let len = file.len().map_err(|e| failed(&e))?;
        let mut start = vec![0; CHUNK_START_LEN];
        let got = read_full_at(&*file, &mut start, 0).map_err(|e| failed(&e))?;
        inventory.highest_id = inventory.highest_id.max(id);
        match ChunkHeader::decode(&start[..got]) {
            Ok(header) if header.chunk == id => inventory.found.push(Found { header, file, len, end: None }),
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
            Err(BadHeader::Damaged) if holds_frames(len) => {
                let text = format!("store {store_path}: the header of {name} is damaged: restore the file from a backup");
                prefix.tolerate(Error::new(Code::CORRUPTED, text))?;
                prefix.give_up(store_path, name.clone());
                inventory.unreadable.push(id);
            }
            Err(BadHeader::Damaged) => inventory.unfinished.push(id),
        }
    }
    Ok(inventory)
}

/// Whether anything was ever written behind the header, be it zeros: the header is durable before the first frame is
/// written, so a chunk that was never begun is no longer than that.
pub(super) fn holds_frames(len: u64) -> bool {
    len > CHUNK_HEADER_LEN as u64
}

pub(super) fn check_identities(inventory: &Inventory, store: &[u8; 16], store_path: &str) -> Result<()> {
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

/// The chunks that make up the store, oldest first, and the files that are no part of it.
///
/// From the newest back, each chunk names the one before it, down to the first or to where the manifest takes over.
pub(super) fn chain_of(
    inventory: Inventory,
    manifest: Option<&Manifest>,
    store_path: &str,
    prefix: &mut Prefix,
) -> Result<(Vec<Found>, Vec<String>)> {
    let Inventory { mut found, unfinished, manifests, .. } = inventory;
    let covers = manifest.map_or(0, |manifest| manifest.covers);
    let mut chain = Vec::new();
    let mut leftovers: Vec<String> = unfinished.iter().copied().map(file_name).collect();
    let is_missing = |id: u64| {
        if unfinished.contains(&id) {
            let text = format!("store {store_path}: the header of {} is damaged: restore the file from a backup", file_name(id));
            Error::new(Code::CORRUPTED, text)
        } else {
            missing(store_path, &format!("{} is", file_name(id)))
        }
    };
    let newest = found.last().map_or(0, |newest| newest.header.chunk);
    // Made ahead of its use, which then did not come: the chunk before it was in use.
    while let Some(unused) = found.pop_if(|newest| newest.header.open && !holds_frames(newest.len)) {
        let before = unused.header.before.chunk;
        if before > covers && found.iter().all(|other| other.header.chunk != before) {
            prefix.tolerate(is_missing(before))?;
        }
        leftovers.push(file_name(unused.header.chunk));
    }
    let mut wanted = found.last().map_or(0, |newest| newest.header.chunk);
    if newest < manifest.map_or(0, |manifest| manifest.newest) {
        prefix.tolerate(missing(store_path, &format!("chunk files behind {} are", file_name(newest))))?;
    }
    while wanted > covers {
        match found.pop() {
            Some(candidate) if candidate.header.chunk > wanted => {
                leftovers.push(file_name(candidate.header.chunk)); // cut off by an earlier recovery
            }
            Some(candidate) if candidate.header.chunk == wanted => {
                wanted = candidate.header.before.chunk;
                chain.push(candidate);
            }
            // Without its manifest nobody knows what a store whose chunks are not all there should hold.
            _ if manifest.is_none() && !manifests.is_empty() => return Err(is_missing(wanted)),
            older => {
                prefix.tolerate(is_missing(wanted))?;
                chain.drain(..).for_each(|newer: Found| prefix.give_up_chunk(store_path, &newer.header));
                wanted = older.as_ref().map_or(0, |older| older.header.chunk);
                found.extend(older);
            }
        }
    }
    for end in manifest.iter().flat_map(|manifest| manifest.chunks.iter().rev()) {
        loop {
            match found.pop() {
                Some(candidate) if candidate.header.chunk > end.chunk => leftovers.push(file_name(candidate.header.chunk)),
                Some(candidate) if candidate.header.chunk == end.chunk => {
                    chain.push(Found { end: Some(*end), ..candidate });
                    break;
                }
                older => {
                    prefix.tolerate(is_missing(end.chunk))?;
                    chain.drain(..).for_each(|newer: Found| prefix.give_up_chunk(store_path, &newer.header));
                    found.extend(older);
                    break;
                }
            }
        }
    }
    leftovers.extend(found.iter().map(|older| file_name(older.header.chunk)));
    chain.reverse();
    Ok((chain, leftovers))
}
