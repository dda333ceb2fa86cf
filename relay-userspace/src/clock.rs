//! The wall clock, as credentials that expire count it.

use std::time::UNIX_EPOCH;

/// Whole seconds since the Unix epoch; 0 for a clock that is set before it, which makes no credential outlive its time.
pub fn unix_seconds() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
