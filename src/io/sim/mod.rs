//! The simulated disk: deterministic, in memory, with the faults of real ones. The engine runs on it unchanged.
//!
//! A test runs a workload on a `SimDisk`, lets it crash or fail at a chosen call, takes an image of what a power cut
//! or a kill would leave, and opens the store on that image. Called by tests only; never by the library itself.
//!
//! What is durable when: a file's bytes and size by its own sync (a durable write: its range and the size it needs),
//! names by the directory's sync, directories at once.

mod calls;
mod content;
mod faults;
mod node;
mod raw;
mod state;

pub use faults::{Aftermath, Calls, Failure, Faults, Fill, Survival, Tear};

use super::{Dir, Disk, Ended, ReadAt, ReadMany, ReadManyReport, read_full_at};
use crate::base::random::Random;
use crate::base::sync::{Arc, Mutex};
use faults::Planned;
use state::State;
use std::io;
use std::path::Path;

/// A simulated disk. Clones are handles on the same one.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk; all that is left to chance follows from `seed`.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self::of(State::new(seed, faults))
    }

    fn of(state: State) -> Self {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk that the next boot finds if the power goes now: what was synced, and of the rest what `survival`
    /// leaves. This disk goes on unchanged. Nobody holds a lock on the image, nothing is planned for it.
    pub fn crash_image(&self, rng: &mut Random, survival: Survival) -> SimDisk {
        let state = self.state.lock();
        Self::of(state.after_power_cut(rng, &survival))
    }

    /// The same with nothing left to chance: `keeps` is asked of every piece that may have arrived or not (a sector, a
    /// size, a name), in an order that follows from the answers so far. A call under way counts as made.
    pub fn crash_image_of(&self, keeps: &mut dyn FnMut() -> bool) -> SimDisk {
        Self::of(self.state.lock().after_power_cut_with(keeps))
    }

    /// The disk that the next process finds if this one is killed now: everything that calls have handed to the
    /// kernel, durable or not (a power cut later on may still take it away), and a front part of a write under way.
    pub fn kill_image(&self) -> SimDisk {
        let mut state = self.state.lock();
        let seed = state.rng.next_u64();
        Self::of(state.after_kill(seed))
    }

    /// The same disk once more, with the same future: what is left to chance falls out alike on both.
    pub fn twin(&self) -> SimDisk {
        Self::of(self.state.lock().clone())
    }

    /// Stops the machine in the midst of step number `step` (the first is 1): that call and all later ones, of every
    /// kind, fail. Images then hold none, a part, or all of that call.
    pub fn crash_at(&self, step: u64) {
        self.state.lock().crash_at = Some(step);
    }

    /// Whether the crash has come.
    pub fn crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// Whether `error` is what calls get after a crash.
    pub fn is_crash(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::Other && error.to_string() == state::crash().to_string()
    }

    /// Steps so far: calls that change the disk or make it durable (`Calls::STEPS`), failed ones included.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Calls so far of any kind in `calls`.
    pub fn calls(&self, calls: Calls) -> u64 {
        let state = self.state.lock();
        Calls::each().filter(|kind| kind.meets(calls)).map(|kind| state.calls[kind.index()]).sum()
    }

    /// From now on, the `nth` call (the next is 1) of a kind in `calls` fails with `errno`; `sticky`: those behind
    /// it too. What a failed write or sync leaves is drawn by chance. Several plans may stand side by side.
    pub fn fail_at(&self, nth: u64, errno: i32, sticky: bool, calls: Calls) {
        self.plan(nth, Failure::Errno(errno), sticky, calls);
    }

    /// The same with any failure. Only reads and writes come back short.
    pub fn plan(&self, nth: u64, failure: Failure, sticky: bool, calls: Calls) {
        let planned = Planned { calls, failure, before: nth.max(1) - 1, lasts: failure.lasts(sticky) };
        self.state.lock().planned.push(planned);
    }

    /// Drops all planned failures.
    pub fn fail_no_more(&self) {
        self.state.lock().planned.clear();
    }

    /// Lets files grow by `bytes` in all from now on, then the disk is full; `None`: it never is. Removed files give
    /// their bytes back.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state.lock().space = bytes;
    }

    /// Changes the rates of faults.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Bytes that were written and that a power cut could take away.
    pub fn unsynced_bytes(&self) -> u64 {
        self.state.lock().files.values().map(node::Node::unsynced_bytes).sum()
    }
}

impl Disk for SimDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let mut state = self.state.lock();
        state.admit(Calls::OPEN_DIR)?;
        let is_file = |at: &Path| match (at.parent(), at.file_name().and_then(|name| name.to_str())) {
            (Some(above), Some(name)) => state.folders.get(above).is_some_and(|folder| folder.seen.contains_key(name)),
            _ => false,
        };
        if path.ancestors().any(is_file) {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        state.folders.entry(path.to_owned()).or_default();
        Ok(Arc::new(calls::SimDir { state: Arc::clone(&self.state), path: path.to_owned(), read_only: false }))
    }

    fn open_dir_to_read(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let mut state = self.state.lock();
        state.admit(Calls::OPEN_DIR)?;
        state.folder(path)?;
        Ok(Arc::new(calls::SimDir { state: Arc::clone(&self.state), path: path.to_owned(), read_only: true }))
    }

    fn read_many(&self, reads: &mut [ReadAt<'_>], how: &ReadMany, ended: Ended<'_>) -> ReadManyReport {
        for (index, read) in reads.iter_mut().enumerate() {
            read.result = read_full_at(read.file, read.buf, read.offset);
            ended(index, read);
        }
        ReadManyReport { in_flight_max: (reads.len() as u64).min(u64::from(how.depth.max(1))), ..ReadManyReport::default() }
    }

    fn backend(&self) -> (&'static str, String) {
        ("simulated", "a disk in memory".to_owned())
    }
}

#[cfg(test)]
mod tests;
