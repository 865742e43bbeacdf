//! How a value is packed inside a record.

use crate::base::{code::Code, error::Error, error::Result};

/// A packing. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
    /// One LZ4 block.
    Lz4 = 1,
}

impl Codec {
    /// The codec with this number, if this version knows it.
    pub fn from_number(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::None),
            1 => Some(Codec::Lz4),
            _ => None,
        }
    }
}

/// Most bytes that `compress` may need for `raw_len` bytes.
pub fn compressed_len_max(raw_len: usize) -> usize {
    lz4_flex::block::get_maximum_output_size(raw_len)
}

/// Packs `raw` into `out` with LZ4; the packed length, or `None` when that would not be smaller.
pub fn compress(raw: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = lz4_flex::block::compress_into(raw, out).ok()?;
    (len < raw.len()).then_some(len)
}

/// Unpacks `stored` into `out`, which has exactly the raw length.
pub fn unpack(codec: Codec, stored: &[u8], out: &mut [u8]) -> Result<()> {
    match codec {
        Codec::None if stored.len() == out.len() => {
            out.copy_from_slice(stored);
            Ok(())
        }
        Codec::Lz4 if lz4_flex::block::decompress_into(stored, out).is_ok_and(|len| len == out.len()) => Ok(()),
        _ => Err(Error::new(Code::CORRUPTED, "a stored value does not unpack to its length; restore it from a backup")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        let raw = b"abcabcabcabcabcabcabcabcabcabcabcabcabcabc";
        let mut packed = vec![0; compressed_len_max(raw.len())];
        let len = compress(raw, &mut packed).unwrap_or(0);
        assert!(len > 0 && len < raw.len());
        let mut out = vec![0; raw.len()];
        assert_eq!(unpack(Codec::Lz4, &packed[..len], &mut out), Ok(()));
        assert_eq!(&out, raw);
        assert!(unpack(Codec::Lz4, &packed[..len - 1], &mut out).is_err());
        assert!(unpack(Codec::Lz4, &packed[..len], &mut vec![0; raw.len() + 1]).is_err());
        assert!(unpack(Codec::None, b"ab", &mut [0]).is_err());
        assert_eq!(compress(b"x", &mut [0; 64]), None);
    }
}
