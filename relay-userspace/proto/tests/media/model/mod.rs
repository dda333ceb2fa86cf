//! Remotes, operators and time that do anything, and a model of what they may: it takes [`Step`]s, from whoever draws them.
//!
//! The model knows who has proven itself by the answers to checks, and has no timers; after each step it says what may be
//! sent where, and that nothing else is. The test driver checks the order of effects by itself.

mod mirror;
mod probe;
mod remotes;
mod sources;

use std::ops::RangeInclusive;
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::media::{CloseReason, Discard, LegKind, Request, Side, StreamRequest, Terms, Timeouts};
use hairpin_proto::stun::{Class, LongTermKey};

use crate::agent::{Check, More, Role, code};
use crate::harness::{At, Bed, Got};
use mirror::{End, Kind, Leg, Mirror, Path};
pub(crate) use sources::{Change, RULE_COUNT, SOURCE_COUNT};
use sources::{source, text};

pub(crate) const PORTS: RangeInclusive<u16> = 40_001..=40_020;

/// Sessions, streams and the like are named by their places among those that there are.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create {
        kinds: [LegKind; 2],
        components: Vec<u16>,
        families: [bool; 2],
        timeouts: Times,
    },
    AddStream {
        session: usize,
        components: u16,
    },
    RemoveStream {
        session: usize,
        stream: usize,
    },
    RemoveRtcp {
        session: usize,
        stream: usize,
    },
    Close {
        session: usize,
    },
    /// The other side is a full agent.
    Full {
        place: Place,
    },
    /// It is a lite one, with one candidate.
    Lite {
        place: Place,
        source: usize,
    },
    /// It has no ICE. Of other components nothing is said.
    Plain {
        place: Place,
        source: Option<usize>,
        latch: bool,
    },
    Restart {
        place: Place,
    },
    Check {
        place: Place,
        source: usize,
        by: By,
        nominates: bool,
        priority: u32,
        flaw: Option<Flaw>,
    },
    /// Media, or whatever else begins with this byte.
    Media {
        place: Place,
        source: usize,
        first: u8,
        length: u16,
    },
    Noise {
        place: Place,
        source: usize,
        bytes: Vec<u8>,
    },
    /// Media that the fast path has relayed.
    Fast {
        place: Place,
        packets: u8,
    },
    /// With timers, or without them.
    Time {
        milliseconds: u64,
        timers: bool,
    },
    Update {
        session: usize,
        times: Times,
    },
    Reconfigure(Change),
    /// Somebody else binds a port, or gives it back.
    Take {
        port: u16,
    },
    /// No socket can be bound for a while.
    Break {
        v6: bool,
    },
    /// The host has so many sockets left.
    Left {
        sockets: Option<usize>,
    },
    /// Nothing may be left; and the next session begins anew.
    ShutDown,
}

/// An end of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) session: usize,
    pub(crate) side: Side,
    pub(crate) path: usize,
    pub(crate) base: usize,
}

/// Which credentials a check is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Those that were before so many restarts.
    Before(usize),
    /// Those of the other leg.
    Other,
    Guess,
}

/// What is wrong with a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    NoFingerprint,
    NoUsername,
    NoIntegrity,
    NoPriority,
    Controlled,
    Unknown,
    Indication,
    /// A bit is another.
    Flipped(u16),
}

/// Timeouts in seconds, none of which is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) setup: u16,
    pub(crate) consent: u16,
    pub(crate) paused: u16,
    pub(crate) idle: Option<u16>,
}

impl From<Times> for Timeouts {
    fn from(times: Times) -> Self {
        let of = |seconds: u16| Duration::from_secs(seconds.max(1).into());
        Self { setup: of(times.setup), consent: of(times.consent), paused: of(times.paused), idle: times.idle.map(of) }
    }
}

pub(crate) struct World {
    bed: Bed,
    sessions: Vec<Mirror>,
    change: Change,
    /// Names of streams that were given.
    names: usize,
}

impl World {
    pub(crate) fn new() -> Self {
        let change = Change::default();
        Self { bed: Bed::new(change.settings()), sessions: Vec::new(), change, names: 0 }
    }

    /// Takes a step, and then tries whatever could come from anywhere.
    pub(crate) fn take(&mut self, step: Step) {
        self.step(step);
        self.forget_ended();
        let now = self.bed.now.instant;
        self.sessions.iter_mut().for_each(|mirror| mirror.age(now));
        self.probe();
    }

    /// Ends everything, and checks that nothing is left of anything.
    pub(crate) fn shut_down(&mut self) {
        self.bed.sessions.shutdown();
        self.bed.drain();
        self.forget_ended();
        let bed = &self.bed;
        assert!(self.sessions.is_empty() && bed.sessions.is_empty());
        assert!(bed.ports.open.is_empty() && bed.paths.is_empty() && bed.flows.is_empty());
        assert_eq!(bed.sessions.poll_timeout(), None);
        assert_eq!(bed.sessions.closed().iter().sum::<u64>(), bed.sessions.created());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Create { kinds, components, families, timeouts } => {
                self.create(kinds, &components, families, timeouts);
            }
            Step::AddStream { session, components } => self.add_stream(session, components),
            Step::RemoveStream { session, stream } => self.remove(session, stream, false),
            Step::RemoveRtcp { session, stream } => self.remove(session, stream, true),
            Step::Close { session } => {
                if let Some(mirror) = nth(&self.sessions, session) {
                    self.bed.close(mirror.id);
                }
            }
            Step::Full { place } => self.full(place),
            Step::Lite { place, source } => self.lite(place, source),
            Step::Plain { place, source, latch } => self.plain(place, source, latch),
            Step::Restart { place } => self.restart(place),
            Step::Check { place, source, by, nominates, priority, flaw } => {
                self.check(place, source, by, (nominates, priority), flaw);
            }
            Step::Media { place, source, first, length } => {
                let datagram = vec![first; length.into()];
                self.media(place, source, &datagram);
            }
            Step::Noise { place, source, bytes } => self.media(place, source, &bytes),
            Step::Fast { place, packets } => {
                if let Some((_, at)) = self.at(place) {
                    self.bed.relays_fast(at, packets.into());
                }
            }
            Step::Time { milliseconds, timers: true } => {
                self.bed.pass(milliseconds);
                self.bed.timers();
            }
            Step::Time { milliseconds, timers: false } => self.bed.sleep(milliseconds),
            Step::Update { session, times } => self.update(session, times),
            Step::Reconfigure(change) => self.reconfigure(change),
            Step::Take { port } => {
                if !self.bed.ports.taken.remove(&port) {
                    self.bed.ports.taken.insert(port);
                }
            }
            Step::Break { v6 } => {
                let ip = if v6 { crate::harness::RELAY_V6 } else { crate::harness::RELAY_V4 }.parse().unwrap();
                if !self.bed.ports.broken.remove(&ip) {
                    self.bed.ports.broken.insert(ip);
                }
            }
            Step::Left { sockets } => self.bed.ports.left = sockets,
            Step::ShutDown => self.shut_down(),
        }
    }

    fn create(&mut self, legs: [LegKind; 2], components: &[u16], families: [bool; 2], times: Times) {
        let streams: Vec<_> = components.iter().map(|components| self.stream(*components)).collect();
        let families = [AddressFamily::V4, AddressFamily::V6].into_iter().zip(families);
        let families: Vec<_> = families.filter(|(_, asked)| *asked).map(|(family, _)| family).collect();
        let terms = Terms { timeouts: times.into(), ..Terms::default() };
        let request = Request { label: String::new(), legs, streams, choice: families.into(), terms };
        let Ok(id) = self.bed.create(request) else { return };
        let legs = legs.map(|kind| {
            let kind = if let LegKind::Plain { latch } = kind { Kind::Plain { latch } } else { Kind::Ice };
            Leg { kind, is_lite: false, credentials: vec![None], previous: false }
        });
        let (consent, idle, active) = (terms.timeouts.consent, terms.timeouts.idle, self.bed.now.instant);
        self.sessions.push(Mirror { id, legs, paths: Vec::new(), consent, idle, active });
        self.learn(self.sessions.len() - 1);
    }

    fn stream(&mut self, components: u16) -> StreamRequest {
        self.names += 1;
        StreamRequest { name: format!("stream {}", self.names), components }
    }

    fn add_stream(&mut self, session: usize, components: u16) {
        let Some(at) = place(&self.sessions, session) else { return };
        let StreamRequest { name, components } = self.stream(components);
        if self.bed.add_stream(self.sessions[at].id, &name, components).is_ok() {
            self.learn(at);
        }
    }

    /// Learns of credentials, and of paths that are new.
    fn learn(&mut self, at: usize) {
        let mirror = &mut self.sessions[at];
        for side in Side::BOTH {
            if mirror.leg(side).kind == Kind::Ice {
                let agent = self.bed.agent(At { side, ..At::a(mirror.id) });
                *mirror.leg(side).credentials.last_mut().expect("there is one from the beginning") = Some(agent);
            }
        }
        for stream in self.bed.describe(mirror.id).streams {
            for path in stream.paths {
                if mirror.paths.iter().all(|known| known.id != path.path) {
                    let families = path.ends[0].locals.iter().map(std::net::SocketAddr::is_ipv6).collect();
                    let ends = mirror.legs.each_ref().map(|leg| leg.kind.end());
                    let (id, stream, component) = (path.path, stream.name.clone(), path.component);
                    mirror.paths.push(Path { id, stream, component, families, ends });
                }
            }
        }
    }

    fn remove(&mut self, session: usize, stream: usize, rtcp: bool) {
        let Some(at) = place(&self.sessions, session) else { return };
        let mirror = &mut self.sessions[at];
        let Some(name) = nth(&mirror.paths, stream).map(|path| path.stream.clone()) else { return };
        if rtcp {
            self.bed.sessions.remove_rtcp(mirror.id, &name);
        } else {
            self.bed.sessions.remove_stream(mirror.id, &name);
        }
        self.bed.drain();
        mirror.paths.retain(|path| path.stream != name || (rtcp && path.component == 1));
    }

    fn check(&mut self, place: Place, from: usize, by: By, (nominates, priority): (bool, u32), flaw: Option<Flaw>) {
        let Some((session, at)) = self.at(place) else { return };
        let mirror = &self.sessions[session];
        let leg = &mirror.legs[at.side as usize];
        let back = if let By::Before(restarts) = by { restarts } else { 0 };
        let generation = leg.credentials.len().checked_sub(1 + back);
        let known = match by {
            By::Other => mirror.legs[at.side.other() as usize].credentials.last().cloned().flatten(),
            By::Before(_) | By::Guess => generation.and_then(|at| leg.credentials[at].clone()),
        };
        let Some(mut agent) = known else { return };
        if by == By::Guess {
            agent.key = LongTermKey::from_bytes(b"a guess");
        }
        let is_good = matches!(by, By::Before(0)) || (by == By::Before(1) && leg.previous);
        let mut check = Check { nominates, priority: Some(priority), ..agent.check() };
        let code_of_flaw = match flaw {
            None | Some(Flaw::NoFingerprint | Flaw::Indication | Flaw::Flipped(_)) => 0,
            Some(Flaw::NoUsername | Flaw::NoIntegrity | Flaw::NoPriority) => 400,
            Some(Flaw::Controlled) => 487,
            Some(Flaw::Unknown) => 420,
        };
        match flaw {
            Some(Flaw::NoFingerprint) => check.fingerprint = false,
            Some(Flaw::NoUsername) => check.username = None,
            Some(Flaw::NoIntegrity) => check.key = None,
            Some(Flaw::NoPriority) => check.priority = None,
            Some(Flaw::Controlled) => check.role = Role::Controlled,
            Some(Flaw::Unknown) => check.more.push(More::Unknown7001),
            Some(Flaw::Indication) => check.class = Class::Indication,
            Some(Flaw::Flipped(_)) | None => {}
        }
        let mut bytes = check.bytes();
        if let Some(Flaw::Flipped(bit)) = flaw {
            let bit = usize::from(bit) % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            return self.media(place, from, &bytes);
        }
        let got = self.bed.arrives(at, text(from), &bytes);
        let is_ice = self.sessions[session].legs[at.side as usize].kind == Kind::Ice;
        if !is_ice || matches!(flaw, Some(Flaw::NoFingerprint | Flaw::Indication)) {
            assert_eq!(got, Got::Dropped(Discard::Stun), "{check:?}");
            return;
        }
        // What is no part of a check at all is said to anybody.
        let expected = match flaw {
            Some(Flaw::NoUsername | Flaw::NoIntegrity) => 400,
            _ if !is_good => 401,
            _ => code_of_flaw,
        };
        assert_eq!(code(&got), expected, "{by:?} {check:?}");
        if expected == 0 {
            check.expect_success(&got, source(from));
            let generation = generation.expect("it was made with credentials") as u32;
            let now = self.bed.now.instant;
            let nominated = nominates.then_some(generation);
            self.sessions[session].checked((at.side, at.path, at.base), source(from), (now, nominated));
        }
    }

    fn update(&mut self, session: usize, times: Times) {
        let Some(at) = place(&self.sessions, session) else { return };
        let (id, timeouts) = (self.sessions[at].id, Timeouts::from(times));
        assert!(self.bed.sessions.update(self.bed.now.instant, id, None, |terms| Terms { timeouts, ..*terms }));
        self.bed.drain();
        let told = self.bed.describe(id).terms.timeouts;
        assert_eq!(told, Timeouts { idle: told.idle, ..timeouts });
        assert!(timeouts.idle.is_none() || told.idle == timeouts.idle, "without consent there is an end all the same");
        (self.sessions[at].consent, self.sessions[at].idle) = (timeouts.consent, timeouts.idle);
    }

    fn reconfigure(&mut self, change: Change) {
        self.change = change;
        self.bed.sessions.reconfigure(self.bed.now.instant, change.settings());
        self.bed.drain();
        for end in self.sessions.iter_mut().flat_map(|mirror| &mut mirror.paths).flat_map(|path| &mut path.ends) {
            if let End::Plain(plain) = end {
                plain.remote = plain.remote.filter(|(_, remote)| change.permits_address(*remote));
            }
        }
    }

    /// What has ended by a timer, or because somebody wanted it.
    fn forget_ended(&mut self) {
        let now = self.bed.now.instant;
        for (info, reason) in std::mem::take(&mut self.bed.ended) {
            let at = self.sessions.iter().position(|mirror| mirror.id == info.id).expect("it was there");
            let mirror = self.sessions.remove(at);
            let mut ends = mirror.paths.iter().flat_map(|path| &path.ends);
            let asks = ends.any(|end| matches!(end, End::Ice(_)));
            // Where nobody is asked for consent, there is an end all the same.
            let idle = mirror.idle.or(Timeouts::default().idle.filter(|_| !asks)).map(|idle| mirror.active + idle);
            assert!(reason != CloseReason::Idle || idle.is_some_and(|end| end <= now), "media has flowed");
        }
    }

    /// An end that there is, by its session's place.
    fn at(&self, place: Place) -> Option<(usize, At)> {
        let session = self::place(&self.sessions, place.session)?;
        let mirror = &self.sessions[session];
        let path = self::place(&mirror.paths, place.path)?;
        let base = self::place(&mirror.paths[path].families, place.base)?;
        Some((session, At { id: mirror.id, side: place.side, path, base }))
    }
}

fn place<T>(all: &[T], at: usize) -> Option<usize> {
    at.checked_rem(all.len())
}

fn nth<T>(all: &[T], at: usize) -> Option<&T> {
    place(all, at).map(|at| &all[at])
}
