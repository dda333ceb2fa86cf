//! Allocate requests that wait for their sockets.
//!
//! A request that may be granted waits until the driver has bound its sockets. Until then it has no allocation, and
//! nothing but its place in the table of pending requests, which only an authenticated client can take.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::allocation::{Allocation, PeerTransport, Relay, RelayOwner};
use super::cause::Cause;
use super::effect::{BindError, BindRequest, Effect, RelayId};
use super::flow::{Base, Installed};
use super::identity::Identity;
use super::port_pool::{Parity, next_port};
use super::quota::Lease;
use super::refusal::Denied;
use super::request::ReplyTo;
use super::server::Server;
use super::timer::Timer;
use crate::address::{AddressFamily, FiveTuple, RelayedAddr};
use crate::stun::Unknown;
use crate::stun::attribute::{
    AddressErrorCode, Lifetime, MobilityTicket, ReservationToken, XorMappedAddress, XorRelayedAddress,
};
use crate::stun::{ErrorCode, MessageBuilder};

/// How many ports are tried for one address. Ports that others hold are few, or there is something wrong.
const ATTEMPTS: u8 = 16;
/// How long a reserved port is kept (RFC 8656 section 7.2: at least 30 seconds).
const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// An Allocate request that waits for its sockets.
#[derive(Debug)]
pub(super) struct PendingAllocate {
    pub(super) reply: ReplyTo,
    pub(super) username: Box<str>,
    pub(super) identity: Option<Identity>,
    /// Relayed transport addresses that are kept for the user and were not tried yet.
    pub(super) granted: Vec<SocketAddr>,
    /// Those that were.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) peers: PeerTransport,
    pub(super) wants_ticket: bool,
    pub(super) lifetime: Duration,
    pub(super) lease: Lease,
    /// The token that the next port is reserved under.
    pub(super) token: Option<ReservationToken>,
    /// Whether it takes a port that was reserved before.
    pub(super) redeems: bool,
    /// One, or two for a dual allocation, IPv4 first.
    pub(super) slots: Vec<Slot>,
}

/// A relayed transport address to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    Waiting { relay: RelayId, wanted: Wanted, attempts: u8 },
    Bound { relay: RelayId, address: RelayedAddr },
    Failed { family: AddressFamily, cause: Cause },
}

/// Where a relayed transport address comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Port {
        address: RelayedAddr,
        parity: Parity,
    },
    Reserved(ReservationToken),
    /// One that is kept for the user.
    Granted {
        address: RelayedAddr,
        parity: Parity,
    },
}

impl Server {
    pub(super) fn bind_reserved(&mut self, reply: &ReplyTo, token: ReservationToken) -> Slot {
        let relay = self.allocations.add_relay(RelayOwner::Pending(reply.five_tuple));
        self.outbox.push(Effect::Bind { relay, request: BindRequest::Reserved(token) });
        Slot::Waiting { relay, wanted: Wanted::Reserved(token), attempts: 1 }
    }

    /// Has a socket bound for a family: on an address that is kept for the user, where there is any of the family, else on
    /// one that is picked.
    pub(super) fn bind_port(&mut self, pending: &mut PendingAllocate, family: AddressFamily, parity: Parity) {
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
        self.bind(pending, address, Wanted::Port { address, parity }, attempts)
    }

    /// Tries the next address that is kept for the user.
    fn bind_granted(
        &mut self,
        pending: &mut PendingAllocate,
        family: AddressFamily,
        parity: Parity,
        mut cause: Cause,
    ) -> Slot {
        while let Some(at) = pending.granted.iter().position(|address| AddressFamily::of(address.ip()) == family) {
            let public = pending.granted.remove(at);
            pending.tried.push(public);
            let is_kept = |port: Option<u16>| port.is_some_and(|port| self.ports.is_reserved(port));
            let Some(address) = self.relay_addresses.bound(public).filter(|_| is_kept(Some(public.port()))) else {
                continue;
            };
            // What the configuration keeps is nobody else's, whatever somebody has answered.
            if self.realms.keep_for_other(public, pending.lease.realm(), pending.lease.account()) {
                continue;
            }
            // The next port has to be the user's too.
            let next = public.port().checked_add(1);
            let mut of_user = pending.granted.iter().chain(&pending.tried);
            let mut has_next =
                || is_kept(next) && of_user.any(|other| (other.ip(), Some(other.port())) == (public.ip(), next));
            let is_free = |address| !self.ports.is_used(address);
            let fits = match parity {
                Parity::Any => true,
                Parity::Even => public.port().is_multiple_of(2),
                Parity::Pair => public.port().is_multiple_of(2) && has_next() && is_free(next_port(address)),
            };
            if !fits || !is_free(address) {
                cause = Cause::AddressInUse;
                continue;
            }
            self.ports.take(address);
            if parity == Parity::Pair {
                self.ports.take(next_port(address));
            }
            return self.bind(pending, address, Wanted::Granted { address, parity }, 1);
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
            (Wanted::Port { address, parity }, Err(error)) => {
                let family = AddressFamily::of(address.ip());
                self.release_ports(address, parity);
                self.allocations.remove_relay(relay);
                let cause = if error == BindError::InUse { Cause::NoPort } else { Cause::NoSocket };
                if error != BindError::InUse || attempts >= ATTEMPTS {
                    return Slot::Failed { family, cause };
                }
                self.bind_picked(pending, family, parity, attempts + 1, cause)
            }
            (Wanted::Granted { address, parity }, Err(error)) => {
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
        let PendingAllocate { reply, username, identity, peers, wants_ticket, lifetime, lease, token, slots, .. } =
            pending;

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
    pub(super) fn failure(&self, pending: &PendingAllocate) -> Denied {
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
                        Wanted::Port { address, parity } | Wanted::Granted { address, parity } => {
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

    pub(super) fn abandon_token(&mut self, token: Option<ReservationToken>) {
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

/// A port that the driver keeps for whoever brings the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reservation {
    pub(super) expires: Instant,
    pub(super) address: RelayedAddr,
}

impl PendingAllocate {
    pub(super) fn is_waiting(&self) -> bool {
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

fn bind_request(address: RelayedAddr, peers: PeerTransport, token: Option<ReservationToken>) -> BindRequest {
    match (peers, token) {
        (PeerTransport::Tcp, _) => BindRequest::Stream(address),
        (PeerTransport::Udp, Some(token)) => BindRequest::Pair(address, token),
        (PeerTransport::Udp, None) => BindRequest::Port(address),
    }
}

impl Wanted {
    fn is_pair(&self) -> bool {
        matches!(self, Self::Port { parity: Parity::Pair, .. } | Self::Granted { parity: Parity::Pair, .. })
    }
}
