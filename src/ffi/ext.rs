//! `kv_batch_ext.h`, managers and batches: a store by its URL, the operations that the original header names without functions for
//! them, expiry, what became of a batch, backup.
//!
//! As `manager` and `batch`: arguments are checked, then the batch layer decides.
#![allow(non_camel_case_types)] // the C names

use super::abi::kv_batch_outcome_raw;
use super::batch::hook;
use super::types::{kv_async_batch_callback_t, kv_async_batch_config_t, kv_async_batch_context_t, kv_async_batch_manager_t};
use super::{arg, guard, handle, manager};
use crate::base::code::Code;
use crate::base::error::Error;
use crate::batch::OpKind;
use crate::engine::{BatchId, BatchOutcome};
use libc::{c_char, c_int, c_void, size_t};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Names a batch that writes, for ever: also for another process that opens the same store. All zeros: no batch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct kv_batch_id_s {
    /// Which opening of the store it belongs to.
    pub opening: u64,
    /// Its number there, from 1 on.
    pub number: u64,
}
/// See struct kv_batch_id_s.
pub type kv_batch_id_t = kv_batch_id_s;

/// What became of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum kv_batch_outcome_e {
    /// Not known any more, or not yet: it may still be committed while its manager runs.
    KV_BATCH_OUTCOME_UNKNOWN = 0,
    /// All of it took effect.
    KV_BATCH_OUTCOME_COMMITTED = 1,
    /// Nothing of it did, and nothing ever will.
    KV_BATCH_OUTCOME_NOT_COMMITTED = 2,
}
/// See enum kv_batch_outcome_e.
pub type kv_batch_outcome_t = kv_batch_outcome_e;

/// As kv_async_batch_manager_create(), with a store that the program names; KVBATCH_STORE has no say.
///
/// @param config  how to work, copied; NULL: kv_async_batch_default_config().
/// @param url     the store: a directory, "file:PATH?OPTIONS" (docs/OPTIONS.md), "memory:" or "memory:NAME". Copied.
/// @return the manager, to be given back with kv_async_batch_manager_destroy(); NULL: KV_ERR_NULL_POINTER if url is NULL, else as
///         kv_async_batch_manager_create().
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_manager_create_at(
    config: *const kv_async_batch_config_t,
    url: *const c_char,
) -> *mut kv_async_batch_manager_t {
    manager::prepare();
    guard::handle(c"kv_async_batch_manager_create_at", || {
        // SAFETY: the caller's promise (see `arg`).
        let url = unsafe { arg::text(url) }.ok_or_else(|| null("url is NULL: name a store, as in \"file:/var/lib/app/store\""))?;
        // SAFETY: as above.
        unsafe { manager::create(config, url.to_bytes()) }
    })
}

/// Adds an UPDATE: stores a value under a key if there is one already.
///
/// @param ctx        a batch that was not submitted yet.
/// @param key        the key's bytes, copied.
/// @param key_len    their number, 1 to 65535.
/// @param value      the value's bytes, copied; not NULL.
/// @param value_len  their number, 0 to 536870912 (512 MiB).
/// @param callback   called once, when the operation has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has been called.
/// @return as kv_async_batch_put(). If the key is not there the operation fails: its callback gets KV_ERR_KEY_NOT_FOUND, and
///         kv_async_batch_wait() returns KV_ERR_BATCH_FAILED.
///
/// Whether the key is there is decided at the operation's place in the order; no other batch comes in between, so a batch with
/// updates is executed alone, and slower. Threads: any, several may add to one batch.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_update(
    ctx: *mut kv_async_batch_context_t,
    key: *const c_char,
    key_len: size_t,
    value: *const c_char,
    value_len: size_t,
    callback: kv_async_batch_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_update", || {
        let filling = handle::filling(ctx)?;
        // SAFETY: the caller's promise (see `arg`), for both.
        let (key, value) = unsafe { (arg::key(key, key_len)?, arg::value(value, value_len)?) };
        filling?.add(OpKind::Update, key, value, hook(callback, user_data, 0, 0))
    })
}

/// Adds a PUT of a key that goes by itself.
///
/// @param ctx        a batch that was not submitted yet.
/// @param key        the key's bytes, copied.
/// @param key_len    their number, 1 to 65535.
/// @param value      the value's bytes, copied; not NULL.
/// @param value_len  their number, 0 to 536870912 (512 MiB).
/// @param expiry_ms  from then on the key is not there any more, in milliseconds since 1970 by the system's clock; a time that is
///                   past: it is not there at once.
/// @param callback   called once, when the operation has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has been called.
/// @return as kv_async_batch_put().
///
/// A later PUT without an expiry keeps the key. Its room on disk comes back when its chunk is compacted. Threads: any, several may
/// add to one batch.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_put_expiring(
    ctx: *mut kv_async_batch_context_t,
    key: *const c_char,
    key_len: size_t,
    value: *const c_char,
    value_len: size_t,
    expiry_ms: u64,
    callback: kv_async_batch_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_put_expiring", || {
        let filling = handle::filling(ctx)?;
        // SAFETY: the caller's promise (see `arg`), for both.
        let (key, value) = unsafe { (arg::key(key, key_len)?, arg::value(value, value_len)?) };
        filling?.add_expiring(OpKind::Put, key, value, Some(expiry_ms), hook(callback, user_data, 0, 0))
    })
}

/// Adds a SYNC: when it has completed, this batch and all that was submitted before it is on stable storage, also without
/// enable_batch_fsync.
///
/// @param ctx        a batch that was not submitted yet.
/// @param callback   called once, when the operation has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has been called.
/// @return as kv_async_batch_put(), for what concerns ctx.
///
/// Threads: any, several may add to one batch.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_sync(
    ctx: *mut kv_async_batch_context_t,
    callback: kv_async_batch_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_sync", || handle::filling(ctx)??.add(OpKind::Sync, &[], &[], hook(callback, user_data, 0, 0)))
}

/// The name of a batch, to be kept where it outlives a crash: kv_async_batch_manager_get_outcome() takes it later.
///
/// @param ctx  a batch that was submitted and writes.
/// @param id   where to; the caller's.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER; KV_ERR_INVALID_STATE: it was not submitted yet, or only reads and has no name;
///         KV_ERR_INVALID_PARAM for an invalid handle. After a failure nothing is written.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_get_id(ctx: *const kv_async_batch_context_t, id: *mut kv_batch_id_t) -> c_int {
    guard::code(c"kv_async_batch_get_id", || {
        let context = handle::context(ctx)?;
        arg::required(id, "id")?;
        let BatchId { opening, number } = context.batch_id().ok_or_else(|| {
            let text = "the batch has no id: it gets one when it is submitted, if it writes";
            Error::new(Code::INVALID_STATE, text)
        })?;
        // SAFETY: the caller's promise (see `arg`).
        unsafe { arg::write(id, kv_batch_id_s { opening, number }, "id") }
    })
}

/// What became of a batch, also of one that a process before a crash had submitted, or that ended in doubt.
///
/// @param manager  a running manager of the batch's store.
/// @param id       from kv_async_batch_get_id(); read during the call only.
/// @param outcome  where to; the caller's.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER; KV_ERR_INVALID_STATE: the manager is not running; KV_ERR_INVALID_PARAM for an invalid
///         handle. After a failure nothing is written.
///
/// The store remembers about the last million of batches; of older ones it says KV_BATCH_OUTCOME_UNKNOWN. Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_manager_get_outcome(
    manager: *const kv_async_batch_manager_t,
    id: *const kv_batch_id_t,
    outcome: *mut kv_batch_outcome_raw,
) -> c_int {
    guard::code(c"kv_async_batch_manager_get_outcome", || {
        let manager = handle::manager(manager)?;
        arg::required(outcome, "outcome")?;
        // SAFETY: the caller's promise (see `arg`).
        let kv_batch_id_s { opening, number } = unsafe { arg::read(id, "id") }?;
        let found = match manager.batch_outcome(BatchId { opening, number })? {
            BatchOutcome::Unknown => kv_batch_outcome_e::KV_BATCH_OUTCOME_UNKNOWN,
            BatchOutcome::Committed => kv_batch_outcome_e::KV_BATCH_OUTCOME_COMMITTED,
            BatchOutcome::NotCommitted => kv_batch_outcome_e::KV_BATCH_OUTCOME_NOT_COMMITTED,
        };
        // SAFETY: as above.
        unsafe { arg::write(outcome, found as kv_batch_outcome_raw, "outcome") }
    })
}

/// Copies the store of a running manager into another directory, as it is at one moment between two batches. Batches go on
/// meanwhile. To restore the copy, open it.
///
/// @param manager    a running manager; its store is a directory.
/// @param directory  where to: empty, or not there yet. Read during the call only.
/// @return KV_SUCCESS: the copy is whole and on stable storage; KV_ERR_NULL_POINTER; KV_ERR_INVALID_STATE: the manager is not
///         running; KV_ERR_NOT_SUPPORTED: the store is in memory; KV_ERR_EXIST: the directory is not empty;
///         KV_ERR_INVALID_PARAM for an invalid handle; or why the copy cannot be made: KV_ERR_FILE, KV_ERR_SYS, KV_ERR_DISK_FULL,
///         KV_ERR_IO, KV_ERR_CORRUPTED. One that was broken off does not open as a store: empty the directory and begin anew.
///
/// Returns when it is done, and holds up compaction until then. Files that are never written again are hard links where the
/// file system has them, so keep a copy against a failing disk on another one. Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_manager_backup(manager: *mut kv_async_batch_manager_t, directory: *const c_char) -> c_int {
    guard::code(c"kv_async_batch_manager_backup", || {
        let manager = handle::manager(manager)?;
        // SAFETY: the caller's promise (see `arg`).
        let directory = unsafe { arg::text(directory) }.filter(|text| !text.is_empty());
        let directory = directory.ok_or_else(|| null("directory is NULL or empty: name one that is empty or not there yet"))?;
        manager.backup(Path::new(OsStr::from_bytes(directory.to_bytes())))
    })
}

fn null(text: &'static str) -> Error {
    Error::new(Code::NULL_POINTER, text)
}

// Frozen layout, as compiled into programs that link against us (x86-64, LP64).
const _: () = assert!(size_of::<kv_batch_id_s>() == 16 && align_of::<kv_batch_id_s>() == 8 && size_of::<kv_batch_outcome_e>() == 4);
