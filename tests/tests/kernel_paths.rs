//! Every way that data can take through the relay, in the kernel: ChannelData and indications, any mixture of IP versions,
//! to peers and to other clients of the same relay. What is seen on the wire has right checksums, and userspace sees none
//! of it.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::stun::attribute::{Software, XorMappedAddress};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::call::receive;
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::framing::{allocate, peer_socket, settle};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::ROUTER_LINK;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Framing, Lab, Relay};

const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);

/// Lengths with every remainder of four, empty, and near the MTU of the smallest path.
fn payloads() -> impl Iterator<Item = Vec<u8>> {
    (0..=9)
        .chain([100, 999, 1000, 1001, 1202, 1400])
        .map(|length| (0..length).map(|at: u32| (at * 7 + length) as u8).collect())
}

#[test]
fn clients_and_peers_of_any_family_meet_in_the_kernel() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for (of_client, of_peer) in Family::pairs() {
        for framing in Framing::BOTH {
            let story = format!("{of_client:?} client, {of_peer:?} peer, {framing:?}");
            let (mut client, relayed) = allocate(&lab, of_client, of_peer);
            let (peer, address) = peer_socket(&lab.peers[0], Lab::peer_ip(of_peer, 0));
            peer.connect(relayed).expect("the lab has a route to the relay");
            framing.open(&mut client, address);
            let mut exchange = |data: &[u8]| {
                framing.send(&mut client, address, data);
                assert_eq!(receive(&peer, PATIENCE).as_deref(), Some(data), "{story}, to the peer");
                peer.send(data).expect("the way is open");
                framing.expect(&client, address, data);
            };
            settle(&relay, || exchange(b"first"));
            let wire = Wire::open(&lab.router, ROUTER_LINK);
            let before = relay.metrics();
            let mut count = 0;
            for payload in payloads() {
                exchange(&payload);
                count += 2;
            }
            let after = relay.metrics();
            // Some lengths leave no room for padding in a veth's buffer; these go through userspace, and arrive.
            let no_room = after.passed("no_room") - before.passed("no_room");
            assert!(no_room <= if framing == Framing::Indication { 4 } else { 0 }, "{story}: {no_room} without room");
            assert_eq!(after.relayed("kernel") - before.relayed("kernel"), count - no_room, "{story}");
            assert_eq!(after.relayed("userspace") - before.relayed("userspace"), no_room, "{story}");
            // Taking a frame apart checks lengths and checksums.
            let sent: Vec<_> = wire.drain(QUIET).iter().filter_map(|frame| Datagram::of(frame)).collect();
            assert_eq!(sent.len() as u64, count, "{story}");
            assert!(sent.iter().all(|datagram| datagram.hop_limit == 62), "{story}");
            client.refresh(0).expect("an allocation can be released");
        }
    }
    relay.stop();
}

#[test]
fn clients_of_one_relay_meet_in_one_pass() {
    meet_in_one_pass(&["--xdp", "native"]);
}

#[test]
fn behind_a_nat_clients_of_one_relay_meet_in_one_pass_and_it_sees_none_of_it() {
    let nat = ["--relay-address", "11.3.0.2=11.9.0.2", "--relay-address", "2a0e:11:3::2=2a0e:11:9::2"];
    meet_in_one_pass(&[&["--xdp", "native"][..], &nat].concat());
}

fn meet_in_one_pass(arguments: &[&str]) {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, arguments);
    for family in Family::ALL {
        for (of_one, of_other) in Family::pairs() {
            for (framing_of_one, framing_of_other) in
                Framing::BOTH.into_iter().flat_map(|one| Framing::BOTH.map(|other| (one, other)))
            {
                let story = format!(
                    "{of_one:?} {framing_of_one:?} and {of_other:?} {framing_of_other:?} over {family:?} relayed addresses"
                );
                let (mut one, relayed_one) = allocate(&lab, of_one, family);
                let (mut other, relayed_other) = allocate(&lab, of_other, family);
                framing_of_one.open(&mut one, relayed_other);
                framing_of_other.open(&mut other, relayed_one);
                let mut exchange = |data: &[u8]| {
                    framing_of_one.send(&mut one, relayed_other, data);
                    framing_of_other.expect(&other, relayed_one, data);
                    framing_of_other.send(&mut other, relayed_one, data);
                    framing_of_one.expect(&one, relayed_other, data);
                };
                settle(&relay, || exchange(b"first"));
                let wire = Wire::open(&lab.router, ROUTER_LINK);
                let before = relay.metrics();
                let mut count = 0;
                for payload in payloads().filter(|payload| payload.len() <= 1202) {
                    exchange(&payload);
                    count += 2;
                }
                let after = relay.metrics();
                assert_eq!(after.relayed("userspace"), before.relayed("userspace"), "{story}");
                let sent: Vec<_> = wire.drain(QUIET).iter().filter_map(|frame| Datagram::of(frame)).collect();
                assert_eq!(sent.len() as u64, count, "{story}: one datagram out for each that came in");
                // A router on the way in, and two relays.
                assert!(sent.iter().all(|datagram| datagram.hop_limit == 61), "{story}");
                one.refresh(0).expect("an allocation can be released");
                other.refresh(0).expect("an allocation can be released");
            }
        }
    }
    relay.stop();
}

#[test]
fn binding_requests_are_answered_in_the_driver() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        let server = SocketAddr::new(Lab::relay_ip(family), PORT);
        let client =
            Client::new(&lab.clients[0], SocketAddr::new(Lab::client_ip(family, 0), 0), server, USER, PASSWORD);
        let ask = |fingerprint: bool, software: bool| {
            let mut request = Vec::new();
            MessageBuilder::new(&mut request, Class::Request, Method::BINDING, TransactionId(*b"twelve bytes"))
                .with_option(software.then_some(Software("a client")).as_ref())
                .finish(fingerprint);
            client.send(&request);
            let answer = client.receive(PATIENCE).expect("a Binding request is answered");
            let answer = Message::parse(&answer).expect("the fingerprint is right, if there is one");
            assert_eq!((answer.class(), answer.method()), (Class::Success, Method::BINDING));
            assert_eq!(answer.transaction_id(), TransactionId(*b"twelve bytes"));
            assert_eq!(answer.has_fingerprint(), fingerprint);
            let mapped = answer.attribute::<XorMappedAddress>().ok().flatten().map(|XorMappedAddress(address)| address);
            assert_eq!(mapped, Some(client.local()));
        };
        let before = relay.metrics().passed("control");
        let wire = Wire::open(&lab.router, ROUTER_LINK);
        for fingerprint in [false, true] {
            ask(fingerprint, false);
        }
        assert_eq!(relay.metrics().passed("control"), before, "{family:?}: the daemon has seen none of it");
        let sent: Vec<_> = wire.drain(QUIET).iter().filter_map(|frame| Datagram::of(frame)).collect();
        assert_eq!(sent.len(), 2);
        ask(true, true);
        assert_eq!(relay.metrics().passed("control"), before + 1, "{family:?}: this one is for the daemon");
    }
    relay.stop();
}

#[test]
fn strangers_end_in_the_driver() {
    let lab = Lab::routed_with(1, 2);
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for (of_client, of_peer) in Family::pairs() {
        let (mut client, relayed) = allocate(&lab, of_client, of_peer);
        let (peer, address) = peer_socket(&lab.peers[0], Lab::peer_ip(of_peer, 0));
        peer.connect(relayed).expect("the lab has a route to the relay");
        Framing::Indication.open(&mut client, address);
        settle(&relay, || {
            peer.send(b"first").expect("the way is open");
            Framing::Indication.expect(&client, address, b"first");
        });
        let (stranger, from) = peer_socket(&lab.peers[1], Lab::peer_ip(of_peer, 1));
        let dropped = |relay: &Relay<'_>| relay.metrics().dropped("kernel", "no_permission");
        let before = dropped(&relay);
        for _ in 0..10 {
            stranger.send_to(b"let me in", relayed).expect("the lab has a route");
        }
        assert_eq!(client.receive_indication(QUIET), None);
        assert_eq!(dropped(&relay) - before, 10, "{of_client:?} {of_peer:?}");
        // A permission that comes later opens the door at once.
        client.permit(Lab::peer_ip(of_peer, 1)).expect("a peer of the lab is allowed");
        stranger.send_to(b"now", relayed).expect("the lab has a route");
        Framing::Indication.expect(&client, from, b"now");
        client.refresh(0).expect("an allocation can be released");
    }
    relay.stop();
}
