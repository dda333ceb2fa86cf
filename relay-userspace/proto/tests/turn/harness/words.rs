//! Addresses, scopes and datagrams, in short.

use std::net::SocketAddr;

use hairpin_proto::address::PeerAddr;
use hairpin_proto::stun::attribute::XorPeerAddress;
use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};
use hairpin_proto::turn::{Discard, Disposition, Forward, RelayId, Scope};

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an address"))
}

/// The scope of a permission, by any of the peer's transport addresses.
pub(crate) fn permission(peer: &str) -> Scope {
    Scope::Permission { peer: socket(peer).ip() }
}

/// The scope of a channel.
pub(crate) fn channel(channel: u16, peer: &str) -> Scope {
    Scope::Channel { channel, peer: PeerAddr::new(socket(peer)) }
}

/// A ChannelData message without padding.
pub(crate) fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = number.to_be_bytes().to_vec();
    datagram.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    datagram.extend_from_slice(payload);
    datagram
}

/// A Send indication.
pub(crate) fn send_indication(peer: &str, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    MessageBuilder::new(&mut datagram, Class::Indication, Method::SEND, TransactionId([3; 12]))
        .with(&XorPeerAddress(socket(peer)))
        .with(&hairpin_proto::stun::attribute::Data(payload))
        .finish(false);
    datagram
}

/// What is sent to a client, as it goes out.
pub(crate) fn framed(disposition: Disposition<'_>) -> Vec<u8> {
    let Disposition::Forward(Forward::ToClient { header, payload, padding, .. }) = disposition else {
        panic!("{disposition:?} goes to no client");
    };
    let mut datagram = [header.as_bytes(), payload].concat();
    datagram.resize(datagram.len() + padding, 0);
    datagram
}

/// The payload and peer of what is sent to a peer.
pub(crate) fn delivered(disposition: Disposition<'_>) -> (RelayId, SocketAddr, &[u8]) {
    let Disposition::Forward(Forward::ToPeer { relay, peer, payload, .. }) = disposition else {
        panic!("{disposition:?} goes to no peer");
    };
    (relay, peer.socket(), payload)
}

pub(crate) fn dropped(reason: Discard) -> Disposition<'static> {
    Disposition::Discard(reason)
}
