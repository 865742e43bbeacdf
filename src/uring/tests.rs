//! Rings driven from Rust, with an edge that counts: every request is accepted, ended and released once, in that order.

use super::*;
use crate::base::code::Code;
use crate::base::sync::Mutex;
use crate::io::real::transfer::Transfer;
use std::os::fd::AsRawFd;

#[derive(Default)]
struct Counts {
    accepted: Vec<Option<Key>>,
    ended: Vec<(usize, Status, i32)>,
    released: Vec<usize>,
    /// Calls of `ended` that run right now.
    inside: usize,
}

#[derive(Default)]
struct CountingEdge(Mutex<Counts>);

impl CountingEdge {
    fn ended_and_released(&self) -> (usize, usize) {
        let counts = self.0.lock();
        (counts.ended.len(), counts.released.len())
    }
}

impl Edge for CountingEdge {
    fn accepted(&self, tag: usize, key: Key, _unix_us: u64) {
        let mut counts = self.0.lock();
        if counts.accepted.len() <= tag {
            counts.accepted.resize(tag + 1, None);
        }
        assert!(counts.accepted[tag].replace(key).is_none(), "accepted twice");
    }
    fn begun(&self, tag: usize) {
        let counts = self.0.lock();
        assert!(counts.accepted[tag].is_some() && !counts.ended.iter().any(|(ended, ..)| *ended == tag));
    }
    fn ended(&self, tag: usize, status: Status, result: i32, _unix_us: u64) {
        self.0.lock().inside += 1;
        std::thread::yield_now();
        let mut counts = self.0.lock();
        assert_eq!(counts.inside, 1, "one at a time");
        assert!(!counts.released.contains(&tag) && !counts.ended.iter().any(|(ended, ..)| *ended == tag));
        counts.ended.push((tag, status, result));
        counts.inside -= 1;
    }
    fn release(&self, tag: usize) {
        let mut counts = self.0.lock();
        assert!(!counts.released.contains(&tag), "released twice");
        counts.released.push(tag);
    }
}

fn edge() -> &'static CountingEdge {
    Box::leak(Box::default())
}

const SETTINGS: Settings = Settings {
    queue_depth: 8,
    sq_poll_idle_ms: 1000,
    use_sq_poll: false,
    use_polling: false,
    cq_entries_multiplier: 2,
    worker_threads: 1,
    timeout_ms: u32::MAX,
    buffer_size: 65536,
};

fn sync_of(file: &std::fs::File, tag: usize) -> Draft {
    Draft { tag, op: OpKind::Fsync, transfer: Transfer::sync(file.as_raw_fd()) }
}

#[test]
fn each_request_is_accepted_ended_and_released_once() {
    let (edge, file) = (edge(), tempfile::tempfile().unwrap());
    let ring = Ring::create(SETTINGS, edge).unwrap();
    assert_eq!(ring.submit_one(sync_of(&file, 0)).unwrap_err().code, Code::INVALID_STATE);
    ring.start().unwrap();
    let mut keys = Vec::new();
    for tag in 0..300 {
        let key = loop {
            match ring.submit_one(sync_of(&file, tag)) {
                Ok(key) => break key,
                Err(error) => assert_eq!(error.code, Code::BUSY),
            }
            std::thread::yield_now();
        };
        keys.push(key);
        if tag % 3 == 0 {
            ring.give_back(key);
            ring.give_back(key);
        }
        ring.validate().unwrap();
    }
    ring.stop().unwrap();
    ring.validate().unwrap();
    assert_eq!(edge.ended_and_released(), (300, 100));
    assert!(edge.0.lock().ended.iter().all(|&(_, status, result)| (status, result) == (Status::Completed, 0)));
    assert!(!ring.knows(keys[0]) && ring.look(keys[1]) == Some((Status::Completed, 0)));
    assert_eq!(ring.unseen(), 200);
    ring.wait(keys[1], 0).unwrap();
    assert_eq!(ring.unseen(), 199);
    ring.wait_many(199, 0).unwrap();
    assert_eq!(ring.wait_many(1, 1000).unwrap_err().code, Code::INVALID_STATE);
    let stats = ring.stats();
    assert_eq!((stats.sync_count, stats.completions_total, stats.error_count), (300, 300, 0));
    ring.destroy();
    assert_eq!(edge.0.lock().released.len(), 300);
}

#[test]
fn a_batch_goes_over_whole_or_not_at_all() {
    let (edge, file) = (edge(), tempfile::tempfile().unwrap());
    let ring = Ring::create(SETTINGS, edge).unwrap();
    let batch = Batch::create(&ring, 100).unwrap();
    assert_eq!(Batch::create(&ring, 257).err().unwrap().code, Code::PARAM);
    (0..100).for_each(|tag| batch.add(|| Ok(sync_of(&file, tag))).unwrap());
    assert_eq!(batch.add(|| Ok(sync_of(&file, 100))).unwrap_err().code, Code::BATCH_FULL);
    assert_eq!(batch.submit(&ring).unwrap_err().code, Code::INVALID_STATE);
    assert!(edge.0.lock().accepted.is_empty());
    ring.start().unwrap();
    batch.submit(&ring).unwrap();
    ring.wait_many(100, u32::MAX).unwrap();
    assert_eq!(batch.submit(&ring).unwrap_err().code, Code::PARAM, "empty again");
    batch.add(|| Ok(sync_of(&file, 100))).unwrap();
    batch.destroy(edge);
    assert_eq!(edge.0.lock().released.len(), 101, "what was submitted, and the draft");
    ring.destroy();
    assert_eq!(edge.ended_and_released(), (100, 101));
}

#[test]
fn a_reset_begins_a_new_count() {
    let (edge, file) = (edge(), tempfile::tempfile().unwrap());
    let ring = Ring::create(SETTINGS, edge).unwrap();
    ring.start().unwrap();
    for tag in 0..200 {
        let key = ring.submit_one(sync_of(&file, tag)).unwrap();
        ring.reset_stats(); // perhaps before its end, perhaps after
        ring.validate().unwrap();
        ring.wait(key, u32::MAX).unwrap();
        assert_eq!((ring.stats().submissions_total, ring.stats().completions_total), (0, 0));
    }
    ring.destroy();
}

#[test]
fn settings_out_of_range_are_named() {
    let refused = |settings: Settings| settings.validate().unwrap_err().message.into_owned();
    assert!(SETTINGS.validate().is_ok());
    assert!(refused(Settings { queue_depth: 0, ..SETTINGS }).contains("queue_depth"));
    assert!(refused(Settings { queue_depth: 4097, ..SETTINGS }).contains("queue_depth"));
    assert!(refused(Settings { cq_entries_multiplier: 65, ..SETTINGS }).contains("cq_entries_multiplier"));
    assert!(refused(Settings { worker_threads: 0, ..SETTINGS }).contains("worker_threads"));
    assert!(refused(Settings { timeout_ms: 0, ..SETTINGS }).contains("timeout_ms"));
    assert!(refused(Settings { buffer_size: (16 << 20) + 1, ..SETTINGS }).contains("buffer_size"));
}

#[test]
fn numbers_and_names_fit() {
    for (number, op) in OpKind::ALL.into_iter().enumerate() {
        assert_eq!((op as usize, OpKind::from_number(number as i32)), (number, Some(op)));
    }
    assert_eq!((OpKind::from_number(9), OpKind::from_number(-1)), (None, None));
    assert_eq!((Status::from_number(4), Status::from_number(5)), (Some(Status::Cancelled), None));
}
