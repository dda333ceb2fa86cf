//! What the engine asks for, done.

use hairpin_proto::address::{AddressFamily, FiveTuple, PeerAddr, Transport};
use hairpin_proto::turn::{Effect, Flow, Refusal, Scope};

use super::connection::End;
use super::failures::{Excerpt, Failure};
use super::socket::Socket;
use super::state::{State, now};
use crate::clock::{monotonic_nanoseconds, unix_seconds};
use crate::datapath;
use crate::net::IpFields;
use crate::traces::{Record, Response};

impl State {
    /// Does what the engine asks.
    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.server.poll_effect() {
            match effect {
                Effect::Respond { five_tuple, message } => {
                    let response = self.tracer.response(message);
                    if five_tuple.transport.is_stream() {
                        let Some(socket) = self.connections.of(&five_tuple) else { continue };
                        if let Err(end) = self.connections.respond(socket, message) {
                            self.give_up(socket, &five_tuple, end);
                        }
                    } else if five_tuple.transport == Transport::Dtls {
                        let message = message.to_vec();
                        self.encrypt(&five_tuple, IpFields::ORIGINATED, &message);
                    } else if let Err(error) = self.sockets.respond(&five_tuple, message) {
                        self.counters.send_failed += 1;
                        tracing::trace!(%error, "a response was not sent");
                    }
                    if let Some(response) = response {
                        self.trace(&five_tuple, response);
                    }
                }
                Effect::Bind { relay, request } => {
                    let result = self.sockets.bind(relay, request);
                    self.server.relay_bound(now(), relay, result);
                }
                Effect::Close { relay } => self.sockets.close(relay),
                Effect::DropReservation { token } => self.sockets.drop_reservation(token),
                Effect::InstallFlow { flow, expires } => self.datapath.install(self.kernel_flow(&flow), expires),
                Effect::RemoveFlow { flow } => self.datapath.remove(self.kernel_flow(&flow)),
                Effect::Connect { connection, relay, peer } => {
                    let local = self.sockets.relayed(relay);
                    self.connect(connection, local, peer);
                }
                Effect::Moved { allocation, to, .. } => {
                    self.register.moved(allocation, to);
                    self.moved(allocation, to);
                }
                Effect::Left { allocation, five_tuple } => self.left(allocation, &five_tuple),
                Effect::Join { connection, five_tuple } => self.join(connection, &five_tuple),
                Effect::CloseConnection { connection } => self.close_connection(connection),
                Effect::Allocated { allocation } => self.began(allocation),
                Effect::Freed { allocation, reason } => {
                    self.ended(allocation, reason);
                    self.datapath.reset_allocation(self.kernel_index(allocation));
                    self.freed(allocation);
                }
                Effect::LookUp { question } => {
                    let question = question.clone();
                    self.look_up(question);
                }
                // Whoever forges addresses must not fill this: what is forged is counted only.
                Effect::Refused(refusal) if !refusal.is_proven => {}
                Effect::Refused(refusal) => {
                    self.tracer.refused(refusal.cause);
                    self.complaints.add(&refusal, self.journal.client_addresses);
                    let failure = refused(&refusal);
                    self.failures.add(failure);
                }
            }
        }
        self.tracer.flush();
    }

    /// Remembers a request that was answered.
    fn trace(&mut self, five_tuple: &FiveTuple, response: Response) {
        let client = five_tuple.client;
        self.tracer.answered(Record {
            response,
            cause: None,
            transport: five_tuple.transport,
            family: AddressFamily::of(client.ip()),
            client: self.journal.client_addresses.then(|| client.socket()),
            shard: self.index,
            has_allocation: self.server.has_allocation(five_tuple),
            began: self.batch_time,
            ended: monotonic_nanoseconds(),
        });
    }

    /// Ends a connection whose client does not read. The effects of its end come behind those that are there.
    fn give_up(&mut self, socket: Socket, five_tuple: &FiveTuple, end: End) {
        debug_assert!(five_tuple.transport != Transport::Udp, "a datagram needs no room");
        if self.connections.remove(socket, Some(end)).is_some() {
            self.server.client_lost(now(), five_tuple);
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
}

/// What a refused request is remembered as.
fn refused(refusal: &Refusal<'_>) -> Failure {
    Failure {
        client: refusal.five_tuple.client.socket(),
        transport: refusal.five_tuple.transport,
        action: refusal.method.label(),
        code: Some(refusal.code.number()),
        cause: refusal.cause.label(),
        explanation: refusal.cause.explanation(),
        detail: None,
        username: refusal.username.map(Excerpt::of),
        peer: refusal.peer.map(PeerAddr::socket),
        at: unix_seconds(),
        count: 1,
    }
}
