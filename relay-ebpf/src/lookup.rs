//! The one lookup: from addresses, ports and channel to the record that says what to send.

use core::arch::asm;

use aya_ebpf::Global;
use hairpin_common::{
    slot::{BUCKET_SLOTS, Order},
    verdict::Verdict,
};

use crate::{clock, family::Family, maps};

/// Whether this machine may reorder loads: 0 on x86, whose loads happen in order. Set by the loader.
#[unsafe(no_mangle)]
static WEAKLY_ORDERED: Global<u32> = Global::new(1);

/// What this program needs of a record, in wire words.
pub(crate) struct Record<F: Family> {
    /// Index of the allocation's counters.
    pub allocation: u32,
    /// Source and destination to send with.
    pub addresses: F::Addresses,
    /// Source and destination port, as in the UDP header.
    pub ports: u32,
    /// Channel to send in, or 0.
    pub channel: u16,
    /// Difference to the UDP checksum, lengths aside.
    pub delta: u16,
    /// Index of the next hop.
    pub next_hop: u16,
}

/// The record for this key that is whole, in force, and asks for nothing this program cannot do.
#[inline(always)]
pub(crate) fn lookup<F: Family>(key: &F::Key) -> Result<Record<F>, Verdict> {
    let slot = find::<F>(key).ok_or(Verdict::NoFlow)?;
    // SAFETY: it is in the table.
    unsafe { read::<F>(slot) }
}

/// A slot with this key, whose memory may change at any time.
struct Found<F: Family> {
    slot: *const F::Slot,
    /// Its generation before the key was read.
    generation: u32,
}

/// Finds the slot that holds a key. A key that is being written may be overlooked, or found in a slot that is odd.
#[inline(always)]
fn find<F: Family>(key: &F::Key) -> Option<Found<F>> {
    for index in maps::buckets(F::words(key)) {
        let bucket = F::bucket(index)?;
        for place in 0..BUCKET_SLOTS {
            // SAFETY: within its bucket.
            let (slot, order) = unsafe {
                let slot = bucket.add(place);
                (slot, F::order(slot))
            };
            // SAFETY: in the table, and aligned.
            let generation = unsafe { (&raw const (*order).generation).read_volatile() };
            load_fence();
            // SAFETY: in the table.
            if unsafe { F::is_at(key, slot) } {
                return Some(Found { slot, generation });
            }
        }
    }
    None
}

/// Copies a record that the daemon may be writing right now: every field once, the generation last.
///
/// # Safety
///
/// The slot is in the table.
#[inline(always)]
unsafe fn read<F: Family>(Found { slot, generation }: Found<F>) -> Result<Record<F>, Verdict> {
    // SAFETY: a pair of fields that is read as one word is aligned for it. The reads are volatile, so the compiler keeps
    // each of them, and their order; what the daemon changes in between shows in the generation.
    unsafe {
        let order: *const Order = F::order(slot);
        let expires = (&raw const (*order).expires).read_volatile();
        let record = Record {
            allocation: (&raw const (*order).allocation).read_volatile(),
            addresses: F::addresses(slot),
            ports: (&raw const (*order).source_port).cast::<u32>().read_volatile(),
            channel: (&raw const (*order).channel).cast::<u16>().read_volatile(),
            delta: (&raw const (*order).delta).cast::<u16>().read_volatile(),
            next_hop: (&raw const (*order).next_hop).read_volatile(),
        };
        let family_and_flags = (&raw const (*order).family).cast::<u16>().read_volatile();
        load_fence();
        if generation & 1 != 0 || (&raw const (*order).generation).read_volatile() != generation {
            return Err(Verdict::Torn);
        }
        if clock::now() >= expires {
            return Err(Verdict::Expired);
        }
        if family_and_flags != u16::from_ne_bytes([F::VERSION, 0]) {
            return Err(Verdict::Unsupported);
        }
        Ok(record)
    }
}

/// Keeps loads before it before those behind it.
///
/// The oldest kernels have no instruction for that, but they promise that an atomic exchange is a full barrier. Where
/// loads are in order anyway, the verifier removes it, because it knows the loader's constant.
#[inline(always)]
fn load_fence() {
    if WEAKLY_ORDERED.load() != 0 {
        let mut nowhere = 0_u64;
        let place = &raw mut nowhere;
        // SAFETY: it touches nothing but the variable. Not said to be `nomem`, so the compiler moves no access past it.
        unsafe { asm!("{new} = xchg_64({place} + 0, {new})", new = inout(reg) 0_u64 => _, place = in(reg) place) }
    }
}
