//! Keys and values of the BPF maps: the ABI between the daemon, which writes them, and the program, which reads them.
//!
//! All addresses, ports and channel numbers are big-endian byte arrays as they stand in the packet. No type has padding.
//! The program is embedded in the daemon that loads it, so both are always of one version.

use crate::{
    checksum::Sum,
    limit::{Meter, PackedLimit},
};

/// Name of the array of [`Bucket`](crate::slot::Bucket)s.
pub const FLOWS: &str = "FLOWS";
/// Name of the array of [`Tags`](crate::tags::Tags), one for each of the buckets.
pub const TAGS: &str = "TAGS";
/// Name of the array of packed [`PortRole`]s, see [`PortSlot`].
pub const PORT_ROLES: &str = "PORT_ROLES";
/// Name of the array of [`NextHop`]s.
pub const NEXT_HOPS: &str = "NEXT_HOPS";
/// Name of the hash from [`Link`] to [`LinkAddress`]: the links whose packets are ours.
pub const LINKS: &str = "LINKS";
/// Name of the device map (`BPF_MAP_TYPE_DEVMAP_HASH`) of the interfaces that packets may be redirected to, by index.
pub const DEVICES: &str = "DEVICES";
/// Name of the per-CPU array of [`Count`]s by verdict.
pub const VERDICTS: &str = "VERDICTS";
/// Name of the array of [`AllocationCount`]s: for each CPU a row of them by [`Rewrite::allocation`].
pub const ALLOCATIONS: &str = "ALLOCATIONS";
/// Name of the array of [`AllocationState`]s by [`Rewrite::allocation`].
pub const ALLOCATION_STATES: &str = "ALLOCATION_STATES";
/// Name of the array of [`Meter`]s of sources: [`SOURCE_METERS`] of them.
pub const SOURCES: &str = "SOURCES";
/// Name of the array of [`RelayAddress`]es.
pub const RELAY_ADDRESSES: &str = "RELAY_ADDRESSES";
/// Name of the array with one [`RelayState`].
pub const RELAY_STATE: &str = "RELAY_STATE";

/// How many next hops there can be. Index 0 is never valid.
pub const NEXT_HOP_CAPACITY: u32 = 1024;
/// How many addresses of relayed addresses there can be: an index is one byte. Index 0 is never valid.
pub const RELAY_ADDRESS_CAPACITY: u32 = 1 << 8;
/// How many links packets can come in by.
pub const LINK_CAPACITY: u32 = 1024;
/// How many meters there are for sources of unauthenticated traffic. A source is not stored: its hash tells the meter.
pub const SOURCE_METERS: u32 = 1 << 16;

/// What arrives is looked up by this.
///
/// | record | source | destination | channel |
/// |---|---|---|---|
/// | channel, from the client | client | server | its number |
/// | channel, from the peer | peer | relayed address | 0 |
/// | media | remote of a leg | local address of that leg | 0 |
/// | permission | peer, port 0 | relayed address | 0 |
/// | Send indications | client | server | IP version of the peer, 4 or 6 |
/// | a relayed address | all zero | relayed address | 0 |
/// | a listener | all zero | server | 0 |
/// | a client that is vouched for | client | server | [`VOUCHED`] |
///
/// Local addresses of legs and relayed addresses are sockets of one pool of ports, so that no address is ever both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Source address of the packet: IPv4 in the first four bytes, the rest zero.
    pub source: [u8; 16],
    /// Destination address of the packet, likewise.
    pub destination: [u8; 16],
    /// UDP source port.
    pub source_port: [u8; 2],
    /// UDP destination port.
    pub destination_port: [u8; 2],
    /// Channel number of ChannelData, or what the table says.
    pub channel: [u8; 2],
    /// IP version of the packet: 4 or 6.
    pub family: u8,
    /// Always zero: fills the key up to whole 64-bit words.
    pub zero: u8,
}

/// [`FlowKey::channel`] of the record that says of a client only that it is none of the strangers: what it sends goes up to
/// the daemon, unmetered. It belongs to no allocation.
pub const VOUCHED: u16 = 1;

impl FlowKey {
    /// The key as it is in memory, in 64-bit words.
    pub fn words(&self) -> [u64; 5] {
        let mut words = [0_u64; 5];
        let last = [self.family, self.zero];
        let parts =
            [&self.source[..], &self.destination, &self.source_port, &self.destination_port, &self.channel, &last];
        for (index, byte) in parts.into_iter().flatten().enumerate() {
            let mut bytes = words[index / 8].to_ne_bytes();
            bytes[index % 8] = *byte;
            words[index / 8] = u64::from_ne_bytes(bytes);
        }
        words
    }
}

/// A finished rewrite record: all that the program needs to send a packet on. In the kernel it is part of a
/// [`Slot`](crate::slot::Slot).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The first [`tick`] at which the record is no longer valid.
    pub expires: u32,
    /// Index of the counters and state of the allocation, or of the media path: these are behind all allocations.
    pub allocation: u32,
    /// Source address to send from; IPv4 in the first four bytes, the rest zero.
    pub source: [u8; 16],
    /// Destination address to send to; IPv4 in the first four bytes, the rest zero. Zero for Send indications, which
    /// bring their own.
    pub destination: [u8; 16],
    /// UDP source port to send from.
    pub source_port: [u8; 2],
    /// UDP destination port to send to.
    pub destination_port: [u8; 2],
    /// Channel to wrap the payload in. 0 to a peer and of [`MEDIA`], who get it plain, and to the client of a permission
    /// without a channel, which gets a Data indication.
    pub channel: [u8; 2],
    /// Wire word of the difference that addresses and ports make to the UDP checksum, see [`flow_delta`]. A part that the
    /// record does not know (the port of a permission's peer, the peer of a Send indication) is left out.
    pub delta: [u8; 2],
    /// Index of the [`NextHop`] to `destination`.
    pub next_hop: u16,
    /// Of a permission, index of the [`NextHop`] to the peer, or its [`crossing`] where there is none, because the peer is
    /// another client of this relay; else 0.
    pub peer_next_hop: u16,
    /// IP version to send: 4 or 6.
    pub family: u8,
    /// See [`PEER_IS_RELAYED`], [`MEDIA`] and [`MEDIA_TO_PEER`].
    pub flags: u8,
}

/// [`Rewrite::allocation`] of the records of listeners, and of clients that are vouched for, which belong to none.
pub const NO_ALLOCATION: u32 = u32::MAX;

/// Set in [`Rewrite::flags`] of the records of a peer whose IP address relayed addresses of this relay are made of.
/// Towards it, the packet may be translated a second time, as if it had arrived there; from it, no packet comes by a
/// wire that is not forged.
pub const PEER_IS_RELAYED: u8 = 1;

/// Set in [`Rewrite::flags`] of the records of a media path: what arrives at a leg leaves from another as it is. Only STUN
/// does not (see [`Datagram::Stun`](crate::wire::Datagram)), nor what has no payload to tell: they are for the daemon.
pub const MEDIA: u8 = 2;

/// Set beside [`MEDIA`] in the record of a path that counts as to a peer; without it, it counts as to a client. Of the two
/// legs that a path joins, only the one that this record leads to may have a peer that is [relayed](PEER_IS_RELAYED).
pub const MEDIA_TO_PEER: u8 = 4;

/// Behind a 1:1 NAT, what [`Rewrite::peer_next_hop`] of a permission for one of the relay's own addresses is: the indices
/// of the [`RelayAddress`] that data goes out from, and of the one that it goes to. 0 where neither is translated.
#[inline(always)]
pub const fn crossing(relayed: u8, peer: u8) -> u16 {
    u16::from_ne_bytes([relayed, peer])
}

/// Both indices of a [`crossing`].
#[inline(always)]
pub const fn crossed(crossing: u16) -> [u8; 2] {
    crossing.to_ne_bytes()
}

/// What [`Rewrite::delta`] is made of: the checksum's difference between what arrives and what leaves.
///
/// `taken` and `put` hold source address, destination address and ports of either packet. Addresses may be of different
/// families, since the pseudo headers differ only by them.
pub fn flow_delta(taken: [&[u8]; 4], put: [&[u8]; 4]) -> [u8; 2] {
    let mut sum = Sum::ZERO;
    for bytes in taken {
        sum = sum.sub_bytes(bytes);
    }
    for bytes in put {
        sum = sum.add_bytes(bytes);
    }
    sum.fold().to_ne_bytes()
}

/// The coarse clock of record expiry: 2^27 ns (about 134 ms) of `CLOCK_MONOTONIC` make one tick.
#[inline(always)]
pub const fn tick(monotonic_ns: u64) -> u32 {
    (monotonic_ns >> 27) as u32
}

/// What a local UDP port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortRole {
    /// Not ours: the program passes everything that is sent to it.
    None = 0,
    /// A port where clients reach the server.
    Listener = 1,
    /// The port of a relayed transport address with a live allocation.
    Relayed = 2,
}

/// Where the role of a port stands in the array [`PORT_ROLES`]: two bits a port, 32 ports in each 64-bit entry, so that
/// all of them fit in 16 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSlot {
    /// Index of the array entry.
    pub index: u32,
    shift: u32,
}

impl PortSlot {
    /// How many entries the array has.
    pub const ENTRIES: u32 = 65_536 / 32;

    /// The place of a port.
    #[inline(always)]
    pub const fn of(port: u16) -> Self {
        Self { index: port as u32 >> 5, shift: (port as u32 & 31) * 2 }
    }

    /// Reads the role out of its entry.
    #[inline(always)]
    pub const fn role(self, entry: u64) -> PortRole {
        match (entry >> self.shift) & 3 {
            1 => PortRole::Listener,
            2 => PortRole::Relayed,
            _ => PortRole::None,
        }
    }

    /// The entry with this port's role replaced.
    #[must_use]
    pub const fn with_role(self, entry: u64, role: PortRole) -> u64 {
        (entry & !(3 << self.shift)) | ((role as u64) << self.shift)
    }
}

/// How to reach the next hop on its link. Many records share one entry, so that a changed neighbour is one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NextHop {
    /// Index of the physical interface to send from; 0 while the entry is not valid.
    pub interface: u32,
    /// Largest IP packet the link takes, in bytes.
    pub mtu: u32,
    /// The next hop's link-layer address.
    pub destination: [u8; 6],
    /// The interface's own link-layer address.
    pub source: [u8; 6],
    /// IEEE 802.1Q VLAN id as in the tag, 0 for none.
    pub vlan: [u8; 2],
    /// Always zero.
    pub zero: [u8; 2],
}

/// An address that relayed addresses are made of. Both are of one family, IPv4 in the first four bytes, the rest zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct RelayAddress {
    /// What sockets are bound to, and packets arrive at.
    pub bind: [u8; 16],
    /// What everybody else knows it by: another one behind a 1:1 NAT, else the same.
    pub public: [u8; 16],
}

/// Packets, and bytes of application data in them (payload without UDP, ChannelData or STUN framing).
///
/// For verdicts that pass or drop, `bytes` is the length of the frame; for those of limits on data, as it would have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// What the program relayed for one allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AllocationCount {
    /// From the client to its peers.
    pub to_peer: Count,
    /// From peers to the client.
    pub to_client: Count,
}

/// What the daemon and the program share about one allocation, in a cache line of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct AllocationState {
    /// Number of the last change that a shard has announced for the allocation's flows.
    pub announced: u32,
    /// Number of the last change up to which all are in the kernel. Only while both are equal does the kernel know every
    /// permission, and may drop what has none.
    pub installed: u32,
    /// How much was sent to peers.
    pub to_peer: Pace,
    /// How much was sent to the client.
    pub to_client: Pace,
    /// Datagrams in each direction, instead of the general limit.
    pub own_packets: PackedLimit,
    /// Bytes of application data in each direction, instead of the general limit.
    pub own_bytes: PackedLimit,
    /// Always zero: fills the line.
    pub zero: u64,
}

/// What limits a direction of an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pace {
    /// By number of datagrams.
    pub packets: Meter,
    /// By application data.
    pub bytes: Meter,
}

/// What all allocations share, in two cache lines: what packets change, and what only the daemon does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct RelayState {
    /// Application data that is relayed, both ways and on both paths.
    pub bytes: Meter,
    /// Datagrams without an allocation that reach the daemon.
    pub control: Meter,
    /// How many allocations are not in the kernel, for lack of room. As long as there is one, the program takes nobody for
    /// a stranger.
    pub hidden: u64,
    /// Always zero: fills the line.
    pub zero: [u64; 5],
    /// The limits, which the daemon may exchange at any time, one by one.
    pub limits: PackedLimits,
}

/// Limits of rate, each a word of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct PackedLimits {
    /// Datagrams of one allocation, in each direction.
    pub allocation_packets: PackedLimit,
    /// Bytes of application data of one allocation, in each direction.
    pub allocation_bytes: PackedLimit,
    /// Bytes of application data of all allocations, in both directions.
    pub relay_bytes: PackedLimit,
    /// Datagrams to listeners of one source without an allocation.
    pub source_packets: PackedLimit,
    /// Datagrams to listeners of all sources without an allocation that go up to the daemon.
    pub control_packets: PackedLimit,
    /// How many allocations have a limit of their own, in their [`AllocationState`]. While there is none, nobody looks
    /// there for one.
    pub owners: u64,
    /// Always zero: fills the line.
    pub zero: [u64; 2],
}

/// Where a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Link {
    /// Index of the interface.
    pub interface: u32,
    /// IEEE 802.1Q VLAN id as in the tag, 0 for none.
    pub vlan: [u8; 2],
    /// Always zero.
    pub zero: [u8; 2],
}

/// The address that packets for this host have on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinkAddress {
    /// The link-layer address.
    pub address: [u8; 6],
    /// Always zero.
    pub zero: [u8; 2],
}

const _: () = {
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<NextHop>() == 24);
    assert!(size_of::<RelayAddress>() == 32);
    assert!(size_of::<Link>() == 8 && size_of::<LinkAddress>() == 8);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<AllocationCount>() == 32);
    assert!(size_of::<AllocationState>() == 64 && size_of::<RelayState>() == 128);
    assert!(core::mem::offset_of!(RelayState, limits) == 64);
};

#[cfg(feature = "pod")]
#[allow(unsafe_code, reason = "the map ABI: plain bytes without padding or invalid values, sizes asserted above")]
mod pod {
    use super::{AllocationCount, AllocationState, Count, Link, LinkAddress, NextHop, RelayAddress, RelayState};
    use crate::{limit::Meter, slot::Bucket};

    unsafe impl aya::Pod for Bucket {}
    unsafe impl aya::Pod for AllocationCount {}
    unsafe impl aya::Pod for AllocationState {}
    unsafe impl aya::Pod for RelayState {}
    unsafe impl aya::Pod for Meter {}
    unsafe impl aya::Pod for Link {}
    unsafe impl aya::Pod for LinkAddress {}
    unsafe impl aya::Pod for NextHop {}
    unsafe impl aya::Pod for RelayAddress {}
    unsafe impl aya::Pod for Count {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_roles_do_not_touch_their_neighbours() {
        for port in [0, 1, 31, 32, 3478, 65_535_u16] {
            let slot = PortSlot::of(port);
            assert!(slot.index < PortSlot::ENTRIES);
            for before in [0, u64::MAX] {
                let entry = slot.with_role(before, PortRole::Relayed);
                assert_eq!(slot.role(entry), PortRole::Relayed);
                let cleared = slot.with_role(entry, PortRole::None);
                assert_eq!(slot.role(cleared), PortRole::None);
                assert_eq!(slot.with_role(cleared, PortRole::None), slot.with_role(before, PortRole::None));
            }
        }
    }
}
