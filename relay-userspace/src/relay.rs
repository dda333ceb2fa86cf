//! Builds the relay from its configuration, runs it, and takes it down again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use hairpin_proto::address::Transport;
use hairpin_proto::turn::{Credentials, Discovery, Limits, PeerPolicy, PortStripe, Quotas, Server, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::announce::announce;
use crate::capacity::{Capacity, limits};
use crate::config::{AdminAddr, Authentication, Config, DiscoverySockets, Listener, User};
use crate::datapath::{self, Datapath, XdpMode};
use crate::listeners::{Opened, Sockets};
use crate::net::{SocketError, UdpSocket};
use crate::random::SystemRandomness;
use crate::shard::{ConnectionLimits, Parts, Reservations, ShardHandle};
use crate::tls::{self, Certificate};
use crate::{admin, random, state};

/// How often the threads are looked after.
const WATCH: Duration = Duration::from_secs(1);

/// Runs the relay until SIGTERM or SIGINT. An error is for the operator: one line that says what to do.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal ends the relay in order, also while it starts.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            // Log rotation sends it by habit, and its default would end all calls.
            while hangup.recv().await.is_some() {
                tracing::info!("SIGHUP changes nothing: the relay reads its options at start");
            }
        });
        let mut drain = signal(SignalKind::user_defined1())?;
        let mut welcome = signal(SignalKind::user_defined2())?;
        let relay = Relay::start(config).await?;
        let stopped = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = interrupt.recv() => break Ok(()),
                () = relay.defect() => break Err(anyhow::anyhow!("a thread has stopped; see the log")),
                _ = drain.recv() => relay.drain(true),
                _ = welcome.recv() => relay.drain(false),
            }
        };
        relay.stop();
        stopped
    })
}

/// A running relay.
struct Relay {
    shards: Vec<ShardHandle>,
    datapath: Datapath,
}

impl Relay {
    async fn start(config: Config) -> anyhow::Result<Self> {
        let capacity = Capacity::of(&config);
        let own_addresses = own_addresses(if_addrs::get_if_addrs())?;
        let authority = Authority::new(&config)?;
        let certificates = config.certificates.iter().map(Certificate::read).collect::<Result<Vec<_>, _>>()?;
        certificates.iter().filter_map(Certificate::complaint).for_each(|complaint| tracing::warn!("{complaint}"));
        let tls = (!certificates.is_empty()).then(|| tls::server_config(&certificates)).transpose()?;
        let is_dtls = |listener: &Listener| listener.transport == Transport::Dtls;
        let dtls = config.listeners.iter().any(is_dtls).then(|| tls::dtls_context(&certificates)).transpose()?;
        let opened = Opened::all(&config, tls.as_ref())?;
        try_relay_addresses(&config)?;
        let admin = match config.admin {
            AdminAddr::At(address) => Some(admin::bind(address).await?),
            AdminAddr::Off => None,
        };

        let datapath = start_datapath(&config, &opened.in_kernel(), &capacity)?;

        let quotas = Quotas::default();
        let reservations = Reservations::default();
        let nonce_key = random::bytes()?;
        let policy = peer_policy(&config, &opened.listeners, &own_addresses);
        let mobility = config.mobility.then(random::bytes).transpose()?;
        let discovery = config.discovery.as_deref().map(discovery).transpose()?;
        let share = |of: usize| of.div_ceil(config.shards as usize);
        let mut parts = Vec::new();
        for (index, Sockets { listeners, acceptors }) in (0..config.shards).zip(opened.sockets) {
            let server = Server::new(
                ServerConfig {
                    realm: config.realm.clone(),
                    software: Some(concat!("hairpin ", env!("CARGO_PKG_VERSION")).to_owned()),
                    credentials: authority.credentials(&config.realm),
                    nonce_key,
                    nonce_lifetime: Duration::from_secs(3600),
                    peer_policy: policy.clone(),
                    relay_addresses: config.relay_addresses.clone(),
                    translation: config.translation.clone(),
                    discovery: discovery.clone(),
                    alternates: config.alternates.clone(),
                    ports: PortStripe::new(config.relay_ports.range(), index, config.shards),
                    limits: Limits {
                        allocations: (capacity.allocations / config.shards) as usize,
                        allocations_per_user: capacity.allocations_per_user,
                        ..Limits::default()
                    },
                    quotas: quotas.clone(),
                    shard: index,
                    shards: config.shards,
                    tcp_relay: config.tcp_relay,
                    mobility,
                },
                Box::new(SystemRandomness::default()),
            );
            parts.push(Parts {
                listeners,
                acceptors,
                connections: ConnectionLimits {
                    all: share(capacity.connections),
                    new: share(config.connections.new as usize),
                    new_of_source: config.connections.new_of_source as usize,
                },
                proxies: config.proxies.clone(),
                dtls: dtls.clone(),
                translation: config.translation.clone(),
                server,
                reservations: reservations.clone(),
                datapath: datapath.handle(),
            });
        }
        let shards = ShardHandle::spawn_all(parts)?;

        if let Some(listener) = admin {
            let sources = admin::Sources {
                shards: shards.iter().map(ShardHandle::query).collect(),
                datapath: datapath.handle(),
                interfaces: datapath.interfaces().clone(),
                reservations,
                ports: config
                    .relay_addresses
                    .iter()
                    .map(|address| (address.bind, config.relay_ports.count()))
                    .collect(),
                allocation_capacity: capacity.allocations,
                rates: config.rates,
            };
            tokio::spawn(admin::serve(listener, sources));
        }
        if let Some(warning) = capacity.warning {
            tracing::warn!("{warning}");
        }
        announce(&config, &opened.listeners, datapath.summary(), authority.generated());
        Ok(Self { shards, datapath })
    }

    /// Returns when a thread has ended that should not have.
    async fn defect(&self) {
        let mut watch = tokio::time::interval(WATCH);
        loop {
            watch.tick().await;
            if self.shards.iter().any(ShardHandle::has_stopped) || self.datapath.has_stopped() {
                return;
            }
        }
    }

    /// Sends new clients elsewhere, or lets them in again.
    fn drain(&self, is_draining: bool) {
        if is_draining {
            tracing::info!("draining: new clients get 300, or 508 without --alternate-server, until SIGUSR2 comes");
        } else {
            tracing::info!("not draining: new clients are welcome");
        }
        self.shards.iter().for_each(|shard| shard.drain(is_draining));
    }

    fn stop(self) {
        tracing::info!("stopping");
        self.shards.iter().for_each(ShardHandle::shut_down);
        self.shards.into_iter().for_each(ShardHandle::join);
        self.datapath.shutdown();
    }
}

/// Users and secrets, whoever gave them.
struct Authority {
    users: Vec<User>,
    secrets: Vec<String>,
    /// Whether the only secret is the relay's own.
    generated: bool,
}

impl Authority {
    fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(match &config.authentication {
            Authentication::Given { users, secrets } => {
                Self { users: users.clone(), secrets: secrets.clone(), generated: false }
            }
            Authentication::Generated { state_dir } => {
                Self { users: Vec::new(), secrets: vec![state::auth_secret(state_dir)?], generated: true }
            }
        })
    }

    /// The relay's own secret: its operator has to be told how to use it.
    fn generated(&self) -> Option<&str> {
        self.secrets.first().filter(|_| self.generated).map(String::as_str)
    }

    fn credentials(&self, realm: &str) -> Credentials {
        let mut credentials = Credentials::new(realm);
        for user in &self.users {
            credentials.add_user(&user.name, &user.password);
        }
        for secret in &self.secrets {
            credentials.add_secret(secret);
        }
        credentials
    }
}

/// Where probing clients are answered from. All links are taken for Ethernet's: no answer is longer than one of its frames.
fn discovery(sockets: &[DiscoverySockets]) -> anyhow::Result<Discovery> {
    let mut discovery = Discovery::new(1500);
    for DiscoverySockets { addresses, ports } in sockets {
        discovery.add_sockets(Transport::Udp, *addresses, *ports).context("--nat-discovery")?;
    }
    Ok(discovery)
}

/// A relay address that this host does not have would fail each request for it, one by one.
fn try_relay_addresses(config: &Config) -> anyhow::Result<()> {
    for address in &config.relay_addresses {
        // The lowest port too, since a low one takes a capability; that it is in use at the moment is no harm.
        for port in [0, config.relay_ports.min] {
            match UdpSocket::relay(SocketAddr::new(address.bind, port)) {
                Ok(_) | Err(SocketError::InUse(_)) => {}
                Err(error) => return Err(error).context(format!("--relay-address {}", address.bind)),
            }
        }
    }
    Ok(())
}

fn start_datapath(config: &Config, listeners: &[SocketAddr], capacity: &Capacity) -> anyhow::Result<Datapath> {
    let options = datapath::Options {
        mode: config.xdp,
        interfaces: config.interfaces.clone(),
        max_allocations: capacity.allocations,
        records: capacity.records,
        limits: limits(&config.rates),
        // Who probes a NAT is told more than the program knows.
        answer_binding: config.discovery.is_none(),
        listeners: listeners.to_vec(),
        relay_addresses: config.relay_addresses.clone(),
    };
    if config.xdp == XdpMode::Auto && config.interfaces.is_empty() && listeners.is_empty() {
        return Ok(Datapath::none("no client comes by datagrams", &options)?);
    }
    let local = listeners.iter().all(|listener| listener.ip().is_loopback());
    if config.xdp == XdpMode::Auto && config.interfaces.is_empty() && local {
        // The interface of the default route would see none of its packets.
        return Ok(Datapath::none("only this host can reach the relay", &options)?);
    }
    let datapath = Datapath::start(&options)?;
    if datapath.handle().is_active() {
        let megabytes = datapath.map_bytes().div_ceil(1 << 20);
        let Capacity { allocations, records, .. } = &capacity;
        tracing::info!("the kernel's maps take {megabytes} MiB, for {allocations} allocations and {records} records");
        if *records < allocations.saturating_mul(2) {
            tracing::warn!(
                "--kernel-records {records} is less than two for each of {allocations} allocations: those that find no \
                 room are relayed in userspace"
            );
        }
    }
    Ok(datapath)
}

/// The addresses of this host. Without them its own services would be open to whoever may relay, so there is no relay.
fn own_addresses(found: io::Result<Vec<if_addrs::Interface>>) -> anyhow::Result<Vec<IpAddr>> {
    let interfaces = found.context(
        "the addresses of this host, which no peer may have, cannot be listed (does a sandbox forbid AF_NETLINK?)",
    )?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
}

fn peer_policy(config: &Config, listeners: &[Listener], own_addresses: &[IpAddr]) -> PeerPolicy {
    let mut policy = PeerPolicy::default();
    // Nobody reaches this host's own services through the relay, on whichever of its addresses they listen.
    let listening = listeners.iter().flat_map(|listener| [listener.address.ip(), listener.public.ip()]);
    let listening = listening.filter(|ip| !ip.is_unspecified());
    let relaying = config.relay_addresses.iter().flat_map(|address| [address.bind, address.public]);
    for ip in own_addresses.iter().copied().chain(listening).chain(relaying) {
        policy.add_own_address(ip);
    }
    policy.set_relay(&config.relay_addresses, config.relay_ports.range());
    config.allow_peers.iter().for_each(|net| policy.allow(*net));
    config.deny_peers.iter().for_each(|net| policy.deny(*net));
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_does_not_know_its_addresses_does_not_relay() {
        let error = own_addresses(Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT))).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.contains("addresses of this host") && line.contains("not supported"), "{line}");
        let own = own_addresses(if_addrs::get_if_addrs()).unwrap();
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
    }
}
