//! Refresh (RFC 8656 section 8).

use std::time::Duration;

use super::allocate::granted;
use super::cause::Cause;
use super::effect::{AllocationId, EndReason, Now};
use super::flow::Base;
use super::refusal::Denied;
use super::request::Request;
use super::server::{Outcome, Server};
use super::timer::Timer;
use crate::address::AddressFamily;
use crate::stun::attribute::{Attribute, Lifetime, MobilityTicket, RequestedAddressFamily};

impl Server {
    pub(super) fn refresh(&mut self, now: Now, request: &Request<'_>) -> Result<Outcome, Denied> {
        let shows_ticket = request.message.find(MobilityTicket::TYPE).is_some();
        let (id, moves) = if shows_ticket { self.claim(now, request)? } else { (self.allocation_of(request)?, false) };
        let requested = request.optional::<Lifetime>()?;
        let families = self.families_of(id, request)?;
        if moves {
            // Whose address has changed is served first, or its data would have nowhere to go.
            self.move_to(now.instant, id, request.reply.five_tuple);
        } else if requested != Some(Lifetime(0)) {
            self.sends_away(&request.reply.five_tuple)?;
        }
        let granted = if requested == Some(Lifetime(0)) {
            for family in families {
                self.end_relay(id, family, EndReason::Refreshed);
            }
            Lifetime(0)
        } else {
            // A token that is shown with it counts from now on.
            if let (Some(allocation), Some(identity)) = (self.allocations.find_mut(id), &request.proof.identity) {
                allocation.identity = Some(identity.clone());
            }
            self.prolong(now, id, &families, granted(&self.limits, requested, request.proof.remaining(now.instant)))
        };
        let ticket = if shows_ticket { self.ticket_of(id) } else { None };
        Ok(Outcome::Lifetime(granted, ticket))
    }

    fn prolong(&mut self, now: Now, id: AllocationId, families: &[AddressFamily], lifetime: Duration) -> Lifetime {
        let expires = now.instant + lifetime;
        let Some(allocation) = self.allocations.find_mut(id) else { return Lifetime(0) };
        for family in families {
            if let Some(relay) = allocation.relay_mut(*family) {
                self.timers.cancel(relay.expires, Timer::Relay(relay.id));
                self.timers.set(expires, Timer::Relay(relay.id));
                relay.expires = expires;
            }
            allocation.update_flows(id, Base::Relay(*family), now.instant, &mut self.outbox);
        }
        Lifetime(lifetime.as_secs() as u32)
    }

    /// The families that a request is about: all that the allocation has, or the one that REQUESTED-ADDRESS-FAMILY
    /// names (RFC 8656 sections 8.1 and 8.2).
    fn families_of(&self, id: AllocationId, request: &Request<'_>) -> Result<Vec<AddressFamily>, Cause> {
        let requested = request.optional::<RequestedAddressFamily>()?;
        let allocation = self.allocations.find(id).ok_or(Cause::NoAllocation)?;
        let present: Vec<_> = allocation.families().collect();
        match requested {
            None => Ok(present),
            Some(RequestedAddressFamily(Ok(family))) if present.contains(&family) => Ok(vec![family]),
            Some(_) => Err(Cause::FamilyMismatch),
        }
    }
}
