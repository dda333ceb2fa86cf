//! Why something could not be done with a session.

use hairpin_proto::ice::ParametersError;
use hairpin_proto::media::{NegotiationError, OpenError, RemoteError};
use hairpin_proto::sdp::SdpError;

/// Why something could not be done with a session. Each says what is wrong, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceError {
    /// Values that cannot be; there is one at least.
    #[error("{}", problems(.0))]
    Values(Vec<String>),
    /// A username fragment or a password that is none.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// A session description that cannot be read.
    #[error("sdp: {0}")]
    Sdp(#[from] SdpError),
    /// Nobody has this id (any more).
    #[error("there is no session `{0}` (any more)")]
    NoSession(String),
    /// The allocation of a leg of TURN is not there (any more).
    #[error("{leg}.allocation: there is no allocation `{id}` (any more)")]
    NoAllocation {
        /// Which leg.
        leg: &'static str,
        /// What it was said to be.
        id: String,
    },
    /// The allocation has no relayed address that the leg could reach.
    #[error("{leg}.allocation: `{id}` has no relayed address of a family that the session has ({has} only)")]
    NoFamily {
        /// Which leg.
        leg: &'static str,
        /// The allocation.
        id: String,
        /// What it has.
        has: String,
    },
    /// The leg has nothing to begin again.
    #[error("leg {0} speaks no ICE: only a leg of ICE has credentials")]
    NoIce(&'static str),
    /// The session cannot have what it needs.
    #[error(transparent)]
    Open(OpenError),
    /// The other side cannot be where it is said to be.
    #[error(transparent)]
    Remote(RemoteError),
    /// The description does not go with what was said before.
    #[error(transparent)]
    Negotiation(NegotiationError),
    /// The relay lets nobody in.
    #[error("the relay is draining: it takes no new sessions")]
    Draining,
    /// The shard that has the session does not say anything.
    #[error("the shard of this session does not answer: look at the log of the relay")]
    Silent,
}

/// What a client can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceErrorKind {
    /// Ask for something else.
    Invalid,
    /// Nothing: what is meant is not there.
    Missing,
    /// Do something else before.
    Conflict,
    /// Try again later, or elsewhere.
    NoRoom,
}

impl IceError {
    /// What a client can do about it.
    pub fn kind(&self) -> IceErrorKind {
        match self {
            Self::Values(_)
            | Self::Parameters(_)
            | Self::Sdp(_)
            | Self::NoAllocation { .. }
            | Self::NoFamily { .. } => IceErrorKind::Invalid,
            Self::NoSession(_) => IceErrorKind::Missing,
            Self::NoIce(_) => IceErrorKind::Conflict,
            Self::Open(error) => of_open(error),
            Self::Remote(error) => of_remote(error),
            Self::Negotiation(error) => of_negotiation(error),
            Self::Draining | Self::Silent => IceErrorKind::NoRoom,
        }
    }

    /// Each single problem, where there are several.
    pub fn problems(&self) -> &[String] {
        match self {
            Self::Values(problems) if problems.len() > 1 => problems,
            _ => &[],
        }
    }

    /// The line of a session description that is wrong.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Sdp(error) => Some(error.line),
            _ => None,
        }
    }

    /// The same error, with the name that the operator knows the session by.
    pub(super) fn of_session(self, id: &str) -> Self {
        match self {
            Self::Open(OpenError::NoSession)
            | Self::Remote(RemoteError::NoSession)
            | Self::Negotiation(NegotiationError::NoSession | NegotiationError::Remote(RemoteError::NoSession)) => {
                Self::NoSession(id.to_owned())
            }
            other => other,
        }
    }
}

impl From<OpenError> for IceError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<RemoteError> for IceError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<NegotiationError> for IceError {
    fn from(error: NegotiationError) -> Self {
        match error {
            // The description itself is none of these two's business.
            NegotiationError::Open(error) => Self::Open(error),
            NegotiationError::Remote(error) => Self::Remote(error),
            error => Self::Negotiation(error),
        }
    }
}

fn of_open(error: &OpenError) -> IceErrorKind {
    match error {
        OpenError::NoAddress | OpenError::UnknownAddress { .. } | OpenError::SameName | OpenError::TooManyStreams => {
            IceErrorKind::Invalid
        }
        OpenError::NoSession => IceErrorKind::Missing,
        OpenError::TooMany | OpenError::TooManyPaths | OpenError::NoPort | OpenError::NoSocket => IceErrorKind::NoRoom,
    }
}

fn of_remote(error: &RemoteError) -> IceErrorKind {
    match error {
        RemoteError::NoSession => IceErrorKind::Missing,
        RemoteError::NoAgent => IceErrorKind::Conflict,
        RemoteError::NoStream(_)
        | RemoteError::NoComponent(..)
        | RemoteError::NoFamily(_)
        | RemoteError::Forbidden(_) => IceErrorKind::Invalid,
    }
}

fn of_negotiation(error: &NegotiationError) -> IceErrorKind {
    match error {
        NegotiationError::NoSession => IceErrorKind::Missing,
        NegotiationError::NotOffered | NegotiationError::OwnOffer => IceErrorKind::Conflict,
        NegotiationError::NoTransport
        | NegotiationError::Sections { .. }
        | NegotiationError::Unmuxed(_)
        | NegotiationError::Unbundled(_) => IceErrorKind::Invalid,
        NegotiationError::Open(error) => of_open(error),
        NegotiationError::Remote(error) => of_remote(error),
    }
}

fn problems(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        several => format!("{} values are not allowed", several.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_the_engine_does_not_know_is_named_to_the_operator() {
        for error in [
            IceError::from(RemoteError::NoSession),
            OpenError::NoSession.into(),
            NegotiationError::NoSession.into(),
            NegotiationError::Remote(RemoteError::NoSession).into(),
        ] {
            assert_eq!(error.of_session("0-7"), IceError::NoSession("0-7".to_owned()));
        }
    }

    #[test]
    fn an_error_says_what_can_be_done_about_it() {
        let forbidden = RemoteError::Forbidden("192.0.2.1:9".parse().expect("an address"));
        for (error, kind) in [
            (IceError::Values(vec!["one".to_owned()]), IceErrorKind::Invalid),
            (OpenError::NoAddress.into(), IceErrorKind::Invalid),
            (OpenError::TooMany.into(), IceErrorKind::NoRoom),
            (OpenError::NoPort.into(), IceErrorKind::NoRoom),
            (forbidden.clone().into(), IceErrorKind::Invalid),
            (RemoteError::NoAgent.into(), IceErrorKind::Conflict),
            (NegotiationError::NotOffered.into(), IceErrorKind::Conflict),
            (NegotiationError::OwnOffer.into(), IceErrorKind::Conflict),
            (NegotiationError::Unmuxed(1).into(), IceErrorKind::Invalid),
            (NegotiationError::Open(OpenError::NoPort).into(), IceErrorKind::NoRoom),
            (NegotiationError::Remote(forbidden).into(), IceErrorKind::Invalid),
            (IceError::NoSession("0-1".to_owned()), IceErrorKind::Missing),
            (IceError::NoIce("b"), IceErrorKind::Conflict),
            (IceError::Draining, IceErrorKind::NoRoom),
            (IceError::Silent, IceErrorKind::NoRoom),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
