//! Connections to peers over TCP allocations (RFC 6062).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hairpin_proto::stun::attribute::ConnectionId;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::client::Client;
use crate::error::Error;
use crate::link::{Nonblocking, Route, connect_stream};
use crate::pipe::Pipe;
use crate::request::{Outcome, Request};
use crate::session::{ConnectionAttempt, Event, Session};

/// So much may wait to be written before writing waits.
const ROOM: usize = 64 << 10;

impl Client {
    /// Connects the relayed address to a peer (RFC 6062 section 4.3); the result is for [`Client::bind_connection`].
    pub async fn connect_peer(&self, peer: SocketAddr) -> Result<ConnectionId, Error> {
        match self.request(Request::Connect(peer)).await? {
            Outcome::Connected(id) => Ok(id),
            other => unreachable!("a Connect request has no outcome {other:?}"),
        }
    }

    /// Waits for a peer to connect to the relayed address (RFC 6062 section 4.4). It has to have a permission.
    pub async fn connection_attempt(&self) -> Result<ConnectionAttempt, Error> {
        self.next_attempt().await
    }

    /// Opens another connection to the server, of the same transport, and makes it the client's end of the one to the
    /// peer (RFC 6062 section 4.5): what is written arrives there as it is.
    pub async fn bind_connection(&self, id: ConnectionId) -> Result<DataConnection, Error> {
        let (mut route, settings) = self.route_and_settings();
        if !route.transport.is_stream() {
            return Err(Error::NoTransport(route.transport));
        }
        // The same address as the control connection's, and another port (section 4.3).
        route.local = route.local.map(|local| SocketAddr::new(local.ip(), 0));
        let mut session = Session::over(route.transport, settings, crate::random_ids());
        // Some servers close a connection whose first request is not signed.
        session.expect(self.shared.state().session.challenge());
        DataConnection::bind(&route, session, id).await
    }
}

/// The client's end of a connection between it and a peer.
#[derive(Debug)]
pub struct DataConnection {
    socket: TcpStream,
    pipe: Pipe,
}

impl DataConnection {
    async fn bind(route: &Route, mut session: Session, id: ConnectionId) -> Result<Self, Error> {
        let (socket, pipe) = connect_stream(route).await?;
        let mut this = Self { socket, pipe };
        session.request(Request::ConnectionBind(id), Instant::now());
        loop {
            let written = this.talk(&mut session);
            if let Err(error) = written {
                session.handle_lost(&error.to_string(), Instant::now());
            }
            if let Some(Event::Done(_, result)) = session.poll_event() {
                return result.map(|_| this);
            }
            let interest =
                if this.pipe.wants_write() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let Some(due) = session.poll_timeout() else { return Err(Error::Closed) };
            match timeout_at(due.into(), this.socket.ready(interest)).await {
                Ok(ready) => drop(ready?),
                Err(_) => session.handle_timeout(Instant::now()),
            }
        }
    }

    /// Exchanges what there is, until the session has its answer: what comes behind that is the peer's.
    fn talk(&mut self, session: &mut Session) -> io::Result<()> {
        while let Some(message) = session.poll_transmit() {
            self.pipe.push(&message);
        }
        self.pipe.flush(&mut Nonblocking(&self.socket))?;
        self.pipe.fill(&mut Nonblocking(&self.socket))?;
        while !session.is_idle()
            && let Some(message) = self.pipe.next_message()?
        {
            session.handle_datagram(message, Instant::now());
            while let Some(message) = session.poll_transmit() {
                self.pipe.push(&message);
            }
        }
        self.pipe.flush(&mut Nonblocking(&self.socket))
    }

    /// The client's own address of this connection.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.pipe.flush(&mut Nonblocking(&self.socket))?;
            if !self.pipe.wants_write() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_write_ready(context))?;
        }
    }
}

impl AsyncRead for DataConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let is_last = this.pipe.has_ended();
            let bytes = this.pipe.take_bytes(out.remaining());
            if !bytes.is_empty() || is_last || out.remaining() == 0 {
                out.put_slice(bytes);
                return Poll::Ready(Ok(()));
            }
            ready!(this.socket.poll_read_ready(context))?;
            this.pipe.fill(&mut Nonblocking(&this.socket))?;
        }
    }
}

impl AsyncWrite for DataConnection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.pipe.waiting() >= ROOM {
            ready!(this.poll_written(context))?;
        }
        let length = bytes.len().min(ROOM);
        this.pipe.push(&bytes[..length]);
        this.pipe.flush(&mut Nonblocking(&this.socket))?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_written(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_written(context))?;
        this.pipe.end();
        ready!(this.poll_written(context))?;
        Pin::new(&mut this.socket).poll_shutdown(context)
    }
}
