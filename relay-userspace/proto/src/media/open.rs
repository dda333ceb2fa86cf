//! The beginning of a session: its sockets.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::effect::{PathId, PortId, SessionId};
use super::end::{End, Local, Side};
use super::session::{Leg, LegKind, Path, Session, Stream};
use super::sessions::{Port, Sessions};
use super::settings::Timeouts;
use crate::address::AddressFamily;
use crate::ice::{Credentials, priority};
use crate::turn::{BindError, Now, RelayAddress};

/// Type preference of host candidates (RFC 8445 section 5.1.2.2).
const HOST: u8 = 126;
/// How many ports are tried for a local address. The kernel knows best which are free, and with half of them taken this many
/// attempts fail once in 10^19 times.
const ATTEMPTS: usize = 64;

/// What a session is to be.
#[derive(Clone, Debug)]
pub struct Request {
    /// What its owner calls it.
    pub label: String,
    /// What its legs speak.
    pub legs: [LegKind; 2],
    /// Its streams: at least one, of different names.
    pub streams: Vec<StreamRequest>,
    /// Of which families it has addresses; none: of all.
    pub families: Vec<AddressFamily>,
    /// How long it lives without what it lives for.
    pub timeouts: Timeouts,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There are as many as there may be.
    #[error("there are as many sessions as there may be (ice-max-sessions)")]
    TooMany,
    /// There is a stream of this name already.
    #[error("two streams of a session cannot have the same name")]
    SameName,
    /// The relay has no address of a family that was asked for.
    #[error("the relay has no address of these families")]
    NoAddress,
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
        let Request { label, legs, streams, families, timeouts } = request;
        if self.table.len() >= self.settings.max_sessions {
            return Err(OpenError::TooMany);
        }
        let (id, timer) = (SessionId(self.next), now.instant + timeouts.setup);
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
                families,
                legs,
                streams: Vec::new(),
                negotiation: None,
                latches: false,
                timeouts,
                began: now.instant,
                was_connected: false,
                paused_since: None,
                active: now.instant,
                packets: 0,
                timer,
            },
        );
        self.timers.insert((timer, id));
        for stream in streams {
            if let Err(error) = self.add_stream(id, &stream, ports) {
                self.discard(id);
                return Err(error);
            }
        }
        self.next += 1;
        Ok(id)
    }

    /// Adds a stream to a session. Of one that cannot be nothing is left.
    pub fn add_stream(
        &mut self,
        id: SessionId,
        stream: &StreamRequest,
        ports: &mut dyn OpenPort,
    ) -> Result<(), OpenError> {
        let Some(session) = self.table.get(&id) else { return Err(OpenError::TooMany) };
        if session.stream(&stream.name).is_some() {
            return Err(OpenError::SameName);
        }
        let addresses = self.addresses(&session.families);
        if addresses.is_empty() {
            return Err(OpenError::NoAddress);
        }
        let components = usize::from(stream.components);
        if self.paths.len() + components > self.settings.max_paths {
            return Err(OpenError::TooMany);
        }
        let (kinds, consent) = (session.legs.each_ref().map(|leg| leg.kind), session.timeouts.consent);
        let paths: Vec<_> = (1..=stream.components)
            .map(|component| {
                let ends = kinds.map(|kind| End { locals: Vec::new(), far: kind.far() });
                let (session, stream) = (id, stream.name.clone());
                PathId(self.paths.insert(Path {
                    session,
                    stream,
                    component,
                    ends,
                    consent,
                    installed: None,
                    client_side: Side::A,
                    relayed: Default::default(),
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
        if let Some(session) = self.table.get_mut(&id) {
            session.streams.push(Stream { name: stream.name.clone(), paths });
        }
        Ok(())
    }

    /// Takes a stream out of a session.
    pub fn remove_stream(&mut self, id: SessionId, name: &str) {
        let Some(session) = self.table.get_mut(&id) else { return };
        let Some(at) = session.streams.iter().position(|stream| stream.name == name) else { return };
        for path in session.streams.remove(at).paths {
            self.withdraw(path);
            self.free(path);
        }
    }

    /// Takes the second component out of a stream: its RTCP comes with RTP (RFC 5761).
    pub fn remove_rtcp(&mut self, id: SessionId, name: &str) {
        let Some(session) = self.table.get_mut(&id) else { return };
        let Some(stream) = session.streams.iter_mut().find(|stream| stream.name == name) else { return };
        let extra = stream.paths.split_off(1);
        for path in extra {
            self.withdraw(path);
            self.free(path);
        }
    }

    /// The addresses that a session of these families has, IPv6 first (RFC 8445 section 5.1.2.2, RFC 6724).
    fn addresses(&self, families: &[AddressFamily]) -> Vec<RelayAddress> {
        let is_meant =
            |address: &&RelayAddress| families.is_empty() || families.contains(&AddressFamily::of(address.bind));
        let mut addresses: Vec<_> = self.settings.relay_addresses.iter().filter(is_meant).copied().collect();
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
            let priority = priority(HOST, u16::MAX - base as u16, offset + 1);
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
        let range: RangeInclusive<u16> = self.settings.ports.clone();
        let (start, end) = (usize::from(*range.start()), usize::from(*range.end()));
        let start = if components > 1 { start.next_multiple_of(2) } else { start };
        let step = components.max(1);
        let places = (end + 1).checked_sub(start)? / step;
        (places > 0).then(|| (start + self.random.below(places) * step) as u16)
    }

    /// Forgets a session of which nobody was told.
    pub(super) fn discard(&mut self, id: SessionId) {
        let Some(session) = self.table.remove(&id) else { return };
        self.timers.remove(&(session.timer, id));
        for path in session.paths() {
            self.withdraw(path);
            self.free(path);
        }
    }
}
