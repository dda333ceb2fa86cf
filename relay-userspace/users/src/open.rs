//! Makes a store of a URL.

use std::time::Duration;

#[cfg(feature = "postgres")]
use crate::postgres::Postgres;
#[cfg(feature = "redis")]
use crate::redis::Redis;
#[cfg(feature = "sqlite")]
use crate::sqlite::Sqlite;
use crate::{Store, StoreError, StoreUrl};

/// What all stores are told.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// How long a question may take. Connections are given up after that.
    pub timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2) }
    }
}

/// Makes the store that a URL names. Nothing is connected yet: a server that is down now may be up when it is asked.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "redis")),
    expect(unused_variables, reason = "stores that are not built in need no options")
)]
pub fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Box<dyn Store>, StoreError> {
    match &url.place {
        #[cfg(feature = "sqlite")]
        crate::url::Place::Sqlite(path) => Ok(Box::new(Sqlite::new(url.to_string(), path, options))),
        #[cfg(feature = "postgres")]
        crate::url::Place::Postgres(server) => Ok(Box::new(Postgres::new(url.to_string(), server, options)?)),
        #[cfg(feature = "redis")]
        crate::url::Place::Redis(server) => Ok(Box::new(Redis::new(url.to_string(), server, options)?)),
        #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "redis")))]
        _ => Err(StoreError::Configuration(format!("{url}: this kind of store is not built in"))),
    }
}
