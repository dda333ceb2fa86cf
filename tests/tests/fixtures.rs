//! Single packets through the XDP program: what is sent is right to the last byte, what is passed is untouched, and each
//! is counted once under the verdict that says why. Here: the packets themselves, on every path; what the relay knows, and
//! where packets leave, is in the other files of this name.

use std::collections::HashSet;

use anyhow::Result;
use hairpin_common::{
    maps::PortRole,
    verdict::Verdict,
    wire::{CHANNEL_MAX, CHANNEL_MIN},
};
use hairpin_tests::program::{
    bench::{INTERFACE, NEXT_HOP, Outcome},
    fixture::{DATA, Fixture},
    frame::{Frame, hex, repair_ipv4},
    model::Judgement,
    setup::Channel,
    stun,
    world::{Framing, ID, Path},
};

#[test]
fn every_path_relays_a_good_packet() -> Result<()> {
    let mut names = Vec::new();
    Fixture::each(|fixture, path, packet| {
        names.push(path.name.clone());
        fixture.sent(&path.name, &packet).map(|_| ())
    })?;
    // Four pairs of IP versions each way for ChannelData and indications; two by two framings and three times two IP
    // versions from relay to relay, with a NAT and without; Binding of both versions with and without FINGERPRINT. Media of
    // four pairs each way; from and to a client, by ChannelData and by indications, and from session to session, of eight
    // mixtures, with a NAT and without.
    let media = 2 * 4 + 2 * 5 * 8;
    assert!(names.is_empty() || names.len() == 4 * 4 + 2 * 4 * 8 + 4 + media, "{names:#?}");
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:#?}");
    Ok(())
}

#[test]
fn every_length_is_relayed() -> Result<()> {
    Fixture::each_with_data(|fixture, path, _| {
        // Up to where the tightest path outgrows the MTU.
        for length in (u32::from(path.passes_leg())..70).chain(1360..=1390) {
            let data: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x80).collect();
            fixture.sent(&format!("{}: {length} bytes", path.name), &path.frame(&data))?;
        }
        Ok(())
    })
}

#[test]
fn every_channel_number_is_relayed() -> Result<()> {
    let Some(mut fixture) = Fixture::or_skip()? else { return Ok(()) };
    let peer = fixture.setup.allocations[0].channels[0].peer;
    for number in [CHANNEL_MIN + 0xfff, CHANNEL_MIN + 0x1000, CHANNEL_MAX, 0x6100] {
        fixture.change(0, |allocation| allocation.channels[0] = Channel { number, peer, live: true })?;
        let allocation = &fixture.setup.allocations[0];
        let (client, server) = (allocation.client, allocation.server);
        let relayed = allocation.relay_to(peer.ip()).expect("an address of each IP version").address;
        let keys = Vec::new();
        let to_peer = Path {
            name: format!("channel {number:#x} to the peer"),
            framing: Framing::Channel(number),
            source: client,
            destination: server,
            keys: keys.clone(),
        };
        let name = format!("channel {number:#x} to the client");
        let to_client = Path { name, framing: Framing::Plain, source: peer, destination: relayed, keys };
        for path in [to_peer, to_client] {
            fixture.sent(&path.name, &path.frame(DATA))?;
        }
    }
    Ok(())
}

#[test]
fn a_packet_cut_short_is_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        for packet in [packet.clone(), Frame { vlan: Some(0xa000), ..packet }] {
            let bytes = packet.bytes();
            // The kernel runs no program on less than an Ethernet header.
            for length in 14..bytes.len() {
                let what = format!("{} cut to {length} of {} bytes", path.name, bytes.len());
                fixture.refused(&what, &bytes[..length], Verdict::NotUdp)?;
            }
        }
        Ok(())
    })
}

#[test]
fn lengths_that_contradict_each_other_are_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let good = packet.bytes();
        let (layer3, layer4) = (packet.layer3(), packet.layer4());
        let ip_length = if packet.source.is_ipv4() { layer3 + 2 } else { layer3 + 4 };
        for at in [ip_length, layer4 + 4] {
            let right = u16::from_be_bytes([good[at], good[at + 1]]);
            for wrong in [0, 1, 7, 8, right - 1, right + 1, right + 4, u16::MAX].into_iter().filter(|it| *it != right) {
                for (trailing, what) in [(0, "exact"), (64, "padded")] {
                    let mut bytes = good.clone();
                    bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
                    bytes.extend(vec![0; trailing]);
                    if packet.source.is_ipv4() {
                        repair_ipv4(&mut bytes, layer3);
                    }
                    let what = format!("{}: {what} frame, length at {at} is {wrong} for {right}", path.name);
                    fixture.refused(&what, &bytes, Verdict::NotUdp)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_udp_length_below_its_header_is_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        for length in 0..8_u16 {
            let mut bytes = packet.bytes();
            let (layer3, layer4) = (packet.layer3(), packet.layer4());
            bytes[layer4 + 4..layer4 + 6].copy_from_slice(&length.to_be_bytes());
            if packet.source.is_ipv4() {
                bytes[layer3 + 2..layer3 + 4].copy_from_slice(&(20 + length).to_be_bytes());
                repair_ipv4(&mut bytes, layer3);
            } else {
                bytes[layer3 + 4..layer3 + 6].copy_from_slice(&length.to_be_bytes());
            }
            fixture.refused(&format!("{}: both lengths say {length}", path.name), &bytes, Verdict::NotUdp)?;
        }
        Ok(())
    })
}

#[test]
fn what_is_not_udp_is_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let good = packet.bytes();
        let ipv4 = packet.source.is_ipv4();
        // TCP, ICMP, UDP-Lite; hop-by-hop options, routing, destination options, no next header.
        for other in [6, 1, 136, 0, 43, 60, 59] {
            let mut bytes = good.clone();
            bytes[if ipv4 { 23 } else { 20 }] = other;
            fixture.refused(&format!("{}: protocol {other}", path.name), &bytes, Verdict::NotUdp)?;
        }
        // ARP, provider bridging, and the other family's type.
        for other in [0x0806, 0x88a8, if ipv4 { 0x86dd } else { 0x0800_u16 }] {
            let mut bytes = good.clone();
            bytes[12..14].copy_from_slice(&other.to_be_bytes());
            fixture.refused(&format!("{}: EtherType {other:#06x}", path.name), &bytes, Verdict::NotUdp)?;
        }
        for version in [0, 5, 15] {
            let mut bytes = good.clone();
            bytes[14] = version << 4 | bytes[14] & 15;
            fixture.refused(&format!("{}: IP version {version}", path.name), &bytes, Verdict::NotUdp)?;
        }
        let mut bytes = good.clone();
        bytes.splice(12..12, [0x81, 0, 0, 0, 0x81, 0, 0, 0]);
        fixture.refused(&format!("{}: two tags", path.name), &bytes, Verdict::NotUdp)
    })
}

/// A TCP segment between these addresses; its ports stand where those of UDP do.
fn tcp(frame: &Frame, flags: u8, data: &[u8]) -> Vec<u8> {
    let ports = [frame.source.port().to_be_bytes(), frame.destination.port().to_be_bytes()].concat();
    let rest = [&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0], data].concat();
    // Eight bytes of it take the place of the UDP header.
    let mut bytes = Frame { payload: rest[4..].to_vec(), ..frame.clone() }.bytes();
    let (layer3, layer4) = (frame.layer3(), frame.layer4());
    bytes[layer4..layer4 + 8].copy_from_slice(&[&ports[..], &rest[..4]].concat());
    if frame.source.is_ipv4() {
        bytes[layer3 + 9] = 6;
        repair_ipv4(&mut bytes, layer3);
    } else {
        bytes[layer3 + 6] = 6;
    }
    bytes
}

#[test]
fn tcp_is_passed_whatever_the_port_is_for() -> Result<()> {
    let mut roles = Vec::new();
    Fixture::each(|fixture, path, packet| {
        let role = fixture.setup.role(path.destination.port());
        roles.push(role);
        for vlan in [None, Some(42)] {
            let packet = Frame { vlan, ..packet.clone() };
            // A connection that opens, the ConnectionBind of RFC 6062 as a client sends it, and data of a peer.
            for (flags, data) in [(0x02, &[][..]), (0x18, &stun::Builder::new(0x000b, ID).bytes()), (0x10, DATA)] {
                let what = format!("{}: TCP flags {flags:#04x} to a port for {role:?}", path.name);
                fixture.refused(&what, &tcp(&packet, flags, data), Verdict::NotUdp)?;
            }
        }
        Ok(())
    })?;
    assert!(roles.is_empty() || roles.contains(&PortRole::Listener) && roles.contains(&PortRole::Relayed));
    Ok(())
}

#[test]
fn ip_options_and_extension_headers_are_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let good = packet.bytes();
        if packet.source.is_ipv4() {
            // Four "no operation" options.
            let mut bytes = good.clone();
            bytes.splice(34..34, [1; 4]);
            bytes[14] = 0x46;
            let length = u16::from_be_bytes([bytes[16], bytes[17]]) + 4;
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
            repair_ipv4(&mut bytes, 14);
            fixture.refused(&format!("{}: a header of 24 bytes", path.name), &bytes, Verdict::IpOptions)?;
            // Shorter than any header can be.
            let mut bytes = good;
            bytes[14] = 0x44;
            repair_ipv4(&mut bytes, 14);
            fixture.refused(&format!("{}: a header of 16 bytes", path.name), &bytes, Verdict::IpOptions)
        } else {
            // Destination options that hold padding only.
            let mut bytes = good;
            bytes.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
            bytes[20] = 60;
            let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
            fixture.refused(&format!("{}: destination options", path.name), &bytes, Verdict::NotUdp)
        }
    })
}

#[test]
fn fragments_are_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let good = packet.bytes();
        if packet.source.is_ipv4() {
            // The first fragment, the last one with the lowest and highest offset, one in the middle.
            for word in [0x2000_u16, 0x0001, 0x1fff, 0x2001] {
                let mut bytes = good.clone();
                bytes[20..22].copy_from_slice(&word.to_be_bytes());
                repair_ipv4(&mut bytes, 14);
                fixture.refused(&format!("{}: fragmentation {word:#06x}", path.name), &bytes, Verdict::Fragment)?;
            }
            Ok(())
        } else {
            let mut bytes = good;
            bytes.splice(54..54, [17, 0, 0, 1, 0, 0, 0, 9]);
            bytes[20] = 44;
            let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
            fixture.refused(&format!("{}: an IPv6 fragment header", path.name), &bytes, Verdict::Fragment)
        }
    })
}

#[test]
fn a_wrong_header_checksum_is_not_repaired() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        for bit in 0..if packet.source.is_ipv4() { 16 } else { 0 } {
            let mut bytes = packet.bytes();
            bytes[24 + bit / 8] ^= 1 << (bit % 8);
            fixture.refused(&format!("{}: bit {bit} of the checksum", path.name), &bytes, Verdict::NotUdp)?;
        }
        Ok(())
    })
}

#[test]
fn a_wrong_udp_checksum_of_data_stays_wrong() -> Result<()> {
    Fixture::each_with_data(|fixture, path, packet| {
        for damage in [1, 0x1000, 0xfffe] {
            let packet = Frame { damage, ..packet.clone() };
            fixture.sent(&format!("{}: a checksum that is {damage:#06x} off", path.name), &packet)?;
        }
        Ok(())
    })
}

#[test]
fn every_word_of_a_data_indication_s_transaction_id_is_random() -> Result<()> {
    Fixture::each_with_data(|fixture, path, packet| {
        if !path.name.contains("Data indication") {
            return Ok(());
        }
        let mut seen = [(); 3].map(|()| HashSet::new());
        for _ in 0..16 {
            let sent = fixture.bench.run(&packet.bytes())?.packet;
            let message = 14 + if sent[12..14] == [8, 0] { 20 } else { 40 } + 8;
            for (index, seen) in seen.iter_mut().enumerate() {
                seen.insert(sent[message + 8 + 4 * index..][..4].to_vec());
            }
        }
        assert!(seen.iter().all(|words| words.len() > 12), "{}: {seen:x?}", path.name);
        Ok(())
    })
}

#[test]
fn without_a_udp_checksum_ipv4_has_none_and_ipv6_is_never_sent() -> Result<()> {
    let (mut sent, mut passed) = (0, 0);
    Fixture::each(|fixture, path, packet| {
        let packet = Frame { checksum: false, ..packet };
        let bytes = packet.bytes();
        if packet.source.is_ipv6() {
            return fixture.refused(&path.name, &bytes, Verdict::NotUdp);
        }
        if !path.carries_data() {
            return fixture.refused(&path.name, &bytes, Verdict::Control);
        }
        match fixture.setup.judge(INTERFACE, &bytes) {
            Judgement::Sent(_) => {
                sent += 1;
                fixture.sent(&path.name, &packet).map(|_| ())
            }
            Judgement::Refused(_) | Judgement::Limited(..) => {
                passed += 1;
                fixture.refused(&path.name, &bytes, Verdict::NoChecksum)
            }
        }
    })?;
    assert!(sent + passed == 0 || sent > 8 && passed > 8, "{sent} sent, {passed} passed");
    Ok(())
}

#[test]
fn a_checksum_of_zero_is_sent_as_ones() -> Result<()> {
    let mut known = 0;
    Fixture::each_with_data(|fixture, path, _| {
        // With its own checksum as data, the packet that leaves sums up to zero. A random transaction id or identification
        // would spoil that.
        let with = |bytes: [u8; 2]| path.frame(&[&[0x80, 0], &bytes[..]].concat());
        let packet = with([0; 2]);
        let Judgement::Sent(trial) = fixture.setup.judge(INTERFACE, &packet.bytes()) else { panic!("{}", path.name) };
        if path.name.contains("Data indication") {
            return Ok(());
        }
        let checksum = |bytes: &[u8], at: usize| [bytes[at], bytes[at + 1]];
        let (trial, at) = (trial.frame_like(&[]).bytes(), trial.frame_like(&[]).layer4() + 6);
        let run = fixture.sent(&path.name, &with(checksum(&trial, at)))?;
        assert_eq!(checksum(&run.packet, at), [0xff; 2], "{}{}", path.name, hex(&run.packet));
        known += 1;
        Ok(())
    })?;
    assert!(known == 0 || known == 12 + 2 * 16 + 8 + 2 * 4 * 8, "{known} paths");
    Ok(())
}

#[test]
fn padding_of_channel_data_is_not_relayed() -> Result<()> {
    Fixture::each(|fixture, path, _| {
        if !matches!(path.framing, Framing::Channel(_)) {
            return Ok(());
        }
        for length in [0_u32, 1, 2, 3, 10, 11, 1001].into_iter().filter(|length| *length > 0 || !path.passes_leg()) {
            let data: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x5a).collect();
            for pad in [&[0][..], &[0, 0], &[0, 0, 0], &[0xff], &[0xab, 0xcd], &[0x12, 0x34, 0x56], &[0xff; 3]] {
                let mut packet = path.frame(&data);
                packet.payload.extend(pad);
                let what = format!("{}: {length} bytes with padding {pad:02x?}", path.name);
                fixture.sent(&what, &packet)?;
                let packet = Frame { trailing: vec![0xee; 5], ..packet };
                fixture.sent(&format!("{what} and the link's"), &packet)?;
            }
        }
        Ok(())
    })
}

#[test]
fn the_link_s_padding_is_not_relayed() -> Result<()> {
    Fixture::each(|fixture, path, _| {
        let mut packet = path.frame(b"hi");
        packet.trailing = vec![0xee; 60_usize.saturating_sub(packet.bytes().len()).max(3)];
        fixture.sent(&format!("{}: a short frame, padded", path.name), &packet).map(|_| ())
    })
}

#[test]
fn the_new_header_inherits_what_rfc_8656_asks_for() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        for traffic_class in [0, 0xb8, 0x02, 0xff] {
            for hop_limit in [3, 64, 255] {
                for dont_fragment in [true, false] {
                    let changed = Frame { traffic_class, hop_limit, dont_fragment, ..packet.clone() };
                    let changed = Frame { flow_label: 0xabcde, identification: 7, ..changed };
                    let what = format!("{}: class {traffic_class:#04x}, hop limit {hop_limit}", path.name);
                    fixture.sent(&what, &changed)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_long_packet_of_ipv6_leaves_with_df_as_ipv4() -> Result<()> {
    let mut crossings = 0;
    Fixture::each_with_data(|fixture, path, packet| {
        // Around where the packet that leaves has 1260 bytes.
        for length in 1170..=1240 {
            let data = vec![7; length];
            let what = format!("{}: {length} bytes", path.name);
            let sent = fixture.sent(&what, &path.frame(&data))?.packet;
            // A Send indication says by itself what it wants.
            let is_send = packet.payload.starts_with(&[0x00, 0x16]);
            if packet.source.is_ipv6() && sent[12..14] == [8, 0] && !is_send {
                let total = u16::from_be_bytes([sent[16], sent[17]]);
                assert_eq!(sent[20] == 0x40, total > 1260, "{what}: {total} bytes of IPv4{}", hex(&sent));
                crossings += usize::from(total == 1260);
            }
        }
        Ok(())
    })?;
    assert_ne!(crossings, 1);
    Ok(())
}

#[test]
fn a_packet_that_may_be_fragmented_gets_an_identification() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let packet = Frame { dont_fragment: false, identification: 7, ..packet };
        let mut seen = Vec::new();
        for _ in 0..16 {
            let sent = fixture.sent(&path.name, &packet)?.packet;
            if sent[12..14] != [8, 0] || sent[20] & 0x40 != 0 {
                return Ok(());
            }
            seen.push(u16::from_be_bytes([sent[18], sent[19]]));
        }
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 8, "{}: identifications repeat: {seen:?}", path.name);
        Ok(())
    })
}

#[test]
fn a_hop_limit_that_ends_here_is_passed() -> Result<()> {
    Fixture::each_with_data(|fixture, path, packet| {
        let hops = path.name.matches("->").count() - 1;
        for hop_limit in 0..=hops as u8 {
            let packet = Frame { hop_limit, ..packet.clone() };
            fixture.refused(&format!("{}: {hop_limit}", path.name), &packet.bytes(), Verdict::HopLimit)?;
        }
        let packet = Frame { hop_limit: hops as u8 + 1, ..packet };
        let sent = fixture.sent(&format!("{}: {}", path.name, packet.hop_limit), &packet)?.packet;
        assert_eq!(sent[if sent[12..14] == [8, 0] { 22 } else { 21 }], 1, "{}", hex(&sent));
        Ok(())
    })
}

#[test]
fn what_a_peer_sends_is_data_whatever_it_looks_like() -> Result<()> {
    let Some(fixture) = Fixture::or_skip()? else { return Ok(()) };
    let looks: Vec<Vec<u8>> = fixture.paths.iter().map(|path| path.frame(DATA).payload).collect();
    for path in fixture.paths.iter().filter(|path| !path.is_from_client()) {
        for data in &looks {
            fixture.sent(&format!("{}: data that looks like something else", path.name), &path.frame(data))?;
        }
    }
    Ok(())
}

#[test]
fn without_room_in_front_a_packet_that_grows_is_passed() -> Result<()> {
    let (mut sent, mut passed) = (0, 0);
    Fixture::each(|fixture, path, packet| {
        let bytes = packet.bytes();
        let Judgement::Sent(expected) = fixture.setup.judge(INTERFACE, &bytes) else { panic!("{}", path.name) };
        // Of 256 bytes in front, the kernel keeps 40 to itself; metadata takes the rest.
        let run = fixture.bench.run_with_metadata(INTERFACE, &bytes, 216)?;
        let expected = expected.frame_like(&run.packet);
        // What grows grows in front, but for a Data indication's padding; an answer grows behind.
        if !path.carries_data() || expected.layer4() + expected.payload.len() <= packet.layer4() + packet.payload.len()
        {
            sent += 1;
            assert_eq!(run.outcome, Outcome::Transmitted, "{}: {:?}", path.name, run.counted);
            assert_eq!(run.packet, expected.bytes(), "{}", path.name);
        } else {
            passed += 1;
            assert_eq!(run.outcome, Outcome::Passed, "{}: {:?}", path.name, run.counted);
            assert_eq!(run.counted[0].0, Verdict::NoRoom, "{}", path.name);
            assert_eq!(run.packet, bytes, "{}", path.name);
        }
        Ok(())
    })?;
    assert!(sent + passed == 0 || sent > 10 && passed > 10, "{sent} sent, {passed} passed");
    Ok(())
}

#[test]
fn a_frame_to_another_host_is_left_to_the_kernel() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let (own, from) = packet.link;
        assert_eq!(own, NEXT_HOP.source);
        for at in 0..6 {
            let mut other = own;
            other[at] ^= 1;
            let packet = Frame { link: (other, from), ..packet.clone() };
            let what = format!("{}: byte {at} differs", path.name);
            fixture.refused(&what, &packet.bytes(), Verdict::OtherHost)?;
        }
        Ok(())
    })
}
