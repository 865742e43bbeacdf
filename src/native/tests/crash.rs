//! Crashes: each workload is stopped in the midst of every call that changes the disk, and what is left is opened,
//! checked, used, and crashed again.
//!
//! `KVBATCH_SIM_SEEDS` says how many seeds are tried, `KVBATCH_SIM_SEED` picks one.

use super::checkpoint::{compare_with_full_replay, has_good_checkpoint};
use super::driver::{open, state_of};
use super::model::{End, KEYS, Oracle, State};
use super::workload::Workload;
use crate::base::random::Random;
use crate::io::sim::{SimDisk, Survival};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Seeds that a plain `cargo test` tries.
const SEEDS: u64 = 1000;

/// Crashes in a row: of the workload, of the recovery from that, and so on.
const DEPTH_MAX: u32 = 3;

/// What has been tried so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub seeds: u64,
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
        Exploration { workload, rng: Random::new(!seed), tally: Tally { seeds: 1, ..Tally::default() } }
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
        let state = match open(&disk, self.workload.options).and_then(|engine| state_of(&engine)) {
            Ok(state) => state,
            Err(error) => panic!("the store that {:?} left cannot be used: {error}", image.end),
        };
        image.oracle.check(&state, image.end).unwrap_or_else(|text| panic!("{text}"));
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
    let mut exploration = Exploration::new(Workload::draw(seed), seed);
    let result = catch_unwind(AssertUnwindSafe(|| exploration.explore()));
    (exploration.tally, result)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Says something even if the test passes: its figures are a part of the result.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[test]
fn simulator() {
    let start = Instant::now();
    let seeds = match number("KVBATCH_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KVBATCH_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut tally = Tally::default();
    for seed in seeds {
        let (one, result) = try_seed(seed);
        if let Err(violation) = result {
            say(&format!("simulator: violation after {} images of {:?}", one.images, Workload::draw(seed)));
            say(&format!("again: KVBATCH_SIM_SEED={seed} cargo test --lib native::tests::crash::simulator -- --nocapture"));
            std::panic::resume_unwind(violation);
        }
        tally.seeds += one.seeds;
        tally.images += one.images;
        tally.deep_images += one.deep_images;
    }
    let Tally { seeds, images, deep_images } = tally;
    let deep = format!("{deep_images} of them of crashes after a crash, {:.1} s", start.elapsed().as_secs_f64());
    say(&format!("simulator: {seeds} seeds, {images} crash images, no violation ({deep})"));
}
