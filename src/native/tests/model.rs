//! What a store must hold: states, and the oracle that knows which states a crash may leave.
//!
//! A key's value says which version of which key it is, so one look tells a wrong value from an old one. The oracle
//! keeps the commit order and what was promised about each group; it never looks at the disk.

use crate::base::random::Random;
use crate::engine::record::Record;
use crate::engine::{BatchId, BatchOutcome};

/// Keys of the universe.
pub const KEYS: usize = 16;

/// The version of each key; 0: not there.
pub type State = [u32; KEYS];

/// A write of a batch: which key, and its new version (0: deleted).
pub type Effect = (usize, u32);

/// The bytes of a key: of many lengths, some of them long.
pub fn key_bytes(key: usize) -> Vec<u8> {
    const LENS: [usize; 8] = [1, 3, 8, 16, 17, 40, 255, 700];
    let mut bytes = vec![b'k'; LENS[key % LENS.len()]];
    bytes[0] = b'A' + key as u8;
    bytes
}

/// The value that belongs to a version: tiny, larger than a block, or one that ends in many zeros.
pub fn value_bytes(key: usize, version: u32) -> Vec<u8> {
    let mut rng = Random::new(u64::from(version) << 8 | key as u64);
    let (len, zeros_from) = match rng.below(25) {
        0..=9 => return text_bytes(version, &mut rng),
        10 => (4 + rng.below(12), u64::MAX),
        11..=17 => (16 + rng.below(200), u64::MAX),
        18 => (500 + rng.below(1500), u64::MAX),
        19 => (4000 + rng.below(6000), u64::MAX),
        _ => (200 + rng.below(3000), 4 + rng.below(100)),
    };
    let mut value = vec![0; len as usize];
    let end = value.len().min(usize::try_from(zeros_from).unwrap_or(usize::MAX));
    for part in value[..end].chunks_mut(8) {
        part.copy_from_slice(&rng.next_u64().to_le_bytes()[..part.len()]);
    }
    value[..4].copy_from_slice(&version.to_le_bytes());
    value
}

/// A value that has much in common with others of its kind.
fn text_bytes(version: u32, rng: &mut Random) -> Vec<u8> {
    let mut value = version.to_le_bytes().to_vec();
    let rows_max = [3, 24][rng.below(2) as usize];
    for _ in 0..1 + rng.below(rows_max) {
        let city = ["Berlin", "Vienna", "Zurich"][rng.below(3) as usize];
        value.extend_from_slice(format!("{{\"customer\":{},\"city\":\"{city}\",\"is_active\":true}}", rng.below(1000)).as_bytes());
    }
    value
}

/// The version that a value belongs to, if every byte of it is right.
pub fn version_of(key: usize, value: &[u8]) -> Option<u32> {
    let version = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    (value_bytes(key, version) == value).then_some(version)
}

/// Appends the record of an effect to `block`; its length.
pub fn encode(block: &mut Vec<u8>, effect: &Effect) -> usize {
    let (key, value) = (key_bytes(effect.0), value_bytes(effect.0, effect.1));
    let record = if effect.1 == 0 { Record::delete(&key) } else { Record::put(&key, &value) };
    let start = block.len();
    block.resize(start + record.encoded_len(), 0);
    record.encode(&mut block[start..]);
    block.len() - start
}

/// Applies a group's effects to a state.
pub fn apply(state: &mut State, effects: &[Effect]) {
    effects.iter().for_each(|(key, version)| state[*key] = *version);
}

/// What is known about a group of the commit order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Begun, and neither acknowledged nor refused yet.
    Flying,
    /// Acknowledged.
    Published,
    /// Reported as failed, in doubt.
    Doubt,
    /// Reported as failed for good.
    Never,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed: the kernel goes on with all that it was given.
    Kill,
    /// The power went.
    PowerCut,
}

/// One group, in the commit order.
#[derive(Clone, Debug)]
struct Group {
    effects: Vec<Effect>,
    /// Of its batches that write.
    ids: Vec<BatchId>,
    outcome: Outcome,
}

/// See the top of this file.
#[derive(Clone, Debug)]
pub struct Oracle {
    base: State,
    groups: Vec<Group>,
    /// The state that readers see.
    pub visible: State,
    /// This many groups were promised to be on stable storage, as far as they were acknowledged.
    durable: usize,
    /// A checkpoint was finished: from then on there always is a good one.
    pub has_checkpoint: bool,
    /// What has become of batches of earlier openings.
    settled: Vec<(BatchId, BatchOutcome)>,
}

impl Oracle {
    /// Begins with `base`, all of it durable.
    pub fn new(base: State) -> Oracle {
        Oracle { base, groups: Vec::new(), visible: base, durable: 0, has_checkpoint: false, settled: Vec::new() }
    }

    /// A group takes its place; its number.
    pub fn begin(&mut self, effects: Vec<Effect>, ids: Vec<BatchId>) -> usize {
        self.groups.push(Group { effects, ids, outcome: Outcome::Flying });
        self.groups.len() - 1
    }

    /// A group has ended.
    pub fn end(&mut self, group: usize, outcome: Outcome) {
        let group = &mut self.groups[group];
        // A group that writes nothing leaves nothing to be promised.
        group.outcome = if group.effects.is_empty() { Outcome::Never } else { outcome };
        if outcome == Outcome::Published {
            apply(&mut self.visible, &group.effects);
        }
    }

    /// Groups begun so far.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// The first `groups` groups were promised to be durable.
    pub fn made_durable(&mut self, groups: usize) {
        self.durable = self.durable.max(groups);
    }

    /// The disk lies: nothing that it has said counts.
    pub fn promise_nothing(&mut self) {
        self.durable = 0;
    }

    /// Whether `found` is a state that the end may leave: a prefix of the commit order with all that was promised.
    pub fn check(&self, found: &State, end: End) -> Result<(), String> {
        // A group in doubt is promised to nobody, and one that was published behind it settles that it never was.
        let behind_published =
            |groups: &[Group]| groups.iter().rposition(|group| group.outcome == Outcome::Published).map_or(0, |last| last + 1);
        let acknowledged = behind_published(&self.groups);
        let promised = if end == End::Kill { acknowledged } else { behind_published(&self.groups[..self.durable]) };
        let mut state = self.base;
        for next in 0..=self.groups.len() {
            if next >= promised && self.reaches(state, next, found) {
                return Ok(());
            }
            if let Some(group) = self.groups.get(next).filter(|group| group.outcome == Outcome::Published) {
                apply(&mut state, &group.effects);
            }
        }
        Err(format!(
            "after {end:?} the store holds {found:?}; begun with {:?}; {promised} of these groups are promised:\n{}",
            self.base,
            self.groups
                .iter()
                .enumerate()
                .map(|(i, group)| format!("  {i}: {:?} {:?}\n", group.outcome, group.effects))
                .collect::<String>()
        ))
    }

    /// After the next opening, which has found `found`: the batches that are said to be committed must be those whose effects
    /// are there, and what was known of earlier ones must still be known. All that is known then.
    pub fn check_outcomes(&self, found: &State, outcome_of: &dyn Fn(BatchId) -> BatchOutcome) -> Vec<(BatchId, BatchOutcome)> {
        let mut known = self.settled.clone();
        for (id, outcome) in &known {
            assert_eq!(outcome_of(*id), *outcome, "of {id:?}, an earlier batch");
        }
        let mut state = self.base;
        for group in &self.groups {
            let outcomes: Vec<_> = group.ids.iter().map(|id| (*id, outcome_of(*id))).collect();
            let Some((_, outcome)) = outcomes.first().copied() else { continue };
            assert!(outcome != BatchOutcome::Unknown && outcomes.iter().all(|(_, other)| *other == outcome), "{group:?}: {outcomes:?}");
            assert!(group.outcome != Outcome::Never || outcome == BatchOutcome::NotCommitted, "{group:?} had no effect");
            if outcome == BatchOutcome::Committed {
                apply(&mut state, &group.effects);
            }
            known.extend(outcomes);
        }
        assert_eq!(state, *found, "left: what the batches that are said to be committed have written, of {:?}", self.groups);
        known
    }

    /// What is known of batches of earlier openings.
    pub fn has_settled(&mut self, known: Vec<(BatchId, BatchOutcome)>) {
        self.settled = known;
    }

    /// Whether `found` is `state` with some of what was never acknowledged: groups in doubt may be there or not, those
    /// that were under way in their order.
    fn reaches(&self, mut state: State, mut next: usize, found: &State) -> bool {
        loop {
            if state == *found {
                return true;
            }
            let Some(group) = self.groups.get(next) else { return false };
            next += 1;
            match group.outcome {
                Outcome::Published => return false,
                Outcome::Never => {}
                Outcome::Doubt if self.reaches(state, next, found) => return true,
                Outcome::Doubt | Outcome::Flying => apply(&mut state, &group.effects),
            }
        }
    }
}

#[test]
fn the_oracle_tells_promised_from_possible() {
    let state = |versions: &[u32]| {
        let mut state = [0; KEYS];
        state[..versions.len()].copy_from_slice(versions);
        state
    };
    let mut oracle = Oracle::new(state(&[1]));
    for (i, outcome) in [Outcome::Published, Outcome::Doubt, Outcome::Never, Outcome::Published, Outcome::Flying].iter().enumerate() {
        let group = oracle.begin(vec![(0, i as u32 + 2), (1, i as u32 + 2)], Vec::new());
        oracle.end(group, *outcome);
    }
    let found = |oracle: &Oracle, end| -> Vec<u32> {
        (0..8).filter(|v| oracle.check(&state(&[*v, if *v == 1 { 0 } else { *v }]), end).is_ok()).collect()
    };
    assert_eq!(found(&oracle, End::PowerCut), [1, 2, 3, 5, 6]);
    assert_eq!(found(&oracle, End::Kill), [5, 6]);
    oracle.made_durable(1);
    assert_eq!(found(&oracle, End::PowerCut), [2, 3, 5, 6]);
    assert!(oracle.check(&state(&[5, 2]), End::PowerCut).is_err(), "half a batch");
    assert_eq!(oracle.visible, state(&[5, 5]));
}

#[test]
fn values_name_their_version() {
    for version in 1..500 {
        let value = value_bytes(3, version);
        assert_eq!(version_of(3, &value), Some(version));
        assert_eq!(version_of(4, &value), None);
        assert_eq!(version_of(3, &value[..value.len() - 1]), None);
    }
}
