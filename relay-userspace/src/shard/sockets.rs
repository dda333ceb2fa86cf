//! The sockets of one shard, and waiting for all of them at once.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hairpin_common::maps::PortRole;
use hairpin_proto::address::{FiveTuple, RelayedAddr, ServerAddr};
use hairpin_proto::stun::attribute::ReservationToken;
use hairpin_proto::turn::{BindError, BindRequest, RelayId};
use rustix::event::epoll;

use super::reservations::Reservations;
use crate::datapath;
use crate::net::{SocketError, UdpSocket, send_one};

/// Which socket of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Socket {
    /// A listener, by its place in the list.
    Listener(u32),
    /// The socket of a relayed address, and how often its name was used before: what is still in a batch from the last
    /// socket of that name must not pass for the next one's.
    Relay(RelayId, Generation),
}

/// Counts the sockets that had one name, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(u32);

impl Socket {
    fn token(self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Self::Listener(at) => LISTENER | u64::from(at),
            Self::Relay(RelayId(id), Generation(generation)) => u64::from(generation) << 32 | u64::from(id),
        })
    }

    fn from_token(token: u64) -> Self {
        if token & LISTENER != 0 {
            Self::Listener(token as u32)
        } else {
            Self::Relay(RelayId(token as u32), Generation((token >> 32) as u32))
        }
    }
}

/// A socket at which something has happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) socket: Socket,
    /// Whether its error queue holds something.
    pub(super) has_errors: bool,
}

/// Tells the two kinds of tokens apart; generations stay below it.
const LISTENER: u64 = 1 << 63;

/// Listeners, relay sockets, and the epoll instance that watches them.
///
/// Relay sockets come and go by the thousand; an epoll instance of their own gives all that are ready in one call, which
/// lets one batch hold datagrams of many of them.
pub(super) struct Sockets {
    poll: OwnedFd,
    listeners: Vec<UdpSocket>,
    relays: Vec<RelaySocket>,
    open: usize,
    reservations: Reservations,
    datapath: datapath::Handle,
}

/// The place of a relayed address's socket.
#[derive(Default)]
struct RelaySocket {
    socket: Option<UdpSocket>,
    generation: Generation,
}

/// How many sockets one call reports at most.
const EVENTS: usize = 64;

impl Sockets {
    pub(super) fn new(
        mut listeners: Vec<UdpSocket>,
        reservations: Reservations,
        datapath: datapath::Handle,
    ) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // The most specific address first, as the kernel chooses too.
        listeners.sort_by_key(|listener| listener.local().ip().is_unspecified());
        for (at, listener) in (0..).zip(&listeners) {
            epoll::add(&poll, listener, Socket::Listener(at).token(), epoll::EventFlags::IN)?;
        }
        Ok(Self { poll, listeners, relays: Vec::new(), open: 0, reservations, datapath })
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
                    // Errors are what epoll reports unasked.
                    Ready { socket: Socket::from_token(data.u64()), has_errors: flags.contains(epoll::EventFlags::ERR) }
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
            Socket::Listener(at) => self.listeners.get(at as usize).map(UdpSocket::as_fd),
            Socket::Relay(..) => self.relay(socket).map(UdpSocket::as_fd),
        }
    }

    /// The socket of a relayed address, unless it was closed.
    pub(super) fn relay(&self, socket: Socket) -> Option<&UdpSocket> {
        let Socket::Relay(RelayId(id), generation) = socket else { return None };
        self.relays.get(id as usize).filter(|relay| relay.generation == generation)?.socket.as_ref()
    }

    /// The socket that a relayed address has now.
    pub(super) fn socket_of(&self, relay: RelayId) -> Option<Socket> {
        let place = self.relays.get(relay.0 as usize)?;
        place.socket.as_ref().map(|_| Socket::Relay(relay, place.generation))
    }

    /// The address at which a datagram reached a listener.
    pub(super) fn server_address(&self, listener: u32, destination: Option<IpAddr>) -> ServerAddr {
        let local = self.listeners[listener as usize].local();
        ServerAddr::new(SocketAddr::new(destination.unwrap_or(local.ip()), local.port()))
    }

    /// The listener that serves a client.
    pub(super) fn listener_of(&self, five_tuple: &FiveTuple) -> Option<Socket> {
        let server = five_tuple.server.socket();
        let serves = |local: SocketAddr| {
            local.port() == server.port()
                && local.is_ipv4() == server.is_ipv4()
                && (local.ip() == server.ip() || local.ip().is_unspecified())
        };
        (0..).zip(&self.listeners).find(|(_, listener)| serves(listener.local())).map(|(at, _)| Socket::Listener(at))
    }

    /// Sends a message of the server's own.
    pub(super) fn respond(&self, five_tuple: &FiveTuple, message: &[u8]) -> io::Result<()> {
        let Some(Socket::Listener(at)) = self.listener_of(five_tuple) else { return Ok(()) };
        let source = five_tuple.server.ip();
        send_one(&self.listeners[at as usize], Some(source), five_tuple.client.socket(), message)
    }

    /// Opens the socket of a relayed address.
    pub(super) fn bind(&mut self, relay: RelayId, request: BindRequest) -> Result<RelayedAddr, BindError> {
        let (socket, next) = match request {
            BindRequest::Port(address) => (open(address)?, None),
            BindRequest::Pair(address, token) => {
                let next = RelayedAddr::new(SocketAddr::new(address.ip(), address.port() + 1));
                (open(address)?, Some((token, open(next)?)))
            }
            // Only asked for by allocations of TCP, of which there are none here.
            BindRequest::Stream(_) => return Err(BindError::Unavailable),
            BindRequest::Reserved(token) => (self.reservations.take(token).ok_or(BindError::NoReservation)?, None),
        };
        let local = RelayedAddr::new(socket.local());
        let at = relay.0 as usize;
        if self.relays.len() <= at {
            self.relays.resize_with(at + 1, RelaySocket::default);
        }
        let place = &mut self.relays[at];
        place.generation = Generation((place.generation.0 + 1) & (u32::MAX >> 1));
        let token = Socket::Relay(relay, place.generation).token();
        epoll::add(&self.poll, &socket, token, epoll::EventFlags::IN).map_err(|_| BindError::Unavailable)?;
        place.socket = Some(socket);
        // Last, since whatever fails must leave nothing behind.
        if let Some((token, next)) = next {
            self.reservations.keep(token, next);
        }
        self.open += 1;
        self.datapath.claim_port(local.port(), PortRole::Relayed);
        Ok(local)
    }

    /// Closes the socket of a relayed address.
    pub(super) fn close(&mut self, RelayId(id): RelayId) {
        if let Some(socket) = self.relays.get_mut(id as usize).and_then(|place| place.socket.take()) {
            self.open -= 1;
            self.datapath.release_port(socket.local().port(), PortRole::Relayed);
        }
    }

    /// Forgets a reserved socket.
    pub(super) fn drop_reservation(&self, token: ReservationToken) {
        drop(self.reservations.take(token));
    }

    /// How many relay sockets are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }
}

fn open(address: RelayedAddr) -> Result<UdpSocket, BindError> {
    UdpSocket::relay(address.socket()).map_err(|error| match error {
        SocketError::InUse(_) => BindError::InUse,
        error => {
            tracing::debug!(%error, "a relayed address cannot be bound");
            BindError::Unavailable
        }
    })
}
