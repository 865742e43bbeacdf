//! Request structs: made, kept up to date, given back; and the addresses of those that live.
//!
//! A request that C passes is looked up here before anything else, so one that was destroyed or made up is told apart and
//! never followed. Memory of destroyed requests rests for a while before it is used again: an address that a program still
//! holds by mistake names nothing then, where it could name another request. This is also the edge of the room `uring`.

use super::param;
use super::types::{kv_uring_callback_t, kv_uring_request_s, kv_uring_request_t};
use crate::base::error::{Error, Result};
use crate::base::sync::{Arc, LazyLock, Mutex};
use crate::ffi::callback::without_unwinding;
use crate::uring::{Edge, Key, OpKind, Ring, Status};
use libc::{c_int, c_void, iovec, off_t, timespec};
use std::collections::{HashMap, VecDeque};
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// The C side, as the room `uring` sees it.
pub static EDGE: RequestEdge = RequestEdge;

/// See [`EDGE`].
pub struct RequestEdge;

/// Destroyed requests whose memory rests.
const RESTING_MAX: usize = 1024;

static KNOWN: LazyLock<Mutex<HashMap<usize, Known>>> = LazyLock::new(Mutex::default);
static RESTING: Mutex<VecDeque<usize>> = Mutex::new(VecDeque::new());

struct Known {
    ring: Arc<Ring>,
    /// `None` until the ring has accepted it.
    key: Option<Key>,
}

/// What C sees, with what it must not change behind it; then the copies of the iovecs.
#[repr(C)]
struct Block {
    public: kv_uring_request_s,
    callback: kv_uring_callback_t,
    user_data: *mut c_void,
}

// As the header's type, but "C-unwind" (see `callback`).
type OnRequest = unsafe extern "C-unwind" fn(*mut kv_uring_request_s, c_int, *mut c_void);

/// What a request is made of.
pub struct Form<'a> {
    pub op: OpKind,
    pub fd: c_int,
    pub buffer: *mut c_void,
    pub size: usize,
    pub offset: off_t,
    pub iovecs: &'a [iovec],
    pub callback: kv_uring_callback_t,
    pub user_data: *mut c_void,
}

/// Makes a request struct for `ring`; its address is the tag. To be accepted, or given back with `release`.
pub fn make(ring: &Arc<Ring>, form: &Form<'_>) -> Result<usize> {
    let no_memory = || Error::no_memory("no memory for another request: destroy some that have ended");
    // SAFETY: a size above 0.
    let block = unsafe { libc::malloc(size_of::<Block>() + size_of_val(form.iovecs)) }.cast::<Block>();
    if block.is_null() {
        return Err(no_memory());
    }
    // SAFETY: there is room for the iovecs behind the block, and both are aligned as malloc aligns.
    let iovecs = unsafe {
        let copy = block.add(1).cast::<iovec>();
        ptr::copy_nonoverlapping(form.iovecs.as_ptr(), copy, form.iovecs.len());
        if form.iovecs.is_empty() { ptr::null_mut() } else { copy }
    };
    let public = kv_uring_request_s {
        request_id: 0,
        op_type: form.op as c_int,
        status: Status::Pending as c_int,
        fd: form.fd,
        buffer: form.buffer,
        size: form.size,
        offset: form.offset,
        iovecs,
        iovcnt: form.iovecs.len() as c_int,
        callback: form.callback,
        user_data: form.user_data,
        result: 0,
        submit_time: NEVER,
        complete_time: NEVER,
        reserved_1: ptr::null_mut(),
        reserved_2: ptr::null_mut(),
        owns_buffer: 0,
        next: ptr::null_mut(),
        prev: ptr::null_mut(),
    };
    // SAFETY: freshly allocated for it.
    unsafe { block.write(Block { public, callback: form.callback, user_data: form.user_data }) };
    let tag = block.expose_provenance();
    let mut known = KNOWN.lock();
    if known.try_reserve(1).is_err() {
        drop(known);
        // SAFETY: nobody has seen it.
        unsafe { libc::free(block.cast()) };
        return Err(no_memory());
    }
    known.insert(tag, Known { ring: Arc::clone(ring), key: None });
    Ok(tag)
}

/// The struct with this tag, for C.
pub fn pointer(tag: usize) -> *mut kv_uring_request_t {
    ptr::with_exposed_provenance_mut(tag)
}

/// Ring and name of a request that C passes.
pub fn find(req: *const kv_uring_request_t) -> Result<(Arc<Ring>, Key)> {
    if req.is_null() {
        return Err(param(
            "req is NULL: pass what a function like kv_uring_read_async() returned (if that was NULL, the last error said why)",
        ));
    }
    let known = KNOWN.lock();
    let found = known.get(&req.addr()).and_then(|known| Some((Arc::clone(&known.ring), known.key?)));
    found.ok_or_else(|| param("req was destroyed, or its ring was, or it never was a request: pass one that lives"))
}

/// The same, and its address names nothing from now on; `None` if it does not already.
pub fn forget(req: *const kv_uring_request_t) -> Option<(Arc<Ring>, Key)> {
    let mut known = KNOWN.lock();
    known.get(&req.addr())?.key?;
    let gone = known.remove(&req.addr())?;
    Some((gone.ring, gone.key?))
}

const NEVER: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

fn time(unix_us: u64) -> timespec {
    timespec { tv_sec: (unix_us / 1_000_000) as libc::time_t, tv_nsec: (unix_us % 1_000_000 * 1000) as libc::c_long }
}

fn block(tag: usize) -> *mut Block {
    ptr::with_exposed_provenance_mut(tag)
}

/// Changes the status, which C may be looking at.
fn set_status(tag: usize, status: Status) {
    // SAFETY: the ring calls the edge only between acceptance and release of a request, and the block lives as long; the
    // field is aligned, and changed by nobody else.
    unsafe { AtomicI32::from_ptr(&raw mut (*block(tag)).public.status) }.store(status as c_int, Ordering::Release);
}

impl Edge for RequestEdge {
    fn accepted(&self, tag: usize, key: Key, unix_us: u64) {
        // SAFETY: as in `set_status`; C does not know the address yet.
        unsafe {
            (*block(tag)).public.request_id = key.id;
            (*block(tag)).public.submit_time = time(unix_us);
        }
        if let Some(known) = KNOWN.lock().get_mut(&tag) {
            known.key = Some(key);
        }
    }

    fn begun(&self, tag: usize) {
        set_status(tag, Status::Submitted);
    }

    fn ended(&self, tag: usize, status: Status, result: i32, unix_us: u64) {
        // SAFETY: as in `set_status`. Callback and user data are the library's copies.
        let (callback, user_data) = unsafe {
            (*block(tag)).public.result = result;
            (*block(tag)).public.complete_time = time(unix_us);
            ((*block(tag)).callback, (*block(tag)).user_data)
        };
        set_status(tag, status);
        if let Some(callback) = callback {
            // SAFETY: the same function, by a type that allows for what C++ may throw.
            let callback = unsafe { std::mem::transmute::<*const (), OnRequest>(callback as *const ()) };
            // SAFETY: what the header promises: the request can be read until the callback returns.
            without_unwinding(&mut || unsafe { callback(pointer(tag), result, user_data) });
        }
    }

    fn release(&self, tag: usize) {
        let known = KNOWN.lock().remove(&tag);
        let mut resting = RESTING.lock();
        let room = resting.capacity() > resting.len() || resting.try_reserve_exact(RESTING_MAX + 1).is_ok();
        let mut goes = Some(tag);
        if room {
            resting.push_back(tag);
            goes = if resting.len() > RESTING_MAX { resting.pop_front() } else { None };
        }
        drop(resting);
        if let Some(tag) = goes {
            // SAFETY: from malloc in `make`, released once, and neither the ring nor a look-up leads to it any more.
            unsafe { libc::free(block(tag).cast()) };
        }
        drop(known); // last: it may be the last one to know the ring
    }
}
