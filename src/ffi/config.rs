//! `kv_async_batch_config_t`: defaults, check, copy; and its way into the batch layer's `Settings`.

use super::types::{
    KV_ASYNC_BATCH_DEFAULT_SIZE, KV_ASYNC_BATCH_DEFAULT_TIMEOUT_MS, KV_ASYNC_BATCH_MAX_CONCURRENT, kv_async_batch_config_s,
    kv_async_batch_config_t,
};
use super::{arg, guard};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::batch::{Allocator, Settings};
use libc::c_int;

/// The defaults, for a caller to change: 256 operations, 64 MiB, 10 s, 64 batches in flight, queue depth 64, no polling,
/// sync per batch, 5 s between syncs in the background, deduplication, sorting and prefetching on, compression and
/// fail_fast off, 3 retries 100 ms apart, malloc and free.
///
/// @return the configuration, by value.
///
/// Threads: any; also in a child after fork(). Never fails.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_default_config() -> kv_async_batch_config_t {
    DEFAULTS
}

/// Checks a configuration, as kv_async_batch_manager_create() does.
///
/// @param config  what to check; the caller's, read during the call only.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER if config is NULL; KV_ERR_INVALID_PARAM if a field is out of range: the last
///         error names it.
///
/// Threads: any; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_config_validate(config: *const kv_async_batch_config_t) -> c_int {
    guard::pure_code(c"kv_async_batch_config_validate", || {
        // SAFETY: the caller's promise (see `arg`).
        let config = unsafe { arg::read(config, "config") }?;
        settings(&config)?.validate()
    })
}

/// Copies a configuration, without checking it.
///
/// @param dst  where to; the caller's.
/// @param src  what to copy; the caller's, read during the call only. May be dst itself.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER if one of them is NULL, and then nothing is written.
///
/// Threads: any; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_config_copy(dst: *mut kv_async_batch_config_t, src: *const kv_async_batch_config_t) -> c_int {
    guard::pure_code(c"kv_async_batch_config_copy", || {
        arg::required(dst, "dst")?;
        // SAFETY: the caller's promise (see `arg`), for both.
        unsafe { arg::write(dst, arg::read(src, "src")?, "dst") }
    })
}

const DEFAULTS: kv_async_batch_config_s = kv_async_batch_config_s {
    max_batch_size: KV_ASYNC_BATCH_DEFAULT_SIZE as usize,
    max_memory_usage: 64 << 20,
    timeout_ms: KV_ASYNC_BATCH_DEFAULT_TIMEOUT_MS as u32,
    max_concurrent_batches: KV_ASYNC_BATCH_MAX_CONCURRENT as u32,
    io_queue_depth: 64,
    enable_io_polling: 0,
    enable_batch_fsync: 1,
    fsync_interval_ms: 5000,
    enable_deduplication: 1,
    enable_sorting: 1,
    enable_compression: 0,
    enable_prefetching: 1,
    fail_fast: 0,
    max_retry_count: 3,
    retry_delay_ms: 100,
    alloc_func: Some(libc::malloc),
    free_func: Some(libc::free),
};

/// The configuration that a caller gave, or the defaults for NULL; as settings whose ranges are not checked yet.
///
/// # Safety
/// As for [`arg::read`], but `config` may be NULL.
pub(super) unsafe fn given_or_default(config: *const kv_async_batch_config_t) -> Result<Settings> {
    if config.is_null() {
        return settings(&DEFAULTS);
    }
    // SAFETY: by the caller's promise.
    settings(&unsafe { arg::read(config, "config") }?)
}

fn settings(c: &kv_async_batch_config_s) -> Result<Settings> {
    let missing = |field: &str| {
        Error::new(
            Code::INVALID_PARAM,
            format!("config.{field} is NULL: set alloc_func and free_func both (malloc and free, as kv_async_batch_default_config() does)"),
        )
    };
    Ok(Settings {
        max_batch_size: c.max_batch_size,
        max_memory_usage: c.max_memory_usage,
        timeout_ms: c.timeout_ms,
        max_concurrent_batches: c.max_concurrent_batches,
        io_queue_depth: c.io_queue_depth,
        enable_io_polling: c.enable_io_polling != 0,
        enable_batch_fsync: c.enable_batch_fsync != 0,
        fsync_interval_ms: c.fsync_interval_ms,
        enable_deduplication: c.enable_deduplication != 0,
        enable_sorting: c.enable_sorting != 0,
        enable_compression: c.enable_compression != 0,
        enable_prefetching: c.enable_prefetching != 0,
        fail_fast: c.fail_fast != 0,
        max_retry_count: c.max_retry_count,
        retry_delay_ms: c.retry_delay_ms,
        allocator: Allocator {
            alloc: c.alloc_func.ok_or_else(|| missing("alloc_func"))?,
            free: c.free_func.ok_or_else(|| missing("free_func"))?,
        },
    })
}
