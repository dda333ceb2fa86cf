//! Two clients of one relay, each of which is the other's peer by its relayed address.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hairpin_common::wire::{CHANNEL_DATA_LEN, ChannelDataHeader, Datagram as Kind};
use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::attribute::{
    Data, Icmp, RequestedAddressFamily, RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use hairpin_proto::stun::{Message, Method};
use hairpin_tests::lab::call::{bind, receive};
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::ROUTER_LINK;
use hairpin_tests::lab::turn::{Client, Refused, channel_data};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Lab, Metrics, Relay};
use hairpin_tests::program::frame::Frame;

const MODES: [&str; 2] = ["off", "native"];
const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);
const UDP: RequestedTransport = RequestedTransport(17);
/// What the relay has besides the addresses that its routes prefer.
const SECOND_V4: &str = "11.3.0.77";
const SECOND_V6: &str = "2a0e:11:3::77";

#[test]
fn channels_and_indications_meet_over_every_mix_of_families() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for relayed in Family::ALL {
            for (of_a, of_b) in pairs(Family::ALL) {
                for (a_by, b_by) in pairs([By::Channel(0x4001), By::Indication]) {
                    let case = format!("{xdp}: {of_a:?} {a_by:?}, relayed {relayed:?}, {of_b:?} {b_by:?}");
                    let mut a = Party::allocate(&lab, 0, Lab::relay_ip(of_a), relayed);
                    let mut b = Party::allocate(&lab, 1, Lab::relay_ip(of_b), relayed);
                    a.meet(&b, a_by);
                    b.meet(&a, b_by);
                    for length in [0, 1, 2, 3, 4, 1000] {
                        a.delivers(&b, &vec![length as u8; length], &case);
                        b.delivers(&a, &vec![!length as u8; length], &case);
                    }
                    a.release();
                    b.release();
                }
            }
        }
        relay.stop();
    }
}

/// A party whose relayed address is this one. Chance decides, so it may take some.
fn allocate_on(lab: &Lab, host: u8, address: IpAddr, family: Family) -> Party {
    for _ in 0..60 {
        let mut party = Party::allocate(lab, host, address, family);
        if party.relayed.ip() == address {
            return party;
        }
        party.release();
    }
    panic!("{address} is never given out");
}

#[test]
fn clients_of_several_relay_addresses_meet() {
    let lab = with_second_addresses();
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &both_addresses(xdp));
        for family in Family::ALL {
            let [first, second] = addresses(family);
            for (a_by, b_by) in pairs([By::Channel(0x4002), By::Indication]) {
                let case = format!("{xdp}: {family:?}, {a_by:?} and {b_by:?}");
                let mut a = allocate_on(&lab, 0, first, family);
                let mut b = allocate_on(&lab, 1, second, family);
                a.meet(&b, a_by);
                b.meet(&a, b_by);
                a.delivers(&b, b"from the first address", &case);
                b.delivers(&a, b"from the second address", &case);
                a.release();
                b.release();
            }
        }
        relay.stop();
    }
}

#[test]
fn both_permissions_are_needed() {
    let lab = with_second_addresses();
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &both_addresses(xdp));
        for family in Family::ALL {
            let [first, second] = addresses(family);
            let mut a = Party::allocate(&lab, 0, first, family);
            let mut b = Party::allocate(&lab, 1, second, family);
            let case = format!("{xdp} {family:?}");
            // Neither has any, then the sender alone, then both.
            for (a_may, b_may) in [(false, false), (true, false), (true, true)] {
                if b_may {
                    b.meet(&a, By::Indication);
                } else if a_may {
                    a.meet(&b, By::Channel(0x4003));
                }
                let before = relay.metrics();
                a.by = if a_may { By::Channel(0x4003) } else { By::Indication };
                a.peer = Some(b.relayed);
                a.send(b"may I?");
                let arrived = b.receive(if b_may { PATIENCE } else { QUIET });
                assert_eq!(arrived.is_some(), b_may, "{case}");
                if !b_may {
                    let is_so = |metrics: &Metrics| no_permission(metrics) == no_permission(&before) + 1;
                    relay.wait_for("one datagram is dropped for want of a permission", is_so);
                }
            }
            a.release();
            b.release();
        }
        relay.stop();
    }
}

#[test]
fn each_pass_through_the_relay_takes_one_of_the_hop_limit() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for family in Family::ALL {
            let mut a = Party::allocate(&lab, 0, Lab::relay_ip(family), family);
            let mut b = Party::allocate(&lab, 1, Lab::relay_ip(family), family);
            a.meet(&b, By::Channel(0x4004));
            b.meet(&a, By::Channel(0x4005));
            let server = SocketAddr::new(Lab::relay_ip(family), PORT);
            let at_client = Wire::open(&lab.clients[0], "eth0");
            let at_router = Wire::open(&lab.router, ROUTER_LINK);
            let case = format!("{xdp} {family:?}");
            // The router on the way in takes one too.
            for (sent, left) in [(64, Some(61)), (4, Some(1)), (3, None), (2, None)] {
                let before = relay.metrics();
                let mut frame = Frame::new(a.client.local(), server, channel_data(0x4004, &[sent]));
                frame.hop_limit = sent;
                frame.link = ([0x02, 0, 0, 0x01, 0, 0x01], [0x02, 0, 0, 0x01, 0, 0x02]);
                at_client.send(&frame.bytes());
                let wanted = |frame: &[u8]| Datagram::of(frame).filter(|sent| sent.destination == b.client.local());
                let seen = at_router.find(if left.is_some() { PATIENCE } else { QUIET }, wanted);
                assert_eq!(seen.map(|datagram| datagram.hop_limit), left, "{case}, sent with {sent}");
                if left.is_none() {
                    let is_so = |metrics: &Metrics| dropped(metrics, "hop_limit") == dropped(&before, "hop_limit") + 1;
                    relay.wait_for("it is dropped for its hop limit", is_so);
                }
            }
            a.release();
            b.release();
        }
        relay.stop();
    }
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for family in Family::ALL {
            let mut a = Party::allocate(&lab, 0, Lab::relay_ip(family), family);
            let mut b = Party::allocate(&lab, 1, Lab::relay_ip(family), family);
            a.meet(&b, By::Channel(0x4006));
            b.meet(&a, By::Indication);
            let before = relay.metrics();
            for number in 0..50 {
                a.send(&[number; 1000]);
            }
            for number in 0..50 {
                assert_eq!(b.receive(PATIENCE), Some((By::Indication, vec![number; 1000])), "{xdp} {family:?}");
            }
            let relayed = |metrics: &Metrics| metrics.relayed("kernel") + metrics.relayed("userspace");
            assert_eq!(relayed(&relay.metrics()) - relayed(&before), 100, "it counts for both allocations");
            a.release();
            b.release();
        }
        relay.stop();
    }
}

#[test]
fn a_client_is_told_when_the_other_has_gone() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = Relay::start(&lab.relay, &["--xdp", xdp]);
        for family in Family::ALL {
            let mut a = Party::allocate(&lab, 0, Lab::relay_ip(family), family);
            let mut b = Party::allocate(&lab, 1, Lab::relay_ip(family), family);
            a.meet(&b, By::Channel(0x4007));
            b.release();
            a.is_told_that_it_is_gone(&b, &format!("{xdp} {family:?}"));
            a.release();
        }
        relay.stop();
    }
}

/// A relay behind a 1:1 NAT. Nothing in the lab answers for what it has outside, so what is sent there is lost.
const BEHIND_NAT: [&str; 4] = ["--relay-address", "11.3.0.2=11.9.0.2", "--relay-address", "2a0e:11:3::2=2a0e:11:9::2"];

fn start_behind_nat<'l>(lab: &'l Lab, xdp: &'static str) -> Relay<'l> {
    Relay::start(&lab.relay, &[&["--xdp", xdp][..], &BEHIND_NAT].concat())
}

#[test]
fn behind_a_nat_clients_meet_by_their_public_addresses() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = start_behind_nat(&lab, xdp);
        for relayed in Family::ALL {
            for (a_by, b_by) in pairs([By::Channel(0x4008), By::Indication]) {
                let case = format!("{xdp}: {relayed:?}, {a_by:?} and {b_by:?}");
                let mut a = Party::allocate(&lab, 0, Lab::relay_ip(Family::V4), relayed);
                let mut b = Party::allocate(&lab, 1, Lab::relay_ip(Family::V6), relayed);
                let public = if relayed == Family::V4 { "11.9.0.2" } else { "2a0e:11:9::2" };
                assert_eq!([a.relayed.ip().to_string(), b.relayed.ip().to_string()], [public; 2], "{case}");
                a.meet(&b, a_by);
                b.meet(&a, b_by);
                if xdp == "native" {
                    let flows = 4 + [a_by, b_by].iter().filter(|by| **by != By::Indication).count() as u64;
                    relay.wait_for("all is in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == flows);
                }
                let before = relay.metrics();
                for length in [0, 1, 2, 3, 1000] {
                    a.delivers(&b, &vec![length as u8; length], &case);
                    b.delivers(&a, &vec![!length as u8; length], &case);
                }
                let after = relay.metrics();
                let path = if xdp == "native" { "kernel" } else { "userspace" };
                assert_eq!(after.relayed(path) - before.relayed(path), 20, "{case}: each counts for both allocations");
                a.release();
                b.release();
            }
        }
        relay.stop();
    }
}

#[test]
fn behind_a_nat_both_permissions_are_needed_and_other_ports_of_this_host_are_closed() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = start_behind_nat(&lab, xdp);
        for family in Family::ALL {
            let mut a = Party::allocate(&lab, 0, Lab::relay_ip(family), family);
            let mut b = Party::allocate(&lab, 1, Lab::relay_ip(family), family);
            let case = format!("{xdp} {family:?}");
            a.meet(&b, By::Indication);
            let before = relay.metrics();
            a.send(b"may I?");
            assert_eq!(b.receive(QUIET), None, "{case}");
            let is_so = |metrics: &Metrics| no_permission(metrics) == no_permission(&before) + 1;
            relay.wait_for("it is dropped for want of a permission", is_so);
            b.meet(&a, By::Indication);
            a.delivers(&b, b"I may", &case);

            // A service of this host, on a port that is no relayed address's.
            let service = bind(&lab.relay, SocketAddr::new(Lab::relay_ip(family), 4000));
            for ip in [a.relayed.ip(), Lab::relay_ip(family)] {
                a.client.send_indication(SocketAddr::new(ip, 4000), b"let me in");
                assert_eq!(receive(&service, QUIET), None, "{case}: {ip}");
            }
            // What a relayed address is bound to is no peer.
            assert_eq!(a.client.permit(Lab::relay_ip(family)).map_err(|Refused(code, _)| code), Err(403), "{case}");
            a.release();
            b.release();
        }
        relay.stop();
    }
}

#[test]
fn behind_a_nat_a_client_is_told_when_the_other_has_gone() {
    let lab = Lab::routed_with(2, 0);
    for xdp in MODES {
        let relay = start_behind_nat(&lab, xdp);
        for family in Family::ALL {
            let mut a = Party::allocate(&lab, 0, Lab::relay_ip(family), family);
            let mut b = Party::allocate(&lab, 1, Lab::relay_ip(family), family);
            a.meet(&b, By::Channel(0x4009));
            b.release();
            a.is_told_that_it_is_gone(&b, &format!("{xdp} {family:?}"));
            a.release();
        }
        relay.stop();
    }
}

/// How data goes between a client and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Channel(u16),
    Indication,
}

/// A client with an allocation, and the other client's relayed address for a peer.
struct Party {
    client: Client,
    relayed: SocketAddr,
    by: By,
    peer: Option<SocketAddr>,
    /// Whether something has come in the framing that was chosen.
    is_settled: Cell<bool>,
}

impl Party {
    /// Allocates an address of a family by way of any address of the server.
    fn allocate(lab: &Lab, index: u8, server: IpAddr, relayed: Family) -> Self {
        let family = if server.is_ipv4() { Family::V4 } else { Family::V6 };
        let local = SocketAddr::new(Lab::client_ip(family, index), 0);
        let server = SocketAddr::new(server, PORT);
        let mut client = Client::new(&lab.clients[usize::from(index)], local, server, USER, PASSWORD);
        let relayed = RequestedAddressFamily(Ok(match relayed {
            Family::V4 => AddressFamily::V4,
            Family::V6 => AddressFamily::V6,
        }));
        let response = client.request(Method::ALLOCATE, |message| message.with(&UDP).with(&relayed));
        let relayed = response.expect("the relay has room").get(|message| message.attribute().ok().flatten());
        let XorRelayedAddress(relayed) = relayed.expect("an allocation has a relayed address");
        Self { client, relayed, by: By::Indication, peer: None, is_settled: Cell::new(false) }
    }

    /// Lets the other one in.
    fn meet(&mut self, other: &Self, by: By) {
        match by {
            By::Channel(number) => self.client.bind_channel(number, other.relayed),
            By::Indication => self.client.permit(other.relayed.ip()),
        }
        .expect("a relayed address of the same relay is allowed");
        self.by = by;
        self.peer = Some(other.relayed);
    }

    fn send(&mut self, data: &[u8]) {
        match self.by {
            By::Channel(number) => self.client.send_on_channel(number, data),
            By::Indication => self.client.send_indication(self.peer.expect("they have met"), data),
        }
    }

    /// Sends data and checks that it arrives at the other one in its own framing.
    fn delivers(&mut self, other: &Self, data: &[u8], case: &str) {
        self.send(data);
        let mut received = other.receive(PATIENCE);
        // The kernel knows a permission a moment before the channel that rests on it.
        if !other.is_settled.get() && received == Some((By::Indication, data.to_vec())) && other.by != By::Indication {
            self.send(data);
            received = other.receive(PATIENCE);
        }
        assert_eq!(received, Some((other.by, data.to_vec())), "{case}: {} bytes", data.len());
        other.is_settled.set(true);
    }

    /// What comes next in time: how, and the data. An indication must name the other one.
    fn receive(&self, limit: Duration) -> Option<(By, Vec<u8>)> {
        let end = Instant::now() + limit;
        let datagram = self.client.receive(end.checked_duration_since(Instant::now())?)?;
        if Kind::of(datagram[0]) == Kind::ChannelData {
            let (header, data) = datagram.split_first_chunk::<CHANNEL_DATA_LEN>().expect("a whole header");
            let header = ChannelDataHeader::parse(*header);
            assert_eq!(usize::from(header.length), data.len(), "over UDP nothing is padded");
            return Some((By::Channel(header.channel), data.to_vec()));
        }
        let message = Message::parse(&datagram).expect("ChannelData or STUN");
        assert_eq!(message.method(), Method::DATA, "{message:?}");
        assert_eq!(message.attribute().expect("readable").map(|XorPeerAddress(peer)| peer), self.peer);
        let Data(data) = message.attribute().expect("readable").unwrap_or_else(|| panic!("no data: {message:?}"));
        Some((By::Indication, data.to_vec()))
    }

    /// Sends data to the other one, which has released its relayed address.
    fn is_told_that_it_is_gone(&self, other: &Self, case: &str) {
        let By::Channel(number) = self.by else { panic!("{case}: there is a channel") };
        self.client.send_on_channel(number, b"are you still there?");
        let datagram = self.client.receive(PATIENCE).expect("an answer");
        let message = Message::parse(&datagram).expect("a STUN message");
        assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(other.relayed))), "{case}");
        let (kind, code) = if other.relayed.is_ipv4() { (3, 3) } else { (1, 4) };
        assert_eq!(message.attribute(), Ok(Some(Icmp { kind, code, error_data: 0 })), "{case}");
    }

    fn release(&mut self) {
        assert_eq!(self.client.refresh(0), Ok(0));
    }
}

fn pairs<T: Copy>(all: [T; 2]) -> [(T, T); 4] {
    let [a, b] = all;
    [(a, a), (a, b), (b, a), (b, b)]
}

fn with_second_addresses() -> Lab {
    let lab = Lab::routed_with(2, 0);
    lab.relay.ip(&format!("addr add {SECOND_V4}/24 dev eth0\naddr add {SECOND_V6}/64 dev eth0 nodad"));
    lab
}

/// Both addresses of the relay, of one family.
fn addresses(family: Family) -> [IpAddr; 2] {
    let second = if family == Family::V4 { SECOND_V4 } else { SECOND_V6 };
    [Lab::relay_ip(family), second.parse().expect("an address")]
}

/// The options of a relay that relays from all of them.
fn both_addresses(xdp: &'static str) -> [&'static str; 10] {
    let [option, v4, v6] = ["--relay-address", "11.3.0.2", "2a0e:11:3::2"];
    ["--xdp", xdp, option, v4, option, SECOND_V4, option, v6, option, SECOND_V6]
}

fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_dropped_packets_total", &[("reason", reason)])
}

/// Drops for want of a permission, in userspace or in the kernel.
fn no_permission(metrics: &Metrics) -> u64 {
    dropped(metrics, "no_permission")
}
