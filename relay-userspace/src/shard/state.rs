//! What a shard works on, and the way of a datagram or message through it: engine, limits, sockets.

use std::time::Instant;

use hairpin_common::verdict::Verdict;
use hairpin_proto::address::{ClientAddr, FiveTuple, PeerAddr, Transport};
use hairpin_proto::turn::{
    AllocationId, ConnectionId, Discard, Disposition, EndReason, Forward, IcmpError, Now, Server, Translation,
};
use ipnet::IpNet;

use super::associations::{Associations, Plaintexts};
use super::complaints::Complaints;
use super::connection::{End, StreamBuffer};
use super::connections::Connections;
use super::failures::Failures;
use super::journal::{Events, JournalOptions};
use super::media::Media;
use super::pairs::Pairs;
use super::peers::Peers;
use super::register::Register;
use super::report::{Counters, Report, Times};
use super::socket::Socket;
use super::sockets::Sockets;
use super::visitors::{Mailbox, Visitors};
use super::waiting::Waiting;
use crate::clock::unix_seconds;
use crate::datapath::{self, Direction};
use crate::net::{IcmpReport, IpFields, Outbox, Outgoing, Received, take_error};
use crate::traces::Tracer;

/// How many entries of a socket's error queue are taken in one round. A flood of ICMP packets is shared out like data.
const ERRORS: usize = 16;

/// All but the batches: those are borrowed while a batch goes through.
pub(super) struct State {
    pub(super) server: Server,
    pub(super) sockets: Sockets,
    pub(super) connections: Connections,
    pub(super) associations: Associations,
    pub(super) visitors: Visitors,
    pub(super) peers: Peers,
    pub(super) pairs: Pairs,
    pub(super) media: Media,
    /// How many connections with peers there may be.
    pub(super) max_peers: usize,
    /// A client's connection that the engine has just bound to a peer's, and that.
    pub(super) joined: Option<Socket>,
    pub(super) joining: Option<ConnectionId>,
    pub(super) datapath: datapath::Handle,
    pub(super) counters: Counters,
    pub(super) register: Register,
    /// Requests that wait until somebody has said who their user is.
    pub(super) waiting: Waiting,
    pub(super) failures: Failures,
    pub(super) complaints: Complaints,
    pub(super) journal: JournalOptions,
    pub(super) events: Events,
    pub(super) tracer: Tracer,
    /// How long things took.
    pub(super) times: Times,
    /// Handshakes that have failed, by transport.
    pub(super) handshake_failures: [u64; Transport::ALL.len()],
    /// How many allocations have ended, by reason.
    pub(super) ended: [u64; EndReason::COUNT],
    /// Load balancers, whose connections say first for whom they are.
    pub(super) proxies: Vec<IpNet>,
    /// The engine knows peers as the world does, sockets know them as this host does.
    pub(super) translation: Translation,
    /// Whether it was said that there are too few files.
    pub(super) has_warned: bool,
    /// Connections that have rested.
    pub(super) woken: Vec<Socket>,
    /// Listeners and connections that rest, each until when.
    pub(super) resting: Vec<(Instant, Socket)>,
    /// When the batch came that goes through, or whatever else is done now, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) batch_time: u64,
    pub(super) index: u32,
    /// All shards, by their index, this one included.
    pub(super) others: Vec<Mailbox>,
}

impl State {
    /// Passes a received datagram through the engine.
    pub(super) fn relay<'p>(
        &mut self,
        now: Now,
        datagram: &Received<'p, Socket>,
        outbox: &mut Outbox<'_, 'p, Socket>,
        plaintexts: &mut Plaintexts<'p>,
    ) {
        match datagram.socket {
            Socket::Listener(listener) => {
                let Some(server) = self.sockets.server_address(listener, datagram.destination) else { return };
                let client = FiveTuple::udp(ClientAddr::new(datagram.source), server);
                if !self.sockets.takes(listener, datagram.payload) {
                    self.counters.discard(Discard::NotTurn);
                } else if !self.pass_on_guest(client, datagram.payload, datagram.ip) {
                    self.client_datagram(now, client, datagram.payload, datagram.ip, outbox, plaintexts);
                }
            }
            // A request before it in this batch may have closed the socket.
            Socket::Relay(..) if self.sockets.relay(datagram.socket).is_none() => {}
            Socket::Relay(relay, _) => {
                let peer = PeerAddr::new(self.translation.outside(datagram.source));
                let disposition = self.server.peer_datagram(now, relay, peer, datagram.payload);
                self.carry_through(disposition, Some(datagram.ip), outbox);
            }
            // As above.
            Socket::Media(..) if self.sockets.media(datagram.socket).is_none() => {}
            Socket::Media(port, _) => self.media_datagram(now, port, datagram, outbox),
            _ => {}
        }
    }

    /// Passes a client's datagram through the engine.
    pub(super) fn client_datagram<'p>(
        &mut self,
        now: Now,
        client: FiveTuple,
        datagram: &'p [u8],
        ip: IpFields,
        outbox: &mut Outbox<'_, 'p, Socket>,
        plaintexts: &mut Plaintexts<'p>,
    ) {
        if self.associations.concern(datagram) {
            return self.relay_encrypted(now, client, (datagram, ip), outbox, plaintexts);
        }
        if let Err(limit) = self.admit_client(&client) {
            return self.counters.refuse(limit);
        }
        match self.server.client_datagram(now, client, datagram) {
            Disposition::Elsewhere { shard } => self.pass_on(shard, client, datagram, ip),
            Disposition::Ask => {
                self.flush(outbox);
                self.wait(client, datagram);
            }
            disposition => self.carry_through(disposition, Some(ip), outbox),
        }
    }

    /// Does what the engine has decided about a datagram, or about a message from a stream, which has no header fields
    /// of its own.
    pub(super) fn carry_through<'p>(
        &mut self,
        disposition: Disposition<'p>,
        ip: Option<IpFields>,
        outbox: &mut Outbox<'_, 'p, Socket>,
    ) {
        match disposition {
            Disposition::Forward(forward) => self.forward(&forward, ip, outbox),
            Disposition::Control => {
                // What was received earlier leaves earlier, and no socket closes while something waits for it.
                self.flush(outbox);
                self.carry_out();
            }
            // What may be passed on, or has to wait, was and does, by whoever asked the engine.
            Disposition::Elsewhere { .. } | Disposition::Ask => self.counters.discard(Discard::Unexpected),
            Disposition::Discard(reason) => self.counters.discard(reason),
        }
    }

    fn forward<'p>(&mut self, forward: &Forward<'p>, ip: Option<IpFields>, outbox: &mut Outbox<'_, 'p, Socket>) {
        let ip = match ip.map(IpFields::next_hop) {
            Some(Some(ip)) => ip,
            Some(None) => {
                self.counters.hop_limit += 1;
                return;
            }
            // RFC 8656 section 15: what was no datagram before begins its way here.
            None => IpFields::ORIGINATED,
        };
        let (allocation, direction, payload) = match forward {
            Forward::ToPeer { allocation, payload, .. } => (*allocation, Direction::ToPeer, payload),
            Forward::ToClient { allocation, payload, .. } => (*allocation, Direction::ToClient, payload),
        };
        let index = self.kernel_index(allocation);
        if let Err(limit) = self.datapath.admit(index, direction, payload.len(), self.batch_time) {
            self.counters.refuse(limit);
            return;
        }
        let bytes = payload.len();
        match forward {
            Forward::ToPeer { relay, peer, payload, dont_fragment, .. } => {
                let Some(socket) = self.sockets.socket_of(*relay) else {
                    self.counters.send_failed += 1;
                    return;
                };
                let destination = self.translation.inside(peer.socket());
                let outgoing = Outgoing { socket, source: None, destination, ip, header: &[], payload, padding: 0 };
                self.register.count(allocation, direction, 1, bytes);
                if *dont_fragment {
                    self.flush(outbox);
                    self.set_dont_fragment(socket, true);
                    self.push(&outgoing, outbox);
                    self.flush(outbox);
                    self.set_dont_fragment(socket, false);
                } else {
                    self.push(&outgoing, outbox);
                }
            }
            Forward::ToClient { five_tuple, header, payload, padding, .. } if five_tuple.transport.is_stream() => {
                let parts = [header.as_bytes(), payload, &[0; 3][..*padding]];
                let sent = self.connections.of(five_tuple).is_some_and(|socket| self.connections.send(socket, parts));
                if sent {
                    self.register.count(allocation, direction, 1, bytes);
                    self.counters.to_client.packets += 1;
                    self.counters.to_client.bytes += payload.len() as u64;
                }
            }
            Forward::ToClient { five_tuple, header, payload, padding, .. }
                if five_tuple.transport == Transport::Dtls =>
            {
                let message = [header.as_bytes(), payload, &[0; 3][..*padding]].concat();
                if self.encrypt(five_tuple, ip, &message) {
                    self.register.count(allocation, direction, 1, bytes);
                    self.counters.to_client.packets += 1;
                    self.counters.to_client.bytes += payload.len() as u64;
                }
            }
            Forward::ToClient { five_tuple, header, payload, padding, .. } => {
                let Some(socket) = self.sockets.listener_of(five_tuple) else {
                    self.counters.send_failed += 1;
                    return;
                };
                let (source, destination) = (Some(five_tuple.server.ip()), five_tuple.client.socket());
                let header = header.as_bytes();
                let outgoing = Outgoing { socket, source, destination, ip, header, payload, padding: *padding };
                self.register.count(allocation, direction, 1, bytes);
                self.push(&outgoing, outbox);
            }
        }
    }

    /// Whether a client's datagram may be looked at: an allocation vouches for it, or its source keeps to its limit.
    pub(super) fn admit_client(&self, five_tuple: &FiveTuple) -> Result<(), Verdict> {
        if self.server.has_allocation(five_tuple) {
            return Ok(());
        }
        self.datapath.admit_source(five_tuple.client.socket().ip(), self.batch_time)
    }

    pub(super) fn push<'p>(&mut self, outgoing: &Outgoing<'_, 'p, Socket>, outbox: &mut Outbox<'_, 'p, Socket>) {
        if outbox.is_full() {
            self.flush(outbox);
        }
        self.counters.relayed(outgoing.socket, outgoing.payload.len());
        outbox.push(outgoing);
    }

    pub(super) fn flush(&mut self, outbox: &mut Outbox<'_, '_, Socket>) {
        if !outbox.is_empty() {
            let Self { sockets, counters, .. } = self;
            outbox.flush(|socket| sockets.fd(socket), |socket, bytes| counters.not_sent(socket, bytes));
        }
    }

    fn set_dont_fragment(&self, socket: Socket, on: bool) {
        if let Some(socket) = self.sockets.relay(socket)
            && let Err(error) = socket.set_dont_fragment(on)
        {
            tracing::trace!(%error, "DF cannot be set");
        }
    }

    /// Passes what ICMP packets say of a relayed address's datagrams through the engine. What they say of a leg's has to be taken,
    /// too, or the socket would be ready for ever.
    pub(super) fn take_errors(&mut self, socket: Socket) {
        if !matches!(socket, Socket::Relay(..) | Socket::Media(..)) {
            return;
        }
        let now = now();
        for _ in 0..ERRORS {
            let Some(Ok(entry)) = self.sockets.fd(socket).map(take_error) else { return };
            let Some(IcmpReport { destination, kind, code, mtu }) = entry else { continue };
            let error = IcmpError { kind, code, mtu };
            let peer = PeerAddr::new(self.translation.outside(destination));
            let Socket::Relay(relay, _) = socket else {
                // A leg's remote has no way to be told; only the way to it may be another one.
                if error.is_too_big(peer) {
                    self.datapath.path_changed();
                }
                continue;
            };
            if let Disposition::Discard(reason) = self.server.peer_error(now, relay, peer, error) {
                self.counters.discard(reason);
                continue;
            }
            if error.is_too_big(peer) {
                self.datapath.path_changed();
            }
            self.carry_out();
        }
    }

    /// The kernel has taken a socket away, as by `ss --kill`.
    pub(super) fn lose(&mut self, socket: Socket) {
        if let Socket::Relay(relay, _) = socket {
            self.server.relay_failed(now(), relay);
            self.carry_out();
        }
    }

    /// When there is something to be done although nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let resting = self.resting.iter().map(|(until, _)| *until).min();
        let clients = [self.connections.next_deadline(), self.associations.next_deadline(), self.pairs.next_deadline()];
        [self.server.poll_timeout(), self.media.sessions.poll_timeout(), resting]
            .into_iter()
            .chain(clients)
            .flatten()
            .min()
    }

    /// Ends all whose time has come.
    pub(super) fn handle_timeout(&mut self, buffer: &mut StreamBuffer) {
        let now = now();
        self.server.handle_timeout(now);
        self.carry_out();
        while let Some(socket) = self.take_silent(now.instant) {
            self.end(socket, End::Timeout);
        }
        self.handle_media_timeouts(now.instant);
        self.handle_association_timeouts(now.instant);
        self.handle_pair_timeouts(now.instant, buffer);
        self.wake(now.instant);
        self.write_out();
    }

    /// A connection over which nothing has come for too long.
    fn take_silent(&mut self, now: Instant) -> Option<Socket> {
        let Self { server, connections, .. } = self;
        connections.take_due(now, |client| server.has_allocation(client))
    }

    /// Frees all that there is.
    pub(super) fn shut_down(&mut self) {
        self.server.shutdown(now());
        self.carry_out();
        self.media.sessions.shutdown();
        self.carry_out_media();
        self.write_out();
    }

    /// The engine numbers the allocations of its shard, the kernel those of all shards.
    pub(super) fn kernel_index(&self, AllocationId(id): AllocationId) -> u32 {
        id * self.others.len() as u32 + self.index
    }

    pub(super) fn report(&self) -> Report {
        let mut connections = self.connections.counts();
        self.associations.add_to(&mut connections);
        let mut times = self.times.clone();
        self.connections.add_times(&mut times);
        self.associations.add_times(&mut times);
        Report {
            counters: self.counters,
            waiting: self.waiting.len(),
            allocations: self.server.allocations(),
            allocations_by_client: self.server.allocations_by_client(),
            allocated: self.register.begun(),
            times,
            handshake_failures: self.handshake_failures,
            relays: self.sockets.open(),
            ports_in_use: self.sockets.open_by_address(),
            is_draining: self.server.is_draining(),
            connections,
            peers: self.peers.len() + self.pairs.len(),
            messages: self.server.message_counts().clone(),
            refusals: *self.server.refusals(),
            ended: self.ended,
            media: self.media.report(),
        }
    }
}

pub(super) fn now() -> Now {
    Now { instant: Instant::now(), unix: unix_seconds() }
}
