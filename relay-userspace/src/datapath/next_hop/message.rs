//! Between rtnetlink messages and what this module speaks of. Pure: the sockets are in [`super::netlink`].

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoPortKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage, LinkXdp, Prop, VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::rib::{Link, LinkKind, LocalAddress, Medium, Neighbour, Route};

/// The kernel's multicast groups to listen to (`RTNLGRP_*` in linux/rtnetlink.h).
///
/// Rules and nexthop objects change routes without a route event of their own.
pub(super) const GROUPS: [u32; 9] = [
    1,  // LINK
    3,  // NEIGH
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    8,  // IPV4_RULE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    19, // IPV6_RULE
    32, // NEXTHOP
];

/// What a message of one of those groups means here.
///
/// It is only a hint to ask again. Events queue up, so what they say can be older than an answer that was had since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::datapath) enum Event {
    /// Something about this neighbour changed.
    Neighbour {
        /// Index of the device.
        interface: u32,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// A device came, went, or changed.
    Link,
    /// An address of this host came or went.
    Address,
    /// A route, a rule, or something unknown changed.
    Route,
}

/// What to ask about the route of a packet from `source` to `destination`.
pub(super) fn route_request(source: IpAddr, destination: IpAddr) -> RouteNetlinkMessage {
    let prefix = if destination.is_ipv4() { 32 } else { 128 };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(destination),
        destination_prefix_length: prefix,
        source_prefix_length: prefix,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(destination.into()), RouteAttribute::Source(source.into())];
    RouteNetlinkMessage::GetRoute(message)
}

/// What to ask for all routes of one address family.
pub(super) fn routes_request(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    RouteNetlinkMessage::GetRoute(message)
}

/// What to ask about a device. Its statistics would be most of the answer, so they are left out.
pub(super) fn link_request(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// What to ask for all devices.
pub(super) fn links_request() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// What to ask for all addresses of this host.
pub(super) fn addresses_request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// What to ask about a neighbour.
pub(super) fn neighbour_request(interface: u32, address: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(neighbour_message(interface, address))
}

/// What to say when a neighbour is being used: `NTF_USE`, with the marks the entry already has, which a message without
/// them would take away.
pub(super) fn neighbour_use(interface: u32, address: IpAddr, known: Option<Neighbour>) -> RouteNetlinkMessage {
    let mut message = neighbour_message(interface, address);
    message.header.flags = NeighbourFlags::Use;
    if known.is_some_and(|known| known.is_externally_learned) {
        message.header.flags |= NeighbourFlags::ExtLearned;
    }
    RouteNetlinkMessage::NewNeighbour(message)
}

fn neighbour_message(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The route in an answer; `None` for one that does not simply lead to a gateway or link.
pub(super) fn route(message: &RouteMessage, destination: IpAddr) -> Option<Route> {
    let usable = message.header.kind == RouteType::Unicast
        && !message.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    if !usable {
        return None;
    }
    let mut interface = None;
    let mut neighbour = destination;
    let mut mtu = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) | RouteAttribute::Via(RouteVia::Inet(gateway)) => {
                neighbour = IpAddr::V4(*gateway);
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) | RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                neighbour = IpAddr::V6(*gateway);
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            // A light-weight tunnel: the kernel would wrap the packet.
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some(Route { interface: interface?, neighbour, mtu })
}

/// The devices of a default route in the main table and its metric (less is preferred); `None` for any other route.
pub(super) fn default_route(message: &RouteMessage) -> Option<(u32, Vec<u32>)> {
    let is_default = message.header.kind == RouteType::Unicast
        && message.header.destination_prefix_length == 0
        && message.header.table == RouteHeader::RT_TABLE_MAIN;
    if !is_default {
        return None;
    }
    let mut metric = 0;
    let mut interfaces = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    Some((metric, interfaces))
}

/// The device in an answer.
pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        names: Vec::new(),
        mtu: 0,
        address: None,
        kind: LinkKind::Plain,
        is_up: message.header.flags.contains(LinkFlags::Up),
        medium: Medium::Wire,
        is_in_vrf: false,
        programs: Vec::new(),
    };
    let mut parent = None;
    let mut elsewhere = false;
    let mut vlan = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.names.insert(0, name.clone()),
            LinkAttribute::PropList(properties) => {
                link.names.extend(properties.iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                }));
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.address = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                vlan = vlan.or_else(|| vlan_of(infos));
                if infos.contains(&LinkInfo::Kind(InfoKind::Veth)) {
                    link.medium = Medium::Veth;
                } else if infos.contains(&LinkInfo::Kind(InfoKind::Dummy)) {
                    link.medium = Medium::Nowhere;
                }
                link.is_in_vrf |= infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf));
            }
            LinkAttribute::Xdp(attributes) => {
                link.programs = attributes
                    .iter()
                    .filter_map(|attribute| match attribute {
                        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
                        _ => None,
                    })
                    .collect();
            }
            _ => {}
        }
    }
    if message.header.flags.contains(LinkFlags::Loopback) {
        link.medium = Medium::Nowhere;
    }
    let speaks_arp = message.header.link_layer_type == LinkLayerType::Ether
        && !message.header.flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback);
    if !speaks_arp {
        link.address = None;
    }
    link.kind = match (vlan, parent) {
        (None, _) => LinkKind::Plain,
        (Some((id, VlanProtocol::Ieee8021Q)), Some(parent)) if !elsewhere => LinkKind::Vlan { parent, id },
        _ => LinkKind::Unsupported,
    };
    link
}

fn vlan_of(infos: &[LinkInfo]) -> Option<(u16, VlanProtocol)> {
    infos.iter().find_map(|info| {
        let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
        let id = attributes.iter().find_map(|attribute| match attribute {
            InfoVlan::Id(id) => Some(*id),
            _ => None,
        })?;
        let protocol = attributes.iter().find_map(|attribute| match attribute {
            InfoVlan::Protocol(protocol) => Some(*protocol),
            _ => None,
        });
        Some((id, protocol.unwrap_or_default()))
    })
}

/// The address in an answer, if what is sent to it from elsewhere reaches this host's sockets. A link-local address does,
/// but means another host on another link; one that is not known to be unique does not yet.
pub(super) fn local_address(message: &AddressMessage) -> Option<LocalAddress> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut own, mut prefix) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link, the other attribute is the address of the other end.
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = own.or(prefix)?;
    let is_usable = flags.contains(AddressFlags::Optimistic)
        || !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    let is_elsewhere = match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    (is_usable && is_elsewhere && !address.is_unspecified() && !address.is_multicast())
        .then_some(LocalAddress { interface: message.header.index, address })
}

/// The neighbour in an answer.
pub(super) fn neighbour(message: &NeighbourMessage) -> Neighbour {
    let is_resolved = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let mut neighbour = Neighbour {
        address: None,
        is_kept: message.header.state == NeighbourState::Permanent,
        is_externally_learned: message.header.flags.contains(NeighbourFlags::ExtLearned),
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) if is_resolved => {
                neighbour.address = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            NeighbourAttribute::ExtFlags(flags) => {
                neighbour.is_kept |= flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    neighbour
}

/// What a message of the multicast groups means; a kind of message that is not known can only be about routes.
pub(super) fn event(message: Option<&RouteNetlinkMessage>) -> Option<Event> {
    match message {
        Some(RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message)) => {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
                _ => None,
            });
            // Without an address it is an entry of a bridge's forwarding table.
            address.map(|address| Event::Neighbour { interface: message.header.ifindex, address })
        }
        Some(RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_)) => Some(Event::Link),
        Some(RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_)) => Some(Event::Address),
        _ => Some(Event::Route),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

    fn unicast(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    fn gateway(text: &str) -> RouteAttribute {
        RouteAttribute::Gateway(text.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn the_neighbour_is_the_gateway_or_the_destination_itself() {
        let on_link = unicast(vec![RouteAttribute::Oif(2)]);
        assert_eq!(route(&on_link, PEER), Some(Route { interface: 2, neighbour: PEER, mtu: None }));

        let behind = unicast(vec![RouteAttribute::Oif(2), gateway("192.0.2.254")]);
        assert_eq!(route(&behind, PEER).unwrap().neighbour.to_string(), "192.0.2.254");

        // RFC 5549: IPv4 behind an IPv6 gateway.
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        let behind = unicast(vec![RouteAttribute::Oif(2), via]);
        assert_eq!(route(&behind, PEER).unwrap().neighbour.to_string(), "fe80::1");
    }

    #[test]
    fn the_mtu_of_the_route_counts() {
        let metrics = RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(9), RouteMetric::Mtu(1400)]);
        assert_eq!(route(&unicast(vec![RouteAttribute::Oif(2), metrics]), PEER).unwrap().mtu, Some(1400));
    }

    #[test]
    fn what_is_not_simply_sent_on_is_not_a_route() {
        for kind in [RouteType::Local, RouteType::Broadcast, RouteType::Multicast, RouteType::BlackHole] {
            let mut message = unicast(vec![RouteAttribute::Oif(2)]);
            message.header.kind = kind;
            assert_eq!(route(&message, PEER), None, "{kind:?}");
        }
        let mut dead = unicast(vec![RouteAttribute::Oif(2)]);
        dead.header.flags = RouteFlags::Linkdown;
        assert_eq!(route(&dead, PEER), None);
        let tunnel = netlink_packet_route::route::RouteLwEnCapType::Mpls;
        assert_eq!(route(&unicast(vec![RouteAttribute::Oif(2), RouteAttribute::EncapType(tunnel)]), PEER), None);
        assert_eq!(route(&unicast(vec![]), PEER), None);
    }

    #[test]
    fn a_default_route_is_of_the_main_table_and_has_no_prefix() {
        let mut message = unicast(vec![RouteAttribute::Priority(100), RouteAttribute::Oif(2)]);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        assert_eq!(default_route(&message), Some((100, vec![2])));
        let mut narrower = message.clone();
        narrower.header.destination_prefix_length = 8;
        assert_eq!(default_route(&narrower), None);
        message.header.table = 255;
        assert_eq!(default_route(&message), None);
    }

    fn ethernet(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 3;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = attributes;
        message.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 3]));
        message
    }

    fn vlan(protocol: VlanProtocol) -> LinkAttribute {
        let data = InfoData::Vlan(vec![InfoVlan::Protocol(protocol), InfoVlan::Id(7)]);
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)])
    }

    #[test]
    fn a_vlan_device_names_its_parent_and_tag() {
        let tagged = ethernet(vec![LinkAttribute::Link(2), vlan(VlanProtocol::Ieee8021Q)]);
        assert_eq!(link(&tagged).kind, LinkKind::Vlan { parent: 2, id: 7 });
        let service = ethernet(vec![LinkAttribute::Link(2), vlan(VlanProtocol::Ieee8021Ad)]);
        assert_eq!(link(&service).kind, LinkKind::Unsupported);
        let elsewhere =
            ethernet(vec![LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(0), vlan(VlanProtocol::Ieee8021Q)]);
        assert_eq!(link(&elsewhere).kind, LinkKind::Unsupported);
        // A veth names its other end as its parent; that makes it no less a device of its own.
        assert_eq!(link(&ethernet(vec![LinkAttribute::Link(9)])).kind, LinkKind::Plain);
    }

    #[test]
    fn a_vlan_device_in_the_kernels_words_makes_its_frames_ours() {
        use hairpin_common::maps;
        use hashbrown::HashSet;
        use netlink_packet_core::{NetlinkMessage, NetlinkPayload};

        use super::super::super::links::addresses;

        let below = ethernet(vec![LinkAttribute::IfName("eth0".to_owned())]);
        let mut tagged = ethernet(vec![LinkAttribute::Link(3), vlan(VlanProtocol::Ieee8021Q)]);
        tagged.header.index = 4;
        let parsed = |message: LinkMessage| {
            let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(message));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            let payload = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).unwrap().payload;
            let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) = payload else { panic!() };
            link(&message)
        };
        let of_vlan = |tagged: &LinkMessage| {
            let links = [parsed(below.clone()), parsed(tagged.clone())];
            let place = maps::Link { interface: 3, vlan: 7_u16.to_be_bytes(), zero: [0; 2] };
            addresses(&HashSet::from([3]), &links).get(&place).map(|own| own.address)
        };
        assert_eq!(of_vlan(&tagged), None, "it is off");
        tagged.header.flags |= LinkFlags::Up;
        assert_eq!(of_vlan(&tagged), Some([2, 0, 0, 0, 0, 3]));
    }

    #[test]
    fn a_link_says_whether_frames_come_in_whose_they_are_and_who_sees_them_first() {
        let found = link(&ethernet(vec![]));
        assert_eq!(found.medium, Medium::Wire);
        assert!(!found.is_up && !found.is_in_vrf && found.programs.is_empty(), "{found:?}");
        let of_kind = |info| link(&ethernet(vec![LinkAttribute::LinkInfo(vec![info])]));
        assert_eq!(of_kind(LinkInfo::Kind(InfoKind::Dummy)).medium, Medium::Nowhere);
        assert!(of_kind(LinkInfo::PortKind(InfoPortKind::Vrf)).is_in_vrf);
        assert_eq!(of_kind(LinkInfo::Kind(InfoKind::Veth)).medium, Medium::Veth);
        let names = vec![
            LinkAttribute::PropList(vec![Prop::AltIfName("enp1s0".to_owned())]),
            LinkAttribute::IfName("eth0".to_owned()),
        ];
        assert_eq!(link(&ethernet(names)).names, ["eth0", "enp1s0"]);
        let mut message = ethernet(vec![LinkAttribute::Xdp(vec![LinkXdp::Flags(4), LinkXdp::ProgId(17)])]);
        message.header.flags = LinkFlags::Up | LinkFlags::Loopback;
        let found = link(&message);
        assert!(found.is_up);
        assert_eq!((found.medium, &found.programs[..]), (Medium::Nowhere, &[17][..]));
    }

    fn address(attributes: Vec<AddressAttribute>) -> Option<String> {
        let mut message = AddressMessage::default();
        message.header.index = 2;
        message.attributes = attributes;
        local_address(&message).map(|found| {
            assert_eq!(found.interface, 2);
            found.address.to_string()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_own_end_of_a_link_is_the_local_address() {
        let both = vec![AddressAttribute::Address(ip("192.0.2.2")), AddressAttribute::Local(ip("192.0.2.1"))];
        assert_eq!(address(both).as_deref(), Some("192.0.2.1"));
        assert_eq!(address(vec![AddressAttribute::Address(ip("2001:db8::1"))]).as_deref(), Some("2001:db8::1"));
        assert_eq!(address(vec![]), None);
    }

    #[test]
    fn an_address_that_nobody_elsewhere_reaches_is_not_one() {
        for text in ["127.0.0.1", "::1", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1"] {
            assert_eq!(address(vec![AddressAttribute::Local(ip(text))]), None, "{text}");
        }
        let with = |flags| address(vec![AddressAttribute::Address(ip("2001:db8::1")), AddressAttribute::Flags(flags)]);
        assert_eq!(with(AddressFlags::Tentative), None);
        assert_eq!(with(AddressFlags::Dadfailed | AddressFlags::Permanent), None);
        assert!(with(AddressFlags::Tentative | AddressFlags::Optimistic).is_some());
        assert!(with(AddressFlags::Deprecated | AddressFlags::Noprefixroute).is_some());
    }

    #[test]
    fn only_ethernet_with_arp_has_an_address_to_send_from() {
        assert_eq!(link(&ethernet(vec![])).address, Some([2, 0, 0, 0, 0, 3]));
        for flags in [LinkFlags::Noarp, LinkFlags::Loopback] {
            let mut message = ethernet(vec![]);
            message.header.flags = flags;
            assert_eq!(link(&message).address, None, "{flags:?}");
        }
        let mut tunnel = ethernet(vec![]);
        tunnel.header.link_layer_type = LinkLayerType::None;
        assert_eq!(link(&tunnel).address, None);
    }

    #[test]
    fn only_a_resolved_neighbour_has_an_address() {
        let states = [
            (NeighbourState::Reachable, true),
            (NeighbourState::Stale, true),
            (NeighbourState::Delay, true),
            (NeighbourState::Probe, true),
            (NeighbourState::Permanent, true),
            (NeighbourState::Incomplete, false),
            (NeighbourState::Failed, false),
            (NeighbourState::Noarp, false),
            (NeighbourState::None, false),
        ];
        for (state, resolved) in states {
            let mut message = neighbour_message(2, PEER);
            message.header.state = state;
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![6, 0, 0, 0, 0, 1]));
            let found = neighbour(&message);
            assert_eq!(found.address.is_some(), resolved, "{state}");
            assert_eq!(found.is_kept, state == NeighbourState::Permanent, "{state}");
        }
    }

    #[test]
    fn reporting_use_keeps_the_marks_of_an_entry() {
        let learned = Neighbour { is_externally_learned: true, ..Neighbour::default() };
        let RouteNetlinkMessage::NewNeighbour(message) = neighbour_use(2, PEER, Some(learned)) else { panic!() };
        assert_eq!(message.header.flags, NeighbourFlags::Use | NeighbourFlags::ExtLearned);
        let RouteNetlinkMessage::NewNeighbour(message) = neighbour_use(2, PEER, None) else { panic!() };
        assert_eq!(message.header.flags, NeighbourFlags::Use);
    }

    #[test]
    fn events_name_the_neighbour_or_stand_for_everything_else() {
        let deleted = RouteNetlinkMessage::DelNeighbour(neighbour_message(2, PEER));
        assert_eq!(event(Some(&deleted)), Some(Event::Neighbour { interface: 2, address: PEER }));
        let bridge = RouteNetlinkMessage::NewNeighbour(NeighbourMessage::default());
        assert_eq!(event(Some(&bridge)), None);
        let route = RouteNetlinkMessage::DelRoute(RouteMessage::default());
        assert_eq!(event(Some(&route)), Some(Event::Route));
        assert_eq!(event(None), Some(Event::Route));
        let gone = RouteNetlinkMessage::DelLink(LinkMessage::default());
        assert_eq!(event(Some(&gone)), Some(Event::Link));
        let new = RouteNetlinkMessage::NewAddress(AddressMessage::default());
        assert_eq!(event(Some(&new)), Some(Event::Address));
    }
}
