//! What a child after `fork` may still do: nothing but free memory.
//!
//! The edge registers a handler that calls `mark_forked_child` in the child. The library's threads do not exist there,
//! its locks may be held by threads that do not exist, and its files belong to the parent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static STARTS: AtomicUsize = AtomicUsize::new(0);
static FORKED_CHILD: AtomicBool = AtomicBool::new(false);

/// Notes that a manager or a ring is being started in this process: from here on there may be threads, files and locks.
pub fn mark_started() {
    STARTS.fetch_add(1, Ordering::Relaxed);
}

/// Notes that it could not be started after all: it has left nothing behind that a child would have to keep off.
pub fn unmark_started() {
    STARTS.fetch_sub(1, Ordering::Relaxed);
}

/// Whether a manager or a ring was ever started in this process or, before the fork, in its parent.
pub fn was_started() -> bool {
    STARTS.load(Ordering::Relaxed) > 0
}

/// Called in the child, right after `fork`; async-signal-safe.
pub fn mark_forked_child() {
    if was_started() {
        FORKED_CHILD.store(true, Ordering::Relaxed);
    }
}

/// Whether this process was forked from one that had started a manager or a ring.
#[inline]
pub fn is_forked_child() -> bool {
    FORKED_CHILD.load(Ordering::Relaxed)
}
