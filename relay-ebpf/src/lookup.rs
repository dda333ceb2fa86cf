//! The lookup: from a key to the record that says what to send.

use core::{
    arch::asm,
    mem::{MaybeUninit, offset_of},
};

use aya_ebpf::Global;
use hairpin_common::{
    hash::FlowHash,
    slot::{Front, LINE, Order, Slot, first_line},
    tags::MOST_ALIKE,
    verdict::Verdict,
};

use crate::{
    clock,
    family::{Address, Family as _, V4, address4},
    key::Key,
    maps,
};

/// Whether this machine may reorder loads: 0 on x86, whose loads happen in order. Set by the loader.
#[unsafe(no_mangle)]
static WEAKLY_ORDERED: Global<u32> = Global::new(1);

/// What this program needs of a record, in wire words.
///
/// Without gaps: the kernel allows only aligned access to the stack, and the compiler fills gaps with less.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Record {
    /// Source address to send from.
    pub source: Address,
    /// Destination address to send to.
    pub destination: Address,
    /// Source and destination port, as in the UDP header.
    pub ports: u32,
    /// Index of the allocation's counters.
    pub allocation: u32,
    /// Index of the next hop.
    pub next_hop: u16,
    /// Of a permission, index of the next hop to the peer.
    pub peer_next_hop: u16,
    /// Channel to send in, or 0.
    pub channel: u16,
    /// Difference to the UDP checksum that addresses and ports make.
    pub delta: u16,
    /// IP version to send.
    pub family: u32,
    /// See [`PEER_IS_RELAYED`](hairpin_common::maps::PEER_IS_RELAYED).
    pub flags: u32,
}

/// The record for this key, if it is whole and in force. On an error the record is not to be used.
#[inline(never)]
pub(crate) fn lookup(key: &Key, record: &mut MaybeUninit<Record>) -> Result<(), Verdict> {
    lookup_here(key, record)
}

/// The same without a call, for the one place where nearly all packets come by.
#[inline(always)]
pub(crate) fn lookup_here(key: &Key, record: &mut MaybeUninit<Record>) -> Result<(), Verdict> {
    let found = find(key).ok_or(Verdict::NoFlow)?;
    // SAFETY: it is in the table.
    unsafe { read(key, &found, record) }
}

/// A slot with this key, whose memory may change at any time.
struct Found {
    /// Its first line.
    front: *const Front,
    /// Its second line.
    back: *const u8,
    /// Its generation before the key was read.
    generation: u32,
}

/// Finds the slot that holds a key. A key that is being written may be overlooked, or found in a slot that is odd.
#[inline(always)]
fn find(key: &Key) -> Option<Found> {
    let hash = FlowHash::of(key.0, key.family() == V4::VERSION, maps::seed());
    for index in hash.buckets(maps::bucket_count()) {
        let bucket: *const u8 = maps::FLOWS.get_ptr(index)?.cast();
        // A record moves from its first to its second bucket: who did not see it in the first any more has to see it in the
        // second. And who asks again whether there is a permission, having seen that all of them are in the kernel, has to
        // see them all: so this is needed in front of the first, too.
        load_fence();
        // SAFETY: one word of the table, which the daemon may change at any time.
        let tags = unsafe { maps::TAGS.get_ptr(index)?.read_volatile() };
        load_fence();
        let mut places = tags.places_of(hash.tag());
        for _ in 0..MOST_ALIKE {
            let Some(place) = places.take_first() else { break };
            let start = place * size_of::<Slot>() + first_line(place);
            // SAFETY: within its bucket, in the table, and aligned.
            let (front, generation) = unsafe {
                let front: *const Front = bucket.add(start).cast();
                (front, (&raw const (*front).order.generation).read_volatile())
            };
            load_fence();
            // SAFETY: in the table.
            if unsafe { is_at(key, front) } {
                // SAFETY: as above.
                return Some(Found { front, back: unsafe { bucket.add(start ^ LINE) }, generation });
            }
        }
    }
    None
}

/// Whether a slot holds this key now.
///
/// # Safety
///
/// The slot is in the table.
#[inline(always)]
unsafe fn is_at(key: &Key, front: *const Front) -> bool {
    let place: *const u64 = front.cast();
    // SAFETY: the key is the first of a slot.
    let different = |index: usize| key.0[index] ^ unsafe { place.add(index).read_volatile() };
    let difference = different(0) | different(2) | different(4);
    // Where an IPv4 key has nothing, a slot may have something else.
    difference == 0 && (key.family() == V4::VERSION || different(1) | different(3) == 0)
}

/// Copies a record that the daemon may be writing right now: every field once, the generation last.
///
/// # Safety
///
/// The slot is in the table.
#[inline(always)]
unsafe fn read(
    key: &Key,
    Found { front, back, generation }: &Found,
    record: &mut MaybeUninit<Record>,
) -> Result<(), Verdict> {
    // SAFETY: a pair of fields that is read as one word is aligned for it. The reads are volatile, so the compiler keeps
    // each of them, and their order; what the daemon changes in between shows in the generation.
    unsafe {
        let (front, back) = (*front, *back);
        let record = record.assume_init_mut();
        let order: *const Order = &raw const (*front).order;
        let expires = (&raw const (*order).expires).read_volatile();
        record.allocation = (&raw const (*order).allocation).read_volatile();
        record.ports = (&raw const (*order).source_port).cast::<u32>().read_volatile();
        record.channel = (&raw const (*order).channel).cast::<u16>().read_volatile();
        record.delta = (&raw const (*order).delta).cast::<u16>().read_volatile();
        record.next_hop = (&raw const (*order).next_hop).read_volatile();
        record.family = (&raw const (*order).family).read_volatile().into();
        record.flags = (&raw const (*order).flags).read_volatile().into();
        if key.family() == V4::VERSION && record.family == u32::from(V4::VERSION) {
            let short: *const u32 = (&raw const (*front).key.source).cast();
            record.source = address4(short.add(2).read_volatile());
            record.destination = address4(short.add(3).read_volatile());
            let short: *const u16 = (&raw const (*front).key.destination).cast();
            record.peer_next_hop = short.add(4).read_volatile();
        } else {
            record.source = address(back.add(offset_of!(Slot, source) - LINE).cast());
            record.destination = address(back.add(offset_of!(Slot, destination) - LINE).cast());
            record.peer_next_hop = back.add(offset_of!(Slot, peer_next_hop) - LINE).cast::<u16>().read_volatile();
        }
        load_fence();
        if generation & 1 != 0 || (&raw const (*order).generation).read_volatile() != *generation {
            return Err(Verdict::Torn);
        }
        if clock::tick() >= expires {
            return Err(Verdict::Expired);
        }
        Ok(())
    }
}

/// # Safety
///
/// The address is in the table.
#[inline(always)]
unsafe fn address(place: *const [u8; 16]) -> Address {
    let place: *const u64 = place.cast();
    // SAFETY: by contract; it is aligned for it.
    unsafe { [place.read_volatile(), place.add(1).read_volatile()] }
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
