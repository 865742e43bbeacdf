//! One operation of a batch, and how its result goes to the edge.

use super::memory::Span;
use crate::base::code::Code;
use std::ffi::CStr;

/// What an operation does. The numbers are those of the C enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpKind {
    /// Stores a value.
    Put = 0,
    /// Reads a value.
    Get = 1,
    /// Takes a key away.
    Delete = 2,
    /// Stores a value if the key is there.
    Update = 3,
    /// Asks for stable storage.
    Sync = 4,
}

impl OpKind {
    /// Every kind, by its number.
    pub const ALL: [OpKind; 5] = [OpKind::Put, OpKind::Get, OpKind::Delete, OpKind::Update, OpKind::Sync];

    /// The kind with this number.
    pub fn from_number(number: i32) -> Option<OpKind> {
        usize::try_from(number).ok().and_then(|i| OpKind::ALL.get(i).copied())
    }

    /// The name, as the C function gives it.
    pub const fn name(self) -> &'static CStr {
        match self {
            OpKind::Put => c"PUT",
            OpKind::Get => c"GET",
            OpKind::Delete => c"DELETE",
            OpKind::Update => c"UPDATE",
            OpKind::Sync => c"SYNC",
        }
    }

    /// Whether it writes a record.
    pub(super) fn writes(self) -> bool {
        matches!(self, OpKind::Put | OpKind::Delete | OpKind::Update)
    }
}

/// What the edge wants to find again with an operation's result. Addresses; 0 means none. This layer never follows
/// one, it only compares the out-pointers with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    /// The operation's callback.
    pub callback: usize,
    /// Its argument.
    pub user_data: usize,
    /// Where a GET's value pointer goes.
    pub out_value: usize,
    /// Where a GET's value length goes.
    pub out_len: usize,
}

/// The same for the whole batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompleteHook {
    /// The completion callback.
    pub callback: usize,
    /// Its argument.
    pub user_data: usize,
}

/// A finished operation, as its callback sees it; valid during the callback.
pub struct OpView<'a> {
    /// What it did.
    pub kind: OpKind,
    /// Its key; in memory a NUL byte follows.
    pub key: &'a [u8],
    /// What was put, or what was read (a NUL byte follows); none for the others and for a miss.
    pub value: Option<&'a [u8]>,
    /// How it ended.
    pub code: Code,
    /// What came with it.
    pub hook: Hook,
}

/// The upper edge: how results leave. Called with no lock held.
pub trait Edge: Send + Sync {
    /// An operation with a callback has ended.
    fn op_done(&self, op: &OpView<'_>);
    /// All operations have ended and their callbacks have returned. Called if there is a completion callback.
    fn batch_done(&self, edge_tag: usize, completed: usize, failed: usize, hook: CompleteHook);
    /// Fills a GET's out-pointers in the thread that waits; `None` is a miss or a failure.
    fn write_out(&self, hook: &Hook, value: Option<&[u8]>);
}

/// An operation inside a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub hook: Hook,
    /// The key (GET: in the side arena) or the record that holds it (writes: in the record arena).
    pub place: Span,
    /// Encoded length of the record; 0 for reads.
    pub record_len: u32,
    /// The raw value: GET: its copy in the value arena; a packed PUT with a callback: its copy in the side arena.
    pub copy: Span,
    /// Length of the raw value (PUT: as put; GET: as read), in bytes.
    pub value_len: u32,
    pub code: Code,
    pub key_len: u16,
    pub kind: OpKind,
    /// Bytes from the record's start to its key.
    pub key_at: u8,
    pub flags: u8,
}

/// The value is in `copy`.
pub(super) const HAS_COPY: u8 = 1;
/// The record's value is packed.
pub(super) const PACKED: u8 = 2;
/// The record need not be written: superseded, or its condition does not hold.
pub(super) const DROPPED: u8 = 4;
/// Answered (or refused) by the plan already: the store need not be asked.
pub(super) const ANSWERED: u8 = 8;
/// Another GET of the batch has the same address for the value: never written through.
pub(super) const SHARED_OUT_VALUE: u8 = 16;
/// The same for the length.
pub(super) const SHARED_OUT_LEN: u8 = 32;
/// A GET of the batch was answered from this write, or this GET was answered from a write.
pub(super) const READ_BACK: u8 = 64;
/// The last try to read met a transient error.
pub(super) const TRANSIENT: u8 = 128;

impl Op {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it has failed; a GET that found nothing has not.
    pub(super) fn failed(&self) -> bool {
        self.code != Code::NONE && !(self.kind == OpKind::Get && self.code == Code::KEY_NOT_FOUND)
    }
}
