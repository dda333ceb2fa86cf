//! What a client of NAT behaviour discovery asks for (RFC 5780 section 7).

use super::{Attribute, AttributeError, exactly};
use crate::stun::header::TransactionId;

/// CHANGE-REQUEST, RFC 5780 section 7.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeRequest {
    /// Whether the response shall come from the other IP address.
    pub ip: bool,
    /// Whether the response shall come from the other port.
    pub port: bool,
}

impl<'a> Attribute<'a> for ChangeRequest {
    const TYPE: u16 = 0x0003;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [_, _, _, flags] = exactly(Self::TYPE, value)?;
        Ok(Self { ip: flags & 4 != 0, port: flags & 2 != 0 })
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&[0, 0, 0, u8::from(self.ip) << 2 | u8::from(self.port) << 1]);
    }
}

/// PADDING, RFC 5780 section 7.6: how many bytes of it. What they are does not matter; they are written as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding(pub u16);

impl<'a> Attribute<'a> for Padding {
    const TYPE: u16 = 0x0026;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        u16::try_from(value.len()).map(Self).map_err(|_| AttributeError::Length(Self::TYPE))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.resize(out.len() + usize::from(self.0), 0);
    }
}

/// RESPONSE-PORT, RFC 5780 section 7.5.
///
/// The RFC has two bytes of padding follow the port, and does not say whether its length counts them: it is written as
/// counting them, as others do, and read either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponsePort(pub u16);

impl<'a> Attribute<'a> for ResponsePort {
    const TYPE: u16 = 0x0027;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        match *value {
            [high, low] | [high, low, _, _] => Ok(Self(u16::from_be_bytes([high, low]))),
            _ => Err(AttributeError::Length(Self::TYPE)),
        }
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    }
}
