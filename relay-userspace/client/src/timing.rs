//! When a request is sent again, and when it is given up (RFC 8489 section 6.2.1).

use std::time::{Duration, Instant};

/// The retransmission parameters of RFC 8489 section 6.2.1; the default is the RFC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// RTO: how long to wait before the first retransmission; doubled at each.
    pub rto: Duration,
    /// Rc: how often a request is sent.
    pub attempts: u32,
    /// Rm: how many times RTO to wait after it was sent for the last time.
    pub patience: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self { rto: Duration::from_millis(500), attempts: 7, patience: 16 }
    }
}

impl Timing {
    /// How long an answer is waited for in all. Over a stream, where nothing is sent again, that is Ti of RFC 8489
    /// section 6.2.2, which was chosen to be as long as over UDP: 39.5 s.
    pub fn total(self) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        self.rto * ((1 << doublings) - 1 + self.patience)
    }
}

/// The timer of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retransmission {
    timing: Timing,
    sent: u32,
    due: Instant,
}

/// What a timer that ran out asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    SendAgain,
    GiveUp,
}

impl Retransmission {
    /// For a request that is sent now for the first time.
    pub(crate) fn new(timing: Timing, now: Instant) -> Self {
        let mut this = Self { timing, sent: 0, due: now };
        this.sent_at(now);
        this
    }

    /// For a request that is sent now, over what loses nothing: it is never sent again (RFC 8489 section 6.2.2).
    pub(crate) fn reliable(timing: Timing, now: Instant) -> Self {
        Self { timing, sent: timing.attempts, due: now + timing.total() }
    }

    fn sent_at(&mut self, now: Instant) {
        self.sent += 1;
        let factor = if self.sent < self.timing.attempts { 1 << (self.sent - 1).min(16) } else { self.timing.patience };
        self.due = now + self.timing.rto * factor;
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    pub(crate) fn at(&mut self, now: Instant) -> Due {
        if now < self.due {
            Due::Nothing
        } else if self.sent < self.timing.attempts {
            self.sent_at(now);
            Due::SendAgain
        } else {
            Due::GiveUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_and_given_up_when_the_rfc_says() {
        // RFC 8489 section 6.2.1: at 0, 500, 1500, 3500, 7500, 15500 and 31500 ms, and it fails at 39500 ms.
        let start = Instant::now();
        let mut timer = Retransmission::new(Timing::default(), start);
        let mut happened = Vec::new();
        for ms in 0..50_000 {
            let due = timer.at(start + Duration::from_millis(ms));
            if due != Due::Nothing {
                happened.push((ms, due));
            }
            if due == Due::GiveUp {
                break;
            }
        }
        let again = [500, 1500, 3500, 7500, 15_500, 31_500].map(|ms| (ms, Due::SendAgain));
        assert_eq!(happened[..6], again);
        assert_eq!(happened[6..], [(39_500, Due::GiveUp)]);
    }

    #[test]
    fn over_a_stream_a_request_has_as_long_and_is_sent_once() {
        let start = Instant::now();
        let mut timer = Retransmission::reliable(Timing::default(), start);
        assert_eq!(timer.at(start + Duration::from_millis(39_499)), Due::Nothing);
        assert_eq!(timer.at(start + Duration::from_millis(39_500)), Due::GiveUp);
        assert_eq!(timer.due(), start + Duration::from_millis(39_500));
    }

    #[test]
    fn the_time_in_all_is_that_of_the_retransmissions() {
        for (rto, attempts, patience) in [(500, 7, 16), (200, 4, 4), (500, 3, 2), (500, 1, 16)] {
            let timing = Timing { rto: Duration::from_millis(rto), attempts, patience };
            let start = Instant::now();
            let mut timer = Retransmission::new(timing, start);
            while timer.at(timer.due()) != Due::GiveUp {}
            assert_eq!(timer.due() - start, timing.total(), "{timing:?}");
        }
    }
}
