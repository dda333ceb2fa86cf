//! How long the XDP program takes for a packet, by its path: `tests/bench.sh fastpath [--json] [--limits] [--own-limit] [--only NAME] [--flows N]`.
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

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use clap::Parser;
use hairpin::datapath::Limits;
use hairpin::datapath::program::Capacities;
use hairpin_common::hash::scale;
use hairpin_common::limit::Limit;
use hairpin_common::slot::{Bucket, buckets_for};
use hairpin_tests::program::{
    bench::Bench,
    frame::Frame,
    line, media,
    setup::{Allocation, Channel, Permission, Setup},
    stun, sys,
    world::{Family, ID, numbered},
};
use hairpin_tests::selection::Selection;
use serde_json::{Value, json};

/// Application data in a packet: 20 ms of audio.
const PAYLOAD: [u8; 160] = [0x5a; 160];
const FLOWS: [u32; 4] = [1, 100, 10_000, 100_000];
const ROUNDS: usize = 5;
const RUNS: usize = 10_000;
/// Of each allocation: two for its relayed address, one for its permission, two for its channel.
const RECORDS: u32 = 5;

/// A limit that nothing reaches.
const WIDE: Limit = Limit::per_second(1_000_000_000_000, 1_000_000_000_000);

/// How the floor is named that no table can be below.
const FLOOR: &str = "one line of an array";

/// A way for data to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    ChannelToUdp,
    UdpToChannel,
    SendToUdp,
    UdpToData,
    RelayToRelay,
    Media,
    Binding,
}

struct Figure {
    name: String,
    flows: u32,
    nanoseconds: f64,
    empty: f64,
}

/// Nanoseconds per packet of the XDP program.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    selection: Selection,
    /// Set every limit, so high that none is reached.
    #[arg(long)]
    limits: bool,
    /// Give a limit of its own to an allocation that sends nothing.
    #[arg(long)]
    own_limit: bool,
}

fn main() -> Result<()> {
    let Options { selection, limits, own_limit } = Options::parse();
    let limits = if limits { limits_of_all() } else { Limits::default() };
    let empty = sys::load_empty().context("loading an empty program")?;
    let mut figures = Vec::new();
    let mut memory = Vec::new();
    for flows in selection.flows(&FLOWS) {
        if FLOOR.contains(&selection.only) {
            let (nanoseconds, empty) = floor(flows, empty.as_fd())?;
            figures.push(Figure { name: FLOOR.to_owned(), flows, nanoseconds, empty });
        }
        for families in
            [[Family::V4, Family::V4], [Family::V6, Family::V6], [Family::V4, Family::V6], [Family::V6, Family::V4]]
        {
            for path in Path::ALL {
                if path == Path::Binding && families[0] != families[1]
                    || !name(path, families).contains(&selection.only)
                {
                    continue;
                }
                // Its maps are as large as an operator would have them for so many flows.
                let setup = path.setup(families, flows);
                let allocations = u32::try_from(setup.indices().count())?.max(1);
                let capacities = Capacities { records: RECORDS * allocations + 2, allocations: allocations + 1 };
                let mut bench = Bench::load(capacities, limits)?;
                bench.install(&setup)?;
                if own_limit {
                    // Of all indices the one that is nobody's.
                    bench.limit(allocations, WIDE, WIDE);
                }
                let mut packets = Packets::new(&path.packets(&setup, families, flows));
                let (nanoseconds, empty) = measure(bench.program.fd()?, empty.as_fd(), &mut packets)?;
                figures.push(Figure { name: name(path, families), flows, nanoseconds, empty });
                if (path, families) == (Path::ChannelToUdp, [Family::V4; 2]) {
                    memory.push((flows, map_memory(&bench)?));
                }
            }
        }
    }
    ensure!(!figures.is_empty(), "no path has {:?} in its name: run it without --only to see them", selection.only);
    let bench = Bench::load(Capacities { records: RECORDS, allocations: 1 }, limits)?;
    let size = sys::size(bench.program.fd()?)?;
    let verified = bench.program.xdp()?.info()?.verified_instruction_count().unwrap_or(0);
    if selection.json {
        println!("{:#}", as_json(&figures, &size, verified, &memory));
    } else {
        println!("{} bytes of data a packet; ns above an empty program", PAYLOAD.len());
        for figure in &figures {
            println!(
                "{:<26} {:>7} flows {:>7.1} ns   (empty: {:.1} ns)",
                figure.name, figure.flows, figure.nanoseconds, figure.empty
            );
        }
        println!(
            "program: {} instructions, {verified} verified, {} bytes of machine code, {} bytes of stack",
            size.instructions, size.machine_code, size.stack
        );
        for (flows, maps) in &memory {
            let sum: u64 = maps.iter().map(|(_, bytes)| bytes).sum();
            println!("maps for {flows} flows: {} KiB", sum.div_ceil(1024));
        }
    }
    Ok(())
}

fn as_json(figures: &[Figure], size: &sys::Size, verified: u32, memory: &[(u32, Vec<(String, u64)>)]) -> Value {
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
    let memory: Vec<_> = memory
        .iter()
        .map(|(flows, maps)| {
            let maps: serde_json::Map<_, _> = maps.iter().map(|(name, bytes)| (name.clone(), json!(bytes))).collect();
            json!({ "flows": flows, "map_bytes": maps })
        })
        .collect();
    json!({ "fastpath": figures, "program": program, "memory": memory })
}

/// What is left of any look-up: a program that reads one line for each packet, in an array as large as the table of flows,
/// of which one line for each flow is ever read.
fn floor(flows: u32, empty: BorrowedFd<'_>) -> Result<(f64, f64)> {
    let entries = buckets_for(RECORDS * flows) * (size_of::<Bucket>() / 64) as u32;
    let lines = line::lines(entries).context("making an array")?;
    let program = line::reader(lines.as_fd()).context("loading a program that reads one line")?;
    let frames: Vec<_> = (0..flows)
        .map(|number| {
            // As far from each other as hashes are.
            let index = scale(u64::from(number.wrapping_mul(0x9e37_79b9)), entries);
            Frame::new(Family::V4.listener(), Family::V4.listener(), [&index.to_ne_bytes()[..], &PAYLOAD].concat())
        })
        .collect();
    measure(program.as_fd(), empty, &mut Packets::new(&frames))
}

impl Path {
    const ALL: [Self; 7] = [
        Self::ChannelToUdp,
        Self::UdpToChannel,
        Self::SendToUdp,
        Self::UdpToData,
        Self::RelayToRelay,
        Self::Media,
        Self::Binding,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ChannelToUdp => "ChannelData -> UDP",
            Self::UdpToChannel => "UDP -> ChannelData",
            Self::SendToUdp => "Send -> UDP",
            Self::UdpToData => "UDP -> Data",
            Self::RelayToRelay => "relay to relay",
            Self::Media => "leg -> leg",
            Self::Binding => "Binding",
        }
    }

    /// A relay with that many flows of it.
    fn setup(self, [arriving, leaving]: [Family; 2], flows: u32) -> Setup {
        let mut setup = Setup::new(Family::ALL.map(Family::listener));
        let bound = matches!(self, Self::ChannelToUdp | Self::UdpToChannel);
        setup.allocations = match self {
            Self::ChannelToUdp | Self::SendToUdp => {
                (0..flows).map(|number| numbered(arriving, leaving, number, bound)).collect()
            }
            Self::UdpToChannel | Self::UdpToData => {
                (0..flows).map(|number| numbered(leaving, arriving, number, bound)).collect()
            }
            // Every two call each other, in channels, by relayed addresses of the first one's IP version.
            Self::RelayToRelay => {
                let client = |number| if number % 2 == 0 { arriving } else { leaving };
                let mut all: Vec<_> = (0..flows.next_multiple_of(2))
                    .map(|number| numbered(client(number), arriving, number, true))
                    .collect();
                for pair in all.chunks_exact_mut(2) {
                    let [first, second] = pair else { continue };
                    call(first, second);
                    call(second, first);
                }
                all
            }
            Self::Media | Self::Binding => Vec::new(),
        };
        if self == Self::Media {
            setup.media = (0..flows).map(|number| media::numbered(arriving, leaving, number)).collect();
        }
        setup
    }

    /// A packet of each flow.
    fn packets(self, setup: &Setup, [arriving, _]: [Family; 2], flows: u32) -> Vec<Frame> {
        let from_client = |allocation: &Allocation, payload| Frame::new(allocation.client, allocation.server, payload);
        // A permission is for every port.
        let peer_of = |allocation: &Allocation| (allocation.permissions[0].peer, 5000).into();
        let each = |packet: &dyn Fn(&Allocation) -> Frame| setup.allocations.iter().map(packet).collect::<Vec<_>>();
        let in_channels = |allocation: &Allocation| {
            from_client(allocation, stun::channel_data(allocation.channels[0].number, &PAYLOAD))
        };
        match self {
            Self::ChannelToUdp => each(&in_channels),
            // The others are of the other IP version.
            Self::RelayToRelay => each(&in_channels).into_iter().step_by(2).collect(),
            Self::SendToUdp => {
                each(&|allocation| from_client(allocation, stun::send_indication(peer_of(allocation), &PAYLOAD, ID)))
            }
            Self::UdpToChannel => {
                each(&|allocation| Frame::new(allocation.channels[0].peer, allocation.relays[0].address, PAYLOAD))
            }
            Self::UdpToData => {
                each(&|allocation| Frame::new(peer_of(allocation), allocation.relays[0].address, PAYLOAD))
            }
            Self::Media => {
                setup.media.iter().map(|path| Frame::new(path.client.remote, path.client.local, PAYLOAD)).collect()
            }
            Self::Binding => (0..flows)
                .map(|number| numbered(arriving, arriving, number, false))
                .map(|client| from_client(&client, stun::binding_request(ID, false)))
                .collect(),
        }
    }
}

/// Makes the relayed address of another the only peer.
fn call(from: &mut Allocation, to: &Allocation) {
    let peer = to.relays[0].address;
    from.permissions = vec![Permission { peer: peer.ip(), live: true }];
    from.channels = vec![Channel { peer, ..from.channels[0] }];
}

fn name(path: Path, [arriving, leaving]: [Family; 2]) -> String {
    let version = |family: Family| if family == Family::V4 { 4 } else { 6 };
    format!("{} {}->{}", path.name(), version(arriving), version(leaving))
}

/// Limits of every kind, none of which is reached.
fn limits_of_all() -> Limits {
    Limits {
        allocation_packets: WIDE,
        allocation_bytes: WIDE,
        relay_bytes: WIDE,
        source_packets: WIDE,
        control_packets: WIDE,
    }
}

/// What the kernel charges for each map, in bytes.
fn map_memory(bench: &Bench) -> Result<Vec<(String, u64)>> {
    let ids = bench.program.xdp()?.info()?.map_ids()?.context("the kernel knows the maps of a program")?;
    ids.into_iter()
        .map(|id| {
            let info = MapInfo::from_id(id)?;
            let map = info.fd()?;
            let description = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
            let charged = description.lines().find_map(|line| line.strip_prefix("memlock:"));
            let bytes = charged.context("the kernel says what a map takes")?.trim().parse()?;
            Ok((info.name_as_str().unwrap_or_default().to_owned(), bytes))
        })
        .collect()
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
    fn new(frames: &[Frame]) -> Self {
        // A prime step visits all flows, in an order that no prefetcher follows.
        let packets: Vec<Vec<u8>> =
            (0..frames.len()).map(|index| frames[index * 7919 % frames.len()].bytes()).collect();
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
        ensure!(verdict == sys::TRANSMITTED, "a packet was not transmitted: {verdict}");
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
