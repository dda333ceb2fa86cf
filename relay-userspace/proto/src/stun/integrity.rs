//! Keys and the signatures they make (RFC 8489 sections 9.2.2, 14.5 and 14.6).

use std::fmt;

use hairpin_common::wire::STUN_LEN;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use ring::hmac as ring_hmac;
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::attribute;
use super::prepare::{opaque_string, sha256};

/// HMAC-SHA1 of `data` under `secret`: what REST passwords are made of.
pub fn hmac_sha1(secret: &[u8], data: &[u8]) -> [u8; 20] {
    hmac_sha1_of(secret, [data])
}

/// That of ring makes no use of what processors have for SHA-1, and takes twice as long.
fn hmac_sha1_of<const N: usize>(key: &[u8], parts: [&[u8]; N]) -> [u8; 20] {
    let mut context = Hmac::<Sha1>::new_from_slice(key).expect("a key may have any length");
    for part in parts {
        context.update(part);
    }
    context.finalize().into_bytes().into()
}

fn hmac_sha256_of<const N: usize>(key: &[u8], parts: [&[u8]; N]) -> [u8; 32] {
    let mut context = ring_hmac::Context::with_key(&ring_hmac::Key::new(ring_hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
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

    /// The longest value.
    const MAX_LEN: usize = 32;

    /// The length of the value, uncut.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => Self::MAX_LEN,
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
        Self::from_bytes(&sha256(
            [username, ":", &opaque_string(realm), ":", &opaque_string(password)].map(str::as_bytes),
        ))
    }

    /// A key that was derived before, a short-term password (RFC 8489 section 9.1.1), or the key of an access token (RFC 7635
    /// section 6.2).
    pub fn from_bytes(key: &[u8]) -> Self {
        if key.len() > Self::BLOCK_LEN {
            return Self(KeyBytes::Hashed { sha1: Sha1::digest(key).into(), sha256: sha256([key]) });
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
    /// the length of its value, which is the first bytes of the result.
    pub(super) fn sign(&self, covered: &[u8], integrity: Integrity, len: usize) -> [u8; Integrity::MAX_LEN] {
        let length = ((covered.len() - STUN_LEN + 4 + len) as u16).to_be_bytes();
        let (parts, key) = ([&covered[..2], &length, &covered[4..]], self.bytes_for(integrity));
        match integrity {
            Integrity::Sha1 => {
                let mut tag = [0; Integrity::MAX_LEN];
                tag[..integrity.len()].copy_from_slice(&hmac_sha1_of(key, parts));
                tag
            }
            Integrity::Sha256 => hmac_sha256_of(key, parts),
        }
    }

    /// Whether the signature is the first bytes of what this key makes. It has a length that it may have.
    pub(super) fn verify(&self, covered: &[u8], integrity: Integrity, signature: &[u8]) -> bool {
        self.sign(covered, integrity, signature.len())[..signature.len()].ct_eq(signature).into()
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
