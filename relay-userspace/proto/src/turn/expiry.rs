//! The end of things: by time, by request, by the loss of a socket, by order of the operator, by shutdown.

use std::net::IpAddr;
use std::time::Instant;

use super::allocation::{Allocation, ChannelNumber, RelayOwner};
use super::channel_bind::CHANNEL_COOLDOWN;
use super::effect::{AllocationId, Effect, EndReason};
use super::flow::Base;
use super::server::Server;
use super::timer::Timer;
use crate::address::AddressFamily;
use crate::stun::attribute::ReservationToken;

impl Server {
    /// Ends all whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Relay(relay) => {
                    if let Some(RelayOwner::Allocation(id, family)) = self.allocations.owner_of(relay) {
                        self.remove_relay(id, family, EndReason::Expired);
                    }
                }
                Timer::Permission(id, peer) => self.permission_expired(now, id, peer),
                Timer::Channel(id, number) => self.channel_expired(now, id, number),
                Timer::Reservation(token) => self.reservation_expired(token),
                Timer::Connection(connection) => self.connection_expired(connection),
            }
        }
        self.retransmissions.forget_old(now);
    }

    /// Removes a permission whose end has come, and whose timer is no longer set.
    pub(super) fn permission_expired(&mut self, now: Instant, id: AllocationId, peer: IpAddr) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        allocation.update_flows(id, Base::Permission(peer), now, &mut self.outbox);
        allocation.revoke(peer);
    }

    /// Ends a channel whose end has come, and whose timer is no longer set; then forgets it.
    pub(super) fn channel_expired(&mut self, now: Instant, id: AllocationId, number: ChannelNumber) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        let Some(peer) = allocation.channels.get(&number).map(|channel| channel.peer) else { return };
        allocation.update_flows(id, Base::Permission(peer.ip()), now, &mut self.outbox);
        let Some(channel) = allocation.channels.get_mut(&number) else { return };
        channel.timer = channel.expires + CHANNEL_COOLDOWN;
        if now < channel.timer {
            self.timers.set(channel.timer, Timer::Channel(id, number));
        } else {
            allocation.unbind(number);
        }
    }

    /// Ends a reservation before its time, also one of another shard.
    pub(super) fn end_reservation(&mut self, token: ReservationToken) {
        if let Some(reservation) = self.reservations.get(&token) {
            self.timers.cancel(reservation.expires, Timer::Reservation(token));
        }
        self.reservation_expired(token);
    }

    fn reservation_expired(&mut self, token: ReservationToken) {
        if let Some(reservation) = self.reservations.remove(&token) {
            self.ports.release(reservation.address);
        }
        self.quotas.release(token);
        self.outbox.push(Effect::DropReservation { token });
    }

    /// Ends all that a client has.
    pub(super) fn end_allocation(&mut self, id: AllocationId, reason: EndReason) {
        let families: Vec<_> = self.allocations.find(id).into_iter().flat_map(Allocation::families).collect();
        for family in families {
            self.end_relay(id, family, reason);
        }
    }

    /// Ends a relayed transport address before its time.
    pub(super) fn end_relay(&mut self, id: AllocationId, family: AddressFamily, reason: EndReason) {
        if let Some(relay) = self.allocations.find(id).and_then(|allocation| allocation.relay(family)) {
            self.timers.cancel(relay.expires, Timer::Relay(relay.id));
            self.remove_relay(id, family, reason);
        }
    }

    /// Removes a relayed transport address whose timer is no longer set, with all permissions, channels and
    /// connections of its family; and with the last one the allocation.
    fn remove_relay(&mut self, id: AllocationId, family: AddressFamily, reason: EndReason) {
        self.end_connections(id, family);
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        allocation.end_flows(id, family, &mut self.outbox);
        let Some(relay) = allocation.take_relay(family) else { return };
        for number in channels_in(allocation, family) {
            if let Some(channel) = allocation.unbind(number) {
                self.timers.cancel(channel.timer, Timer::Channel(id, number));
            }
        }
        for peer in permissions_in(allocation, family) {
            if let Some(permission) = allocation.revoke(peer) {
                self.timers.cancel(permission.expires, Timer::Permission(id, peer));
            }
        }
        let was_last = allocation.families().next().is_none();
        self.ports.release(relay.address);
        self.allocations.remove_relay(relay.id);
        self.outbox.push(Effect::Close { relay: relay.id });
        if was_last {
            self.allocations.remove(id);
            self.outbox.push(Effect::Freed { allocation: id, reason });
        }
    }

    /// Ends everything.
    pub(super) fn end_all(&mut self) {
        let pending: Vec<_> = self.pending.drain().map(|(_, pending)| pending).collect();
        for pending in pending {
            self.abandon(&pending);
        }
        for id in self.allocations.ids() {
            self.end_allocation(id, EndReason::Shutdown);
        }
        let reservations: Vec<_> = self.reservations.keys().copied().collect();
        for token in reservations {
            self.end_reservation(token);
        }
    }
}

fn channels_in(allocation: &Allocation, family: AddressFamily) -> Vec<ChannelNumber> {
    let of_family = allocation.channels.iter().filter(|(_, channel)| AddressFamily::of(channel.peer.ip()) == family);
    of_family.map(|(number, _)| *number).collect()
}

fn permissions_in(allocation: &Allocation, family: AddressFamily) -> Vec<IpAddr> {
    allocation.permissions.keys().copied().filter(|peer| AddressFamily::of(*peer) == family).collect()
}
