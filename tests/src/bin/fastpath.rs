//! How long the XDP program takes for a packet: `tests/bench.sh fastpath [--json]`.
//!
//! Each packet is a `BPF_PROG_TEST_RUN` of its own (more repeats would feed the program its own output), and the kernel's
//! own time for it counts: its two clock reads and the call of the program are in it, and go out again by subtracting an
//! empty program that is run over the same packets in turn. Flows take turns, one packet each.
//!
//! A system call lies between two runs, and the kernel clears a page and copies the packet for each: predictors and caches
//! are colder than on a busy interface, and the figures err on the high side. A driver's packets would also come in
//! batches; here nothing overlaps the wait for a record that is not in the cache. With many flows the figure is mostly
//! that wait, and so mostly the machine's.
//!
//! Of the runs of a round the slowest hundredth,
//! where an interrupt fell into the measurement, does not count; the figure is the median over the rounds.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result, ensure};
use hairpin::datapath::program::Capacities;
use hairpin_tests::program::{
    bench::Bench,
    flow::{Direction, Flow},
    sys,
};
use serde_json::json;

/// Application data in a packet: 20 ms of audio.
const PAYLOAD: [u8; 160] = [0x5a; 160];
const FLOWS: [u32; 3] = [1, 10_000, 100_000];
const ROUNDS: usize = 9;
const RUNS: usize = 20_000;
const XDP_TX: u32 = 3;

struct Figure {
    name: String,
    flows: u32,
    nanoseconds: f64,
    empty: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => anyhow::bail!("usage: fastpath [--json]"),
    };
    let empty = sys::load_empty().context("loading an empty program")?;

    let mut figures = Vec::new();
    let mut bench = Bench::load(capacities(1))?;
    for count in FLOWS {
        // Its maps are as large as an operator would have them for so many flows.
        bench = Bench::load(capacities(count))?;
        for ipv6 in [false, true] {
            let flows: Vec<Flow> = (0..count).map(|number| Flow::numbered(ipv6, number)).collect();
            for flow in &flows {
                bench.install(flow)?;
            }
            for direction in [Direction::ToPeer, Direction::ToClient] {
                let mut packets = Packets::new(&flows, direction);
                let (nanoseconds, empty) = measure(bench.program().fd()?, empty.as_fd(), &mut packets)?;
                let way = match direction {
                    Direction::ToPeer => "ChannelData -> UDP",
                    Direction::ToClient => "UDP -> ChannelData",
                };
                let name = format!("{way} IPv{}", if ipv6 { 6 } else { 4 });
                figures.push(Figure { name, flows: count, nanoseconds, empty });
            }
        }
    }
    let size = sys::size(bench.program().fd()?)?;
    let verified = bench.program().xdp()?.info()?.verified_instruction_count().unwrap_or(0);
    if json {
        let figures: Vec<_> = figures
            .iter()
            .map(|figure| {
                json!({
                    "name": figure.name,
                    "flows": figure.flows,
                    "payload_bytes": PAYLOAD.len(),
                    "ns_above_empty": round(figure.nanoseconds),
                    "empty_ns": round(figure.empty),
                })
            })
            .collect();
        let program = json!({
            "instructions": size.instructions,
            "verified_instructions": verified,
            "machine_code_bytes": size.machine_code,
            "stack_bytes": size.stack,
        });
        println!("{:#}", json!({ "fastpath": figures, "program": program }));
    } else {
        println!("{} bytes of data a packet; ns above an empty program", PAYLOAD.len());
        for figure in &figures {
            println!(
                "{:<24} {:>6} flows {:>7.1} ns   (empty: {:.1} ns)",
                figure.name, figure.flows, figure.nanoseconds, figure.empty
            );
        }
        println!(
            "program: {} instructions, {verified} verified, {} bytes of machine code, {} bytes of stack",
            size.instructions, size.machine_code, size.stack
        );
    }
    Ok(())
}

/// Maps for so many flows, each with two records and an allocation of its own.
fn capacities(flows: u32) -> Capacities {
    Capacities { flows: 2 * flows, allocations: flows }
}

/// A packet for each flow, in one buffer: ten thousand of them side by side would push the program's own memory, which is
/// what is measured, out of the caches.
struct Packets {
    buffer: Vec<u8>,
    /// Where packets differ.
    places: Vec<usize>,
    /// What stands there, one packet after the other.
    values: Vec<u8>,
    next: usize,
}

impl Packets {
    fn new(flows: &[Flow], direction: Direction) -> Self {
        // A prime step visits all flows, in an order that no prefetcher follows.
        let packets: Vec<Vec<u8>> = (0..flows.len())
            .map(|index| flows[index * 7919 % flows.len()].packet(direction, &PAYLOAD).bytes())
            .collect();
        let buffer = packets[0].clone();
        let differs = |place: &usize| packets.iter().any(|packet| packet[*place] != buffer[*place]);
        let places: Vec<usize> = (0..buffer.len()).filter(differs).collect();
        let values = packets.iter().flat_map(|packet| places.iter().map(|place| packet[*place])).collect();
        Self { buffer, places, values, next: 0 }
    }

    fn next(&mut self) -> &[u8] {
        if !self.places.is_empty() {
            let values = &self.values[self.next..self.next + self.places.len()];
            for (place, value) in self.places.iter().zip(values) {
                self.buffer[*place] = *value;
            }
            self.next = (self.next + values.len()) % self.values.len();
        }
        &self.buffer
    }
}

/// Time above an empty program, and the empty program's.
fn measure(program: BorrowedFd<'_>, empty: BorrowedFd<'_>, packets: &mut Packets) -> Result<(f64, f64)> {
    for _ in 0..RUNS {
        let (_, verdict) = sys::time_run(program, packets.next())?;
        ensure!(verdict == XDP_TX, "a packet was not transmitted: {verdict}");
    }
    let mut differences = Vec::new();
    let mut bases = Vec::new();
    for _ in 0..ROUNDS {
        let base = mean(empty, packets)?;
        differences.push(mean(program, packets)? - base);
        bases.push(base);
    }
    Ok((median(&mut differences), median(&mut bases)))
}

fn mean(program: BorrowedFd<'_>, packets: &mut Packets) -> Result<f64> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        times.push(sys::time_run(program, packets.next())?.0);
    }
    times.sort_unstable();
    times.truncate(RUNS - RUNS / 100);
    let sum: f64 = times.iter().copied().map(f64::from).sum();
    Ok(sum / f64::from(u32::try_from(times.len())?))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
