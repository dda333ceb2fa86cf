//! Following a new configuration while the relay runs.
//!
//! All that can fail is done before anything changes: reading, opening sockets, trying addresses. What is removed and in use
//! stays for those who use it, and takes nobody else.

use std::net::SocketAddr;
use std::sync::Arc;

use hairpin_proto::address::Transport;
use hairpin_proto::media::CloseReason;
use hairpin_proto::turn::{EndReason, RelayAddress, comes_by};

use super::authority::{Authority, addresses_of, interfaces};
use super::certificates::Certificates;
use super::difference::{self, Difference};
use super::start::try_relay_addresses;
use super::{Relay, access, settle, user_files};
use crate::api;
use crate::capacity::limits;
use crate::cli::settings::{Loaded, Problem};
use crate::clock::unix_seconds;
use crate::config::{Config, Listener};
use crate::inquiries::directory;
use crate::listeners::{Opened, in_kernel};
use crate::shard::{InService, InUse, Listeners, ask_all};

/// What is no longer configured, and still in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) listeners: Vec<Listener>,
    pub(super) relay_addresses: Vec<RelayAddress>,
}

impl Retired {
    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.relay_addresses.is_empty()
    }

    pub(super) fn listening(&self) -> Vec<(Transport, SocketAddr)> {
        self.listeners.iter().map(|listener| (listener.transport, listener.address)).collect()
    }
}

impl Relay {
    /// Reads the configuration again and follows it. Of a bad one the problems are returned, and nothing has changed.
    pub(super) async fn reload(&mut self, request: api::ReloadRequest) -> Result<api::Reloaded, Vec<String>> {
        self.manager.reloading();
        let result = self.follow(request).await;
        match &result {
            Ok(reloaded) => {
                self.reload_problems.clear();
                self.reloads[0] += 1;
                report(reloaded);
            }
            Err(problems) => {
                self.reload_problems.clone_from(problems);
                self.reloads[1] += 1;
                for problem in problems {
                    tracing::error!("not reloaded, nothing has changed: {problem}");
                }
            }
        }
        self.publish();
        self.beat().await;
        self.manager.ready();
        result
    }

    async fn follow(&mut self, request: api::ReloadRequest) -> Result<api::Reloaded, Vec<String>> {
        let said = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let stamps = user_files::stamps(&self.config);
        let Loaded { mut config, warnings, .. } = self.source.load().map_err(said)?;
        let Difference { followed, needs_restart } = difference::follow(&self.config, &mut config);

        lies_in_relay_ports(&config)?;
        keep_their_width(&self.listening(), &config)?;

        let one = |error: anyhow::Error| vec![format!("{error:#}")];
        let authority = Authority::new(&config).map_err(one)?;
        let mut certificates = Certificates::read(&config).map_err(one)?;
        certificates.take_over(&self.certificates);
        try_relay_addresses(&config).map_err(one)?;
        let interfaces = interfaces(if_addrs::get_if_addrs()).map_err(one)?;
        let directory = directory(&config.directory).map_err(one)?;
        let opened = Opened::besides(&self.listening(), &config, certificates.tls.as_ref()).map_err(one)?;
        // What was set by hand stays until the file says something else.
        if config.log != self.config.log {
            self.log.set_level(&config.log).map_err(|error| vec![error])?;
        }
        self.log.set_format(config.log_format);
        // From here on nothing fails.

        for warning in warnings.into_iter().chain(certificates.complaints()) {
            tracing::warn!("{warning}");
        }
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        if authority.generated().is_some() && self.authority.generated().is_none() {
            tracing::warn!("no user and no secret is configured any more: nobody of before may relay from now on");
        }
        self.authority = authority;
        self.own_addresses = addresses_of(&interfaces);
        self.interfaces = interfaces;
        // The one that is there knows which of its servers are down.
        if before.directory != self.config.directory {
            self.inquiries.ask(directory);
        }
        self.certificates = certificates;
        self.certificate_problem = None;
        // Those that are named now and were not are read once more.
        self.user_files = stamps;
        self.user_problem = None;
        self.capacity.follow(&self.config);
        self.gate.change(&access(&self.config));
        self.retire(&before, &opened.listeners);
        self.open = opened.listeners;
        let in_kernel = self.tell_kernel();
        self.tell_shards(opened.sockets).await;
        self.configured = unix_seconds();

        let mut reloaded = api::Reloaded::default();
        if request.force {
            reloaded.changed.extend(self.force().await);
        }
        reloaded.draining = self.let_go().await;
        settle(self.datapath.handle()).await;
        reloaded.changed.splice(0..0, followed.iter().map(|option| (*option).to_owned()));
        reloaded.needs_restart =
            needs_restart.iter().map(|option| format!("{option}: follows at the next start")).collect();
        if !in_kernel && self.config.xdp != crate::datapath::XdpMode::Off && followed.contains(&"listen") {
            let line = "listen: the kernel path was off at the start, and stays off until the next";
            reloaded.needs_restart.push(line.to_owned());
        }
        Ok(reloaded)
    }

    /// Reads the certificates again, if their files have changed. Bad ones are left alone until they change once more.
    pub(super) async fn follow_certificates(&mut self) {
        let Some(stamps) = self.certificates.changed() else { return };
        match Certificates::read(&self.config) {
            Ok(certificates) if certificates.are_like(&self.certificates) => {
                self.certificates.leave(stamps);
                if self.certificate_problem.take().is_some() {
                    tracing::info!("certificates are again those that are in use");
                    self.publish();
                }
            }
            Ok(mut certificates) => {
                certificates.take_over(&self.certificates);
                self.certificates = certificates;
                self.certificate_problem = None;
                self.certificates.complaints().for_each(|complaint| tracing::warn!("{complaint}"));
                self.tell_shards(Vec::new()).await;
                tracing::info!("certificates have changed: new connections are shown the new ones");
                self.publish();
            }
            Err(error) => {
                self.certificates.leave(stamps);
                let problem = format!("certificates have changed and cannot be used, the old ones stay: {error:#}");
                tracing::error!("{problem}");
                self.certificate_problem = Some(problem);
                self.publish();
            }
        }
    }

    /// Notes what is there no longer, and forgets of what was retired what is back.
    fn retire(&mut self, before: &Config, open: &[Listener]) {
        let is_open =
            |one: &Listener| open.iter().any(|other| (other.transport, other.address) == (one.transport, one.address));
        let gone = self.open.iter().filter(|listener| !is_open(listener)).copied();
        self.retired.listeners.extend(gone);
        self.retired.listeners.retain(|listener| !is_open(listener));
        let is_there = |one: &RelayAddress| self.config.relay_addresses.iter().any(|other| other.bind == one.bind);
        self.retired.relay_addresses.extend(before.relay_addresses.iter().filter(|address| !is_there(address)));
        self.retired.relay_addresses.retain(|address| !is_there(address));
    }

    /// Tells the kernel path what has changed. Returns whether there is one.
    pub(super) fn tell_kernel(&self) -> bool {
        let handle = self.datapath.handle();
        handle.set_limits(limits(&self.config.rates));
        let relay_addresses = self.relay_addresses().map(|(address, _)| address).collect();
        handle.set_relay_addresses(relay_addresses);
        handle.set_listeners(in_kernel(self.open.iter().chain(&self.retired.listeners)))
    }

    /// Tells all shards how to be from now on.
    pub(super) async fn tell_shards(&self, opened: Vec<Listeners>) {
        let settings = self.settings();
        let mut opened = opened.into_iter();
        // One that has stopped takes the relay down with it; one that is late does it later.
        ask_all(&self.queries, |shard| {
            let change = self.change(settings.clone(), opened.next().unwrap_or_default());
            async move { shard.change(change).await }
        })
        .await;
    }

    /// Closes what still uses what was removed.
    async fn force(&self) -> Vec<String> {
        let retired = self.retired.clone();
        if retired.is_empty() {
            return Vec::new();
        }
        let (removed, current) = (retired.listening(), self.settings().listeners);
        let is_meant = move |allocation: &api::Allocation| {
            let server = allocation.server;
            let by = |listeners: &[(Transport, SocketAddr)]| {
                let is_it = |listener: &(Transport, SocketAddr)| {
                    listener.0.label() == allocation.transport && comes_by(*listener, listener.0, server)
                };
                listeners.iter().any(is_it)
            };
            let is_of =
                |address: &RelayAddress| allocation.relayed.iter().any(|relayed| relayed.ip() == address.public);
            by(&removed) && !by(&current) || retired.relay_addresses.iter().any(is_of)
        };
        let counts = ask_all(&self.queries, |shard| {
            let is_meant = is_meant.clone();
            async move { shard.close(EndReason::Closed, is_meant).await }
        });
        let allocations = counts.await.into_iter().sum();
        let addresses: Vec<_> = self.retired.relay_addresses.iter().map(|address| address.bind).collect();
        let sessions = ask_all(&self.queries, |shard| {
            let addresses = addresses.clone();
            async move { shard.close_sessions(CloseReason::Deleted, move |ip| addresses.contains(&ip)).await }
        });
        let closed = InService { allocations, sessions: sessions.await.into_iter().sum() };
        let are = if closed.count() == 1 { "is" } else { "are" };
        vec![format!("{closed} of what was removed {are} closed")]
    }

    /// Lets go of what was retired and is no longer in use. Returns what still is.
    pub(super) async fn let_go(&mut self) -> Vec<String> {
        if self.retired.is_empty() {
            return Vec::new();
        }
        let relay_addresses: Vec<_> = self.retired.relay_addresses.iter().map(|address| address.bind).collect();
        let listening = self.retired.listening();
        let counts = ask_all(&self.queries, |shard| {
            let (listening, relay_addresses) = (listening.clone(), relay_addresses.clone());
            async move { shard.in_use(listening, relay_addresses).await }
        });
        // Who does not answer may have some: nothing is let go of before everybody has.
        let Some(counts) = counts.await.into_iter().collect::<Option<Vec<InUse>>>() else {
            return vec!["a shard does not answer: what was removed stays until it does".to_owned()];
        };
        let none = InService::default();
        let mut sum =
            InUse { listeners: vec![none; listening.len()], relay_addresses: vec![none; relay_addresses.len()] };
        let add = |sums: &mut Vec<InService>, counts: Vec<InService>| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        };
        for in_use in counts {
            add(&mut sum.listeners, in_use.listeners);
            add(&mut sum.relay_addresses, in_use.relay_addresses);
        }
        let still = |what: &dyn std::fmt::Display, served: InService| {
            let them = if served.count() == 1 { "it" } else { "them" };
            format!("{what} still has {served}: draining; --force clears {them}")
        };
        let listeners = self.retired.listeners.iter().zip(&sum.listeners).filter(|(_, served)| !served.is_empty());
        let mut lines: Vec<_> = listeners
            .map(|(Listener { transport, address, .. }, count)| still(&format_args!("{transport}:{address}"), *count))
            .collect();
        let addresses =
            self.retired.relay_addresses.iter().zip(&sum.relay_addresses).filter(|(_, served)| !served.is_empty());
        lines.extend(addresses.map(|(address, count)| still(&address.bind, *count)));

        let mut counts = sum.listeners.iter();
        self.retired.listeners.retain(|_| counts.next().is_some_and(|served| !served.is_empty()));
        let mut counts = sum.relay_addresses.iter();
        self.retired.relay_addresses.retain(|_| counts.next().is_some_and(|served| !served.is_empty()));
        if sum.listeners.iter().chain(&sum.relay_addresses).any(|served| served.is_empty()) {
            // Shards first: a datagram of a listener that the kernel knows no more would not be recognised.
            self.tell_shards(Vec::new()).await;
            self.tell_kernel();
            self.publish();
        }
        lines
    }

    /// Listeners that are open, those included that take no new clients.
    fn listening(&self) -> Vec<Listener> {
        self.open.iter().chain(&self.retired.listeners).copied().collect()
    }
}

/// One line for each, in the log.
fn report(reloaded: &api::Reloaded) {
    let api::Reloaded { changed, draining, needs_restart } = reloaded;
    if changed.is_empty() && draining.is_empty() && needs_restart.is_empty() {
        tracing::info!("reloaded: nothing has changed");
    } else {
        tracing::info!(
            "reloaded: {}",
            if changed.is_empty() { "nothing to follow".to_owned() } else { changed.join(", ") }
        );
    }
    for line in draining {
        tracing::info!("{line}");
    }
    for line in needs_restart {
        tracing::warn!("{line}");
    }
}

/// A new port of listeners may be free in the new range of relay ports only, which needs a restart.
fn lies_in_relay_ports(config: &Config) -> Result<(), Vec<String>> {
    let lies = |listener: &&Listener| config.relay_ports.range().contains(&listener.address.port());
    let problem = |Listener { transport, address, .. }: &Listener| {
        let ports = config.relay_ports;
        format!("listen {transport}:{address} lies in relay-ports {ports}, which are in force until a restart")
    };
    let problems: Vec<_> = config.listeners.iter().filter(lies).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Which shard a client's datagrams reach depends on whether their socket has the address itself or all of them. Clients would
/// find themselves at a shard that does not know them.
fn keep_their_width(open: &[Listener], config: &Config) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    for new in config.listeners.iter().filter(|listener| !listener.transport.is_stream()) {
        let takes_over = |old: &&Listener| {
            let (at, before) = (new.address, old.address);
            let is_wide = at.ip().is_unspecified() || before.ip().is_unspecified();
            !old.transport.is_stream()
                && at != before
                && at.port() == before.port()
                && at.is_ipv4() == before.is_ipv4()
                && is_wide
        };
        if let Some(old) = open.iter().find(takes_over) {
            problems.push(format!(
                "listen {}:{} would take the clients of {}:{}, which is in force, away from the threads that know them: restart \
                 the relay for it, or choose another port",
                new.transport, new.address, old.transport, old.address
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
