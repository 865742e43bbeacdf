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

/// The same of up to so many pieces, and whatever behind them.
#[inline]
pub fn crc32c_up_to_lanes(pieces: &[&[u8]]) -> [u32; LANES] {
    if let Some(all) = pieces.first_chunk() {
        return crc32c_lanes(*all);
    }
    // A short one once more goes beside itself, and the others with it; a long one would be summed again.
    let last = pieces.last().filter(|piece| piece.len() <= SHORT_LEN_MAX).map_or(&[][..], |piece| piece);
    crc32c_lanes(std::array::from_fn(|lane| pieces.get(lane).map_or(last, |piece| piece)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn lanes_sse42(pieces: [&[u8]; LANES]) -> [u32; LANES] {
    use std::arch::x86_64::_mm_crc32_u64;
    // As far as all of them go.
    let [a, b, c, d] = &pieces;
    let common = a.len().min(b.len()).min(c.len()).min(d.len()) / 8;
    let [(a, _), (b, _), (c, _), (d, _)] = [a.as_chunks(), b.as_chunks(), c.as_chunks(), d.as_chunks()];
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = [u64::from(u32::MAX); LANES];
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        sum_a = _mm_crc32_u64(sum_a, u64::from_le_bytes(*a));
        sum_b = _mm_crc32_u64(sum_b, u64::from_le_bytes(*b));
        sum_c = _mm_crc32_u64(sum_c, u64::from_le_bytes(*c));
        sum_d = _mm_crc32_u64(sum_d, u64::from_le_bytes(*d));
    }
    let mut sums = [sum_a, sum_b, sum_c, sum_d];
    for (sum, piece) in sums.iter_mut().zip(&pieces) {
        *sum = rest_sse42(*sum, &piece[common * 8..]);
    }
    sums.map(|sum| !(sum as u32))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn rest_sse42(mut sum: u64, rest: &[u8]) -> u64 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = rest.as_chunks();
    for word in words {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word));
    }
    let mut bytes = rest;
    if let Some((half, rest)) = rest.split_first_chunk() {
        sum = _mm_crc32_u32(sum as u32, u32::from_le_bytes(*half)).into();
        bytes = rest;
    }
    bytes.iter().fold(sum as u32, |sum, byte| _mm_crc32_u8(sum, *byte)).into()
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
            for count in 0..=LANES {
                let some = &mixed[..count];
                assert!(crc32c_up_to_lanes(some).iter().zip(some).all(|(sum, piece)| *sum == crc32c(piece)), "{count} of them");
            }
        }
    }
}
