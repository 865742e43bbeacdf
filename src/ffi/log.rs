//! `kv_batch_ext.h`, the log: where lines go, those of the library and those of `kv_log`.
//!
//! A line has up to three destinations: what `kv_error_init` said (`error`), the callback that is set here, and what the
//! environment variable `KVBATCH_LOG` asks for (`log_environment`). Called by every part of the edge, in any thread, at times
//! with locks of the library held: so nothing here takes a lock, a callback cannot call the library, and lines that a callback
//! writes do not come back to it. Must never fail, or change `errno`.
#![allow(non_camel_case_types)] // the C names

use super::callback::without_unwinding;
use super::{error, fork, guard, log_environment};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::log;
use crate::batch::memory::without_calls;
use libc::{c_char, c_int, c_void};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Log level for kv_log_set_level(): no line at all.
pub const KV_LOG_OFF: c_int = 5;

/// Receives a line of the log.
///
/// @param level      KV_LOG_DEBUG to KV_LOG_FATAL.
/// @param file       the source file that wrote it; never NULL.
/// @param line       the line in that file.
/// @param func       the function, or the part of the library; never NULL.
/// @param message    what happened, where, and what to do about it; never NULL, no newline at its end.
/// @param user_data  as given to kv_log_set_callback().
///
/// The strings are the library's and valid until the callback returns. It may come from any thread, from several at a time, and
/// while the library is in the middle of its work: be short. It must not call the functions of managers, batches and rings (they
/// refuse with KV_ERR_INVALID_STATE), nor wait for a thread that is in kv_async_batch_wait(), in start, stop or destroy. The
/// functions of kv_error.h and of the log are allowed; lines that it writes itself go to the other destinations only.
pub type kv_log_callback_t = Option<
    unsafe extern "C" fn(
        level: c_int,
        file: *const c_char,
        line: c_int,
        func: *const c_char,
        message: *const c_char,
        user_data: *mut c_void,
    ),
>;

/// As above, but "C-unwind": what a C++ callback throws ends in `without_unwinding`.
type OnLine = unsafe extern "C-unwind" fn(c_int, *const c_char, c_int, *const c_char, *const c_char, *mut c_void);

/// Has every line of the log, the library's own and those of kv_log(), handed to a function of yours, beside where
/// kv_error_init() and KVBATCH_LOG say. Lines below the level of kv_log_set_level() are left out.
///
/// @param callback   the function; it takes the place of the one before. NULL: none any more.
/// @param user_data  for the callback; must stay valid until another one is set, or NULL.
/// @return KV_SUCCESS: no call of the callback before is running any more, nor will one come; inside a callback this does not
///         wait, so there calls that have begun may still be running. KV_ERR_BUSY: too many callbacks that were replaced from
///         inside are still running; KV_ERR_MEM. After a failure everything is as it was.
///
/// Threads: any, at any time; but not while holding a lock that the callback takes. Also in a child after fork(), where the
/// callback of the parent is in force.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_log_set_callback(callback: kv_log_callback_t, user_data: *mut c_void) -> c_int {
    guard::pure_code(c"kv_log_set_callback", || {
        fork::watch()?; // a child must not wait for calls in threads that it has not
        let next = match callback {
            None => NOBODY,
            Some(function) => {
                let at = free_target().ok_or_else(all_taken)?;
                TARGETS[at].function.store(function as *mut (), Ordering::Relaxed);
                TARGETS[at].user_data.store(user_data, Ordering::Relaxed);
                at
            }
        };
        let before = CURRENT.swap(next, Ordering::SeqCst);
        install();
        let Some(before) = TARGETS.get(before) else { return Ok(()) };
        if INSIDE.get() == NOBODY {
            before.wait_until_unused();
        }
        before.taken.store(false, Ordering::Release);
        Ok(())
    })
}

/// Leaves out lines below a level: for the callback, and for what kv_error_init() set up. The same number as
/// g_error_ctx.log_level; KV_LOG_INFO at the start. KVBATCH_LOG has a level of its own.
///
/// @param level  KV_LOG_DEBUG to KV_LOG_FATAL, or KV_LOG_OFF.
/// @return KV_SUCCESS; KV_ERR_INVALID_PARAM for any other number, and then nothing has changed.
///
/// Threads: any; also in a child after fork(), and inside a log callback.
#[unsafe(no_mangle)]
pub extern "C" fn kv_log_set_level(level: c_int) -> c_int {
    guard::pure_code(c"kv_log_set_level", || {
        if !(0..=KV_LOG_OFF).contains(&level) {
            let text = format!("{level} is no log level: pass KV_LOG_DEBUG (0) to KV_LOG_FATAL (4), or KV_LOG_OFF (5)");
            return Err(Error::new(Code::INVALID_PARAM, text));
        }
        error::log_level().store(level, Ordering::Relaxed);
        Ok(())
    })
}

/// The level below which lines are left out.
///
/// @return what kv_log_set_level() or kv_error_init() was given last.
///
/// Threads: any; also in a child after fork(), and inside a log callback.
#[unsafe(no_mangle)]
pub extern "C" fn kv_log_get_level() -> c_int {
    error::log_level().load(Ordering::Relaxed)
}

/// Lets the library's own lines reach the log. Any number of times.
pub(super) fn install() {
    log_environment::look();
    log::set_sink(|level, file, line, func, message| {
        write(level as c_int, file.as_bytes(), line as c_int, func.as_bytes(), message.as_bytes());
    });
}

/// Whether a line of this level would go anywhere.
pub(super) fn wanted(level: c_int) -> bool {
    error::log_wanted(level) || is_heard(level) || log_environment::wanted(level)
}

/// Hands a line to all who want it.
pub(super) fn write(level: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) {
    write_to_host(level, file, line, func, message);
    log_environment::write(level, file, line, func, message);
}

/// The same without `KVBATCH_LOG`.
pub(super) fn write_to_host(level: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) {
    error::log_line(level, file, line, func, message);
    if is_heard(level) {
        call(level, file, line, func, message);
    }
}

/// A callback and its calls. A line finds one without a lock: these places are never given back, and one that was replaced
/// is used anew only when nobody is in it.
struct Target {
    taken: AtomicBool,
    /// Calls that are running, and looks that are about to find out that another one is current.
    calls: AtomicU32,
    function: AtomicPtr<()>,
    user_data: AtomicPtr<c_void>,
}

/// More than one is in use only while callbacks replace themselves.
static TARGETS: [Target; 64] = [const {
    Target {
        taken: AtomicBool::new(false),
        calls: AtomicU32::new(0),
        function: AtomicPtr::new(ptr::null_mut()),
        user_data: AtomicPtr::new(ptr::null_mut()),
    }
}; 64];

/// Which one hears lines.
static CURRENT: AtomicUsize = AtomicUsize::new(NOBODY);

const NOBODY: usize = usize::MAX;

thread_local! {
    /// In which target's callback this thread is. No destructor: host threads may outlive the library's use.
    static INSIDE: Cell<usize> = const { Cell::new(NOBODY) };
}

impl Target {
    /// The current one, which stays what it is until `leave`; and its place.
    fn enter() -> Option<(usize, &'static Target)> {
        loop {
            let at = CURRENT.load(Ordering::SeqCst);
            let target = TARGETS.get(at)?;
            target.calls.fetch_add(1, Ordering::SeqCst);
            // Whoever replaces it looks at `calls` afterwards, so one of the two sees the other.
            if CURRENT.load(Ordering::SeqCst) == at {
                return Some((at, target));
            }
            target.leave();
        }
    }

    fn leave(&self) {
        self.calls.fetch_sub(1, Ordering::SeqCst);
    }

    fn wait_until_unused(&self) {
        let mut pause = Duration::from_micros(20);
        while self.calls.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }
}

/// Takes a target that nobody uses.
fn free_target() -> Option<usize> {
    TARGETS.iter().position(|target| {
        let mine = !target.taken.swap(true, Ordering::AcqRel);
        let unused = mine && target.calls.load(Ordering::SeqCst) == 0;
        if mine && !unused {
            target.taken.store(false, Ordering::Release);
        }
        unused
    })
}

fn all_taken() -> Error {
    let text = "too many log callbacks that were replaced from inside are still running: let them return, then set another";
    Error::new(Code::BUSY, text)
}

/// Whether the callback would be called.
fn is_heard(level: c_int) -> bool {
    CURRENT.load(Ordering::Relaxed) != NOBODY && level >= kv_log_get_level() && INSIDE.get() == NOBODY
}

fn call(level: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) {
    let Some((at, target)) = Target::enter() else { return };
    // One piece of memory: each text with a NUL behind it.
    let mut texts = Vec::with_capacity(file.len() + func.len() + message.len() + 3);
    let mut keep = |text: &[u8]| {
        let begin = texts.len();
        texts.extend(text.iter().copied().filter(|byte| *byte != 0));
        texts.push(0);
        begin
    };
    let [file, func, message] = [file, func, message].map(&mut keep);
    let (function, user_data) = (target.function.load(Ordering::Relaxed), target.user_data.load(Ordering::Relaxed));
    // SAFETY: stored by `kv_log_set_callback`, from a function of this type, before the target became current.
    let function = unsafe { std::mem::transmute::<*mut (), OnLine>(function) };
    let text = |begin: usize| texts[begin..].as_ptr().cast::<c_char>();
    INSIDE.set(at);
    without_calls(|| {
        // SAFETY: what the header promises: three C strings that live until the callback returns.
        without_unwinding(&mut || unsafe { function(level, text(file), line, text(func), text(message), user_data) });
    });
    INSIDE.set(NOBODY);
    target.leave();
}

/// In a child after fork: calls of other threads don't exist here. Async-signal-safe.
pub(super) fn after_fork_in_child() {
    for (at, target) in TARGETS.iter().enumerate() {
        target.calls.store(u32::from(INSIDE.get() == at), Ordering::Relaxed);
    }
}
