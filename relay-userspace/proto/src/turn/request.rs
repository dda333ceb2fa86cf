//! Authenticated requests and their answers.

use std::sync::Arc;
use std::time::Instant;

use super::allocation::Allocation;
use super::cause::Cause;
use super::effect::AllocationId;
use super::identity::{Identity, Proof};
use super::realm::Realm;
use super::server::Server;
use crate::address::FiveTuple;
use crate::stun::attribute::{Attribute, Software};
use crate::stun::{Class, Integrity, LongTermKey, Message, MessageBuilder, Method, TransactionId};

/// A request of a known user.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) message: Message<'m>,
    pub(super) username: &'m str,
    pub(super) account: &'m str,
    pub(super) realm: &'m Arc<Realm>,
    pub(super) proof: &'m Proof,
    pub(super) reply: ReplyTo,
}

/// All that is needed to answer a request, now or later.
#[derive(Clone, Debug)]
pub(super) struct ReplyTo {
    pub(super) five_tuple: FiveTuple,
    pub(super) method: Method,
    pub(super) id: TransactionId,
    /// Of the request's bytes, to recognise a retransmission.
    pub(super) digest: u64,
    /// Whether the request had a FINGERPRINT; then the answer has one.
    pub(super) fingerprint: bool,
    pub(super) key: LongTermKey,
    /// Which of the two attributes signs the answer.
    pub(super) integrity: Integrity,
}

impl<'m> Request<'m> {
    /// An attribute that may be missing; 400 if its value makes no sense.
    pub(super) fn optional<A: Attribute<'m>>(&self) -> Result<Option<A>, Cause> {
        self.message.attribute().map_err(|_| Cause::MalformedAttribute)
    }

    /// An attribute that must be there; 400 if it is not, or makes no sense.
    pub(super) fn required<A: Attribute<'m>>(&self) -> Result<A, Cause> {
        self.optional()?.ok_or(Cause::MissingAttribute)
    }
}

impl Server {
    /// The allocation that a request is about (RFC 8656 section 5): 437 without one, 441 if another user made it.
    ///
    /// The whole username counts. A client that has got a fresh credential for a user keeps the one that it has
    /// allocated with, as RFC 8656 section 5 demands and as other servers expect.
    pub(super) fn allocation_of(&self, request: &Request<'_>) -> Result<AllocationId, Cause> {
        let (id, allocation) = self.allocations.of_client(&request.reply.five_tuple).ok_or(Cause::NoAllocation)?;
        if self.is_of_user(allocation, request) { Ok(id) } else { Err(Cause::WrongUser) }
    }

    /// Whether an allocation was made by who sends the request. A namesake in another realm is somebody else, as long as there
    /// is that realm; where it has another name now, its users go on.
    pub(super) fn is_of_user(&self, allocation: &Allocation, request: &Request<'_>) -> bool {
        // With another token may come another key, and with it another name.
        let shows_tokens = [&allocation.identity, &request.proof.identity]
            .into_iter()
            .all(|identity| identity.as_ref().is_some_and(Identity::is_token));
        let is_same = *allocation.username == *request.username || shows_tokens;
        is_same && !self.is_of_other_realm(allocation, request.realm)
    }

    pub(super) fn is_of_other_realm(&self, allocation: &Allocation, realm: &Realm) -> bool {
        let made_in = allocation.lease.realm();
        **made_in != *realm.name && self.realms.find(made_in).is_some()
    }

    /// Answers a request that was carried out, and remembers the answer.
    pub(super) fn succeed(
        &mut self,
        now: Instant,
        reply: &ReplyTo,
        attributes: impl FnOnce(MessageBuilder<'_>) -> MessageBuilder<'_>,
    ) {
        let software = self.software.as_deref().map(Software);
        let response = self.outbox.respond(reply.five_tuple, |buffer| {
            attributes(MessageBuilder::new(buffer, Class::Success, reply.method, reply.id))
                .with_option(software.as_ref())
                .with_integrity(&reply.key, reply.integrity)
                .finish(reply.fingerprint);
        });
        // In a stream nothing is lost, and nothing comes again.
        if !reply.five_tuple.transport.is_stream() {
            self.retransmissions.keep(now, reply.five_tuple, reply.id, reply.digest, response);
        }
        self.counts.count_success(reply.method);
    }
}
