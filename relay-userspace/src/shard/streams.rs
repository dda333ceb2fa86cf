//! Streams of clients: how they come, what goes through them, and how they end.

use std::io;
use std::time::{Duration, Instant};

use hairpin_common::wire::Datagram;
use hairpin_proto::address::{ClientAddr, FiveTuple, ServerAddr, Transport};
use hairpin_proto::framing::Frame;
use hairpin_proto::turn::{Disposition, Now};

use super::Command;
use super::connection::{Connection, End, StreamBuffer};
use super::connections::Removed;
use super::failures::Failure;
use super::socket::Socket;
use super::state::{State, now};
use crate::clock::unix_seconds;
use crate::net::Outbox;

/// How many connections of one listener are accepted in a round.
const ACCEPTED: usize = 16;
/// How long a listener rests when the host has no more files: asking at once would be in vain, again and again.
const REST: Duration = Duration::from_millis(200);
/// How many messages of a client without an allocation are answered before it rests.
const AT_ONCE: usize = 64;
/// How long a connection rests whose client has asked for too much.
const TOO_MUCH: Duration = Duration::from_millis(100);

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
                    let source = (!proxied).then(|| five_tuple.client.ip());
                    if self.connections.may_come(source).is_err() {
                        self.connection_failed(&five_tuple, End::TooMany, false, None);
                        continue;
                    }
                    self.make_room();
                    let connection = Connection::new(stream, five_tuple, accepts, proxied);
                    self.connections.accept(connection, source, Instant::now());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_exhausted(&error) => {
                    return self.rest(Socket::Acceptor(at));
                }
                // About the one connection, which is gone.
                Err(_) => {}
            }
        }
    }

    /// Leaves a listener alone for a moment: there are no files for those who wait there.
    pub(super) fn rest(&mut self, listener: Socket) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                "no file is left for another connection: raise the limit of open files, or lower --max-connections"
            );
        }
        self.sockets.pause(listener, true);
        self.resting.push((Instant::now() + REST, listener));
    }

    /// Lets those go on whose rest is over: listeners at once, connections by [`State::woken`].
    pub(super) fn wake(&mut self, now: Instant) {
        let Self { sockets, connections, resting, woken, .. } = self;
        resting.retain(|(until, socket)| {
            let is_over = *until <= now;
            match socket {
                _ if !is_over => {}
                Socket::Connection(..) => {
                    connections.pause(*socket, false);
                    woken.push(*socket);
                }
                listener => sockets.pause(*listener, false),
            }
            !is_over
        });
    }

    /// A connection that rested, with what it has kept in the buffer.
    pub(super) fn next_woken(&mut self, buffer: &mut StreamBuffer) -> Option<Socket> {
        while let Some(socket) = self.woken.pop() {
            if self.connections.resume(socket, buffer) {
                return Some(socket);
            }
        }
        None
    }

    /// Takes over a connection from another shard.
    pub(super) fn adopt(&mut self, connection: Connection) -> Option<Socket> {
        let source = connection.five_tuple().client.ip();
        if self.connections.may_come(Some(source)).is_err() {
            connection.close();
            return None;
        }
        self.make_room();
        match self.connections.adopt(connection, Instant::now()) {
            Ok(socket) => {
                let named = self.connections.get(socket).map(Connection::five_tuple);
                if let (Some(five_tuple), Some(name)) = (named, self.connections.take_server_name(socket)) {
                    self.server.client_named(five_tuple, &name);
                }
                Some(socket)
            }
            Err((socket, end)) => {
                self.end(socket?, end);
                None
            }
        }
    }

    /// Closes the oldest connection without an allocation, where there is no room for another.
    fn make_room(&mut self) {
        if let Some(displaced) = self.connections.displaced() {
            self.end(displaced, End::TooMany);
        }
    }

    /// Reads what a client's connection has to give. Returns whether there may be messages.
    pub(super) fn receive(&mut self, socket: Socket, buffer: &mut StreamBuffer) -> bool {
        match self.connections.receive(socket, buffer) {
            Ok(Some(five_tuple)) => {
                if let Some(name) = self.connections.take_server_name(socket) {
                    self.server.client_named(five_tuple, &name);
                }
                true
            }
            Ok(None) => false,
            Err(end) => {
                self.end(socket, end);
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
        let mut messages = 0;
        // The last message may have ended it.
        while let Some(connection) = self.connections.get(socket) {
            let (five_tuple, has_ended) = (connection.five_tuple(), connection.has_ended());
            // Nobody begins with data for a channel, but requests of HTTP look like that: "GET", "HEAD".
            let is_data = bytes.first().is_some_and(|first| Datagram::of(*first) == Datagram::ChannelData);
            let frame = if is_data && !self.connections.was_heard(socket) { Frame::Broken } else { Frame::of(bytes) };
            let length = match frame {
                Frame::Complete(length) => length,
                Frame::Incomplete => {
                    let kept = self.connections.keep(socket, bytes);
                    if let Some(end) = kept.err().or(has_ended.then_some(End::Client)) {
                        self.flush(outbox);
                        self.end(socket, end);
                    }
                    return;
                }
                Frame::Broken => {
                    self.flush(outbox);
                    return self.end(socket, End::NotTurn);
                }
            };
            // What is too much waits, since nobody would send it again. The limits for datagrams are not asked: a flood from
            // forged addresses must not stop who has shown its own.
            if messages == AT_ONCE && !self.server.has_allocation(&five_tuple) {
                self.connections.set_aside(socket, bytes);
                self.resting.push((now.instant + TOO_MUCH, socket));
                return;
            }
            messages += 1;
            let (frame, behind) = bytes.split_at(length);
            let disposition = self.server.client_datagram(now, five_tuple, frame);
            if let Disposition::Elsewhere { shard } = disposition {
                return self.hand_over(socket, shard, bytes);
            }
            if disposition == Disposition::Ask {
                self.flush(outbox);
                self.wait(five_tuple, frame);
            } else {
                self.carry_through(disposition, None, outbox);
            }
            if self.joined == Some(socket) {
                self.joined = None;
                return self.join_with(socket, behind);
            }
            let has_allocation = self.server.has_allocation(&five_tuple);
            self.connections.heard(socket, now.instant, has_allocation);
            bytes = behind;
        }
    }

    /// Gives a connection to the shard that its last message is for, with that message.
    fn hand_over(&mut self, socket: Socket, shard: u32, bytes: &[u8]) {
        let Some(mut connection) = self.connections.remove(socket, None).map(|removed| removed.connection) else {
            return;
        };
        connection.keep(bytes);
        if let Some(other) = self.others.get(shard as usize) {
            other.send(Command::Adopt(Box::new(connection)));
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
        if let Err(end) = self.connections.flush(socket) {
            self.end(socket, end);
        }
    }

    /// Ends a client's connection, and what was begun over it.
    pub(super) fn end(&mut self, socket: Socket, end: End) {
        let Some(Removed { connection, is_registered }) = self.connections.remove(socket, Some(end)) else { return };
        let five_tuple = connection.five_tuple();
        let FiveTuple { client, transport, .. } = five_tuple;
        tracing::debug!(%client, %transport, reason = end.label(), "a connection has ended");
        // Who has an allocation has got what it wanted.
        if !self.server.has_allocation(&five_tuple) {
            self.connection_failed(&five_tuple, end, connection.is_handshaking(), connection.alert());
        }
        connection.close();
        if is_registered {
            self.server.client_lost(now(), &five_tuple);
            self.carry_out();
        }
    }
}

impl State {
    /// Remembers that a client's connection, or association over DTLS, has come to nothing.
    pub(super) fn connection_failed(
        &mut self,
        five_tuple: &FiveTuple,
        end: End,
        is_handshaking: bool,
        detail: Option<&'static str>,
    ) {
        let Some(explanation) = end.explanation() else { return };
        self.handshake_failures[five_tuple.transport as usize] += u64::from(is_handshaking);
        self.failures.add(Failure {
            client: five_tuple.client.socket(),
            transport: five_tuple.transport,
            action: if is_handshaking { "handshake" } else { "connection" },
            code: None,
            cause: end.label(),
            explanation,
            detail,
            username: None,
            peer: None,
            at: unix_seconds(),
            count: 1,
        });
    }
}

/// Whether the process, or the host, has no more files.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
