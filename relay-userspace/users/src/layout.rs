//! What all databases have in common: coturn's layout, what Hairpin adds to it, and how an answer is made of it.
//!
//! What coturn has: keys of users, secrets of realms, keys of tokens. What Hairpin adds for a user of either: the key of
//! the newer password algorithm, relayed addresses that are kept for it, how many allocations it may have, and the hash
//! of its name. A user may be known to one of the two alone.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hairpin_proto::stun::{PasswordKeys, user_hash};
use hairpin_proto::turn::{TokenAlgorithm, TokenKey};

use crate::{Answer, Grant, Question, StoreError, Subject, User, hex};

/// A database with this layout.
pub(crate) trait Tables: Sync {
    /// What is kept under a name. [`has_wrong_name`] has been asked about it.
    fn user(&self, realm: &str, name: &str) -> impl Future<Output = Result<Kept, StoreError>> + Send;

    /// Whose hash this is.
    fn name_of(&self, realm: &str, hash: &[u8; 32]) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// The secrets of a realm.
    fn secrets(&self, realm: &str) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// The key of this name.
    fn token(&self, name: &str) -> impl Future<Output = Result<Option<KeptToken>, StoreError>> + Send;
}

/// What is kept of a user, by coturn and by Hairpin. Nothing: there is no such user.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) md5: Option<String>,
    pub(crate) added: Option<Added>,
}

/// What Hairpin keeps of a user.
#[derive(Default)]
pub(crate) struct Added {
    pub(crate) sha256: Option<String>,
    pub(crate) relayed_addresses: Option<String>,
    pub(crate) allocations: Option<i64>,
}

/// What is kept of a token's key.
#[derive(Default)]
pub(crate) struct KeptToken {
    /// In base64.
    pub(crate) key: String,
    pub(crate) algorithm: String,
    /// Since when, in seconds since the Unix epoch; 0: always.
    pub(crate) timestamp: i64,
    /// How many seconds from then; 0: for ever.
    pub(crate) lifetime: i64,
}

/// Answers a question from a database.
pub(crate) async fn answer(tables: &impl Tables, question: &Question) -> Result<Answer, StoreError> {
    let realm = &*question.realm;
    if has_wrong_name(realm) {
        return Ok(Answer::Refused);
    }
    match &question.subject {
        Subject::User(name) if has_wrong_name(name) => Ok(Answer::Refused),
        Subject::User(name) => {
            if let Some(user) = tables.user(realm, name).await?.user(name)? {
                return Ok(Answer::User(user));
            }
            by_secret(tables, realm, name).await
        }
        Subject::UserHash(hash) => {
            let Some(name) = tables.name_of(realm, hash).await? else { return Ok(Answer::Refused) };
            if user_hash(&name, realm) != *hash {
                return Err(wrong("userhash", "it is not SHA-256 of name:realm"));
            }
            Ok(tables.user(realm, &name).await?.user(&name)?.map_or(Answer::Refused, Answer::User))
        }
        Subject::TokenKey(name) if has_wrong_name(name) => Ok(Answer::Refused),
        Subject::TokenKey(name) => {
            let kept = tables.token(name).await?;
            let key = kept.map(|kept| kept.key(SystemTime::now())).transpose()?.flatten();
            Ok(key.map_or(Answer::Refused, Answer::TokenKey))
        }
        Subject::Admission { .. } => Ok(Answer::Refused),
    }
}

async fn by_secret(tables: &impl Tables, realm: &str, username: &str) -> Result<Answer, StoreError> {
    let Some(name) = name_behind_expiry(username) else { return Ok(Answer::Refused) };
    let secrets: Vec<_> = tables.secrets(realm).await?.into_iter().filter(|secret| !secret.is_empty()).collect();
    if secrets.is_empty() {
        return Ok(Answer::Refused);
    }
    let kept = if name.is_empty() { Kept::default() } else { tables.user(realm, name).await? };
    Ok(Answer::Secrets { secrets, grant: kept.grant()? })
}

/// The name in a username that is made of an expiry and a name, or of an expiry alone.
fn name_behind_expiry(username: &str) -> Option<&str> {
    let (expiry, name) = username.split_once(':').unwrap_or((username, ""));
    (!expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Whether nothing can have this name: PostgreSQL knows no such character, and others would end the text there.
fn has_wrong_name(name: &str) -> bool {
    name.contains('\0')
}

pub(crate) fn wrong(what: &'static str, why: impl Into<String>) -> StoreError {
    StoreError::Entry { what, why: why.into() }
}

impl Kept {
    /// The user, if what proves it is kept.
    fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let sha256 = self.added.as_ref().and_then(|added| added.sha256.as_deref());
        let Some(keys) = parse_keys(self.md5.as_deref(), sha256)? else { return Ok(None) };
        Ok(Some(User { name: name.into(), keys, grant: self.grant()?, is_admitted: false }))
    }

    fn grant(&self) -> Result<Grant, StoreError> {
        let Some(added) = &self.added else { return Ok(Grant::default()) };
        let addresses = parse_addresses(added.relayed_addresses.as_deref().unwrap_or_default())?;
        let allocations = added.allocations.map(u32::try_from).transpose();
        let allocations = allocations.map_err(|_| wrong("allocations", "it is no number of allocations"))?;
        Ok(Grant { addresses, allocations })
    }
}

/// The keys of either algorithm or of both, as digits. Blanks behind them are a column's.
pub(crate) fn parse_keys(md5: Option<&str>, sha256: Option<&str>) -> Result<Option<PasswordKeys>, StoreError> {
    let present =
        |digits: Option<&str>| digits.map(|digits| digits.trim_ascii().to_owned()).filter(|it| !it.is_empty());
    let md5 =
        present(md5).map(|digits| hex::decode(&digits).ok_or(wrong("hmackey", "it is not 32 hexadecimal digits")));
    let sha256 =
        present(sha256).map(|digits| hex::decode(&digits).ok_or(wrong("sha256", "it is not 64 hexadecimal digits")));
    Ok(match (md5.transpose()?, sha256.transpose()?) {
        (Some(md5), None) => Some(PasswordKeys::from_md5(md5)),
        (Some(md5), Some(sha256)) => Some(PasswordKeys::from_md5(md5).and_sha256(sha256)),
        (None, Some(sha256)) => Some(PasswordKeys::from_sha256(sha256)),
        (None, None) => None,
    })
}

/// Addresses with ports, between commas.
fn parse_addresses(text: &str) -> Result<Vec<SocketAddr>, StoreError> {
    let addresses = text.split(',').map(str::trim).filter(|address| !address.is_empty());
    addresses.map(parse_address).collect()
}

pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, StoreError> {
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    address.ok_or_else(|| wrong("relayed_addresses", "it is not IP:PORT, or several with commas between them"))
}

impl KeptToken {
    /// The key, if it is one of this realm and of now.
    /// Coturn names a realm beside the key. Tokens are of an audience, which is of a realm; the key may be of any.
    fn key(&self, now: SystemTime) -> Result<Option<TokenKey>, StoreError> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let is_over = self.lifetime > 0 && now > self.timestamp.saturating_add(self.lifetime);
        if is_over || now < self.timestamp {
            return Ok(None);
        }
        let name = self.algorithm.trim().to_ascii_uppercase().replace(['_', '-'], "");
        let (algorithm, length) = match name.as_str() {
            "" | "A256GCM" => (TokenAlgorithm::A256Gcm, 32),
            "A128GCM" => (TokenAlgorithm::A128Gcm, 16),
            _ => return Err(wrong("as_rs_alg", "it is neither A256GCM nor A128GCM")),
        };
        let text = self.key.trim_ascii();
        let key = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
        let key = key.map_err(|_| wrong("ikm_key", "it is not base64"))?;
        // A key may be longer than the algorithm wants: coturn takes its beginning.
        let key = key.get(..length).ok_or_else(|| wrong("ikm_key", format!("it is shorter than {length} bytes")))?;
        let key = TokenKey::new(algorithm, key).map_err(|error| wrong("ikm_key", error.to_string()))?;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_username_that_begins_with_an_expiry_has_a_name_behind_it() {
        assert_eq!(name_behind_expiry("1700000000:alice"), Some("alice"));
        assert_eq!(name_behind_expiry("1700000000:a:b"), Some("a:b"));
        assert_eq!(name_behind_expiry("1700000000"), Some(""));
        for username in ["", ":", ":alice", "alice", "alice:1700000000", "+17:alice", "17 :alice", "١٧:alice"] {
            assert_eq!(name_behind_expiry(username), None, "{username}");
        }
    }

    #[test]
    fn addresses_are_listed_with_commas() {
        let addresses = parse_addresses(" 192.0.2.1:5000,[2001:db8::1]:5001 ,").unwrap();
        assert_eq!(addresses, ["192.0.2.1:5000".parse().unwrap(), "[2001:db8::1]:5001".parse().unwrap()]);
        assert_eq!(parse_addresses("").unwrap(), []);
        for text in ["192.0.2.1", "192.0.2.1:0", "192.0.2.1:70000", "example.net:1", "192.0.2.1:1;192.0.2.1:2"] {
            assert!(parse_addresses(text).is_err(), "{text}");
        }
    }

    fn token(change: impl FnOnce(&mut KeptToken)) -> Result<Option<TokenKey>, StoreError> {
        let key = STANDARD.encode([7; 32]);
        let mut kept = KeptToken { key, timestamp: 1000, lifetime: 500, ..KeptToken::default() };
        change(&mut kept);
        kept.key(UNIX_EPOCH + Duration::from_secs(1200))
    }

    #[test]
    fn a_token_key_is_of_its_time() {
        assert!(token(|_| ()).unwrap().is_some());
        assert!(token(|kept| kept.timestamp = 1201).unwrap().is_none(), "later");
        assert!(token(|kept| kept.lifetime = 199).unwrap().is_none(), "over");
        assert!(token(|kept| kept.lifetime = 0).unwrap().is_some(), "for ever");
    }

    #[test]
    fn a_token_key_is_as_long_as_its_algorithm_wants_or_longer() {
        let bits = |algorithm: &str, length: usize| {
            token(|kept| {
                kept.algorithm = algorithm.into();
                kept.key = STANDARD.encode(vec![7; length]);
            })
            .map(|key| format!("{:?}", key.unwrap()))
        };
        assert_eq!(bits("", 33).as_deref(), Ok("TokenKey(A256Gcm, 256 bits)"));
        assert_eq!(bits("a128gcm", 16).as_deref(), Ok("TokenKey(A128Gcm, 128 bits)"));
        assert!(bits("A256GCM", 31).is_err() && bits("A128GCM", 15).is_err() && bits("HMAC", 32).is_err());
        assert!(token(|kept| kept.key = "!".into()).is_err());
    }
}
