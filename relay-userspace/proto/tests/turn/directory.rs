//! Users that somebody else knows: whom the server asks about, when, and what it makes of the answer.

use hairpin_proto::stun::attribute::{MobilityTicket, Nonce};
use hairpin_proto::stun::{Method, PasswordKeys, user_hash};
use hairpin_proto::turn::{
    Answer as Told, Cause, Credentials, Freshness, Grant, Question, Realm, ServerConfig, Settings, Subject, User,
};

use crate::harness::{Answer, Client, REALM, Relay, UDP, config_with, realm};
use crate::mobility::mobile_config;
use crate::tokens::{fresh_holder, token_config, token_key};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const THIRD: &str = "203.0.113.7:41002";
const PEER: &str = "8.8.8.8:53";
const PASSWORD: &str = "mellon";

fn asking() -> ServerConfig {
    config_with(ask)
}

fn ask(settings: &mut Settings) {
    realm(settings).asks_for_users = true;
}

fn carol(at: &str) -> Client {
    Client::new(at, "carol", PASSWORD)
}

fn named(name: &str) -> Subject {
    Subject::User(name.into())
}

pub(crate) fn user(name: &str, password: &str) -> User {
    let keys = PasswordKeys::derive(name, REALM, password);
    User { name: name.into(), keys, grant: Grant::default(), is_admitted: false }
}

fn found(name: &str) -> Told {
    Told::User(user(name, PASSWORD))
}

fn allocation_of(relay: &mut Relay, client: &mut Client) -> Vec<u8> {
    relay.signed(client, Method::ALLOCATE, |request| request.with(&UDP))
}

/// Asks for an allocation, for which one question has to be answered.
fn allocate_when_told(relay: &mut Relay, client: &mut Client, answer: Told) -> Answer {
    let datagram = allocation_of(relay, client);
    let question = relay.asks(client, &datagram);
    relay.told(client, &datagram, question, answer)
}

/// A relay that carol has an allocation of, as somebody has told of her.
fn with_carol(config: ServerConfig) -> (Relay, Client) {
    let (mut relay, mut client) = (Relay::new(config), carol(AT));
    allocate_when_told(&mut relay, &mut client, found("carol")).expect_success(&client);
    (relay, client)
}

#[test]
fn a_user_that_is_not_known_is_asked_about_once_and_let_in() {
    let (mut relay, mut client) = (Relay::new(asking()), carol(AT));
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    assert_eq!((&*question.realm, &question.subject), (REALM, &named("carol")));
    relay.told(&client, &datagram, question, found("carol")).expect_success(&client);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.allocate(&mut carol(ELSEWHERE));
    assert_eq!(relay.looked_up, []);
    relay.shut_down();
}

#[test]
fn every_answer_has_its_own_end() {
    let minted = |secret: &str| {
        let (username, password) = Credentials::mint(secret, "dave", 1_700_000_060);
        Client::new(AT, &username, &password)
    };
    let secrets = || Told::Secrets { secrets: vec!["east".to_owned(), "south".to_owned()], grant: Grant::default() };
    let nobody = Cause::UnknownUser;
    let cases = [
        (carol(AT), found("carol"), 200, None),
        (minted("south"), secrets(), 200, None),
        (minted("west"), secrets(), 401, Some(Cause::WrongSecret)),
        (carol(AT), secrets(), 401, Some(nobody)),
        (Client::new(AT, "carol", "Mellon"), found("carol"), 401, Some(Cause::WrongPassword)),
        (carol(AT), Told::Refused, 401, Some(nobody)),
        (carol(AT), Told::Unavailable, 500, Some(Cause::UsersUnavailable)),
        (carol(AT), Told::TokenKey(token_key(1)), 401, Some(nobody)),
        (carol(AT), Told::Admitted(Grant::default()), 401, Some(nobody)),
        // Mallory's own keys, told of by mistake.
        (carol(AT), Told::User(User { name: "mallory".into(), ..user("carol", PASSWORD) }), 401, Some(nobody)),
    ];
    for (mut client, told, code, cause) in cases {
        let mut relay = Relay::new(asking());
        let what = format!("{}: {told:?}", client.username);
        let answer = allocate_when_told(&mut relay, &mut client, told);
        assert_eq!((answer.code(), relay.refusals.last().map(|refused| refused.cause)), (code, cause), "{what}");
        assert_eq!(answer.message().has_integrity(), code == 200, "{what}");
        assert_eq!(relay.server.allocations(), usize::from(code == 200), "{what}");
        assert!(relay.refusals.iter().all(|refused| refused.is_proven), "{what}");
        relay.shut_down();
    }
}

#[test]
fn nobody_is_asked_for_who_may_have_forged_its_address() {
    let mut relay = Relay::new(asking());
    let foreign = relay.challenge(&carol("203.0.113.8:41000"));
    let old = relay.challenge(&carol(AT));
    relay.sleep(3600);
    for nonce in [foreign.as_str(), &old, "junk", &old[1..]] {
        for client in [carol(AT), Client::alice(AT), Client::new(AT, "alice", "Sesame")] {
            for is_anonymous in [false, true] {
                let mut client = Client { nonce: nonce.to_owned(), is_anonymous, ..client.clone() };
                let answer = relay.try_allocate(&mut client);
                assert_eq!(answer.code(), 438, "{nonce}");
                assert_ne!(answer.message().attribute::<Nonce<'_>>().unwrap().unwrap().0, nonce);
            }
        }
    }
    relay.shut_down();
}

#[test]
fn an_answer_holds_for_its_time() {
    let (mut relay, _) = with_carol(asking());
    relay.pass(59);
    relay.allocate(&mut carol(ELSEWHERE));
    relay.pass(1);
    allocate_when_told(&mut relay, &mut carol(THIRD), found("carol")).expect_success(&carol(THIRD));

    let mut nobody = Client::new("203.0.113.7:41003", "nobody", PASSWORD);
    assert_eq!(allocate_when_told(&mut relay, &mut nobody, Told::Refused).code(), 401);
    relay.pass(4);
    assert_eq!(relay.try_allocate(&mut nobody).code(), 401);
    relay.pass(1);
    allocate_when_told(&mut relay, &mut nobody, found("nobody")).expect_success(&nobody);
}

#[test]
fn that_nobody_can_tell_is_not_kept() {
    let (mut relay, mut client) = (Relay::new(asking()), carol(AT));
    for _ in 0..3 {
        assert_eq!(allocate_when_told(&mut relay, &mut client, Told::Unavailable).code(), 500);
    }
    allocate_when_told(&mut relay, &mut client, found("carol")).expect_success(&client);
}

#[test]
fn an_allocation_never_waits_and_its_user_is_looked_up_once() {
    let (mut relay, mut client) = with_carol(asking());
    relay.pass(60);
    relay.refresh(&mut client, 600).expect_success(&client);
    let [question] = &relay.looked_up[..] else { panic!("{:?}", relay.looked_up) };
    assert_eq!((&*question.realm, &question.subject), (REALM, &named("carol")));
    let question = question.clone();
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1);
    relay.server.learn(relay.now, &question, found("carol"));
    relay.pass(59);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1);
    relay.pass(1);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 2);
}

#[test]
fn that_nobody_can_tell_takes_nothing_from_an_allocation() {
    let (mut relay, mut client) = with_carol(asking());
    for hour in 1..4 {
        relay.pass(500);
        relay.refresh(&mut client, 600).expect_success(&client);
        assert_eq!(relay.looked_up.len(), hour);
        let question = relay.looked_up.last().unwrap().clone();
        relay.server.learn(relay.now, &question, Told::Unavailable);
        relay.permit(&mut client, &[PEER]).expect_success(&client);
        assert_eq!(relay.looked_up.len(), hour, "there is patience");
        client.nonce.clear();
    }
}

/// Carol has an allocation, is looked up, and this is told of her.
fn learnt(told: Told) -> (Relay, Client) {
    let (mut relay, mut client) = with_carol(asking());
    relay.pass(60);
    relay.refresh(&mut client, 3600).expect_success(&client);
    let question = relay.looked_up.pop().unwrap();
    relay.server.learn(relay.now, &question, told);
    (relay, client)
}

#[test]
fn who_is_refused_meanwhile_can_do_nothing_more() {
    for wait in [0, 4, 5, 300, 3000] {
        let (mut relay, mut client) = learnt(Told::Refused);
        relay.pass(wait);
        let request = relay.signed(&mut client, Method::REFRESH, |request| request);
        let mut again = client.clone();
        if wait < 5 {
            assert_eq!(relay.answer(&client, &request).code(), 401);
        } else {
            // Refused was the last that was heard: that she had an allocation counts no longer.
            let question = relay.asks(&client, &request);
            assert_eq!(relay.told(&client, &request, question, Told::Unavailable).code(), 401, "{wait}");
            let question = relay.asks(&client, &request);
            assert_eq!(relay.told(&client, &request, question, Told::Refused).code(), 401, "{wait}");
        }
        assert_eq!(relay.permit(&mut again, &[PEER]).code(), 401, "{wait}");
        assert_eq!(relay.last_cause(), Cause::UnknownUser);
        assert_eq!(relay.server.allocations(), 1, "it ends with its time");
    }
}

#[test]
fn a_password_that_was_changed_meanwhile_is_the_password() {
    for wait in [0, 59, 60, 300] {
        let (mut relay, mut client) = learnt(Told::User(user("carol", "friend")));
        relay.pass(wait);
        let request = relay.signed(&mut client, Method::REFRESH, |request| request);
        let refused = if wait < 60 {
            relay.answer(&client, &request)
        } else {
            // It may have been changed back.
            let question = relay.asks(&client, &request);
            assert_eq!(relay.told(&client, &request, question, Told::Unavailable).code(), 401, "{wait}");
            let question = relay.asks(&client, &request);
            relay.told(&client, &request, question, Told::User(user("carol", "friend")))
        };
        assert_eq!((refused.code(), relay.last_cause()), (401, Cause::WrongPassword), "{wait}");
        let mut client = Client::new(AT, "carol", "friend");
        relay.refresh(&mut client, 600).expect_success(&client);
    }
}

#[test]
fn a_password_that_nobody_has_told_of_yet_is_asked_about() {
    for is_anonymous in [false, true] {
        let (mut relay, _) = with_carol(asking());
        relay.pass(60);
        let mut client = Client { is_anonymous, ..Client::new(AT, "carol", "friend") };
        let request = relay.signed(&mut client, Method::REFRESH, |request| request);
        let question = relay.asks(&client, &request);
        relay.told(&client, &request, question, Told::User(user("carol", "friend"))).expect_success(&client);
        assert_eq!(relay.looked_up, []);
    }
}

#[test]
fn who_was_told_of_in_a_realm_of_another_name_is_asked_about_in_the_new_one() {
    let (mut relay, _) = with_carol(asking());
    relay.change(|settings| {
        settings.realms = vec![Realm::new("example.net", Credentials::new("example.net")).into()];
        ask(settings);
    });
    let mut client = Client::of_realm(AT, "example.net", "carol", PASSWORD);
    let request = relay.signed(&mut client, Method::REFRESH, |request| request);
    let question = relay.asks(&client, &request);
    let keys = PasswordKeys::derive("carol", "example.net", PASSWORD);
    let told = Told::User(User { keys, ..user("carol", PASSWORD) });
    relay.told(&client, &request, question, told).expect_success(&client);
    relay.pass(60);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1, "that counts from then on");
}

#[test]
fn who_was_known_in_advance_is_asked_about_when_it_is_not_any_more() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.change(|settings| {
        ask(settings);
        realm(settings).credentials = Credentials::new(REALM);
    });
    let request = relay.signed(&mut client, Method::REFRESH, |request| request);
    let question = relay.asks(&client, &request);
    let down = relay.told(&client, &request, question, Told::Unavailable);
    assert_eq!((down.code(), relay.last_cause()), (500, Cause::UsersUnavailable));
    let question = relay.asks(&client, &request);
    relay.told(&client, &request, question, Told::User(user("alice", "sesame"))).expect_success(&client);
    relay.pass(100);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1, "from now on she is known");
}

#[test]
fn an_answer_to_something_else_is_no_way_in() {
    let (mut relay, mut client) = (Relay::new(asking()), carol(AT));
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    let others = [
        Question { realm: "example.net".into(), ..question.clone() },
        Question { subject: named("mallory"), ..question.clone() },
        Question { subject: Subject::TokenKey("carol".into()), ..question.clone() },
        Question { subject: Subject::UserHash(user_hash("carol", REALM)), ..question.clone() },
        Question {
            subject: Subject::Admission { username: "carol".into(), account: "carol".into() },
            ..question.clone()
        },
    ];
    for other in others {
        assert_eq!(relay.told_and_asks(&client, &datagram, other, found("carol")), question);
    }
    relay.told(&client, &datagram, question, found("carol")).expect_success(&client);
}

#[test]
fn who_is_known_in_advance_is_never_asked_about() {
    let mut relay = Relay::new(asking());
    relay.allocate(&mut Client::alice(AT));
    assert_eq!(relay.try_allocate(&mut Client::new(ELSEWHERE, "alice", PASSWORD)).code(), 401);
    let (username, password) = Credentials::mint(crate::harness::SECRET, "dave", relay.now.unix + 60);
    relay.allocate(&mut Client::new(ELSEWHERE, &username, &password));
    // The secret of another application, perhaps.
    let (username, password) = Credentials::mint("south", "dave", relay.now.unix + 60);
    let mut other = Client::new(THIRD, &username, &password);
    let datagram = allocation_of(&mut relay, &mut other);
    assert_eq!(relay.asks(&other, &datagram).subject, named(&username));
    let mut static_only = Relay::default();
    assert_eq!(static_only.try_allocate(&mut carol(AT)).code(), 401);
}

#[test]
fn a_name_is_asked_about_as_it_is_sent() {
    let mut relay = Relay::new(asking());
    for name in ["\u{e5}sa", "a\u{30a}sa"] {
        let mut client = Client::new(AT, name, PASSWORD);
        let datagram = allocation_of(&mut relay, &mut client);
        assert_eq!(relay.asks(&client, &datagram).subject, named(name));
    }
}

#[test]
fn a_hidden_name_is_found_by_its_hash() {
    let mut relay = Relay::new(asking());
    let mut client = Client { is_anonymous: true, ..carol(AT) };
    let hash = Subject::UserHash(user_hash("carol", REALM));
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    assert_eq!(question.subject, hash);
    let other = Told::User(User { name: "mallory".into(), ..user("carol", PASSWORD) });
    assert_eq!(relay.told(&client, &datagram, question, other).code(), 401, "not hers");
    for (told, code) in [(Told::Unavailable, 500), (found("carol"), 200)] {
        relay.pass(60);
        assert_eq!(allocate_when_told(&mut relay, &mut client, told).code(), code);
    }
    relay.refresh(&mut client, 600).expect_success(&client);
    client.is_anonymous = false;
    relay.refresh(&mut client, 600).expect_success(&client);
    client.is_anonymous = true;
    relay.pass(60);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    let subjects: Vec<_> = relay.looked_up.iter().map(|question| question.subject.clone()).collect();
    assert_eq!(subjects, [named("carol"), hash]);
}

#[test]
fn a_key_of_tokens_is_asked_for() {
    let config = || {
        let mut config = token_config();
        realm(&mut config.settings).credentials = Credentials::new(REALM);
        ask(&mut config.settings);
        config
    };
    for (told, code, cause) in [
        (Told::TokenKey(token_key(1)), 200, None),
        (Told::TokenKey(token_key(2)), 401, Some(Cause::BadToken)),
        (Told::User(user("new", PASSWORD)), 401, Some(Cause::UnknownTokenKey)),
        (Told::Refused, 401, Some(Cause::UnknownTokenKey)),
        (Told::Unavailable, 500, Some(Cause::UsersUnavailable)),
    ] {
        let (mut relay, mut client) = (Relay::new(config()), fresh_holder());
        let datagram = allocation_of(&mut relay, &mut client);
        let question = relay.asks(&client, &datagram);
        assert_eq!(question.subject, Subject::TokenKey("new".into()));
        assert_eq!(relay.told(&client, &datagram, question, told).code(), code);
        assert_eq!(relay.refusals.last().map(|refused| refused.cause), cause);
        if code == 200 {
            client.token = None;
            relay.pass(100);
            relay.refresh(&mut client, 600).expect_success(&client);
            assert_eq!(relay.looked_up, [], "the token is known");
        }
    }
}

#[test]
fn a_request_that_comes_again_is_asked_about_again_and_answered_alike() {
    let (mut relay, mut client) = (Relay::new(asking()), carol(AT));
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    assert_eq!(relay.asks(&client, &datagram), question);
    let [first, second] = [question.clone(), question.clone()]
        .map(|question| relay.told(&client, &datagram, question, found("carol")).bytes);
    assert_eq!((&first, relay.server.allocations()), (&second, 1));
    assert_eq!(relay.answer(&client, &datagram).bytes, first);
    relay.server.learn(relay.now, &question, Told::Refused);
    assert_eq!(relay.answer(&client, &datagram).code(), 401, "not for who is not known any more");
    relay.shut_down();
}

#[test]
fn the_oldest_answer_makes_way() {
    let freshness = Freshness { capacity: 2, ..Freshness::default() };
    let mut relay = Relay::new(config_with(|settings| {
        ask(settings);
        settings.freshness = freshness;
    }));
    for (at, name) in [AT, ELSEWHERE, THIRD].into_iter().zip(["carol", "dave", "erin"]) {
        let mut client = Client::new(at, name, PASSWORD);
        allocate_when_told(&mut relay, &mut client, found(name)).expect_success(&client);
        relay.pass(1);
    }
    for name in ["erin", "dave"] {
        let mut client = Client::new("203.0.113.7:41009", name, PASSWORD);
        relay.allocate(&mut client);
        relay.refresh(&mut client, 0).expect_success(&client);
    }
    // What carol's allocation remembers is enough for it, and for nothing else.
    let mut client = carol(AT);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1);
    let mut client = carol("203.0.113.7:41009");
    allocate_when_told(&mut relay, &mut client, found("carol")).expect_success(&client);
}

#[test]
fn who_moves_with_a_ticket_does_not_wait_either() {
    let mut config = mobile_config();
    ask(&mut config.settings);
    let (mut relay, mut client) = (Relay::new(config), carol(AT));
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&MobilityTicket(&[])));
    let question = relay.asks(&client, &datagram);
    let ticket = relay.told(&client, &datagram, question, found("carol")).ticket().expect("there is a ticket");
    relay.pass(100);
    let mut client = client.at("198.51.100.77:52000");
    relay.show(&mut client, &ticket).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1);
}

#[test]
fn other_settings_forget_what_was_told_and_not_who_has_an_allocation() {
    let (mut relay, mut client) = with_carol(asking());
    relay.change(ask);
    relay.refresh(&mut client, 600).expect_success(&client);
    assert_eq!(relay.looked_up.len(), 1);
    allocate_when_told(&mut relay, &mut carol(ELSEWHERE), Told::Refused);
    relay.change(|_| ());
    assert_eq!(relay.refresh(&mut client, 600).code(), 401, "nobody is asked any more");
}
