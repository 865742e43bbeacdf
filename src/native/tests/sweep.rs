//! How the large tests go through their cases: on all cores, a share in a plain `cargo test`, all of them on demand, and
//! with one command that repeats the first case that fails.
//!
//! `KVBATCH_SIM_FULL=1` asks for everything, `KVBATCH_SIM_ROUND=n` for the n-th such lot of seeds, `KVBATCH_SIM_SEED=n` picks
//! one case alone, `KVBATCH_SIM_SEEDS=n` says how many there are. Every case follows from its number alone.

use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::any::Any;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// Says something even if the test passes: its figures are a part of the result.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Whether all of it is asked for.
pub fn full() -> bool {
    number("KVBATCH_SIM_FULL").is_some_and(|full| full > 0)
}

/// What was counted, each kind under its name, in the order in which they first came.
#[derive(Clone, Debug, Default)]
pub struct Counts(Vec<(&'static str, u64)>);

impl Counts {
    /// Counts `n` more.
    pub fn add(&mut self, what: &'static str, n: u64) {
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, count)) => *count += n,
            None => self.0.push((what, n)),
        }
    }

    /// How many there were.
    pub fn of(&self, what: &str) -> u64 {
        self.0.iter().find(|(name, _)| *name == what).map_or(0, |(_, count)| *count)
    }

    fn take_over(&mut self, other: &Counts) {
        other.0.iter().for_each(|(what, n)| self.add(what, *n));
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (what, n)) in self.0.iter().enumerate() {
            write!(f, "{}{n} {what}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A test that goes through many cases.
pub struct Sweep {
    /// Its name for `cargo test --lib`.
    pub test: &'static str,
    /// What it prints its figures under.
    pub title: &'static str,
    /// Cases of a plain `cargo test`, and all of them.
    pub cases: [u64; 2],
    /// Of so many consecutive numbers a share takes one: the cases are a list, and not seeds without end.
    pub stride: u64,
}

/// A case that failed, and what it said.
type Violation = (u64, Box<dyn Any + Send>);

impl Sweep {
    /// Tries every case, counts, prints one line. The first violation prints how to see it again, and goes on as a panic.
    pub fn run(&self, try_case: impl Fn(u64, &mut Counts) + Sync) -> Counts {
        let start = Instant::now();
        let (counts, violation) = self.try_all(try_case);
        if let Some((case, violation)) = violation {
            let all = if full() { "KVBATCH_SIM_FULL=1 " } else { "" };
            say(&format!("violation in case {case} of {}, after {counts}", self.test));
            say(&format!("again: {all}KVBATCH_SIM_SEED={case} cargo test --lib {} -- --nocapture", self.test));
            resume_unwind(violation);
        }
        say(&format!("simulator: {}: {counts}, no violation ({:.1} s)", self.title, start.elapsed().as_secs_f64()));
        counts
    }

    /// The same without a word.
    pub fn try_all(&self, try_case: impl Fn(u64, &mut Counts) + Sync) -> (Counts, Option<Violation>) {
        let (cases, first) = self.cases();
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let found = Mutex::new((Counts::default(), None::<Violation>));
        let work = || {
            let mut counts = Counts::default();
            while !stop.load(Ordering::Relaxed) {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= cases {
                    break;
                }
                let case = first + at * self.stride();
                if let Err(violation) = catch_unwind(AssertUnwindSafe(|| try_case(case, &mut counts))) {
                    stop.store(true, Ordering::Relaxed);
                    found.lock().1.get_or_insert((case, violation));
                }
            }
            found.lock().0.take_over(&counts);
        };
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(cases);
            (0..threads).for_each(|_| drop(scope.spawn(work)));
        });
        found.into_inner()
    }

    fn stride(&self) -> u64 {
        if full() { 1 } else { self.stride }
    }

    /// How many cases there are, and the first.
    fn cases(&self) -> (u64, u64) {
        match number("KVBATCH_SIM_SEED") {
            Some(seed) => (1, seed),
            None => {
                let count = number("KVBATCH_SIM_SEEDS").unwrap_or(self.cases[usize::from(full())]);
                (count, number("KVBATCH_SIM_ROUND").unwrap_or(0) * self.cases[1])
            }
        }
    }
}

#[test]
fn a_violation_is_found_and_named() {
    let sweep = Sweep { test: "none", title: "none", cases: [100, 100], stride: 1 };
    let (counts, violation) = sweep.try_all(|_, counts| counts.add("cases", 1));
    assert!(violation.is_none() && counts.of("cases") == sweep.cases().0);
    let (_, violation) = sweep.try_all(|case, _| assert!(case == u64::MAX, "each case fails"));
    assert!(violation.is_some());
}
