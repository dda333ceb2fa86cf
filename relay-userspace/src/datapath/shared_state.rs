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
mod tests;
