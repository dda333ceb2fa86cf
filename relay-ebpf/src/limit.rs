//! Limits: what is asked before a packet is sent, or goes up to the daemon without an allocation to vouch for it.
//!
//! A limit that is off costs nothing: the loader's constants are known to the verifier, which removes the question.

use core::arch::asm;

use hairpin_common::{
    hash::scale,
    limit::{Limit, Meter},
    maps::{AllocationState, Pace, SOURCE_METERS, VOUCHED},
    verdict::Verdict,
};

use crate::{
    clock,
    frame::Context,
    key::Key,
    lookup::lookup,
    maps::{
        ALLOCATION_BYTES, ALLOCATION_PACKETS, ALLOCATION_STATES, CONTROL_PACKETS, RELAY_BYTES, RELAY_STATE,
        SOURCE_PACKETS, SOURCES, hash_source,
    },
    route::is_at_listener,
    transit::{NOBODY, Transit},
};

/// How often to try to move a meter that other CPUs move, too.
const ATTEMPTS: usize = 2;

/// Whether the data may be sent, by all limits it counts for.
#[inline(always)]
pub(crate) fn admit(transit: &Transit) -> Result<(), Verdict> {
    let limits = [&ALLOCATION_PACKETS, &ALLOCATION_BYTES, &RELAY_BYTES];
    if limits.iter().any(|limit| limit.load().is_set()) { admit_data(transit) } else { Ok(()) }
}

#[inline(never)]
fn admit_data(transit: &Transit) -> Result<(), Verdict> {
    let (packets, bytes) = (ALLOCATION_PACKETS.load(), ALLOCATION_BYTES.load());
    if packets.is_set() || bytes.is_set() {
        // SAFETY: fields of an entry.
        admit_one(transit.to_peer, transit.length, |state| unsafe { &raw mut (*state).to_peer })?;
        // SAFETY: as above.
        admit_one(transit.to_client, transit.length, |state| unsafe { &raw mut (*state).to_client })?;
    }
    let bytes = RELAY_BYTES.load();
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
fn admit_one(allocation: u64, length: u16, pace: impl Fn(*mut AllocationState) -> *mut Pace) -> Result<(), Verdict> {
    if allocation == NOBODY {
        return Ok(());
    }
    let Some(state) = ALLOCATION_STATES.get_ptr_mut(allocation as u32) else { return Ok(()) };
    let pace = pace(state);
    let (packets, bytes) = (ALLOCATION_PACKETS.load(), ALLOCATION_BYTES.load());
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
    if !SOURCE_PACKETS.load().is_set() && !CONTROL_PACKETS.load().is_set() {
        return verdict;
    }
    if is_at_listener(context, transit).is_err() || !is_of_a_stranger(transit) {
        return verdict;
    }
    if !admit_source(&transit.key) {
        return Verdict::SourceRate;
    }
    let packets = CONTROL_PACKETS.load();
    if packets.is_set()
        && let Some(state) = RELAY_STATE.get_ptr_mut(0)
        // SAFETY: a field of the entry.
        && !pass(unsafe { &raw mut (*state).control }, packets, 1)
    {
        return Verdict::ControlRate;
    }
    verdict
}

/// Whether what may be a Binding request to a listener may be answered, by the limit of its source.
#[inline(always)]
pub(crate) fn admit_binding(transit: &mut Transit) -> Result<(), Verdict> {
    if SOURCE_PACKETS.load().is_set() && is_of_a_stranger(transit) && !admit_source(&transit.key) {
        return Err(Verdict::SourceRate);
    }
    Ok(())
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
fn admit_source(key: &Key) -> bool {
    let packets = SOURCE_PACKETS.load();
    if !packets.is_set() {
        return true;
    }
    let [prefix, _] = key.source();
    let meter = scale(hash_source([prefix, u64::from(key.family())]).mixed() >> 32, SOURCE_METERS);
    SOURCES.get_ptr_mut(meter).is_none_or(|meter| pass(meter, packets, 1))
}

/// Moves a meter by so many units, if the limit lets them pass.
#[inline(never)]
fn pass(meter: *mut Meter, Limit { cost, burst }: Limit, units: u64) -> bool {
    let limit = Limit { cost, burst };
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
