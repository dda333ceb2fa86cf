//! Allocate (RFC 8656 section 7): what is asked for, and whether it may be. The sockets are `pending_allocate`'s.

use std::net::IpAddr;
use std::time::Duration;

use super::allocation::PeerTransport;
use super::cause::Cause;
use super::config::Limits;
use super::directory::Grant;
use super::effect::Now;
use super::pending_allocate::PendingAllocate;
use super::port_pool::Parity;
use super::quota::{Ceilings, Claim, Lease};
use super::refusal::Denied;
use super::request::Request;
use super::server::{Outcome, Server};
use crate::address::AddressFamily;
use crate::stun::attribute::{
    AdditionalAddressFamily, AdditionalAddressFamilyOfCoturn, Attribute, DontFragment, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken,
};

/// IP protocol number of UDP.
const UDP: u8 = hairpin_common::wire::PROTOCOL_UDP;
/// IP protocol number of TCP.
const TCP: u8 = 6;

/// What a request asks for, with all its combinations checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Reserved(ReservationToken),
    Single(AddressFamily, Parity),
    Dual(Parity),
}

impl Server {
    pub(super) fn allocate(&mut self, now: Now, request: &Request<'_>) -> Result<Outcome, Denied> {
        let five_tuple = request.reply.five_tuple;
        if let Some(pending) = self.pending.get(&five_tuple) {
            let same = pending.reply.id == request.reply.id && pending.reply.digest == request.reply.digest;
            return if same { Ok(Outcome::Later) } else { Err(Cause::AllocationExists.into()) };
        }
        if self.allocations.of_client(&five_tuple).is_some() {
            return Err(Cause::AllocationExists.into());
        }
        if is_tunneled(five_tuple.client.ip()) {
            return Err(Cause::TunneledClient.into());
        }
        let wants_ticket = self.wants_ticket(request)?;
        let (peers, asked) = self.what_is_asked(request)?;
        let lifetime = request.optional::<Lifetime>()?;
        let redeems = matches!(asked, Asked::Reserved(_));
        let is_full = self.allocations.len() + self.pending.len() >= self.limits.allocations;
        let turned_away = self.turns_away(&five_tuple).filter(|_| !redeems);
        if let Some(cause) = turned_away.or(is_full.then_some(Cause::RelayFull)) {
            return Err(self.no_room(&five_tuple, redeems, cause));
        }
        let Some(grant) = self.admitted(now, request)? else { return Ok(Outcome::Asks) };
        let (lease, token) = self.count(request, &grant, asked)?;

        let mut pending = PendingAllocate {
            reply: request.reply.clone(),
            username: request.username.into(),
            identity: request.proof.identity.clone(),
            granted: grant.addresses,
            tried: Vec::new(),
            peers,
            wants_ticket,
            lifetime: granted(&self.limits, lifetime, request.proof.remaining(now.instant)),
            lease,
            token,
            redeems,
            slots: Vec::new(),
        };
        match asked {
            Asked::Reserved(token) => pending.slots.push(self.bind_reserved(&request.reply, token)),
            Asked::Single(family, parity) => self.bind_port(&mut pending, family, parity),
            Asked::Dual(parity) => {
                for family in AddressFamily::ALL {
                    self.bind_port(&mut pending, family, parity);
                }
            }
        }
        if pending.is_waiting() {
            self.pending.insert(five_tuple, pending);
            return Ok(Outcome::Later);
        }
        // No socket can be had, so nothing was begun.
        self.abandon_token(pending.token);
        Err(self.failure(&pending))
    }

    /// RFC 8656 section 7.2, steps 3 to 9, in this order.
    fn what_is_asked(&self, request: &Request<'_>) -> Result<(PeerTransport, Asked), Cause> {
        let peers = match request.required()? {
            RequestedTransport(UDP) => PeerTransport::Udp,
            RequestedTransport(TCP) if self.tcp_relay => PeerTransport::Tcp,
            RequestedTransport(TCP) => return Err(Cause::TcpRelayOff),
            RequestedTransport(_) => return Err(Cause::UnsupportedTransport),
        };
        if peers == PeerTransport::Tcp {
            may_have_tcp(request)?;
        }
        Ok((peers, self.which_addresses(request)?))
    }

    fn which_addresses(&self, request: &Request<'_>) -> Result<Asked, Cause> {
        // Served at every Send indication that asks for it, so there is nothing to promise.
        let _: Option<DontFragment> = request.optional()?;
        let even_port = request.optional::<EvenPort>()?;
        let requested = request.optional::<RequestedAddressFamily>()?;
        let additional = match request.optional::<AdditionalAddressFamily>()? {
            None => {
                request.optional::<AdditionalAddressFamilyOfCoturn>()?.map(|other| AdditionalAddressFamily(other.0))
            }
            official => official,
        };
        if let Some(token) = request.optional::<ReservationToken>()? {
            let alone = even_port.is_none() && requested.is_none() && additional.is_none();
            return if alone { Ok(Asked::Reserved(token)) } else { Err(Cause::ConflictingAttributes) };
        }
        if requested.is_some() && additional.is_some() {
            return Err(Cause::ConflictingAttributes);
        }
        let family = match requested {
            Some(RequestedAddressFamily(Ok(family))) => family,
            Some(RequestedAddressFamily(Err(_))) => return Err(Cause::FamilyNotServed),
            None => AddressFamily::V4,
        };
        if !self.relay_addresses.serves(family) {
            return Err(Cause::FamilyNotServed);
        }
        let parity = match even_port {
            Some(EvenPort { reserve_next: true }) if additional.is_some() => return Err(Cause::ConflictingAttributes),
            Some(EvenPort { reserve_next: true }) => Parity::Pair,
            Some(EvenPort { reserve_next: false }) => Parity::Even,
            None => Parity::Any,
        };
        match additional {
            Some(AdditionalAddressFamily(Ok(AddressFamily::V6))) => Ok(Asked::Dual(parity)),
            Some(_) => Err(Cause::ConflictingAttributes),
            None => Ok(Asked::Single(family, parity)),
        }
    }

    /// Takes places in all quotas: one for the allocation, and one for a port that is to be reserved.
    fn count(
        &mut self,
        request: &Request<'_>,
        grant: &Grant,
        asked: Asked,
    ) -> Result<(Lease, Option<ReservationToken>), Cause> {
        let realm = request.realm;
        let claim = Claim::new(&realm.name, request.account, request.reply.five_tuple.client.ip());
        let ceilings = Ceilings {
            user: grant.allocations.map_or(realm.allocations_per_user, |own| own as usize),
            source: self.limits.allocations_per_source,
            realm: realm.allocations,
        };
        match asked {
            Asked::Reserved(token) => Ok((self.quotas.redeem(token, claim, ceilings)?, None)),
            Asked::Single(_, Parity::Pair) => {
                let lease = self.quotas.lease(claim.clone(), ceilings)?;
                let token = self.random.reservation_token();
                self.quotas.reserve(token, claim, ceilings)?;
                Ok((lease, Some(token)))
            }
            Asked::Single(..) | Asked::Dual(_) => Ok((self.quotas.lease(claim, ceilings)?, None)),
        }
    }
}

/// Whether an address is of Teredo or 6to4. What goes there comes back by IPv4, and a client could let its data go round
/// (RFC 8656 section 21.4).
fn is_tunneled(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => matches!(ip.segments(), [0x2001, 0, ..] | [0x2002, ..]),
    }
}

/// What a relayed address of TCP asks of a request besides (RFC 6062 section 5.1): that the client speaks TCP or TLS,
/// and nothing that is about datagrams.
fn may_have_tcp(request: &Request<'_>) -> Result<(), Cause> {
    let about_datagrams = [DontFragment::TYPE, EvenPort::TYPE, ReservationToken::TYPE];
    if !request.reply.five_tuple.transport.is_stream() {
        return Err(Cause::TransportMismatch);
    }
    if about_datagrams.iter().any(|kind| request.message.find(*kind).is_some()) {
        return Err(Cause::ConflictingAttributes);
    }
    Ok(())
}

/// The time-to-expiry that a request gets: between the default and the longest lifetime (RFC 8656 section 7.2), and no
/// longer than the client's token is good (RFC 7635 section 9).
pub(super) fn granted(limits: &Limits, requested: Option<Lifetime>, remaining: Option<Duration>) -> Duration {
    let requested = requested.map_or(limits.default_lifetime, |Lifetime(seconds)| Duration::from_secs(seconds.into()));
    let granted = requested.min(limits.max_lifetime).max(limits.default_lifetime);
    // In whole seconds, as the client is told.
    remaining.map_or(granted, |remaining| granted.min(Duration::from_secs(remaining.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_between_the_default_and_the_maximum() {
        let limits = Limits::default();
        let granted = |seconds: Option<u32>| granted(&limits, seconds.map(Lifetime), None).as_secs();
        assert_eq!([None, Some(0), Some(599), Some(600)].map(granted), [600; 4]);
        assert_eq!([Some(601), Some(3600), Some(3601), Some(u32::MAX)].map(granted), [601, 3600, 3600, 3600]);
        let of_token = |millis| super::granted(&limits, Some(Lifetime(900)), Some(Duration::from_millis(millis)));
        assert_eq!([1_000_000, 700_999, 1_500].map(|left| of_token(left).as_secs()), [900, 700, 1]);
    }
}
