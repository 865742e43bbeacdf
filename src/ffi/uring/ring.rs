//! Rings: create, start, stop, destroy; what this machine can do.

use super::types::{kv_uring_config_t, kv_uring_t};
use super::{config, known, ring_of};
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::ffi::{fork, guard, handle, log};
use crate::io::real::transfer;
use crate::uring::Ring;
use crate::{batch, uring::Settings};
use libc::c_int;

/// Makes a ring. It needs nothing of the kernel yet: that begins with kv_uring_start().
///
/// @param config  how it works, copied; NULL: the defaults of kv_uring_config_create().
/// @return the ring, to be given back with kv_uring_destroy(); NULL if the configuration is invalid (KV_ERR_PARAM) or without
///         memory (KV_ERR_MEM): the last error says what to change.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_create(config: *const kv_uring_config_t) -> *mut kv_uring_t {
    guard::quiet_panics();
    log::install();
    guard::handle(c"kv_uring_create", || {
        // SAFETY: the caller's promise (see `arg`).
        let settings: Settings = unsafe { config::given_or_default(config) };
        handle::give_ring(Ring::create(settings, &known::EDGE)?)
    })
}

/// Gives a ring back: stops it as kv_uring_stop() does, then takes all its requests that still live.
///
/// @param uring  NULL, or a ring that was destroyed already: nothing happens.
///
/// Called inside a callback of this ring it returns at once: the handle is invalid now, the remaining callbacks still come,
/// requests go after the last of them. Batches of the ring stay until they are destroyed, but cannot be submitted. In a
/// child after fork() it does nothing. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_destroy(uring: *mut kv_uring_t) {
    guard::nothing(c"kv_uring_destroy", || {
        if let Some(ring) = handle::close_ring(uring) {
            if guard::in_forked_child() {
                return ring.abandon();
            }
            ring.destroy();
        }
    });
}

/// Starts a ring: from now on it takes requests. It uses io_uring where the kernel allows that, else threads;
/// kv_uring_print_stats() says which, and why. The environment variable KVBATCH_IO (auto, uring, threads) has a say.
///
/// @param uring  a ring, new or stopped.
/// @return KV_SUCCESS, also if it runs already; KV_ERR_PARAM (NULL or an invalid handle); KV_ERR_THREAD_CREATE; KV_ERR_FILE
///         (no descriptor is left); KV_ERR_MEM; KV_ERR_INVALID_STATE (it is being stopped).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_start(uring: *mut kv_uring_t) -> c_int {
    guard::code(c"kv_uring_start", || {
        let ring = ring_of(uring)?;
        fork::watch()?;
        batch::fork::mark_started();
        ring.start().inspect_err(|_| batch::fork::unmark_started())
    })
}

/// Stops a ring: takes no more requests, waits until those in flight have ended and their callbacks have returned. What
/// waits for a peer (a pipe, a socket, a terminal) is cancelled, everything else is carried out.
///
/// @param uring  a ring, running or not.
/// @return KV_SUCCESS, also if it does not run; KV_ERR_PARAM (NULL or an invalid handle); KV_ERR_INVALID_STATE inside a
///         callback of this ring.
///
/// Requests can still be looked at, and the ring can be started again. Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_stop(uring: *mut kv_uring_t) -> c_int {
    guard::code(c"kv_uring_stop", || ring_of(uring)?.stop())
}

/// Whether an io_uring can be set up in this process right now. The library does not depend on the answer: without a
/// ring of the kernel, threads do the same.
///
/// @return true if the kernel has just given a ring (and taken it back); false if it said no, in a container that bars
///         it for instance, or in a child after fork() of a process that had started a manager or a ring.
///
/// Threads: any. Never sets the last error.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_is_supported() -> bool {
    guard::pure(false, || !guard::in_forked_child() && transfer::ring_is_to_be_had())
}

/// Whether a ring works through io_uring, with all the operations that this needs.
///
/// @param uring  a ring; if it does not run, the answer is what a start would find now.
/// @return KV_SUCCESS if it does; KV_ERR_NOT_SUPPORTED if threads do the work: the last error says why; KV_ERR_PARAM (NULL or
///         an invalid handle).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_probe_features(uring: *mut kv_uring_t) -> c_int {
    guard::code(c"kv_uring_probe_features", || {
        let (name, reason) = ring_of(uring)?.backend();
        let reason = match name {
            "io_uring" => return Ok(()),
            "threads" => reason,
            _ if transfer::ring_is_to_be_had() => return Ok(()),
            _ => "the kernel does not allow io_uring".to_owned(),
        };
        Err(Error::new(Code::NOT_SUPPORTED, format!("{reason}; everything works all the same, through threads")))
    })
}

/// The time, in microseconds since 1970; never goes back within a process.
///
/// @return microseconds.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_get_timestamp_us() -> u64 {
    guard::pure(0, clock::unix_us_rising)
}
