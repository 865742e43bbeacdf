//! Filling a batch: what adding touches, and the one lock that it takes.
//!
//! Adding is done once per operation, and each locked step of the processor that it takes is felt. So a batch is filled in a
//! `Basin`, which is never given back to the system: whoever was told once where it is may lock it, whatever has become of the batch,
//! and sees under the lock whose it is now. The edge goes this way; all else goes by way of the context. The lock comes after a
//! context's state and before the lane's queue, and must never be held while anything is waited for.

use super::fork;
use super::manager::Manager;
use super::operation::{Hook, OpKind};
use super::work::Work;
use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::base::planted::{Bug, planted};
use crate::base::sync::{Arc, BriefGuard, BriefLock, watch};

/// See the top of this file. On a cache line of its own: threads that fill different batches must not slow each other down.
#[repr(align(64))]
pub struct Basin {
    content: BriefLock<Content>,
}

#[derive(Default)]
pub(super) struct Content {
    /// Here while the batch takes operations.
    pub open: Option<Open>,
    /// Operations that were added since the statistics were reset.
    pub added: u64,
    /// What the manager was told that this batch holds, in bytes: more than it does, by less than `HELD_STEP`.
    pub told: usize,
}

/// A batch that takes operations.
pub(super) struct Open {
    /// The edge's name for the batch; 0: it has none, or none any more.
    pub tag: usize,
    pub work: Box<Work>,
    pub max_ops: usize,
    pub manager: Arc<Manager>,
}

/// While a batch is filled its manager learns what it holds in steps of so many bytes: once per operation would cost each
/// as much as copying it.
const HELD_STEP: usize = 4 << 10;

/// Basins that no batch has.
static FREE: BriefLock<Vec<&'static Basin>> = BriefLock::new(Vec::new());

impl Basin {
    /// One that no batch has.
    pub(super) fn take() -> Result<&'static Basin> {
        match if cfg!(kv_model) { None } else { FREE.lock().pop() } {
            Some(basin) => Ok(basin),
            None => Basin::make(), // in models always: what stands in a static belongs to one run
        }
    }

    /// One more, for ever.
    pub fn make() -> Result<&'static Basin> {
        let mut one = Vec::new();
        one.try_reserve_exact(1).map_err(|_| Error::no_memory("no memory for another batch: destroy some first"))?;
        one.push(Basin { content: BriefLock::default() });
        watch::written(one.as_ptr());
        Ok(&one.leak()[0])
    }

    /// Its batch goes; the next may have it.
    pub(super) fn give_back(&'static self) {
        if fork::is_forked_child() {
            return; // threads that do not exist here may hold the locks for ever
        }
        let content = std::mem::take(&mut *self.content.lock());
        drop(content); // what it gives back is given back with no lock held
        if !cfg!(kv_model) {
            let mut free = FREE.lock();
            if free.try_reserve(1).is_ok() {
                free.push(self);
            }
        }
    }

    pub(super) fn lock(&'static self) -> BriefGuard<'static, Content> {
        self.content.lock()
    }

    pub(super) fn try_lock(&'static self) -> Option<BriefGuard<'static, Content>> {
        self.content.try_lock()
    }

    /// The batch that the edge names so, to be added to; `None` if this basin is not its, or it takes nothing that way.
    #[inline(always)]
    pub fn filling_of(&'static self, tag: usize) -> Option<Filling> {
        let content = self.content.lock();
        let named_so = content.open.as_ref().is_some_and(|open| open.tag == tag || planted(Bug::BasinOfAnother));
        named_so.then_some(Filling { content })
    }

    /// Whatever is in it, if it takes operations.
    pub(super) fn filling(&'static self) -> Option<Filling> {
        let content = self.content.lock();
        content.open.is_some().then_some(Filling { content })
    }
}

/// A batch that takes operations. Nobody else adds to it, and it is not submitted, while this lives.
pub struct Filling {
    content: BriefGuard<'static, Content>,
}

impl Filling {
    /// Adds an operation; key and value are copied. What is refused leaves the batch as it was.
    #[inline(always)]
    pub fn add(self, kind: OpKind, key: &[u8], value: &[u8], hook: Hook) -> Result<()> {
        self.add_expiring(kind, key, value, None, hook)
    }

    /// The same for a PUT or UPDATE whose key is no longer there from `expiry_ms` on, in milliseconds since 1970.
    pub fn add_expiring(mut self, kind: OpKind, key: &[u8], value: &[u8], expiry_ms: Option<u64>, hook: Hook) -> Result<()> {
        if expiry_ms.is_some() && !matches!(kind, OpKind::Put | OpKind::Update) {
            return Err(Error::new(Code::INVALID_PARAM, "only what is put can expire: leave the expiry out"));
        }
        let Content { open: Some(Open { work, max_ops, manager, .. }), added, told } = &mut *self.content else {
            return Err(Error::new(Code::INVALID_STATE, "the batch takes no more operations: create another batch"));
        };
        if work.ops.len() >= *max_ops {
            return Err(batch_full(*max_ops));
        }
        work.add(manager.settings(), kind, key, value, expiry_ms, hook)?;
        let held = work.held_bytes();
        *added += 1;
        if held > *told {
            let tell = held.next_multiple_of(HELD_STEP);
            manager.note_held(*told, tell);
            *told = tell;
        }
        Ok(())
    }
}

#[cold]
fn batch_full(max_ops: usize) -> Error {
    Error::new(
        Code::BATCH_FULL,
        format!("the batch holds {max_ops} operations, as many as it was created for: submit it and create another"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::operation::{CompleteHook, Edge, OpView};
    use super::super::{Context, Settings};
    use super::*;

    struct Deaf;

    impl Edge for Deaf {
        fn op_done(&self, _: &OpView<'_>) {}
        fn batch_done(&self, _: usize, _: usize, _: usize, _: CompleteHook) {}
        fn write_out(&self, _: &Hook, _: Option<&[u8]>) {}
    }

    #[test]
    fn a_basin_takes_for_the_batch_that_it_bears_the_name_of() {
        let manager = Manager::create(Settings::default(), b"memory:").expect("created");
        let basin = Basin::make().expect("memory");
        let create = || Context::create_in(|| Ok(basin), &manager, 2, &Deaf).expect("created");
        let put = |filling: Filling| filling.add(OpKind::Put, b"k", b"v", Hook::default());
        let first = create();
        assert!(basin.filling_of(7).is_none(), "it has no name yet");
        first.set_edge_tag(7);
        assert!(basin.filling_of(8).is_none() && basin.filling_of(7).is_some_and(|filling| put(filling).is_ok()));
        first.shut();
        assert!(basin.filling_of(7).is_none() && put(first.filling().expect("pending")).is_ok());
        assert_eq!(put(first.filling().expect("pending")).map_err(|error| error.code), Err(Code::BATCH_FULL));
        std::mem::forget(first); // it would give the basin to whoever asks next
        *basin.lock() = Content::default();
        let second = create();
        assert!(basin.filling_of(7).is_none() && basin.filling_of(0).is_some(), "as the edge never asks");
        second.set_edge_tag(9);
        assert_eq!(second.stats().total_operations, 0);
        second.cancel().expect("pending");
        assert!(basin.filling_of(9).is_none());
        assert_eq!(second.filling().err().map(|error| error.code), Some(Code::INVALID_STATE));
    }
}
