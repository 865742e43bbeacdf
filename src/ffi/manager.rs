//! Managers: create, start, stop, destroy, statistics.

use super::types::{kv_async_batch_config_t, kv_async_batch_manager_t, kv_async_batch_stats_t};
use super::{arg, config, fork, guard, handle, log, stats};
use crate::base::error::Result;
use crate::batch::Manager;
use libc::c_int;

/// Makes a manager. It touches no file: that begins with kv_async_batch_manager_start().
///
/// Its store is the one that the environment variable KVBATCH_STORE names at this moment: a directory, "file:PATH",
/// "memory:" (private, nothing kept) or "memory:NAME" (shared in the process). Unset or empty: the directory kvbatch-data
/// below the working directory. Managers of one process that name one store share it.
///
/// @param config  how to work, copied; NULL: kv_async_batch_default_config().
/// @return the manager, to be given back with kv_async_batch_manager_destroy(); NULL if the configuration or KVBATCH_STORE
///         is invalid (KV_ERR_INVALID_PARAM), names an engine that is not built in (KV_ERR_NOT_SUPPORTED), or without
///         memory (KV_ERR_MEM): the last error says what to change.
///
/// alloc_func and free_func must stay callable until the manager and all its batches are destroyed.
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_manager_create(config: *const kv_async_batch_config_t) -> *mut kv_async_batch_manager_t {
    prepare();
    // SAFETY: the caller's promise (see `arg`).
    guard::handle(c"kv_async_batch_manager_create", || unsafe { create(config, &store_url()) })
}

/// To be called before the first manager is made: no panic and no line goes astray.
pub(super) fn prepare() {
    guard::quiet_panics();
    log::install();
}

/// A manager whose store is at `url`.
///
/// # Safety
/// As for [`config::given_or_default`].
pub(super) unsafe fn create(config: *const kv_async_batch_config_t, url: &[u8]) -> Result<*mut kv_async_batch_manager_t> {
    // SAFETY: by the caller's promise.
    let settings = unsafe { config::given_or_default(config) }?;
    handle::give_manager(Manager::create(settings, url)?)
}

/// Stops a manager as kv_async_batch_manager_stop() does and gives it back. Its batches that still live go with it: those
/// in flight complete first, those not submitted are dropped without callbacks; their handles are invalid from then on.
///
/// @param manager  NULL, or a manager that was destroyed already: nothing happens.
///
/// Called inside a callback it returns at once, and the rest is done by a thread of the library. In a child after fork()
/// it does not touch the store. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_manager_destroy(manager: *mut kv_async_batch_manager_t) {
    guard::nothing(c"kv_async_batch_manager_destroy", || {
        let Some(manager) = handle::close_manager(manager) else { return };
        if guard::in_forked_child() {
            manager.destroy(); // frees what no lock is in the way of
            // Its threads are not here, its files are the parent's: no more of its clean-up may run.
            manager.abandon();
            return;
        }
        // Before and after: destroying may take the batches off the list, and some may have been created meanwhile.
        let mut contexts = manager.contexts();
        manager.destroy();
        contexts.extend(manager.contexts());
        for context in contexts {
            drop(handle::close_context(context as *mut _));
        }
    });
}

/// Opens the store and starts the threads.
///
/// @param manager  from kv_async_batch_manager_create().
/// @return KV_SUCCESS, also if it is running already; KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle; or why
///         the store cannot be opened: KV_ERR_FILE (its path is no directory), KV_ERR_SYS (no right to write there),
///         KV_ERR_LOCK (another process has it), KV_ERR_CORRUPTED (damaged), KV_ERR_NOT_SUPPORTED (made by a newer
///         version), KV_ERR_CONFIG (holds a file of another store), KV_ERR_DISK_FULL, KV_ERR_IO, KV_ERR_MEM,
///         KV_ERR_THREAD_CREATE. The last error names the path and the way out; the store is as it was.
///
/// Recovers the store first, if its last user did not stop cleanly. May be called again after a failure and after a stop.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_manager_start(manager: *mut kv_async_batch_manager_t) -> c_int {
    guard::code(c"kv_async_batch_manager_start", || {
        let manager = handle::manager(manager)?;
        // Before the first thread and file, so that no fork goes unnoticed.
        fork::watch()?;
        manager.start()
    })
}

/// Completes what was submitted, callbacks included, refuses what comes after, syncs, and closes the store.
///
/// @param manager  from kv_async_batch_manager_create().
/// @return KV_SUCCESS, also if it is not running; KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle;
///         KV_ERR_INVALID_STATE inside a callback of this manager; KV_ERR_IO if the last sync failed (it is stopped then, too).
///
/// May be started again. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_manager_stop(manager: *mut kv_async_batch_manager_t) -> c_int {
    guard::code(c"kv_async_batch_manager_stop", || handle::manager(manager)?.stop())
}

/// Reads a manager's statistics: those of all its batches so far.
///
/// @param manager  from kv_async_batch_manager_create().
/// @param stats    where to; the caller's.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_manager_get_stats(
    manager: *const kv_async_batch_manager_t,
    stats: *mut kv_async_batch_stats_t,
) -> c_int {
    guard::code(c"kv_async_batch_manager_get_stats", || {
        let manager = handle::manager(manager)?;
        arg::required(stats, "stats")?;
        let figures = stats::to_c(&manager.stats());
        // SAFETY: the caller's promise (see `arg`).
        unsafe { arg::write(stats, figures, "stats") }
    })
}

/// What KVBATCH_STORE says, or the default.
fn store_url() -> Vec<u8> {
    arg::environment(c"KVBATCH_STORE").unwrap_or_else(|| b"kvbatch-data".to_vec())
}
