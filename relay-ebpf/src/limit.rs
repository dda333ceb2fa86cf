//! Limits: what is asked before a packet is sent, or goes up to the daemon without an allocation to vouch for it.
//!
//! The daemon may exchange each limit at any time, by one store: a word is read once for each question. All of them are in
//! one line that nothing else is in, so limits that are off cost a packet no more than a look at it. What an allocation or a
//! path has of its own is beside its meters; the line says whether anybody has.

use core::arch::asm;

use hairpin_common::{
    hash::scale,
    limit::{Meter, PackedLimit},
    maps::{AllocationState, Pace, PackedLimits, SOURCE_METERS, VOUCHED},
    verdict::Verdict,
};

use crate::{
    clock,
    frame::Context,
    key::Key,
    lookup::lookup,
    maps::{ALLOCATION_STATES, RELAY_STATE, SOURCES, hash_source},
    route::is_at_listener,
    transit::{NOBODY, Transit},
};

/// How often to try to move a meter that other CPUs move, too.
const ATTEMPTS: usize = 2;

/// A limit, or another word beside them, as it is at this moment.
#[inline(always)]
fn limit<T: Default>(which: impl Fn(*const PackedLimits) -> *const T) -> T {
    RELAY_STATE.get_ptr(0).map_or(T::default(), |state| {
        // SAFETY: a word of the entry, which the daemon may change at any time.
        unsafe { which(&raw const (*state).limits).read_volatile() }
    })
}

/// Whether the data may be sent, by all limits it counts for.
#[inline(always)]
pub(crate) fn admit(transit: &Transit) -> Result<(), Verdict> {
    let Some(state) = RELAY_STATE.get_ptr(0) else { return Ok(()) };
    // SAFETY: a field of the entry.
    let limits = unsafe { &raw const (*state).limits };
    // SAFETY: words of it, which the daemon may change at any time.
    let set = unsafe {
        (&raw const (*limits).allocation_packets).read_volatile().0
            | (&raw const (*limits).allocation_bytes).read_volatile().0
            | (&raw const (*limits).relay_bytes).read_volatile().0
            | (&raw const (*limits).owners).read_volatile()
    };
    if set == 0 { Ok(()) } else { admit_data(transit) }
}

#[inline(never)]
fn admit_data(transit: &Transit) -> Result<(), Verdict> {
    // SAFETY: a word of the limits, as for all of these.
    let packets = limit(|limits| unsafe { &raw const (*limits).allocation_packets });
    // SAFETY: as above.
    let bytes = limit(|limits| unsafe { &raw const (*limits).allocation_bytes });
    // SAFETY: as above.
    let owners = limit(|limits| unsafe { &raw const (*limits).owners });
    if packets.is_set() || bytes.is_set() || owners != 0 {
        let limits = [packets, bytes];
        // SAFETY: fields of an entry.
        admit_one(limits, transit.to_peer, transit.length, |state| unsafe { &raw mut (*state).to_peer })?;
        // SAFETY: as above.
        admit_one(limits, transit.to_client, transit.length, |state| unsafe { &raw mut (*state).to_client })?;
    }
    // SAFETY: as above.
    let bytes = limit(|limits| unsafe { &raw const (*limits).relay_bytes });
    if bytes.is_set()
        && let Some(state) = RELAY_STATE.get_ptr_mut(0)
        // SAFETY: a field of the entry.
        && !pass(unsafe { &raw mut (*state).bytes }, bytes, u64::from(transit.length))
    {
        return Err(Verdict::RelayBitRate);
    }
    Ok(())
}

#[inline(always)]
fn admit_one(
    [packets, bytes]: [PackedLimit; 2],
    allocation: u64,
    length: u16,
    pace: impl Fn(*mut AllocationState) -> *mut Pace,
) -> Result<(), Verdict> {
    if allocation == NOBODY {
        return Ok(());
    }
    let Some(state) = ALLOCATION_STATES.get_ptr_mut(allocation as u32) else { return Ok(()) };
    // SAFETY: words of the entry, which the daemon may change at any time. They are in the line of the meters.
    let packets = unsafe { (&raw const (*state).own_packets).read_volatile() }.or(packets);
    // SAFETY: as above.
    let bytes = unsafe { (&raw const (*state).own_bytes).read_volatile() }.or(bytes);
    let pace = pace(state);
    // SAFETY: fields of an entry.
    if packets.is_set() && !pass(unsafe { &raw mut (*pace).packets }, packets, 1) {
        return Err(Verdict::AllocationPacketRate);
    }
    // SAFETY: as above.
    if bytes.is_set() && !pass(unsafe { &raw mut (*pace).bytes }, bytes, u64::from(length)) {
        return Err(Verdict::AllocationBitRate);
    }
    Ok(())
}

/// What becomes of a datagram to a listener that is not relayed, for which `verdict` is the reason: up to the daemon, or
/// nowhere, when nobody vouches for it and there are too many.
#[inline(never)]
pub(crate) fn admit_unknown(context: Context, transit: &mut Transit, verdict: Verdict) -> Verdict {
    let (of_source, of_all) = (source_packets(), control_packets());
    if !of_source.is_set() && !of_all.is_set() {
        return verdict;
    }
    if is_at_listener(context, transit).is_err() || !is_of_a_stranger(transit) {
        return verdict;
    }
    if !admit_source(&transit.key, of_source) {
        return Verdict::SourceRate;
    }
    if of_all.is_set()
        && let Some(state) = RELAY_STATE.get_ptr_mut(0)
        // SAFETY: a field of the entry.
        && !pass(unsafe { &raw mut (*state).control }, of_all, 1)
    {
        return Verdict::ControlRate;
    }
    verdict
}

/// Whether what may be a Binding request to a listener may be answered, by the limit of its source.
#[inline(always)]
pub(crate) fn admit_binding(transit: &mut Transit) -> Result<(), Verdict> {
    let of_source = source_packets();
    if of_source.is_set() && is_of_a_stranger(transit) && !admit_source(&transit.key, of_source) {
        return Err(Verdict::SourceRate);
    }
    Ok(())
}

#[inline(always)]
fn source_packets() -> PackedLimit {
    // SAFETY: a word of the limits.
    limit(|limits| unsafe { &raw const (*limits).source_packets })
}

#[inline(always)]
fn control_packets() -> PackedLimit {
    // SAFETY: a word of the limits.
    limit(|limits| unsafe { &raw const (*limits).control_packets })
}

/// Whether a datagram to a listener is of an address that has no allocation there, and that the daemon has not vouched for
/// either, as for clients over DTLS. A record that just changes, or ends in this tick, is one. Where the kernel does not
/// know of all of them, the daemon is left to say.
#[inline(never)]
fn is_of_a_stranger(transit: &mut Transit) -> bool {
    // SAFETY: a field of the entry, which the daemon may change at any time.
    let hidden = RELAY_STATE.get_ptr(0).map_or(0, |state| unsafe { (&raw const (*state).hidden).read_volatile() });
    if hidden != 0 {
        return false;
    }
    for kind in [4, 6, VOUCHED] {
        let key = transit.key.with_channel(kind.to_be());
        if !matches!(lookup(&key, &mut transit.record), Err(Verdict::NoFlow)) {
            return false;
        }
    }
    true
}

/// Whether the source of a datagram keeps to its limit: an IPv4 address, or 64 bits of an IPv6 address.
#[inline(always)]
fn admit_source(key: &Key, packets: PackedLimit) -> bool {
    if !packets.is_set() {
        return true;
    }
    let [prefix, _] = key.source();
    let meter = scale(hash_source([prefix, u64::from(key.family())]).mixed() >> 32, SOURCE_METERS);
    SOURCES.get_ptr_mut(meter).is_none_or(|meter| pass(meter, packets, 1))
}

/// Moves a meter by so many units, if the limit lets them pass.
#[inline(never)]
fn pass(meter: *mut Meter, limit: PackedLimit, units: u64) -> bool {
    let limit = limit.unpack();
    let now = clock::now();
    for _ in 0..ATTEMPTS {
        // SAFETY: the meter is in a map.
        let before = unsafe { meter.read_volatile() };
        let Some(after) = limit.admit(before, now, units) else { return false };
        // SAFETY: as above.
        if unsafe { compare_exchange(meter, before, after) } {
            return true;
        }
    }
    // Others were faster each time, and have paid; this one passes free.
    true
}

/// Replaces a meter's value, unless another CPU has changed it.
///
/// # Safety
///
/// The meter is in a map.
#[inline(always)]
unsafe fn compare_exchange(meter: *mut Meter, Meter(before): Meter, Meter(after): Meter) -> bool {
    let found: u64;
    // SAFETY: by contract; the core library has no atomic operations for this target.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({meter} + 0, r0, {after})",
            meter = in(reg) meter,
            after = in(reg) after,
            inout("r0") before => found,
        );
    }
    found == before
}
