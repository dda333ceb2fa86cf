//! The program's side of the maps of [`hairpin_common::maps`]; the loader sets the sizes that depend on configuration.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray},
};
use hairpin_common::{
    maps::{AllocationCount, Count, NEXT_HOP_CAPACITY, NextHop, PortSlot},
    slot::{Bucket, FlowHash, Seed},
    verdict::Verdict,
};

/// Records by IPv4 flow.
#[map]
pub(crate) static FLOWS4: Array<Bucket<4>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Records by IPv6 flow.
#[map]
pub(crate) static FLOWS6: Array<Bucket<16>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of buckets in each of the two, less one; set by the loader.
#[unsafe(no_mangle)]
static BUCKET_MASK: Global<u32> = Global::new(0);

/// What the hash of both is seeded with; set by the loader, anew each time.
#[unsafe(no_mangle)]
static FLOW_SEED: [Global<u64>; size_of::<Seed>() / 8] = [const { Global::new(0) }; size_of::<Seed>() / 8];

/// Roles of UDP ports, see [`PortSlot`].
#[map]
pub(crate) static PORT_ROLES: Array<u64> = Array::with_max_entries(PortSlot::ENTRIES, 0);

/// Next hops by their index in the record.
#[map]
pub(crate) static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(NEXT_HOP_CAPACITY, 0);

/// Packets and bytes by [`Verdict`].
#[map]
pub(crate) static VERDICTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// Packets and bytes by CPU and allocation: `ALLOCATION_COUNT` entries of the first CPU, then of the next.
///
/// It is no per-CPU array, since those look up a pointer first, which is a cache line more for each packet.
#[map]
pub(crate) static ALLOCATIONS: Array<AllocationCount> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of allocations with counters; set by the loader.
#[unsafe(no_mangle)]
static ALLOCATION_COUNT: Global<u32> = Global::new(0);

/// Indices of both buckets of a key.
#[inline(always)]
pub(crate) fn buckets(key: &[u64]) -> [u32; 2] {
    let mut hash = FlowHash::EMPTY;
    for (word, seed) in key.iter().zip(&FLOW_SEED) {
        hash = hash.add(*word, seed.load());
    }
    hash.buckets(BUCKET_MASK.load())
}

/// Number of allocations with counters.
#[inline(always)]
pub(crate) fn allocation_count() -> u32 {
    ALLOCATION_COUNT.load()
}
