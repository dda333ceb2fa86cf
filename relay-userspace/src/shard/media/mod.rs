//! Sessions of two legs on this shard: their sockets, the way of their media through userspace, and what the engine asks for.
//!
//! [`Desk`] is what the admin interface may ask and do, `describe` what it is told, `journal` what
//! is told to whoever listens.

mod describe;
mod desk;
mod journal;

use std::net::SocketAddr;
use std::time::Instant;

use hairpin_common::limit::Limit;
use hairpin_common::maps::Count;
use hairpin_common::wire::Datagram;
use hairpin_proto::media::{
    self, Answer, CloseReason, Discard, Disposition, Effect, Forward, MediaFlow, OpenPort, PathId, PortId,
    SessionState, Sessions,
};
use hairpin_proto::turn::{BindError, Now};

pub use self::desk::Desk;
pub use self::journal::IceEvents;
use super::socket::Socket;
use super::sockets::Sockets;
use super::state::{State, now};
use crate::datapath::{self, Direction};
use crate::net::{IpFields, Outbox, Outgoing, Received, send_one};
use crate::random::SystemRandomness;

/// What may come at once under a limit, in nanoseconds of its rate: as under the general ones.
const SECOND: u64 = 1_000_000_000;

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
    /// Checks that were answered, by answer.
    pub checks: [u64; Answer::ALL.len()],
}

/// The datapath's numbers of a shard's paths: behind those of all allocations, each shard has every so many.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathIndices {
    /// That of the first path of the first shard.
    pub(super) first: u32,
    /// How many shards there are.
    pub(super) shards: u32,
    /// Which of them this is.
    pub(super) shard: u32,
}

impl PathIndices {
    fn of(self, PathId(path): PathId) -> u32 {
        self.first + path * self.shards + self.shard
    }
}

/// The sessions of a shard.
pub(super) struct Media {
    pub(super) sessions: Sessions,
    pub(super) events: IceEvents,
    indices: PathIndices,
    discarded: [u64; Discard::ALL.len()],
    checks: [u64; Answer::ALL.len()],
}

impl Media {
    pub(super) fn new(
        settings: media::Settings,
        events: IceEvents,
        indices: PathIndices,
        datapath: datapath::Handle,
    ) -> Self {
        let amount = |count: Count| media::Amount { packets: count.packets, bytes: count.bytes };
        let fast_counts = move |path| {
            let count = datapath.allocation_count(indices.of(path));
            [count.to_peer, count.to_client].map(amount)
        };
        let sessions = Sessions::new(settings, Box::new(SystemRandomness::default()), Box::new(fast_counts));
        Self { sessions, events, indices, discarded: Default::default(), checks: Default::default() }
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
            Disposition::Respond(answer) => {
                self.media.checks[answer as usize] += 1;
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
                Effect::Limit { path, limits } => {
                    let [packets, bytes] = [limits.packets, limits.bytes]
                        .map(|limit| limit.map_or(Limit::NONE, |limit| Limit::per_second(limit.get(), SECOND)));
                    self.datapath.limit_allocation(self.path_index(path), packets, bytes);
                }
                Effect::Close { port } => self.sockets.close_media(port),
                Effect::Happened { session, event, path, side } => self.happened(session, event, path, side),
                Effect::Closed { info, reason } => self.session_ended(&info, reason),
                Effect::Freed { path } => self.datapath.reset_allocation(self.path_index(path)),
            }
        }
    }

    /// A relayed address of this relay is nobody's any more, on whatever shard it was.
    pub(super) fn relayed_address_freed(&mut self, address: SocketAddr) {
        self.media.sessions.relayed_address_freed(now().instant, address);
        self.carry_out_media();
    }

    /// Ends what is over.
    pub(super) fn handle_media_timeouts(&mut self, now: Instant) {
        self.media.sessions.handle_timeout(now);
        self.carry_out_media();
    }

    fn path_index(&self, path: PathId) -> u32 {
        self.media.indices.of(path)
    }

    fn media_flow(&self, flow: &MediaFlow) -> datapath::Flow {
        let MediaFlow { path, client, server, relayed, peer, client_side: _ } = *flow;
        let scope = datapath::Scope::Media { peer };
        datapath::Flow { client, server, relayed, allocation: self.path_index(path), scope }
    }
}
