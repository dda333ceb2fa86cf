//! What an operator may ask a shard, and have it do to single allocations.
//!
//! Each question is a closure that the shard calls between packets, so it must be short: lists are asked for by pages.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use hairpin_proto::address::Transport;
use hairpin_proto::turn::{AllocationId, AllocationInfo, EndReason, PeerTransport, PermissionInfo};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Command;
use super::failures::Failure;
use super::in_service::InService;
use super::journal::{name, relayed};
use super::register::Entry;
use super::report::Report;
use super::state::{State, now};
use crate::api;
use crate::clock::unix_seconds;

/// How long a shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many of the engine's numbers are looked at for one page.
const PAGE: usize = 256;

/// Asks a shard questions; for threads other than the one that owns its [`ShardHandle`](super::ShardHandle).
#[derive(Clone, Debug)]
pub struct ShardQuery(pub(super) mpsc::UnboundedSender<Command>);

/// What there is of what may be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Of each listener that was asked for, in that order.
    pub listeners: Vec<InService>,
    /// Of each relay address that was asked for, in that order.
    pub relay_addresses: Vec<InService>,
}

impl ShardQuery {
    /// What it has counted so far. `None` if it does not run (any more). Waits for as long as that takes.
    pub async fn report(&self) -> Option<Report> {
        self.question(|state| state.report()).await
    }

    /// What it serves.
    pub async fn in_service(&self) -> Option<InService> {
        self.ask(|state| InService { allocations: state.server.allocations(), sessions: state.media.sessions.len() })
            .await
    }

    /// All allocations of which this is true.
    pub async fn allocations(
        &self,
        is_meant: impl Fn(&api::Allocation) -> bool + Clone + Send + 'static,
    ) -> Vec<api::Allocation> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(next) = from {
            let is_meant = is_meant.clone();
            let page = self.ask(move |state| {
                let (page, next) = state.page(next);
                let meant = page.into_iter().map(|(_, allocation)| allocation).filter(is_meant);
                (meant.collect::<Vec<_>>(), next)
            });
            let Some((mut page, next)) = page.await else { break };
            all.append(&mut page);
            from = next;
        }
        all
    }

    /// An allocation, by its serial number.
    pub async fn allocation(&self, serial: u64) -> Option<api::AllocationDetail> {
        self.ask(move |state| state.detail(state.register.by_serial(serial)?)).await?
    }

    /// Ends all allocations of which this is true. Returns how many.
    pub async fn close(
        &self,
        reason: EndReason,
        is_meant: impl Fn(&api::Allocation) -> bool + Clone + Send + 'static,
    ) -> usize {
        let mut closed = 0;
        let mut from = Some(0);
        while let Some(next) = from {
            let is_meant = is_meant.clone();
            let page = self.ask(move |state| {
                let (page, next) = state.page(next);
                let meant: Vec<_> = page.into_iter().filter(|(_, allocation)| is_meant(allocation)).collect();
                for (id, _) in &meant {
                    state.close(*id, reason);
                }
                (meant.len(), next)
            });
            let Some((count, next)) = page.await else { break };
            closed += count;
            from = next;
        }
        closed
    }

    /// What was refused to an IP address, or to anybody.
    pub async fn failures(&self, client: Option<IpAddr>) -> Vec<Failure> {
        self.ask(move |state| state.failures.of(client)).await.unwrap_or_default()
    }

    /// What there is of these listeners and relay addresses.
    pub async fn in_use(&self, listeners: Vec<(Transport, SocketAddr)>, relay_addresses: Vec<IpAddr>) -> Option<InUse> {
        let answer = self.ask(move |state| InUse {
            listeners: listeners
                .iter()
                .map(|(transport, at)| InService {
                    allocations: state.server.allocations_at(*transport, *at),
                    sessions: 0,
                })
                .collect(),
            relay_addresses: relay_addresses
                .iter()
                .map(|ip| InService {
                    allocations: state.server.allocations_on(*ip),
                    sessions: state.media.sessions.on(*ip),
                })
                .collect(),
        });
        answer.await
    }

    /// Asks a question. `None` if the shard does not run (any more), or does not answer in time.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Option<T> {
        timeout(PATIENCE, self.question(question)).await.ok()?
    }

    async fn question<T: Send + 'static>(&self, question: impl FnOnce(&mut State) -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let question = move |state: &mut State| {
            // Whoever asked may have given up; then the answer is nobody's.
            let _ = answer.send(question(state));
        };
        self.0.send(Command::Ask(Box::new(question))).ok()?;
        answered.await.ok()
    }
}

/// Asks all shards at once, so that those that are stuck cost one deadline. The answers are in the order of the shards.
pub(crate) async fn ask_all<T, F>(shards: &[ShardQuery], mut question: impl FnMut(ShardQuery) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    let questions: FuturesOrdered<_> = shards.iter().map(|shard| question(shard.clone())).collect();
    questions.collect().await
}

impl State {
    /// The allocations of a page, and where the next begins.
    fn page(&self, from: usize) -> (Vec<(AllocationId, api::Allocation)>, Option<usize>) {
        let (entries, next) = self.register.page(from, PAGE);
        let page = entries.filter_map(|(id, _)| Some((id, self.summary(id)?))).collect();
        (page, next)
    }

    fn close(&mut self, id: AllocationId, reason: EndReason) {
        self.server.close_allocation(now(), id, reason);
        self.carry_out();
        self.write_out();
    }

    /// An allocation as it is now.
    pub(super) fn summary(&self, id: AllocationId) -> Option<api::Allocation> {
        let entry = self.register.find(id)?;
        let info = self.server.describe(id)?;
        Some(self.describe(entry, self.totals(id), Some(&info)))
    }

    fn detail(&self, id: AllocationId) -> Option<api::AllocationDetail> {
        let allocation = self.summary(id)?;
        let info = self.server.describe(id)?;
        let permission = |info: &PermissionInfo| api::Permission { peer: info.peer, expires: unix(info.ends) };
        let permission_list = info.permissions.iter().map(permission).collect();
        let channels = info.channels.iter().map(|channel| api::Channel {
            number: format!("{:#06x}", channel.number),
            peer: channel.peer.socket(),
            expires: unix(channel.ends),
        });
        Some(api::AllocationDetail { allocation, permission_list, channel_list: channels.collect() })
    }

    /// Of one that has ended, there is no `info` any more.
    pub(super) fn describe(
        &self,
        entry: &Entry,
        relayed_data: api::Totals,
        info: Option<&AllocationInfo>,
    ) -> api::Allocation {
        let first = &entry.info;
        let count = |list: fn(&AllocationInfo) -> usize| info.map_or(0, list) as u64;
        let ends = info.unwrap_or(first).relayed.iter().map(|relayed| unix(relayed.ends));
        api::Allocation {
            id: name(self.index, entry.serial),
            username: first.username.clone(),
            user: first.account.clone(),
            realm: entry.info.realm.to_string(),
            transport: first.five_tuple.transport.label().to_owned(),
            client: first.five_tuple.client.socket(),
            server: first.five_tuple.server.socket(),
            peer_transport: match first.peers {
                PeerTransport::Udp => "udp",
                PeerTransport::Tcp => "tcp",
            }
            .to_owned(),
            relayed: relayed(entry),
            began: entry.began_unix,
            expires: ends.max().unwrap_or(entry.began_unix),
            permissions: count(|info| info.permissions.len()),
            channels: count(|info| info.channels.len()),
            connections: count(|info| info.connections),
            relayed_data,
        }
    }

    /// What was relayed for an allocation, on both paths.
    pub(super) fn totals(&self, id: AllocationId) -> api::Totals {
        let kernel = self.datapath.allocation_count(self.kernel_index(id));
        let userspace = self.register.find(id).map(Entry::relayed).unwrap_or_default();
        let sum = |counts: [hairpin_common::maps::Count; 2]| api::Amount {
            packets: counts.iter().map(|count| count.packets).sum(),
            bytes: counts.iter().map(|count| count.bytes).sum(),
        };
        api::Totals {
            to_peer: sum([kernel.to_peer, userspace.to_peer]),
            to_client: sum([kernel.to_client, userspace.to_client]),
            in_kernel: sum([kernel.to_peer, kernel.to_client]),
        }
    }
}

/// The same moment on the other clock.
pub(super) fn unix(at: Instant) -> u64 {
    let now = Instant::now();
    let (ahead, behind) = (at.saturating_duration_since(now), now.saturating_duration_since(at));
    (unix_seconds() + ahead.as_secs()).saturating_sub(behind.as_secs())
}
