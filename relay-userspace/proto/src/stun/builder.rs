//! Writing a message.

use hairpin_common::wire::{MAGIC_COOKIE, STUN_LEN};

use super::attribute::{self, Attribute, ErrorCodeAttribute};
use super::error_code::ErrorCode;
use super::header::{Class, Method, TransactionId, message_type};
use super::integrity::{Integrity, LongTermKey};
use super::message::{fingerprint, padded};

/// Appends one message to a buffer; the buffer's capacity is all the memory it uses.
///
/// The header's length is right after every step, so a message is complete as soon as its last attribute is in.
#[derive(Debug)]
pub struct MessageBuilder<'b> {
    buffer: &'b mut Vec<u8>,
    start: usize,
    id: TransactionId,
}

impl<'b> MessageBuilder<'b> {
    /// Starts a message at the end of the buffer.
    pub fn new(buffer: &'b mut Vec<u8>, class: Class, method: Method, id: TransactionId) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&message_type(class, method).to_be_bytes());
        buffer.extend_from_slice(&[0, 0]);
        buffer.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        buffer.extend_from_slice(&id.0);
        Self { buffer, start, id }
    }

    /// Starts an error response with ERROR-CODE and the code's default reason phrase.
    pub fn error(buffer: &'b mut Vec<u8>, method: Method, id: TransactionId, code: ErrorCode) -> Self {
        Self::new(buffer, Class::Error, method, id).with(&ErrorCodeAttribute { code, reason: code.reason() })
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with<'a, A: Attribute<'a>>(self, attribute: &A) -> Self {
        let id = self.id;
        self.raw(A::TYPE, |buffer| attribute.encode(buffer, &id))
    }

    /// Appends an attribute if there is one.
    #[must_use]
    pub fn with_option<'a, A: Attribute<'a>>(self, attribute: Option<&A>) -> Self {
        match attribute {
            Some(attribute) => self.with(attribute),
            None => self,
        }
    }

    /// Appends MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256. Only FINGERPRINT may follow, and the latter after the former.
    #[must_use]
    pub fn with_integrity(self, key: &LongTermKey, integrity: Integrity) -> Self {
        let tag = key.sign(&self.buffer[self.start..], integrity, integrity.len());
        self.raw(integrity.attribute(), |buffer| buffer.extend_from_slice(&tag[..integrity.len()]))
    }

    /// Appends FINGERPRINT, which ends the message.
    pub fn with_fingerprint(mut self) {
        // The header's length counts the attribute that is about to come (RFC 8489 section 14.7).
        self.set_length(8);
        let crc = fingerprint(&self.buffer[self.start..]);
        let _ended = self.raw(attribute::FINGERPRINT, |buffer| buffer.extend_from_slice(&crc.to_be_bytes()));
    }

    /// Ends the message, with FINGERPRINT if `fingerprint` says so.
    pub fn finish(self, fingerprint: bool) {
        if fingerprint {
            self.with_fingerprint();
        }
    }

    fn raw(mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) -> Self {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&kind.to_be_bytes());
        self.buffer.extend_from_slice(&[0, 0]);
        value(self.buffer);
        let length = self.buffer.len() - at - 4;
        self.buffer[at + 2..at + 4].copy_from_slice(&(length as u16).to_be_bytes());
        self.buffer.resize(at + 4 + padded(length), 0);
        self.set_length(0);
        self
    }

    fn set_length(&mut self, coming: usize) {
        let length = self.buffer.len() - self.start - STUN_LEN + coming;
        self.buffer[self.start + 2..self.start + 4].copy_from_slice(&(length as u16).to_be_bytes());
    }
}
