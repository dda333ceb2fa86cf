//! The way in: what the driver calls, and what each kind of message is handed to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hairpin_common::wire::Datagram;
use hashbrown::HashMap;

use super::allocation::{Allocations, RelayOwner};
use super::asking::question;
use super::attributes::{KNOWN, OF_TOKENS};
use super::authentication::{Authenticator, Rejection};
use super::cause::Cause;
use super::config::{Limits, ServerConfig};
use super::connection::Connection;
use super::directory::{Answer, Question};
use super::discovery::Discovery;
use super::effect::{
    AllocationId, BindError, ConnectError, ConnectionId, Discard, Disposition, Effect, EndReason, IcmpError, Now,
    RelayId,
};
use super::identity::{AtHand, Established};
use super::known::Known;
use super::message_counts::MessageCounts;
use super::nonce::Nonces;
use super::outbox::Outbox;
use super::peer_policy::PeerPolicy;
use super::pending_allocate::{PendingAllocate, Reservation};
use super::port_pool::PortPool;
use super::quota::Quotas;
use super::realm::{Realm, Realms};
use super::redirect::{Draining, Redirect};
use super::refusal::Denied;
use super::relay_addresses::RelayAddresses;
use super::relaying::disposition;
use super::request::{ReplyTo, Request};
use super::retransmission::Retransmissions;
use super::ticket::{SealedTicket, Tickets};
use super::timer::Timers;
use super::translation::Translation;
use crate::address::{ByClient, FiveTuple, PeerAddr, RelayedAddr, Transport};
use crate::random::{Random, RandomPool};
use crate::stun::Unknown;
use crate::stun::attribute::{Attribute, Lifetime, MobilityTicket, ReservationToken};
use crate::stun::{Class, Message, Method, ParseError};

/// A TURN server (RFC 8489, RFC 8656), or one shard of it.
///
/// It is driven from outside:
///
/// - each datagram, or each frame of a stream (see [`framing`](crate::framing)), goes in by
///   [`Server::client_datagram`] or [`Server::peer_datagram`], each ICMP packet by [`Server::peer_error`], and comes
///   out as what is to become of it;
/// - after [`Disposition::Control`], and after every call of another kind, [`Server::poll_effect`] says what is to be
///   done, until it says `None`;
/// - at the time that [`Server::poll_timeout`] gives, [`Server::handle_timeout`] is due.
///
/// Each [`Effect::Bind`] is answered by one [`Server::relay_bound`], unless [`Effect::Close`] comes before: then the
/// socket is closed, if there is one, and no answer is expected. Every relayed address that was bound is closed in the
/// end.
///
/// A connection of a relayed address to a peer (RFC 6062) begins with [`Effect::Connect`], which is answered by one
/// [`Server::peer_connected`], or with [`Server::peer_accepted`]. It ends with [`Effect::CloseConnection`], or before
/// that with [`Server::connection_closed`] or an error as the answer, and always before the relayed address does.
///
/// Nothing is remembered about a client that has not authenticated.
pub struct Server {
    pub(super) authenticator: Authenticator,
    pub(super) realms: Realms,
    /// What has to be answered before the message that was looked at last.
    pub(super) question: Option<Question>,
    /// What was answered for the message that is looked at.
    pub(super) answered: Option<(Question, Arc<Answer>)>,
    pub(super) software: Option<String>,
    pub(super) limits: Limits,
    pub(super) relay_addresses: RelayAddresses,
    pub(super) translation: Translation,
    pub(super) discovery: Option<Discovery>,
    pub(super) redirect: Redirect,
    /// Listeners that take no new allocations.
    pub(super) listeners: Vec<(Transport, SocketAddr)>,
    pub(super) policy: PeerPolicy,
    pub(super) quotas: Quotas,
    pub(super) ports: PortPool,
    pub(super) allocations: Allocations,
    pub(super) pending: HashMap<FiveTuple, PendingAllocate>,
    pub(super) reservations: HashMap<ReservationToken, Reservation>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) shard: u32,
    pub(super) shards: u32,
    /// Whether relayed addresses of TCP may be allocated.
    pub(super) tcp_relay: bool,
    /// Whether they may be or might once, so that clients which have one are understood.
    pub(super) knows_tcp: bool,
    /// Whether new allocations get tickets.
    pub(super) gives_tickets: bool,
    /// Reads those that were given, and makes the next of each.
    pub(super) tickets: Option<Tickets>,
    pub(super) retransmissions: Retransmissions,
    pub(super) timers: Timers,
    pub(super) outbox: Outbox,
    pub(super) random: RandomPool,
    pub(super) counts: MessageCounts,
    pub(super) refusals: [u64; Cause::COUNT],
    /// Where headers of Data indications are written.
    pub(super) frame: Vec<u8>,
}

/// What became of a request that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is answered without attributes of its own.
    Done,
    /// It is answered with this lifetime, and with a new ticket if it came with one.
    Lifetime(Lifetime, Option<SealedTicket>),
    /// It is answered without attributes of its own, and then the connection it came over carries a peer's bytes.
    Join(ConnectionId),
    /// It is answered when the driver has done its part.
    Later,
    /// It is looked at again when somebody was asked.
    Asks,
}

impl Server {
    /// A server without any allocation. `random` must be cryptographically secure.
    ///
    /// # Panics
    ///
    /// If there is no such shard as the configuration names, or no nonce key.
    pub fn new(config: ServerConfig, random: Box<dyn Random + Send>) -> Self {
        assert!(config.shard < config.shards, "shard {} of {}", config.shard, config.shards);
        let mut random = RandomPool::new(random);
        let settings = config.settings;
        Self {
            authenticator: Authenticator {
                nonces: Nonces::new(&settings.nonce_keys, config.nonce_lifetime),
                known: Known::new(settings.freshness),
            },
            realms: Realms::new(settings.realms),
            question: None,
            answered: None,
            software: config.software,
            limits: settings.limits,
            ports: PortPool::new(config.ports, &settings.relay_addresses, settings.networks, settings.reserved_ports),
            relay_addresses: RelayAddresses::new(settings.relay_addresses),
            translation: settings.translation,
            discovery: config.discovery,
            redirect: Redirect::new(settings.alternates, &mut random),
            listeners: settings.listeners,
            policy: settings.peer_policy,
            quotas: config.quotas,
            allocations: Allocations::new(),
            pending: HashMap::new(),
            reservations: HashMap::new(),
            connections: HashMap::new(),
            shard: config.shard,
            shards: config.shards,
            tcp_relay: settings.tcp_relay,
            knows_tcp: settings.tcp_relay,
            gives_tickets: settings.mobility.is_some(),
            tickets: settings.mobility.as_ref().map(Tickets::new),
            retransmissions: Retransmissions::default(),
            timers: Timers::default(),
            outbox: Outbox::default(),
            random,
            counts: MessageCounts::default(),
            refusals: [0; Cause::COUNT],
            frame: Vec::new(),
        }
    }

    /// Takes a datagram that a client has sent to the server.
    pub fn client_datagram<'p>(&mut self, now: Now, five_tuple: FiveTuple, datagram: &'p [u8]) -> Disposition<'p> {
        match datagram.first().copied().map(Datagram::of) {
            Some(Datagram::ChannelData) => disposition(self.channel_data(now, &five_tuple, datagram)),
            Some(Datagram::Stun) => match Message::parse(datagram) {
                Ok(message) => self.message(now, five_tuple, &message, datagram),
                Err(ParseError::NotStun) if five_tuple.transport == Transport::Dtls => {
                    self.classic(five_tuple, datagram)
                }
                Err(_) => Disposition::Discard(Discard::MalformedStun),
            },
            Some(Datagram::Other) | None => Disposition::Discard(Discard::NotTurn),
        }
    }

    /// Learns which name a client has asked for in its TLS or DTLS handshake: there may be a realm for it.
    pub fn client_named(&mut self, five_tuple: FiveTuple, server_name: &str) {
        self.realms.named(five_tuple, server_name);
    }

    /// Takes a datagram that a peer has sent to a relayed address.
    pub fn peer_datagram<'p>(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        payload: &'p [u8],
    ) -> Disposition<'p> {
        disposition(self.peer_data(now, relay, peer, payload))
    }

    /// Takes an ICMP packet about a datagram that the driver has sent from a relayed address to this peer.
    ///
    /// `peer` is whom the datagram was for, whoever complains. What a client is told is in the queue of effects.
    pub fn peer_error(&mut self, now: Now, relay: RelayId, peer: PeerAddr, error: IcmpError) -> Disposition<'static> {
        self.icmp(now, relay, peer, error).map_or_else(Disposition::Discard, |()| Disposition::Control)
    }

    /// Takes the answer to [`Effect::Bind`]: the address as bound, or why there is none.
    pub fn relay_bound(&mut self, now: Now, relay: RelayId, result: Result<RelayedAddr, BindError>) {
        match self.allocations.owner_of(relay) {
            Some(RelayOwner::Pending(five_tuple)) => self.pending_bound(now.instant, five_tuple, relay, result),
            // Nobody waits for it any more.
            None if result.is_ok() => self.outbox.push(Effect::Close { relay }),
            None | Some(RelayOwner::Allocation(..)) => {}
        }
    }

    /// Learns that the socket of a relayed address is lost: the relayed address ends, and with its last one the
    /// allocation.
    pub fn relay_failed(&mut self, now: Now, relay: RelayId) {
        match self.allocations.owner_of(relay) {
            Some(RelayOwner::Allocation(id, family)) => self.end_relay(id, family, EndReason::SocketLost),
            Some(RelayOwner::Pending(five_tuple)) => {
                self.pending_lost(five_tuple, relay);
                self.relay_bound(now, relay, Err(BindError::Unavailable));
            }
            None => {}
        }
    }

    /// Takes the answer to [`Effect::Connect`]: whether there is a connection to the peer now.
    pub fn peer_connected(&mut self, now: Now, connection: ConnectionId, result: Result<(), ConnectError>) {
        self.connect_done(now.instant, connection, result);
    }

    /// Takes a connection that a peer has made to a relayed address of TCP, and names it. `None` says that it is to be
    /// closed at once: there is no permission for the peer, or no room, or a connection to the same peer.
    pub fn peer_accepted(&mut self, now: Now, relay: RelayId, peer: PeerAddr) -> Option<ConnectionId> {
        self.accept(now, relay, peer)
    }

    /// Learns that a connection to a peer has ended, and the client's connection that was joined to it: either side has
    /// closed it, and the driver has closed the other.
    pub fn connection_closed(&mut self, _now: Now, connection: ConnectionId) {
        self.forget_connection(connection, Cause::ConnectFailed);
    }

    /// Learns that a client's connection (TCP, TLS or DTLS) is no more: what was begun over it ends, except for the
    /// allocation of a client that has a ticket to come back with (RFC 8016). Not meant for a connection that
    /// [`Effect::Join`] has joined to a peer's, which is no longer the server's.
    pub fn client_lost(&mut self, now: Now, five_tuple: &FiveTuple) {
        if let Some(pending) = self.pending.remove(five_tuple) {
            self.abandon(&pending);
        }
        self.lose_client(now.instant, five_tuple);
        self.realms.forget(five_tuple);
    }

    /// Ends all whose time has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.expire(now.instant);
    }

    /// When [`Server::handle_timeout`] is due; `None` if nothing waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.outbox.due()).min()
    }

    /// The next thing to be done. A response must be sent before anything else is given to the server.
    pub fn poll_effect(&mut self) -> Option<Effect<'_>> {
        self.outbox.pop()
    }

    /// Sends clients to other servers, or takes them again. What is there goes on: allocations and their requests, but for
    /// a Refresh where all are to leave, Binding, and the allocation of a port that was reserved.
    pub fn set_draining(&mut self, draining: Draining) {
        self.redirect.set_draining(draining);
    }

    /// Whether no new allocation is made.
    pub fn is_draining(&self) -> bool {
        self.redirect.is_draining()
    }

    /// Ends an allocation, if there is one of this name. Its client is not told: its next request finds no allocation.
    pub fn close_allocation(&mut self, _now: Now, allocation: AllocationId, reason: EndReason) {
        self.end_allocation(allocation, reason);
    }

    /// Frees every allocation and every reservation. The effects say what is to be closed.
    pub fn shutdown(&mut self, _now: Now) {
        self.end_all();
    }

    /// Whether a client has an allocation: whether anybody vouches for what comes from there.
    #[inline]
    pub fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.allocations.is_client(five_tuple)
    }

    /// The allocation that a connection with a peer belongs to.
    pub fn allocation_of_connection(&self, connection: ConnectionId) -> Option<AllocationId> {
        self.connections.get(&connection).map(|connection| connection.allocation)
    }

    /// Whether a peer may be sent to only because its port is one of relayed addresses, see
    /// [`PeerPolicy::permits_for_its_port`].
    pub fn permits_for_its_port(&self, peer: PeerAddr) -> bool {
        self.policy.permits_for_its_port(peer)
    }

    /// How many allocations there are.
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// The same, by what their clients speak.
    pub fn allocations_by_client(&self) -> ByClient {
        self.allocations.by_client_kind()
    }

    /// Requests and responses so far.
    pub fn message_counts(&self) -> &MessageCounts {
        &self.counts
    }

    /// What a message asks for, by class and method. Those that a server has no use for, and methods that it does not
    /// serve, are dropped silently (RFC 8489 section 6.3).
    fn message<'p>(
        &mut self,
        now: Now,
        five_tuple: FiveTuple,
        message: &Message<'p>,
        datagram: &[u8],
    ) -> Disposition<'p> {
        match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => disposition(self.send_indication(now, &five_tuple, message)),
            (Class::Request, method) => {
                if let Some(shard) = self.elsewhere(&five_tuple, message) {
                    return Disposition::Elsewhere { shard };
                }
                if self.answered.is_none() {
                    self.counts.count_request(method);
                }
                match method {
                    Method::BINDING => self.binding(five_tuple, message),
                    Method::ALLOCATE | Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND => {
                        self.request(now, five_tuple, message, datagram);
                    }
                    Method::CONNECT | Method::CONNECTION_BIND if self.knows_tcp => {
                        self.request(now, five_tuple, message, datagram);
                    }
                    _ => return Disposition::Discard(Discard::Unexpected),
                }
                if self.question.is_some() { Disposition::Ask } else { Disposition::Control }
            }
            _ => Disposition::Discard(Discard::Unexpected),
        }
    }

    /// A request that needs authentication. It is always answered, now or later, or somebody has to be asked first.
    fn request(&mut self, now: Now, five_tuple: FiveTuple, message: &Message<'_>, datagram: &[u8]) {
        // So that no request meets what is over already.
        self.expire(now.instant);
        let (method, id) = (message.method(), message.transaction_id());
        let realm = Arc::clone(self.realms.of(&five_tuple));
        // The very same bytes have been authenticated before, and their nonce may have aged since. But who is not known
        // any more gets no answer that is for users.
        if let Some(response) = self.retransmissions.find(now.instant, five_tuple, id, datagram)
            && self.authenticator.still_knows(now, &realm, message, self.established(&five_tuple, &realm, message))
        {
            self.outbox.respond(five_tuple, |buffer| buffer.extend_from_slice(response));
            self.counts.count_success(method);
            return;
        }
        let established = self.established(&five_tuple, &realm, message);
        let at_hand = self.answered.as_ref().map(|(question, answer)| AtHand { question, answer });
        let authenticated = self.authenticator.authenticate(now, (&five_tuple, &realm), message, established, at_hand);
        let authenticated = match authenticated {
            Ok(authenticated) => authenticated,
            Err(Rejection::Ask(subject)) => {
                self.question = Some(question(&five_tuple, &realm, subject));
                return;
            }
            Err(rejection) => return self.reject(five_tuple, &realm, message, &rejection),
        };
        if let Some(subject) = authenticated.proof.outdated.clone() {
            let question = question(&five_tuple, &realm, subject);
            if self.authenticator.known.renews(now.instant, &question) {
                self.outbox.look_up(question);
            }
        }
        let request = Request {
            message: *message,
            username: &authenticated.username,
            account: authenticated.account(),
            realm: &realm,
            proof: &authenticated.proof,
            reply: ReplyTo {
                five_tuple,
                method,
                id,
                digest: self.retransmissions.digest(datagram),
                fingerprint: message.has_fingerprint(),
                key: authenticated.proof.key.clone(),
                integrity: authenticated.proof.integrity,
            },
        };
        let of_tokens = if realm.token_audience.is_some() { OF_TOKENS } else { &[] };
        let unknown = Unknown::beyond(message, [KNOWN, of_tokens]);
        let outcome = if unknown.is_empty() {
            match method {
                Method::ALLOCATE => self.allocate(now, &request),
                Method::REFRESH => self.refresh(now, &request),
                Method::CREATE_PERMISSION => self.create_permission(now, &request),
                Method::CONNECT => self.connect(now, &request),
                Method::CONNECTION_BIND => self.connection_bind(&request).map_err(Denied::from),
                _ => self.channel_bind(now, &request),
            }
        } else {
            Err(Cause::UnknownAttribute.into())
        };
        match outcome {
            Ok(Outcome::Done) => self.succeed(now.instant, &request.reply, |response| response),
            Ok(Outcome::Lifetime(lifetime, ticket)) => {
                let ticket = ticket.as_ref().map(|ticket| MobilityTicket(ticket.as_bytes()));
                self.succeed(now.instant, &request.reply, |response| {
                    response.with(&lifetime).with_option(ticket.as_ref())
                });
            }
            Ok(Outcome::Join(connection)) => {
                self.succeed(now.instant, &request.reply, |response| response);
                self.outbox.push(Effect::Join { connection, five_tuple });
            }
            Ok(Outcome::Later | Outcome::Asks) => {}
            Err(denied) => self.fail(&request.reply, request.username, denied, unknown),
        }
    }

    /// The shard that a request is for, if it is not this one. Anybody may ask.
    fn elsewhere(&self, five_tuple: &FiveTuple, message: &Message<'_>) -> Option<u32> {
        // A five-tuple that is in use here is nobody else's, whoever says so: it might be forged.
        if self.has_allocation(five_tuple) || self.pending.contains_key(five_tuple) {
            return None;
        }
        match message.method() {
            Method::CONNECTION_BIND if self.knows_tcp && five_tuple.transport.is_stream() => {
                let connection: ConnectionId = message.attribute().ok()??;
                Some(connection.shard(self.shards)).filter(|shard| *shard != self.shard)
            }
            // One of a shard that there is no longer finds no allocation here.
            Method::REFRESH => {
                let ticket = self.ticket_in(message)?;
                Some(ticket.shard).filter(|shard| *shard != self.shard && *shard < self.shards)
            }
            _ => None,
        }
    }

    /// The allocation that a request is about, unless it is of another realm.
    fn established(&self, five_tuple: &FiveTuple, realm: &Realm, message: &Message<'_>) -> Option<Established<'_>> {
        let allocation = match message.method() {
            Method::CONNECTION_BIND => {
                let connection: ConnectionId = message.attribute().ok()??;
                self.allocations.find(self.connections.get(&connection)?.allocation)?
            }
            Method::REFRESH if message.find(MobilityTicket::TYPE).is_some() => {
                self.of_ticket(&self.ticket_in(message)?)?
            }
            _ => self.allocations.of_client(five_tuple)?.1,
        };
        (!self.is_of_other_realm(allocation, realm)).then(|| allocation.established())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("allocations", &self.allocations.len()).finish_non_exhaustive()
    }
}

const _: () = {
    const fn moves_between_threads<T: Send>() {}
    moves_between_threads::<Server>();
};
