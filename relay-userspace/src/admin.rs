//! The admin listener: metrics and health over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::clock::unix_seconds;
use crate::config::Rates;
use crate::datapath;
use crate::metrics::{Configuration, Exporter, Ports, Process, Snapshot};
use crate::shard::{Report, Reservations, ShardQuery};

/// How long a shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(2);

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
    /// The relay addresses, with the ports of each.
    pub ports: Vec<(IpAddr, usize)>,
    /// How many allocations there may be at once.
    pub allocation_capacity: u32,
    /// The limits of rate.
    pub rates: Rates,
}

struct Admin {
    sources: Sources,
    exporter: Exporter,
    /// When the relay began.
    started: u64,
    /// The last report of each shard: a sum without one that is stuck would look like a restart to Prometheus.
    last: Mutex<Vec<Option<Report>>>,
}

/// Why the admin interface cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--admin {address}: {source}; choose another address, or `off`")]
pub struct AdminError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Opens the listener.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).await.map_err(|source| AdminError { address, source })
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the task is dropped.
pub async fn serve(listener: TcpListener, sources: Sources) -> std::io::Result<()> {
    let last = Mutex::new(vec![None; sources.shards.len()]);
    let admin = Arc::new(Admin { sources, exporter: Exporter::default(), started: unix_seconds(), last });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(admin);
    axum::serve(listener, router).await
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let reports = admin.reports().await;
    let lag = reports.iter().map(|report| report.as_ref().map_or(PATIENCE, |(_, took)| *took)).collect();
    let reports: Vec<_> = reports.into_iter().map(|report| report.map(|(report, _)| report)).collect();
    let shards_up = reports.iter().flatten().count();
    let sources = &admin.sources;
    let shards = admin.with_last(reports);
    let ports = ports(sources, &shards);
    let snapshot = Snapshot {
        shards,
        shards_all: sources.shards.len(),
        shards_up,
        lag,
        kernel: sources.datapath.counters(),
        interfaces: sources.interfaces.status(),
        ports,
        allocation_capacity: sources.allocation_capacity,
        rates: sources.rates,
        started: admin.started,
        configuration: Configuration { read: admin.started, ..Configuration::default() },
        process: Process::now(),
        ..Snapshot::default()
    };
    let text = admin.exporter.render(&snapshot);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The ports of each relay address: those of allocations, and those that are reserved.
fn ports(sources: &Sources, shards: &[Report]) -> Vec<Ports> {
    let reserved = sources.reservations.addresses();
    let in_use = |address: IpAddr| {
        let bound = shards.iter().flat_map(|shard| &shard.ports_in_use).filter(|(at, _)| *at == address);
        let reserved = reserved.iter().filter(|at| at.ip() == address).count();
        bound.map(|(_, ports)| ports).sum::<usize>() + reserved
    };
    let ports = sources.ports.iter();
    ports
        .map(|(address, capacity)| Ports { address: *address, in_use: in_use(*address), capacity: *capacity })
        .collect()
}

/// Ready means that every shard answers, and takes new clients.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let reports = admin.reports().await;
    let silent = reports.iter().filter(|report| report.is_none()).count();
    let text = if silent > 0 {
        format!("{silent} of {} shards do not answer\n", admin.sources.shards.len())
    } else if reports.iter().flatten().any(|(report, _)| report.is_draining) {
        "draining: no new clients\n".to_owned()
    } else {
        return "ready\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

impl Admin {
    /// A report of every shard that answers in time, by its place, and how long that took.
    async fn reports(&self) -> Vec<Option<(Report, Duration)>> {
        let asked = Instant::now();
        let questions = self.sources.shards.iter().map(|shard| {
            let shard = shard.clone();
            async move { shard.report().await.map(|report| (report, asked.elapsed())) }
        });
        answers(questions, PATIENCE).await
    }

    /// The latest reports: these, and the last ones of shards that did not answer.
    fn with_last(&self, reports: Vec<Option<Report>>) -> Vec<Report> {
        // A panic elsewhere leaves reports that are whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
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
