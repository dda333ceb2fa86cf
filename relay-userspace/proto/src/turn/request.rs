//! Authenticated requests and their answers.

use std::time::Instant;

use super::attributes::Unknown;
use super::effect::AllocationId;
use super::redirect::Alternatives;
use super::server::Server;
use crate::address::FiveTuple;
use crate::stun::attribute::{Attribute, Software, UnknownAttributes};
use crate::stun::{Class, ErrorCode, LongTermKey, Message, MessageBuilder, Method, TransactionId};

/// A request of a known user.
#[derive(Debug)]
pub(super) struct Request<'m> {
    pub(super) message: Message<'m>,
    pub(super) username: &'m str,
    pub(super) account: &'m str,
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
}

impl<'m> Request<'m> {
    /// An attribute that may be missing; 400 if its value makes no sense.
    pub(super) fn optional<A: Attribute<'m>>(&self) -> Result<Option<A>, ErrorCode> {
        self.message.attribute().map_err(|_| ErrorCode::BAD_REQUEST)
    }

    /// An attribute that must be there; 400 if it is not, or makes no sense.
    pub(super) fn required<A: Attribute<'m>>(&self) -> Result<A, ErrorCode> {
        self.optional()?.ok_or(ErrorCode::BAD_REQUEST)
    }
}

impl Server {
    /// The allocation that a request is about (RFC 8656 section 5): 437 without one, 441 if another user made it.
    ///
    /// The whole username counts. A client that has got a fresh credential for a user keeps the one that it has
    /// allocated with, as RFC 8656 section 5 demands and as other servers expect.
    pub(super) fn allocation_of(&self, request: &Request<'_>) -> Result<AllocationId, ErrorCode> {
        let (id, allocation) =
            self.allocations.of_client(&request.reply.five_tuple).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        if *allocation.username == *request.username { Ok(id) } else { Err(ErrorCode::WRONG_CREDENTIALS) }
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
                .with_integrity(&reply.key)
                .finish(reply.fingerprint);
        });
        // In a stream nothing is lost, and nothing comes again.
        if !reply.five_tuple.transport.is_stream() {
            self.retransmissions.keep(now, reply.five_tuple, reply.id, reply.digest, response);
        }
        self.counts.count_success(reply.method);
    }

    /// Answers a request that was not carried out.
    pub(super) fn fail(&mut self, reply: &ReplyTo, code: ErrorCode, unknown: Unknown) {
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
                .with_integrity(&reply.key)
                .finish(reply.fingerprint);
        });
        self.counts.count_error(reply.method, code);
    }
}
