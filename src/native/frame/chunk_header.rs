//! The first block of a chunk: which it is, and where the log stood when it was begun.
//!
//! Encoding and decoding only; no I/O.

use super::{FRAME_HEADER_LEN, Fields, FrameHeader, FrameKind, Salt, u32_at, u64_at};
use crate::base::crc;
use crate::base::limits::BLOCK_BYTES;
use crate::engine::outcome::opening_of;

/// First bytes of a chunk: not text, and mangled by anything that converts line ends or strips the high bit.
const MAGIC: [u8; 8] = *b"\x89KVB\r\n\x1a\n";

/// The format this version writes, and the oldest reader that may read it.
const FORMAT_VERSION: u32 = 1;
const READER_VERSION_MIN: u32 = 1;

/// A feature: the header was written before the chunk was begun. It names the chunk before it; the first frame says how far the
/// log had come.
const FEATURE_AHEAD: u64 = 1;

/// Feature bits this version understands.
const FEATURES_KNOWN: u64 = FEATURE_AHEAD;

/// Length of a chunk header, in bytes: one block.
pub const CHUNK_HEADER_LEN: usize = BLOCK_BYTES;

/// The first bytes of a chunk that say what there is to know before its frames are read: the header, and the first frame's.
pub const CHUNK_START_LEN: usize = CHUNK_HEADER_LEN + FRAME_HEADER_LEN;

/// Where the log stands: what the next chunk's header says of its predecessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The chunk that was written to; 0: none.
    pub chunk: u64,
    /// Bytes of it that count; whatever lies behind was never acknowledged. Or `TO_ITS_LAST_FRAME`.
    pub valid_bytes: u64,
    /// The last sequence number before that.
    pub last_seq: u64,
    /// The running digest up to there.
    pub digest: u64,
}

/// Nothing was cut off: the chunk counts as far as its frames go.
pub const TO_ITS_LAST_FRAME: u64 = u64::MAX;

/// The first block of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Which store this is.
    pub store: [u8; 16],
    /// Number of the chunk; never used twice in a store.
    pub chunk: u64,
    /// How often the store had been opened.
    pub epoch: u64,
    /// A random number of the opening: one that leaves nothing behind is not counted, and gives out ids all the same.
    pub chance: u32,
    /// Where the log stood when this chunk was begun. If it is `open`, only the number of the chunk says anything.
    pub before: LogEnd,
    /// Nothing says where the log stood: the chunk was made ahead of its use, and there is no frame in it.
    pub open: bool,
    /// Everything up to this sequence number was on stable storage.
    pub watermark: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The dictionaries that its records may need, by number: all of them are on stable storage.
    pub dictionaries: [u8; 32],
    /// The removed chunk whose file this was; 0: none. Where nothing has been written since, there may be what it held.
    pub reused: u64,
}

/// Why a chunk header is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not a header at all, or a damaged one.
    Damaged,
    /// Written by a version that this one cannot read.
    Newer,
}

impl ChunkHeader {
    /// The header's block.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; CHUNK_HEADER_LEN];
        let mut put = Fields { bytes: &mut block, at: 0 };
        put.bytes(&MAGIC);
        put.u32(FORMAT_VERSION);
        put.u32(READER_VERSION_MIN);
        put.u64(if self.open { FEATURE_AHEAD } else { 0 });
        put.bytes(&self.store);
        for field in [
            self.chunk,
            self.epoch,
            self.before.chunk,
            self.before.valid_bytes,
            self.before.last_seq,
            self.before.digest,
            self.watermark,
            self.created_ms,
        ] {
            put.u64(field);
        }
        put.bytes(&self.dictionaries);
        put.u32(self.chance);
        put.u64(self.reused);
        let sum = crc::crc32c(&block[..CHUNK_HEADER_LEN - 4]);
        block[CHUNK_HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads the first block of a chunk, and of the first frame, if `start` goes so far, how the log had come there.
    pub fn decode(start: &[u8]) -> Result<ChunkHeader, BadHeader> {
        let block = start.get(..CHUNK_HEADER_LEN).ok_or(BadHeader::Damaged)?;
        let (body, sum) = block.split_at(CHUNK_HEADER_LEN - 4);
        if block[..8] != MAGIC || crc::crc32c(body).to_le_bytes() != *sum {
            return Err(BadHeader::Damaged);
        }
        if u32_at(block, 12) > FORMAT_VERSION || u64_at(block, 16) & !FEATURES_KNOWN != 0 {
            return Err(BadHeader::Newer);
        }
        let mut store = [0; 16];
        store.copy_from_slice(&block[24..40]);
        let mut dictionaries = [0; 32];
        dictionaries.copy_from_slice(&block[104..136]);
        let mut header = ChunkHeader {
            store,
            chunk: u64_at(block, 40),
            epoch: u64_at(block, 48),
            before: LogEnd {
                chunk: u64_at(block, 56),
                valid_bytes: u64_at(block, 64),
                last_seq: u64_at(block, 72),
                digest: u64_at(block, 80),
            },
            open: u64_at(block, 16) & FEATURE_AHEAD != 0,
            watermark: u64_at(block, 88),
            created_ms: u64_at(block, 96),
            chance: u32_at(block, 136),
            dictionaries,
            reused: u64_at(block, 140),
        };
        let first = FrameHeader::decode(&start[CHUNK_HEADER_LEN..], header.salt(), CHUNK_HEADER_LEN as u64);
        if let Some(first) = first.filter(|first| header.open && first.kind == FrameKind::Data) {
            header = header.followed_by(first.first_seq.saturating_sub(1), first.digest_before);
        }
        Ok(header)
    }

    /// The header with what the first frame says: the log went on here behind this sequence number and this digest.
    pub fn followed_by(self, last_seq: u64, digest: u64) -> ChunkHeader {
        let before = LogEnd { chunk: self.before.chunk, valid_bytes: TO_ITS_LAST_FRAME, last_seq, digest };
        ChunkHeader { before, open: false, ..self }
    }

    /// Where the log stood when this chunk was begun, if that is known.
    pub fn end_before(&self) -> Option<LogEnd> {
        (!self.open).then_some(self.before)
    }

    /// Which opening has written the chunk.
    pub fn opening(&self) -> u64 {
        opening_of(self.epoch, self.chance)
    }

    /// The salt of everything in this chunk.
    pub fn salt(&self) -> Salt {
        Salt::of(&self.store, self.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ChunkHeader {
        let before = LogEnd { chunk: 6, valid_bytes: 4711, last_seq: 99, digest: 0xfeed };
        let dictionaries = [9; 32];
        let (store, chunk, reused) = ([7; 16], 7, 4);
        ChunkHeader { store, chunk, epoch: 3, chance: 8, before, open: false, watermark: 90, created_ms: 5, dictionaries, reused }
    }

    #[test]
    fn chunk_headers_come_back_and_every_bit_counts() {
        let good = header().encode();
        assert_eq!(ChunkHeader::decode(&good), Ok(header()));
        for bit in (0..good.len() * 8).step_by(7) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::decode(&bad).is_err(), "bit {bit}");
        }
        let mut newer = good.clone();
        newer[12] = 2;
        let sum = crc::crc32c(&newer[..CHUNK_HEADER_LEN - 4]);
        newer[CHUNK_HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(ChunkHeader::decode(&newer), Err(BadHeader::Newer));
    }
    #[test]
    fn a_header_that_was_made_ahead_is_open_until_there_is_a_frame() {
        let open = ChunkHeader { before: LogEnd { chunk: 6, ..LogEnd::default() }, open: true, ..header() };
        let mut start = open.encode();
        assert_eq!(ChunkHeader::decode(&start), Ok(open));
        assert_eq!(open.end_before(), None);
        let frame = FrameHeader {
            kind: FrameKind::Data,
            first_seq: 100,
            watermark: 0,
            payload_len: 0,
            records: 0,
            batches: 0,
            digest_before: 0xfeed,
            digest: 2,
        };
        for (kind, place, is_first) in [(FrameKind::Data, 4096, true), (FrameKind::Beat, 4096, false), (FrameKind::Data, 8192, false)] {
            start.truncate(CHUNK_HEADER_LEN);
            start.extend(FrameHeader { kind, ..frame }.encode(open.salt(), place));
            let end = Some(LogEnd { chunk: 6, valid_bytes: TO_ITS_LAST_FRAME, last_seq: 99, digest: 0xfeed });
            assert_eq!(ChunkHeader::decode(&start).unwrap().end_before(), end.filter(|_| is_first), "{kind:?} at {place}");
            start.pop();
            assert_eq!(ChunkHeader::decode(&start), Ok(open), "a frame that is cut off");
        }
        let mut says_all = header().encode();
        says_all.extend(frame.encode(open.salt(), 4096));
        assert_eq!(ChunkHeader::decode(&says_all), Ok(header()), "nothing else needs to be said");
    }
}
