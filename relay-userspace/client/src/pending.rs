//! A request on its way, from the first datagram to the final answer.

use std::time::Instant;

use hairpin_proto::address::Transport;
use hairpin_proto::stun::attribute::Software;
use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};

use crate::challenge::{Challenge, Signature};
use crate::request::Request;
use crate::session::RequestId;
use crate::timing::{Retransmission, Timing};

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Caller(RequestId),
    Renewal,
}

/// A request that has no final answer yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) origin: Origin,
    pub(crate) request: Request,
    pub(crate) transaction: TransactionId,
    /// The message, for retransmission.
    pub(crate) message: Vec<u8>,
    pub(crate) retransmission: Retransmission,
    /// What it was signed with; `None` if it was not.
    pub(crate) signed: Option<Signature>,
    /// How many 401 and 438 it has met.
    pub(crate) challenges: u32,
    /// Whether an answer was thrown away for want of authenticity.
    pub(crate) violated: bool,
}

/// What all messages of a session have in common.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) software: Option<String>,
    pub(crate) fingerprint: bool,
    pub(crate) timing: Timing,
    pub(crate) transport: Transport,
}

impl Style {
    fn timer(&self, now: Instant) -> Retransmission {
        if self.transport.is_stream() {
            Retransmission::reliable(self.timing, now)
        } else {
            Retransmission::new(self.timing, now)
        }
    }
}

impl Pending {
    pub(crate) fn new(
        origin: Origin,
        request: Request,
        transaction: TransactionId,
        challenge: Option<&Challenge>,
        style: &Style,
        now: Instant,
    ) -> Self {
        let mut pending = Self {
            origin,
            request,
            transaction,
            message: Vec::new(),
            retransmission: style.timer(now),
            signed: None,
            challenges: 0,
            violated: false,
        };
        pending.write(challenge, style);
        pending
    }

    /// Starts over as a new transaction, because of a challenge (RFC 8489 section 9.2.5).
    pub(crate) fn restart(
        &mut self,
        transaction: TransactionId,
        challenge: Option<&Challenge>,
        style: &Style,
        now: Instant,
    ) {
        self.transaction = transaction;
        self.challenges += 1;
        self.retransmission = style.timer(now);
        self.write(challenge, style);
    }

    fn write(&mut self, challenge: Option<&Challenge>, style: &Style) {
        self.message.clear();
        let builder = MessageBuilder::new(&mut self.message, Class::Request, self.request.method(), self.transaction);
        let builder = self.request.write(builder).with_option(style.software.as_deref().map(Software).as_ref());
        // A Binding request to a TURN server is never authenticated (RFC 8656 section 5).
        let method = self.request.method();
        let challenge = challenge.filter(|_| method != Method::BINDING);
        let builder = match challenge {
            Some(challenge) => challenge.write(builder, method),
            None => builder,
        };
        builder.finish(style.fingerprint);
        self.signed = challenge.map(|challenge| challenge.signature().clone());
    }
}
