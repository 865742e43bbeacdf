//! Statistics of a batch: get, reset, print; names of numbers; the clock.

use super::abi::{kv_async_batch_op_type_raw, kv_async_batch_status_raw};
use super::types::{kv_async_batch_context_t, kv_async_batch_stats_s, kv_async_batch_stats_t};
use super::{arg, error, guard, handle};
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::batch::{OpKind, Stats, Status};
use libc::{FILE, c_char, c_int};
use std::fmt::Write;

/// Reads a batch's statistics.
///
/// @param ctx    a batch, at any time of its life.
/// @param stats  where to; the caller's.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_get_stats(ctx: *const kv_async_batch_context_t, stats: *mut kv_async_batch_stats_t) -> c_int {
    guard::code(c"kv_async_batch_get_stats", || {
        let context = handle::context(ctx)?;
        arg::required(stats, "stats")?;
        let figures = to_c(&context.stats());
        // SAFETY: the caller's promise (see `arg`).
        unsafe { arg::write(stats, figures, "stats") }
    })
}

/// Sets a batch's statistics back to 0. Those of its manager stay.
///
/// @param ctx  a batch.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER; KV_ERR_INVALID_PARAM for an invalid handle.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_reset_stats(ctx: *mut kv_async_batch_context_t) -> c_int {
    guard::code(c"kv_async_batch_reset_stats", || {
        handle::context(ctx)?.reset_stats();
        Ok(())
    })
}

/// Prints a batch's statistics, one per line, and what its manager's store has counted.
///
/// @param ctx   a batch.
/// @param file  where to, an open stream; NULL: stdout.
/// @return KV_SUCCESS; KV_ERR_NULL_POINTER if ctx is NULL; KV_ERR_INVALID_PARAM for an invalid handle; KV_ERR_IO if the stream
///         took less than all.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_async_batch_print_stats(ctx: *const kv_async_batch_context_t, file: *mut FILE) -> c_int {
    guard::code(c"kv_async_batch_print_stats", || {
        let context = handle::context(ctx)?;
        let text = report(&to_c(&context.stats()), &context.counters());
        // SAFETY: the caller's promise: NULL or an open stream.
        if unsafe { error::output(file, text.as_bytes()) } {
            Ok(())
        } else {
            Err(Error::new(Code::IO, "the stream did not take the statistics: check that it is open for writing and has space"))
        }
    })
}

/// The name of an operation: "PUT", "GET", "DELETE", "UPDATE", "SYNC".
///
/// @param op  a number of enum kv_async_batch_op_type_e; any other is "UNKNOWN".
/// @return never NULL, lives as long as the process.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_op_name(op: kv_async_batch_op_type_raw) -> *const c_char {
    OpKind::from_number(op).map_or(c"UNKNOWN", OpKind::name).as_ptr()
}

/// The name of a status: "PENDING", "SUBMITTED", "COMPLETING", "COMPLETED", "FAILED", "CANCELLED".
///
/// @param status  a number of enum kv_async_batch_status_e; any other is "UNKNOWN".
/// @return never NULL, lives as long as the process.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_status_name(status: kv_async_batch_status_raw) -> *const c_char {
    Status::from_number(status).map_or(c"UNKNOWN", Status::name).as_ptr()
}

/// The time, in microseconds since 1970; never goes back within a process.
///
/// @return microseconds.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_async_batch_get_timestamp_us() -> u64 {
    guard::pure(0, clock::unix_us_rising)
}

/// The frozen struct, filled.
pub(super) fn to_c(s: &Stats) -> kv_async_batch_stats_s {
    kv_async_batch_stats_s {
        total_operations: s.total_operations,
        completed_operations: s.completed_operations,
        failed_operations: s.failed_operations,
        cancelled_operations: s.cancelled_operations,
        total_batches: s.total_batches,
        completed_batches: s.completed_batches,
        failed_batches: s.failed_batches,
        bytes_read: s.bytes_read,
        bytes_written: s.bytes_written,
        keys_processed: s.keys_processed,
        total_submit_time: s.total_submit_time,
        total_complete_time: s.total_complete_time,
        total_wait_time: s.total_wait_time,
        avg_batch_size: s.avg_batch_size,
        avg_latency_us: s.avg_latency_us,
        throughput_ops_per_sec: s.throughput_ops_per_sec,
        throughput_mb_per_sec: s.throughput_mb_per_sec,
        peak_memory_usage: s.peak_memory_usage,
        current_memory_usage: s.current_memory_usage,
        active_batches: s.active_batches,
        queued_operations: s.queued_operations,
    }
}

/// `  name: value` per line: the 21 fields, then the counters of the layers below.
fn report(s: &kv_async_batch_stats_s, counters: &[(String, String)]) -> String {
    let mut text = String::from("kv_async_batch statistics\n");
    // Writing to a String cannot fail.
    macro_rules! lines {
        ($format:literal: $($field:ident)*) => { $( let _ = writeln!(text, concat!("  {}: ", $format), stringify!($field), s.$field); )* };
    }
    lines!("{}": total_operations completed_operations failed_operations cancelled_operations total_batches completed_batches);
    lines!("{}": failed_batches bytes_read bytes_written keys_processed total_submit_time total_complete_time total_wait_time);
    lines!("{:.3}": avg_batch_size avg_latency_us throughput_ops_per_sec throughput_mb_per_sec);
    lines!("{}": peak_memory_usage current_memory_usage active_batches queued_operations);
    for (name, value) in counters {
        let _ = writeln!(text, "  {name}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::report;
    use crate::ffi::types::kv_async_batch_stats_s;

    #[test]
    fn every_field_has_its_line() {
        let stats = kv_async_batch_stats_s { bytes_read: 12, avg_latency_us: 1.5, queued_operations: 3, ..Default::default() };
        let text = report(&stats, &[("io_backend".to_owned(), "threads".to_owned())]);
        assert_eq!(text.lines().count(), 1 + 21 + 1);
        for line in ["  bytes_read: 12", "  avg_latency_us: 1.500", "  queued_operations: 3", "  io_backend: threads"] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in {text}");
        }
    }
}
