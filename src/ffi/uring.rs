//! `kv_io_uring.h`: so far only whether rings are to be had, and the clock.

use super::guard;
use crate::base::clock;

/// Whether an io_uring can be set up in this process right now. The library does not depend on the answer: without a
/// ring, batches read through threads.
///
/// @return true if the kernel has just given a ring (and taken it back); false if it said no, in a container that bars
///         it for instance, or in a child after fork() of a process that had started a manager.
///
/// Threads: any. Never sets the last error.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_is_supported() -> bool {
    guard::pure(false, || !guard::in_forked_child() && io_uring::IoUring::new(2).is_ok())
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
