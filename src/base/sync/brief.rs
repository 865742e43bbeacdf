//! A lock for what is held for moments and hardly ever wanted by two threads at once. `sync` hands it out.
//!
//! Giving it up is a plain store, so a pair of lock and unlock costs one atomic step instead of two: that counts where each is done
//! once per operation. The price: nobody is woken, who finds it taken looks again after a while. Must never be held over I/O or
//! while waiting for anything else. A model checker puts its own lock in its place.

use super::atomic::{AtomicBool, Ordering};
use super::{sleep, yield_now};
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Looks, close together, before the thread lets others have its core.
const LOOKS: u32 = 100;
/// Further looks before it sleeps between them: the holder may be one that has less of a right to the core.
const YIELDS: u32 = 20;
const NAP: Duration = Duration::from_micros(50);

/// See the top of this file.
#[derive(Default)]
pub struct BriefLock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched through a guard alone, of which there is one at a time; so it goes from thread to thread as if sent.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for BriefLock<T> {}

impl<T> BriefLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        BriefLock { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> BriefGuard<'_, T> {
        #[cfg(test)]
        super::shaken::hesitate();
        if self.taken.swap(true, Ordering::Acquire) {
            self.wait();
        }
        BriefGuard { lock: self }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<BriefGuard<'_, T>> {
        (!self.taken.swap(true, Ordering::Acquire)).then_some(BriefGuard { lock: self })
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        while self.taken.load(Ordering::Relaxed) || self.taken.swap(true, Ordering::Acquire) {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
            } else if looks < LOOKS + YIELDS {
                yield_now();
            } else {
                looks = LOOKS;
                sleep(NAP);
            }
        }
    }
}

/// What was locked, for as long as this lives.
pub struct BriefGuard<'a, T> {
    lock: &'a BriefLock<T>,
}

// SAFETY: it shares the value and nothing else; and no guard is tied to its thread.
#[allow(unsafe_code)]
unsafe impl<T: Sync> Sync for BriefGuard<'_, T> {}

impl<T> Deref for BriefGuard<'_, T> {
    type Target = T;

    #[inline]
    #[allow(unsafe_code)]
    fn deref(&self) -> &T {
        // SAFETY: this is the one guard that there is.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for BriefGuard<'_, T> {
    #[inline]
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the one guard that there is, and it is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for BriefGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 20_000;
        let lock = BriefLock::new((0_u64, 0_u64));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for round in 0..ROUNDS {
                        let mut pair = lock.lock();
                        assert_eq!(pair.0, pair.1);
                        pair.0 += 1;
                        if round % 1024 == 0 {
                            sleep(NAP); // the others come to their naps, too
                        }
                        pair.1 += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), (THREADS * ROUNDS, THREADS * ROUNDS));
    }

    #[test]
    fn a_taken_lock_is_not_had_by_trying() {
        let lock = BriefLock::new(7);
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert_eq!(lock.try_lock().map(|value| *value), Some(7));
    }
}
