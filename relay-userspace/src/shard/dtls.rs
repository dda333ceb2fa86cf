//! The way of clients' datagrams that are encrypted: to the engine and back.

use std::time::Instant;

use hairpin_dtls::Error;
use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::turn::{Discard, Disposition, Now};

use super::associations::{Plaintexts, Received, Tell};
use super::connection::End;
use super::socket::Socket;
use super::state::{State, now};
use crate::net::{IpFields, Outbox};

impl State {
    /// Passes what an encrypted datagram holds through the engine.
    pub(super) fn relay_encrypted<'p>(
        &mut self,
        now: Now,
        plain: FiveTuple,
        (datagram, ip): (&[u8], IpFields),
        outbox: &mut Outbox<'_, 'p, Socket>,
        plaintexts: &mut Plaintexts<'p>,
    ) {
        let client = FiveTuple { transport: Transport::Dtls, ..plain };
        // What belongs to nobody that has an allocation comes from a stranger.
        if let Err(limit) = self.admit_client(&client) {
            return self.counters.refuse(limit);
        }
        let received = self.associations.receive(client, datagram, now.instant, plaintexts);
        match received {
            Received::Ignored => return self.counters.discard(Discard::NotTurn),
            Received::Reply => {
                let sent = self.sockets.respond(&client, self.associations.reply());
                return self.counters.send_failed += u64::from(sent.is_err());
            }
            Received::Anew => {
                self.server.client_lost(now, &client);
                self.flush(outbox);
                self.carry_out();
            }
            Received::Association => {}
        }
        self.flush_and_end_displaced(outbox);
        if let Some(name) = self.associations.take_server_name(&client) {
            self.server.client_named(client, &name);
        }
        self.plaintexts(now, client, Some(ip), outbox, plaintexts);
    }

    fn flush_and_end_displaced(&mut self, outbox: &mut Outbox<'_, '_, Socket>) {
        if let Some(displaced) = self.associations.take_displaced() {
            self.flush(outbox);
            self.end_association(&displaced, End::TooMany);
        }
    }

    /// Passes what an association has received through the engine, and sends what it has to send.
    fn plaintexts<'p>(
        &mut self,
        now: Now,
        client: FiveTuple,
        ip: Option<IpFields>,
        outbox: &mut Outbox<'_, 'p, Socket>,
        plaintexts: &mut Plaintexts<'p>,
    ) {
        while let Some(message) = self.associations.next_plaintext(&client, plaintexts) {
            let disposition = self.server.client_datagram(now, client, message);
            if let Disposition::Elsewhere { shard } = disposition {
                return self.hand_over_association(shard, client, message);
            }
            if disposition == Disposition::Ask {
                self.flush(outbox);
                self.wait(client, message);
            } else {
                self.carry_through(disposition, ip, outbox);
            }
            self.heard(now, &client);
        }
        self.send_encrypted(&client, IpFields::ORIGINATED);
        if self.associations.is_closed(&client) {
            self.flush(outbox);
            self.end_association(&client, End::Client);
        }
    }

    /// Passes the message through the engine that an association came with.
    pub(super) fn message<'p>(
        &mut self,
        now: Now,
        client: FiveTuple,
        message: &'p [u8],
        outbox: &mut Outbox<'_, 'p, Socket>,
        plaintexts: &mut Plaintexts<'p>,
    ) {
        self.flush_and_end_displaced(outbox);
        if let Some(name) = self.associations.take_server_name(&client) {
            self.server.client_named(client, &name);
        }
        let disposition = self.server.client_datagram(now, client, message);
        if disposition == Disposition::Ask {
            self.flush(outbox);
            self.wait(client, message);
        } else {
            self.carry_through(disposition, None, outbox);
        }
        self.heard(now, &client);
        self.plaintexts(now, client, None, outbox, plaintexts);
    }

    /// Keeps the program told who is no stranger: it cannot see into an association.
    pub(super) fn heard(&mut self, now: Now, client: &FiveTuple) {
        let has_allocation = self.server.has_allocation(client);
        let (source, server) = (client.client.socket(), client.server.socket());
        match self.associations.heard(client, now.instant, has_allocation) {
            Tell::Nothing => {}
            Tell::KnownUntil(until) => self.datapath.vouch(source, server, until),
            Tell::Stranger => self.datapath.unvouch(source, server),
        }
    }

    /// The program forgets whom this association was the reason to know.
    pub(super) fn unvouch(&self, client: &FiveTuple) {
        if self.associations.is_vouched(client) {
            self.datapath.unvouch(client.client.socket(), client.server.socket());
        }
    }

    /// Sends a message to a client in its association. Returns whether it was sent.
    pub(super) fn encrypt(&mut self, client: &FiveTuple, ip: IpFields, message: &[u8]) -> bool {
        let encrypted = self.associations.send(client, message);
        if matches!(encrypted, Err(Error::TooLong { .. })) {
            self.counters.discard(Discard::TooLong);
        }
        encrypted.is_ok() && self.send_encrypted(client, ip)
    }

    /// Sends what an association has to be sent. Returns whether the kernel took it all.
    fn send_encrypted(&mut self, client: &FiveTuple, ip: IpFields) -> bool {
        let mut all = true;
        while let Some(datagram) = self.associations.next_datagram(client) {
            if self.sockets.send(client, ip, datagram).is_err() {
                self.counters.send_failed += 1;
                all = false;
            }
        }
        while let Some(datagram) = self.associations.next_datagram_of_successor(client) {
            self.counters.send_failed += u64::from(self.sockets.respond(client, datagram).is_err());
        }
        all
    }

    /// Ends an association, and what was begun in it.
    pub(super) fn end_association(&mut self, client: &FiveTuple, end: End) {
        if !self.server.has_allocation(client) {
            let is_handshaking = !self.associations.is_established(client);
            // A client that gives up its handshake says so by an alert, which closes the association.
            let end = if is_handshaking && end == End::Client { End::Tls } else { end };
            self.connection_failed(client, end, is_handshaking, self.associations.alert(client));
        }
        self.associations.close(client);
        self.send_encrypted(client, IpFields::ORIGINATED);
        self.unvouch(client);
        self.associations.remove(client, end);
        self.server.client_lost(now(), client);
        self.forget_visitor(client);
        self.carry_out();
    }

    /// Does what is to be done for associations although nothing arrives.
    pub(super) fn handle_association_timeouts(&mut self, now: Instant) {
        while let Some(client) = self.associations.take_resend(now) {
            self.send_encrypted(&client, IpFields::ORIGINATED);
            if self.associations.is_closed(&client) {
                self.end_association(&client, End::Timeout);
            }
        }
        while let Some(client) = self.take_silent_association(now) {
            self.end_association(&client, End::Timeout);
        }
    }

    fn take_silent_association(&mut self, now: Instant) -> Option<FiveTuple> {
        let Self { server, associations, .. } = self;
        associations.take_due(now, |client| server.has_allocation(client))
    }
}
