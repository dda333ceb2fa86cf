//! One increment of one counter per packet, and one more for each allocation whose data was relayed.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use hairpin_common::{
    maps::{AllocationCount, Count},
    verdict::Verdict,
};

use crate::{
    maps::{ALLOCATIONS, VERDICTS, allocation_count},
    transit::Transit,
};

/// Counts a packet that goes out, by its application data.
#[inline(always)]
pub(crate) fn sent(transit: &Transit) {
    let bytes = u64::from(transit.length);
    add(VERDICTS.get_ptr_mut(transit.verdict()), bytes);
    // SAFETY: a field of an entry that is this CPU's own, as for all counters; the program is not interrupted by itself.
    add(of_allocation(transit.to_peer).map(|counts| unsafe { &raw mut (*counts).to_peer }), bytes);
    // SAFETY: as above.
    add(of_allocation(transit.to_client).map(|counts| unsafe { &raw mut (*counts).to_client }), bytes);
}

/// Counts a packet that is passed or dropped, with the length of its frame.
#[inline(always)]
pub(crate) fn not_sent(verdict: Verdict, frame_length: usize) {
    add(VERDICTS.get_ptr_mut(verdict as u32), frame_length as u64);
}

/// This CPU's counters of an allocation.
#[inline(always)]
fn of_allocation(allocation: u64) -> Option<*mut AllocationCount> {
    let allocations = allocation_count();
    // The index without what stands in front of it. Nobody's is higher than all.
    let allocation = allocation as u32;
    if allocation >= allocations {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    ALLOCATIONS.get_ptr_mut(cpu * allocations + allocation)
}

#[inline(always)]
fn add(count: Option<*mut Count>, bytes: u64) {
    if let Some(count) = count {
        // SAFETY: as in `sent`.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += bytes;
    }
}
