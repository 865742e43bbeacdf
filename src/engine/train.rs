//! Choosing the phrases of a dictionary from samples of what it is to pack.
//!
//! Greedy cover, as zstd's trainers do it: count in how many samples each short run of bytes occurs, then take, from each
//! part of the samples in turn, the stretch whose runs are the most frequent, and count them no more.

/// Bytes of a run.
const RUN: usize = 6;
/// Bytes of a stretch.
const STRETCH: usize = 40;
const HASH_BITS: u32 = 16;

struct Runs {
    counts: Vec<u32>,
    /// How often each run is in the stretch that is being looked at.
    inside: Vec<u32>,
}

fn hash(run: &[u8]) -> usize {
    let word = run.iter().take(RUN).fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - HASH_BITS)) as usize
}

/// At most `len_max` bytes that many of `samples` have in them.
pub fn phrases(samples: &[&[u8]], len_max: usize) -> Vec<u8> {
    let all = samples.concat();
    let mut runs = Runs::of(samples);
    let part_len = (all.len() / (len_max / STRETCH).max(1)).max(STRETCH);
    let mut chosen: Vec<&[u8]> = Vec::new();
    let mut len = 0;
    let mut gained = true;
    while gained && len < len_max {
        gained = false;
        for part in all.chunks(part_len) {
            let Some(stretch) = runs.best_of(part).filter(|_| len < len_max) else { continue };
            let stretch = &stretch[..stretch.len().min(len_max - len)];
            len += stretch.len();
            chosen.push(stretch);
            gained = true;
        }
    }
    chosen.concat()
}

impl Runs {
    fn of(samples: &[&[u8]]) -> Runs {
        let mut counts = vec![0; 1 << HASH_BITS];
        let mut last_seen = vec![usize::MAX; 1 << HASH_BITS];
        for (number, sample) in samples.iter().enumerate() {
            for run in sample.windows(RUN) {
                let slot = hash(run);
                if std::mem::replace(&mut last_seen[slot], number) != number {
                    counts[slot] += 1;
                }
            }
        }
        // What is in one sample only helps no other.
        counts.iter_mut().filter(|count| **count < 2).for_each(|count| *count = 0);
        Runs { counts, inside: vec![0; 1 << HASH_BITS] }
    }

    /// The stretch of `part` that covers most, cut to what is of use; its runs count no more.
    fn best_of<'a>(&mut self, part: &'a [u8]) -> Option<&'a [u8]> {
        let runs_in = STRETCH - RUN + 1;
        let (mut score, mut best) = (0u64, (0, 0));
        for (at, run) in part.windows(RUN).enumerate() {
            let slot = hash(run);
            if self.inside[slot] == 0 {
                score += u64::from(self.counts[slot]);
            }
            self.inside[slot] += 1;
            if let Some(left) = at.checked_sub(runs_in) {
                let slot = hash(&part[left..]);
                self.inside[slot] -= 1;
                if self.inside[slot] == 0 {
                    score -= u64::from(self.counts[slot]);
                }
            }
            if score > best.0 {
                best = (score, (at + 1).saturating_sub(runs_in));
            }
        }
        part.windows(RUN).for_each(|run| self.inside[hash(run)] = 0);
        let stretch = &part[best.1..part.len().min(best.1 + STRETCH)];
        let useful = |run: &[u8]| self.counts[hash(run)] > 0;
        let first = stretch.windows(RUN).position(useful)?;
        let last = stretch.windows(RUN).rposition(useful)? + RUN;
        stretch.windows(RUN).for_each(|run| self.counts[hash(run)] = 0);
        Some(&stretch[first..last])
    }
}
