//! What fuzzing throws at records and packed values. The driver (`store::fuzz`) calls these with any bytes at all.
//!
//! Must never take as many bytes of memory as the input says: only as many as the input can pay for.

use super::codec::{Codec, Dictionary, StoredValue, compress, compressed_len_max};
use super::dense::{Dense, PHRASES_LEN_MAX, RAW_LEN_MAX, Scratch};
use super::record::{ALIGN, HEADER_LEN, Malformed, Record, SUM_FROM, write_sum};
use crate::base::{crc, limits};

const SALT: u32 = 0x5eed_cafe;

/// A record: as it comes, and with its checksum made good, so that what is behind that check is reached.
pub fn record(input: &[u8]) {
    let _ = Record::parse_checked(input, SALT);
    let Ok((record, len)) = Record::parse(input) else { return };
    assert!(len <= input.len() && len.is_multiple_of(ALIGN) && len >= HEADER_LEN);
    assert_eq!(Record::declared_len(input), Some(len));
    assert!(!record.key.is_empty() && record.raw_len as usize <= limits::VALUE_LEN_MAX);
    let end = record.sum_end();
    let mut encoded = vec![0; record.encoded_len()];
    record.encode(&mut encoded);
    assert_eq!(encoded[SUM_FROM..end], input[SUM_FROM..end], "there is one way only to write it");

    let mut sealed = input.to_vec();
    write_sum(&mut sealed, crc::crc32c(&input[SUM_FROM..end]) ^ SALT);
    assert_eq!(Record::parse_checked(&sealed, SALT), Ok((record, len)));
    assert_eq!(Record::parse_checked(&sealed, !SALT), Err(Malformed), "it belongs to its place");
    assert_eq!(Record::parse_checked(&sealed[..len - 1], SALT), Err(Malformed));
    sealed[end - 1] ^= 1;
    assert_eq!(Record::parse_checked(&sealed, SALT), Err(Malformed));

    unpack(&StoredValue { codec: record.codec, dictionary: None, bytes: record.value, raw_len: record.raw_len as usize });
}

/// Unpacks, if it says that it can be: the bytes.
fn unpack(value: &StoredValue<'_>) -> Option<Vec<u8>> {
    value.check().ok()?;
    assert!(value.raw_len <= (256 * value.bytes.len()).max(RAW_LEN_MAX) || value.codec == Codec::Zstd, "a bomb: {}", value.raw_len);
    let mut raw = vec![0xa5; value.raw_len];
    value.unpack(&mut raw).ok().map(|()| raw)
}

/// A packed value, and the dictionary that it is to be unpacked with: kind, length (3 bytes), length of the dictionary's part
/// (2 bytes), that part, the value.
pub fn packed(input: &[u8]) {
    let Some((head, rest)) = input.split_at_checked(6) else { return };
    let raw_len = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
    let (part, bytes) = rest.split_at(usize::from(u16::from_le_bytes([head[4], head[5]])).min(rest.len()));
    let codec = Codec::from_number(head[0] & 3).unwrap_or(Codec::None);
    // Either the part is the dictionary's contents, or phrases, and the tables are made from the value.
    let contents = if head[0] & 4 == 0 { part.to_vec() } else { Dense::contents(&part[..part.len().min(PHRASES_LEN_MAX)], &[bytes]) };
    let dictionary = if codec == Codec::Dense { Dictionary::new(1, codec, &contents) } else { None };
    unpack(&StoredValue { codec, dictionary: dictionary.as_ref(), bytes, raw_len });

    // The same bytes as a value: packed and unpacked, it is what it was.
    if let Some(dictionary) = dictionary.as_ref().filter(|_| bytes.len() <= RAW_LEN_MAX) {
        let mut packed = Vec::new();
        if dictionary.dense().is_some_and(|dense| dense.pack(bytes, bytes.len(), &mut Scratch::default(), &mut packed)) {
            let value = StoredValue { codec, dictionary: Some(dictionary), bytes: &packed, raw_len: bytes.len() };
            assert_eq!(unpack(&value).as_deref(), Some(bytes));
        }
    }
    if codec == Codec::Lz4 {
        let mut packed = vec![0; compressed_len_max(bytes.len())];
        if let Some(len) = compress(bytes, &mut packed) {
            let value = StoredValue { codec, dictionary: None, bytes: &packed[..len], raw_len: bytes.len() };
            assert_eq!(unpack(&value).as_deref(), Some(bytes));
        }
    }
}

/// Good inputs to begin with, each target's own.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = b"{\"customer\":17,\"city\":\"Vienna\"}{\"customer\":18,\"city\":\"Zurich\"}{\"customer\":19,\"city\":\"Vienna\"}";
    let encode = |record: Record<'_>| {
        let mut bytes = vec![0; record.encoded_len()];
        record.encode(&mut bytes);
        ("record", bytes)
    };
    let mut lz4 = vec![0; compressed_len_max(text.len())];
    let lz4_len = compress(text, &mut lz4).unwrap_or(0);
    let contents = Dense::contents(&text[..31], &[text]);
    let mut dense = Vec::new();
    if let Some(dictionary) = Dense::new(&contents) {
        dictionary.pack(text, text.len(), &mut Scratch::default(), &mut dense);
    }
    let packed = |kind: u8, part: &[u8], bytes: &[u8]| {
        let [a, b, c, _] = (text.len() as u32).to_le_bytes();
        let [d, e] = (part.len() as u16).to_le_bytes();
        ("packed", [&[kind, a, b, c, d, e], part, bytes].concat())
    };
    vec![
        encode(Record::put(b"key", b"some value")),
        encode(Record::delete(b"gone")),
        encode(Record { expiry_ms: Some(1 << 50), version: Some(7), ..Record::put(b"key", b"") }),
        encode(Record::put_packed(b"key", Codec::Lz4, &lz4[..lz4_len], text.len())),
        encode(Record { dictionary: 1, ..Record::put_packed(b"key", Codec::Dense, &dense, text.len()) }),
        packed(0, b"", text),
        packed(1, b"", &lz4[..lz4_len]),
        packed(1, b"", text),
        packed(2, &contents, &dense),
        packed(6, &text[..31], text),
    ]
}
