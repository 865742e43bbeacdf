//! Beginning a chunk: the file and its header, both on stable storage before a frame is written.
//!
//! `log` calls this with its state locked. From then on the header says where the log was cut, if it was. Later the chunk may
//! get other memory for its hot bytes.

use super::{Active, Log, LogState, Purpose, Wanted};
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::engine::counters::{AtomicCounters, add};
use crate::io::{File, write_all_at};
use crate::native::chunks::{Chunks, file_name};
use crate::native::frame::{CHUNK_HEADER_LEN, ChunkHeader};
use std::io::{self, IoSlice};

impl Log {
    /// Makes the next chunk, for a group; if need be with what the reserve gives.
    pub(super) fn begin_chunk_for(&self, wanted: &Wanted, state: &mut LogState, chunks: &Chunks, counters: &AtomicCounters) -> Result<()> {
        let Wanted { purpose, durable, .. } = *wanted;
        self.look_after_reserve(state, chunks, purpose)?;
        match self.begin_chunk(durable, state, chunks, counters) {
            Err(error)
                if error.code == Code::DISK_FULL && self.release_reserve(state, chunks, &error.message) && purpose != Purpose::Put =>
            {
                self.begin_chunk(durable, state, chunks, counters)
            }
            result => result,
        }
    }

    /// Begins the next chunk, for a group that may be `durable`: file and header are on stable storage before anything in it is
    /// written.
    pub(super) fn begin_chunk(&self, durable: bool, state: &mut LogState, chunks: &Chunks, counters: &AtomicCounters) -> Result<()> {
        let (header, file) = match self.use_next(state, durable) {
            Some(next) => next,
            None => self.make_chunk(durable, state)?,
        };
        let hot = chunks.hot_for(self.options.chunk_bytes);
        let chunk = chunks.add(&header, file, hot.clone(), 0).inspect_err(|_| state.leftovers.push(file_name(header.chunk)))?;
        if let Some(before) = state.newest.replace(Arc::clone(&chunk)) {
            before.seal(state.end);
        }
        self.witnessed.fetch_max(header.watermark, Ordering::Relaxed);
        state.active = Some(Active { chunk, hot, next: CHUNK_HEADER_LEN as u64 });
        state.fresh_block = true;
        state.fresh_chunk = false;
        state.recorded = state.generation;
        add(&counters.chunks_created, 1);
        self.trim(chunks, header.before.chunk);
        self.remove_leftovers(state);
        Ok(())
    }

    /// The next chunk with a header that says all.
    fn make_chunk(&self, durable: bool, state: &mut LogState) -> Result<(ChunkHeader, Arc<dyn File>)> {
        let mut header = state.header(state.end, self.durable.load(Ordering::Acquire));
        let name = file_name(header.chunk);
        if planted(Bug::LeftoversRemovedEarly) {
            self.remove_leftovers(state);
        }
        state.next_chunk += 1; // also if this fails: a number is never used twice
        let file = self.make_file(durable, &mut header, &name).map_err(|e| {
            // It holds nothing yet. Should it stay, recovery knows it for a chunk that was never begun.
            let _ = self.dir.remove(&name);
            let error = Error::from_io(format_args!("store {}: cannot make {name}", self.store_path), &e);
            Error { in_doubt: false, ..error }
        })?;
        Ok((header, file))
    }

    fn remove_leftovers(&self, state: &mut LogState) {
        if !state.leftovers.is_empty() || !state.given_up.is_empty() {
            for file in state.given_up.drain(..) {
                crate::native::prefix::set_aside(&*self.dir, &file);
            }
            for leftover in state.leftovers.drain(..) {
                let _ = self.dir.remove(&leftover); // it is no part of the store: the next open would see that again
            }
            let _ = self.dir.sync();
        }
    }

    /// The file with its header, on stable storage: the one that was prepared, else a new one.
    fn make_file(&self, durable: bool, header: &mut ChunkHeader, name: &str) -> io::Result<Arc<dyn File>> {
        let Some(prepared) = self.use_prepared(durable, header, name) else { return self.new_file(header) };
        self.sync_names()?;
        Ok(prepared)
    }

    /// A new file with its header, on stable storage.
    pub(super) fn new_file(&self, header: &ChunkHeader) -> io::Result<Arc<dyn File>> {
        let file = self.dir.create(&file_name(header.chunk))?;
        write_all_at(&*file, &mut [IoSlice::new(&header.encode())], 0, false)?;
        if !(header.open && planted(Bug::NextUnsynced)) {
            file.sync()?;
            self.sync_names()?;
        }
        Ok(file)
    }

    fn sync_names(&self) -> io::Result<()> {
        if planted(Bug::SkipDirectorySync) { Ok(()) } else { self.dir.sync() }
    }
}
