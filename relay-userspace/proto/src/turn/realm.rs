//! Realms: each has users and quotas of its own, and clients find theirs by where they come.

use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::credentials::Credentials;
use super::redirect::comes_by;
use crate::address::{FiveTuple, Transport};

/// A realm of long-term credentials (RFC 8489 section 9.2), and whose clients are in it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a matter of its own")]
pub struct Realm {
    /// What clients are told, at most 763 bytes; the one that `credentials` were made for.
    pub name: Arc<str>,
    /// Who may relay, as far as it is known in advance.
    pub credentials: Credentials,
    /// Whose clients those are who have come by one of these listeners. An unspecified address means every one of its
    /// family.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// And those who have asked for one of these names in their TLS or DTLS handshake, in lower case. Names come before
    /// listeners.
    pub server_names: Vec<String>,
    /// Whether [`Question`](super::Question)s are asked about users that `credentials` does not know.
    pub asks_for_users: bool,
    /// Whether they are asked for each new allocation.
    pub asks_for_admission: bool,
    /// The name of this server in access tokens, which clients are told with the realm (THIRD-PARTY-AUTHORIZATION, RFC
    /// 7635 section 6.1); none: tokens are not taken.
    pub token_audience: Option<String>,
    /// Whether clients are offered keys made by SHA-256 beside those made by MD5 (PASSWORD-ALGORITHMS, RFC 8489 section
    /// 14.11). Not where there are
    /// users of whom only the key made by MD5 is known: who takes the offer could not be verified.
    pub offers_sha256: bool,
    /// Whether clients are told that they may hide their usernames (USERHASH, RFC 8489 section 14.4). Not where there are
    /// secrets: a name that is not known in advance cannot be found by its hash.
    pub offers_anonymity: bool,
    /// How many allocations and reserved ports there may be in the realm, over all shards.
    pub allocations: usize,
    /// The same of one user.
    pub allocations_per_user: usize,
}

impl Realm {
    /// A realm without limits of its own, whose users are all known.
    pub fn new(name: &str, credentials: Credentials) -> Self {
        Self {
            name: name.into(),
            credentials,
            listeners: Vec::new(),
            server_names: Vec::new(),
            asks_for_users: false,
            asks_for_admission: false,
            token_audience: None,
            offers_sha256: true,
            offers_anonymity: false,
            allocations: usize::MAX,
            // Three quarters of the default of all: no user can take them all.
            allocations_per_user: 12_288,
        }
    }
}

/// All realms of a server.
#[derive(Debug)]
pub(super) struct Realms {
    /// Never empty: who is in no other is in the first.
    all: Vec<Arc<Realm>>,
    /// The realms of clients that have asked for a name.
    named: HashMap<FiveTuple, Arc<str>>,
}

impl Realms {
    /// # Panics
    ///
    /// If there is none.
    pub(super) fn new(realms: Vec<Arc<Realm>>) -> Self {
        let mut all = Self { all: Vec::new(), named: HashMap::new() };
        all.replace(realms);
        all
    }

    /// Takes other realms from now on. Clients that have asked for a name stay in the realm of that name, if it is there
    /// still.
    pub(super) fn replace(&mut self, realms: Vec<Arc<Realm>>) {
        assert!(!realms.is_empty(), "a server has a realm");
        self.all = realms;
    }

    /// The realm that a client is in.
    pub(super) fn of(&self, five_tuple: &FiveTuple) -> &Arc<Realm> {
        if let Some(realm) = self.named.get(five_tuple).and_then(|name| self.find(name)) {
            return realm;
        }
        let (transport, server) = (five_tuple.transport, five_tuple.server.socket());
        let is_here =
            |realm: &&Arc<Realm>| realm.listeners.iter().any(|listener| comes_by(*listener, transport, server));
        self.all.iter().find(is_here).unwrap_or(&self.all[0])
    }

    /// The one with a name.
    pub(super) fn find(&self, name: &str) -> Option<&Arc<Realm>> {
        self.all.iter().find(|realm| *realm.name == *name)
    }

    /// Whether a relayed address is kept, in advance, for somebody else.
    pub(super) fn keep_for_other(&self, address: SocketAddr, realm: &str, account: &str) -> bool {
        let mut owners =
            self.all.iter().flat_map(|known| known.credentials.keepers_of(address).map(|name| (&*known.name, name)));
        owners
            .next()
            .is_some_and(|first| std::iter::once(first).chain(owners).all(|(of, name)| of != realm || name != account))
    }

    /// A client has asked for a name.
    pub(super) fn named(&mut self, five_tuple: FiveTuple, server_name: &str) {
        let is_it = |realm: &&Arc<Realm>| realm.server_names.iter().any(|name| name.eq_ignore_ascii_case(server_name));
        if let Some(realm) = self.all.iter().find(is_it) {
            self.named.insert(five_tuple, Arc::clone(&realm.name));
        }
    }

    /// A client is gone.
    pub(super) fn forget(&mut self, five_tuple: &FiveTuple) {
        self.named.remove(five_tuple);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{ClientAddr, ServerAddr};

    fn realm(name: &str, listeners: &[(Transport, &str)], names: &[&str]) -> Arc<Realm> {
        Arc::new(Realm {
            listeners: listeners.iter().map(|(transport, at)| (*transport, at.parse().unwrap())).collect(),
            server_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Realm::new(name, Credentials::new(name))
        })
    }

    fn client(server: &str, transport: Transport) -> FiveTuple {
        FiveTuple {
            client: ClientAddr::new(([192, 0, 2, 1], 5000).into()),
            server: ServerAddr::new(server.parse().unwrap()),
            transport,
        }
    }

    #[test]
    fn a_client_is_in_the_realm_of_its_name_then_of_its_listener_then_in_the_first() {
        let mut realms = Realms::new(vec![
            realm("first", &[], &[]),
            realm("second", &[(Transport::Udp, "198.51.100.2:3478"), (Transport::Tls, "0.0.0.0:5349")], &[]),
            realm("third", &[], &["turn.example.org"]),
        ]);
        let of = |realms: &Realms, server: &str, transport| realms.of(&client(server, transport)).name.to_string();
        assert_eq!(of(&realms, "198.51.100.1:3478", Transport::Udp), "first");
        assert_eq!(of(&realms, "198.51.100.2:3478", Transport::Udp), "second");
        assert_eq!(of(&realms, "198.51.100.2:3478", Transport::Tcp), "first");
        let over_tls = client("198.51.100.9:5349", Transport::Tls);
        assert_eq!(&*realms.of(&over_tls).name, "second");
        realms.named(over_tls, "elsewhere.example.org");
        assert_eq!(&*realms.of(&over_tls).name, "second", "the name is nobody's");
        realms.named(over_tls, "Turn.Example.org");
        assert_eq!(&*realms.of(&over_tls).name, "third");
        realms.replace(vec![realm("first", &[], &[])]);
        assert_eq!(&*realms.of(&over_tls).name, "first", "there is no other any more");
        realms.forget(&over_tls);
        assert!(realms.named.is_empty());
    }
}
