//! Streams of clients and of peers: how they come, what goes through them, and how they end.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_common::wire::Datagram;
use hairpin_proto::address::{ClientAddr, FiveTuple, PeerAddr, ServerAddr, Transport};
use hairpin_proto::framing::Frame;
use hairpin_proto::turn::{ConnectError, ConnectionId, Disposition, Now};

use super::Command;
use super::connection::{Connection, End, StreamBuffer};
use super::output::Flushed;
use super::peers::Stage;
use super::socket::Socket;
use super::sockets::Ready;
use super::state::{State, now};
use crate::net::{Outbox, Stream};

/// How many connections of one listener are accepted in a round.
const ACCEPTED: usize = 16;
/// How long a listener rests when the host has no more files: asking at once would be in vain, again and again.
const REST: Duration = Duration::from_millis(200);

impl State {
    /// Takes the connections that wait at a listener.
    pub(super) fn accept_clients(&mut self, at: u32) {
        for _ in 0..ACCEPTED {
            match self.sockets.accept(at) {
                Ok((stream, remote, accepts)) => {
                    let Ok(local) = stream.local() else { continue };
                    let five_tuple = FiveTuple {
                        client: ClientAddr::new(remote),
                        server: ServerAddr::new(local),
                        transport: Transport::Tcp,
                    };
                    let proxied = self.proxies.iter().any(|net| net.contains(&five_tuple.client.ip()));
                    // A connection is one of the datagrams that a stranger has for free.
                    if !proxied && let Err(limit) = self.datapath.admit_source(five_tuple.client.ip(), self.batch_time)
                    {
                        self.counters.refuse(limit);
                        continue;
                    }
                    let source = (!proxied).then(|| five_tuple.client.ip());
                    if self.connections.may_come(source).is_err() {
                        continue;
                    }
                    if let Some(displaced) = self.connections.displaced() {
                        self.end(displaced, End::TooMany);
                    }
                    let connection = Connection::new(stream, five_tuple, accepts, proxied);
                    self.connections.accept(connection, source, Instant::now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_exhausted(&error) => {
                    self.sockets.pause_acceptor(at, true);
                    self.resting.push((Instant::now() + REST, at));
                    return;
                }
                // About the one connection, which is gone.
                Err(_) => {}
            }
        }
    }

    /// Lets listeners go on whose rest is over.
    pub(super) fn wake_acceptors(&mut self, now: Instant) {
        let sockets = &self.sockets;
        self.resting.retain(|(until, at)| {
            let rests = *until > now;
            if !rests {
                sockets.pause_acceptor(*at, false);
            }
            rests
        });
    }

    /// Takes over a connection from another shard.
    pub(super) fn adopt(&mut self, connection: Connection) -> Option<Socket> {
        self.connections.adopt(connection, Instant::now()).ok()
    }

    /// Reads what a client's connection has to give. Returns whether there may be messages.
    pub(super) fn receive(&mut self, socket: Socket, buffer: &mut StreamBuffer) -> bool {
        match self.connections.receive(socket, buffer) {
            Ok(five_tuple) => five_tuple.is_some(),
            Err(end) => {
                self.client_ended(socket, end);
                false
            }
        }
    }

    /// Passes messages through the engine: as many as are whole.
    pub(super) fn frames<'p>(
        &mut self,
        now: Now,
        socket: Socket,
        mut bytes: &'p [u8],
        outbox: &mut Outbox<'_, 'p, Socket>,
    ) {
        loop {
            if let Some(id) = self.connections.joined(socket) {
                return self.carry_to_peer(socket, id, bytes);
            }
            // The last message may have ended it.
            let Some(connection) = self.connections.get(socket) else { return };
            let five_tuple = connection.five_tuple();
            // Nobody begins with data for a channel, but requests of HTTP look like that: "GET", "HEAD".
            let is_data = bytes.first().is_some_and(|first| Datagram::of(*first) == Datagram::ChannelData);
            if is_data && !self.connections.was_heard(socket) {
                return self.end(socket, End::NotTurn);
            }
            let length = match Frame::of(bytes) {
                Frame::Complete(length) => length,
                Frame::Incomplete => {
                    if let Err(end) = self.connections.keep(socket, bytes) {
                        self.end(socket, end);
                    }
                    return;
                }
                Frame::Broken => return self.end(socket, End::NotTurn),
            };
            let (frame, behind) = bytes.split_at(length);
            if let Err(limit) = self.admit_client(&five_tuple) {
                self.counters.refuse(limit);
            } else {
                let disposition = self.server.client_datagram(now, five_tuple, frame);
                // One that has an allocation here cannot become a data connection anywhere.
                if let Disposition::Elsewhere { shard } = disposition
                    && !self.server.has_allocation(&five_tuple)
                {
                    return self.hand_over(socket, shard, bytes);
                }
                self.carry_through(disposition, None, outbox);
                let has_allocation = self.server.has_allocation(&five_tuple);
                self.connections.heard(socket, now.instant, has_allocation);
            }
            bytes = behind;
        }
    }

    /// Gives a connection to the shard that its last message is for, with that message.
    fn hand_over(&mut self, socket: Socket, shard: u32, bytes: &[u8]) {
        let Some(five_tuple) = self.connections.get(socket).map(Connection::five_tuple) else { return };
        let Some(mut connection) = self.connections.remove(socket, None) else { return };
        self.server.client_lost(now(), &five_tuple);
        self.carry_out();
        connection.keep(bytes);
        if let Some(other) = self.others.get(shard as usize) {
            // A shard that has stopped takes the relay down with it.
            let _ = other.send(Command::Adopt(Box::new(connection)));
        }
    }

    /// Writes to every connection for which something was left in this batch.
    pub(super) fn write_out(&mut self) {
        while let Some(socket) = self.connections.next_dirty() {
            self.write(socket);
        }
    }

    /// Writes what a client's connection takes.
    pub(super) fn write(&mut self, socket: Socket) {
        match self.connections.flush(socket) {
            Ok(Flushed::Partly) => {}
            Ok(Flushed::All) => {
                let Some(id) = self.connections.joined(socket) else { return };
                // The peer was stopped as long as something waited here, or has ended meanwhile.
                match self.peers.stage(id) {
                    Some(Stage::Joined(_)) => self.peers.pause(id, false),
                    _ => self.end(socket, End::Finished),
                }
            }
            Err(end) => self.end(socket, end),
        }
    }

    /// Ends a client's connection, and what was begun over it.
    pub(super) fn end(&mut self, socket: Socket, end: End) {
        let joined = self.connections.joined(socket);
        let Some(connection) = self.connections.remove(socket, Some(end)) else { return };
        let five_tuple = connection.five_tuple();
        let is_identified = connection.is_identified();
        let stream = connection.close();
        if let Some(id) = joined {
            self.lingering.close(stream);
            self.peers.close(id);
            self.server.connection_closed(now(), id);
        } else if is_identified {
            self.server.client_lost(now(), &five_tuple);
        }
        self.carry_out();
    }

    /// A client has closed its connection, or it has failed. Of one that is joined, the peer gets what was sent before.
    fn client_ended(&mut self, socket: Socket, end: End) {
        match self.connections.joined(socket) {
            Some(id) if end == End::Client && !self.peers.finish(id) => self.connections.pause(socket, true),
            _ => self.end(socket, end),
        }
    }

    /// Takes the connections that peers have made to a relayed address.
    pub(super) fn accept_peers(&mut self, relay: Socket) {
        let Socket::Relay(relay_id, _) = relay else { return };
        for _ in 0..ACCEPTED {
            let Some(listener) = self.sockets.relay_listener(relay) else { return };
            // Out of files, the peers wait: level-triggered, so this comes again, but only as often as there are rounds.
            let Ok((stream, remote)) = listener.accept() else { return };
            self.accept_peer(relay_id, stream, remote);
        }
    }

    fn accept_peer(&mut self, relay: hairpin_proto::turn::RelayId, stream: Stream, remote: SocketAddr) {
        let Some(id) = self.server.peer_accepted(now(), relay, PeerAddr::new(self.translation.outside(remote))) else {
            return;
        };
        if self.peers.accepted(id, stream).is_err() {
            self.server.connection_closed(now(), id);
        }
        self.carry_out();
    }

    /// Begins a connection to a peer.
    pub(super) fn connect(&mut self, id: ConnectionId, local: Option<SocketAddr>, peer: PeerAddr) {
        let begun = local.map(|local| self.peers.connect(id, local, self.translation.inside(peer.socket())));
        if !matches!(begun, Some(Ok(()))) {
            self.server.peer_connected(now(), id, Err(ConnectError::Failed));
        }
    }

    /// Joins a client's connection to a peer's.
    pub(super) fn join(&mut self, id: ConnectionId, five_tuple: &FiveTuple) {
        match self.connections.of(five_tuple) {
            Some(socket) => {
                self.connections.join(socket, id);
                self.peers.join(id, socket);
            }
            None => self.server.connection_closed(now(), id),
        }
    }

    /// Closes a peer's connection, and the client's that is joined to it.
    pub(super) fn close_connection(&mut self, id: ConnectionId) {
        if let Some(Stage::Joined(socket)) = self.peers.close(id)
            && let Some(connection) = self.connections.remove(socket, Some(End::Finished))
        {
            self.lingering.close(connection.close());
        }
    }

    /// Something has happened at a peer's connection.
    pub(super) fn peer_ready(&mut self, id: ConnectionId, ready: Ready, buffer: &mut [u8]) {
        match self.peers.stage(id) {
            None => {}
            Some(Stage::Connecting) => {
                let result = self.peers.connected(id).map_err(|_| ConnectError::Failed);
                if result.is_err() {
                    self.peers.close(id);
                }
                self.server.peer_connected(now(), id, result);
                self.carry_out();
            }
            // Nothing was asked for but errors.
            Some(Stage::Waiting) => self.peer_ended(id),
            Some(Stage::Joined(socket)) => {
                if ready.is_writable {
                    match self.peers.flush(id) {
                        Ok(Flushed::All) if self.peers.is_last(id) => return self.end(socket, End::Client),
                        Ok(Flushed::All) => self.connections.pause(socket, false),
                        Ok(Flushed::Partly) => {}
                        Err(_) => return self.end(socket, End::Finished),
                    }
                }
                if ready.is_readable {
                    self.carry_to_client(socket, id, buffer);
                }
            }
        }
    }

    fn peer_ended(&mut self, id: ConnectionId) {
        self.peers.close(id);
        self.server.connection_closed(now(), id);
        self.carry_out();
    }

    fn carry_to_peer(&mut self, socket: Socket, id: ConnectionId, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.counters.stream_bytes_to_peer += bytes.len() as u64;
        match self.peers.carry(id, bytes) {
            Ok(Flushed::All) => {}
            Ok(Flushed::Partly) => self.connections.pause(socket, true),
            Err(_) => self.end(socket, End::Finished),
        }
    }

    fn carry_to_client(&mut self, socket: Socket, id: ConnectionId, buffer: &mut [u8]) {
        match self.peers.read(id, buffer) {
            Ok(None) => {}
            Ok(Some(read)) if read > 0 => {
                self.counters.stream_bytes_to_client += read as u64;
                match self.connections.carry(socket, &buffer[..read]) {
                    Ok(Flushed::All) => {}
                    Ok(Flushed::Partly) => self.peers.pause(id, true),
                    Err(end) => self.end(socket, end),
                }
            }
            // The end, or an error: the client gets what was sent before.
            Ok(Some(_)) | Err(_) => {
                self.peers.close(id);
                self.server.connection_closed(now(), id);
                let is_written = self.connections.get(socket).is_none_or(|client| !client.is_blocked());
                if is_written {
                    self.end(socket, End::Finished);
                }
                self.carry_out();
            }
        }
    }
}

/// Whether the process, or the host, has no more files.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
