//! Two clocks as numbers: the wall clock, which credentials that expire count, and the one that limits of rate count.

use std::time::UNIX_EPOCH;

use rustix::time::{ClockId, clock_gettime};

/// Whole seconds since the Unix epoch; 0 for a clock that is set before it, which makes no credential outlive its time.
pub fn unix_seconds() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// `CLOCK_MONOTONIC` in nanoseconds, which the XDP program counts, too. (An [`Instant`](std::time::Instant) is of the same
/// clock, but does not tell its number.)
pub fn monotonic_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_monotonic_clock_counts_nanoseconds() {
        let (start, before) = (Instant::now(), monotonic_nanoseconds());
        std::thread::sleep(Duration::from_millis(20));
        let counted = Duration::from_nanos(monotonic_nanoseconds() - before);
        assert!(counted >= Duration::from_millis(20) && counted <= start.elapsed(), "{counted:?}");
    }
}
