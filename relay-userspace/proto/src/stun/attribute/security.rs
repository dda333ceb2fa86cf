//! What RFC 8489 and RFC 7635 add to say who somebody is.

use super::{Attribute, AttributeError, exactly};
use crate::stun::TransactionId;
use crate::stun::message::padded;
use crate::stun::password::PasswordAlgorithm;

/// USERHASH, RFC 8489 section 14.4: stands for a USERNAME that nobody on the way shall read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserHash(pub [u8; 32]);

impl<'a> Attribute<'a> for UserHash {
    const TYPE: u16 = 0x001e;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        exactly(Self::TYPE, value).map(Self)
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&self.0);
    }
}

/// An algorithm and its parameters, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmAndParameters<'a> {
    /// The number of RFC 8489 section 18.5.
    pub number: u16,
    /// The parameters, without padding. Those of the algorithms of RFC 8489 are empty.
    pub parameters: &'a [u8],
}

impl<'a> AlgorithmAndParameters<'a> {
    /// The first one of a list, and what follows its padding.
    fn split(list: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([number_0, number_1, length_0, length_1], rest) = list.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*length_0, *length_1]));
        let (parameters, rest) = rest.split_at_checked(padded(length))?;
        Some((Self { number: u16::from_be_bytes([*number_0, *number_1]), parameters: &parameters[..length] }, rest))
    }

    /// Which one it is, if it is known and its parameters are what they should be.
    pub fn algorithm(&self) -> Option<PasswordAlgorithm> {
        PasswordAlgorithm::from_number(self.number).filter(|_| self.parameters.is_empty())
    }
}

impl From<PasswordAlgorithm> for AlgorithmAndParameters<'_> {
    fn from(algorithm: PasswordAlgorithm) -> Self {
        Self { number: algorithm.number(), parameters: &[] }
    }
}

/// PASSWORD-ALGORITHM, RFC 8489 section 14.12: how the client has made its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordAlgorithmAttribute<'a>(pub AlgorithmAndParameters<'a>);

impl<'a> Attribute<'a> for PasswordAlgorithmAttribute<'a> {
    const TYPE: u16 = 0x001d;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        match AlgorithmAndParameters::split(value) {
            Some((algorithm, [])) => Ok(Self(algorithm)),
            _ => Err(AttributeError::Length(Self::TYPE)),
        }
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        let Self(AlgorithmAndParameters { number, parameters }) = self;
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        out.extend_from_slice(parameters);
        out.resize(out.len() + padded(parameters.len()) - parameters.len(), 0);
    }
}

/// PASSWORD-ALGORITHMS, RFC 8489 section 14.11: how the server lets a client make its key, the best first. The client
/// gives the list back, so that the server sees whether somebody on the way has changed it.
///
/// It is kept as it is on the wire: two lists are the same if their bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordAlgorithms<'a>(&'a [u8]);

impl PasswordAlgorithms<'static> {
    /// SHA-256 before MD5.
    pub const SHA256_AND_MD5: Self = Self(&[0, 2, 0, 0, 0, 1, 0, 0]);
    /// SHA-256 only.
    pub const SHA256: Self = Self(&[0, 2, 0, 0]);
    /// MD5 only.
    pub const MD5: Self = Self(&[0, 1, 0, 0]);
}

impl<'a> PasswordAlgorithms<'a> {
    /// A list as it is on the wire, if it is well-formed.
    pub fn from_bytes(list: &'a [u8]) -> Option<Self> {
        let mut rest = list;
        while !rest.is_empty() {
            rest = AlgorithmAndParameters::split(rest)?.1;
        }
        Some(Self(list))
    }

    /// The list as it is on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The algorithms in their order.
    pub fn iter(&self) -> impl Iterator<Item = AlgorithmAndParameters<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (first, others) = AlgorithmAndParameters::split(rest)?;
            rest = others;
            Some(first)
        })
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithms<'a> {
    const TYPE: u16 = 0x8002;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Self::from_bytes(value).ok_or(AttributeError::Length(Self::TYPE))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(self.0);
    }
}

/// ACCESS-TOKEN, RFC 7635 section 6.2: only the servers that the token was made for can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessTokenAttribute<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for AccessTokenAttribute<'a> {
    const TYPE: u16 = 0x001b;

    fn decode(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self(value))
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(self.0);
    }
}
