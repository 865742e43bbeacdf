//! How errors and log lines look as text, and how text gets into the fixed arrays of `kv_error_t`.
//!
//! Used by `error` alone. Works on bytes: what C hands in need not be UTF-8.

use super::error_types::kv_error_s;
use crate::base::code::Code;
use libc::{c_char, c_int, time_t};
use std::io::Write;

/// `Error CODE (NAME) at FILE:LINE in FUNC: MESSAGE [TIME]`
pub fn error_line(error: &kv_error_s) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    // Writing to a Vec cannot fail.
    let _ = write!(line, "Error {} ({}) at ", error.code, Code(error.code).name());
    line.extend(text(&error.file));
    let _ = write!(line, ":{} in ", error.line);
    line.extend(text(&error.func));
    line.extend_from_slice(b": ");
    line.extend(text(&error.message));
    let _ = write!(line, " [{}]", time(error.timestamp));
    line
}

/// `[TIME] [LEVEL] [FILE:LINE] [FUNC] [T-ID] MESSAGE` and a newline.
pub fn log_line(level: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) -> Vec<u8> {
    const LEVELS: [&str; 5] = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let level = usize::try_from(level).ok().and_then(|level| LEVELS.get(level)).unwrap_or(&"UNKNOWN");
    let mut text = Vec::with_capacity(128 + message.len());
    let _ = write!(text, "[{}] [{level}] [", time(now()));
    text.extend_from_slice(file);
    let _ = write!(text, ":{line}] [");
    text.extend_from_slice(func);
    // SAFETY: takes nothing and cannot fail.
    let _ = write!(text, "] [T-{}] ", unsafe { libc::gettid() });
    text.extend_from_slice(message);
    text.push(b'\n');
    text
}

/// Seconds since 1970.
pub fn now() -> time_t {
    // SAFETY: a NULL argument is allowed.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// Local time as `2026-01-31 23:59:59`.
fn time(seconds: time_t) -> String {
    // SAFETY: plain numbers; all zeros is a value of this struct.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to live values of the right types.
    if unsafe { libc::localtime_r(&seconds, &mut parts) }.is_null() {
        return format!("@{seconds}"); // a year that does not fit into an int
    }
    let (year, month) = (i64::from(parts.tm_year) + 1900, parts.tm_mon + 1);
    format!("{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}", parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec)
}

/// Copies `from` into a C string of fixed size, cutting it (not inside a UTF-8 character) if it is too long.
pub fn fill<const N: usize>(to: &mut [c_char; N], from: &[u8]) {
    let mut length = from.len().min(N - 1);
    if length < from.len() {
        // 10xxxxxx continues a character, which has four bytes at the most: step back to where it began.
        let begins = |place: &usize| from[*place] & 0xc0 != 0x80;
        length = (length.saturating_sub(3)..=length).rev().find(begins).unwrap_or(length);
    }
    for (to, from) in to.iter_mut().zip(&from[..length]) {
        *to = *from as c_char;
    }
    to[length..].fill(0);
}

/// The bytes of a C string of fixed size; C may have left out the NUL.
fn text<const N: usize>(of: &[c_char; N]) -> impl Iterator<Item = u8> {
    of.iter().take_while(|c| **c != 0).map(|c| *c as u8)
}

#[cfg(test)]
mod tests {
    use super::{error_line, fill, log_line, text};
    use crate::ffi::error_types::kv_error_s;

    fn sample() -> kv_error_s {
        let mut error = kv_error_s { code: 27, message: [0; 256], func: [0; 64], file: [0; 128], line: 42, timestamp: 0 };
        fill(&mut error.message, b"no room");
        fill(&mut error.func, b"put");
        fill(&mut error.file, b"a.c");
        error
    }

    #[test]
    fn error_line_has_the_documented_form() {
        let line = String::from_utf8(error_line(&sample())).unwrap();
        let (front, time) = line.split_once('[').unwrap();
        assert_eq!(front, "Error 27 (KV_ERR_BATCH_FULL) at a.c:42 in put: no room ");
        assert_eq!(time.len(), "1970-01-01 00:00:00]".len());
    }

    #[test]
    fn a_time_out_of_range_is_told_as_a_number() {
        let mut error = sample();
        error.timestamp = i64::MAX;
        assert!(String::from_utf8(error_line(&error)).unwrap().ends_with("[@9223372036854775807]"));
    }

    #[test]
    fn log_line_has_the_documented_form() {
        let line = String::from_utf8(log_line(2, b"a.c", 7, b"f", b"disk slow")).unwrap();
        let (time, rest) = line.split_at("[1970-01-01 00:00:00] ".len());
        assert!(time.starts_with('[') && time.ends_with("] "));
        assert!(rest.starts_with("[WARN] [a.c:7] [f] [T-") && rest.ends_with("] disk slow\n"), "{rest}");
        assert!(String::from_utf8(log_line(9, b"", 0, b"", b"")).unwrap().contains("[UNKNOWN]"));
    }

    #[test]
    fn text_is_cut_between_characters() {
        let mut small = [0; 5];
        fill(&mut small, "aéé€".as_bytes()); // 1 + 2 + 2 + 3 bytes
        assert_eq!(text(&small).collect::<Vec<_>>(), "aé".as_bytes()[..3].to_vec());
        fill(&mut small, b"xy");
        assert_eq!(text(&small).collect::<Vec<_>>(), b"xy");
        assert_eq!(small[2..], [0; 3]);
    }

    #[test]
    fn a_missing_nul_ends_at_the_array() {
        let mut error = sample();
        error.func = [b'x' as _; 64];
        assert!(String::from_utf8(error_line(&error)).unwrap().contains(&format!("in {}: no room", "x".repeat(64))));
    }
}
