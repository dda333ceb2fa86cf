//! A driver without sockets, with a clock of its own. It checks the rules that every driver relies on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hairpin_proto::address::AddressFamily;
use hairpin_proto::media::{
    Amount, CloseReason, Discard, Disposition, Effect, Event, LegKind, Limits, MediaFlow, OpenError, OpenPort, PathId,
    PathInfo, PlainAddress, PortId, Remote, RemoteError, Request, SessionId, SessionInfo, SessionState, Sessions,
    Settings, Side, StreamRequest, Terms,
};
use hairpin_proto::turn::{BindError, Now, PeerPolicy, Random, RelayAddress};

use crate::agent::{Agent, Check};

pub(crate) const RELAY_V4: &str = "192.0.2.15";
/// What the world knows it as.
pub(crate) const PUBLIC_V4: &str = "198.51.100.15";
pub(crate) const RELAY_V6: &str = "2001:db8::15";
/// Where an ICE agent is, and where else it may be.
pub(crate) const REMOTE: &str = "203.0.113.7:40000";
pub(crate) const ELSEWHERE: &str = "203.0.113.8:41000";
/// Where somebody without ICE is.
pub(crate) const PLAIN: &str = "8.8.8.8:4000";
pub(crate) const MEDIA: &[u8] = b"\x80media";

pub(crate) const ICE: LegKind = LegKind::Ice;
pub(crate) const STRICT: LegKind = LegKind::Plain { latch: false };
pub(crate) const LATCHING: LegKind = LegKind::Plain { latch: true };

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
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

pub(crate) fn relay_addresses() -> Vec<RelayAddress> {
    [(RELAY_V4, PUBLIC_V4), (RELAY_V6, RELAY_V6)]
        .map(|(bind, public)| RelayAddress { bind: bind.parse().unwrap(), public: public.parse().unwrap() })
        .to_vec()
}

pub(crate) fn settings() -> Settings {
    let mut peer_policy = PeerPolicy::default();
    peer_policy.allow("2001:db8::/32".parse().unwrap());
    peer_policy.set_relay(&relay_addresses(), 40_000..=49_999);
    Settings {
        relay_addresses: relay_addresses(),
        ports: vec![40_000..=49_999],
        peer_policy,
        max_sessions: 16,
        max_paths: 32,
    }
}

/// A session of one stream with one component, of IPv4.
pub(crate) fn request(legs: [LegKind; 2]) -> Request {
    let streams = vec![StreamRequest { name: "audio".to_owned(), components: 1 }];
    let families = vec![AddressFamily::V4];
    Request { label: "a call".to_owned(), legs, streams, choice: families.into(), terms: Terms::default() }
}

pub(crate) fn amount(packets: u64, bytes: u64) -> Amount {
    Amount { packets, bytes }
}

/// What became of a datagram, after the next input as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// It left from this socket to there.
    Sent { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    /// It was answered.
    Answer(Vec<u8>),
    /// It was dropped.
    Dropped(Discard),
}

impl Got {
    /// Where it went.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        match self {
            Self::Sent { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// Sockets, and what makes that there are none.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pub(crate) open: BTreeMap<PortId, SocketAddr>,
    /// Ports that somebody else has bound.
    pub(crate) taken: BTreeSet<u16>,
    /// No socket can be bound at all to these addresses.
    pub(crate) broken: BTreeSet<IpAddr>,
    /// How many more can be bound before the host has none left.
    pub(crate) left: Option<usize>,
    /// What was tried, with what has come of it.
    pub(crate) tried: Vec<(SocketAddr, bool)>,
}

impl OpenPort for Ports {
    fn open(&mut self, port: PortId, address: SocketAddr) -> Result<(), BindError> {
        assert!(!self.open.contains_key(&port), "{port:?} is open already");
        assert_ne!(address.port(), 0, "the kernel would choose");
        let result = self.bind(address);
        self.tried.push((address, result.is_ok()));
        result.inspect(|()| {
            self.open.insert(port, address);
        })
    }
}

impl Ports {
    fn bind(&mut self, address: SocketAddr) -> Result<(), BindError> {
        if self.broken.contains(&address.ip()) || self.left == Some(0) {
            return Err(BindError::Unavailable);
        }
        if self.taken.contains(&address.port()) || self.open.values().any(|open| *open == address) {
            return Err(BindError::InUse);
        }
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }
}

/// One end of a path: a session, one of its legs, the place of a path among all of the session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) id: SessionId,
    pub(crate) side: Side,
    pub(crate) path: usize,
    /// The place of a local address among all of the end's.
    pub(crate) base: usize,
}

impl At {
    pub(crate) fn a(id: SessionId) -> Self {
        Self { id, side: Side::A, path: 0, base: 0 }
    }

    pub(crate) fn b(id: SessionId) -> Self {
        Self { side: Side::B, ..Self::a(id) }
    }
}

/// What a test driver has been told, and the sessions that it drives.
pub(crate) struct Bed {
    pub(crate) sessions: Sessions,
    pub(crate) now: Now,
    pub(crate) ports: Ports,
    /// What a fast path may do.
    pub(crate) flows: Vec<(MediaFlow, Instant)>,
    /// Those of paths that are there, with the sockets that they had in the beginning.
    pub(crate) paths: BTreeMap<PathId, Vec<SocketAddr>>,
    /// What the fast path has relayed, of clients and of peers.
    pub(crate) fast: Arc<Mutex<BTreeMap<PathId, [Amount; 2]>>>,
    /// How much may come to the legs of a path.
    pub(crate) limits: BTreeMap<PathId, Limits>,
    /// Sessions that have ended.
    pub(crate) ended: Vec<(SessionInfo, CloseReason)>,
    /// What has happened to ends, in order.
    pub(crate) happened: Vec<(Event, Side)>,
    /// The most paths that there might ever be.
    pub(crate) max_paths: usize,
}

impl Default for Bed {
    fn default() -> Self {
        Self::new(settings())
    }
}

impl Bed {
    pub(crate) fn new(settings: Settings) -> Self {
        let fast = Arc::<Mutex<BTreeMap<PathId, [Amount; 2]>>>::default();
        let counted = Arc::clone(&fast);
        let fast_counts = Box::new(move |path| counted.lock().unwrap().get(&path).copied().unwrap_or_default());
        Self {
            max_paths: settings.max_paths,
            sessions: Sessions::new(settings, Box::new(Seeded(0x5eed)), fast_counts),
            now: Now { instant: Instant::now(), unix: 1_700_000_000 },
            ports: Ports::default(),
            flows: Vec::new(),
            paths: BTreeMap::new(),
            fast,
            limits: BTreeMap::new(),
            ended: Vec::new(),
            happened: Vec::new(),
        }
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::new(settings)
    }

    /// The moment so many milliseconds from now.
    pub(crate) fn after(&self, milliseconds: u64) -> Instant {
        self.now.instant + Duration::from_millis(milliseconds)
    }

    pub(crate) fn create(&mut self, request: Request) -> Result<SessionId, OpenError> {
        let before = self.ports.open.clone();
        let created = self.sessions.create(self.now, request, &mut self.ports);
        match created {
            Ok(id) => {
                self.learn_paths(id);
                self.drain();
            }
            Err(_) => self.nothing_is_left(&before),
        }
        created
    }

    pub(crate) fn add_stream(&mut self, id: SessionId, name: &str, components: u16) -> Result<(), OpenError> {
        let before = self.ports.open.clone();
        let stream = StreamRequest { name: name.to_owned(), components };
        let added = self.sessions.add_stream(self.now.instant, id, &stream, &mut self.ports);
        match added {
            Ok(()) => {
                self.learn_paths(id);
                self.drain();
            }
            Err(_) => self.nothing_is_left(&before),
        }
        added
    }

    /// Of what failed only sockets are left that are about to be closed, and names that are given back.
    pub(crate) fn nothing_is_left(&mut self, before: &BTreeMap<PortId, SocketAddr>) {
        while let Some(effect) = self.sessions.poll_effect() {
            match effect {
                Effect::Close { port } => self.closed(port),
                Effect::Freed { path } => assert!(!self.paths.contains_key(&path), "{path:?} is another's"),
                other => panic!("{other:?} of what there never was"),
            }
        }
        assert_eq!(self.ports.open, *before, "what failed leaves sockets");
    }

    pub(crate) fn learn_paths(&mut self, id: SessionId) {
        for path in self.describe(id).streams.iter().flat_map(|stream| &stream.paths) {
            assert!((path.path.0 as usize) < self.max_paths, "{:?} is too high", path.path);
            let locals = path.ends.iter().flat_map(|end| &end.locals).map(|local| bound(*local)).collect();
            self.paths.entry(path.path).or_insert(locals);
        }
    }

    /// A session of these legs with one path, of IPv4.
    pub(crate) fn session(&mut self, legs: [LegKind; 2]) -> SessionId {
        self.create(request(legs)).unwrap()
    }

    /// A session between an ICE agent that has sent nothing yet and somebody at [`PLAIN`].
    pub(crate) fn waiting(&mut self) -> (SessionId, Agent) {
        let id = self.session([ICE, STRICT]);
        self.plain(At::b(id), PLAIN, false).unwrap();
        (id, self.agent(At::a(id)))
    }

    /// The same, and the agent has nominated [`REMOTE`].
    pub(crate) fn connected(&mut self) -> (SessionId, Agent) {
        let (id, agent) = self.waiting();
        self.succeeds(At::a(id), REMOTE, &agent.nomination());
        (id, agent)
    }

    /// The same, with an agent that has shown that it goes on checking.
    pub(crate) fn checking(&mut self) -> (SessionId, Agent) {
        let (id, agent) = self.connected();
        // Late enough that the fast path is told, too.
        self.arrives(At::a(id), REMOTE, MEDIA);
        self.pass_seconds(4);
        self.succeeds(At::a(id), REMOTE, &agent.check());
        (id, agent)
    }

    /// Whoever knows the credentials that a leg has now.
    pub(crate) fn agent(&self, at: At) -> Agent {
        let info = self.describe(at.id);
        Agent::of(info.legs[at.side as usize].parameters.as_ref().expect("the leg speaks ICE"))
    }

    /// Says that the first component is reached there.
    pub(crate) fn plain(&mut self, at: At, address: &str, latch: bool) -> Result<(), RemoteError> {
        let address = PlainAddress { stream: None, component: 1, address: socket(address) };
        self.remote(at, Remote::Plain { addresses: vec![address], latch, is_hint: true })
    }

    pub(crate) fn remote(&mut self, at: At, remote: Remote) -> Result<(), RemoteError> {
        let before = self.sessions.describe(at.id);
        let result = self.sessions.set_remote(self.now.instant, at.id, at.side, remote);
        if result.is_err() {
            assert_eq!(self.sessions.describe(at.id), before, "what failed has changed something");
        }
        self.drain();
        result
    }

    pub(crate) fn describe(&self, id: SessionId) -> SessionInfo {
        self.sessions.describe(id).expect("the session is there")
    }

    pub(crate) fn path(&self, at: At) -> PathInfo {
        let info = self.describe(at.id);
        info.streams.into_iter().flat_map(|stream| stream.paths).nth(at.path).expect("the path is there")
    }

    pub(crate) fn state(&self, id: SessionId) -> SessionState {
        self.describe(id).state
    }

    /// Where an end is reached, as the world knows it.
    pub(crate) fn local(&self, at: At) -> SocketAddr {
        self.path(at).ends[at.side as usize].locals[at.base]
    }

    pub(crate) fn port(&self, at: At) -> PortId {
        let address = bound(self.local(at));
        let port = self.ports.open.iter().find(|(_, open)| **open == address);
        *port.expect("the end has an open socket").0
    }

    /// A datagram arrives at an end.
    pub(crate) fn arrives(&mut self, at: At, source: &str, bytes: &[u8]) -> Got {
        let port = self.port(at);
        let got = self.arrives_at(port, self.now.instant, socket(source), bytes);
        if let Got::Sent { from, .. } = got {
            let other = At { side: at.side.other(), ..at };
            let locals = &self.path(other).ends[other.side as usize].locals;
            assert!(locals.iter().any(|local| bound(*local) == from), "it left from somebody else's socket");
            let (path, length) = (self.path(at).path, bytes.len());
            self.sessions.count(path, at.side, length);
        }
        got
    }

    pub(crate) fn arrives_at(&mut self, port: PortId, now: Instant, source: SocketAddr, bytes: &[u8]) -> Got {
        let got = match self.sessions.datagram(now, port, source, bytes) {
            Disposition::Forward(forward) => {
                let (from, to) = (self.ports.open[&forward.port], forward.remote);
                assert!(std::ptr::eq(forward.payload, bytes), "it is not the datagram that came");
                assert!(self.paths.contains_key(&forward.path));
                Got::Sent { from, to, bytes: forward.payload.to_vec() }
            }
            Disposition::Respond(answer) => {
                let response = self.sessions.response().to_vec();
                let message = hairpin_proto::stun::Message::parse(&response).expect("an answer is a message");
                let error = message.attribute::<hairpin_proto::stun::attribute::ErrorCodeAttribute<'_>>();
                assert_eq!(
                    error.unwrap().map(|error| error.code.number()),
                    answer.code(),
                    "it is counted as what it is"
                );
                Got::Answer(response)
            }
            Disposition::Discard(reason) => Got::Dropped(reason),
        };
        self.drain();
        got
    }

    /// A check arrives, and is answered as one that is right.
    pub(crate) fn succeeds(&mut self, at: At, source: &str, check: &Check) {
        let got = self.arrives(at, source, &check.bytes());
        check.expect_success(&got, socket(source));
    }

    /// Has the fast path relayed so many packets.
    pub(crate) fn relays_fast(&mut self, at: At, packets: u64) {
        let path = self.path(at);
        let of_client = at.side == path.client_side;
        let amount = Amount { packets, bytes: packets * MEDIA.len() as u64 };
        self.fast.lock().unwrap().entry(path.path).or_default()[usize::from(!of_client)] += amount;
    }

    /// Lets time pass, with every timer on time, and tells what was done.
    pub(crate) fn pass(&mut self, milliseconds: u64) -> Vec<Effect> {
        let end = self.after(milliseconds);
        let mut effects = Vec::new();
        while let Some(at) = self.sessions.poll_timeout().filter(|at| *at <= end) {
            let late = at.max(self.now.instant);
            self.sleep_until(late);
            effects.extend(self.timers());
        }
        self.sleep_until(end);
        effects
    }

    pub(crate) fn pass_seconds(&mut self, seconds: u64) -> Vec<Effect> {
        self.pass(seconds * 1000)
    }

    /// Lets time pass without any timer.
    pub(crate) fn sleep(&mut self, milliseconds: u64) {
        self.sleep_until(self.after(milliseconds));
    }

    fn sleep_until(&mut self, end: Instant) {
        self.now.instant = end;
    }

    /// All timers that are due.
    pub(crate) fn timers(&mut self) -> Vec<Effect> {
        let Self { sessions, now, .. } = self;
        sessions.handle_timeout(now.instant);
        assert!(sessions.poll_timeout().is_none_or(|at| now.instant < at), "a timer is left that is due");
        self.drain()
    }

    pub(crate) fn close(&mut self, id: SessionId) -> Vec<Effect> {
        assert!(self.sessions.close(id, CloseReason::Deleted));
        self.drain()
    }

    /// Does what there is to do.
    pub(crate) fn drain(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(effect) = self.sessions.poll_effect() {
            match &effect {
                Effect::InstallFlow { flow, expires } => self.install(*flow, *expires),
                Effect::RemoveFlow { flow } => {
                    let at = self.flows.iter().position(|(known, _)| known == flow);
                    self.flows.swap_remove(at.unwrap_or_else(|| panic!("{flow:?} was not there")));
                }
                Effect::Close { port } => self.closed(*port),
                Effect::Happened { session, event, side, path } => {
                    // The session may have ended right behind that.
                    assert!(self.ended.iter().all(|(info, _)| info.id != *session));
                    assert!(self.paths.contains_key(path));
                    self.happened.push((*event, *side));
                }
                Effect::Closed { info, reason } => {
                    assert!(self.sessions.describe(info.id).is_none(), "it is still there");
                    self.ended.push(((**info).clone(), *reason));
                }
                Effect::Freed { path } => {
                    let sockets = self.paths.remove(path).expect("a path is freed that is not there");
                    assert!(self.flows.iter().all(|(flow, _)| flow.path != *path), "a fast path still serves it");
                    assert!(!self.ports.open.values().any(|open| sockets.contains(open)), "a socket of it is open");
                    self.fast.lock().unwrap().remove(path);
                    self.limits.remove(path);
                }
                Effect::Limit { path, limits } => {
                    assert!(self.paths.contains_key(path) || self.ended.is_empty());
                    self.limits.insert(*path, *limits);
                }
            }
            effects.push(effect);
        }
        let flows: BTreeSet<_> = self.flows.iter().map(|(flow, _)| flow.path).collect();
        assert_eq!(flows.len(), self.flows.len(), "two flows of one path: {:?}", self.flows);
        effects
    }

    fn install(&mut self, flow: MediaFlow, expires: Instant) {
        assert!(self.now.instant < expires, "a flow is installed that has ended");
        assert!(self.paths.contains_key(&flow.path), "{flow:?} is of no path");
        for own in [flow.server, flow.relayed] {
            assert!(self.ports.open.values().any(|open| *open == own), "{own} is no bound address");
        }
        match self.flows.iter_mut().find(|(known, _)| *known == flow) {
            Some((_, end)) => *end = expires,
            None => self.flows.push((flow, expires)),
        }
    }

    fn closed(&mut self, port: PortId) {
        let address = self.ports.open.remove(&port).unwrap_or_else(|| panic!("{port:?} is closed and was not open"));
        let served = self.flows.iter().any(|(flow, _)| [flow.server, flow.relayed].contains(&address));
        assert!(!served, "a fast path still serves {address}");
    }

    /// The only flow that there is.
    pub(crate) fn flow(&self) -> Option<(MediaFlow, Instant)> {
        assert!(self.flows.len() <= 1, "{:?}", self.flows);
        self.flows.first().copied()
    }
}

/// What a public address is bound to.
pub(crate) fn bound(public: SocketAddr) -> SocketAddr {
    let known = relay_addresses().into_iter().find(|address| address.public == public.ip());
    SocketAddr::new(known.map_or(public.ip(), |address| address.bind), public.port())
}
