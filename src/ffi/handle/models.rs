//! Models of handles: pins against destroying, slots that are used again, a table that grows.

use super::*;
use crate::base::models::{all_ways, holds_but_for};
use crate::base::planted::Bug;
use crate::base::sync::{spawn, watch};
use crate::batch::Settings;
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

fn table<T: Send + Sync>(kind: usize) -> &'static Table<T> {
    let table: &'static Table<T> = Box::leak(Box::new(Table::new(kind)));
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
        self.table.insert(Arc::new(Thing { number, drops: Arc::clone(&self.drops) })).expect("room")
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
        let token = table.insert(Arc::new(Thing { number: 1, drops: Arc::clone(&drops) })).expect("room");
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

/// A batch is created while its manager is destroyed: one of the two takes its handle out of use.
fn create_against_destroy() {
    let (managers, contexts) = (table::<Manager>(3), table::<Context>(5));
    let token = managers.insert(Manager::create(Settings::default(), b"memory:").expect("created")).expect("room");
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
