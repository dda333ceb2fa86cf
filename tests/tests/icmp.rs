//! What a client hears of datagrams that did not reach a peer (RFC 8656 section 11.5).

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4};
use hairpin_proto::stun::attribute::{Data, Icmp, XorPeerAddress};
use hairpin_proto::stun::{Class, Message, Method};
use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::{RELAY_MAC, ROUTER_LINK, ROUTER_MAC};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Call, Family, Lab, Metrics, Relay};
use hairpin_tests::program::frame::Frame;

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);
const MODES: [&str; 2] = ["off", "native"];
/// Where nobody listens.
const CLOSED_PORT: u16 = 9;

#[test]
fn a_closed_port_of_a_peer_is_told_to_the_client() {
    let lab = Lab::routed();
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for family in Family::ALL {
            let (mut client, _) = allocated(&lab, family);
            client.permit(Lab::peer_ip(family, 0)).expect("a peer of the lab is allowed");
            let peer = SocketAddr::new(Lab::peer_ip(family, 0), CLOSED_PORT);
            client.send_indication(peer, b"is anybody there?");
            assert_eq!(told(&client), Some((peer, port_unreachable(family))), "{xdp} {family:?}");
            assert_eq!(client.refresh(0), Ok(0));
        }
        relay.stop();
    }
}

#[test]
fn a_port_that_closes_while_the_kernel_forwards_is_told_to_the_client() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        let Call { mut client, peer, .. } = Call::in_kernel(&lab, &relay, family);
        let gone = peer.local_addr().expect("it is bound");
        drop(peer);
        // A program that another test is starting may have inherited the socket, for a moment.
        let end = Instant::now() + PATIENCE;
        while lab.peers[0].udp_sockets(gone.port()) > 0 {
            assert!(Instant::now() < end, "{gone} does not close");
            thread::sleep(Duration::from_millis(1));
        }
        let before = relay.metrics().relayed("kernel");
        client.send_on_channel(CHANNEL, b"is anybody there?");
        assert_eq!(told(&client), Some((gone, port_unreachable(family))), "{family:?}");
        assert_eq!(relay.metrics().relayed("kernel") - before, 1);
        assert_eq!(client.refresh(0), Ok(0));
        relay.wait_for("the channel is gone", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
    }
    relay.stop();
}

#[test]
fn what_is_too_big_for_a_link_on_the_way_is_told_with_its_mtu() {
    let lab = Lab::routed();
    lab.router.ip("link set peer0 mtu 1300");
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for family in Family::ALL {
            let (mut client, _) = allocated(&lab, family);
            let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0));
            client.permit(Lab::peer_ip(family, 0)).expect("a peer of the lab is allowed");
            let address = peer.local_addr().expect("it is bound");
            client.send_indication_with(address, &[1; 1400], true);
            let too_big = match family {
                Family::V4 => Icmp { kind: 3, code: 4, error_data: 1300 },
                Family::V6 => Icmp { kind: 2, code: 0, error_data: 1300 },
            };
            assert_eq!(told(&client), Some((address, too_big)), "{xdp} {family:?}");
            assert_eq!(receive(&peer, QUIET), None);
            // Without DONT-FRAGMENT it arrives in pieces, as soon as the kernel path knows, too.
            let arrived = (0..10).find_map(|_| {
                client.send_indication(address, &[2; 1400]);
                receive(&peer, QUIET)
            });
            assert_eq!(arrived, Some(vec![2; 1400]), "{xdp} {family:?}");
            assert_eq!(client.refresh(0), Ok(0));
        }
        relay.stop();
        // What the host has learned is not for the next round.
        for family in ["-4", "-6"] {
            lab.relay.ip(&format!("{family} route flush cache"));
        }
    }
}

#[test]
fn only_errors_about_permitted_peers_and_of_the_named_types_reach_the_client() {
    let lab = Lab::routed_with(1, 2);
    let wire = Wire::open(&lab.router, ROUTER_LINK);
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for family in Family::ALL {
            let (mut client, relayed) = allocated(&lab, family);
            let permitted = SocketAddr::new(Lab::peer_ip(family, 0), CLOSED_PORT);
            let stranger = SocketAddr::new(Lab::peer_ip(family, 1), CLOSED_PORT);
            client.permit(permitted.ip()).expect("a peer of the lab is allowed");

            let before = relay.metrics();
            wire.send(&complaint(relayed, stranger, Error::Unreachable));
            relay.wait_for("the error about a stranger is dropped", |metrics| {
                dropped(metrics, "no_permission") == dropped(&before, "no_permission") + 1
            });
            wire.send(&complaint(relayed, permitted, Error::ParameterProblem));
            // About a port that is nobody's, there is no socket to hear it.
            let nobody = SocketAddr::new(relayed.ip(), relayed.port() ^ 1);
            wire.send(&complaint(nobody, permitted, Error::Unreachable));
            assert_eq!(client.receive(QUIET), None, "{xdp} {family:?}");

            // A router on the way may complain, whose address has no permission.
            wire.send(&complaint(relayed, permitted, Error::TimeExceeded));
            let kind = if family == Family::V4 { 11 } else { 3 };
            let expected = Icmp { kind, code: 0, error_data: 0 };
            assert_eq!(told(&client), Some((permitted, expected)), "{xdp} {family:?}");
            assert_eq!(client.refresh(0), Ok(0));
        }
        relay.stop();
    }
}

#[test]
fn a_flood_of_errors_costs_a_call_no_datagram() {
    let lab = Lab::routed_with(1, 2);
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let wire = Wire::open(&lab.router, ROUTER_LINK);
    for family in Family::ALL {
        let mut call = Call::new(&lab, family);
        let before = relay.metrics();
        let about_stranger =
            complaint(call.relayed, SocketAddr::new(Lab::peer_ip(family, 1), CLOSED_PORT), Error::Unreachable);
        let about_peer = complaint(call.relayed, call.peer_address(), Error::Unreachable);
        for round in 0..100_u8 {
            // Less than the socket's buffer holds, which errors share with data.
            for _ in 0..50 {
                wire.send(&about_stranger);
            }
            // Its error is pending when the next datagram is sent or received.
            wire.send(&about_peer);
            call.exchange(&[round; 200]);
        }
        let after = relay.metrics();
        assert_eq!(dropped(&after, "send_failed"), dropped(&before, "send_failed"), "{family:?}");
        assert!(dropped(&after, "no_permission") - dropped(&before, "no_permission") >= 4000, "{family:?}");
        assert_eq!(call.client.refresh(0), Ok(0));
    }
    relay.stop();
}

/// A client with an allocation of its own family.
fn allocated(lab: &Lab, family: Family) -> (Client, SocketAddr) {
    let local = SocketAddr::new(Lab::client_ip(family, 0), 0);
    let server = SocketAddr::new(Lab::relay_ip(family), PORT);
    let mut client = Client::new(&lab.clients[0], local, server, USER, PASSWORD);
    let relayed = client.allocate().expect("the relay has room");
    (client, relayed)
}

fn port_unreachable(family: Family) -> Icmp {
    match family {
        Family::V4 => Icmp { kind: 3, code: 3, error_data: 0 },
        Family::V6 => Icmp { kind: 1, code: 4, error_data: 0 },
    }
}

/// The next Data indication without data, if one comes in time: the peer, and what the ICMP packet said.
fn told(client: &Client) -> Option<(SocketAddr, Icmp)> {
    let end = Instant::now() + PATIENCE;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let datagram = client.receive(left)?;
        let message = Message::parse(&datagram).expect("a STUN message");
        if (message.class(), message.method()) == (Class::Indication, Method::DATA) {
            assert_eq!(message.attribute::<Data<'_>>(), Ok(None), "{datagram:02x?}");
            let XorPeerAddress(peer) = message.attribute().expect("readable").expect("it names the peer");
            return Some((peer, message.attribute().expect("readable").expect("it has the attribute")));
        }
    }
    None
}

fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_dropped_packets_total", &[("reason", reason)])
}

/// What somebody complains about.
#[derive(Clone, Copy)]
enum Error {
    Unreachable,
    TimeExceeded,
    ParameterProblem,
}

/// A frame from the router to the relay, with an ICMP packet of the router about a datagram that is said to have gone
/// from a relayed address to this destination.
fn complaint(relayed: SocketAddr, destination: SocketAddr, error: Error) -> Vec<u8> {
    let about = Frame::new(relayed, destination, *b"sixteen bytes...");
    let about = &about.bytes()[about.layer3()..];
    let ethernet = PacketBuilder::ethernet2(ROUTER_MAC, RELAY_MAC);
    let mut frame = Vec::new();
    let written = match (router(relayed.ip()), relayed.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let kind = match error {
                Error::Unreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port),
                Error::TimeExceeded => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
                Error::ParameterProblem => {
                    Icmpv4Type::ParameterProblem(icmpv4::ParameterProblemHeader::PointerIndicatesError(9))
                }
            };
            ethernet.ipv4(source.octets(), target.octets(), 64).icmpv4(kind).write(&mut frame, about)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let kind = match error {
                Error::Unreachable => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port),
                Error::TimeExceeded => Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded),
                Error::ParameterProblem => Icmpv6Type::ParameterProblem(etherparse::icmpv6::ParameterProblemHeader {
                    code: etherparse::icmpv6::ParameterProblemCode::UnrecognizedNextHeader,
                    pointer: 6,
                }),
            };
            ethernet.ipv6(source.octets(), target.octets(), 64).icmpv6(kind).write(&mut frame, about)
        }
        _ => unreachable!("one family"),
    };
    written.expect("a vector takes everything");
    frame
}

/// The router's address on the relay's link.
fn router(relay: IpAddr) -> IpAddr {
    match relay {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [a, b, c, 1].into()
        }
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[15] = 1;
            octets.into()
        }
    }
}
