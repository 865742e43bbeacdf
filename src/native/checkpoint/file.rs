//! What stands in a checkpoint file; `mod.rs` draws it. Encoding and decoding only; no I/O.
//!
//! Nothing is taken from a file before its checksum is good: a checkpoint that cannot be trusted is no checkpoint.

use crate::base::crc;
use crate::base::limits::BLOCK_BYTES;
use crate::engine::outcome::{Outcomes, RANGE_LEN};
use crate::native::frame::{Fields, LogEnd, Salt, u32_at, u64_at};
use crate::native::index::{ENTRY_LEN, SEGMENTS};

const MAGIC: [u8; 8] = *b"\x89KVI\r\n\x1a\n";
const END_MAGIC: [u8; 8] = *b"KVI-END\n";
const FORMAT_VERSION: u32 = 1;
const READER_VERSION_MIN: u32 = 1;

/// Length of the header, in bytes.
pub const HEAD_LEN: usize = BLOCK_BYTES;

/// Length of the footer, in bytes: the last of the file.
pub const FOOTER_LEN: usize = 256;

/// Length of the header of a block of entries, in bytes.
pub const BLOCK_HEAD_LEN: usize = 16;

const SLOT_LEN: usize = 64;

/// The footer says where the blocks of every so-manieth part of the segments begin: several threads can read at once.
pub const MARKS: usize = 16;

/// Where in the footer the number of ranges stands.
const RANGES_AT: usize = 72 + 8 * MARKS;

const _: () = assert!(RANGES_AT + 8 + 4 <= FOOTER_LEN && SEGMENTS.is_multiple_of(MARKS));

/// The header: what is known when a checkpoint is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which store this is.
    pub store: [u8; 16],
    /// Rises with each checkpoint; never used twice in a store.
    pub number: u64,
    /// The secret of the hash under which the keys are entered.
    pub secret: [u64; 2],
    /// Where replay goes on: everything before is in the entries.
    pub start: LogEnd,
}

/// A slot that entries may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The number that stands in the entries.
    pub slot: u32,
    /// The chunk it stood for.
    pub chunk: u64,
    /// The chunk's end, if nothing more was to be written to it.
    pub end: Option<LogEnd>,
    /// Bytes of its records before `Head::start`.
    pub record_bytes: u64,
    /// Deletes among these.
    pub tombstones: u64,
    /// Bytes of the deletes.
    pub tombstone_bytes: u64,
}

/// What is known when the last entry is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Where it begins in the file, in bytes; there the blocks end.
    pub at: u64,
    /// All slots in use.
    pub slots: Vec<Slot>,
    /// Entries in all blocks.
    pub entries: u64,
    /// No entry is newer than this, and the log up to here was on stable storage.
    pub end: LogEnd,
    /// Batches that were committed by then.
    pub outcomes: Outcomes,
    /// Where the blocks of every `SEGMENTS / MARKS` segments begin.
    pub marks: [u64; MARKS],
}

/// The salt of a checkpoint: its numbers are counted apart from those of chunks.
pub fn salt(store: &[u8; 16], number: u64) -> Salt {
    Salt::of(store, !number)
}

impl Head {
    /// The header's block.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; HEAD_LEN];
        let mut put = Fields { bytes: &mut block, at: 0 };
        put.bytes(&MAGIC);
        put.u32(FORMAT_VERSION);
        put.u32(READER_VERSION_MIN);
        put.bytes(&self.store);
        put.u64(self.number);
        self.secret.iter().for_each(|half| put.u64(*half));
        put_end(&mut put, &self.start);
        let sum = crc::crc32c(&block[..HEAD_LEN - 4]);
        block[HEAD_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a header; `None` if it is damaged, or from a version that this one cannot read.
    pub fn decode(block: &[u8]) -> Option<Head> {
        let block = block.get(..HEAD_LEN)?;
        let sum = crc::crc32c(&block[..HEAD_LEN - 4]);
        if block[..8] != MAGIC || u32_at(block, HEAD_LEN - 4) != sum || u32_at(block, 12) > FORMAT_VERSION {
            return None;
        }
        Some(Head {
            store: block[16..32].try_into().ok()?,
            number: u64_at(block, 32),
            secret: [u64_at(block, 40), u64_at(block, 48)],
            start: end_at(block, 56),
        })
    }
}

impl Tail {
    /// The bytes behind the blocks: slots, ranges of batches, then the footer.
    pub fn encode(&self, number: u64, salt: Salt) -> Vec<u8> {
        let mut ranges = Vec::new();
        self.outcomes.encode(&mut ranges);
        let mut bytes = vec![0; self.slots.len() * SLOT_LEN + ranges.len() + FOOTER_LEN];
        let mut put = Fields { bytes: &mut bytes, at: 0 };
        for slot in &self.slots {
            put.u32(slot.slot);
            put.u32(u32::from(slot.end.is_some()));
            put_end(&mut put, &LogEnd { chunk: slot.chunk, ..slot.end.unwrap_or_default() });
            put.u64(slot.record_bytes);
            put.u64(slot.tombstones);
            put.u64(slot.tombstone_bytes);
        }
        put.bytes(&ranges);
        put.bytes(&END_MAGIC);
        put.u64(number);
        put.u64(self.at);
        put.u64(self.slots.len() as u64);
        put.u64(self.entries);
        put_end(&mut put, &self.end);
        self.marks.iter().for_each(|mark| put.u64(*mark));
        put.u64((ranges.len() / RANGE_LEN) as u64);
        let sum_at = bytes.len() - 4;
        let sum = crc::crc32c(&bytes[..sum_at]) ^ salt.at(self.at);
        bytes[sum_at..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Where the tail of a file of `len` bytes with this footer begins, if that can be.
    pub fn place(footer: &[u8], len: u64) -> Option<u64> {
        let footer = footer.get(..FOOTER_LEN)?;
        let (at, slots, ranges) = (u64_at(footer, 16), u64_at(footer, 24), u64_at(footer, RANGES_AT));
        let tables = slots.checked_mul(SLOT_LEN as u64)?.checked_add(ranges.checked_mul(RANGE_LEN as u64)?)?;
        let expected = tables.checked_add(FOOTER_LEN as u64)?.checked_add(at)?;
        (footer[..8] == END_MAGIC && expected == len && at >= HEAD_LEN as u64).then_some(at)
    }

    /// Reads what lies from `at` to the end of the file.
    pub fn decode(bytes: &[u8], at: u64, number: u64, salt: Salt) -> Option<Tail> {
        let (tables, footer) = bytes.split_at(bytes.len().checked_sub(FOOTER_LEN)?);
        let sum = crc::crc32c(&bytes[..bytes.len() - 4]) ^ salt.at(at);
        if u32_at(footer, FOOTER_LEN - 4) != sum || Tail::place(footer, at + bytes.len() as u64) != Some(at) || u64_at(footer, 8) != number
        {
            return None;
        }
        let (slots, ranges) = tables.split_at_checked((u64_at(footer, 24) as usize).checked_mul(SLOT_LEN)?)?;
        let slot_of = |bytes: &[u8]| {
            let end = end_at(bytes, 8);
            let sealed = u32_at(bytes, 4) != 0;
            let [record_bytes, tombstones, tombstone_bytes] = [40, 48, 56].map(|at| u64_at(bytes, at));
            Slot { slot: u32_at(bytes, 0), chunk: end.chunk, end: sealed.then_some(end), record_bytes, tombstones, tombstone_bytes }
        };
        let mut marks = [0; MARKS];
        marks.iter_mut().enumerate().for_each(|(i, mark)| *mark = u64_at(footer, 72 + 8 * i));
        Some(Tail {
            at,
            slots: slots.chunks_exact(SLOT_LEN).map(slot_of).collect(),
            entries: u64_at(footer, 32),
            end: end_at(footer, 40),
            outcomes: Outcomes::decode(ranges),
            marks,
        })
    }
}

/// Fills in the header of the block (header, then the entries of `segment`) that stands at `offset`.
pub fn seal_block(block: &mut [u8], segment: usize, salt: Salt, offset: u64) {
    let count = (block.len() - BLOCK_HEAD_LEN) / ENTRY_LEN;
    let mut put = Fields { bytes: block, at: 4 };
    put.u32(segment as u32);
    put.u64(count as u64);
    let sum = crc::crc32c(&block[4..]) ^ salt.at(offset);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

/// The segment and the length in bytes that the header of a block tells; not checked yet.
pub fn block_shape(head: &[u8]) -> Option<(usize, u64)> {
    let head = head.get(..BLOCK_HEAD_LEN)?;
    let len = u64_at(head, 8).checked_mul(ENTRY_LEN as u64)?.checked_add(BLOCK_HEAD_LEN as u64)?;
    Some((u32_at(head, 4) as usize, len))
}

/// The entries of the block that stands at `offset`, if all of it is good.
pub fn block_entries(block: &[u8], salt: Salt, offset: u64) -> Option<&[u8]> {
    let sum = crc::crc32c(block.get(4..)?) ^ salt.at(offset);
    (u32_at(block, 0) == sum).then(|| &block[BLOCK_HEAD_LEN..])
}

fn put_end(put: &mut Fields<'_>, end: &LogEnd) {
    [end.chunk, end.valid_bytes, end.last_seq, end.digest].iter().for_each(|field| put.u64(*field));
}

fn end_at(bytes: &[u8], at: usize) -> LogEnd {
    LogEnd {
        chunk: u64_at(bytes, at),
        valid_bytes: u64_at(bytes, at + 8),
        last_seq: u64_at(bytes, at + 16),
        digest: u64_at(bytes, at + 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BatchId;

    fn end(chunk: u64) -> LogEnd {
        LogEnd { chunk, valid_bytes: 5000, last_seq: 70, digest: 0xfeed }
    }

    #[test]
    fn headers_and_tails_come_back_and_every_bit_counts() {
        let head = Head { store: [7; 16], number: 3, secret: [1, 2], start: end(4) };
        let good = head.encode();
        assert_eq!(Head::decode(&good), Some(head));
        let salt = salt(&head.store, 3);
        let slot = Slot { slot: 2, chunk: 4, end: Some(end(4)), record_bytes: 640, tombstones: 1, tombstone_bytes: 24 };
        let slots = vec![slot, Slot { slot: 5, chunk: 6, ..Slot::default() }];
        let mut outcomes = Outcomes::default();
        outcomes.add(BatchId { opening: 4, number: 9 });
        let tail = Tail { at: 9000, slots, entries: 17, end: end(5), outcomes, marks: std::array::from_fn(|i| i as u64) };
        let good_tail = tail.encode(3, salt);
        let len = 9000 + good_tail.len() as u64;
        assert_eq!(Tail::place(&good_tail[good_tail.len() - FOOTER_LEN..], len), Some(9000));
        assert_eq!(Tail::decode(&good_tail, 9000, 3, salt), Some(tail));
        assert_eq!(Tail::decode(&good_tail, 9000, 4, salt), None);
        assert_eq!(Tail::decode(&good_tail, 9016, 3, salt), None);
        assert_eq!(Tail::place(&good_tail[good_tail.len() - FOOTER_LEN..], len + 1), None);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&bad), None, "header, bit {bit}");
        }
        for bit in 0..good_tail.len() * 8 {
            let mut bad = good_tail.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Tail::decode(&bad, 9000, 3, salt), None, "tail, bit {bit}");
        }
        let mut newer = good.clone();
        newer[12] = 2;
        let sum = crc::crc32c(&newer[..HEAD_LEN - 4]);
        newer[HEAD_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Head::decode(&newer), None, "for newer readers");
    }

    #[test]
    fn blocks_belong_to_their_place() {
        let salt = salt(&[7; 16], 3);
        let mut block = vec![9; BLOCK_HEAD_LEN + 3 * ENTRY_LEN];
        seal_block(&mut block, 77, salt, 4096);
        assert_eq!(block_shape(&block), Some((77, block.len() as u64)));
        assert_eq!(block_entries(&block, salt, 4096), Some(&[9; 3 * ENTRY_LEN][..]));
        assert_eq!(block_entries(&block, salt, 4112), None);
        for bit in 0..block.len() * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(block_entries(&bad, salt, 4096), None, "bit {bit}");
        }
    }
}
