//! The program `kvbatch`: looks after stores from a shell. One file per command; `docs/man/kvbatch.1` is its page.
//!
//! Built with the feature `cli` only. It uses what the library offers to Rust, and nothing else: whatever it does to a
//! store goes through the engine. Commands that look at a store open it to read, which changes no byte of it.

mod backup;
mod bench;
mod compact;
mod dump;
mod interrupt;
mod json;
mod load;
mod options;
mod outcome;
mod progress;
mod salvage;
mod stat;
mod store;
mod verify;

use clap::{Parser, Subcommand};
use outcome::Outcome;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
STORE is a directory, or a URL like file:PATH?min_fill_rate=40 (`kvbatch options` lists what can stand there).

Exit codes: 0 done, nothing is wrong; 1 something is damaged or lost; 2 wrong use; 3 the store cannot be opened;
4 another process has it open; 5 reading or writing failed on the way; 130 ended by Ctrl-C.";

/// Looks after kvbatch stores: what is in them, whether it is good, and copies of it.
#[derive(Parser)]
#[command(name = "kvbatch", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Stat(stat::Arguments),
    Verify(verify::Arguments),
    Compact(compact::Arguments),
    Salvage(salvage::Arguments),
    Dump(dump::Arguments),
    Load(load::Arguments),
    Backup(backup::Arguments),
    Bench(bench::Arguments),
    Options(options::Arguments),
}

fn main() -> ExitCode {
    outcome::print_log_lines();
    let done = match Arguments::parse().command {
        Command::Stat(arguments) => stat::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Compact(arguments) => compact::run(&arguments),
        Command::Salvage(arguments) => salvage::run(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Options(arguments) => options::run(&arguments),
    };
    done.unwrap_or_else(Outcome::from_failure).exit()
}
