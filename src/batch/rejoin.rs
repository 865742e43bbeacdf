//! Letting the members of a small group come back before the next group starts.
//!
//! Threads that commit small batches one after another else split in two halves: while one half is being synced the other
//! queues up, and each sync covers half of what it could. So after a small group its members are told first, and the next
//! group is let go when all have submitted again, or an eighth of the time that the commit took is over: what a
//! sync costs more than that is then shared by twice as many. MySQL's `binlog_group_commit_sync_delay` and PostgreSQL's
//! `commit_delay` do the same for a fixed time; here nobody has to set one, and who commits alone never waits.
//!
//! `execute` calls this, in the thread that executed the group. Must never hold a lock while it waits.

use super::lane::{Lane, count};
use crate::base::sync;
use std::time::{Duration, Instant};

/// The members of groups with fewer bytes of records are waited for. All of 64 threads with batches of ten fit; with half of that, they
/// got a sixth less done (`make bench-studies`: "limit of a merged group").
const LARGE_BYTES: usize = 128 << 10;

/// The next group is held back for this part of the time that the last one took, at the most.
const PART_OF_COMMIT: u32 = 8;

/// When so many times in a row nobody came back it is tried only now and then.
const VAIN_MAX: u32 = 3;
const VAIN_RETRY: u32 = 32;

/// Whether it has been of use lately.
#[derive(Debug, Default)]
pub(super) struct Rejoin {
    /// How often in a row nobody came back.
    vain: u32,
}

impl Rejoin {
    /// Whether to wait this time.
    fn is_due(&mut self) -> bool {
        if self.vain < VAIN_MAX {
            return true;
        }
        self.vain += 1;
        self.vain.is_multiple_of(VAIN_RETRY)
    }

    fn note(&mut self, came_back: u64) {
        self.vain = if came_back > 0 { 0 } else { self.vain + 1 };
    }
}

/// Whether the members of a group of so many, with so many bytes of records, are waited for.
pub(super) fn may_rejoin(members: usize, bytes: usize) -> bool {
    members > 1 && bytes < LARGE_BYTES
}

impl Lane {
    /// The `members` of a group that took `took` know how it ended: gives those who submit again at once time to do so.
    pub(super) fn let_rejoin(&self, members: usize, took: Duration) {
        let (began, patience) = (Instant::now(), took / PART_OF_COMMIT);
        let before = {
            let mut queue = self.queue.lock();
            if !queue.rejoin.is_due() {
                return;
            }
            queue.submits
        };
        // Whoever executed the group may be one of them.
        let awaited = members as u64 - 1;
        let mut came_back = 0;
        while came_back < awaited && began.elapsed() < patience {
            sync::yield_now();
            came_back = self.queue.lock().submits - before;
        }
        self.queue.lock().rejoin.note(came_back);
        count(&self.counters.rejoined, came_back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_batches_are_waited_for_and_a_few_large_ones_are_not() {
        assert!(may_rejoin(2, 264) && may_rejoin(64, 64 * 1320), "64 threads with batches of ten");
        assert!(!may_rejoin(1, 132), "whoever is alone has nobody to wait for");
        assert!(!may_rejoin(2, 2 * 128_000), "batches of 1000: the next group is on its way already");
    }

    #[test]
    fn what_is_in_vain_is_tried_now_and_then_only() {
        let mut rejoin = Rejoin::default();
        let tried = |rejoin: &mut Rejoin| {
            let due = rejoin.is_due();
            if due {
                rejoin.note(0);
            }
            due
        };
        assert_eq!((0..200).filter(|_| tried(&mut rejoin)).count(), 3 + 6);
        while !rejoin.is_due() {}
        rejoin.note(1);
        assert!(rejoin.is_due());
    }
}
