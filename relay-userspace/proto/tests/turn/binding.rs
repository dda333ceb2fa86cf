//! Binding, and messages that are none of the server's business.

use hairpin_proto::address::Transport;
use hairpin_proto::stun::attribute::{Attribute, ErrorCodeAttribute, Software, UnknownAttributes, XorMappedAddress};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_proto::turn::{Discard, Disposition};

use crate::harness::{Client, Relay, dropped, socket};

const ID: TransactionId = TransactionId([7; 12]);

/// An attribute of any type, with four bytes.
struct Opaque<const KIND: u16>;

impl<const KIND: u16> Attribute<'_> for Opaque<KIND> {
    const TYPE: u16 = KIND;

    fn decode(_: &[u8], _: &TransactionId) -> Result<Self, hairpin_proto::stun::attribute::AttributeError> {
        Ok(Self)
    }

    fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
        out.extend_from_slice(&[1, 2, 3, 4]);
    }
}

fn message(class: Class, method: Method, attributes: fn(MessageBuilder<'_>) -> MessageBuilder<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    attributes(MessageBuilder::new(&mut datagram, class, method, ID)).finish(false);
    datagram
}

#[test]
fn everybody_is_told_its_address() {
    for address in ["203.0.113.7:41000", "[2001:db8::7]:41000"] {
        let mut relay = Relay::default();
        let client = Client::alice(address);
        let answer = relay.answer(&client, &message(Class::Request, Method::BINDING, |request| request));
        assert_eq!(answer.code(), 200);
        assert_eq!(answer.message().attribute(), Ok(Some(XorMappedAddress(socket(address)))));
        assert_eq!(answer.message().find(Software::TYPE), None, "kept short for strangers");
        assert_eq!(answer.events, []);
    }
}

#[test]
fn a_fingerprint_is_answered_with_one() {
    let mut relay = Relay::default();
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::BINDING, ID).finish(true);
    let answer = relay.answer(&Client::alice("203.0.113.7:41000"), &request);
    assert!(answer.message().has_fingerprint());
}

#[test]
fn unknown_attributes_are_named_once_each_and_optional_ones_are_ignored() {
    let mut relay = Relay::default();
    // CHANGE-REQUEST of RFC 5780 (0x0003) is what a client may really send to find out.
    let request = message(Class::Request, Method::BINDING, |request| {
        request.with(&Opaque::<0x0003>).with(&Opaque::<0x7fff>).with(&Opaque::<0x0003>).with(&Opaque::<0xc001>)
    });
    let answer = relay.answer(&Client::alice("203.0.113.7:41000"), &request);
    assert_eq!(answer.code(), 420);
    let unknown: UnknownAttributes<'_> = answer.message().attribute().unwrap().unwrap();
    assert_eq!(unknown.0, [[0x00, 0x03], [0x7f, 0xff]]);
}

#[test]
fn attributes_that_are_known_but_have_no_place_here_are_ignored() {
    let mut relay = Relay::default();
    let request = message(Class::Request, Method::BINDING, |request| {
        request.with(&Opaque::<0x000d>).with(&Opaque::<0x0001>).with(&Opaque::<0x8022>)
    });
    assert_eq!(relay.answer(&Client::alice("203.0.113.7:41000"), &request).code(), 200);
}

#[test]
fn the_list_of_unknown_attributes_never_makes_the_answer_longer_than_the_question() {
    let mut relay = Relay::default();
    let mut request = vec![0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend_from_slice(&ID.0);
    for kind in 0x4000..0x4100_u16 {
        request.extend_from_slice(&kind.to_be_bytes());
        request.extend_from_slice(&[0, 0]);
    }
    let length = request.len() as u16 - 20;
    request[2..4].copy_from_slice(&length.to_be_bytes());
    let answer = relay.answer(&Client::alice("203.0.113.7:41000"), &request);
    assert_eq!(answer.code(), 420);
    assert!(answer.bytes.len() < 120, "{} bytes", answer.bytes.len());
}

#[test]
fn messages_that_a_server_has_no_use_for_are_dropped() {
    let mut relay = Relay::default();
    let client = Client::alice("203.0.113.7:41000");
    let mut unexpected: Vec<(Class, Method)> = Vec::new();
    for method in [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::CHANNEL_BIND, Method::SEND, Method::DATA]
    {
        unexpected.extend([(Class::Success, method), (Class::Error, method)]);
    }
    unexpected.extend([Method::BINDING, Method::ALLOCATE, Method::DATA].map(|method| (Class::Indication, method)));
    unexpected.extend([Method::SEND, Method::DATA].map(|method| (Class::Request, method)));
    for (class, method) in unexpected {
        let datagram = message(class, method, |message| message);
        assert_eq!(relay.client_sends(&client, &datagram), dropped(Discard::Unexpected), "{class:?} {method:?}");
    }
    // Connect of RFC 6062, a method that is not served (yet).
    let connect = [&[0x00, 0x0a, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &ID.0].concat();
    assert_eq!(relay.client_sends(&client, &connect), dropped(Discard::Unexpected));
    assert_eq!(relay.drain(), []);
}

#[test]
fn what_is_not_turn_is_dropped_by_its_kind() {
    let mut relay = Relay::default();
    let client = Client::alice("203.0.113.7:41000");
    assert_eq!(relay.client_sends(&client, &[]), dropped(Discard::NotTurn));
    assert_eq!(relay.client_sends(&client, &[0x16, 0xfe, 0xfd, 0]), dropped(Discard::NotTurn), "DTLS");
    assert_eq!(relay.client_sends(&client, &[0x80, 0x60]), dropped(Discard::NotTurn), "RTP");
    assert_eq!(relay.client_sends(&client, &[0x00, 0x01]), dropped(Discard::MalformedStun));
    assert_eq!(relay.client_sends(&client, &[0x40]), dropped(Discard::MalformedChannelData));
}

#[test]
fn requests_and_responses_are_counted() {
    let mut relay = Relay::default();
    let mut client = Client::alice("203.0.113.7:41000");
    relay.answer(&client, &message(Class::Request, Method::BINDING, |request| request));
    relay.allocate(&mut client);
    let counts = relay.server.message_counts();
    let requests: Vec<_> = counts.requests().filter(|(_, count)| *count > 0).collect();
    assert_eq!(requests, [("binding", 1), ("allocate", 1), ("refresh", 1)]);
    let responses: Vec<_> = counts.responses().collect();
    assert_eq!(responses, [(("binding", 200), 1), (("allocate", 200), 1), (("refresh", 401), 1)]);
}

#[test]
fn an_answer_to_a_stranger_is_not_much_longer_than_its_question() {
    let mut relay = Relay::default();
    let request = message(Class::Request, Method::ALLOCATE, |request| request);
    let answer = relay.answer(&Client::alice("203.0.113.7:41000"), &request);
    let reason = Message::parse(&answer.bytes).unwrap().attribute::<ErrorCodeAttribute<'_>>().unwrap().unwrap().reason;
    assert_eq!((answer.code(), reason), (401, "Unauthenticated"));
    assert!(answer.bytes.len() <= 132, "{} bytes", answer.bytes.len());
}

#[test]
fn a_request_without_magic_cookie_is_answered_by_500_over_dtls_and_dropped_elsewhere() {
    let request = [&[0x00, 0x01, 0, 4][..], &[0x11; 16], &[0x80, 0x22, 0, 0]].concat();
    for transport in Transport::ALL {
        let mut relay = Relay::default();
        let mut client = Client::alice("203.0.113.7:41000");
        client.five_tuple.transport = transport;
        let disposition = relay.client_sends(&client, &request);
        if transport == Transport::Dtls {
            assert_eq!(disposition, Disposition::Control);
            assert_eq!(relay.drain().len(), 1);
            let mut response = relay.responses.pop().unwrap();
            assert_eq!((&response[..2], &response[4..20]), (&[0x01, 0x11][..], &[0x11; 16][..]));
            response[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            let error = Message::parse(&response).unwrap().attribute::<ErrorCodeAttribute<'_>>().unwrap().unwrap();
            assert_eq!(error.code.number(), 500);
        } else {
            assert_eq!(disposition, dropped(Discard::MalformedStun), "{transport}");
        }
        // An indication, a response, and two that contradict their lengths.
        for (at, byte) in [(1, 0x11), (0, 0x01), (3, 0), (3, 8)] {
            let mut other = request.clone();
            other[at] = byte;
            assert_eq!(relay.client_sends(&client, &other), dropped(Discard::MalformedStun), "{transport}, {at}");
        }
        assert_eq!(relay.client_sends(&client, &request[..19]), dropped(Discard::MalformedStun), "{transport}");
        assert_eq!(relay.drain(), []);
    }
}
