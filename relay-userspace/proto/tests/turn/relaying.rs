//! Send indications, and who may use what at which time.

use hairpin_proto::stun::attribute::{Attribute, AttributeError, Data, DontFragment, XorPeerAddress};
use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};
use hairpin_proto::turn::{Discard, Disposition, Forward, RelayId};

use crate::harness::{Client, Relay, channel_data, dropped, framed, send_indication, socket};

const AT: &str = "203.0.113.7:41000";
const PEER: &str = "8.8.8.8:53";

fn permitted() -> (Relay, Client, RelayId) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    (relay, client, id)
}

fn indication(attributes: fn(MessageBuilder<'_>) -> MessageBuilder<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    attributes(MessageBuilder::new(&mut datagram, Class::Indication, Method::SEND, TransactionId([3; 12])))
        .finish(true);
    datagram
}

fn peer() -> XorPeerAddress {
    XorPeerAddress(socket(PEER))
}

#[test]
fn a_send_indication_needs_peer_and_data() {
    let (mut relay, client, _) = permitted();
    let bad: [fn(MessageBuilder<'_>) -> MessageBuilder<'_>; 5] = [
        |message| message,
        |message| message.with(&peer()),
        |message| message.with(&Data(b"out")),
        |message| message.with(&peer()).with(&Data(b"out")).with(&Unknown),
        |message| message.with(&XorPeerAddress(socket("8.8.8.8:0"))).with(&Data(b"out")),
    ];
    for (case, attributes) in bad.into_iter().enumerate() {
        let datagram = indication(attributes);
        assert_eq!(relay.client_sends(&client, &datagram), dropped(Discard::BadIndication), "case {case}");
    }
    assert_eq!(relay.drain(), [], "an indication is never answered");
}

struct Unknown;

impl Attribute<'_> for Unknown {
    const TYPE: u16 = 0x0026;

    fn decode(_: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Vec<u8>, _: &TransactionId) {}
}

#[test]
fn dont_fragment_reaches_the_driver() {
    let (mut relay, client, id) = permitted();
    let plain = indication(|message| message.with(&peer()).with(&Data(b"out")));
    let unfragmented = indication(|message| message.with(&peer()).with(&DontFragment).with(&Data(b"out")));
    for (datagram, expected) in [(plain, false), (unfragmented, true)] {
        let Disposition::Forward(Forward::ToPeer { relay, payload, dont_fragment, .. }) =
            relay.client_sends(&client, &datagram)
        else {
            panic!("not forwarded");
        };
        assert_eq!((relay, payload, dont_fragment), (id, &b"out"[..], expected));
    }
}

#[test]
fn nobody_else_can_use_an_allocation() {
    let (mut relay, client, _) = permitted();
    let datagram = send_indication(PEER, b"out");
    for at in ["203.0.113.7:41001", "203.0.113.8:41000"] {
        assert_eq!(relay.client_sends(&Client::alice(at), &datagram), dropped(Discard::NoAllocation));
    }
    let mut other_server = client;
    other_server.five_tuple.server = hairpin_proto::address::ServerAddr::new(socket("192.0.2.15:3479"));
    assert_eq!(relay.client_sends(&other_server, &datagram), dropped(Discard::NoAllocation));
}

#[test]
fn a_mapped_address_is_the_address_that_it_maps() {
    let (mut relay, client, id) = permitted();
    let mapped = send_indication("[::ffff:8.8.8.8]:53", b"out");
    let Disposition::Forward(Forward::ToPeer { relay: through, peer, .. }) = relay.client_sends(&client, &mapped)
    else {
        panic!("not forwarded");
    };
    assert_eq!((through, peer.socket()), (id, socket(PEER)));
    assert_eq!(
        relay.client_sends(&client, &send_indication("[::ffff:127.0.0.1]:53", b"out")),
        dropped(Discard::ForbiddenPeer)
    );
    assert_eq!(
        relay.client_sends(&client, &send_indication("[2001:db8::1]:53", b"out")),
        dropped(Discard::FamilyMismatch)
    );
}

#[test]
fn an_allocation_that_is_over_carries_nothing_even_if_the_timer_is_late() {
    let (mut relay, mut client, id) = permitted();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    relay.pass(400);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.sleep(199);
    assert!(matches!(relay.client_sends(&client, &channel_data(0x4000, b"")), Disposition::Forward(_)));
    relay.sleep(1);
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"")), dropped(Discard::NoAllocation));
    assert_eq!(relay.client_sends(&client, &send_indication(PEER, b"")), dropped(Discard::NoAllocation));
    assert_eq!(relay.peer_sends(id, PEER, b""), dropped(Discard::NoAllocation));
}

#[test]
fn a_datagram_at_a_relayed_address_that_is_gone_is_dropped() {
    let (mut relay, mut client, id) = permitted();
    relay.refresh(&mut client, 0).expect_success(&client);
    assert_eq!(relay.peer_sends(id, PEER, b"in"), dropped(Discard::NoAllocation));
    assert_eq!(relay.peer_sends(RelayId(77), PEER, b"in"), dropped(Discard::NoAllocation));
}

#[test]
fn the_longest_datagram_that_fits_is_relayed_and_a_longer_one_is_dropped() {
    let (mut relay, mut client, id) = permitted();
    let payload = vec![0xaa; 65_507];
    // STUN header, XOR-PEER-ADDRESS, and the header of DATA.
    let longest = 65_507 / 4 * 4 - (20 + 12 + 4);
    let datagram = framed(relay.peer_sends(id, PEER, &payload[..longest]));
    assert!(hairpin_proto::stun::Message::parse(&datagram).is_ok());
    assert_eq!(relay.peer_sends(id, PEER, &payload[..=longest]), dropped(Discard::TooLong));
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    assert_eq!(framed(relay.peer_sends(id, PEER, &payload[..65_503])).len(), 65_507);
    assert_eq!(relay.peer_sends(id, PEER, &payload), dropped(Discard::TooLong));
}
