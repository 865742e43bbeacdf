//! Tests of the engine as a whole, on a simulated disk.

mod bounded;
mod calls;
mod compound;
mod crash;
mod damage;
mod driver;
mod faults;
mod format;
mod found;
mod golden;
mod model;
#[cfg(feature = "planted")]
mod planted;
mod property;
mod rot;
mod sweep;
mod workload;
