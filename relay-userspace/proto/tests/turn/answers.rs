//! What all answers have, and what none has.

use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, Attribute, EvenPort, Lifetime, Nonce, Realm, Software, Username,
};
use hairpin_proto::stun::{Class, MessageBuilder, Method};

use crate::harness::{Answer, Client, Relay, UDP};

const AT: &str = "203.0.113.7:41000";
/// What a datagram can hold that every IPv4 host takes in one piece.
const LEAST: usize = 576 - 20 - 8;

/// The challenge, and an answer to each request that succeeds and to one that fails.
fn all_answers() -> (Client, Answer, Vec<Answer>) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    client.fingerprint = true;
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Request, Method::ALLOCATE, relay.transaction_id()).finish(true);
    let challenge = relay.answer(&client, &datagram);
    let dual = AdditionalAddressFamily(Ok(hairpin_proto::address::AddressFamily::V6));
    let pair = EvenPort { reserve_next: true };
    let answers = vec![
        relay.request(&mut client, Method::ALLOCATE, |request| request),
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&pair)),
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP)),
        relay.permit(&mut client, &["8.8.8.8:53"]),
        relay.permit(&mut client, &["127.0.0.1:53"]),
        relay.bind_channel(&mut client, 0x4000, "8.8.8.8:53"),
        relay.bind_channel(&mut client, 0x4001, "8.8.8.8:53"),
        relay.refresh(&mut client, 0),
        relay.refresh(&mut client, 600),
        relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&dual)),
        relay.request(&mut client, Method::REFRESH, |request| request.with(&Lifetime(600)).with(&Strange)),
    ];
    let codes: Vec<_> = answers.iter().map(Answer::code).collect();
    assert_eq!(codes, [400, 200, 437, 200, 403, 200, 400, 200, 437, 200, 420]);
    (client, challenge, answers)
}

/// An attribute that has to be understood, and is not.
struct Strange;

impl Attribute<'_> for Strange {
    const TYPE: u16 = 0x7ffe;

    fn decode(
        _: &[u8],
        _: &hairpin_proto::stun::TransactionId,
    ) -> Result<Self, hairpin_proto::stun::attribute::AttributeError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Vec<u8>, _: &hairpin_proto::stun::TransactionId) {}
}

#[test]
fn answers_to_those_who_are_known_are_signed_and_do_not_repeat_who_they_are() {
    let (client, _, answers) = all_answers();
    for answer in answers {
        let message = answer.message();
        assert!(message.verify_integrity(&client.key), "{answer:?}");
        for kind in [Username::TYPE, Realm::TYPE, Nonce::TYPE] {
            assert_eq!(message.find(kind), None, "{answer:?}");
        }
    }
}

#[test]
fn the_software_is_told_to_those_who_are_known_whether_they_succeed_or_not() {
    let (_, challenge, answers) = all_answers();
    for answer in answers {
        assert_eq!(answer.message().attribute(), Ok(Some(Software("hairpin test"))), "{answer:?}");
    }
    assert_eq!(challenge.message().find(Software::TYPE), None, "kept short for strangers");
}

#[test]
fn no_answer_needs_to_be_fragmented() {
    let (_, challenge, answers) = all_answers();
    for answer in answers.iter().chain([&challenge]) {
        assert!(answer.bytes.len() <= LEAST, "{} bytes", answer.bytes.len());
    }
    let Ok(Some(Nonce(nonce))) = challenge.message().attribute() else { panic!("{challenge:?}") };
    assert!(nonce.len() < 128, "{nonce}");
}
