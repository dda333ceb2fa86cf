//! What can go wrong for a client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::address::Transport;
use hairpin_proto::stun::{ErrorCode, Method};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No response after all retransmissions (RFC 8489 section 6.2.1).
    #[error("no answer to the {} request", .0.label())]
    Timeout(Method),
    /// The server's host says that nothing listens there (ICMP, RFC 8489 section 6.2.1).
    #[error("nothing listens on the server's port")]
    Unreachable,
    /// The server refused.
    #[error("the server refused the {} request: {} {reason}", .method.label(), .code.number())]
    Rejected {
        /// Which request.
        method: Method,
        /// The code of the error response.
        code: ErrorCode,
        /// The server's words.
        reason: String,
    },
    /// The server asks to go elsewhere (300, RFC 8489 section 10), and it was not followed.
    #[error("the server asks to go to {}", list(.servers))]
    TryAlternate {
        /// Where to: ALTERNATE-SERVER, as often as it is there. Some servers give none.
        servers: Vec<SocketAddr>,
        /// What the certificate there is for: ALTERNATE-DOMAIN.
        domain: Option<String>,
    },
    /// Nobody could tell what there is to know of a name.
    #[error("cannot look up {0}: {1}")]
    Dns(String, String),
    /// DNS knows of no server of this name.
    #[error("there is no server at {0}: DNS has no records of it")]
    NoServer(String),
    /// The server is to be reached by something that the client does not speak.
    #[error("{0} asks for a transport that is not spoken here")]
    OtherTransport(String),
    /// The allocation has no ticket: the server gave none, or was asked for none (RFC 8016).
    #[error("there is no mobility ticket")]
    NoTicket,
    /// The server asks who we are, and there is nothing to tell.
    #[error("the server asks for a username and password")]
    CredentialsNeeded,
    /// The server asks for an access token (RFC 7635) or a password, and there is neither. The authorization server is to be
    /// told this name, and makes the token for it.
    #[error("the server asks for an access token for {0}")]
    TokenNeeded(String),
    /// The server's nonce says that it names algorithms for keys, and it does not: somebody on the way has taken them out
    /// (RFC 8489 section 9.2.1).
    #[error("the answer to the {} request lacks PASSWORD-ALGORITHMS, which its nonce speaks of", .0.label())]
    BidDown(Method),
    /// The server wants keys that this client cannot make (RFC 8489 section 9.2.5).
    #[error("the server knows no algorithm for keys that this client knows")]
    NoPasswordAlgorithm,
    /// All that came was not authentic: its MESSAGE-INTEGRITY is missing or wrong (RFC 8489 section 9.2.5).
    #[error("the answers to the {} request were not authentic", .0.label())]
    IntegrityViolated(Method),
    /// A success response without what it should say.
    #[error("the answer to the {} request lacks {missing}", .method.label())]
    Incomplete {
        /// Which request.
        method: Method,
        /// The attribute.
        missing: &'static str,
    },
    /// There is no channel number left.
    #[error("all channel numbers are in use")]
    NoChannelLeft,
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The connection was not made in the time that a request has.
    #[error("no connection to the server within {0:?}")]
    NotConnected(Duration),
    /// TLS could not be set up, or the server is not the one that it should be.
    #[error("TLS: {0}")]
    Tls(String),
    /// The stream to the server broke, and with it everything that was asked for over it.
    #[error("the connection to the server was lost: {0}")]
    ConnectionLost(String),
    /// This client does not speak it.
    #[error("this client does not speak {0}")]
    NoTransport(Transport),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

impl Error {
    /// The code of an error response, if it was one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rejected { code, .. } => Some(*code),
            Self::TryAlternate { .. } => Some(ErrorCode::TRY_ALTERNATE),
            _ => None,
        }
    }
}

fn list(servers: &[SocketAddr]) -> String {
    if servers.is_empty() {
        return "another server, without saying which".to_owned();
    }
    servers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" or ")
}
