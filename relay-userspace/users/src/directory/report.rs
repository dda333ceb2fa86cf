//! What has become of the questions to a store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The upper bounds of [`StoreReport::buckets`], in seconds.
pub const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5];

/// What has become of the questions to a store.
#[derive(Clone, Debug)]
pub struct StoreReport {
    /// The name of the store.
    pub name: String,
    /// Whether it answers, as far as is known.
    pub is_up: bool,
    /// Questions that it had an answer for.
    pub found: u64,
    /// Questions about whom it does not know, or does not let in.
    pub unknown: u64,
    /// Questions that it failed to answer, those included that were not asked because it was known to be down.
    pub failed: u64,
    /// Questions that it did not answer in time.
    pub timeout: u64,
    /// How many questions took at most as long as the bound of the same place in [`BUCKETS`], and longer than the bound
    /// before it. Those that took longer than the last are in `count` alone.
    pub buckets: [u64; BUCKETS.len()],
    /// How many questions it was asked, whatever became of them.
    pub count: u64,
    /// How long these took together.
    pub sum: Duration,
    /// What went wrong last.
    pub last_error: Option<LastError>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// What, for the operator. No secret is in it.
    pub text: String,
    /// When.
    pub at: SystemTime,
}

/// What has become of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Found,
    Unknown,
    Failed,
    Timeout,
}

/// Counts questions.
#[derive(Default)]
pub(super) struct Counters {
    outcomes: [AtomicU64; 4],
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|&bound| seconds <= bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn report(&self, name: &str, is_up: bool, last_error: Option<LastError>) -> StoreReport {
        let [found, unknown, failed, timeout] = self.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed));
        let (name, sum) = (name.to_owned(), Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)));
        let buckets = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let count = self.count.load(Ordering::Relaxed);
        StoreReport { name, is_up, found, unknown, failed, timeout, buckets, count, sum, last_error }
    }
}
