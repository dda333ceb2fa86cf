//! What is told of sessions as they begin, change and end: a line in the log for the first and the last, an event for whoever
//! watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hairpin_proto::media::{CloseReason, Event, PathId, SessionId, SessionInfo, Side};
use tokio::sync::broadcast;

use super::super::journal::{JournalLevel, line, name};
use super::super::state::State;
use crate::api;
use crate::printable::clean;

/// Events that a slow reader may be behind.
const BACKLOG: usize = 4096;

/// Where events of sessions go: to whoever watches, if anybody does.
#[derive(Clone, Debug)]
pub struct IceEvents {
    sender: broadcast::Sender<api::ice::Event>,
    /// How many sessions there are on all shards.
    sessions: Arc<AtomicUsize>,
}

impl Default for IceEvents {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), sessions: Arc::default() }
    }
}

impl IceEvents {
    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<api::ice::Event> {
        self.sender.subscribe()
    }

    /// How many sessions there are on all shards.
    pub(in crate::shard) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether somebody has yet to take something that has happened.
    pub fn are_awaited(&self) -> bool {
        !self.sender.is_empty()
    }

    fn send(&self, event: impl FnOnce() -> Option<api::ice::Event>) {
        if self.sender.receiver_count() > 0
            && let Some(event) = event()
        {
            // Nobody may be left to hear of it.
            let _ = self.sender.send(event);
        }
    }
}

impl State {
    /// A session has begun.
    pub(super) fn session_begun(&self, id: SessionId) {
        self.media.events.sessions.fetch_add(1, Ordering::Relaxed);
        let Some(level) = self.journal.level_of(id.0) else { return };
        let Some(info) = self.media.sessions.describe(id) else { return };
        let [a, b] = info.legs.each_ref().map(|leg| leg.kind.label());
        line!(
            level,
            session = %name(self.index, id.0),
            label = clean(&info.label),
            a,
            b,
            streams = info.streams.len(),
            "a media session has begun"
        );
    }

    /// Something has happened to an end of a session.
    pub(super) fn happened(&mut self, session: SessionId, event: Event, path: PathId, side: Side) {
        let events = self.media.events.clone();
        events.send(|| self.end_event(session, event, path, side));
    }

    /// A session has ended. What was counted for it is still there.
    pub(super) fn session_ended(&mut self, info: &SessionInfo, reason: CloseReason) {
        self.media.events.sessions.fetch_sub(1, Ordering::Relaxed);
        let session = self.told(info);
        if let Some(level) = self.journal.level_of(info.id.0) {
            let api::ice::Totals { a_to_b, b_to_a, kernel } = session.totals;
            line!(
                level,
                session = %session.id,
                label = clean(&session.label),
                reason = reason.label(),
                a_to_b_packets = a_to_b.packets,
                a_to_b_bytes = a_to_b.bytes,
                b_to_a_packets = b_to_a.packets,
                b_to_a_bytes = b_to_a.bytes,
                kernel_packets = kernel.packets,
                "a media session has ended"
            );
        }
        let reason = reason.label().to_owned();
        self.media.events.send(|| Some(api::ice::Event::Closed { session: Box::new(session), reason }));
    }
}
