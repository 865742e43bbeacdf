//! Log lines of the library. They go nowhere until a sink is set (the C edge sets one that feeds `kv_log`).

use super::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// For people who debug the library.
    Debug = 0,
    /// What happened.
    Info = 1,
    /// Works, but somebody should look.
    Warn = 2,
    /// Something failed.
    Error = 3,
    /// The store can no longer be written.
    Fatal = 4,
}

/// Receives log lines: level, file, line, function, message.
pub type Sink = fn(Level, &'static str, u32, &'static str, &str);

static SINK: OnceLock<Sink> = OnceLock::new();

/// Sets the sink, once; later calls change nothing.
pub fn set_sink(sink: Sink) {
    let _ = SINK.set(sink);
}

/// Hands a line to the sink.
#[track_caller]
pub fn write(level: Level, function: &'static str, message: &str) {
    if let Some(sink) = SINK.get() {
        let place = std::panic::Location::caller();
        sink(level, place.file(), place.line(), function, message);
    }
}

/// Tells which of many like events are worth a line: the first, the second, the fourth, and so on.
#[derive(Debug, Default)]
pub struct Rare(AtomicU64);

impl Rare {
    /// Counts an event; its number, if it is to have a line.
    pub fn note(&self) -> Option<u64> {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        number.is_power_of_two().then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::Rare;

    #[test]
    fn lines_get_rarer() {
        let rare = Rare::default();
        let told: Vec<u64> = (0..1000).filter_map(|_| rare.note()).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }
}
