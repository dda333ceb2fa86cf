//! How many packets a second go through the XDP program: `tests/bench.sh live [--json] [--only NAME] [--flows N]`.
//!
//! A generator on one CPU makes frames as fast as it can and pushes them into a veth; at its other end is the relay, with
//! allocations of real clients, and another CPU takes what arrives, runs the program, and takes what comes back, too.
//! Frames for which there is no room are refused at the generator, so what is counted is what the second CPU can do. The
//! same is done with a program in the relay's place that only swaps link-layer addresses and transmits (`XDP_TX`), over a
//! veth of the same kind, in turn, and the ratio is the figure: it says what part of the receiving CPU's speed is left
//! when relaying is added to receiving and sending. Where the generator is slower than the reflector, the ratio flatters.
//!
//! Before each measurement a frame of each flow is followed through the relay and compared to the last bit; afterwards so
//! are samples. A path that is not forwarded fails, and so does one that the daemon forwards instead of the program.

use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::{Result, ensure};
use clap::Parser;
use hairpin::load::blast;
use hairpin_tests::live::measure::{Cpus, Figure, measure};
use hairpin_tests::live::{Bed, PATHS, Path};
use hairpin_tests::selection::Selection;
use serde_json::json;

/// Application data in a packet: 20 ms of audio.
const PAYLOAD: usize = 160;
const FLOWS: [u32; 2] = [1, 10_000];
const ROUNDS: usize = 7;
const CPUS: Cpus = Cpus { generator: 0, relay: 1 };
/// The least part of a path's frames that must not have gone through userspace.
const IN_KERNEL: f64 = 0.99;
/// The least part of the frames that a reflector at its limit has no room for.
const SATURATED: f64 = 0.02;
/// What a relay must reach of the reflector's rate for ChannelData.
const TARGET: f64 = 0.70;

/// Packets a second through the XDP program.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    selection: Selection,
}

fn main() -> Result<ExitCode> {
    let Options { selection } = Options::parse();
    let Selection { json, ref only, .. } = selection;
    let flows = selection.flows(&FLOWS);
    ensure!(available_parallelism()?.get() >= 2, "one CPU for the generator and one for the relay are needed");
    let paths: Vec<Path> = PATHS.into_iter().filter(|path| path.name.contains(only)).collect();
    ensure!(!paths.is_empty(), "no path has {only:?} in its name");

    let bed = Bed::new();
    let reflector = bed.relay.enter(|| blast::reflector(&bed.reflector_link.near))?;
    // Who only asks for an address is a stranger: the limit of those is asked about, but never reached.
    let relay = bed.start_relay(&["--source-packet-rate", "1G", "--control-packet-rate", "1G"]);
    bed.pin_receivers(CPUS.relay)?;

    let mut figures: Vec<Figure> = Vec::new();
    let mut failed: Vec<(Path, u32, String)> = Vec::new();
    for path in paths {
        for &flows in &flows {
            let measured = bed.generator.enter(|| measure(&bed, &relay, path, flows, PAYLOAD, ROUNDS, CPUS));
            match measured {
                Ok(figure) if figure.in_kernel >= IN_KERNEL => {
                    if !json {
                        print(&figure);
                    }
                    figures.push(figure);
                }
                Ok(figure) => {
                    let part = (1.0 - figure.in_kernel) * 100.0;
                    failed.push((path, flows, format!("userspace forwarded {part:.1} % of it")));
                }
                Err(error) => failed.push((path, flows, format!("{error:#}"))),
            }
        }
    }
    drop(reflector);
    relay.stop();
    if json {
        let rows: Vec<_> = figures.iter().map(row).collect();
        let failed: Vec<_> =
            failed.iter().map(|(path, flows, why)| json!({ "name": path.name, "flows": flows, "why": why })).collect();
        let parameters = json!({ "payload_bytes": PAYLOAD, "rounds": ROUNDS, "target_share": TARGET });
        println!("{:#}", json!({ "live": rows, "failed": failed, "parameters": parameters }));
    }
    for (path, flows, why) in &failed {
        eprintln!("live: {}, {flows} flows: {why}", path.name);
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(figure: &Figure) {
    let Figure { path, flows, rate, reflected, share, refused, .. } = figure;
    let note = if *refused < SATURATED { "   (the generator was the slower one: at most)" } else { "" };
    println!(
        "{:<30} {flows:>6} flows {:>6.2} M packets/s {:>6.1} % of the reflector's {:>5.2} M{note}",
        path.name,
        rate / 1e6,
        share * 100.0,
        reflected / 1e6
    );
}

fn row(figure: &Figure) -> serde_json::Value {
    let Figure { path, flows, rate, reflected, share, refused, in_kernel, verified } = figure;
    json!({
        "name": path.name,
        "flows": flows,
        "packets_per_second": rate.round(),
        "reflector_packets_per_second": reflected.round(),
        "share": (share * 1000.0).round() / 1000.0,
        "reflector_saturated": *refused >= SATURATED,
        "in_kernel": (in_kernel * 10_000.0).round() / 10_000.0,
        "packets_verified": verified,
    })
}
