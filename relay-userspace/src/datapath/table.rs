//! The flows that are (to be) in the kernel: the truth of which the maps are a copy.
//!
//! Either all records of a flow are in the kernel or none: half a flow would save nobody the userspace path, but take
//! room in the map and let packets of one direction overtake those of the other.
//!
//! For each allocation the table says how much of it is in the kernel, see [`shared_state`](super::shared_state).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use hairpin_common::maps::FlowKey;
use hairpin_proto::turn::RelayAddress;
use hashbrown::HashMap;

use super::counters::Share;
use super::flow::{Flow, Scope};
use super::flow_map::MapFull;
use super::maps::WriteMaps;
use super::next_hop::rib::Rib;
use super::next_hop::{Destination, NextHops};
use super::record::{self, Stamp};
use super::relay_addresses::{Crossing, Peer, RelayAddresses};

/// How long a record stays in the kernel after its expiry, in ticks (about a second). The program does not use it any
/// more, and a refresh that comes a little late then overwrites it instead of adding it anew.
const GRACE: u32 = 8;

/// Why a flow did not get into the kernel. It goes on in userspace.
#[derive(Debug, thiserror::Error)]
pub(super) enum InsertError {
    /// The map has no room for it.
    #[error("the flow map is full; more flows stay in userspace (see --kernel-records)")]
    MapFull,
    /// All next hops are taken.
    #[error("all next hops are taken; flows to other neighbours stay in userspace")]
    NextHopsFull,
}

/// All flows, and the next hops they need.
#[derive(Debug)]
pub(super) struct FlowTable<R> {
    next_hops: NextHops<R>,
    /// What relayed addresses are made of. A peer with one of these is this relay's own.
    relay_addresses: RelayAddresses,
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    /// Which entry owns a key. Two flows can claim one key only for a moment, when a peer is bound to another channel, a
    /// client has moved, or a leg has another remote; then the later one has it.
    owners: HashMap<FlowKey, u32>,
    /// Expiry tick, entry and its serial: one for each entry, moved on when its time comes and it was refreshed since.
    expiries: BinaryHeap<Reverse<(u32, u32, u32)>>,
    serial: u32,
    resident: usize,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    expires: u32,
    /// Tells apart the flows that had the same place one after the other.
    serial: u32,
    /// Next hops as its records in the kernel have them; `None` when it has no records, because a destination is not for
    /// the program.
    written: Option<Hops>,
}

/// Next hops to peer and client; 0 where a flow needs none.
type Hops = [u16; 2];

/// A flow to be in the kernel until the tick `expires`, and the number that this change was announced with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Install {
    pub(super) flow: Flow,
    pub(super) expires: u32,
    pub(super) change: u32,
}

impl<R: Rib> FlowTable<R> {
    pub(super) fn new(next_hops: NextHops<R>, relay_addresses: RelayAddresses) -> Self {
        Self {
            next_hops,
            relay_addresses,
            entries: Vec::new(),
            vacant: Vec::new(),
            owners: HashMap::new(),
            expiries: BinaryHeap::new(),
            serial: 0,
            resident: 0,
        }
    }

    pub(super) fn next_hops(&mut self) -> &mut NextHops<R> {
        &mut self.next_hops
    }

    /// How full the kernel's array of next hops is.
    pub(super) fn next_hops_share(&self) -> Share {
        self.next_hops.share()
    }

    /// How many flows have their records in the kernel.
    pub(super) fn resident(&self) -> usize {
        self.resident
    }

    /// Whether there is no flow at all.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Adds a flow, or gives it a new expiry. One that the program can't forward is left to userspace without an error.
    pub(super) fn install(
        &mut self,
        Install { flow, expires, change }: Install,
        now: u32,
        maps: &mut impl WriteMaps,
    ) -> Result<(), InsertError> {
        let flow = flow.canonical();
        if !flow.is_supported() || self.peer_of(&flow) == Peer::OutOfReach {
            return Ok(());
        }
        if expires <= now {
            // Userspace may let it through for the rest of a tick, so this is not confirmed.
            self.remove(flow, maps);
            return Ok(());
        }
        let is_written = if let Some(id) = self.id_of(&flow) {
            if let Some(entry) = self.entry_mut(id) {
                entry.expires = expires;
            }
            self.write_or_drop(id, maps)
        } else {
            self.add(flow, expires, maps)
        }?;
        if is_written {
            maps.state().confirm(flow.allocation, change);
        }
        Ok(())
    }

    /// Removes a flow, if it is there.
    pub(super) fn remove(&mut self, flow: Flow, maps: &mut impl WriteMaps) {
        if let Some(id) = self.id_of(&flow.canonical()) {
            self.drop_entry(id, maps);
        }
    }

    /// Removes what expired some time ago.
    pub(super) fn sweep(&mut self, now: u32, maps: &mut impl WriteMaps) {
        while let Some(&Reverse((due, id, serial))) = self.expiries.peek() {
            if due.saturating_add(GRACE) > now {
                return;
            }
            self.expiries.pop();
            let Some(entry) = self.entry(id).filter(|entry| entry.serial == serial) else { continue };
            let expires = entry.expires;
            if expires.saturating_add(GRACE) > now {
                self.expiries.push(Reverse((expires, id, serial)));
            } else {
                self.drop_entry(id, maps);
            }
        }
    }

    /// Follows the routes: all destinations are asked for again, and records are rewritten where the answer changed.
    /// Returns how many flows had to leave the kernel because there was no room.
    pub(super) fn reroute(&mut self, maps: &mut impl WriteMaps) -> usize {
        let moved = self.next_hops.resolve_all(maps);
        let mut failures = moved.unplaced;
        if moved.destinations > 0 {
            let ids: Vec<_> = (0..self.entries.len() as u32).filter(|&id| self.is_misrouted(id)).collect();
            for id in ids {
                failures += usize::from(self.write_or_drop(id, maps).is_err());
            }
        }
        self.next_hops.release_moved(moved, maps);
        failures
    }

    /// Exchanges what relayed addresses are made of. Where that makes something else of a flow's peer, its records are
    /// rewritten, each at once: no packet finds none. Returns how many flows had to leave the kernel for lack of room.
    pub(super) fn set_relay_addresses(&mut self, addresses: &[RelayAddress], maps: &mut impl WriteMaps) -> usize {
        let before = self.relay_addresses.clone();
        self.relay_addresses.exchange(addresses, maps);
        let ids = 0..self.entries.len() as u32;
        let flows = ids.filter_map(|id| Some((id, self.entry(id)?.flow)));
        let changed: Vec<_> = flows.filter(|(_, flow)| peer_of(flow, &before) != self.peer_of(flow)).collect();
        let mut failures = 0;
        for (id, flow) in changed {
            failures += usize::from(self.judge_again(id, &flow, maps).is_err());
            // Not before its records name others, or none.
            for destination in destinations_of(&flow, &before).into_iter().flatten() {
                self.next_hops.release(destination, maps);
            }
        }
        failures
    }

    /// Follows what has become of a flow's peer. The references to the next hops from before are left to the caller.
    fn judge_again(&mut self, id: u32, flow: &Flow, maps: &mut impl WriteMaps) -> Result<(), InsertError> {
        if self.peer_of(flow) == Peer::OutOfReach {
            self.take_out(id, maps);
            self.drop_entry(id, maps);
            return Ok(());
        }
        if let Err(full) = self.acquire_next_hops(flow, maps) {
            self.take_out(id, maps);
            self.forget(id);
            return Err(full);
        }
        self.write_or_drop(id, maps).map(|_| ())
    }

    /// Adds a flow, and ends those that own a key of it. A record that changes hands is overwritten, so that packets find
    /// the one or the other; the next hops from before are let go of when no record names them any more.
    fn add(&mut self, flow: Flow, expires: u32, maps: &mut impl WriteMaps) -> Result<bool, InsertError> {
        let mut displaced = self.owners_of(&flow);
        if self.acquire_next_hops(&flow, maps).is_err() {
            // It may be they who have the last ones.
            displaced.drain(..).for_each(|id| self.drop_entry(id, maps));
            self.acquire_next_hops(&flow, maps)?;
        }
        let displaced: Vec<_> = displaced.into_iter().filter_map(|id| self.hand_over(id, &flow, maps)).collect();
        let written = self.add_alone(flow, expires, maps);
        if !matches!(written, Ok(true)) {
            // Nobody owns what was handed over.
            record::keys(&flow).for_each(|key| maps.remove(&key));
        }
        for flow in displaced {
            for destination in self.destinations_of(&flow).into_iter().flatten() {
                self.next_hops.release(destination, maps);
            }
        }
        written
    }

    /// Which flows own a key of this one, each once.
    fn owners_of(&self, flow: &Flow) -> Vec<u32> {
        let mut owners: Vec<_> = record::keys(flow).filter_map(|key| self.owners.get(&key).copied()).collect();
        owners.dedup();
        owners
    }

    /// Ends a flow in favour of another: of its records, those with keys of the other stay where they are. Its references
    /// to next hops are left to the caller.
    fn hand_over(&mut self, id: u32, to: &Flow, maps: &mut impl WriteMaps) -> Option<Flow> {
        let entry = self.entry_mut(id)?;
        let flow = entry.flow;
        if entry.written.take().is_some() {
            self.resident -= 1;
            let goes = |key: &FlowKey| record::keys(to).all(|taken| taken != *key);
            record::keys(&flow).filter(goes).for_each(|key| maps.remove(&key));
        }
        self.forget(id)
    }

    /// Adds a flow whose keys nobody owns, and whose next hops have their references.
    fn add_alone(&mut self, flow: Flow, expires: u32, maps: &mut impl WriteMaps) -> Result<bool, InsertError> {
        self.serial = self.serial.wrapping_add(1);
        let entry = Entry { flow, expires, serial: self.serial, written: None };
        let id = if let Some(id) = self.vacant.pop() {
            self.entries[id as usize] = Some(entry);
            id
        } else {
            self.entries.push(Some(entry));
            self.entries.len() as u32 - 1
        };
        self.expiries.push(Reverse((expires, id, self.serial)));
        for key in record::keys(&flow) {
            self.owners.insert(key, id);
        }
        self.write_or_drop(id, maps)
    }

    /// Takes a reference to each next hop of a flow, or to none.
    fn acquire_next_hops(&mut self, flow: &Flow, maps: &mut impl WriteMaps) -> Result<(), InsertError> {
        let mut acquired = Vec::new();
        for destination in self.destinations_of(flow).into_iter().flatten() {
            if self.next_hops.acquire(destination, maps).is_err() {
                for destination in acquired {
                    self.next_hops.release(destination, maps);
                }
                return Err(InsertError::NextHopsFull);
            }
            acquired.push(destination);
        }
        Ok(())
    }

    /// Brings the kernel's records of a flow up to date: written, or absent if a destination is not for the program.
    /// Returns which.
    fn write_or_drop(&mut self, id: u32, maps: &mut impl WriteMaps) -> Result<bool, InsertError> {
        let written = self.write(id, maps);
        if written.is_err() {
            self.drop_entry(id, maps);
        }
        written
    }

    fn write(&mut self, id: u32, maps: &mut impl WriteMaps) -> Result<bool, InsertError> {
        let Some(entry) = self.entry(id) else { return Ok(false) };
        let (flow, expires) = (entry.flow, entry.expires);
        let Some(next_hops) = self.next_hops_of(&flow) else {
            self.take_out(id, maps);
            return Ok(false);
        };
        let [to_peer, to_client] = next_hops;
        let stamp = Stamp { expires, to_peer, to_client, crossing: self.crossing_of(&flow) };
        for record in record::records(&flow, &stamp) {
            if let Err(error) = maps.insert(&record.key, &record.rewrite) {
                // The other record may be written already. None was there from before: to overwrite one needs no room.
                record::keys(&flow).for_each(|key| maps.remove(&key));
                return Err(InsertError::from(error));
            }
        }
        if let Some(entry) = self.entry_mut(id) {
            let before = entry.written.replace(next_hops);
            self.resident += usize::from(before.is_none());
        }
        Ok(true)
    }

    /// Takes the records of a flow that is still valid out of the kernel.
    fn take_out(&mut self, id: u32, maps: &mut impl WriteMaps) {
        if let Some(entry) = self.entry(id).filter(|entry| entry.written.is_some()) {
            // First, so that at no moment a permission seems not to exist.
            maps.state().revoke(entry.flow.allocation);
            self.erase(id, maps);
        }
    }

    /// Removes a flow's records, if it has any, but keeps the flow.
    fn erase(&mut self, id: u32, maps: &mut impl WriteMaps) {
        let Some(entry) = self.entry_mut(id) else { return };
        let flow = entry.flow;
        if entry.written.take().is_some() {
            self.resident -= 1;
            record::keys(&flow).for_each(|key| maps.remove(&key));
        }
    }

    /// Ends a flow.
    fn drop_entry(&mut self, id: u32, maps: &mut impl WriteMaps) {
        self.erase(id, maps);
        let Some(flow) = self.forget(id) else { return };
        for destination in self.destinations_of(&flow).into_iter().flatten() {
            self.next_hops.release(destination, maps);
        }
    }

    /// Forgets a flow that has neither records nor next hops any more.
    fn forget(&mut self, id: u32) -> Option<Flow> {
        let Entry { flow, .. } = self.entries.get_mut(id as usize)?.take()?;
        self.vacant.push(id);
        for key in record::keys(&flow) {
            self.owners.remove(&key);
        }
        Some(flow)
    }

    fn is_misrouted(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|entry| entry.written != self.next_hops_of(&entry.flow))
    }

    /// `None` if one of the destinations is not for the program.
    fn next_hops_of(&self, flow: &Flow) -> Option<Hops> {
        let [to_peer, to_client] = self.destinations_of(flow);
        let of = |destination: Option<Destination>| destination.map_or(Some(0), |known| self.next_hops.of(known));
        Some([of(to_peer)?, of(to_client)?])
    }

    fn destinations_of(&self, flow: &Flow) -> [Option<Destination>; 2] {
        destinations_of(flow, &self.relay_addresses)
    }

    /// The way to the peer, if it may be a client of this relay, behind its relayed address.
    fn crossing_of(&self, flow: &Flow) -> Option<Crossing> {
        match self.peer_of(flow) {
            Peer::Own(crossing) => Some(crossing),
            Peer::Stranger | Peer::OutOfReach => None,
        }
    }

    fn peer_of(&self, flow: &Flow) -> Peer {
        peer_of(flow, &self.relay_addresses)
    }

    fn id_of(&self, flow: &Flow) -> Option<u32> {
        let id = *self.owners.get(&record::keys(flow).next()?)?;
        (self.entry(id)?.flow == *flow).then_some(id)
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn entry_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }
}

/// Where packets of a flow go, to the peer and to the client, as far as routes have to be known for it. A peer that is this
/// host is reached through another client's records, and Send indications through those of their permission.
fn destinations_of(flow: &Flow, relay_addresses: &RelayAddresses) -> [Option<Destination>; 2] {
    let Some(peer) = flow.peer() else { return [None, None] };
    let to_peer = Destination { source: flow.relayed.ip(), destination: peer };
    let to_client = Destination { source: flow.server.ip(), destination: flow.client.ip() };
    match peer_of(flow, relay_addresses) {
        Peer::Stranger => [Some(to_peer), Some(to_client)],
        Peer::Own(_) => [None, Some(to_client)],
        Peer::OutOfReach => [None, None],
    }
}

fn peer_of(flow: &Flow, relay_addresses: &RelayAddresses) -> Peer {
    let of_leg = |local: SocketAddr, remote| relay_addresses.peer(local.ip(), remote);
    match flow.scope {
        // The program looks twice, not three times.
        Scope::Media { .. } if of_leg(flow.server, flow.client.ip()) != Peer::Stranger => Peer::OutOfReach,
        _ => flow.peer().map_or(Peer::Stranger, |peer| of_leg(flow.relayed, peer)),
    }
}

impl From<MapFull> for InsertError {
    fn from(_: MapFull) -> Self {
        Self::MapFull
    }
}

#[cfg(test)]
mod media_tests;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hairpin_common::maps::{PEER_IS_RELAYED, Rewrite, crossing};

    use super::super::flow::tests::{channel, crossed, flow4, flow6, scopes};
    use super::super::maps::fake::FakeMaps;
    use super::super::next_hop::rib::fake::FakeRib;
    use super::*;

    pub(super) const NOW: u32 = 1000;

    /// A table and its maps, as one thread would use them.
    pub(super) struct Lab {
        pub(super) table: FlowTable<FakeRib>,
        pub(super) maps: FakeMaps,
    }

    impl Lab {
        /// Clients and peers of `flow4` and `flow6` behind gateways on device 2. Relayed addresses are on theirs.
        pub(super) fn new() -> Self {
            let mut rib = FakeRib::new();
            for flow in [flow4(), flow6()] {
                for address in [flow.client.ip(), flow.peer().unwrap()] {
                    rib.route_to(address, 2, "192.0.2.254");
                }
            }
            rib.learn(2, "192.0.2.254", 0xaa);
            rib.learn(4, "203.0.113.254", 0xbb);
            let behind_nat = RelayAddress { bind: [10, 0, 0, 1].into(), public: [192, 0, 2, 9].into() };
            let plain =
                [flow4(), flow6()].map(|flow| flow.relayed.ip()).map(|ip| RelayAddress { bind: ip, public: ip });
            let (mut relay_addresses, mut maps) = (RelayAddresses::default(), FakeMaps::default());
            relay_addresses.exchange(&[plain[0], plain[1], behind_nat], &mut maps);
            Self { table: FlowTable::new(NextHops::new(rib), relay_addresses), maps }
        }

        /// Installs as a shard and the writer do it.
        pub(super) fn install(&mut self, flow: Flow, expires: u32) -> Result<(), InsertError> {
            self.install_at(flow, expires, NOW)
        }

        fn install_at(&mut self, flow: Flow, expires: u32, now: u32) -> Result<(), InsertError> {
            let change = self.maps.state.announce(flow.allocation);
            self.table.install(Install { flow, expires, change }, now, &mut self.maps)
        }

        pub(super) fn remove(&mut self, flow: Flow) {
            self.table.remove(flow, &mut self.maps);
        }

        fn reset(&mut self, allocation: u32) {
            let change = self.maps.state.announce(allocation);
            self.maps.state.settle(allocation, change);
        }

        pub(super) fn is_complete(&self, flow: Flow) -> bool {
            self.maps.state.is_complete(flow.allocation)
        }

        pub(super) fn rib(&mut self) -> &mut FakeRib {
            self.table.next_hops().rib_mut()
        }

        /// The records of a flow that are there.
        pub(super) fn records(&self, flow: Flow) -> Vec<Rewrite> {
            record::keys(&flow).filter_map(|key| self.maps.records.get(&key).copied()).collect()
        }

        /// How many flows and records there are.
        pub(super) fn count(&self) -> (usize, usize) {
            (self.table.resident(), self.maps.records.len())
        }
    }

    fn peer(flow: Flow) -> IpAddr {
        flow.peer().expect("a flow with a peer")
    }

    #[test]
    fn a_channel_is_two_records_until_it_is_removed() {
        let mut lab = Lab::new();
        let flows = [flow4(), Flow { allocation: 4, ..flow6() }];
        for flow in flows {
            lab.install(flow, NOW + 100).unwrap();
            let found: Vec<_> = lab.records(flow).iter().map(|record| (record.expires, record.next_hop)).collect();
            assert_eq!(found, [(NOW + 100, 1); 2]);
        }
        assert_eq!(lab.count(), (2, 4));
        for flow in flows {
            lab.remove(flow);
        }
        assert_eq!(lab.count(), (0, 0));
        assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
    }

    #[test]
    fn each_scope_comes_and_goes_on_its_own_for_all_pairs_of_families() {
        for flow in [flow4(), flow6(), crossed(flow4(), flow6()), crossed(flow6(), flow4())] {
            let mut lab = Lab::new();
            let counts = scopes(flow).map(|flow| {
                lab.install(flow, NOW + 100).unwrap();
                lab.records(flow).len()
            });
            assert_eq!((counts, lab.count()), ([2, 1, 2], (3, 5)), "{flow:?}");
            let [_, permission, _] = scopes(flow);
            let [data] = lab.records(permission)[..] else { panic!("one record") };
            assert_eq!((data.next_hop, data.peer_next_hop), (1, 1));
            for (left, flow) in [3, 2, 0].into_iter().zip(scopes(flow)) {
                lab.remove(flow);
                assert_eq!(lab.maps.records.len(), left, "after {flow:?}");
            }
            assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
        }
    }

    #[test]
    fn a_peer_of_this_relay_needs_no_route() {
        let mut lab = Lab::new();
        let own = Flow { scope: channel("192.0.2.1:50002"), ..flow4() };
        for flow in scopes(own) {
            lab.install(flow, NOW + 100).unwrap();
        }
        assert_eq!(lab.count(), (3, 5));
        let [_, permission, channel] = scopes(own);
        let [data] = lab.records(permission)[..] else { panic!("one record") };
        assert_eq!((data.next_hop, data.peer_next_hop, data.flags), (1, 0, PEER_IS_RELAYED));
        let [to_peer, to_client] = lab.records(channel)[..] else { panic!("two records") };
        assert_eq!((to_peer.next_hop, to_peer.flags), (0, PEER_IS_RELAYED));
        assert_eq!((to_client.next_hop, to_client.flags), (1, PEER_IS_RELAYED));
        assert!(lab.is_complete(own));
        assert_eq!(lab.table.reroute(&mut lab.maps), 0);
        assert_eq!(lab.count(), (3, 5));
        for flow in scopes(own) {
            lab.remove(flow);
        }
        assert!(lab.table.is_empty() && lab.table.next_hops().is_idle());
    }

    #[test]
    fn a_peer_of_this_relay_behind_a_nat_is_where_it_is_bound_and_the_program_is_told_how_to_get_there() {
        let mut lab = Lab::new();
        let own = Flow { scope: channel("192.0.2.9:50002"), ..flow4() };
        for flow in scopes(own) {
            lab.install(flow, NOW + 100).unwrap();
        }
        assert!(lab.is_complete(own));
        let [_, permission, channel] = scopes(own);
        let [data] = lab.records(permission)[..] else { panic!("one record") };
        assert_eq!((data.next_hop, data.peer_next_hop, data.flags), (1, crossing(1, 3), PEER_IS_RELAYED));
        let [to_peer, to_client] = lab.records(channel)[..] else { panic!("two records") };
        assert_eq!(
            (to_peer.next_hop, to_peer.flags, &to_peer.destination[..4]),
            (0, PEER_IS_RELAYED, &[10, 0, 0, 1][..])
        );
        assert_eq!((to_client.next_hop, to_client.flags), (1, PEER_IS_RELAYED));
    }

    /// Relay addresses without a NAT.
    fn plain(ips: &[&str]) -> Vec<RelayAddress> {
        ips.iter().map(|ip| RelayAddress::from(ip.parse::<IpAddr>().unwrap())).collect()
    }

    #[test]
    fn flows_are_judged_again_when_a_peer_becomes_one_of_this_relay_s_and_when_it_is_no_more() {
        let mut lab = Lab::new();
        let flows = scopes(flow4());
        let other = Flow { allocation: 4, ..flow6() };
        for flow in flows.into_iter().chain([other]) {
            lab.install(flow, NOW + 100).unwrap();
        }
        let (before, of_the_other) = (flows.map(|flow| lab.records(flow)), lab.records(other));
        let peer = peer(flow4()).to_string();
        let [_, permission, channel] = flows;

        let behind_nat = RelayAddress { bind: [10, 0, 0, 1].into(), public: peer.parse().unwrap() };
        assert_eq!(
            lab.table.set_relay_addresses(&[plain(&["192.0.2.1"]), vec![behind_nat]].concat(), &mut lab.maps),
            0
        );
        let [data] = lab.records(permission)[..] else { panic!("one record") };
        assert_eq!((data.next_hop, data.peer_next_hop, data.flags), (1, crossing(1, 4), PEER_IS_RELAYED));
        let [to_peer, to_client] = lab.records(channel)[..] else { panic!("two records") };
        let destination = &to_peer.destination[..4];
        assert_eq!((to_peer.next_hop, to_peer.flags, destination), (0, PEER_IS_RELAYED, &[10, 0, 0, 1][..]));
        assert_eq!((to_client.next_hop, to_client.flags), (1, PEER_IS_RELAYED));

        assert_eq!(lab.table.set_relay_addresses(&plain(&["192.0.2.1", &peer]), &mut lab.maps), 0);
        let [data] = lab.records(permission)[..] else { panic!("one record") };
        assert_eq!((data.peer_next_hop, data.flags), (0, PEER_IS_RELAYED), "under its own name");

        lab.table.set_relay_addresses(&plain(&["192.0.2.1"]), &mut lab.maps);
        assert_eq!(flows.map(|flow| lab.records(flow)), before);
        assert_eq!(lab.records(other), of_the_other);
        assert!(lab.is_complete(flow4()), "all of it was in the kernel all the time");
        assert!(!lab.maps.removed_while_complete);
        for flow in flows.into_iter().chain([other]) {
            lab.remove(flow);
        }
        assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
    }

    #[test]
    fn a_peer_that_the_program_cannot_be_told_of_any_more_is_left_to_userspace_and_leaves_a_gap() {
        let mut lab = Lab::new();
        for flow in scopes(flow4()) {
            lab.install(flow, NOW + 100).unwrap();
        }
        let many =
            (0..255_u8).map(|last| RelayAddress { bind: [10, 1, 0, last].into(), public: [10, 2, 0, last].into() });
        let own = plain(&["192.0.2.1"]);
        let last = RelayAddress { bind: [10, 3, 0, 1].into(), public: peer(flow4()) };
        lab.table
            .set_relay_addresses(&own.iter().copied().chain(many).chain([last]).collect::<Vec<_>>(), &mut lab.maps);
        assert_eq!(lab.count(), (1, 2), "but for the relay itself");
        assert!(!lab.is_complete(flow4()) && !lab.maps.removed_while_complete);
        lab.table.set_relay_addresses(&own, &mut lab.maps);
        for flow in scopes(flow4()) {
            lab.install(flow, NOW + 100).unwrap();
        }
        assert_eq!(lab.count(), (3, 5));
        for flow in scopes(flow4()) {
            lab.remove(flow);
        }
        assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
    }

    #[test]
    fn a_refresh_overwrites_both_records() {
        let mut lab = Lab::new();
        for expires in [NOW + 100, NOW + 200] {
            lab.install(flow4(), expires).unwrap();
            let found: Vec<_> = lab.maps.records.values().map(|record| record.expires).collect();
            assert_eq!(found, [expires; 2]);
        }
        assert!(lab.is_complete(flow4()));
    }

    #[test]
    fn a_peer_bound_to_another_channel_keeps_its_new_record() {
        let mut lab = Lab::new();
        let old = flow4();
        let Scope::Channel { peer, .. } = old.scope else { panic!("a channel") };
        let new = Flow { scope: Scope::Channel { channel: 0x4002, peer }, ..old };
        lab.install(old, NOW + 100).unwrap();
        lab.install(new, NOW + 100).unwrap();
        assert!(lab.is_complete(new));
        lab.remove(old);
        assert_eq!(lab.count(), (1, 2));
        assert_eq!(lab.records(new)[1].channel, [0x40, 0x02]);
    }

    #[test]
    fn who_is_vouched_for_has_a_record_of_no_allocation_until_it_ends() {
        let mut lab = Lab::new();
        let client = Flow::of_client(flow4().client, flow4().server);
        let [relay, ..] = scopes(flow4());
        lab.install(relay, NOW + 100).unwrap();
        for expires in [NOW + 10, NOW + 50] {
            lab.install(client, expires).unwrap();
            assert_eq!(lab.records(client).iter().map(|record| record.expires).collect::<Vec<_>>(), [expires]);
        }
        assert_eq!(lab.count(), (2, 3));
        lab.remove(client);
        assert_eq!((lab.count(), lab.is_complete(relay)), ((1, 2), true));
        lab.install(client, NOW + 10).unwrap();
        lab.table.sweep(NOW + 10 + GRACE, &mut lab.maps);
        assert_eq!(lab.count(), (1, 2));
    }

    /// The flows of an allocation whose client has moved.
    fn moved(flows: &[Flow; 3]) -> [Flow; 3] {
        flows.map(|flow| Flow { client: "192.0.2.11:40001".parse().unwrap(), ..flow })
    }

    #[test]
    fn a_client_that_moves_takes_its_flows_along_and_no_peer_is_a_stranger_meanwhile() {
        let mut lab = Lab::new();
        lab.rib().route_to("192.0.2.11".parse().unwrap(), 2, "192.0.2.254");
        let flows = scopes(flow4());
        for flow in flows {
            lab.install(flow, NOW + 100).unwrap();
        }
        let there = moved(&flows);
        for flow in there {
            lab.install(flow, NOW + 100).unwrap();
        }
        // They are handed over already: each of the new ones has a key of its old one.
        assert_eq!(lab.count(), (3, 5));
        for flow in flows {
            lab.remove(flow);
        }
        assert_eq!(lab.count(), (3, 5));
        let [kept, gone] = [1, 0].map(|at| record::keys(&flows[2]).nth(at).expect("two keys"));
        assert!(lab.maps.removals.contains(&gone) && !lab.maps.removals.contains(&kept), "it changes hands in place");
        assert!(!lab.maps.removed_while_complete, "a peer was a stranger for a moment");
        assert!(lab.is_complete(flow4()));
        let [_, permission, channel] = there;
        for record in [lab.records(permission)[0], lab.records(channel)[1]] {
            assert_eq!((&record.destination[..4], record.destination_port), (&[192, 0, 2, 11][..], [0x9c, 0x41]));
        }
        assert!(record::keys(&flows[2]).any(|key| !lab.maps.records.contains_key(&key)), "the old way in is closed");
        for flow in there {
            lab.remove(flow);
        }
        assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.next_hops().is_idle());
    }

    #[test]
    fn what_a_moved_client_does_not_take_along_ends_when_it_is_removed() {
        let mut lab = Lab::new();
        lab.rib().route_to("192.0.2.11".parse().unwrap(), 2, "192.0.2.254");
        let flows = scopes(flow4());
        for flow in flows {
            lab.install(flow, NOW + 100).unwrap();
        }
        let [relay, permission, _] = moved(&flows);
        for flow in [relay, permission] {
            lab.install(flow, NOW + 100).unwrap();
        }
        for flow in flows {
            lab.remove(flow);
        }
        assert_eq!(lab.count(), (2, 3));
    }

    #[test]
    fn a_full_map_leaves_no_half_flow_and_loses_no_other() {
        let mut lab = Lab::new();
        lab.maps.capacity = 3;
        lab.install(flow4(), NOW + 100).unwrap();
        let refused = lab.install(flow6(), NOW + 100);
        assert!(matches!(refused, Err(InsertError::MapFull)), "{refused:?}");
        assert_eq!(lab.count(), (1, 2));
        lab.install(flow4(), NOW + 200).expect("a refresh needs no room");
        lab.remove(flow4());
        lab.install(flow6(), NOW + 100).expect("there is room again");
        lab.remove(flow6());
        assert!(lab.table.next_hops().is_idle());
    }

    #[test]
    fn expired_flows_are_swept_after_a_grace_unless_they_were_refreshed() {
        let mut lab = Lab::new();
        lab.install(flow4(), NOW + 10).unwrap();
        lab.install(flow6(), NOW + 10).unwrap();
        lab.install(flow6(), NOW + 50).unwrap();
        lab.table.sweep(NOW + 10 + GRACE - 1, &mut lab.maps);
        assert_eq!(lab.table.resident(), 2);
        lab.table.sweep(NOW + 10 + GRACE, &mut lab.maps);
        assert_eq!(lab.table.resident(), 1);
        assert_eq!(lab.records(flow6()).len(), 2);
        lab.table.sweep(NOW + 50 + GRACE, &mut lab.maps);
        assert!(lab.table.is_empty() && lab.maps.records.is_empty() && lab.table.expiries.is_empty());
        assert!(lab.is_complete(flow4()), "what is over by itself leaves no gap");
    }

    #[test]
    fn a_place_that_was_reused_is_not_swept_for_its_former_flow() {
        let mut lab = Lab::new();
        lab.install(flow4(), NOW + 10).unwrap();
        lab.remove(flow4());
        lab.install(flow6(), NOW + 500).unwrap();
        lab.table.sweep(NOW + 100, &mut lab.maps);
        assert_eq!(lab.table.resident(), 1);
    }

    #[test]
    fn an_install_that_comes_too_late_removes_and_is_not_confirmed() {
        let mut lab = Lab::new();
        lab.install(flow4(), NOW + 10).unwrap();
        lab.install_at(flow4(), NOW + 10, NOW + 10).unwrap();
        assert!(lab.maps.records.is_empty() && lab.table.is_empty());
        assert!(!lab.is_complete(flow4()));
    }

    #[test]
    fn a_destination_that_is_not_for_the_program_keeps_the_flow_out_until_a_route_changes() {
        let mut lab = Lab::new();
        let route = lab.rib().routes.remove(&peer(flow4())).unwrap();
        lab.install(flow4(), NOW + 100).unwrap();
        assert_eq!(lab.count(), (0, 0));
        assert!(!lab.is_complete(flow4()), "its peer's packets have to go up");

        lab.rib().routes.insert(peer(flow4()), route);
        assert_eq!(lab.table.reroute(&mut lab.maps), 0);
        assert_eq!(lab.count(), (1, 2));

        lab.rib().routes.remove(&flow4().client.ip());
        assert_eq!(lab.table.reroute(&mut lab.maps), 0);
        assert_eq!(lab.count(), (0, 0));
    }

    #[test]
    fn records_follow_a_moved_route() {
        let mut lab = Lab::new();
        lab.install(flow4(), NOW + 100).unwrap();
        lab.install(flow6(), NOW + 100).unwrap();
        lab.rib().route_to(peer(flow4()), 4, "203.0.113.254");
        let untouched = lab.records(flow6());
        lab.table.reroute(&mut lab.maps);
        let [to_peer, to_client] = lab.records(flow4())[..] else { panic!("two records") };
        assert_eq!(lab.maps.next_hops[&to_peer.next_hop].interface, 4);
        assert_eq!(to_client.next_hop, 1);
        assert_eq!(lab.records(flow6()), untouched);
        assert!(lab.is_complete(flow4()), "it was never out of the kernel");
    }

    #[test]
    fn an_unsupported_flow_is_neither_installed_nor_a_failure_but_leaves_a_gap() {
        let mut lab = Lab::new();
        let loopback = Flow { scope: Scope::Permission { peer: [127, 0, 0, 1].into() }, ..flow4() };
        lab.install(loopback, NOW + 100).unwrap();
        lab.remove(loopback);
        assert!(lab.table.is_empty() && lab.maps.records.is_empty());
        assert!(!lab.is_complete(loopback));
    }

    #[test]
    fn an_allocation_is_complete_while_all_of_it_is_in_the_kernel() {
        let mut lab = Lab::new();
        let [relay, permission, channel] = scopes(flow4());
        for flow in [relay, permission, channel] {
            let change = lab.maps.state.announce(flow.allocation);
            assert!(!lab.is_complete(flow), "{flow:?} is under way");
            lab.table.install(Install { flow, expires: NOW + 100, change }, NOW, &mut lab.maps).unwrap();
            assert!(lab.is_complete(flow), "{flow:?} is there");
        }
        lab.remove(channel);
        assert!(lab.is_complete(relay), "a removal is a gap to nobody");
    }

    #[test]
    fn what_finds_no_room_leaves_a_gap_until_the_index_is_reset() {
        let mut lab = Lab::new();
        let [relay, permission, channel] = scopes(flow4());
        lab.maps.capacity = 2;
        lab.install(relay, NOW + 100).unwrap();
        lab.install(permission, NOW + 100).unwrap_err();
        assert!(!lab.is_complete(relay));
        lab.maps.capacity = 5;
        lab.install(permission, NOW + 100).unwrap();
        lab.install(channel, NOW + 100).unwrap();
        assert!(!lab.is_complete(relay), "later ones do not close it");
        lab.reset(relay.allocation);
        lab.install(relay, NOW + 200).unwrap();
        assert!(lab.is_complete(relay));
    }

    #[test]
    fn a_flow_that_a_route_takes_out_of_the_kernel_leaves_a_gap_even_when_it_comes_back() {
        let mut lab = Lab::new();
        let [relay, permission, _] = scopes(flow4());
        lab.install(relay, NOW + 100).unwrap();
        lab.install(permission, NOW + 100).unwrap();
        assert!(lab.is_complete(relay));
        let route = lab.rib().routes.remove(&peer(permission)).unwrap();
        lab.table.reroute(&mut lab.maps);
        assert_eq!(lab.count(), (1, 2));
        assert!(!lab.maps.removed_while_complete, "the peer was a stranger for a moment");
        assert!(!lab.is_complete(relay));
        lab.rib().routes.insert(peer(permission), route);
        lab.table.reroute(&mut lab.maps);
        lab.install(permission, NOW + 200).unwrap();
        assert_eq!(lab.count(), (2, 3));
        assert!(!lab.is_complete(relay));
    }

    #[test]
    fn another_allocations_gap_is_its_own() {
        let mut lab = Lab::new();
        let other = Flow { allocation: 4, ..flow6() };
        lab.maps.capacity = 2;
        lab.install(flow4(), NOW + 100).unwrap();
        lab.install(other, NOW + 100).unwrap_err();
        assert!(lab.is_complete(flow4()) && !lab.is_complete(other));
    }
}
