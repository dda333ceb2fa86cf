//! The sockets of one shard, and waiting for all of them at once.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use hairpin_common::maps::PortRole;
use hairpin_proto::address::{FiveTuple, RelayedAddr, ServerAddr, Transport};
use hairpin_proto::media::PortId;
use hairpin_proto::stun::attribute::ReservationToken;
use hairpin_proto::turn::{BindError, BindRequest, RelayId};
use rustix::event::epoll;

use super::associations::is_dtls;
use super::connection::Accepts;
use super::listening::Listening;
use super::places::Places;
use super::reservations::Reservations;
use super::socket::Socket;
use crate::datapath;
use crate::net::{IpFields, SocketError, Stream, StreamListener, UdpSocket, send_one};

/// A socket at which something has happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) socket: Socket,
    /// Whether its error queue holds something.
    pub(super) has_errors: bool,
    /// Whether there is something to read, an error or an end included.
    pub(super) is_readable: bool,
    /// Whether more can be written.
    pub(super) is_writable: bool,
}

/// A socket for datagrams of clients, and what they may speak there.
#[derive(Debug)]
pub struct DatagramListener {
    /// The socket.
    pub socket: UdpSocket,
    /// Whether plain STUN and ChannelData are.
    pub plain: bool,
    /// Whether DTLS is.
    pub dtls: bool,
}

/// A socket where clients connect, and what they may speak there.
pub struct Acceptor {
    /// The socket.
    pub listener: StreamListener,
    /// Whether plain TCP is spoken.
    pub plain: bool,
    /// Whether TLS is, and how.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The listeners of one shard.
#[derive(Default)]
pub struct Listeners {
    /// For clients' datagrams.
    pub datagrams: Vec<DatagramListener>,
    /// For clients' connections.
    pub streams: Vec<Acceptor>,
}

/// Listeners, relay sockets, and the epoll instance that watches them.
///
/// Relay sockets come and go by the thousand; an epoll instance of their own gives all that are ready in one call, which
/// lets one batch hold datagrams of many of them.
pub(super) struct Sockets {
    poll: OwnedFd,
    /// Each keeps its place as long as it is there.
    listeners: Vec<Option<DatagramListener>>,
    acceptors: Vec<Option<Acceptor>>,
    relays: Places<Bound>,
    media: Places<UdpSocket>,
    /// How many are open, by address; an address that has had one stays.
    open: BTreeMap<IpAddr, usize>,
    listening: Listening,
    reservations: Reservations,
    datapath: datapath::Handle,
}

/// The socket of a relayed address.
enum Bound {
    /// For datagrams.
    Udp(UdpSocket),
    /// Where peers connect (RFC 6062).
    Tcp(StreamListener),
}

impl Bound {
    fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local(),
            Self::Tcp(listener) => listener.local(),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// How many sockets one call reports at most.
const EVENTS: usize = 64;

impl Sockets {
    /// Without any listener.
    pub(super) fn new(
        listening: Listening,
        reservations: Reservations,
        datapath: datapath::Handle,
    ) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (listeners, acceptors, open) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (relays, media) = (Places::default(), Places::default());
        Ok(Self { poll, listeners, acceptors, relays, media, open, listening, reservations, datapath })
    }

    /// Watches listeners. An error is the first; the others are watched all the same.
    pub(super) fn add_listeners(&mut self, opened: Listeners) -> io::Result<()> {
        let Self { poll, listeners, acceptors, .. } = self;
        let mut result = Ok(());
        for listener in opened.datagrams {
            let at = vacant(listeners);
            let added = epoll::add(&*poll, &listener.socket, Socket::Listener(at).token(), epoll::EventFlags::IN);
            result = result.and(added.map_err(io::Error::from));
            listeners[at as usize] = Some(listener);
        }
        for acceptor in opened.streams {
            let at = vacant(acceptors);
            let added = epoll::add(&*poll, &acceptor.listener, Socket::Acceptor(at).token(), epoll::EventFlags::IN);
            result = result.and(added.map_err(io::Error::from));
            acceptors[at as usize] = Some(acceptor);
        }
        result
    }

    /// Closes every listener that is not among these, and lets the others speak what these say.
    pub(super) fn keep_listeners(
        &mut self,
        wanted: &[(Transport, SocketAddr)],
        tls: Option<&Arc<rustls::ServerConfig>>,
    ) {
        let speaks = |transport, local| wanted.contains(&(transport, local));
        for place in &mut self.listeners {
            let Some(listener) = place else { continue };
            let local = listener.socket.local();
            (listener.plain, listener.dtls) = (speaks(Transport::Udp, local), speaks(Transport::Dtls, local));
            if !listener.plain && !listener.dtls {
                *place = None;
            }
        }
        for place in &mut self.acceptors {
            let Some(acceptor) = place else { continue };
            let local = acceptor.listener.local();
            acceptor.plain = speaks(Transport::Tcp, local);
            acceptor.tls = tls.filter(|_| speaks(Transport::Tls, local)).cloned();
            if !acceptor.plain && acceptor.tls.is_none() {
                *place = None;
            }
        }
    }

    /// The descriptor that becomes readable when any socket is.
    pub(super) fn poll_fd(&self) -> io::Result<OwnedFd> {
        self.poll.try_clone()
    }

    /// Puts the sockets that are readable now into `ready`, at most [`EVENTS`]. Does not wait.
    pub(super) fn ready(&self, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut events = [const { MaybeUninit::uninit() }; EVENTS];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.poll, &mut events[..], Some(&now)) {
            Ok((events, _)) => {
                ready.extend(events.iter().map(|event| {
                    // The structure is packed: a field of it cannot be borrowed.
                    let (flags, data) = (event.flags, event.data);
                    let unreadable = epoll::EventFlags::OUT;
                    Ready {
                        socket: Socket::from_token(data.u64()),
                        // Errors are what epoll reports unasked.
                        has_errors: flags.contains(epoll::EventFlags::ERR),
                        is_readable: !flags.difference(unreadable).is_empty(),
                        is_writable: flags.contains(epoll::EventFlags::OUT),
                    }
                }));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The descriptor of a socket, unless it was closed.
    pub(super) fn fd(&self, socket: Socket) -> Option<BorrowedFd<'_>> {
        match socket {
            Socket::Listener(at) => self.listener(at).map(|listener| listener.socket.as_fd()),
            Socket::Relay(..) => self.relay(socket).map(UdpSocket::as_fd),
            Socket::Media(..) => self.media(socket).map(UdpSocket::as_fd),
            // Streams are read and written by their owners.
            Socket::Acceptor(_) | Socket::Connection(..) | Socket::Peer(_) | Socket::Joined(_) => None,
        }
    }

    fn listener(&self, at: u32) -> Option<&DatagramListener> {
        self.listeners.get(at as usize)?.as_ref()
    }

    fn acceptor(&self, at: u32) -> Option<&Acceptor> {
        self.acceptors.get(at as usize)?.as_ref()
    }

    /// The socket of a relayed address, unless it was closed.
    pub(super) fn relay(&self, socket: Socket) -> Option<&UdpSocket> {
        match self.bound(socket)? {
            Bound::Udp(socket) => Some(socket),
            Bound::Tcp(_) => None,
        }
    }

    /// Where peers connect to a relayed address, unless it was closed.
    pub(super) fn relay_listener(&self, socket: Socket) -> Option<&StreamListener> {
        match self.bound(socket)? {
            Bound::Tcp(listener) => Some(listener),
            Bound::Udp(_) => None,
        }
    }

    fn bound(&self, socket: Socket) -> Option<&Bound> {
        let Socket::Relay(RelayId(id), generation) = socket else { return None };
        self.relays.get(id, generation)
    }

    /// The socket of a leg, unless it was closed.
    pub(super) fn media(&self, socket: Socket) -> Option<&UdpSocket> {
        let Socket::Media(PortId(id), generation) = socket else { return None };
        self.media.get(id, generation)
    }

    /// The socket that a leg's port has now.
    pub(super) fn socket_of_media(&self, port: PortId) -> Option<Socket> {
        self.media.now(port.0).map(|(_, generation)| Socket::Media(port, generation))
    }

    /// Opens the socket of a leg.
    pub(super) fn open_media(&mut self, port: PortId, address: SocketAddr) -> Result<(), BindError> {
        let socket = open(RelayedAddr::new(address))?;
        let token = Socket::Media(port, self.media.prepare(port.0)).token();
        epoll::add(&self.poll, &socket, token, epoll::EventFlags::IN).map_err(|_| BindError::Unavailable)?;
        self.media.put(port.0, socket);
        self.claim(address);
        Ok(())
    }

    /// Closes the socket of a leg.
    pub(super) fn close_media(&mut self, PortId(id): PortId) {
        if let Some(socket) = self.media.take(id) {
            self.release(socket.local());
        }
    }

    fn claim(&mut self, local: SocketAddr) {
        *self.open.entry(local.ip()).or_default() += 1;
        self.datapath.claim_port(local.port(), PortRole::Relayed);
    }

    fn release(&mut self, local: SocketAddr) {
        *self.open.entry(local.ip()).or_default() -= 1;
        self.datapath.release_port(local.port(), PortRole::Relayed);
    }

    /// The address that a relayed address has on this host.
    pub(super) fn relayed(&self, RelayId(id): RelayId) -> Option<SocketAddr> {
        self.relays.now(id).map(|(socket, _)| socket.local())
    }

    /// Takes a connection that waits at a listener: with the address at its other end, and what may be spoken.
    pub(super) fn accept(&self, at: u32) -> io::Result<(Stream, SocketAddr, Accepts)> {
        let Some(Acceptor { listener, plain, tls }) = self.acceptor(at) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let (stream, remote) = listener.accept()?;
        Ok((stream, remote, Accepts { plain: *plain, tls: tls.clone() }))
    }

    /// Leaves connections that wait at a listener where they are for a while, or goes on.
    pub(super) fn pause(&self, listener: Socket, is_paused: bool) {
        let socket = match listener {
            Socket::Acceptor(at) => self.acceptor(at).map(|acceptor| acceptor.listener.as_fd()),
            relay => self.relay_listener(relay).map(StreamListener::as_fd),
        };
        let interest = if is_paused { epoll::EventFlags::empty() } else { epoll::EventFlags::IN };
        if let Some(socket) = socket {
            // It was added, and is open: there is nothing that could fail.
            let _ = epoll::modify(&self.poll, socket, listener.token(), interest);
        }
    }

    /// The socket that a relayed address has now.
    pub(super) fn socket_of(&self, relay: RelayId) -> Option<Socket> {
        self.relays.now(relay.0).map(|(_, generation)| Socket::Relay(relay, generation))
    }

    /// The address at which a datagram reached a listener.
    pub(super) fn server_address(&self, listener: u32, destination: Option<IpAddr>) -> Option<ServerAddr> {
        let local = self.listener(listener)?.socket.local();
        Some(ServerAddr::new(SocketAddr::new(destination.unwrap_or(local.ip()), local.port())))
    }

    /// Whether a datagram of a client may be what its first byte says.
    pub(super) fn takes(&self, listener: u32, datagram: &[u8]) -> bool {
        self.listener(listener).is_some_and(|listener| if is_dtls(datagram) { listener.dtls } else { listener.plain })
    }

    /// The listener that serves a client.
    pub(super) fn listener_of(&self, five_tuple: &FiveTuple) -> Option<Socket> {
        let server = five_tuple.server.socket();
        let find = |serves: &dyn Fn(SocketAddr) -> bool| {
            let is_it = |listener: &Option<DatagramListener>| {
                listener.as_ref().is_some_and(|listener| serves(listener.socket.local()))
            };
            self.listeners.iter().position(is_it)
        };
        // The most specific address first, as the kernel chooses too.
        let at = find(&|local| local == server).or_else(|| {
            find(&|local| {
                local.port() == server.port() && local.is_ipv4() == server.is_ipv4() && local.ip().is_unspecified()
            })
        })?;
        Some(Socket::Listener(at as u32))
    }

    /// Whether a relayed address of TCP is there, on whichever shard.
    pub(super) fn is_relayed_over_tcp(&self, address: SocketAddr) -> bool {
        self.listening.contains(address)
    }

    /// Sends a message of the server's own.
    pub(super) fn respond(&self, five_tuple: &FiveTuple, message: &[u8]) -> io::Result<()> {
        self.send(five_tuple, IpFields::ORIGINATED, message)
    }

    /// Sends a datagram to a client, at once.
    pub(super) fn send(&self, five_tuple: &FiveTuple, ip: IpFields, datagram: &[u8]) -> io::Result<()> {
        let Some(Socket::Listener(at)) = self.listener_of(five_tuple) else { return Ok(()) };
        let Some(listener) = self.listener(at) else { return Ok(()) };
        let source = five_tuple.server.ip();
        send_one(&listener.socket, Some(source), five_tuple.client.socket(), ip, datagram)
    }

    /// Opens the socket of a relayed address.
    pub(super) fn bind(&mut self, relay: RelayId, request: BindRequest) -> Result<RelayedAddr, BindError> {
        let (socket, next) = match request {
            BindRequest::Port(address) => (Bound::Udp(open(address)?), None),
            BindRequest::Pair(address, token) => {
                let next = RelayedAddr::new(SocketAddr::new(address.ip(), address.port() + 1));
                (Bound::Udp(open(address)?), Some((token, open(next)?)))
            }
            BindRequest::Reserved(token) => {
                (Bound::Udp(self.reservations.take(token).ok_or(BindError::NoReservation)?), None)
            }
            BindRequest::Stream(address) => (Bound::Tcp(bound(StreamListener::relay(address.socket()))?), None),
        };
        let local = RelayedAddr::new(socket.local());
        let name = Socket::Relay(relay, self.relays.prepare(relay.0));
        epoll::add(&self.poll, socket.as_fd(), name.token(), epoll::EventFlags::IN)
            .map_err(|_| BindError::Unavailable)?;
        self.relays.put(relay.0, socket);
        // Last, since whatever fails must leave nothing behind.
        if let Some((token, next)) = next {
            self.reservations.keep(token, next);
        }
        if let Some(listener) = self.relay_listener(name) {
            self.listening.add(listener.local());
        }
        self.claim(local.socket());
        Ok(local)
    }

    /// Closes the socket of a relayed address.
    pub(super) fn close(&mut self, RelayId(id): RelayId) {
        if let Some(socket) = self.relays.take(id) {
            if let Bound::Tcp(listener) = &socket {
                self.listening.remove(listener.local());
            }
            self.release(socket.local());
        }
    }

    /// Forgets a reserved socket.
    pub(super) fn drop_reservation(&self, token: ReservationToken) {
        drop(self.reservations.take(token));
    }

    /// How many relay sockets are open.
    pub(super) fn open(&self) -> usize {
        self.open.values().sum()
    }

    /// How many relay sockets are open at each address.
    pub(super) fn open_by_address(&self) -> Vec<(IpAddr, usize)> {
        self.open.iter().map(|(address, open)| (*address, *open)).collect()
    }
}

/// A place that nobody has.
fn vacant<T>(places: &mut Vec<Option<T>>) -> u32 {
    let at = places.iter().position(Option::is_none).unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    });
    at as u32
}

fn open(address: RelayedAddr) -> Result<UdpSocket, BindError> {
    bound(UdpSocket::relay(address.socket()))
}

fn bound<T>(opened: Result<T, SocketError>) -> Result<T, BindError> {
    opened.map_err(|error| match error {
        SocketError::InUse(_) => BindError::InUse,
        error => {
            tracing::debug!(%error, "a relayed address cannot be bound");
            BindError::Unavailable
        }
    })
}
