//! Requests that are refused: each error response, and what the operator is told behind it.

use super::authentication::{OFFERED, Rejection};
use super::cause::Cause;
use super::realm::Realm;
use super::redirect::Alternatives;
use super::request::ReplyTo;
use super::server::Server;
use crate::address::{FiveTuple, PeerAddr, Transport};
use crate::stun::Unknown;
use crate::stun::attribute::{
    Nonce, Realm as RealmAttribute, Software, ThirdPartyAuthorization, UnknownAttributes, Username,
};
use crate::stun::{ErrorCode, Message, MessageBuilder, Method};

/// A request that was answered by an error. The first request of a client, which has no credentials yet, and one with a
/// nonce that has aged are not refused: the client goes on with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'s> {
    /// Who asked, and where.
    pub five_tuple: FiveTuple,
    /// What was asked for.
    pub method: Method,
    /// What the client was told.
    pub code: ErrorCode,
    /// Why.
    pub cause: Cause,
    /// Whether the client receives at its address, as far as that was shown. Others may have forged it.
    pub is_proven: bool,
    /// Who the client says it is. Proven, unless the code is 401 or the cause [`Cause::IncompleteCredentials`].
    pub username: Option<&'s str>,
    /// The peer that the cause is about.
    pub peer: Option<PeerAddr>,
}

impl Refusal<'_> {
    /// All but the username.
    pub(super) fn anonymous(self) -> Refusal<'static> {
        let Self { five_tuple, method, code, cause, is_proven, username: _, peer } = self;
        Refusal { five_tuple, method, code, cause, is_proven, username: None, peer }
    }
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    cause: Cause,
    code: ErrorCode,
    peer: Option<PeerAddr>,
}

impl From<Cause> for Denied {
    fn from(cause: Cause) -> Self {
        Self { cause, code: cause.code(), peer: None }
    }
}

impl Denied {
    /// There is another server for the client.
    pub(super) fn elsewhere(cause: Cause) -> Self {
        Self { code: ErrorCode::TRY_ALTERNATE, ..cause.into() }
    }

    /// Says which peer it is about.
    pub(super) fn at(cause: Cause, peer: PeerAddr) -> Self {
        Self { peer: Some(peer), ..cause.into() }
    }
}

impl Server {
    /// How many requests were refused so far, by [`Cause`].
    pub fn refusals(&self) -> &[u64; Cause::COUNT] {
        &self.refusals
    }

    /// Answers a request of a known user that was not carried out.
    pub(super) fn fail(&mut self, reply: &ReplyTo, username: &str, denied: Denied, unknown: Unknown) {
        let Denied { cause, code, peer } = denied;
        let software = self.software.as_deref().map(Software);
        let alternatives = match code {
            ErrorCode::TRY_ALTERNATE => self.redirect.pick(&reply.five_tuple, &self.translation),
            _ => Alternatives::default(),
        };
        self.outbox.respond(reply.five_tuple, |buffer| {
            let unknown = (!unknown.is_empty()).then(|| UnknownAttributes(unknown.types()));
            MessageBuilder::error(buffer, reply.method, reply.id, code)
                .with_option(unknown.as_ref())
                .with_option(alternatives.first.as_ref())
                .with_option(alternatives.second.as_ref())
                .with_option(alternatives.domain.as_ref())
                .with_option(software.as_ref())
                .with_integrity(&reply.key, reply.integrity)
                .finish(reply.fingerprint);
        });
        let (five_tuple, method) = (reply.five_tuple, reply.method);
        let is_proven = true;
        self.refused(Refusal { five_tuple, method, code, cause, is_proven, username: Some(username), peer });
    }

    /// Answers a request that was not let in. Whoever sent it may have forged its address, so the answer is short. The
    /// cause is for the operator alone.
    pub(super) fn reject(
        &mut self,
        five_tuple: FiveTuple,
        realm: &Realm,
        message: &Message<'_>,
        rejection: &Rejection,
    ) {
        let (method, code) = (message.method(), rejection.code());
        let nonce = rejection.nonce();
        let audience = realm.token_audience.as_deref().filter(|_| nonce.is_some()).map(ThirdPartyAuthorization);
        let challenge = nonce.map(|nonce| (RealmAttribute(&realm.name), Nonce(nonce.as_str())));
        let (named, nonce) = challenge.unzip();
        let algorithms = (nonce.is_some() && realm.offers_sha256).then_some(OFFERED);
        self.outbox.respond(five_tuple, |buffer| {
            MessageBuilder::error(buffer, method, message.transaction_id(), code)
                .with_option(named.as_ref())
                .with_option(nonce.as_ref())
                .with_option(algorithms.as_ref())
                .with_option(audience.as_ref())
                .finish(message.has_fingerprint());
        });
        match rejection.cause() {
            Some(cause) => {
                let username = message.attribute().ok().flatten().map(|Username(name)| name);
                let is_proven = rejection.is_proven() || is_connected(&five_tuple);
                self.refused(Refusal { five_tuple, method, code, cause, is_proven, username, peer: None });
            }
            None => self.counts.count_error(method, code),
        }
    }

    /// Says that the response which was queued last is an error, and why.
    pub(super) fn refused(&mut self, refusal: Refusal<'_>) {
        self.counts.count_error(refusal.method, refusal.code);
        self.refusals[refusal.cause as usize] += 1;
        self.outbox.refuse(refusal);
    }
}

/// Whether somebody has answered at the client's address before it could ask for anything.
pub(super) fn is_connected(five_tuple: &FiveTuple) -> bool {
    five_tuple.transport != Transport::Udp
}
