//! Allocate (RFC 8656 section 7).
//!
//! A request that may be granted waits until the driver has bound its sockets. Until then it has no allocation, and
//! nothing but its place in the table of pending requests, which only an authenticated client can take.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::allocation::{Allocation, FAMILIES, PeerTransport, Relay, RelayOwner};
use super::cause::Cause;
use super::config::Limits;
use super::effect::{BindError, BindRequest, Effect, RelayId};
use super::flow::{Base, Installed};
use super::port_pool::{Parity, next_port};
use super::quota::Lease;
use super::refusal::Denied;
use super::request::{ReplyTo, Request};
use super::server::{Outcome, Server};
use super::timer::Timer;
use crate::address::{AddressFamily, FiveTuple, RelayedAddr};
use crate::stun::Unknown;
use crate::stun::attribute::{
    AdditionalAddressFamily, AdditionalAddressFamilyOfCoturn, AddressErrorCode, Attribute, DontFragment, EvenPort,
    Lifetime, MobilityTicket, RequestedAddressFamily, RequestedTransport, ReservationToken, XorMappedAddress,
    XorRelayedAddress,
};
use crate::stun::{ErrorCode, MessageBuilder};

/// IP protocol number of UDP.
const UDP: u8 = hairpin_common::wire::PROTOCOL_UDP;
/// IP protocol number of TCP.
const TCP: u8 = 6;
/// How many ports are tried for one address. Ports that others hold are few, or there is something wrong.
const ATTEMPTS: u8 = 16;
/// How long a reserved port is kept (RFC 8656 section 7.2: at least 30 seconds).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// An Allocate request that waits for its sockets.
#[derive(Debug)]
pub(super) struct PendingAllocate {
    reply: ReplyTo,
    username: Box<str>,
    peers: PeerTransport,
    wants_ticket: bool,
    lifetime: Duration,
    lease: Lease,
    /// The token that the next port is reserved under.
    token: Option<ReservationToken>,
    /// Whether it takes a port that was reserved before.
    redeems: bool,
    /// One, or two for a dual allocation, IPv4 first.
    slots: Vec<Slot>,
}

/// A relayed transport address to be.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Waiting { relay: RelayId, wanted: Wanted, attempts: u8 },
    Bound { relay: RelayId, address: RelayedAddr },
    Failed { family: AddressFamily, cause: Cause },
}

/// Where a relayed transport address comes from.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Port { address: RelayedAddr, parity: Parity, peers: PeerTransport },
    Reserved(ReservationToken),
}

/// What a request asks for, with all its combinations checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Reserved(ReservationToken),
    Single(AddressFamily, Parity),
    Dual(Parity),
}

impl Server {
    pub(super) fn allocate(&mut self, request: &Request<'_>) -> Result<Outcome, Denied> {
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
        let (lease, token) = self.count(request.account, asked).ok_or(Cause::UserQuota)?;

        let slots = match asked {
            Asked::Reserved(token) => vec![self.bind_reserved(&request.reply, token)],
            Asked::Single(family, parity) => vec![self.bind_port(&request.reply, family, parity, peers, token)],
            Asked::Dual(parity) => {
                FAMILIES.map(|family| self.bind_port(&request.reply, family, parity, peers, None)).to_vec()
            }
        };
        let pending = PendingAllocate {
            reply: request.reply.clone(),
            username: request.username.into(),
            peers,
            wants_ticket,
            lifetime: granted(&self.limits, lifetime),
            lease,
            token,
            redeems,
            slots,
        };
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

    /// Takes places in the user's quota: one for the allocation, and one for a port that is to be reserved.
    fn count(&mut self, account: &str, asked: Asked) -> Option<(Lease, Option<ReservationToken>)> {
        let limit = self.limits.allocations_per_user;
        match asked {
            Asked::Reserved(token) => Some((self.quotas.redeem(token, account, limit)?, None)),
            Asked::Single(_, Parity::Pair) => {
                let lease = self.quotas.lease(account, limit)?;
                let token = self.random.reservation_token();
                self.quotas.reserve(token, account, limit).then_some((lease, Some(token)))
            }
            Asked::Single(..) | Asked::Dual(_) => Some((self.quotas.lease(account, limit)?, None)),
        }
    }

    fn bind_reserved(&mut self, reply: &ReplyTo, token: ReservationToken) -> Slot {
        let relay = self.allocations.add_relay(RelayOwner::Pending(reply.five_tuple));
        self.outbox.push(Effect::Bind { relay, request: BindRequest::Reserved(token) });
        Slot::Waiting { relay, wanted: Wanted::Reserved(token), attempts: 1 }
    }

    fn bind_port(
        &mut self,
        reply: &ReplyTo,
        family: AddressFamily,
        parity: Parity,
        peers: PeerTransport,
        token: Option<ReservationToken>,
    ) -> Slot {
        if !self.relay_addresses.serves(family) {
            return Slot::Failed { family, cause: Cause::FamilyNotServed };
        }
        let reached = reply.five_tuple.server.ip();
        let Some(address) = self.ports.pick(family, reached, parity, &mut self.random) else {
            return Slot::Failed { family, cause: Cause::NoPort };
        };
        let relay = self.allocations.add_relay(RelayOwner::Pending(reply.five_tuple));
        self.outbox.push(Effect::Bind { relay, request: bind_request(address, peers, token) });
        Slot::Waiting { relay, wanted: Wanted::Port { address, parity, peers }, attempts: 1 }
    }

    /// The driver has answered [`Effect::Bind`].
    pub(super) fn pending_bound(
        &mut self,
        now: Instant,
        five_tuple: FiveTuple,
        relay: RelayId,
        result: Result<RelayedAddr, BindError>,
    ) {
        let Some(mut pending) = self.pending.remove(&five_tuple) else { return };
        for slot in &mut pending.slots {
            if let Slot::Waiting { relay: waiting, wanted, attempts } = *slot
                && waiting == relay
            {
                *slot = self.next_step(&pending.reply, pending.token, relay, wanted, attempts, result);
            }
        }
        if pending.is_waiting() {
            self.pending.insert(five_tuple, pending);
        } else {
            self.finish(now, pending);
        }
    }

    /// A socket that was bound is lost, while the one of the other family is still waited for.
    pub(super) fn pending_lost(&mut self, five_tuple: FiveTuple, relay: RelayId) {
        let Some(pending) = self.pending.get_mut(&five_tuple) else { return };
        for slot in &mut pending.slots {
            if let Slot::Bound { relay: bound, address } = *slot
                && bound == relay
            {
                let family = AddressFamily::of(address.ip());
                *slot = Slot::Failed { family, cause: Cause::NoSocket };
                self.ports.release(address);
                self.allocations.remove_relay(relay);
                self.outbox.push(Effect::Close { relay });
            }
        }
    }

    fn next_step(
        &mut self,
        reply: &ReplyTo,
        token: Option<ReservationToken>,
        relay: RelayId,
        wanted: Wanted,
        attempts: u8,
        result: Result<RelayedAddr, BindError>,
    ) -> Slot {
        match (wanted, result) {
            (Wanted::Port { .. }, Ok(address)) => Slot::Bound { relay, address },
            (Wanted::Reserved(token), Ok(address)) => {
                // Redeemed at the shard that reserved it: nothing is left to be dropped later.
                if let Some(reservation) = self.reservations.remove(&token) {
                    self.timers.cancel(reservation.expires, Timer::Reservation(token));
                }
                // Nor is its owner charged for it any longer, if another user has redeemed it.
                self.quotas.release(token);
                Slot::Bound { relay, address }
            }
            (Wanted::Port { address, parity, peers }, Err(error)) => {
                let family = AddressFamily::of(address.ip());
                self.release_ports(address, parity);
                let reached = reply.five_tuple.server.ip();
                let retry = error == BindError::InUse && attempts < ATTEMPTS;
                let another = retry.then(|| self.ports.pick(family, reached, parity, &mut self.random)).flatten();
                let Some(address) = another else {
                    self.allocations.remove_relay(relay);
                    let cause = if error == BindError::InUse { Cause::NoPort } else { Cause::NoSocket };
                    return Slot::Failed { family, cause };
                };
                self.outbox.push(Effect::Bind { relay, request: bind_request(address, peers, token) });
                Slot::Waiting { relay, wanted: Wanted::Port { address, parity, peers }, attempts: attempts + 1 }
            }
            (Wanted::Reserved(_), Err(_)) => {
                self.allocations.remove_relay(relay);
                // The family of a reservation that does not exist is nobody's; only the code is told.
                Slot::Failed { family: AddressFamily::V4, cause: Cause::NoReservation }
            }
        }
    }

    /// All sockets are bound, or will not be.
    fn finish(&mut self, now: Instant, pending: PendingAllocate) {
        let bound = |slot: &Slot| match *slot {
            Slot::Bound { relay, address } => Some((relay, address)),
            Slot::Waiting { .. } | Slot::Failed { .. } => None,
        };
        let Some((_, first)) = pending.slots.iter().find_map(bound) else {
            self.abandon_token(pending.token);
            return self.fail(&pending.reply, &pending.username, self.failure(&pending), Unknown::default());
        };
        let PendingAllocate { reply, username, peers, wants_ticket, lifetime, lease, token, slots, .. } = pending;

        let expires = now + lifetime;
        let mut allocation = Allocation::new(reply.five_tuple, username, peers, lease);
        allocation.ticket = wants_ticket.then(|| self.first_ticket());
        for (id, address) in slots.iter().filter_map(bound) {
            let public = self.relay_addresses.public(address);
            let relay = Relay { id, address, public, expires, installed: Installed::default() };
            allocation.set_relay(AddressFamily::of(address.ip()), relay);
            self.timers.set(expires, Timer::Relay(id));
        }
        let families: Vec<_> = allocation.families().collect();
        let allocation = self.allocations.insert(allocation);
        for (relay, address) in slots.iter().filter_map(bound) {
            let owner = RelayOwner::Allocation(allocation, AddressFamily::of(address.ip()));
            self.allocations.set_relay_owner(relay, owner);
        }
        self.outbox.push(Effect::Allocated { allocation });
        for family in families {
            if let Some(made) = self.allocations.find_mut(allocation) {
                made.update_flows(allocation, Base::Relay(family), now, &mut self.outbox);
            }
        }
        if let Some(token) = token {
            let expires = now + RESERVATION_LIFETIME;
            self.reservations.insert(token, Reservation { expires, address: next_port(first) });
            self.timers.set(expires, Timer::Reservation(token));
        }

        let relayed: Vec<XorRelayedAddress> = slots
            .iter()
            .filter_map(bound)
            .map(|(_, address)| XorRelayedAddress(self.relay_addresses.public(address)))
            .collect();
        let ticket = self.ticket_of(allocation);
        let ticket = ticket.as_ref().map(|ticket| MobilityTicket(ticket.as_bytes()));
        let mapped = XorMappedAddress(reply.five_tuple.client.socket());
        self.succeed(now, &reply, |response| {
            let response = relayed.iter().fold(response, MessageBuilder::with);
            let response =
                response.with(&Lifetime(lifetime.as_secs() as u32)).with_option(token.as_ref()).with(&mapped);
            let response = response.with_option(ticket.as_ref());
            slots.iter().fold(response, |response, slot| match *slot {
                Slot::Failed { family, cause } => response.with(&AddressErrorCode { family, code: cause.code() }),
                Slot::Waiting { .. } | Slot::Bound { .. } => response,
            })
        });
    }

    /// What a request is answered that no socket could be had for.
    fn failure(&self, pending: &PendingAllocate) -> Denied {
        match pending.failure() {
            cause if cause.code() == ErrorCode::INSUFFICIENT_CAPACITY => {
                self.no_room(&pending.reply.five_tuple, pending.redeems, cause)
            }
            cause => cause.into(),
        }
    }

    /// Gives up a request that still waits: its client is lost, or the server is shut down.
    pub(super) fn abandon(&mut self, pending: &PendingAllocate) {
        for slot in &pending.slots {
            let relay = match *slot {
                Slot::Waiting { relay, wanted, .. } => {
                    match wanted {
                        Wanted::Port { address, parity, .. } => self.release_ports(address, parity),
                        // Whether it was bound already is not known here, nor is it counted for anybody any more.
                        Wanted::Reserved(token) => self.end_reservation(token),
                    }
                    relay
                }
                Slot::Bound { relay, address } => {
                    self.ports.release(address);
                    relay
                }
                Slot::Failed { .. } => continue,
            };
            self.allocations.remove_relay(relay);
            self.outbox.push(Effect::Close { relay });
        }
        if let Some(token) = pending.token {
            self.outbox.push(Effect::DropReservation { token });
        }
        self.abandon_token(pending.token);
    }

    fn abandon_token(&mut self, token: Option<ReservationToken>) {
        if let Some(token) = token {
            self.quotas.release(token);
        }
    }

    fn release_ports(&mut self, address: RelayedAddr, parity: Parity) {
        self.ports.release(address);
        if parity == Parity::Pair {
            self.ports.release(next_port(address));
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

/// A port that the driver keeps for whoever brings the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reservation {
    pub(super) expires: Instant,
    pub(super) address: RelayedAddr,
}

impl PendingAllocate {
    fn is_waiting(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Waiting { .. }))
    }

    /// Why no socket could be had.
    fn failure(&self) -> Cause {
        let failed = self.slots.iter().find_map(|slot| match slot {
            Slot::Failed { cause, .. } => Some(*cause),
            Slot::Waiting { .. } | Slot::Bound { .. } => None,
        });
        failed.unwrap_or(Cause::NoSocket)
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

fn bind_request(address: RelayedAddr, peers: PeerTransport, token: Option<ReservationToken>) -> BindRequest {
    match (peers, token) {
        (PeerTransport::Tcp, _) => BindRequest::Stream(address),
        (PeerTransport::Udp, Some(token)) => BindRequest::Pair(address, token),
        (PeerTransport::Udp, None) => BindRequest::Port(address),
    }
}

/// The time-to-expiry that a request gets: between the default and the longest lifetime (RFC 8656 section 7.2).
pub(super) fn granted(limits: &Limits, requested: Option<Lifetime>) -> Duration {
    let requested = requested.map_or(limits.default_lifetime, |Lifetime(seconds)| Duration::from_secs(seconds.into()));
    requested.min(limits.max_lifetime).max(limits.default_lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_between_the_default_and_the_maximum() {
        let limits = Limits::default();
        let granted = |seconds: Option<u32>| granted(&limits, seconds.map(Lifetime)).as_secs();
        assert_eq!([None, Some(0), Some(599), Some(600)].map(granted), [600; 4]);
        assert_eq!([Some(601), Some(3600), Some(3601), Some(u32::MAX)].map(granted), [601, 3600, 3600, 3600]);
    }
}
