//! What Prometheus sees, and the health checks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};
use hairpin_tests::lab::call::{CHANNEL, bind};
use hairpin_tests::lab::process::run;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::turn::{Client, Refused, channel_data};
use hairpin_tests::lab::{Call, Family, Lab, Metrics, Relay};

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    Call::in_kernel(&lab, &relay, Family::V4).exchange(b"something to count");
    let (_, text) = relay.get("/metrics").expect("the admin interface answers");
    let script = format!("promtool check metrics <<'END'\n{text}END\n");
    let finished = run(lab.relay.command("sh").args(["-c", &script]));
    assert_eq!(finished.code(), Some(0), "{finished}");
    assert_eq!(format!("{}{}", finished.stdout, finished.stderr), "", "{finished}");

    let metrics = Metrics::parse(&text);
    for path in ["kernel", "userspace"] {
        for direction in ["to_peer", "to_client"] {
            for family in ["hairpin_relayed_packets_total", "hairpin_relayed_bytes_total"] {
                let labels = [("path", path), ("direction", direction)];
                assert_eq!(metrics.of(family, &labels).count(), 1, "{family} {labels:?}");
            }
        }
    }
    relay.stop();
}

#[test]
fn health_and_readiness_are_answered_and_anything_else_is_not_found() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/", 200), ("/debug", 404)] {
        assert_eq!(relay.get(path).map(|(status, _)| status), Some(status), "{path}");
    }
    relay.stop();
}

#[test]
fn every_packet_and_request_is_counted_where_it_belongs() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native", "--max-allocations", "1000", "--shards", "2"]);
    let idle = relay.metrics();
    for gauge in ["hairpin_allocations", "hairpin_relay_ports_in_use", "hairpin_flows"] {
        assert_eq!(idle.sum(gauge, &[]), 0, "{gauge}");
    }
    assert!(idle.sum("hairpin_shards", &[]) > 0);
    assert_eq!(idle.sum("hairpin_shards_up", &[]), idle.sum("hairpin_shards", &[]), "all answer");
    assert_eq!(idle.sum("hairpin_relay_ports_capacity", &[]), 2 * 16_384, "two addresses with the dynamic ports");
    assert_eq!(idle.sum("hairpin_allocations_capacity", &[]), 1000);

    let call = Call::in_kernel(&lab, &relay, Family::V4);
    for _ in 0..10 {
        call.exchange(&[7; 100]);
    }
    let busy = relay.metrics();
    for direction in ["to_peer", "to_client"] {
        let labels = [("path", "kernel"), ("direction", direction)];
        assert_eq!(busy.sum("hairpin_relayed_packets_total", &labels), 10, "{direction}");
        assert_eq!(busy.sum("hairpin_relayed_bytes_total", &labels), 1000, "application data, {direction}");
    }
    assert_eq!(busy.sum("hairpin_allocations", &[]), 1);
    assert_eq!(busy.sum("hairpin_relay_ports_in_use", &[]), 1);
    let responses = |metrics: &Metrics, method, code| {
        metrics.sum("hairpin_stun_responses_total", &[("method", method), ("code", code)])
    };
    assert_eq!(busy.sum("hairpin_stun_requests_total", &[("method", "allocate")]), 2, "the first is challenged");
    assert_eq!((responses(&busy, "allocate", "401"), responses(&busy, "allocate", "200")), (1, 1));
    assert_eq!(responses(&busy, "channel_bind", "200"), 1);

    // What comes in fragments is relayed in userspace.
    call.client.send_on_channel(CHANNEL, &[7; 2000]);
    let labels = [("path", "userspace"), ("direction", "to_peer")];
    let after = relay.wait_for("it is counted", |metrics| metrics.sum("hairpin_relayed_packets_total", &labels) == 1);
    assert_eq!(after.sum("hairpin_relayed_bytes_total", &labels), 2000);
    relay.stop();
}

#[test]
fn nobody_outside_can_make_new_series() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    let client = |name: &str, password: &str| {
        let local = SocketAddr::new(Lab::client_ip(Family::V4, 0), 0);
        Client::new(&lab.clients[0], local, SocketAddr::new(Lab::relay_ip(Family::V4), PORT), name, password)
    };
    // One of everything that is usual.
    assert!(client(USER, PASSWORD).allocate().is_ok());
    assert!(matches!(client(USER, "wrong").allocate(), Err(Refused(401, _))));
    let stranger = client("nobody", "nothing");
    stranger.send(&[0x00]);
    let before = series(&relay.metrics());

    for number in 0..50_u16 {
        assert!(client(&format!("user{number}"), "x").allocate().is_err());
        let mut message = Vec::new();
        MessageBuilder::new(&mut message, Class::Request, Method::BINDING, TransactionId([number as u8; 12]))
            .finish(false);
        // Methods of every number, most of them unknown; the bits of the class stay those of a request.
        let method = 0x0010 + number;
        let kind = (method & 0x000f) | (method & 0x0070) << 1 | (method & 0x0f80) << 2;
        message[..2].copy_from_slice(&kind.to_be_bytes());
        stranger.send(&message);
        // Noise of every first byte.
        stranger.send(&[number as u8 * 5; 40]);
    }
    let metrics =
        relay.wait_for("the noise is counted", |metrics| metrics.sum("hairpin_stun_requests_total", &[]) >= 150);
    let after = series(&metrics);
    for (family, labels) in &after {
        let new = labels.len() - before.get(family).map_or(0, BTreeSet::len);
        assert!(new <= 4, "{new} new series of {family}: {labels:#?}");
    }
    let all: usize = after.values().map(BTreeSet::len).sum();
    // Half of them are zeros that wait for their first event: an alert on a rate would miss it otherwise.
    assert!(all < 300, "{all} series");
    relay.stop();
}

#[test]
fn userspace_counts_data_without_framing() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let call = Call::new(&lab, Family::V4);
    call.exchange(&[7; 51]);
    assert_eq!(relayed(&relay.metrics(), "to_peer"), (1, 51));
    assert_eq!(relayed(&relay.metrics(), "to_client"), (1, 51), "on a channel");
    let neighbour = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(Family::V4, 0), 0));
    neighbour.send_to(&[7; 49], call.relayed).expect("the lab has a route");
    assert!(call.client.receive(Duration::from_secs(2)).is_some());
    assert_eq!(relayed(&relay.metrics(), "to_client"), (2, 100), "in an indication");
    relay.stop();
}

#[test]
fn what_cannot_be_sent_is_not_relayed() {
    let lab = Lab::routed();
    lab.relay.ip("route add prohibit 11.2.9.9/32");
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let mut call = Call::new(&lab, Family::V4);
    let unreachable = SocketAddr::from(([11, 2, 9, 9], 9));
    call.client.permit(unreachable.ip()).expect("a peer like any other");
    call.client.send_indication(unreachable, &[7; 50]);
    let metrics = relay.wait_for("the failure is counted", |metrics| discarded(metrics, "send_failed") == 1);
    assert_eq!(relayed(&metrics, "to_peer"), (0, 0));
    relay.stop();
}

#[test]
fn discards_are_counted_by_reason() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let call = Call::new(&lab, Family::V4);
    let thief = bind(&lab.clients[0], SocketAddr::new(Lab::client_ip(Family::V4, 0), 0));
    let server = SocketAddr::new(Lab::relay_ip(Family::V4), PORT);
    thief.send_to(&channel_data(CHANNEL, b"thief"), server).expect("the lab has a route");
    relay.wait_for("a client without an allocation", |metrics| discarded(metrics, "no_allocation") == 1);
    // The router takes one, and the relay would take the last.
    call.peer.set_ttl(2).expect("a valid TTL");
    call.peer.send(b"worn out").expect("the lab has a route");
    relay.wait_for("a packet at its end", |metrics| discarded(metrics, "hop_limit") == 1);
    // Router, relay and router again: one is left at the end.
    call.peer.set_ttl(4).expect("a valid TTL");
    assert!(call.to_client(b"just far enough").is_some());
    let metrics = relay.metrics();
    assert_eq!(metrics.sum("hairpin_dropped_packets_total", &[("path", "userspace")]), 2, "nothing else");
    assert_eq!(relayed(&metrics, "to_client"), (1, 15));
    relay.stop();
}

/// What userspace has relayed in a direction: packets and bytes.
fn relayed(metrics: &Metrics, direction: &str) -> (u64, u64) {
    let labels = [("path", "userspace"), ("direction", direction)];
    let sum = |family| metrics.sum(family, &labels);
    (sum("hairpin_relayed_packets_total"), sum("hairpin_relayed_bytes_total"))
}

/// What userspace has discarded for a reason.
fn discarded(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hairpin_dropped_packets_total", &[("path", "userspace"), ("reason", reason)])
}

/// The label sets of each family.
fn series(metrics: &Metrics) -> BTreeMap<String, BTreeSet<BTreeMap<String, String>>> {
    let mut series: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for sample in &metrics.samples {
        series.entry(sample.name.clone()).or_default().insert(sample.labels.clone());
    }
    series
}
