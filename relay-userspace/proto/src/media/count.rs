//! What is counted of a path, by the leg that it came from.

use std::ops::AddAssign;

use super::effect::PathId;
use super::end::Side;

/// Packets, and the bytes of application data in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub packets: u64,
    /// How much.
    pub bytes: u64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What was sent on, by the leg that it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of it.
    pub all: [Amount; 2],
    /// What a fast path has sent on alone.
    pub forwarded: [Amount; 2],
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for side in Side::BOTH {
            self.all[side as usize] += other.all[side as usize];
            self.forwarded[side as usize] += other.forwarded[side as usize];
        }
    }
}

/// Says what a fast path has counted for a path: what has come from its client, and from its peer.
pub type FastCounts = Box<dyn Fn(PathId) -> [Amount; 2] + Send>;

/// What is known of a path's counts.
///
/// A fast path counts by client and peer, and which leg is the client's may change. What it had counted until then belongs to
/// the legs as they were.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Which leg the fast path calls the client's.
    pub(super) client_side: Side,
    /// What the driver has sent on itself.
    relayed: [Amount; 2],
    /// What the fast path had sent on before the legs last changed places, by leg.
    before: [Amount; 2],
    /// The same as it had counted it: of the client, and of the peer.
    base: [Amount; 2],
}

impl Default for Tally {
    fn default() -> Self {
        let none = [Amount::default(); 2];
        Self { client_side: Side::A, relayed: none, before: none, base: none }
    }
}

impl Tally {
    /// Counts a datagram that the driver has sent on.
    pub(super) fn relay(&mut self, from: Side, bytes: usize) {
        self.relayed[from as usize] += Amount { packets: 1, bytes: bytes as u64 };
    }

    /// From now on, this leg is the client's.
    pub(super) fn turn(&mut self, client_side: Side, fast: [Amount; 2]) {
        if client_side != self.client_side {
            *self = Self { client_side, before: self.forwarded(fast), base: fast, ..*self };
        }
    }

    /// All that was counted.
    pub(super) fn counts(&self, fast: [Amount; 2]) -> Counts {
        let forwarded = self.forwarded(fast);
        let mut all = self.relayed;
        for side in Side::BOTH {
            all[side as usize] += forwarded[side as usize];
        }
        Counts { all, forwarded }
    }

    fn forwarded(&self, fast: [Amount; 2]) -> [Amount; 2] {
        let mut forwarded = self.before;
        for (side, (now, base)) in
            [self.client_side, self.client_side.other()].into_iter().zip(fast.into_iter().zip(self.base))
        {
            forwarded[side as usize] += Amount {
                packets: now.packets.saturating_sub(base.packets),
                bytes: now.bytes.saturating_sub(base.bytes),
            };
        }
        forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(packets: u64) -> Amount {
        Amount { packets, bytes: 10 * packets }
    }

    #[test]
    fn what_was_counted_stays_with_its_leg_when_the_legs_change_places() {
        let mut tally = Tally::default();
        tally.relay(Side::A, 10);
        assert_eq!(tally.counts([amount(5), amount(2)]).all, [amount(6), amount(2)]);
        tally.turn(Side::B, [amount(5), amount(2)]);
        assert_eq!(tally.counts([amount(5), amount(2)]).all, [amount(6), amount(2)], "nothing has come since");
        tally.relay(Side::B, 10);
        let counts = tally.counts([amount(105), amount(1_002)]);
        assert_eq!(counts.forwarded, [amount(1_005), amount(102)], "the client's is leg B");
        assert_eq!(counts.all, [amount(1_006), amount(103)]);
        tally.turn(Side::B, [amount(105), amount(1_002)]);
        assert_eq!(tally.counts([amount(105), amount(1_002)]), counts, "it was that before");
        tally.turn(Side::A, [amount(105), amount(1_002)]);
        assert_eq!(tally.counts([amount(106), amount(1_002)]).all, [amount(1_007), amount(103)]);
    }
}
