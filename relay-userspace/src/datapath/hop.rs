//! How this host's own frames reach an address: for a generator of frames, which does without the kernel's stack.

use std::io;
use std::net::IpAddr;

use super::next_hop::netlink::Netlink;
use super::next_hop::rib::{Medium, Rib as _};

/// The first hop of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Name of the interface.
    pub interface: String,
    /// Its index in the network namespace of the thread that asked.
    pub index: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Link-layer address of the interface.
    pub source: [u8; 6],
    /// Link-layer address of the destination or its gateway.
    pub destination: [u8; 6],
}

/// What is known of an interface without asking for a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Whether it is one end of a virtual cable.
    pub is_veth: bool,
    /// Whether a default route leads through it.
    pub is_default: bool,
}

/// An interface of this thread's network namespace, or `None` when there is none of this name.
pub fn interface(name: &str) -> io::Result<Option<Interface>> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let Some(link) = links.into_iter().find(|link| link.names.iter().any(|known| known == name)) else {
        return Ok(None);
    };
    let is_default = netlink.default_interfaces()?.contains(&link.index);
    Ok(Some(Interface { index: link.index, is_veth: link.medium == Medium::Veth, is_default }))
}

/// The first hop from a local address to another host, in the network namespace of this thread.
///
/// `None` when there is no route, when it does not lead through an Ethernet, or when the neighbour has not been resolved:
/// send it a datagram before.
pub fn towards(source: IpAddr, destination: IpAddr) -> io::Result<Option<Hop>> {
    let mut netlink = Netlink::open()?;
    let Some(route) = netlink.route(source, destination)? else { return Ok(None) };
    let Some(link) = netlink.link(route.interface)? else { return Ok(None) };
    let neighbour = netlink.neighbour(route.interface, route.neighbour)?;
    let (Some(source), Some(destination)) = (link.address, neighbour.and_then(|neighbour| neighbour.address)) else {
        return Ok(None);
    };
    let Some(interface) = link.names.into_iter().next() else { return Ok(None) };
    Ok(Some(Hop { interface, index: link.index, mtu: link.mtu, source, destination }))
}
