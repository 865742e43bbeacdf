//! The options of a store: one table of names, kinds, limits, defaults and meanings.
//!
//! The URL (`file:PATH?min_fill_rate=40`), the options object, the CLI and docs/OPTIONS.md all come from this table; an
//! option that is not in it does not exist. Nothing here touches a store: the result is the engine's own settings.

#[cfg(test)]
pub(super) mod fuzz;
mod kind;
mod page;

pub use kind::Kind;
pub use page::{page, text};

use crate::base::code::Code;
use crate::base::error::{Error, Result};
use crate::engine::Codec;
use crate::native::{Options, Recovery};

/// One option.
pub struct Spec {
    /// How it is written.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// The default in words, where it depends on the machine; then `auto` is a value too.
    pub automatic: Option<&'static str>,
    /// What it does, in a sentence or two.
    pub meaning: &'static str,
    get: fn(&Options) -> u64,
    set: fn(&mut Options, u64),
}

/// Every option there is.
pub static TABLE: &[Spec] = &[
    Spec {
        name: "min_fill_rate",
        kind: Kind::Percent { max: 95 },
        automatic: None,
        meaning: "Chunks in which this share or less is still live are rewritten in the background and removed; \
                  0: none are, and dead bytes stay on disk. Until a store takes three fifths of the space that this allows, a chunk that \
                  is losing more by itself is given time for it.",
        get: |options| options.min_fill_percent,
        set: |options, value| options.min_fill_percent = value,
    },
    Spec {
        name: "compaction_rate_limit",
        kind: Kind::Bytes { min: 64 << 10, max: 1 << 40, or_zero: true },
        automatic: None,
        meaning: "Bytes per second that compaction may move; 0: as many as commits leave room for.",
        get: |options| options.compaction_bytes_per_second,
        set: |options, value| options.compaction_bytes_per_second = value,
    },
    Spec {
        name: "compacted_codec",
        kind: Kind::Choice(&["none", "lz4", "dense", "zstd"]),
        automatic: None,
        meaning: "How compaction packs the values that it moves. `dense`: with dictionaries that it makes from values of the store, \
                  for small values of one kind. `zstd`: the same with zstd; a library that was built without it refuses this with \
                  `KV_ERR_NOT_SUPPORTED`. Packing makes compaction slower; what is packed is read with any value of this option.",
        get: |options| options.compacted_codec as u64,
        set: |options, value| {
            options.compacted_codec = u8::try_from(value).ok().and_then(Codec::from_number).unwrap_or(options.compacted_codec);
        },
    },
    Spec {
        name: "chunk_bytes",
        kind: Kind::Bytes { min: 4 << 20, max: 2 << 30, or_zero: false },
        automatic: None,
        meaning: "A chunk file that would grow beyond this is ended and the next one begun; a larger batch has one to itself.",
        get: |options| options.chunk_bytes,
        set: |options, value| options.chunk_bytes = value,
    },
    Spec {
        name: "hot_log_bytes",
        kind: Kind::Bytes { min: 4 << 20, max: 1 << 40, or_zero: true },
        automatic: Some("a 16th of the memory, at most 256m"),
        meaning: "Memory for the newest chunks, which are then read without the disk. It holds whole chunks, so one smaller than \
                  `chunk_bytes` holds none; 0: none is wanted.",
        get: |options| options.hot_log_bytes,
        set: |options, value| options.hot_log_bytes = value,
    },
    Spec {
        name: "checkpoint_log_bytes",
        kind: Kind::Bytes { min: 1 << 20, max: 1 << 40, or_zero: true },
        automatic: None,
        meaning: "A checkpoint of the index is written when the log has grown by this much: opening goes through little more. \
                  0: none is written.",
        get: |options| options.checkpoint_log_bytes,
        set: |options, value| options.checkpoint_log_bytes = value,
    },
    Spec {
        name: "beat_idle_ms",
        kind: Kind::Count { min: 0, max: 86_400_000 },
        automatic: None,
        meaning: "When nothing was written for so many milliseconds, the log is made to say how far it is on stable storage: then \
                  damage of its end is told from what a crash left unfinished. 0: never.",
        get: |options| options.beat_idle_ms,
        set: |options, value| options.beat_idle_ms = value,
    },
    Spec {
        name: "recovery",
        kind: Kind::Choice(&["strict", "prefix"]),
        automatic: None,
        meaning: "What to do when data that had been confirmed is found damaged. `strict`: the store does not open. `prefix`: what \
                  lies before the damage is kept, and all that was written behind it is given up, with a line in the log about \
                  each thing that is; whole files are renamed to `dropped-...`, not removed. `kvbatch salvage` saves more.",
        get: |options| u64::from(options.recovery == Recovery::Prefix),
        set: |options, value| options.recovery = if value == 0 { Recovery::Strict } else { Recovery::Prefix },
    },
    Spec {
        name: "read_only",
        kind: Kind::Bool,
        automatic: None,
        meaning: "The store is read and nothing else: no file is made or changed, writes are refused. Several processes may have it \
                  open this way at a time, while none has it open to write. It may lie on media that cannot be written.",
        get: |options| u64::from(options.read_only),
        set: |options, value| options.read_only = value != 0,
    },
    Spec {
        name: "reserve_percent",
        kind: Kind::Percent { max: 200 },
        automatic: None,
        meaning: "Disk space that a store of more than a chunk or two keeps for the day when the disk is full, as a share of \
                  chunk_bytes: deletes and compaction make room with it. 0: none.",
        get: |options| options.reserve_percent,
        set: |options, value| options.reserve_percent = value,
    },
    Spec {
        name: "prepare_chunks",
        kind: Kind::Bool,
        automatic: None,
        meaning: "While batches are made durable one by one, the file for the next chunk is made ready ahead of its use: that of a \
                  chunk which compaction has removed, else a new one, full of zeros if batches are small. Durable writes are up to \
                  twice as quick then. It takes the space of a chunk; of those that were removed one is kept, and up to \
                  four where there are four times as many others. For other batches the next chunk is begun ahead, so that they need not \
                  wait for its header; that takes a block. And while batches of 4 KiB and more come, up to 9 MiB of space (8 MiB and a \
                  batch, or two large batches) behind the log's end, most of which is given back.",
        get: |options| u64::from(options.prepare_chunks),
        set: |options, value| options.prepare_chunks = value != 0,
    },
    Spec {
        name: "write_merge",
        kind: Kind::Bool,
        automatic: None,
        meaning: "Batches that wait to be written at the same time share one write and one sync. Off: each has its own.",
        get: |options| u64::from(options.write_merge),
        set: |options, value| options.write_merge = value != 0,
    },
    Spec {
        name: "write_merge_bytes",
        kind: Kind::Bytes { min: 4 << 10, max: 1 << 30, or_zero: true },
        automatic: None,
        meaning: "Most bytes of records in such a shared write; a larger batch has one to itself. 0: by the first batch in it: a small \
                  one may be joined by 128k, a larger one up to 1m in all.",
        get: |options| options.write_merge_bytes,
        set: |options, value| options.write_merge_bytes = value,
    },
];

/// Options that somebody has set, each at most once. The others have their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionSet {
    values: [Option<u64>; TABLE.len()],
}

impl OptionSet {
    /// Reads `name=value&name=value` as it stands in a URL, `%XX` undone in each part. An empty text sets nothing.
    pub fn from_query(query: &[u8]) -> Result<OptionSet> {
        let mut set = OptionSet::default();
        if query.is_empty() {
            return Ok(set);
        }
        for part in query.split(|byte| *byte == b'&') {
            let mut sides = part.splitn(2, |byte| *byte == b'=').map(super::url::unescape);
            match (sides.next().flatten(), sides.next()) {
                (Some(name), Some(Some(value))) => set.set(&String::from_utf8_lossy(&name), &String::from_utf8_lossy(&value))?,
                (Some(name), None) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    spec_of(&name)?;
                    return Err(refused(format!("option {name} has no value: write {name}=VALUE")));
                }
                _ => return Err(refused("a % in an option must be followed by two hexadecimal digits".to_owned())),
            }
        }
        set.check()?;
        Ok(set)
    }

    /// Sets one option. What sets several calls `check` when all are set.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let (at, spec) = spec_of(name)?;
        let parsed = match spec.automatic {
            Some(_) if value == "auto" => Some((spec.get)(&Options::default())),
            _ => spec.kind.parse(value),
        };
        let Some(parsed) = parsed else {
            return Err(refused(format!("option {name}=\"{value}\" is impossible: give it {}", spec.values())));
        };
        match self.values.get_mut(at) {
            Some(Some(_)) => Err(refused(format!("option {name} is given twice: give it once"))),
            Some(slot) => {
                *slot = Some(parsed);
                Ok(())
            }
            None => Err(refused(format!("option {name} has no place"))),
        }
    }

    /// Whether the options that are set make sense together.
    pub fn check(&self) -> Result<()> {
        let options = self.options();
        if options.compacted_codec.check_built().is_err() {
            let text = "option compacted_codec=zstd: this library was built without zstd: use one built with the feature `zstd`, \
                        or compacted_codec=dense";
            return Err(Error::new(Code::NOT_SUPPORTED, text));
        }
        let contradict = |one: &str, other: &str, why: &str| {
            Err(refused(format!("options {} and {} contradict each other: {why}", self.told(one, &options), self.told(other, &options))))
        };
        if self.is_set("min_fill_rate") && options.min_fill_percent == 0 && options.compaction_bytes_per_second > 0 {
            return contradict("min_fill_rate", "compaction_rate_limit", "without compaction there is no rate: leave one of them out");
        }
        if self.is_set("hot_log_bytes") && options.hot_log_bytes > 0 && options.hot_log_bytes < options.chunk_bytes {
            return contradict(
                "hot_log_bytes",
                "chunk_bytes",
                "the hot log holds whole chunks: make it larger, or chunk_bytes smaller, or set it to 0",
            );
        }
        if options.write_merge_bytes > 0 && !options.write_merge {
            return contradict("write_merge", "write_merge_bytes", "nothing is shared that could be limited: leave one of them out");
        }
        let for_writers = [
            "min_fill_rate",
            "compaction_rate_limit",
            "compacted_codec",
            "chunk_bytes",
            "checkpoint_log_bytes",
            "beat_idle_ms",
            "reserve_percent",
            "prepare_chunks",
            "write_merge",
            "write_merge_bytes",
        ];
        match for_writers.iter().find(|name| options.read_only && self.is_set(name)) {
            Some(name) => contradict("read_only", name, "whoever only reads writes no chunks: leave one of them out"),
            None => Ok(()),
        }
    }

    /// The engine's settings: what is set, and the defaults of the rest.
    pub fn options(&self) -> Options {
        let mut options = Options::default();
        for (spec, value) in TABLE.iter().zip(&self.values) {
            if let Some(value) = value {
                (spec.set)(&mut options, *value);
            }
        }
        options
    }

    /// An error if an option that is set differs from those that are `in_force`.
    pub fn check_against(&self, in_force: &Options, store: &str) -> Result<()> {
        for (spec, value) in TABLE.iter().zip(&self.values) {
            let now = (spec.get)(in_force);
            if let Some(wanted) = value.filter(|wanted| *wanted != now) {
                let (name, now, wanted) = (spec.name, spec.kind.format(now), spec.kind.format(wanted));
                let text = format!(
                    "store {store}: it is open in this process with {name}={now}, not {wanted}: use the same value, leave {name} out, \
                     or stop the other managers first"
                );
                return Err(Error::new(Code::CONFIG, text));
            }
        }
        Ok(())
    }

    fn is_set(&self, name: &str) -> bool {
        TABLE.iter().zip(&self.values).any(|(spec, value)| spec.name == name && value.is_some())
    }

    fn told(&self, name: &str, options: &Options) -> String {
        let value = TABLE.iter().find(|spec| spec.name == name).map(|spec| spec.kind.format((spec.get)(options)));
        format!("{name}={}", value.unwrap_or_default())
    }
}

impl Spec {
    /// The values it takes, in words.
    pub fn values(&self) -> String {
        let values = self.kind.values();
        if self.automatic.is_some() { format!("{values}, or auto") } else { values }
    }

    /// The default, in words.
    pub fn default_value(&self) -> String {
        match self.automatic {
            Some(words) => format!("auto: {words}"),
            None => self.kind.format((self.get)(&Options::default())),
        }
    }
}

fn spec_of(name: &str) -> Result<(usize, &'static Spec)> {
    let found = TABLE.iter().enumerate().find(|(_, spec)| spec.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = TABLE.iter().map(|spec| spec.name).collect();
        refused(format!("unknown option \"{name}\": there are {}", names.join(", ")))
    })
}

fn refused(text: String) -> Error {
    Error::new(Code::INVALID_PARAM, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        let error = OptionSet::from_query(query.as_bytes()).expect_err(query);
        assert_eq!(error.code, Code::INVALID_PARAM, "{query}");
        error.message.into_owned()
    }

    #[test]
    fn what_is_set_arrives_and_the_rest_has_its_default() {
        let set = OptionSet::from_query(b"min_fill_rate=40&hot_log_bytes=%36%34m&recovery=prefix").expect("good");
        let (options, default) = (set.options(), Options::default());
        assert_eq!((options.min_fill_percent, options.hot_log_bytes, options.recovery), (40, 64 << 20, Recovery::Prefix));
        assert_eq!((options.chunk_bytes, options.read_only), (default.chunk_bytes, false));
        assert_eq!(OptionSet::from_query(b""), Ok(OptionSet::default()));
        let auto = OptionSet::from_query(b"hot_log_bytes=auto").expect("good");
        assert_eq!(auto.options().hot_log_bytes, default.hot_log_bytes);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (query, words) in [
            ("min_fill=3", &["unknown option \"min_fill\"", "min_fill_rate", "read_only"][..]),
            ("min_fill_rate=96", &["min_fill_rate=\"96\"", "0 to 95"]),
            ("min_fill_rate=", &["min_fill_rate"]),
            ("min_fill_rate", &["min_fill_rate", "no value"]),
            ("min_fill_rate=1&min_fill_rate=1", &["min_fill_rate", "twice"]),
            ("chunk_bytes=3m", &["chunk_bytes=\"3m\"", "4m to 2g"]),
            ("chunk_bytes=99999999999999999999g", &["chunk_bytes"]),
            ("recovery=lenient", &["recovery", "strict or prefix"]),
            ("compacted_codec=snappy", &["compacted_codec=\"snappy\"", "none or lz4 or dense or zstd"]),
            ("read_only=true&compacted_codec=dense", &["read_only=true", "compacted_codec=dense"]),
            ("read_only=maybe", &["read_only", "true or false"]),
            ("min_fill_rate=0&compaction_rate_limit=1m", &["min_fill_rate=0", "compaction_rate_limit=1m"]),
            ("hot_log_bytes=4m", &["hot_log_bytes=4m", "chunk_bytes=64m"]),
            ("read_only=true&chunk_bytes=8m", &["read_only=true", "chunk_bytes=8m"]),
            ("write_merge=off&write_merge_bytes=64k", &["write_merge=false", "write_merge_bytes=64k"]),
            ("read_only=true&write_merge=false", &["read_only=true", "write_merge=false"]),
            ("recovery=%7", &["hexadecimal"]),
            ("&", &["unknown option \"\""]),
        ] {
            let said = refusal(query);
            assert!(words.iter().all(|word| said.contains(word)), "{query}: {said}");
        }
    }

    #[test]
    fn options_in_force_are_not_changed_by_a_second_manager() {
        let in_force = OptionSet::from_query(b"min_fill_rate=40").expect("good").options();
        let check = |query: &str| OptionSet::from_query(query.as_bytes()).expect("good").check_against(&in_force, "s");
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("min_fill_rate=40&chunk_bytes=64m"), Ok(()));
        let error = check("min_fill_rate=50").expect_err("differs");
        assert!(error.code == Code::CONFIG && error.message.contains("min_fill_rate=40, not 50"), "{error}");
    }

    #[test]
    fn codecs_are_named_as_their_numbers_say() {
        for (word, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("dense", Codec::Dense), ("zstd", Codec::Zstd)] {
            let set = OptionSet::from_query(format!("compacted_codec={word}").as_bytes());
            match codec.check_built() {
                Ok(()) => assert_eq!(set.expect(word).options().compacted_codec, codec),
                Err(_) => {
                    let error = set.expect_err("is not there");
                    assert!(error.code == Code::NOT_SUPPORTED && error.message.contains("compacted_codec=zstd"), "{error}");
                }
            }
        }
    }

    #[test]
    fn every_default_is_a_value_the_option_takes() {
        for spec in TABLE {
            let default = (spec.get)(&Options::default());
            assert!(spec.automatic.is_some() || spec.kind.parse(&spec.kind.format(default)) == Some(default), "{}", spec.name);
        }
    }
}
