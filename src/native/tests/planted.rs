//! Nets that catch nothing prove nothing: with each planted bug, the simulator must find a violation, and soon.
//!
//! A bug is planted for the whole process, so no other test may run meanwhile:
//! `cargo test --features planted --lib native::tests::planted`.

use super::crash::{say, try_seed};
use crate::base::planted::{Bug, plant};

/// Seeds that are tried with each bug.
const SEEDS: u64 = 20;

#[test]
fn each_planted_bug_is_caught() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let bugs = [
        Bug::AckBeforeSync,
        Bug::SkipDirectorySync,
        Bug::AcceptZeroTail,
        Bug::IgnoreShortWrite,
        Bug::ApplyHalfBatch,
        Bug::CheckpointBeyondLog,
        Bug::CheckpointOnlyCopy,
    ];
    let caught = bugs.map(|bug| {
        plant(Some(bug));
        let results: Vec<_> = (0..SEEDS).map(try_seed).collect();
        plant(None);
        (bug, results)
    });
    std::panic::set_hook(loud);
    for (bug, results) in &caught {
        let found = results.iter().filter(|(_, result)| result.is_err()).count();
        let images: u64 = results.iter().map(|(tally, _)| tally.images).sum();
        say(&format!("planted: {bug:?} is caught by {found} of {SEEDS} seeds, after {} crash images on average", images / SEEDS));
        for (_, violation) in results.iter().filter_map(|(tally, result)| Some((tally, result.as_ref().err()?))).take(1) {
            let text = violation.downcast_ref::<String>().map_or("a failed assertion", String::as_str);
            say(&format!("         {}", text.lines().next().unwrap_or("")));
        }
        assert!(found > 0, "a planted bug was not caught");
    }
    let (_, result) = try_seed(0);
    assert!(result.is_ok(), "and nothing is found where nothing is planted");
}
