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
    pub(super) fn new(stripe: PortStripe, addresses: &[RelayAddress]) -> Self {
        let mut pool = Self { stripe, addresses: Vec::new() };
        pool.set_addresses(addresses);
        pool
    }

    /// Picks ports of these addresses from now on. What is in use of others stays noted, since they may come back.
    pub(super) fn set_addresses(&mut self, addresses: &[RelayAddress]) {
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
    /// The address that the client has reached the server at comes first: on a host with several networks, it is of the
    /// network that the client can use.
    pub(super) fn pick(
        &mut self,
        family: AddressFamily,
        reached: IpAddr,
        parity: Parity,
        random: &mut RandomPool,
    ) -> Option<RelayedAddr> {
        let Self { stripe, addresses } = self;
        if addresses.is_empty() {
            return None;
        }
        let start = random.below(addresses.len());
        let (before, after) = addresses.split_at_mut(start);
        let mut candidates: Vec<&mut Ports> = after
            .iter_mut()
            .chain(before)
            .filter(|ports| ports.open && AddressFamily::of(ports.ip) == family)
            .collect();
        candidates.sort_by_key(|ports| ports.ip != reached);
        candidates.into_iter().find_map(|ports| ports.pick(stripe, parity, random))
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
    fn pick(&mut self, stripe: &PortStripe, parity: Parity, random: &mut RandomPool) -> Option<RelayedAddr> {
        let pairs = stripe.pairs();
        if pairs == 0 {
            return None;
        }
        let halves = if parity == Parity::Any { 2 } else { 1 };
        let free = |ports: &Self, port: u16| stripe.contains(port) && !ports.is_used(port);
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
        PortPool::new(PortStripe::new(range, shard, shards), &[address])
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
        pool.set_addresses(&[there.into()]);
        assert_eq!(pool.in_use().collect::<Vec<_>>(), [(here, 1), (there, 0)]);
        let others: Vec<_> = std::iter::from_fn(|| pick(&mut pool)).map(RelayedAddr::ip).collect();
        assert_eq!(others, [there; 4], "the address that is gone gives none");
        pool.set_addresses(&[here.into()]);
        let rest: BTreeSet<_> = std::iter::from_fn(|| pick(&mut pool)).collect();
        assert!(rest.len() == 3 && !rest.contains(&held), "{rest:?}");

        pool.set_addresses(&[]);
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
    fn the_address_that_the_client_reached_is_preferred_and_others_serve_when_it_is_full() {
        let ips: [IpAddr; 3] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into(), "2001:db8::1".parse().unwrap()];
        let addresses = ips.map(|ip| RelayAddress { bind: ip, public: ip });
        let mut pool = PortPool::new(PortStripe::new(1000..=1001, 0, 1), &addresses);
        let mut random = counting();
        let mut pick = |family| pool.pick(family, ips[1], Parity::Any, &mut random).map(RelayedAddr::ip);
        assert_eq!([pick(AddressFamily::V4), pick(AddressFamily::V4)], [Some(ips[1]); 2]);
        assert_eq!([pick(AddressFamily::V4), pick(AddressFamily::V4)], [Some(ips[0]); 2]);
        assert_eq!(pick(AddressFamily::V4), None);
        assert_eq!(pick(AddressFamily::V6), Some(ips[2]));
    }
}
