//! What the program would be attached to, without attaching it: for whoever wants to know before the relay starts.

use std::net::IpAddr;

use super::next_hop::netlink::Netlink;
use super::next_hop::rib::{LinkKind, Medium};
use super::{Drivers, StartError, choose};

/// An interface that the program is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing that the kernel says")]
pub struct Surveyed {
    /// Its name, that of the kernel.
    pub name: String,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether it has a link-layer address that frames can be sent from.
    pub is_ethernet: bool,
    /// Whether it is an end of a virtual cable.
    pub is_veth: bool,
    /// Whether it is a device on top of another, where frames do not come in.
    pub is_on_top: bool,
    /// Whether it belongs to a VRF.
    pub is_in_vrf: bool,
    /// Ids of the XDP programs that are attached to it.
    pub programs: Vec<u32>,
    /// Whether its driver runs programs itself, if the kernel says so (since Linux 6.3).
    pub is_native: Option<bool>,
    /// Whether its driver takes frames that others redirect to it, if the kernel says so.
    pub takes_frames: Option<bool>,
}

/// The interfaces that the program would be attached to: those that were `named`, or else those of the default routes and
/// of the addresses that are `served`. In the network namespace of the calling thread.
pub fn survey(named: &[String], served: &[IpAddr]) -> Result<Vec<Surveyed>, StartError> {
    let mut netlink = Netlink::open().map_err(StartError::Netlink)?;
    let links = netlink.links().map_err(StartError::Netlink)?;
    let chosen = choose::interfaces(
        named,
        served,
        &netlink.default_interfaces().map_err(StartError::Netlink)?,
        &netlink.local_addresses().map_err(StartError::Netlink)?,
        &links,
    )?;
    let mut drivers = Drivers::open().map_err(StartError::Netlink)?;
    let surveyed = chosen.into_iter().filter_map(|name| {
        let link = links.iter().find(|link| link.is_named(&name))?;
        Some(Surveyed {
            mtu: link.mtu,
            is_up: link.is_up,
            is_ethernet: link.address.is_some(),
            is_veth: link.medium == Medium::Veth,
            is_on_top: link.kind != LinkKind::Plain,
            is_in_vrf: link.is_in_vrf,
            programs: link.programs.clone(),
            is_native: drivers.as_mut().and_then(|drivers| drivers.is_native(link.index)),
            takes_frames: drivers.as_mut().and_then(|drivers| drivers.takes_frames(link.index)),
            name,
        })
    });
    Ok(surveyed.collect())
}
