//! A PostgreSQL server.

mod encryption;
mod session;

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::layout::{self, Kept, KeptToken, Tables};
use crate::lease::{Connect, Connections};
use crate::url::{Host, Server};
use crate::{Answer, Question, Store, StoreError, StoreOptions, Work, tls};

use encryption::Encryption;
use session::Session;

/// How many connections: each carries as many questions at once as come, so these are for the server's cores.
const CONNECTIONS: usize = 4;

/// A PostgreSQL server. Connections are made when it is asked, and again when they have ended.
pub(crate) struct Postgres {
    name: String,
    config: Config,
    encryption: Option<Encryption>,
    timeout: Duration,
    connections: Connections<Session>,
    /// Looking through a table for a hash takes long: one at a time, on a connection of its own.
    scanner: Semaphore,
    scanning: Connections<Session>,
}

impl Postgres {
    pub(crate) fn new(name: String, server: &Server, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut config = Config::new();
        config
            .port(server.port)
            .dbname(&server.database)
            .application_name("hairpin")
            .connect_timeout(options.timeout)
            .tcp_user_timeout(options.timeout)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30));
        if let Some(user) = &server.user {
            config.user(user);
        }
        if let Some(password) = &server.password {
            config.password(password);
        }
        match &server.host {
            Host::Name(name) => config.host(name),
            Host::Unix(folder) => config.host_path(folder),
        };
        config.ssl_mode(if server.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let encryption = server.tls.as_ref().map(|tls| tls::config(tls.roots.as_deref())).transpose();
        let encryption = encryption.map_err(StoreError::Configuration)?.map(Encryption::new);
        let (connections, scanning) = (Connections::new(CONNECTIONS), Connections::new(1));
        let (timeout, scanner) = (options.timeout, Semaphore::new(1));
        Ok(Self { name, config, encryption, timeout, connections, scanner, scanning })
    }
}

impl Connect for Postgres {
    type Connection = Session;

    async fn connect(&self) -> Result<Session, StoreError> {
        Session::open(&self.config, self.encryption.clone(), self.timeout).await
    }

    fn is_good(&self, session: &Session) -> bool {
        session.is_good()
    }
}

impl Store for Postgres {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer<'a>(&'a self, question: &'a Question) -> Work<'a, Answer> {
        Box::pin(layout::answer(self, question))
    }

    fn probe(&self) -> Work<'_, ()> {
        Box::pin(async { self.user("", "").await.map(drop) })
    }
}

/// Asks over one of the connections, until it was one that still is.
macro_rules! ask {
    ($store:ident.$connections:ident, $question:ident($($argument:expr),*)) => {
        loop {
            let session = $store.$connections.lease($store).await?;
            let result = session.$question($($argument),*).await;
            if let Some(result) = session.settle(result) {
                break result;
            }
        }
    };
}

impl Tables for Postgres {
    async fn user(&self, realm: &str, name: &str) -> Result<Kept, StoreError> {
        ask!(self.connections, user(realm, name))
    }

    async fn name_of(&self, realm: &str, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
        if let Some(name) = ask!(self.connections, listed(realm, hash))? {
            return Ok(Some(name));
        }
        let _turn = self.scanner.acquire().await;
        ask!(self.scanning, computed(realm, hash))
    }

    async fn secrets(&self, realm: &str) -> Result<Vec<String>, StoreError> {
        ask!(self.connections, secrets(realm))
    }

    async fn token(&self, name: &str) -> Result<Option<KeptToken>, StoreError> {
        ask!(self.connections, token(name))
    }
}
