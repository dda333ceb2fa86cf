//! The loop of a shard.

use std::io;
use std::time::Instant;

use hairpin_common::verdict::Verdict;
use hairpin_proto::address::{ClientAddr, FiveTuple, PeerAddr};
use hairpin_proto::turn::{AllocationId, Discard, Disposition, Effect, Flow, Forward, IcmpError, Now, Scope, Server};
use tokio::sync::mpsc;

use super::Command;
use super::report::{Counters, Report};
use super::sockets::{Ready, Socket, Sockets};
use crate::clock::{monotonic_nanoseconds, unix_seconds};
use crate::datapath::{self, Direction};
use crate::net::{IcmpReport, Outbox, Outgoing, ReceiveBatch, Received, SendBatch, take_error, watch};

/// How many rounds of receiving and sending come before timers and commands have their turn.
const ROUNDS: usize = 16;
/// How many entries of a socket's error queue are taken in one round. A flood of ICMP packets is shared out like data.
const ERRORS: usize = 16;

pub(super) struct Shard {
    state: State,
    ready: Vec<Ready>,
    receive: ReceiveBatch<Socket>,
    send: SendBatch<Socket>,
}

/// All but the batches: those are borrowed while a batch goes through.
struct State {
    server: Server,
    sockets: Sockets,
    datapath: datapath::Handle,
    counters: Counters,
    /// When the batch came that goes through, in nanoseconds of `CLOCK_MONOTONIC`.
    batch_time: u64,
    index: u32,
    shards: u32,
}

impl Shard {
    pub(super) fn new(server: Server, sockets: Sockets, datapath: datapath::Handle, index: u32, shards: u32) -> Self {
        Self {
            state: State { server, sockets, datapath, counters: Counters::default(), batch_time: 0, index, shards },
            ready: Vec::new(),
            receive: ReceiveBatch::new(),
            send: SendBatch::new(),
        }
    }

    /// Serves until told to shut down.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> io::Result<()> {
        let poll = watch(self.state.sockets.poll_fd()?)?;
        loop {
            let deadline = self.state.server.poll_timeout();
            tokio::select! {
                readable = poll.readable() => {
                    if !self.rounds()? {
                        readable?.clear_ready();
                    }
                    // Under load the runtime's own timer would come late.
                    if self.state.server.poll_timeout().is_some_and(|due| due <= Instant::now()) {
                        self.state.server.handle_timeout(now());
                        self.state.carry_out();
                    }
                }
                () = sleep_until(deadline) => {
                    self.state.server.handle_timeout(now());
                    self.state.carry_out();
                }
                command = commands.recv() => match command {
                    Some(Command::Report(answer)) => {
                        // Whoever asked may have given up; then the answer is nobody's.
                        let _ = answer.send(self.state.report());
                    }
                    Some(Command::Shutdown) | None => {
                        self.state.server.shutdown(now());
                        self.state.carry_out();
                        return Ok(());
                    }
                },
            }
        }
    }

    /// Relays what is there. Returns whether more may be waiting.
    fn rounds(&mut self) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            self.state.sockets.ready(&mut self.ready)?;
            if self.ready.is_empty() {
                return Ok(false);
            }
            for at in 0..self.ready.len() {
                let Ready { socket, has_errors } = self.ready[at];
                // A socket may have been closed by what came in before it in this round.
                let Some(fd) = self.state.sockets.fd(socket) else { continue };
                // Other errors are about some datagram sent before, and gone with this.
                if let Err(error) = self.receive.receive(fd, socket)
                    && error.raw_os_error() == Some(libc::ECONNABORTED)
                {
                    self.state.lose(socket);
                }
                if has_errors {
                    self.state.take_errors(socket);
                }
                if self.receive.is_full() {
                    self.relay();
                }
            }
            if !self.receive.is_empty() {
                self.relay();
            }
        }
        Ok(true)
    }

    /// Passes the received batch through the engine.
    fn relay(&mut self) {
        let now = now();
        self.state.batch_time = monotonic_nanoseconds();
        let mut outbox = self.send.start();
        for datagram in self.receive.iter() {
            self.state.relay(now, &datagram, &mut outbox);
        }
        self.state.flush(&mut outbox);
        self.receive.clear();
    }
}

impl State {
    fn relay<'p>(&mut self, now: Now, datagram: &Received<'p, Socket>, outbox: &mut Outbox<'_, 'p, Socket>) {
        let disposition = match datagram.socket {
            Socket::Listener(listener) => {
                let server = self.sockets.server_address(listener, datagram.destination);
                let five_tuple = FiveTuple::udp(ClientAddr::new(datagram.source), server);
                if let Err(limit) = self.admit_client(&five_tuple) {
                    self.counters.refuse(limit);
                    return;
                }
                self.server.client_datagram(now, five_tuple, datagram.payload)
            }
            // A request before it in this batch may have closed the socket.
            Socket::Relay(..) if self.sockets.relay(datagram.socket).is_none() => return,
            Socket::Relay(relay, _) => {
                self.server.peer_datagram(now, relay, PeerAddr::new(datagram.source), datagram.payload)
            }
        };
        match disposition {
            Disposition::Forward(forward) => self.forward(&forward, datagram, outbox),
            Disposition::Control => {
                // What was received earlier leaves earlier, and no socket closes while something waits for it.
                self.flush(outbox);
                self.carry_out();
            }
            Disposition::Discard(reason) => self.counters.discard(reason),
            // Only what another shard has named is for another shard, and none names anything that a client could
            // bring.
            Disposition::Elsewhere { .. } => self.counters.discard(Discard::Unexpected),
        }
    }

    fn forward<'p>(
        &mut self,
        forward: &Forward<'p>,
        datagram: &Received<'p, Socket>,
        outbox: &mut Outbox<'_, 'p, Socket>,
    ) {
        let Some(hop_limit) = datagram.ip.hop_limit.checked_sub(1).filter(|left| *left > 0) else {
            self.counters.hop_limit += 1;
            return;
        };
        if let Err(limit) = self.admit(forward) {
            self.counters.refuse(limit);
            return;
        }
        let mut ip = datagram.ip;
        ip.hop_limit = hop_limit;
        match forward {
            Forward::ToPeer { relay, peer, payload, dont_fragment, .. } => {
                let Some(socket) = self.sockets.socket_of(*relay) else {
                    self.counters.send_failed += 1;
                    return;
                };
                let destination = peer.socket();
                let outgoing = Outgoing { socket, source: None, destination, ip, header: &[], payload, padding: 0 };
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
            Forward::ToClient { five_tuple, header, payload, padding, .. } => {
                let Some(socket) = self.sockets.listener_of(five_tuple) else {
                    self.counters.send_failed += 1;
                    return;
                };
                let (source, destination) = (Some(five_tuple.server.ip()), five_tuple.client.socket());
                let header = header.as_bytes();
                let outgoing = Outgoing { socket, source, destination, ip, header, payload, padding: *padding };
                self.push(&outgoing, outbox);
            }
        }
    }

    /// Whether a client's datagram may be looked at: an allocation vouches for it, or its source keeps to its limit.
    fn admit_client(&self, five_tuple: &FiveTuple) -> Result<(), Verdict> {
        if self.server.has_allocation(five_tuple) {
            return Ok(());
        }
        self.datapath.admit_source(five_tuple.client.socket().ip(), self.batch_time)
    }

    /// Whether the limits let data pass that is to be sent on.
    fn admit(&self, forward: &Forward<'_>) -> Result<(), Verdict> {
        let (allocation, direction, payload) = match forward {
            Forward::ToPeer { allocation, payload, .. } => (allocation, Direction::ToPeer, payload),
            Forward::ToClient { allocation, payload, .. } => (allocation, Direction::ToClient, payload),
        };
        self.datapath.admit(self.kernel_index(*allocation), direction, payload.len(), self.batch_time)
    }

    fn push<'p>(&mut self, outgoing: &Outgoing<'_, 'p, Socket>, outbox: &mut Outbox<'_, 'p, Socket>) {
        if outbox.is_full() {
            self.flush(outbox);
        }
        self.counters.relayed(outgoing.socket, outgoing.payload.len());
        outbox.push(outgoing);
    }

    fn flush(&mut self, outbox: &mut Outbox<'_, '_, Socket>) {
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

    /// Passes what ICMP packets say of a relayed address's datagrams through the engine.
    fn take_errors(&mut self, socket: Socket) {
        let Socket::Relay(relay, _) = socket else { return };
        let now = now();
        for _ in 0..ERRORS {
            let Some(Ok(entry)) = self.sockets.fd(socket).map(take_error) else { return };
            let Some(IcmpReport { destination, kind, code, mtu }) = entry else { continue };
            let error = IcmpError { kind, code, mtu };
            let peer = PeerAddr::new(destination);
            match self.server.peer_error(now, relay, peer, error) {
                Disposition::Discard(reason) => self.counters.discard(reason),
                Disposition::Control | Disposition::Forward(_) | Disposition::Elsewhere { .. } => {
                    if error.is_too_big(peer) {
                        self.datapath.path_changed();
                    }
                    self.carry_out();
                }
            }
        }
    }

    /// The kernel has taken a socket away, as by `ss --kill`.
    fn lose(&mut self, socket: Socket) {
        if let Socket::Relay(relay, _) = socket {
            self.server.relay_failed(now(), relay);
            self.carry_out();
        }
    }

    /// Does what the engine asks.
    fn carry_out(&mut self) {
        while let Some(effect) = self.server.poll_effect() {
            match effect {
                Effect::Respond { five_tuple, message } => {
                    if let Err(error) = self.sockets.respond(&five_tuple, message) {
                        self.counters.send_failed += 1;
                        tracing::trace!(%error, "a response was not sent");
                    }
                }
                Effect::Bind { relay, request } => {
                    let result = self.sockets.bind(relay, request);
                    self.server.relay_bound(now(), relay, result);
                }
                Effect::Close { relay } => self.sockets.close(relay),
                // Only asked for by allocations of TCP, of which there are none here.
                Effect::Connect { .. } | Effect::Join { .. } | Effect::CloseConnection { .. } => {}
                // Nobody moves without a key for tickets.
                Effect::Moved { .. } | Effect::Left { .. } => {}
                Effect::DropReservation { token } => self.sockets.drop_reservation(token),
                Effect::InstallFlow { flow, expires } => self.datapath.install(self.kernel_flow(&flow), expires),
                Effect::RemoveFlow { flow } => self.datapath.remove(self.kernel_flow(&flow)),
                Effect::Allocated { allocation } => {
                    tracing::debug!(allocation = self.kernel_index(allocation), "allocation made");
                }
                Effect::Freed { allocation } => {
                    let index = self.kernel_index(allocation);
                    if tracing::enabled!(tracing::Level::DEBUG) {
                        let kernel = self.datapath.allocation_count(index);
                        let (to_peer, to_client) = (kernel.to_peer.packets, kernel.to_client.packets);
                        tracing::debug!(
                            allocation = index,
                            to_peer,
                            to_client,
                            "allocation freed; packets in the kernel"
                        );
                    }
                    self.datapath.reset_allocation(index);
                }
            }
        }
    }

    fn kernel_flow(&self, flow: &Flow) -> datapath::Flow {
        datapath::Flow {
            client: flow.five_tuple.client.socket(),
            server: flow.five_tuple.server.socket(),
            relayed: flow.relayed.socket(),
            allocation: self.kernel_index(flow.allocation),
            scope: match flow.scope {
                Scope::Relay => datapath::Scope::Relay,
                Scope::Permission { peer } => datapath::Scope::Permission { peer },
                Scope::Channel { channel, peer } => datapath::Scope::Channel { channel, peer: peer.socket() },
            },
        }
    }

    /// The engine numbers the allocations of its shard, the kernel those of all shards.
    fn kernel_index(&self, AllocationId(id): AllocationId) -> u32 {
        id * self.shards + self.index
    }

    fn report(&self) -> Report {
        Report {
            counters: self.counters,
            allocations: self.server.allocations(),
            relays: self.sockets.open(),
            messages: self.server.message_counts().clone(),
        }
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), unix: unix_seconds() }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
