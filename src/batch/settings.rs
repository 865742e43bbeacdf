//! Checked settings of a manager: the configuration struct of C, without C.

use super::memory::Allocator;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::limits::BATCH_OPS_MAX;

/// What a manager was told. Field names are those of `kv_async_batch_config_t`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Operations a context takes when its creator names no number.
    pub max_batch_size: usize,
    /// Bytes that adding may make a context hold.
    pub max_memory_usage: usize,
    /// From submit until somebody must have begun to execute, in milliseconds.
    pub timeout_ms: u32,
    /// Batches in flight, from submit until the last callback has returned.
    pub max_concurrent_batches: u32,
    /// Reads in flight.
    pub io_queue_depth: u32,
    /// Poll for completions instead of sleeping.
    pub enable_io_polling: bool,
    /// Completion means stable storage.
    pub enable_batch_fsync: bool,
    /// Without `enable_batch_fsync`: how often the store is synced, in milliseconds; 0: never in the background.
    pub fsync_interval_ms: u32,
    /// Drop writes that a later write of the batch makes moot.
    pub enable_deduplication: bool,
    /// Reorder I/O.
    pub enable_sorting: bool,
    /// Store values packed where that is smaller.
    pub enable_compression: bool,
    /// Start reads ahead.
    pub enable_prefetching: bool,
    /// All or nothing.
    pub fail_fast: bool,
    /// Tries after a transient error of the store.
    pub max_retry_count: u32,
    /// Pause before each of them, in milliseconds.
    pub retry_delay_ms: u32,
    /// Where a batch's memory comes from.
    pub allocator: Allocator,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_batch_size: 256,
            max_memory_usage: 64 << 20,
            timeout_ms: 10_000,
            max_concurrent_batches: 64,
            io_queue_depth: 64,
            enable_io_polling: false,
            enable_batch_fsync: true,
            fsync_interval_ms: 5_000,
            enable_deduplication: true,
            enable_sorting: true,
            enable_compression: false,
            enable_prefetching: true,
            fail_fast: false,
            max_retry_count: 3,
            retry_delay_ms: 100,
            allocator: Allocator::system(),
        }
    }
}

impl Settings {
    /// Refuses what no manager can work with, naming the field.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field: &str, advice: &str| Err(Error::new(Code::INVALID_PARAM, format!("config.{field} is out of range: {advice}")));
        if self.max_batch_size == 0 || self.max_batch_size > BATCH_OPS_MAX {
            return refuse("max_batch_size", "use 1 to KV_ASYNC_BATCH_MAX_SIZE (1048576)");
        }
        if self.max_memory_usage == 0 {
            return refuse("max_memory_usage", "use at least one byte");
        }
        if self.timeout_ms == 0 {
            return refuse("timeout_ms", "use at least 1");
        }
        if self.max_concurrent_batches == 0 {
            return refuse("max_concurrent_batches", "use at least 1");
        }
        if self.io_queue_depth == 0 {
            return refuse("io_queue_depth", "use at least 1");
        }
        Ok(())
    }
}
