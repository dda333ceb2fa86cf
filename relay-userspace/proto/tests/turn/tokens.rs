//! Access tokens (RFC 7635): what lets in who has one, for how long, and what it is told else.

use std::time::Duration;

use hairpin_proto::stun::attribute::{Attribute, Lifetime, Nonce, ThirdPartyAuthorization, XorPeerAddress};
use hairpin_proto::stun::{Integrity, Method};
use hairpin_proto::turn::{
    AccessToken, Cause, EndReason, Grant, MacKey, ServerConfig, Settings, TokenAlgorithm, TokenKey, TokenTimestamp,
};

use crate::harness::{Answer, Client, Event, Relay, UDP, config, config_with, realm, socket};

const AT: &str = "203.0.113.7:41000";
const ELSEWHERE: &str = "203.0.113.7:41001";
const PEER: &str = "8.8.8.8:53";
pub(crate) const AUDIENCE: &str = "turn.example.org";
const NOON: u64 = 1_700_000_000;
/// What clocks may differ by.
const TOLERANCE: u32 = 5;
const MAC_KEY: [u8; 20] = [3; 20];
const OTHER_MAC_KEY: [u8; 32] = [4; 32];

pub(crate) fn token_key(byte: u8) -> TokenKey {
    TokenKey::new(TokenAlgorithm::A256Gcm, &[byte; 32]).unwrap()
}

fn take_tokens(settings: &mut Settings) {
    let realm = realm(settings);
    realm.token_audience = Some(AUDIENCE.to_owned());
    realm.credentials.add_token_key("new", token_key(1));
    realm.credentials.add_token_key("old", token_key(2));
}

pub(crate) fn token_config() -> ServerConfig {
    config_with(take_tokens)
}

fn seal(key: u8, audience: &str, mac_key: &[u8], timestamp: TokenTimestamp, lifetime: u32) -> Vec<u8> {
    let token = AccessToken { mac_key: MacKey::new(mac_key).unwrap(), timestamp, lifetime };
    token_key(key).seal(audience, &token, [6; 12])
}

/// A client with a token of the key `new` that was made at this time.
pub(crate) fn holder(made: TokenTimestamp, lifetime: u32) -> Client {
    let key = MacKey::new(&MAC_KEY).unwrap().to_key();
    let token = Some(seal(1, AUDIENCE, &MAC_KEY, made, lifetime));
    Client { key, token, ..Client::new(AT, "new", "") }
}

pub(crate) fn fresh_holder() -> Client {
    holder(TokenTimestamp::from_unix(NOON), 300)
}

/// Why somebody with this token is not let in. It is challenged as all others are.
#[track_caller]
fn expect_refused(relay: &mut Relay, mut client: Client, cause: Cause) {
    let answer = relay.try_allocate(&mut client);
    assert_eq!((answer.code(), relay.last_cause()), (401, cause));
    assert_eq!(answer.message().attribute(), Ok(Some(ThirdPartyAuthorization(AUDIENCE))));
    assert!(answer.message().find(Nonce::TYPE).is_some() && !answer.message().has_integrity());
    assert_eq!(answer.events, []);
}

fn audience(answer: &Answer) -> Option<String> {
    let told: Option<ThirdPartyAuthorization<'_>> = answer.message().attribute().unwrap();
    told.map(|ThirdPartyAuthorization(name)| name.to_owned())
}

#[test]
fn who_has_a_token_is_let_in_by_either_signature_and_goes_on_without_it() {
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let mut relay = Relay::new(token_config());
        let mut client = Client { integrity, ..fresh_holder() };
        let answer = relay.try_allocate(&mut client);
        answer.expect_success(&client);
        assert_eq!(answer.message().integrity(), Some(integrity));
        client.token = None;
        relay.permit(&mut client, &[PEER]).expect_success(&client);
        relay.permit(&mut client, &["127.0.0.1:53"]).expect_error(&client, 403);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
        relay.refresh(&mut client, 600).expect_success(&client);
        relay.refresh(&mut client, 0).expect_success(&client);
        assert_eq!(relay.refresh(&mut client, 600).code(), 401, "the key was known with the allocation");
        relay.shut_down();
    }
}

#[test]
fn an_allocation_lasts_no_longer_than_its_token() {
    let mut relay = Relay::new(token_config());
    let mut client = fresh_holder();
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&Lifetime(3600)));
    assert_eq!(answer.lifetime(), 300 + TOLERANCE);
    client.token = None;
    relay.pass(100);
    assert_eq!(relay.refresh(&mut client, 3600).lifetime(), 200 + TOLERANCE);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.pass(204);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    let events = relay.pass(1);
    assert!(events.iter().any(|event| matches!(event, Event::Freed(_, EndReason::Expired))), "{events:?}");
    assert_eq!(relay.refresh(&mut client, 600).code(), 401);
    let mut long = holder(TokenTimestamp::from_unix(relay.now.unix), 100_000).at(ELSEWHERE);
    assert_eq!(relay.try_allocate(&mut long).lifetime(), 600, "nor than others");
    relay.shut_down();
}

#[test]
fn a_token_that_is_over_is_refused_and_is_over_within_its_last_second() {
    let half = |second: u64| TokenTimestamp((second << 16) + 32_000);
    for made in [NOON - 305, NOON - 306, NOON + 306, 0, u64::MAX >> 16] {
        expect_refused(
            &mut Relay::new(token_config()),
            holder(TokenTimestamp::from_unix(made), 300),
            Cause::ExpiredToken,
        );
    }
    // There is no lifetime of half a second, and one of none would say that the allocation is gone.
    expect_refused(&mut Relay::new(token_config()), holder(half(NOON - 305), 300), Cause::ExpiredToken);

    let mut relay = Relay::new(token_config());
    let mut client = holder(half(NOON - 304), 300);
    assert_eq!(relay.try_allocate(&mut client).lifetime(), 1);
    client.token = None;
    relay.now.instant += Duration::from_millis(400);
    assert_eq!(relay.refresh(&mut client, 600).lifetime(), 1);
    relay.now.instant += Duration::from_millis(200);
    let refused = relay.refresh(&mut client, 600);
    assert_eq!((refused.code(), relay.last_cause()), (401, Cause::ExpiredToken));
    assert_eq!(audience(&refused).as_deref(), Some(AUDIENCE));
    relay.pass(1);
    relay.shut_down();
}

#[test]
fn a_new_token_prolongs_and_its_key_signs_from_then_on() {
    let mut relay = Relay::new(token_config());
    let mut client = fresh_holder();
    let before = client.clone();
    relay.allocate(&mut client);
    relay.pass(200);
    client.token = Some(seal(1, AUDIENCE, &OTHER_MAC_KEY, TokenTimestamp::from_unix(relay.now.unix), 500));
    client.key = MacKey::new(&OTHER_MAC_KEY).unwrap().to_key();
    let answer = relay.refresh(&mut client, 600);
    answer.expect_success(&client);
    assert_eq!(answer.lifetime(), 500 + TOLERANCE);
    client.token = None;
    relay.pass(400);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    let mut old = Client { token: None, nonce: client.nonce.clone(), ..before };
    assert_eq!((relay.refresh(&mut old, 0).code(), relay.last_cause()), (401, Cause::BadToken));
    assert_eq!(relay.server.allocations(), 1);
}

#[test]
fn a_token_that_is_wrong_in_any_way_is_refused() {
    let now = TokenTimestamp::from_unix(NOON);
    let with = |token: Vec<u8>| Client { token: Some(token), ..fresh_holder() };
    let new_relay = || Relay::new(token_config());
    expect_refused(&mut new_relay(), with(seal(1, "turn.example.net", &MAC_KEY, now, 300)), Cause::BadToken);
    expect_refused(&mut new_relay(), with(seal(2, AUDIENCE, &MAC_KEY, now, 300)), Cause::BadToken);
    expect_refused(&mut new_relay(), with(seal(1, AUDIENCE, &OTHER_MAC_KEY, now, 300)), Cause::BadToken);
    let of_nobody = Client { username: "north".to_owned(), ..fresh_holder() };
    expect_refused(&mut new_relay(), of_nobody, Cause::UnknownTokenKey);
    let token = fresh_holder().token.unwrap();
    let mut relay = new_relay();
    for at in 0..token.len() {
        let mut altered = token.clone();
        altered[at] ^= 0x80;
        expect_refused(&mut relay, with(altered), Cause::BadToken);
        expect_refused(&mut relay, with(token[..at].to_vec()), Cause::BadToken);
    }
    let of_alice = Client { token: Some(token), ..Client::alice(AT) };
    expect_refused(&mut relay, of_alice, Cause::UnknownTokenKey);
}

#[test]
fn every_challenge_names_the_server_where_tokens_are_taken() {
    for (config, expected) in [(token_config(), Some(AUDIENCE)), (config(), None)] {
        let mut relay = Relay::new(config);
        let mut wrong = Client::new(AT, "alice", "Sesame");
        assert_eq!(audience(&relay.try_allocate(&mut wrong)).as_deref(), expected);
        let mut late = Client::alice(AT);
        late.nonce = relay.challenge(&late);
        relay.sleep(3600);
        let stale = relay.try_allocate(&mut late);
        assert_eq!((stale.code(), audience(&stale).as_deref()), (438, expected));
        late.nonce.clear();
        assert_eq!(audience(&relay.try_allocate(&mut late)), None, "who is let in need not know");
    }
}

#[test]
fn of_two_keys_both_are_good_until_one_is_taken_away() {
    let of_old = |at: &str| {
        let token = Some(seal(2, AUDIENCE, &MAC_KEY, TokenTimestamp::from_unix(NOON), 3000));
        Client { token, username: "old".to_owned(), ..fresh_holder() }.at(at)
    };
    let mut relay = Relay::new(token_config());
    let mut running = of_old(ELSEWHERE);
    relay.allocate(&mut running);
    relay.allocate(&mut fresh_holder());
    relay.change(|settings| {
        realm(settings).token_audience = Some(AUDIENCE.to_owned());
        realm(settings).credentials.add_token_key("new", token_key(1));
    });
    expect_refused(&mut relay, of_old("203.0.113.7:41002"), Cause::UnknownTokenKey);
    relay.allocate(&mut fresh_holder().at("203.0.113.7:41003"));
    running.token = None;
    relay.refresh(&mut running, 600).expect_success(&running);
}

#[test]
fn where_tokens_are_not_taken_nobody_is_let_in_by_one() {
    let mut relay = Relay::default();
    let mut with_password = Client { token: fresh_holder().token, ..Client::alice(AT) };
    let answer = relay.try_allocate(&mut with_password);
    answer.expect_error(&with_password, 420);
    assert_eq!(answer.message().find(0x000a), Some(&[0x00, 0x1b][..]));
    assert_eq!(relay.try_allocate(&mut fresh_holder()).code(), 401);
    assert_eq!(relay.last_cause(), Cause::UnknownUser);
}

#[test]
fn who_has_a_password_is_let_in_as_before() {
    let mut relay = Relay::new(token_config());
    relay.allocate(&mut Client::alice(AT));
    let mut modern = Client::modern(ELSEWHERE, "alice", "sesame");
    relay.allocate(&mut modern);
}

#[test]
fn a_token_is_not_judged_by_its_nonce_alone() {
    let mut relay = Relay::new(token_config());
    let mut client = fresh_holder();
    relay.allocate(&mut client);
    client.nonce = "stale".to_owned();
    let stale = relay.refresh(&mut client, 600);
    assert_eq!((stale.code(), audience(&stale).as_deref()), (438, Some(AUDIENCE)));
    client.token = None;
    assert_eq!(relay.refresh(&mut client, 600).code(), 438);
}

#[test]
fn an_allocate_request_with_a_token_that_comes_again_is_answered_as_before() {
    let mut relay = Relay::new(token_config());
    let mut client = fresh_holder();
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let first = relay.answer(&client, &datagram);
    first.expect_success(&client);
    relay.sleep(39);
    assert_eq!(relay.answer(&client, &datagram).bytes, first.bytes);
    let refresh = relay.signed(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0)));
    let first = relay.answer(&client, &refresh);
    first.expect_success(&client);
    relay.sleep(10);
    assert_eq!(relay.answer(&client, &refresh).bytes, first.bytes);
    relay.shut_down();
}

#[test]
fn what_was_answered_is_answered_again_though_the_token_is_over_meanwhile() {
    let mut relay = Relay::new(token_config());
    let mut client = holder(TokenTimestamp::from_unix(NOON), 20 - TOLERANCE);
    let allocate = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let first = relay.answer(&client, &allocate);
    first.expect_success(&client);
    assert_eq!(first.lifetime(), 20);
    let without = Client { token: None, ..client.clone() };
    let permit = relay
        .signed(&mut without.clone(), Method::CREATE_PERMISSION, |request| request.with(&XorPeerAddress(socket(PEER))));
    let second = relay.answer(&client, &permit);
    second.expect_success(&client);
    relay.sleep(30);
    assert_eq!(relay.answer(&client, &allocate).bytes, first.bytes);
    // Without a token, only the allocation knew who that is.
    assert_eq!(relay.answer(&client, &permit).code(), 401);
    assert_eq!(relay.server.allocations(), 0);
    // What was not answered before is over.
    expect_refused(&mut relay, client.at(ELSEWHERE), Cause::ExpiredToken);
    relay.sleep(10);
    assert_eq!(relay.answer(&client, &allocate).code(), 401);
    assert_eq!(relay.last_cause(), Cause::ExpiredToken);
    relay.shut_down();
}

#[test]
fn what_is_granted_to_a_key_is_granted_to_who_has_its_tokens() {
    let mut relay = Relay::new(config_with(|settings| {
        take_tokens(settings);
        realm(settings).credentials.grant("new", Grant { allocations: Some(1), ..Grant::default() });
    }));
    relay.allocate(&mut fresh_holder());
    let mut another = fresh_holder().at(ELSEWHERE);
    relay.try_allocate(&mut another).expect_error(&another, 486);
}
