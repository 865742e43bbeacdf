//! What can go wrong on a simulated disk: rates, planned failures, and what a power cut leaves.
//!
//! Set by tests, consulted by the calls. All of it is plain data: the same numbers and the same seed give the same run.

use super::content::Content;
use crate::base::random::Random;
use std::ops::BitOr;

/// A disk tears writes at these boundaries.
pub(super) const SECTOR: u64 = 512;

/// Faults that come by themselves, at a rate. The default is a disk without faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Once in so many writes of more than one byte, only a part is written (0: never).
    pub short_write_one_in: u64,
    /// Once in so many reads of more than one byte, only a part is read (0: never).
    pub short_read_one_in: u64,
    /// Once in so many reads and writes, a signal comes first (0: never).
    pub eintr_one_in: u64,
    /// Syncs and durable writes say yes and do nothing.
    pub lying_sync: bool,
    /// Each file has one name, as far as it can be told.
    pub names_uncounted: bool,
    /// What a failed sync leaves behind.
    pub aftermath: Aftermath,
}

/// What the kernel's cache holds after a sync failed; in each case some of it may have reached the disk, and the next
/// sync says yes (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aftermath {
    /// The new bytes, taken for clean: read back well until the power goes.
    #[default]
    KeepsNew,
    /// What is on the disk.
    Reverts,
    /// Either, page by page.
    Mixed,
}

/// Kinds of calls, as a set: `Calls::WRITE | Calls::SYNC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls(u32);

impl Calls {
    /// `File::read_at`, also through `read_many`.
    pub const READ: Calls = Calls(1);
    /// `File::write_at` that is not durable.
    pub const WRITE: Calls = Calls(1 << 1);
    /// `File::write_at` that is durable.
    pub const WRITE_DURABLE: Calls = Calls(1 << 2);
    /// `File::sync`.
    pub const SYNC: Calls = Calls(1 << 3);
    /// `File::set_len`.
    pub const SET_LEN: Calls = Calls(1 << 4);
    /// `Dir::create`.
    pub const CREATE: Calls = Calls(1 << 5);
    /// `Dir::remove`.
    pub const REMOVE: Calls = Calls(1 << 6);
    /// `Dir::sync`.
    pub const SYNC_DIR: Calls = Calls(1 << 7);
    /// `Dir::open`.
    pub const OPEN: Calls = Calls(1 << 8);
    /// `Dir::list`.
    pub const LIST: Calls = Calls(1 << 9);
    /// `Dir::lock`.
    pub const LOCK: Calls = Calls(1 << 10);
    /// `Disk::open_dir`.
    pub const OPEN_DIR: Calls = Calls(1 << 11);
    /// `File::len`.
    pub const LEN: Calls = Calls(1 << 12);
    /// `File::allocate`.
    pub const ALLOCATE: Calls = Calls(1 << 13);
    /// Every call that changes the disk or makes it durable: these are the steps.
    pub const STEPS: Calls = Calls(0b10_0000_1111_1110);
    /// Every call.
    pub const ALL: Calls = Calls(0b11_1111_1111_1111);
    /// How many kinds there are.
    pub(super) const KINDS: usize = 14;

    /// Whether any of `other` is in this set.
    pub fn meets(self, other: Calls) -> bool {
        self.0 & other.0 != 0
    }

    /// Each kind by itself.
    pub(super) fn each() -> impl Iterator<Item = Calls> {
        (0..Self::KINDS).map(|i| Calls(1 << i))
    }

    /// The place of a single kind in a table.
    pub(super) fn index(self) -> usize {
        self.0.trailing_zeros() as usize
    }
}

impl BitOr for Calls {
    type Output = Calls;
    fn bitor(self, other: Calls) -> Calls {
        Calls(self.0 | other.0)
    }
}

/// What becomes of a call that a test has picked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It fails with this errno.
    Errno(i32),
    /// A read or write that leaves out its last byte.
    AllButOne,
    /// A read or write of its first byte only.
    OneByte,
}

impl Failure {
    /// How many calls in a row it concerns if it is sticky. Signals stop some time, and bytes get through one by one.
    pub(super) fn lasts(self, sticky: bool) -> u64 {
        match (sticky, self) {
            (false, _) => 1,
            (true, Failure::Errno(libc::EINTR) | Failure::AllButOne | Failure::OneByte) => 100,
            (true, Failure::Errno(_)) => u64::MAX,
        }
    }
}

/// A failure that a test planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) calls: Calls,
    pub(super) failure: Failure,
    /// Matching calls before it strikes.
    pub(super) before: u64,
    /// Matching calls that it strikes then.
    pub(super) lasts: u64,
}

impl Planned {
    /// Counts a call of the kind `call`; the failure if it is the one.
    pub(super) fn strikes(&mut self, call: Calls) -> Option<Failure> {
        if !self.calls.meets(call) || self.lasts == 0 {
            return None;
        }
        if self.before > 0 {
            self.before -= 1;
            return None;
        }
        self.lasts -= 1;
        Some(self.failure)
    }
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, Debug)]
pub struct Survival {
    /// Probability that one piece (a sector, a size, a directory entry; see `tear`) has reached the disk.
    pub keep: f64,
    /// How a write comes apart.
    pub tear: Tear,
    /// What stands where the file grew but the data did not arrive.
    pub fill: Fill,
    /// A write that was under way may spoil its neighbours within the aligned block of so many bytes (0: it does not).
    pub spoils_bytes: u64,
}

/// How a write comes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Each sector of 512 bytes for itself.
    Sectors,
    /// What does not survive as a whole leaves some sectors at its front.
    Front,
    /// What does not survive as a whole leaves some sectors at its back.
    Back,
    /// What does not survive as a whole leaves some bytes at its front: a disk that tears within sectors.
    Bytes,
    /// Not at all: each write survives as a whole or not.
    Never,
}

/// What stands where the file grew but the data did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros.
    Zeros,
    /// Anything.
    Garbage,
}

impl Survival {
    /// All that was not synced is lost.
    pub const NOTHING: Survival = Survival { keep: 0.0, tear: Tear::Sectors, fill: Fill::Zeros, spoils_bytes: 0 };
    /// All is there, as if it had been synced in time.
    pub const EVERYTHING: Survival = Survival { keep: 1.0, ..Survival::NOTHING };

    /// One of all that can be.
    pub fn draw(rng: &mut Random) -> Self {
        Survival {
            keep: [0.0, 0.1, 0.5, 0.9, 1.0][rng.below(5) as usize],
            tear: [Tear::Sectors, Tear::Sectors, Tear::Front, Tear::Back, Tear::Bytes, Tear::Never][rng.below(6) as usize],
            fill: if rng.one_in(4) { Fill::Garbage } else { Fill::Zeros },
            spoils_bytes: if rng.one_in(4) { 4096 } else { 0 },
        }
    }

    /// Whether one piece has reached the disk.
    pub(super) fn keeps(&self, rng: &mut Random) -> bool {
        ((rng.next_u64() >> 11) as f64) < self.keep * (1u64 << 53) as f64
    }

    /// Brings to `content` what is left of a write.
    pub(super) fn scatter(&self, rng: &mut Random, offset: u64, data: &[u8], content: &mut Content) {
        if self.keep >= 1.0 {
            return content.write(offset, data);
        }
        if self.keep <= 0.0 || data.is_empty() {
            return;
        }
        if self.spoils_bytes > 0 && rng.one_in(2) {
            self.spoil(rng, offset, data.len() as u64, content);
        }
        if self.tear == Tear::Sectors {
            return self.scatter_sectors(rng, offset, data, content);
        }
        if self.keeps(rng) {
            return content.write(offset, data);
        }
        let bytes = data.len() as u64;
        // The boundary of sectors before a random byte, as seen from the start of the file.
        let boundary = ((offset + rng.below(bytes)) / SECTOR * SECTOR).saturating_sub(offset);
        match self.tear {
            Tear::Front => content.write(offset, &data[..boundary as usize]),
            Tear::Back => content.write(offset + boundary, &data[boundary as usize..]),
            Tear::Bytes => content.write(offset, &data[..rng.below(bytes) as usize]),
            Tear::Sectors | Tear::Never => {}
        }
    }

    fn scatter_sectors(&self, rng: &mut Random, offset: u64, data: &[u8], content: &mut Content) {
        let end = offset + data.len() as u64;
        let mut run_start = None;
        let mut at = offset;
        while at < end {
            match (self.keeps(rng), run_start) {
                (true, None) => run_start = Some(at),
                (false, Some(start)) => {
                    content.write(start, &data[(start - offset) as usize..(at - offset) as usize]);
                    run_start = None;
                }
                _ => {}
            }
            at = (at / SECTOR + 1) * SECTOR;
        }
        if let Some(start) = run_start {
            content.write(start, &data[(start - offset) as usize..]);
        }
    }

    /// Spoils what lies beside a write in its first and last block, within the file as it is.
    fn spoil(&self, rng: &mut Random, offset: u64, bytes: u64, content: &mut Content) {
        let end = offset + bytes;
        let block = self.spoils_bytes;
        if rng.one_in(2) {
            content.write_garbage(offset / block * block..offset.min(content.len()), rng);
        }
        if rng.one_in(2) {
            content.write_garbage(end..(end.div_ceil(block) * block).min(content.len()), rng);
        }
    }
}
