//! How many packets are to be sent now.

use std::time::{Duration, Instant};

/// A sender that was held up catches up on this much; what is older is skipped and counted, not sent in one burst.
const CATCH_UP: Duration = Duration::from_millis(20);
/// Without a rate: after so long without any packet coming back, those under way are given up and new ones sent.
const STALL: Duration = Duration::from_millis(100);

/// Decides when to send.
#[derive(Debug)]
pub(super) enum Pacer {
    /// So many a second, whatever comes back.
    Open { rate: u64, start: Instant, planned: u64, skipped: u64 },
    /// As fast as packets come back, with a bounded number under way.
    Closed { window: u64, received: u64, given_up: u64, progress: Instant },
}

impl Pacer {
    /// `rate` is in packets a second over all `flows`; zero is for as fast as they come back.
    pub(super) fn new(rate: u64, flows: usize, now: Instant) -> Self {
        if rate > 0 {
            return Self::Open { rate, start: now, planned: 0, skipped: 0 };
        }
        // Enough to keep a relay busy over the latency of a LAN, too little to overflow a socket's buffer.
        let window = (8 * flows as u64).clamp(64, 1024);
        Self::Closed { window, received: 0, given_up: 0, progress: now }
    }

    /// How many packets are due, given how many were sent and how many came back so far.
    pub(super) fn due(&mut self, sent: u64, came_back: u64, now: Instant) -> u64 {
        match self {
            Self::Open { rate, start, planned, skipped } => {
                let nanos = now.saturating_duration_since(*start).as_nanos();
                let target = (nanos * u128::from(*rate) / 1_000_000_000) as u64;
                let limit = (u128::from(*rate) * CATCH_UP.as_nanos() / 1_000_000_000).max(1) as u64;
                let behind = target - *planned;
                *planned = target;
                *skipped += behind.saturating_sub(limit);
                behind.min(limit)
            }
            Self::Closed { window, received, given_up, progress } => {
                let under_way = sent.saturating_sub(came_back + *given_up);
                if came_back > *received || under_way < *window {
                    *received = came_back;
                    *progress = now;
                } else if now.saturating_duration_since(*progress) > STALL {
                    *given_up += under_way;
                    *progress = now;
                    return *window;
                }
                window.saturating_sub(under_way)
            }
        }
    }

    /// Packets that were due but never sent, because the sender was held up for too long.
    pub(super) fn skipped(&self) -> u64 {
        match self {
            Self::Open { skipped, .. } => *skipped,
            Self::Closed { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_is_kept_exactly_however_uneven_the_calls_are() {
        let start = Instant::now();
        let mut pacer = Pacer::new(100_000, 10, start);
        let mut sent = 0;
        let mut at = Duration::ZERO;
        for step in [1, 3, 7, 1, 13, 2, 19].into_iter().cycle().take(7 * 100) {
            at += ms(step);
            sent += pacer.due(sent, 0, start + at);
        }
        assert_eq!(u128::from(sent), 100 * at.as_millis());
        assert_eq!(pacer.skipped(), 0);
    }

    #[test]
    fn a_slow_rate_sends_single_packets() {
        let start = Instant::now();
        let mut pacer = Pacer::new(3, 1, start);
        let sent: Vec<_> = (0..10_000).filter(|at| pacer.due(0, 0, start + ms(*at)) == 1).collect();
        assert_eq!(sent.len(), 29);
        assert_eq!(sent[..3], [334, 667, 1000]);
        assert_eq!(pacer.skipped(), 0);
    }

    #[test]
    fn a_sender_that_was_held_up_skips_what_is_too_old() {
        let start = Instant::now();
        let mut pacer = Pacer::new(1000, 1, start);
        assert_eq!(pacer.due(0, 0, start + ms(100)), 20);
        assert_eq!(pacer.skipped(), 80);
        assert_eq!(pacer.due(20, 0, start + ms(110)), 10);
    }

    #[test]
    fn without_a_rate_packets_leave_as_others_come_back() {
        let start = Instant::now();
        let mut pacer = Pacer::new(0, 10, start);
        assert_eq!(pacer.due(0, 0, start), 80);
        assert_eq!(pacer.due(80, 0, start + ms(1)), 0);
        assert_eq!(pacer.due(80, 30, start + ms(2)), 30);
        assert_eq!(pacer.due(110, 30, start + ms(90)), 0);
        assert_eq!(pacer.due(110, 30, start + ms(103)), 80, "what is lost does not stop the rest");
        assert_eq!(pacer.due(190, 30, start + ms(104)), 0);
        assert_eq!(pacer.due(190, 40, start + ms(105)), 10);
    }
}
