//! What is around a client's application data: ChannelData (RFC 8656 section 12.4), a Send indication (section 11.1), or a
//! Data indication (section 11.3).

use aya_ebpf::helpers::bpf_get_prandom_u32;
use hairpin_common::{
    checksum::{Sum, word},
    stun::{
        ATTRIBUTE_LEN, DATA, DATA_INDICATION, DONT_FRAGMENT, FAMILY_IPV4, FAMILY_IPV6, SEND_INDICATION,
        XOR_PEER_ADDRESS, address_len, data_indication_len, padding,
    },
    verdict::Verdict,
    wire::{CHANNEL_DATA_LEN, ChannelDataHeader, MAGIC_COOKIE, STUN_LEN, UDP_LEN},
};

use crate::{
    checksum::{Sum32, fold},
    family::{Address, Family as _, V6, address4, word4},
    frame::{Context, Frame},
    maps::hash_id,
    transit::{Transit, unforeseen},
};

/// ChannelData over UDP may be padded to a multiple of four bytes (RFC 8656 section 12.5), not more.
const MAX_PADDING: u16 = 3;
/// The highest offset that a datagram can start at; it tells the verifier that sums of offsets are small.
const MOST_START: usize = 0x7f;
/// The highest offset that its data can start at: 118, behind all other attributes; all ones above.
const MOST_DATA: usize = 0x7f;
/// The attributes that a Send indication can have, each once.
const MAX_ATTRIBUTES: usize = 3;

/// Finds the data of ChannelData that starts at `start`, and returns its channel, as a wire word.
#[inline(always)]
pub(crate) fn channel_data(frame: &Frame, transit: &mut Transit, start: usize) -> Result<u16, Verdict> {
    let bytes: u32 = frame.load(start);
    let header = ChannelDataHeader::parse(bytes.to_ne_bytes());
    let all = transit.udp_length - (UDP_LEN + CHANNEL_DATA_LEN) as u16;
    let Some(padding @ 0..=MAX_PADDING) = all.checked_sub(header.length) else {
        return Err(Verdict::Malformed);
    };
    transit.data = (start + CHANNEL_DATA_LEN) as u64;
    transit.length = header.length;
    transit.sum = transit.sum.sub(word(header.channel)).sub(word(header.length));
    if padding != 0 {
        let sum = sum_padding(frame, start + CHANNEL_DATA_LEN + header.length as usize, padding)?;
        transit.sum = transit.sum.sub(sum.fold());
    }
    Ok(word(header.channel))
}

/// A peer in a Send indication.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    /// Its address.
    pub address: Address,
    /// Its port, as a wire word.
    pub port: u16,
    /// Its IP version; 0 while there is none.
    pub family: u8,
}

impl Peer {
    /// No peer yet.
    #[inline(always)]
    pub(crate) fn none() -> Self {
        Self { address: [unforeseen(0), unforeseen(0)], port: 0, family: 0 }
    }
}

/// Finds the data of a Send indication, and its peer. What is not as simple as they usually are is
/// [`Verdict::Control`]: for the daemon to look at.
#[inline(never)]
pub(crate) fn send_indication(context: Context, transit: &mut Transit, peer: &mut Peer) -> Result<(), Verdict> {
    let frame = Frame::of(context);
    let start = transit.data as usize & MOST_START;
    let message = frame.from(start);
    if !message.holds(STUN_LEN) {
        return Err(Verdict::Control);
    }
    let head: u32 = message.load(0);
    let [kind_high, kind_low, length_high, length_low] = head.to_ne_bytes();
    let length = u16::from_be_bytes([length_high, length_low]);
    if u16::from_be_bytes([kind_high, kind_low]) != SEND_INDICATION
        || message.load::<u32>(4) != MAGIC_COOKIE.to_be()
        || u32::from(transit.udp_length) != (UDP_LEN + STUN_LEN) as u32 + u32::from(length)
    {
        return Err(Verdict::Control);
    }
    let mask: [u64; 2] = [message.load(4), message.load(12)];
    let mut taken = Sum32::ZERO.add(head);
    for index in 1..STUN_LEN / 4 {
        taken = taken.add(message.load(4 * index));
    }

    let end = start + STUN_LEN + length as usize;
    let mut at = start + STUN_LEN;
    let mut data = 0;
    let mut odd_bytes = Sum::ZERO;
    let mut dont_fragment = false;
    for _ in 0..MAX_ATTRIBUTES {
        if at >= end {
            break;
        }
        let attribute = frame.from(at);
        if !attribute.holds(ATTRIBUTE_LEN) {
            return Err(Verdict::Control);
        }
        let head: u32 = attribute.load(0);
        let [kind_high, kind_low, length_high, length_low] = head.to_ne_bytes();
        let length = u16::from_be_bytes([length_high, length_low]);
        let padding = padding(length);
        taken = taken.add(head);
        match u16::from_be_bytes([kind_high, kind_low]) {
            XOR_PEER_ADDRESS if peer.family == 0 => {
                taken = taken.plus(xor_peer_address(&attribute, length, mask, peer)?)
            }
            DATA if data == 0 => {
                data = at + ATTRIBUTE_LEN;
                transit.length = length;
                if padding != 0 {
                    odd_bytes = sum_padding(&frame, data + length as usize, padding)?;
                }
            }
            DONT_FRAGMENT if length == 0 && !dont_fragment => dont_fragment = true,
            _ => return Err(Verdict::Control),
        }
        at += ATTRIBUTE_LEN + length as usize + padding as usize;
    }
    if at != end || data == 0 || peer.family == 0 || peer.port == 0 {
        return Err(Verdict::Control);
    }
    // The verifier takes this for news, and would follow the data to each place where it may be.
    transit.data = (data & MOST_DATA) as u64;
    // Here the client says what it wants, so its own packet's DF, or lack of one in IPv6, means nothing (RFC 8656 section
    // 11.2).
    transit.carried.dont_fragment = dont_fragment;
    transit.carried.from_ipv6 = false;
    transit.sum = transit.sum.sub(fold(taken)).sub(odd_bytes.fold());
    Ok(())
}

/// Reads the value of XOR-PEER-ADDRESS, and returns the sum of it. `mask` is the message's magic cookie and transaction
/// id.
#[inline(always)]
fn xor_peer_address(attribute: &Frame, length: u16, mask: [u64; 2], peer: &mut Peer) -> Result<Sum32, Verdict> {
    let value = ATTRIBUTE_LEN;
    if !attribute.holds(value + address_len(false)) {
        return Err(Verdict::Control);
    }
    let head: u32 = attribute.load(value);
    let [_, family, port_high, port_low] = head.to_ne_bytes();
    let [cookie_high, cookie_low, ..] = MAGIC_COOKIE.to_be_bytes();
    peer.port = u16::from_ne_bytes([port_high ^ cookie_high, port_low ^ cookie_low]);
    let sum = Sum32::ZERO.add(head);
    if family == FAMILY_IPV4 && length as usize == address_len(false) {
        let address: u32 = attribute.load(value + 4);
        peer.address = address4(address ^ MAGIC_COOKIE.to_be());
        peer.family = 4;
        Ok(sum.add(address))
    } else if family == FAMILY_IPV6
        && length as usize == address_len(true)
        && attribute.holds(value + address_len(true))
    {
        let address: Address = [attribute.load(value + 4), attribute.load(value + 12)];
        peer.address = [address[0] ^ mask[0], address[1] ^ mask[1]];
        peer.family = 6;
        Ok(sum.add_long(address[0]).add_long(address[1]))
    } else {
        Err(Verdict::Control)
    }
}

/// Sums up to three bytes. A byte at an odd place counts as the low half of its word; headers are of even length, so a
/// place in the frame is as odd as it is in the datagram.
#[inline(always)]
fn sum_padding(frame: &Frame, at: usize, padding: u16) -> Result<Sum, Verdict> {
    let mut sum = Sum::ZERO;
    for index in 0..MAX_PADDING {
        if index >= padding {
            break;
        }
        let place = at + index as usize;
        // Known to be there since the lengths were checked; the verifier cannot follow that.
        let byte: u8 = frame.byte_before(place).ok_or(Verdict::Malformed)?.load(1);
        sum = sum.add(u16::from_ne_bytes(if place & 1 == 0 { [byte, 0] } else { [0, byte] }));
    }
    Ok(sum)
}

/// Writes what stands before the data in a Data indication (RFC 8656 section 11.3), and returns the sum of it.
#[inline(always)]
pub(crate) fn write_indication(
    frame: &Frame,
    at: usize,
    transit: &Transit,
    message_length: u16,
) -> Result<u16, Verdict> {
    let is_ipv6 = transit.key.family() == V6::VERSION;
    let [first, second, third] = transaction_id(transit);
    let header = [
        attribute(DATA_INDICATION, message_length),
        MAGIC_COOKIE.to_be(),
        first,
        second,
        third,
        attribute(XOR_PEER_ADDRESS, address_len(is_ipv6) as u16),
    ];
    let mut sum = Sum32::ZERO;
    for (index, word) in header.into_iter().enumerate() {
        frame.store(at + 4 * index, word);
        sum = sum.add(word);
    }
    let value = at + STUN_LEN + ATTRIBUTE_LEN;
    let family = if is_ipv6 { FAMILY_IPV6 } else { FAMILY_IPV4 };
    let port = u16::from_be(transit.key.source_port()) ^ (MAGIC_COOKIE >> 16) as u16;
    let family_and_port = (u32::from(family) << 16 | u32::from(port)).to_be();
    frame.store(value, family_and_port);
    sum = sum.add(family_and_port);
    let address = transit.key.source();
    let data = attribute(DATA, transit.length);
    sum = sum.add(data);
    if is_ipv6 {
        if !frame.holds(at + data_indication_len(true)) {
            return Err(Verdict::Broken);
        }
        let mask: [u64; 2] = [frame.load(at + 4), frame.load(at + 12)];
        let masked = [address[0] ^ mask[0], address[1] ^ mask[1]];
        frame.store(value + 4, masked[0]);
        frame.store(value + 12, masked[1]);
        frame.store(value + address_len(true), data);
        sum = sum.add_long(masked[0]).add_long(masked[1]);
    } else {
        let masked = word4(&address) ^ MAGIC_COOKIE.to_be();
        frame.store(value + 4, masked);
        frame.store(value + address_len(false), data);
        sum = sum.add(masked);
    }
    Ok(fold(sum))
}

/// A transaction id that nobody can foresee: 32 random bits, and a seeded hash of them with what changes from packet to
/// packet. A second call of the kernel's generator would cost more.
#[inline(always)]
fn transaction_id(transit: &Transit) -> [u32; 3] {
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() };
    let packet = u64::from(random) << 32 | u64::from(transit.udp_checksum);
    let hash = hash_id([packet, transit.key.0[0], transit.key.0[4]]).mixed();
    [random, hash as u32, (hash >> 32) as u32]
}

/// The header of an attribute, or the first word of a message, as a word of the wire.
#[inline(always)]
pub(crate) fn attribute(kind: u16, length: u16) -> u32 {
    (u32::from(kind) << 16 | u32::from(length)).to_be()
}
