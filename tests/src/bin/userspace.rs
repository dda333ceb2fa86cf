//! What the userspace path costs, next to coturn: `tests/bench.sh userspace [--json]`, and `tests/bench.sh streams
//! [--json]` for clients over TCP and TLS next to those over UDP.
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
use hairpin_tests::lab::{Authority, Certificate, Key};
use serde_json::{Value, json};

const PAYLOAD: &str = "160";

/// What is measured, and for how long: each case so many times by either server.
struct Series {
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

const DATAGRAMS: Series = Series {
    rounds: 5,
    duration: "3s",
    cases: &[
        Case { name: "paced", transport: "udp", allocations: "200", rate: "30000" },
        Case { name: "loaded", transport: "udp", allocations: "20", rate: "60000" },
        Case { name: "busy", transport: "udp", allocations: "20", rate: "0" },
    ],
};

const STREAMS: Series = Series {
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

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (json, series, binary) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["userspace", binary] => (false, DATAGRAMS, PathBuf::from(binary)),
        ["userspace", binary, "--json"] => (true, DATAGRAMS, PathBuf::from(binary)),
        ["streams", binary] => (false, STREAMS, PathBuf::from(binary)),
        ["streams", binary, "--json"] => (true, STREAMS, PathBuf::from(binary)),
        _ => anyhow::bail!("usage: userspace userspace|streams PATH-OF-HAIRPIN [--json]"),
    };
    let Series { rounds: count, duration, cases } = series;
    let certificate = Authority::new().issue(Key::Ecdsa, "localhost", &[Ipv4Addr::LOCALHOST.into()]);
    let servers = [Server::hairpin(&binary, &certificate)?, Server::coturn(&certificate)?];
    let mut rows = Vec::new();
    for case in cases {
        let mut rounds = Vec::new();
        for _ in 0..count {
            let [hairpin, coturn] = &servers;
            rounds.push([hairpin.measure(&binary, case, duration)?, coturn.measure(&binary, case, duration)?]);
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
                    "transport": case.transport,
                    "allocations": case.allocations.parse::<u32>().unwrap_or_default(),
                    "rate": case.rate.parse::<u32>().unwrap_or_default(),
                    "hairpin_ns_per_packet": hairpin.round(),
                    "coturn_ns_per_packet": coturn.round(),
                    "packets_per_cpu_second_ratio": (ratio * 100.0).round() / 100.0,
                })
            })
            .collect();
        println!("{}", json!({ "payload_bytes": PAYLOAD.parse::<u32>()?, "rounds": count, "cases": rows }));
    } else {
        println!("CPU per relayed packet of {PAYLOAD} bytes, median of {count} rounds in turn:\n");
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
    /// For UDP and TCP.
    address: SocketAddr,
    /// For TLS.
    secure: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn hairpin(binary: &Path, certificate: &Certificate) -> Result<Self> {
        let (address, secure) = (free_address()?, free_address()?);
        let mut command = Command::new(binary);
        command.args(["serve", "--xdp", "off", "--admin", "off", "--admin-socket", "off"]);
        command.args(["--user", "u:p", "--allow-peer", "127.0.0.0/8"]);
        for (transport, address) in [("udp", address), ("tcp", address), ("tls", secure)] {
            command.args(["--listen", &format!("{transport}:{address}")]);
        }
        command.arg("--certificate").arg(&certificate.file).arg("--private-key").arg(&certificate.private_key);
        Self::start(&mut command, address, secure)
    }

    fn coturn(certificate: &Certificate) -> Result<Self> {
        let (address, secure) = (free_address()?, free_address()?);
        let mut command = Command::new("turnserver");
        command.args(["-n", "--no-cli", "--no-dtls", "-L", "127.0.0.1", "-E", "127.0.0.1", "-a"]);
        command.args(["-u", "u:p", "-r", "realm", "--allow-loopback-peers", "--log-file", "/dev/null"]);
        command.args(["-p", &address.port().to_string(), "--tls-listening-port", &secure.port().to_string()]);
        command.arg("--cert").arg(&certificate.file).arg("--pkey").arg(&certificate.private_key);
        command.args(["--pidfile", "/dev/null"]);
        Self::start(&mut command, address, secure)
    }

    fn start(command: &mut Command, address: SocketAddr, secure: SocketAddr) -> Result<Self> {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.with_context(|| format!("starting {}", command.get_program().display()))?;
        let server = Self { process, address, secure };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !answers(address)? {
            ensure!(Instant::now() < deadline, "{} does not answer", command.get_program().display());
        }
        Ok(server)
    }

    /// Nanoseconds of processor time for each relayed packet.
    fn measure(&self, binary: &Path, case: &Case, duration: &str) -> Result<f64> {
        let server = if case.transport == "tls" { self.secure } else { self.address };
        let before = self.cpu_nanoseconds()?;
        let output = Command::new(binary)
            .args(["load", "--user", "u", "--password", "p", "--mode", "echo", "--json", "--payload", PAYLOAD])
            .args(["--allocations", case.allocations, "--rate", case.rate, "--duration", duration])
            .args(["--server", &server.to_string(), "--transport", case.transport])
            .args((case.transport == "tls").then_some("--tls-insecure"))
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
