//! Going through a chunk file that may be damaged: everything good in it, and what lies between.
//!
//! Unlike recovery, a sweep does not stop at the first bad frame. It looks for the next good header, and takes apart a
//! frame that does not check out as a whole into the records that do: each has a checksum of its own, salted with its
//! place. What a bad stretch means, a torn end or damage, is for the caller to judge.

use super::super::frame::{BATCH_ENTRY_LEN, BatchEntry, Digest, FRAME_HEADER_LEN, FrameHeader, FrameKind, Salt};
use super::super::window::Window;
use crate::base::limits::BLOCK_BYTES;
use crate::engine::record::{ALIGN, HEADER_LEN, Record, stored_sum};
use std::io;

/// What a sweep meets, in the order of the file.
pub enum Event<'a> {
    /// A frame that is good in every byte. Its records follow. `follows`: it continues what was swept before it.
    Frame { at: u64, len: u64, header: FrameHeader, follows: bool },
    /// A record that is good in itself.
    Record { offset: u64, bytes: &'a [u8], record: Record<'a>, payload: Payload },
    /// A good header, and something in the frame is not good. Records that are follow.
    BadFrame { at: u64, len: u64, header: FrameHeader },
    /// No good frame. Records that are good follow. `next`: whether a good header follows.
    Bad { from: u64, to: u64, next: bool },
    /// Bytes between two frames that follow each other are not zero: a crash may leave anything there.
    DirtyGap { from: u64, to: u64 },
    /// The padding of a record is not zero, though it was written so.
    DirtyPadding { from: u64, to: u64 },
}

/// In what kind of frame a record was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Good as a whole.
    Whole,
    /// Damaged elsewhere.
    Damaged,
}

/// Whether to go on.
pub enum Go {
    /// To the next event.
    On,
    /// The sweep is over.
    Stop,
}

/// Sweeps one chunk.
pub struct Sweep<'a, 'f> {
    window: &'a mut Window<'f>,
    salt: Salt,
    to: u64,
    /// The running digest, where it is known.
    digest: Option<u64>,
}

impl<'a, 'f> Sweep<'a, 'f> {
    /// Over `window` up to `to`, where it ends; `digest`: what the first frame has to continue, if that is known.
    pub fn new(window: &'a mut Window<'f>, salt: Salt, to: u64, digest: Option<u64>) -> Self {
        Sweep { window, salt, to, digest }
    }

    /// Meets everything from `from` on.
    pub fn run(mut self, from: u64, visit: &mut dyn FnMut(Event<'_>) -> io::Result<Go>) -> io::Result<()> {
        let mut at = from;
        while at < self.to {
            let Some((start, header)) = self.next_frame(at)? else {
                if let Some(dirt) = self.first_dirt(at, self.to)? {
                    self.bad(dirt / ALIGN as u64 * ALIGN as u64, self.to, false, visit)?;
                }
                return Ok(());
            };
            let follows = self.digest.is_none_or(|digest| digest == header.digest_before);
            let is_next = follows && (start == at || start == at.next_multiple_of(BLOCK_BYTES as u64));
            let go = match self.first_dirt(at, start)? {
                Some(dirt) if is_next => visit(Event::DirtyGap { from: dirt, to: start })?,
                None if is_next => Go::On,
                _ if start == at => Go::On, // it tells by itself that it does not follow
                _ => self.bad(at, start, true, visit)?,
            };
            if let Go::Stop = go {
                return Ok(());
            }
            match self.frame(start, &header, visit)? {
                Some(end) => at = end,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The first good header at or behind `at`.
    fn next_frame(&mut self, at: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let mut at = at.next_multiple_of(ALIGN as u64);
        while at < self.to {
            let Some(bytes) = self.window.bytes(at, FRAME_HEADER_LEN as u64)? else { return Ok(None) };
            if let Some(header) = FrameHeader::decode(bytes, self.salt, at) {
                return Ok(Some((at, header)));
            }
            at += ALIGN as u64;
        }
        Ok(None)
    }

    /// The first byte in the range that is not zero.
    fn first_dirt(&mut self, mut at: u64, to: u64) -> io::Result<Option<u64>> {
        while at < to {
            let len = (to - at).min(1 << 16);
            // Bytes that the file has lost are not there to be dirty.
            let Some(bytes) = self.window.bytes(at, len)? else { return Ok(Some(at)) };
            if let Some(dirt) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Some(at + dirt as u64));
            }
            at += len;
        }
        Ok(None)
    }

    /// A stretch without a good frame; what is left of one may still hold good records.
    fn bad(&mut self, from: u64, to: u64, next: bool, visit: &mut dyn FnMut(Event<'_>) -> io::Result<Go>) -> io::Result<Go> {
        self.digest = None;
        if let Go::Stop = visit(Event::Bad { from, to, next })? {
            return Ok(Go::Stop);
        }
        let salt = self.salt;
        match self.window.bytes(from, to - from)? {
            Some(bytes) => records(bytes, from, salt, Payload::Damaged, visit),
            None => Ok(Go::On),
        }
    }

    /// One frame; where to go on behind it, `None` to stop.
    fn frame(&mut self, at: u64, header: &FrameHeader, visit: &mut dyn FnMut(Event<'_>) -> io::Result<Go>) -> io::Result<Option<u64>> {
        let end = header.len().and_then(|len| at.checked_add(len)).filter(|end| *end <= self.to);
        let until = end.unwrap_or(self.to);
        let payload_at = at + header.payload_at().min(until - at);
        let (salt, follows) = (self.salt, self.digest.is_none_or(|digest| digest == header.digest_before));
        let Some(bytes) = self.window.bytes(at, until - at)? else {
            visit(Event::Bad { from: at, to: until, next: false })?;
            return Ok(None);
        };
        let (head, payload) = bytes.split_at((payload_at - at) as usize);
        let whole = end.is_some() && is_whole(header, head, payload, payload_at, salt);
        let len = until - at;
        let event = match whole {
            true => Event::Frame { at, len, header: *header, follows },
            false => Event::BadFrame { at, len, header: *header },
        };
        if let Go::Stop = visit(event)? {
            return Ok(None);
        }
        let state = if whole { Payload::Whole } else { Payload::Damaged };
        if let Go::Stop = records(payload, payload_at, salt, state, visit)? {
            return Ok(None);
        }
        if header.kind == FrameKind::Data {
            self.digest = Some(header.digest);
        }
        // Of a frame that is cut off, a later one may stand in the part that is not its own.
        Ok(Some(if end.is_some() { until } else { at + FRAME_HEADER_LEN as u64 }))
    }
}

/// Whether every byte of a frame is as its header says.
fn is_whole(header: &FrameHeader, head: &[u8], payload: &[u8], payload_at: u64, salt: Salt) -> bool {
    let Some(table) = head.get(FRAME_HEADER_LEN..) else { return false };
    let listed: u64 = table.chunks_exact(BATCH_ENTRY_LEN).map(|entry| u64::from(BatchEntry::decode(entry).records)).sum();
    let mut digest = Digest::new(header.digest_before);
    let (mut at, mut count) = (0, 0u64);
    while at < payload.len() {
        let Ok((_, len)) = Record::parse_checked(&payload[at..], salt.at(payload_at + at as u64)) else { return false };
        digest.record(stored_sum(&payload[at..]));
        at += len;
        count += 1;
    }
    digest.table(table);
    let counts_agree = listed == u64::from(header.records) && count == listed;
    counts_agree && digest.finish(header.kind, header.first_seq, header.payload_len) == header.digest
}

/// The records of a frame that are good in themselves; behind a bad one it goes on at the next place where one is good.
fn records(
    payload: &[u8],
    payload_at: u64,
    salt: Salt,
    state: Payload,
    visit: &mut dyn FnMut(Event<'_>) -> io::Result<Go>,
) -> io::Result<Go> {
    let mut at = 0;
    while at + HEADER_LEN <= payload.len() {
        let offset = payload_at + at as u64;
        let rest = &payload[at..];
        let Ok((record, len)) = Record::parse_checked(rest, salt.at(offset)) else {
            at += ALIGN;
            continue;
        };
        let used = record.sum_end();
        if let Some(dirt) = rest[used..len].iter().position(|byte| *byte != 0) {
            let from = offset + (used + dirt) as u64;
            if let Go::Stop = visit(Event::DirtyPadding { from, to: offset + len as u64 })? {
                return Ok(Go::Stop);
            }
        }
        if let Go::Stop = visit(Event::Record { offset, bytes: &rest[..len], record, payload: state })? {
            return Ok(Go::Stop);
        }
        at += len;
    }
    Ok(Go::On)
}
