//! Limits of rate: what passes, what is dropped and why, and whose budget it was.

use std::thread;

use anyhow::Result;
use hairpin::datapath::Limits;
use hairpin_common::{
    limit::{Limit, Meter},
    maps::{AllocationState, Pace, Rewrite, VOUCHED},
    verdict::Verdict,
};
use hairpin_tests::program::{
    bench::{Bench, INTERFACE, Outcome},
    fixture::{DATA, Fixture, at_once},
    frame::Frame,
    setup::{MARK, Setup, key, mark_key},
    stun,
    sys::{self, TRANSMITTED, monotonic_nanoseconds},
    world::{Family, Framing, ID, LISTENER_PORT, Path, world},
};

fn limited(limits: Limits) -> Result<Option<Fixture>> {
    let Some(mut bench) = Bench::limited_or_skip(limits) else { return Ok(None) };
    let (setup, paths) = world();
    bench.install(&setup)?;
    Ok(Some(Fixture { bench, setup, paths }))
}

/// Allocations that a path counts for: to a peer, to a client.
fn allocations_of(setup: &Setup, path: &Path) -> [Option<u32>; 2] {
    let owner_of = |address| {
        let mut relays = setup.relays();
        relays.find(|(_, relay)| relay.address == address).map(|(allocation, _)| allocation.index)
    };
    let sender = setup.allocations.iter().find(|allocation| allocation.client == path.source);
    let peer = match path.framing {
        Framing::Send(peer) => Some(peer),
        Framing::Channel(number) => {
            let mut channels = sender.iter().flat_map(|allocation| &allocation.channels);
            channels.find(|channel| channel.number == number).map(|channel| channel.peer)
        }
        Framing::Plain => Some(path.destination),
        Framing::Binding(_) => None,
    };
    [sender.map(|allocation| allocation.index), peer.and_then(owner_of)]
}

/// Forgets what every allocation has sent.
fn reset(fixture: &mut Fixture) -> Result<()> {
    for allocation in &fixture.setup.allocations {
        fixture.bench.complete(allocation)?;
    }
    fixture.bench.change_relay_state(|state| (state.bytes, state.control) = (Meter(0), Meter(0)))
}

#[test]
fn an_allocation_s_datagrams_are_limited_each_way() -> Result<()> {
    let limits = Limits { allocation_packets: at_once(5), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for path in fixture.paths.clone().iter().filter(|path| path.carries_data()) {
        reset(&mut fixture)?;
        assert_eq!(fixture.until(path, DATA, Verdict::AllocationPacketRate)?, 5, "{}", path.name);
        let [to_peer, to_client] = allocations_of(&fixture.setup, path);
        for allocation in &fixture.setup.allocations {
            let AllocationState { to_peer: sent, to_client: received, .. } = fixture.bench.state(allocation.index)?;
            let index = Some(allocation.index);
            assert_eq!(sent != Pace::default(), to_peer == index, "{}: allocation {index:?}", path.name);
            assert_eq!(received != Pace::default(), to_client == index, "{}: allocation {index:?}", path.name);
            assert_eq!((sent.bytes, received.bytes), (Meter(0), Meter(0)), "there is no limit of bytes");
        }
    }
    Ok(())
}

#[test]
fn an_allocation_s_data_is_limited_each_way() -> Result<()> {
    let limits = Limits { allocation_bytes: at_once(41), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for path in fixture.paths.clone().iter().filter(|path| path.carries_data()) {
        reset(&mut fixture)?;
        // The fifth of ten bytes begins before the end, and may pass in whole.
        assert_eq!(fixture.until(path, DATA, Verdict::AllocationBitRate)?, 5, "{}", path.name);
        // An empty datagram costs nothing, but has to wait like any other.
        assert_eq!(fixture.until(path, &[], Verdict::AllocationBitRate)?, 0, "{}", path.name);
    }
    Ok(())
}

#[test]
fn all_data_is_limited_together() -> Result<()> {
    let limits = Limits { relay_bytes: at_once(4 * DATA.len() as u64 + 1), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for path in fixture.paths.clone().iter().filter(|path| path.carries_data()) {
        reset(&mut fixture)?;
        assert_eq!(fixture.until(path, DATA, Verdict::RelayBitRate)?, 5, "{}", path.name);
        for other in fixture.paths.iter().filter(|path| path.carries_data()) {
            assert_eq!(fixture.until(other, DATA, Verdict::RelayBitRate)?, 0, "{}", other.name);
        }
    }
    Ok(())
}

#[test]
fn what_is_due_comes_through_again() -> Result<()> {
    // A thousand datagrams a second, and fifty at once.
    let limit = Limit::per_second(1000, 50_000_000);
    let limits = Limits { allocation_packets: limit, ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    let path = fixture.paths.iter().find(|path| path.framing == Framing::Plain).expect("a path");
    let packet = path.frame(DATA).bytes();
    let (start, mut passed) = (monotonic_nanoseconds(), 0);
    while monotonic_nanoseconds() < start + 300_000_000 {
        passed += u64::from(fixture.bench.run(&packet)?.outcome == Outcome::Transmitted);
    }
    let due = (monotonic_nanoseconds() - start) / 1_000_000;
    // The program goes by jiffies, which are up to 10 ms long.
    assert!(passed <= due + 61 && passed >= due / 2, "{passed} came through in {due} ms");
    Ok(())
}

#[test]
fn the_userspace_path_s_share_counts() -> Result<()> {
    let limits = Limits { allocation_packets: at_once(5), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for path in fixture.paths.clone().iter().filter(|path| path.carries_data()) {
        reset(&mut fixture)?;
        let [to_peer, to_client] = allocations_of(&fixture.setup, path);
        let spent = Pace { packets: Meter(monotonic_nanoseconds() + 3_600_000_000_000), ..Pace::default() };
        for (index, state) in [
            (to_peer, AllocationState { to_peer: spent, ..AllocationState::default() }),
            (to_client, AllocationState { to_client: spent, ..AllocationState::default() }),
        ] {
            let Some(index) = index else { continue };
            fixture.bench.set_state(index, state)?;
            assert_eq!(fixture.until(path, DATA, Verdict::AllocationPacketRate)?, 0, "{}", path.name);
            reset(&mut fixture)?;
        }
    }
    Ok(())
}

/// Datagrams to a listener that no allocation vouches for.
fn unknown(family: Family, net: u8) -> Vec<(&'static str, Frame, Verdict)> {
    let (client, listener) = (family.address(net, 1, 1234), family.listener());
    let frame = |payload: Vec<u8>| Frame::new(client, listener, payload);
    vec![
        ("an Allocate", frame(stun::Builder::new(3, ID).bytes()), Verdict::Control),
        ("garbage", frame(vec![0xff; 30]), Verdict::Control),
        ("nothing", frame(Vec::new()), Verdict::Control),
        ("ChannelData", frame(stun::channel_data(0x4000, DATA)), Verdict::NoFlow),
        ("damaged ChannelData", frame(stun::channel_data(0x4000, DATA)[..7].to_vec()), Verdict::Malformed),
        ("a Send indication", frame(stun::send_indication(family.address(52, 2, 6000), DATA, ID)), Verdict::NoFlow),
        ("a Binding request", frame(stun::binding_request(ID, false)), Verdict::Binding),
    ]
}

#[test]
fn one_source_without_an_allocation_is_limited() -> Result<()> {
    let limits = Limits { source_packets: at_once(3), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        for kind in 0..unknown(family, 1).len() {
            let packets = unknown(family, 100 + kind as u8);
            let (what, packet, verdict) = &packets[kind];
            for _ in 0..3 {
                let run = fixture.bench.run(&packet.bytes())?;
                assert_eq!(run.counted[0].0, *verdict, "{what} {family:?}");
            }
            // Whatever else comes from there, by whatever port.
            for (other, packet, _) in &packets {
                let mut packet = packet.clone();
                packet.source.set_port(4321);
                let what = format!("{other} after {what} {family:?}");
                fixture.bench.expect_refused(&what, &packet.bytes(), Verdict::SourceRate)?;
            }
        }
    }
    // Memory does not grow with the sources.
    let metered = fixture.bench.metered_sources()?;
    assert!(metered > 0 && metered <= 2 * 7 + 2, "{metered} meters moved");
    Ok(())
}

#[test]
fn sources_do_not_share_a_limit_but_networks_of_ipv6_do() -> Result<()> {
    let limits = Limits { source_packets: at_once(1), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    let mut dropped = 0;
    for host in 1..=50 {
        let packet = Frame::new(Family::V4.address(96, host * 256, 1), Family::V4.listener(), [0xff]).bytes();
        let run = fixture.bench.run(&packet)?;
        dropped += u32::from(run.outcome == Outcome::Dropped);
    }
    // One in 65,536 meters by chance; every one would be a source that is not told from others.
    assert!(dropped <= 1, "{dropped} of 50 sources share a meter with another");
    let one = Frame::new("[3fff:0:0:1::1]:9".parse()?, Family::V6.listener(), [0xff]);
    let other = Frame { source: "[3fff:0:0:1:ffff::2]:9".parse()?, ..one.clone() };
    assert_eq!(fixture.bench.run(&one.bytes())?.outcome, Outcome::Passed);
    fixture.bench.expect_refused("the same network of 64 bits", &other.bytes(), Verdict::SourceRate)
}

#[test]
fn all_that_goes_up_without_an_allocation_is_limited_together() -> Result<()> {
    let limits = Limits { control_packets: at_once(4), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        reset(&mut fixture)?;
        let packet = |host: u16| Frame::new(family.address(96, host * 256, 1), family.listener(), [0xff]).bytes();
        for host in 1..=4 {
            fixture.bench.expect_refused("one of the first", &packet(host), Verdict::Control)?;
        }
        for host in 5..=9 {
            fixture.bench.expect_refused("one too many", &packet(host), Verdict::ControlRate)?;
        }
        // What is answered here does not go up.
        for path in fixture.paths.iter().filter(|path| !path.carries_data()) {
            fixture.sent(&path.name, &path.frame(DATA))?;
        }
    }
    Ok(())
}

#[test]
fn who_has_an_allocation_is_not_limited_at_the_listener() -> Result<()> {
    let limits = Limits { source_packets: at_once(1), control_packets: at_once(1), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    for allocation in &fixture.setup.allocations {
        let refresh = Frame::new(allocation.client, allocation.server, stun::Builder::new(4, ID).bytes());
        for _ in 0..5 {
            fixture.bench.expect_refused("a Refresh", &refresh.bytes(), Verdict::Control)?;
        }
    }
    for allocation in &fixture.setup.allocations {
        let unbound = stun::channel_data(0x4fff, DATA);
        let unknown = Frame::new(allocation.client, allocation.server, unbound);
        for _ in 0..5 {
            fixture.bench.expect_refused(
                "ChannelData that the kernel has no record of",
                &unknown.bytes(),
                Verdict::NoFlow,
            )?;
        }
    }
    for path in fixture.paths.iter().filter(|path| path.carries_data()) {
        for _ in 0..3 {
            fixture.sent(&path.name, &path.frame(DATA))?;
        }
    }
    Ok(())
}

#[test]
fn one_relayed_address_of_either_version_is_enough_to_be_known() -> Result<()> {
    let limits = Limits { source_packets: at_once(1), control_packets: at_once(1), ..Limits::default() };
    for kept in Family::ALL {
        let Some(mut fixture) = limited(limits)? else { return Ok(()) };
        for index in 0..fixture.setup.allocations.len() {
            fixture.change(index, |allocation| {
                allocation.relays.retain(|relay| Family::of(relay.address) == kept);
                allocation.permissions.retain(|permission| permission.peer.is_ipv4() == (kept == Family::V4));
                allocation.channels.retain(|channel| Family::of(channel.peer) == kept);
            })?;
            let allocation = &fixture.setup.allocations[index];
            let refresh = Frame::new(allocation.client, allocation.server, stun::Builder::new(4, ID).bytes());
            for _ in 0..5 {
                fixture.bench.expect_refused(&format!("{kept:?} only"), &refresh.bytes(), Verdict::Control)?;
            }
        }
    }
    Ok(())
}

/// What a client over DTLS sends: records of each kind, and what the STUN in them looks like to who cannot read it.
fn dtls(family: Family) -> Vec<(&'static str, Frame)> {
    let (client, listener) = (family.address(97, 1, 5000), family.listener());
    let record = |kind: u8, length: usize| {
        let head = [kind, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 7];
        [&head[..], &(length as u16).to_be_bytes(), &vec![0xa5; length]].concat()
    };
    [("a handshake", 22, 300), ("application data", 23, 60), ("an alert", 21, 2), ("the last of RFC 7983", 63, 40)]
        .map(|(what, kind, length)| (what, Frame::new(client, listener, record(kind, length))))
        .to_vec()
}

#[test]
fn who_is_vouched_for_is_no_stranger_whatever_it_sends() -> Result<()> {
    let limits = Limits { source_packets: at_once(2), control_packets: at_once(4), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        reset(&mut fixture)?;
        let packets = dtls(family);
        let (client, listener) = (packets[0].1.source, packets[0].1.destination);
        let vouched = key(client, listener, VOUCHED);
        fixture.bench.insert(vouched, Rewrite { allocation: u32::MAX, ..MARK })?;
        for (what, packet) in packets.iter().cycle().take(20) {
            fixture.bench.expect_refused(what, &packet.bytes(), Verdict::Control)?;
        }
        for _ in 0..5 {
            let request = Frame::new(client, listener, stun::binding_request(ID, false));
            fixture.sent("a request in the clear", &request)?;
        }
        // From the same address by another port, it is somebody else.
        let stranger = |(what, packet): &(&'static str, Frame)| {
            let mut packet = packet.clone();
            packet.source.set_port(5001);
            (format!("{what} of a stranger"), packet.bytes())
        };
        let strangers: Vec<_> = packets.iter().map(stranger).collect();
        for (what, packet) in &strangers[..2] {
            fixture.bench.expect_refused(what, packet, Verdict::Control)?;
        }
        for (what, packet) in &strangers {
            fixture.bench.expect_refused(what, packet, Verdict::SourceRate)?;
        }
        // It says nothing of other listeners, and ends with its record.
        let mut elsewhere = packets[0].1.clone();
        elsewhere.destination = family.address(51, 1, LISTENER_PORT + 1);
        fixture.bench.expect_refused("to another port", &elsewhere.bytes(), Verdict::NotOurs)?;
        fixture.bench.remove(&vouched)?;
        for (what, packet) in &packets {
            fixture.bench.expect_refused(what, &packet.bytes(), Verdict::SourceRate)?;
        }
    }
    Ok(())
}

#[test]
fn nobody_is_a_stranger_while_the_kernel_does_not_know_all_allocations() -> Result<()> {
    let limits = Limits { source_packets: at_once(1), control_packets: at_once(1), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        let client = family.address(96, 9, 4000);
        let unknown = Frame::new(client, family.listener(), stun::channel_data(0x4000, DATA)).bytes();
        let request = Frame::new(client, family.listener(), stun::binding_request(ID, false));
        fixture.bench.change_relay_state(|state| (state.hidden, state.control) = (1, Meter(0)))?;
        for _ in 0..5 {
            fixture.bench.expect_refused("of somebody who may have an allocation", &unknown, Verdict::NoFlow)?;
            fixture.sent("a request of the same", &request)?;
        }
        fixture.bench.change_relay_state(|state| state.hidden = 0)?;
        fixture.bench.expect_refused("the first", &unknown, Verdict::NoFlow)?;
        fixture.bench.expect_refused("one too many", &unknown, Verdict::SourceRate)?;
    }
    Ok(())
}

#[test]
fn what_goes_up_for_lack_of_room_is_not_counted() -> Result<()> {
    let limits = Limits { allocation_packets: at_once(5), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    let indications: Vec<_> =
        fixture.paths.iter().filter(|path| path.name.starts_with("UDP -> Data")).cloned().collect();
    assert!(!indications.is_empty());
    for path in indications {
        reset(&mut fixture)?;
        let run = fixture.bench.run_with_metadata(INTERFACE, &path.frame(DATA).bytes(), 216)?;
        assert_eq!(run.counted[0].0, Verdict::NoRoom, "{}", path.name);
        let [_, Some(owner)] = allocations_of(&fixture.setup, &path) else { panic!("{} is for somebody", path.name) };
        assert_eq!(fixture.bench.state(owner)?.to_client, Pace::default(), "{}", path.name);
    }
    Ok(())
}

#[test]
fn processors_share_a_budget() -> Result<()> {
    const BUDGET: u64 = 50_000;
    let limits = Limits { allocation_packets: at_once(BUDGET), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    let path = fixture.paths.iter().find(|path| path.framing == Framing::Plain).expect("a datagram of a peer");
    let (packet, program) = (path.frame(DATA).bytes(), fixture.bench.program.fd()?);
    let count = || {
        let runs = (0..BUDGET).map(|_| sys::time_run(program, &packet).expect("the program runs"));
        runs.filter(|(_, verdict)| *verdict == TRANSMITTED).count() as u64
    };
    let passed: u64 = thread::scope(|scope| {
        let threads = [scope.spawn(count), scope.spawn(count)];
        threads.map(|thread| thread.join().expect("a count")).iter().sum()
    });
    // One that loses every race for the meter passes free.
    assert!((BUDGET..=BUDGET + BUDGET / 100).contains(&passed), "{passed} of {BUDGET}");
    Ok(())
}

#[test]
fn a_request_that_goes_up_is_counted_once() -> Result<()> {
    let limits = Limits { source_packets: at_once(2), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        let software = stun::Builder::new(1, ID).with(0x8022, b"a client").bytes();
        let request = Frame::new(family.address(96, 7, 4000), family.listener(), software).bytes();
        for _ in 0..2 {
            fixture.bench.expect_refused("within the limit", &request, Verdict::Control)?;
        }
        fixture.bench.expect_refused("above the limit", &request, Verdict::SourceRate)?;
    }
    Ok(())
}

#[test]
fn a_relayed_address_with_the_port_of_a_listener_is_none() -> Result<()> {
    let limits = Limits { source_packets: at_once(1), ..Limits::default() };
    let Some(mut fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        // Of an allocation of its own, on an address where nobody listens.
        let relayed = family.address(52, 1, LISTENER_PORT);
        fixture.bench.insert(mark_key(relayed), Rewrite { allocation: 3, ..MARK })?;
        let peer = family.address(96, 8, 4000);
        for payload in [stun::binding_request(ID, false), stun::binding_request(ID, true), b"media".to_vec()] {
            let packet = Frame::new(peer, relayed, payload).bytes();
            for _ in 0..3 {
                let run = fixture.bench.run(&packet)?;
                assert_eq!((run.outcome, &run.packet), (Outcome::Passed, &packet), "{family:?} {:?}", run.counted);
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_not_ours_is_not_limited() -> Result<()> {
    let limits = Limits { source_packets: at_once(1), control_packets: at_once(1), ..Limits::default() };
    let Some(fixture) = limited(limits)? else { return Ok(()) };
    for family in Family::ALL {
        let source = family.address(96, 1, 1);
        let elsewhere = Frame::new(source, family.address(95, 1, LISTENER_PORT), [0xff]);
        let another_port = Frame::new(source, family.address(51, 1, 53), [0xff]);
        let another_host = Frame { link: ([2; 6], [4; 6]), ..Frame::new(source, family.listener(), [0xff]) };
        for (what, packet) in [("elsewhere", elsewhere), ("another port", another_port), ("another host", another_host)]
        {
            for _ in 0..5 {
                let run = fixture.bench.run(&packet.bytes())?;
                assert_eq!((run.outcome, &run.packet), (Outcome::Passed, &packet.bytes()), "{what} {:?}", run.counted);
            }
        }
    }
    Ok(())
}

#[test]
fn each_limit_comes_and_goes_between_two_packets() -> Result<()> {
    let none = Limits::default();
    let Some(mut fixture) = limited(none)? else { return Ok(()) };
    let (datagrams, bytes) = (at_once(3), at_once(3 * DATA.len() as u64));
    let of_data = [
        (Limits { allocation_packets: datagrams, ..none }, Verdict::AllocationPacketRate),
        (Limits { allocation_bytes: bytes, ..none }, Verdict::AllocationBitRate),
        (Limits { relay_bytes: bytes, ..none }, Verdict::RelayBitRate),
    ];
    for path in fixture.paths.clone().iter().filter(|path| path.carries_data()) {
        for (limits, verdict) in of_data {
            reset(&mut fixture)?;
            for _ in 0..2 {
                fixture.bench.set_limits(limits);
                assert_eq!(fixture.until(path, DATA, verdict)?, 3, "{} {verdict:?}", path.name);
                fixture.bench.set_limits(none);
                for _ in 0..5 {
                    fixture.sent(&path.name, &path.frame(DATA))?;
                }
                // Another allocation, for this purpose.
                reset(&mut fixture)?;
            }
        }
    }
    let of_strangers = [
        (Limits { source_packets: datagrams, ..none }, Verdict::SourceRate),
        (Limits { control_packets: datagrams, ..none }, Verdict::ControlRate),
    ];
    for family in Family::ALL {
        for (host, (limits, verdict)) in (40..).zip(of_strangers) {
            reset(&mut fixture)?;
            let packets = unknown(family, host);
            let (what, packet, unlimited) = &packets[0];
            for _ in 0..2 {
                fixture.bench.set_limits(none);
                for _ in 0..5 {
                    fixture.bench.expect_refused(what, &packet.bytes(), *unlimited)?;
                }
                fixture.bench.set_limits(limits);
            }
            for _ in 0..3 {
                fixture.bench.expect_refused(what, &packet.bytes(), *unlimited)?;
            }
            fixture.bench.expect_refused(what, &packet.bytes(), verdict)?;
            fixture.bench.set_limits(none);
            fixture.bench.expect_refused(what, &packet.bytes(), *unlimited)?;
        }
    }
    Ok(())
}

#[test]
fn what_a_tight_limit_let_through_is_not_waited_for_under_a_loose_one() -> Result<()> {
    let (tight, loose) = (Limit::per_second(1, 0), Limit::per_second(1 << 40, 1_000_000_000));
    let Some(mut fixture) = limited(Limits::default())? else { return Ok(()) };
    for path in fixture.paths.clone().iter().filter(|path| path.carries_data()) {
        reset(&mut fixture)?;
        fixture.bench.set_limits(Limits { allocation_bytes: tight, ..Limits::default() });
        // A thousand seconds' worth.
        assert_eq!(fixture.until(path, &[0x5a; 1000], Verdict::AllocationBitRate)?, 1, "{}", path.name);
        fixture.bench.set_limits(Limits { allocation_bytes: loose, ..Limits::default() });
        fixture.sent(&path.name, &path.frame(DATA))?;
    }
    for family in Family::ALL {
        // An hour for each; and the program's meters are not the daemon's.
        let tight = Limit { cost: 3_600_000_000_000 << 16, burst: 0 };
        fixture.bench.set_limits(Limits { source_packets: tight, ..Limits::default() });
        let (what, packet, verdict) = unknown(family, 60).swap_remove(0);
        fixture.bench.expect_refused(what, &packet.bytes(), verdict)?;
        fixture.bench.expect_refused(what, &packet.bytes(), Verdict::SourceRate)?;
        fixture.bench.set_limits(Limits { source_packets: loose, ..Limits::default() });
        fixture.bench.expect_refused(what, &packet.bytes(), verdict)?;
    }
    Ok(())
}

#[test]
fn no_packet_is_lost_while_limits_that_nobody_reaches_are_exchanged() -> Result<()> {
    const PACKETS: usize = 30_000;
    let Some(fixture) = limited(Limits::default())? else { return Ok(()) };
    let path = fixture.paths.iter().find(|path| path.framing == Framing::Plain).expect("a datagram of a peer");
    let (packet, program) = (path.frame(DATA).bytes(), fixture.bench.program.fd()?);
    // Each has room for all of them; half of one and half of another would not.
    let wide = [(1 << 20, 1 << 60), (1 << 38, 1 << 62), (1, 1 << 40)].map(|(cost, burst)| Limit { cost, burst });
    let all =
        |limit| Limits { allocation_packets: limit, allocation_bytes: limit, relay_bytes: limit, ..Limits::default() };
    let lost = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let runs = (0..PACKETS).map(|_| sys::time_run(program, &packet).expect("the program runs"));
            runs.filter(|(_, verdict)| *verdict != TRANSMITTED).count()
        });
        while !sender.is_finished() {
            for limits in wide.map(all).into_iter().chain([Limits::default()]) {
                fixture.bench.set_limits(limits);
            }
        }
        sender.join().expect("a count")
    });
    assert_eq!(lost, 0, "of {PACKETS}");
    Ok(())
}
