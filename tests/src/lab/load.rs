//! The load generator, between a client and a peer of the lab.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::process::{self, Process};
use super::relay::{PASSWORD, PORT, USER, binary};
use super::topology::{Family, Lab};

/// The port of the echoing peer.
const PEER_PORT: u16 = 7000;
/// Whatever else this host does shall not make the generator late.
const FIRST: [&str; 2] = ["-n", "-10"];

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Packets a second that the clients send; each is relayed twice, there and back.
    pub rate: u32,
    /// For how long, in seconds.
    pub seconds: u32,
    /// Application data in each, in bytes.
    pub payload: u32,
    /// How many allocations share the rate.
    pub allocations: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the generator printed, as JSON.
    pub report: Value,
    /// The echoing peer, which may still have something to send back.
    _peer: Process,
}

/// A generator that is sending.
#[derive(Debug)]
pub struct Running {
    generator: Process,
    limit: Duration,
    peer: Process,
}

impl Load {
    /// Sends it from the first client of a lab to the first peer and back.
    ///
    /// # Panics
    /// When nothing comes back, with what the generator said.
    pub fn run(&self, lab: &Lab, family: Family) -> Outcome {
        self.begin(lab, SocketAddr::new(Lab::relay_ip(family), PORT), &[]).end()
    }

    /// Begins to send it by a server's address, with more options of the generator.
    pub fn begin(&self, lab: &Lab, server: SocketAddr, options: &[&str]) -> Running {
        let family = if server.is_ipv4() { Family::V4 } else { Family::V6 };
        let peer = echo_peer(lab, family);
        let peer_address = SocketAddr::new(Lab::peer_ip(family, 0), PEER_PORT).to_string();
        let mut command = lab.clients[0].command("nice");
        command.args(FIRST).arg(binary());
        command.args(["load", "--server", &server.to_string(), "--peer", &peer_address]);
        command.args(["--user", USER, "--password", PASSWORD]).args(options);
        for (option, value) in [("--rate", self.rate), ("--payload", self.payload), ("--allocations", self.allocations)]
        {
            command.args([option, &value.to_string()]);
        }
        command.args(["--mode", "echo", "--json", "--duration", &format!("{}s", self.seconds)]);
        let limit = Duration::from_secs(u64::from(self.seconds)) + process::PATIENCE;
        Running { generator: Process::spawn(&mut command), limit, peer }
    }
}

impl Running {
    /// Has it send no more; what is under way still comes back.
    pub fn stop(self) -> Outcome {
        self.generator.signal(Signal::INT);
        self.end()
    }

    /// Waits until it has sent all.
    ///
    /// # Panics
    /// When nothing comes back, with what the generator said.
    pub fn end(self) -> Outcome {
        let report = self.generator.wait(self.limit).expect_success();
        let report = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
        Outcome { report, _peer: self.peer }
    }
}

impl Outcome {
    /// A count of the report; 0 for one that the generator could not take.
    pub fn count(&self, field: &str) -> u64 {
        let value = self.report.get(field).unwrap_or_else(|| panic!("no {field} in {}", self.report));
        value.as_u64().unwrap_or_default()
    }
}

/// `hairpin echo-peer` on the first peer, listening.
fn echo_peer(lab: &Lab, family: Family) -> Process {
    let listen = SocketAddr::new(Lab::peer_ip(family, 0), PEER_PORT).to_string();
    let mut command = lab.peers[0].command("nice");
    let process = Process::spawn(command.args(FIRST).arg(binary()).args(["echo-peer", "--listen", &listen]));
    let end = Instant::now() + process::PATIENCE;
    while lab.peers[0].udp_sockets(PEER_PORT) == 0 {
        assert!(Instant::now() < end, "the peer does not listen: {}", process.wait(Duration::ZERO));
        thread::sleep(Duration::from_millis(10));
    }
    process
}
