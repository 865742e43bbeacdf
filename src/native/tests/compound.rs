//! Misfortunes in a row: what a crash has left is recovered, written to and compacted, and every call of that is crashed
//! or fails; what that leaves is recovered, and every call of that is crashed or fails; and so once more.

use super::crash::Image;
use super::driver::{Driver, open, state_of};
use super::faults::KINDS;
use super::model::{End, KEYS, Oracle, State};
use super::sweep::{Counts, Sweep, say};
use super::workload::Workload;
use crate::base::code::Code;
use crate::base::error::Error;
use crate::base::random::Random;
use crate::io::sim::{Aftermath, Calls, Faults, SimDisk, Survival};
use crate::native::Options;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const SWEEP: Sweep =
    Sweep { test: "native::tests::compound::one_misfortune_after_another", title: "compound", cases: [60, 240], stride: 1 };

/// Misfortunes in a row, behind the crash that begins it.
const DEPTH_MAX: u32 = 3;

/// Of what the misfortunes of one depth leave, so many are picked to go deeper.
const PICKED: u64 = 2;

/// One misfortune.
#[derive(Clone, Copy, Debug)]
enum Misfortune {
    Crash { step: u64 },
    Failure { kind: Calls, nth: u64, errno: i32, sticky: bool },
}

impl Misfortune {
    /// Every one that can meet a story that makes these calls.
    fn all(whole: &SimDisk, rng: &mut Random) -> Vec<Misfortune> {
        let mut all: Vec<_> = (1..=whole.steps()).map(|step| Misfortune::Crash { step }).collect();
        let needs_space = Calls::WRITE | Calls::WRITE_DURABLE | Calls::SYNC | Calls::CREATE | Calls::SYNC_DIR;
        for kind in KINDS {
            for nth in 1..=whole.calls(kind) {
                let sticky = rng.one_in(2);
                all.push(Misfortune::Failure { kind, nth, errno: libc::EIO, sticky });
                if needs_space.meets(kind) {
                    all.push(Misfortune::Failure { kind, nth, errno: libc::ENOSPC, sticky });
                }
            }
        }
        all
    }

    fn plan(self, disk: &SimDisk) {
        match self {
            Misfortune::Crash { step } => disk.crash_at(step),
            Misfortune::Failure { kind, nth, errno, sticky } => disk.fail_at(nth, errno, sticky, kind),
        }
    }

    /// What was to be durable may be gone, whoever looks next.
    fn costs_the_cache(self) -> bool {
        matches!(self, Misfortune::Failure { kind, .. } if (Calls::SYNC | Calls::WRITE_DURABLE).meets(kind))
    }
}

/// What a store goes through at each depth.
fn story(disk: &SimDisk, options: Options, state: State, depth: u32) -> Result<Driver, Error> {
    let version = (2 + depth) << 24;
    let mut driver = Driver::open(disk, options, state)?;
    driver.hold_reads((0..KEYS).collect());
    let _ = driver.commit(true, &[(0, version), (1, version)]);
    driver.compact(100);
    let _ = driver.commit(false, &[(1, 0), (2, version + 1)]);
    driver.engine.log.end_chunk();
    driver.checkpoint(&mut Random::new(1), VecDeque::new());
    let _ = driver.commit(true, &[(0, version + 2)]);
    driver.compact(100);
    driver.check_reads();
    driver.close();
    Ok(driver)
}

struct Exploration<'a> {
    options: Options,
    rng: Random,
    counts: &'a mut Counts,
    /// How it came to this, for whoever looks into a violation.
    way: Vec<Misfortune>,
}

impl Exploration<'_> {
    /// Opens the image, which must hold what it may hold.
    fn look(&self, image: &Image) -> State {
        match open(&image.disk.twin(), self.options).and_then(|engine| state_of(&engine)) {
            Err(error) => panic!("the store that {:?} left cannot be used: {error}", image.end),
            Ok(state) => {
                image.oracle.check(&state, image.end).unwrap_or_else(|text| panic!("{text}"));
                state
            }
        }
    }

    fn explore(&mut self, image: &Image) {
        let state = self.look(image);
        let whole = image.disk.twin();
        let driver = story(&whole, self.options, state, image.depth).unwrap_or_else(|error| panic!("without a fault: {error}"));
        driver.check_errors(false);
        let all = Misfortune::all(&whole, &mut self.rng);
        let picked: Vec<u64> = (0..PICKED).map(|_| self.rng.below(all.len() as u64)).collect();
        for (misfortune, at) in all.into_iter().zip(0..) {
            self.way.push(misfortune);
            let next = self.suffer(image, state, misfortune);
            if image.depth < DEPTH_MAX && picked.contains(&at) {
                self.explore(&next);
            } else {
                self.look(&next);
            }
            self.way.pop();
        }
    }

    /// The story with one misfortune, and what it leaves.
    fn suffer(&mut self, image: &Image, state: State, misfortune: Misfortune) -> Image {
        let disk = image.disk.twin();
        let aftermath = [Aftermath::KeepsNew, Aftermath::Reverts, Aftermath::Mixed][self.rng.below(3) as usize];
        disk.set_faults(Faults { aftermath, ..Faults::default() });
        misfortune.plan(&disk);
        let (oracle, earlier) = match story(&disk, self.options, state, image.depth) {
            Ok(driver) => (driver.oracle, End::Kill),
            Err(_) if disk.crashed() => (image.oracle.clone(), image.end),
            Err(error) => {
                assert!([Code::IO, Code::DISK_FULL].contains(&error.code), "{error}");
                (image.oracle.clone(), image.end)
            }
        };
        disk.fail_no_more();
        self.counts.add("runs with a misfortune", 1);
        self.counts.add(["at depth 1", "at depth 2", "at depth 3"][image.depth as usize - 1], 1);
        let depth = image.depth + 1;
        if self.rng.one_in(2) {
            let survival = Survival::draw(&mut self.rng);
            return Image { disk: disk.crash_image(&mut self.rng, survival), oracle, end: End::PowerCut, depth };
        }
        let end = if misfortune.costs_the_cache() { End::PowerCut } else { earlier };
        Image { disk: disk.kill_image(), oracle, end, depth }
    }
}

/// Crashes one workload somewhere, and goes on from there.
pub fn try_seed(seed: u64, counts: &mut Counts) {
    let mut rng = Random::new(!seed);
    let workload = Workload::draw(seed).hostile();
    let whole = workload.new_disk();
    workload.run(&whole, [0; KEYS], true).unwrap_or_else(|error| panic!("without a fault: {error}"));
    let disk = workload.new_disk();
    disk.crash_at(1 + rng.below(whole.steps()));
    let oracle = workload.run(&disk, [0; KEYS], true).map_or(Oracle::new([0; KEYS]), |driver| driver.oracle);
    let survival = Survival::draw(&mut rng);
    let (disk, end) = if rng.one_in(2) { (disk.kill_image(), End::Kill) } else { (disk.crash_image(&mut rng, survival), End::PowerCut) };
    let mut exploration = Exploration { options: workload.options, rng, counts, way: Vec::new() };
    let explored = catch_unwind(AssertUnwindSafe(|| exploration.explore(&Image { disk, oracle, end, depth: 1 })));
    if let Err(violation) = explored {
        say(&format!("compound: seed {seed}, {:?}, {workload:?}", exploration.way));
        resume_unwind(violation);
    }
    exploration.counts.add("stores", 1);
}

#[test]
fn one_misfortune_after_another() {
    SWEEP.run(try_seed);
}
