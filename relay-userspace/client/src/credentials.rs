//! Who the client is.

use std::fmt;

use hairpin_proto::turn;

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
