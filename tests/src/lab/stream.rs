//! One end of a connection over TCP or TLS.
//!
//! Nothing is read or written but when a test says so, so that it can be a slow reader, or none at all.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::{Pipe, Tls, TlsOptions, Trust};

use super::namespace::Namespace;
use super::server::Transport;

/// How long it may take until the other end has taken what is sent.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(1);

/// A connection.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    pipe: Pipe,
    /// Whether it was reset, or TLS has failed.
    is_broken: bool,
}

/// What has come in time.
enum Come<T> {
    Some(T),
    End,
    Nothing,
}

impl Stream {
    /// Connects from inside a namespace. Over TLS the server may be anybody.
    pub fn connect(namespace: &Namespace, server: SocketAddr, transport: Transport) -> Self {
        Self::on(connect(namespace, server), transport)
    }

    /// The end of a connection that is there already. TLS begins with what is sent first.
    pub fn on(socket: TcpStream, transport: Transport) -> Self {
        let server = socket.peer_addr().expect("it is connected").ip();
        let tls = (transport == Transport::Tls)
            .then(|| Tls::new(&TlsOptions::new(Trust::Anybody), server).expect("an address is a name"));
        socket.set_nodelay(true).expect("a socket of TCP");
        socket.set_nonblocking(true).expect("a socket that is open");
        Self { socket, pipe: Pipe::new(tls.as_ref()).expect("options that were checked"), is_broken: false }
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is connected")
    }

    /// Sends bytes, and waits until the kernel has them all.
    ///
    /// # Panics
    /// When that does not come about.
    pub fn send(&mut self, bytes: &[u8]) {
        self.pipe.push(bytes);
        let end = Instant::now() + PATIENCE;
        while !self.has_sent() {
            assert!(!self.is_broken, "the connection is gone, with {} bytes to send", self.pipe.waiting());
            assert!(Instant::now() < end, "nobody takes {} bytes", self.pipe.waiting());
            thread::sleep(POLL);
        }
    }

    /// Sends so much of what waits, behind these bytes, as the kernel takes at once. Returns whether that was all.
    pub fn offer(&mut self, bytes: &[u8]) -> bool {
        self.pipe.push(bytes);
        self.has_sent()
    }

    fn has_sent(&mut self) -> bool {
        let flushed = self.pipe.flush(&mut &self.socket);
        // The handshake needs both directions; otherwise what comes stays where it is.
        let filled = if self.pipe.is_handshaking() { self.pipe.fill(&mut &self.socket) } else { Ok(()) };
        self.is_broken |= flushed.is_err() || filled.is_err() || self.pipe.is_handshaking() && self.pipe.has_ended();
        !self.pipe.is_handshaking() && !self.pipe.wants_write()
    }

    /// The next whole message, if one comes in time.
    pub fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        match self.wait(limit, |pipe| pipe.next_message().ok().flatten().map(<[u8]>::to_vec)) {
            Come::Some(message) => Some(message),
            Come::End | Come::Nothing => None,
        }
    }

    /// The next bytes, at most so many; none at the end. `None` if neither comes in time.
    pub fn read(&mut self, most: usize, limit: Duration) -> Option<Vec<u8>> {
        let come = self.wait(limit, |pipe| {
            let bytes = pipe.take_bytes(most);
            (!bytes.is_empty()).then(|| bytes.to_vec())
        });
        match come {
            Come::Some(bytes) => Some(bytes),
            Come::End => Some(Vec::new()),
            Come::Nothing => None,
        }
    }

    /// Whether the other end closes it in time, whatever it says before.
    pub fn ends(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.read(usize::MAX, left) {
                Some(bytes) if bytes.is_empty() => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }

    /// Whether it was closed in disorder: by a reset, or by a failure of TLS.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Waits for something in what has come.
    fn wait<T>(&mut self, limit: Duration, take: impl Fn(&mut Pipe) -> Option<T>) -> Come<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(taken) = take(&mut self.pipe) {
                return Come::Some(taken);
            }
            if self.is_broken || self.pipe.has_ended() {
                return Come::End;
            }
            let filled = self.pipe.fill(&mut &self.socket);
            let flushed = self.pipe.flush(&mut &self.socket);
            // What came before the end is taken first.
            self.is_broken |= filled.is_err() || flushed.is_err() && self.pipe.has_ended();
            if let Some(taken) = take(&mut self.pipe) {
                return Come::Some(taken);
            }
            if Instant::now() >= end && !self.is_broken && !self.pipe.has_ended() {
                return Come::Nothing;
            }
            thread::sleep(POLL);
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        self.pipe.end();
        self.has_sent();
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Connects from inside a namespace.
///
/// # Panics
/// When nobody listens.
pub fn connect(namespace: &Namespace, server: SocketAddr) -> TcpStream {
    namespace
        .enter(|| TcpStream::connect_timeout(&server, PATIENCE))
        .unwrap_or_else(|error| panic!("{server} in {}: {error}", namespace.name()))
}
