//! `kvbatch compact`: rewrites chunks that are mostly dead.

use crate::interrupt;
use crate::outcome::{Failure, Outcome};
use crate::progress::{Bar, bytes};
use crate::store::{Named, close};
use kvbatch::engine::Engine as _;
use kvbatch::native::NativeEngine;
use kvbatch::native::tools::CompactReport;
use std::io::Write as _;
use std::path::PathBuf;

/// Rewrites chunks that are mostly dead, and removes them
///
/// The store must not be open elsewhere. Ctrl-C ends it in order, with exit code 130: what was done stays done. A second
/// Ctrl-C, or a crash, ends it at once and harms nothing either.
#[derive(clap::Args)]
pub struct Arguments {
    /// The store
    store: PathBuf,
    /// Rewrite chunks in which this share or less is live, in percent [default: the store's min_fill_rate]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    min_fill_rate: Option<u64>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let store = Named::parse(&arguments.store)?;
    let is_interrupted = interrupt::watch()?;
    let engine = store.open_to_write(false)?;
    let min_fill_percent = arguments.min_fill_rate.unwrap_or(store.options().min_fill_percent);
    let compacted = compact(&engine, min_fill_percent, &is_interrupted);
    let done = close(&engine, compacted)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} on disk before, {} after", bytes(done.before), bytes(done.after))?;
    if done.damaged > 0 {
        writeln!(out, "damaged chunks kept as they are: {}; run kvbatch verify", done.damaged)?;
        return Ok(Outcome::Damage);
    }
    if done.report.done < done.report.wanted {
        writeln!(out, "broken off: {} of {} chunks are done", done.report.done, done.report.wanted)?;
        return Ok(Outcome::Interrupted);
    }
    Ok(Outcome::Good)
}

struct Done {
    /// Bytes on disk.
    before: u64,
    after: u64,
    /// Chunks that turned out to be.
    damaged: u64,
    report: CompactReport,
}

fn compact(engine: &NativeEngine, min_fill_percent: u64, is_interrupted: &dyn Fn() -> bool) -> Result<Done, Failure> {
    let before = engine.describe()?.file_bytes();
    let bar = Bar::bytes("compacting");
    let report = engine.compact(min_fill_percent, &mut |done, total| {
        bar.at(done, total);
        !is_interrupted()
    })?;
    Ok(Done { before, after: engine.describe()?.file_bytes(), damaged: engine.counters().chunks_damaged, report })
}
