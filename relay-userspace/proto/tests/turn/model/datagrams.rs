//! Data, ICMP packets and noise of one step: what becomes of them, byte for byte.

use hairpin_common::wire::{CHANNEL_DATA_LEN, ChannelDataHeader};
use hairpin_proto::address::{AddressFamily, FiveTuple, PeerAddr};
use hairpin_proto::framing::Frame;
use hairpin_proto::stun::attribute::{Data, Icmp, XorPeerAddress};
use hairpin_proto::stun::{Class, Message, Method};
use hairpin_proto::turn::{Disposition, Forward, IcmpError, RelayId};

use super::probe::family_to;
use super::{CHANNELS, PEERS, World};
use crate::harness::{channel_data, framed, send_indication, socket};

/// The longest payload of a UDP datagram, over IPv4.
const MAX_DATAGRAM: usize = 65_507;

impl World {
    pub(super) fn noise(&mut self, client: usize, bytes: &[u8]) {
        // A request would notice what is over.
        self.relay.server.handle_timeout(self.relay.now);
        self.relay.drain();
        let before = (self.relay.server.allocations(), self.relay.server.poll_timeout(), self.relay.quotas.in_use());
        let disposition = self.relay.client_sends(&self.clients[client][0], bytes);
        let control = disposition == Disposition::Control;
        let events = self.relay.drain();
        self.relay.responses.clear();
        assert_eq!(control, !events.is_empty(), "{bytes:02x?}");
        let after = (self.relay.server.allocations(), self.relay.server.poll_timeout(), self.relay.quotas.in_use());
        assert_eq!(after, before, "{bytes:02x?}");
    }

    pub(super) fn send_to_peer(&mut self, client: usize, channel: Option<usize>, peer: usize, length: u16) {
        let payload = vec![0x5a; usize::from(length).min(60_000)];
        let (rights, now) = (&self.rights[client], self.relay.now.instant);
        let (datagram, expected) = match channel.map(|channel| CHANNELS[channel]) {
            Some(number) => (channel_data(number, &payload), rights.peer_of(number, now)),
            None => (send_indication(PEERS[peer], &payload), Some(peer).filter(|peer| rights.permits(*peer, now))),
        };
        let reached = match self.relay.client_sends(&self.clients[client][0], &datagram) {
            Disposition::Forward(Forward::ToPeer { peer, payload: forwarded, relay, .. }) => {
                assert_eq!(forwarded, payload);
                Some((peer.socket(), relay))
            }
            _ => None,
        };
        let relayed = expected.map(|peer| self.relayed(client, family_to(PEERS[peer])));
        assert_eq!(reached.map(|(peer, _)| peer), expected.map(|peer| socket(PEERS[peer])));
        assert_eq!(reached.map(|(_, relay)| self.relay.sockets[&relay]), relayed, "another's relayed address");
    }

    pub(super) fn send_from_peer(&mut self, at: usize, peer: usize, length: u16) {
        let Some((id, owner, now)) = self.receiver(at, peer) else { return };
        let payload = vec![0xa5; usize::from(length)];
        let expected = owner.filter(|owner| self.rights[*owner].permits(peer, now));
        let channel = expected.and_then(|owner| self.rights[owner].channel_to(peer, now));
        let five_tuple = expected.map(|owner| self.clients[owner][0].five_tuple);
        let disposition = self.relay.peer_sends(id, PEERS[peer], &payload);
        match (disposition, five_tuple) {
            (Disposition::Forward(Forward::ToClient { five_tuple: to, .. }), Some(five_tuple)) => {
                assert_eq!(to, five_tuple);
                check_frame(&framed(disposition), five_tuple, channel, PEERS[peer], &payload);
            }
            (Disposition::Discard(_), Some(_)) => {
                let header = if channel.is_some() { CHANNEL_DATA_LEN } else { 20 + 12 + 4 };
                assert!(header + payload.len().next_multiple_of(4) > MAX_DATAGRAM - 16, "it is not too long");
            }
            (Disposition::Discard(_), None) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn icmp(&mut self, at: usize, peer: usize, kind: u8, code: u8, mtu: u32) {
        let Some((id, owner, now)) = self.receiver(at, peer) else { return };
        let told = match family_to(PEERS[peer]) {
            AddressFamily::V4 => matches!(kind, 3 | 11),
            AddressFamily::V6 => matches!(kind, 1..=3),
        };
        let expected = owner.filter(|owner| told && self.rights[*owner].permits(peer, now));
        let to = PeerAddr::new(socket(PEERS[peer]));
        let disposition = self.relay.server.peer_error(self.relay.now, id, to, IcmpError { kind, code, mtu });
        assert_eq!(disposition == Disposition::Control, expected.is_some(), "{disposition:?}");
        let events = self.relay.drain();
        assert_eq!(events.len(), usize::from(expected.is_some()), "{events:?}");
        let Some(owner) = expected else { return };
        assert_eq!(self.relay.answered, Some(self.clients[owner][0].five_tuple));
        let indication = self.relay.responses.pop().expect("the client is told");
        let message = Message::parse(&indication).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
        assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(to.socket()))));
        let icmp: Icmp = message.attribute().unwrap().expect("it says what happened");
        assert_eq!((icmp.kind, icmp.code), (kind, code.into()));
    }

    /// A bound socket that a packet from this peer can arrive at, and whose it is.
    fn receiver(&self, at: usize, peer: usize) -> Option<(RelayId, Option<usize>, std::time::Instant)> {
        let (id, address) = self.relay.sockets.iter().nth(at)?;
        let same_family = family_to(PEERS[peer]) == AddressFamily::of(address.ip());
        same_family.then(|| (*id, self.owner_of(*address), self.relay.now.instant))
    }
}

/// What goes to a client is one message that carries the payload, and in a stream the next one can follow.
pub(super) fn check_frame(bytes: &[u8], five_tuple: FiveTuple, channel: Option<u16>, peer: &str, payload: &[u8]) {
    assert!(bytes.len() <= MAX_DATAGRAM + 3);
    if five_tuple.transport.is_stream() {
        assert_eq!(Frame::of(bytes), Frame::Complete(bytes.len()));
    }
    if let Some(channel) = channel {
        let (header, rest) = bytes.split_first_chunk::<CHANNEL_DATA_LEN>().expect("there is a header");
        assert_eq!(*header, ChannelDataHeader { channel, length: payload.len() as u16 }.to_bytes());
        let padding = if five_tuple.transport.is_stream() { payload.len().next_multiple_of(4) } else { payload.len() };
        assert_eq!((&rest[..payload.len()], rest.len()), (payload, padding));
    } else {
        let message = Message::parse(bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
        assert_eq!(message.attribute(), Ok(Some(XorPeerAddress(socket(peer)))));
        assert_eq!(message.attribute(), Ok(Some(Data(payload))));
    }
}
