//! Who sends a request (RFC 8489 section 9.2.4, RFC 7635).

use std::borrow::Cow;

use super::cause::Cause;
use super::credentials::account_of;
use super::directory::Subject;
use super::effect::Now;
use super::identity::{AtHand, Denial, Established, Proof, Search, Sender};
use super::known::Known;
use super::nonce::{NonceText, Nonces};
use super::realm::Realm;
use crate::address::FiveTuple;
use crate::stun::attribute::{
    Attribute, Nonce, PasswordAlgorithmAttribute, PasswordAlgorithms, Realm as RealmAttribute, UserHash, Username,
};
use crate::stun::{ErrorCode, Integrity, Message, PasswordAlgorithm, SecurityFeatures};

/// Lets requests in, or says why not. Has no memory of anybody but what was answered.
#[derive(Debug)]
pub(super) struct Authenticator {
    pub(super) nonces: Nonces,
    pub(super) known: Known,
}

/// Who was let in.
#[derive(Clone, Debug)]
pub(super) struct Authenticated<'m> {
    pub(super) username: Cow<'m, str>,
    /// Whether the username begins with an expiry.
    expires: bool,
    pub(super) proof: Proof,
}

impl Authenticated<'_> {
    /// Whose quota counts.
    pub(super) fn account(&self) -> &str {
        if self.expires { account_of(&self.username) } else { &self.username }
    }
}

/// Why a request was not let in.
#[derive(Clone, Debug)]
pub(super) enum Rejection {
    /// It has some of what it must have, but not all, or what does not go together.
    Malformed(Cause),
    /// It has no credentials. It may be tried with the realm and this nonce, as with those of the next two.
    Anonymous(NonceText),
    /// Its credentials are wrong. The client is not told why. Whether it has shown that it receives at its address: by a
    /// nonce of ours.
    Wrong(Cause, NonceText, bool),
    /// Its credentials are right, or are not looked at before its nonce is.
    Stale(NonceText),
    /// Somebody has to be asked first.
    Ask(Subject),
    /// Somebody was, and could not tell.
    Unavailable,
}

impl Rejection {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(_) => ErrorCode::BAD_REQUEST,
            Self::Anonymous(_) | Self::Wrong(..) => ErrorCode::UNAUTHENTICATED,
            Self::Stale(_) => ErrorCode::STALE_NONCE,
            Self::Ask(_) | Self::Unavailable => ErrorCode::SERVER_ERROR,
        }
    }

    /// Why the request is refused, unless it is only asked to come again.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Self::Malformed(cause) | Self::Wrong(cause, ..) => Some(*cause),
            Self::Ask(_) | Self::Unavailable => Some(Cause::UsersUnavailable),
            Self::Anonymous(_) | Self::Stale(_) => None,
        }
    }

    /// Whether the client has shown that it receives at its address.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self, Self::Wrong(.., true) | Self::Unavailable)
    }

    pub(super) fn nonce(&self) -> Option<&NonceText> {
        match self {
            Self::Malformed(_) | Self::Ask(_) | Self::Unavailable => None,
            Self::Anonymous(nonce) | Self::Wrong(_, nonce, _) | Self::Stale(nonce) => Some(nonce),
        }
    }
}

impl Authenticator {
    /// Checks in the order of the RFC, so a nonce is only called stale in front of who knows the password. Where users
    /// have to be asked for it is the other way round: nobody is asked for who has not shown that it receives at its
    /// address.
    pub(super) fn authenticate<'m>(
        &self,
        now: Now,
        (five_tuple, realm): (&FiveTuple, &Realm),
        message: &Message<'m>,
        established: Option<Established<'_>>,
        at_hand: Option<AtHand<'_>>,
    ) -> Result<Authenticated<'m>, Rejection> {
        let client = five_tuple.client;
        let fresh = || self.nonces.issue(now.unix, client, features(realm));
        let Some(integrity) = message.integrity() else { return Err(Rejection::Anonymous(fresh())) };
        let sender = sender(message)?;
        let RealmAttribute(named) = required(message)?;
        let Nonce(nonce) = required(message)?;
        let algorithm = algorithm(message, nonce)?;
        let is_current = self.nonces.is_valid(nonce, now.unix, client) && offers(nonce, features(realm));
        // Who speaks of password algorithms was offered some, and a nonce that says otherwise is not as it was.
        let speaks_of_them = message.find(PasswordAlgorithmAttribute::TYPE).is_some();
        let was_changed = speaks_of_them && !offers(nonce, OFFERS_ALGORITHMS);
        if !is_current && (realm.asks_for_users || was_changed) {
            return Err(Rejection::Stale(fresh()));
        }
        let search = Search { now, is_timed: true, realm, message, sender, algorithm, established, at_hand };
        // In any case, so that the time which it takes tells nothing more. A key is made for a realm: with another one,
        // nothing can be said about the password.
        let found = self.find(&search);
        let found = if *named == *realm.name { found } else { Err(Cause::WrongRealm.into()) };
        let (username, expires, mut proof) = found.map_err(|denial| match denial {
            Denial::Wrong(cause) => Rejection::Wrong(cause, fresh(), is_current),
            Denial::Ask(subject) => Rejection::Ask(subject),
            Denial::Unavailable => Rejection::Unavailable,
        })?;
        if !is_current {
            return Err(Rejection::Stale(fresh()));
        }
        // Who speaks of password algorithms knows SHA-256 (RFC 8489 section 9.2.4).
        proof.integrity = if speaks_of_them { Integrity::Sha256 } else { integrity };
        Ok(Authenticated { username, expires, proof })
    }

    /// Whether who has sent this message, and was let in with it before, would be let in still. Neither the nonce counts
    /// nor the time.
    pub(super) fn still_knows(
        &self,
        now: Now,
        realm: &Realm,
        message: &Message<'_>,
        established: Option<Established<'_>>,
    ) -> bool {
        let (Ok(sender), Ok(RealmAttribute(named)), Ok(Nonce(nonce))) =
            (sender(message), required(message), required(message))
        else {
            return false;
        };
        let Ok(algorithm) = algorithm(message, nonce) else { return false };
        let search = Search { now, is_timed: false, realm, message, sender, algorithm, established, at_hand: None };
        *named == *realm.name && self.find(&search).is_ok()
    }
}

/// What a realm's clients are told that they may use (RFC 8489 section 9.2).
fn features(realm: &Realm) -> SecurityFeatures {
    SecurityFeatures { password_algorithms: realm.offers_sha256, username_anonymity: realm.offers_anonymity }
}

/// Whether a nonce has told all of these. One of a realm that offers less, or of a time when this one did, is no way to have
/// a client bid less than it could.
fn offers(nonce: &str, features: SecurityFeatures) -> bool {
    let told = Nonces::features(nonce).unwrap_or_default();
    (told.password_algorithms || !features.password_algorithms)
        && (told.username_anonymity || !features.username_anonymity)
}

const OFFERS_ALGORITHMS: SecurityFeatures = SecurityFeatures { password_algorithms: true, username_anonymity: false };

/// What clients may make their keys by, where they are offered anything but MD5.
pub(super) const OFFERED: PasswordAlgorithms<'static> = PasswordAlgorithms::SHA256_AND_MD5;

fn sender<'m>(message: &Message<'m>) -> Result<Sender<'m>, Rejection> {
    let incomplete = || Rejection::Malformed(Cause::IncompleteCredentials);
    let name = message.attribute().map_err(|_| incomplete())?;
    let hash = message.attribute().map_err(|_| incomplete())?;
    match (name, hash) {
        (Some(Username(name)), None) => Ok(Sender::Name(name)),
        (None, Some(UserHash(hash))) => Ok(Sender::Hash(hash)),
        _ => Err(incomplete()),
    }
}

/// What the key was made by. Who was offered algorithms says which it has chosen, and what it was offered: so nobody on the
/// way has taken the better one out (RFC 8489 section 9.2.4). That it was offered is in the nonce, which nobody can change.
fn algorithm(message: &Message<'_>, nonce: &str) -> Result<PasswordAlgorithm, Rejection> {
    let was_offered = Nonces::features(nonce).is_some_and(|features| features.password_algorithms);
    let chosen = message.find(PasswordAlgorithmAttribute::TYPE);
    let seen = message.find(PasswordAlgorithms::TYPE);
    if !was_offered || chosen.is_none() && seen.is_none() {
        return Ok(PasswordAlgorithm::Md5);
    }
    let bid_down = || Rejection::Malformed(Cause::BidDown);
    let chosen = message.attribute().ok().flatten().and_then(|PasswordAlgorithmAttribute(chosen)| chosen.algorithm());
    let is_as_offered = seen == Some(OFFERED.as_bytes());
    chosen.filter(|_| is_as_offered).ok_or_else(bid_down)
}

fn required<'m, A: Attribute<'m>>(message: &Message<'m>) -> Result<A, Rejection> {
    message.attribute().ok().flatten().ok_or(Rejection::Malformed(Cause::IncompleteCredentials))
}
