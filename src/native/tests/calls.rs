//! Every call fails: the n-th of every kind, for every n, with every errno it may return or coming back short, once and
//! for good, with everything that the kernel may do to its cache when a sync fails. What was acknowledged is there when
//! the store is opened again, and the store takes writes again where it can.

use super::crash::{Exploration, Image};
use super::driver::{Driver, open, read, state_of};
use super::faults::KINDS;
use super::model::{End, KEYS};
use super::sweep::{Counts, Sweep, say};
use super::workload::Workload;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::engine::Engine;
use crate::io::sim::{Aftermath, Calls, Failure, Faults};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const SWEEP: Sweep = Sweep {
    test: "native::tests::calls::every_call_fails_in_every_way",
    title: "failing calls",
    cases: [4, 20], // workloads
    stride: 1,
};

/// A version no workload reaches.
const LATE: u32 = 1 << 30;

/// One failure.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Calls,
    nth: u64,
    failure: Failure,
    sticky: bool,
    aftermath: Aftermath,
}

/// What a call of this kind may come back with.
fn failures(kind: Calls) -> &'static [Failure] {
    use Failure::{AllButOne, Errno, OneByte};
    use libc::{EAGAIN, EDQUOT, EFBIG, EINTR, EIO, EMFILE, ENOMEM, ENOSPC};
    match kind {
        Calls::READ => &[Errno(EIO), Errno(EINTR), Errno(EAGAIN), Errno(ENOMEM), AllButOne, OneByte],
        Calls::WRITE | Calls::WRITE_DURABLE => {
            &[Errno(EIO), Errno(ENOSPC), Errno(EDQUOT), Errno(EFBIG), Errno(EINTR), Errno(EAGAIN), Errno(ENOMEM), AllButOne, OneByte]
        }
        Calls::SYNC | Calls::SYNC_DIR => &[Errno(EIO), Errno(ENOSPC), Errno(EDQUOT), Errno(EINTR), Errno(ENOMEM)],
        Calls::CREATE => &[Errno(EIO), Errno(ENOSPC), Errno(EDQUOT), Errno(EMFILE), Errno(ENOMEM), Errno(EINTR)],
        Calls::ALLOCATE => &[Errno(EIO), Errno(ENOSPC), Errno(EDQUOT), Errno(EFBIG)],
        Calls::OPEN | Calls::LOCK | Calls::OPEN_DIR => &[Errno(EIO), Errno(EMFILE), Errno(ENOMEM), Errno(EINTR)],
        _ => &[Errno(EIO), Errno(ENOMEM)],
    }
}

impl Plan {
    fn is(&self, errnos: &[i32]) -> bool {
        matches!(self.failure, Failure::Errno(errno) if errnos.contains(&errno))
    }

    /// Interrupted and short calls are gone on with: nobody hears of them.
    fn goes_unnoticed(&self) -> bool {
        let data = Calls::READ | Calls::WRITE | Calls::WRITE_DURABLE;
        !matches!(self.failure, Failure::Errno(_)) || (self.is(&[libc::EINTR]) && data.meets(self.kind))
    }

    fn stable_storage_failed(&self) -> bool {
        (Calls::SYNC | Calls::WRITE_DURABLE).meets(self.kind) && !self.goes_unnoticed()
    }

    /// After this failure, the store may have to stop writing: nobody can know what is on the disk.
    fn may_poison(&self) -> bool {
        self.kind == Calls::SYNC || (self.is(&[libc::EIO]) && (Calls::WRITE | Calls::WRITE_DURABLE).meets(self.kind))
    }

    fn check_error(&self, error: &Error) {
        let expected = match error.code {
            _ if self.goes_unnoticed() => false,
            Code::IO => true,
            Code::DISK_FULL => self.is(&[libc::ENOSPC, libc::EDQUOT, libc::EFBIG]) || self.gives_up_others(),
            Code::MEM => self.is(&[libc::ENOMEM]),
            Code::FILE => self.is(&[libc::EMFILE]),
            // What the kernel has thrown away cannot be read.
            Code::CORRUPTED => self.stable_storage_failed() && self.aftermath != Aftermath::KeepsNew,
            _ => false,
        };
        assert!(expected && !error.message.is_empty(), "{error}");
    }

    /// A write that may be tried again failed for good: the groups behind it are given up as on a full disk.
    fn gives_up_others(&self) -> bool {
        (Calls::WRITE | Calls::WRITE_DURABLE).meets(self.kind) && self.is(&[libc::EAGAIN, libc::ENOMEM])
    }

    /// Lets it happen, and looks at everything that follows.
    fn run(&self, workload: &Workload, exploration: &mut Exploration) {
        let disk = workload.new_disk();
        disk.set_faults(Faults { aftermath: self.aftermath, ..Faults::default() });
        disk.plan(self.nth, self.failure, self.sticky, self.kind);
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
        if self.nth.is_multiple_of(16) {
            exploration.go_on(&image, state, self.nth.is_multiple_of(64));
        }
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

/// Every failure of a workload that makes these calls.
fn plans(calls: impl Fn(Calls) -> u64) -> Vec<Plan> {
    let mut plans = Vec::new();
    for kind in KINDS {
        let aftermaths = [Aftermath::KeepsNew, Aftermath::Reverts, Aftermath::Mixed];
        let several = (Calls::SYNC | Calls::WRITE_DURABLE).meets(kind);
        for (nth, failure) in (1..=calls(kind)).flat_map(|nth| failures(kind).iter().map(move |failure| (nth, *failure))) {
            let several = several && matches!(failure, Failure::Errno(errno) if errno != libc::EINTR);
            for aftermath in if several { &aftermaths[..] } else { &aftermaths[..1] } {
                plans.extend([false, true].map(|sticky| Plan { kind, nth, failure, sticky, aftermath: *aftermath }));
            }
        }
    }
    plans
}

/// Lets every call of one workload fail.
pub fn try_workload(seed: u64, counts: &mut Counts) {
    let workload = Workload::draw(seed).hostile();
    let whole = workload.new_disk();
    workload.run(&whole, [0; KEYS], false).unwrap();
    let mut exploration = Exploration::new(workload.clone(), seed);
    for plan in plans(|kind| whole.calls(kind)) {
        if let Err(violation) = catch_unwind(AssertUnwindSafe(|| plan.run(&workload, &mut exploration))) {
            say(&format!("failing calls: seed {seed}, {plan:?}, {workload:?}"));
            resume_unwind(violation);
        }
        counts.add("runs with a failing call", 1);
    }
    counts.add("crash images behind them", exploration.tally.images);
}

#[test]
fn every_call_fails_in_every_way() {
    SWEEP.run(try_workload);
}
