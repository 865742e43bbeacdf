//! Rank 4: the asynchronous batch. No C types, no disk.
//!
//! A batch's life: `Context::add` encodes each operation into the batch's `Work`; `submit` gives that `Work` a place
//! in the store's `Lane`; an executor (a worker thread, or a thread in `wait`) takes it from there alone or in a group,
//! plans it, asks the engine (`execute`), and gives it back with its results (`Context::finish`); callbacks run in a
//! waiting thread or a delivery thread (`deliver`). `keeper` watches deadlines and the sync interval.

pub mod context;
mod deliver;
mod execute;
mod filling;
pub mod fork;
mod grouping;
#[cfg(test)]
mod histories;
mod keeper;
mod keys;
mod lane;
pub mod manager;
pub mod memory;
#[cfg(all(test, kv_model))]
mod models;
pub mod operation;
mod plan;
#[cfg(all(test, feature = "planted"))]
mod planted;
pub mod rejoin;
mod scope;
mod settings;
pub mod stats;
pub mod status;
#[cfg(test)]
mod tests;
mod wait;
mod work;

pub use context::Context;
pub use filling::{Basin, Filling};
pub use manager::Manager;
pub use memory::Allocator;
pub use operation::{CompleteHook, Edge, Hook, OpKind, OpView};
pub use settings::Settings;
pub use stats::Stats;
pub use status::Status;
