//! What a child after `fork` may still do: nothing but free memory.
//!
//! The edge registers a handler that calls `mark_forked_child` in the child. The library's threads do not exist there,
//! its locks may be held by threads that do not exist, and its files belong to the parent.

use std::sync::atomic::{AtomicBool, Ordering};

static STARTED: AtomicBool = AtomicBool::new(false);
static FORKED_CHILD: AtomicBool = AtomicBool::new(false);

/// Notes that a manager has been started in this process.
pub(super) fn mark_started() {
    STARTED.store(true, Ordering::Relaxed);
}

/// Whether a manager was ever started in this process or, before the fork, in its parent.
pub fn was_started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// Called in the child, right after `fork`; async-signal-safe.
pub fn mark_forked_child() {
    if was_started() {
        FORKED_CHILD.store(true, Ordering::Relaxed);
    }
}

/// Whether this process was forked from one that had started a manager.
#[inline]
pub fn is_forked_child() -> bool {
    FORKED_CHILD.load(Ordering::Relaxed)
}
