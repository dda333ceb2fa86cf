//! Who sends a request (RFC 8489 section 9.2.4, RFC 7635).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::credentials::{account_of, expiry_and_name, signed_by_secret, signed_by_user};
use super::directory::{Answer, Grant, Question, Subject, User};
use super::effect::Now;
use super::known::Known;
use super::nonce::{NonceText, Nonces};
use super::realm::Realm;
use super::token::TokenKey;
use crate::address::FiveTuple;
use crate::stun::attribute::{
    AccessTokenAttribute, Attribute, Nonce, PasswordAlgorithmAttribute, PasswordAlgorithms, Realm as RealmAttribute,
    UserHash, Username,
};
use crate::stun::prepare::opaque_string;
use crate::stun::{ErrorCode, Integrity, LongTermKey, Message, PasswordAlgorithm, SecurityFeatures, user_hash};

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

/// What somebody was let in by.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// Signs the response,
    pub(super) key: LongTermKey,
    /// by this attribute.
    pub(super) integrity: Integrity,
    pub(super) grant: Grant,
    /// Whether somebody has been asked for the admission already.
    pub(super) is_admitted: bool,
    /// What is remembered with the allocation, so that nobody need be asked again; none of who is known in advance.
    pub(super) identity: Option<Identity>,
    /// What should be asked again, since it was known long ago.
    pub(super) outdated: Option<Subject>,
}

/// What an allocation remembers of its user.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    /// What was answered about it.
    Answered(Arc<Answer>),
    /// A token that it has shown.
    Token(Session),
}

/// What an access token says (RFC 7635 section 6.2).
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) key: LongTermKey,
    /// When it ends.
    pub(super) expires: Instant,
}

/// The allocation that a request is about: its user goes on by what it was let in with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Established<'s> {
    pub(super) username: &'s str,
    pub(super) identity: Option<&'s Identity>,
}

/// An answer that has just come for the message that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtHand<'s> {
    pub(super) question: &'s Question,
    pub(super) answer: &'s Arc<Answer>,
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

/// Why nobody is let in (yet).
enum Denial {
    Wrong(Cause),
    Ask(Subject),
    Unavailable,
}

impl From<Cause> for Denial {
    fn from(cause: Cause) -> Self {
        Self::Wrong(cause)
    }
}

/// How a request names its sender.
#[derive(Clone, Copy, Debug)]
enum Sender<'m> {
    Name(&'m str),
    Hash([u8; 32]),
}

/// All that the sender is looked for with.
struct Search<'s, 'm> {
    now: Now,
    /// Whether it counts what time it is: not for what was let in before.
    is_timed: bool,
    realm: &'s Realm,
    message: &'s Message<'m>,
    sender: Sender<'m>,
    algorithm: PasswordAlgorithm,
    established: Option<Established<'s>>,
    at_hand: Option<AtHand<'s>>,
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
        if realm.asks_for_users && !is_current {
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
        let speaks_of_them = message.find(PasswordAlgorithmAttribute::TYPE).is_some();
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

    fn find<'m>(&self, search: &Search<'_, 'm>) -> Result<(Cow<'m, str>, bool, Proof), Denial> {
        let Search { realm, message, sender, established, .. } = search;
        if let Some(audience) = &realm.token_audience
            && let (Sender::Name(name), Some(AccessTokenAttribute(token))) =
                (sender, message.attribute().ok().flatten())
        {
            let proof = self.by_token(search, name, token, audience)?;
            return Ok((Cow::Borrowed(name), false, proof));
        }
        if let Some(Established { username, identity: Some(Identity::Token(session)) }) = established
            && matches!(sender, Sender::Name(name) if name == username)
        {
            return Ok((Cow::Owned((*username).to_owned()), false, by_session(search, session)?));
        }
        match *sender {
            Sender::Name(name) => self.by_name(search, name),
            Sender::Hash(hash) => self.by_hash(search, hash),
        }
    }

    fn by_name<'m>(&self, search: &Search<'_, 'm>, name: &'m str) -> Result<(Cow<'m, str>, bool, Proof), Denial> {
        let Search { realm, message, algorithm, .. } = search;
        let credentials = &realm.credentials;
        let name = if credentials.user(name).is_some() { Cow::Borrowed(name) } else { opaque_string(name) };
        if let Some(user) = credentials.user(&name) {
            let proof = by_user(search, user)?;
            return Ok((name, false, proof));
        }
        let is_temporary = expiry_and_name(&name).is_some();
        let is_owner = search.is_owner(&name);
        if is_temporary && !credentials.secrets().is_empty() {
            let names = (&*name, &*realm.name);
            match signed_by_secret(message, credentials.secrets(), names, *algorithm, search.unix(), is_owner) {
                Ok(key) => {
                    let grant = credentials.granted(account_of(&name));
                    return Ok((name, true, Proof::new(key, grant)));
                }
                Err(Cause::WrongSecret) if realm.asks_for_users => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        if !realm.asks_for_users {
            return Err(Cause::UnknownUser.into());
        }
        let subject = Subject::User((*name).into());
        let (answer, outdated) = self.answer(search, subject, is_owner)?;
        let (expires, mut proof) = match &*answer {
            Answer::User(user) if *user.name == *name => (false, by_user(search, user)?),
            Answer::Secrets { secrets, grant } => {
                let names = (&*name, &*realm.name);
                let key = signed_by_secret(message, secrets, names, *algorithm, search.unix(), is_owner)?;
                (true, Proof::new(key, grant.clone()))
            }
            Answer::Unavailable => return Err(Denial::Unavailable),
            Answer::User(_) | Answer::TokenKey(_) | Answer::Admitted(_) | Answer::Refused => {
                return Err(Cause::UnknownUser.into());
            }
        };
        proof.identity = Some(Identity::Answered(answer));
        proof.outdated = outdated;
        Ok((name, expires, proof))
    }

    fn by_hash<'m>(&self, search: &Search<'_, 'm>, hash: [u8; 32]) -> Result<(Cow<'m, str>, bool, Proof), Denial> {
        let realm = search.realm;
        if let Some(user) = realm.credentials.user_of_hash(&hash) {
            let proof = by_user(search, user)?;
            return Ok((Cow::Owned(user.name.clone().into()), false, proof));
        }
        if !realm.asks_for_users {
            return Err(Cause::UnknownUser.into());
        }
        let is_owner =
            search.established.is_some_and(|established| user_hash(established.username, &realm.name) == hash);
        let (answer, outdated) = self.answer(search, Subject::UserHash(hash), is_owner)?;
        let user = match &*answer {
            Answer::User(user) if user_hash(&user.name, &realm.name) == hash => user,
            Answer::Unavailable => return Err(Denial::Unavailable),
            _ => return Err(Cause::UnknownUser.into()),
        };
        let mut proof = by_user(search, user)?;
        let username = user.name.clone().into();
        proof.identity = Some(Identity::Answered(answer));
        proof.outdated = outdated;
        Ok((Cow::Owned(username), false, proof))
    }

    /// What there is to know of a subject: just answered, or answered a while ago, or, for whom an allocation is there,
    /// what was answered at last, or what that was made with.
    fn answer(
        &self,
        search: &Search<'_, '_>,
        subject: Subject,
        is_owner: bool,
    ) -> Result<(Arc<Answer>, Option<Subject>), Denial> {
        let name = &search.realm.name;
        let is_it = |question: &Question| (&question.realm, &question.subject) == (name, &subject);
        let told = search.at_hand.filter(|at_hand| is_it(at_hand.question)).map(|at_hand| at_hand.answer);
        if let Some(answer) = told
            && !(is_owner && matches!(**answer, Answer::Unavailable))
        {
            return Ok((Arc::clone(answer), None));
        }
        let known = self.known.find(search.now.instant, name, &subject);
        if let Some((answer, is_fresh)) = known
            // Whoever has just been asked about something else was known when that began.
            && (is_fresh || search.at_hand.is_some())
        {
            return Ok((Arc::clone(answer), None));
        }
        // What has aged is newer than what the allocation remembers. Who was refused at last has to be asked about.
        let identity = match (known, search.established.and_then(|established| established.identity)) {
            (Some((answer, _)), _) if matches!(**answer, Answer::Refused) => None,
            (Some((answer, _)), Some(Identity::Answered(_))) | (None, Some(Identity::Answered(answer))) => Some(answer),
            (_, Some(Identity::Token(_)) | None) => None,
        };
        match (identity.filter(|_| is_owner), told) {
            (Some(answer), _) => Ok((Arc::clone(answer), Some(subject))),
            // Asked, and told that nobody knows: to ask again would not end.
            (None, Some(answer)) => Ok((Arc::clone(answer), None)),
            (None, None) => Err(Denial::Ask(subject)),
        }
    }

    fn by_token(&self, search: &Search<'_, '_>, name: &str, token: &[u8], audience: &str) -> Result<Proof, Denial> {
        let Search { realm, .. } = search;
        let grant = realm.credentials.granted(name);
        if let Some(key) = realm.credentials.token_key(name) {
            return by_opened(search, key, token, audience, grant);
        }
        if !realm.asks_for_users {
            return Err(Cause::UnknownTokenKey.into());
        }
        let (answer, _) = self.answer(search, Subject::TokenKey(name.into()), false)?;
        match &*answer {
            Answer::TokenKey(key) => by_opened(search, key, token, audience, grant),
            Answer::Unavailable => Err(Denial::Unavailable),
            _ => Err(Cause::UnknownTokenKey.into()),
        }
    }
}

impl Search<'_, '_> {
    /// The time that credentials expire by.
    fn unix(&self) -> u64 {
        if self.is_timed { self.now.unix } else { 0 }
    }

    /// Whether the allocation that the request is about was made under this name.
    fn is_owner(&self, name: &str) -> bool {
        self.established.is_some_and(|established| established.username == name)
    }
}

impl Proof {
    fn new(key: LongTermKey, grant: Grant) -> Self {
        Self { key, integrity: Integrity::Sha1, grant, is_admitted: false, identity: None, outdated: None }
    }

    /// How much longer the token is good that was shown; none: as long as one likes.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        match &self.identity {
            Some(Identity::Token(session)) => Some(session.expires.saturating_duration_since(now)),
            Some(Identity::Answered(_)) | None => None,
        }
    }
}

fn by_user(search: &Search<'_, '_>, user: &User) -> Result<Proof, Denial> {
    let key = signed_by_user(search.message, &user.keys, search.algorithm)?;
    Ok(Proof { is_admitted: user.is_admitted, ..Proof::new(key, user.grant.clone()) })
}

/// A token that was shown with this request.
fn by_opened(
    search: &Search<'_, '_>,
    key: &TokenKey,
    token: &[u8],
    audience: &str,
    grant: Grant,
) -> Result<Proof, Denial> {
    let opened = key.open(token, audience).map_err(|_| Cause::BadToken)?;
    let session_key = opened.mac_key.to_key();
    if !search.message.verify_integrity(&session_key) {
        return Err(Cause::BadToken.into());
    }
    let remaining = opened.remaining(search.now.unix).filter(lasts);
    let remaining = remaining.or((!search.is_timed).then_some(Duration::ZERO)).ok_or(Cause::ExpiredToken)?;
    let session = Session { key: session_key.clone(), expires: search.now.instant + remaining };
    Ok(Proof { identity: Some(Identity::Token(session)), ..Proof::new(session_key, grant) })
}

/// Lifetimes are in whole seconds: what is left of a token has to be one at least.
fn lasts(remaining: &Duration) -> bool {
    remaining.as_secs() > 0
}

/// A token that was shown before.
fn by_session(search: &Search<'_, '_>, session: &Session) -> Result<Proof, Denial> {
    if !search.message.verify_integrity(&session.key) {
        return Err(Cause::BadToken.into());
    }
    if search.is_timed && !lasts(&session.expires.saturating_duration_since(search.now.instant)) {
        return Err(Cause::ExpiredToken.into());
    }
    let identity = Some(Identity::Token(session.clone()));
    Ok(Proof { identity, ..Proof::new(session.key.clone(), Grant::default()) })
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
