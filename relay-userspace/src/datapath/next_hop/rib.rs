//! What has to be known about routes, links and neighbours, as questions to whoever knows: the kernel, or a test.

use std::io;
use std::net::IpAddr;

/// The kernel's routing information base, asked one thing at a time.
pub(in crate::datapath) trait Rib {
    /// The route of a packet, or `None` when it would not leave through a gateway or link: local, broadcast, multicast,
    /// unreachable, or wrapped into a tunnel.
    fn route(&mut self, source: IpAddr, destination: IpAddr) -> io::Result<Option<Route>>;

    /// A network device by its index, or `None` when there is none.
    fn link(&mut self, index: u32) -> io::Result<Option<Link>>;

    /// An entry of the neighbour table (ARP, NDP), or `None` when there is none.
    fn neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<Option<Neighbour>>;

    /// Tells the kernel that the neighbour is being used, as sending a packet through it would: an unknown one is
    /// resolved, a stale one is probed.
    fn use_neighbour(&mut self, interface: u32, address: IpAddr, known: Option<Neighbour>) -> io::Result<()>;
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::datapath) struct Route {
    /// Index of the output device, which can be a VLAN device.
    pub(in crate::datapath) interface: u32,
    /// Whose link-layer address is needed: the gateway, or the destination itself on its own link.
    pub(in crate::datapath) neighbour: IpAddr,
    /// MTU of the route in bytes, where it has one of its own.
    pub(in crate::datapath) mtu: Option<u32>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Link {
    pub(in crate::datapath) index: u32,
    /// Its names, that of the kernel first.
    pub(in crate::datapath) names: Vec<String>,
    /// Largest IP packet, in bytes.
    pub(in crate::datapath) mtu: u32,
    /// Its link-layer address; `None` unless it is Ethernet with ARP or NDP, which is all that the program can send to.
    pub(in crate::datapath) address: Option<[u8; 6]>,
    pub(in crate::datapath) kind: LinkKind,
    /// Whether it is switched on; says nothing about the cable.
    pub(in crate::datapath) is_up: bool,
    pub(in crate::datapath) medium: Medium,
    /// Whether it belongs to a VRF: what is sent to its addresses is not for sockets outside of the VRF.
    pub(in crate::datapath) is_in_vrf: bool,
    /// Ids of the XDP programs that are attached to it.
    pub(in crate::datapath) programs: Vec<u32>,
}

/// Where frames come from that come in by a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum Medium {
    /// From outside, or from another device of this host that has that.
    Wire,
    /// From the other end of a virtual cable.
    Veth,
    /// From nowhere else: the loopback, and a dummy that only holds addresses.
    Nowhere,
}

impl Link {
    /// Whether this is one of its names.
    pub(in crate::datapath) fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct LocalAddress {
    /// Index of the device that has it.
    pub(in crate::datapath) interface: u32,
    pub(in crate::datapath) address: IpAddr,
}

/// What matters about the kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum LinkKind {
    /// Frames leave as they are.
    Plain,
    /// Frames leave through another device, with an IEEE 802.1Q tag.
    Vlan {
        /// Index of the device below.
        parent: u32,
        /// VLAN id.
        id: u16,
    },
    /// Something on top of another device that the program can't imitate: IEEE 802.1ad, or a parent in another
    /// namespace.
    Unsupported,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::datapath) struct Neighbour {
    /// Its link-layer address, if it is good to send to.
    pub(in crate::datapath) address: Option<[u8; 6]>,
    /// Whether somebody else keeps the entry fresh: it is static, or managed by the kernel.
    pub(in crate::datapath) is_kept: bool,
    /// Learned by another program and marked so; the mark has to survive.
    pub(in crate::datapath) is_externally_learned: bool,
}

/// How a frame leaves the machine: what is left of a [`Route`] after VLAN devices are looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Egress {
    /// Index of the device that sends the frame.
    pub(in crate::datapath) interface: u32,
    /// VLAN id of the tag, 0 for none.
    pub(in crate::datapath) vlan: u16,
    /// Source link-layer address.
    pub(in crate::datapath) source: [u8; 6],
    /// Largest IP packet, in bytes.
    pub(in crate::datapath) mtu: u32,
}

impl Egress {
    /// `None` for a device that the program can't send through. A VLAN on a VLAN is among them: the program writes one
    /// tag.
    pub(in crate::datapath) fn through(rib: &mut impl Rib, interface: u32) -> io::Result<Option<Self>> {
        let Some(link) = rib.link(interface)? else { return Ok(None) };
        let Some(source) = link.address else { return Ok(None) };
        let plain = Self { interface, vlan: 0, source, mtu: link.mtu };
        match link.kind {
            LinkKind::Plain => Ok(Some(plain)),
            LinkKind::Unsupported => Ok(None),
            LinkKind::Vlan { parent, id } => {
                let below = rib.link(parent)?.filter(|link| link.kind == LinkKind::Plain && link.address.is_some());
                Ok(below.map(|below| Self { interface: below.index, vlan: id, ..plain }))
            }
        }
    }
}

#[cfg(test)]
pub(in crate::datapath) mod fake {
    use hashbrown::HashMap;

    use super::*;

    /// A small world of routes, links and neighbours that a test changes as it likes.
    #[derive(Debug, Default)]
    pub(in crate::datapath) struct FakeRib {
        pub(in crate::datapath) routes: HashMap<IpAddr, Route>,
        pub(in crate::datapath) links: HashMap<u32, Link>,
        pub(in crate::datapath) neighbours: HashMap<(u32, IpAddr), Neighbour>,
        pub(in crate::datapath) used: Vec<(u32, IpAddr)>,
        pub(in crate::datapath) route_lookups: usize,
    }

    impl FakeRib {
        /// Device 2 is a NIC, device 3 a VLAN on it, device 4 another NIC, device 5 a tunnel.
        pub(in crate::datapath) fn new() -> Self {
            let link = |index, name: &str, address, kind| (index, Link { address, kind, ..wire(index, name) });
            Self {
                links: HashMap::from([
                    link(2, "eth0", Some([2, 0, 0, 0, 0, 2]), LinkKind::Plain),
                    link(3, "eth0.7", Some([2, 0, 0, 0, 0, 3]), LinkKind::Vlan { parent: 2, id: 7 }),
                    link(4, "eth1", Some([2, 0, 0, 0, 0, 4]), LinkKind::Plain),
                    link(5, "tun0", None, LinkKind::Plain),
                    link(6, "eth0.7.8", Some([2, 0, 0, 0, 0, 6]), LinkKind::Vlan { parent: 3, id: 8 }),
                ]),
                ..Self::default()
            }
        }

        pub(in crate::datapath) fn route_to(&mut self, destination: IpAddr, interface: u32, neighbour: &str) {
            let neighbour = neighbour.parse().unwrap();
            self.routes.insert(destination, Route { interface, neighbour, mtu: None });
        }

        pub(in crate::datapath) fn learn(&mut self, interface: u32, neighbour: &str, last_octet: u8) {
            let known = Neighbour { address: Some([6, 0, 0, 0, 0, last_octet]), ..Neighbour::default() };
            self.neighbours.insert((interface, neighbour.parse().unwrap()), known);
        }
    }

    /// A device with an address made of its index, up and without any speciality.
    pub(in crate::datapath) fn wire(index: u32, name: &str) -> Link {
        Link {
            index,
            names: vec![name.to_owned()],
            mtu: 1500,
            address: Some([2, 0, 0, 0, 0, index as u8]),
            kind: LinkKind::Plain,
            is_up: true,
            medium: Medium::Wire,
            is_in_vrf: false,
            programs: Vec::new(),
        }
    }

    impl Rib for FakeRib {
        fn route(&mut self, _: IpAddr, destination: IpAddr) -> io::Result<Option<Route>> {
            self.route_lookups += 1;
            Ok(self.routes.get(&destination).copied())
        }

        fn link(&mut self, index: u32) -> io::Result<Option<Link>> {
            Ok(self.links.get(&index).cloned())
        }

        fn neighbour(&mut self, interface: u32, address: IpAddr) -> io::Result<Option<Neighbour>> {
            Ok(self.neighbours.get(&(interface, address)).copied())
        }

        fn use_neighbour(&mut self, interface: u32, address: IpAddr, _: Option<Neighbour>) -> io::Result<()> {
            self.used.push((interface, address));
            Ok(())
        }
    }

    #[test]
    fn a_vlan_device_sends_through_the_device_below() {
        let mut rib = FakeRib::new();
        let expected = Egress { interface: 2, vlan: 7, source: [2, 0, 0, 0, 0, 3], mtu: 1500 };
        assert_eq!(Egress::through(&mut rib, 3).unwrap(), Some(expected));
    }

    #[test]
    fn tunnels_stacked_vlans_and_missing_devices_are_not_for_the_program() {
        let mut rib = FakeRib::new();
        for interface in [5, 6, 99] {
            assert_eq!(Egress::through(&mut rib, interface).unwrap(), None, "device {interface}");
        }
    }
}
