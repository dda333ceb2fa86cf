//! CreatePermission (RFC 8656 sections 9 and 10).

use hairpin_proto::stun::attribute::XorPeerAddress;
use hairpin_proto::stun::{Class, MessageBuilder, Method};
use hairpin_proto::turn::{Discard, Disposition, RelayId};

use crate::harness::{
    Client, Event, PUBLIC_V4, RELAY_V6, Relay, config, delivered, dropped, framed, send_indication, socket,
};

const AT: &str = "203.0.113.7:41000";

fn allocated() -> (Relay, Client, RelayId) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    (relay, client, id)
}

#[test]
fn a_permission_opens_both_ways_for_every_port_of_an_address_for_five_minutes() {
    let (mut relay, mut client, id) = allocated();
    relay.refresh(&mut client, 3600);
    relay.permit(&mut client, &["8.8.8.8:1"]).expect_success(&client);
    relay.sleep(299);
    for peer in ["8.8.8.8:2", "8.8.8.8:65535"] {
        assert_eq!(
            delivered(relay.client_sends(&client, &send_indication(peer, b"out"))),
            (id, socket(peer), &b"out"[..])
        );
        assert!(matches!(relay.peer_sends(id, peer, b"in"), Disposition::Forward(_)));
    }
    assert_eq!(relay.client_sends(&client, &send_indication("8.8.8.9:1", b"out")), dropped(Discard::NoPermission));
    assert_eq!(relay.peer_sends(id, "8.8.8.9:1", b"in"), dropped(Discard::NoPermission));

    // Not a timer, but the time itself ends it.
    relay.sleep(1);
    assert_eq!(relay.client_sends(&client, &send_indication("8.8.8.8:1", b"out")), dropped(Discard::NoPermission));
    assert_eq!(relay.peer_sends(id, "8.8.8.8:1", b"in"), dropped(Discard::NoPermission));
}

#[test]
fn data_does_not_prolong_a_permission_but_a_request_does() {
    let (mut relay, mut client, id) = allocated();
    relay.refresh(&mut client, 3600);
    relay.permit(&mut client, &["8.8.8.8:0"]).expect_success(&client);
    relay.pass(200);
    delivered(relay.client_sends(&client, &send_indication("8.8.8.8:53", b"")));
    relay.permit(&mut client, &["8.8.8.8:0"]).expect_success(&client);
    relay.pass(299);
    delivered(relay.client_sends(&client, &send_indication("8.8.8.8:53", b"")));
    relay.pass(1);
    assert_eq!(relay.peer_sends(id, "8.8.8.8:53", b"in"), dropped(Discard::NoPermission));
}

#[test]
fn one_request_may_name_several_peers_and_gives_all_permissions_or_none() {
    let (mut relay, mut client, id) = allocated();
    relay.permit(&mut client, &["8.8.8.8:1", "8.8.4.4:1", "8.8.8.8:2"]).expect_success(&client);
    for peer in ["8.8.8.8:53", "8.8.4.4:53"] {
        assert!(matches!(relay.peer_sends(id, peer, b"in"), Disposition::Forward(_)), "{peer}");
    }
    relay.permit(&mut client, &["1.1.1.1:1", "10.0.0.1:1"]).expect_error(&client, 403);
    relay.permit(&mut client, &["1.1.1.1:1", "[2001:db8::1]:1"]).expect_error(&client, 443);
    assert_eq!(relay.peer_sends(id, "1.1.1.1:53", b"in"), dropped(Discard::NoPermission));
}

#[test]
fn a_request_without_a_peer_or_with_a_broken_one_is_bad() {
    let (mut relay, mut client, id) = allocated();
    relay.permit(&mut client, &[]).expect_error(&client, 400);
    let good = XorPeerAddress(socket("8.8.8.8:53"));
    relay
        .request(&mut client, Method::CREATE_PERMISSION, |request| request.with(&good).with(&broken::BrokenPeer))
        .expect_error(&client, 400);
    assert_eq!(relay.peer_sends(id, "8.8.8.8:53", b"in"), dropped(Discard::NoPermission));
}

mod broken {
    use hairpin_proto::stun::TransactionId;
    use hairpin_proto::stun::attribute::{Attribute, AttributeError, XorPeerAddress};

    /// XOR-PEER-ADDRESS of a family that does not exist.
    pub(super) struct BrokenPeer;

    impl Attribute<'_> for BrokenPeer {
        const TYPE: u16 = XorPeerAddress::TYPE;

        fn decode(_: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
            Ok(Self)
        }

        fn encode(&self, out: &mut Vec<u8>, _: &TransactionId) {
            out.extend_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0]);
        }
    }
}

#[test]
fn without_an_allocation_there_is_nothing_to_permit() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    relay.permit(&mut client, &["8.8.8.8:53"]).expect_error(&client, 437);
}

#[test]
fn peers_that_the_policy_forbids_are_refused_in_every_disguise() {
    let (mut relay, mut client, _) = allocated();
    for peer in ["127.0.0.1:53", "10.0.0.1:53", "0.0.0.0:53", "169.254.169.254:80", "[::ffff:127.0.0.1]:53"] {
        relay.permit(&mut client, &[peer]).expect_error(&client, 403);
    }
    let mut v6 = Client::alice("203.0.113.7:41001");
    let family = hairpin_proto::stun::attribute::RequestedAddressFamily(Ok(hairpin_proto::address::AddressFamily::V6));
    relay
        .request(&mut v6, Method::ALLOCATE, |request| request.with(&crate::harness::UDP).with(&family))
        .expect_success(&v6);
    for peer in ["[::1]:53", "[::]:53", "[64:ff9b::7f00:1]:53", "[2002:7f00:1::]:53", "[fe80::1]:53", "[fc00::1]:53"] {
        relay.permit(&mut v6, &[peer]).expect_error(&v6, 403);
    }
    relay.permit(&mut v6, &["[::ffff:8.8.8.8]:53"]).expect_error(&v6, 443);
}

#[test]
fn a_permission_for_the_relay_itself_reaches_relayed_addresses_only() {
    let (mut relay, mut client, id) = allocated();
    let mut other = Client::alice("203.0.113.7:41001");
    let other_id = relay.allocate(&mut other);
    let other_address = format!("{PUBLIC_V4}:{}", relay.sockets[&other_id].port());
    relay.permit(&mut client, &[&format!("{PUBLIC_V4}:0")]).expect_success(&client);
    assert_eq!(delivered(relay.client_sends(&client, &send_indication(&other_address, b"hi"))).0, id);
    for service in [22, 53, 3478] {
        let datagram = send_indication(&format!("{PUBLIC_V4}:{service}"), b"hi");
        assert_eq!(relay.client_sends(&client, &datagram), dropped(Discard::ForbiddenPeer));
        relay.bind_channel(&mut client, 0x4000, &format!("{PUBLIC_V4}:{service}")).expect_error(&client, 403);
    }
    relay.bind_channel(&mut client, 0x4000, &other_address).expect_success(&client);
}

#[test]
fn the_family_is_asked_for_before_the_policy() {
    let (mut relay, mut client, _) = allocated();
    relay.permit(&mut client, &[&format!("[{RELAY_V6}]:53")]).expect_error(&client, 443);
}

#[test]
fn permissions_are_limited_and_a_refused_request_gives_none() {
    let mut config = config();
    config.settings.limits.permissions = 2;
    let mut relay = Relay::new(config);
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.permit(&mut client, &["8.8.8.1:0", "8.8.8.2:0", "8.8.8.3:0"]).expect_error(&client, 508);
    assert_eq!(relay.peer_sends(id, "8.8.8.1:53", b"in"), dropped(Discard::NoPermission));
    relay.permit(&mut client, &["8.8.8.1:0", "8.8.8.1:1", "8.8.8.2:0"]).expect_success(&client);
    relay.permit(&mut client, &["8.8.8.1:0", "8.8.8.2:0"]).expect_success(&client);
    relay.permit(&mut client, &["8.8.8.3:0"]).expect_error(&client, 508);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.3:53").expect_error(&client, 508);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.2:53").expect_success(&client);
    relay.pass(300);
    relay.permit(&mut client, &["8.8.8.3:0"]).expect_success(&client);
}

#[test]
fn a_datagram_of_a_peer_becomes_a_data_indication() {
    let (mut relay, mut client, id) = allocated();
    relay.permit(&mut client, &["8.8.8.8:0"]).expect_success(&client);
    let mut ids = std::collections::BTreeSet::new();
    for payload in [&b""[..], b"1", b"12", b"123", b"1234", &[0xaa; 1200]] {
        let datagram = framed(relay.peer_sends(id, "8.8.8.8:53", payload));
        let message = hairpin_proto::stun::Message::parse(&datagram).expect("a well-formed message");
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
        assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(socket("8.8.8.8:53")))));
        assert_eq!(message.attribute(), Ok(Some(hairpin_proto::stun::attribute::Data(payload))));
        // The codec writes the same.
        let mut expected = Vec::new();
        MessageBuilder::new(&mut expected, Class::Indication, Method::DATA, message.transaction_id())
            .with(&XorPeerAddress(socket("8.8.8.8:53")))
            .with(&hairpin_proto::stun::attribute::Data(payload))
            .finish(false);
        assert_eq!(datagram, expected);
        assert!(ids.insert(message.transaction_id().0), "a transaction id comes twice");
    }
    assert_eq!(relay.drain(), Vec::<Event>::new());
}
