//! What a service manager is told (sd_notify(3)).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Namespace, Process};
use rustix::process::Signal;

use crate::supervisor::{Supervisor, serve};
use crate::thread::hold;

const AT_ONCE: Duration = Duration::from_secs(30);

fn client(host: &Namespace) -> Client {
    let [local, server] = [0, PORT].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    Client::new(host, local, server, USER, PASSWORD)
}

#[test]
fn a_manager_follows_a_relay_from_its_start_to_its_end() {
    let host = Namespace::new("manager");
    let manager = Supervisor::new();
    let relay = Process::spawn(&mut manager.serve(&host));
    assert_eq!(manager.hear(), "READY=1", "nothing comes before");
    assert_eq!(host.udp_sockets(PORT), 2, "each shard listens");
    let mut client = client(&host);
    client.allocate().expect("who is ready serves");
    manager.wait_for("the allocation", |told| told == "STATUS=serving, in userspace: 1 allocation");

    manager.configure("mobility = true\n");
    relay.signal(Signal::HUP);
    let heard = manager.wait_for("the end of a reload", |told| told == "READY=1");
    let begin = heard.first().and_then(|told| told.strip_prefix("RELOADING=1\nMONOTONIC_USEC="));
    let since: u64 = begin.and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("no beginning: {heard:?}"));
    let uptime = std::fs::read_to_string("/proc/uptime").expect("the kernel counts");
    let uptime: f64 = uptime.split(' ').next().and_then(|time| time.parse().ok()).expect("seconds");
    assert!(since > 0 && Duration::from_micros(since).as_secs_f64() < uptime + 1.0, "{since} of {uptime} s");

    manager.configure("mobility = 7\n");
    relay.signal(Signal::HUP);
    let heard = manager.wait_for("the end of the next", |told| told == "READY=1");
    let failed = |told: &String| {
        told.starts_with("STATUS=") && told.contains("the last reload failed: ") && told.contains("mobility")
    };
    assert!(heard.iter().any(failed), "{heard:?}");

    relay.signal(Signal::USR1);
    manager.wait_for("the drain", |told| told.starts_with("STATUS=draining, in userspace: 1 allocation; the last"));
    relay.signal(Signal::TERM);
    manager.wait_for("the end", |told| told == "STOPPING=1\nSTATUS=stopping");
    assert_eq!(relay.wait(AT_ONCE).code(), Some(0));
}

#[test]
fn a_relay_that_does_not_start_is_never_ready() {
    let host = Namespace::new("manager");
    let first = Supervisor::new();
    let _relay = Process::spawn(&mut first.serve(&host));
    first.wait_for("the start", |told| told == "READY=1");
    let second = Supervisor::new();
    let refused = Process::spawn(second.serve(&host).args(["--admin", "off"])).wait(AT_ONCE);
    refused.expect_one_line(1, &["127.0.0.1:3478"]);
    assert_eq!(second.listen(Duration::from_millis(100)), [""; 0]);
}

#[test]
fn a_manager_that_is_not_there_or_of_another_kind_costs_a_line_and_no_call() {
    for socket in ["/nonexistent/notify", "vsock:2:1234"] {
        let host = Namespace::new("manager");
        let manager = Supervisor::new();
        let mut relay = Process::spawn(manager.serve(&host).env("NOTIFY_SOCKET", socket));
        let end = Instant::now() + AT_ONCE;
        while !relay.stderr().contains("metrics on") {
            assert!(relay.is_running() && Instant::now() < end, "it does not start: {}", relay.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
        client(&host).allocate().expect("it serves");
        relay.signal(Signal::TERM);
        let finished = relay.wait(AT_ONCE);
        assert_eq!(finished.code(), Some(0), "{finished}");
        let lines = finished.stderr.lines().filter(|line| line.contains("service manager")).count();
        assert_eq!(lines, 1, "{finished}");
    }
}

#[test]
fn a_shard_that_hangs_is_no_sign_of_life() {
    let host = Namespace::new("manager");
    let manager = Supervisor::new();
    let relay = Process::spawn(manager.serve(&host).env("WATCHDOG_USEC", "1000000"));
    for _ in 0..2 {
        manager.wait_for("a sign of life", |told| told == "WATCHDOG=1");
    }
    let held = hold(relay.pid(), "shard-1");
    let silent = |told: &str| told == "STATUS=serving, in userspace: 0 allocations; 1 of 2 shards do not answer";
    manager.wait_for("the silence", silent);
    // A relay that told it all the same would do so each time that it has waited for the shard, which is two seconds.
    let heard = manager.listen(Duration::from_secs(6));
    assert!(!heard.iter().any(|told| told.contains("WATCHDOG")), "{heard:?}");
    drop(held);
    manager.wait_for("the next sign of life", |told| told == "WATCHDOG=1");
}

#[test]
fn a_watchdog_for_another_process_hears_nothing() {
    let host = Namespace::new("manager");
    let manager = Supervisor::new();
    let mut command = manager.serve(&host);
    let _relay = Process::spawn(command.env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1"));
    manager.wait_for("the start", |told| told == "READY=1");
    let heard = manager.listen(Duration::from_secs(2));
    assert!(!heard.iter().any(|told| told.contains("WATCHDOG")), "{heard:?}");
}

#[test]
fn a_relay_that_drains_before_it_ends_asks_for_time() {
    let host = Namespace::new("manager");
    let manager = Supervisor::new();
    let relay = Process::spawn(manager.serve(&host).args(["--drain-timeout", "10m"]));
    manager.wait_for("the start", |told| told == "READY=1");
    let mut client = client(&host);
    client.allocate().expect("it serves");
    relay.signal(Signal::TERM);
    for _ in 0..2 {
        let heard = manager.wait_for("a wish for time", |told| told.starts_with("EXTEND_TIMEOUT_USEC="));
        assert!(!heard.iter().any(|told| told.contains("STOPPING")), "{heard:?}");
    }
    relay.signal(Signal::TERM);
    manager.wait_for("the end", |told| told.starts_with("STOPPING=1"));
    assert_eq!(relay.wait(AT_ONCE).code(), Some(0));
}

#[test]
fn a_relay_without_a_manager_starts_as_ever() {
    let host = Namespace::new("manager");
    let relay = hairpin_tests::lab::Relay::start_with(&host, &mut serve(&host));
    relay.stop();
}
