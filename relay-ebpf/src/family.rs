//! What differs between IPv4 and IPv6.
//!
//! Addresses are moved as whole words: an array of bytes would be copied byte by byte.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use hairpin_common::{
    maps::FlowKey,
    slot::{Order, Slot},
    verdict::Verdict,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LEN, IPV6_LEN, PROTOCOL_UDP},
};

use crate::{
    checksum::{Sum32, fold},
    frame::Frame,
    maps::{FLOWS4, FLOWS6},
};

/// "Don't fragment" in the second 16-bit word of IPv4's fragmentation fields (RFC 791).
const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" and the offset: all zero in a packet that is not a fragment.
const FRAGMENT: u16 = 0x3fff;
/// IPv6's next header value of a fragment (RFC 8200 section 4.5).
const IPV6_FRAGMENT: u8 = 44;

/// What a relayed packet's IP header takes over from the received one (RFC 8656 sections 13 to 16).
#[derive(Clone, Copy)]
pub(crate) struct Carried {
    /// DSCP and ECN: IPv4's second byte, IPv6's traffic class.
    pub traffic_class: u8,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// IPv4's DF bit; always set for IPv6, which routers never fragment.
    pub dont_fragment: bool,
}

/// An IP version.
pub(crate) trait Family {
    /// Its [`FlowKey`], in 64-bit words.
    type Key;
    /// Its [`Slot`].
    type Slot;
    /// Source and destination address, as on the wire.
    type Addresses: Copy;
    /// As in the first four bits of the header.
    const VERSION: u8;
    /// As in the Ethernet header.
    const ETHERTYPE: u16;
    /// Length of its header, in bytes.
    const HEADER_LEN: usize;

    /// Whether UDP follows directly, all of it.
    fn carries_whole_udp(frame: &Frame, layer3: usize) -> Result<(), Verdict>;

    /// Checks the rest of the header and reads what is to be taken over; `None` when something does not fit.
    fn inherit(frame: &Frame, layer3: usize, udp_length: u16, udp_checksum: u16) -> Option<Carried>;

    /// The key for what was received; `channel` is a wire word.
    fn key(frame: &Frame, layer3: usize, channel: u16) -> Self::Key;

    /// The words of a key.
    fn words(key: &Self::Key) -> &[u64];

    /// The first slot of a bucket, of which there are [`BUCKET_SLOTS`](hairpin_common::slot::BUCKET_SLOTS); their memory
    /// may change at any time.
    fn bucket(index: u32) -> Option<*const Self::Slot>;

    /// The part of a slot that all IP versions share.
    ///
    /// # Safety
    ///
    /// The pointer is to a slot.
    unsafe fn order(slot: *const Self::Slot) -> *const Order;

    /// Whether a slot holds this key now.
    ///
    /// # Safety
    ///
    /// The pointer is to a slot.
    unsafe fn is_at(key: &Self::Key, slot: *const Self::Slot) -> bool;

    /// Reads the addresses to send with.
    ///
    /// # Safety
    ///
    /// The pointer is to a slot.
    unsafe fn addresses(slot: *const Self::Slot) -> Self::Addresses;

    /// Writes a header in front of `udp_length` bytes.
    fn write(frame: &Frame, layer3: usize, carried: &Carried, udp_length: u16, addresses: Self::Addresses);
}

/// The last word of a key: ports as they stand in the packet, channel, zero.
#[inline(always)]
fn ports_and_channel(ports: u32, channel: u16) -> u64 {
    let low = if cfg!(target_endian = "little") { [0, 32] } else { [32, 16] };
    u64::from(ports) << low[0] | u64::from(channel) << low[1]
}

/// Whether a key stands at this place. All words are read before the answer, which makes one jump of it.
///
/// # Safety
///
/// As many words can be read there.
#[inline(always)]
unsafe fn is_equal<const WORDS: usize>(key: &[u64; WORDS], place: *const u64) -> bool {
    let mut difference = 0;
    for (index, word) in key.iter().enumerate() {
        // SAFETY: by contract.
        difference |= word ^ unsafe { place.add(index).read_volatile() };
    }
    difference == 0
}

/// IPv4 without options (RFC 791).
pub(crate) struct V4;

impl Family for V4 {
    type Key = [u64; size_of::<FlowKey<4>>() / 8];
    type Slot = Slot<4>;
    type Addresses = [u32; 2];
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
        })
    }

    #[inline(always)]
    fn key(frame: &Frame, layer3: usize, channel: u16) -> Self::Key {
        // Both addresses, then both ports: the end of the IP header and the start of the UDP header.
        [frame.load(layer3 + 12), ports_and_channel(frame.load(layer3 + 20), channel)]
    }

    #[inline(always)]
    fn words(key: &Self::Key) -> &[u64] {
        key
    }

    #[inline(always)]
    fn bucket(index: u32) -> Option<*const Self::Slot> {
        FLOWS4.get_ptr(index).map(|bucket| bucket.cast())
    }

    #[inline(always)]
    unsafe fn order(slot: *const Self::Slot) -> *const Order {
        // SAFETY: by contract.
        unsafe { &raw const (*slot).order }
    }

    #[inline(always)]
    unsafe fn is_at(key: &Self::Key, slot: *const Self::Slot) -> bool {
        // SAFETY: by contract; the key is the first of a slot and as long as ours.
        unsafe { is_equal(key, slot.cast()) }
    }

    #[inline(always)]
    unsafe fn addresses(slot: *const Self::Slot) -> Self::Addresses {
        // SAFETY: by contract; both fields are aligned for it.
        unsafe {
            [(&raw const (*slot).source).cast::<u32>(), (&raw const (*slot).destination).cast::<u32>()]
                .map(|word| word.read_volatile())
        }
    }

    #[inline(always)]
    fn write(frame: &Frame, layer3: usize, carried: &Carried, udp_length: u16, addresses: Self::Addresses) {
        let length = IPV4_LEN as u32 + u32::from(udp_length);
        // RFC 6864: the identification of a packet that cannot be fragmented means nothing and is zero; any other needs
        // one that hardly repeats.
        let fragmentation = if carried.dont_fragment {
            u32::from(DONT_FRAGMENT)
        } else {
            // SAFETY: the helper has no preconditions.
            unsafe { bpf_get_prandom_u32() << 16 }
        };
        let words = [
            (u32::from(Self::VERSION) << 28 | 5 << 24 | u32::from(carried.traffic_class) << 16 | length).to_be(),
            fragmentation.to_be(),
            (u32::from(carried.hop_limit - 1) << 24 | u32::from(PROTOCOL_UDP) << 16).to_be(),
            addresses[0],
            addresses[1],
        ];
        let mut sum = Sum32::ZERO;
        for (index, word) in words.into_iter().enumerate() {
            frame.store(layer3 + 4 * index, word);
            sum = sum.add(word);
        }
        frame.store(layer3 + 10, !fold(sum));
    }
}

/// IPv6 without extension headers (RFC 8200).
pub(crate) struct V6;

impl Family for V6 {
    type Key = [u64; size_of::<FlowKey<16>>() / 8];
    type Slot = Slot<16>;
    type Addresses = [u64; 4];
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
        Some(Carried { traffic_class: (first >> 4) as u8, hop_limit: frame.load(layer3 + 7), dont_fragment: true })
    }

    #[inline(always)]
    fn key(frame: &Frame, layer3: usize, channel: u16) -> Self::Key {
        [
            frame.load(layer3 + 8),
            frame.load(layer3 + 16),
            frame.load(layer3 + 24),
            frame.load(layer3 + 32),
            ports_and_channel(frame.load(layer3 + 40), channel),
        ]
    }

    #[inline(always)]
    fn words(key: &Self::Key) -> &[u64] {
        key
    }

    #[inline(always)]
    fn bucket(index: u32) -> Option<*const Self::Slot> {
        FLOWS6.get_ptr(index).map(|bucket| bucket.cast())
    }

    #[inline(always)]
    unsafe fn order(slot: *const Self::Slot) -> *const Order {
        // SAFETY: by contract.
        unsafe { &raw const (*slot).order }
    }

    #[inline(always)]
    unsafe fn is_at(key: &Self::Key, slot: *const Self::Slot) -> bool {
        // SAFETY: by contract; the key is the first of a slot and as long as ours.
        unsafe { is_equal(key, slot.cast()) }
    }

    #[inline(always)]
    unsafe fn addresses(slot: *const Self::Slot) -> Self::Addresses {
        // SAFETY: by contract; both fields are aligned for it.
        unsafe {
            let source = (&raw const (*slot).source).cast::<u64>();
            let destination = (&raw const (*slot).destination).cast::<u64>();
            [source, source.add(1), destination, destination.add(1)].map(|word| word.read_volatile())
        }
    }

    #[inline(always)]
    fn write(frame: &Frame, layer3: usize, carried: &Carried, udp_length: u16, addresses: Self::Addresses) {
        // RFC 8656 section 14 lets a relay set the flow label to zero: it is not the same flow any more.
        frame.store(layer3, (u32::from(Self::VERSION) << 28 | u32::from(carried.traffic_class) << 20).to_be());
        let rest = u32::from(udp_length) << 16 | u32::from(PROTOCOL_UDP) << 8 | u32::from(carried.hop_limit - 1);
        frame.store(layer3 + 4, rest.to_be());
        for (index, word) in addresses.into_iter().enumerate() {
            frame.store(layer3 + 8 + 8 * index, word);
        }
    }
}
