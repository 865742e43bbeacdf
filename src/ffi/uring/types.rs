//! What `kv_io_uring.h` declares beside its functions: limits, enums, the frozen structs, the callback type.
//!
//! cbindgen reads this file; its comments are the header's. Nothing here has behaviour.
#![allow(non_camel_case_types)] // the C names
#![allow(dead_code)] // enums are for the header: inside, numbers are checked first (see abi.rs)

use crate::base::limits;
use crate::ffi::abi::{iovec_raw, kv_bool_raw, kv_uring_op_type_raw, kv_uring_req_status_raw, timespec_raw};
use libc::{c_int, c_void, off_t, size_t};
use std::mem::offset_of;

/// Requests in flight at the most, unless told otherwise.
pub const KV_URING_DEFAULT_QUEUE_DEPTH: c_int = 64;
/// Largest queue depth.
pub const KV_URING_MAX_QUEUE_DEPTH: c_int = 4096;
/// Smallest queue depth.
pub const KV_URING_MIN_QUEUE_DEPTH: c_int = 1;
/// Default of buffer_size, in bytes.
pub const KV_URING_DEFAULT_BUFFER_SIZE: c_int = 65536;
/// Largest buffer_size, in bytes.
pub const KV_URING_MAX_BUFFER_SIZE: c_int = 16777216;
/// Most requests that a batch holds.
pub const KV_URING_MAX_BATCH_SIZE: c_int = 256;
/// Default of timeout_ms, in milliseconds.
pub const KV_URING_TIMEOUT_MS: c_int = 5000;

/// What a request does. The first five have a function in this header.
#[repr(C)]
pub enum kv_uring_op_type_e {
    /// Reads into one buffer.
    KV_URING_OP_READ = 0,
    /// Writes from one buffer.
    KV_URING_OP_WRITE = 1,
    /// Reads into several buffers.
    KV_URING_OP_READV = 2,
    /// Writes from several buffers.
    KV_URING_OP_WRITEV = 3,
    /// Puts a file on stable storage.
    KV_URING_OP_FSYNC = 4,
    /// A name only.
    KV_URING_OP_FDATASYNC = 5,
    /// A name only.
    KV_URING_OP_OPENAT = 6,
    /// A name only.
    KV_URING_OP_CLOSE = 7,
    /// A name only.
    KV_URING_OP_FALLOCATE = 8,
}
/// See enum kv_uring_op_type_e.
pub type kv_uring_op_type_t = kv_uring_op_type_e;

/// Where a request is in its life.
#[repr(C)]
pub enum kv_uring_req_status_e {
    /// Accepted; nobody has begun.
    KV_URING_REQ_PENDING = 0,
    /// The kernel, or a thread of the library, has it.
    KV_URING_REQ_SUBMITTED = 1,
    /// Ended well.
    KV_URING_REQ_COMPLETED = 2,
    /// Ended with an error, or out of time. Also what an invalid request gets.
    KV_URING_REQ_FAILED = 3,
    /// Cancelled. A write may have written a part before.
    KV_URING_REQ_CANCELLED = 4,
}
/// See enum kv_uring_req_status_e.
pub type kv_uring_req_status_t = kv_uring_req_status_e;

/// A ring: opaque. Made by kv_uring_create(), given back by kv_uring_destroy(). A token, not an address: one that was
/// destroyed, forged, or belongs to something else is told apart and refused, never followed.
pub struct kv_uring_s {
    _opaque: [u8; 0],
}
/// See struct kv_uring_s.
pub type kv_uring_t = kv_uring_s;

/// A batch of requests: opaque, a token like a ring. Made by kv_uring_batch_create(), given back by
/// kv_uring_batch_destroy().
pub struct kv_uring_batch_s {
    _opaque: [u8; 0],
}
/// See struct kv_uring_batch_s.
pub type kv_uring_batch_t = kv_uring_batch_s;

/// How a ring works. Take kv_uring_config_create() and change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kv_uring_config_s {
    /// Requests in flight at the most; 1 to 4096. Default 64.
    pub queue_depth: u32,
    /// Milliseconds without work after which the kernel's thread (use_sq_poll) goes to sleep. Default 1000.
    pub sq_poll_idle: u32,
    /// Have a kernel thread look for submissions, where the kernel allows it: saves system calls, costs a busy thread.
    /// Default off.
    pub use_sq_poll: kv_bool_raw,
    /// Poll for completions for some milliseconds instead of sleeping at once: shorter waits, a busier thread. Works with
    /// every kind of file. Default off.
    pub use_iopoll: kv_bool_raw,
    /// The same as use_sq_poll: either switches it on. Default off.
    pub use_kernel_sqe_thread: kv_bool_raw,
    /// Room for completions, as a multiple of queue_depth; 1 to 64. Default 2.
    pub cq_entries_multiplier: u32,
    /// Threads that do the I/O where io_uring is not to be had; 1 to 256. They are started when needed, and up to 16 may be
    /// started even if this is less. Default 1.
    pub worker_threads: u32,
    /// Limit of a request, in milliseconds from its submission; at least 1; UINT32_MAX: none. A request that is out of time
    /// is cancelled if that is possible (what waits in a line or for a peer is; a transfer with a disk that is under way
    /// ends by itself) and fails with -ETIMEDOUT. Default 5000.
    pub timeout_ms: u32,
    /// 1 to 16777216. Without effect: I/O goes straight from and to the caller's buffers. Default 65536.
    pub buffer_size: size_t,
    /// Without effect; any value. Default NULL.
    pub allocator: *mut c_void,
}
/// See struct kv_uring_config_s.
pub type kv_uring_config_t = kv_uring_config_s;

/// A request. The library makes it, fills it in and keeps it up to date; it can be read until it is destroyed, and is not to
/// be changed. To read status or result while the request is in flight, use kv_uring_request_status() and _result().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kv_uring_request_s {
    /// Unique in the process, from 1.
    pub request_id: u64,
    /// What it does.
    pub op_type: kv_uring_op_type_raw,
    /// Where it is in its life.
    pub status: kv_uring_req_status_raw,
    /// The caller's descriptor.
    pub fd: c_int,
    /// The caller's buffer; NULL for READV, WRITEV, FSYNC.
    pub buffer: *mut c_void,
    /// Bytes asked for, in all buffers.
    pub size: size_t,
    /// Where in the file, in bytes; -1: at the descriptor's own position.
    pub offset: off_t,
    /// READV, WRITEV: a copy of the caller's array, which goes with the request. Else NULL.
    pub iovecs: *mut iovec_raw,
    /// Its length; else 0.
    pub iovcnt: c_int,
    /// What is called when it has ended; may be NULL.
    pub callback: Option<unsafe extern "C" fn(req: *mut kv_uring_request_s, result: c_int, data: *mut c_void)>,
    /// For the callback.
    pub user_data: *mut c_void,
    /// Bytes, or a negative errno; 0 until it has ended.
    pub result: c_int,
    /// When it was accepted, since 1970.
    pub submit_time: timespec_raw,
    /// When it ended, since 1970; 0 before.
    pub complete_time: timespec_raw,
    /// The library's; NULL.
    pub reserved_1: *mut c_void,
    /// The library's; NULL.
    pub reserved_2: *mut c_void,
    /// Whether the buffer belongs to the request: never.
    pub owns_buffer: kv_bool_raw,
    /// The library's; NULL.
    pub next: *mut kv_uring_request_s,
    /// The library's; NULL.
    pub prev: *mut kv_uring_request_s,
}
/// See struct kv_uring_request_s.
pub type kv_uring_request_t = kv_uring_request_s;

/// Called once for every request that was accepted, when it has ended, in whatever way; from the ring's own thread, one at
/// a time, with no lock held. It may call any function of the library, also kv_uring_request_destroy() on req and
/// kv_uring_destroy() on its own ring, but waiting on its own ring, or stopping it, is refused (KV_ERR_INVALID_STATE). While
/// it runs no other request of this ring ends. It must return: no C++ exception, no longjmp, no pthread_exit may leave it.
///
/// req: can be read until the callback returns, even if it was destroyed. result: bytes, or a negative errno, as in
/// req->result. data: as given with the request.
pub type kv_uring_callback_t = Option<unsafe extern "C" fn(req: *mut kv_uring_request_s, result: c_int, data: *mut c_void)>;

/// Statistics of a ring since it was created or its statistics were reset. Times are sums of durations, in microseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct kv_uring_stats_s {
    /// READ requests accepted.
    pub read_count: u64,
    /// WRITE requests accepted.
    pub write_count: u64,
    /// READV requests accepted.
    pub readv_count: u64,
    /// WRITEV requests accepted.
    pub writev_count: u64,
    /// FSYNC requests accepted.
    pub sync_count: u64,
    /// All of them.
    pub total_operations: u64,
    /// Bytes that completed reads brought.
    pub bytes_read: u64,
    /// Bytes that completed writes took.
    pub bytes_written: u64,
    /// Time inside the functions that submit.
    pub total_submit_time: u64,
    /// Time from the acceptance of a request to its end.
    pub total_complete_time: u64,
    /// Time from the acceptance of a request until the kernel, or a thread, had it.
    pub total_queue_time: u64,
    /// Requests accepted.
    pub submissions_total: u64,
    /// Requests that have ended, in whatever way.
    pub completions_total: u64,
    /// Requests accepted that came in batches.
    pub submissions_batched: u64,
    /// Calls refused with KV_ERR_BUSY.
    pub queue_full_count: u64,
    /// Requests that failed.
    pub error_count: u64,
    /// Those of them that were out of time.
    pub timeout_count: u64,
    /// Requests that were cancelled.
    pub cancelled_count: u64,
    /// Microseconds of total_submit_time per request.
    pub avg_submit_latency: f64,
    /// Microseconds of total_complete_time per request that has ended.
    pub avg_complete_latency: f64,
    /// Requests in flight, on average over the moments when one was accepted, that one included.
    pub avg_queue_depth: f64,
    /// bytes_read per second between the first acceptance and the last end, in units of 1000000.
    pub read_throughput: f64,
    /// bytes_written per second of the same.
    pub write_throughput: f64,
}
/// See struct kv_uring_stats_s.
pub type kv_uring_stats_t = kv_uring_stats_s;

const _: () = {
    assert!(KV_URING_MAX_QUEUE_DEPTH as u32 == limits::URING_DEPTH_MAX && KV_URING_MAX_BATCH_SIZE as usize == limits::URING_BATCH_MAX);
    assert!(KV_URING_MAX_BUFFER_SIZE as usize == limits::URING_BUFFER_BYTES_MAX);
    assert!(size_of::<kv_uring_op_type_e>() == 4 && size_of::<kv_uring_req_status_e>() == 4);
};
// Frozen layout, as compiled into programs that link against us (x86-64, LP64).
const _: () = {
    assert!(size_of::<kv_uring_config_s>() == 40 && align_of::<kv_uring_config_s>() == 8);
    assert!(offset_of!(kv_uring_config_s, sq_poll_idle) == 4);
    assert!(offset_of!(kv_uring_config_s, use_sq_poll) == 8);
    assert!(offset_of!(kv_uring_config_s, use_iopoll) == 9);
    assert!(offset_of!(kv_uring_config_s, use_kernel_sqe_thread) == 10);
    assert!(offset_of!(kv_uring_config_s, cq_entries_multiplier) == 12);
    assert!(offset_of!(kv_uring_config_s, worker_threads) == 16);
    assert!(offset_of!(kv_uring_config_s, timeout_ms) == 20);
    assert!(offset_of!(kv_uring_config_s, buffer_size) == 24);
    assert!(offset_of!(kv_uring_config_s, allocator) == 32);
};
const _: () = {
    assert!(size_of::<kv_uring_request_s>() == 160 && align_of::<kv_uring_request_s>() == 8);
    assert!(offset_of!(kv_uring_request_s, op_type) == 8);
    assert!(offset_of!(kv_uring_request_s, status) == 12);
    assert!(offset_of!(kv_uring_request_s, fd) == 16);
    assert!(offset_of!(kv_uring_request_s, buffer) == 24);
    assert!(offset_of!(kv_uring_request_s, size) == 32);
    assert!(offset_of!(kv_uring_request_s, offset) == 40);
    assert!(offset_of!(kv_uring_request_s, iovecs) == 48);
    assert!(offset_of!(kv_uring_request_s, iovcnt) == 56);
    assert!(offset_of!(kv_uring_request_s, callback) == 64);
    assert!(offset_of!(kv_uring_request_s, user_data) == 72);
    assert!(offset_of!(kv_uring_request_s, result) == 80);
    assert!(offset_of!(kv_uring_request_s, submit_time) == 88);
    assert!(offset_of!(kv_uring_request_s, complete_time) == 104);
    assert!(offset_of!(kv_uring_request_s, reserved_1) == 120);
    assert!(offset_of!(kv_uring_request_s, owns_buffer) == 136);
    assert!(offset_of!(kv_uring_request_s, next) == 144);
    assert!(offset_of!(kv_uring_request_s, prev) == 152);
};
const _: () = {
    assert!(size_of::<kv_uring_stats_s>() == 184 && align_of::<kv_uring_stats_s>() == 8);
    assert!(offset_of!(kv_uring_stats_s, total_operations) == 40);
    assert!(offset_of!(kv_uring_stats_s, bytes_read) == 48);
    assert!(offset_of!(kv_uring_stats_s, total_submit_time) == 64);
    assert!(offset_of!(kv_uring_stats_s, submissions_total) == 88);
    assert!(offset_of!(kv_uring_stats_s, cancelled_count) == 136);
    assert!(offset_of!(kv_uring_stats_s, avg_submit_latency) == 144);
    assert!(offset_of!(kv_uring_stats_s, write_throughput) == 176);
};
