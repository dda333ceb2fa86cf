//! Application data on its way to the server.

use std::net::SocketAddr;

use hairpin_common::wire::ChannelDataHeader;
use hairpin_proto::stun::attribute::{Data, DontFragment, XorPeerAddress};
use hairpin_proto::stun::{Class, MessageBuilder, Method, TransactionId};

/// Appends ChannelData (RFC 8656 section 12.4), without padding, as UDP allows. `payload` is at most 65,535 bytes.
pub fn channel_data(out: &mut Vec<u8>, channel: u16, payload: &[u8]) {
    out.extend_from_slice(&ChannelDataHeader { channel, length: payload.len() as u16 }.to_bytes());
    out.extend_from_slice(payload);
}

/// Appends ChannelData with the padding that streams need: to a multiple of four bytes, which its length does not count
/// (RFC 8656 section 12.5).
pub fn padded_channel_data(out: &mut Vec<u8>, channel: u16, payload: &[u8]) {
    channel_data(out, channel, payload);
    let padding = payload.len().next_multiple_of(4) - payload.len();
    out.resize(out.len() + padding, 0);
}

/// Appends a Send indication (RFC 8656 section 11.1).
pub fn send_indication(out: &mut Vec<u8>, id: TransactionId, peer: SocketAddr, payload: &[u8], dont_fragment: bool) {
    MessageBuilder::new(out, Class::Indication, Method::SEND, id)
        .with(&XorPeerAddress(peer))
        .with_option(dont_fragment.then_some(&DontFragment))
        .with(&Data(payload))
        .finish(false);
}
