//! `kvbatch backup`: a copy of a store in an empty directory.

use crate::outcome::{Failure, Outcome};
use crate::progress::bytes;
use crate::store::{Named, close};
use std::io::Write as _;
use std::path::PathBuf;

/// Copies a store into an empty directory; to restore the copy, open it
///
/// Files that are never written again are hard links where the file system has them, so keep copies against a failing
/// disk on another one. The store must not be open to write elsewhere: a program that has it open makes its own backups.
#[derive(clap::Args)]
pub struct Arguments {
    /// The store; nothing of it is changed
    store: PathBuf,
    /// Where the copy goes: a directory that is empty, or not there yet
    #[arg(value_name = "DIR")]
    to: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (store, to) = (Named::parse(&arguments.store)?, Named::directory(&arguments.to)?);
    let engine = store.open_to_read()?;
    let report = close(&engine, engine.backup(&to).map_err(Failure::from))?;
    let (linked, copied) = (bytes(report.linked_bytes), bytes(report.copied_bytes));
    writeln!(std::io::stdout(), "{} files linked ({linked}), {} copied ({copied})", report.linked, report.copied)?;
    Ok(Outcome::Good)
}
