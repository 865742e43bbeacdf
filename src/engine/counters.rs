//! What an engine counts: the observable effect of settings, printed by `kv_async_batch_print_stats`.

use crate::base::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($( $name:ident $text:literal; )*) => {
        /// A snapshot of an engine's counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $( #[doc = $text] pub $name: u64, )* }

        /// The counters themselves; each is exact, a snapshot of several need not be of one moment.
        #[derive(Debug, Default)]
        pub struct AtomicCounters { $( #[doc = $text] pub $name: AtomicU64, )* }

        impl AtomicCounters {
            /// The present values.
            pub fn snapshot(&self) -> Counters {
                Counters { $( $name: self.$name.load(Ordering::Relaxed), )* }
            }
        }

        impl Counters {
            /// Names and values, for printing.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$( (stringify!($name), self.$name) ),*]
            }
        }
    };
}

counters! {
    groups "Commit groups written.";
    batches "Batches in them.";
    records "Records in them.";
    log_bytes "Bytes handed to the log, frames and padding included.";
    log_writes "Write calls for them.";
    syncs "Times data was put on stable storage, by a synchronous write or by fdatasync.";
    early_bytes "Bytes of log whose way from the system's memory to the device was begun ahead of a sync.";
    chunks_created "Chunk files made.";
    chunks_removed "Chunk files removed by compaction.";
    chunks_damaged "Chunk files that compaction found damaged and kept.";
    held_back "Groups that waited a little because compaction could not keep up.";
    moved_records "Records that compaction moved.";
    moved_bytes "Bytes of them.";
    checkpoints "Checkpoints of the index written.";
    checkpoint_bytes "Bytes of them.";
    loaded_keys "Keys that opening took from a checkpoint.";
    replayed_bytes "Bytes of log that opening went through.";
    given_up_records "Records that opening with recovery=prefix gave up, as far as they can be counted.";
    given_up_chunks "Chunk files that it gave up as a whole.";
    keys "Keys in the index now.";
    hot_reads "Reads answered from the hot log.";
    cold_reads "Reads answered from disk.";
    cold_reads_sorted "Cold reads that were put into the order of places.";
    cold_reads_in_flight_max "Most cold reads that were in flight at one time.";
    ring_reads "Cold reads that went through io_uring.";
    polled_reads "Cold reads whose completion was polled for.";
    damaged_reads "Reads refused because the stored record was damaged.";
    index_bytes "Memory of the index, in bytes.";
    reserve_bytes "Disk space kept for the day when the disk is full, in bytes.";
    hot_bytes "Memory of the hot log, in bytes.";
}

/// Adds `n` to a counter.
#[inline]
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Raises a high-water mark to `n`.
#[inline]
pub fn raise(counter: &AtomicU64, n: u64) {
    counter.fetch_max(n, Ordering::Relaxed);
}

/// How an engine's bytes reach the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoReport {
    /// `"io_uring"`, `"threads"` or `"memory"`.
    pub backend: &'static str,
    /// Why that one.
    pub reason: String,
}
