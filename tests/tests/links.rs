//! Several interfaces, and interfaces that come, go and change while the relay runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, DevMapHash, HashMap, Map, MapData, MapInfo, PerCpuArray, PerCpuValues};
use aya::programs::loaded_programs;
use aya::util::nr_cpus;
use hairpin::datapath::Limits;
use hairpin::datapath::{Cause, Datapath, Options, XdpMode};
use hairpin_common::maps::{Count, DEVICES, FLOWS, LINKS, Link, LinkAddress, VERDICTS};
use hairpin_common::slot::Bucket;
use hairpin_common::verdict::Verdict;
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::load::Load;
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay;
use hairpin_tests::lab::topology::{RELAY_LINK, SECOND_RELAY_LINK, SECOND_ROUTER_LINK};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Call, Family, Lab, Namespace, Relay};

/// Longer than a round of the writer takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);
/// Both interfaces, in the driver.
const BOTH: [&str; 6] = ["--xdp", "native", "--interface", RELAY_LINK, "--interface", SECOND_RELAY_LINK];

/// Exchanges data until userspace sees none of it.
fn settle(relay: &Relay<'_>, call: &Call) {
    let end = Instant::now() + PATIENCE;
    loop {
        let before = relay.metrics().relayed("userspace");
        call.exchange(b"is it in the kernel?");
        if relay.metrics().relayed("userspace") == before {
            return;
        }
        assert!(Instant::now() < end, "data still goes through userspace: {:#?}", relay.metrics());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Value of the gauge for an interface, by mode and reason.
fn attached(relay: &Relay<'_>, interface: &str) -> BTreeMap<(String, String), u64> {
    let metrics = relay.metrics();
    let of_interface = metrics.of("hairpin_xdp_attached", &[]).filter(|sample| sample.labels["interface"] == interface);
    of_interface
        .map(|sample| ((sample.labels["mode"].clone(), sample.labels["reason"].clone()), sample.count()))
        .collect()
}

fn label(mode: &str, reason: &str) -> (String, String) {
    (mode.to_owned(), reason.to_owned())
}

/// Waits until a condition holds, and fails with what was seen last.
#[track_caller]
fn eventually<T: Debug>(look: impl FnMut() -> T, is_right: impl Fn(&T) -> bool) -> T {
    within(PATIENCE, look, is_right)
}

#[track_caller]
fn within<T: Debug>(patience: Duration, mut look: impl FnMut() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + patience;
    loop {
        let seen = look();
        if is_right(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "still {seen:?} after {patience:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_comes_in_by_one_interface_leaves_by_another() {
    let lab = Lab::routed();
    lab.add_link();
    lab.route_peers(SECOND_RELAY_LINK);
    let relay = Relay::start(&lab.relay, &BOTH);
    for family in Family::ALL {
        let call = Call::new(&lab, family);
        settle(&relay, &call);
        let before = relay.metrics();
        let wire = Wire::open(&lab.router, SECOND_ROUTER_LINK);
        for length in [0, 1, 100, 1400] {
            call.exchange(&vec![0x5a; length]);
        }
        let after = relay.metrics();
        assert_eq!(after.relayed("kernel") - before.relayed("kernel"), 8, "{family:?}");
        assert_eq!(after.relayed("userspace"), before.relayed("userspace"), "{family:?}");
        let frames = wire.drain(QUIET);
        let is_to_peer =
            |frame: &&Vec<u8>| Datagram::of(frame).is_some_and(|datagram| datagram.destination == call.peer_address());
        let sent: Vec<_> = frames.iter().filter(is_to_peer).collect();
        assert_eq!(sent.len(), 4, "{family:?}: each left by the second interface");
        for frame in sent {
            // The addresses of the second link, not those that the packet came with.
            assert_eq!(frame[..12], [2, 0, 0, 3, 1, 1, 2, 0, 0, 3, 1, 2], "{family:?}");
        }
    }
    relay.stop();
}

#[test]
fn an_interface_without_the_program_is_left_to_userspace() {
    let lab = Lab::routed();
    lab.add_link();
    lab.route_peers(SECOND_RELAY_LINK);
    let relay = Relay::start(&lab.relay, &["--xdp", "native", "--interface", RELAY_LINK]);
    let call = Call::new(&lab, Family::V4);
    let counts = || {
        let metrics = relay.metrics();
        let relayed =
            |path, direction| metrics.sum("hairpin_relayed_packets_total", &[("path", path), ("direction", direction)]);
        let no_next_hop = metrics.sum("hairpin_xdp_passed_packets_total", &[("reason", "next_hop")]);
        [relayed("userspace", "to_peer"), relayed("kernel", "to_client"), no_next_hop]
    };
    // Nothing is lost, and what the peer sends, which comes and goes by the first interface, is in the kernel as ever.
    let exchange = || {
        let before = counts();
        (0..5).for_each(|_| call.exchange(b"half of the way is not in the kernel"));
        let after = counts();
        [0, 1, 2].map(|index| after[index] - before[index])
    };
    eventually(exchange, |counted| *counted == [5; 3]);
    relay.stop();
}

#[test]
fn a_route_that_moves_under_traffic_takes_the_call_along() {
    let lab = Lab::routed();
    lab.add_link();
    lab.route_peers(RELAY_LINK);
    let relay = Relay::start(&lab.relay, &BOTH);
    let wire = Wire::open(&lab.router, SECOND_ROUTER_LINK);
    let load = Load { rate: 2000, seconds: 6, payload: 200, allocations: 4 };
    let lab = &lab;
    let outcome = thread::scope(|scope| {
        let load = scope.spawn(|| load.run(lab, Family::V4));
        thread::sleep(Duration::from_secs(2));
        for link in [SECOND_RELAY_LINK, RELAY_LINK, SECOND_RELAY_LINK, RELAY_LINK, SECOND_RELAY_LINK] {
            lab.route_peers(link);
            thread::sleep(Duration::from_millis(400));
        }
        // From here on nothing changes any more: all of it is in the kernel, by the second interface.
        let before = relay.metrics();
        wire.drain(Duration::ZERO);
        thread::sleep(Duration::from_millis(500));
        let after = relay.metrics();
        let kernel = after.relayed("kernel") - before.relayed("kernel");
        assert!(kernel > 1000, "{kernel} datagrams in half a second through the kernel");
        assert_eq!(after.relayed("userspace"), before.relayed("userspace"), "none through userspace");
        let frames = wire.drain(Duration::ZERO);
        assert!(frames.len() > 500, "{} frames by the second interface in half a second", frames.len());
        load.join().expect("the generator does not fail")
    });
    let (sent, lost) = (outcome.count("packets_sent"), outcome.count("packets_lost"));
    // What was under way may be lost: a packet or two in each direction for each of the five changes.
    assert!(sent > 8000 && lost <= 20, "{}", outcome.report);
    relay.stop();
}

#[test]
fn a_neighbour_that_changes_under_traffic_loses_nothing() {
    let lab = Lab::routed();
    lab.add_link();
    lab.route_peers(SECOND_RELAY_LINK);
    let relay = Relay::start(&lab.relay, &BOTH);
    let load = Load { rate: 1000, seconds: 4, payload: 200, allocations: 1 };
    let lab = &lab;
    let outcome = thread::scope(|scope| {
        let load = scope.spawn(|| load.run(lab, Family::V4));
        thread::sleep(Duration::from_secs(1));
        for _ in 0..5 {
            // The kernel has to find it again: what comes meanwhile goes up, and is what makes it look.
            lab.forget_gateway(Family::V4, SECOND_RELAY_LINK);
            thread::sleep(Duration::from_millis(300));
        }
        load.join().expect("the generator does not fail")
    });
    assert!(outcome.count("packets_sent") > 3000 && outcome.count("packets_lost") <= 2, "{}", outcome.report);
    let metrics = relay.metrics();
    assert!(metrics.relayed("kernel") > 9 * metrics.relayed("userspace"), "{metrics:#?}");
    relay.stop();
}

#[test]
fn an_interface_that_is_made_again_is_served_in_the_kernel_again() {
    let lab = Lab::routed();
    let mut relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    let (native, gone) = (label("native", ""), label("none", "gone"));
    assert_eq!(attached(&relay, RELAY_LINK), BTreeMap::from([(native.clone(), 1)]));
    for _ in 0..2 {
        settle(&relay, &Call::new(&lab, Family::V4));
        lab.delete_link();
        eventually(|| attached(&relay, RELAY_LINK), |gauge| gauge.get(&gone) == Some(&0) && gauge[&native] == 0);
        lab.make_link_again();
        eventually(|| attached(&relay, RELAY_LINK), |gauge| gauge[&native] == 1);
        assert!(relay::attached_programs(&lab.relay).contains(RELAY_LINK));
    }
    for family in Family::ALL {
        settle(&relay, &Call::new(&lab, family));
    }
    let log = relay.process().stderr();
    let said = |what: &str| log.lines().filter(|line| line.contains("XDP") && line.contains(what)).count();
    assert_eq!(said("there is no such interface any more"), 2, "{log}");
    assert_eq!(said("native on eth0 again"), 2, "{log}");
}

#[test]
fn a_call_survives_that_its_interface_is_off_for_a_while() {
    let lab = Lab::routed();
    lab.add_link();
    lab.route_peers(SECOND_RELAY_LINK);
    let relay = Relay::start(&lab.relay, &BOTH);
    let call = Call::new(&lab, Family::V4);
    settle(&relay, &call);
    lab.relay.ip(&format!("link set {SECOND_RELAY_LINK} down"));
    // Its routes are gone with it, and the default route leads to the peer as well.
    settle(&relay, &call);
    // The kernel forgets IPv6 addresses of an interface that is off.
    let forgotten = Lab::second_relay_ip(Family::V6);
    lab.relay.ip(&format!(
        "link set {SECOND_RELAY_LINK} up
         address add {forgotten}/64 dev {SECOND_RELAY_LINK} nodad"
    ));
    lab.route_peers(SECOND_RELAY_LINK);
    settle(&relay, &call);
    let native = BTreeMap::from([(label("native", ""), 1)]);
    assert_eq!(attached(&relay, SECOND_RELAY_LINK), native, "it kept the program all the time");
    relay.stop();
}

#[test]
fn each_interface_gets_the_best_mode_it_takes_and_the_metric_says_why_not_a_better_one() {
    let lab = Lab::routed();
    lab.relay.ip("tuntap add tap0 mode tap\nlink set tap0 up");
    let interfaces = ["--interface", "tap0", "--interface", "lo", "--interface", RELAY_LINK];
    let mut relay = Relay::start(&lab.relay, &interfaces);
    for (interface, mode, reason, value) in
        [("tap0", "native", "", 1), ("lo", "generic", "native_refused", 1), (RELAY_LINK, "none", "veth", 0)]
    {
        assert_eq!(attached(&relay, interface), BTreeMap::from([(label(mode, reason), value)]), "{interface}");
    }
    let log = relay.process().stderr();
    let summary = log.lines().find(|line| line.contains("XDP: native")).unwrap_or_else(|| panic!("{log}"));
    for part in ["native on tap0; generic on lo (the driver of lo", "not on eth0 (a veth needs"] {
        assert!(summary.contains(part), "{summary}");
    }
    relay.stop();
}

#[test]
fn an_interface_with_an_address_of_the_relay_is_taken_without_being_named() {
    let lab = Lab::routed();
    lab.add_link();
    let second = Lab::second_relay_ip(Family::V4).to_string();
    for (options, attached) in [
        (vec!["--relay-address", &second], [true, true]),
        (vec!["--relay-address", "11.3.0.2"], [true, false]),
        (vec![], [true, false]),
    ] {
        let relay = Relay::start(&lab.relay, &[&["--xdp", "native"], &options[..]].concat());
        let programs = relay::attached_programs(&lab.relay);
        assert_eq!([RELAY_LINK, SECOND_RELAY_LINK].map(|link| programs.contains(link)), attached, "{options:?}");
        relay.stop();
    }
}

#[test]
fn a_driver_that_leaves_no_room_is_named_once() {
    let lab = Lab::routed();
    let mut relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    // No driver here is like that, so the count is made up.
    let mut verdicts = Maps::of(&lab.relay, RELAY_LINK).verdicts;
    let cpus = nr_cpus().expect("the kernel tells");
    let counts = vec![Count { packets: 7, bytes: 700 }; cpus];
    let counts = PerCpuValues::try_from(counts).expect("one for each processor");
    verdicts.set(Verdict::NoRoom as u32, counts, 0).expect("the map can be written");
    let _call = Call::new(&lab, Family::V4);
    // It is looked for every 10 seconds while there are flows.
    within(Duration::from_secs(20), || relay.process().stderr(), |log| log.contains("too little room"));
    thread::sleep(Duration::from_secs(11));
    let log = relay.process().stderr();
    let expected = format!("{} of them went through userspace", 7 * cpus);
    assert!(log.contains(&expected) && log.contains("reason \"no_room\""), "{log}");
    assert_eq!(log.matches("too little room").count(), 1, "{log}");
}

/// The kernel's tables of links, devices and listeners, and counts, read behind the datapath's back.
struct Maps {
    verdicts: PerCpuArray<MapData, Count>,
    flows: Array<MapData, Bucket>,
    links: HashMap<MapData, Link, LinkAddress>,
    devices: DevMapHash<MapData>,
}

impl Maps {
    /// Of the program that is attached to an interface.
    fn of(namespace: &Namespace, interface: &str) -> Self {
        let program = link(namespace, interface)["xdp"]["prog"]["id"].as_u64().expect("a program is attached");
        let program = loaded_programs().flatten().find(|info| u64::from(info.id()) == program).expect("it is loaded");
        let ids = program.map_ids().expect("the kernel tells").expect("it knows the maps of a program");
        let open = |name: &str| {
            let is_named = |id: &u32| MapInfo::from_id(*id).expect("it is in use").name_as_str() == Some(name);
            let id = ids.iter().copied().find(is_named).unwrap_or_else(|| panic!("no map {name}"));
            Map::from_map_data(MapData::from_id(id).expect("it is in use")).expect("a map of a known type")
        };
        Self {
            verdicts: open(VERDICTS).try_into().expect("an array for each processor"),
            flows: open(FLOWS).try_into().expect("an array"),
            links: open(LINKS).try_into().expect("a hash"),
            devices: open(DEVICES).try_into().expect("a device map"),
        }
    }

    /// Link-layer addresses by interface and VLAN.
    fn links(&self) -> BTreeMap<(u32, u16), [u8; 6]> {
        let all = self.links.iter().map(|entry| entry.expect("nobody else writes"));
        all.map(|(link, own)| ((link.interface, u16::from_be_bytes(link.vlan)), own.address)).collect()
    }

    fn devices(&self) -> BTreeSet<u32> {
        self.devices.keys().map(|key| key.expect("nobody else writes")).collect()
    }

    /// Whether there is a record that says that a listener is at an address.
    fn has_listener(&self, listener: SocketAddr) -> bool {
        let mut destination = [0; 16];
        match listener.ip() {
            IpAddr::V4(address) => destination[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => destination = address.octets(),
        }
        self.flows.iter().flat_map(|bucket| bucket.expect("every index has a value").slots()).any(|slot| {
            let key = slot.key();
            key.source == [0; 16]
                && key.destination == destination
                && key.destination_port == listener.port().to_be_bytes()
                && key.family == if listener.is_ipv4() { 4 } else { 6 }
        })
    }
}

fn link(namespace: &Namespace, name: &str) -> serde_json::Value {
    let json = run(namespace.command("ip").args(["-j", "-d", "link", "show", "dev", name])).expect_success();
    serde_json::from_str::<serde_json::Value>(&json).expect("ip writes JSON")[0].clone()
}

fn index(namespace: &Namespace, name: &str) -> u32 {
    link(namespace, name)["ifindex"].as_u64().and_then(|index| index.try_into().ok()).expect("every link has one")
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
const CHANGED: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// A namespace with the ends `e0` and `e1` of two cables, whose other ends take what XDP sends.
fn host() -> Namespace {
    let host = Namespace::new("host");
    host.ip("link add e0 address 02:00:00:00:00:10 type veth peer name f0
             link add e1 address 02:00:00:00:00:11 type veth peer name f1
             address add 192.0.2.1/24 dev e0
             link set e0 up
             link set f0 up
             link set e1 up
             link set f1 up");
    // With GRO the driver takes frames without a program of its own there.
    for end in ["f0", "f1"] {
        run(host.command("ethtool").args(["-K", end, "gro", "on"])).expect_success();
    }
    host
}

fn start(host: &Namespace) -> Datapath {
    let options = Options {
        mode: XdpMode::Native,
        interfaces: vec!["e0".to_owned(), "e1".to_owned()],
        max_allocations: 16,
        max_media: 0,
        records: 64,
        limits: Limits::default(),
        answer_binding: true,
        listeners: vec!["0.0.0.0:3478".parse().expect("an address"), "[::]:3478".parse().expect("an address")],
        relay_addresses: Vec::new(),
    };
    host.enter(|| Datapath::start(&options)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_program_knows_its_links_and_follows_them() {
    let host = host();
    let datapath = start(&host);
    let maps = Maps::of(&host, "e0");
    let (e0, e1) = (index(&host, "e0"), index(&host, "e1"));
    let second = [2, 0, 0, 0, 0, 0x11];
    assert_eq!(maps.links(), BTreeMap::from([((e0, 0), MAC), ((e1, 0), second)]));
    assert_eq!(maps.devices(), BTreeSet::from([e0, e1]));

    host.ip("link set e0 address 02:00:00:00:00:99");
    eventually(|| maps.links(), |links| links[&(e0, 0)] == CHANGED);

    host.ip("link set e1 down");
    eventually(|| maps.devices(), |devices| *devices == BTreeSet::from([e0]));
    host.ip("link set e1 up");
    eventually(|| maps.devices(), |devices| *devices == BTreeSet::from([e0, e1]));

    host.ip("link delete e1");
    eventually(|| maps.links(), |links| *links == BTreeMap::from([((e0, 0), CHANGED)]));
    assert_eq!(maps.devices(), BTreeSet::from([e0]));
    let causes = || datapath.status().into_iter().map(|status| status.reason.map(|reason| reason.cause));
    assert_eq!(causes().collect::<Vec<_>>(), [None, Some(Cause::Gone)]);

    host.ip("link add e1 address 02:00:00:00:00:11 type veth peer name f1\nlink set e1 up\nlink set f1 up");
    run(host.command("ethtool").args(["-K", "f1", "gro", "on"])).expect_success();
    let e1 = index(&host, "e1");
    eventually(|| maps.links(), |links| *links == BTreeMap::from([((e0, 0), CHANGED), ((e1, 0), second)]));
    eventually(|| maps.devices(), |devices| *devices == BTreeSet::from([e0, e1]));
    eventually(|| causes().collect::<Vec<_>>(), |causes| *causes == [None, None]);
}

#[test]
fn the_same_index_made_again_at_once_is_not_the_same_interface() {
    let host = host();
    let _datapath = start(&host);
    let maps = Maps::of(&host, "e0");
    let e1 = index(&host, "e1");
    // Both before the datapath can look.
    let script = format!(
        "link delete e1\nlink add e1 index {e1} address 02:00:00:00:00:99 type veth peer name f1\nlink set e1 up\n\
         link set f1 up\n"
    );
    let batch = format!("printf '{}' | ip -batch -", script.replace('\n', "\\n"));
    run(host.command("sh").args(["-c", &batch])).expect_success();
    run(host.command("ethtool").args(["-K", "f1", "gro", "on"])).expect_success();
    eventually(|| relay::attached_programs(&host), |programs| programs.contains("e1"));
    eventually(|| maps.links(), |links| links.get(&(e1, 0)) == Some(&CHANGED));
    eventually(|| maps.devices(), |devices| devices.contains(&e1));
}

#[test]
fn the_program_goes_with_the_name() {
    let host = host();
    let datapath = start(&host);
    let maps = Maps::of(&host, "e0");
    let (e0, e1) = (index(&host, "e0"), index(&host, "e1"));
    host.ip("link set e1 down\nlink set e1 name x1\nlink set x1 up");
    eventually(|| maps.devices(), |devices| *devices == BTreeSet::from([e0]));
    eventually(|| relay::attached_programs(&host), |programs| !programs.contains("x1"));
    assert_eq!(maps.links().len(), 1);
    host.ip("link set x1 down\nlink set x1 name e1\nlink set e1 up");
    eventually(|| maps.devices(), |devices| *devices == BTreeSet::from([e0, e1]));
    eventually(|| datapath.summary(), |summary| summary == "XDP: native on e0; native on e1");
}

#[test]
fn a_program_that_somebody_takes_off_comes_back() {
    let host = host();
    let datapath = start(&host);
    let e1 = index(&host, "e1");
    let program = link(&host, "e1")["xdp"]["prog"]["id"].clone();
    let attachments = || {
        let links = run(host.command("bpftool").args(["-j", "link", "show"])).expect_success();
        let links: serde_json::Value = serde_json::from_str(&links).expect("bpftool writes JSON");
        let ours = links.as_array().into_iter().flatten().filter(|link| link["prog_id"] == program);
        ours.filter_map(|link| link["id"].as_u64()).collect::<BTreeSet<_>>()
    };
    // The one of e1 was made last.
    let taken_off = *attachments().last().expect("the program is attached");
    run(host.command("bpftool").args(["link", "detach", "id", &taken_off.to_string()])).expect_success();
    // Nothing tells that at once; the next event of any link does.
    host.ip("link set f0 alias noticed");
    eventually(&attachments, |attachments| attachments.len() == 2 && !attachments.contains(&taken_off));
    assert!(relay::attached_programs(&host).contains("e1"));
    let maps = Maps::of(&host, "e1");
    eventually(|| maps.devices(), |devices| devices.contains(&e1));
    drop(datapath);
    assert_eq!(relay::attached_programs(&host), "");
}

#[test]
fn a_driver_that_takes_no_frames_is_not_sent_to() {
    let host = host();
    let _datapath = start(&host);
    let maps = Maps::of(&host, "e0");
    let (e0, e1) = (index(&host, "e0"), index(&host, "e1"));
    for (gro, expected) in [("off", BTreeSet::from([e0])), ("on", BTreeSet::from([e0, e1]))] {
        run(host.command("ethtool").args(["-K", "f1", "gro", gro])).expect_success();
        eventually(|| maps.devices(), |devices| *devices == expected);
    }
}

#[test]
fn listeners_everywhere_are_where_the_addresses_are() {
    let host = host();
    let _datapath = start(&host);
    let maps = Maps::of(&host, "e0");
    let at = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 3478);
    assert!(maps.has_listener(at("192.0.2.1")));
    for (address, prefix) in [("198.51.100.7", 24), ("2001:db8::7", 64)] {
        assert!(!maps.has_listener(at(address)));
        host.ip(&format!("address add {address}/{prefix} dev e1"));
        eventually(|| maps.has_listener(at(address)), |has| *has);
        host.ip(&format!("address delete {address}/{prefix} dev e1"));
        eventually(|| maps.has_listener(at(address)), |has| !has);
    }
    assert!(maps.has_listener(at("192.0.2.1")), "the others stay");
    assert!(!maps.has_listener(at("127.0.0.1")), "nobody elsewhere sends there");
}
