//! What fuzzing throws at the files of a store. The driver (`store::fuzz`) calls these with any bytes at all.
//!
//! Checksums are made good before most checks, since behind a checksum everything else is reached by no chance. Inputs
//! leave out what a file has for padding only. Must never write outside of a simulated disk.

mod files;

pub use files::files;

use super::checkpoint::{self, Checkpoint, file as checkpoint_file};
use super::dictionary;
use super::frame::{
    BATCH_ENTRY_LEN, CHUNK_HEADER_LEN, ChunkHeader, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd, places_of_next, u32_at,
    u64_at,
};
use super::index::Index;
use super::manifest::Manifest;
use super::scan::{Frames, Step};
use super::tests::driver::{Batch, open};
use super::tests::workload;
use super::window::Window;
use crate::base::crc;
use crate::base::sync::Arc;
use crate::engine::codec::Codec;
use crate::engine::dense::Dense;
use crate::engine::record::{Record, SUM_FROM, stored_sum, write_sum};
use crate::engine::{Engine, Turn};
use crate::io::sim::{Faults, SimDisk};
use crate::io::{Disk, File};
use std::path::Path;

/// Bytes of a chunk's and of a checkpoint's header that mean something.
const HEADER_USED: usize = 144;

/// A header without its padding, and what follows it, as they lie in a file.
fn expand(input: &[u8]) -> Vec<u8> {
    let (header, rest) = input.split_at(input.len().min(HEADER_USED));
    let mut image = header.to_vec();
    image.resize(CHUNK_HEADER_LEN, 0);
    seal_header(&mut image);
    image.extend_from_slice(rest);
    image
}

fn shrink(image: &[u8]) -> Vec<u8> {
    [&image[..HEADER_USED], &image[CHUNK_HEADER_LEN..]].concat()
}

fn seal_header(image: &mut [u8]) {
    let sum = crc::crc32c(&image[..CHUNK_HEADER_LEN - 4]);
    image[CHUNK_HEADER_LEN - 4..CHUNK_HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
}

/// Makes every checksum behind a chunk's header good, and every digest; where the log then ends.
fn seal_frames(image: &mut [u8], header: &ChunkHeader) -> LogEnd {
    let (salt, mut at, mut digest) = (header.salt(), CHUNK_HEADER_LEN as u64, header.before.digest);
    let mut end = LogEnd { chunk: header.chunk, valid_bytes: at, last_seq: header.before.last_seq, digest };
    while let Some(start) = places_of_next(at).into_iter().find(|at| begins_frame(image, *at)) {
        let from = start as usize;
        let (batches, payload_len) = (u64::from(u32_at(image, from + 36)), u64_at(image, from + 24));
        let payload_at = start + FRAME_HEADER_LEN as u64 + batches * BATCH_ENTRY_LEN as u64;
        let behind = payload_at.checked_add(payload_len).filter(|behind| *behind <= image.len() as u64);
        let mut sums = Digest::new(digest);
        let mut place = payload_at;
        while behind.is_some_and(|behind| place < behind) {
            let bytes = &mut image[place as usize..];
            let Ok((record, len)) = Record::parse(bytes) else { break };
            let sum = crc::crc32c(&bytes[SUM_FROM..record.sum_end()]) ^ salt.at(place);
            write_sum(bytes, sum);
            sums.record(stored_sum(bytes));
            place += len as u64;
        }
        image[from + 40..from + 48].copy_from_slice(&digest.to_le_bytes());
        if let (Some(_), Some(table), 1) = (behind, image.get(from + FRAME_HEADER_LEN..payload_at as usize), image[from + 3]) {
            sums.table(table);
            digest = sums.finish(FrameKind::Data, u64_at(image, from + 8), payload_len);
        }
        image[from + 48..from + 56].copy_from_slice(&digest.to_le_bytes());
        image[from + 56..from + 64].fill(0);
        let bytes = &mut image[from..from + FRAME_HEADER_LEN];
        let sum = crc::extend(crc::crc32c(&bytes[..4]), &bytes[8..]) ^ salt.at(start);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        let Some(behind) = behind.filter(|behind| *behind > start) else { break };
        at = behind;
        end = LogEnd { valid_bytes: at, digest, ..end };
    }
    end
}

fn begins_frame(image: &[u8], at: u64) -> bool {
    let bytes = usize::try_from(at).ok().and_then(|at| image.get(at..)).filter(|bytes| bytes.len() >= FRAME_HEADER_LEN);
    bytes.is_some_and(|bytes| bytes.starts_with(b"KVF"))
}

/// A disk with one file on it.
fn disk_with(name: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(1, Faults::default());
    let dir = disk.open_dir(Path::new("/store")).expect("a directory");
    assert!(disk.write_raw(name, bytes));
    (disk, dir.open(name).expect("a file"))
}

/// A chunk: its header and its frames, read one by one as compaction does, and replayed as opening does.
pub fn frame(input: &[u8]) {
    replayed(input);
}

/// The same; how many bytes of frames were replayed, if the store opens.
fn replayed(input: &[u8]) -> Option<u64> {
    let _ = ChunkHeader::decode(input);
    let mut image = expand(input);
    let header = ChunkHeader::decode(&image).ok()?;
    assert_eq!(ChunkHeader::decode(&header.encode()), Ok(header));
    let end = seal_frames(&mut image, &header);
    let salt = header.salt();
    if let Some(mut bytes) = image.get(CHUNK_HEADER_LEN..CHUNK_HEADER_LEN + FRAME_HEADER_LEN).map(<[u8]>::to_vec)
        && let Some(frame) = FrameHeader::decode(&bytes, salt, CHUNK_HEADER_LEN as u64)
    {
        assert_eq!(frame.encode(salt, CHUNK_HEADER_LEN as u64)[..], bytes);
        let _ = (frame.len(), frame.last_seq(), frame.payload_at());
        bytes[9] ^= 4;
        assert_eq!(FrameHeader::decode(&bytes, salt, CHUNK_HEADER_LEN as u64), None, "a header is believed without its checksum");
    }
    let name = super::chunks::file_name(header.chunk);
    let (disk, file) = disk_with(&name, &image);
    let mut window = Window::new(&*file, end.valid_bytes);
    let mut frames = Frames::new(salt, end);
    let (mut last, mut steps) = (0, 0);
    while let Ok(Step::Record { offset, bytes, .. }) = frames.next_record(&mut window) {
        assert!(offset > last && offset + bytes.len() as u64 <= end.valid_bytes);
        last = offset;
        steps += 1;
        assert!(steps <= image.len(), "more records than bytes");
    }
    let engine = open(&disk, workload::options(12 << 10, 0)).ok()?;
    let _ = engine.close();
    Some(end.valid_bytes - CHUNK_HEADER_LEN as u64)
}

/// A checkpoint: header, blocks of entries, tail.
pub fn checkpoint(input: &[u8]) {
    let mut image = expand(input);
    let footer_at = image.len().saturating_sub(checkpoint_file::FOOTER_LEN);
    let Some(head) = checkpoint_file::Head::decode(&image) else { return };
    assert_eq!(checkpoint_file::Head::decode(&head.encode()), Some(head));
    let salt = checkpoint_file::salt(&head.store, head.number);
    if let Some(tail_at) = checkpoint_file::Tail::place(&image[footer_at..], image.len() as u64) {
        let mut at = CHUNK_HEADER_LEN as u64;
        while let Some((_, len)) = image.get(at as usize..tail_at as usize).and_then(checkpoint_file::block_shape)
            && let Some(end) = at.checked_add(len).filter(|end| *end <= tail_at)
        {
            seal(&mut image[at as usize..end as usize], 0, salt.at(at));
            at = end;
        }
        image[footer_at + 8..footer_at + 16].copy_from_slice(&head.number.to_le_bytes());
        let sum_at = image.len() - 4 - tail_at as usize;
        seal(&mut image[tail_at as usize..], sum_at, salt.at(tail_at));
    }
    let (_disk, file) = disk_with(&checkpoint::file_name(head.number), &image);
    let Some(checkpoint) = Checkpoint::of(file) else { return };
    let whole = checkpoint.verify();
    let mut index = Index::new().expect("an empty index");
    let Some(live) = checkpoint.load(&mut index) else { return };
    assert!(whole && live.len() == checkpoint.slots_end() as usize);
    index.for_each(&mut |_, place| {
        assert!(checkpoint.tail.slots.iter().any(|slot| slot.slot == place.slot()), "an entry names a slot that is not in the table");
    });
}

/// Puts the checksum of all else to `at`.
fn seal(bytes: &mut [u8], at: usize, salt: u32) {
    let sum = crc::extend(crc::crc32c(&bytes[..at]), &bytes[at + 4..]) ^ salt;
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// A manifest, of which the input is one copy.
pub fn manifest(input: &[u8]) {
    const HEADER_LEN: usize = 72;
    let _ = Manifest::decode(input);
    let mut copy = input.to_vec();
    if copy.len() >= HEADER_LEN {
        let (chunks, ranges) = (u32_at(&copy, 12) as usize, u32_at(&copy, HEADER_LEN - 4) as usize);
        let used = chunks.saturating_mul(32).saturating_add(ranges.saturating_mul(24)).saturating_add(HEADER_LEN).min(copy.len());
        copy[HEADER_LEN - 8..HEADER_LEN - 4].fill(0);
        let sum = crc::crc32c(&copy[..used]);
        copy[HEADER_LEN - 8..HEADER_LEN - 4].copy_from_slice(&sum.to_le_bytes());
    }
    if let Some(manifest) = Manifest::decode(&copy.repeat(2)) {
        assert!(manifest.chunks.len() * 32 <= copy.len());
        assert_eq!(Manifest::decode(&manifest.encode()), Some(manifest));
    }
}

/// A dictionary's file, of which the input is one copy.
pub fn dictionary(input: &[u8]) {
    let mut copy = input.to_vec();
    if copy.len() >= 64 {
        copy[56..60].fill(0);
        let used = usize::try_from(u64_at(&copy, 40)).unwrap_or(0).saturating_add(64).min(copy.len());
        let sum = crc::crc32c(&copy[..used]);
        copy[56..60].copy_from_slice(&sum.to_le_bytes());
    }
    if let Some(stored) = dictionary::decode(&copy) {
        let (number, codec) = (stored.dictionary.number, stored.dictionary.codec);
        let again = dictionary::decode(&dictionary::encode(&stored.store, number, codec, &stored.contents));
        assert!(again.is_some_and(|again| again.contents == stored.contents && again.store == stored.store));
    }
}

/// Good inputs to begin with: the files of a small store.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = vec![("dictionary", dictionary::encode(&[3; 16], 7, Codec::Dense, &Dense::contents(b"some phrases", &[])))];
    seeds[0].1.truncate(64 + 512 + 12);
    let disk = SimDisk::new(1, Faults::default());
    let engine = open(&disk, workload::options(12 << 10, 0)).expect("opens");
    let commit = |version: u32, keys: usize| {
        let effects = (0..keys).map(|key| (key, version + key as u32)).collect();
        let turn: Turn = engine.turn();
        Batch::commit_all(&engine, turn, &mut [Batch::new(&engine.hasher(), version.is_multiple_of(2), effects, Vec::new())])
            .expect("commits");
    };
    let mut take = || {
        for name in disk.list_files() {
            let bytes = disk.read_raw(&name).unwrap_or_default();
            match name.split('-').next() {
                Some("chunk") => seeds.push(("frame", shrink(&bytes))),
                Some("index") => seeds.push(("checkpoint", shrink(&bytes))),
                Some("manifest") => seeds.push(("manifest", bytes[..600.min(bytes.len())].to_vec())),
                _ => {}
            }
        }
    };
    (1..6).for_each(|round| commit(100 * round, 1 + round as usize % 5));
    take();
    (6..40).for_each(|round| commit(100 * round, 1 + round as usize % 5));
    let compacted = engine.compact_once(100).expect("compacts");
    engine.checkpoint().expect("a checkpoint");
    engine.close().expect("closes");
    assert!(compacted);
    take();
    seeds.retain(|(_, input)| input.len() <= 16 << 10);
    seeds.extend(files::seeds().into_iter().map(|input| ("files", input)));
    seeds
}

/// Behind the checksums is where the target has to get.
#[test]
fn changed_records_are_replayed() {
    let (_, input) = seeds().into_iter().find(|(name, _)| *name == "frame").expect("a chunk");
    let whole = replayed(&input).expect("the first chunk opens by itself");
    let opened = (HEADER_USED + FRAME_HEADER_LEN + BATCH_ENTRY_LEN..input.len()).filter(|at| {
        let mut changed = input.clone();
        changed[*at] ^= 1;
        replayed(&changed) == Some(whole)
    });
    let (opened, all) = (opened.count(), input.len());
    assert!(opened > all / 2, "{opened} of {all} changed chunks open, and with all their frames");
}
