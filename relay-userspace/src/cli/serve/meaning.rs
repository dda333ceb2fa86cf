//! What the options mean together: a configuration, or all that is wrong with them.

use std::net::IpAddr;
use std::path::PathBuf;

use hairpin_proto::turn::RelayAddress;

use super::args::{Args, Limits};
use super::contradiction::Contradiction;
use super::listeners;
use super::users::{Users, check_realms};
use crate::capacity::allocations_by_ports;
use crate::cli::value::OrOff;
use crate::config::{AdminAddr, AdminSocket, Authentication, Config, Connections, Listener, PortRange, Rates, Realm};
use crate::datapath::XdpMode;
use crate::net::source_address_towards;
use crate::{admin, state};

/// What a realm file means: a realm, and its listeners.
pub(in crate::cli) type RealmFile = (Realm, Vec<Listener>);

impl Args {
    /// Files with other realms.
    pub(in crate::cli) fn realm_files(&self) -> &[PathBuf] {
        &self.directory.realm_file
    }

    /// What a realm file means: a realm, and its listeners.
    pub(in crate::cli) fn into_realm(self) -> Result<RealmFile, Vec<Contradiction>> {
        let mut problems = Vec::new();
        let listeners = self.listeners.listen;
        let none = |_: &mut Vec<_>| Authentication::Given { users: Vec::new(), secrets: Vec::new() };
        let realm = self.users.realm(&listeners, none, &mut problems);
        if problems.is_empty() { Ok((realm, listeners)) } else { Err(problems) }
    }

    /// Checks what no option can check alone, and fills in what was left out. `others` are the realms of their own files.
    #[expect(clippy::too_many_lines, reason = "most are the fields of the configuration, one by one")]
    pub(in crate::cli) fn into_config(self, others: Vec<RealmFile>) -> Result<Config, Vec<Contradiction>> {
        let mut problems = Vec::new();
        let ports = self.relaying.relay_ports;
        let given = self.listeners.listen;
        let mut listeners = if given.is_empty() { listeners::default() } else { given };
        let (others, theirs): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        listeners::add(&mut listeners, theirs.into_iter().flatten());
        let certificates =
            listeners::certificates(&listeners, self.listeners.certificate, self.listeners.private_key, &mut problems);
        let has_streams = listeners.iter().any(|listener| listener.transport.is_stream());
        let needs_streams = |sentence: Contradiction| sentence.and("listen").say(" tcp:ADDR:PORT or tls:ADDR:PORT");
        if self.relaying.tcp_relay && !has_streams {
            problems.push(needs_streams(Contradiction::of("tcp-relay").say(" needs a ")));
        }
        if let Some(net) = self.listeners.proxy_protocol.first().filter(|_| !has_streams) {
            problems.push(needs_streams(Contradiction::of_value("proxy-protocol", 0).say(format!(" {net} needs a "))));
        }
        if self.process.drain_move && self.listeners.alternate_server.is_empty() {
            problems.push(Contradiction::of("drain-move").say(" needs an ").and("alternate-server").say(" to move to"));
        }
        let shards = shards(self.process.shards, ports, &mut problems);

        let relay_addresses = relay_addresses(self.relaying.relay_address, &listeners, &mut problems);
        let alternates = &self.listeners.nat_discovery;
        let discovery = listeners::discovery(alternates, &mut listeners, &relay_addresses, &mut problems);
        listeners::check(&listeners, ports, &mut problems);
        listeners::check_admin(self.admin.admin, &listeners, &mut problems);
        let translation = listeners::translation(&listeners, &relay_addresses, alternates, &mut problems);
        self.limits.check(&relay_addresses, ports, &mut problems);
        if self.kernel.xdp == XdpMode::Off && !self.kernel.interface.is_empty() {
            problems.push(Contradiction::of("interface").say(" needs another ").and("xdp").say(" than off"));
        }
        let tokens = [
            ("admin-token", self.admin.admin_token.is_empty()),
            ("credentials-token", self.credentials.credentials_token.is_empty()),
        ];
        for (option, _) in tokens.into_iter().filter(|(_, is_empty)| !is_empty && self.admin.admin == AdminAddr::Off) {
            problems.push(Contradiction::of(option).say(" needs an ").and("admin").say(" ADDR:PORT"));
        }
        if let Some(reserved) = self.relaying.reserved_ports.filter(|reserved| !ports.covers(*reserved)) {
            let sentence = Contradiction::of("reserved-ports").say(format!(" {reserved} are not all among the "));
            problems.push(sentence.and("relay-ports").say(format!(" {ports}")));
        }
        let directory = self.directory.meaning(&mut problems);
        let asks = !directory.is_empty();
        let realms = realms(self.users, others, asks, self.process.state_dir, &mut problems);
        check_realms(&realms, asks, self.relaying.reserved_ports, &relay_addresses, &mut problems);
        if !has_secret(&realms[0]) && !self.credentials.credentials_token.is_empty() {
            problems
                .push(Contradiction::of("credentials-token").say(" needs an ").and("auth-secret").say(" to mint with"));
        }
        let limits = self.limits;
        let config = Config {
            config_file: self.process.config,
            drain_timeout: self.process.drain_timeout,
            drain_move: self.process.drain_move,
            listeners,
            certificates,
            proxies: self.listeners.proxy_protocol,
            tcp_relay: self.relaying.tcp_relay,
            mobility: self.relaying.mobility,
            discovery,
            translation,
            nonce_keys: self.fleet.nonce_key,
            alternates: self.listeners.alternate_server,
            connections: Connections {
                all: limits.max_connections,
                new: limits.max_new_connections,
                new_of_source: limits.max_new_connections_per_source,
            },
            relay_addresses,
            relay_ports: ports,
            reserved_ports: self.relaying.reserved_ports,
            realms,
            directory,
            allow_peers: self.peers.allow_peer,
            deny_peers: self.peers.deny_peer,
            xdp: self.kernel.xdp,
            interfaces: self.kernel.interface,
            admin: self.admin.admin,
            admin_socket: match self.admin.admin_socket {
                // Where the environment names no place for it, there is none.
                None => admin::default_socket().map_or(AdminSocket::Off, AdminSocket::Default),
                Some(OrOff::Off) => AdminSocket::Off,
                Some(OrOff::On(path)) => AdminSocket::At(path),
            },
            admin_tokens: self.admin.admin_token,
            credentials_tokens: self.credentials.credentials_token,
            credentials_origins: self.credentials.credentials_origin,
            credentials_rate: self.credentials.credentials_rate,
            credentials_ttl: self.credentials.credentials_ttl,
            log: self.log.log,
            log_format: self.log.log_format,
            log_allocations: self.log.log_allocations,
            log_sample: self.log.log_sample,
            log_client_addresses: self.log.log_client_addresses,
            otlp: match self.log.otlp {
                OrOff::Off => None,
                OrOff::On(endpoint) => Some(endpoint),
            },
            otlp_sample: self.log.otlp_sample,
            shards,
            max_allocations: limits.max_allocations,
            max_allocations_per_source: limits.max_allocations_per_source,
            max_permissions: limits.max_permissions,
            max_channels: limits.max_channels,
            max_lifetime: limits.max_lifetime,
            ice_max_sessions: limits.ice_max_sessions,
            kernel_records: self.kernel.kernel_records,
            rates: Rates {
                allocation_bits: limits.allocation_bit_rate,
                allocation_packets: limits.allocation_packet_rate,
                relay_bits: limits.relay_bit_rate,
                source_packets: limits.source_packet_rate,
                control_packets: limits.control_packet_rate,
            },
        };
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

/// One for each processor unless the operator says otherwise; each has two ports at least.
fn shards(given: Option<u32>, ports: PortRange, problems: &mut Vec<Contradiction>) -> u32 {
    let pairs = u32::from(ports.max / 2 - ports.min / 2 + 1);
    if let Some(shards) = given.filter(|shards| pairs < *shards) {
        problems.push(
            Contradiction::of("relay-ports")
                .say(format!(" {ports} has too few ports for "))
                .and("shards")
                .say(format!(" {shards}: two are needed for each")),
        );
    }
    let processors = || std::thread::available_parallelism().map_or(1, |n| n.get() as u32).min(256);
    given.unwrap_or_else(processors).min(pairs)
}

fn relay_addresses(
    given: Vec<RelayAddress>,
    listeners: &[Listener],
    problems: &mut Vec<Contradiction>,
) -> Vec<RelayAddress> {
    if given.is_empty() {
        let found = default_relay_addresses(listeners);
        if found.is_empty() {
            problems.push(
                Contradiction::of("relay-address")
                    .say(" is needed: this host has no route to the Internet to find one by")
                    .because_of("listen"),
            );
        }
        return found;
    }
    for (at, address) in given.iter().enumerate() {
        if given[..at].iter().any(|other| other.bind == address.bind) {
            problems
                .push(Contradiction::of_value("relay-address", at).say(format!(" {} is given twice", address.bind)));
        }
    }
    given
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

impl Limits {
    fn check(&self, relay_addresses: &[RelayAddress], ports: PortRange, problems: &mut Vec<Contradiction>) {
        let most = allocations_by_ports(relay_addresses, ports);
        let too_many = |wanted: &u32| !relay_addresses.is_empty() && *wanted as usize > most;
        if let Some(wanted) = self.max_allocations.filter(too_many) {
            problems.push(
                Contradiction::of("max-allocations")
                    .say(format!(" {wanted} is more than there are relay ports: {most}, with "))
                    .and("relay-ports")
                    .say(format!(" {ports} and {} of ", relay_addresses.len()))
                    .and("relay-address"),
            );
        }
    }
}

/// All realms: that of the main options, and those of files.
fn realms(
    users: Users,
    others: Vec<Realm>,
    asks: bool,
    state_dir: Option<PathBuf>,
    problems: &mut Vec<Contradiction>,
) -> Vec<Realm> {
    let asks = asks || !others.is_empty();
    let of_its_own = |problems: &mut Vec<_>| {
        // Where users are found elsewhere, nobody needs a secret.
        let nobody = Authentication::Given { users: Vec::new(), secrets: Vec::new() };
        if asks { nobody } else { generated(state_dir, problems) }
    };
    let first = users.realm(&[], of_its_own, problems);
    std::iter::once(first).chain(others).collect()
}

fn has_secret(realm: &Realm) -> bool {
    !matches!(&realm.authentication, Authentication::Given { secrets, .. } if secrets.is_empty())
}

/// A secret of the relay's own.
fn generated(state_dir: Option<PathBuf>, problems: &mut Vec<Contradiction>) -> Authentication {
    let state_dir = state_dir.or_else(state::default_directory).unwrap_or_else(|| {
        problems.push(
            Contradiction::of("state-dir")
                .say(" is needed: HOME does not say where this user keeps its files")
                .because_of("user")
                .because_of("auth-secret"),
        );
        PathBuf::new()
    });
    Authentication::Generated { state_dir }
}
