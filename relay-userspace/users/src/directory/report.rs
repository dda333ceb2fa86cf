//! What has become of the questions to a store.

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
    /// How many answers took at most as long as the bound of the same place in [`BUCKETS`], and not the bound before;
    /// those that took longer are in `count` alone.
    pub buckets: [u64; BUCKETS.len()],
    /// How many questions were asked and answered.
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
