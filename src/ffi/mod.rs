//! Rank 5: every `extern "C"`, every raw pointer that comes from C.
//!
//! | header                | declarations     | functions                                          |
//! |-----------------------|------------------|----------------------------------------------------|
//! | `kv_error.h`          | `error_types.rs` | `error.rs`, `variadic.rs` (with `variadic.c`)      |
//! | `kv_async_batch_io.h` | `types.rs`       | `config.rs`, `manager.rs`, `batch.rs`, `stats.rs`  |
//! | `kv_batch_ext.h`      |                  | `ext.rs`, `log.rs` (with `log_environment.rs`), `version.rs` |
//! | `kv_io_uring.h`       | `uring/types.rs` | `uring/config.rs`, `ring.rs`, `request.rs`, `batch.rs`, `stats.rs` |
//!
//! cbindgen makes the headers from these files: their comments are what a C programmer reads (`tests/headers.rs`).
//! Around them: `guard` (panics, `errno`, forked children, last error), `handle` (tokens for managers and batches),
//! `arg` (pointers to values; what a valid pointer is), `callback` (calling C), `fork` (the child's side), `abi` and
//! `error_text`. Nothing here decides anything about batches: that is rank 4.
#![allow(unsafe_code)]
// What makes a pointer valid is said once, in `arg`; doc comments here are the C header, which has no such heading.
#![allow(clippy::missing_safety_doc)]

pub mod abi;
pub mod error_types;
pub mod types;

mod arg;
mod error_text;
mod guard;
mod handle;

mod callback;
mod fork;
mod log_environment;

pub mod batch;
pub mod config;
pub mod error;
pub mod ext;
pub mod log;
pub mod manager;
pub mod stats;
pub mod uring;
pub mod variadic;
pub mod version;
