//! What a server asks about users that it was not told of, and what it is told.
//!
//! Whoever drives the server finds the answers, in a database or wherever users are kept, and takes its time: meanwhile
//! the server knows nothing of the request, until it is brought again.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::token::TokenKey;
use crate::address::Transport;
use crate::stun::PasswordKeys;

/// What is asked, and about whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The realm whose users are meant.
    pub realm: Arc<str>,
    /// What is asked.
    pub subject: Subject,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where it has reached the server.
    pub server: SocketAddr,
    /// How.
    pub transport: Transport,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Who has this username? It has been prepared, and was not proven yet. The answer is [`Answer::User`],
    /// [`Answer::Secrets`] or [`Answer::Refused`].
    User(Box<str>),
    /// Whose username and realm have this hash (USERHASH, RFC 8489 section 14.4)? Answered by [`Answer::User`] or
    /// [`Answer::Refused`].
    UserHash([u8; 32]),
    /// Which key opens the tokens of this name (RFC 7635)? Answered by [`Answer::TokenKey`] or [`Answer::Refused`].
    TokenKey(Box<str>),
    /// May this user, who has proven to be it, have an allocation? Answered by [`Answer::Admitted`] or
    /// [`Answer::Refused`].
    Admission {
        /// The whole username.
        username: Box<str>,
        /// Whose quota counts: the name without the expiry.
        account: Box<str>,
    },
}

/// What the server is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// There is such a user.
    User(User),
    /// The user is nobody in particular: whoever has a credential that was made with one of these secrets is let in, as
    /// by [`Credentials::add_secret`](super::Credentials::add_secret).
    Secrets {
        /// The secrets.
        secrets: Vec<String>,
        /// What the one who is asked about may have.
        grant: Grant,
    },
    /// There is such a key.
    TokenKey(TokenKey),
    /// The user may.
    Admitted(Grant),
    /// There is no such user or key, or the user may not.
    Refused,
    /// Nobody could tell in time. The client is told to try again (500).
    Unavailable,
}

/// A user and what it signs with.
#[derive(Clone, Debug)]
pub struct User {
    /// The username.
    pub name: Box<str>,
    /// Keys made from the password.
    pub keys: PasswordKeys,
    /// What the user may have.
    pub grant: Grant,
    /// Whether whoever told of the user has let it in already, so that nobody is asked for its admission.
    pub is_admitted: bool,
}

/// What a user may have that is another thing for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Relayed transport addresses that are kept for this user, as the world knows them. None: any that is free will do.
    pub addresses: Vec<SocketAddr>,
    /// How many allocations it may have; none: as many as others.
    pub allocations: Option<u32>,
}

impl Grant {
    /// What is granted here, and what is not said here by another one.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let addresses = if self.addresses.is_empty() { &other.addresses } else { &self.addresses };
        Self { addresses: addresses.clone(), allocations: self.allocations.or(other.allocations) }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(_) => f.write_str("user"),
            Self::UserHash(_) => f.write_str("user hash"),
            Self::TokenKey(_) => f.write_str("token key"),
            Self::Admission { .. } => f.write_str("admission"),
        }
    }
}
