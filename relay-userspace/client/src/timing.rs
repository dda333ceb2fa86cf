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
}
