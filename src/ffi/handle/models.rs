//! Models of handles: pins against destroying, slots that are used again, a table that grows.

use super::*;
use crate::base::models::{all_ways, holds_but_for};
use crate::base::planted::Bug;
use crate::base::sync::{spawn, watch};
use crate::batch::{Hook, OpKind, Settings};
use std::sync::atomic::AtomicUsize as Plain;

/// An object that says whom it belongs to, and notes its end.
struct Thing {
    number: usize,
    drops: Arc<[Plain; 2]>,
}

impl Drop for Thing {
    fn drop(&mut self) {
        assert_eq!(self.drops[self.number].fetch_add(1, Ordering::Relaxed), 0, "freed twice");
    }
}

fn table<T: Send + Sync, B: Sync>(kind: usize) -> &'static Table<T, B> {
    let table: &'static Table<T, B> = Box::leak(Box::new(Table::new(kind)));
    table.touch();
    table
}

struct House {
    table: &'static Table<Thing>,
    drops: Arc<[Plain; 2]>,
}

impl House {
    fn new() -> House {
        House { table: table(3), drops: Arc::new([Plain::new(0), Plain::new(0)]) }
    }

    fn insert(&self, number: usize) -> usize {
        self.table.insert(Arc::new(Thing { number, drops: Arc::clone(&self.drops) }), &()).expect("room")
    }

    fn drops(&self, number: usize) -> usize {
        self.drops[number].load(Ordering::Relaxed)
    }
}

fn look(table: &'static Table<Thing>, token: usize, number: usize, drops: &[Plain; 2]) {
    if let Some(pinned) = table.pin(token) {
        assert_eq!(pinned.number, number, "the object of another handle");
        assert_eq!(drops[number].load(Ordering::Relaxed), 0, "pinned, and gone");
    }
}

/// One looks while another destroys.
fn pin_against_close() {
    let house = House::new();
    let token = house.insert(0);
    let (table, drops) = (house.table, Arc::clone(&house.drops));
    let looks = spawn("looks", move || look(table, token, 0, &drops)).expect("started");
    drop(house.table.close(token).expect("open"));
    looks.join().expect("looked");
    assert_eq!(house.drops(0), 1, "an object goes with its handle and the last pin");
    assert!(house.table.pin(token).is_none());
}

#[test]
fn a_pinned_object_stays_and_goes_once() {
    holds_but_for(&[(Bug::UnpinnedTooEarly, "Causality"), (Bug::EmptiedTwice, "panicked")], || all_ways(5, pin_against_close));
}

/// Two try to destroy, a third looks.
fn two_closes() {
    let house = House::new();
    let token = house.insert(0);
    let (table, drops) = (house.table, Arc::clone(&house.drops));
    let looks = spawn("looks", move || look(table, token, 0, &drops)).expect("started");
    let closes = spawn("closes", move || assert!(table.close(token).is_none_or(|closing| closing.number == 0))).expect("started");
    drop(house.table.close(token));
    looks.join().expect("looked");
    closes.join().expect("closed");
    assert_eq!(house.drops(0), 1);
}

#[test]
fn who_destroys_last_frees() {
    holds_but_for(&[(Bug::EmptiedTwice, "panicked")], || all_ways(3, two_closes));
}

/// A token goes from one thread to another by a way that keeps no order.
fn insert_and_hand_over() {
    let house = House::new();
    let (table, drops) = (house.table, Arc::clone(&house.drops));
    let place = Arc::new(crate::base::sync::atomic::AtomicUsize::new(0));
    let there = Arc::clone(&place);
    let looks = spawn("looks", move || look(table, there.load(Ordering::Relaxed), 0, &drops)).expect("started");
    place.store(house.insert(0), Ordering::Relaxed);
    looks.join().expect("looked");
    drop(house.table.close(place.load(Ordering::Relaxed)));
    assert_eq!(house.drops(0), 1);
}

#[test]
fn an_object_is_seen_whole_however_its_token_travels() {
    let bugs = [(Bug::PinWithoutOrder, "Causality"), (Bug::SegmentWithoutOrder, "Causality")];
    holds_but_for(&bugs, || all_ways(5, insert_and_hand_over));
}

/// A slot is filled anew while somebody looks with the old token.
fn stale_token() {
    let house = House::new();
    let old = house.insert(0);
    let (table, drops) = (house.table, Arc::clone(&house.drops));
    let looks = spawn("looks", move || look(table, old, 0, &drops)).expect("started");
    drop(house.table.close(old).expect("open"));
    let new = house.insert(1);
    assert_eq!(house.table.pin(new).expect("open").number, 1);
    looks.join().expect("looked");
    assert_eq!(house.drops(0), 1);
    drop(house.table.close(new).expect("open"));
    assert_eq!(house.drops(1), 1);
}

#[test]
fn an_old_token_never_fits_a_new_object() {
    holds_but_for(&[(Bug::OldTokenFits, "the object of another handle")], || all_ways(5, stale_token));
}

/// Two threads fill a table that has to grow.
fn two_inserts() {
    let house = House::new();
    let (table, drops) = (house.table, Arc::clone(&house.drops));
    let other = spawn("inserts", move || {
        let token = table.insert(Arc::new(Thing { number: 1, drops: Arc::clone(&drops) }), &()).expect("room");
        look(table, token, 1, &drops);
        drop(table.close(token).expect("open"));
    });
    let token = house.insert(0);
    look(house.table, token, 0, &house.drops);
    other.expect("started").join().expect("inserted");
    look(house.table, token, 0, &house.drops);
    drop(house.table.close(token).expect("open"));
    assert_eq!((house.drops(0), house.drops(1)), (1, 1));
}

#[test]
fn two_threads_get_slots_of_their_own() {
    holds_but_for(&[(Bug::SlotGivenTwice, "panicked")], || all_ways(5, two_inserts));
}

struct Silent;

impl crate::batch::Edge for Silent {
    fn op_done(&self, _: &crate::batch::OpView<'_>) {}
    fn batch_done(&self, _: usize, _: usize, _: usize, _: crate::batch::CompleteHook) {}
    fn write_out(&self, _: &crate::batch::Hook, _: Option<&[u8]>) {}
}

fn manager(managers: &'static Table<Manager>) -> usize {
    managers.insert(Manager::create(Settings::default(), b"memory:").expect("created"), &()).expect("room")
}

/// A batch is created while its manager is destroyed: one of the two takes its handle out of use.
fn create_against_destroy() {
    let (managers, contexts) = (table::<Manager, ()>(3), table::<Context, Basin>(5));
    let token = manager(managers);
    let destroys = spawn("destroys", move || {
        let closing = closed(managers, token).expect("open");
        closing.contexts().into_iter().for_each(|tag| drop(contexts.close(tag)));
    });
    let mut given = None;
    if let Some(manager) = managers.pin(token) {
        let context = Context::create(&manager, 0, &Silent).expect("created");
        given = give_in(contexts, context, &manager).ok();
    }
    destroys.expect("started").join().expect("destroyed");
    if let Some(given) = given {
        assert!(contexts.pin(given).is_none(), "a batch has outlived its manager");
    }
}

#[test]
fn a_batch_does_not_outlive_its_manager() {
    holds_but_for(&[(Bug::FenceLeftOut, "has outlived")], || all_ways(5, create_against_destroy));
}

fn put(filling: Filling) {
    filling.add(OpKind::Put, b"k", b"v", Hook::default()).expect("added");
}

/// Somebody adds by a token while its batch is destroyed and the basin goes to the next one.
fn add_against_next_batch() {
    let (managers, contexts) = (table::<Manager, ()>(3), table::<Context, Basin>(5));
    let manager = managers.pin(manager(managers)).expect("open");
    let basin = Basin::make().expect("memory");
    let create = || Context::create_in(|| Ok(basin), &manager, 0, &Silent).expect("created");
    let old = give_in(contexts, create(), &manager).expect("room");
    let adds = spawn("adds", move || contexts.beside(old).and_then(|basin| basin.filling_of(old)).into_iter().for_each(put));
    let closing = closed_context(contexts, old).expect("open");
    closing.destroy();
    drop(closing);
    let new = give_in(contexts, create(), &manager).expect("room");
    adds.expect("started").join().expect("added");
    assert_eq!(contexts.pin(new).expect("open").stats().total_operations, 0, "what was added has gone astray");
    assert!(filling_in(contexts, old).is_none(), "the handle was destroyed");
    filling_in(contexts, new).expect("open").into_iter().for_each(put);
    assert_eq!(contexts.pin(new).expect("open").stats().total_operations, 1);
}

#[test]
fn nothing_is_added_to_another_batch() {
    holds_but_for(&[(Bug::BasinOfAnother, "gone astray")], || all_ways(4, add_against_next_batch));
}

/// Two add to a batch whose handle goes while its batch stays: what they add is there, and nothing comes after.
fn add_against_close() {
    let (managers, contexts) = (table::<Manager, ()>(3), table::<Context, Basin>(5));
    let manager = managers.pin(manager(managers)).expect("open");
    let context = Context::create(&manager, 0, &Silent).expect("created");
    let token = give_in(contexts, Arc::clone(&context), &manager).expect("room");
    let added = Arc::new(Plain::new(0));
    let counted = Arc::clone(&added);
    let adds = spawn("adds", move || {
        if let Some(Ok(filling)) = filling_in(contexts, token) {
            put(filling);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    put(filling_in(contexts, token).expect("open").expect("pending"));
    drop(closed_context(contexts, token));
    assert!(filling_in(contexts, token).is_none(), "it was closed, and takes operations");
    adds.expect("started").join().expect("added");
    assert_eq!(context.stats().total_operations as usize, 1 + added.load(Ordering::Relaxed));
}

#[test]
fn a_closed_batch_takes_nothing() {
    holds_but_for(&[(Bug::BasinNotShut, "takes operations")], || all_ways(4, add_against_close));
}

/// A token goes to another thread by a way that keeps no order, and that one adds.
fn create_and_hand_over() {
    let (managers, contexts) = (table::<Manager, ()>(3), table::<Context, Basin>(5));
    let manager = managers.pin(manager(managers)).expect("open");
    let create = || give_in(contexts, Context::create(&manager, 0, &Silent).expect("created"), &manager).expect("room");
    drop(closed_context(contexts, create())); // so that the slot is there
    let place = Arc::new(crate::base::sync::atomic::AtomicUsize::new(0));
    let there = Arc::clone(&place);
    let adds = spawn("adds", move || filling_in(contexts, there.load(Ordering::Relaxed)).into_iter().flatten().for_each(put));
    place.store(create(), Ordering::Relaxed);
    adds.expect("started").join().expect("added");
}

#[test]
fn a_basin_is_seen_whole_however_its_token_travels() {
    holds_but_for(&[(Bug::BesideWithoutOrder, "Causality")], || all_ways(4, create_and_hand_over));
}

#[test]
fn what_is_watched_is_watched() {
    let race = std::panic::catch_unwind(|| {
        all_ways(5, || {
            let place = 7_u64;
            let address = (&raw const place).addr();
            watch::written(address as *const u64);
            let other = spawn("writes", move || watch::written(address as *const u64)).expect("started");
            watch::read(address as *const u64);
            other.join().expect("written");
        })
    });
    assert!(race.is_err(), "nothing puts the two in order");
}
