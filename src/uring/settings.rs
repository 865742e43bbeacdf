//! How a ring works, as checked numbers. Made by the edge from `kv_uring_config_t`.

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::limits::{URING_BUFFER_BYTES_MAX, URING_DEPTH_MAX};
use crate::io::real::transfer::Wishes;

/// Most threads that a configuration may ask for.
const THREADS_MAX: u32 = 256;
/// As many may be started without a ring, whatever the configuration says: a single one would put all I/O in a line.
const THREADS_AT_LEAST: u32 = 16;
/// Room for completions, as a multiple of the queue depth: at most.
const COMPLETIONS_MAX: u32 = 64;

/// See the file. The fields are those of the C struct.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests in flight at the most.
    pub queue_depth: u32,
    /// Milliseconds after which an idle kernel thread sleeps.
    pub sq_poll_idle_ms: u32,
    /// Have a kernel thread look for submissions.
    pub use_sq_poll: bool,
    /// Poll for completions instead of sleeping.
    pub use_polling: bool,
    /// Room for completions, as a multiple of the queue depth.
    pub cq_entries_multiplier: u32,
    /// Threads without a ring.
    pub worker_threads: u32,
    /// Limit of a request, from its submission; `u32::MAX`: none.
    pub timeout_ms: u32,
    /// Kept for programs that read it back.
    pub buffer_size: usize,
}

impl Settings {
    /// Refuses what is out of range, naming it.
    pub fn validate(&self) -> Result<()> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::new(Code::PARAM, format!("config->{name} is {value}: set it to a number from {least} to {most}")))
        };
        within("queue_depth", self.queue_depth.into(), 1, URING_DEPTH_MAX.into())?;
        within("cq_entries_multiplier", self.cq_entries_multiplier.into(), 1, COMPLETIONS_MAX.into())?;
        within("worker_threads", self.worker_threads.into(), 1, THREADS_MAX.into())?;
        within("timeout_ms", self.timeout_ms.into(), 1, u32::MAX.into())?;
        within("buffer_size", self.buffer_size as u64, 1, URING_BUFFER_BYTES_MAX as u64)
    }

    pub(super) fn wishes(&self) -> Wishes {
        Wishes {
            depth: self.queue_depth,
            completions: self.cq_entries_multiplier,
            kernel_thread_idle_ms: self.use_sq_poll.then_some(self.sq_poll_idle_ms),
            polling: self.use_polling,
            threads: self.worker_threads.max(THREADS_AT_LEAST),
        }
    }
}
