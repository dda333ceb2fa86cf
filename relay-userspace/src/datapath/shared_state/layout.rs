//! What the program and the daemon share, as it is in memory: the types of [`hairpin_common::maps`], of atomics.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use hairpin_common::limit::PackedLimit;
use hairpin_common::maps::{AllocationState, Pace, PackedLimits, RelayState};

use crate::datapath::shared_memory::Atomics;

/// An [`AllocationState`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Allocation {
    pub(super) announced: AtomicU32,
    pub(super) installed: AtomicU32,
    pub(super) to_peer: AtomicPace,
    pub(super) to_client: AtomicPace,
    pub(super) own_packets: AtomicLimit,
    pub(super) own_bytes: AtomicLimit,
    zero: AtomicU64,
}

impl Allocation {
    /// What was sent of one kind, both ways.
    pub(super) fn meters(&self, kind: impl Fn(&AtomicPace) -> &AtomicU64) -> [&AtomicU64; 2] {
        [kind(&self.to_peer), kind(&self.to_client)]
    }

    /// Whether it has a limit of its own.
    pub(super) fn is_owner(&self) -> bool {
        self.own_packets.load().is_set() || self.own_bytes.load().is_set()
    }
}

/// A [`Pace`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct AtomicPace {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// A [`RelayState`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Relay {
    pub(super) bytes: AtomicU64,
    pub(super) control: AtomicU64,
    pub(super) hidden: AtomicU64,
    zero: [AtomicU64; 5],
    pub(super) limits: AtomicLimits,
}

/// [`PackedLimits`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct AtomicLimits {
    pub(super) allocation_packets: AtomicLimit,
    pub(super) allocation_bytes: AtomicLimit,
    pub(super) relay_bytes: AtomicLimit,
    pub(super) source_packets: AtomicLimit,
    pub(super) control_packets: AtomicLimit,
    pub(super) owners: AtomicU64,
    zero: [AtomicU64; 2],
}

/// A [`PackedLimit`].
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct AtomicLimit(AtomicU64);

impl AtomicLimit {
    #[inline]
    pub(super) fn load(&self) -> PackedLimit {
        PackedLimit(self.0.load(Relaxed))
    }

    /// Puts another limit in its place. Whether it is another one.
    pub(super) fn exchange(&self, limit: PackedLimit) -> bool {
        let before = self.0.swap(limit.0, Relaxed);
        // Of two threads, of which one exchanges a general limit and one an own, the later sees both.
        fence(SeqCst);
        before != limit.0
    }
}

#[allow(unsafe_code, reason = "a promise about the types above")]
mod atomics {
    use super::{Allocation, Atomics, Relay};

    // SAFETY: all fields are atomics, and there is no padding, or it is at the end and never looked at.
    unsafe impl Atomics for Allocation {}
    // SAFETY: as above.
    unsafe impl Atomics for Relay {}
}

const _: () = {
    assert!(size_of::<Allocation>() == size_of::<AllocationState>() && size_of::<Relay>() == size_of::<RelayState>());
    assert!(offset_of!(Allocation, announced) == offset_of!(AllocationState, announced));
    assert!(offset_of!(Allocation, installed) == offset_of!(AllocationState, installed));
    assert!(offset_of!(Allocation, to_peer) == offset_of!(AllocationState, to_peer));
    assert!(offset_of!(Allocation, to_client) == offset_of!(AllocationState, to_client));
    assert!(offset_of!(Allocation, own_packets) == offset_of!(AllocationState, own_packets));
    assert!(offset_of!(Allocation, own_bytes) == offset_of!(AllocationState, own_bytes));
    assert!(offset_of!(AtomicPace, packets) == offset_of!(Pace, packets));
    assert!(offset_of!(AtomicPace, bytes) == offset_of!(Pace, bytes));
    assert!(offset_of!(Relay, bytes) == offset_of!(RelayState, bytes));
    assert!(offset_of!(Relay, control) == offset_of!(RelayState, control));
    assert!(offset_of!(Relay, hidden) == offset_of!(RelayState, hidden));
    assert!(offset_of!(Relay, limits) == offset_of!(RelayState, limits));
    assert!(offset_of!(AtomicLimits, allocation_packets) == offset_of!(PackedLimits, allocation_packets));
    assert!(offset_of!(AtomicLimits, allocation_bytes) == offset_of!(PackedLimits, allocation_bytes));
    assert!(offset_of!(AtomicLimits, relay_bytes) == offset_of!(PackedLimits, relay_bytes));
    assert!(offset_of!(AtomicLimits, source_packets) == offset_of!(PackedLimits, source_packets));
    assert!(offset_of!(AtomicLimits, control_packets) == offset_of!(PackedLimits, control_packets));
    assert!(offset_of!(AtomicLimits, owners) == offset_of!(PackedLimits, owners));
};
