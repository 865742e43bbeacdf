//! Rank 2: asynchronous I/O on descriptors of the host program, behind `kv_io_uring.h`: rings, requests, batches.
//!
//! Called by `ffi` alone. A `Ring` has one thread, the reaper, which hands requests to a mover (`io::real::transfer`: a kernel
//! ring, or threads where that is denied), ends them, and calls back, each exactly once. Nothing here is a store or knows one;
//! no C type comes here: requests carry a number (`tag`) by which the edge knows them.
//! Never: run a callback with a lock held, or let go of a request whose memory the kernel may still use.

mod batch;
mod failure;
#[cfg(all(test, kv_model = "shuttle"))]
mod models;
mod reaper;
mod request;
mod ring;
mod settings;
mod slots;
mod stats;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use request::{Draft, Edge, Key, OpKind, Status};
pub use ring::Ring;
pub use settings::Settings;
pub use stats::Stats;
