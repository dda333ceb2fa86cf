//! Clients over TCP, TLS and DTLS on a host with native XDP: the program knows nothing of them, and nothing is in their
//! way; nor are they in the way of others.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::framing::settle;
use hairpin_tests::lab::relay::{PASSWORD, USER, every_transport};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Authority, Family, Key, Lab, Metrics, Relay, Transport};

const ENCRYPTED_OR_STREAM: [Transport; 3] = [Transport::Tcp, Transport::Tls, Transport::Dtls];
const PATIENCE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);
/// Application data of these lengths: padding of every kind, and more than fits into one record of TLS with others.
const LENGTHS: [usize; 6] = [0, 1, 2, 3, 160, 1200];

/// The relay with native XDP and every transport.
fn start(lab: &Lab) -> Relay<'_> {
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &Family::ALL.map(Lab::relay_ip));
    let options = every_transport(&certificate);
    let options: Vec<&str> = ["--xdp", "native"].into_iter().chain(options.iter().map(String::as_str)).collect();
    Relay::start(&lab.relay, &options)
}

/// A client on one of the client hosts, with an allocation.
fn allocate(lab: &Lab, host: u8, transport: Transport, family: Family) -> (Client, SocketAddr) {
    let local = SocketAddr::new(Lab::client_ip(family, host), 0);
    let server = SocketAddr::new(Lab::relay_ip(family), transport.port());
    let namespace = &lab.clients[usize::from(host)];
    let mut client = Client::at(transport, namespace, local, server, USER, PASSWORD);
    let relayed = client.allocate().expect("the relay has room");
    (client, relayed)
}

fn grew(before: &Metrics, after: &Metrics, count: impl Fn(&Metrics) -> u64) -> u64 {
    count(after) - count(before)
}

#[test]
fn peers_and_clients_reach_each_other_through_userspace() {
    let lab = Lab::routed();
    let relay = start(&lab);
    for family in Family::ALL {
        for transport in ENCRYPTED_OR_STREAM {
            let (mut client, relayed) = allocate(&lab, 0, transport, family);
            let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0));
            let neighbour = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0));
            peer.connect(relayed).expect("the lab has a route");
            let peer_address = peer.local_addr().expect("it is bound");
            client.bind_channel(CHANNEL, peer_address).expect("a peer of the lab is allowed");
            let before = relay.metrics();
            for length in LENGTHS {
                let data = vec![length as u8; length];
                client.send_on_channel(CHANNEL, &data);
                assert_eq!(receive(&peer, PATIENCE).as_ref(), Some(&data), "{family:?} {transport:?} {length}");
                peer.send(&data).expect("the lab has a route");
                let received = client.receive_on_channel(PATIENCE);
                assert_eq!(received, Some((CHANNEL, data)), "{family:?} {transport:?} {length}");
            }
            // The permission is for the host; there is no channel to this port.
            let address = neighbour.local_addr().expect("it is bound");
            client.send_indication(address, b"in an indication");
            assert_eq!(receive(&neighbour, PATIENCE).as_deref(), Some(&b"in an indication"[..]));
            neighbour.send_to(b"and back", relayed).expect("the lab has a route");
            assert_eq!(client.receive_indication(PATIENCE), Some((address, b"and back".to_vec())));
            let after = relay.metrics();
            assert_eq!(grew(&before, &after, |metrics| metrics.relayed("userspace")), 2 * (LENGTHS.len() as u64 + 1));
            assert_eq!(grew(&before, &after, |metrics| metrics.relayed("kernel")), 0);
            assert_eq!(client.refresh(0), Ok(0));
        }
    }
    relay.stop();
}

#[test]
fn a_peer_without_permission_reaches_nobody_and_nobody_reaches_it() {
    let lab = Lab::routed_with(1, 2);
    let relay = start(&lab);
    for transport in ENCRYPTED_OR_STREAM {
        let (mut client, relayed) = allocate(&lab, 0, transport, Family::V4);
        let [peer, stranger] = [0, 1].map(|host| {
            let socket = bind(&lab.peers[usize::from(host)], SocketAddr::new(Lab::peer_ip(Family::V4, host), 0));
            socket.connect(relayed).expect("the lab has a route");
            socket
        });
        client.bind_channel(CHANNEL, peer.local_addr().expect("it is bound")).expect("a peer of the lab is allowed");
        let before = relay.metrics();
        stranger.send(b"stranger").expect("the lab has a route");
        assert_eq!(client.receive(QUIET), None, "{transport:?}");
        client.send_indication(stranger.local_addr().expect("it is bound"), b"to a stranger");
        assert_eq!(receive(&stranger, QUIET), None, "{transport:?}");
        let after = relay.metrics();
        // The program does not know the relayed address; whoever is not sure passes it up.
        let dropped = ["kernel", "userspace"].map(|path| grew(&before, &after, |m| m.dropped(path, "no_permission")));
        assert_eq!(dropped, [0, 2], "{transport:?}: one each way");
        client.send_on_channel(CHANNEL, b"the call goes on");
        assert_eq!(receive(&peer, PATIENCE).as_deref(), Some(&b"the call goes on"[..]));
    }
    relay.stop();
}

#[test]
fn clients_of_one_relay_meet_over_different_transports() {
    let lab = Lab::routed_with(2, 1);
    let relay = start(&lab);
    for transport in ENCRYPTED_OR_STREAM {
        let (mut alice, from_alice) = allocate(&lab, 0, Transport::Udp, Family::V4);
        let (mut bob, from_bob) = allocate(&lab, 1, transport, Family::V4);
        let counts = |metrics: &Metrics| ["kernel", "userspace"].map(|path| metrics.dropped(path, "no_permission"));

        // Alice lets Bob through, and Bob does not let her.
        alice.bind_channel(CHANNEL, from_bob).expect("relayed addresses are allowed");
        // Bob over DTLS is no stranger, which the kernel knows, too.
        let flows = 3 + u64::from(transport == Transport::Dtls);
        relay.wait_for("the channel is in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == flows);
        let before = relay.metrics();
        alice.send_on_channel(CHANNEL, b"too early");
        assert_eq!(bob.receive(QUIET), None, "{transport:?}: Bob has not asked for it");
        bob.send_indication(from_alice, b"too early");
        assert_eq!(alice.receive(QUIET), None, "{transport:?}: Bob himself may not send there");
        let after = relay.metrics();
        let dropped: u64 = counts(&after).iter().sum::<u64>() - counts(&before).iter().sum::<u64>();
        assert_eq!(dropped, 2, "{transport:?}: {before:#?} {after:#?}");

        bob.bind_channel(CHANNEL, from_alice).expect("relayed addresses are allowed");
        let before = relay.metrics();
        for length in LENGTHS {
            let data = vec![length as u8; length];
            alice.send_on_channel(CHANNEL, &data);
            assert_eq!(bob.receive_on_channel(PATIENCE), Some((CHANNEL, data.clone())), "{transport:?} {length}");
            bob.send_on_channel(CHANNEL, &data);
            assert_eq!(alice.receive_on_channel(PATIENCE), Some((CHANNEL, data)), "{transport:?} {length}");
        }
        let after = relay.metrics();
        let relayed = ["kernel", "userspace"].map(|path| grew(&before, &after, |metrics| metrics.relayed(path)));
        assert_eq!(relayed, [0, 4 * LENGTHS.len() as u64], "{transport:?}: from one relayed address to the other");

        // Alice's other calls are in the kernel all the same.
        let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(Family::V4, 0), 0));
        peer.connect(from_alice).expect("the lab has a route");
        alice.bind_channel(CHANNEL + 1, peer.local_addr().expect("it is bound")).expect("a peer is allowed");
        settle(&relay, || {
            alice.send_on_channel(CHANNEL + 1, b"kernel");
            assert_eq!(receive(&peer, PATIENCE).as_deref(), Some(&b"kernel"[..]));
        });
        assert_eq!((alice.refresh(0), bob.refresh(0)), (Ok(0), Ok(0)));
        relay.wait_for("nothing is left", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
    }
    relay.stop();
}
