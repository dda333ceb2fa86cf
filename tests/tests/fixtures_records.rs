//! What the relay knows, and for how long: what the program does with the records of the flow table, and what it does
//! without them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use hairpin::datapath::Limits;
use hairpin::datapath::program::Capacities;
use hairpin_common::{
    maps::{Count, FlowKey, PortRole, Rewrite, tick},
    slot::Slot,
    verdict::Verdict,
};
use hairpin_tests::program::{
    bench::{Bench, INTERFACE, Outcome},
    fixture::{DATA, Fixture},
    frame::{Frame, hex},
    model::Judgement,
    setup::{Allocation, Permission, Setup},
    stun,
    sys::{self, monotonic_nanoseconds},
    world::{Family, Framing, Path, numbered},
};

/// Makes another key of one.
type ChangeKey = fn(&mut FlowKey);

/// Runs all paths, and returns how many of them are refused with a verdict.
fn run_all(fixture: &Fixture, what: &str, verdict: Verdict) -> Result<usize> {
    let mut refused = 0;
    for path in &fixture.paths {
        let packet = path.frame(DATA).bytes();
        let run = fixture.bench.expect(&format!("{what}: {}", path.name), &fixture.setup, &packet)?;
        refused += usize::from(run.counted[0].0 == verdict);
    }
    Ok(refused)
}

/// Changes each allocation in every way that another function makes of it, runs all paths, and changes it back. Returns
/// how many packets met a verdict.
fn change_each<T>(
    verdict: Verdict,
    parts: impl Fn(&Allocation) -> Vec<T>,
    change: impl Fn(&mut Allocation, T),
) -> Result<Option<usize>> {
    let Some(mut fixture) = Fixture::or_skip()? else { return Ok(None) };
    let mut refused = 0;
    for index in 0..fixture.setup.allocations.len() {
        let before = fixture.setup.allocations[index].clone();
        for (number, part) in parts(&before).into_iter().enumerate() {
            fixture.change(index, |allocation| change(allocation, part))?;
            refused += run_all(&fixture, &format!("part {number} of allocation {index}"), verdict)?;
            fixture.change(index, |allocation| allocation.clone_from(&before))?;
        }
    }
    assert_eq!(run_all(&fixture, "as it was", verdict)?, 0);
    Ok(Some(refused))
}

fn numbers<T>(parts: &[T]) -> Vec<usize> {
    (0..parts.len()).collect()
}

#[test]
fn a_relayed_address_whose_time_is_over_is_not_used() -> Result<()> {
    let refused = change_each(
        Verdict::Expired,
        |allocation| numbers(&allocation.relays),
        |allocation, relay| allocation.relays[relay].live = false,
    )?;
    assert!(refused.is_none_or(|refused| refused >= 2 * 2 * 6), "{refused:?} packets met it");
    Ok(())
}

#[test]
fn a_permission_whose_time_is_over_lets_nobody_in() -> Result<()> {
    let refused = change_each(
        Verdict::Expired,
        |allocation| numbers(&allocation.permissions),
        |allocation, permission| allocation.permissions[permission].live = false,
    )?;
    assert!(refused.is_none_or(|refused| refused >= 24), "{refused:?} packets met it");
    Ok(())
}

#[test]
fn a_channel_whose_time_is_over_is_for_userspace_until_it_is_gone() -> Result<()> {
    let refused = change_each(
        Verdict::Expired,
        |allocation| numbers(&allocation.channels),
        |allocation, channel| allocation.channels[channel].live = false,
    )?;
    // Each path from a client in ChannelData has its own, and each to one.
    assert!(refused.is_none_or(|refused| refused >= 4 + 16), "{refused:?} packets met it");
    Ok(())
}

#[test]
fn a_channel_that_is_gone_leaves_the_permission() -> Result<()> {
    let refused = change_each(
        Verdict::NoFlow,
        |allocation| numbers(&allocation.channels),
        |allocation, channel| {
            allocation.channels.remove(channel);
        },
    )?;
    assert!(refused.is_none_or(|refused| refused == 4 + 16), "{refused:?} packets met it");
    Ok(())
}

#[test]
fn a_permission_that_is_gone_lets_nobody_in_nor_out() -> Result<()> {
    for (verdict, complete) in [(Verdict::NoPermission, true), (Verdict::NoFlow, false)] {
        let refused = change_each(
            verdict,
            |allocation| numbers(&allocation.permissions),
            |allocation, permission| {
                let Permission { peer, .. } = allocation.permissions.remove(permission);
                allocation.channels.retain(|channel| channel.peer.ip() != peer);
                allocation.complete = complete;
            },
        )?;
        assert!(refused.is_none_or(|refused| refused >= 24), "{refused:?} packets met it");
    }
    Ok(())
}

#[test]
fn the_first_tick_that_counts_as_over_is_that_of_the_record() -> Result<()> {
    let Some(mut fixture) = Fixture::or_skip()? else { return Ok(()) };
    // The program's own answer to what tick it is, by halving; asked again until no tick has passed meanwhile, nor less
    // than the jiffy by which the program may be late.
    let late = 10_000_000;
    let path =
        fixture.paths.iter().find(|path| matches!(path.framing, Framing::Channel(_))).expect("ChannelData").clone();
    let record = record_of(&fixture.setup, &path.keys[0]);
    let packet = path.frame(DATA).bytes();
    let bench = &mut fixture.bench;
    let (valid, now) = loop {
        let before = tick(monotonic_nanoseconds() - late);
        let (mut over, mut valid) = (0, u32::MAX);
        while valid - over > 1 {
            let middle = over + (valid - over) / 2;
            bench.insert(path.keys[0], Rewrite { expires: middle, ..record })?;
            match bench.run(&packet)?.outcome {
                Outcome::Transmitted => valid = middle,
                _ => over = middle,
            }
        }
        if tick(monotonic_nanoseconds() + late) == before {
            break (valid, before);
        }
    };
    assert_eq!(valid, now + 1, "first tick that counts as the future, at tick {now}");
    // A tick is 134 ms, and the clock may have gone on by one since.
    bench.insert(path.keys[0], Rewrite { expires: valid + 2, ..record })?;
    assert_eq!(bench.run(&packet)?.outcome, Outcome::Transmitted, "two ticks before its end");
    std::thread::sleep(std::time::Duration::from_millis(3 * 135));
    bench.expect_refused("a tick after its end", &packet, Verdict::Expired)
}

#[test]
fn a_record_that_is_being_written_is_not_used() -> Result<()> {
    Fixture::each_with_data(|fixture, path, packet| {
        for key in &path.keys {
            let record = record_of(&fixture.setup, key);
            fixture.bench.tamper(*key, |slot| slot.front.order.generation |= 1)?;
            let what = format!("{}: an odd generation of {key:?}", path.name);
            fixture.bench.expect_refused(&what, &packet.bytes(), Verdict::Torn)?;
            fixture.bench.insert(*key, record)?;
        }
        fixture.sent(&format!("{}: written again", path.name), &packet).map(|_| ())
    })
}

#[test]
fn a_record_that_changes_while_it_is_read_is_not_used() -> Result<()> {
    let Some(mut fixture) = Fixture::or_skip()? else { return Ok(()) };
    // Both lines of a slot differ between these two records, while another CPU writes one and then the other.
    let path = fixture.paths.iter().find(|path| path.name == "UDP -> ChannelData 6->6").expect("a path").clone();
    let key = path.keys[0];
    let packet = path.frame(DATA).bytes();
    let mut other = fixture.setup.clone();
    for allocation in &mut other.allocations {
        if allocation.client.is_ipv6() {
            allocation.client = "[2001:db8:ffff::1]:4000".parse()?;
        }
        for channel in allocation.channels.iter_mut().filter(|channel| channel.peer == path.source) {
            channel.number = 0x4fff;
        }
    }
    let setups = [&fixture.setup, &other];
    let [one, two] = setups.map(|setup| record_of(setup, &key));
    let expected = setups.map(|setup| match setup.judge(INTERFACE, &packet) {
        Judgement::Sent(sent) => sent.frame_like(&[]).bytes(),
        refused => panic!("{refused:?}"),
    });
    assert_ne!(expected[0], expected[1]);

    let done = AtomicBool::new(false);
    let Bench { program, maps, .. } = &mut fixture.bench;
    let (mut sent, mut passed) = (0, 0);
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for record in [&one, &two] {
                    maps.flows.insert(key, record).expect("a record that is there");
                    // Time for the program to get through in between, now and then.
                    for _ in 0..20 {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let result = (0..2_000_000).try_for_each(|_| {
            let mut out = [0; 256];
            let (verdict, length) = sys::run(program.fd()?, &packet, &mut out)?;
            match verdict {
                3 => sent += 1,
                _ => passed += 1,
            }
            let out = &out[..length];
            let right = if verdict == 3 { expected.iter().any(|expected| out == expected) } else { out == packet };
            ensure!(right, "half of one record and half of another:{}", hex(out));
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        result
    })?;
    let torn = fixture.bench.verdicts()?[Verdict::Torn as usize].packets;
    assert!(sent > 0 && torn > 0 && torn == passed, "{sent} sent, {passed} passed, {torn} torn");
    Ok(())
}

#[test]
fn every_field_of_a_key_must_be_as_in_the_record() -> Result<()> {
    let fields: [(&str, ChangeKey); 7] = [
        ("source", |key| key.source[0] ^= 1),
        ("source's fourth byte", |key| key.source[3] ^= 0x80),
        ("destination", |key| key.destination[0] ^= 1),
        ("source port", |key| key.source_port[1] ^= 1),
        ("destination port", |key| key.destination_port[0] ^= 1),
        ("channel", |key| key.channel[1] ^= 1),
        ("family", |key| key.family ^= 2),
    ];
    // Where IPv4 has nothing.
    let of_ipv6: [(&str, ChangeKey); 3] = [
        ("source's last byte", |key| key.source[15] ^= 1),
        ("destination's middle", |key| key.destination[8] ^= 1),
        ("destination's last byte", |key| key.destination[15] ^= 1),
    ];
    Fixture::each_with_data(|fixture, path, packet| {
        for (index, key) in path.keys.iter().enumerate() {
            // What arrives at a relayed address is from a stranger without it; the others know too little to be sure.
            let at_relay = index + 1 == path.keys.len()
                && (!path.is_from_client() || path.name.matches("->").count() == 3)
                && !is_of_leg(&fixture.setup, key);
            let verdict = if at_relay { Verdict::NoPermission } else { Verdict::NoFlow };
            let record = record_of(&fixture.setup, key);
            // Where a channel is not found, a permission will do, unless there is none.
            let permission = FlowKey { source_port: [0; 2], ..*key };
            let fallback = (key.channel == [0; 2] && permission != *key).then_some(permission);
            let fallback = fallback.filter(|_| !is_of_leg(&fixture.setup, key));
            let removed = fallback.map(|key| (key, record_of(&fixture.setup, &key)));
            if let Some((key, _)) = removed {
                fixture.bench.remove(&key)?;
            }
            for (what, change) in fields.into_iter().chain(of_ipv6.into_iter().filter(|_| key.family == 6)) {
                // The record stays where it is, so the program looks right at it, and must see that it is another's.
                fixture.bench.tamper(*key, |slot: &mut Slot| change(&mut slot.front.key))?;
                let what = format!("{}: another {what} than in {key:?}", path.name);
                fixture.bench.expect_refused(&what, &packet.bytes(), verdict)?;
                fixture.bench.insert(*key, record)?;
            }
            if let Some((key, record)) = removed {
                fixture.bench.insert(key, record)?;
            }
        }
        fixture.sent(&format!("{}: the key itself", path.name), &packet).map(|_| ())
    })
}

#[test]
fn a_permission_of_another_allocation_is_none_for_send_indications() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if !matches!(path.framing, Framing::Send(_)) {
            return Ok(());
        }
        let key = path.keys[1];
        let record = record_of(&fixture.setup, &key);
        fixture.bench.insert(key, Rewrite { allocation: record.allocation + 1, ..record })?;
        fixture.bench.expect_refused(&path.name, &packet.bytes(), Verdict::NoFlow)?;
        fixture.bench.insert(key, record)
    })
}

#[test]
fn a_stranger_is_dropped_only_where_the_kernel_knows_all_permissions() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if path.is_from_client() || path.passes_leg() {
            return Ok(());
        }
        let stranger = Frame { source: Family::of(path.source).address(98, 5, 5000), ..packet.clone() };
        fixture.refused(&path.name, &stranger.bytes(), Verdict::NoPermission)?;
        let owner = |allocation: &Allocation| allocation.relays.iter().any(|relay| relay.address == path.destination);
        let index = fixture.setup.allocations.iter().position(owner).expect("an owner");
        fixture.change(index, |allocation| allocation.complete = false)?;
        fixture.refused(&path.name, &stranger.bytes(), Verdict::NoFlow)?;
        fixture.change(index, |allocation| allocation.complete = true)
    })
}

#[test]
fn what_claims_to_come_from_this_host_is_left_to_the_kernel() -> Result<()> {
    let Some(fixture) = Fixture::or_skip()? else { return Ok(()) };
    let relays: Vec<SocketAddr> = fixture.setup.relays().map(|(_, relay)| relay.address).collect();
    for from in &relays {
        for to in relays.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            // What the second relayed address would get, had the first one sent it over the wire.
            let forged = Frame::new(*from, *to, DATA).bytes();
            let run = fixture.bench.expect(&format!("{from} to {to}"), &fixture.setup, &forged)?;
            assert_eq!(run.packet, forged, "{from} to {to}");
        }
    }
    Ok(())
}

#[test]
fn a_listener_or_relay_on_another_address_is_not_ours() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let elsewhere = Family::of(path.destination).address(97, 1, path.destination.port());
        let packet = Frame { destination: elsewhere, ..packet };
        let verdict = match path.framing {
            Framing::Binding(_) => Verdict::Control,
            _ => Verdict::NoFlow,
        };
        fixture.refused(&path.name, &packet.bytes(), verdict)
    })
}

#[test]
fn a_port_without_a_role_is_not_ours() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        for port in [22, 53, 123, 0, u16::MAX] {
            let mut packet = packet.clone();
            packet.destination.set_port(port);
            fixture.refused(&format!("{}: port {port}", path.name), &packet.bytes(), Verdict::NotOurs)?;
        }
        let (port, bytes) = (path.destination.port(), packet.bytes());
        let role = fixture.setup.role(port);
        fixture.bench.role(port, PortRole::None)?;
        fixture.bench.expect_refused("a port that lost its role", &bytes, Verdict::NotOurs)?;
        fixture.bench.role(port, role)?;
        fixture.sent("a port that got it back", &packet).map(|_| ())
    })
}

#[test]
fn a_full_table_answers_for_every_flow() -> Result<()> {
    let Some(_) = Bench::or_skip() else { return Ok(()) };
    let count = 1024;
    for [client, relayed] in [[Family::V4, Family::V4], [Family::V6, Family::V6], [Family::V4, Family::V6]] {
        // All four places of a bucket pair are taken somewhere, and some records were moved to make room.
        let mut setup = Setup::new(Family::ALL.map(Family::listener));
        setup.allocations = (0..count).map(|number| numbered(client, relayed, number, true)).collect();
        let capacities = Capacities { records: setup.records().len() as u32, allocations: count };
        let mut bench = Bench::load(capacities, Limits::default())?;
        bench.install(&setup)?;
        for allocation in &setup.allocations {
            let channel = allocation.channels[0];
            let one_call = Setup { allocations: vec![allocation.clone()], ..setup.clone() };
            let to_peer = Frame::new(allocation.client, allocation.server, stun::channel_data(channel.number, DATA));
            let to_client = Frame::new(channel.peer, allocation.relays[0].address, DATA);
            for packet in [to_peer, to_client] {
                let run = bench.expect("one of many", &one_call, &packet.bytes())?;
                ensure!(run.outcome == Outcome::Transmitted, "{:?}", run.counted);
            }
            let unbound = stun::channel_data(channel.number + 0x2000, DATA);
            let packet = Frame::new(allocation.client, allocation.server, unbound).bytes();
            bench.expect_refused("a channel nobody bound", &packet, Verdict::NoFlow)?;
        }
        let one_more = setup.records_of(&numbered(client, relayed, count, true));
        assert!(bench.insert(one_more[0].0, one_more[0].1).is_err(), "more than its capacity");
    }
    Ok(())
}

#[test]
fn each_allocation_has_its_own_counters() -> Result<()> {
    let Some(fixture) = Fixture::or_skip()? else { return Ok(()) };
    // The first allocation, by each of its paths to and from other than relayed addresses.
    let client = fixture.setup.allocations[0].client;
    let mine = |path: &&Path| path.source == client && path.name.contains("-> UDP");
    for path in fixture.paths.iter().filter(mine) {
        for (packets, data) in [(1, &DATA[..1]), (2, &DATA[..3])] {
            for _ in 0..packets {
                fixture.bench.run(&path.frame(data).bytes())?;
            }
        }
        fixture.bench.run(&Frame { hop_limit: 1, ..path.frame(DATA) }.bytes())?;
    }
    assert_eq!(fixture.bench.allocation(1).to_peer, Count { packets: 4 * 3, bytes: 4 * 7 });
    assert_eq!(fixture.bench.allocation(1).to_client, Count::default());
    assert_eq!(fixture.bench.allocation(2).to_peer, Count::default());
    Ok(())
}

/// Whether a key is that of what arrives at a leg, where nobody can say that there is no permission.
fn is_of_leg(setup: &Setup, key: &FlowKey) -> bool {
    setup.media.iter().flat_map(|media| setup.records_of_media(media)).any(|(known, _)| known == *key)
}

/// The record that a setup has for a key.
fn record_of(setup: &Setup, key: &FlowKey) -> Rewrite {
    let records = setup.records();
    records.iter().find(|(found, _)| found == key).unwrap_or_else(|| panic!("no record for {key:?}")).1
}
