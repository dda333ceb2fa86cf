//! The options of `hairpin serve`: what each takes, what it is unless it is given, and what it means.
//!
//! This is the one place that says so. Keys of the file, variables of the environment, the example file and the reference
//! are all made from it (`settings`). For that, each option keeps to some habits: it takes values, also a switch; help
//! that ends in `[default: ...]` says what holds where no default value is; and `hide_env_values` marks a secret.

#![expect(clippy::struct_field_names, reason = "fields are called as the flags are")]

use std::path::PathBuf;
use std::time::Duration;

use hairpin_proto::turn::{AlternateServer, NonceKey, RelayAddress};
use ipnet::IpNet;

use super::users::{Directory, Users};
use crate::cli::value::{
    AlternateAddress, OrOff, admin_address, admin_socket, alternate_server, bit_rate, drain_timeout, interface,
    listener, log_filter, max_lifetime, mintings, nat_discovery, network, nonce_key, origin, otlp_endpoint,
    packet_rate, port_range, relay_address, token, ttl,
};
use crate::config::{AdminAddr, AllocationLog, Listener, PortRange, Rate};
use crate::datapath::XdpMode;
use crate::log::Format;

/// More have no port each on any host with fewer than 16 addresses.
pub(super) const MAX_ALLOCATIONS: i64 = 1_000_000;
/// 4 GiB.
const MAX_KERNEL_RECORDS: i64 = 1 << 24;

/// All of them, by what they are about.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(super) listeners: Listeners,
    #[command(flatten)]
    pub(super) relaying: Relaying,
    #[command(flatten)]
    pub(super) users: Users,
    #[command(flatten)]
    pub(super) directory: Directory,
    #[command(flatten)]
    pub(super) fleet: Fleet,
    #[command(flatten)]
    pub(super) peers: Peers,
    #[command(flatten)]
    pub(super) kernel: Kernel,
    #[command(flatten)]
    pub(super) limits: Limits,
    #[command(flatten)]
    pub(super) admin: Admin,
    #[command(flatten)]
    pub(super) credentials: Credentials,
    #[command(flatten)]
    pub(super) log: Log,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Process")]
pub(super) struct Process {
    /// File with options, each a key of TOML without its dashes; flags and variables are above it [default:
    /// /etc/hairpin/hairpin.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Number of threads that serve packets [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) shards: Option<u32>,

    /// Where state is kept over restarts [default: $STATE_DIRECTORY in a service of systemd,
    /// else /var/lib/hairpin for root, else ~/.local/state/hairpin]
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,

    /// How long allocations and sessions that are there may go on after SIGTERM or SIGINT, while new clients are sent
    /// elsewhere, such as 30s or 1h
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = drain_timeout)]
    pub(super) drain_timeout: Duration,

    /// Whether a drain that a signal begins (SIGTERM, SIGUSR1) sends clients that are there to an alternate-server, too, when
    /// they refresh what they have; `hairpin drain` says so by --move
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true)]
    pub(super) drain_move: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Listeners")]
pub(super) struct Listeners {
    /// Where clients reach the server: udp (if none is named), tcp, tls or dtls, address and port, and, behind a 1:1 NAT,
    /// the address outside; may be repeated. What is given for one address and port as tcp and tls, or as udp and dtls, is
    /// told apart by its first byte [default: udp and tcp port 3478 of every address]
    #[arg(long, value_name = "[TRANSPORT:]ADDR:PORT[=PUBLIC-IP]", value_parser = listener)]
    pub(super) listen: Vec<Listener>,

    /// PEM file with the certificate for tls and dtls, and those of the authorities between it and the root; may be
    /// repeated, the one for the name that a client asks for is shown, else the first
    #[arg(long, value_name = "FILE")]
    pub(super) certificate: Vec<PathBuf>,

    /// PEM file with the key of the certificate at the same place; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) private_key: Vec<PathBuf>,

    /// Load balancers: their connections over tcp and tls must begin with a header of the PROXY protocol, version 2, that
    /// says for whom they are; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub(super) proxy_protocol: Vec<IpNet>,

    /// Another server to send clients to when this one is full or drained: turn: for clients over udp and tcp, turns: for
    /// those over tls and dtls, neither for both; with the name in its certificate if that differs from ours; may be
    /// repeated, they are taken in turn
    #[arg(long, value_name = "[turn:|turns:]ADDR:PORT[=DOMAIN]", value_parser = alternate_server)]
    pub(super) alternate_server: Vec<AlternateServer>,

    /// A second address of this host, for clients that find out what kind of NAT they are behind (RFC 5780), and its
    /// second port, else the one after the listener's; the listener's own address serves what one address can; may be
    /// repeated, once for each IP version
    #[arg(long, value_name = "IP[:PORT][=PUBLIC-IP]", value_parser = nat_discovery)]
    pub(super) nat_discovery: Vec<AlternateAddress>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Relaying")]
pub(super) struct Relaying {
    /// Address that relayed addresses are made of, and, behind a 1:1 NAT, the address it has outside; may be repeated
    /// [default: the addresses that this host reaches the Internet from]
    #[arg(long, value_name = "IP[=PUBLIC-IP]", value_parser = relay_address)]
    pub(super) relay_address: Vec<RelayAddress>,

    /// Ports that relayed addresses are made of
    #[arg(long, value_name = "MIN-MAX", default_value_t = PortRange::DYNAMIC, value_parser = port_range)]
    pub(super) relay_ports: PortRange,

    /// Those of the relay ports that nobody gets but users for whom an address is reserved (see reserved-address)
    /// [default: none]
    #[arg(long, value_name = "MIN-MAX", value_parser = port_range)]
    pub(super) reserved_ports: Option<PortRange>,

    /// Let clients have connections with peers over TCP (RFC 6062)
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true)]
    pub(super) tcp_relay: bool,

    /// Let clients move to another address with their allocation (RFC 8016)
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true)]
    pub(super) mobility: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Fleet")]
pub(super) struct Fleet {
    /// Text of at least 32 characters that nonces are made with: relays that share it take each other's, so a client can
    /// come to any of them; may be repeated, the first makes nonces, all are known [default: a random one is drawn at each
    /// start]
    #[arg(long, value_name = "TEXT", hide_env_values = true, value_parser = nonce_key)]
    pub(super) nonce_key: Vec<NonceKey>,

    /// File with such texts, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) nonce_key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Peers")]
pub(super) struct Peers {
    /// Allow these peers although the default rules, or a wider network of denied ones, forbid them; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub(super) allow_peer: Vec<IpNet>,

    /// Forbid these peers; may be repeated. The most specific rule wins; of equal ones, the one that denies
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub(super) deny_peer: Vec<IpNet>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kernel")]
pub(super) struct Kernel {
    /// Forwarding in the kernel: auto takes native, else generic, else none
    #[arg(long, value_name = "MODE", value_enum, default_value_t = XdpMode::Auto)]
    pub(super) xdp: XdpMode,

    /// Interface whose packets are forwarded in the kernel; may be repeated [default: those of the default routes, and
    /// those with an address of a listener or of relayed addresses]
    #[arg(long, value_name = "IF", value_parser = interface)]
    pub(super) interface: Vec<String>,

    /// Records that the kernel has room for: two for each relayed address, one for each permission, two for each channel,
    /// 172 bytes each [default: 8 for each allocation, 8 for each session, and
    /// 256 for listeners]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=MAX_KERNEL_RECORDS))]
    pub(super) kernel_records: Option<u32>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct Limits {
    /// Allocations that there may be at once, shared out to the shards evenly [default: as many as the relay ports allow,
    /// at most 16384]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_allocations: Option<u32>,

    /// Allocations that clients at one source address (of IPv6, one /64) may have at once [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_allocations_per_source: Option<u32>,

    /// Permissions that one allocation may have at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) max_permissions: u32,

    /// Channels that one allocation may have at once, those included that have expired and may not be bound anew yet
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(super) max_channels: u32,

    /// Longest lifetime of an allocation until it has to be refreshed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = max_lifetime)]
    pub(super) max_lifetime: Duration,

    /// Sessions of two legs (ICE-lite or plain RTP) that the admin interface may create, rounded up to as many for each shard; 0 for
    /// none. For each component of a stream, one takes two relay ports of each relay address, and as many open files
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=MAX_ALLOCATIONS))]
    pub(super) ice_max_sessions: u32,

    /// Connections over tcp and tls, and associations over dtls, that there may be at once [default: as many as
    /// allocations, and as many as may be new]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_connections: Option<u32>,

    /// Such connections of clients that have no allocation (yet); one more, and the oldest of them is closed
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_new_connections: u32,

    /// The same of one source address (of IPv6, one /64); one more is refused
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=MAX_ALLOCATIONS))]
    pub(super) max_new_connections_per_source: u32,

    /// Bits of application data a second for each allocation, in each direction; one second's worth may come at once.
    /// 500k, 20M, 1G or off
    #[arg(long, value_name = "BITS|off", default_value_t = Rate::Off, value_parser = bit_rate)]
    pub(super) allocation_bit_rate: Rate,

    /// Datagrams a second for each allocation, in each direction; one second's worth may come at once
    #[arg(long, value_name = "N|off", default_value_t = Rate::Off, value_parser = packet_rate)]
    pub(super) allocation_packet_rate: Rate,

    /// Bits of application data a second for the whole relay, both directions together; 100 ms' worth may come at once
    #[arg(long, value_name = "BITS|off", default_value_t = Rate::Off, value_parser = bit_rate)]
    pub(super) relay_bit_rate: Rate,

    /// Datagrams a second that one source address (of IPv6, one /64) without an allocation may send to the server:
    /// Binding and first Allocate requests, garbage; one second's worth may come at once
    #[arg(long, value_name = "N|off", default_value = "1000", value_parser = packet_rate)]
    pub(super) source_packet_rate: Rate,

    /// Such datagrams a second of all sources together that reach the daemon; one second's worth may come at once
    #[arg(long, value_name = "N|off", default_value = "50000", value_parser = packet_rate)]
    pub(super) control_packet_rate: Rate,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Admin")]
pub(super) struct Admin {
    /// Address of metrics and health checks over HTTP, and of the rest of the admin interface for who has a token; or off
    #[arg(long, value_name = "ADDR:PORT|off", default_value = "127.0.0.1:9641", value_parser = admin_address)]
    pub(super) admin: AdminAddr,

    /// Unix socket of the admin interface, or off [default: one that systemd passes, else
    /// /run/hairpin/admin.sock for root, else $XDG_RUNTIME_DIR/hairpin/admin.sock]
    #[arg(long, value_name = "PATH|off", value_parser = admin_socket)]
    pub(super) admin_socket: Option<OrOff<PathBuf>>,

    /// Bearer token that opens the whole admin interface over HTTP; may be repeated, all are valid
    #[arg(long, value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    pub(super) admin_token: Vec<String>,

    /// File with such tokens, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Credentials for applications")]
pub(super) struct Credentials {
    /// Bearer token that may mint credentials over HTTP, and do nothing else; may be repeated, all are valid
    #[arg(long, value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    pub(super) credentials_token: Vec<String>,

    /// File with such tokens, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) credentials_token_file: Option<PathBuf>,

    #[allow(rustdoc::bare_urls, reason = "it is the text of the help")]
    /// Web site whose pages may mint credentials (CORS), such as https://app.example.org, or * for any; may be repeated
    #[arg(long, value_name = "ORIGIN|*", value_parser = origin)]
    pub(super) credentials_origin: Vec<String>,

    /// Credentials that are minted in a second at most
    #[arg(long, value_name = "N|off", default_value = "100", value_parser = mintings)]
    pub(super) credentials_rate: Rate,

    /// How long a minted credential is valid, unless a shorter time is asked for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    pub(super) credentials_ttl: Duration,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(super) struct Log {
    /// What is logged: a level (off, error, warn, info, debug, trace), or filters such as info,hairpin::shard=debug
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub(super) log: String,

    /// How: auto is journal where standard error is journald's, else text
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Auto)]
    pub(super) log_format: Format,

    /// Level of the two lines about an allocation, and about a media session: one when it begins, one with reason and totals when it
    /// ends
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = AllocationLog::Info)]
    pub(super) log_allocations: AllocationLog,

    /// Log every Nth allocation only
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) log_sample: u32,

    /// Let these lines say the clients' addresses
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true", hide_possible_values = true)]
    pub(super) log_client_addresses: bool,

    /// Where traces of requests are sent: an endpoint of OTLP over HTTP, such as http://127.0.0.1:4318; or off
    #[arg(long, value_name = "URL|off", default_value = "off", value_parser = otlp_endpoint)]
    pub(super) otlp: OrOff<String>,

    /// Trace every Nth request only
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) otlp_sample: u32,
}
