//! STUN Binding requests that ask for nothing but an address (RFC 8489 section 6), answered where they arrive.

use hairpin_common::{
    checksum::{update_udp, word},
    stun::{
        ATTRIBUTE_LEN, BINDING_REQUEST, BINDING_SUCCESS, CRC_TABLES, Crc, CrcTables, FAMILY_IPV4, FAMILY_IPV6,
        FINGERPRINT, FINGERPRINT_LEN, XOR_MAPPED_ADDRESS, address_len,
    },
    verdict::Verdict,
    wire::{MAGIC_COOKIE, PROTOCOL_UDP, STUN_LEN, UDP_LEN},
};

use crate::{
    checksum::{Sum32, fold},
    family::{Carried, Family, V6, word4},
    frame::{Context, Frame},
    framing::attribute,
    parse::layer3,
    transit::Transit,
};

/// Read by index, so it has to be in memory.
static CRC: CrcTables = CRC_TABLES;

/// What a host's own datagrams start with: no request has anything to inherit from.
///
/// IPv4 with DF: so short an answer is not fragmented anywhere, and needs no identification.
const FRESH: Carried = Carried { traffic_class: 0, hop_limit: 64, dont_fragment: true, from_ipv6: false };

/// Whether a request has a UDP checksum, and the right one: a message so short is summed up as fast as the kernel would.
/// What comes from a veth often has a part of one only. `taken` is the sum of all but the cookie and the transaction id.
#[inline(always)]
fn is_whole(frame: &Frame, start: usize, transit: &Transit, taken: Sum32) -> bool {
    let [source, destination] = [transit.key.source(), transit.key.destination()];
    let mut sum = taken.add(u32::from(transit.udp_checksum)).add(u32::from(word(PROTOCOL_UDP.into())));
    sum = sum.add(u32::from(word(transit.udp_length))).add(u32::from(word(transit.udp_length)));
    sum = sum.add(u32::from(transit.key.source_port())).add(u32::from(transit.key.destination_port()));
    sum = sum.add_long(source[0]).add_long(source[1]).add_long(destination[0]).add_long(destination[1]);
    for index in 1..STUN_LEN / 4 {
        sum = sum.add(frame.load(start + 4 * index));
    }
    transit.udp_checksum != 0 && fold(sum) == 0xffff
}

/// Turns a request to a listener of ours into its success response.
///
/// It goes back to the link-layer address that it came from.
#[inline(never)]
pub(crate) fn answer<F: Family, const TAGGED: bool>(context: Context, transit: &mut Transit) -> Result<(), Verdict> {
    let frame = Frame::of(context);
    let layer3 = layer3::<TAGGED>();
    let udp = layer3 + F::HEADER_LEN;
    let start = udp + UDP_LEN;
    if !frame.holds(start + STUN_LEN) {
        return Err(Verdict::Control);
    }
    let has_fingerprint = transit.udp_length as usize == UDP_LEN + STUN_LEN + FINGERPRINT_LEN;
    let length = if has_fingerprint { FINGERPRINT_LEN } else { 0 };
    let head: u32 = frame.load(start);
    if head != attribute(BINDING_REQUEST, length as u16)
        || transit.udp_length as usize != UDP_LEN + STUN_LEN + length
        || frame.load::<u32>(start + 4) != MAGIC_COOKIE.to_be()
    {
        return Err(Verdict::Control);
    }
    let mut taken = Sum32::ZERO.add(head);
    if has_fingerprint {
        if !frame.holds(start + STUN_LEN + FINGERPRINT_LEN) {
            return Err(Verdict::Control);
        }
        let mut crc = Crc::START;
        for index in 0..STUN_LEN / 4 {
            crc = crc.add(&CRC, frame.load(start + 4 * index));
        }
        let found = [frame.load::<u32>(start + STUN_LEN), frame.load::<u32>(start + STUN_LEN + ATTRIBUTE_LEN)];
        if found != [attribute(FINGERPRINT, 4), crc.fingerprint().to_be()] {
            return Err(Verdict::Control);
        }
        taken = taken.add(found[0]).add(found[1]);
    }
    let source = transit.key.source();
    if !is_whole(&frame, start, transit, taken) || !F::is_answerable(&source) || source == transit.key.destination() {
        return Err(Verdict::Control);
    }

    let mapped = ATTRIBUTE_LEN + address_len(F::VERSION == V6::VERSION);
    let message_length = mapped + length;
    let new_length = start + STUN_LEN + message_length;
    let grow = new_length as i32 - frame.length() as i32;
    let frame = if grow == 0 { frame } else { frame.move_end(grow).ok_or(Verdict::NoRoom)? };
    if !frame.holds(start + STUN_LEN + mapped) {
        return Err(Verdict::Broken);
    }

    let (to, from): ((u32, u16), (u32, u16)) = ((frame.load(0), frame.load(4)), (frame.load(6), frame.load(10)));
    frame.store(0, from.0);
    frame.store(4, from.1);
    frame.store(6, to.0);
    frame.store(10, to.1);
    let udp_length = (UDP_LEN + STUN_LEN + message_length) as u16;
    F::write(&frame, layer3, FRESH, udp_length, [&transit.key.destination(), &source]);
    frame.store(udp, transit.key.destination_port());
    frame.store(udp + 2, transit.key.source_port());
    frame.store(udp + 4, udp_length.to_be());

    let head = attribute(BINDING_SUCCESS, message_length as u16);
    frame.store(start, head);
    let value = start + STUN_LEN + ATTRIBUTE_LEN;
    let family = if F::VERSION == V6::VERSION { FAMILY_IPV6 } else { FAMILY_IPV4 };
    let port = u16::from_be(transit.key.source_port()) ^ (MAGIC_COOKIE >> 16) as u16;
    let words = [
        attribute(XOR_MAPPED_ADDRESS, (mapped - ATTRIBUTE_LEN) as u16),
        (u32::from(family) << 16 | u32::from(port)).to_be(),
    ];
    frame.store(value - ATTRIBUTE_LEN, words[0]);
    frame.store(value, words[1]);
    let mut put = Sum32::ZERO.add(head).add(words[0]).add(words[1]);
    if F::VERSION == V6::VERSION {
        let masked = [source[0] ^ frame.load::<u64>(start + 4), source[1] ^ frame.load::<u64>(start + 12)];
        frame.store(value + 4, masked[0]);
        frame.store(value + 12, masked[1]);
        put = put.add_long(masked[0]).add_long(masked[1]);
    } else {
        let masked = word4(&source) ^ MAGIC_COOKIE.to_be();
        frame.store(value + 4, masked);
        put = put.add(masked);
    }
    if has_fingerprint {
        let end = start + STUN_LEN + mapped;
        if !frame.holds(end + FINGERPRINT_LEN) {
            return Err(Verdict::Broken);
        }
        let mut crc = Crc::START;
        for index in 0..(STUN_LEN + mapped) / 4 {
            crc = crc.add(&CRC, frame.load(start + 4 * index));
        }
        let words = [attribute(FINGERPRINT, 4), crc.fingerprint().to_be()];
        frame.store(end, words[0]);
        frame.store(end + ATTRIBUTE_LEN, words[1]);
        put = put.add(words[0]).add(words[1]);
    }
    // Addresses and ports have changed places, which no sum notices.
    let sum = hairpin_common::checksum::Sum::ZERO
        .sub(fold(taken))
        .add(fold(put))
        .sub(word(transit.udp_length))
        .sub(word(transit.udp_length))
        .add(word(udp_length))
        .add(word(udp_length));
    frame.store(udp + 6, update_udp(transit.udp_checksum, sum));
    transit.length = (STUN_LEN + message_length) as u16;
    Ok(())
}
