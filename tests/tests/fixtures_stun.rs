//! What clients send to a listener besides ChannelData, and ChannelData that is none: the program answers or relays the
//! plain form, and leaves all else to userspace, untouched.

use anyhow::Result;
use hairpin::datapath::Limits;
use hairpin_common::verdict::Verdict;
use hairpin_tests::program::{
    bench::Bench,
    fixture::{DATA, Fixture},
    frame::Frame,
    stun::{self, BINDING_REQUEST, Builder, SEND, channel_data, kind},
    world::{Family, Framing, ID, Path, world},
};

/// Runs a test for each path of a Send indication, with its peer.
fn each_send(mut test: impl FnMut(&mut Fixture, &Path, std::net::SocketAddr, Frame) -> Result<()>) -> Result<()> {
    Fixture::each(|fixture, path, packet| match path.framing {
        Framing::Send(peer) => test(fixture, path, peer, packet),
        _ => Ok(()),
    })
}

#[test]
fn attributes_of_a_send_indication_may_stand_in_any_order() -> Result<()> {
    each_send(|fixture, path, peer, packet| {
        for order in ["PD", "DP", "PDF", "PFD", "DPF", "DFP", "FPD", "FDP"] {
            for (length, padding) in [(10, 0), (0, 0), (1, 0xff), (2, 0x5a), (3, 1), (160, 0), (161, 0xee)] {
                // A leg gets no datagram without data, and none that may be STUN.
                if length == 0 && path.name.contains("media") {
                    continue;
                }
                let data: Vec<u8> = (0..length).map(|byte: u32| 0x80 | byte as u8).collect();
                let message =
                    order.chars().fold(Builder::padded_with(padding, SEND, ID), |message, which| match which {
                        'P' => message.with_address(kind::XOR_PEER_ADDRESS, peer),
                        'D' => message.with(kind::DATA, &data),
                        _ => message.with(kind::DONT_FRAGMENT, &[]),
                    });
                for dont_fragment in [false, true] {
                    let packet = Frame { payload: message.clone().bytes(), dont_fragment, ..packet.clone() };
                    let what = format!("{}: {order} with {length} bytes, padded with {padding}", path.name);
                    fixture.sent(&what, &packet)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn dont_fragment_sets_df() -> Result<()> {
    let mut set = 0;
    each_send(|fixture, path, peer, packet| {
        if path.name.matches("->").count() > 2 {
            return Ok(());
        }
        let message = Builder::new(SEND, ID).with_address(kind::XOR_PEER_ADDRESS, peer).with(kind::DATA, DATA);
        let payload = message.with(kind::DONT_FRAGMENT, &[]).bytes();
        let sent = fixture.sent(&path.name, &Frame { payload, dont_fragment: false, ..packet })?.packet;
        if sent[12..14] == [8, 0] {
            assert_eq!(sent[18..22], [0, 0, 0x40, 0], "{}", path.name);
            set += 1;
        }
        Ok(())
    })?;
    assert!(set == 0 || set == 2, "{set} paths to IPv4");
    Ok(())
}

#[test]
fn unusual_send_indications_are_passed() -> Result<()> {
    each_send(|fixture, path, peer, packet| {
        let good = || Builder::new(SEND, ID).with_address(kind::XOR_PEER_ADDRESS, peer).with(kind::DATA, DATA);
        let address = |family: u8, length: usize| [&[0, family][..], &vec![7; length - 2]].concat();
        let new = || Builder::new(SEND, ID);
        let unusual = [
            ("a FINGERPRINT", good().with_fingerprint()),
            ("a SOFTWARE", good().with(kind::SOFTWARE, b"any")),
            ("an unknown attribute that must be understood", good().with(0x7fff, b"any")),
            ("one that need not be", good().with(0xc0de, b"any")),
            ("one in front", new().with(0xc0de, b"").with_address(kind::XOR_PEER_ADDRESS, peer).with(kind::DATA, DATA)),
            ("two peers", good().with_address(kind::XOR_PEER_ADDRESS, peer)),
            ("two peers in a row", {
                let twice = new().with_address(kind::XOR_PEER_ADDRESS, peer).with_address(kind::XOR_PEER_ADDRESS, peer);
                twice.with(kind::DATA, DATA)
            }),
            ("two data", good().with(kind::DATA, b"more")),
            ("no data", new().with_address(kind::XOR_PEER_ADDRESS, peer)),
            ("no peer", new().with(kind::DATA, DATA)),
            ("no peer, but DONT-FRAGMENT", new().with(kind::DATA, DATA).with(kind::DONT_FRAGMENT, &[])),
            ("nothing", new()),
            ("a DONT-FRAGMENT with a value", good().with(kind::DONT_FRAGMENT, &[0; 4])),
            ("two DONT-FRAGMENT", good().with(kind::DONT_FRAGMENT, &[]).with(kind::DONT_FRAGMENT, &[])),
            ("a peer of no family", new().with(kind::XOR_PEER_ADDRESS, &address(0, 8)).with(kind::DATA, DATA)),
            ("a peer of a third family", new().with(kind::XOR_PEER_ADDRESS, &address(3, 8)).with(kind::DATA, DATA)),
            ("IPv4 of 20 bytes", new().with(kind::XOR_PEER_ADDRESS, &address(1, 20)).with(kind::DATA, DATA)),
            ("IPv6 of 8 bytes", new().with(kind::XOR_PEER_ADDRESS, &address(2, 8)).with(kind::DATA, DATA)),
            ("a peer of 4 bytes", new().with(kind::XOR_PEER_ADDRESS, &address(1, 4)).with(kind::DATA, DATA)),
            ("a peer of 9 bytes", new().with(kind::XOR_PEER_ADDRESS, &address(1, 9)).with(kind::DATA, DATA)),
            ("a Data indication", Builder::new(stun::DATA, ID).with(kind::DATA, DATA)),
        ];
        for (what, message) in unusual {
            let packet = Frame { payload: message.bytes(), ..packet.clone() };
            fixture.refused(&format!("{}: {what}", path.name), &packet.bytes(), Verdict::Control)?;
        }
        Ok(())
    })
}

#[test]
fn lengths_of_a_send_indication_that_do_not_fit_are_passed() -> Result<()> {
    each_send(|fixture, path, _, packet| {
        let payload = &packet.payload;
        let data_at = payload.len() - DATA.len().next_multiple_of(4) - 2;
        for (at, what) in [(2, "message"), (data_at, "data"), (22, "peer")] {
            let right = u16::from_be_bytes([payload[at], payload[at + 1]]);
            for wrong in [0, 1, 2, 3, 4, right - 4, right + 3, right + 4, right + 8, 0x7ffc, 0xfffc, 0xffff] {
                // DATA may be shorter by what its padding hides.
                if wrong == right || what == "data" && wrong.div_ceil(4) == right.div_ceil(4) {
                    continue;
                }
                let mut packet = packet.clone();
                packet.payload[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
                let what = format!("{}: length of the {what} is {wrong} for {right}", path.name);
                fixture.bench.expect(&what, &fixture.setup, &packet.bytes())?;
                let passed = fixture.bench.run(&packet.bytes())?;
                assert_eq!(passed.packet, packet.bytes(), "{what}");
            }
        }
        // All of it, cut short or followed by more.
        for length in 0..payload.len() {
            let packet = Frame { payload: payload[..length].to_vec(), ..packet.clone() };
            fixture.refused(&format!("{}: {length} bytes of it", path.name), &packet.bytes(), Verdict::Control)?;
        }
        for more in [1, 2, 3, 4, 8] {
            let packet = Frame { payload: [&payload[..], &vec![0; more]].concat(), ..packet.clone() };
            fixture.refused(&format!("{}: {more} bytes more", path.name), &packet.bytes(), Verdict::Control)?;
        }
        Ok(())
    })
}

#[test]
fn a_wrong_magic_cookie_is_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if matches!(path.framing, Framing::Send(_) | Framing::Binding(_)) {
            for at in 4..8 {
                let mut packet = packet.clone();
                packet.payload[at] ^= 0x80;
                fixture.refused(&format!("{}: byte {at}", path.name), &packet.bytes(), Verdict::Control)?;
            }
        }
        Ok(())
    })
}

#[test]
fn send_indications_to_others_are_for_userspace_to_refuse() -> Result<()> {
    each_send(|fixture, path, peer, packet| {
        let family = Family::of(peer);
        for (what, peer) in [
            ("a peer without a permission", family.address(99, 1, peer.port())),
            ("port 0", std::net::SocketAddr::new(peer.ip(), 0)),
            ("the unspecified address", family.unspecified(peer.port())),
            ("nothing at all", family.unspecified(0)),
        ] {
            let packet = Frame { payload: stun::send_indication(peer, DATA, ID), ..packet.clone() };
            fixture.bench.expect(&format!("{}: {what}", path.name), &fixture.setup, &packet.bytes())?;
            assert_eq!(fixture.bench.run(&packet.bytes())?.packet, packet.bytes(), "{}: {what}", path.name);
        }
        Ok(())
    })
}

#[test]
fn a_send_indication_of_a_stranger_is_passed() -> Result<()> {
    each_send(|fixture, path, _, packet| {
        let stranger = Family::of(path.source).address(50, 77, 40_000);
        let packet = Frame { source: stranger, ..packet };
        fixture.refused(&path.name, &packet.bytes(), Verdict::NoFlow)
    })
}

#[test]
fn binding_requests_that_ask_for_more_are_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if path.carries_data() {
            return Ok(());
        }
        let new = || Builder::new(BINDING_REQUEST, ID);
        let mut wrong = new().with_fingerprint().bytes();
        wrong[27] ^= 1;
        let fingerprint = new().with_fingerprint().bytes()[24..].to_vec();
        let others = [
            ("a SOFTWARE", new().with(kind::SOFTWARE, b"any").bytes()),
            ("a SOFTWARE and a FINGERPRINT", new().with(kind::SOFTWARE, b"any").with_fingerprint().bytes()),
            ("an unknown attribute", new().with(0x0003, &[0; 4]).bytes()),
            ("an attribute of the same length as FINGERPRINT", new().with(0x8029, &fingerprint).bytes()),
            ("a USERNAME", new().with(0x0006, b"name").bytes()),
            ("a MESSAGE-INTEGRITY", new().with(0x0008, &[7; 20]).bytes()),
            ("a wrong FINGERPRINT", wrong),
            ("a FINGERPRINT of all zeros", new().with(kind::FINGERPRINT, &[0; 4]).bytes()),
            ("a FINGERPRINT of 3 bytes", new().with(kind::FINGERPRINT, &fingerprint[..3]).bytes()),
            ("an empty attribute", new().with(kind::FINGERPRINT, &[]).bytes()),
            ("two FINGERPRINT", new().with_fingerprint().with(kind::FINGERPRINT, &fingerprint).bytes()),
            ("an indication", Builder::new(0x0011, ID).bytes()),
            ("a response", Builder::new(0x0101, ID).bytes()),
            ("an error response", Builder::new(0x0111, ID).bytes()),
            ("an Allocate", Builder::new(0x0003, ID).bytes()),
            ("a method nobody knows", Builder::new(0x3eef & !0x0110, ID).bytes()),
        ];
        for (what, payload) in others {
            let packet = Frame { payload, ..packet.clone() };
            fixture.refused(&format!("{}: {what}", path.name), &packet.bytes(), Verdict::Control)?;
        }
        for at in [2, 3] {
            let mut packet = packet.clone();
            packet.payload[at] ^= 4;
            fixture.refused(&format!("{}: another length", path.name), &packet.bytes(), Verdict::Control)?;
        }
        for damage in [1, 0x100, 0x8000, 0xfffe] {
            let packet = Frame { damage, ..packet.clone() };
            fixture.refused(&format!("{}: a wrong checksum", path.name), &packet.bytes(), Verdict::Control)?;
        }
        let packet = Frame { payload: [&packet.payload[..], &[0; 4]].concat(), ..packet };
        fixture.refused(&format!("{}: 4 bytes more", path.name), &packet.bytes(), Verdict::Control)
    })
}

#[test]
fn every_bit_of_a_fingerprint_counts() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if path.framing != Framing::Binding(true) {
            return Ok(());
        }
        for bit in 64..packet.payload.len() * 8 {
            let mut packet = packet.clone();
            packet.payload[bit / 8] ^= 1 << (bit % 8);
            fixture.refused(&format!("{}: bit {bit}", path.name), &packet.bytes(), Verdict::Control)?;
        }
        Ok(())
    })
}

#[test]
fn a_binding_response_starts_a_packet_of_its_own() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if path.carries_data() {
            return Ok(());
        }
        for hop_limit in [0, 1, 255] {
            let packet = Frame { hop_limit, traffic_class: 0xff, dont_fragment: true, ..packet.clone() };
            let sent = fixture.sent(&format!("{}: hop limit {hop_limit}", path.name), &packet)?.packet;
            assert_eq!(sent[if packet.source.is_ipv4() { 22 } else { 21 }], 64, "{}", path.name);
        }
        Ok(())
    })
}

#[test]
fn addresses_that_nobody_can_be_answered_at_are_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if path.carries_data() {
            return Ok(());
        }
        let addresses = match Family::of(path.source) {
            Family::V4 => ["0.0.0.0:9", "0.1.2.3:9", "127.0.0.1:9", "224.0.0.1:9", "255.255.255.255:9", "198.51.0.1:9"],
            Family::V6 => {
                ["[::]:9", "[::1]:9", "[fe80::1]:9", "[ff02::1]:9", "[::ffff:192.0.2.1]:9", "[2001:db8:33::1]:9"]
            }
        };
        for address in addresses {
            let packet = Frame { source: address.parse()?, ..packet.clone() };
            fixture.refused(&format!("{}: from {address}", path.name), &packet.bytes(), Verdict::Control)?;
        }
        Ok(())
    })
}

#[test]
fn what_a_listener_gets_besides_is_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        if !path.is_from_client() {
            return Ok(());
        }
        for first in (0..64).chain(128..=255) {
            let mut payload = vec![first; 20];
            payload[2..4].copy_from_slice(&[0, 16]);
            let packet = Frame { payload, ..packet.clone() };
            fixture.refused(&format!("{}: first byte {first}", path.name), &packet.bytes(), Verdict::Control)?;
        }
        let empty = Frame { payload: Vec::new(), ..packet };
        fixture.refused(&format!("{}: nothing", path.name), &empty.bytes(), Verdict::Control)
    })
}

#[test]
fn channel_data_of_a_wrong_length_is_passed() -> Result<()> {
    Fixture::each(|fixture, path, packet| {
        let Framing::Channel(number) = path.framing else { return Ok(()) };
        let whole = channel_data(number, DATA);
        for length in 0..whole.len() {
            let packet = Frame { payload: whole[..length].to_vec(), ..packet.clone() };
            let verdict = if length < 4 { Verdict::Control } else { Verdict::Malformed };
            fixture.refused(&format!("{}: {length} bytes of it", path.name), &packet.bytes(), verdict)?;
        }
        // Claims so large that what is missing, taken as an unsigned number, looks like padding, among others.
        for (claimed, held) in
            [(6, 10), (0, 10), (11, 10), (u16::MAX, 10), (u16::MAX, 0), (u16::MAX, 2), (u16::MAX - 2, 0), (0x8000, 0)]
        {
            let payload = [&number.to_be_bytes()[..], &claimed.to_be_bytes(), &DATA[..held]].concat();
            let packet = Frame { payload, ..packet.clone() };
            let what = format!("{}: {claimed} bytes claimed, {held} held", path.name);
            fixture.refused(&what, &packet.bytes(), Verdict::Malformed)?;
        }
        Ok(())
    })
}

#[test]
fn what_comes_from_nobody_s_address_is_no_permission() -> Result<()> {
    // All zeros with port 0 are the key of what marks an address as ours.
    Fixture::each(|fixture, path, packet| {
        if path.is_from_client() {
            return Ok(());
        }
        for port in [0, 1, path.source.port()] {
            let packet = Frame { source: Family::of(path.source).unspecified(port), ..packet.clone() };
            let what = format!("{}: port {port}", path.name);
            let run = fixture.bench.expect(&what, &fixture.setup, &packet.bytes())?;
            assert_eq!(run.packet, packet.bytes(), "{what}: {:?}", run.counted);
        }
        Ok(())
    })
}

#[test]
fn a_program_that_is_not_to_answer_binding_requests_leaves_them_to_the_daemon() -> Result<()> {
    let Some(mut bench) = Bench::set_or_skip(Limits::default(), false) else { return Ok(()) };
    let (setup, paths) = world();
    bench.install(&setup)?;
    let mut requests = 0;
    for path in &paths {
        let packet = path.frame(DATA).bytes();
        if path.carries_data() {
            bench.expect(&path.name, &setup, &packet)?;
        } else {
            bench.expect_refused(&path.name, &packet, Verdict::Control)?;
            requests += 1;
        }
    }
    assert_eq!(requests, 4, "with a FINGERPRINT and without, of both IP versions");
    Ok(())
}
