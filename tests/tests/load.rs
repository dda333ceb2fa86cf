//! `hairpin load` through a real relay in the lab: methods and families, a relay that dies, a set-up that fails half-way.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::process::{Finished, PATIENCE, Process, run};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::{Family, Lab, Relay};
use rustix::process::Signal;
use serde_json::Value;

/// `hairpin load` on the first client of a lab.
fn load(lab: &Lab, server: Family, arguments: &str) -> Command {
    let mut command = lab.clients[0].command(binary());
    let server = SocketAddr::new(Lab::relay_ip(server), PORT).to_string();
    command.args(["load", "--json", "--server", &server, "--user", USER, "--password", PASSWORD]);
    command.args(arguments.split_whitespace());
    command
}

fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

#[test]
fn each_method_relays_between_any_two_families() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for (server, family) in [(Family::V4, "ipv4"), (Family::V4, "ipv6"), (Family::V6, "ipv4"), (Family::V6, "ipv6")] {
        for method in ["channel", "send"] {
            for mode in ["echo", "pair"] {
                let arguments = format!(
                    "--allocations 4 --rate 1000 --duration 300ms --payload 161 --transport udp \
                     --family {family} --method {method} --mode {mode}"
                );
                let finished = run(&mut load(&lab, server, &arguments));
                assert_eq!(finished.code(), Some(0), "{finished}");
                let report = report(&finished);
                for (field, value) in [("family", family), ("method", method), ("mode", mode), ("transport", "udp")] {
                    assert_eq!(report[field], value, "{report}");
                }
                assert!(report["packets_received"].as_u64() > Some(100), "{report}");
                assert_eq!(report["packets_received"], report["packets_sent"], "{report}");
                assert!(report["server_lost"].is_null(), "{report}");
            }
        }
    }
    relay.wait_for("no allocation is left", |metrics| metrics.sum("hairpin_allocations", &[]) == 0);
    relay.stop();
}

#[test]
fn the_peers_family_is_that_of_the_relayed_address() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let peer = Lab::client_ip(Family::V6, 0);
    let finished = run(&mut load(&lab, Family::V4, &format!("--duration 200ms --peer-address {peer}")));
    assert_eq!(finished.code(), Some(0), "{finished}");
    assert_eq!(report(&finished)["family"], "ipv6");
    relay.stop();
}

#[test]
fn a_relay_that_dies_on_the_way_is_said_to_be_dead() {
    for (signal, how, words) in [(Signal::KILL, "gone", "nothing listens there"), (Signal::STOP, "silent", "Binding")] {
        let lab = Lab::routed();
        // Else the host of the relay would keep the errors that data packets cause apart by a second.
        run(lab.relay.command("sysctl").args(["-qw", "net.ipv4.icmp_ratelimit=0"])).expect_success();
        let mut relay = Relay::start(&lab.relay, &["--xdp", "off"]);
        let start = Instant::now();
        let load = Process::spawn(&mut load(&lab, Family::V4, "--rate 100 --duration 60s"));
        relay.wait_for("packets flow", |metrics| metrics.sum("hairpin_relayed_packets_total", &[]) > 50);
        relay.process().signal(signal);
        let finished = load.wait(PATIENCE);
        assert!(start.elapsed() < Duration::from_secs(20), "it ends early");
        assert_eq!(finished.code(), Some(1), "{finished}");
        assert!(finished.stderr.contains("was lost after") && finished.stderr.contains(words), "{finished}");
        let report = report(&finished);
        assert_eq!(report["server_lost"]["how"], how, "{report}");
        assert!(report["packets_received"].as_u64() > Some(0), "what was measured before is the result: {report}");
    }
}

#[test]
fn a_lossy_way_is_not_taken_for_a_dead_relay() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "off"]);
    let load = Process::spawn(&mut load(&lab, Family::V4, "--rate 100 --duration 6s"));
    relay.wait_for("packets flow", |metrics| metrics.sum("hairpin_relayed_packets_total", &[]) > 10);
    // Less than all attempts of a request take, and more than a data packet waits.
    relay_link(&lab, "down");
    thread::sleep(Duration::from_millis(1300));
    relay_link(&lab, "up");
    let finished = load.wait(PATIENCE);
    assert_eq!(finished.code(), Some(0), "{finished}");
    let report = report(&finished);
    assert!(report["server_lost"].is_null() && report["packets_lost"].as_u64() > Some(50), "{report}");
    relay.stop();
}

fn relay_link(lab: &Lab, state: &str) {
    lab.router.ip(&format!("link set {} {state}", hairpin_tests::lab::topology::ROUTER_LINK));
}

#[test]
fn a_setup_that_fails_half_way_leaves_no_allocation() {
    let lab = Lab::routed();
    // Three of four ports are for one user.
    let relay = Relay::start(&lab.relay, &["--xdp", "off", "--relay-ports", "50000-50003", "--shards", "1"]);
    let finished = run(&mut load(&lab, Family::V4, "--allocations 200"));
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert!(finished.stderr.contains("refused the allocate request: 486"), "{finished}");
    let metrics = relay.metrics();
    let made = metrics.sum("hairpin_stun_responses_total", &[("method", "allocate"), ("code", "200")]);
    assert!(made >= 3, "there is something to release: {made}");
    assert_eq!(metrics.sum("hairpin_allocations", &[]), 0, "those that were made are released");
    relay.stop();
}
