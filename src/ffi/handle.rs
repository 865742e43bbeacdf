//! Handles: what C holds instead of addresses.
//!
//! A handle is a token {kind, generation, index of a slot}. Slots are never given back to the system, so a token can
//! always be looked up, and one that was destroyed, made up, or belongs to the other kind of object is told apart by
//! comparing numbers: nothing is ever followed. While a call works with an object its slot is pinned; the object goes
//! with the last pin after its handle was destroyed.
//!
//! Called by every export that takes a handle: a look-up is two atomic additions (`table`). Adding to a batch does without: beside
//! each batch lies the basin that it is filled in, which lives for ever, and whose lock tells whose it is (`filling`). The token's
//! top bits make an address that no program has, the low four are 0, as those of an address from malloc.

#[cfg(all(test, kv_model = "loom"))]
mod models;
mod table;

pub use table::{Closing, Pinned};

use super::types::{kv_async_batch_context_t, kv_async_batch_manager_t};
use super::uring::types::{kv_uring_batch_t, kv_uring_t};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{Ordering, fence};
use crate::batch::{Basin, Context, Filling, Manager};
use crate::uring::{Batch, Ring};
use std::ptr;
use std::sync::Arc;
use table::Table;

static MANAGERS: Table<Manager> = Table::new(3);
static CONTEXTS: Table<Context, Basin> = Table::new(5);
static RINGS: Table<Ring> = Table::new(6);
static RING_BATCHES: Table<Batch> = Table::new(7);

/// The manager behind a handle.
pub fn manager(token: *const kv_async_batch_manager_t) -> Result<Pinned<Manager>> {
    let token = token.addr();
    MANAGERS.pin(token).ok_or_else(|| MANAGERS.refusal(token, "manager", "kv_async_batch_manager_create()"))
}

/// The batch behind a handle.
pub fn context(token: *const kv_async_batch_context_t) -> Result<Pinned<Context, Basin>> {
    let token = token.addr();
    CONTEXTS.pin(token).ok_or_else(|| no_context(token))
}

/// The batch behind a handle, to be added to; inside it is why that takes no more: whatever else is wrong comes first.
#[inline(always)]
pub fn filling(token: *const kv_async_batch_context_t) -> Result<Result<Filling>> {
    let token = token.addr();
    filling_in(&CONTEXTS, token).ok_or_else(|| no_context(token))
}

#[inline(always)]
fn filling_in(contexts: &'static Table<Context, Basin>, token: usize) -> Option<Result<Filling>> {
    match contexts.beside(token).and_then(|basin| basin.filling_of(token)) {
        Some(filling) => Some(Ok(filling)),
        None => filling_of_pinned(contexts, token),
    }
}

/// For a batch that takes no more, or whose basin does not bear its name: the table knows what it is.
#[cold]
fn filling_of_pinned(contexts: &'static Table<Context, Basin>, token: usize) -> Option<Result<Filling>> {
    Some(contexts.pin(token)?.filling())
}

#[cold]
fn no_context(token: usize) -> Error {
    CONTEXTS.refusal(token, "ctx", "kv_async_batch_create()")
}

/// The ring behind a handle.
pub fn ring(token: *const kv_uring_t) -> Result<Pinned<Ring>> {
    let token = token.addr();
    RINGS.pin(token).ok_or_else(|| RINGS.refusal(token, "uring", "kv_uring_create()"))
}

/// The batch of a ring behind a handle.
pub fn ring_batch(token: *const kv_uring_batch_t) -> Result<Pinned<Batch>> {
    let token = token.addr();
    RING_BATCHES.pin(token).ok_or_else(|| RING_BATCHES.refusal(token, "batch", "kv_uring_batch_create()"))
}

/// A handle for a new ring.
pub fn give_ring(ring: Arc<Ring>) -> Result<*mut kv_uring_t> {
    Ok(ptr::without_provenance_mut(RINGS.insert(ring, &())?))
}

/// A handle for a new batch of a ring.
pub fn give_ring_batch(batch: Arc<Batch>) -> Result<*mut kv_uring_batch_t> {
    Ok(ptr::without_provenance_mut(RING_BATCHES.insert(batch, &())?))
}

/// Takes a ring's handle out of use once what comes back is dropped; `None` if somebody else has done so, or does.
pub fn close_ring(token: *const kv_uring_t) -> Option<Closing<Ring>> {
    RINGS.close(token.addr())
}

/// The same for a batch of a ring.
pub fn close_ring_batch(token: *const kv_uring_batch_t) -> Option<Closing<Batch>> {
    RING_BATCHES.close(token.addr())
}

/// A handle for a new manager.
pub fn give_manager(manager: Arc<Manager>) -> Result<*mut kv_async_batch_manager_t> {
    Ok(ptr::without_provenance_mut(MANAGERS.insert(manager, &())?))
}

/// A handle for a new batch of `manager`.
pub fn give_context(context: Arc<Context>, manager: &Pinned<Manager>) -> Result<*mut kv_async_batch_context_t> {
    Ok(ptr::without_provenance_mut(give_in(&CONTEXTS, context, manager)?))
}

fn give_in(contexts: &'static Table<Context, Basin>, context: Arc<Context>, manager: &Pinned<Manager>) -> Result<usize> {
    let token = contexts.insert(Arc::clone(&context), context.basin())?;
    context.set_edge_tag(token);
    // Its manager may be on its way out in another thread: either that one finds the tag in the manager's list, or we
    // see here that its handle is closing. Both look after they have written (the fences make it so).
    if !planted(Bug::FenceLeftOut) {
        fence(Ordering::SeqCst);
    }
    if manager.is_closing() {
        drop(contexts.close(token));
        context.destroy();
        return Err(Error::new(
            Code::INVALID_PARAM,
            "manager is being destroyed by another thread: create batches before, or use another manager",
        ));
    }
    Ok(token)
}

/// Takes a manager's handle out of use once what comes back is dropped; `None` if somebody else has done so, or does.
pub fn close_manager(token: *const kv_async_batch_manager_t) -> Option<Closing<Manager>> {
    closed(&MANAGERS, token.addr())
}

fn closed(managers: &'static Table<Manager>, token: usize) -> Option<Closing<Manager>> {
    let closing = managers.close(token);
    fence(Ordering::SeqCst); // see `give_in`
    closing
}

/// Takes a batch's handle out of use once what comes back is dropped; `None` if somebody else has done so, or does.
pub fn close_context(token: *const kv_async_batch_context_t) -> Option<Closing<Context, Basin>> {
    closed_context(&CONTEXTS, token.addr())
}

fn closed_context(contexts: &'static Table<Context, Basin>, token: usize) -> Option<Closing<Context, Basin>> {
    let closing = contexts.close(token)?;
    closing.shut();
    Some(closing)
}
