//! Histories: what the threads of a run did and saw, and whether one order of commits explains all of it.
//!
//! The order is known: it is that of the turns. So the check is whole and quick: each batch reads the state before it; each
//! read by itself, of several keys, sees one state between two batches, not older than anything that had ended before it
//! began, or that an earlier read has seen, and not newer than what had begun before it ended; and what a crash leaves is
//! the state behind some batch, with all in it that was promised. Batches in doubt are left open: they may be there or not.
//! Never looks at a store; `histories` and the histories of batches fill it in.

use super::model::{Effect, End, KEYS, State, apply};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeSet;

/// The clock of a run: every moment is another.
#[derive(Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Now.
    pub fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged.
    Done,
    /// Failed, in doubt.
    Doubt,
    /// Failed for good.
    Never,
}

/// A batch that writes, or reads at its place.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its place in the order: that of its group, and that within it.
    pub order: (u64, usize),
    pub client: usize,
    pub began: u64,
    pub ended: u64,
    pub effects: Vec<Effect>,
    /// What was there before it, as far as it asked and was told.
    pub seen: Vec<Effect>,
    /// Promised to be on stable storage when it ended.
    pub durable: bool,
    pub fate: Fate,
}

/// Keys that were read together.
#[derive(Clone, Debug)]
pub struct Read {
    pub client: usize,
    pub began: u64,
    pub ended: u64,
    pub seen: Vec<Effect>,
}

/// A disk as it was at some moment of the run.
#[derive(Clone, Debug)]
pub struct Found {
    /// Everything that ended before this moment had ended.
    pub after: u64,
    /// Nothing that began behind this moment had begun.
    pub before: u64,
    pub end: End,
    pub state: State,
}

/// What happened between opening a store and its end.
#[derive(Clone, Debug)]
pub struct History {
    /// What was there to begin with, all of it durable.
    pub base: State,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    /// When syncs of everything began and ended.
    pub syncs: Vec<(u64, u64)>,
}

/// Who acknowledged batches, in order; place 0 is before the first.
struct Order<'a> {
    history: &'a History,
    /// Places in `writes`.
    done: Vec<usize>,
    /// By key: from which place on it has which version.
    versions: Vec<Vec<(usize, u32)>>,
}

/// An event of the run.
enum Event {
    ReadBegins(usize),
    ReadEnds(usize),
    DoneAt(usize),
}

impl History {
    /// Nothing has happened yet.
    pub fn new(base: State) -> History {
        History { base, writes: Vec::new(), reads: Vec::new(), syncs: Vec::new() }
    }

    /// Takes over what another thread has seen.
    pub fn take_over(&mut self, other: History) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.syncs.extend(other.syncs);
    }

    /// Keys that were written, and read.
    pub fn operations(&self) -> u64 {
        let written: usize = self.writes.iter().map(|write| write.effects.len() + write.seen.len()).sum();
        (written + self.reads.iter().map(|read| read.seen.len()).sum::<usize>()) as u64
    }

    /// Whether one order explains the run, and `found` is what a crash of it may leave; else all that speaks against it.
    pub fn check(&mut self, found: &[Found]) -> Result<(), String> {
        self.writes.sort_by_key(|write| write.order);
        let order = Order::of(self);
        order.check_real_time()?;
        order.check_reads_of_batches()?;
        order.check_reads()?;
        found.iter().try_for_each(|found| order.check_found(found))
    }

    /// The state behind all that was acknowledged. After `check`.
    pub fn last_state(&self) -> State {
        let mut state = self.base;
        self.writes.iter().filter(|write| write.fate == Fate::Done).for_each(|write| apply(&mut state, &write.effects));
        state
    }

    /// All that concerns these keys, in order.
    fn evidence(&self, keys: &BTreeSet<usize>) -> String {
        let about = |effects: &[Effect]| effects.iter().any(|(key, _)| keys.contains(key));
        let base: Vec<Effect> = keys.iter().map(|key| (*key, self.base[*key])).collect();
        let mut lines = vec![format!("begun with {base:?}")];
        let writes = self.writes.iter().filter(|write| about(&write.effects) || about(&write.seen));
        lines.extend(writes.map(|write| format!("client {}: {write:?}", write.client)));
        let reads = self.reads.iter().filter(|read| about(&read.seen));
        lines.extend(reads.map(|read| format!("client {}: {read:?}", read.client)));
        lines.extend(self.syncs.iter().map(|sync| format!("sync {sync:?}")));
        lines.join("\n  ")
    }
}

impl Order<'_> {
    fn of(history: &History) -> Order<'_> {
        let done: Vec<usize> = (0..history.writes.len()).filter(|at| history.writes[*at].fate == Fate::Done).collect();
        let mut versions: Vec<Vec<(usize, u32)>> = history.base.iter().map(|version| vec![(0, *version)]).collect();
        for (place, at) in done.iter().enumerate() {
            for (key, version) in &history.writes[*at].effects {
                match versions[*key].last_mut() {
                    Some((last, old)) if *last == place + 1 => *old = *version, // a later write of the batch
                    _ => versions[*key].push((place + 1, *version)),
                }
            }
        }
        Order { history, done, versions }
    }

    fn write(&self, place: usize) -> &Write {
        &self.history.writes[self.done[place - 1]]
    }

    fn version_at(&self, key: usize, place: usize) -> u32 {
        let versions = &self.versions[key];
        versions[versions.partition_point(|(from, _)| *from <= place) - 1].1
    }

    /// The first place from `from` on where `key` has `version`.
    fn first_with(&self, key: usize, version: u32, from: usize) -> Option<usize> {
        if self.version_at(key, from) == version {
            return Some(from);
        }
        let later = self.versions[key].partition_point(|(at, _)| *at <= from);
        self.versions[key][later..].iter().find(|(_, other)| *other == version).map(|(at, _)| *at)
    }

    /// Who had ended before another began comes before it.
    fn check_real_time(&self) -> Result<(), String> {
        let mut last_begun = 0;
        for write in &self.history.writes {
            if write.ended < last_begun {
                return Err(format!("{write:?} had ended before one began that stands before it"));
            }
            last_begun = last_begun.max(write.began);
        }
        Ok(())
    }

    /// A batch reads what was there before it, and before its own writes.
    fn check_reads_of_batches(&self) -> Result<(), String> {
        let mut place = 0;
        for write in &self.history.writes {
            if write.fate != Fate::Done {
                continue;
            }
            for (key, version) in &write.seen {
                let expected = self.version_at(*key, place);
                if expected != *version {
                    let keys = BTreeSet::from([*key]);
                    let evidence = self.history.evidence(&keys);
                    return Err(format!("{write:?} saw {version} under key {key}, where {expected} was:\n  {evidence}"));
                }
            }
            place += 1;
        }
        Ok(())
    }

    /// Gives each read the earliest place that explains it, and moves on from there.
    fn check_reads(&self) -> Result<(), String> {
        let reads = &self.history.reads;
        let mut events: Vec<(u64, Event)> = Vec::with_capacity(2 * reads.len() + self.done.len());
        for (i, read) in reads.iter().enumerate() {
            events.push((read.began, Event::ReadBegins(i)));
            events.push((read.ended, Event::ReadEnds(i)));
        }
        events.extend((1..=self.done.len()).map(|place| (self.write(place).ended, Event::DoneAt(place))));
        events.sort_unstable_by_key(|(moment, _)| *moment);
        let mut floor = 0;
        let mut floors = vec![0; reads.len()];
        for (_, event) in events {
            match event {
                Event::ReadBegins(i) => floors[i] = floor,
                Event::ReadEnds(i) => floor = floor.max(self.place_of(&reads[i], floors[i])?),
                Event::DoneAt(place) => floor = floor.max(place),
            }
        }
        Ok(())
    }

    fn place_of(&self, read: &Read, floor: usize) -> Result<usize, String> {
        let mut place = floor;
        loop {
            let before = place;
            for (key, version) in &read.seen {
                place = self.first_with(*key, *version, place).ok_or_else(|| self.unexplained(read, floor))?;
            }
            if place == before {
                break;
            }
        }
        if place > 0 && self.write(place).began > read.ended {
            return Err(self.unexplained(read, floor));
        }
        Ok(place)
    }

    fn unexplained(&self, read: &Read, floor: usize) -> String {
        let last = if floor > 0 { format!("{:?}", self.write(floor)) } else { "the beginning".to_owned() };
        // The keys whose versions never meet are enough.
        let keys: BTreeSet<usize> = read.seen.iter().map(|(key, _)| *key).collect();
        let places: Vec<String> = read
            .seen
            .iter()
            .map(|(key, version)| format!("key {key} version {version}: from place {:?}", self.first_with(*key, *version, floor)))
            .collect();
        let evidence = self.history.evidence(&keys);
        format!("no state explains {read:?},\nwhich may not be older than place {floor}: {last}\n{}\n  {evidence}", places.join("\n"))
    }

    /// The last place that was promised to be there.
    fn promised(&self, found: &Found) -> usize {
        let ended = |place: &usize| self.write(*place).ended;
        let places = 1..=self.done.len();
        if found.end == End::Kill {
            return places.filter(|place| ended(place) < found.after).max().unwrap_or(0);
        }
        let synced = self.history.syncs.iter().filter(|(_, ended)| *ended < found.after).map(|(began, _)| *began).max().unwrap_or(0);
        let durable = |place: &usize| self.write(*place).durable && ended(place) < found.after;
        places.filter(|place| durable(place) || ended(place) < synced).max().unwrap_or(0)
    }

    fn check_found(&self, found: &Found) -> Result<(), String> {
        let promised = self.promised(found);
        let mut state = self.history.base;
        for place in 0..=self.done.len() {
            if place > 0 {
                let write = self.write(place);
                if write.began > found.before {
                    break;
                }
                apply(&mut state, &write.effects);
            }
            if place >= promised && self.reaches(&state, place, found) {
                return Ok(());
            }
        }
        let evidence = self.history.evidence(&(0..KEYS).collect());
        Err(format!("no prefix explains {found:?}, with place {promised} promised:\n  {evidence}"))
    }

    /// Whether the state behind `place`, with some of the batches in doubt that follow it, is what was found.
    fn reaches(&self, state: &State, place: usize, found: &Found) -> bool {
        let from = if place == 0 { 0 } else { self.done[place - 1] + 1 };
        let to = self.done.get(place).copied().unwrap_or(self.history.writes.len());
        // What failed for good cannot come back from then on; before, nothing may have recorded it yet.
        let is_open = |write: &&Write| match write.fate {
            Fate::Done => false,
            Fate::Doubt => write.began < found.before,
            Fate::Never => write.began < found.before && write.ended > found.after,
        };
        let doubtful = self.history.writes[from..to].iter().filter(is_open);
        // Backwards: a batch that fits what was found, where nothing behind it has written, may as well be there.
        let mut settled = [false; KEYS];
        for write in doubtful.collect::<Vec<_>>().into_iter().rev() {
            let mut after = found.state;
            apply(&mut after, &write.effects);
            let open = || write.effects.iter().map(|(key, _)| *key).filter(|key| !settled[*key]);
            if open().all(|key| after[key] == found.state[key]) {
                write.effects.iter().for_each(|(key, _)| settled[*key] = true);
            }
        }
        (0..KEYS).all(|key| settled[key] || state[key] == found.state[key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(order: u64, began: u64, ended: u64, effects: &[Effect], fate: Fate) -> Write {
        Write { order: (order, 0), client: 0, began, ended, effects: effects.to_vec(), seen: Vec::new(), durable: false, fate }
    }

    fn read(began: u64, ended: u64, seen: &[Effect]) -> Read {
        Read { client: 1, began, ended, seen: seen.to_vec() }
    }

    /// Two batches, each of both keys, and a third that failed in doubt; a read of each moment.
    fn sample() -> History {
        let mut history = History::new([0; KEYS]);
        history.writes.push(write(5, 1, 10, &[(0, 1), (1, 2)], Fate::Done));
        history.writes.push(write(6, 11, 30, &[(0, 3), (1, 4)], Fate::Done));
        history.writes.push(write(7, 31, 40, &[(0, 5), (1, 6)], Fate::Doubt));
        history
    }

    #[test]
    fn a_read_is_explained_or_not() {
        let check = |reads: &[Read]| {
            let mut history = sample();
            history.reads.extend_from_slice(reads);
            history.check(&[]).is_ok()
        };
        assert!(check(&[read(2, 3, &[(0, 0), (1, 0)]), read(12, 13, &[(0, 1), (1, 2)]), read(14, 15, &[(0, 3), (1, 4)])]));
        assert!(!check(&[read(2, 3, &[(0, 1), (1, 0)])]), "half a batch");
        assert!(!check(&[read(2, 3, &[(0, 3)])]), "from the future");
        assert!(!check(&[read(12, 13, &[(0, 0)])]), "older than what was acknowledged");
        assert!(!check(&[read(12, 13, &[(0, 3)]), read(14, 15, &[(1, 2)])]), "older than what was seen before");
        assert!(check(&[read(12, 15, &[(0, 3)]), read(13, 14, &[(1, 2)])]), "side by side they may go either way");
        assert!(!check(&[read(41, 42, &[(0, 5)])]), "what failed is not visible");
    }

    #[test]
    fn a_batch_reads_what_was_before_it() {
        for (seen, good) in [((0, 1), true), ((0, 3), false), ((1, 0), false)] {
            let mut history = sample();
            history.writes[1].seen.push(seen);
            assert_eq!(history.check(&[]).is_ok(), good);
        }
        let mut history = sample();
        history.writes[0].began = 35;
        history.writes[0].ended = 36;
        assert!(history.check(&[]).is_err(), "acknowledged before one began that stands before it");
    }

    #[test]
    fn what_a_crash_leaves_is_explained_or_not() {
        let found = |versions: [u32; 2], end, after, before| {
            let mut state = [0; KEYS];
            state[..2].copy_from_slice(&versions);
            Found { after, before, end, state }
        };
        let check = |found: Found| sample().check(&[found]).is_ok();
        for (versions, lost, killed) in
            [([0, 0], true, false), ([1, 2], true, false), ([3, 4], true, true), ([5, 6], true, true), ([1, 4], false, false)]
        {
            assert_eq!(check(found(versions, End::PowerCut, 50, 50)), lost, "{versions:?}");
            assert_eq!(check(found(versions, End::Kill, 50, 50)), killed, "{versions:?}");
        }
        assert!(check(found([1, 2], End::Kill, 20, 20)) && !check(found([5, 6], End::Kill, 20, 20)), "in the midst of it");
        let mut history = sample();
        history.writes[2].fate = Fate::Never;
        assert!(history.clone().check(&[found([5, 6], End::Kill, 35, 36)]).is_ok(), "not yet refused");
        assert!(history.check(&[found([5, 6], End::Kill, 41, 42)]).is_err(), "refused for good");
        let mut history = sample();
        history.syncs.push((11, 12));
        assert!(history.clone().check(&[found([0, 0], End::PowerCut, 12, 50)]).is_ok(), "not yet synced");
        assert!(history.check(&[found([0, 0], End::PowerCut, 13, 50)]).is_err(), "synced");
    }
}
