//! Who the client is.

use std::fmt;

use hairpin_proto::stun::LongTermKey;
use hairpin_proto::turn::{self, MacKey};

/// Which of the STUN specifications the client speaks, where they differ about security.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// RFC 5389, whatever the server offers: keys by MD5, MESSAGE-INTEGRITY, usernames that all can read.
    #[default]
    Legacy,
    /// RFC 8489: keys by the first algorithm that the server names, MESSAGE-INTEGRITY-SHA256 and USERHASH, if the server has
    /// them. A server that has none is spoken to as an older one; one that says it has them, and does not show them, is not
    /// spoken to (section 9.2.1).
    Modern,
}

/// A long-term credential (RFC 8489 section 9.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The username, as sent.
    pub username: String,
    /// The password, never sent.
    pub password: String,
}

impl Credentials {
    /// A username and its password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into() }
    }

    /// A credential that a server with the same secret accepts until `expires`, in seconds since the Unix epoch.
    ///
    /// The scheme is that of `use-auth-secret`, known as TURN REST API: see [`turn::Credentials`].
    pub fn mint(secret: &str, name: Option<&str>, expires: u64) -> Self {
        let (username, password) = turn::Credentials::mint(secret, name.unwrap_or_default(), expires);
        Self { username, password }
    }
}

/// An access token of third-party authorization (RFC 7635), with what the authorization server gives along with it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenCredential {
    /// Names the key that the token is sealed with; sent as the username.
    pub kid: String,
    /// What messages are signed with; the same as in the token.
    pub mac_key: MacKey,
    /// The token, as it is.
    pub token: Vec<u8>,
}

impl TokenCredential {
    pub(crate) fn key(&self) -> LongTermKey {
        self.mac_key.to_key()
    }
}

impl fmt::Debug for TokenCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCredential").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_credentials_are_those_of_openssl() {
        // printf %s 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        let minted = Credentials::mint("north", Some("alice"), 1_700_000_000);
        assert_eq!(minted, Credentials::new("1700000000:alice", "Cd/49soE35ICqcJF/bCTn8Z4OyE="));
        // printf %s 1700000000 | openssl dgst -sha1 -hmac north -binary | base64
        let minted = Credentials::mint("north", None, 1_700_000_000);
        assert_eq!(minted, Credentials::new("1700000000", "CWyHi3zCeWqXBir9thl4m+iZPRY="));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", Credentials::new("alice", "sesame")).contains("sesame"));
    }
}
