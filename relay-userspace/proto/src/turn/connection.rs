//! Connections between peers and the relayed addresses of TCP allocations (RFC 6062): how they begin and end.
//!
//! A connection belongs to its allocation from the moment that it is asked for or accepted, and there is at most one
//! for each peer. It has a deadline until a client's connection is bound to it; from then on the driver carries its
//! bytes, and the engine only knows that it is there.

use std::time::{Duration, Instant};

use super::allocation::PeerTransport;
use super::cause::Cause;
use super::effect::{AllocationId, ConnectError, ConnectionId, Effect, Now, RelayId};
use super::mobility::Presence;
use super::refusal::Denied;
use super::request::{ReplyTo, Request};
use super::server::{Outcome, Server};
use super::timer::Timer;
use crate::address::{AddressFamily, PeerAddr};
use crate::stun::Unknown;
use crate::stun::attribute::XorPeerAddress;
use crate::stun::{Class, MessageBuilder, Method};

/// How long a peer may take to answer (RFC 6062 section 5.2: at least 30 seconds).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection waits for ConnectionBind (RFC 6062 sections 5.2 and 5.3).
const BIND_TIMEOUT: Duration = Duration::from_secs(30);

/// A peer data connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) allocation: AllocationId,
    pub(super) peer: PeerAddr,
    stage: Stage,
    /// The deadline of the stage, while it is set.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    /// The driver opens it, and then the Connect request is answered.
    Opening(Box<ReplyTo>),
    /// It is open, and waits for ConnectionBind.
    Pending,
    /// A client's connection is bound to it.
    Active,
}

impl ConnectionId {
    /// Which of `shards` shards the connection belongs to.
    pub fn shard(self, shards: u32) -> u32 {
        self.0 % shards
    }
}

impl Server {
    /// Connect (RFC 6062 section 5.2). A permission is neither needed nor given: those are for who connects from
    /// outside (section 5.3), and the policy on peers is asked here.
    pub(super) fn connect(&mut self, now: Now, request: &Request<'_>) -> Result<Outcome, Denied> {
        let id = self.allocation_of(request)?;
        let Some(allocation) = self.allocations.find(id) else { return Err(Cause::NoAllocation.into()) };
        let XorPeerAddress(peer) = request.required()?;
        let peer = PeerAddr::new(peer);
        // There is nothing to connect to at port 0, and nothing to connect from at a relayed address of UDP.
        if peer.port() == 0 {
            return Err(Denied::at(Cause::PeerPortZero, peer));
        }
        if allocation.peers != PeerTransport::Tcp {
            return Err(Cause::TransportMismatch.into());
        }
        let Some(relay) = allocation.relay(AddressFamily::of(peer.ip())).map(|relay| relay.id) else {
            return Err(Denied::at(Cause::FamilyMismatch, peer));
        };
        if allocation.connections.contains_key(&peer) {
            return Err(Denied::at(Cause::ConnectionExists, peer));
        }
        if !self.policy.permits(peer) {
            return Err(Denied::at(Cause::ForbiddenPeer, peer));
        }
        // As for permissions and channels (RFC 8656 sections 10.2 and 12.2), whose number is limited in the same way;
        // 486 is about the number of allocations.
        if allocation.connections.len() >= self.limits.connections {
            return Err(Denied::at(Cause::ConnectionsFull, peer));
        }
        let stage = Stage::Opening(Box::new(request.reply.clone()));
        let connection = self.add_connection(id, peer, stage, now.instant + CONNECT_TIMEOUT);
        self.outbox.push(Effect::Connect { connection, relay, peer });
        Ok(Outcome::Later)
    }

    /// The driver has answered [`Effect::Connect`].
    pub(super) fn connect_done(&mut self, now: Instant, id: ConnectionId, result: Result<(), ConnectError>) {
        if !self.connections.contains_key(&id) {
            // Nobody waits for it any more.
            if result.is_ok() {
                self.outbox.push(Effect::CloseConnection { connection: id });
            }
            return;
        }
        // What is too late has failed.
        self.expire(now);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !matches!(connection.stage, Stage::Opening(_)) {
            return;
        }
        if let Err(error) = result {
            self.forget_connection(id, cause_of(error));
            return;
        }
        let allocation = connection.allocation;
        let Stage::Opening(reply) = std::mem::replace(&mut connection.stage, Stage::Pending) else { return };
        // Who has asked over a connection that is lost never learns of this one's name.
        if !self.allocations.has_client(allocation, &reply.five_tuple) {
            return self.end_connection(id, Cause::ConnectAbandoned);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let deadline = now + BIND_TIMEOUT;
        let before = connection.deadline.replace(deadline);
        if let Some(before) = before {
            self.timers.cancel(before, Timer::Connection(id));
        }
        self.timers.set(deadline, Timer::Connection(id));
        self.succeed(now, &reply, |response| response.with(&id));
    }

    /// A peer has connected to a relayed address (RFC 6062 section 5.3). `None` if the connection is to be closed.
    pub(super) fn accept(&mut self, now: Now, relay: RelayId, peer: PeerAddr) -> Option<ConnectionId> {
        let (allocation_id, allocation) = self.live_owner(now, relay).ok()?;
        let welcome = allocation.peers == PeerTransport::Tcp
            && allocation.presence != Presence::Lost
            && allocation.permits(peer.ip(), now.instant)
            && !allocation.connections.contains_key(&peer)
            && allocation.connections.len() < self.limits.connections;
        if !welcome {
            return None;
        }
        let five_tuple = allocation.five_tuple;
        let connection = self.add_connection(allocation_id, peer, Stage::Pending, now.instant + BIND_TIMEOUT);
        let id = self.random.transaction_id();
        self.outbox.respond(five_tuple, |buffer| {
            MessageBuilder::new(buffer, Class::Indication, Method::CONNECTION_ATTEMPT, id)
                .with(&XorPeerAddress(peer.socket()))
                .with(&connection)
                .finish(false);
        });
        Some(connection)
    }

    /// ConnectionBind (RFC 6062 section 5.4).
    pub(super) fn connection_bind(&mut self, request: &Request<'_>) -> Result<Outcome, Cause> {
        let five_tuple = request.reply.five_tuple;
        let id = request.required::<ConnectionId>()?;
        // A control connection cannot become a data connection: the client comes from another address (section 4.3).
        if !five_tuple.transport.is_stream() {
            return Err(Cause::TransportMismatch);
        }
        if self.allocations.is_client(&five_tuple) || self.pending.contains_key(&five_tuple) {
            return Err(Cause::ControlConnection);
        }
        let pending = self.connections.get(&id).filter(|found| matches!(found.stage, Stage::Pending));
        let allocation = pending.and_then(|connection| self.allocations.find(connection.allocation));
        if !self.is_of_user(allocation.ok_or(Cause::UnknownConnection)?, request) {
            return Err(Cause::WrongUser);
        }
        let connection = self.connections.get_mut(&id).ok_or(Cause::UnknownConnection)?;
        connection.stage = Stage::Active;
        if let Some(deadline) = connection.deadline.take() {
            self.timers.cancel(deadline, Timer::Connection(id));
        }
        Ok(Outcome::Join(id))
    }

    /// The time of a connection that is not bound is over.
    pub(super) fn connection_expired(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.deadline = None;
        }
        self.end_connection(id, Cause::ConnectTimeout);
    }

    /// Ends all connections of a relayed transport address (RFC 6062 section 5.5).
    pub(super) fn end_connections(&mut self, id: AllocationId, family: AddressFamily) {
        let Some(allocation) = self.allocations.find(id) else { return };
        let of_family = allocation.connections.iter().filter(|(peer, _)| AddressFamily::of(peer.ip()) == family);
        let connections: Vec<_> = of_family.map(|(_, connection)| *connection).collect();
        for connection in connections {
            self.end_connection(connection, Cause::ConnectAbandoned);
        }
    }

    /// Forgets a connection that the driver is to close.
    pub(super) fn end_connection(&mut self, id: ConnectionId, cause: Cause) {
        self.outbox.push(Effect::CloseConnection { connection: id });
        self.forget_connection(id, cause);
    }

    /// Forgets a connection that is no more. A Connect request that waits for it has failed, for this cause.
    pub(super) fn forget_connection(&mut self, id: ConnectionId, cause: Cause) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Some(deadline) = connection.deadline {
            self.timers.cancel(deadline, Timer::Connection(id));
        }
        let Some(allocation) = self.allocations.find_mut(connection.allocation) else { return };
        allocation.connections.remove(&connection.peer);
        let Stage::Opening(reply) = connection.stage else { return };
        let username = allocation.username.clone();
        // Nobody is told who has gone meanwhile.
        if self.allocations.has_client(connection.allocation, &reply.five_tuple) {
            self.fail(&reply, &username, Denied::at(cause, connection.peer), Unknown::default());
        }
    }

    fn add_connection(
        &mut self,
        allocation: AllocationId,
        peer: PeerAddr,
        stage: Stage,
        deadline: Instant,
    ) -> ConnectionId {
        let id = self.draw_connection_id();
        self.connections.insert(id, Connection { allocation, peer, stage, deadline: Some(deadline) });
        self.timers.set(deadline, Timer::Connection(id));
        if let Some(allocation) = self.allocations.find_mut(allocation) {
            allocation.connections.insert(peer, id);
        }
        id
    }

    /// A number that nobody guesses, and that says whose connection it names.
    fn draw_connection_id(&mut self) -> ConnectionId {
        loop {
            let drawn = self.random.number();
            let mine = (drawn - drawn % self.shards).checked_add(self.shard).map(ConnectionId);
            if let Some(id) = mine.filter(|id| !self.connections.contains_key(id)) {
                return id;
            }
        }
    }
}

fn cause_of(error: ConnectError) -> Cause {
    match error {
        ConnectError::Failed => Cause::ConnectFailed,
        ConnectError::InUse => Cause::ConnectInUse,
        ConnectError::Unavailable => Cause::ConnectUnavailable,
    }
}
