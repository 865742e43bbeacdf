//! What a batch needed of memory, so that the next one of its manager can begin with all of it in one piece.
//!
//! The manager asks with an allocator of the caller's, which may be slow; without one it keeps whole batches instead. It is
//! a guess and never more: a batch that needs more grows as any other does.

use super::Op;
use super::Work;
use crate::base::hash::KeyHash;
use crate::batch::memory::{Allocator, Arena, Array, Slab};
use crate::engine::{ReadOp, WriteOp};

/// What a batch needed: the next one will need about as much.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::batch) struct Needs {
    ops: usize,
    writes: usize,
    reads: usize,
    record_bytes: usize,
    side_bytes: usize,
    value_bytes: usize,
}

/// More than this, in bytes, is not taken ahead.
const SLAB_LEN_MAX: usize = 1 << 20;

impl Needs {
    /// Slots of the plan's table for so many operations.
    pub(super) fn slots(ops: usize) -> usize {
        (ops * 2).next_power_of_two()
    }

    /// Memory for all of it, in one piece, if it is worth that and there is some.
    fn slab(&self, allocator: Allocator) -> Option<Slab> {
        let tables = [
            self.ops * size_of::<Op>(),
            self.ops * size_of::<KeyHash>(),
            Needs::slots(self.ops) * size_of::<u32>(),
            self.writes * size_of::<WriteOp>(),
            self.reads * size_of::<ReadOp>(),
        ];
        let arenas = [self.record_bytes, self.side_bytes, self.value_bytes].map(Arena::slab_len);
        let len = tables.map(Slab::cut_len).iter().chain(&arenas).sum::<usize>();
        if self.ops == 0 || len > SLAB_LEN_MAX { None } else { Slab::take(allocator, len) }
    }
}

impl Work {
    /// An empty batch that takes at most `max_ops` operations and expects to need what an earlier one needed: memory for all
    /// of it is taken at once. `None` if there was no earlier one, or that is too much.
    pub fn with_slab(allocator: Allocator, mut needs: Needs, max_ops: usize) -> Option<Work> {
        needs.ops = needs.ops.min(max_ops);
        needs.writes = needs.writes.min(max_ops);
        needs.reads = needs.reads.min(max_ops);
        let mut slab = needs.slab(allocator)?;
        let mut work = Work::new(allocator, 0).ok()?;
        work.ops = Array::within(&mut slab, needs.ops);
        work.hashes = Array::within(&mut slab, needs.ops);
        work.table = Array::within(&mut slab, Needs::slots(needs.ops));
        work.writes = Array::within(&mut slab, needs.writes);
        work.reads = Array::within(&mut slab, needs.reads);
        work.records = Arena::within(&mut slab, needs.record_bytes);
        work.side = Arena::within(&mut slab, needs.side_bytes);
        work.values = Arena::within(&mut slab, needs.value_bytes);
        Some(work)
    }

    /// What it needed, and a NUL behind the last value.
    pub fn needs(&self) -> Needs {
        let with_nul = |arena: &Arena| arena.used_bytes() + if arena.used_bytes() > 0 { 8 } else { 0 };
        Needs {
            ops: self.ops.len(),
            writes: self.census.writes() as usize,
            reads: (self.census.gets + self.census.updates) as usize,
            record_bytes: with_nul(&self.records),
            side_bytes: with_nul(&self.side),
            value_bytes: with_nul(&self.values),
        }
    }
}
