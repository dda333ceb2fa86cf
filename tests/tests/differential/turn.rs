//! Every way of TURN: between a client and a peer, and from client to client.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_tests::lab::call::{CHANNEL, bind};
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::framing::Framing;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::ROUTER_LINK;
use hairpin_tests::lab::turn::{Client, channel_data};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Lab, Metrics, Relay};
use hairpin_tests::program::frame::{Frame, hex};
use proptest::prelude::*;

use super::{Header, NAT, at, cases, comparable, draw, header, payload};

/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this time there is no answer.
const QUIET: Duration = Duration::from_millis(200);
/// Datagrams of each way between each pair of IP versions.
const CASES: u64 = 25;
const CLIENT_PORTS: [u16; 2] = [40_000, 40_001];
const PEER_PORT: u16 = 6000;

/// Which way a datagram goes, by how clients talk about their peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToPeer(Framing),
    ToClient(Framing),
    /// From one client to another.
    Between(Framing, Framing),
}

impl Way {
    fn all() -> impl Iterator<Item = Self> {
        let alone = Framing::BOTH.into_iter().flat_map(|framing| [Self::ToPeer(framing), Self::ToClient(framing)]);
        let pairs = Framing::BOTH.into_iter().flat_map(|one| Framing::BOTH.map(|other| Self::Between(one, other)));
        alone.chain(pairs)
    }

    /// How many relayed addresses it passes.
    fn relays(self) -> u8 {
        if matches!(self, Self::Between(..)) { 2 } else { 1 }
    }
}

/// What is random about a datagram.
#[derive(Clone, Debug)]
struct Shape {
    header: Header,
    /// ChannelData: whether it is padded. Send indication: what with.
    padding: Option<u8>,
    /// Send indication: the order of its attributes, and whether DONT-FRAGMENT is one.
    order: usize,
    asks_not_to_fragment: bool,
    payload: Vec<u8>,
}

/// One of the two networks, with what a way needs in it.
struct Side<'l> {
    clients: Vec<Client>,
    /// Where the first client's data goes, or, to a client, where it comes from.
    peer: SocketAddr,
    relayed: Vec<SocketAddr>,
    wire: Wire,
    relay: &'l Relay<'l>,
    _peer: std::net::UdpSocket,
}

#[test]
fn both_paths_send_the_same_bytes() {
    compare_ways(Way::all(), &[]);
}

#[test]
fn behind_a_nat_both_paths_send_the_same_bytes_from_client_to_client() {
    let between = Way::all().filter(|way| matches!(way, Way::Between(..)));
    compare_ways(between, &NAT);
}

fn compare_ways(ways: impl Iterator<Item = Way>, arguments: &[&str]) {
    let (cases, mut runner) = cases(CASES);
    let labs = [Lab::routed(), Lab::routed()];
    // Few ports, so that both relays soon take the same; one user may have three quarters of them.
    let few = ["--relay-ports", "50000-50003", "--shards", "1"];
    let start = |lab, xdp| Relay::start(lab, &[&["--xdp", xdp][..], &few, arguments].concat());
    let relays = [start(&labs[0].relay, "native"), start(&labs[1].relay, "off")];
    let mut compared = 0;
    for way in ways {
        for families in triples(way) {
            let mut sides = [0, 1].map(|side| Side::new(&labs[side], &relays[side], way, families));
            let flows = 2 * u64::from(way.relays()) + u64::from(uses_channel(way));
            relays[0].wait_for("all is in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == flows);
            let before = sides.each_ref().map(|side| side.relay.metrics());
            for _ in 0..cases {
                let shape = draw(&mut runner, &shape(1 + way.relays()..=255));
                compare(&sides, way, families, &shape);
            }
            let after = sides.each_ref().map(|side| side.relay.metrics());
            let relayed = |side: usize, path| after[side].relayed(path) - before[side].relayed(path);
            // What the driver has no room for, and what has no checksum for IPv6, is for userspace.
            let passed = |metrics: &Metrics| metrics.passed("no_room") + metrics.passed("no_checksum");
            let passed = passed(&after[0]) - passed(&before[0]);
            let times = u64::from(way.relays());
            assert_eq!(relayed(0, "kernel"), (cases - passed) * times, "{way:?} {families:?} with XDP");
            assert!(passed <= cases / 2, "{way:?} {families:?}: hardly anything is in the kernel");
            assert_eq!(relayed(1, "kernel"), 0, "{way:?} {families:?} without XDP");
            compared += cases;

            for hop_limit in 0..=way.relays() {
                let shape = draw(&mut runner, &shape(hop_limit..=hop_limit));
                for side in &sides {
                    let output = side.output(way, &side.frame(way, families, &shape), QUIET);
                    assert_eq!(output, None, "a hop limit of {hop_limit} ends here: {way:?} {shape:?}");
                }
            }
            for side in &mut sides {
                for client in &mut side.clients {
                    assert_eq!(client.refresh(0), Ok(0), "the port is free for the next");
                }
            }
        }
    }
    println!("{compared} datagrams compared");
    for relay in relays {
        relay.stop();
    }
}

/// IP versions of the first client, of the relayed address, and of the second client.
fn triples(way: Way) -> impl Iterator<Item = [Family; 3]> {
    let all =
        Family::ALL.into_iter().flat_map(|a| Family::ALL.into_iter().flat_map(move |b| Family::ALL.map(|c| [a, b, c])));
    // Where there is no second client, its version makes no difference.
    all.filter(move |families| matches!(way, Way::Between(..)) || families[2] == Family::V4)
}

fn uses_channel(way: Way) -> u8 {
    match way {
        Way::ToPeer(framing) | Way::ToClient(framing) => u8::from(framing == Framing::Channel),
        Way::Between(one, other) => u8::from(one == Framing::Channel) + u8::from(other == Framing::Channel),
    }
}

fn shape(hop_limit: RangeInclusive<u8>) -> impl Strategy<Value = Shape> {
    let framing = (any::<Option<u8>>(), 0..6_usize, any::<bool>());
    (header(hop_limit), framing, payload()).prop_map(|(header, framing, payload)| {
        let (padding, order, asks_not_to_fragment) = framing;
        Shape { header, padding, order, asks_not_to_fragment, payload }
    })
}

fn compare(sides: &[Side<'_>; 2], way: Way, families: [Family; 3], shape: &Shape) {
    let input = sides[0].frame(way, families, shape);
    assert_eq!(input.bytes(), sides[1].frame(way, families, shape).bytes(), "the networks are equal");
    let outputs = sides.each_ref().map(|side| side.output(way, &input, PATIENCE));
    let shown = |at: usize| outputs[at].as_deref().map_or_else(|| " nothing".to_owned(), hex);
    let story = || {
        format!("{way:?} {families:?} {shape:?}\nin:{}\nXDP:{}\nuserspace:{}", hex(&input.bytes()), shown(0), shown(1))
    };
    let [Some(kernel), Some(userspace)] = &outputs else { panic!("{}", story()) };
    let [one, other] = [kernel, userspace].map(|output| comparable(output, input.checksum));
    assert_eq!(one, other, "{}", story());
    let is_send = matches!(way, Way::ToPeer(Framing::Indication));
    if is_send && kernel[at::VERSION] >> 4 == 4 {
        for output in [kernel, userspace] {
            let asks = output[at::FLAGS] & at::DF != 0;
            assert_eq!(asks, shape.asks_not_to_fragment, "DONT-FRAGMENT decides: {}", story());
        }
    }
}

impl<'l> Side<'l> {
    fn new(lab: &Lab, relay: &'l Relay<'l>, way: Way, [first, relayed, second]: [Family; 3]) -> Self {
        let socket = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(relayed, 0), PEER_PORT));
        let peer = socket.local_addr().expect("it is bound");
        let versions = if way.relays() == 2 { vec![first, second] } else { vec![first] };
        let mut clients = Vec::new();
        let mut addresses = Vec::new();
        for (at, version) in versions.into_iter().enumerate() {
            let (client, address) = allocate(lab, version, relayed, CLIENT_PORTS[at], 50_000 + at as u16);
            clients.push(client);
            addresses.push(address);
        }
        let peer = if way.relays() == 2 { addresses[1] } else { peer };
        match way {
            Way::ToPeer(framing) | Way::ToClient(framing) => framing.open(&mut clients[0], peer),
            Way::Between(one, other) => {
                one.open(&mut clients[0], addresses[1]);
                other.open(&mut clients[1], addresses[0]);
            }
        }
        // Now, so that it has not seen the responses.
        let wire = Wire::open(&lab.router, ROUTER_LINK);
        Self { clients, peer, relayed: addresses, wire, relay, _peer: socket }
    }

    /// The frame as the router would send it to the relay.
    fn frame(&self, way: Way, families: [Family; 3], shape: &Shape) -> Frame {
        let client = self.clients[0].local();
        let server = SocketAddr::new(Lab::relay_ip(families[0]), PORT);
        let mut frame = match way {
            Way::ToClient(_) => Frame::new(self.peer, self.relayed[0], shape.payload.clone()),
            Way::ToPeer(Framing::Channel) | Way::Between(Framing::Channel, _) => {
                let mut payload = channel_data(CHANNEL, &shape.payload);
                if let Some(byte) = shape.padding {
                    payload.resize(payload.len().next_multiple_of(4), byte);
                }
                Frame::new(client, server, payload)
            }
            Way::ToPeer(Framing::Indication) | Way::Between(Framing::Indication, _) => {
                Frame::new(client, server, send_indication(self.peer, shape))
            }
        };
        shape.header.put_into(&mut frame);
        frame
    }

    /// What the relay makes of a frame, if anything.
    fn output(&self, way: Way, input: &Frame, limit: Duration) -> Option<Vec<u8>> {
        let destination = match way {
            Way::ToPeer(_) => self.peer,
            Way::ToClient(_) => self.clients[0].local(),
            Way::Between(..) => self.clients[1].local(),
        };
        self.wire.send(&input.bytes());
        self.wire.find(limit, |frame| {
            let is_it = Datagram::of(frame).is_some_and(|datagram| datagram.destination == destination);
            is_it.then(|| frame.to_vec())
        })
    }
}

/// A client whose relayed address has this port: of those that are left, the relay takes any.
fn allocate(lab: &Lab, client: Family, relayed: Family, local: u16, port: u16) -> (Client, SocketAddr) {
    let family = match relayed {
        Family::V4 => AddressFamily::V4,
        Family::V6 => AddressFamily::V6,
    };
    let server = SocketAddr::new(Lab::relay_ip(client), PORT);
    let mut client =
        Client::new(&lab.clients[0], SocketAddr::new(Lab::client_ip(client, 0), local), server, USER, PASSWORD);
    for _ in 0..100 {
        let address = client.allocate_of(family, false).expect("the relay has room");
        if address.port() == port {
            return (client, address);
        }
        client.refresh(0).expect("an allocation can be released");
    }
    panic!("a hundred random choices of four, and never port {port}");
}

/// A Send indication with its attributes in any order, and any padding.
fn send_indication(peer: SocketAddr, shape: &Shape) -> Vec<u8> {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let id = [&COOKIE[..], &shape.header.identification.to_be_bytes(), b"ten bytes!"].concat();
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(value.len()).expect("it fits in a datagram");
        let mut attribute = [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat();
        attribute.resize(attribute.len().next_multiple_of(4), shape.padding.unwrap_or(0));
        attribute
    };
    let octets = match peer.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let port = peer.port() ^ 0x2112;
    let mut value = vec![0, if peer.is_ipv4() { 1 } else { 2 }];
    value.extend(port.to_be_bytes());
    value.extend(octets.iter().zip(&id).map(|(byte, mask)| byte ^ mask));
    let mut attributes = vec![attribute(0x0012, &value), attribute(0x0013, &shape.payload)];
    if shape.asks_not_to_fragment {
        attributes.push(attribute(0x001a, &[]));
    }
    let count = attributes.len();
    attributes.rotate_left(shape.order % count);
    if shape.order >= 3 {
        attributes.swap(0, 1);
    }
    let attributes = attributes.concat();
    let length = u16::try_from(attributes.len()).expect("it fits in a datagram");
    [&[0x00, 0x16][..], &length.to_be_bytes(), &id, &attributes].concat()
}
