//! Who sends a request (RFC 8489 section 9.2.4).

use super::credentials::{Credentials, Verified};
use super::effect::Now;
use super::nonce::{NonceText, Nonces};
use crate::address::ClientAddr;
use crate::stun::attribute::{Attribute, Nonce, Realm, Username};
use crate::stun::{ErrorCode, Message};

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

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has some of what it must have, but not all.
    Incomplete,
    /// The client may try (again) with this realm and nonce.
    Challenge(ErrorCode, NonceText),
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
    ) -> Result<Authenticated<'m>, Refusal> {
        let challenge = |code| Refusal::Challenge(code, self.nonces.issue(now.unix, client));
        if !message.has_integrity() {
            return Err(challenge(ErrorCode::UNAUTHENTICATED));
        }
        let Username(username) = required(message)?;
        let Realm(realm) = required(message)?;
        let Nonce(nonce) = required(message)?;
        let credential = self
            .credentials
            .verify(message, username, now.unix, established == Some(username))
            .filter(|_| realm == self.realm)
            .ok_or_else(|| challenge(ErrorCode::UNAUTHENTICATED))?;
        if !self.nonces.is_valid(nonce, now.unix, client) {
            return Err(challenge(ErrorCode::STALE_NONCE));
        }
        Ok(Authenticated { username, credential })
    }
}

fn required<'m, A: Attribute<'m>>(message: &Message<'m>) -> Result<A, Refusal> {
    message.attribute().ok().flatten().ok_or(Refusal::Incomplete)
}
