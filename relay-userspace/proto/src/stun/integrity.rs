//! Keys and MESSAGE-INTEGRITY (RFC 8489 sections 9.2.2 and 14.5).

use std::fmt;

use hairpin_common::wire::STUN_LEN;
use md5::{Digest, Md5};
use ring::hmac;
use subtle::ConstantTimeEq;

/// HMAC-SHA1 of `data` under `secret`: what REST passwords are made of.
pub fn hmac_sha1(secret: &[u8], data: &[u8]) -> [u8; 20] {
    to_array(&hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret), data))
}

/// The key of a long-term credential, ready to sign and verify.
#[derive(Clone)]
pub struct LongTermKey(hmac::Key);

impl LongTermKey {
    /// MD5 of `username:realm:password` (RFC 8489 section 9.2.2).
    pub fn derive(username: &str, realm: &str, password: &str) -> Self {
        let mut md5 = Md5::new();
        for part in [username, ":", realm, ":", password] {
            md5.update(part);
        }
        Self::from_bytes(&md5.finalize())
    }

    /// A key that was derived before, or a short-term password (RFC 8489 section 9.1.1).
    pub fn from_bytes(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key))
    }

    /// HMAC over the message up to MESSAGE-INTEGRITY, with the header's length as if the message ended behind that.
    pub(super) fn sign(&self, covered: &[u8]) -> [u8; 20] {
        let length = covered.len() - STUN_LEN + 24;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&covered[..2]);
        context.update(&(length as u16).to_be_bytes());
        context.update(&covered[4..]);
        to_array(&context.sign())
    }

    pub(super) fn verify(&self, covered: &[u8], integrity: &[u8]) -> bool {
        self.sign(covered).ct_eq(integrity).into()
    }
}

impl fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongTermKey(..)")
    }
}

/// What one password signs with: a key for each password algorithm (RFC 8489 section 18.5).
#[derive(Clone)]
pub struct PasswordKeys {
    md5: LongTermKey,
    sha256: Option<[u8; 32]>,
}

impl PasswordKeys {
    /// The keys of a user whose password is known.
    pub fn derive(username: &str, realm: &str, password: &str) -> Self {
        Self { md5: LongTermKey::derive(username, realm, password), sha256: None }
    }

    /// The key of a user whose password was made into one by MD5 before.
    pub fn from_md5(key: [u8; 16]) -> Self {
        Self { md5: LongTermKey::from_bytes(&key), sha256: None }
    }

    /// The same with another key, that was made by SHA-256.
    #[must_use]
    pub fn and_sha256(self, key: [u8; 32]) -> Self {
        Self { sha256: Some(key), ..self }
    }
}

impl fmt::Debug for PasswordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms = if self.sha256.is_some() { "MD5, SHA-256" } else { "MD5" };
        write!(f, "PasswordKeys({:?}, {algorithms})", self.md5)
    }
}

fn to_array(tag: &hmac::Tag) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}
