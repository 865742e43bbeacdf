//! The simulated disk keeps what real ones keep, loses what they lose, and does the same again for the same seed.

use super::super::{Dir, Disk, File, ReadAt, ReadMany, read_full_at, write_all_at};
use super::{Aftermath, Calls, Failure, Faults, Fill, SimDisk, Survival, Tear};
use crate::base::random::Random;
use crate::base::sync::Arc;
use std::io::{self, IoSlice};
use std::path::Path;

const NAME: &str = "f";

fn rng() -> Random {
    Random::new(7)
}

fn dir(disk: &SimDisk) -> Arc<dyn Dir> {
    disk.open_dir(Path::new("/store")).unwrap()
}

/// A disk with the durable, empty file `NAME`.
fn with_file(faults: Faults) -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(1, faults);
    let dir = dir(&disk);
    let file = dir.create(NAME).unwrap();
    dir.sync().unwrap();
    (disk, file)
}

fn write(file: &Arc<dyn File>, offset: u64, bytes: &[u8], durable: bool) {
    write_all_at(&**file, &mut [IoSlice::new(bytes)], offset, durable).unwrap();
}

fn after_cut(disk: &SimDisk, survival: Survival) -> Vec<u8> {
    disk.crash_image(&mut rng(), survival).read_raw(NAME).unwrap()
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, &[1; 1000], false);
    file.sync().unwrap();
    write(&file, 500, &[2; 1000], false);
    assert_eq!(disk.unsynced_bytes(), 1000);
    assert!(after_cut(&disk, Survival::NOTHING) == [1; 1000]);
    let all = [vec![1; 500], vec![2; 1000]].concat();
    assert!(after_cut(&disk, Survival::EVERYTHING) == all);
    assert!(disk.kill_image().read_raw(NAME).unwrap() == all, "a kill takes nothing");
    assert!(after_cut(&disk.kill_image(), Survival::NOTHING) == [1; 1000], "but does not make anything durable");
    file.sync().unwrap();
    assert!(after_cut(&disk, Survival::NOTHING) == all);
    assert_eq!(disk.unsynced_bytes(), 0);
}

#[test]
fn names_are_durable_by_the_directory_alone() {
    let disk = SimDisk::new(1, Faults::default());
    let dir = dir(&disk);
    let file = dir.create("a").unwrap();
    write(&file, 0, b"x", false);
    file.sync().unwrap();
    assert_eq!(disk.crash_image(&mut rng(), Survival::NOTHING).list_files(), Vec::<String>::new());
    assert_eq!(disk.crash_image(&mut rng(), Survival::EVERYTHING).read_raw("a").unwrap(), b"x");
    dir.sync().unwrap();
    dir.remove("a").unwrap();
    dir.create("b").unwrap();
    assert_eq!(disk.list_files(), ["b"]);
    assert_eq!(disk.crash_image(&mut rng(), Survival::NOTHING).list_files(), ["a"]);
    let mut seen = std::collections::BTreeSet::new();
    let mut rng = rng();
    for _ in 0..100 {
        seen.insert(disk.crash_image(&mut rng, Survival { keep: 0.5, ..Survival::NOTHING }).list_files());
    }
    assert_eq!(seen.len(), 4, "creation and removal survive or not, each for itself: {seen:?}");
    dir.sync().unwrap();
    assert_eq!(disk.crash_image(&mut rng, Survival::NOTHING).list_files(), ["b"]);
}

#[test]
fn a_durable_write_keeps_its_range_alone() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, &[1; 4096], false);
    write(&file, 8192, &[2; 4096], true);
    write(&file, 12288, &[3; 4096], false);
    let left = after_cut(&disk, Survival::NOTHING);
    assert_eq!(left.len(), 12288, "and the size it needs");
    assert!(left[..8192] == [0; 8192] && left[8192..] == [2; 4096]);
    let garbage = after_cut(&disk, Survival { fill: Fill::Garbage, ..Survival::NOTHING });
    assert!(garbage[..8192] != [0; 8192] && garbage[8192..] == [2; 4096]);
    write(&file, 0, &[4; 100], true);
    write(&file, 0, &[5; 100], false);
    assert!(after_cut(&disk, Survival::NOTHING)[..100] == [4; 100], "the newest of the durable ones");
}

#[test]
fn writes_come_apart_at_sectors() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, &[1; 64 * 512], false);
    file.sync().unwrap();
    write(&file, 0, &[2; 64 * 512], false);
    let mut rng = rng();
    for (tear, keep) in [(Tear::Sectors, 0.5), (Tear::Front, 0.1), (Tear::Back, 0.1), (Tear::Never, 0.5)] {
        let mut torn = 0;
        for _ in 0..100 {
            let left = disk.crash_image(&mut rng, Survival { keep, tear, ..Survival::NOTHING }).read_raw(NAME).unwrap();
            let sectors: Vec<u8> = left.chunks(512).map(|s| if s.iter().all(|b| *b == s[0]) { s[0] } else { 0 }).collect();
            assert!(sectors.len() == 64 && !sectors.contains(&0), "{tear:?} {sectors:?}");
            let changes = sectors.windows(2).filter(|pair| pair[0] != pair[1]).count();
            match tear {
                Tear::Sectors => assert!(changes > 10),
                Tear::Front => assert!(changes == 0 || (changes == 1 && sectors[0] == 2)),
                Tear::Back => assert!(changes == 0 || (changes == 1 && sectors[0] == 1)),
                _ => assert_eq!(changes, 0),
            }
            torn += usize::from(changes > 0);
        }
        assert_eq!(torn > 50, tear != Tear::Never, "{tear:?}");
    }
    let bytes = Survival { keep: 0.01, tear: Tear::Bytes, ..Survival::NOTHING };
    let left = disk.crash_image(&mut rng, bytes).read_raw(NAME).unwrap();
    assert_ne!(left.iter().filter(|b| **b == 2).count() % 512, 0);
}

#[test]
fn sizes_travel_without_data_and_data_without_sizes() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, &[1; 8192], false);
    let mut rng = rng();
    let half = Survival { keep: 0.5, ..Survival::NOTHING };
    let left: Vec<Vec<u8>> = (0..200).map(|_| disk.crash_image(&mut rng, half).read_raw(NAME).unwrap()).collect();
    assert!(left.iter().any(Vec::is_empty), "data without size");
    assert!(left.iter().any(|bytes| bytes.len() == 8192 && bytes[..512] == [0; 512]), "size without data");
    assert!(left.iter().any(|bytes| bytes.len() > 512 && bytes.len() < 8192), "a part of the size");
    file.sync().unwrap();
    file.set_len(100).unwrap();
    let sizes: std::collections::BTreeSet<usize> =
        (0..50).map(|_| disk.crash_image(&mut rng, half).read_raw(NAME).unwrap().len()).collect();
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [100, 8192]);
    file.set_len(200).unwrap();
    assert!(disk.read_raw(NAME).unwrap()[..] == [vec![1; 100], vec![0; 100]].concat());
}

#[test]
fn a_write_in_flight_may_spoil_its_block() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, &[1; 12288], false);
    file.sync().unwrap();
    write(&file, 5000, &[2; 100], false);
    let mut rng = rng();
    let spoils = Survival { keep: 0.5, spoils_bytes: 4096, ..Survival::NOTHING };
    let left: Vec<Vec<u8>> = (0..100).map(|_| disk.crash_image(&mut rng, spoils).read_raw(NAME).unwrap()).collect();
    assert!(left.iter().all(|bytes| bytes.len() == 12288 && bytes[..4096] == [1; 4096] && bytes[8192..] == [1; 4096]));
    assert!(left.iter().any(|bytes| bytes[4096..5000] != [1; 904]) && left.iter().any(|bytes| bytes[5100..8192] != [1; 3092]));
}

/// A workload of every kind of step; stops at the first error.
fn workload(disk: &SimDisk) -> io::Result<()> {
    let dir = disk.open_dir(Path::new("/store"))?;
    let file = dir.create(NAME)?;
    file.write_at(&[IoSlice::new(&[1; 1000])], 0, false)?;
    file.sync()?;
    dir.sync()?;
    file.write_at(&[IoSlice::new(&[2; 1000])], 1000, true)?;
    file.set_len(1500)?;
    file.sync()?;
    dir.remove(NAME)?;
    dir.sync()
}

#[test]
fn a_crash_stops_the_machine_in_the_midst_of_a_step() {
    let whole = SimDisk::new(1, Faults::default());
    workload(&whole).unwrap();
    let steps = whole.steps();
    assert_eq!((steps, whole.calls(Calls::ALL), whole.calls(Calls::SYNC | Calls::SYNC_DIR)), (9, 10, 4));
    for step in 1..=steps {
        let disk = SimDisk::new(step, Faults::default());
        disk.crash_at(step);
        let error = workload(&disk).unwrap_err();
        assert!(SimDisk::is_crash(&error) && disk.crashed() && disk.steps() == step);
        assert!(disk.open_dir(Path::new("/store")).is_err(), "and every later call fails");
        let (mut sizes, mut killed) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let mut rng = rng();
        for _ in 0..100 {
            let image = disk.crash_image(&mut rng, Survival::EVERYTHING);
            assert!(!image.crashed() && image.steps() == 0);
            sizes.insert(image.read_raw(NAME).map(|bytes| bytes.len()));
            killed.insert(disk.kill_image().read_raw(NAME).map(|bytes| bytes.len()));
        }
        assert!(sizes == killed || (sizes.len() > 20 && killed.len() > 20), "{step}: {sizes:?} {killed:?}");
        match step {
            1 => assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [None, Some(0)]),
            2 => assert!(sizes.len() > 20 && sizes.contains(&Some(0)) && sizes.contains(&Some(1000))),
            3 | 4 => assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [Some(1000)]),
            5 => assert!(sizes.len() > 20 && sizes.contains(&Some(1000)) && sizes.contains(&Some(2000))),
            6 => assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [Some(1500), Some(2000)]),
            8 => assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [None, Some(1500)]),
            _ => assert_eq!(sizes.len(), 1),
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed: u64| {
        let faults = Faults { short_write_one_in: 3, eintr_one_in: 4, short_read_one_in: 3, ..Faults::default() };
        let disk = SimDisk::new(seed, faults);
        let file = dir(&disk).create(NAME).unwrap();
        for i in 0..20 {
            write(&file, i * 700, &[i as u8; 1000], i % 5 == 4);
        }
        let mut buf = vec![0; 30_000];
        read_full_at(&*file, &mut buf, 0).unwrap();
        let mut rng = Random::new(seed);
        let survival = Survival::draw(&mut rng);
        dir(&disk).sync().unwrap();
        (disk.calls(Calls::ALL), disk.crash_image(&mut rng, survival).read_raw(NAME))
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
    let disk = SimDisk::new(1, Faults { short_write_one_in: 2, ..Faults::default() });
    let name = |disk: &SimDisk| dir(disk).create(NAME).unwrap();
    let twin = disk.twin();
    let counts = |file: Arc<dyn File>| (0..50).map(|_| file.write_at(&[IoSlice::new(&[1; 99])], 0, false).unwrap()).collect::<Vec<_>>();
    assert_eq!(counts(name(&disk)), counts(name(&twin)), "and a twin has the same future");
    assert!(run(1) != run(2));
}

#[test]
fn calls_fail_as_planned() {
    let (disk, file) = with_file(Faults::default());
    disk.fail_at(2, libc::EIO, false, Calls::WRITE);
    disk.fail_at(1, libc::EROFS, true, Calls::CREATE | Calls::REMOVE);
    write(&file, 0, b"ab", false);
    assert_eq!(errno(file.write_at(&[IoSlice::new(b"cd")], 2, false)), Some(libc::EIO));
    write(&file, 2, b"cd", false);
    for _ in 0..3 {
        assert_eq!(errno(dir(&disk).create("g")), Some(libc::EROFS));
        assert_eq!(errno(dir(&disk).remove(NAME)), Some(libc::EROFS));
    }
    disk.fail_no_more();
    dir(&disk).remove(NAME).unwrap();
}

#[test]
fn a_failed_sync_loses_what_it_was_to_keep() {
    for aftermath in [Aftermath::KeepsNew, Aftermath::Reverts, Aftermath::Mixed] {
        let (disk, file) = with_file(Faults { aftermath, ..Faults::default() });
        write(&file, 0, &[1; 40 * 4096], false);
        file.sync().unwrap();
        write(&file, 0, &[2; 40 * 4096], false);
        disk.fail_at(1, libc::EIO, false, Calls::SYNC);
        assert_eq!(errno(file.sync()), Some(libc::EIO));
        file.sync().unwrap();
        let left = after_cut(&disk, Survival::EVERYTHING);
        let on_disk = left.iter().filter(|b| **b == 2).count();
        assert!(on_disk > 0 && on_disk < 40 * 4096, "some of it arrived, whatever the next sync said");
        let seen = disk.read_raw(NAME).unwrap();
        match aftermath {
            Aftermath::KeepsNew => assert!(seen.iter().all(|b| *b == 2)),
            Aftermath::Reverts => assert!(seen == left),
            Aftermath::Mixed => assert!(seen != left && seen.contains(&1) && seen.contains(&2)),
        }
        file.forget();
        assert!(disk.read_raw(NAME).unwrap() == left, "who forgets the cache reads the disk");
        write(&file, 0, &[3; 40 * 4096], false);
        file.forget();
        assert!(disk.read_raw(NAME).unwrap().iter().all(|b| *b == 3), "what is yet to be written is not forgotten");
        file.sync().unwrap();
        assert!(after_cut(&disk, Survival::NOTHING).iter().all(|b| *b == 3), "what is written anew is synced anew");
    }
}

#[test]
fn a_failed_durable_write_may_have_been_made() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed, Faults::default());
        let file = dir(&disk).create(NAME).unwrap();
        disk.fail_at(1, libc::EIO, false, Calls::WRITE_DURABLE);
        assert!(file.write_at(&[IoSlice::new(&[1; 2048])], 0, true).is_err());
        dir(&disk).sync().unwrap();
        let left = after_cut(&disk, Survival::NOTHING);
        seen.insert(left.iter().filter(|b| **b == 1).count());
    }
    assert!(seen.contains(&0) && seen.contains(&2048) && seen.len() > 5, "{seen:?}");
}

#[test]
fn a_lying_disk_keeps_nothing() {
    let (disk, file) = with_file(Faults { lying_sync: true, ..Faults::default() });
    disk.set_faults(Faults::default());
    dir(&disk).sync().unwrap();
    disk.set_faults(Faults { lying_sync: true, ..Faults::default() });
    write(&file, 0, b"x", false);
    file.sync().unwrap();
    write(&file, 1, b"y", true);
    assert_eq!(after_cut(&disk, Survival::NOTHING), b"");
    assert_eq!(after_cut(&disk, Survival::EVERYTHING), b"xy");
}

#[test]
fn calls_come_back_short_and_interrupted() {
    let faults = Faults { short_write_one_in: 2, short_read_one_in: 2, eintr_one_in: 5, ..Faults::default() };
    let (disk, file) = with_file(faults);
    let bytes: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    let (mut short, mut interrupted) = (0, 0);
    for _ in 0..100 {
        match file.write_at(&[IoSlice::new(&bytes)], 0, false) {
            Ok(n) => short += usize::from((1..5000).contains(&n)),
            Err(e) => interrupted += usize::from(e.kind() == io::ErrorKind::Interrupted),
        }
    }
    assert!(short > 20 && interrupted > 5, "{short} {interrupted}");
    let calls = write_all_at(&*file, &mut bytes.chunks(10).map(IoSlice::new).collect::<Vec<_>>(), 0, true).unwrap();
    assert!(calls > 1);
    let mut bufs = vec![[0u8; 64]; 100];
    let mut reads: Vec<ReadAt<'_>> =
        bufs.iter_mut().enumerate().map(|(i, buf)| ReadAt { file: &*file, offset: i as u64 * 50, buf, result: Ok(0) }).collect();
    let report = disk.read_many(&mut reads, &ReadMany { depth: 16, polling: true }, &mut |_, _| ());
    assert_eq!((report.in_flight_max, report.through_ring, report.polled), (16, 0, 0));
    for (i, read) in reads.iter().enumerate() {
        let there = &bytes[i * 50..(i * 50 + 64).min(5000)];
        assert!(read.result.as_ref().is_ok_and(|n| *n == there.len()) && read.buf[..there.len()] == *there);
    }
}

#[test]
fn a_full_disk_takes_what_fits() {
    let (disk, file) = with_file(Faults::default());
    disk.set_space(Some(150));
    assert_eq!(file.write_at(&[IoSlice::new(&[1; 100])], 0, false).unwrap(), 100);
    assert_eq!(file.write_at(&[IoSlice::new(&[1; 100])], 50, false).unwrap(), 100, "only growth counts");
    assert_eq!(errno(file.write_at(&[IoSlice::new(&[1; 100])], 150, false)), Some(libc::ENOSPC));
    disk.set_space(Some(30));
    assert_eq!(file.write_at(&[IoSlice::new(&[1; 100])], 140, false).unwrap(), 40);
    assert_eq!(errno(file.write_at(&[IoSlice::new(&[1; 100])], 180, true)), Some(libc::ENOSPC));
    dir(&disk).remove(NAME).unwrap();
    let other = dir(&disk).create("g").unwrap();
    assert_eq!(other.write_at(&[IoSlice::new(&[1; 1000])], 0, false).unwrap(), 180, "what was removed is free");
    disk.set_space(None);
    write(&other, 0, &[1; 100_000], false);
}

#[test]
fn one_holds_the_lock() {
    let disk = SimDisk::new(1, Faults::default());
    let held = dir(&disk).lock("LOCK").unwrap();
    assert_eq!(dir(&disk).lock("LOCK").err().unwrap().kind(), io::ErrorKind::WouldBlock);
    assert!(dir(&disk).lock_holder("LOCK").is_some_and(|pid| pid.parse::<u32>().is_ok()));
    assert_eq!(dir(&disk).list().unwrap(), ["LOCK"]);
    assert!(dir(&disk.kill_image()).lock("LOCK").is_ok());
    assert!(dir(&disk.crash_image(&mut rng(), Survival::NOTHING)).lock("LOCK").is_ok());
    drop(held);
    assert!(dir(&disk).lock("LOCK").is_ok());
}

#[test]
fn damage_by_hand() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, b"abc", false);
    assert!(disk.flip_bit(NAME, 1, 0) && !disk.flip_bit(NAME, 3, 0) && !disk.flip_bit("none", 0, 0));
    assert_eq!(after_cut(&disk, Survival::NOTHING), b"acc");
    assert!(disk.truncate_raw(NAME, 5) && disk.read_raw(NAME).unwrap() == b"acc\0\0");
    assert!(disk.patch_raw(NAME, 4, b"xy") && disk.read_raw(NAME).unwrap() == b"acc\0xy");
    assert!(disk.write_raw(NAME, b"new") && disk.write_raw("g", b"other"));
    let image = disk.crash_image(&mut rng(), Survival::NOTHING);
    assert_eq!((image.list_files(), image.read_raw("g").unwrap()), (vec![NAME.to_owned(), "g".to_owned()], b"other".to_vec()));
    assert!(image.remove_raw("g") && !image.remove_raw("g"));
    assert_eq!(disk.list_files().len(), 2, "an image is a disk of its own");
    assert!(disk.make_unreadable("g", 2, 1));
    let file = dir(&disk).open("g").unwrap();
    let mut buf = [0; 5];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 2);
    assert_eq!(errno(file.read_at(&mut buf, 2)), Some(libc::EIO));
    assert_eq!(file.read_at(&mut buf, 3).unwrap(), 2);
    assert!(disk.heal("g") && file.read_at(&mut buf, 0).unwrap() == 5);
    assert!(!SimDisk::new(1, Faults::default()).write_raw("x", b""));
}

#[test]
fn a_file_is_no_directory() {
    let (disk, _) = with_file(Faults::default());
    assert_eq!(errno(disk.open_dir(Path::new("/store/f"))), Some(libc::ENOTDIR));
    assert_eq!(errno(disk.open_dir(Path::new("/store/f/g"))), Some(libc::ENOTDIR));
    assert_eq!(errno(dir(&disk).open("none")), Some(libc::ENOENT));
    assert_eq!(errno(dir(&disk).remove("none")), Some(libc::ENOENT));
    assert_eq!(errno(dir(&disk).create(NAME)), Some(libc::EEXIST));
}

#[test]
fn every_piece_can_be_chosen_by_itself() {
    let (disk, file) = with_file(Faults::default());
    write(&file, 0, &[1; 1024], false);
    let left = |choice: u32| {
        let mut asked = 0;
        let image = disk.crash_image_of(&mut || {
            asked += 1;
            choice >> (asked - 1) & 1 == 1
        });
        (asked, image.read_raw(NAME).unwrap())
    };
    assert_eq!(left(0b000), (3, vec![]), "two sectors and the size");
    assert_eq!(left(0b100), (3, vec![0; 1024]));
    assert_eq!(left(0b101), (3, [[1; 512], [0; 512]].concat()));
    assert_eq!(left(0b111), (3, vec![1; 1024]));
    disk.crash_at(disk.steps() + 1);
    assert!(SimDisk::is_crash(&dir(&disk).create("g").err().unwrap()));
    let named = |keeps: bool| disk.crash_image_of(&mut || keeps).list_files();
    assert_eq!((named(false).len(), named(true).len()), (1, 2), "the call under way counts as made");
}

#[test]
fn calls_come_back_short_as_planned() {
    let (disk, file) = with_file(Faults::default());
    disk.plan(2, Failure::AllButOne, false, Calls::WRITE);
    disk.plan(1, Failure::OneByte, true, Calls::READ);
    let lens: Vec<usize> = (0..3).map(|_| file.write_at(&[IoSlice::new(&[1; 10])], 0, false).unwrap()).collect();
    assert_eq!(lens, [10, 9, 10]);
    let mut buf = [0; 10];
    assert_eq!((file.read_at(&mut buf, 0).unwrap(), file.read_at(&mut buf, 0).unwrap()), (1, 1));
    assert_eq!(read_full_at(&*file, &mut buf, 0).unwrap(), 10);
}
