//! From a frame to a UDP datagram that is for a port of ours.

use hairpin_common::{
    maps::{PortRole, PortSlot},
    verdict::Verdict,
    wire::{ETHERNET_LEN, UDP_LEN, VLAN_TAG_LEN},
};

use crate::{
    family::{Carried, Family},
    frame::Frame,
    maps::PORT_ROLES,
};

/// A datagram to a port of ours, with all lengths known to fit.
pub(crate) struct Packet {
    /// Where the IP header is.
    pub layer3: usize,
    /// What the new IP header inherits.
    pub carried: Carried,
    /// The role of the destination port: [`PortRole::Listener`] or not.
    pub to_listener: bool,
    /// The UDP length: header and payload.
    pub udp_length: u16,
    /// The UDP checksum, as a wire word.
    pub udp_checksum: u16,
}

/// Checks everything up to the end of the UDP header, cheapest question first for packets that are not ours.
#[inline(always)]
pub(crate) fn parse<F: Family, const TAGGED: bool>(frame: &Frame) -> Result<Packet, Verdict> {
    let layer3 = if TAGGED { ETHERNET_LEN + VLAN_TAG_LEN } else { ETHERNET_LEN };
    let udp = layer3 + F::HEADER_LEN;
    if !frame.holds(udp + UDP_LEN) {
        return Err(Verdict::NotUdp);
    }
    F::carries_whole_udp(frame, layer3)?;
    let to_listener = match role(u16::from_be(frame.load(udp + 2))) {
        PortRole::None => return Err(Verdict::NotOurs),
        PortRole::Listener => true,
        PortRole::Relayed => false,
    };

    let udp_length = u16::from_be(frame.load(udp + 4));
    let udp_checksum = frame.load(udp + 6);
    let carried = F::inherit(frame, layer3, udp_length, udp_checksum).ok_or(Verdict::NotUdp)?;
    // Ethernet pads short frames, so there may be more than the packet, never less.
    if (udp_length as usize) < UDP_LEN || frame.length() < udp + udp_length as usize {
        return Err(Verdict::NotUdp);
    }
    Ok(Packet { layer3, carried, to_listener, udp_length, udp_checksum })
}

#[inline(always)]
fn role(port: u16) -> PortRole {
    let slot = PortSlot::of(port);
    // The array has an entry for every port, but the verifier wants to see the question.
    PORT_ROLES.get(slot.index).map_or(PortRole::None, |entry| slot.role(*entry))
}
