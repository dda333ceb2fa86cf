//! Who sends a request (RFC 8489 section 9.2.4).

use super::cause::Cause;
use super::credentials::{Credentials, Verified};
use super::effect::Now;
use super::nonce::{NonceText, Nonces};
use crate::address::ClientAddr;
use crate::stun::attribute::{Attribute, Nonce, Realm, Username};
use crate::stun::{ErrorCode, Integrity, Message, SecurityFeatures};

/// Lets requests in, or says why not. Has no memory of anybody.
#[derive(Debug)]
pub(super) struct Authenticator {
    pub(super) realm: String,
    pub(super) credentials: Credentials,
    pub(super) nonces: Nonces,
}

/// Who was let in.
#[derive(Clone, Debug)]
pub(super) struct Authenticated<'m> {
    pub(super) username: &'m str,
    pub(super) credential: Verified<'m>,
}

/// Why a request was not let in. All but the first may be tried (again), with the realm and this nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// It has some of what it must have, but not all.
    Incomplete,
    /// It has no credentials.
    Anonymous(NonceText),
    /// Its credentials are wrong. The client is not told why. Whether it has shown that it receives at its address: by a
    /// nonce of ours.
    Wrong(Cause, NonceText, bool),
    /// Its credentials are right, and its nonce is not.
    Stale(NonceText),
}

impl Rejection {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Incomplete => ErrorCode::BAD_REQUEST,
            Self::Anonymous(_) | Self::Wrong(..) => ErrorCode::UNAUTHENTICATED,
            Self::Stale(_) => ErrorCode::STALE_NONCE,
        }
    }

    /// Why the request is refused, unless it is only asked to come again.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Incomplete => Some(Cause::IncompleteCredentials),
            Self::Wrong(cause, ..) => Some(*cause),
            Self::Anonymous(_) | Self::Stale(_) => None,
        }
    }

    /// Whether the client has shown that it receives at its address.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self, Self::Wrong(.., true))
    }

    pub(super) fn nonce(&self) -> Option<&NonceText> {
        match self {
            Self::Incomplete => None,
            Self::Anonymous(nonce) | Self::Wrong(_, nonce, _) | Self::Stale(nonce) => Some(nonce),
        }
    }
}

impl Authenticator {
    /// Checks in the order of the RFC, so a nonce is only called stale in front of who knows the password.
    ///
    /// A request with MESSAGE-INTEGRITY-SHA256 alone counts as one without: it was not offered to the client.
    /// `established` is the username that the allocation of this five-tuple was made with.
    pub(super) fn authenticate<'m>(
        &self,
        now: Now,
        client: ClientAddr,
        message: &Message<'m>,
        established: Option<&str>,
    ) -> Result<Authenticated<'m>, Rejection> {
        let fresh = || self.nonces.issue(now.unix, client, SecurityFeatures::default());
        if message.integrity() != Some(Integrity::Sha1) {
            return Err(Rejection::Anonymous(fresh()));
        }
        let Username(username) = required(message)?;
        let Realm(realm) = required(message)?;
        let Nonce(nonce) = required(message)?;
        let credential = self
            .verify(message, username, realm, now.unix, established == Some(username))
            .map_err(|cause| Rejection::Wrong(cause, fresh(), self.nonces.is_valid(nonce, now.unix, client)))?;
        if !self.nonces.is_valid(nonce, now.unix, client) {
            return Err(Rejection::Stale(fresh()));
        }
        Ok(Authenticated { username, credential })
    }

    /// Whether who has sent this message, and was let in with it before, would be let in still. Neither the nonce counts
    /// nor the time.
    pub(super) fn still_knows(&self, message: &Message<'_>) -> bool {
        let (Ok(Username(username)), Ok(Realm(realm))) = (required(message), required(message)) else { return false };
        self.verify(message, username, realm, 0, true).is_ok()
    }

    fn verify<'m>(
        &self,
        message: &Message<'_>,
        username: &'m str,
        realm: &str,
        unix: u64,
        established: bool,
    ) -> Result<Verified<'m>, Cause> {
        // In any case, so that the time which it takes tells nothing more. A key is made for a realm: with another one,
        // nothing can be said about the password.
        let verified = self.credentials.verify(message, username, unix, established);
        if realm == self.realm { verified } else { Err(Cause::WrongRealm) }
    }
}

fn required<'m, A: Attribute<'m>>(message: &Message<'m>) -> Result<A, Rejection> {
    message.attribute().ok().flatten().ok_or(Rejection::Incomplete)
}
