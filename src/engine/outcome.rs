//! What became of a batch: the ids of those that were committed, as ranges, the newest so many of them.
//!
//! An engine notes each batch that it commits, keeps this with its files, and answers after the next opening for those
//! that had been in doubt. Adding is cheap and never fails: what there is no room for is forgotten, and said to be unknown.

use crate::base::limits::{OUTCOME_IDS_MAX, OUTCOME_RANGES_MAX};
use std::collections::VecDeque;

/// Names a batch that writes, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Which opening of the store it belongs to; rising.
    pub opening: u64,
    /// Its number there, in the order of commits, from 1 on.
    pub number: u64,
}

/// Names an opening: how often the store had been opened in the upper half, so that openings follow each other, and chance in
/// the lower. One that left nothing behind is not counted, but may have given out ids.
pub fn opening_of(epoch: u64, chance: u32) -> u64 {
    epoch.min(u64::from(u32::MAX)) << 32 | u64::from(chance)
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// All of it took effect.
    Committed,
    /// Nothing of it did, and nothing ever will.
    NotCommitted,
    /// It is not known any more, or not yet: a batch of this opening that has not been committed.
    Unknown,
}

/// Bytes of a range, encoded.
pub const RANGE_LEN: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    opening: u64,
    first: u64,
    last: u64,
}

impl Range {
    fn ids(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// See the top of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Rising, with gaps between them.
    ranges: VecDeque<Range>,
    ids: u64,
    /// Of batches up to this one only those in the ranges are known.
    forgotten: BatchId,
}

impl Outcomes {
    /// The last that was committed.
    pub fn last(&self) -> BatchId {
        self.ranges.back().map_or(self.forgotten, |range| BatchId { opening: range.opening, number: range.last })
    }

    /// A batch was committed. Ids come in rising order; one that does not is known already.
    pub fn add(&mut self, id: BatchId) {
        self.add_range(Range { opening: id.opening, first: id.number, last: id.number });
    }

    fn add_range(&mut self, range: Range) {
        if range.first == 0 || range.last < range.first || (BatchId { opening: range.opening, number: range.first }) <= self.last() {
            return;
        }
        match self.ranges.back_mut() {
            Some(back) if back.opening == range.opening && back.last + 1 == range.first => back.last = range.last,
            _ => {
                if self.ranges.try_reserve(1).is_err() {
                    self.forget(u64::MAX); // the oldest range, and its place is free
                }
                if self.ranges.len() == self.ranges.capacity() {
                    self.forgotten = BatchId { opening: range.opening, number: range.last };
                    return;
                }
                self.ranges.push_back(range);
            }
        }
        self.ids = self.ids.saturating_add(range.ids());
        if self.ranges.len() > OUTCOME_RANGES_MAX {
            self.forget(u64::MAX);
        }
        while self.ids > OUTCOME_IDS_MAX {
            self.forget(self.ids - OUTCOME_IDS_MAX);
        }
    }

    /// Forgets the oldest ids, as many as that, but of one range only.
    fn forget(&mut self, ids: u64) {
        let Some(front) = self.ranges.front_mut() else { return };
        let (opening, gone) = (front.opening, front.ids().min(ids));
        let number = front.first + (gone - 1);
        front.first = number.saturating_add(1);
        if number == front.last {
            self.ranges.pop_front();
        }
        self.ids = self.ids.saturating_sub(gone);
        self.forgotten = BatchId { opening, number };
    }

    /// Nothing is known of batches before `opening` but what is noted here.
    pub fn forget_before(&mut self, opening: u64) {
        self.forgotten = self.forgotten.max(BatchId { opening: opening.saturating_sub(1), number: u64::MAX });
    }

    /// What became of batch `id`, in a store that is in the opening `current`. An opening as old as this one has left nothing.
    pub fn of(&self, id: BatchId, current: u64) -> BatchOutcome {
        let behind = self.ranges.partition_point(|range| (range.opening, range.first) <= (id.opening, id.number));
        let range = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
        if range.is_some_and(|range| range.opening == id.opening && id.number <= range.last) {
            return BatchOutcome::Committed;
        }
        if id.number == 0 || id <= self.forgotten || id.opening == current || id.opening >> 32 > current >> 32 {
            BatchOutcome::Unknown
        } else {
            BatchOutcome::NotCommitted
        }
    }

    /// Entries of `encode`.
    pub fn encoded_ranges(&self) -> usize {
        self.ranges.len() + usize::from(self.forgotten != BatchId::default())
    }

    /// Ranges as they are kept in files: opening, first, last. One that begins with 0 comes first, and says up to where the
    /// others are all that is known.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let BatchId { opening, number } = self.forgotten;
        let forgotten = (self.forgotten != BatchId::default()).then_some(Range { opening, first: 0, last: number });
        for range in forgotten.iter().chain(&self.ranges) {
            for field in [range.opening, range.first, range.last] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
    }

    /// Reads what `encode` has written. What cannot be is left out.
    pub fn decode(bytes: &[u8]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let field = |bytes: &[u8], at: usize| bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes);
        let mut forgotten = BatchId::default();
        for (i, entry) in bytes.chunks_exact(RANGE_LEN).enumerate() {
            let range = Range { opening: field(entry, 0), first: field(entry, 8), last: field(entry, 16) };
            match range.first {
                0 if i == 0 => forgotten = BatchId { opening: range.opening, number: range.last },
                _ => outcomes.add_range(range),
            }
        }
        outcomes.forgotten = outcomes.forgotten.max(forgotten);
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, number: u64) -> BatchId {
        BatchId { opening: opening(epoch), number }
    }

    fn opening(epoch: u64) -> u64 {
        opening_of(epoch, 6)
    }

    fn encoded(outcomes: &Outcomes) -> Vec<u8> {
        let mut bytes = Vec::new();
        outcomes.encode(&mut bytes);
        assert_eq!(bytes.len(), outcomes.encoded_ranges() * RANGE_LEN);
        bytes
    }

    #[test]
    fn committed_ids_are_few_ranges() {
        let mut outcomes = Outcomes::default();
        for (opening, numbers) in [(3, 1..100), (3, 101..200), (7, 1..50)] {
            numbers.for_each(|number| outcomes.add(id(opening, number)));
        }
        outcomes.add(id(7, 5)); // known already
        outcomes.add(id(8, 0)); // no batch
        assert_eq!((outcomes.ranges.len(), outcomes.last()), (3, id(7, 49)));
        let expected = [
            (id(3, 1), BatchOutcome::Committed),
            (id(3, 99), BatchOutcome::Committed),
            (id(3, 100), BatchOutcome::NotCommitted),
            (id(3, 200), BatchOutcome::NotCommitted),
            (id(5, 1), BatchOutcome::NotCommitted),
            (id(7, 49), BatchOutcome::Committed),
            (id(7, 50), BatchOutcome::NotCommitted),
            (id(7, 0), BatchOutcome::Unknown),
            (id(8, 1), BatchOutcome::Unknown),
            (id(9, 1), BatchOutcome::Unknown),
            (BatchId { opening: opening_of(8, 99), number: 1 }, BatchOutcome::NotCommitted), // it left no trace
        ];
        for (id, outcome) in expected {
            assert_eq!(outcomes.of(id, opening(8)), outcome, "{id:?}");
        }
        assert_eq!(Outcomes::decode(&encoded(&outcomes)), outcomes);
    }

    #[test]
    fn the_oldest_are_forgotten_and_said_to_be_unknown() {
        let mut outcomes = Outcomes::default();
        (1..=OUTCOME_IDS_MAX + 10).for_each(|number| outcomes.add(id(1, number)));
        assert_eq!(outcomes.of(id(1, 10), opening(2)), BatchOutcome::Unknown);
        assert_eq!(outcomes.of(id(1, 11), opening(2)), BatchOutcome::Committed);
        assert_eq!(Outcomes::decode(&encoded(&outcomes)), outcomes);
        // Every other batch has failed: then there is room for fewer.
        let mut outcomes = Outcomes::default();
        let batches = 2 * (OUTCOME_RANGES_MAX as u64 + 5);
        (1..=batches).step_by(2).for_each(|number| outcomes.add(id(1, number)));
        assert_eq!(outcomes.ranges.len(), OUTCOME_RANGES_MAX);
        for (number, outcome) in [(8, BatchOutcome::Unknown), (9, BatchOutcome::Unknown), (10, BatchOutcome::NotCommitted)] {
            assert_eq!(outcomes.of(id(1, number), opening(2)), outcome, "{number}");
        }
        assert_eq!(Outcomes::decode(&encoded(&outcomes)), outcomes);
        outcomes.forget_before(opening_of(2, 0));
        assert_eq!(outcomes.of(id(1, 10), opening(3)), BatchOutcome::Unknown);
        assert_eq!(outcomes.of(id(1, 11), opening(3)), BatchOutcome::Committed);
    }

    #[test]
    fn any_bytes_can_be_read() {
        let mut random = crate::base::random::Random::new(4);
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len).map(|_| if random.one_in(2) { 0 } else { random.next_u64() as u8 }).collect();
            let outcomes = Outcomes::decode(&bytes);
            assert_eq!(Outcomes::decode(&encoded(&outcomes)), outcomes);
        }
    }
}
