//! Following a new configuration while the relay runs.
//!
//! All that can fail is done before anything changes: reading, opening sockets, trying addresses. What is removed and in use
//! stays for those who use it, and takes nobody else.

use std::net::SocketAddr;
use std::sync::Arc;

use hairpin_proto::address::Transport;
use hairpin_proto::turn::{EndReason, RelayAddress};

use super::authority::{Authority, own_addresses};
use super::certificates::Certificates;
use super::difference::{self, Difference};
use super::start::try_relay_addresses;
use super::{Relay, access, settle};
use crate::api;
use crate::capacity::limits;
use crate::cli::settings::{Loaded, Problem};
use crate::clock::unix_seconds;
use crate::config::{Config, Listener};
use crate::listeners::{Opened, in_kernel};
use crate::shard::{InUse, Listeners};

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
        result
    }

    async fn follow(&mut self, request: api::ReloadRequest) -> Result<api::Reloaded, Vec<String>> {
        let said = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let Loaded { mut config, warnings, .. } = self.source.load().map_err(said)?;
        let Difference { followed, needs_restart } = difference::follow(&self.config, &mut config);

        let one = |error: anyhow::Error| vec![format!("{error:#}")];
        let authority = Authority::new(&config).map_err(one)?;
        let mut certificates = Certificates::read(&config).map_err(one)?;
        certificates.take_over(&self.certificates);
        try_relay_addresses(&config).map_err(one)?;
        let own_addresses = own_addresses(if_addrs::get_if_addrs()).map_err(one)?;
        let opened = Opened::besides(&self.listening(), &config, certificates.tls.as_ref()).map_err(one)?;
        self.log.set_level(&config.log).map_err(|error| vec![error])?;
        self.log.set_format(config.log_format);
        // From here on nothing fails.

        for warning in warnings.into_iter().chain(certificates.complaints()) {
            tracing::warn!("{warning}");
        }
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        self.authority = authority;
        self.own_addresses = own_addresses;
        self.certificates = certificates;
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
        if !self.certificates.may_have_changed() {
            return;
        }
        match Certificates::read(&self.config) {
            Ok(mut certificates) => {
                if certificates.are_like(&self.certificates) {
                    return self.certificates.leave();
                }
                certificates.take_over(&self.certificates);
                self.certificates = certificates;
                self.certificates.complaints().for_each(|complaint| tracing::warn!("{complaint}"));
                self.tell_shards(Vec::new()).await;
                tracing::info!("certificates have changed: new connections are shown the new ones");
                self.publish();
            }
            Err(error) => {
                self.certificates.leave();
                tracing::error!("certificates have changed and cannot be used, the old ones stay: {error:#}");
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
        let opened = opened.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (shard, opened) in self.queries.iter().zip(opened) {
            // One that has stopped takes the relay down with it.
            let _ = shard.change(self.change(opened.unwrap_or_default())).await;
        }
    }

    /// Closes what still uses what was removed.
    async fn force(&self) -> Vec<String> {
        let retired = self.retired.clone();
        if retired.is_empty() {
            return Vec::new();
        }
        let listening = retired.listening();
        let is_meant = move |allocation: &api::Allocation| {
            let comes_by = |(transport, at): &(Transport, SocketAddr)| {
                let ip = at.ip();
                transport.label() == allocation.transport
                    && at.port() == allocation.server.port()
                    && (ip == allocation.server.ip()
                        || ip.is_unspecified() && ip.is_ipv4() == allocation.server.is_ipv4())
            };
            let is_of =
                |address: &RelayAddress| allocation.relayed.iter().any(|relayed| relayed.ip() == address.public);
            listening.iter().any(comes_by) || retired.relay_addresses.iter().any(is_of)
        };
        let mut closed = 0;
        for shard in &self.queries {
            closed += shard.close(EndReason::Closed, is_meant.clone()).await;
        }
        let (plural, are) = if closed == 1 { ("", "is") } else { ("s", "are") };
        vec![format!("{closed} allocation{plural} of what was removed {are} closed")]
    }

    /// Lets go of what was retired and is no longer in use. Returns what still is.
    pub(super) async fn let_go(&mut self) -> Vec<String> {
        if self.retired.is_empty() {
            return Vec::new();
        }
        let relay_addresses: Vec<_> = self.retired.relay_addresses.iter().map(|address| address.bind).collect();
        let mut sum =
            InUse { listeners: vec![0; self.retired.listeners.len()], relay_addresses: vec![0; relay_addresses.len()] };
        for shard in &self.queries {
            let in_use = shard.in_use(self.retired.listening(), relay_addresses.clone()).await;
            let add = |sums: &mut Vec<usize>, counts: Vec<usize>| {
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            };
            add(&mut sum.listeners, in_use.listeners);
            add(&mut sum.relay_addresses, in_use.relay_addresses);
        }
        let still = |what: &dyn std::fmt::Display, count: usize| {
            let (plural, them) = if count == 1 { ("", "it") } else { ("s", "them") };
            format!("{what} still has {count} allocation{plural}: draining; --force clears {them}")
        };
        let listeners = self.retired.listeners.iter().zip(&sum.listeners).filter(|(_, count)| **count > 0);
        let mut lines: Vec<_> = listeners
            .map(|(Listener { transport, address, .. }, count)| still(&format_args!("{transport}:{address}"), *count))
            .collect();
        let addresses = self.retired.relay_addresses.iter().zip(&sum.relay_addresses).filter(|(_, count)| **count > 0);
        lines.extend(addresses.map(|(address, count)| still(&address.bind, *count)));

        let mut counts = sum.listeners.iter();
        self.retired.listeners.retain(|_| counts.next().is_some_and(|count| *count > 0));
        let mut counts = sum.relay_addresses.iter();
        self.retired.relay_addresses.retain(|_| counts.next().is_some_and(|count| *count > 0));
        if sum.listeners.iter().chain(&sum.relay_addresses).any(|count| *count == 0) {
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
