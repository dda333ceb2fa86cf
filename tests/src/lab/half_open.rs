//! TCP connections that are begun from forged addresses and never come to be.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

use super::topology::{RELAY_MAC, ROUTER_MAC};
use super::wire::Wire;

const TTL: u8 = 64;
const WINDOW: u16 = 64_240;

/// Sends a SYN to a listener of the relay, by the router's end of the link to it.
pub fn syn(wire: &Wire, source: SocketAddr, listener: SocketAddr, sequence: u32) {
    let link = PacketBuilder::ethernet2(ROUTER_MAC, RELAY_MAC);
    let network = match (source.ip(), listener.ip()) {
        (IpAddr::V4(source), IpAddr::V4(listener)) => link.ipv4(source.octets(), listener.octets(), TTL),
        (IpAddr::V6(source), IpAddr::V6(listener)) => link.ipv6(source.octets(), listener.octets(), TTL),
        _ => panic!("{source} and {listener} are of one IP version"),
    };
    let packet = network.tcp(source.port(), listener.port(), sequence, WINDOW).syn();
    let mut frame = Vec::with_capacity(packet.size(0));
    packet.write(&mut frame, &[]).expect("a vector takes everything");
    wire.send(&frame);
}
