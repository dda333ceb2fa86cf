//! Behind a 1:1 NAT: what is public, what is bound, and who sees which.

use std::net::{IpAddr, SocketAddr};

use hairpin_proto::address::PeerAddr;
use hairpin_proto::stun::Method;
use hairpin_proto::turn::{Discard, RelayAddress, RelayId, Translation, TranslationError};
use proptest::prelude::*;

use crate::harness::{
    Client, PUBLIC_V4, RELAY_V4, RELAY_V6, Relay, UDP, channel_data, config, delivered, dropped, framed,
    send_indication, socket,
};

fn address(bind: &str, public: &str) -> RelayAddress {
    RelayAddress { bind: bind.parse().unwrap(), public: public.parse().unwrap() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An allocation, and the relayed address that its client was told.
fn allocate(relay: &mut Relay, client: &mut Client) -> (RelayId, String) {
    let answer = relay.request(client, Method::ALLOCATE, |request| request.with(&UDP));
    let [relayed] = answer.relayed()[..] else { panic!("{answer:?}") };
    (answer.bound(), relayed.to_string())
}

/// What becomes of a datagram that a client sends to a relayed address of the same relay: the driver translates where it
/// sends to, and whom the datagram has come from.
fn hairpin(relay: &mut Relay, translation: &Translation, from: &Client, datagram: &[u8]) -> Vec<u8> {
    let (sender, peer, payload) = delivered(relay.client_sends(from, datagram));
    let payload = payload.to_vec();
    let inside = translation.inside(peer);
    let (receiver, _) = relay.sockets.iter().find(|(_, bound)| bound.socket() == inside).expect("it is bound here");
    let source = translation.outside(relay.sockets[&sender].socket());
    framed(relay.server.peer_datagram(relay.now, *receiver, PeerAddr::new(source), &payload))
}

#[test]
fn clients_reach_each_other_through_their_public_addresses() {
    let mut relay = Relay::default();
    let translation = Translation::new(&config().settings.relay_addresses).unwrap();
    let (mut alice, mut bob) = (Client::alice("203.0.113.7:41000"), Client::new("203.0.113.8:41000", "bob", "hunter2"));
    let (alice_id, alices) = allocate(&mut relay, &mut alice);
    let (_, bobs) = allocate(&mut relay, &mut bob);
    assert!(alices.starts_with(PUBLIC_V4) && bobs.starts_with(PUBLIC_V4));
    assert_eq!(relay.sockets[&alice_id].ip().to_string(), RELAY_V4);

    relay.permit(&mut alice, &[&bobs]).expect_success(&alice);
    relay.permit(&mut bob, &[&alices]).expect_success(&bob);
    let data = hairpin(&mut relay, &translation, &alice, &send_indication(&bobs, b"hello"));
    let data = hairpin_proto::stun::Message::parse(&data).unwrap();
    assert_eq!(data.attribute(), Ok(Some(hairpin_proto::stun::attribute::XorPeerAddress(socket(&alices)))));

    relay.bind_channel(&mut alice, 0x4000, &bobs).expect_success(&alice);
    relay.bind_channel(&mut bob, 0x4001, &alices).expect_success(&bob);
    let data = hairpin(&mut relay, &translation, &alice, &channel_data(0x4000, b"hello"));
    assert_eq!(data, channel_data(0x4001, b"hello"));
    let data = hairpin(&mut relay, &translation, &bob, &channel_data(0x4001, b"there"));
    assert_eq!(data, channel_data(0x4000, b"there"));
    relay.shut_down();
}

#[test]
fn what_is_bound_to_is_no_peer() {
    let mut config = config();
    // Its network may be, the relay itself is not.
    config.settings.peer_policy.allow("192.0.2.0/24".parse().unwrap());
    let mut relay = Relay::new(config);
    let (mut alice, mut bob) = (Client::alice("203.0.113.7:41000"), Client::alice("203.0.113.8:41000"));
    relay.allocate(&mut alice);
    let (bob_id, bobs) = allocate(&mut relay, &mut bob);
    let bound = relay.sockets[&bob_id].socket().to_string();
    relay.permit(&mut alice, &[&bound]).expect_error(&alice, 403);
    relay.permit(&mut alice, &[&bobs, &bound]).expect_error(&alice, 403);
    relay.bind_channel(&mut alice, 0x4000, &bound).expect_error(&alice, 403);
    relay.permit(&mut alice, &[&bobs, "192.0.2.99:1"]).expect_success(&alice);
    assert_eq!(relay.client_sends(&alice, &send_indication(&bound, b"x")), dropped(Discard::ForbiddenPeer));
    relay.shut_down();
}

#[test]
fn only_relayed_ports_of_a_public_address_are_peers() {
    let mut relay = Relay::default();
    let mut alice = Client::alice("203.0.113.7:41000");
    relay.allocate(&mut alice);
    relay.permit(&mut alice, &[&format!("{PUBLIC_V4}:0")]).expect_success(&alice);
    let service = format!("{PUBLIC_V4}:3478");
    assert_eq!(relay.client_sends(&alice, &send_indication(&service, b"x")), dropped(Discard::ForbiddenPeer));
    relay.bind_channel(&mut alice, 0x4000, &service).expect_error(&alice, 403);
    relay.shut_down();
}

#[test]
fn each_address_is_translated_both_ways_and_all_others_stay_as_they_are() {
    let addresses = [address("10.0.0.5", "8.8.8.8"), address("fd00::5", "2a00::5"), address("8.8.4.4", "8.8.4.4")];
    let translation = Translation::new(&addresses).unwrap();
    for (bound, public) in [("10.0.0.5:50000", "8.8.8.8:50000"), ("[fd00::5]:1", "[2a00::5]:1")] {
        let (bound, public) = (socket(bound), socket(public));
        assert_eq!((translation.inside(public), translation.outside(bound)), (bound, public));
        assert_eq!((translation.inside(bound), translation.outside(public)), (bound, public));
    }
    assert_eq!(translation.inside(socket("[::ffff:8.8.8.8]:7")), socket("10.0.0.5:7"));
    assert_eq!(translation.outside(socket("[::ffff:10.0.0.5]:7")), socket("8.8.8.8:7"));
    for other in ["8.8.4.4:1", "10.0.0.6:1", "1.1.1.1:1", "[fd00::6]:1"].map(socket) {
        assert_eq!((translation.inside(other), translation.outside(other)), (other, other));
    }
    let identity = Translation::default();
    assert_eq!(identity.inside(socket("8.8.8.8:1")), socket("8.8.8.8:1"));
    assert_eq!(Translation::new(&[address(RELAY_V6, RELAY_V6)]), Ok(identity));
}

#[test]
fn addresses_that_cannot_be_told_apart_are_refused() {
    let refused = |one: (&str, &str), two: (&str, &str)| {
        let [forth, back] = [[one, two], [two, one]]
            .map(|pair| Translation::new(&pair.map(|(bind, public)| address(bind, public))).unwrap_err());
        assert_eq!(std::mem::discriminant(&forth), std::mem::discriminant(&back), "in either order");
        forth
    };
    assert_eq!(
        refused(("10.0.0.5", "8.8.8.8"), ("10.0.0.5", "8.8.4.4")),
        TranslationError::TwoPublic { bind: ip("10.0.0.5"), public: ["8.8.8.8", "8.8.4.4"].map(ip) }
    );
    assert_eq!(
        refused(("10.0.0.5", "10.0.0.5"), ("10.0.0.5", "8.8.4.4")),
        TranslationError::TwoPublic { bind: ip("10.0.0.5"), public: ["10.0.0.5", "8.8.4.4"].map(ip) }
    );
    assert_eq!(
        refused(("10.0.0.5", "8.8.8.8"), ("10.0.0.6", "8.8.8.8")),
        TranslationError::SharedPublic { bind: ["10.0.0.5", "10.0.0.6"].map(ip), public: ip("8.8.8.8") }
    );
    assert_eq!(
        refused(("10.0.0.5", "8.8.8.8"), ("8.8.8.8", "8.8.8.8")),
        TranslationError::SharedPublic { bind: ["10.0.0.5", "8.8.8.8"].map(ip), public: ip("8.8.8.8") }
    );
    assert_eq!(
        refused(("10.0.0.5", "10.0.0.6"), ("10.0.0.6", "8.8.8.8")),
        TranslationError::PublicIsBound { bind: ip("10.0.0.5"), public: ip("10.0.0.6") }
    );
    refused(("10.0.0.5", "10.0.0.6"), ("10.0.0.6", "10.0.0.5"));
    assert_eq!(
        Translation::new(&[address("10.0.0.5", "2a00::5")]),
        Err(TranslationError::Families { bind: ip("10.0.0.5"), public: ip("2a00::5") })
    );
    let twice = address("10.0.0.5", "8.8.8.8");
    assert_eq!(Translation::new(&[twice, twice]).unwrap().inside(socket("8.8.8.8:1")), socket("10.0.0.5:1"));
}

#[test]
fn an_error_tells_the_operator_which_addresses_are_meant() {
    let [line, other] = [
        [address("10.0.0.5", "8.8.8.8"), address("10.0.0.6", "8.8.8.8")],
        [address("10.0.0.5", "10.0.0.6"), address("10.0.0.6", "8.8.8.8")],
    ]
    .map(|addresses| Translation::new(&addresses).unwrap_err().to_string());
    assert_eq!(line, "8.8.8.8 is the public address of 10.0.0.5 and of 10.0.0.6: each needs its own");
    assert!(other.starts_with("10.0.0.6 is the public address of 10.0.0.5, and"), "{other}");
}

proptest! {
    /// Of a few addresses, in any combination that is accepted: no two become one.
    #[test]
    fn translation_is_the_same_both_ways(pairs in proptest::collection::vec((0..6_u8, 0..6_u8), 0..4)) {
        let at = |last: u8| IpAddr::from([10, 0, 0, last]);
        let addresses: Vec<_> =
            pairs.iter().map(|(bind, public)| RelayAddress { bind: at(*bind), public: at(*public) }).collect();
        let Ok(translation) = Translation::new(&addresses) else { return Ok(()) };
        for RelayAddress { bind, public } in &addresses {
            let (bind, public) = (SocketAddr::new(*bind, 9), SocketAddr::new(*public, 9));
            prop_assert_eq!((translation.inside(public), translation.outside(bind)), (bind, public));
            prop_assert_eq!(translation.outside(translation.inside(public)), public);
            prop_assert_eq!(translation.outside(public), public, "what is public is so already");
        }
    }
}
