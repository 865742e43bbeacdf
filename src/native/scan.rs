//! Going through the records of a sealed chunk, one by one.
//!
//! The chunk was replayed or written by this process before, so its frames are known to be good: what does not check
//! out now has been damaged since. Records are checked under the salt of their place as everywhere, and each frame must
//! say that it follows the one before it: a frame that cannot be read is missed, wherever the next one begins.

use super::frame::{CHUNK_HEADER_LEN, FrameHeader, FrameKind, LogEnd, Salt, places_of_next};
use super::window::Window;
use crate::base::crc::LANES;
use crate::engine::record::Record;
use std::io;

/// See the top of this file.
pub struct Frames {
    salt: Salt,
    end: LogEnd,
    /// The next frame, if none is being read.
    at: u64,
    /// The running digest behind the last data frame; `None` before the first.
    digest: Option<u64>,
    /// The records that are left of the frame being read.
    records: Option<(u64, u64)>,
}

/// Records that a run has at the most.
pub const RUN_MAX: usize = 32;

/// Where some records stand that were found good, all of them in the window: whoever has several at hand can look them up
/// side by side.
#[derive(Default)]
pub struct Run {
    places: [(u64 /* offset */, u64 /* length */); RUN_MAX],
    len: usize,
}

impl Run {
    /// Offsets and lengths, in bytes.
    pub fn places(&self) -> &[(u64, u64)] {
        &self.places[..self.len]
    }

    fn push(&mut self, offset: u64, len: u64) {
        self.places[self.len] = (offset, len);
        self.len += 1;
    }
}

/// What the scan met when it looked for a run.
pub enum Next {
    /// Some records, or one.
    Run,
    /// There are no more.
    End,
    /// Nothing good, where there should be.
    Damaged {
        /// Where, in bytes.
        offset: u64,
    },
}

/// What the scan met.
pub enum Step<'a> {
    /// A record, with its bytes and where they stand.
    Record { offset: u64, bytes: &'a [u8], record: Record<'a> },
    /// There are no more.
    End,
    /// Nothing good, where there should be.
    Damaged { offset: u64 },
}

impl Frames {
    /// From the start of the chunk to its end.
    pub fn new(salt: Salt, end: LogEnd) -> Frames {
        Frames { salt, end, at: CHUNK_HEADER_LEN as u64, digest: None, records: None }
    }

    /// The next record.
    pub fn next_record<'w>(&mut self, window: &'w mut Window<'_>) -> io::Result<Step<'w>> {
        loop {
            if let Some((at, end)) = self.records {
                if at < end {
                    return self.record(window, at, end);
                }
                self.at = end;
                self.records = None;
            }
            if self.at >= self.end.valid_bytes {
                let whole = self.digest.is_none_or(|digest| digest == self.end.digest);
                return Ok(if whole { Step::End } else { Step::Damaged { offset: self.at } });
            }
            let Some(frame) = self.frame(window)? else { return Ok(Step::Damaged { offset: self.at }) };
            let end = frame.len().and_then(|len| self.at.checked_add(len)).filter(|end| *end <= self.end.valid_bytes);
            let Some(end) = end else { return Ok(Step::Damaged { offset: self.at }) };
            self.records = Some((self.at + frame.payload_at(), end));
        }
    }

    /// The next records of one frame, as many as the window stands over without being moved.
    pub fn next_run(&mut self, window: &mut Window<'_>, run: &mut Run) -> io::Result<Next> {
        run.len = 0;
        while run.len < RUN_MAX {
            if self.take_some(window, run) {
                continue;
            }
            if run.len > 0 && !self.next_is_held(window) {
                break;
            }
            match self.next_record(window)? {
                Step::Record { offset, bytes, .. } => run.push(offset, bytes.len() as u64),
                // It is met again behind the run.
                Step::End | Step::Damaged { .. } if run.len > 0 => break,
                Step::End => return Ok(Next::End),
                Step::Damaged { offset } => return Ok(Next::Damaged { offset }),
            }
        }
        Ok(Next::Run)
    }

    /// Takes the next few records, if the window stands over all of them and they are good: side by side that is quicker. False:
    /// whoever goes one by one will see why.
    fn take_some(&mut self, window: &Window<'_>, run: &mut Run) -> bool {
        let Some((at, end)) = self.records.filter(|_| run.len + LANES <= RUN_MAX) else { return false };
        let salt_at = |from: usize| self.salt.at(at + from as u64);
        let Some(row) = Record::next_lanes(window.held_up_to(at, end), salt_at) else { return false };
        let mut from = at;
        for (_, len) in row {
            run.push(from, len as u64);
            from += len as u64;
        }
        self.records = Some((from, end));
        true
    }

    /// Whether the frame has another record, and the window stands over it.
    fn next_is_held(&self, window: &Window<'_>) -> bool {
        let Some((at, end)) = self.records.filter(|(at, end)| at < end) else { return false };
        let head = window.held(at, (end - at).min(crate::engine::record::LENGTHS_IN as u64));
        head.and_then(Record::declared_len).is_some_and(|len| window.held(at, len as u64).is_some())
    }

    /// The frame that follows.
    fn frame(&mut self, window: &mut Window<'_>) -> io::Result<Option<FrameHeader>> {
        for at in places_of_next(self.at) {
            let bytes = window.bytes(at, super::frame::FRAME_HEADER_LEN as u64)?;
            let Some(frame) = bytes.and_then(|bytes| FrameHeader::decode(bytes, self.salt, at)) else { continue };
            let follows = self.digest.map_or(at == CHUNK_HEADER_LEN as u64, |digest| frame.digest_before == digest);
            if follows {
                self.at = at;
                if frame.kind == FrameKind::Data {
                    self.digest = Some(frame.digest);
                }
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn record<'w>(&mut self, window: &'w mut Window<'_>, at: u64, end: u64) -> io::Result<Step<'w>> {
        let Some(len) = record_len(window, at, end)? else { return Ok(Step::Damaged { offset: at }) };
        let Some(bytes) = window.bytes(at, len)? else { return Ok(Step::Damaged { offset: at }) };
        match Record::parse_checked(bytes, self.salt.at(at)) {
            Ok((record, len)) => {
                self.records = Some((at + len as u64, end));
                Ok(Step::Record { offset: at, bytes: &bytes[..len], record })
            }
            Err(_) => Ok(Step::Damaged { offset: at }),
        }
    }
}

/// How long the record at `at` says it is, if that is possible before `end`.
fn record_len(window: &mut Window<'_>, at: u64, end: u64) -> io::Result<Option<u64>> {
    let head = (end - at).min(crate::engine::record::LENGTHS_IN as u64);
    let Some(bytes) = window.bytes(at, head)? else { return Ok(None) };
    Ok(Record::declared_len(bytes).map(|len| len as u64).filter(|len| *len <= end - at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record;
    use crate::io::sim::{Faults, SimDisk};
    use crate::io::{Disk, File, write_all_at};
    use crate::native::frame::{BATCH_ENTRY_LEN, FRAME_HEADER_LEN};
    use std::path::Path;
    use std::sync::Arc;

    const SALT_ID: [u8; 16] = [7; 16];

    /// A chunk of two frames with records of values of these lengths.
    fn chunk_of(frames: [&[usize]; 2]) -> (SimDisk, Arc<dyn File>, LogEnd) {
        let disk = SimDisk::new(1, Faults::default());
        let file = disk.open_dir(Path::new("/store")).expect("a directory").create("chunk").expect("a file");
        let (salt, mut at) = (Salt::of(&SALT_ID, 3), CHUNK_HEADER_LEN as u64);
        for (digest, lens) in (0..).zip(frames) {
            let first_record = at + (FRAME_HEADER_LEN + BATCH_ENTRY_LEN) as u64;
            let mut payload = Vec::new();
            for (i, len) in lens.iter().enumerate() {
                let (key, value) = (format!("key-{digest}-{i}"), vec![i as u8; *len]);
                let put = Record::put(key.as_bytes(), &value);
                let start = payload.len();
                payload.resize(start + put.encoded_len(), 0);
                put.encode(&mut payload[start..]);
                record::salt_sum(&mut payload[start..], salt.at(first_record + start as u64));
            }
            let header = FrameHeader {
                kind: FrameKind::Data,
                first_seq: 1,
                watermark: 0,
                payload_len: payload.len() as u64,
                records: lens.len() as u32,
                batches: 1,
                digest_before: digest,
                digest: digest + 1,
            };
            write_all_at(&*file, &mut [io::IoSlice::new(&header.encode(salt, at))], at, false).expect("written");
            write_all_at(&*file, &mut [io::IoSlice::new(&payload)], first_record, false).expect("written");
            at = first_record + payload.len() as u64;
        }
        (disk, file, LogEnd { chunk: 3, valid_bytes: at, last_seq: 1, digest: 2 })
    }

    /// Places of the records, alone and by runs; then, for both, where the damage is, if it ended with that.
    type Scans = [(Vec<(u64, u64)>, Option<u64>); 2];

    fn scan_both_ways(file: &dyn File, end: LogEnd) -> Scans {
        let salt = Salt::of(&SALT_ID, 3);
        let (mut alone, mut by_runs) = (Vec::new(), Vec::new());
        let (mut frames, mut window) = (Frames::new(salt, end), Window::new(file, end.valid_bytes));
        let damage_alone = loop {
            match frames.next_record(&mut window).expect("can be read") {
                Step::Record { offset, bytes, .. } => alone.push((offset, bytes.len() as u64)),
                Step::End => break None,
                Step::Damaged { offset } => break Some(offset),
            }
        };
        let (mut frames, mut window, mut run) = (Frames::new(salt, end), Window::new(file, end.valid_bytes), Run::default());
        let damage_by_runs = loop {
            match frames.next_run(&mut window, &mut run).expect("can be read") {
                Next::Run => {
                    assert!((1..=RUN_MAX).contains(&run.places().len()));
                    assert!(run.places().iter().all(|(at, len)| window.held(*at, *len).is_some()), "all of a run is at hand");
                    by_runs.extend_from_slice(run.places());
                }
                Next::End => break None,
                Next::Damaged { offset } => break Some(offset),
            }
        };
        [(alone, damage_alone), (by_runs, damage_by_runs)]
    }

    #[test]
    fn runs_are_the_records_one_by_one_also_across_windows() {
        let mut lens = vec![100; 100];
        lens.extend([3 << 20, 5, 2 << 20, 0, 5 << 20, 7]);
        let (_disk, file, end) = chunk_of([&lens, &[10; 33]]);
        let [alone, by_runs] = scan_both_ways(&*file, end);
        assert_eq!((alone.0.len(), alone.1), (lens.len() + 33, None));
        assert_eq!(alone, by_runs);
    }

    #[test]
    fn a_run_ends_before_damage_which_is_met_next() {
        let (disk, file, end) = chunk_of([&[100; 50], &[100; 50]]);
        let [(places, _), _] = scan_both_ways(&*file, end);
        for bad in [0, 1, 31, 32, 33, 49, 50, 99] {
            let (at, _) = places[bad];
            assert!(disk.flip_bit("chunk", at + 20, 3));
            let scans = scan_both_ways(&*file, end);
            assert!(disk.flip_bit("chunk", at + 20, 3));
            assert!(scans.iter().all(|(seen, damage)| *damage == Some(at) && seen[..] == places[..bad]), "record {bad}");
        }
    }

    #[test]
    fn a_frame_longer_than_its_chunk_is_damage() {
        let (salt, at) = (Salt::of(&SALT_ID, 3), CHUNK_HEADER_LEN as u64);
        for payload_len in [1000, 1 << 40, u64::MAX - 100, u64::MAX - at - 10, u64::MAX] {
            let forged = FrameHeader {
                kind: FrameKind::Data,
                first_seq: 1,
                watermark: 0,
                payload_len,
                records: 1,
                batches: 1,
                digest_before: 0,
                digest: 0,
            };
            let disk = SimDisk::new(1, Faults::default());
            let dir = disk.open_dir(Path::new("/store")).expect("a directory");
            let file = dir.create("chunk").expect("a file");
            write_all_at(&*file, &mut [io::IoSlice::new(&forged.encode(salt, at))], at, false).expect("written");
            file.set_len(at + 500).expect("longer");
            let end = LogEnd { chunk: 3, valid_bytes: at + 500, last_seq: 1, digest: 0 };
            let step = Frames::new(salt, end).next_record(&mut Window::new(&*file, end.valid_bytes)).map(|step| match step {
                Step::Damaged { offset } => Some(offset),
                _ => None,
            });
            assert_eq!(step.expect("can be read"), Some(at), "{payload_len}");
        }
    }
}
