//! What sessions are made of.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::turn::{PeerPolicy, RelayAddress};

/// What [`Sessions`](super::Sessions) are told, and may be told anew while they run: what is there stays as it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What legs are reached at, one local address for each of these.
    pub relay_addresses: Vec<RelayAddress>,
    /// The ports that legs may have.
    pub ports: RangeInclusive<u16>,
    /// Which addresses media may be sent to that have not proven, by ICE, that they want it.
    pub peer_policy: PeerPolicy,
    /// How many sessions there may be.
    pub max_sessions: usize,
    /// How many paths there may be: every [`PathId`](super::PathId) is below it, or below a higher one that was in force
    /// before.
    pub max_paths: usize,
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
