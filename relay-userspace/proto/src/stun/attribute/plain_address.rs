//! Addresses that are written as they are, without XOR (RFC 8489 section 14.1).

use std::net::SocketAddr;

use super::{Attribute, AttributeError, decode_address, encode_address};
use crate::stun::header::TransactionId;

macro_rules! plain_addresses {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub SocketAddr);

        impl<'a> Attribute<'a> for $name {
            const TYPE: u16 = $kind;

            fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
                decode_address($kind, value).map(Self)
            }

            fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
                encode_address(self.0, out);
            }
        }
    )*};
}

plain_addresses! {
    /// MAPPED-ADDRESS, RFC 8489 section 14.1.
    MappedAddress = 0x0001;
    /// ALTERNATE-SERVER, RFC 8489 section 14.15.
    AlternateServerAttribute = 0x8023;
    /// RESPONSE-ORIGIN, RFC 5780 section 7.3.
    ResponseOrigin = 0x802b;
    /// OTHER-ADDRESS, RFC 5780 section 7.4.
    OtherAddress = 0x802c;
}
