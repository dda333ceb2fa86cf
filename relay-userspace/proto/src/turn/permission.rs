//! CreatePermission (RFC 8656 sections 9 and 10).

use std::net::IpAddr;
use std::time::Instant;

use super::allocation::Allocation;
use super::cause::Cause;
use super::effect::{AllocationId, Now};
use super::flow::Base;
use super::refusal::Denied;
use super::request::Request;
use super::server::{Outcome, Server};
use super::timer::Timer;
use crate::address::{AddressFamily, PeerAddr};
use crate::stun::attribute::XorPeerAddress;

impl Server {
    /// Gives permissions to all peers of the request, or to none.
    pub(super) fn create_permission(&mut self, now: Now, request: &Request<'_>) -> Result<Outcome, Denied> {
        let id = self.allocation_of(request)?;
        let Some(allocation) = self.allocations.find(id) else { return Err(Cause::NoAllocation.into()) };
        let mut peers = Vec::new();
        for peer in request.message.each::<XorPeerAddress>() {
            let XorPeerAddress(peer) = peer.map_err(|_| Cause::MalformedAttribute)?;
            let peer = PeerAddr::new(peer);
            // The port may be anything (RFC 8656 section 10.2).
            let ip = peer.ip();
            if allocation.relay(AddressFamily::of(ip)).is_none() {
                return Err(Denied::at(Cause::FamilyMismatch, peer));
            }
            if !self.policy.permits_address(ip) {
                return Err(Denied::at(Cause::ForbiddenPeer, peer));
            }
            peers.push(ip);
        }
        if peers.is_empty() {
            return Err(Cause::MissingAttribute.into());
        }
        peers.sort_unstable();
        peers.dedup();
        if !self.has_room_for(allocation, &peers) {
            return Err(Cause::PermissionsFull.into());
        }
        for peer in peers {
            self.permit(now.instant, id, peer);
        }
        Ok(Outcome::Done)
    }

    /// Whether permissions for all of these peers, each named once, fit. Those that are there may be given again, also when
    /// the limit has been lowered.
    pub(super) fn has_room_for(&self, allocation: &Allocation, peers: &[IpAddr]) -> bool {
        let new = peers.iter().filter(|peer| !allocation.permissions.contains_key(*peer)).count();
        new == 0 || allocation.permissions.len() + new <= self.limits.permissions
    }

    /// Installs or refreshes a permission, and with it the flows that rest on it.
    pub(super) fn permit(&mut self, now: Instant, id: AllocationId, peer: IpAddr) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        let expires = now + self.limits.permission_lifetime;
        let timer = Timer::Permission(id, peer);
        if let Some(before) = allocation.permit(peer, expires) {
            self.timers.cancel(before, timer);
        }
        self.timers.set(expires, timer);
        allocation.update_flows(id, Base::Permission(peer), now, &mut self.outbox);
    }
}
