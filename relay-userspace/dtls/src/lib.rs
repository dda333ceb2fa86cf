//! DTLS 1.2 (RFC 6347) for STUN and TURN (RFC 7350), without sockets: datagrams go in, plaintexts and datagrams come out.
//!
//! - [`ServerContext`] has the certificates, and answers the first datagrams of a client without keeping anything: only
//!   a client that has shown by a cookie that it receives at its address gets a [`Session`] (RFC 6347 section 4.2.1).
//! - [`ClientContext`] has the roots that a client trusts, and begins sessions with servers.
//! - [`Session`] is one association, of either side.
//!
//! The cryptography and the state machine of the handshake are OpenSSL's. What is ours is all around it: datagrams in
//! memory, the cookie, the choice of a certificate, and which errors end a session. A session belongs to whoever calls
//! it and has no thread, no lock and no socket.
//!
//! # The loop around a session
//!
//! After each [`receive`](Session::receive) and [`handle_timeout`](Session::handle_timeout), take plaintexts until
//! there is none, then datagrams until there is none, then look whether the session is closed. What
//! [`send`](Session::send) makes is a datagram to take, too. While [`poll_timeout`](Session::poll_timeout) says a time,
//! call `handle_timeout` after it. OpenSSL reads the clock for the retransmissions of a handshake; nothing else here
//! does, but for the moment that a server's cookies count from.
//!
//! How long a handshake may take, how many may be under way and how long an association may be silent is for the caller
//! to say: a session that nobody answers gives up by itself only after a dozen retransmissions, the later ones a minute
//! apart.

mod certificate;
mod client;
mod cookie;
mod error;
mod ffi;
mod hello;
mod record;
mod server;
mod session;
mod settings;
mod wire;

pub use certificate::{CertificateError, CertifiedKey, Details, Pem, Validity, details, validity};
pub use client::{ClientContext, Roots};
pub use error::{Error, SetupError};
pub use server::{Hello, ServerContext};
pub use session::{MAX_PLAINTEXT, Session};
pub use settings::{ALPN_NAT_DISCOVERY, ALPN_TURN, HANDSHAKE_MTU};

/// Name and version of the library that this process has loaded, such as `OpenSSL 3.0.17 1 Jul 2025`.
pub fn library() -> &'static str {
    openssl::version::version()
}
