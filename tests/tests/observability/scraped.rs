//! A real Prometheus scrapes a relay under load: everything that we give to operators works with it.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::call::{bind, receive};
use hairpin_tests::lab::load::Load;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, every_transport};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Authority, Certificate, Family, Folder, Key, Lab, Prometheus, Relay, Transport};
use serde_json::Value;

use crate::dashboard::{Query, queries};
use crate::documents::{empty_store, read};

/// How many scrapes every rate is made of, at least.
const SCRAPES: f64 = 10.0;
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn rules_and_dashboard_have_data_and_no_alert_fires_while_all_is_well() {
    let lab = Lab::routed();
    let folder = Folder::new("scraped");
    let (relay, _certificate) = start(&lab, &folder);
    let prometheus = Prometheus::start(&lab.relay);
    thread::scope(|scope| {
        let load = Load { rate: 2000, seconds: 25, payload: 160, allocations: 20 };
        let lab = &lab;
        let load = scope.spawn(move || load.run(lab, Family::V4));
        let _clients = come(lab);
        let end = Instant::now() + PATIENCE;
        while number(&prometheus, "count_over_time(up{job=\"hairpin\"}[5m])") < SCRAPES {
            assert!(Instant::now() < end, "Prometheus does not scrape: {}", prometheus.ask("/api/v1/targets"));
            pass_by(lab);
            thread::sleep(Duration::from_millis(500));
        }

        rules_are_well(&prometheus);
        for record in read("deploy/prometheus/hairpin.recording.yml").lines() {
            if let Some(record) = record.trim().strip_prefix("- record: ") {
                assert!(!prometheus.query(record).is_empty(), "{record} has no data");
            }
        }
        for Query { panel, expression } in queries() {
            let samples = prometheus.query(&expression);
            assert!(!samples.is_empty(), "`{panel}` shows nothing: {expression}");
        }
        let rate = "sum(rate(hairpin_relayed_packets_total{path=\"kernel\"}[1m]))";
        assert!(number(&prometheus, rate) > 100.0, "the load is seen: {:?}", prometheus.query(rate));
        let firing = prometheus.query("ALERTS{alertstate=\"firing\"}");
        assert!(firing.is_empty(), "{firing:#?}");

        let outcome = load.join().expect("the load arrives");
        assert!(outcome.count("packets_received") > 0, "{}", outcome.report);
    });

    relay.stop();
    let end = Instant::now() + PATIENCE;
    let down = "ALERTS{alertname=\"HairpinDown\"}";
    while prometheus.query(down).is_empty() {
        assert!(Instant::now() < end, "nobody notices that the relay is gone: {}", prometheus.ask("/api/v1/alerts"));
        thread::sleep(Duration::from_millis(200));
    }
}

/// The relay with native XDP, every transport and a user store, and its certificate.
fn start<'l>(lab: &'l Lab, folder: &Folder) -> (Relay<'l>, Certificate) {
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &Family::ALL.map(Lab::relay_ip));
    let options = every_transport(&certificate);
    // All users are known without it, so nobody asks it.
    let store = &empty_store(folder);
    let fixed = ["--xdp", "native", "--user-store", store];
    let options: Vec<&str> = fixed.into_iter().chain(options.iter().map(String::as_str)).collect();
    (Relay::start(&lab.relay, &options), certificate)
}

/// Every rule was evaluated, and none of them in vain.
fn rules_are_well(prometheus: &Prometheus<'_>) {
    let answer = prometheus.ask("/api/v1/rules");
    let groups = answer["data"]["groups"].as_array().expect("there are rules").iter();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().expect("a group has rules")).collect();
    assert!(rules.len() >= 40, "{}", rules.len());
    for rule in rules {
        assert_eq!(
            (&rule["health"], rule["lastError"].as_str().unwrap_or_default()),
            (&Value::from("ok"), ""),
            "{rule}"
        );
    }
}

/// The value of an expression that gives one sample; 0 for none.
fn number(prometheus: &Prometheus<'_>, expression: &str) -> f64 {
    let samples = prometheus.query(expression);
    let value = samples.first().and_then(|sample| sample["value"][1].as_str()?.parse::<f64>().ok());
    value.unwrap_or_default()
}

/// Clients of every transport that stay.
fn come(lab: &Lab) -> [Client; 4] {
    Transport::ALL.map(|transport| {
        let mut client = client(lab, transport, PASSWORD);
        client.allocate().expect("the relay has room");
        client
    })
}

/// Somebody comes and goes, somebody has a wrong password, and somebody sends what is no message.
fn pass_by(lab: &Lab) {
    let mut visitor = client(lab, Transport::Tls, PASSWORD);
    visitor.allocate().expect("the relay has room");
    drop(visitor);
    assert!(client(lab, Transport::Udp, "wrong").allocate().is_err());
    let stranger = bind(&lab.clients[0], SocketAddr::new(Lab::client_ip(Family::V4, 0), 0));
    stranger.send_to(&[0xff; 20], SocketAddr::new(Lab::relay_ip(Family::V4), PORT)).expect("the lab has a route");
    assert_eq!(receive(&stranger, Duration::from_millis(10)), None);
}

fn client(lab: &Lab, transport: Transport, password: &str) -> Client {
    let local = SocketAddr::new(Lab::client_ip(Family::V4, 0), 0);
    let server = SocketAddr::new(Lab::relay_ip(Family::V4), transport.port());
    Client::at(transport, &lab.clients[0], local, server, USER, password)
}
