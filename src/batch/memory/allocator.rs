//! The caller's `alloc_func` and `free_func`, and whether a thread is inside one of them.
//!
//! Called by the arrays, arenas and slabs of this room; the edge asks `calls_are_refused`. Must never call one of the two without
//! marking the thread, unless they are the system's.

use super::kept::KEPT;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::mapping::{LARGE_PAGE_BYTES, Mapping};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// Everything starts at a multiple of this, in bytes. `malloc` gives more; many a pool gives no more than this.
pub(super) const ALIGN: usize = 8;

/// So many bytes at a time come from the kernel, not from `malloc`: in large pages, which are had for a third of what small ones
/// cost. Adding to a large batch was mostly waiting for small ones.
const MAPPED_BYTES_MIN: usize = LARGE_PAGE_BYTES;

thread_local! {
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Some thread was ever inside such a function: before that nobody needs to look whether it is.
static EVER_REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether this thread is inside a function of the caller that is called in the middle of the library's work (`alloc_func`,
/// `free_func`, a log callback): a call of the library from there could meet its own lock, so the edge refuses it.
#[inline]
pub fn calls_are_refused() -> bool {
    EVER_REFUSED.load(Ordering::Relaxed) && is_refused_here()
}

/// Apart: in a shared library it takes a call to find a thread's own, which the compiler would make before it is needed.
#[cold]
#[inline(never)]
fn is_refused_here() -> bool {
    REFUSED.get()
}

/// Calls such a function.
pub fn without_calls<R>(function: impl FnOnce() -> R) -> R {
    if !EVER_REFUSED.load(Ordering::Relaxed) {
        EVER_REFUSED.store(true, Ordering::Relaxed); // this thread sees it, and it matters to no other
    }
    let before = REFUSED.replace(true);
    let result = function();
    REFUSED.set(before);
    result
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

    /// `len` bytes, at an address that is a multiple of `ALIGN`. The first `unsure` of them will perhaps be all that is used.
    pub(super) fn take(&self, len: usize, unsure: usize, none: impl FnOnce() -> Error) -> Result<NonNull<u8>> {
        if len >= MAPPED_BYTES_MIN && self.is_system() {
            let len = mapped_len(len);
            if let Some(kept) = KEPT.take(len) {
                return Ok(kept.into_start());
            }
            let mut mapping = Mapping::new(len).ok_or_else(none)?;
            mapping.prefer_large_pages(unsure.next_multiple_of(LARGE_PAGE_BYTES));
            return Ok(mapping.into_start());
        }
        // SAFETY: the configuration's contract: `alloc_func` behaves like `malloc`.
        let memory = self.marked(|| unsafe { (self.alloc)(len) });
        let memory = NonNull::new(memory.cast::<u8>()).ok_or_else(none)?;
        if memory.addr().get().is_multiple_of(ALIGN) {
            return Ok(memory);
        }
        self.give_back(memory, len);
        Err(misaligned())
    }

    /// Takes back what `take` gave for `len`.
    pub(super) fn give_back(&self, memory: NonNull<u8>, len: usize) {
        if len >= MAPPED_BYTES_MIN && self.is_system() {
            // SAFETY: `take` had it from a mapping of this length; it is given back once, by the last who has it.
            KEPT.give(unsafe { Mapping::from_start(memory, mapped_len(len)) });
            return;
        }
        // SAFETY: `memory` came from `take` of the same allocator and is given back once.
        self.marked(|| unsafe { (self.free)(memory.as_ptr().cast()) });
    }

    /// `call` calls one of the two functions. The system's call nobody.
    fn marked<R>(&self, call: impl FnOnce() -> R) -> R {
        if self.is_system() { call() } else { without_calls(call) }
    }
}

/// What is mapped for `len` bytes: one length for many, so that those of one batch do for the next.
fn mapped_len(len: usize) -> usize {
    len.checked_next_multiple_of(LARGE_PAGE_BYTES).unwrap_or(len)
}

/// Gives the memory that is kept for batches to come back to the kernel: some manager has ended.
pub fn let_go_of_kept() {
    KEPT.let_go();
}

#[cold]
fn misaligned() -> Error {
    Error::new(Code::INVALID_PARAM, "alloc_func gave memory that is not aligned: let it return multiples of 16, as malloc does")
}
