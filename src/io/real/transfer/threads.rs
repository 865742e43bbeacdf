//! Transfers where there is no ring: helpers carry out those on files, and the mover's own thread watches over those that
//! wait for a peer (pipes, sockets, terminals), so that none of these can hold up a helper or a cancel.
//!
//! Helpers are made when first needed, sleep without waking up while there is nothing to do, and end with the mover. If none
//! can be made, the mover's thread does it all.
#![allow(unsafe_code)]

use super::{Bell, Done, Mover, Transfer, Way, Wishes};
use crate::base::sync::{self, Arc, Condvar, JoinHandle, Mutex};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// See the file.
pub(super) struct ThreadMover {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    helpers_max: usize,
    /// Transfers that wait for a peer.
    waiting: Vec<(u32, Transfer)>,
    watched: Vec<libc::pollfd>,
    reason: String,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    bell: Arc<Bell>,
}

struct State {
    todo: VecDeque<(u32, Transfer)>,
    done: Vec<Done>,
    idle: usize,
    stop: bool,
}

impl Shared {
    fn help(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((key, mut transfer)) = state.todo.pop_front() {
                drop(state);
                let result = transfer.carry_out();
                drop(transfer);
                state = self.state.lock();
                state.done.push(Done { key, result });
                drop(state);
                self.bell.ring();
                state = self.state.lock();
            } else if state.stop {
                return;
            } else {
                state.idle += 1;
                self.wake.wait(&mut state);
                state.idle -= 1;
            }
        }
    }
}

impl ThreadMover {
    /// A mover without helpers yet.
    pub(super) fn new(wishes: &Wishes, bell: &Arc<Bell>, reason: String) -> io::Result<ThreadMover> {
        let depth = wishes.depth as usize;
        let state = State { todo: VecDeque::with_capacity(depth), done: Vec::with_capacity(depth), idle: 0, stop: false };
        Ok(ThreadMover {
            shared: Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), bell: Arc::clone(bell) }),
            helpers: Vec::new(),
            helpers_max: wishes.threads as usize,
            waiting: Vec::with_capacity(depth),
            watched: Vec::with_capacity(depth + 1),
            reason,
        })
    }

    /// Sees to it that somebody takes what was put in line; false if nobody can.
    fn find_helper(&mut self) -> bool {
        let state = self.shared.state.lock();
        if state.todo.len() <= state.idle || self.helpers.len() >= self.helpers_max {
            self.shared.wake.notify_one();
            return true;
        }
        drop(state);
        let shared = Arc::clone(&self.shared);
        match sync::spawn("kvbatch-uring-io", move || shared.help()) {
            Ok(helper) => self.helpers.push(helper),
            Err(_) => {
                self.shared.wake.notify_all();
            }
        }
        !self.helpers.is_empty()
    }

    fn ended(&self, key: u32, result: i32) {
        self.shared.state.lock().done.push(Done { key, result });
    }

    fn end_waiting(&mut self, mut whom: impl FnMut(u32) -> bool) {
        let mut state = self.shared.state.lock();
        self.waiting.retain(|(key, _)| {
            let goes = whom(*key);
            if goes {
                state.done.push(Done { key: *key, result: -libc::ECANCELED });
            }
            !goes
        });
    }

    /// Sleeps until the bell rings, a peer has come, or `patience` is over.
    fn watch(&mut self, patience: Duration) {
        self.watched.clear();
        let bell = self.shared.bell.descriptor();
        // Without a bell nobody can wake us: then we look around often.
        let patience = if bell.is_some() { patience } else { patience.min(Duration::from_millis(1)) };
        let look = |fd, events| libc::pollfd { fd, events, revents: 0 };
        self.watched.push(look(bell.map_or(-1, |(fd, _)| fd), libc::POLLIN));
        for (_, transfer) in &self.waiting {
            self.watched.push(look(transfer.fd, if transfer.way == Way::Read { libc::POLLIN } else { libc::POLLOUT }));
        }
        let timeout_ms = patience.as_micros().div_ceil(1000).min(1000) as libc::c_int;
        sleep_on(&mut self.watched, timeout_ms);
        if self.watched[0].revents != 0 {
            self.shared.bell.silence();
        }
        let mut ready = self.watched[1..].iter().map(|watched| watched.revents != 0);
        let state = &self.shared.state;
        self.waiting.retain_mut(|(key, transfer)| {
            let result = if ready.next() == Some(true) { transfer.try_now() } else { None };
            result.map(|result| state.lock().done.push(Done { key: *key, result })).is_none()
        });
    }
}

impl Mover for ThreadMover {
    fn begin(&mut self, key: u32, mut transfer: Transfer) {
        if transfer.may_wait_for_ever() {
            return self.waiting.push((key, transfer));
        }
        if self.helpers_max == 0 {
            let result = transfer.carry_out();
            return self.ended(key, result);
        }
        self.shared.state.lock().todo.push_back((key, transfer));
        if !self.find_helper() {
            let all = std::mem::take(&mut self.shared.state.lock().todo);
            for (key, mut transfer) in all {
                let result = transfer.carry_out();
                self.ended(key, result);
            }
        }
    }

    fn cancel(&mut self, key: u32) {
        let mut state = self.shared.state.lock();
        if let Some(place) = state.todo.iter().position(|(other, _)| *other == key) {
            state.todo.remove(place);
            state.done.push(Done { key, result: -libc::ECANCELED });
            return;
        }
        drop(state);
        self.end_waiting(|other| other == key);
    }

    fn cancel_waiting(&mut self) {
        self.end_waiting(|_| true);
    }

    fn turn(&mut self, patience: Duration, done: &mut Vec<Done>) {
        let nothing_yet = self.shared.state.lock().done.is_empty();
        self.watch(if nothing_yet { patience } else { Duration::ZERO });
        done.append(&mut self.shared.state.lock().done);
    }

    fn backend(&self) -> (&'static str, &str) {
        ("threads", &self.reason)
    }
}

impl Drop for ThreadMover {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

/// Sleeps until something comes, or the time is over. What fails leaves `revents` at 0.
#[cfg(not(kv_model))]
fn sleep_on(watched: &mut [libc::pollfd], timeout_ms: libc::c_int) {
    // SAFETY: the array and its length.
    unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, timeout_ms) };
}

/// In a model nobody sleeps in the kernel: looks until something comes. The clock stands still.
#[cfg(kv_model)]
fn sleep_on(watched: &mut [libc::pollfd], timeout_ms: libc::c_int) {
    // SAFETY: as above.
    while unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, 0) } == 0 && timeout_ms > 0 {
        sync::yield_now();
    }
}
