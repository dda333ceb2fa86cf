//! Requests that come again are answered again, and carried out once.

use hairpin_proto::stun::attribute::{EvenPort, Lifetime};
use hairpin_proto::stun::{Integrity, Method};

use crate::harness::{Answer, Client, Event, Relay, UDP};

const AT: &str = "203.0.113.7:41000";

/// Sends the same bytes once more.
fn again(relay: &mut Relay, client: &Client, datagram: &[u8], first: &Answer) {
    let answer = relay.answer(client, datagram);
    assert_eq!(answer.bytes, first.bytes, "answered with the same bytes");
    assert_eq!(answer.events, [], "carried out once");
}

#[test]
fn an_allocate_that_comes_again_makes_no_second_allocation() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let pair = EvenPort { reserve_next: true };
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&pair));
    let first = relay.answer(&client, &datagram);
    first.expect_success(&client);
    assert!(first.token().is_some());
    relay.pass(39);
    again(&mut relay, &client, &datagram, &first);
    assert_eq!((relay.server.allocations(), relay.sockets.len()), (1, 1));
    relay.sleep(1);
    assert_eq!(relay.answer(&client, &datagram).code(), 437, "too late to be a retransmission");
}

#[test]
fn a_deletion_that_comes_again_succeeds_again() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    let datagram = relay.signed(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0)));
    let first = relay.answer(&client, &datagram);
    first.expect_success(&client);
    assert!(matches!(first.events[..], [Event::Remove(_), Event::Close(_), Event::Freed(..)]));
    again(&mut relay, &client, &datagram, &first);
    relay.allocate(&mut client);
    again(&mut relay, &client, &datagram, &first);
    assert_eq!(relay.server.allocations(), 1, "the new allocation is not deleted by an old request");
}

#[test]
fn every_request_that_changes_something_is_remembered() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    let peer = hairpin_proto::stun::attribute::XorPeerAddress("8.8.8.8:53".parse().unwrap());
    let number = hairpin_proto::stun::attribute::ChannelNumberAttribute(0x4000);
    let requests = [
        relay.signed(&mut client, Method::REFRESH, |request| request.with(&Lifetime(900))),
        relay.signed(&mut client, Method::CREATE_PERMISSION, |request| request.with(&peer)),
        relay.signed(&mut client, Method::CHANNEL_BIND, |request| request.with(&peer).with(&number)),
    ];
    for datagram in requests {
        let first = relay.answer(&client, &datagram);
        first.expect_success(&client);
        relay.sleep(10);
        let timeout = relay.server.poll_timeout();
        again(&mut relay, &client, &datagram, &first);
        assert_eq!(relay.server.poll_timeout(), timeout, "a retransmission prolongs nothing");
    }
}

#[test]
fn a_retransmission_is_answered_although_its_nonce_has_aged() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    client.nonce = relay.challenge(&client);
    relay.sleep(3590);
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    let first = relay.answer(&client, &datagram);
    first.expect_success(&client);
    relay.sleep(20);
    again(&mut relay, &client, &datagram, &first);
}

#[test]
fn the_same_transaction_id_on_another_request_is_another_request() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.transaction_id();
    relay.allocate(&mut client);
    let mut requests = Vec::new();
    for lifetime in [1000, 2000] {
        let mut datagram = Vec::new();
        hairpin_proto::stun::MessageBuilder::new(
            &mut datagram,
            hairpin_proto::stun::Class::Request,
            Method::REFRESH,
            id,
        )
        .with(&Lifetime(lifetime))
        .with(&hairpin_proto::stun::attribute::Username(&client.username))
        .with(&hairpin_proto::stun::attribute::Realm(crate::harness::REALM))
        .with(&hairpin_proto::stun::attribute::Nonce(&client.nonce))
        .with_integrity(&client.key, Integrity::Sha1)
        .finish(false);
        requests.push(datagram);
    }
    assert_eq!(relay.answer(&client, &requests[0]).lifetime(), 1000);
    assert_eq!(relay.answer(&client, &requests[1]).lifetime(), 2000);
}

#[test]
fn an_error_is_not_remembered() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.taken.extend(0..=u16::MAX);
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    assert_eq!(relay.answer(&client, &datagram).code(), 508);
    relay.taken.clear();
    relay.answer(&client, &datagram).expect_success(&client);
}

#[test]
fn a_request_of_another_address_is_no_retransmission() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let datagram = relay.signed(&mut client, Method::ALLOCATE, |request| request.with(&UDP));
    relay.answer(&client, &datagram).expect_success(&client);
    let other = Client::alice("203.0.113.8:41000");
    assert_eq!(relay.answer(&other, &datagram).code(), 438, "a nonce is for one IP address");
    // From another port it is another request: another allocation, at another relayed address.
    let neighbour = Client::alice("203.0.113.7:41001");
    let answer = relay.answer(&neighbour, &datagram);
    answer.expect_success(&neighbour);
    assert_eq!(relay.server.allocations(), 2);
}
