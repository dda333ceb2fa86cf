//! Every way through the relay once more, where XDP is not in the driver of one interface: from one
//! interface to another, and in generic mode.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::stun::attribute::XorMappedAddress;
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::call::receive;
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::framing::{allocate, peer_socket, settle};
use hairpin_tests::lab::topology::{RELAY_LINK, ROUTER_LINK, SECOND_RELAY_LINK, SECOND_ROUTER_LINK};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Framing, Lab, Relay};

const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);

#[test]
fn clients_at_one_interface_reach_peers_at_another() {
    let lab = Lab::routed();
    lab.add_link();
    lab.route_peers(SECOND_RELAY_LINK);
    let outside = Family::ALL.map(|family| Lab::second_relay_ip(family).to_string());
    let mut options = vec!["--xdp", "native", "--interface", RELAY_LINK, "--interface", SECOND_RELAY_LINK];
    options.extend(outside.iter().flat_map(|ip| ["--relay-address", ip]));
    let relay = Relay::start(&lab.relay, &options);
    for (of_client, of_peer) in Family::pairs() {
        for framing in Framing::BOTH {
            let story = format!("{of_client:?} client, {of_peer:?} peer, {framing:?}");
            let (mut client, relayed) = allocate(&lab, of_client, of_peer);
            assert_eq!(relayed.ip(), Lab::second_relay_ip(of_peer));
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
            let (inside, outside) = (Wire::open(&lab.router, ROUTER_LINK), Wire::open(&lab.router, SECOND_ROUTER_LINK));
            let before = relay.metrics();
            let lengths = [0, 1, 2, 3, 100, 999, 1200];
            for length in lengths {
                exchange(&(0..length).map(|at: u32| (at * 7 + length) as u8).collect::<Vec<_>>());
            }
            let after = relay.metrics();
            // What needs padding does not always find room for it in a veth's buffer, and goes through userspace.
            let no_room = after.passed("no_room") - before.passed("no_room");
            assert!(no_room <= if framing == Framing::Indication { 4 } else { 0 }, "{story}: {no_room} without room");
            let count = 2 * lengths.len() as u64;
            assert_eq!(after.relayed("kernel") - before.relayed("kernel"), count - no_room, "{story}");
            assert_eq!(after.relayed("userspace") - before.relayed("userspace"), no_room, "{story}");
            let server = SocketAddr::new(Lab::relay_ip(of_client), hairpin_tests::lab::relay::PORT);
            // Each by its own interface, with that interface's link-layer addresses.
            for (wire, link, from, to) in [(&inside, 0, server, client.local()), (&outside, 1, relayed, address)] {
                let frames = wire.drain(QUIET);
                // Taking a frame apart checks lengths and checksums.
                let sent: Vec<_> = frames.iter().filter_map(|frame| Some((frame, Datagram::of(frame)?))).collect();
                assert_eq!(sent.len(), lengths.len(), "{story} to {to}");
                for (frame, datagram) in sent {
                    assert_eq!(frame[..12], [2, 0, 0, 3, link, 1, 2, 0, 0, 3, link, 2], "{story} to {to}");
                    assert_eq!((datagram.source, datagram.destination), (from, to), "{story}");
                    assert_eq!(datagram.hop_limit, 62, "{story}");
                }
            }
            client.refresh(0).expect("an allocation can be released");
        }
    }
    relay.stop();
}

#[test]
fn generic_mode_takes_every_way() {
    let lab = Lab::routed_with(1, 2);
    let relay = Relay::start(&lab.relay, &["--xdp", "generic"]);
    let family = Family::V4;
    let new = || allocate(&lab, family, family);

    for framing in Framing::BOTH {
        let (mut client, relayed) = new();
        let (peer, address) = peer_socket(&lab.peers[0], Lab::peer_ip(family, 0));
        peer.connect(relayed).expect("the lab has a route to the relay");
        framing.open(&mut client, address);
        let mut exchange = || {
            framing.send(&mut client, address, b"to the peer");
            assert_eq!(receive(&peer, PATIENCE).as_deref(), Some(&b"to the peer"[..]), "{framing:?}");
            peer.send(b"to the client").expect("the way is open");
            framing.expect(&client, address, b"to the client");
        };
        settle(&relay, &mut exchange);
        expect_on_wire(&lab, &relay, 2, 62, exchange);

        // A host without a permission ends in the program.
        let (stranger, _) = peer_socket(&lab.peers[1], Lab::peer_ip(family, 1));
        let before = relay.metrics().dropped("kernel", "no_permission");
        stranger.send_to(b"let me in", relayed).expect("the lab has a route");
        assert_eq!(client.receive(QUIET), None);
        assert_eq!(relay.metrics().dropped("kernel", "no_permission") - before, 1, "{framing:?}");
        client.refresh(0).expect("an allocation can be released");
    }

    for (framing_of_one, framing_of_other) in
        Framing::BOTH.into_iter().flat_map(|one| Framing::BOTH.map(|other| (one, other)))
    {
        let ((mut one, relayed_one), (mut other, relayed_other)) = (new(), new());
        framing_of_one.open(&mut one, relayed_other);
        framing_of_other.open(&mut other, relayed_one);
        let mut exchange = || {
            framing_of_one.send(&mut one, relayed_other, b"to the other");
            framing_of_other.expect(&other, relayed_one, b"to the other");
            framing_of_other.send(&mut other, relayed_one, b"to the one");
            framing_of_one.expect(&one, relayed_other, b"to the one");
        };
        settle(&relay, &mut exchange);
        expect_on_wire(&lab, &relay, 2, 61, exchange);
        one.refresh(0).expect("an allocation can be released");
        other.refresh(0).expect("an allocation can be released");
    }

    let (client, _) = new();
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::BINDING, TransactionId(*b"twelve bytes")).finish(true);
    let before = relay.metrics().passed("control");
    expect_on_wire(&lab, &relay, 1, 64, || {
        client.send(&request);
        let answer = client.receive(PATIENCE).expect("a Binding request is answered");
        let answer = Message::parse(&answer).expect("the fingerprint is right");
        let mapped = answer.attribute::<XorMappedAddress>().ok().flatten().map(|XorMappedAddress(address)| address);
        assert_eq!(mapped, Some(client.local()));
    });
    assert_eq!(relay.metrics().passed("control"), before, "the daemon has seen none of it");
    relay.stop();
}

/// Runs an exchange and checks that the kernel alone sends so many datagrams for it, whose checksums are right.
#[track_caller]
fn expect_on_wire(lab: &Lab, relay: &Relay<'_>, count: usize, hop_limit: u8, exchange: impl FnOnce()) {
    let wire = Wire::open(&lab.router, ROUTER_LINK);
    let before = relay.metrics().relayed("userspace");
    exchange();
    assert_eq!(relay.metrics().relayed("userspace"), before);
    let sent: Vec<_> = wire.drain(QUIET).iter().filter_map(|frame| Datagram::of(frame)).collect();
    assert_eq!(sent.len(), count, "{sent:?}");
    assert!(sent.iter().all(|datagram| datagram.hop_limit == hop_limit), "{sent:?}");
}
