//! The requests of a ring: slots that are used again, and two lists through them.
//!
//! A slot is on the list `live` from its acceptance to its end, then on `unseen` until somebody who waits has seen the end.
//! Growing can fail, so it is done ahead (`reserve`); nothing else allocates. Used under the ring's lock.

use super::request::{Key, OpKind, Status};
use crate::base::error::{Error, Result};
use crate::io::real::transfer::Transfer;
use std::time::Instant;

const NONE: u32 = u32::MAX;

/// Which list a slot is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Free,
    Live,
    Unseen,
    Neither,
}

/// One request.
pub(super) struct Slot {
    /// 0: free.
    pub id: u64,
    pub tag: usize,
    pub op: OpKind,
    pub status: Status,
    pub result: i32,
    /// Its callback has returned.
    pub delivered: bool,
    /// The program has given it back.
    pub given_back: bool,
    /// Ran out of time, and was asked to end.
    pub expired: bool,
    /// The program wants it to end.
    pub unwanted: bool,
    /// Until somebody begins.
    pub transfer: Option<Transfer>,
    pub accepted: Instant,
    pub begun: Instant,
    pub deadline: Option<Instant>,
    /// Which count it belongs to: those before a reset are over.
    pub epoch: u32,
    on: On,
    previous: u32,
    next: u32,
}

impl Slot {
    /// A request that was just accepted.
    pub fn new(id: u64, tag: usize, op: OpKind, transfer: Transfer, accepted: Instant, deadline: Option<Instant>, epoch: u32) -> Slot {
        Slot {
            id,
            tag,
            op,
            status: Status::Pending,
            result: 0,
            delivered: false,
            given_back: false,
            expired: false,
            unwanted: false,
            transfer: Some(transfer),
            accepted,
            begun: accepted,
            deadline,
            epoch,
            on: On::Neither,
            previous: NONE,
            next: NONE,
        }
    }
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    length: usize,
}

const EMPTY: List = List { first: NONE, last: NONE, length: 0 };

/// See the file.
pub(super) struct Slots {
    all: Vec<Slot>,
    free: List,
    live: List,
    unseen: List,
}

impl Slots {
    pub fn new() -> Slots {
        Slots { all: Vec::new(), free: EMPTY, live: EMPTY, unseen: EMPTY }
    }

    /// Makes room for `count` more.
    pub fn reserve(&mut self, count: usize) -> Result<()> {
        let more = count.saturating_sub(self.free.length);
        self.all.try_reserve(more).map_err(|_| Error::no_memory("no memory for another request: destroy some that have ended"))
    }

    /// Takes a request in, at the end of `live`.
    pub fn insert(&mut self, slot: Slot) -> u32 {
        let index = match self.pop(On::Free) {
            Some(index) => {
                self.all[index as usize] = slot;
                index
            }
            None => {
                self.all.push(slot);
                self.all.len() as u32 - 1
            }
        };
        self.put(index, On::Live);
        index
    }

    /// The request of this name, if it is still known.
    pub fn get(&mut self, key: Key) -> Option<&mut Slot> {
        self.all.get_mut(key.slot as usize).filter(|slot| slot.id == key.id && slot.id != 0)
    }

    /// The slot with this number.
    pub fn at(&mut self, index: u32) -> Option<&mut Slot> {
        self.all.get_mut(index as usize).filter(|slot| slot.id != 0)
    }

    /// Puts a slot on another list, at its end.
    pub fn put(&mut self, index: u32, on: On) {
        self.unlink(index);
        let last = match self.list(on) {
            Some(list) => list.last,
            None => return,
        };
        let slot = &mut self.all[index as usize];
        (slot.on, slot.previous, slot.next) = (on, last, NONE);
        if last != NONE {
            self.all[last as usize].next = index;
        }
        if let Some(list) = self.list(on) {
            if last == NONE {
                list.first = index;
            }
            list.last = index;
            list.length += 1;
        }
    }

    /// Gives a slot back.
    pub fn free(&mut self, index: u32) {
        let slot = &mut self.all[index as usize];
        slot.id = 0;
        slot.transfer = None;
        self.put(index, On::Free);
    }

    /// How many are on a list.
    pub fn length(&mut self, on: On) -> usize {
        self.list(on).map_or(0, |list| list.length)
    }

    /// The first one on a list, and the one behind another.
    pub fn first(&mut self, on: On) -> Option<u32> {
        self.list(on).map(|list| list.first).filter(|&first| first != NONE)
    }

    pub fn after(&self, index: u32) -> Option<u32> {
        Some(self.all[index as usize].next).filter(|&next| next != NONE)
    }

    /// Takes the first one off a list.
    pub fn pop(&mut self, on: On) -> Option<u32> {
        let first = self.first(on)?;
        self.unlink(first);
        Some(first)
    }

    /// Which list a slot is on.
    pub fn on(&self, index: u32) -> On {
        self.all[index as usize].on
    }

    /// All that are not free.
    pub fn used(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.all.iter().enumerate().filter(|(_, slot)| slot.id != 0).map(|(index, slot)| (index as u32, slot))
    }

    fn list(&mut self, on: On) -> Option<&mut List> {
        match on {
            On::Free => Some(&mut self.free),
            On::Live => Some(&mut self.live),
            On::Unseen => Some(&mut self.unseen),
            On::Neither => None,
        }
    }

    fn unlink(&mut self, index: u32) {
        let slot = &mut self.all[index as usize];
        let (on, previous, next) = (slot.on, slot.previous, slot.next);
        (slot.on, slot.previous, slot.next) = (On::Neither, NONE, NONE);
        if on == On::Neither {
            return;
        }
        if previous != NONE {
            self.all[previous as usize].next = next;
        }
        if next != NONE {
            self.all[next as usize].previous = previous;
        }
        if let Some(list) = self.list(on) {
            if list.first == index {
                list.first = next;
            }
            if list.last == index {
                list.last = previous;
            }
            list.length -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: u64) -> Slot {
        Slot::new(id, 0, OpKind::Fsync, Transfer::sync(-1), Instant::now(), None, 0)
    }

    fn walk(slots: &mut Slots, on: On) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut at = slots.first(on);
        while let Some(index) = at {
            ids.push(slots.at(index).unwrap().id);
            at = slots.after(index);
        }
        assert_eq!(ids.len(), slots.length(on));
        ids
    }

    #[test]
    fn slots_go_from_list_to_list_and_are_used_again() {
        let mut slots = Slots::new();
        slots.reserve(4).unwrap();
        let places: Vec<u32> = (1..=4).map(|id| slots.insert(slot(id))).collect();
        assert_eq!(walk(&mut slots, On::Live), [1, 2, 3, 4]);
        slots.put(places[1], On::Unseen);
        slots.put(places[3], On::Unseen);
        slots.put(places[0], On::Unseen);
        assert_eq!((walk(&mut slots, On::Live), walk(&mut slots, On::Unseen)), (vec![3], vec![2, 4, 1]));
        slots.put(places[3], On::Neither);
        assert_eq!((walk(&mut slots, On::Unseen), slots.on(places[3])), (vec![2, 1], On::Neither));
        let old = Key { slot: places[1], id: 2 };
        assert!(slots.get(old).is_some());
        slots.free(places[1]);
        assert!(slots.get(old).is_none() && slots.at(places[1]).is_none());
        assert_eq!(slots.insert(slot(5)), places[1]);
        assert!(slots.get(old).is_none());
        assert_eq!((slots.pop(On::Unseen), slots.pop(On::Unseen)), (Some(places[0]), None));
        assert_eq!(walk(&mut slots, On::Live), [3, 5]);
        assert_eq!(slots.used().count(), 4);
    }
}
