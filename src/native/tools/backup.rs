//! Online backup: a copy of a running store, of one moment between two commits.
//!
//! Chunks that are written no more get a second name where that can be, and are copied where not; the one in which the log
//! ends is copied up to the last published byte, and a manifest of its own says what the others hold. Dictionaries come
//! along. The copy is opened like any store. Commits wait only for the moment in which the end of the log is read.
//!
//! A backup that was broken off must never pass for a good one. So the manifest comes first, which says what there must
//! be, and the header of the newest chunk comes last, when all else is on stable storage: until then recovery refuses it.

use super::super::chunks::{Chunk, file_name};
use super::super::dictionary::{self, Names};
use super::super::frame::{CHUNK_HEADER_LEN, LogEnd};
use super::super::manifest::{self, Manifest};
use super::super::{LOCK_NAME, NativeEngine};
use super::open_empty;
use crate::base::error::{Error, Result};
use crate::base::sync::Arc;
use crate::engine::Engine;
use crate::io::{Dir, File, read_full_at, write_all_at};
use std::io::{self, IoSlice};
use std::path::Path;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Files that are the same ones as the store's, under a second name.
    pub linked: u64,
    /// Bytes in them.
    pub linked_bytes: u64,
    /// Files that were copied.
    pub copied: u64,
    /// Bytes in them.
    pub copied_bytes: u64,
    /// The last sequence number in the backup.
    pub last_seq: u64,
}

impl NativeEngine {
    /// Makes a backup in directory `to`, which must be empty or not there yet. To restore it, open it (or a copy of it).
    pub fn backup(&self, to: &Path) -> Result<BackupReport> {
        let _no_chunk_goes = self.compacting.lock();
        self.check_open()?;
        let target = open_empty(&*self.disk, to)?;
        let failed = |e: io::Error| {
            let to = to.display();
            Error::from_io(format_args!("store {}: the backup in {to} is not complete: empty it and begin anew", self.path), &e)
        };
        let outcomes = self.outcomes.lock().clone(); // before the end, so that nothing is said to be there that is behind it
        let end = self.log_end();
        let chunks = self.chunks.by_age();
        if !self.options.read_only {
            self.sync()?; // what others have seen in the backup must not be missing from the store after a crash
        }
        let mut backup =
            Backup { from: &**self.log.dir(), to: &*target, report: BackupReport { last_seq: end.last_seq, ..Default::default() } };
        let number = self.manifests.lock().in_force.unwrap_or(0) + 1;
        let sealed = chunks.iter().filter(|chunk| chunk.id < end.chunk).filter_map(|chunk| chunk.end());
        // A chunk that was begun and never used says nothing.
        let sealed: Vec<LogEnd> = sealed.filter(|end| end.valid_bytes > CHUNK_HEADER_LEN as u64).collect();
        // Where recovery gave something up, the log may end in a chunk that is gone.
        let has_last = chunks.iter().any(|chunk| chunk.id == end.chunk);
        let newest = if has_last { end.chunk } else { sealed.last().map_or(0, |end| end.chunk) };
        if newest == 0 {
            return Ok(BackupReport::default());
        }
        let covers = end.chunk - u64::from(has_last);
        let is_kept = |id: u64| id == newest || sealed.iter().any(|end| end.chunk == id);
        let mut named = Names::default();
        chunks.iter().filter(|chunk| is_kept(chunk.id)).for_each(|chunk| dictionary::name_all(&mut named, &chunk.dictionaries));
        for number in dictionary::numbers(&named) {
            dictionary::read(&**self.log.dir(), number, &self.log.store(), &self.path)?; // a copy without it is none
        }
        let manifest = Manifest { store: self.log.store(), number, covers, newest, watermark: end.last_seq, chunks: sealed, outcomes };
        backup.run(&chunks, end, &manifest, &named).map_err(failed)?;
        Ok(backup.report)
    }
}

struct Backup<'a> {
    from: &'a dyn Dir,
    to: &'a dyn Dir,
    report: BackupReport,
}

impl Backup<'_> {
    fn run(&mut self, chunks: &[Arc<Chunk>], end: LogEnd, manifest: &Manifest, dictionaries: &Names) -> io::Result<()> {
        let header_len = CHUNK_HEADER_LEN as u64;
        manifest::write(self.to, manifest)?;
        let mut last: Option<(Arc<dyn File>, &Chunk)> = None;
        if let Some(chunk) = chunks.iter().find(|chunk| chunk.id == manifest.newest) {
            let copy = self.to.create(&file_name(chunk.id))?;
            let chunk_end = if chunk.id == end.chunk { end } else { chunk.end().unwrap_or_default() };
            self.copy(&*chunk.file, &*copy, header_len, chunk_end.valid_bytes)?;
            copy.sync()?;
            last = Some((copy, chunk));
        }
        let is_sealed = |chunk: &Chunk| manifest.chunks.iter().any(|sealed| sealed.chunk == chunk.id);
        let is_part = |chunk: &Chunk| chunk.id != manifest.newest && is_sealed(chunk);
        for chunk in chunks.iter().filter(|chunk| is_part(chunk)) {
            let len = chunk.end().map_or(chunk.file.len()?, |end| end.valid_bytes);
            self.link_or_copy(&file_name(chunk.id), &*chunk.file, len)?;
        }
        for number in dictionary::numbers(dictionaries) {
            let name = dictionary::file_name(number);
            let file = self.from.open(&name)?;
            self.link_or_copy(&name, &*file, file.len()?)?;
        }
        self.to.sync()?;
        if let Some((copy, chunk)) = last {
            // In one call, so that nobody who comes after a kill finds a header that is not on stable storage.
            let mut header = [0; CHUNK_HEADER_LEN];
            if read_full_at(&*chunk.file, &mut header, 0)? < CHUNK_HEADER_LEN {
                return Err(too_short());
            }
            write_all_at(&*copy, &mut [IoSlice::new(&header)], 0, true)?;
            self.report.copied_bytes += CHUNK_HEADER_LEN as u64;
            self.report.copied += 1;
        }
        Ok(())
    }

    /// Puts a file that is never written again into the backup, on stable storage but for its name.
    fn link_or_copy(&mut self, name: &str, file: &dyn File, len: u64) -> io::Result<()> {
        if self.link(name, file)? {
            return Ok(());
        }
        let copy = self.to.create(name)?;
        self.copy(file, &*copy, 0, len)?;
        copy.sync()?;
        self.report.copied += 1;
        Ok(())
    }

    /// Gives the file a second name in the backup; false if that cannot be here.
    fn link(&mut self, name: &str, file: &dyn File) -> io::Result<bool> {
        debug_assert!(name != LOCK_NAME, "a lock is nobody's data");
        match self.from.link(name, self.to, name) {
            Ok(()) => {
                self.report.linked += 1;
                self.report.linked_bytes += file.len()?;
                Ok(true)
            }
            // Another file system, one without links, a file that has as many names as it can, or one of another user.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EXDEV | libc::EOPNOTSUPP | libc::EPERM | libc::EMLINK | libc::ENOSYS)) => {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Copies a range to the same place.
    fn copy(&mut self, from: &dyn File, to: &dyn File, start: u64, end: u64) -> io::Result<()> {
        let mut buf = Vec::new();
        buf.try_reserve_exact(COPY_BYTES).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        buf.resize(COPY_BYTES, 0);
        let mut at = start;
        while at < end {
            let len = (end - at).min(COPY_BYTES as u64) as usize;
            if read_full_at(from, &mut buf[..len], at)? < len {
                return Err(too_short());
            }
            write_all_at(to, &mut [IoSlice::new(&buf[..len])], at, false)?;
            at += len as u64;
        }
        self.report.copied_bytes += end.saturating_sub(start);
        Ok(())
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than it was")
}
