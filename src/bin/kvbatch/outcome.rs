//! How a command ends: exit codes that scripts can use, and the message that goes with them.

use kvbatch::base::code::Code;
use kvbatch::base::error::Error;
use kvbatch::base::log;
use std::io;
use std::process::ExitCode;

/// How a command ended. The numbers are the exit codes; the man page lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Done, and nothing is wrong.
    Good = 0,
    /// Something is damaged, or was lost.
    Damage = 1,
    /// Not what the command takes.
    Usage = 2,
    /// The store cannot be opened.
    NotOpened = 3,
    /// Another process has the store open.
    Locked = 4,
    /// Reading or writing failed on the way.
    Failed = 5,
    /// Ended in order by Ctrl-C: the number that a shell has for that.
    Interrupted = 130,
}

/// Why a command was broken off.
#[derive(Debug)]
pub struct Failure {
    outcome: Outcome,
    /// `None`: whoever reads the output has gone, and needs no message.
    message: Option<String>,
}

impl Failure {
    /// With an outcome of one's own.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Failure {
        Failure { outcome, message: Some(message.into()) }
    }

    /// Opening a store failed.
    pub fn opening(error: Error) -> Failure {
        let outcome = match error.code {
            Code::LOCK => Outcome::Locked,
            Code::INVALID_PARAM => Outcome::Usage,
            _ => Outcome::NotOpened,
        };
        Failure::new(outcome, error.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let outcome = match error.code {
            Code::LOCK => Outcome::Locked,
            Code::CORRUPTED => Outcome::Damage,
            Code::INVALID_PARAM | Code::EXIST => Outcome::Usage,
            _ => Outcome::Failed,
        };
        Failure::new(outcome, error.message)
    }
}

/// Standard input or output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let message = (error.kind() != io::ErrorKind::BrokenPipe).then(|| format!("standard input or output: {error}"));
        Failure { outcome: Outcome::Failed, message }
    }
}

impl Outcome {
    /// Says why, and how it ended.
    pub fn from_failure(failure: Failure) -> Outcome {
        if let Some(message) = failure.message {
            eprintln!("kvbatch: {message}");
        }
        failure.outcome
    }

    /// For the end of `main`.
    pub fn exit(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// Has the library's warnings and errors printed.
pub fn print_log_lines() {
    log::set_sink(|level, _, _, _, message| {
        if level >= log::Level::Warn {
            eprintln!("kvbatch: {message}");
        }
    });
}
