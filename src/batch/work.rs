//! What a batch holds: its operations, the encoded records, the values that were read, and the plan's tables.
//!
//! A `Work` belongs to its context while that is pending and again when it has ended; in between to whoever executes
//! it. It is owned, not shared, so it needs no lock. All its memory, but for the set of its keys, comes from the caller's allocator.

mod needs;
mod reader;

pub(super) use needs::Needs;

use super::keys::KeySet;
use super::memory::{Allocator, Arena, Array, Span};
use super::operation::{
    ANSWERED, CompleteHook, HAS_COPY, Hook, Op, OpKind, OpView, PACKED, READ_BACK, SHARED_OUT_LEN, SHARED_OUT_VALUE, TRANSIENT,
};
use super::settings::Settings;
use super::stats::Outcome;
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::KeyHash;
use crate::base::limits::{BATCH_BYTES_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use crate::base::sync::Arc;
use crate::engine::codec::{self, Codec};
use crate::engine::record::Record;
use crate::engine::{Pin, ReadOp, WriteOp};

/// A batch that held more memory, in bytes, gives it back when it ends.
const RECYCLED_BYTES_MAX: usize = 4 << 20;

/// How many operations there are of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    pub puts: u32,
    pub gets: u32,
    pub deletes: u32,
    pub updates: u32,
    pub syncs: u32,
}

impl Census {
    /// Operations that may change the store.
    pub fn writes(&self) -> u32 {
        self.puts + self.deletes + self.updates
    }
}

/// What adding an operation has put where, as its `Op` says.
#[derive(Clone, Copy, Debug, Default)]
struct Placed {
    place: Span,
    copy: Span,
    /// Bytes that it takes.
    held: usize,
    record_len: u32,
    key_at: u8,
    flags: u8,
}

/// See the top of this file.
pub(super) struct Work {
    pub ops: Array<Op>,
    /// Encoded records: the log payload itself, but for the checksums, which come with `seal`.
    pub records: Arena,
    /// Keys of reads, and raw values that callbacks will ask for.
    pub side: Arena,
    /// Values that were read.
    pub values: Arena,
    pub census: Census,
    pub complete: CompleteHook,
    /// The plan's results.
    pub hashes: Array<KeyHash>,
    /// `hashes` are those of all operations.
    pub hashed: bool,
    pub table: Array<u32>,
    /// The set of the keys that it writes, or that a batch before it wrote: for its memory, which is not the caller's.
    pub keys: Option<Arc<KeySet>>,
    pub writes: Array<WriteOp>,
    pub reads: Array<ReadOp>,
    /// Keeps the places of `reads` good.
    pub pin: Pin,
    pub deduplicated: u64,
    pub packed: u64,
    has_callbacks: bool,
    has_outs: bool,
    record_bytes: usize,
    /// Bytes that adding made this batch hold.
    added_bytes: usize,
    /// Bytes of values that were read.
    read_bytes: usize,
    /// A callback's key lies here, with a NUL behind it.
    key_scratch: Array<u8>,
    pack_scratch: Array<u8>,
}

impl Work {
    /// An empty batch that expects `expected` operations.
    pub fn new(allocator: Allocator, expected: usize) -> Result<Work> {
        let mut work = Work {
            ops: Array::new(allocator),
            records: Arena::new(allocator),
            side: Arena::new(allocator),
            values: Arena::new(allocator),
            census: Census::default(),
            complete: CompleteHook::default(),
            hashes: Array::new(allocator),
            hashed: false,
            table: Array::new(allocator),
            keys: None,
            writes: Array::new(allocator),
            reads: Array::new(allocator),
            pin: None,
            deduplicated: 0,
            packed: 0,
            has_callbacks: false,
            has_outs: false,
            record_bytes: 0,
            added_bytes: 0,
            read_bytes: 0,
            key_scratch: Array::new(allocator),
            pack_scratch: Array::new(allocator),
        };
        work.ops.reserve_at_most(expected)?;
        Ok(work)
    }

    /// Empties a batch that has ended, so that another can have its memory; `None` if that is not worth keeping.
    pub fn recycle(mut self: Box<Self>) -> Option<Box<Work>> {
        let Work { ops, records, side, values, hashes, table, keys, writes, reads, key_scratch, .. } = &mut *self;
        [&mut *records, side, values].into_iter().for_each(Arena::clear);
        ops.truncate(0);
        hashes.truncate(0);
        table.truncate(0);
        writes.truncate(0);
        reads.truncate(0);
        let arenas = records.held_bytes() + side.held_bytes() + values.held_bytes();
        let tables = ops.held_bytes() + hashes.held_bytes() + table.held_bytes() + writes.held_bytes() + reads.held_bytes();
        let keys = keys.as_ref().map_or(0, |set| set.held_bytes());
        if arenas + tables + keys + key_scratch.held_bytes() > RECYCLED_BYTES_MAX {
            return None;
        }
        self.pin = None;
        self.census = Census::default();
        self.complete = CompleteHook::default();
        (self.deduplicated, self.packed) = (0, 0);
        (self.has_callbacks, self.has_outs) = (false, false);
        (self.record_bytes, self.added_bytes, self.read_bytes) = (0, 0, 0);
        Some(self)
    }

    /// Adds an operation, copying key and value. A refusal changes nothing that can be seen.
    pub fn add(&mut self, settings: &Settings, kind: OpKind, key: &[u8], value: &[u8], expiry_ms: Option<u64>, hook: Hook) -> Result<()> {
        if key.len() > KEY_LEN_MAX {
            return Err(Error::new(Code::KEY_TOO_LONG, format!("a key of {} bytes: use at most {KEY_LEN_MAX}", key.len())));
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(Error::new(
                Code::INVALID_PARAM,
                format!("a value of {} bytes: use at most {VALUE_LEN_MAX}, or split it", value.len()),
            ));
        }
        self.ops.reserve(1)?;
        if hook.callback != 0 {
            self.key_scratch.extend_to(key.len() + 1, 0)?;
        }
        let keep_copy = hook.callback != 0;
        let record = Record { expiry_ms, ..Record::put(key, value) };
        let placed = match kind {
            OpKind::Sync => Placed::default(),
            OpKind::Get => self.add_read(settings, key)?,
            OpKind::Delete => self.add_record(settings, &Record::delete(key))?,
            OpKind::Put | OpKind::Update => self.add_put(settings, &record, keep_copy)?,
        };
        // Put together where it stays: read back whole from where its fields were just written one by one, it would have to wait.
        self.ops.push(Op {
            hook,
            place: placed.place,
            record_len: placed.record_len,
            copy: placed.copy,
            value_len: value.len() as u32,
            code: Code::NONE,
            key_len: key.len() as u16,
            kind,
            key_at: placed.key_at,
            flags: placed.flags,
        })?;
        self.added_bytes += placed.held + size_of::<Op>();
        self.record_bytes += placed.record_len as usize;
        self.has_callbacks |= hook.callback != 0;
        self.has_outs |= hook.out_value != 0 || hook.out_len != 0;
        let counter = match kind {
            OpKind::Put => &mut self.census.puts,
            OpKind::Get => &mut self.census.gets,
            OpKind::Delete => &mut self.census.deletes,
            OpKind::Update => &mut self.census.updates,
            OpKind::Sync => &mut self.census.syncs,
        };
        *counter += 1;
        Ok(())
    }

    fn check_budget(&self, settings: &Settings, more: usize) -> Result<()> {
        let total = self.added_bytes + more + size_of::<Op>();
        if total > settings.max_memory_usage {
            return Err(Error::new(
                Code::BATCH_TOO_LARGE,
                format!(
                    "the batch would hold {total} bytes, config.max_memory_usage allows {}: submit what there is and start another batch",
                    settings.max_memory_usage
                ),
            ));
        }
        if self.record_bytes + more > BATCH_BYTES_MAX {
            return Err(Error::new(
                Code::BATCH_TOO_LARGE,
                format!("a batch writes at most {BATCH_BYTES_MAX} bytes: submit what there is and start another batch"),
            ));
        }
        Ok(())
    }

    #[inline(always)]
    fn add_read(&mut self, settings: &Settings, key: &[u8]) -> Result<Placed> {
        self.check_budget(settings, key.len())?;
        let place = self.side.put(key.len(), [key, &[], &[]])?;
        Ok(Placed { place, held: key.len(), ..Placed::default() })
    }

    #[inline(always)]
    fn add_record(&mut self, settings: &Settings, record: &Record<'_>) -> Result<Placed> {
        let len = record.encoded_len();
        self.check_budget(settings, len)?;
        debug_assert!(!record.codec.names_dictionary(), "what a dictionary packed has more between key and value");
        let (head, key_at) = record.head();
        let place = self.records.put(len, [&head[..key_at], record.key, record.value])?;
        Ok(Placed { place, held: len, record_len: len as u32, key_at: key_at as u8, ..Placed::default() })
    }

    fn add_put(&mut self, settings: &Settings, record: &Record<'_>, keep_copy: bool) -> Result<Placed> {
        if !settings.enable_compression {
            return self.add_record(settings, record);
        }
        let mut scratch = std::mem::replace(&mut self.pack_scratch, Array::new(settings.allocator));
        let added = self.add_packed(settings, record, keep_copy, &mut scratch);
        self.pack_scratch = scratch;
        added
    }

    fn add_packed(&mut self, settings: &Settings, raw: &Record<'_>, keep_copy: bool, scratch: &mut Array<u8>) -> Result<Placed> {
        /// A packed record says how long its value was.
        const RAW_LEN_FIELD: usize = 4;
        let value = raw.value;
        self.check_budget(settings, 0)?;
        scratch.extend_to(codec::compressed_len_max(value.len()), 0)?;
        let packed_len = codec::compress(value, scratch).filter(|len| len + RAW_LEN_FIELD < value.len());
        let Some(packed) = packed_len.and_then(|len| scratch.get(..len)) else {
            return self.add_record(settings, raw);
        };
        let record = Record { codec: Codec::Lz4, value: packed, ..*raw };
        let mut copy = None;
        if keep_copy {
            // The callback will want to see the value as it was put.
            self.check_budget(settings, record.encoded_len() + value.len())?;
            copy = Some(self.side.put(value.len(), [value, &[], &[]])?);
        }
        let mut placed = match self.add_record(settings, &record) {
            Ok(placed) => placed,
            Err(error) => {
                copy.into_iter().for_each(|copy| self.side.give_back(copy));
                return Err(error);
            }
        };
        if let Some(copy) = copy {
            placed.copy = copy;
            placed.flags |= HAS_COPY;
            placed.held += value.len();
        }
        placed.flags |= PACKED;
        self.packed += 1;
        Ok(placed)
    }

    /// Memory that the plan will want, taken ahead so that nothing can fail on the way to the disk.
    pub fn reserve_plan(&mut self) -> Result<()> {
        let count = self.ops.len();
        let slots = Needs::slots(count);
        self.hashed = false;
        self.hashes.extend_to(count, KeyHash::default())?;
        self.table.extend_to(slots, 0)?;
        self.writes.reserve((self.census.puts + self.census.deletes + self.census.updates) as usize)?;
        self.reads.reserve((self.census.gets + self.census.updates) as usize)?;
        if self.has_outs && self.census.gets > 1 && !self.outs_only_rise() {
            self.mark_shared_outs();
        }
        Ok(())
    }

    /// Whether each GET's out-pointers lie behind those of the GETs before it, as in an array: then no two share one.
    fn outs_only_rise(&self) -> bool {
        let (mut value, mut len) = (0, 0);
        self.ops.iter().filter(|op| op.kind == OpKind::Get).map(|op| op.hook).all(|hook| {
            let rises = (hook.out_value == 0 || hook.out_value > value) && (hook.out_len == 0 || hook.out_len > len);
            (value, len) = (value.max(hook.out_value), len.max(hook.out_len));
            rises
        })
    }

    /// An out-pointer that two GETs share is never written (the documented loop over one local variable).
    fn mark_shared_outs(&mut self) {
        for (flag, address) in [(SHARED_OUT_VALUE, (|hook| hook.out_value) as fn(Hook) -> usize), (SHARED_OUT_LEN, |hook| hook.out_len)] {
            self.table.fill(0);
            let mask = self.table.len() - 1;
            for i in 0..self.ops.len() {
                let wanted = address(self.ops[i].hook);
                if wanted == 0 || self.ops[i].kind != OpKind::Get {
                    continue;
                }
                let mut slot = (wanted.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) & mask;
                loop {
                    match self.table[slot] {
                        0 => {
                            self.table[slot] = i as u32 + 1;
                            break;
                        }
                        other => {
                            let other = other as usize - 1;
                            if address(self.ops[other].hook) == wanted {
                                self.ops[other].flags |= flag;
                                self.ops[i].flags |= flag;
                                break;
                            }
                        }
                    }
                    slot = (slot + 1) & mask;
                }
            }
        }
    }

    /// The key of an operation.
    #[inline]
    pub fn key_of<'a>(op: &Op, records: &'a Arena, side: &'a Arena) -> &'a [u8] {
        let len = usize::from(op.key_len);
        if op.kind.writes() {
            let at = Span { offset: op.place.offset + u32::from(op.key_at), ..op.place };
            records.bytes(at, len)
        } else if len > 0 {
            side.bytes(op.place, len)
        } else {
            &[]
        }
    }

    /// Whether what an operation puts is no longer there, or never was.
    pub fn leaves_nothing(&self, op: &Op) -> bool {
        let record = Record::parse(self.records.bytes(op.place, op.record_len as usize));
        op.kind == OpKind::Delete || record.is_ok_and(|(record, _)| record.has_expired(clock::unix_ms_rising()))
    }

    /// The value of an operation as the caller sees it: put, or read.
    fn value_of(&self, op: &Op) -> Option<&[u8]> {
        let len = op.value_len as usize;
        match op.kind {
            OpKind::Get => op.has(HAS_COPY).then(|| self.values.bytes(op.copy, len)),
            OpKind::Put | OpKind::Update if op.has(HAS_COPY) => Some(self.side.bytes(op.copy, len)),
            OpKind::Put | OpKind::Update if !op.has(PACKED) => {
                let offset = op.place.offset + u32::from(op.key_at) + u32::from(op.key_len);
                Some(self.records.bytes(Span { offset, ..op.place }, len))
            }
            _ => None,
        }
    }

    /// Whether anybody is to be called.
    pub fn has_callbacks(&self) -> bool {
        self.has_callbacks || self.complete.callback != 0
    }

    /// Gives every operation with a callback to `done`, in order.
    pub fn deliver(&mut self, mut done: impl FnMut(&OpView<'_>)) {
        if !self.has_callbacks {
            return;
        }
        let mut scratch = std::mem::replace(&mut self.key_scratch, Array::new(Allocator::system()));
        for op in self.ops.iter().filter(|op| op.hook.callback != 0) {
            let key = Work::key_of(op, &self.records, &self.side);
            let len = key.len();
            // Room for the longest key and a NUL was made when the operation was added.
            if let Some(room) = scratch.get_mut(..=len) {
                room[..len].copy_from_slice(key);
                room[len] = 0;
                done(&OpView { kind: op.kind, key: &room[..len], value: self.value_of(op), code: op.code, hook: op.hook });
            }
        }
        self.key_scratch = scratch;
    }

    /// Gives every GET with out-pointers to `write`: the hook with what must not be written taken out.
    pub fn write_outs(&self, mut write: impl FnMut(&Hook, Option<&[u8]>)) {
        if !self.has_outs {
            return;
        }
        for op in self.ops.iter().filter(|op| op.kind == OpKind::Get) {
            let mut hook = op.hook;
            if op.has(SHARED_OUT_VALUE) {
                hook.out_value = 0;
            }
            if op.has(SHARED_OUT_LEN) {
                hook.out_len = 0;
            }
            if hook.out_value != 0 || hook.out_len != 0 {
                write(&hook, if op.code == Code::NONE { self.value_of(op) } else { None });
            }
        }
    }

    /// Ends every operation with `code` (a timeout, a cancel).
    pub fn fail_all(&mut self, code: Code) {
        for op in self.ops.iter_mut() {
            op.code = code;
        }
    }

    /// Keeps of `reads` those that met a transient error, to be tried again; how many there are.
    pub fn keep_transient_reads(&mut self) -> usize {
        let mut kept = 0;
        for i in 0..self.reads.len() {
            let op = &mut self.ops[self.reads[i].op as usize];
            if op.has(TRANSIENT) {
                op.flags &= !TRANSIENT;
                self.reads.swap(kept, i);
                kept += 1;
            }
        }
        self.reads.truncate(kept);
        kept
    }

    /// Whether some operation has failed by now (a GET's miss is no failure).
    pub fn any_failed(&self) -> bool {
        self.ops.iter().any(Op::failed)
    }

    /// All or nothing, and it is nothing: who failed keeps its code, the others get `BATCH_FAILED`.
    pub fn fail_the_rest(&mut self) {
        for op in self.ops.iter_mut().filter(|op| !op.failed()) {
            op.code = Code::BATCH_FAILED;
        }
    }

    /// The commit failed: nothing of the batch was written, and what it read of its own writes never was.
    pub fn fail_writes(&mut self, code: Code) {
        for op in self.ops.iter_mut() {
            let unanswered_write = (op.kind.writes() || op.kind == OpKind::Sync) && !op.has(ANSWERED);
            if unanswered_write || (op.kind == OpKind::Get && op.has(READ_BACK)) {
                op.code = code;
            }
        }
    }

    /// Counts how the operations ended.
    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for op in self.ops.iter() {
            match op.code {
                Code::NONE => {
                    outcome.completed += 1;
                    match op.kind {
                        OpKind::Get => outcome.bytes_read += u64::from(op.value_len),
                        OpKind::Put | OpKind::Update => outcome.bytes_written += u64::from(op.value_len),
                        OpKind::Delete | OpKind::Sync => {}
                    }
                }
                Code::KEY_NOT_FOUND if op.kind == OpKind::Get => outcome.completed += 1,
                Code::CANCELLED => outcome.cancelled += 1,
                _ => outcome.failed += 1,
            }
        }
        outcome
    }

    /// Bytes that this batch holds for its user: what was added, and what was read.
    pub fn held_bytes(&self) -> usize {
        self.added_bytes + self.read_bytes
    }

    /// Record bytes that the log would take.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }
}
