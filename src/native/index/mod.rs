//! The index: from the hash of a key to the place of its newest record. In memory only, 16 bytes per entry.
//!
//! The engine calls it, `&mut` methods under an exclusive lock and `&self` methods under a shared one; there is no
//! lock in here. It must never fail, allocate or block in `put` and `remove`: they run when the log already holds
//! the group. Memory is had beforehand, by `reserve`, and nothing in here aborts for want of it.
//!
//! The top 10 bits of a hash's spot choose one of 1024 segments, which grow one at a time: no stall
//! for a rehash of everything, and never two copies of it. Within the segment the tag alone decides, for it is
//! all that an entry keeps, and growth and removal must find the line of an entry again. So two keys are one to
//! the index if these 74 bits agree. By chance, one in 4 million stores of 100 million keys has such a pair, and
//! nobody can choose one, since the hash is keyed with a secret. Whoever reads compares the key in the record.

mod bulk;
mod line;
mod memory;
mod nursery;
mod place;
mod segment;
mod table;

pub use bulk::{ENTRY_LEN, Part};
pub use memory::Spare;
pub use place::{Place, SLOTS_MAX};
pub use segment::Home;

use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::sync::Arc;
use memory::Memory;
use segment::Segment;

const SEGMENT_BITS: u32 = 10;

/// Number of segments.
pub const SEGMENTS: usize = 1 << SEGMENT_BITS;

/// Notes kept from one `reserve` to the next; more are freed at once.
const NOTES_KEPT: usize = 16 << 10;

/// Where the newest record of every key lies.
pub struct Index {
    segments: Box<[Segment; SEGMENTS]>,
    len: usize,
    /// What the segments have on the heap, in bytes: their lists of extents.
    heap_bytes: usize,
    /// Where large segments have theirs from. Behind them: what they are made of is dropped after them.
    memory: Memory,
    /// The segments of the reservations that the running `reserve` made, to undo them.
    notes: Vec<u16>,
}

impl Index {
    /// An empty index; takes 40 KiB.
    pub fn new() -> Result<Index> {
        let no_memory = || Error::no_memory("no memory for an index");
        let mut segments = Vec::new();
        segments.try_reserve_exact(SEGMENTS).map_err(|_| no_memory())?;
        segments.resize_with(SEGMENTS, Segment::default);
        let segments = segments.try_into().map_err(|_| no_memory())?;
        Ok(Index { segments, len: 0, heap_bytes: 0, memory: Memory::default(), notes: Vec::new() })
    }

    /// Keys in the index.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory taken.
    pub fn bytes(&self) -> usize {
        let fixed = size_of::<Index>() + size_of_val(&*self.segments);
        fixed + self.heap_bytes + self.memory.bytes() + self.notes.capacity() * size_of::<u16>()
    }

    /// Memory that is to be made ready before it is needed, if some is: by whoever has the time.
    #[inline]
    pub fn wanting(&self) -> Option<&Arc<Spare>> {
        self.memory.wanting()
    }

    /// Makes sure that one `put` more of each of `hashes` cannot fail, on top of what is reserved already.
    /// On failure nothing is reserved.
    pub fn reserve(&mut self, mut hashes: impl Iterator<Item = KeyHash>) -> Result<()> {
        self.notes.clear();
        let outcome = hashes.try_for_each(|hash| self.reserve_one(&hash));
        if outcome.is_err() {
            for &at in &self.notes {
                self.segments[usize::from(at)].unreserve();
            }
        }
        if self.notes.capacity() > NOTES_KEPT {
            self.notes = Vec::new();
        }
        outcome
    }

    #[inline(always)]
    fn reserve_one(&mut self, hash: &KeyHash) -> Result<()> {
        let at = segment(hash);
        if self.notes.len() == self.notes.capacity() {
            self.notes.try_reserve(64).map_err(|_| Error::no_memory("no memory to note what is reserved in the index"))?;
        }
        if !self.segments[at].reserve() {
            self.reserve_in_larger(at)?;
        }
        self.notes.push(at as u16);
        Ok(())
    }

    #[cold]
    fn reserve_in_larger(&mut self, at: usize) -> Result<()> {
        self.grow(at, 1)?;
        self.segments[at].reserve_grown()
    }

    /// Has every segment grow to what so many `hashes` need, at once where `reserve` would double it again and again.
    /// Worth it for several puts per segment. A failure leaves some of them larger, and does no other harm.
    pub fn grow_for(&mut self, hashes: impl Iterator<Item = KeyHash>) -> Result<()> {
        let mut puts = [0_u32; SEGMENTS];
        hashes.for_each(|hash| puts[segment(&hash)] += 1);
        for (at, puts) in puts.into_iter().enumerate() {
            if puts > 0 && !self.segments[at].fits(puts as usize) {
                self.grow(at, puts as usize)?;
            }
        }
        Ok(())
    }

    fn grow(&mut self, at: usize, puts: usize) -> Result<()> {
        let before = self.segments[at].heap_bytes();
        let grown = self.segments[at].grow(puts, at, &mut self.memory);
        self.heap_bytes = self.heap_bytes + self.segments[at].heap_bytes() - before;
        grown
    }

    /// Gives back reservations that will not be used.
    pub fn unreserve(&mut self, hashes: impl Iterator<Item = KeyHash>) {
        hashes.for_each(|hash| self.segments[segment(&hash)].unreserve());
    }

    /// Brings what `put` or `remove` of `hash` will need closer to the CPU; best some 32 keys ahead.
    #[inline]
    pub fn prefetch(&self, hash: &KeyHash) {
        self.segments[segment(hash)].prefetch(hash.tag);
    }

    /// The place of the key, if there is one.
    #[inline]
    pub fn get(&self, hash: &KeyHash) -> Option<Place> {
        self.home(hash).place(hash)
    }

    /// Where the key is, if it is anywhere. Brings that closer to the CPU; best some 32 keys before its `place` is asked for.
    #[inline]
    pub fn home(&self, hash: &KeyHash) -> Home<'_> {
        self.segments[segment(hash)].home_of(hash.tag)
    }

    /// Stores the place of a key and returns the one it had. Uses up one reservation.
    #[inline]
    pub fn put(&mut self, hash: &KeyHash, place: Place) -> Option<Place> {
        let at = segment(hash);
        if self.segments[at].is_crammed() {
            self.make_room(at);
        }
        let old = self.segments[at].put(hash.tag, place);
        self.len += usize::from(old.is_none());
        old
    }

    /// For a put that was never reserved, a mistake of the caller's: the key must not be lost in silence for it.
    #[cold]
    fn make_room(&mut self, at: usize) {
        let grown = self.grow(at, 1);
        assert!(grown.is_ok(), "a key was put into the index without a reservation, and there is no memory for it");
    }

    /// Forgets a key and returns the place it had.
    #[inline]
    pub fn remove(&mut self, hash: &KeyHash) -> Option<Place> {
        let old = self.segments[segment(hash)].remove(hash.tag);
        self.len -= usize::from(old.is_some());
        old
    }

    /// Calls `f` with the tag and place of every key, segment by segment.
    #[cfg(test)]
    pub fn for_each(&self, f: &mut dyn FnMut(u64 /* tag */, Place)) {
        self.segments.iter().for_each(|segment| segment.for_each(&mut *f));
    }
}

#[inline(always)]
fn segment(hash: &KeyHash) -> usize {
    (hash.spot >> (u64::BITS - SEGMENT_BITS)) as usize
}

#[cfg(test)]
#[allow(clippy::print_stdout)] // Figures are for whoever runs the tests.
mod tests {
    use super::*;
    use crate::base::random::Random;
    use std::cell::Cell;
    use std::collections::HashMap;

    thread_local! {
        /// Allocations of segments that will still succeed in this thread.
        static ALLOCATIONS: Cell<u64> = const { Cell::new(u64::MAX) };
    }

    /// Asked before every allocation of a segment.
    pub(super) fn allocation() -> Result<()> {
        match ALLOCATIONS.get() {
            0 => Err(Error::no_memory("refused by the test")),
            left => {
                ALLOCATIONS.set(left - 1);
                Ok(())
            }
        }
    }

    fn random_hash(random: &mut Random) -> KeyHash {
        KeyHash { tag: random.next_u64(), spot: random.next_u64() }
    }

    fn random_place(random: &mut Random) -> Place {
        Place::new(random.below(1 << 20) as u32, random.below(1 << 30) * 8, 8 + random.below(1000) as usize * 8)
    }

    fn put(index: &mut Index, hash: KeyHash, place: Place) -> Option<Place> {
        index.reserve([hash].into_iter()).unwrap();
        index.put(&hash, place)
    }

    /// Everything the index says must be what the model says.
    fn compare(index: &Index, model: &HashMap<KeyHash, Place>) {
        assert_eq!(index.len(), model.len());
        for (hash, place) in model {
            assert_eq!(index.get(hash), Some(*place));
        }
        let mut told: Vec<_> = Vec::new();
        index.for_each(&mut |tag, place| told.push((tag, place.to_bits())));
        let mut want: Vec<_> = model.iter().map(|(hash, place)| (hash.tag, place.to_bits())).collect();
        told.sort_unstable();
        want.sort_unstable();
        assert_eq!(told, want);
        let counted: usize = index.segments.iter().map(Segment::heap_bytes).sum();
        assert_eq!(counted, index.heap_bytes);
        index.segments.iter().for_each(Segment::check);
    }

    /// Random puts, removes, gets on hashes drawn by `draw`, `ops` of them, compared with a `HashMap`.
    fn run_model(seed: u64, ops: usize, mut draw: impl FnMut(&mut Random) -> KeyHash) {
        let mut random = Random::new(seed);
        let mut index = Index::new().unwrap();
        let mut model = HashMap::new();
        // Mostly puts, then mostly removes, in turns.
        for op in 0..ops {
            let hash = draw(&mut random);
            let puts = if op / 5000 % 2 == 0 { 6 } else { 3 };
            match random.below(10) {
                0 => assert_eq!(index.get(&hash), model.get(&hash).copied()),
                n if n <= puts => {
                    let place = random_place(&mut random);
                    assert_eq!(put(&mut index, hash, place), model.insert(hash, place));
                }
                _ => assert_eq!(index.remove(&hash), model.remove(&hash)),
            }
            if op % (ops / 16) == 0 {
                compare(&index, &model);
            }
        }
        compare(&index, &model);
        for (hash, place) in model.drain() {
            assert_eq!(index.remove(&hash), Some(place));
        }
        compare(&index, &model);
    }

    #[test]
    fn an_empty_index_is_small_and_empty() {
        let mut index = Index::new().unwrap();
        assert!(index.is_empty() && index.bytes() < 100 << 10);
        let hash = random_hash(&mut Random::new(1));
        index.prefetch(&hash);
        assert_eq!(index.get(&hash), None);
        assert_eq!(index.remove(&hash), None);
        index.for_each(&mut |_, _| unreachable!());
    }

    #[test]
    fn like_a_map_with_spread_hashes() {
        run_model(1, 1_500_000, |random| {
            let key = random.below(200_000);
            random_hash(&mut Random::new(key))
        });
    }

    #[test]
    fn like_a_map_in_one_segment() {
        run_model(2, 1_500_000, |random| KeyHash { tag: random.below(3000).wrapping_mul(0x9e37_79b9_7f4a_7c15), spot: 5 });
    }

    #[test]
    fn like_a_map_with_colliding_homes() {
        // Few homes, the last line among them: long overflow, round the end. Tag 0 is one of the tags.
        for (seed, homes) in [(3, vec![0]), (4, vec![u64::MAX - 99]), (5, vec![0, u64::MAX - 99, 1 << 63, 3 << 62])] {
            run_model(seed, 600_000, |random| {
                let home = homes[random.below(homes.len() as u64) as usize];
                KeyHash { tag: home + random.below(100), spot: random.below(3) << 54 }
            });
        }
    }

    #[test]
    fn like_a_map_when_tiny() {
        // A handful of keys in a handful of lines, so that every state of full and free lines comes up.
        for seed in 0..300 {
            run_model(1000 + seed, 3000, |random| KeyHash { tag: random.below(4 + seed % 20) << 59, spot: 0 });
        }
    }

    #[test]
    fn reservations_are_kept_without_allocation() {
        let mut random = Random::new(7);
        let mut index = Index::new().unwrap();
        for round in 0..50 {
            // Two groups in flight, then one of them fails.
            let groups: Vec<Vec<KeyHash>> = (0..2)
                .map(|_| (0..round * 100).map(|_| KeyHash { tag: random.next_u64(), spot: random.below(4) << 54 }).collect())
                .collect();
            groups.iter().for_each(|group| index.reserve(group.iter().copied()).unwrap());
            ALLOCATIONS.set(0);
            groups[1].iter().for_each(|hash| assert_eq!(index.put(hash, random_place(&mut Random::new(1))), None));
            ALLOCATIONS.set(u64::MAX);
            index.unreserve(groups[0].iter().copied());
            index.segments.iter().for_each(Segment::check);
            assert!(index.segments.iter().all(|segment| segment.reserved() == 0));
        }
    }

    #[test]
    fn a_failed_reserve_changes_nothing() {
        let mut random = Random::new(8);
        let mut index = Index::new().unwrap();
        let mut model = HashMap::new();
        let first: Vec<_> = (0..500).map(|_| random_hash(&mut random)).collect();
        index.reserve(first.iter().copied()).unwrap();
        let mut failures = 0;
        for allowed in 0..2000 {
            let hashes: Vec<_> = (0..3000).map(|_| random_hash(&mut random)).collect();
            ALLOCATIONS.set(allowed);
            let outcome = index.reserve(hashes.iter().copied());
            ALLOCATIONS.set(u64::MAX);
            if outcome.is_ok() {
                break;
            }
            failures += 1;
            assert_eq!(index.segments.iter().map(|s| s.reserved() as usize).sum::<usize>(), 500 - model.len());
            // What was reserved before still holds.
            if let Some(hash) = first.get(model.len()) {
                let place = random_place(&mut random);
                assert_eq!(index.put(hash, place), model.insert(*hash, place));
            }
            compare(&index, &model);
        }
        assert!(failures > 20);
    }

    #[test]
    fn growing_at_once_comes_to_the_same_as_growing_step_by_step() {
        let mut random = Random::new(11);
        let (mut at_once, mut by_steps) = (Index::new().unwrap(), Index::new().unwrap());
        let mut known = Vec::new();
        for count in [1, 3000, 20_000, 100_000, 400_000, 5000] {
            // Some of them overwrite.
            let hashes: Vec<_> =
                (0..count).map(|i| if i % 3 == 0 && i < known.len() { known[i] } else { random_hash(&mut random) }).collect();
            at_once.grow_for(hashes.iter().copied()).unwrap();
            ALLOCATIONS.set(0); // nothing is left to grow for
            at_once.reserve(hashes.iter().copied()).unwrap();
            ALLOCATIONS.set(u64::MAX);
            by_steps.reserve(hashes.iter().copied()).unwrap();
            for hash in &hashes {
                let place = random_place(&mut random);
                assert_eq!(at_once.put(hash, place), by_steps.put(hash, place));
            }
            assert_eq!(at_once.len(), by_steps.len());
            assert!(at_once.segments.iter().zip(by_steps.segments.iter()).all(|(one, other)| one.lines() == other.lines()));
            at_once.segments.iter().for_each(Segment::check);
            known = hashes;
        }
    }

    #[test]
    fn growing_at_once_may_fail_between_segments() {
        let mut random = Random::new(12);
        let mut index = Index::new().unwrap();
        let mut model = HashMap::new();
        for allowed in [0, 1, 100, 500] {
            let hashes: Vec<_> = (0..5000).map(|_| random_hash(&mut random)).collect();
            ALLOCATIONS.set(allowed);
            assert!(index.grow_for(hashes.iter().copied()).is_err());
            ALLOCATIONS.set(u64::MAX);
            compare(&index, &model);
            assert!(index.segments.iter().all(|segment| segment.reserved() == 0));
            let place = random_place(&mut random);
            assert_eq!(put(&mut index, hashes[0], place), model.insert(hashes[0], place));
        }
    }

    #[test]
    fn updates_in_large_batches_do_not_grow_much() {
        let mut random = Random::new(9);
        let mut index = Index::new().unwrap();
        let hashes: Vec<_> = (0..200_000).map(|_| random_hash(&mut random)).collect();
        hashes.iter().for_each(|hash| assert!(put(&mut index, *hash, random_place(&mut Random::new(1))).is_none()));
        let before = index.bytes();
        for group in hashes.chunks(4000) {
            index.reserve(group.iter().copied()).unwrap();
            group.iter().for_each(|hash| assert!(index.put(hash, random_place(&mut Random::new(2))).is_some()));
        }
        assert!(index.bytes() < before + before / 50, "{before} bytes became {}", index.bytes());
    }

    #[test]
    fn bytes_per_key() {
        let mut random = Random::new(10);
        let mut index = Index::new().unwrap();
        for key in 1..=5_000_000_usize {
            let hash = random_hash(&mut random);
            put(&mut index, hash, Place::new(0, 0, 8));
            let each = index.bytes() as f64 / key as f64;
            // At every number of keys, not only on average. The nursery has places ready for segments that will want them soon.
            let most = if key < 250_000 { 54.0 } else { 40.0 };
            let most = if key < 4_000_000 { most } else { 24.0 };
            assert!(key < 100_000 || each <= most, "{each} bytes per key at {key} keys");
            if key % 500_000 == 0 {
                println!("{each:.2} bytes per key at {key} keys");
            }
        }
    }
}
