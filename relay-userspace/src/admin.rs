//! The admin listener: metrics and health over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::datapath;
use crate::metrics::{Exporter, Snapshot};
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
    pub interfaces: Vec<datapath::InterfaceStatus>,
    /// The reserved sockets.
    pub reservations: Reservations,
    /// How many relay ports there are.
    pub port_capacity: usize,
}

struct Admin {
    sources: Sources,
    exporter: Exporter,
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
    let admin = Arc::new(Admin { sources, exporter: Exporter::new() });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(admin);
    axum::serve(listener, router).await
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let Some(shards) = admin.reports().await else { return not_ready() };
    let sources = &admin.sources;
    let snapshot = Snapshot {
        shards,
        kernel: sources.datapath.counters(),
        interfaces: sources.interfaces.clone(),
        reserved: sources.reservations.len(),
        port_capacity: sources.port_capacity,
    };
    let text = admin.exporter.render(&snapshot);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Ready means that every shard answers.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.reports().await.is_some() { "ready\n".into_response() } else { not_ready() }
}

fn not_ready() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "a shard does not answer\n").into_response()
}

impl Admin {
    /// A report of every shard, or `None` when one does not answer in time.
    async fn reports(&self) -> Option<Vec<Report>> {
        let collect = async {
            let mut reports = Vec::with_capacity(self.sources.shards.len());
            for shard in &self.sources.shards {
                reports.push(shard.report().await?);
            }
            Some(reports)
        };
        tokio::time::timeout(PATIENCE, collect).await.ok().flatten()
    }
}
