//! Takes the results of reads into a batch.
//!
//! The engine fills it, as a `Reader`; `execute` has it answer what the batch's own writes answer. It borrows the reads' side of
//! a `Work` while the engine has the other: it must never touch what is to be written.

use super::{Op, Work};
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::batch::memory::{Arena, Array};
use crate::batch::operation::{HAS_COPY, OpKind, TRANSIENT};
use crate::engine::codec::Codec;
use crate::engine::record::Record;
use crate::engine::{ReadOp, Reader, StoredValue};

impl Work {
    /// The reads and the `Reader` over the rest, for the engine.
    pub fn split_reads(&mut self) -> (&mut [ReadOp], WorkReader<'_>) {
        let reader = WorkReader {
            ops: &mut self.ops,
            records: &self.records,
            side: &self.side,
            values: &mut self.values,
            read_bytes: &mut self.read_bytes,
            first_error: None,
        };
        (&mut self.reads, reader)
    }
}

/// Takes the results of reads into the batch.
pub(in crate::batch) struct WorkReader<'a> {
    ops: &'a mut Array<Op>,
    records: &'a Arena,
    side: &'a Arena,
    values: &'a mut Arena,
    read_bytes: &'a mut usize,
    pub first_error: Option<Error>,
}

impl WorkReader<'_> {
    fn take_value(&mut self, op: u32, value: StoredValue<'_>) -> Result<()> {
        value.check()?;
        let span = if value.codec == Codec::None && value.bytes.len() == value.raw_len {
            self.values.put(value.raw_len, [value.bytes, &[], &[]])?
        } else {
            let (span, bytes) = self.values.take(value.raw_len)?;
            if let Err(error) = value.unpack(bytes) {
                self.values.give_back(span);
                return Err(error);
            }
            span
        };
        *self.read_bytes += value.raw_len + 1;
        let op = &mut self.ops[op as usize];
        op.copy = span;
        op.value_len = value.raw_len as u32;
        op.flags |= HAS_COPY;
        op.code = Code::NONE;
        Ok(())
    }

    /// Copies the value of an earlier write of the same batch.
    pub fn read_own(&mut self, op: u32, write: u32) {
        let source = self.ops[write as usize];
        let records = self.records;
        match Record::parse(records.bytes(source.place, source.record_len as usize)) {
            Ok((record, _)) if record.has_expired(clock::unix_ms_rising()) => self.missing(op),
            Ok((record, _)) => {
                let value = StoredValue { codec: record.codec, dictionary: None, bytes: record.value, raw_len: record.raw_len as usize };
                self.found(op, value);
            }
            Err(_) => {
                self.failed(op, Error::new(Code::CORRUPTED, "a record in the batch's memory was overwritten: look for a stray pointer"))
            }
        }
    }
}

impl Reader for WorkReader<'_> {
    fn key(&self, op: u32) -> &[u8] {
        Work::key_of(&self.ops[op as usize], self.records, self.side)
    }

    fn found(&mut self, op: u32, value: StoredValue<'_>) {
        if self.ops[op as usize].kind == OpKind::Update {
            self.ops[op as usize].code = Code::NONE; // a condition: it is enough that the key is there
        } else if let Err(error) = self.take_value(op, value) {
            self.failed(op, error);
        }
    }

    fn missing(&mut self, op: u32) {
        let op = &mut self.ops[op as usize];
        op.code = Code::KEY_NOT_FOUND;
        if op.kind == OpKind::Get {
            op.value_len = 0;
        }
    }

    fn failed(&mut self, op: u32, error: Error) {
        let op = &mut self.ops[op as usize];
        op.code = error.code;
        if error.transient {
            op.flags |= TRANSIENT;
        }
        self.first_error.get_or_insert(error);
    }
}
