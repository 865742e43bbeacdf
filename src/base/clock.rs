//! Time, in one place, so that a test can stand in for it. Deadlines use the monotonic clock only.

use super::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Microseconds since some point in the process's past; never goes back.
#[inline]
pub fn monotonic_us() -> u64 {
    Duration::as_micros(&start().elapsed()) as u64
}

/// The instant `timeout_ms` from now; `None` when it is too far away to be told.
pub fn deadline(timeout_ms: u64) -> Option<Instant> {
    deadline_from(Instant::now(), timeout_ms)
}

/// The same from `begun` on, for those who have looked at the clock just now.
pub fn deadline_from(begun: Instant, timeout_ms: u64) -> Option<Instant> {
    begun.checked_add(Duration::from_millis(timeout_ms))
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Milliseconds since 1970 that never go back within the process: what has expired stays expired.
pub fn unix_ms_rising() -> u64 {
    unix_us_rising() / 1000
}

/// Microseconds since 1970 that never go back within the process, whatever the system's clock does.
pub fn unix_us_rising() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    #[cfg(test)]
    let now = now.saturating_sub(SET_BACK_US.load(Ordering::Relaxed));
    LAST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// A test's way to set the system's clock back.
#[cfg(test)]
pub static SET_BACK_US: AtomicU64 = AtomicU64::new(0);
