//! Calls and damage in turn: a small store is written, compacted and opened again while its files are spoilt under it.
//!
//! Whatever happens, a read gives what belongs there or an error, and a store that opens holds one of the states it has
//! been in. Where checksums of headers were made good again, which no accident does, nothing is asked but an answer.

use super::{CHUNK_HEADER_LEN, seal_frames, seal_header};
use crate::engine::Engine;
use crate::io::sim::{Faults, SimDisk};
use crate::native::NativeEngine;
use crate::native::frame::ChunkHeader;
use crate::native::tests::driver::{Batch, open, read};
use crate::native::tests::model::{KEYS, State, apply};
use crate::native::tests::workload;

/// Steps of four bytes each that count.
const STEPS_MAX: usize = 48;

struct Run {
    disk: SimDisk,
    engine: std::sync::Arc<NativeEngine>,
    /// Every state the store has been in, the present one last.
    history: Vec<State>,
    version: u32,
    damaged: bool,
    forged: bool,
}

/// See the top of this file. Each step: what (a byte), and three bytes for how.
pub fn files(input: &[u8]) {
    let disk = SimDisk::new(1, Faults::default());
    let engine = open(&disk, workload::options(12 << 10, 0)).expect("opens");
    let mut run = Run { disk, engine, history: vec![[0; KEYS]], version: 0, damaged: false, forged: false };
    for step in input.chunks_exact(4).take(STEPS_MAX) {
        let how = u32::from_le_bytes([step[1], step[2], step[3], 0]);
        match step[0] % 16 {
            0..=5 => run.commit(how, false),
            6 => run.commit(how, true),
            7 => run.outcome(run.engine.compact_once(100).map(drop)),
            8 => run.outcome(run.engine.checkpoint()),
            9 | 10 => match run.reopen() {
                Some(again) => run = again,
                None => return,
            },
            _ => run.damage(step[0] % 16, how),
        }
        run.check();
    }
    if let Some(run) = run.reopen() {
        run.check();
        let _ = run.engine.close();
    }
}

impl Run {
    fn now(&self) -> State {
        self.history.last().copied().unwrap_or([0; KEYS])
    }

    fn outcome(&self, result: Result<(), crate::base::error::Error>) {
        assert!(result.is_ok() || self.damaged, "nothing was damaged: {result:?}");
    }

    /// Puts and deletes of one batch: as many as `how` says, of keys that it says.
    fn commit(&mut self, how: u32, durable: bool) {
        let mut effects = Vec::new();
        for i in 0..1 + how % 4 {
            let deletes = how >> (8 + i) & 1 != 0 && how & 0x80 != 0;
            self.version += 1;
            effects.push(((how >> 12) as usize * (1 + i as usize) % KEYS, if deletes { 0 } else { self.version }));
        }
        let mut state = self.now();
        apply(&mut state, &effects);
        let batch = Batch::new(&self.engine.hasher(), durable, effects, Vec::new());
        let result = Batch::commit_all(&self.engine, self.engine.turn(), &mut [batch]);
        assert!(result.is_ok() || self.damaged, "nothing was damaged: {result:?}");
        match result {
            Ok(()) => self.history.push(state),
            Err(_) => self.forged = true, // whether it is in the log nobody can tell
        }
    }

    /// Every read gives what is there, or, if something was damaged, an error.
    fn check(&self) {
        if self.forged {
            return;
        }
        let keys: Vec<usize> = (0..KEYS).collect();
        for ((key, result), expected) in keys.iter().zip(read(&self.engine, &keys)).zip(self.now()) {
            match result {
                Ok(version) => assert_eq!(version, expected, "key {key}"),
                Err(error) => assert!(self.damaged, "key {key}: {error}"),
            }
        }
    }

    /// Closes and opens; `None` if the store no longer opens, or no longer says all that it holds.
    fn reopen(self) -> Option<Run> {
        let Run { disk, engine, history, version, damaged, forged } = self;
        let closed = engine.close();
        assert!(closed.is_ok() || damaged, "{closed:?}");
        drop(engine);
        let engine = match open(&disk, workload::options(12 << 10, 0)) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(damaged, "nothing was damaged: {error}");
                return None;
            }
        };
        if forged {
            return Some(Run { disk, engine, history, version, damaged, forged });
        }
        let keys: Vec<usize> = (0..KEYS).collect();
        let found = read(&engine, &keys);
        assert!(damaged || found.iter().all(Result::is_ok));
        let fits = |state: &State| state.iter().zip(&found).all(|(version, found)| found.as_ref().map_or(true, |found| found == version));
        let at = history.iter().rposition(fits);
        let Some(at) = at else { panic!("a state that the store has never been in: {found:?}") };
        assert!(damaged || at + 1 == history.len(), "nothing was damaged, and the end is missing");
        if found.iter().any(Result::is_err) {
            let _ = engine.close();
            return None; // which of the states it is cannot be told
        }
        Some(Run { disk, engine, history: history[..=at].to_vec(), version, damaged, forged })
    }

    /// Spoils a file: which one, where, and in which way `how` says.
    fn damage(&mut self, what: u8, how: u32) {
        let mut names = self.disk.list_files();
        names.retain(|name| name != "LOCK");
        let Some(name) = names.get(how as usize % names.len().max(1)) else { return };
        let Some(mut bytes) = self.disk.read_raw(name).filter(|bytes| !bytes.is_empty()) else { return };
        // Most of a file is what follows its first block.
        let at = (how >> 8) as usize % bytes.len();
        self.damaged = true;
        match what {
            11 => bytes[at] ^= 1 << (how >> 5 & 7),
            12 => bytes.truncate(at),
            13 => {
                let from = bytes.len() - (how >> 4) as usize % bytes.len() - 1;
                let len = (bytes.len() - at.max(from)).min(64 << (how & 7));
                bytes.copy_within(from..from + len, at);
            }
            14 if name.starts_with("chunk") => {
                bytes.resize(bytes.len().max(CHUNK_HEADER_LEN), 0);
                let end = bytes.len().min(CHUNK_HEADER_LEN + 100);
                bytes[if how & 8 == 0 { 40 + at % 100 } else { at % end }] ^= (how >> 5) as u8;
                seal_header(&mut bytes);
                if let Ok(header) = ChunkHeader::decode(&bytes) {
                    seal_frames(&mut bytes, &header);
                }
                self.forged = true;
            }
            _ if how & 7 == 0 => {
                self.disk.remove_raw(name);
                return;
            }
            _ => {
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
            }
        }
        self.disk.write_raw(name, &bytes);
    }
}

/// Good inputs to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let commits: Vec<u8> = (0u8..24).flat_map(|i| [i % 7, i.wrapping_mul(37), i.wrapping_mul(91), i.wrapping_mul(53)]).collect();
    let with = |steps: &[[u8; 4]]| [&commits[..], &steps.concat()].concat();
    vec![
        with(&[[9, 0, 0, 0]]),
        with(&[[7, 0, 0, 0], [8, 0, 0, 0], [9, 0, 0, 0], [7, 0, 0, 0]]),
        with(&[[11, 0, 9, 0], [9, 0, 0, 0]]),
        with(&[[12, 1, 200, 30], [9, 0, 0, 0], [0, 7, 7, 7], [9, 0, 0, 0]]),
        with(&[[8, 0, 0, 0], [15, 0, 0, 0], [9, 0, 0, 0]]),
        with(&[[14, 1, 0, 0], [9, 0, 0, 0]]),
        with(&[[13, 3, 9, 99], [9, 0, 0, 0]]),
    ]
}
