//! One end of a path: its own addresses, and its remote.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::effect::{Answer, PortId};
use crate::ice::{Candidate, CandidateAddress, CandidateKind, CandidateTransport, Selection};

/// Which leg of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one opposite.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The name in interfaces.
    pub fn label(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// An address where an end is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    pub(super) port: PortId,
    /// What its socket is bound to.
    pub(super) bind: SocketAddr,
    /// What the other side is told.
    pub(super) public: SocketAddr,
    /// As a host candidate.
    pub(super) priority: u32,
    /// Which of the relay's addresses it has: the foundation of its candidate, as that is of one base (RFC 8445 section
    /// 5.1.1.3).
    pub(super) foundation: usize,
}

impl Local {
    /// The same as a host candidate.
    pub(super) fn candidate(&self, component: u16) -> Candidate {
        Candidate {
            foundation: self.foundation.to_string(),
            component,
            transport: CandidateTransport::Udp,
            priority: self.priority,
            address: CandidateAddress::Ip(self.public.ip()),
            port: self.public.port(),
            kind: CandidateKind::Host,
            related: None,
        }
    }
}

/// Somebody who has tried to become the remote of an end, and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it is.
    pub remote: SocketAddr,
    /// Why.
    pub reason: RefusedFor,
}

/// Why somebody did not become a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// It was the first to send something, and the peer rules forbid it.
    Forbidden,
    /// Its check was answered by this error.
    Check(Answer),
}

impl RefusedFor {
    /// The name in interfaces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Check(answer) => answer.label(),
        }
    }
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) locals: Vec<Local>,
    pub(super) far: Far,
    /// Who has last tried to become its remote, since there was one.
    pub(super) refused: Option<Refused>,
}

/// What is known of the remote.
#[derive(Debug)]
pub(super) enum Far {
    /// It is a full agent, and nominates.
    Ice(Selection),
    /// It is where it was said to be, or where it has sent from first.
    Plain(Plain),
}

/// A remote that proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plain {
    /// Which local address it is reached from, and where it is.
    pub(super) remote: Option<(usize, SocketAddr)>,
    /// Where it was said to be.
    pub(super) told: Option<SocketAddr>,
    /// Whether the first that sends something takes the remote's place: a side behind a NAT does not know its own address.
    pub(super) latches: bool,
    /// Whether it is known to be there no more.
    pub(super) is_gone: bool,
}

impl End {
    /// Where to send to now, and from which local address.
    pub(super) fn target(&self) -> Option<(&Local, SocketAddr)> {
        let (base, remote) = match &self.far {
            Far::Ice(selection) => selection.usable().map(|pair| (pair.base, pair.remote))?,
            Far::Plain(plain) => plain.remote?,
        };
        Some((self.locals.get(base)?, remote))
    }

    /// Whether this is where the remote is, as far as that is known.
    pub(super) fn knows(&self, base: usize, source: SocketAddr, now: Instant, consent: Duration) -> bool {
        match &self.far {
            Far::Ice(selection) => selection.accepts(base, source, now, consent),
            Far::Plain(plain) => plain.remote == Some((base, source)),
        }
    }

    /// Whether what comes from there is the remote's, whoever else may send something.
    pub(super) fn accepts(&self, base: usize, source: SocketAddr, now: Instant, consent: Duration) -> bool {
        !self.latches() && self.knows(base, source, now, consent)
    }

    /// Whether whoever sends something first is its remote: nothing that arrives may be missed then.
    pub(super) fn latches(&self) -> bool {
        matches!(&self.far, Far::Plain(plain) if plain.latches)
    }

    /// Whether the remote wants what it is sent, as far as it has to say so.
    pub(super) fn has_consent(&self, now: Instant, consent: Duration) -> bool {
        self.consent_ends(consent).is_none_or(|ends| now < ends)
    }

    /// When the remote has to have proven itself again; none for one that does not.
    pub(super) fn consent_ends(&self, consent: Duration) -> Option<Instant> {
        match &self.far {
            Far::Ice(selection) => selection.consent_ends(consent),
            Far::Plain(_) => None,
        }
    }

    /// Whether there was a remote that has lost its consent.
    pub(super) fn is_lost(&self) -> bool {
        match &self.far {
            Far::Ice(selection) => selection.is_lost(),
            Far::Plain(plain) => plain.is_gone,
        }
    }

    /// The local address that is told to who knows of one only: that which the remote is reached from, or else one of IPv4,
    /// which everybody has.
    pub(super) fn default_base(&self) -> usize {
        let used = self.target().and_then(|(used, _)| self.locals.iter().position(|local| local.port == used.port));
        used.or_else(|| self.locals.iter().position(|local| local.public.is_ipv4())).unwrap_or(0)
    }

    /// The local address of an address family that comes first.
    pub(super) fn base_for(&self, remote: SocketAddr) -> Option<usize> {
        self.locals.iter().position(|local| local.public.is_ipv4() == remote.is_ipv4())
    }
}
