//! `kv_batch_ext.h`, the version: of the library that runs, and of the header that a program was compiled with.

use libc::{c_char, c_int};
use std::ffi::CStr;

/// The version of this header as a number that rises: 1000000 times the first part, 1000 times the second, and the third.
/// Compare it with kv_batch_version_number(), which is that of the library.
pub const KV_BATCH_VERSION_NUMBER: c_int = 1000000;

/// The version of the library that the program runs with.
///
/// @return a text such as "1.0.0"; never NULL, lives as long as the process.
///
/// Threads: any; also in a child after fork(), and inside a log callback.
#[unsafe(no_mangle)]
pub extern "C" fn kv_batch_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library that the program runs with, as a number.
///
/// @return 1000000 times the first part of the version, 1000 times the second, and the third: 1002003 for 1.2.3. A program that
///         was compiled with an older header of the same first part works with this library.
///
/// Threads: any; also in a child after fork(), and inside a log callback.
#[unsafe(no_mangle)]
pub extern "C" fn kv_batch_version_number() -> c_int {
    KV_BATCH_VERSION_NUMBER
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => c"",
};

/// The number that stands in `text`.
const fn number(text: &str) -> c_int {
    let (bytes, mut at, mut value) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        value = value * 10 + (bytes[at] - b'0') as c_int;
        at += 1;
    }
    value
}

// cbindgen reads literals only: one that is out of date does not compile.
const _: () = assert!(
    KV_BATCH_VERSION_NUMBER
        == 1_000_000 * number(env!("CARGO_PKG_VERSION_MAJOR"))
            + 1000 * number(env!("CARGO_PKG_VERSION_MINOR"))
            + number(env!("CARGO_PKG_VERSION_PATCH"))
);
