//! Limits of rate, on both paths: what is over a limit is dropped and counted by its reason, and nobody else notices.
//!
//! No test relies on how fast this host is. At most the burst and what the rate allows in the time that has passed may
//! get through, at least the burst does, and every datagram is accounted for.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::call::{CHANNEL, bind, receive};
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::turn::channel_data;
use hairpin_tests::lab::{Call, Family, Lab, Metrics, Relay};

/// Modes of XDP, each with the path that forwards then, and an IP version.
const PATHS: [(&str, &str, Family); 2] = [("native", "kernel", Family::V4), ("off", "userspace", Family::V6)];
/// The program's clock steps once a jiffy.
const CLOCK_STEP: Duration = Duration::from_millis(10);
/// After this time without a datagram there will be none.
const QUIET: Duration = Duration::from_millis(200);
/// Too short for anything that is not there yet.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How many datagrams are sent before those are taken that have come out: far fewer than fit into a socket's buffer.
const TRAIN: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToPeer,
    ToClient,
}

/// What a limit lets pass.
#[derive(Clone, Copy, Debug)]
struct Limit {
    /// In metrics.
    reason: &'static str,
    /// Units a second.
    rate: u64,
    /// How much of a second may come at once.
    burst: Duration,
    /// Units in a datagram.
    datagram: u64,
}

#[test]
fn an_allocation_keeps_to_its_bit_rate_in_each_direction() {
    let limit = Limit { reason: "allocation_bit_rate", rate: 100_000, burst: Duration::from_secs(1), datagram: 1000 };
    for (xdp, path, family) in PATHS {
        let lab = Lab::routed();
        let relay = Relay::start(&lab.relay, &["--xdp", xdp, "--allocation-bit-rate", "800k"]);
        let calls = start_calls(&lab, &relay, xdp, family, 2);
        for direction in [Direction::ToPeer, Direction::ToClient] {
            limit.expect_data(&relay, path, &[(&calls[0], direction)], 500);
        }
        // Another one has a limit of its own, and what is refused in one direction costs nothing in the other.
        calls[1].exchange(&[7; 1000]);
        relay.stop();
    }
}

#[test]
fn an_allocation_keeps_to_its_packet_rate_in_each_direction() {
    let limit = Limit { reason: "allocation_packet_rate", rate: 100, burst: Duration::from_secs(1), datagram: 1 };
    for (xdp, path, family) in PATHS {
        let lab = Lab::routed();
        let relay = Relay::start(&lab.relay, &["--xdp", xdp, "--allocation-packet-rate", "100"]);
        let calls = start_calls(&lab, &relay, xdp, family, 2);
        for direction in [Direction::ToPeer, Direction::ToClient] {
            limit.expect_data(&relay, path, &[(&calls[0], direction)], 500);
        }
        calls[1].exchange(b"a call of its own");
        relay.stop();
    }
}

#[test]
fn all_allocations_share_the_bit_rate_of_the_relay_in_both_directions() {
    let limit = Limit { reason: "relay_bit_rate", rate: 200_000, burst: Duration::from_millis(100), datagram: 1000 };
    for (xdp, path, family) in PATHS {
        let lab = Lab::routed();
        let relay = Relay::start(&lab.relay, &["--xdp", xdp, "--relay-bit-rate", "1600k"]);
        let calls = start_calls(&lab, &relay, xdp, family, 2);
        let ways = [(&calls[0], Direction::ToPeer), (&calls[1], Direction::ToClient)];
        limit.expect_data(&relay, path, &ways, 500);
        relay.stop();
    }
}

#[test]
fn a_source_that_floods_the_server_stops_neither_others_nor_its_own_calls() {
    let limit = Limit { reason: "source_rate", rate: 100, burst: Duration::from_secs(1), datagram: 1 };
    for (xdp, path, family) in PATHS {
        let lab = Lab::routed_with(2, 1);
        let relay = Relay::start(&lab.relay, &["--xdp", xdp, "--source-packet-rate", "100"]);
        let calls = start_calls(&lab, &relay, xdp, family, 1);
        let neighbour = stranger(&lab, family, 1);
        limit.expect_flood(&lab, &relay, path, family, &[noise(), vec![binding_request()]].concat(), || {
            calls[0].exchange(b"a call goes on");
            assert!(is_answered(&neighbour), "{path}: a neighbour's request is answered");
            1
        });
        relay.stop();
    }
}

#[test]
fn a_call_that_finds_no_room_in_the_kernel_is_not_a_strangers() {
    let lab = Lab::routed_with(6, 6);
    let few = ["--xdp", "native", "--kernel-records", "16", "--source-packet-rate", "20"];
    let mut relay = Relay::start(&lab.relay, &few);
    // The first take all the room there is, with and without that of their channels.
    let calls: Vec<_> = (0..6).map(|index| Call::between(&lab, Family::V4, index, index)).collect();
    for call in &calls {
        for _ in 0..100 {
            call.exchange(b"far more than twenty a second");
        }
    }
    let metrics = relay.metrics();
    assert!(metrics.sum("hairpin_flow_insert_failures_total", &[]) > 0, "{metrics:#?}");
    assert!(metrics.relayed("kernel") > 0 && metrics.relayed("userspace") > 0, "{metrics:#?}");
    assert_eq!(metrics.dropped("kernel", "source_rate"), 0);
    assert!(relay.process().stderr().contains("the flow map is full"), "it says why");
}

#[test]
fn the_daemon_looks_at_no_more_than_it_is_told_to_whoever_sends_it() {
    let limit = Limit { reason: "control_rate", rate: 100, burst: Duration::from_secs(1), datagram: 1 };
    for (xdp, path, family) in PATHS {
        let lab = Lab::routed_with(2, 1);
        let options = ["--xdp", xdp, "--control-packet-rate", "100", "--source-packet-rate", "off"];
        let relay = Relay::start(&lab.relay, &options);
        let calls = start_calls(&lab, &relay, xdp, family, 1);
        let neighbour = stranger(&lab, family, 1);
        limit.expect_flood(&lab, &relay, path, family, &noise(), || {
            calls[0].exchange(b"a call goes on");
            // What the program answers needs no daemon.
            if path == "kernel" {
                assert!(is_answered(&neighbour), "a Binding request is answered all the same");
                return 1;
            }
            0
        });
        relay.stop();
    }
}

#[test]
fn fragments_are_no_way_around_the_limit_of_a_source() {
    // The program leaves them to the kernel, so it is the daemon that has to count them.
    let limit = Limit { reason: "source_rate", rate: 100, burst: Duration::from_secs(1), datagram: 1 };
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native", "--source-packet-rate", "100"]);
    let calls = start_calls(&lab, &relay, "native", Family::V4, 1);
    limit.expect_flood(&lab, &relay, "userspace", Family::V4, &vec![vec![7; 2000]; 5], || {
        calls[0].exchange(b"a call goes on");
        0
    });
    relay.stop();
}

#[test]
fn a_source_may_send_a_thousand_datagrams_a_second_unless_told_otherwise() {
    let limit = Limit { reason: "source_rate", rate: 1000, burst: Duration::from_secs(1), datagram: 1 };
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    limit.expect_flood(&lab, &relay, "kernel", Family::V4, &vec![noise(); 8].concat(), || 0);
    relay.stop();
}

impl Limit {
    /// How many datagrams there are in a time at this rate.
    fn in_time(&self, time: Duration) -> u64 {
        let units = u128::from(self.rate) * time.as_nanos() / Duration::from_secs(1).as_nanos();
        u64::try_from(units).expect("a time of the test's own") / self.datagram
    }

    /// Checks that the burst got through, and not more than the rate allows.
    fn expect_kept(&self, path: &str, passed: u64, sent: u64, elapsed: Duration) {
        let (least, most) = (self.in_time(self.burst), self.in_time(self.burst + elapsed + CLOCK_STEP) + 1);
        println!("{path}: {passed} of {sent} in {elapsed:?}, {least} to {most} may pass: {self:?}");
        assert!(most < sent, "{path}: no more are sent than may pass: this host is too slow for the test");
        assert!((least..=most).contains(&passed), "{path}: {passed} of {sent} passed, not {least} to {most}");
    }

    /// Sends so many datagrams on each of these ways, and checks what becomes of them.
    fn expect_data(&self, relay: &Relay<'_>, path: &str, ways: &[(&Call, Direction)], count: usize) {
        let data = vec![7; if self.datagram == 1 { 20 } else { self.datagram as usize }];
        let (before, start) = (relay.metrics(), Instant::now());
        let mut received = 0;
        for at in 1..=count {
            for (call, direction) in ways {
                match direction {
                    Direction::ToPeer => call.client.send_on_channel(CHANNEL, &data),
                    Direction::ToClient => drop(call.peer.send(&data).expect("the way to the relay is open")),
                }
            }
            if at % TRAIN == 0 {
                received += ways.iter().map(|way| take(way, AT_ONCE)).sum::<u64>();
            }
        }
        received += ways.iter().map(|way| take(way, QUIET)).sum::<u64>();
        let sent = (count * ways.len()) as u64;
        let passed = |after: &Metrics| after.relayed(path) - before.relayed(path);
        let refused = |after: &Metrics| dropped(after, path, self.reason) - dropped(&before, path, self.reason);
        let after =
            relay.wait_for("each datagram is relayed or refused", |after| passed(after) + refused(after) == sent);
        assert_eq!(passed(&after), received, "{path}: what is counted as relayed has arrived");
        self.expect_kept(path, received, sent, start.elapsed());
    }

    /// Floods the server with this noise from a source that has an allocation elsewhere, sees to others meanwhile, who
    /// say how many datagrams of theirs were looked at, and checks what becomes of the flood.
    fn expect_flood(
        &self,
        lab: &Lab,
        relay: &Relay<'_>,
        path: &str,
        family: Family,
        noise: &[Vec<u8>],
        mut others: impl FnMut() -> u64,
    ) {
        const ROUNDS: usize = 200;
        let stranger = stranger(lab, family, 0);
        stranger.set_nonblocking(true).expect("a socket");
        let (before, start) = (relay.metrics(), Instant::now());
        let mut welcome = 0;
        for round in 0..ROUNDS {
            for datagram in noise {
                stranger.send(datagram).expect("the way to the server is open");
            }
            if round % TRAIN == 0 {
                welcome += others();
            }
            while stranger.recv(&mut [0; 100]).is_ok() {}
            // No buffer of a socket shall overflow: then nobody would count what is lost.
            thread::sleep(AT_ONCE);
        }
        let sent = (ROUNDS * noise.len()) as u64;
        let passed = |after: &Metrics| looked_at(after) - looked_at(&before) - welcome;
        // What the program lets pass in the very moment, the daemon may find too much.
        let refused = |after: &Metrics| refused(after, self.reason) - refused(&before, self.reason);
        let account = |after: &Metrics| (passed(after), refused(after));
        let end = Instant::now() + Duration::from_secs(5);
        let mut after = relay.metrics();
        while Instant::now() < end && account(&after).0 + account(&after).1 != sent {
            after = relay.metrics();
        }
        let (passed, refused) = account(&after);
        assert_eq!(passed + refused, sent, "{path}: {passed} datagrams were looked at, {refused} refused");
        let here = dropped(&after, path, self.reason) - dropped(&before, path, self.reason);
        assert!(here * 10 >= refused * 9, "{path}: {here} of {refused} are refused there");
        // Whoever has a call from this address has asked for it before.
        self.expect_kept(path, passed + 10, sent, start.elapsed() + self.time_of(10));
    }

    fn time_of(&self, datagrams: u32) -> Duration {
        Duration::from_secs(1) * datagrams / u32::try_from(self.rate).expect("a rate of the test's own")
    }
}

/// Calls of the first client, all in the kernel where they can be.
fn start_calls(lab: &Lab, relay: &Relay<'_>, xdp: &str, family: Family, count: u64) -> Vec<Call> {
    let calls = (0..count).map(|_| Call::new(lab, family)).collect();
    if xdp == "native" {
        let flows = count * Call::FLOWS;
        relay.wait_for("the calls are in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == flows);
    }
    calls
}

/// A socket of a client that has no allocation.
fn stranger(lab: &Lab, family: Family, client: u8) -> UdpSocket {
    let socket = bind(&lab.clients[usize::from(client)], SocketAddr::new(Lab::client_ip(family, client), 0));
    socket.connect(SocketAddr::new(Lab::relay_ip(family), PORT)).expect("the lab has a route to the relay");
    socket
}

/// What nobody vouches for: garbage, data without an allocation, a request without credentials.
fn noise() -> Vec<Vec<u8>> {
    let mut allocate = Vec::new();
    MessageBuilder::new(&mut allocate, Class::Request, Method::ALLOCATE, TransactionId([1; 12])).finish(false);
    vec![vec![0xff; 40], channel_data(CHANNEL, b"whose?"), allocate]
}

fn binding_request() -> Vec<u8> {
    let mut request = Vec::new();
    MessageBuilder::new(&mut request, Class::Request, Method::BINDING, TransactionId([2; 12])).finish(true);
    request
}

/// Whether a Binding request is answered, the first time it is sent.
fn is_answered(socket: &UdpSocket) -> bool {
    socket.send(&binding_request()).expect("the way to the server is open");
    receive(socket, Duration::from_secs(2)).is_some()
}

/// Takes what has come out of a way; it ends when nothing has come for this time.
fn take((call, direction): &(&Call, Direction), quiet: Duration) -> u64 {
    let next = || match direction {
        Direction::ToPeer => receive(&call.peer, quiet).is_some(),
        Direction::ToClient => call.client.receive_on_channel(quiet).is_some(),
    };
    std::iter::repeat_with(next).take_while(|came| *came).count() as u64
}

/// Datagrams without an allocation that were looked at: answered, or found to be nothing.
fn looked_at(metrics: &Metrics) -> u64 {
    let nothing = ["not_turn", "no_allocation"].map(|reason| dropped(metrics, "userspace", reason));
    let asked = ["binding", "allocate"].map(|method| metrics.sum("hairpin_stun_requests_total", &[("method", method)]));
    nothing.into_iter().chain(asked).sum()
}

/// Datagrams that a limit has refused on either path.
fn refused(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_dropped_packets_total", &[("reason", reason)])
}

fn dropped(metrics: &Metrics, path: &str, reason: &str) -> u64 {
    metrics.sum("hairpin_dropped_packets_total", &[("path", path), ("reason", reason)])
}
