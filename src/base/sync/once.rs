//! A value that is made once, by whoever asks first, for all threads. `sync` hands it out.
//!
//! Like std's, but made of parking_lot's `Once`, which is compiled with this crate: ThreadSanitizer sees how one thread hands the
//! value to the others, and needs no exception. Must never show a value before it is whole.

use parking_lot::{Once, OnceState};
use std::cell::UnsafeCell;
use std::ops::Deref;

/// See the top of this file.
pub struct OnceLock<T> {
    once: Once,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written by one thread, within `once`, and only read once that is over: shared as `&T`, dropped by one owner.
#[allow(unsafe_code)]
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    /// Without a value yet.
    pub const fn new() -> Self {
        OnceLock { once: Once::new(), value: UnsafeCell::new(None) }
    }

    /// The value, if it has been made.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.once.state() == OnceState::Done { self.made() } else { None }
    }

    /// The value; `make` makes it if nobody has. Whoever comes meanwhile waits. If `make` panics, the next one tries again.
    #[inline]
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let mut make = Some(make);
        if self.once.state() != OnceState::Done {
            self.once.call_once_force(|_| self.put(make.take().map(|make| make())));
        }
        // Asks for the state once more: who has waited in `call_once_force` has the order by a fence alone, which TSan does not see.
        match self.get() {
            Some(value) => value,
            None => unreachable!("`call_once_force` ends when the value was put"),
        }
    }

    /// Has `value` be it; handed back if there is one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.once.call_once_force(|_| self.put(value.take()));
        value.map_or(Ok(()), Err)
    }

    /// Called within `once` alone.
    #[allow(unsafe_code)]
    fn put(&self, value: Option<T>) {
        // SAFETY: within `once` there is one thread, and nobody reads before it is over.
        unsafe { *self.value.get() = value };
    }

    /// Called when `once` is over.
    #[inline]
    #[allow(unsafe_code)]
    fn made(&self) -> Option<&T> {
        // SAFETY: `once` is over, so nobody writes any more; its state was read with Acquire.
        unsafe { (*self.value.get()).as_ref() }
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}

/// A value that is made when it is first looked at.
pub struct LazyLock<T> {
    value: OnceLock<T>,
    make: fn() -> T,
}

impl<T> LazyLock<T> {
    /// To be made by `make`.
    pub const fn new(make: fn() -> T) -> Self {
        LazyLock { value: OnceLock::new(), make }
    }
}

impl<T> Deref for LazyLock<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.get_or_init(self.make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_value_is_made_once_and_seen_whole() {
        let (lock, makings) = (OnceLock::new(), AtomicUsize::new(0));
        assert_eq!(lock.get(), None);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (lock, makings) = (&lock, &makings);
                scope.spawn(move || {
                    let made = lock.get_or_init(|| {
                        makings.fetch_add(1, Ordering::Relaxed);
                        vec![thread; 100]
                    });
                    assert!(made.len() == 100 && made.iter().all(|one| *one == made[0]) && lock.get() == Some(made));
                });
            }
        });
        assert_eq!(makings.into_inner(), 1);
        assert_eq!(lock.set(Vec::new()), Err(Vec::new()));
    }

    #[test]
    fn a_lazy_value_stays_what_it_was_when_first_looked_at() {
        static MAKINGS: AtomicUsize = AtomicUsize::new(0);
        let lazy = LazyLock::new(|| MAKINGS.fetch_add(1, Ordering::Relaxed));
        assert_eq!((MAKINGS.load(Ordering::Relaxed), *lazy, *lazy, MAKINGS.load(Ordering::Relaxed)), (0, 0, 0, 1));
    }

    #[test]
    fn a_panic_leaves_it_to_the_next() {
        let lock = OnceLock::new();
        assert!(catch_unwind(AssertUnwindSafe(|| lock.get_or_init(|| panic!("meant")))).is_err());
        assert_eq!((lock.get(), lock.set(7), lock.get()), (None, Ok(()), Some(&7)));
        assert_eq!((lock.set(8), lock.get_or_init(|| 9)), (Err(8), &7));
    }
}
