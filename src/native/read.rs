//! Reading: from the hot log without a system call, else from disk, a whole batch in flight.
//!
//! Every record is checked against its checksum under the salt of its place, and its key is compared with the one that
//! was asked for, before a byte of it is handed on.

use super::NativeEngine;
use super::chunks::{Seen, View, file_name};
use super::dictionary::{Table, stored_value};
use super::index::Place;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::prefetch::prefetch;
use crate::engine::counters::{add, raise};
use crate::engine::record::{Kind, Record};
use crate::engine::{Pin, ReadHints, ReadOp, ReadState, Reader};
use crate::io::{ReadAt, ReadMany};

/// How far ahead of its use a record in memory is asked for.
const RECORD_AHEAD: usize = 8;

/// Bytes of a record that are asked for: header, a short key, the start of the value.
const LINES_AHEAD: usize = 3;
const LINE_BYTES: usize = 64;

/// Memory for the buffers of one round of disk reads; a larger record is read alone.
const ROUND_BYTES: usize = 64 << 20;

/// What it takes to make sense of a record.
struct With<'a> {
    store_path: &'a str,
    dictionaries: Table,
    now_ms: u64,
}

/// What a look at a record gave.
enum Look {
    /// The reader has its result.
    Given,
    NotThere,
    Damaged,
}

impl NativeEngine {
    /// See `Engine::fetch`.
    pub(super) fn fetch_reads(&self, pin: &Pin, reads: &mut [ReadOp], reader: &mut dyn Reader, hints: &ReadHints) {
        let view =
            pin.clone().filter(|_| !planted(Bug::PinIgnored)).and_then(|pin| pin.downcast().ok()).unwrap_or_else(|| self.chunks.view());
        let with = With { store_path: &self.path, dictionaries: self.dictionaries.table(), now_ms: self.now_ms() };
        let mut cold: Vec<(Place, u32)> = Vec::new();
        let mut hot_reads = 0;
        for i in 0..reads.len() {
            if hints.prefetch
                && let Some(ahead) = reads.get(i + RECORD_AHEAD)
            {
                ask_for(&view, ahead);
            }
            let read = &reads[i];
            if read.state != ReadState::Located {
                reader.missing(read.op);
                continue;
            }
            let place = Place::from_bits(read.place);
            let hot = seen(&view, place).and_then(|seen| seen.hot.as_ref().map(|hot| (seen, hot)));
            let looked = hot.map(|(seen, hot)| {
                let bytes = hot.read(place.offset(), place.len_at_most());
                look(bytes, seen, place, read.op, reader, &with)
            });
            match looked {
                Some(Look::Given) => hot_reads += 1,
                Some(Look::NotThere) => {
                    hot_reads += 1;
                    reader.missing(read.op);
                }
                // Not in memory, or not as it should be: the disk decides.
                Some(Look::Damaged) | None if cold.try_reserve(1).is_ok() => cold.push((place, read.op)),
                _ => reader.failed(read.op, no_memory()),
            }
        }
        add(&self.counters.hot_reads, hot_reads);
        if !cold.is_empty() {
            self.read_cold(&view, &mut cold, reader, hints, &with);
        }
    }

    fn read_cold(&self, view: &View, cold: &mut [(Place, u32)], reader: &mut dyn Reader, hints: &ReadHints, with: &With<'_>) {
        add(&self.counters.cold_reads, cold.len() as u64);
        if hints.sort {
            cold.sort_unstable_by_key(|(place, _)| (place.slot(), place.offset()));
            add(&self.counters.cold_reads_sorted, cold.len() as u64);
        }
        let how = ReadMany { depth: if hints.prefetch { hints.depth.max(1) } else { 1 }, polling: hints.polling };
        let mut rest = &*cold;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|(place, _)| {
                bytes += place.len_at_most();
                bytes <= ROUND_BYTES
            });
            let (round, later) = rest.split_at(fitting.count().max(1));
            self.read_round(view, round, reader, &how, with);
            rest = later;
        }
    }

    fn read_round(&self, view: &View, round: &[(Place, u32)], reader: &mut dyn Reader, how: &ReadMany, with: &With<'_>) {
        let total: usize = round.iter().map(|(place, _)| place.len_at_most()).sum();
        let mut memory: Vec<u8> = Vec::new();
        if memory.try_reserve_exact(total).is_err() {
            for (_, op) in round {
                reader.failed(*op, no_memory());
            }
            return;
        }
        memory.resize(total, 0);
        let mut buffers = memory.as_mut_slice();
        let mut reads = Vec::with_capacity(round.len());
        let mut asked = Vec::with_capacity(round.len());
        for (place, op) in round {
            let (buf, others) = buffers.split_at_mut(place.len_at_most());
            buffers = others;
            match seen(view, *place) {
                Some(seen) => {
                    reads.push(ReadAt { file: &*seen.chunk.file, offset: place.offset(), buf, result: Ok(0) });
                    asked.push((seen, *place, *op));
                }
                // Closing lets go of all chunks.
                None => reader.failed(*op, self.check_open().err().unwrap_or_else(no_chunk)),
            }
        }
        let report = self.disk.read_many(&mut reads, how);
        raise(&self.counters.cold_reads_in_flight_max, report.in_flight_max);
        add(&self.counters.ring_reads, report.through_ring);
        add(&self.counters.polled_reads, report.polled);
        for (read, (seen, place, op)) in reads.iter().zip(asked) {
            match &read.result {
                Ok(len) => match look(&read.buf[..*len], seen, place, op, reader, with) {
                    Look::Given => {}
                    Look::NotThere => reader.missing(op),
                    Look::Damaged => {
                        add(&self.counters.damaged_reads, 1);
                        reader.failed(op, self.noted(self.damaged(seen, place)));
                    }
                },
                Err(error) => {
                    let what = format_args!("store {}: reading {} at {}", self.path, file_name(seen.chunk.id), place.offset());
                    reader.failed(op, self.noted(Error::from_io(what, error)));
                }
            }
        }
    }

    /// An error that a read met: not each has a line in the log, for the same record may be asked for again and again.
    fn noted(&self, error: Error) -> Error {
        if let Some(number) = self.failed_reads.note() {
            log::write(log::Level::Error, "read", &format!("{} (failed read {number} since the store was opened)", error.message));
        }
        error
    }

    fn damaged(&self, seen: &Seen, place: Place) -> Error {
        let text = format!(
            "store {}: the record at byte {} of {} is damaged and was not returned; restore it from a backup, or put it again",
            self.path,
            place.offset(),
            file_name(seen.chunk.id)
        );
        Error::new(Code::CORRUPTED, text)
    }
}

fn no_memory() -> Error {
    Error::no_memory("no memory to read with: free memory or read fewer keys at a time")
}

fn no_chunk() -> Error {
    Error::new(Code::CORRUPTED, "internal error: the index names a chunk that is not there")
}

fn seen(view: &View, place: Place) -> Option<&Seen> {
    view.get(place.slot() as usize).and_then(Option::as_ref)
}

#[inline]
fn ask_for(view: &View, read: &ReadOp) {
    let place = Place::from_bits(read.place);
    if read.state == ReadState::Located
        && let Some(hot) = seen(view, place).and_then(|seen| seen.hot.as_ref())
    {
        let start = hot.address(place.offset());
        for line in 0..LINES_AHEAD.min(place.len_at_most().div_ceil(LINE_BYTES)) {
            prefetch(start.wrapping_add(line * LINE_BYTES));
        }
    }
}

#[inline]
fn look(bytes: &[u8], seen: &Seen, place: Place, op: u32, reader: &mut dyn Reader, with: &With<'_>) -> Look {
    let Ok((record, _)) = Record::parse_checked(bytes, seen.chunk.salt.at(place.offset())) else { return Look::Damaged };
    // Another key under the same 128 bits: as good as impossible, and harmless.
    let is_asked_for = record.key == reader.key(op) || planted(Bug::KeyNotCompared);
    if record.kind != Kind::Put || record.has_expired(with.now_ms) || !is_asked_for {
        return Look::NotThere;
    }
    match stored_value(&with.dictionaries, &record, with.store_path) {
        Ok(value) => reader.found(op, value),
        Err(error) => reader.failed(op, error),
    }
    Look::Given
}
