//! The keeper: a thread per lane that watches deadlines and the sync interval.
//!
//! It only looks at the clock and hands out work, so a stuck disk cannot hold it up. With nothing queued and nothing
//! unsynced it sleeps without waking up.

use super::lane::{KeeperState, Lane};
use crate::base::sync::Arc;
use std::time::{Duration, Instant};

/// After work, the keeper waits this long with a clock before it sleeps without one: waking it costs each submit more.
const LINGER: Duration = Duration::from_millis(100);

impl Lane {
    /// The keeper's life, until the lane's last user leaves.
    pub(super) fn keep(self: Arc<Self>) {
        let mut unsynced_since = None;
        let mut submits_seen = 0;
        // When it last looked, a moment ago: what is found unsynced may have been written right after.
        let mut looked_at = None;
        let mut queue = self.queue.lock();
        while !queue.stopping {
            let now = Instant::now();
            if let Some(mut expired) = queue.remove(|entry| entry.deadline.is_some_and(|deadline| deadline <= now)) {
                drop(queue);
                expired.context.begin();
                expired.time_out();
                drop(expired);
                self.wake_for_more(); // reads may have waited for it
                queue = self.queue.lock();
                continue;
            }
            let interval = queue.sync_interval();
            let unsynced = interval.is_some() && !queue.sync_running && self.engine.unsynced();
            unsynced_since = if unsynced { unsynced_since.or(looked_at).or(Some(now)) } else { None };
            let sync_at = interval.zip(unsynced_since).and_then(|(interval, since)| since.checked_add(interval));
            if sync_at.is_some_and(|at| at <= now) && !queue.sync_due {
                (unsynced_since, looked_at) = (None, Some(now));
                queue.sync_due = true;
                drop(queue);
                self.wake_for_more();
                queue = self.queue.lock();
                continue;
            }
            looked_at = Some(now);
            let active = queue.submits != submits_seen || queue.is_busy();
            submits_seen = queue.submits;
            let look_again = active.then(|| now + interval.map_or(LINGER, |interval| interval.min(LINGER)));
            let wake_at = [queue.earliest_deadline(), sync_at, look_again].into_iter().flatten().min();
            queue.keeper = KeeperState::Waiting { until: wake_at };
            match wake_at {
                Some(at) => drop(self.keeper.wait_until(&mut queue, at)),
                None => {
                    self.keeper.wait(&mut queue);
                    looked_at = None; // long ago: what is new is new since now
                }
            }
            queue.keeper = KeeperState::Awake;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::{CompleteHook, Edge, Hook, OpKind, OpView};
    use super::super::{Context, Manager, Settings};
    use super::*;

    struct Deaf;

    impl Edge for Deaf {
        fn op_done(&self, _op: &OpView<'_>) {}
        fn batch_done(&self, _tag: usize, _completed: usize, _failed: usize, _hook: CompleteHook) {}
        fn write_out(&self, _hook: &Hook, _value: Option<&[u8]>) {}
    }

    #[test]
    fn it_sleeps_without_a_clock_once_nothing_goes_on() {
        let directory = tempfile::tempdir().expect("directory");
        let url = directory.path().join("store");
        for fsync_interval_ms in [0, 20] {
            let settings = Settings { enable_batch_fsync: false, fsync_interval_ms, ..Settings::default() };
            let manager = Manager::create(settings, url.as_os_str().as_encoded_bytes()).expect("created");
            manager.start().expect("started");
            let lane = manager.enter_flight().expect("running");
            manager.leave_flight();
            for _ in 0..2 {
                let context = Context::create(&manager, 1, &Deaf).expect("created");
                context.add(OpKind::Put, b"key", b"value", Hook::default()).expect("added");
                context.submit(CompleteHook::default()).expect("submitted");
                assert_eq!(context.wait(60_000), Ok(()));
                context.destroy();
                let settled = || matches!(lane.queue.lock().keeper, KeeperState::Waiting { until: None });
                while !settled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            manager.destroy();
        }
    }
}
