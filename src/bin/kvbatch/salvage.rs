//! `kvbatch salvage`: a new store of all that can be proven good in a damaged one.

use crate::outcome::{Failure, Outcome};
use crate::progress::{Bar, bytes};
use crate::store::{Named, check_is_store, disk};
use kvbatch::native::tools::salvage;
use std::io::Write as _;
use std::path::PathBuf;

/// Makes a new store of all that can be proven good in a damaged one, which is left as it is
///
/// Of each key the newest record that is good is taken. Where a newer one was lost, an older value comes back, or a key
/// that had been deleted: nobody can tell. Exit code 0: nothing was lost; 1: something was damaged (see the list).
#[derive(clap::Args)]
pub struct Arguments {
    /// The damaged store; it is read and never changed
    #[arg(value_name = "SRC")]
    from: PathBuf,
    /// Where the new store goes: a directory that is empty, or not there yet
    #[arg(value_name = "DST")]
    to: PathBuf,
    /// Don't look whether a process has the store open. For copies that nobody writes to
    #[arg(long)]
    force_read_only: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (from, to) = (Named::directory(&arguments.from)?, Named::parse(&arguments.to)?);
    check_is_store(&from)?;
    let report = {
        let bar = Bar::bytes("salvaging");
        salvage(&disk(), &from, &to.path, !arguments.force_read_only, to.options(), &mut |done, total| bar.at(done, total))?
    };
    let mut out = std::io::stdout().lock();
    for damage in &report.damage {
        writeln!(out, "damage: {damage}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "saved: {} keys, {}, out of {} good records", report.keys, bytes(report.bytes), report.records)?;
    if report.lost > 0 {
        writeln!(out, "lost: {} records at least; a key whose newest one is among them has an older value now, or none", report.lost)?;
    }
    Ok(if report.damage.is_empty() { Outcome::Good } else { Outcome::Damage })
}
