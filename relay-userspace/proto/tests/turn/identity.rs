//! Who somebody is, as RFC 8489 has it: keys made by SHA-256, hidden names, and nobody who makes it less.

use hairpin_proto::stun::attribute::{
    AlgorithmAndParameters, Attribute, Nonce, PasswordAlgorithmAttribute, PasswordAlgorithms, Realm, UserHash, Username,
};
use hairpin_proto::stun::{
    Class, Integrity, LongTermKey, MessageBuilder, Method, PasswordAlgorithm, PasswordKeys, SecurityFeatures, user_hash,
};
use hairpin_proto::turn::{Cause, ServerConfig, Settings};
use ring::{digest, hmac};

use crate::harness::{Answer, BOTH, Client, REALM, Relay, UDP, config_with, realm};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:53";
const MD5: Option<&[u8]> = Some(&[0, 1, 0, 0]);
const SHA256: Option<&[u8]> = Some(&[0, 2, 0, 0]);
const BACKWARDS: Option<&[u8]> = Some(&[0, 1, 0, 0, 0, 2, 0, 0]);

fn anonymous_config() -> ServerConfig {
    config_with(|settings| realm(settings).offers_anonymity = true)
}

fn md5_config() -> ServerConfig {
    config_with(|settings| realm(settings).offers_sha256 = false)
}

fn modern() -> Client {
    Client::modern(AT, "alice", "sesame")
}

/// Alice with the key of MD5, who says so.
fn of_md5() -> Client {
    Client::alice(AT).choosing(PasswordAlgorithm::Md5)
}

/// What an answer offers: the features in its nonce, and PASSWORD-ALGORITHMS.
fn offer(answer: &Answer) -> (Option<SecurityFeatures>, Option<Vec<u8>>) {
    let message = answer.message();
    let Nonce(nonce) = message.attribute().unwrap().expect("there is a nonce");
    (SecurityFeatures::of_nonce(nonce), message.find(PasswordAlgorithms::TYPE).map(<[u8]>::to_vec))
}

#[allow(clippy::unnecessary_wraps, reason = "it is compared with what a nonce may tell")]
fn features(password_algorithms: bool, username_anonymity: bool) -> Option<SecurityFeatures> {
    Some(SecurityFeatures { password_algorithms, username_anonymity })
}

#[test]
fn every_challenge_offers_what_the_realm_has() {
    for (sha256, anonymity) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut relay = Relay::new(config_with(|settings| {
            (realm(settings).offers_sha256, realm(settings).offers_anonymity) = (sha256, anonymity);
        }));
        let expected = (features(sha256, anonymity), sha256.then(|| BOTH.to_vec()));
        let mut datagram = Vec::new();
        MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, relay.transaction_id()).finish(false);
        assert_eq!(offer(&relay.answer(&modern(), &datagram)), expected, "the first");
        assert_eq!(offer(&relay.try_allocate(&mut Client::new(AT, "alice", "Sesame"))), expected, "wrong password");
        let mut late = Client::alice(AT);
        late.nonce = relay.challenge(&late);
        relay.sleep(3600);
        let stale = relay.try_allocate(&mut late);
        assert_eq!((stale.code(), offer(&stale)), (438, expected), "stale");
    }
}

#[test]
fn old_clients_and_new_ones_are_let_in_and_answered_in_their_way() {
    let sha256_of_old = Client { integrity: Integrity::Sha256, ..Client::alice(AT) };
    let cases = [
        ("RFC 5389", Client::alice(AT), Integrity::Sha1),
        ("SHA-256 signs, nothing is chosen", sha256_of_old, Integrity::Sha256),
        ("MD5 is chosen", of_md5(), Integrity::Sha256),
        ("MD5 is chosen, SHA-256 signs", Client { integrity: Integrity::Sha256, ..of_md5() }, Integrity::Sha256),
        ("SHA-256 is chosen, SHA-1 signs", Client { integrity: Integrity::Sha1, ..modern() }, Integrity::Sha256),
        ("SHA-256", modern(), Integrity::Sha256),
    ];
    for (what, mut client, integrity) in cases {
        let mut relay = Relay::default();
        let answers = [
            relay.try_allocate(&mut client),
            relay.permit(&mut client, &[PEER]),
            relay.permit(&mut client, &["127.0.0.1:53"]),
            relay.bind_channel(&mut client, 0x4000, PEER),
            relay.refresh(&mut client, 600),
            relay.refresh(&mut client, 0),
        ];
        assert_eq!(answers.each_ref().map(Answer::code), [200, 200, 403, 200, 200, 200], "{what}");
        for answer in answers {
            assert!(answer.message().verify_integrity(&client.key), "{what}: {answer:?}");
            assert_eq!(answer.message().integrity(), Some(integrity), "{what}: {answer:?}");
        }
        relay.shut_down();
    }
}

#[test]
fn the_key_has_to_be_of_the_algorithm_that_is_chosen() {
    let by_sha256 = modern().key;
    for mut client in [Client { key: by_sha256, ..of_md5() }, Client { key: of_md5().key, ..modern() }] {
        let mut relay = Relay::default();
        assert_eq!(relay.try_allocate(&mut client).code(), 401);
        assert_eq!(relay.last_cause(), Cause::WrongPassword);
    }
}

/// A request that is signed by so many bytes of HMAC-SHA256, made here from scratch.
fn signed_shortly(relay: &mut Relay, len: usize) -> Vec<u8> {
    let client = modern();
    let nonce = relay.challenge(&client);
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, relay.transaction_id())
        .with(&UDP)
        .with(&Username("alice"))
        .with(&Realm(REALM))
        .with(&Nonce(&nonce))
        .with(&PasswordAlgorithms::SHA256_AND_MD5)
        .with(&PasswordAlgorithmAttribute(PasswordAlgorithm::Sha256.into()))
        .finish(false);
    let padded = len.next_multiple_of(4);
    let length = (datagram.len() - 20 + 4 + padded) as u16;
    datagram[2..4].copy_from_slice(&length.to_be_bytes());
    let key = digest::digest(&digest::SHA256, format!("alice:{REALM}:sesame").as_bytes());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), &datagram);
    let mut value = tag.as_ref().to_vec();
    value.resize(len, 0);
    datagram.extend_from_slice(&[0x00, 0x1c, 0, len as u8]);
    datagram.extend_from_slice(&value);
    datagram.resize(datagram.len() + padded - len, 0);
    datagram
}

#[test]
fn a_signature_may_be_cut_to_sixteen_bytes_and_no_further() {
    for len in [16, 20, 24, 28, 32] {
        let mut relay = Relay::default();
        let datagram = signed_shortly(&mut relay, len);
        let answer = relay.answer(&modern(), &datagram);
        answer.expect_success(&modern());
        let message = answer.message();
        assert_eq!(message.integrity(), Some(Integrity::Sha256));
        let mut wrong = signed_shortly(&mut relay, len);
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(relay.answer(&modern(), &wrong).code(), 401, "{len}");
    }
    for len in [0, 4, 12, 15, 17, 18, 30, 36, 64] {
        let mut relay = Relay::default();
        let datagram = signed_shortly(&mut relay, len);
        assert_eq!(relay.answer(&modern(), &datagram).code(), 401, "{len}");
        assert_eq!(relay.server.allocations(), 0);
    }
}

#[test]
fn who_hides_its_name_is_the_same_user_in_every_method() {
    for (first, then) in [(false, true), (true, false), (true, true)] {
        let mut relay = Relay::new(anonymous_config());
        let mut client = Client { is_anonymous: first, ..modern() };
        relay.allocate(&mut client);
        client.is_anonymous = then;
        relay.permit(&mut client, &[PEER]).expect_success(&client);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
        relay.refresh(&mut client, 600).expect_success(&client);
        // Whoever uses MD5 may hide as well.
        let mut old = Client { is_anonymous: then, ..Client::alice(AT) };
        relay.refresh(&mut old, 600).expect_success(&old);
        let mut bob = Client { is_anonymous: then, ..Client::modern(AT, "bob", "hunter2") };
        relay.refresh(&mut bob, 0).expect_error(&bob, 441);
        relay.permit(&mut bob, &[PEER]).expect_error(&bob, 441);
        assert_eq!(relay.refusals.last().unwrap().username.as_deref(), Some("bob"), "the operator is told who");
        relay.refresh(&mut client, 0).expect_success(&client);
        relay.shut_down();
    }
}

#[test]
fn who_hides_counts_for_the_same_quota() {
    let mut relay = Relay::new(config_with(|settings| realm(settings).allocations_per_user = 1));
    relay.allocate(&mut modern());
    let mut hidden = Client { is_anonymous: true, ..modern() }.at(ELSEWHERE);
    relay.try_allocate(&mut hidden).expect_error(&hidden, 486);
}

#[test]
fn a_hash_of_nobody_or_of_another_realm_is_refused() {
    let mut relay = Relay::new(anonymous_config());
    let mut nobody = Client { is_anonymous: true, ..Client::modern(AT, "mallory", "sesame") };
    assert_eq!(relay.try_allocate(&mut nobody).code(), 401);
    assert_eq!(relay.last_cause(), Cause::UnknownUser);
    let hash = UserHash(user_hash("alice", "example.net"));
    let answer = by_hand(&mut relay, None, Some(&hash));
    assert_eq!((answer.code(), relay.last_cause()), (401, Cause::UnknownUser));
}

/// Alice's key and whatever name.
fn by_hand(relay: &mut Relay, name: Option<&Username<'_>>, hash: Option<&UserHash>) -> Answer {
    let client = modern();
    let nonce = relay.challenge(&client);
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, relay.transaction_id())
        .with(&UDP)
        .with_option(name)
        .with_option(hash)
        .with(&Realm(REALM))
        .with(&Nonce(&nonce))
        .with(&PasswordAlgorithms::SHA256_AND_MD5)
        .with(&PasswordAlgorithmAttribute(PasswordAlgorithm::Sha256.into()))
        .with_integrity(&client.key, Integrity::Sha256)
        .finish(false);
    relay.answer(&client, &datagram)
}

#[test]
fn a_name_and_its_hash_or_neither_is_a_bad_request() {
    let (name, hash) = (Username("alice"), UserHash(user_hash("alice", REALM)));
    let mut relay = Relay::new(anonymous_config());
    for (name, hash) in [(Some(&name), Some(&hash)), (None, None)] {
        assert_eq!(by_hand(&mut relay, name, hash).code(), 400);
        assert_eq!(relay.last_cause(), Cause::IncompleteCredentials);
    }
    for (name, hash) in [(Some(&name), None), (None, Some(&hash))] {
        assert_ne!(by_hand(&mut relay, name, hash).code(), 400, "each by itself is enough");
    }
}

#[test]
fn an_offer_that_is_given_back_otherwise_is_bid_down() {
    let md5 = Some(AlgorithmAndParameters::from(PasswordAlgorithm::Md5));
    let sha256 = Some(AlgorithmAndParameters::from(PasswordAlgorithm::Sha256));
    let strange = AlgorithmAndParameters { number: 7, parameters: &[] };
    let with_parameters = AlgorithmAndParameters { number: 2, parameters: &[1, 2] };
    let cases = [
        ("SHA-256 was taken out", MD5, md5),
        ("MD5 was taken out", SHA256, sha256),
        ("the order is another", BACKWARDS, sha256),
        ("the order is another, MD5 is chosen", BACKWARDS, md5),
        ("nothing is chosen", Some(BOTH), None),
        ("nothing was offered", None, sha256),
        ("nothing was offered, MD5 is chosen", None, md5),
        ("nothing is in the offer", Some(&[][..]), md5),
        ("what is chosen was not offered", Some(BOTH), Some(strange)),
        ("it has parameters that it has not", Some(BOTH), Some(with_parameters)),
    ];
    for (what, offered, chosen) in cases {
        for key in [modern().key, of_md5().key] {
            let mut relay = Relay::default();
            let mut client = Client { key, offered, chosen, ..modern() };
            let answer = relay.try_allocate(&mut client);
            assert_eq!((answer.code(), relay.last_cause()), (400, Cause::BidDown), "{what}");
            assert!(!answer.message().has_integrity() && answer.message().find(Nonce::TYPE).is_none(), "{what}");
            assert_eq!(answer.events, [], "{what}");
        }
    }
}

#[test]
fn a_nonce_whose_features_were_changed_is_stale_and_replaced_by_the_right_one() {
    let right = (features(true, true), Some(BOTH.to_vec()));
    let mut relay = Relay::new(anonymous_config());
    let nonce = relay.challenge(&modern());
    let rest = &nonce[SecurityFeatures::PREFIX_LEN..];
    let prefix = |features: Option<SecurityFeatures>| String::from_utf8(features.unwrap().prefix().to_vec()).unwrap();
    let cookie = &nonce[..9];
    for changed in [
        prefix(features(false, false)) + rest,
        prefix(features(true, false)) + rest,
        prefix(features(false, true)) + rest,
        rest.to_owned(),
        cookie.to_lowercase() + &nonce[9..],
        "obMatJos1".to_owned() + &nonce[9..],
    ] {
        // Who is made to believe that there is MD5 only signs with that.
        let mut fooled = Client { nonce: changed.clone(), ..Client::alice(AT) };
        let answer = relay.try_allocate(&mut fooled);
        assert_eq!((answer.code(), offer(&answer)), (438, right.clone()), "{changed}");
        for mut client in [modern(), of_md5()] {
            client.nonce.clone_from(&changed);
            assert!([400, 401, 438].contains(&relay.try_allocate(&mut client).code()), "{changed}");
        }
        assert_eq!(relay.server.allocations(), 0);
    }
}

#[test]
fn where_sha256_is_not_offered_it_is_not_understood_and_old_clients_are_let_in() {
    let mut relay = Relay::new(md5_config());
    relay.allocate(&mut Client::alice(AT));
    let mut client = modern().at(ELSEWHERE);
    assert_eq!(relay.try_allocate(&mut client).code(), 401);
    assert_eq!(relay.last_cause(), Cause::WrongPassword);
    let mut by_md5 = Client { integrity: Integrity::Sha256, ..Client::alice(ELSEWHERE) };
    relay.allocate(&mut by_md5);
}

#[test]
fn a_client_goes_on_with_sha256_until_its_nonce_ages_when_it_is_offered_no_longer() {
    let mut relay = Relay::default();
    let mut client = modern();
    relay.allocate(&mut client);
    relay.change(|settings| realm(settings).offers_sha256 = false);
    relay.refresh(&mut client, 3600).expect_success(&client);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.pass(3599);
    relay.sleep(0);
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.pass(1);
    let stale = relay.refresh(&mut client, 600);
    assert_eq!((stale.code(), offer(&stale)), (438, (features(false, false), None)));
    let mut by_md5 = Client::alice(AT);
    relay.refresh(&mut by_md5, 600).expect_success(&by_md5);
}

#[test]
fn a_nonce_that_offers_less_than_the_realm_does_now_is_stale() {
    let mut relay = Relay::new(md5_config());
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.change(|_| ());
    let stale = relay.refresh(&mut client, 600);
    assert_eq!((stale.code(), offer(&stale)), (438, (features(true, false), Some(BOTH.to_vec()))));
    client.nonce.clear();
    relay.refresh(&mut client, 600).expect_success(&client);
}

#[test]
fn who_has_no_key_of_the_algorithm_is_refused_for_that() {
    let mut relay = Relay::new(config_with(|settings| {
        realm(settings).credentials.add_keys("carol", PasswordKeys::from_md5([7; 16]));
        realm(settings).credentials.add_keys("dave", PasswordKeys::from_sha256([8; 32]));
    }));
    let carol = Client { key: LongTermKey::from_bytes(&[7; 16]), ..Client::new(AT, "carol", "") };
    let dave = Client { key: LongTermKey::from_bytes(&[8; 32]), ..Client::new(ELSEWHERE, "dave", "") };
    for (mut client, wrong) in [
        (carol.choosing(PasswordAlgorithm::Md5), PasswordAlgorithm::Sha256),
        (dave.choosing(PasswordAlgorithm::Sha256), PasswordAlgorithm::Md5),
    ] {
        let mut other = client.clone().choosing(wrong);
        assert_eq!((relay.try_allocate(&mut other).code(), relay.last_cause()), (401, Cause::NoKeyOfAlgorithm));
        relay.allocate(&mut client);
    }
}

#[test]
fn names_and_passwords_are_prepared_as_they_are_compared() {
    // A letter in two forms, and a space of another width. The last letter is another one for SASLprep alone.
    const NAME: &str = "\u{e5}sa";
    const UNPREPARED: &str = "a\u{30a}sa";
    const PASSWORD: &str = "open\u{3000}sesame \u{aa}";
    const PREPARED: &str = "open sesame \u{aa}";
    const OF_RFC_5389: &str = "open sesame a";
    let new_relay = || Relay::new(config_with(|settings| realm(settings).credentials.add_user(NAME, PASSWORD)));
    for password in [PASSWORD, PREPARED] {
        let mut relay = new_relay();
        let mut client = Client::modern(AT, NAME, password);
        relay.allocate(&mut client);
        client.is_anonymous = true;
        relay.permit(&mut client, &[PEER]).expect_success(&client);
    }
    for password in [PASSWORD, PREPARED, OF_RFC_5389] {
        new_relay().allocate(&mut Client::new(AT, NAME, password));
    }
    // What the operator has typed is taken from clients that prepare it, and from those that know nothing of it.
    for name in [NAME, UNPREPARED] {
        let typed = |settings: &mut Settings| realm(settings).credentials.add_user(UNPREPARED, PASSWORD);
        Relay::new(config_with(typed)).allocate(&mut Client::modern(AT, name, PASSWORD));
    }
    let mut of_rfc_5389 = Client::modern(AT, NAME, OF_RFC_5389);
    assert_eq!(new_relay().try_allocate(&mut of_rfc_5389).code(), 401, "who knows SHA-256 knows OpaqueString");
}
