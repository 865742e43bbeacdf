//! Calls that fail: the n-th call of every kind, for every n, once and for good, and what the kernel may do to the
//! cache when a sync fails. Whatever fails, what was acknowledged is there when the store is opened again.

use super::crash::{Exploration, Image, Tally, say};
use super::driver::{Driver, open, read, state_of};
use super::model::{End, KEYS, key_bytes, value_bytes};
use super::workload::Workload;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::random::Random;
use crate::engine::Engine;
use crate::io::sim::{Aftermath, Calls, Faults, SimDisk, Survival};
use crate::native::Options;

/// Workloads that are swept.
const SEEDS: u64 = 12;

/// A version no workload reaches.
const LATE: u32 = 1 << 30;

fn options() -> Options {
    super::workload::options(1 << 20, 0)
}

const KINDS: [Calls; 12] = [
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
];

/// One failure.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Calls,
    nth: u64,
    errno: i32,
    sticky: bool,
    aftermath: Aftermath,
}

impl Plan {
    fn stable_storage_failed(&self) -> bool {
        (Calls::SYNC | Calls::WRITE_DURABLE).meets(self.kind)
    }

    /// After this failure, the store may have to stop writing: nobody can know what is on the disk.
    fn may_poison(&self) -> bool {
        self.kind == Calls::SYNC || (self.errno == libc::EIO && (Calls::WRITE | Calls::WRITE_DURABLE).meets(self.kind))
    }

    fn check_error(&self, error: &Error) {
        let expected = match (error.code, self.errno) {
            (Code::IO, _) | (Code::DISK_FULL, libc::ENOSPC) => true,
            // What the kernel has thrown away cannot be read.
            (Code::CORRUPTED, _) => self.stable_storage_failed() && self.aftermath != Aftermath::KeepsNew,
            _ => false,
        };
        assert!(expected && !error.message.is_empty(), "{error}");
    }

    /// Lets it happen, and looks at everything that follows.
    fn run(&self, workload: &Workload, exploration: &mut Exploration) {
        let disk = workload.new_disk();
        disk.set_faults(Faults { aftermath: self.aftermath, ..Faults::default() });
        disk.fail_at(self.nth, self.errno, self.sticky, self.kind);
        let mut driver = match workload.run(&disk, [0; KEYS], false) {
            Ok(driver) => driver,
            Err(error) => {
                self.check_error(&error);
                disk.fail_no_more();
                assert_eq!(open(&disk, workload.options).and_then(|engine| state_of(&engine)), Ok([0; KEYS]));
                return;
            }
        };
        driver.errors.iter().for_each(|error| self.check_error(error));
        disk.fail_no_more();
        if !driver.shut {
            self.read_and_write(&mut driver);
        }
        let end = if self.stable_storage_failed() { End::PowerCut } else { End::Kill };
        exploration.images_of(&disk, &driver.oracle, end, 1);
        let image = Image { disk: disk.kill_image(), oracle: driver.oracle.clone(), end, depth: 1 };
        let state = exploration.look(&image);
        exploration.go_on(&image, state, self.nth.is_multiple_of(8));
        if !driver.shut {
            driver.close();
            exploration.images_of(&disk, &driver.oracle, end, 2);
        }
    }

    /// The disk is well again. Reads have never stopped; writes go on, or they fail until the store is opened again.
    fn read_and_write(&self, driver: &mut Driver) {
        let before = driver.errors.len();
        driver.hold_reads((0..KEYS).collect());
        driver.check_reads();
        driver.errors[before..].iter().for_each(|error| {
            assert_eq!(error.code, Code::CORRUPTED, "{error}");
            self.check_error(error);
        });
        let writes = [(true, LATE), (false, LATE + 1), (true, LATE + 2)].map(|(durable, version)| driver.commit(durable, &[(0, version)]));
        if !self.may_poison() {
            assert_eq!(writes, [Ok(()), Ok(()), Ok(())], "the disk works and the store does not");
        }
        if let [Err(first), second, third] = &writes {
            assert!([first, second.as_ref().unwrap_err(), third.as_ref().unwrap_err()].iter().all(|error| error.code == Code::IO));
            assert_eq!(driver.engine.sync().unwrap_err().code, Code::IO);
        }
        let got = read(&driver.engine, &[0]);
        assert!(writes[2].is_err() || got == [Ok(LATE + 2)]);
    }
}

#[test]
fn every_call_fails_once_and_for_good() {
    let mut runs = 0;
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let workload = Workload::draw(seed).hostile();
        let whole = workload.new_disk();
        workload.run(&whole, [0; KEYS], false).unwrap();
        let mut exploration = Exploration::new(workload.clone(), seed);
        for kind in KINDS {
            let aftermaths = [Aftermath::KeepsNew, Aftermath::Reverts, Aftermath::Mixed];
            let aftermaths = if (Calls::SYNC | Calls::WRITE_DURABLE).meets(kind) { &aftermaths[..] } else { &aftermaths[..1] };
            for nth in 1..=whole.calls(kind) {
                for (errno, sticky) in [(libc::EIO, false), (libc::EIO, true), (libc::ENOSPC, false), (libc::ENOSPC, true)] {
                    for aftermath in aftermaths {
                        let plan = Plan { kind, nth, errno, sticky, aftermath: *aftermath };
                        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| plan.run(&workload, &mut exploration)));
                        if let Err(violation) = result {
                            say(&format!("faults: seed {seed}, {plan:?}, {workload:?}"));
                            std::panic::resume_unwind(violation);
                        }
                        runs += 1;
                    }
                }
            }
        }
        tally.images += exploration.tally.images;
    }
    say(&format!("faults: {runs} failures, {} crash images behind them, no violation", tally.images));
}

/// Everything that is on the disk.
fn bytes_of(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.list_files().into_iter().map(|name| (name.clone(), disk.read_raw(&name))).collect()
}

#[test]
fn a_failure_while_opening_refuses_and_changes_nothing() {
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
fn after_a_failed_sync_nothing_is_written_and_reads_go_on() {
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

#[test]
fn writes_come_back_when_there_is_room() {
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
fn what_cannot_be_read_concerns_its_reader_only() {
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
