//! Two threads and one batch, on a lane without threads of its own: all ways it can go.

use super::super::context::Context;
use super::super::grouping::Grouping;
use super::super::lane::Lane;
use super::super::operation::{CompleteHook, Edge, Hook, OpKind, OpView};
use super::super::{Manager, Settings, Status};
use crate::base::code::Code;
use crate::base::models::{all_ways, holds_but_for};
use crate::base::planted::Bug;
use crate::base::sync::{Arc, JoinHandle, spawn};
use crate::memory::MemoryEngine;
use std::cell::RefCell;

thread_local! {
    /// Codes that callbacks have been told, and how often the batch has ended. A model runs in one thread of the system.
    static TOLD: RefCell<(Vec<Code>, usize)> = RefCell::default();
}

struct Notes;

impl Edge for Notes {
    fn op_done(&self, op: &OpView<'_>) {
        TOLD.with_borrow_mut(|told| told.0.push(op.code));
    }
    fn batch_done(&self, _: usize, _: usize, _: usize, _: CompleteHook) {
        TOLD.with_borrow_mut(|told| told.1 += 1);
    }
    fn write_out(&self, _: &Hook, _: Option<&[u8]>) {}
}

fn told() -> (Vec<Code>, usize) {
    TOLD.with_borrow(Clone::clone)
}

/// A manager of a store of its own, whose lane has no threads.
fn manager() -> Arc<Manager> {
    TOLD.take();
    let manager = Manager::create(Settings::default(), b"memory:").expect("created");
    manager.run_on(&Lane::new(MemoryEngine::open("a model".to_owned()), Grouping::default()));
    manager
}

/// A batch of one put, with callbacks.
fn batch(manager: &Arc<Manager>) -> Arc<Context> {
    let context = Context::create(manager, 0, &Notes).expect("created");
    context.add(OpKind::Put, b"key", b"value", Hook { callback: 1, ..Hook::default() }).expect("added");
    context
}

fn submitted(manager: &Arc<Manager>) -> Arc<Context> {
    let context = batch(manager);
    context.submit(CompleteHook { callback: 1, user_data: 0 }).expect("submitted");
    context
}

fn in_thread(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    spawn("other", body).expect("started")
}

fn keys(manager: &Manager) -> String {
    let find = |(name, value): (String, String)| (name == "keys").then_some(value);
    manager.counters().into_iter().find_map(find).expect("counted")
}

/// Two wait for one batch: one of them does the work.
fn two_waiters() {
    let manager = manager();
    let context = submitted(&manager);
    let shared = Arc::clone(&context);
    let other = in_thread(move || {
        shared.wait_for_end();
        assert_eq!(told(), (vec![Code::NONE], 1), "the wait is over, and the callbacks are not");
    });
    context.wait_for_end();
    assert_eq!(told(), (vec![Code::NONE], 1), "the wait is over, and the callbacks are not");
    other.join().expect("waited");
    assert_eq!((context.status(), manager.stats().active_batches), (Status::Completed, 0));
}

#[test]
fn callbacks_come_once_and_before_the_wait_is_over() {
    let bugs = [(Bug::CallbackTwice, "callbacks are not"), (Bug::EndUntold, "deadlock")];
    holds_but_for(&bugs, || all_ways(4, two_waiters));
}

/// One cancels, one waits.
fn cancel_against_wait() {
    let manager = manager();
    let context = submitted(&manager);
    let shared = Arc::clone(&context);
    let other = in_thread(move || {
        shared.wait_for_end();
        assert_eq!(told().1, 1);
    });
    let (answer, status) = (context.cancel(), context.status());
    other.join().expect("waited");
    // Of one that has ended it says yes, too: nothing is left to be cancelled.
    if answer.is_ok() && status != Status::Completed {
        assert_eq!((context.status(), told().0, keys(&manager)), (Status::Cancelled, vec![Code::CANCELLED], "0".to_owned()));
    } else {
        assert_eq!((context.status(), told().0, keys(&manager)), (Status::Completed, vec![Code::NONE], "1".to_owned()));
    }
    assert_eq!(told().1, 1);
    manager.stop().expect("stopped");
}

#[test]
fn what_is_cancelled_has_no_effect() {
    holds_but_for(&[(Bug::CancelClaimed, "panicked")], || all_ways(4, cancel_against_wait));
}

/// One destroys a batch in flight, one waits for it.
fn destroy_against_wait() {
    let manager = manager();
    let context = submitted(&manager);
    let shared = Arc::clone(&context);
    let other = in_thread(move || {
        assert!(!shared.wait(60_000).is_err_and(|error| error.code == Code::TIMEOUT));
        assert_eq!(told(), (vec![Code::NONE], 1));
    });
    context.destroy();
    assert_eq!(told(), (vec![Code::NONE], 1), "destroyed, and a callback is still to come");
    other.join().expect("waited");
    assert_eq!(manager.stats().current_memory_usage, 0, "all of it is given back");
}

#[test]
fn destroying_waits_for_what_is_in_flight() {
    let bugs = [(Bug::DestroyedInFlight, "still to come"), (Bug::MemoryKept, "given back")];
    holds_but_for(&bugs, || all_ways(4, destroy_against_wait));
}

/// One stops the manager while a batch is in flight, or before it is submitted.
fn stop_against_submit() {
    let manager = manager();
    let context = batch(&manager);
    let shared = Arc::clone(&context);
    let other = in_thread(move || match shared.submit(CompleteHook { callback: 1, user_data: 0 }) {
        Ok(()) => shared.wait_for_end(),
        Err(error) => assert_eq!(error.code, Code::INVALID_STATE),
    });
    manager.stop().expect("stopped");
    let told_so_far = told();
    other.join().expect("ended");
    assert_eq!(told(), told_so_far, "a batch has got in behind the stop");
    assert_eq!(manager.stats().active_batches, 0);
    context.destroy();
}

#[test]
fn stopping_drains_what_was_submitted() {
    holds_but_for(&[(Bug::LandingUntold, "deadlock"), (Bug::StopDoesNotDrain, "panicked")], || all_ways(4, stop_against_submit));
}
