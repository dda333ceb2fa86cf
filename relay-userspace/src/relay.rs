//! Builds the relay from its configuration, runs it, and takes it down again.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use hairpin_proto::turn::{Credentials, Limits, PeerPolicy, PortStripe, Quotas, RelayAddress, Server, ServerConfig};
use ipnet::IpNet;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{AdminAddr, PortRange, RelayAddr, User};
use crate::datapath::{self, Datapath, XdpMode};
use crate::net::UdpSocket;
use crate::shard::{Parts, Reservations, ShardHandle};
use crate::{admin, state};

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Where clients reach the server.
    pub listeners: Vec<SocketAddr>,
    /// A listener that is left out when the host cannot have it: the default one of IPv6 on a host without.
    pub optional_listener: Option<SocketAddr>,
    /// What relayed addresses are made of.
    pub relay_addresses: Vec<RelayAddr>,
    /// The ports of relayed addresses.
    pub relay_ports: PortRange,
    /// Realm of the long-term credentials.
    pub realm: String,
    /// Who may relay.
    pub authentication: Authentication,
    /// Peers that are allowed although a wider rule forbids them.
    pub allow_peers: Vec<IpNet>,
    /// Peers that are forbidden.
    pub deny_peers: Vec<IpNet>,
    /// Forwarding in the kernel.
    pub xdp: XdpMode,
    /// Whose packets are forwarded in the kernel; none: those of the default route.
    pub interfaces: Vec<String>,
    /// Where metrics and health are served.
    pub admin: AdminAddr,
    /// Number of shards.
    pub shards: u32,
}

/// Who may relay.
#[derive(Debug)]
pub enum Authentication {
    /// What the operator said.
    Given {
        /// Users with a password each.
        users: Vec<User>,
        /// Secrets for credentials that expire.
        secrets: Vec<String>,
    },
    /// Nothing was said: a secret of this relay's own.
    Generated {
        /// Where it is kept.
        state_dir: PathBuf,
    },
}

/// How long the credentials are valid that are printed at the start.
const PRINTED_CREDENTIALS: Duration = Duration::from_secs(24 * 3600);

/// How many channels the kernel can take, per IP version.
const KERNEL_FLOWS: u32 = 1 << 17;

/// How often the threads are looked after.
const WATCH: Duration = Duration::from_secs(1);

/// Runs the relay until SIGTERM or SIGINT. An error is for the operator: one line that says what to do.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal ends the relay in order, also while it starts.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let relay = Relay::start(config).await?;
        let stopped = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            () = relay.defect() => Err(anyhow::anyhow!("a thread has stopped; see the log")),
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
        raise_file_limit();
        let authority = Authority::new(&config)?;
        let (listeners, sockets) = open_listeners(&config)?;
        let admin = match config.admin {
            AdminAddr::At(address) => Some(admin::bind(address).await?),
            AdminAddr::Off => None,
        };

        let per_family =
            |v4: bool| config.relay_addresses.iter().filter(|address| address.bind.is_ipv4() == v4).count();
        let port_capacity = config.relay_ports.count() * config.relay_addresses.len();
        // One allocation has at most one relayed address of each family.
        let max_allocations = config.relay_ports.count() * per_family(true).max(per_family(false));
        let max_allocations = u32::try_from(max_allocations).unwrap_or(u32::MAX).next_multiple_of(config.shards);

        let datapath = start_datapath(&config, &listeners, max_allocations)?;

        let quotas = Quotas::default();
        let reservations = Reservations::default();
        let nonce_key = random_key()?;
        let policy = peer_policy(&config, &listeners);
        let mut shards = Vec::new();
        for (index, listeners) in (0..config.shards).zip(sockets) {
            let server = Server::new(
                ServerConfig {
                    realm: config.realm.clone(),
                    software: Some(concat!("hairpin ", env!("CARGO_PKG_VERSION")).to_owned()),
                    credentials: authority.credentials(&config.realm),
                    nonce_key,
                    nonce_lifetime: Duration::from_secs(3600),
                    peer_policy: policy.clone(),
                    relay_addresses: config
                        .relay_addresses
                        .iter()
                        .map(|address| RelayAddress { bind: address.bind, public: address.public })
                        .collect(),
                    ports: PortStripe::new(config.relay_ports.range(), index, config.shards),
                    limits: Limits { allocations: (max_allocations / config.shards) as usize, ..Limits::default() },
                    quotas: quotas.clone(),
                },
                Box::new(SystemRandomness(SystemRandom::new())),
            );
            let shards_count = config.shards;
            shards.push(ShardHandle::spawn(Parts {
                index,
                shards: shards_count,
                listeners,
                server,
                reservations: reservations.clone(),
                datapath: datapath.handle(),
            })?);
        }

        if let Some(listener) = admin {
            let sources = admin::Sources {
                shards: shards.iter().map(ShardHandle::query).collect(),
                datapath: datapath.handle(),
                interfaces: datapath.status().to_vec(),
                reservations,
                port_capacity,
            };
            tokio::spawn(admin::serve(listener, sources));
        }
        announce(&config, &listeners, &datapath, &authority);
        Ok(Self { shards, datapath })
    }

    /// Returns when a thread has ended that should not have.
    async fn defect(&self) {
        let mut watch = tokio::time::interval(WATCH);
        loop {
            watch.tick().await;
            if self.shards.iter().any(ShardHandle::has_stopped) {
                return;
            }
        }
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
    /// Whether the operator has to be told how to use the relay.
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

struct SystemRandomness(SystemRandom);

impl hairpin_proto::turn::Random for SystemRandomness {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("getrandom fails only before the kernel has entropy, and start-up has drawn from it");
    }
}

fn random_key() -> anyhow::Result<[u8; 32]> {
    let mut key = [0; 32];
    SystemRandom::new().fill(&mut key).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(key)
}

/// Each relayed address has a socket: the soft limit of open files, often 1024, would end it early.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Opens every listener once for each shard. Returns the addresses, and the sockets by shard.
fn open_listeners(config: &Config) -> anyhow::Result<(Vec<SocketAddr>, Vec<Vec<UdpSocket>>)> {
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<UdpSocket>> = (0..config.shards).map(|_| Vec::new()).collect();
    let wanted = config.listeners.iter().map(|address| (address, false));
    for (address, optional) in wanted.chain(config.optional_listener.iter().map(|address| (address, true))) {
        // Alone first: sharing a port with a stranger that shares it too would go unnoticed.
        match UdpSocket::listener(*address, false) {
            Ok(alone) => drop(alone),
            Err(error) if optional => {
                tracing::info!(%error, "not listening on IPv6");
                continue;
            }
            Err(error) => return Err(error).context(format!("--listen {address}")),
        }
        for shard in &mut sockets {
            let socket = UdpSocket::listener(*address, true).with_context(|| format!("--listen {address}"))?;
            shard.push(socket);
        }
        addresses.push(*address);
    }
    Ok((addresses, sockets))
}

fn start_datapath(config: &Config, listeners: &[SocketAddr], max_allocations: u32) -> anyhow::Result<Datapath> {
    let local = listeners.iter().all(|listener| listener.ip().is_loopback());
    if config.xdp == XdpMode::Auto && config.interfaces.is_empty() && local {
        // The interface of the default route would see none of its packets.
        return Ok(Datapath::none("only this host can reach the relay"));
    }
    Ok(Datapath::start(datapath::Options {
        mode: config.xdp,
        interfaces: config.interfaces.clone(),
        max_allocations,
        flows: KERNEL_FLOWS,
        listener_ports: listeners.iter().map(SocketAddr::port).collect(),
    })?)
}

fn peer_policy(config: &Config, listeners: &[SocketAddr]) -> PeerPolicy {
    let mut policy = PeerPolicy::default();
    // Nobody reaches this host's own services through the relay, on whichever of its addresses they listen.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let listening = listeners.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    let relaying = config.relay_addresses.iter().flat_map(|address| [address.bind, address.public]);
    for ip in interfaces.iter().map(if_addrs::Interface::ip).chain(listening).chain(relaying) {
        policy.add_own_address(ip);
    }
    policy.set_relay(
        config.relay_addresses.iter().flat_map(|address| [address.bind, address.public]).collect::<Vec<IpAddr>>(),
        config.relay_ports.range(),
    );
    config.allow_peers.iter().for_each(|net| policy.allow(*net));
    config.deny_peers.iter().for_each(|net| policy.deny(*net));
    policy
}

/// Says what was started. The last lines go to standard output: they are made to be pasted.
fn announce(config: &Config, listeners: &[SocketAddr], datapath: &Datapath, authority: &Authority) {
    for listener in listeners {
        tracing::info!("listening on udp {listener}");
    }
    for address in &config.relay_addresses {
        let ports = config.relay_ports;
        if address.bind == address.public {
            tracing::info!("relaying from {} ports {ports}", address.bind);
        } else {
            tracing::info!("relaying from {} (outside: {}) ports {ports}", address.bind, address.public);
        }
    }
    if let AdminAddr::At(address) = config.admin {
        tracing::info!("metrics on http://{address}/metrics");
    }
    tracing::info!("{}", datapath.summary());
    if authority.generated
        && let Some(secret) = authority.secrets.first()
    {
        let expires = unix_now() + PRINTED_CREDENTIALS.as_secs();
        let (username, password) = Credentials::mint(secret, "hairpin", expires);
        let port = listeners.first().map_or(3478, SocketAddr::port);
        let mut out = std::io::stdout().lock();
        // Nobody may be reading: the relay runs all the same.
        let _ = writeln!(out, "\nA TURN client can use this relay with, for 24 hours:\n");
        for address in &config.relay_addresses {
            let host = SocketAddr::new(address.public, port);
            let _ = writeln!(out, "  turn:{host}?transport=udp");
        }
        let _ = writeln!(out, "  username: {username}\n  password: {password}\n");
        let _ = writeln!(out, "`hairpin credentials` makes more from the secret in the state directory.");
    }
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
