//! Limits of rate: how much may pass in a time, decided in one word of memory.
//!
//! The algorithm is the virtual scheduling form of GCRA (ITU-T I.371), which equals a token bucket that holds
//! [`Limit::burst`] worth of tokens. A [`Meter`] is the *theoretical arrival time*: when the last datagram would have been
//! due, had all of them kept to the rate. Whoever comes more than the burst before it is refused, and moves nothing.
//!
//! Both paths ask the same meters, so a limit holds for their sum.

/// A theoretical arrival time in nanoseconds of `CLOCK_MONOTONIC`; 0 for who has never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Meter(pub u64);

/// A limit of rate, in the units that cost a packet the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    /// Time that one unit takes at the full rate, in 2^-16 ns; 0: no limit.
    pub cost: u64,
    /// How much earlier than due a unit may come, in nanoseconds.
    pub burst: u64,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self { cost: 0, burst: 0 };

    /// A limit of `rate` units (datagrams, bytes) a second, of which the worth of `burst` nanoseconds may come at once;
    /// a rate of 0 is no limit.
    ///
    /// A rate so high that a unit would cost nothing is as high as can be counted: 2^16 units in a nanosecond.
    pub const fn per_second(rate: u64, burst: u64) -> Self {
        const SECOND: u64 = 1_000_000_000 << 16;
        match SECOND.checked_div(rate) {
            None => Self::NONE,
            Some(0) => Self { cost: 1, burst },
            Some(cost) => Self { cost, burst },
        }
    }

    /// Whether it limits anything.
    #[inline(always)]
    pub const fn is_set(self) -> bool {
        self.cost != 0
    }

    /// The meter after `units` more at the time `now`; `None` when they are too many.
    ///
    /// A meter that has rested for long has no more credit than a burst. The units that exceed a burst on their own pass
    /// when the meter is at rest: a datagram larger than a second's worth is late, not lost for ever.
    #[inline(always)]
    pub const fn admit(self, Meter(due): Meter, now: u64, units: u64) -> Option<Meter> {
        let ahead = due.saturating_sub(now);
        if ahead > self.burst {
            return None;
        }
        let from = if due > now { due } else { now };
        Some(Meter(from + ((self.cost * units) >> 16)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        assert!(!Limit::per_second(0, SECOND).is_set());
        assert!(Limit::per_second(u64::MAX, SECOND).is_set());
    }

    #[test]
    fn a_source_at_rest_has_one_burst_of_credit() {
        let limit = Limit::per_second(100, SECOND);
        for start in [0, 5 * SECOND, 500 * SECOND] {
            let mut meter = Meter(0);
            let mut passed = 0;
            while let Some(next) = limit.admit(meter, start, 1) {
                meter = next;
                passed += 1;
            }
            // The one that is due now, and the burst.
            assert_eq!(passed, 101, "after {start} ns");
            assert_eq!(limit.admit(meter, start + SECOND / 50, 1).map(|_| ()), Some(()), "two are due again");
        }
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let limit = Limit::per_second(10, 0);
        let meter = limit.admit(Meter(0), SECOND, 1).unwrap();
        assert_eq!(limit.admit(meter, SECOND + 99_000_000, 1), None);
        assert!(limit.admit(meter, SECOND + 100_000_000, 1).is_some());
    }

    #[test]
    fn a_datagram_larger_than_the_burst_passes_when_nothing_was_sent_lately() {
        let limit = Limit::per_second(1000, SECOND / 10);
        let meter = limit.admit(Meter(0), SECOND, 1500).unwrap();
        assert_eq!(limit.admit(meter, SECOND, 1), None);
        assert!(limit.admit(meter, SECOND + 1_400_000_001, 1).is_some());
    }

    proptest! {
        #[test]
        fn no_more_than_the_rate_and_one_burst_pass(
            rate in 1..1_000_000_000_u64,
            burst in 0..2 * SECOND,
            steps in proptest::collection::vec((0..SECOND, 1..1500_u64), 1..200),
        ) {
            let limit = Limit::per_second(rate, burst);
            let (mut meter, mut now, mut passed, mut last) = (Meter(0), SECOND, 0, 0);
            for (wait, units) in steps {
                now += wait;
                if let Some(next) = limit.admit(meter, now, units) {
                    meter = next;
                    passed += units;
                    last = units;
                }
            }
            let elapsed = u128::from(now - SECOND + burst);
            // The last one may be under way, and costs are cut to whole 2^-16 ns.
            let most = u128::from(last) + elapsed * u128::from(rate) / u128::from(SECOND);
            prop_assert!(u128::from(passed) <= most + most / 60 + 1, "{passed} of {most}");
        }
    }
}
