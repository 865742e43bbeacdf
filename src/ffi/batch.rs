//! Batches: create, fill, submit, wait, cancel, destroy.

use super::abi::kv_async_batch_status_raw;
use super::callback::EDGE;
use super::types::{
    kv_async_batch_callback_t, kv_async_batch_complete_callback_t, kv_async_batch_context_t, kv_async_batch_manager_t,
    kv_async_batch_status_e,
};
use super::{arg, guard, handle};
use crate::batch::{CompleteHook, Context, Hook, OpKind};
use libc::{c_char, c_int, c_void, size_t};

/// Makes an empty batch.
///
/// @param manager         from kv_async_batch_manager_create(); need not be running.
/// @param max_batch_size  operations it can hold; 0: the manager's max_batch_size; at most KV_ASYNC_BATCH_MAX_SIZE.
/// @return the batch, to be given back with kv_async_batch_destroy(); NULL, with the last error KV_ERR_NULL_POINTER,
///         KV_ERR_INVALID_PARAM (an invalid handle, or too large a size) or KV_ERR_MEM.
///
/// A batch is used once: filled, submitted, ended, destroyed. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_create(manager: *mut kv_async_batch_manager_t, max_batch_size: size_t) -> *mut kv_async_batch_context_t {
    guard::handle(c"kv_async_batch_create", || {
        let manager = handle::manager(manager)?;
        handle::give_context(Context::create(&manager, max_batch_size, &EDGE)?, &manager)
    })
}

/// Gives a batch back. One that was not submitted is dropped, without callbacks; one in flight is waited for.
///
/// @param ctx  NULL, or a batch that was destroyed already, also with its manager: nothing happens.
///
/// Values that its GETs returned are gone afterwards. Called inside a callback of this batch it returns at once: the
/// remaining callbacks still come, the memory goes after the last of them, the handle is invalid now. In a child after
/// fork() it frees memory only. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_destroy(ctx: *mut kv_async_batch_context_t) {
    guard::nothing(c"kv_async_batch_destroy", || {
        if let Some(context) = handle::close_context(ctx) {
            context.destroy(); // in a forked child: frees what no lock is in the way of
        }
    });
}

/// Adds a PUT: stores a value under a key, over whatever is there.
///
/// @param ctx        a batch that was not submitted yet.
/// @param key        the key's bytes, copied; need not end with a NUL and may contain some.
/// @param key_len    their number, 1 to 65535.
/// @param value      the value's bytes, copied; not NULL.
/// @param value_len  their number, 0 to 536870912 (512 MiB).
/// @param callback   called once, when the operation has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has been called.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER (ctx, key or value is NULL, or key_len is 0); KV_ERR_KEY_TOO_LONG;
///         KV_ERR_INVALID_PARAM (value_len, or an invalid handle); KV_ERR_INVALID_STATE (submitted already);
///         KV_ERR_BATCH_FULL; KV_ERR_BATCH_TOO_LARGE (past max_memory_usage); KV_ERR_MEM. A refused call changes nothing.
///
/// key and value are the caller's again when this returns. Threads: any, several may add to one batch.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_put(
    ctx: *mut kv_async_batch_context_t,
    key: *const c_char,
    key_len: size_t,
    value: *const c_char,
    value_len: size_t,
    callback: kv_async_batch_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_put", || {
        let filling = handle::filling(ctx)?;
        // SAFETY: the caller's promise (see `arg`), for both.
        let (key, value) = unsafe { (arg::key(key, key_len)?, arg::value(value, value_len)?) };
        filling?.add(OpKind::Put, key, value, hook(callback, user_data, 0, 0))
    })
}

/// Adds a GET: reads the value under a key. It sees earlier operations of its own batch, and all of every batch whose
/// submit returned before its own.
///
/// @param ctx        a batch that was not submitted yet.
/// @param key        the key's bytes, copied.
/// @param key_len    their number, 1 to 65535.
/// @param value      where to put the value's address; may be NULL. See below.
/// @param value_len  where to put its length, in bytes; may be NULL. See below.
/// @param callback   called once, when the operation has ended, with the value in op->value; may be NULL.
/// @param user_data  for the callback; must stay valid until it has been called.
/// @return as kv_async_batch_put(). A key that is not there is no error here: the callback gets KV_ERR_KEY_NOT_FOUND, and the
///         operation counts as completed.
///
/// The value belongs to the batch: a NUL stands behind its last byte, it stays until kv_async_batch_destroy(), and is not to
/// be freed or changed.
///
/// *value and *value_len are written by kv_async_batch_wait(), in the thread that waits, once, before it returns, and by
/// nothing else: without a wait they are never touched. They get NULL and 0 if there is no value. They must be valid
/// during that wait. An address that two GETs of one batch share is never written (a loop over one local variable): take
/// op->value in the callback.
///
/// Threads: any, several may add to one batch.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_get(
    ctx: *mut kv_async_batch_context_t,
    key: *const c_char,
    key_len: size_t,
    value: *mut *mut c_char,
    value_len: *mut size_t,
    callback: kv_async_batch_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_get", || {
        let filling = handle::filling(ctx)?;
        // SAFETY: the caller's promise (see `arg`).
        let key = unsafe { arg::key(key, key_len) }?;
        let hook = hook(callback, user_data, value.expose_provenance(), value_len.expose_provenance());
        filling?.add(OpKind::Get, key, &[], hook)
    })
}

/// Adds a DELETE: takes a key away. Succeeds also if it is not there.
///
/// @param ctx        a batch that was not submitted yet.
/// @param key        the key's bytes, copied.
/// @param key_len    their number, 1 to 65535.
/// @param callback   called once, when the operation has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has been called.
/// @return as kv_async_batch_put().
///
/// Threads: any, several may add to one batch.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_delete(
    ctx: *mut kv_async_batch_context_t,
    key: *const c_char,
    key_len: size_t,
    callback: kv_async_batch_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_delete", || {
        let filling = handle::filling(ctx)?;
        // SAFETY: the caller's promise (see `arg`).
        let key = unsafe { arg::key(key, key_len) }?;
        filling?.add(OpKind::Delete, key, &[], hook(callback, user_data, 0, 0))
    })
}

/// Hands a batch over for execution. Never waits for a disk and never runs a callback itself.
///
/// @param ctx                a batch with at least one operation.
/// @param complete_callback  called once, after all operations' callbacks; may be NULL.
/// @param user_data          for complete_callback; must stay valid until it has been called.
/// @return KV_SUCCESS: from now on every callback comes exactly once, whether or not anybody waits;
///         KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM (the batch is empty, or an invalid handle); KV_ERR_INVALID_STATE (submitted
///         before, or the manager is not running); KV_ERR_BUSY (max_concurrent_batches are in flight: wait for one, submit
///         again). After a refusal the batch is as it was, and no callback comes.
///
/// Batches take effect in the order of their submits; the writes of one become visible together, and survive a crash all
/// or none. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_submit(
    ctx: *mut kv_async_batch_context_t,
    complete_callback: kv_async_batch_complete_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard::code(c"kv_async_batch_submit", || {
        let complete =
            CompleteHook { callback: complete_callback.map_or(0, |function| function as usize), user_data: user_data.expose_provenance() };
        handle::context(ctx)?.submit(complete)
    })
}

/// Waits until a submitted batch has ended and its last callback has returned; may do the batch's work, and call its
/// callbacks, meanwhile. Then writes what the GETs' out-pointers ask for.
///
/// @param ctx         a batch that was submitted.
/// @param timeout_ms  longest time to wait, in milliseconds; 0: only look.
/// @return KV_SUCCESS: every operation completed (with enable_batch_fsync: is on stable storage);
///         KV_ERR_BATCH_FAILED: at least one failed, its callback knows why; KV_ERR_CANCELLED; KV_ERR_TIMEOUT: not ended yet, it
///         goes on, wait again; KV_ERR_INVALID_STATE: not submitted, or called inside a callback of this batch;
///         KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle.
///
/// Threads: any number may wait, also after the end.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_wait(ctx: *mut kv_async_batch_context_t, timeout_ms: u32) -> c_int {
    guard::code(c"kv_async_batch_wait", || handle::context(ctx)?.wait(timeout_ms))
}

/// Cancels a batch that nobody has begun to carry out.
///
/// @param ctx  a batch.
/// @return KV_SUCCESS: it is cancelled, nothing was written; if it was submitted, its callbacks come with KV_ERR_CANCELLED.
///         Also KV_SUCCESS, without effect, if it has ended. KV_ERR_BUSY: it is being carried out and will complete;
///         KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_cancel(ctx: *mut kv_async_batch_context_t) -> c_int {
    guard::code(c"kv_async_batch_cancel", || handle::context(ctx)?.cancel())
}

/// Where a batch is in its life.
///
/// @param ctx  a batch.
/// @return its status; KV_ASYNC_BATCH_FAILED for NULL or an invalid handle, and then the last error says which.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_get_status(ctx: *const kv_async_batch_context_t) -> kv_async_batch_status_raw {
    let failed = kv_async_batch_status_e::KV_ASYNC_BATCH_FAILED as kv_async_batch_status_raw;
    guard::value(c"kv_async_batch_get_status", failed, || Ok(handle::context(ctx)?.status() as kv_async_batch_status_raw))
}

/// What the batch layer carries for C without ever looking into it.
#[inline(always)]
pub(super) fn hook(callback: kv_async_batch_callback_t, user_data: *mut c_void, out_value: usize, out_len: usize) -> Hook {
    Hook { callback: callback.map_or(0, |function| function as usize), user_data: user_data.expose_provenance(), out_value, out_len }
}
