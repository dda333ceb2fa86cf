//! Sessions of two legs on this shard: their sockets, the way of their media through userspace, and what the engine asks for.
//!
//! [`Desk`] is what the admin interface may ask and do, `describe` what it is told.

mod describe;
mod desk;

use std::net::SocketAddr;
use std::time::Instant;

use hairpin_common::wire::Datagram;
use hairpin_proto::media::{
    CloseReason, Discard, Disposition, Effect, Event, Forward, MediaFlow, OpenPort, PathId, PortId, SessionId,
    SessionState, Sessions, Side,
};
use hairpin_proto::turn::{BindError, Now};
use tokio::sync::broadcast;

pub use self::desk::Desk;
use super::journal::JournalLevel;
use super::socket::Socket;
use super::sockets::Sockets;
use super::state::State;
use crate::api;
use crate::datapath::{self, Direction};
use crate::net::{IpFields, Outbox, Outgoing, Received, send_one};
use crate::printable::clean;

/// Events that a slow reader may be behind.
const BACKLOG: usize = 4096;

/// Where events of sessions go: to whoever watches, if anybody does.
#[derive(Clone, Debug)]
pub struct IceEvents(broadcast::Sender<api::ice::Event>);

impl Default for IceEvents {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl IceEvents {
    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<api::ice::Event> {
        self.0.subscribe()
    }

    fn send(&self, event: impl FnOnce() -> Option<api::ice::Event>) {
        if self.0.receiver_count() > 0
            && let Some(event) = event()
        {
            // Nobody may be left to hear of it.
            let _ = self.0.send(event);
        }
    }
}

/// What sessions have counted on this shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaReport {
    /// How many there are, in the order of [`SessionState::ALL`].
    pub by_state: [usize; SessionState::ALL.len()],
    /// How many were created.
    pub created: u64,
    /// How many have ended, by reason.
    pub closed: [u64; CloseReason::ALL.len()],
    /// Datagrams dropped by the engine, by reason.
    pub discarded: [u64; Discard::ALL.len()],
    /// Checks that were answered, whatever the answer.
    pub checks: u64,
}

/// The sessions of a shard.
pub(super) struct Media {
    pub(super) sessions: Sessions,
    pub(super) events: IceEvents,
    /// The datapath's number of the first path of all shards.
    first_index: u32,
    discarded: [u64; Discard::ALL.len()],
    checks: u64,
}

impl Media {
    pub(super) fn new(sessions: Sessions, events: IceEvents, first_index: u32) -> Self {
        Self { sessions, events, first_index, discarded: Default::default(), checks: 0 }
    }

    pub(super) fn report(&self) -> MediaReport {
        MediaReport {
            by_state: self.sessions.by_state(),
            created: self.sessions.created(),
            closed: *self.sessions.closed(),
            discarded: self.discarded,
            checks: self.checks,
        }
    }
}

/// Opens sockets of ends.
struct Ports<'s>(&'s mut Sockets);

impl OpenPort for Ports<'_> {
    fn open(&mut self, port: PortId, address: SocketAddr) -> Result<(), BindError> {
        self.0.open_media(port, address)
    }
}

impl State {
    /// The engine, and what opens sockets for it.
    fn media_with_ports(&mut self) -> (&mut Sessions, impl OpenPort) {
        (&mut self.media.sessions, Ports(&mut self.sockets))
    }

    /// Passes a datagram that has come to a leg through the engine.
    pub(super) fn media_datagram<'p>(
        &mut self,
        now: Now,
        port: PortId,
        datagram: &Received<'p, Socket>,
        outbox: &mut Outbox<'_, 'p, Socket>,
    ) {
        let source = self.translation.outside(datagram.source);
        let is_stun = datagram.payload.first().is_some_and(|first| Datagram::of(*first) == Datagram::Stun);
        // Who has not proven anything yet may make the relay answer only as often as any stranger.
        if is_stun
            && !self.media.sessions.knows(port, source, now.instant)
            && let Err(limit) = self.datapath.admit_source(datagram.source.ip(), self.batch_time)
        {
            return self.counters.refuse(limit);
        }
        match self.media.sessions.datagram(now.instant, port, source, datagram.payload) {
            Disposition::Forward(forward) => self.forward_media(&forward, datagram.ip, outbox),
            Disposition::Respond => {
                self.media.checks += 1;
                let response = self.media.sessions.response();
                if let Some(socket) = self.sockets.media(datagram.socket)
                    && let Err(error) = send_one(socket, None, datagram.source, IpFields::ORIGINATED, response)
                {
                    self.counters.send_failed += 1;
                    tracing::trace!(%error, "a response was not sent");
                }
            }
            Disposition::Discard(reason) => self.media.discarded[reason as usize] += 1,
        }
        self.carry_out_media();
    }

    fn forward_media<'p>(&mut self, forward: &Forward<'p>, ip: IpFields, outbox: &mut Outbox<'_, 'p, Socket>) {
        let Forward { path, from, is_clients, port, remote, payload } = *forward;
        let Some(ip) = ip.next_hop() else {
            self.counters.hop_limit += 1;
            return;
        };
        let direction = if is_clients { Direction::ToPeer } else { Direction::ToClient };
        if let Err(limit) = self.datapath.admit(self.path_index(path), direction, payload.len(), self.batch_time) {
            return self.counters.refuse(limit);
        }
        let Some(socket) = self.sockets.socket_of_media(port) else {
            self.counters.send_failed += 1;
            return;
        };
        self.media.sessions.count(path, from, payload.len());
        let destination = self.translation.inside(remote);
        self.push(&Outgoing { socket, source: None, destination, ip, header: &[], payload, padding: 0 }, outbox);
    }

    /// Does what the engine of sessions asks.
    pub(super) fn carry_out_media(&mut self) {
        while let Some(effect) = self.media.sessions.poll_effect() {
            match effect {
                Effect::InstallFlow { flow, expires } => self.datapath.install(self.media_flow(&flow), expires),
                Effect::RemoveFlow { flow } => self.datapath.remove(self.media_flow(&flow)),
                Effect::Close { port } => self.sockets.close_media(port),
                Effect::Happened { session, event, path, side } => self.happened(session, event, path, side),
                Effect::Closed { info, reason } => self.session_ended(&info, reason),
                Effect::Freed { path } => self.datapath.reset_allocation(self.path_index(path)),
            }
        }
    }

    /// Ends what is over.
    pub(super) fn handle_media_timeouts(&mut self, now: Instant) {
        let (datapath, first, shards, index) =
            (self.datapath.clone(), self.media.first_index, self.others.len() as u32, self.index);
        let packets = |PathId(path): PathId| {
            let count = datapath.allocation_count(first + path * shards + index);
            [count.to_peer.packets, count.to_client.packets]
        };
        self.media.sessions.handle_timeout(now, &packets);
        self.carry_out_media();
    }

    /// The engine numbers the paths of its shard, the kernel those of all shards, behind all allocations.
    fn path_index(&self, PathId(path): PathId) -> u32 {
        self.media.first_index + path * self.others.len() as u32 + self.index
    }

    fn media_flow(&self, flow: &MediaFlow) -> datapath::Flow {
        let MediaFlow { path, client, server, relayed, peer, client_side: _ } = *flow;
        let scope = datapath::Scope::Media { peer };
        datapath::Flow { client, server, relayed, allocation: self.path_index(path), scope }
    }

    /// Something has happened to an end of a session.
    fn happened(&mut self, session: SessionId, event: Event, path: PathId, side: Side) {
        let events = self.media.events.clone();
        events.send(|| self.end_event(session, event, path, side));
    }

    /// A session has ended. What was counted for it is still there.
    fn session_ended(&mut self, info: &hairpin_proto::media::SessionInfo, reason: CloseReason) {
        let session = self.told(info);
        let sum = |direction: fn(&api::ice::Component) -> api::Amount| {
            let components = session.streams.iter().flat_map(|stream| &stream.components);
            components.fold(api::Amount::default(), |mut sum, component| {
                sum += direction(component);
                sum
            })
        };
        let (a_to_b, b_to_a, kernel) = (sum(|one| one.a_to_b), sum(|one| one.b_to_a), sum(|one| one.kernel));
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    session = %session.id,
                    label = clean(&session.label),
                    reason = reason.label(),
                    a_to_b_packets = a_to_b.packets,
                    a_to_b_bytes = a_to_b.bytes,
                    b_to_a_packets = b_to_a.packets,
                    b_to_a_bytes = b_to_a.bytes,
                    kernel_packets = kernel.packets,
                    "a media session has ended"
                )
            };
        }
        match self.journal.level {
            Some(JournalLevel::Info) => line!(info),
            Some(JournalLevel::Debug) => line!(debug),
            None => {}
        }
        let reason = reason.label().to_owned();
        self.media.events.send(|| Some(api::ice::Event::Closed { session: Box::new(session), reason }));
    }
}
