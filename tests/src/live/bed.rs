//! Two veth pairs between the same two namespaces: at the far end of one is the relay, of the other a reflector.
//!
//! ```text
//!   generator ── far ──────── near ── relay
//!   generator ── far ──────── near ── reflector
//! ```
//!
//! No other network is reached from here, and no default route leads anywhere, so frames may be sent blindly.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::lab::relay::{PASSWORD, PORT, Relay, USER, binary};
use crate::lab::{Family, Namespace, process};

/// How long the kernel may take to start a thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// A veth pair, by its ends.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Where the generator is.
    pub far: String,
    /// Where the relay or the reflector is.
    pub near: String,
    /// Link-layer address of the generator's end.
    pub far_mac: [u8; 6],
    /// Link-layer address of the other end.
    pub near_mac: [u8; 6],
}

/// The network of a live benchmark.
#[derive(Debug)]
pub struct Bed {
    /// Where frames are made and counted, and where clients and peers are.
    pub generator: Namespace,
    /// Where the relay is, and the reflector.
    pub relay: Namespace,
    /// The link to the relay.
    pub relay_link: Pair,
    /// The link to the reflector.
    pub reflector_link: Pair,
}

impl Bed {
    /// Builds it.
    pub fn new() -> Self {
        let (generator, relay) = (Namespace::new("generator"), Namespace::new("relay"));
        let [relay_link, reflector_link] = [0, 1].map(|number| join(&generator, &relay, number));
        for (namespace, link, end) in [(&generator, &relay_link.far, 1), (&relay, &relay_link.near, 2)] {
            for family in Family::ALL {
                let (ip, bits) = (address(family, end), if family == Family::V4 { 24 } else { 64 });
                namespace.ip(&format!("addr add {ip}/{bits} dev {link} {}", nodad(family)));
            }
        }
        Self { generator, relay, relay_link, reflector_link }
    }

    /// Address of the relay.
    pub fn relay_ip(family: Family) -> IpAddr {
        address(family, 2)
    }

    /// Address of clients and peers.
    pub fn generator_ip(family: Family) -> IpAddr {
        address(family, 1)
    }

    /// Starts a relay with native XDP, and relayed addresses of both families.
    pub fn start_relay(&self, arguments: &[&str]) -> Relay<'_> {
        let mut command = self.relay.command(binary());
        command.args(["serve", "--user", &format!("{USER}:{PASSWORD}")]);
        command.args(["--xdp", "native", "--interface", &self.relay_link.near]);
        for family in Family::ALL {
            let ip = Self::relay_ip(family).to_string();
            command.args(["--relay-address", &ip]);
            command.args(["--listen", &std::net::SocketAddr::new(Self::relay_ip(family), PORT).to_string()]);
        }
        Relay::start_with(&self.relay, command.args(arguments))
    }

    /// Lets a thread of its own, on this CPU, take what arrives at both ends that are measured. They must have their
    /// XDP programs by now.
    pub fn pin_receivers(&self, cpu: usize) -> Result<()> {
        for Pair { near, .. } in [&self.relay_link, &self.reflector_link] {
            let script = format!("echo 1 > /sys/class/net/{near}/threaded");
            process::run(self.relay.command("sh").args(["-c", &script])).expect_success();
            let pid = receiver_thread(near)?;
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(Some(pid), &cpus).with_context(|| format!("pinning the receiver of {near}"))?;
            // What else this machine does shall not be measured.
            let pid = pid.as_raw_nonzero().to_string();
            process::run(std::process::Command::new("renice").args(["-n", "-20", "-p", &pid])).expect_success();
        }
        Ok(())
    }
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

fn address(family: Family, end: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([11, 9, 0, end]),
        Family::V6 => IpAddr::from([0x2a0e, 0x11, 9, 0, 0, 0, 0, u16::from(end)]),
    }
}

fn nodad(family: Family) -> &'static str {
    if family == Family::V6 { "nodad" } else { "" }
}

/// The names are of this process: threads of the kernel are told apart by them, over all namespaces.
fn join(generator: &Namespace, relay: &Namespace, number: u8) -> Pair {
    let id = std::process::id() % 100_000_000;
    let pair = Pair {
        far: format!("hf{id}n{number}"),
        near: format!("hn{id}n{number}"),
        far_mac: [0x02, 0, 0, 9, number, 1],
        near_mac: [0x02, 0, 0, 9, number, 2],
    };
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let one_queue = "numtxqueues 1 numrxqueues 1";
    let (far, near) = (&pair.far, &pair.near);
    let (far_mac, near_mac) = (mac(pair.far_mac), mac(pair.near_mac));
    generator.ip(&format!(
        "link add {far} address {far_mac} {one_queue} type veth peer name {near} address {near_mac} {one_queue} netns {}",
        relay.name()
    ));
    for (namespace, link) in [(generator, far), (relay, near)] {
        namespace.ip(&format!("link set {link} up"));
        // A checksum that is left to hardware never comes to be on a veth.
        process::run(namespace.command("ethtool").args(["-K", link, "tx", "off"])).expect_success();
    }
    pair
}

/// The kernel's thread that receives for an interface.
fn receiver_thread(interface: &str) -> Result<Pid> {
    let name = format!("napi/{interface}-");
    let end = Instant::now() + PATIENCE;
    loop {
        let named =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(&name));
        let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        if let Some(pid) = processes.into_iter().find(named).and_then(Pid::from_raw) {
            return Ok(pid);
        }
        ensure!(Instant::now() < end, "the kernel has no thread {name}*: it does not know threaded NAPI (Linux 5.12)");
        std::thread::sleep(Duration::from_millis(10));
    }
}
