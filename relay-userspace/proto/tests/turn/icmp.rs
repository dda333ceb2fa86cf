//! ICMP packets about datagrams to peers (RFC 8656 section 11.5).

use hairpin_proto::address::{AddressFamily, PeerAddr};
use hairpin_proto::stun::attribute::{
    AdditionalAddressFamily, Data, Icmp, Lifetime, RequestedAddressFamily, XorPeerAddress,
};
use hairpin_proto::stun::{Class, Message, Method};
use hairpin_proto::turn::{Discard, Disposition, IcmpError, RelayId};

use crate::harness::{Client, Event, RELAY_V4, Relay, UDP, dropped, socket};

const AT: &str = "203.0.113.7:41000";
const PEER_V4: &str = "8.8.8.8:53";
const PEER_V6: &str = "[2001:db8::53]:53";

/// A dual allocation with a permission in each family, and its relayed addresses, IPv4 first.
fn permitted() -> (Relay, Client, [RelayId; 2]) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let dual = AdditionalAddressFamily(Ok(AddressFamily::V6));
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&dual)).expect_success(&client);
    relay.permit(&mut client, &[PEER_V4, PEER_V6]).expect_success(&client);
    let mut ids = [RelayId(u32::MAX); 2];
    for (id, address) in &relay.sockets {
        ids[usize::from(address.ip().to_string() != RELAY_V4)] = *id;
    }
    (relay, client, ids)
}

fn complain(relay: &mut Relay, id: RelayId, peer: &str, (kind, code, mtu): (u8, u8, u32)) -> Disposition<'static> {
    relay.server.peer_error(relay.now, id, PeerAddr::new(socket(peer)), IcmpError { kind, code, mtu })
}

/// What the client is told.
fn told(relay: &mut Relay, client: &Client, id: RelayId, peer: &str, error: (u8, u8, u32)) -> Icmp {
    assert_eq!(complain(relay, id, peer, error), Disposition::Control);
    assert_eq!(relay.drain(), [Event::Response(client.five_tuple.client)]);
    let bytes = relay.responses.pop().expect("there was a message");
    let message = Message::parse(&bytes).expect("a well-formed message");
    assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
    assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(socket(peer)))));
    assert_eq!(message.attribute::<Data<'_>>(), Ok(None), "there is no data");
    assert_eq!(message.attributes().count(), 2);
    message.attribute().unwrap().expect("the ICMP attribute")
}

#[test]
fn a_client_is_told_type_and_code_and_of_what_was_too_big_the_mtu() {
    let (mut relay, client, [v4, v6]) = permitted();
    let cases = [
        (v4, PEER_V4, (3, 3, 7), 0),
        (v4, PEER_V4, (3, 1, 7), 0),
        (v4, PEER_V4, (3, 4, 1400), 1400),
        (v4, PEER_V4, (11, 0, 7), 0),
        (v4, PEER_V4, (11, 4, 7), 0),
        (v6, PEER_V6, (1, 4, 7), 0),
        (v6, PEER_V6, (2, 0, 1280), 1280),
        (v6, PEER_V6, (3, 0, 7), 0),
        (v6, PEER_V6, (3, 4, 7), 0),
    ];
    for (id, peer, error, error_data) in cases {
        let icmp = told(&mut relay, &client, id, peer, error);
        assert_eq!(icmp, Icmp { kind: error.0, code: error.1.into(), error_data }, "{peer} {error:?}");
    }
    relay.shut_down();
}

#[test]
fn a_permission_is_for_every_port_and_a_channel_changes_nothing() {
    let (mut relay, mut client, [v4, _]) = permitted();
    relay.bind_channel(&mut client, 0x4000, PEER_V4).expect_success(&client);
    for peer in [PEER_V4, "8.8.8.8:1", "8.8.8.8:65535"] {
        assert_eq!(told(&mut relay, &client, v4, peer, (3, 3, 0)).kind, 3);
    }
}

#[test]
fn types_of_no_interest_and_those_of_the_other_family_are_dropped() {
    let (mut relay, _, [v4, v6]) = permitted();
    for kind in 0..=u8::MAX {
        let (of_v4, of_v6) = ([3, 11].contains(&kind), [1, 2, 3].contains(&kind));
        for (id, peer, counts) in [(v4, PEER_V4, of_v4), (v6, PEER_V6, of_v6)] {
            let expected = if counts { Disposition::Control } else { dropped(Discard::OtherIcmp) };
            assert_eq!(complain(&mut relay, id, peer, (kind, 0, 0)), expected, "type {kind}, {peer}");
        }
    }
}

#[test]
fn an_error_about_a_peer_without_a_permission_reaches_nobody() {
    let (mut relay, _, [v4, v6]) = permitted();
    assert_eq!(complain(&mut relay, v4, "8.8.4.4:53", (3, 3, 0)), dropped(Discard::NoPermission));
    relay.sleep(299);
    assert_eq!(complain(&mut relay, v6, PEER_V6, (1, 4, 0)), Disposition::Control);
    relay.drain();
    // Not a timer, but the time itself ends it.
    relay.sleep(1);
    assert_eq!(complain(&mut relay, v4, PEER_V4, (3, 3, 0)), dropped(Discard::NoPermission));
    assert_eq!(complain(&mut relay, v6, PEER_V6, (1, 4, 0)), dropped(Discard::NoPermission));
    assert_eq!(relay.drain(), []);
}

#[test]
fn an_error_at_a_relayed_address_that_is_gone_reaches_nobody() {
    let (mut relay, mut client, [v4, v6]) = permitted();
    let only_v6 = RequestedAddressFamily(Ok(AddressFamily::V6));
    relay
        .request(&mut client, Method::REFRESH, |request| request.with(&Lifetime(0)).with(&only_v6))
        .expect_success(&client);
    assert_eq!(complain(&mut relay, v6, PEER_V6, (1, 4, 0)), dropped(Discard::NoAllocation));
    assert_eq!(complain(&mut relay, RelayId(99), PEER_V4, (3, 3, 0)), dropped(Discard::NoAllocation));
    relay.pass(299);
    relay.permit(&mut client, &[PEER_V4]).expect_success(&client);
    relay.pass(200);
    relay.permit(&mut client, &[PEER_V4]).expect_success(&client);
    relay.sleep(101);
    assert_eq!(complain(&mut relay, v4, PEER_V4, (3, 3, 0)), dropped(Discard::NoAllocation));
}
