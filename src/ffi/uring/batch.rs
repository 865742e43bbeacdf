//! Batches of reads and writes that are handed over together.

use super::known::{self, Form};
use super::request::draft;
use super::types::{kv_uring_batch_t, kv_uring_callback_t, kv_uring_t};
use super::{as_param, ring_of};
use crate::base::error::Result;
use crate::ffi::{guard, handle};
use crate::uring::{Batch, OpKind};
use libc::{c_int, c_void, off_t, size_t};
use std::sync::Arc;

/// Makes an empty batch.
///
/// @param uring     the ring that it will be submitted to; need not run.
/// @param capacity  requests that it holds, 1 to KV_URING_MAX_BATCH_SIZE.
/// @return the batch, to be given back with kv_uring_batch_destroy(); NULL, with the last error KV_ERR_PARAM (capacity, NULL or
///         an invalid handle) or KV_ERR_MEM.
///
/// It can be filled and submitted again and again. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_batch_create(uring: *mut kv_uring_t, capacity: size_t) -> *mut kv_uring_batch_t {
    guard::handle(c"kv_uring_batch_create", || {
        let ring = ring_of(uring)?;
        handle::give_ring_batch(Arc::new(Batch::create(&ring, capacity)?))
    })
}

/// Gives a batch back, and with it all its requests: those that were not submitted are dropped, without callbacks; those in
/// flight go on, and their callbacks come; those that have ended are destroyed, as by kv_uring_request_destroy().
///
/// @param batch  NULL, or a batch that was destroyed already: nothing happens.
///
/// In a child after fork() it does nothing. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_batch_destroy(batch: *mut kv_uring_batch_t) {
    guard::nothing(c"kv_uring_batch_destroy", || {
        if let Some(batch) = handle::close_ring_batch(batch) {
            if guard::in_forked_child() {
                return batch.abandon();
            }
            batch.destroy(&known::EDGE);
        }
    });
}

/// Adds a read. It begins when the batch is submitted.
///
/// @param batch      the batch.
/// @param fd         where from; stays open until the callback.
/// @param buffer     where to; belongs to the library from the submission until the request has ended.
/// @param size       bytes to read, 1 to 2147483647.
/// @param offset     as for kv_uring_read_async().
/// @param callback   called once, when the request has ended, with the request; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return KV_SUCCESS; KV_ERR_PARAM (an argument, NULL or an invalid handle); KV_ERR_BATCH_FULL; KV_ERR_MEM. A refused call
///         changes nothing.
///
/// Threads: any, several may add to one batch.
// SAFETY: left to the caller, as `arg` says; `buffer` until the request has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_batch_add_read(
    batch: *mut kv_uring_batch_t,
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    offset: off_t,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> c_int {
    let form = Form { op: OpKind::Read, fd, buffer, size, offset, iovecs: &[], callback, user_data };
    guard::code(c"kv_uring_batch_add_read", || add(batch, &form))
}

/// Adds a write. It begins when the batch is submitted.
///
/// @param batch      the batch.
/// @param fd         where to; stays open until the callback.
/// @param buffer     the bytes; not to be changed until the request has ended.
/// @param size       bytes to write, 1 to 2147483647.
/// @param offset     as for kv_uring_write_async().
/// @param callback   called once, when the request has ended, with the request; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return as kv_uring_batch_add_read().
///
/// Threads: any, several may add to one batch.
// SAFETY: left to the caller, as `arg` says; `buffer` until the request has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_batch_add_write(
    batch: *mut kv_uring_batch_t,
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    offset: off_t,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> c_int {
    let form = Form { op: OpKind::Write, fd, buffer: buffer.cast_mut(), size, offset, iovecs: &[], callback, user_data };
    guard::code(c"kv_uring_batch_add_write", || add(batch, &form))
}

/// Hands all requests of a batch over together. The batch is empty then, and can be filled again.
///
/// @param uring  the ring that it was created for, running.
/// @param batch  a batch with at least one request.
/// @return KV_SUCCESS: every callback comes exactly once; KV_ERR_PARAM (the batch is empty or another ring's, NULL or an
///         invalid handle); KV_ERR_INVALID_STATE (the ring does not run); KV_ERR_BUSY (queue_depth requests are in flight: wait
///         for one, submit again); KV_ERR_MEM. After a refusal the batch is as it was, and no callback comes.
///
/// A batch is taken whole as soon as one more request may come; what is above queue_depth waits in the library. The requests
/// are carried out in no particular order. They are known by their callbacks, can be destroyed by kv_uring_request_destroy(),
/// and go with the batch or the ring. Never runs a callback itself. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_batch_submit(uring: *mut kv_uring_t, batch: *mut kv_uring_batch_t) -> c_int {
    guard::code(c"kv_uring_batch_submit", || {
        let ring = ring_of(uring)?;
        as_param(handle::ring_batch(batch))?.submit(&ring)
    })
}

fn add(batch: *const kv_uring_batch_t, form: &Form<'_>) -> Result<()> {
    let batch = as_param(handle::ring_batch(batch))?;
    batch.add(|| draft(batch.ring(), form))
}
