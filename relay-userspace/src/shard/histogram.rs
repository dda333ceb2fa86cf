//! How long something took, or lasted: observations in buckets, as Prometheus takes them.
//!
//! Kept by a shard's thread alone, like its counters. One observation costs a search among a dozen bounds and no memory, and
//! is made for an allocation or a handshake, never for a packet.

/// Bounds for the time that an Allocate request waits for its answer, in seconds.
pub(super) const SETUP_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// Bounds for the time that an allocation lives, in seconds: a failed call, a short one, a meeting, a day.
pub(super) const LIFETIME_SECONDS: &[f64] =
    &[1.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 43_200.0, 86_400.0];
/// Bounds for the time that a handshake takes, in seconds: a client nearby, one far away, one that loses packets.
pub(super) const HANDSHAKE_SECONDS: &[f64] = &[0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Observations in buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds: the last is for what is beyond them all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty one. `bounds` are the buckets' upper ends, in ascending order; what is equal to one belongs to its bucket.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// One that somebody else has kept: of each bucket its own observations, without those of the buckets before, and of all
    /// of them the number and the sum.
    pub fn of(bounds: &'static [f64], buckets: &[u64], count: u64, sum: f64) -> Self {
        debug_assert_eq!(bounds.len(), buckets.len());
        let beyond = count.saturating_sub(buckets.iter().sum());
        Self { bounds, counts: buckets.iter().copied().chain([beyond]).collect(), sum }
    }

    /// Counts an observation.
    pub fn record(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Adds what another one with the same bounds has counted.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self.sum += other.sum;
    }

    /// Each bucket's upper end and how many observations are not above it; the last one's end is infinite.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let ends = self.bounds.iter().copied().chain([f64::INFINITY]);
        ends.zip(&self.counts).scan(0, |below, (end, count)| {
            *below += count;
            Some((end, *below))
        })
    }

    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of them all.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.1, 1.0];

    #[test]
    fn an_observation_is_in_every_bucket_whose_end_it_does_not_exceed() {
        let mut histogram = Histogram::new(BOUNDS);
        for value in [0.05, 0.1, 0.11, 1.0, 7.0] {
            histogram.record(value);
        }
        let buckets: Vec<_> = histogram.cumulative().collect();
        assert_eq!(buckets, [(0.1, 2), (1.0, 4), (f64::INFINITY, 5)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 8.26).abs() < 1e-9);
    }

    #[test]
    fn two_become_one() {
        let (mut a, mut b) = (Histogram::new(BOUNDS), Histogram::new(BOUNDS));
        a.record(0.5);
        b.record(0.05);
        b.record(2.0);
        a.add(&b);
        assert_eq!(a.cumulative().collect::<Vec<_>>(), [(0.1, 1), (1.0, 2), (f64::INFINITY, 3)]);
    }

    #[test]
    fn what_was_kept_elsewhere_is_shown_the_same() {
        let mut own = Histogram::new(BOUNDS);
        for value in [0.05, 0.5, 0.5, 7.0] {
            own.record(value);
        }
        assert_eq!(Histogram::of(BOUNDS, &[1, 2], 4, own.sum()), own);
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [SETUP_SECONDS, LIFETIME_SECONDS, HANDSHAKE_SECONDS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
