//! New settings for a server that runs.

use std::net::IpAddr;
use std::time::Instant;

use super::allocation::ChannelNumber;
use super::cause::Cause;
use super::config::Settings;
use super::connection::Connection;
use super::effect::{AllocationId, Now};
use super::known::Known;
use super::peer_policy::PeerPolicy;
use super::server::Server;
use super::ticket::Tickets;
use super::timer::Timer;

impl Server {
    /// Takes other settings. They hold for every request from now on, and take from allocations what the new policy
    /// forbids: permissions, channels and connections to peers end at once. Otherwise, what runs goes on.
    ///
    /// - A user that is no longer known can do nothing more with what it has, which ends with its lifetime. When the realm
    ///   is another one, clients are challenged with it and go on under the same name (RFC 8489 section 9.2.5).
    /// - From a relay address that is gone, no port is allocated any more, but those that are reserved may still be
    ///   redeemed. As long as [`Server::allocations_on`] counts any there, policy and translation should know the address
    ///   as one of the relay: for clients of this relay, the others are peers.
    /// - Where TCP relaying or mobility is turned off, allocations that have it keep it.
    /// - Lower limits end nothing.
    /// - Allocate requests that are under way get what was begun for them.
    pub fn reconfigure(&mut self, now: Now, settings: Settings) {
        // What is over already ends for that reason.
        self.expire(now.instant);
        let Settings {
            realms,
            freshness,
            nonce_keys,
            peer_policy,
            relay_addresses,
            networks,
            reserved_ports,
            translation,
            alternates,
            limits,
            tcp_relay,
            mobility,
            listeners,
        } = settings;
        self.realms.replace(realms);
        // Where they came from may be elsewhere now. Allocations remember theirs.
        self.authenticator.known = Known::new(freshness);
        self.authenticator.nonces.set_keys(&nonce_keys);
        self.ports.set_addresses(&relay_addresses, networks, reserved_ports);
        self.relay_addresses.replace(relay_addresses);
        self.translation = translation;
        self.redirect.set_alternates(alternates);
        self.listeners = listeners;
        self.limits = limits;
        self.tcp_relay = tcp_relay;
        self.knows_tcp |= tcp_relay;
        self.gives_tickets = mobility.is_some();
        if let Some(key) = mobility {
            self.tickets = Some(Tickets::new(&key));
        }
        if self.policy != peer_policy {
            let before = std::mem::replace(&mut self.policy, peer_policy);
            self.enforce_policy(now.instant, &before);
        }
    }

    /// Takes from all allocations what the policy forbids, which is another one than before.
    fn enforce_policy(&mut self, now: Instant, before: &PeerPolicy) {
        for id in self.allocations.ids() {
            for number in self.forbidden_channels(id) {
                self.forbid_channel(now, id, number);
            }
            for peer in self.forbidden_permissions(id) {
                self.forbid_permission(now, id, peer);
            }
        }
        // Who has connected to a relayed address needed a permission for its address, from whatever port it came.
        let is_forbidden = |connection: &Connection| {
            let peer = connection.peer;
            !self.policy.permits_address(peer.ip()) || before.permits(peer) && !self.policy.permits(peer)
        };
        let connections = self.connections.iter().filter(|(_, connection)| is_forbidden(connection));
        for connection in connections.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end_connection(connection, Cause::ForbiddenPeer);
        }
    }

    fn forbidden_channels(&self, id: AllocationId) -> Vec<ChannelNumber> {
        let Some(allocation) = self.allocations.find(id) else { return Vec::new() };
        let bound = allocation.channels.iter().filter(|(_, channel)| channel.is_bound());
        bound.filter(|(_, channel)| !self.policy.permits(channel.peer)).map(|(number, _)| *number).collect()
    }

    fn forbidden_permissions(&self, id: AllocationId) -> Vec<IpAddr> {
        let Some(allocation) = self.allocations.find(id) else { return Vec::new() };
        allocation.permissions.keys().copied().filter(|peer| !self.policy.permits_address(*peer)).collect()
    }

    /// Ends a channel as if its time were over: it can be bound to another peer as late as then.
    fn forbid_channel(&mut self, now: Instant, id: AllocationId, number: ChannelNumber) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        let Some(channel) = allocation.channels.get_mut(&number) else { return };
        self.timers.cancel(channel.timer, Timer::Channel(id, number));
        channel.expires = now;
        self.channel_expired(now, id, number);
    }

    fn forbid_permission(&mut self, now: Instant, id: AllocationId, peer: IpAddr) {
        let Some(allocation) = self.allocations.find_mut(id) else { return };
        let Some(permission) = allocation.permissions.get_mut(&peer) else { return };
        self.timers.cancel(permission.expires, Timer::Permission(id, peer));
        permission.expires = now;
        self.permission_expired(now, id, peer);
    }
}
