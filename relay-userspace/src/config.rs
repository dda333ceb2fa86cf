//! What the relay is told, checked and complete. Whoever reads it from somewhere depends on this, and so does what it
//! is for; this depends on neither.

mod realm;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hairpin_proto::address::Transport;
use hairpin_proto::turn::{AlternateServer, NonceKey, RelayAddress, Translation};
use ipnet::IpNet;

pub use self::realm::{Authentication, Directory, NamedTokenKey, PasswordAlgorithms, Realm, ReservedAddress, Webhook};
use crate::datapath::XdpMode;
use crate::log::Format;
use crate::tls::CertificateFiles;

/// A checked configuration. It holds secrets: nothing prints it whole.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the operator's")]
pub struct Config {
    /// The file that it was read from, if there was one.
    pub config_file: Option<PathBuf>,
    /// How long clients that have an allocation may go on once the relay is told to end; zero: they may not.
    pub drain_timeout: Duration,
    /// Whether a drain that a signal begins sends clients that are there to other relays, too.
    pub drain_move: bool,
    /// Where clients reach the server, and how.
    pub listeners: Vec<Listener>,
    /// What the server shows to clients over TLS and DTLS.
    pub certificates: Vec<CertificateFiles>,
    /// Load balancers, whose TCP connections begin with a header of the PROXY protocol.
    pub proxies: Vec<IpNet>,
    /// How many connections there may be.
    pub connections: Connections,
    /// Whether clients may have connections with peers (RFC 6062).
    pub tcp_relay: bool,
    /// Whether clients may move to another address with their allocation (RFC 8016).
    pub mobility: bool,
    /// Sockets for NAT behaviour discovery (RFC 5780), which are among the listeners; none: it is off. With an empty list,
    /// what a server with one address can serve of it is on.
    pub discovery: Option<Vec<DiscoverySockets>>,
    /// How the world sees this host's addresses.
    pub translation: Translation,
    /// What nonces are made with, the first, and known by, all of them; none: what the relay draws at its start.
    pub nonce_keys: Vec<NonceKey>,
    /// Other servers for clients that find no room here.
    pub alternates: Vec<AlternateServer>,
    /// What relayed addresses are made of.
    pub relay_addresses: Vec<RelayAddress>,
    /// The ports of relayed addresses.
    pub relay_ports: PortRange,
    /// Those of them that only users get for whom an address is reserved.
    pub reserved_ports: Option<PortRange>,
    /// Who may relay: at least one realm, the first of which is for whoever is in no other.
    pub realms: Vec<Realm>,
    /// Who is asked about users that are in none of them.
    pub directory: Directory,
    /// Peers that are allowed although a wider rule forbids them.
    pub allow_peers: Vec<IpNet>,
    /// Peers that are forbidden.
    pub deny_peers: Vec<IpNet>,
    /// Forwarding in the kernel.
    pub xdp: XdpMode,
    /// Whose packets are forwarded in the kernel; none: those of the default routes, and those with an address of ours.
    pub interfaces: Vec<String>,
    /// Where metrics and health are served, and the rest of the admin interface to who has a token.
    pub admin: AdminAddr,
    /// Where the admin interface is for this host.
    pub admin_socket: AdminSocket,
    /// Bearer tokens that open the whole admin interface.
    pub admin_tokens: Vec<String>,
    /// Bearer tokens that may mint credentials only.
    pub credentials_tokens: Vec<String>,
    /// Web sites whose pages may mint credentials; `*` for any.
    pub credentials_origins: Vec<String>,
    /// How many credentials may be minted.
    pub credentials_rate: Rate,
    /// How long a minted credential is valid, at most and unless less is asked for.
    pub credentials_ttl: Duration,
    /// What is logged: a filter that [`crate::log`] understands.
    pub log: String,
    /// How it is logged.
    pub log_format: Format,
    /// Whether and how loudly allocations are logged.
    pub log_allocations: AllocationLog,
    /// Of how many allocations one is logged.
    pub log_sample: u32,
    /// Whether lines about allocations say the clients' addresses.
    pub log_client_addresses: bool,
    /// Where traces of requests are sent.
    pub otlp: Option<String>,
    /// Of how many requests one is traced.
    pub otlp_sample: u32,
    /// Number of shards.
    pub shards: u32,
    /// How many allocations there may be at once; none: as many as have a relay port, up to a default.
    pub max_allocations: Option<u32>,
    /// How many of them one source address may have (of IPv6, one /64); none: any number.
    pub max_allocations_per_source: Option<u32>,
    /// How many permissions one allocation may have.
    pub max_permissions: u32,
    /// How many channels one allocation may have.
    pub max_channels: u32,
    /// The longest lifetime of an allocation.
    pub max_lifetime: Duration,
    /// How many sessions of two legs there may be at once.
    pub ice_max_sessions: u32,
    /// How many records the kernel has room for; none: by the number of allocations.
    pub kernel_records: Option<u32>,
    /// How much may be relayed and asked for in a time.
    pub rates: Rates,
}

/// Where clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken there.
    pub transport: Transport,
    /// This host's address and port.
    pub address: SocketAddr,
    /// The address and port by which clients know it: others behind a 1:1 NAT, else the same.
    pub public: SocketAddr,
    /// Whether it is left out when the host cannot have it: the default ones of IPv6 on a host without.
    pub is_optional: bool,
}

/// Two addresses with the same two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoverySockets {
    /// The one that clients begin at, and the other.
    pub addresses: [IpAddr; 2],
    /// Likewise.
    pub ports: [u16; 2],
}

/// How many connections over TCP and TLS, and associations over DTLS, there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Of all clients; none: as many as there may be allocations, and new ones.
    pub all: Option<u32>,
    /// Of clients without an allocation.
    pub new: u32,
    /// Of clients without an allocation at one address, of IPv6 one /64.
    pub new_of_source: u32,
}

/// The ports that relayed addresses are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub min: u16,
    /// The highest port.
    pub max: u16,
}

impl PortRange {
    /// The dynamic ports of RFC 6335, which RFC 8656 section 7.2 suggests.
    pub const DYNAMIC: Self = Self { min: 49_152, max: 65_535 };

    /// All ports.
    pub fn range(self) -> RangeInclusive<u16> {
        self.min..=self.max
    }

    /// Whether all ports of another range are in this one.
    pub fn covers(self, other: Self) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    /// All ports but those of another range.
    pub fn without(self, other: Option<Self>) -> Vec<RangeInclusive<u16>> {
        let Some(other) = other else { return vec![self.range()] };
        let below = self.min..=self.max.min(other.min.saturating_sub(1));
        let above = self.min.max(other.max.saturating_add(1))..=self.max;
        let is_any = |range: &RangeInclusive<u16>| !range.is_empty() && !(other.range().contains(range.start()));
        [below, above].into_iter().filter(is_any).collect()
    }

    /// How many ports there are.
    pub fn count(self) -> usize {
        self.range().count()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// How much may be relayed and asked for in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bits of application data a second, of one allocation, in each direction.
    pub allocation_bits: Rate,
    /// Datagrams a second, of one allocation, in each direction.
    pub allocation_packets: Rate,
    /// Bits of application data a second, of all allocations, both directions together.
    pub relay_bits: Rate,
    /// Datagrams a second to listeners, of one source address without an allocation.
    pub source_packets: Rate,
    /// Datagrams a second to listeners, of all sources without an allocation.
    pub control_packets: Rate,
}

/// How many of something there may be in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// As many as there are.
    #[default]
    Off,
    /// So many.
    PerSecond(NonZeroU64),
}

impl Rate {
    /// The number; 0 for as many as there are.
    pub fn number(self) -> u64 {
        match self {
            Self::Off => 0,
            Self::PerSecond(number) => number.get(),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::PerSecond(number) => number.fmt(f),
        }
    }
}

/// Where metrics and health are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    /// Nowhere.
    Off,
    /// Where the admin interface listens.
    At(SocketAddr),
}

/// The Unix socket of the admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// There is none.
    Off,
    /// Nobody has said where: one that cannot be had is a notice, no error.
    Default(PathBuf),
    /// Where the operator wants it.
    At(PathBuf),
}

/// The level of the two lines about an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AllocationLog {
    /// They are not logged
    Off,
    /// With the details
    Debug,
    /// With what an operator reads
    #[default]
    Info,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_without_some_of_them() {
        let range = |min, max| PortRange { min, max };
        let left = |other| {
            let ranges = range(10, 20).without(other);
            ranges.iter().map(|range| (*range.start(), *range.end())).collect::<Vec<_>>()
        };
        assert_eq!(left(None), [(10, 20)]);
        assert_eq!(left(Some(range(13, 15))), [(10, 12), (16, 20)]);
        assert_eq!(left(Some(range(10, 15))), [(16, 20)]);
        assert_eq!(left(Some(range(15, 20))), [(10, 14)]);
        assert_eq!(left(Some(range(10, 20))), []);
        let all = range(1, 65_535).without(Some(range(1, 65_535)));
        assert_eq!(all, [] as [RangeInclusive<u16>; 0]);
    }
}
