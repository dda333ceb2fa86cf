//! ChannelBind (RFC 8656 section 12), and the flows that follow from it.

use hairpin_proto::address::{AddressFamily, PeerAddr, Transport};
use hairpin_proto::stun::Method;
use hairpin_proto::stun::attribute::{ChannelNumberAttribute, RequestedAddressFamily, XorPeerAddress};
use hairpin_proto::turn::{Discard, Disposition, Flow, Forward, RelayId};

use crate::harness::{
    Client, Event, PUBLIC_V4, Relay, UDP, channel, channel_data, config, delivered, dropped, framed, permission, socket,
};

const AT: &str = "203.0.113.7:41000";
const PEER: &str = "8.8.8.8:53";

/// An allocation for an hour.
fn allocated() -> (Relay, Client, RelayId) {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let id = relay.allocate(&mut client);
    relay.refresh(&mut client, 3600).expect_success(&client);
    (relay, client, id)
}

/// The flows of a channel and of its permission.
fn flows(relay: &Relay, client: &Client, id: RelayId, number: u16, peer: &str) -> [Flow; 2] {
    [permission(peer), channel(number, peer)].map(|scope| relay.flow(client, id, scope))
}

#[test]
fn a_channel_carries_data_both_ways() {
    let (mut relay, mut client, id) = allocated();
    let answer = relay.bind_channel(&mut client, 0x4000, PEER);
    answer.expect_success(&client);
    let [permission, channel] = flows(&relay, &client, id, 0x4000, PEER);
    let end = relay.at(300);
    assert_eq!(answer.events, [Event::Install(permission, end), Event::Install(channel, end)], "not 600");

    let datagram = channel_data(0x4000, b"out");
    let disposition = relay.client_sends(&client, &datagram);
    let (allocation, peer) = (channel.allocation, PeerAddr::new(socket(PEER)));
    let expected = Forward::ToPeer { allocation, relay: id, peer, payload: b"out", dont_fragment: false };
    assert_eq!(disposition, Disposition::Forward(expected));

    assert_eq!(framed(relay.peer_sends(id, PEER, b"in")), channel_data(0x4000, b"in"), "without padding over UDP");
    assert_eq!(framed(relay.peer_sends(id, PEER, b"")), channel_data(0x4000, b""));
    let other_port = framed(relay.peer_sends(id, "8.8.8.8:54", b"in"));
    assert_eq!(other_port[..2], [0x00, 0x17], "a Data indication: the channel is of another port");
}

#[test]
fn channel_data_may_be_padded_but_not_short() {
    let (mut relay, mut client, _) = allocated();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let mut datagram = channel_data(0x4000, b"abcde");
    for _ in 0..4 {
        datagram.push(0);
        assert_eq!(delivered(relay.client_sends(&client, &datagram)).2, b"abcde");
    }
    let whole = channel_data(0x4000, b"abcde");
    for length in 1..whole.len() {
        assert_eq!(relay.client_sends(&client, &whole[..length]), dropped(Discard::MalformedChannelData), "{length}");
    }
    assert_eq!(relay.client_sends(&client, &channel_data(0x4001, b"abcde")), dropped(Discard::NoChannel));
    assert_eq!(relay.client_sends(&Client::alice("203.0.113.8:41000"), &whole), dropped(Discard::NoAllocation));
}

#[test]
fn numbers_of_the_old_and_new_range_are_accepted_and_others_are_not() {
    for (number, code) in [
        (0x0000, 400),
        (0x3fff, 400),
        (0x4000, 200),
        (0x4fff, 200),
        (0x5000, 200),
        (0x7fff, 200),
        (0x8000, 400),
        (0xffff, 400),
    ] {
        let (mut relay, mut client, _) = allocated();
        assert_eq!(relay.bind_channel(&mut client, number, PEER).code(), code, "0x{number:04x}");
        if code == 200 {
            delivered(relay.client_sends(&client, &channel_data(number, b"")));
        }
    }
}

#[test]
fn number_and_peer_are_both_needed() {
    let (mut relay, mut client, _) = allocated();
    let number = ChannelNumberAttribute(0x4000);
    let peer = XorPeerAddress(socket(PEER));
    relay.request(&mut client, Method::CHANNEL_BIND, |request| request).expect_error(&client, 400);
    relay.request(&mut client, Method::CHANNEL_BIND, |request| request.with(&number)).expect_error(&client, 400);
    relay.request(&mut client, Method::CHANNEL_BIND, |request| request.with(&peer)).expect_error(&client, 400);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:0").expect_error(&client, 400);
}

#[test]
fn a_binding_is_of_one_channel_and_one_peer() {
    let (mut relay, mut client, _) = allocated();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:54").expect_error(&client, 400);
    relay.bind_channel(&mut client, 0x4001, PEER).expect_error(&client, 400);
    relay.bind_channel(&mut client, 0x4001, "8.8.8.8:54").expect_success(&client);
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let mut other = Client::alice("203.0.113.7:41001");
    relay.allocate(&mut other);
    relay.bind_channel(&mut other, 0x4000, "8.8.8.8:54").expect_success(&other);
}

#[test]
fn a_channel_is_refused_as_a_permission_would_be() {
    let (mut relay, mut client, _) = allocated();
    relay.bind_channel(&mut client, 0x4000, "[2001:db8::1]:53").expect_error(&client, 443);
    relay.bind_channel(&mut client, 0x4000, "127.0.0.1:53").expect_error(&client, 403);
    relay.bind_channel(&mut client, 0x4000, "[::ffff:127.0.0.1]:53").expect_error(&client, 403);
    relay.bind_channel(&mut client, 0x4000, &format!("{PUBLIC_V4}:3478")).expect_error(&client, 403);
    let mut nobody = Client::alice("203.0.113.9:1");
    relay.bind_channel(&mut nobody, 0x4000, PEER).expect_error(&nobody, 437);
}

#[test]
fn channels_are_limited() {
    let mut config = config();
    config.settings.limits.channels = 2;
    let mut relay = Relay::new(config);
    let mut client = Client::alice(AT);
    relay.allocate(&mut client);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:1").expect_success(&client);
    relay.bind_channel(&mut client, 0x4001, "8.8.8.8:2").expect_success(&client);
    relay.bind_channel(&mut client, 0x4002, "8.8.8.8:3").expect_error(&client, 508);
    relay.bind_channel(&mut client, 0x4001, "8.8.8.8:2").expect_success(&client);
}

#[test]
fn a_channel_lasts_ten_minutes_and_needs_its_permission() {
    let (mut relay, mut client, id) = allocated();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let [permission, channel] = flows(&relay, &client, id, 0x4000, PEER);
    relay.sleep(299);
    delivered(relay.client_sends(&client, &channel_data(0x4000, b"")));
    relay.sleep(1);
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"")), dropped(Discard::NoPermission));
    assert_eq!(relay.peer_sends(id, PEER, b""), dropped(Discard::NoPermission));
    assert_eq!(relay.pass(0), [Event::Remove(channel), Event::Remove(permission)]);

    relay.pass(100);
    let answer = relay.permit(&mut client, &["8.8.8.8:0"]);
    let expected = [Event::Install(permission, relay.at(300)), Event::Install(channel, relay.at(200))];
    assert_eq!(answer.events, expected, "the channel still lives, and ends first");
    relay.sleep(199);
    delivered(relay.client_sends(&client, &channel_data(0x4000, b"")));
    relay.sleep(1);
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"")), dropped(Discard::NoChannel));
    assert_eq!(framed(relay.peer_sends(id, PEER, b""))[..2], [0x00, 0x17], "the permission lives on");
    assert_eq!(relay.pass(0), [Event::Remove(channel)]);
}

#[test]
fn binding_again_prolongs_channel_permission_and_flow() {
    let (mut relay, mut client, id) = allocated();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let flows = flows(&relay, &client, id, 0x4000, PEER);
    relay.pass(240);
    let answer = relay.bind_channel(&mut client, 0x4000, PEER);
    answer.expect_success(&client);
    assert_eq!(answer.events, flows.map(|flow| Event::Install(flow, relay.at(300))));
    relay.pass(299);
    delivered(relay.client_sends(&client, &channel_data(0x4000, b"")));
    assert_eq!(relay.permit(&mut client, &[PEER]).events, flows.map(|flow| Event::Install(flow, relay.at(300))));
    relay.pass(290);
    relay.permit(&mut client, &[PEER]).expect_success(&client);
    relay.sleep(10);
    delivered(relay.client_sends(&client, &channel_data(0x4000, b"")));
    relay.sleep(1);
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"")), dropped(Discard::NoChannel));
}

#[test]
fn channel_and_peer_cool_down_for_five_minutes_before_they_are_bound_to_others() {
    let (mut relay, mut client, id) = allocated();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let [_, flow] = flows(&relay, &client, id, 0x4000, PEER);
    relay.pass(899);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:54").expect_error(&client, 400);
    relay.bind_channel(&mut client, 0x4001, PEER).expect_error(&client, 400);
    relay.pass(1);
    relay.bind_channel(&mut client, 0x4000, "8.8.8.8:54").expect_success(&client);
    relay.bind_channel(&mut client, 0x4001, PEER).expect_success(&client);
    assert!(!relay.flows.values().any(|(installed, _)| *installed == flow));
    relay.shut_down();
}

#[test]
fn the_same_pair_may_be_bound_again_while_it_cools_down() {
    let (mut relay, mut client, id) = allocated();
    relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
    let flows = flows(&relay, &client, id, 0x4000, PEER);
    relay.pass(700);
    assert_eq!(relay.client_sends(&client, &channel_data(0x4000, b"")), dropped(Discard::NoChannel));
    let answer = relay.bind_channel(&mut client, 0x4000, PEER);
    answer.expect_success(&client);
    assert_eq!(answer.events, flows.map(|flow| Event::Install(flow, relay.at(300))));
    delivered(relay.client_sends(&client, &channel_data(0x4000, b"")));
    relay.shut_down();
}

#[test]
fn several_channels_to_one_address_share_its_permission() {
    let (mut relay, mut client, id) = allocated();
    for (number, peer) in [(0x4000, "8.8.8.8:1"), (0x4001, "8.8.8.8:2"), (0x4002, "8.8.4.4:1")] {
        relay.bind_channel(&mut client, number, peer).expect_success(&client);
    }
    relay.pass(100);
    let answer = relay.permit(&mut client, &["8.8.8.8:0"]);
    let scopes = [permission("8.8.8.8:0"), channel(0x4000, "8.8.8.8:1"), channel(0x4001, "8.8.8.8:2")];
    let expected = scopes.map(|scope| Event::Install(relay.flow(&client, id, scope), relay.at(300)));
    assert_eq!(answer.events, expected, "and no other");
    let [permission, channel] = flows(&relay, &client, id, 0x4002, "8.8.4.4:1");
    assert_eq!(relay.pass(200), [Event::Remove(channel), Event::Remove(permission)]);
}

#[test]
fn channel_data_in_a_stream_is_padded_and_its_length_is_that_of_the_data() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut relay = Relay::default();
        let mut client = Client::alice(AT);
        client.five_tuple.transport = transport;
        let id = relay.allocate(&mut client);
        relay.bind_channel(&mut client, 0x4000, PEER).expect_success(&client);
        for (data, padding) in [(&b""[..], 0), (b"1", 3), (b"12", 2), (b"123", 1), (b"1234", 0)] {
            let mut expected = channel_data(0x4000, data);
            expected.resize(expected.len() + padding, 0);
            assert_eq!(framed(relay.peer_sends(id, PEER, data)), expected, "{transport}");
            assert_eq!(delivered(relay.client_sends(&client, &expected)).2, data, "{transport}");
        }
    }
}

#[test]
fn teredo_and_6to4_are_no_peers() {
    let mut relay = Relay::default();
    let mut client = Client::alice(AT);
    let family = RequestedAddressFamily(Ok(AddressFamily::V6));
    relay.request(&mut client, Method::ALLOCATE, |request| request.with(&UDP).with(&family)).expect_success(&client);
    for peer in ["[2001:0:808:808::1]:53", "[2001:0:ffff:ffff::1]:53", "[2002:808:808::1]:53"] {
        relay.bind_channel(&mut client, 0x4000, peer).expect_error(&client, 403);
        relay.permit(&mut client, &[peer]).expect_error(&client, 403);
    }
    relay.bind_channel(&mut client, 0x4000, "[2001:1::1]:53").expect_success(&client);
}
