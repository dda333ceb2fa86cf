//! Keys and the signatures they make (RFC 8489 sections 9.2.2, 14.5 and 14.6).

use std::fmt;

use hairpin_common::wire::STUN_LEN;
use md5::{Digest, Md5};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

use super::attribute;
use super::prepare::{opaque_string, sha256};

/// HMAC-SHA1 of `data` under `secret`: what REST passwords are made of.
pub fn hmac_sha1(secret: &[u8], data: &[u8]) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret), data).as_ref());
    bytes
}

/// What a message is signed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1 (RFC 8489 section 14.5).
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256 (RFC 8489 section 14.6).
    Sha256,
}

impl Integrity {
    /// The type of the attribute.
    pub fn attribute(self) -> u16 {
        match self {
            Self::Sha1 => attribute::MESSAGE_INTEGRITY,
            Self::Sha256 => attribute::MESSAGE_INTEGRITY_SHA256,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        }
    }

    /// The length of the value, uncut.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether a value may have this length.
    pub(super) fn may_have(self, len: usize) -> bool {
        match self {
            Self::Sha1 => len == self.len(),
            Self::Sha256 => (16..=self.len()).contains(&len) && len.is_multiple_of(4),
        }
    }
}

/// A key that signs messages, of either kind. It is kept as bytes, few enough to be copied into every allocation.
#[derive(Clone)]
pub struct LongTermKey(KeyBytes);

#[derive(Clone)]
enum KeyBytes {
    Whole {
        len: u8,
        bytes: [u8; LongTermKey::BLOCK_LEN],
    },
    /// HMAC hashes a key that is longer than a block of its hash, and uses the hash (RFC 2104 section 2).
    Hashed {
        sha1: [u8; 20],
        sha256: [u8; 32],
    },
}

impl LongTermKey {
    /// A block of SHA-1, and of SHA-256 too.
    const BLOCK_LEN: usize = 64;

    /// The key that MD5 makes of `username:realm:password` (RFC 8489 section 18.5.1.1).
    pub fn derive(username: &str, realm: &str, password: &str) -> Self {
        Self::from_bytes(&md5_of(username, &opaque_string(realm), &opaque_string(password)))
    }

    /// The key that SHA-256 makes of `username:realm:password` (RFC 8489 section 18.5.1.2).
    pub fn derive_sha256(username: &str, realm: &str, password: &str) -> Self {
        Self::from_bytes(&sha256([username, ":", &opaque_string(realm), ":", &opaque_string(password)]))
    }

    /// A key that was derived before, a short-term password (RFC 8489 section 9.1.1), or the key of an access token (RFC 7635
    /// section 6.2).
    pub fn from_bytes(key: &[u8]) -> Self {
        if key.len() > Self::BLOCK_LEN {
            let (mut sha1, mut sha256) = ([0; 20], [0; 32]);
            sha1.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key).as_ref());
            sha256.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
            return Self(KeyBytes::Hashed { sha1, sha256 });
        }
        let mut bytes = [0; Self::BLOCK_LEN];
        bytes[..key.len()].copy_from_slice(key);
        Self(KeyBytes::Whole { len: key.len() as u8, bytes })
    }

    fn bytes_for(&self, integrity: Integrity) -> &[u8] {
        match (&self.0, integrity) {
            (KeyBytes::Whole { len, bytes }, _) => &bytes[..usize::from(*len)],
            (KeyBytes::Hashed { sha1, .. }, Integrity::Sha1) => sha1,
            (KeyBytes::Hashed { sha256, .. }, Integrity::Sha256) => sha256,
        }
    }

    /// HMAC over the message up to the signature, with the header's length as if the message ended behind that. `len` is
    /// the length of its value.
    pub(super) fn sign(&self, covered: &[u8], integrity: Integrity, len: usize) -> hmac::Tag {
        let length = covered.len() - STUN_LEN + 4 + len;
        let key = hmac::Key::new(integrity.hmac(), self.bytes_for(integrity));
        let mut context = hmac::Context::with_key(&key);
        context.update(&covered[..2]);
        context.update(&(length as u16).to_be_bytes());
        context.update(&covered[4..]);
        context.sign()
    }

    /// Whether the signature is the first bytes of what this key makes, as many as there are.
    pub(super) fn verify(&self, covered: &[u8], integrity: Integrity, signature: &[u8]) -> bool {
        let tag = self.sign(covered, integrity, signature.len());
        tag.as_ref().get(..signature.len()).is_some_and(|tag| tag.ct_eq(signature).into())
    }
}

impl fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongTermKey(..)")
    }
}

pub(super) fn md5_of(username: &str, realm: &str, password: &str) -> [u8; 16] {
    let mut md5 = Md5::new();
    for part in [username, ":", realm, ":", password] {
        md5.update(part);
    }
    md5.finalize().into()
}
