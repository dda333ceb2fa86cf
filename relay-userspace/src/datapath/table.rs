//! The flows that are (to be) in the kernel: the truth of which the maps are a copy.
//!
//! Either both records of a flow are in the kernel or none: half a flow would save nobody the userspace path, but take
//! room in the map and let packets of one direction overtake those of the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use super::flow::{Direction, Flow};
use super::flow_map::MapFull;
use super::maps::WriteMaps;
use super::next_hop::rib::Rib;
use super::next_hop::{Destination, NextHops};
use super::record::{self, Key, Stamp};

/// How long a record stays in the kernel after its expiry, in ticks (about a second). The program does not use it any
/// more, and a refresh that comes a little late then overwrites it instead of adding it anew.
const GRACE: u32 = 8;

/// Why a flow did not get into the kernel. It goes on in userspace.
#[derive(Debug, thiserror::Error)]
pub(super) enum InsertError {
    /// The map has no room for it.
    #[error("the flow map is full; more flows stay in userspace")]
    MapFull,
    /// All next hops are taken.
    #[error("all next hops are taken; flows to other neighbours stay in userspace")]
    NextHopsFull,
}

/// All flows, and the next hops they need.
#[derive(Debug)]
pub(super) struct FlowTable<R> {
    next_hops: NextHops<R>,
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    /// Which entry owns a key. Two flows can claim one key only for a moment, when a peer is bound to another channel;
    /// then the later one has it.
    owners: HashMap<Key, u32>,
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
    /// Next hops as its records in the kernel have them, in the order of [`Direction::BOTH`]; `None` when it has no
    /// records, because a destination is not for the program.
    written: Option<[u16; 2]>,
}

impl<R: Rib> FlowTable<R> {
    pub(super) fn new(next_hops: NextHops<R>) -> Self {
        Self {
            next_hops,
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

    /// How many flows have their records in the kernel.
    pub(super) fn resident(&self) -> usize {
        self.resident
    }

    /// Whether there is no flow at all.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Adds a flow, or gives it a new expiry. One that this version can't forward is left to userspace without an error.
    pub(super) fn install(
        &mut self,
        flow: Flow,
        expires: u32,
        now: u32,
        maps: &mut impl WriteMaps,
    ) -> Result<(), InsertError> {
        let flow = flow.canonical();
        let Some(keys) = keys_of(&flow) else { return Ok(()) };
        if expires <= now {
            self.remove(flow, maps);
            return Ok(());
        }
        if let Some(id) = self.id_of(&flow) {
            if let Some(entry) = self.entry_mut(id) {
                entry.expires = expires;
            }
            return self.write_or_drop(id, maps);
        }
        for key in keys {
            if let Some(&displaced) = self.owners.get(&key) {
                self.drop_entry(displaced, maps);
            }
        }
        self.add(flow, keys, expires, maps)
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

    fn add(&mut self, flow: Flow, keys: [Key; 2], expires: u32, maps: &mut impl WriteMaps) -> Result<(), InsertError> {
        let [first, second] = destinations_of(&flow);
        self.next_hops.acquire(first, maps).map_err(|_| InsertError::NextHopsFull)?;
        if self.next_hops.acquire(second, maps).is_err() {
            self.next_hops.release(first, maps);
            return Err(InsertError::NextHopsFull);
        }
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
        for key in keys {
            self.owners.insert(key, id);
        }
        self.write_or_drop(id, maps)
    }

    /// Brings the kernel's records of a flow up to date: written, or absent if a destination is not for the program.
    fn write_or_drop(&mut self, id: u32, maps: &mut impl WriteMaps) -> Result<(), InsertError> {
        let written = self.write(id, maps);
        if written.is_err() {
            self.drop_entry(id, maps);
        }
        written
    }

    fn write(&mut self, id: u32, maps: &mut impl WriteMaps) -> Result<(), InsertError> {
        let Some(entry) = self.entry(id) else { return Ok(()) };
        let (flow, expires) = (entry.flow, entry.expires);
        let Some(next_hops) = self.next_hops_of(&flow) else {
            self.erase(id, maps);
            return Ok(());
        };
        for (direction, next_hop) in Direction::BOTH.into_iter().zip(next_hops) {
            let Some(key) = Key::of(&flow, direction) else { continue };
            let stamp = Stamp { next_hop, expires };
            if let Err(error) = maps.insert(&key, &record::rewrite(&flow, direction, stamp)) {
                // The other direction may be written already, or be there from before.
                for key in keys_of(&flow).into_iter().flatten() {
                    maps.remove(&key);
                }
                return Err(InsertError::from(error));
            }
        }
        if let Some(entry) = self.entry_mut(id) {
            let before = entry.written.replace(next_hops);
            self.resident += usize::from(before.is_none());
        }
        Ok(())
    }

    /// Takes a flow's records out of the kernel, but keeps the flow.
    fn erase(&mut self, id: u32, maps: &mut impl WriteMaps) {
        let Some(entry) = self.entry_mut(id) else { return };
        let flow = entry.flow;
        if entry.written.take().is_some() {
            self.resident -= 1;
            for key in keys_of(&flow).into_iter().flatten() {
                maps.remove(&key);
            }
        }
    }

    fn drop_entry(&mut self, id: u32, maps: &mut impl WriteMaps) {
        self.erase(id, maps);
        let Some(entry) = self.entries.get_mut(id as usize).and_then(Option::take) else { return };
        self.vacant.push(id);
        for key in keys_of(&entry.flow).into_iter().flatten() {
            self.owners.remove(&key);
        }
        for destination in destinations_of(&entry.flow) {
            self.next_hops.release(destination, maps);
        }
    }

    fn is_misrouted(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|entry| entry.written != self.next_hops_of(&entry.flow))
    }

    fn next_hops_of(&self, flow: &Flow) -> Option<[u16; 2]> {
        let [first, second] = destinations_of(flow);
        Some([self.next_hops.of(first)?, self.next_hops.of(second)?])
    }

    fn id_of(&self, flow: &Flow) -> Option<u32> {
        let id = *self.owners.get(&Key::of(flow, Direction::ToPeer)?)?;
        (self.entry(id)?.flow == *flow).then_some(id)
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn entry_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }
}

impl From<MapFull> for InsertError {
    fn from(_: MapFull) -> Self {
        Self::MapFull
    }
}

/// Both keys in the order of [`Direction::BOTH`]; `None` for a flow that is not for the program.
fn keys_of(flow: &Flow) -> Option<[Key; 2]> {
    if !flow.is_supported() {
        return None;
    }
    Some([Key::of(flow, Direction::ToPeer)?, Key::of(flow, Direction::ToClient)?])
}

fn destinations_of(flow: &Flow) -> [Destination; 2] {
    Direction::BOTH.map(|direction| {
        let path = flow.leaves(direction);
        Destination { source: path.source.ip(), destination: path.destination.ip() }
    })
}

#[cfg(test)]
mod tests {
    use super::super::flow::tests::{flow4, flow6};
    use super::super::maps::fake::FakeMaps;
    use super::super::next_hop::rib::fake::FakeRib;
    use super::*;

    const NOW: u32 = 1000;

    /// Clients and peers of `flow4` and `flow6` behind gateways on device 2.
    fn table() -> (FlowTable<FakeRib>, FakeMaps) {
        let mut rib = FakeRib::new();
        for flow in [flow4(), flow6()] {
            for address in [flow.client.ip(), flow.peer.ip()] {
                rib.route_to(address, 2, "192.0.2.254");
            }
        }
        rib.learn(2, "192.0.2.254", 0xaa);
        rib.learn(4, "203.0.113.254", 0xbb);
        (FlowTable::new(NextHops::new(rib)), FakeMaps::default())
    }

    fn key(flow: &Flow, direction: Direction) -> Key {
        Key::of(flow, direction).unwrap()
    }

    #[test]
    fn a_flow_is_two_records_until_it_is_removed() {
        let (mut table, mut maps) = table();
        for flow in [flow4(), flow6()] {
            table.install(flow, NOW + 100, NOW, &mut maps).unwrap();
            for direction in Direction::BOTH {
                let record = maps.records[&key(&flow, direction)];
                assert_eq!((record.expires, record.next_hop), (NOW + 100, 1));
            }
        }
        assert_eq!((table.resident(), maps.records.len()), (2, 4));
        table.remove(flow4(), &mut maps);
        table.remove(flow6(), &mut maps);
        assert_eq!((table.resident(), maps.records.len()), (0, 0));
        assert!(table.is_empty() && table.next_hops().is_idle());
    }

    #[test]
    fn a_refresh_overwrites_both_records() {
        let (mut table, mut maps) = table();
        for expires in [NOW + 100, NOW + 200] {
            table.install(flow4(), expires, NOW, &mut maps).unwrap();
            let found: Vec<_> = maps.records.values().map(|record| record.expires).collect();
            assert_eq!(found, [expires; 2]);
        }
    }

    #[test]
    fn a_peer_bound_to_another_channel_keeps_its_new_record() {
        let (mut table, mut maps) = table();
        let old = flow4();
        let new = Flow { channel: 0x4002, ..old };
        table.install(old, NOW + 100, NOW, &mut maps).unwrap();
        table.install(new, NOW + 100, NOW, &mut maps).unwrap();
        assert!(!maps.records.contains_key(&key(&old, Direction::ToPeer)));
        table.remove(old, &mut maps);
        assert_eq!(maps.records[&key(&new, Direction::ToClient)].channel, [0x40, 0x02]);
        assert_eq!((table.resident(), maps.records.len()), (1, 2));
    }

    #[test]
    fn a_full_map_leaves_no_half_flow_and_loses_no_other() {
        let (mut table, mut maps) = table();
        maps.capacity = 3;
        table.install(flow4(), NOW + 100, NOW, &mut maps).unwrap();
        let refused = table.install(flow6(), NOW + 100, NOW, &mut maps);
        assert!(matches!(refused, Err(InsertError::MapFull)), "{refused:?}");
        assert_eq!((table.resident(), maps.records.len()), (1, 2));
        table.install(flow4(), NOW + 200, NOW, &mut maps).expect("a refresh needs no room");
        table.remove(flow4(), &mut maps);
        table.install(flow6(), NOW + 100, NOW, &mut maps).expect("there is room again");
        table.remove(flow6(), &mut maps);
        assert!(table.next_hops().is_idle());
    }

    #[test]
    fn expired_flows_are_swept_after_a_grace_unless_they_were_refreshed() {
        let (mut table, mut maps) = table();
        table.install(flow4(), NOW + 10, NOW, &mut maps).unwrap();
        table.install(flow6(), NOW + 10, NOW, &mut maps).unwrap();
        table.install(flow6(), NOW + 50, NOW, &mut maps).unwrap();
        table.sweep(NOW + 10 + GRACE - 1, &mut maps);
        assert_eq!(table.resident(), 2);
        table.sweep(NOW + 10 + GRACE, &mut maps);
        assert_eq!(table.resident(), 1);
        assert!(maps.records.contains_key(&key(&flow6(), Direction::ToPeer)));
        table.sweep(NOW + 50 + GRACE, &mut maps);
        assert!(table.is_empty() && maps.records.is_empty() && table.expiries.is_empty());
    }

    #[test]
    fn a_place_that_was_reused_is_not_swept_for_its_former_flow() {
        let (mut table, mut maps) = table();
        table.install(flow4(), NOW + 10, NOW, &mut maps).unwrap();
        table.remove(flow4(), &mut maps);
        table.install(flow6(), NOW + 500, NOW, &mut maps).unwrap();
        table.sweep(NOW + 100, &mut maps);
        assert_eq!(table.resident(), 1);
    }

    #[test]
    fn an_install_that_comes_too_late_removes() {
        let (mut table, mut maps) = table();
        table.install(flow4(), NOW + 10, NOW, &mut maps).unwrap();
        table.install(flow4(), NOW + 10, NOW + 10, &mut maps).unwrap();
        assert!(maps.records.is_empty() && table.is_empty());
    }

    #[test]
    fn a_destination_that_is_not_for_the_program_keeps_the_flow_out_until_a_route_changes() {
        let (mut table, mut maps) = table();
        let route = table.next_hops().rib_mut().routes.remove(&flow4().peer.ip()).unwrap();
        table.install(flow4(), NOW + 100, NOW, &mut maps).unwrap();
        assert_eq!((table.resident(), maps.records.len()), (0, 0));

        table.next_hops().rib_mut().routes.insert(flow4().peer.ip(), route);
        assert_eq!(table.reroute(&mut maps), 0);
        assert_eq!((table.resident(), maps.records.len()), (1, 2));

        table.next_hops().rib_mut().routes.remove(&flow4().client.ip());
        assert_eq!(table.reroute(&mut maps), 0);
        assert_eq!((table.resident(), maps.records.len()), (0, 0));
    }

    #[test]
    fn records_follow_a_moved_route() {
        let (mut table, mut maps) = table();
        table.install(flow4(), NOW + 100, NOW, &mut maps).unwrap();
        table.install(flow6(), NOW + 100, NOW, &mut maps).unwrap();
        table.next_hops().rib_mut().route_to(flow4().peer.ip(), 4, "203.0.113.254");
        let untouched = maps.records[&key(&flow6(), Direction::ToPeer)];
        table.reroute(&mut maps);
        let moved = maps.records[&key(&flow4(), Direction::ToPeer)];
        assert_eq!(maps.next_hops[&moved.next_hop].interface, 4);
        assert_eq!(maps.records[&key(&flow4(), Direction::ToClient)].next_hop, 1);
        assert_eq!(maps.records[&key(&flow6(), Direction::ToPeer)], untouched);
    }

    #[test]
    fn an_unsupported_flow_is_neither_installed_nor_a_failure() {
        let (mut table, mut maps) = table();
        let cross_family = Flow { relayed: flow6().relayed, peer: flow6().peer, ..flow4() };
        table.install(cross_family, NOW + 100, NOW, &mut maps).unwrap();
        table.remove(cross_family, &mut maps);
        assert!(table.is_empty() && maps.records.is_empty());
    }
}
