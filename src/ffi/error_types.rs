//! What `kv_error.h` declares beside its functions: the numbers, the log levels, the two error structs.
//!
//! cbindgen reads this file; macros are opaque to it, so the numbers are written out here once more. `tests/headers.rs`
//! compares them with the one table, `base::code`. Everything here is frozen: old programs were compiled against it.
#![allow(non_camel_case_types)] // the C names

use libc::{FILE, c_char, c_int, time_t};
use std::mem::offset_of;

/// Success.
pub const KV_SUCCESS: c_int = 0;
/// No error.
pub const KV_ERR_NONE: c_int = 0;
/// No error; another name for KV_ERR_NONE.
pub const KV_ERR_SUCCESS: c_int = 0;
/// A system call was refused (rights, a limit of the system).
pub const KV_ERR_SYS: c_int = 1;
/// Out of memory: the allocator said no.
pub const KV_ERR_MEM: c_int = 2;
/// Bad parameter.
pub const KV_ERR_PARAM: c_int = 3;
/// A file or directory cannot be used, such as a store path that names a file.
pub const KV_ERR_FILE: c_int = 4;
/// Network failure.
pub const KV_ERR_NET: c_int = 5;
/// Not found.
pub const KV_ERR_NOT_FOUND: c_int = 6;
/// Exists already.
pub const KV_ERR_EXIST: c_int = 7;
/// Timed out. From kv_async_batch_wait(): not ended yet, the batch goes on.
pub const KV_ERR_TIMEOUT: c_int = 8;
/// Locked by another process.
pub const KV_ERR_LOCK: c_int = 9;
/// Too much in flight, or past cancelling; nothing was changed.
pub const KV_ERR_BUSY: c_int = 10;
/// Not supported, such as a store written by a newer version.
pub const KV_ERR_NOT_SUPPORTED: c_int = 11;
/// Stored data is damaged.
pub const KV_ERR_CORRUPTED: c_int = 12;
/// The disk is full.
pub const KV_ERR_DISK_FULL: c_int = 13;
/// Transaction conflict.
pub const KV_ERR_TXN_CONFLICT: c_int = 14;
/// Transaction aborted.
pub const KV_ERR_TXN_ABORT: c_int = 15;
/// Cluster synchronisation failed.
pub const KV_ERR_CLUSTER_SYNC: c_int = 16;
/// Network partition.
pub const KV_ERR_NETWORK_PARTITION: c_int = 17;
/// The leader has changed.
pub const KV_ERR_LEADER_CHANGED: c_int = 18;
/// Invalid parameter; also a handle that is stale, forged or of another kind.
pub const KV_ERR_INVALID_PARAM: c_int = 19;
/// Out of memory.
pub const KV_ERR_OUT_OF_MEMORY: c_int = 20;
/// Input or output failed.
pub const KV_ERR_IO_ERROR: c_int = 21;
/// No space left.
pub const KV_ERR_NO_SPACE: c_int = 22;
/// Thread failure.
pub const KV_ERR_THREAD_ERROR: c_int = 23;
/// Not possible in this state.
pub const KV_ERR_INVALID_STATE: c_int = 24;
/// Not implemented.
pub const KV_ERR_NOT_IMPLEMENTED: c_int = 25;
/// Compaction failed.
pub const KV_ERR_COMPACTION_FAILED: c_int = 26;
/// The batch holds as many operations as it was created for.
pub const KV_ERR_BATCH_FULL: c_int = 27;
/// The batch would hold more bytes than max_memory_usage.
pub const KV_ERR_BATCH_TOO_LARGE: c_int = 28;
/// There is nothing under this key.
pub const KV_ERR_KEY_NOT_FOUND: c_int = 29;
/// There is something under this key already.
pub const KV_ERR_KEY_EXISTS: c_int = 30;
/// The key is longer than 65535 bytes.
pub const KV_ERR_KEY_TOO_LONG: c_int = 31;
/// Memory allocation failed.
pub const KV_ERR_MEMORY_ALLOC: c_int = 32;
/// A lock could not be taken.
pub const KV_ERR_LOCK_FAILED: c_int = 33;
/// A read or write failed.
pub const KV_ERR_IO: c_int = 34;
/// Overflow.
pub const KV_ERR_OVERFLOW: c_int = 35;
/// Underflow.
pub const KV_ERR_UNDERFLOW: c_int = 36;
/// Bad alignment.
pub const KV_ERR_ALIGNMENT: c_int = 37;
/// Device failure.
pub const KV_ERR_DEVICE: c_int = 38;
/// An asynchronous operation failed.
pub const KV_ERR_ASYNC_FAILED: c_int = 39;
/// At least one operation of the batch failed.
pub const KV_ERR_BATCH_FAILED: c_int = 40;
/// Memory mapping failed.
pub const KV_ERR_MMAP_FAILED: c_int = 41;
/// Wrong state.
pub const KV_ERR_STATE: c_int = 42;
/// Bad configuration, such as a foreign file in a store's directory.
pub const KV_ERR_CONFIG: c_int = 43;
/// A pointer is NULL that must not be.
pub const KV_ERR_NULL_POINTER: c_int = 44;
/// A thread could not be created.
pub const KV_ERR_THREAD_CREATE: c_int = 45;
/// Cancelled.
pub const KV_ERR_CANCELLED: c_int = 46;
/// Unknown failure: a fault of the library itself, please report it.
pub const KV_ERR_UNKNOWN: c_int = 100;

/// Log level: for people who debug the library.
pub const KV_LOG_DEBUG: c_int = 0;
/// Log level: what happened.
pub const KV_LOG_INFO: c_int = 1;
/// Log level: works, but somebody should look.
pub const KV_LOG_WARN: c_int = 2;
/// Log level: something failed.
pub const KV_LOG_ERROR: c_int = 3;
/// Log level: cannot go on.
pub const KV_LOG_FATAL: c_int = 4;

/// An error: what, where, when. All strings end with a NUL and are cut if they are too long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kv_error_s {
    /// One of the KV_ERR_ numbers; 0 if there is no error.
    pub code: c_int,
    /// What happened and what to do about it.
    pub message: [c_char; 256],
    /// The function that failed.
    pub func: [c_char; 64],
    /// The source file that said so.
    pub file: [c_char; 128],
    /// The line in that file.
    pub line: c_int,
    /// Seconds since 1970.
    pub timestamp: time_t,
}
/// See struct kv_error_s.
pub type kv_error_t = kv_error_s;

/// What the error functions share.
#[repr(C)]
pub struct kv_error_ctx_s {
    /// Mirrors the latest error of any thread, for programs that look here. It may change while it is read: prefer
    /// kv_get_last_error(), which is per thread.
    pub last_error: kv_error_t,
    /// Lines below this level are left out.
    pub log_level: c_int,
    /// Where log lines go; NULL: to no file. Set by kv_error_init().
    pub log_file: *mut FILE,
    /// Not 0: log lines go to stdout, too.
    pub log_to_stdout: c_int,
}
/// See struct kv_error_ctx_s.
pub type kv_error_ctx_t = kv_error_ctx_s;

// Frozen layout, as compiled into programs that link against us (x86-64, LP64).
const _: () = {
    assert!(size_of::<kv_error_s>() == 464 && align_of::<kv_error_s>() == 8);
    assert!(offset_of!(kv_error_s, code) == 0);
    assert!(offset_of!(kv_error_s, message) == 4);
    assert!(offset_of!(kv_error_s, func) == 260);
    assert!(offset_of!(kv_error_s, file) == 324);
    assert!(offset_of!(kv_error_s, line) == 452);
    assert!(offset_of!(kv_error_s, timestamp) == 456);
    assert!(size_of::<kv_error_ctx_s>() == 488 && align_of::<kv_error_ctx_s>() == 8);
    assert!(offset_of!(kv_error_ctx_s, last_error) == 0);
    assert!(offset_of!(kv_error_ctx_s, log_level) == 464);
    assert!(offset_of!(kv_error_ctx_s, log_file) == 472);
    assert!(offset_of!(kv_error_ctx_s, log_to_stdout) == 480);
};
