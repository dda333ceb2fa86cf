//! `hairpin serve`: its options, and what they mean together.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use hairpin_proto::turn::{AlternateServer, RelayAddress};
use ipnet::IpNet;

use super::value::{
    AlternateAddress, admin_address, alternate_server, bit_rate, interface, listener, nat_discovery, network,
    packet_rate, port_range, realm, relay_address, secret, user,
};
use super::{listeners, log, usage_error};
use crate::capacity::allocations_by_ports;
use crate::config::{AdminAddr, Authentication, Config, Connections, Listener, PortRange, Rate, Rates, User};
use crate::datapath::XdpMode;
use crate::net::source_address_towards;
use crate::{relay, state};

/// More have no port each on any host with fewer than 16 addresses.
const MAX_ALLOCATIONS: i64 = 1_000_000;
/// 4 GiB.
const MAX_KERNEL_RECORDS: i64 = 1 << 24;

/// Run the relay.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where clients reach the server: udp (if none is named), tcp, tls or dtls, address and port, and, behind a 1:1 NAT,
    /// the address outside; may be repeated. What is given for one address and port as tcp and tls, or as udp and dtls, is
    /// told apart by its first byte [default: udp and tcp port 3478 of every address]
    #[arg(long, value_name = "[TRANSPORT:]ADDR:PORT[=PUBLIC-IP]", value_parser = listener)]
    listen: Vec<Listener>,

    /// PEM file with the certificate for tls and dtls, and those of the authorities between it and the root; may be
    /// repeated, the one for the name that a client asks for is shown, else the first
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,

    /// PEM file with the key of the certificate at the same place
    #[arg(long, value_name = "FILE")]
    private_key: Vec<PathBuf>,

    /// Let clients have connections with peers over TCP (RFC 6062)
    #[arg(long)]
    tcp_relay: bool,

    /// Let clients move to another address with their allocation (RFC 8016)
    #[arg(long)]
    mobility: bool,

    /// Another server to send clients to when this one is full or drained: turn: for clients over udp and tcp, turns: for
    /// those over tls and dtls, neither for both; with the name in its certificate if that differs from ours; may be
    /// repeated, they are taken in turn
    #[arg(long, value_name = "[turn:|turns:]ADDR:PORT[=DOMAIN]", value_parser = alternate_server)]
    alternate_server: Vec<AlternateServer>,

    /// A second address of this host, for clients that find out what kind of NAT they are behind (RFC 5780), and its
    /// second port [default: the one after the listener's]; the listener's own address serves what one address can; may be
    /// repeated, once for each IP version
    #[arg(long, value_name = "IP[:PORT][=PUBLIC-IP]", value_parser = nat_discovery)]
    nat_discovery: Vec<AlternateAddress>,

    /// Load balancers: their connections over tcp and tls must begin with a header of the PROXY protocol, version 2, that
    /// says for whom they are; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network)]
    proxy_protocol: Vec<IpNet>,

    /// Connections over tcp and tls, and associations over dtls, that there may be at once [default: as many as
    /// allocations, and --max-new-connections]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    max_connections: Option<u32>,

    /// Such connections of clients that have no allocation (yet); one more, and the oldest of them is closed
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    max_new_connections: u32,

    /// The same of one source address (of IPv6, one /64); one more is refused
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    max_new_connections_per_source: u32,

    /// Address that relayed addresses are made of, and, behind a 1:1 NAT, the address it has outside; may be repeated
    /// [default: the addresses that this host reaches the Internet from]
    #[arg(long, value_name = "IP[=PUBLIC-IP]", value_parser = relay_address)]
    relay_address: Vec<RelayAddress>,

    /// Ports that relayed addresses are made of
    #[arg(long, value_name = "MIN-MAX", default_value_t = PortRange::DYNAMIC, value_parser = port_range)]
    relay_ports: PortRange,

    /// Realm of the long-term credentials
    #[arg(long, value_name = "REALM", default_value = "hairpin", value_parser = realm)]
    realm: String,

    /// A user that may always relay; may be repeated
    #[arg(long, value_name = "NAME:PASSWORD", env = "HAIRPIN_USER", hide_env_values = true, value_parser = user)]
    user: Vec<User>,

    /// Secret shared with whoever mints credentials that expire; may be repeated, all are valid [default: with no --user
    /// either, a random one is made at the first start and kept in the state directory]
    #[arg(long, value_name = "SECRET", env = "HAIRPIN_AUTH_SECRET", hide_env_values = true, value_parser = secret)]
    auth_secret: Vec<String>,

    /// Allow these peers although the default rules, or a wider --deny-peer, forbid them; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network)]
    allow_peer: Vec<IpNet>,

    /// Forbid these peers; may be repeated. The most specific rule wins; of equal ones, --deny-peer
    #[arg(long, value_name = "CIDR", value_parser = network)]
    deny_peer: Vec<IpNet>,

    /// Forwarding in the kernel: auto takes native, else generic, else none
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpMode::Auto)]
    xdp: XdpMode,

    /// Interface whose packets are forwarded in the kernel; may be repeated [default: those of the default routes, and
    /// those with an address of --listen or --relay-address]
    #[arg(long, value_name = "IF", value_parser = interface)]
    interface: Vec<String>,

    /// Address of metrics and health checks over HTTP, or off
    #[arg(long, value_name = "ADDR:PORT|off", default_value = "127.0.0.1:9641", value_parser = admin_address)]
    admin: AdminAddr,

    /// Number of threads that serve packets [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: Option<u32>,

    /// Allocations that there may be at once, shared out to the shards evenly [default: as many as the relay ports allow,
    /// at most 16384]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    max_allocations: Option<u32>,

    /// Records that the kernel has room for: two for each relayed address, one for each permission, two for each channel,
    /// 172 bytes each [default: 8 for each allocation, and 256 for listeners]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=MAX_KERNEL_RECORDS))]
    kernel_records: Option<u32>,

    /// Bits of application data a second for each allocation, in each direction; one second's worth may come at once.
    /// 500k, 20M, 1G or off
    #[arg(long, value_name = "BITS", default_value_t = Rate::Off, value_parser = bit_rate)]
    allocation_bit_rate: Rate,

    /// Datagrams a second for each allocation, in each direction; one second's worth may come at once
    #[arg(long, value_name = "N|off", default_value_t = Rate::Off, value_parser = packet_rate)]
    allocation_packet_rate: Rate,

    /// Bits of application data a second for the whole relay, both directions together; 100 ms' worth may come at once
    #[arg(long, value_name = "BITS", default_value_t = Rate::Off, value_parser = bit_rate)]
    relay_bit_rate: Rate,

    /// Datagrams a second that one source address (of IPv6, one /64) without an allocation may send to the server:
    /// Binding and first Allocate requests, garbage; one second's worth may come at once
    #[arg(long, value_name = "N|off", default_value = "1000", value_parser = packet_rate)]
    source_packet_rate: Rate,

    /// Such datagrams a second of all sources together that reach the daemon; one second's worth may come at once
    #[arg(long, value_name = "N|off", default_value = "50000", value_parser = packet_rate)]
    control_packet_rate: Rate,

    /// Where state is kept over restarts [default: /var/lib/hairpin for root, else ~/.local/state/hairpin]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the relay until it is told to stop.
pub fn run(args: Args) -> ExitCode {
    if let Err(message) = log::start() {
        return usage_error(&message);
    }
    let config = match args.into_config() {
        Ok(config) => config,
        Err(message) => return usage_error(&message),
    };
    match relay::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Args {
    /// Checks what no option can check alone, and fills in what was left out. An error is one line that names an option.
    fn into_config(self) -> Result<Config, String> {
        let ports = self.relay_ports;
        let mut listeners = if self.listen.is_empty() { listeners::default() } else { self.listen };
        listeners::check(&listeners, ports)?;
        let certificates = listeners::certificates(&listeners, self.certificate, self.private_key)?;
        let has_streams = listeners.iter().any(|listener| listener.transport.is_stream());
        if self.tcp_relay && !has_streams {
            return Err("--tcp-relay needs a --listen tcp:ADDR:PORT or tls:ADDR:PORT".to_owned());
        }
        if let Some(net) = self.proxy_protocol.first().filter(|_| !has_streams) {
            return Err(format!("--proxy-protocol {net} needs a --listen tcp:ADDR:PORT or tls:ADDR:PORT"));
        }

        let shards =
            self.shards.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32).min(256));
        let pairs = ports.max / 2 - ports.min / 2 + 1;
        if u32::from(pairs) < shards && self.shards.is_some() {
            return Err(format!(
                "--relay-ports {ports} has too few ports for --shards {shards}: two are needed for each"
            ));
        }
        let shards = shards.min(u32::from(pairs));

        let relay_addresses = if self.relay_address.is_empty() {
            let found = default_relay_addresses(&listeners);
            if found.is_empty() {
                return Err(
                    "--relay-address is needed: this host has no route to the Internet to find one by".to_owned()
                );
            }
            found
        } else {
            self.relay_address
        };
        for (at, address) in relay_addresses.iter().enumerate() {
            if relay_addresses[..at].iter().any(|other| other.bind == address.bind) {
                return Err(format!("--relay-address {} is given twice", address.bind));
            }
        }
        let discovery = listeners::discovery(&self.nat_discovery, &mut listeners, &relay_addresses, ports)?;
        let translation = listeners::translation(&listeners, &relay_addresses, &self.nat_discovery)?;
        let most = allocations_by_ports(&relay_addresses, ports);
        if let Some(wanted) = self.max_allocations.filter(|wanted| *wanted as usize > most) {
            return Err(format!(
                "--max-allocations {wanted} is more than there are relay ports: {most}, with --relay-ports {ports} and \
                 {} of --relay-address",
                relay_addresses.len()
            ));
        }
        for (at, user) in self.user.iter().enumerate() {
            if self.user[..at].iter().any(|other| other.name == user.name) {
                return Err(format!("--user {} is given twice", user.name));
            }
        }
        if self.xdp == XdpMode::Off && !self.interface.is_empty() {
            return Err("--interface needs another --xdp than off".to_owned());
        }

        let authentication = if self.user.is_empty() && self.auth_secret.is_empty() {
            let state_dir = self.state_dir.or_else(state::default_directory);
            let state_dir =
                state_dir.ok_or("--state-dir is needed: HOME does not say where this user keeps its files")?;
            Authentication::Generated { state_dir }
        } else {
            Authentication::Given { users: self.user, secrets: self.auth_secret }
        };
        Ok(Config {
            listeners,
            certificates,
            proxies: self.proxy_protocol,
            tcp_relay: self.tcp_relay,
            mobility: self.mobility,
            discovery,
            translation,
            alternates: self.alternate_server,
            connections: Connections {
                all: self.max_connections,
                new: self.max_new_connections,
                new_of_source: self.max_new_connections_per_source,
            },
            relay_addresses,
            relay_ports: ports,
            realm: self.realm,
            authentication,
            allow_peers: self.allow_peer,
            deny_peers: self.deny_peer,
            xdp: self.xdp,
            interfaces: self.interface,
            admin: self.admin,
            shards,
            max_allocations: self.max_allocations,
            kernel_records: self.kernel_records,
            rates: Rates {
                allocation_bits: self.allocation_bit_rate,
                allocation_packets: self.allocation_packet_rate,
                relay_bits: self.relay_bit_rate,
                source_packets: self.source_packet_rate,
                control_packets: self.control_packet_rate,
            },
        })
    }
}

/// Relayed addresses come from where clients reach the server: a listener's own address, or, for one that listens
/// everywhere, the address that this host reaches the Internet from.
fn default_relay_addresses(listeners: &[Listener]) -> Vec<RelayAddress> {
    let mut found: Vec<RelayAddress> = Vec::new();
    let mut add = |bind: IpAddr, public: IpAddr| {
        if !found.iter().any(|known| known.bind == bind) {
            found.push(RelayAddress { bind, public });
        }
    };
    // Any address of the Internet would do: nothing is sent there, only the route is asked for.
    let internet = [IpAddr::from([192, 88, 99, 1]), IpAddr::from([0x2001, 0x4860, 0, 0, 0, 0, 0, 1])];
    for listener in listeners {
        if listener.address.ip().is_unspecified() {
            // A client of one IP version may ask for a relayed address of the other.
            for ip in internet.into_iter().filter_map(source_address_towards) {
                let is_mapped = listener.public != listener.address && listener.public.is_ipv4() == ip.is_ipv4();
                add(ip, if is_mapped { listener.public.ip() } else { ip });
            }
        } else {
            add(listener.address.ip(), listener.public.ip());
        }
    }
    found
}
