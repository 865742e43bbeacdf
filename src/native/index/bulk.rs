//! Many entries at once: what checkpoints copy out and load, and what recovery replays.
//!
//! `checkpoint` and `recovery` call this; while a store is being opened nobody else sees the index.

use super::memory::Memory;
use super::segment::Segment;
use super::{Index, Place, SEGMENTS, segment};
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::sync::Mutex;

/// Bytes of an entry as it is copied out: tag, then place, little endian.
pub const ENTRY_LEN: usize = 16;

/// Some neighbouring segments of an index, to be filled by one thread while others fill the rest.
pub struct Part<'a> {
    first: usize,
    segments: &'a mut [Segment],
    memory: &'a Mutex<&'a mut Memory>,
}

impl Part<'_> {
    /// The numbers of its segments.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.segments.len()
    }

    /// Fills segment `at`, which is empty, with entries that were copied out of a segment of that number; one whose
    /// place is all zeros must not be among them.
    pub fn fill(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let Some(empty) = self.segments.get_mut(at.wrapping_sub(self.first)) else { return Ok(()) };
        empty.fill(bytes.len() / ENTRY_LEN, entries(bytes), at, self.memory)
    }
}

/// Entries that were copied out, as tag and place.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    bytes.chunks_exact(ENTRY_LEN).map(|entry| {
        let (mut tag, mut place) = ([0; 8], [0; 8]);
        tag.copy_from_slice(&entry[..8]);
        place.copy_from_slice(&entry[8..]);
        (u64::from_le_bytes(tag), u64::from_le_bytes(place))
    })
}

impl Index {
    /// Appends the entries of segment `at` to `bytes`; how many there were.
    pub fn copy_segment(&self, at: usize, bytes: &mut Vec<u8>) -> Result<usize> {
        let Some(segment) = self.segments.get(at) else { return Ok(0) };
        bytes.try_reserve(segment.len() * ENTRY_LEN).map_err(|_| Error::no_memory("no memory to copy a part of the index: free memory"))?;
        segment.for_each(|tag, place| {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&place.to_bits().to_le_bytes());
        });
        Ok(segment.len())
    }

    /// Lets `fill` fill an empty index, cut into `parts` (which divides the number of segments).
    pub fn fill<T>(&mut self, parts: usize, fill: impl FnOnce(Vec<Part<'_>>) -> T) -> T {
        let each = SEGMENTS / parts.clamp(1, SEGMENTS);
        let memory = Mutex::new(&mut self.memory);
        let segments = self.segments.chunks_mut(each).enumerate();
        let filled = fill(segments.map(|(i, segments)| Part { first: i * each, segments, memory: &memory }).collect());
        self.len = self.segments.iter().map(Segment::len).sum();
        self.heap_bytes = self.segments.iter().map(Segment::heap_bytes).sum();
        filled
    }

    /// Like `put`, without a reservation: for those who may fail.
    #[inline]
    pub fn insert(&mut self, hash: &KeyHash, place: Place) -> Result<Option<Place>> {
        let at = segment(hash);
        if !self.segments[at].reserve() {
            self.reserve_in_larger(at)?;
        }
        let old = self.segments[at].put(hash.tag, place);
        self.len += usize::from(old.is_none());
        Ok(old)
    }

    /// Forgets every key whose place is not to be kept; how many there were.
    pub fn retain(&mut self, keep: impl Fn(Place) -> bool) -> Result<usize> {
        let mut doomed = Vec::new();
        let before = self.len;
        for segment in self.segments.iter_mut() {
            let mut room = Ok(());
            doomed.clear();
            segment.for_each(|tag, place| {
                if !keep(place) && room.is_ok() {
                    room = doomed.try_reserve(1);
                    doomed.extend(room.is_ok().then_some(tag));
                }
            });
            room.map_err(|_| Error::no_memory("no memory to clear a part of the index: free memory"))?;
            self.len -= doomed.iter().filter(|tag| segment.remove(**tag).is_some()).count();
        }
        Ok(before - self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    fn sample(keys: u64) -> (Index, Vec<KeyHash>) {
        let mut random = Random::new(5);
        let mut index = Index::new().unwrap();
        let hashes: Vec<_> = (0..keys).map(|_| KeyHash { tag: random.next_u64(), spot: random.next_u64() }).collect();
        for (i, hash) in hashes.iter().enumerate() {
            assert_eq!(index.insert(hash, place(i)).unwrap(), None);
        }
        (index, hashes)
    }

    fn place(i: usize) -> Place {
        Place::new(1 + i as u32 % 5, i as u64 * 64, 64)
    }

    #[test]
    fn copied_out_and_filled_in() {
        for keys in [0, 1, 700, 100_000] {
            let (index, hashes) = sample(keys);
            for parts in [1, 2, 16] {
                let mut copy = Index::new().unwrap();
                copy.fill(parts, |parts| {
                    assert_eq!(parts.len(), SEGMENTS / parts[0].range().len());
                    for mut part in parts {
                        for at in part.range() {
                            let mut bytes = Vec::new();
                            assert_eq!(index.copy_segment(at, &mut bytes).unwrap() * ENTRY_LEN, bytes.len());
                            part.fill(at, &bytes).unwrap();
                        }
                    }
                });
                assert_eq!(copy.len(), hashes.len());
                assert!(hashes.iter().enumerate().all(|(i, hash)| copy.get(hash) == Some(place(i))));
                copy.segments.iter().for_each(Segment::check);
                assert_eq!(copy.heap_bytes, copy.segments.iter().map(Segment::heap_bytes).sum::<usize>());
            }
        }
    }

    #[test]
    fn only_what_is_kept_stays() {
        let (mut index, hashes) = sample(50_000);
        assert_eq!(index.retain(|place| place.slot() != 3).unwrap(), 10_000);
        assert_eq!(index.len(), 40_000);
        for (i, hash) in hashes.iter().enumerate() {
            assert_eq!(index.get(hash), Some(place(i)).filter(|place| place.slot() != 3));
        }
        index.segments.iter().for_each(Segment::check);
    }
}
