//! The clock that record expiry and limits go by.
//!
//! A call of the kernel's coarse clock costs more than the lookup; reading the kernel's count of timer ticks is one
//! load. A jiffy is a fixed number of nanoseconds of `CLOCK_MONOTONIC`, so the loader, which can see both clocks, tells
//! the program how to turn one into the other.

use aya_ebpf::{Global, bindings::xdp_action, helpers::bpf_jiffies64, macros::xdp, programs::XdpContext};
use hairpin_common::maps;

use crate::frame::Frame;

/// Length of a jiffy in nanoseconds; set by the loader.
#[unsafe(no_mangle)]
static NANOSECONDS_PER_JIFFY: Global<u64> = Global::new(0);

/// `CLOCK_MONOTONIC` when the count of jiffies was zero, in nanoseconds modulo 2^64; set by the loader.
#[unsafe(no_mangle)]
static MONOTONIC_AT_JIFFY_ZERO: Global<u64> = Global::new(0);

/// `CLOCK_MONOTONIC` in nanoseconds, late by no more than a jiffy, which is at most 10 ms.
#[inline(always)]
pub(crate) fn now() -> u64 {
    let elapsed = jiffies().wrapping_mul(NANOSECONDS_PER_JIFFY.load());
    elapsed.wrapping_add(MONOTONIC_AT_JIFFY_ZERO.load())
}

/// The present [`maps::tick`].
#[inline(always)]
pub(crate) fn tick() -> u32 {
    maps::tick(now())
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

/// Writes the count of jiffies to the start of a packet: the loader runs this once, on a packet of its own, and never
/// attaches it.
#[xdp]
fn clock(context: XdpContext) -> u32 {
    let frame = Frame::of(context.ctx);
    if !frame.holds(size_of::<u64>()) {
        return xdp_action::XDP_ABORTED;
    }
    frame.store(0, jiffies());
    xdp_action::XDP_PASS
}
