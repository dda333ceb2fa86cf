//! Connectivity checks, as a lite agent takes them (RFC 8445 section 7.3).

use std::net::SocketAddr;

use super::credentials::Credentials;
use crate::stun::attribute::{
    Attribute, ErrorCodeAttribute, IceControlled, MappedAddress, Nonce, Priority, Realm, UnknownAttributes,
    UseCandidate, Username, XorMappedAddress,
};
use crate::stun::{Class, ErrorCode, Integrity, LongTermKey, Message, MessageBuilder, Method, Unknown};

/// Attributes below 0x8000 that are understood: those of RFC 8489, and those of RFC 8445.
const KNOWN: &[u16] = &[
    MappedAddress::TYPE,
    Username::TYPE,
    ErrorCodeAttribute::TYPE,
    UnknownAttributes::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    XorMappedAddress::TYPE,
    Priority::TYPE,
    UseCandidate::TYPE,
];

/// A check of somebody who knows the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Which of the credentials it was made with, by their place.
    pub(crate) credentials: usize,
    /// PRIORITY: that of the remote's candidate, if it is none that is known already.
    pub(crate) priority: u32,
    /// Whether the pair is nominated.
    pub(crate) use_candidate: bool,
}

/// Why a message is no check.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rejection {
    /// Nobody waits for an answer, or it is from nobody who speaks ICE.
    Ignore,
    /// The sender is told. Whoever has proven the password gets an answer that proves it, too.
    Refuse {
        /// What it is told.
        code: ErrorCode,
        /// The credentials that the request was made with, by their place.
        credentials: Option<usize>,
        /// What it has in it that was not understood.
        unknown: Unknown,
    },
}

impl Rejection {
    fn refuse(code: ErrorCode, credentials: Option<usize>) -> Self {
        Self::Refuse { code, credentials, unknown: Unknown::default() }
    }
}

/// Looks at a message that has come to a candidate of whoever has one of these credentials.
pub(crate) fn receive(message: &Message<'_>, credentials: &[&Credentials]) -> Result<Check, Rejection> {
    // Indications keep bindings of NATs alive (RFC 8445 section 11) and mean nothing; a lite agent asks for no response.
    // FINGERPRINT is there in all of ICE (section 7.2.2): without, it is not to be taken for STUN (RFC 8489 section 6.3).
    let is_check = message.class() == Class::Request && message.method() == Method::BINDING;
    if !is_check || !message.has_fingerprint() {
        return Err(Rejection::Ignore);
    }
    // RFC 8489 section 9.1.3: first whether both are there, then whether both are right.
    let Ok(Some(Username(username))) = message.attribute::<Username<'_>>() else {
        return Err(Rejection::refuse(ErrorCode::BAD_REQUEST, None));
    };
    if !message.has_integrity() {
        return Err(Rejection::refuse(ErrorCode::BAD_REQUEST, None));
    }
    let own = credentials.iter().position(|credentials| credentials.are_of(username));
    let Some(own) = own.filter(|at| message.verify_integrity(credentials[*at].key())) else {
        return Err(Rejection::refuse(ErrorCode::UNAUTHENTICATED, None));
    };
    let unknown = Unknown::beyond(message, [KNOWN, &[]]);
    if !unknown.is_empty() {
        return Err(Rejection::Refuse { code: ErrorCode::UNKNOWN_ATTRIBUTE, credentials: Some(own), unknown });
    }
    // A full agent is in control of a lite one (RFC 8445 section 6.1.1): whoever thinks otherwise is to change its mind.
    if message.find(IceControlled::TYPE).is_some() {
        return Err(Rejection::refuse(ErrorCode::ROLE_CONFLICT, Some(own)));
    }
    match (message.attribute::<Priority>(), message.attribute::<UseCandidate>()) {
        (Ok(Some(Priority(priority))), Ok(use_candidate)) => {
            Ok(Check { credentials: own, priority, use_candidate: use_candidate.is_some() })
        }
        _ => Err(Rejection::refuse(ErrorCode::BAD_REQUEST, Some(own))),
    }
}

/// Writes the answer to a check: where it has come from (RFC 8445 section 7.3.1.2).
pub(crate) fn accept(buffer: &mut Vec<u8>, message: &Message<'_>, source: SocketAddr, key: &LongTermKey) {
    MessageBuilder::new(buffer, Class::Success, Method::BINDING, message.transaction_id())
        .with(&XorMappedAddress(source))
        .with_integrity(key, integrity_of_answer(message))
        .with_fingerprint();
}

/// An answer is signed as its request is (RFC 8489 section 9.1.3).
fn integrity_of_answer(request: &Message<'_>) -> Integrity {
    request.integrity().unwrap_or(Integrity::Sha1)
}

/// Writes the answer to what is no check.
pub(crate) fn refuse(
    buffer: &mut Vec<u8>,
    message: &Message<'_>,
    code: ErrorCode,
    unknown: &Unknown,
    key: Option<&LongTermKey>,
) {
    let unknown = (!unknown.is_empty()).then(|| UnknownAttributes(unknown.types()));
    let response = MessageBuilder::error(buffer, Method::BINDING, message.transaction_id(), code);
    let response = response.with_option(unknown.as_ref());
    match key {
        Some(key) => response.with_integrity(key, integrity_of_answer(message)).with_fingerprint(),
        None => response.with_fingerprint(),
    }
}
