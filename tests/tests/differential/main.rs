//! The kernel path and the userspace path, side by side: the same frames go into two relays in two equal networks, one
//! with XDP and one without, and what comes out must be the same, byte for byte.
//!
//! Addresses and link-layer addresses of the networks are equal, so that nothing of the frames is left out but what
//! [`comparable`] names. `HAIRPIN_CASES` sets how many datagrams there are, `HAIRPIN_SEED` which.

mod media;
mod turn;

use std::ops::RangeInclusive;

use hairpin_tests::lab::topology::{RELAY_MAC, ROUTER_MAC};
use hairpin_tests::program::frame::Frame;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The relay's addresses behind a 1:1 NAT.
const NAT: [&str; 4] = ["--relay-address", "11.3.0.2=11.9.0.2", "--relay-address", "2a0e:11:3::2=2a0e:11:9::2"];

/// Where the DF bit, the identification and the checksums are in an Ethernet frame.
mod at {
    use std::ops::Range;

    pub(super) const VERSION: usize = 14;
    pub(super) const IDENTIFICATION: Range<usize> = 18..20;
    pub(super) const FLAGS: usize = 20;
    pub(super) const IPV4_CHECKSUM: Range<usize> = 24..26;
    pub(super) const DF: u8 = 0x40;

    /// Where the UDP header is.
    pub(super) fn udp(frame: &[u8]) -> usize {
        if frame[VERSION] >> 4 == 4 { 34 } else { 54 }
    }
}

/// What is random about the headers of a datagram.
#[derive(Clone, Debug)]
struct Header {
    hop_limit: u8,
    traffic_class: u8,
    dont_fragment: bool,
    identification: u16,
    flow_label: u32,
    checksum: bool,
}

impl Header {
    /// As the router would send it to the relay.
    fn put_into(&self, frame: &mut Frame) {
        frame.link = (RELAY_MAC, ROUTER_MAC);
        frame.hop_limit = self.hop_limit;
        frame.traffic_class = self.traffic_class;
        frame.dont_fragment = self.dont_fragment;
        frame.identification = self.identification;
        frame.flow_label = self.flow_label;
        // IPv6 has no datagrams without a checksum.
        frame.checksum = self.checksum || frame.source.is_ipv6();
    }
}

fn header(hop_limit: RangeInclusive<u8>) -> impl Strategy<Value = Header> {
    let ip = (hop_limit, any::<u8>(), any::<bool>(), any::<u16>(), 0..1_u32 << 20);
    (ip, prop::bool::weighted(0.8)).prop_map(|(ip, checksum)| {
        let (hop_limit, traffic_class, dont_fragment, identification, flow_label) = ip;
        Header { hop_limit, traffic_class, dont_fragment, identification, flow_label, checksum }
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![0..16_usize, 0..=1390_usize];
    length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length))
}

/// How many datagrams there are to be, unless `HAIRPIN_CASES` says otherwise, and what draws them.
fn cases(unless_said: u64) -> (u64, TestRunner) {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
    };
    let (cases, seed) = (number("HAIRPIN_CASES", unless_said), number("HAIRPIN_SEED", 1));
    println!("HAIRPIN_CASES={cases} HAIRPIN_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    (cases, TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)))
}

fn draw<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).expect("nothing is filtered").current()
}

/// The frame without what the two paths may set differently. Checksums were verified before; that of UDP is left out where
/// what came in had none.
fn comparable(frame: &[u8], has_checksum: bool) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let udp = at::udp(&frame);
    let (mut checksum_differs, payload) = (false, udp + 8);
    if frame[at::VERSION] >> 4 == 4 {
        // A socket can't set the identification.
        frame[at::IDENTIFICATION].fill(0);
        // A socket can't see the DF bit of what it received.
        frame[at::FLAGS] &= !at::DF;
        // Covers both.
        frame[at::IPV4_CHECKSUM].fill(0);
        // A socket computes a checksum for all it sends; XDP leaves out what was left out.
        checksum_differs = !has_checksum;
    }
    // Random data may begin like one by chance, but hardly with the magic cookie, too.
    if frame[payload..].starts_with(&[0x00, 0x17])
        && frame.get(payload + 4..payload + 8) == Some(&[0x21, 0x12, 0xa4, 0x42][..])
    {
        // A Data indication: its transaction id is random, and an IPv6 address is masked with it.
        let id: Vec<u8> = frame[payload + 8..payload + 20].to_vec();
        frame[payload + 8..payload + 20].fill(0);
        assert_eq!(frame[payload + 20..payload + 22], [0x00, 0x12], "XOR-PEER-ADDRESS comes first");
        if frame[payload + 25] == 2 {
            for (byte, mask) in frame[payload + 32..payload + 44].iter_mut().zip(id) {
                *byte ^= mask;
            }
        }
        checksum_differs = true;
    }
    if checksum_differs {
        frame[udp + 6..udp + 8].fill(0);
    }
    frame
}
