//! Who may have an allocation, of those who are known: somebody is asked for each.

use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::Lifetime;
use hairpin_proto::turn::{
    Answer as Told, Cause, Credentials, Disposition, Grant, Question, Quotas, ServerConfig, Subject, User,
};

use crate::directory::user;
use crate::harness::{Client, Event, Relay, SECRET, UDP, config_with, realm};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:53";

fn asking() -> ServerConfig {
    config_with(|settings| realm(settings).asks_for_admission = true)
}

fn asking_for_both() -> ServerConfig {
    config_with(|settings| (realm(settings).asks_for_admission, realm(settings).asks_for_users) = (true, true))
}

fn admitted() -> Told {
    Told::Admitted(Grant::default())
}

fn admission(username: &str, account: &str) -> Subject {
    Subject::Admission { username: username.into(), account: account.into() }
}

fn allocation_of(relay: &mut Relay, client: &mut Client) -> Vec<u8> {
    relay.signed(client, Method::ALLOCATE, |request| request.with(&UDP))
}

#[test]
fn a_user_that_has_proven_itself_is_asked_for_and_no_other() {
    let mut relay = Relay::new(asking());
    assert_eq!(relay.try_allocate(&mut Client::new(AT, "alice", "Sesame")).code(), 401);
    assert_eq!(relay.try_allocate(&mut Client::new(AT, "mallory", "sesame")).code(), 401);
    let mut alice = Client::alice(AT);
    alice.nonce = "stale".to_owned();
    assert_eq!(relay.try_allocate(&mut alice).code(), 438);
    alice.nonce.clear();
    let datagram = allocation_of(&mut relay, &mut alice);
    let question = relay.asks(&alice, &datagram);
    assert_eq!(question.subject, admission("alice", "alice"));
    relay.told(&alice, &datagram, question, admitted()).expect_success(&alice);
    relay.refresh(&mut alice, 600).expect_success(&alice);
    relay.permit(&mut alice, &[PEER]).expect_success(&alice);
    assert_eq!(relay.looked_up, []);
    relay.shut_down();
}

#[test]
fn every_answer_has_its_own_end() {
    for (told, code, cause) in [
        (admitted(), 200, None),
        (Told::Refused, 403, Some(Cause::NotAdmitted)),
        (Told::User(user("alice", "sesame")), 403, Some(Cause::NotAdmitted)),
        (Told::Unavailable, 500, Some(Cause::UsersUnavailable)),
    ] {
        let (mut relay, mut client) = (Relay::new(asking()), Client::alice(AT));
        let datagram = allocation_of(&mut relay, &mut client);
        let question = relay.asks(&client, &datagram);
        let answer = relay.told(&client, &datagram, question, told);
        assert_eq!((answer.code(), relay.refusals.last().map(|refused| refused.cause)), (code, cause));
        assert!(answer.message().verify_integrity(&client.key), "she is known");
        assert_eq!(relay.server.allocations(), usize::from(code == 200));
        relay.shut_down();
    }
}

#[test]
fn an_answer_holds_for_its_time() {
    let mut relay = Relay::new(asking());
    let ask = |relay: &mut Relay, port: u16, told: Told| {
        let mut client = Client::alice(&format!("203.0.113.7:{port}"));
        let datagram = allocation_of(relay, &mut client);
        let question = relay.asks(&client, &datagram);
        relay.told(&client, &datagram, question, told).code()
    };
    assert_eq!(ask(&mut relay, 1, Told::Unavailable), 500);
    assert_eq!(ask(&mut relay, 1, Told::Refused), 403);
    relay.pass(4);
    assert_eq!(relay.try_allocate(&mut Client::alice("203.0.113.7:1")).code(), 403);
    relay.pass(1);
    assert_eq!(ask(&mut relay, 1, admitted()), 200);
    relay.pass(59);
    relay.allocate(&mut Client::alice("203.0.113.7:2"));
    relay.pass(1);
    assert_eq!(ask(&mut relay, 3, Told::Refused), 403);
}

#[test]
fn the_user_comes_first_and_then_its_admission() {
    let mut relay = Relay::new(asking_for_both());
    let mut client = Client::new(AT, "carol", "mellon");
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    let question = relay.told_and_asks(&client, &datagram, question, Told::User(user("carol", "mellon")));
    assert_eq!(question.subject, admission("carol", "carol"));
    let answer = relay.told(&client, &datagram, question.clone(), admitted());
    answer.expect_success(&client);
    let again = relay.told(&client, &datagram, question, admitted());
    assert_eq!((again.bytes, relay.server.allocations()), (answer.bytes, 1));
}

fn about(question: &Question, carol: &str) -> Told {
    match question.subject {
        Subject::User(_) => Told::User(user(carol, "mellon")),
        _ => admitted(),
    }
}

#[test]
fn who_is_asked_about_twice_is_let_in_where_next_to_nothing_is_kept() {
    for capacity in [0, 1, 2] {
        let mut config = asking_for_both();
        config.settings.freshness.capacity = capacity;
        let mut relay = Relay::new(config);
        for name in ["carol", "dave", "carol"] {
            let mut client = Client::new(AT, name, "mellon");
            let datagram = allocation_of(&mut relay, &mut client);
            let user = relay.asks(&client, &datagram);
            let told = about(&user, name);
            let admission = relay.told_and_asks(&client, &datagram, user, told);
            relay.told(&client, &datagram, admission, admitted()).expect_success(&client);
            relay.refresh(&mut client, 0).expect_success(&client);
        }
    }
}

#[test]
fn answers_that_make_way_for_each_other_are_not_asked_for_in_a_circle() {
    for capacity in [0, 1, 2, 3] {
        let mut config = asking_for_both();
        config.settings.freshness.capacity = capacity;
        let mut relay = Relay::new(config);
        let names = ["carol", "dave", "erin", "frank"];
        let mut waiting = Vec::new();
        for (at, name) in names.into_iter().enumerate() {
            let mut client = Client::new(&format!("203.0.113.7:{}", 41_000 + at), name, "mellon");
            let datagram = allocation_of(&mut relay, &mut client);
            let question = relay.asks(&client, &datagram);
            waiting.push((name, client, datagram, question));
        }
        // All are told of before any is admitted, and then the first is forgotten.
        for (name, client, datagram, question) in &mut waiting {
            let told = about(question, name);
            *question = relay.told_and_asks(client, datagram, question.clone(), told);
        }
        let mut codes: Vec<u16> = Vec::new();
        for (_, client, datagram, question) in waiting {
            codes.push(relay.told(&client, &datagram, question, admitted()).code());
        }
        assert!(codes.iter().all(|code| [200, 500].contains(code)) && codes.contains(&500), "{capacity}: {codes:?}");
        relay.shut_down();
    }
}

#[test]
fn what_is_known_of_the_user_may_age_while_somebody_is_asked_for_it() {
    let mut config = asking_for_both();
    config.settings.freshness.found = std::time::Duration::ZERO;
    let mut relay = Relay::new(config);
    let mut client = Client::new(AT, "carol", "mellon");
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    let question = relay.told_and_asks(&client, &datagram, question, Told::User(user("carol", "mellon")));
    relay.sleep(3);
    relay.told(&client, &datagram, question, admitted()).expect_success(&client);
}

#[test]
fn who_was_let_in_by_the_same_somebody_is_not_asked_for_again() {
    let mut relay = Relay::new(asking_for_both());
    let mut client = Client::new(AT, "carol", "mellon");
    let datagram = allocation_of(&mut relay, &mut client);
    let question = relay.asks(&client, &datagram);
    let told = Told::User(User { is_admitted: true, ..user("carol", "mellon") });
    relay.told(&client, &datagram, question, told).expect_success(&client);
}

#[test]
fn a_credential_that_expires_is_asked_for_by_its_account_too() {
    let mut relay = Relay::new(asking());
    let (username, password) = Credentials::mint(SECRET, "carol", relay.now.unix + 60);
    let mut client = Client::new(AT, &username, &password);
    let datagram = allocation_of(&mut relay, &mut client);
    assert_eq!(relay.asks(&client, &datagram).subject, admission(&username, "carol"));
}

#[test]
fn what_is_granted_with_the_admission_counts_before_what_the_user_has() {
    let mut config = asking();
    let realm = realm(&mut config.settings);
    realm.credentials.grant("alice", Grant { allocations: Some(5), ..Grant::default() });
    realm.credentials.add_user("alice", "sesame");
    for (granted, second) in [(Some(1), 486), (None, 200)] {
        let mut relay = Relay::new(ServerConfig { quotas: Quotas::default(), ..config.clone() });
        let mut client = Client::alice(AT);
        let datagram = allocation_of(&mut relay, &mut client);
        let question = relay.asks(&client, &datagram);
        let told = Told::Admitted(Grant { allocations: granted, ..Grant::default() });
        relay.told(&client, &datagram, question, told).expect_success(&client);
        assert_eq!(relay.try_allocate(&mut Client::alice(ELSEWHERE)).code(), second);
    }
}

#[test]
fn what_cannot_be_had_anyway_is_not_asked_for() {
    let mut relay = Relay::new(config_with(|settings| {
        realm(settings).asks_for_admission = true;
        settings.limits.allocations = 0;
    }));
    assert_eq!(relay.try_allocate(&mut Client::alice(AT)).code(), 508);
    let mut relay = Relay::new(asking());
    let mut client = Client::alice(AT);
    assert_eq!(relay.request(&mut client, Method::ALLOCATE, |request| request).code(), 400);
}

#[test]
fn a_request_whose_sockets_are_being_bound_is_not_asked_for_again() {
    let mut relay = Relay::new(asking());
    let mut client = Client::alice(AT);
    let request = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&Lifetime(600)));
    let question = relay.asks(&client, &request);
    relay.binds = false;
    let disposition = relay.server.answered(relay.now, client.five_tuple, &request, question, admitted());
    assert_eq!(disposition, Disposition::Control);
    assert!(matches!(relay.drain()[..], [Event::Bind(..)]));
    relay.pass(100);
    assert_eq!(relay.control(&client, &request), [], "it waits still, though the answer is old");
    relay.answer_bind(0, None);
    relay.drain();
    assert_eq!(relay.server.allocations(), 1);
    relay.shut_down();
}
