//! What may change while a shard runs: who may relay and what, listeners, certificates, limits.

use std::net::SocketAddr;
use std::sync::Arc;

use hairpin_dtls::ServerContext;
use hairpin_proto::address::Transport;
use hairpin_proto::media;
use hairpin_proto::turn::{Draining, Settings};
use ipnet::IpNet;

use super::admission::ConnectionLimits;
use super::journal::JournalOptions;
use super::questions::ShardQuery;
use super::sockets::Listeners;
use super::state::{State, now};

/// How a shard shall be from now on.
pub struct Change {
    /// What its engine is told.
    pub settings: Settings,
    /// What its engine of sessions is told.
    pub media: media::Settings,
    /// Listeners that it shall have besides those that it has.
    pub opened: Listeners,
    /// What is spoken where. Listeners of which nothing is said are closed.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// How many connections it has room for.
    pub connections: ConnectionLimits,
    /// Load balancers, whose connections say first for whom they are (PROXY protocol).
    pub proxies: Vec<IpNet>,
    /// What clients over TLS are shown.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What clients over DTLS are shown from now on; none: as before.
    pub dtls: Option<ServerContext>,
    /// What is logged of allocations.
    pub journal: JournalOptions,
}

impl ShardQuery {
    /// Changes the shard. When this returns, what comes is dealt with in the new way; what the kernel shall do is on its way.
    /// `None` if it does not run any more.
    pub async fn change(&self, change: Change) -> Option<()> {
        self.ask(|state| state.change(change)).await
    }

    /// Sends clients elsewhere, or lets them in again.
    pub async fn drain(&self, draining: Draining) -> Option<()> {
        self.ask(move |state| state.server.set_draining(draining)).await
    }
}

impl State {
    fn change(&mut self, change: Change) {
        let Change { settings, media, opened, listeners, connections, proxies, tls, dtls, journal } = change;
        // First, so that nobody is let in who may no longer come.
        self.translation = settings.translation.clone();
        self.server.reconfigure(now(), settings);
        self.carry_out();
        self.media.sessions.reconfigure(now().instant, media);
        self.carry_out_media();
        if let Some(context) = dtls {
            self.associations.set_context(Some(context));
        }
        if let Err(error) = self.sockets.add_listeners(opened) {
            tracing::error!(shard = self.index, %error, "a new listener cannot be watched: restart the relay");
        }
        self.sockets.keep_listeners(&listeners, tls.as_ref());
        self.connections.set_limits(connections);
        self.associations.set_limits(connections);
        self.max_peers = connections.all;
        self.proxies = proxies;
        self.journal = journal;
        self.write_out();
    }
}
