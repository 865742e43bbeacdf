//! The file of a chunk that was removed, used again for the next chunk.
//!
//! Where groups are durable one by one, it is the best file there is: its blocks were written before, so that a synchronous write
//! has nothing to note down but its bytes, and nobody had to write zeros for that (see `prepared`). What it still holds says nothing:
//! checksums are salted with the number of the chunk, so no frame of the old one passes in the new one.
//!
//! Not a byte of it may change as long as anybody can want the old ones. So it is only taken when no manifest names the chunk, its
//! name is gone for good, it has no other (a backup may have given it one), and nobody in this process reads from it any more.

use super::Log;
use super::prepared::PREPARED_NAME;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::native::chunks::{Chunk, file_name};

/// A file is worth keeping if so many in a hundred of a chunk's bytes were written.
const LEAST_FULL_PERCENT: u64 = 75;

/// ... and so many were made durable one by one, with nothing between them that was not. A group that is not durable begins a chunk in a
/// new file (see `stage`): where it ends in the middle of a block, the kernel would have to read what the rest of that holds.
const LEAST_DURABLE_PERCENT: u64 = 50;

/// The file of a chunk that is being removed. It has a second name, which goes again unless it is kept.
pub struct Removal<'a> {
    log: &'a Log,
    chunk: Option<Arc<Chunk>>,
}

impl Log {
    /// The file that the next chunk had better be begun with, if it is that of one of these. No manifest may name them any more; their
    /// own names are still there.
    pub fn reuse_one(&self, removed: &[Arc<Chunk>]) -> Option<Removal<'_>> {
        let share = |percent: u64| self.options.chunk_bytes / 100 * percent;
        let wanted = self.options.prepare_chunks
            && self.prepared.durable_bytes_in_a_row() >= share(LEAST_DURABLE_PERCENT)
            && self.has_room_to_prepare(0);
        let lengths = share(LEAST_FULL_PERCENT)..=self.options.chunk_bytes;
        let is_full = |chunk: &&Arc<Chunk>| chunk.end().is_some_and(|end| lengths.contains(&end.valid_bytes));
        let chunk = removed.iter().find(is_full).filter(|_| wanted && self.prepared.claim_for_removed())?;
        let removal = Removal { log: self, chunk: Some(Arc::clone(chunk)) };
        let _ = self.dir.remove(PREPARED_NAME); // what was to be the next file until now
        self.dir.link(&file_name(chunk.id), &*self.dir, PREPARED_NAME).is_ok().then_some(removal)
    }
}

impl Removal<'_> {
    /// The chunk's name is gone for good.
    pub fn keep(mut self) {
        let is_alone = |chunk: &Chunk| chunk.file.has_one_name().unwrap_or(false) || planted(Bug::LinkedFileReused);
        if let Some(chunk) = self.chunk.take_if(|chunk| is_alone(chunk)) {
            chunk.file.forget(); // writes past the page cache have nothing to take out of it then
            self.log.prepared.bring_removed(Some(chunk));
        }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if self.chunk.is_some() {
            let _ = self.log.dir.remove(PREPARED_NAME); // the next opening sees it, if it stays
            self.log.prepared.bring_removed(None);
        }
    }
}
