//! Traces of requests, as a collector gets them that reads OpenTelemetry's own protobuf.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Namespace, Process, Relay, python};
use rustix::process::Signal;
use serde_json::{Value, json};

const COLLECTOR: &str = "127.0.0.1:4318";
const ENDPOINT: &str = "--otlp=http://127.0.0.1:4318";
const OPTIONS: [&str; 8] =
    ["--listen", "127.0.0.1:3478", "--xdp", "off", "--relay-address", "127.0.0.1", "--shards", "1"];
/// How long something may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_collector_gets_every_request_with_its_answer() {
    let Some(interpreter) = python::from_pypi() else { return };
    let host = Namespace::new("traces");
    let collector = Collector::start(&host, interpreter);
    let before = nanoseconds();
    let relay = start(&host, &[ENDPOINT, "--allow-peer", "198.51.100.0/24"]);
    let mut alice = client(&host, PASSWORD);
    alice.allocate().expect("an allocation");
    alice.permit("198.51.100.1".parse().expect("an address")).expect("a peer like any other");
    assert!(matches!(alice.permit("127.0.0.9".parse().expect("an address")), Err(Refused(403, _))));
    assert_eq!(alice.refresh(0), Ok(0));
    assert!(matches!(client(&host, "wrong").allocate(), Err(Refused(401, _))));
    relay.stop();

    let after = nanoseconds();
    let spans = collector.spans(7);
    let told: Vec<_> = spans.iter().map(|span| (name(span), code(span), cause(span), status(span))).collect();
    assert_eq!(
        told,
        [
            // Every client is challenged once.
            ("stun.allocate", Some(401), None, "STATUS_CODE_UNSET"),
            ("stun.allocate", None, None, "STATUS_CODE_UNSET"),
            ("stun.create_permission", None, None, "STATUS_CODE_UNSET"),
            ("stun.create_permission", Some(403), Some("forbidden_peer"), "STATUS_CODE_ERROR"),
            ("stun.refresh", None, None, "STATUS_CODE_UNSET"),
            ("stun.allocate", Some(401), None, "STATUS_CODE_UNSET"),
            ("stun.allocate", Some(401), Some("wrong_password"), "STATUS_CODE_ERROR"),
        ]
    );
    let allocated: Vec<_> = spans.iter().map(|span| span["attributes"]["hairpin.has_allocation"].clone()).collect();
    assert_eq!(allocated, [false, true, true, true, false, false, false]);
    let mut earlier = before;
    for span in &spans {
        let (start, end) = (number(&span["start"]), number(&span["end"]));
        assert!(start <= end && (before..=after).contains(&start) && end <= after, "{before} {after} {span}");
        assert!(earlier <= end, "they come in the order of the requests: {span}");
        earlier = end;
        assert_eq!((&span["kind"], &span["parent"]), (&json!("SPAN_KIND_SERVER"), &json!("")), "{span}");
        assert_eq!(span["scope"], "hairpin", "{span}");
        let attributes = &span["attributes"];
        for (attribute, value) in [("network.transport", "udp"), ("network.type", "ipv4"), ("hairpin.transport", "udp")]
        {
            assert_eq!(attributes[attribute], value, "{span}");
        }
        assert!(attributes["hairpin.shard"].is_u64(), "{span}");
        assert_eq!(span["name"], format!("stun.{}", attributes["stun.method"].as_str().expect("a name")), "{span}");
        let resource = &span["resource"];
        assert_eq!((&resource["service.name"], &resource["site"]), (&json!("hairpin"), &json!("north")), "{span}");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"), "{span}");
        assert!(resource["host.name"].as_str().is_some_and(|name| !name.is_empty()), "{span}");
        for secret in [USER, PASSWORD, "198.51.100"] {
            assert!(!span.to_string().contains(secret), "nobody is named: {span}");
        }
        assert!(attributes.get("client.address").is_none(), "{span}");
    }
    for id in ["trace", "span"] {
        let ids: BTreeSet<_> = spans.iter().filter_map(|span| span[id].as_str()).collect();
        assert_eq!(ids.len(), spans.len(), "each {id} has an id of its own");
    }
    assert_eq!(collector.spans(7).len(), 7, "and nothing else");
}

#[test]
fn every_so_many_requests_are_traced_with_addresses_only_on_demand_and_counted() {
    let Some(interpreter) = python::from_pypi() else { return };
    let host = Namespace::new("traces");
    let collector = Collector::start(&host, interpreter);
    let relay = start(&host, &[ENDPOINT, "--otlp-sample", "3", "--log-client-addresses"]);
    let mut alice = client(&host, PASSWORD);
    // Seven responses, of which the first, the fourth and the seventh are traced.
    alice.allocate().expect("an allocation");
    for lifetime in [600, 700, 800, 900] {
        assert_eq!(alice.refresh(lifetime), Ok(lifetime));
    }
    assert_eq!(alice.refresh(0), Ok(0));
    let taken = [("result", "success")];
    let metrics =
        relay.wait_for("they are counted", |metrics| metrics.sum("hairpin_traces_exported_total", &taken) == 3);
    assert_eq!(metrics.sum("hairpin_traces_exported_total", &[]), 3, "none has failed");
    assert_eq!(metrics.sum("hairpin_traces_dropped_total", &[]), 0);
    let spans = collector.spans(3);
    assert_eq!(spans.iter().map(name).collect::<Vec<_>>(), ["stun.allocate", "stun.refresh", "stun.refresh"]);
    for span in &spans {
        assert_eq!(span["attributes"]["client.address"], "127.0.0.1", "{span}");
        assert_eq!(span["attributes"]["client.port"], alice.local().port(), "{span}");
    }
    relay.stop();
    assert_eq!(collector.spans(3).len(), 3, "and nothing else");
}

#[test]
fn a_relay_serves_without_its_collector_and_says_so_once() {
    let host = Namespace::new("traces");
    let mut relay = start(&host, &[ENDPOINT]);
    let failed = [("result", "failure")];
    for round in 1..=2 {
        client(&host, PASSWORD).allocate().expect("an allocation");
        relay.wait_for("it is counted", |metrics| metrics.sum("hairpin_traces_exported_total", &failed) == 2 * round);
    }
    relay.signal(Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while relay.process().is_running() {
        assert!(Instant::now() < end, "it does not end: {}", relay.process().stderr());
        thread::sleep(Duration::from_millis(20));
    }
    let log = relay.process().stderr();
    assert_eq!(log.matches("http://127.0.0.1:4318/v1/traces does not take them").count(), 1, "{log}");
}

#[test]
fn a_collector_that_never_answers_keeps_nobody() {
    let host = Namespace::new("traces");
    let silent = host.enter(|| TcpListener::bind(COLLECTOR)).expect("the port is free");
    let mut relay = start(&host, &[ENDPOINT]);
    client(&host, PASSWORD).allocate().expect("an allocation");
    relay.signal(Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while relay.process().is_running() {
        assert!(Instant::now() < end, "it does not end: {}", relay.process().stderr());
        thread::sleep(Duration::from_millis(20));
    }
    // Not because the attempt was over, which takes longer.
    let log = relay.process().stderr();
    assert!(log.contains("has not taken the last traces in time"), "{log}");
    drop(silent);
}

struct Collector(Process);

impl Collector {
    fn start(host: &Namespace, interpreter: &Path) -> Self {
        let (address, port) = COLLECTOR.split_once(':').expect("an address with a port");
        let collector = Self(python::start(host, interpreter, "otlp_collector.py", [address, port]));
        collector.lines(1);
        collector
    }

    /// What it has got, once that is so many spans.
    fn spans(&self, at_least: usize) -> Vec<Value> {
        self.lines(1 + at_least).split_off(1)
    }

    fn lines(&self, at_least: usize) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let lines: Vec<_> = self.0.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            if lines.len() >= at_least {
                return lines;
            }
            assert!(Instant::now() < end, "{at_least} are not there: {lines:#?}\n{}", self.0.stderr());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start<'n>(host: &'n Namespace, arguments: &[&str]) -> Relay<'n> {
    let mut command = host.command(hairpin_tests::lab::relay::binary());
    command.args(["serve", "--user", &format!("{USER}:{PASSWORD}")]).args(OPTIONS).args(arguments);
    Relay::start_with(host, command.env("OTEL_RESOURCE_ATTRIBUTES", "site=north"))
}

fn client(host: &Namespace, password: &str) -> Client {
    let [local, server] = [0, PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    Client::new(host, local, server, USER, password)
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_nanos()).expect("it is before 2554")
}

fn name(span: &Value) -> &str {
    span["name"].as_str().expect("a span has a name")
}

fn code(span: &Value) -> Option<u64> {
    span["attributes"]["stun.error_code"].as_u64()
}

fn cause(span: &Value) -> Option<&str> {
    span["attributes"]["hairpin.cause"].as_str()
}

fn status(span: &Value) -> &str {
    span["status"].as_str().expect("a span has a status")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}
