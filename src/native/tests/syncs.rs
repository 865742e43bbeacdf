//! Syncs that nobody waits for: what they make durable, and what follows when one fails.

use super::driver::{Batch, Driver};
use super::model::KEYS;
use super::workload::options;
use crate::base::code::Code;
use crate::io::sim::{Calls, Faults, SimDisk};

impl Driver {
    /// What `ahead` does beside commits: syncs what lies before the mark, and sets the next.
    pub fn sync_beside(&mut self) {
        let (mut seq, groups) = self.mark;
        match self.engine.log.sync_beside(&mut seq, &self.engine.counters.syncs) {
            Err(error) => self.errors.push(error),
            Ok(false) => {}
            Ok(true) => {
                self.oracle.made_durable(groups);
                self.mark = (seq, self.oracle.len());
            }
        }
    }
}

/// A store with a group that is not durable.
fn with_one_group() -> (SimDisk, Driver) {
    let disk = SimDisk::new(1, Faults::default());
    let mut driver = Driver::open(&disk, options(64 << 10, 64 << 10), [0; KEYS]).unwrap();
    driver.commit(false, &[(0, 1)]).unwrap();
    (disk, driver)
}

#[test]
fn a_sync_beside_makes_durable_what_was_staged_before_its_mark() {
    let (_, mut driver) = with_one_group();
    let first = driver.engine.log.published();
    driver.sync_beside();
    assert_eq!((driver.engine.log.durable(), driver.mark.0), (0, first), "there was no mark yet");
    driver.commit(false, &[(1, 2)]).unwrap();
    driver.sync_beside();
    assert_eq!(driver.engine.log.durable(), first, "what came behind the mark is not promised");
    driver.sync_beside();
    assert_eq!(driver.engine.log.durable(), driver.engine.log.published());
    driver.check_errors(false);
}

#[test]
fn a_sync_beside_waits_until_everything_before_its_mark_is_published() {
    let (_, mut driver) = with_one_group();
    let batch = Batch::new(&driver.engine.hasher, false, vec![(1, 2)], Vec::new());
    driver.stage(vec![batch]);
    driver.sync_beside();
    let mark = driver.mark;
    driver.sync_beside();
    assert_eq!((driver.mark, driver.engine.log.durable()), (mark, 0), "a group before it is still on its way");
    driver.settle();
    driver.sync_beside();
    assert_eq!(driver.engine.log.durable(), mark.0);
    driver.check_errors(false);
}

#[test]
fn a_sync_beside_that_fails_ends_all_writing() {
    let (disk, mut driver) = with_one_group();
    disk.fail_at(1, libc::EIO, false, Calls::SYNC);
    driver.sync_beside();
    assert_eq!(driver.errors.pop().unwrap().code, Code::IO);
    assert_eq!(driver.commit(false, &[(0, 2)]).unwrap_err().code, Code::IO);
}
