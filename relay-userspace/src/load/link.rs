//! A client's way to the server: datagrams, or a stream of messages.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use hairpin_client::{Pipe, Tls};
use rustix::event::epoll;

use super::LoadError;
use crate::net::UdpSocket;

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(3);

/// How the clients of a run reach the server.
#[derive(Clone, Debug)]
pub(super) enum Road {
    /// Each from a port of its own of this address.
    Udp(IpAddr),
    /// Each by a connection of its own, with TLS if there is one.
    Stream(Option<Tls>),
}

/// The way of one client.
#[derive(Debug)]
pub(super) enum Link {
    Udp(UdpSocket),
    Stream(Box<Stream>),
}

impl Link {
    pub(super) fn open(road: &Road, server: SocketAddr) -> Result<Self, LoadError> {
        match road {
            Road::Udp(local) => Ok(Self::Udp(UdpSocket::listener(SocketAddr::new(*local, 0), false)?)),
            Road::Stream(tls) => Stream::connect(server, tls.as_ref()).map(Box::new).map(Self::Stream),
        }
    }

    /// The socket of a client that sends datagrams.
    pub(super) fn udp(&self) -> Option<&UdpSocket> {
        match self {
            Self::Udp(socket) => Some(socket),
            Self::Stream(_) => None,
        }
    }

    /// The client's own address.
    pub(super) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local(),
            Self::Stream(stream) => stream.local,
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Stream(stream) => stream.socket.as_fd(),
        }
    }
}

/// A connection to the server.
#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    local: SocketAddr,
    pub(super) pipe: Pipe,
    /// What epoll reports of it.
    watched: epoll::EventFlags,
}

impl Stream {
    /// Connects. TLS begins with the first message.
    fn connect(server: SocketAddr, tls: Option<&Tls>) -> Result<Self, LoadError> {
        let socket = TcpStream::connect_timeout(&server, CONNECTING).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => LoadError::NoServer(server),
            ErrorKind::TimedOut => LoadError::NoAnswer(server),
            _ => LoadError::NoRoute(server, error),
        })?;
        socket.set_nonblocking(true)?;
        // Every message is written whole, and none shall wait for the next.
        socket.set_nodelay(true)?;
        let pipe = Pipe::new(tls).map_err(LoadError::Tls)?;
        Ok(Self { local: socket.local_addr()?, socket, pipe, watched: epoll::EventFlags::IN })
    }

    /// Sends a packet of a run, unless one that was sent before is still waiting: what a slow server leaves in the
    /// generator is at most one packet for each client.
    pub(super) fn send(&mut self, packet: &[u8]) -> io::Result<bool> {
        if self.pipe.waiting() > 0 {
            return Ok(false);
        }
        self.pipe.push(packet);
        self.pipe.flush(&mut &self.socket)?;
        Ok(true)
    }

    /// Sends a request, behind what waits.
    pub(super) fn post(&mut self, message: &[u8]) -> io::Result<()> {
        self.pipe.push(message);
        self.pipe.flush(&mut &self.socket)
    }

    /// Reads and writes what the socket has and takes.
    pub(super) fn work(&mut self) -> io::Result<()> {
        self.pipe.fill(&mut &self.socket)?;
        self.pipe.flush(&mut &self.socket)
    }

    /// Asks epoll to say when the socket takes more, if there is more.
    pub(super) fn watch(&mut self, epoll: impl AsFd, index: usize) -> io::Result<()> {
        let wanted = if self.pipe.wants_write() {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        if wanted != self.watched {
            epoll::modify(epoll, &self.socket, epoll::EventData::new_u64(index as u64), wanted)?;
            self.watched = wanted;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_takes_nothing_leaves_one_packet_waiting() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::connect(server.local_addr().unwrap(), None).unwrap();
        let (mut peer, _) = server.accept().unwrap();
        let packet = vec![7; 10_000];
        let mut sent = 0_usize;
        while stream.send(&packet).unwrap() {
            sent += 1;
            assert!(sent < 10_000, "the kernel has no end of room");
        }
        for _ in 0..1000 {
            assert!(!stream.send(&packet).unwrap());
        }
        assert!((1..=packet.len()).contains(&stream.pipe.waiting()), "{}", stream.pipe.waiting());

        // All that was taken arrives, and then there is room again.
        let mut received = 0;
        let mut buffer = vec![0; 1 << 16];
        while received < sent * packet.len() {
            received += peer.read(&mut buffer).unwrap();
            stream.work().unwrap();
        }
        assert_eq!((received, stream.pipe.waiting()), (sent * packet.len(), 0));
        assert!(stream.send(&packet).unwrap());
    }
}
