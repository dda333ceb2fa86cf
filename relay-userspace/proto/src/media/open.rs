//! The beginning of a session: its sockets.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Instant;

use super::count::{Counts, Tally};
use super::effect::{Effect, PathId, PortId, SessionId};
use super::end::{End, Local, Side};
use super::session::{Leg, LegKind, Path, Session, Stream};
use super::sessions::{Port, Sessions};
use super::settings::{Choice, Limits, Terms};
use crate::ice::{Credentials, priority};
use crate::turn::{BindError, Now, RelayAddress};

/// Type preference of host candidates (RFC 8445 section 5.1.2.2).
const HOST: u8 = 126;
/// How many ports are tried for a local address. The kernel knows best which are free, and with half of them taken this many
/// attempts fail once in 10^19 times.
const ATTEMPTS: usize = 64;

/// Streams that a session has at most: no description may take what is there for many calls.
const STREAMS: usize = 16;

/// What a session is to be.
#[derive(Clone, Debug)]
pub struct Request {
    /// What its owner calls it.
    pub label: String,
    /// What its legs speak.
    pub legs: [LegKind; 2],
    /// Its streams: at least one, of different names.
    pub streams: Vec<StreamRequest>,
    /// Which of the relay's addresses it has.
    pub choice: Choice,
    /// What its owner may change later.
    pub terms: Terms,
}

/// A stream that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// Its name.
    pub name: String,
    /// 1, or 2 where RTCP has an address of its own.
    pub components: u16,
}

/// Why a session cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such session.
    #[error("there is no such session")]
    NoSession,
    /// There are as many as there may be.
    #[error("there are as many sessions as there may be (ice-max-sessions)")]
    TooMany,
    /// All sessions together would have more paths than there may be.
    #[error(
        "there is no room for so many streams and components: of all sessions there may be four for each of ice-max-sessions"
    )]
    TooManyPaths,
    /// It would have more streams than one session may have.
    #[error("a session has at most 16 streams: media sections that share no transport")]
    TooManyStreams,
    /// There is a stream of this name already.
    #[error("two streams of a session cannot have the same name")]
    SameName,
    /// The relay has no address of a family that was asked for.
    #[error("the relay has no address of these families among those that were asked for")]
    NoAddress,
    /// The relay has no such address.
    #[error("the relay has no address {asked}: it has {has} (relay-address)")]
    UnknownAddress {
        /// What was asked for.
        asked: IpAddr,
        /// What there is, as the world knows it.
        has: String,
    },
    /// No port is free.
    #[error("no relay port is free (relay-ports)")]
    NoPort,
    /// The host gives no socket.
    #[error("the host gives no more sockets: raise the limit of open files")]
    NoSocket,
}

/// Opens sockets for ends: a closure, or whatever else can.
pub trait OpenPort {
    /// Opens a socket at this address, under this name.
    fn open(&mut self, port: PortId, address: SocketAddr) -> Result<(), BindError>;
}

impl<F: FnMut(PortId, SocketAddr) -> Result<(), BindError>> OpenPort for F {
    fn open(&mut self, port: PortId, address: SocketAddr) -> Result<(), BindError> {
        self(port, address)
    }
}

impl Sessions {
    /// Creates a session, and opens its sockets. Of one that cannot be nothing is left.
    pub fn create(&mut self, now: Now, request: Request, ports: &mut dyn OpenPort) -> Result<SessionId, OpenError> {
        let Request { label, legs, streams, choice, terms } = request;
        if self.table.len() >= self.settings.max_sessions {
            return Err(OpenError::TooMany);
        }
        if let Some(asked) = choice.unknown(&self.settings.relay_addresses) {
            let has = self.settings.relay_addresses.iter().map(|address| address.public.to_string());
            return Err(OpenError::UnknownAddress { asked, has: has.collect::<Vec<_>>().join(", ") });
        }
        let (id, timer) = (SessionId(self.next), now.instant + terms.timeouts.setup);
        let legs = legs.map(|kind| Leg {
            kind,
            credentials: Credentials::generate(&mut self.random),
            previous: None,
            generation: 0,
            remote: None,
        });
        self.table.insert(
            id,
            Session {
                label,
                created: now.unix,
                choice,
                legs,
                streams: Vec::new(),
                negotiation: None,
                latches: false,
                terms,
                gone: Counts::default(),
                began: now.instant,
                is_closing: false,
                was_connected: false,
                paused_since: None,
                active: now.instant,
                timer,
            },
        );
        self.timers.insert((timer, id));
        self.next += 1;
        self.created += 1;
        for stream in streams {
            if let Err(error) = self.add_stream(now.instant, id, &stream, ports) {
                self.abandon(id);
                return Err(error);
            }
        }
        Ok(id)
    }

    /// Adds a stream to a session. Of one that cannot be nothing is left.
    pub fn add_stream(
        &mut self,
        now: Instant,
        id: SessionId,
        stream: &StreamRequest,
        ports: &mut dyn OpenPort,
    ) -> Result<(), OpenError> {
        let session = self.table.get(&id).ok_or(OpenError::NoSession)?;
        if session.stream(&stream.name).is_some() {
            return Err(OpenError::SameName);
        }
        if session.streams.len() >= STREAMS {
            return Err(OpenError::TooManyStreams);
        }
        let paths = self.open_paths(now, id, &stream.name, 1..=stream.components, ports)?;
        if let Some(session) = self.table.get_mut(&id) {
            session.streams.push(Stream { name: stream.name.clone(), paths });
        }
        Ok(())
    }

    /// Gives a stream its second component again. Whether it had none.
    pub(super) fn add_rtcp(
        &mut self,
        now: Instant,
        id: SessionId,
        name: &str,
        ports: &mut dyn OpenPort,
    ) -> Result<bool, OpenError> {
        let stream = self.table.get(&id).and_then(|session| session.stream(name));
        if stream.is_none_or(|stream| stream.paths.len() != 1) {
            return Ok(false);
        }
        let paths = self.open_paths(now, id, name, 2..=2, ports)?;
        let stream = self.table.get_mut(&id).and_then(|session| session.stream_mut(name));
        if let Some(stream) = stream {
            stream.paths.extend(&paths);
        }
        Ok(true)
    }

    /// Takes a stream out of a session.
    pub fn remove_stream(&mut self, id: SessionId, name: &str) {
        let Some(session) = self.table.get_mut(&id) else { return };
        let Some(at) = session.streams.iter().position(|stream| stream.name == name) else { return };
        let paths = session.streams.remove(at).paths;
        self.remove_paths(id, paths);
    }

    /// Takes the second component out of a stream: its RTCP comes with RTP (RFC 5761).
    pub fn remove_rtcp(&mut self, id: SessionId, name: &str) {
        let Some(stream) = self.table.get_mut(&id).and_then(|session| session.stream_mut(name)) else { return };
        let paths = stream.paths.split_off(1);
        self.remove_paths(id, paths);
    }

    /// Ends paths that their session has let go of already. What they have carried stays a part of what it has.
    fn remove_paths(&mut self, id: SessionId, paths: Vec<PathId>) {
        for path in paths {
            self.withdraw(path);
            let (counts, active) = (self.counts(path), self.path(path).map(|path| path.active));
            if let Some(session) = self.table.get_mut(&id) {
                session.gone += counts;
                session.active = active.map_or(session.active, |active| active.max(session.active));
            }
            self.free(path);
        }
    }

    /// Makes paths for components of a stream, with a socket for each leg and address. Of what cannot be nothing is left.
    fn open_paths(
        &mut self,
        now: Instant,
        id: SessionId,
        stream: &str,
        components: RangeInclusive<u16>,
        ports: &mut dyn OpenPort,
    ) -> Result<Vec<PathId>, OpenError> {
        let session = self.table.get(&id).ok_or(OpenError::NoSession)?;
        let addresses = self.addresses(&session.choice);
        if addresses.is_empty() {
            return Err(OpenError::NoAddress);
        }
        if self.paths.len() + components.len() > self.settings.max_paths {
            return Err(OpenError::TooManyPaths);
        }
        let (kinds, terms) = (session.legs.each_ref().map(|leg| leg.kind), session.terms);
        let paths: Vec<_> = components
            .map(|component| {
                let ends = kinds.map(|kind| End { locals: Vec::new(), far: kind.far(), refused: None });
                PathId(self.paths.insert(Path {
                    session: id,
                    stream: stream.to_owned(),
                    component,
                    ends,
                    consent: terms.timeouts.consent,
                    installed: None,
                    active: now,
                    seen: Default::default(),
                    tally: Tally::default(),
                }))
            })
            .collect();
        let opened = Side::BOTH.into_iter().try_for_each(|side| {
            let places = addresses.iter().enumerate();
            places.into_iter().try_for_each(|(base, address)| self.open_all(&paths, side, base, *address, ports))
        });
        if let Err(error) = opened {
            for path in paths {
                self.free(path);
            }
            return Err(error);
        }
        if terms.limits != Limits::default() {
            let limits = paths.iter().map(|path| Effect::Limit { path: *path, limits: terms.limits });
            self.effects.extend(limits);
        }
        Ok(paths)
    }

    /// The addresses that are chosen, IPv6 first (RFC 8445 section 5.1.2.2, RFC 6724).
    fn addresses(&self, choice: &Choice) -> Vec<RelayAddress> {
        let mut addresses: Vec<_> =
            self.settings.relay_addresses.iter().filter(|address| choice.has(address)).copied().collect();
        addresses.sort_by_key(|address| address.public.is_ipv4());
        addresses
    }

    /// Opens a socket at one address for each component: neighbours, from an even port on, where there are two (RFC 3550
    /// section 11).
    fn open_all(
        &mut self,
        paths: &[PathId],
        side: Side,
        base: usize,
        address: RelayAddress,
        ports: &mut dyn OpenPort,
    ) -> Result<(), OpenError> {
        for _ in 0..ATTEMPTS {
            let first = self.random_port(paths.len()).ok_or(OpenError::NoPort)?;
            match self.open_at(paths, side, base, address, first, ports) {
                Ok(()) => return Ok(()),
                Err(BindError::InUse) => {}
                Err(_) => return Err(OpenError::NoSocket),
            }
        }
        Err(OpenError::NoPort)
    }

    fn open_at(
        &mut self,
        paths: &[PathId],
        side: Side,
        base: usize,
        address: RelayAddress,
        first: u16,
        ports: &mut dyn OpenPort,
    ) -> Result<(), BindError> {
        let mut opened = Vec::new();
        for (offset, path) in (0..).zip(paths) {
            let number = first + offset;
            let port = PortId(self.ports.insert(Some(Port { path: *path, side, base })));
            let [bind, public] = [address.bind, address.public].map(|ip| SocketAddr::new(ip, number));
            if let Err(error) = ports.open(port, bind) {
                self.ports.remove(port.0);
                for (_, Local { port, .. }) in opened {
                    self.close_port(port);
                }
                return Err(error);
            }
            let component = self.path(*path).map_or(1, |path| path.component);
            let priority = priority(HOST, u16::MAX - base as u16, component);
            opened.push((*path, Local { port, bind, public, priority, foundation: base + 1 }));
        }
        for (path, local) in opened {
            if let Some(path) = self.paths.find_mut(path.0) {
                path.end_mut(side).locals.push(local);
            }
        }
        Ok(())
    }

    fn random_port(&mut self, components: usize) -> Option<u16> {
        let step = components.max(1);
        // Of each range the first port that will do, and how many there are.
        let places = |range: &RangeInclusive<u16>| {
            let (start, end) = (usize::from(*range.start()), usize::from(*range.end()));
            let start = if components > 1 { start.next_multiple_of(2) } else { start };
            (start, (end + 1).saturating_sub(start) / step)
        };
        let all: usize = self.settings.ports.iter().map(|range| places(range).1).sum();
        let mut at = if all > 0 { self.random.below(all) } else { return None };
        for (start, count) in self.settings.ports.iter().map(places) {
            if at < count {
                return Some((start + at * step) as u16);
            }
            at -= count;
        }
        None
    }
}
