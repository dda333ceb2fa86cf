//! Random packets through the XDP program, against a model that builds what must leave from its fields.

use std::net::{IpAddr, SocketAddr};

use hairpin_common::maps::NextHop;
use hairpin_tests::program::{
    bench::{Bench, NEXT_HOP, Outcome},
    flow::{Direction, Flow},
    frame::{Frame, hex},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// A flow between any addresses.
fn flow() -> impl Strategy<Value = Flow> {
    let address = |ipv6: bool| {
        (any::<[u8; 16]>(), 1..=u16::MAX).prop_map(move |(bytes, port)| {
            let [a, b, c, d, ..] = bytes;
            let ip = if ipv6 { IpAddr::from(bytes) } else { IpAddr::from([a, b, c, d]) };
            SocketAddr::new(ip, port)
        })
    };
    (any::<bool>(), 0x4000..=0x7fff_u16, 0..64_u32)
        .prop_flat_map(move |(ipv6, channel, allocation)| {
            (address(ipv6), address(ipv6), address(ipv6), address(ipv6), Just((channel, allocation)))
        })
        .prop_filter("two roles for one port", |(_, listener, relayed, ..)| listener.port() != relayed.port())
        .prop_map(|(client, listener, relayed, peer, (channel, allocation))| Flow {
            client,
            listener,
            relayed,
            peer,
            channel,
            allocation,
            next_hop: 1,
        })
}

/// The fields of a packet that do not follow from its flow.
fn fields() -> impl Strategy<Value = Frame> {
    let nowhere = SocketAddr::from(([0; 4], 0));
    (
        any::<([u8; 6], [u8; 6])>(),
        prop::option::of(any::<u16>()),
        any::<u8>(),
        2..=255_u8,
        any::<bool>(),
        any::<u16>(),
        0..0x10_0000_u32,
        prop::bool::weighted(0.9),
        prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 1..20)],
    )
        .prop_map(
            move |(
                link,
                vlan,
                traffic_class,
                hop_limit,
                dont_fragment,
                identification,
                flow_label,
                checksum,
                trailing,
            )| {
                Frame {
                    link,
                    vlan,
                    traffic_class,
                    hop_limit,
                    dont_fragment,
                    identification,
                    flow_label,
                    checksum,
                    trailing,
                    ..Frame::new(nowhere, nowhere, [])
                }
            },
        )
}

#[test]
fn what_leaves_is_what_a_model_builds() {
    let Some(bench) = Bench::or_skip() else { return };
    let bench = std::cell::RefCell::new(bench);
    let strategy = (
        flow(),
        fields(),
        prop_oneof![Just(Direction::ToPeer), Just(Direction::ToClient)],
        vec(any::<u8>(), 0..1400),
        prop_oneof![2 => Just(Vec::new()), 1 => vec(any::<u8>(), 0..4)],
        any::<([u8; 6], [u8; 6])>(),
    );
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&strategy, |(flow, fields, direction, data, padding, link)| {
        let mut bench = bench.borrow_mut();
        bench.install(&flow).expect("room in the maps");
        let vlan = (fields.vlan.unwrap_or(0) & 0xfff).to_be_bytes();
        let next_hop = NextHop { destination: link.0, source: link.1, vlan, ..NEXT_HOP };
        bench.maps.next_hops.set(1, next_hop, 0).expect("an entry 1");

        let plain = flow.packet(direction, &data);
        let mut packet = Frame { source: plain.source, destination: plain.destination, ..fields };
        packet.payload = plain.payload;
        packet.link.0 = next_hop.source;
        packet.checksum |= flow.client.is_ipv6();
        packet.dont_fragment |= flow.client.is_ipv6();
        if direction == Direction::ToPeer {
            packet.payload.extend(&padding);
        }
        let input = packet.bytes();
        let run = bench.run(&input).expect("a test run");
        let mut expected = flow.relayed_packet(direction, &packet, &data, &next_hop);
        if !packet.dont_fragment {
            let at = packet.layer3() + 4;
            expected.identification = u16::from_be_bytes([run.packet[at], run.packet[at + 1]]);
        }
        let expected = expected.bytes();
        prop_assert!(
            run.outcome == Outcome::Transmitted && run.packet == expected,
            "{direction:?} {:?} {:?}\n  packet in:{}\n  packet out:{}\n  expected:{}",
            run.outcome,
            run.counted,
            hex(&input),
            hex(&run.packet),
            hex(&expected)
        );

        let key = flow.key(direction);
        bench.remove(flow.key(Direction::ToPeer)).expect("a record");
        bench.remove(flow.key(Direction::ToClient)).expect("a record");
        let again = bench.run(&input).expect("a test run");
        prop_assert!(
            again.outcome == Outcome::Passed && again.packet == input,
            "without a record for {key:?}: {:?} {:?}",
            again.outcome,
            again.counted
        );
        // Ports of one case must not be ports of the next.
        bench.role(flow.listener.port(), hairpin_common::maps::PortRole::None).expect("an entry");
        bench.role(flow.relayed.port(), hairpin_common::maps::PortRole::None).expect("an entry");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn noise_is_passed_untouched() {
    let Some((bench, flow)) = Bench::or_skip().map(|bench| (bench, Flow::numbered(false, 1))) else { return };
    let bench = std::cell::RefCell::new(bench);
    bench.borrow_mut().install(&flow).expect("room in the maps");
    let good = [flow.packet(Direction::ToPeer, &[7; 40]).bytes(), flow.packet(Direction::ToClient, &[7; 40]).bytes()];
    // A byte of a header is another one: then the packet is passed untouched, or it is still a good one, and then
    // nothing but its own fields may have changed what leaves.
    let config = Config { cases: 4000, failure_persistence: None, ..Config::default() };
    let strategy = (0..2_usize, 12..46_usize, any::<u8>());
    let result = TestRunner::new(config).run(&strategy, |(which, place, byte)| {
        let mut packet = good[which].clone();
        let same = packet[place] == byte;
        packet[place] = byte;
        let run = bench.borrow().run(&packet).expect("a test run");
        // Only the UDP checksum and the payload are not the program's business, and a ChannelData length that makes
        // padding of the last bytes.
        let carried_on = same
            || (40..42).contains(&place)
            || which == 1 && place >= 42
            || which == 0 && place == 45 && (37..40).contains(&byte);
        match run.outcome {
            Outcome::Passed => prop_assert_eq!(run.packet, packet),
            outcome => prop_assert!(
                carried_on && outcome == Outcome::Transmitted,
                "byte {} is {:#04x}: {:?}{}",
                place,
                byte,
                outcome,
                hex(&packet)
            ),
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
