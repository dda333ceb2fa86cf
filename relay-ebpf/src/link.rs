//! The link that a frame came in by: an interface, or a VLAN of one.

use hairpin_common::{maps::Link, wire::ETHERNET_LEN};

use crate::{frame::Frame, maps::LINKS};

/// The VLAN id in a tag's last two bytes (IEEE 802.1Q); the rest is priority and drop eligibility.
pub(crate) const VLAN_ID: u16 = 0x0fff_u16.to_be();

/// Whether a frame was sent to the address that this host has on the link that it came in by; `vlan` is a wire word.
#[inline(always)]
pub(crate) fn is_for_this_host(frame: &Frame, vlan: u16) -> bool {
    // Known since it was parsed; the verifier may have forgotten.
    if !frame.holds(ETHERNET_LEN) {
        return false;
    }
    let link = Link { interface: frame.interface(), vlan: vlan.to_ne_bytes(), zero: [0; 2] };
    // SAFETY: a value that changes meanwhile is compared by bytes, and any outcome is one that just was or will be.
    let Some(known) = (unsafe { LINKS.get(&link) }) else { return false };
    let [a, b, c, d, e, f] = known.address;
    frame.load::<u16>(0) == u16::from_ne_bytes([a, b]) && frame.load::<u32>(2) == u32::from_ne_bytes([c, d, e, f])
}
