//! Which relayed addresses of TCP (RFC 6062) there are, on all shards.
//!
//! A client may be connected to another's relayed address, and to nothing else on this host: its own services may have
//! ports among those of relayed addresses. Locked when such an address comes, goes or is connected to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashSet;

/// Where peers can connect to.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening(Arc<Mutex<HashSet<SocketAddr>>>);

impl Listening {
    pub(super) fn add(&self, address: SocketAddr) {
        self.lock().insert(address);
    }

    pub(super) fn remove(&self, address: SocketAddr) {
        self.lock().remove(&address);
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.lock().contains(&address)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<SocketAddr>> {
        // Every step on the table is a single insert or remove: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
