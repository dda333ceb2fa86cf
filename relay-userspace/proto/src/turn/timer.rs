//! What happens when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::allocation::ChannelNumber;
use super::effect::{AllocationId, ConnectionId, RelayId};
use crate::stun::attribute::ReservationToken;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A relayed transport address ends.
    Relay(RelayId),
    /// A permission ends.
    Permission(AllocationId, IpAddr),
    /// A channel binding ends, or may be forgotten after it has ended.
    Channel(AllocationId, ChannelNumber),
    /// A reserved port is no longer kept.
    Reservation(ReservationToken),
    /// A connection to a peer has not come about, or was not bound, for too long.
    Connection(ConnectionId),
}

/// All deadlines, ordered. Whoever moves or ends a deadline takes the old one out, so none is ever left over: memory
/// follows what lives, and a client that allocates and frees in a loop leaves nothing behind.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, at: Instant, timer: Timer) {
        let was_set = self.0.remove(&(at, timer));
        debug_assert!(was_set, "{timer:?} was not set");
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out a deadline that has been reached.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        if self.next()? > now { None } else { self.0.pop_first() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deadlines_come_in_order_and_not_early() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        let [a, b, c] = [0, 1, 2].map(|relay| Timer::Relay(RelayId(relay)));
        timers.set(at(30), b);
        timers.set(at(10), a);
        timers.set(at(20), c);
        timers.cancel(at(20), c);
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(31)), Some((at(10), a)));
        assert_eq!(timers.pop_due(at(31)), Some((at(30), b)));
        assert_eq!(timers.next(), None);
    }
}
