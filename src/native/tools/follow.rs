//! Following the log through all chunks of a survey, damaged ones too: what is good in it, and what is damage.
//!
//! Whether a bad stretch is the torn end of what was never confirmed, or damage, is decided as in recovery: by the
//! durable watermarks of what lies behind it. Behind a torn end nothing counts. Behind damage it goes on.

use super::super::frame::{CHUNK_HEADER_LEN, FRAME_HEADER_LEN, FrameHeader, FrameKind, LogEnd, Salt, TO_ITS_LAST_FRAME};
use super::super::window::Window;
use super::survey::{ChunkFile, Role, Survey};
use super::sweep::{Event, Go, Payload, Sweep};
use super::{Damage, Progress};
use crate::base::error::{Error, Result};
use crate::engine::record::{ALIGN, Record};
use std::io;

/// What is met on the way.
pub enum Met<'a> {
    /// A frame, good in every byte.
    Frame,
    /// A good record: the number of its chunk in the survey, and its place.
    Record { chunk: usize, offset: u64, bytes: &'a [u8], record: Record<'a> },
    /// Something is wrong.
    Damage(Damage),
    /// Something is as it should be, and worth knowing.
    Note(String),
}

/// How far the log was followed, and what was missed.
#[derive(Default)]
pub struct Follower {
    last_seq: u64,
    /// The running digest there, where it is known.
    digest: Option<u64>,
    watermark: u64,
    /// The log ended before this.
    ended: bool,
    /// Something bad lies between the last good frame and here.
    gap: bool,
    /// Records that stood where something is damaged, as far as they can be counted.
    missed: u64,
    /// Those of them that are good all the same.
    found: u64,
}

type Visit<'a> = &'a mut dyn FnMut(Met<'_>) -> Result<()>;

impl Follower {
    /// Follows the log from its first chunk to its end.
    pub fn run(&mut self, survey: &Survey, visit: Visit<'_>, progress: Progress<'_>) -> Result<()> {
        let total = survey.bytes();
        self.watermark = self.watermark.max(survey.proven_seq);
        let mut done: u64 = survey.others.iter().map(|(_, len)| len).sum();
        for (at, chunk) in survey.chunks.iter().enumerate() {
            progress(done, total);
            match chunk.role {
                Role::None => {}
                Role::Part { .. } if self.ended => visit(Met::Note(format!("{} lies behind the end of the log", chunk.name)))?,
                Role::Part { .. } => self.chunk(survey, at, visit, &mut |bytes| progress(done + bytes.min(chunk.len), total))?,
            }
            done += chunk.len;
        }
        progress(total, total);
        self.all_there(survey, visit)
    }

    /// The log is good to its end; is that all?
    fn all_there(&mut self, survey: &Survey, visit: Visit<'_>) -> Result<()> {
        let lost = self.watermark.saturating_sub(self.last_seq);
        let Some(last) = survey.chunks.iter().rfind(|chunk| chunk.role != Role::None).filter(|_| lost > 0 && self.missed == 0) else {
            return Ok(());
        };
        self.missed = lost;
        let what = format!("{lost} records are missing behind this file: a checkpoint or the manifest proves that they were there");
        visit(Met::Damage(Damage::new(&last.name, last.len, 0, what)))
    }

    /// Records that were in the log and cannot be read, as far as they can be counted.
    pub fn lost(&self) -> u64 {
        self.missed.saturating_sub(self.found)
    }

    fn chunk(&mut self, survey: &Survey, number: usize, visit: Visit<'_>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let chunk = &survey.chunks[number];
        let Some(salt) = chunk.salt(survey.store) else {
            return visit(Met::Damage(Damage::new(&chunk.name, 0, chunk.len, "no file says which store this is")));
        };
        let Role::Part { end, sealed } = chunk.role else { return Ok(()) };
        let limit = end.map_or(chunk.len, |end| end.valid_bytes.min(chunk.len));
        if let Some(before) = chunk.header.and_then(|header| header.end_before()) {
            (self.last_seq, self.digest) = (before.last_seq, Some(before.digest));
            self.gap = false;
        }
        match chunk.header {
            Some(header) => self.watermark = self.watermark.max(header.watermark),
            None => self.digest = None,
        }
        if let (true, Some(end)) = (sealed, end) {
            self.watermark = self.watermark.max(end.last_seq);
        }
        let digest = self.digest;
        let good_until = CHUNK_HEADER_LEN as u64;
        let mut inside = Inside { follower: self, survey, number, salt, visit, damaged: false, good_until, failed: None };
        let mut window = Window::new(&chunk.file, limit);
        let swept = Sweep::new(&mut window, salt, limit, digest).run(good_until, &mut |event| match inside.meet(event) {
            Ok(go) => {
                progress(inside.good_until);
                Ok(go)
            }
            Err(error) => {
                inside.failed = Some(error);
                Ok(Go::Stop)
            }
        });
        swept.map_err(|e| read_failed(chunk, &e))?;
        inside.end(end, limit)?;
        if self.ended || limit >= chunk.len {
            return Ok(());
        }
        // Behind the end of a chunk: the word that the store was closed, or what was cut off.
        let mut is_used = false;
        let mut window = Window::new(&chunk.file, chunk.len);
        let swept = Sweep::new(&mut window, salt, chunk.len, None).run(limit, &mut |event| {
            is_used |= !matches!(event, Event::Frame { header, .. } if header.kind != FrameKind::Data);
            Ok(Go::On)
        });
        swept.map_err(|e| read_failed(chunk, &e))?;
        if is_used {
            visit(Met::Note(format!("{}: what lies behind byte {limit} was cut off, and is not used", chunk.name)))?;
        }
        Ok(())
    }

    /// A good frame header was met.
    fn pass(&mut self, header: &FrameHeader) {
        if self.gap {
            self.missed += header.first_seq.saturating_sub(self.last_seq + 1);
        }
        self.gap = false;
        if header.kind == FrameKind::Data {
            self.last_seq = header.last_seq().unwrap_or(0).max(self.last_seq);
        }
        self.watermark = self.watermark.max(header.watermark);
    }

    /// Nothing good is at byte `at` of this chunk: does anything prove that what stood there was confirmed?
    fn is_damage(&self, survey: &Survey, number: usize, salt: Salt, at: u64) -> Result<bool> {
        if self.watermark > self.last_seq || self.proves(&survey.chunks[number], salt, at)? {
            return Ok(true);
        }
        for chunk in survey.chunks[number + 1..].iter().filter(|chunk| chunk.role != Role::None) {
            let by_header = chunk.header.is_some_and(|header| header.watermark > self.last_seq);
            let Some(salt) = chunk.salt(survey.store) else { continue };
            if by_header || self.proves(chunk, salt, CHUNK_HEADER_LEN as u64)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether any good frame header from `from` on says that more was durable than was found.
    fn proves(&self, chunk: &ChunkFile, salt: Salt, from: u64) -> Result<bool> {
        let mut window = Window::new(&chunk.file, chunk.len);
        let mut at = from.next_multiple_of(ALIGN as u64);
        while let Some(bytes) = window.bytes(at, FRAME_HEADER_LEN as u64).map_err(|e| read_failed(chunk, &e))? {
            if FrameHeader::decode(bytes, salt, at).is_some_and(|frame| frame.watermark > self.last_seq) {
                return Ok(true);
            }
            at += ALIGN as u64;
        }
        Ok(false)
    }
}

/// The sweep of one chunk.
struct Inside<'a, 'v> {
    follower: &'a mut Follower,
    survey: &'a Survey,
    number: usize,
    salt: Salt,
    visit: Visit<'v>,
    damaged: bool,
    /// Behind the last good frame.
    good_until: u64,
    failed: Option<Error>,
}

impl Inside<'_, '_> {
    fn meet(&mut self, event: Event<'_>) -> Result<Go> {
        match event {
            Event::Frame { at, len, header, follows } => {
                if !follows || header.first_seq <= self.follower.last_seq {
                    if !self.is_damage(at)? {
                        return self.torn(at);
                    }
                    self.damaged(at, 0, "the frame here does not continue what lies before it")?;
                }
                self.follower.pass(&header);
                if header.kind == FrameKind::Data {
                    self.good_until = at + len;
                    self.follower.digest = Some(header.digest);
                }
                (self.visit)(Met::Frame)?;
            }
            Event::Record { offset, bytes, record, payload } => {
                self.follower.found += u64::from(payload == Payload::Damaged);
                (self.visit)(Met::Record { chunk: self.number, offset, bytes, record })?;
            }
            Event::BadFrame { at, len, header } => {
                if !self.is_damage(at)? {
                    return self.torn(at);
                }
                self.damaged(at, len, "a frame is damaged")?;
                self.follower.pass(&header);
                self.follower.missed += u64::from(header.records);
                self.follower.digest = Some(header.digest);
            }
            Event::Bad { from, to, next: false } if self.is_where_the_next_goes_on() => {
                return self.meet(Event::DirtyGap { from, to });
            }
            Event::Bad { from, to, next } => {
                if !self.is_damage(from)? {
                    return self.torn(from);
                }
                (self.follower.gap, self.follower.digest) = (true, None);
                let what = if next { "there is no good frame here" } else { "there is no good frame from here to the end" };
                self.damaged(from, to - from, what)?;
            }
            Event::DirtyGap { from, to } => {
                let name = &self.survey.chunks[self.number].name;
                (self.visit)(Met::Note(format!("{name}: bytes {from} to {to} are not zero, as after a crash; they are not used")))?;
            }
            Event::DirtyPadding { from, to } => {
                let what = "the padding of a record is not zero, as it was written (nothing is lost)";
                let damage = Damage::new(&self.survey.chunks[self.number].name, from, to - from, what);
                (self.visit)(Met::Damage(damage))?;
            }
        }
        Ok(Go::On)
    }

    /// The next chunk says that nothing is missing here, though not at which byte this one ends.
    fn is_where_the_next_goes_on(&self) -> bool {
        let Role::Part { end: Some(end), .. } = self.survey.chunks[self.number].role else { return false };
        end.valid_bytes == TO_ITS_LAST_FRAME && (end.last_seq, Some(end.digest)) == (self.follower.last_seq, self.follower.digest)
    }

    /// The sweep is over: was all there that should be?
    fn end(mut self, end: Option<LogEnd>, limit: u64) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let chunk = &self.survey.chunks[self.number];
        for hole in chunk.file.holes() {
            self.damaged(hole.offset, hole.len, &format!("cannot be read: {}", hole.why))?;
        }
        let Some(end) = end.filter(|_| !self.follower.ended) else { return Ok(()) };
        let cut_short = end.valid_bytes > chunk.len && end.valid_bytes != TO_ITS_LAST_FRAME;
        let elsewhere = (end.last_seq, Some(end.digest)) != (self.follower.last_seq, self.follower.digest);
        if !cut_short && (self.damaged || !elsewhere) {
            if self.follower.gap {
                self.follower.missed += end.last_seq.saturating_sub(self.follower.last_seq);
            }
            return Ok(());
        }
        if !self.is_damage(limit)? {
            return self.torn(self.good_until).map(drop);
        }
        self.follower.missed += end.last_seq.saturating_sub(self.follower.last_seq);
        let from = if cut_short { chunk.len } else { self.good_until };
        if end.valid_bytes == TO_ITS_LAST_FRAME {
            return self.damaged(from, 0, "frames are missing: the next chunk goes on behind others");
        }
        let what = format!("bytes are missing: the log went on to byte {} here", end.valid_bytes);
        self.damaged(from, end.valid_bytes.saturating_sub(from), &what)
    }

    fn damaged(&mut self, from: u64, len: u64, what: &str) -> Result<()> {
        self.damaged = true;
        (self.visit)(Met::Damage(Damage::new(&self.survey.chunks[self.number].name, from, len, what)))
    }

    fn is_damage(&self, at: u64) -> Result<bool> {
        self.follower.is_damage(self.survey, self.number, self.salt, at)
    }

    /// The log ends here.
    fn torn(&mut self, at: u64) -> Result<Go> {
        self.follower.ended = true;
        let chunk = &self.survey.chunks[self.number];
        let (name, len) = (&chunk.name, chunk.len.saturating_sub(at));
        let or = if chunk.is_reused() { ", or are left of an older chunk" } else { "" };
        (self.visit)(Met::Note(format!("{name}: the log ends at byte {at}; the {len} bytes behind it were never confirmed{or}")))?;
        Ok(Go::Stop)
    }
}

fn read_failed(chunk: &ChunkFile, error: &io::Error) -> Error {
    Error::from_io(format_args!("cannot read {}", chunk.name), error)
}
