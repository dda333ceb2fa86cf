//! Where datagrams come from, and what the peer rules say of it.

use std::net::SocketAddr;

use hairpin_proto::media::Settings;

use crate::harness::{settings, socket};

/// Addresses, whether the peer rules of the beginning permit them, and which of [`RULES`] forbids them.
const SOURCES: [(&str, bool, Option<usize>); SOURCE_COUNT] = [
    ("8.8.8.8:4000", true, Some(0)),
    ("8.8.8.8:4001", true, Some(0)),
    ("9.9.9.9:4000", true, Some(1)),
    ("10.0.0.1:4000", false, None),
    ("[2001:db8:8::8]:4000", true, None),
    // A relayed address, perhaps, and one of the host's own that is none.
    ("198.51.100.15:40003", true, None),
    ("198.51.100.15:22", false, None),
];
pub(crate) const SOURCE_COUNT: usize = 7;
const RULES: [&str; RULE_COUNT] = ["8.8.8.0/24", "9.9.9.9/32"];
pub(crate) const RULE_COUNT: usize = 2;

pub(super) fn source(at: usize) -> SocketAddr {
    socket(SOURCES[at].0)
}

pub(super) fn text(at: usize) -> &'static str {
    SOURCES[at].0
}

/// What may be different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which rules there are.
    pub(crate) rules: [bool; RULE_COUNT],
    /// Which relay addresses are not there: of IPv4, of IPv6.
    pub(crate) gone: [bool; 2],
    /// Whether there may be less of everything.
    pub(crate) low: bool,
}

impl Change {
    pub(super) fn permits(self, at: usize) -> bool {
        let (_, permitted, rule) = SOURCES[at];
        permitted && !rule.is_some_and(|rule| self.rules[rule])
    }

    /// Whether it is one of the relay's own.
    pub(super) fn is_own(self, at: usize) -> bool {
        source(at).ip() == source(SOURCE_COUNT - 1).ip() && !self.gone[0]
    }

    pub(super) fn permits_address(self, address: SocketAddr) -> bool {
        (0..SOURCE_COUNT).find(|at| source(*at) == address).is_some_and(|at| self.permits(at))
    }

    pub(super) fn settings(self) -> Settings {
        let mut settings = settings();
        let rules = RULES.iter().zip(self.rules).filter(|(_, there)| *there);
        rules.for_each(|(net, _)| settings.peer_policy.deny(net.parse().unwrap()));
        let gone = self.gone;
        settings.relay_addresses.retain(|address| !gone[usize::from(address.bind.is_ipv6())]);
        settings.ports = vec![super::PORTS];
        (settings.max_sessions, settings.max_paths) = if self.low { (1, 2) } else { (3, 6) };
        settings
    }
}
