//! Models of the hot log: readers against two that fill it.

use super::*;
use crate::base::models::{all_ways, holds_but_for};
use crate::base::planted::Bug;
use crate::base::sync::spawn;

/// Whole ranges, or nothing of them: that is what a reader finds.
fn look(hot: &HotChunk) {
    let seen = hot.read(0, 32);
    assert!([0, 16, 32].contains(&seen.len()), "a part of a range is seen");
    assert!(seen.iter().enumerate().all(|(at, byte)| *byte == 1 + at as u8 / 16), "seen before it was filled");
}

fn two_fill_one_reads() {
    let hot = HotChunk::new(4096, &Arc::default()).expect("memory");
    let mut first = hot.reserve(0, 16).expect("room");
    let mut second = hot.reserve(16, 16).expect("room");
    let fills = spawn("fills", move || {
        second.push(&[2; 16]);
        drop(second);
    });
    let shared = Arc::clone(&hot);
    let reads = spawn("reads", move || look(&shared));
    first.push(&[1; 8]);
    first.push(&[1; 8]);
    drop(first);
    look(&hot);
    fills.expect("started").join().expect("filled");
    reads.expect("started").join().expect("read");
    assert_eq!(hot.read(0, 32).len(), 32);
    look(&hot);
}

#[test]
fn readers_see_whole_ranges_in_order() {
    let bugs = [(Bug::HotWithoutOrder, "Causality"), (Bug::OpenRangeVisible, "panicked")];
    holds_but_for(&bugs, || all_ways(4, two_fill_one_reads));
}
