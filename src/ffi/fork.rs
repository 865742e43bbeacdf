//! The child's side of fork: threads and rings don't come along, files do. After it the library does nothing in a child
//! but answer what needs no store; and the child lets go of the store's lock, so that it is not kept from the next user
//! when the parent ends first.

use super::{error, log};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::sync::Mutex;
use crate::{batch, io};
use libc::c_int;

/// Has the child told of every fork from now on. To be called before the first thread or file exists.
pub fn watch() -> Result<()> {
    static WATCHING: Mutex<bool> = Mutex::new(false);
    let mut watching = WATCHING.lock();
    if !*watching {
        type Handler = Option<unsafe extern "C" fn()>;
        // SAFETY: libc's, with this signature.
        unsafe extern "C" {
            fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
        }
        // SAFETY: `in_child` does only what is allowed there, and stays where it is: the library is never unloaded.
        if unsafe { pthread_atfork(None, None, Some(in_child)) } != 0 {
            return Err(Error::new(Code::MEM, "no memory to have fork watched: give the process more"));
        }
        *watching = true;
    }
    Ok(())
}

/// Runs in a child, in the one thread there is, while locks may be held by threads that are not. Async-signal-safe:
/// nothing but atomics and close(2).
///
/// # Safety
/// To be called by fork alone, in the child.
unsafe extern "C" fn in_child() {
    error::after_fork_in_child();
    log::after_fork_in_child();
    // A process whose managers never started holds nothing: its children may start theirs.
    if batch::fork::was_started() {
        batch::fork::mark_forked_child();
        io::real::close_locks_in_child();
    }
}
