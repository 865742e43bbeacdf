//! `kv_uring_config_t`: create, change, check, destroy; and its way into the room's `Settings`.

use super::types::{KV_URING_DEFAULT_BUFFER_SIZE, KV_URING_DEFAULT_QUEUE_DEPTH, KV_URING_TIMEOUT_MS, kv_uring_config_s, kv_uring_config_t};
use super::{as_param, param};
use crate::base::error::{Error, Result};
use crate::base::sync::{LazyLock, Mutex, MutexGuard};
use crate::ffi::{arg, guard};
use crate::uring::Settings;
use libc::{c_int, size_t};
use std::collections::HashSet;
use std::ptr;

/// Addresses that `kv_uring_config_create` gave: what is destroyed must be one of them.
static MADE: LazyLock<Mutex<HashSet<usize>>> = LazyLock::new(Mutex::default);

/// In a forked child the lock may be held by a thread that is not there: then nothing.
fn all_made() -> Option<MutexGuard<'static, HashSet<usize>>> {
    if guard::in_forked_child() { MADE.try_lock() } else { Some(MADE.lock()) }
}

/// Makes a configuration with the defaults, for a caller to change: queue depth 64, no polling, idle time 1000 ms, room for
/// completions 2 times the queue depth, 1 worker thread, timeout 5000 ms, buffer size 65536 bytes.
///
/// @return the configuration, the caller's, to be given back with kv_uring_config_destroy(); NULL without memory
///         (KV_ERR_MEM).
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_config_create() -> *mut kv_uring_config_t {
    guard::pure(ptr::null_mut(), || {
        let mut made = ptr::null_mut();
        guard::pure_code(c"kv_uring_config_create", || {
            let no_memory = || Error::no_memory("no memory for a configuration: give the process more");
            let mut known = all_made().ok_or_else(no_memory)?;
            known.try_reserve(1).map_err(|_| no_memory())?;
            // SAFETY: a size above 0.
            let config = unsafe { libc::malloc(size_of::<kv_uring_config_s>()) }.cast::<kv_uring_config_s>();
            if config.is_null() {
                return Err(no_memory());
            }
            // SAFETY: freshly allocated for it.
            unsafe { config.write(DEFAULTS) };
            known.insert(config.addr());
            made = config;
            Ok(())
        });
        made
    })
}

/// Gives a configuration back. Rings that were created with it keep their copy.
///
/// @param config  from kv_uring_config_create(); NULL, one that was given back already, or one that was not made there:
///                nothing happens.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_config_destroy(config: *mut kv_uring_config_t) {
    guard::pure((), || {
        if all_made().is_some_and(|mut made| made.remove(&config.addr())) {
            // SAFETY: from malloc in `kv_uring_config_create`, and given back once.
            unsafe { libc::free(config.cast()) };
        }
    });
}

/// Sets the number of requests that may be in flight.
///
/// @param config  the caller's.
/// @param depth   KV_URING_MIN_QUEUE_DEPTH to KV_URING_MAX_QUEUE_DEPTH.
/// @return KV_SUCCESS; KV_ERR_PARAM if config is NULL or depth out of range, and then nothing is changed.
///
/// Threads: any, one at a time for one configuration; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_config_set_queue_depth(config: *mut kv_uring_config_t, depth: u32) -> c_int {
    guard::pure_code(c"kv_uring_config_set_queue_depth", || {
        // SAFETY: the caller's promise (see `arg`).
        unsafe { change(config, |config| config.queue_depth = depth, |settings| settings.queue_depth = depth) }
    })
}

/// Has a kernel thread look for submissions, or not.
///
/// @param config   the caller's.
/// @param enable   whether.
/// @param idle_ms  milliseconds without work after which that thread goes to sleep.
/// @return KV_SUCCESS; KV_ERR_PARAM if config is NULL.
///
/// Threads: any, one at a time for one configuration; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_config_set_sq_poll(config: *mut kv_uring_config_t, enable: bool, idle_ms: u32) -> c_int {
    guard::pure_code(c"kv_uring_config_set_sq_poll", || {
        let set = |config: &mut kv_uring_config_s| (config.use_sq_poll, config.sq_poll_idle) = (enable.into(), idle_ms);
        // SAFETY: the caller's promise (see `arg`).
        unsafe { change(config, set, |_| {}) }
    })
}

/// Polls for completions, or sleeps until they come.
///
/// @param config  the caller's.
/// @param enable  whether to poll.
/// @return KV_SUCCESS; KV_ERR_PARAM if config is NULL.
///
/// Threads: any, one at a time for one configuration; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_config_set_iopoll(config: *mut kv_uring_config_t, enable: bool) -> c_int {
    guard::pure_code(c"kv_uring_config_set_iopoll", || {
        // SAFETY: the caller's promise (see `arg`).
        unsafe { change(config, |config| config.use_iopoll = enable.into(), |_| {}) }
    })
}

/// Sets buffer_size.
///
/// @param config  the caller's.
/// @param size    in bytes, 1 to KV_URING_MAX_BUFFER_SIZE.
/// @return KV_SUCCESS; KV_ERR_PARAM if config is NULL or size out of range, and then nothing is changed.
///
/// Threads: any, one at a time for one configuration; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_config_set_buffer_size(config: *mut kv_uring_config_t, size: size_t) -> c_int {
    guard::pure_code(c"kv_uring_config_set_buffer_size", || {
        // SAFETY: the caller's promise (see `arg`).
        unsafe { change(config, |config| config.buffer_size = size, |settings| settings.buffer_size = size) }
    })
}

/// Checks a configuration, as kv_uring_create() does.
///
/// @param config  what to check; the caller's, read during the call only.
/// @return KV_SUCCESS; KV_ERR_PARAM if it is NULL or a field is out of range: the last error names it.
///
/// Threads: any; also in a child after fork().
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_config_validate(config: *const kv_uring_config_t) -> c_int {
    guard::pure_code(c"kv_uring_config_validate", || {
        // SAFETY: the caller's promise (see `arg`).
        settings(&unsafe { as_param(arg::read(config, "config")) }?).validate()
    })
}

const DEFAULTS: kv_uring_config_s = kv_uring_config_s {
    queue_depth: KV_URING_DEFAULT_QUEUE_DEPTH as u32,
    sq_poll_idle: 1000,
    use_sq_poll: 0,
    use_iopoll: 0,
    use_kernel_sqe_thread: 0,
    cq_entries_multiplier: 2,
    worker_threads: 1,
    timeout_ms: KV_URING_TIMEOUT_MS as u32,
    buffer_size: KV_URING_DEFAULT_BUFFER_SIZE as usize,
    allocator: ptr::null_mut(),
};

/// The settings that a caller gave, or the defaults for NULL; their ranges are not checked yet.
///
/// # Safety
/// As for [`arg::read`], but `config` may be NULL.
pub(super) unsafe fn given_or_default(config: *const kv_uring_config_t) -> Settings {
    // SAFETY: by the caller's promise.
    settings(&unsafe { arg::read_optional(config) }.unwrap_or(DEFAULTS))
}

/// Changes a field, unless the same change makes the defaults invalid: then the value is out of range.
///
/// # Safety
/// As for [`arg::read`] and [`arg::write`].
unsafe fn change(
    config: *mut kv_uring_config_t,
    set: impl FnOnce(&mut kv_uring_config_s),
    tried: impl FnOnce(&mut Settings),
) -> Result<()> {
    if config.is_null() {
        return Err(param("config is NULL: pass what kv_uring_config_create() returned"));
    }
    let mut trial = settings(&DEFAULTS);
    tried(&mut trial);
    trial.validate()?;
    // SAFETY: by the caller's promise.
    unsafe {
        let mut changed = arg::read(config, "config")?;
        set(&mut changed);
        arg::write(config, changed, "config")
    }
}

fn settings(c: &kv_uring_config_s) -> Settings {
    Settings {
        queue_depth: c.queue_depth,
        sq_poll_idle_ms: c.sq_poll_idle,
        use_sq_poll: c.use_sq_poll != 0 || c.use_kernel_sqe_thread != 0,
        use_polling: c.use_iopoll != 0,
        cq_entries_multiplier: c.cq_entries_multiplier,
        worker_threads: c.worker_threads,
        timeout_ms: c.timeout_ms,
        buffer_size: c.buffer_size,
    }
}
