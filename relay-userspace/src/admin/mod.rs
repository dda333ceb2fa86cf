//! The admin interface: HTTP and JSON for operators and their programs, metrics and health for machines.
//!
//! One router serves two listeners. On the Unix socket everything is allowed, since whoever reaches it owns the relay's
//! files anyway; over TCP, metrics, health and the files of the status page are open, and the rest takes a bearer token
//! ([`Access`]). What it says and takes has types in [`api`](crate::api), and is described by a document of OpenAPI ([`document`]).
//!
//! It owns no state of the relay: everything is asked of [`Control`]. It never keeps or logs a token, and nothing that a
//! stranger sends makes it wait for longer, or keep more, than the limits in `connections` and `read` say.

mod access;
mod allocations;
mod connections;
mod cors;
mod credentials;
mod drain;
mod events;
mod failures;
mod health;
mod ice;
mod listen;
mod log_level;
mod openapi;
mod page;
mod page_tokens;
mod places;
mod problem;
mod read;
mod reload;
mod router;
mod socket;
mod sse;
mod stall;
mod status;
mod users;

use std::sync::Arc;

pub use access::{Access, Gate};
pub use listen::{AdminError, Listeners};
pub use openapi::document;
pub use socket::{default_socket, is_listened_to, system_socket};
use tokio::sync::Semaphore;

use crate::control::Control;
use crate::metrics::Exporter;

/// By which listener a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// Only this host's owner of the socket, and root.
    Unix,
    /// Anybody.
    Tcp,
}

/// What every request is answered from.
#[derive(Clone)]
struct Admin {
    control: Control,
    gate: Arc<Gate>,
    exporter: Arc<Exporter>,
    /// What was answered to requests that may come again.
    kept: Arc<ice::Kept>,
    /// Places of watchers, over both listeners.
    watchers: Arc<Semaphore>,
    /// Where browsers find the status page, if it is served over TCP.
    origin: Option<String>,
    via: Via,
}

/// Serves until the task is dropped.
pub async fn serve(listeners: Listeners, gate: Arc<Gate>, control: Control) {
    let exporter = Arc::<Exporter>::default();
    let kept = Arc::<ice::Kept>::default();
    let watchers = Arc::new(Semaphore::new(sse::WATCHERS));
    let origin = listeners.origin();
    let router = |via| {
        let (control, gate) = (control.clone(), Arc::clone(&gate));
        let (exporter, kept) = (Arc::clone(&exporter), Arc::clone(&kept));
        let (watchers, origin) = (Arc::clone(&watchers), origin.clone());
        router::router(Admin { control, gate, exporter, kept, watchers, origin, via })
    };
    let Listeners { tcp, unix } = listeners;
    let by_tcp = async {
        if let Some(listener) = tcp {
            connections::serve(listener, router(Via::Tcp)).await;
        }
    };
    let by_unix = async {
        if let Some(listener) = unix {
            connections::serve(listener, router(Via::Unix)).await;
        }
    };
    tokio::join!(by_tcp, by_unix);
}
