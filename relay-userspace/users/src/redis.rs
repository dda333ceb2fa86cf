//! A Redis server.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates,
};

use crate::layout::{self, Added, Kept, KeptToken, Tables, wrong};
use crate::lease::{Connect, Connections};
use crate::url::{Host, Server};
use crate::{Answer, Question, Store, StoreError, StoreOptions, Work, hex, tls};

/// A Redis server: coturn's keys `turn/...`, and Hairpin's `hairpin/...` beside them. One connection carries as many
/// questions at once as come. It is made when the server is asked, and again when it has ended.
pub(crate) struct Redis {
    name: String,
    client: Client,
    timeout: Duration,
    connections: Connections<MultiplexedConnection>,
}

impl Redis {
    pub(crate) fn new(name: String, server: &Server, options: &StoreOptions) -> Result<Self, StoreError> {
        let client = client(server).map_err(StoreError::Configuration)?;
        Ok(Self { name, client, timeout: options.timeout, connections: Connections::new(1) })
    }

    async fn ask<T: FromRedisValue>(&self, what: &'static str, command: &Cmd) -> Result<T, StoreError> {
        loop {
            let lease = self.connections.lease(self).await?;
            let mut connection = MultiplexedConnection::clone(&lease);
            let result = command.query_async(&mut connection).await.map_err(|error| explain(what, &error));
            if let Some(result) = lease.settle(result) {
                return result;
            }
        }
    }
}

impl Connect for Redis {
    type Connection = MultiplexedConnection;

    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|error| explain("login", &error))
    }

    fn is_good(&self, _connection: &MultiplexedConnection) -> bool {
        // It does not know before it is used.
        true
    }
}

fn client(server: &Server) -> Result<Client, String> {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_skip_set_lib_name()
        .set_db(server.database.parse().unwrap_or_default());
    if let Some(user) = &server.user {
        login = login.set_username(user);
    }
    if let Some(password) = &server.password {
        login = login.set_password(password);
    }
    let port = server.port;
    let address = match (&server.host, &server.tls) {
        (Host::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
        (Host::Name(host), None) => ConnectionAddr::Tcp(host.clone(), port),
        (Host::Name(host), Some(_)) => {
            ConnectionAddr::TcpTls { host: host.clone(), port, insecure: false, tls_params: None }
        }
    };
    let info = address.into_connection_info().map_err(|error| error.to_string())?.set_redis_settings(login);
    let client = match &server.tls {
        None => Client::open(info),
        Some(encryption) => {
            let root_cert = encryption.roots.as_deref().map(tls::read).transpose()?;
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        }
    };
    client.map_err(|error| error.to_string())
}

impl Store for Redis {
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

impl Tables for Redis {
    async fn user(&self, realm: &str, name: &str) -> Result<Kept, StoreError> {
        if is_ambiguous(name) {
            return Ok(Kept::default());
        }
        let mut key = Cmd::new();
        key.arg("GET").arg(format!("turn/realm/{realm}/user/{name}/key"));
        let mut fields = Cmd::new();
        fields.arg("HMGET").arg(format!("hairpin/realm/{realm}/user/{name}"));
        fields.arg(&["sha256", "relayed_addresses", "allocations"]);
        // Both travel at once.
        let (md5, added) = tokio::join!(self.ask("hmackey", &key), self.ask("hairpin user", &fields));
        let (sha256, relayed_addresses, allocations): (Option<_>, Option<_>, Option<String>) = added?;
        let allocations = allocations.map(|number| number.trim().parse()).transpose();
        let allocations = allocations.map_err(|_| wrong("allocations", "it is no number"))?;
        let is_there = sha256.is_some() || relayed_addresses.is_some() || allocations.is_some();
        Ok(Kept { md5: md5?, added: is_there.then_some(Added { sha256, relayed_addresses, allocations }) })
    }

    async fn name_of(&self, realm: &str, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
        // Nothing can be computed here: only those are found whose hashes are kept.
        let mut name = Cmd::new();
        name.arg("GET").arg(format!("hairpin/realm/{realm}/userhash/{}", hex::encode(hash)));
        self.ask("userhash", &name).await
    }

    async fn secrets(&self, realm: &str) -> Result<Vec<String>, StoreError> {
        let mut secrets = Cmd::new();
        secrets.arg("SMEMBERS").arg(format!("turn/realm/{realm}/secret"));
        self.ask("secret", &secrets).await
    }

    async fn token(&self, name: &str) -> Result<Option<KeptToken>, StoreError> {
        let mut fields = Cmd::new();
        fields.arg("HMGET").arg(format!("turn/oauth/kid/{name}"));
        fields.arg(&["ikm_key", "as_rs_alg", "timestamp", "lifetime"]);
        let fields: [Option<String>; 4] = self.ask("oauth key", &fields).await?;
        let [Some(key), algorithm, timestamp, lifetime] = fields else { return Ok(None) };
        let number = |text: Option<String>, what| {
            text.map_or(Ok(0), |text| text.trim().parse().map_err(|_| wrong(what, "it is no number")))
        };
        Ok(Some(KeptToken {
            key,
            algorithm: algorithm.unwrap_or_default(),
            timestamp: number(timestamp, "timestamp")?,
            lifetime: number(lifetime, "lifetime")?,
        }))
    }
}

/// Whether the key of such a name may be that of another name in another realm: `b` in a realm named `a/user/c`, or what
/// is kept of hashes. A name may have slashes all the same, and coturn has such names.
fn is_ambiguous(name: &str) -> bool {
    name.contains("/user/") || name.contains("/userhash/")
}

/// What the server says names commands and keys, and keys have usernames in them: only its code is told.
fn explain(what: &'static str, error: &RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::Timeout;
    }
    if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() {
        return StoreError::Unreachable(error.to_string());
    }
    match error.code() {
        Some("WRONGTYPE") => wrong(what, "it is no value of the kind that it should be"),
        Some(code @ ("LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN")) => {
            StoreError::Unreachable(code.to_owned())
        }
        Some(code) => StoreError::Failed(format!("the server refuses: {code}")),
        None if error.kind() == redis::ErrorKind::UnexpectedReturnType => wrong(what, "it is no text"),
        None => StoreError::Failed(error.to_string()),
    }
}
