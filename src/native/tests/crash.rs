//! Crashes: each workload is stopped in the midst of every call that changes the disk, and what is left is opened,
//! checked, used, and crashed again.
//!
//! `sweep.rs` says how to try more seeds, or one.

use super::checkpoint::{compare_with_full_replay, has_good_checkpoint};
use super::driver::{open, state_of};
use super::model::{End, KEYS, Oracle, State};
use super::sweep::{Sweep, say};
use super::workload::Workload;
use crate::base::random::Random;
use crate::engine::Engine;
use crate::io::sim::{SimDisk, Survival};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds that a plain `cargo test` tries, and those of a round of the soak.
const SEEDS: u64 = 500;
const SEEDS_FULL: u64 = 4000;

/// Crashes in a row: of the workload, of the recovery from that, and so on.
const DEPTH_MAX: u32 = 3;

/// What has been tried so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub images: u64,
    pub deep_images: u64,
}

/// A seed under test.
pub struct Exploration {
    workload: Workload,
    rng: Random,
    pub tally: Tally,
}

/// A disk that a crash has left, and what is known about it.
pub struct Image {
    pub disk: SimDisk,
    pub oracle: Oracle,
    pub end: End,
    /// Crashes so far.
    pub depth: u32,
}

impl Exploration {
    /// Nothing tried yet.
    pub fn new(workload: Workload, seed: u64) -> Exploration {
        Exploration { workload, rng: Random::new(!seed), tally: Tally::default() }
    }

    /// Crashes the workload at each of its steps.
    fn explore(&mut self) {
        let whole = self.workload.new_disk();
        let workload = self.workload.clone();
        let driver = workload.run(&whole, [0; KEYS], true).unwrap_or_else(|error| panic!("without a fault: {error}"));
        let steps = whole.steps();
        assert_eq!(state_of(&open(&whole, workload.options).unwrap()).unwrap(), driver.oracle.visible, "opened after an orderly close");
        for step in 1..=steps {
            let disk = workload.new_disk();
            disk.crash_at(step);
            let oracle = match workload.run(&disk, [0; KEYS], true) {
                Ok(driver) => driver.oracle,
                Err(_) => Oracle::new([0; KEYS]),
            };
            assert!(disk.crashed(), "the same seed takes the same steps");
            self.images_of(&disk, &oracle, End::Kill, 1);
        }
    }

    /// What a stopped machine may leave. `earlier`: how it had ended before, if it has not recovered since.
    pub fn images_of(&mut self, disk: &SimDisk, oracle: &Oracle, earlier: End, depth: u32) {
        for survival in [Survival::draw(&mut self.rng), Survival::draw(&mut self.rng)] {
            let disk = disk.crash_image(&mut self.rng, survival);
            self.check(Image { disk, oracle: oracle.clone(), end: End::PowerCut, depth });
        }
        if self.rng.one_in(2) {
            self.check(Image { disk: disk.kill_image(), oracle: oracle.clone(), end: earlier, depth });
        }
    }

    fn check(&mut self, image: Image) {
        let state = self.look(&image);
        let every_step = image.depth == 1 && self.rng.one_in(100);
        if image.depth < DEPTH_MAX && (every_step || self.rng.one_in(12)) {
            self.go_on(&image, state, every_step);
        }
    }

    /// Opens the image and reads everything.
    pub fn look(&mut self, image: &Image) -> State {
        self.tally.images += 1;
        self.tally.deep_images += u64::from(image.depth > 1);
        image.disk.set_space(None);
        let disk = image.disk.twin();
        let (engine, state) = match open(&disk, self.workload.options).and_then(|engine| Ok((state_of(&engine)?, engine))) {
            Ok((state, engine)) => (engine, state),
            Err(error) => panic!("the store that {:?} left cannot be used: {error}", image.end),
        };
        image.oracle.check(&state, image.end).unwrap_or_else(|text| panic!("{text}"));
        image.oracle.check_outcomes(&state, &|id| engine.batch_outcome(id));
        assert!(!image.oracle.has_checkpoint || has_good_checkpoint(&image.disk), "no checkpoint is left");
        if self.rng.one_in(4) {
            compare_with_full_replay(&image.disk, self.workload.options);
        }
        state
    }

    /// Opens the image, writes on, closes; crashes that, too.
    pub fn go_on(&mut self, image: &Image, state: State, every_step: bool) {
        let sequel = self.workload.sequel(self.rng.next_u64(), image.depth);
        let whole = image.disk.twin();
        let driver = sequel.run(&whole, state, true).unwrap_or_else(|error| panic!("after recovery: {error}"));
        let steps = whole.steps();
        let again = state_of(&open(&whole, sequel.options).unwrap()).unwrap();
        assert_eq!(again, driver.oracle.visible, "closed after recovery, and opened again");
        let crashes = if every_step { (1..=steps).collect() } else { vec![1 + self.rng.below(steps.min(6)), 1 + self.rng.below(steps)] };
        for step in crashes.into_iter().filter(|step| *step <= steps) {
            let disk = image.disk.twin();
            disk.crash_at(step);
            let (oracle, earlier) = match sequel.run(&disk, state, true) {
                Ok(driver) => (driver.oracle, End::Kill),
                Err(_) => (image.oracle.clone(), image.end),
            };
            assert!(disk.crashed());
            self.images_of(&disk, &oracle, earlier, image.depth + 1);
        }
    }
}

/// Tries one seed: what was tried, and the panic that tells of a violation, if there is one.
pub fn try_seed(seed: u64) -> (Tally, std::thread::Result<()>) {
    try_workload(Workload::draw(seed), seed)
}

/// The same with a workload of another kind.
pub fn try_workload(workload: Workload, seed: u64) -> (Tally, std::thread::Result<()>) {
    let mut exploration = Exploration::new(workload, seed);
    let result = catch_unwind(AssertUnwindSafe(|| exploration.explore()));
    (exploration.tally, result)
}

const SWEEP: Sweep = Sweep { test: "native::tests::crash::simulator", title: "crashes", cases: [SEEDS, SEEDS_FULL], stride: 1 };

#[test]
fn simulator() {
    SWEEP.run(|seed, counts| {
        let (tally, result) = try_seed(seed);
        counts.add("seeds", 1);
        counts.add("crash images", tally.images);
        counts.add("of them of crashes after a crash", tally.deep_images);
        if let Err(violation) = result {
            say(&format!("after {} images of {:?}", tally.images, Workload::draw(seed)));
            std::panic::resume_unwind(violation);
        }
    });
}
