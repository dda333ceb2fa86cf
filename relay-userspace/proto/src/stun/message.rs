//! Reading a message in place.

use hairpin_common::wire::{MAGIC_COOKIE, STUN_LEN};

use super::attribute::{self, Attribute, AttributeError};
use super::header::{Class, Method, TransactionId, class_and_method};
use super::integrity::{Integrity, LongTermKey};

/// CRC-32 of the message is mixed with this (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// Type and length of an attribute, in bytes.
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// Why a datagram is not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than a header.
    #[error("shorter than a STUN header")]
    Short,
    /// The two first bits or the magic cookie are not those of STUN.
    #[error("not a STUN header")]
    NotStun,
    /// The length field is not that of the datagram, or not a multiple of four.
    #[error("the length field does not fit the datagram")]
    Length,
    /// An attribute reaches past the end.
    #[error("an attribute reaches past the end of the message")]
    Attribute,
    /// The FINGERPRINT is wrong or not the last attribute.
    #[error("the fingerprint is wrong or not last")]
    Fingerprint,
}

/// A STUN message whose structure was checked: header, lengths and, if it has one, FINGERPRINT.
///
/// Only the attributes that count are shown. What stands behind MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 is ignored, as
/// RFC 8489 sections 14.5 and 14.6 ask; behind the former, the latter still counts.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// Where the attributes that count end: at MESSAGE-INTEGRITY(-SHA256), FINGERPRINT, or the end of the message.
    end: usize,
    integrity: Option<Signature>,
    fingerprint: bool,
}

/// Where the signature that counts stands.
#[derive(Clone, Copy, Debug)]
struct Signature {
    integrity: Integrity,
    /// Where its attribute starts, and what it covers ends.
    at: usize,
    /// The length of its value.
    len: usize,
}

impl<'a> Message<'a> {
    /// Checks the structure of a datagram that should be one message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, body) = bytes.split_first_chunk::<STUN_LEN>().ok_or(ParseError::Short)?;
        let [first, _, length_0, length_1, cookie @ .., _, _, _, _, _, _, _, _, _, _, _, _] = *header;
        if first & 0xc0 != 0 || u32::from_be_bytes(cookie) != MAGIC_COOKIE {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([length_0, length_1]));
        if length != body.len() || !length.is_multiple_of(4) {
            return Err(ParseError::Length);
        }

        let mut message = Self { bytes, end: bytes.len(), integrity: None, fingerprint: false };
        let mut covered = None;
        let mut has_sha256 = false;
        let mut walk = Attributes { bytes, at: STUN_LEN, end: bytes.len() };
        while walk.at < walk.end {
            let at = walk.at;
            let (kind, value) = walk.next().ok_or(ParseError::Attribute)?;
            match kind {
                // One whose length is wrong ends what counts, and is no signature.
                attribute::MESSAGE_INTEGRITY if covered.is_none() => {
                    covered = Some(at);
                    message.integrity = Signature::new(Integrity::Sha1, at, value);
                }
                attribute::MESSAGE_INTEGRITY_SHA256 if !has_sha256 => {
                    has_sha256 = true;
                    covered = covered.or(Some(at));
                    message.integrity = Signature::new(Integrity::Sha256, at, value).or(message.integrity);
                }
                attribute::FINGERPRINT => {
                    let expected = crc32fast::hash(&bytes[..at]) ^ FINGERPRINT_XOR;
                    if walk.at != walk.end || value != expected.to_be_bytes() {
                        return Err(ParseError::Fingerprint);
                    }
                    message.fingerprint = true;
                    covered = covered.or(Some(at));
                }
                _ => {}
            }
        }
        message.end = covered.unwrap_or(bytes.len());
        Ok(message)
    }

    /// What the message is to its transaction.
    pub fn class(&self) -> Class {
        self.class_and_method().0
    }

    /// What the message is about.
    pub fn method(&self) -> Method {
        self.class_and_method().1
    }

    fn class_and_method(&self) -> (Class, Method) {
        class_and_method(u16::from_be_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..STUN_LEN]);
        TransactionId(id)
    }

    /// Whether the message has a (right) FINGERPRINT; its answer then has one too.
    pub fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Whether the message has a MESSAGE-INTEGRITY or a MESSAGE-INTEGRITY-SHA256 (not yet verified).
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Which signature counts (not yet verified): of two, the one by SHA-256.
    pub fn integrity(&self) -> Option<Integrity> {
        self.integrity.map(|signature| signature.integrity)
    }

    /// The attributes that count, in order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes, at: STUN_LEN, end: self.end }
    }

    /// The value of the first attribute of this type: of several, only the first counts (RFC 8489 section 14).
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The first attribute of type `A`, decoded.
    pub fn attribute<A: Attribute<'a>>(&self) -> Result<Option<A>, AttributeError> {
        self.find(A::TYPE).map(|value| A::decode(value, &self.transaction_id())).transpose()
    }

    /// All attributes of type `A`, decoded; for the few that may be repeated, such as XOR-PEER-ADDRESS.
    pub fn each<A: Attribute<'a>>(&self) -> impl Iterator<Item = Result<A, AttributeError>> + use<'a, A> {
        let id = self.transaction_id();
        self.attributes().filter(|(kind, _)| *kind == A::TYPE).map(move |(_, value)| A::decode(value, &id))
    }

    /// The types of attributes that must be understood (below 0x8000) and are not among `known`.
    pub fn unknown_required<'k>(&self, known: &'k [u16]) -> impl Iterator<Item = u16> + use<'a, 'k> {
        self.attributes().map(|(kind, _)| kind).filter(move |kind| *kind < 0x8000 && !known.contains(kind))
    }

    /// Whether there is a signature, and the one that counts was made with this key (RFC 8489 sections 14.5 and 14.6). In
    /// constant time. One by SHA-256 may be cut down to half its length, as section 14.6 permits.
    pub fn verify_integrity(&self, key: &LongTermKey) -> bool {
        let Some(Signature { integrity, at, len }) = self.integrity else { return false };
        let value = at + ATTRIBUTE_HEADER_LEN;
        key.verify(&self.bytes[..at], integrity, &self.bytes[value..value + len])
    }
}

impl Signature {
    fn new(integrity: Integrity, at: usize, value: &[u8]) -> Option<Self> {
        integrity.may_have(value.len()).then_some(Self { integrity, at, len: value.len() })
    }
}

/// Walks over the attributes of a message; ends early where one would reach past the end.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..self.end)?;
        let ([kind_0, kind_1, length_0, length_1], body) = rest.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([*length_0, *length_1]));
        let value = body.get(..length)?;
        body.get(..padded(length))?;
        self.at += ATTRIBUTE_HEADER_LEN + padded(length);
        Some((u16::from_be_bytes([*kind_0, *kind_1]), value))
    }
}

/// A length rounded up to the next multiple of four (RFC 8489 section 14).
pub(crate) const fn padded(length: usize) -> usize {
    (length + 3) & !3
}

pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    crc32fast::hash(covered) ^ FINGERPRINT_XOR
}
