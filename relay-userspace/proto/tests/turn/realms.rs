//! Several realms on one server: who is in which, and that nobody of one is anybody in another.

use std::sync::Arc;

use hairpin_proto::address::{ServerAddr, Transport};
use hairpin_proto::stun::attribute::{Nonce, Realm as RealmAttribute};
use hairpin_proto::stun::{Class, LongTermKey, MessageBuilder, Method, PasswordKeys, SecurityFeatures};
use hairpin_proto::turn::{Answer as Told, Cause, Credentials, Grant, Realm, ServerConfig, Settings, Subject, User};

use crate::harness::{Client, REALM, Relay, TCP, UDP, config_with, socket};
use crate::tcp_connections::{code, connect};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:53";
/// The realm of a listener, and that.
const OTHER: &str = "example.net";
const OTHER_SERVER: &str = "192.0.2.16:3478";
/// The realm of a name, and that.
const NAMED: &str = "example.com";
const NAME: &str = "turn.example.com";

/// In each realm there is an Alice with the same password.
fn add_realms(settings: &mut Settings) {
    let new = |name: &str| {
        let mut credentials = Credentials::new(name);
        credentials.add_user("alice", "sesame");
        Realm::new(name, credentials)
    };
    let listeners = [Transport::Udp, Transport::Tcp, Transport::Tls].map(|of| (of, socket(OTHER_SERVER))).to_vec();
    settings.realms.push(Arc::new(Realm { listeners, ..new(OTHER) }));
    settings.realms.push(Arc::new(Realm { server_names: vec![NAME.to_owned()], ..new(NAMED) }));
}

fn realms() -> ServerConfig {
    config_with(add_realms)
}

fn realms_with(change: impl FnOnce(&mut Settings)) -> ServerConfig {
    config_with(|settings| {
        add_realms(settings);
        (settings.mobility, settings.tcp_relay) = (Some([5; 32]), true);
        change(settings);
    })
}

fn other(settings: &mut Settings) -> &mut Realm {
    Arc::make_mut(&mut settings.realms[1])
}

/// Alice of a realm, by the listener of the second.
fn by_other_listener(at: &str, realm: &str) -> Client {
    let mut client = Client::of_realm(at, realm, "alice", "sesame");
    client.five_tuple.server = ServerAddr::new(socket(OTHER_SERVER));
    client
}

/// The realm that a client is challenged with.
fn realm_of(relay: &mut Relay, client: &Client) -> String {
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, relay.transaction_id()).finish(false);
    let answer = relay.answer(client, &datagram);
    let RealmAttribute(name) = answer.message().attribute().unwrap().expect("there is a realm");
    name.to_owned()
}

#[test]
fn a_client_is_challenged_with_the_realm_of_its_name_or_its_listener_or_the_first() {
    let mut relay = Relay::new(realms());
    assert_eq!(realm_of(&mut relay, &Client::alice(AT)), REALM);
    assert_eq!(realm_of(&mut relay, &by_other_listener(AT, OTHER)), OTHER);
    assert_eq!(realm_of(&mut relay, &by_other_listener(AT, OTHER).over(Transport::Dtls)), REALM, "another listener");
    for client in [Client::alice(AT), by_other_listener(AT, OTHER)] {
        let client = client.over(Transport::Tls);
        let before = realm_of(&mut relay, &client);
        relay.server.client_named(client.five_tuple, "turn.example.edu");
        assert_eq!(realm_of(&mut relay, &client), before, "the name is nobody's");
        relay.server.client_named(client.five_tuple, "TURN.example.com");
        assert_eq!(realm_of(&mut relay, &client), NAMED);
        relay.server.client_lost(relay.now, &client.five_tuple);
        assert_eq!(realm_of(&mut relay, &client), before, "somebody else comes from there");
    }
}

#[test]
fn each_realm_lets_in_its_own_users_alone() {
    let mut relay = Relay::new(realms());
    relay.allocate(&mut by_other_listener(AT, OTHER));
    let mut named = Client::of_realm(AT, NAMED, "alice", "sesame").over(Transport::Tls);
    relay.server.client_named(named.five_tuple, NAME);
    relay.allocate(&mut named);
    let mut foreign = by_other_listener(ELSEWHERE, REALM);
    let answer = relay.try_allocate(&mut foreign);
    assert_eq!((answer.code(), relay.last_cause()), (401, Cause::WrongRealm));
    assert_eq!(answer.message().attribute(), Ok(Some(RealmAttribute(OTHER))), "it is told which");
    let mut bob = by_other_listener(ELSEWHERE, OTHER);
    (bob.username, bob.key) = ("bob".to_owned(), LongTermKey::derive("bob", OTHER, "hunter2"));
    assert_eq!((relay.try_allocate(&mut bob).code(), relay.last_cause()), (401, Cause::UnknownUser));
    let mut by_key_of_first = Client { key: Client::alice(AT).key, ..by_other_listener(ELSEWHERE, OTHER) };
    assert_eq!((relay.try_allocate(&mut by_key_of_first).code(), relay.last_cause()), (401, Cause::WrongPassword));
    relay.shut_down();
}

#[test]
fn a_hash_is_one_of_its_realm() {
    let mut relay = Relay::new(realms());
    let mut client = Client { is_anonymous: true, ..by_other_listener(AT, OTHER) };
    relay.allocate(&mut client);
    relay.refresh(&mut client, 600).expect_success(&client);
}

#[test]
fn a_namesake_does_not_get_an_allocation_by_its_ticket() {
    let mut relay = Relay::new(realms_with(|_| ()));
    let mut alice = Client::alice(AT);
    let (_, ticket) = relay.allocate_mobile(&mut alice);
    let mut namesake = by_other_listener("198.51.100.77:52000", OTHER);
    relay.show(&mut namesake, &ticket).expect_error(&namesake, 441);
    let mut alice = alice.at("198.51.100.78:52000");
    relay.show(&mut alice, &ticket).expect_success(&alice);
    relay.shut_down();
}

#[test]
fn a_namesake_does_not_get_a_connection_to_a_peer() {
    let mut relay = Relay::new(realms_with(|_| ()));
    let mut alice = Client::alice(AT).over(Transport::Tcp);
    relay.request(&mut alice, Method::ALLOCATE, |request| request.with(&TCP)).expect_success(&alice);
    let connection = connect(&mut relay, &mut alice, PEER);
    relay.responses.clear();
    relay.connected(connection, Ok(()));
    assert_eq!(code(&relay.responses[0]), 200);
    let mut namesake = by_other_listener(ELSEWHERE, OTHER).over(Transport::Tcp);
    relay.bind_connection(&mut namesake, connection).expect_error(&namesake, 441);
    let mut data = Client::alice(ELSEWHERE).over(Transport::Tcp);
    relay.bind_connection(&mut data, connection).expect_success(&data);
    relay.shut_down();
}

#[test]
fn what_is_known_of_an_allocation_says_nothing_about_a_namesake() {
    let mut relay = Relay::new(realms_with(|settings| {
        for realm in &mut settings.realms {
            let realm = Arc::make_mut(realm);
            (realm.credentials, realm.asks_for_users) = (Credentials::new(&realm.name), true);
        }
    }));
    let found = |realm: &str| {
        let keys = PasswordKeys::derive("alice", realm, "sesame");
        Told::User(User { name: "alice".into(), keys, grant: Grant::default(), is_admitted: false })
    };
    let mut alice = Client::alice(AT);
    let request = relay.signed(&mut alice, Method::ALLOCATE, |request| {
        request.with(&UDP).with(&hairpin_proto::stun::attribute::MobilityTicket(&[]))
    });
    let question = relay.asks(&alice, &request);
    let ticket = relay.told(&alice, &request, question, found(REALM)).ticket().expect("there is a ticket");

    let mut namesake = by_other_listener("198.51.100.77:52000", OTHER);
    let ticket = hairpin_proto::stun::attribute::MobilityTicket(&ticket);
    let request = relay.signed(&mut namesake, Method::REFRESH, |request| request.with(&ticket));
    let question = relay.asks(&namesake, &request);
    assert_eq!((&*question.realm, &question.subject), (OTHER, &Subject::User("alice".into())));
    relay.told(&namesake, &request, question, found(OTHER)).expect_error(&namesake, 441);
    assert_eq!(relay.looked_up, []);
}

#[test]
fn quotas_are_each_realms_own() {
    let mut relay = Relay::new(realms_with(|settings| {
        Arc::make_mut(&mut settings.realms[0]).allocations = 1;
        other(settings).allocations_per_user = 1;
    }));
    relay.allocate(&mut Client::alice(AT));
    let mut bob = Client::new(ELSEWHERE, "bob", "hunter2");
    relay.try_allocate(&mut bob).expect_error(&bob, 508);
    assert_eq!(relay.last_cause(), Cause::RealmQuota);
    relay.allocate(&mut by_other_listener(AT, OTHER));
    let mut more = by_other_listener(ELSEWHERE, OTHER);
    relay.try_allocate(&mut more).expect_error(&more, 486);
    let usage: Vec<_> =
        relay.quotas.usage().iter().map(|of| (of.realm.to_string(), of.allocations, of.users)).collect();
    assert_eq!(usage, [(OTHER.to_owned(), 1, 1), (REALM.to_owned(), 1, 1)]);
    relay.shut_down();
}

#[test]
fn a_nonce_of_one_realm_is_good_in_another_that_offers_no_more() {
    for (offers_here, offers_there, code) in
        [(true, true, 200), (false, false, 200), (true, false, 200), (false, true, 438)]
    {
        let mut relay = Relay::new(realms_with(|settings| {
            Arc::make_mut(&mut settings.realms[0]).offers_sha256 = offers_here;
            other(settings).offers_sha256 = offers_there;
        }));
        let nonce = relay.challenge(&Client::alice(AT));
        // Else whoever is on the way could fetch a nonce from the realm that offers less.
        let mut client = Client { nonce, ..by_other_listener(AT, OTHER) };
        let answer = relay.try_allocate(&mut client);
        assert_eq!(answer.code(), code, "{offers_here} {offers_there}");
        if code == 438 {
            let Nonce(fresh) = answer.message().attribute().unwrap().unwrap();
            assert!(SecurityFeatures::of_nonce(fresh).unwrap().password_algorithms);
        }
    }
}

#[test]
fn only_the_realm_that_asks_for_users_asks() {
    let mut relay = Relay::new(realms_with(|settings| other(settings).asks_for_users = true));
    assert_eq!(relay.try_allocate(&mut Client::new(AT, "carol", "mellon")).code(), 401);
    let mut carol = Client { username: "carol".to_owned(), ..by_other_listener(AT, OTHER) };
    let request = relay.signed(&mut carol, Method::ALLOCATE, |request| request.with(&UDP));
    let question = relay.asks(&carol, &request);
    assert_eq!((&*question.realm, question.server), (OTHER, socket(OTHER_SERVER)));
    // Who speaks of another realm is not asked about in either.
    let mut wrong = Client { realm: REALM.to_owned(), ..carol };
    assert_eq!((relay.try_allocate(&mut wrong).code(), relay.last_cause()), (401, Cause::WrongRealm));
}

#[test]
fn a_listener_that_changes_its_realm_leaves_allocations_to_who_has_made_them() {
    let mut relay = Relay::new(realms());
    let mut client = by_other_listener(AT, OTHER);
    relay.allocate(&mut client);
    relay.change(|settings| {
        add_realms(settings);
        other(settings).listeners.clear();
    });
    let mut namesake = Client { five_tuple: client.five_tuple, ..Client::alice(AT) };
    assert_eq!(relay.refresh(&mut client, 600).code(), 401, "she is challenged with the first realm");
    relay.refresh(&mut namesake, 0).expect_error(&namesake, 441);
    relay.change(|settings| {
        add_realms(settings);
        let listeners = other(settings).listeners.clone();
        settings.realms[1] = Arc::new(Realm { listeners, ..(*settings.realms[2]).clone() });
        settings.realms.pop();
    });
    let mut renamed = by_other_listener(AT, NAMED);
    relay.refresh(&mut renamed, 600).expect_success(&renamed);
    assert_eq!(relay.quotas.usage()[0].realm.as_ref(), OTHER, "it counts where it was made");
    relay.shut_down();
}
