//! The relay in a routed network, with the kernel path: what goes over the wire, and what stays when it goes.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::{self, PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::{RELAY_LINK, ROUTER_LINK};
use hairpin_tests::lab::turn::{Client, channel_data};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Call, Family, Lab, Metrics, Relay};
use rustix::process::Signal;

const NATIVE: [&str; 2] = ["--xdp", "native"];
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(2);
/// The type of a Data indication (RFC 8656 section 17).
const DATA_INDICATION: [u8; 2] = [0x00, 0x17];
/// What a relay has besides the addresses that its routes prefer.
const SECOND_ADDRESSES: &str = "addr add 11.3.0.77/24 dev eth0\naddr add 2a0e:11:3::77/64 dev eth0 nodad";

#[test]
fn what_the_kernel_sends_has_right_checksums_in_both_directions_and_families() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &NATIVE);
    for family in Family::ALL {
        let mut call = Call::in_kernel(&lab, &relay, family);
        let before = relay.metrics().relayed("kernel");
        let wire = Wire::open(&lab.router, ROUTER_LINK);
        let payloads: Vec<Vec<u8>> = (0..=1400).step_by(20).map(|length| noise(length, 7)).collect();
        for payload in &payloads {
            call.exchange(payload);
        }
        // Taking a frame apart checks lengths and checksums.
        let sent: Vec<_> = wire.drain(QUIET).iter().filter_map(|frame| Datagram::of(frame)).collect();
        let server = SocketAddr::new(Lab::relay_ip(family), PORT);
        for payload in &payloads {
            let one = |source, destination, payload: &[u8]| {
                let is = |it: &&Datagram| (it.source, it.destination) == (source, destination) && it.payload == payload;
                assert_eq!(sent.iter().filter(is).count(), 1, "{} bytes from {source}", payload.len());
            };
            one(call.relayed, call.peer_address(), payload);
            one(server, call.client.local(), &channel_data(CHANNEL, payload));
        }
        // A router on the way in and the relay itself have each taken one.
        assert!(sent.iter().all(|datagram| datagram.hop_limit == 62), "{family:?}");
        let forwarded = relay.metrics().relayed("kernel") - before;
        assert_eq!(forwarded, 2 * payloads.len() as u64, "all of it went through the kernel");
        call.client.refresh(0).expect("an allocation can be released");
        relay.wait_for("the channel is gone", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
    }
    relay.stop();
}

#[test]
fn a_channel_that_is_refreshed_stays_in_the_kernel() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &NATIVE);
    let mut call = Call::in_kernel(&lab, &relay, Family::V4);
    call.exchange(b"before");
    for _ in 0..3 {
        let peer = call.peer_address();
        call.client.bind_channel(CHANNEL, peer).expect("the same binding again is a refresh");
        call.client.refresh(600).expect("an allocation can be refreshed");
        call.client.permit(peer.ip()).expect("a permission can be refreshed");
    }
    let before = relay.metrics();
    for _ in 0..10 {
        call.exchange(b"after");
    }
    let after = relay.metrics();
    assert_eq!(after.relayed("kernel") - before.relayed("kernel"), 20);
    assert_eq!(after.relayed("userspace"), before.relayed("userspace"));
    relay.stop();
}

#[test]
fn a_released_allocation_leaves_the_kernel_at_once() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &NATIVE);
    for family in Family::ALL {
        let mut call = Call::in_kernel(&lab, &relay, family);
        call.exchange(b"before");
        assert_eq!(call.client.refresh(0), Ok(0));
        relay.wait_for("nothing is left of the allocation", |metrics| {
            ["hairpin_flows", "hairpin_allocations", "hairpin_relay_ports_in_use"]
                .iter()
                .all(|gauge| metrics.sum(gauge, &[]) == 0)
        });
        assert_eq!(lab.relay.udp_sockets(call.relayed.port()), 0, "the relayed port is free");
        // For the kernel its port is like any other now.
        let before = relay.metrics();
        neighbour(&lab, family).send_to(b"too late", call.relayed).expect("the lab has a route");
        let after =
            relay.wait_for("the port has no role", |metrics| passed(metrics, "not_ours") > passed(&before, "not_ours"));
        assert_eq!(passed(&after, "no_flow"), passed(&before, "no_flow"));
        call.expect_silence();
        assert_eq!(relay.metrics().relayed("kernel"), before.relayed("kernel"));
    }
    relay.stop();
}

#[test]
fn answers_and_data_come_from_the_address_that_was_asked() {
    let lab = Lab::routed();
    lab.relay.ip(SECOND_ADDRESSES);
    for xdp in ["off", "native"] {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for second in ["11.3.0.77", "2a0e:11:3::77"] {
            // The client's socket is connected: it hears nothing from another address.
            let mut call = Call::through(&lab, second.parse().expect("an address"), 0, 0);
            for length in [0, 1, 1000] {
                call.exchange(&noise(length, 11));
            }
            let neighbour = neighbour(&lab, if call.relayed.is_ipv4() { Family::V4 } else { Family::V6 });
            neighbour.send_to(b"in an indication", call.relayed).expect("the lab has a route");
            assert!(call.client.receive(PATIENCE).is_some_and(|message| message[..2] == DATA_INDICATION));
            assert_eq!(call.client.refresh(0), Ok(0));
        }
        relay.stop();
    }
}

#[test]
fn dont_fragment_holds_for_one_datagram() {
    let lab = Lab::routed();
    let mut relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let mut call = Call::new(&lab, Family::V4);
    let peer = call.peer_address();
    let wire = Wire::open(&lab.router, ROUTER_LINK);
    // One at a time, then in one batch.
    for at_once in [false, true] {
        if at_once {
            relay.process().signal(Signal::STOP);
        }
        for (number, dont_fragment) in [(0, false), (1, true), (2, false)] {
            call.client.send_indication_with(peer, &[number], dont_fragment);
            if !at_once {
                assert_eq!(receive(&call.peer, PATIENCE), Some(vec![number]));
            }
        }
        relay.process().signal(Signal::CONT);
        let next = || wire.find(PATIENCE, |frame| Datagram::of(frame).filter(|sent| sent.destination == peer));
        let sent: Vec<_> = (0..3).filter_map(|_| next().map(|sent| (sent.payload, sent.dont_fragment))).collect();
        assert_eq!(sent, [(vec![0], false), (vec![1], true), (vec![2], false)], "at once: {at_once}");
    }
    relay.stop();
}

#[test]
fn the_relay_host_and_denied_peers_are_forbidden() {
    let lab = Lab::routed();
    lab.relay.ip(SECOND_ADDRESSES);
    let relay = Relay::start(&lab.relay, &["--deny-peer", "11.2.0.0/24"]);
    let local = SocketAddr::new(Lab::client_ip(Family::V4, 0), 0);
    let server = SocketAddr::new(Lab::relay_ip(Family::V4), PORT);
    let mut client = Client::new(&lab.clients[0], local, server, USER, PASSWORD);
    client.allocate().expect("the relay has room");
    let mut answer = |peer: &str| client.permit(peer.parse().expect("an address")).map_err(|refused| refused.0);
    for forbidden in ["11.3.0.77", "11.2.0.2", "127.0.0.1", "10.0.0.1"] {
        assert_eq!(answer(forbidden), Err(403), "{forbidden}");
    }
    assert_eq!(answer("11.2.1.2"), Ok(()));
    // Relayed addresses are on the relay's own: clients may meet there.
    assert_eq!(answer("11.3.0.2"), Ok(()));
    relay.stop();
}

#[test]
fn data_before_a_release_still_arrives() {
    let lab = Lab::routed();
    let mut relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let mut call = Call::new(&lab, Family::V4);
    let process = relay.process();
    process.signal(Signal::STOP);
    call.client.send_on_channel(CHANNEL, b"the last word");
    thread::scope(|scope| {
        // Both wait for the relay, which finds them in one batch.
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            process.signal(Signal::CONT);
        });
        assert_eq!(call.client.refresh(0), Ok(0));
    });
    assert_eq!(receive(&call.peer, PATIENCE).as_deref(), Some(&b"the last word"[..]));
    relay.stop();
}

#[test]
fn a_relayed_address_whose_socket_is_lost_ends_everywhere() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &NATIVE);
    let call = Call::in_kernel(&lab, &relay, Family::V4);
    call.exchange(b"before");
    // As an administrator ends a socket, or the kernel one whose address goes.
    let port = call.relayed.port();
    let killed = run(lab.relay.command("ss").args(["-K", "-u", "-a", &format!("sport = :{port}")]));
    if killed.stderr.contains("not supported") {
        eprintln!("skipped: this kernel lets nobody end a socket (CONFIG_INET_DIAG_DESTROY)");
        return;
    }
    killed.expect_success();
    relay.wait_for("nothing is left of the allocation", |metrics| {
        ["hairpin_flows", "hairpin_allocations", "hairpin_relay_ports_in_use"]
            .iter()
            .all(|gauge| metrics.sum(gauge, &[]) == 0)
    });
    assert_eq!(lab.relay.udp_sockets(port), 0);
    call.expect_silence();
    relay.stop();
}

#[test]
fn a_burst_larger_than_the_link_arrives_in_fragments() {
    let lab = Lab::routed();
    let mut relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    for family in Family::ALL {
        let call = Call::new(&lab, family);
        let burst: Vec<Vec<u8>> = (0..4).map(|number| noise(1600, number)).collect();
        relay.process().signal(Signal::STOP);
        for data in &burst {
            call.client.send_on_channel(CHANNEL, data);
        }
        // A train of datagrams of one length goes through the stack in one trip, which must not be the end of it here.
        relay.process().signal(Signal::CONT);
        for data in &burst {
            assert!(receive(&call.peer, PATIENCE).as_ref() == Some(data), "{family:?}: lost, damaged or out of order");
        }
    }
    relay.stop();
}

#[test]
fn only_the_peer_of_a_channel_comes_through_it() {
    let lab = Lab::routed_with(1, 2);
    let relay = Relay::start(&lab.relay, &NATIVE);
    let call = Call::in_kernel(&lab, &relay, Family::V4);
    // Another host has no permission.
    let stranger = bind(&lab.peers[1], SocketAddr::new(Lab::peer_ip(Family::V4, 1), call.peer_address().port()));
    stranger.send_to(b"stranger", call.relayed).expect("the lab has a route");
    assert_eq!(call.client.receive(QUIET), None);
    // Another port of the same host has the permission, and not the channel: its data comes in an indication.
    let neighbour = neighbour(&lab, Family::V4);
    neighbour.send_to(b"neighbour", call.relayed).expect("the lab has a route");
    let indication = call.client.receive(PATIENCE).expect("a Data indication");
    assert_eq!(indication[..2], DATA_INDICATION, "{indication:02x?}");
    assert!(indication.windows(9).any(|window| window == b"neighbour"));
    // A client's ChannelData counts only from its own address.
    let thief = bind(&lab.clients[0], SocketAddr::new(Lab::client_ip(Family::V4, 0), 0));
    let server = SocketAddr::new(Lab::relay_ip(Family::V4), PORT);
    thief.send_to(&channel_data(CHANNEL, b"thief"), server).expect("the lab has a route");
    assert_eq!(receive(&call.peer, QUIET), None);
    call.exchange(b"the call goes on");
    relay.stop();
}

#[test]
fn the_best_mode_is_taken_where_the_operator_leaves_the_choice() {
    let lab = Lab::routed();
    lab.relay.ip("tuntap add tap0 mode tap\nlink set tap0 up");
    // The driver of a tap knows XDP, that of the loopback does not. For a veth, what matters is at its other end, which
    // nobody can see.
    for (interface, mode, attached) in [("tap0", "native", 1), ("lo", "generic", 1), (RELAY_LINK, "none", 0)] {
        let relay = Relay::start(&lab.relay, &["--interface", interface]);
        let metrics = relay.metrics();
        let labels = [("interface", interface)];
        let modes: Vec<_> = metrics.of("hairpin_xdp_attached", &labels).collect();
        assert_eq!(modes.len(), 1, "{metrics:#?}");
        assert_eq!((modes[0].labels["mode"].as_str(), modes[0].count()), (mode, attached), "{interface}");
        let programs = relay::attached_programs(&lab.relay);
        assert_eq!(programs.lines().count() as u64, attached, "{programs}");
        assert!(programs.contains(interface) || attached == 0, "{programs}");
        Call::new(&lab, Family::V6).exchange(b"in userspace or not");
        relay.stop();
    }
}

#[test]
fn generic_xdp_forwards_the_same() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "generic"]);
    let labels = [("interface", "eth0"), ("mode", "generic")];
    assert_eq!(relay.metrics().sum("hairpin_xdp_attached", &labels), 1);
    let call = Call::in_kernel(&lab, &relay, Family::V4);
    let before = relay.metrics().relayed("kernel");
    call.exchange(&noise(1000, 3));
    assert_eq!(relay.metrics().relayed("kernel") - before, 2);
    relay.stop();
}

#[test]
fn without_xdp_everything_is_relayed_in_userspace() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    assert_eq!(relay::attached_programs(&lab.relay), "");
    for family in Family::ALL {
        let call = Call::new(&lab, family);
        for length in [0, 1, 2, 3, 4, 100, 1400] {
            call.exchange(&noise(length, 5));
        }
    }
    let metrics = relay.metrics();
    assert_eq!((metrics.relayed("kernel"), metrics.relayed("userspace")), (0, 2 * 2 * 7));
    relay.stop();
}

#[test]
fn a_stopped_relay_leaves_nothing_behind() {
    let lab = Lab::routed();
    for _ in 0..2 {
        let relay = Relay::start(&lab.relay, &NATIVE);
        let call = Call::in_kernel(&lab, &relay, Family::V4);
        call.exchange(b"while it runs");
        // This checks the exit code and that the program is detached.
        relay.stop();
        assert_eq!(lab.relay.udp_sockets(PORT), 0, "the port is free");
        assert_eq!(lab.relay.udp_sockets(call.relayed.port()), 0, "the relayed port is free");
        call.expect_silence();
    }
}

#[test]
fn a_killed_relay_leaves_no_forwarding_in_the_kernel() {
    let lab = Lab::routed();
    let mut relay = Relay::start(&lab.relay, &NATIVE);
    let call = Call::in_kernel(&lab, &relay, Family::V4);
    call.exchange(b"while it lives");
    relay.process().signal(Signal::KILL);
    let end = Instant::now() + Duration::from_secs(5);
    while !relay::attached_programs(&lab.relay).is_empty() {
        assert!(Instant::now() < end, "{}", relay::attached_programs(&lab.relay));
        thread::sleep(Duration::from_millis(20));
    }
    call.expect_silence();
    drop(relay);
    Call::in_kernel(&lab, &Relay::start(&lab.relay, &NATIVE), Family::V4).exchange(b"and again");
}

/// Another socket on the host of the peer.
fn neighbour(lab: &Lab, family: Family) -> UdpSocket {
    bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(family, 0), 0))
}

/// How many packets XDP left to the stack for a reason.
fn passed(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_xdp_passed_packets_total", &[("reason", reason)])
}

/// Bytes without a pattern that a wrong checksum could survive.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9).wrapping_add(length as u32) | 1;
    let step = || {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}
