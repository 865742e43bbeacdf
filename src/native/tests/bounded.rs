//! Bounded exhaustive: every program of at most three steps, on an empty store and on one with a past, crashed at every
//! call of its last step, with every combination of what a power cut may leave of what was not durable.
//!
//! Shorter programs are the beginnings of longer ones, so a crash in an earlier step is the crash of another program.

use super::driver::{Batch, Driver, open, state_of};
use super::model::{End, KEYS, Oracle, State, value_bytes};
use super::sweep::{Counts, Sweep};
use crate::base::random::Random;
use crate::io::sim::{Faults, SimDisk, Survival};
use crate::native::Options;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
enum Verb {
    Put,
    Delete,
    Batch,
    Sync,
    Rotate,
    Checkpoint,
    Compact,
    Reopen,
}

const VERBS: [Verb; 8] = [Verb::Put, Verb::Delete, Verb::Batch, Verb::Sync, Verb::Rotate, Verb::Checkpoint, Verb::Compact, Verb::Reopen];

/// Programs of one, two and three steps.
const PROGRAMS: u64 = 8 + 64 + 512;

/// Pieces that arrive or not: up to so many, every combination is tried; beyond, as many combinations by chance.
const PIECES_MAX: usize = 10;

const SWEEP: Sweep = Sweep {
    test: "native::tests::bounded::every_short_program_survives_every_crash",
    title: "bounded exhaustive",
    cases: [2 * PROGRAMS / 3, 2 * PROGRAMS],
    stride: 3, // no factor of 8: the share has every verb in every place
};

fn options() -> Options {
    super::workload::options(64 << 10, 0)
}

/// A store that begins with what `case` says.
struct Program {
    /// Whether the store has a past.
    aged: bool,
    verbs: Vec<Verb>,
}

impl Program {
    fn of(case: u64) -> Program {
        let mut number = case % PROGRAMS;
        let mut len = 1;
        while number >= 8_u64.pow(len) {
            number -= 8_u64.pow(len);
            len += 1;
        }
        let verbs = (0..len).map(|at| VERBS[(number / 8_u64.pow(at) % 8) as usize]).collect();
        Program { aged: case / PROGRAMS % 2 == 1, verbs }
    }

    /// The disk it begins on, and what is on it.
    fn start(&self) -> (SimDisk, State) {
        let disk = SimDisk::new(1, Faults::default());
        if !self.aged {
            return (disk, [0; KEYS]);
        }
        let mut steps = Steps { version: 1000 };
        let mut driver = Driver::open(&disk, options(), [0; KEYS]).unwrap();
        for verb in
            [Verb::Batch, Verb::Rotate, Verb::Put, Verb::Delete, Verb::Rotate, Verb::Batch, Verb::Compact, Verb::Batch, Verb::Checkpoint]
        {
            steps.perform(&mut driver, verb);
        }
        driver.check_errors(false);
        (disk.crash_image(&mut Random::new(1), Survival::NOTHING), driver.oracle.visible)
    }

    /// Performs the program on `disk`, and says how many steps the disk had done before the last verb.
    fn run(&self, disk: &SimDisk, base: State) -> (Oracle, u64) {
        let mut driver = match Driver::open(disk, options(), base) {
            Err(_) if disk.crashed() => return (Oracle::new(base), 0),
            opened => opened.unwrap(),
        };
        let mut steps = Steps { version: 0 };
        let mut before = 0;
        for (at, verb) in self.verbs.iter().enumerate() {
            before = if at == 0 { 0 } else { disk.steps() };
            if disk.crashed() || driver.shut {
                break;
            }
            steps.perform(&mut driver, *verb);
        }
        if !disk.crashed() {
            driver.check_errors(false);
        }
        (driver.oracle, before)
    }
}

struct Steps {
    version: u32,
}

impl Steps {
    /// The next version whose value for `key` is short: a record fits into a sector or two.
    fn next_version(&mut self, key: usize) -> u32 {
        self.version = (self.version + 1..).find(|version| value_bytes(key, *version).len() < 200).unwrap();
        self.version
    }

    fn perform(&mut self, driver: &mut Driver, verb: Verb) {
        match verb {
            Verb::Put => drop(driver.commit(false, &[(0, self.next_version(0))])),
            Verb::Delete => drop(driver.commit(false, &[(0, 0)])),
            Verb::Batch => {
                let hasher = driver.engine.hasher;
                let first = vec![(0, self.next_version(0)), (1, self.next_version(1))];
                let second = vec![(2, self.next_version(2)), (1, 0)];
                driver.stage(vec![Batch::new(&hasher, true, first, Vec::new()), Batch::new(&hasher, false, second, Vec::new())]);
                driver.settle();
            }
            Verb::Sync => {
                driver.stage_sync();
                driver.settle();
                driver.stage_beat(); // comes by itself when nothing else does
                driver.settle();
            }
            Verb::Rotate => {
                driver.engine.log.make_next(); // a chunk that says all is begun behind a reopening
                driver.engine.log.end_chunk();
            }
            Verb::Checkpoint => driver.checkpoint(&mut Random::new(1), VecDeque::new()),
            Verb::Compact => driver.compact(100),
            Verb::Reopen => {
                driver.engine.lock.lock().take(); // as if the process had gone
                reopen(driver);
            }
        }
    }
}

fn reopen(driver: &mut Driver) {
    if !driver.disk.crashed() {
        driver.reopen(options()).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Calls `make` with every series of answers it can ask for, if these are not too many; else with some.
fn each_combination(rng: &mut Random, mut make: impl FnMut(&mut dyn FnMut() -> bool)) {
    let mut pieces = 0;
    make(&mut || {
        pieces += 1;
        true
    });
    if pieces > PIECES_MAX {
        make(&mut || false);
        for _ in 2..1 << PIECES_MAX {
            let most = rng.one_in(2);
            make(&mut || rng.one_in(8) != most);
        }
        return;
    }
    // A series is counted up like a number; a question more or less on the way does no harm.
    let mut answers: Vec<bool> = Vec::new();
    loop {
        let mut asked = 0;
        make(&mut || {
            if asked == answers.len() {
                answers.push(false);
            }
            asked += 1;
            answers[asked - 1]
        });
        answers.truncate(asked);
        while answers.last() == Some(&true) {
            answers.pop();
        }
        match answers.last_mut() {
            Some(last) => *last = true,
            None => return,
        }
    }
}

/// Opens what is left; now and then goes on from there, and cuts the power once more.
fn look(disk: &SimDisk, oracle: &Oracle, end: End, go_on: bool) {
    let engine = open(disk, options()).unwrap_or_else(|error| panic!("the store that {end:?} left cannot be used: {error}"));
    let state = state_of(&engine).unwrap_or_else(|error| panic!("{error}"));
    oracle.check(&state, end).unwrap_or_else(|text| panic!("{text}"));
    if go_on {
        drop(engine);
        let again = disk.crash_image_of(&mut || false);
        assert_eq!(open(&again, options()).and_then(|engine| state_of(&engine)).as_ref(), Ok(&state), "what was seen stays");
        let mut driver = Driver::open(&again, options(), state).unwrap();
        driver.commit(true, &[(3, 1 << 20)]).unwrap();
        let again = again.crash_image_of(&mut || false);
        assert_eq!(open(&again, options()).and_then(|engine| state_of(&engine)), Ok(driver.oracle.visible));
    }
}

pub fn try_program(case: u64, counts: &mut Counts) {
    let program = Program::of(case);
    let (start, base) = program.start();
    let whole = start.twin();
    let (oracle, before) = program.run(&whole, base);
    let mut rng = Random::new(case);
    let mut each = 0_u64;
    let mut look_at = |disk: &SimDisk, oracle: &Oracle, end: End, counts: &mut Counts| {
        each += 1;
        look(disk, oracle, end, each.is_multiple_of(16));
        counts.add("states", 1);
    };
    for step in before + 1..=whole.steps() {
        let disk = start.twin();
        disk.crash_at(step);
        let (oracle, _) = program.run(&disk, base);
        assert!(disk.crashed(), "the same program takes the same steps");
        each_combination(&mut rng, |keeps| look_at(&disk.crash_image_of(keeps), &oracle, End::PowerCut, counts));
        for _ in 0..4 {
            look_at(&disk.kill_image(), &oracle, End::Kill, counts);
        }
        counts.add("crashes", 1);
    }
    each_combination(&mut rng, |keeps| look_at(&whole.crash_image_of(keeps), &oracle, End::PowerCut, counts));
    look_at(&whole.kill_image(), &oracle, End::Kill, counts);
    counts.add("programs", 1);
}

#[test]
fn every_short_program_survives_every_crash() {
    SWEEP.run(try_program);
}

#[test]
fn all_combinations_are_tried_and_none_twice() {
    let mut seen = Vec::new();
    each_combination(&mut Random::new(1), |keeps| {
        let first = keeps();
        let rest: Vec<bool> = (0..if first { 3 } else { 1 }).map(|_| keeps()).collect();
        seen.push((first, rest));
    });
    seen.remove(0); // the count of pieces
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((all, seen.len()), (10, 10));
    assert!(matches!(Program::of(PROGRAMS - 1).verbs[..], [Verb::Reopen, Verb::Reopen, Verb::Reopen]));
    assert!(matches!(Program::of(PROGRAMS + 8).verbs[..], [Verb::Put, Verb::Put]) && Program::of(PROGRAMS).aged);
}
