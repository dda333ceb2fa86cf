//! Sessions of two legs: what comes to legs in any order, of their remotes and of strangers, and what is counted for it.
//!
//! Each relay has chosen its own ports and credentials, so frames are made for each, and the source port, the checksum over
//! it, and what credentials sign are left out of what comes out. Datagrams come in batches, and overtake each other where
//! some go through the kernel, so a batch's are compared in the order of their bytes.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::LongTermKey;
use hairpin_tests::lab::call::{CHANNEL, bind};
use hairpin_tests::lab::datagram::Datagram;
use hairpin_tests::lab::ice::{IceRelay, Session, check, components};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::topology::{RELAY_MAC, ROUTER_LINK, ROUTER_MAC};
use hairpin_tests::lab::turn::{Client, channel_data};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Lab};
use hairpin_tests::program::frame::{Frame, hex};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::{Header, NAT, at, cases, comparable, draw, header, payload};

/// Datagrams in all.
const CASES: u64 = 600;
const BATCH: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(2);
/// After this time nothing more comes out.
const QUIET: Duration = Duration::from_millis(200);
const FIRST_PORT: u16 = 41_000;
/// Ports of second agents are so much higher than those of the first, and strangers' as much again.
const STEP: u16 = 100;
const LEGS: [&str; 2] = ["a", "b"];

/// Who is at the other side of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remote {
    /// A host that was told.
    Told(Family),
    /// A host that has sent something first.
    Latched(Family),
    /// An agent that has nominated its pair, and a second one that has only proven itself.
    Agent(Family),
    /// Nobody yet.
    Nobody,
    /// A client of this relay, at its relayed address of IPv4. It reaches the relay over IPv6.
    Client,
    /// The second leg of a session of this relay.
    Leg(usize),
}

use Remote::{Agent, Client as AtRelayed, Latched, Leg, Nobody, Told};

/// The sessions of either relay.
const SESSIONS: [[Remote; 2]; 8] = [
    [Told(Family::V4), Told(Family::V6)],
    [Agent(Family::V6), Told(Family::V4)],
    [Told(Family::V4), Agent(Family::V4)],
    [Latched(Family::V4), Agent(Family::V6)],
    [Told(Family::V4), Nobody],
    [Told(Family::V6), AtRelayed],
    [Told(Family::V4), Leg(7)],
    [Agent(Family::V6), Leg(6)],
];
/// Those whose second leg's remote is one of the relay's own addresses.
const WITH_CLIENT: usize = 5;
const TO_SESSION: usize = 6;

/// Where somebody outside sends, by a leg's number in a session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    source: SocketAddr,
    session: usize,
    leg: usize,
    /// Through the relayed address of the client that is there.
    by_channel: bool,
}

/// A datagram that comes in.
#[derive(Clone, Debug)]
struct Input {
    header: Header,
    way: Index,
    /// From another source to another leg than is right, most likely.
    stray: Option<[Index; 2]>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Media(Vec<u8>),
    Stun(Vec<u8>),
    Check([u8; 12]),
}

/// One of the two networks, with all sessions in it.
struct Side<'l> {
    relay: &'l IceRelay<'l>,
    sessions: Vec<Session<'l, 'l>>,
    /// How they were in the beginning.
    shown: Vec<Value>,
    wire: Wire,
    client: Client,
    /// So that nobody is unreachable.
    _sockets: Vec<UdpSocket>,
}

/// The address of the remote at a leg.
fn host(session: usize, leg: usize, family: Family) -> SocketAddr {
    let ip = if leg == 0 { Lab::client_ip(family, 0) } else { Lab::peer_ip(family, 0) };
    SocketAddr::new(ip, FIRST_PORT + (2 * session + leg) as u16)
}

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for (session, leg) in legs() {
        let remote = SESSIONS[session][leg];
        let way = |source| Way { source, session, leg, by_channel: remote == AtRelayed };
        match remote {
            Told(family) | Latched(family) => ways.push(way(host(session, leg, family))),
            Agent(family) => ways.extend([0, STEP].map(|step| way(above(host(session, leg, family), step)))),
            AtRelayed => ways.push(way(host(session, leg, Family::V6))),
            Leg(_) | Nobody => {}
        }
    }
    ways
}

fn above(mut address: SocketAddr, step: u16) -> SocketAddr {
    address.set_port(address.port() + step);
    address
}

fn input() -> impl Strategy<Value = Input> {
    let media = payload().prop_map(|mut data| {
        // What is below is STUN (RFC 7983).
        data.iter_mut().take(1).for_each(|first| *first = (*first).max(4));
        Content::Media(data)
    });
    let stun = (0..4_u8, payload()).prop_map(|(first, data)| Content::Stun([vec![first], data].concat()));
    let content = prop_oneof![7 => media, 1 => stun, 1 => any::<[u8; 12]>().prop_map(Content::Check)];
    let hop_limit = prop_oneof![8 => header(3..=255), 1 => header(1..=3)];
    let stray = prop::option::weighted(0.25, any::<[Index; 2]>());
    (hop_limit, any::<Index>(), stray, content).prop_map(|(header, way, stray, content)| Input {
        header,
        way,
        stray,
        content,
    })
}

impl<'l> Side<'l> {
    fn new(lab: &Lab, relay: &'l IceRelay<'l>) -> Self {
        let kind = |remote| match remote {
            Agent(_) => json!({ "kind": "ice" }),
            Latched(_) => json!({ "kind": "plain", "latch": true }),
            Told(_) | Nobody | AtRelayed | Leg(_) => json!({ "kind": "plain" }),
        };
        let wire = Wire::open(&lab.router, ROUTER_LINK);
        let sessions: Vec<_> = SESSIONS.iter().map(|[a, b]| relay.create(&kind(*a), &kind(*b), 1)).collect();
        let shown = sessions.iter().map(Session::show).collect();
        let at = |way: &Way| if way.leg == 0 { &lab.clients[0] } else { &lab.peers[0] };
        let (of_client, of_hosts): (Vec<_>, Vec<_>) = ways().into_iter().partition(|way| way.by_channel);
        let server = SocketAddr::new(Lab::relay_ip(Family::V6), PORT);
        let mut client = Client::new(at(&of_client[0]), of_client[0].source, server, USER, PASSWORD);
        let relayed = client.allocate_of(AddressFamily::V4, false).expect("the relay has room");
        let sockets = of_hosts.iter().map(|way| bind(at(way), way.source)).collect();
        let mut side = Self { relay, sessions, shown, wire, client, _sockets: sockets };
        side.tell_remotes(relayed);
        let leg = side.known(WITH_CLIENT, 1, Family::V4);
        side.client.bind_channel(CHANNEL, leg).expect("a leg is a peer like any other");
        side.check_legs();
        for (session, leg) in legs().filter(|(session, leg)| matches!(SESSIONS[*session][*leg], Latched(_))) {
            let way = ways().into_iter().find(|way| (way.session, way.leg) == (session, leg)).expect("there is one");
            side.wire.send(&side.frame(&way, &[0x80]).bytes());
            let goes_on = side.wire.find(PATIENCE, |frame| Datagram::of(frame).filter(|sent| sent.payload == [0x80]));
            assert!(goes_on.is_some(), "the first that sends something is the remote");
        }
        side
    }

    fn tell_remotes(&self, relayed: SocketAddr) {
        for (session, leg) in legs() {
            let address = match SESSIONS[session][leg] {
                Told(family) => host(session, leg, family),
                AtRelayed => relayed,
                Leg(other) => self.known(other, 1, Family::V4),
                Agent(_) | Latched(_) | Nobody => continue,
            };
            let addresses = json!({ "addresses": [{ "address": address.to_string() }] });
            self.sessions[session].remote(LEGS[leg], &addresses);
        }
    }

    /// Has all agents check their legs, the first of each with a nomination. What has come out before is thrown away.
    fn check_legs(&self) {
        for way in ways() {
            let Agent(family) = SESSIONS[way.session][way.leg] else { continue };
            let check = self.check(&way, way.source == host(way.session, way.leg, family), *b"a good check");
            self.wire.send(&self.frame(&way, &check).bytes());
            let is_answer = |sent: &Datagram| sent.destination == way.source && sent.payload.starts_with(&[1, 1]);
            let answer = self.wire.find(PATIENCE, |frame| Datagram::of(frame).filter(is_answer));
            assert!(answer.is_some(), "{way:?} is not answered");
        }
    }

    /// A check of a way's leg. What has no credentials is checked with others.
    fn check(&self, way: &Way, nominates: bool, id: [u8; 12]) -> Vec<u8> {
        let leg = &self.shown[way.session][LEGS[way.leg]];
        let [ufrag, pwd] = ["ufrag", "pwd"].map(|name| leg[name].as_str().unwrap_or("nobody's credentials"));
        check(ufrag, &LongTermKey::from_bytes(pwd.as_bytes()), nominates, id)
    }

    /// Where a leg is, as others know it.
    fn known(&self, session: usize, leg: usize, family: Family) -> SocketAddr {
        let candidates = self.shown[session][LEGS[leg]]["candidates"].as_array().expect("a list");
        let mut addresses = candidates.iter().filter_map(|candidate| candidate["address"].as_str()?.parse().ok());
        let is_of = |address: &SocketAddr| address.is_ipv4() == (family == Family::V4);
        addresses.find(is_of).expect("the relay has an address of each IP version")
    }

    /// The frame in which a way's datagram comes to the relay.
    fn frame(&self, way: &Way, payload: &[u8]) -> Frame {
        let family = if way.source.is_ipv4() { Family::V4 } else { Family::V6 };
        let inside = |port| SocketAddr::new(Lab::relay_ip(family), port);
        let mut frame = if way.by_channel {
            Frame::new(way.source, inside(PORT), channel_data(CHANNEL, payload))
        } else {
            Frame::new(way.source, inside(self.known(way.session, way.leg, family).port()), payload)
        };
        frame.link = (RELAY_MAC, ROUTER_MAC);
        frame
    }

    fn frame_of(&self, input: &Input) -> Vec<u8> {
        let (mut way, right) = (*input.way.get(&ways()), input.way.get(&ways()).session);
        if let Some([source, leg]) = input.stray {
            let sources: Vec<_> = ways().into_iter().filter(|way| !way.by_channel).map(|way| way.source).collect();
            let source =
                *source.get(&[sources.clone(), sources.iter().map(|one| above(*one, 2 * STEP)).collect()].concat());
            let (session, leg) = *leg.get(&legs().collect::<Vec<_>>());
            way = Way { source, session, leg, by_channel: false };
        }
        let payload = match &input.content {
            Content::Media(data) | Content::Stun(data) => data.clone(),
            // Whoever knows the password may prove itself; strangers are to stay strangers.
            Content::Check(id) if input.stray.is_none() => self.check(&way, false, *id),
            Content::Check(id) => self.check(&Way { session: (right + 1) % SESSIONS.len(), ..way }, false, *id),
        };
        let mut frame = self.frame(&way, &payload);
        input.header.put_into(&mut frame);
        frame.bytes()
    }

    /// What comes out of the relay of what comes in.
    fn outputs(&self, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for input in inputs {
            self.wire.send(input);
        }
        let mut outputs: Vec<_> = self.wire.drain(QUIET).iter().filter_map(|frame| without_choices(frame)).collect();
        outputs.sort_unstable();
        outputs
    }

    /// What each session has counted, from leg A and from leg B.
    fn counts(&self) -> Vec<[Value; 2]> {
        let count = |session: &Session<'_, '_>| {
            let shown = session.show();
            let component = components(&shown).next().expect("one stream of one component");
            ["a_to_b", "b_to_a"].map(|way| component[way].clone())
        };
        self.sessions.iter().map(count).collect()
    }
}

fn legs() -> impl Iterator<Item = (usize, usize)> {
    (0..SESSIONS.len()).flat_map(|session| [(session, 0), (session, 1)])
}

/// A frame without what each relay has chosen for itself; none if it is no UDP.
fn without_choices(frame: &[u8]) -> Option<Vec<u8>> {
    let payload = Datagram::of(frame)?.payload;
    let mut frame = comparable(frame, false);
    let udp = at::udp(&frame);
    frame[udp..udp + 2].fill(0);
    frame[udp + 6..udp + 8].fill(0);
    if payload.starts_with(&[1]) && payload.len() > 52 {
        // An answer to a check: MESSAGE-INTEGRITY and FINGERPRINT are the last of it.
        let end = udp + 8 + payload.len();
        frame[end - 28..end - 8].fill(0);
        frame[end - 4..end].fill(0);
    }
    Some(frame)
}

#[test]
fn both_paths_send_the_same_media() {
    compare(&[]);
}

#[test]
fn behind_a_nat_both_paths_send_the_same_media() {
    compare(&NAT);
}

fn compare(arguments: &[&str]) {
    let (cases, mut runner) = cases(CASES);
    let labs = [Lab::routed(), Lab::routed()];
    with_sides(&labs, arguments, |sides| {
        let (mut done, mut came_out) = (0, 0);
        while done < cases {
            let inputs: Vec<_> = (0..BATCH).map(|_| draw(&mut runner, &input())).collect();
            let outputs = sides.each_ref().map(|side| {
                // Nobody's consent shall end meanwhile, however slow the host is.
                side.check_legs();
                side.outputs(&inputs.iter().map(|input| side.frame_of(input)).collect::<Vec<_>>())
            });
            let [kernel, userspace] = &outputs;
            let only = |one: &[Vec<u8>], other: &[Vec<u8>]| {
                let missing = one.iter().filter(|frame| !other.contains(frame));
                missing.map(|frame| hex(frame)).collect::<String>()
            };
            assert_eq!(
                outputs[0],
                outputs[1],
                "{} and {} of {inputs:#?}\nonly with XDP:{}\nonly without:{}",
                kernel.len(),
                userspace.len(),
                only(kernel, userspace),
                only(userspace, kernel)
            );
            (done, came_out) = (done + BATCH, came_out + kernel.len() as u64);
        }
        let counts = sides.each_ref().map(Side::counts);
        assert_eq!(counts[0], counts[1], "each leg has carried the same");
        assert!(came_out >= done / 3, "hardly anything came out: {came_out} of {done}");
        let in_kernel = sides.each_ref().map(|side| media(side, "kernel"));
        println!("{came_out} of {done} datagrams came out, {} of them of the kernel", in_kernel[0]);
        assert!(in_kernel[0] >= came_out / 2 && in_kernel[1] == 0, "{in_kernel:?} of {came_out} in the kernel");
    });
}

/// How many datagrams of sessions a relay has counted on a path.
fn media(side: &Side<'_>, path: &str) -> u64 {
    side.relay.relay.metrics().sum("hairpin_media_packets_total", &[("path", path)])
}

/// Two relays with all sessions, in the kernel where they can be.
fn with_sides(labs: &[Lab; 2], arguments: &[&str], test: impl FnOnce(&[Side<'_>; 2])) {
    let common = ["--shards", "1", "--source-packet-rate", "off"];
    let start = |lab, xdp| IceRelay::start(lab, &[&["--xdp", xdp][..], &common, arguments].concat());
    let relays = [start(&labs[0].relay, "native"), start(&labs[1].relay, "off")];
    let sides = [0, 1].map(|side| Side::new(&labs[side], &relays[side]));
    for (session, remotes) in sides[0].sessions.iter().zip(SESSIONS) {
        if !remotes.contains(&Nobody) {
            session.wait_for_kernel();
        }
    }
    test(&sides);
    drop(sides);
    for relay in relays {
        relay.relay.stop();
    }
}

#[test]
fn what_passes_two_of_the_relay_s_own_addresses_is_counted_as_said() {
    const COUNT: u64 = 10;
    let labs = [Lab::routed(), Lab::routed()];
    with_sides(&labs, &[], |sides| {
        // From session to session, and between a client and a leg: of media in the kernel and in userspace, and for clients.
        let first_leg = |way: &Way, session| (way.session, way.leg, way.by_channel) == (session, 0, false);
        let find = |is: &dyn Fn(&Way) -> bool| ways().into_iter().find(|way| is(way)).expect("there is one");
        let cases = [
            (find(&|way| first_leg(way, TO_SESSION)), [1, 2], 0),
            (find(&|way| first_leg(way, WITH_CLIENT)), [1, 1], 1),
            (find(&|way| way.by_channel), [1, 1], 1),
        ];
        for (way, of_media, of_clients) in cases {
            for ((side, path), times) in sides.iter().zip(["kernel", "userspace"]).zip(of_media) {
                let (metrics, counts) = (|| side.relay.relay.metrics(), || side.counts());
                let (before, counted) = (metrics(), counts());
                let frame = side.frame(&way, &[0x80; 100]).bytes();
                let outputs = side.outputs(&vec![frame; COUNT as usize]);
                assert_eq!(outputs.len() as u64, COUNT, "{path} {way:?}");
                let after = metrics();
                let sum = |name| {
                    let on_all = [&before, &after].map(|metrics| metrics.sum(name, &[]));
                    let here = [&before, &after].map(|metrics| metrics.sum(name, &[("path", path)]));
                    assert_eq!(on_all[1] - on_all[0], here[1] - here[0], "{way:?}: all of it by {path}");
                    here[1] - here[0]
                };
                assert_eq!(sum("hairpin_media_packets_total"), times * COUNT, "{path} {way:?}");
                assert_eq!(sum("hairpin_relayed_packets_total"), of_clients * COUNT, "{path} {way:?}");
                let sessions = counts().into_iter().zip(counted).filter(|(after, before)| after != before);
                let packets = |count: &Value| count["packets"].as_u64().expect("a count");
                let more: u64 = sessions
                    .flat_map(|(after, before)| [0, 1].map(|leg| packets(&after[leg]) - packets(&before[leg])))
                    .sum();
                assert_eq!(more, (2 - of_clients) * COUNT, "{path} {way:?}: each session has its own");
            }
        }
    });
}
