//! What the program, the writer and the shards know together about allocations: how much of them is in the kernel, and
//! what the limits of rate are and what was used of them.
//!
//! This is the one place that has this memory mapped. With XDP off it is memory of the process alone, and only the
//! limits need it.
//!
//! # Limits
//!
//! Each limit is one word, which program and shards read for each datagram, so a change is a store. Meters stay as they
//! are over a change: who has used half of a burst before has half of one afterwards. Only one that is further ahead than
//! the new limit would ever let it get is taken back to a burst; or a datagram that was let through by a limit of few bytes
//! a second would keep the next one waiting for minutes under a limit of many. One that just passes on another processor,
//! by the limit from before, may still move its meter by that.
//!
//! An allocation, or a media path, may have limits *of its own*, which hold instead of the general ones and move the same
//! meters. They are beside the meters; among the general ones it says how many have any, so that nobody looks for them in
//! vain. The general ones of others leave these meters alone.
//!
//! # Whether the kernel knows every permission
//!
//! A datagram to a relayed address that finds no record is one without a permission, but only if every permission of the
//! allocation is in the kernel. Two counters tell. A shard *announces* each change before it asks for it, and the writer
//! *confirms* it when it is in the kernel and all before it are: so they are equal exactly when nothing is under way and
//! nothing was left out. What is left out once leaves a gap that later confirmations do not close. When the allocation
//! ends, its index is *reset* for the next one, with a change of its own.

mod layout;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use hairpin_common::hash::{FlowHash, Seed, scale};
use hairpin_common::limit::{Limit, Meter, PackedLimit};
use hairpin_common::maps::{AllocationState, Pace, SOURCE_METERS};
use hairpin_common::verdict::Verdict;

use self::layout::{Allocation, AtomicLimit, AtomicLimits, AtomicPace, Relay};
use super::flow::Direction;
use super::limits::Limits;
use super::shared_memory::SharedMemory;
use crate::clock::monotonic_nanoseconds;

/// The program's clock is late by up to this, in nanoseconds.
const LONGEST_JIFFY: u64 = 10_000_000;

/// The state of all allocations, of the relay, and of sources of unauthenticated traffic.
///
/// Of the last, the program has meters of its own: what it passes up has been counted there already, except for what it
/// does not look at (fragments, IP options, interfaces that it is not attached to).
#[derive(Debug)]
pub struct SharedState {
    allocations: SharedMemory<Allocation>,
    relay: SharedMemory<Relay>,
    sources: SharedMemory<AtomicU64>,
    control: AtomicU64,
    /// The program's own meters of sources.
    program_sources: Option<SharedMemory<AtomicU64>>,
    /// What the hash of sources is seeded with.
    seed: Seed,
}

impl SharedState {
    /// The state in the memory of the program's arrays, without limits.
    pub(super) fn of_arrays(
        allocation_states: impl AsFd,
        relay_state: impl AsFd,
        sources: impl AsFd,
        allocations: u32,
        seed: Seed,
    ) -> io::Result<Self> {
        let allocations = SharedMemory::of_array(allocation_states, allocations as usize)?;
        let program_sources = SharedMemory::of_array(sources, SOURCE_METERS as usize)?;
        Self::new(allocations, SharedMemory::of_array(relay_state, 1)?, Some(program_sources), seed)
    }

    /// The state of a relay without the program and without limits, for this many allocations.
    pub fn alone(allocations: u32, seed: Seed) -> io::Result<Self> {
        let allocations = SharedMemory::anonymous(allocations.max(1) as usize)?;
        Self::new(allocations, SharedMemory::anonymous(1)?, None, seed)
    }

    fn new(
        allocations: SharedMemory<Allocation>,
        relay: SharedMemory<Relay>,
        program_sources: Option<SharedMemory<AtomicU64>>,
        seed: Seed,
    ) -> io::Result<Self> {
        let sources = SharedMemory::anonymous(SOURCE_METERS as usize)?;
        Ok(Self { allocations, relay, sources, control: AtomicU64::new(0), program_sources, seed })
    }

    /// Exchanges the limits, for the program and the shards. To be called by one thread at a time.
    pub fn set_limits(&self, limits: Limits) {
        let Limits { allocation_packets, allocation_bytes, relay_bytes, source_packets, control_packets } = limits;
        let [allocation_packets, allocation_bytes] = [allocation_packets, allocation_bytes].map(Limit::pack);
        let [relay_bytes, source_packets, control_packets] =
            [relay_bytes, source_packets, control_packets].map(Limit::pack);
        let Some(relay) = self.relay.first() else { return };
        if relay.limits.allocation_packets.exchange(allocation_packets) {
            let others = self.allocations.iter().filter(|state| !state.own_packets.load().is_set());
            rein_in(others.flat_map(|state| state.meters(|pace| &pace.packets)), allocation_packets);
        }
        if relay.limits.allocation_bytes.exchange(allocation_bytes) {
            let others = self.allocations.iter().filter(|state| !state.own_bytes.load().is_set());
            rein_in(others.flat_map(|state| state.meters(|pace| &pace.bytes)), allocation_bytes);
        }
        if relay.limits.relay_bytes.exchange(relay_bytes) {
            rein_in([&relay.bytes], relay_bytes);
        }
        if relay.limits.source_packets.exchange(source_packets) {
            let programs = self.program_sources.iter().flat_map(|meters| meters.iter());
            rein_in(self.sources.iter().chain(programs), source_packets);
        }
        if relay.limits.control_packets.exchange(control_packets) {
            rein_in([&self.control, &relay.control], control_packets);
        }
    }

    /// Gives an allocation, or a path, limits of its own, of datagrams and bytes of application data in each direction,
    /// for the program and the shards. Where one is [`Limit::NONE`], the general one holds. To be called by one thread at
    /// a time for each index.
    pub fn limit_allocation(&self, allocation: u32, packets: Limit, bytes: Limit) {
        let (Some(relay), Some(state)) = (self.relay.first(), self.allocations.get(allocation as usize)) else {
            return;
        };
        let (packets, bytes) = (packets.pack(), bytes.pack());
        let was_owner = state.is_owner();
        // What limits comes first, so that who gets one for the other has one all the time. Only a datagram that is between its
        // looks at both may find neither.
        for limits in [true, false] {
            if packets.is_set() == limits && state.own_packets.exchange(packets) {
                let limit = packets.or(relay.limits.allocation_packets.load());
                rein_in(state.meters(|pace| &pace.packets), limit);
            }
            if bytes.is_set() == limits && state.own_bytes.exchange(bytes) {
                let limit = bytes.or(relay.limits.allocation_bytes.load());
                rein_in(state.meters(|pace| &pace.bytes), limit);
            }
        }
        match (was_owner, state.is_owner()) {
            (false, true) => _ = relay.limits.owners.fetch_add(1, Relaxed),
            (true, false) => _ = relay.limits.owners.fetch_sub(1, Relaxed),
            _ => {}
        }
    }

    /// Announces a change of an allocation's flows: from now on the program drops nothing for lack of a permission.
    /// Returns the number of the change. To be called before anybody is told of the permission that is to come.
    pub fn announce(&self, allocation: u32) -> u32 {
        let Some(state) = self.allocations.get(allocation as usize) else { return 0 };
        // Whatever is done about the change comes after it.
        state.announced.fetch_add(1, AcqRel).wrapping_add(1)
    }

    /// Says that a change is in the kernel, in the order of their numbers; without effect if one before it is not.
    pub fn confirm(&self, allocation: u32, change: u32) {
        let Some(state) = self.allocations.get(allocation as usize) else { return };
        // Only the writer changes it.
        if state.installed.load(Relaxed) == change.wrapping_sub(1) {
            state.installed.store(change, Release);
        }
    }

    /// Takes back a confirmation: something that was in the kernel is not there any more, although it is still valid.
    pub fn revoke(&self, allocation: u32) {
        let Some(state) = self.allocations.get(allocation as usize) else { return };
        state.installed.store(state.installed.load(Relaxed).wrapping_sub(1), Release);
    }

    /// Closes all gaps: nothing of the allocation that had the index before this change is left.
    pub fn settle(&self, allocation: u32, change: u32) {
        let Some(state) = self.allocations.get(allocation as usize) else { return };
        state.installed.store(change, Release);
    }

    /// Says how many allocations the kernel does not know of at all.
    pub fn hide(&self, allocations: usize) {
        self.relay.iter().for_each(|relay| relay.hidden.store(allocations as u64, Relaxed));
    }

    /// Forgets what an allocation has used of its limits, and those of its own, for the next one with its index.
    pub fn rest(&self, allocation: u32) {
        let Some(state) = self.allocations.get(allocation as usize) else { return };
        self.limit_allocation(allocation, Limit::NONE, Limit::NONE);
        for pace in [&state.to_peer, &state.to_client] {
            pace.packets.store(0, Relaxed);
            pace.bytes.store(0, Relaxed);
        }
    }

    /// Whether a datagram of an allocation may be sent on under all limits, and if so counts it towards them: so many
    /// `bytes` of application data at `now`, in nanoseconds of `CLOCK_MONOTONIC`. The error is the reason to drop it.
    ///
    /// Counts one datagram less exactly when a later limit refuses it: what passed the first ones has used them.
    #[inline]
    pub fn admit(&self, allocation: u32, direction: Direction, bytes: usize, now: u64) -> Result<(), Verdict> {
        let Some(relay) = self.relay.first() else { return Ok(()) };
        let AtomicLimits { allocation_packets, allocation_bytes, relay_bytes, .. } = &relay.limits;
        let [packet_limit, byte_limit, relay_limit] =
            [allocation_packets, allocation_bytes, relay_bytes].map(AtomicLimit::load);
        let has_owners = relay.limits.owners.load(Relaxed) != 0;
        if !(packet_limit.is_set() || byte_limit.is_set() || relay_limit.is_set() || has_owners) {
            return Ok(());
        }
        let bytes = bytes as u64;
        if (packet_limit.is_set() || byte_limit.is_set() || has_owners)
            && let Some(state) = self.allocations.get(allocation as usize)
        {
            let pace = match direction {
                Direction::ToPeer => &state.to_peer,
                Direction::ToClient => &state.to_client,
            };
            let (packet_limit, byte_limit) =
                (state.own_packets.load().or(packet_limit), state.own_bytes.load().or(byte_limit));
            admit(&pace.packets, packet_limit, now, 1, Verdict::AllocationPacketRate)?;
            admit(&pace.bytes, byte_limit, now, bytes, Verdict::AllocationBitRate)?;
        }
        admit(&relay.bytes, relay_limit, now, bytes, Verdict::RelayBitRate)
    }

    /// Whether a datagram to a listener, from a source without an allocation, may be looked at; counts it if so. All of
    /// 64 bits of an IPv6 address are one source.
    #[inline]
    pub fn admit_source(&self, source: IpAddr, now: u64) -> Result<(), Verdict> {
        let Some(relay) = self.relay.first() else { return Ok(()) };
        let [source_packets, control_packets] =
            [&relay.limits.source_packets, &relay.limits.control_packets].map(AtomicLimit::load);
        if source_packets.is_set()
            && let Some(meter) = self.sources.get(self.source_index(source))
        {
            admit(meter, source_packets, now, 1, Verdict::SourceRate)?;
        }
        admit(&self.control, control_packets, now, 1, Verdict::ControlRate)
    }

    /// What the state of an allocation is at this moment; none for an index out of range.
    pub fn allocation(&self, index: u32) -> Option<AllocationState> {
        let state = self.allocations.get(index as usize)?;
        let pace = |pace: &AtomicPace| Pace { packets: meter(&pace.packets), bytes: meter(&pace.bytes) };
        Some(AllocationState {
            announced: state.announced.load(Acquire),
            installed: state.installed.load(Acquire),
            to_peer: pace(&state.to_peer),
            to_client: pace(&state.to_client),
            own_packets: state.own_packets.load(),
            own_bytes: state.own_bytes.load(),
            zero: 0,
        })
    }

    /// Whether the kernel knows every permission of an allocation at this moment.
    pub fn is_complete(&self, allocation: u32) -> bool {
        self.allocation(allocation).is_some_and(|state| state.announced == state.installed)
    }

    /// The meter of a source, by the hash that the program uses, too.
    fn source_index(&self, source: IpAddr) -> usize {
        let mut prefix = [0; 8];
        let version = match source.to_canonical() {
            IpAddr::V4(v4) => {
                prefix[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                prefix.copy_from_slice(&v6.octets()[..8]);
                6
            }
        };
        let [first, second, ..] = self.seed;
        let hash = FlowHash::EMPTY.add(u64::from_ne_bytes(prefix), first).add(version, second);
        scale(hash.mixed() >> 32, SOURCE_METERS) as usize
    }
}

/// Counts `units` towards a limit, unless they are too many.
#[inline]
fn admit(meter: &AtomicU64, limit: PackedLimit, now: u64, units: u64, refused: Verdict) -> Result<(), Verdict> {
    if !limit.is_set() {
        return Ok(());
    }
    let limit = limit.unpack();
    let count = |due| limit.admit(Meter(due), now, units).map(|Meter(due)| due);
    // A meter guards nothing but itself.
    meter.fetch_update(Relaxed, Relaxed, count).map(|_| ()).map_err(|_| refused)
}

/// Takes back meters that are more than a limit's burst ahead, so that the next datagram passes.
fn rein_in<'m>(meters: impl IntoIterator<Item = &'m AtomicU64>, limit: PackedLimit) {
    if !limit.is_set() {
        return;
    }
    let burst = limit.unpack().burst;
    let most = monotonic_nanoseconds().saturating_sub(LONGEST_JIFFY).saturating_add(burst);
    for meter in meters {
        // Most are at rest, in memory that was never touched, and need not take any for this.
        if meter.load(Relaxed) > most {
            meter.fetch_min(most, Relaxed);
        }
    }
}

fn meter(word: &AtomicU64) -> Meter {
    Meter(word.load(Relaxed))
}

#[cfg(test)]
mod tests {
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
            state.set_limits(Limits {
                allocation_packets: Limit::per_second(faster, 100 * SECOND),
                ..Limits::default()
            });
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
                let state =
                    state(Limits { allocation_packets: general, allocation_bytes: general, ..Limits::default() });
                let send = |direction| state.admit(1, direction, 10, now());
                for (packets, bytes, verdict) in [
                    (tight, Limit::NONE, Verdict::AllocationPacketRate),
                    (Limit::NONE, tight, Verdict::AllocationBitRate),
                ] {
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
            let reader =
                scope.spawn(|| (0..200_000).all(|_| seen.contains(&state.relay[0].limits.control_packets.load())));
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
}
