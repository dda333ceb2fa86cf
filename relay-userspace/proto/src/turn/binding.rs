//! Binding (RFC 8489 section 12, RFC 5780 section 6.1): for everybody, and therefore as short as can be.

use super::attributes::KNOWN;
use super::cause::Cause;
use super::discovery::Probe;
use super::refusal::{Refusal, is_connected};
use super::server::Server;
use crate::address::FiveTuple;
use crate::stun::Unknown;
use crate::stun::attribute::{MappedAddress, OtherAddress, ResponseOrigin, UnknownAttributes, XorMappedAddress};
use crate::stun::{Class, Message, MessageBuilder, Method};

impl Server {
    pub(super) fn binding(&mut self, five_tuple: FiveTuple, message: &Message<'_>) {
        let understood = self.discovery.as_ref().map_or(&[][..], |discovery| discovery.understood(&five_tuple));
        let unknown = Unknown::beyond(message, [KNOWN, understood]);
        let probe = match &self.discovery {
            _ if !unknown.is_empty() => Err(Cause::UnknownAttribute),
            Some(discovery) => discovery.probe(five_tuple, message).map(Some),
            None => Ok(None),
        };
        match probe {
            Ok(probe) => self.tell_address(five_tuple, message, probe),
            Err(cause) => self.refuse_binding(five_tuple, message, cause, unknown),
        }
    }

    fn tell_address(&mut self, five_tuple: FiveTuple, message: &Message<'_>, probe: Option<Probe>) {
        let Self { outbox, translation, .. } = self;
        let client = five_tuple.client.socket();
        outbox.respond(probe.map_or(five_tuple, |probe| probe.five_tuple), |buffer| {
            let response = MessageBuilder::new(buffer, Class::Success, Method::BINDING, message.transaction_id())
                .with(&XorMappedAddress(client));
            let response = match probe {
                Some(Probe { five_tuple, other, padding }) => response
                    .with(&MappedAddress(client))
                    .with(&ResponseOrigin(translation.outside(five_tuple.server.socket())))
                    .with_option(other.map(|other| OtherAddress(translation.outside(other))).as_ref())
                    .with_option(padding.as_ref()),
                None => response,
            };
            response.finish(message.has_fingerprint());
        });
        self.counts.count_success(Method::BINDING);
    }

    /// An error goes the way that the request has come, wherever its answer should have gone.
    fn refuse_binding(&mut self, five_tuple: FiveTuple, message: &Message<'_>, cause: Cause, unknown: Unknown) {
        let (method, code) = (Method::BINDING, cause.code());
        self.outbox.respond(five_tuple, |buffer| {
            let unknown = (!unknown.is_empty()).then(|| UnknownAttributes(unknown.types()));
            MessageBuilder::error(buffer, method, message.transaction_id(), code)
                .with_option(unknown.as_ref())
                .finish(message.has_fingerprint());
        });
        let is_proven = is_connected(&five_tuple);
        self.refused(Refusal { five_tuple, method, code, cause, is_proven, username: None, peer: None });
    }
}
