//! All sessions of one shard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::count::{Counts, FastCounts};
use super::effect::{CloseReason, Effect, Event, PathId, PortId, SessionId};
use super::end::{Far, Side};
use super::session::{LegState, Path, Session, SessionState, leg_state};
use super::settings::{Settings, Terms};
use crate::address::PeerAddr;
use crate::ice::Credentials;
use crate::random::{Random, RandomPool};
use crate::slab::Slab;

/// The first number is one of so many.
const FIRSTS: usize = 1_000_000_000;

/// The state machine. It is given everything and does nothing itself: see [the module](super).
pub struct Sessions {
    pub(super) settings: Settings,
    pub(super) table: BTreeMap<SessionId, Session>,
    pub(super) next: u64,
    pub(super) created: u64,
    pub(super) paths: Slab<Path>,
    /// Sockets, and the names of those that the driver has yet to close: it opens sockets at once, and closes them later.
    pub(super) ports: Slab<Option<Port>>,
    pub(super) timers: BTreeSet<(Instant, SessionId)>,
    pub(super) effects: VecDeque<Effect>,
    /// The answer to the last check.
    pub(super) response: Vec<u8>,
    pub(super) random: RandomPool,
    pub(super) closed: [u64; CloseReason::ALL.len()],
    pub(super) fast_counts: FastCounts,
    /// Whether a remote without ICE may be at an address of this relay.
    pub(super) has_own_remotes: bool,
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub(super) path: PathId,
    pub(super) side: Side,
    /// Its place among the local addresses of its end.
    pub(super) base: usize,
}

impl Sessions {
    /// None yet. `fast_counts` is asked what a fast path has counted for one of their paths.
    pub fn new(settings: Settings, random: Box<dyn Random + Send>, fast_counts: FastCounts) -> Self {
        let mut random = RandomPool::new(random);
        // Whoever knows a session of a relay that was started again must not meet another one under its number.
        let next = random.below(FIRSTS) as u64;
        Self {
            settings,
            table: BTreeMap::new(),
            next,
            created: 0,
            paths: Slab::new(),
            ports: Slab::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
            response: Vec::new(),
            random,
            closed: [0; CloseReason::ALL.len()],
            fast_counts,
            has_own_remotes: false,
        }
    }

    /// Exchanges the settings. Sessions that are there keep their addresses; remotes that new rules forbid are let go of.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings) {
        self.settings = settings;
        for id in self.table.keys().copied().collect::<Vec<_>>() {
            self.forget_forbidden(id, now);
            self.settle(id, now);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many there are in each state, in the order of [`SessionState::ALL`].
    pub fn by_state(&self) -> [usize; SessionState::ALL.len()] {
        let mut counts = [0; SessionState::ALL.len()];
        for session in self.table.values() {
            counts[self.state_of(session) as usize] += 1;
        }
        counts
    }

    /// How many have been created so far.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// How many have ended, by reason, in the order of [`CloseReason::ALL`].
    pub fn closed(&self) -> &[u64; CloseReason::ALL.len()] {
        &self.closed
    }

    /// How many are reached at this address, as it is bound.
    pub fn on(&self, ip: IpAddr) -> usize {
        self.table.keys().filter(|id| self.is_on(**id, &|at| at == ip)).count()
    }

    /// Whether a session is reached at an address, as it is bound, of which this is true.
    pub fn is_on(&self, id: SessionId, is_meant: &dyn Fn(IpAddr) -> bool) -> bool {
        let Some(session) = self.table.get(&id) else { return false };
        let ends = session.paths().filter_map(|path| self.path(path)).flat_map(|path| &path.ends);
        ends.flat_map(|end| &end.locals).any(|local| is_meant(local.bind.ip()))
    }

    /// The names of those that are not before `from`, in order.
    pub fn ids(&self, from: SessionId) -> impl Iterator<Item = SessionId> {
        self.table.range(from..).map(|(id, _)| *id)
    }

    /// What is to be done, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front()?;
        if let Effect::Close { port } = &effect {
            self.ports.remove(port.0);
        }
        Some(effect)
    }

    /// When [`Sessions::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The answer to the datagram that was given last, if that is [to be answered](super::Disposition::Respond).
    pub fn response(&self) -> &[u8] {
        &self.response
    }

    /// Counts a datagram that the driver has sent on.
    pub fn count(&mut self, path: PathId, from: Side, bytes: usize) {
        if let Some(path) = self.paths.find_mut(path.0) {
            path.tally.relay(from, bytes);
        }
    }

    /// What was sent on for a path.
    pub(super) fn counts(&self, id: PathId) -> Counts {
        self.path(id).map(|path| path.tally.counts((self.fast_counts)(id))).unwrap_or_default()
    }

    /// Exchanges the terms of a session, and its label; where that is None it stays. False if there is no such session.
    pub fn update(
        &mut self,
        now: Instant,
        id: SessionId,
        label: Option<String>,
        terms: impl FnOnce(&Terms) -> Terms,
    ) -> bool {
        let Some(session) = self.table.get_mut(&id) else { return false };
        session.label = label.unwrap_or_else(|| std::mem::take(&mut session.label));
        let before = std::mem::take(&mut session.terms);
        let new = terms(&before);
        session.terms = new;
        for id in self.paths_of(id) {
            if let Some(path) = self.paths.find_mut(id.0) {
                path.consent = new.timeouts.consent;
            }
            if new.limits != before.limits {
                self.effects.push_back(Effect::Limit { path: id, limits: new.limits });
            }
            self.update_flow(id, now);
        }
        self.settle(id, now);
        true
    }

    /// New credentials for a leg (RFC 8445 section 9): the remote is to be told. Media flows as before until something is
    /// nominated with them. False if there is no such session, or the leg has no ICE.
    pub fn restart(&mut self, id: SessionId, side: Side) -> bool {
        if self.table.get(&id).is_none_or(|session| session.leg(side).kind != super::LegKind::Ice) {
            return false;
        }
        // Those of before are there for as long as media flows by them. A second restart meanwhile finds the first one's new ones,
        // which nobody has used yet: were they drawn again, what is used now would be forgotten.
        let Some(leg) = self.table.get_mut(&id).map(|session| session.leg_mut(side)) else { return false };
        if leg.previous.is_some() {
            return true;
        }
        let fresh = Credentials::generate(&mut self.random);
        leg.previous = Some(std::mem::replace(&mut leg.credentials, fresh));
        leg.generation += 1;
        true
    }

    /// Has a fast path let go of a session that is about to be closed, so that what it has counted is final then. Media flows on.
    /// False if there is none.
    pub fn begin_close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.table.get_mut(&id) else { return false };
        session.is_closing = true;
        for path in self.paths_of(id) {
            self.withdraw(path);
        }
        true
    }

    /// Closes a session. False if there is none.
    pub fn close(&mut self, id: SessionId, reason: CloseReason) -> bool {
        let Some(info) = self.describe(id) else { return false };
        let Some(session) = self.table.remove(&id) else { return false };
        self.timers.remove(&(session.timer, id));
        self.closed[reason as usize] += 1;
        let paths: Vec<_> = session.paths().collect();
        for path in &paths {
            self.withdraw(*path);
        }
        self.effects.push_back(Effect::Closed { info: Box::new(info), reason });
        for path in paths {
            self.free(path);
        }
        true
    }

    /// Closes all.
    pub fn shutdown(&mut self) {
        while let Some(id) = self.table.keys().next().copied() {
            self.close(id, CloseReason::Shutdown);
        }
    }

    /// Forgets a session of which nobody was told. It was never created.
    pub fn abandon(&mut self, id: SessionId) {
        let Some(session) = self.table.remove(&id) else { return };
        self.timers.remove(&(session.timer, id));
        self.created -= 1;
        for path in session.paths() {
            self.withdraw(path);
            self.free(path);
        }
    }

    /// Closes the sockets of a path and forgets it. Its flow must be withdrawn already.
    pub(super) fn free(&mut self, id: PathId) {
        let Some(path) = self.paths.remove(id.0) else { return };
        for port in path.ends.iter().flat_map(|end| &end.locals).map(|local| local.port) {
            self.close_port(port);
        }
        self.effects.push_back(Effect::Freed { path: id });
    }

    pub(super) fn close_port(&mut self, port: PortId) {
        if let Some(known) = self.ports.find_mut(port.0) {
            *known = None;
        }
        self.effects.push_back(Effect::Close { port });
    }

    pub(super) fn paths_of(&self, id: SessionId) -> Vec<PathId> {
        self.table.get(&id).map(|session| session.paths().collect()).unwrap_or_default()
    }

    pub(super) fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.find(id.0)
    }

    pub(super) fn leg_state(&self, session: &Session, side: Side) -> LegState {
        leg_state(session.paths().filter_map(|path| self.path(path)).map(|path| path.end(side)))
    }

    pub(super) fn state_of(&self, session: &Session) -> SessionState {
        match Side::BOTH.map(|side| self.leg_state(session, side)) {
            [LegState::Paused, _] | [_, LegState::Paused] => SessionState::Paused,
            _ if session.paths().filter_map(|path| self.path(path)).any(Path::is_connected) => SessionState::Connected,
            _ => SessionState::New,
        }
    }

    /// Says that something has happened to an end.
    pub(super) fn happened(&mut self, session: SessionId, event: Event, path: PathId, side: Side) {
        self.effects.push_back(Effect::Happened { session, event, path, side });
    }

    /// Lets go of remotes that prove nothing and that the rules forbid.
    fn forget_forbidden(&mut self, id: SessionId, now: Instant) {
        for path in self.paths_of(id) {
            for end in self.paths.find_mut(path.0).into_iter().flat_map(|path| &mut path.ends) {
                if let Far::Plain(plain) = &mut end.far
                    && plain.remote.is_some_and(|(_, remote)| !self.settings.peer_policy.permits(PeerAddr::new(remote)))
                {
                    plain.remote = None;
                }
            }
            self.update_flow(path, now);
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("sessions", &self.table.len()).finish_non_exhaustive()
    }
}
