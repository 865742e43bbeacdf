//! Planted bugs: real incidents of other stores, built in on demand to prove that the nets catch them.
//!
//! Without the feature `planted` every question is `false` at compile time. Nothing but tests may call `with_planted`.

use std::sync::atomic::Ordering;

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
    /// Groups that follow one whose write failed are acknowledged.
    FollowersSucceed = 8,
    /// A sync that failed is tried again, and believed.
    RetryFailedSync = 9,
    /// What is left of a short durable write is written without being durable.
    RemainderNotDurable = 10,
    /// A group to be durable shares a block with what is durable already.
    SharedBlock = 11,
    /// Frames claim more to be durable than is.
    WatermarkTooHigh = 12,
    /// After a failed write the log goes on in the same chunk, behind the torn frame.
    AppendToTornTail = 13,
    /// The number of a chunk that left no trace in the log is given out again.
    ReuseChunkNumber = 14,
    /// Files that recovery found to count for nothing are removed before that is recorded.
    LeftoversRemovedEarly = 15,
    /// A group is written, and is then reported as failed for good.
    ApplyFailsAfterWrite = 16,
    /// Readers see a group whose write failed.
    FailedGroupVisible = 17,
    /// Checksums say nothing of the place they stand at.
    SumWithoutPlace = 18,
    /// A frame header is believed without its checksum.
    HeaderSumIgnored = 19,
    /// Recovery ends at a bad frame, whatever later watermarks prove.
    StopSilently = 20,
    /// Recovery takes a failed read for the end of the file.
    ReadErrorIsEnd = 21,
    /// Recovery believes what the cache shows, also after a failed sync.
    TrustTheCache = 22,
    /// Compaction forgets deletes while an older chunk is there.
    TombstoneDropped = 23,
    /// Compaction moves a record over a newer one.
    CompactionOverNewer = 24,
    /// Compaction removes a chunk that it could not read to its end.
    DamagedChunkDeleted = 25,
    /// A chunk is removed before what was moved out of it is synced.
    ManifestBeforeSync = 26,
    /// A manifest is relied on before it is on stable storage.
    ManifestNotSynced = 27,
    /// A chunk is removed before the manifest that no longer names it is written.
    UnlinkBeforeManifest = 28,
    /// A manifest does not say what was durable when it was written.
    ManifestWithoutWitness = 29,
    /// A read looks for its chunk among those of the moment, not among those it was resolved in.
    PinIgnored = 30,
    /// Equal hashes count as equal keys.
    KeyNotCompared = 31,
    /// Of several writes to a key in a batch, the first one stays.
    DedupKeepsOldest = 32,
    /// Callbacks are called twice.
    CallbackTwice = 33,
    /// Whoever waits for a batch is not woken when it has ended.
    LostWakeup = 34,
    /// Records need a dictionary that is not on stable storage.
    DictionaryNotSynced = 35,
    /// Records need a dictionary that the header of their chunk does not name.
    DictionaryUnnamed = 36,
    /// The cut that a failed write has made is forgotten when the group behind it was being staged meanwhile.
    CutForgotten = 37,
    /// Compaction decides what is current before it has the log for itself.
    CompactionTooEarly = 38,
    /// A manifest counts a chunk among those that are gone which was begun while the manifest was drawn up.
    ManifestCoversMore = 39,
    /// Readers can come in between the batches of a group, and between the writes of a batch.
    VisibleInParts = 40,
    /// A handle is looked up without an order between what was put behind it and the look.
    PinWithoutOrder = 41,
    /// New slots of the table of handles are shown before they are made.
    SegmentWithoutOrder = 42,
    /// A pin ends without an order between the last look at the object and its end.
    UnpinnedTooEarly = 43,
    /// A slot is emptied by all who find it going.
    EmptiedTwice = 44,
    /// A slot that is used again takes the tokens of the object before.
    OldTokenFits = 45,
    /// Two handles are given one slot.
    SlotGivenTwice = 46,
    /// A batch that is created while its manager goes looks before it can be seen.
    FenceLeftOut = 47,
    /// Whoever waits is not told that the last callback has returned.
    EndUntold = 48,
    /// A cancel that came too late says that it came in time.
    CancelClaimed = 49,
    /// Destroying does not wait for what is in flight.
    DestroyedInFlight = 50,
    /// A batch that was destroyed keeps its memory.
    MemoryKept = 51,
    /// Whoever stops is not told that the last batch has landed.
    LandingUntold = 52,
    /// Stopping does not wait for what is in flight.
    StopDoesNotDrain = 53,
    /// The hot log shows bytes without an order between filling and reading them.
    HotWithoutOrder = 54,
    /// The hot log shows ranges that are being filled.
    OpenRangeVisible = 55,
    /// Turns that are given up let nobody in.
    TurnKept = 56,
    /// Who stages alone does not wait for what was staged before to be published.
    AloneTooEarly = 61,
    /// A call that reads with helpers returns before they are out.
    HelpersLeftInside = 57,
    /// Who rings finds nobody asleep who has just gone to sleep.
    BellUnheard = 58,
    /// Whoever waits for a request is not told that it has ended.
    RequestEndUntold = 62,
    /// A ring's thread that sleeps is not woken by a submit.
    ReaperAsleep = 63,
    /// A batch that nobody waits for is handed over for delivery without a word.
    DeliveryUntold = 59,
    /// A worker that sleeps is not woken by a submit.
    WorkerAsleep = 60,
    /// Batches of reads go ahead of every write.
    ReadsPassAll = 64,
    /// What is added by a token goes into whatever batch has the basin now.
    BasinOfAnother = 65,
    /// A batch whose handle was destroyed still takes operations by its token.
    BasinNotShut = 66,
    /// A handle shows where its batch is filled without an order between making that place and looking.
    BesideWithoutOrder = 67,
    /// A record's lengths are believed without looking where the bytes end.
    RecordEndBelieved = 70,
    /// What a packed value says of its length is believed, whatever its bytes can unpack to.
    PackedLengthBelieved = 71,
    /// A checkpoint's entries may name slots that its table does not have.
    UnknownSlotTaken = 72,
    /// What a manifest says of the number of its entries is believed.
    ManifestCountBelieved = 73,
    /// A URL may end behind a %.
    EscapeEndBelieved = 74,
    /// A chunk that was made ahead is begun though its header is not on stable storage.
    NextUnsynced = 75,
    /// A chunk that was made ahead is begun behind a cut, which its header does not record.
    NextInSpiteOfCut = 76,
    /// Recovery reads on from the cache where it should from the disk.
    ReadOnFromCache = 77,
    /// The file of a removed chunk is used again before its name is gone for good.
    FileReusedEarly = 78,
    /// The file of a removed chunk is used again while somebody reads from it.
    FileReusedWhileRead = 79,
    /// The file of a removed chunk is used again though a backup has it, too.
    LinkedFileReused = 80,
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

/// `strong`, or no order at all where `bug` is switched on.
#[inline(always)]
pub fn order(bug: Bug, strong: Ordering) -> Ordering {
    if planted(bug) { Ordering::Relaxed } else { strong }
}

/// Runs `body` with `bug` (or none) switched on, for the whole process: one such run at a time. A panic is handed back.
#[cfg(feature = "planted")]
pub fn with_planted<T>(bug: Option<Bug>, body: impl FnOnce() -> T) -> std::thread::Result<T> {
    static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    PLANTED.store(bug.map_or(0, |bug| bug as u32), std::sync::atomic::Ordering::Relaxed);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    PLANTED.store(0, std::sync::atomic::Ordering::Relaxed);
    result
}
