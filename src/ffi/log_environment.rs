//! The environment variable `KVBATCH_LOG`: log lines of a program that knows nothing of them.
//!
//! `LEVEL` sends lines to stderr, `LEVEL:PATH` appends them to a file. Read once, by the first who makes a manager or a ring or
//! writes a line. Called by `log` alone. Must never write into a descriptor that has become something else: programs close
//! those that they don't know, and a store's file may have the number next.

use super::{arg, error_text, log};
use crate::base::log::Level;
use crate::base::sync::OnceLock;
use libc::c_int;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const LEVELS: [&str; 5] = ["debug", "info", "warn", "error", "fatal"];

/// Where the user wants lines.
struct Destination {
    level: c_int,
    fd: RawFd,
    /// Device and inode: what the descriptor was.
    identity: (u64, u64),
    /// `None`: stderr.
    path: Option<PathBuf>,
}

/// What the variable says; `Err` is what is wrong with it.
static SAID: OnceLock<Result<Option<Destination>, String>> = OnceLock::new();

/// Reads the variable, if nobody has; complains once if it is bad.
pub(super) fn look() {
    let _ = destination();
}

/// Whether a line of this level would go anywhere.
pub(super) fn wanted(level: c_int) -> bool {
    destination().is_some_and(|destination| level >= destination.level)
}

/// Writes a line.
pub(super) fn write(level: c_int, file: &[u8], line: c_int, func: &[u8], message: &[u8]) {
    if let Some(destination) = destination().filter(|destination| level >= destination.level) {
        destination.write(&error_text::log_line(level, file, line, func, message));
    }
}

fn destination() -> Option<&'static Destination> {
    match SAID.get_or_init(|| arg::environment(c"KVBATCH_LOG").map_or(Ok(None), |value| Destination::parse(&value).map(Some))) {
        Ok(destination) => destination.as_ref(),
        Err(message) => {
            complain(message);
            None
        }
    }
}

/// Says once what is wrong: on stderr, where whoever has set the variable looks for lines, and to the host.
fn complain(message: &str) {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        let (level, file, line, func) = (Level::Warn as c_int, file!().as_bytes(), line!() as c_int, b"KVBATCH_LOG");
        if let Some(stderr) = Destination::stderr(level) {
            stderr.write(&error_text::log_line(level, file, line, func, message.as_bytes()));
        }
        log::write_to_host(level, file, line, func, message.as_bytes());
    }
}

impl Destination {
    fn parse(value: &[u8]) -> Result<Destination, String> {
        let said = String::from_utf8_lossy(value);
        let (word, path) = match value.iter().position(|byte| *byte == b':') {
            Some(colon) => (&value[..colon], Some(&value[colon + 1..])),
            None => (value, None),
        };
        let Some(level) = LEVELS.iter().position(|name| name.as_bytes() == word) else {
            let word = String::from_utf8_lossy(word);
            return Err(format!(
                "KVBATCH_LOG=\"{said}\" has no effect: \"{word}\" is no level; set it to debug, info, warn, error or fatal, or to \
                 a level, a colon and the path of a file"
            ));
        };
        let level = level as c_int;
        match path {
            None => Destination::stderr(level)
                .ok_or_else(|| format!("KVBATCH_LOG=\"{said}\" has no effect: stderr is closed; name a file, as in warn:PATH")),
            Some(b"") => Err(format!(
                "KVBATCH_LOG=\"{said}\" has no effect: no path behind the colon; name a file, or leave out the colon for stderr"
            )),
            Some(path) => Destination::file(level, Path::new(OsStr::from_bytes(path))).map_err(|error| {
                format!(
                    "KVBATCH_LOG=\"{said}\" has no effect: the file cannot be opened: {error}; name one in a directory that can be written"
                )
            }),
        }
    }

    fn stderr(level: c_int) -> Option<Destination> {
        let fd = libc::STDERR_FILENO;
        Some(Destination { level, fd, identity: identity_of(fd)?, path: None })
    }

    fn file(level: c_int, path: &Path) -> std::io::Result<Destination> {
        let path = std::path::absolute(path)?; // the program may change its directory
        let file = ManuallyDrop::new(open(&path)?);
        let about = file.metadata()?;
        // Kept open as long as the process lives.
        Ok(Destination { level, fd: file.as_raw_fd(), identity: (about.dev(), about.ino()), path: Some(path) })
    }

    /// Writes a line in one call, so that those of several threads and processes do not mix.
    fn write(&self, text: &[u8]) {
        if identity_of(self.fd) == Some(self.identity) {
            // SAFETY: open, as it has just been seen; not closed here.
            let file = ManuallyDrop::new(unsafe { File::from_raw_fd(self.fd) });
            let _ = (&*file).write_all(text); // there is nobody to tell
        } else if let Some(mut file) = self.path.as_deref().and_then(|path| open(path).ok()) {
            let _ = file.write_all(text);
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Device and inode behind a descriptor; `None`: it is closed.
fn identity_of(fd: RawFd) -> Option<(u64, u64)> {
    // SAFETY: plain numbers; all zeros is a value of this struct.
    let mut about: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a live struct of the right type; any number may be asked about.
    (unsafe { libc::fstat(fd, &mut about) } == 0).then_some((about.st_dev, about.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(value: &[u8]) -> String {
        Destination::parse(value).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_level_alone_means_stderr() {
        for (at, name) in LEVELS.iter().enumerate() {
            let destination = Destination::parse(name.as_bytes()).unwrap();
            assert_eq!((destination.level, destination.fd, destination.path), (at as c_int, 2, None));
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (value, words) in [
            (&b"loud"[..], ["\"loud\"", "debug, info, warn, error or fatal"]),
            (b"WARN", ["\"WARN\"", "is no level"]),
            (b"loud:/tmp/x", ["\"loud\" is no level", "a colon"]),
            (b"warn:", ["no path", "leave out the colon"]),
            (b"warn:/nowhere/file", ["cannot be opened", "os error 2"]),
            (b"\xff", ["is no level", "debug"]),
        ] {
            let said = refusal(value);
            assert!(words.iter().all(|word| said.contains(word)) && said.contains("has no effect"), "{said}");
        }
    }

    #[test]
    fn a_stranger_with_the_descriptors_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("log"), dir.path().join("other"));
        let destination = Destination::file(2, &path).unwrap();
        destination.write(b"one\n");
        // SAFETY: the destination's own descriptor, whose number another file takes.
        unsafe {
            let stranger = File::create(&other).unwrap();
            assert_eq!(libc::dup2(stranger.as_raw_fd(), destination.fd), destination.fd);
        }
        destination.write(b"two\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&other).unwrap(), b"");
        // SAFETY: nobody else knows this number.
        unsafe { libc::close(destination.fd) };
        destination.write(b"three\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
    }
}
