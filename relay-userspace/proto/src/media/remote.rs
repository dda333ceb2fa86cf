//! What the other side of a leg says of itself.

use std::net::SocketAddr;
use std::time::Instant;

use super::effect::{Event, PathId, SessionId};
use super::end::{End, Far, Plain, Side};
use super::session::{LegKind, RemoteAgent, Session};
use super::sessions::Sessions;
use crate::address::PeerAddr;
use crate::ice::{Candidate, Parameters, Selection};

/// Candidates of a remote that are remembered for a leg. They are of use only where the remote is lite, too, or to know a
/// candidate's priority; others prove themselves by their checks.
const CANDIDATES: usize = 256;

/// The other side of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// An ICE agent.
    Ice {
        /// Its credentials.
        parameters: Parameters,
        /// Whether it is lite, too: then nobody sends checks, and media goes to the best of its candidates.
        is_lite: bool,
        /// Where it may be.
        candidates: Vec<StreamCandidates>,
        /// Whether there will be no more.
        end_of_candidates: bool,
    },
    /// Somebody without ICE.
    Plain {
        /// Where media goes. An end of which nothing is said has no remote, until it latches.
        addresses: Vec<PlainAddress>,
        /// Whether the first that sends something takes the remote's place.
        latch: bool,
        /// Whether this is what the side says of itself, which may be wrong for one behind a NAT: then an address that cannot or may not
        /// be sent to is none, and who has latched stays for as long as the same is said.
        is_hint: bool,
    },
}

/// Candidates of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCandidates {
    /// The stream; none: the first.
    pub stream: Option<String>,
    /// Those of all its components.
    pub candidates: Vec<Candidate>,
}

/// Where a component of a stream is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainAddress {
    /// The stream; none: the first.
    pub stream: Option<String>,
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// Where it is.
    pub address: SocketAddr,
}

/// Why a remote cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// There is no such session.
    #[error("there is no such session")]
    NoSession,
    /// It has no such stream.
    #[error("the session has no stream {0:?}")]
    NoStream(String),
    /// The stream has no such component.
    #[error("the stream {0:?} has no component {1}")]
    NoComponent(String, u16),
    /// The leg has no address of this family.
    #[error("the leg has no address of the family of {0}")]
    NoFamily(SocketAddr),
    /// The peer rules forbid it.
    #[error("the peer rules forbid {0} (allow-peer, deny-peer)")]
    Forbidden(SocketAddr),
    /// Candidates have come before the agent that they are of.
    #[error("the leg has no remote ICE agent: say who it is first, or where it is, if it speaks no ICE")]
    NoAgent,
}

/// A remote that can be, with what it comes to.
#[derive(Debug)]
pub(super) enum Prepared {
    /// An ICE agent, and where media goes for each path if it is lite.
    Agent { agent: RemoteAgent, chosen: Vec<(PathId, Option<(usize, SocketAddr)>)> },
    /// Somebody without ICE.
    Plain { told: Vec<Told>, latch: bool, is_hint: bool },
}

/// Where a remote without ICE is said to be.
#[derive(Debug)]
pub(super) struct Told {
    path: PathId,
    address: SocketAddr,
    /// The same, and which local address it is reached from, where that may and can be.
    remote: Option<(usize, SocketAddr)>,
}

impl Sessions {
    /// Says who is on the other side of a leg. When it cannot be, everything stays as it was.
    pub fn set_remote(&mut self, now: Instant, id: SessionId, side: Side, remote: Remote) -> Result<(), RemoteError> {
        let prepared = self.prepare(id, side, remote)?;
        self.put_remote(now, id, side, prepared);
        Ok(())
    }

    /// What a remote comes to, if it can be.
    pub(super) fn prepare(&self, id: SessionId, side: Side, remote: Remote) -> Result<Prepared, RemoteError> {
        let session = self.table.get(&id).ok_or(RemoteError::NoSession)?;
        match remote {
            Remote::Ice { parameters, is_lite, candidates, end_of_candidates } => {
                let candidates = named(session, candidates)?;
                self.prepare_agent(id, side, RemoteAgent { parameters, is_lite, candidates, end_of_candidates })
            }
            Remote::Plain { addresses, latch, is_hint } => {
                self.prepare_plain(session, side, &addresses, (latch, is_hint))
            }
        }
    }

    /// Makes what was [prepared](Self::prepare) a moment ago so.
    pub(super) fn put_remote(&mut self, now: Instant, id: SessionId, side: Side, prepared: Prepared) {
        match prepared {
            Prepared::Agent { agent, chosen } => self.put_agent(now, id, side, agent, chosen),
            Prepared::Plain { told, latch, is_hint } => self.put_plain(now, id, side, &told, (latch, is_hint)),
        }
        self.settle(id, now);
    }

    /// Adds candidates of a remote agent that is known already (RFC 8838).
    pub fn add_candidates(
        &mut self,
        now: Instant,
        id: SessionId,
        side: Side,
        candidates: Vec<StreamCandidates>,
        end_of_candidates: bool,
    ) -> Result<(), RemoteError> {
        let session = self.table.get(&id).ok_or(RemoteError::NoSession)?;
        let more = named(session, candidates)?;
        let mut agent = session.leg(side).remote.clone().ok_or(RemoteError::NoAgent)?;
        // RFC 8838 section 14: what comes behind the end does not count.
        let more = if agent.end_of_candidates { Vec::new() } else { more };
        for candidate in more {
            if !agent.candidates.contains(&candidate) {
                agent.candidates.push(candidate);
            }
        }
        agent.end_of_candidates |= end_of_candidates;
        let prepared = self.prepare_agent(id, side, agent)?;
        self.put_remote(now, id, side, prepared);
        Ok(())
    }

    fn prepare_agent(&self, id: SessionId, side: Side, mut agent: RemoteAgent) -> Result<Prepared, RemoteError> {
        agent.candidates.truncate(CANDIDATES);
        // Nobody checks a lite agent's candidates, so they are asked about as any address is.
        let chosen: Vec<_> =
            self.paths_of(id).into_iter().map(|path| (path, self.choose(path, side, &agent))).collect();
        let forbidden = agent.candidates.iter().filter_map(|(_, candidate)| candidate.usable());
        let forbidden = forbidden.filter(|remote| !self.permits(*remote)).max();
        match forbidden {
            Some(forbidden) if agent.is_lite && chosen.iter().all(|(_, chosen)| chosen.is_none()) => {
                Err(RemoteError::Forbidden(forbidden))
            }
            _ => Ok(Prepared::Agent { agent, chosen }),
        }
    }

    fn put_agent(
        &mut self,
        now: Instant,
        id: SessionId,
        side: Side,
        agent: RemoteAgent,
        chosen: Vec<(PathId, Option<(usize, SocketAddr)>)>,
    ) {
        let is_lite = agent.is_lite;
        let Some(session) = self.table.get_mut(&id) else { return };
        let leg = session.leg_mut(side);
        leg.kind = LegKind::Ice;
        let is_known = leg.remote.as_ref().is_some_and(|known| known.is_lite && known.parameters == agent.parameters);
        leg.remote = Some(agent);
        for (path, remote) in chosen {
            self.change_end(now, path, side, |end| match &mut end.far {
                Far::Ice(_) if !is_lite => {}
                // Who says it is lite, and has proven more than that, is where it has shown to be.
                Far::Ice(_) if is_known => {}
                far if is_lite => {
                    let told = remote.map(|(_, remote)| remote);
                    *far = Far::Plain(Plain { remote, told, ..Plain::default() });
                }
                far => *far = Far::Ice(Selection::default()),
            });
        }
    }

    fn prepare_plain(
        &self,
        session: &Session,
        side: Side,
        addresses: &[PlainAddress],
        (latch, is_hint): (bool, bool),
    ) -> Result<Prepared, RemoteError> {
        let mut told = Vec::new();
        for PlainAddress { stream, component, address } in addresses {
            let path = path_named(session, stream.as_deref(), *component)?;
            let base = self.path(path).and_then(|path| path.end(side).base_for(*address));
            let remote = match base {
                Some(base) if self.permits(*address) => Some((base, *address)),
                // Who is taken to be where it sends from need not be where it says, and may say it all the same.
                _ if latch && is_hint => None,
                Some(_) => return Err(RemoteError::Forbidden(*address)),
                None => return Err(RemoteError::NoFamily(*address)),
            };
            told.push(Told { path, address: *address, remote });
        }
        Ok(Prepared::Plain { told, latch, is_hint })
    }

    fn put_plain(&mut self, now: Instant, id: SessionId, side: Side, told: &[Told], (latch, is_hint): (bool, bool)) {
        let latched = self.table.get_mut(&id).is_some_and(|session| {
            let leg = session.leg_mut(side);
            leg.remote = None;
            std::mem::replace(&mut leg.kind, LegKind::Plain { latch }) == LegKind::Plain { latch: true }
        });
        for path in self.paths_of(id) {
            let said = told.iter().find(|told| told.path == path);
            let (told, remote) = (said.map(|said| said.address), said.and_then(|said| said.remote));
            self.change_end(now, path, side, |end| {
                let was = match &end.far {
                    Far::Plain(plain) => *plain,
                    Far::Ice(_) => Plain::default(),
                };
                // Who has latched stays, as long as nobody is said to be elsewhere: what a side behind a NAT says is wrong each
                // time.
                let stays = latch && is_hint && latched && was.remote.is_some() && was.told == told;
                let plain = Plain { remote, told, latches: latch, is_gone: false };
                end.far = Far::Plain(if stays { was } else { plain });
            });
        }
    }

    /// A relayed address of this relay is no more: who was there has consent no more, and somebody else may be next.
    pub fn relayed_address_freed(&mut self, now: Instant, address: SocketAddr) {
        // Allocations end by the thousand, and few sessions have anything to do with one.
        if !std::mem::take(&mut self.has_own_remotes) {
            return;
        }
        for id in self.table.keys().copied().collect::<Vec<_>>() {
            for path in self.paths_of(id) {
                for side in Side::BOTH {
                    let Some(end) = self.paths.find_mut(path.0).map(|path| path.end_mut(side)) else { continue };
                    let Far::Plain(plain) = &mut end.far else { continue };
                    let Some((_, remote)) = plain.remote else { continue };
                    if remote != address {
                        self.has_own_remotes |= self.settings.is_own(remote);
                        continue;
                    }
                    *plain = Plain { is_gone: true, ..Plain::default() };
                    self.happened(id, Event::ConsentLost, path, side);
                    self.update_flow(path, now);
                    self.settle(id, now);
                }
            }
        }
    }

    /// The candidate of a lite agent that media of a path goes to: the best that can be reached.
    fn choose(&self, path: PathId, side: Side, agent: &RemoteAgent) -> Option<(usize, SocketAddr)> {
        let path = self.path(path)?;
        let of_path = agent
            .candidates
            .iter()
            .filter(|(stream, candidate)| *stream == path.stream && candidate.component == path.component);
        let reachable = of_path.filter_map(|(_, candidate)| {
            let remote = candidate.usable().filter(|remote| self.permits(*remote))?;
            Some((candidate.priority, (path.end(side).base_for(remote)?, remote)))
        });
        reachable.max_by_key(|(priority, _)| *priority).map(|(_, remote)| remote)
    }

    fn permits(&self, remote: SocketAddr) -> bool {
        self.settings.peer_policy.permits(PeerAddr::new(remote))
    }

    /// Changes an end, tells what that has done to its remote, and has the fast path follow.
    pub(super) fn change_end(&mut self, now: Instant, id: PathId, side: Side, change: impl FnOnce(&mut End)) {
        let Some(path) = self.paths.find_mut(id.0) else { return };
        let session = path.session;
        let target = |end: &End| end.target().map(|(local, remote)| (local.port, remote));
        path.active = now;
        let end = path.end_mut(side);
        let before = target(end);
        change(end);
        let after = target(end);
        self.has_own_remotes |= after.is_some_and(|(_, remote)| self.settings.is_own(remote));
        let event = match (before, after) {
            (None, Some(_)) => Some(Event::Nominated),
            (Some(before), Some(after)) if before != after => Some(Event::Moved),
            _ => None,
        };
        if let Some(event) = event {
            self.happened(session, event, id, side);
        }
        self.update_flow(id, now);
    }
}

/// Candidates with the names of their streams.
fn named(session: &Session, candidates: Vec<StreamCandidates>) -> Result<Vec<(String, Candidate)>, RemoteError> {
    let mut named = Vec::new();
    for StreamCandidates { stream, candidates } in candidates {
        let name = stream_named(session, stream.as_deref())?;
        named.extend(candidates.into_iter().map(|candidate| (name.clone(), candidate)));
    }
    Ok(named)
}

fn stream_named(session: &Session, name: Option<&str>) -> Result<String, RemoteError> {
    let stream = match name {
        Some(name) => session.stream(name),
        None => session.streams.first(),
    };
    stream.map(|stream| stream.name.clone()).ok_or_else(|| RemoteError::NoStream(name.unwrap_or_default().to_owned()))
}

fn path_named(session: &Session, name: Option<&str>, component: u16) -> Result<PathId, RemoteError> {
    let name = stream_named(session, name)?;
    let paths = session.stream(&name).map(|stream| &stream.paths);
    let at = usize::from(component).checked_sub(1);
    let path = paths.zip(at).and_then(|(paths, at)| paths.get(at).copied());
    path.ok_or(RemoteError::NoComponent(name, component))
}
