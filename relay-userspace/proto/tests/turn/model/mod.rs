//! Clients, peers and time that do anything, and a model of what they may: it takes [`Step`]s, from whoever draws them.
//!
//! The model knows permissions and channels by the answers that the clients got, and has no timers; after each step it
//! says what may be forwarded, and whether everything else is not. The test driver checks the order of effects by
//! itself.

mod datagrams;
mod probe;
mod rights;
mod settings;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_proto::address::{AddressFamily, ClientAddr, FiveTuple, RelayedAddr, ServerAddr, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, ChannelNumberAttribute, EvenPort, Lifetime, RequestedAddressFamily, ReservationToken,
    XorPeerAddress,
};
use hairpin_proto::turn::{BindError, EndReason, PortStripe, Settings};

use crate::harness::{Answer, Client, Event, RELAY_V4, RELAY_V6, Relay, SERVER, UDP, config, realm, socket};
use rights::Rights;
pub(crate) use settings::{ADDRESSES, Change, RULE_COUNT};

pub(crate) const PEERS: [&str; 7] = [
    "8.8.8.8:53",
    "8.8.8.8:54",
    "8.8.4.4:53",
    "[2001:db8::53]:53",
    "[2001:db8::53]:54",
    FORBIDDEN,
    // A relayed address, perhaps.
    "198.51.100.15:50000",
];
const FORBIDDEN: &str = "127.0.0.1:53";
/// The last one is no channel number.
pub(crate) const CHANNELS: [u16; 4] = [0x4000, 0x4001, 0x7fff, 0x3fff];
pub(crate) const PORTS: std::ops::RangeInclusive<u16> = 49_998..=50_003;
/// Two addresses of the server, each transport, and what differs in nothing but the transport.
pub(crate) const CLIENTS: usize = FIVE_TUPLES.len();
const FIVE_TUPLES: [(&str, &str, Transport); 6] = [
    ("203.0.113.7:41000", SERVER, Transport::Udp),
    ("203.0.113.7:41000", SERVER, Transport::Tcp),
    ("203.0.113.7:41000", SERVER, Transport::Tls),
    ("203.0.113.7:41000", SERVER, Transport::Dtls),
    ("203.0.113.7:41001", SERVER, Transport::Udp),
    ("[2001:db8:7::1]:41000", "[2001:db8::15]:3478", Transport::Tcp),
];
/// Names and passwords.
pub(crate) const USERS: usize = ACCOUNTS.len();
const ACCOUNTS: [(&str, &str); 2] = [("alice", "sesame"), ("bob", "hunter2")];
const QUOTA: usize = 3;

/// A request comes from a client, the place of a five-tuple, and is signed by a user. Peers and channels are named by
/// their places too, lifetimes are in seconds, and `v6` means that of the two families.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// When `later`, sockets are not bound before [`Step::Answer`] says so.
    Allocate {
        client: usize,
        user: usize,
        v6: Option<bool>,
        additional: bool,
        even: Option<bool>,
        lifetime: Option<u32>,
        later: bool,
    },
    /// Allocates the port that was reserved at last.
    Redeem {
        client: usize,
        user: usize,
        later: bool,
    },
    /// A socket that was to be bound is bound now, or cannot be.
    Answer {
        at: usize,
        failure: Option<BindError>,
    },
    Refresh {
        client: usize,
        user: usize,
        lifetime: Option<u32>,
        v6: Option<bool>,
    },
    Permit {
        client: usize,
        user: usize,
        peers: Vec<usize>,
    },
    Bind {
        client: usize,
        user: usize,
        channel: usize,
        peer: usize,
    },
    /// The last request of this client once more, unless it is one of a stream.
    Repeat {
        client: usize,
    },
    WrongPassword {
        client: usize,
    },
    /// Bytes that no client would send.
    Noise {
        client: usize,
        bytes: Vec<u8>,
    },
    /// Data for a peer: in a channel, or in a Send indication.
    ToPeer {
        client: usize,
        channel: Option<usize>,
        peer: usize,
        length: u16,
    },
    /// Data from a peer to a relayed address.
    FromPeer {
        at: usize,
        peer: usize,
        length: u16,
    },
    Icmp {
        at: usize,
        peer: usize,
        kind: u8,
        code: u8,
        mtu: u32,
    },
    /// Somebody else binds a port, or gives it back.
    Take {
        port: u16,
    },
    /// No socket can be bound for a while.
    Break {
        v6: bool,
    },
    LoseSocket {
        at: usize,
    },
    LoseClient {
        client: usize,
    },
    /// With timers, or without them.
    Time {
        seconds: u64,
        timers: bool,
    },
    /// Nothing may be left; and the next client begins anew.
    ShutDown,
    /// The settings are others.
    Reconfigure(Change),
    /// An operator closes what a client has.
    Close {
        client: usize,
        drained: bool,
    },
}

/// A request that succeeded.
struct Granted {
    at: Instant,
    user: usize,
    datagram: Vec<u8>,
    answer: Vec<u8>,
}

pub(crate) struct World {
    relay: Relay,
    /// By five-tuple and user.
    clients: Vec<[Client; USERS]>,
    rights: Vec<Rights>,
    /// Allocate requests whose sockets are being bound, and whose they are.
    begun: Vec<Option<(usize, Vec<u8>)>>,
    last: Vec<Option<Granted>>,
    token: Option<ReservationToken>,
    /// The relayed addresses that each client was told last.
    told: Vec<Vec<SocketAddr>>,
    /// The settings of the beginning, and how they differ now.
    settings: Settings,
    change: Change,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut config = config();
        config.ports = PortStripe::new(PORTS, 0, 1);
        realm(&mut config.settings).allocations_per_user = QUOTA;
        config.settings.limits.permissions = 3;
        config.settings.limits.channels = 2;
        // The test is longer than a nonce's life.
        config.nonce_lifetime = Duration::from_secs(1 << 30);
        Self {
            settings: config.settings.clone(),
            change: Change::default(),
            relay: Relay::new(config),
            clients: FIVE_TUPLES.map(clients_at).to_vec(),
            rights: (0..CLIENTS).map(|_| Rights::default()).collect(),
            begun: vec![None; CLIENTS],
            last: (0..CLIENTS).map(|_| None).collect(),
            token: None,
            told: vec![Vec::new(); CLIENTS],
        }
    }

    /// Takes a step, and then tries everything that a client could, and everything that could come from peers.
    pub(crate) fn take(&mut self, step: Step) {
        self.step(step);
        self.probe();
    }

    /// Ends everything, and checks that nothing is left of anything.
    pub(crate) fn shut_down(&mut self) {
        self.relay.shut_down();
        for client in 0..CLIENTS {
            self.forget_client(client);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Allocate { client, user, v6, additional, even, lifetime, later } => {
                let family = v6.map(|v6| RequestedAddressFamily(Ok(family_of(v6))));
                let additional = additional.then_some(AdditionalAddressFamily(Ok(AddressFamily::V6)));
                let even = even.map(|reserve_next| EvenPort { reserve_next });
                let lifetime = lifetime.map(Lifetime);
                let request = self.relay.signed(&mut self.clients[client][user], Method::ALLOCATE, |request| {
                    request
                        .with(&UDP)
                        .with_option(family.as_ref())
                        .with_option(additional.as_ref())
                        .with_option(even.as_ref())
                        .with_option(lifetime.as_ref())
                });
                self.allocate(client, user, request.clone(), later);
                if let Some(granted) = self.last[client].as_ref().filter(|granted| granted.at == self.relay.now.instant)
                    && granted.datagram == request
                {
                    assert!(!self.is_retired(client), "its listener is retired");
                    let mut told = self.told[client].iter();
                    assert!(told.all(|told| self.change.has_address(told.ip())), "a relay address that is gone");
                }
            }
            Step::Redeem { client, user, later } => {
                let token = self.token.unwrap_or(ReservationToken([0; 8]));
                let request = &mut self.clients[client][user];
                let datagram = self.relay.signed(request, Method::ALLOCATE, |request| request.with(&UDP).with(&token));
                self.allocate(client, user, datagram, later);
            }
            Step::Answer { at, failure } => self.answer_bind(at, failure),
            Step::Refresh { client, user, lifetime, v6 } => self.refresh(client, user, lifetime, v6.map(family_of)),
            Step::Permit { client, user, peers } => self.permit(client, user, &peers),
            Step::Bind { client, user, channel, peer } => self.bind(client, user, CHANNELS[channel], peer),
            Step::Repeat { client } => self.repeat(client),
            Step::WrongPassword { client } => {
                let mut mallory = self.clients[client][0].clone();
                mallory.key = hairpin_proto::stun::LongTermKey::from_bytes(b"a guess");
                assert_eq!(self.relay.refresh(&mut mallory, 0).code(), 401);
            }
            Step::Noise { client, bytes } => self.noise(client, &bytes),
            Step::ToPeer { client, channel, peer, length } => self.send_to_peer(client, channel, peer, length),
            Step::FromPeer { at, peer, length } => self.send_from_peer(at, peer, length),
            Step::Icmp { at, peer, kind, code, mtu } => self.icmp(at, peer, kind, code, mtu),
            Step::Take { port } => {
                if !self.relay.taken.remove(&port) {
                    self.relay.taken.insert(port);
                }
            }
            Step::Break { v6 } => {
                let ip = if v6 { RELAY_V6 } else { RELAY_V4 }.parse().unwrap();
                if !self.relay.broken.remove(&ip) {
                    self.relay.broken.insert(ip);
                }
            }
            Step::LoseSocket { at } => self.lose_socket(at),
            Step::LoseClient { client } => {
                self.relay.server.client_lost(self.relay.now, &self.clients[client][0].five_tuple);
                self.relay.drain();
                assert!(!self.relay.server.has_allocation(&self.clients[client][0].five_tuple));
                self.forget_client(client);
            }
            Step::Time { seconds, timers: true } => {
                self.relay.pass(seconds);
            }
            Step::Time { seconds, timers: false } => self.relay.sleep(seconds),
            Step::ShutDown => self.shut_down(),
            Step::Reconfigure(change) => self.reconfigure(change),
            Step::Close { client, drained } => {
                self.close(client, if drained { EndReason::Drained } else { EndReason::Closed });
            }
        }
    }

    fn allocate(&mut self, client: usize, user: usize, datagram: Vec<u8>, later: bool) {
        self.relay.binds = !later;
        let before = self.relay.responses.len();
        let events = self.relay.control(&self.clients[client][user], &datagram);
        self.relay.binds = true;
        if self.relay.responses.len() > before {
            assert!(matches!(events.last(), Some(Event::Response(_))), "{events:?}");
            self.allocated(client, user, datagram);
        } else {
            assert!(events.iter().any(|event| matches!(event, Event::Bind(..))), "{events:?}");
            self.begun[client] = Some((user, datagram));
        }
    }

    fn answer_bind(&mut self, at: usize, failure: Option<BindError>) {
        if self.relay.waiting.is_empty() {
            return;
        }
        let before = self.relay.responses.len();
        // Another port is asked for again, and waits again.
        self.relay.binds = false;
        self.relay.answer_bind(at % self.relay.waiting.len(), failure);
        self.relay.drain();
        self.relay.binds = true;
        if self.relay.responses.len() > before {
            self.begun_has_ended();
        }
    }

    /// An Allocate request that had to wait is answered.
    fn begun_has_ended(&mut self) {
        let five_tuple = self.relay.answered.expect("it went somewhere");
        let client = self.client_at(five_tuple);
        let (user, datagram) = self.begun[client].take().expect("nobody has asked for an allocation");
        self.allocated(client, user, datagram);
    }

    fn allocated(&mut self, client: usize, user: usize, datagram: Vec<u8>) {
        let bytes = self.relay.responses.pop().expect("there was a response");
        assert_eq!(self.relay.answered, Some(self.clients[client][user].five_tuple));
        let answer = Answer { bytes, events: Vec::new() };
        let signed = answer.message().verify_integrity(&self.clients[client][user].key);
        if answer.code() == 401 {
            assert!(!self.change.users[user], "this user may relay");
            return;
        }
        assert!(signed, "{answer:?}");
        let occupied = self.rights[client].lives(self.relay.now.instant) || self.begun[client].is_some();
        match answer.code() {
            200 => assert!(!occupied, "there is an allocation already"),
            code => assert_eq!(code == 437, occupied, "{code}"),
        }
        if answer.code() == 200 {
            let end = self.relay.at(u64::from(answer.lifetime()));
            let rights = &mut self.rights[client];
            *rights = Rights::of(user);
            for address in answer.relayed() {
                rights.families.insert(AddressFamily::of(address.ip()), end);
            }
            self.token = answer.token().or(self.token);
            self.told[client] = answer.relayed();
        }
        self.keep(client, user, datagram, &answer);
    }

    fn refresh(&mut self, client: usize, user: usize, lifetime: Option<u32>, family: Option<AddressFamily>) {
        let lifetime = lifetime.map(Lifetime);
        let requested = family.map(|family| RequestedAddressFamily(Ok(family)));
        let datagram = self.relay.signed(&mut self.clients[client][user], Method::REFRESH, |request| {
            request.with_option(lifetime.as_ref()).with_option(requested.as_ref())
        });
        let answer = self.answer(client, user, datagram);
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

    fn permit(&mut self, client: usize, user: usize, peers: &[usize]) {
        let datagram = self.relay.signed(&mut self.clients[client][user], Method::CREATE_PERMISSION, |request| {
            peers.iter().fold(request, |request, peer| request.with(&XorPeerAddress(socket(PEERS[*peer]))))
        });
        if self.answer(client, user, datagram).code() == 200 {
            assert!(!peers.iter().any(|peer| self.change.forbids(*peer)));
            let end = self.relay.at(300);
            let ips = peers.iter().map(|peer| (socket(PEERS[*peer]).ip(), end));
            self.rights[client].permissions.extend(ips);
        }
    }

    fn bind(&mut self, client: usize, user: usize, channel: u16, peer: usize) {
        let number = ChannelNumberAttribute(channel);
        let datagram = self.relay.signed(&mut self.clients[client][user], Method::CHANNEL_BIND, |request| {
            request.with(&number).with(&XorPeerAddress(socket(PEERS[peer])))
        });
        if self.answer(client, user, datagram).code() == 200 {
            assert!(!self.change.forbids(peer) && channel >= 0x4000);
            let (permitted, bound) = (self.relay.at(300), self.relay.at(600));
            let rights = &mut self.rights[client];
            rights.permissions.insert(socket(PEERS[peer]).ip(), permitted);
            rights.channels.insert(channel, (peer, bound));
        }
    }

    fn repeat(&mut self, client: usize) {
        // In a stream nothing is sent twice, so there it would be another request.
        if self.clients[client][0].five_tuple.transport.is_stream() {
            return;
        }
        let now = self.relay.now.instant;
        let recent = self.last[client].take().filter(|last| now < last.at + Duration::from_secs(40));
        if let Some(last) = recent {
            let before = self.relay.flows.clone();
            let answer = self.relay.answer(&self.clients[client][0], &last.datagram);
            if self.change.users[last.user] {
                assert_eq!(answer.bytes, last.answer);
            } else {
                assert_eq!(answer.code(), 401, "a user that is removed gets no answer");
            }
            assert!(self.relay.flows.iter().all(|flow| before.get(flow.0) == Some(flow.1)), "a flow was installed");
        }
    }

    fn lose_socket(&mut self, at: usize) {
        let Some((id, address)) = self.relay.sockets.iter().nth(at).map(|(id, address)| (*id, *address)) else {
            return;
        };
        let owner = self.owner_of(address);
        let before = self.relay.responses.len();
        self.relay.server.relay_failed(self.relay.now, id);
        self.relay.drain();
        assert!(!self.relay.sockets.contains_key(&id), "a socket that is lost is not closed");
        if let Some(owner) = owner {
            self.rights[owner].forget(AddressFamily::of(address.ip()));
        } else if self.relay.responses.len() > before {
            self.begun_has_ended();
        }
    }

    /// Answers a request about an allocation: only who has made it may do anything with it.
    fn answer(&mut self, client: usize, user: usize, datagram: Vec<u8>) -> Answer {
        let answer = self.relay.answer(&self.clients[client][user], &datagram);
        assert_eq!(self.relay.answered, Some(self.clients[client][user].five_tuple));
        if !self.change.users[user] {
            assert_eq!(answer.code(), 401, "this user is removed");
            return answer;
        }
        assert!(answer.message().verify_integrity(&self.clients[client][user].key), "{answer:?}");
        let rights = &self.rights[client];
        let expected = match rights.lives(self.relay.now.instant) {
            false => Some(437),
            true if rights.user != user => Some(441),
            true => None,
        };
        match expected {
            Some(code) => assert_eq!(answer.code(), code),
            None => assert!(![401, 437, 438, 441].contains(&answer.code()), "{answer:?}"),
        }
        self.keep(client, user, datagram, &answer);
        answer
    }

    fn keep(&mut self, client: usize, user: usize, datagram: Vec<u8>, answer: &Answer) {
        let granted = Granted { at: self.relay.now.instant, user, datagram, answer: answer.bytes.clone() };
        self.last[client] = (answer.code() == 200).then_some(granted);
    }

    fn forget_client(&mut self, client: usize) {
        self.rights[client] = Rights::default();
        self.begun[client] = None;
    }

    fn client_at(&self, five_tuple: FiveTuple) -> usize {
        self.clients.iter().position(|users| users[0].five_tuple == five_tuple).expect("nobody is there")
    }

    /// Whose a relayed address is, by what the clients were told.
    fn owner_of(&self, address: RelayedAddr) -> Option<usize> {
        let (family, public) = (AddressFamily::of(address.ip()), settings::public(address));
        (0..CLIENTS)
            .find(|client| self.rights[*client].families.contains_key(&family) && self.told[*client].contains(&public))
    }
}

fn clients_at((client, server, transport): (&str, &str, Transport)) -> [Client; USERS] {
    ACCOUNTS.map(|(name, password)| {
        let five_tuple =
            FiveTuple { client: ClientAddr::new(socket(client)), server: ServerAddr::new(socket(server)), transport };
        Client { five_tuple, ..Client::new(client, name, password) }
    })
}

fn family_of(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::V6 } else { AddressFamily::V4 }
}
