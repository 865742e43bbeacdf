//! Ctrl-C, for commands that can end in order: the first one asks them to, the second one ends them at once.

use crate::outcome::{Failure, Outcome};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// From now on the first Ctrl-C (or a polite kill) is only remembered; the function says whether there was one.
pub fn watch() -> Result<impl Fn() -> bool, Failure> {
    let asked = Arc::new(AtomicBool::new(false));
    let watch = |signal| -> io::Result<()> {
        // In this order: the first signal finds the flag down, and raises it for the second.
        flag::register_conditional_shutdown(signal, i32::from(Outcome::Interrupted as u8), Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked)).map(drop)
    };
    for signal in [SIGINT, SIGTERM] {
        watch(signal).map_err(|error| Failure::new(Outcome::Failed, format!("cannot watch for Ctrl-C: {error}")))?;
    }
    Ok(move || asked.load(Ordering::Relaxed))
}
