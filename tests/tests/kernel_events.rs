//! What ends or moves while data flows: permissions, channels and allocations, routes and neighbours.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_common::verdict::Verdict;
use hairpin_common::wire::{ChannelDataHeader, Datagram as Kind};
use hairpin_proto::stun::Message;
use hairpin_proto::stun::attribute::{Data, XorPeerAddress};
use hairpin_proto::turn::{Discard, Limits};
use hairpin_tests::lab::call::{CHANNEL, receive};
use hairpin_tests::lab::framing::{allocate, peer_socket};
use hairpin_tests::lab::in_process::{Counts, InProcess};
use hairpin_tests::lab::load::{Load, Outcome};
use hairpin_tests::lab::topology::{RELAY_LINK, ROUTER_LINK, SECOND_RELAY_LINK, SECOND_ROUTER_LINK};
use hairpin_tests::lab::turn::{Client, channel_data};
use hairpin_tests::lab::wire::Wire;
use hairpin_tests::lab::{Family, Framing, Lab, Relay};

/// How long what ends in a test lasts.
const LIFETIME: Duration = Duration::from_millis(2500);
/// How long it is watched after that.
const AFTERWARDS: Duration = Duration::from_millis(2000);
/// What else lasts longer than the test.
const LONG: Duration = Duration::from_secs(600);
/// Between two datagrams of one sender.
const INTERVAL: Duration = Duration::from_millis(2);
/// More than a tick of the records' clock, by which the kernel is early, and a thread that waits for a processor.
const NEAR: Duration = Duration::from_millis(200);

/// A client, its peer, and when what they have ends; times are those since the test began.
struct Pair {
    name: String,
    framing: Framing,
    client: Client,
    peer: UdpSocket,
    address: SocketAddr,
    relayed: SocketAddr,
    /// Until this everything is in force.
    earliest: Duration,
    /// From this on nothing is.
    latest: Duration,
}

/// What was sent in one direction and what came of it, by the time of sending.
#[derive(Default)]
struct Stream {
    sent: Vec<Duration>,
    arrived: Vec<(Duration, Framing)>,
}

/// A pair after the test.
struct Ran<'p> {
    pair: &'p Pair,
    to_peer: Stream,
    to_client: Stream,
}

impl Pair {
    /// One pair for each IP version and each framing.
    fn all(lab: &Lab, start: Instant) -> Vec<Self> {
        let kinds = Family::ALL.into_iter().flat_map(|family| Framing::BOTH.map(|framing| (family, framing)));
        let open = |(family, framing): (Family, Framing)| {
            let earliest = start.elapsed() + LIFETIME.saturating_sub(NEAR);
            let (mut client, relayed) = allocate(lab, family, family);
            let (peer, address) = peer_socket(&lab.peers[0], Lab::peer_ip(family, 0));
            peer.connect(relayed).expect("the lab has a route to the relay");
            framing.open(&mut client, address);
            let latest = start.elapsed() + LIFETIME;
            let name = format!("{family:?} {framing:?}");
            Self { name, framing, client, peer, address, relayed, earliest, latest }
        };
        kinds.map(open).collect()
    }

    /// Sends the time, in both directions, and returns it.
    fn send(&self, start: Instant) -> Duration {
        let now = start.elapsed();
        let stamp = (now.as_nanos() as u64).to_be_bytes();
        self.client.send(&match self.framing {
            Framing::Channel => channel_data(CHANNEL, &stamp),
            Framing::Indication => Client::indication(self.address, &stamp),
        });
        // Where the port is closed by now, this says so.
        let _ = self.peer.send(&stamp);
        now
    }

    /// What the client gets next, and how it came.
    fn receive(&self) -> Option<(Duration, Framing)> {
        let message = self.client.receive(Duration::from_millis(50))?;
        if let Some((header, data)) = message.split_first_chunk()
            && Kind::of(header[0]) == Kind::ChannelData
        {
            assert_eq!(ChannelDataHeader::parse(*header).channel, CHANNEL);
            return Some((time(data), Framing::Channel));
        }
        let message = Message::parse(&message).expect("what is not ChannelData is STUN");
        let Data(data) = message.attribute().ok().flatten().expect("a Data indication has data");
        let peer = message.attribute().ok().flatten().map(|XorPeerAddress(peer)| peer);
        assert_eq!(peer, Some(self.address));
        Some((time(data), Framing::Indication))
    }

    /// Sends and receives until `end`, in three threads.
    fn run(&self, start: Instant, end: Duration) -> Ran<'_> {
        let listens = || start.elapsed() < end + Duration::from_millis(300);
        thread::scope(|scope| {
            let at_peer = scope.spawn(|| {
                let mut arrived = Vec::new();
                while listens() {
                    arrived
                        .extend(receive(&self.peer, Duration::from_millis(50)).map(|data| (time(&data), self.framing)));
                }
                arrived
            });
            let at_client = scope.spawn(|| {
                let mut arrived = Vec::new();
                while listens() {
                    arrived.extend(self.receive());
                }
                arrived
            });
            let mut sent = Vec::new();
            while start.elapsed() < end {
                sent.push(self.send(start));
                thread::sleep(INTERVAL);
            }
            let stream = |arrived: thread::ScopedJoinHandle<'_, _>| Stream {
                sent: sent.clone(),
                arrived: arrived.join().expect("it does not panic"),
            };
            Ran { pair: self, to_peer: stream(at_peer), to_client: stream(at_client) }
        })
    }
}

impl Stream {
    /// Checks that everything arrived that was sent before a time.
    fn expect_all_before(&self, end: Duration, story: &str) {
        let missing: Vec<_> = self.sent.iter().filter(|sent| **sent < end && !self.has(**sent)).collect();
        assert!(missing.is_empty(), "{story}: of {} these were lost before {end:?}: {missing:?}", self.sent.len());
        assert!(self.sent.iter().filter(|sent| **sent < end).count() > 100, "{story}: hardly any traffic");
    }

    /// Checks that nothing arrived that was sent after a time.
    fn expect_none_after(&self, end: Duration, story: &str) {
        let late: Vec<_> = self.arrived.iter().filter(|(sent, _)| *sent > end).collect();
        assert!(late.is_empty(), "{story}: sent after {end:?} and arrived: {late:?}");
        assert!(self.sent.iter().filter(|sent| **sent > end).count() > 100, "{story}: hardly any traffic");
    }

    fn has(&self, time: Duration) -> bool {
        self.arrived.iter().any(|(sent, _)| *sent == time)
    }
}

/// What was counted while everything was in force, and after all had ended.
struct Watched<'p> {
    outcomes: Vec<Ran<'p>>,
    /// When the second half began.
    ended: Duration,
    /// Before and after it.
    then: [Counts; 2],
}

/// Lets data flow until well after the end of everything.
fn watch<'p>(relay: &InProcess, pairs: &'p [Pair], start: Instant) -> Watched<'p> {
    let latest = pairs.iter().map(|pair| pair.latest).max().expect("there are pairs");
    let earliest = pairs.iter().map(|pair| pair.earliest).min().expect("there are pairs");
    let until = |time: Duration| thread::sleep(time.saturating_sub(start.elapsed()));
    thread::scope(|scope| {
        let running: Vec<_> =
            pairs.iter().map(|pair| scope.spawn(move || pair.run(start, latest + AFTERWARDS))).collect();
        until(earliest.saturating_sub(Duration::from_millis(1200)));
        let before = relay.counts();
        until(earliest.saturating_sub(NEAR));
        let after = relay.counts();
        assert!(after.in_kernel() - before.in_kernel() > 500, "{before:?} {after:?}");
        assert_eq!(after.in_userspace(), before.in_userspace(), "all of it is in the kernel: {before:?} {after:?}");
        until(latest + NEAR);
        let ended = start.elapsed();
        let first = relay.counts();
        until((latest + AFTERWARDS).saturating_sub(NEAR));
        let then = [first, relay.counts()];
        // The program looks at the time by itself, and does not wait for a thread to remove what is over.
        assert!(then[1].of(Verdict::Expired) > 0, "{then:?}");
        let outcomes = running.into_iter().map(|pair| pair.join().expect("nothing panics")).collect();
        Watched { outcomes, ended, then }
    })
}

impl Watched<'_> {
    /// By how much a count grew after the end.
    fn grew(&self, count: impl Fn(&Counts) -> u64) -> u64 {
        count(&self.then[1]) - count(&self.then[0])
    }

    /// Datagrams that were sent in one direction after the end, at least.
    fn sent(&self) -> u64 {
        let last = (self.ended + AFTERWARDS).saturating_sub(4 * NEAR);
        let of_one = |outcome: &Ran<'_>| {
            outcome.to_peer.sent.iter().filter(|sent| (self.ended + NEAR..last).contains(sent)).count() as u64
        };
        self.outcomes.iter().map(of_one).sum()
    }
}

#[test]
fn a_permission_that_ends_under_traffic_ends_it_on_both_paths() {
    let lab = Lab::routed();
    let limits = Limits { permission_lifetime: LIFETIME, channel_lifetime: LONG, ..Limits::default() };
    let relay = InProcess::start(&lab.relay, limits);
    let start = Instant::now();
    let pairs = Pair::all(&lab, start);
    let watched = watch(&relay, &pairs, start);
    for Ran { pair, to_peer, to_client } in &watched.outcomes {
        for (stream, way) in [(to_peer, "to peer"), (to_client, "to client")] {
            let story = format!("{} {way}", pair.name);
            stream.expect_all_before(pair.earliest, &story);
            stream.expect_none_after(pair.latest, &story);
        }
    }
    assert_eq!((watched.grew(Counts::in_kernel), watched.grew(Counts::in_userspace)), (0, 0));
    let sent = watched.sent();
    // A peer without a permission ends in the driver. Only the daemon tells a client from one that it does not know.
    let no_permission = watched.grew(|counts| counts.of(Verdict::NoPermission));
    assert!(no_permission >= sent, "{no_permission} of {sent} from peers");
    let left = watched.grew(|counts| counts.of(Verdict::Expired) + counts.of(Verdict::NoFlow));
    assert!(left >= sent, "{left} of {sent} from clients");
    let discarded = watched.grew(|counts| counts.discarded(Discard::NoPermission));
    assert!(discarded >= sent, "{discarded} of {sent} from clients, in userspace");
}

#[test]
fn a_channel_that_ends_under_traffic_leaves_the_permission() {
    let lab = Lab::routed();
    let limits = Limits { permission_lifetime: LONG, channel_lifetime: LIFETIME, ..Limits::default() };
    let relay = InProcess::start(&lab.relay, limits);
    let start = Instant::now();
    let pairs = Pair::all(&lab, start);
    let watched = watch(&relay, &pairs, start);
    for Ran { pair, to_peer, to_client } in &watched.outcomes {
        let story = &pair.name;
        // What comes from the peer changes its wrapping, and nothing of it is lost.
        to_client.expect_all_before((watched.ended + AFTERWARDS).saturating_sub(3 * NEAR), story);
        for (sent, framing) in &to_client.arrived {
            if pair.framing == Framing::Indication || *sent > pair.latest {
                assert_eq!(*framing, Framing::Indication, "{story} at {sent:?}");
            } else if *sent < pair.earliest {
                assert_eq!(*framing, Framing::Channel, "{story} at {sent:?}");
            }
        }
        to_peer.expect_all_before(pair.earliest, story);
        if pair.framing == Framing::Channel {
            to_peer.expect_none_after(pair.latest, story);
        }
    }
    let sent = watched.sent();
    assert_eq!(watched.grew(Counts::in_userspace), 0);
    let in_kernel = watched.grew(Counts::in_kernel);
    assert!(in_kernel >= sent + sent / 2, "{in_kernel}: {sent} to clients and half as many to peers");
    let no_channel = watched.grew(|counts| counts.discarded(Discard::NoChannel));
    assert!(no_channel >= sent / 2, "{no_channel} of {sent}");
    assert_eq!(watched.grew(|counts| counts.of(Verdict::NoPermission)), 0);
}

#[test]
fn an_allocation_that_ends_under_traffic_takes_everything_along() {
    let lab = Lab::routed();
    let limits = Limits { default_lifetime: LIFETIME, max_lifetime: LIFETIME, ..Limits::default() };
    let relay = InProcess::start(&lab.relay, limits);
    let start = Instant::now();
    let pairs = Pair::all(&lab, start);
    let watched = watch(&relay, &pairs, start);
    for Ran { pair, to_peer, to_client } in &watched.outcomes {
        for (stream, way) in [(to_peer, "to peer"), (to_client, "to client")] {
            let story = format!("{} {way}", pair.name);
            stream.expect_all_before(pair.earliest, &story);
            stream.expect_none_after(pair.latest, &story);
        }
        assert_eq!(lab.relay.udp_sockets(pair.relayed.port()), 0, "{}: the port is free", pair.name);
    }
    assert_eq!((watched.grew(Counts::in_kernel), watched.grew(Counts::in_userspace)), (0, 0));
    let sent = watched.sent();
    // The relayed ports are like any other, and the clients like any stranger.
    let not_ours = watched.grew(|counts| counts.of(Verdict::NotOurs));
    assert!(not_ours >= sent, "{not_ours} of {sent} from peers");
    let discarded = watched.grew(|counts| counts.discarded(Discard::NoAllocation));
    assert!(discarded >= sent, "{discarded} of {sent} from clients");
    let [_, last] = &watched.then;
    assert_eq!((last.flows, last.userspace.allocations, last.userspace.relays), (0, 0, 0));
}

/// Checks that a load goes through the kernel alone by now, and returns how much there is of it in half a second.
fn expect_in_kernel(relay: &Relay<'_>) {
    let before = relay.metrics();
    thread::sleep(Duration::from_millis(500));
    let after = relay.metrics();
    let kernel = after.relayed("kernel") - before.relayed("kernel");
    assert!(kernel > 500, "{kernel} datagrams in half a second through the kernel");
    assert_eq!(after.relayed("userspace"), before.relayed("userspace"), "none through userspace");
}

/// Checks that a load of 2000 datagrams a second lost no more than so many of them.
fn expect_few_lost(outcome: &Outcome, most: u64) {
    let (sent, lost) = (outcome.count("packets_sent"), outcome.count("packets_lost"));
    println!("{lost} of {sent} lost");
    assert!(sent > 3000, "{}", outcome.report);
    assert!(lost <= most, "more than what was under way: {}", outcome.report);
}

#[test]
fn a_client_whose_route_moves_under_traffic_keeps_its_calls() {
    let lab = Lab::routed();
    lab.add_link();
    let relay =
        Relay::start(&lab.relay, &["--xdp", "native", "--interface", RELAY_LINK, "--interface", SECOND_RELAY_LINK]);
    let wire = Wire::open(&lab.router, SECOND_ROUTER_LINK);
    let load = Load { rate: 2000, seconds: 6, payload: 200, allocations: 4 };
    let lab = &lab;
    let outcome = thread::scope(|scope| {
        let load = scope.spawn(|| load.run(lab, Family::V6));
        thread::sleep(Duration::from_secs(2));
        for (gateway, link) in [("1", SECOND_RELAY_LINK), ("0", RELAY_LINK), ("1", SECOND_RELAY_LINK)] {
            lab.relay.ip(&format!("route replace 2a0e:11:1::/48 via 2a0e:11:3:{gateway}::1 dev {link}"));
            thread::sleep(Duration::from_millis(500));
        }
        wire.drain(Duration::ZERO);
        expect_in_kernel(&relay);
        let frames = wire.drain(Duration::ZERO).len();
        assert!(frames > 250, "{frames} frames by the second interface in half a second");
        load.join().expect("the generator does not fail")
    });
    expect_few_lost(&outcome, 3 * 4);
    relay.stop();
}

#[test]
fn a_router_that_is_replaced_under_traffic_is_followed() {
    let lab = Lab::routed();
    for setting in ["net.ipv4.conf.relay0.arp_notify=1", "net.ipv6.conf.relay0.ndisc_notify=1"] {
        hairpin_tests::lab::process::run(lab.router.command("sysctl").args(["-qw", setting])).expect_success();
    }
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        let load = Load { rate: 2000, seconds: 5, payload: 200, allocations: 4 };
        let (lab, relay) = (&lab, &relay);
        let outcome = thread::scope(|scope| {
            let load = scope.spawn(|| load.run(lab, family));
            thread::sleep(Duration::from_secs(2));
            for end in ["aa", "bb", "01"] {
                // As a standby router does when it takes over, it says so.
                lab.router.ip(&format!("link set {ROUTER_LINK} address 02:00:00:03:00:{end}"));
                thread::sleep(Duration::from_millis(500));
            }
            expect_in_kernel(relay);
            load.join().expect("the generator does not fail")
        });
        // Who sends to the old address before it hears of the new one: 10 ms worth, there and back, for each change.
        expect_few_lost(&outcome, 3 * 40);
    }
    relay.stop();
}

/// The time of sending that a datagram carries.
fn time(data: &[u8]) -> Duration {
    Duration::from_nanos(u64::from_be_bytes(data[..8].try_into().expect("eight bytes")))
}
