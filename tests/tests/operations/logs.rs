//! What the log says of allocations, and what it never says.

use std::io::Write as _;
use std::net::TcpStream;

use hairpin_proto::turn::Credentials;
use hairpin_tests::lab::relay::{PASSWORD, USER};
use hairpin_tests::lab::server::SECURE_PORT;
use hairpin_tests::lab::{Authority, Key, Transport};

use crate::bed::{Bed, Call, Settings, client_ip, lab, list, server};

/// Begins and ends so many.
fn some(bed: &Bed<'_>, count: usize) {
    for _ in 0..count {
        let call = Call::begin(bed.lab, bed.alice(0), 0);
        call.exchange();
        let mut client = call.client;
        assert_eq!(client.refresh(0), Ok(0));
    }
}

/// The lines about allocations, of which there are as many as there will be: a line behind them is there.
fn lines(bed: &mut Bed<'_>) -> [Vec<String>; 2] {
    let marks = |log: &str| log.matches("reloaded: ").count();
    let before = marks(&bed.log());
    bed.hang_up();
    let mut log = bed.log();
    crate::bed::wait("the log is written", || {
        log = bed.log();
        marks(&log) > before
    });
    ["an allocation has begun", "an allocation has ended"]
        .map(|text| log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
}

#[test]
fn each_allocation_has_two_lines_with_reason_and_totals_and_no_address_of_its_client() {
    let lab = lab();
    let settings = Settings::new("off");
    let mut bed = Bed::new(&lab, &settings);
    some(&bed, 2);
    let [begun, ended] = lines(&mut bed);
    assert_eq!((begun.len(), ended.len()), (2, 2), "{begun:?} {ended:?}");
    for (line, words) in [
        (&begun[0], &["INFO", "user=\"alice\"", "transport=\"udp\"", "relayed=11.3.0.2:"][..]),
        (
            &ended[0],
            &[
                "INFO",
                "user=\"alice\"",
                "reason=\"released\"",
                "to_peer_packets=1",
                "to_client_packets=1",
                "to_peer_bytes=12",
            ],
        ),
    ] {
        for word in words {
            assert!(line.contains(word), "`{word}` is missing: {line}");
        }
    }
    let client = client_ip(0).to_string();
    assert!(!bed.log().contains(&client), "nobody has asked for clients' addresses");

    bed.reload(&settings.with("log-client-addresses", "true"), &[]);
    some(&bed, 1);
    let [begun, ended] = lines(&mut bed);
    for line in [&begun[2], &ended[2]] {
        assert!(line.contains(&format!("client={client}:")), "{line}");
    }
    bed.relay.stop();
}

#[test]
fn fewer_allocations_are_logged_where_that_is_asked_for() {
    let lab = lab();
    let settings = Settings::new("off").with("shards", "1");
    let mut bed = Bed::new(&lab, &settings.with("log-sample", "3"));
    some(&bed, 9);
    let [begun, ended] = lines(&mut bed);
    assert_eq!((begun.len(), ended.len()), (3, 3), "{begun:?} {ended:?}");
    let name = |line: &String| {
        line.split("allocation=").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned)
    };
    let [mut first, mut second]: [Vec<_>; 2] = [&begun, &ended].map(|lines| lines.iter().map(name).collect());
    first.sort();
    second.sort();
    assert_eq!(first, second, "who has the one line has the other");

    bed.reload(&settings.with("log-allocations", "\"off\""), &[]);
    some(&bed, 3);
    assert_eq!(lines(&mut bed)[0].len(), 3);
    bed.reload(&settings.with("log-allocations", "\"debug\""), &[]);
    some(&bed, 3);
    assert_eq!(lines(&mut bed)[0].len(), 3, "that is not important enough to be logged");
    bed.text(&["log-level", "debug"]);
    some(&bed, 2);
    let [begun, ended] = lines(&mut bed);
    assert_eq!((begun.len(), ended.len()), (5, 5));
    assert!(begun[4].contains("DEBUG") && ended[4].contains("DEBUG"), "{begun:?}");
    bed.relay.stop();
}

#[test]
fn no_secret_is_in_a_log_whatever_its_level() {
    let lab = lab();
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[server(0).ip()]);
    let [file, key] = [&certificate.file, &certificate.private_key].map(|path| list(&[path.display()]));
    let all = ["udp", "tcp"].map(|transport| format!("{transport}:{}", server(3478)));
    let secure = ["tls", "dtls"].map(|transport| format!("{transport}:{}", server(SECURE_PORT)));
    let settings = Settings::new("native")
        .with("log", "\"trace\"")
        .with("log-client-addresses", "true")
        .with("mobility", "true")
        .with("listen", &list(&[all, secure].concat()))
        .with("certificate", &file)
        .with("private-key", &key)
        .with("user", &list(&[format!("{USER}:{PASSWORD}"), "bob:secret-of-bob".to_owned()]))
        .with("auth-secret", &list(&["secret-of-the-application"]))
        .with("admin-token", &list(&["secret-of-the-administrator"]))
        .with("credentials-token", &list(&["secret-of-the-web-site"]));
    let mut bed = Bed::new(&lab, &settings);
    let (user, minted) = Credentials::mint("secret-of-the-application", "carol", 4_000_000_000);
    let calls: Vec<_> = Transport::ALL
        .into_iter()
        .map(|transport| {
            let client = bed.client_at(0, transport, server(transport.port()), &user, &minted);
            let call = Call::begin(&lab, client, 0);
            call.exchange();
            call
        })
        .collect();
    bed.client(1, "bob", "secret-of-nobody").allocate().expect_err("the password is wrong");
    bed.client(1, "bob", "secret-of-bob").allocate_mobile().expect("there is room");
    bed.ask_with("POST", "/v1/credentials", "{\"name\": \"dora\"}").json();
    // That TLS has failed, for one, is told to those who want to know everything.
    let mut stream = bed.lab.clients[1].enter(|| TcpStream::connect(server(SECURE_PORT))).expect("it listens");
    stream.write_all(&[22, 3, 1, 0, 4, 9, 9, 9, 9]).expect("it is connected");
    bed.logged(&["TRACE", "TLS failed"]);
    for token in ["secret-of-the-web-site", "secret-that-is-wrong"] {
        let header = format!("Authorization: Bearer {token}");
        bed.ask_tcp("GET", "/v1/credentials", &[&header]);
        bed.ask_tcp("GET", "/v1/status", &[&header]);
    }
    // What is wrong is told, but not what the secrets beside it are.
    bed.write(&settings.with("user", &list(&["secret-without-a-name"])).with("auth-secret", "7"));
    assert_eq!(bed.run(&["reload"]).code(), Some(1));
    bed.reload(&settings.with("auth-secret", &list(&["secret-that-is-new"])), &[]);
    bed.text(&["allocations", "close", "--all"]);
    drop(calls);
    bed.relay.signal(rustix::process::Signal::TERM);
    bed.logged(&["stopping"]);

    let log = bed.log();
    let pem = std::fs::read_to_string(&certificate.private_key).expect("it was just made");
    let in_key = pem.lines().nth(1).expect("a key has lines");
    for secret in [PASSWORD, "secret-", &minted, in_key] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "`{secret}` is in the log");
    }
}
