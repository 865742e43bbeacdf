//! `kvbatch options`: the table of options, as docs/OPTIONS.md has it.

use crate::outcome::{Failure, Outcome};
use std::io::Write as _;

/// Lists the options of a store: values, defaults, and what they do
#[derive(clap::Args)]
pub struct Arguments {
    /// Print the page docs/OPTIONS.md instead
    #[arg(long)]
    markdown: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let text = if arguments.markdown { kvbatch::store::options::page() } else { kvbatch::store::options::text() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Good)
}
