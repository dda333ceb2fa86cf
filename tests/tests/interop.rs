//! Coturn's clients against the relay: over loopback in userspace, and through the lab with the kernel path.
//!
//! All cases of a test run at the same time against one relay, since coturn's client spends most of its time idle.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_tests::lab::coturn::{self, EchoPeer, Tally};
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::turn::Client;
use hairpin_tests::lab::{Family, Finished, Lab, Namespace, Process, Relay};

/// A shared secret, for credentials that expire.
const SECRET: &str = "north";
/// What the relay is started with in each namespace of [`loopback`].
const ON_LOOPBACK: [&str; 12] = [
    "--listen",
    "127.0.0.1:3478",
    "--listen",
    "[::1]:3478",
    "--xdp",
    "off",
    "--allow-peer",
    "127.0.0.0/8",
    "--allow-peer",
    "::1/128",
    "--auth-secret",
    SECRET,
];

/// Ways to relay, by the options of `turnutils_uclient`.
const CASES: [(&str, &str); 14] = [
    ("channels, in pairs of RTP and RTCP", ""),
    ("channels, one allocation each", "-c"),
    ("Send and Data indications, in pairs", "-s"),
    ("Send and Data indications, one allocation each", "-s -c"),
    ("client to client over channels, in pairs", "-y"),
    ("client to client over channels", "-y -c"),
    ("client to client over indications, in pairs", "-y -s"),
    ("client to client over indications", "-y -s -c"),
    ("padded ChannelData", "-D -l 101"),
    ("DONT-FRAGMENT", "-g -c"),
    ("extra requests: permissions and channels for other families and peers", "-G -c"),
    ("messages of one byte", "-c -l 1"),
    ("messages that just fit", "-c -l 1400"),
    ("several clients", "-c -m 5"),
];

#[test]
fn every_message_comes_back_over_loopback_from_ipv4() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &ON_LOOPBACK);
    let _peer = EchoPeer::start(&host, &[localhost(Family::V4)]);
    run_all(&host, localhost(Family::V4), localhost(Family::V4));
    assert_eq!(relay.metrics().relayed("kernel"), 0, "XDP is off");
    relay.stop();
}

#[test]
fn every_message_comes_back_over_loopback_from_ipv6() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &ON_LOOPBACK);
    let _peer = EchoPeer::start(&host, &[localhost(Family::V6)]);
    run_all(&host, localhost(Family::V6), localhost(Family::V6));
    relay.stop();
}

#[test]
fn every_message_comes_back_through_the_kernel_from_ipv4() {
    through_the_lab(Family::V4);
}

#[test]
fn every_message_comes_back_through_the_kernel_from_ipv6() {
    through_the_lab(Family::V6);
}

fn through_the_lab(family: Family) {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native", "--auth-secret", SECRET]);
    let _peer = EchoPeer::start(&lab.peers[0], &[Lab::peer_ip(family, 0)]);
    run_all(&lab.clients[0], Lab::relay_ip(family), Lab::peer_ip(family, 0));
    let metrics = relay.metrics();
    assert!(metrics.relayed("kernel") > 0, "channels are forwarded in the kernel: {metrics:#?}");
    relay.stop();
}

#[test]
fn a_client_of_one_family_reaches_peers_of_the_other() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &ON_LOOPBACK);
    let (v4, v6) = (localhost(Family::V4), localhost(Family::V6));
    let _peer = EchoPeer::start(&host, &[v4, v6]);
    thread::scope(|scope| {
        scope.spawn(|| expect_complete(&coturn::uclient(&host, &arguments("-x", v6, v4))));
        scope.spawn(|| expect_complete(&coturn::uclient(&host, &arguments("-x -s", v6, v4))));
        scope.spawn(|| expect_complete(&coturn::uclient(&host, &arguments("-X -c", v4, v6))));
        scope.spawn(|| expect_complete(&coturn::uclient(&host, &arguments("-X -s -c", v4, v6))));
    });
    relay.stop();
}

#[test]
fn a_wrong_password_or_name_gets_no_allocation() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &ON_LOOPBACK);
    for who in ["-u alice -w wrong", "-u mallory -w in-a-lab", "-u mallory -W south"] {
        let finished = coturn::uclient(&host, &format!("{who} -c -e 127.0.0.1 127.0.0.1"));
        assert_eq!(Tally::of(&finished), None, "{finished}");
        assert!(finished.stdout.contains("Cannot complete Allocation"), "{finished}");
    }
    let metrics = relay.metrics();
    assert_eq!(metrics.sum("hairpin_stun_responses_total", &[("method", "allocate"), ("code", "200")]), 0);
    assert_eq!(metrics.sum("hairpin_allocations", &[]), 0);
    relay.stop();
}

#[test]
fn a_shared_secret_lets_clients_in() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &[&ON_LOOPBACK[..], &["--auth-secret", "second"]].concat());
    let _peer = EchoPeer::start(&host, &[localhost(Family::V4)]);
    thread::scope(|scope| {
        for secret in [SECRET, "second"] {
            let arguments = format!("-u bob -W {secret} -c -e 127.0.0.1 -n 20 -z 5 127.0.0.1");
            let host = &host;
            scope.spawn(move || expect_complete(&coturn::uclient(host, &arguments)));
        }
    });
    relay.stop();
}

#[test]
fn messages_with_damaged_bytes_harm_nobody_else() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &ON_LOOPBACK);
    let v4 = localhost(Family::V4);
    let _peer = EchoPeer::start(&host, &[v4]);
    thread::scope(|scope| {
        // -R changes random bytes of what it sends. It waits for ever for the answer to a request that it broke, whoever
        // the server is, so that only the others can be judged.
        for options in ["-R", "-R -c", "-R -s", "-R -y", "-R -G", "-R -s -c -m 3"] {
            let arguments = arguments(options, v4, v4);
            let host = &host;
            scope.spawn(move || coturn::uclient_for(host, &arguments, Duration::from_secs(10)));
        }
        for options in ["", "-s"] {
            let arguments = arguments(options, v4, v4);
            let host = &host;
            scope.spawn(move || expect_complete(&coturn::uclient(host, &arguments)));
        }
    });
    expect_complete(&coturn::uclient(&host, &arguments("-y", v4, v4)));
    relay.stop();
}

#[test]
fn a_binding_tells_the_client_its_address() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    // coturn's client prints IPv6 addresses in brackets or not, depending on its version.
    for family in Family::ALL {
        let finished = coturn::stunclient(&lab.clients[0], Lab::relay_ip(family));
        let own = Lab::client_ip(family, 0).to_string();
        let line = finished.stdout.lines().find(|line| line.contains("reflexive addr"));
        assert!(line.is_some_and(|line| line.contains(&own)), "{own}: {finished}");
    }
    relay.stop();
}

/// It takes half a minute, which is why it is here, where everything takes long: the other tests run meanwhile.
#[test]
fn a_reservation_that_nobody_redeems_frees_its_port() {
    let host = Namespace::new("loopback");
    let relay = Relay::start(&host, &ON_LOOPBACK);
    let v4 = localhost(Family::V4);
    let mut client = Client::new(&host, SocketAddr::new(v4, 0), SocketAddr::new(v4, PORT), USER, PASSWORD);
    let start = Instant::now();
    let relayed = client.allocate_pair().expect("two ports are free").port();
    assert_eq!(relayed % 2, 0, "{relayed}");
    let bound = || {
        let in_use = relay.metrics().sum("hairpin_relay_ports_in_use", &[]);
        (in_use, host.udp_sockets(relayed), host.udp_sockets(relayed + 1))
    };
    assert_eq!(bound(), (2, 1, 1));
    // RFC 8656 section 7.2: a reservation is kept for at least 30 seconds.
    thread::sleep(Duration::from_secs(29).saturating_sub(start.elapsed()));
    assert_eq!(bound(), (2, 1, 1), "after {:?}", start.elapsed());
    thread::sleep(Duration::from_secs(31).saturating_sub(start.elapsed()));
    let end = Instant::now() + Duration::from_secs(5);
    while bound() != (1, 1, 0) && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(bound(), (1, 1, 0), "nobody came with the token");
    relay.stop();
}

/// The judge itself is tried on a server that is known: coturn's own, with a peer that answers and one that does not.
#[test]
fn a_loss_does_not_go_unnoticed() {
    let host = Namespace::new("loopback");
    let mut command = host.command("turnserver");
    command.args(["-n", "-c", "/dev/null", "--lt-cred-mech", "--user", &format!("{USER}:{PASSWORD}"), "-r", "realm"]);
    command.args(["--allow-loopback-peers", "--no-tls", "--no-dtls", "--no-cli", "-L", "127.0.0.1", "-E", "127.0.0.1"]);
    command.args(["--log-file", "stdout", "--pidfile", "/dev/null"]);
    let server = Process::spawn(&mut command);
    let v4 = localhost(Family::V4);
    let end = Instant::now() + Duration::from_secs(20);
    while host.udp_sockets(PORT) == 0 {
        assert!(Instant::now() < end, "turnserver does not listen: {}", server.wait(Duration::ZERO));
        thread::sleep(Duration::from_millis(50));
    }
    let peer = EchoPeer::start(&host, &[v4]);
    expect_complete(&coturn::uclient(&host, &arguments("-c", v4, v4)));
    drop(peer);
    let finished = coturn::uclient(&host, &arguments("-c", v4, v4));
    let tally = Tally::of(&finished).unwrap_or_else(|| panic!("{finished}"));
    assert_eq!(finished.code(), Some(0), "this is why its exit code is not asked");
    assert!(!tally.is_complete() && tally.lost == tally.sent, "{tally:?}");
}

fn localhost(family: Family) -> IpAddr {
    match family {
        Family::V4 => [127, 0, 0, 1].into(),
        Family::V6 => [0, 0, 0, 0, 0, 0, 0, 1].into(),
    }
}

/// Arguments of a client that sends 40 messages at intervals of 5 ms from each of its allocations.
fn arguments(options: &str, peer: IpAddr, server: IpAddr) -> String {
    format!("-u {USER} -w {PASSWORD} -n 40 -z 5 -e {peer} {options} {server}")
}

fn run_all(clients: &Namespace, server: IpAddr, peer: IpAddr) {
    let family = if server.is_ipv6() { "-x " } else { "" };
    let failed: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = CASES
            .iter()
            .map(|(what, options)| {
                let arguments = arguments(&format!("{family}{options}"), peer, server);
                (what, scope.spawn(move || coturn::uclient(clients, &arguments)))
            })
            .collect();
        let finished = running.into_iter().map(|(what, case)| (what, case.join().expect("no case panics")));
        let failed = finished.filter(|(_, finished)| !is_complete(finished));
        failed.map(|(what, finished)| format!("{what}: {finished}")).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

fn is_complete(finished: &Finished) -> bool {
    Tally::of(finished).is_some_and(|tally| tally.is_complete())
}

fn expect_complete(finished: &Finished) {
    assert!(is_complete(finished), "{finished}");
}
