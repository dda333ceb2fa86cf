//! Users in a file, one a line: `name:password`, or the keys that were made from the password.
//!
//! - `name:password` — all behind the first colon is the password, colons and spaces too.
//! - `name:0x<32 hex>` — MD5 of `name:realm:password`, as coturn's `turnserver.conf` has it.
//! - `name:hashed:md5=<32 hex>[,sha256=<64 hex>]` — the keys of both password algorithms.
//!
//! A line that is empty, or whose first character but spaces is `#`, is none of a user's.

use std::fmt;

use hairpin_proto::stun::{PasswordKeys, opaque_string};
use md5::{Digest, Md5};
use ring::digest;

use crate::hex;

/// The most bytes of a USERNAME (RFC 8489 section 14.3: fewer than 509).
const LONGEST_NAME: usize = 508;

/// What some editors put before the first line.
const MARK: char = '\u{feff}';

/// A user as a line has it.
#[derive(Clone, PartialEq, Eq)]
pub struct UserLine {
    /// The username.
    pub name: String,
    /// What proves it.
    pub secret: Secret,
}

/// What proves a user.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Password(String),
    /// Keys that were made from it, for one realm.
    Keys {
        /// MD5 of `name:realm:password`.
        md5: [u8; 16],
        /// SHA-256 of the same.
        sha256: Option<[u8; 32]>,
    },
}

/// Why a line is none of a user's. What it says is not repeated: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserLineError {
    /// No colon.
    #[error("no colon: a line is NAME:PASSWORD, NAME:0xMD5 or NAME:hashed:md5=MD5[,sha256=SHA256]")]
    NoColon,
    /// Nothing before the colon.
    #[error("no name before the first colon")]
    NoName,
    /// More before the colon than a username can have, or what no username has.
    #[error("a name is at most {LONGEST_NAME} bytes, without colons and control characters, and does not begin with #")]
    Name,
    /// Nothing behind the colon.
    #[error("no password behind the first colon")]
    NoPassword,
    /// What begins as a key is none.
    #[error("a key is written 0x and 32 hexadecimal digits, or hashed:md5=(32 digits)[,sha256=(64 digits)]")]
    Key,
}

/// A user of a file, or why its line is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct UsersFileError {
    /// Which line; the first is 1.
    pub line: usize,
    /// What is wrong with it.
    pub error: UserLineError,
}

/// The users of a file, in its order.
pub fn parse_users(text: &str) -> Result<Vec<UserLine>, UsersFileError> {
    let lines = text.strip_prefix(MARK).unwrap_or(text).lines().enumerate();
    lines
        .filter(|(_, line)| !is_blank(line))
        .map(|(index, line)| parse_user(line).map_err(|error| UsersFileError { line: index + 1, error }))
        .collect()
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The user of one line, which is neither empty nor a comment.
pub fn parse_user(line: &str) -> Result<UserLine, UserLineError> {
    let (name, rest) = line.split_once(':').ok_or(UserLineError::NoColon)?;
    check_name(name)?;
    let secret = match (rest.strip_prefix("0x"), rest.strip_prefix("hashed:")) {
        _ if rest.is_empty() => return Err(UserLineError::NoPassword),
        (Some(md5), _) => Secret::Keys { md5: parse_key(md5)?, sha256: None },
        (_, Some(keys)) => parse_keys(keys)?,
        (None, None) => Secret::Password(rest.to_owned()),
    };
    Ok(UserLine { name: name.to_owned(), secret })
}

fn check_name(name: &str) -> Result<(), UserLineError> {
    if name.is_empty() {
        return Err(UserLineError::NoName);
    }
    // A mark of byte order is of the file, not of a name.
    let is_wrong = name.len() > LONGEST_NAME || name.contains(char::is_control) || name.starts_with(MARK);
    if is_wrong { Err(UserLineError::Name) } else { Ok(()) }
}

/// `md5=…[,sha256=…]`.
fn parse_keys(keys: &str) -> Result<Secret, UserLineError> {
    let keys = keys.trim_end().strip_prefix("md5=").ok_or(UserLineError::Key)?;
    let (md5, rest) = keys.split_once(',').map_or((keys, None), |(md5, rest)| (md5, Some(rest)));
    let sha256 = rest.map(|rest| parse_key(rest.strip_prefix("sha256=").ok_or(UserLineError::Key)?)).transpose()?;
    Ok(Secret::Keys { md5: parse_key(md5)?, sha256 })
}

fn parse_key<const N: usize>(digits: &str) -> Result<[u8; N], UserLineError> {
    hex::decode(digits.trim_end()).ok_or(UserLineError::Key)
}

/// The line of a user whose password is not to be in the file, or why there is none. The keys are of one realm.
pub fn hashed_line(name: &str, realm: &str, password: &str) -> Result<String, UserLineError> {
    check_name(name)?;
    // These would be another user's line, or nobody's.
    if name.contains(':') || is_blank(name) {
        return Err(UserLineError::Name);
    }
    if password.is_empty() {
        return Err(UserLineError::NoPassword);
    }
    let text = [name, realm, password].map(opaque_string).join(":");
    let (md5, sha256) = (Md5::digest(&text), digest::digest(&digest::SHA256, text.as_bytes()));
    Ok(format!("{name}:hashed:md5={},sha256={}", hex::encode(&md5), hex::encode(sha256.as_ref())))
}

impl UserLine {
    /// What the user signs with.
    pub fn keys(&self, realm: &str) -> PasswordKeys {
        match &self.secret {
            Secret::Password(password) => PasswordKeys::derive(&opaque_string(&self.name), realm, password),
            Secret::Keys { md5, sha256: None } => PasswordKeys::from_md5(*md5),
            Secret::Keys { md5, sha256: Some(sha256) } => PasswordKeys::from_md5(*md5).and_sha256(*sha256),
        }
    }
}

impl fmt::Debug for UserLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What proves a user stays out of every log.
        write!(f, "UserLine({:?}, ..)", self.name)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Keys { .. } => "Keys(..)",
        })
    }
}
