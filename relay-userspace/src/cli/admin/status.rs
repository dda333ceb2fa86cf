//! `hairpin status`: one screen that says how the relay is, with what is wrong first.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::client::Client;
use super::drain;
use super::human::{age, amount, clean, count, percent, share, since, until};
use super::output::show;
use super::place::Place;
use super::table::{Column, section, table};
use crate::api::{KernelStatus, MediaTotals, ReasonCount, Share, State, Status};
use crate::cli::style::{BAD, GOOD, WARNING, paint};
use crate::clock::unix_seconds;

/// Show how the running relay is: warnings first, then what it serves.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
}

/// Asks and prints.
pub(in crate::cli) fn run(args: &Args) -> ExitCode {
    super::run(async {
        let answer = Client::new(&args.place)?.get("/v1/status").await?;
        show(args.place.json, &answer, |status| render(status, unix_seconds()))
    })
}

fn render(status: &Status, now: u64) -> String {
    let mut text = headline(status, now);
    let warnings: String = status.warnings.iter().map(|line| paint(WARNING, &clean(line)) + "\n").collect();
    text.push_str(&section("WARNINGS", &warnings));
    text.push('\n');
    text.push_str(&summary(status, now));
    text.push_str(&section("LISTENERS", &listeners(status)));
    text.push_str(&section("RELAY ADDRESSES", &relay_addresses(status)));
    // The one that everybody has is told by the rows above.
    if status.realms.len() > 1 || status.realms.iter().any(|realm| realm.allocations.of < status.allocations.of) {
        text.push_str(&section("REALMS", &realms(status)));
    }
    text.push_str(&section("USER STORES", &user_stores(status, now)));
    text.push_str(&section("INTERFACES", &interfaces(&status.kernel)));
    text.push_str(&section("CERTIFICATES", &certificates(status, now)));
    text.push_str(&section("REQUESTS REFUSED", &reasons(&status.refused)));
    text.push_str(&section("DATAGRAMS DROPPED", &reasons(&status.dropped)));
    text
}

fn headline(status: &Status, now: u64) -> String {
    let state = match status.state {
        State::Serving => paint(GOOD, "serving"),
        State::Draining => paint(WARNING, "draining"),
        State::Degraded => paint(BAD, "DEGRADED"),
    };
    let source = status.config_file.as_deref().map(|file| format!(" from {}", clean(file))).unwrap_or_default();
    let up = age(now.saturating_sub(status.started));
    let configured = since(now, status.configured);
    format!("hairpin {}: {state}, up {up}, configured {configured}{source}\n", clean(&status.version))
}

fn summary(status: &Status, now: u64) -> String {
    let row = |name: &str, text: String| [name.to_owned(), text];
    let full = |of: Share| format!("{}, {}", share(of), percent(of.used, of.of));
    let mut rows = vec![
        row("allocations", full(status.allocations)),
        row("sessions", full(status.sessions)),
        row("users", status.users.to_string()),
        row("shards", format!("{} answer", share(status.shards))),
        row("to peers", amount(status.relayed.to_peer)),
        row("to clients", amount(status.relayed.to_client)),
    ];
    let all = status.relayed.to_peer.packets + status.relayed.to_client.packets;
    let in_kernel = percent(status.relayed.in_kernel.packets, all);
    rows.push(row("in the kernel", format!("{}, {in_kernel} of the packets", amount(status.relayed.in_kernel))));
    let MediaTotals { all, in_kernel } = status.media;
    let share = percent(in_kernel.packets, all.packets);
    rows.push(row("media", format!("{}, {share} of the packets in the kernel", amount(all))));
    rows.push(row("kernel path", kernel(&status.kernel)));
    if status.state == State::Draining {
        let deadline = status.drain_deadline.map(|deadline| format!("closed in {}", until(now, deadline)));
        let then = if status.drain_stops { ", then the relay ends" } else { "" };
        let left = drain::left(status.allocations.used, status.sessions.used);
        let deadline = deadline.as_deref().unwrap_or("no deadline");
        rows.push(row("draining", format!("{left} left, {deadline}{then}")));
    }
    table([Column::Left(""), Column::Left("")], rows)
}

fn kernel(kernel: &KernelStatus) -> String {
    let mut text = match (kernel.active, kernel.summary.as_str()) {
        (true, "") => "on".to_owned(),
        (false, "") => "off: everything goes through the daemon".to_owned(),
        (_, summary) => summary.to_owned(),
    };
    if let Some(records) = kernel.records {
        // Writing to a string never fails.
        let _ = write!(text, "; records {}, {}", share(records), percent(records.used, records.of));
    }
    if kernel.insert_failures > 0 {
        let _ = write!(text, "; {} flows found no room", kernel.insert_failures);
    }
    text
}

fn listeners(status: &Status) -> String {
    let columns = [Column::Left(""), Column::Left(""), Column::Left(""), Column::Right(""), Column::Left("")];
    let rows = status.listeners.iter().map(|listener| {
        [
            listener.transport.clone(),
            listener.address.to_string(),
            outside(listener.public != listener.address, &listener.public),
            super::human::plural(listener.allocations, "allocation"),
            draining(listener.draining),
        ]
    });
    table(columns, rows)
}

fn relay_addresses(status: &Status) -> String {
    let columns = [Column::Left(""), Column::Left(""), Column::Right(""), Column::Right(""), Column::Left("")];
    let rows = status.relay_addresses.iter().map(|address| {
        [
            address.address.to_string(),
            outside(address.public != address.address, &address.public),
            format!("{} ports", share(address.ports)),
            percent(address.ports.used, address.ports.of),
            draining(address.draining),
        ]
    });
    table(columns, rows)
}

fn realms(status: &Status) -> String {
    let columns = [Column::Left(""), Column::Right(""), Column::Right(""), Column::Right(""), Column::Left("")];
    let rows = status.realms.iter().map(|realm| {
        let Share { used, of } = realm.allocations;
        [
            clean(&realm.name),
            format!("{} allocations", share(realm.allocations)),
            percent(used, of),
            super::human::plural(realm.users, "user"),
            format!("at most {} each", realm.allocations_per_user),
        ]
    });
    table(columns, rows)
}

fn user_stores(status: &Status, now: u64) -> String {
    let rows = status.user_stores.iter().map(|store| {
        let error = store.last_error.as_deref().zip(store.last_error_at);
        [
            clean(&store.name),
            if store.up { "up" } else { "DOWN" }.to_owned(),
            format!("{} found", count(store.found)),
            format!("{} unknown", count(store.unknown)),
            format!("{} failed", count(store.failed)),
            error.map(|(error, at)| format!("{}: {}", since(now, at), clean(error))).unwrap_or_default(),
        ]
    });
    let right = Column::Right("");
    table([Column::Left(""), Column::Left(""), right, right, right, Column::Left("")], rows)
}

fn interfaces(kernel: &KernelStatus) -> String {
    let rows = kernel.interfaces.iter().map(|interface| {
        [interface.interface.clone(), interface.mode.clone(), interface.reason.clone().unwrap_or_default()]
    });
    table([Column::Left(""); 3], rows)
}

fn certificates(status: &Status, now: u64) -> String {
    let rows = status.certificates.iter().map(|certificate| {
        let end = if certificate.expires > now { "expires" } else { "EXPIRED" };
        [certificate.file.clone(), certificate.names.join(" "), format!("{end} {}", since(now, certificate.expires))]
    });
    table([Column::Left(""); 3], rows)
}

fn reasons(reasons: &[ReasonCount]) -> String {
    let rows = reasons.iter().map(|reason| [reason.reason.clone(), count(reason.count)]);
    table([Column::Left(""), Column::Right("")], rows)
}

fn outside(differs: bool, public: &impl ToString) -> String {
    if differs { format!("outside {}", public.to_string()) } else { String::new() }
}

fn draining(is_draining: bool) -> String {
    if is_draining { "no longer configured: draining".to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::*;
    use crate::cli::style::plain;

    fn status() -> Status {
        let amount = |packets, bytes| Amount { packets, bytes };
        Status {
            version: "1.2.3".to_owned(),
            state: State::Draining,
            started: 1_000,
            configured: 4_000,
            config_file: Some("/etc/hairpin/hairpin.toml".to_owned()),
            reload_problems: ["`relm` is no key", "`usr` is no key"].map(str::to_owned).to_vec(),
            drain_deadline: Some(5_060),
            drain_stops: true,
            shards: Share { used: 1, of: 2 },
            allocations: Share { used: 12, of: 16_384 },
            sessions: Share { used: 3, of: 1_000 },
            users: 4,
            listeners: vec![
                ListenerStatus {
                    transport: "udp".to_owned(),
                    address: "10.0.0.7:3478".parse().unwrap(),
                    public: "203.0.113.7:3478".parse().unwrap(),
                    allocations: 11,
                    draining: false,
                },
                ListenerStatus {
                    transport: "tls".to_owned(),
                    address: "[::]:5349".parse().unwrap(),
                    public: "[::]:5349".parse().unwrap(),
                    allocations: 1,
                    draining: true,
                },
            ],
            relay_addresses: vec![RelayAddressStatus {
                address: "10.0.0.7".parse().unwrap(),
                public: "10.0.0.7".parse().unwrap(),
                ports: Share { used: 12, of: 16_384 },
                draining: false,
            }],
            kernel: KernelStatus {
                active: true,
                summary: "native on eth0".to_owned(),
                interfaces: vec![InterfaceStatus {
                    interface: "eth0".to_owned(),
                    mode: "generic".to_owned(),
                    reason: Some("the driver has no XDP".to_owned()),
                }],
                records: Some(Share { used: 60, of: 131_328 }),
                insert_failures: 2,
            },
            realms: [("example.org", 10, 16_384), ("example.net", 2, 100)]
                .map(|(name, used, of)| RealmStatus {
                    name: name.to_owned(),
                    allocations: Share { used, of },
                    users: 1,
                    allocations_per_user: 12,
                })
                .into(),
            user_stores: vec![UserStoreStatus {
                name: "postgres db.example.org".to_owned(),
                up: false,
                found: 1_500,
                unknown: 2,
                failed: 7,
                last_error: Some("connection refused".to_owned()),
                last_error_at: Some(4_990),
            }],
            certificates: vec![CertificateStatus {
                file: "/etc/turn.pem".to_owned(),
                names: vec!["turn.example.org".to_owned()],
                expires: 4_999,
            }],
            relayed: Totals {
                to_peer: amount(600, 600_000),
                to_client: amount(400, 1_234_567),
                in_kernel: amount(990, 1_800_000),
            },
            media: MediaTotals { all: amount(1000, 160_000), in_kernel: amount(900, 144_000) },
            dropped: vec![ReasonCount { reason: "no_permission".to_owned(), count: 12_345 }],
            refused: vec![ReasonCount { reason: "wrong_password".to_owned(), count: 3 }],
            warnings: vec![
                "the certificate /etc/turn.pem has expired\x1b[2J: renew it".to_owned(),
                "the last reload has changed nothing: line 3: `relm` is no key".to_owned(),
            ],
        }
    }

    #[test]
    fn one_screen_says_it_all_with_warnings_first() {
        let expected = "\
hairpin 1.2.3: draining, up 1h06m, configured 16m40s ago from /etc/hairpin/hairpin.toml

WARNINGS
  the certificate /etc/turn.pem has expired\\u{1b}[2J: renew it
  the last reload has changed nothing: line 3: `relm` is no key

allocations    12 of 16384, <0.1%
sessions       3 of 1000, 0.3%
users          4
shards         1 of 2 answer
to peers       600 kB (600 packets)
to clients     1.2 MB (400 packets)
in the kernel  1.8 MB (990 packets), 99% of the packets
media          160 kB (1.0k packets), 90% of the packets in the kernel
kernel path    native on eth0; records 60 of 131328, <0.1%; 2 flows found no room
draining       12 allocations and 3 media sessions left, closed in 1m00s, then the relay ends

LISTENERS
  udp  10.0.0.7:3478  outside 203.0.113.7:3478  11 allocations
  tls  [::]:5349                                  1 allocation  no longer configured: draining

RELAY ADDRESSES
  10.0.0.7    12 of 16384 ports  <0.1%

REALMS
  example.org  10 of 16384 allocations  <0.1%  1 user  at most 12 each
  example.net     2 of 100 allocations   2.0%  1 user  at most 12 each

USER STORES
  postgres db.example.org  DOWN  1.5k found  2 unknown  7 failed  10s ago: connection refused

INTERFACES
  eth0  generic  the driver has no XDP

CERTIFICATES
  /etc/turn.pem  turn.example.org  EXPIRED 1s ago

REQUESTS REFUSED
  wrong_password  3

DATAGRAMS DROPPED
  no_permission  12.3k
";
        let text = render(&status(), 5_000);
        assert_eq!(plain(&text), expected);
        assert!(text.contains(&paint(WARNING, "draining")), "{text:?}");
    }

    #[test]
    fn a_healthy_relay_has_few_lines() {
        let healthy = Status {
            state: State::Serving,
            reload_problems: Vec::new(),
            warnings: Vec::new(),
            dropped: Vec::new(),
            refused: Vec::new(),
            ..status()
        };
        let text = render(&healthy, 5_000);
        for absent in ["WARNINGS", "REFUSED", "DROPPED", "left, "] {
            assert!(!text.contains(absent), "{absent}: {text}");
        }
    }
}
