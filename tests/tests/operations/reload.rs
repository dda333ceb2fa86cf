//! Following another file under load: what a change does not concern loses nothing, what it does is changed at once.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use hairpin_proto::turn::Credentials;
use hairpin_tests::lab::process;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER};
use hairpin_tests::lab::server::SECURE_PORT;
use hairpin_tests::lab::topology::{RELAY_LINK, SECOND_RELAY_LINK};
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Authority, Certificate, Family, Key, Lab, Transport};
use serde_json::Value;

use crate::bed::{Bed, Call, PATHS, Settings, lab, list, peer_ip, server, wait};

/// The names in the certificates of `first.test` and `second.test`.
const FIRST: &str = "first.test-Ecdsa";
const SECOND: &str = "second.test-Ecdsa";
/// Another address of the relay's host, on the same link.
const ANOTHER: [u8; 4] = [11, 3, 0, 3];

/// What is turned on and off.
const RATES: [&str; 4] = ["allocation-bit-rate", "allocation-packet-rate", "relay-bit-rate", "source-packet-rate"];

fn another(port: u16) -> SocketAddr {
    SocketAddr::from((ANOTHER, port))
}

/// A call whose relayed address is this one. Chance decides, so it may take some.
fn begin_on(lab: &Lab, address: IpAddr, client: impl Fn() -> Client) -> Call {
    for _ in 0..60 {
        let mut call = Call::begin(lab, client(), 1);
        if call.relayed.ip() == address {
            return call;
        }
        assert_eq!(call.client.refresh(0), Ok(0));
    }
    panic!("{address} is never given out");
}

/// A lab whose relay has that address.
fn lab_with_another() -> Lab {
    let lab = lab();
    lab.relay.ip(&format!("addr add {}/24 dev {RELAY_LINK}", another(0).ip()));
    lab
}

#[test]
fn no_change_costs_a_packet_of_those_whom_it_does_not_concern() {
    let authority = Authority::new();
    for (xdp, path) in PATHS {
        let lab = lab_with_another();
        let mut bed = Bed::new(&lab, &Settings::new(xdp));
        let load = bed.load(path);

        bed.hang_up();
        load.flows();

        let alice = format!("{USER}:{PASSWORD}");
        let users = Settings::new(xdp).with("user", &list(&["bob:secret-of-bob", &alice]));
        let users = users.with("auth-secret", &list(&["north"]));
        let [changed, draining, restart] = bed.reload(&users, &[]);
        assert_eq!((changed, draining, restart), (vec!["user".to_owned(), "auth-secret".to_owned()], vec![], vec![]));
        bed.client(1, "bob", "secret-of-bob").allocate().expect("bob is a user now");
        load.flows();

        // Far more than there is, but counted all the same.
        let limited = users.with("allocation-packet-rate", "100000").with("allocation-bit-rate", "\"1G\"");
        let limited = limited.with("relay-bit-rate", "\"10G\"").with("source-packet-rate", "5000");
        assert_eq!(bed.reload(&limited, &[])[0], RATES);
        load.flows();
        assert_eq!(bed.reload(&users, &[])[0], RATES);
        load.flows();

        let own = [format!("udp:{}", server(PORT)), format!("tcp:{}", server(PORT))];
        let [more, other] = [3479, 3480].map(|port| format!("udp:{}", server(port)));
        let listen = |others: &[&String]| {
            let all: Vec<_> = own.iter().chain(others.iter().copied()).collect();
            users.with("listen", &list(&all))
        };
        assert_eq!(bed.reload(&listen(&[&more, &other]), &[])[0], ["listen"]);
        for port in [3479, 3480] {
            let call = Call::begin(&lab, bed.client_at(1, Transport::Udp, server(port), USER, PASSWORD), 1);
            if path == "kernel" {
                call.settle(&bed);
            }
            call.exchange();
            let mut client = call.client;
            assert_eq!(client.refresh(0), Ok(0));
        }
        load.flows();
        let [changed, draining, _] = bed.reload(&listen(&[&other]), &[]);
        assert_eq!((changed, draining), (vec!["listen".to_owned()], vec![]), "nobody uses it");
        wait("the listener is closed", || lab.relay.udp_sockets(3479) == 0);
        load.flows();

        // A new relay address is given out, too.
        let there = another(PORT);
        let addresses = listen(&[&format!("udp:{there}")]);
        let addresses = addresses.with("relay-address", &list(&[server(0).ip(), there.ip()]));
        assert_eq!(bed.reload(&addresses, &[])[0], ["listen", "relay-address"]);
        let call = begin_on(&lab, there.ip(), || bed.client_at(1, Transport::Udp, there, USER, PASSWORD));
        if path == "kernel" {
            call.settle(&bed);
        }
        call.exchange();
        let mut client = call.client;
        assert_eq!(client.refresh(0), Ok(0));
        load.flows();

        let [first, second] = ["first.test", "second.test"].map(|name| authority.issue(Key::Ecdsa, name, &[]));
        let secure = |certificate: &Certificate| {
            let all = [&own[..], &["tls", "dtls"].map(|name| format!("{name}:{}", server(SECURE_PORT)))].concat();
            let [file, key] = [&certificate.file, &certificate.private_key].map(|path| list(&[path.display()]));
            users.with("listen", &list(&all)).with("certificate", &file).with("private-key", &key)
        };
        for (certificate, name) in [(&first, FIRST), (&second, SECOND)] {
            bed.reload(&secure(certificate), &[]);
            for transport in [Transport::Tls, Transport::Dtls] {
                assert_eq!(shown(&lab, transport).as_deref(), Some(name), "{transport:?}");
            }
            load.flows();
        }

        load.expect_no_loss();
        bed.logged(&["reloaded: nothing has changed"]);
        bed.relay.stop();
    }
}

/// The name in the certificate that a server shows.
fn shown(lab: &Lab, transport: Transport) -> Option<String> {
    let mut command: Command = lab.clients[1].command("openssl");
    command.args(["s_client", "-connect", &server(SECURE_PORT).to_string()]);
    command.args((transport == Transport::Dtls).then_some("-dtls1_2"));
    let finished = process::run(&mut command);
    let line = finished.stdout.lines().find(|line| line.starts_with("subject="))?;
    line.rsplit(['=', ' ']).next().map(str::to_owned)
}

#[test]
fn a_peer_that_is_forbidden_is_lost_at_once_and_no_other() {
    for (xdp, path) in PATHS {
        let lab = lab();
        let bed = Bed::new(&lab, &Settings::new(xdp));
        let mut call = Call::begin(&lab, bed.alice(1), 1);
        let mut other = bed.alice(1);
        other.allocate().expect("there is room");
        other.permit(peer_ip(1)).expect("it is not forbidden yet");
        if path == "kernel" {
            call.settle(&bed);
        }
        let load = bed.load(path);
        let forbidden = Settings::new(xdp).with("deny-peer", &list(&[format!("{}/32", peer_ip(1))]));
        bed.write(&forbidden);
        call.expect_cut_by(|| {
            let answer = bed.ask("POST", "/v1/reload");
            assert_eq!(answer.status, 200, "{answer}");
        });
        load.flows();
        other.send_indication(call.peer.local_addr().expect("it is bound"), b"by an indication");
        call.expect_silence();
        assert!(matches!(other.permit(peer_ip(1)), Err(Refused(403, _))));
        other.permit(peer_ip(0)).expect("the other peer is allowed");
        assert_eq!(call.client.refresh(600), Ok(600), "the allocation itself goes on");
        load.expect_no_loss();

        bed.reload(&Settings::new(xdp), &[]);
        call.client.permit(peer_ip(1)).expect("it is allowed again");
        bed.relay.stop();
    }
}

#[test]
fn a_listener_and_an_address_that_are_removed_are_drained_and_let_go_of_with_their_last_allocation() {
    for (xdp, path) in PATHS {
        let lab = lab_with_another();
        let addresses = [server(0), another(0)].map(|at| at.ip());
        let gone = addresses[1].to_string();
        let all = [
            format!("udp:{}", server(PORT)),
            format!("udp:{}", another(PORT)),
            format!("udp:{}", server(3479)),
            format!("tcp:{}", server(3479)),
        ];
        let both = Settings::new(xdp).with("listen", &list(&all)).with("relay-address", &list(&addresses));
        let bed = Bed::new(&lab, &both);
        // Two by each of the listeners that go, and two of the address at least: chance decides who gets which.
        let old = |transport| bed.client_at(1, transport, server(3479), USER, PASSWORD);
        let there = || bed.client_at(1, Transport::Udp, another(PORT), USER, PASSWORD);
        let clients = [Transport::Udp, Transport::Tcp].map(|transport| [old(transport), old(transport)]);
        let mut calls: Vec<_> = clients.into_iter().flatten().map(|client| Call::begin(&lab, client, 1)).collect();
        let of_gone = |calls: &[Call]| calls.iter().filter(|call| call.relayed.ip() == addresses[1]).count();
        while of_gone(&calls) < 2 {
            assert!(calls.len() < 60, "the address is never given out");
            calls.push(Call::begin(&lab, there(), 1));
        }
        if path == "kernel" {
            calls[0].settle(&bed);
        }
        let load = bed.load(path);
        let status = bed.json(&["status"]);
        let is_gone = |one: &&Value| one["address"] == *gone;
        let used = status["relay_addresses"].as_array().and_then(|all| all.iter().find(is_gone)).expect("it is there");
        let used = used["ports"]["used"].as_u64().expect("a number");
        assert!(used >= of_gone(&calls) as u64);
        let first = Settings::new(xdp).with("listen", &list(&all[..2])).with("relay-address", &list(&addresses[..1]));
        let [changed, draining, _] = bed.reload(&first, &[]);
        assert_eq!(changed, ["listen", "relay-address"]);
        let still = [(&all[2], 2), (&all[3], 2), (&gone, used)];
        let still =
            still.map(|(what, count)| format!("{what} still has {count} allocations: draining; --force clears them"));
        assert_eq!(draining, still);
        let status = bed.json(&["status"]);
        for (field, address) in [("listeners", server(3479).to_string()), ("relay_addresses", gone.clone())] {
            let all = status[field].as_array().expect("a list");
            let is_drained = |one: &Value| one["address"] == *address && one["draining"] == true;
            assert!(all.iter().any(is_drained), "{address}: {status}");
        }

        // Nobody else gets in, and who is in goes on as before.
        assert!(matches!(old(Transport::Udp).allocate(), Err(Refused(508, _))), "the listener takes nobody");
        let relayed = there().allocate().expect("that listener does");
        assert_eq!(relayed.ip(), addresses[0], "the address is not given out");
        for call in &mut calls {
            call.exchange();
            assert_eq!(call.client.refresh(600), Ok(600));
            call.client.permit(peer_ip(0)).expect("it is the client's right");
            call.exchange();
        }
        load.expect_no_loss();

        // With the last one, both go.
        for call in &mut calls {
            assert_eq!(call.client.refresh(0), Ok(0));
        }
        wait("the listener is closed", || lab.relay.udp_sockets(3479) == 0);
        wait("nothing is drained", || !bed.text(&["status"]).contains("draining"));
        let [_, draining, _] = bed.reload(&first, &[]);
        assert_eq!(draining, Vec::<String>::new());
        bed.relay.stop();
    }
}

#[test]
fn force_closes_what_still_uses_what_was_removed_and_nothing_else() {
    for (xdp, path) in PATHS {
        let lab = lab_with_another();
        let base = Settings::new(xdp).with("relay-address", &list(&[server(0).ip()]));
        let listen = [server(PORT), server(3479)].map(|at| format!("udp:{at}"));
        let both = base.with("listen", &list(&listen));
        let bed = Bed::new(&lab, &both);
        let mut call = Call::begin(&lab, bed.client_at(1, Transport::Udp, server(3479), USER, PASSWORD), 1);
        if path == "kernel" {
            call.settle(&bed);
        }
        let load = bed.load(path);
        let one = base.with("listen", &list(&listen[..1]));
        assert_eq!(bed.reload(&one, &[])[1].len(), 1, "it is drained");
        call.exchange();
        call.expect_cut_by(|| {
            let answer = bed.ask_with("POST", "/v1/reload", "{\"force\": true}");
            assert_eq!(answer.status, 200, "{answer}");
            assert_eq!(answer.json()["draining"].as_array().map(Vec::len), Some(0), "{answer}");
        });
        assert!(!bed.text(&["status"]).contains("draining"));
        wait("the listener is closed", || lab.relay.udp_sockets(3479) == 0);
        assert_eq!(bed.relay.metrics().sum("hairpin_allocations_ended_total", &[("reason", "closed")]), 1);

        // Now an address, and at once.
        let more = [listen[0].clone(), format!("udp:{}", another(PORT))];
        let one = base.with("listen", &list(&more));
        bed.reload(&one.with("relay-address", &list(&[server(0).ip(), another(0).ip()])), &[]);
        call = begin_on(&lab, another(0).ip(), || bed.client_at(1, Transport::Udp, another(PORT), USER, PASSWORD));
        call.exchange();
        let [changed, draining, _] = bed.reload(&one, &["--force"]);
        assert!(changed.iter().any(|line| line.starts_with("1 allocation")), "{changed:?}");
        assert_eq!(draining, Vec::<String>::new());
        call.expect_silence();
        assert!(matches!(call.client.refresh(600), Err(Refused(437, _))));
        load.expect_no_loss();
        bed.relay.stop();
    }
}

#[test]
fn secrets_are_exchanged_without_a_moment_in_which_a_client_is_refused() {
    let lab = lab();
    let settings = Settings::new("off").without("user");
    let bed = Bed::new(&lab, &settings.with("auth-secret", &list(&["old"])));
    let later = 4_000_000_000;
    let minted = |secret: &str| Credentials::mint(secret, "carol", later);
    let client = |secret: &str, host| {
        let (user, password) = minted(secret);
        bed.client(host, &user, &password)
    };
    let is_refused = |secret: &str| matches!(client(secret, 1).allocate(), Err(Refused(401, _)));
    let mut running = client("old", 0);
    running.allocate().expect("the secret is right");
    assert!(is_refused("new"));

    bed.reload(&settings.with("auth-secret", &list(&["new", "old"])), &[]);
    for secret in ["old", "new"] {
        client(secret, 1).allocate().expect("both are right");
    }
    assert_eq!(running.refresh(600), Ok(600));
    // What is minted here is made with the new one, which is named first.
    let minted_here = bed.ask_with("POST", "/v1/credentials", "{\"name\": \"dora\"}").json();
    let [user, password] = ["username", "credential"].map(|field| {
        minted_here["iceServers"][0][field].as_str().unwrap_or_else(|| panic!("{minted_here}")).to_owned()
    });

    bed.reload(&settings.with("auth-secret", &list(&["new"])), &[]);
    assert!(is_refused("old"));
    bed.client(1, &user, &password).allocate().expect("it was made with the new secret");
    client("new", 1).allocate().expect("the secret is right");
    assert!(matches!(running.refresh(600), Err(Refused(401, _))), "it was made with a secret that is gone");
    bed.relay.stop();
}

#[test]
fn certificates_are_noticed_when_their_files_change_and_bad_ones_are_not_taken() {
    let lab = lab();
    let authority = Authority::new();
    let [first, second] = ["first.test", "second.test"].map(|name| authority.issue(Key::Ecdsa, name, &[]));
    let folder = hairpin_tests::lab::Folder::new("certificates");
    let [file, key] = ["turn.pem", "turn.key"].map(|name| folder.path().join(name));
    let put = |certificate: &Certificate| {
        // As one does who must not be seen half-way.
        for (from, to) in [(&certificate.file, &file), (&certificate.private_key, &key)] {
            let aside = to.with_extension("new");
            fs::copy(from, &aside).and_then(|_| fs::rename(&aside, to)).expect("the folder is ours");
        }
    };
    put(&first);
    let secure = ["tls", "dtls"].map(|transport| format!("{transport}:{}", server(SECURE_PORT)));
    let names = |path: &Path| list(&[path.display()]);
    let settings = Settings::new("off").with("listen", &list(&secure));
    let settings = settings.with("certificate", &names(&file)).with("private-key", &names(&key));
    let mut bed = Bed::new(&lab, &settings);
    let both = || [Transport::Tls, Transport::Dtls].map(|transport| shown(&lab, transport));
    let is = |name: &str| both().iter().all(|shown| shown.as_deref() == Some(name));
    assert!(is(FIRST));
    let call = [Transport::Tls, Transport::Dtls]
        .map(|transport| Call::begin(&lab, bed.client_at(0, transport, server(SECURE_PORT), USER, PASSWORD), 0));

    fs::write(&file, "this is no certificate").expect("the folder is ours");
    bed.logged(&["ERROR", "certificates have changed and cannot be used, the old ones stay", "turn.pem"]);
    assert!(is(FIRST), "{:?}", both());

    put(&second);
    wait("the new certificate is shown", || is(SECOND));
    bed.logged(&["certificates have changed"]);
    assert!(bed.text(&["status"]).contains("second.test"));
    call.iter().for_each(Call::exchange);
}

#[test]
fn the_log_level_follows_the_file_and_the_command() {
    let lab = lab();
    let settings = Settings::new("off");
    let mut bed = Bed::new(&lab, &settings);
    let level = |bed: &Bed<'_>| bed.json(&["log-level"])["level"].as_str().expect("a level").to_owned();
    let lines = |bed: &mut Bed<'_>| bed.log().lines().filter(|line| line.contains("an allocation has")).count();
    let one = |bed: &Bed<'_>| {
        let mut client = bed.alice(0);
        client.allocate().expect("there is room");
        assert_eq!(client.refresh(0), Ok(0));
    };
    assert_eq!(level(&bed), "info");
    one(&bed);
    bed.logged(&["an allocation has ended"]);

    assert_eq!(bed.reload(&settings.with("log", "\"warn\""), &[])[0], ["log"]);
    assert_eq!(level(&bed), "warn");
    one(&bed);
    bed.text(&["log-level", "hairpin::shard=debug,info"]);
    assert!(level(&bed).contains("hairpin::shard=debug"));
    one(&bed);
    wait("the second one that is logged", || lines(&mut bed) == 4);

    // What an operator has set by hand holds until the file says something else.
    bed.reload(&settings.with("log", "\"error\""), &[]);
    assert_eq!(level(&bed), "error");
    bed.relay.stop();
}

#[test]
fn an_address_of_another_interface_brings_the_program_there() {
    let lab = lab();
    lab.add_link();
    lab.route_peers(RELAY_LINK);
    let addresses = [Lab::relay_ip(Family::V4), Lab::second_relay_ip(Family::V4)];
    let settings = Settings::new("native").with("relay-address", &list(&addresses[..1]));
    let bed = Bed::new(&lab, &settings);
    let modes = |bed: &Bed<'_>| {
        let status = bed.json(&["status"]);
        let all = status["kernel"]["interfaces"].as_array().expect("a list").clone();
        let pair =
            |one: &Value| [&one["interface"], &one["mode"]].map(|value| value.as_str().expect("a name").to_owned());
        all.iter().map(pair).collect::<Vec<_>>()
    };
    let is = |name: &str| [name.to_owned(), "native".to_owned()];
    assert_eq!(modes(&bed), [is(RELAY_LINK)]);
    let load = bed.load("kernel");
    bed.reload(&settings.with("relay-address", &list(&addresses)), &[]);
    wait("the program is on the other interface too", || modes(&bed) == [is(RELAY_LINK), is(SECOND_RELAY_LINK)]);
    let labels = [("interface", SECOND_RELAY_LINK), ("mode", "native")];
    assert_eq!(bed.relay.metrics().sum("hairpin_xdp_attached", &labels), 1);
    load.expect_no_loss();
    bed.relay.stop();
}

#[test]
fn a_narrower_or_wider_listener_is_refused_over_udp_and_serves_those_of_the_other_over_tcp() {
    let lab = lab();
    let base = Settings::new("off").with("relay-address", &list(&[server(0).ip()]));
    let wide = |transport: &str| format!("{transport}:0.0.0.0:{PORT}");
    let narrow = |transport: &str| format!("{transport}:{}", server(PORT));
    let listen = |udp: String, tcp: String| base.with("listen", &list(&[udp, tcp]));
    let bed = Bed::new(&lab, &listen(wide("udp"), wide("tcp")));
    let by = |transport| Call::begin(&lab, bed.client_at(1, transport, server(PORT), USER, PASSWORD), 1);
    let mut calls = vec![by(Transport::Udp), by(Transport::Tcp)];

    bed.write(&listen(narrow("udp"), wide("tcp")));
    let refused = bed.run(&["reload"]);
    assert!(refused.stderr.contains("would take the clients of udp:0.0.0.0:3478"), "{refused}");
    calls.push(by(Transport::Udp));

    for tcp in [narrow("tcp"), wide("tcp")] {
        let [changed, draining, _] = bed.reload(&listen(wide("udp"), tcp), &[]);
        assert_eq!((changed, draining), (vec!["listen".to_owned()], Vec::<String>::new()), "nobody is left behind");
        calls.push(by(Transport::Tcp));
        for call in &mut calls {
            call.exchange();
            assert_eq!(call.client.refresh(600), Ok(600));
        }
    }
}
