//! Rank 2: the engine behind `memory:`: a hash map, gone with the last manager that names it.
//!
//! It keeps encoded records, like the log, so that packed values and reads look the same everywhere.

use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::hash::{KeyHash, KeyHasher};
use crate::base::random;
use crate::base::sync::{Arc, Mutex, RwLock};
use crate::engine::counters::{AtomicCounters, add};
use crate::engine::outcome::{BatchId, BatchOutcome, Outcomes};
use crate::engine::record::{Kind, Record};
use crate::engine::{Commit, Counters, Engine, IoReport, Pin, ReadHints, ReadOp, ReadState, Reader, StoredValue, Turn, Turnstile};
use std::collections::HashMap;

type Records = HashMap<KeyHash, Arc<Vec<u8>>>;

/// See the top of this file.
pub struct MemoryEngine {
    name: String,
    hasher: KeyHasher,
    line: Arc<Turnstile>,
    records: RwLock<Records>,
    counters: AtomicCounters,
    opening: u64,
    outcomes: Mutex<Outcomes>,
}

impl MemoryEngine {
    /// A new, empty store.
    pub fn open(name: String) -> Arc<dyn Engine> {
        Arc::new(MemoryEngine {
            name,
            hasher: KeyHasher::new([random::secret_u64(), random::secret_u64()]),
            line: Arc::default(),
            records: RwLock::default(),
            counters: AtomicCounters::default(),
            opening: random::secret_u64(),
            outcomes: Mutex::default(),
        })
    }

    /// Copies of the records of `group`, and room for them in the map: what can fail, before anything is visible.
    fn prepare(&self, group: &[Commit<'_>]) -> Result<Vec<Arc<Vec<u8>>>> {
        let no_memory = || Error::no_memory("the memory store cannot grow: free memory or delete keys");
        let count = group.iter().map(|member| member.writes.ops.len()).sum();
        let mut copies = Vec::new();
        copies.try_reserve_exact(count).map_err(|_| no_memory())?;
        for member in group {
            for op in member.writes.ops {
                let mut copy = Vec::new();
                if op.kind == Kind::Put {
                    let block = &member.writes.blocks[op.block as usize];
                    copy.try_reserve_exact(op.len as usize).map_err(|_| no_memory())?;
                    copy.extend_from_slice(&block[op.offset as usize..][..op.len as usize]);
                }
                copies.push(Arc::new(copy));
            }
        }
        self.records.write().try_reserve(count).map_err(|_| no_memory())?;
        Ok(copies)
    }

    fn locate(records: &Records, read: &mut ReadOp) {
        read.pin = records.get(&read.hash).cloned();
        read.state = if read.pin.is_some() { ReadState::Located } else { ReadState::Absent };
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn hasher(&self) -> KeyHasher {
        self.hasher
    }

    fn turn(&self) -> Turn {
        self.line.draw()
    }

    fn commit(&self, mut turn: Turn, group: &mut [Commit<'_>], retry: &mut dyn FnMut(&Error) -> bool) -> Result<()> {
        let copies = turn.stage(|| {
            loop {
                match self.prepare(group) {
                    Err(error) if retry(&error.clone().transient()) => {}
                    result => return result,
                }
            }
        })?;
        turn.publish(|| {
            let mut records = self.records.write();
            let mut copies = copies.into_iter();
            for member in group {
                for read in member.reads.iter_mut() {
                    MemoryEngine::locate(&records, read);
                }
                for (op, copy) in member.writes.ops.iter().zip(copies.by_ref()) {
                    match op.kind {
                        Kind::Put => records.insert(op.hash, copy),
                        Kind::Delete => records.remove(&op.hash),
                    };
                }
                if !member.writes.ops.is_empty() {
                    self.outcomes.lock().add(BatchId { opening: self.opening, number: member.batch_id });
                }
                add(&self.counters.records, member.writes.ops.len() as u64);
                add(&self.counters.batches, 1);
            }
            add(&self.counters.groups, 1);
        });
        Ok(())
    }

    fn resolve(&self, reads: &mut [ReadOp]) -> Pin {
        let records = self.records.read();
        for read in reads {
            MemoryEngine::locate(&records, read);
        }
        None // each read holds its record itself
    }

    fn fetch(&self, _pin: &Pin, reads: &mut [ReadOp], reader: &mut dyn Reader, _hints: &ReadHints) {
        let now_ms = clock::unix_ms_rising();
        for read in reads {
            let Some(pin) = read.pin.take() else {
                reader.missing(read.op);
                continue;
            };
            match Record::parse_checked(&pin, 0) {
                Ok((record, _)) if record.key == reader.key(read.op) && !record.has_expired(now_ms) => {
                    let value =
                        StoredValue { codec: record.codec, dictionary: None, bytes: record.value, raw_len: record.raw_len as usize };
                    reader.found(read.op, value);
                    add(&self.counters.hot_reads, 1);
                }
                Ok(_) => reader.missing(read.op),
                Err(_) => {
                    add(&self.counters.damaged_reads, 1);
                    reader.failed(read.op, Error::new(Code::CORRUPTED, "a record in memory was overwritten: look for a stray pointer"));
                }
            }
        }
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn opening(&self) -> u64 {
        self.opening
    }

    fn batch_outcome(&self, id: BatchId) -> BatchOutcome {
        self.outcomes.lock().of(id, self.opening)
    }

    fn unsynced(&self) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        Counters { keys: self.records.read().len() as u64, ..self.counters.snapshot() }
    }

    fn io_report(&self) -> IoReport {
        IoReport { backend: "memory", reason: "the store's URL asks for it".to_owned() }
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
