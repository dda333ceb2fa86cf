//! Single packets through the XDP program: what is sent is right to the last byte, what is passed is untouched, and each
//! is counted once under the verdict that says why.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use hairpin::datapath::program::Capacities;
use hairpin_common::{
    maps::{Count, FlowKey, NextHop, PortRole, Rewrite, tick},
    verdict::Verdict,
    wire::{CHANNEL_MAX, CHANNEL_MIN},
};
use hairpin_tests::program::{
    bench::{Bench, NEXT_HOP, Outcome},
    flow::{Direction, Flow, Key},
    frame::{Frame, hex, repair_ipv4},
    sys::{self, monotonic_nanoseconds},
};

const DIRECTIONS: [Direction; 2] = [Direction::ToPeer, Direction::ToClient];
const DATA: &[u8] = b"some audio";
/// A tag with priority 5, drop eligible, VLAN 42.
const TAG: u16 = 0xb02a;

/// A bench with one flow of each family.
fn bench() -> Result<Option<(Bench, [Flow; 2])>> {
    let Some(mut bench) = Bench::or_skip() else { return Ok(None) };
    let flows = [Flow::numbered(false, 1), Flow::numbered(true, 30)];
    for flow in &flows {
        bench.install(flow)?;
    }
    Ok(Some((bench, flows)))
}

/// Runs a test for each direction and family, with a good packet of it.
fn each(mut test: impl FnMut(&mut Bench, &Flow, Direction, Frame) -> Result<()>) -> Result<()> {
    let Some((mut bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        for direction in DIRECTIONS {
            test(&mut bench, flow, direction, flow.packet(direction, DATA))?;
        }
    }
    Ok(())
}

/// Expects a packet to be sent as by the book.
fn sent(bench: &Bench, what: &str, flow: &Flow, direction: Direction, packet: &Frame, data: &[u8]) -> Result<()> {
    let expected = flow.relayed_packet(direction, packet, data, &NEXT_HOP);
    bench.expect_sent(what, &packet.bytes(), direction, data.len(), &expected.bytes())
}

/// A ChannelData message whose header claims `claimed` bytes.
fn channel_data(flow: &Flow, claimed: u16, data: &[u8]) -> Vec<u8> {
    [&flow.channel.to_be_bytes()[..], &claimed.to_be_bytes(), data].concat()
}

#[test]
fn a_good_packet_is_relayed() -> Result<()> {
    each(|bench, flow, direction, packet| sent(bench, "a good packet", flow, direction, &packet, DATA))
}

#[test]
fn every_length_is_relayed() -> Result<()> {
    each(|bench, flow, direction, _| {
        // The MTU leaves 1500 - 40 - 8 - 4 bytes in the tightest case.
        for length in (0..64_u32).chain(1380..=1448) {
            let data: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            sent(bench, &format!("{length} bytes"), flow, direction, &flow.packet(direction, &data), &data)?;
        }
        Ok(())
    })
}

#[test]
fn every_channel_number_is_relayed() -> Result<()> {
    let Some(mut bench) = Bench::or_skip() else { return Ok(()) };
    for channel in [CHANNEL_MIN, 0x4fff, 0x5000, CHANNEL_MAX] {
        let flow = Flow { channel, ..Flow::numbered(false, 1) };
        bench.install(&flow)?;
        for direction in DIRECTIONS {
            let packet = flow.packet(direction, DATA);
            sent(&bench, &format!("channel {channel:#x}"), &flow, direction, &packet, DATA)?;
        }
    }
    Ok(())
}

#[test]
fn a_packet_cut_short_is_passed() -> Result<()> {
    each(|bench, _, direction, packet| {
        let bytes = packet.bytes();
        // The kernel runs no program on less than an Ethernet header.
        for length in 14..bytes.len() {
            let what = format!("{direction:?} cut to {length} of {} bytes", bytes.len());
            bench.expect_passed(&what, &bytes[..length], Verdict::NotUdp)?;
        }
        Ok(())
    })
}

#[test]
fn channel_data_cut_short_in_a_whole_datagram_is_passed() -> Result<()> {
    let Some((bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        let whole = channel_data(flow, 10, DATA);
        for length in 0..whole.len() {
            let packet = Frame::new(flow.client, flow.listener, &whole[..length]);
            let verdict = if length < 4 { Verdict::Control } else { Verdict::Malformed };
            bench.expect_passed(&format!("{length} bytes of ChannelData"), &packet.bytes(), verdict)?;
        }
    }
    Ok(())
}

#[test]
fn lengths_that_contradict_each_other_are_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let good = packet.bytes();
        let (layer3, layer4) = (packet.layer3(), packet.layer4());
        let ip_length = if flow.client.is_ipv4() { layer3 + 2 } else { layer3 + 4 };
        for at in [ip_length, layer4 + 4] {
            let right = u16::from_be_bytes([good[at], good[at + 1]]);
            for wrong in [0, 1, 7, 8, right - 1, right + 1, right + 4, u16::MAX].into_iter().filter(|it| *it != right) {
                for (trailing, what) in [(0, "exact"), (64, "padded")] {
                    let mut bytes = good.clone();
                    bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
                    bytes.extend(vec![0; trailing]);
                    if flow.client.is_ipv4() {
                        repair_ipv4(&mut bytes, layer3);
                    }
                    let what = format!("{direction:?}: {what} frame, length at {at} is {wrong} for {right}");
                    bench.expect_passed(&what, &bytes, Verdict::NotUdp)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_udp_length_below_its_header_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        for length in 0..8_u16 {
            let mut bytes = packet.bytes();
            let (layer3, layer4) = (packet.layer3(), packet.layer4());
            bytes[layer4 + 4..layer4 + 6].copy_from_slice(&length.to_be_bytes());
            if flow.client.is_ipv4() {
                bytes[layer3 + 2..layer3 + 4].copy_from_slice(&(20 + length).to_be_bytes());
                repair_ipv4(&mut bytes, layer3);
            } else {
                bytes[layer3 + 4..layer3 + 6].copy_from_slice(&length.to_be_bytes());
            }
            bench.expect_passed(&format!("{direction:?}: both lengths say {length}"), &bytes, Verdict::NotUdp)?;
        }
        Ok(())
    })
}

#[test]
fn what_is_not_udp_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let good = packet.bytes();
        let protocol = if flow.client.is_ipv4() { 23 } else { 20 };
        // TCP, ICMP, UDP-Lite; hop-by-hop options, routing, destination options, no next header.
        for other in [6, 1, 136, 0, 43, 60, 59] {
            let mut bytes = good.clone();
            bytes[protocol] = other;
            bench.expect_passed(&format!("{direction:?}: protocol {other}"), &bytes, Verdict::NotUdp)?;
        }
        // ARP, provider bridging, and the other family's type.
        for other in [0x0806, 0x88a8, if flow.client.is_ipv4() { 0x86dd } else { 0x0800_u16 }] {
            let mut bytes = good.clone();
            bytes[12..14].copy_from_slice(&other.to_be_bytes());
            bench.expect_passed(&format!("{direction:?}: EtherType {other:#06x}"), &bytes, Verdict::NotUdp)?;
        }
        for version in [0, 5, 15] {
            let mut bytes = good.clone();
            bytes[14] = version << 4 | bytes[14] & 15;
            bench.expect_passed(&format!("{direction:?}: IP version {version}"), &bytes, Verdict::NotUdp)?;
        }
        Ok(())
    })
}

#[test]
fn ip_options_are_passed() -> Result<()> {
    let Some((bench, [flow, _])) = bench()? else { return Ok(()) };
    for direction in DIRECTIONS {
        let mut bytes = flow.packet(direction, DATA).bytes();
        // Four "no operation" options.
        bytes.splice(34..34, [1; 4]);
        bytes[14] = 0x46;
        let length = u16::from_be_bytes([bytes[16], bytes[17]]) + 4;
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        repair_ipv4(&mut bytes, 14);
        bench.expect_passed("a header of 24 bytes", &bytes, Verdict::IpOptions)?;
        // Shorter than any header can be.
        let mut bytes = flow.packet(direction, DATA).bytes();
        bytes[14] = 0x44;
        repair_ipv4(&mut bytes, 14);
        bench.expect_passed("a header of 16 bytes", &bytes, Verdict::IpOptions)?;
    }
    Ok(())
}

#[test]
fn fragments_are_passed() -> Result<()> {
    let Some((bench, [flow4, flow6])) = bench()? else { return Ok(()) };
    for direction in DIRECTIONS {
        // The first fragment, the last one with the lowest and highest offset, one in the middle.
        for word in [0x2000_u16, 0x0001, 0x1fff, 0x2001] {
            let mut bytes = flow4.packet(direction, DATA).bytes();
            bytes[20..22].copy_from_slice(&word.to_be_bytes());
            repair_ipv4(&mut bytes, 14);
            bench.expect_passed(&format!("fragmentation {word:#06x}"), &bytes, Verdict::Fragment)?;
        }
        let mut bytes = flow6.packet(direction, DATA).bytes();
        bytes.splice(54..54, [17, 0, 0, 1, 0, 0, 0, 9]);
        bytes[20] = 44;
        let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        bench.expect_passed("an IPv6 fragment header", &bytes, Verdict::Fragment)?;
    }
    Ok(())
}

#[test]
fn ipv6_extension_headers_are_passed() -> Result<()> {
    let Some((bench, [_, flow])) = bench()? else { return Ok(()) };
    for direction in DIRECTIONS {
        let mut bytes = flow.packet(direction, DATA).bytes();
        // Destination options that hold padding only.
        bytes.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
        bytes[20] = 60;
        let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        bench.expect_passed("destination options", &bytes, Verdict::NotUdp)?;
    }
    Ok(())
}

#[test]
fn a_wrong_header_checksum_is_not_repaired() -> Result<()> {
    let Some((bench, [flow, _])) = bench()? else { return Ok(()) };
    for direction in DIRECTIONS {
        let good = flow.packet(direction, DATA).bytes();
        for bit in 0..16 {
            let mut bytes = good.clone();
            bytes[24 + bit / 8] ^= 1 << (bit % 8);
            bench.expect_passed(&format!("bit {bit} of the checksum"), &bytes, Verdict::NotUdp)?;
        }
    }
    Ok(())
}

#[test]
fn a_wrong_udp_checksum_stays_wrong() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let mut bytes = packet.bytes();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x10;
        let right = flow.relayed_packet(direction, &packet, DATA, &NEXT_HOP).bytes();
        let mut expected = right.clone();
        let last = expected.len() - 1;
        expected[last] ^= 0x10;
        bench.expect_sent("a damaged payload under the old checksum", &bytes, direction, DATA.len(), &expected)
    })
}

#[test]
fn without_a_udp_checksum_ipv4_has_none_and_ipv6_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let packet = Frame { checksum: false, ..packet };
        if flow.client.is_ipv4() {
            sent(bench, "no checksum", flow, direction, &packet, DATA)
        } else {
            bench.expect_passed("no checksum", &packet.bytes(), Verdict::NotUdp)
        }
    })
}

#[test]
fn a_checksum_of_zero_is_sent_as_ones() -> Result<()> {
    each(|bench, flow, direction, _| {
        // With its own checksum as data, the packet that leaves sums up to zero.
        let at = |packet: &Frame| packet.layer4() + 6;
        let trial = flow.relayed_packet(direction, &flow.packet(direction, &[0; 2]), &[0; 2], &NEXT_HOP);
        let data = trial.bytes()[at(&trial)..at(&trial) + 2].to_vec();
        let packet = flow.packet(direction, &data);
        let expected = flow.relayed_packet(direction, &packet, &data, &NEXT_HOP);
        assert_eq!(expected.bytes()[at(&expected)..at(&expected) + 2], [0xff; 2], "{}", hex(&expected.bytes()));
        sent(bench, "a checksum of zero", flow, direction, &packet, &data)
    })
}

#[test]
fn a_frame_to_another_host_is_left_to_the_kernel() -> Result<()> {
    each(|bench, _, direction, packet| {
        let (own, from) = packet.link;
        for at in 0..6 {
            let mut other = own;
            other[at] ^= 1;
            let packet = Frame { link: (other, from), ..packet.clone() };
            bench.expect_passed(&format!("{direction:?}: byte {at} differs"), &packet.bytes(), Verdict::OtherHost)?;
        }
        Ok(())
    })
}

#[test]
fn a_vlan_tag_is_kept() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let packet = Frame { vlan: Some(TAG), ..packet };
        bench.expect_passed("a next hop without a VLAN", &packet.bytes(), Verdict::OtherLink)?;
        bench.maps.next_hops.set(1, NextHop { vlan: (TAG & 0xfff).to_be_bytes(), ..NEXT_HOP }, 0)?;
        sent(bench, "the next hop's VLAN", flow, direction, &packet, DATA)?;
        let other = Frame { vlan: Some(TAG ^ 1), ..packet.clone() };
        bench.expect_passed("another VLAN", &other.bytes(), Verdict::OtherLink)?;
        let none = Frame { vlan: None, ..packet.clone() };
        bench.expect_passed("no tag", &none.bytes(), Verdict::OtherLink)?;
        bench.maps.next_hops.set(1, NEXT_HOP, 0)?;
        let priority = Frame { vlan: Some(0xa000), ..packet };
        sent(bench, "a tag with a priority only", flow, direction, &priority, DATA)
    })
}

#[test]
fn a_tagged_packet_cut_short_is_passed() -> Result<()> {
    each(|bench, _, direction, packet| {
        let bytes = Frame { vlan: Some(0xa000), ..packet }.bytes();
        for length in 14..bytes.len() {
            bench.expect_passed(&format!("{direction:?} cut to {length}"), &bytes[..length], Verdict::NotUdp)?;
        }
        Ok(())
    })
}

#[test]
fn two_vlan_tags_are_passed() -> Result<()> {
    each(|bench, _, _, packet| {
        let mut bytes = packet.bytes();
        bytes.splice(12..12, [0x81, 0, 0, 0, 0x81, 0, 0, 0]);
        bench.expect_passed("two tags", &bytes, Verdict::NotUdp)
    })
}

#[test]
fn padding_of_channel_data_is_not_relayed() -> Result<()> {
    let Some((bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        for length in [0_u32, 1, 2, 3, 10, 11, 1001] {
            let data: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x5a).collect();
            for pad in [&[0][..], &[0, 0], &[0, 0, 0], &[0xff], &[0xab, 0xcd], &[0x12, 0x34, 0x56], &[0xff; 3]] {
                let mut packet = flow.packet(Direction::ToPeer, &data);
                packet.payload.extend(pad);
                let what = format!("{length} bytes with padding {pad:02x?}");
                sent(&bench, &what, flow, Direction::ToPeer, &packet, &data)?;
                let packet = Frame { trailing: vec![0xee; 5], ..packet };
                sent(&bench, &format!("{what} and the link's"), flow, Direction::ToPeer, &packet, &data)?;
                if flow.client.is_ipv4() {
                    let packet = Frame { checksum: false, ..packet };
                    sent(&bench, &format!("{what}, no checksum"), flow, Direction::ToPeer, &packet, &data)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn channel_data_with_more_than_padding_is_passed() -> Result<()> {
    let Some((bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        for (claimed, what) in [(6, "4 bytes more"), (0, "10 bytes more"), (11, "1 byte less"), (u16::MAX, "far less")]
        {
            let packet = Frame::new(flow.client, flow.listener, channel_data(flow, claimed, DATA));
            bench.expect_passed(what, &packet.bytes(), Verdict::Malformed)?;
        }
        // Claims so large that what is missing, taken as an unsigned number, looks like padding.
        for (claimed, held) in [(u16::MAX, 0), (u16::MAX, 2), (u16::MAX - 2, 0), (0x8000, 0)] {
            let packet = Frame::new(flow.client, flow.listener, channel_data(flow, claimed, &DATA[..held]));
            let what = format!("{claimed} bytes claimed, {held} held");
            bench.expect_passed(&what, &packet.bytes(), Verdict::Malformed)?;
        }
    }
    Ok(())
}

#[test]
fn the_link_s_padding_is_not_relayed() -> Result<()> {
    each(|bench, flow, direction, _| {
        let mut packet = flow.packet(direction, b"hi");
        packet.trailing = vec![0xee; 60_usize.saturating_sub(packet.bytes().len()).max(3)];
        sent(bench, "a short frame, padded", flow, direction, &packet, b"hi")
    })
}

#[test]
fn the_new_header_inherits_what_rfc_8656_asks_for() -> Result<()> {
    each(|bench, flow, direction, packet| {
        for traffic_class in [0, 0xb8, 0x02, 0xff] {
            for hop_limit in [2, 64, 255] {
                let packet =
                    Frame { traffic_class, hop_limit, flow_label: 0xabcde, identification: 7, ..packet.clone() };
                let what = format!("class {traffic_class:#04x}, hop limit {hop_limit}");
                sent(bench, &what, flow, direction, &packet, DATA)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_packet_that_may_be_fragmented_gets_an_identification() -> Result<()> {
    let Some((bench, [flow, _])) = bench()? else { return Ok(()) };
    for direction in DIRECTIONS {
        let packet = Frame { dont_fragment: false, identification: 7, ..flow.packet(direction, DATA) };
        let mut seen = Vec::new();
        for _ in 0..16 {
            let run = bench.run(&packet.bytes())?;
            assert_eq!(run.outcome, Outcome::Transmitted, "{}", hex(&run.packet));
            let identification = u16::from_be_bytes([run.packet[18], run.packet[19]]);
            let expected = Frame { identification, ..flow.relayed_packet(direction, &packet, DATA, &NEXT_HOP) }.bytes();
            assert_eq!(run.packet, expected, "{}\nexpected{}", hex(&run.packet), hex(&expected));
            seen.push(identification);
        }
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 8, "identifications repeat: {seen:?}");
    }
    Ok(())
}

#[test]
fn a_hop_limit_that_ends_here_is_passed() -> Result<()> {
    each(|bench, _, direction, packet| {
        for hop_limit in [0, 1] {
            let packet = Frame { hop_limit, ..packet.clone() };
            bench.expect_passed(&format!("{direction:?}: {hop_limit}"), &packet.bytes(), Verdict::HopLimit)?;
        }
        Ok(())
    })
}

#[test]
fn a_port_without_a_role_is_not_ours() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let port = packet.destination.port();
        for port in [port - 1, port + 1, 22, 53, 123, 0, u16::MAX] {
            let mut packet = packet.clone();
            packet.destination.set_port(port);
            bench.expect_passed(&format!("{direction:?}: port {port}"), &packet.bytes(), Verdict::NotOurs)?;
        }
        let role = if direction == Direction::ToPeer { PortRole::Listener } else { PortRole::Relayed };
        bench.role(port, PortRole::None)?;
        bench.expect_passed("a port that lost its role", &packet.bytes(), Verdict::NotOurs)?;
        bench.role(port, role)?;
        sent(bench, "a port that got it back", flow, direction, &packet, DATA)
    })
}

#[test]
fn what_has_no_record_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let stranger = |address: std::net::SocketAddr, port| std::net::SocketAddr::new(address.ip(), port);
        let others = [
            ("another source port", Frame { source: stranger(packet.source, 1), ..packet.clone() }),
            ("another source", Frame { source: flow.relayed, ..packet.clone() }),
            ("another destination", {
                Frame { destination: stranger(flow.peer, packet.destination.port()), ..packet.clone() }
            }),
        ];
        for (what, packet) in others {
            bench.expect_passed(&format!("{direction:?}: {what}"), &packet.bytes(), Verdict::NoFlow)?;
        }
        if direction == Direction::ToPeer {
            let other = Flow { channel: flow.channel + 1, ..flow.clone() };
            let packet = other.packet(direction, DATA);
            bench.expect_passed("another channel", &packet.bytes(), Verdict::NoFlow)?;
        }
        Ok(())
    })
}

#[test]
fn what_a_listener_gets_besides_channel_data_is_passed() -> Result<()> {
    let Some((bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        for first in (0..64).chain(128..=255) {
            let mut payload = vec![first; 20];
            payload[2..4].copy_from_slice(&[0, 16]);
            let packet = Frame::new(flow.client, flow.listener, payload);
            bench.expect_passed(&format!("first byte {first}"), &packet.bytes(), Verdict::Control)?;
        }
        let empty = Frame::new(flow.client, flow.listener, []);
        bench.expect_passed("nothing", &empty.bytes(), Verdict::Control)?;
    }
    Ok(())
}

#[test]
fn what_a_peer_sends_is_data_whatever_it_looks_like() -> Result<()> {
    let Some((bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
        for data in [channel_data(flow, 10, DATA), stun, vec![]] {
            let packet = flow.packet(Direction::ToClient, &data);
            sent(&bench, "data of a peer", flow, Direction::ToClient, &packet, &data)?;
        }
    }
    Ok(())
}

#[test]
fn a_record_whose_time_is_over_is_not_used() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let (key, record) = (flow.key(direction), flow.record(direction));
        for expires in [0, 1] {
            bench.insert(key, Rewrite { expires, ..record })?;
            bench.expect_passed(&format!("expired at tick {expires}"), &packet.bytes(), Verdict::Expired)?;
        }
        bench.insert(key, record)
    })
}

#[test]
fn a_record_expires_while_nobody_touches_it() -> Result<()> {
    let Some((mut bench, flows)) = bench()? else { return Ok(()) };
    // The program's own answer to what tick it is, by halving; asked again until no tick has passed meanwhile, nor less
    // than the jiffy by which the program may be late.
    let late = 10_000_000;
    let direction = Direction::ToClient;
    let flow = &flows[0];
    let (key, record, packet) = (flow.key(direction), flow.record(direction), flow.packet(direction, DATA).bytes());
    let (valid, now) = loop {
        let before = tick(monotonic_nanoseconds() - late);
        let (mut over, mut valid) = (0, u32::MAX);
        while valid - over > 1 {
            let middle = over + (valid - over) / 2;
            bench.insert(key, Rewrite { expires: middle, ..record })?;
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
    bench.insert(key, Rewrite { expires: valid + 2, ..record })?;
    assert_eq!(bench.run(&packet)?.outcome, Outcome::Transmitted, "two ticks before its end");
    std::thread::sleep(std::time::Duration::from_millis(3 * 135));
    bench.expect_passed("a tick after its end", &packet, Verdict::Expired)
}

#[test]
fn a_record_that_is_being_written_is_not_used() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let (key, record) = (flow.key(direction), flow.record(direction));
        match key {
            Key::V4(key) => bench.tamper(key, |slot| slot.order.generation |= 1)?,
            Key::V6(key) => bench.tamper(key, |slot| slot.order.generation |= 1)?,
        }
        bench.expect_passed(&format!("{direction:?}: an odd generation"), &packet.bytes(), Verdict::Torn)?;
        bench.insert(key, record)?;
        sent(bench, "written again", flow, direction, &packet, DATA)
    })
}

#[test]
fn a_record_that_changes_while_it_is_read_is_not_used() -> Result<()> {
    let Some((mut bench, flows)) = bench()? else { return Ok(()) };
    // Both lines of an IPv6 slot differ between these two records, while another CPU writes one and then the other.
    let (flow, direction) = (&flows[1], Direction::ToClient);
    let (key, packet) = (flow.key(direction), flow.packet(direction, DATA));
    let Key::V6(v6) = key else { panic!("the second flow is of IPv6") };
    let other = Flow { client: "[2001:db8:ffff::1]:4000".parse()?, channel: 0x4fff, ..flow.clone() };
    let [one, two] = [flow, &other].map(|flow| flow.record(direction));
    let expected = [flow, &other].map(|flow| flow.relayed_packet(direction, &packet, DATA, &NEXT_HOP).bytes());
    let packet = packet.bytes();

    let done = AtomicBool::new(false);
    let Bench { program, maps } = &mut bench;
    let (mut sent, mut passed) = (0, 0);
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for record in [&one, &two] {
                    maps.flows6.insert(v6, record).expect("a record that is there");
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
    let torn = bench.verdicts()?[Verdict::Torn as usize].packets;
    assert!(sent > 0 && torn > 0 && torn == passed, "{sent} sent, {passed} passed, {torn} torn");
    Ok(())
}

#[test]
fn every_field_of_a_key_must_be_as_in_the_record() -> Result<()> {
    each(|bench, flow, direction, packet| {
        // The record stays where it is, so the program looks right at it, and must see that it is another's.
        let (key, record) = (flow.key(direction), flow.record(direction));
        let mut differ = |what: &str, v4: fn(&mut FlowKey<4>), v6: fn(&mut FlowKey<16>)| {
            match key {
                Key::V4(key) => bench.tamper(key, |slot| v4(&mut slot.key))?,
                Key::V6(key) => bench.tamper(key, |slot| v6(&mut slot.key))?,
            }
            bench.expect_passed(&format!("{direction:?}: another {what}"), &packet.bytes(), Verdict::NoFlow)?;
            bench.insert(key, record)
        };
        differ("source", |key| key.source[3] ^= 1, |key| key.source[3] ^= 1)?;
        differ("source's end", |key| key.source[0] ^= 1, |key| key.source[15] ^= 1)?;
        differ("destination", |key| key.destination[3] ^= 1, |key| key.destination[3] ^= 1)?;
        differ("destination's end", |key| key.destination[0] ^= 1, |key| key.destination[15] ^= 1)?;
        differ("source port", |key| key.source_port[1] ^= 1, |key| key.source_port[1] ^= 1)?;
        differ("destination port", |key| key.destination_port[0] ^= 1, |key| key.destination_port[0] ^= 1)?;
        differ("channel", |key| key.channel[1] ^= 1, |key| key.channel[1] ^= 1)?;
        sent(bench, "the key itself", flow, direction, &packet, DATA)
    })
}

#[test]
fn a_full_table_answers_for_every_flow() -> Result<()> {
    if Bench::or_skip().is_none() {
        return Ok(());
    }
    let count = 1024;
    let mut bench = Bench::load(Capacities { flows: 2 * count, allocations: count })?;
    for ipv6 in [false, true] {
        // All four places of a bucket pair are taken somewhere, and some records were moved to make room.
        let flows: Vec<Flow> = (0..count).map(|number| Flow::numbered(ipv6, number)).collect();
        for flow in &flows {
            bench.install(flow)?;
        }
        for flow in &flows {
            for direction in DIRECTIONS {
                sent(&bench, "one of many", flow, direction, &flow.packet(direction, DATA), DATA)?;
            }
        }
        assert!(bench.install(&Flow::numbered(ipv6, count)).is_err(), "more than its capacity");
        for flow in &flows {
            let unknown = Flow { channel: flow.channel + 0x2000, ..flow.clone() };
            let packet = unknown.packet(Direction::ToPeer, DATA).bytes();
            bench.expect_passed("a channel nobody bound", &packet, Verdict::NoFlow)?;
        }
    }
    Ok(())
}

#[test]
fn what_this_program_cannot_do_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let (key, record) = (flow.key(direction), flow.record(direction));
        let channel = if record.channel == [0; 2] { [0x40, 0] } else { [0; 2] };
        for (what, record) in [
            ("the other family", Rewrite { family: 10 - record.family, ..record }),
            ("no family", Rewrite { family: 0, ..record }),
            ("a flag", Rewrite { flags: 1, ..record }),
            ("the same framing as before", Rewrite { channel, ..record }),
        ] {
            bench.insert(key, record)?;
            bench.expect_passed(&format!("{direction:?}: {what}"), &packet.bytes(), Verdict::Unsupported)?;
        }
        bench.insert(key, record)
    })
}

#[test]
fn a_next_hop_that_cannot_take_it_leaves_it_to_the_kernel() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let (key, record) = (flow.key(direction), flow.record(direction));
        for (next_hop, what) in
            [(0, "none"), (2, "one that is not set"), (1023, "the last"), (u16::MAX, "out of range")]
        {
            bench.insert(key, Rewrite { next_hop, ..record })?;
            bench.expect_passed(&format!("{direction:?}: next hop {what}"), &packet.bytes(), Verdict::NextHop)?;
        }
        bench.insert(key, record)?;
        bench.maps.next_hops.set(1, NextHop { interface: 4711, ..NEXT_HOP }, 0)?;
        bench.expect_passed("another interface", &packet.bytes(), Verdict::OtherLink)?;
        bench.maps.next_hops.set(1, NEXT_HOP, 0)?;
        Ok(())
    })
}

#[test]
fn what_outgrows_the_link_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        let out = flow.relayed_packet(direction, &packet, DATA, &NEXT_HOP).bytes().len() as u32 - 14;
        bench.maps.next_hops.set(1, NextHop { mtu: out - 1, ..NEXT_HOP }, 0)?;
        bench.expect_passed("one byte too much", &packet.bytes(), Verdict::TooBig)?;
        bench.maps.next_hops.set(1, NextHop { mtu: out, ..NEXT_HOP }, 0)?;
        sent(bench, "just fits", flow, direction, &packet, DATA)?;
        bench.maps.next_hops.set(1, NEXT_HOP, 0)?;
        Ok(())
    })
}

#[test]
fn without_room_in_front_a_packet_that_grows_is_passed() -> Result<()> {
    each(|bench, flow, direction, packet| {
        // Of 256 bytes in front, the kernel keeps 40 to itself; metadata takes the rest.
        let run = bench.run_with_metadata(&packet.bytes(), 216)?;
        let (outcome, expected, counted) = match direction {
            Direction::ToPeer => {
                let out = flow.relayed_packet(direction, &packet, DATA, &NEXT_HOP).bytes();
                (Outcome::Transmitted, out, (Verdict::ToPeer, Count { packets: 1, bytes: DATA.len() as u64 }))
            }
            Direction::ToClient => {
                let bytes = packet.bytes();
                let count = Count { packets: 1, bytes: bytes.len() as u64 };
                (Outcome::Passed, bytes, (Verdict::NoHeadroom, count))
            }
        };
        assert_eq!(run.outcome, outcome, "{direction:?}");
        assert_eq!(run.counted, [counted], "{direction:?}");
        assert_eq!(run.packet, expected, "{direction:?}{}\nexpected{}", hex(&run.packet), hex(&expected));
        Ok(())
    })
}

#[test]
fn each_allocation_has_its_own_counters() -> Result<()> {
    let Some((bench, flows)) = bench()? else { return Ok(()) };
    for flow in &flows {
        for (packets, data) in [(1_u64, &DATA[..1]), (2, &DATA[..3])] {
            for _ in 0..packets {
                bench.run(&flow.packet(Direction::ToPeer, data).bytes())?;
            }
        }
        bench.run(&flow.packet(Direction::ToClient, DATA).bytes())?;
        bench.run(&Frame { hop_limit: 1, ..flow.packet(Direction::ToClient, DATA) }.bytes())?;
        let counts = bench.allocation(flow.allocation);
        assert_eq!(counts.to_peer, Count { packets: 3, bytes: 7 });
        assert_eq!(counts.to_client, Count { packets: 1, bytes: DATA.len() as u64 });
    }
    let other = bench.allocation(3);
    assert_eq!(other.to_peer.packets + other.to_client.packets, 0);
    Ok(())
}

#[test]
fn a_deleted_record_is_gone() -> Result<()> {
    each(|bench, flow, direction, packet| {
        bench.remove(flow.key(direction))?;
        bench.expect_passed("no record any more", &packet.bytes(), Verdict::NoFlow)?;
        bench.insert(flow.key(direction), flow.record(direction))
    })
}
