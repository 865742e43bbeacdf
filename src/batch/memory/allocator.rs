//! The caller's `alloc_func` and `free_func`, and whether a thread is inside one of them.
//!
//! Called by the arrays, arenas and slabs of this room; the edge asks `in_allocator`. Must never call one of the two without
//! marking the thread, unless they are the system's.

use crate::base::sync::atomic::{AtomicBool, Ordering};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;

thread_local! {
    static IN_ALLOCATOR: Cell<bool> = const { Cell::new(false) };
}

/// Some allocator of a caller's was ever called: before that no thread needs to look whether it is in one.
static ANY_FOREIGN: AtomicBool = AtomicBool::new(false);

/// Whether this thread is inside the caller's `alloc_func` or `free_func` right now: a call of the library from there
/// could meet its own lock, so the edge refuses it.
#[inline]
pub fn in_allocator() -> bool {
    ANY_FOREIGN.load(Ordering::Relaxed) && IN_ALLOCATOR.get()
}

/// The caller's allocator. Both functions may be called from any thread.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// Returns memory aligned as `malloc` aligns, or NULL.
    pub alloc: unsafe extern "C" fn(usize) -> *mut c_void,
    /// Takes it back.
    pub free: unsafe extern "C" fn(*mut c_void),
}

impl Allocator {
    /// `malloc` and `free`.
    pub fn system() -> Self {
        Allocator { alloc: libc::malloc, free: libc::free }
    }

    /// Whether this is `malloc` and `free`: nobody counts what is taken from there.
    pub fn is_system(&self) -> bool {
        let system = Allocator::system();
        (self.alloc as usize, self.free as usize) == (system.alloc as usize, system.free as usize)
    }

    pub(super) fn take(&self, len: usize) -> Option<NonNull<u8>> {
        // SAFETY: the configuration's contract: `alloc_func` behaves like `malloc`.
        let memory = self.marked(|| unsafe { (self.alloc)(len) });
        NonNull::new(memory.cast())
    }

    pub(super) fn give_back(&self, memory: NonNull<u8>) {
        // SAFETY: `memory` came from `take` of the same allocator and is given back once.
        self.marked(|| unsafe { (self.free)(memory.as_ptr().cast()) });
    }

    /// Has `in_allocator` say so while `call` calls one of the two functions, if they are not the system's.
    fn marked<R>(&self, call: impl FnOnce() -> R) -> R {
        if self.is_system() {
            return call();
        }
        if !ANY_FOREIGN.load(Ordering::Relaxed) {
            ANY_FOREIGN.store(true, Ordering::Relaxed); // this thread sees it, and it matters to no other
        }
        let before = IN_ALLOCATOR.replace(true);
        let result = call();
        IN_ALLOCATOR.set(before);
        result
    }
}
