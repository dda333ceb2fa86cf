//! A TURN client (RFC 8656) over UDP, TCP and TLS: the load generator, the tests and the lab drive servers with it, any server.
//!
//! - [`Session`] is the protocol without sockets and clock: requests, retransmissions, authentication, renewals. It is
//!   given datagrams and the time, and says what to send and until when to wait.
//! - [`Client`] is a session with sockets of tokio, with one `async` method for each request.
//! - [`Pipe`] cuts messages out of a stream and puts them in, plain or within TLS, on any socket that does not block.
//! - [`Resolver`] asks DNS which servers a [`ServerUri`] stands for, and [`resolution`] is the order in which they are tried.
//! - [`frame`] writes application data as ChannelData and as Send indications.
//!
//! A session keeps what it has: allocation, permissions and channels are renewed before they expire, until the session
//! is dropped or the allocation is released.

mod alternate;
mod challenge;
mod client;
mod connection;
mod credentials;
mod discovery;
mod dns;
mod error;
pub mod frame;
mod link;
mod moving;
mod pending;
mod pipe;
mod renewal;
mod request;
pub mod resolution;
mod session;
mod timing;
mod tls;
mod uri;

pub use alternate::Redirect;
pub use client::{Client, Datagram, Options};
pub use connection::DataConnection;
pub use credentials::{Credentials, Security, TokenCredential};
pub use discovery::{Behaviour, Prober};
pub use dns::Resolver;
pub use error::Error;
pub use hairpin_proto::address::Transport;
pub use pipe::Pipe;
pub use request::{AllocateOptions, Allocation, Outcome, Probe, Probed, Request};
pub use session::{ConnectionAttempt, Event, Received, RequestId, Session, Settings};
pub use timing::Timing;
pub use tls::{ALPN_TURN, Tls, TlsOptions, Trust};
pub use uri::{Host, ServerUri, UriError};

use hairpin_proto::stun::TransactionId;
use ring::rand::{SecureRandom, SystemRandom};

/// A source of transaction ids from the system's random numbers (RFC 8489 section 5 asks for cryptographic ones).
pub fn random_ids() -> impl FnMut() -> TransactionId + Send {
    let random = SystemRandom::new();
    move || {
        let mut id = [0; 12];
        random.fill(&mut id).expect("a system without random numbers can't do any of this");
        TransactionId(id)
    }
}
