//! What a scrape shows: everything that counts, copied at one moment.

use std::net::IpAddr;
use std::time::Duration;

use super::process::Process;
use crate::api;
use crate::config::Rates;
use crate::datapath::{self, InterfaceStatus};
use crate::shard::{Histogram, Report};

/// Everything that a scrape shows.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// What each shard has reported last; none of one that has never answered.
    pub shards: Vec<Report>,
    /// How many shards there are.
    pub shards_all: usize,
    /// How many of them answered for this scrape.
    pub shards_up: usize,
    /// How long each shard took to answer, by its number; of one that has not, how long was waited.
    pub lag: Vec<Duration>,
    /// What the kernel path has counted; zeros without XDP.
    pub kernel: datapath::Counters,
    /// Where XDP is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// The ports of each relay address.
    pub ports: Vec<Ports>,
    /// How many allocations there may be at once.
    pub allocation_capacity: u32,
    /// How many sessions of two legs there may be at once.
    pub session_capacity: u32,
    /// The limits of rate.
    pub rates: Rates,
    /// How many ended for each reason, over all shards; reasons that never were, too.
    pub ended: Vec<Labelled>,
    /// How many requests were refused for each cause, over all shards; causes that never were, too.
    pub refusals: Vec<Labelled>,
    /// When the relay began, in seconds since the Unix epoch.
    pub started: u64,
    /// What has become of the configuration.
    pub configuration: Configuration,
    /// While draining: when the allocations that are left are closed, in seconds since the Unix epoch.
    pub drain_deadline: Option<u64>,
    /// The certificates for TLS and DTLS.
    pub certificates: Vec<Certificate>,
    /// What has become of requests for credentials.
    pub credentials: Credentials,
    /// Lines of the log that nobody took.
    pub log_lines_dropped: u64,
    /// What has become of spans of requests.
    pub traces: Traces,
    /// What realms have in use.
    pub realms: Vec<api::RealmStatus>,
    /// How user stores are.
    pub user_stores: Vec<UserStore>,
    /// What the process uses.
    pub process: Process,
}

/// How often something happened, with the label that says what.
pub type Labelled = (&'static str, u64);

/// A place where users are kept.
#[derive(Clone, Debug)]
pub struct UserStore {
    /// Its name.
    pub store: String,
    /// Whether it answers, as far as is known.
    pub is_up: bool,
    /// What has become of questions.
    pub answers: [Labelled; 4],
    /// How long answers took.
    pub seconds: Histogram,
}

/// The ports of a relay address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// This host's address.
    pub address: IpAddr,
    /// Bound ones, those that are reserved included.
    pub in_use: usize,
    /// How many there are.
    pub capacity: usize,
}

/// What has become of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// When what is in force was read, in seconds since the Unix epoch.
    pub read: u64,
    /// Whether the last reload has changed nothing, because of problems.
    pub has_failed: bool,
    /// Reloads that were good.
    pub reloads: u64,
    /// Reloads that have changed nothing, because of problems.
    pub failures: u64,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Where it was read from.
    pub file: String,
    /// When it ends, in seconds since the Unix epoch.
    pub expires: u64,
}

/// What has become of requests for credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// How many were minted.
    pub minted: u64,
    /// How many were refused, by reason; reasons that never were, too.
    pub refused: Vec<Labelled>,
}

/// What has become of spans of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Those that the collector has taken.
    pub exported: u64,
    /// Those that it has not.
    pub failed: u64,
    /// Those that found no room in the queue to it.
    pub dropped: u64,
}
