//! The store that a command works on: from the word on the command line to an open engine.

use crate::outcome::{Failure, Outcome};
use crate::progress::Bar;
use kvbatch::base::error::Error;
use kvbatch::io::Disk;
use kvbatch::io::real::RealDisk;
use kvbatch::native::tools::holds_store;
use kvbatch::native::{NativeEngine, Options};
use kvbatch::store::{OptionSet, StoreUrl};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads in flight: enough for one command.
const QUEUE_DEPTH: u32 = 64;

/// A store as it was named.
pub struct Named {
    /// Its directory.
    pub path: PathBuf,
    set: OptionSet,
}

/// The disks of this machine.
pub fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(QUEUE_DEPTH))
}

impl Named {
    /// Reads the word on the command line.
    pub fn parse(word: &Path) -> Result<Named, Failure> {
        match StoreUrl::parse(word.as_os_str().as_bytes()) {
            Ok(StoreUrl::File(path, set)) => Ok(Named { path, set }),
            Ok(_) => Err(Failure::new(Outcome::Usage, "a store in memory ends with its process: name a directory")),
            Err(error) => Err(Failure::new(Outcome::Usage, error.message)),
        }
    }

    /// Reads a word that names a directory and nothing else: options would have no effect.
    pub fn directory(word: &Path) -> Result<PathBuf, Failure> {
        let named = Named::parse(word)?;
        if named.set == OptionSet::default() {
            return Ok(named.path);
        }
        Err(Failure::new(Outcome::Usage, format!("{}: options have no effect here: leave them out", word.display())))
    }

    /// Opens it to read; nothing of it is changed.
    pub fn open_to_read(&self) -> Result<Arc<NativeEngine>, Failure> {
        check_is_store(&self.path)?;
        self.open(Options { read_only: true, background: false, hot_log_bytes: 0, ..self.set.options() })
    }

    /// Opens it to write, without compacting in the background. `make`: it may be made.
    pub fn open_to_write(&self, make: bool) -> Result<Arc<NativeEngine>, Failure> {
        if self.set.options().read_only {
            return Err(Failure::new(Outcome::Usage, format!("{}: this command writes: leave out read_only", self.path.display())));
        }
        if !make {
            check_is_store(&self.path)?;
        }
        self.open(Options { background: false, ..self.set.options() })
    }

    /// How it would be run.
    pub fn options(&self) -> Options {
        self.set.options()
    }

    fn open(&self, options: Options) -> Result<Arc<NativeEngine>, Failure> {
        let bar = Bar::bytes("opening");
        NativeEngine::open_watched(disk(), &self.path, options, &mut |reached| bar.at(reached.done, reached.total))
            .map_err(Failure::opening)
    }
}

/// An error unless there is a store: a name that was mistyped must not become one.
pub fn check_is_store(path: &Path) -> Result<(), Failure> {
    match holds_store(&*disk(), path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Outcome::NotOpened, format!("{}: there is no store in this directory", path.display()))),
        Err(error) => Err(Failure::opening(error)),
    }
}

/// Closes an engine; an error in that counts after one that came before.
pub fn close<T>(engine: &NativeEngine, done: Result<T, Failure>) -> Result<T, Failure> {
    let closed = kvbatch::engine::Engine::close(engine).map_err(Error::into);
    done.and_then(|value| closed.map(|()| value))
}
