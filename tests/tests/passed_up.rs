//! What the program leaves to the kernel's stack because of its IP headers still arrives, by way of userspace.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hairpin_tests::lab::call::{CHANNEL, receive};
use hairpin_tests::lab::framing::{allocate, peer_socket, settle};
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::topology::{RELAY_MAC, ROUTER_LINK, ROUTER_MAC};
use hairpin_tests::lab::turn::{Client, channel_data};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Framing, Lab, Relay};
use hairpin_tests::program::frame::{Frame, repair_ipv4};

const PATIENCE: Duration = Duration::from_secs(2);
const NATIVE: [&str; 2] = ["--xdp", "native"];
/// Where the IP header of a frame without a tag begins.
const LAYER3: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// How much of a UDP datagram a first fragment has: the header, and less than the data that a lookup needs.
const CUT: usize = 8;

/// A client and a peer whose call is in the kernel.
struct Meeting {
    family: Family,
    framing: Framing,
    client: Client,
    peer: UdpSocket,
    address: SocketAddr,
    relayed: SocketAddr,
}

impl Meeting {
    fn new(lab: &Lab, relay: &Relay<'_>, family: Family, framing: Framing) -> Self {
        let (client, relayed) = allocate(lab, family, family);
        let (peer, address) = peer_socket(&lab.peers[0], Lab::peer_ip(family, 0));
        peer.connect(relayed).expect("the lab has a route to the relay");
        let mut meeting = Self { family, framing, client, peer, address, relayed };
        framing.open(&mut meeting.client, address);
        settle(relay, || meeting.exchange(b"first"));
        meeting
    }

    fn exchange(&mut self, data: &[u8]) {
        self.framing.send(&mut self.client, self.address, data);
        self.expect_at_peer(data);
        self.peer.send(data).expect("the way is open");
        self.framing.expect(&self.client, self.address, data);
    }

    fn expect_at_peer(&self, data: &[u8]) {
        let got = receive(&self.peer, PATIENCE);
        assert!(got.as_deref() == Some(data), "{:?} {:?}: {got:02x?}", self.family, self.framing);
    }

    /// The frame in which the client's data comes to the relay.
    fn frame_of_client(&self, data: &[u8]) -> Vec<u8> {
        let payload = match self.framing {
            Framing::Channel => channel_data(CHANNEL, data),
            Framing::Indication => Client::indication(self.address, data),
        };
        let server = SocketAddr::new(Lab::relay_ip(self.family), PORT);
        to_relay(self.client.local(), server, payload)
    }

    /// The frame in which the peer's data comes to the relay.
    fn frame_of_peer(&self, data: &[u8]) -> Vec<u8> {
        to_relay(self.address, self.relayed, data.to_vec())
    }
}

fn to_relay(source: SocketAddr, destination: SocketAddr, payload: Vec<u8>) -> Vec<u8> {
    Frame { link: (RELAY_MAC, ROUTER_MAC), ..Frame::new(source, destination, payload) }.bytes()
}

fn has_ipv6(frame: &[u8]) -> bool {
    frame[LAYER3] >> 4 == 6
}

fn add_to_word(frame: &mut [u8], at: usize, more: usize) {
    let word = u16::from_be_bytes([frame[at], frame[at + 1]]) + u16::try_from(more).expect("a small packet");
    frame[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// The frame with an IPv4 option that does nothing.
fn with_option(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(LAYER3 + IPV4_LEN..LAYER3 + IPV4_LEN, [1, 1, 1, 0]);
    frame[LAYER3] += 1;
    add_to_word(&mut frame, LAYER3 + 2, 4);
    repair_ipv4(&mut frame, LAYER3);
    frame
}

/// The frame with an IPv6 extension header of a kind, eight bytes with nothing but padding inside.
fn with_extension(frame: &[u8], kind: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let next = std::mem::replace(&mut frame[LAYER3 + 6], kind);
    frame.splice(LAYER3 + IPV6_LEN..LAYER3 + IPV6_LEN, [next, 0, 1, 4, 0, 0, 0, 0]);
    add_to_word(&mut frame, LAYER3 + 4, 8);
    frame
}

/// The frame in two fragments, of which the second is sent first if so wanted.
fn in_fragments(frame: &[u8], number: u16, reverse: bool) -> [Vec<u8>; 2] {
    let headers = LAYER3 + if has_ipv6(frame) { IPV6_LEN } else { IPV4_LEN };
    let one = |range: std::ops::Range<usize>, more: bool| {
        let offset = (range.start - headers) as u16;
        let length = range.len();
        let mut part = frame[..headers].to_vec();
        if has_ipv6(frame) {
            part[LAYER3 + 4..LAYER3 + 6].copy_from_slice(&(8 + length as u16).to_be_bytes());
            let next = std::mem::replace(&mut part[LAYER3 + 6], 44);
            part.extend([next, 0]);
            part.extend((offset | u16::from(more)).to_be_bytes());
            part.extend([0, 0]);
            part.extend(number.to_be_bytes());
        } else {
            part[LAYER3 + 2..LAYER3 + 4].copy_from_slice(&((IPV4_LEN + length) as u16).to_be_bytes());
            part[LAYER3 + 4..LAYER3 + 6].copy_from_slice(&number.to_be_bytes());
            part[LAYER3 + 6..LAYER3 + 8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            repair_ipv4(&mut part, LAYER3);
        }
        part.extend(&frame[range]);
        part
    };
    let cut = headers + CUT;
    let mut parts = [one(headers..cut, true), one(cut..frame.len(), false)];
    if reverse {
        parts.reverse();
    }
    parts
}

/// Sends the frames that a datagram comes in, and checks that it arrives, by way of userspace and for this reason.
#[track_caller]
fn expect_through_userspace(relay: &Relay<'_>, reason: &str, wire: &Wire, frames: &[Vec<u8>], arrives: impl FnOnce()) {
    let before = relay.metrics();
    for frame in frames {
        wire.send(frame);
    }
    arrives();
    let after = relay.metrics();
    assert_eq!(after.passed(reason) - before.passed(reason), frames.len() as u64, "{reason}");
    assert_eq!(after.relayed("userspace") - before.relayed("userspace"), 1, "{reason}");
    assert_eq!(after.relayed("kernel"), before.relayed("kernel"), "{reason}");
}

/// Does a test with the frames of a client and of a peer, for each framing.
fn each_way(family: Family, send: impl Fn(&Relay<'_>, &Wire, Vec<u8>, &dyn Fn())) {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &NATIVE);
    let wire = Wire::open(&lab.router, ROUTER_LINK);
    for framing in Framing::BOTH {
        let mut meeting = Meeting::new(&lab, &relay, family, framing);
        send(&relay, &wire, meeting.frame_of_client(b"an unusual header"), &|| {
            meeting.expect_at_peer(b"an unusual header");
        });
        send(&relay, &wire, meeting.frame_of_peer(b"an unusual answer"), &|| {
            framing.expect(&meeting.client, meeting.address, b"an unusual answer");
        });
        // The call itself is in the kernel as ever.
        let before = relay.metrics().relayed("userspace");
        meeting.exchange(b"as usual");
        assert_eq!(relay.metrics().relayed("userspace"), before);
    }
    relay.stop();
}

#[test]
fn ipv4_options_are_for_the_stack() {
    each_way(Family::V4, |relay, wire, frame, arrives| {
        expect_through_userspace(relay, "ip_options", wire, &[with_option(&frame)], arrives);
    });
}

#[test]
fn ipv6_extension_headers_are_for_the_stack() {
    // Hop-by-hop and destination options.
    for kind in [0, 60] {
        each_way(Family::V6, |relay, wire, frame, arrives| {
            expect_through_userspace(relay, "not_udp", wire, &[with_extension(&frame, kind)], arrives);
        });
    }
}

#[test]
fn fragments_are_for_the_stack() {
    for family in Family::ALL {
        for reverse in [false, true] {
            each_way(family, |relay, wire, frame, arrives| {
                let number = 77 + u16::from(reverse);
                expect_through_userspace(relay, "fragment", wire, &in_fragments(&frame, number, reverse), arrives);
            });
        }
    }
}

#[test]
fn datagrams_larger_than_every_link_arrive_both_ways() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &NATIVE);
    for family in Family::ALL {
        for framing in Framing::BOTH {
            let mut meeting = Meeting::new(&lab, &relay, family, framing);
            let before = relay.metrics();
            let data: Vec<u8> = (0..3000_u32).map(|at| (at * 7) as u8).collect();
            meeting.exchange(&data);
            let after = relay.metrics();
            assert_eq!(after.passed("fragment") - before.passed("fragment"), 2 * 3, "{family:?} {framing:?}");
            assert_eq!(after.relayed("userspace") - before.relayed("userspace"), 2, "{family:?} {framing:?}");
        }
    }
    relay.stop();
}
