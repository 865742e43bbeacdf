//! Bugs planted in the batch layer are caught by the test that is meant to (see `native/tests/planted.rs`).

use super::tests;
use crate::base::planted::{Bug, with_planted};
use std::io::Write;
use std::time::Instant;

const NETS: [(Bug, &str, fn()); 4] = [
    (Bug::DedupKeepsOldest, "of_several_writes_to_a_key_the_last_one_stays", tests::of_several_writes_to_a_key_the_last_one_stays),
    (Bug::CallbackTwice, "puts_are_read_back_by_another_manager", tests::puts_are_read_back_by_another_manager),
    (Bug::ReadsPassAll, "reads_see_what_was_submitted_before_them", tests::reads_see_what_was_submitted_before_them),
    (Bug::LostWakeup, "whoever_waits_is_woken", tests::whoever_waits_is_woken),
];

#[test]
fn each_planted_bug_of_batches_is_caught() {
    for (bug, name, net) in NETS {
        let mut start = Instant::now();
        let caught = with_planted(Some(bug), || {
            start = Instant::now();
            net();
        })
        .is_err();
        assert!(caught, "{bug:?} was not caught by {name}");
        let line = format!("planted: {bug:?} is caught by batch::tests::{name} after {:.1} s", start.elapsed().as_secs_f64());
        let _ = writeln!(std::io::stdout(), "{line}");
        assert!(with_planted(None, net).is_ok(), "and nothing is found where nothing is planted");
    }
}
