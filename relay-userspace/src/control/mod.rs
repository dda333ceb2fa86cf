//! What the admin interface drives: the relay, as one thing that can be asked and told. It knows who has the answer; `view`
//! makes of what was answered what an operator reads.

mod ice;
mod identity;
mod view;

use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hairpin_proto::turn::{Credentials, EndReason, Quotas, RelayAddress};
use hairpin_users::Directory;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use self::ice::{IceError, IceErrorKind};
use self::view::{
    dropped, failure, listeners, media_relayed, most_first, refusals, relayed, sessions, users, warnings,
};
use crate::admin::Gate;
use crate::clock::unix_seconds;
use crate::metrics::{self, Snapshot};
use crate::relay::published::{Published, Shared};
use crate::relay::{Request, settle};
pub use crate::selection::BadFilter;
use crate::selection::Selection;
use crate::shard::{Events, IceEvents, Report, Reservations, ShardQuery, ask_all};
use crate::{announce, api, datapath, log, traces};

/// How long a shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where a relay's parts can be asked.
pub(crate) struct Sources {
    pub(crate) shards: Vec<ShardQuery>,
    pub(crate) datapath: datapath::Handle,
    pub(crate) interfaces: datapath::Interfaces,
    /// The kernel path in one line, while it is off.
    pub(crate) summary: String,
    pub(crate) reservations: Reservations,
    /// How many allocations there may be at once.
    pub(crate) allocation_capacity: u32,
    /// How many sessions of two legs there may be at once.
    pub(crate) session_capacity: u32,
    pub(crate) published: Shared,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) events: Events,
    pub(crate) ice_events: IceEvents,
    pub(crate) log: log::Handle,
    /// Counts credentials.
    pub(crate) gate: Arc<Gate>,
    /// What has become of spans.
    pub(crate) traces: Arc<traces::Counts>,
    /// Counts allocations.
    pub(crate) quotas: Quotas,
    /// Who is asked about users.
    pub(crate) directory: Arc<ArcSwapOption<Directory>>,
}

/// The relay, for whoever administers it. Copies are of the same relay.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    sources: Sources,
    started: u64,
    /// The last report of each shard: a sum without one that is stuck would look like a restart to Prometheus.
    last: Mutex<Vec<Option<Report>>>,
    /// Which shard the next session is made by.
    next_shard: AtomicUsize,
}

impl Control {
    /// Of a relay.
    pub(crate) fn new(sources: Sources) -> Self {
        let last = Mutex::new(vec![None; sources.shards.len()]);
        Self(Arc::new(Inner { sources, started: unix_seconds(), last, next_shard: AtomicUsize::new(0) }))
    }

    /// How the relay is.
    pub async fn status(&self) -> api::Status {
        let published = self.published();
        let answers = self.reports().await;
        let up = answers.iter().flatten().count() as u64;
        let reports = self.with_last(answers);
        let kernel = self.0.sources.datapath.counters();
        let allocations = api::Share {
            used: reports.iter().map(|report| report.allocations as u64).sum(),
            of: self.0.sources.allocation_capacity.into(),
        };
        let sessions = api::Share { used: sessions(&reports), of: self.0.sources.session_capacity.into() };
        let shards = api::Share { used: up, of: self.0.sources.shards.len() as u64 };
        let all = self.all(|_| true).await;
        let kernel_status = self.kernel(&kernel);
        let relay_address = |(address, takes_new, ports): (RelayAddress, bool, api::Share)| api::RelayAddressStatus {
            address: address.bind,
            public: address.public,
            ports,
            draining: !takes_new,
        };
        let relay_addresses: Vec<_> = self.ports(&published, &reports).into_iter().map(relay_address).collect();
        let (realms, user_stores) = (self.realms(), self.user_stores());
        let state = match &published.drain {
            _ if shards.used < shards.of => api::State::Degraded,
            Some(_) => api::State::Draining,
            None => api::State::Serving,
        };
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state,
            started: self.0.started,
            configured: published.configured,
            config_file: published.config.config_file.as_ref().map(|path| path.display().to_string()),
            reload_problems: published.reload_problems.clone(),
            drain_deadline: published.drain.and_then(|drain| drain.deadline),
            drain_stops: published.drain.is_some_and(|drain| drain.stop),
            shards,
            allocations,
            sessions,
            users: users(&all, &[]).len() as u64,
            listeners: listeners(&published, &all),
            warnings: {
                let of_relay = warnings(&published, shards, allocations, sessions, &relay_addresses, &kernel_status);
                let of_identity = identity::warnings(&realms, &user_stores);
                of_identity.into_iter().chain(of_relay).collect()
            },
            realms,
            user_stores,
            relay_addresses,
            kernel: kernel_status,
            certificates: published.certificates.clone(),
            relayed: relayed(&reports, &kernel),
            media: media_relayed(&reports, &kernel),
            dropped: dropped(&reports, &kernel),
            refused: most_first(refusals(&reports)),
        }
    }

    /// The allocations that are meant, the oldest first.
    pub async fn allocations(&self, filter: &api::Filter) -> Result<Vec<api::Allocation>, BadFilter> {
        let selection = Selection::new(filter)?;
        let mut all = self.all(move |allocation| selection.has(allocation)).await;
        all.sort_by(|a, b| (a.began, &a.id).cmp(&(b.began, &b.id)));
        Ok(all)
    }

    /// One allocation, with all that belongs to it.
    pub async fn allocation(&self, id: &str) -> Option<api::AllocationDetail> {
        let (shard, serial) = id.split_once('-')?;
        let shard = self.0.sources.shards.get(shard.parse::<usize>().ok()?)?;
        shard.allocation(serial.parse().ok()?).await
    }

    /// Ends the allocations that are meant. When this returns, the kernel forwards nothing of them any more.
    pub async fn close(&self, filter: &api::Filter) -> Result<api::Closed, BadFilter> {
        let selection = Selection::new(filter)?;
        let counts = ask_all(&self.0.sources.shards, |shard| {
            let selection = selection.clone();
            async move { shard.close(EndReason::Closed, move |allocation| selection.has(allocation)).await }
        });
        let closed = counts.await.into_iter().sum::<usize>() as u64;
        settle(self.0.sources.datapath.clone()).await;
        tracing::info!(closed, "allocations were closed by the operator");
        Ok(api::Closed { closed })
    }

    /// Users that have an allocation, those with the most first.
    pub async fn users(&self) -> Vec<api::User> {
        let all = self.all(|_| true).await;
        users(&all, &self.published().realms)
    }

    /// What was refused to a client, or to anybody, the newest first.
    pub async fn failures(&self, client: Option<IpAddr>) -> Vec<api::Failure> {
        let all = ask_all(&self.0.sources.shards, |shard| async move { shard.failures(client).await }).await;
        let mut failures: Vec<_> = all.iter().flatten().map(failure).collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        failures
    }

    /// What happens to allocations, from now on.
    pub fn events(&self) -> broadcast::Receiver<api::Event> {
        self.0.sources.events.subscribe()
    }

    /// What happens to sessions from now on.
    pub fn ice_events(&self) -> broadcast::Receiver<api::ice::Event> {
        self.0.sources.ice_events.subscribe()
    }

    /// Has the relay follow its configuration. An error says what is wrong with it; then nothing has changed.
    pub async fn reload(&self, request: api::ReloadRequest) -> Result<api::Reloaded, Vec<String>> {
        let (answer, answered) = oneshot::channel();
        let stopping = || vec!["the relay is about to end".to_owned()];
        self.0.sources.requests.send(Request::Reload(request, answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Lets no new clients in any more. An error says why clients that are there cannot be moved.
    pub async fn drain(&self, request: api::DrainRequest) -> Result<api::DrainStatus, &'static str> {
        if request.move_clients && self.published().config.alternates.is_empty() {
            return Err("clients cannot be moved: no alternate-server is configured to send them to");
        }
        let (answer, answered) = oneshot::channel();
        // A relay that is about to end lets nobody in either.
        let _ = self.0.sources.requests.send(Request::Drain(request, answer)).await;
        let _ = answered.await;
        Ok(self.drain_status().await)
    }

    /// Lets everybody in again.
    pub async fn cancel_drain(&self) -> api::DrainStatus {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.sources.requests.send(Request::CancelDrain(answer)).await;
        let _ = answered.await;
        self.drain_status().await
    }

    /// How far a drain is.
    pub async fn drain_status(&self) -> api::DrainStatus {
        let drain = self.published().drain;
        let reports = self.latest_reports().await;
        api::DrainStatus {
            draining: drain.is_some(),
            allocations: reports.iter().map(|report| report.allocations as u64).sum(),
            sessions: sessions(&reports),
            deadline: drain.and_then(|drain| drain.deadline),
            stop: drain.is_some_and(|drain| drain.stop),
            move_clients: drain.is_some_and(|drain| drain.moves),
        }
    }

    /// What is logged.
    pub fn log_level(&self) -> api::LogLevel {
        api::LogLevel { level: self.0.sources.log.level() }
    }

    /// Logs something else, until the next reload that changes it. An error says what is allowed.
    pub fn set_log_level(&self, level: &api::LogLevel) -> Result<(), String> {
        self.0.sources.log.set_level(&level.level)?;
        tracing::info!("log level: {}", level.level);
        Ok(())
    }

    /// Mints credentials. An error says why there are none.
    pub fn credentials(&self, request: &api::CredentialsRequest) -> Result<api::Credentials, String> {
        let published = self.published();
        let config = &published.config;
        let secret = published.secret.as_deref().ok_or(
            "there is no secret to mint with: the relay has users only; give it an auth-secret (--auth-secret-file)",
        )?;
        let longest = config.credentials_ttl.as_secs();
        let ttl = request.ttl.unwrap_or(longest);
        if !(1..=longest).contains(&ttl) {
            return Err(format!("ttl: 1 to {longest} seconds are allowed (credentials-ttl)"));
        }
        let name = request.name.as_deref().unwrap_or_default();
        if name.len() > 480 || name.chars().any(char::is_control) {
            return Err("name: at most 480 bytes without control characters are allowed".to_owned());
        }
        let expires = unix_seconds().saturating_add(ttl);
        let (username, credential) = Credentials::mint(secret, name, expires);
        let open: Vec<_> =
            published.listeners.iter().filter(|(_, takes_new)| *takes_new).map(|(listener, _)| *listener).collect();
        let urls = announce::uris(&open, &config.relay_addresses);
        Ok(api::Credentials { ice_servers: vec![api::IceServer { urls, username, credential }], ttl, expires })
    }

    /// What a scrape shows.
    pub async fn snapshot(&self) -> Snapshot {
        let answers = self.timed_reports().await;
        let lag = answers.iter().map(|answer| answer.as_ref().map_or(PATIENCE, |(_, took)| *took)).collect();
        let shards_up = answers.iter().flatten().count();
        let reports = self.with_last(answers.into_iter().map(|answer| answer.map(|(report, _)| report)).collect());
        let published = self.published();
        let Inner { sources, started, .. } = &*self.0;
        let port = |(address, _, ports): (RelayAddress, bool, api::Share)| metrics::Ports {
            address: address.bind,
            in_use: ports.used as usize,
            capacity: ports.of as usize,
        };
        let certificate = |certificate: &api::CertificateStatus| metrics::Certificate {
            file: certificate.file.clone(),
            expires: certificate.expires,
        };
        let ended = EndReason::ALL
            .iter()
            .map(|reason| (reason.label(), reports.iter().map(|report| report.ended[*reason as usize]).sum()));
        Snapshot {
            shards_all: sources.shards.len(),
            shards_up,
            lag,
            kernel: sources.datapath.counters(),
            interfaces: sources.interfaces.status(),
            ports: self.ports(&published, &reports).into_iter().map(port).collect(),
            allocation_capacity: sources.allocation_capacity,
            session_capacity: sources.session_capacity,
            rates: published.config.rates,
            ended: ended.collect(),
            refusals: refusals(&reports),
            started: *started,
            configuration: metrics::Configuration {
                read: published.configured,
                has_failed: !published.reload_problems.is_empty(),
                reloads: published.reloads[0],
                failures: published.reloads[1],
            },
            drain_deadline: published.drain.and_then(|drain| drain.deadline),
            certificates: published.certificates.iter().map(certificate).collect(),
            credentials: metrics::Credentials {
                minted: sources.gate.minted(),
                refused: vec![("rate_limited", sources.gate.refused())],
            },
            log_lines_dropped: sources.log.dropped(),
            traces: metrics::Traces {
                exported: sources.traces.exported(),
                failed: sources.traces.failed(),
                dropped: sources.traces.dropped(),
            },
            realms: self.realms(),
            user_stores: self.user_store_metrics(),
            process: metrics::Process::now(),
            shards: reports,
        }
    }

    /// Whether every shard answers, and takes new clients. An error says what is wrong.
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

    fn published(&self) -> Arc<Published> {
        self.0.sources.published.load_full()
    }

    /// All allocations of which this is true, of all shards.
    async fn all(&self, is_meant: impl Fn(&api::Allocation) -> bool + Clone + Send + 'static) -> Vec<api::Allocation> {
        let all = ask_all(&self.0.sources.shards, |shard| {
            let is_meant = is_meant.clone();
            async move { shard.allocations(is_meant).await }
        });
        all.await.into_iter().flatten().collect()
    }

    fn kernel(&self, counters: &datapath::Counters) -> api::KernelStatus {
        let interface = |status: datapath::InterfaceStatus| api::InterfaceStatus {
            interface: status.interface,
            mode: status.mode.label().to_owned(),
            reason: status.reason.map(|reason| reason.text),
        };
        let sources = &self.0.sources;
        let active = sources.datapath.is_active();
        let all = sources.interfaces.status();
        let lines: Vec<_> = all.iter().map(ToString::to_string).collect();
        api::KernelStatus {
            active,
            summary: if active { format!("XDP: {}", lines.join("; ")) } else { sources.summary.clone() },
            interfaces: all.into_iter().map(interface).collect(),
            records: active.then_some(api::Share { used: counters.records.used, of: counters.records.capacity }),
            insert_failures: counters.insert_failures,
        }
    }

    /// The ports of each relay address, those that are reserved included.
    fn ports(&self, published: &Published, reports: &[Report]) -> Vec<(RelayAddress, bool, api::Share)> {
        let reserved = self.0.sources.reservations.addresses();
        let of = published.config.relay_ports.count() as u64;
        let addresses = published.relay_addresses.iter();
        addresses
            .map(|(address, takes_new)| {
                let is_it = |ip: IpAddr| ip == address.bind;
                let bound = reports.iter().flat_map(|report| &report.ports_in_use).filter(|(ip, _)| is_it(*ip));
                let reserved = reserved.iter().filter(|at| is_it(at.ip())).count();
                let used = bound.map(|(_, ports)| ports).sum::<usize>() + reserved;
                (*address, *takes_new, api::Share { used: used as u64, of })
            })
            .collect()
    }

    /// A report of every shard that answers in time, by its place, and how long that took.
    async fn timed_reports(&self) -> Vec<Option<(Report, Duration)>> {
        let asked = Instant::now();
        let questions = self.0.sources.shards.iter().map(|shard| {
            let shard = shard.clone();
            async move { shard.report().await.map(|report| (report, asked.elapsed())) }
        });
        answers(questions, PATIENCE).await
    }

    async fn reports(&self) -> Vec<Option<Report>> {
        self.timed_reports().await.into_iter().map(|answer| answer.map(|(report, _)| report)).collect()
    }

    async fn latest_reports(&self) -> Vec<Report> {
        let reports = self.reports().await;
        self.with_last(reports)
    }

    /// The latest reports: these, and the last ones of shards that did not answer.
    fn with_last(&self, reports: Vec<Option<Report>>) -> Vec<Report> {
        // A panic elsewhere leaves reports that are whole.
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        latest(&mut last, reports)
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
