//! Opening UDP sockets with the header policy of both paths.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process, or another socket of this one, has the port.
    #[error("{0} is in use by another process; stop it or choose another port")]
    InUse(SocketAddr),
    /// The address is on no interface of this host.
    #[error("{0} is not an address of this host")]
    NotLocal(SocketAddr),
    /// The port may not be bound by this user.
    #[error("{0} needs the capability CAP_NET_BIND_SERVICE; run as root or choose a port above 1023")]
    Denied(SocketAddr),
    /// The process has no file descriptor left.
    #[error("no file descriptor is left for {0}; raise the limit of open files")]
    TooManyFiles(SocketAddr),
    /// Anything else.
    #[error("cannot open {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
}

impl SocketError {
    /// Whether the host has not got this IP version at all.
    pub fn is_missing_family(&self) -> bool {
        match self {
            Self::NotLocal(_) => true,
            Self::Other(_, error) => error.raw_os_error() == Some(libc::EAFNOSUPPORT),
            Self::InUse(_) | Self::Denied(_) | Self::TooManyFiles(_) => false,
        }
    }

    pub(super) fn new(address: SocketAddr, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse(address),
            Some(libc::EADDRNOTAVAIL) => Self::NotLocal(address),
            Some(libc::EACCES | libc::EPERM) => Self::Denied(address),
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles(address),
            _ => Self::Other(address, error),
        }
    }
}

/// A bound, non-blocking UDP socket that reports what the relay must preserve of the IP header.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
}

impl UdpSocket {
    /// Opens a listener's socket. With `shared`, the other shards open the same address too, and the kernel spreads the
    /// clients over them.
    pub fn listener(address: SocketAddr, shared: bool) -> Result<Self, SocketError> {
        Self::open(address, shared, Some(LISTENER_BUFFER)).map_err(|error| SocketError::new(address, error))
    }

    /// Opens the socket of a relayed transport address. It keeps what ICMP packets say of its datagrams for
    /// [`take_error`](super::take_error).
    pub fn relay(address: SocketAddr) -> Result<Self, SocketError> {
        Self::open(address, false, None)
            .and_then(|socket| socket.report_errors().map(|()| socket))
            .map_err(|error| SocketError::new(address, error))
    }

    fn report_errors(&self) -> io::Result<()> {
        match self.local {
            SocketAddr::V4(_) => set_option(&self.socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
            SocketAddr::V6(_) => set_option(&self.socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
        }
    }

    fn open(address: SocketAddr, shared: bool, buffer: Option<i32>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        if let Some(bytes) = buffer {
            // A larger buffer than the host allows is a wish, not a need: the kernel takes what it may.
            let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
                .or_else(|_| set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes));
            let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
                .or_else(|_| set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes));
        }
        match address {
            SocketAddr::V4(_) => {
                set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
                set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
                set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
                // DF stays clear unless a client asks for it by DONT-FRAGMENT: a socket cannot see the bit of what it
                // received (RFC 8656 section 16, alternate behaviour).
                set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, FRAGMENT_V4)?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, FRAGMENT_V6)?;
                // The flow label is zero on both paths.
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_AUTOFLOWLABEL, 0)?;
            }
        }
        // Datagrams of one flow that arrive together come as one: each then costs little more than its bytes.
        set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)?;
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))?;
        Ok(Self { socket, local })
    }

    /// The address the socket is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether datagrams of this socket are sent with DF set, and refused when they are too big for the path.
    pub fn set_dont_fragment(&self, on: bool) -> io::Result<()> {
        match self.local {
            SocketAddr::V4(_) => {
                let value = if on { libc::IP_PMTUDISC_DO } else { FRAGMENT_V4 };
                set_option(&self.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
            }
            SocketAddr::V6(_) => {
                let value = if on { libc::IPV6_PMTUDISC_DO } else { FRAGMENT_V6 };
                set_option(&self.socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)
            }
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// DF clear. Not IP_PMTUDISC_DONT: that keeps the kernel from reporting that a datagram was too big, which can be one
/// that a client has sent with DONT-FRAGMENT, or that left in the kernel with DF. The path MTUs that others have learned
/// are not looked at either, nor do ICMP packets about our datagrams teach the host any: routers cut to fit.
const FRAGMENT_V4: i32 = libc::IP_PMTUDISC_OMIT;
/// Fragmented to the path MTU, which for IPv6 nobody else will do. Reports all that is too big.
const FRAGMENT_V6: i32 = libc::IPV6_PMTUDISC_DONT;

/// A listener takes the bursts of all its clients while its shard is busy with others.
const LISTENER_BUFFER: i32 = 4 << 20;

#[allow(unsafe_code, reason = "options that socket2 does not know; the value is an int that outlives the call")]
pub(super) fn set_option(socket: &Socket, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `size` bytes of `value` during the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address that this host would send from to reach the Internet, by its routes. Sends nothing.
pub fn source_address_towards(ip: IpAddr) -> Option<IpAddr> {
    let any = if ip.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect((ip, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip()).filter(|ip| !ip.is_unspecified())
}

/// Lets a task wait until a descriptor is readable.
#[allow(unsafe_code, reason = "tokio wants it promised that the descriptor stays open and the same")]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always the same, and stays open until the `AsyncFd` that owns it is dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}
