//! Damage: every bit of a small store turned over, every truncation, sectors zeroed and swapped, files missing, copied
//! and foreign. A store opens with a state it once had, or it is refused and left as it was; what a later watermark
//! proves to have been durable is never lost without a word.

use super::driver::{Driver, open, state_of};
use super::model::{Effect, KEYS, State, apply, value_bytes};
use crate::base::code::Code;
use crate::base::crc;
use crate::base::error::Error;
use crate::base::random::Random;
use crate::io::sim::{Faults, SimDisk};
use crate::native::Options;
use crate::native::frame::{CHUNK_HEADER_LEN, ChunkHeader, FRAME_HEADER_LEN, FrameHeader, FrameKind};

fn options() -> Options {
    super::workload::options(13 << 10, 0)
}
const FIRST: &str = "chunk-0000000000000001.kvb";
const SECOND: &str = "chunk-0000000000000002.kvb";
const THIRD: &str = "chunk-0000000000000003.kvb";
const SECTOR: usize = 512;

/// A store to be damaged.
struct Store {
    disk: SimDisk,
    /// The states it had, in order.
    states: Vec<State>,
    /// States before this one are proven by a later watermark to have been passed.
    proven: usize,
}

/// Three chunks: groups made durable by a sync, durable ones, and, if it is closed, the frame that says so.
fn store(closed: bool) -> Store {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    let mut states = vec![[0; KEYS]];
    let mut version = 0;
    let mut commit = |driver: &mut Driver, durable: bool, keys: &[usize]| {
        let effects: Vec<Effect> = keys
            .iter()
            .map(|key| {
                version = (version + 1..).find(|next| value_bytes(*key, *next).len() < 300).unwrap();
                (*key, if version % 7 == 0 { 0 } else { version })
            })
            .collect();
        driver.commit(durable, &effects).unwrap();
        let mut state = states[states.len() - 1];
        apply(&mut state, &effects);
        states.push(state);
    };
    for i in 0..4 {
        commit(&mut driver, false, &[i, i + 1]);
    }
    driver.stage_sync();
    driver.settle();
    let chunks = |driver: &Driver| driver.disk.list_files().len() - 1;
    while chunks(&driver) < 2 {
        commit(&mut driver, false, &[5, 6, 7]);
    }
    commit(&mut driver, true, &[8]);
    while chunks(&driver) < 3 {
        commit(&mut driver, false, &[9, 10]);
    }
    commit(&mut driver, true, &[11, 0]);
    commit(&mut driver, true, &[12]);
    if closed {
        driver.close();
        driver.check_errors(false);
    }
    let proven = if closed { states.len() } else { states.len() - 1 };
    Store { disk: disk.kill_image(), states, proven }
}

fn bytes_of(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.list_files().into_iter().map(|name| (name.clone(), disk.read_raw(&name).unwrap())).collect()
}

/// Opens a damaged store: the state it has, if it once had it, or why it is refused.
fn look(store: &Store, disk: &SimDisk) -> Result<usize, Error> {
    let before = bytes_of(disk);
    match open(disk, options()) {
        Ok(engine) => {
            let state = state_of(&engine).expect("what is opened is good");
            Ok(store.states.iter().rposition(|had| *had == state).expect("the store never had this state"))
        }
        Err(error) => {
            assert!(bytes_of(disk) == before, "a refused store stays as it is");
            assert!(error.message.contains("/store") && error.message.contains("chunk-"), "{error}");
            Err(error)
        }
    }
}

/// One thing is damaged: nothing that is proven may be missing without a word. Whether it was refused.
fn look_for_loss(store: &Store, disk: &SimDisk) -> bool {
    match look(store, disk) {
        Ok(state) => assert!(state + 1 >= store.proven, "{} states are proven, and {state} is the one", store.proven),
        Err(error) => {
            assert_eq!(error.code, Code::CORRUPTED, "{error}");
            assert!(error.message.contains("at byte") || error.message.contains("header"), "{error}");
            return true;
        }
    }
    false
}

#[test]
fn the_stores_are_good_before_they_are_damaged() {
    for closed in [true, false] {
        let store = store(closed);
        assert_eq!(store.disk.list_files(), ["LOCK", FIRST, SECOND, THIRD]);
        assert_eq!(look(&store, &store.disk.twin()), Ok(store.states.len() - 1));
    }
}

#[test]
fn every_bit_counts() {
    for closed in [true, false] {
        let store = store(closed);
        let mut refused = 0;
        for name in [FIRST, SECOND, THIRD] {
            let bytes = store.disk.read_raw(name).unwrap();
            for at in 0..bytes.len() as u64 {
                // In a header all bits are alike: one checksum covers them. So are those of a gap: nobody looks at them.
                let around = &bytes[(at as usize).saturating_sub(32)..bytes.len().min(at as usize + 32)];
                let alike = at < CHUNK_HEADER_LEN as u64 || around.iter().all(|byte| *byte == 0);
                let bits = if alike { at as u32 % 8..at as u32 % 8 + 1 } else { 0..8 };
                for bit in bits {
                    let disk = store.disk.twin();
                    assert!(disk.flip_bit(name, at, bit));
                    let bad = look_for_loss(&store, &disk);
                    assert!(bad || at >= CHUNK_HEADER_LEN as u64, "bit {bit} of byte {at} of the header of {name}");
                    refused += usize::from(bad);
                }
            }
        }
        assert!(refused > 50_000, "{refused}");
    }
}

#[test]
fn every_truncation_leaves_a_state_or_is_refused() {
    for closed in [true, false] {
        let store = store(closed);
        for name in [FIRST, SECOND, THIRD] {
            let len = store.disk.read_raw(name).unwrap().len();
            let mut ends = Vec::new();
            for end in (0..len).rev() {
                let disk = store.disk.twin();
                assert!(disk.truncate_raw(name, end as u64));
                let looked = look(&store, &disk);
                match &looked {
                    Err(error) => assert!(error.code == Code::CORRUPTED && error.message.contains(name), "{error}"),
                    // Nothing is left that could tell of the rest of the newest chunk.
                    Ok(state) => assert!(name == THIRD || state + 1 == store.states.len(), "{name} cut at {end}"),
                }
                ends.push(looked.ok());
            }
            assert!(ends.windows(2).all(|ends| ends[1] <= ends[0]), "less of a file is never more of a store");
            assert!(name == THIRD || ends.last() == Some(&None));
        }
    }
}

#[test]
fn zeroed_sectors_are_missed() {
    for closed in [true, false] {
        let store = store(closed);
        for name in [FIRST, SECOND, THIRD] {
            let good = store.disk.read_raw(name).unwrap();
            for unit in [SECTOR, 4096] {
                for start in (0..good.len()).step_by(unit) {
                    let mut bytes = good.clone();
                    let end = (start + unit).min(bytes.len());
                    bytes[start..end].fill(0);
                    let disk = store.disk.twin();
                    assert!(disk.write_raw(name, &bytes));
                    let bad = look_for_loss(&store, &disk);
                    assert!(bad || bytes == good || start >= CHUNK_HEADER_LEN);
                }
            }
        }
    }
}

#[test]
fn swapped_sectors_never_give_another_value() {
    let store = store(true);
    let files = [FIRST, SECOND, THIRD].map(|name| (name, store.disk.read_raw(name).unwrap()));
    let sectors: Vec<(usize, usize)> =
        files.iter().enumerate().flat_map(|(i, (_, bytes))| (0..bytes.len() / SECTOR).map(move |sector| (i, sector * SECTOR))).collect();
    for (i, &(one_file, one)) in sectors.iter().enumerate() {
        for &(other_file, other) in &sectors[i + 1..] {
            let mut changed = files.clone();
            let kept = changed[one_file].1[one..one + SECTOR].to_vec();
            let moved = changed[other_file].1[other..other + SECTOR].to_vec();
            changed[one_file].1[one..one + SECTOR].copy_from_slice(&moved);
            changed[other_file].1[other..other + SECTOR].copy_from_slice(&kept);
            let disk = store.disk.twin();
            for (name, bytes) in [one_file, other_file].map(|file| &changed[file]) {
                assert!(disk.write_raw(name, bytes));
            }
            if let Err(error) = look(&store, &disk) {
                assert_eq!(error.code, Code::CORRUPTED, "{error}");
            }
        }
    }
}

#[test]
fn random_damage_never_gives_another_value() {
    let mut rng = Random::new(1);
    for closed in [true, false] {
        let store = store(closed);
        for _ in 0..4000 {
            let disk = store.disk.twin();
            for _ in 0..1 + rng.below(4) {
                let name = [FIRST, SECOND, THIRD][rng.below(3) as usize];
                let mut bytes = disk.read_raw(name).unwrap();
                let start = rng.below(bytes.len() as u64) as usize;
                let end = (start + 1 + rng.below(64) as usize).min(bytes.len());
                bytes[start..end].iter_mut().for_each(|byte| *byte = rng.next_u64() as u8);
                assert!(disk.write_raw(name, &bytes));
            }
            if let Err(error) = look(&store, &disk) {
                assert_eq!(error.code, Code::CORRUPTED, "{error}");
            }
        }
    }
}

#[test]
fn missing_copied_and_foreign_chunks_are_named() {
    let store = store(true);
    let refused = |change: &dyn Fn(&SimDisk), code: Code, says: &[&str]| {
        let disk = store.disk.twin();
        change(&disk);
        let error = look(&store, &disk).unwrap_err();
        assert!(error.code == code && says.iter().all(|text| error.message.contains(text)), "{error}");
    };
    for name in [FIRST, SECOND] {
        refused(&|disk| assert!(disk.remove_raw(name)), Code::CORRUPTED, &[name, "is missing", "backup"]);
    }
    let second = store.disk.read_raw(SECOND).unwrap();
    for copy in ["chunk-0000000000000000.kvb", "chunk-0000000000000009.kvb", FIRST, THIRD] {
        refused(&|disk| assert!(disk.write_raw(copy, &second)), Code::CORRUPTED, &[copy, SECOND, "copy"]);
    }
    let other = self::store(true);
    let (names, foreign) = ([FIRST, SECOND, THIRD], [FIRST, SECOND, THIRD].map(|name| other.disk.read_raw(name).unwrap()));
    for (name, bytes) in names.iter().zip(&foreign) {
        refused(&|disk| assert!(disk.write_raw(name, bytes)), Code::CONFIG, &[name, "different stores"]);
    }
    let disk = store.disk.twin();
    assert!(disk.write_raw("chunk-1.kvb", b"not ours") && disk.write_raw("notes.txt", b"nor this"));
    assert_eq!(look(&store, &disk), Ok(store.states.len() - 1), "other files are none of our business");
}

#[test]
fn a_newer_format_is_not_guessed_at() {
    let store = store(true);
    for (at, byte) in [(12, 2), (16, 2), (23, 0x80)] {
        let disk = store.disk.twin();
        let mut bytes = disk.read_raw(SECOND).unwrap();
        bytes[at] |= byte;
        let sum = crc::crc32c(&bytes[..CHUNK_HEADER_LEN - 4]);
        bytes[CHUNK_HEADER_LEN - 4..CHUNK_HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
        assert!(disk.write_raw(SECOND, &bytes));
        let error = look(&store, &disk).unwrap_err();
        assert!(error.code == Code::NOT_SUPPORTED && error.message.contains(SECOND) && error.message.contains("newer"), "{error}");
    }
}

/// Fields that no writer would write, under checksums that are right: refused or harmless, never a panic.
#[test]
fn absurd_fields_do_no_harm() {
    let store = store(false);
    let absurd = [0, 1, 2, 4096, 1 << 20, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    for name in [FIRST, SECOND, THIRD] {
        let good = store.disk.read_raw(name).unwrap();
        let salt = ChunkHeader::decode(&good).unwrap().salt();
        let try_with = |change: &dyn Fn(&mut Vec<u8>)| {
            let disk = store.disk.twin();
            let mut bytes = good.clone();
            change(&mut bytes);
            assert!(disk.write_raw(name, &bytes));
            match open(&disk, options()) {
                Ok(engine) => {
                    // What it lies about is where the log goes on; that must not end in a panic either.
                    let state = state_of(&engine).expect("what is opened is good");
                    assert!(store.states.contains(&state));
                    drop(engine);
                    let mut driver = Driver::open(&disk, options(), state).unwrap();
                    let _ = driver.commit(true, &[(0, 1)]);
                    driver.close();
                }
                Err(error) => assert!([Code::CORRUPTED, Code::CONFIG, Code::NO_SPACE].contains(&error.code), "{error}"),
            }
        };
        for field in (24..104).step_by(8) {
            for value in absurd {
                try_with(&|bytes| {
                    bytes[field..field + 8].copy_from_slice(&value.to_le_bytes());
                    let sum = crc::crc32c(&bytes[..CHUNK_HEADER_LEN - 4]);
                    bytes[CHUNK_HEADER_LEN - 4..CHUNK_HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
                });
            }
        }
        let frames = (CHUNK_HEADER_LEN..good.len()).step_by(8);
        for (at, frame) in frames.filter_map(|at| Some((at, FrameHeader::decode(&good[at..], salt, at as u64)?))) {
            for value in absurd {
                for changed in [
                    FrameHeader { first_seq: value, ..frame },
                    FrameHeader { watermark: value, ..frame },
                    FrameHeader { payload_len: value, ..frame },
                    FrameHeader { records: value as u32, ..frame },
                    FrameHeader { batches: value as u32, ..frame },
                    FrameHeader { digest_before: value, ..frame },
                    FrameHeader { digest: value, ..frame },
                    FrameHeader { kind: FrameKind::Beat, ..frame },
                    FrameHeader { kind: FrameKind::Close, records: 0, payload_len: 0, batches: 0, first_seq: value, ..frame },
                ] {
                    try_with(&|bytes| bytes[at..at + FRAME_HEADER_LEN].copy_from_slice(&changed.encode(salt, at as u64)));
                }
            }
        }
    }
    let disk = store.disk.twin();
    assert!(disk.write_raw("chunk-ffffffffffffffff.kvb", b""));
    assert_eq!(look(&store, &disk).unwrap_err().code, Code::NO_SPACE);
}
