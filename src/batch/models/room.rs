//! The whole room, threads and all: batches are submitted, cancelled, waited for and destroyed by several threads at once, also
//! from callbacks, while their manager is stopped or destroyed. Over the engine in memory.
//!
//! Judged are promises to callers only: each callback comes once and before a wait or destroy is over; what was cancelled has
//! no effect; a stop drains; all memory is given back; and nobody is left waiting.

use super::super::operation::{CompleteHook, Edge, Hook, OpKind, OpView};
use super::super::{Allocator, Context, Manager, Settings, Status};
use crate::base::code::Code;
use crate::base::models::{holds_but_for, schedules};
use crate::base::planted::Bug;
use crate::base::sync::{Arc, JoinHandle, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use std::ffi::c_void;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Mutex, Weak};

/// What callbacks have said of one batch.
#[derive(Clone, Default)]
struct Told {
    codes: Vec<Code>,
    ended: usize,
    /// What the last callback is to do.
    deed: Option<(Deed, Arc<Context>)>,
}

/// What a callback may do to its own batch and manager.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Wait,
    Destroy,
    Stop,
    Cancel,
}

/// A notebook, and no part of the model: threads of a model are never interrupted while they have it.
#[derive(Default)]
struct Notes {
    batches: Mutex<Vec<Told>>,
    /// What went against a promise, where a panic would be caught.
    wrong: Mutex<Vec<String>>,
}

static NOTES: Notes = Notes { batches: Mutex::new(Vec::new()), wrong: Mutex::new(Vec::new()) };

impl Notes {
    fn begin(&self) -> usize {
        let mut batches = self.batches.lock().expect("no panic");
        batches.push(Told::default());
        batches.len() - 1
    }

    fn of<T>(&self, batch: usize, note: impl FnOnce(&mut Told) -> T) -> T {
        note(&mut self.batches.lock().expect("no panic")[batch])
    }

    fn expect(&self, good: bool, what: impl FnOnce() -> String) {
        if !good {
            self.wrong.lock().expect("no panic").push(what());
        }
    }
}

impl Edge for Notes {
    fn op_done(&self, op: &OpView<'_>) {
        let ended = self.of(op.hook.user_data, |told| {
            told.codes.push(op.code);
            told.ended
        });
        self.expect(ended == 0, || "an operation's callback comes after that of its batch".to_owned());
        yield_now();
    }

    fn batch_done(&self, _: usize, _: usize, _: usize, hook: CompleteHook) {
        yield_now();
        let deed = self.of(hook.user_data, |told| {
            told.ended += 1;
            told.deed.take()
        });
        let Some((deed, context)) = deed else { return };
        let refused = |result: crate::base::error::Result<()>| result.is_err_and(|error| error.code == Code::INVALID_STATE);
        let good = match deed {
            Deed::Wait => refused(context.wait(60_000)),
            Deed::Stop => refused(context.manager.stop()),
            Deed::Cancel => context.cancel().is_ok(),
            Deed::Destroy => {
                context.destroy();
                true
            }
        };
        self.expect(good, || format!("{deed:?} in a callback is refused, and waits for nobody"));
    }

    fn write_out(&self, _: &Hook, _: Option<&[u8]>) {}
}

/// Blocks of a caller's allocator that were not given back.
static HELD: AtomicIsize = AtomicIsize::new(0);

#[allow(unsafe_code)]
extern "C" fn counted_alloc(len: usize) -> *mut c_void {
    HELD.fetch_add(1, Ordering::Relaxed);
    // SAFETY: any length may be asked for.
    unsafe { libc::malloc(len) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn counted_free(block: *mut c_void) {
    HELD.fetch_sub(1, Ordering::Relaxed);
    // SAFETY: it came from `counted_alloc`.
    unsafe { libc::free(block) }
}

fn draw(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

fn settings() -> Settings {
    let counted = Allocator { alloc: counted_alloc, free: counted_free };
    Settings {
        max_concurrent_batches: if draw(4) == 0 { 1 } else { 64 },
        enable_batch_fsync: draw(2) == 0,
        fsync_interval_ms: draw(2) as u32,
        fail_fast: draw(4) == 0,
        timeout_ms: u32::MAX,
        allocator: if draw(2) == 0 { counted } else { Allocator::system() },
        ..Settings::default()
    }
}

fn start() -> Arc<Manager> {
    let manager = Manager::create(settings(), b"memory:model").expect("created");
    manager.start().expect("started");
    manager
}

fn in_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<()> {
    spawn("player", move || drop(body())).expect("started")
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// What must be true of a batch's key in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Written,
    None,
}

/// One batch from its creation to its end.
fn play_batch(manager: &Arc<Manager>) -> (usize, Weak<Context>, Effect) {
    let number = NOTES.begin();
    let context = Context::create(manager, 0, &NOTES).expect("created");
    let weak = Arc::downgrade(&context);
    let hook = Hook { callback: 1, user_data: number, ..Hook::default() };
    let operations = 1 + draw(2);
    let mut result = context.add(OpKind::Put, &key(number), b"value", hook);
    if operations > 1 {
        let (kind, key): (_, &[u8]) = if draw(2) == 0 { (OpKind::Get, b"key 0") } else { (OpKind::Sync, b"") };
        result = result.and_then(|()| context.add(kind, key, b"", hook));
    }
    if draw(8) == 0 {
        context.cancel().expect("nobody has it");
    }
    if draw(4) == 0 {
        let deed = [Deed::Wait, Deed::Destroy, Deed::Stop, Deed::Cancel][draw(4)];
        NOTES.of(number, |told| told.deed = Some((deed, Arc::clone(&context))));
    }
    // A manager that is destroyed takes its batches along.
    if let Err(error) = result.and_then(|()| context.submit(CompleteHook { callback: 1, user_data: number })) {
        assert!(matches!(error.code, Code::INVALID_STATE | Code::BUSY), "{error}");
        context.destroy();
        NOTES.of(number, |told| told.deed = None);
        assert!(NOTES.of(number, |told| told.codes.is_empty() && told.ended == 0), "called back, and never submitted");
        return (number, weak, Effect::None);
    }
    let cancelled = see_to_its_end(&context, number);
    let told = NOTES.of(number, |told| told.clone());
    assert_eq!((told.ended, told.codes.len()), (1, operations), "each callback comes once, before the end is seen");
    let effect = if told.codes[0] == Code::NONE { Effect::Written } else { Effect::None };
    assert!(!cancelled || effect == Effect::None, "cancelled, and it took effect");
    let all_alike = told.codes.iter().all(|code| (*code == Code::CANCELLED) == (told.codes[0] == Code::CANCELLED));
    assert!(all_alike, "a batch is cancelled as a whole: {:?}", told.codes);
    (number, weak, effect)
}

/// Waits for the end in one way or another, with others in between. Whether a cancel claims to have come in time.
fn see_to_its_end(context: &Arc<Context>, number: usize) -> bool {
    let ended = || NOTES.of(number, |told| told.ended);
    let shared = Arc::clone(context);
    let mut helper = None;
    let mut cancelled = false;
    match draw(6) {
        0 => {
            helper = Some(in_thread(move || {
                let _ = shared.wait(u32::MAX);
                assert_eq!(NOTES.of(number, |told| told.ended), 1, "the wait is over before the last callback");
            }));
        }
        1 => helper = Some(in_thread(move || drop(shared.cancel()))),
        2 => {
            // Of one that has ended it says yes, too: nothing is left to be cancelled.
            cancelled = context.cancel().is_ok() && matches!(context.status(), Status::Completing | Status::Cancelled);
        }
        3 => {
            while ended() == 0 {
                yield_now(); // nobody waits: workers and delivery threads do it all
            }
        }
        _ => {}
    }
    if draw(3) > 0 {
        let result = context.wait(u32::MAX);
        assert_eq!(ended(), 1, "the wait is over before the last callback: {result:?}");
        assert!(context.status().is_end(), "waited for, and {:?}", context.status());
    }
    context.destroy();
    // In a callback of its own somebody else may have destroyed it; then this one waits all the same.
    assert_eq!(ended(), 1, "destroyed before the last callback");
    if let Some(helper) = helper {
        helper.join().expect("helped");
    }
    cancelled
}

/// Whether a batch's key is there.
fn effect_of(manager: &Arc<Manager>, number: usize) -> Effect {
    let look = NOTES.begin();
    let context = Context::create(manager, 0, &NOTES).expect("created");
    let hook = Hook { callback: 1, user_data: look, ..Hook::default() };
    context.add(OpKind::Get, &key(number), b"", hook).expect("added");
    context.submit(CompleteHook::default()).expect("submitted");
    context.wait(u32::MAX).expect("a miss is no failure");
    context.destroy();
    match NOTES.of(look, |told| told.codes.clone())[..] {
        [Code::NONE] => Effect::Written,
        [Code::KEY_NOT_FOUND] => Effect::None,
        ref other => panic!("{other:?}"),
    }
}

/// Some of the trouble a manager may have.
fn trouble(manager: &Arc<Manager>) {
    match draw(4) {
        0 => {
            manager.stop().expect("stopped");
            assert_eq!(manager.stats().active_batches, 0, "stopped with a batch in flight");
            manager.start().expect("started again");
        }
        1 => {
            manager.stop().expect("stopped");
            assert_eq!((manager.stats().active_batches, manager.stats().queued_operations), (0, 0), "stopped with a batch in flight");
        }
        2 => manager.destroy(),
        _ => {}
    }
}

fn room() {
    NOTES.batches.lock().expect("no panic").clear();
    // One manager has trouble; the other shares its store, and keeps it.
    let (manager, keeper) = (start(), start());
    let played = Arc::new(Mutex::new(Vec::new()));
    let player = |manager: &Arc<Manager>| {
        let (manager, played) = (Arc::clone(manager), Arc::clone(&played));
        let batches = 1 + draw(2);
        in_thread(move || {
            for _ in 0..batches {
                let end = play_batch(&manager);
                played.lock().expect("no panic").push(end);
            }
        })
    };
    let mut players = vec![player(&manager), player(if draw(2) == 0 { &manager } else { &keeper })];
    if draw(2) == 0 {
        players.push(player(&keeper));
    }
    trouble(&manager);
    players.into_iter().for_each(|player| player.join().expect("played"));
    let played = std::mem::take(&mut *played.lock().expect("no panic"));
    for (number, _, effect) in &played {
        assert_eq!(effect_of(&keeper, *number), *effect, "what callbacks said of {number} is what happened");
    }
    manager.destroy();
    for manager in [&manager, &keeper] {
        let stats = manager.stats();
        assert_eq!((stats.active_batches, stats.queued_operations, stats.current_memory_usage), (0, 0, 0), "something is left over");
    }
    keeper.destroy();
    NOTES.batches.lock().expect("no panic").clear();
    assert!(played.iter().all(|(_, context, _)| context.strong_count() == 0), "a batch is never freed");
    drop((manager, keeper));
    assert_eq!(HELD.load(Ordering::Relaxed), 0, "memory of the caller's allocator is not given back");
    let wrong = std::mem::take(&mut *NOTES.wrong.lock().expect("no panic"));
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn promises_hold_whoever_goes_first() {
    let bugs = [
        (Bug::CallbackTwice, "each callback comes once"),
        (Bug::LostWakeup, "deadlock"),
        (Bug::EndUntold, "deadlock"),
        (Bug::CancelClaimed, "cancelled, and"),
        (Bug::DestroyedInFlight, "destroyed before"),
        (Bug::MemoryKept, "left over"),
        (Bug::LandingUntold, "deadlock"),
        (Bug::StopDoesNotDrain, "in flight"),
        (Bug::DeliveryUntold, "panicked"),
        (Bug::WorkerAsleep, "panicked"),
    ];
    holds_but_for(&bugs, || schedules(60_000, room));
}
