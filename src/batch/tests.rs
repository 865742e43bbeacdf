//! The batch layer on real engines: what C cannot reach yet (UPDATE, SYNC), and the ways of the whole.

use super::operation::{CompleteHook, Edge, Hook, OpKind, OpView};
use super::{Context, Manager, Settings, Status};
use crate::base::clock;
use crate::base::code::Code;
use crate::base::error::Result;
use crate::base::sync::atomic::Ordering;
use crate::base::sync::{Arc, Mutex};
use crate::engine::{BatchId, BatchOutcome};

type Seen = (OpKind, Vec<u8>, Option<Vec<u8>>, Code, usize);

/// Notes what is delivered. `user_data` of the hooks tells batches apart.
struct Notes {
    ops: Mutex<Vec<Seen>>,
    ends: Mutex<Vec<(usize, usize, usize)>>,
}

static NOTES: Notes = Notes { ops: Mutex::new(Vec::new()), ends: Mutex::new(Vec::new()) };

impl Edge for Notes {
    fn op_done(&self, op: &OpView<'_>) {
        self.ops.lock().push((op.kind, op.key.to_vec(), op.value.map(<[u8]>::to_vec), op.code, op.hook.user_data));
    }
    fn batch_done(&self, _tag: usize, completed: usize, failed: usize, hook: CompleteHook) {
        self.ends.lock().push((completed, failed, hook.user_data));
    }
    fn write_out(&self, _hook: &Hook, _value: Option<&[u8]>) {}
}

/// Runs one batch and returns what its callbacks saw.
fn run(manager: &Arc<Manager>, batch: usize, ops: &[(OpKind, &str, &str)]) -> (Result<()>, Vec<Seen>) {
    let context = Context::create(manager, 0, &NOTES).expect("created");
    for (kind, key, value) in ops {
        let hook = Hook { callback: 1, user_data: batch, ..Hook::default() };
        context.add(*kind, key.as_bytes(), value.as_bytes(), hook).expect("added");
    }
    context.submit(CompleteHook { callback: 1, user_data: batch }).expect("submitted");
    let result = context.wait(60_000);
    assert!(context.status().is_end());
    context.destroy();
    let mut seen = Vec::new();
    NOTES.ops.lock().retain(|op| {
        if op.4 == batch {
            seen.push(op.clone());
        }
        op.4 != batch
    });
    (result, seen)
}

fn codes(seen: &[Seen]) -> Vec<Code> {
    seen.iter().map(|op| op.3).collect()
}

fn on_every_engine(body: impl Fn(&Arc<Manager>, &dyn Fn() -> Arc<Manager>)) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("store");
    for url in ["memory:batch-tests".as_bytes(), path.as_os_str().as_encoded_bytes()] {
        for fail_fast in [false, true] {
            let make = || {
                let manager = Manager::create(Settings { fail_fast, ..Settings::default() }, url).expect("created");
                manager.start().expect("started");
                manager
            };
            let manager = make();
            body(&manager, &make);
            manager.destroy();
        }
    }
}

#[test]
pub fn puts_are_read_back_by_another_manager() {
    on_every_engine(|manager, make| {
        let (result, seen) = run(manager, 1, &[(OpKind::Put, "k", "v"), (OpKind::Put, "empty", ""), (OpKind::Get, "k", "")]);
        assert_eq!((result, codes(&seen)), (Ok(()), vec![Code::NONE; 3]));
        assert_eq!(seen[2].2.as_deref(), Some(&b"v"[..]));
        let other = make();
        let (_, seen) = run(&other, 1, &[(OpKind::Get, "k", ""), (OpKind::Get, "empty", ""), (OpKind::Get, "none", "")]);
        assert_eq!(codes(&seen), [Code::NONE, Code::NONE, Code::KEY_NOT_FOUND]);
        assert_eq!((seen[0].2.as_deref(), seen[1].2.as_deref(), seen[2].2.as_deref()), (Some(&b"v"[..]), Some(&b""[..]), None));
        other.destroy();
    });
}

#[test]
pub fn reads_see_what_was_submitted_before_them() {
    on_every_engine(|manager, _| {
        for round in 0..200 {
            let value = round.to_string();
            let writes = Context::create(manager, 0, &NOTES).expect("created");
            for key in ["x", "y"] {
                writes.add(OpKind::Put, key.as_bytes(), value.as_bytes(), Hook::default()).expect("added");
            }
            writes.submit(CompleteHook::default()).expect("submitted"); // nobody waits for it yet
            let (_, seen) = run(manager, 41, &[(OpKind::Get, "none", ""), (OpKind::Get, "y", "")]);
            writes.destroy();
            assert_eq!((seen[0].3, seen[1].2.as_deref()), (Code::KEY_NOT_FOUND, Some(value.as_bytes())));
        }
    });
}

#[test]
fn an_update_wants_its_key_to_be_there() {
    on_every_engine(|manager, _| {
        let all_or_nothing = manager.settings().fail_fast;
        assert!(run(manager, 2, &[(OpKind::Put, "u", "1"), (OpKind::Delete, "gone", "")]).0.is_ok());
        let (result, seen) = run(manager, 2, &[(OpKind::Update, "u", "2"), (OpKind::Update, "gone", "x"), (OpKind::Put, "p", "y")]);
        assert_eq!(result.expect_err("failed").code, Code::BATCH_FAILED);
        let rest = if all_or_nothing { Code::BATCH_FAILED } else { Code::NONE };
        assert_eq!(codes(&seen), [rest, Code::KEY_NOT_FOUND, rest]);
        let (_, seen) = run(manager, 2, &[(OpKind::Get, "u", ""), (OpKind::Get, "gone", ""), (OpKind::Get, "p", "")]);
        let expected = if all_or_nothing { "1" } else { "2" };
        assert_eq!(seen[0].2.as_deref(), Some(expected.as_bytes()));
        assert_eq!(codes(&seen[1..]), [Code::KEY_NOT_FOUND, if all_or_nothing { Code::KEY_NOT_FOUND } else { Code::NONE }]);
        assert!(run(manager, 2, &[(OpKind::Delete, "p", "")]).0.is_ok());
    });
}

#[test]
fn sync_makes_what_came_before_durable() {
    let directory = tempfile::tempdir().expect("directory");
    let url = directory.path().join("store");
    let settings = Settings { enable_batch_fsync: false, fsync_interval_ms: 0, ..Settings::default() };
    let manager = Manager::create(settings, url.as_os_str().as_encoded_bytes()).expect("created");
    manager.start().expect("started");
    let counter = |name: &str| manager.counters().into_iter().find(|(n, _)| n == name).map_or(0, |(_, v)| v.parse().unwrap_or(0));
    assert!(run(&manager, 3, &[(OpKind::Put, "a", "1")]).0.is_ok());
    assert_eq!(counter("syncs"), 0);
    assert!(run(&manager, 3, &[(OpKind::Sync, "", "")]).0.is_ok());
    assert_eq!(counter("syncs"), 1);
    assert!(run(&manager, 3, &[(OpKind::Put, "b", "1"), (OpKind::Sync, "", "")]).0.is_ok());
    assert_eq!(counter("syncs"), 2);
    assert!(run(&manager, 3, &[(OpKind::Sync, "", "")]).0.is_ok());
    assert_eq!(counter("syncs"), 2, "nothing was left to be synced");
    manager.destroy();
}

#[test]
fn a_store_is_shared_and_closed_with_its_last_manager() {
    on_every_engine(|manager, make| {
        let other = make();
        assert!(run(manager, 4, &[(OpKind::Put, "shared", "1")]).0.is_ok());
        assert_eq!(run(&other, 4, &[(OpKind::Get, "shared", "")]).1[0].3, Code::NONE);
        manager.stop().expect("stopped");
        assert_eq!(run(&other, 4, &[(OpKind::Get, "shared", "")]).1[0].3, Code::NONE);
        other.destroy();
        manager.start().expect("started again");
        assert_eq!(run(manager, 4, &[(OpKind::Get, "shared", "")]).1[0].3, Code::NONE);
    });
}

#[test]
fn many_threads_share_a_manager() {
    on_every_engine(|manager, _| {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for batch in 0..20 {
                        let context = Context::create(manager, 0, &NOTES).expect("created");
                        for i in 0..20 {
                            let key = format!("{thread}-{batch}-{i}");
                            context.add(OpKind::Put, key.as_bytes(), key.as_bytes(), Hook::default()).expect("added");
                        }
                        context.submit(CompleteHook::default()).expect("submitted");
                        assert_eq!(context.wait(60_000), Ok(()));
                        assert_eq!(context.status(), Status::Completed);
                        context.destroy();
                    }
                });
            }
        });
        let (_, seen) = run(manager, 5, &[(OpKind::Get, "0-0-0", ""), (OpKind::Get, "7-19-19", "")]);
        assert_eq!(seen[1].2.as_deref(), Some(&b"7-19-19"[..]));
        let stats = manager.stats();
        assert_eq!((stats.active_batches, stats.queued_operations, stats.failed_operations), (0, 0, 0));
        assert_eq!(stats.completed_operations, 8 * 20 * 20 + 2);
    });
}

/// Runs one batch of a put that expires and a GET behind it; what the GET found.
fn put_expiring(manager: &Arc<Manager>, batch: usize, value: &str, expiry_ms: u64) -> Option<Vec<u8>> {
    let context = Context::create(manager, 0, &NOTES).expect("created");
    let none = Hook::default();
    context.add_expiring(OpKind::Put, b"brief", value.as_bytes(), Some(expiry_ms), none).expect("added");
    let refused = context.add_expiring(OpKind::Get, b"brief", b"", Some(1), none).expect_err("a GET cannot expire");
    assert_eq!(refused.code, Code::INVALID_PARAM);
    context.submit(CompleteHook::default()).expect("submitted");
    assert_eq!(context.wait(60_000), Ok(()));
    context.destroy();
    run(manager, batch, &[(OpKind::Get, "brief", "")]).1[0].2.clone()
}

#[test]
fn what_has_expired_is_not_there() {
    on_every_engine(|manager, make| {
        let value = "again and again and again and again";
        let now_ms = clock::unix_ms_rising();
        assert_eq!(put_expiring(manager, 6, value, now_ms + 3_600_000).as_deref(), Some(value.as_bytes()));
        assert!(run(manager, 6, &[(OpKind::Update, "brief", "2")]).0.is_ok());
        assert_eq!(put_expiring(manager, 6, value, now_ms), None, "it hides what was there before");
        let updated = run(manager, 6, &[(OpKind::Update, "brief", "3")]).1;
        assert!(updated[0].3 == Code::KEY_NOT_FOUND || updated[0].3 == Code::BATCH_FAILED);
        let other = make();
        manager.stop().expect("stopped");
        manager.start().expect("started again");
        assert_eq!(run(&other, 6, &[(OpKind::Get, "brief", "")]).1[0].3, Code::KEY_NOT_FOUND);
        other.destroy();
    });
}

#[test]
fn what_has_expired_is_not_there_for_its_own_batch_either() {
    on_every_engine(|manager, _| {
        let context = Context::create(manager, 0, &NOTES).expect("created");
        context.add_expiring(OpKind::Put, b"own", b"value", Some(1), Hook::default()).expect("added");
        context.add(OpKind::Get, b"own", b"", Hook::default()).expect("added");
        context.submit(CompleteHook::default()).expect("submitted");
        assert_eq!(context.wait(60_000), Ok(()));
        let state = context.state.lock();
        assert_eq!(state.work.as_ref().map(|work| work.ops[1].code), Some(Code::KEY_NOT_FOUND));
        drop(state);
        context.destroy();
    });
}

#[test]
fn nothing_comes_back_when_the_clock_is_set_back() {
    let manager = Manager::create(Settings::default(), b"memory:clock").expect("created");
    manager.start().expect("started");
    let expiry_ms = clock::unix_ms_rising() + 50;
    put_expiring(&manager, 7, "soon gone", expiry_ms);
    while clock::unix_ms_rising() < expiry_ms {
        std::thread::yield_now();
    }
    let gone = || run(&manager, 7, &[(OpKind::Get, "brief", "")]).1[0].3 == Code::KEY_NOT_FOUND;
    assert!(gone());
    clock::SET_BACK_US.store(3_600_000_000, Ordering::Relaxed);
    let still_gone = gone();
    clock::SET_BACK_US.store(0, Ordering::Relaxed);
    assert!(still_gone);
    manager.destroy();
}

#[test]
fn a_batch_that_writes_has_an_id_for_ever() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("store");
    let make = || {
        let manager = Manager::create(Settings::default(), path.as_os_str().as_encoded_bytes()).expect("created");
        manager.start().expect("started");
        manager
    };
    let manager = make();
    let batch = |ops: &[(OpKind, &str)]| {
        let context = Context::create(&manager, 0, &NOTES).expect("created");
        ops.iter().for_each(|(kind, key)| context.add(*kind, key.as_bytes(), b"v", Hook::default()).expect("added"));
        assert_eq!(context.batch_id(), None, "it has no place yet");
        context.submit(CompleteHook::default()).expect("submitted");
        let id = context.batch_id();
        context.wait(60_000).expect("ended");
        context.destroy();
        id
    };
    let ids = [batch(&[(OpKind::Put, "a")]), batch(&[(OpKind::Get, "a")]), batch(&[(OpKind::Put, "b"), (OpKind::Delete, "a")])];
    let [Some(first), None, Some(second)] = ids else { panic!("{ids:?}") };
    assert_eq!((first.number, second.number, first.opening), (1, 2, second.opening));
    let never = BatchId { number: 3, ..first };
    assert_eq!(manager.batch_outcome(first).expect("running"), BatchOutcome::Committed);
    assert_eq!(manager.batch_outcome(never).expect("running"), BatchOutcome::Unknown);
    manager.stop().expect("stopped");
    assert_eq!(manager.batch_outcome(first).expect_err("not running").code, Code::INVALID_STATE);
    let manager = make();
    let outcomes = [first, second, never].map(|id| manager.batch_outcome(id).expect("running"));
    assert_eq!(outcomes, [BatchOutcome::Committed, BatchOutcome::Committed, BatchOutcome::NotCommitted]);
    manager.stop().expect("stopped");
}

#[test]
pub fn of_several_writes_to_a_key_the_last_one_stays() {
    on_every_engine(|manager, _| {
        assert!(run(manager, 6, &[(OpKind::Put, "d", "1"), (OpKind::Put, "d", "2"), (OpKind::Put, "d", "3")]).0.is_ok());
        assert_eq!(run(manager, 6, &[(OpKind::Get, "d", "")]).1[0].2.as_deref(), Some(&b"3"[..]));
        assert!(run(manager, 6, &[(OpKind::Put, "d", "4"), (OpKind::Delete, "d", "")]).0.is_ok());
        assert_eq!(codes(&run(manager, 6, &[(OpKind::Get, "d", "")]).1), [Code::KEY_NOT_FOUND]);
    });
}

/// A worker has the batch, and the thread that waits for it sleeps.
#[test]
pub fn whoever_waits_is_woken() {
    on_every_engine(|manager, _| {
        for round in 0..100 {
            let context = Context::create(manager, 0, &NOTES).expect("created");
            context.add(OpKind::Put, b"woken", b"", Hook { callback: 1, user_data: 7, ..Hook::default() }).expect("added");
            // Every tenth batch keeps a worker busy for longer than this thread takes to fall asleep.
            let more: u32 = if round % 10 == 9 { 200 } else { 0 };
            for key in 0..more {
                context.add(OpKind::Put, &key.to_le_bytes(), &[0; 16 << 10], Hook::default()).expect("added");
            }
            context.submit(CompleteHook::default()).expect("submitted");
            // Sometimes the worker is first, sometimes this thread, and sometimes they meet.
            match more {
                0 => (0..round % 9).for_each(|_| std::thread::yield_now()),
                _ => std::thread::sleep(std::time::Duration::from_micros(50 * (round / 10))),
            }
            assert_eq!(context.wait(30_000), Ok(()), "round {round}");
            context.destroy();
        }
        NOTES.ops.lock().retain(|op| op.4 != 7);
    });
}

#[test]
fn what_batches_hold_while_they_are_filled_is_counted() {
    let manager = Manager::create(Settings::default(), b"memory:held").expect("created");
    manager.start().expect("started");
    let contexts: Vec<_> = (0..3).map(|_| Context::create(&manager, 1000, &NOTES).expect("created")).collect();
    let held = || contexts.iter().map(|context| context.stats().current_memory_usage).sum::<usize>();
    for round in 0..500 {
        for context in &contexts {
            context.add(OpKind::Put, b"key", &vec![1; round % 37], Hook::default()).expect("added");
        }
        let stats = manager.stats();
        assert_eq!(stats.current_memory_usage, held());
        assert!(stats.peak_memory_usage >= held() && stats.peak_memory_usage < held() + 3 * 4096, "round {round}");
    }
    let most = held();
    assert_eq!(contexts[0].stats().total_operations, 500);
    contexts[0].reset_stats();
    assert_eq!((contexts[0].stats().total_operations, manager.stats().current_memory_usage), (0, most));
    contexts[0].submit(CompleteHook::default()).expect("submitted");
    assert_eq!(contexts[0].wait(60_000), Ok(()));
    contexts[1].cancel().expect("cancelled");
    assert_eq!((manager.stats().current_memory_usage, held()), (most, most), "an ended batch holds what it held");
    assert_eq!(contexts[1].add(OpKind::Put, b"key", b"", Hook::default()).expect_err("refused").code, Code::INVALID_STATE);
    contexts.iter().for_each(Context::destroy);
    assert_eq!((manager.stats().current_memory_usage, manager.stats().peak_memory_usage >= most), (0, true));
    manager.destroy();
}

/// A submit that is refused leaves a batch that goes on being filled, also by others meanwhile.
#[test]
fn a_refused_submit_does_not_get_in_the_way_of_adding() {
    let manager = Manager::create(Settings::default(), b"memory:refused").expect("created");
    let context = Context::create(&manager, 20_000, &NOTES).expect("created");
    context.add(OpKind::Put, b"key", b"", Hook::default()).expect("added");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    context.add(OpKind::Put, b"key", b"value", Hook::default()).expect("added");
                }
            });
        }
        for _ in 0..200 {
            assert_eq!(context.submit(CompleteHook::default()).expect_err("not running").code, Code::INVALID_STATE);
        }
    });
    assert_eq!(context.stats().total_operations, 10_001);
    manager.start().expect("started");
    context.submit(CompleteHook::default()).expect("submitted");
    assert_eq!(context.wait(60_000), Ok(()));
    context.destroy();
    manager.destroy();
}
