//! The checker's locks, atomics and threads, with the manners of those they stand in for.
//!
//! `sync` puts these in the place of its own under `--cfg kv_model`. Locks make the checker's object when they are first
//! touched, so that they can stand in a static; one that stands there must not be touched by more than one run of a loom model.
//! Numbers are made where they are declared: loom minds who gave one its first value.
//! A wait with a limit of time may end at any moment, as it may on a machine that is busy.

#[cfg(kv_model = "loom")]
pub use loom as checker;
#[cfg(kv_model = "shuttle")]
pub use shuttle as checker;

pub use checker::thread::{JoinHandle, yield_now};
#[cfg(kv_model = "shuttle")]
pub(crate) use checker::thread_local;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// In the place of std's; loom's does not know `const`.
#[cfg(kv_model = "loom")]
macro_rules! thread_local_of_loom {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = const { $initial:expr };)*) => {
        loom::thread_local! { $($(#[$attribute])* static $name: $type = $initial;)* }
    };
}
#[cfg(kv_model = "loom")]
pub(crate) use thread_local_of_loom as thread_local;

/// A value of the checker, made when it is first touched.
#[derive(Debug, Default)]
struct Late<T, C> {
    initial: std::sync::Mutex<Option<T>>,
    made: OnceLock<C>,
}

impl<T, C> Late<T, C> {
    const fn new(value: T) -> Self {
        Late { initial: std::sync::Mutex::new(Some(value)), made: OnceLock::new() }
    }

    #[cfg(kv_model = "loom")]
    fn made(value: C) -> Self {
        Late { initial: std::sync::Mutex::new(None), made: OnceLock::from(value) }
    }

    fn get(&self, make: impl FnOnce(T) -> C) -> &C {
        self.made.get_or_init(|| match self.initial.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(initial) => make(initial),
            None => unreachable!("it is made once"),
        })
    }

    fn into_either(self) -> Result<C, Option<T>> {
        self.made.into_inner().ok_or(self.initial.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// In the place of parking_lot's.
#[derive(Debug)]
pub struct Mutex<T>(Late<T, checker::sync::Mutex<T>>);

/// In the place of parking_lot's.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only while a condition is waited for.
    held: Option<checker::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Mutex(Late::new(value))
    }

    fn take(&self) -> checker::sync::MutexGuard<'_, T> {
        self.0.get(checker::sync::Mutex::new).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.take()) }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.get(checker::sync::Mutex::new).try_lock() {
            Ok(held) => Some(MutexGuard { mutex: self, held: Some(held) }),
            Err(TryLockError::Poisoned(held)) => Some(MutexGuard { mutex: self, held: Some(held.into_inner()) }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What was locked.
    pub fn into_inner(self) -> T {
        match self.0.into_either() {
            Ok(made) => made.into_inner().unwrap_or_else(PoisonError::into_inner),
            Err(Some(initial)) => initial,
            Err(None) => unreachable!("it is made of the initial value"),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.held {
            Some(held) => held,
            None => unreachable!("nobody looks while a condition is waited for"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.held {
            Some(held) => held,
            None => unreachable!("nobody looks while a condition is waited for"),
        }
    }
}

/// In the place of parking_lot's.
#[derive(Debug)]
pub struct RwLock<T>(Late<T, checker::sync::RwLock<T>>);

pub use checker::sync::{RwLockReadGuard, RwLockWriteGuard};

impl<T> RwLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        RwLock(Late::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.get(checker::sync::RwLock::new).read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is nobody else.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.get(checker::sync::RwLock::new).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was locked.
    pub fn into_inner(self) -> T {
        match self.0.into_either() {
            Ok(made) => made.into_inner().unwrap_or_else(PoisonError::into_inner),
            Err(Some(initial)) => initial,
            Err(None) => unreachable!("it is made of the initial value"),
        }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

/// In the place of parking_lot's: no wake-up without a reason, and those who wait are woken in the order they came.
#[derive(Debug, Default)]
pub struct Condvar {
    sleepers: std::sync::Mutex<VecDeque<Arc<Sleeper>>>,
    /// Tells loom that it makes a difference who comes to the list first; it puts nothing in order.
    #[cfg(kv_model = "loom")]
    touched: loom::sync::atomic::AtomicUsize,
}

struct Sleeper {
    thread: checker::thread::Thread,
    woken: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sleeper")
    }
}

/// How a wait with a limit of time ended.
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether nobody has woken it.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// With nobody waiting.
    pub fn new() -> Self {
        Condvar::default()
    }

    // All threads of a model are one thread of the system: what is done to the list is never interrupted, and what the
    // notified one has seen is put in order by the mutex.
    fn sleepers(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Sleeper>>> {
        #[cfg(kv_model = "loom")]
        self.touched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) -> Arc<Sleeper> {
        let sleeper = Arc::new(Sleeper { thread: checker::thread::current(), woken: false.into() });
        self.sleepers().push_back(Arc::clone(&sleeper));
        sleeper
    }

    /// Gives the lock up until somebody wakes this thread.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let sleeper = self.join();
        guard.held = None;
        while !sleeper.is_woken() {
            checker::thread::park();
        }
        guard.held = Some(guard.mutex.take());
    }

    /// Gives the lock up until somebody wakes this thread, or the time is over.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _limit: Duration) -> WaitTimeoutResult {
        let sleeper = self.join();
        guard.held = None;
        loop {
            yield_now();
            if sleeper.is_woken() || loses_patience() {
                break;
            }
        }
        self.sleepers().retain(|other| !Arc::ptr_eq(other, &sleeper));
        guard.held = Some(guard.mutex.take());
        WaitTimeoutResult(!sleeper.is_woken())
    }

    /// The same until a moment.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _end: Instant) -> WaitTimeoutResult {
        self.wait_for(guard, Duration::ZERO)
    }

    /// Wakes one, if there is one.
    pub fn notify_one(&self) -> bool {
        let first = self.sleepers().pop_front();
        first.is_some_and(|sleeper| sleeper.wake())
    }

    /// Wakes all there are.
    pub fn notify_all(&self) -> usize {
        let all = std::mem::take(&mut *self.sleepers());
        all.iter().filter(|sleeper| sleeper.wake()).count()
    }
}

impl Sleeper {
    fn is_woken(&self) -> bool {
        self.woken.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn wake(&self) -> bool {
        self.woken.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.unpark();
        true
    }
}

/// Whether the time of a wait is over, as the checker has it.
fn loses_patience() -> bool {
    #[cfg(kv_model = "shuttle")]
    {
        use shuttle::rand::Rng;
        return shuttle::rand::thread_rng().gen_ratio(1, 4);
    }
    #[cfg(kv_model = "loom")]
    true
}

/// Time means nothing to a model: others are let in.
pub fn sleep(_: Duration) {
    yield_now();
}

/// In the place of std's: stacks are the checker's business.
pub struct ThreadBuilder(checker::thread::Builder);

impl ThreadBuilder {
    /// A thread without a name.
    pub fn new() -> Self {
        ThreadBuilder(checker::thread::Builder::new())
    }

    /// Names it.
    pub fn name(self, name: String) -> Self {
        ThreadBuilder(self.0.name(name))
    }

    /// See the type.
    pub fn stack_size(self, _: usize) -> Self {
        self
    }

    /// Starts it.
    pub fn spawn<T: Send + 'static>(self, body: impl FnOnce() -> T + Send + 'static) -> std::io::Result<JoinHandle<T>> {
        self.0.spawn(body)
    }
}

/// In the place of `std::sync::atomic`.
pub mod atomic {
    use super::{Late, checker};
    pub use checker::sync::atomic::{Ordering, fence};
    use std::ops::Deref;

    macro_rules! atomics {
        ($($name:ident: $plain:ty,)*) => { $(
            /// In the place of std's.
            #[derive(Debug)]
            pub struct $name(Late<$plain, checker::sync::atomic::$name>);

            impl $name {
                /// With a value to begin with.
                #[cfg(kv_model = "loom")]
                pub fn new(value: $plain) -> Self {
                    $name(Late::made(checker::sync::atomic::$name::new(value)))
                }

                /// With a value to begin with.
                #[cfg(kv_model = "shuttle")]
                pub const fn new(value: $plain) -> Self {
                    $name(Late::new(value))
                }

                /// What it came to.
                pub fn into_inner(self) -> $plain {
                    match self.0.into_either() {
                        Ok(made) => made.load(Ordering::SeqCst),
                        Err(initial) => initial.unwrap_or_default(),
                    }
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    $name::new(<$plain>::default())
                }
            }

            impl Deref for $name {
                type Target = checker::sync::atomic::$name;
                fn deref(&self) -> &Self::Target {
                    self.0.get(checker::sync::atomic::$name::new)
                }
            }
        )* };
    }

    atomics! {
        AtomicBool: bool,
        AtomicU8: u8,
        AtomicI32: i32,
        AtomicU32: u32,
        AtomicU64: u64,
        AtomicUsize: usize,
    }

    /// In the place of std's.
    #[derive(Debug)]
    pub struct AtomicPtr<T>(std::sync::OnceLock<checker::sync::atomic::AtomicPtr<T>>);

    impl<T> AtomicPtr<T> {
        /// That points nowhere: nothing else is asked for.
        pub const fn new(_null: *mut T) -> Self {
            AtomicPtr(std::sync::OnceLock::new())
        }
    }

    impl<T> Deref for AtomicPtr<T> {
        type Target = checker::sync::atomic::AtomicPtr<T>;
        fn deref(&self) -> &Self::Target {
            self.0.get_or_init(|| checker::sync::atomic::AtomicPtr::new(std::ptr::null_mut()))
        }
    }
}
