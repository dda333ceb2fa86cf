//! The keys that one password makes (RFC 8489 section 18.5).

use std::fmt;

use super::integrity::{LongTermKey, md5_of};
use super::prepare::{opaque_string, sasl_prep};

/// How a key is made of username, realm and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum PasswordAlgorithm {
    /// RFC 8489 section 18.5.1.1; the only one of RFC 5389.
    Md5 = 1,
    /// RFC 8489 section 18.5.1.2.
    Sha256 = 2,
}

impl PasswordAlgorithm {
    /// Its number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The key that it makes.
    pub fn derive(self, username: &str, realm: &str, password: &str) -> LongTermKey {
        match self {
            Self::Md5 => LongTermKey::derive(username, realm, password),
            Self::Sha256 => LongTermKey::derive_sha256(username, realm, password),
        }
    }

    /// The algorithm with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        [Self::Md5, Self::Sha256].into_iter().find(|algorithm| algorithm.number() == number)
    }
}

/// What one password signs with: a key for each password algorithm.
#[derive(Clone)]
pub struct PasswordKeys {
    md5: Option<LongTermKey>,
    sha256: Option<LongTermKey>,
    /// Those that MD5 makes of the password in other forms: prepared by SASLprep, as RFC 5389 asked, and as it is. Of most
    /// passwords there is only one form.
    older: Box<[LongTermKey]>,
}

impl PasswordKeys {
    /// The keys of a user whose password is known.
    pub fn derive(username: &str, realm: &str, password: &str) -> Self {
        Self {
            md5: Some(LongTermKey::derive(username, realm, password)),
            sha256: Some(LongTermKey::derive_sha256(username, realm, password)),
            older: older_keys(username, realm, password),
        }
    }

    /// The key of a user whose password was made into one by MD5 before.
    pub fn from_md5(key: [u8; 16]) -> Self {
        Self { md5: Some(LongTermKey::from_bytes(&key)), sha256: None, older: Box::default() }
    }

    /// The key of a user whose password was made into one by SHA-256 before.
    pub fn from_sha256(key: [u8; 32]) -> Self {
        Self { md5: None, sha256: Some(LongTermKey::from_bytes(&key)), older: Box::default() }
    }

    /// The same with another key, that was made by SHA-256.
    #[must_use]
    pub fn and_sha256(self, key: [u8; 32]) -> Self {
        Self { sha256: Some(LongTermKey::from_bytes(&key)), ..self }
    }

    /// The keys that an algorithm makes, the likeliest first. None, if they are not known.
    pub fn for_algorithm(&self, algorithm: PasswordAlgorithm) -> impl Iterator<Item = &LongTermKey> {
        let (key, older) = match algorithm {
            PasswordAlgorithm::Md5 => (&self.md5, &*self.older),
            PasswordAlgorithm::Sha256 => (&self.sha256, &[][..]),
        };
        key.iter().chain(older)
    }
}

/// The keys of clients that do not prepare as RFC 8489 asks, as far as they are others.
fn older_keys(username: &str, realm: &str, password: &str) -> Box<[LongTermKey]> {
    if realm.is_ascii() && password.is_ascii() {
        return Box::default();
    }
    let newest = (opaque_string(realm), opaque_string(password));
    let mut forms = vec![(realm, sasl_prep(password)), (realm, password.into())];
    forms.dedup();
    forms.retain(|(realm, password)| (*realm, password) != (&*newest.0, &newest.1));
    forms.iter().map(|(realm, password)| LongTermKey::from_bytes(&md5_of(username, realm, password))).collect()
}

impl fmt::Debug for PasswordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let md5 = self.for_algorithm(PasswordAlgorithm::Md5).count();
        let sha256 = self.for_algorithm(PasswordAlgorithm::Sha256).count();
        // The keys stay out of every log.
        write!(f, "PasswordKeys({md5} by MD5, {sha256} by SHA-256)")
    }
}
