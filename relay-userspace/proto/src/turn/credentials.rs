//! Who may relay: users with a password, and users with credentials that expire.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;

use super::cause::Cause;
use crate::stun::{LongTermKey, Message, hmac_sha1};

/// Between expiry and name in the username of a credential that expires.
const SEPARATOR: char = ':';

/// Long-term credentials (RFC 8489 section 9.2) of two kinds.
///
/// - Users with a password, known in advance.
/// - The scheme known as REST API or `use-auth-secret`: whoever knows a secret that is shared with the server makes
///   credentials without telling it. The username is `expiry` or `expiry:name`, with the expiry in seconds since the
///   Unix epoch; the password is the base64 of HMAC-SHA1 of the username under the secret. Several secrets may be valid
///   at once, so that one can be replaced.
#[derive(Clone)]
pub struct Credentials {
    realm: String,
    users: HashMap<String, LongTermKey>,
    secrets: Vec<String>,
}

/// Credentials that were found right.
#[derive(Clone, Debug)]
pub(super) struct Verified<'m> {
    /// Signs the response.
    pub(super) key: LongTermKey,
    /// Whose quota counts: the name without the expiry, since a new credential makes no new user.
    pub(super) account: &'m str,
}

impl Credentials {
    /// No credentials: nobody may relay.
    pub fn new(realm: &str) -> Self {
        Self { realm: realm.to_owned(), users: HashMap::new(), secrets: Vec::new() }
    }

    /// Lets a user relay. The password is not kept, only the key that is made from it.
    pub fn add_user(&mut self, name: &str, password: &str) {
        self.users.insert(name.to_owned(), LongTermKey::derive(name, &self.realm, password));
    }

    /// Lets everybody relay who has a credential made with this secret.
    pub fn add_secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// Makes a credential that expires at `expires_unix` (seconds since the Unix epoch), as username and password. The
    /// name may be empty.
    pub fn mint(secret: &str, name: &str, expires_unix: u64) -> (String, String) {
        let username =
            if name.is_empty() { expires_unix.to_string() } else { format!("{expires_unix}{SEPARATOR}{name}") };
        let password = Password::of(secret, &username).as_str().to_owned();
        (username, password)
    }

    /// Verifies a message that says it comes from `username`.
    ///
    /// `established` says that this very username has made the allocation that the message is about. Then its expiry
    /// is not asked for: it limits who may start to relay, and a call that has begun is not cut off, because its
    /// client has no way to get another username into it.
    ///
    /// That a credential has expired is only said of one that was right.
    pub(super) fn verify<'m>(
        &self,
        message: &Message<'_>,
        username: &'m str,
        unix: u64,
        established: bool,
    ) -> Result<Verified<'m>, Cause> {
        if let Some(key) = self.users.get(username) {
            let verified = message.verify_integrity(key).then(|| Verified { key: key.clone(), account: username });
            return verified.ok_or(Cause::WrongPassword);
        }
        let (expires, account) =
            expiry_and_name(username).filter(|_| !self.secrets.is_empty()).ok_or(Cause::UnknownUser)?;
        let key = self.secrets.iter().find_map(|secret| {
            let key = LongTermKey::derive(username, &self.realm, Password::of(secret, username).as_str());
            message.verify_integrity(&key).then_some(key)
        });
        let key = key.ok_or(Cause::WrongSecret)?;
        if unix >= expires && !established { Err(Cause::ExpiredCredential) } else { Ok(Verified { key, account }) }
    }
}

/// What the username of a credential that expires says.
fn expiry_and_name(username: &str) -> Option<(u64, &str)> {
    let (expiry, name) = username.split_once(SEPARATOR).unwrap_or((username, username));
    // A sign is none of a number's.
    let is_number = expiry.bytes().all(|byte| byte.is_ascii_digit());
    Some((expiry.parse().ok().filter(|_| is_number)?, name))
}

/// The password of a credential that expires. It is made for everybody who asks, so it takes no memory.
struct Password([u8; Self::LEN]);

impl Password {
    /// 20 bytes in base64.
    const LEN: usize = 28;

    fn of(secret: &str, username: &str) -> Self {
        let mut text = [0; Self::LEN];
        let written = STANDARD.encode_slice(hmac_sha1(secret.as_bytes(), username.as_bytes()), &mut text);
        debug_assert_eq!(written, Ok(Self::LEN));
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets and keys stay out of every log.
        f.debug_struct("Credentials")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .field("secrets", &self.secrets.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::attribute::Username;
    use crate::stun::{Class, Integrity, MessageBuilder, Method, TransactionId};

    const NOON: u64 = 1_700_000_000;

    fn signed(username: &str, password: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        MessageBuilder::new(&mut bytes, Class::Request, Method::ALLOCATE, TransactionId([1; 12]))
            .with(&Username(username))
            .with_integrity(&LongTermKey::derive(username, "realm", password), Integrity::Sha1)
            .finish(false);
        bytes
    }

    fn account(credentials: &Credentials, username: &str, password: &str, unix: u64) -> Result<String, Cause> {
        let bytes = signed(username, password);
        let message = Message::parse(&bytes).unwrap();
        credentials.verify(&message, username, unix, false).map(|verified| verified.account.to_owned())
    }

    #[test]
    fn minted_credentials_are_those_of_other_implementations() {
        // printf %s 1700000000:alice | openssl dgst -sha1 -hmac north -binary | base64
        let (username, password) = Credentials::mint("north", "alice", NOON);
        assert_eq!((username.as_str(), password.as_str()), ("1700000000:alice", "Cd/49soE35ICqcJF/bCTn8Z4OyE="));
        let (username, password) = Credentials::mint("north", "", NOON);
        assert_eq!((username.as_str(), password.as_str()), ("1700000000", "CWyHi3zCeWqXBir9thl4m+iZPRY="));
    }

    #[test]
    fn a_user_needs_its_password() {
        let mut credentials = Credentials::new("realm");
        credentials.add_user("alice", "sesame");
        assert_eq!(account(&credentials, "alice", "sesame", NOON).as_deref(), Ok("alice"));
        assert_eq!(account(&credentials, "alice", "Sesame", NOON), Err(Cause::WrongPassword));
        assert_eq!(account(&credentials, "bob", "sesame", NOON), Err(Cause::UnknownUser));
    }

    #[test]
    fn every_secret_is_good_until_the_credential_expires() {
        let mut credentials = Credentials::new("realm");
        credentials.add_secret("old");
        credentials.add_secret("new");
        for secret in ["old", "new"] {
            let (username, password) = Credentials::mint(secret, "alice", NOON);
            assert_eq!(account(&credentials, &username, &password, NOON - 1).as_deref(), Ok("alice"), "{secret}");
            let late = account(&credentials, &username, &password, NOON);
            assert_eq!(late, Err(Cause::ExpiredCredential), "{secret}");
        }
        let (username, password) = Credentials::mint("other", "alice", NOON);
        for unix in [NOON - 1, NOON] {
            let refused = account(&credentials, &username, &password, unix);
            assert_eq!(refused, Err(Cause::WrongSecret), "what is wrong is not called late");
        }
        let (username, password) = Credentials::mint("old", "", NOON);
        assert_eq!(account(&credentials, &username, &password, NOON - 1).as_deref(), Ok(username.as_str()));
    }

    #[test]
    fn an_expired_credential_serves_what_it_has_begun() {
        let mut credentials = Credentials::new("realm");
        credentials.add_secret("north");
        let (username, password) = Credentials::mint("north", "alice", NOON);
        let bytes = signed(&username, &password);
        let message = Message::parse(&bytes).unwrap();
        assert!(credentials.verify(&message, &username, NOON + 1, false).is_err());
        assert!(credentials.verify(&message, &username, NOON + 1, true).is_ok());
    }

    #[test]
    fn a_username_that_is_no_time_is_not_minted() {
        let mut credentials = Credentials::new("realm");
        credentials.add_secret("north");
        for username in ["", ":", ":alice", "+1900000000:alice", "alice", "99999999999999999999999:alice", "1.9e9"] {
            let password = Password::of("north", username);
            let refused = account(&credentials, username, password.as_str(), NOON);
            assert_eq!(refused, Err(Cause::UnknownUser), "{username}");
        }
        let (username, password) = Credentials::mint("north", "alice", NOON);
        let without = Credentials::new("realm");
        assert_eq!(account(&without, &username, &password, NOON - 1), Err(Cause::UnknownUser), "there is no secret");
    }

    #[test]
    fn no_secret_is_printed() {
        let mut credentials = Credentials::new("realm");
        credentials.add_user("alice", "sesame");
        credentials.add_secret("north");
        let printed = format!("{credentials:?}");
        assert!(!printed.contains("sesame") && !printed.contains("north") && !printed.contains("alice"), "{printed}");
    }
}
