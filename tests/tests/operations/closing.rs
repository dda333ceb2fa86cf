//! Allocations that an operator closes, and what the relay says that they have relayed.

use hairpin_tests::lab::call::{CHANNEL, receive};
use hairpin_tests::lab::load::Load;
use hairpin_tests::lab::relay::{PASSWORD, PORT, USER, every_transport};
use hairpin_tests::lab::turn::Refused;
use hairpin_tests::lab::{Authority, Key, Transport};
use serde_json::Value;

use crate::bed::{Bed, Call, LOAD, PATHS, SOON, Settings, client_ip, lab, list, peer_ip, server, wait};

/// Application data in each datagram of which totals are compared.
const DATA: [u8; 100] = [7; 100];
const THERE: u64 = 30;
const BACK: u64 = 20;

/// The id of a call's allocation.
fn id(bed: &Bed<'_>, call: &Call) -> String {
    let all = bed.json(&["allocations", "list", "--relayed", &call.relayed.to_string()]);
    all[0]["id"].as_str().unwrap_or_else(|| panic!("{all}")).to_owned()
}

#[test]
fn who_is_closed_is_cut_off_at_once_and_nobody_else() {
    let users = list(&[format!("{USER}:{PASSWORD}"), format!("bob:{PASSWORD}")]);
    for (xdp, path) in PATHS {
        let lab = lab();
        let settings = Settings::new(xdp).with("user", &users).with("realm", "\"lab.example\"");
        let bed = Bed::new(&lab, &settings);
        let load = bed.load(path);
        let begin = || {
            let call = Call::begin(&lab, bed.client(1, "bob", PASSWORD), 1);
            if path == "kernel" {
                call.settle(&bed);
            }
            call
        };
        for way in ["id", "user", "client", "relayed"] {
            let mut call = begin();
            let mut other = begin();
            let (path, count) = match way {
                "id" => (format!("/v1/allocations/{}", id(&bed, &call)), 1),
                "user" => ("/v1/allocations?user=bob".to_owned(), 2),
                "client" => (format!("/v1/allocations?client={}", client_ip(1)), 2),
                _ => (format!("/v1/allocations?relayed={}", call.relayed), 1),
            };
            call.expect_cut_by(|| {
                let answer = bed.ask("DELETE", &path);
                assert_eq!(answer.json()["closed"], count, "{way}: {answer}");
            });
            assert!(matches!(call.client.refresh(600), Err(Refused(437, _))), "{way}");
            if count == 1 {
                other.exchange();
                assert_eq!(other.client.refresh(0), Ok(0), "{way}");
            }
            bed.expect_reason(client_ip(1), "refresh", Some(437), "no_allocation");
        }
        load.expect_no_loss();

        // By a realm and all at once nobody is spared.
        for (arguments, count) in
            [(&["--realm", "another.example"][..], 0), (&["--realm", "lab.example"], 2), (&["--all"], 2)]
        {
            let mut calls = [begin(), begin()];
            let said = bed.text(&[&["allocations", "close"], arguments].concat());
            assert_eq!(said.trim(), format!("closed {count} allocations"), "{arguments:?}");
            for call in &mut calls {
                if count == 0 {
                    call.exchange();
                    assert_eq!(call.client.refresh(0), Ok(0));
                } else {
                    call.expect_silence();
                    assert!(matches!(call.client.refresh(600), Err(Refused(437, _))), "{arguments:?}");
                }
            }
        }
        let mut call = begin();
        assert_eq!(bed.text(&["users", "close", "bob"]).trim(), "closed 1 allocation");
        call.expect_silence();
        assert!(matches!(call.client.refresh(600), Err(Refused(437, _))));
        bed.wait_for("nothing is left", |metrics| metrics.sum("hairpin_flows", &[]) == 0);
        bed.relay.stop();
    }
}

#[test]
fn the_last_of_thousands_is_cut_off_before_anybody_is_told() {
    /// The kernel takes longer to end these than it takes to say so.
    const MANY: Load = Load { allocations: 3000, rate: 300, ..LOAD };
    let lab = lab();
    let settings = Settings::new("native").with("shards", "1");
    let forbidden = settings.with("deny-peer", &list(&[format!("{}/32", peer_ip(0))]));
    for (method, path) in [("DELETE", "/v1/allocations?all=true"), ("POST", "/v1/reload")] {
        let bed = Bed::new(&lab, &settings);
        let _many = MANY.begin(&lab, server(PORT), &[]);
        // Of each its relayed address, a permission and a channel.
        let flows = 3 * u64::from(MANY.allocations);
        bed.wait_for("all of them are in the kernel", |metrics| metrics.sum("hairpin_flows", &[]) == flows);
        let call = Call::begin(&lab, bed.alice(1), 0);
        call.settle(&bed);
        bed.write(&forbidden);
        call.expect_cut_by(|| {
            let answer = bed.ask(method, path);
            assert_eq!(answer.status, 200, "{answer}");
        });
    }
}

/// Packets and bytes of a direction.
fn amount(allocation: &Value, direction: &str) -> (u64, u64) {
    let amount = &allocation["relayed_data"][direction];
    (amount["packets"].as_u64().expect("a count"), amount["bytes"].as_u64().expect("a count"))
}

#[test]
fn totals_are_what_the_clients_have_counted_over_every_transport() {
    let lab = lab();
    let certificate = Authority::new().issue(Key::Ecdsa, "turn.test", &[server(0).ip()]);
    let listen: Vec<_> = every_transport(&certificate)
        .iter()
        .filter_map(|option| option.strip_prefix("--listen=").map(str::to_owned))
        .collect();
    let [file, key] = [&certificate.file, &certificate.private_key].map(|path| list(&[path.display()]));
    for (xdp, path) in PATHS {
        let settings = Settings::new(xdp).with("listen", &list(&listen));
        let bed = Bed::new(&lab, &settings.with("certificate", &file).with("private-key", &key));
        for transport in Transport::ALL {
            let call = Call::begin(&lab, bed.client_at(0, transport, server(transport.port()), USER, PASSWORD), 0);
            let in_kernel = path == "kernel" && transport == Transport::Udp;
            if in_kernel {
                call.settle(&bed);
            }
            let id = id(&bed, &call);
            let show = || bed.json(&["allocations", "show", &id]);
            let before = show();
            for _ in 0..THERE {
                call.client.send_on_channel(CHANNEL, &DATA);
                assert_eq!(receive(&call.peer, SOON).as_deref(), Some(&DATA[..]), "{transport:?}");
            }
            for _ in 0..BACK {
                call.peer.send(&DATA).expect("the way to the relay is open");
                assert_eq!(call.client.receive_on_channel(SOON), Some((CHANNEL, DATA.to_vec())), "{transport:?}");
            }
            let after = show();
            let grew = |direction| {
                let [(packets, bytes), (packets_before, bytes_before)] =
                    [&after, &before].map(|allocation| amount(allocation, direction));
                (packets - packets_before, bytes - bytes_before)
            };
            let of = |packets: u64| (packets, packets * DATA.len() as u64);
            assert_eq!([grew("to_peer"), grew("to_client")], [of(THERE), of(BACK)], "{xdp} {transport:?}");
            let kernel = if in_kernel { of(THERE + BACK) } else { of(0) };
            assert_eq!(grew("in_kernel"), kernel, "{xdp} {transport:?}");
            let user = &bed.json(&["users"])[0];
            assert_eq!(amount(user, "to_peer"), amount(&after, "to_peer"), "{user}");
            bed.text(&["allocations", "close", &id]);
        }
        bed.relay.stop();
    }
}

#[test]
fn the_totals_of_all_allocations_are_what_a_load_generator_has_counted() {
    let lab = lab();
    for (xdp, path) in PATHS {
        for transport in ["udp", "tcp"] {
            let mut bed = Bed::new(&lab, &Settings::new(xdp));
            // Of a client over TCP, the kernel forwards nothing.
            let path = if transport == "udp" { path } else { "userspace" };
            let load = bed.load_at(server(PORT), path, &["--transport", transport]);
            let outcome = load.expect_no_loss();
            let ended = || bed.relay.metrics().sum("hairpin_allocations_ended_total", &[("reason", "released")]);
            wait("all have ended", || ended() == u64::from(crate::bed::ALLOCATIONS));
            let status = bed.json(&["status"]);
            let [to_peer, to_client] = ["to_peer", "to_client"].map(|direction| {
                status["relayed"][direction]["packets"].as_u64().unwrap_or_else(|| panic!("{status}"))
            });
            bed.relay.signal(rustix::process::Signal::TERM);
            bed.logged(&["stopping"]);
            let log = bed.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains("an allocation has ended")).collect();
            let sum = |field: &str| lines.iter().map(|line| number(line, field)).sum::<u64>();
            let sent = outcome.count("packets_sent");
            let payload = outcome.count("payload_bytes");
            assert_eq!(lines.len() as u64, u64::from(crate::bed::ALLOCATIONS), "{log}");
            assert_eq!([to_peer, to_client], [sent, sent], "{xdp} {transport}: the status");
            assert_eq!([sum("to_peer_packets"), sum("to_client_packets")], [sent, sent], "{xdp} {transport}: the log");
            assert_eq!([sum("to_peer_bytes"), sum("to_client_bytes")], [sent * payload, sent * payload]);
            if path == "userspace" {
                assert_eq!(sum("kernel_packets"), 0);
            } else {
                assert!(sum("kernel_packets") > sent, "{log}");
            }
        }
    }
}

/// A number in a line of the log.
fn number(line: &str, field: &str) -> u64 {
    let rest = line.split_once(&format!("{field}=")).unwrap_or_else(|| panic!("no {field}: {line}")).1;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|error| panic!("{field}: {error}: {line}"))
}
