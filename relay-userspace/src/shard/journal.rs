//! What is told of allocations as they begin and end: a line in the log each, and an event for whoever watches.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::turn::{AllocationId, EndReason};
use tokio::sync::broadcast;
use tracing::Level;

use super::Command;
use super::register::Entry;
use super::state::{State, now};
use crate::api;

/// What is logged of allocations and sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// How important a line is; none: there are none.
    pub level: Option<JournalLevel>,
    /// Of so many allocations, one is logged.
    pub sample: u32,
    /// Whether clients' addresses are.
    pub client_addresses: bool,
}

/// How important a line about an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalLevel {
    /// For who looks for something.
    Debug,
    /// For everybody.
    Info,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { level: Some(JournalLevel::Info), sample: 1, client_addresses: false }
    }
}

impl JournalOptions {
    /// How important the lines are about what has this number, if there are any.
    pub(super) fn level_of(self, serial: u64) -> Option<JournalLevel> {
        let level = self.level.filter(|_| serial.is_multiple_of(u64::from(self.sample.max(1))))?;
        let is_enabled = match level {
            JournalLevel::Debug => tracing::enabled!(Level::DEBUG),
            JournalLevel::Info => tracing::enabled!(Level::INFO),
        };
        is_enabled.then_some(level)
    }
}

/// Events that a slow reader may be behind.
const BACKLOG: usize = 1024;

/// Where events go: to whoever watches, if anybody does.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<api::Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Events {
    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<api::Event> {
        self.0.subscribe()
    }

    /// Whether somebody has yet to take something that has happened.
    pub fn are_awaited(&self) -> bool {
        !self.0.is_empty()
    }

    fn are_watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    fn send(&self, event: api::Event) {
        // Nobody may be left to hear of it.
        let _ = self.0.send(event);
    }
}

/// One line at a level that is known only now: the macros want a constant.
macro_rules! line {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            JournalLevel::Debug => tracing::debug!($($fields)*),
            JournalLevel::Info => tracing::info!($($fields)*),
        }
    };
}

pub(super) use line;

impl State {
    /// An allocation was made.
    pub(super) fn began(&mut self, id: AllocationId) {
        let Some(info) = self.server.describe(id) else { return };
        let waited = crate::clock::monotonic_nanoseconds().saturating_sub(self.batch_time);
        self.times.setup.record(Duration::from_nanos(waited).as_secs_f64());
        let now = now();
        let entry = self.register.begin(id, info, now);
        if let Some(level) = self.journal.level_of(entry.serial) {
            let info = &entry.info;
            line!(
                level,
                allocation = %name(self.index, entry.serial),
                user = &*info.username,
                transport = info.five_tuple.transport.label(),
                relayed = %List(&relayed(entry)),
                client = self.journal.client_addresses.then(|| tracing::field::display(info.five_tuple.client)),
                "an allocation has begun"
            );
        }
        if self.events.are_watched()
            && let Some(allocation) = self.summary(id)
        {
            self.events.send(api::Event::Began { allocation });
        }
    }

    /// Whose address an allocation's was is the remote of no session any more.
    fn leave_sessions(&self, entry: &Entry) {
        // Most relays have no sessions, and most sessions no such leg: those that do are worth a message to every shard.
        if self.media.events.sessions() == 0 {
            return;
        }
        for address in relayed(entry) {
            for shard in &self.others {
                shard.send(Command::Ask(Box::new(move |state| state.relayed_address_freed(address))));
            }
        }
    }

    /// An allocation has ended. What the kernel has counted for it is still there.
    pub(super) fn ended(&mut self, id: AllocationId, reason: EndReason) {
        self.ended[reason as usize] += 1;
        let data = self.totals(id);
        let Some(entry) = self.register.end(id) else { return };
        self.leave_sessions(&entry);
        let lived = entry.began.elapsed();
        self.times.lifetime.record(lived.as_secs_f64());
        if let Some(level) = self.journal.level_of(entry.serial) {
            let info = &entry.info;
            line!(
                level,
                allocation = %name(self.index, entry.serial),
                user = &*info.username,
                transport = info.five_tuple.transport.label(),
                client = self.journal.client_addresses.then(|| tracing::field::display(info.five_tuple.client)),
                reason = reason.label(),
                seconds = lived.as_secs(),
                to_peer_packets = data.to_peer.packets,
                to_peer_bytes = data.to_peer.bytes,
                to_client_packets = data.to_client.packets,
                to_client_bytes = data.to_client.bytes,
                kernel_packets = data.in_kernel.packets,
                "an allocation has ended"
            );
        }
        if self.events.are_watched() {
            let allocation = self.describe(&entry, data, None);
            self.events.send(api::Event::Ended { allocation, reason: reason.label().to_owned() });
        }
    }
}

/// How an allocation is named to the operator.
pub(super) fn name(shard: u32, serial: u64) -> String {
    format!("{shard}-{serial}")
}

/// The relayed addresses as peers know them.
pub(super) fn relayed(entry: &Entry) -> Vec<SocketAddr> {
    entry.info.relayed.iter().map(|relayed| relayed.public).collect()
}

struct List<'l>(&'l [SocketAddr]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}
