//! What a shard remembers of a request until a span is made of it.

use std::net::SocketAddr;

use hairpin_proto::address::{AddressFamily, Transport};
use hairpin_proto::stun::attribute::ErrorCodeAttribute;
use hairpin_proto::stun::{Class, ErrorCode, Message, Method};
use hairpin_proto::turn::Cause;

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// What was asked for.
    pub method: Method,
    /// The code of an error; none: success.
    pub code: Option<ErrorCode>,
}

impl Response {
    /// Of a message of the server's. `None` for an indication, and for Binding: those are probes without end.
    pub fn of(message: &[u8]) -> Option<Self> {
        let message = Message::parse(message).ok()?;
        let method = message.method();
        let code = match message.class() {
            _ if method == Method::BINDING => return None,
            Class::Success => None,
            Class::Error => Some(message.attribute::<ErrorCodeAttribute<'_>>().ok()??.code),
            Class::Request | Class::Indication => return None,
        };
        Some(Self { method, code })
    }
}

/// A request with its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// How it was answered.
    pub response: Response,
    /// Why it was refused. None for a success, and for what every client is told once: the first challenge, a stale nonce.
    pub cause: Option<Cause>,
    /// How the client reaches the relay.
    pub transport: Transport,
    /// The family of the client's address.
    pub family: AddressFamily,
    /// The client's address, where the operator wants to have it.
    pub client: Option<SocketAddr>,
    /// Which shard has answered.
    pub shard: u32,
    /// Whether the client has an allocation now.
    pub has_allocation: bool,
    /// When the request was received, in nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// When it was answered, by the same clock.
    pub ended: u64,
}

#[cfg(test)]
mod tests {
    use hairpin_proto::stun::{MessageBuilder, TransactionId};

    use super::*;

    const ID: TransactionId = TransactionId([7; 12]);

    #[test]
    fn responses_are_told_from_all_that_is_none() {
        let mut message = Vec::new();
        let mut of = |class, method| {
            message.clear();
            MessageBuilder::new(&mut message, class, method, ID).finish(true);
            Response::of(&message)
        };
        let success = Response { method: Method::REFRESH, code: None };
        assert_eq!(of(Class::Success, Method::REFRESH), Some(success));
        assert_eq!(of(Class::Success, Method::BINDING), None);
        assert_eq!(of(Class::Indication, Method::CONNECTION_ATTEMPT), None);
        assert_eq!(of(Class::Error, Method::REFRESH), None, "an error without a code is none of ours");
        let mut message = Vec::new();
        MessageBuilder::error(&mut message, Method::ALLOCATE, ID, ErrorCode::FORBIDDEN).finish(false);
        let error = Response { method: Method::ALLOCATE, code: Some(ErrorCode::FORBIDDEN) };
        assert_eq!(Response::of(&message), Some(error));
        assert_eq!(Response::of(b""), None);
    }
}
