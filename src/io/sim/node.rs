//! One file of a simulated disk: what the kernel shows, what is on stable storage, and what lies between them.
//! Used by the rest of `sim` only.

use super::content::{Content, PAGE};
use super::faults::{Aftermath, Fill, SECTOR, Survival, Tear};
use crate::base::random::Random;
use crate::base::sync::Arc;

/// A change that the kernel has taken and the disk may not have yet.
#[derive(Clone)]
enum Change {
    /// `certain`: written durably, only the order among the others matters.
    Write {
        offset: u64,
        data: Arc<[u8]>,
        certain: bool,
    },
    SetLen(u64),
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, data, .. } => content.write(*offset, data),
            Change::SetLen(len) => content.set_len(*len),
        }
    }
}

/// One file.
#[derive(Clone, Default)]
pub(super) struct Node {
    /// What reads see.
    seen: Content,
    /// What was there when the last of it was made durable.
    stable: Content,
    /// Changes since then, in order.
    unsynced: Vec<Change>,
    /// After a failed sync, `seen` is not `stable` and `unsynced` put together.
    split: bool,
    /// Places that cannot be read, as (start, end).
    pub(super) unreadable: Vec<(u64, u64)>,
}

impl Node {
    pub(super) fn seen(&self) -> &Content {
        &self.seen
    }

    /// A plain write.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.seen.write(offset, data);
        self.unsynced.push(Change::Write { offset, data: data.into(), certain: false });
    }

    /// A write that is durable when it returns: this range and the size it needs, nothing else.
    pub(super) fn write_durably(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.seen.write(offset, data);
        if self.unsynced.is_empty() {
            self.stable.write(offset, data);
        } else {
            self.unsynced.push(Change::Write { offset, data: data.into(), certain: true });
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.seen.set_len(len);
        self.unsynced.push(Change::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        if !self.split {
            self.stable = self.seen.clone();
            self.unsynced.clear();
            return;
        }
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.stable);
        }
    }

    /// Drops what the cache holds and will not write any more: reads show the disk.
    pub(super) fn forget(&mut self) {
        if !self.split {
            return;
        }
        self.seen = self.stable.clone();
        for change in &self.unsynced {
            change.apply(&mut self.seen);
        }
        self.split = !self.unsynced.is_empty();
    }

    /// The sync failed: some of it may have arrived, the rest never will, and the next sync knows nothing of it.
    pub(super) fn sync_failed(&mut self, rng: &mut Random, aftermath: Aftermath) {
        let touched: Vec<usize> = self.unsynced.iter().flat_map(pages).collect();
        self.stable = self.left_on_disk(rng, &Survival { keep: 0.5, tear: Tear::Sectors, fill: Fill::Zeros, spoils_bytes: 0 });
        self.unsynced.clear();
        self.split = true;
        for page in touched {
            if aftermath == Aftermath::Reverts || (aftermath == Aftermath::Mixed && rng.one_in(2)) {
                self.seen.take_page(page, &self.stable);
            }
        }
    }

    /// The power goes: what was on its way arrives in part, and that is all there is from now on.
    pub(super) fn power_cut(&mut self, rng: &mut Random, survival: &Survival) {
        if !self.unsynced.is_empty() {
            self.stable = self.left_on_disk(rng, survival);
            self.unsynced.clear();
        }
        self.seen = self.stable.clone();
        self.split = false;
    }

    /// The power goes: of what was on its way, `keeps` says what arrives, sector by sector, then the size.
    pub(super) fn power_cut_with(&mut self, keeps: &mut dyn FnMut() -> bool) {
        let mut size = self.stable.len();
        for change in std::mem::take(&mut self.unsynced) {
            let certain = matches!(change, Change::Write { certain: true, .. });
            if let Change::Write { offset, data, .. } = &change {
                let mut at = *offset;
                while at < end(&change) {
                    let next = ((at / SECTOR + 1) * SECTOR).min(end(&change));
                    if certain || keeps() {
                        self.stable.write(at, &data[(at - offset) as usize..(next - offset) as usize]);
                    }
                    at = next;
                }
            }
            let resized = matches!(change, Change::SetLen(_)) || end(&change) > size;
            if resized && (certain || keeps()) {
                size = end(&change);
            }
        }
        self.stable.set_len(size);
        self.seen = self.stable.clone();
        self.split = false;
    }

    /// Makes everything durable as it is seen, then changes it by hand.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut Content)) {
        edit(&mut self.seen);
        self.stable = self.seen.clone();
        self.unsynced.clear();
        self.split = false;
    }

    /// Bytes written and not yet durable.
    pub(super) fn unsynced_bytes(&self) -> u64 {
        let bytes = |change: &Change| match change {
            Change::Write { data, certain: false, .. } => data.len() as u64,
            _ => 0,
        };
        self.unsynced.iter().map(bytes).sum()
    }

    fn left_on_disk(&self, rng: &mut Random, survival: &Survival) -> Content {
        let mut content = self.stable.clone();
        let mut size = content.len();
        if survival.fill == Fill::Garbage {
            let end = self.unsynced.iter().map(end).max().unwrap_or(0);
            content.write_garbage(size..end, rng);
        }
        for change in &self.unsynced {
            match change {
                Change::Write { offset, data, certain: true } => {
                    content.write(*offset, data);
                    size = size.max(end(change));
                }
                Change::Write { offset, data, certain: false } => {
                    survival.scatter(rng, *offset, data, &mut content);
                    // The size travels by itself: it may arrive without the data, the data without it, and with
                    // delayed allocation a part of it.
                    if end(change) > size && survival.keeps(rng) {
                        let grown = end(change) - size;
                        let partly = survival.keep < 1.0 && rng.one_in(4);
                        size = if partly { (size + rng.below(grown)).div_ceil(SECTOR) * SECTOR } else { end(change) }.min(end(change));
                    }
                }
                Change::SetLen(len) => {
                    if survival.keeps(rng) {
                        if *len < size {
                            content.set_len(*len);
                        }
                        size = *len;
                    }
                }
            }
        }
        content.set_len(size);
        content
    }
}

/// Where the file must end at least to hold the change.
fn end(change: &Change) -> u64 {
    match change {
        Change::Write { offset, data, .. } => offset + data.len() as u64,
        Change::SetLen(len) => *len,
    }
}

/// Pages whose cached bytes a change has touched.
fn pages(change: &Change) -> std::ops::Range<usize> {
    match change {
        Change::Write { offset, .. } => (*offset / PAGE as u64) as usize..end(change).div_ceil(PAGE as u64) as usize,
        Change::SetLen(_) => 0..0,
    }
}
