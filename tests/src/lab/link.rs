//! What carries the messages of a client: a datagram socket, or a stream or an association on top of one.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hairpin_client::{Pipe, Tls, TlsOptions, Trust};
use hairpin_dtls::{ClientContext, MAX_PLAINTEXT, Roots, Session};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::call::bind_here;
use super::namespace::Namespace;
use super::server::Transport;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of its time a handshake waits at once: datagrams are sent again meanwhile.
const STEP: Duration = Duration::from_millis(50);

/// A way to a server, of which any certificate will do.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
    /// What a stream has begun, or an association.
    state: Mutex<State>,
}

#[derive(Debug)]
enum Socket {
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

#[derive(Debug)]
enum State {
    Plain,
    Stream(Box<Pipe>),
    Association(Box<Session>),
}

impl Link {
    /// Opens one in a namespace. `local` is for datagrams: a stream comes from wherever the namespace says.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn open(namespace: &Namespace, transport: Transport, local: SocketAddr, server: SocketAddr) -> Self {
        Self::open_by_name(namespace, transport, local, server, None)
    }

    /// The same, asking for a server of this name over TLS and DTLS.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn open_by_name(
        namespace: &Namespace,
        transport: Transport,
        local: SocketAddr,
        server: SocketAddr,
        name: Option<&str>,
    ) -> Self {
        let link = namespace.enter(|| match transport {
            Transport::Udp | Transport::Dtls => {
                let socket = bind_here(local);
                socket.connect(server).unwrap_or_else(|error| panic!("{server}: {error}"));
                Self { socket: Socket::Datagrams(socket), state: Mutex::new(State::Plain) }
            }
            Transport::Tcp | Transport::Tls => {
                let stream = TcpStream::connect_timeout(&server, PATIENCE);
                let stream = stream.unwrap_or_else(|error| panic!("{server}: {error}"));
                let set = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
                set.expect("a socket can be asked for that");
                let tls = TlsOptions { server_name: name.map(str::to_owned), ..TlsOptions::new(Trust::Anybody) };
                let tls = (transport == Transport::Tls).then(|| Tls::new(&tls, server.ip()).expect("nothing is read"));
                let pipe = Pipe::new(tls.as_ref()).expect("an address is a name");
                Self { socket: Socket::Stream(stream), state: Mutex::new(State::Stream(pipe.into())) }
            }
        });
        if transport == Transport::Dtls {
            let context = ClientContext::new(Roots::Unverified, &[]).expect("nothing is read");
            let name = name.map_or_else(|| server.ip().to_string(), str::to_owned);
            let session = context.connect(&name).expect("an address is a name");
            *link.state() = State::Association(session.into());
        }
        link.shake_hands();
        link
    }

    fn shake_hands(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.flush();
            let is_done = match &mut *self.state() {
                State::Plain => true,
                State::Stream(pipe) => !pipe.is_handshaking(),
                State::Association(session) => {
                    if session.poll_timeout().is_some_and(|wait| wait.is_zero()) {
                        session.handle_timeout().expect("it has not tried for long");
                    }
                    session.is_established()
                }
            };
            if is_done {
                return;
            }
            assert!(Instant::now() < end, "no handshake with the server");
            self.take(STEP);
        }
    }

    /// A test that has failed while it held this says so itself.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        let local = match &self.socket {
            Socket::Datagrams(socket) => socket.local_addr(),
            Socket::Stream(stream) => stream.local_addr(),
        };
        local.expect("it is bound")
    }

    /// Sends a message. In a stream, ChannelData is padded (RFC 8656 section 12.5).
    pub fn send(&self, message: &[u8]) {
        match &mut *self.state() {
            State::Plain => self.socket.send(message),
            State::Stream(pipe) => {
                pipe.push(message);
                pipe.push(&[0; 3][..message.len().next_multiple_of(4) - message.len()]);
            }
            State::Association(session) => session.send(message).expect("the association is there"),
        }
        self.flush();
    }

    /// The next message of the server, if one comes in time.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(message) = self.next_message() {
                return Some(message);
            }
            let left = end.saturating_duration_since(Instant::now());
            if !self.wait(left) {
                return None;
            }
            if let Some(datagram) = self.take(Duration::ZERO) {
                return Some(datagram);
            }
        }
    }

    fn next_message(&self) -> Option<Vec<u8>> {
        match &mut *self.state() {
            State::Plain => None,
            // One that has ended gives nothing more.
            State::Stream(pipe) => pipe.next_message().ok().flatten().map(without_padding),
            State::Association(session) => {
                let mut buffer = Box::new([0; MAX_PLAINTEXT]);
                session.next_plaintext(&mut buffer).map(|length| buffer[..length].to_vec())
            }
        }
    }

    /// Takes what has come, within a time. Of a plain socket it is the message itself.
    fn take(&self, limit: Duration) -> Option<Vec<u8>> {
        if !limit.is_zero() && !self.wait(limit) {
            return None;
        }
        let mut datagram = vec![0; 65_536];
        match (&self.socket, &mut *self.state()) {
            (Socket::Stream(stream), State::Stream(pipe)) => {
                // An error comes again; what was there before it is not lost.
                let _ = pipe.fill(&mut &*stream);
                None
            }
            (Socket::Datagrams(socket), state) => {
                // An error is about a datagram that was sent.
                let length = socket.recv(&mut datagram).ok()?;
                datagram.truncate(length);
                if let State::Association(session) = state {
                    // One that is not the association's is dropped.
                    let _ = session.receive(&datagram);
                    return None;
                }
                Some(datagram)
            }
            (Socket::Stream(_), _) => None,
        }
    }

    /// Sends what waits.
    fn flush(&self) {
        match &mut *self.state() {
            State::Plain => {}
            State::Stream(pipe) => {
                if let Socket::Stream(stream) = &self.socket {
                    // The server may have closed it, which shows by what does not come.
                    let _ = pipe.flush(&mut &*stream);
                }
            }
            State::Association(session) => {
                while let Some(datagram) = session.next_datagram() {
                    self.socket.send(datagram);
                }
            }
        }
    }

    fn wait(&self, limit: Duration) -> bool {
        let socket = match &self.socket {
            Socket::Datagrams(socket) => socket.as_fd(),
            Socket::Stream(stream) => stream.as_fd(),
        };
        let limit = Timespec::try_from(limit).expect("tests don't wait that long");
        let mut waiting = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        poll(&mut waiting, Some(&limit)).is_ok_and(|ready| ready > 0)
    }
}

impl Socket {
    fn send(&self, datagram: &[u8]) {
        if let Self::Datagrams(socket) = self {
            socket.send(datagram).expect("the way to the server is open");
        }
    }
}

/// A message of a stream as it would be in a datagram.
fn without_padding(message: &[u8]) -> Vec<u8> {
    let is_channel_data = message[0] & 0xc0 == 0x40;
    let length = 4 + usize::from(u16::from_be_bytes([message[2], message[3]]));
    message[..if is_channel_data { length } else { message.len() }].to_vec()
}
