//! What a server is made of.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::discovery::Discovery;
use super::known::Freshness;
use super::nonce::NonceKey;
use super::peer_policy::PeerPolicy;
use super::port_pool::PortStripe;
use super::quota::Quotas;
use super::realm::Realm;
use super::redirect::AlternateServer;
use super::translation::Translation;
use crate::address::Transport;

/// Everything a [`Server`](super::Server) is told in the beginning.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What may be told anew later.
    pub settings: Settings,
    /// What SOFTWARE says in authenticated responses, at most 763 bytes.
    pub software: Option<String>,
    /// How long a nonce is valid; RFC 8656 section 5 asks for at most one hour.
    pub nonce_lifetime: Duration,
    /// NAT behaviour discovery (RFC 5780); without it, what its clients ask for is unknown.
    pub discovery: Option<Discovery>,
    /// This shard's ports.
    pub ports: PortStripe,
    /// Counts allocations over all shards.
    pub quotas: Quotas,
    /// Which shard this is, from 0. It is part of the names that clients may bring to another shard.
    pub shard: u32,
    /// How many shards there are.
    pub shards: u32,
}

/// What a [`Server`](super::Server) may be told anew while it runs: see [`Server::reconfigure`](super::Server::reconfigure).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may relay: at least one realm, the first of which is for whoever is in no other.
    pub realms: Vec<Arc<Realm>>,
    /// How long answers about users hold.
    pub freshness: Freshness,
    /// What nonces are made with, the same for all shards: at least one key. The first makes them, those of each are taken.
    pub nonce_keys: Vec<NonceKey>,
    /// Which peers may be reached.
    pub peer_policy: PeerPolicy,
    /// What relayed transport addresses are made of. The families that are served are those found here.
    pub relay_addresses: Vec<RelayAddress>,
    /// Which of this host's addresses are of one network, by a number for each network. Relayed addresses are of the network
    /// that the client has reached the server in, if there is one of it; between those of one network chance decides, as
    /// between all of which nothing is known.
    pub networks: Vec<(IpAddr, u32)>,
    /// Ports of the relay's that only those get whom they are granted to ([`Grant`](super::Grant)).
    pub reserved_ports: Option<RangeInclusive<u16>>,
    /// How the world sees the addresses that clients reach the server at: those of listeners behind a 1:1 NAT.
    pub translation: Translation,
    /// Where to send clients that find no room here (RFC 8489 section 10). May hold this server too, so that many servers
    /// can share one list.
    pub alternates: Vec<AlternateServer>,
    /// How much there may be of everything.
    pub limits: Limits,
    /// Whether relayed addresses of TCP may be allocated (RFC 6062).
    pub tcp_relay: bool,
    /// What mobility tickets are sealed with (RFC 8016): the same for all shards, since a client may come to another
    /// one. Without a key no client gets a ticket; with another key, those that were given out are worth nothing.
    pub mobility: Option<[u8; 32]>,
    /// Where clients may come by that want an allocation; who has come by none of them is turned away. None at all: they may
    /// come by any. An unspecified address means every one of its family.
    pub listeners: Vec<(Transport, SocketAddr)>,
}

/// An address that relayed transport addresses are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// The host's own address, which sockets are bound to.
    pub bind: IpAddr,
    /// The address that clients are told: another one behind a 1:1 NAT, else the same.
    pub public: IpAddr,
}

impl From<IpAddr> for RelayAddress {
    /// An address that is the same on both sides.
    fn from(ip: IpAddr) -> Self {
        Self { bind: ip, public: ip }
    }
}

/// How much there may be of everything. All limits are finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest lifetime of an allocation; RFC 8656 section 7.2 recommends at most one hour.
    pub max_lifetime: Duration,
    /// The lifetime of an allocation whose client asks for none, or for a shorter one (RFC 8656 section 3.2).
    pub default_lifetime: Duration,
    /// How long a permission lasts: five minutes by RFC 8656 section 9, which clients rely on. Tests wait less.
    pub permission_lifetime: Duration,
    /// How long a channel binding lasts: ten minutes by RFC 8656 section 12, as above.
    pub channel_lifetime: Duration,
    /// Allocations of this server (one shard). Every [`AllocationId`](super::AllocationId) is below it, or below a higher
    /// limit that was in force before.
    pub allocations: usize,
    /// Allocations and reserved ports of clients at one source address (of IPv6, one /64), over all shards.
    pub allocations_per_source: usize,
    /// Permissions of one allocation.
    pub permissions: usize,
    /// Channels of one allocation, those included that have expired and may not be bound anew yet.
    pub channels: usize,
    /// Connections to peers of one TCP allocation, those included that are under way or wait for ConnectionBind.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_lifetime: Duration::from_secs(3600),
            default_lifetime: Duration::from_secs(600),
            permission_lifetime: Duration::from_secs(300),
            channel_lifetime: Duration::from_secs(600),
            // As many as there are dynamic ports.
            allocations: 16_384,
            allocations_per_source: usize::MAX,
            permissions: 1024,
            channels: 1024,
            connections: 256,
        }
    }
}
