//! Every way that data can take through the relay, in the kernel: ChannelData and indications, any mixture of IP versions,
//! to peers and to other clients of the same relay. What is seen on the wire has right checksums, and userspace sees none
//! of it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{Software, XorMappedAddress};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::call::{bind, receive};
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::ROUTER_LINK;
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Lab, Metrics, Relay};

const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);
const CHANNEL: u16 = 0x4000;

/// How a client talks about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Channel,
    Indication,
}

impl Framing {
    const BOTH: [Self; 2] = [Self::Channel, Self::Indication];
}

/// Lengths with every remainder of four, empty, and near the MTU of the smallest path.
fn payloads() -> impl Iterator<Item = Vec<u8>> {
    (0..=9)
        .chain([100, 999, 1000, 1001, 1202, 1400])
        .map(|length| (0..length).map(|at| (at * 7 + length) as u8).collect())
}

/// A client with an allocation of a family, at the relay's address of its own family.
fn allocate(lab: &Lab, client: Family, relayed: Family) -> (Client, SocketAddr) {
    let server = SocketAddr::new(Lab::relay_ip(client), PORT);
    let mut client =
        Client::new(&lab.clients[0], SocketAddr::new(Lab::client_ip(client, 0), 0), server, USER, PASSWORD);
    let family = match relayed {
        Family::V4 => AddressFamily::V4,
        Family::V6 => AddressFamily::V6,
    };
    let relayed = client.allocate_of(family, false).expect("the relay has room");
    (client, relayed)
}

fn open(client: &mut Client, framing: Framing, peer: SocketAddr) {
    match framing {
        Framing::Channel => client.bind_channel(CHANNEL, peer),
        Framing::Indication => client.permit(peer.ip()),
    }
    .expect("a peer of the lab is allowed");
}

fn send(client: &mut Client, framing: Framing, peer: SocketAddr, data: &[u8]) {
    match framing {
        Framing::Channel => client.send_on_channel(CHANNEL, data),
        Framing::Indication => client.send_indication(peer, data),
    }
}

fn expect(client: &Client, framing: Framing, peer: SocketAddr, data: &[u8]) {
    match framing {
        Framing::Channel => assert_eq!(client.receive_on_channel(PATIENCE), Some((CHANNEL, data.to_vec()))),
        Framing::Indication => assert_eq!(client.receive_indication(PATIENCE), Some((peer, data.to_vec()))),
    }
}

fn peer_socket(lab: &Lab, family: Family) -> (UdpSocket, SocketAddr) {
    let socket = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0));
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// Waits until every flow of these clients is in the kernel, by asking for it with data.
fn settle(relay: &Relay<'_>, exchange: &mut dyn FnMut()) {
    for _ in 0..50 {
        let before = relay.metrics().relayed("userspace");
        exchange();
        if relay.metrics().relayed("userspace") == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("data still goes through userspace");
}

#[test]
fn clients_and_peers_of_any_family_meet_in_the_kernel() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for (of_client, of_peer) in pairs() {
        for framing in Framing::BOTH {
            let story = format!("{of_client:?} client, {of_peer:?} peer, {framing:?}");
            let (mut client, relayed) = allocate(&lab, of_client, of_peer);
            let (peer, address) = peer_socket(&lab, of_peer);
            peer.connect(relayed).expect("the lab has a route to the relay");
            open(&mut client, framing, address);
            let mut exchange = |data: &[u8]| {
                send(&mut client, framing, address, data);
                assert_eq!(receive(&peer, PATIENCE).as_deref(), Some(data), "{story}, to the peer");
                peer.send(data).expect("the way is open");
                expect(&client, framing, address, data);
            };
            settle(&relay, &mut || exchange(b"first"));
            let wire = Wire::open(&lab.router, ROUTER_LINK);
            let before = relay.metrics();
            let mut count = 0;
            for payload in payloads() {
                exchange(&payload);
                count += 2;
            }
            let after = relay.metrics();
            // Some lengths leave no room for padding in a veth's buffer; these go through userspace, and arrive.
            let no_room = passed(&after, "no_room") - passed(&before, "no_room");
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
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        for (of_one, of_other) in pairs() {
            for (framing_of_one, framing_of_other) in
                Framing::BOTH.into_iter().flat_map(|one| Framing::BOTH.map(|other| (one, other)))
            {
                let story = format!(
                    "{of_one:?} {framing_of_one:?} and {of_other:?} {framing_of_other:?} over {family:?} relayed addresses"
                );
                let (mut one, relayed_one) = allocate(&lab, of_one, family);
                let (mut other, relayed_other) = allocate(&lab, of_other, family);
                open(&mut one, framing_of_one, relayed_other);
                open(&mut other, framing_of_other, relayed_one);
                let mut exchange = |data: &[u8]| {
                    send(&mut one, framing_of_one, relayed_other, data);
                    expect(&other, framing_of_other, relayed_one, data);
                    send(&mut other, framing_of_other, relayed_one, data);
                    expect(&one, framing_of_one, relayed_other, data);
                };
                settle(&relay, &mut || exchange(b"first"));
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
        let before = passed(&relay.metrics(), "control");
        let wire = Wire::open(&lab.router, ROUTER_LINK);
        for fingerprint in [false, true] {
            ask(fingerprint, false);
        }
        assert_eq!(passed(&relay.metrics(), "control"), before, "{family:?}: the daemon has seen none of it");
        let sent: Vec<_> = wire.drain(QUIET).iter().filter_map(|frame| Datagram::of(frame)).collect();
        assert_eq!(sent.len(), 2);
        ask(true, true);
        assert_eq!(passed(&relay.metrics(), "control"), before + 1, "{family:?}: this one is for the daemon");
    }
    relay.stop();
}

#[test]
fn strangers_end_in_the_driver() {
    let lab = Lab::routed_with(1, 2);
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for (of_client, of_peer) in pairs() {
        let (mut client, relayed) = allocate(&lab, of_client, of_peer);
        let (peer, address) = peer_socket(&lab, of_peer);
        peer.connect(relayed).expect("the lab has a route to the relay");
        open(&mut client, Framing::Indication, address);
        settle(&relay, &mut || {
            peer.send(b"first").expect("the way is open");
            expect(&client, Framing::Indication, address, b"first");
        });
        let stranger = bind(&lab.peers[1], SocketAddr::new(Lab::peer_ip(of_peer, 1), 0));
        let dropped = |relay: &Relay<'_>| {
            relay.metrics().sum("hairpin_dropped_packets_total", &[("path", "kernel"), ("reason", "no_permission")])
        };
        let before = dropped(&relay);
        for _ in 0..10 {
            stranger.send_to(b"let me in", relayed).expect("the lab has a route");
        }
        assert_eq!(client.receive_indication(QUIET), None);
        assert_eq!(dropped(&relay) - before, 10, "{of_client:?} {of_peer:?}");
        // A permission that comes later opens the door at once.
        client.permit(Lab::peer_ip(of_peer, 1)).expect("a peer of the lab is allowed");
        stranger.send_to(b"now", relayed).expect("the lab has a route");
        expect(&client, Framing::Indication, stranger.local_addr().expect("it is bound"), b"now");
        client.refresh(0).expect("an allocation can be released");
    }
    relay.stop();
}

/// Packets that the program passed up for a reason.
fn passed(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_xdp_passed_packets_total", &[("reason", reason)])
}

fn pairs() -> impl Iterator<Item = (Family, Family)> {
    Family::ALL.into_iter().flat_map(|one| Family::ALL.map(|other| (one, other)))
}
