//! RFC 8489 section 9.2.4, step by step.

use hairpin_proto::stun::attribute::{Attribute, Nonce, Realm, Username};
use hairpin_proto::stun::{Class, Integrity, LongTermKey, MessageBuilder, Method};

use crate::harness::{Answer, Client, REALM, Relay, UDP};

fn alice() -> Client {
    Client::alice("203.0.113.7:41000")
}

/// An Allocate request with whatever credentials are given.
fn allocate(
    relay: &mut Relay,
    client: &Client,
    attributes: impl FnOnce(MessageBuilder<'_>) -> MessageBuilder<'_>,
) -> Answer {
    let mut datagram = Vec::new();
    let id = relay.transaction_id();
    attributes(MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, id).with(&UDP)).finish(false);
    relay.answer(client, &datagram)
}

#[track_caller]
fn expect_challenge(answer: &Answer, code: u16) {
    assert_eq!(answer.code(), code);
    assert_eq!(answer.message().attribute(), Ok(Some(Realm(REALM))));
    assert!(answer.message().find(Nonce::TYPE).is_some(), "a challenge has a nonce");
    assert_eq!(answer.message().find(Username::TYPE), None);
    assert!(!answer.message().has_integrity());
    assert_eq!(answer.events, [], "a stranger changes nothing");
}

#[test]
fn without_message_integrity_comes_a_challenge() {
    let mut relay = Relay::default();
    let client = alice();
    for method in [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        let mut datagram = Vec::new();
        MessageBuilder::new(&mut datagram, Class::Request, method, relay.transaction_id()).finish(false);
        expect_challenge(&relay.answer(&client, &datagram), 401);
    }
}

#[test]
fn with_message_integrity_but_without_its_attributes_the_request_is_bad() {
    let mut relay = Relay::default();
    let mut client = alice();
    client.nonce = relay.challenge(&client);
    let (username, realm, nonce) = (Username("alice"), Realm(REALM), Nonce(&client.nonce));
    for missing in 0..3 {
        let answer = allocate(&mut relay, &client, |request| {
            request
                .with_option((missing != 0).then_some(&username))
                .with_option((missing != 1).then_some(&realm))
                .with_option((missing != 2).then_some(&nonce))
                .with_integrity(&client.key, Integrity::Sha1)
        });
        assert_eq!(answer.code(), 400, "without attribute {missing}");
        for kind in [Username::TYPE, Realm::TYPE, Nonce::TYPE] {
            assert_eq!(answer.message().find(kind), None);
        }
        assert!(!answer.message().has_integrity());
    }
}

#[test]
fn a_wrong_password_a_wrong_user_and_a_wrong_realm_are_refused_alike() {
    for (username, realm, password) in
        [("alice", REALM, "Sesame"), ("mallory", REALM, "sesame"), ("alice", "example.com", "sesame")]
    {
        let mut relay = Relay::default();
        let client = alice();
        let nonce = relay.challenge(&client);
        let answer = allocate(&mut relay, &client, |request| {
            request
                .with(&Username(username))
                .with(&Realm(realm))
                .with(&Nonce(&nonce))
                .with_integrity(&LongTermKey::derive(username, realm, password), Integrity::Sha1)
        });
        expect_challenge(&answer, 401);
    }
}

#[test]
fn a_realm_attribute_that_is_not_the_servers_is_refused_whatever_key_was_used() {
    let mut relay = Relay::default();
    let client = alice();
    let nonce = relay.challenge(&client);
    let answer = allocate(&mut relay, &client, |request| {
        request
            .with(&Username("alice"))
            .with(&Realm("x"))
            .with(&Nonce(&nonce))
            .with_integrity(&client.key, Integrity::Sha1)
    });
    expect_challenge(&answer, 401);
}

#[test]
fn a_nonce_ages() {
    let mut relay = Relay::default();
    let mut client = alice();
    client.nonce = relay.challenge(&client);
    relay.sleep(3599);
    relay.allocate(&mut client);
    relay.sleep(1);
    let answer = relay.refresh(&mut client, 600);
    expect_challenge(&answer, 438);
    let fresh = answer.message().attribute::<Nonce<'_>>().unwrap().unwrap().0.to_owned();
    assert_ne!(fresh, client.nonce);
    relay.sleep(0);
    client.nonce = fresh;
    assert_ne!(relay.refresh(&mut client, 600).code(), 438);
}

#[test]
fn a_nonce_of_another_address_is_stale() {
    let mut relay = Relay::default();
    let mut client = alice();
    client.nonce = relay.challenge(&Client::alice("203.0.113.8:41000"));
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    expect_challenge(&answer, 438);
}

#[test]
fn each_port_is_given_a_nonce_of_its_own_which_is_good_on_the_others() {
    let mut relay = Relay::default();
    let mut client = alice();
    let own = relay.challenge(&client);
    client.nonce = relay.challenge(&Client::alice("203.0.113.7:41001"));
    assert_ne!(own, client.nonce);
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)).expect_success(&client);
}

#[test]
fn a_nonce_of_another_shard_is_good() {
    let (mut one, mut other) = (Relay::default(), Relay::default());
    other.now = one.now;
    let mut client = alice();
    client.nonce = one.challenge(&client);
    other.allocate(&mut client);
}

#[test]
fn a_stale_nonce_is_called_so_only_to_who_knows_the_password() {
    let mut relay = Relay::default();
    let mut client = Client::new("203.0.113.7:41000", "alice", "guess");
    client.nonce = "AAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    expect_challenge(&relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)), 401);
}

#[test]
fn an_altered_request_is_refused_at_every_byte() {
    let mut relay = Relay::default();
    let mut client = alice();
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    // The type, length and cookie of the header are not altered: it would be another message, or none.
    for at in 8..datagram.len() {
        let mut altered = datagram.clone();
        altered[at] ^= 0x01;
        let disposition = relay.client_sends(&client, &altered);
        let events = relay.drain();
        if disposition == hairpin_proto::turn::Disposition::Control {
            let answer = Answer { bytes: relay.responses.pop().unwrap(), events: events[1..].to_vec() };
            assert!([400, 401].contains(&answer.code()), "byte {at}: {}", answer.code());
        }
        assert_eq!(relay.server.allocations(), 0, "byte {at}");
    }
    relay.answer(&client, &datagram).expect_success(&client);
}

#[test]
fn what_stands_behind_message_integrity_does_not_count() {
    let mut relay = Relay::default();
    let mut client = alice();
    relay.allocate(&mut client);
    let mut datagram = relay.signed(&mut client, Method::REFRESH, |request| request);
    // LIFETIME 0, put in by somebody on the way.
    datagram.extend_from_slice(&[0x00, 0x0d, 0, 4, 0, 0, 0, 0]);
    let length = datagram.len() as u16 - 20;
    datagram[2..4].copy_from_slice(&length.to_be_bytes());
    let answer = relay.answer(&client, &datagram);
    answer.expect_success(&client);
    assert_eq!(answer.lifetime(), 600);
    assert_eq!(relay.server.allocations(), 1);
}

#[test]
fn a_request_with_sha256_alone_is_signed() {
    let mut relay = Relay::default();
    let client = alice();
    let answer = allocate(&mut relay, &client, |request| request.with_integrity(&client.key, Integrity::Sha256));
    assert_eq!((answer.code(), relay.refusals.len()), (400, 1), "it says by whom it is not");
}

#[test]
fn unknown_attributes_are_complained_about_after_authentication() {
    let mut relay = Relay::default();
    let mut client = alice();
    let mut datagram = Vec::new();
    let id = relay.transaction_id();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, id).with(&UDP).finish(false);
    datagram.extend_from_slice(&[0x00, 0x26, 0, 0]);
    datagram[3] += 4;
    expect_challenge(&relay.answer(&client, &datagram), 401);

    // ACCESS-TOKEN of RFC 7635 is not understood where no tokens are taken.
    let answer = relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&AccessToken));
    answer.expect_error(&client, 420);
    let unknown = answer.message().find(0x000a).unwrap();
    assert_eq!(unknown, [0x00, 0x1b]);
}

struct AccessToken;

impl Attribute<'_> for AccessToken {
    const TYPE: u16 = 0x001b;

    fn decode(
        _: &[u8],
        _: &hairpin_proto::stun::TransactionId,
    ) -> Result<Self, hairpin_proto::stun::attribute::AttributeError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Vec<u8>, _: &hairpin_proto::stun::TransactionId) {}
}

#[test]
fn a_fingerprint_is_accepted_and_answered_on_signed_requests_and_challenges() {
    let mut relay = Relay::default();
    let mut client = alice();
    client.fingerprint = true;
    relay.allocate(&mut client);
    relay.refresh(&mut client, 600).expect_success(&client);
    relay.permit(&mut client, &[]).expect_error(&client, 400);
    client.nonce = "stale".to_owned();
    expect_challenge(&relay.refresh(&mut client, 600), 438);
}
