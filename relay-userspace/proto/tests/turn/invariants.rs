//! What holds whatever clients, peers and time do.
//!
//! A model of permissions and channels that knows nothing of timers says what may be forwarded; the test driver checks
//! the order of effects by itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hairpin_proto::address::{AddressFamily, PeerAddr, RelayedAddr};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, ChannelNumberAttribute, EvenPort, Lifetime, RequestedAddressFamily, ReservationToken,
    XorPeerAddress,
};
use hairpin_proto::turn::{Disposition, Forward, PortStripe, Scope};
use proptest::prelude::*;

use crate::harness::{Answer, Client, Relay, UDP, channel_data, config, send_indication, socket};

const PEERS: [&str; 7] = [
    "8.8.8.8:53",
    "8.8.8.8:54",
    "8.8.4.4:53",
    "[2001:db8::53]:53",
    "[2001:db8::53]:54",
    // Forbidden.
    "127.0.0.1:53",
    // A relayed address, perhaps.
    "198.51.100.15:50000",
];
const CHANNELS: [u16; 4] = [0x4000, 0x4001, 0x7fff, 0x3fff];
const CLIENTS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Allocate {
        client: usize,
        family: Option<bool>,
        additional: bool,
        even: Option<bool>,
        lifetime: Option<u32>,
    },
    Redeem {
        client: usize,
    },
    Refresh {
        client: usize,
        lifetime: Option<u32>,
        family: Option<bool>,
    },
    Permit {
        client: usize,
        peers: Vec<usize>,
    },
    Bind {
        client: usize,
        channel: usize,
        peer: usize,
    },
    /// The last request of this client once more.
    Repeat {
        client: usize,
    },
    WrongPassword {
        client: usize,
    },
    Noise {
        client: usize,
        bytes: Vec<u8>,
    },
    LoseSocket {
        at: usize,
    },
    /// With timers, or without them.
    Time {
        seconds: u64,
        timers: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let lifetime = proptest::option::of(prop_oneof![Just(0_u32), 1..5000_u32]);
    prop_oneof![
        4 => (client.clone(), any::<Option<bool>>(), any::<bool>(), any::<Option<bool>>(), lifetime.clone()).prop_map(
            |(client, family, additional, even, lifetime)| Step::Allocate { client, family, additional, even, lifetime }
        ),
        1 => client.clone().prop_map(|client| Step::Redeem { client }),
        2 => (client.clone(), lifetime, any::<Option<bool>>())
            .prop_map(|(client, lifetime, family)| Step::Refresh { client, lifetime, family }),
        4 => (client.clone(), proptest::collection::vec(0..PEERS.len(), 0..3))
            .prop_map(|(client, peers)| Step::Permit { client, peers }),
        6 => (client.clone(), 0..CHANNELS.len(), 0..PEERS.len())
            .prop_map(|(client, channel, peer)| Step::Bind { client, channel, peer }),
        1 => client.clone().prop_map(|client| Step::Repeat { client }),
        1 => client.clone().prop_map(|client| Step::WrongPassword { client }),
        1 => (client, proptest::collection::vec(any::<u8>(), 0..64))
            .prop_map(|(client, bytes)| Step::Noise { client, bytes }),
        1 => (0..4_usize).prop_map(|at| Step::LoseSocket { at }),
        4 => (prop_oneof![1..20_u64, 100..700_u64], any::<bool>())
            .prop_map(|(seconds, timers)| Step::Time { seconds, timers }),
    ]
}

/// What one client may do, from the answers that it got.
#[derive(Default)]
struct Rights {
    families: HashMap<AddressFamily, Instant>,
    permissions: HashMap<IpAddr, Instant>,
    channels: HashMap<u16, (usize, Instant)>,
}

impl Rights {
    fn permits(&self, peer: usize, now: Instant) -> bool {
        let ip = socket(PEERS[peer]).ip();
        let allocated = self.families.get(&AddressFamily::of(ip)).is_some_and(|end| now < *end);
        allocated && self.permissions.get(&ip).is_some_and(|end| now < *end)
    }

    fn channel_to(&self, peer: usize, now: Instant) -> Option<u16> {
        self.channels.iter().find(|(_, (bound, end))| *bound == peer && now < *end).map(|(number, _)| *number)
    }

    fn forget(&mut self, family: AddressFamily) {
        self.families.remove(&family);
        self.permissions.retain(|ip, _| AddressFamily::of(*ip) != family);
        self.channels.retain(|_, (peer, _)| AddressFamily::of(socket(PEERS[*peer]).ip()) != family);
    }

    /// What ends with its family is forgotten, also when the server has not been asked since.
    fn tidy(&mut self, now: Instant) {
        for family in [AddressFamily::V4, AddressFamily::V6] {
            if self.families.get(&family).is_some_and(|end| *end <= now) {
                self.forget(family);
            }
        }
    }
}

/// A request that succeeded.
struct Granted {
    at: Instant,
    datagram: Vec<u8>,
    answer: Vec<u8>,
}

struct World {
    relay: Relay,
    clients: Vec<Client>,
    rights: Vec<Rights>,
    last: Vec<Option<Granted>>,
    token: Option<ReservationToken>,
    /// The relayed addresses that each client was told last.
    told: Vec<Vec<SocketAddr>>,
}

impl World {
    fn new() -> Self {
        let mut config = config();
        config.ports = PortStripe::new(49_998..=50_003, 0, 1);
        config.limits.allocations_per_user = 3;
        config.limits.permissions = 3;
        config.limits.channels = 2;
        // The test is longer than a nonce's life.
        config.nonce_lifetime = Duration::from_secs(1 << 30);
        Self {
            relay: Relay::new(config),
            clients: (0..CLIENTS).map(|at| Client::alice(&format!("203.0.113.7:{}", 41_000 + at))).collect(),
            rights: (0..CLIENTS).map(|_| Rights::default()).collect(),
            last: (0..CLIENTS).map(|_| None).collect(),
            token: None,
            told: vec![Vec::new(); CLIENTS],
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Allocate { client, family, additional, even, lifetime } => {
                let family = family.map(|v6| RequestedAddressFamily(Ok(family_of(v6))));
                let additional = additional.then_some(AdditionalAddressFamily(Ok(AddressFamily::V6)));
                let even = even.map(|reserve_next| EvenPort { reserve_next });
                let lifetime = lifetime.map(Lifetime);
                let datagram = self.relay.signed(&mut self.clients[client], Method::ALLOCATE, |request| {
                    request
                        .with(&UDP)
                        .with_option(family.as_ref())
                        .with_option(additional.as_ref())
                        .with_option(even.as_ref())
                        .with_option(lifetime.as_ref())
                });
                self.allocate(client, datagram);
            }
            Step::Redeem { client } => {
                let token = self.token.unwrap_or(ReservationToken([0; 8]));
                let datagram = self
                    .relay
                    .signed(&mut self.clients[client], Method::ALLOCATE, |request| request.with(&UDP).with(&token));
                self.allocate(client, datagram);
            }
            Step::Refresh { client, lifetime, family } => self.refresh(client, lifetime, family.map(family_of)),
            Step::Permit { client, peers } => self.permit(client, &peers),
            Step::Bind { client, channel, peer } => self.bind(client, CHANNELS[channel], peer),
            Step::Repeat { client } => self.repeat(client),
            Step::WrongPassword { client } => {
                let mut mallory = Client::new(&self.clients[client].five_tuple.client.to_string(), "alice", "guess");
                assert_eq!(self.relay.refresh(&mut mallory, 0).code(), 401);
            }
            Step::Noise { client, bytes } => {
                let before = (self.relay.server.allocations(), self.relay.server.poll_timeout());
                let disposition = self.relay.client_sends(&self.clients[client], &bytes);
                let control = disposition == Disposition::Control;
                let events = self.relay.drain();
                self.relay.responses.clear();
                assert_eq!(control, !events.is_empty(), "{bytes:02x?}");
                assert_eq!((self.relay.server.allocations(), self.relay.server.poll_timeout()), before);
            }
            Step::LoseSocket { at } => self.lose_socket(at),
            Step::Time { seconds, timers: true } => {
                self.relay.pass(seconds);
            }
            Step::Time { seconds, timers: false } => self.relay.sleep(seconds),
        }
    }

    fn refresh(&mut self, client: usize, lifetime: Option<u32>, family: Option<AddressFamily>) {
        let lifetime = lifetime.map(Lifetime);
        let requested = family.map(|family| RequestedAddressFamily(Ok(family)));
        let datagram = self.relay.signed(&mut self.clients[client], Method::REFRESH, |request| {
            request.with_option(lifetime.as_ref()).with_option(requested.as_ref())
        });
        let answer = self.answer(client, datagram);
        if answer.code() != 200 {
            return;
        }
        let rights = &mut self.rights[client];
        let families: Vec<_> = match family {
            Some(family) => vec![family],
            None => rights.families.keys().copied().collect(),
        };
        for family in families {
            match answer.lifetime() {
                0 => rights.forget(family),
                seconds => {
                    rights.families.insert(family, self.relay.at(seconds.into()));
                }
            }
        }
    }

    fn permit(&mut self, client: usize, peers: &[usize]) {
        let datagram = self.relay.signed(&mut self.clients[client], Method::CREATE_PERMISSION, |request| {
            peers.iter().fold(request, |request, peer| request.with(&XorPeerAddress(socket(PEERS[*peer]))))
        });
        if self.answer(client, datagram).code() == 200 {
            let end = self.relay.at(300);
            let ips = peers.iter().map(|peer| (socket(PEERS[*peer]).ip(), end));
            self.rights[client].permissions.extend(ips);
        }
    }

    fn bind(&mut self, client: usize, channel: u16, peer: usize) {
        let number = ChannelNumberAttribute(channel);
        let datagram = self.relay.signed(&mut self.clients[client], Method::CHANNEL_BIND, |request| {
            request.with(&number).with(&XorPeerAddress(socket(PEERS[peer])))
        });
        if self.answer(client, datagram).code() == 200 {
            let rights = &mut self.rights[client];
            rights.permissions.insert(socket(PEERS[peer]).ip(), self.relay.at(300));
            rights.channels.insert(channel, (peer, self.relay.at(600)));
        }
    }

    fn repeat(&mut self, client: usize) {
        let now = self.relay.now.instant;
        let recent = self.last[client].take().filter(|last| now < last.at + Duration::from_secs(40));
        if let Some(last) = recent {
            let before = self.relay.flows.clone();
            let answer = self.relay.answer(&self.clients[client], &last.datagram);
            assert_eq!(answer.bytes, last.answer);
            assert!(self.relay.flows.iter().all(|flow| before.get(flow.0) == Some(flow.1)), "a flow was installed");
        }
    }

    fn lose_socket(&mut self, at: usize) {
        let Some((id, address)) = self.relay.sockets.iter().nth(at).map(|(id, address)| (*id, *address)) else {
            return;
        };
        let owner = self.owner_of(address);
        self.relay.server.relay_failed(self.relay.now, id);
        self.relay.drain();
        if let Some(owner) = owner {
            self.rights[owner].forget(AddressFamily::of(address.ip()));
        }
    }

    /// Whose a relayed address is, by what the clients were told.
    fn owner_of(&self, address: RelayedAddr) -> Option<usize> {
        let family = AddressFamily::of(address.ip());
        let same = |told: &SocketAddr| told.port() == address.port() && AddressFamily::of(told.ip()) == family;
        (0..CLIENTS)
            .find(|client| self.rights[*client].families.contains_key(&family) && self.told[*client].iter().any(same))
    }

    fn allocate(&mut self, client: usize, datagram: Vec<u8>) {
        let answer = self.answer(client, datagram);
        if answer.code() == 200 {
            let end = self.relay.at(u64::from(answer.lifetime()));
            let rights = &mut self.rights[client];
            *rights = Rights::default();
            for address in answer.relayed() {
                rights.families.insert(AddressFamily::of(address.ip()), end);
            }
            self.token = answer.token().or(self.token);
            self.told[client] = answer.relayed();
        }
    }

    fn answer(&mut self, client: usize, datagram: Vec<u8>) -> Answer {
        let answer = self.relay.answer(&self.clients[client], &datagram);
        let granted = Granted { at: self.relay.now.instant, datagram, answer: answer.bytes.clone() };
        self.last[client] = (answer.code() == 200).then_some(granted);
        answer
    }

    /// Everything that a client could try, and everything that could come from peers.
    fn probe(&mut self) {
        let now = self.relay.now.instant;
        for client in 0..CLIENTS {
            self.rights[client].tidy(now);
            self.probe_client(client, now);
            self.probe_flows(client, now);
        }
        let sockets: Vec<_> = self.relay.sockets.iter().map(|(id, address)| (*id, *address)).collect();
        for (id, address) in sockets {
            let owner = self.owner_of(address);
            for (peer, name) in
                PEERS.iter().enumerate().filter(|(_, name)| family_to(name) == AddressFamily::of(address.ip()))
            {
                let rights = owner.map(|owner| &self.rights[owner]).filter(|rights| rights.permits(peer, now));
                let expected = rights.map(|rights| rights.channel_to(peer, now));
                let reached = match self.relay.peer_sends(id, name, b"probe") {
                    Disposition::Forward(Forward::ToClient { header, five_tuple, .. }) => {
                        assert_eq!(Some(five_tuple), owner.map(|owner| self.clients[owner].five_tuple));
                        let [high, low, ..] = *header.as_bytes() else { panic!("no header") };
                        Some(Some(u16::from_be_bytes([high, low])).filter(|first| *first >= 0x4000))
                    }
                    _ => None,
                };
                assert_eq!(reached, expected, "from {name} to {address}");
            }
        }
    }

    /// What a fast path forwards until it is told otherwise, and until when, is what the client has a right to.
    fn probe_flows(&self, client: usize, now: Instant) {
        let (rights, five_tuple) = (&self.rights[client], self.clients[client].five_tuple);
        let installed = self.relay.flows.values().filter(|(flow, end)| flow.five_tuple == five_tuple && now < *end);
        let installed: HashMap<_, _> = installed.map(|(flow, end)| ((flow.relayed, flow.scope), *end)).collect();
        let mut expected = HashMap::new();
        for (family, relay_end) in &rights.families {
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

    /// The socket behind the relayed address that a client was told.
    fn relayed(&self, client: usize, family: AddressFamily) -> RelayedAddr {
        let told = self.told[client].iter().find(|told| AddressFamily::of(told.ip()) == family).expect("it was told");
        let bound = |address: &&RelayedAddr| AddressFamily::of(address.ip()) == family && address.port() == told.port();
        *self.relay.sockets.values().find(bound).expect("a socket is open")
    }

    fn probe_client(&mut self, client: usize, now: Instant) {
        let rights = &self.rights[client];
        for (peer, name) in PEERS.iter().enumerate() {
            let datagram = send_indication(name, b"probe");
            let sent = self.relay.client_sends(&self.clients[client], &datagram);
            assert_eq!(matches!(sent, Disposition::Forward(_)), rights.permits(peer, now), "client {client} to {name}");
        }
        for number in CHANNELS {
            let datagram = channel_data(number, b"probe");
            let bound = rights.channels.get(&number).filter(|(_, end)| now < *end).map(|(peer, _)| *peer);
            let expected = bound.filter(|peer| rights.permits(*peer, now)).map(|peer| socket(PEERS[peer]));
            let reached = match self.relay.client_sends(&self.clients[client], &datagram) {
                Disposition::Forward(Forward::ToPeer { peer, .. }) => Some(peer.socket()),
                _ => None,
            };
            assert_eq!(reached, expected, "client {client}, channel 0x{number:04x}");
        }
    }
}

fn family_to(peer: &str) -> AddressFamily {
    AddressFamily::of(socket(peer).ip())
}

fn family_of(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::V6 } else { AddressFamily::V4 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_forwarded_without_a_right_and_nothing_is_left_in_the_end(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.probe();
        }
        world.relay.shut_down();
    }

    #[test]
    fn noise_that_looks_like_a_message_is_answered_or_dropped_and_changes_nothing(
        kind in prop_oneof![
            proptest::sample::select(&[0x0001_u16, 0x0003, 0x0004, 0x0008, 0x0009, 0x0016][..]),
            any::<u16>(),
        ],
        body in proptest::collection::vec(any::<u8>(), 0..200),
        whole in any::<bool>(),
    ) {
        let mut relay = Relay::default();
        let mut client = Client::alice("203.0.113.7:41000");
        relay.allocate(&mut client);
        let body = if whole { &body[..body.len() & !3] } else { &body[..] };
        let mut datagram = kind.to_be_bytes().to_vec();
        datagram.extend_from_slice(&(body.len() as u16).to_be_bytes());
        datagram.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        datagram.extend_from_slice(&[5; 12]);
        datagram.extend_from_slice(body);
        let timeout = relay.server.poll_timeout();
        let disposition = relay.client_sends(&client, &datagram);
        prop_assert!(!matches!(disposition, Disposition::Forward(_)), "{disposition:?}");
        let control = disposition == Disposition::Control;
        let events = relay.drain();
        prop_assert_eq!(events.len(), usize::from(control));
        prop_assert_eq!(relay.server.poll_timeout(), timeout);
        prop_assert_eq!(relay.server.allocations(), 1);
    }
}
