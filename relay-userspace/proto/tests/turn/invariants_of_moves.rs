//! What holds whatever clients that move, their connections to peers, and time do.
//!
//! A model without timers knows where each client is and which connections there are; the test driver checks the order
//! of effects by itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hairpin_proto::address::{ClientAddr, FiveTuple, PeerAddr, ServerAddr, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{ConnectionId, MobilityTicket, XorPeerAddress};
use hairpin_proto::turn::{ConnectError, Discard, Disposition, EndReason, Forward, RelayId, Settings};
use proptest::prelude::*;

use crate::harness::{Client, Event, Relay, SERVER, Stage, TCP, UDP, channel_data, dropped, socket};
use crate::mobility::mobile_config;

const CLIENTS: usize = 3;
const PLACES: usize = 3;
const CONNECTIONS: usize = 2;
const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

#[derive(Clone, Debug)]
enum Step {
    Allocate { client: usize, place: usize, transport: Transport, tcp: bool, mobile: bool },
    Delete { client: usize },
    Permit { client: usize },
    Move { client: usize, place: usize, transport: Transport },
    Data { client: usize },
    Lose { client: usize, newer: bool },
    Connect { client: usize, port: u16 },
    Answer { at: usize, ok: bool },
    Accept { client: usize, port: u16 },
    Join { at: usize },
    Close { at: usize },
    Time { seconds: u64 },
    Reconfigure { rules: Rules },
    Revoke { client: usize },
}

/// What the settings say.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Whether the peers are forbidden.
    denied: bool,
    tcp: bool,
    mobile: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let place = (0..CLIENTS, 0..PLACES, proptest::sample::select(&TRANSPORTS[..]));
    prop_oneof![
        6 => (place.clone(), any::<bool>(), proptest::bool::weighted(0.8)).prop_map(
            |((client, place, transport), tcp, mobile)| Step::Allocate { client, place, transport, tcp, mobile }
        ),
        1 => client.clone().prop_map(|client| Step::Delete { client }),
        4 => client.clone().prop_map(|client| Step::Permit { client }),
        6 => place.prop_map(|(client, place, transport)| Step::Move { client, place, transport }),
        4 => client.clone().prop_map(|client| Step::Data { client }),
        2 => (client.clone(), any::<bool>()).prop_map(|(client, newer)| Step::Lose { client, newer }),
        5 => (client.clone(), 1..4_u16).prop_map(|(client, port)| Step::Connect { client, port }),
        4 => (0..3_usize, any::<bool>()).prop_map(|(at, ok)| Step::Answer { at, ok }),
        5 => (client, 1..4_u16).prop_map(|(client, port)| Step::Accept { client, port }),
        3 => (0..3_usize).prop_map(|at| Step::Join { at }),
        1 => (0..3_usize).prop_map(|at| Step::Close { at }),
        3 => prop_oneof![1..20_u64, 100..400_u64].prop_map(|seconds| Step::Time { seconds }),
        2 => (proptest::bool::weighted(0.3), proptest::bool::weighted(0.7), proptest::bool::weighted(0.7)).prop_map(
            |(denied, tcp, mobile)| Step::Reconfigure { rules: Rules { denied, tcp, mobile } }
        ),
        1 => (0..CLIENTS).prop_map(|client| Step::Revoke { client }),
    ]
}

/// What one client has.
#[derive(Clone)]
struct Owned {
    tcp: bool,
    relay: RelayId,
    ticket: Option<Vec<u8>>,
    /// Where data goes.
    at: Option<FiveTuple>,
    /// Where it will go.
    next: Option<FiveTuple>,
    ends: Instant,
    permitted: Option<Instant>,
}

impl Owned {
    fn is_at(&self, five_tuple: &FiveTuple) -> bool {
        self.at.as_ref() == Some(five_tuple) || self.next.as_ref() == Some(five_tuple)
    }

    fn settle(&mut self) {
        self.at = self.next.take().or(self.at);
    }
}

struct World {
    relay: Relay,
    owned: Vec<Option<Owned>>,
    /// When each connection has come to its stage.
    since: HashMap<ConnectionId, (Stage, Instant)>,
    ports: u16,
    settings: Settings,
    rules: Rules,
}

fn five_tuple(place: usize, transport: Transport) -> FiveTuple {
    let client = ClientAddr::new(socket(&format!("203.0.113.7:{}", 41_000 + place)));
    FiveTuple { client, server: ServerAddr::new(socket(SERVER)), transport }
}

fn alice(five_tuple: FiveTuple) -> Client {
    Client { five_tuple, ..Client::alice("203.0.113.7:1") }
}

fn peer(port: u16) -> String {
    format!("8.8.8.8:{port}")
}

impl World {
    fn new() -> Self {
        let mut config = mobile_config();
        config.settings.limits.connections = CONNECTIONS;
        config.nonce_lifetime = Duration::from_secs(1 << 30);
        Self {
            settings: config.settings.clone(),
            rules: Rules { denied: false, tcp: true, mobile: true },
            relay: Relay::new(config),
            owned: vec![None; CLIENTS],
            since: HashMap::new(),
            ports: 1,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Allocate { client, place, transport, tcp, mobile } => {
                self.allocate(client, five_tuple(place, transport), tcp, mobile);
            }
            Step::Delete { client } => self.delete(client),
            Step::Permit { client } => {
                if let Some(at) = self.owned[client].as_ref().and_then(|owned| owned.at) {
                    let mut alice = alice(at);
                    let answer = self.relay.permit(&mut alice, &[&peer(0)]);
                    if self.rules.denied {
                        return answer.expect_error(&alice, 403);
                    }
                    answer.expect_success(&alice);
                    let end = self.relay.at(300);
                    self.owned[client].iter_mut().for_each(|owned| owned.permitted = Some(end));
                }
            }
            Step::Move { client, place, transport } => self.move_to(client, five_tuple(place, transport)),
            Step::Data { client } => {
                let Some(next) = self.owned[client].as_ref().and_then(|owned| owned.next) else { return };
                let datagram = channel_data(0x4000, b"data");
                let sent = self.relay.client_sends(&alice(next), &datagram);
                assert_eq!(sent, dropped(Discard::NoChannel));
                self.owned[client].iter_mut().for_each(Owned::settle);
                self.relay.drain();
            }
            Step::Lose { client, newer } => self.lose(client, newer),
            Step::Connect { client, port } => self.connect(client, port),
            Step::Answer { at, ok } => {
                if let Some(id) = self.connection(at, |stage| stage == Stage::Opening) {
                    self.relay.connected(id, if ok { Ok(()) } else { Err(ConnectError::Failed) });
                }
            }
            Step::Accept { client, port } => self.accept(client, port),
            Step::Join { at } => {
                let Some(id) = self.connection(at, |stage| stage == Stage::Open) else { return };
                self.ports += 1;
                let mut data = Client::alice(&format!("203.0.113.9:{}", self.ports)).over(Transport::Tcp);
                self.relay.bind_connection(&mut data, id).expect_success(&data);
                assert_eq!(self.relay.connections[&id].stage, Stage::Joined(data.five_tuple));
            }
            Step::Close { at } => {
                if let Some(id) = self.connection(at, |_| true) {
                    self.relay.disconnected(id);
                }
            }
            Step::Time { seconds } => {
                self.relay.pass(seconds);
            }
            Step::Reconfigure { rules } => self.reconfigure(rules),
            Step::Revoke { client } => self.revoke(client),
        }
    }

    /// All peers have one address: when it is forbidden, nothing is left of any.
    fn reconfigure(&mut self, rules: Rules) {
        let mut settings = self.settings.clone();
        if rules.denied {
            settings.peer_policy.deny("8.8.8.8/32".parse().unwrap());
            self.owned.iter_mut().flatten().for_each(|owned| owned.permitted = None);
        }
        settings.tcp_relay = rules.tcp;
        settings.mobility = settings.mobility.filter(|_| rules.mobile);
        self.rules = rules;
        self.relay.server.reconfigure(self.relay.now, settings);
        self.relay.drain();
        assert!(!rules.denied || self.relay.connections.is_empty(), "a connection to a forbidden peer is left");
    }

    fn revoke(&mut self, client: usize) {
        let Some(owned) = self.owned[client].take() else { return };
        let relayed = self.relay.sockets[&owned.relay];
        let ids = self.relay.server.allocation_ids().into_iter();
        let mut described = ids.map(|id| (id, self.relay.server.describe(id).expect("what has a name is there")));
        let (id, info) = described.find(|(_, info)| info.relayed[0].bound == relayed).expect("it is there");
        assert_eq!(Some(info.five_tuple).filter(|_| info.is_present), owned.at);
        drop(described);
        self.relay.server.close_allocation(self.relay.now, id, EndReason::Closed);
        self.relay.drain();
        assert_eq!(self.relay.ended.last(), Some(&EndReason::Closed));
    }

    fn connection(&self, at: usize, wanted: impl Fn(Stage) -> bool) -> Option<ConnectionId> {
        let mut ids = self.relay.connections.iter().filter(|(_, connection)| wanted(connection.stage));
        ids.nth(at).map(|(id, _)| *id)
    }

    fn is_taken(&self, five_tuple: &FiveTuple) -> bool {
        self.owned.iter().flatten().any(|owned| owned.is_at(five_tuple))
    }

    fn allocate(&mut self, client: usize, at: FiveTuple, tcp: bool, mobile: bool) {
        if self.owned[client].is_some() {
            return;
        }
        let expected = match () {
            () if self.is_taken(&at) => 437,
            () if mobile && !self.rules.mobile => 405,
            () if tcp && !self.rules.tcp => 442,
            () if tcp && !at.transport.is_stream() => 400,
            () => 200,
        };
        let ticket = mobile.then_some(MobilityTicket(&[]));
        let answer = self.relay.request(&mut alice(at), Method::ALLOCATE, |request| {
            request.with(if tcp { &TCP } else { &UDP }).with_option(ticket.as_ref())
        });
        assert_eq!(answer.code(), expected);
        if expected == 200 {
            assert_eq!(answer.ticket().is_some(), mobile);
            let (relay, ticket, ends) = (answer.bound(), answer.ticket(), self.relay.at(600));
            self.owned[client] = Some(Owned { tcp, relay, ticket, at: Some(at), next: None, ends, permitted: None });
        }
    }

    fn delete(&mut self, client: usize) {
        let Some(at) = self.owned[client].as_ref().and_then(|owned| owned.at) else { return };
        let mut alice = alice(at);
        let lifetime = hairpin_proto::stun::attribute::Lifetime(0);
        let request = self.relay.signed(&mut alice, Method::REFRESH, |request| request.with(&lifetime));
        let events = self.relay.control(&alice, &request);
        assert_eq!(events.last(), Some(&Event::Response(at.client)), "before it, what was being opened has failed");
        self.owned[client] = None;
    }

    fn move_to(&mut self, client: usize, to: FiveTuple) {
        let Some(owned) = self.owned[client].clone() else { return };
        let Some(ticket) = &owned.ticket else { return };
        let is_of_another =
            (0..CLIENTS).any(|other| other != client && self.owned[other].as_ref().is_some_and(|o| o.is_at(&to)));
        let expected = match owned.next.or(owned.at) {
            Some(newest) if newest == to => 400,
            _ if owned.tcp && !to.transport.is_stream() => 400,
            _ if is_of_another => 437,
            _ => 200,
        };
        let answer = self.relay.show(&mut alice(to), ticket);
        assert_eq!(answer.code(), expected);
        if expected == 200 {
            let ends = self.relay.at(600);
            let Some(owned) = &mut self.owned[client] else { return };
            owned.settle();
            owned.next = Some(to);
            owned.ticket = answer.ticket();
            owned.ends = ends;
            if owned.tcp || owned.at.is_none() {
                owned.settle();
            }
        }
    }

    fn lose(&mut self, client: usize, newer: bool) {
        let Some(owned) = &mut self.owned[client] else { return };
        let lost = if newer { owned.next.or(owned.at) } else { owned.at };
        let Some(lost) = lost.filter(|lost| lost.transport != Transport::Udp) else { return };
        if owned.next == Some(lost) {
            owned.next = None;
        } else {
            owned.at = owned.next.take();
        }
        if owned.ticket.is_none() {
            self.owned[client] = None;
        }
        self.relay.server.client_lost(self.relay.now, &lost);
        self.relay.drain();
    }

    /// Whether there is room for a connection, and none to this peer.
    fn welcomes(&self, owned: &Owned, port: u16) -> Result<(), u16> {
        let of_client = || self.relay.connections.values().filter(|connection| connection.relay == owned.relay);
        if of_client().any(|connection| connection.peer == PeerAddr::new(socket(&peer(port)))) {
            return Err(446);
        }
        if self.rules.denied {
            return Err(403);
        }
        if of_client().count() < CONNECTIONS { Ok(()) } else { Err(508) }
    }

    fn connect(&mut self, client: usize, port: u16) {
        let Some(owned) = self.owned[client].clone().filter(|owned| owned.tcp) else { return };
        let Some(at) = owned.at else { return };
        let mut alice = alice(at);
        let address = XorPeerAddress(socket(&peer(port)));
        let request = self.relay.signed(&mut alice, Method::CONNECT, |request| request.with(&address));
        match self.welcomes(&owned, port) {
            Ok(()) => {
                let events = self.relay.control(&alice, &request);
                assert!(matches!(events[..], [Event::Connect(_, relay, _)] if relay == owned.relay), "{events:?}");
            }
            Err(code) => self.relay.answer(&alice, &request).expect_error(&alice, code),
        }
    }

    fn accept(&mut self, client: usize, port: u16) {
        let Some(owned) = self.owned[client].clone() else { return };
        let now = self.relay.now.instant;
        let permitted = owned.permitted.is_some_and(|end| now < end);
        let welcome = owned.tcp && owned.at.is_some() && permitted && self.welcomes(&owned, port).is_ok();
        assert_eq!(self.relay.peer_connects(owned.relay, &peer(port)).is_some(), welcome);
        let told = self.relay.drain();
        assert!(told.iter().eq(owned.at.filter(|_| welcome).map(|at| Event::Response(at.client)).as_ref()));
    }

    fn check(&mut self) {
        let now = self.relay.now.instant;
        for owned in &mut self.owned {
            if owned.as_ref().is_some_and(|owned| owned.ends <= now) {
                *owned = None;
            }
        }
        assert_eq!(self.relay.server.allocations(), self.owned.iter().flatten().count());
        for place in 0..PLACES {
            for transport in TRANSPORTS {
                let five_tuple = five_tuple(place, transport);
                assert_eq!(self.relay.server.has_allocation(&five_tuple), self.is_taken(&five_tuple), "{five_tuple:?}");
            }
        }
        self.check_connections(now);
        for owned in self.owned.clone().iter().flatten().filter(|owned| !owned.tcp) {
            self.check_flows(owned, now);
        }
    }

    /// No connection waits for too long, or without an allocation.
    fn check_connections(&mut self, now: Instant) {
        let before = std::mem::take(&mut self.since);
        for (id, connection) in &self.relay.connections {
            let since = before.get(id).filter(|(stage, _)| *stage == connection.stage).map_or(now, |(_, since)| *since);
            let waits = !matches!(connection.stage, Stage::Joined(_));
            assert!(!waits || now < since + Duration::from_secs(30), "{id:?} waits since {since:?}");
            let owned = self.owned.iter().flatten().any(|owned| owned.tcp && owned.relay == connection.relay);
            assert!(owned, "{id:?} is nobody's");
            self.since.insert(*id, (connection.stage, since));
        }
    }

    /// Data goes where the client is, by either path.
    fn check_flows(&mut self, owned: &Owned, now: Instant) {
        let relayed = self.relay.sockets[&owned.relay];
        let permitted = owned.permitted.is_some_and(|end| now < end);
        let flows = self.relay.flows.values().filter(|(flow, _)| flow.relayed == relayed);
        let tuples: Vec<_> = flows.map(|(flow, _)| flow.five_tuple).collect();
        let expected = match owned.at.filter(|at| at.transport == Transport::Udp) {
            Some(at) => vec![at; 1 + usize::from(permitted)],
            None => vec![],
        };
        assert_eq!(tuples, expected);
        let expected = match owned.at {
            _ if !permitted => Err(Discard::NoPermission),
            Some(at) => Ok(at),
            None => Err(Discard::NoClient),
        };
        let reached = match self.relay.peer_sends(owned.relay, &peer(9), b"data") {
            Disposition::Forward(Forward::ToClient { five_tuple, .. }) => Ok(five_tuple),
            Disposition::Discard(reason) => Err(reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(reached, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clients_and_connections_are_where_they_should_be_and_nothing_is_left_in_the_end(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(&step);
            world.check();
        }
        world.relay.shut_down();
    }
}
