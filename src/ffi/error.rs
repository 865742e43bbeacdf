//! `kv_error.h`: the last error of each thread, the log, names and texts of codes.
//!
//! Called by C, by `guard` for every failing call, and by `log` for each line. Must never fail, wait for another thread, or change `errno`;
//! outputs only where the program asked for it with `kv_error_init`. Formatting of times and lines is in `error_text`.

use super::error_types::{KV_ERR_FILE, KV_SUCCESS, kv_error_ctx_t, kv_error_s, kv_error_t};
use super::{arg, error_text, guard, log};
use crate::base::code::Code;
use crate::base::log::Level;
use libc::{FILE, c_char, c_int};
use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// What the functions of this header share. Programs read last_error and may set log_level and log_to_stdout.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)] // the C name
pub static mut g_error_ctx: kv_error_ctx_t =
    kv_error_ctx_t { last_error: NO_ERROR, log_level: Level::Info as c_int, log_file: ptr::null_mut(), log_to_stdout: 0 };

/// Says where log lines go, and forgets the last error. Until this is called nothing is output at all.
///
/// @param level      lines below this level are left out: KV_LOG_DEBUG to KV_LOG_FATAL; more than that silences all.
/// @param log_file   file to append lines to, made if missing; NULL or "": none. Read during the call only.
/// @param to_stdout  not 0: lines go to stdout, too.
/// @return KV_SUCCESS; KV_ERR_FILE if the file cannot be opened, and then nothing has changed.
///
/// Threads: any. May be called again; the file that was opened before is closed.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_error_init(level: c_int, log_file: *const c_char, to_stdout: c_int) -> c_int {
    guard::pure(KV_ERR_FILE, || {
        // SAFETY: the caller's promise (see `arg`).
        let path = unsafe { arg::text(log_file) }.filter(|path| !path.is_empty());
        let file = match path {
            None => ptr::null_mut(),
            // SAFETY: both strings end with a NUL; "e" keeps the file out of programs that this one starts.
            Some(path) => match unsafe { libc::fopen(path.as_ptr(), c"ae".as_ptr()) } {
                file if file.is_null() => {
                    let cause = std::io::Error::last_os_error();
                    let path = path.to_string_lossy();
                    let message = format!("log file {path} cannot be opened: {cause}; name a file in a directory that can be written");
                    set(Code::FILE, file!(), line!(), c"kv_error_init", &message);
                    return KV_ERR_FILE;
                }
                file => file,
            },
        };
        log::install();
        log_level().store(level, Ordering::Relaxed);
        Shared::to_stdout().store(to_stdout, Ordering::Relaxed);
        Shared::file().store(file, Ordering::SeqCst);
        close_when_unused(OPENED_HERE.swap(file, Ordering::SeqCst));
        forget();
        KV_SUCCESS
    })
}

/// The last error of the calling thread.
///
/// @return never NULL; code is 0 if there was none. Belongs to the library; valid until the thread ends, and overwritten by
///         the next call of this thread that fails. Successful calls leave it alone.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_get_last_error() -> *const kv_error_t {
    LAST.with(|last| last.get().cast_const())
}

/// Forgets the last error of the calling thread, and its mirror in g_error_ctx.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_clear_error() {
    guard::pure((), forget);
}

/// The name of a code.
///
/// @param code  a number, such as 27.
/// @return "KV_ERR_BATCH_FULL" and so on, "KV_ERR_NONE" for 0, "UNKNOWN_ERROR" for a number that is no code; never NULL,
///         lives as long as the process.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_get_error_name(code: c_int) -> *const c_char {
    Code(code).c_name().as_ptr()
}

/// What a code means, in a few words of English.
///
/// @param code  a number, such as 27.
/// @return the text, "Unknown error" for a number that is no code; never NULL, lives as long as the process.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_get_error_desc(code: c_int) -> *const c_char {
    Code(code).c_description().as_ptr()
}

/// Writes an error as one line: "Error CODE (NAME) at FILE:LINE in FUNC: MESSAGE [TIME]".
///
/// @param error  what to write; the caller's or kv_get_last_error(). NULL: the line is empty.
/// @param buf    where to; always ends with a NUL. NULL: nothing happens.
/// @param n      size of buf, in bytes. 0: nothing happens. What does not fit is cut.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_format_error(error: *const kv_error_t, buf: *mut c_char, n: usize) {
    guard::pure((), || {
        if buf.is_null() || n == 0 {
            return;
        }
        // SAFETY: the caller's promise (see `arg`).
        let line = unsafe { arg::read_optional(error) }.map(|error| error_text::error_line(&error)).unwrap_or_default();
        let length = line.len().min(n - 1);
        // SAFETY: `buf` has room for `n` bytes by the caller's promise; `length + 1 <= n`; our line is no part of it.
        unsafe {
            ptr::copy_nonoverlapping(line.as_ptr().cast(), buf, length);
            buf.add(length).write(0);
        }
    });
}

/// Writes an error to stderr, as kv_format_error() does, and a newline.
///
/// @param error  what to write; the caller's or kv_get_last_error(). NULL: nothing happens.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_print_error(error: *const kv_error_t) {
    guard::pure((), || {
        // SAFETY: the caller's promise (see `arg`).
        if let Some(error) = unsafe { arg::read_optional(error) } {
            let mut line = error_text::error_line(&error);
            line.push(b'\n');
            // SAFETY: libc's stderr is an open stream for as long as the process lives.
            unsafe { output(stderr, &line) };
        }
    });
}

const NO_ERROR: kv_error_s = kv_error_s { code: 0, message: [0; 256], func: [0; 64], file: [0; 128], line: 0, timestamp: 0 };

thread_local! {
    // Made of plain numbers, so that no destructor is registered with threads of the host program: that would crash
    // them if the library were unloaded.
    static LAST: UnsafeCell<kv_error_s> = const { UnsafeCell::new(NO_ERROR) };
}
const _: () = assert!(!std::mem::needs_drop::<UnsafeCell<kv_error_s>>());

// SAFETY: libc's, set up before any of our code runs.
unsafe extern "C" {
    static stdout: *mut FILE;
    static stderr: *mut FILE;
}

/// Sets the last error of this thread.
pub(super) fn set(code: Code, file: &str, line: u32, func: &CStr, message: &str) {
    record(code.0, file.as_bytes(), line as c_int, func.to_bytes(), message.as_bytes());
}

/// As [`set`], for what C hands in.
pub(super) fn record(code: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) {
    let mut error = NO_ERROR;
    error.code = code;
    error.line = line;
    error_text::fill(&mut error.message, message);
    error_text::fill(&mut error.func, func);
    error_text::fill(&mut error.file, file);
    error.timestamp = error_text::now();
    replace(&error);
}

fn forget() {
    replace(&NO_ERROR);
}

fn replace(error: &kv_error_s) {
    // SAFETY: only this thread gets at its cell, and nobody keeps a reference into it: C has a pointer, and reads it
    // between calls.
    LAST.with(|last| unsafe { last.get().write(*error) });
    // Whoever is writing the mirror at this moment overlaps with us, so it may count as the later one: no need to wait,
    // and a child whose parent was writing as it forked cannot hang here.
    if !MIRROR_BUSY.swap(true, Ordering::Acquire) {
        // SAFETY: a C struct in static memory, written by one thread at a time because of MIRROR_BUSY; programs that
        // read it meanwhile are told that it may change under them.
        unsafe { (&raw mut g_error_ctx.last_error).write(*error) };
        MIRROR_BUSY.store(false, Ordering::Release);
    }
}

static MIRROR_BUSY: AtomicBool = AtomicBool::new(false);

/// The fields of `g_error_ctx` that C may set at any time.
struct Shared;

impl Shared {
    fn to_stdout() -> &'static AtomicI32 {
        // SAFETY: static, aligned, and a plain int on the other side.
        unsafe { AtomicI32::from_ptr(&raw mut g_error_ctx.log_to_stdout) }
    }

    fn file() -> &'static AtomicPtr<FILE> {
        // SAFETY: as above, a plain pointer on the other side.
        unsafe { AtomicPtr::from_ptr(&raw mut g_error_ctx.log_file) }
    }
}

/// Lines below this level are left out, here and by the callback of `log`.
pub(super) fn log_level() -> &'static AtomicI32 {
    // SAFETY: static, aligned, and a plain int on the other side.
    unsafe { AtomicI32::from_ptr(&raw mut g_error_ctx.log_level) }
}

/// The log file that `kv_error_init` opened (programs may put a stream of their own into `g_error_ctx`).
static OPENED_HERE: AtomicPtr<FILE> = AtomicPtr::new(ptr::null_mut());

/// Threads that are writing a log line now.
static WRITERS: AtomicU32 = AtomicU32::new(0);

/// Closes a log file that no longer is the current one, as soon as nobody writes to it.
fn close_when_unused(file: *mut FILE) {
    if file.is_null() {
        return;
    }
    for _ in 0..1000 {
        if WRITERS.load(Ordering::SeqCst) == 0 {
            // SAFETY: opened by `kv_error_init`, taken out of both places that knew it, and nobody writes now.
            unsafe { libc::fclose(file) };
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // Somebody is stuck in a write to it: one stream is lost, rather than pulled away under a thread.
}

/// Whether `log_line` would write a line of this level.
pub(super) fn log_wanted(line_level: c_int) -> bool {
    line_level >= log_level().load(Ordering::Relaxed)
        && (Shared::to_stdout().load(Ordering::Relaxed) != 0 || !Shared::file().load(Ordering::Relaxed).is_null())
}

/// Writes a log line to where `kv_error_init` said.
pub(super) fn log_line(level: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) {
    if !log_wanted(level) {
        return;
    }
    let text = error_text::log_line(level, file, line, func, message);
    WRITERS.fetch_add(1, Ordering::SeqCst);
    let log_file = Shared::file().load(Ordering::SeqCst);
    if !log_file.is_null() {
        // SAFETY: open: `close_when_unused` waits for WRITERS, and a program's own stream is the program's to keep.
        unsafe { output(log_file, &text) };
    }
    if Shared::to_stdout().load(Ordering::Relaxed) != 0 {
        // SAFETY: libc's stdout is an open stream for as long as the process lives.
        unsafe { output(stdout, &text) };
    }
    WRITERS.fetch_sub(1, Ordering::SeqCst);
}

/// Writes `text` to a stream in one piece and flushes it. Returns whether that worked.
///
/// # Safety
/// `stream` is open, or NULL for stdout.
pub(super) unsafe fn output(stream: *mut FILE, text: &[u8]) -> bool {
    // SAFETY: by the caller's promise; the text is readable for its length.
    unsafe {
        let stream = if stream.is_null() { stdout } else { stream };
        libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream) == text.len() && libc::fflush(stream) == 0
    }
}

/// In a child after fork: threads that were at it in the parent don't exist here. Async-signal-safe.
pub(super) fn after_fork_in_child() {
    MIRROR_BUSY.store(false, Ordering::Relaxed);
    WRITERS.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    fn last() -> kv_error_s {
        // SAFETY: always valid in its own thread.
        unsafe { *kv_get_last_error() }
    }

    fn init(level: c_int, path: &std::path::Path) -> c_int {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string.
        unsafe { kv_error_init(level, path.as_ptr(), 0) }
    }

    #[test]
    fn each_thread_has_its_own() {
        kv_clear_error();
        std::thread::spawn(|| {
            set(Code::BUSY, "a.rs", 7, c"f", "there");
            assert_eq!((last().code, last().line), (Code::BUSY.0, 7));
        })
        .join()
        .unwrap();
        assert_eq!(last().code, 0);
        set(Code::LOCK, "a.rs", 7, c"f", "here");
        assert!(last().timestamp > 0);
        kv_clear_error();
        assert_eq!((last().code, last().message[0]), (0, 0));
    }

    #[test]
    fn lines_go_where_they_were_sent_and_nowhere_before() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        let log = |level, message: &str| log_line(level, b"a.c", 1, b"f", message.as_bytes());
        log(4, "too early");
        assert_eq!(init(2, &first), KV_SUCCESS);
        log(1, "left out");
        log(2, "one");
        crate::base::log::write(Level::Error, "f", "of the library");
        assert_eq!(init(0, &second), KV_SUCCESS);
        log(0, "two");
        let nowhere = dir.path().join("missing/file");
        assert_eq!(init(0, &nowhere), KV_ERR_FILE);
        assert_eq!(last().code, Code::FILE.0);
        log(0, "still the second");
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { kv_error_init(0, ptr::null(), 0) }, KV_SUCCESS);
        log(4, "nowhere again");
        // Other tests of this process may log meanwhile.
        let ours = |line: &&str| line.contains("[a.c:1]") || line.ends_with("of the library");
        let message = |line: &str| line.rsplit("] ").next().unwrap().to_owned();
        let lines = |path| std::fs::read_to_string(path).unwrap().lines().filter(ours).map(message).collect::<Vec<_>>();
        assert_eq!(lines(first), ["one", "of the library"]);
        assert_eq!(lines(second), ["two", "still the second"]);
        assert!(OPENED_HERE.load(Ordering::Relaxed).is_null());
    }

    #[test]
    fn formatting_keeps_to_the_buffer() {
        let mut error = NO_ERROR;
        error.code = 27;
        let mut buffer = [b'x' as c_char; 20];
        // SAFETY: ten bytes of twenty; then NULL and nothing.
        unsafe {
            kv_format_error(&error, buffer.as_mut_ptr(), 10);
            kv_format_error(&error, ptr::null_mut(), 10);
            kv_format_error(&error, buffer.as_mut_ptr().add(15), 0);
        }
        assert_eq!(buffer[..10].iter().map(|c| *c as u8).collect::<Vec<_>>(), b"Error 27 \0");
        assert_eq!(buffer[10..], [b'x' as c_char; 10]);
        // SAFETY: one byte.
        unsafe { kv_format_error(ptr::null(), buffer.as_mut_ptr(), 1) };
        assert_eq!(buffer[0], 0);
    }

    #[test]
    fn names_and_texts_are_those_of_the_table() {
        // SAFETY: never NULL, static.
        let text = |text| unsafe { CStr::from_ptr(text) }.to_str().unwrap();
        assert_eq!((text(kv_get_error_name(0)), text(kv_get_error_name(27))), ("KV_ERR_NONE", "KV_ERR_BATCH_FULL"));
        assert_eq!((text(kv_get_error_name(-1)), text(kv_get_error_desc(99))), ("UNKNOWN_ERROR", "Unknown error"));
    }
}
