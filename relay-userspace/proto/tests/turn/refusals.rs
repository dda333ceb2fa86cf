//! Every reason why a request is refused, and what the operator is told of it.

use std::collections::BTreeSet;

use hairpin_proto::address::{AddressFamily, PeerAddr, Transport};
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, Attribute, AttributeError, EvenPort, MobilityTicket, Nonce, Realm, RequestedAddressFamily,
    RequestedTransport, ReservationToken, Username,
};
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, TransactionId,
};
use hairpin_proto::turn::{
    AlternateServer, Answer, Cause, ConnectError, ConnectionId, Credentials, Draining, Grant, PortStripe, ServerConfig,
    TokenTimestamp,
};

use crate::harness::{
    Client, REALM, RELAY_V4, Refused, Relay, SECRET, SERVER, TCP, UDP, config, config_with, realm, socket,
};
use crate::mobility::mobile_config;
use crate::tcp_connections::{connect, tcp_config, tcp_relay};
use crate::tokens::{fresh_holder, holder, token_config};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:53";
const OTHER_PEER: &str = "8.8.4.4:53";
const NOON: u64 = 1_700_000_000;

/// A cause, the code that the client gets, and a relay that has just refused its first request.
type Case = (Cause, u16, fn() -> Relay);

const CASES: &[Case] = &[
    (Cause::UnknownUser, 401, || allocates(config(), Client::new(AT, "mallory", "sesame"))),
    (Cause::WrongPassword, 401, || allocates(config(), Client::new(AT, "alice", "Sesame"))),
    (Cause::WrongSecret, 401, || allocates(config(), minted("south", NOON + 60))),
    (Cause::ExpiredCredential, 401, || allocates(config(), minted(SECRET, NOON))),
    (Cause::WrongRealm, 401, || has_credentials(Some("alice"), "example.net")),
    (Cause::NoKeyOfAlgorithm, 401, || {
        let config =
            config_with(|settings| realm(settings).credentials.add_keys("alice", PasswordKeys::from_md5([7; 16])));
        allocates(config, Client::modern(AT, "alice", "sesame"))
    }),
    (Cause::UnknownTokenKey, 401, || {
        allocates(token_config(), Client { username: "another".to_owned(), ..fresh_holder() })
    }),
    (Cause::BadToken, 401, || allocates(token_config(), Client { token: Some(b"token".to_vec()), ..fresh_holder() })),
    (Cause::ExpiredToken, 401, || allocates(token_config(), holder(TokenTimestamp::from_unix(NOON - 60), 50))),
    (Cause::BidDown, 400, || {
        allocates(config(), Client { offered: Some(&[0, 1, 0, 0]), ..alice().choosing(PasswordAlgorithm::Md5) })
    }),
    (Cause::IncompleteCredentials, 400, || has_credentials(None, REALM)),
    (Cause::MissingAttribute, 400, || asks(config(), alice(), |request| request)),
    (Cause::MalformedAttribute, 400, || asks(config(), alice(), |request| request.with(&Raw::<0x0019>))),
    (Cause::ConflictingAttributes, 400, || {
        let (one, more) =
            (RequestedAddressFamily(Ok(AddressFamily::V4)), AdditionalAddressFamily(Ok(AddressFamily::V6)));
        asks(config(), alice(), move |request| request.with(&UDP).with(&one).with(&more))
    }),
    (Cause::PeerPortZero, 400, || {
        then(config(), |relay, client| drop(relay.bind_channel(client, 0x4000, "8.8.8.8:0")))
    }),
    (Cause::InvalidChannel, 400, || then(config(), |relay, client| drop(relay.bind_channel(client, 0x3fff, PEER)))),
    (Cause::ChannelInUse, 400, || {
        then(config(), |relay, client| {
            relay.bind_channel(client, 0x4000, PEER).expect_success(client);
            relay.bind_channel(client, 0x4000, OTHER_PEER);
        })
    }),
    (Cause::TransportMismatch, 400, || asks(tcp_config(), alice(), |request| request.with(&TCP))),
    (Cause::ControlConnection, 400, || {
        let (mut relay, mut client, _) = tcp_relay();
        relay.bind_connection(&mut client, ConnectionId(7));
        relay
    }),
    (Cause::UnknownConnection, 400, || {
        let (mut relay, client, _) = tcp_relay();
        relay.bind_connection(&mut client.at(ELSEWHERE), ConnectionId(7));
        relay
    }),
    (Cause::InvalidTicket, 400, || then(mobile_config(), |relay, client| drop(relay.show(client, b"ticket")))),
    (Cause::NotAdmitted, 403, || {
        asks_somebody(config_with(|settings| realm(settings).asks_for_admission = true), alice(), Answer::Refused)
    }),
    (Cause::TunneledClient, 403, || allocates(config(), Client::alice("[2002:808:808::1]:41000"))),
    (Cause::ForbiddenPeer, 403, || then(config(), |relay, client| drop(relay.permit(client, &["127.0.0.1:53"])))),
    (Cause::MobilityOff, 405, || asks(config(), alice(), |request| request.with(&UDP).with(&MobilityTicket(&[])))),
    (Cause::UnknownAttribute, 420, || asks(config(), alice(), |request| request.with(&UDP).with(&Raw::<0x7ffe>))),
    (Cause::NoAllocation, 437, || {
        let mut relay = Relay::default();
        relay.refresh(&mut alice(), 600);
        relay
    }),
    (Cause::AllocationExists, 437, || then(config(), allocate)),
    (Cause::FamilyNotServed, 440, || {
        asks(config(), alice(), |request| request.with(&UDP).with(&RequestedAddressFamily(Err(9))))
    }),
    (Cause::WrongUser, 441, || {
        then(config(), |relay, _| drop(relay.refresh(&mut Client::new(AT, "bob", "hunter2"), 600)))
    }),
    (Cause::UnsupportedTransport, 442, || asks(config(), alice(), |request| request.with(&RequestedTransport(132)))),
    (Cause::TcpRelayOff, 442, || asks(config(), alice().over(Transport::Tcp), |request| request.with(&TCP))),
    (Cause::FamilyMismatch, 443, || then(config(), |relay, client| drop(relay.permit(client, &["[2001:db8::53]:53"])))),
    (Cause::ConnectionExists, 446, || {
        connecting(|relay, client, _| {
            relay.request(client, Method::CONNECT, |request| {
                request.with(&hairpin_proto::stun::attribute::XorPeerAddress(socket(PEER)))
            });
        })
    }),
    (Cause::ConnectFailed, 447, || connecting(|relay, _, id| drop(relay.connected(id, Err(ConnectError::Failed))))),
    (Cause::ConnectInUse, 447, || connecting(|relay, _, id| drop(relay.connected(id, Err(ConnectError::InUse))))),
    (Cause::ConnectUnavailable, 447, || {
        connecting(|relay, _, id| drop(relay.connected(id, Err(ConnectError::Unavailable))))
    }),
    (Cause::ConnectTimeout, 447, || connecting(|relay, _, _| drop(relay.pass(30)))),
    (Cause::ConnectAbandoned, 447, || {
        connecting(|relay, client, _| {
            let lifetime = hairpin_proto::stun::attribute::Lifetime(0);
            let request = relay.signed(client, Method::REFRESH, |request| request.with(&lifetime));
            relay.control(client, &request);
        })
    }),
    (Cause::UserQuota, 486, || {
        then(config_with(|settings| realm(settings).allocations_per_user = 1), allocate_elsewhere)
    }),
    (Cause::SourceQuota, 508, || {
        then(config_with(|settings| settings.limits.allocations_per_source = 1), allocate_elsewhere)
    }),
    (Cause::RealmQuota, 508, || then(config_with(|settings| realm(settings).allocations = 1), allocate_elsewhere)),
    (Cause::AddressInUse, 508, || then(keeping("198.51.100.15:50001"), allocate_elsewhere)),
    (Cause::AddressNotHere, 508, || allocates(keeping("198.51.100.16:50001"), alice())),
    (Cause::RelayFull, 508, || then(config_with(|settings| settings.limits.allocations = 1), allocate_elsewhere)),
    (Cause::NoPort, 508, || {
        then(ServerConfig { ports: PortStripe::new(50_001..=50_001, 0, 1), ..config() }, allocate_elsewhere)
    }),
    (Cause::NoSocket, 508, || {
        then(config(), |relay, client| {
            relay.broken.insert(RELAY_V4.parse().unwrap());
            allocate_elsewhere(relay, client);
        })
    }),
    (Cause::NoReservation, 508, || {
        asks(config(), alice(), |request| request.with(&UDP).with(&ReservationToken([7; 8])))
    }),
    (Cause::PermissionsFull, 508, || {
        let config = config_with(|settings| settings.limits.permissions = 1);
        then(config, |relay, client| drop(relay.permit(client, &[PEER, OTHER_PEER])))
    }),
    (Cause::ChannelsFull, 508, || {
        let config = config_with(|settings| settings.limits.channels = 0);
        then(config, |relay, client| drop(relay.bind_channel(client, 0x4000, PEER)))
    }),
    (Cause::ConnectionsFull, 508, || {
        let mut config = tcp_config();
        config.settings.limits.connections = 0;
        let mut relay = Relay::new(config);
        let mut client = alice().over(Transport::Tcp);
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&TCP)).expect_success(&client);
        let peer = hairpin_proto::stun::attribute::XorPeerAddress(socket(PEER));
        relay.request(&mut client, Method::CONNECT, |request| request.with(&peer));
        relay
    }),
    (Cause::Draining, 508, || {
        then(config(), |relay, client| {
            relay.server.set_draining(Draining::NewClients);
            allocate_elsewhere(relay, client);
        })
    }),
    (Cause::SentAway, 300, || {
        let config = config_with(|settings| {
            settings.alternates = vec![AlternateServer::new(socket("198.51.100.1:3478")).unwrap()];
        });
        then(config, |relay, client| {
            relay.server.set_draining(Draining::AllClients);
            relay.refresh(client, 600);
        })
    }),
    (Cause::ListenerRetired, 508, || {
        allocates(config_with(|settings| settings.listeners = vec![(Transport::Tcp, socket(SERVER))]), alice())
    }),
    (Cause::UsersUnavailable, 500, || {
        let config = config_with(|settings| realm(settings).asks_for_users = true);
        asks_somebody(config, Client::new(AT, "carol", "mellon"), Answer::Unavailable)
    }),
    (Cause::ClassicStun, 500, || {
        let mut relay = Relay::default();
        let mut datagram = Vec::new();
        MessageBuilder::new(&mut datagram, Class::Request, Method::BINDING, TransactionId([1; 12])).finish(false);
        datagram[4..8].fill(1);
        relay.control(&alice().over(Transport::Dtls), &datagram);
        relay
    }),
];

fn alice() -> Client {
    Client::alice(AT)
}

/// Somebody with a credential that expires.
fn minted(secret: &str, expires: u64) -> Client {
    let (username, password) = Credentials::mint(secret, "carol", expires);
    Client::new(AT, &username, &password)
}

/// A client allocates with these attributes.
fn asks(
    config: ServerConfig,
    mut client: Client,
    attributes: impl FnOnce(MessageBuilder<'_>) -> MessageBuilder<'_>,
) -> Relay {
    let mut relay = Relay::new(config);
    relay.request(&mut client, Method::ALLOCATE, attributes);
    relay
}

fn allocates(config: ServerConfig, client: Client) -> Relay {
    asks(config, client, |request| request.with(&UDP))
}

/// A client allocates, and somebody who is asked says this.
fn asks_somebody(config: ServerConfig, mut client: Client, answer: Answer) -> Relay {
    let mut relay = Relay::new(config);
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let question = relay.asks(&client, &datagram);
    relay.told(&client, &datagram, question, answer);
    relay
}

/// An address is kept for Alice.
fn keeping(address: &str) -> ServerConfig {
    config_with(|settings| {
        settings.reserved_ports = Some(50_000..=50_009);
        let credentials = &mut realm(settings).credentials;
        credentials.grant("alice", Grant { addresses: vec![socket(address)], allocations: None });
        credentials.add_user("alice", "sesame");
    })
}

/// A client with an allocation does something more.
fn then(config: ServerConfig, more: fn(&mut Relay, &mut Client)) -> Relay {
    let (mut relay, mut client) = (Relay::new(config), alice());
    relay.allocate(&mut client);
    more(&mut relay, &mut client);
    relay
}

fn allocate(relay: &mut Relay, client: &mut Client) {
    relay.request(client, Method::ALLOCATE, |request| request.with(&UDP));
}

fn allocate_elsewhere(relay: &mut Relay, client: &mut Client) {
    allocate(relay, &mut client.at(ELSEWHERE));
}

/// A client waits for a connection to its peer, and something happens.
fn connecting(more: fn(&mut Relay, &mut Client, ConnectionId)) -> Relay {
    let (mut relay, mut client, _) = tcp_relay();
    let connection = connect(&mut relay, &mut client, PEER);
    more(&mut relay, &mut client, connection);
    relay
}

/// Alice's password, with another realm or without her name.
fn has_credentials(username: Option<&str>, realm: &str) -> Relay {
    let (mut relay, client) = (Relay::default(), alice());
    let nonce = relay.challenge(&client);
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, relay.transaction_id())
        .with(&UDP)
        .with_option(username.map(Username).as_ref())
        .with(&Realm(realm))
        .with(&Nonce(&nonce))
        .with_integrity(&LongTermKey::derive("alice", realm, "sesame"), Integrity::Sha1)
        .finish(false);
    relay.answer(&client, &datagram);
    relay
}

/// An attribute without a value.
struct Raw<const TYPE: u16>;

impl<const TYPE: u16> Attribute<'_> for Raw<TYPE> {
    const TYPE: u16 = TYPE;

    fn decode(_: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Vec<u8>, _: &TransactionId) {}
}

#[test]
fn every_cause_is_told_and_counted_by_itself() {
    let mut seen = BTreeSet::new();
    for (cause, code, case) in CASES {
        let relay = case();
        let [Refused { cause: told, code: sent, .. }] = relay.refusals[..] else {
            panic!("{cause:?}: {:?}", relay.refusals)
        };
        assert_eq!((told, sent), (*cause, *code));
        let counts = Cause::ALL.map(|other| u64::from(other == *cause));
        assert_eq!(relay.server.refusals(), &counts, "{cause:?}");
        assert!(seen.insert(*cause), "{cause:?} is here twice");
    }
    assert_eq!(seen, Cause::ALL.into(), "there is a cause that no request has met");
}

#[test]
fn a_refusal_says_who_has_asked_for_what_at_which_peer() {
    let mut relay = Relay::default();
    let mut client = alice();
    relay.allocate(&mut client);
    relay.permit(&mut client, &[PEER, "10.0.0.1:99"]).expect_error(&client, 403);
    let expected = Refused {
        five_tuple: client.five_tuple,
        method: Method::CREATE_PERMISSION,
        code: 403,
        is_proven: true,
        cause: Cause::ForbiddenPeer,
        username: Some("alice".to_owned()),
        peer: Some(PeerAddr::new(socket("10.0.0.1:99"))),
    };
    assert_eq!(relay.refusals, [expected]);

    let relay = allocates(config(), Client::new(AT, "mallory", "sesame"));
    assert_eq!(relay.refusals[0].username.as_deref(), Some("mallory"), "as the client says");
    let relay = has_credentials(None, REALM);
    assert_eq!(relay.refusals[0].username, None);
    let relay = connecting(|relay, _, _| drop(relay.pass(30)));
    assert_eq!(relay.refusals[0].username.as_deref(), Some("alice"), "also when the answer comes later");
    assert_eq!(relay.refusals[0].peer, Some(PeerAddr::new(socket(PEER))));
}

#[test]
fn a_client_that_goes_on_with_what_it_is_told_is_not_refused() {
    let (mut relay, mut client) = (Relay::default(), alice());
    client.nonce = relay.challenge(&client);
    relay.sleep(3600);
    assert_eq!(relay.refresh(&mut client, 600).code(), 438);
    assert_eq!(relay.refusals, []);
}

#[test]
fn who_is_sent_to_another_server_is_refused_for_the_same_cause() {
    for (cause, code) in [(Cause::Draining, 300), (Cause::UserQuota, 486)] {
        let mut config = config_with(|settings| {
            settings.alternates = vec![AlternateServer::new(socket("198.51.100.1:3478")).unwrap()];
        });
        realm(&mut config.settings).allocations_per_user = 0;
        let mut relay = Relay::new(config);
        relay.server.set_draining(if cause == Cause::Draining { Draining::NewClients } else { Draining::No });
        allocate(&mut relay, &mut alice());
        assert_eq!((relay.refusals[0].cause, relay.refusals[0].code), (cause, code));
    }
}

#[test]
fn half_of_what_was_asked_for_is_no_refusal() {
    let (mut relay, mut client) = (Relay::default(), alice());
    relay.broken.insert(RELAY_V4.parse().unwrap());
    let both = AdditionalAddressFamily(Ok(AddressFamily::V6));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&both));
    answer.expect_success(&client);
    assert_eq!(relay.refusals, []);
}

#[test]
fn a_pair_that_does_not_fit_the_quota_costs_no_port() {
    let mut relay = Relay::new(config_with(|settings| realm(settings).allocations_per_user = 1));
    let pair = EvenPort { reserve_next: true };
    relay.request(&mut alice(), Method::ALLOCATE, |request| request.with(&UDP).with(&pair));
    assert_eq!(relay.refusals[0].cause, Cause::UserQuota);
    relay.shut_down();
}

#[test]
fn wrong_credentials_of_every_kind_are_answered_by_the_same_bytes() {
    let answer = |client: &mut Client| {
        let mut relay = Relay::default();
        client.nonce = relay.challenge(client);
        relay.request(client, Method::ALLOCATE, |request| request.with(&UDP)).bytes
    };
    let wrong = answer(&mut Client::new(AT, "alice", "Sesame"));
    for mut client in [Client::new(AT, "mallory", "sesame"), minted("south", NOON + 60), minted("south", NOON)] {
        assert_eq!(answer(&mut client), wrong, "{}", client.username);
    }
    assert_eq!(answer(&mut minted(SECRET, NOON)), wrong, "a credential that has expired");
}

#[test]
fn a_refusal_is_proven_by_a_nonce_of_ours_or_by_a_connection() {
    let proven = |client: Client, nonce: Option<&str>| {
        let mut relay = Relay::new(config());
        let mut client = client;
        if let Some(nonce) = nonce {
            client.nonce = nonce.to_owned();
        }
        relay.try_allocate(&mut client);
        relay.refusals.last().map(|refused| (refused.cause, refused.is_proven))
    };
    let wrong = || Client::new(AT, "alice", "Sesame");
    assert_eq!(proven(wrong(), None), Some((Cause::WrongPassword, true)), "it was challenged first");
    assert_eq!(proven(wrong(), Some("forged")), Some((Cause::WrongPassword, false)));
    assert_eq!(proven(wrong().over(Transport::Tcp), Some("forged")), Some((Cause::WrongPassword, true)));
}
