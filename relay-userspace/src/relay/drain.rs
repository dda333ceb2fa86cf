//! Draining: new clients are sent elsewhere, those that are there stay until they are done, or until a deadline.

use std::time::{Duration, Instant};

use super::published::DrainTerms;
use crate::clock::unix_seconds;
use crate::shard::InService;

/// How often the log says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// A drain that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    deadline: Option<Deadline>,
    /// Whether the relay ends when nothing is left.
    pub(super) stop: bool,
    /// Whether clients that are there are sent to other relays.
    moves: bool,
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
    pub(super) fn new(timeout: Option<Duration>, stop: bool, moves: bool, now: Instant) -> Self {
        // What no clock can say is no deadline.
        let deadline = timeout.and_then(|timeout| {
            Some(Deadline { at: now.checked_add(timeout)?, unix: unix_seconds().saturating_add(timeout.as_secs()) })
        });
        Self { deadline, stop, moves, told: now }
    }

    /// This one and one that runs: with the earlier deadline, and all that either of them does.
    pub(super) fn joined(self, running: Self) -> Self {
        let deadline = [self.deadline, running.deadline].into_iter().flatten().min_by_key(|deadline| deadline.at);
        Self { deadline, stop: self.stop || running.stop, moves: self.moves || running.moves, ..self }
    }

    /// How much time is left, if it ends.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.at.saturating_duration_since(now))
    }

    /// What others see of it.
    pub(super) fn terms(&self) -> DrainTerms {
        DrainTerms { deadline: self.deadline.map(|deadline| deadline.unix), stop: self.stop, moves: self.moves }
    }

    /// What is to be done when this is left.
    pub(super) fn step(&mut self, left: InService, now: Instant) -> Step {
        if left.is_empty() {
            return if self.stop { Step::Stop } else { Step::Wait };
        }
        if self.deadline.is_some_and(|deadline| deadline.at <= now) {
            // Once: who is still there then does not answer.
            self.deadline = None;
            return Step::Close;
        }
        if self.told + PROGRESS <= now {
            self.told = now;
            let InService { allocations, sessions } = left;
            let seconds = self.left(now).map(|left| left.as_secs());
            tracing::info!(allocations, sessions, seconds_left = seconds, "draining");
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_joins_another_takes_nothing_back() {
        let now = Instant::now();
        let drain = |seconds: Option<u64>, stop, moves| Drain::new(seconds.map(Duration::from_secs), stop, moves, now);
        let terms = |drain: Drain| (drain.left(now).map(|left| left.as_secs()), drain.stop, drain.moves);
        let joined = |later: Drain, running: Drain| terms(later.joined(running));
        assert_eq!(joined(drain(None, false, false), drain(Some(60), true, true)), (Some(60), true, true));
        assert_eq!(joined(drain(Some(30), false, true), drain(Some(60), true, false)), (Some(30), true, true));
        assert_eq!(joined(drain(Some(90), false, false), drain(Some(60), false, false)), (Some(60), false, false));
        assert_eq!(joined(drain(None, false, false), drain(None, false, false)), (None, false, false));
    }

    #[test]
    fn a_drain_waits_for_the_last_or_the_deadline() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut drain = Drain::new(Some(Duration::from_secs(60)), true, false, now);
        let [none, one, session] =
            [(0, 0), (1, 0), (0, 1)].map(|(allocations, sessions)| InService { allocations, sessions });
        assert_eq!([drain.step(one, at(59)), drain.step(session, at(59))], [Step::Wait; 2]);
        assert_eq!(drain.step(none, at(59)), Step::Stop);
        assert_eq!((drain.step(one, at(60)), drain.step(session, at(61))), (Step::Close, Step::Wait));
        let mut drain = Drain::new(None, false, true, now);
        assert_eq!((drain.step(one, at(1_000_000)), drain.step(none, now)), (Step::Wait, Step::Wait));
        assert_eq!(drain.terms(), DrainTerms { deadline: None, stop: false, moves: true });
        assert_eq!(Drain::new(Some(Duration::MAX), true, false, now).deadline, None);
    }
}
