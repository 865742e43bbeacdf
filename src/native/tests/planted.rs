//! Nets that catch nothing prove nothing: each planted bug is caught by the test that is meant to, and soon.
//!
//! A bug is planted for the whole process, so no other test may run meanwhile:
//! `cargo test --features planted --lib planted::`.

use super::sweep::{Counts, say};
use super::{bounded, calls, compaction, compound, crash, faults, found, histories, next, reuse, rot};
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
    some(0..60, compound::try_seed);
}

fn rotten_stores() {
    some((0..256).step_by(37), rot::try_part);
}

fn many_threads() {
    some(0..2000, histories::try_calls);
}

/// A large test, and a part of it.
type Part = (&'static str, fn());

/// A bug, the test that is meant to catch it, and a part of that test that does.
type Net = (Bug, &'static str, fn());

const SIMULATOR: Part = ("crash::simulator", simulator);
const CALLS: Part = ("calls::every_call_fails_in_every_way", failing_calls);
const PROGRAMS: Part = ("bounded::every_short_program_survives_every_crash", every_program);
const COMPOUND: Part = ("compound::one_misfortune_after_another", misfortunes);
const ROT: Part = ("rot::every_damage_is_refused_or_harmless", rotten_stores);

const HISTORIES: Part = ("histories::many_threads_agree", many_threads);

/// Caught by the large tests: most of these by several of them.
const BY_SWEEPS: [(Bug, Part); 29] = [
    (Bug::AckBeforeSync, PROGRAMS),
    (Bug::SkipDirectorySync, PROGRAMS),
    (Bug::AcceptZeroTail, ROT),
    (Bug::IgnoreShortWrite, CALLS),
    (Bug::ApplyHalfBatch, SIMULATOR),
    (Bug::CheckpointBeyondLog, PROGRAMS),
    (Bug::CheckpointOnlyCopy, SIMULATOR),
    (Bug::FollowersSucceed, CALLS),
    (Bug::RemainderNotDurable, SIMULATOR),
    (Bug::WatermarkTooHigh, SIMULATOR),
    (Bug::AppendToTornTail, COMPOUND),
    (Bug::ReuseChunkNumber, PROGRAMS),
    (Bug::LeftoversRemovedEarly, SIMULATOR),
    (Bug::ApplyFailsAfterWrite, COMPOUND),
    (Bug::HeaderSumIgnored, ROT),
    (Bug::StopSilently, ROT),
    (Bug::TrustTheCache, COMPOUND),
    (Bug::ManifestBeforeSync, PROGRAMS),
    (Bug::ManifestNotSynced, CALLS),
    (Bug::UnlinkBeforeManifest, COMPOUND),
    (Bug::ManifestWithoutWitness, ROT),
    (Bug::DictionaryNotSynced, SIMULATOR),
    (Bug::DictionaryUnnamed, SIMULATOR),
    (Bug::CutForgotten, HISTORIES),
    (Bug::CompactionTooEarly, HISTORIES),
    (Bug::VisibleInParts, HISTORIES),
    (Bug::ManifestCoversMore, HISTORIES),
    (Bug::NextUnsynced, PROGRAMS),
    (Bug::FileReusedEarly, SIMULATOR),
];

/// Caught by a test of its own kind.
const BY_STORIES: [Net; 14] = [
    (Bug::RetryFailedSync, "faults::after_a_failed_sync_...", faults::after_a_failed_sync_nothing_is_written_and_reads_go_on),
    (Bug::SharedBlock, "found::writing_behind_a_sync_...", found::writing_behind_a_sync_spoils_nothing_before_it),
    (Bug::FailedGroupVisible, "faults::writes_come_back_when_there_is_room", faults::writes_come_back_when_there_is_room),
    (Bug::SumWithoutPlace, "faults::a_good_record_at_a_wrong_place_...", faults::a_good_record_at_a_wrong_place_is_not_given),
    (Bug::KeyNotCompared, "faults::another_key_under_the_same_hash_...", faults::another_key_under_the_same_hash_is_not_given),
    (Bug::ReadErrorIsEnd, "faults::a_failure_while_opening_...", faults::a_failure_while_opening_refuses_and_changes_nothing),
    (Bug::TombstoneDropped, "compaction::a_delete_is_kept_...", compaction::a_delete_is_kept_while_an_older_chunk_is_there),
    (Bug::CompactionOverNewer, "compaction::a_newer_write_is_not_moved_over", compaction::a_newer_write_is_not_moved_over),
    (Bug::DamagedChunkDeleted, "compaction::a_damaged_chunk_is_kept", compaction::a_damaged_chunk_is_kept),
    (Bug::NextInSpiteOfCut, "next::behind_a_cut_...", next::behind_a_cut_the_next_header_says_so),
    (Bug::ReadOnFromCache, "found::much_in_doubt_...", found::much_in_doubt_is_read_from_the_disk),
    (Bug::FileReusedWhileRead, "reuse::who_reads_...", reuse::who_reads_from_a_file_keeps_it),
    (Bug::LinkedFileReused, "reuse::a_file_that_a_backup_has_...", reuse::a_file_that_a_backup_has_too_is_left_alone),
    (Bug::PinIgnored, "compaction::readers_keep_their_chunks", compaction::readers_keep_their_chunks),
];

/// Plants the bug; the net has to catch it. The figures are a part of the result.
fn check((bug, name, net): Net) {
    let mut start = Instant::now();
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = with_planted(Some(bug), || {
        start = Instant::now();
        net();
    });
    std::panic::set_hook(loud);
    let Err(violation) = result else { panic!("{bug:?} was not caught by {name}") };
    let text = violation.downcast_ref::<String>().map_or("a failed assertion", String::as_str);
    say(&format!("planted: {bug:?} is caught by {name} after {:.1} s", start.elapsed().as_secs_f64()));
    say(&format!("         {:.160}", text.lines().next().unwrap_or("")));
}

#[test]
fn each_planted_bug_is_caught() {
    BY_SWEEPS.into_iter().map(|(bug, (name, net))| (bug, name, net)).chain(BY_STORIES).for_each(check);
    let found = BY_STORIES.iter().map(|(_, _, net)| *net).chain([simulator as fn(), every_program]);
    found.for_each(|net| assert!(with_planted(None, net).is_ok(), "and nothing is found where nothing is planted"));
}
