//! Relaying between clients and peers over TCP (RFC 6062): how peers come, and how pairs are made and end.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use hairpin_proto::address::{FiveTuple, PeerAddr};
use hairpin_proto::turn::{AllocationId, ConnectError, ConnectionId, RelayId};

use super::connection::StreamBuffer;
use super::pairs::{Ledger, Pairs};
use super::peers::Stage;
use super::register::Register;
use super::report::Counters;
use super::socket::Socket;
use super::sockets::Ready;
use super::state::{State, now};
use super::streams::is_exhausted;
use crate::datapath::{self, Direction};
use crate::net::Stream;

/// How many connections to one relayed address are accepted in a round.
const ACCEPTED: usize = 16;

impl State {
    /// Takes the connections that peers have made to a relayed address.
    pub(super) fn accept_peers(&mut self, relay: Socket) {
        let Socket::Relay(relay_id, _) = relay else { return };
        for _ in 0..ACCEPTED {
            let Some(listener) = self.sockets.relay_listener(relay) else { return };
            match listener.accept() {
                Ok((stream, remote)) => self.accept_peer(relay_id, stream, remote),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_exhausted(&error) => return self.rest(relay),
                // About the one connection, which is gone.
                Err(_) => {}
            }
        }
    }

    fn accept_peer(&mut self, relay: RelayId, stream: Stream, remote: SocketAddr) {
        if self.is_full_of_peers() {
            return;
        }
        let peer = PeerAddr::new(self.translation.outside(remote));
        let Some(id) = self.server.peer_accepted(now(), relay, peer) else { return };
        if self.peers.accepted(id, stream).is_err() {
            self.server.connection_closed(now(), id);
        }
        self.carry_out();
    }

    fn is_full_of_peers(&self) -> bool {
        self.peers.len() + self.pairs.len() >= self.max_peers
    }

    /// Begins a connection to a peer.
    pub(super) fn connect(&mut self, id: ConnectionId, local: Option<SocketAddr>, peer: PeerAddr) {
        let result = match local {
            Some(local) if !self.is_full_of_peers() => self.connect_from(id, local, peer),
            _ => Err(ConnectError::Unavailable),
        };
        if let Err(error) = result {
            self.server.peer_connected(now(), id, Err(error));
        }
    }

    fn connect_from(&mut self, id: ConnectionId, local: SocketAddr, peer: PeerAddr) -> Result<(), ConnectError> {
        let destination = self.translation.inside(peer.socket());
        // Of this host's own ports, relayed addresses alone may be reached: its services may have some of the range.
        if self.server.permits_for_its_port(peer) && !self.sockets.is_relayed_over_tcp(destination) {
            return Err(ConnectError::Failed);
        }
        self.peers.connect(id, local, destination).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => ConnectError::InUse,
            _ if is_exhausted(&error) => ConnectError::Unavailable,
            _ => ConnectError::Failed,
        })
    }

    /// Joins a client's connection to a peer's, as soon as it is known what has come behind the request.
    pub(super) fn join(&mut self, id: ConnectionId, five_tuple: &FiveTuple) {
        match self.connections.of(five_tuple) {
            Some(socket) => {
                self.joining = Some(id);
                self.joined = Some(socket);
            }
            None => self.peer_ended(id),
        }
    }

    /// Joins the connection that [`State::join`] was about.
    pub(super) fn join_with(&mut self, socket: Socket, behind: &[u8]) {
        let Some(id) = self.joining.take() else { return };
        let client = self.connections.remove(socket, None);
        let (client, peer) = (client.map(|removed| removed.connection), self.peers.take(id));
        let allocation = self.server.allocation_of_connection(id);
        if let (Some(client), Some(peer), Some(allocation)) = (client, peer, allocation) {
            let (pairs, mut books) = self.pairs_and_books();
            if pairs.join(id, allocation, client, peer, behind, &mut books).is_ok() {
                return;
            }
        }
        self.server.connection_closed(now(), id);
        self.carry_out();
    }

    /// Closes a peer's connection, and the client's that is joined to it: the engine has forgotten them.
    pub(super) fn close_connection(&mut self, id: ConnectionId) {
        self.peers.close(id);
        if let Some(end) = self.pairs.close(id) {
            self.connections.count_end(end);
        }
    }

    /// Something has happened at a peer's connection, or at a client's that is joined to one.
    pub(super) fn peer_ready(&mut self, id: ConnectionId, ready: Ready, buffer: &mut StreamBuffer) {
        match self.peers.stage(id) {
            Some(Stage::Connecting) => {
                let result = self.peers.connected(id).map_err(|_| ConnectError::Failed);
                if result.is_err() {
                    self.peers.close(id);
                }
                self.server.peer_connected(now(), id, result);
                self.carry_out();
            }
            // Nothing was asked for but errors.
            Some(Stage::Waiting) => {
                self.peer_ended(id);
                self.carry_out();
            }
            None => {
                let (pairs, mut books) = self.pairs_and_books();
                if pairs.ready(id, ready, buffer, &mut books) {
                    self.pair_ended(id);
                }
            }
        }
    }

    fn pairs_and_books(&mut self) -> (&mut Pairs, Books<'_>) {
        let Self { pairs, datapath, counters, register, others, index, batch_time, .. } = self;
        let shards = others.len() as u32;
        (pairs, Books { datapath, counters, register, shards, index: *index, time: *batch_time })
    }

    fn peer_ended(&mut self, id: ConnectionId) {
        self.peers.close(id);
        self.server.connection_closed(now(), id);
    }

    fn pair_ended(&mut self, id: ConnectionId) {
        self.close_connection(id);
        self.server.connection_closed(now(), id);
        self.carry_out();
    }

    /// Does what is to be done for pairs although nothing arrives.
    pub(super) fn handle_pair_timeouts(&mut self, now: Instant, buffer: &mut StreamBuffer) {
        self.batch_time = crate::clock::monotonic_nanoseconds();
        let (pairs, mut books) = self.pairs_and_books();
        for id in pairs.pay(now, buffer, &mut books) {
            self.pair_ended(id);
        }
        while let Some(id) = self.pairs.take_silent(now) {
            self.pair_ended(id);
        }
    }
}

/// The limits and counters of a shard.
struct Books<'s> {
    datapath: &'s datapath::Handle,
    counters: &'s mut Counters,
    register: &'s mut Register,
    shards: u32,
    index: u32,
    time: u64,
}

impl Ledger for Books<'_> {
    fn admit(&mut self, AllocationId(id): AllocationId, direction: Direction, bytes: usize) -> bool {
        self.datapath.admit(id * self.shards + self.index, direction, bytes, self.time).is_ok()
    }

    fn carried(&mut self, allocation: AllocationId, direction: Direction, bytes: usize) {
        self.register.count(allocation, direction, 0, bytes);
        match direction {
            Direction::ToPeer => self.counters.stream_bytes_to_peer += bytes as u64,
            Direction::ToClient => self.counters.stream_bytes_to_client += bytes as u64,
        }
    }
}
