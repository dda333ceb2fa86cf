//! `hairpin serve`: its options, and what they mean together.

mod args;

use std::net::IpAddr;
use std::process::ExitCode;

use hairpin_proto::turn::RelayAddress;

pub(super) use self::args::Args;
use super::value::OrOff;
use super::{listeners, usage_error};
use crate::capacity::allocations_by_ports;
use crate::config::{AdminSocket, Authentication, Config, Connections, Listener, Rates};
use crate::datapath::XdpMode;
use crate::net::source_address_towards;
use crate::{log, relay, state};

/// Runs the relay until it is told to stop.
pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.into_config() {
        Ok(config) => config,
        Err(message) => return usage_error(&message),
    };
    if let Err(message) = log::start(&config.log, config.log_format) {
        return usage_error(&message);
    }
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
        let ports = self.relaying.relay_ports;
        let mut listeners = if self.listeners.listen.is_empty() { listeners::default() } else { self.listeners.listen };
        listeners::check(&listeners, ports)?;
        let certificates = listeners::certificates(&listeners, self.listeners.certificate, self.listeners.private_key)?;
        let has_streams = listeners.iter().any(|listener| listener.transport.is_stream());
        if self.relaying.tcp_relay && !has_streams {
            return Err("--tcp-relay needs a --listen tcp:ADDR:PORT or tls:ADDR:PORT".to_owned());
        }
        if let Some(net) = self.listeners.proxy_protocol.first().filter(|_| !has_streams) {
            return Err(format!("--proxy-protocol {net} needs a --listen tcp:ADDR:PORT or tls:ADDR:PORT"));
        }

        let shards = self
            .process
            .shards
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u32).min(256));
        let pairs = ports.max / 2 - ports.min / 2 + 1;
        if u32::from(pairs) < shards && self.process.shards.is_some() {
            return Err(format!(
                "--relay-ports {ports} has too few ports for --shards {shards}: two are needed for each"
            ));
        }
        let shards = shards.min(u32::from(pairs));

        let relay_addresses = if self.relaying.relay_address.is_empty() {
            let found = default_relay_addresses(&listeners);
            if found.is_empty() {
                return Err(
                    "--relay-address is needed: this host has no route to the Internet to find one by".to_owned()
                );
            }
            found
        } else {
            self.relaying.relay_address
        };
        for (at, address) in relay_addresses.iter().enumerate() {
            if relay_addresses[..at].iter().any(|other| other.bind == address.bind) {
                return Err(format!("--relay-address {} is given twice", address.bind));
            }
        }
        let discovery = listeners::discovery(&self.listeners.nat_discovery, &mut listeners, &relay_addresses, ports)?;
        let translation = listeners::translation(&listeners, &relay_addresses, &self.listeners.nat_discovery)?;
        let most = allocations_by_ports(&relay_addresses, ports);
        if let Some(wanted) = self.limits.max_allocations.filter(|wanted| *wanted as usize > most) {
            return Err(format!(
                "--max-allocations {wanted} is more than there are relay ports: {most}, with --relay-ports {ports} and \
                 {} of --relay-address",
                relay_addresses.len()
            ));
        }
        for (at, user) in self.users.user.iter().enumerate() {
            if self.users.user[..at].iter().any(|other| other.name == user.name) {
                return Err(format!("--user {} is given twice", user.name));
            }
        }
        if self.kernel.xdp == XdpMode::Off && !self.kernel.interface.is_empty() {
            return Err("--interface needs another --xdp than off".to_owned());
        }

        let authentication = if self.users.user.is_empty() && self.users.auth_secret.is_empty() {
            let state_dir = self.process.state_dir.or_else(state::default_directory);
            let state_dir =
                state_dir.ok_or("--state-dir is needed: HOME does not say where this user keeps its files")?;
            Authentication::Generated { state_dir }
        } else {
            Authentication::Given { users: self.users.user, secrets: self.users.auth_secret }
        };
        Ok(Config {
            config_file: self.process.config,
            drain_timeout: self.process.drain_timeout,
            listeners,
            certificates,
            proxies: self.listeners.proxy_protocol,
            tcp_relay: self.relaying.tcp_relay,
            mobility: self.relaying.mobility,
            discovery,
            translation,
            alternates: self.listeners.alternate_server,
            connections: Connections {
                all: self.limits.max_connections,
                new: self.limits.max_new_connections,
                new_of_source: self.limits.max_new_connections_per_source,
            },
            relay_addresses,
            relay_ports: ports,
            realm: self.users.realm,
            authentication,
            allow_peers: self.peers.allow_peer,
            deny_peers: self.peers.deny_peer,
            xdp: self.kernel.xdp,
            interfaces: self.kernel.interface,
            admin: self.admin.admin,
            admin_socket: match self.admin.admin_socket {
                None => AdminSocket::default_place(),
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
            max_allocations: self.limits.max_allocations,
            max_allocations_per_user: self.limits.max_allocations_per_user,
            kernel_records: self.kernel.kernel_records,
            rates: Rates {
                allocation_bits: self.limits.allocation_bit_rate,
                allocation_packets: self.limits.allocation_packet_rate,
                relay_bits: self.limits.relay_bit_rate,
                source_packets: self.limits.source_packet_rate,
                control_packets: self.limits.control_packet_rate,
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
