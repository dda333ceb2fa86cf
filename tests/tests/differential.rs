//! The kernel path and the userspace path, side by side: the same frames go into two relays in two equal networks, one
//! with XDP and one without, and what comes out must be the same, byte for byte.
//!
//! Addresses, ports and link-layer addresses of the networks are equal, so that nothing of the frames is left out but
//! what [`comparable`] names.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_tests::lab::call::CHANNEL;
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::topology::{RELAY_MAC, ROUTER_LINK, ROUTER_MAC};
use hairpin_tests::lab::turn::channel_data;
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Call, Family, Lab, Relay};
use hairpin_tests::program::frame::{Frame, hex};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// Datagrams of each direction and family.
const CASES: usize = 250;
/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this time there is no answer.
const QUIET: Duration = Duration::from_millis(300);
const CLIENT_PORT: u16 = 40_000;
const PEER_PORT: u16 = 6000;

/// Where the DF bit, the identification and the checksums are in an Ethernet frame with IPv4.
mod at {
    use std::ops::Range;

    pub(super) const IDENTIFICATION: Range<usize> = 18..20;
    pub(super) const FLAGS: usize = 20;
    pub(super) const IPV4_CHECKSUM: Range<usize> = 24..26;
    pub(super) const UDP_CHECKSUM: Range<usize> = 40..42;
    pub(super) const DF: u8 = 0x40;
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToPeer,
    ToClient,
}

/// What is random about a datagram.
#[derive(Clone, Debug)]
struct Shape {
    hop_limit: u8,
    traffic_class: u8,
    dont_fragment: bool,
    identification: u16,
    flow_label: u32,
    checksum: bool,
    padding: bool,
    payload: Vec<u8>,
}

/// One of the two networks, with a call in it.
struct Side<'l> {
    call: Call,
    wire: Wire,
    relay: &'l Relay<'l>,
}

#[test]
fn both_paths_send_the_same_bytes() {
    let labs = [Lab::routed(), Lab::routed()];
    // One port for each family, so that both relays have the same.
    let start = |lab, xdp| Relay::start(lab, &["--xdp", xdp, "--relay-ports", "50000-50000", "--shards", "1"]);
    let relays = [start(&labs[0].relay, "native"), start(&labs[1].relay, "off")];
    let mut runner = TestRunner::deterministic();
    for family in Family::ALL {
        let mut sides = [0, 1].map(|side| Side {
            call: Call::between(&labs[side], family, CLIENT_PORT, PEER_PORT),
            wire: Wire::open(&labs[side].router, ROUTER_LINK),
            relay: &relays[side],
        });
        relays[0].wait_for("the channel is in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == Call::FLOWS);
        let before = sides.each_ref().map(|side| side.relay.metrics().relayed("kernel"));
        for direction in [Direction::ToPeer, Direction::ToClient] {
            for _ in 0..CASES {
                let shape = shape(2..=255).new_tree(&mut runner).expect("nothing is filtered").current();
                compare(&sides, direction, &shape);
            }
        }
        let after = sides.each_ref().map(|side| side.relay.metrics().relayed("kernel"));
        let compared = 2 * CASES as u64;
        assert_eq!(after[0] - before[0], compared, "with XDP, all of it went through the kernel");
        assert_eq!(after[1] - before[1], 0, "without XDP, none of it did");

        for hop_limit in [0, 1] {
            for direction in [Direction::ToPeer, Direction::ToClient] {
                let shape = shape(hop_limit..=hop_limit).new_tree(&mut runner).expect("nothing is filtered").current();
                for side in &sides {
                    let frame = side.frame(direction, &shape);
                    let output = side.output(direction, &frame, QUIET);
                    assert_eq!(output, None, "a hop limit of {hop_limit} ends here: {shape:?}");
                }
            }
        }
        for side in &mut sides {
            assert_eq!(side.call.client.refresh(0), Ok(0), "the port is free for the other family");
        }
    }
    for relay in relays {
        relay.stop();
    }
}

fn shape(hop_limit: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Shape> {
    let length = prop_oneof![0..16_usize, 0..=1400_usize];
    let payload = length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    let ip = (hop_limit, any::<u8>(), any::<bool>(), any::<u16>(), 0..1_u32 << 20);
    (ip, prop::bool::weighted(0.8), any::<bool>(), payload).prop_map(|(ip, checksum, padding, payload)| {
        let (hop_limit, traffic_class, dont_fragment, identification, flow_label) = ip;
        Shape { hop_limit, traffic_class, dont_fragment, identification, flow_label, checksum, padding, payload }
    })
}

fn compare(sides: &[Side<'_>; 2], direction: Direction, shape: &Shape) {
    let input = sides[0].frame(direction, shape);
    let outputs = sides.each_ref().map(|side| side.output(direction, &input, PATIENCE));
    let shown = |at: usize| outputs[at].as_deref().map_or_else(|| " nothing".to_owned(), hex);
    let story =
        || format!("{direction:?} {shape:?}\nin:{}\nXDP:{}\nuserspace:{}", hex(&input.bytes()), shown(0), shown(1));
    let [Some(kernel), Some(userspace)] = &outputs else { panic!("{}", story()) };
    assert_eq!(comparable(kernel, &input), comparable(userspace, &input), "{}", story());
    if input.source.is_ipv4() {
        let forwarded = kernel[at::FLAGS] & at::DF != 0;
        assert_eq!(forwarded, input.dont_fragment, "XDP keeps the DF bit: {}", story());
        let without = kernel[at::UDP_CHECKSUM] == [0, 0];
        assert_eq!(without, !input.checksum, "XDP keeps a checksum that is left out: {}", story());
    }
}

/// The frame without what the two paths may set differently. Checksums were verified before.
fn comparable(frame: &[u8], input: &Frame) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if input.source.is_ipv4() {
        // A socket can't set the identification.
        frame[at::IDENTIFICATION].fill(0);
        // A socket can't see the DF bit of what it received.
        frame[at::FLAGS] &= !at::DF;
        // Covers both.
        frame[at::IPV4_CHECKSUM].fill(0);
        if !input.checksum {
            // A socket computes a checksum for all it sends; XDP leaves out what was left out.
            frame[at::UDP_CHECKSUM].fill(0);
        }
    }
    frame
}

impl Side<'_> {
    /// The frame as the router would send it to the relay.
    fn frame(&self, direction: Direction, shape: &Shape) -> Frame {
        let client = self.call.client.local();
        let server = SocketAddr::new(self.call.relayed.ip(), PORT);
        let (source, destination, payload) = match direction {
            Direction::ToPeer => (client, server, channel_data(CHANNEL, &shape.payload)),
            Direction::ToClient => (self.call.peer_address(), self.call.relayed, shape.payload.clone()),
        };
        let mut frame = Frame::new(source, destination, payload);
        if direction == Direction::ToPeer && shape.padding {
            let padded = frame.payload.len().next_multiple_of(4);
            frame.payload.resize(padded, 0);
        }
        frame.link = (RELAY_MAC, ROUTER_MAC);
        frame.hop_limit = shape.hop_limit;
        frame.traffic_class = shape.traffic_class;
        frame.dont_fragment = shape.dont_fragment;
        frame.identification = shape.identification;
        frame.flow_label = shape.flow_label;
        // IPv6 has no datagrams without a checksum.
        frame.checksum = shape.checksum || source.is_ipv6();
        frame
    }

    /// What the relay makes of a frame, if anything.
    fn output(&self, direction: Direction, input: &Frame, limit: Duration) -> Option<Vec<u8>> {
        let destination = match direction {
            Direction::ToPeer => self.call.peer_address(),
            Direction::ToClient => self.call.client.local(),
        };
        self.wire.send(&input.bytes());
        self.wire.find(limit, |frame| {
            let is_it = Datagram::of(frame).is_some_and(|datagram| datagram.destination == destination);
            is_it.then(|| frame.to_vec())
        })
    }
}
