//! CRC-32C (Castagnoli), the checksum of every byte on disk.
#![allow(unsafe_code)]

/// Pieces that are summed side by side: a short one alone would wait for its own results most of the time.
pub const LANES: usize = 4;

/// From this length on a piece is summed in several streams by itself.
const SHORT_LEN_MAX: usize = 256;

/// The CRC-32C of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Continues `crc` over `bytes`.
#[inline]
pub fn extend(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The CRC-32C of several pieces; quick if they are short and of much the same length.
#[inline]
pub fn crc32c_lanes(pieces: [&[u8]; LANES]) -> [u32; LANES] {
    #[cfg(target_arch = "x86_64")]
    if pieces.iter().all(|piece| piece.len() <= SHORT_LEN_MAX) && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the instruction is there.
        return unsafe { lanes_sse42(pieces) };
    }
    pieces.map(crc32c)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn lanes_sse42(pieces: [&[u8]; LANES]) -> [u32; LANES] {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let mut sums = [u64::from(u32::MAX); LANES];
    // As far as all of them go.
    let whole = pieces.iter().fold(usize::MAX, |least, piece| least.min(piece.len())) / 8 * 8;
    let mut at = 0;
    while at < whole {
        for (sum, piece) in sums.iter_mut().zip(&pieces) {
            let word = piece[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
            *sum = _mm_crc32_u64(*sum, word);
        }
        at += 8;
    }
    for (sum, piece) in sums.iter_mut().zip(&pieces) {
        let (words, bytes) = piece[whole..].as_chunks();
        *sum = words.iter().fold(*sum, |sum, word| _mm_crc32_u64(sum, u64::from_le_bytes(*word)));
        *sum = bytes.iter().fold(*sum as u32, |sum, byte| _mm_crc32_u8(sum, *byte)).into();
    }
    sums.map(|sum| !(sum as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_is_the_same_as_one_by_one() {
        let bytes: Vec<u8> = (0..2000u32).map(|i| (i * 31 % 253) as u8).collect();
        for len in (0..300).chain([1000]) {
            let pieces = [0, 5, 333, 1000].map(|from| &bytes[from..from + len]);
            assert_eq!(crc32c_lanes(pieces), pieces.map(crc32c), "{len} bytes");
        }
        let tens = [&bytes[..13], &bytes[..88], &bytes[..19], &bytes[..10]];
        for mixed in [[&bytes[..3], &bytes[..8], &bytes[..9], &bytes[..0]], tens, [&bytes[..256]; LANES], [&bytes[..257]; LANES]] {
            assert_eq!(crc32c_lanes(mixed), mixed.map(crc32c));
        }
    }
}
