//! Other settings: what they take from the clients, and what holds from then on.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hairpin_proto::address::{AddressFamily, RelayedAddr, Transport};
use hairpin_proto::turn::{Credentials, EndReason, RelayAddress, Settings};

use super::{ACCOUNTS, CLIENTS, FORBIDDEN, PEERS, USERS, World};
use crate::harness::{PUBLIC_V4, REALM, RELAY_V4, RELAY_V6, SERVER, realm, socket};

/// Another address of the host.
const NEW_V4: &str = "192.0.2.16";
/// What relayed addresses are made of, and how the world sees it.
const RELAY_ADDRESSES: [(&str, &str); ADDRESSES] = [(RELAY_V4, PUBLIC_V4), (NEW_V4, NEW_V4), (RELAY_V6, RELAY_V6)];
pub(crate) const ADDRESSES: usize = 3;
/// Rules, and whom of [`PEERS`] they forbid.
const RULES: [(&str, &[usize]); RULE_COUNT] =
    [("8.8.8.8/32", &[0, 1]), ("::ffff:8.8.4.0/120", &[2]), ("2001:db8::53/128", &[3, 4]), ("198.51.100.15/32", &[6])];
pub(crate) const RULE_COUNT: usize = 4;

/// What may be different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which rules there are.
    pub(crate) rules: [bool; RULE_COUNT],
    /// Which relay addresses there are.
    pub(crate) addresses: [bool; ADDRESSES],
    /// Who may relay.
    pub(crate) users: [bool; USERS],
    /// Whether the listener that clients of UDP come by is retired.
    pub(crate) retired: bool,
    /// Whether there may be less of everything.
    pub(crate) low: bool,
}

impl Default for Change {
    /// As in the beginning.
    fn default() -> Self {
        Self {
            rules: [false; RULE_COUNT],
            addresses: [true, false, true],
            users: [true; USERS],
            retired: false,
            low: false,
        }
    }
}

impl Change {
    pub(super) fn forbids(&self, peer: usize) -> bool {
        let denied = RULES.iter().zip(self.rules).any(|((_, peers), there)| there && peers.contains(&peer));
        denied || PEERS[peer] == FORBIDDEN
    }

    /// Whether a relayed address may be made of this public address.
    pub(super) fn has_address(&self, public: IpAddr) -> bool {
        let known = RELAY_ADDRESSES.iter().zip(self.addresses).filter(|(_, there)| *there);
        known.into_iter().any(|((_, known), _)| known.parse() == Ok(public))
    }

    /// Settings that differ from these by this.
    fn of(&self, mut settings: Settings) -> Settings {
        let rules = RULES.iter().zip(self.rules).filter(|(_, there)| *there);
        rules.for_each(|((net, _), _)| settings.peer_policy.deny(net.parse().unwrap()));
        let addresses = RELAY_ADDRESSES.iter().zip(self.addresses).filter(|(_, there)| *there);
        settings.relay_addresses = addresses
            .map(|((bind, public), _)| RelayAddress { bind: bind.parse().unwrap(), public: public.parse().unwrap() })
            .collect();
        realm(&mut settings).credentials = Credentials::new(REALM);
        let users = ACCOUNTS.iter().zip(self.users).filter(|(_, there)| *there);
        users.for_each(|((name, password), _)| realm(&mut settings).credentials.add_user(name, password));
        let all = Transport::ALL.into_iter().flat_map(|of| [SERVER, "[::]:3478"].map(|at| (of, socket(at))));
        let is_there =
            |listener: &(Transport, SocketAddr)| !self.retired || *listener != (Transport::Udp, socket(SERVER));
        settings.listeners = all.filter(is_there).collect();
        if self.low {
            settings.limits.permissions = 1;
            settings.limits.channels = 0;
            settings.limits.allocations = 1;
        }
        settings
    }
}

impl World {
    /// The settings are others: at once every client loses what they forbid, and nothing else.
    pub(super) fn reconfigure(&mut self, change: Change) {
        let settings = change.of(self.settings.clone());
        self.change = change;
        for rights in &mut self.rights {
            rights.lose(|peer| change.forbids(peer));
        }
        let answered = self.relay.responses.len();
        self.relay.server.reconfigure(self.relay.now, settings);
        self.relay.drain();
        assert_eq!(self.relay.responses.len(), answered, "nobody has asked for anything");
    }

    /// An operator closes what a client has.
    pub(super) fn close(&mut self, client: usize, reason: EndReason) {
        let five_tuple = self.clients[client][0].five_tuple;
        let described = |id| self.relay.server.describe(id).expect("what has a name is there");
        let ids = self.relay.server.allocation_ids();
        let Some(id) = ids.into_iter().find(|id| described(*id).five_tuple == five_tuple) else { return };
        self.relay.server.close_allocation(self.relay.now, id, reason);
        self.relay.drain();
        assert_eq!(self.relay.ended.last(), Some(&reason));
        self.rights[client] = super::Rights::default();
        assert_eq!(self.relay.server.describe(id), None);
    }

    /// Whether a client has come by a listener that is retired.
    pub(super) fn is_retired(&self, client: usize) -> bool {
        let five_tuple = self.clients[client][0].five_tuple;
        let at = (five_tuple.transport, five_tuple.server.socket());
        self.change.retired && at == (Transport::Udp, socket(SERVER))
    }

    /// What is described is what the clients were given.
    pub(super) fn probe_descriptions(&self) {
        let now = self.relay.now.instant;
        for id in self.relay.server.allocation_ids() {
            let info = self.relay.server.describe(id).expect("what has a name is there");
            let client = self.client_at(info.five_tuple);
            let rights = &self.rights[client];
            assert_eq!(info.username, ACCOUNTS[rights.user].0);
            let relayed = info.relayed.iter().filter(|relayed| now < relayed.ends).map(|relayed| relayed.public);
            assert!(relayed.eq(
                self.told[client].iter().copied().filter(|told| {
                    rights.families.get(&AddressFamily::of(told.ip())).is_some_and(|end| now < *end)
                })
            ));
            // What ends with its relayed address is there until a timer fires.
            let lives = |peer: IpAddr, end: Instant| {
                now < end && rights.families.get(&AddressFamily::of(peer)).is_some_and(|end| now < *end)
            };
            for permission in info.permissions.iter().filter(|permission| lives(permission.peer, permission.ends)) {
                assert_eq!(rights.permissions.get(&permission.peer), Some(&permission.ends));
            }
            for channel in info.channels.iter().filter(|channel| lives(channel.peer.ip(), channel.ends)) {
                let bound = rights.channels.get(&channel.number).map(|(peer, end)| (socket(PEERS[*peer]), *end));
                assert_eq!(bound, Some((channel.peer.socket(), channel.ends)));
            }
        }
        let by_listener = |transport, listener| self.relay.server.allocations_at(transport, socket(listener));
        let of_all =
            Transport::ALL.map(|transport| by_listener(transport, SERVER) + by_listener(transport, "[::]:3478"));
        assert_eq!(of_all.iter().sum::<usize>(), self.relay.server.allocations());
        assert!(of_all.iter().sum::<usize>() <= CLIENTS);
    }
}

/// A relayed address as the world sees it.
pub(super) fn public(address: RelayedAddr) -> SocketAddr {
    let (_, public) = RELAY_ADDRESSES
        .iter()
        .find(|(bind, _)| bind.parse() == Ok(address.ip()))
        .expect("it was made of an address that there is or was");
    SocketAddr::new(public.parse().unwrap(), address.port())
}
