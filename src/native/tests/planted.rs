//! Nets that catch nothing prove nothing: each planted bug is caught by the test that is meant to, and soon.
//!
//! A bug is planted for the whole process, so no other test may run meanwhile:
//! `cargo test --features planted --lib planted::`.

use super::sweep::{Counts, say};
use super::{bounded, calls, compaction, compound, crash, faults, found, rot};
use crate::base::planted::{Bug, with_planted};
use std::panic::resume_unwind;
use std::time::Instant;

/// A part of a large test: seeds enough to catch what it is meant to catch.
fn some(seeds: impl Iterator<Item = u64>, try_case: impl Fn(u64, &mut Counts)) {
    seeds.for_each(|seed| try_case(seed, &mut Counts::default()));
}

fn simulator() {
    some(0..20, |seed, _| crash::try_seed(seed).1.unwrap_or_else(|violation| resume_unwind(violation)));
}

fn failing_calls() {
    some(0..6, calls::try_workload);
}

fn every_program() {
    some((0..1168).step_by(21), bounded::try_program);
}

fn misfortunes() {
    some(0..12, compound::try_seed);
}

fn rotten_stores() {
    some((0..256).step_by(37), rot::try_part);
}

/// Every net, and what it is called.
const NETS: &[(&str, fn())] = &[
    ("crash::simulator", simulator),
    ("calls::every_call_fails_in_every_way", failing_calls),
    ("bounded::every_short_program_survives_every_crash", every_program),
    ("compound::one_misfortune_after_another", misfortunes),
    ("rot::every_damage_is_refused_or_harmless", rotten_stores),
];

#[test]
fn discovery() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let small: &[(&str, fn())] = &[
        ("faults::opening", faults::a_failure_while_opening_refuses_and_changes_nothing),
        ("faults::after_a_failed_sync", faults::after_a_failed_sync_nothing_is_written_and_reads_go_on),
        ("faults::room", faults::writes_come_back_when_there_is_room),
        ("faults::read", faults::what_cannot_be_read_concerns_its_reader_only),
        ("faults::hash", faults::another_key_under_the_same_hash_is_not_given),
        ("faults::place", faults::a_good_record_at_a_wrong_place_is_not_given),
        ("found::gap", found::what_lies_in_a_gap_says_nothing),
        ("found::sync", found::writing_behind_a_sync_spoils_nothing_before_it),
        ("found::cut", found::a_cut_that_was_seen_stays),
        ("found::cache", found::nothing_depends_on_what_only_the_cache_holds),
        ("found::cut that may", found::nothing_is_written_behind_a_cut_that_may_be_on_the_disk),
        ("found::moved", found::what_compaction_has_moved_is_missed),
        ("compaction::newer", compaction::a_newer_write_is_not_moved_over),
        ("compaction::delete", compaction::a_delete_is_kept_while_an_older_chunk_is_there),
        ("compaction::damaged", compaction::a_damaged_chunk_is_kept),
        ("compaction::readers", compaction::readers_keep_their_chunks),
    ];
    for bug in 1..36 {
        let bug: Bug = Bug::ALL[bug - 1];
        for (name, net) in small.iter().chain(NETS) {
            let start = Instant::now();
            if let Err(v) = with_planted(bug, net) {
                let text = v.downcast_ref::<String>().map_or("a failed assertion", String::as_str).lines().next().unwrap_or("").to_owned();
                say(&format!("planted: {bug:?} is caught by {name} after {:.2} s: {text}", start.elapsed().as_secs_f64()));
            }
        }
    }
    std::panic::set_hook(loud);
}
