//! Clients that know the protocol, and what they are answered.

use std::net::SocketAddr;

use hairpin_proto::address::{ClientAddr, FiveTuple, ServerAddr, Transport};
use hairpin_proto::stun::attribute::AlgorithmAndParameters;
use hairpin_proto::stun::attribute::{
    ErrorCodeAttribute, Lifetime, MobilityTicket, ReservationToken, XorRelayedAddress,
};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, Message, PasswordAlgorithm};
use hairpin_proto::turn::RelayId;

use super::{Event, REALM, SERVER, socket};

/// What servers offer to make keys by: SHA-256 and MD5.
pub(crate) const BOTH: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

/// Somebody who knows a password, or has a token.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) five_tuple: FiveTuple,
    pub(crate) username: String,
    pub(crate) key: LongTermKey,
    pub(crate) nonce: String,
    pub(crate) fingerprint: bool,
    pub(crate) realm: String,
    /// The attribute that signs.
    pub(crate) integrity: Integrity,
    /// PASSWORD-ALGORITHMS, as it is given back.
    pub(crate) offered: Option<&'static [u8]>,
    /// PASSWORD-ALGORITHM.
    pub(crate) chosen: Option<AlgorithmAndParameters<'static>>,
    /// Whether it hides its name (USERHASH).
    pub(crate) is_anonymous: bool,
    pub(crate) token: Option<Vec<u8>>,
}

impl Client {
    /// The user Alice, at some address.
    pub(crate) fn alice(address: &str) -> Self {
        Self::new(address, "alice", "sesame")
    }

    pub(crate) fn new(address: &str, username: &str, password: &str) -> Self {
        Self::of_realm(address, REALM, username, password)
    }

    /// A user of another realm.
    pub(crate) fn of_realm(address: &str, realm: &str, username: &str, password: &str) -> Self {
        Self {
            five_tuple: FiveTuple::udp(ClientAddr::new(socket(address)), ServerAddr::new(socket(SERVER))),
            username: username.to_owned(),
            key: LongTermKey::derive(username, realm, password),
            nonce: String::new(),
            fingerprint: false,
            realm: realm.to_owned(),
            integrity: Integrity::Sha1,
            offered: None,
            chosen: None,
            is_anonymous: false,
            token: None,
        }
    }

    /// A client of RFC 8489: it takes the first that it is offered.
    pub(crate) fn modern(address: &str, username: &str, password: &str) -> Self {
        let key = LongTermKey::derive_sha256(username, REALM, password);
        Self { key, integrity: Integrity::Sha256, ..Self::new(address, username, password) }
            .choosing(PasswordAlgorithm::Sha256)
    }

    /// The same, with a key made by this algorithm; the key is the caller's.
    pub(crate) fn choosing(mut self, algorithm: PasswordAlgorithm) -> Self {
        (self.offered, self.chosen) = (Some(BOTH), Some(algorithm.into()));
        self
    }

    /// The same user, at another address, where the old nonce is not good.
    pub(crate) fn at(&self, address: &str) -> Self {
        let five_tuple = FiveTuple { client: ClientAddr::new(socket(address)), ..self.five_tuple };
        Self { five_tuple, nonce: String::new(), ..self.clone() }
    }

    /// The same user, over another transport.
    pub(crate) fn over(mut self, transport: Transport) -> Self {
        self.five_tuple.transport = transport;
        self
    }
}

/// A response, and what else the server wanted done.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) events: Vec<Event>,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).expect("the server's messages are well-formed")
    }

    /// The error code, or 200.
    pub(crate) fn code(&self) -> u16 {
        match self.message().class() {
            Class::Success => 200,
            Class::Error => self
                .message()
                .attribute::<ErrorCodeAttribute<'_>>()
                .unwrap()
                .expect("an error has a code")
                .code
                .number(),
            other => panic!("a response is {other:?}"),
        }
    }

    pub(crate) fn expect_success(&self, client: &Client) {
        self.expect_signed(&client.key);
    }

    /// Asserts a success that is signed with this key.
    pub(crate) fn expect_signed(&self, key: &LongTermKey) {
        assert_eq!(self.code(), 200, "{self:?}");
        assert!(self.message().verify_integrity(key), "a response that is not signed");
    }

    /// Asserts an error that is signed, and that nothing else was done.
    pub(crate) fn expect_error(&self, client: &Client, code: u16) {
        assert_eq!(self.code(), code, "{self:?}");
        assert!(self.message().verify_integrity(&client.key), "a response that is not signed");
        assert_eq!(self.events, [], "an error must change nothing");
    }

    pub(crate) fn lifetime(&self) -> u32 {
        self.message().attribute::<Lifetime>().unwrap().expect("there is a lifetime").0
    }

    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        self.message().each::<XorRelayedAddress>().map(|address| address.unwrap().0).collect()
    }

    pub(crate) fn token(&self) -> Option<ReservationToken> {
        self.message().attribute().unwrap()
    }

    pub(crate) fn ticket(&self) -> Option<Vec<u8>> {
        self.message().attribute::<MobilityTicket<'_>>().unwrap().map(|ticket| ticket.0.to_vec())
    }

    /// The relayed address that was bound at last.
    pub(crate) fn bound(&self) -> RelayId {
        let bound = self.events.iter().rev().find_map(|event| match event {
            Event::Bind(relay, _) => Some(*relay),
            _ => None,
        });
        bound.expect("a socket was bound")
    }

    /// Binds that were asked for.
    pub(crate) fn binds(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Bind(..))).count()
    }
}
