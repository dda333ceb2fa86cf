//! Sending: whether the next hop can take the packet, and the new headers.

use core::mem::offset_of;

use hairpin_common::{
    checksum::update_udp,
    maps::NextHop,
    verdict::Verdict,
    wire::{CHANNEL_DATA_LEN, ChannelDataHeader, ETHERNET_LEN, UDP_LEN},
};

use crate::{
    count::Sent, family::Family, frame::Frame, framing::Payload, lookup::Record, maps::NEXT_HOPS, parse::Packet,
};

/// The VLAN id in a tag's last two bytes (IEEE 802.1Q); the rest is priority and drop eligibility.
const VLAN_ID: u16 = 0x0fff;
/// Both link-layer addresses of an Ethernet header, in two words.
type Addresses = (u64, u32);

/// What is known about the packet to send before the frame is touched.
pub(crate) struct Plan {
    verdict: Verdict,
    udp_length: u16,
    udp_checksum: u16,
    addresses: Addresses,
}

/// Asks all questions that could still end in passing the packet up.
#[inline(always)]
pub(crate) fn plan<F: Family>(
    frame: &Frame,
    packet: &Packet,
    payload: &Payload,
    record: &Record<F>,
) -> Result<Plan, Verdict> {
    let (verdict, udp_length) = match (packet.to_listener, record.channel != 0) {
        (true, false) => (Verdict::ToPeer, UDP_LEN as u32 + u32::from(payload.length)),
        (false, true) => (Verdict::ToClient, (UDP_LEN + CHANNEL_DATA_LEN) as u32 + u32::from(payload.length)),
        _ => return Err(Verdict::Unsupported),
    };
    if packet.carried.hop_limit <= 1 {
        return Err(Verdict::HopLimit);
    }
    let next_hop = NEXT_HOPS.get(u32::from(record.next_hop)).ok_or(Verdict::NextHop)?;
    if next_hop.interface == 0 {
        return Err(Verdict::NextHop);
    }
    let vlan = if packet.layer3 == ETHERNET_LEN { 0 } else { frame.load::<u16>(ETHERNET_LEN) & VLAN_ID.to_be() };
    if next_hop.interface != frame.interface() || u16::from_ne_bytes(next_hop.vlan) != vlan {
        return Err(Verdict::OtherLink);
    }
    let addresses = addresses(next_hop);
    // An interface that listens to all frames hands over those of other hosts too, which the kernel would not take.
    if !is_for(frame, &addresses) {
        return Err(Verdict::OtherHost);
    }
    if F::HEADER_LEN as u32 + udp_length > next_hop.mtu {
        return Err(Verdict::TooBig);
    }
    // An IPv4 sender that computed no checksum has its peer get none.
    let udp_checksum =
        if packet.udp_checksum == 0 { 0 } else { update_udp(packet.udp_checksum, payload.delta(record.delta)) };
    Ok(Plan { verdict, udp_length: udp_length as u16, udp_checksum, addresses })
}

/// Moves the head of the frame to where the new headers end at the payload, which stays, and writes them.
#[inline(always)]
pub(crate) fn send<F: Family, const TAGGED: bool>(
    frame: &Frame,
    packet: &Packet,
    payload: &Payload,
    record: &Record<F>,
    plan: &Plan,
) -> Result<Sent, Verdict> {
    // Ethernet's padding and ChannelData's: neither is for the receiver, and on the next link both would be stale bytes.
    let trailing =
        frame.length() - (packet.layer3 + F::HEADER_LEN + packet.udp_length as usize) + payload.padding as usize;
    let tag: u32 = if TAGGED { frame.load(ETHERNET_LEN - 2) } else { 0 };

    let to_client = payload.channel == 0;
    let step = CHANNEL_DATA_LEN as i32;
    let mut frame = frame.move_start(if to_client { -step } else { step }).ok_or(Verdict::NoHeadroom)?;
    if trailing != 0 {
        frame = frame.cut_end(trailing as u32).ok_or(Verdict::Broken)?;
    }

    let udp = packet.layer3 + F::HEADER_LEN;
    if !frame.holds(udp + UDP_LEN) {
        return Err(Verdict::Broken);
    }
    frame.store(0, plan.addresses.0);
    frame.store(8, plan.addresses.1);
    if TAGGED {
        frame.store(ETHERNET_LEN - 2, tag);
    }
    frame.store(packet.layer3 - 2, F::ETHERTYPE.to_be());
    F::write(&frame, packet.layer3, &packet.carried, plan.udp_length, record.addresses);
    frame.store(udp, record.ports);
    frame.store(udp + 4, plan.udp_length.to_be());
    frame.store(udp + 6, plan.udp_checksum);
    if to_client {
        if !frame.holds(udp + UDP_LEN + CHANNEL_DATA_LEN) {
            return Err(Verdict::Broken);
        }
        let header = ChannelDataHeader { channel: u16::from_be(record.channel), length: payload.length };
        frame.store(udp + UDP_LEN, header.to_bytes());
    }
    Ok(Sent { verdict: plan.verdict, bytes: payload.length, allocation: record.allocation })
}

/// Whether the frame was sent to the address that the reply will come from.
#[inline(always)]
fn is_for(frame: &Frame, (first, last): &Addresses) -> bool {
    // The entry's source address: the last two bytes of the first word, then the four of the second.
    let [.., high, low] = first.to_ne_bytes();
    frame.load::<u16>(0) == u16::from_ne_bytes([high, low]) && frame.load::<u32>(2) == *last
}

/// The link-layer addresses, which stand in the entry as they do in the header.
#[inline(always)]
fn addresses(next_hop: &NextHop) -> Addresses {
    const { assert!(offset_of!(NextHop, destination) == 8 && offset_of!(NextHop, source) == 14) };
    // SAFETY: asserted above; twelve plain bytes of one entry.
    unsafe {
        let start = core::ptr::from_ref(next_hop).cast::<u8>().add(8);
        (start.cast::<u64>().read_unaligned(), start.add(8).cast::<u32>().read_unaligned())
    }
}
