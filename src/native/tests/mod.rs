//! Tests of the engine as a whole, on a simulated disk.

mod driver;
mod found;
mod model;
