//! Coturn's clients over every transport, and with the extensions that they know. `interop.rs` has them over UDP.
//!
//! What is not here does not work against coturn itself (4.6.1): mobility over anything but UDP (`-M` with `-t` ends at
//! once, with `-S` it depends on chance), and TCP relaying that waits for the peer (`-P`), which loses every other
//! message. With `-E` it reads the certificates of authorities, and verifies nothing; `interop_openssl.rs` does.

use std::net::IpAddr;
use std::thread;

use hairpin_tests::lab::coturn::{self, EchoPeer, Tally};
use hairpin_tests::lab::relay::{PASSWORD, USER};
use hairpin_tests::lab::server::{SECURE_PORT, is_coturn};
use hairpin_tests::lab::{Authority, Certificate, Finished, Key, Namespace, Setup, Transport};

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// Ways to relay, by the options of `turnutils_uclient`: the server that they need, and what to expect.
const CASES: [&str; 11] = [
    "",
    "-c",
    "-s",
    "-s -c",
    "-y",
    "-y -c",
    "-y -s -c",
    "-D -l 101",
    "-c -l 1400",
    // Two relayed addresses, one for each family.
    "-Z",
    // Some connections end halfway, and begin anew.
    "-B -c",
];

#[test]
fn every_message_comes_back_over_tcp() {
    let host = Namespace::new("interop");
    let server = Setup::new(&[V4, V6]).transports(&[Transport::Tcp]).start(&host);
    let _peer = EchoPeer::start(&host, &[V4, V6]);
    let cases = CASES.map(|options| many("-t", options, V4, V4));
    let other = [many("-t -x", "", V6, V6), many("-t -x", "-c", V6, V4), many("-t -X", "-c", V4, V6)];
    run_all(&host, cases.into_iter().chain(other));
    server.expect_relayed(2 * 40 * 14);
    server.stop();
}

#[test]
fn every_message_comes_back_over_dtls() {
    let host = Namespace::new("interop");
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[V4, V6]);
    let server = secure(Transport::Dtls, certificate).start(&host);
    let _peer = EchoPeer::start(&host, &[V4, V6]);
    let cases = CASES.map(|options| many("-S", options, V4, V4));
    run_all(&host, cases.into_iter().chain([many("-S -x", "-c", V6, V6)]));
    server.expect_relayed(2 * 40 * 12);
    server.stop();
}

#[test]
fn every_message_comes_back_over_tls_with_a_certificate_of_rsa() {
    over_tls(Key::Rsa);
}

#[test]
fn every_message_comes_back_over_tls_with_a_certificate_of_ecdsa() {
    over_tls(Key::Ecdsa);
}

/// Of several messages in one record of TLS, coturn's client sees the first. Coturn makes such records when it is busy;
/// so there is one message for each client here, and many clients.
fn over_tls(key: Key) {
    let host = Namespace::new("interop");
    let server = secure(Transport::Tls, Authority::new().issue(key, "turn.test", &[V4, V6])).start(&host);
    let _peer = EchoPeer::start(&host, &[V4, V6]);
    let cases = CASES.map(|options| one("-t -S", options, V4, V4));
    run_all(&host, cases.into_iter().chain([one("-t -S -x", "-c", V6, V6)]));
    server.expect_relayed(2 * 8 * 12);
    server.stop();
}

/// Hairpin puts each message into a record of its own.
#[test]
fn every_message_has_its_own_record_of_tls() {
    if is_coturn() {
        eprintln!("skipped: coturn writes several messages into one record of TLS, and its client loses them");
        return;
    }
    let host = Namespace::new("interop");
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[V4, V6]);
    let server = secure(Transport::Tls, certificate).start(&host);
    let _peer = EchoPeer::start(&host, &[V4]);
    run_all(&host, CASES.map(|options| many("-t -S", options, V4, V4)));
    server.expect_relayed(2 * 40 * 11);
    server.stop();
}

#[test]
fn tcp_is_relayed_over_tcp_and_tls() {
    let host = Namespace::new("interop");
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[V4, V6]);
    let both = [Transport::Tcp, Transport::Tls];
    let server = Setup::new(&[V4, V6]).transports(&both).certificates(&[certificate]).tcp_relay().start(&host);
    let cases = [many("-T", "", V4, V4), many("-T", "-m 3", V4, V4), one("-T", "-l 1400", V4, V4)];
    run_all(&host, cases.into_iter().chain([many("-T -x", "", V6, V6), one("-T -S", "", V4, V4)]));
    server.stop();
}

#[test]
fn tcp_is_not_relayed_when_nobody_asked_for_it() {
    let host = Namespace::new("interop");
    let server = Setup::new(&[V4]).transports(&[Transport::Tcp]).start(&host);
    let finished = coturn::uclient(&host, &many("-T", "", V4, V4));
    assert_eq!(Tally::of(&finished), None, "{finished}");
    server.stop();
}

#[test]
fn allocations_move_to_another_address_of_the_client() {
    let host = Namespace::new("interop");
    let server = Setup::new(&[V4, V6]).mobility().start(&host);
    let _peer = EchoPeer::start(&host, &[V4, V6]);
    let cases = ["", "-c", "-s", "-y", "-y -c", "-m 5 -c"].map(|options| many("-M", options, V4, V4));
    run_all(&host, cases.into_iter().chain([many("-M -x", "-c", V6, V6)]));
    server.expect_relayed(2 * 40 * 7);
    server.stop();
}

#[test]
fn two_families_and_sudden_ends_over_udp() {
    let host = Namespace::new("interop");
    let server = Setup::new(&[V4, V6]).start(&host);
    let _peer = EchoPeer::start(&host, &[V4, V6]);
    let cases = ["-Z", "-Z -s", "-Z -m 3", "-B", "-B -c", "-B -s -c -m 3"];
    run_all(&host, cases.map(|options| many("", options, V4, V4)));
    server.expect_relayed(2 * 40 * 6);
    server.stop();
}

#[test]
fn the_behaviour_of_a_nat_is_discovered() {
    let host = Namespace::new("interop");
    host.ip("addr add 127.0.0.2/8 dev lo");
    let server = Setup::new(&[V4]).nat_discovery([127, 0, 0, 2].into()).start(&host);
    for padding in ["", "-P"] {
        let finished = coturn::natdiscovery(&host, &format!("-m -f {padding} 127.0.0.1"));
        let expected = ["NAT with Endpoint Independent Mapping!", "NAT with Endpoint Independent Filtering!"];
        for line in expected {
            assert!(finished.stdout.contains(line), "{line}: {finished}");
        }
        let places = |name: &str| -> Vec<_> {
            let lines = finished.stdout.lines().filter_map(|line| line.split_once(name)).map(|(_, place)| place.trim());
            lines.collect()
        };
        // The first answer is printed twice. The second is to a request to the other address; the third is to a request
        // to the first address again, the fourth to one that asks for an answer from elsewhere.
        let origins = ["127.0.0.1:3478", "127.0.0.1:3478", "127.0.0.2:3478", "127.0.0.1:3478", "127.0.0.2:3479"];
        assert_eq!(places("Response origin: : "), origins, "{finished}");
        // Coturn names the same one in the second answer, which comes from there; hairpin the one that is other than that.
        let second = if is_coturn() { "127.0.0.2:3479" } else { "127.0.0.1:3479" };
        let others = ["127.0.0.2:3479", second, "127.0.0.2:3479", "127.0.0.2:3479"];
        assert_eq!(places("Other addr: : "), others, "{finished}");
    }
    let hairpinning = coturn::natdiscovery(&host, "-H 127.0.0.1");
    assert!(hairpinning.stdout.contains("maybe a successful hairpinning"), "{hairpinning}");

    // The third answer goes to another port, by RESPONSE-PORT.
    let finished = coturn::stunclient(&host, V4);
    for number in 1..=3 {
        assert!(finished.stdout.contains(&format!("RFC 5780 response {number}")), "{number}: {finished}");
    }
    assert_eq!(finished.stdout.matches("UDP reflexive addr: 127.0.0.1:").count(), 3, "{finished}");
    server.stop();
}

#[test]
fn nothing_about_a_nat_is_discovered_when_nobody_asked_for_it() {
    let host = Namespace::new("interop");
    let server = Setup::new(&[V4]).start(&host);
    let finished = coturn::stunclient(&host, V4);
    assert!(finished.stdout.contains("UDP reflexive addr: 127.0.0.1:"), "{finished}");
    assert!(!finished.stdout.contains("RFC 5780 response"), "{finished}");
    server.stop();
}

fn secure(transport: Transport, certificate: Certificate) -> Setup {
    Setup::new(&[V4, V6]).transports(&[transport]).certificates(&[certificate])
}

/// Arguments of a client that sends 40 messages at intervals of 5 ms from each of its allocations.
fn many(transport: &str, options: &str, peer: IpAddr, server: IpAddr) -> String {
    arguments("-n 40 -z 5", transport, options, peer, server)
}

/// Arguments of eight clients that send one message each.
fn one(transport: &str, options: &str, peer: IpAddr, server: IpAddr) -> String {
    arguments("-n 1 -m 8", transport, options, peer, server)
}

fn arguments(messages: &str, transport: &str, options: &str, peer: IpAddr, server: IpAddr) -> String {
    let secure = transport.split_whitespace().any(|option| option == "-S");
    let port = if secure { format!("-p {SECURE_PORT}") } else { String::new() };
    format!("-u {USER} -w {PASSWORD} {messages} -e {peer} {port} {transport} {options} {server}")
}

/// Runs clients, all at the same time, since each idles for most of its.
fn run_all(host: &Namespace, cases: impl IntoIterator<Item = String>) {
    let failed: Vec<Finished> = thread::scope(|scope| {
        let cases = cases.into_iter();
        let running: Vec<_> = cases.map(|arguments| scope.spawn(move || coturn::uclient(host, &arguments))).collect();
        let finished = running.into_iter().map(|case| case.join().expect("no case panics"));
        finished.filter(|finished| !Tally::of(finished).is_some_and(|tally| tally.is_complete())).collect()
    });
    let reports: Vec<_> = failed.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), reports.join("\n"));
}
