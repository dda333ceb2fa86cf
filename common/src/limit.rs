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

    /// As it is published.
    pub const fn pack(self) -> PackedLimit {
        if !self.is_set() {
            return PackedLimit::NONE;
        }
        PackedLimit(PackedLimit::pack_half(self.cost) << u32::BITS | PackedLimit::pack_half(self.burst))
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

/// A [`Limit`] in one word, so that a single store exchanges it under traffic, and nobody ever sees half of it.
///
/// The upper half is the cost, the lower one the burst: each a number of 26 bits, and by how many it is shifted in 6. What
/// is longer is rounded down, by less than one part in 30 million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PackedLimit(pub u64);

impl PackedLimit {
    /// No limit.
    pub const NONE: Self = Self(0);

    const SHIFT_BITS: u32 = 6;
    const NUMBER_BITS: u32 = u32::BITS - Self::SHIFT_BITS;

    /// Whether it limits anything.
    #[inline(always)]
    pub const fn is_set(self) -> bool {
        self.0 != 0
    }

    /// This limit, or where it limits nothing, another one.
    #[must_use]
    #[inline(always)]
    pub const fn or(self, other: Self) -> Self {
        if self.is_set() { self } else { other }
    }

    /// What it says.
    #[inline(always)]
    pub const fn unpack(self) -> Limit {
        Limit { cost: Self::unpack_half(self.0 >> u32::BITS), burst: Self::unpack_half(self.0 & u32::MAX as u64) }
    }

    const fn pack_half(value: u64) -> u64 {
        let shift = (u64::BITS - value.leading_zeros()).saturating_sub(Self::NUMBER_BITS);
        value >> shift << Self::SHIFT_BITS | shift as u64
    }

    #[inline(always)]
    const fn unpack_half(half: u64) -> u64 {
        (half >> Self::SHIFT_BITS) << (half & ((1 << Self::SHIFT_BITS) - 1))
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

    #[test]
    fn no_limit_is_the_word_zero_and_nothing_else_is() {
        assert_eq!(Limit::NONE.pack(), PackedLimit(0));
        assert_eq!(Limit { cost: 0, burst: SECOND }.pack(), PackedLimit::NONE, "a burst alone limits nothing");
        assert!(!PackedLimit::default().is_set() && !PackedLimit(0).unpack().is_set());
        assert!(Limit { cost: 1, burst: 0 }.pack().is_set() && Limit { cost: u64::MAX, burst: 0 }.pack().is_set());
    }

    proptest! {
        #[test]
        fn a_word_says_what_was_packed_or_a_little_less(cost in 1_u64.., burst: u64, shifts in [0..64_u32, 0..64_u32]) {
            // Numbers of all lengths.
            let limit = Limit { cost: (cost >> shifts[0]).max(1), burst: burst >> shifts[1] };
            let Limit { cost, burst } = limit.pack().unpack();
            for (packed, exact) in [(cost, limit.cost), (burst, limit.burst)] {
                prop_assert!(packed <= exact && exact - packed <= exact >> 25, "{packed} of {exact}");
                prop_assert!(packed == exact || exact >= 1 << 26, "{packed} of {exact}");
            }
            prop_assert!(limit.pack().is_set());
        }

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
