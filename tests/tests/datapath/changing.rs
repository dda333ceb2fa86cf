//! What may change while packets flow: limits, listeners, relay addresses, and with them the interfaces.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin::datapath::{Datapath, Direction, Flow, Handle, Limits, Options, Share, XdpMode};
use hairpin_common::limit::Limit;
use hairpin_common::maps::{PEER_IS_RELAYED, PortRole, Rewrite, crossed};
use hairpin_common::verdict::Verdict;
use hairpin_proto::turn::RelayAddress;
use hairpin_tests::lab;
use hairpin_tests::lab::Family;
use hairpin_tests::lab::call::receive;
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::turn::channel_data;

use super::lab::{Lab, channel, flow4, octets, scopes};
use super::moving::{CHANNEL, PATIENCE, QUIET, Sockets, collect, numbered, start};
use super::{options, settled, soon};

const ROUNDS: u32 = 40;

/// A limit that lets three datagrams pass, and then none for as long as a test takes.
fn three_at_once() -> Limits {
    const MINUTE: u64 = 60_000_000_000;
    let limit = Limit { cost: MINUTE << 16, burst: 2 * MINUTE + MINUTE / 2 };
    Limits { allocation_packets: limit, ..Limits::default() }
}

/// A call that the kernel forwards, both ways.
fn call(lab: &lab::Lab, family: Family) -> (Sockets, Datapath) {
    let sockets = Sockets::open(lab, family);
    let datapath = start(lab, family);
    let handle = datapath.handle();
    handle.claim_port(50_000, PortRole::Relayed);
    sockets.flows(0).into_iter().for_each(|flow| handle.install(flow, soon()));
    assert!(handle.flush(PATIENCE), "the writer does not answer");
    let end = Instant::now() + PATIENCE;
    let open = |send: &dyn Fn(), arrives: &dyn Fn() -> bool| {
        // Until the kernel knows all neighbours.
        while !arrives() {
            assert!(Instant::now() < end, "{family:?}: nothing arrives at all: {:?}", handle.counters());
            send();
        }
    };
    let client = &sockets.clients[0];
    open(&|| _ = sockets.peer.send(&[0; 4]), &|| receive(client, QUIET).is_some());
    open(&|| _ = client.send(&channel_data(CHANNEL, &[0; 4])), &|| receive(&sockets.peer, QUIET).is_some());
    for socket in [client, &sockets.peer, &sockets.relayed, &sockets.server] {
        while receive(socket, QUIET).is_some() {}
    }
    (sockets, datapath)
}

/// Whether what the client sends comes to the peer.
fn comes_through(sockets: &Sockets, data: &[u8]) -> bool {
    sockets.clients[0].send(&channel_data(CHANNEL, data)).expect("the way is open");
    receive(&sockets.peer, QUIET).is_some_and(|found| found == data)
}

fn is_skipped() -> bool {
    let skipped = std::env::var_os("HAIRPIN_SKIP_BPF").is_some_and(|value| value == "1");
    if skipped {
        eprintln!("skipped: HAIRPIN_SKIP_BPF=1");
    }
    skipped
}

#[test]
fn nothing_of_a_call_is_lost_or_goes_up_while_everything_around_it_changes() {
    if is_skipped() {
        return;
    }
    let lab = lab::Lab::routed_with(2, 1);
    for family in Family::ALL {
        let (sockets, datapath) = call(&lab, family);
        let handle = datapath.handle();
        let (number, done) = (AtomicU32::new(0), AtomicBool::new(false));
        let (arrived, passed) = thread::scope(|scope| {
            let at_client = scope.spawn(|| collect(&sockets.clients[0], &done));
            let at_relay = scope.spawn(|| collect(&sockets.relayed, &done));
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let next = number.fetch_add(1, Ordering::SeqCst) + 1;
                    sockets.peer.send(&next.to_be_bytes()).expect("the way is open");
                    thread::sleep(Duration::from_micros(100));
                }
            });
            for round in 0..ROUNDS {
                change_all(&handle, family, round);
                assert!(handle.flush(PATIENCE), "the writer does not answer");
                thread::sleep(Duration::from_millis(2));
            }
            done.store(true, Ordering::SeqCst);
            (at_client.join().expect("it receives"), at_relay.join().expect("it receives").len())
        });
        let numbers: Vec<_> = arrived.iter().map(|datagram| numbered(datagram)).collect();
        let last = number.load(Ordering::SeqCst);
        assert!(last > ROUNDS, "{family:?}: there was traffic");
        assert_eq!((numbers, passed), ((1..=last).collect(), 0), "{family:?}");
        assert_eq!(handle.counters().flows, 3, "{family:?}");
        datapath.shutdown();
    }
}

/// Other limits, listeners and relay addresses than in the round before; none concerns the call.
fn change_all(handle: &Handle, family: Family, round: u32) {
    let limit = Limit::per_second(1_000_000 + u64::from(round), 1_000_000_000 << (round % 2));
    let limits = Limits { allocation_packets: limit, source_packets: limit, ..Limits::default() };
    handle.set_limits(if round.is_multiple_of(3) { Limits::default() } else { limits });
    let relay = lab::Lab::relay_ip(family);
    let ports = if round.is_multiple_of(2) { vec![PORT] } else { vec![5349, PORT, 443] };
    assert!(handle.set_listeners(ports.into_iter().map(|port| SocketAddr::new(relay, port)).collect()));
    let other = RelayAddress { bind: relay, public: lab::Lab::client_ip(family, 1) };
    let addresses = if round.is_multiple_of(2) { vec![relay.into()] } else { vec![other, relay.into()] };
    assert!(handle.set_relay_addresses(addresses));
}

#[test]
fn a_limit_stops_what_comes_after_it_and_its_end_lets_the_next_datagram_pass() {
    if is_skipped() {
        return;
    }
    let lab = lab::Lab::routed_with(2, 1);
    for family in Family::ALL {
        let (sockets, datapath) = call(&lab, family);
        let handle = datapath.handle();
        let dropped = || handle.counters().verdicts[Verdict::AllocationPacketRate as usize].packets;
        handle.set_limits(three_at_once());
        let passed = [0, 1, 2, 3, 4].map(|number| comes_through(&sockets, &[number; 4]));
        assert_eq!((passed, dropped()), ([true, true, true, false, false], 2), "{family:?}");
        assert_eq!(handle.admit(3, Direction::ToPeer, 4, now()), Err(Verdict::AllocationPacketRate), "the same budget");
        handle.set_limits(Limits::default());
        assert!(comes_through(&sockets, b"free") && dropped() == 2, "{family:?}");
        assert_eq!(handle.admit(3, Direction::ToPeer, 4, now()), Ok(()));
        datapath.shutdown();
    }
}

#[test]
fn a_limit_of_its_own_is_one_budget_on_both_paths_and_ends_with_the_index() {
    if is_skipped() {
        return;
    }
    let lab = lab::Lab::routed_with(2, 1);
    for family in Family::ALL {
        let (sockets, datapath) = call(&lab, family);
        let handle = datapath.handle();
        let admit = |index| handle.admit(index, Direction::ToPeer, 4, now());
        handle.limit_allocation(3, three_at_once().allocation_packets, Limit::NONE);
        let passed = [0, 1, 2, 3].map(|number| comes_through(&sockets, &[number; 4]));
        assert_eq!(passed, [true, true, true, false], "{family:?}");
        assert_eq!((admit(3), admit(2)), (Err(Verdict::AllocationPacketRate), Ok(())), "{family:?}");
        handle.reset_allocation(3);
        let passed = [4, 5, 6, 7].map(|number| comes_through(&sockets, &[number; 4]));
        assert_eq!((passed, admit(3)), ([true; 4], Ok(())), "{family:?}");
        datapath.shutdown();
    }
}

fn now() -> u64 {
    hairpin_tests::program::sys::monotonic_nanoseconds()
}

#[test]
fn without_the_program_limits_come_and_go_all_the_same() {
    let off = Datapath::start(&Options { mode: XdpMode::Off, ..options() }).expect("nothing is needed for that");
    let handle = off.handle();
    let passed = || (0..5).filter(|_| handle.admit(3, Direction::ToPeer, 100, now()).is_ok()).count();
    assert_eq!(passed(), 5);
    handle.set_limits(three_at_once());
    assert_eq!(passed(), 3);
    handle.set_limits(Limits::default());
    assert_eq!(passed(), 5);
    handle.reset_allocation(3);
    handle.limit_allocation(3, three_at_once().allocation_packets, Limit::NONE);
    assert_eq!(passed(), 3, "of its own");
    handle.reset_allocation(3);
    assert_eq!(passed(), 5);
    assert!(!handle.set_listeners(options().listeners), "it stays off");
    assert!(!handle.set_relay_addresses(options().relay_addresses), "it stays off");
    assert_eq!(handle.counters().records, Share::default());
}

#[test]
fn listeners_come_and_go_with_their_ports_and_records() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    let set = |listeners: &[&str]| {
        assert!(handle.set_listeners(listeners.iter().map(|text| text.parse().unwrap()).collect()));
        settled(&datapath);
        let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().unwrap()).collect();
        listeners.iter().filter(|listener| maps.mark(**listener).is_some()).count()
    };
    let roles = || [3478, 5349, 443].map(|port| maps.role(port));
    let (on, off) = (PortRole::Listener, PortRole::None);
    assert_eq!((maps.listeners(), roles()), (2, [on, off, off]));
    handle.install(flow4(), soon());

    assert_eq!(set(&["192.0.2.1:3478", "[2001:db8::1]:5349", "192.0.2.1:443"]), 3);
    assert_eq!((maps.listeners(), roles()), (3, [on, on, on]));
    assert_eq!(set(&["192.0.2.1:5349"]), 1);
    assert_eq!((maps.listeners(), roles()), (1, [off, on, off]));
    set(&["0.0.0.0:443"]);
    assert_eq!((maps.listeners(), roles()), (2, [off, off, on]), "both addresses of the host");
    assert_eq!(maps.len(), 2, "the flow is where it was");
    set(&[]);
    assert_eq!((maps.listeners(), roles()), (0, [off, off, off]));
}

#[test]
fn a_peer_becomes_another_client_of_this_relay_and_a_stranger_again() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    let flow = Flow { scope: channel("203.0.113.7:6000"), ..flow4() };
    for flow in scopes(flow) {
        handle.install(flow, soon());
    }
    settled(&datapath);
    let records = || {
        let permission = maps.record("203.0.113.7:0".parse().unwrap(), flow.relayed, 0).expect("it is there");
        (maps.to_peer(&flow).expect("it is there"), permission)
    };
    let before = records();
    assert_eq!((before.0.flags, maps.len()), (0, 5));

    let [inside, outside]: [IpAddr; 2] = ["203.0.113.1", "203.0.113.7"].map(|text| text.parse().unwrap());
    let mut addresses = options().relay_addresses;
    addresses.insert(0, RelayAddress { bind: inside, public: outside });
    assert!(handle.set_relay_addresses(addresses));
    settled(&datapath);
    let (to_peer, permission) = records();
    assert_eq!((to_peer.flags, to_peer.destination), (PEER_IS_RELAYED, octets(inside)));
    let [from, to] =
        crossed(permission.peer_next_hop).map(|index| maps.relay_addresses.get(&u32::from(index), 0).unwrap());
    assert_eq!((from.bind, to.bind, to.public), (octets(flow.relayed.ip()), octets(inside), octets(outside)));
    assert!(maps.is_complete(flow.allocation));

    assert!(handle.set_relay_addresses(options().relay_addresses));
    settled(&datapath);
    let (to_peer, permission) = records();
    assert_eq!(to_peer.next_hop, permission.peer_next_hop, "by an entry of the next hops that is used anew");
    let to_peer = Rewrite { next_hop: before.0.next_hop, ..to_peer };
    let permission = Rewrite { peer_next_hop: before.1.peer_next_hop, ..permission };
    assert_eq!(((to_peer, permission), maps.len(), maps.is_complete(flow.allocation)), (before, 5, true));
    assert_eq!(handle.counters().insert_failures, 0);
}

#[test]
fn an_interface_that_a_new_address_lies_on_gets_the_program_unless_some_were_named() {
    let Some(lab) = Lab::new() else { return };
    for (interfaces, expected) in [(vec!["e0".to_owned()], "e0"), (Vec::new(), "e0 e1")] {
        for by_listener in [true, false] {
            let datapath = lab.start(Options { interfaces: interfaces.clone(), ..options() });
            let handle = datapath.handle();
            assert_eq!(datapath.summary(), "XDP: native on e0");
            let elsewhere: IpAddr = "203.0.113.1".parse().unwrap();
            if by_listener {
                assert!(handle.set_listeners([options().listeners, vec![SocketAddr::new(elsewhere, 3478)]].concat()));
            } else {
                assert!(handle.set_relay_addresses([options().relay_addresses, vec![elsewhere.into()]].concat()));
            }
            settled(&datapath);
            let attached = |name: &str| lab.link(name)["xdp"]["prog"]["id"].as_u64();
            let there: Vec<_> = ["e0", "e1"].into_iter().filter(|name| attached(name).is_some()).collect();
            assert_eq!((there.join(" ").as_str(), datapath.status().len()), (expected, there.len()));

            // What has the program keeps it.
            assert!(handle.set_listeners(options().listeners) && handle.set_relay_addresses(options().relay_addresses));
            settled(&datapath);
            assert_eq!(there, ["e0", "e1"].into_iter().filter(|name| attached(name).is_some()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn counters_tell_how_full_the_maps_are() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let shares = || {
        settled(&datapath);
        let counters = datapath.handle().counters();
        (counters.records, counters.next_hops)
    };
    let share = |used, capacity| Share { used, capacity };
    assert_eq!(shares(), (share(2, 64), share(0, 1023)), "the listeners");
    for flow in scopes(flow4()) {
        datapath.handle().install(flow, soon());
    }
    let (records, next_hops) = shares();
    assert_eq!(records, share(7, 64));
    assert!(next_hops.used > 0 && next_hops.used <= 2, "{next_hops:?}");
    for flow in scopes(flow4()) {
        datapath.handle().remove(flow);
    }
    assert_eq!(shares(), (share(2, 64), share(0, 1023)));
}
