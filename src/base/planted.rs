//! Planted bugs: real incidents of other stores, built in on demand to prove that the nets catch them.
//!
//! Without the feature `planted` every question is `false` at compile time. Nothing but tests may call `plant`.

/// One fault that a test can switch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Bug {
    /// Completion is reported before the sync (fsync of a group is left out).
    AckBeforeSync = 1,
    /// The directory is not synced after a chunk was created.
    SkipDirectorySync = 2,
    /// Recovery takes a tail of zeros for a valid record.
    AcceptZeroTail = 3,
    /// A short write counts as a full one.
    IgnoreShortWrite = 4,
    /// Recovery applies the valid records of a torn frame.
    ApplyHalfBatch = 5,
    /// A checkpoint of the index is finished before the log it speaks of is on stable storage.
    CheckpointBeyondLog = 6,
    /// The older checkpoint is removed before the newer one is on stable storage.
    CheckpointOnlyCopy = 7,
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Whether `bug` is switched on.
#[inline]
pub fn planted(bug: Bug) -> bool {
    #[cfg(feature = "planted")]
    return PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u32;
    #[cfg(not(feature = "planted"))]
    {
        let _ = bug;
        false
    }
}

/// Switches `bug` on (`None`: all off) for the whole process.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |b| b as u32), std::sync::atomic::Ordering::Relaxed);
}
