//! All of a simulated disk, behind one lock: directories, files, and the machinery that decides about each call.
//! Used by the rest of `sim` only.

use super::faults::{Calls, Failure, Faults, Planned, Survival};
use super::node::Node;
use crate::base::random::Random;
use crate::base::sync::Arc;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Names of a directory and the files they stand for.
pub(super) type Names = BTreeMap<Arc<str>, u64>;

/// One directory.
#[derive(Clone, Default)]
pub(super) struct Folder {
    /// What calls see.
    pub(super) seen: Names,
    /// What is on stable storage.
    pub(super) stable: Names,
    /// Names that came (true) or went (false) since the last sync, in order.
    pub(super) unsynced: Vec<(Arc<str>, u64, bool)>,
}

/// The call that a crash cut short: nobody knows how far it got.
#[derive(Clone)]
pub(super) enum CutCall {
    Write { file: u64, offset: u64, data: Arc<[u8]> },
    SetLen { file: u64, len: u64 },
    Create { dir: PathBuf, name: Arc<str> },
    Link { file: u64, dir: PathBuf, name: Arc<str> },
    Remove { dir: PathBuf, name: Arc<str> },
}

/// What becomes of a call.
pub(super) enum Verdict {
    /// It is carried out.
    Go,
    /// It fails with this errno.
    Fail(i32),
    /// The machine stops in the midst of it.
    Cut,
}

/// All of a disk.
#[derive(Clone)]
pub(super) struct State {
    pub(super) rng: Random,
    pub(super) faults: Faults,
    pub(super) planned: Vec<Planned>,
    /// Bytes by which files may yet grow.
    pub(super) space: Option<u64>,
    pub(super) folders: BTreeMap<PathBuf, Folder>,
    pub(super) files: BTreeMap<u64, Node>,
    pub(super) next_file: u64,
    /// Locks that are held, with the number of readers who share it; 0: one has it alone.
    pub(super) locks: BTreeMap<(PathBuf, String), u64>,
    pub(super) steps: u64,
    pub(super) calls: [u64; Calls::KINDS],
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) cut: Option<CutCall>,
    /// How short the read or write that was just let through comes back.
    short: Option<Failure>,
}

impl State {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        State {
            rng: Random::new(seed),
            faults,
            planned: Vec::new(),
            space: None,
            folders: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            locks: BTreeMap::new(),
            steps: 0,
            calls: [0; Calls::KINDS],
            crash_at: None,
            crashed: false,
            cut: None,
            short: None,
        }
    }

    /// Counts a call and decides about it.
    pub(super) fn judge(&mut self, call: Calls) -> io::Result<Verdict> {
        if self.crashed {
            return Err(crash());
        }
        self.calls[call.index()] += 1;
        if Calls::STEPS.meets(call) {
            self.steps += 1;
            if self.crash_at.is_some_and(|at| self.steps >= at) {
                self.crashed = true;
                return Ok(Verdict::Cut);
            }
        }
        let strikes: Vec<Failure> = self.planned.iter_mut().filter_map(|p| p.strikes(call)).collect();
        self.short = strikes.first().copied().filter(|failure| !matches!(failure, Failure::Errno(_)));
        if let Some(Failure::Errno(errno)) = strikes.first() {
            return Ok(Verdict::Fail(*errno));
        }
        let interruptible = Calls::READ | Calls::WRITE | Calls::WRITE_DURABLE;
        if interruptible.meets(call) && self.one_in(self.faults.eintr_one_in) {
            return Ok(Verdict::Fail(libc::EINTR));
        }
        Ok(Verdict::Go)
    }

    /// For calls that leave nothing half done: an error unless the call is carried out.
    pub(super) fn admit(&mut self, call: Calls) -> io::Result<()> {
        match self.judge(call)? {
            Verdict::Go => Ok(()),
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Cut => Err(crash()),
        }
    }

    /// How many of the `len` bytes of a read or write get through; `one_in`: how often chance makes it short.
    pub(super) fn cut_short(&mut self, len: usize, one_in: u64) -> usize {
        match self.short.take() {
            _ if len <= 1 => len,
            Some(Failure::OneByte) => 1,
            Some(_) => len - 1,
            None if self.one_in(one_in) => 1 + self.rng.below(len as u64 - 1) as usize,
            None => len,
        }
    }

    /// True once in `n` times; never for 0.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.rng.one_in(n)
    }

    pub(super) fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        self.folders.get_mut(path).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    pub(super) fn file(&mut self, id: u64) -> io::Result<&mut Node> {
        self.files.get_mut(&id).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    /// The real disk makes no promise for a file without a name either.
    pub(super) fn check_named(&self, id: u64) -> io::Result<()> {
        if self.folders.values().any(|folder| folder.seen.values().any(|named| *named == id)) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ESTALE))
    }

    /// Makes an empty file and its name, both not yet durable.
    pub(super) fn create(&mut self, dir: &Path, name: &Arc<str>) -> io::Result<u64> {
        let id = self.next_file;
        self.link(id, dir, name)?;
        self.files.insert(id, Node::default());
        self.next_file += 1;
        Ok(id)
    }

    /// Gives the file a name, not yet durable.
    pub(super) fn link(&mut self, id: u64, dir: &Path, name: &Arc<str>) -> io::Result<()> {
        let folder = self.folder(dir)?;
        if folder.seen.contains_key(name) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        folder.seen.insert(Arc::clone(name), id);
        folder.unsynced.push((Arc::clone(name), id, true));
        Ok(())
    }

    /// Takes a name away, not yet durably. The file stays for those who have it open.
    pub(super) fn remove(&mut self, dir: &Path, name: &str) -> io::Result<()> {
        let folder = self.folder(dir)?;
        let Some((name, id)) = folder.seen.remove_entry(name) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        folder.unsynced.push((name, id, false));
        let named = self.check_named(id).is_ok();
        let freed = if named { 0 } else { self.files.get(&id).map_or(0, |node| node.seen().len()) };
        self.space = self.space.map(|left| left.saturating_add(freed));
        Ok(())
    }

    /// What another process finds after this one was killed.
    pub(super) fn after_kill(&self, seed: u64) -> State {
        let mut next = self.clone();
        next.rng = Random::new(seed);
        next.finish_cut_call();
        next.forget_process();
        next
    }

    /// What the next boot finds after the power went.
    pub(super) fn after_power_cut(&self, rng: &mut Random, survival: &Survival) -> State {
        let mut next = self.clone();
        next.rng = Random::new(rng.next_u64());
        next.finish_cut_call();
        next.settle_names(&mut || survival.keeps(rng));
        for node in next.files.values_mut() {
            node.power_cut(rng, survival);
        }
        next.forget_process();
        next
    }

    /// What the next boot finds, if `keeps` answers for every piece that was not durable.
    pub(super) fn after_power_cut_with(&self, keeps: &mut dyn FnMut() -> bool) -> State {
        let mut next = self.clone();
        match next.cut.take() {
            Some(CutCall::Write { file, offset, data }) => drop(next.file(file).map(|node| node.write(offset, &data))),
            Some(CutCall::SetLen { file, len }) => drop(next.file(file).map(|node| node.set_len(len))),
            Some(CutCall::Create { dir, name }) => drop(next.create(&dir, &name)),
            Some(CutCall::Link { file, dir, name }) => drop(next.link(file, &dir, &name)),
            Some(CutCall::Remove { dir, name }) => drop(next.remove(&dir, &name)),
            None => {}
        }
        next.settle_names(keeps);
        for node in next.files.values_mut() {
            node.power_cut_with(keeps);
        }
        next.forget_process();
        next
    }

    /// Names come and go as `keeps` says; files without one are gone.
    fn settle_names(&mut self, keeps: &mut dyn FnMut() -> bool) {
        for folder in self.folders.values_mut() {
            for (name, id, came) in std::mem::take(&mut folder.unsynced) {
                if !keeps() {
                    continue;
                }
                if came {
                    folder.stable.insert(name, id);
                } else if folder.stable.get(&name) == Some(&id) {
                    folder.stable.remove(&name);
                }
            }
            folder.seen = folder.stable.clone();
        }
        let named: BTreeSet<u64> = self.folders.values().flat_map(|folder| folder.seen.values().copied()).collect();
        self.files.retain(|id, _| named.contains(id));
    }

    /// Carries out as much of the cut call as chance will have it; from then on it is like any other call.
    fn finish_cut_call(&mut self) {
        match self.cut.take() {
            Some(CutCall::Write { file, offset, data }) => {
                let len = data.len() as u64;
                let done = match self.rng.below(4) {
                    0 => 0,
                    1 => len,
                    _ => self.rng.below(len + 1),
                };
                if let Some(node) = self.files.get_mut(&file) {
                    node.write(offset, &data[..done as usize]);
                }
            }
            Some(CutCall::SetLen { file, len }) if self.rng.one_in(2) => {
                if let Some(node) = self.files.get_mut(&file) {
                    node.set_len(len);
                }
            }
            Some(CutCall::Create { dir, name }) if self.rng.one_in(2) => drop(self.create(&dir, &name)),
            Some(CutCall::Link { file, dir, name }) if self.rng.one_in(2) => drop(self.link(file, &dir, &name)),
            Some(CutCall::Remove { dir, name }) if self.rng.one_in(2) => drop(self.remove(&dir, &name)),
            _ => {}
        }
    }

    /// What ends with a process: its locks, and the plans that were made for it. Rates and the space left stay.
    fn forget_process(&mut self) {
        self.locks.clear();
        self.planned.clear();
        self.steps = 0;
        self.calls = [0; Calls::KINDS];
        self.crash_at = None;
        self.crashed = false;
    }
}

/// What every call gets after a simulated crash.
pub(super) fn crash() -> io::Error {
    io::Error::other("simulated crash")
}
