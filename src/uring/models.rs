//! The whole ring, with threads in the place of a kernel ring: requests are submitted, cancelled, waited for and given back by
//! several threads at once, while it is stopped or destroyed. Each is accepted, ended and released once, and nobody is left
//! waiting. A mover that is not woken looks for ever, where outside of models its patience would end.

use super::*;
use crate::base::code::Code;
use crate::base::models::{holds_but_for, schedules};
use crate::base::planted::Bug;
use crate::base::sync::{Arc, JoinHandle, spawn, yield_now};
use crate::io::real::transfer::Transfer;
use shuttle::rand::{Rng, thread_rng};
use std::sync::Mutex;

/// How often each request was accepted, ended and released. A notebook, and no part of the model.
struct Notes(Mutex<Vec<[u8; 3]>>);

static NOTES: Notes = Notes(Mutex::new(Vec::new()));

impl Notes {
    fn note(&self, tag: usize, what: usize) {
        self.0.lock().expect("no panic")[tag][what] += 1;
    }

    fn begin(&self) -> usize {
        let mut all = self.0.lock().expect("no panic");
        all.push([0; 3]);
        all.len() - 1
    }

    fn of(&self, tag: usize) -> [u8; 3] {
        self.0.lock().expect("no panic")[tag]
    }
}

impl Edge for Notes {
    fn accepted(&self, tag: usize, _: Key, _: u64) {
        self.note(tag, 0);
    }
    fn begun(&self, _: usize) {}
    fn ended(&self, tag: usize, _: Status, _: i32, _: u64) {
        yield_now();
        self.note(tag, 1);
    }
    fn release(&self, tag: usize) {
        self.note(tag, 2);
    }
}

fn draw(below: usize) -> usize {
    thread_rng().gen_range(0..below)
}

fn in_thread(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    spawn("player", body).expect("started")
}

/// One request from its submission on.
fn play_request(ring: &Arc<Ring>) {
    let tag = NOTES.begin();
    // There is no such file: it ends at once, with an error or because it was cancelled.
    let key = match ring.submit_one(Draft { tag, op: OpKind::Fsync, transfer: Transfer::sync(-1) }) {
        Ok(key) => key,
        Err(error) => {
            assert!(matches!(error.code, Code::INVALID_STATE | Code::BUSY), "{error}");
            return assert_eq!(NOTES.of(tag), [0; 3], "refused, and accepted");
        }
    };
    if draw(3) == 0 {
        let _ = ring.cancel(key); // it may be known no more: destroying takes all along
    }
    if draw(3) > 0 {
        match ring.wait(key, u32::MAX) {
            Err(error) if error.code == Code::PARAM => {}
            _ => assert_eq!(NOTES.of(tag)[1], 1, "the wait is over before the callback"),
        }
    }
    if draw(2) == 0 {
        ring.give_back(key);
    }
}

fn room() {
    NOTES.0.lock().expect("no panic").clear();
    let settings = Settings {
        queue_depth: 2,
        sq_poll_idle_ms: 1000,
        use_sq_poll: false,
        use_polling: false,
        cq_entries_multiplier: 2,
        worker_threads: 1,
        timeout_ms: u32::MAX,
        buffer_size: 65536,
    };
    let ring = Ring::create(settings, &NOTES).expect("created");
    ring.start().expect("started");
    assert_eq!(ring.backend().0, "threads", "the kernel takes no part in a model: set KVBATCH_IO=threads");
    let players: Vec<_> = (0..1 + draw(2))
        .map(|_| {
            let (ring, requests) = (Arc::clone(&ring), 1 + draw(2));
            in_thread(move || (0..requests).for_each(|_| play_request(&ring)))
        })
        .collect();
    match draw(4) {
        0 => ring.stop().expect("not in a callback"),
        1 => {
            ring.stop().expect("not in a callback");
            ring.start().expect("started again");
        }
        2 => ring.destroy(),
        _ => ring.validate().expect("sound"),
    }
    players.into_iter().for_each(|player| player.join().expect("played"));
    ring.stop().expect("not in a callback");
    ring.validate().expect("sound");
    ring.destroy();
    let notes = NOTES.0.lock().expect("no panic").clone();
    assert!(notes.iter().all(|note| *note == [0; 3] || *note == [1; 3]), "accepted, ended and released once: {notes:?}");
}

#[test]
fn every_request_ends_once_whoever_goes_first() {
    let bugs = [(Bug::BellUnheard, "max_steps"), (Bug::RequestEndUntold, "deadlock"), (Bug::ReaperAsleep, "deadlock")];
    holds_but_for(&bugs, || schedules(40_000, room));
}
