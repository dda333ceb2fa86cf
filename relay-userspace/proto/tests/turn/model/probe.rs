//! Everything that a client could try, and everything that could come from peers.

use std::collections::HashMap;
use std::time::Instant;

use hairpin_proto::address::{AddressFamily, PeerAddr, RelayedAddr, Transport};
use hairpin_proto::turn::{Disposition, Forward, Scope};

use super::datagrams::check_frame;
use super::settings::public;
use super::{CHANNELS, CLIENTS, PEERS, QUOTA, USERS, World};
use crate::harness::{channel_data, framed, send_indication, socket};

impl World {
    pub(super) fn probe(&mut self) {
        let now = self.relay.now.instant;
        for client in 0..CLIENTS {
            self.rights[client].tidy(now);
            self.probe_client(client, now);
            self.probe_flows(client, now);
        }
        self.probe_peers(now);
        self.probe_descriptions();
        self.probe_quotas();
    }

    fn probe_client(&mut self, client: usize, now: Instant) {
        let rights = &self.rights[client];
        for (peer, name) in PEERS.iter().enumerate() {
            let datagram = send_indication(name, b"probe");
            let sent = self.relay.client_sends(&self.clients[client][0], &datagram);
            assert_eq!(matches!(sent, Disposition::Forward(_)), rights.permits(peer, now), "client {client} to {name}");
        }
        for number in CHANNELS {
            let datagram = channel_data(number, b"probe");
            let expected = rights.peer_of(number, now).map(|peer| socket(PEERS[peer]));
            let reached = match self.relay.client_sends(&self.clients[client][0], &datagram) {
                Disposition::Forward(Forward::ToPeer { peer, .. }) => Some(peer.socket()),
                _ => None,
            };
            assert_eq!(reached, expected, "client {client}, channel 0x{number:04x}");
        }
    }

    /// What a fast path forwards until it is told otherwise, and until when, is what the client has a right to.
    fn probe_flows(&self, client: usize, now: Instant) {
        let (rights, five_tuple) = (&self.rights[client], self.clients[client][0].five_tuple);
        let installed = self.relay.flows.values().filter(|(flow, end)| flow.five_tuple == five_tuple && now < *end);
        let installed: HashMap<_, _> = installed.map(|(flow, end)| ((flow.relayed, flow.scope), *end)).collect();
        let mut expected = HashMap::new();
        // A fast path knows nothing of streams and of what is encrypted.
        let fast = five_tuple.transport == Transport::Udp;
        for (family, relay_end) in rights.families.iter().filter(|_| fast) {
            let relayed = self.relayed(client, *family);
            let mut expect = |scope, end: Instant| {
                if now < end {
                    expected.insert((relayed, scope), end);
                }
            };
            expect(Scope::Relay, *relay_end);
            for (ip, end) in rights.permissions.iter().filter(|(ip, _)| AddressFamily::of(**ip) == *family) {
                expect(Scope::Permission { peer: *ip }, *end.min(relay_end));
            }
            for (number, (peer, end)) in &rights.channels {
                let peer = PeerAddr::new(socket(PEERS[*peer]));
                let permission = rights.permissions.get(&peer.ip()).filter(|_| AddressFamily::of(peer.ip()) == *family);
                if let Some(permission) = permission {
                    expect(Scope::Channel { channel: *number, peer }, *end.min(permission).min(relay_end));
                }
            }
        }
        assert_eq!(installed, expected, "the flows of client {client}");
    }

    fn probe_peers(&mut self, now: Instant) {
        let sockets: Vec<_> = self.relay.sockets.iter().map(|(id, address)| (*id, *address)).collect();
        for (id, address) in sockets {
            let owner = self.owner_of(address);
            for (peer, name) in
                PEERS.iter().enumerate().filter(|(_, name)| family_to(name) == AddressFamily::of(address.ip()))
            {
                let rights = owner.map(|owner| &self.rights[owner]).filter(|rights| rights.permits(peer, now));
                let expected = rights.map(|rights| rights.channel_to(peer, now));
                let disposition = self.relay.peer_sends(id, name, b"probe");
                let reached = match disposition {
                    Disposition::Forward(Forward::ToClient { header, five_tuple, .. }) => {
                        assert_eq!(Some(five_tuple), owner.map(|owner| self.clients[owner][0].five_tuple));
                        let [high, low, ..] = *header.as_bytes() else { panic!("no header") };
                        let channel = Some(u16::from_be_bytes([high, low])).filter(|first| *first >= 0x4000);
                        check_frame(&framed(disposition), five_tuple, channel, name, b"probe");
                        Some(channel)
                    }
                    _ => None,
                };
                assert_eq!(reached, expected, "from {name} to {address}");
            }
        }
    }

    /// Each allocation and each reserved port is counted, and nothing else.
    fn probe_quotas(&self) {
        let in_use = self.relay.quotas.in_use();
        assert!(in_use <= USERS * QUOTA, "{in_use} are counted");
        if self.begun.iter().all(Option::is_none) {
            assert!(in_use >= self.relay.server.allocations() + self.relay.reserved.len(), "{in_use} are counted");
            assert_eq!(self.relay.allocations.len(), self.relay.server.allocations());
            assert_eq!(self.relay.waiting, [], "sockets are bound for nobody");
        }
    }

    /// The socket behind the relayed address that a client was told.
    pub(super) fn relayed(&self, client: usize, family: AddressFamily) -> RelayedAddr {
        let told = self.told[client].iter().find(|told| AddressFamily::of(told.ip()) == family).expect("it was told");
        let bound = |address: &&RelayedAddr| public(**address) == *told;
        *self.relay.sockets.values().find(bound).expect("a socket is open")
    }
}

pub(super) fn family_to(peer: &str) -> AddressFamily {
    AddressFamily::of(socket(peer).ip())
}
