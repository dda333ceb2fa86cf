//! What the program, the writer and the shards know together about allocations: how much of them is in the kernel, and
//! what they have used of their limits.
//!
//! This is the one place that has this memory mapped. With XDP off it is memory of the process alone, and only the
//! limits need it.
//!
//! # Whether the kernel knows every permission
//!
//! A datagram to a relayed address that finds no record is one without a permission, but only if every permission of the
//! allocation is in the kernel. Two counters tell. A shard *announces* each change before it asks for it, and the writer
//! *confirms* it when it is in the kernel and all before it are: so they are equal exactly when nothing is under way and
//! nothing was left out. What is left out once leaves a gap that later confirmations do not close. When the allocation
//! ends, its index is *reset* for the next one, with a change of its own.

use std::io;
use std::mem::offset_of;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use hairpin_common::hash::{FlowHash, Seed, scale};
use hairpin_common::limit::{Limit, Meter};
use hairpin_common::maps::{AllocationState, Pace, RelayState, SOURCE_METERS};
use hairpin_common::verdict::Verdict;

use super::flow::Direction;
use super::program::Limits;
use super::shared_memory::{Atomics, SharedMemory};

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
    limits: Limits,
    /// What the hash of sources is seeded with.
    seed: Seed,
}

/// An [`AllocationState`].
#[derive(Debug)]
#[repr(C, align(64))]
struct Allocation {
    announced: AtomicU32,
    installed: AtomicU32,
    to_peer: AtomicPace,
    to_client: AtomicPace,
    zero: [AtomicU64; 3],
}

/// A [`Pace`].
#[derive(Debug)]
#[repr(C)]
struct AtomicPace {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// A [`RelayState`].
#[derive(Debug)]
#[repr(C, align(64))]
struct Relay {
    bytes: AtomicU64,
    control: AtomicU64,
    hidden: AtomicU64,
}

#[allow(unsafe_code, reason = "a promise about the types above")]
mod atomics {
    use super::{Allocation, Atomics, Relay};

    // SAFETY: all fields are atomics, and there is no padding, or it is at the end and never looked at.
    unsafe impl Atomics for Allocation {}
    // SAFETY: as above.
    unsafe impl Atomics for Relay {}
}

const _: () = {
    assert!(size_of::<Allocation>() == size_of::<AllocationState>() && size_of::<Relay>() == size_of::<RelayState>());
    assert!(offset_of!(Allocation, announced) == offset_of!(AllocationState, announced));
    assert!(offset_of!(Allocation, installed) == offset_of!(AllocationState, installed));
    assert!(offset_of!(Allocation, to_peer) == offset_of!(AllocationState, to_peer));
    assert!(offset_of!(Allocation, to_client) == offset_of!(AllocationState, to_client));
    assert!(offset_of!(AtomicPace, packets) == offset_of!(Pace, packets));
    assert!(offset_of!(AtomicPace, bytes) == offset_of!(Pace, bytes));
    assert!(offset_of!(Relay, bytes) == offset_of!(RelayState, bytes));
    assert!(offset_of!(Relay, control) == offset_of!(RelayState, control));
    assert!(offset_of!(Relay, hidden) == offset_of!(RelayState, hidden));
};

impl SharedState {
    /// The state in the memory of the program's arrays.
    pub(super) fn of_arrays(
        allocation_states: impl AsFd,
        relay_state: impl AsFd,
        allocations: u32,
        limits: Limits,
        seed: Seed,
    ) -> io::Result<Self> {
        let allocations = SharedMemory::of_array(allocation_states, allocations as usize)?;
        Self::new(allocations, SharedMemory::of_array(relay_state, 1)?, limits, seed)
    }

    /// The state of a relay without the program, for this many allocations.
    pub fn alone(allocations: u32, limits: Limits, seed: Seed) -> io::Result<Self> {
        let allocations = SharedMemory::anonymous(allocations.max(1) as usize)?;
        Self::new(allocations, SharedMemory::anonymous(1)?, limits, seed)
    }

    fn new(
        allocations: SharedMemory<Allocation>,
        relay: SharedMemory<Relay>,
        limits: Limits,
        seed: Seed,
    ) -> io::Result<Self> {
        let sources = SharedMemory::anonymous(SOURCE_METERS as usize)?;
        Ok(Self { allocations, relay, sources, control: AtomicU64::new(0), limits, seed })
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

    /// Forgets what an allocation has used of its limits, for the next one with its index.
    pub fn rest(&self, allocation: u32) {
        let Some(state) = self.allocations.get(allocation as usize) else { return };
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
        let Limits { allocation_packets, allocation_bytes, relay_bytes, .. } = self.limits;
        if !(allocation_packets.is_set() || allocation_bytes.is_set() || relay_bytes.is_set()) {
            return Ok(());
        }
        let bytes = bytes as u64;
        if let Some(state) = self.allocations.get(allocation as usize) {
            let pace = match direction {
                Direction::ToPeer => &state.to_peer,
                Direction::ToClient => &state.to_client,
            };
            admit(&pace.packets, allocation_packets, now, 1, Verdict::AllocationPacketRate)?;
            admit(&pace.bytes, allocation_bytes, now, bytes, Verdict::AllocationBitRate)?;
        }
        self.relay.iter().try_for_each(|relay| admit(&relay.bytes, relay_bytes, now, bytes, Verdict::RelayBitRate))
    }

    /// Whether a datagram to a listener, from a source without an allocation, may be looked at; counts it if so. All of
    /// 64 bits of an IPv6 address are one source.
    #[inline]
    pub fn admit_source(&self, source: IpAddr, now: u64) -> Result<(), Verdict> {
        let Limits { source_packets, control_packets, .. } = self.limits;
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
            zero: [0; 3],
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
fn admit(meter: &AtomicU64, limit: Limit, now: u64, units: u64, refused: Verdict) -> Result<(), Verdict> {
    if !limit.is_set() {
        return Ok(());
    }
    let count = |due| limit.admit(Meter(due), now, units).map(|Meter(due)| due);
    // A meter guards nothing but itself.
    meter.fetch_update(Relaxed, Relaxed, count).map(|_| ()).map_err(|_| refused)
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
        SharedState::alone(4, limits, SEED).unwrap()
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
