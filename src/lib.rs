//! kvbatch: asynchronous batches of puts, gets and deletes on a durable embedded store, as a C library.
//!
//! C programs see `include/kvserver/*.h` alone. Inside, modules stand in ranks: a module imports only lower
//! ranks, never a sibling (`tests/tidy.rs` enforces it). `docs/ARCHITECTURE.md` is the map.

// No panic reaches a host program, and nothing is printed there.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unimplemented)]
#![deny(clippy::print_stdout, clippy::print_stderr)]

// Rank 5: every `extern "C"`, every raw pointer that comes from C.
pub mod ffi;

// Rank 4: the asynchronous batch; no C types, no disk.
pub mod batch;

// Rank 3: a URL means an engine; managers that name one store share it.
pub mod store;

// Rank 2: the engines; asynchronous I/O on the host's own descriptors.
pub mod memory;
pub mod native;
pub mod uring;

// Rank 1: the contract between batches and engines; bytes to disk and back.
pub mod engine;
pub mod io;

// Rank 0: no policy.
pub mod base;
