//! What `kv_async_batch_io.h` declares beside its functions: limits, enums, the frozen structs, the callback types.
//!
//! cbindgen reads this file; its comments are the header's. Nothing here has behaviour.
#![allow(non_camel_case_types)] // the C names
#![allow(dead_code)] // enums are for the header: inside, numbers are checked first (see abi.rs)

use super::abi::{kv_async_batch_op_type_raw, kv_bool_raw};
use libc::{c_char, c_int, c_void, size_t};
use std::mem::offset_of;

/// Operations that a batch holds unless told otherwise.
pub const KV_ASYNC_BATCH_DEFAULT_SIZE: c_int = 256;
/// Most operations that a batch can hold.
pub const KV_ASYNC_BATCH_MAX_SIZE: c_int = 1048576;
/// Default of timeout_ms, in milliseconds.
pub const KV_ASYNC_BATCH_DEFAULT_TIMEOUT_MS: c_int = 10000;
/// Default of max_concurrent_batches.
pub const KV_ASYNC_BATCH_MAX_CONCURRENT: c_int = 64;

/// What an operation does.
#[repr(C)]
pub enum kv_async_batch_op_type_e {
    /// Stores a value under a key, over whatever was there.
    KV_ASYNC_BATCH_PUT = 0,
    /// Reads the value under a key.
    KV_ASYNC_BATCH_GET = 1,
    /// Takes a key away; succeeds also if it is not there.
    KV_ASYNC_BATCH_DELETE = 2,
    /// Stores a value under a key that must be there.
    KV_ASYNC_BATCH_UPDATE = 3,
    /// Puts all that was written before on stable storage.
    KV_ASYNC_BATCH_SYNC = 4,
}
/// See enum kv_async_batch_op_type_e.
pub type kv_async_batch_op_type_t = kv_async_batch_op_type_e;

/// Where a batch is in its life.
#[repr(C)]
pub enum kv_async_batch_status_e {
    /// Operations may be added; not submitted yet.
    KV_ASYNC_BATCH_PENDING = 0,
    /// Submitted, waiting for its turn.
    KV_ASYNC_BATCH_SUBMITTED = 1,
    /// Being carried out: past cancelling.
    KV_ASYNC_BATCH_COMPLETING = 2,
    /// Ended, and every operation completed.
    KV_ASYNC_BATCH_COMPLETED = 3,
    /// Ended, and at least one operation failed. Also what an invalid handle gets.
    KV_ASYNC_BATCH_FAILED = 4,
    /// Cancelled before it was begun: nothing was written.
    KV_ASYNC_BATCH_CANCELLED = 5,
}
/// See enum kv_async_batch_status_e.
pub type kv_async_batch_status_t = kv_async_batch_status_e;

/// One operation, as its callback sees it. The library makes it; it and all it points to live until the callback
/// returns (a GET's value until the batch is destroyed). The callback changes nothing in it.
#[repr(C)]
pub struct kv_async_batch_operation_s {
    /// What was asked for.
    pub op_type: kv_async_batch_op_type_raw,
    /// The key, with a NUL behind its last byte.
    pub key: *mut c_char,
    /// Length of the key, in bytes.
    pub key_len: size_t,
    /// PUT, UPDATE: what was put. GET: the value, with a NUL behind its last byte; NULL if there is none. Else NULL.
    pub value: *mut c_char,
    /// Length of the value, in bytes; 0 where value is NULL.
    pub value_len: size_t,
    /// KV_SUCCESS or why the operation failed.
    pub result_code: c_int,
    /// What was given when the operation was added.
    pub user_data: *mut c_void,
}
/// See struct kv_async_batch_operation_s.
pub type kv_async_batch_operation_t = kv_async_batch_operation_s;

/// A batch: opaque. Made by kv_async_batch_create(), given back by kv_async_batch_destroy(). A token, not an address:
/// one that was destroyed, forged, or belongs to something else is told apart and refused, never followed.
pub struct kv_async_batch_context_s {
    _opaque: [u8; 0],
}
/// See struct kv_async_batch_context_s.
pub type kv_async_batch_context_t = kv_async_batch_context_s;

/// A manager: opaque, a token like a batch. Made by kv_async_batch_manager_create(), given back by
/// kv_async_batch_manager_destroy().
pub struct kv_async_batch_manager_s {
    _opaque: [u8; 0],
}
/// See struct kv_async_batch_manager_s.
pub type kv_async_batch_manager_t = kv_async_batch_manager_s;

/// Called once for every operation of a submitted batch, in the order they were added, from a thread of the library or
/// from one that waits on that batch; no lock is held. It may call any function of the library, also
/// kv_async_batch_destroy() on its own batch, but waiting on its own batch is refused (KV_ERR_INVALID_STATE). It must
/// return: no C++ exception, no longjmp, no pthread_exit may leave it.
///
/// op: valid until the callback returns. result: KV_SUCCESS or why it failed, as in op->result_code.
/// user_data: as given when the operation was added.
pub type kv_async_batch_callback_t =
    Option<unsafe extern "C" fn(op: *mut kv_async_batch_operation_t, result: c_int, user_data: *mut c_void)>;

/// Called once for every submitted batch, after the last operation's callback has returned; the same rules hold.
///
/// The two counts add up to the batch's operations: failed includes timed out and cancelled ones. A GET that found
/// nothing counts as completed.
pub type kv_async_batch_complete_callback_t =
    Option<unsafe extern "C" fn(ctx: *mut kv_async_batch_context_t, completed_count: size_t, failed_count: size_t, user_data: *mut c_void)>;

/// How a manager and its batches work. Take kv_async_batch_default_config() and change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kv_async_batch_config_s {
    /// Operations that a batch holds if kv_async_batch_create() is given 0; 1 to KV_ASYNC_BATCH_MAX_SIZE. Default 256.
    pub max_batch_size: size_t,
    /// Most bytes that adding makes one batch hold; at least 1. Values read later don't count. Default 64 MiB.
    pub max_memory_usage: size_t,
    /// A batch that nobody has begun to carry out this many milliseconds after its submit fails with KV_ERR_TIMEOUT and
    /// has written nothing; at least 1. Default 10000.
    pub timeout_ms: u32,
    /// Batches in flight (from submit until the last callback has returned) at the most; at least 1. Default 64.
    pub max_concurrent_batches: u32,
    /// Reads of the device in flight at the most; at least 1. Default 64.
    pub io_queue_depth: u32,
    /// Poll the device for completions of reads, if it can be polled. Default off.
    pub enable_io_polling: kv_bool_raw,
    /// A batch completes only when its writes are on stable storage. Default on. Off: when the operating system has them.
    pub enable_batch_fsync: kv_bool_raw,
    /// With enable_batch_fsync off: milliseconds between syncs in the background; 0: none. Default 5000.
    pub fsync_interval_ms: u32,
    /// Leave out a write that a later write of the same batch makes moot. Its callback still gets success. Default on.
    pub enable_deduplication: kv_bool_raw,
    /// Let I/O be done in the order of places on the device. Results stay the same. Default on.
    pub enable_sorting: kv_bool_raw,
    /// Store values compressed where that is smaller. Default off.
    pub enable_compression: kv_bool_raw,
    /// Start reads ahead. Default on.
    pub enable_prefetching: kv_bool_raw,
    /// All or nothing: if one operation fails, nothing is written and the others get KV_ERR_BATCH_FAILED. Default off.
    pub fail_fast: kv_bool_raw,
    /// How often an operation is tried again after a transient error of the store. Default 3.
    pub max_retry_count: u32,
    /// Milliseconds before it is tried again. Default 100.
    pub retry_delay_ms: u32,
    /// Where a batch's memory comes from; called from any thread, must not call this library. Default malloc;
    /// pieces of 2 MiB and more then come from the kernel.
    pub alloc_func: Option<unsafe extern "C" fn(size: size_t) -> *mut c_void>,
    /// Takes back what alloc_func gave. Default free.
    pub free_func: Option<unsafe extern "C" fn(memory: *mut c_void)>,
}
/// See struct kv_async_batch_config_s.
pub type kv_async_batch_config_t = kv_async_batch_config_s;

/// Statistics of a batch, or of a manager with all its batches. Times are sums of durations, in microseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct kv_async_batch_stats_s {
    /// Operations added (a batch) or submitted (a manager).
    pub total_operations: u64,
    /// Operations that completed; a GET that found nothing is one of them.
    pub completed_operations: u64,
    /// Operations that failed or timed out; cancelled ones are not among them.
    pub failed_operations: u64,
    /// Operations that were cancelled.
    pub cancelled_operations: u64,
    /// Batches submitted.
    pub total_batches: u64,
    /// Batches of which every operation completed.
    pub completed_batches: u64,
    /// Batches that failed.
    pub failed_batches: u64,
    /// Value bytes that completed GETs returned.
    pub bytes_read: u64,
    /// Value bytes of completed writes, also of those that deduplication left out.
    pub bytes_written: u64,
    /// Operations that completed, by another name.
    pub keys_processed: u64,
    /// Time inside kv_async_batch_submit().
    pub total_submit_time: u64,
    /// Time from submit to the end.
    pub total_complete_time: u64,
    /// Time inside kv_async_batch_wait().
    pub total_wait_time: u64,
    /// Operations per batch, on average.
    pub avg_batch_size: f64,
    /// Microseconds from submit to the end of an operation, on average.
    pub avg_latency_us: f64,
    /// Completed operations per second, between the first submit and the last end.
    pub throughput_ops_per_sec: f64,
    /// Value bytes read and written per second of the same, in units of 1000000.
    pub throughput_mb_per_sec: f64,
    /// Most bytes held at any time.
    pub peak_memory_usage: size_t,
    /// Bytes held now.
    pub current_memory_usage: size_t,
    /// Batches in flight now.
    pub active_batches: u32,
    /// Operations submitted that nobody has begun to carry out.
    pub queued_operations: u32,
}
/// See struct kv_async_batch_stats_s.
pub type kv_async_batch_stats_t = kv_async_batch_stats_s;

// Frozen layout, as compiled into programs that link against us (x86-64, LP64).
const _: () = {
    assert!(size_of::<kv_async_batch_op_type_e>() == 4 && size_of::<kv_async_batch_status_e>() == 4);
    assert!(size_of::<kv_async_batch_operation_s>() == 56 && align_of::<kv_async_batch_operation_s>() == 8);
    assert!(offset_of!(kv_async_batch_operation_s, op_type) == 0);
    assert!(offset_of!(kv_async_batch_operation_s, key) == 8);
    assert!(offset_of!(kv_async_batch_operation_s, key_len) == 16);
    assert!(offset_of!(kv_async_batch_operation_s, value) == 24);
    assert!(offset_of!(kv_async_batch_operation_s, value_len) == 32);
    assert!(offset_of!(kv_async_batch_operation_s, result_code) == 40);
    assert!(offset_of!(kv_async_batch_operation_s, user_data) == 48);
};
const _: () = {
    assert!(size_of::<kv_async_batch_config_s>() == 72 && align_of::<kv_async_batch_config_s>() == 8);
    assert!(offset_of!(kv_async_batch_config_s, max_batch_size) == 0);
    assert!(offset_of!(kv_async_batch_config_s, max_memory_usage) == 8);
    assert!(offset_of!(kv_async_batch_config_s, timeout_ms) == 16);
    assert!(offset_of!(kv_async_batch_config_s, max_concurrent_batches) == 20);
    assert!(offset_of!(kv_async_batch_config_s, io_queue_depth) == 24);
    assert!(offset_of!(kv_async_batch_config_s, enable_io_polling) == 28);
    assert!(offset_of!(kv_async_batch_config_s, enable_batch_fsync) == 29);
    assert!(offset_of!(kv_async_batch_config_s, fsync_interval_ms) == 32);
    assert!(offset_of!(kv_async_batch_config_s, enable_deduplication) == 36);
    assert!(offset_of!(kv_async_batch_config_s, enable_sorting) == 37);
    assert!(offset_of!(kv_async_batch_config_s, enable_compression) == 38);
    assert!(offset_of!(kv_async_batch_config_s, enable_prefetching) == 39);
    assert!(offset_of!(kv_async_batch_config_s, fail_fast) == 40);
    assert!(offset_of!(kv_async_batch_config_s, max_retry_count) == 44);
    assert!(offset_of!(kv_async_batch_config_s, retry_delay_ms) == 48);
    assert!(offset_of!(kv_async_batch_config_s, alloc_func) == 56);
    assert!(offset_of!(kv_async_batch_config_s, free_func) == 64);
};
const _: () = {
    assert!(size_of::<kv_async_batch_stats_s>() == 160 && align_of::<kv_async_batch_stats_s>() == 8);
    assert!(offset_of!(kv_async_batch_stats_s, total_operations) == 0);
    assert!(offset_of!(kv_async_batch_stats_s, total_batches) == 32);
    assert!(offset_of!(kv_async_batch_stats_s, bytes_read) == 56);
    assert!(offset_of!(kv_async_batch_stats_s, total_wait_time) == 96);
    assert!(offset_of!(kv_async_batch_stats_s, avg_batch_size) == 104);
    assert!(offset_of!(kv_async_batch_stats_s, throughput_mb_per_sec) == 128);
    assert!(offset_of!(kv_async_batch_stats_s, peak_memory_usage) == 136);
    assert!(offset_of!(kv_async_batch_stats_s, current_memory_usage) == 144);
    assert!(offset_of!(kv_async_batch_stats_s, active_batches) == 152);
    assert!(offset_of!(kv_async_batch_stats_s, queued_operations) == 156);
};
