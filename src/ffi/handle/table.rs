//! The table behind handles: slots that are never given back, pinned while somebody works with what is in them.
//!
//! Called by `handle` alone, in every export. All of it is lock-free but for the list of free slots, and modelled: whatever
//! changes here, `models` beside it tries all ways it can go. Must never follow a token.

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::planted::{Bug, order, planted};
use crate::base::random::{Random, secret_u64};
use crate::base::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::base::sync::{Mutex, OnceLock, watch};
use crate::batch;
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

/// The kinds that a token can be of.
const KINDS: [usize; 4] = [3, 5, 6, 7];

// A token, from the top: kind (4 bits), generation (32), index (24), 0 (4).
const KIND_SHIFT: u32 = 60;
const GENERATION_SHIFT: u32 = 28;
const INDEX_SHIFT: u32 = 4;
const INDEX_MASK: usize = (1 << 24) - 1;
const _: () = assert!(usize::BITS == 64 && INDEX_SHIFT + 24 == GENERATION_SHIFT && GENERATION_SHIFT + 32 == KIND_SHIFT);

// A slot's state, from the top: generation (32 bits), ENDING, OPEN, pins (30).
//   free: neither;  open: OPEN;  being destroyed, still answering: OPEN and ENDING;  goes with its last pin: ENDING.
const OPEN: u64 = 1 << 30;
const ENDING: u64 = 1 << 31;
const PINS: u64 = OPEN - 1;
const GENERATION: u64 = 0xffff_ffff << 32;

/// Slots of the first segment; each further one is twice as long, so that slots never move.
const FIRST: usize = if cfg!(kv_model = "loom") { 1 } else { 64 };
const SEGMENTS: usize = 18;
const _: () = assert!(FIRST * ((1 << SEGMENTS) - 1) <= INDEX_MASK + 1, "every index fits into a token");

/// On a cache line of its own: threads that fill different batches must not slow each other down.
#[repr(align(64))]
struct Slot<T, B: 'static> {
    state: AtomicU64,
    /// Touched while OPEN by those who hold a pin, else only by the one who changes the state from or to free.
    object: UnsafeCell<Option<Arc<T>>>,
    /// What was last laid beside an object here; null: nothing yet.
    beside: AtomicPtr<B>,
    /// Index + 1 of the next free slot; used while this one is free, under the lock.
    next_free: AtomicU32,
}

struct Free {
    /// Index + 1 of the first free slot; 0: none.
    head: u32,
    /// Slots that were ever used.
    used: usize,
}

/// See the top of this file. Beside each object may lie something that lives for ever: who asks for that needs no pin.
pub(super) struct Table<T: 'static, B: 'static = ()> {
    kind: usize,
    segments: [AtomicPtr<Slot<T, B>>; SEGMENTS],
    free: Mutex<Free>,
}

// SAFETY: objects go in by value, come out as shared references to several threads, and may be dropped by any of them:
// `Arc<T>` asks for `Send + Sync` and no more; what lies beside them is shared. All else is atomic or under the lock.
unsafe impl<T: Send + Sync, B: Sync> Sync for Table<T, B> {}

impl<T: Send + Sync, B: Sync> Table<T, B> {
    pub(super) const fn new(kind: usize) -> Self {
        Table { kind, segments: [const { AtomicPtr::new(ptr::null_mut()) }; SEGMENTS], free: Mutex::new(Free { head: 0, used: 0 }) }
    }

    /// Has this thread be the first that looks, before a model begins.
    #[cfg(all(test, kv_model = "loom"))]
    pub(super) fn touch(&'static self) {
        assert!(self.segments.iter().take(3).all(|start| start.load(Ordering::Relaxed).is_null()));
    }

    /// Segment and place in it.
    #[inline(always)]
    fn locate(index: usize) -> (usize, usize) {
        let shifted = index + FIRST;
        let segment = (shifted.ilog2() - FIRST.ilog2()) as usize;
        (segment, shifted - (FIRST << segment))
    }

    #[inline(always)]
    fn slot(&'static self, index: usize) -> Option<&'static Slot<T, B>> {
        let (segment, place) = Self::locate(index);
        let start = self.segments.get(segment)?.load(Ordering::Acquire);
        watch::read(start);
        // SAFETY: a segment holds `FIRST << segment` slots, more than `place`, and lives for ever.
        (!start.is_null()).then(|| unsafe { &*start.add(place) })
    }

    /// The slot that a token names, if it names one, and the state that it has while the token is good.
    #[inline(always)]
    fn decode(&'static self, token: usize) -> Option<(&'static Slot<T, B>, usize, u64)> {
        if token >> KIND_SHIFT != self.kind || token & ((1 << INDEX_SHIFT) - 1) != 0 {
            return None;
        }
        let index = (token >> INDEX_SHIFT) & INDEX_MASK;
        let generation = (token >> GENERATION_SHIFT) as u64 & 0xffff_ffff;
        Some((self.slot(index)?, index, generation << 32))
    }

    #[inline(always)]
    pub(super) fn pin(&'static self, token: usize) -> Option<Pinned<T, B>> {
        let (slot, index, generation) = self.decode(token)?;
        // The pin comes first: from then on the slot cannot be emptied. If it turns out to be no good it is taken back.
        let state = slot.state.fetch_add(1, order(Bug::PinWithoutOrder, Ordering::Acquire));
        let pinned = Pinned { table: self, slot, index };
        let told_apart = if planted(Bug::OldTokenFits) { OPEN } else { GENERATION | OPEN };
        (state & told_apart == (generation | OPEN) & told_apart).then_some(pinned)
    }

    /// What lies beside the object that a token names; or lay, or will lie, beside another in its slot: whoever asks must see
    /// for himself whose it is.
    #[inline(always)]
    pub(super) fn beside(&'static self, token: usize) -> Option<&'static B> {
        let (slot, ..) = self.decode(token)?;
        let beside = slot.beside.load(order(Bug::BesideWithoutOrder, Ordering::Acquire));
        watch::read(beside);
        // SAFETY: null, or made of a reference to what lives for ever.
        unsafe { beside.as_ref() }
    }

    pub(super) fn close(&'static self, token: usize) -> Option<Closing<T, B>> {
        let (slot, index, generation) = self.decode(token)?;
        let close = |state| (state & (GENERATION | OPEN | ENDING) == generation | OPEN).then_some((state | ENDING) + 1);
        slot.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, close).ok()?;
        Some(Closing(Pinned { table: self, slot, index }))
    }

    /// Why a token was not accepted.
    #[cold]
    pub(super) fn refusal(&'static self, token: usize, name: &'static str, maker: &'static str) -> Error {
        if token == 0 {
            let text = format!("{name} is NULL: pass what {maker} returned (if that was NULL, the last error said why)");
            return Error::new(Code::NULL_POINTER, text);
        }
        let kind = token >> KIND_SHIFT;
        let why = if kind != self.kind && KINDS.contains(&kind) {
            "is the handle of something else"
        } else if self.decode(token).is_some() {
            "was destroyed, or what it belongs to was"
        } else {
            "is no handle of this library"
        };
        Error::new(Code::INVALID_PARAM, format!("{name} {why}: pass what {maker} returned, until it is destroyed"))
    }

    pub(super) fn insert(&'static self, object: Arc<T>, beside: &'static B) -> Result<usize> {
        let index = self.take_slot()?;
        let slot = self.slot(index).ok_or_else(full)?;
        watch::written(slot.object.get());
        // SAFETY: the slot was free and is ours alone: it is in no list, and no token for it is good yet.
        unsafe { *slot.object.get() = Some(object) };
        slot.beside.store(ptr::from_ref(beside).cast_mut(), Ordering::Release);
        // Release: who finds it open finds the object. Pins that mistaken callers hold for a moment stay as they are.
        let state = slot.state.fetch_or(OPEN, Ordering::Release);
        Ok(self.kind << KIND_SHIFT | ((state >> 32) as usize) << GENERATION_SHIFT | index << INDEX_SHIFT)
    }

    /// Takes a slot from the free list, or makes one.
    fn take_slot(&'static self) -> Result<usize> {
        let mut free = self.free.lock();
        if let Some(index) = (free.head as usize).checked_sub(1) {
            free.head = self.slot(index).ok_or_else(full)?.next_free.load(Ordering::Relaxed);
            return Ok(index);
        }
        let index = free.used;
        let (segment, place) = Self::locate(index);
        let start = self.segments.get(segment).ok_or_else(full)?;
        if place == 0 {
            let slots = Self::make_segment(index, FIRST << segment)?;
            watch::written(slots);
            start.store(slots, order(Bug::SegmentWithoutOrder, Ordering::Release));
        }
        if planted(Bug::SlotGivenTwice) {
            drop(free);
            free = self.free.lock();
        }
        free.used += 1;
        Ok(index)
    }

    fn make_segment(first_index: usize, length: usize) -> Result<*mut Slot<T, B>> {
        let mut slots = Vec::new();
        slots
            .try_reserve_exact(length)
            .map_err(|_| Error::no_memory("no memory for another handle: destroy some, or give the process more"))?;
        slots.extend((first_index..first_index + length).map(|index| Slot {
            state: AtomicU64::new(u64::from(first_generation(index)) << 32),
            object: UnsafeCell::new(None),
            beside: AtomicPtr::new(ptr::null_mut()),
            next_free: AtomicU32::new(0),
        }));
        Ok(slots.leak().as_mut_ptr())
    }

    /// Empties a slot that is going (nobody has a pin on it), unless another thread is quicker.
    #[cold]
    fn empty(&'static self, slot: &'static Slot<T, B>, index: usize, state: u64) {
        let generation = ((state >> 32) as u32).wrapping_add(1);
        let fresh = u64::from(generation) << 32;
        let taken = slot.state.compare_exchange(state, fresh, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_err() && !planted(Bug::EmptiedTwice) {
            return; // emptied by another, or a mistaken caller looks: then that one sees to it
        }
        watch::written(slot.object.get());
        // SAFETY: the state went from "going, no pins" to "free" in one step, by us: nobody else gets at the object, and
        // the slot is in no list yet.
        let object = unsafe { (*slot.object.get()).take() };
        // In a forked child the lock may be held by a thread that is not there; slots are not needed there either. And a
        // slot that has used up its generations is not used again: an old token would fit.
        if !batch::fork::is_forked_child() && generation != first_generation(index) {
            let mut free = self.free.lock();
            slot.next_free.store(free.head, Ordering::Relaxed);
            free.head = index as u32 + 1;
        }
        drop(object); // last: it may take a while, and may call back into this table
    }
}

#[cold]
fn full() -> Error {
    Error::new(Code::MEM, "too many handles: destroy batches that have ended")
}

/// The generation that a slot begins with: unpredictable, and unrelated to its neighbours', so that a token to which
/// something was added, or one from another process, does not fit by chance.
fn first_generation(index: usize) -> u32 {
    static SECRET: OnceLock<u64> = OnceLock::new();
    (Random::new(SECRET.get_or_init(secret_u64) ^ (index as u64) << 32).next_u64() >> 32) as u32
}

/// An object that stays while this lives, whoever destroys its handle meanwhile.
pub struct Pinned<T: Send + Sync + 'static, B: Sync + 'static = ()> {
    table: &'static Table<T, B>,
    slot: &'static Slot<T, B>,
    index: usize,
}

impl<T: Send + Sync, B: Sync> Pinned<T, B> {
    /// Whether somebody has begun to destroy it.
    pub(super) fn is_closing(&self) -> bool {
        self.slot.state.load(Ordering::Relaxed) & ENDING != 0
    }
}

impl<T: Send + Sync, B: Sync> Drop for Pinned<T, B> {
    #[inline(always)]
    fn drop(&mut self) {
        let state = self.slot.state.fetch_sub(1, order(Bug::UnpinnedTooEarly, Ordering::Release));
        if state & (OPEN | ENDING | PINS) == ENDING | 1 {
            self.table.empty(self.slot, self.index, state - 1);
        }
    }
}

impl<T: Send + Sync, B: Sync> Deref for Pinned<T, B> {
    type Target = Arc<T>;

    #[inline(always)]
    fn deref(&self) -> &Arc<T> {
        watch::read(self.slot.object.get());
        // SAFETY: pinned while open, so the slot is neither emptied nor filled anew while `self` lives.
        let object = unsafe { &*self.slot.object.get() };
        match object {
            Some(object) => object,
            None => unreachable!("an open slot has an object"),
        }
    }
}

/// An object whose handle is being destroyed by us. It still answers (callbacks may ask) until this is dropped.
pub struct Closing<T: Send + Sync + 'static, B: Sync + 'static = ()>(Pinned<T, B>);

impl<T: Send + Sync, B: Sync> Closing<T, B> {
    /// Takes the handle out of use and keeps the object for ever: not even its clean-up may run.
    pub fn abandon(self) {
        self.0.slot.state.fetch_and(!OPEN, Ordering::AcqRel);
        std::mem::forget(self); // the pin stays
    }
}

impl<T: Send + Sync, B: Sync> Drop for Closing<T, B> {
    fn drop(&mut self) {
        self.0.slot.state.fetch_and(!OPEN, Ordering::AcqRel); // the pin goes next, with the field
    }
}

impl<T: Send + Sync, B: Sync> Deref for Closing<T, B> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Thing(u64, Option<Arc<AtomicUsize>>);
    impl Drop for Thing {
        fn drop(&mut self) {
            self.0 = 0;
            if let Some(dropped) = &self.1 {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn table() -> &'static Table<Thing> {
        Box::leak(Box::new(Table::new(9)))
    }

    fn thing(number: u64) -> Arc<Thing> {
        Arc::new(Thing(number, None))
    }

    #[test]
    fn stale_forged_and_foreign_tokens_are_told_apart() {
        let table = table();
        let a = table.insert(thing(1), &()).unwrap();
        let b = table.insert(thing(2), &()).unwrap();
        assert_eq!((table.pin(a).unwrap().0, table.pin(b).unwrap().0), (1, 2));
        assert_eq!((a & 15, a >> 60), (0, 9));
        for forged in [0, 1, a + 1, a + 8, a + 16, b + 16, a ^ 1 << 63, a ^ 1 << 40, usize::MAX, &raw const a as usize] {
            assert!(table.pin(forged).is_none(), "{forged:#x}");
            assert!(table.close(forged).is_none(), "{forged:#x}");
        }
        drop(table.close(a).unwrap());
        assert!(table.pin(a).is_none() && table.close(a).is_none());
        let c = table.insert(thing(3), &()).unwrap();
        assert_eq!((c >> INDEX_SHIFT) & INDEX_MASK, (a >> INDEX_SHIFT) & INDEX_MASK, "slots are used again");
        assert!(c != a && table.pin(a).is_none() && table.pin(c).unwrap().0 == 3);
    }

    #[test]
    fn an_object_goes_with_its_last_pin() {
        let (table, dropped) = (table(), Arc::new(AtomicUsize::new(0)));
        let token = table.insert(Arc::new(Thing(7, Some(Arc::clone(&dropped)))), &()).unwrap();
        let pinned = table.pin(token).unwrap();
        let closing = table.close(token).unwrap();
        assert!(pinned.is_closing() && table.close(token).is_none(), "only one may destroy it");
        assert_eq!(table.pin(token).unwrap().0, 7, "it answers until the end");
        drop(closing);
        assert!(table.pin(token).is_none());
        assert_eq!((pinned.0, dropped.load(Ordering::Relaxed)), (7, 0));
        drop(pinned);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_abandoned_object_stays() {
        let (table, dropped) = (table(), Arc::new(AtomicUsize::new(0)));
        let token = table.insert(Arc::new(Thing(7, Some(Arc::clone(&dropped)))), &()).unwrap();
        table.close(token).unwrap().abandon();
        assert!(table.pin(token).is_none() && table.close(token).is_none());
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_objects_have_many_tokens() {
        let table = table();
        let tokens: Vec<usize> = (0..1000).map(|n| table.insert(thing(n), &()).unwrap()).collect();
        for (n, &token) in tokens.iter().enumerate() {
            assert_eq!(table.pin(token).unwrap().0, n as u64);
        }
        for &token in &tokens {
            drop(table.close(token).unwrap());
        }
        assert!(tokens.iter().all(|&token| table.pin(token).is_none()));
        for n in 0..1000 {
            table.insert(thing(n), &()).unwrap();
        }
        assert_eq!(table.free.lock().used, 1000);
    }

    #[test]
    fn a_slot_that_used_up_its_generations_rests() {
        let table = table();
        let token = table.insert(thing(1), &()).unwrap();
        let (slot, index, _) = table.decode(token).unwrap();
        let last = u64::from(first_generation(index).wrapping_sub(1)) << 32;
        slot.state.store(last | OPEN, Ordering::Relaxed);
        let closing = Closing(Pinned { table, slot, index });
        slot.state.fetch_add(1, Ordering::Relaxed);
        slot.state.fetch_or(ENDING, Ordering::Relaxed);
        drop(closing);
        assert!(slot.state.load(Ordering::Relaxed) & (OPEN | ENDING | PINS) == 0);
        assert_ne!((table.insert(thing(2), &()).unwrap() >> INDEX_SHIFT) & INDEX_MASK, index);
    }

    /// Threads look up, destroy and create at once: nobody sees an object that is gone, each goes exactly once.
    #[test]
    fn threads_at_odds() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 20_000;
        let (table, dropped) = (table(), Arc::new(AtomicUsize::new(0)));
        let tokens: Arc<[AtomicUsize; 8]> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        let made: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|seed| {
                    let (tokens, dropped) = (Arc::clone(&tokens), Arc::clone(&dropped));
                    scope.spawn(move || {
                        let (mut random, mut made) = (Random::new(seed), 0);
                        for _ in 0..ROUNDS {
                            let place = &tokens[random.below(8) as usize];
                            match random.below(4) {
                                0 => {
                                    made += 1;
                                    let new = table.insert(Arc::new(Thing(77, Some(Arc::clone(&dropped)))), &()).unwrap();
                                    drop(table.close(place.swap(new, Ordering::Relaxed)));
                                }
                                1 => drop(table.close(place.load(Ordering::Relaxed))),
                                _ => {
                                    if let Some(pinned) = table.pin(place.load(Ordering::Relaxed)) {
                                        assert_eq!(pinned.0, 77);
                                    }
                                }
                            }
                        }
                        made
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        for place in tokens.iter() {
            drop(table.close(place.load(Ordering::Relaxed)));
        }
        assert_eq!(dropped.load(Ordering::Relaxed) as u64, made);
    }
}
