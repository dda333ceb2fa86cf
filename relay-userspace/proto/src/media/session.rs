//! A session, its legs and its paths.

use std::time::{Duration, Instant};

use super::count::{Counts, Tally};
use super::effect::{MediaFlow, PathId, SessionId};
use super::end::{End, Far, Plain, Side};
use super::negotiation::Negotiation;
use super::settings::{Choice, Terms};
use crate::ice::{Candidate, Credentials, Parameters, Selection};

/// What a leg speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegKind {
    /// ICE, as a lite agent.
    Ice,
    /// Nothing: media goes to an address that was told.
    Plain {
        /// Whether the first that sends something becomes the remote.
        latch: bool,
    },
}

impl LegKind {
    /// The name in interfaces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ice => "ice",
            Self::Plain { .. } => "plain",
        }
    }

    pub(super) fn far(self) -> Far {
        match self {
            Self::Ice => Far::Ice(Selection::default()),
            Self::Plain { latch } => Far::Plain(Plain { latches: latch, ..Plain::default() }),
        }
    }
}

/// How far a leg has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegState {
    /// It has no remote yet.
    Waiting,
    /// It has one.
    Nominated,
    /// Its remote has lost its consent.
    Paused,
}

impl LegState {
    /// The name in interfaces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Nominated => "nominated",
            Self::Paused => "paused",
        }
    }
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// A leg has no remote yet.
    New,
    /// Media can flow.
    Connected,
    /// A leg has lost its consent.
    Paused,
}

impl SessionState {
    /// Every state, in the order of `as usize`.
    pub const ALL: [Self; 3] = [Self::New, Self::Connected, Self::Paused];

    /// The name in interfaces.
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Connected => "connected",
            Self::Paused => "paused",
        }
    }
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) label: String,
    /// Seconds since the Unix epoch.
    pub(super) created: u64,
    /// Which addresses it has.
    pub(super) choice: Choice,
    pub(super) legs: [Leg; 2],
    pub(super) streams: Vec<Stream>,
    /// What the media sections of descriptions are; none of a session that was not made of an offer.
    pub(super) negotiation: Option<Negotiation>,
    /// Whether sides without ICE are taken to be where they first send from.
    pub(super) latches: bool,
    pub(super) terms: Terms,
    /// What was sent on by streams that it has no more.
    pub(super) gone: Counts,
    pub(super) began: Instant,
    /// Whether it is about to be closed: a fast path has let go of it for good.
    pub(super) is_closing: bool,
    /// Whether it ever had a remote on both sides.
    pub(super) was_connected: bool,
    /// Since when a leg has no consent.
    pub(super) paused_since: Option<Instant>,
    /// When media was last known to flow, or might have begun to.
    pub(super) active: Instant,
    /// When to look at it next.
    pub(super) timer: Instant,
}

#[derive(Debug)]
pub(super) struct Leg {
    pub(super) kind: LegKind,
    /// Those of now, and those of before the last restart for as long as media may flow by them.
    pub(super) credentials: Credentials,
    pub(super) previous: Option<Credentials>,
    /// Counts restarts.
    pub(super) generation: u32,
    pub(super) remote: Option<RemoteAgent>,
}

/// What a remote has said of itself.
#[derive(Clone, Debug)]
pub(super) struct RemoteAgent {
    pub(super) parameters: Parameters,
    pub(super) is_lite: bool,
    /// By stream, those of all of its components.
    pub(super) candidates: Vec<(String, Candidate)>,
    pub(super) end_of_candidates: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    /// By component.
    pub(super) paths: Vec<PathId>,
}

/// A component of a stream: what joins the two legs.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) session: SessionId,
    pub(super) stream: String,
    pub(super) component: u16,
    pub(super) ends: [End; 2],
    pub(super) consent: Duration,
    /// What the driver was told last.
    pub(super) installed: Option<(MediaFlow, Instant)>,
    /// When something was last sent on, as far as that is known, or could be for the first time.
    pub(super) active: Instant,
    /// What had come to each leg when that was looked at last, in packets.
    pub(super) seen: [u64; 2],
    pub(super) tally: Tally,
}

impl Path {
    pub(super) fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// Whether media can flow both ways.
    pub(super) fn is_connected(&self) -> bool {
        self.ends.iter().all(|end| end.target().is_some())
    }
}

impl Session {
    pub(super) fn leg(&self, side: Side) -> &Leg {
        &self.legs[side as usize]
    }

    pub(super) fn leg_mut(&mut self, side: Side) -> &mut Leg {
        &mut self.legs[side as usize]
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = PathId> {
        self.streams.iter().flat_map(|stream| stream.paths.iter().copied())
    }

    pub(super) fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    pub(super) fn stream_mut(&mut self, name: &str) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.name == name)
    }
}

/// How far a leg has come, by its ends.
pub(super) fn leg_state<'e>(ends: impl Iterator<Item = &'e End>) -> LegState {
    ends.map(|end| match end.target() {
        Some(_) => LegState::Nominated,
        None if end.is_lost() => LegState::Paused,
        None => LegState::Waiting,
    })
    .max_by_key(|state| match state {
        LegState::Waiting => 0,
        LegState::Paused => 1,
        LegState::Nominated => 2,
    })
    .unwrap_or(LegState::Waiting)
}
