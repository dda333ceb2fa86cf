//! What ICE adds to Binding requests (RFC 8445 section 16.1).

use super::{Attribute, AttributeError, exactly};
use crate::stun::TransactionId;

/// PRIORITY: the priority that a peer-reflexive candidate would have, if the check discovers one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(pub u32);

impl<'a> Attribute<'a> for Priority {
    const TYPE: u16 = 0x0024;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(u32::from_be_bytes(exactly(Self::TYPE, value)?)))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

/// USE-CANDIDATE: the pair of the check is nominated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseCandidate;

impl<'a> Attribute<'a> for UseCandidate {
    const TYPE: u16 = 0x0025;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        exactly::<0>(Self::TYPE, value).map(|_| Self)
    }

    fn encode(&self, _: &mut Vec<u8>, _: &TransactionId) {}
}

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u64);

        impl<'a> Attribute<'a> for $name {
            const TYPE: u16 = $kind;

            fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
                Ok(Self(u64::from_be_bytes(exactly(Self::TYPE, value)?)))
            }

            fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
                out.extend_from_slice(&self.0.to_be_bytes());
            }
        }
    )*};
}

roles! {
    /// ICE-CONTROLLED: the sender takes itself for the controlled agent; with its tie-breaker.
    IceControlled = 0x8029;
    /// ICE-CONTROLLING: the sender takes itself for the controlling agent; with its tie-breaker.
    IceControlling = 0x802a;
}
