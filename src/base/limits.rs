//! Limits, named and with units. Writer, reader, documentation and messages all quote these.

/// Longest key, in bytes: the record header keeps the length in 16 bits.
pub const KEY_LEN_MAX: usize = 65_535;

/// Longest value, in bytes.
pub const VALUE_LEN_MAX: usize = 512 << 20;

/// Most operations in one batch (`KV_ASYNC_BATCH_MAX_SIZE`).
pub const BATCH_OPS_MAX: usize = 1_048_576;

/// Most record bytes in one batch: its frame must be addressable inside one chunk.
pub const BATCH_BYTES_MAX: usize = 4 << 30;

/// A chunk is rolled over when the next frame would end behind this offset, in bytes.
pub const CHUNK_BYTES: u64 = 64 << 20;

/// A device block: a synced group begins on a fresh one.
pub const BLOCK_BYTES: usize = 4096;

/// Batches a commit group may hold at the most.
pub const GROUP_BATCHES_MAX: usize = 1024;

/// A group led by a small batch may grow by this many bytes (LevelDB's and goleveldb's rule)...
pub const GROUP_SMALL_BYTES: usize = 128 << 10;

/// ...and one led by a larger batch up to this many bytes in all.
pub const GROUP_LARGE_BYTES: usize = 1 << 20;

/// Groups that may be in flight (staged and not yet published) at the same time.
pub const GROUPS_IN_FLIGHT_MAX: usize = 4;

/// A store remembers what became of so many batches, the newest that were committed.
pub const OUTCOME_IDS_MAX: u64 = 1 << 20;

/// They are kept as so many ranges at the most.
pub const OUTCOME_RANGES_MAX: usize = 1 << 16;
