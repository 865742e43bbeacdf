//! A file for the next chunk, written full of zeros ahead of its use, or given all of its space. Where there is one of a chunk that
//! compaction has removed, that goes first (`reuse`).
//!
//! A durable write into a file that grows has the file system write down the growth, too; into bytes that are there
//! already it has not, which saves about half of the time (`make bench`: "put, fsync on"). `ahead` fills the file in its
//! own thread, beside commits. It has a name of its own until `begin` gives it that of a chunk: it is never a part of the
//! store before that, and whoever writes zeros never touches a file that frames are written to.

use super::Log;
use super::reuse::removed_name;
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

/// Where durable groups usually have so many bytes, no zeros are written: those would be as many bytes again for the device, and cost
/// more than they save (`make bench`: "put, fsync per batch"). Groups that small batches form together have fewer.
const LARGE_GROUP_BYTES: u64 = 64 << 10;

/// A group moves what is usual by this share of the difference.
const USUAL_SHARE: u64 = 8;

/// Zeros are written, and synced, so many bytes at a time: a commit never waits for more.
const PIECE_BYTES: usize = 1 << 20;

/// Behind a chunk that is such a file itself, the next one is begun when that is full to so many quarters: ...
const DUE_AT_QUARTERS: u64 = 2;
/// ... and later where that was a removed chunk's, for another may come, and a new file only needs its space.
const DUE_AT_QUARTERS_OF_REUSED: u64 = 3;

/// For each byte that groups make durable so many zeros may be written meanwhile. Then the file is ready when the chunk that was half
/// full is full, and until then a group seldom meets a piece.
const ZEROS_PER_BYTE: u64 = 2;

/// A chunk that is done gives back the zeros behind its end, if there are at least so many bytes of them.
const TRIM_BYTES: u64 = 64 << 10;

/// What is known of the file.
#[derive(Default)]
pub(super) struct Prepared {
    state: Mutex<State>,
    /// Bytes that synchronous writes have made durable, in whole blocks.
    durable_bytes: AtomicU64,
    /// The same since the last group that was not durable.
    durable_bytes_in_a_row: AtomicU64,
    /// Bytes that such a write usually has, lately.
    usual_bytes: AtomicU64,
    /// The chunk that is written to, if it was such a file; else 0.
    in_use: AtomicU64,
    /// It was that of a removed chunk.
    is_reused: AtomicBool,
}

#[derive(Default)]
enum State {
    /// There is none; it may be wanted.
    #[default]
    Missing,
    /// Somebody has claimed it, and may be filling it just now.
    InTheMaking,
    /// A part of it is there.
    Begun(Making),
    /// It is there.
    Ready(Arc<dyn File>),
    /// It could not be had; the next chunk that wants it brings the next try.
    GivenUp,
    /// Files here cannot have a second name: there is no use for it.
    Useless,
}

/// A file that is being filled.
struct Making {
    file: Arc<dyn File>,
    /// Zeros that are in it, on stable storage.
    filled: u64,
    /// What had been made durable by synchronous writes when it was begun.
    durable_before: u64,
}

impl Prepared {
    /// Whether the chunk that is written to now is such a file.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) != 0
    }

    /// The chunk with this header is such a file.
    fn is_used(&self, header: &ChunkHeader) {
        self.is_reused.store(header.reused != 0, Ordering::Relaxed);
        self.in_use.store(header.chunk, Ordering::Relaxed);
    }

    /// The chunk that is written to now is no such file.
    pub(super) fn is_not_used(&self) {
        self.in_use.store(0, Ordering::Relaxed);
    }

    /// What could not be had may be tried again.
    fn forget_failure(&self) {
        let mut state = self.state.lock();
        if let State::GivenUp = *state {
            *state = State::Missing;
        }
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

    /// Bytes that synchronous writes have made durable since the last group that was not.
    pub(super) fn durable_bytes_in_a_row(&self) -> u64 {
        self.durable_bytes_in_a_row.load(Ordering::Relaxed)
    }
}

impl Log {
    /// A synchronous write of `len` bytes has come.
    pub fn count_durable(&self, len: u64) {
        let blocks = len.next_multiple_of(BLOCK_BYTES as u64);
        self.prepared.durable_bytes.fetch_add(blocks, Ordering::Relaxed);
        self.prepared.durable_bytes_in_a_row.fetch_add(blocks, Ordering::Relaxed);
        self.prepared.note_usual(len);
    }

    /// A group has come that is not durable, or not by itself.
    pub fn count_other(&self) {
        self.prepared.durable_bytes_in_a_row.store(0, Ordering::Relaxed);
    }

    /// It has come to byte `end` of chunk `chunk`. Whether a file is to be made ready now, or more of it: whoever hears yes has to
    /// call `prepare`.
    pub fn is_file_due(&self, chunk: u64, end: u64) -> bool {
        if let State::Begun(making) = &*self.prepared.state.lock() {
            return self.is_due(making);
        }
        let so_far = self.prepared.durable_bytes.load(Ordering::Relaxed);
        let is_time = match self.prepared.in_use.load(Ordering::Relaxed) {
            0 => true,
            // Groups of the chunk before may still be coming.
            in_use => chunk == in_use && end >= self.due_at(),
        };
        if so_far < LEAST_DURABLE_BYTES || !is_time {
            return false;
        }
        self.claim_prepared()
    }

    /// How far the present chunk, which is such a file, is filled when the next one is to be begun.
    fn due_at(&self) -> u64 {
        let may_wait = self.prepared.is_reused.load(Ordering::Relaxed) && self.prepared.takes_large_groups();
        let quarters = if may_wait { DUE_AT_QUARTERS_OF_REUSED } else { DUE_AT_QUARTERS };
        // It is asked behind a group, and takes as long as another one.
        let before_last = self.options.chunk_bytes.saturating_sub(2 * self.prepared.usual_bytes.load(Ordering::Relaxed));
        before_last.min(self.options.chunk_bytes / 4 * quarters)
    }

    /// Whether the caller is now the one to make the file.
    pub fn claim_prepared(&self) -> bool {
        let mut state = self.prepared.state.lock();
        let missing = matches!(*state, State::Missing) && !self.removed.has_unread() && self.has_room_to_prepare(self.options.chunk_bytes);
        if missing {
            *state = State::InTheMaking;
        }
        missing
    }

    /// Whether the next zeros may be written.
    fn is_due(&self, making: &Making) -> bool {
        let since = self.prepared.durable_bytes.load(Ordering::Relaxed) - making.durable_before;
        making.filled <= since.saturating_mul(ZEROS_PER_BYTE)
    }

    /// Whether so many bytes can be had and the disk still is far from full: the file is only for speed, and must not be
    /// what fills the disk.
    pub fn has_room_to_prepare(&self, bytes: u64) -> bool {
        let kept_free = self.options.chunk_bytes + self.options.reserve_bytes();
        !self.is_full() && self.free_bytes().is_none_or(|free| free >= bytes + kept_free)
    }

    /// Makes the file, as far as that is due. `go_on` is asked before each piece.
    pub fn prepare(&self, go_on: &mut dyn FnMut() -> bool) {
        let mut state = self.prepared.state.lock();
        let begun = match std::mem::replace(&mut *state, State::InTheMaking) {
            State::Begun(making) => Some(making),
            State::InTheMaking => None,
            other => return *state = other, // it was asked for twice
        };
        drop(state);
        let made = begun.map_or_else(|| self.begin_prepared(), Ok).and_then(|making| self.go_on_preparing(making, go_on));
        let state = made.unwrap_or_else(|error| {
            let text = format!("store {}: cannot make {PREPARED_NAME}: {error}; it goes on without", self.store_path);
            log::write(log::Level::Info, "prepare", &text);
            State::GivenUp
        });
        if let State::GivenUp = state {
            let _ = self.dir.remove(PREPARED_NAME);
        }
        *self.prepared.state.lock() = state;
        if self.removed.has_unread() {
            self.drop_what_is_worse(); // it has come meanwhile
        }
    }

    fn begin_prepared(&self) -> io::Result<Making> {
        let _ = self.dir.remove(PREPARED_NAME); // may be left over, and then be a chunk's second name
        let file = self.dir.create(PREPARED_NAME)?;
        Ok(Making { file, filled: 0, durable_before: self.prepared.durable_bytes.load(Ordering::Relaxed) })
    }

    fn go_on_preparing(&self, mut making: Making, go_on: &mut dyn FnMut() -> bool) -> io::Result<State> {
        if self.prepared.takes_large_groups() {
            making.file.allocate(self.options.chunk_bytes)?;
            making.file.sync()?;
            return Ok(State::Ready(making.file));
        }
        let zeros = zeros();
        while making.filled < self.options.chunk_bytes {
            let len = (self.options.chunk_bytes - making.filled).min(PIECE_BYTES as u64);
            if !go_on() || !self.is_due(&making) {
                return Ok(State::Begun(making));
            }
            if !self.has_room_to_prepare(len) {
                return Ok(State::GivenUp);
            }
            write_all_at(&*making.file, &mut [IoSlice::new(&zeros[..len as usize])], making.filled, false)?;
            making.file.sync()?;
            making.filled += len;
        }
        Ok(State::Ready(making.file))
    }

    /// Whether a durable group had better begin a chunk: a prepared file is there, and the active one is none. For that of a removed
    /// chunk the present one is not cut short: it will be such a file itself, if it is full.
    pub(super) fn has_better(&self) -> bool {
        !self.prepared.is_in_use() && matches!(*self.prepared.state.lock(), State::Ready(_))
    }

    /// Whether the file is there, for a group that may be `durable`.
    pub fn has_prepared(&self, durable: bool) -> bool {
        matches!(*self.prepared.state.lock(), State::Ready(_)) || durable && self.removed.has_unread()
    }

    /// Whether a group that begins a chunk had better do so with the prepared file than with a chunk that was made ahead: where
    /// groups are durable one by one, that is what it is for.
    pub(super) fn prepared_is_better(&self, durable: bool) -> bool {
        (durable || self.prepared.is_in_use()) && self.has_prepared(durable)
    }

    /// Makes the prepared file the chunk `name`, header and all, but for the sync of the directory; `None` if there is none that will
    /// do for a group that may be `durable`, or it cannot be done.
    pub(super) fn use_prepared(&self, durable: bool, header: &mut ChunkHeader, name: &str) -> Option<Arc<dyn File>> {
        self.prepared.is_not_used();
        self.prepared.forget_failure();
        if !durable {
            self.drop_removed();
        }
        let removed = if durable { self.removed.take_unread() } else { None };
        header.reused = removed.as_ref().map_or(0, |(_, number)| *number);
        let begun = match removed {
            Some((file, number)) => self.begin_with(file, &removed_name(number), header, name).ok(),
            None => self.begin_with_made(header, name),
        };
        match begun {
            Some(_) => self.prepared.is_used(header),
            None => header.reused = 0,
        }
        begun
    }

    fn begin_with_made(&self, header: &ChunkHeader, name: &str) -> Option<Arc<dyn File>> {
        let mut state = self.prepared.state.lock(); // whoever makes the next one has the same name for it
        match std::mem::take(&mut *state) {
            State::Ready(file) => match self.begin_with(file, PREPARED_NAME, header, name) {
                Ok(file) => Some(file),
                Err(error) => {
                    let never = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK | libc::ENOSYS));
                    *state = if never { State::Useless } else { State::Missing };
                    None
                }
            },
            other => {
                *state = other;
                None
            }
        }
    }

    /// Makes `file` a chunk. Whatever comes of it, it has its old name no more.
    fn begin_with(&self, file: Arc<dyn File>, name_before: &str, header: &ChunkHeader, name: &str) -> io::Result<Arc<dyn File>> {
        let written = write_all_at(&*file, &mut [IoSlice::new(&header.encode())], 0, false).and_then(|_| file.sync());
        let named = written.and_then(|()| self.dir.link(name_before, &*self.dir, name));
        let _ = self.dir.remove(name_before);
        named.map(|()| file)
    }

    /// Gives back the space of the file, if there is one, and of those of removed chunks.
    pub fn drop_prepared(&self) {
        self.drop_removed();
        let mut state = self.prepared.state.lock();
        if let State::Ready(_) | State::Begun(_) = &*state {
            self.give_back(&mut state, State::GivenUp);
        }
    }

    /// The file of a removed chunk is there: nobody needs one of which a part is written, or that only has its space.
    pub(super) fn drop_what_is_worse(&self) {
        let mut state = self.prepared.state.lock();
        let worse = match &*state {
            State::Begun(_) => true,
            State::Ready(_) => self.prepared.takes_large_groups(),
            _ => false,
        };
        if worse {
            self.give_back(&mut state, State::Missing);
        }
    }

    fn give_back(&self, state: &mut State, next: State) {
        *state = next;
        let _ = self.dir.remove(PREPARED_NAME); // the next opening sees it, if it stays
    }

    /// Cuts off what lies behind the end of the chunk in which the log ended before the present one: nothing that is written from now
    /// on needs it, and recovery finds the end where it was.
    pub(super) fn trim(&self, chunks: &Chunks, before: u64) {
        let done = chunks.by_age().into_iter().find(|chunk| chunk.id == before);
        if let Some(done) = done
            && let Some(end) = done.end().filter(|end| end.chunk == before)
            && done.file.len().is_ok_and(|len| len > end.valid_bytes && (done.is_reused || len >= end.valid_bytes + TRIM_BYTES))
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
