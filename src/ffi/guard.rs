//! One guard around every export: a panic ends here, `errno` is the caller's again afterwards, a forked child is turned
//! away, and a failing call leaves its error behind. `guard` is a set of functions, not macros: no hidden `return`.

use super::error;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::batch;
use libc::c_int;
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr;

/// An export that returns a code.
#[inline(always)]
#[track_caller]
pub fn code(func: &'static CStr, body: impl FnOnce() -> Result<()>) -> c_int {
    match run(|| allowed().and_then(|()| body())) {
        Ok(()) => Code::NONE.0,
        Err(error) => fail(func, &error),
    }
}

/// An export that returns a handle: NULL if it fails.
#[track_caller]
pub fn handle<T>(func: &'static CStr, body: impl FnOnce() -> Result<*mut T>) -> *mut T {
    value(func, ptr::null_mut(), body)
}

/// An export that looks at nothing but its arguments and returns a code: works in a forked child, too.
#[track_caller]
pub fn pure_code(func: &'static CStr, body: impl FnOnce() -> Result<()>) -> c_int {
    match run(body) {
        Ok(()) => Code::NONE.0,
        Err(error) => fail(func, &error),
    }
}

/// An export that returns something else; `on_failure` stands for it when there is an error.
#[track_caller]
pub fn value<R>(func: &'static CStr, on_failure: R, body: impl FnOnce() -> Result<R>) -> R {
    match run(|| allowed().and_then(|()| body())) {
        Ok(value) => value,
        Err(error) => {
            fail(func, &error);
            on_failure
        }
    }
}

/// An export that gives something back: returns nothing, and does its part of the work in a forked child, too.
#[track_caller]
pub fn nothing(func: &'static CStr, body: impl FnOnce()) {
    if let Err(error) = run(|| outside_functions().map(|()| body())) {
        fail(func, &error);
    }
}

/// An export that cannot fail; `on_panic` stands for its result if it does all the same.
pub fn pure<R>(on_panic: R, body: impl FnOnce() -> R) -> R {
    run(|| Ok(body())).unwrap_or(on_panic)
}

/// Whether this process is the child of one that had started a manager.
#[inline(always)]
pub fn in_forked_child() -> bool {
    batch::fork::is_forked_child()
}

/// Not in a forked child, and not from inside the caller's allocator or log callback.
#[inline(always)]
fn allowed() -> Result<()> {
    if in_forked_child() {
        return Err(forked());
    }
    outside_functions()
}

/// The library calls `alloc_func`, `free_func` and log callbacks in the middle of its work, locks held.
#[inline(always)]
fn outside_functions() -> Result<()> {
    if batch::memory::calls_are_refused() { Err(inside_function()) } else { Ok(()) }
}

#[cold]
fn inside_function() -> Error {
    let text = "alloc_func, free_func and log callbacks must not call the library: let them do nothing but what they are for";
    Error::new(Code::INVALID_STATE, text)
}

#[cold]
fn forked() -> Error {
    Error::new(
        Code::INVALID_STATE,
        "this process was forked from one that had started a manager or a ring, and neither threads nor files came along: \
         use the library in the parent, or in the child after exec",
    )
}

#[inline(always)]
fn run<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    let errno = Errno::keep();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(panicked()));
    errno.give_back();
    result
}

#[cold]
fn panicked() -> Error {
    // The hook (see `quiet_panics`) has logged what it was.
    Error::new(Code::UNKNOWN, "a fault inside the library: please report it together with the log (kv_error_init or KVBATCH_LOG)")
}

/// Records why a call failed.
#[cold]
#[inline(never)]
#[track_caller]
fn fail(func: &'static CStr, failure: &Error) -> c_int {
    let place = Location::caller();
    let errno = Errno::keep();
    error::set(failure.code, place.file(), place.line(), func, &failure.message);
    errno.give_back();
    failure.code.0
}

/// `errno` as it was: ours to keep while a call of the library, or a callback of the program, is at work.
pub struct Errno {
    place: *mut c_int,
    value: c_int,
}

impl Errno {
    /// Remembers it.
    #[inline(always)]
    pub fn keep() -> Self {
        // SAFETY: always gives the address of the calling thread's errno.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: valid for as long as the thread lives; a plain number.
        Errno { place, value: unsafe { *place } }
    }

    /// Restores it. To be called by the thread that called `keep`: `Errno` is not `Send`.
    #[inline(always)]
    pub fn give_back(self) {
        // SAFETY: as in `keep`, and still the same thread.
        unsafe { *self.place = self.value }
    }
}

/// Sends reports of panics to the log, where the standard library would write to stderr: that belongs to the host
/// program. The hook is that of our own copy of the standard library; only our own tests, which are Rust, keep theirs.
pub fn quiet_panics() {
    #[cfg(not(test))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|report| {
                let text = report.payload_as_str().unwrap_or("no message");
                let (file, line) = report.location().map_or(("?", 0), |place| (place.file(), place.line()));
                let level = crate::base::log::Level::Fatal as c_int;
                super::log::write(level, file.as_bytes(), line as c_int, b"panic", text.as_bytes());
            }));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> (c_int, String) {
        // SAFETY: the pointer is always valid in its own thread.
        let last = unsafe { &*error::kv_get_last_error() };
        (last.code, last.message.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect())
    }

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(code(c"kv_test", || panic!("on purpose")), Code::UNKNOWN.0);
        assert_eq!(last().0, Code::UNKNOWN.0);
        assert!(handle::<u8>(c"kv_test", || panic!("on purpose")).is_null());
        assert_eq!(value(c"kv_test", 4, || panic!("on purpose")), 4);
        assert_eq!(pure(7, || panic!("on purpose")), 7);
    }

    #[test]
    fn an_error_is_left_behind_and_a_success_leaves_it_alone() {
        assert_eq!(code(c"kv_test", || Err(Error::new(Code::BUSY, "wait a little"))), Code::BUSY.0);
        assert_eq!(code(c"kv_test", || Ok(())), 0);
        assert_eq!(last(), (Code::BUSY.0, "wait a little".to_owned()));
    }

    #[test]
    fn errno_is_the_callers() {
        // SAFETY: the thread's own errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *errno = 77 };
        // SAFETY: as above.
        code(c"kv_test", || unsafe {
            *errno = 5;
            Err(Error::new(Code::IO, "x"))
        });
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, 77);
    }
}
