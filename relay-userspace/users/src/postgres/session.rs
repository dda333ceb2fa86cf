//! One connection to a PostgreSQL server, and what it asks there.

use std::error::Error;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::encryption::Encryption;
use crate::layout::{Added, Kept, KeptToken, wrong};
use crate::{StoreError, hex};

/// A connection that has missed a table is given up after so long: there may be one by then.
const MISSING: Duration = Duration::from_secs(5);

const KEY: &str = "select hmackey from turnusers_lt where realm = $1 and name = $2";
const ADDED: &str =
    "select sha256, relayed_addresses, allocations::bigint from hairpin_user where realm = $1 and name = $2";
const SECRETS: &str = "select value from turn_secret where realm = $1";
const TOKEN: &str = "select ikm_key, as_rs_alg, timestamp::bigint, lifetime::bigint from oauth_key where kid = $1";
const LISTED: &str = "select name from hairpin_user where realm = $1 and userhash = $2";
const COMPUTED: &str =
    "select name from turnusers_lt where realm = $1 and sha256(convert_to(name || ':' || realm, 'UTF8')) = $2 limit 1";

/// A connection, and its statements. Those that name a table which is not there are none.
pub(crate) struct Session {
    client: Client,
    since: Instant,
    key: Option<Statement>,
    added: Option<Statement>,
    secrets: Option<Statement>,
    token: Option<Statement>,
    listed: Option<Statement>,
    computed: Option<Statement>,
}

impl Session {
    pub(super) async fn open(
        config: &Config,
        encryption: Option<Encryption>,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let client = if let Some(encryption) = encryption {
            let (client, connection) = config.connect(encryption).await.map_err(|error| explain(&error))?;
            tokio::spawn(connection);
            client
        } else {
            let (client, connection) = config.connect(NoTls).await.map_err(|error| explain(&error))?;
            tokio::spawn(connection);
            client
        };
        // Nothing is written, and no question outlives the one who asked it.
        let settings = format!(
            "set default_transaction_read_only = on; set statement_timeout = {}; set client_encoding = 'UTF8'",
            timeout.as_millis().max(1)
        );
        client.batch_execute(&settings).await.map_err(|error| explain(&error))?;
        let texts = [Type::TEXT, Type::TEXT];
        Ok(Self {
            key: prepare(&client, KEY, &texts, &[]).await?,
            added: prepare(&client, ADDED, &texts, &[]).await?,
            secrets: prepare(&client, SECRETS, &texts[..1], &[]).await?,
            token: prepare(&client, TOKEN, &texts[..1], &[]).await?,
            listed: prepare(&client, LISTED, &texts, &[]).await?,
            // Servers before version 11 can't.
            computed: prepare(&client, COMPUTED, &[Type::TEXT, Type::BYTEA], &[SqlState::UNDEFINED_FUNCTION]).await?,
            since: Instant::now(),
            client,
        })
    }

    /// Whether it may be asked once more.
    pub(super) fn is_good(&self) -> bool {
        let statements = [&self.key, &self.added, &self.secrets, &self.token, &self.listed];
        let has_all = statements.iter().all(|statement| statement.is_some());
        !self.client.is_closed() && (has_all || self.since.elapsed() < MISSING)
    }

    pub(super) async fn user(&self, realm: &str, name: &str) -> Result<Kept, StoreError> {
        // Both travel at once.
        let parameters: [&(dyn ToSql + Sync); 2] = [&realm, &name];
        let (md5, added) =
            tokio::join!(self.first(self.key.as_ref(), &parameters), self.first(self.added.as_ref(), &parameters));
        let md5 = md5?.map(|row| column(&row, 0, "hmackey")).transpose()?.flatten();
        let added = added?.map(|row| {
            Ok::<_, StoreError>(Added {
                sha256: column(&row, 0, "sha256")?,
                relayed_addresses: column(&row, 1, "relayed_addresses")?,
                allocations: column(&row, 2, "allocations")?,
            })
        });
        Ok(Kept { md5, added: added.transpose()? })
    }

    /// Whose hash this is, by the column of hashes.
    pub(super) async fn listed(&self, realm: &str, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
        let row = self.first(self.listed.as_ref(), &[&realm, &hex::encode(hash)]).await?;
        Ok(row.map(|row| column(&row, 0, "name")).transpose()?.flatten())
    }

    /// Whose hash this is, by computing those of all users of coturn's table.
    pub(super) async fn computed(&self, realm: &str, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
        let row = self.first(self.computed.as_ref(), &[&realm, &&hash[..]]).await?;
        Ok(row.map(|row| column(&row, 0, "name")).transpose()?.flatten())
    }

    pub(super) async fn secrets(&self, realm: &str) -> Result<Vec<String>, StoreError> {
        let rows = self.all(self.secrets.as_ref(), &[&realm]).await?;
        rows.iter().filter_map(|row| column(row, 0, "value").transpose()).collect()
    }

    pub(super) async fn token(&self, name: &str) -> Result<Option<KeptToken>, StoreError> {
        let Some(row) = self.first(self.token.as_ref(), &[&name]).await? else { return Ok(None) };
        Ok(Some(KeptToken {
            key: column(&row, 0, "ikm_key")?.unwrap_or_default(),
            algorithm: column(&row, 1, "as_rs_alg")?.unwrap_or_default(),
            timestamp: column(&row, 2, "timestamp")?.unwrap_or_default(),
            lifetime: column(&row, 3, "lifetime")?.unwrap_or_default(),
        }))
    }

    async fn first(
        &self,
        statement: Option<&Statement>,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.all(statement, parameters).await?.into_iter().next())
    }

    async fn all(
        &self,
        statement: Option<&Statement>,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let Some(statement) = statement else { return Ok(Vec::new()) };
        match self.client.query(statement, parameters).await {
            Err(error) if is_nowhere(&error) => Ok(Vec::new()),
            rows => rows.map_err(|error| explain(&error)),
        }
    }
}

/// A statement, unless what it names is not there.
async fn prepare(
    client: &Client,
    sql: &str,
    types: &[Type],
    missing: &[SqlState],
) -> Result<Option<Statement>, StoreError> {
    match client.prepare_typed(sql, types).await {
        Ok(statement) => Ok(Some(statement)),
        Err(error) if error.code().is_some_and(|code| *code == SqlState::UNDEFINED_TABLE || missing.contains(code)) => {
            Ok(None)
        }
        Err(error) => Err(explain(&error)),
    }
}

fn column<'r, T: FromSql<'r>>(row: &'r Row, index: usize, what: &'static str) -> Result<Option<T>, StoreError> {
    row.try_get(index).map_err(|_| wrong(what, "it has another type"))
}

/// Whether a question can have no answer in this database: the table is gone, or a character of the name is none of the
/// database's encoding.
fn is_nowhere(error: &tokio_postgres::Error) -> bool {
    let nowhere =
        [SqlState::UNDEFINED_TABLE, SqlState::UNTRANSLATABLE_CHARACTER, SqlState::CHARACTER_NOT_IN_REPERTOIRE];
    error.code().is_some_and(|code| nowhere.contains(code))
}

/// Messages of the server name tables and roles. Its details may name values, and are left out.
fn explain(error: &tokio_postgres::Error) -> StoreError {
    if let Some(told) = error.as_db_error() {
        let text = format!("{} ({})", told.message(), told.code().code());
        return match told.code().code() {
            code if *told.code() == SqlState::QUERY_CANCELED && code == "57014" => StoreError::Timeout,
            // Class 08, 53 and 57: connections, resources, and whoever shuts the server down.
            code if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => StoreError::Unreachable(text),
            _ => StoreError::Failed(text),
        };
    }
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    StoreError::Unreachable(cause)
}
