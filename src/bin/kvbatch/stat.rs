//! `kvbatch stat`: what a store consists of.

use crate::outcome::{Failure, Outcome};
use crate::progress::bytes;
use crate::store::{Named, close};
use kvbatch::native::tools::StoreInfo;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Shows what a store consists of: keys, bytes, and how full each chunk is
#[derive(clap::Args)]
pub struct Arguments {
    /// The store
    store: PathBuf,
    /// List every chunk file
    #[arg(long)]
    chunks: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let store = Named::parse(&arguments.store)?;
    let engine = store.open_to_read()?;
    let info = close(&engine, engine.describe().map_err(Failure::from))?;
    std::io::stdout().write_all(text(&info, arguments.chunks).as_bytes())?;
    Ok(Outcome::Good)
}

fn text(info: &StoreInfo, chunks: bool) -> String {
    let (on_disk, live) = (info.file_bytes(), info.live_bytes());
    let identity: String = info.store.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = String::new();
    for (name, value) in [
        ("store", identity),
        ("keys", info.keys.to_string()),
        ("bytes on disk", format!("{on_disk} ({})", bytes(on_disk))),
        ("bytes live", format!("{live} ({}, {} %)", bytes(live), percent(live, on_disk))),
        ("index in memory", format!("{} ({})", info.index_bytes, bytes(info.index_bytes))),
        ("last sequence number", info.last_seq.to_string()),
        ("chunk files", info.chunks.len().to_string()),
    ] {
        let _ = writeln!(text, "{name:22}{value}");
    }
    if chunks {
        let _ = writeln!(text, "\n{:26}{:>14}{:>14}{:>7}{:>10}", "chunk", "bytes", "live bytes", "fill", "deletes");
        for chunk in &info.chunks {
            let fill = format!("{} %", percent(chunk.live_bytes, chunk.file_bytes));
            let _ = writeln!(text, "{:26}{:>14}{:>14}{fill:>7}{:>10}", chunk.file, chunk.file_bytes, chunk.live_bytes, chunk.deletes);
        }
    }
    text
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}
