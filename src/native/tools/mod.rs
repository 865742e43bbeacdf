//! Tools for a store as a whole: look at every byte, save what can be saved, copy it while it runs, go through it.
//!
//! Called by the CLI and by tests. `verify` and `salvage` work on files that the engine may refuse to open, and never
//! change one of them; `walk` and `backup` belong to an open engine. Verdicts about damage follow the rules of
//! `recovery`; where the two could differ, `verify` asks recovery itself.

mod backup;
mod compact;
mod describe;
mod dictionaries;
mod follow;
mod loader;
mod patient;
mod salvage;
mod survey;
mod sweep;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

pub use backup::BackupReport;
pub use compact::CompactReport;
pub use describe::{ChunkInfo, StoreInfo};
pub use loader::Loader;
pub use salvage::{SalvageReport, salvage};
pub use verify::{VerifyReport, verify};

use super::chunks::id_of;
use super::{LOCK_NAME, manifest};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::sync::Arc;
use crate::io::{Dir, Disk};
use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;

/// Whether directory `path` holds a store, or what is left of one.
pub fn holds_store(disk: &dyn Disk, path: &Path) -> Result<bool> {
    let names = Source::open(disk, path, false)?.names()?;
    Ok(names.iter().any(|name| id_of(name).is_some() || manifest::number_of(name).is_some()))
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How much of it, in bytes, as far as that can be told.
    pub len: u64,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    fn new(file: &str, offset: u64, len: u64, what: impl Into<String>) -> Damage {
        Damage { file: file.to_owned(), offset, len, what: what.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len {
            0 => write!(f, "{}: byte {}: {}", self.file, self.offset, self.what),
            len => write!(f, "{}: byte {}, {len} bytes: {}", self.file, self.offset, self.what),
        }
    }
}

/// Is told bytes done and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A store's directory, opened to read.
struct Source {
    dir: Arc<dyn Dir>,
    name: String,
    /// Keeps writers away while it lives.
    _lock: Option<Box<dyn Any + Send + Sync>>,
}

impl Source {
    /// Opens the directory. `alone`: refuse if somebody has the store open to write, and keep it so.
    fn open(disk: &dyn Disk, path: &Path, alone: bool) -> Result<Source> {
        let name = path.display().to_string();
        let dir = disk.open_dir_to_read(path).map_err(|e| Error::from_io(format_args!("store {name}: cannot open the directory"), &e))?;
        let lock = if alone { Some(super::take_lock(&*dir, &name)?) } else { None };
        Ok(Source { dir, name, _lock: lock })
    }

    /// All file names but the lock's, sorted.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = self.dir.list().map_err(|e| Error::from_io(format_args!("store {}: cannot list the directory", self.name), &e))?;
        names.retain(|name| name != LOCK_NAME);
        names.sort_unstable();
        Ok(names)
    }

    fn failed(&self, file: &str, error: &io::Error) -> Error {
        Error::from_io(format_args!("store {}: cannot read {file}", self.name), error)
    }
}

/// Opens a directory to write a store into, which must not hold anything yet.
fn open_empty(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn Dir>> {
    let name = path.display();
    let failed = |e: &io::Error| Error::from_io(format_args!("directory {name}: cannot be used"), e);
    let dir = disk.open_dir(path).map_err(|e| failed(&e))?;
    match dir.list().map_err(|e| failed(&e))?.first() {
        Some(file) => {
            let text = format!("directory {name}: it is not empty ({file} is there): name one that is empty or that can be made");
            Err(Error::new(Code::EXIST, text))
        }
        None => Ok(dir),
    }
}
