//! Which attributes the server understands.

use crate::stun::attribute::{
    AccessTokenAttribute, Attribute, ChannelNumberAttribute, ConnectionId, Data, DontFragment, ErrorCodeAttribute,
    EvenPort, Lifetime, MESSAGE_INTEGRITY_SHA256, MappedAddress, Nonce, PasswordAlgorithmAttribute, Realm,
    RequestedAddressFamily, RequestedTransport, ReservationToken, UnknownAttributes, UserHash, Username,
    XorMappedAddress, XorPeerAddress, XorRelayedAddress,
};

/// Attributes below 0x8000 that are understood.
///
/// One set for all methods: an attribute that is known but unexpected is ignored (RFC 8489 section 6.3).
pub(super) const KNOWN: &[u16] = &[
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
    MESSAGE_INTEGRITY_SHA256,
    UserHash::TYPE,
    PasswordAlgorithmAttribute::TYPE,
];

/// Those that are understood besides where access tokens are taken.
pub(super) const OF_TOKENS: &[u16] = &[AccessTokenAttribute::TYPE];
