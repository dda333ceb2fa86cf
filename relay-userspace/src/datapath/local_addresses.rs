//! The addresses by which others reach this host's sockets.

use std::net::IpAddr;

use hashbrown::HashSet;

use super::next_hop::rib::{Link, LocalAddress};

/// Most addresses that listeners are looked for at. A host that balances services can have tens of thousands, each a
/// record; packets to the others go to the sockets all the same.
const MAX_ADDRESSES: usize = 1024;

/// The addresses where a socket hears that listens everywhere. It does not hear what is sent to an address of a VRF.
pub(super) fn reachable(addresses: &[LocalAddress], links: &[Link]) -> Vec<IpAddr> {
    let in_vrf: HashSet<u32> = links.iter().filter(|link| link.is_in_vrf).map(|link| link.index).collect();
    let outside = addresses.iter().filter(|own| !in_vrf.contains(&own.interface));
    outside.map(|own| own.address).take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::super::next_hop::rib::fake::wire;
    use super::*;

    fn own(interface: u32, last: u32) -> LocalAddress {
        LocalAddress { interface, address: std::net::Ipv4Addr::from(0xc000_0200 + last).into() }
    }

    #[test]
    fn an_address_of_a_vrf_is_not_reached_from_outside_of_it() {
        let links = [wire(2, "eth0"), Link { is_in_vrf: true, ..wire(3, "red0") }];
        let found = reachable(&[own(2, 1), own(3, 2), own(4, 3)], &links);
        assert_eq!(found, [own(2, 1).address, own(4, 3).address]);
    }

    #[test]
    fn of_very_many_addresses_some_are_taken() {
        let many: Vec<_> = (0..2000).map(|last| own(2, last)).collect();
        assert_eq!(reachable(&many, &[wire(2, "eth0")]).len(), MAX_ADDRESSES);
    }
}
