//! A file for the next chunk, written full of zeros ahead of its use, or given all of its space.
//!
//! A durable write into a file that grows has the file system write down the growth, too; into bytes that are there
//! already it has not, which saves about half of the time (`make bench`: "put, fsync on"). `ahead` fills the file in its
//! own thread, beside commits. It has a name of its own until `begin` gives it that of a chunk: it is never a part of the
//! store before that, and whoever writes zeros never touches a file that frames are written to.

use super::Log;
use crate::base::limits::BLOCK_BYTES;
use crate::base::log;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::io::{File, write_all_at};
use crate::native::chunks::Chunks;
use crate::native::frame::ChunkHeader;
use std::io::{self, IoSlice};

/// The file's name, as long as it is no chunk.
pub const PREPARED_NAME: &str = "ahead.kvb";

/// An opening that has not made so many bytes durable one by one is not worth a file of this size.
const LEAST_DURABLE_BYTES: u64 = 1 << 20;

/// Where durable groups usually have so many bytes, no zeros are written. Groups that small batches form together have fewer.
const LARGE_GROUP_BYTES: u64 = 1 << 20;

/// A group moves what is usual by this share of the difference.
const USUAL_SHARE: u64 = 8;

/// Zeros are written, and synced, so many bytes at a time: a commit never waits for more.
const PIECE_BYTES: usize = 1 << 20;

/// A chunk that is done gives back the zeros behind its end, if there are at least so many bytes of them.
const TRIM_BYTES: u64 = 1 << 20;

/// What is known of the file.
#[derive(Default)]
pub(super) struct Prepared {
    state: Mutex<State>,
    /// Bytes that synchronous writes have made durable.
    durable_bytes: AtomicU64,
    /// Bytes that such a write usually has, lately.
    usual_bytes: AtomicU64,
    /// The chunk that is written to was such a file.
    in_use: AtomicBool,
}

#[derive(Default)]
enum State {
    /// There is none; it may be wanted.
    #[default]
    Missing,
    /// Somebody fills it.
    InTheMaking,
    /// It is there.
    Ready(Arc<dyn File>),
    /// It could not be had; the next chunk brings the next try.
    GivenUp,
    /// Files here cannot have a second name: there is no use for it.
    Useless,
}

impl Prepared {
    /// The chunk that is written to now is no such file.
    pub(super) fn is_not_used(&self) {
        self.in_use.store(false, Ordering::Relaxed);
    }

    /// A synchronous write of `len` bytes has come; the first one is taken for usual. Called by one publisher at a time.
    fn note_usual(&self, len: u64) {
        let before = self.usual_bytes.load(Ordering::Relaxed);
        let usual = if before == 0 { len } else { before - before / USUAL_SHARE + len / USUAL_SHARE };
        self.usual_bytes.store(usual, Ordering::Relaxed);
    }

    fn takes_large_groups(&self) -> bool {
        self.usual_bytes.load(Ordering::Relaxed) >= LARGE_GROUP_BYTES
    }
}

impl Log {
    /// A synchronous write of `len` bytes has come to byte `end` of its chunk. Whether a file is to be made ready now:
    /// whoever hears yes has to call `prepare`.
    pub fn note_durable(&self, end: u64, len: u64) -> bool {
        let so_far = self.prepared.durable_bytes.fetch_add(len, Ordering::Relaxed) + len;
        self.prepared.note_usual(len);
        let half_full = end >= self.options.chunk_bytes / 2;
        if so_far < LEAST_DURABLE_BYTES || (self.prepared.in_use.load(Ordering::Relaxed) && !half_full) {
            return false;
        }
        self.claim_prepared()
    }

    /// Whether the caller is now the one to make the file.
    pub fn claim_prepared(&self) -> bool {
        let mut state = self.prepared.state.lock();
        let missing = matches!(*state, State::Missing) && self.has_room_to_prepare(self.options.chunk_bytes);
        if missing {
            *state = State::InTheMaking;
        }
        missing
    }

    /// Whether so many bytes can be had and the disk still is far from full: the file is only for speed, and must not be
    /// what fills the disk.
    fn has_room_to_prepare(&self, bytes: u64) -> bool {
        let kept_free = self.options.chunk_bytes + self.options.reserve_bytes();
        !self.is_full() && self.free_bytes().is_none_or(|free| free >= bytes + kept_free)
    }

    /// Makes the file. `go_on` is asked now and then.
    pub fn prepare(&self, go_on: &mut dyn FnMut() -> bool) {
        let made = self.make_prepared(go_on);
        let mut state = self.prepared.state.lock();
        *state = match made {
            Ok(Some(file)) => State::Ready(file),
            other => {
                if let Err(error) = other {
                    let text = format!("store {}: cannot make {PREPARED_NAME}: {error}; it goes on without", self.store_path);
                    log::write(log::Level::Info, "prepare", &text);
                }
                let _ = self.dir.remove(PREPARED_NAME);
                State::GivenUp
            }
        };
    }

    fn make_prepared(&self, go_on: &mut dyn FnMut() -> bool) -> io::Result<Option<Arc<dyn File>>> {
        let _ = self.dir.remove(PREPARED_NAME); // may be left over, and then be a chunk's second name
        let file = self.dir.create(PREPARED_NAME)?;
        if self.prepared.takes_large_groups() {
            file.allocate(self.options.chunk_bytes)?;
            file.sync()?;
            return Ok(Some(file));
        }
        let zeros = zeros();
        let mut at = 0;
        while at < self.options.chunk_bytes {
            let len = (self.options.chunk_bytes - at).min(PIECE_BYTES as u64);
            if !go_on() || !self.has_room_to_prepare(len) {
                return Ok(None);
            }
            write_all_at(&*file, &mut [IoSlice::new(&zeros[..len as usize])], at, false)?;
            file.sync()?;
            at += len;
        }
        Ok(Some(file))
    }

    /// Whether a durable group had better begin a chunk: a prepared file is there, and the active one is none.
    pub(super) fn has_better(&self) -> bool {
        !self.prepared.in_use.load(Ordering::Relaxed) && matches!(*self.prepared.state.lock(), State::Ready(_))
    }

    /// Makes the prepared file the chunk `name`, header and all, but for the sync of the directory; `None` if there is none,
    /// or it cannot be done.
    pub(super) fn use_prepared(&self, header: &ChunkHeader, name: &str) -> Option<Arc<dyn File>> {
        let mut state = self.prepared.state.lock();
        self.prepared.is_not_used();
        if matches!(*state, State::InTheMaking | State::Useless) {
            return None;
        }
        let State::Ready(file) = std::mem::take(&mut *state) else { return None };
        let written = write_all_at(&*file, &mut [IoSlice::new(&header.encode())], 0, false).and_then(|_| file.sync());
        let named = written.and_then(|()| self.dir.link(PREPARED_NAME, &*self.dir, name).inspect_err(|_| *state = State::Useless));
        let _ = self.dir.remove(PREPARED_NAME);
        self.prepared.in_use.store(named.is_ok(), Ordering::Relaxed);
        named.is_ok().then_some(file)
    }

    /// Gives back the space of the file, if there is one.
    pub(super) fn drop_prepared(&self) {
        let mut state = self.prepared.state.lock();
        if let State::Ready(_) = &*state {
            *state = State::GivenUp;
            let _ = self.dir.remove(PREPARED_NAME); // the next opening sees it, if it stays
        }
    }

    /// Cuts off the zeros behind the end of the chunk in which the log ended before the present one. That chunk's header
    /// is on stable storage and says that they count for nothing.
    pub(super) fn trim(&self, chunks: &Chunks, before: u64) {
        let done = chunks.by_age().into_iter().find(|chunk| chunk.id == before);
        if let Some(done) = done
            && let Some(end) = done.end().filter(|end| end.chunk == before)
            && done.file.len().is_ok_and(|len| len >= end.valid_bytes + TRIM_BYTES)
        {
            let _ = done.file.set_len(end.valid_bytes);
        }
    }
}

/// A piece of zeros that begins at a block, so that it need not go through the page cache.
fn zeros() -> &'static [u8] {
    #[repr(align(4096))]
    struct Blocks([u8; PIECE_BYTES]);
    static ZEROS: Blocks = Blocks([0; PIECE_BYTES]);
    &ZEROS.0
}

const _: () = assert!(BLOCK_BYTES == 4096 && PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
