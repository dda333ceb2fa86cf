//! The ports of relayed transport addresses.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::config::RelayAddress;
use crate::address::{AddressFamily, RelayedAddr};
use crate::random::RandomPool;

/// One shard's share of the relay ports.
///
/// Ports are dealt to the shards by pairs of an even port and the next one: shard `s` of `n` has those whose half,
/// rounded down, leaves the remainder `s` when divided by `n`. So a pair for EVEN-PORT is always in one hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStripe {
    range: RangeInclusive<u16>,
    shard: u32,
    shards: u32,
}

impl PortStripe {
    /// The share of shard `shard` (from 0) of `shards`. Port 0 is never part of it.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn new(range: RangeInclusive<u16>, shard: u32, shards: u32) -> Self {
        assert!(shard < shards, "shard {shard} of {shards}");
        Self { range: (*range.start()).max(1)..=*range.end(), shard, shards }
    }

    /// Whether a port is of the range, whoever's share it is in.
    pub(super) fn covers(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    fn contains(&self, port: u16) -> bool {
        self.range.contains(&port) && u32::from(port >> 1) % self.shards == self.shard
    }

    /// How many pairs have at least one port in the share.
    fn pairs(&self) -> usize {
        let last = u32::from(self.range.end() >> 1);
        match self.first_pair() {
            first if self.range.is_empty() || first > last => 0,
            first => ((last - first) / self.shards + 1) as usize,
        }
    }

    fn first_pair(&self) -> u32 {
        let lowest = u32::from(self.range.start() >> 1);
        lowest + (self.shard + self.shards - lowest % self.shards) % self.shards
    }

    /// The even port of a pair, counted from 0.
    fn even_port(&self, pair: usize) -> u16 {
        ((self.first_pair() + pair as u32 * self.shards) << 1) as u16
    }
}

/// What kind of port is wanted (EVEN-PORT, RFC 8656 section 18.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    Any,
    Even,
    /// An even one whose next is free too.
    Pair,
}

/// Picks ports at random. The kernel has the last word on what is free: a reserved socket may have gone to another
/// shard, and others on the host bind ports too. What is noted here only makes a good first guess.
#[derive(Debug)]
pub(super) struct PortPool {
    stripe: PortStripe,
    addresses: Vec<Ports>,
    networks: Vec<(IpAddr, u32)>,
    /// Ports that are picked by nobody: they are for those whom they are granted to.
    reserved: Option<RangeInclusive<u16>>,
}

#[derive(Debug)]
struct Ports {
    ip: IpAddr,
    /// Whether there may be more: else the address is only kept for those that are in use.
    open: bool,
    /// One bit for each port.
    used: Box<[u64; 1024]>,
}

/// How many ports are tried at random before all are looked at: then nearly none is free.
const GUESSES: usize = 16;

impl PortPool {
    pub(super) fn new(
        stripe: PortStripe,
        addresses: &[RelayAddress],
        networks: Vec<(IpAddr, u32)>,
        reserved: Option<RangeInclusive<u16>>,
    ) -> Self {
        let mut pool = Self { stripe, addresses: Vec::new(), networks: Vec::new(), reserved: None };
        pool.set_addresses(addresses, networks, reserved);
        pool
    }

    /// Picks ports of these addresses from now on. What is in use of others stays noted, since they may come back.
    pub(super) fn set_addresses(
        &mut self,
        addresses: &[RelayAddress],
        networks: Vec<(IpAddr, u32)>,
        reserved: Option<RangeInclusive<u16>>,
    ) {
        self.networks = networks;
        self.reserved = reserved;
        for ports in &mut self.addresses {
            ports.open = addresses.iter().any(|address| address.bind == ports.ip);
        }
        for RelayAddress { bind, .. } in addresses {
            if self.addresses.iter().all(|ports| ports.ip != *bind) {
                self.addresses.push(Ports { ip: *bind, open: true, used: Box::new([0; 1024]) });
            }
        }
        self.forget_unused();
    }

    fn forget_unused(&mut self) {
        self.addresses.retain(|ports| ports.open || ports.in_use() > 0);
    }

    /// Picks a port and notes it (and the next one, for a pair) as used.
    ///
    /// Addresses of the network that the client has reached the server in come first: on a host with several, it is the
    /// one that the client can use. Between those of one network chance decides.
    pub(super) fn pick(
        &mut self,
        family: AddressFamily,
        reached: IpAddr,
        parity: Parity,
        random: &mut RandomPool,
    ) -> Option<RelayedAddr> {
        let Self { stripe, addresses, networks, reserved } = self;
        let network_of = |ip: IpAddr| networks.iter().find(|(known, _)| *known == ip).map(|(_, network)| *network);
        let here = network_of(reached);
        // Of an address that is on no interface nothing is known.
        let is_elsewhere = |ip: IpAddr| here.is_some() && network_of(ip).is_some_and(|network| Some(network) != here);
        let is_candidate = |ports: &&mut Ports| ports.open && AddressFamily::of(ports.ip) == family;
        let (mut elsewhere, mut candidates): (Vec<_>, Vec<_>) =
            addresses.iter_mut().filter(is_candidate).partition(|ports| is_elsewhere(ports.ip));
        // Each of a network is first equally often.
        for some in [&mut candidates, &mut elsewhere] {
            let first = random.below(some.len());
            some.rotate_left(first);
        }
        candidates.append(&mut elsewhere);
        candidates.into_iter().find_map(|ports| ports.pick(stripe, reserved.as_ref(), parity, random))
    }

    /// Whether a port of the relay's is only for those whom it is granted to.
    pub(super) fn is_reserved(&self, port: u16) -> bool {
        self.stripe.covers(port) && self.reserved.as_ref().is_some_and(|reserved| reserved.contains(&port))
    }

    /// Whether a port is noted as used. One that is reserved is then in use here.
    pub(super) fn is_used(&self, address: RelayedAddr) -> bool {
        self.addresses.iter().any(|ports| ports.ip == address.ip() && ports.is_used(address.port()))
    }

    /// Notes a port as used that was not picked.
    pub(super) fn take(&mut self, address: RelayedAddr) {
        if let Some(ports) = self.addresses.iter_mut().find(|ports| ports.ip == address.ip()) {
            ports.mark(address.port(), true);
        }
    }

    /// How many ports are in use of each address.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (IpAddr, usize)> {
        self.addresses.iter().map(|ports| (ports.ip, ports.in_use()))
    }

    /// Notes an address as free.
    pub(super) fn release(&mut self, address: RelayedAddr) {
        if let Some(ports) = self.addresses.iter_mut().find(|ports| ports.ip == address.ip()) {
            ports.mark(address.port(), false);
            if !ports.open {
                self.forget_unused();
            }
        }
    }
}

impl Ports {
    fn pick(
        &mut self,
        stripe: &PortStripe,
        reserved: Option<&RangeInclusive<u16>>,
        parity: Parity,
        random: &mut RandomPool,
    ) -> Option<RelayedAddr> {
        let pairs = stripe.pairs();
        if pairs == 0 {
            return None;
        }
        let halves = if parity == Parity::Any { 2 } else { 1 };
        let is_for_all = |port: u16| reserved.is_none_or(|reserved| !reserved.contains(&port));
        let free = |ports: &Self, port: u16| stripe.contains(port) && is_for_all(port) && !ports.is_used(port);
        let fits = |ports: &Self, port: u16| free(ports, port) && (parity != Parity::Pair || free(ports, port + 1));
        let port_at = |at: usize| stripe.even_port(at / halves) + (at % halves) as u16;
        let all = pairs * halves;

        let guess = (0..GUESSES).map(|_| port_at(random.below(all))).find(|port| fits(self, *port));
        let port = guess.or_else(|| {
            let start = random.below(all);
            (start..all).chain(0..start).map(port_at).find(|port| fits(self, *port))
        })?;
        self.mark(port, true);
        if parity == Parity::Pair {
            self.mark(port + 1, true);
        }
        Some(RelayedAddr::new(SocketAddr::new(self.ip, port)))
    }

    fn is_used(&self, port: u16) -> bool {
        self.used[usize::from(port / 64)] & (1 << (port % 64)) != 0
    }

    fn in_use(&self) -> usize {
        self.used.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn mark(&mut self, port: u16, used: bool) {
        let word = &mut self.used[usize::from(port / 64)];
        let bit = 1 << (port % 64);
        if used { *word |= bit } else { *word &= !bit }
    }
}

/// The address with the next port, which the pair of [`Parity::Pair`] reserves.
pub(super) fn next_port(address: RelayedAddr) -> RelayedAddr {
    RelayedAddr::new(SocketAddr::new(address.ip(), address.port() + 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::tests::counting;

    const V4: [u8; 4] = [192, 0, 2, 1];

    fn pool(range: RangeInclusive<u16>, shard: u32, shards: u32) -> PortPool {
        let address = RelayAddress { bind: V4.into(), public: V4.into() };
        PortPool::new(PortStripe::new(range, shard, shards), &[address], Vec::new(), None)
    }

    fn drain(pool: &mut PortPool, parity: Parity) -> Vec<u16> {
        let mut random = counting();
        std::iter::from_fn(|| pool.pick(AddressFamily::V4, V4.into(), parity, &mut random))
            .map(RelayedAddr::port)
            .collect()
    }

    #[test]
    fn every_port_of_the_range_belongs_to_exactly_one_shard() {
        for (range, shards) in [(1000..=1099, 1), (1001..=1098, 3), (65_001..=65_535, 7), (0..=9, 2), (50..=50, 4)] {
            let mut all: Vec<u16> =
                (0..shards).flat_map(|shard| drain(&mut pool(range.clone(), shard, shards), Parity::Any)).collect();
            all.sort_unstable();
            assert_eq!(all, range.clone().filter(|port| *port > 0).collect::<Vec<_>>(), "{range:?} over {shards}");
        }
    }

    #[test]
    fn pairs_are_whole_and_begin_with_an_even_port() {
        let even = drain(&mut pool(1001..=1010, 0, 1), Parity::Pair);
        assert_eq!(even.into_iter().collect::<BTreeSet<_>>(), [1002, 1004, 1006, 1008].into());
        let even = drain(&mut pool(1001..=1010, 0, 1), Parity::Even);
        assert_eq!(even.into_iter().collect::<BTreeSet<_>>(), [1002, 1004, 1006, 1008, 1010].into());
    }

    #[test]
    fn a_released_port_is_picked_again() {
        let mut pool = pool(1000..=1003, 0, 1);
        assert_eq!(drain(&mut pool, Parity::Any).len(), 4);
        let address = RelayedAddr::new((V4, 1002).into());
        pool.release(address);
        assert_eq!(drain(&mut pool, Parity::Pair), []);
        assert_eq!(drain(&mut pool, Parity::Any), [1002]);
        pool.release(address);
        pool.release(next_port(address));
        assert_eq!(drain(&mut pool, Parity::Pair), [1002]);
    }

    #[test]
    fn ports_do_not_come_in_order() {
        let ports = drain(&mut pool(49_152..=65_535, 0, 1), Parity::Any);
        assert_eq!(ports.len(), 16_384);
        assert!(!ports[..16].is_sorted(), "{:?}", &ports[..16]);
    }

    #[test]
    fn an_address_that_comes_back_has_the_same_ports_in_use() {
        let [here, there]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let mut pool = pool(1000..=1003, 0, 1);
        let mut random = counting();
        let mut pick = |pool: &mut PortPool| pool.pick(AddressFamily::V4, here, Parity::Any, &mut random);
        let held = pick(&mut pool).unwrap();
        pool.set_addresses(&[there.into()], Vec::new(), None);
        assert_eq!(pool.in_use().collect::<Vec<_>>(), [(here, 1), (there, 0)]);
        let others: Vec<_> = std::iter::from_fn(|| pick(&mut pool)).map(RelayedAddr::ip).collect();
        assert_eq!(others, [there; 4], "the address that is gone gives none");
        pool.set_addresses(&[here.into()], Vec::new(), None);
        let rest: BTreeSet<_> = std::iter::from_fn(|| pick(&mut pool)).collect();
        assert!(rest.len() == 3 && !rest.contains(&held), "{rest:?}");

        pool.set_addresses(&[], Vec::new(), None);
        for address in rest {
            pool.release(address);
        }
        assert_eq!(pool.in_use().collect::<Vec<_>>(), [(here, 1), (there, 4)]);
        pool.release(held);
        assert_eq!(
            pool.in_use().collect::<Vec<_>>(),
            [(there, 4)],
            "an address that is gone is forgotten with its last"
        );
    }

    #[test]
    fn addresses_of_the_network_that_the_client_reached_are_preferred_and_shared_out_evenly() {
        let ips: [IpAddr; 4] = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let addresses = ips.map(RelayAddress::from);
        let networks = vec![(ips[0], 7), (ips[1], 7), (ips[2], 8), (ips[3], 7)];
        let mut pool = PortPool::new(PortStripe::new(1000..=1399, 0, 1), &addresses, networks, None);
        let mut random = counting();
        let mut pick = |family, reached| pool.pick(family, reached, Parity::Any, &mut random).map(RelayedAddr::ip);
        let of = |picked: &[Option<IpAddr>], ip: IpAddr| picked.iter().filter(|found| **found == Some(ip)).count();

        let here: Vec<_> = (0..200).map(|_| pick(AddressFamily::V4, ips[1])).collect();
        let counts = [of(&here, ips[0]), of(&here, ips[1])];
        assert!(counts.iter().sum::<usize>() == 200 && counts[0].abs_diff(counts[1]) < 60, "{counts:?}");
        assert_eq!(pick(AddressFamily::V4, ips[2]), Some(ips[2]));
        let rest: Vec<_> = (0..600).map(|_| pick(AddressFamily::V4, ips[0])).collect();
        assert_eq!(of(&rest, ips[2]), 0, "as long as there are others");
        let last: Vec<_> = (0..399).map(|_| pick(AddressFamily::V4, ips[0])).collect();
        assert_eq!((of(&last, ips[2]), pick(AddressFamily::V4, ips[0])), (399, None));
        assert_eq!(pick(AddressFamily::V6, ips[2]), Some(ips[3]), "there is no other");
    }

    #[test]
    fn of_a_network_that_nobody_knows_every_address_will_do() {
        let ips: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        for networks in [vec![], vec![(ips[0], 7)]] {
            let mut pool =
                PortPool::new(PortStripe::new(1000..=1399, 0, 1), &ips.map(RelayAddress::from), networks, None);
            let mut random = counting();
            let picked: BTreeSet<_> = (0..50)
                .filter_map(|_| pool.pick(AddressFamily::V4, ips[0], Parity::Any, &mut random))
                .map(RelayedAddr::ip)
                .collect();
            assert_eq!(picked, ips.into());
        }
    }

    #[test]
    fn reserved_ports_are_picked_by_nobody() {
        let mut pool = pool(1000..=1009, 0, 1);
        pool.set_addresses(&[IpAddr::from(V4).into()], Vec::new(), Some(1003..=1006));
        let free: BTreeSet<_> = drain(&mut pool, Parity::Any).into_iter().collect();
        assert_eq!(free, [1000, 1001, 1002, 1007, 1008, 1009].into());
        assert_eq!([1002, 1003, 1006, 1007].map(|port| pool.is_reserved(port)), [false, true, true, false]);
        pool.set_addresses(&[IpAddr::from(V4).into()], Vec::new(), Some(1..=2000));
        assert_eq!(
            [999, 1000, 1010].map(|port| pool.is_reserved(port)),
            [false, true, false],
            "only ports of the relay"
        );
    }
}
