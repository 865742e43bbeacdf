//! Statistics of a ring: get, reset, print; names of numbers; looking inside.

use super::types::{kv_uring_stats_s, kv_uring_stats_t, kv_uring_t};
use super::{as_param, param, ring_of};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::ffi::abi::{kv_uring_op_type_raw, kv_uring_req_status_raw};
use crate::ffi::{arg, error, guard};
use crate::uring::{OpKind, Stats, Status};
use libc::{FILE, c_char, c_int};
use std::fmt::Write;

/// Reads a ring's statistics.
///
/// @param uring  a ring, at any time of its life.
/// @param stats  where to; the caller's.
/// @return KV_SUCCESS; KV_ERR_PARAM for NULL or an invalid handle.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_get_stats(uring: *mut kv_uring_t, stats: *mut kv_uring_stats_t) -> c_int {
    guard::code(c"kv_uring_get_stats", || {
        let figures = to_c(&ring_of(uring)?.stats());
        // SAFETY: the caller's promise (see `arg`).
        as_param(unsafe { arg::write(stats, figures, "stats") })
    })
}

/// Sets a ring's statistics back to 0. Requests in flight at that moment are never counted.
///
/// @param uring  a ring.
/// @return KV_SUCCESS; KV_ERR_PARAM for NULL or an invalid handle.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_reset_stats(uring: *mut kv_uring_t) -> c_int {
    guard::code(c"kv_uring_reset_stats", || {
        ring_of(uring)?.reset_stats();
        Ok(())
    })
}

/// Prints a ring's statistics, one per line, and whether io_uring or threads do the work ("io_backend"), and why.
///
/// @param uring  a ring.
/// @param file   where to, an open stream; NULL: stdout.
/// @return KV_SUCCESS; KV_ERR_PARAM if uring is NULL or an invalid handle; KV_ERR_IO if the stream took less than all.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_print_stats(uring: *mut kv_uring_t, file: *mut FILE) -> c_int {
    guard::code(c"kv_uring_print_stats", || {
        let ring = ring_of(uring)?;
        let (name, reason) = ring.backend();
        let text = report(&to_c(&ring.stats()), name, &reason);
        // SAFETY: the caller's promise: NULL or an open stream.
        unsafe { print(file, &text) }
    })
}

/// How fast one kind of operation goes.
///
/// @param uring  a ring.
/// @param op     a number of enum kv_uring_op_type_e.
/// @return bytes per second between the ring's first acceptance and its last end, in units of 1000000 (MB/s); 0 if there was
///         none, and for NULL, an invalid handle or a number of no operation (last error KV_ERR_PARAM).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_get_throughput(uring: *mut kv_uring_t, op: kv_uring_op_type_raw) -> f64 {
    guard::value(c"kv_uring_get_throughput", 0.0, || Ok(figures(uring, op)?.0))
}

/// How long one kind of operation takes.
///
/// @param uring  a ring.
/// @param op     a number of enum kv_uring_op_type_e.
/// @return microseconds from acceptance to end, on average; 0 if there was none, and for NULL, an invalid handle or a number
///         of no operation (last error KV_ERR_PARAM).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_get_latency(uring: *mut kv_uring_t, op: kv_uring_op_type_raw) -> f64 {
    guard::value(c"kv_uring_get_latency", 0.0, || Ok(figures(uring, op)?.1))
}

/// The name of an operation: "READ", "WRITE", "READV", "WRITEV", "FSYNC", "FDATASYNC", "OPENAT", "CLOSE", "FALLOCATE".
///
/// @param op  a number of enum kv_uring_op_type_e; any other is "UNKNOWN".
/// @return never NULL, lives as long as the process.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_op_name(op: kv_uring_op_type_raw) -> *const c_char {
    OpKind::from_number(op).map_or(c"UNKNOWN", OpKind::name).as_ptr()
}

/// The name of a status: "PENDING", "SUBMITTED", "COMPLETED", "FAILED", "CANCELLED".
///
/// @param status  a number of enum kv_uring_req_status_e; any other is "UNKNOWN".
/// @return never NULL, lives as long as the process.
///
/// Threads: any; also in a child after fork().
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_status_name(status: kv_uring_req_status_raw) -> *const c_char {
    Status::from_number(status).map_or(c"UNKNOWN", Status::name).as_ptr()
}

/// Has a ring write to the log (kv_error_init) what becomes of its requests.
///
/// @param uring  a ring.
/// @param level  0: nothing; 1: those that failed; 2 or more: all.
/// @return KV_SUCCESS; KV_ERR_PARAM for a negative level, NULL or an invalid handle.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_set_debug_level(uring: *mut kv_uring_t, level: c_int) -> c_int {
    guard::code(c"kv_uring_set_debug_level", || {
        let ring = ring_of(uring)?;
        if level < 0 {
            return Err(param(format!("level is {level}: pass 0 (nothing), 1 (failed requests) or 2 (all)")));
        }
        ring.set_debug_level(level);
        Ok(())
    })
}

/// Prints what a ring is doing right now, one thing per line.
///
/// @param uring  a ring.
/// @param file   where to, an open stream; NULL: stdout.
/// @return KV_SUCCESS; KV_ERR_PARAM if uring is NULL or an invalid handle; KV_ERR_IO if the stream took less than all.
///
/// Threads: any.
// SAFETY: left to the caller, as `arg` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_uring_dump_state(uring: *mut kv_uring_t, file: *mut FILE) -> c_int {
    guard::code(c"kv_uring_dump_state", || {
        let mut text = String::from("kv_uring state\n");
        for (name, value) in ring_of(uring)?.dump() {
            let _ = writeln!(text, "  {name}: {value}"); // to a String: cannot fail
        }
        // SAFETY: the caller's promise: NULL or an open stream.
        unsafe { print(file, &text) }
    })
}

/// Checks that what a ring counts agrees with what it holds.
///
/// @param uring  a ring, at any time of its life.
/// @return KV_SUCCESS; KV_ERR_STATE for a fault inside the library: the last error says which; KV_ERR_PARAM for NULL or an
///         invalid handle.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn kv_uring_validate_state(uring: *mut kv_uring_t) -> c_int {
    guard::code(c"kv_uring_validate_state", || ring_of(uring)?.validate())
}

fn figures(uring: *const kv_uring_t, op: kv_uring_op_type_raw) -> Result<(f64, f64)> {
    let ring = ring_of(uring)?;
    let op = OpKind::from_number(op).ok_or_else(|| param(format!("op is {op}: pass a number of enum kv_uring_op_type_e")))?;
    Ok(ring.figures_of(op))
}

/// # Safety
/// `file` is NULL or an open stream.
unsafe fn print(file: *mut FILE, text: &str) -> Result<()> {
    // SAFETY: by the caller's promise.
    if unsafe { error::output(file, text.as_bytes()) } {
        Ok(())
    } else {
        Err(Error::new(Code::IO, "the stream did not take the text: check that it is open for writing and has space"))
    }
}

/// The frozen struct, filled.
fn to_c(s: &Stats) -> kv_uring_stats_s {
    kv_uring_stats_s {
        read_count: s.read_count,
        write_count: s.write_count,
        readv_count: s.readv_count,
        writev_count: s.writev_count,
        sync_count: s.sync_count,
        total_operations: s.total_operations,
        bytes_read: s.bytes_read,
        bytes_written: s.bytes_written,
        total_submit_time: s.total_submit_time,
        total_complete_time: s.total_complete_time,
        total_queue_time: s.total_queue_time,
        submissions_total: s.submissions_total,
        completions_total: s.completions_total,
        submissions_batched: s.submissions_batched,
        queue_full_count: s.queue_full_count,
        error_count: s.error_count,
        timeout_count: s.timeout_count,
        cancelled_count: s.cancelled_count,
        avg_submit_latency: s.avg_submit_latency,
        avg_complete_latency: s.avg_complete_latency,
        avg_queue_depth: s.avg_queue_depth,
        read_throughput: s.read_throughput,
        write_throughput: s.write_throughput,
    }
}

/// `  name: value` per line.
fn report(s: &kv_uring_stats_s, backend: &str, reason: &str) -> String {
    let mut text = String::from("kv_uring statistics\n");
    // Writing to a String cannot fail.
    macro_rules! lines {
        ($format:literal: $($field:ident)*) => { $( let _ = writeln!(text, concat!("  {}: ", $format), stringify!($field), s.$field); )* };
    }
    lines!("{}": read_count write_count readv_count writev_count sync_count total_operations bytes_read bytes_written);
    lines!("{}": total_submit_time total_complete_time total_queue_time submissions_total completions_total);
    lines!("{}": submissions_batched queue_full_count error_count timeout_count cancelled_count);
    lines!("{:.3}": avg_submit_latency avg_complete_latency avg_queue_depth read_throughput write_throughput);
    let _ = writeln!(text, "  io_backend: {backend}\n  io_backend_reason: {reason}");
    text
}
