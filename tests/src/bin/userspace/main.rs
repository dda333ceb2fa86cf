//! What the userspace path costs, next to other servers: `tests/bench.sh userspace|others [--json]`, and `tests/bench.sh
//! streams [--json]` for clients over TCP and TLS next to those over UDP.
//!
//! All servers relay the same load over loopback, in turn, and what counts is the processor time each took for a relayed
//! datagram (an echo is two). Loopback charges the sender with the receiver's part of the stack, so the figures are those
//! of a whole trip, for all. Of the cases, `paced` has nothing to join: 200 callers whose datagrams come one by one.
//! `busy` is as fast as 20 callers can; their datagrams stand in line, and the relay takes them as trains.

mod server;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use hairpin_tests::lab::{Authority, Key};
use serde_json::{Map, Value, json};

use server::{Kind, Server};

const PAYLOAD: &str = "160";

/// What is measured, and for how long: each case so many times by each server.
struct Series {
    servers: &'static [Kind],
    rounds: usize,
    duration: &'static str,
    cases: &'static [Case],
}

struct Case {
    name: &'static str,
    transport: &'static str,
    allocations: &'static str,
    /// Packets a second that clients send; 0: as fast as they come back.
    rate: &'static str,
}

const PACED: Case = Case { name: "paced", transport: "udp", allocations: "200", rate: "30000" };

const DATAGRAMS: Series = Series {
    servers: &[Kind::Hairpin, Kind::Coturn],
    rounds: 5,
    duration: "3s",
    cases: &[
        PACED,
        Case { name: "loaded", transport: "udp", allocations: "20", rate: "60000" },
        Case { name: "busy", transport: "udp", allocations: "20", rate: "0" },
    ],
};

const STREAMS: Series = Series {
    servers: &[Kind::Hairpin, Kind::Coturn],
    rounds: 3,
    duration: "1s",
    cases: &[
        Case { name: "udp", transport: "udp", allocations: "50", rate: "10000" },
        Case { name: "tcp", transport: "tcp", allocations: "50", rate: "10000" },
        Case { name: "tls", transport: "tls", allocations: "50", rate: "10000" },
        Case { name: "udp, busy", transport: "udp", allocations: "20", rate: "0" },
        Case { name: "tcp, busy", transport: "tcp", allocations: "20", rate: "0" },
        Case { name: "tls, busy", transport: "tls", allocations: "20", rate: "0" },
    ],
};

/// A rate that the slowest of them can follow.
const OTHERS: Series = Series {
    servers: &[Kind::Hairpin, Kind::Coturn, Kind::Pion, Kind::Eturnal],
    rounds: 5,
    duration: "3s",
    cases: &[Case { name: "paced", transport: "udp", allocations: "50", rate: "5000" }],
};

/// What was measured of one case: for each server the median of the rounds in nanoseconds, and how many packets Hairpin
/// relays for one of it with the same processor time.
struct Row {
    case: &'static Case,
    servers: Vec<(Kind, f64, f64)>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (series, binary, json) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [series, binary] => (series, binary, false),
        [series, binary, "--json"] => (series, binary, true),
        _ => ("", "", false),
    };
    let series = match series {
        "userspace" => DATAGRAMS,
        "streams" => STREAMS,
        "others" => OTHERS,
        _ => anyhow::bail!("usage: userspace userspace|streams|others PATH-OF-HAIRPIN [--json]"),
    };
    let rows = series.measure(Path::new(binary))?;
    if json {
        let cases: Vec<Value> = rows.iter().map(Row::json).collect();
        println!("{}", json!({ "payload_bytes": PAYLOAD.parse::<u32>()?, "rounds": series.rounds, "cases": cases }));
    } else {
        println!("CPU per relayed packet of {PAYLOAD} bytes, median of {} rounds in turn:", series.rounds);
        rows.iter().for_each(Row::print);
        println!(
            "\nratio: packets that Hairpin relays for each that the other relays with the same processor time; the median of \
             the\nrounds' ratios, which on a busy machine need not be the ratio of the medians"
        );
    }
    Ok(())
}

impl Series {
    fn measure(&self, binary: &Path) -> Result<Vec<Row>> {
        let certificate = Authority::new().issue(Key::Ecdsa, "localhost", &[Ipv4Addr::LOCALHOST.into()]);
        let start = |kind: &Kind| Server::start(*kind, binary, &certificate);
        let servers = self.servers.iter().map(start).collect::<Result<Vec<_>>>()?;
        let load = Load { binary: binary.to_owned(), duration: self.duration };
        let mut rows = Vec::new();
        for case in self.cases {
            let mut rounds = Vec::new();
            for _ in 0..self.rounds {
                rounds.push(servers.iter().map(|server| load.cost(server, case)).collect::<Result<Vec<_>>>()?);
            }
            let figures = self.servers.iter().enumerate().map(|(at, kind)| {
                let own = rounds.iter().map(|round| round[at]).collect();
                let ratios = rounds.iter().map(|round| round[at] / round[0]).collect();
                (*kind, median(own), median(ratios))
            });
            rows.push(Row { case, servers: figures.collect() });
        }
        Ok(rows)
    }
}

/// Clients.
struct Load {
    binary: PathBuf,
    duration: &'static str,
}

impl Load {
    /// Nanoseconds of a server's processor time for each packet that it relays.
    fn cost(&self, server: &Server, case: &Case) -> Result<f64> {
        let before = server.cpu_nanoseconds()?;
        let output = Command::new(&self.binary)
            .args(["load", "--user", "u", "--password", "p", "--mode", "echo", "--json", "--payload", PAYLOAD])
            .args(["--allocations", case.allocations, "--rate", case.rate, "--duration", self.duration])
            .args(["--server", &server.address(case.transport).to_string(), "--transport", case.transport])
            .args((case.transport == "tls").then_some("--tls-insecure"))
            .output()?;
        ensure!(output.status.success(), "load failed: {}", String::from_utf8_lossy(&output.stderr));
        let taken = server.cpu_nanoseconds()? - before;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let received = report["packets_received"].as_f64().context("packets_received")?;
        Ok(taken / (2.0 * received))
    }
}

impl Row {
    fn json(&self) -> Value {
        let servers = self.servers.iter().map(|(kind, nanoseconds, ratio)| {
            let figures = json!({ "ns_per_packet": nanoseconds.round(), "ratio": (ratio * 100.0).round() / 100.0 });
            (kind.name().to_owned(), figures)
        });
        json!({
            "case": self.case.name,
            "transport": self.case.transport,
            "allocations": self.case.allocations.parse::<u32>().unwrap_or_default(),
            "rate": self.case.rate.parse::<u32>().unwrap_or_default(),
            "servers": servers.collect::<Map<_, _>>(),
        })
    }

    fn print(&self) {
        let Case { name, rate, allocations, .. } = self.case;
        let rate = if *rate == "0" { "as fast as it goes".to_owned() } else { format!("{rate} packets/s") };
        println!("\n{name}: {allocations} allocations, {rate}");
        for (kind, nanoseconds, ratio) in &self.servers {
            println!("  {:40} {nanoseconds:6.0} ns   ratio {ratio:5.2}", kind.description());
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
