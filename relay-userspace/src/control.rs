//! What the admin interface drives: the relay, as one thing that can be asked and told. It knows who has the answer.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hairpin_common::maps::Count;
use hairpin_common::verdict::{Action, Verdict};
use hairpin_proto::turn::{Cause, Credentials, Discard, EndReason, RelayAddress, comes_by};
use hashbrown::HashMap;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::admin::Gate;
use crate::clock::unix_seconds;
use crate::config::Listener;
use crate::metrics::{self, Labelled, Snapshot};
use crate::relay::published::{Published, Shared};
use crate::relay::{Request, settle};
pub use crate::selection::BadFilter;
use crate::selection::Selection;
use crate::shard::{Events, Failure, LIMITS, Report, Reservations, ShardQuery, ask_all};
use crate::{announce, api, datapath, log, traces};

/// How long a shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);
/// From which share on something is called nearly full, in percent.
const NEARLY_FULL: u64 = 90;

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
    pub(crate) published: Shared,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) events: Events,
    pub(crate) log: log::Handle,
    /// Counts credentials.
    pub(crate) gate: Arc<Gate>,
    /// What has become of spans.
    pub(crate) traces: Arc<traces::Counts>,
}

/// The relay, for whoever administers it. Copies are of the same relay.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    sources: Sources,
    started: u64,
    /// The last report of each shard: a sum without one that is stuck would look like a restart to Prometheus.
    last: Mutex<Vec<Option<Report>>>,
}

impl Control {
    /// Of a relay.
    pub(crate) fn new(sources: Sources) -> Self {
        let last = Mutex::new(vec![None; sources.shards.len()]);
        Self(Arc::new(Inner { sources, started: unix_seconds(), last }))
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
            drain_deadline: published.drain.and_then(|(deadline, _)| deadline),
            drain_stops: published.drain.is_some_and(|(_, stop)| stop),
            shards,
            allocations,
            users: users(&all, 0).len() as u64,
            listeners: listeners(&published, &all),
            warnings: warnings(&published, shards, allocations, &relay_addresses, &kernel_status),
            relay_addresses,
            kernel: kernel_status,
            certificates: published.certificates.clone(),
            relayed: relayed(&reports, &kernel),
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
        users(&all, self.published().allocations_per_user as u64)
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

    /// Has the relay follow its configuration. An error says what is wrong with it; then nothing has changed.
    pub async fn reload(&self, request: api::ReloadRequest) -> Result<api::Reloaded, Vec<String>> {
        let (answer, answered) = oneshot::channel();
        let stopping = || vec!["the relay is about to end".to_owned()];
        self.0.sources.requests.send(Request::Reload(request, answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Lets no new clients in any more.
    pub async fn drain(&self, request: api::DrainRequest) -> api::DrainStatus {
        let (answer, answered) = oneshot::channel();
        // A relay that is about to end lets nobody in either.
        let _ = self.0.sources.requests.send(Request::Drain(request, answer)).await;
        let _ = answered.await;
        self.drain_status().await
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
            deadline: drain.and_then(|(deadline, _)| deadline),
            stop: drain.is_some_and(|(_, stop)| stop),
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
            drain_deadline: published.drain.and_then(|(deadline, _)| deadline),
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

fn users(allocations: &[api::Allocation], limit: u64) -> Vec<api::User> {
    let mut by_name: HashMap<(&str, &str), api::User> = HashMap::new();
    for allocation in allocations {
        let user = by_name.entry((&allocation.user, &allocation.realm)).or_insert_with(|| api::User {
            user: allocation.user.clone(),
            realm: allocation.realm.clone(),
            allocations: api::Share { used: 0, of: limit },
            relayed_data: api::Totals::default(),
        });
        user.allocations.used += 1;
        user.relayed_data += allocation.relayed_data;
    }
    let mut users: Vec<_> = by_name.into_values().collect();
    users.sort_by(|a, b| b.allocations.used.cmp(&a.allocations.used).then_with(|| a.user.cmp(&b.user)));
    users
}

fn listeners(published: &Published, allocations: &[api::Allocation]) -> Vec<api::ListenerStatus> {
    let all: Vec<_> = published.listeners.iter().map(|(listener, _)| *listener).collect();
    // Of two that serve a client, the kernel takes the one with the address itself.
    let of = |allocation: &api::Allocation| {
        let serves = |listener: &&Listener| {
            listener.transport.label() == allocation.transport
                && comes_by((listener.transport, listener.address), listener.transport, allocation.server)
        };
        all.iter().filter(serves).min_by_key(|listener| listener.address.ip().is_unspecified()).copied()
    };
    let served: Vec<_> = allocations.iter().map(of).collect();
    let status = |(listener, takes_new): &(Listener, bool)| api::ListenerStatus {
        transport: listener.transport.label().to_owned(),
        address: listener.address,
        public: listener.public,
        allocations: served.iter().filter(|by| **by == Some(*listener)).count() as u64,
        draining: !takes_new,
    };
    published.listeners.iter().map(status).collect()
}

/// What an operator should look at, the most urgent first.
fn warnings(
    published: &Published,
    shards: api::Share,
    allocations: api::Share,
    relay_addresses: &[api::RelayAddressStatus],
    kernel: &api::KernelStatus,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if shards.used < shards.of {
        let api::Share { used, of } = shards;
        warnings.push(format!("{} of {of} shards do not answer: look at the log, then restart the relay", of - used));
    }
    warnings.extend(published.certificates.iter().filter_map(crate::relay::certificate_warning));
    warnings.extend(published.certificate_problem.clone());
    let problems = published.reload_problems.iter();
    warnings.extend(problems.map(|problem| format!("the last reload has changed nothing: {problem}")));
    if is_nearly_full(allocations) {
        let api::Share { used, of } = allocations;
        warnings.push(format!(
            "{used} of {of} allocations: new clients will be refused; raise max-allocations, or add a relay"
        ));
    }
    for api::RelayAddressStatus { address, ports, .. } in relay_addresses {
        if is_nearly_full(*ports) {
            let api::Share { used, of } = ports;
            warnings.push(format!(
                "{used} of {of} ports of {address} are in use: new clients will be refused; widen relay-ports, or add a \
                 relay-address"
            ));
        }
    }
    if kernel.records.is_some_and(is_nearly_full) {
        warnings.push(
            "the kernel's table is nearly full: new flows are relayed in userspace; raise kernel-records".to_owned(),
        );
    }
    if !kernel.active && published.config.xdp != datapath::XdpMode::Off {
        warnings.push(format!("nothing is forwarded in the kernel: {}", kernel.summary));
    }
    for interface in kernel.interfaces.iter().filter(|interface| interface.mode != "native") {
        let api::InterfaceStatus { interface, mode, reason } = interface;
        if published.config.xdp != datapath::XdpMode::Generic && kernel.active {
            let reason = reason.as_deref().unwrap_or("no reason is known");
            warnings.push(format!("XDP on {interface} is {mode}, not native: {reason}"));
        }
    }
    warnings.extend(published.warnings.iter().cloned());
    warnings
}

fn is_nearly_full(share: api::Share) -> bool {
    share.used * 100 >= share.of * NEARLY_FULL && share.of > 0
}

fn failure(failure: &Failure) -> api::Failure {
    let explanation = match failure.detail {
        Some(detail) => format!("{} The client said: {detail}.", failure.explanation),
        None => failure.explanation.to_owned(),
    };
    api::Failure {
        client: failure.client,
        transport: failure.transport.label().to_owned(),
        at: failure.at,
        count: failure.count,
        action: failure.action.to_owned(),
        code: failure.code,
        cause: failure.cause.to_owned(),
        explanation,
        username: failure.username.map(|username| username.as_str().to_owned()),
        peer: failure.peer,
    }
}

fn refusals(reports: &[Report]) -> Vec<Labelled> {
    let count = |cause: &Cause| reports.iter().map(|report| report.refusals[*cause as usize]).sum();
    Cause::ALL.iter().map(|cause| (cause.label(), count(cause))).collect()
}

/// Those that are not zero, most first.
fn most_first(counts: Vec<Labelled>) -> Vec<api::ReasonCount> {
    let mut counts: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| api::ReasonCount { reason: reason.to_owned(), count })
        .collect();
    counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    counts
}

fn dropped(reports: &[Report], kernel: &datapath::Counters) -> Vec<api::ReasonCount> {
    let sum = |count: &dyn Fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let mut counts: Vec<Labelled> = Vec::new();
    counts.extend(
        Discard::ALL.iter().map(|reason| (reason.label(), sum(&|report| report.counters.discarded[*reason as usize]))),
    );
    counts.extend(LIMITS.iter().map(|limit| (limit.label(), sum(&|report| report.counters.refused[*limit as usize]))));
    counts.push(("hop_limit", sum(&|report| report.counters.hop_limit)));
    counts.push(("send_failed", sum(&|report| report.counters.send_failed)));
    counts.push(("queue_full", sum(&|report| report.connections.queue_full)));
    for verdict in Verdict::ALL.iter().filter(|verdict| verdict.action() == Action::Drop) {
        let packets = kernel.verdicts[*verdict as usize].packets;
        match counts.iter_mut().find(|(reason, _)| *reason == verdict.label()) {
            Some((_, count)) => *count += packets,
            None => counts.push((verdict.label(), packets)),
        }
    }
    most_first(counts)
}

/// Application data relayed on both paths.
fn relayed(reports: &[Report], kernel: &datapath::Counters) -> api::Totals {
    let add = |sum: api::Amount, count: Count| api::Amount {
        packets: sum.packets + count.packets,
        bytes: sum.bytes + count.bytes,
    };
    let mut totals = api::Totals::default();
    for report in reports {
        let counters = &report.counters;
        totals.to_peer = add(totals.to_peer, counters.to_peer);
        totals.to_client = add(totals.to_client, counters.to_client);
        totals.to_peer.bytes += counters.stream_bytes_to_peer;
        totals.to_client.bytes += counters.stream_bytes_to_client;
    }
    // What goes from client to client is relayed twice.
    let both = kernel.verdicts[Verdict::RelayToRelay as usize];
    let [to_peer, to_client] = [Verdict::ToPeer, Verdict::ToClient].map(|verdict| kernel.verdicts[verdict as usize]);
    for count in [to_peer, both] {
        totals.to_peer = add(totals.to_peer, count);
    }
    for count in [to_client, both] {
        totals.to_client = add(totals.to_client, count);
    }
    for count in [to_peer, to_client, both, both] {
        totals.in_kernel = add(totals.in_kernel, count);
    }
    totals
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
