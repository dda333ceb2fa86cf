//! Hosts on one link: three relays, clients, peers, and one for what the relays share, which is also the name server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hairpin_tests::lab::Namespace;
use hairpin_tests::lab::process::Process;
use hairpin_tests::lab::server::is_installed;

/// The relays' hosts have the addresses of `deploy/dns`.
pub(crate) const RELAYS: [u8; 3] = [11, 12, 13];
const SERVICES: u8 = 53;
const CLIENTS: u8 = 200;
const PEERS: u8 = 100;
/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const NAME_SERVER: SocketAddr = SocketAddr::new(ip(SERVICES), 53);
/// Where what is relayed comes back from.
pub(crate) const PEER: IpAddr = ip(PEERS);

pub(crate) const fn ip(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, host))
}

/// The hosts, and the name server.
pub(crate) struct Network {
    pub(crate) relays: [Namespace; 3],
    pub(crate) services: Namespace,
    pub(crate) clients: Namespace,
    pub(crate) peers: Namespace,
    _switch: Namespace,
    _names: Process,
}

impl Network {
    /// `None`, with a word why, if there is no name server to be had.
    pub(crate) fn new() -> Option<Self> {
        if !is_installed("dnsmasq") {
            return None;
        }
        let switch = Namespace::new("switch");
        switch.ip("link add bridge type bridge\nlink set bridge up");
        let host = |role: &str, number: u8| {
            let host = Namespace::new(role);
            let port = format!("to-{number}");
            switch.ip(&format!(
                "link add {port} type veth peer name eth0 netns {}
                 link set {port} master bridge
                 link set {port} up",
                host.name()
            ));
            host.ip(&format!(
                "addr add {}/24 dev eth0
                 addr add 2001:db8:113::{number}/64 dev eth0
                 link set eth0 up",
                ip(number)
            ));
            host
        };
        let relays = RELAYS.map(|number| host(&format!("turn{}", number - 10), number));
        let services = host("services", SERVICES);
        let clients = host("clients", CLIENTS);
        let peers = host("peers", PEERS);
        let names = name_server(&services);
        clients.resolve_by(NAME_SERVER.ip());
        Some(Self { relays, services, clients, peers, _switch: switch, _names: names })
    }
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").join(path)
}

/// Reads its records from the example as it is.
fn name_server(services: &Namespace) -> Process {
    let records = repository("deploy/dns/dnsmasq.conf");
    let mut command = services.command("dnsmasq");
    command.arg(format!("--conf-file={}", records.display()));
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--pid-file",
        "--user=root",
    ]);
    command.arg(format!("--listen-address={}", NAME_SERVER.ip()));
    let process = Process::spawn(&mut command);
    let end = Instant::now() + PATIENCE;
    while services.udp_sockets(NAME_SERVER.port()) == 0 {
        assert!(Instant::now() < end, "dnsmasq does not listen: {}", process.wait(Duration::ZERO));
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}
