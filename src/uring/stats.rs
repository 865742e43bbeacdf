//! What a ring has counted. Every figure is counted under the ring's lock, so that they agree with each other.

use super::request::{OpKind, Status};
use std::time::{Duration, Instant};

/// The figures, as C sees them; times in microseconds, throughput in units of 1000000 bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)] // the C struct's fields, explained there
pub struct Stats {
    pub read_count: u64,
    pub write_count: u64,
    pub readv_count: u64,
    pub writev_count: u64,
    pub sync_count: u64,
    pub total_operations: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub total_submit_time: u64,
    pub total_complete_time: u64,
    pub total_queue_time: u64,
    pub submissions_total: u64,
    pub completions_total: u64,
    pub submissions_batched: u64,
    pub queue_full_count: u64,
    pub error_count: u64,
    pub timeout_count: u64,
    pub cancelled_count: u64,
    pub avg_submit_latency: f64,
    pub avg_complete_latency: f64,
    pub avg_queue_depth: f64,
    pub read_throughput: f64,
    pub write_throughput: f64,
}

/// One kind of operation.
#[derive(Clone, Copy, Default)]
struct Kind {
    accepted: u64,
    ended: u64,
    bytes: u64,
    time: Duration,
}

/// Counts since the last reset.
pub(super) struct Tally {
    kinds: [Kind; OpKind::ALL.len()],
    batched: u64,
    refused: u64,
    failed: u64,
    expired: u64,
    cancelled: u64,
    submitting: Duration,
    queued: Duration,
    depths: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Number of this count.
    pub epoch: u32,
}

impl Tally {
    pub fn new(epoch: u32) -> Tally {
        Tally {
            kinds: [Kind::default(); OpKind::ALL.len()],
            batched: 0,
            refused: 0,
            failed: 0,
            expired: 0,
            cancelled: 0,
            submitting: Duration::ZERO,
            queued: Duration::ZERO,
            depths: 0,
            first: None,
            last: None,
            epoch,
        }
    }

    /// A request was accepted, and is one of `depth` in flight.
    pub fn accepted(&mut self, op: OpKind, depth: usize, batched: bool, now: Instant) {
        self.kinds[op as usize].accepted += 1;
        self.depths += depth as u64;
        self.batched += u64::from(batched);
        self.first.get_or_insert(now);
    }

    /// The call that brought requests took so long.
    pub fn submitted_in(&mut self, time: Duration) {
        self.submitting += time;
    }

    /// Requests were refused because as many as may were in flight.
    pub fn refused(&mut self) {
        self.refused += 1;
    }

    /// A request was in line so long before it was begun.
    pub fn begun_after(&mut self, time: Duration) {
        self.queued += time;
    }

    /// A request has ended, so long after it was accepted.
    pub fn ended(&mut self, op: OpKind, status: Status, result: i32, expired: bool, time: Duration, now: Instant) {
        let kind = &mut self.kinds[op as usize];
        kind.ended += 1;
        kind.time += time;
        kind.bytes += result.max(0) as u64;
        self.failed += u64::from(status == Status::Failed);
        self.expired += u64::from(status == Status::Failed && expired);
        self.cancelled += u64::from(status == Status::Cancelled);
        self.last = Some(now);
    }

    /// Accepted and not ended, by these counts.
    pub fn unfinished(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.accepted - kind.ended).sum()
    }

    /// Bytes per second of one kind, between the first acceptance and the last end; in units of 1000000.
    pub fn throughput(&self, op: OpKind) -> f64 {
        let seconds = match (self.first, self.last) {
            (Some(first), Some(last)) => last.saturating_duration_since(first).as_secs_f64(),
            _ => 0.0,
        };
        ratio(self.kinds[op as usize].bytes as f64 / 1e6, seconds)
    }

    /// Microseconds from acceptance to end of one kind, on average.
    pub fn latency_us(&self, op: OpKind) -> f64 {
        let kind = &self.kinds[op as usize];
        ratio(kind.time.as_secs_f64() * 1e6, kind.ended as f64)
    }

    pub fn stats(&self) -> Stats {
        let of = |op: OpKind| &self.kinds[op as usize];
        let sum = |pick: fn(&Kind) -> u64| self.kinds.iter().map(pick).sum::<u64>();
        let (accepted, ended) = (sum(|kind| kind.accepted), sum(|kind| kind.ended));
        let time: Duration = self.kinds.iter().map(|kind| kind.time).sum();
        let us = |time: Duration| time.as_micros() as u64;
        Stats {
            read_count: of(OpKind::Read).accepted,
            write_count: of(OpKind::Write).accepted,
            readv_count: of(OpKind::Readv).accepted,
            writev_count: of(OpKind::Writev).accepted,
            sync_count: of(OpKind::Fsync).accepted,
            total_operations: accepted,
            bytes_read: of(OpKind::Read).bytes + of(OpKind::Readv).bytes,
            bytes_written: of(OpKind::Write).bytes + of(OpKind::Writev).bytes,
            total_submit_time: us(self.submitting),
            total_complete_time: us(time),
            total_queue_time: us(self.queued),
            submissions_total: accepted,
            completions_total: ended,
            submissions_batched: self.batched,
            queue_full_count: self.refused,
            error_count: self.failed,
            timeout_count: self.expired,
            cancelled_count: self.cancelled,
            avg_submit_latency: ratio(self.submitting.as_secs_f64() * 1e6, accepted as f64),
            avg_complete_latency: ratio(time.as_secs_f64() * 1e6, ended as f64),
            avg_queue_depth: ratio(self.depths as f64, accepted as f64),
            read_throughput: self.throughput(OpKind::Read) + self.throughput(OpKind::Readv),
            write_throughput: self.throughput(OpKind::Write) + self.throughput(OpKind::Writev),
        }
    }
}

/// 0 where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
