//! Makes a store of a URL.

use std::time::Duration;

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
pub fn open(url: &StoreUrl, _options: &StoreOptions) -> Result<Box<dyn Store>, StoreError> {
    Err(StoreError::Configuration(format!("{url}: not built in")))
}
