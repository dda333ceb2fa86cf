//! Who may relay: users with a password, and users with credentials that expire.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;

use super::cause::Cause;
use super::directory::{Grant, User};
use super::token::TokenKey;
use crate::stun::prepare::opaque_string;
use crate::stun::{LongTermKey, Message, PasswordAlgorithm, PasswordKeys, hmac_sha1, user_hash};

/// Between expiry and name in the username of a credential that expires.
const SEPARATOR: char = ':';

/// Long-term credentials (RFC 8489 section 9.2) of two kinds.
///
/// - Users with a password, known in advance.
/// - The scheme known as REST API or `use-auth-secret`: whoever knows a secret that is shared with the server makes
///   credentials without telling it. The username is `expiry` or `expiry:name`, with the expiry in seconds since the
///   Unix epoch; the password is the base64 of HMAC-SHA1 of the username under the secret. Several secrets may be valid
///   at once, so that one can be replaced.
///
/// And the keys of access tokens (RFC 7635), by their names.
#[derive(Clone)]
pub struct Credentials {
    realm: String,
    users: HashMap<Box<str>, Arc<User>>,
    by_hash: HashMap<[u8; 32], Arc<User>>,
    secrets: Vec<String>,
    /// What those may have who are known by a secret or a token.
    grants: HashMap<Box<str>, Grant>,
    token_keys: HashMap<Box<str>, TokenKey>,
}

impl Credentials {
    /// No credentials: nobody may relay.
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            users: HashMap::new(),
            by_hash: HashMap::new(),
            secrets: Vec::new(),
            grants: HashMap::new(),
            token_keys: HashMap::new(),
        }
    }

    /// Lets a user relay. The password is not kept, only the keys that are made from it.
    pub fn add_user(&mut self, name: &str, password: &str) {
        self.add_keys(name, PasswordKeys::derive(name, &self.realm, password));
        // Clients have to prepare names (RFC 8489 section 14.3), and there are those that know nothing of it.
        let prepared = opaque_string(name);
        if prepared != name {
            self.add_keys(&prepared, PasswordKeys::derive(&prepared, &self.realm, password));
        }
    }

    /// Lets a user relay who signs with these keys.
    pub fn add_keys(&mut self, name: &str, keys: PasswordKeys) {
        let grant = self.grants.get(name).cloned().unwrap_or_default();
        let user = Arc::new(User { name: name.into(), keys, grant, is_admitted: false });
        self.by_hash.insert(user_hash(name, &self.realm), Arc::clone(&user));
        self.users.insert(name.into(), user);
    }

    /// Says what somebody may have: a user that is added afterwards, or who has a credential that expires and this name in
    /// it, or a token whose key has this name.
    pub fn grant(&mut self, name: &str, grant: Grant) {
        self.grants.insert(name.into(), grant);
    }

    /// Lets everybody relay who has a credential made with this secret.
    pub fn add_secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// Lets everybody relay who has an access token that was sealed with this key. With another name for each, several are
    /// valid at once, so that one can be replaced.
    pub fn add_token_key(&mut self, name: &str, key: TokenKey) {
        self.token_keys.insert(name.into(), key);
    }

    /// Makes a credential that expires at `expires_unix` (seconds since the Unix epoch), as username and password. The
    /// name may be empty.
    pub fn mint(secret: &str, name: &str, expires_unix: u64) -> (String, String) {
        let username =
            if name.is_empty() { expires_unix.to_string() } else { format!("{expires_unix}{SEPARATOR}{name}") };
        let password = Password::of(secret, &username).as_str().to_owned();
        (username, password)
    }

    pub(super) fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    pub(super) fn user_of_hash(&self, hash: &[u8; 32]) -> Option<&Arc<User>> {
        self.by_hash.get(hash)
    }

    pub(super) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    pub(super) fn granted(&self, account: &str) -> Grant {
        self.grants.get(account).cloned().unwrap_or_default()
    }

    /// For whom an address is kept.
    pub(super) fn keepers_of(&self, address: SocketAddr) -> impl Iterator<Item = &str> {
        self.grants.iter().filter(move |(_, grant)| grant.addresses.contains(&address)).map(|(name, _)| &**name)
    }

    pub(super) fn token_key(&self, name: &str) -> Option<&TokenKey> {
        self.token_keys.get(name)
    }
}

/// The key that a message was signed with, if it was one of a user's.
pub(super) fn signed_by_user(
    message: &Message<'_>,
    keys: &PasswordKeys,
    algorithm: PasswordAlgorithm,
) -> Result<LongTermKey, Cause> {
    let mut has_key = false;
    for key in keys.for_algorithm(algorithm) {
        has_key = true;
        if message.verify_integrity(key) {
            return Ok(key.clone());
        }
    }
    Err(if has_key { Cause::WrongPassword } else { Cause::NoKeyOfAlgorithm })
}

/// The key that a message was signed with, if its password was made with one of these secrets.
///
/// `established` says that this very username has made the allocation that the message is about. Then its expiry is not
/// asked for: it limits who may start to relay, and a call that has begun is not cut off, because its client has no way
/// to get another username into it.
///
/// That a credential has expired is only said of one that was right.
pub(super) fn signed_by_secret(
    message: &Message<'_>,
    secrets: &[String],
    (username, realm): (&str, &str),
    algorithm: PasswordAlgorithm,
    unix: u64,
    established: bool,
) -> Result<LongTermKey, Cause> {
    let (expires, _) = expiry_and_name(username).ok_or(Cause::UnknownUser)?;
    let key = secrets.iter().find_map(|secret| {
        let keys = PasswordKeys::derive(username, realm, Password::of(secret, username).as_str());
        keys.for_algorithm(algorithm).find(|key| message.verify_integrity(key)).cloned()
    });
    let key = key.ok_or(Cause::WrongSecret)?;
    if unix >= expires && !established { Err(Cause::ExpiredCredential) } else { Ok(key) }
}

/// Whose quota counts: the name without the expiry, since a new credential makes no new user.
pub(super) fn account_of(username: &str) -> &str {
    expiry_and_name(username).map_or(username, |(_, name)| name)
}

/// What the username of a credential that expires says.
pub(super) fn expiry_and_name(username: &str) -> Option<(u64, &str)> {
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
            .field("token_keys", &self.token_keys.len())
            .finish_non_exhaustive()
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

    /// Whether somebody is let in by one of the secrets.
    fn let_in(
        secrets: &[&str],
        (username, password): (&str, &str),
        unix: u64,
        established: bool,
    ) -> Result<String, Cause> {
        let bytes = signed(username, password);
        let message = Message::parse(&bytes).unwrap();
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let names = (username, "realm");
        signed_by_secret(&message, &secrets, names, PasswordAlgorithm::Md5, unix, established)?;
        Ok(account_of(username).to_owned())
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
        credentials.grant("alice", Grant { allocations: Some(3), ..Grant::default() });
        credentials.add_user("alice", "sesame");
        let user = credentials.user("alice").unwrap();
        let hashed = credentials.user_of_hash(&user_hash("alice", "realm")).unwrap();
        assert!(Arc::ptr_eq(user, hashed) && user.grant.allocations == Some(3));
        let by = |password| {
            let bytes = signed("alice", password);
            signed_by_user(&Message::parse(&bytes).unwrap(), &user.keys, PasswordAlgorithm::Md5).map(|_| ())
        };
        assert_eq!([by("sesame"), by("Sesame")], [Ok(()), Err(Cause::WrongPassword)]);
        assert!(credentials.user("bob").is_none() && credentials.user_of_hash(&[0; 32]).is_none());
    }

    #[test]
    fn who_has_no_key_of_the_algorithm_is_told_apart() {
        let keys = PasswordKeys::from_md5([7; 16]);
        let bytes = signed("alice", "sesame");
        let message = Message::parse(&bytes).unwrap();
        let of = |algorithm| signed_by_user(&message, &keys, algorithm).map(|_| ());
        assert_eq!(of(PasswordAlgorithm::Md5), Err(Cause::WrongPassword));
        assert_eq!(of(PasswordAlgorithm::Sha256), Err(Cause::NoKeyOfAlgorithm));
    }

    #[test]
    fn every_secret_is_good_until_the_credential_expires() {
        let secrets = ["old", "new"];
        for secret in secrets {
            let (username, password) = Credentials::mint(secret, "alice", NOON);
            let at = |unix| let_in(&secrets, (&username, &password), unix, false);
            assert_eq!(at(NOON - 1).as_deref(), Ok("alice"), "{secret}");
            assert_eq!(at(NOON), Err(Cause::ExpiredCredential), "{secret}");
        }
        let (username, password) = Credentials::mint("other", "alice", NOON);
        for unix in [NOON - 1, NOON] {
            let refused = let_in(&secrets, (&username, &password), unix, false);
            assert_eq!(refused, Err(Cause::WrongSecret), "what is wrong is not called late");
        }
        let (username, password) = Credentials::mint("old", "", NOON);
        let nameless = let_in(&secrets, (&username, &password), NOON - 1, false);
        assert_eq!(nameless.as_deref(), Ok(username.as_str()));
    }

    #[test]
    fn an_expired_credential_serves_what_it_has_begun() {
        let (username, password) = Credentials::mint("north", "alice", NOON);
        let late = |established| let_in(&["north"], (&username, &password), NOON + 1, established);
        assert!(late(false).is_err() && late(true).is_ok());
    }

    #[test]
    fn a_username_that_is_no_time_is_not_minted() {
        for username in ["", ":", ":alice", "+1900000000:alice", "alice", "99999999999999999999999:alice", "1.9e9"] {
            let password = Password::of("north", username);
            let refused = let_in(&["north"], (username, password.as_str()), NOON, false);
            assert_eq!(refused, Err(Cause::UnknownUser), "{username}");
            assert_eq!(account_of(username), username);
        }
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
