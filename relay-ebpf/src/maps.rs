//! The program's side of the maps of [`hairpin_common::maps`]; the loader sets the sizes that depend on configuration.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, DevMapHash, HashMap, PerCpuArray},
};
use hairpin_common::{
    hash::{FlowHash, Seed},
    limit::Meter,
    maps::{
        AllocationCount, AllocationState, Count, LINK_CAPACITY, Link, LinkAddress, NEXT_HOP_CAPACITY, NextHop,
        PortSlot, RELAY_ADDRESS_CAPACITY, RelayAddress, RelayState, SOURCE_METERS,
    },
    slot::Bucket,
    tags::Tags,
    verdict::Verdict,
};

/// Records by flow.
#[map]
pub(crate) static FLOWS: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Which slots of a bucket to look at.
#[map]
pub(crate) static TAGS: Array<Tags> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of buckets; set by the loader.
#[unsafe(no_mangle)]
static BUCKET_COUNT: Global<u32> = Global::new(1);

/// What its hash is seeded with; set by the loader, anew each time.
#[unsafe(no_mangle)]
static FLOW_SEED: [Global<u64>; size_of::<Seed>() / 8] = [const { Global::new(0) }; size_of::<Seed>() / 8];

/// Roles of UDP ports, see [`PortSlot`].
#[map]
pub(crate) static PORT_ROLES: Array<u64> = Array::with_max_entries(PortSlot::ENTRIES, 0);

/// What transaction ids are made with; set by the loader, anew each time. They tell it to whoever gets many of them, so it
/// is not that of the table.
#[unsafe(no_mangle)]
static ID_SEED: [Global<u64>; 3] = [const { Global::new(0) }; 3];

/// Next hops by their index in the record.
#[map]
pub(crate) static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(NEXT_HOP_CAPACITY, 0);

/// The addresses that relayed addresses are made of, by their index in [`crossing`](hairpin_common::maps::crossing)s.
#[map]
pub(crate) static RELAY_ADDRESSES: Array<RelayAddress> = Array::with_max_entries(RELAY_ADDRESS_CAPACITY, 0);

/// The links whose packets are ours.
#[map]
pub(crate) static LINKS: HashMap<Link, LinkAddress> = HashMap::with_max_entries(LINK_CAPACITY, 0);

/// The interfaces that packets may be redirected to.
#[map]
pub(crate) static DEVICES: DevMapHash = DevMapHash::with_max_entries(LINK_CAPACITY, 0);

/// Packets and bytes by [`Verdict`].
#[map]
pub(crate) static VERDICTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// Packets and bytes by CPU and allocation: `ALLOCATION_COUNT` entries of the first CPU, then of the next.
///
/// It is no per-CPU array, since those look up a pointer first, which is a cache line more for each packet.
#[map]
pub(crate) static ALLOCATIONS: Array<AllocationCount> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What the daemon and all CPUs share about an allocation.
#[map]
pub(crate) static ALLOCATION_STATES: Array<AllocationState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Number of allocations with counters; set by the loader.
#[unsafe(no_mangle)]
static ALLOCATION_COUNT: Global<u32> = Global::new(0);

/// Meters of sources without an allocation, by a hash of their address.
#[map]
pub(crate) static SOURCES: Array<Meter> = Array::with_max_entries(SOURCE_METERS, BPF_F_MMAPABLE);

/// What all allocations share.
#[map]
pub(crate) static RELAY_STATE: Array<RelayState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Whether Binding requests are answered here, or 0; set by the loader.
#[unsafe(no_mangle)]
static ANSWER_BINDING: Global<u32> = Global::new(1);

/// Whether Binding requests are answered here. Where they are not, the verifier removes the code.
#[inline(always)]
pub(crate) fn answers_binding() -> bool {
    ANSWER_BINDING.load() != 0
}

/// Number of buckets in the table of flows.
#[inline(always)]
pub(crate) fn bucket_count() -> u32 {
    BUCKET_COUNT.load()
}

/// What hashes are seeded with.
#[inline(always)]
pub(crate) fn seed() -> Seed {
    let [a, b, c, d, e] = &FLOW_SEED;
    [a.load(), b.load(), c.load(), d.load(), e.load()]
}

/// The hash of a source of unauthenticated traffic.
#[inline(always)]
pub(crate) fn hash_source([first, second]: [u64; 2]) -> FlowHash {
    let [a, b, ..] = &FLOW_SEED;
    FlowHash::EMPTY.add(first, a.load()).add(second, b.load())
}

/// The hash that transaction ids are made of.
#[inline(always)]
pub(crate) fn hash_id([first, second, third]: [u64; 3]) -> FlowHash {
    let [a, b, c] = &ID_SEED;
    FlowHash::EMPTY.add(first, a.load()).add(second, b.load()).add(third, c.load())
}

/// Number of allocations with counters.
#[inline(always)]
pub(crate) fn allocation_count() -> u32 {
    ALLOCATION_COUNT.load()
}
