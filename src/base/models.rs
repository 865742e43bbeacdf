//! Runs models of the concurrency: small programs over the crate's own parts, under a checker that chooses who goes next.
//!
//! Used by `models` beside the parts, in builds with `--cfg kv_model` (`make models`). loom tries all ways there are, with a
//! bounded number of preemptions and with all that weak memory allows; shuttle draws schedules. Each program must hold, and
//! must fail once a bug is planted: a checker that finds nothing then has looked at nothing.

use super::planted::{Bug, with_planted};
use std::io::Write;
use std::process::Command;
use std::time::Instant;

/// Tells a child process to plant this bug, by its number.
const BUG: &str = "KVBATCH_MODEL_BUG";

/// A bug, and a word of what the checker says when it meets it.
pub type Caught = (Bug, &'static str);

/// `program` holds, and meets each of `bugs` where it is planted.
pub fn holds_but_for(bugs: &[Caught], explore: impl Fn() -> usize) {
    if let Ok(planted) = std::env::var(BUG) {
        let bug = bugs.iter().map(|(bug, _)| *bug).find(|bug| planted == (*bug as u32).to_string()).expect("a bug of this test");
        with_planted(Some(bug), explore).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        return;
    }
    let thread = std::thread::current();
    let name = thread.name().expect("a test has a name");
    let begun = Instant::now();
    let ways = explore();
    let seconds = begun.elapsed().as_secs_f64();
    let mut found = Vec::new();
    for (bug, sign) in bugs {
        // In a process of its own: what a run that failed leaves behind is of no use to anybody.
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args([name, "--exact", "--nocapture"])
            .env(BUG, (*bug as u32).to_string())
            .output()
            .expect("started");
        let said = [child.stdout, child.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!child.status.success(), "{bug:?} was not caught by {name}");
        assert!(said.contains(sign), "{bug:?} was planted, and {name} failed without saying {sign:?}:\n{said}");
        found.push(format!("{bug:?}"));
    }
    let line = format!("model: {name}: {ways} ways in {seconds:.1} s; finds {}", found.join(", "));
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// All ways in which `program` can go with at most so many preemptions (`KVBATCH_MODEL_PREEMPTIONS`).
#[cfg(kv_model = "loom")]
pub fn all_ways(preemptions: usize, program: fn()) -> usize {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(number("KVBATCH_MODEL_PREEMPTIONS", preemptions));
    builder.max_branches = 20_000;
    let ways = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ways);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        super::sync::watch::forget();
        program();
    });
    ways.load(Ordering::Relaxed)
}

/// Schedules of `program`: half of them random, half by priorities that change at random. So many in all
/// (`KVBATCH_MODEL_SCHEDULES`), from `KVBATCH_MODEL_SEED` on.
#[cfg(kv_model = "shuttle")]
pub fn schedules(count: usize, program: fn()) -> usize {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, MaxSteps, Runner};

    // One at a time: what stands in statics belongs to one run.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().expect("nobody panics with it");
    let count = number("KVBATCH_MODEL_SCHEDULES", count);
    let seed = number("KVBATCH_MODEL_SEED", 1) as u64;
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.max_steps = MaxSteps::FailAfter(500_000);
    config.silence_warnings = true;
    const PRIORITY_CHANGES: usize = 3;
    let by_chance = Runner::new(RandomScheduler::new_from_seed(seed, count.div_ceil(2)), config.clone()).run(program);
    by_chance + Runner::new(PctScheduler::new_from_seed(seed, PRIORITY_CHANGES, count / 2), config).run(program)
}
