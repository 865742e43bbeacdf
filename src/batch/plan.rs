//! The plan of a batch: what must really be asked of the store. Once for every engine.
//!
//! A GET behind a write of its own batch is answered from the batch's memory; a write that a later one of the batch
//! makes moot is dropped, unless something between reads it; what is left is a set of reads at the batch's place in
//! the order, and a set of writes that is all or nothing. Called by whoever executes the batch; no I/O, no locks, and
//! no memory but what `Work::reserve_plan` has taken ahead.

use super::operation::{ANSWERED, DROPPED, Op, OpKind, READ_BACK};
use super::work::Work;
use crate::base::code::Code;
use crate::base::crc::{self, crc32c_up_to_lanes};
use crate::base::hash::{KeyHasher, LANES};
use crate::base::planted::{Bug, planted};
use crate::base::prefetch::prefetch;
use crate::engine::record::{self, Kind};
use crate::engine::{ReadOp, WriteOp};
use std::array;

/// How many operations ahead of its use a slot is asked for: the table of a large batch is not in the CPU's nearest cache.
const PREFETCH_AHEAD: usize = 16;

impl Work {
    /// Hashes every key, if that was not done before, and fills in the records' checksums, some at a time.
    pub(super) fn seal(&mut self, hasher: &KeyHasher) {
        if self.census.writes() == 0 {
            if !self.hashed {
                self.hash_keys(hasher);
            }
            return;
        }
        let hashed = std::mem::replace(&mut self.hashed, true);
        let Work { ops, hashes, records, side, .. } = self;
        for (ops, hashes) in ops.chunks(LANES).zip(hashes.chunks_mut(LANES)) {
            let lanes = lanes_of(ops);
            let bytes = lanes.map(|op| if op.kind.writes() { records.bytes(op.place, op.record_len as usize) } else { &[] });
            if !hashed {
                let key = |lane: usize| {
                    let op = lanes[lane];
                    let (from, len) = (usize::from(op.key_at), usize::from(op.key_len));
                    if op.kind.writes() { &bytes[lane][from..from + len] } else { Work::key_of(op, records, side) }
                };
                hasher.hash_up_to_lanes(hashes, key);
            }
            let summed = array::from_fn::<_, LANES, _>(|lane| record::summed(bytes[lane], usize::from(lanes[lane].key_at)));
            let mut sums = [0; LANES];
            for (summed, sums) in summed[..ops.len()].chunks(crc::LANES).zip(sums.as_chunks_mut().0) {
                *sums = crc32c_up_to_lanes(summed);
            }
            for (op, sum) in ops.iter().zip(sums).filter(|(op, _)| op.kind.writes()) {
                record::write_sum(records.bytes_mut(op.place, record::SUM_FROM), sum);
            }
        }
    }

    /// Only hashes the keys. After `reserve_plan`.
    pub(super) fn hash_keys(&mut self, hasher: &KeyHasher) {
        let Work { ops, hashes, records, side, .. } = self;
        for (ops, hashes) in ops.chunks(LANES).zip(hashes.chunks_mut(LANES)) {
            hasher.hash_up_to_lanes(hashes, |at| Work::key_of(&ops[at], records, side));
        }
        self.hashed = true;
    }

    /// Lists, as reads, the keys whose presence decides about an UPDATE. After `seal`.
    pub(super) fn plan_conditions(&mut self) {
        self.reads.truncate(0);
        for (i, op) in self.ops.iter().enumerate().filter(|(_, op)| op.kind == OpKind::Update) {
            push_read(&mut self.reads, ReadOp { hash: self.hashes[i], op: i as u32, ..ReadOp::default() });
            debug_assert!(op.kind == OpKind::Update);
        }
    }

    /// Fills `writes` and `reads`. After `seal`, and after the conditions were read, if there are any.
    pub(super) fn plan(&mut self, deduplicate: bool) {
        self.writes.truncate(0);
        self.reads.truncate(0);
        if self.census.writes() == 0 {
            for (i, (_, hash)) in self.ops.iter().zip(self.hashes.iter()).enumerate().filter(|(_, (op, _))| op.kind == OpKind::Get) {
                push_read(&mut self.reads, ReadOp { hash: *hash, op: i as u32, ..ReadOp::default() });
            }
            return;
        }
        if deduplicate || self.census.gets > 0 || self.census.updates > 0 {
            self.plan_by_key(deduplicate);
        }
        for (op, hash) in self.ops.iter().zip(self.hashes.iter()) {
            if op.kind.writes() && !op.has(DROPPED) {
                let kind = if op.kind == OpKind::Delete { Kind::Delete } else { Kind::Put };
                let write = WriteOp { hash: *hash, block: op.place.block, offset: op.place.offset, len: op.record_len, kind };
                let room = self.writes.push(write);
                debug_assert!(room.is_ok(), "reserve_plan made room");
            }
        }
    }

    fn plan_read(&mut self, i: usize) {
        if self.ops[i].kind == OpKind::Get {
            push_read(&mut self.reads, ReadOp { hash: self.hashes[i], op: i as u32, ..ReadOp::default() });
        }
    }

    fn plan_by_key(&mut self, deduplicate: bool) {
        self.table.fill(0);
        let mask = self.table.len() - 1;
        // A slot holds the number of an operation, from 1, and in the bits that no number reaches some of its key's hash: so
        // other keys' hashes are hardly ever looked at.
        let number_bits = mask as u32;
        for i in 0..self.ops.len() {
            if let Some(ahead) = self.hashes.get(i + PREFETCH_AHEAD) {
                prefetch(&self.table[ahead.spot as usize & mask]);
            }
            let kind = self.ops[i].kind;
            if kind == OpKind::Sync {
                continue;
            }
            // The slot of the last write to this key, or the empty one where it would be noted.
            let hash = self.hashes[i];
            let mark = (hash.tag >> 32) as u32 & !number_bits;
            let mut slot = hash.spot as usize & mask;
            let earlier = loop {
                match self.table[slot] {
                    0 => break None,
                    noted if noted & !number_bits == mark => {
                        let other = (noted & number_bits) as usize - 1;
                        if self.hashes[other] == hash {
                            break Some(other);
                        }
                    }
                    _ => {}
                }
                slot = (slot + 1) & mask;
            };
            match kind {
                OpKind::Get => match earlier {
                    Some(write) => self.answer_from(i, write),
                    None => self.plan_read(i),
                },
                OpKind::Update if !self.update_applies(i, earlier) => {
                    self.ops[i].flags |= DROPPED | ANSWERED;
                }
                _ => {
                    if let Some(write) = earlier.filter(|_| deduplicate)
                        && !self.ops[write].has(READ_BACK)
                    {
                        self.ops[if planted(Bug::DedupKeepsOldest) { i } else { write }].flags |= DROPPED;
                        self.deduplicated += 1;
                    }
                    self.table[slot] = mark | (i as u32 + 1);
                }
            }
        }
    }

    /// Whether the key of UPDATE `i` is there: by an earlier write of the batch, else by what the store said.
    fn update_applies(&mut self, i: usize, earlier: Option<usize>) -> bool {
        if let Some(write) = earlier {
            self.ops[i].code = if self.leaves_nothing(&self.ops[write]) { Code::KEY_NOT_FOUND } else { Code::NONE };
        }
        self.ops[i].code == Code::NONE
    }

    fn answer_from(&mut self, get: usize, write: usize) {
        self.ops[write].flags |= READ_BACK;
        self.ops[get].flags |= ANSWERED | READ_BACK;
        if self.ops[write].kind == OpKind::Delete {
            let op: &mut Op = &mut self.ops[get];
            op.code = Code::KEY_NOT_FOUND;
            op.value_len = 0;
        } else {
            let (_, mut reader) = self.split_reads();
            reader.read_own(get as u32, write as u32);
        }
    }
}

/// Up to as many operations as go side by side, the last of them more than once if they are fewer.
#[inline(always)]
fn lanes_of(ops: &[Op]) -> [&Op; LANES] {
    match ops.first_chunk::<LANES>() {
        Some(ops) => ops.each_ref(),
        None => array::from_fn(|lane| &ops[lane.min(ops.len() - 1)]),
    }
}

fn push_read(reads: &mut super::memory::Array<ReadOp>, read: ReadOp) {
    let room = reads.push(read);
    debug_assert!(room.is_ok(), "reserve_plan made room");
}

#[cfg(test)]
mod tests {
    use super::super::memory::Allocator;
    use super::super::operation::Hook;
    use super::super::settings::Settings;
    use super::*;

    fn planned(ops: &[(OpKind, &str, &str)], deduplicate: bool) -> Work {
        let mut work = Work::new(Allocator::system(), ops.len()).expect("memory");
        for (kind, key, value) in ops {
            work.add(&Settings::default(), *kind, key.as_bytes(), value.as_bytes(), None, Hook::default()).expect("added");
        }
        work.reserve_plan().expect("memory");
        work.seal(&KeyHasher::new([1, 2]));
        work.plan(deduplicate);
        work
    }

    #[test]
    fn a_later_write_drops_an_earlier_one() {
        let puts = [(OpKind::Put, "k", "1"), (OpKind::Put, "other", "x"), (OpKind::Put, "k", "2"), (OpKind::Delete, "k", "")];
        let work = planned(&puts, true);
        assert_eq!((work.writes.len(), work.deduplicated), (2, 2));
        assert_eq!(planned(&puts, false).writes.len(), 4);
    }

    #[test]
    fn a_read_between_keeps_the_write_and_is_answered_from_it() {
        let work = planned(&[(OpKind::Put, "k", "one"), (OpKind::Get, "k", ""), (OpKind::Put, "k", "two"), (OpKind::Get, "k", "")], true);
        assert_eq!((work.writes.len(), work.reads.len(), work.deduplicated), (2, 0, 0));
        assert!(work.ops[1].code == Code::NONE && work.ops[1].value_len == 3);
    }

    #[test]
    fn reads_before_a_write_ask_the_store_and_behind_a_delete_miss() {
        let work = planned(&[(OpKind::Get, "k", ""), (OpKind::Delete, "k", ""), (OpKind::Get, "k", "")], true);
        assert_eq!((work.reads.len(), work.writes.len()), (1, 1));
        assert_eq!(work.ops[2].code, Code::KEY_NOT_FOUND);
    }

    #[test]
    fn an_update_follows_what_its_batch_did_before() {
        let work =
            planned(&[(OpKind::Delete, "k", ""), (OpKind::Update, "k", "v"), (OpKind::Put, "k", "w"), (OpKind::Update, "k", "x")], true);
        assert_eq!(work.ops[1].code, Code::KEY_NOT_FOUND);
        assert_eq!(work.ops[3].code, Code::NONE);
        assert_eq!(work.writes.len(), 1);
    }
}
