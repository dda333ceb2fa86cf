//! Next hops: which destinations are in use, over which adjacency each is reached, and what the kernel's array says.
//!
//! A destination is asked for once and then remembered for as long as a flow uses it, so that a flow to a known
//! destination costs no question to the kernel. Neighbours and links change underneath: those are rewritten in place, one
//! entry for all flows behind it. Routes change too: then all destinations are asked for again, see
//! [`NextHops::resolve_all`].
//!
//! A neighbour that only the XDP program sends to would never be probed by the kernel, and a changed link-layer address
//! would go unnoticed. So each resolved neighbour is reported as used every [`USE_INTERVAL`]. The alternative,
//! `NTF_EXT_MANAGED` (Linux 5.16), leaves its mark in the host's neighbour table when the daemon dies, and needs a newer
//! kernel; the report does neither.

pub(super) mod message;
pub(super) mod netlink;
pub(super) mod requests;
pub(super) mod rib;
mod slots;

use std::net::IpAddr;
use std::time::Duration;

use hairpin_common::maps::NextHop;
use hashbrown::HashMap;

use self::rib::{Egress, Rib};
use self::slots::{Acquired, Adjacency, Slots};
use super::counters::Share;
use super::maps::WriteMaps;

/// How often neighbours in use are reported: the kernel's own default for the entries it manages
/// (`interval_probe_time_ms`, 5 s).
pub(super) const USE_INTERVAL: Duration = Duration::from_secs(5);

/// What is routed: the source address is part of it, since policy routing looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// All entries of the next hop array are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all next hops are taken")]
pub(super) struct NextHopsFull;

/// The destinations in use, their next hops, and whom to ask about them.
#[derive(Debug)]
pub(super) struct NextHops<R> {
    rib: R,
    destinations: HashMap<Destination, Resolved>,
    slots: Slots,
    /// How frames leave through a device; `None` for one that is not for the program. Forgotten when links change.
    egresses: HashMap<u32, Option<Egress>>,
}

#[derive(Clone, Copy, Debug)]
struct Resolved {
    /// `None` for a destination that is not for the program.
    next_hop: Option<u16>,
    references: u32,
}

/// What [`NextHops::resolve_all`] leaves to be done.
#[derive(Debug, Default)]
#[must_use = "the references in it have to be released"]
pub(super) struct Moved {
    /// References to release with [`NextHops::release_moved`], once no record names them any more.
    stale: Vec<u16>,
    /// How many destinations have another next hop than before, or none.
    pub(super) destinations: usize,
    /// How many destinations found no free entry.
    pub(super) unplaced: usize,
}

impl<R: Rib> NextHops<R> {
    pub(super) fn new(rib: R) -> Self {
        Self { rib, destinations: HashMap::new(), slots: Slots::default(), egresses: HashMap::new() }
    }

    pub(super) fn rib_mut(&mut self) -> &mut R {
        &mut self.rib
    }

    /// Takes a reference to a destination. `Ok(None)`: it is in use now, but is not for the program (so far).
    pub(super) fn acquire(
        &mut self,
        destination: Destination,
        maps: &mut impl WriteMaps,
    ) -> Result<Option<u16>, NextHopsFull> {
        if let Some(known) = self.destinations.get_mut(&destination) {
            known.references += 1;
            return Ok(known.next_hop);
        }
        let next_hop = match self.adjacency_of(destination) {
            None => None,
            Some(adjacency) => Some(self.acquire_slot(adjacency, maps)?),
        };
        self.destinations.insert(destination, Resolved { next_hop, references: 1 });
        Ok(next_hop)
    }

    /// Gives a reference back. No record may name the destination's next hop any more, if it is the last one.
    pub(super) fn release(&mut self, destination: Destination, maps: &mut impl WriteMaps) {
        let Some(known) = self.destinations.get_mut(&destination) else { return };
        known.references -= 1;
        if known.references == 0 {
            let next_hop = known.next_hop;
            self.destinations.remove(&destination);
            if let Some(index) = next_hop {
                self.release_slot(index, maps);
            }
        }
    }

    /// The next hop of a destination in use.
    pub(super) fn of(&self, destination: Destination) -> Option<u16> {
        self.destinations.get(&destination)?.next_hop
    }

    /// How full the kernel's array is.
    pub(super) fn share(&self) -> Share {
        self.slots.share()
    }

    /// Whether every reference was given back.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.destinations.is_empty()
    }

    /// Asks again for everything: after routes, rules, addresses or links changed.
    pub(super) fn resolve_all(&mut self, maps: &mut impl WriteMaps) -> Moved {
        self.egresses.clear();
        self.refresh_neighbours(maps);
        let mut moved = Moved::default();
        let destinations: Vec<_> = self.destinations.keys().copied().collect();
        for destination in destinations {
            let before = self.of(destination);
            let adjacency = self.adjacency_of(destination);
            if before.and_then(|index| self.slots.adjacency(index)) == adjacency {
                continue;
            }
            let after = adjacency.and_then(|adjacency| {
                let index = self.acquire_slot(adjacency, maps).ok();
                moved.unplaced += usize::from(index.is_none());
                index
            });
            if let Some(known) = self.destinations.get_mut(&destination) {
                known.next_hop = after;
            }
            moved.destinations += 1;
            moved.stale.extend(before);
        }
        moved
    }

    /// Ends what [`NextHops::resolve_all`] began.
    pub(super) fn release_moved(&mut self, moved: Moved, maps: &mut impl WriteMaps) {
        for index in moved.stale {
            self.release_slot(index, maps);
        }
    }

    /// Looks at one neighbour again, after the kernel said that it changed.
    pub(super) fn refresh_neighbour(&mut self, interface: u32, address: IpAddr, maps: &mut impl WriteMaps) {
        let affected: Vec<_> = self
            .slots
            .in_use()
            .filter(|(_, adjacency, _)| adjacency.interface == interface && adjacency.neighbour == address)
            .map(|(index, ..)| index)
            .collect();
        for index in affected {
            self.refresh(index, maps);
        }
    }

    /// Looks at all neighbours again, after events may have been lost.
    pub(super) fn refresh_neighbours(&mut self, maps: &mut impl WriteMaps) {
        let all: Vec<_> = self.slots.in_use().map(|(index, ..)| index).collect();
        for index in all {
            self.refresh(index, maps);
        }
    }

    /// Reports the neighbours in use to the kernel, see the module's description.
    ///
    /// Only resolved ones: packets to the others are passed up, and the kernel resolves them by itself when it sends
    /// what the userspace path makes of them. A client that names absent peers must not make us ask for them for ever.
    pub(super) fn report_use(&mut self) {
        let resolved: Vec<_> =
            self.slots.in_use().filter(|(.., value)| value.interface != 0).map(|(_, adjacency, _)| adjacency).collect();
        for Adjacency { interface, neighbour, .. } in resolved {
            if let Ok(Some(known)) = self.rib.neighbour(interface, neighbour) {
                self.report_one(interface, neighbour, Some(known));
            }
        }
    }

    /// A static entry would lose its permanence by being reported (Linux 5.16), and a managed one its mark.
    fn report_one(&mut self, interface: u32, address: IpAddr, known: Option<rib::Neighbour>) {
        if known.is_some_and(|known| known.is_kept) {
            return;
        }
        if let Err(error) = self.rib.use_neighbour(interface, address, known) {
            tracing::debug!(interface, %error, "the kernel does not take a neighbour as used");
        }
    }

    /// A route that can't be found is a destination that userspace deals with, whatever the reason.
    fn adjacency_of(&mut self, destination: Destination) -> Option<Adjacency> {
        let route = self.rib.route(destination.source, destination.destination).ok()??;
        self.egress(route.interface)?;
        Some(Adjacency { interface: route.interface, neighbour: route.neighbour, mtu: route.mtu })
    }

    fn egress(&mut self, interface: u32) -> Option<Egress> {
        if let Some(&known) = self.egresses.get(&interface) {
            return known;
        }
        let egress = Egress::through(&mut self.rib, interface).ok().flatten();
        self.egresses.insert(interface, egress);
        egress
    }

    fn acquire_slot(&mut self, adjacency: Adjacency, maps: &mut impl WriteMaps) -> Result<u16, NextHopsFull> {
        match self.slots.acquire(adjacency).ok_or(NextHopsFull)? {
            Acquired::Shared(index) => Ok(index),
            Acquired::Fresh(index) => {
                let known = self.rib.neighbour(adjacency.interface, adjacency.neighbour).ok().flatten();
                self.store(index, adjacency, known, maps);
                self.report_one(adjacency.interface, adjacency.neighbour, known);
                Ok(index)
            }
        }
    }

    fn release_slot(&mut self, index: u16, maps: &mut impl WriteMaps) {
        if let Some(value) = self.slots.release(index) {
            write(maps, index, value, NextHop::default());
        }
    }

    /// Writes what is known now. A neighbour that was lost is asked for, once: it was there a moment ago, and most often
    /// it only moved, or the kernel emptied its table because a link changed.
    fn refresh(&mut self, index: u16, maps: &mut impl WriteMaps) {
        let Some(adjacency) = self.slots.adjacency(index) else { return };
        let known = self.rib.neighbour(adjacency.interface, adjacency.neighbour).ok().flatten();
        let before = self.store(index, adjacency, known, maps);
        if before.interface != 0 && known.and_then(|known| known.address).is_none() {
            self.report_one(adjacency.interface, adjacency.neighbour, known);
        }
    }

    /// Returns what the entry held before.
    fn store(
        &mut self,
        index: u16,
        adjacency: Adjacency,
        known: Option<rib::Neighbour>,
        maps: &mut impl WriteMaps,
    ) -> NextHop {
        let value = match (self.egress(adjacency.interface), known.and_then(|known| known.address)) {
            (Some(egress), Some(destination)) => NextHop {
                interface: egress.interface,
                mtu: adjacency.mtu.map_or(egress.mtu, |mtu| mtu.min(egress.mtu)),
                destination,
                source: egress.source,
                vlan: egress.vlan.to_be_bytes(),
                zero: [0; 2],
            },
            _ => NextHop::default(),
        };
        let before = self.slots.replace_value(index, value).unwrap_or_default();
        write(maps, index, before, value);
        before
    }
}

/// Changes an entry under the eyes of the program, which may read it at any moment and in several steps: the interface,
/// which says that the entry is valid, goes first and comes back last, each with a write of its own.
fn write(maps: &mut impl WriteMaps, index: u16, before: NextHop, after: NextHop) {
    if before == after {
        return;
    }
    if before.interface != 0 {
        maps.set_next_hop(index, &NextHop { interface: 0, ..before });
    }
    maps.set_next_hop(index, &NextHop { interface: 0, ..after });
    if after.interface != 0 {
        maps.set_next_hop(index, &after);
    }
}

#[cfg(test)]
mod tests {
    use hairpin_common::maps::NEXT_HOP_CAPACITY;

    use super::super::maps::fake::FakeMaps;
    use super::rib::fake::FakeRib;
    use super::*;

    const GATEWAY: &str = "192.0.2.254";

    fn destination(last: u8) -> Destination {
        Destination { source: [192, 0, 2, 1].into(), destination: [198, 51, 100, last].into() }
    }

    /// Destinations 1 to 3 behind the gateway on device 2.
    fn behind_one_gateway() -> (NextHops<FakeRib>, FakeMaps) {
        let mut rib = FakeRib::new();
        for last in 1..=3 {
            rib.route_to(destination(last).destination, 2, GATEWAY);
        }
        rib.learn(2, GATEWAY, 0xaa);
        (NextHops::new(rib), FakeMaps::default())
    }

    #[test]
    fn destinations_behind_one_gateway_share_an_entry() {
        let (mut hops, mut maps) = behind_one_gateway();
        let first = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        assert_eq!(hops.acquire(destination(2), &mut maps), Ok(Some(first)));
        let expected = NextHop {
            interface: 2,
            mtu: 1500,
            destination: [6, 0, 0, 0, 0, 0xaa],
            source: [2, 0, 0, 0, 0, 2],
            vlan: [0; 2],
            zero: [0; 2],
        };
        assert_eq!(maps.next_hops[&first], expected);
        hops.release(destination(1), &mut maps);
        assert_eq!(maps.next_hops[&first], expected);
        hops.release(destination(2), &mut maps);
        assert_eq!(maps.next_hops[&first], NextHop::default());
        assert!(hops.is_idle());
    }

    #[test]
    fn a_known_destination_costs_no_second_lookup() {
        let (mut hops, mut maps) = behind_one_gateway();
        for _ in 0..10 {
            hops.acquire(destination(1), &mut maps).unwrap();
        }
        assert_eq!(hops.rib_mut().route_lookups, 1);
    }

    #[test]
    fn an_unknown_neighbour_is_asked_for_and_filled_in_later() {
        let (mut hops, mut maps) = behind_one_gateway();
        hops.rib_mut().neighbours.clear();
        let index = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        assert_eq!(maps.next_hops.get(&index), None);
        assert_eq!(hops.rib_mut().used, [(2, GATEWAY.parse().unwrap())]);
        hops.report_use();
        assert_eq!(hops.rib_mut().used.len(), 1, "an absent neighbour is asked for only once");

        hops.rib_mut().learn(2, GATEWAY, 0xbb);
        hops.refresh_neighbour(2, GATEWAY.parse().unwrap(), &mut maps);
        assert_eq!(maps.next_hops[&index].destination, [6, 0, 0, 0, 0, 0xbb]);
        assert_eq!(maps.next_hops[&index].interface, 2);
        hops.report_use();
        assert_eq!(hops.rib_mut().used.len(), 2);
    }

    #[test]
    fn a_changed_neighbour_is_never_half_valid() {
        let (mut hops, mut maps) = behind_one_gateway();
        let index = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        let old = maps.next_hops[&index];
        maps.next_hop_writes.clear();
        hops.rib_mut().learn(2, GATEWAY, 0xbb);
        hops.refresh_neighbour(2, GATEWAY.parse().unwrap(), &mut maps);
        let new = NextHop { destination: [6, 0, 0, 0, 0, 0xbb], ..old };
        assert_eq!(
            maps.next_hop_writes,
            [(index, NextHop { interface: 0, ..old }), (index, NextHop { interface: 0, ..new }), (index, new)]
        );
    }

    #[test]
    fn a_failed_neighbour_makes_the_entry_invalid_and_is_asked_for_once() {
        let (mut hops, mut maps) = behind_one_gateway();
        let index = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        hops.rib_mut().neighbours.clear();
        hops.rib_mut().used.clear();
        hops.refresh_neighbour(2, GATEWAY.parse().unwrap(), &mut maps);
        assert_eq!(maps.next_hops[&index], NextHop::default());
        assert_eq!(hops.rib_mut().used.len(), 1);
        hops.refresh_neighbour(2, GATEWAY.parse().unwrap(), &mut maps);
        assert_eq!(hops.rib_mut().used.len(), 1, "a lost neighbour is asked for only once");
    }

    #[test]
    fn static_and_managed_neighbours_are_left_alone() {
        let (mut hops, mut maps) = behind_one_gateway();
        for known in hops.rib_mut().neighbours.values_mut() {
            known.is_kept = true;
        }
        hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        hops.report_use();
        assert!(hops.rib_mut().used.is_empty());
    }

    #[test]
    fn a_moved_route_takes_a_new_entry_before_the_old_one_is_given_up() {
        let (mut hops, mut maps) = behind_one_gateway();
        let before = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        hops.acquire(destination(2), &mut maps).unwrap();
        hops.rib_mut().route_to(destination(1).destination, 4, "203.0.113.254");
        hops.rib_mut().learn(4, "203.0.113.254", 0xcc);

        let moved = hops.resolve_all(&mut maps);
        let after = hops.of(destination(1)).unwrap();
        assert_ne!(after, before);
        assert_eq!((moved.destinations, moved.unplaced), (1, 0));
        assert_eq!(maps.next_hops[&after].interface, 4);
        assert_eq!(maps.next_hops[&before].interface, 2);
        assert_eq!(hops.of(destination(2)), Some(before));

        hops.release_moved(moved, &mut maps);
        assert_eq!(maps.next_hops[&before].interface, 2, "destination 2 still needs it");
        hops.release(destination(2), &mut maps);
        assert_eq!(maps.next_hops[&before].interface, 0);
    }

    #[test]
    fn a_lost_route_leaves_the_destination_to_userspace_until_it_is_back() {
        let (mut hops, mut maps) = behind_one_gateway();
        hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        let route = hops.rib_mut().routes.remove(&destination(1).destination).unwrap();
        let moved = hops.resolve_all(&mut maps);
        hops.release_moved(moved, &mut maps);
        assert_eq!(hops.of(destination(1)), None);

        hops.rib_mut().routes.insert(destination(1).destination, route);
        let moved = hops.resolve_all(&mut maps);
        hops.release_moved(moved, &mut maps);
        assert!(hops.of(destination(1)).is_some());
    }

    #[test]
    fn a_changed_link_address_reaches_the_entry() {
        let (mut hops, mut maps) = behind_one_gateway();
        let index = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        hops.rib_mut().links.get_mut(&2).unwrap().address = Some([2, 9, 9, 9, 9, 9]);
        let moved = hops.resolve_all(&mut maps);
        assert_eq!(moved.destinations, 0);
        hops.release_moved(moved, &mut maps);
        assert_eq!(maps.next_hops[&index].source, [2, 9, 9, 9, 9, 9]);
    }

    #[test]
    fn a_route_with_its_own_mtu_has_its_own_entry() {
        let (mut hops, mut maps) = behind_one_gateway();
        hops.rib_mut().routes.get_mut(&destination(2).destination).unwrap().mtu = Some(1280);
        let first = hops.acquire(destination(1), &mut maps).unwrap().unwrap();
        let second = hops.acquire(destination(2), &mut maps).unwrap().unwrap();
        assert_eq!((maps.next_hops[&first].mtu, maps.next_hops[&second].mtu), (1500, 1280));
    }

    #[test]
    fn a_full_array_refuses_and_keeps_nothing() {
        let (mut hops, mut maps) = behind_one_gateway();
        for n in 1..NEXT_HOP_CAPACITY {
            let address = IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
            hops.rib_mut().route_to(address, 2, &address.to_string());
            let destination = Destination { source: [192, 0, 2, 1].into(), destination: address };
            assert!(matches!(hops.acquire(destination, &mut maps), Ok(Some(_))));
        }
        assert_eq!(hops.acquire(destination(1), &mut maps), Err(NextHopsFull));
        assert_eq!(hops.of(destination(1)), None);
        assert_eq!(hops.destinations.len(), NEXT_HOP_CAPACITY as usize - 1);
    }
}
