//! The driver of fuzzing: every target's corpus is replayed, and what chance makes of it is thrown at the target.
//!
//! `cargo test` replays `fuzz/corpus` and adds a little; `.ci/fuzz RUNS` does RUNS executions in all (KVBATCH_FUZZ_RUNS), with seed
//! KVBATCH_FUZZ_SEED. Every input follows from corpus and seed. A target is a function that panics when something is wrong,
//! and stands beside what it is about. `KVBATCH_BLESS=1` writes the corpus anew from each target's `seeds`, beside what was found.

use super::options::fuzz as options_fuzz;
use crate::base::random::Random;
use crate::engine::fuzz as engine_fuzz;
use crate::native::fuzz as native_fuzz;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A target: its name, what it does, and its share of 1000 executions (those that open stores take long).
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    share: u64,
}

/// All targets.
static TARGETS: [Target; 8] = [
    Target { name: "record", run: engine_fuzz::record, share: 330 },
    Target { name: "packed", run: engine_fuzz::packed, share: 100 },
    Target { name: "frame", run: native_fuzz::frame, share: 60 },
    Target { name: "checkpoint", run: native_fuzz::checkpoint, share: 40 },
    Target { name: "manifest", run: native_fuzz::manifest, share: 150 },
    Target { name: "dictionary", run: native_fuzz::dictionary, share: 60 },
    Target { name: "url", run: options_fuzz::url, share: 250 },
    Target { name: "files", run: native_fuzz::files, share: 10 },
];

/// Longest input, in bytes: a step takes no longer than its input allows.
const INPUT_LEN_MAX: usize = 16 << 10;

/// Executions beside the corpus in a plain `cargo test`.
const RUNS: u64 = 20_000;

/// Numbers that lengths and counts break at.
const ODD: [u64; 10] = [0, 1, 7, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(corpus_of(name)).expect(name).flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// An input made of those there are: a few small changes, now and then a large one.
fn mutated(rng: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut Random| corpus.get(rng.below(corpus.len() as u64) as usize).cloned().unwrap_or_default();
    let mut input = pick(rng);
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let rest = input.len() - at;
        match rng.below(10) {
            0..=2 => input.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << rng.below(8)),
            3 | 4 => input.get_mut(at).into_iter().for_each(|byte| *byte = rng.next_u64() as u8),
            5 | 6 => {
                let number = ODD[rng.below(ODD.len() as u64) as usize].wrapping_add(rng.below(3)).wrapping_sub(1).to_le_bytes();
                let len = rest.min(1 << rng.below(4));
                input[at..at + len].copy_from_slice(&number[..len]);
            }
            7 => drop(input.drain(at..at + rng.below(rest.min(40) as u64 + 1) as usize)),
            8 => {
                let part: Vec<u8> = (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect();
                input.splice(at..at, part);
            }
            _ if rng.one_in(4) => input.truncate(at),
            _ => {
                let other = pick(rng);
                let from = rng.below(other.len() as u64 + 1) as usize;
                let end = (from + rng.below(200) as usize).min(other.len());
                input.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    input.truncate(INPUT_LEN_MAX);
    input
}

/// Runs a target once; what makes it panic is kept, to be replayed from then on.
fn execute(target: &Target, input: &[u8], keep: bool) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let name = format!("found-{:08x}", crate::base::crc::crc32c(input));
        let path = std::env::var_os("KVBATCH_FUZZ_FOUND")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
            .join(&name);
        if keep && std::fs::write(&path, input).is_ok() {
            let _ = writeln!(std::io::stdout(), "again: mv {} fuzz/corpus/{}/", path.display(), target.name);
        }
        resume_unwind(panic);
    }
}

/// The corpus and `runs` inputs made of it.
fn drive(target: &Target, runs: u64, seed: u64, keep: bool) {
    let corpus = corpus(target.name);
    assert!(!corpus.is_empty(), "{} has no corpus", target.name);
    let start = Instant::now();
    corpus.iter().for_each(|input| execute(target, input, keep));
    let mut rng = Random::new(seed);
    let mut slowest = 0.0f64;
    for _ in 0..runs {
        let input = mutated(&mut rng, &corpus);
        let begun = Instant::now();
        execute(target, &input, keep);
        slowest = slowest.max(begun.elapsed().as_secs_f64());
    }
    let seconds = start.elapsed().as_secs_f64();
    let _ = writeln!(
        std::io::stdout(),
        "fuzz: {}: {} executions in {seconds:.1} s, the slowest {:.1} ms",
        target.name,
        corpus.len() as u64 + runs,
        slowest * 1000.0
    );
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Most memory the process has had, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

fn drive_all(only: &str) {
    let (runs, seed) = (number("KVBATCH_FUZZ_RUNS", RUNS), number("KVBATCH_FUZZ_SEED", 1));
    let target = TARGETS.iter().find(|target| target.name == only).expect(only);
    drive(target, (runs * target.share / 1000).max(20), seed, true);
    if std::env::var_os("KVBATCH_FUZZ_RUNS").is_some() {
        let _ = writeln!(std::io::stdout(), "fuzz: {only}: {} MiB of memory at the most", peak_bytes() >> 20);
    }
}

macro_rules! tests_of {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            drive_all(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            assert_eq!(TARGETS.each_ref().map(|target| target.name), [$(stringify!($name)),*]);
            assert_eq!(TARGETS.iter().map(|target| target.share).sum::<u64>(), 1000);
        }
    };
}

tests_of!(record packed frame checkpoint manifest dictionary url files);

/// Every target has good inputs to begin with.
#[test]
fn seeds_are_good() {
    let seeds = [engine_fuzz::seeds(), native_fuzz::seeds(), options_fuzz::seeds()].concat();
    for target in &TARGETS {
        let own = seeds.iter().filter(|(name, _)| *name == target.name).map(|(_, input)| input);
        assert!(own.clone().count() > 0, "{} has no seeds", target.name);
        own.clone().for_each(|input| (target.run)(input));
        if std::env::var_os("KVBATCH_BLESS").is_some_and(|bless| bless == "fuzz") {
            std::fs::create_dir_all(corpus_of(target.name)).expect("a directory");
            own.enumerate()
                .for_each(|(i, input)| std::fs::write(corpus_of(target.name).join(format!("seed-{i:02}")), input).expect("written"));
        }
    }
}

/// A target that finds nothing proves nothing: `cargo test --features planted --lib planted::`.
#[cfg(feature = "planted")]
mod planted {
    use super::{TARGETS, drive};
    use crate::base::planted::{Bug, with_planted};

    /// A fault, and the target that is about it.
    const NETS: [(Bug, &str); 7] = [
        (Bug::RecordEndBelieved, "record"),
        (Bug::PackedLengthBelieved, "packed"),
        (Bug::HeaderSumIgnored, "frame"),
        (Bug::UnknownSlotTaken, "checkpoint"),
        (Bug::ManifestCountBelieved, "manifest"),
        (Bug::EscapeEndBelieved, "url"),
        (Bug::ApplyHalfBatch, "files"),
    ];

    #[test]
    fn each_target_catches_what_is_planted() {
        for (bug, name) in NETS {
            let target = TARGETS.iter().find(|target| target.name == name).expect(name);
            let loud = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| {}));
            let result = with_planted(Some(bug), || drive(target, 4000, 1, false));
            std::panic::set_hook(loud);
            assert!(result.is_err(), "{bug:?} was not caught by fuzzing {name}");
            crate::native::tests::sweep::say(&format!("planted: {bug:?} is caught by fuzzing {name}"));
        }
    }
}
