//! `kv_io_uring.h`: what C sees of the room `uring`.
//!
//! Rings and their batches are handles (`handle`). A request is a struct that C reads, so it has an address: `known` holds
//! the addresses of those that live, and only what stands there is ever followed.

mod known;

pub mod batch;
pub mod config;
pub mod request;
pub mod ring;
pub mod stats;
pub mod types;

use super::handle::{self, Pinned};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::uring::Ring;

/// This header has one code for every argument that is not as it should be.
fn param(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Code::PARAM, text)
}

/// Other parts of the edge say more exactly what is wrong with an argument; here it is `KV_ERR_PARAM`.
fn as_param<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| match error.code {
        Code::NULL_POINTER | Code::INVALID_PARAM => Error { code: Code::PARAM, ..error },
        _ => error,
    })
}

/// The ring behind a handle.
fn ring_of(uring: *const types::kv_uring_t) -> Result<Pinned<Ring>> {
    as_param(handle::ring(uring))
}
