//! Requests: submit, wait, cancel, look at, destroy.

use super::known::{self, Form};
use super::types::{kv_uring_callback_t, kv_uring_request_t, kv_uring_t};
use super::{param, ring_of};
use crate::base::error::{Error, Result};
use crate::base::limits::URING_TRANSFER_BYTES_MAX;
use crate::ffi::abi::{iovec_raw, kv_uring_req_status_raw};
use crate::ffi::guard;
use crate::io::real::transfer::{Transfer, Way};
use crate::uring::{Draft, Edge, Key, OpKind, Ring, Status};
use libc::{c_int, c_void, iovec, off_t, size_t};
use std::sync::Arc;

/// Linux takes this many pieces in one call (UIO_MAXIOV).
const PIECES_MAX: usize = 1024;

/// Reads from a file, pipe or socket into a buffer.
///
/// @param uring      a running ring.
/// @param fd         where from; stays open until the callback.
/// @param buffer     where to; belongs to the library until the request has ended.
/// @param size       bytes to read, 1 to 2147483647.
/// @param offset     where in the file, in bytes; -1: at the descriptor's own position. No matter for pipes and sockets.
/// @param callback   called once, when the request has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return the request, to be given back with kv_uring_request_destroy() (what is not goes with the ring); NULL, with the
///         last error KV_ERR_PARAM (an argument, NULL or an invalid handle), KV_ERR_INVALID_STATE (the ring does not run),
///         KV_ERR_BUSY (queue_depth requests are in flight: wait for one) or KV_ERR_MEM. Then no callback comes.
///
/// The result is the number of bytes: fewer than size only at the end of a file, or where a pipe or socket has no more for
/// now. Requests in flight together are carried out in no particular order: wait for a write before what has to come after
/// it. Never runs a callback itself. Threads: any.
// SAFETY: left to the caller, as `arg` says; `buffer` until the request has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_read_async(
    uring: *mut kv_uring_t,
    fd: c_int,
    buffer: *mut c_void,
    size: size_t,
    offset: off_t,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> *mut kv_uring_request_t {
    guard::handle(c"kv_uring_read_async", || {
        let form = Form { op: OpKind::Read, fd, buffer, size, offset, iovecs: &[], callback, user_data };
        submit(&*ring_of(uring)?, &form)
    })
}

/// Writes a buffer to a file, pipe or socket.
///
/// @param uring      a running ring.
/// @param fd         where to; stays open until the callback.
/// @param buffer     the bytes; not to be changed until the request has ended.
/// @param size       bytes to write, 1 to 2147483647.
/// @param offset     where in the file, in bytes; -1: at the descriptor's own position. No matter for pipes and sockets.
/// @param callback   called once, when the request has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return as kv_uring_read_async().
///
/// The result is size, or an error: a write that the system cuts short is gone on with. After an error a part may have been
/// written. Completed does not mean durable: that takes kv_uring_fsync_async(). Threads: any.
// SAFETY: left to the caller, as `arg` says; `buffer` until the request has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_write_async(
    uring: *mut kv_uring_t,
    fd: c_int,
    buffer: *const c_void,
    size: size_t,
    offset: off_t,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> *mut kv_uring_request_t {
    guard::handle(c"kv_uring_write_async", || {
        let form = Form { op: OpKind::Write, fd, buffer: buffer.cast_mut(), size, offset, iovecs: &[], callback, user_data };
        submit(&*ring_of(uring)?, &form)
    })
}

/// Reads from a file, pipe or socket into several buffers, one after the other.
///
/// @param uring      a running ring.
/// @param fd         where from; stays open until the callback.
/// @param iovecs     the buffers; the array is copied, the buffers belong to the library until the request has ended.
/// @param iovcnt     their number, 1 to 1024; together 1 to 2147483647 bytes.
/// @param offset     where in the file, in bytes; -1: at the descriptor's own position. No matter for pipes and sockets.
/// @param callback   called once, when the request has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return as kv_uring_read_async().
///
/// The result is as for kv_uring_read_async(). Threads: any.
// SAFETY: left to the caller, as `arg` says; the buffers until the request has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_readv_async(
    uring: *mut kv_uring_t,
    fd: c_int,
    iovecs: *mut iovec_raw,
    iovcnt: c_int,
    offset: off_t,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> *mut kv_uring_request_t {
    guard::handle(c"kv_uring_readv_async", || {
        // SAFETY: the caller's promise (see `arg`).
        let (iovecs, size) = unsafe { pieces(iovecs, iovcnt)? };
        let form = Form { op: OpKind::Readv, fd, buffer: std::ptr::null_mut(), size, offset, iovecs, callback, user_data };
        submit(&*ring_of(uring)?, &form)
    })
}

/// Writes several buffers to a file, pipe or socket, one after the other.
///
/// @param uring      a running ring.
/// @param fd         where to; stays open until the callback.
/// @param iovecs     the bytes; the array is copied, the buffers are not to be changed until the request has ended.
/// @param iovcnt     their number, 1 to 1024; together 1 to 2147483647 bytes.
/// @param offset     where in the file, in bytes; -1: at the descriptor's own position. No matter for pipes and sockets.
/// @param callback   called once, when the request has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return as kv_uring_read_async().
///
/// The result is as for kv_uring_write_async(). Threads: any.
// SAFETY: left to the caller, as `arg` says; the buffers until the request has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_writev_async(
    uring: *mut kv_uring_t,
    fd: c_int,
    iovecs: *const iovec_raw,
    iovcnt: c_int,
    offset: off_t,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> *mut kv_uring_request_t {
    guard::handle(c"kv_uring_writev_async", || {
        // SAFETY: the caller's promise (see `arg`).
        let (iovecs, size) = unsafe { pieces(iovecs, iovcnt)? };
        let form = Form { op: OpKind::Writev, fd, buffer: std::ptr::null_mut(), size, offset, iovecs, callback, user_data };
        submit(&*ring_of(uring)?, &form)
    })
}

/// Puts everything that was written to a file before on stable storage. Writes count whose callbacks have returned.
///
/// @param uring      a running ring.
/// @param fd         the file; stays open until the callback.
/// @param callback   called once, when the request has ended; may be NULL.
/// @param user_data  for the callback; must stay valid until it has returned.
/// @return as kv_uring_read_async().
///
/// The result is 0. After an error what was written must be taken for lost: a second fsync may report success without having
/// written it. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_fsync_async(
    uring: *mut kv_uring_t,
    fd: c_int,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
) -> *mut kv_uring_request_t {
    guard::handle(c"kv_uring_fsync_async", || {
        let form = Form { op: OpKind::Fsync, fd, buffer: std::ptr::null_mut(), size: 0, offset: 0, iovecs: &[], callback, user_data };
        submit(&*ring_of(uring)?, &form)
    })
}

/// Waits until a request has ended and its callback has returned.
///
/// @param uring       its ring.
/// @param req         the request; to be destroyed by nobody while this waits.
/// @param timeout_ms  for how long, in milliseconds; 0: only looks; UINT32_MAX: without limit.
/// @return KV_SUCCESS if it completed; KV_ERR_TIMEOUT if it has not ended yet, and then it goes on; KV_ERR_CANCELLED. If it
///         failed, what its errno means: KV_ERR_DISK_FULL, KV_ERR_IO, KV_ERR_PARAM (a bad descriptor or buffer), KV_ERR_SYS
///         (not permitted), KV_ERR_BUSY (not ready, and not to block), KV_ERR_NOT_SUPPORTED, KV_ERR_MEM, or
///         KV_ERR_ASYNC_FAILED (out of the ring's timeout_ms). KV_ERR_PARAM also for NULL, an invalid handle, a destroyed
///         request or one of another ring; KV_ERR_INVALID_STATE inside a callback of this ring, unless it need not wait.
///
/// May be called again, by several threads, also after the end. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_wait_request(uring: *mut kv_uring_t, req: *mut kv_uring_request_t, timeout_ms: u32) -> c_int {
    guard::code(c"kv_uring_wait_request", || {
        let (ring, key) = of_ring(uring, req)?;
        ring.wait(key, timeout_ms)
    })
}

/// Asks for the end of a request. One that nobody has begun, or that waits for a peer, is cancelled; one that a disk is
/// working on may complete all the same. The callback comes in any case, with -ECANCELED or with what became of it.
///
/// @param uring  its ring.
/// @param req    the request.
/// @return KV_SUCCESS, also if it had ended already; KV_ERR_PARAM for NULL, an invalid handle, a destroyed request or one of
///         another ring.
///
/// Returns at once: the buffer still belongs to the library until the request has ended. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_cancel_request(uring: *mut kv_uring_t, req: *mut kv_uring_request_t) -> c_int {
    guard::code(c"kv_uring_cancel_request", || {
        let (ring, key) = of_ring(uring, req)?;
        ring.cancel(key)
    })
}

/// Gives a request back. One in flight goes on: its callback comes, its buffer belongs to the library until then.
///
/// @param req  NULL, or a request that was destroyed already, also with its ring: nothing happens.
///
/// Its struct is not to be read afterwards; inside its own callback it can be, until that returns. In a child after fork()
/// it does nothing. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_request_destroy(req: *mut kv_uring_request_t) {
    guard::nothing(c"kv_uring_request_destroy", || {
        if !guard::in_forked_child()
            && let Some((ring, key)) = known::forget(req)
        {
            ring.give_back(key);
        }
    });
}

/// Where a request is in its life.
///
/// @param req  a request.
/// @return its status; KV_URING_REQ_FAILED for NULL or a destroyed request (last error KV_ERR_PARAM).
///
/// When this says that it has ended its callback may still be running. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_request_status(req: *const kv_uring_request_t) -> kv_uring_req_status_raw {
    guard::value(c"kv_uring_request_status", Status::Failed as c_int, || Ok(look(req)?.0 as c_int))
}

/// The result of a request.
///
/// @param req  a request.
/// @return bytes, or a negative errno; -EINPROGRESS if it has not ended; -EINVAL for NULL or a destroyed request (last error
///         KV_ERR_PARAM).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_request_result(req: *const kv_uring_request_t) -> c_int {
    guard::value(c"kv_uring_request_result", -libc::EINVAL, || {
        let (status, result) = look(req)?;
        Ok(if matches!(status, Status::Pending | Status::Submitted) { -libc::EINPROGRESS } else { result })
    })
}

/// Sees to it that everything submitted is on its way. Not needed: submitted requests are on their way at once.
///
/// @param uring  a running ring.
/// @return the number of requests that nobody had begun yet; -1 on failure: the last error is KV_ERR_PARAM (NULL or an
///         invalid handle) or KV_ERR_INVALID_STATE (the ring does not run).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_submit(uring: *mut kv_uring_t) -> c_int {
    guard::value(c"kv_uring_submit", -1, || Ok(count(ring_of(uring)?.submit_queued()?)))
}

/// Submits, then waits, as kv_uring_submit() and kv_uring_wait_completions() do.
///
/// @param uring       a running ring.
/// @param wait_nr     how many requests to wait for; 0: none.
/// @param timeout_ms  for how long, in milliseconds; 0: only looks; UINT32_MAX: without limit.
/// @return as kv_uring_wait_completions().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_submit_and_wait(uring: *mut kv_uring_t, wait_nr: u32, timeout_ms: u32) -> c_int {
    guard::code(c"kv_uring_submit_and_wait", || {
        let ring = ring_of(uring)?;
        ring.submit_queued()?;
        ring.wait_many(wait_nr as usize, timeout_ms)
    })
}

/// How many requests have ended, their callbacks returned, that no wait has reported: neither kv_uring_wait_request() nor
/// kv_uring_wait_completions(). Destroyed ones are not among them.
///
/// @param uring  a ring.
/// @return their number; -1 on failure: the last error is KV_ERR_PARAM (NULL or an invalid handle).
///
/// Looks only: the same requests are counted again next time. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_peek_completions(uring: *mut kv_uring_t) -> c_int {
    guard::value(c"kv_uring_peek_completions", -1, || Ok(count(ring_of(uring)?.unseen())))
}

/// Waits until as many requests have ended, their callbacks returned, that no wait has reported before; these are reported
/// then, whether they completed or not.
///
/// @param uring       a ring.
/// @param wait_nr     how many; 0: returns at once.
/// @param timeout_ms  for how long, in milliseconds; 0: only looks; UINT32_MAX: without limit.
/// @return KV_SUCCESS; KV_ERR_TIMEOUT, and then none is reported; KV_ERR_PARAM (NULL or an invalid handle);
///         KV_ERR_INVALID_STATE if the ring does not run and fewer have ended, or inside a callback of this ring, unless it
///         need not wait.
///
/// Requests that are destroyed before they are reported do not count. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_wait_completions(uring: *mut kv_uring_t, wait_nr: u32, timeout_ms: u32) -> c_int {
    guard::code(c"kv_uring_wait_completions", || ring_of(uring)?.wait_many(wait_nr as usize, timeout_ms))
}

/// A request for `ring` that has its struct; arguments are checked first.
pub(super) fn draft(ring: &Arc<Ring>, form: &Form<'_>) -> Result<Draft> {
    check(form)?;
    let way = match form.op {
        OpKind::Read | OpKind::Readv => Way::Read,
        OpKind::Write | OpKind::Writev => Way::Write,
        _ => Way::Sync,
    };
    let transfer = if way == Way::Sync {
        Transfer::sync(form.fd)
    } else if form.iovecs.is_empty() {
        // SAFETY: what the header asks of the caller: the buffer is the library's until the request has ended.
        unsafe { Transfer::buffer(way, form.fd, form.buffer, form.size, form.offset) }
    } else {
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(form.iovecs.len()).map_err(|_| Error::no_memory("no memory for another request"))?;
        pieces.extend_from_slice(form.iovecs);
        // SAFETY: as above.
        unsafe { Transfer::pieces(way, form.fd, pieces, form.offset) }
    };
    Ok(Draft { tag: known::make(ring, form)?, op: form.op, transfer })
}

fn submit(ring: &Arc<Ring>, form: &Form<'_>) -> Result<*mut kv_uring_request_t> {
    let draft = draft(ring, form)?;
    let tag = draft.tag;
    match ring.submit_one(draft) {
        Ok(_) => Ok(known::pointer(tag)),
        Err(error) => {
            known::EDGE.release(tag);
            Err(error)
        }
    }
}

fn check(form: &Form<'_>) -> Result<()> {
    if form.fd < 0 {
        return Err(param(format!("fd is {}: pass an open descriptor", form.fd)));
    }
    if form.op == OpKind::Fsync {
        return Ok(());
    }
    if form.iovecs.is_empty() && form.buffer.is_null() {
        return Err(param("buffer is NULL: pass the address of one"));
    }
    if form.size == 0 || form.size > URING_TRANSFER_BYTES_MAX {
        return Err(param(format!("{} bytes: a request transfers 1 to {URING_TRANSFER_BYTES_MAX}", form.size)));
    }
    if form.offset < -1 || form.offset.checked_add(form.size as off_t).is_none() {
        return Err(param(format!("offset is {}: pass one from 0, or -1 for the descriptor's own position", form.offset)));
    }
    Ok(())
}

/// The caller's array, and how many bytes it names.
///
/// # Safety
/// As in `arg`: NULL, or `count` elements; the result does not outlive the call.
unsafe fn pieces<'a>(iovecs: *const iovec, count: c_int) -> Result<(&'a [iovec], usize)> {
    let length = usize::try_from(count).ok().filter(|length| (1..=PIECES_MAX).contains(length));
    let Some(length) = length else { return Err(param(format!("iovcnt is {count}: pass 1 to {PIECES_MAX} buffers"))) };
    if iovecs.is_null() || !iovecs.is_aligned() {
        return Err(param("iovecs is NULL or not aligned: pass the address of an array"));
    }
    // SAFETY: not NULL, aligned; `length` elements by the caller's promise.
    let pieces = unsafe { std::slice::from_raw_parts(iovecs, length) };
    if pieces.iter().any(|piece| piece.iov_base.is_null() && piece.iov_len > 0) {
        return Err(param("an iov_base is NULL: pass the address of a buffer"));
    }
    let total = pieces.iter().try_fold(0_usize, |sum, piece| sum.checked_add(piece.iov_len));
    Ok((pieces, total.unwrap_or(usize::MAX)))
}

fn of_ring(uring: *const kv_uring_t, req: *const kv_uring_request_t) -> Result<(Arc<Ring>, Key)> {
    let ring = ring_of(uring)?;
    let (own, key) = known::find(req)?;
    if !Arc::ptr_eq(&ring, &own) {
        return Err(param("req belongs to another ring: pass the ring that it was submitted to"));
    }
    Ok((own, key))
}

fn look(req: *const kv_uring_request_t) -> Result<(Status, i32)> {
    let (ring, key) = known::find(req)?;
    ring.look(key).ok_or_else(|| param("req was destroyed: pass one that lives"))
}

fn count(number: usize) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}
