//! The keeper: a thread per lane that watches deadlines and the sync interval.
//!
//! It only looks at the clock and hands out work, so a stuck disk cannot hold it up. With nothing queued and nothing
//! unsynced it sleeps without waking up.

use super::lane::{KeeperState, Lane};
use crate::base::sync::Arc;
use std::time::{Duration, Instant};

/// After work, the keeper waits this long with a clock before it sleeps without one: waking it costs each submit more.
const LINGER: Duration = Duration::from_secs(2);

impl Lane {
    /// The keeper's life, until the lane's last user leaves.
    pub(super) fn keep(self: Arc<Self>) {
        let mut unsynced_since = None;
        let mut submits_seen = 0;
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
            unsynced_since = if unsynced { unsynced_since.or(Some(now)) } else { None };
            let sync_at = interval.zip(unsynced_since).and_then(|(interval, since)| since.checked_add(interval));
            if sync_at.is_some_and(|at| at <= now) && !queue.sync_due {
                unsynced_since = None;
                queue.sync_due = true;
                drop(queue);
                self.wake_for_more();
                queue = self.queue.lock();
                continue;
            }
            let active = queue.submits != submits_seen || queue.is_busy();
            submits_seen = queue.submits;
            let look_again = active.then(|| now + interval.map_or(LINGER, |interval| interval.min(LINGER)));
            let wake_at = [queue.earliest_deadline(), sync_at, look_again].into_iter().flatten().min();
            queue.keeper = KeeperState::Waiting { until: wake_at };
            match wake_at {
                Some(at) => drop(self.keeper.wait_until(&mut queue, at)),
                None => self.keeper.wait(&mut queue),
            }
            queue.keeper = KeeperState::Awake;
        }
    }
}
