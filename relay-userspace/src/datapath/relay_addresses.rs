//! What relayed addresses are made of, on both sides of a 1:1 NAT: by these a peer is known to be another client of this
//! relay, and data goes to it as if the NAT had sent it back.

use std::net::IpAddr;

use hairpin_common::maps::{RELAY_ADDRESS_CAPACITY, crossing};
use hairpin_proto::turn::RelayAddress;

/// The addresses that relayed addresses are made of.
#[derive(Debug)]
pub(super) struct RelayAddresses(Vec<RelayAddress>);

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
    /// The same, but there are more addresses than the program can be told of.
    OutOfReach,
}

impl RelayAddresses {
    pub(super) fn new(addresses: &[RelayAddress]) -> Self {
        let canonical = |address: &RelayAddress| RelayAddress {
            bind: address.bind.to_canonical(),
            public: address.public.to_canonical(),
        };
        Self(addresses.iter().map(canonical).collect())
    }

    /// Each that the program can be told of, with its index.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (u8, &RelayAddress)> {
        const { assert!(RELAY_ADDRESS_CAPACITY == 1 << u8::BITS) };
        (1..=u8::MAX).zip(&self.0)
    }

    /// What the peer of a relayed address is, by its IP address.
    pub(super) fn peer(&self, relayed: IpAddr, peer: IpAddr) -> Peer {
        // What one address is called outside, another may be called inside; from here, it is the one outside.
        let is_named =
            |name: fn(&RelayAddress) -> IpAddr, wanted| move |address: &RelayAddress| name(address) == wanted;
        let at = |is_it: &dyn Fn(&RelayAddress) -> bool| self.0.iter().position(is_it);
        let to = at(&is_named(|address| address.public, peer)).or_else(|| at(&is_named(|address| address.bind, peer)));
        let Some(to) = to else { return Peer::Stranger };
        let from = at(&is_named(|address| address.bind, relayed));
        let source = from.map_or(relayed, |from| self.0[from].public);
        let destination = self.0[to].bind;
        if (source, destination) == (relayed, peer) {
            return Peer::Own(Crossing { source, destination, index: 0 });
        }
        let index = |at: usize| u8::try_from(at + 1).ok();
        match (from.and_then(index), index(to)) {
            (Some(from), Some(to)) => Peer::Own(Crossing { source, destination, index: crossing(from, to) }),
            _ => Peer::OutOfReach,
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn without_a_nat_nothing_is_translated() {
        let addresses = RelayAddresses::new(&[address("192.0.2.1", "192.0.2.1"), address("192.0.2.2", "192.0.2.2")]);
        assert_eq!(addresses.peer(ip("192.0.2.1"), ip("192.0.2.2")), own("192.0.2.1", "192.0.2.2", 0));
        assert_eq!(addresses.peer(ip("192.0.2.1"), ip("192.0.2.3")), Peer::Stranger);
    }

    #[test]
    fn behind_a_nat_data_leaves_by_the_outside_and_arrives_at_the_inside() {
        let addresses = RelayAddresses::new(&[
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
        let addresses = RelayAddresses::new(&[address("10.0.0.1", "10.0.0.2"), address("10.0.0.2", "10.0.0.3")]);
        assert_eq!(addresses.peer(ip("10.0.0.2"), ip("10.0.0.2")), own("10.0.0.3", "10.0.0.1", crossing(2, 1)));
    }

    #[test]
    fn addresses_beyond_the_last_index_are_out_of_reach_if_they_are_translated() {
        let inside = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
        let outside = |number: u32| std::net::Ipv4Addr::from(0xc000_0200 + number).into();
        let many: Vec<_> =
            (0..256).map(|number| RelayAddress { bind: inside(number), public: outside(number) }).collect();
        let addresses = RelayAddresses::new(&many);
        assert_eq!(addresses.indexed().count(), 255);
        let last = addresses.peer(inside(254), outside(0));
        assert!(matches!(last, Peer::Own(Crossing { index, .. }) if index == crossing(255, 1)), "{last:?}");
        assert_eq!(addresses.peer(inside(255), outside(0)), Peer::OutOfReach);
        assert_eq!(addresses.peer(inside(0), outside(255)), Peer::OutOfReach);
        let plain = RelayAddress { bind: outside(999), public: outside(999) };
        let addresses = RelayAddresses::new(&[&many[..], &[plain]].concat());
        let to_itself = addresses.peer(plain.bind, plain.public);
        assert!(matches!(to_itself, Peer::Own(Crossing { index: 0, .. })), "{to_itself:?}");
    }
}
