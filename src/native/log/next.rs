//! The next chunk, made ahead of its use: its file, its name, and a header that says all but where the log will stand.
//!
//! A chunk's header has to be on stable storage before a frame is written there, and a device that is busy takes tens of
//! milliseconds for it. `ahead` makes the next one beside commits. What the header cannot know, its first frame says: which digest and
//! which number it continues (docs/FORMAT.md, "Reading").
//!
//! It is never used where something was cut off or other dictionaries are needed: then the header says so before anything
//! else is written. The number that was given to it counts as used only when the chunk is begun, or another one is.

use super::{Log, LogState};
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::sync::Arc;
use crate::base::sync::atomic::Ordering;
use crate::io::File;
use crate::native::chunks::file_name;
use crate::native::frame::{ChunkHeader, LogEnd};

/// It is made when this share of the present chunk is full: on a busy disk that may take as long as filling half of a chunk.
const FULL_SHARE: u64 = 8;

/// What is known of it.
#[derive(Default)]
pub(super) enum Next {
    /// There is none.
    #[default]
    Missing,
    /// Somebody makes the chunk with this number.
    InTheMaking(u64),
    /// It is there.
    Made(ChunkHeader, Arc<dyn File>),
}

impl Next {
    /// The number that it has.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Next::Missing => None,
            Next::InTheMaking(number) => Some(*number),
            Next::Made(header, _) => Some(header.chunk),
        }
    }
}

impl Log {
    /// A group that is not durable has come to byte `end` of chunk `chunk`. Whether the next one is to be made now: whoever
    /// hears yes has to call `make_next`. Called by one publisher at a time.
    pub fn note_unsynced(&self, chunk: u64, end: u64) -> bool {
        end >= self.options.chunk_bytes / FULL_SHARE && self.next_behind.swap(chunk, Ordering::Relaxed) != chunk
    }

    /// Makes the next chunk, if one can be told to follow the present one.
    pub fn make_next(&self) {
        let header = {
            let mut state = self.state.lock();
            let Some(active) =
                state.active.as_ref().filter(|_| matches!(state.next, Next::Missing) && state.poison.is_none() && !state.full)
            else {
                return;
            };
            let before = LogEnd { chunk: active.chunk.id, ..LogEnd::default() };
            let header = ChunkHeader { open: true, ..state.header(before, self.durable.load(Ordering::Acquire)) };
            state.next_chunk += 1;
            state.next = Next::InTheMaking(header.chunk);
            header
        };
        let made = self.new_file(&header);
        let mut state = self.state.lock();
        let is_wanted = state.next.number() == Some(header.chunk); // else it has come too late
        let failed = match made {
            Ok(file) if is_wanted => return state.next = Next::Made(header, file),
            made => made.err(),
        };
        if is_wanted {
            state.next = Next::Missing;
        }
        drop(state);
        self.remove_unused(header.chunk);
        if let Some(error) = failed {
            let (store, name) = (&self.store_path, file_name(header.chunk));
            let text = format!("store {store}: cannot make {name} ahead of its use: {error}; it goes on without");
            log::write(log::Level::Info, "make_next", &text);
        }
    }

    /// Should the file stay, the next opening sees it, and that it counts for nothing.
    fn remove_unused(&self, number: u64) {
        let _ = self.dir.remove(&file_name(number));
    }

    /// The chunk that was made ahead. `None`: there is none, or the next header has to say more. It is spent in any case.
    pub(super) fn use_next(&self, state: &mut LogState, durable: bool) -> Option<(ChunkHeader, Arc<dyn File>)> {
        let Next::Made(header, file) = std::mem::take(&mut state.next) else { return None };
        let follows = state.active.as_ref().is_some_and(|active| active.chunk.id == header.before.chunk);
        let end = state.end;
        let says_all = header.before.chunk == end.chunk && header.dictionaries == state.dictionaries && end.last_seq == state.last_given;
        let nothing_to_record = state.recorded == state.generation && state.leftovers.is_empty() && state.given_up.is_empty();
        let fits = planted(Bug::NextInSpiteOfCut) || follows && says_all && nothing_to_record;
        if !fits || self.prepared_is_better(durable) {
            self.remove_unused(header.chunk);
            return None;
        }
        self.prepared.is_not_used();
        if !durable {
            self.drop_removed();
        }
        Some((header.followed_by(end.last_seq, end.digest), file))
    }

    /// Removes the chunk that was made ahead: the store is being closed.
    pub(super) fn drop_next(&self) {
        if let Some(number) = std::mem::take(&mut self.state.lock().next).number() {
            self.remove_unused(number);
        }
    }
}
