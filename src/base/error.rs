//! The one error type of the core: a public code, a sentence that says what to do, and what is known of the outcome.
//!
//! Built only on failure, so it may own its text.

use super::code::Code;
use std::{borrow::Cow, fmt, io};

/// An error with the code that a C caller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The public number.
    pub code: Code,
    /// What happened and what to do about it, for people.
    pub message: Cow<'static, str>,
    /// The operation may have taken effect all the same.
    pub in_doubt: bool,
    /// Trying again later may succeed.
    pub transient: bool,
}

/// What fallible functions of the core return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that is final and whose operation had no effect.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Error { code, message: message.into(), in_doubt: false, transient: false }
    }

    /// The same error, the outcome unknown.
    pub fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// The same error, worth another try.
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// The error of a system call: `what` says what was tried and on which path.
    pub fn from_io(what: impl fmt::Display, error: &io::Error) -> Self {
        let (code, advice) = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
                (Code::DISK_FULL, "free some space (or raise the quota or file size limit) and try again")
            }
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                (Code::SYS, "give this user the right to write there, or name another store in KVBATCH_STORE")
            }
            Some(libc::ENOMEM) => (Code::MEM, "give the process more memory"),
            Some(libc::EMFILE | libc::ENFILE) => (Code::FILE, "raise the limit of open files (ulimit -n)"),
            Some(libc::ENOTDIR | libc::EISDIR | libc::ELOOP | libc::ENAMETOOLONG | libc::ENOENT | libc::EEXIST) => {
                (Code::FILE, "name a directory that exists or can be made")
            }
            Some(libc::EBADF) => {
                (Code::IO, "the program has closed or replaced a descriptor that it did not open: let it leave those alone")
            }
            _ => (Code::IO, "check the disk and the kernel's log"),
        };
        let transient =
            matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::EBUSY | libc::ENOMEM | libc::EMFILE | libc::ENFILE));
        Error { code, message: format!("{what}: {error}; {advice}").into(), in_doubt: false, transient }
    }

    /// Memory could not be had for `what`.
    pub fn no_memory(what: &'static str) -> Self {
        Error::new(Code::MEM, what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Error {}
