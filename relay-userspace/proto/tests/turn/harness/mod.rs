//! A driver without sockets, and clients that know the protocol.

mod client;
mod config;
mod requests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hairpin_proto::address::{ClientAddr, FiveTuple, PeerAddr, RelayedAddr};
use hairpin_proto::stun::attribute::{ErrorCodeAttribute, RequestedTransport, ReservationToken};
use hairpin_proto::stun::{Class, Message, Method};
use hairpin_proto::turn::{
    AllocationId, BindError, BindRequest, Cause, ConnectError, ConnectionId, Effect, EndReason, Flow, Now, Question,
    Quotas, Random, Refusal, RelayId, Scope, Server, ServerConfig,
};

pub(crate) use client::{Answer, BOTH, Client};
pub(crate) use config::{config, config_with, realm};
pub(crate) use words::{channel, channel_data, delivered, dropped, framed, permission, send_indication, socket};

pub(crate) const REALM: &str = "example.org";
pub(crate) const SECRET: &str = "north";
pub(crate) const SERVER: &str = "192.0.2.15:3478";
pub(crate) const RELAY_V4: &str = "192.0.2.15";
pub(crate) const PUBLIC_V4: &str = "198.51.100.15";
pub(crate) const RELAY_V6: &str = "2001:db8::15";
pub(crate) const UDP: RequestedTransport = RequestedTransport(17);
pub(crate) const TCP: RequestedTransport = RequestedTransport(6);

/// An effect that outlives the next input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Response(ClientAddr),
    Bind(RelayId, BindRequest),
    Close(RelayId),
    DropReservation(ReservationToken),
    Install(Flow, Instant),
    Remove(Flow),
    Allocated(AllocationId),
    Freed(AllocationId, EndReason),
    Connect(ConnectionId, RelayId, PeerAddr),
    Join(ConnectionId, FiveTuple),
    CloseConnection(ConnectionId),
    Moved(AllocationId, FiveTuple, FiveTuple),
    Left(AllocationId, FiveTuple),
}

/// A refusal that outlives the next input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) five_tuple: FiveTuple,
    pub(crate) method: Method,
    pub(crate) code: u16,
    pub(crate) cause: Cause,
    pub(crate) is_proven: bool,
    pub(crate) username: Option<String>,
    pub(crate) peer: Option<PeerAddr>,
}

impl From<Refusal<'_>> for Refused {
    fn from(refusal: Refusal<'_>) -> Self {
        let Refusal { five_tuple, method, code, cause, is_proven, username, peer } = refusal;
        Self { five_tuple, method, code: code.number(), cause, is_proven, username: username.map(str::to_owned), peer }
    }
}

/// What the driver knows of a connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) relay: RelayId,
    pub(crate) peer: PeerAddr,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Opening,
    Open,
    Joined(FiveTuple),
}

/// What the test driver has been told, and a server to drive. It checks the rules that every driver relies on.
pub(crate) struct Relay {
    pub(crate) server: Server,
    pub(crate) now: Now,
    pub(crate) quotas: Quotas,
    /// Open sockets.
    pub(crate) sockets: BTreeMap<RelayId, RelayedAddr>,
    pub(crate) reserved: BTreeMap<ReservationToken, RelayedAddr>,
    /// Those sockets that listen.
    pub(crate) streams: BTreeSet<RelayId>,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) flows: BTreeMap<Place, (Flow, Instant)>,
    pub(crate) allocations: BTreeSet<AllocationId>,
    /// Why those that were there have ended.
    pub(crate) ended: Vec<EndReason>,
    /// Ports that somebody else has bound.
    pub(crate) taken: BTreeSet<u16>,
    /// No socket can be bound at all to these addresses.
    pub(crate) broken: BTreeSet<IpAddr>,
    /// Whether `Effect::Bind` is answered at once.
    pub(crate) binds: bool,
    /// What was not answered, see [`Relay::answer_bind`].
    pub(crate) waiting: Vec<(RelayId, BindRequest)>,
    /// The last response, as it went out.
    pub(crate) responses: Vec<Vec<u8>>,
    /// Where it went.
    pub(crate) answered: Option<FiveTuple>,
    /// Every request that was refused, and why.
    pub(crate) refusals: Vec<Refused>,
    /// What was asked again, without anybody who waits for it.
    pub(crate) looked_up: Vec<Question>,
    transaction: u64,
}

/// What no two flows share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Relay(RelayedAddr, FiveTuple),
    Permission(RelayedAddr, IpAddr, FiveTuple),
    Channel(FiveTuple, u16),
}

impl Place {
    fn of(flow: &Flow) -> Self {
        match flow.scope {
            Scope::Relay => Self::Relay(flow.relayed, flow.five_tuple),
            Scope::Permission { peer } => Self::Permission(flow.relayed, peer, flow.five_tuple),
            Scope::Channel { channel, .. } => Self::Channel(flow.five_tuple, channel),
        }
    }
}

/// The flow that this one rests on.
fn base(flow: &Flow) -> Option<Flow> {
    let scope = match flow.scope {
        Scope::Relay => return None,
        Scope::Permission { .. } => Scope::Relay,
        Scope::Channel { peer, .. } => Scope::Permission { peer: peer.ip() },
    };
    Some(Flow { scope, ..*flow })
}

/// Not random at all, but different every time.
pub(crate) struct Seeded(pub(crate) u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = (self.0 >> 32) as u8;
        }
    }
}
impl Default for Relay {
    fn default() -> Self {
        Self::new(config())
    }
}

impl Relay {
    pub(crate) fn new(config: ServerConfig) -> Self {
        Self {
            quotas: config.quotas.clone(),
            server: Server::new(config, Box::new(Seeded(0x9e37_79b9_7f4a_7c15))),
            now: Now { instant: Instant::now(), unix: 1_700_000_000 },
            sockets: BTreeMap::new(),
            reserved: BTreeMap::new(),
            streams: BTreeSet::new(),
            connections: BTreeMap::new(),
            flows: BTreeMap::new(),
            allocations: BTreeSet::new(),
            ended: Vec::new(),
            taken: BTreeSet::new(),
            broken: BTreeSet::new(),
            binds: true,
            waiting: Vec::new(),
            responses: Vec::new(),
            answered: None,
            refusals: Vec::new(),
            looked_up: Vec::new(),
            transaction: 0,
        }
    }

    /// Lets time go by without the timers being asked.
    pub(crate) fn sleep(&mut self, seconds: u64) {
        self.now.instant += Duration::from_secs(seconds);
        self.now.unix += seconds;
    }

    /// Lets time go by, and each timer fire when it is due.
    pub(crate) fn pass(&mut self, seconds: u64) -> Vec<Event> {
        let mut events = Vec::new();
        let end = self.now.instant + Duration::from_secs(seconds);
        while let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) {
            let step = due.saturating_duration_since(self.now.instant);
            self.now.instant += step;
            self.now.unix += step.as_secs();
            self.server.handle_timeout(self.now);
            events.extend(self.drain());
        }
        let rest = end.saturating_duration_since(self.now.instant);
        self.now.instant += rest;
        self.now.unix += rest.as_secs();
        events
    }

    /// Takes all effects, as a driver would, and checks that they make sense to it.
    pub(crate) fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut error = None;
        while let Some(effect) = self.server.poll_effect() {
            check_refusal(error.take(), Some(&effect));
            let event = match effect {
                Effect::Respond { five_tuple, message } => {
                    error = error_in(message);
                    self.responses.push(message.to_vec());
                    self.answered = Some(five_tuple);
                    Event::Response(five_tuple.client)
                }
                Effect::Bind { relay, request } => Event::Bind(relay, request),
                Effect::Close { relay } => Event::Close(relay),
                Effect::DropReservation { token } => Event::DropReservation(token),
                Effect::InstallFlow { flow, expires } => Event::Install(flow, expires),
                Effect::RemoveFlow { flow } => Event::Remove(flow),
                Effect::Allocated { allocation } => Event::Allocated(allocation),
                Effect::Freed { allocation, reason } => Event::Freed(allocation, reason),
                Effect::Refused(refusal) => {
                    self.refusals.push(Refused::from(refusal));
                    continue;
                }
                Effect::Connect { connection, relay, peer } => Event::Connect(connection, relay, peer),
                Effect::Join { connection, five_tuple } => Event::Join(connection, five_tuple),
                Effect::CloseConnection { connection } => Event::CloseConnection(connection),
                Effect::Moved { allocation, from, to } => Event::Moved(allocation, from, to),
                Effect::Left { allocation, five_tuple } => Event::Left(allocation, five_tuple),
                Effect::LookUp { question } => {
                    self.looked_up.push(question.clone());
                    continue;
                }
            };
            self.carry_out(&event);
            events.push(event);
        }
        check_refusal(error, None);
        events
    }

    fn carry_out(&mut self, event: &Event) {
        match event {
            Event::Response(_) => {}
            Event::Bind(relay, request) => {
                let waits = self.waiting.iter().any(|(waiting, _)| waiting == relay);
                assert!(!waits, "{relay:?} is to be bound, and was not answered");
                self.waiting.push((*relay, *request));
                if self.binds {
                    self.answer_bind(self.waiting.len() - 1, None);
                }
            }
            Event::Close(relay) => {
                self.waiting.retain(|(waiting, _)| waiting != relay);
                let closed = self.sockets.remove(relay);
                let left = self.flows.values().find(|(flow, _)| Some(flow.relayed) == closed);
                assert_eq!(left, None, "a flow outlives its socket");
                self.streams.remove(relay);
                let left = self.connections.iter().find(|(_, connection)| connection.relay == *relay);
                assert_eq!(left, None, "a connection outlives its relayed address");
            }
            Event::DropReservation(token) => {
                self.reserved.remove(token);
            }
            Event::Install(flow, expires) => {
                assert!(*expires > self.now.instant, "a flow that has ended is installed: {flow:?}");
                assert!(self.allocations.contains(&flow.allocation), "a flow of nobody is installed: {flow:?}");
                if let Some(base) = base(flow) {
                    assert!(self.flows.values().any(|(flow, _)| *flow == base), "{flow:?} rests on nothing");
                }
                assert!(self.sockets.values().any(|bound| *bound == flow.relayed), "{flow:?} has no socket");
                if let Some((before, end)) = self.flows.insert(Place::of(flow), (*flow, *expires)) {
                    assert_eq!(before, *flow, "a flow is installed over another one");
                    assert_ne!(end, *expires, "a flow is installed again and nothing is new");
                }
            }
            Event::Remove(flow) => {
                let installed = self.flows.remove(&Place::of(flow)).map(|(flow, _)| flow);
                assert_eq!(installed, Some(*flow), "a flow is removed that was not installed");
                let left = self.flows.values().find(|(left, _)| base(left) == Some(*flow));
                assert_eq!(left, None, "a flow outlives what it rests on");
            }
            Event::Allocated(allocation) => {
                assert!(self.allocations.insert(*allocation), "{allocation:?} is in use");
            }
            Event::Freed(allocation, reason) => {
                self.ended.push(*reason);
                assert!(self.allocations.remove(allocation), "{allocation:?} is freed twice");
                let left = self.flows.values().find(|(flow, _)| flow.allocation == *allocation);
                assert_eq!(left, None, "a flow outlives its allocation");
            }
            Event::Moved(allocation, ..) => {
                assert!(self.allocations.contains(allocation), "{allocation:?} is nobody's");
            }
            Event::Left(allocation, five_tuple) => {
                assert!(self.allocations.contains(allocation), "{allocation:?} is nobody's");
                let left = self.flows.values().find(|(flow, _)| flow.five_tuple == *five_tuple);
                assert_eq!(left, None, "a flow of {five_tuple:?} is left");
            }
            Event::Connect(id, relay, peer) => {
                assert!(self.streams.contains(relay), "{relay:?} does not speak TCP");
                let connection = Connection { relay: *relay, peer: *peer, stage: Stage::Opening };
                self.add_connection(*id, connection);
            }
            Event::Join(id, five_tuple) => {
                let connection = self.connections.get_mut(id).expect("what is joined is there");
                assert_eq!(connection.stage, Stage::Open, "{id:?} cannot be joined");
                connection.stage = Stage::Joined(*five_tuple);
            }
            Event::CloseConnection(id) => {
                assert!(self.connections.remove(id).is_some(), "{id:?} is closed twice");
            }
        }
    }

    /// Answers what waits at this place in the order of asking: as the sockets say, or by a failure.
    pub(crate) fn answer_bind(&mut self, at: usize, failure: Option<BindError>) {
        let (relay, request) = self.waiting.remove(at);
        let result = match (failure, request) {
            (None, _) => self.bind(request),
            (Some(error), BindRequest::Reserved(token)) => {
                self.reserved.remove(&token);
                Err(error)
            }
            (Some(error), _) => Err(error),
        };
        if let Ok(address) = result {
            assert!(self.sockets.insert(relay, address).is_none(), "{relay:?} is bound twice");
            if matches!(request, BindRequest::Stream(_)) {
                self.streams.insert(relay);
            }
        }
        self.server.relay_bound(self.now, relay, result);
    }

    fn bind(&mut self, request: BindRequest) -> Result<RelayedAddr, BindError> {
        let free = |relay: &Self, address: RelayedAddr| {
            if relay.broken.contains(&address.ip()) {
                return Err(BindError::Unavailable);
            }
            let mut bound = relay.sockets.values().chain(relay.reserved.values());
            let taken = relay.taken.contains(&address.port()) || bound.any(|bound| *bound == address);
            if taken { Err(BindError::InUse) } else { Ok(address) }
        };
        match request {
            BindRequest::Port(address) | BindRequest::Stream(address) => free(self, address),
            BindRequest::Pair(address, token) => {
                assert!(address.port().is_multiple_of(2), "{address} is not even");
                let next = RelayedAddr::new(SocketAddr::new(address.ip(), address.port() + 1));
                free(self, next)?;
                let address = free(self, address)?;
                self.reserved.insert(token, next);
                Ok(address)
            }
            BindRequest::Reserved(token) => self.reserved.remove(&token).ok_or(BindError::NoReservation),
        }
    }

    fn add_connection(&mut self, id: ConnectionId, connection: Connection) {
        let same = |known: &Connection| (known.relay, known.peer) == (connection.relay, connection.peer);
        assert!(!self.connections.values().any(same), "two connections to the same peer");
        assert!(self.connections.insert(id, connection).is_none(), "{id:?} is in use");
    }

    /// A peer connects to a relayed address.
    pub(crate) fn peer_connects(&mut self, relay: RelayId, peer: &str) -> Option<ConnectionId> {
        let peer = PeerAddr::new(socket(peer));
        let id = self.server.peer_accepted(self.now, relay, peer)?;
        self.add_connection(id, Connection { relay, peer, stage: Stage::Open });
        Some(id)
    }

    /// An attempt to connect has come to its end.
    pub(crate) fn connected(&mut self, id: ConnectionId, result: Result<(), ConnectError>) -> Vec<Event> {
        match result {
            Ok(()) => self.connections.get_mut(&id).expect("it was under way").stage = Stage::Open,
            Err(_) => drop(self.connections.remove(&id).expect("it was under way")),
        }
        self.server.peer_connected(self.now, id, result);
        self.drain()
    }

    /// A connection ends, at either side.
    pub(crate) fn disconnected(&mut self, id: ConnectionId) -> Vec<Event> {
        self.connections.remove(&id).expect("it was there");
        self.server.connection_closed(self.now, id);
        self.drain()
    }
    /// The flow of a relayed address's allocation, by scope.
    pub(crate) fn flow(&self, client: &Client, relay: RelayId, scope: Scope) -> Flow {
        let relayed = self.sockets[&relay];
        let mut installed = self.flows.values().map(|(flow, _)| flow);
        let known = installed.find(|flow| flow.relayed == relayed).expect("the relayed address has a flow");
        Flow { allocation: known.allocation, five_tuple: client.five_tuple, relayed, scope }
    }

    pub(crate) fn at(&self, seconds: u64) -> Instant {
        self.now.instant + Duration::from_secs(seconds)
    }

    /// Shuts the server down, and checks that nothing is left of anything.
    pub(crate) fn shut_down(&mut self) {
        self.server.shutdown(self.now);
        self.drain();
        assert_eq!(self.sockets, BTreeMap::new(), "a socket is left");
        assert_eq!(self.reserved, BTreeMap::new(), "a reserved socket is left");
        assert_eq!(self.connections, BTreeMap::new(), "a connection is left");
        assert_eq!(self.flows, BTreeMap::new(), "a flow is left");
        assert_eq!(self.allocations, BTreeSet::new(), "an allocation was not freed");
        assert_eq!((self.server.allocations(), self.server.allocations_by_client()), (0, [[0; 2]; 4]));
        assert_eq!(self.server.poll_timeout(), None, "a timer is left");
        assert_eq!(self.quotas.in_use(), 0, "a quota is not given back");
        assert!(self.server.ports_in_use().iter().all(|(_, ports)| *ports == 0), "a port is not given back");
        let refused = Cause::ALL.map(|cause| self.refusals.iter().filter(|refused| refused.cause == cause).count());
        assert_eq!(self.server.refusals().map(|count| count as usize), refused);
    }
}

/// The code of an error response.
fn error_in(message: &[u8]) -> Option<u16> {
    let Ok(message) = Message::parse(message) else { return Some(500) };
    let code: ErrorCodeAttribute<'_> = message.attribute().unwrap().filter(|_| message.class() == Class::Error)?;
    Some(code.code.number())
}

/// Behind each error response comes its refusal, unless it only asks for credentials or for a fresh nonce.
fn check_refusal(error: Option<u16>, next: Option<&Effect<'_>>) {
    match (error, next) {
        (Some(code), Some(Effect::Refused(refusal))) => assert_eq!(refusal.code.number(), code),
        (None, Some(Effect::Refused(refusal))) => panic!("there was no response: {refusal:?}"),
        (Some(code), _) => assert!([401, 438].contains(&code), "nobody is told why it is {code}"),
        (None, _) => {}
    }
    assert!(!matches!(next, Some(Effect::Refused(refusal)) if refusal.code.number() == 438), "{next:?}");
}
