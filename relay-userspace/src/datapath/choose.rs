//! Which interfaces the program is for.

use std::net::{IpAddr, SocketAddr};

use hairpin_proto::turn::RelayAddress;

use super::StartError;
use super::next_hop::rib::{Link, LinkKind, LocalAddress, Medium};

/// What tells the interfaces, where none were named.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) relay_addresses: Vec<RelayAddress>,
}

impl Served {
    /// The addresses at which packets of clients and peers arrive, as far as they were named.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let listening = self.listeners.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
        listening.chain(self.relay_addresses.iter().map(|address| address.bind)).collect()
    }
}

/// The interfaces that were named. Or else those that packets of the relay come in by: those of the default routes, and
/// the Ethernet devices with an address that clients or peers send to (`served`). For a VLAN device it is the device
/// below: that is where frames come in.
pub(super) fn interfaces(
    named: &[String],
    served: &[IpAddr],
    default_routes: &[u32],
    addresses: &[LocalAddress],
    links: &[Link],
) -> Result<Vec<String>, StartError> {
    let mut chosen: Vec<String> = Vec::new();
    if !named.is_empty() {
        for name in named {
            if !links.iter().any(|link| link.is_named(name)) {
                return Err(StartError::UnknownInterface(name.clone()));
            }
            if !chosen.contains(name) {
                chosen.push(name.clone());
            }
        }
        return Ok(chosen);
    }
    let of_index = |index| links.iter().find(|link| link.index == index);
    let with_address = addresses.iter().filter(|own| served.contains(&own.address)).map(|own| own.interface);
    let carrying = with_address
        .filter(|index| of_index(*index).is_some_and(|link| link.medium != Medium::Nowhere && link.address.is_some()));
    for index in default_routes.iter().copied().chain(carrying) {
        let Some(link) = of_index(index) else { continue };
        let below = match link.kind {
            LinkKind::Vlan { parent, .. } => of_index(parent).unwrap_or(link),
            LinkKind::Plain | LinkKind::Unsupported => link,
        };
        chosen.extend(below.names.first().filter(|name| !chosen.contains(name)).cloned());
    }
    if chosen.is_empty() { Err(StartError::NoDefaultRoute) } else { Ok(chosen) }
}

#[cfg(test)]
mod tests {
    use super::super::next_hop::rib::fake::wire;
    use super::*;

    fn links() -> Vec<Link> {
        vec![
            Link { medium: Medium::Nowhere, ..wire(1, "lo") },
            wire(2, "eth0"),
            wire(3, "eth1"),
            Link { kind: LinkKind::Vlan { parent: 3, id: 7 }, ..wire(4, "eth1.7") },
            Link { address: None, ..wire(5, "tun0") },
        ]
    }

    fn choose(named: &[&str], served: &[&str], default_routes: &[u32]) -> Result<Vec<String>, String> {
        let own = |interface, text: &str| LocalAddress { interface, address: text.parse().unwrap() };
        let addresses = [
            own(1, "192.0.2.9"),
            own(2, "192.0.2.1"),
            own(3, "198.51.100.1"),
            own(4, "2001:db8::1"),
            own(5, "192.0.2.5"),
        ];
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let served: Vec<IpAddr> = served.iter().map(|text| text.parse().unwrap()).collect();
        interfaces(&named, &served, default_routes, &addresses, &links()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_named_is_taken_once_and_nothing_else() {
        assert_eq!(choose(&["eth1", "lo", "eth1"], &["192.0.2.1"], &[2]).unwrap(), ["eth1", "lo"]);
        assert!(choose(&["eth1", "wan7"], &[], &[2]).unwrap_err().contains("--interface wan7"));
    }

    #[test]
    fn the_default_routes_tell_the_interfaces_and_a_vlan_that_below_it() {
        assert_eq!(choose(&[], &[], &[2]).unwrap(), ["eth0"]);
        assert_eq!(choose(&[], &[], &[4, 2, 4]).unwrap(), ["eth1", "eth0"]);
        assert!(choose(&[], &[], &[]).unwrap_err().contains("no default route"));
    }

    #[test]
    fn an_address_that_is_served_brings_its_interface() {
        assert_eq!(choose(&[], &["198.51.100.1", "192.0.2.1"], &[2]).unwrap(), ["eth0", "eth1"]);
        assert_eq!(choose(&[], &["2001:db8::1"], &[2]).unwrap(), ["eth0", "eth1"]);
        assert_eq!(choose(&[], &["198.51.100.1"], &[]).unwrap(), ["eth1"], "without a default route too");
    }

    #[test]
    fn an_address_that_no_wire_has_brings_none() {
        assert_eq!(choose(&[], &["192.0.2.9", "192.0.2.5", "203.0.113.5"], &[2]).unwrap(), ["eth0"]);
    }
}
