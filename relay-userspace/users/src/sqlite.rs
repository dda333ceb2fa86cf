//! A file of SQLite, read only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hairpin_proto::stun::user_hash;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, Params, Row};
use tokio::sync::Semaphore;

use crate::layout::{self, Added, Kept, KeptToken, Tables, wrong};
use crate::{Answer, Question, Store, StoreError, StoreOptions, Work, hex};

/// How many threads may read at once.
const READERS: usize = 4;

/// How many steps of SQLite's machine pass between two looks at the clock.
const STEPS: i32 = 10_000;

/// A file of SQLite. The file is opened when it is asked, and again when another has taken its place.
pub(crate) struct Sqlite {
    name: String,
    file: Arc<File>,
    readers: Arc<Semaphore>,
    /// Looking through a table for a hash takes long: one at a time, so that the others find a reader.
    scanner: Arc<Semaphore>,
}

struct File {
    path: PathBuf,
    timeout: Duration,
    idle: Mutex<Vec<Open>>,
}

/// An open file, and which file it was.
struct Open {
    connection: Connection,
    identity: (u64, u64),
}

impl Sqlite {
    pub(crate) fn new(name: String, path: &Path, options: &StoreOptions) -> Self {
        let file = File { path: path.to_owned(), timeout: options.timeout, idle: Mutex::default() };
        let (readers, scanner) = (Semaphore::new(READERS), Semaphore::new(1));
        Self { name, file: Arc::new(file), readers: Arc::new(readers), scanner: Arc::new(scanner) }
    }

    /// Reads on a thread that may wait.
    async fn read<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(turns).acquire_owned().await.map_err(|error| StoreError::Failed(error.to_string()))?;
        let file = Arc::clone(&self.file);
        let reading = tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone before the file is read: the turn ends with the reading.
            let _turn = turn;
            let open = file.open()?;
            let result = work(&open.connection);
            if matches!(result, Ok(_) | Err(StoreError::Entry { .. })) {
                file.keep(open);
            }
            result
        });
        reading.await.map_err(|error| StoreError::Failed(error.to_string()))?
    }
}

impl Store for Sqlite {
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

impl Tables for Sqlite {
    async fn user(&self, realm: &str, name: &str) -> Result<Kept, StoreError> {
        let (realm, name) = (realm.to_owned(), name.to_owned());
        let work = move |connection: &Connection| {
            let md5 = "select hmackey from turnusers_lt where realm = ?1 and name = ?2";
            let md5 = first(connection, md5, [&realm, &name], |row| text(row, 0, "hmackey"))?.flatten();
            let added =
                "select sha256, relayed_addresses, allocations from hairpin_user where realm = ?1 and name = ?2";
            let added = first(connection, added, [&realm, &name], |row| {
                Ok(Added {
                    sha256: text(row, 0, "sha256")?,
                    relayed_addresses: text(row, 1, "relayed_addresses")?,
                    allocations: column(row, 2, "allocations")?,
                })
            })?;
            Ok(Kept { md5, added })
        };
        self.read(&self.readers, work).await
    }

    async fn name_of(&self, realm: &str, hash: &[u8; 32]) -> Result<Option<String>, StoreError> {
        let (kept, hash) = (realm.to_owned(), *hash);
        let listed = move |connection: &Connection| {
            let name = "select name from hairpin_user where realm = ?1 and userhash = ?2";
            first(connection, name, [&kept, &hex::encode(&hash)], |row| text(row, 0, "name")).map(Option::flatten)
        };
        if let Some(name) = self.read(&self.readers, listed).await? {
            return Ok(Some(name));
        }
        let realm = realm.to_owned();
        let computed = move |connection: &Connection| {
            let name = "select name from turnusers_lt where realm = ?1 and hairpin_user_hash(name, realm) = ?2 limit 1";
            first(connection, name, (&realm, &hash[..]), |row| text(row, 0, "name")).map(Option::flatten)
        };
        self.read(&self.scanner, computed).await
    }

    async fn secrets(&self, realm: &str) -> Result<Vec<String>, StoreError> {
        let realm = realm.to_owned();
        let work = move |connection: &Connection| {
            let secrets = "select value from turn_secret where realm = ?1";
            let secrets = all(connection, secrets, [&realm], |row| text(row, 0, "value"))?;
            Ok(secrets.into_iter().flatten().collect())
        };
        self.read(&self.readers, work).await
    }

    async fn token(&self, name: &str) -> Result<Option<KeptToken>, StoreError> {
        let name = name.to_owned();
        let work = move |connection: &Connection| {
            // What is there: coturn's versions differ.
            first(connection, "select * from oauth_key where kid = ?1", [&name], |row| {
                let place = |name| row.as_ref().column_index(name).ok();
                let read = |name| place(name).map_or(Ok(None), |place| text(row, place, name));
                let number = |name| place(name).map_or(Ok(None), |place| column(row, place, name));
                Ok(KeptToken {
                    key: read("ikm_key")?.unwrap_or_default(),
                    algorithm: read("as_rs_alg")?.unwrap_or_default(),
                    timestamp: number("timestamp")?.unwrap_or_default(),
                    lifetime: number("lifetime")?.unwrap_or_default(),
                })
            })
        };
        self.read(&self.readers, work).await
    }
}

impl File {
    /// A connection to the file that has the name now.
    fn open(&self) -> Result<Open, StoreError> {
        let identity = self.identity()?;
        let mut open = match self.take(identity) {
            Some(open) => open,
            None => Open { connection: self.connect()?, identity },
        };
        // A reader ends with the question that it reads for.
        let end = Instant::now() + self.timeout;
        open.connection
            .progress_handler(STEPS, Some(move || Instant::now() >= end))
            .map_err(|error| explain(&error))?;
        Ok(open)
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(|error| explain(&error))?;
        // A file that is locked for longer is a failure in time.
        connection.busy_timeout(self.timeout / 2).map_err(|error| explain(&error))?;
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        let hash = connection.create_scalar_function("hairpin_user_hash", 2, flags, |context| {
            let part = |index| context.get_raw(index).as_str().unwrap_or_default();
            Ok(user_hash(part(0), part(1)).to_vec())
        });
        hash.map_err(|error| explain(&error))?;
        Ok(connection)
    }

    fn identity(&self) -> Result<(u64, u64), StoreError> {
        let metadata = fs::metadata(&self.path);
        let metadata =
            metadata.map_err(|error| StoreError::Unreachable(format!("{}: {error}", self.path.display())))?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn take(&self, identity: (u64, u64)) -> Option<Open> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|open| open.identity == identity);
        idle.pop()
    }

    fn keep(&self, open: Open) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(open);
        }
    }
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let nowhere = |error: &rusqlite::Error| error.to_string().starts_with("no such table");
    let mut statement = match connection.prepare_cached(sql) {
        Err(error) if nowhere(&error) => return Ok(Vec::new()),
        statement => statement.map_err(|error| explain(&error))?,
    };
    let mut rows = statement.query(parameters).map_err(|error| explain(&error))?;
    let mut found = Vec::new();
    loop {
        match rows.next() {
            Ok(Some(row)) => found.push(read(row)?),
            Ok(None) => return Ok(found),
            // The statement is older than the table's end.
            Err(error) if nowhere(&error) => return Ok(Vec::new()),
            Err(error) => return Err(explain(&error)),
        }
    }
}

fn first<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    all(connection, sql, parameters, read).map(|found| found.into_iter().next())
}

fn column<T: FromSql>(row: &Row<'_>, index: usize, what: &'static str) -> Result<Option<T>, StoreError> {
    row.get(index).map_err(|_| wrong(what, "it has another type"))
}

fn text(row: &Row<'_>, index: usize, what: &'static str) -> Result<Option<String>, StoreError> {
    column(row, index, what)
}

/// Errors of SQLite name tables and columns, never what is in them.
fn explain(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => StoreError::Timeout,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Unreachable("it is locked".to_owned()),
        Some(ErrorCode::CannotOpen) => StoreError::Unreachable("it can't be opened".to_owned()),
        _ => StoreError::Failed(error.to_string()),
    }
}
