//! The program's side of the maps of [`hairpin_common::maps`]; the loader sets the sizes that depend on configuration.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use hairpin_common::{
    maps::{AllocationCount, Count, FlowKey, NEXT_HOP_CAPACITY, NextHop, PortSlot, Rewrite},
    verdict::Verdict,
};

/// Records by IPv4 flow. Preallocated: an insert at run time must not fail for want of memory.
#[map]
pub(crate) static FLOWS4: HashMap<FlowKey<4>, Rewrite> = HashMap::with_max_entries(1, 0);

/// Records by IPv6 flow.
#[map]
pub(crate) static FLOWS6: HashMap<FlowKey<16>, Rewrite> = HashMap::with_max_entries(1, 0);

/// Roles of UDP ports, see [`PortSlot`].
#[map]
pub(crate) static PORT_ROLES: Array<u64> = Array::with_max_entries(PortSlot::ENTRIES, 0);

/// Next hops by [`Rewrite::next_hop`].
#[map]
pub(crate) static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(NEXT_HOP_CAPACITY, 0);

/// Packets and bytes by [`Verdict`].
#[map]
pub(crate) static VERDICTS: PerCpuArray<Count> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// Packets and bytes by [`Rewrite::allocation`].
#[map]
pub(crate) static ALLOCATIONS: PerCpuArray<AllocationCount> = PerCpuArray::with_max_entries(1, 0);
