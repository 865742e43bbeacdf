//! Locks for tests: the same locks, but a thread that asked for it hesitates now and then before it takes one.
//!
//! Between giving up one lock and taking the next is where others can come in between; left to itself that happens once in
//! a million times. `sync` puts these in the place of its locks in unit tests, and nowhere else. A thread that did not ask
//! is not held up, and nothing here may ever change what a lock does.

use crate::base::random::Random;
use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// Where this thread's chance stands; 0: it never hesitates.
    static CHANCE: Cell<u64> = const { Cell::new(0) };
}

/// Once in so many locks another thread is let in first, and once in so many of these it is given time.
const YIELD_ONE_IN: u64 = 16;
const SLEEP_ONE_IN: u64 = 12;
const SLEEP_US_MAX: u64 = 120;

/// From now on this thread, and all that it starts through `sync`, hesitate as `seed` has it; 0: no longer.
pub fn shake(seed: u64) {
    CHANCE.set(seed);
}

/// What a thread that is started now is to be shaken with.
pub fn handed_down() -> u64 {
    draw().map_or(0, |random| random | 1)
}

fn draw() -> Option<u64> {
    let chance = CHANCE.try_with(Cell::get).ok().filter(|chance| *chance != 0)?;
    let random = Random::new(chance).next_u64();
    CHANCE.set(random | 1);
    Some(random)
}

/// A place where others may come in between.
pub(super) fn hesitate() {
    let Some(random) = draw() else { return };
    if !(random >> 8).is_multiple_of(YIELD_ONE_IN) {
        return;
    }
    if (random >> 24).is_multiple_of(SLEEP_ONE_IN) {
        std::thread::sleep(Duration::from_micros((random >> 40) % SLEEP_US_MAX));
    } else {
        std::thread::yield_now();
    }
}

/// See the top of this file.
#[derive(Debug, Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Mutex(parking_lot::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        hesitate();
        self.0.lock()
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock()
    }

    /// What was locked.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// See the top of this file.
#[derive(Debug, Default)]
pub struct RwLock<T>(parking_lot::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        RwLock(parking_lot::RwLock::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        hesitate();
        self.0.read()
    }

    /// Waits until there is nobody else.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        hesitate();
        self.0.write()
    }

    /// What was locked.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

#[test]
fn who_did_not_ask_does_not_hesitate() {
    assert_eq!((draw(), handed_down()), (None, 0));
    shake(7);
    assert!(draw().is_some() && handed_down() != 0);
    shake(0);
    assert_eq!(draw(), None);
}
