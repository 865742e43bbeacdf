//! Tests of the engine as a whole, on a simulated disk.

mod crash;
mod driver;
mod found;
mod model;
mod workload;
