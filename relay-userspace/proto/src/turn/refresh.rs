//! Refresh (RFC 8656 section 8).

use super::allocate::granted;
use super::attributes::MOBILITY_TICKET;
use super::effect::Now;
use super::flow::Base;
use super::request::Request;
use super::server::{Outcome, Server};
use super::timer::Timer;
use crate::address::AddressFamily;
use crate::stun::ErrorCode;
use crate::stun::attribute::{Lifetime, RequestedAddressFamily};

impl Server {
    pub(super) fn refresh(&mut self, now: Now, request: &Request<'_>) -> Result<Outcome, ErrorCode> {
        let id = self.allocation_of(request)?;
        if request.message.find(MOBILITY_TICKET).is_some() {
            return Err(ErrorCode::MOBILITY_FORBIDDEN);
        }
        let requested = request.optional::<Lifetime>()?;
        let families = self.families_of(request)?;
        if requested == Some(Lifetime(0)) {
            for family in families {
                self.end_relay(id, family);
            }
            return Ok(Outcome::Lifetime(Lifetime(0)));
        }

        let lifetime = granted(&self.limits, requested);
        let expires = now.instant + lifetime;
        let Some(allocation) = self.allocations.find_mut(id) else { return Err(ErrorCode::ALLOCATION_MISMATCH) };
        for family in &families {
            if let Some(relay) = allocation.relay_mut(*family) {
                self.timers.cancel(relay.expires, Timer::Relay(relay.id));
                self.timers.set(expires, Timer::Relay(relay.id));
                relay.expires = expires;
            }
            allocation.update_flows(id, Base::Relay(*family), now.instant, &mut self.outbox);
        }
        Ok(Outcome::Lifetime(Lifetime(lifetime.as_secs() as u32)))
    }

    /// The families that a request is about: all that the allocation has, or the one that REQUESTED-ADDRESS-FAMILY
    /// names (RFC 8656 sections 8.1 and 8.2).
    fn families_of(&self, request: &Request<'_>) -> Result<Vec<AddressFamily>, ErrorCode> {
        let requested = request.optional::<RequestedAddressFamily>()?;
        let (_, allocation) =
            self.allocations.of_client(&request.reply.five_tuple).ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
        let present: Vec<_> = allocation.families().collect();
        match requested {
            None => Ok(present),
            Some(RequestedAddressFamily(Ok(family))) if present.contains(&family) => Ok(vec![family]),
            Some(_) => Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH),
        }
    }
}
