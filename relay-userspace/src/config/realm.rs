//! Who may relay, as an operator says it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hairpin_proto::address::Transport;
use hairpin_proto::turn::{TokenAlgorithm, TokenKey};
use hairpin_users::StoreUrl;
use hairpin_users::users_file::UserLine;

/// A realm: users, secrets and quotas of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Realm {
    /// What clients are told.
    pub name: String,
    /// Whose clients those are who have come by one of these listeners.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// And those who have asked for one of these names in a handshake, in lower case.
    pub server_names: Vec<String>,
    /// Who may relay.
    pub authentication: Authentication,
    /// Relayed addresses that only one user gets each, by its name.
    pub reserved_addresses: Vec<ReservedAddress>,
    /// Files that some of this comes from, which are read again when they change.
    pub files: Vec<PathBuf>,
    /// What clients may make their keys by.
    pub password_algorithms: PasswordAlgorithms,
    /// The name of this server in access tokens; none: they are not taken.
    pub token_audience: Option<String>,
    /// What access tokens are sealed with.
    pub token_keys: Vec<NamedTokenKey>,
    /// How many allocations there may be in the realm; none: as many as there may be at all.
    pub max_allocations: Option<u32>,
    /// How many of them one user may have; none: three quarters of all.
    pub max_allocations_per_user: Option<u32>,
}

/// Who may relay.
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// What the operator said.
    Given {
        /// Users with a password, or the keys made from it, each.
        users: Vec<UserLine>,
        /// Secrets for credentials that expire.
        secrets: Vec<String>,
    },
    /// Nothing was said: a secret of this relay's own.
    Generated {
        /// Where it is kept.
        state_dir: PathBuf,
    },
}

/// What clients may make their keys by (PASSWORD-ALGORITHMS, RFC 8489 section 14.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PasswordAlgorithms {
    /// SHA-256 too, unless there are user stores, or users of whom only the MD5 hash is known
    #[default]
    Auto,
    /// SHA-256 and MD5: whoever chooses SHA-256 and has no such key is refused
    All,
    /// MD5 only
    Md5,
}

/// A relayed address that only one user gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedAddress {
    /// Who: a user, the part behind the expiry of a credential that expires, or the name of a token's key.
    pub name: String,
    /// As the world sees it.
    pub address: SocketAddr,
}

/// A key of access tokens (RFC 7635).
#[derive(Clone, PartialEq, Eq)]
pub struct NamedTokenKey {
    /// What clients call it, as their username.
    pub name: String,
    /// How it seals.
    pub algorithm: TokenAlgorithm,
    /// The key, of the length that the algorithm wants.
    pub key: Vec<u8>,
}

impl NamedTokenKey {
    /// The key itself.
    pub fn key(&self) -> TokenKey {
        TokenKey::new(self.algorithm, &self.key).expect("its length was checked")
    }
}

impl fmt::Debug for NamedTokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedTokenKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who is asked about users that the configuration does not know.
#[derive(Clone, PartialEq, Eq)]
pub struct Directory {
    /// Databases, in the order in which they are asked.
    pub stores: Vec<StoreUrl>,
    /// An application that is asked over HTTP.
    pub webhook: Option<Webhook>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long an answer holds.
    pub cache: Duration,
}

impl Directory {
    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.stores.is_empty() && self.webhook.is_none()
    }
}

/// An application that is asked over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where.
    pub url: String,
    /// What it is shown.
    pub token: Option<String>,
    /// The authorities that may have signed its certificate, else those of the system.
    pub authorities: Option<PathBuf>,
}
