//! One increment of one counter per packet, and one more for the allocation when it was relayed.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use hairpin_common::{maps::Count, verdict::Verdict};

use crate::maps::{ALLOCATIONS, VERDICTS, allocation_count};

/// A packet that goes out.
pub(crate) struct Sent {
    /// Which way.
    pub verdict: Verdict,
    /// Application data in it.
    pub bytes: u16,
    /// Whose it is.
    pub allocation: u32,
}

/// Counts a packet that goes out.
#[inline(always)]
pub(crate) fn sent(sent: &Sent) {
    add(VERDICTS.get_ptr_mut(sent.verdict as u32), u64::from(sent.bytes));
    let allocations = allocation_count();
    if sent.allocation >= allocations {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(counts) = ALLOCATIONS.get_ptr_mut(cpu * allocations + sent.allocation) {
        // SAFETY: the entry is this CPU's own, and the program is not interrupted by itself.
        let counts = unsafe { &mut *counts };
        let count = if matches!(sent.verdict, Verdict::ToPeer) { &mut counts.to_peer } else { &mut counts.to_client };
        add(Some(count), u64::from(sent.bytes));
    }
}

/// Counts a packet that is passed or dropped, with the length of its frame.
#[inline(always)]
pub(crate) fn not_sent(verdict: Verdict, frame_length: usize) {
    add(VERDICTS.get_ptr_mut(verdict as u32), frame_length as u64);
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
