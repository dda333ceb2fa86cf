//! What a server is made of.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::credentials::Credentials;
use super::peer_policy::PeerPolicy;
use super::port_pool::PortStripe;
use super::quota::Quotas;

/// Everything a [`Server`](super::Server) is told once.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The realm of the long-term credentials, at most 763 bytes; the one that `credentials` were made for.
    pub realm: String,
    /// What SOFTWARE says in authenticated responses, at most 763 bytes.
    pub software: Option<String>,
    /// Who may relay.
    pub credentials: Credentials,
    /// What nonces are made with: the same for all shards, since a client may come to another one.
    pub nonce_key: [u8; 32],
    /// How long a nonce is valid; RFC 8656 section 5 asks for at most one hour.
    pub nonce_lifetime: Duration,
    /// Which peers may be reached.
    pub peer_policy: PeerPolicy,
    /// What relayed transport addresses are made of. The families that are served are those found here.
    pub relay_addresses: Vec<RelayAddress>,
    /// This shard's ports.
    pub ports: PortStripe,
    /// How much there may be of everything.
    pub limits: Limits,
    /// Counts each user's allocations over all shards.
    pub quotas: Quotas,
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

/// Turns the relayed addresses of this relay from what they are bound to into what everybody else knows them by, and back.
///
/// Two clients of one relay behind a 1:1 NAT know each other by public addresses. Their data need not go out to the NAT,
/// which may not send it back: it goes to where the other relayed address is bound, and comes from where the first is.
/// Only ports of relayed addresses are translated; whatever else this host has stays behind its NAT's rules.
#[derive(Clone, Debug)]
pub struct RelayTranslation {
    /// Those that have another public address.
    addresses: Vec<RelayAddress>,
    ports: RangeInclusive<u16>,
}

impl RelayTranslation {
    /// The translation of these addresses, for relayed addresses with these ports.
    pub fn new(addresses: &[RelayAddress], ports: RangeInclusive<u16>) -> Self {
        let addresses = addresses.iter().copied().filter(|address| address.bind != address.public).collect();
        Self { addresses, ports }
    }

    /// Where to send what is for this peer.
    pub fn inside(&self, peer: SocketAddr) -> SocketAddr {
        self.translate(peer, |address| (address.public, address.bind))
    }

    /// Which peer sent what came from there.
    pub fn outside(&self, source: SocketAddr) -> SocketAddr {
        self.translate(source, |address| (address.bind, address.public))
    }

    fn translate(&self, mut place: SocketAddr, sides: impl Fn(&RelayAddress) -> (IpAddr, IpAddr)) -> SocketAddr {
        if !self.addresses.is_empty() && self.ports.contains(&place.port()) {
            let ip = place.ip().to_canonical();
            if let Some((_, to)) = self.addresses.iter().map(sides).find(|(from, _)| *from == ip) {
                place.set_ip(to);
            }
        }
        place
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
    /// Allocations of this server (one shard). Every [`AllocationId`](super::AllocationId) is below it.
    pub allocations: usize,
    /// Allocations and reserved ports of one user, over all shards.
    pub allocations_per_user: usize,
    /// Permissions of one allocation.
    pub permissions: usize,
    /// Channels of one allocation, those included that have expired and may not be bound anew yet.
    pub channels: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_lifetime: Duration::from_secs(3600),
            default_lifetime: Duration::from_secs(600),
            permission_lifetime: Duration::from_secs(300),
            channel_lifetime: Duration::from_secs(600),
            // As many as there are dynamic ports, and three quarters of them for one user: none can take them all.
            allocations: 16_384,
            allocations_per_user: 12_288,
            permissions: 1024,
            channels: 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relayed_addresses_are_translated_and_nothing_else_is() {
        let address = |bind: &str, public: &str| RelayAddress {
            bind: bind.parse().expect("an address"),
            public: public.parse().expect("an address"),
        };
        let addresses =
            [address("10.0.0.5", "203.0.113.5"), address("10.0.0.6", "10.0.0.6"), address("fd00::5", "2001:db8::5")];
        let translation = RelayTranslation::new(&addresses, 50_000..=50_999);
        let place = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (inside, outside) in [("10.0.0.5:50000", "203.0.113.5:50000"), ("[fd00::5]:50999", "[2001:db8::5]:50999")] {
            assert_eq!(translation.inside(place(outside)), place(inside));
            assert_eq!(translation.outside(place(inside)), place(outside));
            assert_eq!(translation.inside(place(inside)), place(inside));
            assert_eq!(translation.outside(place(outside)), place(outside));
        }
        assert_eq!(translation.inside(place("[::ffff:203.0.113.5]:50000")), place("10.0.0.5:50000"));
        for other in ["10.0.0.6:50000", "10.0.0.5:22", "203.0.113.5:3478", "[2001:db8::5]:51000", "198.51.100.7:50000"]
        {
            assert_eq!([translation.inside(place(other)), translation.outside(place(other))], [place(other); 2]);
        }
    }
}
