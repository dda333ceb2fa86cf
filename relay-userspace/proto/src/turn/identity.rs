//! Who has signed a request: looked for among those who are known in advance, among tokens, and among what was answered.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::authentication::Authenticator;
use super::cause::Cause;
use super::credentials::{account_of, expiry_and_name, signed_by_secret, signed_by_user};
use super::directory::{Answer, Grant, Question, Subject, User};
use super::effect::Now;
use super::realm::Realm;
use super::token::TokenKey;
use crate::stun::attribute::AccessTokenAttribute;
use crate::stun::{Integrity, LongTermKey, Message, PasswordAlgorithm, user_hash};

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
    /// The name of the token's key, which is the username of requests.
    pub(super) name: Box<str>,
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

/// Why nobody is let in (yet).
pub(super) enum Denial {
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
pub(super) enum Sender<'m> {
    Name(&'m str),
    Hash([u8; 32]),
}

/// All that the sender is looked for with.
pub(super) struct Search<'s, 'm> {
    pub(super) now: Now,
    /// Whether it counts what time it is: not for what was let in before.
    pub(super) is_timed: bool,
    pub(super) realm: &'s Realm,
    pub(super) message: &'s Message<'m>,
    pub(super) sender: Sender<'m>,
    pub(super) algorithm: PasswordAlgorithm,
    pub(super) established: Option<Established<'s>>,
    pub(super) at_hand: Option<AtHand<'s>>,
}

impl Authenticator {
    /// Finds the sender: its username, whether that begins with an expiry, and what lets it in.
    pub(super) fn find<'m>(&self, search: &Search<'_, 'm>) -> Result<(Cow<'m, str>, bool, Proof), Denial> {
        let Search { realm, message, sender, established, .. } = search;
        if let Some(audience) = &realm.token_audience
            && let (Sender::Name(name), Some(AccessTokenAttribute(token))) =
                (sender, message.attribute().ok().flatten())
        {
            let proof = self.by_token(search, name, token, audience)?;
            return Ok((Cow::Borrowed(name), false, proof));
        }
        if let Some(Established { identity: Some(Identity::Token(session)), .. }) = established
            && let Sender::Name(name) = sender
            && **name == *session.name
        {
            return Ok((Cow::Borrowed(name), false, by_session(search, session)?));
        }
        match *sender {
            Sender::Name(name) => self.by_name(search, name),
            Sender::Hash(hash) => self.by_hash(search, hash),
        }
    }

    fn by_name<'m>(&self, search: &Search<'_, 'm>, name: &'m str) -> Result<(Cow<'m, str>, bool, Proof), Denial> {
        let Search { realm, message, algorithm, .. } = search;
        let credentials = &realm.credentials;
        if let Some(user) = credentials.user(name) {
            let proof = by_user(search, user)?;
            return Ok((Cow::Borrowed(name), false, proof));
        }
        let is_temporary = expiry_and_name(name).is_some();
        let is_owner = search.is_owner(name);
        if is_temporary && !credentials.secrets().is_empty() {
            let names = (name, &*realm.name);
            match signed_by_secret(message, credentials.secrets(), names, *algorithm, search.unix(), is_owner) {
                Ok(key) => {
                    let grant = credentials.granted(account_of(name));
                    return Ok((Cow::Borrowed(name), true, Proof::new(key, grant)));
                }
                Err(Cause::WrongSecret) if realm.asks_for_users => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        if !realm.asks_for_users {
            return Err(Cause::UnknownUser.into());
        }
        let subject = Subject::User(name.into());
        let (answer, outdated) = self.answer(search, subject, is_owner)?;
        let found = match &*answer {
            Answer::User(user) if *user.name == *name => by_user(search, user).map(|proof| (false, proof)),
            Answer::Secrets { secrets, grant } => {
                let names = (name, &*realm.name);
                signed_by_secret(message, secrets, names, *algorithm, search.unix(), is_owner)
                    .map(|key| (true, Proof::new(key, grant.clone())))
                    .map_err(Denial::from)
            }
            Answer::Unavailable => Err(Denial::Unavailable),
            Answer::User(_) | Answer::TokenKey(_) | Answer::Admitted(_) | Answer::Refused => {
                Err(Cause::UnknownUser.into())
            }
        };
        let (expires, mut proof) = found.map_err(|denial| search.by_old_answer(denial, outdated.as_ref()))?;
        proof.identity = Some(Identity::Answered(answer));
        proof.outdated = outdated;
        Ok((Cow::Borrowed(name), expires, proof))
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
        let found = by_user(search, user);
        let mut proof = found.map_err(|denial| search.by_old_answer(denial, outdated.as_ref()))?;
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
        // What has aged is newer than what the allocation remembers.
        let identity = match (known, search.established.and_then(|established| established.identity)) {
            (Some((answer, _)), Some(Identity::Answered(_))) | (None, Some(Identity::Answered(answer))) => Some(answer),
            (_, Some(Identity::Token(_)) | None) => None,
        };
        match (identity.filter(|_| is_owner), told) {
            (Some(answer), _) => Ok((Arc::clone(answer), Some(subject))),
            // Asked, and told that nobody knows: to ask again would not end.
            (None, Some(answer)) => Ok((Arc::clone(answer), None)),
            // Nor where the answer had to make way for the one about its admission, which would make way in turn.
            (None, None) if search.asks_for_admission() => Err(Denial::Unavailable),
            (None, None) => Err(Denial::Ask(subject)),
        }
    }

    fn by_token(&self, search: &Search<'_, '_>, name: &str, token: &[u8], audience: &str) -> Result<Proof, Denial> {
        let Search { realm, .. } = search;
        if let Some(key) = realm.credentials.token_key(name) {
            return by_opened(search, (name, key), token, audience);
        }
        if !realm.asks_for_users {
            return Err(Cause::UnknownTokenKey.into());
        }
        let (answer, _) = self.answer(search, Subject::TokenKey(name.into()), false)?;
        match &*answer {
            Answer::TokenKey(key) => by_opened(search, (name, key), token, audience),
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

    /// Whether an admission was asked for, so that the sender had proven itself before.
    fn asks_for_admission(&self) -> bool {
        let Some(AtHand { question, .. }) = self.at_hand else { return false };
        let is_here = self.realm.asks_for_admission && question.realm == self.realm.name;
        is_here && matches!(question.subject, Subject::Admission { .. })
    }

    /// Who is not let in by what was answered long ago may be by what would be answered now: the password was changed, or the
    /// realm has another name, which keys are made with.
    fn by_old_answer(&self, denial: Denial, outdated: Option<&Subject>) -> Denial {
        match (denial, outdated) {
            (Denial::Wrong(_), Some(subject)) if self.at_hand.is_none() => Denial::Ask(subject.clone()),
            (Denial::Wrong(_), Some(_)) => Denial::Unavailable,
            (denial, _) => denial,
        }
    }

    /// Whether the allocation that the request is about was made under this name.
    fn is_owner(&self, name: &str) -> bool {
        self.established.is_some_and(|established| established.username == name)
    }
}

impl Identity {
    pub(super) fn is_token(&self) -> bool {
        matches!(self, Self::Token(_))
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
    (name, key): (&str, &TokenKey),
    token: &[u8],
    audience: &str,
) -> Result<Proof, Denial> {
    let opened = key.open(token, audience).map_err(|_| Cause::BadToken)?;
    let keys = [Some(opened.mac_key.to_key()), opened.mac_key.to_key_of_coturn()];
    let signed = keys.into_iter().flatten().find(|key| search.message.verify_integrity(key));
    let session_key = signed.ok_or(Cause::BadToken)?;
    let remaining = opened.remaining(search.now.unix).filter(lasts);
    let remaining = remaining.or((!search.is_timed).then_some(Duration::ZERO)).ok_or(Cause::ExpiredToken)?;
    let session = Session { name: name.into(), key: session_key.clone(), expires: search.now.instant + remaining };
    let grant = search.realm.credentials.granted(name);
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
