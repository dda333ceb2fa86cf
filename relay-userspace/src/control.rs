//! What the admin interface drives: the relay, as one thing that can be asked and told.
//!
//! Only `/metrics` and `/readyz` are answered from the relay; the rest is made up.

#![allow(clippy::unused_async, reason = "what asks the shards will wait for them")]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::api;
use crate::clock::unix_seconds;
use crate::datapath;
use crate::metrics::Snapshot;
pub use crate::selection::BadFilter;
use crate::selection::Selection;
use crate::shard::{Report, Reservations, ShardQuery};

/// How long a shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events that a slow reader may be behind.
const EVENTS: usize = 1024;

/// What the admin interface can look at.
pub struct Sources {
    /// The shards.
    pub shards: Vec<ShardQuery>,
    /// The kernel path.
    pub datapath: datapath::Handle,
    /// Where XDP is attached.
    pub interfaces: datapath::Interfaces,
    /// The reserved sockets.
    pub reservations: Reservations,
    /// How many relay ports there are.
    pub port_capacity: usize,
    /// How many allocations there may be at once.
    pub allocation_capacity: u32,
}

/// The relay, for whoever administers it. Copies are of the same relay.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    sources: Sources,
    /// The last report of each shard: a sum without one that is stuck would look like a restart to Prometheus.
    last: Mutex<Vec<Option<Report>>>,
    events: broadcast::Sender<api::Event>,
    level: Mutex<String>,
    drain: Mutex<api::DrainStatus>,
}

impl Control {
    /// Of a relay.
    pub fn new(sources: Sources) -> Self {
        let last = Mutex::new(vec![None; sources.shards.len()]);
        let drain = api::DrainStatus { draining: false, allocations: 1, deadline: None, stop: false };
        Self(Arc::new(Inner {
            sources,
            last,
            events: broadcast::Sender::new(EVENTS),
            level: Mutex::new("info".to_owned()),
            drain: Mutex::new(drain),
        }))
    }

    /// How the relay is.
    pub async fn status(&self) -> api::Status {
        let now = unix_seconds();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: api::State::Serving,
            started: now,
            configured: now,
            config_file: None,
            reload_problems: Vec::new(),
            drain_deadline: None,
            shards: api::Share { used: 2, of: 2 },
            allocations: api::Share { used: 1, of: 16_384 },
            users: 1,
            listeners: vec![api::ListenerStatus {
                transport: "udp".to_owned(),
                address: SocketAddr::from(([0, 0, 0, 0], 3478)),
                public: SocketAddr::from(([203, 0, 113, 7], 3478)),
                allocations: 1,
                draining: false,
            }],
            relay_addresses: vec![api::RelayAddressStatus {
                address: IpAddr::from([10, 0, 0, 7]),
                public: IpAddr::from([203, 0, 113, 7]),
                ports: api::Share { used: 1, of: 16_384 },
                draining: false,
            }],
            kernel: api::KernelStatus::default(),
            certificates: Vec::new(),
            relayed: api::Totals::default(),
            dropped: Vec::new(),
            refused: Vec::new(),
            warnings: vec!["everything but metrics is made up".to_owned()],
        }
    }

    /// The allocations that are meant.
    pub async fn allocations(&self, filter: &api::Filter) -> Result<Vec<api::Allocation>, BadFilter> {
        let selection = Selection::new(filter)?;
        Ok([example()].into_iter().filter(|allocation| selection.has(allocation)).collect())
    }

    /// One of them, with all that belongs to it.
    pub async fn allocation(&self, id: &str) -> Option<api::AllocationDetail> {
        let allocation = Some(example()).filter(|allocation| allocation.id == id)?;
        let expires = allocation.expires;
        Some(api::AllocationDetail {
            allocation,
            permission_list: vec![api::Permission { peer: IpAddr::from([198, 51, 100, 9]), expires }],
            channel_list: vec![api::Channel {
                number: "0x4000".to_owned(),
                peer: SocketAddr::from(([198, 51, 100, 9], 9)),
                expires,
            }],
        })
    }

    /// Closes allocations; what they were is over, in the kernel too, when this returns.
    pub async fn close(&self, filter: &api::Filter) -> Result<api::Closed, BadFilter> {
        let closed = self.allocations(filter).await?;
        for allocation in &closed {
            let event = api::Event::Ended { allocation: allocation.clone(), reason: "closed".to_owned() };
            // Nobody watches.
            let _ = self.0.events.send(event);
        }
        Ok(api::Closed { closed: closed.len() as u64 })
    }

    /// Users that have an allocation.
    pub async fn users(&self) -> Vec<api::User> {
        let api::Allocation { user, realm, relayed_data, .. } = example();
        vec![api::User { user, realm, allocations: api::Share { used: 1, of: 12_288 }, relayed_data }]
    }

    /// What failed lately, newest first: of one client, or of all.
    pub async fn failures(&self, client: Option<IpAddr>) -> Vec<api::Failure> {
        let failure = api::Failure {
            client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            transport: "udp".to_owned(),
            at: unix_seconds(),
            count: 1,
            action: "allocate".to_owned(),
            code: Some(401),
            cause: "wrong_password".to_owned(),
            explanation: "The password is not the one of this user.".to_owned(),
            username: Some("alice".to_owned()),
            peer: None,
        };
        Some(failure).into_iter().filter(|failure| client.is_none_or(|client| client == failure.client.ip())).collect()
    }

    /// What happens to allocations from now on.
    pub fn events(&self) -> broadcast::Receiver<api::Event> {
        self.0.events.subscribe()
    }

    /// Reads the configuration again. An error is what is wrong with it, and then nothing has changed.
    pub async fn reload(&self, _request: api::ReloadRequest) -> Result<api::Reloaded, Vec<String>> {
        Ok(api::Reloaded::default())
    }

    /// Sends new clients elsewhere.
    pub async fn drain(&self, request: api::DrainRequest) -> api::DrainStatus {
        let deadline = request.timeout.map(|timeout| unix_seconds().saturating_add(timeout));
        let status = api::DrainStatus { draining: true, allocations: 1, deadline, stop: request.stop };
        *self.0.drain.lock().unwrap_or_else(PoisonError::into_inner) = status;
        status
    }

    /// How far that is.
    pub async fn drain_status(&self) -> api::DrainStatus {
        *self.0.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets new clients in again.
    pub async fn cancel_drain(&self) -> api::DrainStatus {
        let status = api::DrainStatus { draining: false, allocations: 1, deadline: None, stop: false };
        *self.0.drain.lock().unwrap_or_else(PoisonError::into_inner) = status;
        status
    }

    /// What is logged.
    pub fn log_level(&self) -> api::LogLevel {
        api::LogLevel { level: self.0.level.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    /// Changes what is logged. An error says what is allowed.
    pub fn set_log_level(&self, level: &api::LogLevel) -> Result<(), String> {
        if level.level.parse::<tracing_subscriber::EnvFilter>().is_err() || level.level == "loud" {
            return Err(format!("`{}` is neither a level nor a filter", level.level));
        }
        level.level.clone_into(&mut self.0.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Mints credentials. An error says why there can be none.
    pub fn credentials(&self, request: &api::CredentialsRequest) -> Result<api::Credentials, String> {
        let ttl = request.ttl.unwrap_or(3600);
        if ttl > 3600 {
            return Err(format!("a ttl of {ttl} seconds is more than 3600"));
        }
        let expires = unix_seconds() + ttl;
        let name = request.name.as_deref().map(|name| format!(":{name}")).unwrap_or_default();
        let server = api::IceServer {
            urls: vec!["turn:203.0.113.7:3478".to_owned()],
            username: format!("{expires}{name}"),
            credential: "bWFkZSB1cA==".to_owned(),
        };
        Ok(api::Credentials { ice_servers: vec![server], ttl, expires })
    }

    /// Everything that a scrape shows.
    pub async fn snapshot(&self) -> Snapshot {
        let reports = self.reports().await;
        let shards_up = reports.iter().flatten().count();
        let sources = &self.0.sources;
        Snapshot {
            shards_all: reports.len(),
            shards: self.with_last(reports),
            shards_up,
            kernel: sources.datapath.counters(),
            interfaces: sources.interfaces.status(),
            reserved: sources.reservations.len(),
            port_capacity: sources.port_capacity,
            allocation_capacity: sources.allocation_capacity,
        }
    }

    /// Ready means that every shard answers, and takes new clients. An error says what is missing.
    pub async fn readiness(&self) -> Result<(), String> {
        let reports = self.reports().await;
        let silent = reports.iter().filter(|report| report.is_none()).count();
        if silent > 0 {
            return Err(format!("{silent} of {} shards do not answer", reports.len()));
        }
        if reports.iter().flatten().any(|report| report.is_draining) {
            return Err("draining: no new clients".to_owned());
        }
        Ok(())
    }

    /// A report of every shard that answers in time, by its place.
    async fn reports(&self) -> Vec<Option<Report>> {
        let questions = self.0.sources.shards.iter().map(|shard| {
            let shard = shard.clone();
            async move { shard.report().await }
        });
        answers(questions, PATIENCE).await
    }

    /// The latest reports: these, and the last ones of shards that did not answer.
    fn with_last(&self, reports: Vec<Option<Report>>) -> Vec<Report> {
        // A panic elsewhere leaves reports that are whole.
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        latest(&mut last, reports)
    }
}

fn example() -> api::Allocation {
    let now = unix_seconds();
    api::Allocation {
        id: "1".to_owned(),
        username: "alice".to_owned(),
        user: "alice".to_owned(),
        realm: "hairpin".to_owned(),
        transport: "udp".to_owned(),
        client: SocketAddr::from(([127, 0, 0, 1], 40_000)),
        server: SocketAddr::from(([127, 0, 0, 1], 3478)),
        peer_transport: "udp".to_owned(),
        relayed: vec![SocketAddr::from(([203, 0, 113, 7], 50_000))],
        began: now.saturating_sub(192),
        expires: now + 408,
        permissions: 1,
        channels: 1,
        connections: 0,
        relayed_data: api::Totals {
            to_peer: api::Amount { packets: 9_000, bytes: 9_000_000 },
            to_client: api::Amount { packets: 8_000, bytes: 1_234_567 },
            in_kernel: api::Amount { packets: 17_000, bytes: 10_234_567 },
        },
    }
}

/// Keeps what is new, and returns the newest of each that has ever answered.
fn latest<T: Clone>(last: &mut [Option<T>], new: Vec<Option<T>>) -> Vec<T> {
    for (last, new) in last.iter_mut().zip(new) {
        *last = new.or(last.take());
    }
    last.iter().flatten().cloned().collect()
}

/// The answers that come in time, each at the place of its question; all are waited for at once.
async fn answers<T, F>(questions: impl IntoIterator<Item = F>, patience: Duration) -> Vec<Option<T>>
where
    T: Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let deadline = Instant::now() + patience;
    let mut asked = JoinSet::new();
    let mut answers = Vec::new();
    for (place, question) in questions.into_iter().enumerate() {
        answers.push(None);
        asked.spawn(async move { (place, question.await) });
    }
    while let Ok(Some(finished)) = timeout_at(deadline, asked.join_next()).await {
        if let Ok((place, answer)) = finished {
            answers[place] = answer;
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_does_not_answer_costs_one_deadline_and_no_other_answer() {
        let patience = Duration::from_millis(300);
        let begin = Instant::now();
        let questions = (0..40).map(|place| async move {
            match place % 4 {
                0 => std::future::pending().await,
                1 => None,
                _ => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Some(place)
                }
            }
        });
        let answers = answers(questions, patience).await;
        let expected: Vec<_> = (0..40).map(|place| (place % 4 > 1).then_some(place)).collect();
        assert_eq!(answers, expected);
        let took = begin.elapsed();
        assert!((patience..patience * 4).contains(&took), "{took:?} for a deadline of {patience:?}");
    }

    #[test]
    fn what_was_said_last_stands_in_for_silence() {
        let mut last = vec![None; 3];
        assert_eq!(latest(&mut last, vec![Some(1), None, Some(3)]), [1, 3]);
        assert_eq!(latest(&mut last, vec![None, None, Some(4)]), [1, 4]);
        assert_eq!(latest(&mut last, vec![Some(5), Some(6), None]), [5, 6, 4]);
    }
}
