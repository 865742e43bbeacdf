//! Going through all live records of an open store, in the order in which they stand in the log.

use super::super::NativeEngine;
use super::super::chunks::file_name;
use super::super::index::Place;
use super::super::scan::{Frames, Step};
use super::super::window::Window;
use super::dictionaries::unpacked;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::engine::record::{Kind, Record};
use std::borrow::Cow;

impl NativeEngine {
    /// Shows `visit` every record that is current and has not expired, once. What is written meanwhile may be missed, or
    /// seen; for one moment's view make a backup and walk that. A damaged record ends the walk with an error.
    pub fn walk(&self, visit: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        let _nothing_is_moved = self.compacting.lock();
        self.check_open()?;
        let log_end = self.log_end();
        let now_ms = self.now_ms();
        for chunk in self.chunks.by_age() {
            let Some(end) = chunk.end().or((chunk.id == log_end.chunk).then_some(log_end)) else { continue };
            let mut window = Window::new(&*chunk.file, end.valid_bytes);
            let mut frames = Frames::new(chunk.salt, end);
            loop {
                let failed = |e| Error::from_io(format_args!("store {}: reading {}", self.path, file_name(chunk.id)), &e);
                match frames.next_record(&mut window).map_err(failed)? {
                    Step::Record { offset, bytes, record } => {
                        let place = Place::new(chunk.slot, offset, bytes.len());
                        let is_there = record.kind == Kind::Put && !record.has_expired(now_ms);
                        if is_there && self.index.read().get(&self.hasher.hash(record.key)) == Some(place) {
                            visit(&record)?;
                        }
                    }
                    Step::End => break,
                    Step::Damaged { offset } => {
                        let (path, file) = (&self.path, file_name(chunk.id));
                        let text = format!("store {path}: {file} is damaged at byte {offset}: save what is good with kvbatch salvage");
                        return Err(Error::new(Code::CORRUPTED, text));
                    }
                }
            }
        }
        Ok(())
    }

    /// The value of a record of this store, unpacked.
    pub fn value_of<'a>(&self, record: &Record<'a>) -> Result<Cow<'a, [u8]>> {
        unpacked(&self.dictionaries.table(), record, &self.path)
    }

    /// Where the log ends when everything that was begun before has been published.
    pub(super) fn log_end(&self) -> super::super::frame::LogEnd {
        self.line.draw().stage_alone(|| self.log.end())
    }
}
