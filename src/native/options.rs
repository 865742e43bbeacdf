//! Settings of the embedded engine, and of how batches reach it, that no batch sees.

use crate::base::limits::CHUNK_BYTES;
use crate::engine::Codec;

/// How a store is run. Nothing here is on disk: a store opens with any of them.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A chunk is rolled over when it would grow beyond this, in bytes.
    pub chunk_bytes: u64,
    /// Memory for the newest chunks, in bytes.
    pub hot_log_bytes: u64,
    /// Sealed chunks filled to this share or less, in percent, are rewritten; 0: none are.
    pub min_fill_percent: u64,
    /// Bytes per second that compaction may move; 0: as many as commits leave room for.
    pub compaction_bytes_per_second: u64,
    /// How compaction packs what it moves. Not at all by default: it is slower that way (`make ratios` says how much).
    pub compacted_codec: Codec,
    /// Compact and write checkpoints in a thread of their own. Off: only when asked.
    pub background: bool,
    /// A checkpoint of the index is written when this much log, in bytes, has come since the last; 0: never by itself.
    pub checkpoint_log_bytes: u64,
    /// Disk space that a store of some size keeps for the day when the disk is full, in percent of a chunk; 0: none.
    pub reserve_percent: u64,
    /// When nothing was committed for so long, the log is made to say how far it is durable; 0: never.
    pub beat_idle_ms: u64,
    /// What to do about damage of what had been confirmed.
    pub recovery: Recovery,
    /// Nothing is written, and the lock is shared with others who only read.
    pub read_only: bool,
    /// The next chunk's file is written full of zeros ahead of its use, where durable commits profit from that.
    pub prepare_chunks: bool,
    /// Batches that are in line together share a write and a sync. The layer above forms these groups.
    pub write_merge: bool,
    /// Bytes of records that such a group may have; 0: as many as suit its first batch.
    pub write_merge_bytes: u64,
}

/// What opening a store does about damage of what had been confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// The store does not open.
    #[default]
    Strict,
    /// What lies before the damage is kept; what lies behind it is given up, and reported.
    Prefix,
}

/// The hot log takes this much at the most, and this share of the machine's memory, unless told otherwise.
const HOT_LOG_BYTES_MAX: u64 = 256 << 20;
const HOT_LOG_SHARE: u64 = 16;

/// Log between two checkpoints, unless told otherwise: what replays in well under a second.
const CHECKPOINT_LOG_BYTES: u64 = 256 << 20;

/// The reserve, unless told otherwise: what is left of a chunk that pays to be compacted has room in it.
const RESERVE_PERCENT: u64 = 75;

/// Idle time before a beat, unless told otherwise: as long as this the last durable group has no witness.
const BEAT_IDLE_MS: u64 = 100;

impl Default for Options {
    fn default() -> Self {
        let hot_log_bytes = memory_bytes().map_or(CHUNK_BYTES, |memory| (memory / HOT_LOG_SHARE).min(HOT_LOG_BYTES_MAX));
        Options {
            chunk_bytes: CHUNK_BYTES,
            hot_log_bytes,
            min_fill_percent: 50,
            compaction_bytes_per_second: 0,
            compacted_codec: Codec::None,
            background: true,
            checkpoint_log_bytes: CHECKPOINT_LOG_BYTES,
            reserve_percent: RESERVE_PERCENT,
            beat_idle_ms: BEAT_IDLE_MS,
            recovery: Recovery::Strict,
            read_only: false,
            prepare_chunks: true,
            write_merge: true,
            write_merge_bytes: 0,
        }
    }
}

impl Options {
    /// Disk space that a store of some size keeps for the day when the disk is full, in bytes. None if nothing is compacted.
    pub fn reserve_bytes(&self) -> u64 {
        if self.min_fill_percent == 0 { 0 } else { self.chunk_bytes / 100 * self.reserve_percent }
    }
}

fn memory_bytes() -> Option<u64> {
    let about = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = about.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
