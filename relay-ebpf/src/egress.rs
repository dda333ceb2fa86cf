//! Sending: whether the next hop can take the packet, and the new headers.

use core::mem::offset_of;

use hairpin_common::{
    checksum::{Sum, update_udp, word},
    maps::NextHop,
    stun::{data_indication_len, padding},
    verdict::Verdict,
    wire::{CHANNEL_DATA_LEN, ETHERNET_LEN, ETHERTYPE_VLAN, STUN_LEN, UDP_LEN, VLAN_TAG_LEN},
};

use crate::{
    family::{Family, V4, V6},
    frame::{Context, Frame},
    framing::write_indication,
    limit,
    link::{VLAN_ID, is_for_this_host},
    maps::{DEVICES, NEXT_HOPS},
    parse::layer3,
    transit::Transit,
};

/// Both link-layer addresses of an Ethernet header, in two words.
type Addresses = (u64, u32);

/// What is around the application data when it leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Nothing: to a peer, or from a leg.
    Plain,
    /// ChannelData, to a client.
    Channel,
    /// A Data indication, to a client.
    Indication,
}

/// What is known about the packet to send before the frame is touched.
struct Plan {
    framing: Framing,
    /// Bytes between UDP header and data.
    framing_length: usize,
    /// Zeros behind the data.
    padding: u16,
    udp_length: u16,
    addresses: Addresses,
    /// The tag's last two bytes, if it is to have one.
    tag: Option<u16>,
}

/// Sends the data of a datagram by its record: rewrites the frame, which then only has to leave.
#[inline(always)]
pub(crate) fn send(context: Context, transit: &mut Transit) -> Result<(), Verdict> {
    let frame = Frame::of(context);
    let plan = plan(&frame, transit)?;
    let frame = resize(frame, transit, &plan)?;
    // Not before: what goes up asks userspace, and that the same meters.
    limit::admit(transit)?;
    let sum = transit.sum.add(word(plan.udp_length)).add(word(plan.udp_length));
    let sum = sum.sub(word(transit.udp_length)).sub(word(transit.udp_length));
    match (transit.record().family == u32::from(V6::VERSION), plan.tag) {
        (false, None) => write::<V4, false>(&frame, transit, &plan, 0, sum),
        (false, Some(tag)) => write::<V4, true>(&frame, transit, &plan, tag, sum),
        (true, None) => write::<V6, false>(&frame, transit, &plan, 0, sum),
        (true, Some(tag)) => write::<V6, true>(&frame, transit, &plan, tag, sum),
    }
}

/// Asks all questions that could still end in passing the packet up, but whether the driver has room.
#[inline(always)]
fn plan(frame: &Frame, transit: &mut Transit) -> Result<Plan, Verdict> {
    let record = transit.record();
    let is_ipv6 = record.family == u32::from(V6::VERSION);
    if transit.carried.hop_limit <= transit.hops() {
        return Err(Verdict::HopLimit);
    }
    // An IPv4 sender that computed no checksum has its peer get none; IPv6 always has one.
    if transit.udp_checksum == 0 && is_ipv6 {
        return Err(Verdict::NoChecksum);
    }
    let (framing, framing_length, padding) = if transit.leaves_plain() {
        (Framing::Plain, 0, 0)
    } else if record.channel != 0 {
        (Framing::Channel, CHANNEL_DATA_LEN, 0)
    } else {
        let length = data_indication_len(transit.key.family() == V6::VERSION);
        (Framing::Indication, length, padding(transit.length))
    };
    let udp_length = (UDP_LEN + framing_length) as u32 + u32::from(transit.length) + u32::from(padding);

    let next_hop = NEXT_HOPS.get(u32::from(record.next_hop)).ok_or(Verdict::NextHop)?;
    // Once: the daemon may be changing it.
    // SAFETY: a field of the entry.
    let out = unsafe { (&raw const next_hop.interface).read_volatile() };
    if out == 0 {
        return Err(Verdict::NextHop);
    }
    let header_length = if is_ipv6 { V6::HEADER_LEN } else { V4::HEADER_LEN };
    if header_length as u32 + udp_length > next_hop.mtu {
        return Err(Verdict::TooBig);
    }
    let addresses = addresses(next_hop);
    // Known since it was parsed; the verifier has forgotten.
    if !frame.holds(ETHERNET_LEN) {
        return Err(Verdict::NotUdp);
    }
    let (vlan_in, vlan_out) = (transit.tag & VLAN_ID, u16::from_ne_bytes(next_hop.vlan));
    let interface = frame.interface();
    let mut redirect = 0;
    // An interface that listens to all frames hands over those of other hosts too, which the kernel would not take.
    if out == interface && vlan_in == vlan_out {
        // The reply's source address: the last two bytes of the first word, then the four of the second.
        let [.., high, low] = addresses.0.to_ne_bytes();
        if frame.load::<u16>(0) != u16::from_ne_bytes([high, low]) || frame.load::<u32>(2) != addresses.1 {
            return Err(Verdict::OtherHost);
        }
    } else {
        if !is_for_this_host(frame, vlan_in) {
            return Err(Verdict::OtherHost);
        }
        if out != interface {
            DEVICES.get_ifindex(out).ok_or(Verdict::NextHop)?;
            redirect = out;
        }
    }
    // A tag that stays is kept in whole, with its priority; so is the priority when the VLAN is another one.
    let tag = if vlan_in == vlan_out && transit.tagged != 0 {
        Some(transit.tag)
    } else if vlan_out != 0 {
        Some(transit.tag & !VLAN_ID | vlan_out)
    } else {
        None
    };
    transit.redirect = redirect.into();
    Ok(Plan { framing, framing_length, padding, udp_length: udp_length as u16, addresses, tag })
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

/// Makes the frame as long as it is to be: its head goes to where the new headers end at the data, which stays.
#[inline(always)]
fn resize(frame: Frame, transit: &Transit, plan: &Plan) -> Result<Frame, Verdict> {
    let header_length = if transit.record().family == u32::from(V6::VERSION) { V6::HEADER_LEN } else { V4::HEADER_LEN };
    let tag_length = if plan.tag.is_some() { VLAN_TAG_LEN } else { 0 };
    let headers = ETHERNET_LEN + tag_length + header_length + UDP_LEN + plan.framing_length;
    let cut = transit.data as i32 - headers as i32;
    // Behind the data there can be padding of ChannelData, of STUN, and of Ethernet: on the next link, stale bytes.
    let trailing = frame.length() as i32 - transit.data as i32 - i32::from(transit.length);
    let padding = i32::from(plan.padding);

    let mut frame = frame;
    // First what can fail: nothing has changed then, but for zeros behind a packet that says how long it is.
    if padding != 0 {
        frame = frame.move_end(padding).ok_or(Verdict::NoRoom)?;
    }
    if cut != 0 {
        frame = match frame.move_start(cut) {
            Some(frame) => frame,
            None => {
                if padding != 0 {
                    frame.move_end(-padding).ok_or(Verdict::Broken)?;
                }
                return Err(Verdict::NoRoom);
            }
        };
    }
    if trailing != 0 {
        frame = frame.move_end(-trailing - padding).ok_or(Verdict::Broken)?;
        if padding != 0 {
            // What the kernel adds is zeros, and there was room for more.
            frame = frame.move_end(padding).ok_or(Verdict::Broken)?;
        }
    }
    Ok(frame)
}

/// Writes all headers.
#[inline(always)]
fn write<F: Family, const TAGGED: bool>(
    frame: &Frame,
    transit: &Transit,
    plan: &Plan,
    tag: u16,
    sum: Sum,
) -> Result<(), Verdict> {
    let layer3 = layer3::<TAGGED>();
    let udp = layer3 + F::HEADER_LEN;
    let data = udp + UDP_LEN;
    if !frame.holds(data) {
        return Err(Verdict::Broken);
    }
    frame.store(0, plan.addresses.0);
    frame.store(8, plan.addresses.1);
    if TAGGED {
        frame.store(ETHERNET_LEN - 2, ETHERTYPE_VLAN.to_be());
        frame.store(ETHERNET_LEN, tag);
    }
    frame.store(layer3 - 2, F::ETHERTYPE.to_be());
    let mut carried = transit.carried;
    carried.hop_limit -= transit.hops();
    let record = transit.record();
    F::write(frame, layer3, carried, plan.udp_length, [&record.source, &record.destination]);
    frame.store(udp, record.ports);
    frame.store(udp + 4, plan.udp_length.to_be());
    let put = match plan.framing {
        Framing::Plain => 0,
        Framing::Channel => {
            if !frame.holds(data + CHANNEL_DATA_LEN) {
                return Err(Verdict::Broken);
            }
            frame.store(data, record.channel);
            frame.store(data + 2, word(transit.length));
            Sum::ZERO.add(record.channel).add(word(transit.length)).fold()
        }
        Framing::Indication => {
            if !frame.holds(data + data_indication_len(false)) {
                return Err(Verdict::Broken);
            }
            let length = plan.udp_length - (UDP_LEN + STUN_LEN) as u16;
            write_indication(frame, data, transit, length)?
        }
    };
    let checksum = if transit.udp_checksum == 0 { 0 } else { update_udp(transit.udp_checksum, sum.add(put)) };
    frame.store(udp + 6, checksum);
    Ok(())
}
