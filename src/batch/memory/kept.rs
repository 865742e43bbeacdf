//! Large memory of batches that ended, kept for those that come next: a page that was touched before is there at once.
//!
//! The allocator takes from here and gives back to here; whoever ends a manager has all of it let go. Must never wait: who
//! forks may leave its lock to a child that nobody can unlock it in.

use crate::base::mapping::Mapping;
use parking_lot::Mutex;

/// As much as glibc's malloc comes to keep for the same reason (its largest threshold for mappings of their own).
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Of the whole process: batches of any manager may use it.
pub(super) static KEPT: Kept = Kept { mappings: Mutex::new(Vec::new()) };

/// See the top of this file.
pub(super) struct Kept {
    mappings: Mutex<Vec<Mapping>>,
}

impl Kept {
    /// The one of `len` bytes that came last.
    pub(super) fn take(&self, len: usize) -> Option<Mapping> {
        let mut mappings = self.mappings.try_lock()?;
        let at = mappings.iter().rposition(|mapping| mapping.bytes() == len)?;
        Some(mappings.remove(at))
    }

    /// Keeps it, in place of those that came first if there is no room; what cannot be kept is unmapped.
    pub(super) fn give(&self, mapping: Mapping) {
        if mapping.bytes() > KEPT_BYTES_MAX {
            return;
        }
        while let Some(mut mappings) = self.mappings.try_lock() {
            let kept: usize = mappings.iter().map(Mapping::bytes).sum();
            if kept + mapping.bytes() <= KEPT_BYTES_MAX {
                if mappings.try_reserve(1).is_ok() {
                    mappings.push(mapping);
                }
                return;
            }
            let oldest = mappings.remove(0);
            drop(mappings);
            drop(oldest); // a call into the kernel: without the lock
        }
    }

    /// Gives all of it back to the kernel.
    pub(super) fn let_go(&self) {
        let all = self.mappings.try_lock().map(|mut mappings| std::mem::take(&mut *mappings));
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn bytes(kept: &Kept) -> Vec<usize> {
        kept.mappings.lock().iter().map(|mapping| mapping.bytes() / MIB).collect()
    }

    #[test]
    fn what_came_last_is_taken_first_and_what_came_first_goes() {
        let kept = Kept { mappings: Mutex::new(Vec::new()) };
        let new = |mib: usize| Mapping::new(mib * MIB).expect("memory");
        assert!(kept.take(4 * MIB).is_none());
        let (first, second) = (new(4), new(4));
        let last = second.start();
        kept.give(first);
        kept.give(second);
        assert_eq!(kept.take(4 * MIB).expect("kept").start(), last);
        assert!(kept.take(6 * MIB).is_none(), "only of the same length: that is what is unmapped one day");
        [8, 16, 33].into_iter().for_each(|mib| kept.give(new(mib)));
        assert_eq!(bytes(&kept), [4, 8, 16], "33 MiB are too many");
        kept.give(new(10));
        assert_eq!(bytes(&kept), [16, 10]);
        kept.give(new(32));
        assert_eq!(bytes(&kept), [32]);
        kept.let_go();
        assert!(bytes(&kept).is_empty());
    }

    #[test]
    fn nobody_waits_for_the_lock() {
        let kept = Kept { mappings: Mutex::new(Vec::new()) };
        let locked = kept.mappings.lock(); // as in a child after fork
        kept.give(Mapping::new(4 * MIB).expect("memory"));
        assert!(kept.take(4 * MIB).is_none());
        kept.let_go();
        assert!(locked.is_empty());
    }
}
