//! Reading: from the hot log without a system call, else from disk, a whole batch in flight.
//!
//! Every record is checked against its checksum under the salt of its place, and its key is compared with the one that
//! was asked for, before a byte of it is handed on.

use super::NativeEngine;
use super::chunks::{Seen, View, file_name};
use super::dictionary::{Table, stored_value};
use super::index::Place;
use crate::base::code::Code;
use crate::base::crc::LANES;
use crate::base::error::Error;
use crate::base::log;
use crate::base::planted::{Bug, planted};
use crate::base::prefetch::prefetch;
use crate::engine::counters::{add, raise};
use crate::engine::record::{Kind, Record};
use crate::engine::{Pin, ReadHints, ReadOp, ReadState, Reader};
use crate::io::{ReadAt, ReadMany};
use std::array;

/// Records in memory are asked for in groups, each while the group before it is looked at. One by one between other work hardly
/// two requests would fit into what a CPU has begun and not ended, and each stays there until its page has been found: within a
/// group several pages are looked for at once.
const GROUP: usize = 8;

/// Lines of a record that are asked for: header, a short key, the start of the value.
const LINES_AHEAD: usize = 2;
const LINE_BYTES: usize = 64;

/// Memory for the buffers of one round of disk reads; a larger record is read alone.
const ROUND_BYTES: usize = 64 << 20;

/// What it takes to make sense of a record.
struct With<'a> {
    store_path: &'a str,
    dictionaries: Table,
    now_ms: u64,
}

/// A record in memory.
#[derive(Clone, Copy)]
struct InMemory<'a> {
    bytes: &'a [u8],
    /// Salt of its checksum.
    salt: u32,
    place: Place,
    op: u32,
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
        let mut groups = reads.chunks(GROUP).peekable();
        if hints.prefetch {
            groups.peek().into_iter().for_each(|first| ask_for(&view, first));
        }
        while let Some(group) = groups.next() {
            if hints.prefetch {
                groups.peek().into_iter().for_each(|next| ask_for(&view, next));
            }
            let mut in_memory = [None; GROUP];
            let mut count = 0;
            for read in group {
                if read.state != ReadState::Located {
                    reader.missing(read.op);
                    continue;
                }
                let place = Place::from_bits(read.place);
                match seen(&view, place).and_then(|seen| seen.hot.as_ref().map(|hot| (seen, hot))) {
                    Some((seen, hot)) => {
                        let bytes = hot.read(place.offset(), place.len_at_most());
                        in_memory[count] = Some(InMemory { bytes, salt: seen.chunk.salt.at(place.offset()), place, op: read.op });
                        count += 1;
                    }
                    None => put_off(&mut cold, place, read.op, reader),
                }
            }
            for lanes in in_memory[..count].chunks(LANES) {
                let lane = |lane: usize| lanes.get(lane).copied().flatten();
                let records = Record::parse_checked_lanes(array::from_fn(|i| lane(i).map_or((&[][..], 0), |one| (one.bytes, one.salt))));
                for (one, record) in lanes.iter().flatten().zip(&records) {
                    match look(record.as_ref().ok(), one.op, reader, &with) {
                        Look::Given => hot_reads += 1,
                        Look::NotThere => {
                            hot_reads += 1;
                            reader.missing(one.op);
                        }
                        // Not as it should be: the disk decides.
                        Look::Damaged => put_off(&mut cold, one.place, one.op, reader),
                    }
                }
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
        let (mut memory, mut reads, mut asked) = (Vec::<u8>::new(), Vec::new(), Vec::new());
        let tables = reads.try_reserve_exact(round.len()).and_then(|()| asked.try_reserve_exact(round.len()));
        if tables.and_then(|()| memory.try_reserve_exact(total)).is_err() {
            for (_, op) in round {
                reader.failed(*op, no_memory());
            }
            return;
        }
        memory.resize(total, 0);
        let mut buffers = memory.as_mut_slice();
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
        // Each is looked at while others are on their way.
        let mut ended = |index: usize, read: &ReadAt<'_>| {
            let (seen, place, op) = asked[index];
            match &read.result {
                Ok(len) => match look(parsed(&read.buf[..*len], seen, place).as_ref(), op, reader, with) {
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
        };
        let report = self.disk.read_many(&mut reads, how, &mut ended);
        raise(&self.counters.cold_reads_in_flight_max, report.in_flight_max);
        add(&self.counters.ring_reads, report.through_ring);
        add(&self.counters.polled_reads, report.polled);
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

/// Leaves a read to the disk.
fn put_off(cold: &mut Vec<(Place, u32)>, place: Place, op: u32, reader: &mut dyn Reader) {
    match cold.try_reserve(1) {
        Ok(()) => cold.push((place, op)),
        Err(_) => reader.failed(op, no_memory()),
    }
}

#[inline]
fn ask_for(view: &View, group: &[ReadOp]) {
    for read in group {
        let place = Place::from_bits(read.place);
        if read.state == ReadState::Located
            && let Some(hot) = seen(view, place).and_then(|seen| seen.hot.as_ref())
        {
            let start = hot.address(place.offset());
            for line in 0..LINES_AHEAD {
                prefetch(start.wrapping_add(line * LINE_BYTES)); // the second may be another record's, and does no harm
            }
        }
    }
}

fn parsed<'a>(bytes: &'a [u8], seen: &Seen, place: Place) -> Option<Record<'a>> {
    Record::parse_checked(bytes, seen.chunk.salt.at(place.offset())).ok().map(|(record, _)| record)
}

/// Hands on what is asked for of a record; there is none if its checksum was not right.
#[inline]
fn look(record: Option<&Record<'_>>, op: u32, reader: &mut dyn Reader, with: &With<'_>) -> Look {
    let Some(record) = record else { return Look::Damaged };
    // Another key under the same 128 bits: as good as impossible, and harmless.
    let is_asked_for = record.key == reader.key(op) || planted(Bug::KeyNotCompared);
    if record.kind != Kind::Put || record.has_expired(with.now_ms) || !is_asked_for {
        return Look::NotThere;
    }
    match stored_value(&with.dictionaries, record, with.store_path) {
        Ok(value) => reader.found(op, value),
        Err(error) => reader.failed(op, error),
    }
    Look::Given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::io::sim::{Faults, SimDisk};
    use crate::native::tests::driver::{Driver, read};
    use crate::native::tests::model::KEYS;
    use crate::native::tests::workload::options;

    /// Reads of any number come to groups and lanes that are not full, with keys between that are missing, or on disk only.
    #[test]
    fn each_read_has_its_own_result_wherever_it_stands_in_its_group() {
        let chunk_bytes = 64 << 10;
        for hot_bytes in [0, 2 * chunk_bytes, 64 * chunk_bytes] {
            let disk = SimDisk::new(1, Faults::default());
            let mut driver = Driver::open(&disk, options(chunk_bytes, hot_bytes), [0; KEYS]).unwrap();
            let mut versions = [0; KEYS];
            for version in 1..3000 {
                // Some are never there, and half of them are not written again.
                let key = version as usize * 7 % KEYS;
                if key % 5 != 2 && (version <= KEYS as u32 || key.is_multiple_of(2)) {
                    versions[key] = version;
                    driver.commit(false, &[(key, version)]).unwrap();
                }
            }
            for count in 0..3 * GROUP {
                let keys: Vec<usize> = (0..count).map(|i| (i * i + count) % KEYS).collect();
                let expected: Vec<_> = keys.iter().map(|key| Ok(versions[*key])).collect();
                assert_eq!(read(&driver.engine, &keys), expected, "{count} keys, {hot_bytes} bytes in memory");
            }
            let counters = driver.engine.counters();
            assert_eq!((counters.hot_reads > 0, counters.cold_reads > 0), (hot_bytes > 0, hot_bytes <= 2 * chunk_bytes));
            driver.close();
        }
    }
}
