//! Loading a checkpoint. `recovery` calls this; whatever is doubtful here is answered with `None`, never with an error:
//! the log says the same, only slower.

use super::file::{self, BLOCK_HEAD_LEN, FOOTER_LEN, HEAD_LEN, Head, MARKS, Slot, Tail};
use crate::base::planted::{Bug, planted};
use crate::base::sync::{Arc, Mutex, spawn_scoped};
use crate::io::{Dir, File, read_full_at};
use crate::native::frame::Salt;
use crate::native::index::{ENTRY_LEN, Index, Part, Place, SEGMENTS, SLOTS_MAX};
use crate::native::window::Window;
use std::ops::Range;

/// From this many entries on, two threads share the work.
const ENTRIES_FOR_TWO: u64 = 1 << 17;

/// A checkpoint file with a good header and a good tail.
pub struct Checkpoint {
    /// Its header.
    pub head: Head,
    /// Its tail.
    pub tail: Tail,
    file: Arc<dyn File>,
    salt: Salt,
}

/// What the entries say of a slot.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Whether they may name it.
    known: bool,
    /// Bytes of records that they find in it.
    live_bytes: u64,
}

impl Checkpoint {
    /// Reads header and tail of checkpoint `number`.
    pub fn open(dir: &dyn Dir, number: u64) -> Option<Checkpoint> {
        let file = dir.open(&super::file_name(number)).ok()?;
        Checkpoint::of(file).filter(|checkpoint| checkpoint.head.number == number)
    }

    /// Reads header and tail of a file.
    pub fn of(file: Arc<dyn File>) -> Option<Checkpoint> {
        let len = file.len().ok()?;
        let head = Head::decode(&read(&*file, 0, HEAD_LEN as u64)?)?;
        let footer = read(&*file, len.checked_sub(FOOTER_LEN as u64)?, FOOTER_LEN as u64)?;
        let tail_at = Tail::place(&footer, len)?;
        let salt = file::salt(&head.store, head.number);
        let tail = Tail::decode(&read(&*file, tail_at, len - tail_at)?, tail_at, head.number, salt)?;
        if tail.slots.iter().any(|slot| slot.slot >= SLOTS_MAX) {
            return None;
        }
        Some(Checkpoint { head, tail, file, salt })
    }

    /// Its file name.
    pub fn name(&self) -> String {
        super::file_name(self.head.number)
    }

    /// What the table says of a chunk.
    pub fn slot_of(&self, chunk: u64) -> Option<&Slot> {
        let at = self.tail.slots.binary_search_by_key(&chunk, |slot| slot.chunk).ok()?;
        self.tail.slots.get(at)
    }

    /// The first slot behind all those that entries may name.
    pub fn slots_end(&self) -> u32 {
        self.tail.slots.iter().map(|slot| slot.slot + 1).max().unwrap_or(1)
    }

    /// Whether every block is good.
    pub fn verify(&self) -> bool {
        let mut entries = 0;
        let whole = self.blocks(0..MARKS, |_, bytes| {
            entries += (bytes.len() / ENTRY_LEN) as u64;
            Some(())
        });
        whole.is_some() && entries == self.tail.entries
    }

    /// Fills `index`, which is empty; the bytes of current records by slot. After `None` the index holds nothing of use.
    pub fn load(&self, index: &mut Index) -> Option<Vec<u64>> {
        let mut blank = Vec::new();
        blank.try_reserve_exact(self.slots_end() as usize).ok()?;
        blank.resize(self.slots_end() as usize, Seen::default());
        self.tail.slots.iter().for_each(|slot| blank[slot.slot as usize].known = true);
        let threads = if self.tail.entries >= ENTRIES_FOR_TWO { 2 } else { 1 };
        let seen = index.fill(threads, |parts| self.fill(parts, &blank))?;
        let mut live = vec![0; blank.len()];
        for part in &seen {
            live.iter_mut().zip(part).for_each(|(sum, slot)| *sum += slot.live_bytes);
        }
        (index.len() as u64 == self.tail.entries).then_some(live)
    }

    /// Fills each part, all but the last in threads of their own if there are any to be had.
    fn fill(&self, mut parts: Vec<Part<'_>>, blank: &[Seen]) -> Option<Vec<Vec<Seen>>> {
        let mine = parts.pop()?;
        std::thread::scope(|scope| {
            let others: Vec<_> = parts
                .into_iter()
                .map(|part| {
                    let part = Arc::new(Mutex::new(Some(part)));
                    let taken = Arc::clone(&part);
                    let thread = spawn_scoped("kvbatch-load", scope, move || self.fill_part(taken.lock().take()?, blank.to_vec()));
                    (part, thread.ok())
                })
                .collect();
            let mut seen = vec![self.fill_part(mine, blank.to_vec())?];
            for (part, thread) in others {
                seen.push(match thread {
                    Some(thread) => thread.join().ok()??,
                    None => self.fill_part(part.lock().take()?, blank.to_vec())?,
                });
            }
            Some(seen)
        })
    }

    fn fill_part(&self, mut part: Part<'_>, mut seen: Vec<Seen>) -> Option<Vec<Seen>> {
        let each = SEGMENTS / MARKS;
        let marks = part.range().start / each..part.range().end / each;
        self.blocks(marks, |segment, bytes| {
            let mut good = true;
            for entry in bytes.chunks_exact(ENTRY_LEN) {
                let place = Place::from_bits(crate::native::frame::u64_at(entry, 8));
                match seen.get_mut(place.slot() as usize).filter(|slot| slot.known || planted(Bug::UnknownSlotTaken)) {
                    Some(slot) => slot.live_bytes += place.len_at_most() as u64,
                    None => good = false,
                }
                good &= place.to_bits() != 0;
            }
            if !good {
                return None;
            }
            part.fill(segment, bytes).ok()
        })?;
        Some(seen)
    }

    /// Hands the entries of each block from mark to mark to `take`.
    fn blocks(&self, marks: Range<usize>, mut take: impl FnMut(usize, &[u8]) -> Option<()>) -> Option<()> {
        let each = SEGMENTS / MARKS;
        let end = self.tail.marks.get(marks.end).copied().unwrap_or(self.tail.at);
        let mut at = self.tail.marks.get(marks.start).copied().filter(|at| *at >= HEAD_LEN as u64)?;
        let mut window = Window::new(&*self.file, end);
        let mut next_segment = marks.start * each;
        while at < end {
            let (segment, len) = file::block_shape(window.bytes(at, BLOCK_HEAD_LEN as u64).ok()??)?;
            if !(next_segment..marks.end * each).contains(&segment) {
                return None;
            }
            take(segment, file::block_entries(window.bytes(at, len).ok()??, self.salt, at)?)?;
            next_segment = segment + 1;
            at += len;
        }
        (at == end && end <= self.tail.at).then_some(())
    }
}

fn read(file: &dyn File, offset: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).ok()?).ok()?;
    bytes.resize(len as usize, 0);
    (read_full_at(file, &mut bytes, offset).ok()? as u64 == len).then_some(bytes)
}
