//! What sessions are made of.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::address::AddressFamily;
use crate::turn::{PeerPolicy, RelayAddress};

/// What [`Sessions`](super::Sessions) are told, and may be told anew while they run: what is there stays as it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What legs are reached at, one local address for each of these.
    pub relay_addresses: Vec<RelayAddress>,
    /// The ports that legs may have: all that are in one of these.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Which addresses media may be sent to that have not proven, by ICE, that they want it.
    pub peer_policy: PeerPolicy,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// How many paths there may be: every [`PathId`](super::PathId) is below it, or below a higher one that was in force
    /// before.
    pub max_paths: usize,
}

impl Settings {
    /// Whether an address is made of one of the relay's own.
    pub(super) fn is_own(&self, address: SocketAddr) -> bool {
        self.relay_addresses.iter().any(|own| names(own, address.ip()))
    }
}

/// Which of the relay's addresses a session has. Of what nothing is said, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those of these families.
    pub families: Vec<AddressFamily>,
    /// Those among these: as they are bound, or as the world knows them.
    pub addresses: Vec<IpAddr>,
}

impl From<Vec<AddressFamily>> for Choice {
    fn from(families: Vec<AddressFamily>) -> Self {
        Self { families, addresses: Vec::new() }
    }
}

impl Choice {
    /// Whether an address is chosen.
    pub(super) fn has(&self, address: &RelayAddress) -> bool {
        let of_family = self.families.is_empty() || self.families.contains(&AddressFamily::of(address.bind));
        of_family && (self.addresses.is_empty() || self.addresses.iter().any(|one| names(address, *one)))
    }

    /// One that none of these is.
    pub(super) fn unknown(&self, addresses: &[RelayAddress]) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|one| !addresses.iter().any(|address| names(address, *one)))
    }
}

fn names(address: &RelayAddress, ip: IpAddr) -> bool {
    [address.bind, address.public].contains(&ip)
}

/// What the owner of a session may change about it at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long it lives without what it lives for.
    pub timeouts: Timeouts,
    /// How much may come to each of its legs.
    pub limits: Limits,
}

/// How much of each path a leg may be sent in a second, to be sent on; none: as much as in general.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams.
    pub packets: Option<NonZeroU64>,
    /// Bytes of application data.
    pub bytes: Option<NonZeroU64>,
}

/// How long a session lives without what it lives for. None of these is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long both legs may take to have a remote, before the session is closed.
    pub setup: Duration,
    /// How long a nominated remote may be silent before nothing more is sent to it: 30 s by RFC 7675 section 5.1.
    pub consent: Duration,
    /// How long a leg without consent is waited for, before the session is closed.
    pub paused: Duration,
    /// How long no media may flow, before the session is closed. None: for as long as there is consent.
    pub idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // A telephone may ring for some minutes before anybody answers it.
            setup: Duration::from_secs(300),
            consent: Duration::from_secs(30),
            paused: Duration::from_secs(60),
            idle: Some(Duration::from_secs(300)),
        }
    }
}
