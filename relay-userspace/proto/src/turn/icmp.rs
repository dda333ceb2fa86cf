//! ICMP packets about datagrams to peers (RFC 8656 section 11.5).
//!
//! As in `relaying`, nothing here changes any state, and nothing is allocated.

use super::effect::{Discard, IcmpError, Now, RelayId};
use super::mobility::Presence;
use super::server::Server;
use crate::address::{AddressFamily, PeerAddr};
use crate::stun::attribute::{Icmp, XorPeerAddress};
use crate::stun::{Class, MessageBuilder, Method};

/// Destination unreachable, of ICMP (RFC 792).
const UNREACHABLE_V4: u8 = 3;
/// Its code for a datagram with DF that is too big for the next hop (RFC 1191).
const FRAGMENTATION_NEEDED: u8 = 4;
/// Time exceeded, of ICMP.
const TIME_EXCEEDED_V4: u8 = 11;
/// Destination unreachable, of ICMPv6 (RFC 4443).
const UNREACHABLE_V6: u8 = 1;
/// Packet too big, of ICMPv6.
const TOO_BIG_V6: u8 = 2;
/// Time exceeded, of ICMPv6.
const TIME_EXCEEDED_V6: u8 = 3;

impl IcmpError {
    /// Whether it says that a datagram to this peer was too big for a link on the way.
    pub fn is_too_big(&self, peer: PeerAddr) -> bool {
        match AddressFamily::of(peer.ip()) {
            AddressFamily::V4 => (self.kind, self.code) == (UNREACHABLE_V4, FRAGMENTATION_NEEDED),
            AddressFamily::V6 => self.kind == TOO_BIG_V6,
        }
    }
}

impl Server {
    /// Tells the client in a Data indication without data, if it has a permission for the peer. Only the peer's IP
    /// address is compared; who sent the ICMP packet does not matter, which will often be a router.
    pub(super) fn icmp(&mut self, now: Now, relay: RelayId, peer: PeerAddr, error: IcmpError) -> Result<(), Discard> {
        let family = AddressFamily::of(peer.ip());
        let error_data = match (family, error.kind) {
            _ if error.is_too_big(peer) => error.mtu,
            (AddressFamily::V4, UNREACHABLE_V4 | TIME_EXCEEDED_V4)
            | (AddressFamily::V6, UNREACHABLE_V6 | TIME_EXCEEDED_V6) => 0,
            _ => return Err(Discard::OtherIcmp),
        };
        let (_, allocation) = self.live_owner(now, relay)?;
        if !allocation.permits(peer.ip(), now.instant) {
            return Err(Discard::NoPermission);
        }
        if allocation.presence == Presence::Lost {
            return Err(Discard::NoClient);
        }
        let five_tuple = allocation.five_tuple;
        let id = self.random.transaction_id();
        self.outbox.respond(five_tuple, |buffer| {
            MessageBuilder::new(buffer, Class::Indication, Method::DATA, id)
                .with(&XorPeerAddress(peer.socket()))
                .with(&Icmp { kind: error.kind, code: error.code.into(), error_data })
                .finish(false);
        });
        Ok(())
    }
}
