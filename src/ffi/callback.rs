//! Calling C: operation and completion callbacks, and the out-pointers of GETs.
//!
//! The batch layer calls this through its trait `Edge`, with no lock held, exactly once per callback; it carries C's
//! pointers as numbers and never looks into them.

use super::guard::{Errno, in_forked_child};
use super::types::{kv_async_batch_context_t, kv_async_batch_operation_s};
use crate::batch::{CompleteHook, Edge, Hook, OpKind, OpView};
use libc::{c_char, c_int, c_void, size_t};
use std::ptr;

/// The C side, as the batch layer sees it.
pub static EDGE: CEdge = CEdge;

/// See [`EDGE`].
pub struct CEdge;

// As the header's types, but "C-unwind": what a C++ callback throws must not be undefined behaviour. It ends, with a
// message, in `without_unwinding`.
type OnOperation = unsafe extern "C-unwind" fn(*mut kv_async_batch_operation_s, c_int, *mut c_void);
type OnBatch = unsafe extern "C-unwind" fn(*mut kv_async_batch_context_t, size_t, size_t, *mut c_void);

impl Edge for CEdge {
    fn op_done(&self, op: &OpView<'_>) {
        let user_data = ptr::with_exposed_provenance_mut(op.hook.user_data);
        let (value, value_len) = op.value.map_or((ptr::null_mut(), 0), |value| (chars(value), value.len()));
        let mut operation = kv_async_batch_operation_s {
            op_type: op.kind as c_int,
            key: chars(op.key),
            key_len: op.key.len(),
            value,
            value_len,
            result_code: op.code.0,
            user_data,
        };
        // SAFETY: put into the hook by `batch::hook`, from a function of this type; not 0, or we would not be called.
        let callback = unsafe { std::mem::transmute::<usize, OnOperation>(op.hook.callback) };
        // SAFETY: what the header promises: everything in `operation` lives until the callback returns.
        without_unwinding(&mut || unsafe { callback(&mut operation, op.code.0, user_data) });
    }

    fn batch_done(&self, edge_tag: usize, completed: usize, failed: usize, hook: CompleteHook) {
        let ctx = ptr::without_provenance_mut(edge_tag);
        let user_data = ptr::with_exposed_provenance_mut(hook.user_data);
        // SAFETY: put into the hook by `kv_async_batch_submit`, from a function of this type; not 0.
        let callback = unsafe { std::mem::transmute::<usize, OnBatch>(hook.callback) };
        // SAFETY: what the header promises; `ctx` is a token that the callback may use or not.
        without_unwinding(&mut || unsafe { callback(ctx, completed, failed, user_data) });
    }

    fn write_out(&self, hook: &Hook, value: Option<&[u8]>) {
        let (place, length) =
            (ptr::with_exposed_provenance_mut::<*mut c_char>(hook.out_value), ptr::with_exposed_provenance_mut::<size_t>(hook.out_len));
        let (value, value_len) = value.map_or((ptr::null_mut(), 0), |value| (chars(value), value.len()));
        // SAFETY: given to `kv_async_batch_get` by the caller, who keeps them valid for the wait in which we are now;
        // NULL is left alone. Unaligned, because nobody checked.
        unsafe {
            if !place.is_null() {
                place.write_unaligned(value);
            }
            if !length.is_null() {
                length.write_unaligned(value_len);
            }
        }
    }
}

/// Bytes as C has them. The header says that callbacks change nothing in them.
fn chars(bytes: &[u8]) -> *mut c_char {
    if bytes.is_empty() {
        // An empty slice may point anywhere; C may look at the NUL behind it.
        return c"".as_ptr().cast_mut();
    }
    bytes.as_ptr().cast::<c_char>().cast_mut()
}

/// Calls C. Being `extern "C"`, this function lets nothing unwind out of it: an exception (or a thread's forced exit) that
/// leaves a callback ends the process here, with a message, before it can tear through the library's frames.
/// `errno` is kept: what a callback leaves there is not the business of a thread that waits.
///
/// A child that was forked in the callback must end there (`_exit`, `exec`). One that comes back is ended here: it is a copy of
/// one thread in the midst of the library's work, which the parent does.
#[allow(improper_ctypes_definitions)] // never called by C: "C" is here for that one property
pub(in crate::ffi) extern "C" fn without_unwinding(call: &mut dyn FnMut()) {
    let errno = Errno::keep();
    let was_child = in_forked_child();
    call();
    if in_forked_child() && !was_child {
        // SAFETY: ends the process, and runs nothing of it.
        unsafe { libc::_exit(1) };
    }
    errno.give_back();
}

const _: () = assert!(OpKind::Put as c_int == 0 && OpKind::Sync as c_int == 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::code::Code;
    use std::ffi::CStr;

    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        op: (c_int, String, usize, Option<String>, usize, c_int),
        result: c_int,
        batch: (usize, usize, usize),
    }

    /// # Safety
    /// For the tests below, which pass a `Seen`, and strings that end with a NUL.
    unsafe extern "C" fn on_operation(op: *mut kv_async_batch_operation_s, result: c_int, user_data: *mut c_void) {
        // SAFETY: as promised.
        unsafe {
            let (op, seen) = (&*op, &mut *user_data.cast::<Seen>());
            assert_eq!(op.user_data, user_data);
            let text = |text: *mut c_char| (!text.is_null()).then(|| CStr::from_ptr(text).to_str().unwrap().to_owned());
            seen.op = (op.op_type, text(op.key).unwrap(), op.key_len, text(op.value), op.value_len, op.result_code);
            seen.result = result;
            *libc::__errno_location() = 99;
        }
    }

    /// # Safety
    /// As above.
    unsafe extern "C" fn on_batch(ctx: *mut kv_async_batch_context_t, completed: size_t, failed: size_t, user_data: *mut c_void) {
        // SAFETY: as promised.
        unsafe { (*user_data.cast::<Seen>()).batch = (ctx.addr(), completed, failed) };
    }

    #[test]
    fn c_sees_what_the_operation_was() {
        let mut seen = Seen::default();
        let hook = Hook { callback: on_operation as *const () as usize, user_data: (&raw mut seen).expose_provenance(), ..Hook::default() };
        // SAFETY: the thread's own errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *errno = 3 };
        EDGE.op_done(&OpView { kind: OpKind::Get, key: &b"key\0"[..3], value: Some(&b"value\0"[..5]), code: Code::NONE, hook });
        assert_eq!(seen.op, (1, "key".to_owned(), 3, Some("value".to_owned()), 5, 0));
        EDGE.op_done(&OpView { kind: OpKind::Put, key: &b"key\0"[..3], value: Some(&[]), code: Code::DISK_FULL, hook });
        assert_eq!(seen.op, (0, "key".to_owned(), 3, Some(String::new()), 0, 13));
        EDGE.op_done(&OpView { kind: OpKind::Get, key: &b"key\0"[..3], value: None, code: Code::KEY_NOT_FOUND, hook });
        assert_eq!((seen.op, seen.result), ((1, "key".to_owned(), 3, None, 0, 29), 29));
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, 3);
    }

    #[test]
    fn c_sees_how_the_batch_ended() {
        let mut seen = Seen::default();
        let hook = CompleteHook { callback: on_batch as *const () as usize, user_data: (&raw mut seen).expose_provenance() };
        EDGE.batch_done(0x5000_0000_0000_0010, 3, 4, hook);
        assert_eq!(seen.batch, (0x5000_0000_0000_0010, 3, 4));
    }

    #[test]
    fn out_pointers_are_written_as_far_as_given() {
        let (mut value, mut length) = (ptr::dangling_mut::<c_char>(), 77_usize);
        let mut hook = Hook { out_value: (&raw mut value).expose_provenance(), ..Hook::default() };
        EDGE.write_out(&hook, Some(b"abc"));
        assert!(!value.is_null() && length == 77);
        hook.out_len = (&raw mut length).expose_provenance();
        EDGE.write_out(&hook, None);
        assert!(value.is_null() && length == 0);
        EDGE.write_out(&Hook::default(), Some(b"abc"));
    }
}
