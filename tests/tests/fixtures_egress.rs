//! Where packets leave, and where they may come in: interfaces, VLANs, next hops and their MTU.

use anyhow::Result;
use hairpin_common::{maps::NextHop, verdict::Verdict};
use hairpin_tests::program::{
    bench::{INTERFACE, NEXT_HOP, OTHER_INTERFACE, Outcome},
    fixture::{DATA, Fixture},
    frame::{Frame, hex},
    model::Judgement,
};

/// A tag with priority 5, drop eligible, VLAN 42.
const TAG: u16 = 0xb02a;
const VLAN: u16 = 42;
/// The host's own address on the other interface.
const OTHER_ADDRESS: [u8; 6] = [0x02, 0x77, 0, 0, 0, 1];

/// A fixture whose host has VLAN 42 on one interface, and another interface with the same.
fn fixture() -> Result<Option<Fixture>> {
    with_links(Fixture::or_skip()?)
}

fn with_links(fixture: Option<Fixture>) -> Result<Option<Fixture>> {
    let Some(mut fixture) = fixture else { return Ok(None) };
    for (interface, address) in [(INTERFACE, NEXT_HOP.source), (OTHER_INTERFACE, OTHER_ADDRESS)] {
        for vlan in [0, VLAN] {
            fixture.setup.links.insert((interface, vlan), address);
        }
    }
    fixture.setup.devices.push(OTHER_INTERFACE);
    fixture.set_next_hop(None)?;
    Ok(Some(fixture))
}

#[test]
fn tags_and_interfaces_are_those_of_the_next_hop() -> Result<()> {
    // Binding requests go back to where they came from, whatever the next hop of others is.
    assert_on_each_link(fixture()?, 48, 4)
}

#[test]
fn tags_and_interfaces_of_media_are_those_of_the_next_hop() -> Result<()> {
    assert_on_each_link(with_links(Fixture::of_media_or_skip()?)?, 48, 0)
}

/// Sends a packet by each path from each link to each, with so many paths of data and of Binding requests.
fn assert_on_each_link(fixture: Option<Fixture>, data: usize, binding: usize) -> Result<()> {
    let Some(mut fixture) = fixture else { return Ok(()) };
    let (mut transmitted, mut redirected) = (0, 0);
    for (interface, source) in [(INTERFACE, NEXT_HOP.source), (OTHER_INTERFACE, OTHER_ADDRESS)] {
        for vlan_out in [0, VLAN, 43] {
            let vlan = vlan_out.to_be_bytes();
            fixture.set_next_hop(Some(NextHop { interface, source, vlan, ..NEXT_HOP }))?;
            for (ingress, own) in [(INTERFACE, NEXT_HOP.source), (OTHER_INTERFACE, OTHER_ADDRESS)] {
                for tag in [None, Some(0xa000), Some(TAG)] {
                    for path in &fixture.paths {
                        let packet = Frame { vlan: tag, link: (own, [0x02, 0, 0, 0, 0, 2]), ..path.frame(DATA) };
                        let what = format!("{}: {tag:x?} by {ingress} to VLAN {vlan_out} by {interface}", path.name);
                        let run = fixture.bench.expect_from(&what, &fixture.setup, ingress, &packet.bytes())?;
                        match run.outcome {
                            Outcome::Transmitted => transmitted += 1,
                            Outcome::Redirected => redirected += 1,
                            other => panic!("{what}: {other:?} {:?}", run.counted),
                        }
                        if path.carries_data() && vlan_out != 0 {
                            let tag = u16::from_be_bytes([run.packet[14], run.packet[15]]);
                            assert_eq!(tag & 0xfff, vlan_out, "{what}{}", hex(&run.packet));
                        }
                    }
                }
            }
        }
    }
    assert_eq!((transmitted, redirected), ((data + 2 * binding) * 18, data * 18));
    Ok(())
}

#[test]
fn a_link_that_is_not_this_host_s_is_left_to_the_kernel() -> Result<()> {
    let Some(mut fixture) = fixture()? else { return Ok(()) };
    // It leaves by VLAN 42, so that it cannot be known from the next hop what the address is where it came in.
    fixture.set_next_hop(Some(NextHop { vlan: VLAN.to_be_bytes(), ..NEXT_HOP }))?;
    for path in &fixture.paths {
        for (what, packet) in [
            ("a VLAN of others", Frame { vlan: Some(44), ..path.frame(DATA) }),
            ("another address", Frame { link: (OTHER_ADDRESS, [2; 6]), ..path.frame(DATA) }),
            ("everybody", Frame { link: ([0xff; 6], [2; 6]), ..path.frame(DATA) }),
        ] {
            fixture.refused(&format!("{}: {what}", path.name), &packet.bytes(), Verdict::OtherHost)?;
        }
    }
    Ok(())
}

#[test]
fn a_packet_seen_in_passing_is_not_dropped() -> Result<()> {
    let Some(fixture) = fixture()? else { return Ok(()) };
    for path in fixture.paths.iter().filter(|path| !path.is_from_client()) {
        let mut stranger = path.frame(DATA);
        stranger.source.set_ip(if stranger.source.is_ipv4() { [192, 0, 2, 1].into() } else { "3fff::1".parse()? });
        fixture.refused(&path.name, &stranger.bytes(), Verdict::NoPermission)?;
        let others = Frame { link: (OTHER_ADDRESS, [2; 6]), ..stranger.clone() };
        fixture.refused(&format!("{}: to another host", path.name), &others.bytes(), Verdict::OtherHost)?;
        let others = Frame { vlan: Some(44), ..stranger };
        fixture.refused(&format!("{}: in another VLAN", path.name), &others.bytes(), Verdict::OtherHost)?;
    }
    Ok(())
}

#[test]
fn an_interface_that_cannot_be_sent_to_leaves_it_to_the_kernel() -> Result<()> {
    let Some(mut fixture) = fixture()? else { return Ok(()) };
    fixture.set_next_hop(Some(NextHop { interface: OTHER_INTERFACE, source: OTHER_ADDRESS, ..NEXT_HOP }))?;
    fixture.bench.maps.devices.remove(OTHER_INTERFACE)?;
    fixture.setup.devices.pop();
    for path in fixture.paths.iter().filter(|path| path.carries_data()) {
        fixture.refused(&path.name, &path.frame(DATA).bytes(), Verdict::NextHop)?;
    }
    Ok(())
}

#[test]
fn a_next_hop_that_is_not_known_leaves_it_to_the_kernel() -> Result<()> {
    let Some(mut fixture) = fixture()? else { return Ok(()) };
    let destinations: Vec<_> = {
        let clients = fixture.setup.allocations.iter().map(|allocation| allocation.client.ip());
        let peers = fixture.setup.allocations.iter().flat_map(|it| it.permissions.iter().map(|it| it.peer));
        clients.chain(peers).collect()
    };
    for (next_hop, what) in [(0, "none"), (2, "one that is not set"), (1023, "the last"), (u16::MAX, "out of range")] {
        fixture.setup.routes = destinations.iter().map(|address| (*address, next_hop)).collect();
        for index in 0..fixture.setup.allocations.len() {
            fixture.change(index, |_| {})?;
        }
        for path in fixture.paths.iter().filter(|path| path.carries_data()) {
            let what = format!("{}: next hop {what}", path.name);
            fixture.refused(&what, &path.frame(DATA).bytes(), Verdict::NextHop)?;
        }
    }
    Ok(())
}

#[test]
fn what_outgrows_the_link_is_passed() -> Result<()> {
    Fixture::each_with_data(|fixture, path, _| {
        for length in [0, 1, 10, 700].into_iter().filter(|length| *length > 0 || !path.passes_leg()) {
            let packet = path.frame(&vec![0x81; length]);
            let Judgement::Sent(sent) = fixture.setup.judge(INTERFACE, &packet.bytes()) else {
                panic!("{}", path.name)
            };
            let mtu = sent.packet_length() as u32;
            fixture.set_next_hop(Some(NextHop { mtu: mtu - 1, ..NEXT_HOP }))?;
            let what = format!("{}: one byte more than {} bytes", path.name, mtu - 1);
            fixture.refused(&what, &packet.bytes(), Verdict::TooBig)?;
            fixture.set_next_hop(Some(NextHop { mtu, ..NEXT_HOP }))?;
            fixture.sent(&format!("{}: just fits {mtu} bytes", path.name), &packet)?;
            fixture.set_next_hop(None)?;
        }
        Ok(())
    })
}
