//! What goes into the state machine and what comes out of it.

use std::net::SocketAddr;
use std::time::Instant;

use super::describe::SessionInfo;
use super::end::Side;
use super::settings::Limits;

/// Names a session; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Names a path for as long as it lives; afterwards the number is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(pub u32);

/// Names the socket of an end for as long as it lives; afterwards the number is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u32);

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition<'p> {
    /// It is to be sent on, now.
    Forward(Forward<'p>),
    /// It is to be answered to where it has come from, out of the same socket, with [`Sessions::response`](super::Sessions::response).
    Respond(Answer),
    /// It is to be dropped.
    Discard(Discard),
}

/// How a check is answered. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    /// It is right.
    Success,
    /// 400: it lacks what a check must have.
    BadRequest,
    /// 401: it has a wrong username fragment, or a wrong password.
    Unauthenticated,
    /// 420: it demands something that is not known.
    UnknownAttribute,
    /// 487: its sender takes itself for the controlled agent, which a lite one is itself.
    RoleConflict,
}

impl Answer {
    /// Every answer, in the order of `as usize`.
    pub const ALL: [Self; 5] =
        [Self::Success, Self::BadRequest, Self::Unauthenticated, Self::UnknownAttribute, Self::RoleConflict];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::UnknownAttribute => "unknown_attribute",
            Self::RoleConflict => "role_conflict",
        }
    }

    /// The error code, if it is an error (RFC 8489 section 14.8, RFC 8445 section 16.1).
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Success => None,
            Self::BadRequest => Some(400),
            Self::Unauthenticated => Some(401),
            Self::UnknownAttribute => Some(420),
            Self::RoleConflict => Some(487),
        }
    }
}

/// Media to be sent on. It borrows from the datagram that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'p> {
    /// Whose it is.
    pub path: PathId,
    /// Which leg it comes from.
    pub from: Side,
    /// Whether that is the one that a fast path calls the client's: limits are by direction.
    pub is_clients: bool,
    /// The socket to send from.
    pub port: PortId,
    /// Where to.
    pub remote: SocketAddr,
    /// All of the datagram.
    pub payload: &'p [u8],
}

/// Why a datagram is dropped. Each is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Discard {
    /// The socket is no leg's any more.
    NoLeg,
    /// STUN where no ICE is spoken, or that is no check.
    Stun,
    /// Media of somebody who is not the leg's remote.
    UnknownRemote,
    /// Media of somebody who would become the leg's remote by it, but may not by the peer rules.
    Forbidden,
    /// The other leg has no remote (yet), or none that may be sent to.
    NoRemote,
}

impl Discard {
    /// Every reason, in the order of `as usize`.
    pub const ALL: &'static [Self] = &[Self::NoLeg, Self::Stun, Self::UnknownRemote, Self::Forbidden, Self::NoRemote];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoLeg => "media_no_leg",
            Self::Stun => "media_stun",
            Self::UnknownRemote => "media_unknown_remote",
            Self::Forbidden => "media_forbidden",
            Self::NoRemote => "media_no_remote",
        }
    }
}

/// A path that a fast path may serve alone: what `client` sends to `server` leaves from `relayed` to `peer`, and back.
///
/// `server` and `relayed` are bound addresses of this host's own. Where one of the remotes is a relayed address of this relay,
/// it is the `peer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaFlow {
    /// The path.
    pub path: PathId,
    /// The remote of one leg.
    pub client: SocketAddr,
    /// That leg's own address.
    pub server: SocketAddr,
    /// The other leg's own address.
    pub relayed: SocketAddr,
    /// The other leg's remote.
    pub peer: SocketAddr,
    /// The leg of `client`.
    pub client_side: Side,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// Somebody wanted it.
    Deleted,
    /// A leg never had a remote.
    Setup,
    /// A leg had lost its consent, and it did not come back.
    ConsentLost,
    /// No media flowed.
    Idle,
    /// The relay was drained, and the time was over.
    Drained,
    /// The relay ends.
    Shutdown,
}

impl CloseReason {
    /// Every reason, in the order of `as usize`.
    pub const ALL: [Self; 6] =
        [Self::Deleted, Self::Setup, Self::ConsentLost, Self::Idle, Self::Drained, Self::Shutdown];

    /// The name in metrics, logs and events.
    pub fn label(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Setup => "setup",
            Self::ConsentLost => "consent_lost",
            Self::Idle => "idle",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What has happened to one end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// It has a remote now, where it had none.
    Nominated,
    /// It has another remote.
    Moved,
    /// Its remote has lost its consent.
    ConsentLost,
    /// It has a remote with consent again: the same, or another one.
    Resumed,
}

impl Event {
    /// The name in events and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Nominated => "nominated",
            Self::Moved => "moved",
            Self::ConsentLost => "consent_lost",
            Self::Resumed => "resumed",
        }
    }
}

/// What the driver is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A fast path may serve a path, until `expires` or a later word.
    InstallFlow {
        /// What to send where.
        flow: MediaFlow,
        /// When it has to stop.
        expires: Instant,
    },
    /// A fast path may no longer do this.
    RemoveFlow {
        /// What it was told.
        flow: MediaFlow,
    },
    /// What comes to the legs of a path is limited to this, on any way. Said of no path that has none of its own.
    Limit {
        /// The path.
        path: PathId,
        /// How much may come.
        limits: Limits,
    },
    /// Close a socket. Nothing of it may be passed in any more.
    Close {
        /// Whose it was.
        port: PortId,
    },
    /// Tell whoever listens what has happened to an end.
    Happened {
        /// The session.
        session: SessionId,
        /// What.
        event: Event,
        /// The path that the end is of.
        path: PathId,
        /// The leg that the end is of.
        side: Side,
    },
    /// A session has ended. What was counted of its paths can still be read.
    Closed {
        /// As it was in the end.
        info: Box<SessionInfo>,
        /// Why.
        reason: CloseReason,
    },
    /// A path has ended: its number may be another's next.
    Freed {
        /// The path.
        path: PathId,
    },
}
