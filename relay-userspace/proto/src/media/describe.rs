//! What there is to say of a session.

use std::net::SocketAddr;
use std::time::Instant;

use super::count::Counts;
use super::effect::{PathId, SessionId};
use super::end::{Far, Refused, Side};
use super::session::{LegKind, LegState, RemoteAgent, Session, SessionState};
use super::sessions::Sessions;
use super::settings::Terms;
use crate::ice::{Candidate, Parameters};

/// A session as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its name.
    pub id: SessionId,
    /// What its owner calls it.
    pub label: String,
    /// When it was created, in seconds since the Unix epoch.
    pub created: u64,
    /// How far it has come.
    pub state: SessionState,
    /// What its owner may change, as it holds.
    pub terms: Terms,
    /// What was sent on, by streams that are gone, too.
    pub totals: Counts,
    /// Its legs: A, then B.
    pub legs: [LegInfo; 2],
    /// Its streams.
    pub streams: Vec<StreamInfo>,
}

/// A leg as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegInfo {
    /// What it speaks.
    pub kind: LegKind,
    /// How far it has come.
    pub state: LegState,
    /// Its credentials, where it speaks ICE.
    pub parameters: Option<Parameters>,
    /// The other side's, if it has said so.
    pub remote: Option<Parameters>,
    /// Whether the other side is lite, too.
    pub remote_is_lite: bool,
    /// What the other side has said of where it may be, by stream.
    pub remote_candidates: Vec<(String, Candidate)>,
    /// Whether it has said that there will be no more.
    pub end_of_candidates: bool,
}

/// A stream as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Its components, from the first.
    pub paths: Vec<PathInfo>,
}

/// A component of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// Its number.
    pub path: PathId,
    /// 1, or 2 for RTCP.
    pub component: u16,
    /// Its ends: leg A's, then leg B's.
    pub ends: [EndInfo; 2],
    /// Until when a fast path may serve it alone.
    pub installed: Option<Instant>,
    /// The leg that a fast path calls the client's.
    pub client_side: Side,
    /// What was sent on.
    pub counts: Counts,
}

/// One side of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndInfo {
    /// Where it is reached, the best first.
    pub locals: Vec<SocketAddr>,
    /// The same as host candidates.
    pub candidates: Vec<Candidate>,
    /// That which is told to who knows of one only.
    pub default: Option<SocketAddr>,
    /// Where it sends to.
    pub selected: Option<SelectedInfo>,
    /// Who has last tried to become its remote, since there was one.
    pub refused: Option<Refused>,
}

/// Where an end sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedInfo {
    /// Its own address, as the other side knows it.
    pub local: SocketAddr,
    /// The remote.
    pub remote: SocketAddr,
    /// When the remote has last proven itself. None for one that does not.
    pub checked: Option<Instant>,
    /// Whether its consent has ended.
    pub is_lost: bool,
}

impl Sessions {
    /// A session as it is now.
    pub fn describe(&self, id: SessionId) -> Option<SessionInfo> {
        let session = self.table.get(&id)?;
        let streams = session.streams.iter().map(|stream| StreamInfo {
            name: stream.name.clone(),
            paths: stream.paths.iter().filter_map(|path| self.path_info(*path)).collect(),
        });
        Some(SessionInfo {
            id,
            label: session.label.clone(),
            created: session.created,
            state: self.state_of(session),
            terms: self.terms(session),
            totals: self.totals(session),
            legs: Side::BOTH.map(|side| self.leg_info(session, side)),
            streams: streams.collect(),
        })
    }

    /// The name and the leg of what an event is about: stream and component of a path.
    pub fn name_of(&self, path: PathId) -> Option<(String, u16)> {
        self.path(path).map(|path| (path.stream.clone(), path.component))
    }

    fn totals(&self, session: &Session) -> Counts {
        let mut totals = session.gone;
        for path in session.paths() {
            totals += self.counts(path);
        }
        totals
    }

    fn leg_info(&self, session: &Session, side: Side) -> LegInfo {
        let leg = session.leg(side);
        let own = || Parameters { ufrag: leg.credentials.ufrag().to_owned(), pwd: leg.credentials.pwd().to_owned() };
        let agent = leg.remote.as_ref();
        LegInfo {
            kind: leg.kind,
            state: self.leg_state(session, side),
            parameters: (leg.kind == LegKind::Ice).then(own),
            remote: agent.map(|agent| agent.parameters.clone()),
            remote_is_lite: agent.is_some_and(|agent| agent.is_lite),
            remote_candidates: agent.map_or_else(Vec::new, |agent: &RemoteAgent| agent.candidates.clone()),
            end_of_candidates: agent.is_some_and(|agent| agent.end_of_candidates),
        }
    }

    fn path_info(&self, id: PathId) -> Option<PathInfo> {
        let path = self.path(id)?;
        let ends = Side::BOTH.map(|side| {
            let end = path.end(side);
            let (pair, checked, is_lost) = match &end.far {
                Far::Ice(selection) => {
                    let pair = selection.selected();
                    (pair.map(|pair| (pair.base, pair.remote)), pair.map(|pair| pair.checked), selection.is_lost())
                }
                Far::Plain(plain) => (plain.remote, None, false),
            };
            let selected = pair.and_then(|(base, remote)| {
                let local = end.locals.get(base)?.public;
                Some(SelectedInfo { local, remote, checked, is_lost })
            });
            EndInfo {
                locals: end.locals.iter().map(|local| local.public).collect(),
                candidates: end.locals.iter().map(|local| local.candidate(path.component)).collect(),
                default: end.locals.get(end.default_base()).map(|local| local.public),
                selected,
                refused: end.refused,
            }
        });
        let installed = path.installed.map(|(_, until)| until);
        Some(PathInfo {
            path: id,
            component: path.component,
            ends,
            installed,
            client_side: path.tally.client_side,
            counts: self.counts(id),
        })
    }
}
