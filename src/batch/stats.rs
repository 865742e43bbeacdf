//! What a batch and its manager have done: the 160 bytes of `kv_async_batch_stats_t`, all of them true.
//!
//! `Tally` is what is kept, in exact sums; `Stats` is what is shown, with means and rates worked out.

use std::time::Instant;

/// A snapshot; field names and meanings are those of the C struct. Times are sums of durations, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Operations: a context counts at add, a manager at submit.
    pub total_operations: u64,
    /// Operations that ended well (a GET that found nothing has).
    pub completed_operations: u64,
    /// Operations that failed or timed out.
    pub failed_operations: u64,
    /// Operations of cancelled batches.
    pub cancelled_operations: u64,
    /// Batches submitted.
    pub total_batches: u64,
    /// Batches that ended COMPLETED.
    pub completed_batches: u64,
    /// Batches that ended FAILED.
    pub failed_batches: u64,
    /// Value bytes of completed reads.
    pub bytes_read: u64,
    /// Value bytes of completed writes.
    pub bytes_written: u64,
    /// Completed operations.
    pub keys_processed: u64,
    /// Inside submit.
    pub total_submit_time: u64,
    /// From submit to the end of the operations.
    pub total_complete_time: u64,
    /// Inside wait.
    pub total_wait_time: u64,
    /// Operations per submitted batch.
    pub avg_batch_size: f64,
    /// Mean time from submit to the end of an operation, in microseconds.
    pub avg_latency_us: f64,
    /// Completed operations per second between the first submit and the last end.
    pub throughput_ops_per_sec: f64,
    /// Value bytes read and written per second of the same, in 10^6 bytes.
    pub throughput_mb_per_sec: f64,
    /// Most bytes that were held.
    pub peak_memory_usage: usize,
    /// Bytes held now.
    pub current_memory_usage: usize,
    /// Batches in flight now.
    pub active_batches: u32,
    /// Operations submitted that nobody has begun to execute.
    pub queued_operations: u32,
}

/// How the operations of one batch ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub latency_ns: u64,
}

/// The sums behind a `Stats`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    submitted: u64,
    ended: Outcome,
    batches: u64,
    batches_completed: u64,
    batches_failed: u64,
    complete_us: u64,
    submit_us: u64,
    wait_us: u64,
    first_submit: Option<Instant>,
    last_end: Option<Instant>,
}

/// A duration is never counted as nothing (what took 300 ns counts as 1 us), and rounded once, so that the sums of a
/// manager and of its contexts agree.
fn us(ns: u64) -> u64 {
    ns.div_ceil(1000)
}

impl Tally {
    pub fn submit(&mut self, operations: u64, at: Instant, took_ns: u64) {
        self.batches += 1;
        self.submitted += operations;
        self.submit_us += us(took_ns);
        self.first_submit.get_or_insert(at);
    }

    pub fn end(&mut self, outcome: &Outcome, at: Instant) {
        let operations = outcome.completed + outcome.failed + outcome.cancelled;
        self.ended.completed += outcome.completed;
        self.ended.failed += outcome.failed;
        self.ended.cancelled += outcome.cancelled;
        self.ended.bytes_read += outcome.bytes_read;
        self.ended.bytes_written += outcome.bytes_written;
        self.ended.latency_ns += outcome.latency_ns * operations;
        self.complete_us += us(outcome.latency_ns);
        if outcome.failed > 0 {
            self.batches_failed += 1;
        } else if outcome.cancelled == 0 {
            self.batches_completed += 1;
        }
        self.last_end = self.last_end.max(Some(at));
    }

    /// A pending batch that is cancelled was never submitted: its operations end all the same.
    pub fn end_unsubmitted(&mut self, operations: u64) {
        self.ended.cancelled += operations;
    }

    pub fn wait(&mut self, took_ns: u64) {
        self.wait_us += us(took_ns);
    }

    /// What a context shows: its operations count when they are added.
    pub fn of_context(&self, added: u64) -> Stats {
        self.show(added)
    }

    /// What a manager shows: operations count when they are submitted.
    pub fn of_manager(&self) -> Stats {
        self.show(self.submitted)
    }

    fn show(&self, total: u64) -> Stats {
        let ended = self.ended.completed + self.ended.failed + self.ended.cancelled;
        let seconds = match (self.first_submit, self.last_end) {
            (Some(first), Some(last)) => last.saturating_duration_since(first).as_secs_f64(),
            _ => 0.0,
        };
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Stats {
            total_operations: total,
            completed_operations: self.ended.completed,
            failed_operations: self.ended.failed,
            cancelled_operations: self.ended.cancelled,
            total_batches: self.batches,
            completed_batches: self.batches_completed,
            failed_batches: self.batches_failed,
            bytes_read: self.ended.bytes_read,
            bytes_written: self.ended.bytes_written,
            keys_processed: self.ended.completed,
            total_submit_time: self.submit_us,
            total_complete_time: self.complete_us,
            total_wait_time: self.wait_us,
            avg_batch_size: ratio(self.submitted as f64, self.batches as f64),
            avg_latency_us: ratio(self.ended.latency_ns as f64 / 1000.0, ended as f64),
            throughput_ops_per_sec: ratio(self.ended.completed as f64, seconds),
            throughput_mb_per_sec: ratio((self.ended.bytes_read + self.ended.bytes_written) as f64 / 1e6, seconds),
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sums_means_and_rates() {
        let start = Instant::now();
        let mut tally = Tally::default();
        tally.submit(10, start, 300);
        let outcome = Outcome { completed: 8, failed: 2, bytes_read: 100, bytes_written: 900, latency_ns: 5_000, ..Outcome::default() };
        tally.end(&outcome, start + Duration::from_secs(2));
        let stats = tally.of_context(10);
        assert_eq!((stats.total_operations, stats.completed_operations, stats.failed_operations), (10, 8, 2));
        assert_eq!((stats.total_batches, stats.completed_batches, stats.failed_batches), (1, 0, 1));
        assert_eq!((stats.total_submit_time, stats.total_complete_time), (1, 5));
        assert_eq!((stats.avg_batch_size, stats.avg_latency_us), (10.0, 5.0));
        assert_eq!((stats.throughput_ops_per_sec, stats.throughput_mb_per_sec), (4.0, 0.0005));
    }
}
