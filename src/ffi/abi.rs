//! Types that C sees under other names, in a file that cbindgen does not read (`tests/headers.rs` renames them).
//!
//! C may put any number into an enum and any byte into a `bool`; a Rust enum or `bool` with such a value would be
//! undefined behaviour at once. So numbers come in, and become enums only after a check.
#![allow(non_camel_case_types)] // the C names

/// `enum kv_async_batch_op_type_e` in C.
pub type kv_async_batch_op_type_raw = libc::c_int;

/// `enum kv_async_batch_status_e` in C.
pub type kv_async_batch_status_raw = libc::c_int;

/// `enum kv_batch_outcome_e` in C.
pub type kv_batch_outcome_raw = libc::c_int;

/// `enum kv_uring_op_type_e` in C.
pub type kv_uring_op_type_raw = libc::c_int;

/// `enum kv_uring_req_status_e` in C.
pub type kv_uring_req_status_raw = libc::c_int;

/// `struct iovec` in C.
pub type iovec_raw = libc::iovec;

/// `struct timespec` in C.
pub type timespec_raw = libc::timespec;

/// `bool` in a struct that C filled in: anything but 0 is true.
pub type kv_bool_raw = u8;
