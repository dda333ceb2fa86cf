//! Draining: new clients are sent elsewhere, those that are there stay until they are done, or until a deadline.

use std::time::{Duration, Instant};

use crate::clock::unix_seconds;

/// How often the log says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// A drain that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    deadline: Option<Deadline>,
    /// Whether the relay ends with the last allocation.
    pub(super) stop: bool,
    told: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Instant,
    unix: u64,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Close what is left.
    Close,
    /// End the relay.
    Stop,
}

impl Drain {
    /// Begins, with so much time.
    pub(super) fn new(timeout: Option<Duration>, stop: bool, now: Instant) -> Self {
        // What no clock can say is no deadline.
        let deadline = timeout.and_then(|timeout| {
            Some(Deadline { at: now.checked_add(timeout)?, unix: unix_seconds().saturating_add(timeout.as_secs()) })
        });
        Self { deadline, stop, told: now }
    }

    /// The deadline in seconds since the Unix epoch.
    pub(super) fn deadline_unix(&self) -> Option<u64> {
        self.deadline.map(|deadline| deadline.unix)
    }

    /// What is to be done when there are so many allocations left.
    pub(super) fn step(&mut self, allocations: usize, now: Instant) -> Step {
        if allocations == 0 {
            return if self.stop { Step::Stop } else { Step::Wait };
        }
        if self.deadline.is_some_and(|deadline| deadline.at <= now) {
            // Once: who is still there then does not answer.
            self.deadline = None;
            return Step::Close;
        }
        if self.told + PROGRESS <= now {
            self.told = now;
            let left = self.deadline.map(|deadline| (deadline.at - now).as_secs());
            tracing::info!(allocations, seconds_left = left, "draining");
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_waits_for_the_last_allocation_or_the_deadline() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut drain = Drain::new(Some(Duration::from_secs(60)), true, now);
        assert_eq!(drain.step(2, at(59)), Step::Wait);
        assert_eq!(drain.step(0, at(59)), Step::Stop);
        assert_eq!((drain.step(2, at(60)), drain.step(1, at(61))), (Step::Close, Step::Wait));
        let mut drain = Drain::new(None, false, now);
        assert_eq!((drain.step(1, at(1_000_000)), drain.step(0, now)), (Step::Wait, Step::Wait));
        assert_eq!(drain.deadline_unix(), None);
        assert_eq!(Drain::new(Some(Duration::MAX), true, now).deadline, None);
    }
}
