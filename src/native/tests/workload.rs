//! Workloads: what a store is put through, all of it drawn from a seed.

use super::driver::{Batch, Driver};
use super::model::{Effect, KEYS, State};
use crate::base::error::Error;
use crate::base::random::Random;
use crate::engine::Codec;
use crate::io::sim::{Faults, SimDisk};
use crate::native::Options;

/// Groups that may be on their way at the same time.
const IN_FLIGHT_MAX: usize = 4;

/// Options for a store whose background work is done when the test says so.
pub fn options(chunk_bytes: u64, hot_log_bytes: u64) -> Options {
    Options { chunk_bytes, hot_log_bytes, reserve_percent: 0, background: false, ..Options::default() }
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Workload {
    seed: u64,
    /// What the disk does of its own accord.
    pub faults: Faults,
    /// How the store is run.
    pub options: Options,
    actions: u64,
    keys: u64,
    durable_of_8: u64,
    /// Versions begin behind this.
    first_version: u32,
    space_one_in: u64,
    /// Calls will fail as planned by somebody else, who looks at the errors.
    hostile: bool,
}

impl Workload {
    /// The workload of a seed.
    pub fn draw(seed: u64) -> Workload {
        let mut rng = Random::new(seed ^ 0x776f_726b);
        let chunk_bytes = [8, 16, 16, 32, 64, 1024][rng.below(6) as usize] << 10;
        let faults = Faults {
            short_write_one_in: [0, 0, 3, 10][rng.below(4) as usize],
            short_read_one_in: [0, 0, 3, 10][rng.below(4) as usize],
            eintr_one_in: [0, 0, 5, 20][rng.below(4) as usize],
            ..Faults::default()
        };
        let options = options(chunk_bytes, [0, chunk_bytes, 3 * chunk_bytes][rng.below(3) as usize]);
        let dense_or = if cfg!(feature = "zstd") { Codec::Zstd } else { Codec::Dense };
        let compacted_codec = [Codec::None, Codec::Lz4, Codec::Dense, dense_or][rng.below(4) as usize];
        Workload {
            seed,
            faults,
            options: Options {
                compacted_codec,
                checkpoint_log_bytes: [0, 1, 20_000][rng.below(3) as usize],
                reserve_percent: (3200 << 10) / chunk_bytes + 50, // something, also with tiny chunks
                ..options
            },
            actions: 10 + rng.below(60),
            keys: 2 + rng.below(KEYS as u64 - 1),
            durable_of_8: [0, 2, 4, 8][rng.below(4) as usize],
            first_version: 1,
            space_one_in: if rng.one_in(4) { 12 } else { 0 },
            hostile: false,
        }
    }

    /// A short one that goes on behind this one, on what a crash has left.
    pub fn sequel(&self, seed: u64, depth: u32) -> Workload {
        let mut next = Workload::draw(seed);
        next.actions = 3 + next.actions % 10;
        next.space_one_in = 0;
        next.first_version = self.first_version + (depth << 20);
        next
    }

    /// The same with small chunks and a disk that is full again and again.
    pub fn cramped(self) -> Workload {
        let chunk_bytes = self.options.chunk_bytes.min(16 << 10);
        let options = Options { chunk_bytes, reserve_percent: (4000 << 10) / chunk_bytes, ..self.options };
        Workload { options, space_one_in: 6, actions: 40 + self.actions, durable_of_8: self.durable_of_8.max(2), ..self }
    }

    /// The same on a disk without chance, where failures are planned.
    pub fn hostile(self) -> Workload {
        Workload { faults: Faults::default(), space_one_in: 0, hostile: true, ..self }
    }

    /// The disk it begins on.
    pub fn new_disk(&self) -> SimDisk {
        SimDisk::new(self.seed, self.faults)
    }

    /// Runs on `disk`, which holds `base`; stops when the machine does. An error: the store could not be opened.
    ///
    /// `closing`: ends with an orderly close.
    pub fn run(&self, disk: &SimDisk, base: State, closing: bool) -> Result<Driver, Error> {
        let mut run = Run { rng: Random::new(self.seed), workload: self, version: self.first_version, full: false, ever_full: false };
        let mut driver = Driver::open(disk, self.options, base)?;
        for _ in 0..self.actions {
            run.act(&mut driver)?;
            if disk.crashed() || driver.shut {
                return Ok(driver);
            }
            if !self.hostile {
                driver.check_errors(run.ever_full);
            }
        }
        disk.set_space(None);
        driver.settle();
        if self.hostile {
            driver.check_reads();
            return Ok(driver);
        }
        run.write_once_more(&mut driver);
        driver.hold_reads((0..KEYS).collect());
        driver.check_reads();
        if closing {
            driver.close();
        }
        if !disk.crashed() {
            driver.check_errors(run.ever_full);
        }
        Ok(driver)
    }
}

struct Run<'a> {
    workload: &'a Workload,
    rng: Random,
    version: u32,
    full: bool,
    ever_full: bool,
}

impl Run<'_> {
    fn act(&mut self, driver: &mut Driver) -> Result<(), Error> {
        let space_one_in = self.workload.space_one_in;
        if space_one_in > 0 && self.rng.one_in(space_one_in) {
            self.full = !self.full;
            self.ever_full |= self.full;
            let left = [0, 100, 5000, 20_000, 45_000][self.rng.below(5) as usize];
            driver.disk.set_space(self.full.then_some(left));
            return Ok(());
        }
        match self.rng.below(40) {
            0..12 if driver.in_flight() < IN_FLIGHT_MAX => {
                let group = self.group(driver);
                driver.stage(group);
            }
            0..18 => driver.write_any(&mut self.rng),
            18..25 => driver.publish(),
            25 => driver.settle(),
            26 if driver.in_flight() < IN_FLIGHT_MAX => driver.stage_sync(),
            27 => {
                driver.sync_beside();
                driver.engine.log.make_next();
            }
            36..38 if driver.in_flight() < IN_FLIGHT_MAX => driver.stage_beat(),
            26 | 36..38 => {}
            28 => driver.hold_reads((0..KEYS).filter(|_| self.rng.one_in(2)).collect()),
            29..31 => driver.check_reads(),
            31..34 => driver.compact([50, 90, 100][self.rng.below(3) as usize]),
            34..36 => {
                let more = (0..self.rng.below(8)).map(|_| self.group(driver)).collect();
                driver.checkpoint(&mut self.rng, more);
            }
            38 => {
                driver.prepare();
                driver.bring_in_pages(5000);
                driver.engine.log.make_next();
            }
            _ => return self.reopen(driver),
        }
        Ok(())
    }

    fn reopen(&mut self, driver: &mut Driver) -> Result<(), Error> {
        driver.close();
        if driver.disk.crashed() {
            return Ok(());
        }
        if !self.workload.hostile {
            driver.check_errors(self.ever_full);
        }
        match driver.reopen(self.workload.options) {
            Err(error) if self.workload.hostile => driver.errors.push(error),
            result => return result,
        }
        Ok(())
    }

    /// Whatever has happened to the disk meanwhile: as long as it works, so does the store.
    fn write_once_more(&mut self, driver: &mut Driver) {
        self.version += 1;
        let result = driver.commit(true, &[(0, self.version)]);
        assert!(driver.disk.crashed() || result.is_ok(), "{result:?}");
    }

    fn group(&mut self, driver: &Driver) -> Vec<Batch> {
        let batches = if self.rng.one_in(3) { 1 + self.rng.below(4) } else { 1 };
        (0..batches).map(|_| self.batch(driver)).collect()
    }

    fn batch(&mut self, driver: &Driver) -> Batch {
        let only_deletes = self.full && self.rng.one_in(2);
        let writes = match self.rng.below(8) {
            0 => 0,
            1..4 => 1,
            _ => 1 + self.rng.below(2 * self.workload.keys),
        };
        let effects: Vec<Effect> = (0..writes)
            .map(|_| {
                self.version += 1;
                let version = if only_deletes || self.rng.one_in(5) { 0 } else { self.version };
                (self.rng.below(self.workload.keys) as usize, version)
            })
            .collect();
        let reads = if self.rng.one_in(3) { (0..self.workload.keys as usize).filter(|_| self.rng.one_in(3)).collect() } else { Vec::new() };
        let durable = self.rng.below(8) < self.workload.durable_of_8;
        Batch::new(&driver.engine.hasher, durable, effects, reads)
    }
}
