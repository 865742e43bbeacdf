//! The calls on directories and files of a simulated disk. They do what the kernel would, or what the state's
//! verdict says. Reached through `io::Dir` and `io::File` only.

use super::super::{Dir, File};
use super::faults::Calls;
use super::state::{CutCall, State, Verdict, crash};
use crate::base::sync::{Arc, Mutex, MutexGuard};
use std::any::Any;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The number that a simulated lock file names as its holder.
const PID: &str = "4242";

/// An open directory.
pub(super) struct SimDir {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) path: PathBuf,
    /// Nothing in it is changed through this.
    pub(super) read_only: bool,
}

impl SimDir {
    fn open_id(&self, id: u64) -> Arc<dyn File> {
        Arc::new(SimFile { state: Arc::clone(&self.state), id, read_only: self.read_only })
    }
}

fn check_writable(read_only: bool) -> io::Result<()> {
    if read_only { Err(io::Error::from_raw_os_error(libc::EROFS)) } else { Ok(()) }
}

impl Dir for SimDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.admit(Calls::LIST)?;
        Ok(state.folder(&self.path)?.seen.keys().map(|name| name.to_string()).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        check_writable(self.read_only)?;
        let mut state = self.state.lock();
        let name: Arc<str> = name.into();
        match state.judge(Calls::CREATE)? {
            Verdict::Go => Ok(self.open_id(state.create(&self.path, &name)?)),
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Cut => cut(state, CutCall::Create { dir: self.path.clone(), name }),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.admit(Calls::OPEN)?;
        match state.folder(&self.path)?.seen.get(name) {
            Some(id) => Ok(self.open_id(*id)),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_writable(self.read_only)?;
        let mut state = self.state.lock();
        match state.judge(Calls::REMOVE)? {
            Verdict::Go => state.remove(&self.path, name),
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Cut => cut(state, CutCall::Remove { dir: self.path.clone(), name: name.into() }),
        }
    }

    fn link(&self, name: &str, to: &dyn Dir, new_name: &str) -> io::Result<()> {
        let elsewhere = || io::Error::from_raw_os_error(libc::EXDEV);
        let to = (to as &dyn Any).downcast_ref::<SimDir>().filter(|to| Arc::ptr_eq(&self.state, &to.state)).ok_or_else(elsewhere)?;
        check_writable(to.read_only)?;
        let mut state = self.state.lock();
        let file = state.folder(&self.path)?.seen.get(name).copied();
        let new_name: Arc<str> = new_name.into();
        // A name comes into being, as with `create`.
        match state.judge(Calls::CREATE)? {
            Verdict::Go => state.link(file.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?, &to.path, &new_name),
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Cut => match file {
                Some(file) => cut(state, CutCall::Link { file, dir: to.path.clone(), name: new_name }),
                None => Err(crash()),
            },
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.admit(Calls::SYNC_DIR)?;
        if !state.faults.lying_sync {
            let folder = state.folder(&self.path)?;
            folder.stable = folder.seen.clone();
            folder.unsynced.clear();
        }
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.state.lock().space
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.state.lock();
        state.admit(Calls::LOCK)?;
        let key = (self.path.clone(), name.to_owned());
        let readers = state.locks.get(&key).copied();
        match readers {
            Some(readers) if !self.read_only || readers == 0 => return Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK)),
            readers => state.locks.insert(key.clone(), if self.read_only { readers.unwrap_or(0) + 1 } else { 0 }),
        };
        if !self.read_only && !state.folder(&self.path)?.seen.contains_key(name) {
            // What the file says is for people, and losing it loses nothing: it may as well be durable.
            let id = state.create(&self.path, &name.into())?;
            state.file(id)?.edit(|content| content.write(0, PID.as_bytes()));
        }
        Ok(Box::new(SimLock { state: Arc::clone(&self.state), key }))
    }

    fn lock_holder(&self, name: &str) -> Option<String> {
        let mut state = self.state.lock();
        let id = *state.folder(&self.path).ok()?.seen.get(name)?;
        String::from_utf8(state.file(id).ok()?.seen().to_vec()).ok()
    }
}

/// A lock that is held until this is dropped.
struct SimLock {
    state: Arc<Mutex<State>>,
    key: (PathBuf, String),
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        match state.locks.get_mut(&self.key) {
            Some(readers) if *readers > 1 => *readers -= 1,
            _ => drop(state.locks.remove(&self.key)),
        }
    }
}

/// An open file.
struct SimFile {
    state: Arc<Mutex<State>>,
    id: u64,
    read_only: bool,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.admit(Calls::LEN)?;
        Ok(state.file(self.id)?.seen().len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.admit(Calls::READ)?;
        let short_one_in = state.faults.short_read_one_in;
        let mut len = state.cut_short(buf.len(), short_one_in);
        let node = state.file(self.id)?;
        let end = offset.saturating_add(len as u64).min(node.seen().len());
        if let Some((bad, _)) = node.unreadable.iter().filter(|(bad, bad_end)| *bad < end && *bad_end > offset).min() {
            match bad.saturating_sub(offset) {
                0 => return Err(io::Error::from_raw_os_error(libc::EIO)),
                good => len = good as usize,
            }
        }
        Ok(node.seen().read(offset, &mut buf[..len]))
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64, durable: bool) -> io::Result<usize> {
        check_writable(self.read_only)?;
        let mut data = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| data.extend_from_slice(piece));
        let mut state = self.state.lock();
        let verdict = state.judge(if durable { Calls::WRITE_DURABLE } else { Calls::WRITE })?;
        let durable = durable && !state.faults.lying_sync;
        match verdict {
            Verdict::Go => {
                let n = write(&mut state, self.id, offset, &data, durable)?;
                if durable {
                    state.check_named(self.id)?;
                }
                Ok(n)
            }
            Verdict::Fail(errno) => {
                write_in_part(&mut state, self.id, offset, &data, durable, errno)?;
                Err(io::Error::from_raw_os_error(errno))
            }
            Verdict::Cut => cut(state, CutCall::Write { file: self.id, offset, data: data.into() }),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let verdict = state.judge(Calls::SYNC)?;
        let aftermath = state.faults.aftermath;
        match verdict {
            Verdict::Go if state.faults.lying_sync => Ok(()),
            Verdict::Go => {
                state.file(self.id)?.sync();
                state.check_named(self.id)
            }
            Verdict::Fail(errno) => {
                let State { files, rng, .. } = &mut *state;
                if let Some(node) = files.get_mut(&self.id) {
                    node.sync_failed(rng, aftermath);
                }
                Err(io::Error::from_raw_os_error(errno))
            }
            // How much of it arrived is what every power cut draws anyway.
            Verdict::Cut => Err(crash()),
        }
    }

    fn forget(&self) {
        if let Ok(node) = self.state.lock().file(self.id) {
            node.forget();
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check_writable(self.read_only)?;
        let mut state = self.state.lock();
        match state.judge(Calls::SET_LEN)? {
            Verdict::Go if len > i64::MAX as u64 => Err(io::Error::from_raw_os_error(libc::EFBIG)),
            Verdict::Go => {
                state.file(self.id)?.set_len(len);
                Ok(())
            }
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Cut => cut(state, CutCall::SetLen { file: self.id, len }),
        }
    }

    fn take_space(&self, from: u64, len: u64) -> io::Result<()> {
        let longer = from.saturating_add(len).max(self.len()?);
        self.allocate(longer)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        check_writable(self.read_only)?;
        let mut state = self.state.lock();
        match state.judge(Calls::ALLOCATE)? {
            Verdict::Go => {
                let growth = len.saturating_sub(state.file(self.id)?.seen().len());
                if state.space.is_some_and(|left| left < growth) {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                state.space = state.space.map(|left| left - growth);
                if growth > 0 {
                    state.file(self.id)?.set_len(len);
                }
                Ok(())
            }
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            Verdict::Cut => cut(state, CutCall::SetLen { file: self.id, len }),
        }
    }

    fn has_one_name(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.admit(Calls::LEN)?;
        let named = state.folders.values().flat_map(|folder| folder.seen.values());
        Ok(named.filter(|named| **named == self.id).count() == 1 || state.faults.names_uncounted)
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

/// Stops the machine in the midst of `call`.
fn cut<T>(mut state: MutexGuard<'_, State>, call: CutCall) -> io::Result<T> {
    state.cut = Some(call);
    Err(crash())
}

/// A write as it goes well, or nearly: short, or until the disk is full.
fn write(state: &mut State, file: u64, offset: u64, data: &[u8], durable: bool) -> io::Result<usize> {
    let short_one_in = state.faults.short_write_one_in;
    let mut len = state.cut_short(data.len(), short_one_in);
    let growth = |len: usize, now: u64| (offset + len as u64).saturating_sub(now);
    let now = state.file(file)?.seen().len();
    if let Some(left) = state.space {
        let too_much = growth(len, now).saturating_sub(left) as usize;
        if too_much > 0 && too_much >= len {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        len -= too_much;
        state.space = Some(left - growth(len, now).min(left));
    }
    let node = state.file(file)?;
    if durable {
        node.write_durably(offset, &data[..len])
    } else {
        node.write(offset, &data[..len])
    }
    Ok(len)
}

/// What a write that fails with `errno` leaves behind all the same: the caller cannot know.
fn write_in_part(state: &mut State, file: u64, offset: u64, data: &[u8], durable: bool, errno: i32) -> io::Result<()> {
    if errno == libc::EINTR || (!durable && matches!(errno, libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EAGAIN | libc::ENOMEM)) {
        return Ok(()); // The kernel reports these only when it has written nothing.
    }
    let done = match state.rng.below(3) {
        0 => 0,
        1 => data.len() as u64,
        _ => state.rng.below(data.len() as u64 + 1),
    };
    let aftermath = state.faults.aftermath;
    let State { files, rng, .. } = state;
    if let Some(node) = files.get_mut(&file) {
        node.write(offset, &data[..done as usize]);
        if durable && done > 0 {
            node.sync_failed(rng, aftermath);
        }
    }
    Ok(())
}
