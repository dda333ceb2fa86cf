//! What carries messages to the server and back: one variant for each transport.
//!
//! Each link has the same four methods. `receive` is called by the client's task only, in a loop, and is what drives a
//! link that has more to do than to receive; it may be dropped at any of its awaits.

mod stream;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::address::Transport;

use self::stream::StreamLink;
pub(crate) use self::stream::{Nonblocking, connect as connect_stream};
use self::udp::UdpLink;
use crate::error::Error;
use crate::tls::TlsOptions;

/// Where a link leads and how.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) server: SocketAddr,
    /// By default any address, with a free port.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) transport: Transport,
    pub(crate) tls: Option<TlsOptions>,
    /// How long it may take to connect.
    pub(crate) patience: Duration,
}

/// A way to the server.
#[derive(Debug)]
pub(crate) enum Link {
    Udp(UdpLink),
    Stream(Box<StreamLink>),
}

/// A link, and where it leads.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) route: Route,
    pub(crate) link: Link,
}

impl Way {
    pub(crate) async fn open(route: Route) -> Result<Self, Error> {
        Ok(Self { link: Link::open(&route).await?, route })
    }
}

/// Why a message was not received.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server's host says that nothing listens there.
    Unreachable,
    /// It was about one packet; a request that suffers times out.
    Passing,
    /// Nothing will come any more.
    Lost(String),
}

impl Link {
    pub(crate) async fn open(route: &Route) -> Result<Self, Error> {
        match route.transport {
            Transport::Udp => UdpLink::open(route).await.map(Self::Udp),
            Transport::Tcp | Transport::Tls => StreamLink::open(route).await.map(Box::new).map(Self::Stream),
            Transport::Dtls => Err(Error::NoTransport(route.transport)),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Udp(link) => link.local_addr(),
            Self::Stream(link) => link.local_addr(),
        }
    }

    /// The protocol that was agreed upon by ALPN.
    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        match self {
            Self::Udp(_) => None,
            Self::Stream(link) => link.alpn(),
        }
    }

    /// Sends a request without waiting. What cannot go now goes later, or is lost and sent again.
    pub(crate) fn post(&self, message: &[u8]) {
        match self {
            Self::Udp(link) => link.post(message),
            Self::Stream(link) => link.post(message),
        }
    }

    /// Sends a message, once there is room for it.
    pub(crate) async fn send(&self, message: &[u8]) -> Result<(), Error> {
        match self {
            Self::Udp(link) => link.send(message).await,
            Self::Stream(link) => link.send(message).await,
        }
    }

    /// Waits for a message, and puts it into the buffer in place of what was there.
    pub(crate) async fn receive(&self, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Udp(link) => link.receive(buffer).await,
            Self::Stream(link) => link.receive(buffer).await,
        }
    }
}
