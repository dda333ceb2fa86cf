//! Which attributes the server understands.

use crate::stun::Message;
use crate::stun::attribute::{
    Attribute, ChannelNumberAttribute, ConnectionId, Data, DontFragment, ErrorCodeAttribute, EvenPort, Lifetime,
    MappedAddress, Nonce, Realm, RequestedAddressFamily, RequestedTransport, ReservationToken, UnknownAttributes,
    Username, XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};

/// Attributes below 0x8000 that are understood.
///
/// One set for all methods: an attribute that is known but unexpected is ignored (RFC 8489 section 6.3).
const KNOWN: &[u16] = &[
    MappedAddress::TYPE,
    Username::TYPE,
    ErrorCodeAttribute::TYPE,
    UnknownAttributes::TYPE,
    ChannelNumberAttribute::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    Data::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    XorRelayedAddress::TYPE,
    RequestedAddressFamily::TYPE,
    EvenPort::TYPE,
    RequestedTransport::TYPE,
    DontFragment::TYPE,
    XorMappedAddress::TYPE,
    ReservationToken::TYPE,
    ConnectionId::TYPE,
];

/// How many types UNKNOWN-ATTRIBUTES lists at most: answers to strangers stay short.
const LISTED: usize = 16;

/// The types of a message's attributes that should be understood and are not, each once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unknown {
    types: [[u8; 2]; LISTED],
    len: usize,
}

impl Unknown {
    pub(super) fn of(message: &Message<'_>) -> Self {
        Self::beyond(message, &[])
    }

    /// The same for a request that may have some attributes more.
    pub(super) fn beyond(message: &Message<'_>, more: &[u16]) -> Self {
        let mut unknown = Self::default();
        for kind in message.unknown_required(KNOWN).filter(|kind| !more.contains(kind)) {
            if unknown.len < LISTED && !unknown.types().contains(&kind.to_be_bytes()) {
                unknown.types[unknown.len] = kind.to_be_bytes();
                unknown.len += 1;
            }
        }
        unknown
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn types(&self) -> &[[u8; 2]] {
        &self.types[..self.len]
    }
}
