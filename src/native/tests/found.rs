//! What the simulator has found, each told as the shortest story that shows it.

use super::driver::{Batch, Driver, commits, open, state_of};
use super::model::{Effect, End, KEYS, Oracle, State, value_bytes};
use crate::base::code::Code;
use crate::base::random::Random;
use crate::engine::Engine;
use crate::io::sim::{Calls, Faults, Fill, SimDisk, Survival, Tear};
use crate::native::Options;
use crate::native::log::{Purpose, Wanted};

fn options() -> Options {
    super::workload::options(1 << 20, 0)
}

/// Images to look at where chance decides what a crash leaves.
const DRAWS: u64 = 200;

fn new_disk() -> SimDisk {
    SimDisk::new(1, Faults::default())
}

fn driver(disk: &SimDisk, base: State) -> Driver {
    Driver::open(disk, options(), base).unwrap()
}

fn stage(driver: &mut Driver, durable: bool, effects: &[Effect]) {
    let batch = Batch::new(&driver.engine.hasher, durable, effects.to_vec(), Vec::new());
    driver.stage(vec![batch]);
}

fn commit(driver: &mut Driver, durable: bool, effects: &[Effect]) {
    driver.commit(durable, effects).unwrap();
}

/// Opens what a crash has left; the oracle has to agree.
fn look(disk: &SimDisk, oracle: &Oracle, end: End) -> State {
    let state = open(disk, options()).and_then(|engine| state_of(&engine)).unwrap();
    oracle.check(&state, end).unwrap_or_else(|text| panic!("{text}"));
    state
}

/// Runs `story` with a machine that stops in the midst of its last step.
fn stopped_at_the_end(disk: &SimDisk, story: impl Fn(&SimDisk) -> Oracle) -> (SimDisk, Oracle) {
    let whole = disk.twin();
    story(&whole);
    let stopped = disk.twin();
    stopped.crash_at(whole.steps());
    let oracle = story(&stopped);
    assert!(stopped.crashed());
    (stopped, oracle)
}

/// A group that was staged before a sync and written behind it shared a block with what the sync had made durable.
#[test]
pub fn writing_behind_a_sync_spoils_nothing_before_it() {
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    stage(&mut driver, false, &[(0, 1)]);
    driver.stage_sync();
    stage(&mut driver, false, &[(0, 2)]);
    driver.publish();
    driver.publish();
    driver.publish();
    let mut rng = Random::new(1);
    let spoils = Survival { keep: 0.5, tear: Tear::Sectors, fill: Fill::Zeros, spoils_bytes: 4096 };
    for _ in 0..DRAWS {
        look(&disk.crash_image(&mut rng, spoils), &driver.oracle, End::PowerCut);
    }
}

/// A chunk was begun when the process was killed, and its name was not durable yet. The next chunk named it as its
/// predecessor; a power cut took the one and left the other.
#[test]
pub fn nothing_depends_on_a_chunk_that_was_never_used() {
    let disk = new_disk();
    let begin_a_chunk = |base: State| {
        move |disk: &SimDisk| {
            let mut driver = driver(disk, base);
            stage(&mut driver, false, &[(0, 1)]); // ends with the sync of the directory
            driver.oracle
        }
    };
    let (killed, oracle) = stopped_at_the_end(&disk, begin_a_chunk([0; KEYS]));
    let killed = killed.kill_image();
    let state = look(&killed.twin(), &oracle, End::Kill);
    let (cut, oracle) = stopped_at_the_end(&killed, begin_a_chunk(state));
    let mut rng = Random::new(1);
    for _ in 0..DRAWS {
        look(&cut.crash_image(&mut rng, Survival { keep: 0.5, ..Survival::NOTHING }), &oracle, End::PowerCut);
    }
}

/// The process was killed while the frame that says "closed" was on its way: seen by the next process, which went on
/// from there, and lost by the disk later.
#[test]
pub fn nothing_depends_on_the_frame_that_says_closed() {
    let (killed, oracle) = stopped_at_the_end(&new_disk(), |disk| {
        let mut driver = driver(disk, [0; KEYS]);
        commit(&mut driver, true, &[(0, 1)]);
        driver.close();
        driver.oracle
    });
    for _ in 0..20 {
        let disk = killed.kill_image();
        let state = look(&disk.twin(), &oracle, End::Kill);
        let mut driver = driver(&disk, state);
        commit(&mut driver, true, &[(0, 2)]);
        commit(&mut driver, true, &[(0, 3)]);
        let state = look(&disk.crash_image(&mut Random::new(1), Survival::NOTHING), &driver.oracle, End::PowerCut);
        assert_eq!(state[0], 3);
    }
}

/// The gap before a fresh block belongs to nobody. When the size of the file reached the disk and the rest did not,
/// it held garbage, and what lay durable behind it was cut off as torn.
#[test]
pub fn what_lies_in_a_gap_says_nothing() {
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    commit(&mut driver, true, &[(0, 1)]);
    stage(&mut driver, true, &[(0, 2)]);
    stage(&mut driver, false, &[(0, 3)]);
    driver.write_last();
    driver.publish();
    let mut rng = Random::new(1);
    for _ in 0..DRAWS {
        let survival = Survival { keep: 0.5, fill: Fill::Garbage, ..Survival::NOTHING };
        look(&disk.crash_image(&mut rng, survival), &driver.oracle, End::PowerCut);
    }
}

/// A sync failed, and the kernel took the bytes for written. The next process read them from the cache, synced them in
/// vain, and wrote behind them: what the disk had never held took everything behind it along.
#[test]
pub fn nothing_depends_on_what_only_the_cache_holds() {
    let disk = new_disk();
    let mut poisoned = driver(&disk, [0; KEYS]);
    commit(&mut poisoned, true, &[(0, 1)]);
    commit(&mut poisoned, false, &[(0, 2)]);
    disk.fail_at(1, libc::EIO, false, Calls::SYNC);
    assert_eq!(poisoned.engine.sync().unwrap_err().code, Code::IO);
    assert_eq!(poisoned.commit(false, &[(0, 3)]).unwrap_err().code, Code::IO, "and it takes no more writes");
    let disk = disk.kill_image();
    let state = look(&disk.twin(), &poisoned.oracle, End::PowerCut);
    let mut driver = driver(&disk, state);
    commit(&mut driver, true, &[(0, 4)]);
    commit(&mut driver, true, &[(0, 5)]);
    let state = look(&disk.crash_image(&mut Random::new(1), Survival::NOTHING), &driver.oracle, End::PowerCut);
    assert_eq!(state[0], 5);
}

/// The same with so much in doubt, over several chunks, that recovery reads on from the disk alone. Whichever chunk it was whose
/// sync failed: what is found is there after a power cut, and so is what is written behind it.
#[test]
pub fn much_in_doubt_is_read_from_the_disk() {
    let options = Options { chunk_bytes: 12 << 10, ..options() };
    let (mut failed, mut cut) = (0, 0);
    for seed in 0..DRAWS {
        let (commits, writes, failing) = (1 + seed as u32 % 40, 1 + seed as u32 % 7, 1 + seed % 4);
        let disk = SimDisk::new(seed, Faults::default()); // a part of what is to be synced arrives
        let mut poisoned = Driver::open(&disk, options, [0; KEYS]).unwrap();
        commit(&mut poisoned, true, &[(0, 1)]);
        let version = |commit: u32, write: u32| 2 + commit * writes + write;
        (0..commits).for_each(|i| commit(&mut poisoned, false, &(0..writes).map(|j| (1, version(i, j))).collect::<Vec<_>>()));
        disk.fail_at(failing, libc::EIO, false, Calls::SYNC);
        if poisoned.engine.sync().is_ok() {
            continue; // there were not so many
        }
        failed += 1;
        let disk = disk.kill_image();
        let found = look(&disk.twin(), &poisoned.oracle, End::PowerCut);
        cut += u64::from((1..version(commits - 1, writes - 1)).contains(&found[1]));
        let mut driver = Driver::open(&disk, options, found).unwrap();
        commit(&mut driver, true, &[(0, 4)]);
        let state = look(&disk.crash_image(&mut Random::new(1), Survival::NOTHING), &driver.oracle, End::PowerCut);
        assert_eq!(state[..2], [4, found[1]]);
    }
    assert!(failed > 50 && cut > 10, "{failed}, {cut}");
}

/// A large group is durable as soon as it was written, and the next one says so: it does not pass for much in doubt, or all
/// behind it would be read from the disk.
#[test]
fn large_durable_groups_are_not_in_doubt() {
    let disk = new_disk();
    let options = Options { chunk_bytes: 12 << 10, ..options() };
    let mut driver = Driver::open(&disk, options, [0; KEYS]).unwrap();
    (0..12).for_each(|i| commit(&mut driver, true, &(0..20).map(|j| (1, 1 + i * 20 + j)).collect::<Vec<_>>()));
    let disk = disk.kill_image();
    assert!(disk.list_files().iter().filter(|name| name.starts_with("chunk")).count() > 3);
    let opened = Driver::open(&disk, options, state_of(&open(&disk.twin(), options).unwrap()).unwrap()).unwrap();
    assert!(disk.calls(Calls::SYNC) <= 1, "only what comes last is read once more");
    drop(opened);
}

/// A chunk could not be begun because the directory's sync failed, and its file could not be taken away durably either.
/// Its header said where the old chunk ends; a smaller group then went into the old chunk, behind that end.
#[test]
pub fn nothing_is_written_behind_a_cut_that_may_be_on_the_disk() {
    let disk = new_disk();
    let options = Options { chunk_bytes: 12 << 10, ..options() };
    let mut driver = Driver::open(&disk, options, [0; KEYS]).unwrap();
    commit(&mut driver, true, &[(0, 1)]);
    disk.fail_at(1, libc::EIO, false, Calls::SYNC_DIR);
    let many: Vec<Effect> = (0..100).map(|i| (1, 10 + i)).collect();
    assert_eq!(driver.commit(true, &many).unwrap_err().code, Code::IO);
    commit(&mut driver, true, &[(0, 2)]);
    let mut rng = Random::new(1);
    for _ in 0..DRAWS {
        let state = look(&disk.crash_image(&mut rng, Survival { keep: 0.5, ..Survival::NOTHING }), &driver.oracle, End::PowerCut);
        assert_eq!(state[..2], [2, 0]);
    }
}

/// The disk was full when all but the last zeros of a frame had been written, and then it was not: a frame behind it
/// made the file long enough. The frame that had been reported as failed for good was whole, and came back.
#[test]
pub fn a_frame_that_lacks_nothing_but_zeros_is_in_doubt() {
    let version = (1..).find(|version| value_bytes(0, *version).ends_with(&[0; 600])).unwrap();
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    stage(&mut driver, false, &[(0, version)]);
    stage(&mut driver, false, &[(1, 1)]);
    disk.set_space(Some(value_bytes(0, version).len() as u64 - 400));
    driver.write_first();
    disk.set_space(None);
    driver.settle();
    assert!(driver.errors.iter().all(|error| error.code == Code::DISK_FULL) && driver.errors.len() == 2);
    let state = look(&disk.kill_image(), &driver.oracle, End::Kill);
    assert_eq!(state[..2], [version, 1]);
}

/// The first try wrote all of a frame but its last zeros, the second one nothing: the frame was reported as failed for good, while in
/// a file that was longer already it was whole.
#[test]
fn a_second_try_that_gets_less_far_leaves_the_frame_in_doubt() {
    let version = (1..).find(|version| value_bytes(0, *version).ends_with(&[0; 600])).unwrap();
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    commit(&mut driver, false, &[(1, 1)]);
    let mut batches = [Batch::new(&driver.engine.hasher, false, vec![(0, version)], Vec::new())];
    disk.set_space(Some(value_bytes(0, version).len() as u64 - 400));
    let mut tries = 0;
    let error = driver.engine.commit(driver.engine.turn(), &mut commits(&mut batches), &mut |_| {
        tries += 1;
        disk.set_space(None);
        disk.fail_at(1, libc::ENOMEM, false, Calls::WRITE);
        tries == 1
    });
    let error = error.unwrap_err();
    assert!(tries == 2 && error.transient && error.in_doubt, "{tries} tries: {error:?}");
}

/// A group in doubt lay whole at the end of a chunk, and the next chunk's header cut it off. A process that was killed
/// while it began that chunk left the header without a durable name; the next one saw the cut, and answered
/// accordingly. What has been seen to be cut off must not come back.
#[test]
pub fn a_cut_that_was_seen_stays() {
    let mut doubtful = 0;
    for seed in 0..DRAWS {
        let story = |disk: &SimDisk| {
            let mut driver = driver(disk, [0; KEYS]);
            commit(&mut driver, true, &[(0, 1)]);
            disk.fail_at(1, libc::ENOSPC, false, Calls::WRITE_DURABLE);
            assert_eq!(driver.commit(true, &[(0, 2)]).unwrap_err().code, Code::DISK_FULL);
            stage(&mut driver, true, &[(0, 3)]); // ends with the sync of the directory
            driver.oracle
        };
        let (killed, oracle) = stopped_at_the_end(&SimDisk::new(seed, Faults::default()), story);
        let seen = killed.kill_image();
        let state = look(&seen, &oracle, End::Kill);
        assert_eq!(state[0], 1, "the chunk that was begun says so");
        let left = look(&seen.crash_image(&mut Random::new(seed), Survival::NOTHING), &oracle, End::PowerCut);
        assert_eq!(left, state);
        doubtful += u64::from(look(&killed.crash_image(&mut Random::new(seed), Survival::NOTHING), &oracle, End::PowerCut)[0] == 2);
    }
    assert!(doubtful > 10, "the group in doubt would have been there");
}

/// Compaction took the durable group on the next block for the one that follows, passed over the frame that it could not
/// read, and removed the chunk.
#[test]
pub fn compaction_misses_a_frame_that_it_cannot_read() {
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    commit(&mut driver, false, &[(0, 1)]);
    commit(&mut driver, false, &[(1, 2)]);
    commit(&mut driver, true, &[(2, 3)]);
    let chunk = "chunk-0000000000000001.kvb";
    let first_len = 64 + 16 + Batch::new(&driver.engine.hasher, false, vec![(0, 1)], Vec::new()).record_bytes();
    // The chunk is sealed by opening anew; the copies go into the next.
    driver.close();
    driver.reopen(options()).unwrap();
    commit(&mut driver, true, &[(3, 4)]);
    assert!(disk.flip_bit(chunk, 4096 + first_len + 5, 0), "the header of the second frame");
    assert!(driver.engine.compact_once(100).unwrap());
    assert_eq!(driver.engine.counters().chunks_damaged, 1);
    assert!(disk.list_files().iter().any(|name| name == chunk), "what is damaged is kept");
    assert!(!driver.engine.compact_once(100).unwrap(), "and is not tried again");
    assert_eq!(state_of(&driver.engine).unwrap()[..4], [1, 2, 3, 4]);
}

/// A write failed for want of space while the next group had its place and not yet its digest: the log was said to go on
/// behind that group, which was given up, and could not be opened again.
#[test]
fn a_group_that_is_being_staged_does_not_undo_a_cut() {
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    commit(&mut driver, true, &[(0, 1)]);
    stage(&mut driver, true, &[(0, 2)]);
    let engine = std::sync::Arc::clone(&driver.engine);
    let wanted = Wanted { batches: 1, records: 1, payload_len: 64, durable: true, purpose: Purpose::Put };
    let next = engine.log.stage(&engine.chunks, &engine.counters, &wanted).unwrap();
    disk.set_space(Some(0));
    driver.publish();
    assert_eq!(driver.errors.pop().unwrap().code, Code::DISK_FULL);
    disk.set_space(None);
    engine.log.staged(&next, 144, 77);
    commit(&mut driver, true, &[(1, 3)]);
    driver.close();
    driver.reopen(options()).unwrap();
    assert_eq!(state_of(&driver.engine).unwrap()[..2], [1, 3]);
}

/// The last durable group had no evidence behind it, and was taken for an unfinished end when it was damaged. It was what
/// compaction had moved, and the chunk it came from was gone: what had been durable for long went without a word.
#[test]
pub fn what_compaction_has_moved_is_missed() {
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    commit(&mut driver, true, &[(0, 1), (1, 1)]);
    driver.engine.log.end_chunk();
    commit(&mut driver, true, &[(0, 2)]);
    driver.compact(100);
    driver.check_errors(false);
    assert_eq!(disk.list_files(), ["LOCK", "chunk-0000000000000002.kvb", "manifest-0000000000000001.kvb"]);
    let moved = disk.read_raw("chunk-0000000000000002.kvb").unwrap().len() as u64;
    for damage in [&(|disk: &SimDisk| disk.flip_bit("chunk-0000000000000002.kvb", moved - 100, 0)) as &dyn Fn(&SimDisk) -> bool, &|disk| {
        disk.truncate_raw("chunk-0000000000000002.kvb", moved - 100)
    }] {
        let damaged = disk.kill_image();
        assert!(damage(&damaged));
        assert_eq!(open(&damaged, options()).err().map(|error| error.code), Some(Code::CORRUPTED));
    }
}

/// The first frame and the last part of the header had changed places: the header was bad, and nothing but zeros
/// came behind it. The chunk was taken for one that was never begun, and what it held was gone without a word.
#[test]
fn a_chunk_without_a_header_is_missed_also_if_zeros_follow() {
    let disk = new_disk();
    let mut driver = driver(&disk, [0; KEYS]);
    commit(&mut driver, true, &[(0, 1)]);
    let chunk = "chunk-0000000000000001.kvb";
    let mut bytes = disk.read_raw(chunk).unwrap();
    let frame = bytes.split_off(4096);
    bytes[3000..3000 + frame.len()].copy_from_slice(&frame);
    bytes.resize(4096 + frame.len(), 0);
    let damaged = disk.kill_image();
    damaged.write_raw(chunk, &bytes);
    assert_eq!(open(&damaged, options()).err().map(|error| error.code), Some(Code::CORRUPTED));
}
