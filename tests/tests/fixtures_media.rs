//! Media sessions on the bench: what goes from leg to leg, and what is left to the daemon. All that is true of media as it
//! is of other data is in the other files of this name, whose paths include those of media.

use anyhow::Result;
use hairpin::datapath::Limits;
use hairpin_common::{
    limit::Meter,
    maps::{AllocationCount, AllocationState, Count, NextHop, Pace},
    verdict::Verdict,
};
use hairpin_tests::program::{
    bench::{Bench, INTERFACE, NEXT_HOP, Outcome},
    fixture::{DATA, Fixture, at_once},
    frame::Frame,
    media::media_world,
    model::{Direction, Judgement},
    setup::{Channel, Leg, Media},
    stun,
    world::{Family, Path},
};

/// Runs a test for each path of media, those behind a NAT included, with a good packet of it.
fn each(mut test: impl FnMut(&mut Fixture, &Path, Frame) -> Result<()>) -> Result<()> {
    Fixture::each(|fixture, path, packet| if path.passes_leg() { test(fixture, path, packet) } else { Ok(()) })
}

/// Changes the paths of media of a fixture, in the setup and in the kernel.
fn change(fixture: &mut Fixture, change: impl Fn(&mut Media)) -> Result<()> {
    for media in &mut fixture.setup.media.clone() {
        for (key, _) in fixture.setup.records_of_media(media) {
            fixture.bench.remove(&key)?;
        }
    }
    fixture.setup.media.iter_mut().for_each(change);
    for media in &fixture.setup.media {
        for (key, record) in fixture.setup.records_of_media(media) {
            fixture.bench.insert(key, record)?;
        }
    }
    Ok(())
}

#[test]
fn stun_goes_up_and_everything_else_is_media() -> Result<()> {
    let mut counts = [0, 0];
    each(|fixture, path, _| {
        // DTLS is 20 to 63, TURN channels are 64 to 79, RTP and RTCP are 128 to 191 (RFC 7983 section 7).
        for first in 0..=255 {
            let what = format!("{}: first byte {first}", path.name);
            for data in [&[first][..], &[first, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0]] {
                let packet = path.frame(data);
                if first < 4 {
                    counts[0] += 1;
                    fixture.refused(&what, &packet.bytes(), Verdict::Control)?;
                } else {
                    counts[1] += 1;
                    fixture.sent(&what, &packet)?;
                }
            }
        }
        Ok(())
    })?;
    assert!(counts == [0; 2] || counts == [88 * 2 * 4, 88 * 2 * 252], "{counts:?}");
    Ok(())
}

#[test]
fn stun_in_a_vlan_and_of_a_long_packet_goes_up() -> Result<()> {
    each(|fixture, path, _| {
        let check = [&[0, 1, 0x04, 0x60, 0x21, 0x12, 0xa4, 0x42][..], &[7; 0x46c]].concat();
        for vlan in [None, Some(0xa000)] {
            let packet = Frame { vlan, ..path.frame(&check) };
            fixture.refused(&path.name, &packet.bytes(), Verdict::Control)?;
        }
        Ok(())
    })
}

#[test]
fn what_is_empty_goes_up() -> Result<()> {
    each(|fixture, path, _| {
        fixture.refused(&path.name, &path.frame(&[]).bytes(), Verdict::Control)?;
        // The link's padding is nothing that a leg got.
        let padded = Frame { trailing: vec![0xee; 18], ..path.frame(&[]) };
        fixture.refused(&format!("{}, padded", path.name), &padded.bytes(), Verdict::Control)
    })
}

#[test]
fn a_leg_sends_on_what_its_remote_sends_and_leaves_all_others_to_the_daemon() -> Result<()> {
    each(|fixture, path, packet| {
        if path.is_from_client() {
            return Ok(());
        }
        let mut other_port = packet.clone();
        other_port.source.set_port(packet.source.port() + 1);
        let mut nobody = packet.clone();
        nobody.source.set_ip(Family::of(packet.source).address(99, 1, 1).ip());
        let listener = Frame { source: Family::of(packet.source).listener(), ..packet.clone() };
        for stranger in [other_port, nobody, listener] {
            fixture.refused(&format!("{}: from {}", path.name, stranger.source), &stranger.bytes(), Verdict::NoFlow)?;
        }
        let stun = Frame { payload: vec![0; 20], source: Family::of(packet.source).address(99, 1, 1), ..packet };
        fixture.refused(&format!("{}: a stranger's check", path.name), &stun.bytes(), Verdict::NoFlow)
    })
}

#[test]
fn a_path_whose_time_is_over_is_not_used() -> Result<()> {
    for fixture in [Fixture::of_media_or_skip()?, Fixture::of_media_behind_nat_or_skip()?] {
        let Some(mut fixture) = fixture else { return Ok(()) };
        change(&mut fixture, |media| media.live = false)?;
        for path in &fixture.paths {
            fixture.refused(&path.name, &path.frame(DATA).bytes(), Verdict::Expired)?;
        }
        change(&mut fixture, |media| media.live = true)?;
        for path in &fixture.paths {
            fixture.sent(&path.name, &path.frame(DATA))?;
        }
    }
    Ok(())
}

#[test]
fn a_path_without_records_is_left_to_the_daemon() -> Result<()> {
    let Some(mut fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    let of_media: Vec<_> = fixture.setup.media.iter().flat_map(|media| fixture.setup.records_of_media(media)).collect();
    for (key, _) in &of_media {
        fixture.bench.remove(key)?;
    }
    for path in &fixture.paths {
        fixture.bench.expect_refused(&path.name, &path.frame(DATA).bytes(), Verdict::NoFlow)?;
    }
    Ok(())
}

#[test]
fn what_claims_to_come_from_a_relayed_address_or_a_leg_is_left_to_the_kernel() -> Result<()> {
    let Some(fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    let mut forged = 0;
    for media in &fixture.setup.media {
        let Media { client, peer, .. } = media;
        if !fixture.setup.relays_from(peer.remote.ip()) {
            continue;
        }
        forged += 1;
        // What the leg would get, had its remote, which is this host's own, sent it over a wire.
        let packet = Frame::new(peer.remote, peer.local, DATA).bytes();
        fixture.refused(&format!("{} to {}", peer.remote, peer.local), &packet, Verdict::NoFlow)?;
        let packet = Frame::new(client.remote, client.local, DATA);
        fixture.sent(&format!("{} to {}", client.remote, client.local), &packet)?;
    }
    assert_eq!(forged, 16 + 2 * 8);
    Ok(())
}

/// A relay with a client, whose peer is a leg; there, a relayed address is the remote where there is none for the program.
fn three_hops() -> Result<Option<Fixture>> {
    let Some(mut fixture) = Fixture::of_media_or_skip()? else { return Ok(None) };
    for (family, index) in Family::ALL.into_iter().zip(60..) {
        let port = 60_000;
        let local = |offset| family.address(51, 1, port + offset);
        let caller = fixture.setup.allocations.iter_mut().find(|caller| Family::of(caller.client) == family);
        let caller = caller.expect("a client of each IP version");
        let relay = caller.relay_to(local(0).ip()).expect("an address of each IP version").address;
        caller.channels.push(Channel { number: 0x4f00, peer: local(0), live: true });
        let stranger = Leg { local: local(1), remote: family.address(55, port, 7000) };
        // The other way round than the daemon has it.
        let upside_down = Media { index, client: Leg { local: local(0), remote: relay }, peer: stranger, live: true };
        fixture.setup.media.push(upside_down);
    }
    let Fixture { bench, setup, .. } = &mut fixture;
    bench.install(setup)?;
    Ok(Some(fixture))
}

#[test]
fn three_relays_in_a_row_are_left_to_the_daemon() -> Result<()> {
    let Some(fixture) = three_hops()? else { return Ok(()) };
    for caller in &fixture.setup.allocations {
        for channel in caller.channels.iter().filter(|channel| channel.number == 0x4f00) {
            let (client, server) = (caller.client, caller.server);
            let packet = Frame::new(client, server, stun::channel_data(channel.number, DATA)).bytes();
            fixture.refused(&format!("{client} to {}", channel.peer), &packet, Verdict::NoFlow)?;
            let to_leg = Frame::new(client, server, stun::send_indication(channel.peer, DATA, [7; 12])).bytes();
            fixture.refused(&format!("{client} to {} by Send", channel.peer), &to_leg, Verdict::NoFlow)?;
        }
    }
    Ok(())
}

#[test]
fn a_client_that_has_no_permission_for_a_leg_gets_nothing_from_it() -> Result<()> {
    let Some(mut fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    let legs: Vec<_> = fixture.paths.iter().filter(|path| !path.is_from_client()).cloned().collect();
    for (verdict, complete) in [(Verdict::NoPermission, true), (Verdict::NoFlow, false)] {
        let mut refused = 0;
        for index in 0..fixture.setup.allocations.len() {
            fixture.change(index, |allocation| {
                allocation.permissions.clear();
                allocation.channels.clear();
                allocation.complete = complete;
            })?;
        }
        for path in &legs {
            let what = format!("{}: of complete allocations: {complete}", path.name);
            let run = fixture.bench.expect(&what, &fixture.setup, &path.frame(DATA).bytes())?;
            refused += usize::from(run.counted[0].0 == verdict);
        }
        assert_eq!(refused, 16, "{verdict:?}");
    }
    Ok(())
}

#[test]
fn each_path_counts_what_it_carries_each_way() -> Result<()> {
    let Some(fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    let &Media { index, client, peer, .. } = &fixture.setup.media[1];
    let send = |from: Leg, data: &[u8]| -> Result<()> {
        let run = fixture.bench.run(&Frame::new(from.remote, from.local, data).bytes())?;
        let count = Count { packets: 1, bytes: data.len() as u64 };
        assert_eq!(run.counted, [(Verdict::Media, count)]);
        Ok(())
    };
    for (from, packets, bytes) in [(client, 3, 100), (peer, 2, 7)] {
        for _ in 0..packets {
            send(from, &vec![0x80; bytes])?;
        }
        // Nothing of what goes up.
        fixture.bench.run(&Frame::new(from.remote, from.local, [0, 1]).bytes())?;
    }
    let counted = fixture.bench.allocation(index);
    let expected =
        AllocationCount { to_peer: Count { packets: 3, bytes: 300 }, to_client: Count { packets: 2, bytes: 14 } };
    assert_eq!(counted, expected);
    Ok(())
}

#[test]
fn between_a_client_and_a_leg_both_count_and_the_verdict_says_so() -> Result<()> {
    let Some(fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    let mut seen = [0; 3];
    for path in fixture.paths.iter().filter(|path| path.name.matches("->").count() > 2) {
        let run = fixture.sent(&path.name, &path.frame(DATA))?;
        let expected = match (path.is_from_client(), path.name.starts_with("media -> media")) {
            (true, _) => Verdict::ClientToMedia,
            (false, true) => Verdict::Media,
            (false, false) => Verdict::MediaToClient,
        };
        assert_eq!(run.counted[0].0, expected, "{}", path.name);
        seen[[Verdict::ClientToMedia, Verdict::Media, Verdict::MediaToClient]
            .iter()
            .position(|verdict| *verdict == expected)
            .expect("one of them")] += 1;
    }
    assert_eq!(seen, [16, 8, 16]);
    Ok(())
}

#[test]
fn a_path_s_datagrams_are_limited_each_way() -> Result<()> {
    let limits = Limits { allocation_packets: at_once(3), ..Limits::default() };
    let Some(mut bench) = Bench::limited_or_skip(limits) else { return Ok(()) };
    let (setup, paths) = media_world();
    bench.install(&setup)?;
    for path in &paths {
        for index in setup.indices() {
            bench.set_state(index, AllocationState::default())?;
        }
        let packet = path.frame(DATA).bytes();
        let Judgement::Sent(sent) = setup.judge(INTERFACE, &packet) else { panic!("{}", path.name) };
        for _ in 0..3 {
            assert_eq!(bench.run(&packet)?.outcome, Outcome::Transmitted, "{}", path.name);
        }
        let run = bench.run(&packet)?;
        let verdict = run.counted[0].0;
        assert_eq!((run.outcome, verdict), (Outcome::Dropped, Verdict::AllocationPacketRate), "{}", path.name);
        for index in setup.indices() {
            let AllocationState { to_peer, to_client, .. } = bench.state(index)?;
            for (pace, direction) in [(to_peer, Direction::ToPeer), (to_client, Direction::ToClient)] {
                let counts = sent.counted.contains(&(index, direction));
                assert_eq!(pace != Pace::default(), counts, "{}: {direction:?} of {index}", path.name);
                assert_eq!(pace.bytes, Meter(0), "there is no limit of bytes");
            }
        }
    }
    Ok(())
}

#[test]
fn a_next_hop_that_is_not_known_leaves_it_to_the_daemon() -> Result<()> {
    let Some(mut fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    fixture.set_next_hop(Some(NextHop { interface: 0, ..NEXT_HOP }))?;
    for path in &fixture.paths {
        fixture.refused(&path.name, &path.frame(DATA).bytes(), Verdict::NextHop)?;
    }
    Ok(())
}
