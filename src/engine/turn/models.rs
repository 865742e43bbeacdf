//! Models of turns: three groups, of which one is given up.

use super::*;
use crate::base::models::{all_ways, holds_but_for};
use crate::base::planted::Bug;
use crate::base::sync::spawn;

fn three_turns() {
    let line = Arc::new(Turnstile::default());
    // What was staged and published, in the order it happened. Nobody else is inside then: no lock is needed.
    let seen = Arc::new(std::sync::Mutex::new((Vec::new(), Vec::new())));
    let (mut first, second, mut third) = (line.draw(), line.draw(), line.draw());
    let gives_up = spawn("gives up", move || drop(second)).expect("started");
    let shared = Arc::clone(&seen);
    let goes_last = spawn("goes last", move || {
        third.stage(|| shared.try_lock().expect("alone").0.push(3));
        third.publish(|| shared.lock().expect("no panic").1.push(3));
    });
    first.stage(|| seen.try_lock().expect("alone").0.push(1));
    first.publish(|| seen.lock().expect("no panic").1.push(1));
    goes_last.expect("started").join().expect("published");
    gives_up.join().expect("given up");
    assert_eq!(*seen.lock().expect("no panic"), (vec![1, 3], vec![1, 3]));
}

#[test]
fn who_gives_up_a_turn_lets_the_next_one_in() {
    holds_but_for(&[(Bug::TurnKept, "deadlock")], || all_ways(4, three_turns));
}

fn alone() {
    let line = Arc::new(Turnstile::default());
    let published = Arc::new(crate::base::sync::atomic::AtomicUsize::new(0));
    let (mut first, mut second) = (line.draw(), line.draw());
    let shared = Arc::clone(&published);
    let other = spawn("publishes", move || {
        first.stage(|| ());
        first.publish(|| shared.store(1, crate::base::sync::atomic::Ordering::Relaxed));
    });
    second.stage_alone(|| assert_eq!(published.load(crate::base::sync::atomic::Ordering::Relaxed), 1, "sees what was, not what will be"));
    drop(second);
    other.expect("started").join().expect("published");
}

#[test]
fn who_stages_alone_sees_all_that_was_published() {
    holds_but_for(&[(Bug::AloneTooEarly, "sees what was")], || all_ways(4, alone));
}
