//! What differs between IPv4 and IPv6.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use hairpin_common::{
    verdict::Verdict,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP},
};

use crate::{
    checksum::{Sum32, fold},
    frame::Frame,
};

/// "Don't fragment" in the second 16-bit word of IPv4's fragmentation fields (RFC 791).
const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" and the offset: all zero in a packet that is not a fragment.
const FRAGMENT: u16 = 0x3fff;
/// IPv6's next header value of a fragment (RFC 8200 section 4.5).
const IPV6_FRAGMENT: u8 = 44;

/// An address as the words of a [`FlowKey`](hairpin_common::maps::FlowKey) have it: IPv4 in the first four bytes, the rest
/// zero.
pub(crate) type Address = [u64; 2];

/// What a relayed packet's IP header takes over from the received one (RFC 8656 sections 13 to 16).
///
/// One word: on the stack, the kernel allows no access that is not aligned.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct Carried {
    /// DSCP and ECN: IPv4's second byte, IPv6's traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit to send.
    pub hop_limit: u8,
    /// Whether an IPv4 packet is to leave with DF.
    pub dont_fragment: bool,
    /// Whether it came as IPv6, which routers never fragment.
    pub from_ipv6: bool,
}

/// An IP version.
pub(crate) trait Family {
    /// As in the first four bits of the header.
    const VERSION: u8;
    /// As in the Ethernet header.
    const ETHERTYPE: u16;
    /// Length of its header, in bytes.
    const HEADER_LEN: usize;

    /// Whether UDP follows directly, all of it.
    fn carries_whole_udp(frame: &Frame, layer3: usize) -> Result<(), Verdict>;

    /// Checks the rest of the header and reads what is to be taken over, with the hop limit as it was received; `None`
    /// when something does not fit.
    fn inherit(frame: &Frame, layer3: usize, udp_length: u16, udp_checksum: u16) -> Option<Carried>;

    /// Source and destination.
    fn addresses(frame: &Frame, layer3: usize) -> [Address; 2];

    /// Whether an address may be answered that nobody has vouched for: one host's, and not this one's.
    fn is_answerable(address: &Address) -> bool;

    /// Writes a header in front of `udp_length` bytes.
    fn write(frame: &Frame, layer3: usize, carried: Carried, udp_length: u16, addresses: [&Address; 2]);
}

/// IPv4 without options (RFC 791).
pub(crate) struct V4;

impl Family for V4 {
    const VERSION: u8 = 4;
    const ETHERTYPE: u16 = ETHERTYPE_IPV4;
    const HEADER_LEN: usize = IPV4_LEN;

    #[inline(always)]
    fn carries_whole_udp(frame: &Frame, layer3: usize) -> Result<(), Verdict> {
        let version_and_length = frame.load::<u8>(layer3);
        if frame.load::<u8>(layer3 + 9) != PROTOCOL_UDP || version_and_length >> 4 != Self::VERSION {
            return Err(Verdict::NotUdp);
        }
        if version_and_length & 0xf != (IPV4_LEN / 4) as u8 {
            return Err(Verdict::IpOptions);
        }
        if frame.load::<u16>(layer3 + 6) & FRAGMENT.to_be() != 0 {
            return Err(Verdict::Fragment);
        }
        Ok(())
    }

    #[inline(always)]
    fn inherit(frame: &Frame, layer3: usize, udp_length: u16, _: u16) -> Option<Carried> {
        let total_length = u16::from_be(frame.load(layer3 + 2));
        // The kernel drops a packet with a wrong header checksum, so it must not be repaired by a new one here.
        let mut sum = Sum32::ZERO;
        for word in 0..IPV4_LEN / 4 {
            sum = sum.add(frame.load(layer3 + 4 * word));
        }
        if u32::from(total_length) != IPV4_LEN as u32 + u32::from(udp_length) || fold(sum) != 0xffff {
            return None;
        }
        Some(Carried {
            traffic_class: frame.load(layer3 + 1),
            hop_limit: frame.load(layer3 + 8),
            dont_fragment: frame.load::<u16>(layer3 + 6) & DONT_FRAGMENT.to_be() != 0,
            from_ipv6: false,
        })
    }

    #[inline(always)]
    fn addresses(frame: &Frame, layer3: usize) -> [Address; 2] {
        [address4(frame.load(layer3 + 12)), address4(frame.load(layer3 + 16))]
    }

    #[inline(always)]
    fn is_answerable(address: &Address) -> bool {
        // Not of 0/8, 127/8, multicast or what is reserved behind it.
        let [first, ..] = address[0].to_ne_bytes();
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn write(frame: &Frame, layer3: usize, carried: Carried, udp_length: u16, addresses: [&Address; 2]) {
        let length = IPV4_LEN as u32 + u32::from(udp_length);
        // RFC 7915 section 5.1: a packet that IPv6 would not fragment is not fragmented here, unless it is so short that
        // no IPv6 link would have had to.
        let dont_fragment = carried.dont_fragment || carried.from_ipv6 && length > 1260;
        // RFC 6864: the identification of a packet that cannot be fragmented means nothing and is zero; any other needs
        // one that hardly repeats.
        let fragmentation = if dont_fragment {
            u32::from(DONT_FRAGMENT)
        } else {
            // SAFETY: the helper has no preconditions.
            unsafe { bpf_get_prandom_u32() << 16 }
        };
        let words = [
            (u32::from(Self::VERSION) << 28 | 5 << 24 | u32::from(carried.traffic_class) << 16 | length).to_be(),
            fragmentation.to_be(),
            (u32::from(carried.hop_limit) << 24 | u32::from(PROTOCOL_UDP) << 16).to_be(),
            word4(addresses[0]),
            word4(addresses[1]),
        ];
        let mut sum = Sum32::ZERO;
        for (index, word) in words.into_iter().enumerate() {
            frame.store(layer3 + 4 * index, word);
            sum = sum.add(word);
        }
        frame.store(layer3 + 10, !fold(sum));
    }
}

/// An IPv4 address from its word in a header.
#[inline(always)]
pub(crate) fn address4(word: u32) -> Address {
    [u64::from(word) << if cfg!(target_endian = "little") { 0 } else { 32 }, 0]
}

/// An IPv4 address as a word of a header.
#[inline(always)]
pub(crate) fn word4(address: &Address) -> u32 {
    (address[0] >> if cfg!(target_endian = "little") { 0 } else { 32 }) as u32
}

/// IPv6 without extension headers (RFC 8200).
pub(crate) struct V6;

impl Family for V6 {
    const VERSION: u8 = 6;
    const ETHERTYPE: u16 = ETHERTYPE_IPV6;
    const HEADER_LEN: usize = IPV6_LEN;

    #[inline(always)]
    fn carries_whole_udp(frame: &Frame, layer3: usize) -> Result<(), Verdict> {
        let next_header = frame.load::<u8>(layer3 + 6);
        if next_header == IPV6_FRAGMENT {
            return Err(Verdict::Fragment);
        }
        if next_header != PROTOCOL_UDP || frame.load::<u8>(layer3) >> 4 != Self::VERSION {
            return Err(Verdict::NotUdp);
        }
        Ok(())
    }

    #[inline(always)]
    fn inherit(frame: &Frame, layer3: usize, udp_length: u16, udp_checksum: u16) -> Option<Carried> {
        let payload_length = u16::from_be(frame.load(layer3 + 4));
        // RFC 8200 section 8.1: over IPv6 a UDP checksum is not optional.
        if payload_length != udp_length || udp_checksum == 0 {
            return None;
        }
        let first = u16::from_be(frame.load(layer3));
        Some(Carried {
            traffic_class: (first >> 4) as u8,
            hop_limit: frame.load(layer3 + 7),
            dont_fragment: false,
            from_ipv6: true,
        })
    }

    #[inline(always)]
    fn addresses(frame: &Frame, layer3: usize) -> [Address; 2] {
        [[frame.load(layer3 + 8), frame.load(layer3 + 16)], [frame.load(layer3 + 24), frame.load(layer3 + 32)]]
    }

    #[inline(always)]
    fn is_answerable(address: &Address) -> bool {
        // Global unicast 2000::/3 and unique local fc00::/7; the rest is a link's, a group's, or nobody's.
        let [first, ..] = address[0].to_ne_bytes();
        first >> 5 == 1 || first >> 1 == 0x7e
    }

    #[inline(always)]
    fn write(frame: &Frame, layer3: usize, carried: Carried, udp_length: u16, addresses: [&Address; 2]) {
        // RFC 8656 section 14 lets a relay set the flow label to zero: it is not the same flow any more.
        frame.store(layer3, (u32::from(Self::VERSION) << 28 | u32::from(carried.traffic_class) << 20).to_be());
        let rest = u32::from(udp_length) << 16 | u32::from(PROTOCOL_UDP) << 8 | u32::from(carried.hop_limit);
        frame.store(layer3 + 4, rest.to_be());
        for (index, address) in addresses.into_iter().enumerate() {
            frame.store(layer3 + 8 + 16 * index, address[0]);
            frame.store(layer3 + 16 + 16 * index, address[1]);
        }
    }
}
