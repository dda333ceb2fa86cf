//! One type for each role that a transport address plays, so that they cannot be mixed up (RFC 8656 section 2).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Takes an address in this role; an IPv4-mapped IPv6 address becomes the IPv4 address that it is.
            pub fn new(address: SocketAddr) -> Self {
                Self(canonical(address))
            }

            /// The address itself.
            pub fn socket(self) -> SocketAddr {
                self.0
            }

            /// Its IP address.
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// Its port.
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

roles! {
    /// Where a client's packets come from, as the server sees it: the server-reflexive transport address.
    ClientAddr;
    /// The server's own address that a client sent to.
    ServerAddr;
    /// The host at the other end of a relayed transport address.
    PeerAddr;
    /// An address on the server that belongs to one allocation. As bound locally, not as seen through a NAT.
    RelayedAddr;
}

fn canonical(address: SocketAddr) -> SocketAddr {
    // The scope id and flow information of an IPv6 address are no part of a transport address.
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a client speaks to the server over (RFC 8656 section 3.1; RFC 7350 for DTLS).
///
/// TLS is told from TCP, and DTLS from UDP, although a 5-tuple of the RFC knows but TCP and UDP: what was begun under
/// encryption must not go on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Plain datagrams.
    Udp,
    /// A plain stream.
    Tcp,
    /// A stream within TLS.
    Tls,
    /// Datagrams within DTLS.
    Dtls,
}

impl Transport {
    /// Every transport, in the order of `as usize`.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Tcp, Self::Tls, Self::Dtls];

    /// Whether messages follow each other in a stream, and have to be cut out of it.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }

    /// The name in options, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Client address, server address and the transport between them (RFC 8656 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// The client's side.
    pub client: ClientAddr,
    /// The server's side.
    pub server: ServerAddr,
    /// What is spoken between them.
    pub transport: Transport,
}

/// Numbers of five-tuples, by transport and by the client's family, each in the order of its `ALL`.
pub type ByClient = [[usize; AddressFamily::ALL.len()]; Transport::ALL.len()];

impl FiveTuple {
    /// The family of the client's address.
    pub fn client_family(&self) -> AddressFamily {
        AddressFamily::of(self.client.ip())
    }

    /// Plain datagrams between a client and a server.
    pub fn udp(client: ClientAddr, server: ServerAddr) -> Self {
        Self { client, server, transport: Transport::Udp }
    }
}

/// The IP version of an address, with its number in REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum AddressFamily {
    /// IPv4.
    V4 = 0x01,
    /// IPv6.
    V6 = 0x02,
}

impl AddressFamily {
    /// Both, in the order of [`index`](Self::index), which is that in which they are shown to clients.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address, with IPv4-mapped IPv6 addresses counted as IPv4.
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family with this number on the wire.
    pub fn from_wire(number: u8) -> Option<Self> {
        match number {
            0x01 => Some(Self::V4),
            0x02 => Some(Self::V6),
            _ => None,
        }
    }

    /// Where it stands in a list of both.
    pub fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}
