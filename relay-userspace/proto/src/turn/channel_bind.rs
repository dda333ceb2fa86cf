//! ChannelBind (RFC 8656 section 12).

use std::time::Duration;

use super::allocation::{ChannelNumber, PeerTransport};
use super::cause::Cause;
use super::effect::Now;
use super::refusal::Denied;
use super::request::Request;
use super::server::{Outcome, Server};
use super::timer::Timer;
use crate::address::{AddressFamily, PeerAddr};
use crate::stun::attribute::{ChannelNumberAttribute, XorPeerAddress};

/// How long after its end a binding still keeps its channel and its peer from being bound to others.
///
/// RFC 8656 section 12 has the client wait this long, so that data which is still on its way does not reach a peer it
/// was not meant for. A client that does not wait is refused with 400; binding the same pair again is always allowed.
pub(super) const CHANNEL_COOLDOWN: Duration = Duration::from_secs(300);

impl Server {
    pub(super) fn channel_bind(&mut self, now: Now, request: &Request<'_>) -> Result<Outcome, Denied> {
        let id = self.allocation_of(request)?;
        let ChannelNumberAttribute(number) = request.required()?;
        let number = ChannelNumber::new(number).ok_or(Cause::InvalidChannel)?;
        let XorPeerAddress(peer) = request.required()?;
        let peer = PeerAddr::new(peer);
        // There is nothing to send to at port 0.
        if peer.port() == 0 {
            return Err(Denied::at(Cause::PeerPortZero, peer));
        }
        let Some(allocation) = self.allocations.find(id) else { return Err(Cause::NoAllocation.into()) };
        // Where the data has connections of its own, there is nothing to number (RFC 6062 section 3).
        if allocation.peers == PeerTransport::Tcp {
            return Err(Cause::TransportMismatch.into());
        }
        if !allocation.may_bind(number, peer) {
            return Err(Denied::at(Cause::ChannelInUse, peer));
        }
        if allocation.relay(AddressFamily::of(peer.ip())).is_none() {
            return Err(Denied::at(Cause::FamilyMismatch, peer));
        }
        if !self.policy.permits(peer) {
            return Err(Denied::at(Cause::ForbiddenPeer, peer));
        }
        let is_new = !allocation.channels.contains_key(&number);
        if is_new && allocation.channels.len() >= self.limits.channels {
            return Err(Denied::at(Cause::ChannelsFull, peer));
        }
        if !self.has_room_for(allocation, &[peer.ip()]) {
            return Err(Denied::at(Cause::PermissionsFull, peer));
        }

        let expires = now.instant + self.limits.channel_lifetime;
        let timer = Timer::Channel(id, number);
        if let Some(before) =
            self.allocations.find_mut(id).and_then(|allocation| allocation.bind(number, peer, expires))
        {
            self.timers.cancel(before, timer);
        }
        self.timers.set(expires, timer);
        // A binding gives its peer a permission, and that in turn installs the flows.
        self.permit(now.instant, id, peer.ip());
        Ok(Outcome::Done)
    }
}
