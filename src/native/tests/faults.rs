//! Calls that fail, one story each: while opening, in a sync, on a full disk, in a read, on a disk that lies. The sweep
//! over every call is in `calls.rs`.

use super::driver::{Driver, fetch_raw, open, read, state_of};
use super::model::{End, KEYS, key_bytes, value_bytes};
use super::workload::Workload;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::random::Random;
use crate::engine::record::HEADER_LEN;
use crate::engine::{Engine, ReadOp};
use crate::io::sim::{Calls, Faults, SimDisk, Survival};
use crate::native::Options;

/// Workloads that are swept.
const SEEDS: u64 = 12;

fn options() -> Options {
    super::workload::options(1 << 20, 0)
}

/// Every kind of call that the engine makes.
pub const KINDS: [Calls; 13] = [
    Calls::READ,
    Calls::WRITE,
    Calls::WRITE_DURABLE,
    Calls::SYNC,
    Calls::CREATE,
    Calls::REMOVE,
    Calls::SYNC_DIR,
    Calls::OPEN,
    Calls::LIST,
    Calls::LOCK,
    Calls::OPEN_DIR,
    Calls::LEN,
    Calls::ALLOCATE,
];

/// Everything that is on the disk.
fn bytes_of(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.list_files().into_iter().map(|name| (name.clone(), disk.read_raw(&name))).collect()
}

#[test]
pub fn a_failure_while_opening_refuses_and_changes_nothing() {
    let mut refused = 0;
    for seed in 0..SEEDS {
        let workload = Workload::draw(seed).hostile();
        let disk = workload.new_disk();
        let mut driver = workload.run(&disk, [0; KEYS], false).unwrap();
        if seed % 3 == 0 {
            driver.close();
        }
        let disk = disk.kill_image();
        let whole = disk.twin();
        open(&whole, workload.options).and_then(|engine| state_of(&engine)).unwrap();
        for (kind, nth) in KINDS.into_iter().flat_map(|kind| (1..=whole.calls(kind)).map(move |nth| (kind, nth))) {
            for sticky in [false, true] {
                let failing = disk.twin();
                failing.fail_at(nth, libc::EIO, sticky, kind);
                let Err(error) = open(&failing, workload.options) else {
                    // What came behind the opening was reading the state. And what fails about a checkpoint is no failure.
                    let has_checkpoint = disk.list_files().iter().any(|name| name.starts_with("index-"));
                    assert!(kind == Calls::READ || has_checkpoint && (Calls::OPEN | Calls::LEN).meets(kind), "{kind:?}");
                    continue;
                };
                refused += 1;
                assert_eq!(error.code, Code::IO, "{error}");
                assert_eq!(bytes_of(&failing), bytes_of(&disk));
                failing.fail_no_more();
                let again = open(&failing, workload.options).and_then(|engine| state_of(&engine)).unwrap();
                let end = if kind == Calls::SYNC { End::PowerCut } else { End::Kill };
                driver.oracle.check(&again, end).unwrap_or_else(|text| panic!("{text}"));
            }
        }
    }
    assert!(refused > 100);
}

/// A store with keys 0 to 3 in it, no memory of its own, and the disk to break.
fn small_store() -> (SimDisk, Driver) {
    let disk = SimDisk::new(1, Faults::default());
    let driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
    (disk, driver)
}

fn codes(results: &[Result<u32, Error>]) -> Vec<Result<u32, Code>> {
    results.iter().map(|result| result.clone().map_err(|error| error.code)).collect()
}

#[test]
pub fn after_a_failed_sync_nothing_is_written_and_reads_go_on() {
    for (kind, durable) in [(Calls::WRITE_DURABLE, true), (Calls::SYNC, true), (Calls::SYNC, false), (Calls::WRITE, false)] {
        let (disk, mut driver) = small_store();
        driver.commit(true, &[(0, 1)]).unwrap();
        if kind == Calls::SYNC {
            driver.commit(false, &[(1, 2)]).unwrap(); // so there is something to sync
        }
        disk.fail_at(1, libc::EIO, false, kind);
        let failed = if (kind, durable) == (Calls::SYNC, false) { driver.engine.sync() } else { driver.commit(durable, &[(0, 3)]) };
        let failed = failed.unwrap_err();
        assert!(failed.code == Code::IO && (failed.in_doubt || !durable || kind == Calls::WRITE), "{failed}");
        assert!(failed.message.contains("chunk-0000000000000001.kvb") && failed.message.contains("open it again"), "{failed}");
        let writes = disk.calls(Calls::STEPS);
        for durable in [true, false] {
            let error = driver.commit(durable, &[(0, 4)]).unwrap_err();
            assert!(error.code == Code::IO && !error.in_doubt, "{error}");
        }
        assert_eq!(driver.engine.sync().unwrap_err().code, Code::IO);
        assert_eq!(disk.calls(Calls::STEPS), writes, "the disk is left alone, whatever it would say now");
        assert_eq!(codes(&read(&driver.engine, &[0, 5])), [Ok(1), Ok(0)]);
        driver.close();
        assert_eq!(driver.errors.last().unwrap().code, Code::IO, "and closing does not call it well");
    }
}

/// What each errno means to the group that meets it, and to those behind it.
#[test]
fn each_errno_has_its_answer() {
    use libc::{EACCES, EAGAIN, EBADF, EBUSY, EDQUOT, EFAULT, EFBIG, EINTR, EINVAL, EIO, EMFILE, ENFILE, ENODEV, ENOMEM, ENOSPC};
    use libc::{EOPNOTSUPP, EROFS, ESTALE};
    let no_room = [ENOSPC, EDQUOT, EFBIG].map(|errno| (errno, Code::DISK_FULL));
    let broken = [EIO, EROFS, EACCES, ESTALE, ENODEV, EBADF, EFAULT, EINVAL, EOPNOTSUPP].map(|errno| (errno, Code::IO));
    let passing = [(EAGAIN, Code::IO), (EBUSY, Code::IO), (ENOMEM, Code::MEM)];
    let unmade = [(ENOSPC, Code::DISK_FULL), (EDQUOT, Code::DISK_FULL), (EMFILE, Code::FILE), (ENFILE, Code::FILE), (EROFS, Code::SYS)];
    let unsynced = [EIO, ENOSPC, EDQUOT, EINTR, EAGAIN].map(|errno| (errno, Code::IO));
    // The call, its errnos, whether writes go on, whether the group is in doubt.
    type Row<'a> = (Calls, &'a [(i32, Code)], bool, bool);
    let table: [Row<'_>; 8] = [
        (Calls::WRITE, &no_room, true, false),
        (Calls::WRITE_DURABLE, &no_room, true, true),
        (Calls::WRITE, &passing, true, false),
        (Calls::WRITE_DURABLE, &passing, true, true),
        (Calls::WRITE, &broken, false, true),
        (Calls::WRITE_DURABLE, &broken, false, true),
        (Calls::SYNC, &unsynced, false, true),
        (Calls::CREATE, &unmade, true, false),
    ];
    for (call, errnos, goes_on, in_doubt) in table {
        for (errno, code) in errnos {
            let (disk, mut driver) = small_store();
            if call != Calls::CREATE {
                driver.commit(call != Calls::SYNC, &[(0, 1)]).unwrap();
            }
            disk.fail_at(1, *errno, false, call);
            let error = driver.commit(call != Calls::WRITE, &[(0, 2)]).unwrap_err();
            assert_eq!((error.code, error.in_doubt), (*code, in_doubt), "{call:?}, errno {errno}: {error}");
            let before = if call == Calls::CREATE { 0 } else { 1 };
            assert_eq!(codes(&read(&driver.engine, &[0])), [Ok(before)], "reads go on");
            let next = driver.commit(true, &[(0, 3)]);
            assert_eq!(next.is_ok(), goes_on, "{call:?}, errno {errno}: {next:?}");
            assert!(goes_on || next.unwrap_err().message.contains("open it again"));
            driver.close();
            driver.reopen(options()).unwrap();
            if goes_on {
                assert_eq!(codes(&read(&driver.engine, &[0])), [Ok(3)]);
            }
        }
    }
}

#[test]
pub fn writes_come_back_when_there_is_room() {
    for durable in [true, false] {
        let (disk, mut driver) = small_store();
        driver.commit(durable, &[(0, 1)]).unwrap();
        disk.set_space(Some(0));
        for _ in 0..3 {
            assert_eq!(driver.commit(durable, &[(0, 2), (1, 2)]).unwrap_err().code, Code::DISK_FULL);
            assert_eq!(codes(&read(&driver.engine, &[0, 1])), [Ok(1), Ok(0)]);
        }
        disk.set_space(None);
        driver.commit(durable, &[(0, 3), (1, 3)]).unwrap();
        driver.engine.sync().unwrap();
        driver.reopen(options()).unwrap_err();
        driver.close();
        driver.reopen(options()).unwrap();
        assert_eq!(codes(&read(&driver.engine, &[0, 1])), [Ok(3), Ok(3)]);
    }
}

#[test]
pub fn what_cannot_be_read_concerns_its_reader_only() {
    let (disk, mut driver) = small_store();
    driver.commit(true, &[(0, 1), (1, 1), (2, 1)]).unwrap();
    let chunk = "chunk-0000000000000001.kvb";
    let record = [&key_bytes(0)[..], &value_bytes(0, 1)].concat();
    let place = disk.read_raw(chunk).unwrap().windows(record.len()).position(|bytes| bytes == record).unwrap() as u64;
    assert!(disk.make_unreadable(chunk, place, 1));
    assert_eq!(codes(&read(&driver.engine, &[0, 1, 2])), [Err(Code::IO), Ok(1), Ok(1)]);
    assert!(disk.heal(chunk) && disk.flip_bit(chunk, place, 3));
    assert_eq!(codes(&read(&driver.engine, &[0, 1, 2])), [Err(Code::CORRUPTED), Ok(1), Ok(1)]);
    driver.commit(true, &[(0, 2)]).unwrap();
    assert_eq!(codes(&read(&driver.engine, &[0, 1, 2])), [Ok(2), Ok(1), Ok(1)]);
}

/// A disk that says "synced" and has not done it: what it loses may be noticed or not, but no value is ever wrong.
#[test]
fn a_lying_disk_loses_and_never_invents() {
    let mut refused = 0;
    for seed in 0..SEEDS {
        let workload = Workload::draw(seed).hostile();
        let disk = workload.new_disk();
        disk.set_faults(Faults { lying_sync: true, ..Faults::default() });
        let mut driver = workload.run(&disk, [0; KEYS], false).unwrap();
        driver.past.push(driver.oracle.clone());
        driver.past.iter_mut().for_each(|oracle| oracle.promise_nothing());
        let mut rng = Random::new(seed);
        for _ in 0..20 {
            let survival = Survival::draw(&mut rng);
            match open(&disk.crash_image(&mut rng, survival), workload.options).and_then(|engine| state_of(&engine)) {
                Ok(state) => {
                    assert!(driver.past.iter().any(|oracle| oracle.check(&state, End::PowerCut).is_ok()), "{state:?}");
                }
                Err(error) => {
                    assert_eq!(error.code, Code::CORRUPTED, "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0, "some of the lies are noticed");
}

/// Two keys under one hash cannot be told apart by the index: the record's own key decides.
#[test]
pub fn another_key_under_the_same_hash_is_not_given() {
    let (_, mut driver) = small_store();
    driver.commit(true, &[(0, 1)]).unwrap();
    let keys = vec![key_bytes(1)];
    let mut reads = [ReadOp { hash: driver.engine.hasher().hash(&key_bytes(0)), op: 0, ..ReadOp::default() }];
    let pin = driver.engine.resolve(&mut reads);
    assert_eq!(fetch_raw(&driver.engine, &pin, keys, &mut reads), [Ok(None)]);
}

/// An older record of the same key, good in itself, where the newer one was: a write that went astray.
#[test]
pub fn a_good_record_at_a_wrong_place_is_not_given() {
    let (disk, mut driver) = small_store();
    let versions: Vec<u32> = (1..).filter(|version| value_bytes(0, *version).len() == 40).take(2).collect();
    for version in &versions {
        driver.commit(true, &[(0, *version)]).unwrap();
    }
    let chunk = "chunk-0000000000000001.kvb";
    let bytes = disk.read_raw(chunk).unwrap();
    let places: Vec<usize> = versions
        .iter()
        .map(|version| {
            let record = [&key_bytes(0)[..], &value_bytes(0, *version)].concat();
            bytes.windows(record.len()).position(|bytes| bytes == record).unwrap() - HEADER_LEN
        })
        .collect();
    assert!(disk.patch_raw(chunk, places[1] as u64, &bytes[places[0]..places[0] + HEADER_LEN + 1 + 40]));
    assert_eq!(codes(&read(&driver.engine, &[0])), [Err(Code::CORRUPTED)]);
}
