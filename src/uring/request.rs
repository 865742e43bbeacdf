//! What a request is, what may become of it, and the edge that is told about it.

use crate::io::real::transfer::Transfer;
use std::ffi::CStr;

/// What a request does. The numbers are C's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)] // the names say it
pub enum OpKind {
    Read = 0,
    Write = 1,
    Readv = 2,
    Writev = 3,
    Fsync = 4,
    Fdatasync = 5,
    Openat = 6,
    Close = 7,
    Fallocate = 8,
}

impl OpKind {
    /// All, by number.
    pub const ALL: [OpKind; 9] = [
        OpKind::Read,
        OpKind::Write,
        OpKind::Readv,
        OpKind::Writev,
        OpKind::Fsync,
        OpKind::Fdatasync,
        OpKind::Openat,
        OpKind::Close,
        OpKind::Fallocate,
    ];

    /// The operation with this number.
    pub fn from_number(number: i32) -> Option<OpKind> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// What C calls it.
    pub fn name(self) -> &'static CStr {
        match self {
            OpKind::Read => c"READ",
            OpKind::Write => c"WRITE",
            OpKind::Readv => c"READV",
            OpKind::Writev => c"WRITEV",
            OpKind::Fsync => c"FSYNC",
            OpKind::Fdatasync => c"FDATASYNC",
            OpKind::Openat => c"OPENAT",
            OpKind::Close => c"CLOSE",
            OpKind::Fallocate => c"FALLOCATE",
        }
    }
}

/// Where a request is in its life. The numbers are C's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Accepted, or still in a batch; nobody has begun.
    Pending = 0,
    /// Begun.
    Submitted = 1,
    /// Ended well.
    Completed = 2,
    /// Ended with an error, or out of time.
    Failed = 3,
    /// Ended because somebody wanted it to.
    Cancelled = 4,
}

impl Status {
    /// The status with this number.
    pub fn from_number(number: i32) -> Option<Status> {
        [Status::Pending, Status::Submitted, Status::Completed, Status::Failed, Status::Cancelled]
            .into_iter()
            .find(|status| *status as i32 == number)
    }

    /// What C calls it.
    pub fn name(self) -> &'static CStr {
        match self {
            Status::Pending => c"PENDING",
            Status::Submitted => c"SUBMITTED",
            Status::Completed => c"COMPLETED",
            Status::Failed => c"FAILED",
            Status::Cancelled => c"CANCELLED",
        }
    }

    pub(super) fn has_ended(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }
}

/// A request that nobody has accepted yet.
pub struct Draft {
    /// The edge's name for it.
    pub tag: usize,
    /// What it does.
    pub op: OpKind,
    /// How.
    pub transfer: Transfer,
}

/// The name of an accepted request within its ring. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) slot: u32,
    /// Unique in the process, from 1.
    pub id: u64,
}

/// The C side. All but `accepted` are called without a lock; `begun` and `ended` by the reaper only.
pub trait Edge: Send + Sync {
    /// From now on `tag` is known as `key`. Called with the ring's lock held, before anything else happens to it.
    fn accepted(&self, tag: usize, key: Key, unix_us: u64);
    /// The kernel, or a thread, has it.
    fn begun(&self, tag: usize);
    /// It has ended: tells the program, by its callback.
    fn ended(&self, tag: usize, status: Status, result: i32, unix_us: u64);
    /// Nobody will ask for it again, and nothing uses its memory.
    fn release(&self, tag: usize);
}
