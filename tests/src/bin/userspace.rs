//! What the userspace path costs, next to coturn: `tests/bench.sh userspace [--json]`.
//!
//! Both servers relay the same load over loopback, in turn, and what counts is the processor time each took for a relayed
//! datagram (an echo is two). Loopback charges the sender with the receiver's part of the stack, so the figures are those
//! of a whole trip, for both. Of the cases, `paced` has nothing to join: 200 callers whose datagrams come one by one.
//! `busy` is as fast as 20 callers can; their datagrams stand in line, and the relay takes them as trains.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const ROUNDS: usize = 5;
const SECONDS: &str = "3s";
const PAYLOAD: &str = "160";

struct Case {
    name: &'static str,
    allocations: &'static str,
    /// Packets a second that clients send; 0: as fast as they come back.
    rate: &'static str,
}

const CASES: [Case; 3] = [
    Case { name: "paced", allocations: "200", rate: "30000" },
    Case { name: "loaded", allocations: "20", rate: "60000" },
    Case { name: "busy", allocations: "20", rate: "0" },
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (json, binary) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [binary] => (false, PathBuf::from(binary)),
        [binary, "--json"] => (true, PathBuf::from(binary)),
        _ => anyhow::bail!("usage: userspace PATH-OF-HAIRPIN [--json]"),
    };
    let servers = [Server::hairpin(&binary)?, Server::coturn()?];
    let mut rows = Vec::new();
    for case in &CASES {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let [hairpin, coturn] = &servers;
            rounds.push([hairpin.measure(&binary, case)?, coturn.measure(&binary, case)?]);
        }
        let of = |server: usize| median(rounds.iter().map(|round| round[server]).collect());
        let ratio = median(rounds.iter().map(|[hairpin, coturn]| coturn / hairpin).collect());
        rows.push((case, of(0), of(1), ratio));
    }
    if json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(case, hairpin, coturn, ratio)| {
                json!({
                    "case": case.name,
                    "allocations": case.allocations.parse::<u32>().unwrap_or_default(),
                    "rate": case.rate.parse::<u32>().unwrap_or_default(),
                    "hairpin_ns_per_packet": hairpin.round(),
                    "coturn_ns_per_packet": coturn.round(),
                    "packets_per_cpu_second_ratio": (ratio * 100.0).round() / 100.0,
                })
            })
            .collect();
        println!("{}", json!({ "payload_bytes": PAYLOAD.parse::<u32>()?, "rounds": ROUNDS, "cases": rows }));
    } else {
        println!("CPU per relayed packet of {PAYLOAD} bytes, median of {ROUNDS} rounds in turn:\n");
        for (case, hairpin, coturn, ratio) in rows {
            let rate =
                if case.rate == "0" { "as fast as it goes".to_owned() } else { format!("{} packets/s", case.rate) };
            let name = format!("{}: {} allocations, {rate}", case.name, case.allocations);
            println!("{name:48} hairpin {hairpin:6.0} ns   coturn {coturn:6.0} ns   ratio {ratio:.2}");
        }
        println!(
            "\nratio: packets that Hairpin relays for each that coturn relays with the same processor time; the median of the"
        );
        println!("rounds' ratios, which on a busy machine need not be the ratio of the medians");
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A TURN server on loopback; ends when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn hairpin(binary: &Path) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(binary);
        command.args(["serve", "--xdp", "off", "--admin", "off", "--user", "u:p", "--allow-peer", "127.0.0.0/8"]);
        Self::start(command.arg("--listen").arg(address.to_string()), address)
    }

    fn coturn() -> Result<Self> {
        let address = free_address()?;
        let port = address.port().to_string();
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-tls", "--no-dtls", "-L", "127.0.0.1", "-E", "127.0.0.1", "-a"]);
        command.args(["-u", "u:p", "-r", "realm", "--allow-loopback-peers", "--log-file", "/dev/null", "-p", &port]);
        command.args(["--pidfile", "/dev/null"]);
        Self::start(&mut command, address)
    }

    fn start(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.with_context(|| format!("starting {}", command.get_program().display()))?;
        let server = Self { process, address };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !answers(address)? {
            ensure!(Instant::now() < deadline, "{} does not answer", command.get_program().display());
        }
        Ok(server)
    }

    /// Nanoseconds of processor time for each relayed packet.
    fn measure(&self, binary: &Path, case: &Case) -> Result<f64> {
        let before = self.cpu_nanoseconds()?;
        let output = Command::new(binary)
            .args(["load", "--user", "u", "--password", "p", "--mode", "echo", "--json", "--payload", PAYLOAD])
            .args(["--allocations", case.allocations, "--rate", case.rate, "--duration", SECONDS])
            .args(["--server", &self.address.to_string()])
            .output()?;
        ensure!(output.status.success(), "load failed: {}", String::from_utf8_lossy(&output.stderr));
        let taken = self.cpu_nanoseconds()? - before;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let received = report["packets_received"].as_f64().context("packets_received")?;
        Ok(taken / (2.0 * received))
    }

    fn cpu_nanoseconds(&self) -> Result<f64> {
        // utime and stime are fields 14 and 15; the name in field 2 has no spaces here. The unit is USER_HZ: 10 ms.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let ticks: f64 = stat.split(' ').skip(13).take(2).map(|field| field.parse().unwrap_or(0.0)).sum();
        Ok(ticks * 1e7)
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Whether a STUN server answers a Binding request.
fn answers(server: SocketAddr) -> Result<bool> {
    const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.send_to(&BINDING, server)?;
    Ok(socket.recv(&mut [0; 512]).is_ok())
}
