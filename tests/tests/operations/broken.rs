//! What is broken on purpose: each reason is found from `hairpin status`, `hairpin why`, the log and the metrics alone.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hairpin_dtls::{ClientContext, Pem, Roots};
use hairpin_proto::turn::Credentials;
use hairpin_tests::lab::process;
use hairpin_tests::lab::relay::{PASSWORD, USER, binary};
use hairpin_tests::lab::server::SECURE_PORT;
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Authority, Lab, Transport};

use crate::bed::{Bed, Call, Settings, client_ip, lab, list, server, wait};

const SECRET: &str = "the-north-remembers";

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "it is the end of an answer")]
fn expect_refused<T: std::fmt::Debug>(result: Result<T, Refused>, code: u16) {
    assert!(matches!(&result, Err(Refused(is, _)) if *is == code), "{result:?}, not {code}");
}

/// Allocates until it is refused.
fn fill(bed: &Bed<'_>, host: u8, most: usize) -> (Vec<Client>, Refused) {
    let mut clients = Vec::new();
    loop {
        let mut client = bed.alice(host);
        match client.allocate() {
            Ok(_) => clients.push(client),
            Err(refused) => return (clients, refused),
        }
        assert!(clients.len() < most, "{most} are too many");
    }
}

#[test]
fn credentials_that_are_wrong_in_each_way_are_told_apart() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("off").with("auth-secret", &list(&[SECRET])));
    let later = unix_seconds() + 600;
    let minted = |secret, expires| Credentials::mint(secret, "carol", expires);
    let [(wrong, wrong_password), (expired, expired_password)] =
        [minted("the-south-forgets", later), minted(SECRET, unix_seconds() - 10)];
    for (user, password, realm, cause) in [
        (USER, "a-wrong-password", None, "wrong_password"),
        ("nobody", PASSWORD, None, "unknown_user"),
        (&wrong, &wrong_password, None, "wrong_secret"),
        (&expired, &expired_password, None, "expired_credential"),
        (USER, PASSWORD, Some("another.example"), "wrong_realm"),
    ] {
        let client = bed.client(0, user, password);
        let mut client = if let Some(realm) = realm { client.in_realm(realm) } else { client };
        expect_refused(client.allocate(), 401);
        let failure = bed.expect_reason(client_ip(0), "allocate", Some(401), cause);
        assert_eq!(failure["username"], user, "{failure}");
        assert_eq!(failure["client"], client.local().to_string(), "{failure}");
    }
    let (good, password) = minted(SECRET, later);
    bed.client(1, &good, &password).allocate().expect("this one is right");
    assert_eq!(bed.json(&["why", &client_ip(1).to_string()]).as_array().map(Vec::len), Some(0));
    bed.relay.stop();
}

#[test]
fn a_peer_that_is_blocked_is_named_beside_its_client() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("off"));
    let mut client = bed.alice(0);
    client.allocate().expect("there is room");
    let peer: IpAddr = [10, 1, 2, 3].into();
    expect_refused(client.permit(peer), 403);
    let failure = bed.expect_reason(client_ip(0), "create_permission", Some(403), "forbidden_peer");
    assert!(failure["peer"].as_str().is_some_and(|at| at.starts_with("10.1.2.3")), "{failure}");
    expect_refused(client.bind_channel(0x4000, SocketAddr::new(peer, 9)), 403);
    let failure = bed.expect_reason(client_ip(0), "channel_bind", Some(403), "forbidden_peer");
    assert_eq!(failure["peer"], "10.1.2.3:9", "{failure}");
    bed.relay.stop();
}

#[test]
fn relay_ports_that_are_all_in_use_are_seen_before_and_after_the_first_refusal() {
    let lab = lab();
    let users = [USER, "bob"].map(|name| format!("{name}:{PASSWORD}"));
    let limits = Settings::new("off").with("user", &list(&users)).with("max-allocations-per-user", "4");
    let limits = limits.with("shards", "1");
    let bed = Bed::new(&lab, &limits.with("relay-ports", "\"50000-50003\""));
    // Each has the next port kept for somebody, so that there are fewer allocations than there may be.
    let mut clients = [bed.alice(1), bed.alice(1)];
    for client in &mut clients {
        client.allocate_pair().expect("there is room");
    }
    expect_refused(bed.client(0, "bob", PASSWORD).allocate(), 508);
    bed.expect_reason(client_ip(0), "allocate", Some(508), "no_port");
    let ip = server(0).ip().to_string();
    bed.expect_warning(&[&ip, "4 of 4 ports", "in use", "relay-ports"]);
    let metrics = bed.relay.metrics();
    for name in ["hairpin_relay_ports_in_use", "hairpin_relay_ports_capacity"] {
        assert_eq!(metrics.sum(name, &[("address", &ip)]), 4, "{name}");
    }
    bed.relay.stop();
}

#[test]
fn a_relay_that_is_full_says_so() {
    let lab = lab();
    let limits = Settings::new("off").with("shards", "1").with("max-allocations", "3");
    let bed = Bed::new(&lab, &limits.with("max-allocations-per-user", "100"));
    let (clients, Refused(code, _)) = fill(&bed, 0, 9);
    assert_eq!((clients.len(), code), (3, 508));
    bed.expect_reason(client_ip(0), "allocate", Some(508), "relay_full");
    bed.expect_warning(&["3 of 3 allocations", "max-allocations"]);
    let metrics = bed.relay.metrics();
    let [used, capacity] = ["hairpin_allocations", "hairpin_allocations_capacity"].map(|name| metrics.sum(name, &[]));
    assert_eq!((used, capacity), (3, 3));
    bed.relay.stop();
}

#[test]
fn a_user_that_has_all_it_may_have_is_named() {
    let lab = lab();
    let bed = Bed::new(&lab, &Settings::new("off").with("max-allocations-per-user", "2"));
    let (clients, Refused(code, _)) = fill(&bed, 0, 9);
    assert_eq!((clients.len(), code), (2, 486));
    let failure = bed.expect_reason(client_ip(0), "allocate", Some(486), "user_quota");
    assert_eq!(failure["username"], USER, "{failure}");
    let users = bed.json(&["users"]);
    assert_eq!((&users[0]["allocations"]["used"], &users[0]["allocations"]["of"]), (&2.into(), &2.into()), "{users}");
    bed.relay.stop();
}

#[test]
fn a_kernel_table_that_is_full_is_seen_and_calls_go_on() {
    let lab = lab();
    let mut bed = Bed::new(&lab, &Settings::new("native").with("kernel-records", "16"));
    let calls: Vec<_> = (0..8).map(|_| Call::begin(&lab, bed.alice(0), 0)).collect();
    for call in &calls {
        call.exchange();
    }
    let metrics =
        bed.wait_for("a flow finds no room", |metrics| metrics.sum("hairpin_flow_insert_failures_total", &[]) > 0);
    let [used, capacity] =
        ["hairpin_kernel_records", "hairpin_kernel_records_capacity"].map(|name| metrics.sum(name, &[]));
    assert!(used <= capacity && used * 10 >= capacity * 9, "{used} of {capacity}");
    bed.expect_warning(&["kernel", "kernel-records"]);
    let status = bed.json(&["status"]);
    assert!(status["kernel"]["insert_failures"].as_u64() > Some(0), "{status}");
    bed.logged(&["WARN", "the flow map is full", "kernel-records"]);
    // Those that found no room are relayed all the same.
    for call in &calls {
        call.exchange();
    }
    assert!(bed.relay.metrics().relayed("userspace") > 0);
}

#[test]
fn a_certificate_that_has_expired_is_seen_before_and_after_a_client_refuses_it() {
    let lab = lab();
    let authority = Authority::new();
    let certificate = authority.issue_expired("turn.test", &[server(0).ip()]);
    let secure = ["tls", "dtls"].map(|transport| format!("{transport}:{}", server(SECURE_PORT)));
    let [file, key] = [&certificate.file, &certificate.private_key].map(|path| path.display().to_string());
    let settings = Settings::new("off").with("listen", &list(&secure)).with("certificate", &list(&[&file]));
    let mut bed = Bed::new(&lab, &settings.with("private-key", &list(&[key])));

    bed.logged(&["WARN", &file, "has expired"]);
    bed.expect_warning(&[&file, "has expired", "renew it"]);
    assert!(bed.text(&["status"]).contains("EXPIRED"));
    let ends = bed.relay.metrics().sum("hairpin_certificate_expiry_timestamp_seconds", &[("file", &file)]);
    assert!((unix_seconds() - 2 * 86_400..unix_seconds()).contains(&ends), "{ends}");

    for (host, transport) in [(0, Transport::Tls), (1, Transport::Dtls)] {
        let refuses = match transport {
            Transport::Tls => refuse_tls,
            _ => refuse_dtls,
        };
        refuses(&lab, host, &authority);
        let known = || bed.json(&["why", &client_ip(host).to_string()]).as_array().map_or(0, Vec::len);
        wait("the failed handshake is known", || known() > 0);
        let failure = bed.failure(client_ip(host), "tls");
        assert_eq!(failure["action"], "handshake", "{failure}");
        assert_eq!(failure["transport"], transport_name(transport), "{failure}");
        let explanation = failure["explanation"].as_str().expect("a sentence").to_ascii_lowercase();
        assert!(explanation.contains("certificate"), "{failure}");
        assert!(explanation.contains("the client said: ") && explanation.contains("expired"), "{failure}");
        let labels = [("transport", transport_name(transport))];
        assert!(bed.relay.metrics().sum("hairpin_handshake_failures_total", &labels) > 0);
    }
    // Who does not care gets through.
    let mut client = bed.client_at(0, Transport::Tls, server(SECURE_PORT), USER, PASSWORD);
    client.allocate().expect("a certificate is the client's affair");
}

fn transport_name(transport: Transport) -> &'static str {
    if transport == Transport::Tls { "tls" } else { "dtls" }
}

/// A client over TLS that checks what it is shown.
fn refuse_tls(lab: &Lab, host: u8, authority: &Authority) {
    let mut command = lab.clients[usize::from(host)].command(binary());
    command.args(["load", "--server", &server(SECURE_PORT).to_string(), "--transport", "tls", "--tls-ca"]);
    command.arg(authority.certificate()).args(["--user", USER, "--password", PASSWORD, "--duration", "1s"]);
    let finished = process::run(&mut command);
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert!(finished.stderr.to_ascii_lowercase().contains("expired"), "{finished}");
}

/// The same over DTLS.
fn refuse_dtls(lab: &Lab, host: u8, authority: &Authority) {
    let roots = fs::read(authority.certificate()).expect("the authority has one");
    let roots = Pem { name: "the authority", bytes: &roots };
    let context = ClientContext::new(Roots::Pem(roots), &[]).expect("it is a certificate");
    let mut session = context.connect(&server(0).ip().to_string()).expect("an address is a name");
    let local = SocketAddr::new(client_ip(host), 0);
    let socket = hairpin_tests::lab::call::bind(&lab.clients[usize::from(host)], local);
    socket.connect(server(SECURE_PORT)).expect("the lab has a route");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("the time is not zero");
    wait("the client refuses the server", || {
        while let Some(datagram) = session.next_datagram() {
            socket.send(datagram).expect("the way is open");
        }
        if session.is_closed() {
            return true;
        }
        let mut buffer = [0; 2048];
        match socket.recv(&mut buffer) {
            Ok(length) => drop(session.receive(&buffer[..length])),
            Err(_) => drop(session.handle_timeout()),
        }
        while let Some(datagram) = session.next_datagram() {
            socket.send(datagram).expect("the way is open");
        }
        session.is_closed()
    });
}

#[test]
fn a_listener_that_is_drained_is_the_reason_for_those_who_still_come_by_it() {
    let lab = lab();
    let old = server(3479);
    let settings = Settings::new("off");
    let both = settings.with("listen", &list(&[server(3478), old]));
    let bed = Bed::new(&lab, &both);
    let mut staying = bed.client_at(1, Transport::Udp, old, USER, PASSWORD);
    staying.allocate().expect("it is configured");
    bed.reload(&settings, &[]);
    let mut late = bed.client_at(0, Transport::Udp, old, USER, PASSWORD);
    expect_refused(late.allocate(), 508);
    bed.expect_reason(client_ip(0), "allocate", Some(508), "listener_retired");
    assert!(bed.text(&["status"]).contains("draining"));
    bed.relay.stop();
}

#[test]
fn a_file_that_is_bad_changes_nothing_and_says_why_by_line() {
    let lab = lab();
    let settings = Settings::new("off");
    let mut bed = Bed::new(&lab, &settings);
    let succeeded = |bed: &Bed<'_>| bed.relay.metrics().sum("hairpin_config_last_reload_successful", &[]);
    assert_eq!(succeeded(&bed), 1);
    let file = bed.file().display().to_string();
    // The user is another one, the key in the fourth line does not exist, the value in the last line is wrong.
    let bad = "user = [\"bob:in-a-lab\"]\n\n\nrelm = \"a\"\nshards = \"many\"\n";
    bed.write(&bad);
    let lines = [format!("{file}:4: "), format!("{file}:5: ")];
    let finished = bed.run(&["reload"]);
    assert_eq!(finished.code(), Some(1), "{finished}");
    for (line, name) in lines.iter().zip(["relm", "shards"]) {
        assert!(finished.stderr.lines().any(|said| said.contains(line) && said.contains(name)), "{line}: {finished}");
        bed.expect_warning(&["reload", line, name]);
        bed.logged(&["ERROR", line, name]);
    }
    assert_eq!(succeeded(&bed), 0);
    assert_eq!(bed.relay.metrics().sum("hairpin_config_reloads_total", &[("result", "failure")]), 1);
    // A signal comes to the same.
    bed.hang_up();
    assert_eq!((succeeded(&bed), bed.relay.metrics().sum("hairpin_config_reloads_total", &[])), (0, 2));

    bed.alice(0).allocate().expect("users are as before");
    expect_refused(bed.client(1, "bob", PASSWORD).allocate(), 401);
    bed.reload(&settings, &[]);
    assert_eq!(succeeded(&bed), 1);
    assert!(!bed.text(&["status"]).contains(&file.clone()) || !bed.text(&["status"]).contains("relm"));
}
