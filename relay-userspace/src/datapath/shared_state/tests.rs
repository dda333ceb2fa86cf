//! What is admitted, and what the kernel may be taken to know.

use super::*;

const SECOND: u64 = 1_000_000_000;
const SEED: Seed = [0x9f86_d081_884c_7d65, 0x9a2f_eaa0_c55a_d015, 3, 4, 5];

fn state(limits: Limits) -> SharedState {
    let state = SharedState::alone(4, SEED).unwrap();
    state.set_limits(limits);
    state
}

#[test]
fn a_change_is_complete_when_it_and_all_before_it_are_confirmed() {
    let state = state(Limits::default());
    assert!(state.is_complete(3));
    let (first, second) = (state.announce(3), state.announce(3));
    assert!(!state.is_complete(3));
    state.confirm(3, first);
    assert!(!state.is_complete(3), "one is still under way");
    state.confirm(3, second);
    assert!(state.is_complete(3) && state.is_complete(2));
}

#[test]
fn what_was_left_out_leaves_a_gap_until_the_index_is_reset() {
    let state = state(Limits::default());
    state.announce(3);
    let later = state.announce(3);
    state.confirm(3, later);
    assert!(!state.is_complete(3));
    let reset = state.announce(3);
    let next = state.announce(3);
    state.settle(3, reset);
    assert!(!state.is_complete(3), "the next allocation's first change is under way");
    state.confirm(3, next);
    assert!(state.is_complete(3));
}

#[test]
fn what_is_taken_out_breaks_the_row_for_good() {
    let state = state(Limits::default());
    let first = state.announce(3);
    state.confirm(3, first);
    let under_way = state.announce(3);
    state.revoke(3);
    state.confirm(3, under_way);
    assert!(!state.is_complete(3));
    let later = state.announce(3);
    state.confirm(3, later);
    assert!(!state.is_complete(3));
}

#[test]
fn numbers_may_wrap() {
    let state = state(Limits::default());
    state.allocations[1].announced.store(u32::MAX, Relaxed);
    state.allocations[1].installed.store(u32::MAX, Relaxed);
    let change = state.announce(1);
    assert!(!state.is_complete(1));
    state.confirm(1, change);
    assert!(state.is_complete(1));
    state.revoke(1);
    assert!(!state.is_complete(1));
}

#[test]
fn an_index_out_of_range_is_never_complete_and_has_only_the_relays_limit() {
    let state = state(Limits {
        allocation_packets: Limit::per_second(1, 0),
        relay_bytes: Limit::per_second(1000, 0),
        ..Limits::default()
    });
    state.confirm(4, state.announce(4));
    state.revoke(4);
    state.settle(4, 1);
    assert!(!state.is_complete(4));
    assert_eq!(state.admit(4, Direction::ToPeer, 500, SECOND), Ok(()));
    assert_eq!(state.admit(5, Direction::ToPeer, 500, SECOND), Err(Verdict::RelayBitRate));
}

#[test]
fn each_limit_has_its_own_reason_and_each_direction_its_own_meter() {
    let packets = Limits { allocation_packets: Limit::per_second(1, 0), ..Limits::default() };
    let bytes = Limits { allocation_bytes: Limit::per_second(100, 0), ..Limits::default() };
    for (limits, reason) in [(packets, Verdict::AllocationPacketRate), (bytes, Verdict::AllocationBitRate)] {
        let state = state(limits);
        let admit = |allocation, direction| state.admit(allocation, direction, 100, SECOND);
        assert_eq!(admit(0, Direction::ToPeer), Ok(()));
        assert_eq!(admit(0, Direction::ToPeer), Err(reason));
        assert_eq!(admit(0, Direction::ToClient), Ok(()));
        assert_eq!(admit(1, Direction::ToPeer), Ok(()));
        assert_eq!(state.admit(0, Direction::ToPeer, 100, 2 * SECOND), Ok(()), "a second later");
        state.rest(1);
        assert_eq!(admit(1, Direction::ToPeer), Ok(()), "the next allocation begins at rest");
    }
    let state = state(Limits { relay_bytes: Limit::per_second(100, 0), ..Limits::default() });
    assert_eq!(state.admit(0, Direction::ToPeer, 100, SECOND), Ok(()));
    assert_eq!(state.admit(1, Direction::ToClient, 1, SECOND), Err(Verdict::RelayBitRate));
}

#[test]
fn sources_have_a_meter_each_and_one_together() {
    let state = state(Limits {
        source_packets: Limit::per_second(1, 0),
        control_packets: Limit::per_second(2, SECOND),
        ..Limits::default()
    });
    let admit = |source: &str| state.admit_source(source.parse().unwrap(), SECOND);
    assert_eq!(admit("192.0.2.1"), Ok(()));
    assert_eq!(admit("::ffff:192.0.2.1"), Err(Verdict::SourceRate));
    assert_eq!(admit("192.0.2.2"), Ok(()));
    assert_eq!(admit("2001:db8::1"), Ok(()), "the burst and the one that is due");
    assert_eq!(admit("2001:db8::2"), Err(Verdict::SourceRate), "one network, one source");
    assert_eq!(admit("2001:db8:1::2"), Err(Verdict::ControlRate));
}

#[test]
fn threads_share_a_budget_to_the_datagram() {
    let state = state(Limits { allocation_packets: Limit::per_second(1000, SECOND), ..Limits::default() });
    let passed: usize = std::thread::scope(|scope| {
        let count = || (0..2000).filter(|_| state.admit(0, Direction::ToPeer, 1, SECOND).is_ok()).count();
        [scope.spawn(count), scope.spawn(count)].map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert_eq!(passed, 1001);
}

/// A moment that is not long ago: meters are reined in by the clock.
fn now() -> u64 {
    monotonic_nanoseconds()
}

#[test]
fn every_limit_comes_changes_and_goes_between_two_datagrams() {
    let source = IpAddr::from([192, 0, 2, 1]);
    let none = Limits::default();
    // A minute for each datagram of a hundred bytes: no test lasts so long.
    let (packets, bytes) = (Limit { cost: (60 * SECOND) << 16, burst: 0 }, Limit { cost: SECOND << 16, burst: 0 });
    let tight = [
        (Limits { allocation_packets: packets, ..none }, Verdict::AllocationPacketRate),
        (Limits { allocation_bytes: bytes, ..none }, Verdict::AllocationBitRate),
        (Limits { relay_bytes: bytes, ..none }, Verdict::RelayBitRate),
        (Limits { source_packets: packets, ..none }, Verdict::SourceRate),
        (Limits { control_packets: packets, ..none }, Verdict::ControlRate),
    ];
    let state = state(none);
    let send = || state.admit(0, Direction::ToPeer, 100, now()).and_then(|()| state.admit_source(source, now()));
    for (limits, verdict) in tight {
        for _ in 0..2 {
            assert_eq!(send(), Ok(()));
            state.set_limits(limits);
            assert_eq!(send(), Ok(()), "{verdict:?} is at rest");
            assert_eq!(send(), Err(verdict));
            state.set_limits(limits);
            assert_eq!(send(), Err(verdict), "the same again is no change");
            state.set_limits(none);
            assert_eq!(send(), Ok(()));
            // Or what it has used before would be remembered, as it should.
            state.rest(0);
            state.relay[0].bytes.store(0, Relaxed);
            state.control.store(0, Relaxed);
            state.sources[state.source_index(source)].store(0, Relaxed);
        }
    }
}

#[test]
fn who_has_used_up_a_burst_has_none_under_the_next_limit() {
    let slow = Limit::per_second(10, 100 * SECOND);
    let state = state(Limits { allocation_packets: slow, ..Limits::default() });
    let passed = || (0..5000).take_while(|_| state.admit(0, Direction::ToPeer, 1, now()).is_ok()).count();
    assert!(passed() >= 1000);
    for faster in [20, 10, 5] {
        state.set_limits(Limits { allocation_packets: Limit::per_second(faster, 100 * SECOND), ..Limits::default() });
        let more = passed();
        assert!(more < 100, "{more} more at {faster} a second");
    }
}

#[test]
fn a_looser_limit_does_not_wait_for_what_a_tight_one_let_through() {
    let (tight, loose) = (Limit::per_second(1, 0), Limit::per_second(1_000_000, SECOND));
    let all = |limit| Limits { allocation_bytes: limit, ..Limits::default() };
    let relay = |limit| Limits { relay_bytes: limit, ..Limits::default() };
    for (tight, loose, verdict) in
        [(all(tight), all(loose), Verdict::AllocationBitRate), (relay(tight), relay(loose), Verdict::RelayBitRate)]
    {
        let state = state(tight);
        let send = || state.admit(0, Direction::ToClient, 1500, now());
        assert_eq!(send(), Ok(()), "and 25 minutes of silence");
        assert_eq!(send(), Err(verdict));
        state.set_limits(loose);
        assert_eq!(send(), Ok(()));
    }
}

/// A limit that lets this many units pass at once, and then none for as long as a test takes.
fn at_once(units: u64) -> Limit {
    Limit { cost: (60 * SECOND) << 16, burst: 60 * SECOND * (units - 1) + 30 * SECOND }
}

/// How many datagrams of ten bytes pass, and why the next one does not.
fn until(state: &SharedState, allocation: u32, direction: Direction) -> (usize, Option<Verdict>) {
    let refused = (0..100).find_map(|passed| Some((passed, state.admit(allocation, direction, 10, now()).err()?)));
    refused.map_or((100, None), |(passed, verdict)| (passed, Some(verdict)))
}

#[test]
fn limits_of_its_own_are_one_allocation_s_alone() {
    let state = state(Limits::default());
    let both = [Direction::ToPeer, Direction::ToClient];
    for (packets, bytes, verdict, passed) in [
        (at_once(3), Limit::NONE, Verdict::AllocationPacketRate, 3),
        (Limit::NONE, at_once(50), Verdict::AllocationBitRate, 5),
        (at_once(5), at_once(40), Verdict::AllocationBitRate, 4),
    ] {
        state.limit_allocation(2, packets, bytes);
        for direction in both {
            assert_eq!(until(&state, 2, direction), (passed, Some(verdict)));
            assert_eq!(until(&state, 1, direction), (100, None));
        }
        state.limit_allocation(2, Limit::NONE, Limit::NONE);
        assert_eq!(until(&state, 2, both[0]), (100, None));
        state.rest(2);
    }
}

#[test]
fn a_limit_of_its_own_holds_instead_of_the_general_one_and_each_for_itself() {
    let general = Limits { allocation_packets: at_once(4), allocation_bytes: at_once(60), ..Limits::default() };
    let state = state(general);
    let rates = [Verdict::AllocationPacketRate, Verdict::AllocationBitRate].map(Some);
    for (packets, bytes, expected) in [
        (Limit::NONE, Limit::NONE, (4, rates[0])),
        (at_once(2), Limit::NONE, (2, rates[0])),
        (at_once(50), Limit::NONE, (6, rates[1])),
        (Limit::NONE, at_once(20), (2, rates[1])),
        (at_once(90), at_once(800), (80, rates[1])),
    ] {
        state.rest(1);
        state.limit_allocation(1, packets, bytes);
        assert_eq!(until(&state, 1, Direction::ToClient), expected);
        state.rest(0);
        assert_eq!(until(&state, 0, Direction::ToClient), (4, rates[0]));
    }
}

#[test]
fn all_of_it_counts_towards_the_limit_of_the_relay() {
    let state = state(Limits { relay_bytes: at_once(50), ..Limits::default() });
    state.limit_allocation(1, at_once(100), at_once(10_000));
    assert_eq!(until(&state, 1, Direction::ToPeer), (5, Some(Verdict::RelayBitRate)));
}

#[test]
fn a_general_limit_that_changes_gives_no_credit_to_who_has_one_of_its_own() {
    let tight = |limit| Limits { allocation_packets: limit, allocation_bytes: limit, ..Limits::default() };
    let state = state(tight(at_once(1)));
    for (packets, bytes) in [(at_once(9), Limit::NONE), (Limit::NONE, at_once(90))] {
        state.set_limits(tight(Limit::NONE));
        state.rest(1);
        state.limit_allocation(1, packets, bytes);
        let used_up = until(&state, 1, Direction::ToPeer);
        assert_eq!(used_up.0, 9);
        state.set_limits(tight(Limit { cost: 1, burst: 0 }));
        assert_eq!(until(&state, 1, Direction::ToPeer), (0, used_up.1));
    }
}

#[test]
fn nobody_waits_for_what_a_limit_of_its_own_let_through_when_it_is_another_or_none() {
    let loose = Limit::per_second(1_000_000, SECOND);
    let tight = Limit { cost: (3600 * SECOND) << 16, burst: 0 };
    for general in [Limit::NONE, loose] {
        for own in [loose, Limit::NONE] {
            let state = state(Limits { allocation_packets: general, allocation_bytes: general, ..Limits::default() });
            let send = |direction| state.admit(1, direction, 10, now());
            for (packets, bytes, verdict) in
                [(tight, Limit::NONE, Verdict::AllocationPacketRate), (Limit::NONE, tight, Verdict::AllocationBitRate)]
            {
                state.limit_allocation(1, packets, bytes);
                for direction in [Direction::ToPeer, Direction::ToClient] {
                    assert_eq!((send(direction), send(direction)), (Ok(()), Err(verdict)));
                }
                state.limit_allocation(1, own, own);
                assert_eq!(
                    (send(Direction::ToPeer), send(Direction::ToClient)),
                    (Ok(()), Ok(())),
                    "{general:?} {own:?}"
                );
                // Without any limit meters stay where they are.
                state.rest(1);
            }
        }
    }
}

#[test]
fn the_next_allocation_with_an_index_has_no_limits_of_its_own() {
    let state = state(Limits::default());
    let owners = || state.relay[0].limits.owners.load(Relaxed);
    for index in [0, 3, 4] {
        state.limit_allocation(index, at_once(1), Limit::NONE);
        // Once, however often, and only who is there.
        state.limit_allocation(index, at_once(1), at_once(1));
    }
    assert_eq!(owners(), 2);
    until(&state, 3, Direction::ToPeer);
    state.rest(3);
    assert_eq!(state.allocation(3), Some(AllocationState::default()));
    assert_eq!((owners(), until(&state, 3, Direction::ToPeer)), (1, (100, None)));
    state.rest(3);
    state.limit_allocation(0, Limit::NONE, at_once(1));
    assert_eq!(owners(), 1);
    state.limit_allocation(0, Limit::NONE, Limit::NONE);
    assert_eq!(owners(), 0);
}

#[test]
fn the_general_limit_does_not_hold_while_one_of_its_own_is_exchanged() {
    let state = state(Limits { allocation_packets: at_once(1), allocation_bytes: at_once(1), ..Limits::default() });
    until(&state, 1, Direction::ToPeer);
    // Each has room for all.
    let wide = [(1 << 20, 1 << 60), (1, 1 << 61)].map(|(cost, burst)| Limit { cost, burst });
    state.limit_allocation(1, wide[0], wide[0]);
    let at = now();
    let refused = std::thread::scope(|scope| {
        // Long enough for both threads to have a processor at the same time.
        let send = || -> Result<(), Verdict> {
            let mut sent = (0..).map(|_| state.admit(1, Direction::ToPeer, 1, at));
            while now() < at + SECOND / 4 {
                sent.by_ref().take(1000).collect::<Result<(), _>>()?;
            }
            Ok(())
        };
        let sender = scope.spawn(send);
        while !sender.is_finished() {
            for limit in wide {
                state.limit_allocation(1, limit, limit);
            }
        }
        sender.join().unwrap()
    });
    assert_eq!(refused, Ok(()));
}

#[test]
fn nobody_ever_sees_half_of_a_limit() {
    // Each lets everything pass; half of one and half of the other do not.
    let limits = [(1 << 40, u64::MAX >> 8), (1, 1 << 30)].map(|(cost, burst)| Limit { cost, burst });
    let state = state(Limits { control_packets: limits[0], ..Limits::default() });
    let seen = [limits[0].pack(), limits[1].pack()];
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| (0..200_000).all(|_| seen.contains(&state.relay[0].limits.control_packets.load())));
        while !reader.is_finished() {
            for limit in limits {
                state.set_limits(Limits { control_packets: limit, ..Limits::default() });
            }
        }
        assert!(reader.join().unwrap());
    });
}

#[test]
fn without_limits_nothing_is_refused_or_counted() {
    let state = state(Limits::default());
    for _ in 0..3 {
        assert_eq!(state.admit(0, Direction::ToPeer, usize::MAX, 0), Ok(()));
        assert_eq!(state.admit_source(IpAddr::from([192, 0, 2, 1]), 0), Ok(()));
    }
    assert_eq!(state.allocation(0), Some(AllocationState::default()));
}
