//! What the program and the writer count, for any thread to read.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aya::maps::{MapData, MapError, PerCpuArray};
use hairpin_common::maps::{AllocationCount, Count};
use hairpin_common::verdict::Verdict;

use super::allocation_counts::AllocationCounts;

/// What the datapath has counted by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Packets of the program by [`Verdict`], summed over all CPUs.
    pub verdicts: [Count; Verdict::COUNT],
    /// Flows that the kernel forwards now.
    pub flows: u64,
    /// Flows that were meant for the kernel and did not get there.
    pub insert_failures: u64,
    /// How full the table of records is.
    pub records: Share,
    /// How full the array of next hops is.
    pub next_hops: Share,
}

/// How much of something is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// So many are in use.
    pub used: u64,
    /// So many there can be; 0 where there is none of it, as without the program.
    pub capacity: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            verdicts: [Count::default(); Verdict::COUNT],
            flows: 0,
            insert_failures: 0,
            records: Share::default(),
            next_hops: Share::default(),
        }
    }
}

/// The kernel's counters, and the writer's own.
pub(super) struct CounterMaps {
    verdicts: PerCpuArray<MapData, Count>,
    allocations: AllocationCounts,
    insert_failures: AtomicU64,
    flows: AtomicU64,
    records: AtomicShare,
    next_hops: AtomicShare,
}

/// A [`Share`], of which each number is true on its own.
#[derive(Debug, Default)]
struct AtomicShare {
    used: AtomicU64,
    capacity: AtomicU64,
}

impl AtomicShare {
    fn load(&self) -> Share {
        Share { used: self.used.load(Relaxed), capacity: self.capacity.load(Relaxed) }
    }

    fn store(&self, Share { used, capacity }: Share) {
        self.used.store(used, Relaxed);
        self.capacity.store(capacity, Relaxed);
    }
}

impl CounterMaps {
    pub(super) fn new(verdicts: PerCpuArray<MapData, Count>, allocations: AllocationCounts) -> Self {
        Self {
            verdicts,
            allocations,
            insert_failures: AtomicU64::new(0),
            flows: AtomicU64::new(0),
            records: AtomicShare::default(),
            next_hops: AtomicShare::default(),
        }
    }

    pub(super) fn read(&self) -> Counters {
        let mut counters = Counters {
            flows: self.flows.load(Relaxed),
            insert_failures: self.insert_failures.load(Relaxed),
            records: self.records.load(),
            next_hops: self.next_hops.load(),
            ..Counters::default()
        };
        for (index, count) in (0..).zip(&mut counters.verdicts) {
            *count = sum(&self.verdicts, index).unwrap_or_default();
        }
        counters
    }

    /// Packets with one verdict.
    pub(super) fn packets(&self, verdict: Verdict) -> u64 {
        sum(&self.verdicts, verdict as u32).unwrap_or_default().packets
    }

    pub(super) fn allocation(&self, index: u32) -> AllocationCount {
        self.allocations.get(index)
    }

    pub(super) fn end_allocation(&self, index: u32) {
        self.allocations.end(index);
    }

    pub(super) fn begin_allocation(&self, index: u32) {
        self.allocations.begin(index);
    }

    pub(super) fn count_insert_failures(&self, failures: usize) {
        self.insert_failures.fetch_add(failures as u64, Relaxed);
    }

    pub(super) fn set_flows(&self, flows: usize) {
        self.flows.store(flows as u64, Relaxed);
    }

    pub(super) fn set_shares(&self, records: Share, next_hops: Share) {
        self.records.store(records);
        self.next_hops.store(next_hops);
    }
}

impl fmt::Debug for CounterMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // aya's maps have nothing to show.
        f.debug_struct("CounterMaps")
            .field("insert_failures", &self.insert_failures)
            .field("flows", &self.flows)
            .finish_non_exhaustive()
    }
}

fn add(a: Count, b: Count) -> Count {
    Count { packets: a.packets.wrapping_add(b.packets), bytes: a.bytes.wrapping_add(b.bytes) }
}

fn sum(array: &PerCpuArray<MapData, Count>, index: u32) -> Result<Count, MapError> {
    Ok(array.get(&index, 0)?.iter().fold(Count::default(), |sum, &value| add(sum, value)))
}
