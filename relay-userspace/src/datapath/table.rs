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
mod tests;
