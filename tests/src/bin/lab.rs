//! Shows the relay at work in the lab: what `tests/lab.sh` runs. Prints a report for people.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use hairpin_tests::lab::load::{Load, Outcome};
use hairpin_tests::lab::{Family, Lab, Metrics, Relay};

const USAGE: &str = "usage: lab [--rate PPS] [--duration 5s] [--payload BYTES] [--allocations N] [--xdp MODE]";

fn main() -> ExitCode {
    let (load, mode) = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("lab: {error:#}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("building the lab: client and peer behind a router, the relay behind one link");
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", &mode]);
    for sample in relay.metrics().of("hairpin_xdp_attached", &[]).filter(|sample| sample.count() == 1) {
        println!("XDP is attached to {}, {}", sample.labels["interface"], sample.labels["mode"]);
    }
    for family in Family::ALL {
        println!("\n{family:?}: {} packets/s of {} bytes, for {} s", load.rate, load.payload, load.seconds);
        let before = relay.metrics();
        let outcome = load.run(&lab, family);
        print(&outcome, &before, &relay.metrics());
    }
    relay.stop();
    println!("\nthe relay has ended, and left nothing behind");
    ExitCode::SUCCESS
}

fn options() -> anyhow::Result<(Load, String)> {
    let mut load = Load { rate: 20_000, seconds: 5, payload: 160, allocations: 10 };
    let mut mode = "native".to_owned();
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{option} needs a value"))?;
        let number = || value.parse().with_context(|| format!("{option} {value}"));
        match option.as_str() {
            "--rate" => load.rate = number()?,
            "--payload" => load.payload = number()?,
            "--allocations" => load.allocations = number()?,
            "--duration" => {
                let seconds = value.strip_suffix('s').unwrap_or(&value);
                load.seconds = seconds.parse().with_context(|| format!("{option} {value}"))?;
            }
            "--xdp" => mode = value,
            _ => bail!("there is no {option}"),
        }
    }
    Ok((load, mode))
}

fn print(outcome: &Outcome, before: &Metrics, after: &Metrics) {
    let count = |field| outcome.count(field);
    println!("  sent      {:>10} packets", count("packets_sent"));
    println!("  received  {:>10} packets", count("packets_received"));
    println!("  lost      {:>10} packets", count("packets_lost"));
    let latency = &outcome.report["latency_microseconds"];
    println!("  latency   p50 {} us, p99 {} us, max {} us", latency["p50"], latency["p99"], latency["max"]);
    for path in ["kernel", "userspace"] {
        for direction in ["to_peer", "to_client"] {
            let labels = [("path", path), ("direction", direction)];
            let packets = |metrics: &Metrics| metrics.sum("hairpin_relayed_packets_total", &labels);
            println!("  {:<28}{:>10} packets", format!("{path}, {direction}"), packets(after) - packets(before));
        }
    }
}
