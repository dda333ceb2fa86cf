//! From a frame to a UDP datagram that is for a port of ours.

use core::mem::MaybeUninit;

use hairpin_common::{
    checksum::Sum,
    maps::{PortRole, PortSlot},
    verdict::Verdict,
    wire::{ETHERNET_LEN, UDP_LEN, VLAN_TAG_LEN},
};

use crate::{
    family::Family,
    frame::Frame,
    key::Key,
    maps::PORT_ROLES,
    transit::{NOBODY, Transit, unforeseen},
};

/// What a datagram is sent to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// A listener, by a client.
    Listener,
    /// A relayed address, by a peer.
    Relayed,
}

/// Checks everything up to the end of the UDP header, cheapest question first for packets that are not ours.
#[inline(always)]
pub(crate) fn parse<F: Family, const TAGGED: bool>(frame: &Frame) -> Result<(To, Transit), Verdict> {
    let layer3 = layer3::<TAGGED>();
    let udp = layer3 + F::HEADER_LEN;
    if !frame.holds(udp + UDP_LEN) {
        return Err(Verdict::NotUdp);
    }
    F::carries_whole_udp(frame, layer3)?;
    let to = match role(u16::from_be(frame.load(udp + 2))) {
        PortRole::None => return Err(Verdict::NotOurs),
        PortRole::Listener => To::Listener,
        PortRole::Relayed => To::Relayed,
    };

    let udp_length = u16::from_be(frame.load(udp + 4));
    let udp_checksum = frame.load(udp + 6);
    let carried = F::inherit(frame, layer3, udp_length, udp_checksum).ok_or(Verdict::NotUdp)?;
    // Ethernet pads short frames, so there may be more than the packet, never less.
    if (udp_length as usize) < UDP_LEN || frame.length() < udp + udp_length as usize {
        return Err(Verdict::NotUdp);
    }
    let key = Key::new(F::addresses(frame, layer3), frame.load(udp), F::VERSION);
    // Nobody can be answered at port 0, and in keys it stands for any port.
    if key.source_port() == 0 {
        return Err(Verdict::NotOurs);
    }
    let transit = Transit {
        key,
        record: MaybeUninit::uninit(),
        data: (udp + UDP_LEN) as u64,
        length: udp_length - UDP_LEN as u16,
        udp_length,
        udp_checksum,
        sum: Sum::ZERO,
        carried,
        tagged: unforeseen(TAGGED.into()),
        tag: if TAGGED { frame.load(ETHERNET_LEN) } else { 0 },
        to_peer: unforeseen(NOBODY),
        to_client: unforeseen(NOBODY),
        redirect: unforeseen(0),
    };
    Ok((to, transit))
}

/// Where the IP header is.
#[inline(always)]
pub(crate) const fn layer3<const TAGGED: bool>() -> usize {
    if TAGGED { ETHERNET_LEN + VLAN_TAG_LEN } else { ETHERNET_LEN }
}

#[inline(always)]
fn role(port: u16) -> PortRole {
    let slot = PortSlot::of(port);
    // The array has an entry for every port, but the verifier wants to see the question.
    PORT_ROLES.get(slot.index).map_or(PortRole::None, |entry| slot.role(*entry))
}
