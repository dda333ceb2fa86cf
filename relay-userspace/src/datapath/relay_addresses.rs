//! What relayed addresses are made of, on both sides of a 1:1 NAT: by these a peer is known to be another client of this
//! relay, and data goes to it as if the NAT had sent it back.
//!
//! The program knows them by numbers that are in its records, so a number is given once and never to another address. One
//! that is no longer the relay's is kept, and has its number again when it comes back.

use std::net::IpAddr;

use hairpin_common::maps::{self, RELAY_ADDRESS_CAPACITY, crossing};
use hairpin_proto::turn::RelayAddress;

use super::maps::WriteMaps;
use super::record::octets;

/// The addresses that relayed addresses are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct RelayAddresses(Vec<Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    address: RelayAddress,
    /// Whether new relayed addresses are made of it. Those that were made of it before go on, under the same public name.
    is_current: bool,
}

/// The way from one relayed address to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crossing {
    /// What the second client knows the first one's relayed address by.
    pub(super) source: IpAddr,
    /// What the second one's relayed address is bound to.
    pub(super) destination: IpAddr,
    /// Tells the program both, see [`crossing`]; 0 where it need not be told.
    pub(super) index: u16,
}

/// What a peer is to this relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody else.
    Stranger,
    /// Where other clients' relayed addresses are.
    Own(Crossing),
    /// The same, but there are more addresses than the program can be told of, or the client of a media path is one, too.
    OutOfReach,
}

impl RelayAddresses {
    /// Exchanges the addresses, and tells the program of those that it does not know yet, as far as it can be told.
    pub(super) fn exchange(&mut self, addresses: &[RelayAddress], maps: &mut impl WriteMaps) {
        for known in &mut self.0 {
            known.is_current = false;
        }
        for address in addresses {
            let address = RelayAddress { bind: address.bind.to_canonical(), public: address.public.to_canonical() };
            if let Some(known) = self.0.iter_mut().find(|known| known.address == address) {
                known.is_current = true;
                continue;
            }
            if let Some(index) = index(self.0.len()) {
                let entry = maps::RelayAddress { bind: octets(address.bind), public: octets(address.public) };
                maps.set_relay_address(index, &entry);
            }
            self.0.push(Known { address, is_current: true });
        }
    }

    /// What the peer of a relayed address is, by its IP address.
    pub(super) fn peer(&self, relayed: IpAddr, peer: IpAddr) -> Peer {
        let current = |is_it: &dyn Fn(&RelayAddress) -> bool| {
            self.0.iter().position(|known| known.is_current && is_it(&known.address))
        };
        // What one address is called outside, another may be called inside; from here, it is the one outside.
        let to = current(&|address| address.public == peer).or_else(|| current(&|address| address.bind == peer));
        let Some(to) = to else { return Peer::Stranger };
        let from = current(&|address| address.bind == relayed)
            .or_else(|| self.0.iter().rposition(|known| known.address.bind == relayed));
        let source = from.map_or(relayed, |from| self.0[from].address.public);
        let destination = self.0[to].address.bind;
        if (source, destination) == (relayed, peer) {
            return Peer::Own(Crossing { source, destination, index: 0 });
        }
        match (from.and_then(index), index(to)) {
            (Some(from), Some(to)) => Peer::Own(Crossing { source, destination, index: crossing(from, to) }),
            _ => Peer::OutOfReach,
        }
    }
}

/// What the program knows the address at a place by; none for more than it can be told of.
fn index(at: usize) -> Option<u8> {
    const { assert!(RELAY_ADDRESS_CAPACITY == 1 << u8::BITS) };
    u8::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::super::maps::fake::FakeMaps;
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(bind: &str, public: &str) -> RelayAddress {
        RelayAddress { bind: ip(bind), public: ip(public) }
    }

    fn own(source: &str, destination: &str, index: u16) -> Peer {
        Peer::Own(Crossing { source: ip(source), destination: ip(destination), index })
    }

    /// Addresses that were never others.
    fn known(addresses: &[RelayAddress]) -> RelayAddresses {
        let mut known = RelayAddresses::default();
        known.exchange(addresses, &mut FakeMaps::default());
        known
    }

    #[test]
    fn without_a_nat_nothing_is_translated() {
        let addresses = known(&[address("192.0.2.1", "192.0.2.1"), address("192.0.2.2", "192.0.2.2")]);
        assert_eq!(addresses.peer(ip("192.0.2.1"), ip("192.0.2.2")), own("192.0.2.1", "192.0.2.2", 0));
        assert_eq!(addresses.peer(ip("192.0.2.1"), ip("192.0.2.3")), Peer::Stranger);
    }

    #[test]
    fn behind_a_nat_data_leaves_by_the_outside_and_arrives_at_the_inside() {
        let addresses = known(&[
            address("10.0.0.1", "192.0.2.1"),
            address("::ffff:10.0.0.2", "192.0.2.2"),
            address("192.0.2.3", "192.0.2.3"),
        ]);
        let peer = |relayed, peer| addresses.peer(ip(relayed), ip(peer));
        assert_eq!(peer("10.0.0.1", "192.0.2.1"), own("192.0.2.1", "10.0.0.1", crossing(1, 1)));
        assert_eq!(peer("10.0.0.1", "192.0.2.2"), own("192.0.2.1", "10.0.0.2", crossing(1, 2)));
        assert_eq!(peer("10.0.0.2", "192.0.2.3"), own("192.0.2.2", "192.0.2.3", crossing(2, 3)));
        assert_eq!(peer("192.0.2.3", "192.0.2.1"), own("192.0.2.3", "10.0.0.1", crossing(3, 1)));
        assert_eq!(peer("10.0.0.1", "10.0.0.2"), own("192.0.2.1", "10.0.0.2", crossing(1, 2)), "by its inside");
        assert_eq!(peer("10.0.0.1", "192.0.2.4"), Peer::Stranger);
    }

    #[test]
    fn an_address_that_is_one_s_outside_and_another_s_inside_is_the_outside() {
        let addresses = known(&[address("10.0.0.1", "10.0.0.2"), address("10.0.0.2", "10.0.0.3")]);
        assert_eq!(addresses.peer(ip("10.0.0.2"), ip("10.0.0.2")), own("10.0.0.3", "10.0.0.1", crossing(2, 1)));
    }

    #[test]
    fn addresses_beyond_the_last_index_are_out_of_reach_if_they_are_translated() {
        let inside = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
        let outside = |number: u32| std::net::Ipv4Addr::from(0xc000_0200 + number).into();
        let many: Vec<_> =
            (0..256).map(|number| RelayAddress { bind: inside(number), public: outside(number) }).collect();
        let (mut addresses, mut maps) = (RelayAddresses::default(), FakeMaps::default());
        addresses.exchange(&many, &mut maps);
        assert_eq!(maps.relay_addresses.len(), 255);
        let last = addresses.peer(inside(254), outside(0));
        assert!(matches!(last, Peer::Own(Crossing { index, .. }) if index == crossing(255, 1)), "{last:?}");
        assert_eq!(addresses.peer(inside(255), outside(0)), Peer::OutOfReach);
        assert_eq!(addresses.peer(inside(0), outside(255)), Peer::OutOfReach);
        let plain = RelayAddress { bind: outside(999), public: outside(999) };
        let addresses = known(&[&many[..], &[plain]].concat());
        let to_itself = addresses.peer(plain.bind, plain.public);
        assert!(matches!(to_itself, Peer::Own(Crossing { index: 0, .. })), "{to_itself:?}");
    }

    #[test]
    fn an_address_keeps_its_number_while_others_come_and_go() {
        let [first, second, third] =
            [address("10.0.0.1", "192.0.2.1"), address("10.0.0.2", "192.0.2.2"), address("10.0.0.3", "192.0.2.3")];
        let (mut addresses, mut maps) = (RelayAddresses::default(), FakeMaps::default());
        addresses.exchange(&[first, second], &mut maps);
        addresses.exchange(&[third, second], &mut maps);
        assert_eq!(addresses.peer(ip("10.0.0.3"), ip("192.0.2.2")), own("192.0.2.3", "10.0.0.2", crossing(3, 2)));
        assert_eq!(addresses.peer(ip("10.0.0.2"), ip("192.0.2.1")), Peer::Stranger, "it is gone");
        let of_the_old = addresses.peer(ip("10.0.0.1"), ip("192.0.2.2"));
        assert_eq!(of_the_old, own("192.0.2.1", "10.0.0.2", crossing(1, 2)), "who has an allocation there keeps it");

        addresses.exchange(&[first, first], &mut maps);
        assert_eq!(addresses.peer(ip("10.0.0.1"), ip("192.0.2.1")), own("192.0.2.1", "10.0.0.1", crossing(1, 1)));
        let mut numbers: Vec<_> =
            maps.relay_addresses.into_iter().map(|(index, entry)| (index, entry.bind[3])).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [(1, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn a_new_public_name_of_an_address_is_a_new_address() {
        let (mut addresses, mut maps) = (RelayAddresses::default(), FakeMaps::default());
        addresses.exchange(&[address("10.0.0.1", "192.0.2.1")], &mut maps);
        addresses.exchange(&[address("10.0.0.1", "192.0.2.7")], &mut maps);
        assert_eq!(addresses.peer(ip("10.0.0.1"), ip("192.0.2.7")), own("192.0.2.7", "10.0.0.1", crossing(2, 2)));
        assert_eq!(addresses.peer(ip("10.0.0.1"), ip("192.0.2.1")), Peer::Stranger);
    }
}
