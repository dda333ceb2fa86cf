//! Live frames through a real relay: `hairpin load --blast`, what it refuses, and what the live benchmark would notice.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use hairpin::load::blast::{Blast, BlastError, Pace, check_interface, reflector};
use hairpin_tests::lab::process::{PATIENCE, Process, run};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, binary};
use hairpin_tests::lab::{Family, Namespace};
use hairpin_tests::live::measure::userspace;
use hairpin_tests::live::{Bed, PATHS};
use rustix::process::Signal;
use serde_json::Value;

/// Slow enough for any machine that other tests run on, too.
const SLOW: Pace = Pace { rate: 10_000, count: Some(1000), cpu: None };

/// `hairpin load --blast` in a namespace.
fn blast(namespace: &Namespace, arguments: &str) -> Command {
    let mut command = namespace.command(binary());
    command.args(["load", "--user", USER, "--password", PASSWORD, "--blast", "--json"]);
    command.args(arguments.split_whitespace());
    command
}

fn server(family: Family) -> SocketAddr {
    SocketAddr::new(Bed::relay_ip(family), PORT)
}

#[test]
fn every_path_is_forwarded_to_the_last_bit_and_the_kernel_loses_nothing() {
    let bed = Bed::new();
    let relay = bed.start_relay(&[]);
    bed.generator.enter(|| {
        for path in PATHS {
            let mut blast = Blast::relay(&path.plan(&bed, 8, 161)).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            blast.verify().unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let (before, by_daemon) = (blast.counts().unwrap(), userspace(&relay.metrics()));
            let running = blast.start(SLOW).unwrap();
            let end = Instant::now() + PATIENCE;
            while !running.has_ended() && Instant::now() < end {
                blast.keep_alive(Duration::from_millis(5)).unwrap();
            }
            running.stop().unwrap();
            blast.settle().unwrap();
            let after = blast.counts().unwrap();
            assert_eq!(after.made - before.made, 1000, "{path:?}");
            blast.check_samples().unwrap();
            let received = after.received - before.received;
            assert!(received > 0, "{path:?}: {before:?} {after:?}");
            // A daemon that gets no time loses packets: the buffers of its sockets are small.
            if userspace(&relay.metrics()) == by_daemon {
                assert_eq!(received, 1000, "{path:?}: {before:?} {after:?}");
            }
        }
    });
    relay.wait_for("all allocations are released", |metrics| metrics.sum("hairpin_allocations", &[]) == 0);
    relay.stop();
}

#[test]
fn frames_are_reflected_where_a_reflector_is_and_missed_where_none_is() {
    let bed = Bed::new();
    let relay = bed.start_relay(&[]);
    let (link, generator) = (&bed.reflector_link, &bed.generator);
    let plan = PATHS[0].plan(&bed, 8, 160);
    let again = || -> Result<(), BlastError> {
        let relayed = Blast::relay(&plan)?;
        relayed.reflected(&link.far, link.far_mac, link.near_mac)?.verify()
    };
    let reflecting = bed.relay.enter(|| reflector(&link.near)).unwrap();
    generator.enter(again).unwrap();
    drop(reflecting);
    let missed = generator.enter(again);
    assert!(matches!(missed, Err(BlastError::NotForwarded { seen: 0, of: 8 })), "{missed:?}");
    relay.stop();
}

#[test]
fn a_blast_reports_what_it_sent_and_what_came_back() {
    let bed = Bed::new();
    let relay = bed.start_relay(&[]);
    let interface = &bed.relay_link.far;
    for (family, arguments) in [
        (Family::V4, "--direction to-peer"),
        (Family::V6, "--direction to-client"),
        (Family::V4, "--method send --direction to-client"),
        (Family::V6, "--mode pair"),
    ] {
        let all = format!(
            "--server {} --interface {interface} --allocations 10 --rate 20000 --count 5000 {arguments}",
            server(family)
        );
        let finished = run(&mut blast(&bed.generator, &all));
        assert_eq!(finished.code(), Some(0), "{finished}");
        let report: Value =
            serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"));
        for (field, value) in [("packets_sent", 5000), ("packets_received", 5000), ("packets_lost", 0)] {
            assert_eq!(report[field], value, "{report}");
        }
        assert_eq!(report["share"], 1.0, "{report}");
        assert!(report["packets_verified"].as_u64() > Some(10), "{report}");
        let rate = report["received_packets_per_second"].as_f64().unwrap();
        assert!(rate < 25_000.0, "the pace is kept: {report}");
    }
    relay.stop();
}

#[test]
fn a_relay_that_dies_under_a_blast_is_said_to_be_dead() {
    let bed = Bed::new();
    let mut relay = bed.start_relay(&[]);
    let all = format!("--server {} --interface {} --rate 1000 --duration 60s", server(Family::V4), bed.relay_link.far);
    let load = Process::spawn(&mut blast(&bed.generator, &all));
    relay.wait_for("packets flow", |metrics| metrics.sum("hairpin_relayed_packets_total", &[]) > 500);
    relay.process().signal(Signal::KILL);
    let start = Instant::now();
    let finished = load.wait(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(20), "it ends early");
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert!(finished.stderr.contains("was lost after"), "{finished}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"));
    assert!(report["packets_lost"].as_u64() > Some(0) && report["packets_received"].as_u64() > Some(300), "{report}");
}

#[test]
fn frames_are_sent_out_of_nothing_but_a_labs_own_link() {
    let bed = Bed::new();
    let server = server(Family::V4);
    let relay_link = &bed.relay_link.far;
    let refused = |arguments: &str, code: i32, words: &str| {
        let finished = run(&mut blast(&bed.generator, &format!("--server {server} {arguments}")));
        assert_eq!(finished.code(), Some(code), "{finished}");
        assert!(finished.stderr.contains(words) && finished.stderr.lines().count() == 1, "{words}: {finished}");
    };
    refused("", 2, "--interface");
    refused("--interface lo", 1, "lo is not one end of a veth pair");
    refused("--interface none", 1, "no interface none");
    refused(&format!("--interface {relay_link} --mode pair --direction to-peer"), 2, "--direction");
    refused(&format!("--interface {relay_link} --peer 192.0.2.1:9"), 2, "--peer");

    // The way to the relay must be the one that was named.
    let relay = bed.start_relay(&[]);
    refused(&format!("--interface {}", bed.reflector_link.far), 1, "is not reached through");
    relay.stop();

    for family in Family::ALL {
        bed.generator.ip(&format!("route add default via {}", Bed::relay_ip(family)));
        refused(&format!("--interface {relay_link}"), 1, "a default route leads through");
        let checked = bed.generator.enter(|| check_interface(relay_link));
        assert!(matches!(checked, Err(BlastError::DefaultRoute(_))), "{family:?}: {checked:?}");
        bed.generator.ip(&format!("route del default via {}", Bed::relay_ip(family)));
    }
    let alone = run(bed.generator.command(binary()).args(["load", "--server", "192.0.2.1:1", "--interface", "lo"]));
    assert_eq!(alone.code(), Some(2), "{alone}");
}
