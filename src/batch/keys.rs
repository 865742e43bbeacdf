//! Which keys a batch in line may change: what lets a batch of reads go ahead of writes that have nothing to do with it.
//!
//! Made in submit, before the batch is in line; asked when a batch of reads is submitted. A set may say that it has a key when it
//! has not, never the other way round. It holds hashes, no keys, and no memory of the caller's.

use super::lane::{Entry, Lane, count};
use super::work::Work;
use crate::base::few::Few;
use crate::base::hash::KeyHash;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;

/// So many batches that write keep a set of their keys after a batch of reads has met unpublished writes. Where nothing is
/// read meanwhile, nobody pays for sets.
pub(super) const KEPT_SETS: u32 = 256;

/// So many of the first batches of a lane do, too: reads may be on their way. More would only make submits slower.
pub(super) const FIRST_KEPT_SETS: u32 = 16;

/// A write that is in line or being committed.
#[derive(Clone)]
pub(super) struct Unpublished {
    pub number: u64,
    /// `None`: they may be any.
    pub keys: Option<Arc<KeySet>>,
}

impl Unpublished {
    fn may_touch(&self, hashes: &[KeyHash]) -> bool {
        !planted(Bug::ReadsPassAll) && self.keys.as_ref().is_none_or(|keys| keys.may_hold_any(hashes))
    }
}

/// A group that is being committed.
pub(super) struct Flight {
    /// The number of its first batch.
    pub first: u64,
    /// The keys of each of its batches.
    pub keys: Few<Unpublished>,
}

impl Flight {
    pub fn of(group: &[Entry]) -> Flight {
        Flight { first: group.first().map_or(0, Entry::number), keys: group.iter().map(Entry::unpublished).collect() }
    }
}

impl Entry {
    pub fn unpublished(&self) -> Unpublished {
        Unpublished { number: self.number(), keys: self.keys.clone() }
    }
}

impl Lane {
    /// Notes the keys that a batch writes, if batches of reads have come in between of late.
    pub(super) fn keep_keys(&self, entry: &mut Entry) {
        let left = self.sets_left.load(Ordering::Relaxed);
        if let Some(work) = entry.work.as_mut().filter(|_| left > 0) {
            self.sets_left.store(left - 1, Ordering::Relaxed); // roughly is enough
            work.hash_keys(&self.engine.hasher());
            entry.keys = KeySet::of_writes(work);
        }
    }

    /// The last of the writes so far that are not published and may touch a key of this batch of reads; 0 if there is none.
    pub(super) fn last_touching(&self, entry: &mut Entry) -> u64 {
        let unpublished = self.queue.lock().unpublished();
        let (Some(last), Some(work)) = (unpublished.first(), &mut entry.work) else { return 0 };
        self.sets_left.store(KEPT_SETS, Ordering::Relaxed);
        work.hash_keys(&self.engine.hasher());
        let after = unpublished.iter().find(|write| write.may_touch(&work.hashes)).map_or(0, |write| write.number);
        count(&self.counters.reads_ahead, u64::from(after < last.number));
        after
    }
}

/// See the top of this file: a table with open addressing, at least half of it empty.
#[derive(Default)]
pub(super) struct KeySet {
    /// Part of each key's hash; 0: nothing.
    slots: Vec<u32>,
}

impl KeySet {
    /// The keys that `work` writes, after its keys were hashed; `None` if there is no memory for them. The set of the batch that
    /// had the memory of `work` before is used again, if nobody asks that one any more.
    pub fn of_writes(work: &mut Work) -> Option<Arc<KeySet>> {
        let len = (work.census.writes() as usize * 2).next_power_of_two();
        let mut shared = work.keys.take().filter(|set| Arc::strong_count(set) == 1).unwrap_or_default();
        let set = Arc::get_mut(&mut shared)?;
        set.slots.clear();
        set.slots.try_reserve_exact(len).ok()?;
        set.slots.resize(len, 0);
        for (op, hash) in work.ops.iter().zip(work.hashes.iter()) {
            if op.kind.writes() {
                let slot = set.slot_of(hash);
                set.slots[slot] = mark(hash);
            }
        }
        work.keys = Some(Arc::clone(&shared));
        Some(shared)
    }

    /// Bytes of memory that it holds.
    pub fn held_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }

    /// Whether a key of these hashes may be in the set.
    pub fn may_hold_any(&self, hashes: &[KeyHash]) -> bool {
        hashes.iter().any(|hash| self.slots[self.slot_of(hash)] != 0)
    }

    /// Where the hash stands, or else the empty slot where it would.
    fn slot_of(&self, hash: &KeyHash) -> usize {
        let wrap = self.slots.len() - 1;
        let mut slot = hash.spot as usize & wrap;
        while self.slots[slot] != 0 && self.slots[slot] != mark(hash) {
            slot = (slot + 1) & wrap;
        }
        slot
    }
}

fn mark(hash: &KeyHash) -> u32 {
    (hash.tag as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::memory::Allocator;
    use super::super::operation::{Hook, OpKind};
    use super::super::settings::Settings;
    use super::*;
    use crate::base::hash::KeyHasher;

    #[test]
    fn every_key_that_is_written_is_found_and_hardly_another() {
        let (hasher, count) = (KeyHasher::new([1, 2]), 3000);
        let mut work = Work::new(Allocator::system(), count).expect("memory");
        for i in 0..count {
            let kind = [OpKind::Put, OpKind::Delete, OpKind::Update, OpKind::Get, OpKind::Sync][i % 5];
            let key = if kind == OpKind::Sync { String::new() } else { format!("key-{i}") };
            work.add(&Settings::default(), kind, key.as_bytes(), b"", None, Hook::default()).expect("added");
        }
        work.reserve_plan().expect("memory");
        work.hash_keys(&hasher);
        let set = KeySet::of_writes(&mut work).expect("memory");
        let holds = |i: usize| set.may_hold_any(&[hasher.hash(format!("key-{i}").as_bytes())]);
        assert!((0..count).filter(|i| i % 5 < 3).all(holds));
        assert!((0..count).filter(|i| i % 5 >= 3).chain(count..10 * count).filter(|i| holds(*i)).count() < 3);
        assert!(!set.may_hold_any(&[]));
        let second = KeySet::of_writes(&mut work).expect("memory");
        assert!(!Arc::ptr_eq(&set, &second) && holds(0), "somebody may still ask the first one");
        let place = Arc::as_ptr(&second);
        drop(second);
        assert_eq!(KeySet::of_writes(&mut work).map(|third| Arc::as_ptr(&third)), Some(place), "its memory is used again");
    }

    #[test]
    fn a_batch_that_writes_nothing_has_no_keys() {
        let mut work = Work::new(Allocator::system(), 1).expect("memory");
        let set = KeySet::of_writes(&mut work).expect("memory");
        assert!(!set.may_hold_any(&[KeyHasher::new([1, 2]).hash(b"k")]));
    }
}
