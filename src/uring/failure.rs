//! What an errno means to those who wait for a request: a code of the table, and what to do about it.

use super::request::{OpKind, Status};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use std::io;

/// How a request that has ended answers a wait.
pub(super) fn answer(op: OpKind, status: Status, result: i32) -> Result<()> {
    match status {
        Status::Completed => Ok(()),
        Status::Cancelled => Err(Error::new(Code::CANCELLED, "the request was cancelled; a write may have written a part before")),
        _ => Err(failure(op, -result)),
    }
}

fn failure(op: OpKind, errno: i32) -> Error {
    let (code, advice) = match errno {
        libc::ETIMEDOUT => (Code::ASYNC_FAILED, "it ran out of the ring's timeout_ms, which can be raised"),
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => (Code::DISK_FULL, "free some space, or raise the quota or the limit of file sizes"),
        libc::ENOMEM | libc::ENOBUFS => (Code::MEM, "give the process more memory"),
        libc::EBADF => (Code::PARAM, "keep the descriptor open, and open for this, until the callback"),
        libc::EINVAL | libc::EFAULT | libc::EISDIR | libc::ESPIPE | libc::EOVERFLOW => {
            (Code::PARAM, "check descriptor, buffer, size, offset, and what O_DIRECT asks of them")
        }
        libc::EOPNOTSUPP => (Code::NOT_SUPPORTED, "this kind of file cannot do it"),
        libc::EACCES | libc::EPERM | libc::EROFS => (Code::SYS, "this process may not do it"),
        libc::EAGAIN => (Code::BUSY, "the descriptor does not block and is not ready: try again when it is"),
        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN => (Code::IO, "the peer is gone"),
        _ => (Code::IO, "check the device and the kernel's log"),
    };
    let name = op.name().to_str().unwrap_or("I/O");
    Error::new(code, format!("{name}: {}; {advice}", io::Error::from_raw_os_error(errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_an_answer() {
        assert_eq!(answer(OpKind::Read, Status::Completed, 7), Ok(()));
        let code = |status, result| answer(OpKind::Write, status, result).unwrap_err().code;
        assert_eq!(code(Status::Cancelled, -libc::ECANCELED), Code::CANCELLED);
        assert_eq!(code(Status::Failed, -libc::ENOSPC), Code::DISK_FULL);
        assert_eq!(code(Status::Failed, -libc::EBADF), Code::PARAM);
        assert_eq!(code(Status::Failed, -libc::EIO), Code::IO);
        assert_eq!(code(Status::Failed, -libc::ETIMEDOUT), Code::ASYNC_FAILED);
        assert!(answer(OpKind::Fsync, Status::Failed, -libc::EIO).unwrap_err().message.starts_with("FSYNC: "));
    }
}
