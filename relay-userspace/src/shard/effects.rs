//! What the engine asks for, done.

use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::turn::{Effect, Flow, Scope};

use super::connection::End;
use super::socket::Socket;
use super::state::{State, now};
use crate::datapath;
use crate::net::IpFields;

impl State {
    /// Does what the engine asks.
    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.server.poll_effect() {
            match effect {
                Effect::Respond { five_tuple, message } if five_tuple.transport.is_stream() => {
                    let Some(socket) = self.connections.of(&five_tuple) else { continue };
                    if let Err(end) = self.connections.respond(socket, message) {
                        self.give_up(socket, &five_tuple, end);
                    }
                }
                Effect::Respond { five_tuple, message } if five_tuple.transport == Transport::Dtls => {
                    let message = message.to_vec();
                    self.encrypt(&five_tuple, IpFields::ORIGINATED, &message);
                }
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
                Effect::DropReservation { token } => self.sockets.drop_reservation(token),
                Effect::InstallFlow { flow, expires } => self.datapath.install(self.kernel_flow(&flow), expires),
                Effect::RemoveFlow { flow } => self.datapath.remove(self.kernel_flow(&flow)),
                Effect::Connect { connection, relay, peer } => {
                    let local = self.sockets.relayed(relay);
                    self.connect(connection, local, peer);
                }
                Effect::Moved { allocation, to, .. } => self.moved(allocation, to),
                Effect::Left { allocation, five_tuple } => self.left(allocation, &five_tuple),
                Effect::Join { connection, five_tuple } => self.join(connection, &five_tuple),
                Effect::CloseConnection { connection } => self.close_connection(connection),
                Effect::Refused(_) => {}
                Effect::Allocated { allocation } => {
                    tracing::debug!(allocation = self.kernel_index(allocation), "allocation made");
                }
                Effect::Freed { allocation, .. } => {
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
                    self.freed(allocation);
                }
            }
        }
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
