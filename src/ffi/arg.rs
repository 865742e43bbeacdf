//! Arguments from C: NULL told apart, lengths checked before anything is touched, pointers turned into slices and values.
//! The only place that does so.
//!
//! **What a valid pointer is**, here and in every export: where the header does not allow NULL (NULL is then refused with
//! a code), it points to a value of its type, or to as many bytes as the length beside it says, that can be read (and
//! written, if the pointer is not const) until the call returns, and that no other thread writes meanwhile. Alignment
//! does not matter. Handles are not pointers and never followed (see `handle`).

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::limits::{KEY_LEN_MAX, VALUE_LEN_MAX};
use libc::c_char;
use std::ffi::CStr;

/// Refuses NULL.
#[inline(always)]
pub fn required<T>(ptr: *const T, name: &'static str) -> Result<()> {
    if ptr.is_null() { Err(null(name)) } else { Ok(()) }
}

/// The error for a NULL argument.
#[cold]
fn null(name: &'static str) -> Error {
    Error::new(Code::NULL_POINTER, format!("{name} is NULL: pass the address of one"))
}

/// A copy of the struct that `ptr` points to.
///
/// # Safety
/// `ptr` is NULL or valid (see above).
pub unsafe fn read<T: Copy>(ptr: *const T, name: &'static str) -> Result<T> {
    // SAFETY: by the caller's promise.
    unsafe { read_optional(ptr) }.ok_or_else(|| null(name))
}

/// A copy of the struct that `ptr` points to; `None` for NULL.
///
/// # Safety
/// `ptr` is NULL or valid (see above).
pub unsafe fn read_optional<T: Copy>(ptr: *const T) -> Option<T> {
    // SAFETY: not NULL, so valid by the caller's promise. All types of the header are plain data for any bits.
    (!ptr.is_null()).then(|| unsafe { ptr.read_unaligned() })
}

/// Writes a struct to where `ptr` points.
///
/// # Safety
/// `ptr` is NULL or valid (see above).
pub unsafe fn write<T: Copy>(ptr: *mut T, value: T, name: &'static str) -> Result<()> {
    required(ptr, name)?;
    // SAFETY: not NULL, so valid by the caller's promise.
    unsafe { ptr.write_unaligned(value) };
    Ok(())
}

/// A C string; `None` for NULL.
///
/// # Safety
/// `ptr` is NULL or points to bytes that end with a NUL, as above; the result does not outlive the call.
pub unsafe fn text<'a>(ptr: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not NULL, so valid by the caller's promise.
    (!ptr.is_null()).then(|| unsafe { CStr::from_ptr(ptr) })
}

/// What a variable of the environment says; `None` if it is unset or empty. In a program that runs with more rights than its
/// caller has, the caller's environment has no say.
pub fn environment(name: &CStr) -> Option<Vec<u8>> {
    // SAFETY: libc's, with this signature.
    unsafe extern "C" {
        fn secure_getenv(name: *const c_char) -> *mut c_char;
    }
    // SAFETY: a C string goes in; NULL or a C string comes out, copied before anybody can change the environment again.
    let value = unsafe { text(secure_getenv(name.as_ptr())).map(|value| value.to_bytes().to_vec()) };
    value.filter(|value| !value.is_empty())
}

/// The bytes of a key.
///
/// # Safety
/// `ptr` is NULL or valid for `len` bytes (see above); the result does not outlive the call.
#[inline(always)]
pub unsafe fn key<'a>(ptr: *const c_char, len: usize) -> Result<&'a [u8]> {
    if ptr.is_null() || len == 0 {
        return Err(no_key(ptr.is_null()));
    }
    if len > KEY_LEN_MAX {
        return Err(key_too_long(len));
    }
    // SAFETY: not NULL; valid for `len` bytes by the caller's promise; far below `isize::MAX`.
    Ok(unsafe { std::slice::from_raw_parts(ptr.cast(), len) })
}

/// The bytes of a value. Empty is a value, NULL is none.
///
/// # Safety
/// `ptr` is NULL or valid for `len` bytes (see above); the result does not outlive the call.
#[inline(always)]
pub unsafe fn value<'a>(ptr: *const c_char, len: usize) -> Result<&'a [u8]> {
    if ptr.is_null() {
        return Err(no_value());
    }
    if len > VALUE_LEN_MAX {
        return Err(value_too_long(len));
    }
    // SAFETY: as in `key`.
    Ok(unsafe { std::slice::from_raw_parts(ptr.cast(), len) })
}

#[cold]
fn no_key(null: bool) -> Error {
    Error::new(
        Code::NULL_POINTER,
        if null {
            "key is NULL: pass the key's bytes"
        } else {
            "key_len is 0: a key has at least one byte (pass its length, strlen(key) for a string)"
        },
    )
}

#[cold]
fn no_value() -> Error {
    Error::new(Code::NULL_POINTER, "value is NULL: pass the value's bytes (\"\" with length 0 for an empty value)")
}

#[cold]
fn key_too_long(len: usize) -> Error {
    Error::new(
        Code::KEY_TOO_LONG,
        format!("a key of {len} bytes: keys have at most {KEY_LEN_MAX} bytes; use a hash of it, or put the rest into the value"),
    )
}

#[cold]
fn value_too_long(len: usize) -> Error {
    Error::new(
        Code::INVALID_PARAM,
        format!("a value of {len} bytes: values have at most {VALUE_LEN_MAX} bytes; store it in pieces under several keys"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    #[test]
    fn lengths_are_checked_before_anything_is_read() {
        let byte = b"x".as_ptr().cast::<c_char>();
        // SAFETY: never read: each call is refused for its arguments alone.
        unsafe {
            assert_eq!(key(ptr::null(), 3).unwrap_err().code, Code::NULL_POINTER);
            assert_eq!(key(byte, 0).unwrap_err().code, Code::NULL_POINTER);
            assert_eq!(key(byte, usize::MAX).unwrap_err().code, Code::KEY_TOO_LONG);
            assert_eq!(key(byte, KEY_LEN_MAX + 1).unwrap_err().code, Code::KEY_TOO_LONG);
            assert_eq!(value(ptr::null(), 0).unwrap_err().code, Code::NULL_POINTER);
            assert_eq!(value(byte, usize::MAX).unwrap_err().code, Code::INVALID_PARAM);
        }
        // SAFETY: one readable byte.
        unsafe {
            assert_eq!(key(byte, 1).unwrap(), b"x");
            assert_eq!(value(byte, 1).unwrap(), b"x");
            assert_eq!(value(byte, 0).unwrap(), b"");
        }
    }

    #[test]
    fn structs_need_no_alignment() {
        let mut bytes = [0_u8; 12];
        let odd = bytes[1..].as_mut_ptr().cast::<u64>();
        // SAFETY: eight bytes of the array, whatever their alignment.
        unsafe {
            write(odd, 0x0102_0304_0506_0708, "n").unwrap();
            assert_eq!(read(odd, "n").unwrap(), 0x0102_0304_0506_0708);
            assert_eq!(read_optional::<u64>(ptr::null()), None);
            assert_eq!(write(ptr::null_mut(), 1_u64, "n").unwrap_err().code, Code::NULL_POINTER);
        }
    }
}
