//! The manifest: which of the older chunks make up the store, once some have been removed.
//!
//! The chain of chunk headers explains every chunk as long as none is gone. Before the first one goes, and before each
//! further one, a manifest is written that names those which stay; only then is the file removed. A manifest is a new
//! file each time, never changed, and holds its contents twice; the one before it is kept until the next.

use super::frame::LogEnd;
use super::names::{number_in, numbered};
use crate::base::crc;
use crate::base::limits::BLOCK_BYTES;
use crate::base::planted::{Bug, planted};
use crate::engine::outcome::{Outcomes, RANGE_LEN};
use crate::io::{Dir, write_all_at};
use std::io::{self, IoSlice};

const MAGIC: [u8; 8] = *b"\x89KVM\r\n\x1a\n";
const FORMAT_VERSION: u32 = 1;
const HEADER_LEN: usize = 72;
const ENTRY_LEN: usize = 32;

/// See the top of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Which store this is.
    pub store: [u8; 16],
    /// Rises with each manifest.
    pub number: u64,
    /// The manifest speaks for all chunks up to this one; later ones are explained by their headers.
    pub covers: u64,
    /// The newest chunk at the time: it must be there, or one behind it.
    pub newest: u64,
    /// Everything up to this sequence number was on stable storage: a log that ends before it has lost something.
    pub watermark: u64,
    /// The chunks up to there that are part of the store, oldest first, each with its end.
    pub chunks: Vec<LogEnd>,
    /// Batches that were committed by then, all of them on stable storage; those of chunks that are gone stand only here.
    pub outcomes: Outcomes,
}

/// The file name of a manifest.
pub fn file_name(number: u64) -> String {
    numbered("manifest", number)
}

/// The number in a manifest's file name, if it is one.
pub fn number_of(name: &str) -> Option<u64> {
    number_in("manifest", name)
}

/// Writes a manifest; it is on stable storage when this returns.
pub fn write(dir: &dyn Dir, manifest: &Manifest) -> io::Result<()> {
    let name = file_name(manifest.number);
    let file = dir.create(&name)?;
    if planted(Bug::ManifestNotSynced) {
        return write_all_at(&*file, &mut [IoSlice::new(&manifest.encode())], 0, false).map(drop);
    }
    let written = write_all_at(&*file, &mut [IoSlice::new(&manifest.encode())], 0, false).and_then(|_| file.sync());
    if let Err(error) = written {
        let _ = dir.remove(&name); // half a manifest is none
        return Err(error);
    }
    dir.sync()
}

impl Manifest {
    /// The file's contents.
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::new();
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        copy.extend_from_slice(&self.store);
        copy.extend_from_slice(&self.number.to_le_bytes());
        copy.extend_from_slice(&self.covers.to_le_bytes());
        copy.extend_from_slice(&self.newest.to_le_bytes());
        copy.extend_from_slice(&self.watermark.to_le_bytes());
        copy.extend_from_slice(&[0; 4]); // the checksum's place
        copy.extend_from_slice(&(self.outcomes.encoded_ranges() as u32).to_le_bytes());
        for end in &self.chunks {
            for field in [end.chunk, end.valid_bytes, end.last_seq, end.digest] {
                copy.extend_from_slice(&field.to_le_bytes());
            }
        }
        self.outcomes.encode(&mut copy);
        let sum = crc::crc32c(&copy);
        copy[HEADER_LEN - 8..HEADER_LEN - 4].copy_from_slice(&sum.to_le_bytes());
        copy.resize(copy.len().next_multiple_of(BLOCK_BYTES), 0);
        copy.repeat(2)
    }

    /// Reads a file: from the first copy, or from the second if that is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Manifest> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        Manifest::decode_copy(first).or_else(|| Manifest::decode_copy(second))
    }

    fn decode_copy(copy: &[u8]) -> Option<Manifest> {
        let header = copy.get(..HEADER_LEN)?;
        let u32_at = |at: usize| header.get(at..at + 4).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
        if header[..8] != MAGIC || u32_at(8)? != FORMAT_VERSION {
            return None;
        }
        let ranges_at = (u32_at(12)? as usize).checked_mul(ENTRY_LEN)?.checked_add(HEADER_LEN)?;
        let ranges_end = (u32_at(HEADER_LEN - 4)? as usize).checked_mul(RANGE_LEN)?.checked_add(ranges_at)?;
        let counted = if planted(Bug::ManifestCountBelieved) { &copy[HEADER_LEN..ranges_end] } else { copy.get(HEADER_LEN..ranges_end)? };
        let (entries, ranges) = counted.split_at(ranges_at - HEADER_LEN);
        let (before_sum, after_sum) = (&header[..HEADER_LEN - 8], &header[HEADER_LEN - 4..]);
        let sum = crc::extend(crc::extend(crc::extend(crc::crc32c(before_sum), &[0; 4]), after_sum), &copy[HEADER_LEN..ranges_end]);
        if sum != u32_at(HEADER_LEN - 8)? {
            return None;
        }
        let u64_at = |bytes: &[u8], at: usize| bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes);
        let end_of = |entry: &[u8]| {
            Some(LogEnd {
                chunk: u64_at(entry, 0)?,
                valid_bytes: u64_at(entry, 8)?,
                last_seq: u64_at(entry, 16)?,
                digest: u64_at(entry, 24)?,
            })
        };
        Some(Manifest {
            store: header[16..32].try_into().ok()?,
            number: u64_at(header, 32)?,
            covers: u64_at(header, 40)?,
            newest: u64_at(header, 48)?,
            watermark: u64_at(header, 56)?,
            chunks: entries.chunks_exact(ENTRY_LEN).map(end_of).collect::<Option<_>>()?,
            outcomes: Outcomes::decode(ranges),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BatchId;

    #[test]
    fn either_copy_is_enough() {
        let end = |chunk| LogEnd { chunk, valid_bytes: 5000 + chunk, last_seq: 10 * chunk, digest: 77 };
        let mut outcomes = Outcomes::default();
        (1..20).for_each(|number| outcomes.add(BatchId { opening: 1 + number / 8, number }));
        let chunks = (1..300).map(end).collect();
        let manifest = Manifest { store: [3; 16], number: 4, covers: 9, newest: 10, watermark: 99, chunks, outcomes };
        let good = manifest.encode();
        assert_eq!(Manifest::decode(&good).as_ref(), Some(&manifest));
        let used = HEADER_LEN + ENTRY_LEN * manifest.chunks.len() + RANGE_LEN * manifest.outcomes.encoded_ranges();
        for bit in (0..used * 8).step_by(3) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&bad).as_ref(), Some(&manifest), "first copy, bit {bit}");
            bad[good.len() / 2 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&bad), None, "both copies, bit {bit}");
        }
        assert_eq!(Manifest::decode(&[]), None);
        assert_eq!(number_of(&file_name(31)), Some(31));
    }
}
