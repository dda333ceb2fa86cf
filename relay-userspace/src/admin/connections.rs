//! Connections of the admin interface, each with an end: whoever sends half a request, or does not take the answer, goes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::stall::Stall;

/// Connections at once, of each listener: a crowd at the one leaves the other alone. More wait until one ends.
const CONNECTIONS: usize = 128;
/// How long a client may take to send the head of a request, or say nothing between two.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer.
const STALL: Duration = Duration::from_secs(30);

/// Serves until the task is dropped.
pub(super) async fn serve(mut listener: impl Listener, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 << 10);
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let (io, _) = listener.accept().await;
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(Stall::new(io, STALL)), service);
        tokio::spawn(async move {
            // How a connection ends is up to its client.
            let _ = connection.await;
            drop(place);
        });
    }
}
