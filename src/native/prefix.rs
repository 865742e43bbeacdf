//! `recovery=prefix`: what is given up, when damage of confirmed data is not to keep a store closed.
//!
//! Recovery asks here at each place where it would refuse. With `strict` the answer is the refusal. With `prefix` it is a
//! line in the log, and what lies behind that place is given up: whole chunk files are renamed once the next chunk's
//! header records the cut, never removed, so that salvage can still have what is in them.

use super::chunks::{Chunks, file_name};
use super::frame::{ChunkHeader, LogEnd};
use super::manifest::{self, Manifest};
use super::options::{Options, Recovery};
use crate::base::error::{Error, Result};
use crate::base::log;
use crate::engine::outcome::Outcomes;
use crate::io::Dir;

/// See the top of this file.
pub struct Prefix {
    wanted: bool,
    /// Also frames may be given up.
    cuts_log: bool,
    may_write: bool,
    /// Chunk files that are given up as a whole.
    pub files: Vec<String>,
    /// Highest sequence number that is known to be among what is given up.
    pub last_seq: u64,
    /// Something was given up.
    pub cut: bool,
}

impl Prefix {
    /// As the options say.
    pub fn new(options: &Options) -> Prefix {
        let wanted = options.recovery == Recovery::Prefix;
        Prefix { wanted, cuts_log: false, may_write: !options.read_only, files: Vec::new(), last_seq: 0, cut: false }
    }

    /// From now on the log may be cut, if that is wanted; whether it is.
    pub fn begin_to_cut(&mut self) -> bool {
        self.cuts_log = self.wanted;
        self.wanted
    }

    /// The refusal to cut off what was confirmed up to number `last_seq`, unless it is to be overridden.
    pub fn cut_log(&mut self, last_seq: u64, refusal: Error) -> Result<()> {
        if !self.cuts_log {
            return Err(refusal);
        }
        self.last_seq = self.last_seq.max(last_seq);
        self.tolerate(refusal)
    }

    /// The refusal, unless it is to be overridden.
    pub fn tolerate(&mut self, refusal: Error) -> Result<()> {
        if !self.wanted {
            return Err(refusal);
        }
        self.cut = true;
        log::write(log::Level::Error, "recover", &format!("recovery=prefix overrides this: {}", refusal.message));
        Ok(())
    }

    /// The same for a chunk whose header is good, and says what there was.
    pub fn give_up_chunk(&mut self, store_path: &str, header: &ChunkHeader) {
        self.last_seq = self.last_seq.max(header.before.last_seq).max(header.watermark);
        self.give_up(store_path, file_name(header.chunk));
    }

    /// A chunk file is no part of the store any more.
    pub fn give_up(&mut self, store_path: &str, file: String) {
        let kept = if self.may_write { format!("; it will be renamed to {}", dropped_name(&file)) } else { String::new() };
        let text = format!("store {store_path}: recovery=prefix gives up all of {file}{kept}");
        log::write(log::Level::Error, "recover", &text);
        self.files.push(file);
    }

    /// Where the manifest in force names chunks that are given up, the next one says what is left.
    ///
    /// `recovered`: where the log ends now, in the last of `chunks` or before them, and which batches are in it.
    pub fn amend(
        &self,
        dir: &dyn Dir,
        store_path: &str,
        in_force: &Manifest,
        number: u64,
        recovered: (LogEnd, &Outcomes),
        chunks: &Chunks,
    ) -> Result<bool> {
        let (end, outcomes) = recovered;
        if !self.cut || !self.may_write || end.chunk > in_force.covers {
            return Ok(false);
        }
        let kept: Vec<LogEnd> = chunks.by_age().iter().filter_map(|chunk| chunk.end()).collect();
        let newest = kept.last().map_or(0, |last| last.chunk);
        let (covers, watermark, outcomes) = (end.chunk, end.last_seq, outcomes.clone());
        let manifest = Manifest { store: in_force.store, number, covers, newest, watermark, chunks: kept, outcomes };
        manifest::write(dir, &manifest).map_err(|e| {
            let name = manifest::file_name(number);
            Error::from_io(format_args!("store {store_path}: cannot write {name}"), &e)
        })?;
        Ok(true)
    }
}

/// The name under which a chunk file that was given up stays.
pub fn dropped_name(file: &str) -> String {
    format!("dropped-{file}")
}

/// Gives a file that was given up its new name. On failure it stays under the old one.
pub fn set_aside(dir: &dyn Dir, file: &str) {
    let renamed = dir.link(file, dir, &dropped_name(file)).and_then(|()| dir.remove(file));
    if let Err(error) = renamed {
        let text = format!("{file} was given up by recovery=prefix but cannot be renamed: {error}; move it away");
        log::write(log::Level::Error, "recover", &text);
    }
}
