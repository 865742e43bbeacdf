//! Reads by threads, where there is no ring: the calling thread reads, and helpers join in when the disk is slow.
//!
//! Called by `RealDisk::read_many`. Helpers are made when first needed, sleep without waking up while there is
//! nothing to do, and end with the disk. If none can be made, the calling thread does it all.
#![allow(unsafe_code)]

#[cfg(all(test, kv_model = "loom"))]
mod models;

use super::super::{ReadAt, ReadMany, ReadManyReport};
use super::finish_by_pread;
use crate::base::planted::{Bug, planted};
use crate::base::sync::atomic::{AtomicUsize, Ordering};
use crate::base::sync::{self, Arc, Condvar, JoinHandle, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Helpers of one disk: with the caller's, 16 reads are in flight at the most.
const HELPERS_MAX: usize = 15;
/// A read that takes longer came from the device and not from the page cache: then company pays.
const SLOW_READ: Duration = Duration::from_micros(20);

/// The helpers of one disk.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Calls with places left for helpers.
    jobs: VecDeque<Arc<Job>>,
    helpers: usize,
    idle: usize,
    stop: bool,
}

/// The reads of one call. Whoever joined takes the next index until none is left.
struct Job {
    reads: *mut ReadAt<'static>,
    count: usize,
    next: AtomicUsize,
    /// Helpers that may still join; changed under the pool's lock only.
    seats: AtomicUsize,
    inside: Mutex<Inside>,
    all_out: Condvar,
}

#[derive(Default)]
struct Inside {
    now: usize,
    most: usize,
}

// SAFETY: what `reads` points to is Send (files are Sync, buffers and results are plain data). Each index is taken by
// one thread only, and the call that lent them waits until every helper is out again.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    /// Does the next read; false when none is left.
    fn read_next(&self) -> bool {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.count {
            return false;
        }
        // SAFETY: `index` is within the slice and was handed out to this thread alone; the slice is borrowed until
        // the call returns, which is after all who joined have left.
        finish_by_pread(unsafe { &mut *self.reads.add(index) });
        true
    }
}

impl Pool {
    /// A pool without threads yet.
    pub(super) fn new() -> Self {
        Pool { shared: Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() }), threads: Mutex::default() }
    }

    /// Does all `reads`, each going on from where its `result` stands.
    pub(super) fn read(&self, reads: &mut [ReadAt<'_>], how: &ReadMany, report: &mut ReadManyReport) {
        if reads.is_empty() {
            return;
        }
        report.in_flight_max = report.in_flight_max.max(1);
        let helpers = HELPERS_MAX.min(how.depth.saturating_sub(1) as usize).min(reads.len() - 1);
        let mut ahead = 0;
        while let Some(read) = reads.get_mut(ahead) {
            let start = Instant::now();
            finish_by_pread(read);
            ahead += 1;
            if helpers > 0 && start.elapsed() > SLOW_READ {
                break;
            }
        }
        let rest = &mut reads[ahead..];
        if rest.len() < 2 {
            return rest.iter_mut().for_each(finish_by_pread);
        }
        let most = self.read_together(rest, helpers.min(rest.len() - 1));
        report.in_flight_max = report.in_flight_max.max(most as u64);
    }

    /// Does all `reads` with up to `helpers` others; returns how many worked at a time at the most.
    fn read_together(&self, reads: &mut [ReadAt<'_>], helpers: usize) -> usize {
        let job = Arc::new(Job {
            reads: reads.as_mut_ptr().cast(),
            count: reads.len(),
            next: AtomicUsize::new(0),
            seats: AtomicUsize::new(helpers),
            inside: Mutex::new(Inside { now: 1, most: 1 }),
            all_out: Condvar::new(),
        });
        self.offer(&job, helpers);
        while job.read_next() {}
        // Out of the queue: from here on nobody can join. Those inside finish the reads they have taken.
        self.shared.state.lock().jobs.retain(|other| !Arc::ptr_eq(other, &job));
        let mut inside = job.inside.lock();
        inside.now -= 1;
        while inside.now > 0 && !planted(Bug::HelpersLeftInside) {
            job.all_out.wait(&mut inside);
        }
        inside.most
    }

    /// Puts the job where helpers find it, and sees to it that there are some.
    fn offer(&self, job: &Arc<Job>, helpers: usize) {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(Arc::clone(job));
        let new = helpers.saturating_sub(state.idle).min(HELPERS_MAX - state.helpers);
        state.helpers += new;
        drop(state);
        for _ in 0..helpers {
            if !self.shared.wake.notify_one() {
                break;
            }
        }
        for made in 0..new {
            let shared = Arc::clone(&self.shared);
            match sync::spawn("kvbatch-read", move || help(&shared)) {
                Ok(thread) => self.threads.lock().push(thread),
                Err(_) => {
                    // No memory or no right for more threads: the caller reads by itself, now and next time tries again.
                    self.shared.state.lock().helpers -= new - made;
                    return;
                }
            }
        }
    }

    /// Shows whether helpers still are there.
    #[cfg(test)]
    pub(super) fn watch(&self) -> std::sync::Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    /// Ends all helpers. No call is running: whoever reads borrows the disk.
    pub(super) fn stop(&self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            drop(thread.join());
        }
    }

    /// Lets go of the helpers without waiting for them: in a child after fork there are none.
    pub(super) fn forget(&self) {
        std::mem::forget(std::mem::take(&mut *self.threads.lock()));
    }
}

/// What a helper does all its life.
fn help(shared: &Shared) {
    let mut state = shared.state.lock();
    while !state.stop {
        let Some(job) = join_job(&mut state) else {
            state.idle += 1;
            shared.wake.wait(&mut state);
            state.idle -= 1;
            continue;
        };
        drop(state);
        while job.read_next() {}
        let mut inside = job.inside.lock();
        inside.now -= 1;
        if inside.now == 0 {
            job.all_out.notify_one();
        }
        drop(inside);
        drop(job);
        state = shared.state.lock();
    }
}

/// Takes a seat in the oldest job that has one.
fn join_job(state: &mut State) -> Option<Arc<Job>> {
    let job = Arc::clone(state.jobs.front()?);
    let left = job.seats.load(Ordering::Relaxed) - 1;
    job.seats.store(left, Ordering::Relaxed);
    if left == 0 {
        state.jobs.pop_front();
    }
    let mut inside = job.inside.lock();
    inside.now += 1;
    inside.most = inside.most.max(inside.now);
    drop(inside);
    Some(job)
}
