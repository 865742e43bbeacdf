//! Tests of the engine as a whole, on a simulated disk.

mod checkpoint;

use std::cell::{Cell, RefCell};

type Hook = Box<dyn FnMut(usize)>;

thread_local! {
    /// The secret of stores that are opened in this thread and have no checkpoint.
    pub static SECRET: Cell<[u64; 2]> = const { Cell::new([1, 2]) };

    static BEFORE_SEGMENT: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Called by a checkpoint before it copies a segment of the index.
pub fn before_segment(segment: usize) {
    let hook = BEFORE_SEGMENT.take();
    if let Some(mut hook) = hook {
        hook(segment);
        BEFORE_SEGMENT.set(Some(hook));
    }
}

/// Runs `body` with `hook` in the midst of every checkpoint.
pub fn with_hook<T>(hook: Hook, body: impl FnOnce() -> T) -> T {
    BEFORE_SEGMENT.set(Some(hook));
    let result = body();
    BEFORE_SEGMENT.set(None);
    result
}
