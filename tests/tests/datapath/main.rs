//! The datapath against a real kernel: what is in the BPF maps after commands, and after routes and neighbours changed.
//!
//! Each test has a network namespace of its own for the relay, with two veth links to a second one where the gateways are.

mod changing;
mod counting;
mod lab;
mod media;
mod moving;

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hairpin::datapath::Limits;
use hairpin::datapath::{AttachedMode, Datapath, Direction, Flow, Options, Scope, XdpMode};
use hairpin_common::limit::Limit;
use hairpin_common::maps::{NextHop, PEER_IS_RELAYED, PortRole, VOUCHED, crossed};
use hairpin_common::verdict::Verdict;
use hairpin_proto::turn::RelayAddress;

use lab::{
    CHANGED_MAC, GATEWAY_MAC, Lab, OTHER_GATEWAY_MAC, OTHER_RELAY_MAC, RELAY_MAC, channel, channel_of, flow4, flow6,
    ip, octets, run, scopes, text,
};

/// Longer than the debounce of route changes, the sweep, and a slow machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn options() -> Options {
    Options {
        mode: XdpMode::Native,
        interfaces: vec!["e0".to_owned()],
        max_allocations: 16,
        max_media: 0,
        records: 64,
        limits: Limits::default(),
        answer_binding: true,
        listeners: vec!["192.0.2.1:3478".parse().unwrap(), "[2001:db8::1]:3478".parse().unwrap()],
        relay_addresses: vec![flow4().relayed.ip().into(), flow6().relayed.ip().into()],
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn settled(datapath: &Datapath) {
    assert!(datapath.flush(PATIENCE), "the writer does not answer");
}

/// Waits until a condition holds, and fails with what was seen last.
#[track_caller]
fn eventually<T: Debug>(patience: Duration, mut look: impl FnMut() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + patience;
    loop {
        let seen = look();
        if is_right(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "still {seen:?} after {patience:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_channel_is_two_records_with_resolved_next_hops_until_it_is_removed() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    assert_eq!(datapath.summary(), "XDP: native on e0");

    for flow in [flow4(), flow6()] {
        handle.install(flow, soon());
        settled(&datapath);
        assert_eq!(maps.to_client(&flow).expect("a record for the peer").channel, [0x40, 0x01]);
        // The IPv4 gateway is not known yet: installing has to make the kernel ask for it.
        let hop = eventually(PATIENCE, || maps.peer_hop(&flow), |hop| hop.is_some_and(|hop| hop.interface != 0));
        let expected = NextHop {
            interface: lab.interface_index("e0"),
            mtu: 1500,
            destination: GATEWAY_MAC,
            source: RELAY_MAC,
            ..NextHop::default()
        };
        assert_eq!(hop, Some(expected));
    }
    assert_eq!((maps.len(), handle.counters().flows), (4, 2));

    handle.remove(flow4());
    handle.remove(flow6());
    settled(&datapath);
    assert_eq!((maps.len(), handle.counters().flows, handle.counters().insert_failures), (0, 0, 0));

    datapath.shutdown();
    assert!(lab.link("e0")["xdp"].is_null(), "still attached: {}", lab.link("e0"));
    handle.install(flow4(), soon());
}

#[test]
fn a_call_between_ip_versions_is_in_the_kernel_in_all_its_parts() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    let flow = Flow { relayed: flow6().relayed, scope: flow6().scope, ..flow4() };
    let (_, peer) = channel_of(&flow);
    for flow in scopes(flow) {
        handle.install(flow, soon());
    }
    settled(&datapath);
    assert_eq!((maps.len(), maps.listeners(), handle.counters().flows), (5, 2, 3));
    assert!(maps.is_complete(flow.allocation));

    let send = maps.record(flow.client, flow.server, 6).expect("a record for Send indications");
    assert_eq!((send.source, send.destination, send.family), (octets(flow.relayed.ip()), [0; 16], 6));
    let data = maps.record(SocketAddr::new(peer.ip(), 0), flow.relayed, 0).expect("a record for any port of the peer");
    assert_eq!((data.source, data.destination, data.family), (octets(flow.server.ip()), octets(flow.client.ip()), 4));
    let to_peer = maps.to_peer(&flow).expect("a record for the channel");
    assert_eq!((data.peer_next_hop, to_peer.family, to_peer.flags), (to_peer.next_hop, 6, 0));
    assert_ne!((data.next_hop, data.peer_next_hop), (0, 0));
    assert_eq!(maps.mark(flow.relayed).map(|mark| mark.allocation), Some(flow.allocation));

    for flow in scopes(flow).into_iter().rev() {
        handle.remove(flow);
    }
    handle.reset_allocation(flow.allocation);
    settled(&datapath);
    assert_eq!((maps.len(), handle.counters().flows), (0, 0));
    assert!(maps.is_complete(flow.allocation));
}

#[test]
fn a_call_between_two_clients_of_this_relay_needs_no_route_to_itself() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    let flow = Flow { scope: channel("192.0.2.1:50002"), ..flow4() };
    for flow in scopes(flow) {
        handle.install(flow, soon());
    }
    settled(&datapath);
    assert_eq!(maps.len(), 5);
    let to_peer = maps.to_peer(&flow).expect("a record for the channel");
    assert_eq!((to_peer.next_hop, to_peer.flags), (0, PEER_IS_RELAYED));
    assert!(maps.is_complete(flow.allocation));
}

#[test]
fn a_route_that_takes_a_permission_out_of_the_kernel_lets_strangers_reach_userspace() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    let [relay, permission, _] = scopes(flow4());
    handle.install(relay, soon());
    handle.install(permission, soon());
    settled(&datapath);
    assert!(maps.is_complete(relay.allocation));
    lab.on_relay("route add blackhole 198.51.100.7/32");
    eventually(PATIENCE, || maps.len(), |len| *len == 2);
    assert!(!maps.is_complete(relay.allocation));
    lab.on_relay("route delete blackhole 198.51.100.7/32");
    eventually(PATIENCE, || maps.len(), |len| *len == 3);
    assert!(!maps.is_complete(relay.allocation), "only the next allocation begins anew");
}

#[test]
fn a_listener_everywhere_follows_the_addresses_of_this_host() {
    let Some(lab) = Lab::new() else { return };
    let listeners = vec!["0.0.0.0:3478".parse().unwrap(), "[::]:5349".parse().unwrap()];
    let _datapath = lab.start(Options { listeners, ..options() });
    let maps = lab.maps();
    let is_ours = |text: &str| maps.mark(text.parse().unwrap()).is_some();
    for ours in ["192.0.2.1:3478", "203.0.113.1:3478", "[2001:db8::1]:5349"] {
        assert!(is_ours(ours), "{ours}");
    }
    // Loopback and link-local addresses are left to userspace.
    assert_eq!(maps.listeners(), 3);
    lab.on_relay("address add 192.0.2.77/24 dev e0");
    eventually(PATIENCE, || is_ours("192.0.2.77:3478"), |is_ours| *is_ours);
    lab.on_relay("address delete 203.0.113.1/24 dev e1");
    eventually(PATIENCE, || is_ours("203.0.113.1:3478"), |is_ours| !is_ours);
    assert_eq!(maps.listeners(), 3);
}

#[test]
fn limits_are_counted_in_the_programs_memory_and_without_it() {
    const SECOND: u64 = 1_000_000_000;
    let Some(lab) = Lab::new() else { return };
    let limits = Limits { allocation_packets: Limit::per_second(1, 0), ..Limits::default() };
    let datapath = lab.start(Options { limits, ..options() });
    let maps = lab.maps();
    let handle = datapath.handle();
    assert_eq!(handle.admit(3, Direction::ToPeer, 100, SECOND), Ok(()));
    assert_eq!(handle.admit(3, Direction::ToPeer, 100, SECOND), Err(Verdict::AllocationPacketRate));
    assert_eq!(maps.states.get(&3, 0).unwrap().to_peer.packets.0, 2 * SECOND, "when the next one is due");
    handle.reset_allocation(3);
    assert_eq!(maps.states.get(&3, 0).unwrap().to_peer.packets.0, 0);
    assert!(datapath.map_bytes() > 0);
    drop(datapath);

    let off = Datapath::start(&Options { mode: XdpMode::Off, limits, ..options() }).unwrap();
    assert!(!off.handle().is_active());
    assert_eq!(off.handle().admit(3, Direction::ToPeer, 100, SECOND), Ok(()));
    assert_eq!(off.handle().admit(3, Direction::ToPeer, 100, SECOND), Err(Verdict::AllocationPacketRate));
}

#[test]
fn a_changed_neighbour_reaches_the_next_hop() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let maps = lab.maps();
    datapath.handle().install(flow4(), soon());
    settled(&datapath);
    let destination = |hop: &Option<NextHop>| hop.map(|hop| hop.destination);
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| destination(hop) == Some(GATEWAY_MAC));

    lab.on_relay(&format!("neighbour replace 192.0.2.254 lladdr {} dev e0 nud reachable", text(CHANGED_MAC)));
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| destination(hop) == Some(CHANGED_MAC));

    // Then the kernel has to ask for it again, and the gateway answers with what it really has.
    lab.on_relay("neighbour delete 192.0.2.254 dev e0");
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| destination(hop) == Some(GATEWAY_MAC));
}

#[test]
fn a_neighbour_that_only_xdp_sends_to_is_probed() {
    let Some(lab) = Lab::new() else { return };
    for setting in ["base_reachable_time_ms=500", "delay_first_probe_time=1", "retrans_time_ms=100"] {
        lab.sysctl(&format!("net.ipv4.neigh.e0.{setting}"));
    }
    let datapath = lab.start(options());
    let maps = lab.maps();
    datapath.handle().install(flow4(), soon());
    settled(&datapath);
    let destination = |hop: &Option<NextHop>| hop.map(|hop| hop.destination);
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| destination(hop) == Some(GATEWAY_MAC));

    // The gateway is replaced and says nothing about it. Nobody sends through the kernel, and an entry that is stale
    // stays as it is for as long as nobody does.
    ip(&format!("-n {} link set g0 address {}", lab.gateways, text(CHANGED_MAC)));
    lab.on_relay(&format!("neighbour replace 192.0.2.254 lladdr {} dev e0 nud stale", text(GATEWAY_MAC)));
    eventually(Duration::from_secs(20), || maps.peer_hop(&flow4()), |hop| destination(hop) == Some(CHANGED_MAC));
}

#[test]
fn records_follow_routes_and_links() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let maps = lab.maps();
    datapath.handle().install(flow4(), soon());
    settled(&datapath);
    let first = lab.interface_index("e0");
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| hop.is_some_and(|hop| hop.interface == first));

    lab.on_relay("route add 198.51.100.0/24 via 203.0.113.254 mtu 1400");
    let second = lab.interface_index("e1");
    let hop = eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| hop.is_some_and(|hop| hop.interface == second));
    let expected = NextHop {
        interface: second,
        mtu: 1400,
        destination: OTHER_GATEWAY_MAC,
        source: OTHER_RELAY_MAC,
        ..NextHop::default()
    };
    assert_eq!(hop, Some(expected));
    let client_hop = maps.to_client(&flow4()).unwrap().next_hop;
    assert_ne!(client_hop, maps.to_peer(&flow4()).unwrap().next_hop, "the client is where it was");

    lab.on_relay("link set e1 down");
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| hop.is_some_and(|hop| hop.interface == first));

    lab.on_relay("link set e0 address 02:00:00:00:00:77");
    eventually(PATIENCE, || maps.peer_hop(&flow4()), |hop| hop.is_some_and(|hop| hop.source[5] == 0x77));

    lab.on_relay("route add blackhole 198.51.100.7/32");
    eventually(PATIENCE, || maps.len(), |len| *len == 0);
    assert_eq!(datapath.handle().counters().flows, 0);
    lab.on_relay("route delete blackhole 198.51.100.7/32");
    eventually(PATIENCE, || maps.len(), |len| *len == 2);
}

#[test]
fn a_vlan_device_is_its_parent_with_a_tag() {
    let Some(lab) = Lab::new() else { return };
    let vlan = format!("-n {} link add link e0 name e0.7 type vlan id 7", lab.relay);
    let made = Command::new("ip").args(vlan.split_whitespace()).output().expect("iproute2 is installed");
    if String::from_utf8_lossy(&made.stderr).contains("Unknown device type") {
        eprintln!("skipped: this kernel has no VLAN devices (CONFIG_VLAN_8021Q)");
        return;
    }
    assert!(made.status.success(), "{made:?}");
    lab.on_relay("link set e0.7 up");
    lab.on_relay("address add 198.51.100.1/24 dev e0.7");
    lab.on_relay("neighbour add 198.51.100.7 lladdr 02:00:00:00:00:99 dev e0.7 nud permanent");
    let datapath = lab.start(options());
    datapath.handle().install(flow4(), soon());
    settled(&datapath);
    let expected = NextHop {
        interface: lab.interface_index("e0"),
        mtu: 1500,
        destination: CHANGED_MAC,
        source: RELAY_MAC,
        vlan: [0, 7],
        zero: [0; 2],
    };
    assert_eq!(lab.maps().peer_hop(&flow4()), Some(expected));
    let neighbours = run("ip", &["-n", &lab.relay, "neighbour", "show", "dev", "e0.7"]);
    assert!(neighbours.contains("PERMANENT"), "a static neighbour has to stay one: {neighbours}");
}

#[test]
fn what_userspace_has_to_do_is_not_in_the_kernel_and_not_a_failure() {
    let Some(lab) = Lab::new() else { return };
    lab.on_relay("tuntap add mode tun name t0");
    lab.on_relay("link set t0 up");
    lab.on_relay("route add 198.51.100.66/32 dev t0");
    let datapath = lab.start(options());
    // An address of this host that is none of the relay's, a broadcast, and a tunnel.
    for peer in ["203.0.113.1:6000", "192.0.2.255:6000", "198.51.100.66:6000"] {
        let [_, permission, channel] = scopes(Flow { scope: channel(peer), ..flow4() });
        for flow in [permission, channel] {
            datapath.handle().install(flow, soon());
            settled(&datapath);
            assert_eq!(lab.maps().len(), 0, "{flow:?}");
            assert!(!lab.maps().is_complete(flow.allocation), "what is sent by {flow:?} has to go up");
            datapath.handle().remove(flow);
            datapath.handle().reset_allocation(flow.allocation);
            settled(&datapath);
            assert!(lab.maps().is_complete(flow.allocation));
        }
    }
    settled(&datapath);
    assert_eq!(datapath.handle().counters().insert_failures, 0);
}

#[test]
fn a_full_map_is_counted_and_leaves_no_half_flow() {
    let Some(lab) = Lab::new() else { return };
    // The listeners' two, and one channel.
    let datapath = lab.start(Options { records: 4, ..options() });
    let (handle, maps) = (datapath.handle(), lab.maps());
    let other = Flow { client: "192.0.2.50:40001".parse().unwrap(), scope: channel("198.51.100.8:6000"), ..flow4() };
    handle.install(flow4(), soon());
    handle.install(other, soon());
    settled(&datapath);
    assert_eq!((maps.len(), handle.counters().flows, handle.counters().insert_failures), (2, 1, 1));
    assert!(maps.to_peer(&flow4()).is_some() && maps.to_client(&flow4()).is_some());

    handle.install(flow4(), soon() + Duration::from_secs(600));
    settled(&datapath);
    assert_eq!(handle.counters().insert_failures, 1, "a refresh fits into a full map");
    handle.remove(flow4());
    handle.install(other, soon());
    settled(&datapath);
    assert!(maps.to_peer(&other).is_some() && maps.to_client(&other).is_some());
}

#[test]
fn a_client_whose_relayed_address_finds_no_room_is_told_to_the_program() {
    let Some(lab) = Lab::new() else { return };
    // The listeners' two, and one relayed address.
    let datapath = lab.start(Options { records: 4, ..options() });
    let (handle, maps) = (datapath.handle(), lab.maps());
    let [relay, permission, _] = scopes(flow4());
    let other = Flow {
        client: "192.0.2.50:40001".parse().unwrap(),
        relayed: "192.0.2.1:50001".parse().unwrap(),
        allocation: 7,
        ..relay
    };
    handle.install(relay, soon());
    handle.install(permission, soon());
    settled(&datapath);
    assert_eq!(maps.hidden(), 0, "a client is known by its relayed address, also when a permission has no room");
    for _ in 0..2 {
        handle.install(other, soon());
        settled(&datapath);
        assert_eq!(maps.hidden(), 1);
    }
    handle.remove(relay);
    handle.install(other, soon());
    settled(&datapath);
    assert_eq!(maps.hidden(), 0, "there was room for it at its next refresh");
    handle.install(relay, soon());
    settled(&datapath);
    assert_eq!(maps.hidden(), 1);
    handle.reset_allocation(relay.allocation);
    settled(&datapath);
    assert_eq!(maps.hidden(), 0, "it is over");
}

#[test]
fn who_is_vouched_for_is_in_the_kernel_until_it_ends_or_is_unvouched() {
    let Some(lab) = Lab::new() else { return };
    // The listeners' two, and two clients.
    let datapath = lab.start(Options { records: 4, ..options() });
    let (handle, maps) = (datapath.handle(), lab.maps());
    let vouched = |flow: &Flow| maps.record(flow.client, flow.server, VOUCHED).map(|record| record.allocation);
    for flow in [flow4(), flow6()] {
        handle.vouch(flow.client, flow.server, soon());
        // Again, as by a refresh.
        handle.vouch(flow.client, flow.server, soon());
        settled(&datapath);
        assert_eq!(vouched(&flow), Some(u32::MAX));
    }
    assert_eq!((maps.len(), maps.hidden()), (2, 0));

    let other = Flow { client: "192.0.2.50:40001".parse().unwrap(), ..flow4() };
    handle.vouch(other.client, other.server, soon());
    settled(&datapath);
    assert_eq!((vouched(&other), maps.hidden()), (None, 1), "nobody is a stranger while it is not known");
    assert_eq!(handle.counters().insert_failures, 1);
    handle.unvouch(other.client, other.server);
    handle.unvouch(flow6().client, flow6().server);
    settled(&datapath);
    assert_eq!((maps.len(), maps.hidden(), vouched(&flow6())), (1, 0, None));

    handle.vouch(other.client, other.server, Instant::now() + Duration::from_millis(400));
    settled(&datapath);
    assert_eq!(vouched(&other), Some(u32::MAX));
    eventually(PATIENCE, || vouched(&other), Option::is_none);
    assert_eq!(vouched(&flow4()), Some(u32::MAX));
}

#[test]
fn behind_a_nat_a_call_between_two_clients_is_translated() {
    let Some(lab) = Lab::new() else { return };
    let public: [IpAddr; 2] = ["198.51.100.9".parse().unwrap(), "2001:db8:9::9".parse().unwrap()];
    let own = [flow4(), flow6()].map(|flow| flow.relayed.ip());
    let relay_addresses = [0, 1].map(|at| RelayAddress { bind: own[at], public: public[at] }).to_vec();
    let datapath = lab.start(Options { relay_addresses, ..options() });
    let (handle, maps) = (datapath.handle(), lab.maps());
    for (at, flow) in [flow4(), flow6()].into_iter().enumerate() {
        let peer = SocketAddr::new(public[at], 50_002);
        let flow = Flow { scope: Scope::Channel { channel: 0x4001, peer }, ..flow };
        for flow in scopes(flow) {
            handle.install(flow, soon());
        }
        settled(&datapath);
        assert!(maps.is_complete(flow.allocation));
        let to_peer = maps.to_peer(&flow).expect("a record for the channel");
        assert_eq!((to_peer.source, to_peer.destination), (octets(public[at]), octets(own[at])));
        assert_eq!((to_peer.next_hop, to_peer.flags), (0, PEER_IS_RELAYED));
        assert!(maps.to_client(&flow).is_some(), "found by where the other is seen to be");
        let data = maps.record(SocketAddr::new(public[at], 0), flow.relayed, 0).expect("a record for its permission");
        for index in crossed(data.peer_next_hop) {
            let told = maps.relay_addresses.get(&u32::from(index), 0).unwrap();
            assert_eq!((told.bind, told.public), (octets(own[at]), octets(public[at])));
        }
    }
}

#[test]
fn a_flow_that_is_not_refreshed_is_swept() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let maps = lab.maps();
    datapath.handle().install(flow4(), Instant::now() + Duration::from_millis(400));
    datapath.handle().install(flow6(), soon());
    settled(&datapath);
    assert_eq!(maps.len(), 4);
    eventually(PATIENCE, || maps.len(), |len| *len == 2);
    assert!(maps.to_peer(&flow6()).is_some());
    eventually(PATIENCE, || datapath.handle().counters().flows, |flows| *flows == 1);
}

#[test]
fn port_roles_are_counted() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, maps) = (datapath.handle(), lab.maps());
    assert_eq!(maps.role(3478), PortRole::Listener);
    handle.release_port(3478, PortRole::Listener);
    handle.claim_port(50_000, PortRole::Relayed);
    handle.claim_port(50_000, PortRole::Relayed);
    handle.release_port(50_000, PortRole::Relayed);
    settled(&datapath);
    assert_eq!((maps.role(3478), maps.role(50_000)), (PortRole::Listener, PortRole::Relayed));
    handle.release_port(3478, PortRole::Listener);
    handle.release_port(50_000, PortRole::Relayed);
    settled(&datapath);
    assert_eq!((maps.role(3478), maps.role(50_000)), (PortRole::None, PortRole::None));
}

#[test]
fn the_interface_is_that_of_the_default_route_but_auto_leaves_a_veth_alone() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(Options { mode: XdpMode::Native, interfaces: Vec::new(), ..options() });
    assert_eq!(datapath.status().len(), 1, "{:?}", datapath.status());
    assert_eq!(datapath.summary(), "XDP: native on e0");
    drop(datapath);

    let auto = Options { mode: XdpMode::Auto, interfaces: Vec::new(), ..options() };
    let datapath = lab.start(auto.clone());
    assert!(!datapath.handle().is_active());
    assert_eq!(datapath.status()[0].mode, AttachedMode::None);
    assert!(datapath.summary().starts_with("XDP: userspace only: a veth needs"), "{}", datapath.summary());
    drop(datapath);

    lab.on_relay("route delete default");
    lab.on_relay("-6 route delete default");
    let datapath = lab.start(Options { listeners: Vec::new(), relay_addresses: Vec::new(), ..auto });
    assert!(!datapath.handle().is_active());
    assert!(datapath.summary().starts_with("XDP: userspace only: there is no default route"), "{}", datapath.summary());
    assert!(datapath.flush(PATIENCE));
}

#[test]
fn loopback_takes_the_program_in_generic_mode() {
    let Some(lab) = Lab::new() else { return };
    let auto = Options { mode: XdpMode::Auto, interfaces: vec!["lo".to_owned()], ..options() };
    let datapath = lab.start(auto);
    assert_eq!(datapath.status()[0].mode, AttachedMode::Generic, "{}", datapath.summary());
}

#[test]
fn a_misspelt_interface_is_an_error_in_every_mode() {
    let Some(lab) = Lab::new() else { return };
    for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
        let misspelt = Options { mode, interfaces: vec!["e00".to_owned()], ..options() };
        let error = lab.inside(move || Datapath::start(&misspelt).map(|_| ()).unwrap_err().to_string());
        assert!(error.starts_with("--interface e00: "), "{error}");
    }
}
