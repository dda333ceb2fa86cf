//! Allocate (RFC 8656 section 7).
//!
//! A request that may be granted waits until the driver has bound its sockets. Until then it has no allocation, and
//! nothing but its place in the table of pending requests, which only an authenticated client can take.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::authentication::Identity;
use super::allocation::{Allocation, FAMILIES, PeerTransport, Relay, RelayOwner};
use super::cause::Cause;
use super::config::Limits;
use super::directory::{Answer, Grant, Question, Subject};
use super::effect::{BindError, BindRequest, Effect, Now, RelayId};
use super::flow::{Base, Installed};
use super::port_pool::{Parity, next_port};
use super::quota::{Ceilings, Claim, Lease};
use super::refusal::Denied;
use super::request::{ReplyTo, Request};
use super::server::{Outcome, Server, question};
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
    identity: Option<Identity>,
    /// Relayed transport addresses that are kept for the user and were not tried yet.
    granted: Vec<SocketAddr>,
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
    /// One that is kept for the user.
    Granted { address: RelayedAddr, parity: Parity, peers: PeerTransport },
}

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
            Asked::Dual(parity) => FAMILIES.into_iter().for_each(|family| self.bind_port(&mut pending, family, parity)),
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

    /// What the user may have, if it may have an allocation at all; `None` if somebody has to be asked first.
    fn admitted(&mut self, now: Now, request: &Request<'_>) -> Result<Option<Grant>, Cause> {
        let (realm, proof) = (request.realm, request.proof);
        if !realm.asks_for_admission || proof.is_admitted {
            return Ok(Some(proof.grant.clone()));
        }
        let subject = Subject::Admission { username: request.username.into(), account: request.account.into() };
        let question = question(&request.reply.five_tuple, realm, subject);
        let is_it = |known: &Question| (&known.realm, &known.subject) == (&question.realm, &question.subject);
        let at_hand = self.answered.as_ref().filter(|(known, _)| is_it(known)).map(|(_, answer)| Arc::clone(answer));
        let fresh = || {
            let known = self.authenticator.known.find(now.instant, &question.realm, &question.subject)?;
            known.1.then(|| Arc::clone(known.0))
        };
        match at_hand.or_else(fresh).as_deref() {
            Some(Answer::Admitted(grant)) => Ok(Some(grant.or(&proof.grant))),
            Some(Answer::Unavailable) => Err(Cause::UsersUnavailable),
            Some(_) => Err(Cause::NotAdmitted),
            None => {
                self.question = Some(question);
                Ok(None)
            }
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

    fn bind_reserved(&mut self, reply: &ReplyTo, token: ReservationToken) -> Slot {
        let relay = self.allocations.add_relay(RelayOwner::Pending(reply.five_tuple));
        self.outbox.push(Effect::Bind { relay, request: BindRequest::Reserved(token) });
        Slot::Waiting { relay, wanted: Wanted::Reserved(token), attempts: 1 }
    }

    /// Has a socket bound for a family: on an address that is kept for the user, where there is any of the family, else on
    /// one that is picked.
    fn bind_port(&mut self, pending: &mut PendingAllocate, family: AddressFamily, parity: Parity) {
        let slot = if !self.relay_addresses.serves(family) {
            Slot::Failed { family, cause: Cause::FamilyNotServed }
        } else if pending.granted.iter().any(|address| AddressFamily::of(address.ip()) == family) {
            self.bind_granted(pending, family, parity, Cause::AddressNotHere)
        } else {
            self.bind_picked(pending, family, parity, 1, Cause::NoPort)
        };
        pending.slots.push(slot);
    }

    fn bind_picked(
        &mut self,
        pending: &PendingAllocate,
        family: AddressFamily,
        parity: Parity,
        attempts: u8,
        cause: Cause,
    ) -> Slot {
        let reached = pending.reply.five_tuple.server.ip();
        let Some(address) = self.ports.pick(family, reached, parity, &mut self.random) else {
            return Slot::Failed { family, cause };
        };
        let peers = pending.peers;
        self.bind(pending, address, Wanted::Port { address, parity, peers }, attempts)
    }

    /// Tries the next address that is kept for the user.
    fn bind_granted(
        &mut self,
        pending: &mut PendingAllocate,
        family: AddressFamily,
        parity: Parity,
        mut cause: Cause,
    ) -> Slot {
        let peers = pending.peers;
        while let Some(at) = pending.granted.iter().position(|address| AddressFamily::of(address.ip()) == family) {
            let public = pending.granted.remove(at);
            let is_kept = |port: Option<u16>| port.is_some_and(|port| self.ports.is_reserved(port));
            let Some(address) = self.relay_addresses.bound(public).filter(|_| is_kept(Some(public.port()))) else {
                continue;
            };
            // The next port has to be the user's too.
            let next = public.port().checked_add(1);
            let has_next = || {
                is_kept(next) && pending.granted.iter().any(|other| (other.ip(), Some(other.port())) == (public.ip(), next))
            };
            let fits = match parity {
                Parity::Any => true,
                Parity::Even => public.port().is_multiple_of(2),
                Parity::Pair => public.port().is_multiple_of(2) && has_next(),
            };
            if !fits {
                cause = Cause::AddressInUse;
                continue;
            }
            self.ports.take(address);
            if parity == Parity::Pair {
                self.ports.take(next_port(address));
            }
            return self.bind(pending, address, Wanted::Granted { address, parity, peers }, 1);
        }
        Slot::Failed { family, cause }
    }

    fn bind(&mut self, pending: &PendingAllocate, address: RelayedAddr, wanted: Wanted, attempts: u8) -> Slot {
        let relay = self.allocations.add_relay(RelayOwner::Pending(pending.reply.five_tuple));
        let token = pending.token.filter(|_| wanted.is_pair());
        self.outbox.push(Effect::Bind { relay, request: bind_request(address, pending.peers, token) });
        Slot::Waiting { relay, wanted, attempts }
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
        for at in 0..pending.slots.len() {
            if let Slot::Waiting { relay: waiting, wanted, attempts } = pending.slots[at]
                && waiting == relay
            {
                pending.slots[at] = self.next_step(&mut pending, relay, wanted, attempts, result);
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
        pending: &mut PendingAllocate,
        relay: RelayId,
        wanted: Wanted,
        attempts: u8,
        result: Result<RelayedAddr, BindError>,
    ) -> Slot {
        match (wanted, result) {
            (Wanted::Port { .. } | Wanted::Granted { .. }, Ok(address)) => Slot::Bound { relay, address },
            (Wanted::Reserved(token), Ok(address)) => {
                // Redeemed at the shard that reserved it: nothing is left to be dropped later.
                if let Some(reservation) = self.reservations.remove(&token) {
                    self.timers.cancel(reservation.expires, Timer::Reservation(token));
                }
                // Nor is its owner charged for it any longer, if another user has redeemed it.
                self.quotas.release(token);
                Slot::Bound { relay, address }
            }
            (Wanted::Port { address, parity, .. }, Err(error)) => {
                let family = AddressFamily::of(address.ip());
                self.release_ports(address, parity);
                self.allocations.remove_relay(relay);
                let cause = if error == BindError::InUse { Cause::NoPort } else { Cause::NoSocket };
                if error != BindError::InUse || attempts >= ATTEMPTS {
                    return Slot::Failed { family, cause };
                }
                self.bind_picked(pending, family, parity, attempts + 1, cause)
            }
            (Wanted::Granted { address, parity, .. }, Err(error)) => {
                let family = AddressFamily::of(address.ip());
                self.release_ports(address, parity);
                self.allocations.remove_relay(relay);
                let cause = if error == BindError::InUse { Cause::AddressInUse } else { Cause::NoSocket };
                self.bind_granted(pending, family, parity, cause)
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
        let PendingAllocate { reply, username, identity, peers, wants_ticket, lifetime, lease, token, slots, .. } = pending;

        let expires = now + lifetime;
        let mut allocation = Allocation::new(reply.five_tuple, username, peers, lease);
        allocation.identity = identity;
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
                        Wanted::Port { address, parity, .. } | Wanted::Granted { address, parity, .. } => {
                            self.release_ports(address, parity);
                        }
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

/// The time-to-expiry that a request gets: between the default and the longest lifetime (RFC 8656 section 7.2), and no
/// longer than the client's token is good (RFC 7635 section 9).
pub(super) fn granted(limits: &Limits, requested: Option<Lifetime>, remaining: Option<Duration>) -> Duration {
    let requested = requested.map_or(limits.default_lifetime, |Lifetime(seconds)| Duration::from_secs(seconds.into()));
    let granted = requested.min(limits.max_lifetime).max(limits.default_lifetime);
    // In whole seconds, as the client is told.
    remaining.map_or(granted, |remaining| granted.min(Duration::from_secs(remaining.as_secs())))
}

impl Wanted {
    fn is_pair(&self) -> bool {
        matches!(self, Self::Port { parity: Parity::Pair, .. } | Self::Granted { parity: Parity::Pair, .. })
    }
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
