//! Building a relay from its configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use hairpin_proto::address::Transport;
use hairpin_proto::turn::{Discovery, NonceKey, PortStripe, Quotas, Server, ServerConfig};

use super::authority::{Authority, addresses_of, interfaces};
use super::certificates::Certificates;
use super::published::Shared;
use super::reload::Retired;
use super::{Keys, Relay, user_files};
use crate::admin::Gate;
use crate::capacity::{Capacity, limits};
use crate::cli::settings::Source;
use crate::clock::unix_seconds;
use crate::config::{Config, DiscoverySockets};
use crate::datapath::{self, Datapath, XdpMode};
use crate::inquiries::{Inquiries, directory};
use crate::listeners::Opened;
use crate::log;
use crate::net::{SocketError, UdpSocket};
use crate::random::{self, SystemRandomness};
use crate::service::Manager;
use crate::shard::{Events, IceEvents, Listeners, Parts, Reservations, ShardHandle, ShardQuery};
use crate::traces::Traces;

/// What a relay that has started leaves to whoever asks it.
pub(super) struct Started {
    pub(super) relay: Relay,
    pub(super) reservations: Reservations,
    pub(super) events: Events,
    pub(super) ice_events: IceEvents,
    pub(super) published: Shared,
}

impl Relay {
    pub(super) fn start(
        source: Source,
        config: Config,
        log: log::Handle,
        gate: Arc<Gate>,
        manager: Manager,
    ) -> anyhow::Result<Started> {
        let capacity = Capacity::of(&config);
        let interfaces = interfaces(if_addrs::get_if_addrs())?;
        let own_addresses = addresses_of(&interfaces);
        let authority = Authority::new(&config)?;
        let user_files = user_files::stamps(&config);
        let inquiries = Inquiries::start(directory(&config.directory)?)?;
        let certificates = Certificates::read(&config)?;
        certificates.complaints().for_each(|complaint| tracing::warn!("{complaint}"));
        let opened = Opened::all(&config, certificates.tls.as_ref())?;
        try_relay_addresses(&config)?;
        let datapath = start_datapath(&config, &opened.in_kernel(), &capacity)?;
        let traces = Traces::start(config.otlp.as_deref(), config.otlp_sample).context("--otlp")?;
        let reservations = Reservations::default();
        let (events, ice_events) = (Events::default(), IceEvents::default());
        let mut relay = Self {
            source,
            log,
            gate,
            manager,
            config: Arc::new(config),
            configured: unix_seconds(),
            reloads: [0; 2],
            reload_problems: Vec::new(),
            shards: Vec::new(),
            queries: Vec::new(),
            datapath,
            traces,
            capacity,
            certificates,
            certificate_problem: None,
            authority,
            user_files,
            user_problem: None,
            inquiries,
            quotas: Quotas::default(),
            interfaces,
            own_addresses,
            open: opened.listeners,
            retired: Retired::default(),
            keys: Keys { nonce: NonceKey::new(random::bytes()?), mobility: random::bytes()? },
            drain: None,
            is_ending: false,
            published: None,
            watched: (events.clone(), ice_events.clone()),
        };
        let parts = relay.parts(opened.sockets, &reservations, &events, &ice_events)?;
        relay.shards = ShardHandle::spawn_all(parts)?;
        relay.queries = relay.shards.iter().map(ShardHandle::query).collect::<Vec<ShardQuery>>();
        let published = relay.publish();
        relay.published = Some(Arc::clone(&published));
        Ok(Started { relay, reservations, events, ice_events, published })
    }

    fn parts(
        &self,
        sockets: Vec<Listeners>,
        reservations: &Reservations,
        events: &Events,
        ice_events: &IceEvents,
    ) -> anyhow::Result<Vec<Parts>> {
        let config = &self.config;
        let quotas = self.quotas.clone();
        let discovery = config.discovery.as_deref().map(discovery).transpose()?;
        let settings = self.settings();
        let parts = (0..config.shards).zip(sockets).map(|(index, listeners)| {
            let server = Server::new(
                ServerConfig {
                    settings: settings.clone(),
                    software: Some(concat!("hairpin ", env!("CARGO_PKG_VERSION")).to_owned()),
                    nonce_lifetime: std::time::Duration::from_secs(3600),
                    discovery: discovery.clone(),
                    ports: PortStripe::new(config.relay_ports.range(), index, config.shards),
                    quotas: quotas.clone(),
                    shard: index,
                    shards: config.shards,
                },
                Box::new(SystemRandomness::default()),
            );
            Parts {
                listeners,
                connections: self.connection_limits(),
                proxies: config.proxies.clone(),
                dtls: self.certificates.dtls.clone(),
                translation: self.translation(),
                server,
                asker: self.inquiries.asker(),
                reservations: reservations.clone(),
                datapath: self.datapath.handle(),
                media: self.media(),
                first_path: self.capacity.allocations,
                journal: self.journal(),
                events: events.clone(),
                ice_events: ice_events.clone(),
                tracer: self.traces.tracer(),
            }
        });
        Ok(parts.collect())
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
pub(super) fn try_relay_addresses(config: &Config) -> anyhow::Result<()> {
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
        max_media: capacity.paths,
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
