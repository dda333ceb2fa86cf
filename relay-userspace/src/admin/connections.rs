//! Connections of the admin interface, each with an end: whoever sends half a request, or does not take the answer, goes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

use super::places::{Answer, Place, Places};
use super::stall::Stall;

/// Connections at once, of each listener: a crowd at the one leaves the other alone. One more takes the place of one whose
/// client asks for nothing, or waits until a request is answered.
const CONNECTIONS: usize = 128;
/// How long a client may take to send the head of a request, or say nothing between two.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take nothing of an answer.
const STALL: Duration = Duration::from_secs(30);

/// Serves until the task is dropped.
pub(super) async fn serve(mut listener: impl Listener, router: Router) {
    let places = Places::new(CONNECTIONS);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 << 10);
    loop {
        let (io, _) = listener.accept().await;
        let place = places.take().await;
        let service = service(router.clone(), Arc::clone(&place));
        let connection = http.serve_connection(TokioIo::new(Stall::new(io, STALL)), service);
        tokio::spawn(async move {
            tokio::select! {
                // How a connection ends is up to its client.
                _ = connection => {}
                () = place.is_lost() => {}
            }
        });
    }
}

/// Answers requests, and lets the place of the connection know.
fn service(
    router: Router,
    place: Arc<Place>,
) -> impl Service<Request<Incoming>, Response = Response<Answer>, Error = Lost, Future: Send> {
    let router = TowerToHyperService::new(router);
    service_fn(move |request| {
        let begun = place.begin().map(|busy| (busy, router.call(request)));
        async move {
            let (busy, answer) = begun.ok_or(Lost)?;
            let response = answer.await.unwrap_or_else(|never| match never {});
            Ok(response.map(|body| Answer { body, _busy: busy }))
        }
    })
}

/// The place has gone to another connection.
#[derive(Debug, thiserror::Error)]
#[error("the place is lost")]
struct Lost;
