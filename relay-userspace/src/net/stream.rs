//! TCP sockets: how they are opened, and reading and writing without waiting.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::socket::SocketError;

/// How many connections may wait to be accepted. The host's own limit (`net.core.somaxconn`) is mostly lower.
const BACKLOG: i32 = 4096;
/// How long the kernel keeps a connection to itself over which nothing has come. Clients speak first.
const DEFER_ACCEPT: Duration = Duration::from_secs(10);
/// A connection over which nothing comes is asked after so long whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// And then so often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long what was sent may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// How much the kernel takes that it can not send yet. More would only be late.
const UNSENT: u32 = 64 << 10;

/// A listening socket.
#[derive(Debug)]
pub struct StreamListener {
    socket: TcpListener,
    local: SocketAddr,
}

impl StreamListener {
    /// Opens a listener for clients. With `shared`, the other shards open the same address too, and the kernel spreads the
    /// clients over them.
    pub fn listener(address: SocketAddr, shared: bool) -> Result<Self, SocketError> {
        Self::open(address, shared, Some(DEFER_ACCEPT)).map_err(|error| SocketError::new(address, error))
    }

    /// Opens the socket of a relayed transport address, where peers connect (RFC 6062 section 5.1). Connections to peers
    /// leave from the same address, see [`Stream::connect`].
    pub fn relay(address: SocketAddr) -> Result<Self, SocketError> {
        // Alone first: sharing a port with a stranger that shares it too would go unnoticed.
        Self::open(address, false, None)
            .map(drop)
            .and_then(|()| Self::open(address, true, None))
            .map_err(|error| SocketError::new(address, error))
    }

    fn open(address: SocketAddr, shared: bool, defer: Option<Duration>) -> io::Result<Self> {
        let socket = bound(address, shared)?;
        if let Some(defer) = defer {
            super::socket::set_option(&socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, defer.as_secs() as i32)?;
        }
        socket.listen(BACKLOG)?;
        let local = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))?;
        Ok(Self { socket: socket.into(), local })
    }

    /// The address the socket is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Takes a connection that waits. Returns it with the address at its other end; `WouldBlock` if there is none.
    pub fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, remote) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok((Stream::new(stream)?, remote))
    }
}

impl AsFd for StreamListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A connection. Nothing here waits.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    fn new(stream: TcpStream) -> io::Result<Self> {
        let socket = socket2::SockRef::from(&stream);
        // Media is late enough already.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        socket.set_tcp_notsent_lowat(UNSENT)?;
        Ok(Self(stream))
    }

    /// Begins a connection from a relayed transport address, on which others may listen or connect too. It is there, or
    /// has failed, when it becomes writable: [`Stream::connected`] then says which.
    pub fn connect(local: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let socket = bound(local, true)?;
        match socket.connect(&peer.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Self::new(socket.into())
    }

    /// Whether a connection that was begun is there.
    pub fn connected(&self) -> io::Result<()> {
        match self.0.take_error()? {
            Some(error) => Err(error),
            None => self.0.peer_addr().map(drop),
        }
    }

    /// This host's address of the connection.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Reads what is there. 0 is the end of the stream.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Writes as much as the kernel takes.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    /// The same connection, for a task that waits.
    pub fn into_tokio(self) -> io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::from_std(self.0)
    }

    /// Says that no more is coming.
    pub fn finish(&self) {
        // Of a connection that is gone already nobody waits for the end.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of the relay that ran before may still be winding down at this address.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait() {
        std::thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn a_relayed_address_takes_connections_and_makes_them_at_the_same_time() {
        let relay = StreamListener::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = TcpListener::bind("127.0.0.1:0").unwrap();
        let outgoing = Stream::connect(relay.local(), peer.local_addr().unwrap()).unwrap();
        let (mut at_peer, from) = peer.accept().unwrap();
        assert_eq!(from, relay.local());
        outgoing.connected().unwrap();
        assert_eq!(outgoing.write(b"out").unwrap(), 3);
        let mut buffer = [0; 16];
        assert_eq!(at_peer.read(&mut buffer).unwrap(), 3);

        let mut incoming = TcpStream::connect(relay.local()).unwrap();
        incoming.write_all(b"in").unwrap();
        wait();
        let (accepted, from) = relay.accept().unwrap();
        assert_eq!(from, incoming.local_addr().unwrap());
        assert_eq!(accepted.read(&mut buffer).unwrap(), 2);
        assert_eq!(accepted.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(relay.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_connection_that_is_refused_says_so() {
        let relay = StreamListener::relay("127.0.0.1:0".parse().unwrap()).unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Stream::connect(relay.local(), gone);
        let error = match refused {
            Err(error) => error,
            Ok(stream) => {
                wait();
                stream.connected().unwrap_err()
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_port_that_somebody_shares_already_is_in_use() {
        let free = StreamListener::relay("127.0.0.1:0".parse().unwrap()).unwrap().local();
        let first = StreamListener::relay(free).unwrap();
        assert_eq!(first.local(), free);
        assert!(matches!(StreamListener::relay(first.local()), Err(SocketError::InUse(_))));
        assert!(matches!(StreamListener::listener(first.local(), false), Err(SocketError::InUse(_))));
    }
}
