//! How much fits: what the kernel charges for the maps, and a hundred thousand allocations with a channel each.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use aya::maps::MapInfo;
use hairpin::capacity::records_for;
use hairpin::datapath::Limits;
use hairpin::datapath::program::{Capacities, Program};
use hairpin::datapath::{Datapath, Flow, Handle, Options, Scope, XdpMode};
use hairpin_tests::lab::topology::RELAY_LINK;
use hairpin_tests::lab::{Lab, Relay};
use hairpin_tests::program::bench::Bench;
use hairpin_tests::program::frame::Frame;
use hairpin_tests::program::setup::{Allocation, Setup};
use hairpin_tests::program::world::{self, numbered};
use hairpin_tests::program::{stun, sys};

const ALLOCATIONS: u32 = 100_000;

#[test]
fn the_kernel_charges_what_the_relay_says_its_maps_take() {
    for allocations in [1_000, 16_384, ALLOCATIONS] {
        let capacities = Capacities { records: records_for(allocations, 0), allocations };
        let start = Instant::now();
        let program = Program::load(capacities, true).expect("BPF and the right to use it");
        let (loading, said, charged) = (start.elapsed(), program.map_bytes(), charged(&program));
        println!("{allocations} allocations: {said} bytes said, {charged} charged, loaded in {loading:?}");
        // The kernel's own bookkeeping, and whole pages.
        assert!(said <= charged && charged <= said + (1 << 18), "{allocations}: {said} said, {charged} charged");
    }
}

#[test]
fn the_relay_says_at_the_start_what_its_maps_take() {
    let lab = Lab::routed();
    let options = ["--xdp", "native", "--max-allocations", "1000", "--kernel-records", "5000", "--shards", "2"];
    let said = Relay::start(&lab.relay, &options).stop().stderr;
    let capacities = Capacities { records: 5000, allocations: 1000 };
    let cpus = u32::try_from(aya::util::nr_cpus().expect("the kernel says how many")).expect("not so many");
    let expected = format!(
        "the kernel's maps take {} MiB, for 1000 allocations and 5000 records",
        capacities.bytes(cpus).div_ceil(1 << 20)
    );
    assert!(said.contains(&expected), "`{expected}` is not in: {said}");
}

#[test]
fn a_hundred_thousand_allocations_with_a_channel_each_are_found_by_the_program() {
    let capacities = Capacities { records: records_for(ALLOCATIONS, 0), allocations: ALLOCATIONS };
    let mut bench = Bench::load(capacities, Limits::default()).expect("BPF and the right to use it");
    let families = world::Family::ALL;
    let listeners = families.map(world::Family::listener);
    bench.install(&Setup::new(listeners)).expect("an empty relay");
    let mut inserting = Duration::ZERO;
    let mut inserted = listeners.len();
    for number in 0..ALLOCATIONS {
        let allocation = allocation(number);
        let mut setup = Setup::new(listeners);
        setup.allocations = vec![allocation];
        let records = setup.records_of(&setup.allocations[0]);
        inserted += records.len();
        let start = Instant::now();
        for (key, record) in records {
            bench.insert(key, record).unwrap_or_else(|error| panic!("allocation {number}: {error}"));
        }
        inserting += start.elapsed();
        for (port, role) in setup.ports() {
            bench.role(port, role).expect("every port has a role");
        }
    }
    println!("{inserted} records of {ALLOCATIONS} allocations inserted in {inserting:?}");
    assert_eq!(inserted, 2 + 5 * ALLOCATIONS as usize);
    assert_eq!(bench.maps.flows.len(), inserted);

    // One direction of each, in turn.
    let program = bench.program.fd().expect("it is loaded");
    let start = Instant::now();
    for number in 0..ALLOCATIONS {
        let Allocation { client, server, relays, channels, .. } = allocation(number);
        let frame = if number % 2 == 0 {
            Frame::new(client, server, stun::channel_data(channels[0].number, b"data"))
        } else {
            Frame::new(channels[0].peer, relays[0].address, b"data".to_vec())
        };
        let (_, action) = sys::time_run(program, &frame.bytes()).expect("the program runs");
        assert_eq!(action, sys::TRANSMITTED, "allocation {number}: {:?}", bench.verdicts());
    }
    println!("a packet of each in {:?}", start.elapsed());
    for number in [0, 1, 2, ALLOCATIONS / 2, ALLOCATIONS - 2, ALLOCATIONS - 1] {
        let count = bench.allocation(number);
        let expected = if number % 2 == 0 { [1, 0] } else { [0, 1] };
        assert_eq!([count.to_peer.packets, count.to_client.packets], expected, "allocation {number}");
    }
}

#[test]
fn the_writer_installs_a_hundred_thousand_allocations_with_a_channel_each() {
    let lab = Lab::routed();
    lab.relay.ip(&format!("addr add {}/24 dev {RELAY_LINK}", Ipv4Addr::from(RELAYS[1])));
    let options = Options {
        mode: XdpMode::Native,
        interfaces: vec![RELAY_LINK.to_owned()],
        max_allocations: ALLOCATIONS,
        max_media: 0,
        records: records_for(ALLOCATIONS, 0),
        limits: Limits::default(),
        answer_binding: true,
        listeners: vec![SERVER],
        relay_addresses: RELAYS.map(|ip| IpAddr::from(ip).into()).to_vec(),
    };
    let datapath = lab.relay.enter(|| Datapath::start(&options)).expect("XDP on a veth");
    let handle = datapath.handle();
    let (start, expires) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
    for number in 0..ALLOCATIONS {
        install(&handle, number, expires);
        // More at once would be left to userspace.
        if number % 10_000 == 0 {
            assert!(datapath.flush(Duration::from_secs(60)), "the writer is stuck at {number}");
        }
    }
    assert!(datapath.flush(Duration::from_secs(60)), "the writer is stuck");
    let counters = handle.counters();
    println!("{} flows of {ALLOCATIONS} allocations installed in {:?}", counters.flows, start.elapsed());
    assert_eq!((counters.flows, counters.insert_failures), (3 * u64::from(ALLOCATIONS), 0));
    datapath.shutdown();
}

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 3, 0, 2)), 3478);
/// One alone has not ports enough.
const RELAYS: [[u8; 4]; 2] = [[11, 3, 0, 2], [11, 3, 0, 3]];

/// Installs all that a client has that has bound a channel to a peer of its own.
fn install(handle: &Handle, number: u32, expires: Instant) {
    let [_, high, middle, low] = number.to_be_bytes();
    let peer = SocketAddr::from(([13, high, middle, low], 5000));
    let scopes = [Scope::Relay, Scope::Permission { peer: peer.ip() }, Scope::Channel { channel: 0x4000, peer }];
    for scope in scopes {
        let flow = Flow {
            client: ([12, high, middle, low], 40_000).into(),
            server: SERVER,
            relayed: (RELAYS[usize::from(number >= 60_000)], 5000 + (number % 60_000) as u16).into(),
            allocation: number,
            scope,
        };
        handle.install(flow, expires);
    }
}

/// Of every mixture of IP versions.
fn allocation(number: u32) -> Allocation {
    let version = |bit: u32| world::Family::ALL[(number >> bit & 1) as usize];
    numbered(version(1), version(2), number, true)
}

/// What the kernel charges for the maps of a program, in bytes.
fn charged(program: &Program) -> u64 {
    let info = program.xdp().expect("it is loaded").info().expect("the kernel knows it");
    let ids = info.map_ids().expect("the kernel says").expect("it has maps");
    let bytes = ids.into_iter().map(|id| {
        let map = MapInfo::from_id(id).and_then(|info| info.fd()).expect("a map of a program that is loaded");
        let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let description = fs::read_to_string(path).expect("a file that is open");
        let charged = description.lines().find_map(|line| line.strip_prefix("memlock:"));
        charged.expect("the kernel says what a map takes").trim().parse::<u64>().expect("a number")
    });
    bytes.sum()
}
