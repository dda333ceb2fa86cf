//! Access tokens of third-party authorization (RFC 7635).
//!
//! An authorization server gives the client a key for its messages, and the same key once more, sealed for the relay, as the
//! token. The client cannot read it and sends it along; the relay need not know the client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::stun::LongTermKey;

/// How tokens are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// AEAD_AES_128_GCM, with a key of 16 bytes.
    A128Gcm,
    /// AEAD_AES_256_GCM, with a key of 32 bytes.
    A256Gcm,
}

/// A key that authorization server and relay share.
#[derive(Clone)]
pub struct TokenKey {
    algorithm: TokenAlgorithm,
    key: Arc<LessSafeKey>,
}

/// Why a key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// It has another length than the algorithm wants.
    #[error("a key of {found} bytes where the algorithm wants {wanted}")]
    Length {
        /// What it has.
        found: usize,
        /// What it should have.
        wanted: usize,
    },
}

/// Why a token is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has not the form of a token, or is longer than one can be.
    #[error("not a token")]
    Malformed,
    /// It was not sealed with this key, or for a server of another name, or was changed since.
    #[error("not sealed with this key for this server")]
    Forged,
    /// Who has sealed it has put in something else than RFC 7635 section 6.2 says, or a key that is too short or too long.
    #[error("what was sealed is not what a token has")]
    Content,
}

/// What is in a token (RFC 7635 section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// What the client signs its messages with.
    pub mac_key: MacKey,
    /// When the token was made.
    pub timestamp: TokenTimestamp,
    /// How long it is good from then on, in seconds.
    pub lifetime: u32,
}

/// The key of a token: as long as a key of HMAC is of use.
#[derive(Clone, PartialEq, Eq)]
pub struct MacKey {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

/// A point in time as tokens have it: seconds since the Unix epoch in the upper 48 bits, 1/64000 of them in the lower 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenTimestamp(pub u64);

/// How far the clocks may be apart (RFC 7635 section 7, where it is Delta).
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// The length of the nonce, in front of it.
const LENGTH_LEN: usize = 2;
const TAG_LEN: usize = 16;
/// Timestamp and lifetime.
const TIMES_LEN: usize = 8 + 4;
/// What is sealed: the length of the key, the key, the times.
const BLOCK_MAX_LEN: usize = LENGTH_LEN + MacKey::MAX_LEN + TIMES_LEN;

impl TokenKey {
    /// A key for an algorithm.
    pub fn new(algorithm: TokenAlgorithm, key: &[u8]) -> Result<Self, TokenKeyError> {
        let aead = match algorithm {
            TokenAlgorithm::A128Gcm => &AES_128_GCM,
            TokenAlgorithm::A256Gcm => &AES_256_GCM,
        };
        let length = TokenKeyError::Length { found: key.len(), wanted: aead.key_len() };
        let key = UnboundKey::new(aead, key).map_err(|_| length)?;
        Ok(Self { algorithm, key: Arc::new(LessSafeKey::new(key)) })
    }

    /// Opens a token that was sealed for the server of this name, which it tells its clients in THIRD-PARTY-AUTHORIZATION.
    ///
    /// Takes no memory, whatever somebody sends. Whether the token is good still is to be asked then, of
    /// [`AccessToken::remaining`].
    pub fn open(&self, token: &[u8], server_name: &str) -> Result<AccessToken, TokenError> {
        let (length, rest) = token.split_first_chunk::<LENGTH_LEN>().ok_or(TokenError::Malformed)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(TokenError::Malformed)?;
        let mut buffer = [0; BLOCK_MAX_LEN + TAG_LEN];
        let block = buffer.get_mut(..sealed.len()).ok_or(TokenError::Malformed)?;
        if usize::from(u16::from_be_bytes(*length)) != nonce.len() || sealed.len() < TAG_LEN {
            return Err(TokenError::Malformed);
        }
        block.copy_from_slice(sealed);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let block = self.key.open_in_place(nonce, Aad::from(server_name), block).map_err(|_| TokenError::Forged)?;
        AccessToken::decode(block).ok_or(TokenError::Content)
    }

    /// Seals a token for the server of this name. No two tokens of a key may have the same nonce.
    pub fn seal(&self, server_name: &str, token: &AccessToken, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_MAX_LEN + TAG_LEN);
        token.encode(&mut block);
        let aad = Aad::from(server_name);
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut block)
            .expect("a block is far shorter than what AES-GCM seals at once");
        let mut sealed = Vec::with_capacity(LENGTH_LEN + NONCE_LEN + block.len());
        sealed.extend_from_slice(&(NONCE_LEN as u16).to_be_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&block);
        sealed
    }
}

impl AccessToken {
    /// How long the token is good from now on, `unix` seconds since the Unix epoch. None, if it is not (any more).
    ///
    /// It is what RFC 7635 sections 7 and 9 reckon: the lifetime, and five seconds for clocks that differ, less the time
    /// between then and now. So a token from the future is not good for longer either.
    pub fn remaining(&self, unix: u64) -> Option<Duration> {
        let elapsed = Duration::from_secs(unix).abs_diff(self.timestamp.since_epoch());
        let lifetime = Duration::from_secs(self.lifetime.into()) + CLOCK_TOLERANCE;
        lifetime.checked_sub(elapsed).filter(|remaining| !remaining.is_zero())
    }

    fn decode(block: &[u8]) -> Option<Self> {
        let (length, rest) = block.split_first_chunk::<LENGTH_LEN>()?;
        let (key, times) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (timestamp, lifetime) = times.split_first_chunk::<8>()?;
        Some(Self {
            mac_key: MacKey::new(key)?,
            timestamp: TokenTimestamp(u64::from_be_bytes(*timestamp)),
            lifetime: u32::from_be_bytes(lifetime.try_into().ok()?),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let key = self.mac_key.as_bytes();
        out.extend_from_slice(&(key.len() as u16).to_be_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(&self.timestamp.0.to_be_bytes());
        out.extend_from_slice(&self.lifetime.to_be_bytes());
    }
}

impl MacKey {
    /// Shorter ones can be guessed by who has seen one message. RFC 7635 section 6.2 wants 20 bytes to be supported.
    const MIN_LEN: usize = 16;
    /// HMAC makes longer ones into shorter ones.
    const MAX_LEN: usize = 64;

    /// A key of 16 to 64 bytes.
    pub fn new(key: &[u8]) -> Option<Self> {
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&key.len()) {
            return None;
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..key.len()].copy_from_slice(key);
        Some(Self { bytes, len: key.len() as u8 })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// What signs and verifies with it: nothing is hashed before (RFC 7635 section 5).
    pub fn to_key(&self) -> LongTermKey {
        LongTermKey::from_bytes(self.as_bytes())
    }

    /// What signs and verifies with it in coturn and in clients made for it, if that is another key: the first 16 bytes. Coturn
    /// wants 20 in a token, but then takes them for a key made by MD5, which has no more.
    pub fn to_key_of_coturn(&self) -> Option<LongTermKey> {
        let (first, rest) = self.as_bytes().split_first_chunk::<16>()?;
        (!rest.is_empty()).then(|| LongTermKey::from_bytes(first))
    }
}

impl TokenTimestamp {
    /// Nanoseconds of 1/64000 second.
    const FRACTION_NANOS: u32 = 15_625;

    /// A whole second since the Unix epoch.
    pub fn from_unix(unix: u64) -> Self {
        Self(unix << 16)
    }

    fn since_epoch(self) -> Duration {
        let fraction = u32::from(self.0 as u16) * Self::FRACTION_NANOS;
        // More than 63999 of them are more than a second: what that means is the issuer's affair.
        Duration::from_secs(self.0 >> 16) + Duration::from_nanos(fraction.into())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of every log.
        let bits = self.key.algorithm().key_len() * 8;
        write!(f, "TokenKey({:?}, {bits} bits)", self.algorithm)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacKey({} bits)", self.as_bytes().len() * 8)
    }
}
