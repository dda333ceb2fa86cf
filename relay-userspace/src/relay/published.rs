//! What the relay's own thread knows and everybody may look at.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::api;
use crate::config::{Config, Listener};
use hairpin_proto::turn::RelayAddress;

/// How many allocations there may be in a realm.
#[derive(Clone, Debug)]
pub(crate) struct RealmLimits {
    pub(crate) name: String,
    pub(crate) allocations: u64,
    pub(crate) allocations_per_user: usize,
}

/// Read at any time, exchanged as a whole.
pub(crate) type Shared = Arc<ArcSwap<Published>>;

/// How the relay is set up now.
#[derive(Clone)]
pub(crate) struct Published {
    /// The configuration in force.
    pub(crate) config: Arc<Config>,
    /// When it was read, in seconds since the Unix epoch.
    pub(crate) configured: u64,
    /// Why the last reload changed nothing.
    pub(crate) reload_problems: Vec<String>,
    /// Reloads that were good, and those that were not.
    pub(crate) reloads: [u64; 2],
    /// Listeners that are open, and whether each takes new clients.
    pub(crate) listeners: Vec<(Listener, bool)>,
    /// What relayed addresses are made of, and whether each takes new ones.
    pub(crate) relay_addresses: Vec<(RelayAddress, bool)>,
    pub(crate) certificates: Vec<api::CertificateStatus>,
    /// Why certificates that have changed are not in use.
    pub(crate) certificate_problem: Option<String>,
    /// Why files with users that have changed are not in use.
    pub(crate) user_problem: Option<String>,
    /// The drain that goes on.
    pub(crate) drain: Option<DrainTerms>,
    /// How many allocations there may be in each realm, the first of which is that of the main configuration.
    pub(crate) realms: Vec<RealmLimits>,
    /// What credentials are minted with.
    pub(crate) secret: Option<String>,
    /// What the operator has to know since the start.
    pub(crate) warnings: Vec<String>,
}

/// What is known of a drain in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainTerms {
    /// When what is left is closed, in seconds since the Unix epoch.
    pub(crate) deadline: Option<u64>,
    /// Whether the relay ends with it.
    pub(crate) stop: bool,
    /// Whether clients that are there are sent to other relays.
    pub(crate) moves: bool,
}
