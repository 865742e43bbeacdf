//! Tests of the engine as a whole, on a simulated disk.

mod beat;
mod bounded;
mod calls;
mod checkpoint;
mod compaction;
mod compound;
mod crash;
mod damage;
pub(super) mod driver;
mod faults;
mod format;
mod found;
mod full;
mod golden;
pub(crate) mod histories;
pub(crate) mod history;
pub(crate) mod model;
mod next;
mod outcomes;
mod packing;
#[cfg(feature = "planted")]
mod planted;
mod property;
mod reuse;
mod rot;
pub(crate) mod sweep;
mod syncs;
pub(super) mod workload;

use std::cell::Cell;

thread_local! {
    /// The secret of stores that are opened in this thread and have no checkpoint.
    pub static SECRET: Cell<[u64; 2]> = const { Cell::new([1, 2]) };
}
