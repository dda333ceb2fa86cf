//! What came back of what was sent.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How far back a repeated sequence number is recognised as a duplicate.
const WINDOW: u64 = 1024;
const WORDS: usize = WINDOW as usize / 64;
/// Latencies above are recorded as this.
const SLOWEST: Duration = Duration::from_secs(60);

/// The receiving end of one flow.
#[derive(Clone, Debug)]
struct Progress {
    /// The sequence number after the highest that came.
    next: u64,
    /// Which of the last [`WINDOW`] numbers came: bit `n % WINDOW` for number `n`.
    seen: [u64; WORDS],
}

/// What a packet is in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    /// Behind one with a higher number (RFC 4737 section 3.3).
    Reordered,
    Duplicate,
}

impl Progress {
    const START: Self = Self { next: 0, seen: [0; WORDS] };

    fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            if sequence - self.next >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                (self.next..=sequence).for_each(|passed| self.set(passed, false));
            }
            self.set(sequence, true);
            self.next = sequence + 1;
            return Arrival::InOrder;
        }
        if self.next - sequence > WINDOW {
            return Arrival::Reordered;
        }
        if self.get(sequence) {
            return Arrival::Duplicate;
        }
        self.set(sequence, true);
        Arrival::Reordered
    }

    fn get(&self, sequence: u64) -> bool {
        let bit = sequence % WINDOW;
        self.seen[bit as usize / 64] >> (bit % 64) & 1 == 1
    }

    fn set(&mut self, sequence: u64, on: bool) {
        let bit = sequence % WINDOW;
        let mask = 1 << (bit % 64);
        let word = &mut self.seen[bit as usize / 64];
        *word = if on { *word | mask } else { *word & !mask };
    }
}

/// Counts the packets of all flows that came back.
#[derive(Debug)]
pub(super) struct Meter {
    flows: Vec<Progress>,
    latency: Histogram<u64>,
    /// Packets that came back, each counted once.
    pub(super) received: u64,
    /// Of these, how many came behind one that was sent later.
    pub(super) reordered: u64,
    /// Further copies of packets.
    pub(super) duplicated: u64,
}

impl Meter {
    pub(super) fn new(flows: usize) -> Self {
        let latency = Histogram::new_with_bounds(1, SLOWEST.as_nanos() as u64, 3)
            .expect("bounds from 1 ns to a minute at 3 digits are valid");
        Self { flows: vec![Progress::START; flows], latency, received: 0, reordered: 0, duplicated: 0 }
    }

    /// Records a packet of a flow that was `nanos` nanoseconds under way.
    pub(super) fn arrive(&mut self, flow: usize, sequence: u64, nanos: u64) {
        match self.flows[flow].arrive(sequence) {
            Arrival::Duplicate => {
                self.duplicated += 1;
                return;
            }
            Arrival::Reordered => self.reordered += 1,
            Arrival::InOrder => {}
        }
        self.received += 1;
        self.latency.saturating_record(nanos);
    }

    /// The latency in microseconds that so many percent of the packets did not exceed.
    pub(super) fn latency_micros(&self, percentile: f64) -> f64 {
        micros(self.latency.value_at_percentile(percentile))
    }

    /// The longest latency, in microseconds.
    pub(super) fn longest_micros(&self) -> f64 {
        micros(self.latency.max())
    }
}

#[allow(clippy::cast_precision_loss, reason = "three digits are exact")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(sequences: impl IntoIterator<Item = u64>) -> Vec<Arrival> {
        let mut progress = Progress::START;
        sequences.into_iter().map(|sequence| progress.arrive(sequence)).collect()
    }

    #[test]
    fn order_gaps_and_duplicates_are_told_apart() {
        use Arrival::{Duplicate, InOrder, Reordered};
        assert_eq!(
            arrivals([0, 1, 3, 2, 2, 3, 7, 4, 0]),
            [InOrder, InOrder, InOrder, Reordered, Duplicate, Duplicate, InOrder, Reordered, Duplicate]
        );
    }

    #[test]
    fn a_number_counts_as_new_when_its_bit_was_of_another() {
        use Arrival::{InOrder, Reordered};
        assert_eq!(
            arrivals([0, 5, WINDOW + 2, 2, 3, WINDOW]),
            [InOrder, InOrder, InOrder, Reordered, Reordered, Reordered]
        );
        assert_eq!(arrivals([3, 10 * WINDOW, 10 * WINDOW - 5, 7]), [InOrder, InOrder, Reordered, Reordered]);
    }

    #[test]
    fn everything_that_arrives_once_is_received_once() {
        let mut meter = Meter::new(2);
        for sequence in 0..5000 {
            // Neighbours swapped, and every tenth packet twice.
            meter.arrive(1, sequence ^ 1, 1000);
            if sequence % 10 == 0 {
                meter.arrive(1, sequence ^ 1, 1000);
            }
        }
        assert_eq!((meter.received, meter.reordered, meter.duplicated), (5000, 2500, 500));
    }

    #[test]
    fn latencies_are_in_microseconds() {
        let mut meter = Meter::new(1);
        for sequence in 0..1000 {
            meter.arrive(0, sequence, (sequence + 1) * 1000);
        }
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < expected / 500.0, "{value}");
        near(meter.latency_micros(50.0), 500.0);
        near(meter.latency_micros(99.0), 990.0);
        near(meter.longest_micros(), 1000.0);
    }
}
