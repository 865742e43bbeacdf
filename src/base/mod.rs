//! Rank 0: what every other room leans on. Nothing here knows of batches, engines or C callers.

pub mod clock;
pub mod code;
pub mod crc;
pub mod error;
pub mod few;
pub mod hash;
pub mod limits;
pub mod log;
pub mod mapping;
#[cfg(all(test, kv_model))]
pub mod models;
pub mod planted;
pub mod prefetch;
pub mod random;
pub mod sync;
