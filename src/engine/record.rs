//! A record: one put or delete, encoded where it will be written from.
//!
//! ```text
//!  0      4           8        10     11      12
//! +------+-----------+---------+------+-------+- - - - - -+- - - - - -+- - - - -+-----+-------+------+
//! | crc  | value_len | key_len | kind | flags | expiry_ms | version   | raw_len | key | value | pad  |
//! +------+-----------+---------+------+-------+- - - - - -+- - - - - -+- - - - -+-----+-------+------+
//!   u32    u32         u16       u8     u8      u64         u64         u32                     to 8
//! ```
//! Dashed fields are there if their flag is set (`raw_len`: if the value is one LZ4 block; if it is packed with a
//! dictionary, it begins with that one's number, a byte, and `raw_len` in 7 bits a byte). Little endian. `crc` is the
//! CRC-32C of everything behind it up to the padding, XORed with a salt that names the place (see docs/FORMAT.md);
//! in a batch's memory, before it has a place, the salt is 0. Padding is zero. Kind 0 is never legal, so a run of
//! zeros is no record.

use super::codec::Codec;
use crate::base::crc::{self, LANES};
use crate::base::limits;
use crate::base::planted::{Bug, planted};

/// Length of the fixed part, in bytes.
pub const HEADER_LEN: usize = 12;

/// A record's length can be told from this many bytes of it.
pub const LENGTHS_IN: usize = HEADER_LEN;

/// Records start at multiples of this, in bytes.
pub const ALIGN: usize = 8;

/// Most bytes that stand before the key.
pub const HEAD_LEN_MAX: usize = HEADER_LEN + 8 + 8 + 4;

/// The checksum covers the bytes from here to the end of the value.
pub const SUM_FROM: usize = 4;

const FLAG_CODEC: u8 = 0x07;
const FLAG_EXPIRY: u8 = 0x08;
const FLAG_VERSION: u8 = 0x10;
const FLAGS_KNOWN: u8 = FLAG_CODEC | FLAG_EXPIRY | FLAG_VERSION;

const _: () = assert!(limits::KEY_LEN_MAX <= u16::MAX as usize, "key_len is stored in 16 bits");
const _: () = assert!(limits::VALUE_LEN_MAX <= u32::MAX as usize, "value_len is stored in 32 bits");

/// What a record does. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Stores a value.
    Put = 1,
    /// Takes the key away.
    Delete = 2,
}

/// A record taken apart; borrows from the encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Put or delete.
    pub kind: Kind,
    /// How the value is packed.
    pub codec: Codec,
    /// When the record stops being there, in milliseconds since 1970.
    pub expiry_ms: Option<u64>,
    /// The record's own version number, where it is kept.
    pub version: Option<u64>,
    /// The dictionary that the value is packed with; 0: none.
    pub dictionary: u8,
    /// Length of the value when unpacked, in bytes.
    pub raw_len: u32,
    /// The key.
    pub key: &'a [u8],
    /// The value as stored.
    pub value: &'a [u8],
}

/// Bytes that do not make a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Record<'a> {
    /// A put of a value that is not packed.
    pub fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Record {
            kind: Kind::Put,
            codec: Codec::None,
            expiry_ms: None,
            version: None,
            dictionary: 0,
            raw_len: value.len() as u32,
            key,
            value,
        }
    }

    /// A put of a packed value.
    pub fn put_packed(key: &'a [u8], codec: Codec, packed: &'a [u8], raw_len: usize) -> Self {
        Record { codec, raw_len: raw_len as u32, ..Record::put(key, packed) }
    }

    /// A delete.
    pub fn delete(key: &'a [u8]) -> Self {
        Record { kind: Kind::Delete, ..Record::put(key, &[]) }
    }

    /// Whether it is no longer there at this time, in milliseconds since 1970.
    #[inline]
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expiry_ms.is_some_and(|expiry_ms| expiry_ms <= now_ms)
    }

    fn optional_len(&self) -> usize {
        8 * usize::from(self.expiry_ms.is_some()) + 8 * usize::from(self.version.is_some()) + 4 * usize::from(self.codec == Codec::Lz4)
    }

    /// Bytes before the packed value that tell how to unpack it.
    #[inline]
    fn prefix_len(&self) -> usize {
        if self.codec.names_dictionary() { 1 + varint_len(self.raw_len) } else { 0 }
    }

    /// Where the key starts in the encoding, in bytes.
    #[inline]
    pub fn key_at(&self) -> usize {
        HEADER_LEN + self.optional_len()
    }

    /// Encoded length with padding, in bytes.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        self.sum_end().next_multiple_of(ALIGN)
    }

    /// What stands before the key, without the checksum (see `write_sum`), and how long it is.
    #[inline]
    pub fn head(&self) -> ([u8; HEAD_LEN_MAX], usize) {
        let mut head = [0; HEAD_LEN_MAX];
        let mut flags = self.codec as u8;
        let mut at = HEADER_LEN;
        if let Some(expiry_ms) = self.expiry_ms {
            flags |= FLAG_EXPIRY;
            head[at..at + 8].copy_from_slice(&expiry_ms.to_le_bytes());
            at += 8;
        }
        if let Some(version) = self.version {
            flags |= FLAG_VERSION;
            head[at..at + 8].copy_from_slice(&version.to_le_bytes());
            at += 8;
        }
        if self.codec == Codec::Lz4 {
            head[at..at + 4].copy_from_slice(&self.raw_len.to_le_bytes());
            at += 4;
        }
        // In words, as it will be read again at once: narrower stores would hold that up.
        let value_len = (self.prefix_len() + self.value.len()) as u32;
        let key_len_and_kind = self.key.len() as u32 | u32::from(self.kind as u8) << 16 | u32::from(flags) << 24;
        head[..8].copy_from_slice(&(u64::from(value_len) << 32).to_le_bytes());
        head[8..12].copy_from_slice(&key_len_and_kind.to_le_bytes());
        (head, at)
    }

    /// Encodes into `out`, which has exactly `encoded_len` bytes, with salt 0.
    #[inline]
    pub fn encode(&self, out: &mut [u8]) {
        let (head, at) = self.head();
        let prefix_at = at + self.key.len();
        let value_at = prefix_at + self.prefix_len();
        let end = value_at + self.value.len();
        out[..at].copy_from_slice(&head[..at]);
        out[at..prefix_at].copy_from_slice(self.key);
        if let Some((dictionary, raw_len)) = out[prefix_at..value_at].split_first_mut() {
            *dictionary = self.dictionary;
            put_varint(self.raw_len, raw_len);
        }
        out[value_at..end].copy_from_slice(self.value);
        out[end..].fill(0);
        let sum = crc::crc32c(&out[SUM_FROM..end]);
        write_sum(out, sum);
    }

    /// Takes apart the record at the start of `bytes` (which may go on behind it), without looking at the checksum. With it comes
    /// its length.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<(Record<'a>, usize), Malformed> {
        Record::parse_to_end(bytes).map(|(record, end)| (record, end.next_multiple_of(ALIGN)))
    }

    /// The same; with it comes where its value ends, and what the checksum covers.
    #[inline(always)]
    fn parse_to_end(bytes: &'a [u8]) -> Result<(Record<'a>, usize), Malformed> {
        let fields = fields_of(bytes).ok_or(Malformed)?;
        if fields.kind_and_flags != PLAIN_PUT {
            return Record::parse_any(bytes, fields);
        }
        // Nearly all are like this: nothing but a key and a value.
        let value_at = HEADER_LEN + fields.key_len;
        let end = value_at + fields.value_len;
        let fits = end.next_multiple_of(ALIGN) <= bytes.len() || planted(Bug::RecordEndBelieved);
        if fields.key_len == 0 || fields.value_len > limits::VALUE_LEN_MAX || !fits {
            return Err(Malformed);
        }
        Ok((Record::put(&bytes[HEADER_LEN..value_at], &bytes[value_at..end]), end))
    }

    #[inline(never)]
    fn parse_any(bytes: &'a [u8], fields: Fields) -> Result<(Record<'a>, usize), Malformed> {
        let Fields { value_len, key_len, kind_and_flags } = fields;
        let flags = (kind_and_flags >> 8) as u8;
        let kind = match kind_and_flags as u8 {
            1 => Kind::Put,
            2 => Kind::Delete,
            _ => return Err(Malformed),
        };
        if flags & !FLAGS_KNOWN != 0 || key_len == 0 || value_len > limits::VALUE_LEN_MAX {
            return Err(Malformed);
        }
        let codec = Codec::from_number(flags & FLAG_CODEC).ok_or(Malformed)?;
        let mut at = HEADER_LEN;
        let mut field = |len: usize| {
            let field = if planted(Bug::RecordEndBelieved) { Some(&bytes[at..at + len]) } else { bytes.get(at..at + len) };
            at += len;
            field.ok_or(Malformed)
        };
        let u64_of = |field: &[u8]| field.try_into().map(u64::from_le_bytes).map_err(|_| Malformed);
        let expiry_ms = if flags & FLAG_EXPIRY != 0 { Some(u64_of(field(8)?)?) } else { None };
        let version = if flags & FLAG_VERSION != 0 { Some(u64_of(field(8)?)?) } else { None };
        let mut raw_len =
            if codec == Codec::Lz4 { field(4)?.try_into().map(u32::from_le_bytes).map_err(|_| Malformed)? } else { value_len as u32 };
        let key = field(key_len)?;
        let mut value = field(value_len)?;
        let mut dictionary = 0;
        if codec.names_dictionary() {
            (dictionary, value) = value.split_first().map(|(number, rest)| (*number, rest)).ok_or(Malformed)?;
            (raw_len, value) = take_varint(value).ok_or(Malformed)?;
        }
        if raw_len as usize > limits::VALUE_LEN_MAX {
            return Err(Malformed);
        }
        if at.next_multiple_of(ALIGN) > bytes.len() {
            return Err(Malformed);
        }
        Ok((Record { kind, codec, expiry_ms, version, dictionary, raw_len, key, value }, at))
    }

    /// The padded length that a record's header declares; `None` if it is no header.
    pub fn declared_len(bytes: &[u8]) -> Option<usize> {
        let Fields { value_len, key_len, kind_and_flags } = fields_of(bytes)?;
        let flags = (kind_and_flags >> 8) as u8;
        let flag = |flag: u8, len: usize| if flags & flag != 0 { len } else { 0 };
        let raw_len = if flags & FLAG_CODEC == Codec::Lz4 as u8 { 4 } else { 0 };
        let optional = flag(FLAG_EXPIRY, 8) + flag(FLAG_VERSION, 8) + raw_len;
        Some((HEADER_LEN + optional + key_len + value_len).next_multiple_of(ALIGN))
    }

    /// Bytes of the encoding without the padding; the checksum covers them from 4 on.
    #[inline]
    pub fn sum_end(&self) -> usize {
        self.key_at() + self.key.len() + self.prefix_len() + self.value.len()
    }

    /// Like `parse`, with the checksum compared under `salt`.
    #[inline]
    pub fn parse_checked(bytes: &'a [u8], salt: u32) -> Result<(Record<'a>, usize), Malformed> {
        let (record, end) = Record::parse_to_end(bytes)?;
        if crc::crc32c(&bytes[SUM_FROM..end]) ^ salt != stored_sum(bytes) {
            return Err(Malformed);
        }
        Ok((record, end.next_multiple_of(ALIGN)))
    }

    /// The records that `bytes` begin with, one behind the other, with their padded lengths, if all of them are good; `salt_at` is
    /// told how far from the start each stands. Side by side that is quicker; who wants to know what is bad goes one by one.
    #[inline]
    pub fn next_lanes(bytes: &'a [u8], salt_at: impl Fn(usize) -> u32) -> Option<[(Record<'a>, usize); LANES]> {
        let mut row = [(Record::delete(&[]), 0); LANES];
        let (mut summed, mut sums, mut from) = ([&[][..]; LANES], [0; LANES], 0);
        for lane in 0..LANES {
            let rest = &bytes[from..];
            let (record, end) = Record::parse_to_end(rest).ok()?;
            let len = end.next_multiple_of(ALIGN);
            (summed[lane], sums[lane]) = (&rest[SUM_FROM..end], stored_sum(rest) ^ salt_at(from));
            row[lane] = (record, len);
            from += len;
        }
        (crc::crc32c_lanes(summed) == sums).then_some(row)
    }

    /// Several records, each with its checksum compared under its salt, side by side: quick if they are short.
    #[inline]
    pub fn parse_checked_lanes(records: [(&'a [u8], u32); LANES]) -> [Result<Record<'a>, Malformed>; LANES] {
        let mut parsed = [Err(Malformed); LANES];
        let mut summed = [&[][..]; LANES];
        let mut stored = [0; LANES];
        for (i, (bytes, salt)) in records.into_iter().enumerate() {
            if let Ok((record, end)) = Record::parse_to_end(bytes) {
                (summed[i], stored[i]) = (&bytes[SUM_FROM..end], stored_sum(bytes) ^ salt);
                parsed[i] = Ok(record);
            }
        }
        for (i, sum) in crc::crc32c_lanes(summed).into_iter().enumerate() {
            if sum != stored[i] {
                parsed[i] = Err(Malformed);
            }
        }
        parsed
    }
}

/// What the fixed part of a record says, but for the checksum.
#[derive(Clone, Copy)]
struct Fields {
    value_len: usize,
    key_len: usize,
    /// Kind below, flags above.
    kind_and_flags: u16,
}

/// A put without anything that has a flag.
const PLAIN_PUT: u16 = Kind::Put as u16;

/// All of it with one look.
#[inline(always)]
fn fields_of(bytes: &[u8]) -> Option<Fields> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let fields = header[SUM_FROM..].try_into().map_or(0, u64::from_le_bytes);
    Some(Fields { value_len: fields as u32 as usize, key_len: usize::from((fields >> 32) as u16), kind_and_flags: (fields >> 48) as u16 })
}

/// Bytes of a number that is written 7 bits a byte, the lowest first, the top bit set in all but the last.
#[inline]
fn varint_len(number: u32) -> usize {
    (u32::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn put_varint(mut number: u32, out: &mut [u8]) {
    let last = out.len().saturating_sub(1);
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = (number & 0x7f) as u8 | if i < last { 0x80 } else { 0 };
        number >>= 7;
    }
}

/// The number in front, and the rest; there is one way only to write it.
#[inline]
fn take_varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0u32;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        number |= u32::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            return (varint_len(number) == i + 1 && (i < 4 || *byte < 16)).then_some((number, &bytes[i + 1..]));
        }
    }
    None
}

/// The checksum field of the record at the start of `bytes`.
#[inline]
pub fn stored_sum(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Fills in the checksum of the record at the start of `bytes`.
#[inline]
pub fn write_sum(bytes: &mut [u8], sum: u32) {
    bytes[..SUM_FROM].copy_from_slice(&sum.to_le_bytes());
}

/// The bytes that the checksum of a record covers; `bytes` start with it, its key stands at `key_at`. None of what is no record.
#[inline]
pub fn summed(bytes: &[u8], key_at: usize) -> &[u8] {
    let Some(Fields { value_len, key_len, .. }) = fields_of(bytes) else { return &[] };
    &bytes[SUM_FROM..key_at + key_len + value_len]
}

/// XORs `salt` into the checksum field of the record at the start of `bytes`; the new field is returned.
#[inline]
pub fn salt_sum(bytes: &mut [u8], salt: u32) -> u32 {
    let field = &mut bytes[..SUM_FROM];
    let sum = stored_sum(field) ^ salt;
    write_sum(field, sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array;

    fn round_trip(record: Record<'_>) {
        let mut bytes = vec![0xaa; record.encoded_len()];
        record.encode(&mut bytes);
        assert_eq!(Record::parse_checked(&bytes, 0), Ok((record, bytes.len())));
        salt_sum(&mut bytes, 0x1234_5678);
        assert_eq!(Record::parse_checked(&bytes, 0), Err(Malformed));
        assert_eq!(Record::parse_checked(&bytes, 0x1234_5678), Ok((record, bytes.len())));
    }

    #[test]
    fn every_shape_comes_back() {
        round_trip(Record::put(b"k", b""));
        round_trip(Record::put(b"0123456789abcdef", &[7; 100]));
        round_trip(Record::delete(b"gone"));
        round_trip(Record::put_packed(b"key", Codec::Lz4, b"packed", 600));
        round_trip(Record { expiry_ms: Some(5), version: Some(9), ..Record::put(b"key", b"value") });
        for raw_len in [0, 1, 127, 128, 16_383, 16_384, 512 << 20] {
            let packed = Record::put_packed(b"key", Codec::Dense, b"packed", raw_len);
            round_trip(Record { dictionary: 255, version: Some(7), ..packed });
            round_trip(Record { expiry_ms: Some(1), ..Record::put_packed(b"key", Codec::Zstd, b"", raw_len) });
        }
        assert_eq!(Record { dictionary: 1, ..Record::put_packed(b"0123456789abcdef", Codec::Dense, &[7; 26], 127) }.encoded_len(), 56);
        assert_eq!(Record::put(b"0123456789abcdef", &[7; 100]).encoded_len(), 128);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for codec in [Codec::Lz4, Codec::Dense] {
            let record = Record { expiry_ms: Some(5), ..Record::put_packed(b"some key", codec, b"some value", 700) };
            let mut good = vec![0; record.encoded_len()];
            record.encode(&mut good);
            assert_eq!(Record::declared_len(&good), Some(good.len()));
            for bit in 0..record.sum_end() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::parse_checked(&bad, 0), Err(Malformed), "bit {bit}");
            }
            for len in 0..good.len() {
                assert_eq!(Record::parse_checked(&good[..len], 0), Err(Malformed), "length {len}");
            }
        }
    }

    #[test]
    fn side_by_side_is_the_same_as_one_by_one() {
        let mut bytes: Vec<Vec<u8>> = Vec::new();
        for value_len in [100, 100, 100, 100, 0, 7, 300, 100, 1000] {
            let record = Record::put(b"0123456789abcdef", &[7; 1000][..value_len]);
            let mut encoded = vec![0; record.encoded_len()];
            record.encode(&mut encoded);
            salt_sum(&mut encoded, bytes.len() as u32);
            bytes.push(encoded);
        }
        bytes[7][40] ^= 1;
        bytes.push(vec![]);
        for i in 0..bytes.len() {
            let pieces = array::from_fn(|lane| {
                let at = (i + lane * (1 + i / 4)) % bytes.len();
                (&bytes[at][..], at as u32)
            });
            let one_by_one = pieces.map(|(bytes, salt)| Record::parse_checked(bytes, salt).map(|(record, _)| record));
            assert_eq!(Record::parse_checked_lanes(pieces), one_by_one, "{i}");
            assert_eq!(Record::parse_checked_lanes(pieces.map(|(bytes, salt)| (bytes, salt ^ 16))), [Err(Malformed); LANES], "{i}");
        }
    }

    #[test]
    fn a_number_is_written_in_one_way_only() {
        for (bytes, number) in
            [(&[0u8][..], Some(0)), (&[0x7f], Some(127)), (&[0x80, 1], Some(128)), (&[0xff, 0xff, 0xff, 0xff, 15], Some(u32::MAX))]
        {
            assert_eq!(take_varint(bytes).map(|(number, _)| number), number);
        }
        for bad in [&[][..], &[0x80], &[0x80, 0], &[0xff, 0xff, 0xff, 0xff, 16], &[0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(take_varint(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Record::parse_checked(&[0; 64], 0), Err(Malformed));
    }
}
