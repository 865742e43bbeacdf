//! What both disks must do alike: the simulated one is a stand-in only as long as it answers as the real one does.

use super::real::{Backend, RealDisk};
use super::sim::{Faults, SimDisk};
use super::{Dir, Disk, File, ReadAt, ReadMany, read_full_at, write_all_at};
use crate::base::random::Random;
use crate::base::sync::Arc;
use std::io::{self, IoSlice};
use std::path::Path;

/// A result in a form that can be compared: errors by their number.
fn told<T>(result: io::Result<T>) -> Result<T, Option<i32>> {
    result.map_err(|e| e.raw_os_error())
}

/// One disk, its directory, and the files open on it.
struct Side {
    disk: Box<dyn Disk>,
    dir: Arc<dyn Dir>,
    open: Vec<Arc<dyn File>>,
    lock: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl Side {
    fn new(disk: Box<dyn Disk>, path: &Path) -> Self {
        let dir = disk.open_dir(path).unwrap();
        Side { disk, dir, open: Vec::new(), lock: None }
    }

    /// Does one thing, chosen by `rng`, and tells what came of it.
    fn act(&mut self, rng: &mut Random) -> String {
        let name = ["a", "b", "c"][rng.below(3) as usize];
        let offset = rng.below(20_000);
        let len = rng.below(9000) as usize;
        let which = rng.next_u64() as usize;
        let action = rng.below(14);
        match action {
            0 | 1 => {
                let opened = if action == 0 { self.dir.create(name) } else { self.dir.open(name) };
                let told = told(opened.map(|file| self.open.push(file)));
                return format!("create or open {name}: {told:?}");
            }
            2 => return format!("remove {name}: {:?}", told(self.dir.remove(name))),
            3 => {
                let mut names = self.dir.list().unwrap();
                names.sort();
                return format!("list: {names:?}, sync: {:?}", told(self.dir.sync()));
            }
            4 => {
                self.lock = None;
                self.lock = Some(self.dir.lock("LOCK").unwrap());
                return format!("lock: holder is a number: {}", self.dir.lock_holder("LOCK").unwrap().parse::<u32>().is_ok());
            }
            _ => {}
        }
        if self.open.is_empty() {
            return "nothing open".to_owned();
        }
        let which = which % self.open.len();
        let file = &self.open[which];
        match action {
            5..=8 => {
                let bytes: Vec<u8> = (0..len).map(|i| (i as u64 ^ offset) as u8).collect();
                let (front, back) = bytes.split_at(len / 3);
                let mut pieces = [IoSlice::new(front), IoSlice::new(&[]), IoSlice::new(back)];
                format!("write: {:?}", told(write_all_at(&**file, &mut pieces, offset, action == 8)))
            }
            9 => format!("set_len {offset}: {:?} {:?}", told(file.set_len(offset)), told(file.len())),
            10 => format!("sync: {:?}", told(file.sync())),
            11 => {
                let mut bufs = vec![vec![0; len]; 5];
                let files = &self.open;
                let mut reads: Vec<ReadAt<'_>> = bufs
                    .iter_mut()
                    .enumerate()
                    .map(|(i, buf)| ReadAt { file: &*files[(which + i) % files.len()], offset: offset * i as u64, buf, result: Ok(0) })
                    .collect();
                self.disk.read_many(&mut reads, &ReadMany { depth: 2, polling: false }, &mut |_, _| ());
                let results: Vec<_> = reads.iter_mut().map(|read| told(std::mem::replace(&mut read.result, Ok(0)))).collect();
                format!("read many: {results:?} {bufs:?}")
            }
            12 => {
                drop(self.open.swap_remove(which));
                "close".to_owned()
            }
            _ => {
                let mut buf = vec![0; len];
                format!("read: {:?} {buf:?}", told(read_full_at(&**file, &mut buf, offset)))
            }
        }
    }
}

#[test]
fn both_disks_do_alike() {
    for seed in 0..20 {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("store");
        let backend = if seed % 2 == 0 { Backend::Auto } else { Backend::Threads };
        let mut real = Side::new(Box::new(RealDisk::with_backend(8, backend, "")), &path);
        let mut sim = Side::new(Box::new(SimDisk::new(seed, Faults::default())), &path);
        let (mut for_real, mut for_sim) = (Random::new(seed), Random::new(seed));
        for step in 0..150 {
            let (real, sim) = (real.act(&mut for_real), sim.act(&mut for_sim));
            assert!(real == sim, "seed {seed}, step {step}: real: {:.200}, simulated: {:.200}", real, sim);
        }
    }
}

/// What second names and reading only do, told in words.
fn links_and_readers(disk: &dyn Disk, path: &Path) -> Vec<String> {
    let missing = disk.open_dir_to_read(&path.join("none")).map(drop);
    let (dir, other) = (disk.open_dir(&path.join("a")).unwrap(), disk.open_dir(&path.join("b")).unwrap());
    let reader = disk.open_dir_to_read(&path.join("a")).unwrap();
    let mut said = vec![format!("{:?}", told(missing))];
    let mut say = |result: io::Result<()>| said.push(format!("{:?}", told(result)));
    say(reader.lock("LOCK").map(drop));
    let file = dir.create("x").unwrap();
    say(write_all_at(&*file, &mut [IoSlice::new(b"one")], 0, false).map(drop));
    say(dir.link("x", &*other, "y"));
    say(dir.link("x", &*other, "y"));
    say(dir.link("none", &*other, "z"));
    say(dir.link("x", &*reader, "z"));
    say(reader.link("x", &*other, "z"));
    say(other.sync());
    say(dir.remove("x"));
    say(write_all_at(&*file, &mut [IoSlice::new(b"two")], 0, true).map(drop));
    let mut bytes = [0; 8];
    let len = read_full_at(&*other.open("z").unwrap(), &mut bytes, 0).unwrap();
    assert_eq!(&bytes[..len], b"two", "one file under two names");
    say(reader.create("n").map(drop));
    say(reader.remove("x"));
    dir.create("w").unwrap();
    let read = reader.open("w").unwrap();
    say(write_all_at(&*read, &mut [IoSlice::new(b"no")], 0, false).map(drop));
    say(read.set_len(7));
    say(read.sync());
    let held = dir.lock("LOCK").unwrap();
    say(reader.lock("LOCK").map(drop));
    drop(held);
    let first = reader.lock("LOCK").unwrap();
    let second = reader.lock("LOCK").unwrap();
    drop(first);
    say(dir.lock("LOCK").map(drop));
    drop(second);
    say(dir.lock("LOCK").map(drop));
    said
}

#[test]
fn both_disks_link_and_read_only_alike() {
    let tmp = tempfile::tempdir().unwrap();
    let real = links_and_readers(&RealDisk::with_backend(8, Backend::Threads, ""), tmp.path());
    let sim = links_and_readers(&SimDisk::new(1, Faults::default()), Path::new("sim"));
    assert_eq!(real, sim);
    assert!(real.iter().filter(|said| said.contains(&libc::EROFS.to_string())).count() >= 4, "{real:?}");
}

/// A file that writes as much as the script says.
struct Scripted(crate::base::sync::Mutex<Vec<io::Result<usize>>>);

impl File for Scripted {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        self.0.lock().remove(0)
    }
    fn write_at(&self, _: &[IoSlice<'_>], _: u64, _: bool) -> io::Result<usize> {
        self.0.lock().remove(0)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn take_space(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

fn write_by_script(script: Vec<io::Result<usize>>) -> Result<u64, Option<i32>> {
    told(write_all_at(&Scripted(crate::base::sync::Mutex::new(script)), &mut [IoSlice::new(&[0; 10])], 0, false))
}

#[test]
fn a_write_goes_on_until_all_is_written() {
    let error = |errno: i32| Err(io::Error::from_raw_os_error(errno));
    assert_eq!(write_by_script(vec![Ok(10)]), Ok(1));
    assert_eq!(write_by_script(vec![Ok(1), error(libc::EINTR), Ok(4), Ok(5)]), Ok(4));
    assert_eq!(write_by_script(vec![Ok(0), Ok(3), Ok(0), Ok(7)]), Ok(4));
    assert_eq!(write_by_script(vec![Ok(3), Ok(0), Ok(0)]), Err(Some(libc::ENOSPC)));
    assert_eq!(write_by_script(vec![Ok(3), error(libc::EIO)]), Err(Some(libc::EIO)));
    let none = Scripted(crate::base::sync::Mutex::new(vec![]));
    assert_eq!(told(write_all_at(&none, &mut [], 0, true)), Ok(0));
    assert_eq!(told(write_all_at(&none, &mut [IoSlice::new(&[]), IoSlice::new(&[])], 0, true)), Ok(0));
}

#[test]
fn a_read_goes_on_until_the_end() {
    let error = |errno: i32| Err(io::Error::from_raw_os_error(errno));
    let read = |script| told(read_full_at(&Scripted(crate::base::sync::Mutex::new(script)), &mut [0; 10], 0));
    assert_eq!(read(vec![Ok(4), error(libc::EINTR), Ok(6)]), Ok(10));
    assert_eq!(read(vec![Ok(4), Ok(0)]), Ok(4));
    assert_eq!(read(vec![Ok(4), error(libc::EIO)]), Err(Some(libc::EIO)));
}
