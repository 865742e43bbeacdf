//! What stands in a chunk file: a header, then frames. docs/FORMAT.md draws it.
//!
//! Encoding and decoding only; no I/O. Every checksum is salted with the place it stands at (store, chunk, offset), so
//! that bytes which were written elsewhere, or by another store, are never taken for good.

mod chunk_header;

pub use chunk_header::{BadHeader, CHUNK_HEADER_LEN, CHUNK_START_LEN, ChunkHeader, LogEnd, TO_ITS_LAST_FRAME};

use crate::base::crc;
use crate::base::limits::BLOCK_BYTES;
use crate::base::planted::{Bug, planted};
use crate::engine::record::ALIGN;

/// Length of a frame header, in bytes.
pub const FRAME_HEADER_LEN: usize = 64;

/// Length of one entry in a frame's batch table, in bytes.
pub const BATCH_ENTRY_LEN: usize = 16;

const FRAME_MAGIC: [u8; 3] = *b"KVF";

/// Names a file of a store in 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    /// The salt of file `number` of a store.
    pub fn of(store: &[u8; 16], number: u64) -> Salt {
        let (low, high) = store.split_at(8);
        Salt(mix(u64_at(low, 0) ^ mix(u64_at(high, 0) ^ mix(number))))
    }

    /// What is XORed into a checksum that stands at `offset`.
    #[inline]
    pub fn at(self, offset: u64) -> u32 {
        if planted(Bug::SumWithoutPlace) { 0 } else { (mix(self.0 ^ offset) >> 32) as u32 }
    }
}

/// SplitMix64's finaliser: every bit of the input reaches every bit of the output.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a frame is for. The numbers are on disk; 0 is never legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The records of a commit group.
    Data = 1,
    /// No records: only says how far the log is durable.
    Beat = 2,
    /// The store was closed in order.
    Close = 3,
}

/// The header of a frame. Behind it: the batch table, then the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is for.
    pub kind: FrameKind,
    /// Sequence number of the first record; the others follow.
    pub first_seq: u64,
    /// Everything up to this sequence number was on stable storage when the frame was formed.
    pub watermark: u64,
    /// Bytes of records.
    pub payload_len: u64,
    /// Number of records.
    pub records: u32,
    /// Number of batches.
    pub batches: u32,
    /// Running digest before this frame.
    pub digest_before: u64,
    /// Running digest with this frame.
    pub digest: u64,
}

impl FrameHeader {
    /// The header's bytes for a frame at `offset` of the chunk with this salt.
    pub fn encode(&self, salt: Salt, offset: u64) -> [u8; FRAME_HEADER_LEN] {
        let mut header = [0; FRAME_HEADER_LEN];
        let mut put = Fields { bytes: &mut header, at: 0 };
        put.bytes(&FRAME_MAGIC);
        put.bytes(&[self.kind as u8]);
        put.u32(0);
        put.u64(self.first_seq);
        put.u64(self.watermark);
        put.u64(self.payload_len);
        put.u32(self.records);
        put.u32(self.batches);
        put.u64(self.digest_before);
        put.u64(self.digest);
        let sum = FrameHeader::sum(&header) ^ salt.at(offset);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        header
    }

    fn sum(header: &[u8]) -> u32 {
        crc::extend(crc::crc32c(&header[..4]), &header[8..FRAME_HEADER_LEN])
    }

    /// The frame header at the start of `bytes`, which stand at `offset`, if it is a good one.
    pub fn decode(bytes: &[u8], salt: Salt, offset: u64) -> Option<FrameHeader> {
        let header = bytes.get(..FRAME_HEADER_LEN)?;
        if header[..3] != FRAME_MAGIC
            || (u32_at(header, 4) != FrameHeader::sum(header) ^ salt.at(offset) && !planted(Bug::HeaderSumIgnored))
            || u64_at(header, 56) != 0
        {
            return None;
        }
        let kind = match header[3] {
            1 => FrameKind::Data,
            2 => FrameKind::Beat,
            3 => FrameKind::Close,
            _ => return None,
        };
        Some(FrameHeader {
            kind,
            first_seq: u64_at(header, 8),
            watermark: u64_at(header, 16),
            payload_len: u64_at(header, 24),
            records: u32_at(header, 32),
            batches: u32_at(header, 36),
            digest_before: u64_at(header, 40),
            digest: u64_at(header, 48),
        })
    }

    /// Where the records start, in bytes from the start of the frame.
    pub fn payload_at(&self) -> u64 {
        FRAME_HEADER_LEN as u64 + u64::from(self.batches) * BATCH_ENTRY_LEN as u64
    }

    /// Length of the whole frame, in bytes; `None` if the fields are absurd.
    pub fn len(&self) -> Option<u64> {
        self.payload_at().checked_add(self.payload_len)
    }

    /// The last sequence number that the log has reached with this frame.
    pub fn last_seq(&self) -> Option<u64> {
        self.first_seq.checked_add(u64::from(self.records)).map(|next| next.saturating_sub(1))
    }
}

/// Where the frame behind one that ends at byte `end` may begin, in the order in which to look: at once; behind a sync,
/// on the next block; behind a beat that cannot be read, one block further, for a beat is no part of the log. Behind an end
/// that no file has, which a forged header may name, there is no place: the last byte stands for it.
pub fn places_of_next(end: u64) -> [u64; 3] {
    let up = |align: usize| end.checked_next_multiple_of(align as u64).unwrap_or(u64::MAX);
    [up(ALIGN), up(BLOCK_BYTES), up(BLOCK_BYTES).saturating_add(BLOCK_BYTES as u64)]
}

/// One entry of a frame's batch table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEntry {
    /// Names the batch.
    pub batch_id: u64,
    /// How many of the frame's records are its.
    pub records: u32,
}

impl BatchEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> [u8; BATCH_ENTRY_LEN] {
        let mut entry = [0; BATCH_ENTRY_LEN];
        let mut put = Fields { bytes: &mut entry, at: 0 };
        put.u64(self.batch_id);
        put.u32(self.records);
        entry
    }

    /// Reads an entry.
    pub fn decode(bytes: &[u8]) -> BatchEntry {
        BatchEntry { batch_id: u64_at(bytes, 0), records: u32_at(bytes, 8) }
    }
}

/// The running digest: 64 bits over everything the log has said so far.
///
/// It takes in each record's (salted) checksum, so every byte is summed once only.
pub struct Digest {
    before: u64,
    crc: u32,
    pending: [[u8; 4]; PENDING],
    filled: usize,
}

/// Checksums that are taken in at once.
const PENDING: usize = 128;

impl Digest {
    /// Continues from `before`.
    pub fn new(before: u64) -> Digest {
        Digest { before, crc: 0, pending: [[0; 4]; PENDING], filled: 0 }
    }

    /// Takes in a record's checksum.
    #[inline]
    pub fn record(&mut self, sum: u32) {
        if self.filled == self.pending.len() {
            self.flush();
        }
        self.pending[self.filled] = sum.to_le_bytes();
        self.filled += 1;
    }

    /// Takes in the checksums of several records, which `sum` gives.
    #[inline(always)]
    pub fn records<T>(&mut self, records: &[T], mut sum: impl FnMut(&T) -> u32) {
        self.flush();
        for records in records.chunks(PENDING) {
            for (record, pending) in records.iter().zip(&mut self.pending) {
                *pending = sum(record).to_le_bytes();
            }
            self.filled = records.len();
            self.flush();
        }
    }

    /// Takes in the batch table.
    pub fn table(&mut self, table: &[u8]) {
        self.flush();
        self.crc = crc::extend(self.crc, table);
    }

    fn flush(&mut self) {
        self.crc = crc::extend(self.crc, self.pending[..self.filled].as_flattened());
        self.filled = 0;
    }

    /// The digest with the frame that has these fields.
    pub fn finish(mut self, kind: FrameKind, first_seq: u64, payload_len: u64) -> u64 {
        self.flush();
        let shape = mix(first_seq ^ mix(payload_len ^ (u64::from(kind as u8) << 56)));
        mix(self.before ^ mix(u64::from(self.crc) ^ shape))
    }
}

/// Writes fields one behind the other.
pub(super) struct Fields<'a> {
    pub bytes: &'a mut [u8],
    pub at: usize,
}

impl Fields<'_> {
    pub fn bytes(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
    pub fn u32(&mut self, field: u32) {
        self.bytes(&field.to_le_bytes());
    }
    pub fn u64(&mut self, field: u64) {
        self.bytes(&field.to_le_bytes());
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_ends_have_no_next_frame() {
        assert_eq!(places_of_next(4097), [4104, 8192, 12288]);
        assert_eq!(places_of_next(u64::MAX - 2), [u64::MAX; 3]);
        assert_eq!(places_of_next(u64::MAX - 100), [u64::MAX - 95, u64::MAX, u64::MAX]);
    }

    #[test]
    fn frame_headers_belong_to_their_place() {
        let (store, chunk) = ([7; 16], 7);
        let salt = Salt::of(&store, chunk);
        let frame = FrameHeader {
            kind: FrameKind::Data,
            first_seq: 100,
            watermark: 99,
            payload_len: 256,
            records: 2,
            batches: 1,
            digest_before: 1,
            digest: 2,
        };
        let good = frame.encode(salt, 8192);
        assert_eq!(FrameHeader::decode(&good, salt, 8192), Some(frame));
        assert_eq!(FrameHeader::decode(&good, salt, 8200), None);
        assert_eq!(FrameHeader::decode(&good, Salt::of(&store, chunk + 1), 8192), None);
        assert_eq!(FrameHeader::decode(&[0; 64], salt, 8192), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad, salt, 8192), None, "bit {bit}");
        }
    }
}
