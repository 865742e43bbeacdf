//! `kvbatch verify`: reads every byte of a store, and says what is not as it was written.

use crate::outcome::{Failure, Outcome};
use crate::progress::{Bar, bytes};
use crate::store::{Named, check_is_store, disk};
use kvbatch::native::tools::verify;
use std::io::Write as _;
use std::path::PathBuf;

/// Reads every byte of a store and compares it with its checksums; changes nothing
///
/// Says for each damage the file, the byte, and what is wrong, and whether the store opens. Exit code 0: all is good;
/// 1: something is damaged.
#[derive(clap::Args)]
pub struct Arguments {
    /// The store
    store: PathBuf,
    /// Don't look whether a process has the store open. For copies that nobody writes to: of a store that is being
    /// written this sees things that were never there
    #[arg(long)]
    force_read_only: bool,
    /// Print damage only
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let path = Named::directory(&arguments.store)?;
    check_is_store(&path)?;
    let report = {
        let bar = Bar::bytes("verifying");
        verify(&*disk(), &path, !arguments.force_read_only, &mut |done, total| bar.at(done, total))
    }
    .map_err(Failure::opening)?;
    let mut out = std::io::stdout().lock();
    for damage in &report.damage {
        writeln!(out, "damage: {damage}")?;
    }
    if let Some(refusal) = &report.refusal {
        writeln!(out, "damage: the store does not open: {refusal}")?;
    }
    if !arguments.quiet {
        for note in &report.notes {
            writeln!(out, "note: {note}")?;
        }
        let keys = report.keys.map_or_else(|| "unknown".to_owned(), |keys| keys.to_string());
        writeln!(
            out,
            "{} files, {}, {} frames, {} records, keys: {keys}",
            report.files,
            bytes(report.bytes),
            report.frames,
            report.records
        )?;
        let verdict = match (report.is_good(), report.refusal.is_some()) {
            (true, _) => "good: every byte is as it was written",
            (false, true) => "damaged: restore a backup, or save what is good with kvbatch salvage",
            (false, false) => "damaged, but it opens: make a backup of the files now, then kvbatch salvage or compact",
        };
        writeln!(out, "{verdict}")?;
    }
    Ok(if report.is_good() { Outcome::Good } else { Outcome::Damage })
}
